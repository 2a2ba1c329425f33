/*-------------------------------------------------------------------------
 *
 * reverse.h
 *	  Bringing to blue what was written on green.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_REVERSE_H
#define BCMIG_REVERSE_H

#include "configure.h"

typedef struct BcmigReplayed
{
	int64		written;		/* keys blue has now as green has them */
	int64		equal;			/* keys that were equal already */
	int64		conflicts;		/* keys that wait for a person: blue has changed too */
	int64		left;			/* keys not done: deadline, or blue refuses them */
	char	   *problem;		/* why the first of those left was not; NULL = none is left */
} BcmigReplayed;

/*
 * Bring all unsettled journal entries of a sync to blue; twice does no harm.
 * All of them, once green has been fenced and who was writing has ended.  In a
 * worker, outside of a transaction; errors of blue are raised, what had been
 * done by then holds.
 */
extern void bcmig_replay(const BcmigSync *sync, TimestampTz deadline, BcmigReplayed *result);

/* have blue forget what it noted of entries that are settled, some of it; after a replay that wrote something.  As bcmig_replay. */
extern void bcmig_forget_replayed(const BcmigSync *sync);

/* keys with unsettled entries, those of waiting conflicts included; in a transaction */
extern int64 bcmig_unreplayed(int sync_id);

/* why bcmig cannot write to this blue itself, or NULL.  As bcmig_replay. */
extern char *bcmig_replay_problem(const BcmigSync *sync);

/*
 * Is it a person who writes to this blue (bcmig_blue_script)?  bcmig_replay then
 * looks what blue has by now.  As bcmig_replay.
 */
extern bool bcmig_replay_by_script(const BcmigSync *sync);

/* callbacks; once, when the library is loaded */
extern void bcmig_reverse_init(void);

/* what of a table has been sent to blue and not been heard of: settle it */
extern void bcmig_replay_heard(struct BcmigWork *work);

/* reverse_script.c: what is not settled, as a script for a blue bcmig does not write to itself */
extern char *bcmig_make_reverse_script(const char *sync_name);

/* reverse_feed.c: the worker's job while writes are on green */
extern void bcmig_run_reverse(int sync_id);
extern void bcmig_reverse_failed(const BcmigJob *job, const ErrorData *edata);

#endif							/* BCMIG_REVERSE_H */
