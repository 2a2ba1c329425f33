/*-------------------------------------------------------------------------
 *
 * manager.c
 *	  One process per database: decides who works on what, and when.
 *
 * It reads configuration and state (managed.c), starts a poller per (blue,
 * owner) and workers per owner, and hands out jobs (schedule.c).  It runs no
 * user SQL and never touches blue.
 *
 * It sleeps on its latch.  What wakes it: a poll that saw something move, a
 * worker that is done, a commit that changed configuration; else the earliest
 * moment something is due.
 *
 * Memory: "loop" is reset every round.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "manager.h"

#include "access/xact.h"
#include "audit.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "version.h"

extern PGDLLEXPORT void bcmig_manager_main(Datum arg);

#define RELOAD_INTERVAL		10000	/* ms; configuration is re-read at least so often */
#define THROTTLE_INTERVAL	500		/* ms between two looks at whether there is an event of a throttle */
#define CHAIN_INTERVAL		200		/* ms between two steps of the audit chain */
#define ALERT_INTERVAL		5000	/* ms; alerts are looked for every second nap, or so often */
#define CLEANUP_INTERVAL	60000	/* ms between two looks at what has grown old */
#define ASIDE_RETRY			5000	/* ms until something beside the point is tried again */
#define SHORT_RETRY			10000	/* ms until the server is asked again for a worker it refused */
#define FEEDS_AT_A_TIME		100		/* dropped in one transaction */

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

const BcmigReportRoom *bcmig_report_room = NULL;

static Child children[BCMIG_MAX_SLOTS];
static bool reload = true;
static Oid	sync_table_relid;	/* what bcmig_config_changed() invalidates */
static Backoff poller_backoff[BCMIG_MAX_BLUES];
static Backoff worker_backoff;
static Backoff runner_backoff;
int			bcmig_workers_short;
static TimestampTz short_until; /* not asked for more before; 0 = the last launch was granted */

static void
config_invalidated(Datum arg, Oid relid)
{
	if (relid == sync_table_relid || !OidIsValid(relid))
		reload = true;
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
launch(BcmigRole role, Oid owner, int64 subject)
{
	BackgroundWorkerHandle *handle;
	MemoryContext oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	int			index = bcmig_slot_launch(role, MyDatabaseId, owner, subject, &handle);

	MemoryContextSwitchTo(oldcontext);
	if (index < 0)
	{
		short_until = TimestampTzPlusMilliseconds(bcmig_steady_time(), SHORT_RETRY);
		return false;
	}
	short_until = 0;
	if (children[index].handle != NULL)
		pfree(children[index].handle);
	children[index].handle = handle;
	children[index].generation = bcmig_shared->slots[index].generation;
	return true;
}

/* a worker has come to work */
void
bcmig_worker_works(void)
{
	worker_backoff.failures = 0;
}

bool
bcmig_may_launch_worker(TimestampTz now)
{
	return short_until <= now && may_launch(&worker_backoff, now);
}

/* false: the server gives no more */
bool
bcmig_launch_worker(Oid owner, TimestampTz now)
{
	if (!launch(BCMIG_WORKER, owner, 0))
		return false;
	launched(&worker_backoff, now);
	return true;
}

/*
 * Say how many background workers are missing, when that number changes.
 */
static void
report_missing(int missing)
{
	if (missing == 0 && short_until > bcmig_steady_time())
		return;					/* nobody has tried again yet */
	bcmig_workers_short = missing;
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
	TimestampTz now = bcmig_steady_time();
	int			missing = 0;

	for (int i = 0; i < BCMIG_MAX_BLUES; i++)
	{
		BcmigBlue  *blue = &bcmig_shared->blues[i];
		BcmigSlot  *poller = NULL;
		bool		wanted = false;

		if (!blue->in_use || blue->dboid != MyDatabaseId)
			continue;
		for (int s = 0; s < bcmig_managed->nsyncs && !wanted; s++)
			wanted = bcmig_managed->syncs[s].blue == i;
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

/*
 * One runner for every execution that wants one.  It leaves by itself.
 */
static int
manage_runners(void)
{
	TimestampTz now = bcmig_steady_time();
	int			missing = 0;

	for (int i = 0; i < bcmig_managed->nruns; i++)
	{
		Run		   *run = &bcmig_managed->runs[i];
		BcmigSlot  *runner = NULL;

		for (int s = 0; s < BCMIG_MAX_SLOTS && runner == NULL; s++)
		{
			BcmigSlot  *slot = &bcmig_shared->slots[s];

			if (slot->in_use && slot->role == BCMIG_RUNNER && slot->dboid == MyDatabaseId &&
				slot->execution_id == run->execution_id)
				runner = slot;
		}
		if (runner != NULL)
		{
			if (runner->ready)
				runner_backoff.failures = 0;

			/* it looks for requests between two transactions; a statement of a user may be a long one */
			LWLockAcquire(bcmig_shared->lock, LW_SHARED);
			if (run->cancelled && runner->in_use && runner->pid != 0 && strcmp(runner->phase, "sql") == 0)
				(void) kill(runner->pid, SIGINT);
			LWLockRelease(bcmig_shared->lock);
			run->cancelled = false;
		}
		else if (may_launch(&runner_backoff, now))
		{
			missing += !launch(BCMIG_RUNNER, run->owner, run->execution_id);
			launched(&runner_backoff, now);
			reload = true;
		}
	}
	return missing;
}

/* ---- states ---- */

static const char *
sync_state(const Sync *sync)
{
	int			counts[BCMIG_RESYNC + 1] = {0};
	int			tables = 0;

	for (int i = 0; i < bcmig_managed->ntables; i++)
	{
		Table	   *t = &bcmig_managed->tables[i];

		if (t->sync != sync || t->live == NULL || !t->enabled)
			continue;
		tables++;
		counts[t->live->state]++;
	}
	if (sync->elsewhere)
		return "held";
	if (!sync->running)
	{
		if (sync->half || strcmp(sync->state, "created") == 0)
			return sync->state;
		for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
		{
			BcmigSlot  *slot = &bcmig_shared->slots[i];

			if (slot->in_use && slot->dboid == MyDatabaseId &&
				((slot->job.kind != BCMIG_JOB_NONE && slot->job.kind != BCMIG_JOB_TRAFFIC && slot->job.sync_id == sync->sync_id) ||
				 (slot->aside.kind != BCMIG_JOB_NONE && slot->aside.sync_id == sync->sync_id)))
				return sync->state;
		}
		return "stopped";
	}
	if (sync->maintenance)
		return "held";

	/* waits for a person, whatever blue does; one resumed table is enough to come back */
	if (tables > 0 && counts[BCMIG_SUSPENDED] == tables)
		return "failed";
	if (sync->blue < 0 || !bcmig_shared->blues[sync->blue].reachable)
		return "waiting";
	if (counts[BCMIG_PENDING] + counts[BCMIG_COPYING] + counts[BCMIG_RESYNC] + counts[BCMIG_CATCHING_UP] > 0)
		return "copying";
	return "streaming";
}

static void
store_sync_states(void)
{
	for (int i = 0; i < bcmig_managed->nsyncs; i++)
	{
		Sync	   *sync = &bcmig_managed->syncs[i];
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
		sync->state = MemoryContextStrdup(bcmig_managed->context, state);
	}
}

/*
 * Feeds whose table has been removed together with many others (configure.c).
 * Not those of a dump that is being restored: its rows of bcmig.sync_table come
 * after its foreign tables, and the sequence is set after them.  Returns whether
 * some are left.
 */
static bool
drop_orphaned_feeds(void)
{
	BcmigCatalogScope scope;
	uint64		n;
	uint64		dropped;

	do
	{
		Oid			feeds[FEEDS_AT_A_TIME];
		char	   *names[FEEDS_AT_A_TIME];

		CHECK_FOR_INTERRUPTS();
		dropped = 0;
		bcmig_start_transaction();
		bcmig_catalog_begin(&scope);
		n = bcmig_sql("SELECT c.oid, c.relname::text FROM pg_class c WHERE c.relnamespace = 'bcmig'::regnamespace AND c.relkind = 'f' "
					  "AND c.relname ~ '^feed_[0-9]+$' AND NOT EXISTS (SELECT FROM bcmig.sync_table t WHERE t.feed = c.relname) "
					  "AND substr(c.relname, 6)::numeric <= (SELECT q.last_value FROM bcmig.sync_table_table_id_seq q WHERE q.is_called) "
					  "LIMIT $1", "i", FEEDS_AT_A_TIME);
		for (uint64 i = 0; i < n; i++)
		{
			feeds[i] = bcmig_get_int64(i, 1, 0);
			names[i] = bcmig_get_text(i, 2);
		}
		for (uint64 i = 0; i < n; i++)
		{
			/* a worker may be at its last read: the next time comes */
			if (!ConditionalLockRelationOid(feeds[i], AccessExclusiveLock))
				continue;
			dropped++;
			SPI_execute(psprintf("DROP FOREIGN TABLE bcmig.%s", quote_identifier(names[i])), false, 0);
		}
		bcmig_catalog_end(&scope);
		bcmig_end_transaction();
	} while (dropped == FEEDS_AT_A_TIME);
	return dropped < n;
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

/*
 * The SQL here is of another version than the library: nothing is started until
 * they are one again.  What our processes write to may not be there.
 */
static void
await_version(void)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *said = NULL;

	for (;;)
	{
		char	   *other;

		CHECK_FOR_INTERRUPTS();
		if (bcmig_slot->stop)
			proc_exit(0);
		bcmig_take_config();
		StartTransactionCommand();
		MemoryContextSwitchTo(caller);
		other = bcmig_other_version();
		CommitTransactionCommand();
		MemoryContextSwitchTo(caller);
		if (other == NULL)
			break;
		if (said == NULL || strcmp(said, other) != 0)
		{
			char	   *problem = psprintf("SQL of version %s, library of version " BCMIG_VERSION ": %s",
										   other, bcmig_version_hint(other));

			bcmig_slot_phase("waits for its version", NULL, 0);
			bcmig_slot_error(problem);
			ereport(LOG,
					(errcode(ERRCODE_BM_VERSION),
					 errmsg("bcmig manager waits: %s", problem)));
			said = other;
		}
		else
			pfree(other);
		bcmig_pause(bcmig_naptime);
	}
}

/* how long to sleep when something may be due at "then"; the past asks for nothing */
static long
until(long wait, TimestampTz then, TimestampTz now)
{
	return then > now ? Min(wait, Max(10, TimestampDifferenceMilliseconds(now, then))) : wait;
}

/*
 * What a manager does beside its task: if it fails, because somebody has locked
 * the audit log, the syncs go on.
 */
typedef struct Aside
{
	bool		(*work) (void); /* is there more at once? */
	int			interval;		/* ms */
	int			naps;			/* so many naps, when they are shorter; 0 = no matter */
	TimestampTz next;
} Aside;

static Aside asides[] = {
	{bcmig_look_for_alerts, ALERT_INTERVAL, 2},
	{bcmig_tell_throttles, THROTTLE_INTERVAL, 0},
	{bcmig_audit_chain, CHAIN_INTERVAL, 0},
	{bcmig_clean_up, CLEANUP_INTERVAL, 60},
};

/* returns when it is due again */
static TimestampTz
do_aside(Aside *a)
{
	MemoryContext caller = CurrentMemoryContext;
	volatile long wait = a->naps > 0 ? Min(a->interval, a->naps * bcmig_naptime) : a->interval;

	if (a->next > bcmig_steady_time())
		return a->next;
	PG_TRY();
	{
		if (a->work())
			wait = 1;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(caller);
		wait = ASIDE_RETRY;
	}
	PG_END_TRY();
	a->next = TimestampTzPlusMilliseconds(bcmig_steady_time(), wait);
	return a->next;
}

/*
 * Sleep until something wakes us, at most "wait" ms.  Samples for reports are
 * taken meanwhile, without going through all tables again.
 */
static void
sleep_and_sample(long wait)
{
	int			events;

	do
	{
		long		nap = wait;

		if (bcmig_report_room != NULL)
			nap = Min(nap, bcmig_report_room->sample(GetCurrentTimestamp()));
		events = WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						   nap, PG_WAIT_EXTENSION);
		wait -= nap;
	} while ((events & WL_LATCH_SET) == 0 && wait > 0);
	ResetLatch(MyLatch);
}

void
bcmig_manager_main(Datum arg)
{
	MemoryContext loop_context;
	TimestampTz last_load = 0;
	bool		feeds_left = true;	/* for all we know */

	bcmig_process_start("bcmig manager");
	await_version();
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
		bcmig_take_config();
		MemoryContextSwitchTo(loop_context);
		MemoryContextReset(loop_context);
		AcceptInvalidationMessages();
		now = bcmig_steady_time();

		if (reload || TimestampDifferenceMilliseconds(last_load, now) >= RELOAD_INTERVAL)
		{
			if (!extension_exists())
				leave();
			feeds_left |= reload;
			reload = false;
			if (bcmig_managed_load())
				reload = true;
			if (feeds_left)
				feeds_left = drop_orphaned_feeds();
			last_load = now;
		}
		reap_children();
		report_missing(manage_pollers() + manage_runners() + bcmig_schedule());
		store_sync_states();
		for (int i = 0; i < lengthof(asides); i++)
		{
			TimestampTz due = do_aside(&asides[i]);

			wait = Min(wait, Max(10, TimestampDifferenceMilliseconds(bcmig_steady_time(), due)));
		}
		pgstat_report_stat(false);

		/* a table, poller or worker that waits out its backoff may be due before long */
		for (int i = 0; i < bcmig_managed->ntables; i++)
		{
			BcmigTable *live = bcmig_managed->tables[i].live;

			if (live != NULL)
				wait = until(wait, live->not_before, now);
		}
		for (int i = 0; i < bcmig_managed->nsyncs; i++)
		{
			Sync	   *sync = &bcmig_managed->syncs[i];

			if (sync->traffic_due != NULL || sync->balancers)
				wait = until(wait, sync->traffic_next, now);
			if (sync->reverse)
				wait = until(wait, sync->reverse_next, now);
		}
		for (int i = 0; i < BCMIG_MAX_BLUES; i++)
		{
			if (poller_backoff[i].failures > 0)
				wait = until(wait, poller_backoff[i].not_before, now);
		}
		if (worker_backoff.failures > 0)
			wait = until(wait, worker_backoff.not_before, now);
		if (runner_backoff.failures > 0)
			wait = until(wait, runner_backoff.not_before, now);
		if (bcmig_report_room != NULL)
		{
			TimestampTz wall = GetCurrentTimestamp();

			wait = until(wait, bcmig_report_room->store(wall), wall);
		}
		sleep_and_sample(wait);
	}
}
