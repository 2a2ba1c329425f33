/*-------------------------------------------------------------------------
 *
 * poller.h
 *	  One reading of blue, and whether blue is still the same database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_POLLER_H
#define BCMIG_POLLER_H

#include "bcmig.h"
#include "executor/tuptable.h"

typedef struct BcmigPoll
{
	TimestampTz clock;
	int64		horizon;
	int64		top;
	char	   *seen;
	int64		incarnation;
	char	   *incarnation_text;
	int64		floor;
	int64		waited;			/* microseconds blue waited before it read its clock */
	bool		all_moved;
	int			nmoved;
	uint64	   *moved;			/* bcmig_source_hash of each moved table */
	int			ncounts;
	struct BcmigCount *counts;
} BcmigPoll;

/* a hint: how often a table was written to, committed or not */
typedef struct BcmigCount
{
	uint64		table;			/* bcmig_source_hash */
	int64		count;
} BcmigCount;

/*
 * Compare a reading with what was stored; puts tables into resync when blue is
 * not the database it was.  Returns true when it did.  Runs its own
 * transactions; called outside one.
 */
extern bool bcmig_check_incarnation(int environment_id, Oid owner, const BcmigPoll *poll);

/*
 * What a row of a feed holds, as a number: the same version with other contents
 * was written by somebody who was given a lost transaction's id again.
 */
extern int64 bcmig_row_contents(TupleTableSlot *slot);

/* store horizon, mark, dirty tables and incarnation of blue "index" */
extern void bcmig_store_blue(int index);

#endif							/* BCMIG_POLLER_H */
