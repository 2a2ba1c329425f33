/*-------------------------------------------------------------------------
 *
 * status.h
 *	  How far a sync is proved.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_STATUS_H
#define BCMIG_STATUS_H

#include "bcmig.h"

/*
 * Caller holds bcmig_shared->lock.  False when it is unknown; through is on
 * blue's clock, lag in microseconds, blue an index into blues[] or -1.
 */
extern bool bcmig_synced_through(int sync_id, TimestampTz *through, int64 *lag,
								 int *blue);

#endif							/* BCMIG_STATUS_H */
