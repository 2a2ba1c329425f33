/*-------------------------------------------------------------------------
 *
 * complete.c
 *	  bcmig_complete_sync: green stays, the way back is given up.
 *
 * In the caller's transaction, which is the dry run as well: everything that
 * feeds or guards the green tables goes, the tables, their views and all that is
 * on record stay.  The sync is kept, completed, for what is on record about it;
 * it cannot be started again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include "call.h"
#include "fence.h"
#include "journal.h"
#include "reverse.h"
#include "utils/builtins.h"
#include "worker.h"

BCMIG_FUNCTION(bcmig_complete_sync);

/* what the person has to write: that it is meant, and what is given up with it */
static char *
confirmation(const BcmigSync *sync, int64 unreplayed)
{
	return unreplayed == 0 ? sync->name : psprintf("%s without " INT64_FORMAT, sync->name, unreplayed);
}

/*
 * bcmig_complete_sync(sync, confirm, dry_run)
 */
Datum
bcmig_complete_sync(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *confirm = bcmig_arg_text(fcinfo, 1, "confirm");
	bool		dry_run = bcmig_arg_bool(fcinfo, 2);
	BcmigTraffic traffic;
	BcmigCatalogScope scope;
	List	   *plan = NIL;
	List	   *feeds = NIL;
	ListCell   *lc;
	int64		unreplayed;
	char	   *wanted;
	char	   *unschedule;
	uint64		n;

	bcmig_require_loaded();
	bcmig_require_started(sync, !dry_run, &traffic);
	bcmig_catalog_begin(&scope);
	if (traffic.green_percent < 100 || traffic.intent != 0 ||
		bcmig_sql("SELECT FROM bcmig.switch WHERE sync_id = $1 AND state = 'running'", "i", sync->sync_id) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" cannot be completed", sync->name),
				 errdetail("%g %% of its traffic is on green%s.", traffic.green_percent,
						   traffic.green_percent == 100 ? ", and it is being moved or observed" : ""),
				 errhint("SELECT * FROM bcmig.switch_status WHERE sync = %s;", quote_literal_cstr(sync->name))));
	unreplayed = bcmig_unreplayed(sync->sync_id);
	wanted = confirmation(sync, unreplayed);
	if (!dry_run && strcmp(confirm, wanted) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("completing sync \"%s\" is not confirmed", sync->name),
				 unreplayed > 0 ? errdetail(INT64_FORMAT " rows written on green are not on blue; they could not be brought there any more.", unreplayed) :
				 errdetail("There is no way back after it."),
				 errhint("SELECT * FROM bcmig_complete_sync(%s, confirm => %s);", quote_literal_cstr(sync->name), quote_literal_cstr(wanted))));

	n = bcmig_sql("SELECT quote_ident(feed) FROM bcmig.sync_table WHERE sync_id = $1 ORDER BY table_id", "i", sync->sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		feeds = lappend(feeds, bcmig_get_text(i, 1));

	plan = bcmig_add_step(plan, "green", psprintf("SELECT bcmig_stop_sync(%s)", quote_literal_cstr(sync->name)), false,
						  "blue is not read any more", NULL);
	plan = bcmig_add_step(plan, "green", psprintf("SELECT bcmig.disarm_journal(%s)", quote_literal_cstr(sync->name)), false,
						  unreplayed > 0 ? psprintf("nothing goes back to blue; " INT64_FORMAT " rows never went there", unreplayed) :
						  "nothing goes back to blue", NULL);
	plan = bcmig_add_step(plan, "green", psprintf("DROP FOREIGN TABLE of %d feeds", list_length(feeds)), false,
						  "green tables, views, quarantine, conflicts, journal and audit stay", NULL);
	plan = bcmig_add_step(plan, "balancer", "balancers are left as they are", false, "all to green; bcmig does not look after them any more", NULL);
	unschedule = bcmig_check_room->unschedule(sync->sync_id, sync->name, dry_run);
	if (unschedule != NULL)
		plan = bcmig_add_step(plan, "green", unschedule, true, "validations are not run by pg_cron any more", NULL);
	if (!dry_run)
	{
		bcmig_journal_disarm(sync);
		foreach(lc, feeds)
		{
			if (SPI_execute(psprintf("DROP FOREIGN TABLE IF EXISTS bcmig.%s", (char *) lfirst(lc)), false, 0) < 0)
				elog(ERROR, "SPI_execute failed");
		}
		bcmig_sql("DELETE FROM bcmig.balancer WHERE sync_id = $1", "i", sync->sync_id);
		bcmig_sql("DELETE FROM bcmig.request WHERE sync_id = $1", "i", sync->sync_id);
		bcmig_sql("UPDATE bcmig.traffic SET completed_at = now(), held = NULL, updated_at = clock_timestamp() WHERE sync_id = $1", "i", sync->sync_id);
		bcmig_sql("UPDATE bcmig.sync SET wanted = 'stopped' WHERE sync_id = $1", "i", sync->sync_id);
		(void) bcmig_set_fence(sync, false, "completed");
		(void) bcmig_traffic_event(sync->name, "completed", -1, -1, 0, NULL,
								   unreplayed > 0 ? psprintf(INT64_FORMAT " rows written on green are not on blue", unreplayed) : NULL);
		bcmig_audit("command", sync->name, NULL, "bcmig_complete_sync", confirm);
		bcmig_fence_changed();
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
	return bcmig_return_steps(fcinfo, plan);
}
