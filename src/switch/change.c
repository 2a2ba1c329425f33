/*-------------------------------------------------------------------------
 *
 * change.c
 *	  The worker's job of a sync's traffic: change the weight, look after the
 *	  balancers.
 *
 * A change is two transactions with the balancers between them, in none:
 *
 *	1	the gates, and the intent (bcmig.traffic.intent)
 *		balancers are set, one after the other, and read back
 *	2	the gates again; weight, epoch and event, the intent goes
 *
 * Anything that fails, or does not answer in time, sets the balancers back to
 * the weight that is stored, and says why.  Whoever dies in between leaves the
 * intent, and the next job, which finds it open, does the same.  There is one
 * job of a sync at a time: the manager sees to that.
 *
 * Between changes the balancers are read.  One that has another weight than the
 * stored one is set again; only the first reading after a start of the server
 * must find what is stored: if not, this may be a copy of the database that
 * really moves this traffic, and everything is held until a person has looked.
 * Before anything is set, incarnation.c is asked whether this is such a copy.
 *
 * Memory: all in the context of the job.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include "blue_fence.h"
#include "call.h"
#include "fence.h"
#include "journal.h"
#include "miscadmin.h"
#include "options.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#define SAME_ERROR_AGAIN 300000	/* ms until the same error is audited again */

/* what gates said; inside a scope */
static void
store_gates(int64 event_id, const char *moment, List *checks)
{
	ListCell   *lc;

	foreach(lc, checks)
	{
		const BcmigCheck *c = lfirst(lc);

		bcmig_sql("INSERT INTO bcmig.gate_result (event_id, moment, check_name, status, value, bound, detail, fix) "
				  "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)", "Ittttttt",
				  event_id, moment, c->name, c->status, c->value, c->bound, c->detail, c->fix);
	}
}

/* ---- a change ---- */

char *
bcmig_begin_change(BcmigTrafficJob *job, const BcmigChange *change)
{
	BcmigTraffic *t = &job->traffic;
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *checks = NIL;
	char	   *failing = NULL;
	bool		nothing = false;
	int64		event_id;

	bcmig_start_transaction();
	if (!bcmig_traffic_load(job->sync->sync_id, true, t) || t->intent != 0)
		failing = "another change has been begun";
	else if (t->green_percent == 100 && change->kind != BCMIG_ROLLBACK)
		failing = "writers are on green, only a rollback leads back";
	else if (t->both_write && change->percent < t->green_percent && change->kind != BCMIG_ROLLBACK)
		failing = "writers are on both sides, only a rollback leads back";
	else if (t->held != NULL && change->kind != BCMIG_ROLLBACK)
		failing = psprintf("held: %s", t->held);
	if (failing != NULL)
	{
		bcmig_end_transaction();
		return failing;
	}
	bcmig_catalog_begin(&scope);
	if (change->request != 0 &&
		bcmig_sql("DELETE FROM bcmig.traffic_request WHERE sync_id = $1 AND request_id <= $2", "iI", job->sync->sync_id, change->request) == 0)
		failing = "the request has been taken back";
	else if (change->percent > t->green_percent)
	{
		MemoryContextSwitchTo(caller);
		checks = bcmig_gates(job->sync, false);
		failing = bcmig_gates_text(checks);
	}
	nothing = failing == NULL && change->percent == t->green_percent && change->kind != BCMIG_ROLLBACK;
	if (!nothing)
	{
		event_id = bcmig_traffic_event(job->sync->name, failing ? "refused" : "begun", t->green_percent, change->percent, 0,
									   change->by, failing ? failing : change->reason);
		store_gates(event_id, "before", checks);
		if (failing == NULL)
		{
			t->intent = event_id;
			t->intent_percent = change->percent;
			t->intent_kind = change->kind;
			t->by = change->by;
			bcmig_sql("UPDATE bcmig.traffic SET intent = jsonb_build_object('id', $2, 'green_percent', $3::numeric, 'by', $4, "
					  " 'at', clock_timestamp(), 'kind', $5), writes = CASE WHEN $6 THEN 'pause' ELSE writes END, "
					  " updated_at = clock_timestamp() WHERE sync_id = $1",
					  "iIfttb", job->sync->sync_id, event_id, change->percent, change->by, bcmig_change_kind(change->kind),
					  (int) change->pause);
			if (change->pause)
				bcmig_fence_changed();
		}
	}
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	return nothing ? "" : failing;
}

/*
 * Whoever wants a change to end: a person who holds it, or a way back that is
 * asked for.  In a transaction; NULL = nobody.
 */
char *
bcmig_change_stopped(const BcmigTrafficJob *job, const BcmigTraffic *now)
{
	if (now->intent != job->traffic.intent)
		return "the intent is gone";
	if (job->traffic.intent_kind == BCMIG_ROLLBACK)
		return NULL;
	if (now->held != NULL)
		return psprintf("held: %s", now->held);
	if (bcmig_rollback_asked(job->sync->sync_id))
		return "a rollback is asked for";
	return NULL;
}

typedef struct Within
{
	BcmigWithChange with;
	BcmigTrafficJob *job;
	void	   *arg;
} Within;

static void
call_within(void *arg)
{
	Within	   *w = arg;

	w->with(w->job, w->arg);
}

char *
bcmig_end_change(BcmigTrafficJob *job, BcmigWithChange with, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	bool		raising = job->traffic.intent_percent > job->traffic.green_percent;
	BcmigTraffic now;
	BcmigCatalogScope scope;
	List	   *checks = NIL;
	char	   *failing;
	int64		epoch;

	bcmig_start_transaction();
	(void) bcmig_traffic_load(job->sync->sync_id, true, &now);
	MemoryContextSwitchTo(caller);
	failing = bcmig_change_stopped(job, &now);
	if (failing == NULL && raising)
	{
		checks = bcmig_gates(job->sync, false);
		failing = bcmig_gates_text(checks);
	}
	if (failing == NULL && with != NULL)
	{
		Within		within = {with, job, arg};
		ErrorData  *error = bcmig_try(call_within, &within);

		if (error != NULL)
			failing = bcmig_error_text(error, true);
	}
	bcmig_catalog_begin(&scope);
	store_gates(job->traffic.intent, "after", checks);
	if (failing == NULL)
	{
		epoch = bcmig_give_epoch(job->sync->sync_id, 0);
		bcmig_sql("UPDATE bcmig.traffic SET green_percent = $2::numeric, intent = NULL WHERE sync_id = $1",
				  "if", job->sync->sync_id, job->traffic.intent_percent);
		(void) bcmig_traffic_event(job->sync->name, "changed", job->traffic.green_percent, job->traffic.intent_percent,
								   epoch, job->traffic.by, NULL);

		/* not into a queue that would make the commit fail */
		bcmig_sql("SELECT pg_notify('bcmig_traffic', json_build_object('sync', $1, 'green_percent', $2::numeric, 'epoch', $3)::text) "
				  "WHERE pg_notification_queue_usage() < 0.5", "tfI", job->sync->name, job->traffic.intent_percent, epoch);
		bcmig_fence_changed();
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
	if (failing == NULL)
		bcmig_store_fronts(job);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	if (failing == NULL)
	{
		job->traffic.green_percent = job->traffic.intent_percent;
		job->traffic.intent = 0;
		bcmig_witness_store(job->sync);
	}
	return failing;
}

char *
bcmig_set_fronts(BcmigTrafficJob *job)
{
	for (int i = 0; i < job->nfronts; i++)
	{
		BcmigFront *f = &job->fronts[i];

		if (!bcmig_set_front(f, job->traffic.intent_percent))
			return psprintf("balancer %s: %s", f->balancer->name, f->error);
	}
	return NULL;
}

/*
 * The way back of a change: blue is opened where it was to be fenced, balancers
 * are set, then the intent goes.  While blue is not known to be open the intent
 * stays, and the next job tries again.
 */
void
bcmig_undo_change(BcmigTrafficJob *job, const char *why)
{
	int64		intent = job->traffic.intent;
	double		percent = job->traffic.intent_percent;
	char	   *by = job->traffic.by;
	char	   *closed = NULL;
	char	   *failed;
	BcmigCatalogScope scope;

	if (job->traffic.intent_kind == BCMIG_FINAL)
		closed = bcmig_open_blue(job);
	failed = bcmig_set_back(job);

	bcmig_start_transaction();
	bcmig_store_fronts(job);
	bcmig_catalog_begin(&scope);
	if (closed != NULL)
	{
		/* said once, until it is so */
		if (bcmig_sql("UPDATE bcmig.traffic SET intent = intent || jsonb_build_object('undoing', $3), updated_at = clock_timestamp() "
					  "WHERE sync_id = $1 AND intent->>'id' = $2::text AND intent->>'undoing' IS DISTINCT FROM $3",
					  "iIt", job->sync->sync_id, intent, psprintf("%s; blue is not open yet: %s", why, closed)) > 0)
			(void) bcmig_traffic_event(job->sync->name, "waiting", -1, -1, 0, by, psprintf("%s; blue is not open yet: %s", why, closed));
	}
	else if (bcmig_sql("UPDATE bcmig.traffic SET intent = NULL, updated_at = clock_timestamp(), "
					   " writes = CASE WHEN $3 THEN CASE WHEN green_percent = 100 THEN 'green' WHEN journal_armed THEN 'key' ELSE 'blue' END ELSE writes END "
					   "WHERE sync_id = $1 AND intent->>'id' = $2::text",
					   "iIb", job->sync->sync_id, intent, (int) (job->traffic.intent_kind != BCMIG_CHANGE)) > 0)
	{
		(void) bcmig_traffic_event(job->sync->name, "undone", percent, job->traffic.green_percent, 0, by,
								   failed == NULL ? why :
								   psprintf("%s; not set back yet, tried again until they follow: %s", why, failed));
		bcmig_fence_changed();
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	job->traffic.intent = closed ? intent : 0;
}

/* with the first weight that moves writers too: from its commit on both sides are written to, by key */
static void
let_both_write(BcmigTrafficJob *job, void *arg)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_brief_locks();
	bcmig_journal_arm(job->sync);
	(void) bcmig_set_fence(job->sync, false, "writers move by key");
	bcmig_sql("UPDATE bcmig.traffic SET writes = 'key', switched_at = coalesce(switched_at, clock_timestamp()) WHERE sync_id = $1",
			  "i", job->sync->sync_id);
	bcmig_catalog_end(&scope);
}

static bool
writers_move(const BcmigSync *sync)
{
	BcmigCatalogScope scope;
	bool		move;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	move = strcmp(bcmig_option_value("traffic", NULL, sync->options), "reads_and_writes") == 0;
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return move;
}

char *
bcmig_change_weight(BcmigTrafficJob *job, const BcmigChange *change)
{
	char	   *why;
	bool		writers = !job->traffic.both_write && writers_move(job->sync);
	bool		raising = change->percent > job->traffic.green_percent;

	if (!bcmig_green_may_act(job->sync, &job->traffic, true))
		return BCMIG_NOT_KNOWN_TO_BE_GREEN(&job->traffic);
	if (raising)
		bcmig_ask_outside(job->sync);
	why = bcmig_begin_change(job, change);
	if (why != NULL)
		return *why ? why : NULL;
	bcmig_debug_point("traffic_intent");
	why = bcmig_set_fronts(job);
	bcmig_debug_point("traffic_set");
	if (why == NULL && raising)
		bcmig_ask_outside(job->sync);
	if (why == NULL)
		why = bcmig_end_change(job, raising && writers ? let_both_write : NULL, NULL);
	if (why != NULL)
		bcmig_undo_change(job, why);
	return why;
}

/* ---- between changes ---- */

/*
 * Read all; put back what has another weight.  False: traffic is held.
 */
static bool
look_after(BcmigTrafficJob *job)
{
	BcmigTraffic *t = &job->traffic;
	StringInfoData strange;
	StringInfoData drift;
	BcmigCatalogScope scope;
	bool		drifted = false;

	initStringInfo(&strange);
	initStringInfo(&drift);
	for (int i = 0; i < job->nfronts; i++)
	{
		BcmigFront *f = &job->fronts[i];

		bcmig_read_front(f);
		if (f->percent < 0 || bcmig_follows(f->percent, t->green_percent))
			continue;
		drifted = true;
		if (f->first && !f->never_read && !(t->intent != 0 && bcmig_follows(f->percent, t->intent_percent)))
			appendStringInfo(&strange, "%s%s has %g %%", strange.len > 0 ? ", " : "", f->balancer->name, f->percent);
	}
	if (strange.len > 0 && t->held == NULL)
	{
		char	   *reason = psprintf("after the start of the server balancers do not have the stored weight of %g %%: %s",
									  t->green_percent, strange.data);

		bcmig_start_transaction();
		if (bcmig_traffic_load(job->sync->sync_id, true, t) && t->held == NULL)
		{
			bcmig_catalog_begin(&scope);
			bcmig_traffic_hold(job->sync->sync_id, job->sync->name, NULL, reason);
			bcmig_catalog_end(&scope);
		}
		t->held = reason;
		bcmig_end_transaction();
	}
	if (drifted && t->held == NULL && t->intent == 0 && !bcmig_green_may_act(job->sync, t, true))
		return false;
	for (int i = 0; i < job->nfronts && t->held == NULL && t->intent == 0; i++)
	{
		BcmigFront *f = &job->fronts[i];
		double		found = f->percent;
		bool		followed;

		if (f->percent < 0 || bcmig_follows(f->percent, t->green_percent))
			continue;
		followed = bcmig_set_front(f, t->green_percent);
		if (followed || f->stored_error == NULL)
			appendStringInfo(&drift, "%s%s had %g %%%s%s", drift.len > 0 ? "; " : "", f->balancer->name, found,
							 followed ? ", set again" : ": ", followed ? "" : f->error);
	}
	bcmig_start_transaction();
	if (drift.len > 0)
	{
		bcmig_catalog_begin(&scope);
		(void) bcmig_traffic_event(job->sync->name, "drift", -1, t->green_percent, 0, NULL, drift.data);
		bcmig_catalog_end(&scope);
	}

	/* while it is held the first reading has not been explained */
	if (t->held == NULL)
		bcmig_store_fronts(job);
	bcmig_end_transaction();
	return t->held == NULL;
}

/* the newest request; false = none */
static bool
newest_request(int sync_id, BcmigChange *change)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	bool		isnull;

	memset(change, 0, sizeof(*change));
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT request_id, green_percent::float8, by FROM bcmig.traffic_request WHERE sync_id = $1 ORDER BY request_id DESC LIMIT 1",
				  "i", sync_id) > 0)
	{
		MemoryContextSwitchTo(caller);
		change->request = bcmig_get_int64(0, 1, 0);
		change->percent = DatumGetFloat8(bcmig_get_datum(0, 2, &isnull));
		change->by = bcmig_get_text(0, 3);
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	return change->request != 0;
}

/*
 * A way back is asked for, and what the balancers showed after the start of the
 * server has been looked at: readers do not wait for one that does not answer.
 */
static bool
in_a_hurry(const BcmigTrafficJob *job)
{
	bool		asked;

	for (int i = 0; i < job->nfronts; i++)
	{
		if (job->fronts[i].first && !job->fronts[i].never_read)
			return false;
	}
	bcmig_start_transaction();
	asked = job->traffic.held == NULL && bcmig_rollback_asked(job->sync->sync_id);
	bcmig_end_transaction();
	return asked;
}

/* the intent of a job that has ended; a switch knows what ended it, unless that was a crash */
static char *
why_found_open(int sync_id)
{
	BcmigSwitch sw;

	bcmig_start_transaction();
	(void) bcmig_load_switch(sync_id, "switch", &sw);
	bcmig_end_transaction();
	return psprintf("found open: its worker has ended before its time%s%s", sw.problem ? ": " : "", sw.problem ? sw.problem : "");
}

void
bcmig_run_traffic(int sync_id)
{
	BcmigTrafficJob job;
	BcmigChange change;
	bool		hurry;

	if (!bcmig_load_fronts(&job, sync_id))
		return;
	hurry = in_a_hurry(&job);
	if (!bcmig_green_may_act(job.sync, &job.traffic, job.traffic.intent != 0 && !hurry))
		return;
	bcmig_run_blue_fence_trial(job.sync);
	if (!hurry && !look_after(&job))
		return;

	/* a way back that was begun goes on where it was */
	if (job.traffic.intent != 0 && job.traffic.intent_kind != BCMIG_ROLLBACK)
	{
		bcmig_undo_change(&job, why_found_open(sync_id));
		if (job.traffic.intent != 0)
			return;
	}
	if (bcmig_run_rollback(&job))
		return;
	if (newest_request(sync_id, &change))
	{
		bcmig_cancel_switch(sync_id, psprintf("%s has set %g %% by hand", change.by, change.percent));
		(void) bcmig_change_weight(&job, &change);
	}
	bcmig_run_switch(&job);
}

/*
 * The job raised an error.  An open intent is undone by the next job; a request
 * that was not begun is given up, so that it does not fail for ever.
 */
void
bcmig_traffic_failed(const BcmigJob *job, const ErrorData *edata)
{
	BcmigSync  *sync;
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	sync = bcmig_read_sync(job->sync_id);
	if (sync != NULL)
	{
		char	   *message = bcmig_error_text(edata, true);

		bcmig_catalog_begin(&scope);
		bcmig_sql("UPDATE bcmig.switch SET problem = $2, failures = failures + 1 WHERE sync_id = $1 AND state = 'running'",
				  "it", job->sync_id, message);
		if (bcmig_sql("DELETE FROM bcmig.traffic_request WHERE sync_id = $1", "i", job->sync_id) > 0)
			(void) bcmig_traffic_event(sync->name, "refused", -1, -1, 0, NULL, message);
		else if (bcmig_sql("SELECT FROM bcmig.audit_log WHERE kind = 'error' AND sync_name = $1 AND detail = $2 "
						   "AND at > clock_timestamp() - $3 * interval '1 ms' LIMIT 1", "tti", sync->name, message, SAME_ERROR_AGAIN) == 0)
			bcmig_audit("error", sync->name, NULL, bcmig_job_name(job->kind), message);
		bcmig_config_changed();
		bcmig_catalog_end(&scope);
	}
	bcmig_end_transaction();
}
