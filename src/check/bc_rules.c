/*-------------------------------------------------------------------------
 *
 * bc_rules.c
 *	  Rules Business Central's own posting code guarantees, made per company.
 *
 * They are made anew when a validation comes to its rules: by then the tables
 * are there, and whatever became of them since the last run - new columns, a
 * table removed - is seen.  What has not changed is not written, so that is some
 * dozen statements for a company, however many tables it has.
 *
 * A rule is made where every table and column it needs is there, of the same
 * company and schema.  Types are not looked at: in a green table somebody made
 * with others the rule raises, which is said as its verdict.
 *
 * Some rules hold for every table that has a certain column.  They look at many
 * tables at once; a big table has one to itself, so that rule_timeout is for it
 * alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "bc_rules.h"

#include "rule.h"

#include "dialect.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "readable.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define TABLES_OF_A_RULE	50
#define BIG_TABLE			"104857600" /* bytes */

/* rules of a company on their way to bcmig.rule, a list of texts for each column */
typedef struct Made
{
	const char *company;
	List	   *tables;			/* of the company: BcmigReadTable * */
	List	   *table_ids;		/* "0" = none */
	List	   *names;
	List	   *kinds;
	List	   *severities;
	List	   *queries;
	List	   *blue_queries;	/* "" = none */
} Made;

static void
add_rule(Made *m, int table_id, char *name, const char *kind, const char *severity, char *query, char *blue_query)
{
	m->table_ids = lappend(m->table_ids, psprintf("%d", table_id));
	m->names = lappend(m->names, psprintf("%s: %s", m->company, name));
	m->kinds = lappend(m->kinds, unconstify(char *, kind));
	m->severities = lappend(m->severities, unconstify(char *, severity));
	m->queries = lappend(m->queries, query);
	m->blue_queries = lappend(m->blue_queries, blue_query);
}

/* ---- rules over certain tables ---- */

typedef struct Bound
{
	char		alias;
	BcmigReadTable *table;
} Bound;

/* what stands in brackets at *p, which moves behind them: its alias; *column NULL = the table */
static char
take_name(const char **p, char **column)
{
	const char *end = strchr(*p, ']');
	char		alias = (*p)[1];

	*column = (*p)[2] == '.' ? pnstrdup(*p + 3, end - (*p + 3)) : NULL;
	*p = end + 1;
	return alias;
}

/* has the table all columns the query needs of it? */
static bool
has_columns(BcmigReadTable *table, char alias, const char *query)
{
	int			braces = 0;

	while (*query)
	{
		char	   *column;

		if (*query != '[')
		{
			braces += (*query == '{') - (*query == '}');
			query++;
			continue;
		}
		if (take_name(&query, &column) == alias && column != NULL && braces == 0 && bcmig_find_column(table, column) == NULL)
			return false;
	}
	return true;
}

/* two apps may have a table of the same name; NULL = none has what it takes */
static BcmigReadTable *
find_table(List *tables, const char *schema, const char *al_name, char alias, const char *query)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		BcmigReadTable *t = lfirst(lc);

		if (bcmig_same_name(al_name, t->al_table) && (schema == NULL || strcmp(schema, t->schema) == 0) &&
			has_columns(t, alias, query))
			return t;
	}
	return NULL;
}

/* a table or column, as SQL; NULL = not there */
static const char *
render_name(const Bound *bound, char alias, const char *column)
{
	const BcmigReadColumn *c;

	while (bound->alias != alias)
		bound++;
	if (column == NULL)
		return psprintf("%s %c", quote_qualified_identifier(bound->table->schema, bound->table->name), alias);
	c = bcmig_find_column(bound->table, column);
	return c ? psprintf("%c.%s", alias, quote_identifier(c->target)) : NULL;
}

/* the query with names of green */
static char *
render(const Bound *bound, const char *query)
{
	StringInfoData s;
	int			optional = -1;	/* where a part in braces began */

	initStringInfo(&s);
	while (*query)
	{
		if (*query == '[')
		{
			char	   *column;
			char		alias = take_name(&query, &column);
			const char *name = render_name(bound, alias, column);

			if (name != NULL)
			{
				appendStringInfoString(&s, name);
				continue;
			}
			Assert(optional >= 0);
			s.len = optional;
			s.data[s.len] = '\0';
			query = strchr(query, '}');
		}
		else if (*query == '{')
			optional = s.len;
		else if (*query != '}')
			appendStringInfoChar(&s, *query);
		query++;
	}
	return s.data;
}

static void
make_rule(Made *m, const BcmigBcRule *rule)
{
	Bound		bound[BCMIG_RULE_TABLES + 1] = {{0}};

	for (int i = 0; i < BCMIG_RULE_TABLES && rule->tables[i].name != NULL; i++)
	{
		bound[i].alias = rule->tables[i].alias;
		bound[i].table = find_table(m->tables, i ? bound[0].table->schema : NULL, rule->tables[i].name,
									rule->tables[i].alias, rule->query);
		if (bound[i].table == NULL)
			return;
	}
	if (rule->unless != NULL && render_name(bound, rule->unless[0], rule->unless + 2) != NULL)
		return;
	add_rule(m, bound[0].table->table_id, psprintf("%s %s", rule->id, rule->what), rule->kind, rule->severity,
			 render(bound, rule->query), "");
}

/* ---- rules over every table ---- */

/* a table and what it has of what those rules are about; names are quoted, of alias g */
typedef struct Every
{
	int			table_id;
	char	   *al_table;
	char	   *name;
	char	   *key;			/* a jsonb array */
	char	   *dimensions;		/* "Dimension Set ID"; each NULL = has none */
	char	   *companions;		/* condition: a companion has no row */
	char	   *identity;		/* $systemId */
	bool		unique;			/* an index keeps it so */
	bool		big;
} Every;

/* a rule over every table: the rows of one that break it, as a SELECT; NULL = does not concern it */
typedef char *(*EveryQuery) (const Every *t, const BcmigReadTable *sets);

static char *
no_dimension_set(const Every *t, const BcmigReadTable *sets)
{
	/* nodes of the tree have ids of which not all are sets */
	if (t->dimensions == NULL || sets == NULL || t->table_id == sets->table_id ||
		bcmig_same_name(t->al_table, "Dimension Set Tree Node"))
		return NULL;
	return psprintf("SELECT %s AS \"table\", %s AS key, %s AS dimension_set FROM %s g WHERE %s <> 0 AND NOT EXISTS (SELECT FROM %s s WHERE s.%s = %s)",
					quote_literal_cstr(t->al_table), t->key, t->dimensions, t->name, t->dimensions,
					quote_qualified_identifier(sets->schema, sets->name),
					quote_identifier(bcmig_find_column(unconstify(BcmigReadTable *, sets), "Dimension Set ID")->target), t->dimensions);
}

/* Business Central has NULL in no column but BLOBs */
static char *
no_companion(const Every *t, const BcmigReadTable *sets)
{
	if (t->companions == NULL)
		return NULL;
	return psprintf("SELECT %s AS \"table\", %s AS key FROM %s g WHERE %s", quote_literal_cstr(t->al_table), t->key, t->name, t->companions);
}

static char *
no_identity(const Every *t, const BcmigReadTable *sets)
{
	if (t->identity == NULL)
		return NULL;
	return psprintf("SELECT %s AS \"table\", %s AS system_id, count(*) AS times FROM %s g %s",
					quote_literal_cstr(t->al_table), t->identity, t->name,
					t->unique ? psprintf("WHERE %s = '00000000-0000-0000-0000-000000000000' GROUP BY %s", t->identity, t->identity) :
					psprintf("GROUP BY %s HAVING count(*) > 1 OR %s = '00000000-0000-0000-0000-000000000000'", t->identity, t->identity));
}

static const struct
{
	const char *what;
	const char *kind;
	const char *severity;
	EveryQuery	query;
	bool		by_index;		/* big tables cost no more, where an index keeps $systemId unique */
	bool		of_sets;		/* counts for the table of dimension sets */
}			every[] =
{
	{"D1 dimension sets exist", "reference", "hard", no_dimension_set, false, true},
	{"E1 records have their companions", "business", "soft", no_companion, false, false},
	{"S1 system ids are unique", "business", "hard", no_identity, true, false},
};

static List *
read_every(int sync_id, const char *company)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *tables = NIL;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT t.table_id, t.al_table, format('%I.%I', t.target_schema, t.target_table), "
				  " coalesce('jsonb_build_array(' || string_agg('g.' || quote_ident(a.attname), ', ' ORDER BY m.key_position) FILTER (WHERE m.key_position > 0) || ')', 'NULL::jsonb'), "
				  " min('g.' || quote_ident(a.attname)) FILTER (WHERE m.part = 0 AND m.source_column = 'Dimension Set ID'), "
				  " (SELECT string_agg(x.c, ' OR ') FROM (SELECT min(format('g.%I IS NULL', y.target_column)) AS c "
				  "  FROM bcmig.companion p JOIN bcmig.column_map y USING (table_id, part) WHERE p.table_id = t.table_id AND y.target_type <> 'bytea' GROUP BY p.part) x), "
				  " min('g.' || quote_ident(a.attname)) FILTER (WHERE m.row_identity), "
				  " coalesce(bool_or(m.row_identity AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid "
				  "  AND i.indnkeyatts = 1 AND i.indkey[0] = a.attnum AND i.indpred IS NULL AND i.indexprs IS NULL)), false), "
				  " pg_relation_size(c.oid) > " BIG_TABLE " "
				  "FROM bcmig.sync_table t "
				  "JOIN pg_namespace n ON n.nspname = t.target_schema "
				  "JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.target_table "
				  "JOIN bcmig.column_map m USING (table_id) "
				  "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = m.target_column AND NOT a.attisdropped "
				  "WHERE t.sync_id = $1 AND t.company = $2 GROUP BY t.table_id, c.oid ORDER BY t.table_id", "it", sync_id, company);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		Every	   *t = palloc(sizeof(Every));

		t->table_id = bcmig_get_int64(i, 1, 0);
		t->al_table = bcmig_get_text(i, 2);
		t->name = bcmig_get_text(i, 3);
		t->key = bcmig_get_text(i, 4);
		t->dimensions = bcmig_get_text(i, 5);
		t->companions = bcmig_get_text(i, 6);
		t->identity = bcmig_get_text(i, 7);
		t->unique = bcmig_get_bool(i, 8);
		t->big = bcmig_get_bool(i, 9);
		tables = lappend(tables, t);
	}
	bcmig_catalog_end(&scope);
	return tables;
}

static void
make_every_rule(Made *m, int which, List *tables, const BcmigReadTable *sets)
{
	StringInfoData some;
	int			n = 0;
	int			number = 0;
	int			table_id = every[which].of_sets && sets ? sets->table_id : 0;
	ListCell   *lc;

	initStringInfo(&some);
	foreach(lc, tables)
	{
		const Every *t = lfirst(lc);
		char	   *query = every[which].query(t, sets);

		if (query != NULL && t->big && !(every[which].by_index && t->unique))
			add_rule(m, t->table_id, psprintf("%s, %s", every[which].what, t->al_table), every[which].kind, every[which].severity, query, "");
		else if (query != NULL)
			appendStringInfo(&some, "%s%s", n++ ? " UNION ALL " : "", query);
		if (n > 0 && (n == TABLES_OF_A_RULE || lnext(tables, lc) == NULL))
		{
			number++;
			add_rule(m, table_id, psprintf("%s, %d", every[which].what, number), every[which].kind, every[which].severity, pstrdup(some.data), "");
			resetStringInfo(&some);
			n = 0;
		}
	}
}

/* ---- calculated fields ---- */

static int
add_column(BcmigTableInfo *table, const BcmigReadColumn *c)
{
	table->columns[table->ncolumns].source = c->source;
	table->columns[table->ncolumns].native_type = c->native_type;
	return table->ncolumns++;
}

/*
 * A FlowField of all records: groups that add up to 0 are left out on both
 * sides.
 */
static void
make_sum(Made *m, const char *sync_name, const BcmigDialect *dialect, const BcmigReadTable *t, const BcmigFlowSum *f)
{
	BcmigSum	sum = {0};
	StringInfoData keys;
	StringInfoData where;
	char	   *value = psprintf("sum(s.%s)", quote_identifier(f->column->target));
	ListCell   *lc;
	ListCell   *ln;

	sum.table.sync_name = unconstify(char *, sync_name);
	sum.table.source_schema = f->from->source_schema;
	sum.table.source_table = f->from->source_name;
	sum.table.columns = palloc0(sizeof(BcmigColumn) * (list_length(f->keys) + list_length(f->filters) + 1));
	sum.table.keys = palloc0(sizeof(int) * list_length(f->keys));
	sum.column = add_column(&sum.table, f->column);
	sum.negative = f->negative;
	initStringInfo(&keys);
	initStringInfo(&where);
	foreach(lc, f->keys)
	{
		const BcmigReadColumn *c = lfirst(lc);

		sum.table.keys[sum.table.nkeys++] = add_column(&sum.table, c);
		appendStringInfo(&keys, "%ss.%s::text", keys.len ? ", " : "", quote_identifier(c->target));
	}
	forboth(lc, f->filters, ln, f->numbers)
	{
		const BcmigReadColumn *c = lfirst(lc);

		sum.filters = lappend_int(sum.filters, add_column(&sum.table, c));
		sum.numbers = lappend_int(sum.numbers, lfirst_int(ln));
		appendStringInfo(&where, " AND s.%s = %d", quote_identifier(c->target), lfirst_int(ln));
	}
	add_rule(m, t->table_id, psprintf("%s.%s", f->al_table, f->al_name), "calculated", "hard",
			 psprintf("SELECT ARRAY[%s], %s%s FROM %s s WHERE true%s GROUP BY %s HAVING %s <> 0", keys.data, f->negative ? "-" : "", value,
					  quote_qualified_identifier(f->from->schema, f->from->name), where.data, keys.data, value),
			 dialect->bc->sums(&sum));
}

/* ---- a company, a sync ---- */

/*
 * Write down what is new or another one; what is not made any more goes.  A
 * rule somebody has added under the same name stays theirs.
 */
static void
store_rules(int sync_id, const Made *m)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.rule WHERE sync_id = $1 AND company = $2 AND shipped AND NOT removed AND name <> ALL ($3)",
			  "itk", sync_id, m->company, bcmig_text_array(m->names));
	bcmig_sql("INSERT INTO bcmig.rule AS u (sync_id, table_id, name, kind, severity, query, blue_query, company, shipped) "
			  "SELECT $1, nullif(x.table_id::int, 0), x.name, x.kind, x.severity, x.query, nullif(x.blue_query, ''), $2, true "
			  "FROM (SELECT DISTINCT ON (name) * FROM unnest($3, $4, $5, $6, $7, $8) WITH ORDINALITY o (table_id, name, kind, severity, query, blue_query, n) "
			  " ORDER BY name, n) x ORDER BY x.n "
			  "ON CONFLICT (sync_id, name) DO UPDATE SET table_id = EXCLUDED.table_id, kind = EXCLUDED.kind, severity = EXCLUDED.severity, "
			  " query = EXCLUDED.query, blue_query = EXCLUDED.blue_query "
			  "WHERE u.shipped AND NOT u.removed AND (u.table_id, u.kind, u.severity, u.query, u.blue_query) IS DISTINCT FROM "
			  " (EXCLUDED.table_id, EXCLUDED.kind, EXCLUDED.severity, EXCLUDED.query, EXCLUDED.blue_query)",
			  "itkkkkkk", sync_id, m->company, bcmig_text_array(m->table_ids), bcmig_text_array(m->names), bcmig_text_array(m->kinds),
			  bcmig_text_array(m->severities), bcmig_text_array(m->queries), bcmig_text_array(m->blue_queries));
	bcmig_catalog_end(&scope);
}

static void
make_rules(int sync_id, const char *sync_name, const char *company, const BcmigDialect *dialect)
{
	Made		m = {.company = company,.tables = bcmig_read_tables(sync_id, company)};
	List	   *tables = read_every(sync_id, company);
	BcmigReadTable *sets = find_table(m.tables, NULL, "Dimension Set Entry", 's', "[s.Dimension Set ID]");
	ListCell   *lc;
	ListCell   *ls;

	for (const BcmigBcRule *rule = bcmig_bc_rules; rule->id != NULL; rule++)
		make_rule(&m, rule);
	for (int i = 0; i < lengthof(every); i++)
		make_every_rule(&m, i, tables, sets);
	foreach(lc, m.tables)
	{
		foreach(ls, bcmig_flow_sums(lfirst(lc), m.tables))
			make_sum(&m, sync_name, dialect, lfirst(lc), lfirst(ls));
	}
	store_rules(sync_id, &m);
}

void
bcmig_make_bc_rules(int sync_id, const char *sync_name, Oid feed)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "bcmig rules of a company", ALLOCSET_DEFAULT_SIZES);
	const BcmigDialect *dialect = bcmig_dialect_of_server(GetForeignTable(feed)->serverid);
	BcmigCatalogScope scope;
	List	   *companies = NIL;
	uint64		n;
	ListCell   *lc;

	/* only Business Central has companies */
	if (dialect->bc == NULL)
		return;
	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT DISTINCT company FROM bcmig.sync_table WHERE sync_id = $1 AND company IS NOT NULL ORDER BY 1", "i", sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		companies = lappend(companies, bcmig_get_text(i, 1));
	bcmig_sql("DELETE FROM bcmig.rule WHERE sync_id = $1 AND shipped AND company <> ALL ($2)", "ik", sync_id, bcmig_text_array(companies));
	bcmig_catalog_end(&scope);
	foreach(lc, companies)
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		make_rules(sync_id, sync_name, lfirst(lc), dialect);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(context);
	}
	MemoryContextDelete(context);
}
