/*-------------------------------------------------------------------------
 *
 * final.c
 *	  The last step of a switch: writers move to green.
 *
 * In this order, which is the point of it:
 *
 *	1	can the journal be armed at all?  gates; the intent; writers are told to
 *		wait (bcmig_route answers pause)
 *	2	blue is fenced, and seen to be, by reading blue
 *	3	quiet: all that was open on blue at the fence has ended; what is read
 *		after that is on green, deletes too
 *	4	an incremental validation says ok
 *	5	sequences go on after blue's
 *	6	balancers are set and read back; blue is asked once more whether it is
 *		fenced
 *	7	gates again, and one transaction: fence lifted, journal armed, weight 100,
 *		writes green
 *
 * From 2 to 7 nobody can write anywhere.  That may last for option write_pause;
 * where a person fences blue it counts from when that is seen.  What is not done
 * then, or fails, is undone: blue is opened first (change.c).  There is nothing
 * in between: the transaction of 7 is the point of no return.
 *
 * No transaction is open while anything is waited for, no lock is held.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include "access/xact.h"
#include "blue_fence.h"
#include "check.h"
#include "configure.h"
#include "fence.h"
#include "journal.h"
#include "options.h"
#include "slot.h"
#include "through.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#define LOOK_INTERVAL	20		/* ms between two looks at what is waited for */
#define PERSON_INTERVAL 1000	/* the same of what a person does: blue is asked every time */
#define OPEN_WAIT		5000	/* ms for blue to be seen open again, then later */

typedef struct Final
{
	BcmigTrafficJob *job;
	const BcmigSwitch *sw;
	TimestampTz stopped_at;		/* writes; 0 = not yet */
	TimestampTz deadline;		/* by bcmig_steady_time() */
	char	   *why;			/* NULL = all is well */
	MemoryContext look;			/* reset with every look */
} Final;

/* ---- waiting ---- */

/*
 * Wait until "done" says so; false, and why, when time is over or somebody
 * wants it to stop.  "waiting_for" is what a person reads meanwhile; done may
 * set *detail to more.
 */
static bool
wait_until(Final *f, const char *waiting_for, long interval, bool (*done) (Final *f, void *arg, char **detail), void *arg)
{
	MemoryContext caller = CurrentMemoryContext;

	bcmig_switch_phase(f->sw, waiting_for, NULL);
	bcmig_slot_phase(psprintf("switch: %s", waiting_for), NULL, 0);
	for (;;)
	{
		BcmigTraffic now;
		char	   *detail = NULL;
		char	   *stopped;
		bool		is_done;

		MemoryContextReset(f->look);
		MemoryContextSwitchTo(f->look);
		is_done = done(f, arg, &detail);
		MemoryContextSwitchTo(caller);
		if (f->why != NULL)
			return false;
		if (is_done)
			return true;

		bcmig_start_transaction();
		(void) bcmig_traffic_load(f->job->sync->sync_id, false, &now);
		stopped = bcmig_change_stopped(f->job, &now);
		bcmig_end_transaction();
		if (stopped != NULL)
			f->why = pstrdup(stopped);
		else if (bcmig_steady_time() >= f->deadline)
			f->why = psprintf("not done in time: %s%s%s", waiting_for, detail ? ", " : "", detail ? detail : "");
		if (f->why != NULL)
			return false;
		bcmig_pause(interval);
	}
}

/* ---- 1 ---- */

static void
arm(void *arg)
{
	const BcmigSync *sync = arg;
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_brief_locks();
	bcmig_journal_arm(sync);
	bcmig_catalog_end(&scope);
}

/* armed and let go again: NULL, or why it cannot be */
static char *
journal_problem(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner;
	ErrorData  *error;

	bcmig_start_transaction();
	owner = CurrentResourceOwner;
	MemoryContextSwitchTo(caller);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	error = bcmig_try(arm, (void *) sync);
	RollbackAndReleaseCurrentSubTransaction();
	CurrentResourceOwner = owner;
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	return error ? bcmig_error_text(error, true) : NULL;
}

/* writers wait from now on */
static void
writes_stop(Final *f)
{
	BcmigCatalogScope scope;
	int64		budget = bcmig_switch_ms(f->sw, "write_pause");

	f->stopped_at = GetCurrentTimestamp();
	f->deadline = TimestampTzPlusMilliseconds(bcmig_steady_time(), budget);
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.traffic SET writes = 'pause', updated_at = clock_timestamp() WHERE sync_id = $1 AND writes <> 'pause'",
			  "i", f->job->sync->sync_id);
	if (SPI_processed > 0)
		bcmig_fence_changed();
	bcmig_sql("UPDATE bcmig.switch SET writes_stopped_at = $2, write_pause = NULL WHERE switch_id = $1", "Iz", f->sw->switch_id, f->stopped_at);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

/* ---- 2 ---- */

static bool
blue_is_fenced(Final *f, void *arg, char **detail)
{
	return bcmig_blue_fence_state(f->job->sync, detail) == BCMIG_BLUE_FENCED;
}

static void
fence_blue(Final *f)
{
	const BcmigSync *sync = f->job->sync;
	bool		by_hand;
	char	   *failed;

	bcmig_start_transaction();
	by_hand = bcmig_blue_fence_by_hand(sync);
	bcmig_end_transaction();

	/* a person takes his time, and until he has done it writes go on */
	if (by_hand)
		f->deadline = TimestampTzPlusMilliseconds(bcmig_steady_time(), bcmig_switch_ms(f->sw, "fence_timeout"));
	else
		writes_stop(f);
	failed = bcmig_ask_blue_fence(sync, true, bcmig_traffic_timeout(sync));
	if (failed != NULL)
		f->why = psprintf("blue could not be fenced: %s", failed);
	else if (wait_until(f, by_hand ? "blue to be fenced by a person" : "blue to be fenced", by_hand ? PERSON_INTERVAL : LOOK_INTERVAL, blue_is_fenced, NULL) && by_hand)
		writes_stop(f);
}

/* ---- 3 ---- */

typedef struct Quiet
{
	uint64		first_poll;		/* begun after the fence was seen; 0 = not known yet */
	int64		top;			/* of it: nothing that was open then is above */
	TimestampTz target;			/* blue's clock when all of that had ended; 0 = not yet */
} Quiet;

static bool
is_quiet(Final *f, void *arg, char **detail)
{
	Quiet	   *q = arg;
	TimestampTz through = 0;
	int64		lag;
	int			index;
	bool		known;
	bool		ended = false;

	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	known = bcmig_synced_through(f->job->sync->sync_id, &through, &lag, &index);
	if (index >= 0)
	{
		const BcmigBlue *blue = &bcmig_shared->blues[index];

		/* the poll that is being answered may be from before */
		if (q->first_poll == 0)
			q->first_poll = blue->poll + 2;
		else if (q->top == 0 && blue->poll >= q->first_poll)
			q->top = blue->top;
		ended = q->top != 0 && blue->horizon >= q->top;
		if (ended && q->target == 0)
			q->target = blue->clock;
		if (!ended && q->top != 0)
			*detail = psprintf("transactions that were open on blue have not ended%s%s", blue->blocked_by[0] ? ": " : "", blue->blocked_by);
		else if (ended)
			*detail = known ? psprintf("green is behind by " INT64_FORMAT " ms", lag / 1000) : "it is not known how far green is";
	}
	else
		*detail = "blue is not being read";
	LWLockRelease(bcmig_shared->lock);
	if (q->target != 0 && known && through >= q->target)
		return true;
	if (q->target != 0)
	{
		bcmig_start_transaction();
		bcmig_ask_for_sweeps(f->job->sync->sync_id);
		bcmig_end_transaction();
	}
	bcmig_wake_pollers();
	return false;
}

/* ---- 4 ---- */

static bool
is_validated(Final *f, void *arg, char **detail)
{
	int64		run = *(int64 *) arg;
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *state;
	char	   *verdict;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT state, verdict FROM bcmig.validation_run WHERE run_id = $1", "I", run);
	MemoryContextSwitchTo(caller);
	state = bcmig_get_text(0, 1);
	verdict = bcmig_get_text(0, 2);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	if (strcmp(state, "running") == 0)
		return false;
	if (verdict == NULL || strcmp(verdict, "ok") != 0)
		f->why = MemoryContextStrdup(GetMemoryChunkContext(f->job->sync), psprintf("validation " INT64_FORMAT ": %s", run, verdict ? verdict : state));
	return true;
}

static void
validate(Final *f)
{
	int64		run;

	bcmig_start_transaction();
	run = bcmig_run_begin(f->job->sync, NULL, "incremental");
	bcmig_end_transaction();
	(void) wait_until(f, "validation", LOOK_INTERVAL, is_validated, &run);
	if (f->why != NULL)
	{
		/* nobody waits for it any more */
		bcmig_start_transaction();
		bcmig_run_cancel(run);
		bcmig_end_transaction();
	}
}

/* ---- 5 ---- */

/* where blue has any beside the rows */
static void
move_sequences(const BcmigSync *sync)
{
	BcmigEnvironment *env;

	bcmig_start_transaction();
	env = bcmig_load_environment(NULL, sync->environment_id);
	if (bcmig_dialect_of_server(env->serverid)->bc != NULL)
		bcmig_move_sequences(sync, env, NULL);
	bcmig_end_transaction();
}

/* ---- 7 ---- */

static void
hand_over(BcmigTrafficJob *job, void *arg)
{
	Final	   *f = arg;
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_brief_locks();
	bcmig_journal_arm(job->sync);
	(void) bcmig_set_fence(job->sync, false, "writers move to green");
	bcmig_sql("UPDATE bcmig.traffic SET writes = 'green', switched_at = clock_timestamp() WHERE sync_id = $1", "i", job->sync->sync_id);
	bcmig_sql("UPDATE bcmig.switch SET write_pause = clock_timestamp() - writes_stopped_at WHERE switch_id = $1", "I", f->sw->switch_id);
	bcmig_catalog_end(&scope);
}

/* ---- all of it ---- */

char *
bcmig_final_step(BcmigTrafficJob *job, const BcmigSwitch *sw)
{
	Final		f = {.job = job, .sw = sw};
	Quiet		quiet = {0};
	BcmigChange change = {.kind = BCMIG_FINAL, .percent = 100, .by = sw->by, .reason = "writers move too"};
	char	   *why;
	char	   *detail;

	why = journal_problem(job->sync);
	if (why != NULL)
		return psprintf("the journal cannot be armed: %s", why);
	if (!bcmig_green_may_act(job->sync, &job->traffic, true))
		return BCMIG_NOT_KNOWN_TO_BE_GREEN(&job->traffic);
	bcmig_ask_outside(job->sync);
	why = bcmig_begin_change(job, &change);
	if (why != NULL)
		return *why ? why : NULL;
	f.look = AllocSetContextCreate(CurrentMemoryContext, "bcmig final step", ALLOCSET_SMALL_SIZES);
	bcmig_debug_point("final_intent");
	fence_blue(&f);
	bcmig_debug_point("final_fenced");
	if (f.why == NULL && wait_until(&f, "quiet", LOOK_INTERVAL, is_quiet, &quiet))
		validate(&f);
	if (f.why == NULL)
	{
		bcmig_switch_phase(sw, "sequences", NULL);
		move_sequences(job->sync);
		bcmig_switch_phase(sw, "balancers", NULL);
		f.why = bcmig_set_fronts(job);
	}
	bcmig_debug_point("final_set");
	if (f.why == NULL)
	{
		bcmig_ask_outside(job->sync);
		if (bcmig_blue_fence_state(job->sync, &detail) != BCMIG_BLUE_FENCED)
			f.why = psprintf("blue is not fenced any more: %s", detail);
		else if (bcmig_steady_time() >= f.deadline)
			f.why = "not done in time: balancers";
		else
			f.why = bcmig_end_change(job, hand_over, &f);
	}
	MemoryContextDelete(f.look);
	if (f.why != NULL)
		bcmig_undo_change(job, f.why);
	return f.why;
}

char *
bcmig_open_blue(BcmigTrafficJob *job)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(bcmig_steady_time(), OPEN_WAIT);
	char	   *detail = NULL;
	char	   *failed;

	/* it may never have been closed, and who is writing there need not be waited for */
	if (bcmig_blue_fence_state(job->sync, &detail) == BCMIG_BLUE_OPEN)
		return NULL;
	failed = bcmig_ask_blue_fence(job->sync, false, bcmig_traffic_timeout(job->sync));
	while (failed == NULL && bcmig_blue_fence_state(job->sync, &detail) != BCMIG_BLUE_OPEN)
	{
		if (bcmig_steady_time() >= deadline)
			return detail ? detail : "blue does not say so";
		bcmig_pause(LOOK_INTERVAL);
	}
	return failed;
}
