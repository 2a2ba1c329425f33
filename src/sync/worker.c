/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  A worker: one of a database's pool, running as the owner of a sync.
 *
 * The manager writes a job into the worker's slot and sets its latch; the
 * worker runs it, empties the job and wakes the manager.  Its connection to
 * blue stays open from job to job (postgres_fdw keeps it).
 *
 * An error that came from blue, or while a job held the applier lock across
 * transactions, ends the process: the wrapper may have leaked its connection,
 * and exit frees every session lock.  What went wrong is recorded first, in a
 * transaction of its own, and decides when the table is tried again.
 *
 * Memory: a context per job, reset after it; what is configured for a table is
 * kept in a context of its own until configuration changes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker.h"

#include "access/xact.h"
#include "applier_lock.h"
#include "configure.h"
#include "catalog/namespace.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "remote.h"
#include "shard.h"
#include "slot.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "throttle.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

extern PGDLLEXPORT void bcmig_worker_main(Datum arg);

#define LOCK_TIMEOUT		"10s"
#define SAME_ERROR_AGAIN	300000	/* ms until the same error of a table is audited again */
#define OTHER_ERROR_AGAIN	10000	/* ms between two errors of a table in the audit log */
#define DOUBT_RETRIES		5		/* more of them while blue's schema is looked at */
#define FETCH_BYTES			(1024 * 1024)	/* wanted per fetch */
#define MOST_FETCH_ROWS		10000
#define WINDOW_FETCH_ROWS	1000
#define GENTLE				4		/* what is read at a time of a blue in trouble: a fourth */
#define LEAST_GENTLE		100		/* ms */
#define HELD_LOOK			500		/* ms between two looks of a worker at what held it back */

/* a table this worker has worked on */
typedef struct KnownTable
{
	int			table_id;		/* must be first */
	BcmigWork  *work;
} KnownTable;

const BcmigCheckRoom *bcmig_check_room = NULL;

static HTAB *known_tables = NULL;
static MemoryContext known_context;
static bool config_changed = false;
static Oid	sync_table_relid;	/* what bcmig_config_changed() invalidates */
static int	held_by = -1;		/* index of the blue for whose sake the last job ended early */

bool
bcmig_same_mapping(const BcmigTableInfo *table)
{
	BcmigCatalogScope scope;
	bool		same;

	bcmig_catalog_begin(&scope);
	same = bcmig_sql("SELECT 1 FROM bcmig.sync_table WHERE table_id = $1 AND mapping <> $2",
					 "ii", table->table_id, table->mapping) == 0;
	bcmig_catalog_end(&scope);
	return same;
}

/*
 * Who changes a table's transforms or row filter holds its applier lock until
 * that has committed, so with the lock in hand the mapping stands.  A job that
 * was begun with the one before must not write; the lock goes with its process.
 */
static void
check_mapping(const BcmigWork *work)
{
	bool		inside = IsTransactionState();
	bool		same;

	AcceptInvalidationMessages();
	if (!config_changed)
		return;
	if (!inside)
		bcmig_start_transaction();
	same = bcmig_same_mapping(work->table);
	if (!inside)
		bcmig_end_transaction();
	if (!same)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("the mapping of %s has changed since this job began", work->table->target_name),
				 errhint("Nothing is to be done: the table is read again with the new one.")));
}

void
bcmig_applier_lock(const BcmigWork *work, LOCKMODE mode)
{
	LOCKTAG		tag;

	BCMIG_APPLIER_LOCKTAG(tag, work->table->table_id);
	(void) LockAcquire(&tag, mode, true, false);
	check_mapping(work);
}

/* without waiting */
bool
bcmig_applier_try_lock(const BcmigWork *work, LOCKMODE mode)
{
	LOCKTAG		tag;

	BCMIG_APPLIER_LOCKTAG(tag, work->table->table_id);
	if (LockAcquire(&tag, mode, true, true) == LOCKACQUIRE_NOT_AVAIL)
		return false;
	check_mapping(work);
	return true;
}

void
bcmig_applier_unlock(const BcmigWork *work, LOCKMODE mode)
{
	LOCKTAG		tag;

	BCMIG_APPLIER_LOCKTAG(tag, work->table->table_id);
	(void) LockRelease(&tag, mode, true);
}

void
bcmig_hear_blue(BcmigWork *work)
{
	BcmigCatalogScope scope;
	bool		sent;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	sent = bcmig_sql("SELECT 1 FROM bcmig.reverse_sent WHERE table_id = $1", "i", work->table->table_id) > 0;
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	if (sent)
		bcmig_switch_room->hear_blue(work);
}

/*
 * "row_bytes": the widest row, 0 when not known.  Many rows a fetch where they
 * are narrow; a wrapper holds a whole fetch in memory, so unbounded columns
 * whose sizes nobody asked for come one by one.
 */
void
bcmig_read(BcmigWork *work, const char *sql, int64 row_bytes, BcmigReceiver *receiver)
{
	int64		rows;

	if (row_bytes > 0)
		rows = Max(1, Min(MOST_FETCH_ROWS, FETCH_BYTES / row_bytes));
	else
		rows = work->unbounded ? 1 : WINDOW_FETCH_ROWS;
	bcmig_remote_run(work->feed, sql, rows, &receiver->pub);
}

void
bcmig_check_same_blue(const BcmigReading *reading, const BcmigSigns *signs)
{
	if (!signs->has_incarnation || signs->incarnation_changed ||
		signs->incarnation != reading->incarnation)
		ereport(ERROR,
				(errcode(ERRCODE_BM_INCARNATION),
				 errmsg("blue restarted or changed while it was read"),
				 errhint("The poller decides what has to be read again; bcmig tries again by itself.")));
}

bool
bcmig_stopping(const BcmigWork *work)
{
	BcmigTable *live;
	bool		stopping;

	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	live = bcmig_live_table(work->table->table_id);
	stopping = live == NULL || live->stopping || bcmig_slot->stop;
	LWLockRelease(bcmig_shared->lock);
	return stopping;
}

bool
bcmig_held_back(const BcmigWork *work)
{
	BcmigTable *live;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(work->table->table_id);
	if (live != NULL && live->blue >= 0 && bcmig_throttled(&bcmig_shared->blues[live->blue]))
		held_by = live->blue;
	LWLockRelease(bcmig_shared->lock);
	return held_by >= 0;
}

int64
bcmig_gentle_ms(const BcmigWork *work, int64 ms)
{
	BcmigTable *live;
	bool		gentle;

	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	live = bcmig_live_table(work->table->table_id);
	gentle = live != NULL && live->blue >= 0 && bcmig_throttled_lately(&bcmig_shared->blues[live->blue]);
	LWLockRelease(bcmig_shared->lock);
	return gentle ? Max(ms / GENTLE, Min(ms, LEAST_GENTLE)) : ms;
}

/* an idle worker that was held back: is it still so? */
static void
look_if_held_back(void)
{
	bool		still;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	still = bcmig_shared->blues[held_by].in_use && bcmig_throttled(&bcmig_shared->blues[held_by]);
	LWLockRelease(bcmig_shared->lock);
	if (still)
		return;
	held_by = -1;
	bcmig_slot_phase("idle", NULL, 0);
}

void
bcmig_log_batch(const BcmigWork *work, const char *kind, TimestampTz started,
				const char *status, int64 rows_read, const BcmigApplied *applied,
				const BcmigStored *from, const BcmigReading *to, const char *error)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.sync_batch (sync_id, table_id, kind, started_at, finished_at, status, "
			  " rows_read, rows_written, rows_deleted, rows_quarantined, from_position, to_position, error) "
			  "VALUES ($1, $2, $3, $4, clock_timestamp(), $5, $6, $7, $8, $9, nullif($10, -1), nullif($11, -1), $12)",
			  "iitztIIIIIIt", work->table->sync_id, work->table->table_id, kind, started, status,
			  rows_read, applied ? applied->written : (int64) 0,
			  applied ? applied->deleted : (int64) 0, applied ? applied->quarantined : (int64) 0,
			  from ? from->position : (int64) -1, to ? to->horizon : (int64) -1, error);
	bcmig_catalog_end(&scope);
}

void
bcmig_count_rows(const BcmigWork *work, const BcmigApplied *applied, int64 bytes)
{
	BcmigTable *live;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(work->table->table_id);
	if (live != NULL)
	{
		live->tally.written += applied->written;
		live->tally.deleted += applied->deleted;
		live->tally.failed += applied->quarantined;
		live->tally.bytes += bytes;
	}
	LWLockRelease(bcmig_shared->lock);
}

static void
count_error(int table_id)
{
	BcmigTable *live;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(table_id);
	if (live != NULL)
		live->tally.errors++;
	LWLockRelease(bcmig_shared->lock);
}

static bool
has_unbounded_columns(const BcmigTableInfo *table)
{
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (bcmig_unbounded_type(table->columns[i].source_type))
			return true;
	}
	return false;
}

BcmigWork *
bcmig_load_work(int table_id, MemoryContext context)
{
	MemoryContext oldcontext;
	BcmigWork  *work;

	bcmig_start_transaction();
	oldcontext = MemoryContextSwitchTo(context);
	work = palloc0(sizeof(BcmigWork));
	work->table = bcmig_load_table(table_id);
	if (work->table != NULL)
	{
		work->feed = get_relname_relid(work->table->feed, get_namespace_oid("bcmig", false));
		if (!OidIsValid(work->feed))
			ereport(ERROR,
					(errcode(ERRCODE_BM_FEED_SHAPE),
					 errmsg("feed \"%s\" of %s is gone", work->table->feed, work->table->target_name),
					 errhint("Remove the table from the sync and add it again.")));
		work->dialect = bcmig_dialect_of_server(GetForeignTable(work->feed)->serverid);
		work->unbounded = has_unbounded_columns(work->table);
	}
	MemoryContextSwitchTo(oldcontext);
	bcmig_end_transaction();
	return work->table != NULL ? work : NULL;
}

/* the same, kept until configuration changes */
static BcmigWork *
open_work(int table_id, int64 request_id)
{
	KnownTable *known;
	bool		found;

	if (known_tables == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(int);
		ctl.entrysize = sizeof(KnownTable);
		ctl.hcxt = known_context;
		known_tables = hash_create("bcmig tables", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	}
	known = hash_search(known_tables, &table_id, HASH_ENTER, &found);
	if (!found)
		known->work = NULL;
	if (known->work == NULL)
		known->work = bcmig_load_work(table_id, known_context);
	if (known->work != NULL)
		known->work->request_id = request_id;
	return known->work;
}

static void
settle_request(int64 request_id)
{
	BcmigCatalogScope scope;

	if (request_id == 0)
		return;
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.request WHERE request_id = $1", "I", request_id);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

static void
run_job(BcmigJob *job)
{
	BcmigWork  *works[BCMIG_GROUP];
	int			n = 0;

	/*
	 * Between jobs only: what one table's open_work returned must not go away
	 * while the next is opened.  Cleared before loading, so that a change
	 * meanwhile is not lost.  An idle worker has not been told yet what was
	 * committed while it slept.
	 */
	AcceptInvalidationMessages();
	if (config_changed)
	{
		config_changed = false;
		MemoryContextReset(known_context);
		known_tables = NULL;
		bcmig_apply_forget();
	}
	if (job->kind == BCMIG_JOB_MAKE)
	{
		bcmig_run_make(job->sync_id, &job->table_id);
		return;
	}
	if (job->kind == BCMIG_JOB_LOOK)
	{
		bcmig_run_look(job->sync_id);
		return;
	}
	if (job->kind == BCMIG_JOB_RULES)
	{
		bcmig_check_room->rules(job->sync_id);
		return;
	}
	if (job->kind == BCMIG_JOB_TRAFFIC)
	{
		bcmig_slot_phase("traffic", NULL, 0);
		bcmig_switch_room->traffic(job->sync_id);
		return;
	}
	if (job->kind == BCMIG_JOB_REVERSE)
	{
		bcmig_slot_phase("reverse", NULL, 0);
		bcmig_switch_room->reverse(job->sync_id);
		return;
	}
	for (int i = 0; i < job->ntables; i++)
	{
		job->table_id = job->tables[i];
		works[n] = open_work(job->table_id, job->request_id);
		if (works[n] != NULL)
			n++;
	}
	if (n > 0)
	{
		switch (job->kind)
		{
			case BCMIG_JOB_WINDOW:
				bcmig_run_windows(works, n, false);
				break;
			case BCMIG_JOB_SHARD:
				bcmig_run_shards(works[0]);
				break;
			case BCMIG_JOB_COPY:
				bcmig_run_copy(works[0]);
				break;
			case BCMIG_JOB_ANALYZE:
				bcmig_run_analyze(works[0]);
				break;
			case BCMIG_JOB_SWEEP:
				(void) bcmig_run_sweep(works[0]);
				break;
			case BCMIG_JOB_RETRY:
				bcmig_run_retry(works[0]);
				break;
			case BCMIG_JOB_RESOLVE:
				bcmig_run_resolve(works[0]);
				break;
			case BCMIG_JOB_CHECK:
				bcmig_check_room->check(works[0]);
				break;
			case BCMIG_JOB_REPAIR:
				if (!bcmig_check_room->repair(works[0]))
					return;
				break;
			case BCMIG_JOB_RULES:
			case BCMIG_JOB_TRAFFIC:
			case BCMIG_JOB_REVERSE:
			case BCMIG_JOB_LOOK:
			case BCMIG_JOB_MAKE:
			case BCMIG_JOB_NONE:
				break;
		}
	}
	settle_request(job->request_id);
}

/*
 * Nothing that was loaded for the big window goes away here, so what is
 * configured for these tables is loaded anew; only kept statements may be old.
 * When one of these windows fails, so does the big one, and is repeated: the
 * manager gives only tables that did not fail before.
 */
void
bcmig_run_aside(void)
{
	BcmigJob   *aside = &bcmig_slot->aside;
	BcmigWork  *works[BCMIG_GROUP];
	MemoryContext context;
	MemoryContext oldcontext;
	int			big = bcmig_slot->job.table_id;
	char		target[BCMIG_TEXT];
	int			n = 0;
	static bool running = false;

	/* what is done aside may have to be halved, and comes here too */
	if (running)
		return;
	if (bcmig_slot->takes_aside)
		bcmig_debug_point("between_transactions");
	if (aside->kind == BCMIG_JOB_NONE)
		return;
	running = true;				/* an ERROR ends the process */
	context = AllocSetContextCreate(CurrentMemoryContext, "bcmig aside", ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	strlcpy(target, bcmig_slot->target, sizeof(target));
	AcceptInvalidationMessages();
	if (config_changed)
		bcmig_apply_forget();
	for (int i = 0; i < aside->ntables; i++)
	{
		works[n] = bcmig_load_work(aside->tables[i], context);
		if (works[n] != NULL)
			n++;
	}
	if (n > 0)
		bcmig_run_windows(works, n, true);

	running = false;
	bcmig_slot->job.table_id = big;
	bcmig_slot_phase("window", target, 0);
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	bcmig_aside_ends(bcmig_slot);
	LWLockRelease(bcmig_shared->lock);
	bcmig_wake_manager(MyDatabaseId);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}

/*
 * A job failed.  Write down why and decide when, and whether, the table is
 * tried again.  Runs after the abort, in its own transaction.
 */
static void
record_failure(const BcmigJob *job, const ErrorData *edata, bool from_blue)
{
	BcmigTableInfo *table;
	BcmigTable *live;
	BcmigCatalogScope scope;
	int			category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);
	bool		connection = category == ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_EXCEPTION) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_OPERATOR_INTERVENTION) ||
		(from_blue && category == ERRCODE_TO_CATEGORY(ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION)) ||
		edata->sqlerrcode == ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION ||
		edata->sqlerrcode == ERRCODE_TOO_MANY_CONNECTIONS;
	bool		passing = connection ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_T_R_SERIALIZATION_FAILURE) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_LOCK_NOT_AVAILABLE) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_INSUFFICIENT_RESOURCES) ||
		edata->sqlerrcode == ERRCODE_BM_INCARNATION || edata->sqlerrcode == ERRCODE_BM_WRONG_STATE;
	bool		vanished = from_blue && edata->sqlerrcode == ERRCODE_UNDEFINED_TABLE;
	bool		doubtful = from_blue && !passing && !vanished &&
		(edata->sqlerrcode == ERRCODE_UNDEFINED_COLUMN || category == ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION));
	int			failures = 0;
	bool		suspend = false;

	/* of no table: blue as a whole is asked again later */
	if (job->kind == BCMIG_JOB_LOOK)
	{
		bcmig_look_failed(job->sync_id, edata);
		return;
	}

	/* nor does it have to do with what streams */
	if (job->kind == BCMIG_JOB_TRAFFIC)
	{
		bcmig_switch_room->traffic_failed(job, edata);
		return;
	}
	if (job->kind == BCMIG_JOB_REVERSE)
	{
		bcmig_switch_room->reverse_failed(job, edata);
		return;
	}

	/* who has the window raises it and says so */
	if (job->kind == BCMIG_JOB_SHARD)
	{
		LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
		bcmig_shard_fails(&bcmig_slot->job, edata->sqlerrcode, edata->message);
		LWLockRelease(bcmig_shared->lock);
		return;
	}

	/* a table that cannot be proved goes on streaming */
	if (job->kind == BCMIG_JOB_CHECK || job->kind == BCMIG_JOB_RULES || job->kind == BCMIG_JOB_REPAIR)
	{
		bcmig_check_room->failed(job, edata, passing);
		return;
	}
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(job->table_id);
	if (live != NULL)
	{
		failures = ++live->failures;
		live->not_before = TimestampTzPlusMilliseconds(bcmig_steady_time(),
													   bcmig_backoff(failures, 200, 30000));
		/* has blue's schema changed?  The poller looks at once */
		if (live->blue >= 0 && (vanished || doubtful))
			bcmig_shared->blues[live->blue].schema_doubted = true;
	}
	LWLockRelease(bcmig_shared->lock);

	bcmig_start_transaction();
	table = bcmig_load_table(job->table_id);
	if (table != NULL)
	{
		char	   *message = bcmig_error_text(edata, true);
		bool		news;
		BcmigWork	work = {.table = table};

		bcmig_catalog_begin(&scope);

		bcmig_sql("UPDATE bcmig.table_state SET last_error = $2, last_error_at = clock_timestamp() WHERE table_id = $1",
				  "it", table->table_id, message);

		/* what goes on failing is not written down each time */
		news = bcmig_sql("SELECT FROM bcmig.audit_log WHERE kind = 'error' AND sync_name = $1 AND target = $2 "
						 "AND at > clock_timestamp() - CASE WHEN detail = $3 THEN $4 ELSE $5 END * interval '1 ms' "
						 "AND at > clock_timestamp() - $4 * interval '1 ms' LIMIT 1",
						 "tttii", table->sync_name, table->target_name, message, SAME_ERROR_AGAIN, OTHER_ERROR_AGAIN) == 0;
		if (news && !connection)
			bcmig_audit("error", table->sync_name, table->target_name, bcmig_job_name(job->kind), message);
		bcmig_catalog_end(&scope);
		if (!passing && job->kind != BCMIG_JOB_MAKE)
			bcmig_log_batch(&work, job->kind == BCMIG_JOB_COPY ? "copy" :
							job->kind == BCMIG_JOB_SWEEP ? "sweep" :
							job->kind == BCMIG_JOB_RETRY ? "retry" :
							job->kind == BCMIG_JOB_RESOLVE ? "resolve" : "window",
							GetCurrentTimestamp(), "Failed", 0, NULL, NULL, NULL, message);
		suspend = vanished || (!passing && failures > table->max_retries + (doubtful ? DOUBT_RETRIES : 0));
		if (suspend)
			bcmig_state_suspend(table, vanished ? psprintf("the source table vanished: %s", message) : message);
	}
	bcmig_end_transaction();
	if (suspend)
		bcmig_publish_state(job->table_id, BCMIG_SUSPENDED);
}

static void
finish_job(void)
{
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	bcmig_job_ends(bcmig_slot);
	bcmig_slot->jobs_done++;
	LWLockRelease(bcmig_shared->lock);
	bcmig_slot_phase(held_by >= 0 ? "throttled" : "idle", NULL, 0);
	bcmig_wake_manager(MyDatabaseId);
}

static void
error_context(void *arg)
{
	errcontext("bcmig job %s of table %d", bcmig_job_name(bcmig_slot->job.kind),
			   bcmig_slot->job.table_id);
}

static void
config_invalidated(Datum arg, Oid relid)
{
	if (relid == sync_table_relid || !OidIsValid(relid))
		config_changed = true;
}

void
bcmig_worker_main(Datum arg)
{
	MemoryContext job_context;

	bcmig_process_start("bcmig worker");

	/*
	 * A worker writes only what it has read from blue, as the apply worker of
	 * logical replication: no ordinary triggers, no foreign key checks.
	 */
	SetConfigOption("session_replication_role", "replica", PGC_SUSET, PGC_S_OVERRIDE);

	/* a table somebody holds locked must not cost the pool a worker for long */
	SetConfigOption("lock_timeout", LOCK_TIMEOUT, PGC_SUSET, PGC_S_OVERRIDE);
	bcmig_start_transaction();
	sync_table_relid = get_relname_relid("sync_table", get_namespace_oid("bcmig", false));
	bcmig_end_transaction();
	CacheRegisterRelcacheCallback(config_invalidated, (Datum) 0);
	known_context = AllocSetContextCreate(TopMemoryContext, "bcmig tables", ALLOCSET_DEFAULT_SIZES);
	job_context = AllocSetContextCreate(TopMemoryContext, "bcmig job", ALLOCSET_DEFAULT_SIZES);
	bcmig_slot_phase("idle", NULL, 0);
	bcmig_wake_manager(MyDatabaseId);

	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		bcmig_take_config();
		if (bcmig_slot->job.kind == BCMIG_JOB_NONE)
		{
			if (bcmig_slot->stop)
				proc_exit(0);
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_EXIT_ON_PM_DEATH | (held_by >= 0 ? WL_TIMEOUT : 0), HELD_LOOK, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			if (held_by >= 0)
				look_if_held_back();
			continue;
		}
		held_by = -1;

		MemoryContextSwitchTo(job_context);
		MemoryContextReset(job_context);
		PG_TRY();
		{
			ErrorContextCallback callback;

			callback.callback = error_context;
			callback.arg = NULL;
			callback.previous = error_context_stack;
			error_context_stack = &callback;
			run_job(&bcmig_slot->job);
			error_context_stack = callback.previous;
		}
		PG_CATCH();
		{
			ErrorData  *edata;

			MemoryContextSwitchTo(job_context);
			edata = CopyErrorData();
			EmitErrorReport();
			FlushErrorState();
			AbortCurrentTransaction();
			MemoryContextSwitchTo(job_context);
			bcmig_slot_error(edata->message);
			count_error(bcmig_slot->job.table_id);
			record_failure(&bcmig_slot->job, edata, bcmig_remote_failed(edata));
			finish_job();
			proc_exit(1);
		}
		PG_END_TRY();
		finish_job();
		pgstat_report_stat(false);
	}
}
