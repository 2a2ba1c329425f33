/*-------------------------------------------------------------------------
 *
 * quoting.c
 *	  Hostile names and values through everything that writes statements for blue.
 *
 * A set of names and values goes through the functions of a dialect twice: once
 * harmless (Nm_table, vl_one), once hostile.  What comes out is taken apart into
 * items - on PostgreSQL the nodes of the raw parser's tree, on SQL Server the
 * tokens of the lexer below, which follows the documented rules of T-SQL and
 * goes into EXEC(N'...').  Both must have the same items in the same order,
 * but for names and values, which must come out byte for byte: then there is
 * one statement, and nothing of what was put into it was taken for something else.
 *
 * quoting(dialect, seed, sets): "statements items"; ERROR with the first that differs.
 * quoting_statements(dialect, seed): the statements of one set.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "call.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "tsql.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

BCMIG_FUNCTION(quoting);
BCMIG_FUNCTION(quoting_statements);

/* ---- names and values ---- */

typedef enum What
{
	SCHEMA, TABLE, KEY1, KEY2, COLUMN, VERSION, COMPANION, SYNC, LOGIN, GREEN, NONCE, NNAMES,
	VALUE1 = NNAMES, VALUE2, VALUE3, VALUE4, TEXT, ROW, JSONKEY, NWHATS
} What;

static const char *const harmless[NWHATS] = {"Nm_schema", "Nm_table", "Nm_key1", "Nm_key2", "Nm_column", "Nm_version",
	"Nm_companion", "Nm_sync", "Nm_login", "Nm_green", "Nm_nonce",
"vl_one", "vl_two", "vl_three", "vl_four", "vl_text", "vl_row", "vl_jsonkey"};

static const char *const pieces[] = {"'", "''", "'''", "\"", "\"\"", "[", "]", "]]", ";", "--", "/*", "*/", "/* */", "\n", "\r\n", "\nGO\n", "\\", "\\'",
	"\\\\", "$systemId", "$(PATH)", "$$", "$a$", "%n%s%1$s", "\x01", "\x7f", "\t", " ", "  ", ".", ",", "(", ")", "@x", "#t", "E'", "N'", "U&'", "0x", "{", "}", "?", ":v", "a", "Z", "0",
	"_", "null", "NULL", "select", "ORDER", "table", "DROP TABLE x", "'; DROP TABLE x; --", "]; DROP TABLE x; --", "\"; DROP TABLE x; --",
	"\xe2\x80\x98", "\xe2\x80\x99", "\xef\xbc\x87", "\xca\xbc", "\xe2\x80\x9d", "\xef\xbc\x82", "\xef\xbc\xbd", "\xef\xbc\x9b", "\xe2\x80\xa8", "\xc2\x85",
	"\xc2\xa0", "\xef\xbb\xbf", "\xe2\x80\xae", "\xf0\x9f\x98\x80", "\xcc\x81", "\xc3\xa4", "\xe2\x88\x92", "\xef\xbc\x8d\xef\xbc\x8d"};

static uint64 state;

static uint64
next(uint64 bound)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % bound;
}

static char *
hostile(bool name, bool tsql)
{
	StringInfoData s;
	int			n = next(8) == 0 ? 64 : 1 + next(6);
	int			most = !name ? 2000 : tsql ? 128 : NAMEDATALEN - 1;

	initStringInfo(&s);
	for (int i = 0; i < n; i++)
		appendStringInfoString(&s, pieces[next(lengthof(pieces))]);

	/* SQL Server counts UTF-16 units: no name has more than 128 of them here */
	s.data[pg_mbcliplen(s.data, s.len, most)] = '\0';

	/* one PostgreSQL would not quote is of no interest */
	if (name && strspn(s.data, "abcdefghijklmnopqrstuvwxyz0123456789_") == strlen(s.data))
		return psprintf("%.20sQ", s.data);
	return s.data;
}

/* the text of an array, as a blue answers */
static Datum
bound_of(char *one, char *two)
{
	Datum		values[2] = {CStringGetTextDatum(one), CStringGetTextDatum(two)};

	return PointerGetDatum(construct_array(values, 2, TEXTOID, -1, false, TYPALIGN_INT));
}

/* ---- statements ---- */

/* a statement of a dialect, or a script of some */
typedef struct Made
{
	const char *what;
	char	   *sql;
} Made;

static List *
add(List *made, const char *what, char *sql)
{
	Made	   *m = palloc(sizeof(Made));

	m->what = what;
	m->sql = sql;
	return lappend(made, m);
}

static List *
make_statements(const BcmigDialect *d, char **w)
{
	bool		tsql = d == &bcmig_dialect_tsql;
	BcmigColumn columns[] = {
		{.source = w[KEY1], .source_type = "character varying(20)", .native_type = "nvarchar(20)", .key_position = 1},
		{.source = w[KEY2], .source_type = "text", .native_type = "varchar(20)", .key_position = 2},
		{.source = w[COLUMN], .source_type = "text", .native_type = "nvarchar(max)"},
	};
	int			keys[] = {0, 1};
	char	   *companion_keys[] = {w[KEY1], w[KEY2]};
	BcmigCompanion companion = {.schema = w[SCHEMA], .table = w[COMPANION], .version_column = w[VERSION], .nkeys = 2, .keys = companion_keys};
	BcmigTableInfo t = {.sync_name = w[SYNC], .source_schema = w[SCHEMA], .source_table = w[TABLE], .target_name = "t", .capture = "change_tracking",
		.version_column = w[VERSION], .ncolumns = 3, .columns = columns, .nkeys = 2, .keys = keys, .identity_column = -1,
	.ncompanions = tsql ? 1 : 0, .companions = &companion};
	BcmigChunking chunking = {.buckets = true, .size = 4, .image = d->hash->image};
	BcmigChunks chunk = {0, 1};
	char	   *key_values[] = {w[VALUE1], w[VALUE2], w[VALUE3], w[VALUE4]};
	BcmigName	name = {w[SCHEMA], w[TABLE]};
	BcmigScriptTable script_table = {.schema = w[SCHEMA], .table = w[TABLE], .capture = "change_tracking", .has_key = true, .asked = true};
	BcmigScriptTable no_key = {.schema = w[SCHEMA], .table = w[TABLE], .capture = "change_tracking"};
	BcmigWatched watched = {w[SCHEMA], w[TABLE], "rowversion", w[SCHEMA], w[TABLE]};
	BcmigWatched tracked = {w[SCHEMA], w[TABLE], "change_tracking", w[SCHEMA], w[TABLE]};
	int64		id = 7;
	BcmigReverse reverse = {.key = w[JSONKEY], .nids = 1, .ids = &id, .nknown = 1, .known = {{.version = 5, .row = w[JSONKEY]}}, .row = w[ROW]};
	List	   *all_columns = list_make3_int(0, 1, 2);
	Datum		lower = bound_of(w[VALUE1], w[VALUE2]);
	Datum		upper = bound_of(w[VALUE3], w[VALUE4]);
	List	   *made = NIL;
	ListCell   *lc;

	made = add(made, "window", d->window(&t, 5, tsql ? "5:6:7:8" : "5:9:", 0));
	t.capture = "rowversion";
	made = add(made, "window by version", d->window(&t, 5, tsql ? "5:6:7:8" : "5:9:", 0));
	t.capture = "change_tracking";
	made = add(made, "chunk", d->chunk(&t, lower, upper));
	made = add(made, "rows_by_key", d->rows_by_key(&t, 2, key_values));
	made = add(made, "key_list", d->key_list(&t));
	made = add(made, "chunk_bound", d->chunk_bound(&t, lower, 100));
	made = add(made, "table_size", d->table_size(&t));
	made = add(made, "lost_traces", d->lost_traces(&t, "1,2"));
	made = add(made, "poll", d->poll(tsql ? "5:6:7:8" : "5:9:", list_make1(&watched), false));
	made = add(made, "sums", d->hash->sums(&t, &chunking, list_make1(&chunk), false));
	made = add(made, "rows", d->hash->rows(&t, &chunking, list_make1(&chunk), false));
	made = add(made, "pull", d->hash->pull(&t, &chunking, NIL));
	made = add(made, "extent", d->hash->extent(&t));
	foreach(lc, d->describe(list_make1(&name)))
		made = add(made, "describe", lfirst(lc));
	foreach(lc, d->fence->state(list_make1(&name), w[LOGIN]))
		made = add(made, "fence state", lfirst(lc));
	made = add(made, "fence script", d->fence->script(list_make1(&name), w[LOGIN], true));
	made = add(made, "unfence script", d->fence->script(list_make1(&name), w[LOGIN], false));
	made = add(made, "version_index", d->version_index(&t));
	if (tsql)
	{
		char	   *values[] = {w[VALUE1], w[VALUE2], w[TEXT]};
		char	  **rows[] = {values};
		char	  **row_keys[] = {key_values};

		foreach(lc, d->moved("5:6:7:8", "6:6:7:8", list_make1(&tracked)))
			made = add(made, "moved", lfirst(lc));
		made = add(made, "with_rows", d->with_rows(list_make1(&name)));
		made = add(made, "login script", d->script("login", w[LOGIN], list_make1(&script_table)));
		made = add(made, "tracking script", d->script("tracking", w[LOGIN], list_make2(&script_table, &no_key)));
		made = add(made, "cleanup script", d->script("cleanup", w[LOGIN], list_make1(&script_table)));
		made = add(made, "reverse script", d->reverse_batch(&t, w[GREEN], all_columns, 1, &reverse, row_keys, rows));
		rows[0] = NULL;
		made = add(made, "reverse script", d->reverse_batch(&t, w[GREEN], all_columns, 1, &reverse, row_keys, rows));
	}
	else
	{
		made = add(made, "fence call", d->fence->call(list_make1(&name), true, 5));
		made = add(made, "witness get", d->witness->get(w[SYNC]));
		made = add(made, "witness put", d->witness->put(w[SYNC], w[GREEN], 5, w[NONCE]));
		made = add(made, "replay", d->replay(&t, w[GREEN], all_columns, 1, &reverse));
		made = add(made, "replayed", d->replayed(&t, w[GREEN], 5));
		made = add(made, "cleanup script", d->script("cleanup", w[LOGIN], list_make1(&script_table)));
	}
	return made;
}

/* ---- items ---- */

typedef struct Part
{
	char		kind;			/* n name, s string, others by themselves */
	int			tag;
	char	   *text;
} Part;

typedef struct Parts
{
	int			n;
	int			room;
	Part	   *items;
} Parts;

static void
item(Parts *to, char kind, int tag, const char *text)
{
	if (to->n == to->room)
	{
		to->room = Max(2 * to->room, 256);
		to->items = to->items ? repalloc(to->items, sizeof(Part) * to->room) : palloc(sizeof(Part) * to->room);
	}
	to->items[to->n++] = (Part) {kind, tag, text ? pstrdup(text) : NULL};
}

/* ---- items of a tree ---- */

static void
names_of(Parts *to, int tag, List *names)
{
	ListCell   *lc;

	foreach(lc, names)
		item(to, 'n', tag, IsA(lfirst(lc), String) ? strVal(lfirst(lc)) : NULL);
}

static void
relation_of(Parts *to, const RangeVar *r)
{
	item(to, 'n', T_RangeVar, r->schemaname);
	item(to, 'n', T_RangeVar, r->relname);
	item(to, 'n', T_RangeVar, r->alias ? r->alias->aliasname : NULL);
}

static bool
walk(Node *node, Parts *to)
{
	if (node == NULL)
		return false;
	CHECK_FOR_INTERRUPTS();
	if (!IsA(node, List))
		item(to, 't', nodeTag(node), NULL);
	switch (nodeTag(node))
	{
		case T_ColumnRef:
			names_of(to, T_ColumnRef, ((ColumnRef *) node)->fields);
			return false;
		case T_A_Const:
			{
				A_Const    *c = (A_Const *) node;

				if (!c->isnull && IsA(&c->val, String))
					item(to, 's', T_String, strVal(&c->val));
				else
					item(to, 'c', c->isnull ? T_Invalid : (int) nodeTag(&c->val), NULL);
				return false;
			}
		case T_RangeVar:
			relation_of(to, (RangeVar *) node);
			return false;
		case T_Alias:
			item(to, 'n', T_Alias, ((Alias *) node)->aliasname);
			names_of(to, T_Alias, ((Alias *) node)->colnames);
			return false;
		case T_RangeSubselect:
			if (((RangeSubselect *) node)->alias != NULL)
				(void) walk((Node *) ((RangeSubselect *) node)->alias, to);
			break;
		case T_RangeFunction:
			if (((RangeFunction *) node)->alias != NULL)
				(void) walk((Node *) ((RangeFunction *) node)->alias, to);
			break;
		case T_JoinExpr:
			names_of(to, T_JoinExpr, ((JoinExpr *) node)->usingClause);
			break;
		case T_ResTarget:
			item(to, 'n', T_ResTarget, ((ResTarget *) node)->name);
			break;
		case T_FuncCall:
			names_of(to, T_FuncCall, ((FuncCall *) node)->funcname);
			break;
		case T_TypeName:
			names_of(to, T_TypeName, ((TypeName *) node)->names);
			break;
		case T_CommonTableExpr:
			item(to, 'n', T_CommonTableExpr, ((CommonTableExpr *) node)->ctename);
			names_of(to, T_CommonTableExpr, ((CommonTableExpr *) node)->aliascolnames);
			break;
		default:
			break;
	}
	return raw_expression_tree_walker(node, walk, to);
}

static Parts
postgres_items(const char *sql)
{
	Parts		items = {0};
	ListCell   *lc;

	foreach(lc, raw_parser(sql, RAW_PARSE_DEFAULT))
	{
		Node	   *statement = lfirst_node(RawStmt, lc)->stmt;

		item(&items, ';', nodeTag(statement), NULL);
		if (IsA(statement, IndexStmt))
		{
			relation_of(&items, ((IndexStmt *) statement)->relation);
			item(&items, 'n', T_IndexElem, linitial_node(IndexElem, ((IndexStmt *) statement)->indexParams)->name);
		}
		else if (IsA(statement, DropRoleStmt))
			item(&items, 'n', T_RoleSpec, linitial_node(RoleSpec, ((DropRoleStmt *) statement)->roles)->rolename);
		else if (IsA(statement, DropOwnedStmt))
			item(&items, 'n', T_RoleSpec, linitial_node(RoleSpec, ((DropOwnedStmt *) statement)->roles)->rolename);
		else if (IsA(statement, SelectStmt))
			(void) walk(statement, &items);
	}
	return items;
}

/* ---- items of T-SQL ---- */

/*
 * Quotes of each kind are doubled inside; QUOTED_IDENTIFIER is on, so "..." is a
 * name; comments of stars nest; one of dashes ends at the line.  After EXEC( a
 * string is a batch of its own.  A line of GO ends a batch for the tools that
 * run scripts, where they look for it: not inside of a quote we can vouch for,
 * so there must be none in a string of a script at all.
 */
static void
tsql_items(Parts *to, const char *sql)
{
	StringInfoData s;
	bool		exec = false;	/* EXEC and a parenthesis stand before */

	initStringInfo(&s);
	for (const char *p = sql; *p;)
	{
		char		close = *p == '[' ? ']' : *p == '"' ? '"' : *p == '\'' || ((*p == 'N' || *p == 'n') && p[1] == '\'') ? '\'' : '\0';

		if (close != '\0')
		{
			char		kind = close == '\'' ? 's' : 'n';

			resetStringInfo(&s);
			for (p += *p == 'N' || *p == 'n' ? 2 : 1;; p++)
			{
				if (*p == '\0')
					elog(ERROR, "a quote has no end: %s", sql);
				if (*p == close && *++p != close)
					break;
				appendStringInfoChar(&s, *p);
			}
			if (exec && kind == 's')
			{
				item(to, '<', 0, NULL);
				tsql_items(to, pstrdup(s.data));
				item(to, '>', 0, NULL);
			}
			else
				item(to, kind, 0, s.data);
			exec = false;
		}
		else if (p[0] == '-' && p[1] == '-')
		{
			p += strcspn(p, "\r\n");
			item(to, '-', 0, NULL);
		}
		else if (p[0] == '/' && p[1] == '*')
		{
			int			depth = 0;

			do
			{
				if (*p == '\0')
					elog(ERROR, "a comment has no end: %s", sql);
				if ((p[0] == '/' && p[1] == '*') || (p[0] == '*' && p[1] == '/'))
				{
					depth += *p == '/' ? 1 : -1;
					p++;
				}
				p++;
			} while (depth > 0);
			item(to, '-', 0, NULL);
		}
		else if (isalnum((unsigned char) *p) || strchr("_@#$", *p) != NULL || IS_HIGHBIT_SET(*p))
		{
			size_t		n = 1;

			while (isalnum((unsigned char) p[n]) || (p[n] != '\0' && strchr("_@#$", p[n]) != NULL) || IS_HIGHBIT_SET(p[n]))
				n++;
			/* binary literals: of a hash of names, and of values */
			item(to, 'w', 0, p[0] == '0' && (p[1] == 'x' || p[1] == 'X') ? "0x" : pnstrdup(p, n));
			exec = pg_strncasecmp(p, "EXEC", 4) == 0 && n == 4;
			p += n;
		}
		else
		{
			if (!isspace((unsigned char) *p))
			{
				item(to, *p, 0, NULL);
				exec = exec && *p == '(';
			}
			p++;
		}
	}
}

/* ---- the same but for names and values? ---- */

static char *
replaced(const char *text, const char *from, const char *to)
{
	StringInfoData s;
	const char *p;

	initStringInfo(&s);
	while ((p = strstr(text, from)) != NULL)
	{
		appendBinaryStringInfo(&s, text, p - text);
		appendStringInfoString(&s, to);
		text = p + strlen(from);
	}
	appendStringInfoString(&s, text);
	return s.data;
}

/* what stands for a harmless text when the words are those of "w" */
static char *
expected(const char *plain_text, bool tsql, char **w, char **plain)
{
	char	   *result = pstrdup(plain_text);

	if (strstr(plain_text, "Nm_") == NULL && strstr(plain_text, "vl_") == NULL && strncmp(plain_text, "c_", 2) != 0)
		return result;
	/* blue's change table is named by a hash of the table's name */
	if (!tsql && strncmp(plain_text, "c_", 2) == 0 && strlen(plain_text) == 34)
	{
		char	   *name = psprintf("%s.%s", bcmig_postgres_ident(w[SCHEMA]), bcmig_postgres_ident(w[TABLE]));

		return psprintf("c_%s", TextDatumGetCString(DirectFunctionCall1Coll(md5_text, C_COLLATION_OID, CStringGetTextDatum(name))));
	}
	for (int i = 0; i < NWHATS; i++)
	{
		if (strcmp(plain_text, plain[i]) == 0)
			return w[i];
	}

	/* first to marks no word holds, then to the words: one may hold the next one's name */
	for (int i = 0; i < NWHATS; i++)
	{
		const char *quoted;

		if (strstr(result, plain[i]) == NULL)
			continue;
		quoted = tsql ? bcmig_tsql_identifier(plain[i]) : bcmig_postgres_ident(plain[i]);

		result = replaced(result, quoted, psprintf("\x02%dq\x03", i));
		result = replaced(result, plain[i], psprintf("\x02%dp\x03", i));
	}
	for (int i = 0; i < NWHATS && strchr(result, 2) != NULL; i++)
	{
		result = replaced(result, psprintf("\x02%dq\x03", i), tsql ? bcmig_tsql_identifier(w[i]) : bcmig_postgres_ident(w[i]));
		result = replaced(result, psprintf("\x02%dp\x03", i), w[i]);
	}
	return result;
}

/* a literal of a script that was put together of pieces: as one */
static Parts
joined(const Parts *from)
{
	Parts		to = {0};

	for (int i = 0; i < from->n; i++)
	{
		const Part *x = &from->items[i];

		item(&to, x->kind, x->tag, x->text);
		if (x->kind != 's')
			continue;

		/* ( CONVERT ( nvarchar ( max ) , '' ) + 'piece' + NCHAR ( n ) + ... ) */
		if (x->text[0] == '\0' && i + 2 < from->n && from->items[i + 1].kind == ')' && from->items[i + 2].kind == '+' && to.n >= 9 &&
			to.items[to.n - 9].kind == '(')
		{
			StringInfoData s;
			int			k = i + 3;

			initStringInfo(&s);
			for (;;)
			{
				if (from->items[k].kind == 's')
					appendStringInfoString(&s, from->items[k++].text);
				else
				{
					appendStringInfoChar(&s, atoi(from->items[k + 2].text));
					k += 4;
				}
				if (k >= from->n || from->items[k].kind != '+')
					break;
				k++;
			}
			to.n -= 9;
			item(&to, 's', x->tag, s.data);
			i = k;				/* the last parenthesis */
		}
	}
	return to;
}

static void
compare(const BcmigDialect *d, const Made *plain, const Made *made, char **plain_words, char **words, int64 *nitems)
{
	bool		tsql = d == &bcmig_dialect_tsql;
	Parts		a = {0};
	Parts		b = {0};

	if (tsql)
	{
		tsql_items(&a, plain->sql);
		tsql_items(&b, made->sql);
		if (strcmp(made->what, "reverse script") == 0)
		{
			for (int i = 0; i < b.n; i++)
			{
				if (b.items[i].kind == 's' && strstr(b.items[i].text, "[") == NULL && (strpbrk(b.items[i].text, "\r\n") || strstr(b.items[i].text, "$(")))
					elog(ERROR, "a literal of a script that a tool would read into: %s", made->sql);
			}
			b = joined(&b);
		}
	}
	else
	{
		a = postgres_items(plain->sql);
		b = postgres_items(made->sql);
		if (strstr(made->what, "script") == NULL && list_length(raw_parser(made->sql, RAW_PARSE_DEFAULT)) != 1)
			elog(ERROR, "%s is not one statement: %s", made->what, made->sql);
	}
	for (int i = 0; i < Max(a.n, b.n); i++)
	{
		const Part *x = i < a.n ? &a.items[i] : NULL;
		const Part *y = i < b.n ? &b.items[i] : NULL;
		char	   *wanted = x != NULL && x->text != NULL && (x->kind == 'n' || x->kind == 's') ? expected(x->text, tsql, words, plain_words) :
			x != NULL ? x->text : NULL;

		/* names like it are looked for without blanks around it */
		if (x != NULL && y != NULL && x->kind == 's' && strcmp(made->what, "describe") == 0 && strcmp(x->text, plain_words[TABLE]) == 0 &&
			y->text != NULL && strcmp(wanted, y->text) != 0)
			wanted = TextDatumGetCString(DirectFunctionCall1(btrim1, CStringGetTextDatum(wanted)));
		if (x == NULL || y == NULL || x->kind != y->kind || x->tag != y->tag || (wanted == NULL) != (y->text == NULL) ||
			(wanted != NULL && strcmp(wanted, y->text) != 0))
			elog(ERROR, "%s: item %d is %c %d \"%s\", not %c %d \"%s\": %s", made->what, i, y ? y->kind : '?', y ? y->tag : 0, y && y->text ? y->text : "",
				 x ? x->kind : '?', x ? x->tag : 0, wanted ? wanted : "", made->sql);
	}
	*nitems += b.n;
}

static const BcmigDialect *
dialect_of(text *name)
{
	return strcmp(text_to_cstring(name), "tsql") == 0 ? &bcmig_dialect_tsql : &bcmig_dialect_postgres;
}

static void
make_words(const BcmigDialect *d, char **words)
{
	for (int i = 0; i < NWHATS; i++)
	{
		words[i] = hostile(i < NNAMES, d == &bcmig_dialect_tsql);
		if (i == JSONKEY)
		{
			StringInfoData s;

			/* as jsonb prints it */
			initStringInfo(&s);
			escape_json(&s, words[i]);
			words[i] = psprintf("[%s]", s.data);
		}
	}
}

Datum
quoting(PG_FUNCTION_ARGS)
{
	const BcmigDialect *d = dialect_of(PG_GETARG_TEXT_PP(0));
	int			sets = PG_GETARG_INT32(2);
	MemoryContext one = AllocSetContextCreate(CurrentMemoryContext, "one set", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext;
	int64		statements = 0;
	int64		items = 0;
	char	   *plain_words[NWHATS];
	List	   *plain;

	state = PG_GETARG_INT64(1) * UINT64CONST(0x9E3779B97F4A7C15) | 1;
	memcpy(plain_words, harmless, sizeof(plain_words));
	plain_words[JSONKEY] = "[\"vl_jsonkey\"]";
	plain = make_statements(d, plain_words);
	for (int i = 0; i < sets; i++)
	{
		char	   *words[NWHATS];
		ListCell   *a;
		ListCell   *b;
		List	   *made;

		CHECK_FOR_INTERRUPTS();
		oldcontext = MemoryContextSwitchTo(one);
		make_words(d, words);
		made = make_statements(d, words);
		if (list_length(made) != list_length(plain))
			elog(ERROR, "%d statements, not %d", list_length(made), list_length(plain));
		forboth(a, plain, b, made)
			compare(d, lfirst(a), lfirst(b), plain_words, words, &items);
		statements += list_length(made);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(one);
	}
	PG_RETURN_TEXT_P(cstring_to_text(psprintf(INT64_FORMAT " " INT64_FORMAT, statements, items)));
}

Datum
quoting_statements(PG_FUNCTION_ARGS)
{
	const BcmigDialect *d = dialect_of(PG_GETARG_TEXT_PP(0));
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *words[NWHATS];
	ListCell   *lc;

	state = PG_GETARG_INT64(1) * UINT64CONST(0x9E3779B97F4A7C15) | 1;
	InitMaterializedSRF(fcinfo, 0);
	make_words(d, words);
	foreach(lc, make_statements(d, words))
	{
		Made	   *m = lfirst(lc);
		Datum		values[2] = {CStringGetTextDatum(m->what), CStringGetTextDatum(m->sql)};
		bool		nulls[2] = {false, false};

		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
