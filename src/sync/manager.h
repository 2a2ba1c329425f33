/*-------------------------------------------------------------------------
 *
 * manager.h
 *	  What manager.c, managed.c and schedule.c share: the configuration a
 *	  manager works by.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_MANAGER_H
#define BCMIG_MANAGER_H

#include "bcmig.h"

typedef struct Sync
{
	int			sync_id;
	char	   *name;
	Oid			owner;
	int			environment_id;
	bool		running;		/* wanted, and here */
	bool		elsewhere;		/* it was started in another cluster or database */
	bool		half;			/* rows of it are missing: it is being restored */
	int			workers;		/* most at one time, 0 = all */
	int			poll_interval;	/* ms, 0 = auto */
	int			max_latency;	/* ms */
	int			max_answer;		/* ms, 0 = no matter, -1 = auto */
	char	   *state;			/* as stored */
	bool		maintenance;	/* blue is to be left alone */
	uint64		schema_mark;	/* of blue when its schema was last looked at */
	bool		look_again;		/* a change that stopped a table waits for another look */
	bool		views_due;		/* views or grants are to be made */
	bool		rules_due;		/* a validation has compared all its tables: rules are next */
	char	   *traffic_due;	/* what of its traffic is to be done, by numbers that are others when it is something else; NULL = nothing */
	bool		balancers;		/* has some, to be looked after */
	TimestampTz traffic_next;	/* when they are looked at again */
	bool		reverse;		/* what is written on green is brought to blue */
	TimestampTz reverse_next;	/* when that is looked at again */
	int			blue;			/* index into blues[] */
	int			busy;			/* workers lent, this round */
	int			longs;			/* of them with what takes long */
	bool		streams;		/* has tables whose windows are small */
	bool		copies;			/* has tables that wait for their copy, or are at it */
	bool		refused;		/* asked for one and there was none, this round */
} Sync;

/* a request of a person, waiting for a worker */
typedef struct Request
{
	int64		id;
	int			table_id;
	BcmigJobKind kind;
} Request;

/* an execution of a plan that wants its process (src/plan/runner.c) */
typedef struct Run
{
	int64		execution_id;
	Oid			owner;
	bool		cancelled;		/* a person wants it to end, and it has not heard of that */
} Run;

typedef struct Table
{
	int			table_id;
	Sync	   *sync;
	int			priority;
	int			parallel;
	bool		enabled;
	bool		made;			/* green table and feed are there */
	bool		check_due;		/* a validation has not done with it yet */
	bool		snapshot;
	bool		sweeps;			/* deletes come by sweep */
	int64		sweep_interval;
	BcmigTable *live;			/* NULL when its sync does not run */
} Table;

typedef struct Config
{
	MemoryContext context;
	int			nsyncs;
	Sync	   *syncs;
	int			ntables;
	Table	   *tables;			/* by priority */
	int			nrequests;
	Request    *requests;
	int			nruns;
	Run		   *runs;
} Config;

/* as it was loaded last; replaced as a whole */
extern Config *bcmig_managed;

/* managed.c */
extern bool bcmig_managed_load(void);
extern Sync *bcmig_find_managed_sync(Config *c, int sync_id);

/*
 * What the room above (src/report) does in a manager; NULL, or set when the
 * library is loaded.
 */
typedef struct BcmigReportRoom
{
	/* look at shared memory; returns the ms until it wants to look again */
	long		(*sample) (TimestampTz now);
	/* store what is due, in no transaction; returns when it is due next */
	TimestampTz (*store) (TimestampTz now);
	/* a live table is about to go; the lock is held exclusively */
	void		(*table_leaves) (BcmigTable *live);
} BcmigReportRoom;

extern const BcmigReportRoom *bcmig_report_room;

/* schedule.c: hands out jobs, returns how many workers were missing */
extern int	bcmig_schedule(void);

/* alert.c: raise and clear alerts; opens its own transaction, returns false */
extern bool bcmig_look_for_alerts(void);

/* cleanup.c: take away what has grown old; opens its own transactions, returns whether there is more at once */
extern bool bcmig_clean_up(void);

/* the same for events: what can wait has to wait for blue, or has not any more */
extern bool bcmig_tell_throttles(void);

/* manager.c: workers */
extern int	bcmig_workers_short;	/* that the server would not give at the last try */
extern bool bcmig_may_launch_worker(TimestampTz now);
extern bool bcmig_launch_worker(Oid owner, TimestampTz now);
extern void bcmig_worker_works(void);

#endif							/* BCMIG_MANAGER_H */
