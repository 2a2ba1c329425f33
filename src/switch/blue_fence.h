/*-------------------------------------------------------------------------
 *
 * blue_fence.h
 *	  The refusal of outside writes on blue, from the last step of a switch on.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_BLUE_FENCE_H
#define BCMIG_BLUE_FENCE_H

#include "configure.h"

typedef enum BcmigBlueFence
{
	BCMIG_BLUE_OPEN,			/* all tables of the sync can be written to */
	BCMIG_BLUE_PARTLY,			/* some */
	BCMIG_BLUE_FENCED,			/* none: blue says so, or a person where blue cannot */
	BCMIG_BLUE_UNKNOWN			/* blue cannot say, and no person has */
} BcmigBlueFence;

/*
 * Ask for blue's fence to be raised or lifted in the way the environment says
 * (option fence_by).  NULL: it was asked for, which does not mean that it is
 * so; else what went wrong.  In a worker, outside of a transaction; errors of
 * blue are raised.
 */
extern char *bcmig_ask_blue_fence(const BcmigSync *sync, bool up, int timeout);

/* what is so, by reading blue; in words in *detail.  As above. */
extern BcmigBlueFence bcmig_blue_fence_state(const BcmigSync *sync, char **detail);

/* does a person have to do it?  In a transaction. */
extern bool bcmig_blue_fence_by_hand(const BcmigSync *sync);

/* what bcmig.try_blue_fence() has asked for; in a worker, outside of a transaction */
extern void bcmig_run_blue_fence_trial(const BcmigSync *sync);

#endif							/* BCMIG_BLUE_FENCE_H */
