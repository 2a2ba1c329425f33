/*-------------------------------------------------------------------------
 *
 * writers.c
 *	  Waiting for those who write to tables without standing in their way.
 *
 * No table is locked: the locks that are there are looked at, and the
 * transactions that hold them waited for, one after the other.  Whoever comes
 * later is not waited for; he has to be kept off by other means before.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "writers.h"

#include "access/xact.h"
#include "catalog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "storage/sinvaladt.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define CHUNK_RELATIONS		200 /* whose writers are collected at a time */

static void
wait_for(void *vxid)
{
	(void) VirtualXactLock(*(VirtualTransactionId *) vxid, true);
}

/*
 * Has this transaction ended by "deadline"?  The wait is one for its lock, which
 * pg_locks shows and the deadlock detector sees.
 */
static bool
has_ended(VirtualTransactionId vxid, TimestampTz deadline)
{
	int			timeout = LockTimeout;
	long		left;
	ErrorData  *error;

	if (VirtualXactLock(vxid, false))
		return true;
	left = TimestampDifferenceMilliseconds(bcmig_steady_time(), deadline);
	if (left <= 0)
		return false;
	LockTimeout = Min(left, INT_MAX);
	error = bcmig_try(wait_for, &vxid);
	LockTimeout = timeout;
	if (error != NULL && error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ReThrowError(error);
	return error == NULL;
}

/*
 * VACUUM, ANALYZE by autovacuum and CREATE INDEX CONCURRENTLY may hold their
 * locks for hours, and write no row.
 */
static bool
writes_no_rows(VirtualTransactionId vxid)
{
	PGPROC	   *proc = BCMIG_VXID_PROC(vxid);

	return proc != NULL && BCMIG_PROC_LXID(proc) == vxid.localTransactionId &&
		(proc->statusFlags & (PROC_IS_AUTOVACUUM | PROC_IN_VACUUM | PROC_IN_SAFE_IC)) != 0;
}

List *
bcmig_wait_for_writers(List *relations, TimestampTz deadline)
{
	List	   *left = NIL;
	int			from = 0;

	while (from < list_length(relations))
	{
		List	   *writers = NIL;
		ListCell   *lc;

		for (int to = Min(from + CHUNK_RELATIONS, list_length(relations)); from < to; from++)
		{
			LOCKTAG		tag;
			VirtualTransactionId *holders;

			CHECK_FOR_INTERRUPTS();
			SET_LOCKTAG_RELATION(tag, MyDatabaseId, list_nth_oid(relations, from));
			/* ShareLock is the weakest that no writer lets in; it is not taken */
			holders = GetLockConflicts(&tag, ShareLock, NULL);
			for (; VirtualTransactionIdIsValid(*holders); holders++)
			{
				bool		known = writes_no_rows(*holders);

				foreach(lc, writers)
					known |= VirtualTransactionIdEquals(*(VirtualTransactionId *) lfirst(lc), *holders);
				if (!known)
				{
					VirtualTransactionId *writer = palloc(sizeof(VirtualTransactionId));

					*writer = *holders;
					writers = lappend(writers, writer);
				}
			}
		}
		foreach(lc, writers)
		{
			if (!has_ended(*(VirtualTransactionId *) lfirst(lc), deadline))
				left = lappend(left, lfirst(lc));
		}
	}
	return left;
}

/* as pg_locks shows them */
static Datum
writers_array(List *writers)
{
	Datum	   *texts = palloc(sizeof(Datum) * Max(list_length(writers), 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, writers)
	{
		VirtualTransactionId *vxid = lfirst(lc);

		texts[n++] = CStringGetTextDatum(psprintf("%d/%u", BCMIG_VXID_NUMBER(*vxid), vxid->localTransactionId));
	}
	return PointerGetDatum(construct_array(texts, n, TEXTOID, -1, false, TYPALIGN_INT));
}

char *
bcmig_writers_text(List *writers)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *text;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT string_agg(w, '; ' ORDER BY w) FROM ("
			  "SELECT DISTINCT CASE WHEN l.pid IS NOT NULL THEN format('pid %s (%s%s, query of %s)', l.pid, coalesce('user ' || quote_ident(a.usename), a.backend_type), "
			  "  coalesce(', ' || nullif(a.application_name, ''), ''), to_char(a.query_start, 'YYYY-MM-DD HH24:MI:SS')) "
			  " ELSE format('prepared transaction %L of user %I', p.gid, p.owner) END AS w "
			  "FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
			  "LEFT JOIN pg_locks x ON l.pid IS NULL AND x.virtualtransaction = l.virtualtransaction AND x.locktype = 'transactionid' AND x.mode = 'ExclusiveLock' "
			  "LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid "
			  "WHERE l.virtualtransaction = ANY ($1) AND l.locktype = 'relation') w", "k", writers_array(writers));
	MemoryContextSwitchTo(caller);
	text = bcmig_get_text(0, 1);
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	return text != NULL ? text : "somebody who has just ended";
}

void
bcmig_end_writers(List *writers)
{
	Oid			type = TEXTARRAYOID;
	Datum		value = writers_array(writers);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args("SELECT pg_catalog.pg_terminate_backend(l.pid) FROM (SELECT DISTINCT pid FROM pg_catalog.pg_locks "
							  "WHERE virtualtransaction OPERATOR(pg_catalog.=) ANY ($1) AND pid IS NOT NULL) l",
							  1, &type, &value, NULL, false, 0) < 0)
		elog(ERROR, "pg_terminate_backend failed");
	SPI_finish();
}
