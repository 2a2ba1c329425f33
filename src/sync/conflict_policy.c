/*-------------------------------------------------------------------------
 *
 * conflict_policy.c
 *	  Policies of conflicts: whether they can work, the later row, and asking a
 *	  function.
 *
 * A conflict_function is user SQL: it runs as the sync's owner in a read-only
 * subtransaction that is always rolled back, under a timeout.  What it raises
 * is its answer: the conflict waits for a person.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "conflict.h"
#include "quarantine.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define MODIFIED_AT			"$systemModifiedAt"
#define FUNCTION_TIMEOUT	5000	/* ms */

void
bcmig_read_side(const BcmigTableInfo *table, Oid relid, const char *query, int nargs,
				Oid *types, Datum *values, const char *nulls, BcmigSide *side)
{
	MemoryContext caller = CurrentMemoryContext;
	StringInfoData s;
	StringInfoData key;
	StringInfoData columns;
	bool		isnull;
	Datum		record;

	memset(side, 0, sizeof(*side));
	initStringInfo(&s);
	initStringInfo(&key);
	initStringInfo(&columns);
	for (int k = 0; k < table->nkeys; k++)
		appendStringInfo(&key, "%s(x.r).%s::pg_catalog.text", k ? ", " : "",
						 quote_identifier(table->columns[table->keys[k]].target));
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (get_attnum(relid, table->columns[i].target) != InvalidAttrNumber)
			appendStringInfo(&columns, "%s(x.r).%s", columns.len ? ", " : "", quote_identifier(table->columns[i].target));
	}
	appendStringInfo(&s, "SELECT x.r, pg_catalog.jsonb_build_array(%s)::pg_catalog.text, ROW(%s), %s FROM (%s) x(r)",
					 key.data, columns.data, columns.data, query);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(s.data, nargs, types, values, nulls, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", s.data);
	if (SPI_processed > 0)
	{
		record = bcmig_get_datum(0, 1, &isnull);
		if (!isnull)
		{
			TupleDesc	desc = SPI_tuptable->tupdesc;
			MemoryContext oldcontext = MemoryContextSwitchTo(caller);
			Datum	   *fields = palloc(sizeof(Datum) * desc->natts);
			bool	   *nulls_found = palloc(sizeof(bool) * desc->natts);

			heap_deform_tuple(SPI_tuptable->vals[0], desc, fields, nulls_found);
			side->exists = true;
			side->record = datumCopy(record, false, -1);
			side->key = bcmig_get_text(0, 2);
			side->mapped = datumCopy(fields[2], false, -1);
			side->image = bcmig_image_json(desc, 3, fields, nulls_found);
			MemoryContextSwitchTo(oldcontext);
		}
	}
	SPI_finish();
}

char *
bcmig_conflict_policy(const BcmigTableInfo *table)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *policy = "manual";

	/* once writes have moved, what green has is no longer what blue knows better */
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT CASE WHEN e.source = 'default' AND t.switched_at IS NOT NULL THEN 'manual' ELSE e.value END "
				  "FROM bcmig.effective_option e LEFT JOIN bcmig.traffic t USING (sync_id) WHERE e.table_id = $1 AND e.name = 'conflict'",
				  "i", table->table_id) > 0)
		policy = MemoryContextStrdup(caller, bcmig_get_text(0, 1));
	bcmig_catalog_end(&scope);
	return policy;
}

/* ---- latest_wins ---- */

/*
 * When green's row was written: what it says itself where the outside write has
 * changed that, else the journal.  Blue's clock is UTC, so is $systemModifiedAt.
 */
bool
bcmig_green_is_later(const BcmigTableInfo *table, const BcmigSide *old, const BcmigSide *blue,
					 const BcmigSide *green, TimestampTz written_at, char **why)
{
	const BcmigColumn *column = NULL;
	BcmigCatalogScope scope;
	bool		later;

	for (int i = 0; i < table->ncolumns; i++)
	{
		if (table->columns[i].part == 0 && strcmp(table->columns[i].source, MODIFIED_AT) == 0)
			column = &table->columns[i];
	}
	if (column == NULL || !blue->exists)
	{
		*why = column == NULL ? "the table has no " MODIFIED_AT : "blue deleted the row, nobody knows when";
		return false;
	}
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT g.at > b.at, b.at IS NULL FROM (SELECT $1->>$4, $2->>$4, $3->>$4) x(blue, green, old), "
			  "LATERAL (SELECT CASE WHEN $6 THEN x.blue::timestamptz AT TIME ZONE 'UTC' ELSE x.blue::timestamp END) b(at), "
			  "LATERAL (SELECT CASE WHEN x.green IS NULL OR x.green IS NOT DISTINCT FROM x.old THEN $5 AT TIME ZONE 'UTC' "
			  " WHEN $6 THEN x.green::timestamptz AT TIME ZONE 'UTC' ELSE x.green::timestamp END) g(at)",
			  "jjjtzb", blue->image, green->image, old->image, column->target, written_at,
			  (int) (strstr(column->target_type, "with time zone") != NULL));
	later = bcmig_get_bool(0, 1);
	if (bcmig_get_bool(0, 2))
		*why = "blue's row has no " MODIFIED_AT;
	bcmig_catalog_end(&scope);
	return later;
}

/* ---- a function ---- */

/* schema-qualified name of the function, for a statement; NULL = none */
static char *
function_name(int table_id)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *name = NULL;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT format('%I.%I', n.nspname, p.proname) FROM bcmig.effective_option e "
				  "JOIN pg_proc p ON p.oid = to_regprocedure(e.value) JOIN pg_namespace n ON n.oid = p.pronamespace "
				  "WHERE e.table_id = $1 AND e.name = 'conflict_function'", "i", table_id) > 0)
		name = MemoryContextStrdup(caller, bcmig_get_text(0, 1));
	bcmig_catalog_end(&scope);
	return name;
}

bool
bcmig_ask_conflict_function(const BcmigTableInfo *table, Oid relid, const char *key,
							const BcmigSide *old, const BcmigSide *blue, const BcmigSide *green,
							BcmigSide *result, char **why)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner oldowner = CurrentResourceOwner;
	ErrorData  *volatile edata = NULL;
	const BcmigSide *sides[] = {old, blue, green};
	Oid			types[3];
	Datum		values[3];
	char		nulls[] = "   ";
	char	   *fix;
	char	   *volatile name = "conflict_function";

	*why = NULL;
	if (old->partial)
	{
		*why = "the journal does not hold the old row whole, so the function was not called";
		return false;
	}
	for (int i = 0; i < 3; i++)
	{
		types[i] = get_rel_type_id(relid);
		values[i] = sides[i]->record;
		if (!sides[i]->exists)
			nulls[i] = 'n';
	}

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	PG_TRY();
	{
		XactReadOnly = true;
		*why = bcmig_policy_problem(table->table_id, &fix);
		if (*why == NULL)
		{
			name = function_name(table->table_id);
			enable_timeout_after(STATEMENT_TIMEOUT, FUNCTION_TIMEOUT);
			bcmig_read_side(table, relid, psprintf("SELECT %s($1, $2, $3) OFFSET 0", name),
							3, types, values, nulls, result);
		}
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();

	/* it may have been cancelled by its timeout the moment it came to its end */
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = oldowner;

	if (*why != NULL)
		return false;
	if (edata != NULL)
		*why = psprintf("%s failed: %s: %s", name, unpack_sql_state(edata->sqlerrcode), edata->message);
	else if (!result->exists)
		*why = psprintf("%s returned NULL", name);
	else if (strcmp(result->key, key) != 0)
		*why = psprintf("%s returned the row of another key: %s", name, result->key);
	return *why == NULL;
}

/* ---- can it work? ---- */

char *
bcmig_policy_problem(int table_id, char **fix)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *problem = NULL;

	*fix = NULL;
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT CASE p.value "
				  " WHEN 'latest_wins' THEN CASE "
				  "  WHEN m.target_type IS NULL THEN format('latest_wins needs a column \"$systemModifiedAt\", %s has none', t.target) "
				  "  WHEN m.target_type !~ '^timestamp' THEN format('latest_wins needs a timestamp, column %I of %s is %s', m.target_column, t.target, m.target_type) END "
				  " WHEN 'function' THEN CASE "
				  "  WHEN f.value IS NULL THEN format('policy function of %s needs option conflict_function', t.target) "
				  "  WHEN c.oid IS NULL THEN NULL "	/* green table not made yet */
				  "  WHEN r.oid IS NULL THEN format('there is no function %s', f.value) "
				  "  WHEN r.prokind <> 'f' OR r.proretset OR r.pronargs <> 3 OR r.prorettype <> c.reltype OR r.proargtypes[0] <> c.reltype "
				  "   OR r.proargtypes[1] <> c.reltype OR r.proargtypes[2] <> c.reltype "
				  "   THEN format('%s is no function of three rows of %s that returns one', f.value, t.target) "
				  "  WHEN NOT has_function_privilege(s.owner::oid, r.oid, 'EXECUTE') OR NOT has_schema_privilege(s.owner::oid, r.pronamespace, 'USAGE') "
				  "   THEN format('role %s may not execute %s', s.owner, f.value) END END, "
				  " CASE WHEN p.value = 'function' AND f.value IS NOT NULL AND r.oid IS NOT NULL AND r.prorettype = c.reltype "
				  "  THEN format('GRANT EXECUTE ON FUNCTION %s TO %s;', f.value, s.owner) "
				  "  WHEN p.value = 'function' "
				  "  THEN format('SELECT bcmig_alter_table(%L, %L, ''{\"conflict\": \"function\", \"conflict_function\": \"schema.name(%s,%s,%s)\"}'');', s.name, t.target, t.target, t.target, t.target) "
				  "  ELSE format('SELECT bcmig_alter_table(%L, %L, ''{\"conflict\": \"source_wins\"}'');', s.name, t.target) END "
				  "FROM (SELECT *, format('%I.%I', target_schema, target_table) AS target FROM bcmig.sync_table WHERE table_id = $1) t "
				  "JOIN bcmig.sync s USING (sync_id) "
				  "JOIN bcmig.effective_option p ON p.table_id = t.table_id AND p.name = 'conflict' "
				  "JOIN bcmig.effective_option f ON f.table_id = t.table_id AND f.name = 'conflict_function' "
				  "LEFT JOIN bcmig.column_map m ON m.table_id = t.table_id AND m.source_column = $2 AND m.part = 0 "
				  "LEFT JOIN pg_class c ON c.oid = to_regclass(t.target) "
				  "LEFT JOIN pg_proc r ON r.oid = to_regprocedure(f.value)", "it", table_id, MODIFIED_AT) > 0)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(caller);

		problem = bcmig_get_text(0, 1);
		*fix = bcmig_get_text(0, 2);
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	return problem;
}

void
bcmig_require_policy(const BcmigSync *sync, int table_id)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *tables = NIL;
	ListCell   *lc;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT table_id FROM bcmig.effective_option WHERE sync_id = $1 AND ($2 = 0 OR table_id = $2) "
			  "AND name = 'conflict' AND value IN ('latest_wins', 'function') ORDER BY table_id", "ii", sync->sync_id, table_id);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(caller);

		tables = lappend_int(tables, bcmig_get_int64(i, 1, 0));
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	foreach(lc, tables)
	{
		char	   *fix;
		char	   *problem = bcmig_policy_problem(lfirst_int(lc), &fix);

		if (problem != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_OPTION),
					 errmsg("%s", problem),
					 errhint("%s", fix)));
	}
}
