/*-------------------------------------------------------------------------
 *
 * writers.h
 *	  Waiting for those who write to tables without standing in their way.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_WRITERS_H
#define BCMIG_WRITERS_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

/*
 * Wait until everybody has ended who has locked one of these relations for
 * writing, at most until "deadline"; in a transaction.  Returns those who are
 * left, a List of VirtualTransactionId *.
 */
extern List *bcmig_wait_for_writers(List *relations, TimestampTz deadline);

/* who they are, for a person */
extern char *bcmig_writers_text(List *writers);

/* end their sessions, with the rights of the caller; prepared transactions have none */
extern void bcmig_end_writers(List *writers);

#endif							/* BCMIG_WRITERS_H */
