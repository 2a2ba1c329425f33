/*-------------------------------------------------------------------------
 *
 * slot.h
 *	  Launching our processes and saying what they do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_SLOT_H
#define BCMIG_SLOT_H

#include "bcmig.h"
#include "postmaster/bgworker.h"

/* slot of this process; NULL in a session */
extern BcmigSlot *bcmig_slot;

/*
 * Index of the new slot, or -1 when no slot or no background worker is free.
 * subject: of a poller its environment, of a runner its execution, else 0.
 */
extern int	bcmig_slot_launch(BcmigRole role, Oid dboid, Oid owner,
							  int64 subject, BackgroundWorkerHandle **handle);
extern void bcmig_slot_release(int index, uint32 generation);

/*
 * Start of every process of ours but the launcher: signals, slot, connection
 * to its database as its owner, settings.
 */
extern void bcmig_process_start(const char *name);

/* what this process does now, for pg_stat_activity and the views */
extern void bcmig_slot_phase(const char *phase, const char *target,
							 int64 rows_total);
extern void bcmig_slot_progress(int64 rows_done);
extern void bcmig_slot_error(const char *message);

/* a job begins on a live table, or ends on all of a slot's; caller holds the lock exclusively */
extern void bcmig_job_begins(BcmigTable *live, BcmigJobKind kind, bool snapshot);
extern void bcmig_job_ends(BcmigSlot *slot);
extern void bcmig_aside_ends(BcmigSlot *slot);

/* a helper will not finish the shard it claimed, if it has one; caller holds the lock exclusively */
extern void bcmig_shard_fails(BcmigJob *job, int sqlerrcode, const char *message);

/* find the live entry of a table of this database; caller holds the lock */
extern BcmigTable *bcmig_live_table(int table_id);

/* index in blues[], made when missing; caller holds the lock exclusively */
extern int	bcmig_live_blue(Oid dboid, int environment_id, Oid owner);

/* hash of a source table's names, equal in poller and manager */
extern uint64 bcmig_source_hash(const char *schema, const char *table);

/* in the loop of a process: read the configuration again where that was asked for */
extern void bcmig_take_config(void);

/* wait so many ms, or until somebody sets our latch; then interrupts */
extern void bcmig_pause(long ms);

/* pollers of this database poll at once */
extern void bcmig_wake_pollers(void);

/* milliseconds to wait after "failures" failures in a row: doubling, jittered, capped */
extern long bcmig_backoff(int failures, long first, long most);

/* the clock, but never what it was before, to no process: for what must have come after something else */
extern TimestampTz bcmig_forward_time(void);

/* ms since a time of the clock; one that is still to come was long ago: the clock has been set back */
extern int64 bcmig_ms_since(TimestampTz then);

#endif							/* BCMIG_SLOT_H */
