/*-------------------------------------------------------------------------
 *
 * balancer.h
 *	  What a load balancer can be asked to do.
 *
 * A driver knows one kind of balancer.  It is called by a worker, outside of a
 * transaction and with no lock held, and raises nothing but interrupts: what
 * went wrong comes back as a text.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_BALANCER_H
#define BCMIG_BALANCER_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

typedef struct BcmigBalancer
{
	int			balancer_id;
	char	   *sync_name;
	char	   *name;
	Oid			owner;			/* of the sync: who it is done as */
	char	   *driver;
	char	   *url;			/* "" = none */
	Jsonb	   *options;		/* as the driver's check() has let them pass */
	int			timeout;		/* ms, of one exchange */
} BcmigBalancer;

typedef struct BcmigBalancerDriver
{
	const char *name;

	/* ERROR when url or options are not what it needs; in a transaction, asks nothing of the balancer */
	void		(*check) (const BcmigBalancer *balancer);

	/* what has the weight: two balancers of the same text would set it against each other; in a transaction, no ERROR */
	char	   *(*backend) (const BcmigBalancer *balancer);

	/* percent of new traffic to green; NULL, or what went wrong */
	char	   *(*set) (const BcmigBalancer *balancer, double green_percent);

	/* the share it has now */
	char	   *(*get) (const BcmigBalancer *balancer, double *green_percent);

	/*
	 * Green out at once: nothing new goes there, sessions that are there are
	 * closed.  The share read is 0 then, until one is set again.  May be NULL.
	 */
	char	   *(*leave) (const BcmigBalancer *balancer);
} BcmigBalancerDriver;

extern const BcmigBalancerDriver bcmig_haproxy;
extern const BcmigBalancerDriver bcmig_http_balancer;
extern const BcmigBalancerDriver bcmig_function_balancer;

/* a text of an object, or NULL; of the options; a list of texts, NIL when there is none */
extern char *bcmig_json_text(JsonbContainer *object, const char *name);
extern char *bcmig_balancer_text(const BcmigBalancer *balancer, const char *name);
extern List *bcmig_balancer_list(const BcmigBalancer *balancer, const char *name);

/* ERROR when the object has another key than these; "where" is what the message puts before it */
extern void bcmig_balancer_keys(const BcmigBalancer *balancer, JsonbContainer *object, const char *where, List *known);

/*
 * For drivers whose work is SQL: what(arg) in a transaction of its own, ended
 * after timeout ms.  NULL, or the error that undid it in words.
 */
extern char *bcmig_balancer_try(void (*what) (void *arg), void *arg, int timeout);

#endif							/* BCMIG_BALANCER_H */
