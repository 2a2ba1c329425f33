/*-------------------------------------------------------------------------
 *
 * runner.c
 *	  The process that carries out an execution of a plan.
 *
 * Launched by the manager as the owner of the plan, one for each execution that
 * is not over or of which a person wants something.  It goes round: takes what
 * persons ask for, loads all rows, and makes one transition of one phase, each a
 * transaction of its own.  While it waits it has none.
 *
 *	pending		until it may begin: order, approval, precondition
 *	running		marked, then its action in one transaction with "begun"; SQL is
 *				done with that, a step is looked at until it is
 *	done, failed, skipped
 *
 * Whatever dies, the rows say where to go on: a phase that is running and not
 * begun has had no effect, one that is begun is only looked at.  Two runners of
 * one execution, should there ever be, meet at the row: the second finds it in
 * another state, and what it did is undone.
 *
 * Phases at one place of a wave, one for each sync, go on at the same time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "execution.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#define LOOK_INTERVAL		100		/* ms between two looks, twice that after each that saw nothing new */
#define MOST_LOOK_INTERVAL	1000	/* ms */
#define HEARTBEAT_INTERVAL	2000	/* ms */
#define CALL_TIMEOUT		600000	/* ms a call of a step may take; they are requests */
#define CONDITION_TIMEOUT	60000	/* ms */
#define MOST_INTERRUPTIONS	"50"	/* of one statement, by whatever ended the process */

extern PGDLLEXPORT void bcmig_runner_main(Datum arg);

static TimestampTz last_heartbeat;

static bool
is(const char *state, const char *name)
{
	return strcmp(state, name) == 0;
}

char *
bcmig_phase_title(const BcmigPhaseRun *p)
{
	return *p->sync ? psprintf("%s (%s)", p->name, p->sync) : p->name;
}

/* ---- transactions ---- */

ErrorData *
bcmig_in_transaction(void (*work) (BcmigPhaseWork *w), BcmigPhaseWork *w, int64 timeout)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		bcmig_start_transaction();
		if (timeout > 0)
			enable_timeout_after(STATEMENT_TIMEOUT, (int) Min(timeout, INT_MAX));
		work(w);
		bcmig_end_transaction();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	/* it may have been cancelled the moment it came to its end; and what SQL has locked for the session */
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
	LockReleaseAll(USER_LOCKMETHOD, true);
	MemoryContextSwitchTo(caller);
	return error;
}

static void
set_phase(BcmigPhaseWork *w)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_change_phase(w->e, w->p, w->set, w->a, w->b);
	bcmig_catalog_end(&scope);
}

void
bcmig_set_phase(BcmigExecution *e, BcmigPhaseRun *p, const char *set, const char *a, const char *b)
{
	BcmigPhaseWork w = {.e = e,.p = p,.set = set,.a = a,.b = b};
	ErrorData  *error = bcmig_in_transaction(set_phase, &w, 0);

	if (error != NULL)
		ThrowErrorData(error);
}

/* ---- a phase that fails ---- */

static void
set_failed(BcmigPhaseWork *w)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_change_phase(w->e, w->p, w->set, w->a, w->b);
	bcmig_audit("error", *w->p->sync ? w->p->sync : NULL, NULL, "phase failed",
				psprintf("execution " INT64_FORMAT ", %s, attempt %d: %s: %s", w->e->execution_id, bcmig_phase_title(w->p), w->p->attempt, w->b, w->a));
	bcmig_catalog_end(&scope);
	bcmig_slot_error(w->a);
}

/* "retry" unless that is of no use; the pause doubles with each attempt */
static void
fail(BcmigExecution *e, BcmigPhaseRun *p, const char *code, const char *why, bool retry)
{
	BcmigPhaseWork w = {.e = e,.p = p,.a = why,.b = code};
	ErrorData  *error;

	if (retry && p->attempt <= p->retries)
		w.set = "state = 'pending', begun = false, error = $5, sqlstate = $6, percent = NULL, "
			"not_before = clock_timestamp() + least(backoff * power(2, greatest(attempt - 1, 0)), '1 day'::interval)";
	else
		w.set = "state = 'failed', error = $5, sqlstate = $6, ended_at = clock_timestamp()";
	error = bcmig_in_transaction(set_failed, &w, 0);
	if (error != NULL)
		ThrowErrorData(error);
}

static void
fail_with(BcmigExecution *e, BcmigPhaseRun *p, const ErrorData *error)
{
	fail(e, p, unpack_sql_state(error->sqlerrcode), bcmig_error_text(error, false), true);
}

/* ---- a phase that runs ---- */

static BcmigStepCall
call_of(const BcmigPhaseRun *p)
{
	BcmigStepCall c = {p->step, p->sync, p->arguments, p->result};

	return c;
}

static void
set_done(BcmigExecution *e, BcmigPhaseRun *p, const char *note, const char *result)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_change_phase(e, p, "state = 'done', ended_at = clock_timestamp(), percent = 100, not_before = NULL, "
					   "note = nullif(concat_ws('; ', CASE WHEN approved_by IS NOT NULL THEN 'approved by ' || approved_by END, $5, 'before: ' || error), ''), "
					   "error = NULL, sqlstate = NULL, result = result || coalesce($6, '{}')::jsonb", note, result);
	bcmig_audit("state", *p->sync ? p->sync : NULL, NULL, "phase done",
				psprintf("execution " INT64_FORMAT ", %s", e->execution_id, bcmig_phase_title(p)));
	bcmig_catalog_end(&scope);
}

static char *
statement_of(const BcmigPhaseRun *p)
{
	Jsonb	   *arguments = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(p->arguments)));
	JsonbValue	buf;
	JsonbValue *v = getKeyJsonValueFromContainer(&arguments->root, "statement", strlen("statement"), &buf);

	return pnstrdup(v->val.string.val, v->val.string.len);
}

/*
 * The action, and the mark that it was begun; SQL and calls nobody has to wait
 * for are done with it.
 */
static void
act(BcmigPhaseWork *w)
{
	BcmigPhaseRun *p = w->p;
	BcmigCatalogScope scope;
	BcmigStepCall c = call_of(p);
	char	   *result = NULL;
	char	   *note = NULL;
	char	   *error;

	bcmig_catalog_begin(&scope);
	bcmig_change_phase(w->e, p, "begun = true, note = NULL", NULL, NULL);
	bcmig_catalog_end(&scope);
	p->begun = true;
	if (p->step == NULL)
		bcmig_run_plan_sql(w->e->owner, statement_of(p));
	else if (bcmig_step_has_effect(&c))
		note = "it was so already";
	else
	{
		error = bcmig_step_call(&c, &result);
		if (error != NULL)
		{
			w->not_yet = p->step->until_ok;
			ereport(ERROR, (errcode(ERRCODE_BM_WRONG_STATE), errmsg("%s", error)));
		}
	}
	bcmig_debug_point(p->step == NULL ? "plan_sql" : "plan_step");
	if (p->step == NULL || p->step->look == NULL)
		set_done(w->e, p, note, result);
	else
	{
		bcmig_catalog_begin(&scope);
		bcmig_change_phase(w->e, p, "note = $5, result = result || coalesce($6, '{}')::jsonb", note, result);
		bcmig_catalog_end(&scope);
	}
	w->state = "begun";
}

static void
look(BcmigPhaseWork *w)
{
	BcmigPhaseRun *p = w->p;
	BcmigStepCall c = call_of(p);
	BcmigCatalogScope scope;
	char	   *percent;
	char	   *detail;
	char	   *result;

	w->state = bcmig_step_look(&c, &percent, &detail, &result);
	w->a = detail;
	if (is(w->state, "done"))
		set_done(w->e, p, NULL, result);
	else
	{
		bcmig_catalog_begin(&scope);
		if (bcmig_sql("SELECT FROM bcmig.phase_run WHERE execution_id = $1 AND wave = $2 AND position = $3 AND sync = $4 "
					  "AND ((percent, note) IS DISTINCT FROM ($5::numeric, $6) OR NOT result @> coalesce($7, '{}'))",
					  "Iiitttj", w->e->execution_id, p->wave, p->position, p->sync, percent, detail, result) > 0)
		{
			bcmig_change_phase(w->e, p, "percent = $5::numeric, note = $6", percent, detail);
			bcmig_change_phase(w->e, p, "result = result || coalesce($5, '{}')::jsonb", result, NULL);
		}
		bcmig_catalog_end(&scope);
	}
}

static void
break_off(BcmigPhaseWork *w)
{
	BcmigStepCall c = call_of(w->p);

	bcmig_step_cancel(&c);
}

static void
break_off_phase(BcmigExecution *e, BcmigPhaseRun *p, const char *code, const char *why, bool retry)
{
	BcmigPhaseWork w = {.e = e,.p = p};
	ErrorData  *error = p->begun && p->step != NULL ? bcmig_in_transaction(break_off, &w, CALL_TIMEOUT) : NULL;

	fail(e, p, code, error ? psprintf("%s; what it had asked for could not be broken off: %s", why, bcmig_error_text(error, true)) : why, retry);
}

/* true: it is not where it was */
static bool
run_phase(BcmigExecution *e, BcmigPhaseRun *p)
{
	BcmigPhaseWork w = {.e = e,.p = p};
	bool		begun = p->begun;
	int64		left = p->timeout - p->since;
	ErrorData  *error;

	bcmig_slot_phase(p->action, bcmig_phase_title(p), 0);
	if (begun)
		error = bcmig_in_transaction(look, &w, CALL_TIMEOUT);
	else if (left <= 0)
		error = NULL;
	else
		error = bcmig_in_transaction(act, &w, p->step ? Min(left, CALL_TIMEOUT) : left);
	p->begun = begun;
	if (error != NULL && w.not_yet)
	{
		bcmig_set_phase(e, p, "note = $5, not_before = clock_timestamp() + least(interval '2 s', timeout - (clock_timestamp() - started_at))", error->message, NULL);
		return false;
	}
	if (error != NULL)
	{
		fail_with(e, p, error);
		return true;
	}
	if (w.state != NULL && is(w.state, "failed"))
	{
		fail(e, p, unpack_sql_state(ERRCODE_BM_WAIT), w.a ? w.a : "it failed", true);
		return true;
	}
	if (left <= 0 && (w.state == NULL || is(w.state, "running")))
	{
		const char *said = w.a ? w.a : p->note;

		break_off_phase(e, p, unpack_sql_state(ERRCODE_QUERY_CANCELED), psprintf("it was not done in time%s%s", said ? ": " : "", said ? said : ""), true);
		return true;
	}
	return !is(w.state, "running");
}

/* ---- a phase that may begin ---- */

static void
ask_condition(BcmigPhaseWork *w)
{
	XactReadOnly = true;
	w->holds = bcmig_plan_condition(w->e->owner, w->p->name, w->p->precondition);
}

static bool
wait_for(BcmigExecution *e, BcmigPhaseRun *p, const char *what)
{
	bcmig_set_phase(e, p, "started_at = CASE WHEN state = 'waiting' THEN started_at ELSE clock_timestamp() END, "
					"not_before = clock_timestamp() + interval '1 s', state = 'waiting', note = $5", what, NULL);
	return false;
}

static bool
begin_phase(BcmigExecution *e, BcmigPhaseRun *p)
{
	BcmigPhaseWork w = {.e = e,.p = p};
	ErrorData  *error;

	if (p->approval != NULL && p->approved_by == NULL)
		return is(p->state, "waiting") ? false : wait_for(e, p, psprintf("approval by role %s: SELECT bcmig_approve_phase(" INT64_FORMAT ", %s);", p->approval,
									   e->execution_id, quote_literal_cstr(p->name)));
	if (p->wait > 0)
		return false;
	if (p->precondition != NULL)
	{
		error = bcmig_in_transaction(ask_condition, &w, CONDITION_TIMEOUT);
		if (error != NULL)
		{
			fail_with(e, p, error);
			return true;
		}
		if (!w.holds)
		{
			if (!is(p->state, "waiting") || p->since < p->timeout)
				return wait_for(e, p, "its precondition");
			fail(e, p, unpack_sql_state(ERRCODE_BM_WAIT), "its precondition was not true in time", false);
			return true;
		}
	}
	bcmig_set_phase(e, p, "state = 'running', attempt = attempt + 1, begun = false, started_at = clock_timestamp(), ended_at = NULL, "
					"percent = NULL, not_before = NULL, note = NULL", NULL, NULL);
	return true;
}

/* ---- the execution ---- */

static void
set_execution(BcmigPhaseWork *w)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_change_execution(w->e, w->set, w->a);
	bcmig_catalog_end(&scope);
}

static void
change_to(BcmigExecution *e, const char *state, const char *error)
{
	BcmigPhaseWork w = {.e = e,.set = state,.a = error};
	ErrorData  *failed = bcmig_in_transaction(set_execution, &w, 0);

	if (failed != NULL)
		ThrowErrorData(failed);
}

/* why, in the words of the phases; NULL = none has failed */
static char *
failures(const BcmigExecution *e)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	foreach(lc, e->phases)
	{
		const BcmigPhaseRun *p = lfirst(lc);

		if (is(p->state, "failed"))
			appendStringInfo(&s, "%sphase %s failed", s.len ? "; " : "", bcmig_phase_title(p));
	}
	return s.len ? s.data : NULL;
}

static void
cancel(BcmigExecution *e)
{
	ListCell   *lc;

	foreach(lc, e->phases)
	{
		BcmigPhaseRun *p = lfirst(lc);

		if (is(p->state, "running"))
			break_off_phase(e, p, unpack_sql_state(ERRCODE_QUERY_CANCELED), "the execution was cancelled", false);
		else if (is(p->state, "waiting"))
			bcmig_set_phase(e, p, "state = 'pending', note = NULL", NULL, NULL);
	}
	change_to(e, e->auto_rollback ? "compensating" : "cancelled", NULL);
}

/*
 * One round.  True: there is more to do at once.
 */
static bool
advance(BcmigExecution *e)
{
	int			wave = bcmig_present_wave(e);
	int			position = 0;
	bool		running = false;
	bool		failed = false;
	bool		moved = false;
	ListCell   *lc;

	if (is(e->state, "compensating"))
		return bcmig_compensate(e);
	if (is(e->wanted, "cancel"))
	{
		cancel(e);
		return true;
	}
	if (wave == 0)
	{
		change_to(e, "done", NULL);
		return true;
	}
	foreach(lc, e->phases)
	{
		BcmigPhaseRun *p = lfirst(lc);

		if (p->wave != wave || is(p->state, "done") || is(p->state, "skipped"))
			continue;
		if (position == 0)
			position = p->position;
		if (p->position != position)
			break;
		running |= is(p->state, "running");
		failed |= is(p->state, "failed");
	}
	if (failed && !running)
	{
		change_to(e, e->auto_rollback ? "compensating" : "failed", failures(e));
		return true;
	}
	if (is(e->wanted, "pause") && !running)
	{
		change_to(e, "paused", NULL);
		return true;
	}
	foreach(lc, e->phases)
	{
		BcmigPhaseRun *p = lfirst(lc);

		if (p->wave != wave || p->position != position)
			continue;
		if (is(p->state, "running") && (p->begun || p->wait <= 0))
			moved |= run_phase(e, p);
		else if ((is(p->state, "pending") || is(p->state, "waiting")) && !failed && is(e->wanted, "run"))
			moved |= begin_phase(e, p);
	}
	return moved;
}

/* what persons want, the heartbeat, the rows; ends the process when there is nothing to do */
static void
load(BcmigPhaseWork *w)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigExecution *e = w->e;
	TimestampTz now = GetCurrentTimestamp();
	BcmigCatalogScope scope;
	char	   *why;

	if (!bcmig_load_execution(bcmig_slot->execution_id, e))
		return;
	bcmig_catalog_begin(&scope);
	MemoryContextSwitchTo(caller);
	bcmig_take_execution_requests(e);
	if ((is(e->state, "running") || is(e->state, "compensating")) &&
		TimestampDifferenceExceeds(last_heartbeat, now, HEARTBEAT_INTERVAL))
	{
		bcmig_sql("UPDATE bcmig.execution SET heartbeat_at = clock_timestamp(), pid = $2 WHERE execution_id = $1", "Ii", e->execution_id, MyProcPid);
		last_heartbeat = now;
	}
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	(void) bcmig_load_execution(bcmig_slot->execution_id, e);
	w->holds = is(e->state, "running") || is(e->state, "compensating");
	if (!w->holds)
		return;
	why = bcmig_execution_disputed(e);
	if (why != NULL)
	{
		bcmig_catalog_begin(&scope);
		bcmig_change_execution(e, "paused", psprintf("%s. If this database is the one to go on: SELECT bcmig_adopt(...) for its syncs, then SELECT bcmig_resume_execution("
													 INT64_FORMAT ");", why, e->execution_id));
		bcmig_catalog_end(&scope);
		w->holds = false;
	}
}

/*
 * A statement whose process has ended while it ran has had no effect and is run
 * again; not for ever, it may be what ended it.
 */
static void
count_interruptions(BcmigPhaseWork *w)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.phase_run SET result = result || jsonb_build_object('interrupted', coalesce((result ->> 'interrupted')::int, 0) + 1), "
			  " state = CASE WHEN coalesce((result ->> 'interrupted')::int, 0) >= " MOST_INTERRUPTIONS " THEN 'failed' ELSE state END, "
			  " error = CASE WHEN coalesce((result ->> 'interrupted')::int, 0) >= " MOST_INTERRUPTIONS " THEN 'its process has ended each time it was run' ELSE error END "
			  "WHERE execution_id = $1 AND state = 'running' AND NOT begun AND action = 'sql'", "I", bcmig_slot->execution_id);
	bcmig_catalog_end(&scope);
}

void
bcmig_runner_main(Datum arg)
{
	MemoryContext loop_context;
	ErrorData  *error;
	BcmigPhaseWork first = {0};
	long		nap = LOOK_INTERVAL;

	bcmig_process_start("bcmig runner");
	SetConfigOption("session_replication_role", "origin", PGC_SUSET, PGC_S_OVERRIDE);
	loop_context = AllocSetContextCreate(TopMemoryContext, "bcmig runner", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(loop_context);
	error = bcmig_in_transaction(count_interruptions, &first, 0);
	if (error != NULL)
		ThrowErrorData(error);
	for (;;)
	{
		BcmigExecution e = {0};
		BcmigPhaseWork w = {.e = &e};

		CHECK_FOR_INTERRUPTS();
		if (bcmig_slot->stop)
			break;
		bcmig_take_config();
		MemoryContextSwitchTo(loop_context);
		MemoryContextReset(loop_context);
		error = bcmig_in_transaction(load, &w, 0);
		if (error != NULL)
			ThrowErrorData(error);
		if (!w.holds)
			break;
		if (advance(&e))
		{
			nap = LOOK_INTERVAL;
			continue;
		}
		bcmig_slot_phase("waits", NULL, 0);
		pgstat_report_stat(false);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, nap, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		nap = Min(2 * nap, MOST_LOOK_INTERVAL);
	}
	proc_exit(0);
}
