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

#include "call.h"
#include "fence.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include <math.h>

#define TOLERANCE		0.5		/* percent: weights of balancers are whole numbers */
#define SAME_ERROR_AGAIN 300000	/* ms until the same error is audited again */
#define STORE_INTERVAL	60000	/* ms between two stored readings that are the same */

/* a balancer, and what is known of it */
typedef struct Front
{
	const BcmigBalancer *balancer;
	const BcmigBalancerDriver *driver;
	double		percent;		/* as read; below 0 = not */
	char	   *error;			/* NULL = none */

	/* as stored */
	bool		never_read;
	bool		first;			/* not read since the server started */
	char	   *stored_error;
} Front;

typedef struct Job
{
	BcmigSync  *sync;
	BcmigTraffic traffic;
	int			nfronts;
	Front	   *fronts;
} Job;

static bool
follows(double percent, double wanted)
{
	return fabs(percent - wanted) <= TOLERANCE && (percent > 0) == (wanted > 0);
}

/* false: there is nothing to do */
static bool
load(Job *job, int sync_id)
{
	List	   *balancers;
	ListCell   *lc;
	BcmigCatalogScope scope;

	memset(job, 0, sizeof(*job));
	bcmig_start_transaction();
	job->sync = bcmig_read_sync(sync_id);
	if (job->sync == NULL || !bcmig_traffic_load(sync_id, false, &job->traffic))
	{
		bcmig_end_transaction();
		return false;
	}
	balancers = bcmig_load_balancers(job->sync);
	job->fronts = palloc0(sizeof(Front) * Max(list_length(balancers), 1));
	foreach(lc, balancers)
	{
		Front	   *f = &job->fronts[job->nfronts++];
		MemoryContext caller = CurrentMemoryContext;

		f->balancer = lfirst(lc);
		f->driver = bcmig_balancer_driver(f->balancer->driver);
		f->percent = -1;
		if (f->driver == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_OPTION),
					 errmsg("there is no driver \"%s\" for balancer \"%s\"", f->balancer->driver, f->balancer->name)));
		bcmig_catalog_begin(&scope);
		bcmig_sql("SELECT server_start IS NULL, server_start IS DISTINCT FROM $2, error FROM bcmig.balancer_state WHERE balancer_id = $1",
				  "iz", f->balancer->balancer_id, PgStartTime);
		MemoryContextSwitchTo(caller);
		if (SPI_processed > 0)
		{
			f->never_read = bcmig_get_bool(0, 1);
			f->first = bcmig_get_bool(0, 2);
			f->stored_error = bcmig_get_text(0, 3);
		}
		bcmig_catalog_end(&scope);
		MemoryContextSwitchTo(caller);
	}
	bcmig_end_transaction();
	return true;
}

/* ---- balancers; in no transaction ---- */

static void
read_front(Front *f)
{
	f->percent = -1;
	f->error = f->driver->get(f->balancer, &f->percent);
	if (f->error != NULL)
		f->percent = -1;
}

/* set and read back; false: it does not follow, f->error says why */
static bool
set_front(Front *f, double percent)
{
	f->percent = -1;
	f->error = f->driver->set(f->balancer, percent);
	if (f->error == NULL)
		read_front(f);
	if (f->error == NULL && !follows(f->percent, percent))
		f->error = psprintf("it was set to %g %% and shows %g %%", percent, f->percent);
	return f->error == NULL;
}

/*
 * All to the weight that is stored, also those that may have been set by a job
 * that died.  Those that do not follow, in words; NULL = none.
 */
static char *
set_back(Job *job)
{
	StringInfoData failed;

	initStringInfo(&failed);
	for (int i = 0; i < job->nfronts; i++)
	{
		Front	   *f = &job->fronts[i];

		if (!set_front(f, job->traffic.green_percent))
			appendStringInfo(&failed, "%s%s: %s", failed.len > 0 ? "; " : "", f->balancer->name, f->error);
	}
	return failed.len > 0 ? failed.data : NULL;
}

/* ---- storing; in a transaction ---- */

/*
 * What was read last.  Events tell when a balancer begins and ends to fail.
 */
static void
store_fronts(Job *job)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	for (int i = 0; i < job->nfronts; i++)
	{
		Front	   *f = &job->fronts[i];

		bcmig_sql("UPDATE bcmig.balancer_state SET green_percent = CASE WHEN $2 >= 0 THEN $2 ELSE green_percent END, error = $3, "
				  " read_at = CASE WHEN $2 >= 0 THEN clock_timestamp() ELSE read_at END, "
				  " server_start = CASE WHEN $2 >= 0 THEN $4 ELSE server_start END "
				  "WHERE balancer_id = $1 AND (error IS DISTINCT FROM $3 OR $2 >= 0 AND (green_percent IS DISTINCT FROM $2::numeric "
				  " OR server_start IS DISTINCT FROM $4 OR read_at < clock_timestamp() - $5 * interval '1 ms'))",
				  "iftzi", f->balancer->balancer_id, f->percent, f->error, PgStartTime, STORE_INTERVAL);
		if ((f->error == NULL) != (f->stored_error == NULL))
			(void) bcmig_traffic_event(job->sync->name, "balancer", -1, -1, 0, NULL,
									   f->error ? psprintf("%s: %s", f->balancer->name, f->error) :
									   psprintf("%s does again what it is told", f->balancer->name));
		f->stored_error = f->error;
	}
	bcmig_catalog_end(&scope);
}

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

/*
 * The way back of a change: balancers, then the intent.
 */
static void
undo(Job *job, const char *why)
{
	int64		intent = job->traffic.intent;
	double		percent = job->traffic.intent_percent;
	char	   *by = job->traffic.by;
	char	   *failed = set_back(job);
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	store_fronts(job);
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("UPDATE bcmig.traffic SET intent = NULL, updated_at = clock_timestamp() WHERE sync_id = $1 AND intent->>'id' = $2::text",
				  "iI", job->sync->sync_id, intent) > 0)
	{
		(void) bcmig_traffic_event(job->sync->name, "undone", percent, job->traffic.green_percent, 0, by,
								   failed == NULL ? why :
								   psprintf("%s; not set back yet, tried again until they follow: %s", why, failed));
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	job->traffic.intent = 0;
}

/* ---- a change ---- */

/*
 * The first transaction.  Takes all requests, of which the last counts; true:
 * there is an intent.
 */
static bool
begin_change(Job *job, int64 request)
{
	BcmigTraffic *t = &job->traffic;
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *checks = NIL;
	char	   *failing = NULL;
	char	   *by;
	double		percent;
	bool		isnull;
	bool		begun = false;
	int64		event_id;

	bcmig_start_transaction();
	if (!bcmig_traffic_load(job->sync->sync_id, true, t) || t->held != NULL || t->intent != 0)
	{
		bcmig_end_transaction();
		return false;
	}
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("WITH d AS (DELETE FROM bcmig.traffic_request WHERE sync_id = $1 AND request_id <= $2 RETURNING *) "
				  "SELECT green_percent::float8, by FROM d ORDER BY request_id DESC LIMIT 1", "iI", job->sync->sync_id, request) > 0)
	{
		MemoryContextSwitchTo(caller);
		percent = DatumGetFloat8(bcmig_get_datum(0, 1, &isnull));
		by = bcmig_get_text(0, 2);
		if (percent > t->green_percent)
		{
			checks = bcmig_gates(job->sync, false);
			failing = bcmig_gates_text(checks);
		}
		if (failing != NULL || percent != t->green_percent)
		{
			event_id = bcmig_traffic_event(job->sync->name, failing ? "refused" : "begun", t->green_percent, percent, 0, by, failing);
			store_gates(event_id, "before", checks);
			begun = failing == NULL;
		}
		if (begun)
		{
			t->intent = event_id;
			t->intent_percent = percent;
			t->by = by;
			bcmig_sql("UPDATE bcmig.traffic SET intent = jsonb_build_object('id', $2, 'green_percent', $3::numeric, 'by', $4, 'at', clock_timestamp()), "
					  " updated_at = clock_timestamp() WHERE sync_id = $1", "iIft", job->sync->sync_id, event_id, percent, by);
		}
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	return begun;
}

/*
 * The second transaction.  NULL: it holds; else why not.
 */
static char *
end_change(Job *job, bool raising)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigTraffic now;
	BcmigCatalogScope scope;
	List	   *checks = NIL;
	char	   *failing = NULL;
	int64		epoch;

	bcmig_start_transaction();
	if (!bcmig_traffic_load(job->sync->sync_id, true, &now) || now.intent != job->traffic.intent)
		failing = "the intent is gone";
	else if (now.held != NULL)
		failing = psprintf("held: %s", now.held);
	else if (raising)
	{
		checks = bcmig_gates(job->sync, false);
		failing = bcmig_gates_text(checks);
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
		store_fronts(job);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	return failing;
}

static void
change(Job *job, int64 request, double percent)
{
	bool		raising = percent > job->traffic.green_percent;
	char	   *why = NULL;

	if (!bcmig_green_may_act(job->sync, &job->traffic, true))
		return;
	if (raising)
		bcmig_ask_health(job->sync);
	if (!begin_change(job, request))
		return;
	bcmig_debug_point("traffic_intent");
	for (int i = 0; i < job->nfronts && why == NULL; i++)
	{
		Front	   *f = &job->fronts[i];

		if (!set_front(f, job->traffic.intent_percent))
			why = psprintf("balancer %s: %s", f->balancer->name, f->error);
	}
	bcmig_debug_point("traffic_set");
	raising = job->traffic.intent_percent > job->traffic.green_percent;
	if (why == NULL && raising)
		bcmig_ask_health(job->sync);
	if (why == NULL)
		why = end_change(job, raising);
	if (why != NULL)
		undo(job, why);
	else
		bcmig_witness_store(job->sync);
}

/* ---- between changes ---- */

/*
 * Read all; put back what has another weight.  False: traffic is held.
 */
static bool
look_after(Job *job)
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
		Front	   *f = &job->fronts[i];

		read_front(f);
		if (f->percent < 0 || follows(f->percent, t->green_percent))
			continue;
		drifted = true;
		if (f->first && !f->never_read && !(t->intent != 0 && follows(f->percent, t->intent_percent)))
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
		Front	   *f = &job->fronts[i];
		double		found = f->percent;
		bool		followed;

		if (f->percent < 0 || follows(f->percent, t->green_percent))
			continue;
		followed = set_front(f, t->green_percent);
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
		store_fronts(job);
	bcmig_end_transaction();
	return t->held == NULL;
}

/* the newest request; 0 = none */
static int64
newest_request(int sync_id, double *percent)
{
	BcmigCatalogScope scope;
	int64		request = 0;
	bool		isnull;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT request_id, green_percent::float8 FROM bcmig.traffic_request WHERE sync_id = $1 ORDER BY request_id DESC LIMIT 1",
				  "i", sync_id) > 0)
	{
		request = bcmig_get_int64(0, 1, 0);
		*percent = DatumGetFloat8(bcmig_get_datum(0, 2, &isnull));
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return request;
}

void
bcmig_run_traffic(int sync_id)
{
	Job			job;
	int64		request;
	double		percent = 0;

	if (!load(&job, sync_id) || !bcmig_green_may_act(job.sync, &job.traffic, job.traffic.intent != 0) || !look_after(&job))
		return;
	if (job.traffic.intent != 0)
		undo(&job, "found open: its worker has ended before its time");
	request = newest_request(sync_id, &percent);
	if (request != 0)
		change(&job, request, percent);
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
