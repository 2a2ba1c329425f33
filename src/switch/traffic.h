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

/* a row of bcmig.traffic */
typedef struct BcmigTraffic
{
	double		green_percent;
	int64		intent;			/* its id; 0 = none */
	double		intent_percent;
	char	   *by;				/* who wanted the intent */
	char	   *held;			/* NULL = not */
} BcmigTraffic;

/*
 * traffic.c: in a transaction, memory in the caller's context.  A row that is
 * not there yet counts as all 0, and false is returned.
 */
extern bool bcmig_traffic_load(int sync_id, bool lock, BcmigTraffic *traffic);

/* a row in bcmig.traffic_event and the audit log; inside a scope.  A percent below 0 is not known. */
extern int64 bcmig_traffic_event(const char *sync_name, const char *event, double from, double to,
								 int64 epoch, const char *by, const char *detail);

/* traffic is not touched until a person says so; inside a scope */
extern void bcmig_traffic_hold(int sync_id, const char *sync_name, const char *by, const char *reason);

/*
 * incarnation.c: is this database the one that moves the sync's traffic?
 *
 * seen: it is, in the transaction that makes the row of bcmig.traffic; inside a
 * scope.  differs: why it may not be, as far as green can tell; NULL = it is; in
 * a transaction.  adopt: it is from now on; inside a scope.
 */
extern void bcmig_incarnation_seen(int sync_id);
extern char *bcmig_incarnation_differs(const BcmigSync *sync);
extern void bcmig_incarnation_adopt(int sync_id);

/*
 * To be asked by a worker before it does anything outside of green, in no
 * transaction: false, it must not, and traffic is held where that is for good.
 * acting: it is about to, so that blue is asked whatever was found before.
 * True when traffic was held already.
 */
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

/* ask the health URLs and store the answers; in no transaction */
extern void bcmig_ask_health(const BcmigSync *sync);

/* change.c: the worker's job */
extern void bcmig_run_traffic(int sync_id);
extern void bcmig_traffic_failed(const BcmigJob *job, const ErrorData *edata);

#endif							/* BCMIG_TRAFFIC_H */
