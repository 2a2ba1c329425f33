/*-------------------------------------------------------------------------
 *
 * remote.h
 *	  Running a statement on blue through a feed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_REMOTE_H
#define BCMIG_REMOTE_H

#include "executor/tuptable.h"
#include "compat.h"
#include "tcop/dest.h"
#include "utils/tuplestore.h"

/* true while a remote statement runs: an ERROR then came from blue */
extern bool bcmig_remote_running;

/* in the context of errors a dialect has explained */
#define BCMIG_BLUE_CONTEXT "statement on blue"

/*
 * Run "sql" on blue through the foreign table "feed" and send its rows to
 * "dest".  Needs a transaction and an active snapshot; the user mapping is
 * that of the current user.  "fetch_size": rows asked for at a time (ignored
 * where the wrapper has no such thing).
 */
extern void bcmig_remote_run(Oid feed, const char *sql, int fetch_size,
							 DestReceiver *dest);

/*
 * Did this error come from blue?  Rows are handed to the receiver while the
 * statement runs, so an error of the receiver is caught there too.
 */
extern bool bcmig_remote_failed(const ErrorData *edata);

/*
 * The same with a text feed: "row" gets 8 texts (NULL for SQL NULL), which are
 * gone after it, as is all it allocates.
 */
typedef void (*BcmigTextRow) (void *arg, char **row);
extern void bcmig_remote_each_text(Oid feed, const char *sql, BcmigTextRow row, void *arg);

/*
 * The same with the rows of a text feed in a list of char *[8] arrays (NULL
 * for SQL NULL), in the current memory context.
 */
extern List *bcmig_remote_texts(Oid feed, const char *sql);

/* ERROR of class blue: what it sent is nothing we know */
pg_noreturn extern void bcmig_bad_answer(const char *detail);

/*
 * A column of such a row, from 0, that blue has to fill in: a text, a number.
 * ERROR of class blue when it is NULL, or no number.
 */
extern char *bcmig_answer_text(char **row, int column);
extern int64 bcmig_answer_int64(char **row, int column);

/*
 * ERROR when a text in this row is not one of the server's encoding: a blue of
 * encoding SQL_ASCII sends what it has.
 */
extern void bcmig_check_encoding(TupleTableSlot *slot);

/* does a row begin with this word?  Not when it begins with NULL */
extern bool bcmig_answer_is(char **row, const char *word);

#endif							/* BCMIG_REMOTE_H */
