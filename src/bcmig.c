/*-------------------------------------------------------------------------
 *
 * bcmig.c
 *	  Entry of the extension: GUCs, shared memory, waking of our processes.
 *
 * Shared memory is asked for only when bcmig is in shared_preload_libraries;
 * otherwise bcmig_shared stays NULL, configuration and reports still work and
 * bcmig_require_loaded() says which line is missing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "bcmig.h"
#include "check.h"
#include "fence.h"
#include "report.h"

#include "access/xact.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/shmem.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/varlena.h"

PG_MODULE_MAGIC;

char	   *bcmig_databases = NULL;
int			bcmig_max_workers = 4;
int			bcmig_max_tables = 10000;
int			bcmig_naptime = 1000;
int			bcmig_sync_batch_retention = 7 * 24 * 60;
int			bcmig_metric_interval = 60;
int			bcmig_metric_retention = 30 * 24 * 60;
char	   *bcmig_debug_points = NULL;

BcmigShared *bcmig_shared = NULL;
HTAB	   *bcmig_tables = NULL;
bool		bcmig_own_process = false;

#ifdef BCMIG_HAVE_SHMEM_REQUEST_HOOK
static shmem_request_hook_type prev_shmem_request_hook = NULL;
#endif
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

/* set by bcmig_wake_at_commit, acted on and cleared at end of transaction */
static bool wake_at_commit = false;
static bool xact_callback_installed = false;

extern PGDLLEXPORT void _PG_init(void);

BCMIG_FUNCTION(bcmig_wake);

static const char *const state_names[] = {
	"pending", "copying", "catching_up", "streaming", "suspended", "resync"
};

static const char *const job_names[] = {
	[BCMIG_JOB_NONE] = "idle",
	[BCMIG_JOB_TRAFFIC] = "traffic",
	[BCMIG_JOB_WINDOW] = "window",
	[BCMIG_JOB_SHARD] = "window shard",
	[BCMIG_JOB_RETRY] = "retry",
	[BCMIG_JOB_RESOLVE] = "resolve",
	[BCMIG_JOB_REVERSE] = "reverse",
	[BCMIG_JOB_SWEEP] = "sweep",
	[BCMIG_JOB_COPY] = "copy",
	[BCMIG_JOB_ANALYZE] = "analyze",
	[BCMIG_JOB_LOOK] = "look at schema",
	[BCMIG_JOB_MAKE] = "make tables",
	[BCMIG_JOB_CHECK] = "validate",
	[BCMIG_JOB_RULES] = "check rules",
	[BCMIG_JOB_REPAIR] = "repair"
};

const char *
bcmig_state_name(BcmigTableState state)
{
	return state_names[state];
}

BcmigTableState
bcmig_state_value(const char *name)
{
	for (int i = 0; i < lengthof(state_names); i++)
	{
		if (strcmp(state_names[i], name) == 0)
			return (BcmigTableState) i;
	}
	elog(ERROR, "unknown table state \"%s\"", name);
	return BCMIG_PENDING;		/* keep compiler quiet */
}

const char *
bcmig_job_name(BcmigJobKind kind)
{
	return job_names[kind];
}

static bool
check_databases(char **newval, void **extra, GucSource source)
{
	char	   *copy = pstrdup(*newval);
	List	   *names = NIL;
	bool		ok = strcmp(copy, "*") == 0 ||
		SplitIdentifierString(copy, ',', &names);

	if (!ok)
		GUC_check_errdetail("Expected a comma-separated list of database names, or * for all.");
	else if (list_length(names) > BCMIG_MAX_DATABASES)
	{
		GUC_check_errdetail("At most %d databases can be named.", BCMIG_MAX_DATABASES);
		ok = false;
	}
	list_free(names);
	pfree(copy);
	return ok;
}

/*
 * Is this one of the databases bcmig should run in?
 */
bool
bcmig_database_wanted(const char *name)
{
	List	   *names;
	ListCell   *lc;

	if (strcmp(bcmig_databases, "*") == 0)
		return true;
	if (SplitIdentifierString(pstrdup(bcmig_databases), ',', &names))
	{
		foreach(lc, names)
		{
			if (strcmp((char *) lfirst(lc), name) == 0)
				return true;
		}
	}
	return false;
}

static Size
shared_size(void)
{
	return add_size(MAXALIGN(sizeof(BcmigShared)),
					hash_estimate_size(bcmig_max_tables, sizeof(BcmigTable)));
}

static void
request_shmem(void)
{
#ifdef BCMIG_HAVE_SHMEM_REQUEST_HOOK
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
#endif
	RequestAddinShmemSpace(shared_size());
	RequestNamedLWLockTranche("bcmig", 1);
}

static void
startup_shmem(void)
{
	bool		found;
	HASHCTL		info;

	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();

	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	bcmig_shared = ShmemInitStruct("bcmig", sizeof(BcmigShared), &found);
	if (!found)
	{
		memset(bcmig_shared, 0, sizeof(BcmigShared));
		bcmig_shared->lock = &(GetNamedLWLockTranche("bcmig"))->lock;
		pg_atomic_init_u64(&bcmig_shared->latest, 0);
	}
	memset(&info, 0, sizeof(info));
	info.keysize = sizeof(BcmigTableKey);
	info.entrysize = sizeof(BcmigTable);
	bcmig_tables = ShmemInitHash("bcmig tables", bcmig_max_tables, bcmig_max_tables,
								 &info, HASH_ELEM | HASH_BLOBS | HASH_FIXED_SIZE);
	LWLockRelease(AddinShmemInitLock);
}

void
_PG_init(void)
{
	BackgroundWorker worker;

	DefineCustomStringVariable("bcmig.databases",
							   "Databases in which bcmig runs.",
							   "Comma-separated names, or * for every database that has the extension.",
							   &bcmig_databases, "*",
							   PGC_SIGHUP, 0, check_databases, NULL, NULL);
	DefineCustomStringVariable("bcmig.debug_points",
							   "Named points at which bcmig waits for an advisory lock.",
							   "For tests that force an order; comma-separated.",
							   &bcmig_debug_points, "",
							   PGC_SUSET, GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL,
							   NULL, NULL, NULL);
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("bcmig.max_tables",
								"Most tables of running syncs in all databases together.",
								"Each takes about 300 bytes of shared memory.",
								&bcmig_max_tables, 10000, 100, 1000000,
								PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("bcmig.max_workers",
							"Most workers per database that copy and apply.",
							"Launcher, one manager per database and one poller per blue come on top; all count against max_worker_processes.",
							&bcmig_max_workers, 4, 1, 64,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("bcmig.metric_interval",
							"Time a row of bcmig.metric stands for.",
							NULL,
							&bcmig_metric_interval, 60, 1, 300,
							PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("bcmig.metric_retention",
							"How long rows of bcmig.metric are kept.",
							"0 keeps them for ever.",
							&bcmig_metric_retention, 30 * 24 * 60, 0, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
	DefineCustomIntVariable("bcmig.naptime",
							"Longest sleep of launcher and manager when nothing wakes them.",
							NULL,
							&bcmig_naptime, 1000, 10, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("bcmig.sync_batch_retention",
							"How long finished rows of bcmig.sync_batch are kept.",
							"0 keeps them for ever.",
							&bcmig_sync_batch_retention, 7 * 24 * 60, 0, INT_MAX / 2,
							PGC_SIGHUP, GUC_UNIT_MIN, NULL, NULL, NULL);
	MarkGUCPrefixReserved("bcmig");

	/* configuration works without being preloaded, and asks all rooms */
	bcmig_metrics_init();
	bcmig_check_init();
	bcmig_switch_init(process_shared_preload_libraries_in_progress);
	if (!process_shared_preload_libraries_in_progress)
		return;

#ifdef BCMIG_HAVE_SHMEM_REQUEST_HOOK
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = request_shmem;
#else
	request_shmem();
#endif
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = startup_shmem;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 5;
	strlcpy(worker.bgw_library_name, "bcmig", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "bcmig_launcher_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "bcmig launcher", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "bcmig launcher", BGW_MAXLEN);
	RegisterBackgroundWorker(&worker);
}

/*
 * For functions that need the background processes.
 */
void
bcmig_require_loaded(void)
{
	if (bcmig_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_NOT_LOADED),
				 errmsg("bcmig is not loaded by the server"),
				 errdetail("Its background processes start from shared_preload_libraries."),
				 errhint("Add the line  shared_preload_libraries = 'bcmig'  to postgresql.conf (or append bcmig to the list that is there) and restart the server.")));
}

/*
 * Set the latch of the manager of a database, if it runs.  No lock held on
 * entry.
 */
void
bcmig_wake_manager(Oid dboid)
{
	PGPROC	   *proc = NULL;

	if (bcmig_shared == NULL)
		return;
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];

		if (slot->in_use && slot->role == BCMIG_MANAGER && slot->dboid == dboid)
			proc = slot->proc;
	}
	/* a PGPROC never goes away; at worst the latch of a stranger is set */
	if (proc != NULL)
		SetLatch(&proc->procLatch);
	LWLockRelease(bcmig_shared->lock);
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event != XACT_EVENT_COMMIT && event != XACT_EVENT_ABORT)
		return;
	if (wake_at_commit && event == XACT_EVENT_COMMIT)
	{
		bool		no_manager = true;

		LWLockAcquire(bcmig_shared->lock, LW_SHARED);
		for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
		{
			BcmigSlot  *slot = &bcmig_shared->slots[i];

			if (slot->in_use && slot->dboid == MyDatabaseId && slot->proc != NULL &&
				slot->role == BCMIG_MANAGER)
			{
				SetLatch(&slot->proc->procLatch);
				no_manager = false;
			}
		}
		LWLockRelease(bcmig_shared->lock);

		/* the launcher may have put this database aside: no extension then */
		if (no_manager)
		{
			LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
			for (int i = 0; i < BCMIG_MAX_DATABASES; i++)
			{
				BcmigDatabase *db = &bcmig_shared->databases[i];

				if (db->in_use && db->dboid == MyDatabaseId && db->no_extension)
				{
					db->no_extension = false;
					db->next_start = 0;
				}
			}
			if (bcmig_shared->launcher != NULL)
				SetLatch(&bcmig_shared->launcher->procLatch);
			LWLockRelease(bcmig_shared->lock);
		}
	}
	wake_at_commit = false;
}

/*
 * Wake the manager of this database, or the launcher when there is none, when
 * the current transaction commits.
 */
void
bcmig_wake_at_commit(void)
{
	if (bcmig_shared == NULL)
		return;
	if (!xact_callback_installed)
	{
		RegisterXactCallback(xact_callback, NULL);
		xact_callback_installed = true;
	}
	wake_at_commit = true;
}

/*
 * SQL: bcmig.wake() returns void.  Called by the install script so that the
 * launcher looks at this database at once.
 */
Datum
bcmig_wake(PG_FUNCTION_ARGS)
{
	bcmig_wake_at_commit();
	PG_RETURN_VOID();
}

/*
 * A named place where tests can stop the engine: when "name" is listed in
 * bcmig.debug_points, take and release advisory lock (7268, hashtext(name)).
 */
void
bcmig_debug_point(const char *name)
{
	char	   *copy;
	List	   *names;
	ListCell   *lc;
	bool		listed = false;

	if (bcmig_debug_points == NULL || bcmig_debug_points[0] == '\0')
		return;
	copy = pstrdup(bcmig_debug_points);
	if (SplitIdentifierString(copy, ',', &names))
	{
		foreach(lc, names)
			listed |= strcmp((char *) lfirst(lc), name) == 0;
	}
	if (listed)
	{
		LOCKTAG		tag;
		int			timeout = LockTimeout;

		SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 7268,
							 hash_bytes((const unsigned char *) name, strlen(name)), 2);
		LockTimeout = 0;
		(void) LockAcquire(&tag, ExclusiveLock, true, false);
		(void) LockRelease(&tag, ExclusiveLock, true);
		LockTimeout = timeout;
	}
	pfree(copy);
}
