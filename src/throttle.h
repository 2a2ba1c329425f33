/*-------------------------------------------------------------------------
 *
 * throttle.h
 *	  How long blue takes to answer, and whether what can wait has to wait.
 *
 * All of it is about one entry of bcmig_shared->blues; the caller holds
 * bcmig_shared->lock, exclusively where the entry is not const.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_THROTTLE_H
#define BCMIG_THROTTLE_H

#include "bcmig.h"

/* a new poller: what the last one measured is forgotten */
extern void bcmig_throttle_reset(BcmigBlue *blue);

/* the poller asks at this moment; it lets blue wait for "waits" ms at most before it answers */
extern void bcmig_throttle_asked(BcmigBlue *blue, int waits);

/* it has its answer: after so many us, what blue waited on purpose left out; -1 = it took other things too */
extern void bcmig_throttle_answered(BcmigBlue *blue, int64 us);

/* how long blue takes to answer, in us; 0 = not known */
extern int64 bcmig_answer_us(const BcmigBlue *blue);

/* what that is measured by, in us; 0 = nothing */
extern int64 bcmig_bound_us(const BcmigBlue *blue);

/* must what can wait do so?  Looks at the answers, and begins or ends a pause. */
extern bool bcmig_throttled(BcmigBlue *blue);

/* is there a pause, or was there one lately: what is read at a time shall be small */
extern bool bcmig_throttled_lately(const BcmigBlue *blue);

/* how long all pauses took together, in us */
extern int64 bcmig_throttled_us(const BcmigBlue *blue);

#endif							/* BCMIG_THROTTLE_H */
