/*-------------------------------------------------------------------------
 *
 * schedule.c
 *	  Who works on what: traffic, what is to be brought to blue, then windows, by priority and by how long the
 *	  table has been waiting, then what a person asked for, sweeps, copies.
 *
 * What takes long, a big window as well as a copy, leaves a worker to small
 * windows, of the pool and of what a sync may borrow: while a big window is read
 * nobody can do anything aside, and several of them would hold up all tables.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "manager.h"

#include "miscadmin.h"
#include "slot.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "throttle.h"
#include "utils/timestamp.h"

#define IDLE_WORKER			1000	/* ms an idle worker is kept when another owner waits */
#define COMPARE_LEAST		1000	/* ms between two compares of a snapshot table that moves */
#define REVERSE_INTERVAL	1000	/* ms between two looks at what is to be brought to blue */
#define TRAFFIC_INTERVAL	3000	/* ms between two looks at the balancers of a sync */
#define COMPARE_SHARE		20	/* a compare may take 1/20 of the time */

static Table *
find_table(int table_id)
{
	for (int i = 0; i < bcmig_managed->ntables; i++)
	{
		if (bcmig_managed->tables[i].table_id == table_id)
			return &bcmig_managed->tables[i];
	}
	return NULL;
}

/* what follows the first window of a table takes long, and so does a big one */
static bool
takes_long(const Table *t)
{
	return t->live->state == BCMIG_CATCHING_UP || t->live->bulk;
}

/* as its manager sees it; a group has no big window, it is cut there */
static bool
is_long_window(BcmigJobKind kind, const Table *first, int n)
{
	return kind == BCMIG_JOB_WINDOW && n == 1 && first != NULL && first->live != NULL && takes_long(first);
}

/* may another worker of the sync take something that takes long? */
static bool
may_take_long(const Sync *sync)
{
	return !sync->streams || sync->workers < 2 || sync->longs < sync->workers - 1;
}

/*
 * Give a job on n tables of one sync (0: on all of the sync; "blamed" is the one
 * the worker names, NULL = none) to an idle worker of its owner; launch one when
 * there is room.  Returns false when none can take it now.
 *
 * Traffic does not wait for copies and sweeps to end: for it there may be one
 * worker more, which goes when something else wants it.
 */
static bool
give_sync_job(Sync *sync, Table *blamed, Table **tables, int n, BcmigJobKind kind, int64 request_id, int *missing)
{
	bool		traffic = kind == BCMIG_JOB_TRAFFIC;
	int			most = bcmig_max_workers + (traffic ? 1 : 0);
	BcmigSlot  *idle = NULL;
	BcmigSlot  *other = NULL;
	int			workers = 0;
	bool		starting = false;
	TimestampTz now = bcmig_steady_time();

	/* who has got none in this round gets none, however many tables it has */
	if (!traffic && (sync->refused || (sync->workers > 0 && sync->busy >= sync->workers)))
		return false;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];

		if (!slot->in_use || slot->role != BCMIG_WORKER || slot->dboid != MyDatabaseId)
			continue;
		workers++;
		if (slot->stop || slot->job.kind != BCMIG_JOB_NONE)
			continue;
		if (slot->owner != sync->owner)
			other = slot;
		else if (!slot->ready)
			starting = true;
		else if (idle == NULL)
			idle = slot;
	}
	if (idle != NULL && !traffic && workers > bcmig_max_workers)
	{
		idle->stop = true;
		SetLatch(&idle->proc->procLatch);
		idle = NULL;
		starting = true;
	}
	else if (idle != NULL)
	{
		idle->job.sync_id = sync->sync_id;
		idle->job.table_id = blamed ? blamed->table_id : 0;
		idle->job.request_id = request_id;
		idle->job.part = 0;
		idle->job.shards = 0;
		idle->job.ntables = n;
		for (int i = 0; i < n; i++)
		{
			idle->job.tables[i] = tables[i]->table_id;
			bcmig_job_begins(tables[i]->live, kind, tables[i]->snapshot);
		}
		idle->job.kind = kind;
		SetLatch(&idle->proc->procLatch);
		if (!traffic)
			sync->busy++;
		if (!traffic && ((kind != BCMIG_JOB_WINDOW && kind != BCMIG_JOB_SHARD) || is_long_window(kind, blamed, n)))
			sync->longs++;
	}
	else if (other != NULL && other->proc != NULL && workers >= most &&
			 bcmig_ms_since(other->since) >= IDLE_WORKER)
	{
		/* make room for another owner */
		other->stop = true;
		SetLatch(&other->proc->procLatch);
	}
	LWLockRelease(bcmig_shared->lock);

	if (!traffic)
		sync->refused = idle == NULL;
	if (idle != NULL)
		bcmig_worker_works();
	else if (!starting && workers < most && bcmig_may_launch_worker(now) &&
			 !bcmig_launch_worker(sync->owner, now))
		(*missing) += most - workers;
	return idle != NULL;
}

static bool
give_job(Table **tables, int n, BcmigJobKind kind, int64 request_id, int *missing)
{
	return give_sync_job(tables[0]->sync, tables[0], tables, n, kind, request_id, missing);
}

/* blue answers: its readings are worth working with */
static bool
blue_answers(const Table *t)
{
	return t->live != NULL && bcmig_shared->blues[t->sync->blue].poll > 0 &&
		bcmig_shared->blues[t->sync->blue].reachable;
}

/* somebody works on it who wants it for himself */
static bool
taken(const BcmigTable *live)
{
	return live->exclusive || live->helpers > 0;
}

static bool
window_due(const Table *t, TimestampTz now)
{
	const BcmigTable *live = t->live;

	if (t->snapshot || taken(live) || live->stopping || live->not_before > now)
		return false;
	return (live->state == BCMIG_STREAMING && live->window_poll < live->moved_poll) ||
		live->state == BCMIG_CATCHING_UP;
}

/* blue answers slowly: what can wait, waits */
static bool
held_back(const Table *t)
{
	return bcmig_shared->blues[t->sync->blue].throttle.on;
}

static bool
sweep_due(const Table *t, TimestampTz now)
{
	const BcmigTable *live = t->live;
	int64		wait;

	if (held_back(t) || taken(live) || live->sweeping || live->stopping || live->not_before > now)
		return false;
	if (t->snapshot && live->state == BCMIG_CATCHING_UP)
		return true;
	if (live->state != BCMIG_STREAMING || (!t->snapshot && !t->sweeps))
		return false;
	wait = t->sweep_interval;
	if (t->snapshot && live->window_poll < live->moved_poll)
		wait = Min(wait, Max(COMPARE_LEAST, COMPARE_SHARE * live->sweep_ms));
	return bcmig_ms_since(live->swept_at) >= wait;
}

static bool
copy_due(const Table *t, TimestampTz now)
{
	BcmigTable *live = t->live;
	int			most = t->parallel > 0 ? t->parallel : bcmig_max_workers;

	if (held_back(t) || taken(live) || live->stopping || live->not_before > now)
		return false;
	if (live->busy == 0)
		live->drained = false;
	if (!t->made)
		return false;
	if (live->state == BCMIG_PENDING || live->state == BCMIG_RESYNC)
		return live->busy == 0;
	return live->state == BCMIG_COPYING && live->busy < most && !live->drained;
}

/* is one of these jobs of a sync under way? */
static bool
has_job(const Sync *sync, BcmigJobKind kind)
{
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];

		if (slot->in_use && slot->dboid == MyDatabaseId && slot->job.kind == kind &&
			slot->job.sync_id == sync->sync_id)
			return true;
	}
	return false;
}

/* blue's schema is not the one the sync was last looked at for */
static bool
look_due(const Sync *sync, TimestampTz now)
{
	const BcmigBlue *blue = &bcmig_shared->blues[sync->blue];

	return blue->schema_mark != 0 && !blue->schema_doubted && blue->look_not_before <= now &&
		(blue->schema_mark != sync->schema_mark || sync->look_again) && !has_job(sync, BCMIG_JOB_LOOK);
}

/* one worker makes the tables of a sync, and when they are all there its views */
static bool
make_due(const Table *t, TimestampTz now)
{
	if (taken(t->live) || t->live->stopping || t->live->not_before > now)
		return false;
	if (t->made ? !t->sync->views_due : t->live->state != BCMIG_PENDING)
		return false;
	return !has_job(t->sync, BCMIG_JOB_MAKE);
}

static bool
check_due(const Table *t, TimestampTz now)
{
	return t->check_due && !held_back(t) && t->live->checkers < Max(1, t->live->check_parts) && !t->live->stopping &&
		t->live->check_not_before <= now;
}

/* or is copied; one that has failed is not waited for */
static bool
waits_for_copy(const Table *t, TimestampTz now)
{
	const BcmigTable *live = t->live;

	return (live->state == BCMIG_PENDING || live->state == BCMIG_COPYING || live->state == BCMIG_RESYNC) &&
		!live->stopping && live->not_before <= now;
}

/* statistics wait for the copies of all tables, which are what a sync waits for; one at a time, beside the changes */
static bool
analyze_due(const Table *t, TimestampTz now)
{
	const BcmigTable *live = t->live;

	return live->analyze_due && (live->state == BCMIG_STREAMING || live->state == BCMIG_CATCHING_UP) && !taken(live) &&
		!live->stopping && live->not_before <= now && !t->sync->copies && !has_job(t->sync, BCMIG_JOB_ANALYZE);
}

static int
compare_windows(const void *a, const void *b)
{
	const Table *x = *(Table *const *) a;
	const Table *y = *(Table *const *) b;

	if (x->priority != y->priority)
		return x->priority - y->priority;
	/* whose last window is the oldest */
	return x->live->window_poll < y->live->window_poll ? -1 :
		x->live->window_poll > y->live->window_poll;
}

/*
 * Windows that found no worker: who applies a big one takes them between two
 * of its transactions, so that one table does not hold up all others.
 */
static void
give_asides(TimestampTz now)
{
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];
		Table	   *due[BCMIG_GROUP];
		int			n = 0;

		if (!slot->in_use || slot->dboid != MyDatabaseId || !slot->takes_aside || slot->aside.kind != BCMIG_JOB_NONE)
			continue;
		/* managed tables are in the order of their priority */
		for (int k = 0; k < bcmig_managed->ntables && n < BCMIG_GROUP; k++)
		{
			Table	   *t = &bcmig_managed->tables[k];

			if (blue_answers(t) && window_due(t, now) && !takes_long(t) && t->live->failures == 0 &&
				t->sync->owner == slot->owner && (n == 0 || due[0]->sync == t->sync))
				due[n++] = t;
		}
		if (n == 0)
			continue;
		LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
		if (slot->in_use && slot->takes_aside && slot->aside.kind == BCMIG_JOB_NONE)
		{
			slot->aside.sync_id = due[0]->sync->sync_id;
			slot->aside.ntables = n;
			for (int k = 0; k < n; k++)
			{
				slot->aside.tables[k] = due[k]->table_id;
				bcmig_job_begins(due[k]->live, BCMIG_JOB_WINDOW, due[k]->snapshot);
			}
			slot->aside.kind = BCMIG_JOB_WINDOW;
		}
		LWLockRelease(bcmig_shared->lock);
	}
}

/*
 * Windows of one sync travel in groups, so that remote and local transaction
 * are shared; the due ones are spread over the workers there are, of which
 * "longest" may take big ones.  Returns how many were given.
 */
static int
give_windows(Table **due, int ndue, int workers, int longest, int *missing)
{
	int			size = Min(BCMIG_GROUP, (ndue + workers - 1) / workers);
	int			given = 0;

	for (int i = 0; i < ndue && given < workers; i++)
	{
		Table	   *group[BCMIG_GROUP] = {NULL};
		int			n = 0;

		if (due[i] == NULL || (due[i]->sync->workers > 0 && due[i]->sync->busy >= due[i]->sync->workers))
			continue;
		if (takes_long(due[i]) && (longest <= 0 || !may_take_long(due[i]->sync)))
			continue;
		for (int k = i; k < ndue && n < size; k++)
		{
			if (due[k] == NULL || due[k]->sync != due[i]->sync)
				continue;

			/* alone */
			if (takes_long(due[k]) && n > 0)
				continue;
			group[n++] = due[k];
			if (k > i)
				due[k] = NULL;
			if (takes_long(group[0]))
				break;
		}
		if (!give_job(group, n, BCMIG_JOB_WINDOW, 0, missing))
			break;
		given++;
		longest -= takes_long(group[0]);
	}
	return given;
}

/*
 * A big window that several workers may apply gets those who have nothing else
 * to do; returns how many.  Nobody waits for them.
 */
static int
give_shards(int most, int *missing)
{
	int			given = 0;

	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		const BcmigSlot *slot = &bcmig_shared->slots[i];
		Table	   *t;

		if (!slot->in_use || slot->dboid != MyDatabaseId || !slot->shards.open || slot->shards.next >= slot->shards.n ||
			slot->shards.failed || slot->shards.stopped)
			continue;
		t = find_table(slot->shards.table_id);
		if (t == NULL || t->live == NULL)
			continue;
		while (given < most && t->live->helpers < slot->shards.wanted && give_job(&t, 1, BCMIG_JOB_SHARD, 0, missing))
			given++;
	}
	return given;
}

/*
 * Hand out jobs.  Reads live entries without the lock: what it decides on is
 * checked again by the worker under the applier lock.
 *
 * Windows come first, but neither they nor long jobs may take the whole pool
 * while the other kind waits; a pool of one goes from hand to hand.
 */
int
bcmig_schedule(void)
{
	static bool windows_had_it = false;
	TimestampTz now = bcmig_steady_time();
	Table	  **due = palloc(sizeof(Table *) * Max(bcmig_managed->ntables, 1));
	int			ndue = 0;
	int			missing = 0;
	int			pool = bcmig_max_workers;
	int			windows = 0;	/* workers on windows */
	int			bigs = 0;		/* of them on big ones */
	int			longs = 0;		/* workers on long jobs */
	bool		streaming = false;
	bool		small = false;	/* may small windows come? */
	bool		big_due = false;
	bool		long_due = false;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < bcmig_managed->nsyncs; i++)
	{
		bcmig_managed->syncs[i].busy = bcmig_managed->syncs[i].longs = 0;
		bcmig_managed->syncs[i].streams = bcmig_managed->syncs[i].copies = false;
		bcmig_managed->syncs[i].refused = false;
		if (bcmig_managed->syncs[i].blue >= 0)
			(void) bcmig_throttled(&bcmig_shared->blues[bcmig_managed->syncs[i].blue]);
	}
	LWLockRelease(bcmig_shared->lock);
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];
		Sync	   *sync;
		bool		big;

		if (!slot->in_use || slot->role != BCMIG_WORKER || slot->dboid != MyDatabaseId ||
			slot->job.kind == BCMIG_JOB_NONE || slot->job.kind == BCMIG_JOB_TRAFFIC)
			continue;
		sync = bcmig_find_managed_sync(bcmig_managed, slot->job.sync_id);
		big = is_long_window(slot->job.kind, find_table(slot->job.tables[0]), slot->job.ntables);
		bigs += big;
		if (slot->job.kind == BCMIG_JOB_WINDOW || slot->job.kind == BCMIG_JOB_SHARD)
			windows++;
		else
			longs++;
		if (sync != NULL)
		{
			sync->busy++;
			sync->longs += big || (slot->job.kind != BCMIG_JOB_WINDOW && slot->job.kind != BCMIG_JOB_SHARD);
		}
	}
	if (bcmig_workers_short > 0)
		pool = Max(1, pool - bcmig_workers_short);

	/* whether a sync runs or not: a weight can be taken back at any time */
	for (int i = 0; i < bcmig_managed->nsyncs; i++)
	{
		Sync	   *sync = &bcmig_managed->syncs[i];

		if ((sync->traffic_due != NULL || sync->balancers) && sync->traffic_next <= now && !has_job(sync, BCMIG_JOB_TRAFFIC) &&
			give_sync_job(sync, NULL, NULL, 0, BCMIG_JOB_TRAFFIC, 0, &missing))
			sync->traffic_next = TimestampTzPlusMilliseconds(now, TRAFFIC_INTERVAL);
		if (sync->running && sync->reverse && sync->blue >= 0 && bcmig_shared->blues[sync->blue].poll > 0 &&
			bcmig_shared->blues[sync->blue].reachable && sync->reverse_next <= now && !has_job(sync, BCMIG_JOB_REVERSE) &&
			give_sync_job(sync, NULL, NULL, 0, BCMIG_JOB_REVERSE, 0, &missing))
		{
			sync->reverse_next = TimestampTzPlusMilliseconds(now, REVERSE_INTERVAL);
			longs++;
		}
	}

	for (int i = 0; i < bcmig_managed->ntables; i++)
	{
		Table	   *t = &bcmig_managed->tables[i];

		if (t->live != NULL)
			t->sync->copies |= waits_for_copy(t, now);
		if (!blue_answers(t))
			continue;
		streaming |= t->live->state == BCMIG_STREAMING || t->live->state == BCMIG_CATCHING_UP;
		long_due |= sweep_due(t, now) || copy_due(t, now);
		if (t->live->state == BCMIG_STREAMING && !t->snapshot && !takes_long(t))
			small = t->sync->streams = true;
		if (window_due(t, now))
		{
			big_due |= takes_long(t);
			due[ndue++] = t;
		}
	}
	qsort(due, ndue, sizeof(Table *), compare_windows);
	if (ndue > 0)
	{
		int			most = pool - windows - longs;

		if (long_due && longs == 0)
			most = pool > 1 ? Min(most, pool - 1 - windows) : windows_had_it ? 0 : most;
		if (most > 0)
		{
			windows += give_windows(due, ndue, most, small ? Max(1, pool - 1 - longs) - bigs : most, &missing);
			windows_had_it = true;
		}
		give_asides(now);
	}
	windows += give_shards(pool - windows - longs - (long_due && longs == 0), &missing);

	for (int i = 0; i < bcmig_managed->nrequests; i++)
	{
		Request    *r = &bcmig_managed->requests[i];
		Table	   *t = find_table(r->table_id);

		if (t == NULL || r->kind == BCMIG_JOB_NONE || !blue_answers(t) ||
			taken(t->live) || t->live->sweeping)
			continue;
		if (t->live->state != BCMIG_STREAMING && t->live->state != BCMIG_CATCHING_UP)
			continue;
		if (give_job(&t, 1, t->snapshot && r->kind == BCMIG_JOB_WINDOW ? BCMIG_JOB_SWEEP : r->kind,
					 r->id, &missing))
			r->kind = BCMIG_JOB_NONE;
	}

	for (int i = 0; i < bcmig_managed->ntables; i++)
	{
		Table	   *t = &bcmig_managed->tables[i];

		if (blue_answers(t) && t->made && longs < pool && look_due(t->sync, now) && give_job(&t, 0, BCMIG_JOB_LOOK, 0, &missing))
		{
			longs++;
			t->sync->look_again = false;
		}
		if (blue_answers(t) && (!t->made || t->sync->views_due) && longs < pool && make_due(t, now) &&
			give_job(&t, 1, BCMIG_JOB_MAKE, 0, &missing))
			longs++;
	}

	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < bcmig_managed->ntables; i++)
		{
			Table	   *t = &bcmig_managed->tables[i];
			int			most = streaming ? Max(1, pool - 1 - (small && (bigs > 0 || big_due))) : pool;

			if (!blue_answers(t))
				continue;
			while (longs < most && (pass == 0 ? sweep_due(t, now) : copy_due(t, now)) && may_take_long(t->sync) &&
				   give_job(&t, 1, pass == 0 ? BCMIG_JOB_SWEEP : BCMIG_JOB_COPY, 0, &missing))
			{
				longs++;
				windows_had_it = false;
			}
		}
	}

	/* statistics and proof come last: they may wait, and must leave a worker to the rest */
	for (int i = 0; i < bcmig_managed->ntables; i++)
	{
		Table	   *t = &bcmig_managed->tables[i];
		int			most = Max(1, pool - 1);

		if (t->live != NULL && longs < most && analyze_due(t, now) && may_take_long(t->sync) &&
			give_job(&t, 1, BCMIG_JOB_ANALYZE, 0, &missing))
			longs++;
		if (!blue_answers(t))
			continue;
		while (longs < most && check_due(t, now) && may_take_long(t->sync) && give_job(&t, 1, BCMIG_JOB_CHECK, 0, &missing))
			longs++;
		if (longs < most && t->sync->rules_due && !has_job(t->sync, BCMIG_JOB_RULES) &&
				 give_job(&t, 0, BCMIG_JOB_RULES, 0, &missing))
		{
			longs++;
			t->sync->rules_due = false;
		}
	}
	pfree(due);
	return missing;
}
