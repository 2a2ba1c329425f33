/*-------------------------------------------------------------------------
 *
 * audit.h
 *	  What was done and what happened: bcmig.audit_log, its chain, its events.
 *
 * bcmig_audit() itself is declared in catalog.h, since everybody calls it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_AUDIT_H
#define BCMIG_AUDIT_H

#include "bcmig.h"

/*
 * For the manager: chain the rows that have been committed since, and tell
 * listeners of bcmig_events about them.  Opens its own transaction.  Returns
 * whether there may be more.
 */
extern bool bcmig_audit_chain(void);

/* a row of the audit log, as an event needs it */
typedef struct BcmigEvent
{
	int64		audit_id;
	TimestampTz at;
	const char *kind;
	const char *event;
	const char *sync;			/* NULL = of none */
	const char *target;			/* NULL = of none */
	const char *detail;			/* or NULL */
} BcmigEvent;

/* event.c: NOTIFY for the rows chained in this transaction, in their order */
extern void bcmig_notify(const BcmigEvent *events, int n);

#endif							/* BCMIG_AUDIT_H */
