/*-------------------------------------------------------------------------
 *
 * fence_postgres.c
 *	  The fence of a PostgreSQL blue (blue/postgres_switch.sql).
 *
 * A table is fenced when its triggers stand on all that holds its rows, or,
 * where the login of Business Central is known, when no role that login may act
 * as has a right to write to it.  A superuser has every right; the owner of a
 * table has those it was left with.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "dialect.h"
#include "utils/builtins.h"

/* "schema"."table" of each, as an array of text */
static char *
table_array(List *tables)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	foreach(lc, tables)
	{
		BcmigName  *t = lfirst(lc);

		appendStringInfo(&s, "%s%s", s.len > 0 ? ", " : "",
						 quote_literal_cstr(psprintf("%s.%s", bcmig_postgres_ident(t->schema), bcmig_postgres_ident(t->name))));
	}
	return psprintf("ARRAY[%s]::pg_catalog.text[]", s.data);
}

/*
 * Triggers as bcmig_blue.raise_fence() makes them: always enabled, no WHEN, of
 * all columns; 31 is BEFORE ROW INSERT UPDATE DELETE, 34 BEFORE TRUNCATE.
 * Rights count on the table, its parts, and all it is a part of: who writes
 * through a parent needs no right on the part.
 */
static List *
postgres_state(List *tables, const char *login)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	appendStringInfoString(&s, "WITH RECURSIVE named (s, n) AS (VALUES ");
	foreach(lc, tables)
	{
		BcmigName  *t = lfirst(lc);

		appendStringInfo(&s, "%s(%s, %s)", lc == list_head(tables) ? "" : ", ", quote_literal_cstr(t->schema), quote_literal_cstr(t->name));
	}
	appendStringInfo(&s,
					 "), rel AS (SELECT w.s, w.n, c.oid FROM named w JOIN pg_catalog.pg_namespace x ON x.nspname = w.s"
					 " JOIN pg_catalog.pg_class c ON c.relnamespace = x.oid AND c.relname = w.n),"
					 " part AS (SELECT s, n, oid FROM rel UNION SELECT p.s, p.n, i.inhrelid FROM part p JOIN pg_catalog.pg_inherits i ON i.inhparent = p.oid),"
					 " whole AS (SELECT s, n, oid FROM part UNION SELECT w.s, w.n, i.inhparent FROM whole w JOIN pg_catalog.pg_inherits i ON i.inhrelid = w.oid),"
					 " fence AS (SELECT p.s, p.n, bool_and((SELECT count(DISTINCT t.tgtype) = 2 FROM pg_catalog.pg_trigger t"
					 " JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid JOIN pg_catalog.pg_namespace x ON x.oid = f.pronamespace"
					 " WHERE t.tgrelid = p.oid AND t.tgenabled = 'A' AND t.tgtype IN (31, 34) AND t.tgqual IS NULL AND t.tgattr::text = ''"
					 " AND x.nspname = 'bcmig_blue' AND f.proname = 'fenced')) AS up"
					 " FROM part p JOIN pg_catalog.pg_class c ON c.oid = p.oid WHERE c.relkind <> 'p' GROUP BY p.s, p.n),"
					 " login AS (SELECT r.oid, r.rolname FROM pg_catalog.pg_roles r WHERE r.rolname = %s),"
					 " may AS (SELECT w.s, w.n, min(r.rolname) AS role FROM whole w, login l, pg_catalog.pg_roles r"
					 " WHERE pg_has_role(l.oid, r.oid, 'MEMBER') AND (r.rolsuper OR has_table_privilege(r.oid, w.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')"
					 " OR has_any_column_privilege(r.oid, w.oid, 'INSERT, UPDATE')) GROUP BY w.s, w.n)",
					 login ? quote_literal_cstr(login) : "NULL");
	appendStringInfo(&s,
					 " SELECT w.s, w.n,"
					 " CASE WHEN r.oid IS NULL THEN 'unknown' WHEN f.up THEN 'fenced' WHEN NOT %1$s THEN 'open' WHEN l.oid IS NULL THEN 'unknown'"
					 "  WHEN m.role IS NOT NULL THEN 'open' ELSE 'fenced' END,"
					 " CASE WHEN r.oid IS NULL THEN 'it is not there' WHEN f.up THEN 'triggers refuse writes' WHEN NOT %1$s THEN 'no triggers refuse writes'"
					 "  WHEN l.oid IS NULL THEN format('there is no role %%s', %2$s::text)"
					 "  WHEN m.role IS NOT NULL THEN format('role %%s may write%%s', m.role, CASE WHEN m.role <> l.rolname THEN format(', which %%s is a member of', l.rolname) END)"
					 "  ELSE format('role %%s has no right to write', l.rolname) END,"
					 " NULL, NULL, NULL, NULL"
					 " FROM named w LEFT JOIN rel r USING (s, n) LEFT JOIN fence f USING (s, n) LEFT JOIN login l ON true LEFT JOIN may m USING (s, n)",
					 login ? "true" : "false", login ? quote_literal_cstr(login) : "NULL");
	return list_make1(s.data);
}

static char *
postgres_call(List *tables, bool up, int timeout)
{
	return psprintf("SELECT bcmig_blue.%s(%s, '%d ms'::pg_catalog.interval)::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
					up ? "raise_fence" : "lift_fence", table_array(tables), timeout);
}

static char *
postgres_script(List *tables, const char *login, bool up)
{
	return psprintf("-- bcmig: %s. Run with psql on blue, as a role bcmig_blue.grant_switch() named, after postgres_switch.sql.\n"
					"-- It is done when it returns; error BM022 names who is in the way, and nothing has been changed then.\n"
					"SELECT bcmig_blue.%s(%s, '30 s');\n",
					up ? "writes of others to these tables are refused" : "these tables can be written to again",
					up ? "raise_fence" : "lift_fence", table_array(tables));
}

/* by the catalogue: names of a schema without USAGE cannot be resolved */
static char *
postgres_preflight(void)
{
#define FUNCTIONS " FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace" \
	" WHERE n.nspname = 'bcmig_blue' AND p.proname IN ('raise_fence', 'lift_fence')"
#define GRANTED "has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE')"
	return pstrdup("SELECT 'fence', CASE WHEN x.there = 2 AND x.granted THEN 'ok' ELSE 'warn' END,"
				   " CASE WHEN x.there < 2 THEN 'missing' WHEN x.granted THEN 'can be called' ELSE 'not granted' END, 'can be called',"
				   " CASE WHEN x.there = 2 AND x.granted THEN NULL ELSE 'bcmig is to fence blue by functions that come with postgres_switch.sql.' END,"
				   " CASE WHEN x.there < 2 THEN '\\i postgres_switch.sql -- on blue, with psql'"
				   "  WHEN NOT x.granted THEN format('SELECT bcmig_blue.grant_switch(%L); -- on blue', current_user) END, NULL, NULL"
				   " FROM (SELECT count(*) AS there, bool_and(" GRANTED ") AS granted" FUNCTIONS ") x");
#undef FUNCTIONS
#undef GRANTED
}

const BcmigFenceDialect bcmig_postgres_fence = {
	.state = postgres_state,
	.script = postgres_script,
	.call = postgres_call,
	.preflight = postgres_preflight,
};
