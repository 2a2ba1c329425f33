/*-------------------------------------------------------------------------
 *
 * through.h
 *	  How far a sync is proved, from shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_THROUGH_H
#define BCMIG_THROUGH_H

#include "bcmig.h"
#include "nodes/bitmapset.h"
#include "utils/hsearch.h"

/* microseconds since "then" on the monotonic clock */
extern int64 bcmig_age_of(instr_time then);

/* is the table complete to its blue's horizon?  Caller holds bcmig_shared->lock. */
extern bool bcmig_is_clean(const BcmigTable *table);

/* what the tables of a sync prove together */
typedef struct BcmigProved
{
	int			sync_id;		/* must be first */
	int			blue;			/* index into blues[], -1 = it has no table */
	bool		all;			/* every table proves something */
	bool		reading;		/* a table is read for the first time or again */
	int64		least;			/* position, when all do */
} BcmigProved;

/*
 * Of all syncs of this database, in one pass over their tables: a hash by
 * sync_id in the current memory context, to be destroyed.  Caller holds
 * bcmig_shared->lock.
 */
extern HTAB *bcmig_all_proved(void);

/*
 * Caller holds bcmig_shared->lock.  False when it is unknown; through is on
 * blue's clock, lag in microseconds.
 */
extern bool bcmig_proved_through(const BcmigProved *proved, TimestampTz *through, int64 *lag);

/*
 * Caller holds bcmig_shared->lock.  False when it is unknown; through is on
 * blue's clock, lag in microseconds, blue an index into blues[] or -1.
 */
extern bool bcmig_synced_through(int sync_id, TimestampTz *through, int64 *lag,
								 int *blue);

/* the same of these tables alone (table ids; NULL = all of the sync) */
extern bool bcmig_tables_through(int sync_id, const Bitmapset *tables, TimestampTz *through,
								 int64 *lag, int *blue);

#endif							/* BCMIG_THROUGH_H */
