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

/* the same; ERROR when the sync was never started */
extern void bcmig_traffic_load_started(const BcmigSync *sync, bool lock, BcmigTraffic *traffic);

/* a row in bcmig.traffic_event and the audit log; inside a scope.  A percent below 0 is not known. */
extern int64 bcmig_traffic_event(const char *sync_name, const char *event, double from, double to,
								 int64 epoch, const char *by, const char *detail);

/* traffic is not touched until a person says so; inside a scope */
extern void bcmig_traffic_hold(int sync_id, const char *sync_name, const char *by, const char *reason);

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
