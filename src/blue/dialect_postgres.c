/*-------------------------------------------------------------------------
 *
 * dialect_postgres.c
 *	  The statements for a PostgreSQL blue (blue/postgres_tracking.sql).
 *
 * Order of changes is the order of xid8: a row version is the transaction
 * that stamped it.  Horizon is the xmin of a snapshot (every transaction below
 * it has ended), top its xmax.  Stamps are not monotone per row: a transaction
 * takes its id when it starts to write, not when it commits.  So "position"
 * alone would read everything since the oldest open transaction again and
 * again; the mark "seen" is the snapshot of the poll the last window used, and
 * a window leaves out what that snapshot showed.  What a snapshot shows has
 * been committed before the poll, so the window that used this poll read it.
 *
 * Every identifier is quoted, every value is a typed literal.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "dialect.h"

#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

#define RECENT_TRACES	1000	/* of the log of what moved: more than can wait for a walwriter */

/* short names of what dialect.h shares */
#define ident		bcmig_postgres_ident
#define source_name bcmig_postgres_source_name

/* always quoted: blue's keywords need not be ours */
char *
ident(const char *name)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoChar(&s, '"');
	for (const char *p = name; *p; p++)
	{
		if (*p == '"')
			appendStringInfoChar(&s, '"');
		appendStringInfoChar(&s, *p);
	}
	appendStringInfoChar(&s, '"');
	return s.data;
}

char *
source_name(const BcmigTableInfo *table)
{
	return psprintf("%s.%s", ident(table->source_schema), ident(table->source_table));
}

/*
 * A column type without length or precision, so that a literal of it cannot be
 * cut to fit.  character(n) without n would be character(1).
 */
static char *
type_without_modifier(const char *type)
{
	char	   *copy = pstrdup(type);
	char	   *open = strchr(copy, '(');
	char	   *close = open ? strchr(open, ')') : NULL;

	if (open == NULL || close == NULL || copy[0] == '"')
		return copy;
	if (strncmp(copy, "character(", 10) == 0)
		return pstrdup("pg_catalog.bpchar");
	if (strncmp(copy, "bit(", 4) == 0)
		return pstrdup("pg_catalog.varbit");
	memmove(open, close + 1, strlen(close + 1) + 1);
	return copy;
}

static char *
literal(const BcmigColumn *column, const char *value)
{
	return psprintf("%s::%s", quote_literal_cstr(value),
					type_without_modifier(column->source_type));
}

/* "a", "b" with a prefix like t. */
static char *
key_columns(const BcmigTableInfo *table, const char *prefix)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->nkeys; i++)
		appendStringInfo(&s, "%s%s%s", i ? ", " : "", prefix,
						 ident(table->columns[table->keys[i]].source));
	return s.data;
}

static const char *
version_of(const BcmigTableInfo *table)
{
	return table->version_column ? psprintf("t.%s", ident(table->version_column)) : "NULL::bigint";
}

/* all columns in feed order, of alias "t" */
static char *
all_columns(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->ncolumns; i++)
		appendStringInfo(&s, ", t.%s", ident(table->columns[i].source));
	return s.data;
}

/* the same, but the key from alias "k" where there is no row */
static char *
row_or_key(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->ncolumns; i++)
	{
		const char *name = ident(table->columns[i].source);

		if (table->columns[i].key_position > 0)
			appendStringInfo(&s, ", coalesce(t.%s, k.%s)", name, name);
		else
			appendStringInfo(&s, ", t.%s", name);
	}
	return s.data;
}

/* the key from alias "k", all else NULL */
static char *
key_only(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (table->columns[i].key_position > 0)
			appendStringInfo(&s, ", k.%s", ident(table->columns[i].source));
		else
			appendStringInfoString(&s, ", NULL");
	}
	return s.data;
}

/*
 * Equal keys of these types are the same bytes.  Of others they need not be:
 * 1.0 and 1.00, 0 and -0, 'a' and 'A' where the collation says so.
 */
static bool
equal_is_identical(const char *type)
{
	static const char *const prefixes[] = {
		"smallint", "integer", "bigint", "uuid", "bytea", "boolean", "date",
		"timestamp", "numeric("
	};

	if (strstr(type, "[]") != NULL)
		return false;
	for (int i = 0; i < lengthof(prefixes); i++)
	{
		if (strncmp(type, prefixes[i], strlen(prefixes[i])) == 0)
			return true;
	}
	return false;
}

static bool
is_character_type(const char *type)
{
	return strstr(type, "[]") == NULL &&
		(strncmp(type, "character", 9) == 0 || strcmp(type, "text") == 0 || strcmp(type, "name") == 0);
}

/* the key in alias "k" is not, byte for byte, that of the row in alias "t" */
static char *
key_differs(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->nkeys; i++)
	{
		const char *name = ident(table->columns[table->keys[i]].source);

		appendStringInfo(&s, "%st.%s::pg_catalog.text COLLATE pg_catalog.\"C\" IS DISTINCT FROM k.%s::pg_catalog.text COLLATE pg_catalog.\"C\"",
						 i ? " OR " : "", name, name);
	}
	return s.data;
}

/* what the snapshot "seen" does not show; nothing when there is none */
static char *
not_seen(const char *column, const char *seen)
{
	if (seen == NULL || seen[0] == '\0')
		return "";
	return psprintf(" AND NOT pg_catalog.pg_visible_in_snapshot(%s::text::pg_catalog.xid8, %s::pg_catalog.pg_snapshot)",
					column, quote_literal_cstr(seen));
}

/* the name blue/postgres_tracking.sql gives the change table */
static char *
change_table(const BcmigTableInfo *table)
{
	Datum		md5 = DirectFunctionCall1Coll(md5_text, C_COLLATION_OID,
											  CStringGetTextDatum(source_name(table)));

	return psprintf("bcmig_blue.\"c_%s\"", TextDatumGetCString(md5));
}

static char *
pg_poll(const char *previous, List *watched, bool wait)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s,
						   "SELECT 'poll'::text, (extract(epoch FROM transaction_timestamp()) * 1000000)::bigint::text,"
						   " pg_catalog.pg_snapshot_xmin(s)::text, pg_catalog.pg_snapshot_xmax(s)::text, s::text,"
						   " bcmig_blue.incarnation_hash()::text, bcmig_blue.incarnation(),"
						   " (SELECT floor::text FROM bcmig_blue.state)"
						   " FROM (SELECT pg_catalog.pg_current_snapshot() AS s) x");
	if (previous != NULL && previous[0] != '\0')
		appendStringInfo(&s,
						 " UNION ALL SELECT 'moved', t.schema_name, t.table_name, NULL, NULL, NULL, NULL, NULL"
						 " FROM (SELECT DISTINCT m.relid FROM bcmig_blue.moved m WHERE m.xid >= %s%s) m"
						 " JOIN bcmig_blue.tracked t USING (relid)",
						 pnstrdup(previous, strcspn(previous, ":")),
						 not_seen("m.xid", previous));
	return s.data;
}

static char *
pg_blocker(void)
{
	return pstrdup("SELECT what, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM ("
				   " SELECT pg_catalog.format('%s of %s (pid %s, application %s, %s since %s)', 'transaction', usename, pid,"
				   "   pg_catalog.quote_literal(application_name), state, xact_start) AS what, pg_catalog.age(backend_xid) AS age"
				   "   FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_catalog.pg_backend_pid()"
				   " UNION ALL SELECT pg_catalog.format('prepared transaction %s of %s since %s', pg_catalog.quote_literal(gid), owner, prepared),"
				   "   pg_catalog.age(transaction) FROM pg_catalog.pg_prepared_xacts"
				   " UNION ALL SELECT 'a transaction this login may not see (GRANT pg_read_all_stats on blue)', -1"
				   ") x ORDER BY age DESC LIMIT 1");
}

static char *
pg_expire(void)
{
	/* it stops after 100 ms, done or not */
	return pstrdup("SELECT CASE WHEN bcmig_blue.expire() > 0 AND pg_catalog.clock_timestamp() >= pg_catalog.statement_timestamp() + interval '100 ms' THEN 'more' END,"
				   " NULL, NULL, NULL, NULL, NULL, NULL, NULL");
}

static char *
pg_schema_mark(void)
{
	return pstrdup("SELECT count(*) || '/' || coalesce(sum(hashtextextended(concat_ws(',', c.oid, a.attname, a.atttypid, a.atttypmod, a.attnotnull), 0)), 0),"
				   " NULL, NULL, NULL, NULL, NULL, NULL, NULL"
				   " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
				   " JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped"
				   " WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'bcmig_blue')");
}

/* the B, M and I rows that go with the rows of one snapshot */
static void
append_signs(StringInfo s, const BcmigTableInfo *table)
{
	appendStringInfo(s, " UNION ALL SELECT 'I', bcmig_blue.incarnation_hash()%s", bcmig_nulls(table->ncolumns));
	if (strcmp(table->capture, "snapshot") != 0)
		appendStringInfo(s,
						 " UNION ALL SELECT b.op, CASE b.op WHEN 'B' THEN r.begin_version ELSE r.min_valid END%s"
						 " FROM bcmig_blue.tracked r, (VALUES ('B'), ('M')) b(op) WHERE r.relid = %s::pg_catalog.regclass",
						 bcmig_nulls(table->ncolumns), quote_literal_cstr(source_name(table)));
}

/*
 * Keys that were changed into another that is equal to them: the row comes as
 * it is now, what green has under the old bytes must go.  Deletes are applied
 * first.  Text is looked at only where a column's collation makes it necessary;
 * blue evaluates that once.
 */
static void
append_equal_keys(StringInfo s, const BcmigTableInfo *table, const char *changes)
{
	bool		text = false;
	bool		other = false;
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < table->nkeys; i++)
	{
		const BcmigColumn *c = &table->columns[table->keys[i]];

		if (is_character_type(c->source_type))
		{
			appendStringInfo(&names, "%s%s", text ? ", " : "", quote_literal_cstr(c->source));
			text = true;
		}
		else if (!equal_is_identical(c->source_type))
			other = true;
	}
	if (!text && !other)
		return;
	appendStringInfo(s, " UNION ALL SELECT 'D', NULL%s FROM (SELECT %s FROM %s) k LEFT JOIN %s t USING (%s) WHERE (%s)",
					 key_only(table), key_columns(table, "c."), changes, source_name(table),
					 key_columns(table, ""), key_differs(table));
	if (!other)
		appendStringInfo(s,
						 " AND (SELECT count(*) FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation"
						 " WHERE a.attrelid = %s::pg_catalog.regclass AND a.attname IN (%s) AND NOT l.collisdeterministic) > 0",
						 quote_literal_cstr(source_name(table)), names.data);
}

static bool
counts_changes(const char *capture)
{
	return strcmp(capture, "change_tracking") == 0;
}

static char *
pg_window(const BcmigTableInfo *table, int64 position, const char *seen, int64 most)
{
	StringInfoData s;

	initStringInfo(&s);
	/*
	 * The keys are sorted, which costs little: both sides then go through
	 * their tables from one end to the other.  Nothing relies on the order.
	 */
	if (counts_changes(table->capture))
	{
		char	   *changes = psprintf("%s c WHERE c.xid >= " INT64_FORMAT "%s",
									   change_table(table), position, not_seen("c.xid", seen));

		if (most > 0)
		{
			/*
			 * Their number first: when they are too many, nothing that follows is wanted.  In their order, so that a
			 * planner without statistics does not expect to meet that many early on in all changes there are.
			 */
			appendStringInfo(&s, "WITH c AS MATERIALIZED (SELECT %s FROM %s ORDER BY c.xid LIMIT " INT64_FORMAT ")"
							 " SELECT 'N'::text, (SELECT count(*) FROM c)%s UNION ALL ",
							 key_columns(table, "c."), changes, most, bcmig_nulls(table->ncolumns));
			changes = pstrdup("c");
		}
		appendStringInfo(&s,
						 "SELECT CASE WHEN t.%s IS NULL THEN 'D' ELSE 'U' END::text, %s%s"
						 " FROM (SELECT DISTINCT %s FROM %s ORDER BY %s) k"
						 " LEFT JOIN %s t USING (%s)",
						 ident(table->columns[table->keys[0]].source),
						 version_of(table), row_or_key(table),
						 key_columns(table, "c."), changes, key_columns(table, "c."),
						 source_name(table), key_columns(table, ""));
		append_equal_keys(&s, table, changes);
	}
	else
		appendStringInfo(&s,
						 "SELECT 'U'::text, %s%s FROM %s t WHERE %s >= " INT64_FORMAT "%s",
						 version_of(table), all_columns(table), source_name(table),
						 version_of(table), position, not_seen(version_of(table), seen));
	append_signs(&s, table);
	appendStringInfo(&s,
					 " UNION ALL (SELECT 'X', m.xid%s FROM bcmig_blue.moved m WHERE m.relid = %s::pg_catalog.regclass"
					 " AND m.xid >= " INT64_FORMAT "%s ORDER BY m.xid DESC LIMIT %d)",
					 bcmig_nulls(table->ncolumns), quote_literal_cstr(source_name(table)), position,
					 not_seen("m.xid", seen), BCMIG_TRACES);
	return s.data;
}

/* traces: comma-separated transaction ids */
static char *
pg_lost_traces(const BcmigTableInfo *table, const char *traces)
{
	return psprintf("SELECT count(*)::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL"
					" FROM bcmig_blue.state f, pg_catalog.unnest('{%s}'::bigint[]) w(xid) WHERE w.xid >= f.floor"
					" AND NOT EXISTS (SELECT FROM bcmig_blue.moved m WHERE m.xid = w.xid"
					"  AND m.relid = pg_catalog.to_regclass(%s))",
					traces, quote_literal_cstr(source_name(table)));
}

static char *
pg_later_changes(const BcmigTableInfo *table, int n, char **keys, const int64 *positions)
{
	StringInfoData s;

	if (!counts_changes(table->capture))
		return NULL;
	initStringInfo(&s);
	appendStringInfoString(&s, "SELECT count(*)::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM (VALUES ");
	for (int row = 0; row < n; row++)
	{
		appendStringInfo(&s, "%s(" INT64_FORMAT "::bigint", row ? ", " : "", positions[row]);
		for (int i = 0; i < table->nkeys; i++)
			appendStringInfo(&s, ", %s", literal(&table->columns[table->keys[i]], keys[row * table->nkeys + i]));
		appendStringInfoChar(&s, ')');
	}
	appendStringInfo(&s, ") k(bcmig_position, %s) WHERE EXISTS (SELECT FROM %s c WHERE c.xid > k.bcmig_position AND (%s) = (%s))",
					 key_columns(table, ""), change_table(table), key_columns(table, "c."), key_columns(table, "k."));
	return s.data;
}

/* (k1, k2) op (v1, v2); nothing when the bound is open */
static void
append_bound(StringInfo s, const BcmigTableInfo *table, const char *op, Datum bound)
{
	char	  **values;

	if (bound == (Datum) 0)
		return;
	values = bcmig_bound_values(table, bound);
	appendStringInfo(s, " AND (%s) %s (", key_columns(table, "t."), op);
	for (int i = 0; i < table->nkeys; i++)
		appendStringInfo(s, "%s%s", i ? ", " : "",
						 literal(&table->columns[table->keys[i]], values[i]));
	appendStringInfoChar(s, ')');
}

/*
 * The transactions that moved the table last, of those a crash of blue may take
 * back: for rows that do not come with a window.  Where the log has no recent
 * one of this table, nothing of it can get lost.
 */
static void
append_last_traces(StringInfo s, const BcmigTableInfo *table)
{
	if (strcmp(table->capture, "snapshot") == 0)
		return;
	appendStringInfo(s,
					 " UNION ALL (SELECT 'X', m.xid%s FROM (SELECT l.xid, l.relid FROM bcmig_blue.moved l ORDER BY l.xid DESC LIMIT %d) m"
					 " WHERE m.relid = %s::pg_catalog.regclass ORDER BY m.xid DESC LIMIT %d)",
					 bcmig_nulls(table->ncolumns), RECENT_TRACES, quote_literal_cstr(source_name(table)), BCMIG_TRACES);
}

static char *
pg_chunk(const BcmigTableInfo *table, Datum lower, Datum upper)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "SELECT 'U'::text, %s%s FROM %s t WHERE true",
					 version_of(table), all_columns(table), source_name(table));
	append_bound(&s, table, ">", lower);
	append_bound(&s, table, "<=", upper);
	append_signs(&s, table);
	append_last_traces(&s, table);
	return s.data;
}

static char *
pg_rows_by_key(const BcmigTableInfo *table, int n, char **keys)
{
	StringInfoData s;
	StringInfoData values;

	initStringInfo(&s);
	initStringInfo(&values);
	for (int row = 0; row < n; row++)
	{
		appendStringInfoString(&values, row ? ", (" : "(");
		for (int i = 0; i < table->nkeys; i++)
			appendStringInfo(&values, "%s%s", i ? ", " : "",
							 literal(&table->columns[table->keys[i]],
									 keys[row * table->nkeys + i]));
		appendStringInfoChar(&values, ')');
	}

	/* a row once, though two of the keys be equal to its own */
	appendStringInfo(&s, "SELECT 'U'::text, %s%s FROM %s t WHERE (%s) IN (VALUES %s)",
					 version_of(table), all_columns(table), source_name(table),
					 key_columns(table, "t."), values.data);
	appendStringInfo(&s, " UNION ALL SELECT 'D', NULL%s FROM (VALUES %s) k(%s) LEFT JOIN %s t USING (%s) WHERE %s",
					 key_only(table), values.data, key_columns(table, ""), source_name(table),
					 key_columns(table, ""), key_differs(table));
	append_signs(&s, table);
	append_last_traces(&s, table);
	return s.data;
}

static char *
pg_key_list(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "SELECT 'U'::text, NULL::bigint");
	for (int i = 0; i < table->ncolumns; i++)
		appendStringInfo(&s, ", %s", table->columns[i].key_position > 0 ?
						 ident(table->columns[i].source) : "NULL");
	appendStringInfo(&s, " FROM %s t", source_name(table));
	append_signs(&s, table);
	return s.data;
}

/* columns of unbounded width: their size must be known before they are fetched */
static char *
unbounded_bytes(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->ncolumns; i++)
	{
		const char *type = table->columns[i].source_type;

		if (!bcmig_unbounded_type(type))
			continue;
		/* text may be a type green does not know */
		if (strcmp(type, "bytea") == 0 || strcmp(type, "text") == 0 ||
			strcmp(type, "character varying") == 0)
			appendStringInfo(&s, "%scoalesce(pg_catalog.octet_length(t.%s%s), 0)::bigint",
							 s.len ? " + " : "", ident(table->columns[i].source),
							 strcmp(type, "text") == 0 ? "::pg_catalog.text" : "");
		else
			appendStringInfo(&s, "%scoalesce(pg_catalog.pg_column_size(t.%s), 0)::bigint * 4",
							 s.len ? " + " : "", ident(table->columns[i].source));
	}
	return s.len ? s.data : NULL;
}

static char *
pg_chunk_bound(const BcmigTableInfo *table, Datum lower, int64 rows)
{
	StringInfoData s;
	StringInfoData key;
	StringInfoData where;
	char	   *bytes = unbounded_bytes(table);

	initStringInfo(&s);
	initStringInfo(&key);
	initStringInfo(&where);
	for (int i = 0; i < table->nkeys; i++)
		appendStringInfo(&key, "%st.%s::text", i ? ", " : "",
						 ident(table->columns[table->keys[i]].source));
	append_bound(&where, table, ">", lower);

	if (bytes == NULL)
		appendStringInfo(&s,
						 "SELECT '1', (ARRAY[%s])::text, NULL, NULL, NULL, NULL, NULL, NULL FROM %s t"
						 " WHERE true%s ORDER BY %s OFFSET " INT64_FORMAT " LIMIT 1",
						 key.data, source_name(table), where.data, key_columns(table, "t."), rows - 1);
	else
		appendStringInfo(&s,
						 "WITH r AS MATERIALIZED (SELECT (ARRAY[%s])::text AS key, %s AS bytes,"
						 " pg_catalog.row_number() OVER (ORDER BY %s) AS n FROM %s t"
						 " WHERE true%s ORDER BY %s LIMIT " INT64_FORMAT ")"
						 " SELECT CASE WHEN count(*) = " INT64_FORMAT " THEN '1' ELSE '0' END,"
						 " max(key) FILTER (WHERE n = " INT64_FORMAT "), NULL, NULL, NULL, count(*)::text, sum(bytes)::bigint::text,"
						 " max(bytes)::text FROM r",
						 key.data, bytes, key_columns(table, "t."), source_name(table),
						 where.data, key_columns(table, "t."), rows, rows, rows);
	return s.data;
}

static char *
pg_table_size_sql(const BcmigTableInfo *table)
{
	char	   *name = quote_literal_cstr(source_name(table));

	return psprintf("SELECT (CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE pg_catalog.pg_stat_get_live_tuples(c.oid) END)::bigint::text,"
					" pg_catalog.pg_table_size(c.oid)::text, NULL, NULL, NULL, NULL, NULL, NULL"
					" FROM pg_catalog.pg_class c WHERE c.oid = %s::pg_catalog.regclass", name);
}

static char *
pg_feed_options(const char *feed)
{
	return psprintf("schema_name 'bcmig_feed', table_name '%s'", feed);
}

/* what postgres_fdw deparses: SELECT <columns> FROM bcmig_feed.<feed> */
static bool
pg_is_feed_text(const char *feed, const char *text)
{
	char	   *tail = psprintf(" FROM bcmig_feed.%s", quote_identifier(feed));

	return strncmp(text, "SELECT ", 7) == 0 && strlen(text) >= strlen(tail) &&
		strcmp(text + strlen(text) - strlen(tail), tail) == 0;
}

/* the log of what moved is exact */
static bool
pg_hinted(const char *capture)
{
	return false;
}

const BcmigDialect bcmig_dialect_postgres = {
	.name = "PostgreSQL",
	.fdw = "postgres_fdw",
	.default_schema = "public",
	.has_fetch_size = true,
	.feed_options = pg_feed_options,
	.is_feed_text = pg_is_feed_text,
	.missing_timeouts = bcmig_postgres_missing_timeouts,
	.constant = bcmig_postgres_constant,
	.poll = pg_poll,
	.hinted = pg_hinted,
	.blocker = pg_blocker,
	.schema_mark = pg_schema_mark,
	.expire = pg_expire,
	.window = pg_window,
	.counts_changes = counts_changes,
	.lost_traces = pg_lost_traces,
	.positions_again = true,
	.later_changes = pg_later_changes,
	.chunk = pg_chunk,
	.rows_by_key = pg_rows_by_key,
	.key_list = pg_key_list,
	.chunk_bound = pg_chunk_bound,
	.table_size = pg_table_size_sql,
	.describe = bcmig_postgres_describe,
	.preflight = bcmig_postgres_preflight,
	.hash = &bcmig_postgres_hash,
	.witness = &bcmig_postgres_witness,
	.own_query = bcmig_postgres_own_query,
	.rows_are_records = true,
	.own_query_hint = "One SELECT; tables of blue are named with their schema there, as in public.item.",
	.script = bcmig_postgres_script,
	.version_index = bcmig_postgres_version_index,
	.fence = &bcmig_postgres_fence,
	.replay = bcmig_postgres_replay,
	.replayed = bcmig_postgres_replayed,
	.forget_replayed = bcmig_postgres_forget_replayed,
	.may_write = bcmig_postgres_may_write,
};
