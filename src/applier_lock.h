/*-------------------------------------------------------------------------
 *
 * applier_lock.h
 *	  The applier lock of a table (rule R1).
 *
 * A heavyweight lock with a tag of our own, so that the deadlock detector sees
 * it and a crash frees it.  Workers take it at session level around a remote
 * read and the commit of its rows; a session that takes a table out takes it
 * for its transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_APPLIER_LOCK_H
#define BCMIG_APPLIER_LOCK_H

#include "miscadmin.h"
#include "storage/lock.h"

/*
 * pg_locks shows it as an advisory lock with classid = table id and objsubid =
 * 7268; those of SQL functions have objsubid 1 or 2.
 */
#define BCMIG_APPLIER_LOCKTAG(tag, table_id) \
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (table_id), 0, 7268)

/* conflicts of a table are decided by one transaction at a time */
#define BCMIG_CONFLICT_LOCKTAG(tag, table_id) \
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (table_id), 0, 7269)

/* readable views of a sync are made or dropped by one transaction at a time, which takes this before it locks a table for that */
#define BCMIG_VIEWS_LOCKTAG(tag, sync_id) \
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (sync_id), 0, 7270)

#endif							/* BCMIG_APPLIER_LOCK_H */
