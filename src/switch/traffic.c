/*-------------------------------------------------------------------------
 *
 * traffic.c
 *	  What is stored about the traffic of a sync, and what a DBA asks of it.
 *
 * A weight that is asked for is a row of bcmig.traffic_request; a worker does it
 * (change.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include "call.h"
#include "miscadmin.h"
#include "options.h"
#include "utils/builtins.h"

BCMIG_FUNCTION(bcmig_set_traffic);
BCMIG_FUNCTION(bcmig_hold_traffic);
BCMIG_FUNCTION(bcmig_resume_traffic);
BCMIG_FUNCTION(bcmig_adopt);

static const char *const change_kinds[] = {"change", "final", "rollback"};

const char *
bcmig_change_kind(BcmigChangeKind kind)
{
	return change_kinds[kind];
}

static BcmigChangeKind
change_kind_of(const char *name)
{
	for (int i = 0; name != NULL && i < lengthof(change_kinds); i++)
	{
		if (strcmp(change_kinds[i], name) == 0)
			return (BcmigChangeKind) i;
	}
	return BCMIG_CHANGE;
}

bool
bcmig_traffic_load(int sync_id, bool lock, BcmigTraffic *traffic)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	bool		found;
	bool		isnull;

	memset(traffic, 0, sizeof(*traffic));
	bcmig_catalog_begin(&scope);
	if (lock)
		bcmig_sql("SELECT FROM bcmig.traffic WHERE sync_id = $1 FOR UPDATE", "i", sync_id);
	found = bcmig_sql("SELECT green_percent::float8, coalesce((intent->>'id')::int8, 0), coalesce((intent->>'green_percent')::float8, 0), "
					  " intent->>'by', held, intent->>'kind', coalesce((intent->>'no_return')::bool, false), completed_at IS NOT NULL, journal_armed AND green_percent < 100 FROM bcmig.traffic WHERE sync_id = $1", "i", sync_id) > 0;
	if (found)
	{
		MemoryContextSwitchTo(caller);
		traffic->green_percent = DatumGetFloat8(bcmig_get_datum(0, 1, &isnull));
		traffic->intent = bcmig_get_int64(0, 2, 0);
		traffic->intent_percent = DatumGetFloat8(bcmig_get_datum(0, 3, &isnull));
		traffic->by = bcmig_get_text(0, 4);
		traffic->held = bcmig_get_text(0, 5);
		traffic->intent_kind = change_kind_of(bcmig_get_text(0, 6));
		traffic->no_return = bcmig_get_bool(0, 7);
		traffic->completed = bcmig_get_bool(0, 8);
		traffic->both_write = bcmig_get_bool(0, 9);
	}
	bcmig_catalog_end(&scope);
	return found;
}

int
bcmig_traffic_timeout(const BcmigSync *sync)
{
	BcmigCatalogScope scope;
	int			timeout;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	timeout = bcmig_option_int64("traffic_timeout", NULL, sync->options, 0);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return timeout;
}

int64
bcmig_traffic_event(const char *sync_name, const char *event, double from, double to,
					int64 epoch, const char *by, const char *detail)
{
	int64		event_id;
	char	   *share = to >= 0 ? psprintf("%g %% -> %g %%", from, to) : NULL;

	bcmig_sql("INSERT INTO bcmig.traffic_event (sync_name, event, from_percent, to_percent, epoch, by, detail) "
			  "VALUES ($1, $2, CASE WHEN $3 >= 0 THEN $3 END, CASE WHEN $4 >= 0 THEN $4 END, nullif($5, 0), $6, $7) RETURNING event_id",
			  "ttffItt", sync_name, event, from, to, epoch, by, detail);
	event_id = bcmig_get_int64(0, 1, 0);
	bcmig_audit("traffic", sync_name, NULL, event,
				share && detail ? psprintf("%s: %s", share, detail) : share ? share : detail);
	return event_id;
}

void
bcmig_traffic_hold(int sync_id, const char *sync_name, const char *by, const char *reason)
{
	bcmig_sql("UPDATE bcmig.traffic SET held = $2, updated_at = clock_timestamp() WHERE sync_id = $1", "it", sync_id, reason);
	bcmig_sql("DELETE FROM bcmig.traffic_request WHERE sync_id = $1", "i", sync_id);
	(void) bcmig_traffic_event(sync_name, "held", -1, -1, 0, by, reason);
	bcmig_config_changed();
}

/* ---------------------------------------------------------------------
 * SQL
 * --------------------------------------------------------------------- */

/* the row of bcmig.traffic comes with the first start: made before, the fence would not go up then */
void
bcmig_require_started(const BcmigSync *sync, bool lock, BcmigTraffic *traffic)
{
	if (!bcmig_traffic_load(sync->sync_id, lock, traffic))
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" was never started", sync->name),
				 errhint("SELECT bcmig_start_sync(%s);", quote_literal_cstr(sync->name))));
	if (traffic->completed)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" is completed", sync->name),
				 errdetail("Nothing looks after its traffic any more, and there is no way back."),
				 errhint("SELECT * FROM bcmig_drop_sync(%s); -- forgets it; the tables stay", quote_literal_cstr(sync->name))));
}

void
bcmig_refuse_held(const BcmigSync *sync, const BcmigTraffic *traffic)
{
	if (traffic->held != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_TRAFFIC),
				 errmsg("traffic of sync \"%s\" is held", sync->name),
				 errdetail("%s", traffic->held),
				 errhint("SELECT %s(%s);", bcmig_incarnation_differs(sync, NULL) ? "bcmig_adopt" : "bcmig_resume_traffic",
						 quote_literal_cstr(sync->name))));
}

/*
 * bcmig_set_traffic(sync, green_percent): a row nobody waits for, so that an
 * open transaction stops no worker.
 */
Datum
bcmig_set_traffic(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync;
	BcmigTraffic traffic;
	BcmigCatalogScope scope;
	double		percent;

	bcmig_require_loaded();
	sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"green_percent\" must not be NULL")));
	percent = DatumGetFloat8(DirectFunctionCall1(numeric_float8, PG_GETARG_DATUM(1)));
	if (percent == 100)
		ereport(ERROR,
				(errcode(ERRCODE_BM_TRAFFIC),
				 errmsg("traffic of sync \"%s\" cannot be set to 100 %%", sync->name),
				 errdetail("At 100 %% writers move too, which takes more than a weight."),
				 errhint("SELECT * FROM bcmig_switch_traffic(%s, '{100}', dry_run => true);", quote_literal_cstr(sync->name))));
	if (!(percent >= 0 && percent < 100))
		ereport(ERROR,
				(errcode(ERRCODE_BM_TRAFFIC),
				 errmsg("%s is no share of traffic", DatumGetCString(DirectFunctionCall1(numeric_out, PG_GETARG_DATUM(1)))),
				 errhint("Give a percentage from 0 to below 100.")));
	bcmig_require_started(sync, false, &traffic);
	bcmig_refuse_held(sync, &traffic);
	if (traffic.green_percent == 100 || (traffic.both_write && percent < traffic.green_percent))
		ereport(ERROR,
				(errcode(ERRCODE_BM_TRAFFIC),
				 errmsg("writers of sync \"%s\" are on green", sync->name),
				 errdetail("A lower weight would leave them without a side to write to."),
				 errhint("SELECT * FROM bcmig_rollback(%s, 'why', dry_run => true);", quote_literal_cstr(sync->name))));

	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.traffic_request (sync_id, green_percent) VALUES ($1, $2::numeric)", "if", sync->sync_id, percent);
	bcmig_audit("command", sync->name, NULL, "bcmig_set_traffic", psprintf("%g", percent));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * bcmig_hold_traffic(sync, reason)
 */
Datum
bcmig_hold_traffic(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *reason = bcmig_arg_text(fcinfo, 1, "reason");
	BcmigTraffic traffic;
	BcmigCatalogScope scope;

	bcmig_require_started(sync, true, &traffic);
	bcmig_catalog_begin(&scope);
	bcmig_audit("command", sync->name, NULL, "bcmig_hold_traffic", reason);
	bcmig_traffic_hold(sync->sync_id, sync->name, GetUserNameFromId(GetSessionUserId(), false), reason);
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/* what is stored is right, whatever the balancers do; inside a scope */
static void
end_hold(const BcmigSync *sync, const char *event, const char *detail)
{
	bcmig_sql("UPDATE bcmig.traffic SET held = NULL, updated_at = clock_timestamp() WHERE sync_id = $1", "i", sync->sync_id);
	bcmig_sql("UPDATE bcmig.balancer_state SET server_start = NULL, green_percent = NULL "
			  "WHERE balancer_id IN (SELECT balancer_id FROM bcmig.balancer WHERE sync_id = $1)", "i", sync->sync_id);
	(void) bcmig_traffic_event(sync->name, event, -1, -1, 0, GetUserNameFromId(GetSessionUserId(), false), detail);
	bcmig_config_changed();
}

/*
 * bcmig_resume_traffic(sync)
 */
Datum
bcmig_resume_traffic(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	BcmigTraffic traffic;
	BcmigCatalogScope scope;
	char	   *differs;

	bcmig_require_started(sync, true, &traffic);
	differs = bcmig_incarnation_differs(sync, NULL);
	if (traffic.held == NULL)
		ereport(NOTICE,
				(errmsg("traffic of sync \"%s\" is not held", sync->name)));
	else if (differs != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_TRAFFIC),
				 errmsg("traffic of sync \"%s\" is not resumed: this may be a copy of the database that moves it", sync->name),
				 errdetail("%s", differs),
				 errhint("SELECT bcmig_adopt(%s); -- if this is the one from now on", quote_literal_cstr(sync->name))));
	else
	{
		bcmig_catalog_begin(&scope);
		bcmig_audit("command", sync->name, NULL, "bcmig_resume_traffic", NULL);
		end_hold(sync, "resumed", NULL);
		bcmig_catalog_end(&scope);
	}
	PG_RETURN_VOID();
}

/*
 * bcmig_adopt(sync): blue is told by a worker.  A hold of another reason stays.
 */
Datum
bcmig_adopt(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	BcmigTraffic traffic;
	BcmigCatalogScope scope;
	const char *differs;
	bool		waiting;
	bool		disputed;

	bcmig_require_loaded();
	bcmig_require_started(sync, true, &traffic);
	differs = bcmig_incarnation_differs(sync, &waiting);
	if (differs == NULL && waiting)
		differs = "blue could not be asked since the server started";
	if (differs == NULL)
		ereport(NOTICE,
				(errmsg("this database is the one that moves the traffic of sync \"%s\" already", sync->name),
				 traffic.held ? errhint("SELECT bcmig_resume_traffic(%s); -- %s", quote_literal_cstr(sync->name), traffic.held) : 0));
	else
	{
		bcmig_catalog_begin(&scope);
		bcmig_audit("command", sync->name, NULL, "bcmig_adopt", differs);
		bcmig_sql("SELECT FROM bcmig.incarnation WHERE sync_id = $1 AND disputed IS NOT NULL", "i", sync->sync_id);
		disputed = SPI_processed > 0;
		bcmig_incarnation_adopt(sync->sync_id);
		if (disputed || traffic.held == NULL)
			end_hold(sync, "adopted", differs);
		else
		{
			(void) bcmig_traffic_event(sync->name, "adopted", -1, -1, 0, GetUserNameFromId(GetSessionUserId(), false), differs);
			bcmig_config_changed();
		}
		bcmig_catalog_end(&scope);
		if (!disputed && traffic.held != NULL)
			ereport(NOTICE,
					(errmsg("traffic of sync \"%s\" is still held: %s", sync->name, traffic.held),
					 errhint("SELECT bcmig_resume_traffic(%s);", quote_literal_cstr(sync->name))));
	}
	PG_RETURN_VOID();
}
