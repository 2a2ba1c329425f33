/*-------------------------------------------------------------------------
 *
 * repair.c
 *	  Making right what a validation found to be wrong.
 *
 * Rows that differ are read again from blue by their keys and written, under
 * the table's applier lock and by the same code as a window's rows (rule R1):
 * a repair can write nothing that is older than what the sync wrote.  A table
 * without key is compared as a whole.  Whether it helped is looked up
 * afterwards: what still differs says so.  A request for a table that does not
 * stream waits until it does, one that a stopping sync has cut short goes on
 * with what is left.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "call.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "slot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

BCMIG_FUNCTION(bcmig_repair);

#define BATCH_KEYS	200

/* of table t, its state s and sync y: NULL when it streams */
#define WHY_IT_WAITS \
	"CASE WHEN s.state NOT IN ('streaming', 'catching_up') THEN 'waits until the table streams: ' || CASE s.state WHEN 'suspended' " \
	" THEN format('SELECT bcmig_resume_table(%L, %L);', y.name, format('%I.%I', t.target_schema, t.target_table)) ELSE 'it is ' || s.state END END"

/*
 * bcmig_repair(run, dry_run): a step per table with differences that have not
 * been repaired.
 */
Datum
bcmig_repair(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	int64		run_id;
	bool		dry_run = bcmig_arg_bool(fcinfo, 1);
	char	   *sync_name;
	Oid			owner;
	BcmigCatalogScope scope;
	List	   *steps = NIL;
	uint64		n;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("run must not be null")));
	bcmig_require_loaded();
	run_id = PG_GETARG_INT64(0);
	bcmig_run_sync(run_id, &sync_name, &owner);
	bcmig_check_member(owner, "sync", sync_name);

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT 1 FROM bcmig.validation_run r JOIN bcmig.sync s USING (sync_id) WHERE r.run_id = $1 AND s.wanted = 'running'", "I", run_id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" is not running", sync_name),
				 errhint("SELECT bcmig_start_sync(%s);", quote_literal_cstr(sync_name))));
	n = bcmig_sql("SELECT format('%I.%I', t.target_schema, t.target_table), count(*), v.differences > (SELECT count(*) FROM bcmig.validation_difference x "
				  "  WHERE x.run_id = d.run_id AND x.table_id = d.table_id), count(d.key), " WHY_IT_WAITS " "
				  "FROM bcmig.validation_difference d JOIN bcmig.sync_table t USING (table_id) JOIN bcmig.table_state s USING (table_id) "
				  "JOIN bcmig.sync y ON y.sync_id = t.sync_id JOIN bcmig.validation_result v USING (run_id, table_id) "
				  "WHERE d.run_id = $1 AND d.repaired_at IS NULL GROUP BY 1, 3, 5 ORDER BY 1", "I", run_id);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(caller);
		BcmigStep  *step = palloc0(sizeof(BcmigStep));
		char	   *target = bcmig_get_text(i, 1);
		bool		keyless = bcmig_get_int64(i, 4, 0) == 0;

		step->where = "green";
		step->statement = keyless ? psprintf("compare %s with blue as a whole and make it equal", target) :
			psprintf("read " INT64_FORMAT " rows of %s from blue by key and write them", bcmig_get_int64(i, 2, 0), target);
		step->reversible = false;
		step->expected = bcmig_get_text(i, 5);
		if (step->expected == NULL)
			step->expected = bcmig_get_bool(i, 3) && !keyless ?
				psprintf("the rows listed are right; more differ than are listed: SELECT bcmig_resync_table(%s, %s);",
						 quote_literal_cstr(sync_name), quote_literal_cstr(target)) : pstrdup("the rows are as blue has them");
		step->on_failure = "validation_difference.repair_error says why, nothing else changes";
		steps = lappend(steps, step);
		MemoryContextSwitchTo(oldcontext);
	}
	if (!dry_run && n > 0)
	{
		bcmig_sql("INSERT INTO bcmig.request (sync_id, table_id, kind, ids) "
				  "SELECT DISTINCT r.sync_id, d.table_id, 'repair', ARRAY[r.run_id] FROM bcmig.validation_run r JOIN bcmig.validation_difference d USING (run_id) "
				  "WHERE r.run_id = $1 AND d.repaired_at IS NULL", "I", run_id);
		bcmig_sql("UPDATE bcmig.validation_difference d SET repair_error = " WHY_IT_WAITS " "
				  "FROM bcmig.sync_table t JOIN bcmig.table_state s USING (table_id) JOIN bcmig.sync y ON y.sync_id = t.sync_id "
				  "WHERE d.run_id = $1 AND d.repaired_at IS NULL AND t.table_id = d.table_id", "I", run_id);
		bcmig_audit("command", sync_name, NULL, "bcmig_repair", psprintf("run " INT64_FORMAT, run_id));
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
	return bcmig_return_steps(fcinfo, steps);
}

/* ids and keys of the next differences above "after"; in the current context, NULL keys = all were done */
static char **
next_keys(BcmigWork *work, int64 run_id, int64 *after, int64 *ids, int *n)
{
	MemoryContext caller = CurrentMemoryContext;
	int			nkeys = work->table->nkeys;
	BcmigCatalogScope scope;
	char	  **keys = palloc(sizeof(char *) * BATCH_KEYS * nkeys);

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	*n = bcmig_sql("SELECT difference_id, ARRAY(SELECT jsonb_array_elements_text(key)) FROM bcmig.validation_difference "
				   "WHERE run_id = $1 AND table_id = $2 AND repaired_at IS NULL AND difference_id > $3 ORDER BY difference_id LIMIT $4",
				   "IiIi", run_id, work->table->table_id, *after, BATCH_KEYS);
	for (int i = 0; i < *n; i++)
	{
		char	  **key = bcmig_get_texts(i, 2, nkeys, caller);

		if (key == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_WRONG_STATE),
					 errmsg("the validation was made with another key"),
					 errhint("SELECT bcmig_validate(%s, %s, 'full');", quote_literal_cstr(work->table->sync_name),
							 quote_literal_cstr(work->table->target_name))));
		memcpy(&keys[i * nkeys], key, sizeof(char *) * nkeys);
		ids[i] = *after = bcmig_get_int64(i, 1, 0);
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return keys;
}

/* these differences are over, but for rows green refuses; in no transaction */
static void
store_repaired(const int64 *ids, int n, const BcmigWork *work)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(n, 1));
	BcmigCatalogScope scope;

	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum(ids[i]);
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.validation_difference d SET "
			  " repaired_at = CASE WHEN q.message IS NULL THEN clock_timestamp() END, repair_error = q.sqlstate || ': ' || q.message "
			  "FROM bcmig.validation_difference x LEFT JOIN bcmig.quarantine q ON q.table_id = x.table_id AND q.key = x.key "
			  "WHERE x.difference_id = d.difference_id AND d.difference_id = ANY ($1)",
			  "q", PointerGetDatum(construct_array(values, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)));
	bcmig_audit("state", work->table->sync_name, work->table->target_name, "repaired", psprintf("%d rows", n));
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

bool
bcmig_run_repair(BcmigWork *work)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bcmig repair", ALLOCSET_DEFAULT_SIZES);
	BcmigCatalogScope scope;
	BcmigApplied applied = {0};
	int64		run_id = 0;
	int64		after = 0;
	int			n;

	bcmig_slot_phase("repair", work->table->target_name, 0);
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT ids[1] FROM bcmig.request WHERE request_id = $1", "I", work->request_id) > 0)
		run_id = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();

	if (work->table->nkeys == 0)
	{
		bool		swept = bcmig_run_sweep(work);

		bcmig_start_transaction();
		bcmig_catalog_begin(&scope);
		bcmig_sql("UPDATE bcmig.validation_difference SET repaired_at = CASE WHEN $3 THEN clock_timestamp() END, "
				  " repair_error = CASE WHEN NOT $3 THEN 'the compare did not run: see bcmig.table_status' END "
				  "WHERE run_id = $1 AND table_id = $2 AND repaired_at IS NULL", "Iib", run_id, work->table->table_id, (int) swept);
		bcmig_audit("state", work->table->sync_name, work->table->target_name, "repaired", "compared as a whole");
		bcmig_catalog_end(&scope);
		bcmig_end_transaction();
		return true;
	}
	do
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(context);
		int64		ids[BATCH_KEYS];
		char	  **keys = next_keys(work, run_id, &after, ids, &n);

		CHECK_FOR_INTERRUPTS();
		if (n > 0)
		{
			bcmig_reread_keys(work, "repair", n, keys, &applied);
			store_repaired(ids, n, work);
		}
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(context);
	} while (n > 0 && !bcmig_stopping(work));
	return n == 0;
}
