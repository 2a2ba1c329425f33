/*-------------------------------------------------------------------------
 *
 * raise.c
 *	  The fence of a sync goes up and down.
 *
 * Up: first the flag commits, then everybody is waited for who had locked one
 * of the tables for writing before (such a writer has been let through and may
 * commit after the flag).  Only when none of them is left is the fence reported
 * to be up.  No table is locked for that: their locks are looked at, and the
 * transactions that hold them are waited for one after the other.
 *
 * A crash in between leaves the flag as it was committed, which is up: safe.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fence.h"

#include "call.h"
#include "catalog/namespace.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "tcop/pquery.h"
#include "traffic.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "writers.h"

#define TERMINATE_WAIT		10000	/* ms for terminated sessions to end */

BCMIG_FUNCTION(bcmig_raise_fence);
BCMIG_FUNCTION(bcmig_lift_fence);

bool
bcmig_set_fence(const BcmigSync *sync, bool up, const char *event)
{
	BcmigCatalogScope scope;
	bool		before;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("INSERT INTO bcmig.traffic (sync_id) VALUES ($1) ON CONFLICT DO NOTHING", "i", sync->sync_id) > 0)
		bcmig_incarnation_seen(sync->sync_id);
	bcmig_sql("SELECT fence FROM bcmig.traffic WHERE sync_id = $1 FOR UPDATE", "i", sync->sync_id);
	before = bcmig_get_bool(0, 1);
	if (before != up)
	{
		bcmig_sql("UPDATE bcmig.traffic SET fence = $2, updated_at = clock_timestamp() WHERE sync_id = $1",
				  "ib", sync->sync_id, (int) up);
		bcmig_audit("state", sync->name, NULL, up ? "fence raised" : "fence lifted", event);
		bcmig_fence_changed();
	}
	bcmig_catalog_end(&scope);
	return before;
}

/* a target a subscription writes cannot be fenced */
static void
refuse_subscriptions(const BcmigSync *sync, List *relations)
{
	ListCell   *lc;

	foreach(lc, relations)
	{
		char	   *subscription = bcmig_subscription_of(lfirst_oid(lc));

		if (subscription == NULL)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("subscription \"%s\" writes table %s of sync \"%s\"", subscription,
						quote_qualified_identifier(get_namespace_name(get_rel_namespace(lfirst_oid(lc))), get_rel_name(lfirst_oid(lc))),
						sync->name),
				 errdetail("Its workers ask for no rights, so a fence would not stop them."),
				 errhint("DROP SUBSCRIPTION %s; or take the table out of its publication and REFRESH.", quote_identifier(subscription))));
	}
}

List *
bcmig_fenced_relations(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *targets = NIL;
	List	   *all = NIL;
	ListCell   *lc;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT c.oid FROM bcmig.sync_table t JOIN pg_namespace n ON n.nspname = t.target_schema "
				  "JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.target_table WHERE t.sync_id = $1 ORDER BY 1",
				  "i", sync->sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		targets = lappend_oid(targets, bcmig_get_int64(i, 1, 0));
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	foreach(lc, targets)
	{
		List	   *family = bcmig_relation_family(lfirst_oid(lc));

		/* most tables are nobody's part: no need to look for them in the list */
		all = list_length(family) == 1 ? list_concat(all, family) : list_concat_unique_oid(all, family);
	}
	return all;
}

void
bcmig_fence_at_start(const BcmigSync *sync)
{
	BcmigCatalogScope scope;
	bool		first;

	/* what was said later, by a switch or a person, stays */
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT FROM bcmig.traffic WHERE sync_id = $1 AND completed_at IS NOT NULL", "i", sync->sync_id) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" is completed", sync->name),
				 errdetail("Its feeds are gone, green is the one side there is."),
				 errhint("SELECT * FROM bcmig_drop_sync(%s); -- forgets it; the tables stay", quote_literal_cstr(sync->name))));
	first = bcmig_sql("SELECT 1 FROM bcmig.traffic WHERE sync_id = $1", "i", sync->sync_id) == 0;
	bcmig_catalog_end(&scope);
	if (!first)
		return;
	refuse_subscriptions(sync, bcmig_fenced_relations(sync));
	(void) bcmig_set_fence(sync, true, "the sync is started");
}

/* ---------------------------------------------------------------------
 * SQL
 * --------------------------------------------------------------------- */

/*
 * bcmig.raise_fence(sync text, timeout interval, terminate_blockers boolean,
 * keep boolean)
 */
Datum
bcmig_raise_fence(PG_FUNCTION_ARGS)
{
	CallContext *context = (CallContext *) fcinfo->context;
	char	   *name = bcmig_arg_text(fcinfo, 0, "sync");
	bool		ending = bcmig_arg_bool(fcinfo, 2);
	bool		keep = bcmig_arg_bool(fcinfo, 3);
	MemoryContext work;
	TimestampTz deadline;
	BcmigSync  *sync;
	List	   *writers;
	bool		before;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"timeout\" must not be NULL")));
	if (context == NULL || !IsA(context, CallContext) || context->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("bcmig.raise_fence cannot run inside a transaction block"),
				 errhint("COMMIT first: it waits for those who were writing, once the fence has been committed.")));
	bcmig_require_loaded();
	deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval, TimestampTzGetDatum(bcmig_steady_time()),
													   PG_GETARG_DATUM(1)));
	SPI_connect_ext(SPI_OPT_NONATOMIC);
	work = AllocSetContextCreate(PortalContext ? PortalContext : TopMemoryContext, "bcmig raise fence", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(work);
	sync = bcmig_load_sync(name);
	refuse_subscriptions(sync, bcmig_fenced_relations(sync));
	before = bcmig_set_fence(sync, true, NULL);
	SPI_commit();

	EnsurePortalSnapshotExists();
	MemoryContextSwitchTo(work);
	writers = bcmig_wait_for_writers(bcmig_fenced_relations(sync), deadline);
	if (writers != NIL && ending)
	{
		bcmig_end_writers(writers);
		writers = bcmig_wait_for_writers(bcmig_fenced_relations(sync),
										 TimestampTzPlusMilliseconds(bcmig_steady_time(), TERMINATE_WAIT));
	}
	if (writers != NIL)
	{
		char	   *text = bcmig_writers_text(writers);

		if (!keep && !before)
		{
			(void) bcmig_set_fence(sync, false, "somebody was writing for too long");
			SPI_commit();
		}
		ereport(ERROR,
				(errcode(ERRCODE_BM_FENCE_BLOCKED),
				 errmsg("the fence of sync \"%s\" could not be raised in time", sync->name),
				 errdetail("Still writing since before: %s. The fence is %s.", text, keep || before ? "up for everybody else" : "down again"),
				 errhint("End them, or CALL bcmig.raise_fence(%s, terminate_blockers => true); prepared transactions need COMMIT or ROLLBACK PREPARED.",
						 quote_literal_cstr(sync->name))));
	}
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * bcmig.lift_fence(sync): in the caller's transaction, so that weight, journal
 * and fence change at one moment.
 */
Datum
bcmig_lift_fence(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));

	if (!bcmig_set_fence(sync, false, NULL))
		ereport(NOTICE,
				(errmsg("sync \"%s\" is not fenced", sync->name)));
	PG_RETURN_VOID();
}
