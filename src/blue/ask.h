/*-------------------------------------------------------------------------
 *
 * ask.h
 *	  A question to blue from a session: answered by a one-off worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_ASK_H
#define BCMIG_ASK_H

#include "nodes/pg_list.h"

/*
 * Run statements (List of char *, in the form of a text feed: 8 columns of
 * text) on the blue behind a foreign server, as "role" and in one remote
 * transaction.  Returns the rows of all of them, in order, as a list of
 * char *[8] in the current memory context.
 *
 * Not for a superuser's shortcut: "role" needs USAGE on the server, a user
 * mapping and LOGIN.  A server or mapping made by the present transaction is
 * not yet visible to the worker.
 */
extern List *bcmig_ask(Oid serverid, Oid role, List *statements, int timeout_ms);

/*
 * The same, but what goes wrong (ours or blue's) comes back in *error, which
 * is NULL on success.  Only interrupts and lack of memory are raised.
 */
extern List *bcmig_try_ask(Oid serverid, Oid role, List *statements,
						   int timeout_ms, ErrorData **error);

/*
 * The same; *times has what each statement took until its last row was here, in
 * ms (double *), as the worker sees it.
 */
extern List *bcmig_try_ask_timed(Oid serverid, Oid role, List *statements,
								 int timeout_ms, List **times, ErrorData **error);

/*
 * What keeps "role" from asking at all: no LOGIN, no USAGE, no user mapping.
 * NULL when nothing does.
 */
extern ErrorData *bcmig_check_askable(Oid serverid, Oid role);

#endif							/* BCMIG_ASK_H */
