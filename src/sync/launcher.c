/*-------------------------------------------------------------------------
 *
 * launcher.c
 *	  One process per cluster: starts a manager in every wanted database.
 *
 * The launcher connects to no database; it reads pg_database only.  A manager
 * that finds no extension says so in shared memory and exits; such a database
 * is looked at again once a minute, or when CREATE EXTENSION commits.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "bcmig.h"
#include "slot.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define NO_EXTENSION_RECHECK	60000	/* ms */

extern PGDLLEXPORT void bcmig_launcher_main(Datum arg);

static BackgroundWorkerHandle *handles[BCMIG_MAX_DATABASES];
static int	manager_slots[BCMIG_MAX_DATABASES];
static uint32 manager_generations[BCMIG_MAX_DATABASES];

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	bcmig_shared->launcher = NULL;
	LWLockRelease(bcmig_shared->lock);
}

/*
 * OIDs of the databases bcmig should run in, in the current memory context.
 */
static List *
wanted_databases(MemoryContext context)
{
	List	   *result = NIL;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database db = (Form_pg_database) GETSTRUCT(tuple);

		if (db->datallowconn && !db->datistemplate && bcmig_database_wanted(NameStr(db->datname)))
		{
			MemoryContext oldcontext = MemoryContextSwitchTo(context);

			result = lappend_oid(result, db->oid);
			MemoryContextSwitchTo(oldcontext);
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
	return result;
}

/* the entry of a database, made when missing; NULL when the array is full */
static BcmigDatabase *
database_entry(Oid dboid)
{
	BcmigDatabase *unused = NULL;

	for (int i = 0; i < BCMIG_MAX_DATABASES; i++)
	{
		BcmigDatabase *db = &bcmig_shared->databases[i];

		if (db->in_use && db->dboid == dboid)
			return db;
		if (!db->in_use && unused == NULL)
			unused = db;
	}
	if (unused != NULL)
	{
		LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
		memset(unused, 0, sizeof(BcmigDatabase));
		unused->in_use = true;
		unused->dboid = dboid;
		LWLockRelease(bcmig_shared->lock);
	}
	return unused;
}

/*
 * A manager an earlier launcher has left behind.  One that had not started by
 * then loses its slot, and exits when it comes.
 */
static BcmigSlot *
running_manager(Oid dboid)
{
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];

		if (!slot->in_use || slot->role != BCMIG_MANAGER || slot->dboid != dboid)
			continue;
		if (slot->proc != NULL)
			return slot;
		bcmig_slot_release(i, slot->generation);
	}
	return NULL;
}

static void
launch_manager(Oid dboid)
{
	BcmigDatabase *db = database_entry(dboid);
	TimestampTz now = bcmig_steady_time();
	int			i;
	int			index;

	if (db == NULL)
		return;
	i = db - bcmig_shared->databases;

	if (handles[i] != NULL)
	{
		pid_t		pid;
		BgwHandleStatus status = GetBackgroundWorkerPid(handles[i], &pid);

		if (status == BGWH_STARTED || status == BGWH_NOT_YET_STARTED)
			return;
		pfree(handles[i]);
		handles[i] = NULL;
		bcmig_slot_release(manager_slots[i], manager_generations[i]);
		if (db->no_extension)
			db->next_start = TimestampTzPlusMilliseconds(now, NO_EXTENSION_RECHECK);
		else
			db->next_start = TimestampTzPlusMilliseconds(now, bcmig_backoff(++db->failures, 1000, 30000));
	}
	else if (running_manager(dboid) != NULL)
		return;
	if (db->next_start > now)
		return;
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	db->no_extension = false;
	LWLockRelease(bcmig_shared->lock);

	index = bcmig_slot_launch(BCMIG_MANAGER, dboid, InvalidOid, 0, &handles[i]);
	if (index < 0)
	{
		handles[i] = NULL;
		ereport(LOG,
				(errcode(ERRCODE_BM_NO_WORKER),
				 errmsg("bcmig could not start a manager for database %u", dboid),
				 errhint("bcmig needs 1 launcher, 1 manager per database, 1 poller per blue and %d workers; raise max_worker_processes (now %d).",
						 bcmig_max_workers, max_worker_processes)));
		db->next_start = TimestampTzPlusMilliseconds(now, bcmig_backoff(++db->failures, 1000, 30000));
		return;
	}
	manager_slots[i] = index;
	manager_generations[i] = bcmig_shared->slots[index].generation;
}

void
bcmig_launcher_main(Datum arg)
{
	MemoryContext loop_context;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	bcmig_shared->launcher = MyProc;
	LWLockRelease(bcmig_shared->lock);
	before_shmem_exit(launcher_exit, (Datum) 0);
	bcmig_own_process = true;

	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	pgstat_report_appname("bcmig launcher");
	loop_context = AllocSetContextCreate(TopMemoryContext, "bcmig launcher", ALLOCSET_DEFAULT_SIZES);

	for (;;)
	{
		List	   *databases;
		ListCell   *lc;
		TimestampTz now;
		long		wait;

		CHECK_FOR_INTERRUPTS();
		bcmig_take_config();

		MemoryContextSwitchTo(loop_context);
		MemoryContextReset(loop_context);
		databases = wanted_databases(loop_context);
		MemoryContextSwitchTo(TopMemoryContext);
		foreach(lc, databases)
			launch_manager(lfirst_oid(lc));

		/* databases that are gone or no longer wanted */
		for (int i = 0; i < BCMIG_MAX_DATABASES; i++)
		{
			BcmigDatabase *db = &bcmig_shared->databases[i];

			if (!db->in_use || list_member_oid(databases, db->dboid))
				continue;
			if (handles[i] != NULL)
				TerminateBackgroundWorker(handles[i]);
			else
			{
				BcmigSlot  *slot = running_manager(db->dboid);

				if (slot != NULL)
				{
					LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
					slot->stop = true;
					if (slot->proc != NULL)
						SetLatch(&slot->proc->procLatch);
					LWLockRelease(bcmig_shared->lock);
					continue;
				}
			}
			if (handles[i] == NULL || GetBackgroundWorkerPid(handles[i], &(pid_t) {0}) == BGWH_STOPPED)
			{
				if (handles[i] != NULL)
				{
					pfree(handles[i]);
					handles[i] = NULL;
					bcmig_slot_release(manager_slots[i], manager_generations[i]);
				}
				LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
				db->in_use = false;
				LWLockRelease(bcmig_shared->lock);
			}
		}

		/* a manager that waits out its backoff may be due before long */
		now = bcmig_steady_time();
		wait = bcmig_naptime;
		for (int i = 0; i < BCMIG_MAX_DATABASES; i++)
		{
			BcmigDatabase *db = &bcmig_shared->databases[i];

			if (db->in_use && handles[i] == NULL && db->next_start > now)
				wait = Min(wait, Max(10, TimestampDifferenceMilliseconds(now, db->next_start)));
		}
		pgstat_report_activity(STATE_IDLE, "bcmig: watches databases");
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 wait, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}
