/*-------------------------------------------------------------------------
 *
 * run.c
 *	  Validation runs: begun, cancelled, finished.
 *
 * bcmig_validate writes a run and a result row per table and returns; the
 * manager lends workers to the rows that are not done.  When none is left, the
 * worker that looks at the rules finishes the run.
 *
 * A job that fails is tried again: an unreachable blue for ever, anything else
 * MAX_FAILURES times, then the table is inconclusive.  Neither stops the sync.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "call.h"
#include "configure.h"
#include "slot.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define MAX_FAILURES	3

BCMIG_FUNCTION(bcmig_validate);
BCMIG_FUNCTION(bcmig_cancel_validation);

void
bcmig_check_mode(const char *mode)
{
	if (strcmp(mode, "count") != 0 && strcmp(mode, "incremental") != 0 && strcmp(mode, "full") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("there is no validation mode \"%s\"", mode),
				 errhint("Modes: count, incremental, full.")));
}

int64
bcmig_run_begin(const BcmigSync *sync, const char *target, const char *mode)
{
	char	   *name = NULL;
	int			table_id = 0;
	int64		run_id;
	uint64		tables;
	BcmigCatalogScope scope;

	bcmig_check_mode(mode);
	if (!sync->wanted)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" is not running", sync->name),
				 errdetail("Rows that differ are told from changes on their way by the sync itself."),
				 errhint("SELECT bcmig_start_sync(%s);", quote_literal_cstr(sync->name))));
	if (target != NULL)
		table_id = bcmig_find_table(sync, target, &name);

	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.validation_run (sync_id, table_id, mode) VALUES ($1, nullif($2, 0), $3) RETURNING run_id",
			  "iit", sync->sync_id, table_id, mode);
	run_id = bcmig_get_int64(0, 1, 0);
	tables = bcmig_sql("INSERT INTO bcmig.validation_result (run_id, table_id) SELECT $1, t.table_id FROM bcmig.sync_table t "
					   "WHERE t.sync_id = $2 AND $3 IN (0, t.table_id) AND coalesce((t.options->>'enabled')::bool, true)",
					   "Iii", run_id, sync->sync_id, table_id);
	if (tables == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" has no enabled table to validate", sync->name),
				 errhint("SELECT target, state FROM bcmig.table_status WHERE sync = %s;", quote_literal_cstr(sync->name))));
	bcmig_audit("command", sync->name, name, "bcmig_validate", psprintf("run " INT64_FORMAT ", %s", run_id, mode));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	return run_id;
}

/*
 * bcmig_validate(sync, target, mode): ask for a run, return its id.
 */
Datum
bcmig_validate(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync;

	bcmig_require_loaded();
	sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	PG_RETURN_INT64(bcmig_run_begin(sync, bcmig_arg_optional_text(fcinfo, 1), bcmig_arg_text(fcinfo, 2, "mode")));
}

/*
 * bcmig_cancel_validation(run): what has been found stays, workers let go at
 * the next group of chunks.
 */
Datum
bcmig_cancel_validation(PG_FUNCTION_ARGS)
{
	int64		run_id;
	BcmigCatalogScope scope;
	char	   *sync_name = NULL;
	Oid			owner = InvalidOid;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("run must not be null")));
	run_id = PG_GETARG_INT64(0);
	bcmig_run_sync(run_id, &sync_name, &owner);
	bcmig_check_member(owner, "sync", sync_name);

	if (!bcmig_run_cancel(run_id))
		ereport(NOTICE,
				(errmsg("validation " INT64_FORMAT " is over already", run_id)));
	else
	{
		bcmig_catalog_begin(&scope);
		bcmig_audit("command", sync_name, NULL, "bcmig_cancel_validation", psprintf("run " INT64_FORMAT, run_id));
		bcmig_catalog_end(&scope);
	}
	PG_RETURN_VOID();
}

bool
bcmig_run_cancel(int64 run_id)
{
	BcmigCatalogScope scope;
	bool		running;

	bcmig_catalog_begin(&scope);
	running = bcmig_sql("UPDATE bcmig.validation_run SET state = 'cancelled', verdict = 'inconclusive', finished_at = clock_timestamp() "
						"WHERE run_id = $1 AND state = 'running'", "I", run_id) > 0;
	if (running)
		bcmig_config_changed();
	bcmig_catalog_end(&scope);
	return running;
}

void
bcmig_run_sync(int64 run_id, char **sync_name, Oid *owner)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext oldcontext;
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT s.name, s.owner::oid FROM bcmig.validation_run r JOIN bcmig.sync s USING (sync_id) WHERE r.run_id = $1",
				  "I", run_id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("there is no validation " INT64_FORMAT, run_id),
				 errhint("SELECT run_id, sync, mode, started_at FROM bcmig.validation_summary;")));
	oldcontext = MemoryContextSwitchTo(caller);
	*sync_name = bcmig_get_text(0, 1);
	MemoryContextSwitchTo(oldcontext);
	*owner = bcmig_get_int64(0, 2, 0);
	bcmig_catalog_end(&scope);
}

BcmigRun *
bcmig_run_ready(int sync_id)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext oldcontext;
	BcmigCatalogScope scope;
	BcmigRun   *run = NULL;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT r.run_id, s.name, r.mode, coalesce(r.table_id, 0) FROM bcmig.validation_run r JOIN bcmig.sync s USING (sync_id) "
				  "WHERE r.sync_id = $1 AND r.state = 'running' "
				  "AND NOT EXISTS (SELECT FROM bcmig.validation_result v WHERE v.run_id = r.run_id AND NOT v.done) "
				  "ORDER BY r.run_id LIMIT 1", "i", sync_id) > 0)
	{
		oldcontext = MemoryContextSwitchTo(caller);
		run = palloc(sizeof(BcmigRun));
		run->run_id = bcmig_get_int64(0, 1, 0);
		run->sync_id = sync_id;
		run->sync_name = bcmig_get_text(0, 2);
		run->mode = bcmig_get_text(0, 3);
		run->table_id = bcmig_get_int64(0, 4, 0);
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	return run;
}

void
bcmig_run_finish(const BcmigRun *run, const char *error)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.validation_run SET detail = $2 WHERE run_id = $1 AND detail IS DISTINCT FROM $2", "It", run->run_id, error);

	/* a run that has judged nothing, its tables having gone meanwhile, has proved nothing */
	if (bcmig_sql("UPDATE bcmig.validation_run r SET state = 'finished', finished_at = clock_timestamp(), verdict = "
				  " (SELECT CASE coalesce(min(p.rank), 2) WHEN 1 THEN 'different' WHEN 2 THEN 'inconclusive' ELSE 'ok' END "
				  "  FROM bcmig.validation_verdict p WHERE p.run_id = r.run_id) "
				  "WHERE r.run_id = $1 AND r.state = 'running' RETURNING verdict, "
				  " (SELECT format('%I.%I', t.target_schema, t.target_table) FROM bcmig.sync_table t WHERE t.table_id = r.table_id)",
				  "I", run->run_id) > 0)
	{
		bcmig_audit("validation", run->sync_name, bcmig_get_text(0, 2), bcmig_get_text(0, 1),
					psprintf("run " INT64_FORMAT ", %s", run->run_id, run->mode));
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
}

/*
 * Rules could not be looked at, as a whole; not a rule that raises.
 */
static void
rules_failed(int sync_id, const char *message)
{
	BcmigRun   *run = bcmig_run_ready(sync_id);
	BcmigCatalogScope scope;
	int			failures;

	if (run == NULL)
		return;
	bcmig_numbers_failed(sync_id, message);
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.validation_run SET failures = failures + 1, detail = $2 WHERE run_id = $1 RETURNING failures",
			  "It", run->run_id, message);
	failures = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	if (failures >= MAX_FAILURES)
		bcmig_run_finish(run, message);
}

/*
 * After the abort of a job of this room; opens its own transaction.
 */
static void
job_failed(const BcmigJob *job, const ErrorData *edata, bool passing)
{
	char	   *message = bcmig_error_text(edata, true);
	BcmigCatalogScope scope;
	BcmigTable *live;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(job->table_id);
	if (live != NULL)
	{
		live->check_failures++;
		live->check_not_before = TimestampTzPlusMilliseconds(bcmig_steady_time(), bcmig_backoff(live->check_failures, 500, 30000));
	}
	LWLockRelease(bcmig_shared->lock);

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	if (job->kind == BCMIG_JOB_CHECK)
		bcmig_sql("UPDATE bcmig.validation_result SET detail = $2, failures = failures + CASE WHEN $3 THEN 0 ELSE 1 END, "
				  " verdict = CASE WHEN NOT $3 AND failures + 1 >= $4 THEN 'inconclusive' END, "
				  " finished_at = CASE WHEN NOT $3 AND failures + 1 >= $4 THEN clock_timestamp() END, "
				  " done = NOT $3 AND failures + 1 >= $4 "
				  "WHERE table_id = $1 AND NOT done", "itbi", job->table_id, message, (int) passing, MAX_FAILURES);
	else if (job->kind == BCMIG_JOB_REPAIR && !passing)
	{
		bcmig_sql("UPDATE bcmig.validation_difference d SET repair_error = $2 FROM bcmig.request r "
				  "WHERE r.request_id = $1 AND d.run_id = r.ids[1] AND d.table_id = r.table_id AND d.repaired_at IS NULL",
				  "It", job->request_id, message);
		bcmig_sql("DELETE FROM bcmig.request WHERE request_id = $1", "I", job->request_id);
	}

	/* rules are tried again when the manager reads its configuration next, in ten seconds at the latest */
	if (job->kind != BCMIG_JOB_RULES)
		bcmig_config_changed();
	bcmig_catalog_end(&scope);
	if (job->kind == BCMIG_JOB_RULES && !passing)
		rules_failed(job->sync_id, message);
	bcmig_end_transaction();
}

void
bcmig_check_init(void)
{
	static const BcmigCheckRoom room = {
		.check = bcmig_run_check,
		.rules = bcmig_run_rules,
		.repair = bcmig_run_repair,
		.failed = job_failed,
		.unschedule = bcmig_unschedule_jobs,
	};

	bcmig_check_room = &room;
	bcmig_mark_written = bcmig_mark_chunks;
}
