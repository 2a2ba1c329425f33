/*-------------------------------------------------------------------------
 *
 * reverse_postgres.c
 *	  The statements that write to a PostgreSQL blue
 *	  (blue/postgres_switch.sql).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "dialect.h"

#include "utils/builtins.h"

char *
bcmig_postgres_may_write(void)
{
	/* a script from before forget_replayed() is none */
	return pstrdup("SELECT (SELECT CASE WHEN count(*) = 2 THEN pg_catalog.bool_and(pg_catalog.has_function_privilege(p.oid, 'EXECUTE')"
				   "   AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')) END::text FROM pg_catalog.pg_proc p"
				   "  JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'bcmig_blue' AND p.proname IN ('replay', 'forget_replayed')),"
				   " session_user::text, NULL, NULL, NULL, NULL, NULL, NULL");
}

char *
bcmig_postgres_replayed(const BcmigTableInfo *table, const char *green, int64 since)
{
	return psprintf("SELECT r.key::text, r.journal_ids::text, r.version::text, NULL, NULL, NULL, NULL, NULL"
					" FROM bcmig_blue.replayed(%s, %s, %s, " INT64_FORMAT ") r",
					quote_literal_cstr(green), quote_literal_cstr(table->source_schema), quote_literal_cstr(table->source_table), since);
}

char *
bcmig_postgres_forget_replayed(const char *green, int64 below)
{
	return psprintf("SELECT bcmig_blue.forget_replayed(%s, " INT64_FORMAT ")::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
					quote_literal_cstr(green), below);
}

static void
append_names(StringInfo s, const BcmigTableInfo *table, List *columns)
{
	ListCell   *lc;

	appendStringInfoString(s, "ARRAY[");
	foreach(lc, columns)
		appendStringInfo(s, "%s%s", foreach_current_index(lc) > 0 ? "," : "",
						 quote_literal_cstr(table->columns[lfirst_int(lc)].source));
	appendStringInfoString(s, "]::text[]");
}

/* what bcmig_blue.replay() wants to know of a key */
static void
append_entry(StringInfo s, const BcmigReverse *r)
{
	appendStringInfo(s, "{\"k\":%s,\"i\":[", r->key);
	for (int i = 0; i < r->nids; i++)
		appendStringInfo(s, "%s" INT64_FORMAT, i > 0 ? "," : "", r->ids[i]);
	appendStringInfoString(s, "],\"e\":[");
	for (int i = 0; i < r->nknown; i++)
	{
		const BcmigKnown *known = &r->known[i];

		if (i > 0)
			appendStringInfoChar(s, ',');
		if (known->absent)
			appendStringInfoString(s, "{\"a\":true}");
		else
		{
			appendStringInfoChar(s, '{');
			if (known->version >= 0)
				appendStringInfo(s, "\"v\":" INT64_FORMAT, known->version);
			if (known->row != NULL)
				appendStringInfo(s, "%s\"r\":%s", known->version >= 0 ? "," : "", known->row);
			appendStringInfoChar(s, '}');
		}
	}
	appendStringInfoString(s, "]}");
}

char *
bcmig_postgres_replay(const BcmigTableInfo *table, const char *green, List *columns, int n, const BcmigReverse *reverse)
{
	StringInfoData s;
	StringInfoData entries;
	List	   *keys = NIL;

	for (int k = 0; k < table->nkeys; k++)
		keys = lappend_int(keys, table->keys[k]);
	initStringInfo(&s);
	initStringInfo(&entries);
	for (int i = 0; i < n; i++)
	{
		appendStringInfoChar(&entries, i > 0 ? ',' : '[');
		append_entry(&entries, &reverse[i]);
	}
	appendStringInfoChar(&entries, ']');
	appendStringInfo(&s, "SELECT r.n::text, r.outcome, r.version::text, r.code, r.message, NULL, NULL, NULL FROM bcmig_blue.replay(%s, %s, %s, %s, ",
					 quote_literal_cstr(green), quote_literal_cstr(table->source_schema), quote_literal_cstr(table->source_table),
					 table->version_column ? quote_literal_cstr(table->version_column) : "NULL");
	append_names(&s, table, columns);
	appendStringInfoString(&s, ", ");
	append_names(&s, table, keys);
	appendStringInfo(&s, ", %s, ARRAY[", quote_literal_cstr(entries.data));
	for (int i = 0; i < n; i++)
		appendStringInfo(&s, "%s%s", i > 0 ? "," : "", reverse[i].row ? quote_literal_cstr(reverse[i].row) : "NULL");
	appendStringInfoString(&s, "]::text[]) r");
	return s.data;
}
