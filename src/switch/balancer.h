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
	char	   *driver;
	char	   *url;
	Jsonb	   *options;		/* as the driver's check() has let them pass */
	int			timeout;		/* ms, of one exchange */
} BcmigBalancer;

typedef struct BcmigBalancerDriver
{
	const char *name;

	/* ERROR when url or options are not what it needs */
	void		(*check) (const BcmigBalancer *balancer);

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

/* a text of the options, or NULL; a list of texts, NIL when there is none */
extern char *bcmig_balancer_text(const BcmigBalancer *balancer, const char *name);
extern List *bcmig_balancer_list(const BcmigBalancer *balancer, const char *name);

#endif							/* BCMIG_BALANCER_H */
