/*-------------------------------------------------------------------------
 *
 * wait.c
 *	  CALL bcmig_wait_sync: wait until a sync has got somewhere.
 *
 * Every look is a transaction of its own that ends before the wait, so a
 * session that waits for hours holds back no vacuum, on green or anywhere.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog.h"
#include "configure.h"
#include "slot.h"
#include "through.h"

#include "access/xact.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "nodes/parsenodes.h"
#include "storage/proc.h"
#include "tcop/pquery.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

BCMIG_FUNCTION(bcmig_wait_sync);

#define LOOK_INTERVAL		20	/* ms between two looks, at least */
#define MOST_INTERVAL		1000	/* ms */
#define NOTICE_INTERVAL		10000	/* ms between two NOTICEs */

/* what one look at the catalogue saw */
typedef struct Look
{
	int			sync_id;
	char	   *state;
	char	   *last_error;
	char	   *suspended;		/* a suspended table and why, or NULL */
	int64		rows_done;
	int64		rows_total;
	bool		all_streaming;	/* also tables the manager has not seen yet */
	int64		run_id;			/* the newest validation of all tables, 0 = none */
	char	   *run_state;
	char	   *verdict;
	char	   *worst;			/* the worst of what it judged, and why */
	char	   *wanted;
	char	   *switch_state;	/* of the newest switch or rollback, whichever is waited for; NULL = none */
	char	   *switch_phase;
	char	   *switch_problem;
	int64		writes_stopped; /* ms, -1 = they are not */
} Look;

/* the state that is waited for -> what has to be done for it; NULL = nothing of the kind */
static const char *
switch_kind(const char *until)
{
	return strcmp(until, "switched") == 0 ? "switch" : strcmp(until, "rolled_back") == 0 ? "rollback" : NULL;
}

static void
look(const char *name, const char *until, Look *seen)
{
	BcmigCatalogScope scope;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext oldcontext;

	memset(seen, 0, sizeof(*seen));
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT s.sync_id, st.state, st.last_error, s.wanted, "
				  " (SELECT format('%I.%I: %s', t.target_schema, t.target_table, ts.reason) FROM bcmig.sync_table t "
				  "  JOIN bcmig.table_state ts USING (table_id) WHERE t.sync_id = s.sync_id AND ts.state = 'suspended' LIMIT 1), "
				  " (SELECT coalesce(sum(coalesce(l.rows_copied, ts.rows_copied)), 0)::int8 FROM bcmig.sync_table t "
				  "  JOIN bcmig.table_state ts USING (table_id) LEFT JOIN bcmig.live_tables() l USING (table_id) WHERE t.sync_id = s.sync_id), "
				  " (SELECT coalesce(sum(ts.rows_total), 0)::int8 FROM bcmig.sync_table t JOIN bcmig.table_state ts USING (table_id) WHERE t.sync_id = s.sync_id), "
				  " NOT EXISTS (SELECT FROM bcmig.sync_table t JOIN bcmig.table_state ts USING (table_id) WHERE t.sync_id = s.sync_id "
				  "  AND ts.state <> 'streaming' AND coalesce((t.options->>'enabled')::bool, true)), "
				  " r.run_id, r.state, r.verdict, "
				  " CASE WHEN r.verdict <> 'ok' THEN (SELECT concat_ws(' ', CASE WHEN t.table_id IS NOT NULL THEN format('%I.%I', t.target_schema, t.target_table) END, CASE WHEN p.part <> 'data' THEN p.part END, p.name) "
				  "  || ': ' || p.verdict || coalesce(', ' || p.detail, '') "
				  "  FROM bcmig.validation_verdict p LEFT JOIN bcmig.sync_table t USING (table_id) WHERE p.run_id = r.run_id AND p.rank <= 2 "
				  "  ORDER BY p.rank, p.part = 'data' DESC, t.target_schema, t.target_table, p.name LIMIT 1) END, "
				  " w.state, w.phase, w.problem, w.writes_stopped_ms::int8 "
				  "FROM bcmig.sync s JOIN bcmig.sync_state st USING (sync_id) "
				  "LEFT JOIN LATERAL (SELECT * FROM bcmig.validation_run r WHERE r.sync_id = s.sync_id AND r.table_id IS NULL "
				  " AND r.state <> 'cancelled' ORDER BY r.run_id DESC LIMIT 1) r ON true "
				  "LEFT JOIN LATERAL (SELECT * FROM bcmig.switch_status w WHERE w.sync = s.name AND w.kind = $2 "
				  " ORDER BY w.switch_id DESC LIMIT 1) w ON true WHERE s.name = $1", "tt", name, switch_kind(until)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" does not exist", name),
				 errhint("SELECT name FROM bcmig.sync;")));
	oldcontext = MemoryContextSwitchTo(caller);
	seen->sync_id = bcmig_get_int64(0, 1, 0);
	seen->state = bcmig_get_text(0, 2);
	seen->last_error = bcmig_get_text(0, 3);
	seen->wanted = bcmig_get_text(0, 4);
	seen->suspended = bcmig_get_text(0, 5);
	seen->rows_done = bcmig_get_int64(0, 6, 0);
	seen->rows_total = bcmig_get_int64(0, 7, 0);
	seen->all_streaming = bcmig_get_bool(0, 8);
	seen->run_id = bcmig_get_int64(0, 9, 0);
	seen->run_state = bcmig_get_text(0, 10);
	seen->verdict = bcmig_get_text(0, 11);
	seen->worst = bcmig_get_text(0, 12);
	seen->switch_state = bcmig_get_text(0, 13);
	seen->switch_phase = bcmig_get_text(0, 14);
	seen->switch_problem = bcmig_get_text(0, 15);
	seen->writes_stopped = bcmig_get_int64(0, 16, -1);
	MemoryContextSwitchTo(oldcontext);
	bcmig_catalog_end(&scope);
}

/* a look goes through all tables of the sync: not more than a tenth of the time is spent looking */
static void
commit_and_wait(TimestampTz looked_at)
{
	SPI_commit();
	bcmig_pause(Max(LOOK_INTERVAL, Min(MOST_INTERVAL, 9 * TimestampDifferenceMilliseconds(looked_at, GetCurrentTimestamp()))));
}

static void
tell(const Look *seen, const char *name, const char *until, TimestampTz started,
	 int64 rows_at_start, bool known, int64 lag)
{
	int64		ms = Max(1, TimestampDifferenceMilliseconds(started, bcmig_steady_time()));
	double		rate = (seen->rows_done - rows_at_start) * 1000.0 / ms;

	if (strcmp(seen->state, "copying") == 0 && seen->rows_total > 0)
		ereport(NOTICE,
				(errmsg("%s: copying, %d %% of " INT64_FORMAT " rows, %.0f rows/s, about %.0f s left",
						name, (int) Min(100, seen->rows_done * 100 / seen->rows_total),
						seen->rows_total, rate,
						rate > 0 ? Max(0, seen->rows_total - seen->rows_done) / rate : 0.0)));
	else if (seen->writes_stopped >= 0)
		ereport(NOTICE,
				(errmsg("%s: %s, writes stopped for " INT64_FORMAT " ms", name, seen->switch_phase, seen->writes_stopped)));
	else if (seen->switch_phase != NULL)
		ereport(NOTICE,
				(errmsg("%s: %s, waiting for %s%s%s", name, seen->switch_phase, until,
						seen->switch_problem ? ", " : "", seen->switch_problem ? seen->switch_problem : "")));
	else if (known)
		ereport(NOTICE,
				(errmsg("%s: %s, waiting for %s, lag " INT64_FORMAT " ms", name, seen->state, until, lag / 1000)));
	else
		ereport(NOTICE, (errmsg("%s: %s, waiting for %s", name, seen->state, until)));
}

/*
 * bcmig_wait_sync(sync text, until text, timeout interval)
 */
Datum
bcmig_wait_sync(PG_FUNCTION_ARGS)
{
	CallContext *context = (CallContext *) fcinfo->context;
	char	   *name;
	char	   *until;
	Interval   *timeout;
	TimestampTz started = bcmig_steady_time();
	TimestampTz deadline;
	TimestampTz last_notice = started;
	TimestampTz target = 0;		/* blue's clock to reach */
	uint64		first_poll = 0;
	int64		rows_at_start = -1;
	MemoryContext work;
	MemoryContext oldcontext;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("bcmig_wait_sync takes no NULL")));
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	until = text_to_cstring(PG_GETARG_TEXT_PP(1));
	timeout = PG_GETARG_INTERVAL_P(2);
	deadline = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
													   TimestampTzGetDatum(started),
													   IntervalPGetDatum(timeout)));
	if (context == NULL || !IsA(context, CallContext) || context->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("bcmig_wait_sync cannot run inside a transaction block"),
				 errhint("COMMIT first: what it waits for happens after your transaction.")));
	if (strcmp(until, "streaming") != 0 && strcmp(until, "caught_up") != 0 && strcmp(until, "validated") != 0 &&
		switch_kind(until) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("bcmig_wait_sync cannot wait until \"%s\"", until),
				 errhint("Known are: streaming, caught_up, validated, switched, rolled_back.")));
	bcmig_require_loaded();

	SPI_connect_ext(SPI_OPT_NONATOMIC);
	work = AllocSetContextCreate(PortalContext ? PortalContext : TopMemoryContext,
								 "bcmig wait", ALLOCSET_DEFAULT_SIZES);
	for (;;)
	{
		Look		seen;
		bool		known;
		TimestampTz through = 0;
		int64		lag = 0;
		int			blue;
		TimestampTz now;
		TimestampTz looked_at = GetCurrentTimestamp();

		oldcontext = MemoryContextSwitchTo(work);
		MemoryContextReset(work);
		EnsurePortalSnapshotExists();
		look(name, until, &seen);
		if (rows_at_start < 0)
			rows_at_start = seen.rows_done;

		LWLockAcquire(bcmig_shared->lock, LW_SHARED);
		known = bcmig_synced_through(seen.sync_id, &through, &lag, &blue);
		if (blue >= 0 && target == 0)
		{
			/* the first reading that was begun after us names the target */
			if (first_poll == 0)
				first_poll = bcmig_shared->blues[blue].poll + 2;
			else if (bcmig_shared->blues[blue].poll >= first_poll)
				target = bcmig_shared->blues[blue].clock;
		}
		LWLockRelease(bcmig_shared->lock);

		if (strcmp(until, "streaming") == 0 && strcmp(seen.state, "streaming") == 0 &&
			(seen.all_streaming || seen.suspended != NULL))
			break;
		if (strcmp(until, "caught_up") == 0 && seen.all_streaming && known && target != 0 && through >= target)
			break;

		if (strcmp(until, "validated") == 0)
		{
			if (seen.run_id == 0)
				ereport(ERROR,
						(errcode(ERRCODE_BM_WRONG_STATE),
						 errmsg("sync \"%s\" has no validation to wait for", name),
						 errhint("SELECT bcmig_validate(%s);", quote_literal_cstr(name))));
			if (strcmp(seen.run_state, "finished") == 0 && strcmp(seen.verdict, "ok") == 0)
				break;
			if (strcmp(seen.run_state, "finished") == 0)
				ereport(ERROR,
						(errcode(ERRCODE_BM_DIFFERENT),
						 errmsg("validation " INT64_FORMAT " of sync \"%s\": %s", seen.run_id, name, seen.verdict),
						 seen.worst ? errdetail("%s", seen.worst) : 0,
						 errhint("SELECT * FROM bcmig.validation_summary WHERE run_id = " INT64_FORMAT "; SELECT * FROM bcmig.validation_difference WHERE run_id = "
								 INT64_FORMAT "; SELECT * FROM bcmig_repair(" INT64_FORMAT ");", seen.run_id, seen.run_id, seen.run_id)));
		}

		if (switch_kind(until) != NULL)
		{
			if (seen.switch_state == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_BM_WRONG_STATE),
						 errmsg("sync \"%s\" has no %s to wait for", name, switch_kind(until)),
						 errhint("SELECT * FROM bcmig.switch_status WHERE sync = %s;", quote_literal_cstr(name))));
			if (strcmp(seen.switch_state, "done") == 0)
				break;
			if (strcmp(seen.switch_state, "running") != 0)
				ereport(ERROR,
						(errcode(ERRCODE_BM_WAIT),
						 errmsg("the %s of sync \"%s\" has %s", switch_kind(until), name,
								strcmp(seen.switch_state, "failed") == 0 ? "failed" : "been cancelled"),
						 seen.switch_problem ? errdetail("%s", seen.switch_problem) : 0,
						 errhint("SELECT * FROM bcmig.switch_status WHERE sync = %s;", quote_literal_cstr(name))));
		}

		now = bcmig_steady_time();
		/* the stored state may lag behind a table just resumed */
		if (seen.suspended != NULL &&
			(strcmp(seen.state, "failed") == 0 || strcmp(until, "caught_up") == 0))
			ereport(ERROR,
					(errcode(ERRCODE_BM_WAIT),
					 errmsg("sync \"%s\" cannot get to %s", name, until),
					 errdetail("%s", seen.suspended),
					 errhint("SELECT * FROM bcmig.table_status WHERE sync = %s AND state = 'suspended';",
							 quote_literal_cstr(name))));
		if (strcmp(seen.wanted, "running") != 0 && switch_kind(until) == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_WAIT),
					 errmsg("sync \"%s\" is not running", name),
					 errhint("SELECT bcmig_start_sync(%s);", quote_literal_cstr(name))));
		if (now >= deadline)
			ereport(ERROR,
					(errcode(ERRCODE_BM_WAIT),
					 errmsg("sync \"%s\" did not get to %s in time", name, until),
					 errdetail("It is %s%s%s.", seen.state, seen.last_error ? "; last error: " : "",
							   seen.last_error ? seen.last_error : ""),
					 errhint("SELECT * FROM bcmig.sync_status WHERE sync = %s;", quote_literal_cstr(name))));
		if (TimestampDifferenceMilliseconds(last_notice, now) >= (seen.writes_stopped >= 0 ? NOTICE_INTERVAL / 10 : NOTICE_INTERVAL))
		{
			tell(&seen, name, until, started, rows_at_start, known, lag);
			last_notice = now;
		}
		if (strcmp(until, "caught_up") == 0 && strcmp(seen.state, "streaming") == 0)
		{
			bcmig_ask_for_sweeps(seen.sync_id);
			bcmig_wake_pollers();
		}
		MemoryContextSwitchTo(oldcontext);
		commit_and_wait(looked_at);
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(work);
	SPI_finish();
	PG_RETURN_VOID();
}
