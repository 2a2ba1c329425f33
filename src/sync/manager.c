/*-------------------------------------------------------------------------
 *
 * manager.c
 *	  One process per database: decides who works on what, and when.
 *
 * It reads configuration and state, keeps a live entry in shared memory for
 * every table of a running sync, starts a poller per (blue, owner) and workers
 * per owner, and hands out jobs: windows first, by priority and by how long the
 * table has been waiting, then what a person asked for, sweeps, copies.  It
 * runs no user SQL and never touches blue.
 *
 * It sleeps on its latch.  What wakes it: a poll that saw something move, a
 * worker that is done, a commit that changed configuration; else the earliest
 * moment something is due.
 *
 * Memory: "config" holds what the last load read, replaced as a whole; "loop"
 * is reset every round.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog.h"
#include "slot.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

extern PGDLLEXPORT void bcmig_manager_main(Datum arg);

#define RELOAD_INTERVAL		10000	/* ms; configuration is re-read at least so often */
#define CLEANUP_INTERVAL	60000	/* ms between two clean-ups of bcmig.sync_batch */
#define IDLE_WORKER			10000	/* ms an idle worker is kept when another owner waits */
#define COMPARE_LEAST		1000	/* ms between two compares of a snapshot table that moves */
#define COMPARE_SHARE		20	/* a compare may take 1/20 of the time */
#define SHORT_RETRY			10000	/* ms until the server is asked again for a worker it refused */
#define CLEANUP_ROWS		10000	/* rows of sync_batch deleted in one transaction */

typedef struct Sync
{
	int			sync_id;
	char	   *name;
	Oid			owner;
	int			environment_id;
	bool		running;		/* wanted */
	int			workers;		/* most at one time, 0 = all */
	int			poll_interval;	/* ms, 0 = auto */
	int			max_latency;	/* ms */
	char	   *state;			/* as stored */
	int			blue;			/* index into blues[] */
	int			busy;			/* workers lent, this round */
} Sync;

/* a request of a person, waiting for a worker */
typedef struct Request
{
	int64		id;
	int			table_id;
	BcmigJobKind kind;
} Request;

typedef struct Table
{
	int			table_id;
	Sync	   *sync;
	int			priority;
	int			parallel;
	bool		enabled;
	bool		snapshot;
	bool		sweeps;			/* deletes come by sweep */
	int64		sweep_interval;
	BcmigTable *live;			/* NULL when its sync does not run */
} Table;

typedef struct Config
{
	MemoryContext context;
	int			nsyncs;
	Sync	   *syncs;
	int			ntables;
	Table	   *tables;			/* by priority */
	int			nrequests;
	Request    *requests;
} Config;

/* a process this manager launched */
typedef struct Child
{
	BackgroundWorkerHandle *handle;
	uint32		generation;
} Child;

/* launches in a row that came to nothing, and when the next may be */
typedef struct Backoff
{
	int			failures;
	TimestampTz not_before;
} Backoff;

static Config *config = NULL;
static Child children[BCMIG_MAX_SLOTS];
static bool reload = true;
static Oid	sync_table_relid;	/* what bcmig_config_changed() invalidates */
static Backoff poller_backoff[BCMIG_MAX_BLUES];
static Backoff worker_backoff;
static int	workers_short;		/* workers the server would not give at the last try */
static TimestampTz short_until; /* not asked for more before; 0 = the last launch was granted */

static void
config_invalidated(Datum arg, Oid relid)
{
	if (relid == sync_table_relid || !OidIsValid(relid))
		reload = true;
}

/* ---- configuration ---- */

static char *
copy_text(MemoryContext context, uint64 row, int col)
{
	char	   *s = bcmig_get_text(row, col);

	return s ? MemoryContextStrdup(context, s) : NULL;
}

static void
load_syncs(Config *c)
{
	bcmig_sql("SELECT s.sync_id, s.name, s.owner::oid, s.environment_id, s.wanted = 'running', "
			  " nullif(s.options->>'workers', 'auto')::int, nullif(s.options->>'poll_interval', 'auto')::int, "
			  " coalesce((s.options->>'max_latency')::int, 100), st.state "
			  "FROM bcmig.sync s JOIN bcmig.sync_state st USING (sync_id) ORDER BY s.sync_id", "");
	c->nsyncs = SPI_processed;
	c->syncs = MemoryContextAllocZero(c->context, sizeof(Sync) * Max(c->nsyncs, 1));
	for (int i = 0; i < c->nsyncs; i++)
	{
		Sync	   *s = &c->syncs[i];

		s->sync_id = bcmig_get_int64(i, 1, 0);
		s->name = copy_text(c->context, i, 2);
		s->owner = bcmig_get_int64(i, 3, 0);
		s->environment_id = bcmig_get_int64(i, 4, 0);
		s->running = bcmig_get_bool(i, 5);
		s->workers = bcmig_get_int64(i, 6, 0);
		s->poll_interval = bcmig_get_int64(i, 7, 0);
		s->max_latency = bcmig_get_int64(i, 8, 100);
		s->state = copy_text(c->context, i, 9);
	}
}

static Sync *
find_sync(Config *c, int sync_id)
{
	for (int i = 0; i < c->nsyncs; i++)
	{
		if (c->syncs[i].sync_id == sync_id)
			return &c->syncs[i];
	}
	return NULL;
}

/*
 * The live entry of a table, made when missing.  What is stored (row "row" of
 * the query of load_tables) fills in an entry nobody works on, unless something
 * was published since "seen": the query may not have seen that.  Caller holds
 * the lock exclusively.
 */
static BcmigTable *
enter_table(Table *t, uint64 row, uint64 seen)
{
	BcmigTableKey key = {MyDatabaseId, t->table_id};
	BcmigTable *live;
	bool		found;
	bool		isnull;
	Datum		swept_at;

	live = hash_search(bcmig_tables, &key, HASH_ENTER_NULL, &found);
	if (live == NULL)
		return NULL;
	if (!found)
	{
		memset((char *) live + sizeof(key), 0, sizeof(*live) - sizeof(key));
		live->moved_poll = 1;	/* dirty until a window has proved it clean */
		live->rows_copied = bcmig_get_int64(row, 12, 0);
		live->rows_applied = bcmig_get_int64(row, 13, 0);
		live->rows_deleted = bcmig_get_int64(row, 14, 0);
		live->name_hash = bcmig_source_hash(bcmig_get_text(row, 15), bcmig_get_text(row, 16));
	}
	if (!found || (live->busy == 0 && live->version <= seen))
	{
		BcmigTableState state = bcmig_state_value(bcmig_get_text(row, 8));

		if (live->state != state)
		{
			live->window_poll = 0;
			live->failures = 0;
			live->not_before = 0;
			live->drained = false;
		}
		live->state = state;
		if (live->window_poll == 0)
			live->position = bcmig_get_int64(row, 9, 0);
		live->swept_position = t->snapshot || t->sweeps ? bcmig_get_int64(row, 10, 0) : PG_INT64_MAX;
		swept_at = bcmig_get_datum(row, 11, &isnull);
		live->swept_at = isnull ? 0 : DatumGetTimestampTz(swept_at);
		live->quarantined = bcmig_get_int64(row, 17, 0);
	}
	live->sync_id = t->sync->sync_id;
	live->blue = t->sync->blue;
	live->stopping = !t->enabled;
	return live;
}

static void
load_tables(Config *c)
{
	uint64		seen;
	bool		full = false;

	/* everything published until here is in the snapshot taken below */
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	seen = bcmig_shared->publications;
	LWLockRelease(bcmig_shared->lock);

	bcmig_sql("SELECT t.table_id, t.sync_id, t.capture, "
			  " coalesce((t.options->>'priority')::int, 5), "
			  " coalesce(nullif(coalesce(t.options->>'parallel', s.options->>'parallel'), 'auto')::int, 0), "
			  " coalesce((t.options->>'enabled')::bool, true), "
			  " coalesce(coalesce(t.options->>'sweep_interval', s.options->>'sweep_interval')::int8, 900000), "
			  " st.state, coalesce(st.position, 0), coalesce(st.swept_position, 0), st.swept_at, "
			  " st.rows_copied, st.rows_applied, st.rows_deleted, t.source_schema, t.source_table, "
			  " coalesce(q.n, 0)::int8 "
			  "FROM bcmig.sync_table t JOIN bcmig.sync s USING (sync_id) JOIN bcmig.table_state st USING (table_id) "
			  "LEFT JOIN (SELECT table_id, count(*) AS n FROM bcmig.quarantine GROUP BY 1) q USING (table_id) "
			  "ORDER BY 4, 1", "");
	c->ntables = SPI_processed;
	c->tables = MemoryContextAllocZero(c->context, sizeof(Table) * Max(c->ntables, 1));
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < c->ntables; i++)
	{
		Table	   *t = &c->tables[i];
		char	   *capture = bcmig_get_text(i, 3);

		t->table_id = bcmig_get_int64(i, 1, 0);
		t->sync = find_sync(c, bcmig_get_int64(i, 2, 0));
		t->priority = bcmig_get_int64(i, 4, 5);
		t->parallel = bcmig_get_int64(i, 5, 0);
		t->enabled = bcmig_get_bool(i, 6);
		t->sweep_interval = bcmig_get_int64(i, 7, 900000);
		t->snapshot = strcmp(capture, "snapshot") == 0;
		t->sweeps = strcmp(capture, "rowversion") == 0;
		if (t->sync != NULL && t->sync->running && t->sync->blue >= 0)
		{
			t->live = enter_table(t, i, seen);
			full |= t->live == NULL;
		}
	}
	LWLockRelease(bcmig_shared->lock);
	if (full)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("bcmig works on at most %d tables at a time, more are configured", bcmig_max_tables),
				 errhint("Raise bcmig.max_tables and restart the server.")));
}

static void
load_requests(Config *c)
{
	static const struct
	{
		const char *name;
		BcmigJobKind kind;
	}			kinds[] = {
		{"window", BCMIG_JOB_WINDOW}, {"sweep", BCMIG_JOB_SWEEP}, {"retry", BCMIG_JOB_RETRY}
	};

	bcmig_sql("SELECT request_id, table_id, kind FROM bcmig.request WHERE table_id IS NOT NULL ORDER BY 1", "");
	c->requests = MemoryContextAllocZero(c->context, sizeof(Request) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Request    *r = &c->requests[c->nrequests];
		char	   *kind = bcmig_get_text(i, 3);

		r->id = bcmig_get_int64(i, 1, 0);
		r->table_id = bcmig_get_int64(i, 2, 0);
		for (int k = 0; k < lengthof(kinds); k++)
		{
			if (strcmp(kinds[k].name, kind) == 0)
				r->kind = kinds[k].kind;
		}
		if (r->kind != BCMIG_JOB_NONE)
			c->nrequests++;
	}
}

/*
 * Take live entries away whose table is not configured in a running sync any
 * more, once nobody works on them.
 */
static void
remove_stale_tables(Config *c)
{
	HASH_SEQ_STATUS seq;
	BcmigTable *live;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	hash_seq_init(&seq, bcmig_tables);
	while ((live = hash_seq_search(&seq)) != NULL)
	{
		bool		wanted = false;

		if (live->key.dboid != MyDatabaseId)
			continue;
		for (int i = 0; i < c->ntables && !wanted; i++)
			wanted = c->tables[i].live == live;
		if (!wanted)
		{
			live->stopping = true;
			if (live->busy == 0)
				hash_search(bcmig_tables, &live->key, HASH_REMOVE, NULL);
			else
				reload = true;	/* look again */
		}
	}
	LWLockRelease(bcmig_shared->lock);
}

static void
assign_blues(Config *c)
{
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < BCMIG_MAX_BLUES; i++)
	{
		if (bcmig_shared->blues[i].in_use && bcmig_shared->blues[i].dboid == MyDatabaseId)
			bcmig_shared->blues[i].max_latency = 0;
	}
	for (int i = 0; i < c->nsyncs; i++)
	{
		Sync	   *s = &c->syncs[i];
		BcmigBlue  *blue;

		s->blue = s->running ? bcmig_live_blue(MyDatabaseId, s->environment_id, s->owner) : -1;
		if (s->blue < 0)
			continue;
		blue = &bcmig_shared->blues[s->blue];
		if (blue->max_latency == 0)
		{
			blue->max_latency = s->max_latency;
			blue->fixed_interval = s->poll_interval;
		}
		else
		{
			blue->max_latency = Min(blue->max_latency, s->max_latency);
			if (s->poll_interval > 0 && blue->fixed_interval > 0)
				blue->fixed_interval = Min(blue->fixed_interval, s->poll_interval);
			else
				blue->fixed_interval = 0;
		}
	}
	LWLockRelease(bcmig_shared->lock);
}

static void
load_config(void)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "bcmig config",
												  ALLOCSET_DEFAULT_SIZES);
	Config	   *c = MemoryContextAllocZero(context, sizeof(Config));
	BcmigCatalogScope scope;

	c->context = context;
	reload = false;
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	load_syncs(c);
	assign_blues(c);
	load_tables(c);
	load_requests(c);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	remove_stale_tables(c);

	if (config != NULL)
		MemoryContextDelete(config->context);
	config = c;
}

/* ---- processes ---- */

/*
 * Release the slots of children that ended before they could do so themselves.
 */
static void
reap_children(void)
{
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		pid_t		pid;

		if (children[i].handle == NULL ||
			GetBackgroundWorkerPid(children[i].handle, &pid) != BGWH_STOPPED)
			continue;
		bcmig_slot_release(i, children[i].generation);
		pfree(children[i].handle);
		children[i].handle = NULL;
	}
}

/*
 * A process that cannot connect, to blue or here, dies and is launched again:
 * after every launch the next one has to wait, longer and longer, until one
 * has come to work.
 */
static bool
may_launch(const Backoff *b, TimestampTz now)
{
	return b->failures == 0 || b->not_before <= now;
}

static void
launched(Backoff *b, TimestampTz now)
{
	b->not_before = TimestampTzPlusMilliseconds(now, bcmig_backoff(++b->failures, 200, 30000));
}

static bool
launch(BcmigRole role, Oid owner, int environment_id)
{
	BackgroundWorkerHandle *handle;
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	int			index = bcmig_slot_launch(role, MyDatabaseId, owner, environment_id, &handle);

	MemoryContextSwitchTo(oldcontext);
	if (index < 0)
	{
		short_until = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), SHORT_RETRY);
		return false;
	}
	short_until = 0;
	if (children[index].handle != NULL)
		pfree(children[index].handle);
	children[index].handle = handle;
	children[index].generation = bcmig_shared->slots[index].generation;
	return true;
}

/*
 * Say how many background workers are missing, when that number changes.
 */
static void
report_missing(int missing)
{
	if (missing == 0 && short_until > GetCurrentTimestamp())
		return;					/* nobody has tried again yet */
	workers_short = missing;
	if (missing == 0 && short_until != 0)
		return;					/* nobody has got one since: what was said stands */
	for (int i = 0; i < BCMIG_MAX_DATABASES; i++)
	{
		BcmigDatabase *db = &bcmig_shared->databases[i];

		if (!db->in_use || db->dboid != MyDatabaseId || db->workers_missing == missing)
			continue;
		db->workers_missing = missing;
		if (missing > 0)
			ereport(WARNING,
					(errcode(ERRCODE_BM_NO_WORKER),
					 errmsg("bcmig is short of %d background workers and goes on with fewer", missing),
					 errhint("Set max_worker_processes to %d or more (now %d) and restart the server.",
							 max_worker_processes + missing, max_worker_processes)));
	}
}

/*
 * One poller for every blue a running sync needs, none for others.
 */
static int
manage_pollers(void)
{
	TimestampTz now = GetCurrentTimestamp();
	int			missing = 0;

	for (int i = 0; i < BCMIG_MAX_BLUES; i++)
	{
		BcmigBlue  *blue = &bcmig_shared->blues[i];
		BcmigSlot  *poller = NULL;
		bool		wanted = false;

		if (!blue->in_use || blue->dboid != MyDatabaseId)
			continue;
		for (int s = 0; s < config->nsyncs && !wanted; s++)
			wanted = config->syncs[s].blue == i;
		for (int s = 0; s < BCMIG_MAX_SLOTS && poller == NULL; s++)
		{
			BcmigSlot  *slot = &bcmig_shared->slots[s];

			if (slot->in_use && slot->role == BCMIG_POLLER && slot->dboid == MyDatabaseId &&
				slot->environment_id == blue->environment_id && slot->owner == blue->owner)
				poller = slot;
		}
		if (poller != NULL && !wanted)
		{
			LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
			poller->stop = true;
			if (poller->proc != NULL)
				SetLatch(&poller->proc->procLatch);
			LWLockRelease(bcmig_shared->lock);
		}
		else if (poller == NULL && !wanted)
		{
			LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
			blue->in_use = false;
			LWLockRelease(bcmig_shared->lock);
			poller_backoff[i].failures = 0;
		}
		else if (poller != NULL && blue->reachable)
			poller_backoff[i].failures = 0;
		else if (poller == NULL)
		{
			/* it died without a word, or said so itself */
			blue->reachable = false;
			if (may_launch(&poller_backoff[i], now))
			{
				missing += !launch(BCMIG_POLLER, blue->owner, blue->environment_id);
				launched(&poller_backoff[i], now);
			}
		}
	}
	return missing;
}

/* ---- jobs ---- */

/*
 * Give a job on n tables of one sync to an idle worker of its owner; launch one
 * when there is room.  Returns false when none can take it now.
 */
static bool
give_job(Table **tables, int n, BcmigJobKind kind, int64 request_id, int *missing)
{
	Table	   *t = tables[0];
	BcmigSlot  *idle = NULL;
	BcmigSlot  *other = NULL;
	int			workers = 0;
	bool		starting = false;
	TimestampTz now = GetCurrentTimestamp();

	if (t->sync->workers > 0 && t->sync->busy >= t->sync->workers)
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
		if (slot->owner != t->sync->owner)
			other = slot;
		else if (!slot->ready)
			starting = true;
		else if (idle == NULL)
			idle = slot;
	}
	if (idle != NULL)
	{
		idle->job.sync_id = t->sync->sync_id;
		idle->job.table_id = t->table_id;
		idle->job.request_id = request_id;
		idle->job.ntables = n;
		for (int i = 0; i < n; i++)
		{
			idle->job.tables[i] = tables[i]->table_id;
			bcmig_job_begins(tables[i]->live, kind, tables[i]->snapshot);
		}
		idle->job.kind = kind;
		SetLatch(&idle->proc->procLatch);
		t->sync->busy++;
	}
	else if (other != NULL && other->proc != NULL && workers >= bcmig_max_workers &&
			 TimestampDifferenceMilliseconds(other->since, now) >= IDLE_WORKER / 10)
	{
		/* make room for another owner */
		other->stop = true;
		SetLatch(&other->proc->procLatch);
	}
	LWLockRelease(bcmig_shared->lock);

	if (idle != NULL)
		worker_backoff.failures = 0;
	else if (!starting && workers < bcmig_max_workers && short_until <= now &&
			 may_launch(&worker_backoff, now))
	{
		if (launch(BCMIG_WORKER, t->sync->owner, 0))
			launched(&worker_backoff, now);
		else
			(*missing) += bcmig_max_workers - workers;
	}
	return idle != NULL;
}

/* blue answers: its readings are worth working with */
static bool
blue_answers(const Table *t)
{
	return t->live != NULL && bcmig_shared->blues[t->sync->blue].poll > 0 &&
		bcmig_shared->blues[t->sync->blue].reachable;
}

static bool
window_due(const Table *t, TimestampTz now)
{
	const BcmigTable *live = t->live;

	if (t->snapshot || live->exclusive || live->stopping || live->not_before > now)
		return false;
	return (live->state == BCMIG_STREAMING && live->window_poll < live->moved_poll) ||
		live->state == BCMIG_CATCHING_UP;
}

static bool
sweep_due(const Table *t, TimestampTz now)
{
	const BcmigTable *live = t->live;
	TimestampTz next;

	if (live->exclusive || live->sweeping || live->stopping || live->not_before > now)
		return false;
	if (t->snapshot && live->state == BCMIG_CATCHING_UP)
		return true;
	if (live->state != BCMIG_STREAMING || (!t->snapshot && !t->sweeps))
		return false;
	next = TimestampTzPlusMilliseconds(live->swept_at, t->sweep_interval);
	if (t->snapshot && live->window_poll < live->moved_poll)
		next = Min(next, TimestampTzPlusMilliseconds(live->swept_at,
													 Max(COMPARE_LEAST, COMPARE_SHARE * live->sweep_ms)));
	return next <= now;
}

static bool
copy_due(const Table *t, TimestampTz now)
{
	BcmigTable *live = t->live;
	int			most = t->parallel > 0 ? t->parallel : bcmig_max_workers;

	if (live->exclusive || live->stopping || live->not_before > now)
		return false;
	if (live->busy == 0)
		live->drained = false;
	if (live->state == BCMIG_PENDING || live->state == BCMIG_RESYNC)
		return live->busy == 0;
	return live->state == BCMIG_COPYING && live->busy < most && !live->drained;
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

static Table *
find_table(int table_id)
{
	for (int i = 0; i < config->ntables; i++)
	{
		if (config->tables[i].table_id == table_id)
			return &config->tables[i];
	}
	return NULL;
}

/*
 * Windows of one sync travel in groups, so that remote and local transaction
 * are shared; the due ones are spread over the workers there are.
 */
static void
give_windows(Table **due, int ndue, int workers, int *missing)
{
	int			size = Min(BCMIG_GROUP, (ndue + workers - 1) / workers);

	for (int i = 0; i < ndue && workers > 0; i++)
	{
		Table	   *group[BCMIG_GROUP];
		int			n = 0;

		if (due[i] == NULL)
			continue;
		for (int k = i; k < ndue && n < size; k++)
		{
			if (due[k] == NULL || due[k]->sync != due[i]->sync)
				continue;

			/* what follows the first window of a table takes long: alone */
			if (due[k]->live->state == BCMIG_CATCHING_UP && n > 0)
				continue;
			group[n++] = due[k];
			if (k > i)
				due[k] = NULL;
			if (group[0]->live->state == BCMIG_CATCHING_UP)
				break;
		}
		if (give_job(group, n, BCMIG_JOB_WINDOW, 0, missing))
			workers--;
		else
			break;
	}
}

/*
 * Hand out jobs.  Reads live entries without the lock: what it decides on is
 * checked again by the worker under the applier lock.
 *
 * Windows come first, but neither they nor long jobs may take the whole pool
 * while the other kind waits; a pool of one goes from hand to hand.
 */
static int
schedule(void)
{
	static bool windows_had_it = false;
	TimestampTz now = GetCurrentTimestamp();
	Table	  **due = palloc(sizeof(Table *) * Max(config->ntables, 1));
	int			ndue = 0;
	int			missing = 0;
	int			pool = bcmig_max_workers;
	int			windows = 0;	/* workers on windows */
	int			longs = 0;		/* workers on long jobs */
	bool		streaming = false;
	bool		long_due = false;

	for (int i = 0; i < config->nsyncs; i++)
		config->syncs[i].busy = 0;
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];
		Sync	   *sync;

		if (!slot->in_use || slot->role != BCMIG_WORKER || slot->dboid != MyDatabaseId ||
			slot->job.kind == BCMIG_JOB_NONE)
			continue;
		sync = find_sync(config, slot->job.sync_id);
		if (sync != NULL)
			sync->busy++;
		if (slot->job.kind == BCMIG_JOB_WINDOW)
			windows++;
		else
			longs++;
	}
	if (workers_short > 0)
		pool = Max(1, pool - workers_short);

	for (int i = 0; i < config->ntables; i++)
	{
		Table	   *t = &config->tables[i];

		if (!blue_answers(t))
			continue;
		streaming |= t->live->state == BCMIG_STREAMING || t->live->state == BCMIG_CATCHING_UP;
		long_due |= sweep_due(t, now) || copy_due(t, now);
		if (window_due(t, now))
			due[ndue++] = t;
	}
	qsort(due, ndue, sizeof(Table *), compare_windows);
	if (ndue > 0)
	{
		int			most = pool - windows - longs;

		if (long_due && longs == 0)
			most = pool > 1 ? Min(most, pool - 1 - windows) : windows_had_it ? 0 : most;
		if (most > 0)
		{
			give_windows(due, ndue, most, &missing);
			windows_had_it = true;
		}
	}

	for (int i = 0; i < config->nrequests; i++)
	{
		Request    *r = &config->requests[i];
		Table	   *t = find_table(r->table_id);

		if (t == NULL || r->kind == BCMIG_JOB_NONE || !blue_answers(t) ||
			t->live->exclusive || t->live->sweeping)
			continue;
		if (t->live->state != BCMIG_STREAMING && t->live->state != BCMIG_CATCHING_UP)
			continue;
		if (give_job(&t, 1, t->snapshot && r->kind == BCMIG_JOB_WINDOW ? BCMIG_JOB_SWEEP : r->kind,
					 r->id, &missing))
			r->kind = BCMIG_JOB_NONE;
	}

	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < config->ntables; i++)
		{
			Table	   *t = &config->tables[i];
			int			most = streaming ? Max(1, pool - 1) : pool;

			if (!blue_answers(t))
				continue;
			while (longs < most && (pass == 0 ? sweep_due(t, now) : copy_due(t, now)) &&
				   give_job(&t, 1, pass == 0 ? BCMIG_JOB_SWEEP : BCMIG_JOB_COPY, 0, &missing))
			{
				longs++;
				windows_had_it = false;
			}
		}
	}
	pfree(due);
	return missing;
}

/* ---- states ---- */

static const char *
sync_state(const Sync *sync)
{
	int			counts[BCMIG_RESYNC + 1] = {0};
	int			tables = 0;
	bool		busy = false;

	for (int i = 0; i < config->ntables; i++)
	{
		Table	   *t = &config->tables[i];

		if (t->sync != sync || t->live == NULL)
			continue;
		busy |= t->live->busy > 0;
		if (!t->enabled)
			continue;
		tables++;
		counts[t->live->state]++;
	}
	if (!sync->running)
	{
		if (strcmp(sync->state, "created") == 0)
			return sync->state;
		for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
		{
			BcmigSlot  *slot = &bcmig_shared->slots[i];

			if (slot->in_use && slot->dboid == MyDatabaseId &&
				slot->job.kind != BCMIG_JOB_NONE && slot->job.sync_id == sync->sync_id)
				return sync->state;
		}
		return "stopped";
	}
	if (sync->blue < 0 || !bcmig_shared->blues[sync->blue].reachable)
		return "waiting";
	if (tables > 0 && counts[BCMIG_SUSPENDED] == tables)
		return "failed";
	if (counts[BCMIG_PENDING] + counts[BCMIG_COPYING] + counts[BCMIG_RESYNC] + counts[BCMIG_CATCHING_UP] > 0)
		return "copying";
	return "streaming";
}

static void
store_sync_states(void)
{
	for (int i = 0; i < config->nsyncs; i++)
	{
		Sync	   *sync = &config->syncs[i];
		const char *state = sync_state(sync);
		char		error[BCMIG_TEXT] = "";
		BcmigCatalogScope scope;

		if (strcmp(state, sync->state) == 0)
			continue;
		if (sync->blue >= 0)
		{
			LWLockAcquire(bcmig_shared->lock, LW_SHARED);
			strlcpy(error, bcmig_shared->blues[sync->blue].last_error, sizeof(error));
			LWLockRelease(bcmig_shared->lock);
		}
		bcmig_start_transaction();
		bcmig_catalog_begin(&scope);
		bcmig_sql("UPDATE bcmig.sync_state SET state = $2, since = clock_timestamp(), "
				  " last_error = coalesce(nullif($3, ''), last_error), "
				  " last_error_at = CASE WHEN $3 <> '' THEN clock_timestamp() ELSE last_error_at END "
				  "WHERE sync_id = $1", "itt", sync->sync_id, state, error);
		bcmig_audit("state", sync->name, NULL, state, error[0] ? error : NULL);
		bcmig_catalog_end(&scope);
		bcmig_end_transaction();
		sync->state = MemoryContextStrdup(config->context, state);
	}
}

static void
clean_up(void)
{
	BcmigCatalogScope scope;
	uint64		deleted;

	if (bcmig_sync_batch_retention == 0)
		return;
	do
	{
		CHECK_FOR_INTERRUPTS();
		bcmig_start_transaction();
		bcmig_catalog_begin(&scope);
		deleted = bcmig_sql("DELETE FROM bcmig.sync_batch WHERE batch_id IN (SELECT batch_id FROM bcmig.sync_batch "
							" WHERE started_at < now() - $1 * interval '1 minute' ORDER BY batch_id LIMIT $2)",
							"ii", bcmig_sync_batch_retention, CLEANUP_ROWS);
		bcmig_catalog_end(&scope);
		bcmig_end_transaction();
	} while (deleted == CLEANUP_ROWS);
}

static bool
extension_exists(void)
{
	bool		exists;

	bcmig_start_transaction();
	exists = OidIsValid(get_extension_oid("bcmig", true));
	bcmig_end_transaction();
	return exists;
}

/*
 * The extension is not (or no longer) here.
 */
static void
leave(void)
{
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < BCMIG_MAX_DATABASES; i++)
	{
		if (bcmig_shared->databases[i].in_use && bcmig_shared->databases[i].dboid == MyDatabaseId)
			bcmig_shared->databases[i].no_extension = true;
	}
	LWLockRelease(bcmig_shared->lock);
	proc_exit(0);
}

/* how long to sleep when something may be due at "then"; the past asks for nothing */
static long
until(long wait, TimestampTz then, TimestampTz now)
{
	return then > now ? Min(wait, Max(10, TimestampDifferenceMilliseconds(now, then))) : wait;
}

void
bcmig_manager_main(Datum arg)
{
	MemoryContext loop_context;
	TimestampTz last_load = 0;
	TimestampTz last_cleanup = GetCurrentTimestamp();

	bcmig_process_start("bcmig manager");
	if (!extension_exists())
		leave();
	bcmig_start_transaction();
	sync_table_relid = get_relname_relid("sync_table", get_namespace_oid("bcmig", false));
	bcmig_end_transaction();
	CacheRegisterRelcacheCallback(config_invalidated, (Datum) 0);
	loop_context = AllocSetContextCreate(TopMemoryContext, "bcmig manager", ALLOCSET_DEFAULT_SIZES);
	bcmig_slot_phase("schedules", NULL, 0);

	for (;;)
	{
		TimestampTz now;
		long		wait = bcmig_naptime;

		CHECK_FOR_INTERRUPTS();
		if (bcmig_slot->stop)
			proc_exit(0);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		MemoryContextSwitchTo(loop_context);
		MemoryContextReset(loop_context);
		AcceptInvalidationMessages();
		now = GetCurrentTimestamp();

		if (reload || TimestampDifferenceMilliseconds(last_load, now) >= RELOAD_INTERVAL)
		{
			if (!extension_exists())
				leave();
			load_config();
			last_load = now;
		}
		reap_children();
		report_missing(manage_pollers() + schedule());
		store_sync_states();
		if (TimestampDifferenceMilliseconds(last_cleanup, now) >= CLEANUP_INTERVAL)
		{
			clean_up();
			last_cleanup = now;
		}
		pgstat_report_stat(false);

		/* a table, poller or worker that waits out its backoff may be due before long */
		for (int i = 0; i < config->ntables; i++)
		{
			BcmigTable *live = config->tables[i].live;

			if (live != NULL)
				wait = until(wait, live->not_before, now);
		}
		for (int i = 0; i < BCMIG_MAX_BLUES; i++)
		{
			if (poller_backoff[i].failures > 0)
				wait = until(wait, poller_backoff[i].not_before, now);
		}
		if (worker_backoff.failures > 0)
			wait = until(wait, worker_backoff.not_before, now);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 wait, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
