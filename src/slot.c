/*-------------------------------------------------------------------------
 *
 * slot.c
 *	  Launching our processes and saying what they do.
 *
 * Whoever launches a process reserves a slot in shared memory first and passes
 * its index and generation.  The process fills in its pid; before_shmem_exit
 * empties the slot and wakes the launching process.  A process that never got
 * that far (FATAL during connection) is noticed by its launcher through the
 * BackgroundWorkerHandle, which then releases the slot.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "slot.h"

#include "common/hashfn.h"
#include "common/pg_prng.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

typedef struct SlotExtra
{
	int			index;
	uint32		generation;
} SlotExtra;

StaticAssertDecl(sizeof(SlotExtra) <= BGW_EXTRALEN, "slot arguments fit bgw_extra");

BcmigSlot  *bcmig_slot = NULL;

static const struct
{
	const char *name;
	const char *function;
}			roles[] = {
	[BCMIG_MANAGER] = {"bcmig manager", "bcmig_manager_main"},
	[BCMIG_POLLER] = {"bcmig poller", "bcmig_poller_main"},
	[BCMIG_WORKER] = {"bcmig worker", "bcmig_worker_main"},
	[BCMIG_RUNNER] = {"bcmig runner", "bcmig_runner_main"},
};

int
bcmig_slot_launch(BcmigRole role, Oid dboid, Oid owner, int64 subject,
				  BackgroundWorkerHandle **handle)
{
	BackgroundWorker worker;
	SlotExtra	extra;
	BcmigSlot  *slot = NULL;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < BCMIG_MAX_SLOTS && slot == NULL; i++)
	{
		if (!bcmig_shared->slots[i].in_use)
		{
			slot = &bcmig_shared->slots[i];
			memset(slot, 0, sizeof(BcmigSlot));
			slot->in_use = true;
			slot->generation = ++bcmig_shared->next_generation;
			slot->role = role;
			slot->dboid = dboid;
			slot->owner = owner;
			slot->environment_id = role == BCMIG_POLLER ? subject : 0;
			slot->execution_id = role == BCMIG_RUNNER ? subject : 0;
			slot->launched_at = slot->since = GetCurrentTimestamp();
			strlcpy(slot->phase, "starting", sizeof(slot->phase));
			extra.index = i;
			extra.generation = slot->generation;
		}
	}
	LWLockRelease(bcmig_shared->lock);
	if (slot == NULL)
		return -1;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "bcmig", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, roles[role].function, BGW_MAXLEN);
	strlcpy(worker.bgw_name, roles[role].name, BGW_MAXLEN);
	strlcpy(worker.bgw_type, roles[role].name, BGW_MAXLEN);
	worker.bgw_main_arg = Int32GetDatum(extra.index);
	memcpy(worker.bgw_extra, &extra, sizeof(extra));
	worker.bgw_notify_pid = MyProcPid;

	if (!RegisterDynamicBackgroundWorker(&worker, handle))
	{
		bcmig_slot_release(extra.index, extra.generation);
		return -1;
	}
	return extra.index;
}

/*
 * Windows, retries and compares have a table for themselves; copy chunks share
 * it, a key sweep runs beside windows.
 */
void
bcmig_job_begins(BcmigTable *live, BcmigJobKind kind, bool snapshot)
{
	live->busy++;
	if (kind == BCMIG_JOB_CHECK)
		live->checkers++;
	else if (kind == BCMIG_JOB_SHARD)
		live->helpers++;
	else if (kind == BCMIG_JOB_SWEEP && !snapshot)
		live->sweeping = true;
	else if (kind == BCMIG_JOB_ANALYZE)
		live->analyze_due = false;	/* when it fails, the stored state says so again */
	else if (kind != BCMIG_JOB_COPY)
		live->exclusive = true;
}

void
bcmig_shard_fails(BcmigJob *job, int sqlerrcode, const char *message)
{
	BcmigSlot  *leader = &bcmig_shared->slots[job->leader];
	BcmigShards *shards = &leader->shards;

	if (job->shards != 0 && leader->in_use && shards->serial == job->shards)
	{
		if (!shards->failed)
		{
			shards->failed = true;
			shards->sqlerrcode = sqlerrcode;
			strlcpy(shards->error, message, sizeof(shards->error));
		}
		shards->running--;
		if (leader->proc != NULL)
			SetLatch(&leader->proc->procLatch);
	}
	job->shards = 0;
}

static void
end_job(Oid dboid, BcmigJob *job)
{
	if (job->kind == BCMIG_JOB_NONE)
		return;
	if (job->kind == BCMIG_JOB_SHARD)
		bcmig_shard_fails(job, 0, "its process ended");
	for (int i = 0; i < job->ntables; i++)
	{
		BcmigTableKey key = {dboid, job->tables[i]};
		BcmigTable *live = hash_search(bcmig_tables, &key, HASH_FIND, NULL);

		if (live == NULL)
			continue;
		if (live->busy > 0)
			live->busy--;
		if (job->kind == BCMIG_JOB_CHECK)
		{
			live->checkers = Max(0, live->checkers - 1);
			live->checked &= ~job->part;
		}
		else if (job->kind == BCMIG_JOB_SHARD)
			live->helpers = Max(0, live->helpers - 1);
		else if (job->kind == BCMIG_JOB_SWEEP && live->sweeping)
			live->sweeping = false;
		else if (job->kind != BCMIG_JOB_COPY && job->kind != BCMIG_JOB_ANALYZE)
			live->exclusive = false;
		live->version = ++bcmig_shared->publications;
	}
	job->kind = BCMIG_JOB_NONE;
}

/*
 * The slot's job is over, well or badly: its tables are free, the slot idle.
 */
void
bcmig_job_ends(BcmigSlot *slot)
{
	bcmig_aside_ends(slot);
	slot->takes_aside = false;
	end_job(slot->dboid, &slot->job);
}

void
bcmig_aside_ends(BcmigSlot *slot)
{
	end_job(slot->dboid, &slot->aside);
}

/*
 * Empty a slot whose process is gone or never came.
 */
void
bcmig_slot_release(int index, uint32 generation)
{
	BcmigSlot  *slot = &bcmig_shared->slots[index];

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	if (slot->in_use && slot->generation == generation)
	{
		/* a process that died in its job gives the table back */
		bcmig_job_ends(slot);
		slot->in_use = false;
		slot->proc = NULL;
		slot->pid = 0;
	}
	LWLockRelease(bcmig_shared->lock);
}

/*
 * Without their manager poller and workers have nobody to work for: they finish
 * what they do and exit.  The next manager starts its own.
 */
static void
stop_children(Oid dboid)
{
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];

		if (slot->in_use && slot->dboid == dboid && slot->role != BCMIG_MANAGER)
		{
			slot->stop = true;
			if (slot->proc != NULL)
				SetLatch(&slot->proc->procLatch);
		}
	}
	if (bcmig_shared->launcher != NULL)
		SetLatch(&bcmig_shared->launcher->procLatch);
	LWLockRelease(bcmig_shared->lock);
}

static void
slot_detach(int code, Datum arg)
{
	BcmigSlot  *slot = bcmig_slot;
	bool		manager = slot->role == BCMIG_MANAGER;
	Oid			dboid = slot->dboid;

	bcmig_slot = NULL;
	bcmig_slot_release(slot - bcmig_shared->slots, DatumGetUInt32(arg));
	if (manager)
		stop_children(dboid);
	else
		bcmig_wake_manager(dboid);
}

/*
 * Take the slot this process was launched for, or exit when it has been given
 * away meanwhile.
 */
static void
slot_attach(void)
{
	SlotExtra	extra;
	BcmigSlot  *slot;

	memcpy(&extra, MyBgworkerEntry->bgw_extra, sizeof(extra));
	slot = &bcmig_shared->slots[extra.index];

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	if (!slot->in_use || slot->generation != extra.generation || slot->pid != 0)
	{
		LWLockRelease(bcmig_shared->lock);
		proc_exit(0);
	}
	slot->pid = MyProcPid;
	slot->proc = MyProc;
	LWLockRelease(bcmig_shared->lock);

	bcmig_slot = slot;
	bcmig_own_process = true;
	before_shmem_exit(slot_detach, UInt32GetDatum(extra.generation));
}

void
bcmig_process_start(const char *name)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	/* die: a process of ours can be interrupted anywhere, nothing it holds outlives it */
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	slot_attach();
	BackgroundWorkerInitializeConnectionByOid(bcmig_slot->dboid, bcmig_slot->owner, 0);
	pgstat_report_appname(name);

	SetConfigOption("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("statement_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("idle_in_transaction_session_timeout", "0", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_isolation", "read committed", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("default_transaction_read_only", "off", PGC_USERSET, PGC_S_OVERRIDE);

	/* keys and images travel as text: exactly, and as blue reads them */
	SetConfigOption("datestyle", "ISO", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("intervalstyle", "postgres", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("extra_float_digits", "3", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("bytea_output", "hex", PGC_USERSET, PGC_S_OVERRIDE);
	SetConfigOption("timezone", "GMT", PGC_USERSET, PGC_S_OVERRIDE);

	/* a wrapper may print a connection string, with its password, at DEBUG */
	if (log_min_messages < INFO)
		SetConfigOption("log_min_messages", "info", PGC_SUSET, PGC_S_OVERRIDE);
	bcmig_slot->ready = true;
}

void
bcmig_slot_phase(const char *phase, const char *target, int64 rows_total)
{
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	strlcpy(bcmig_slot->phase, phase, sizeof(bcmig_slot->phase));
	strlcpy(bcmig_slot->target, target ? target : "", sizeof(bcmig_slot->target));
	bcmig_slot->since = GetCurrentTimestamp();
	bcmig_slot->rows_done = 0;
	bcmig_slot->rows_total = rows_total;
	LWLockRelease(bcmig_shared->lock);

	if (target != NULL)
		pgstat_report_activity(STATE_RUNNING, psprintf("bcmig: %s %s", phase, target));
	else
		pgstat_report_activity(STATE_IDLE, psprintf("bcmig: %s", phase));
}

/*
 * Published once a batch, not once a row; an aligned store needs no lock.
 */
void
bcmig_slot_progress(int64 rows_done)
{
	bcmig_slot->rows_done = rows_done;
}

void
bcmig_slot_error(const char *message)
{
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	bcmig_slot->errors++;
	strlcpy(bcmig_slot->last_error, message, sizeof(bcmig_slot->last_error));
	LWLockRelease(bcmig_shared->lock);
}

BcmigTable *
bcmig_live_table(int table_id)
{
	BcmigTableKey key = {MyDatabaseId, table_id};

	return hash_search(bcmig_tables, &key, HASH_FIND, NULL);
}

int
bcmig_live_blue(Oid dboid, int environment_id, Oid owner)
{
	int			unused = -1;

	for (int i = 0; i < BCMIG_MAX_BLUES; i++)
	{
		BcmigBlue  *blue = &bcmig_shared->blues[i];

		if (!blue->in_use)
		{
			if (unused < 0)
				unused = i;
		}
		else if (blue->dboid == dboid && blue->environment_id == environment_id &&
				 blue->owner == owner)
			return i;
	}
	if (unused >= 0)
	{
		BcmigBlue  *blue = &bcmig_shared->blues[unused];

		memset(blue, 0, sizeof(BcmigBlue));
		blue->in_use = true;
		blue->dboid = dboid;
		blue->environment_id = environment_id;
		blue->owner = owner;
	}
	return unused;
}

uint64
bcmig_source_hash(const char *schema, const char *table)
{
	return hash_combine64(hash_bytes_extended((const unsigned char *) schema, strlen(schema), 1),
						  hash_bytes_extended((const unsigned char *) table, strlen(table), 2));
}

long
bcmig_backoff(int failures, long first, long most)
{
	long		delay = first;

	for (int i = 1; i < failures && delay < most; i++)
		delay *= 2;
	delay = Min(delay, most);
	return delay / 2 + (long) (pg_prng_double(&pg_global_prng_state) * (delay / 2));
}

TimestampTz
bcmig_forward_time(void)
{
	uint64		last = pg_atomic_read_u64(&bcmig_shared->latest);
	uint64		next;

	do
		next = Max(GetCurrentTimestamp(), (TimestampTz) last + 1);
	while (!pg_atomic_compare_exchange_u64(&bcmig_shared->latest, &last, next));
	return next;
}

int64
bcmig_ms_since(TimestampTz then)
{
	TimestampTz now = GetCurrentTimestamp();

	return then > now ? PG_INT64_MAX : (now - then) / 1000;
}

/* pollers of this database poll at once */
void
bcmig_wake_pollers(void)
{
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];

		if (slot->in_use && slot->role == BCMIG_POLLER && slot->dboid == MyDatabaseId &&
			slot->proc != NULL)
			SetLatch(&slot->proc->procLatch);
	}
	LWLockRelease(bcmig_shared->lock);
}

void
bcmig_take_config(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
}

void
bcmig_pause(long ms)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, ms, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}
