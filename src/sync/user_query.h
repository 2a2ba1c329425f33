/*-------------------------------------------------------------------------
 *
 * user_query.h
 *	  Queries of users that our processes run as the owner of a sync.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_USER_QUERY_H
#define BCMIG_USER_QUERY_H

#include "configure.h"

typedef struct BcmigUserQuery
{
	const char *kind;			/* "rule", "gate": for messages */
	const char *name;
	const char *query;
	const char *hint;			/* what else is to be run, when it is none */
	Oid			result;			/* type of its one column; InvalidOid = any columns */
} BcmigUserQuery;

/* what a query reads, as far as it can be told */
typedef struct BcmigReads
{
	List	   *relations;		/* oids, in order; no views */
	bool		more;			/* functions that may read what they like */
} BcmigReads;

/*
 * Prepare a query as the current user, inside an SPI connection.  ERROR unless
 * it is one plain SELECT.  reads: in the current context, may be NULL.
 */
extern SPIPlanPtr bcmig_prepare_user_query(const BcmigUserQuery *query, BcmigReads *reads);

/* the same for a session that sets one: with the rights and the names it will run with */
extern void bcmig_check_user_query(Oid owner, const BcmigUserQuery *query, BcmigReads *reads);

/*
 * look(arg) in a read-only transaction that is rolled back: NULL, or the error
 * it has raised, in the current context.  Not in a transaction; session locks
 * on user tags are released.  look may arm STATEMENT_TIMEOUT.
 */
extern ErrorData *bcmig_read_only(void (*look) (void *arg), void *arg);

#endif							/* BCMIG_USER_QUERY_H */
