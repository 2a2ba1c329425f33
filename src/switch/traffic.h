/*-------------------------------------------------------------------------
 *
 * traffic.h
 *	  The weight of a sync: what is stored, and how it is changed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_TRAFFIC_H
#define BCMIG_TRAFFIC_H

#include "balancer.h"
#include "configure.h"

/* what an intent is about */
typedef enum BcmigChangeKind
{
	BCMIG_CHANGE,				/* readers only */
	BCMIG_FINAL,				/* to 100: writers move to green */
	BCMIG_ROLLBACK				/* from 100: writers move back */
} BcmigChangeKind;

/* a row of bcmig.traffic */
typedef struct BcmigTraffic
{
	double		green_percent;
	int64		intent;			/* its id; 0 = none */
	double		intent_percent;
	BcmigChangeKind intent_kind;
	bool		no_return;		/* the intent can only be carried through */
	bool		completed;		/* bcmig_complete_sync was called */
	bool		both_write;		/* below 100, and writers are on both sides (option traffic) */
	char	   *by;				/* who wanted the intent */
	char	   *held;			/* NULL = not */
} BcmigTraffic;

/* a balancer, and what is known of it */
typedef struct BcmigFront
{
	const BcmigBalancer *balancer;
	const BcmigBalancerDriver *driver;
	double		percent;		/* as read; below 0 = not */
	char	   *error;			/* NULL = none */

	/* as stored */
	bool		never_read;
	bool		first;			/* not read since the server started */
	char	   *stored_error;
} BcmigFront;

/* what a worker needs to move the traffic of a sync; in the context of the job */
typedef struct BcmigTrafficJob
{
	BcmigSync  *sync;
	BcmigTraffic traffic;
	int			nfronts;
	BcmigFront *fronts;
} BcmigTrafficJob;

/* a change that is wanted */
typedef struct BcmigChange
{
	BcmigChangeKind kind;
	double		percent;
	char	   *by;
	const char *reason;			/* for the event; may be NULL */
	int64		request;		/* of bcmig.traffic_request, which it settles with all older ones; 0 = none */
	bool		pause;			/* writers are told to wait */
} BcmigChange;

/*
 * traffic.c: in a transaction, memory in the caller's context.  A row that is
 * not there yet counts as all 0, and false is returned.
 */
extern bool bcmig_traffic_load(int sync_id, bool lock, BcmigTraffic *traffic);

/* how long anybody outside may take to answer, ms; outside of a transaction */
extern int	bcmig_traffic_timeout(const BcmigSync *sync);

/* as the intent has it */
extern const char *bcmig_change_kind(BcmigChangeKind kind);

/* the same for what a person asks: ERROR before the first start, after the end, or while it is held */
extern void bcmig_require_started(const BcmigSync *sync, bool lock, BcmigTraffic *traffic);
extern void bcmig_refuse_held(const BcmigSync *sync, const BcmigTraffic *traffic);

/* a row in bcmig.traffic_event and the audit log; inside a scope.  A percent below 0 is not known. */
extern int64 bcmig_traffic_event(const char *sync_name, const char *event, double from, double to,
								 int64 epoch, const char *by, const char *detail);

/* traffic is not touched until a person says so; inside a scope */
extern void bcmig_traffic_hold(int sync_id, const char *sync_name, const char *by, const char *reason);

/*
 * incarnation.c: is this database the one that moves the sync's traffic?
 *
 * seen: it is, in the transaction that makes the row of bcmig.traffic; inside a
 * scope.  differs: why it may not be, as far as green can tell; NULL = it is;
 * *waiting (unless NULL): blue is to be asked first, and does not answer; in a transaction.
 * adopt: it is from now on; inside a scope.
 */
extern void bcmig_incarnation_seen(int sync_id);
extern char *bcmig_incarnation_differs(const BcmigSync *sync, bool *waiting);
extern void bcmig_incarnation_adopt(int sync_id);

/*
 * What this green is, in the current context; and, of one that was stored, why
 * this may not be it, NULL = it is.  In a transaction.
 */
#define BCMIG_GREEN_PARTS	5
extern void bcmig_this_green(char **parts);
extern char *bcmig_another_green(char *const *parts);

/*
 * To be asked by a worker before it does anything outside of green, in no
 * transaction: false, it must not, and traffic is held unless blue can say more.
 * acting: it is about to, so that blue is asked whatever was found before.
 * True when traffic was held for another reason already.
 */
#define BCMIG_NOT_KNOWN_TO_BE_GREEN(t) \
	((t)->held ? (t)->held : "it is not known whether this is the green that moves traffic: blue does not answer")
extern bool bcmig_green_may_act(const BcmigSync *sync, BcmigTraffic *traffic, bool acting);

/*
 * A new epoch, stored; inside a scope, the row of bcmig.traffic locked by
 * bcmig_traffic_load().  witnessed: one another green has given out, else 0.
 * Once that has committed blue is told, in no transaction; that it cannot be is
 * no error, it is tried again.
 */
extern int64 bcmig_give_epoch(int sync_id, int64 witnessed);
extern void bcmig_witness_store(const BcmigSync *sync);

/* balancer.c: those of a sync, by name; in a transaction, memory in the caller's context */
extern List *bcmig_load_balancers(const BcmigSync *sync);
extern const BcmigBalancerDriver *bcmig_balancer_driver(const char *name);

/* gate.c: BcmigCheck of each gate; in a transaction.  asking: a session only asks, nothing is decided */
extern List *bcmig_gates(const BcmigSync *sync, bool asking);

/* those that are not ok, in words; NULL = none */
extern char *bcmig_gates_text(List *checks);

/*
 * Ask the health URLs and the gates that are queries, and store the answers for
 * bcmig_gates.  In no transaction, and holding no session lock: of those on user
 * tags none is left.
 */
extern void bcmig_ask_outside(const BcmigSync *sync);

/* ---- front.c: the balancers of a sync; in a worker ---- */

/* the sync, its traffic and balancers; false: there is nothing to do */
extern bool bcmig_load_fronts(BcmigTrafficJob *job, int sync_id);

/* is what a balancer shows what it was set to? */
extern bool bcmig_follows(double percent, double wanted);

/* outside of a transaction.  set: and read back; false: it does not follow, error says why */
extern void bcmig_read_front(BcmigFront *front);
extern bool bcmig_set_front(BcmigFront *front, double percent);

/*
 * All to the weight that is stored, or (leave) away from green with their
 * sessions; those that do not follow, in words, NULL = none.  None that fails
 * holds up the others.
 */
extern char *bcmig_set_back(BcmigTrafficJob *job);
extern char *bcmig_leave_green(BcmigTrafficJob *job);

/* what was read last; in a transaction */
extern void bcmig_store_fronts(BcmigTrafficJob *job);

/* ---- change.c: the worker's job, and a change of the weight in its parts ---- */
extern void bcmig_run_traffic(int sync_id);
extern void bcmig_traffic_failed(const BcmigJob *job, const ErrorData *edata);


/* a whole change of readers; NULL: done, or nothing was to do; else why not, and all is as before */
extern char *bcmig_change_weight(BcmigTrafficJob *job, const BcmigChange *change);

/*
 * The first transaction: gates, if more goes to green, and the intent.  NULL: it
 * is begun; "": nothing is to do; else why not.
 */
extern char *bcmig_begin_change(BcmigTrafficJob *job, const BcmigChange *change);

/* balancers to the weight of the intent, one after the other, until one does not follow: why; NULL = all do */
extern char *bcmig_set_fronts(BcmigTrafficJob *job);

/*
 * The second transaction: gates again, weight and epoch; "with" does its part in
 * it, what it raises is why not.  NULL: it holds; else why not.
 */
typedef void (*BcmigWithChange) (BcmigTrafficJob *job, void *arg);
extern char *bcmig_end_change(BcmigTrafficJob *job, BcmigWithChange with, void *arg);

/* why a change that is under way shall not go on, NULL = it may; "now" as just loaded, in a transaction */
extern char *bcmig_change_stopped(const BcmigTrafficJob *job, const BcmigTraffic *now);

/* back to what is stored */
extern void bcmig_undo_change(BcmigTrafficJob *job, const char *why);

/* ---- switch.c: from weight to weight ---- */

/* a row of bcmig.switch */
typedef struct BcmigSwitch
{
	int64		switch_id;		/* 0 = none */
	int			nsteps;
	double	   *steps;
	int			step;			/* the present one, from 1 */
	Jsonb	   *options;
	char	   *reason;
	char	   *by;
	char	   *phase;
	int64		phase_ms;		/* for how long it has been in it */
	int64		reached_ms;		/* for how long the weight of the step has been there; -1 = it is not */
	int			failures;
	char	   *problem;		/* NULL = none */
	int64		replay_ms;		/* a rollback: since it first tried to bring writes to blue; -1 = it has not */
} BcmigSwitch;

/* carry on with the switch that is asked for, if there is one */
extern void bcmig_run_switch(BcmigTrafficJob *job);

/* the running row of this kind, switch or rollback; in a transaction, memory in the caller's context */
extern bool bcmig_load_switch(int sync_id, const char *kind, BcmigSwitch *sw);

/* its options; outside of a transaction */
extern int64 bcmig_switch_ms(const BcmigSwitch *sw, const char *name);
extern bool bcmig_switch_is(const BcmigSwitch *sw, const char *name, const char *value);

/* where it is (NULL: where it was), or how it has ended (state done, failed, cancelled); in a transaction of its own */
extern void bcmig_switch_phase(const BcmigSwitch *sw, const char *phase, const char *problem);
extern void bcmig_end_switch(int64 switch_id, const char *state, const char *problem);

/* a person, or a rollback, has taken over; outside of a transaction */
extern void bcmig_cancel_switch(int sync_id, const char *why);

/* in the caller's scope: a way back */
extern void bcmig_ask_rollback(int sync_id, const char *by, const char *reason, const char *options);

/* ---- final.c: to 100 ---- */

/* NULL: done; else why not, and all is as before (or, blue being away, will be) */
extern char *bcmig_final_step(BcmigTrafficJob *job, const BcmigSwitch *sw);

/* blue's fence is lifted and seen to be; else why not */
extern char *bcmig_open_blue(BcmigTrafficJob *job);

/* ---- rollback.c ---- */

/* carry on with the way back that is asked for; false = there is none */
extern bool bcmig_run_rollback(BcmigTrafficJob *job);

/* in a transaction */
extern bool bcmig_rollback_asked(int sync_id);

#endif							/* BCMIG_TRAFFIC_H */
