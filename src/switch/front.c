/*-------------------------------------------------------------------------
 *
 * front.c
 *	  The balancers of a sync, taken together: set, read, stored.
 *
 * Memory: all in the context of the job.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include <math.h>

#define TOLERANCE		0.5		/* percent: weights of balancers are whole numbers */
#define STORE_INTERVAL	60000	/* ms between two stored readings that are the same */

bool
bcmig_follows(double percent, double wanted)
{
	return fabs(percent - wanted) <= TOLERANCE && (percent > 0) == (wanted > 0);
}

/* false: there is nothing to do */
bool
bcmig_load_fronts(BcmigTrafficJob *job, int sync_id)
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
	job->fronts = palloc0(sizeof(BcmigFront) * Max(list_length(balancers), 1));
	foreach(lc, balancers)
	{
		BcmigFront *f = &job->fronts[job->nfronts++];
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

void
bcmig_read_front(BcmigFront *f)
{
	f->percent = -1;
	f->error = f->driver->get(f->balancer, &f->percent);
	if (f->error != NULL)
		f->percent = -1;
}

/* set and read back; false: it does not follow, f->error says why */
bool
bcmig_set_front(BcmigFront *f, double percent)
{
	f->percent = -1;
	f->error = f->driver->set(f->balancer, percent);
	if (f->error == NULL)
		bcmig_read_front(f);
	if (f->error == NULL && !bcmig_follows(f->percent, percent))
		f->error = psprintf("it was set to %g %% and shows %g %%", percent, f->percent);
	return f->error == NULL;
}

static char *
set_all(BcmigTrafficJob *job, double percent, bool leave)
{
	StringInfoData failed;

	/* first those that answered last time: the others may take their time to fail */
	initStringInfo(&failed);
	for (int i = 0; i < 2 * job->nfronts; i++)
	{
		BcmigFront *f = &job->fronts[i % job->nfronts];
		bool		done;

		if ((f->stored_error != NULL) != (i >= job->nfronts))
			continue;
		done = bcmig_set_front(f, percent);

		/* who is on green by a cookie, or still connected, goes too */
		if (done && leave && f->driver->leave != NULL)
		{
			f->error = f->driver->leave(f->balancer);
			done = f->error == NULL;
		}
		if (!done)
			appendStringInfo(&failed, "%s%s: %s", failed.len > 0 ? "; " : "", f->balancer->name, f->error);
	}
	return failed.len > 0 ? failed.data : NULL;
}

/* also those that may have been set by a job that died */
char *
bcmig_set_back(BcmigTrafficJob *job)
{
	return set_all(job, job->traffic.green_percent, false);
}

char *
bcmig_leave_green(BcmigTrafficJob *job)
{
	return set_all(job, 0, true);
}

/*
 * What was read last.  Events tell when a balancer begins and ends to fail.
 */
void
bcmig_store_fronts(BcmigTrafficJob *job)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	for (int i = 0; i < job->nfronts; i++)
	{
		BcmigFront *f = &job->fronts[i];

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

