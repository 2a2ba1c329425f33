/*-------------------------------------------------------------------------
 *
 * reverse_feed.c
 *	  While writes are on green, what is written there is brought to blue all
 *	  the time, so that a rollback has little left to do.
 *
 * The manager gives the job once a second to a sync at weight 100 whose journal
 * is armed, unless traffic is held or being changed.  What came of it is in
 * bcmig.reverse_state; after a failure it is left alone for a while.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "reverse.h"

#include "slot.h"
#include "traffic.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define MOST_TIME		60000	/* ms of one job */
#define MOST_BACKOFF	30000	/* ms */

/* what came of it; problem NULL = nothing is wrong.  In a scope. */
static void
store(int sync_id, int64 replayed, const char *problem)
{
	bcmig_sql("INSERT INTO bcmig.reverse_state AS v (sync_id, replayed, replayed_at, problem, failures, failing_since, not_before) "
			  "VALUES ($1, $2, CASE WHEN $2 > 0 THEN clock_timestamp() END, $3, ($3 IS NOT NULL)::int, "
			  " CASE WHEN $3 IS NOT NULL THEN clock_timestamp() END, CASE WHEN $3 IS NOT NULL THEN clock_timestamp() + interval '1 s' END) "
			  "ON CONFLICT (sync_id) DO UPDATE SET replayed = v.replayed + excluded.replayed, replayed_at = coalesce(excluded.replayed_at, v.replayed_at), "
			  " problem = excluded.problem, failures = CASE WHEN excluded.problem IS NOT NULL THEN least(v.failures + 1, 100) ELSE 0 END, "
			  " failing_since = CASE WHEN excluded.problem IS NOT NULL THEN coalesce(v.failing_since, clock_timestamp()) END, "
			  " not_before = CASE WHEN excluded.problem IS NOT NULL THEN clock_timestamp() + least($4, 1000 * 2 ^ least(v.failures, 10)) * interval '1 ms' END "
			  "WHERE excluded.replayed > 0 OR v.problem IS NOT NULL OR excluded.problem IS NOT NULL",
			  "iIti", sync_id, replayed, problem, MOST_BACKOFF);
	if (problem != NULL)
		bcmig_config_changed();	/* not_before is to be read */
}

void
bcmig_run_reverse(int sync_id)
{
	BcmigSync  *sync;
	BcmigReplayed result = {0};
	BcmigTraffic traffic;
	BcmigCatalogScope scope;
	bool		pending;
	char	   *problem;

	bcmig_start_transaction();
	sync = bcmig_read_sync(sync_id);
	(void) bcmig_traffic_load(sync_id, false, &traffic);
	bcmig_catalog_begin(&scope);
	pending = bcmig_sql("SELECT FROM bcmig.sync_table t WHERE t.sync_id = $1 AND EXISTS (SELECT FROM bcmig.journal j "
						" WHERE j.table_id = t.table_id AND j.settled_at IS NULL) LIMIT 1", "i", sync_id) > 0;
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	if (sync == NULL || traffic.held != NULL)
		return;

	/* a restored copy has this journal too */
	if (pending && !bcmig_green_may_act(sync, &traffic, true))
		return;
	problem = pending ? bcmig_replay_problem(sync) : NULL;
	if (pending && (problem == NULL || bcmig_replay_by_script(sync)))
	{
		bcmig_replay(sync, TimestampTzPlusMilliseconds(bcmig_steady_time(), MOST_TIME), &result);
		problem = result.problem;
		if (result.written > 0)
			bcmig_forget_replayed(sync);
	}
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	store(sync_id, result.written, problem);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

/* the job raised an error, after the abort */
void
bcmig_reverse_failed(const BcmigJob *job, const ErrorData *edata)
{
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	if (bcmig_read_sync(job->sync_id) != NULL)
	{
		bcmig_catalog_begin(&scope);
		store(job->sync_id, 0, bcmig_error_text(edata, true));
		bcmig_catalog_end(&scope);
	}
	bcmig_end_transaction();
}
