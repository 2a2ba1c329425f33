/*-------------------------------------------------------------------------
 *
 * describe_postgres.c
 *	  What a PostgreSQL blue can say about itself and its tables, and the
 *	  scripts a person runs there.
 *
 * Rows of describe (text feed), one "table" row first for every table:
 *	table	exists or what it is (relkind), readable t/f, rows, bytes,
 *			capture, stamp column, spare
 *	fix		statements that grant SELECT, track changes, stamp rows
 *	column	name, type, not null t/f, default expression, place in the key
 *	index	name, unique t/f, column; a row per column, in index order
 *	near	name of a table like the one that is missing
 *
 * Rows of preflight: check, status, value, bound, detail, fix.  The row
 * "cluster" carries the system identifier for green to compare.
 *
 * A statement that names bcmig_blue.tracked does not even parse where the
 * tracking script was never run, and a single statement must do for both.
 * So that table is read by ts_stat(), a core function that runs a query given
 * as text: it is called only when the table is there and readable.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "commands/defrem.h"
#include "dialect.h"
#include "utils/builtins.h"

/* bcmig_blue.tracked as seen by this login: one row, 'visible' or 'hidden', or no row */
#define TRACKED_STATE \
	"SELECT CASE WHEN has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')" \
	" THEN 'visible' ELSE 'hidden' END AS state" \
	" FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid" \
	" WHERE n.nspname = 'bcmig_blue' AND c.relname = 'tracked'"

static char *
describe(const char *schema, const char *table)
{
	char	   *s = quote_literal_cstr(schema);
	char	   *t = quote_literal_cstr(table);
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql,
					 "WITH rel AS ("
					 " SELECT c.oid, c.relkind, c.reltuples,"
					 "  has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable"
					 " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
					 " WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"
					 "), tracked AS ("
					 " SELECT w.word::jsonb AS t FROM rel, (" TRACKED_STATE ") st,"
					 "  LATERAL ts_stat(CASE WHEN st.state = 'visible' THEN format("
					 "   $q$SELECT array_to_tsvector(ARRAY[jsonb_build_object('capture', capture, 'stamp', stamp_column)::text])"
					 " FROM bcmig_blue.tracked WHERE relid = %%s$q$, rel.oid)"
					 "   ELSE 'SELECT NULL::tsvector WHERE false' END) w"
					 "), ",
					 s, t);
	appendStringInfoString(&sql,
						   "key_index AS ("
						   " SELECT i.indexrelid, i.indkey, i.indnkeyatts FROM rel JOIN pg_catalog.pg_index i ON i.indrelid = rel.oid"
						   " WHERE i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL AND i.indexprs IS NULL"
						   "  AND NOT EXISTS (SELECT 1 FROM pg_catalog.pg_attribute a WHERE a.attrelid = rel.oid AND NOT a.attnotnull"
						   "   AND a.attnum = ANY ((i.indkey::smallint[])[0:i.indnkeyatts - 1]))"
						   " ORDER BY i.indisprimary DESC, i.indexrelid LIMIT 1"
						   "), other_index AS ("
						   " SELECT ic.relname, i.indisunique, i.indrelid, k.attnum, k.n"
						   " FROM rel JOIN pg_catalog.pg_index i ON i.indrelid = rel.oid"
						   "  JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid"
						   "  JOIN pg_catalog.pg_am am ON am.oid = ic.relam AND am.amname = 'btree',"
						   "  LATERAL unnest((i.indkey::smallint[])[0:i.indnkeyatts - 1]) WITH ORDINALITY k(attnum, n)"
						   " WHERE i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL"
						   "  AND NOT EXISTS (SELECT 1 FROM key_index ki WHERE ki.indexrelid = i.indexrelid)"
						   ") ");
	appendStringInfoString(&sql,
						   "SELECT c1, c2, c3, c4, c5, c6, c7, c8 FROM ("
						   " SELECT 1 AS part, '' AS name, 0 AS n, 'table' AS c1, rel.relkind::text AS c2, rel.readable::text AS c3,"
						   "  (CASE WHEN rel.reltuples >= 0 THEN rel.reltuples ELSE pg_stat_get_live_tuples(rel.oid) END)::bigint::text AS c4,"
						   "  (CASE WHEN rel.relkind = 'p' THEN (SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(rel.oid))"
						   "   WHEN rel.relkind IN ('r', 'm') THEN pg_total_relation_size(rel.oid) ELSE 0 END)::text AS c5,"
						   "  (SELECT t ->> 'capture' FROM tracked) AS c6, (SELECT t ->> 'stamp' FROM tracked) AS c7, NULL AS c8"
						   " FROM (VALUES (1)) one LEFT JOIN rel ON true"
						   " UNION ALL SELECT 2, '', 0, 'fix',"
						   "  format('GRANT USAGE ON SCHEMA %I TO %I; GRANT SELECT ON %s TO %I; -- on blue',");
	appendStringInfo(&sql,
					 "   %s, current_user, rel.oid::regclass, current_user),"
					 "  format('SELECT bcmig_blue.track(%%L); -- on blue', rel.oid::regclass),"
					 "  format('SELECT bcmig_blue.track(%%L, ''rowversion''); -- on blue', rel.oid::regclass), NULL, NULL, NULL, NULL FROM rel",
					 s);
	appendStringInfoString(&sql,
						   " UNION ALL SELECT 3, '', a.attnum, 'column', a.attname,"
						   "  CASE WHEN y.typtype = 'd' THEN format_type(y.typbasetype, y.typtypmod) ELSE format_type(a.atttypid, a.atttypmod) END,"
						   "  (a.attnotnull OR y.typnotnull)::text,"
						   "  CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END,"
						   "  (SELECT k.n::text FROM key_index ki, LATERAL unnest((ki.indkey::smallint[])[0:ki.indnkeyatts - 1])"
						   "   WITH ORDINALITY k(attnum, n) WHERE k.attnum = a.attnum), NULL, NULL"
						   " FROM rel JOIN pg_catalog.pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0 AND NOT a.attisdropped"
						   "  JOIN pg_catalog.pg_type y ON y.oid = a.atttypid"
						   "  LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
						   " UNION ALL SELECT 4, o.relname, o.n, 'index', o.relname, o.indisunique::text, a.attname, NULL, NULL, NULL, NULL"
						   " FROM other_index o JOIN pg_catalog.pg_attribute a ON a.attrelid = o.indrelid AND a.attnum = o.attnum");
	appendStringInfo(&sql,
					 " UNION ALL SELECT 5, c.relname, 0, 'near', format('%%s.%%s', n.nspname, c.relname), NULL, NULL, NULL, NULL, NULL, NULL"
					 " FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
					 " WHERE c.relkind IN ('r', 'p') AND NOT EXISTS (SELECT 1 FROM rel)"
					 "  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'bcmig_blue')"
					 "  AND lower(btrim(c.relname)) = lower(btrim(%s))"
					 ") x ORDER BY part, name, n, c2", t);
	return sql.data;
}

List *
bcmig_postgres_describe(List *tables)
{
	List	   *statements = NIL;
	ListCell   *lc;

	foreach(lc, tables)
	{
		BcmigName  *t = lfirst(lc);

		statements = lappend(statements, describe(t->schema, t->name));
	}
	return statements;
}

/* one row of preflight; "test" and the texts are SQL expressions */
static void
append_check(StringInfo sql, const char *name, const char *value, const char *bound,
			 const char *test, const char *bad, const char *detail, const char *fix)
{
	appendStringInfo(sql,
					 "%s SELECT '%s', CASE WHEN %s THEN 'ok' ELSE '%s' END, %s, %s,"
					 " CASE WHEN %s THEN NULL ELSE %s END, CASE WHEN %s THEN NULL ELSE %s END, NULL, NULL",
					 sql->len > 0 ? " UNION ALL" : "",
					 name, test, bad, value, bound, test, detail, test, fix);
}

char *
bcmig_postgres_preflight(void)
{
	StringInfoData sql;

	initStringInfo(&sql);
	append_check(&sql, "blue version", "current_setting('server_version')", "'13 or later'",
				 "current_setting('server_version_num')::int >= 130000", "fail",
				 "'Transaction ids of 64 bits (xid8) came with version 13.'", "NULL::text");
	append_check(&sql, "blue encoding", "current_setting('server_encoding')", "'UTF8'",
				 "current_setting('server_encoding') = 'UTF8'", "fail",
				 "'Texts would be converted on their way.'", "NULL::text");
	append_check(&sql, "blue is a primary", "CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END", "'primary'",
				 "NOT pg_is_in_recovery()", "fail",
				 "'Change tables are expired by bcmig, which a standby does not allow.'", "NULL::text");
	append_check(&sql, "cluster", "(SELECT system_identifier::text FROM pg_control_system())", "NULL",
				 "true", "ok", "NULL::text", "NULL::text");

	/* set for the database or a role counts as well as in the server's files */
	append_check(&sql, "blue synchronous commit",
				 "CASE WHEN current_setting('synchronous_commit') = 'off' THEN 'off' ELSE coalesce("
				 "(SELECT 'off for a role or database' FROM pg_catalog.pg_db_role_setting WHERE 'synchronous_commit=off' = ANY (setconfig) LIMIT 1),"
				 " current_setting('synchronous_commit')) END", "'on'",
				 "current_setting('synchronous_commit') <> 'off' AND NOT EXISTS"
				 " (SELECT 1 FROM pg_catalog.pg_db_role_setting WHERE 'synchronous_commit=off' = ANY (setconfig))", "warn",
				 "'A crash of blue may lose transactions that green has already; every restart of blue then costs a resync.'",
				 "'ALTER SYSTEM SET synchronous_commit = on; SELECT pg_reload_conf(); -- on blue, and ALTER ROLE or DATABASE ... RESET'");
	append_check(&sql, "blue tracking script",
				 "coalesce((" TRACKED_STATE "), 'missing')", "'visible'",
				 "coalesce((" TRACKED_STATE "), 'missing') = 'visible'", "fail",
				 "'Schema bcmig_blue tells bcmig what has changed.'",
				 "CASE coalesce((" TRACKED_STATE "), 'missing') WHEN 'missing'"
				 " THEN '\\i postgres_tracking.sql -- on blue, with psql'"
				 " ELSE format('SELECT bcmig_blue.grant_reader(%L); -- on blue', current_user) END");
	append_check(&sql, "blue activity", "CASE WHEN pg_has_role('pg_read_all_stats', 'USAGE') THEN 'visible' ELSE 'hidden' END", "'visible'",
				 "pg_has_role('pg_read_all_stats', 'USAGE')", "warn",
				 "'blocked_by cannot name the transaction that holds blue back.'",
				 "format('GRANT pg_read_all_stats TO %I; -- on blue', current_user)");
	append_check(&sql, "blue witness", "CASE WHEN " BCMIG_WITNESS_MISSING " IS NULL THEN 'possible' ELSE 'none' END", "'possible'",
				 BCMIG_WITNESS_MISSING " IS NULL", "warn",
				 "'Nothing outside of green tells it from a copy: ' || " BCMIG_WITNESS_MISSING " || '.'",
				 "format('\\i postgres_switch.sql; SELECT bcmig_blue.grant_switch(%L); -- on blue, with psql', current_user)");
	return sql.data;
}

/*
 * The value of a default expression that is one constant ('x'::text, 0, -1,
 * '-1'::integer, true), or NULL when it is anything else.
 */
char *
bcmig_postgres_constant(const char *expr)
{
	StringInfoData value;
	const char *p = expr;
	bool		escapes = false;

	initStringInfo(&value);
	if (strcmp(expr, "true") == 0 || strcmp(expr, "false") == 0)
		return pstrdup(expr);
	if (p[0] == 'E' && p[1] == '\'')
	{
		escapes = true;
		p++;
	}
	if (*p == '\'')
	{
		for (p++; *p != '\0'; p++)
		{
			if (*p == '\'' && p[1] != '\'')
				break;
			if (*p == '\'' || (escapes && *p == '\\'))
				p++;
			if (*p == '\0')
				return NULL;
			appendStringInfoChar(&value, *p);
		}
		if (*p++ != '\'')
			return NULL;
	}
	else
	{
		size_t		n = (*p == '-') + strspn(p + (*p == '-'), "0123456789.");

		if (n == 0)
		{
			/* (-1)::numeric and the like */
			if (*p != '(' || (n = strspn(p + 1, "-0123456789.")) == 0 || p[n + 1] != ')')
				return NULL;
			appendBinaryStringInfo(&value, p + 1, n);
			p += n + 2;
		}
		else
		{
			appendBinaryStringInfo(&value, p, n);
			p += n;
		}
	}
	/* one cast may follow: to the column's own type */
	if (*p != '\0' && (strncmp(p, "::", 2) != 0 || strstr(p + 2, "::") != NULL ||
					   strpbrk(p, "+*/|") != NULL))
		return NULL;
	return value.data;
}

/* a local socket cannot stall */
char *
bcmig_postgres_missing_timeouts(ForeignServer *server, char **fix, bool *fatal)
{
	/* the last two: blue's machine vanished while it was at our statement, so that nothing we sent is unanswered */
	static const char *const timeouts[] = {
		"connect_timeout", "10", "tcp_user_timeout", "30000", "keepalives_idle", "30", "keepalives_interval", "10"
	};
	StringInfoData missing;
	ListCell   *lc;

	initStringInfo(&missing);
	for (int i = 0; i < lengthof(timeouts); i += 2)
	{
		bool		set = false;

		foreach(lc, server->options)
		{
			DefElem    *def = (DefElem *) lfirst(lc);

			set |= strcmp(def->defname, timeouts[i]) == 0 ||
				(strcmp(def->defname, "host") == 0 && defGetString(def)[0] == '/');
		}
		if (!set)
			appendStringInfo(&missing, "%sADD %s '%s'", missing.len ? ", " : "", timeouts[i], timeouts[i + 1]);
	}
	if (missing.len == 0)
		return NULL;
	*fatal = false;
	*fix = psprintf("ALTER SERVER %s OPTIONS (%s);", quote_identifier(server->servername), missing.data);
	return pstrdup("Where the network stalls, a worker waits as long as TCP does, and a shutdown with it.");
}

char *
bcmig_postgres_script(const char *kind, const char *login, List *tables)
{
	StringInfoData s;
	ListCell   *lc;
	const char *role = quote_identifier(login);

	initStringInfo(&s);
	if (strcmp(kind, "login") == 0)
	{
		appendStringInfo(&s,
						 "-- bcmig: the login bcmig reads blue with. Run with psql on blue, as a superuser.\n"
						 "CREATE ROLE %s LOGIN PASSWORD 'change me';\n"
						 "SELECT format('GRANT CONNECT ON DATABASE %%I TO %%I', current_database(), %s) \\gexec\n"
						 "GRANT pg_read_all_stats TO %s;\n",
						 role, quote_literal_cstr(login), role);
		foreach(lc, tables)
		{
			BcmigScriptTable *t = (BcmigScriptTable *) lfirst(lc);

			appendStringInfo(&s, "GRANT USAGE ON SCHEMA %s TO %s;\n", quote_identifier(t->schema), role);
			appendStringInfo(&s, "GRANT SELECT ON %s TO %s;\n",
							 quote_qualified_identifier(t->schema, t->table), role);
		}
		if (tables == NIL)
			appendStringInfo(&s,
							 "GRANT USAGE ON SCHEMA public TO %s;\n"
							 "GRANT SELECT ON ALL TABLES IN SCHEMA public TO %s;\n", role, role);
		appendStringInfo(&s,
						 "-- after postgres_tracking.sql:\n"
						 "SELECT bcmig_blue.grant_reader(%s);\n", quote_literal_cstr(role));
	}
	else if (strcmp(kind, "tracking") == 0)
	{
		appendStringInfoString(&s,
							   "-- bcmig: what blue records about its changes. Run with psql on blue, as a superuser.\n"
							   "-- postgres_tracking.sql comes with bcmig, in blue/.\n"
							   "\\i postgres_tracking.sql\n");
		foreach(lc, tables)
		{
			BcmigScriptTable *t = (BcmigScriptTable *) lfirst(lc);
			char	   *name = quote_literal_cstr(quote_qualified_identifier(t->schema, t->table));

			if (!t->has_key)
				appendStringInfo(&s, "-- %s has no key: it is kept by compare\n",
								 bcmig_in_comment(quote_qualified_identifier(t->schema, t->table)));
			else if (strcmp(t->capture, "rowversion") == 0)
				appendStringInfo(&s, "SELECT bcmig_blue.track(%s, 'rowversion');\n", name);
			else
				appendStringInfo(&s, "SELECT bcmig_blue.track(%s);\n", name);
		}
		if (tables == NIL)
			appendStringInfoString(&s, "SELECT bcmig_blue.track('public.\"a table\"'); -- one line for each table\n");
		appendStringInfo(&s, "SELECT bcmig_blue.grant_reader(%s);\n", quote_literal_cstr(role));
	}
	else
	{
		appendStringInfoString(&s,
							   "-- bcmig: takes everything of bcmig away from blue. Run with psql on blue, as a superuser.\n");
		foreach(lc, tables)
		{
			BcmigScriptTable *t = (BcmigScriptTable *) lfirst(lc);

			appendStringInfo(&s, "SELECT bcmig_blue.untrack(%s);\n",
							 quote_literal_cstr(quote_qualified_identifier(t->schema, t->table)));
		}
		appendStringInfo(&s,
						 "-- when no other green reads this blue:\n"
						 "DROP SCHEMA bcmig_blue CASCADE;\n"
						 "DROP OWNED BY %s;\n"
						 "DROP ROLE %s;\n", role, role);
	}
	return s.data;
}

char *
bcmig_postgres_version_index(const BcmigTableInfo *table)
{
	return psprintf("CREATE INDEX CONCURRENTLY ON %s (%s);", bcmig_postgres_source_name(table),
					quote_identifier(table->version_column));
}
