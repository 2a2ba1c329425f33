/*-------------------------------------------------------------------------
 *
 * request.c
 *	  What a DBA asks of a sync that is configured: start, stop, suspend,
 *	  work out of turn, quarantined rows.
 *
 * Wishes are rows: bcmig.sync.wanted, bcmig.request.  They are delivered when
 * the transaction commits; nothing waits here.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"

#include "call.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "state.h"
#include "utils/array.h"
#include "utils/builtins.h"

BCMIG_FUNCTION(bcmig_start_sync);
BCMIG_FUNCTION(bcmig_stop_sync);
BCMIG_FUNCTION(bcmig_suspend_table);
BCMIG_FUNCTION(bcmig_resume_table);
BCMIG_FUNCTION(bcmig_sync_now);
BCMIG_FUNCTION(bcmig_sweep_deletes);
BCMIG_FUNCTION(bcmig_resync_table);
BCMIG_FUNCTION(bcmig_retry_quarantine);
BCMIG_FUNCTION(bcmig_discard_quarantine);

const BcmigSwitchRoom *bcmig_switch_room = NULL;

/* write bcmig.sync.wanted; false when it was so already */
static bool
set_wanted(const BcmigSync *sync, bool running, const char *event, const char *detail)
{
	BcmigCatalogScope scope;

	if (sync->wanted == running)
	{
		ereport(NOTICE,
				(errmsg("sync \"%s\" is already %s", sync->name, running ? "started" : "stopped")));
		return false;
	}
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.sync SET wanted = $2 WHERE sync_id = $1",
			  "it", sync->sync_id, running ? "running" : "stopped");
	bcmig_audit("command", sync->name, NULL, event, detail);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	return true;
}

/*
 * Failing checks stop a start; the first fix is the hint.
 */
static void
require_preflight(const BcmigSync *sync)
{
	List	   *checks = bcmig_preflight_checks(sync);
	StringInfoData failing;
	const char *fix = NULL;
	ListCell   *lc;

	initStringInfo(&failing);
	foreach(lc, checks)
	{
		BcmigCheck *c = (BcmigCheck *) lfirst(lc);

		if (strcmp(c->status, "fail") != 0)
			continue;
		appendStringInfo(&failing, "%s%s%s%s", failing.len ? "; " : "", c->name,
						 c->detail ? ": " : "", c->detail ? c->detail : "");
		if (fix == NULL)
			fix = c->fix;
	}
	if (failing.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_PREFLIGHT),
				 errmsg("sync \"%s\" does not pass its preflight", sync->name),
				 errdetail("%s", failing.data),
				 fix != NULL ? errhint("%s", fix) :
				 errhint("SELECT * FROM bcmig_preflight(%s);", quote_literal_cstr(sync->name))));
}

/*
 * bcmig_start_sync(sync, force)
 */
Datum
bcmig_start_sync(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync;
	BcmigCatalogScope scope;
	bool		empty;

	bcmig_require_loaded();
	sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	if (!sync->wanted)
	{
		bcmig_catalog_begin(&scope);
		empty = bcmig_sql("SELECT 1 FROM bcmig.sync_table WHERE sync_id = $1 LIMIT 1", "i", sync->sync_id) == 0;
		bcmig_catalog_end(&scope);
		if (empty)
			ereport(ERROR,
					(errcode(ERRCODE_BM_WRONG_STATE),
					 errmsg("sync \"%s\" has no tables", sync->name),
					 errhint("SELECT bcmig_add_table(%s, '...');", quote_literal_cstr(sync->name))));
		bcmig_switch_room->starting(sync);
		if (!bcmig_arg_bool(fcinfo, 1))
			require_preflight(sync);
	}
	set_wanted(sync, true, "bcmig_start_sync",
			   bcmig_arg_bool(fcinfo, 1) ? "force: preflight was not looked at" : NULL);
	PG_RETURN_VOID();
}

/*
 * bcmig_stop_sync(sync)
 */
Datum
bcmig_stop_sync(PG_FUNCTION_ARGS)
{
	set_wanted(bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync")), false, "bcmig_stop_sync", NULL);
	PG_RETURN_VOID();
}

/*
 * bcmig_suspend_table(sync, target): leave a table as it is until resumed.
 */
Datum
bcmig_suspend_table(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *target;
	int			table_id = bcmig_find_table(sync, bcmig_arg_text(fcinfo, 1, "target"), &target);
	char	   *reason = psprintf("suspended by %s", GetUserNameFromId(GetSessionUserId(), false));
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("UPDATE bcmig.table_state SET state = 'suspended', reason = $2, resume_state = state, "
				  " since = clock_timestamp(), delete_confirmed = false "
				  "WHERE table_id = $1 AND state <> 'suspended'", "it", table_id, reason) == 0)
		ereport(NOTICE,
				(errmsg("table %s is already suspended", target)));
	else
	{
		bcmig_audit("command", sync->name, target, "bcmig_suspend_table", NULL);
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * bcmig_resume_table(sync, target): go on where it was, and take a mass delete
 * as meant if that is what suspended it: who resumes a table after a full disk
 * has not been asked about one.
 */
Datum
bcmig_resume_table(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *target;
	int			table_id = bcmig_find_table(sync, bcmig_arg_text(fcinfo, 1, "target"), &target);
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("UPDATE bcmig.table_state SET state = coalesce(resume_state, 'resync'), resume_state = NULL, "
				  " reason = NULL, since = clock_timestamp(), delete_confirmed = delete_asked, delete_asked = false "
				  "WHERE table_id = $1 AND state = 'suspended' RETURNING delete_confirmed", "i", table_id) == 0)
		ereport(NOTICE,
				(errmsg("table %s is not suspended", target)));
	else
	{
		bcmig_audit("command", sync->name, target, "bcmig_resume_table", bcmig_get_bool(0, 1) ? "mass deletes confirmed" : NULL);
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * A request row for one table, or for every table (target NULL).
 */
static void
request(FunctionCallInfo fcinfo, const char *kind, const char *event)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *target = bcmig_arg_optional_text(fcinfo, 1);
	int			table_id = target ? bcmig_find_table(sync, target, &target) : 0;
	BcmigCatalogScope scope;

	if (!sync->wanted)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" is not running", sync->name),
				 errhint("SELECT bcmig_start_sync(%s);", quote_literal_cstr(sync->name))));

	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.request (sync_id, table_id, kind) SELECT $1, table_id, $3 "
			  "FROM bcmig.sync_table WHERE sync_id = $1 AND ($2 = 0 OR table_id = $2) ORDER BY table_id",
			  "iit", sync->sync_id, table_id, kind);
	bcmig_audit("command", sync->name, target, event, NULL);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
}

/*
 * bcmig_sync_now(sync, target): a window at once, also for clean tables.
 */
Datum
bcmig_sync_now(PG_FUNCTION_ARGS)
{
	request(fcinfo, "window", "bcmig_sync_now");
	PG_RETURN_VOID();
}

/*
 * bcmig_sweep_deletes(sync, target)
 */
Datum
bcmig_sweep_deletes(PG_FUNCTION_ARGS)
{
	request(fcinfo, "sweep", "bcmig_sweep_deletes");
	PG_RETURN_VOID();
}

/*
 * bcmig_resync_table(sync, target): everything again, as upsert plus sweep.
 * On a stopped sync it waits for the start, on a suspended table for the
 * resume; a table that has not begun is read from the beginning anyway.
 */
Datum
bcmig_resync_table(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *target;
	int			table_id = bcmig_find_table(sync, bcmig_arg_text(fcinfo, 1, "target"), &target);
	BcmigCatalogScope scope;

	bcmig_state_resync(sync->environment_id, sync->owner, table_id, "asked for by bcmig_resync_table");
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT 1 FROM bcmig.table_state WHERE table_id = $1 AND state = 'suspended'", "i", table_id) > 0)
		ereport(NOTICE,
				(errmsg("table %s is suspended and will be read again once it is resumed", target),
				 errhint("SELECT bcmig_resume_table(%s, %s);", quote_literal_cstr(sync->name),
						 quote_literal_cstr(target))));
	bcmig_audit("command", sync->name, target, "bcmig_resync_table", NULL);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * The ids of an argument: every one must be a quarantined row of the sync.
 * 0 stands for all of them.
 */
static Datum
quarantine_ids(const BcmigSync *sync, FunctionCallInfo fcinfo, int n)
{
	BcmigCatalogScope scope;
	ArrayType  *ids;

	if (PG_ARGISNULL(n))
		return (Datum) 0;
	ids = PG_GETARG_ARRAYTYPE_P(n);
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT id FROM unnest($2) id WHERE NOT EXISTS "
				  "(SELECT 1 FROM bcmig.quarantine q WHERE q.sync_id = $1 AND q.quarantine_id = id) LIMIT 1",
				  "iq", sync->sync_id, PointerGetDatum(ids)) > 0)
	{
		char	   *id = bcmig_get_text(0, 1);

		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" has no quarantined row %s", sync->name, id ? id : "NULL"),
				 errhint("SELECT * FROM bcmig.quarantine WHERE sync_id = %d;", sync->sync_id)));
	}
	bcmig_catalog_end(&scope);
	return PointerGetDatum(ids);
}

/*
 * bcmig_retry_quarantine(sync, ids) returns how many rows will be read again
 */
Datum
bcmig_retry_quarantine(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	Datum		ids = quarantine_ids(sync, fcinfo, 1);
	BcmigCatalogScope scope;
	int64		n;

	if (!sync->wanted)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" is not running", sync->name),
				 errdetail("Quarantined rows are read again from blue by its workers."),
				 errhint("SELECT bcmig_start_sync(%s);", quote_literal_cstr(sync->name))));

	bcmig_catalog_begin(&scope);
	bcmig_sql("WITH r AS (INSERT INTO bcmig.request (sync_id, table_id, kind, ids) "
			  " SELECT sync_id, table_id, 'retry', array_agg(quarantine_id ORDER BY quarantine_id) FROM bcmig.quarantine "
			  " WHERE sync_id = $1 AND ($2 IS NULL OR quarantine_id = ANY ($2)) GROUP BY sync_id, table_id "
			  " RETURNING cardinality(ids) AS n) SELECT coalesce(sum(n), 0)::bigint FROM r",
			  "iq", sync->sync_id, ids);
	n = bcmig_get_int64(0, 1, 0);
	bcmig_audit("command", sync->name, NULL, "bcmig_retry_quarantine", psprintf(INT64_FORMAT " rows", n));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_INT64(n);
}

/*
 * bcmig_discard_quarantine(sync, ids) returns how many rows were given up.
 * Their images go to the audit log.
 */
Datum
bcmig_discard_quarantine(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	Datum		ids = quarantine_ids(sync, fcinfo, 1);
	BcmigCatalogScope scope;
	int64		n;

	if (ids == (Datum) 0)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"ids\" must not be NULL"),
				 errdetail("Quarantined rows are discarded by name only."),
				 errhint("SELECT quarantine_id, key, message FROM bcmig.quarantine WHERE sync_id = %d;", sync->sync_id)));

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("WITH d AS (DELETE FROM bcmig.quarantine q WHERE q.sync_id = $1 AND q.quarantine_id = ANY ($2) "
				  " RETURNING q.*) "
				  "SELECT $3, format('%I.%I', t.target_schema, t.target_table), "
				  " format('row %s: key %s, %s %s, image %s', d.quarantine_id, d.key, d.sqlstate, d.message, coalesce(d.image::text, 'none')) "
				  "FROM d LEFT JOIN bcmig.sync_table t USING (table_id) ORDER BY d.quarantine_id",
				  "iqt", sync->sync_id, ids, sync->name);
	bcmig_audit_each("command", "bcmig_discard_quarantine");
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_INT64(n);
}

/*
 * Tables whose deletes come by sweep prove nothing newer than their last one:
 * ask for one.
 */
void
bcmig_ask_for_sweeps(int sync_id)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.request (sync_id, table_id, kind) "
			  "SELECT t.sync_id, t.table_id, 'sweep' FROM bcmig.sync_table t JOIN bcmig.table_state s USING (table_id) "
			  "WHERE t.sync_id = $1 AND t.capture <> 'change_tracking' AND s.state = 'streaming' "
			  "AND NOT EXISTS (SELECT FROM bcmig.request r WHERE r.table_id = t.table_id AND r.kind = 'sweep')",
			  "i", sync_id);
	if (SPI_processed > 0)
		bcmig_config_changed();
	bcmig_catalog_end(&scope);
}
