/*-------------------------------------------------------------------------
 *
 * bcmig.h
 *	  What all rooms of bcmig share: GUCs and the live state in shared memory.
 *
 * Truth is in the tables of schema bcmig; shared memory holds only what is
 * alive: who runs, what it does, what blue said last.  It may be lost at any
 * time: after a crash every table is dirty until a window has proved it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_H
#define BCMIG_H

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "portability/instr_time.h"
#include "storage/fileset.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

#include "compat.h"
#include "errors.h"

/* GUCs (bcmig.c) */
extern char *bcmig_databases;
extern int	bcmig_max_workers;
extern int	bcmig_max_tables;
extern int	bcmig_naptime;
extern int	bcmig_sync_batch_retention;
extern int	bcmig_metric_interval;
extern int	bcmig_metric_retention;
extern char *bcmig_debug_points;

#define BCMIG_MAX_DATABASES		64
#define BCMIG_MAX_BLUES			64
#define BCMIG_MAX_SLOTS			256
#define BCMIG_PAIRS				128
#define BCMIG_GROUP				32	/* windows in one job */
#define BCMIG_TEXT				256 /* short texts in shared memory */
#define BCMIG_SNAPSHOT_TEXT		8192

/* What a process is. */
typedef enum BcmigRole
{
	BCMIG_MANAGER = 1,
	BCMIG_POLLER,
	BCMIG_WORKER,
	BCMIG_RUNNER				/* of the execution of a plan */
} BcmigRole;

/* What a worker can be asked to do; the order is that of urgency. */
typedef enum BcmigJobKind
{
	BCMIG_JOB_NONE = 0,
	BCMIG_JOB_TRAFFIC,			/* change a sync's weight, look after its balancers */
	BCMIG_JOB_WINDOW,			/* read and apply one window */
	BCMIG_JOB_SHARD,			/* help another worker to apply a big one */
	BCMIG_JOB_RETRY,			/* re-read quarantined keys */
	BCMIG_JOB_RESOLVE,			/* re-read keys of conflicts, blue's rows win */
	BCMIG_JOB_REVERSE,			/* bring what was written on green to blue */
	BCMIG_JOB_SWEEP,			/* key sweep, or full compare of a snapshot table */
	BCMIG_JOB_COPY,				/* copy chunks until none is left, then build the key */
	BCMIG_JOB_ANALYZE,			/* statistics of a table that was copied */
	BCMIG_JOB_LOOK,				/* see what has changed in the schema of blue */
	BCMIG_JOB_MAKE,				/* make the sync's green tables and feeds that are not there yet */
	BCMIG_JOB_CHECK,			/* compare a table with blue */
	BCMIG_JOB_RULES,			/* rules and calculated fields of a sync */
	BCMIG_JOB_REPAIR			/* write what a validation found to be wrong */
} BcmigJobKind;

typedef struct BcmigJob
{
	BcmigJobKind kind;
	int			sync_id;
	int			table_id;		/* the one being worked on; blamed for an error */
	int64		request_id;		/* bcmig.request to delete when done, or 0 */
	uint32		part;			/* of a validation: its bit in BcmigTable.checked, 0 = none yet */
	int			leader;			/* a helper's claim: slot and serial of the window a shard of */
	uint64		shards;			/* which it has and has not finished; serial 0 = none */
	int			ntables;		/* windows come in groups, other jobs alone */
	int			tables[BCMIG_GROUP];
} BcmigJob;

/*
 * A big window that several workers apply (sync/shard.c), in the slot of the
 * one that has read it.
 */
typedef struct BcmigShards
{
	bool		open;			/* shards may be claimed */
	uint64		serial;			/* of this window; never used again */
	int			table_id;
	int			wanted;			/* helpers */
	int			n;				/* shards */
	int			next;			/* to be claimed */
	int			running;		/* claimed and not finished */
	FileSet		files;
	int64		most_refused;	/* 0 = no bound */

	/* of finished shards */
	int64		written;
	int64		deleted;
	int64		quarantined;
	int64		refused;		/* deletes too */
	bool		stopped;
	char		refusal[BCMIG_TEXT];	/* of the first refused row */

	/* a helper did not finish its shard */
	bool		failed;
	int			sqlerrcode;		/* 0 = it did not say why */
	char		error[BCMIG_TEXT];
} BcmigShards;

/*
 * A process of ours.  Reserved by whoever launches it (launcher, manager),
 * filled by the process, freed by its before_shmem_exit.  "generation" tells
 * a late starter that its slot has been given to somebody else.
 * All fields are guarded by BcmigShared->lock, except "latch" users: SetLatch
 * needs no lock.
 */
typedef struct BcmigSlot
{
	bool		in_use;
	uint32		generation;
	BcmigRole	role;
	Oid			dboid;
	Oid			owner;			/* role it connects as; InvalidOid for managers */
	int			environment_id; /* pollers */
	int64		execution_id;	/* runners */
	pid_t		pid;			/* 0 until it has started */
	PGPROC	   *proc;			/* NULL until it has started */
	TimestampTz launched_at;
	TimestampTz since;			/* when the present phase began */
	BcmigJob	job;			/* given by the manager; kind NONE = idle */
	bool		takes_aside;	/* applies a big window; between two of its transactions it takes small ones */
	BcmigJob	aside;			/* windows of other tables the manager gave it for that; kind NONE = none */
	BcmigShards shards;			/* of the big window it applies, for helpers */
	bool		ready;			/* connected and at work */
	bool		stop;			/* asked to exit when idle */

	/* for the views */
	char		phase[64];
	char		target[BCMIG_TEXT];
	int64		rows_done;
	int64		rows_total;		/* 0 = unknown */
	int64		jobs_done;
	int64		rows_processed;
	int64		errors;
	char		last_error[BCMIG_TEXT];
} BcmigSlot;

/* (blue clock, top): all that blue had committed at clock is below top */
typedef struct BcmigPair
{
	TimestampTz clock;
	int64		top;
} BcmigPair;

#define BCMIG_ANSWERS			5	/* polls blue's answer time is made from */

/* how long blue takes to answer, and what follows from it; see throttle.c */
typedef struct BcmigThrottle
{
	/* set by the manager, of the running syncs of this blue */
	int			max_answer;		/* ms, the smallest one; 0 = none has one */
	bool		automatic;		/* one leaves it to us */

	/* set by the poller */
	bool		out;			/* blue has been asked and has not answered */
	instr_time	asked_at;
	int			waits;			/* ms blue may wait on purpose before it answers */
	int			answers;		/* measured */
	int64		us[BCMIG_ANSWERS];	/* the last ones */
	int64		middle;			/* of them */
	int64		least;			/* that has ever been; 0 = not known */

	/* set by whoever looks */
	bool		on;				/* what can wait, waits */
	instr_time	since;			/* it began, or ended */
	int64		pauses;
	int64		paused;			/* us in pauses that are over */
	int64		slowest;		/* us, answer since the last event that it is over */

	/* set by the manager: what has been told as an event */
	bool		told;			/* it has begun */
	instr_time	told_at;
	int64		told_pauses;	/* until then */
	int64		told_paused;
} BcmigThrottle;

/*
 * What the poller of one (blue, owner) read last.  Written by that poller
 * only, but for "throttle", under BcmigShared->lock; "poll" counts polls and never goes back while
 * the server runs.  A window may use (horizon, seen, poll) of any poll that
 * had finished before the window's remote transaction began.
 */
typedef struct BcmigBlue
{
	bool		in_use;
	Oid			dboid;
	int			environment_id;
	Oid			owner;
	int			fixed_interval; /* ms between polls, 0 = auto; set by the manager */
	int			max_latency;	/* ms, smallest of the running syncs */
	bool		reachable;
	bool		refuses_wait;	/* blue does not know how to wait in a poll */
	uint64		poll;			/* 0 = never answered */
	instr_time	read_at;		/* our monotonic clock when it was asked */
	BcmigThrottle throttle;
	TimestampTz clock;			/* blue's clock */
	int64		horizon;
	int64		top;
	int64		incarnation;	/* hash of the text below */
	char		incarnation_text[BCMIG_TEXT];
	char		seen[BCMIG_SNAPSHOT_TEXT];	/* "" = no mark */
	char		blocked_by[BCMIG_TEXT]; /* "" = nobody holds the horizon back */
	char		last_error[BCMIG_TEXT];
	uint64		schema_mark;	/* of blue's tables and columns; 0 = not known */
	bool		schema_doubted; /* a statement did not find a column or table */
	int			look_failures;	/* in a row, of looking at what has changed */
	TimestampTz look_not_before;
	int			npairs;
	BcmigPair	pairs[BCMIG_PAIRS]; /* ascending */
} BcmigBlue;

typedef struct BcmigTableKey
{
	Oid			dboid;
	int			table_id;
} BcmigTableKey;

/* table states, in the order of a table's life; names in bcmig_state_name() */
typedef enum BcmigTableState
{
	BCMIG_PENDING = 0,
	BCMIG_COPYING,
	BCMIG_CATCHING_UP,
	BCMIG_STREAMING,
	BCMIG_SUSPENDED,
	BCMIG_RESYNC
} BcmigTableState;

/* what jobs have done since the manager last took it for bcmig.metric */
typedef struct BcmigTally
{
	int64		written;
	int64		deleted;
	int64		failed;			/* rows; those a retry could not help are not counted again */
	int64		bytes;			/* of copy chunks, where they are known */
	int64		errors;			/* jobs */
} BcmigTally;

/*
 * A table of a running sync.  Made by the manager, removed when the sync
 * stops; guarded by BcmigShared->lock.
 *
 * The table is clean when window_poll >= moved_poll: a window that used poll
 * window_poll has committed and no poll since saw it move.  A clean streaming
 * table is complete to its blue's horizon, whatever "position" says - unless
 * blue only hints at what moves: then "position" is all that is proved.
 */
typedef struct BcmigTable
{
	BcmigTableKey key;			/* must be first */
	int			sync_id;
	int			blue;			/* index into blues[], or -1 */
	BcmigTableState state;
	int64		position;		/* committed */
	uint64		moved_poll;		/* last poll that saw it move */
	uint64		window_poll;	/* poll of the last committed window */
	int64		swept_position; /* INT64_MAX where deletes come with windows */
	int			busy;			/* jobs running */
	bool		exclusive;		/* one that takes the applier lock for itself */
	int			helpers;		/* workers that apply shards of a window, or are about to look for one */
	bool		sweeping;		/* a key sweep, beside windows */
	int			checkers;		/* workers at its validation, beside all other jobs */
	int			check_parts;	/* of it that are left, as far as is known; 0 = not known */
	uint32		checked;		/* bit mask of parts being compared */
	int			check_failures; /* in a row */
	TimestampTz check_not_before;	/* backoff, or pause of a throttled validation */
	bool		drained;		/* copy: all chunks are claimed */
	bool		analyze_due;	/* copied, its statistics are not made yet */
	TimestampTz swept_at;		/* last complete sweep or compare */
	int64		sweep_ms;		/* how long it took */
	int			failures;		/* in a row; 0 after a success */
	TimestampTz not_before;		/* backoff; as others of that name, by bcmig_steady_time() */
	int			unique_retries; /* windows in a row stopped by a secondary key */
	int64		rows_copied;
	int64		rows_applied;
	int64		rows_deleted;
	int64		windows;
	bool		bulk;			/* the next window is a big one, as far as is known: it is read alone, and whole */
	TimestampTz last_applied_at;
	int			quarantined;	/* entries in bcmig.quarantine */
	BcmigTally	tally;
	uint64		name_hash;		/* of source schema and table, for the poller */
	bool		hinted;			/* moves may be missed by polls */
	uint64		version;		/* BcmigShared->publications when it was last
								 * changed: the manager must not overwrite news
								 * with what it read before them */
	bool		stopping;		/* its sync is being stopped: no new chunk */
} BcmigTable;

typedef struct BcmigDatabase
{
	Oid			dboid;
	bool		in_use;
	TimestampTz next_start;		/* launcher: not before */
	int			failures;
	bool		no_extension;
	int			workers_missing;	/* slots max_worker_processes did not give */
} BcmigDatabase;

typedef struct BcmigShared
{
	LWLock	   *lock;
	PGPROC	   *launcher;
	uint32		next_generation;
	uint64		publications;
	pg_atomic_uint64 latest;	/* what bcmig_forward_time() gave out last */
	BcmigDatabase databases[BCMIG_MAX_DATABASES];
	BcmigBlue	blues[BCMIG_MAX_BLUES];
	BcmigSlot	slots[BCMIG_MAX_SLOTS];
} BcmigShared;

/* NULL when bcmig is not in shared_preload_libraries */
extern BcmigShared *bcmig_shared;
extern HTAB *bcmig_tables;		/* BcmigTableKey -> BcmigTable */

/* bcmig.c */
extern void bcmig_require_loaded(void);
extern bool bcmig_database_wanted(const char *name);
extern void bcmig_wake_at_commit(void);
extern void bcmig_wake_manager(Oid dboid);
extern void bcmig_debug_point(const char *name);
extern const char *bcmig_state_name(BcmigTableState state);
extern BcmigTableState bcmig_state_value(const char *name);
extern const char *bcmig_job_name(BcmigJobKind kind);

/* true in the processes of bcmig */
extern bool bcmig_own_process;

/*
 * Microseconds that go on whatever is done to the clock: for what is to happen
 * after a while, in memory only.  0 has passed.
 */
static inline TimestampTz
bcmig_steady_time(void)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	return INSTR_TIME_GET_MICROSEC(now);
}

#endif							/* BCMIG_H */
