/*-------------------------------------------------------------------------
 *
 * shard.h
 *	  A big window applied by several workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_SHARD_H
#define BCMIG_SHARD_H

#include "apply.h"
#include "worker.h"

/* may this window be applied by several workers?  Outside a transaction. */
extern bool bcmig_shards_possible(const BcmigWork *work, const BcmigSpool *spool);

/*
 * bcmig_apply_batches, with the help of workers that have nothing to do.  The
 * caller holds the applier lock exclusively, and does so afterwards.
 */
extern void bcmig_apply_shards(BcmigWork *work, BcmigSpool *spool, int64 most_refused,
							   BcmigApplied *applied);

/* what a worker does that has been lent as a helper */
extern void bcmig_run_shards(BcmigWork *work);

#endif							/* BCMIG_SHARD_H */
