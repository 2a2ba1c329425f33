/*-------------------------------------------------------------------------
 *
 * apply.h
 *	  Writing spooled rows to green.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_APPLY_H
#define BCMIG_APPLY_H

#include "catalog.h"
#include "receive.h"
#include "statements.h"
#include "utils/elog.h"

typedef struct BcmigApplied
{
	int64		written;
	int64		deleted;
	int64		quarantined;
	int64		refused;		/* rows; a key renamed in vain is none by itself */
	bool		stopped;		/* too many were refused: what came after was not tried */
	char		first_error[BCMIG_TEXT];	/* of the first refused row */
} BcmigApplied;

/*
 * All rows of the spool in the current transaction: deletes, renamed rows,
 * upserts.  ERROR when one row fails.
 */
extern void bcmig_apply_whole(const BcmigTableInfo *table, BcmigSpool *spool,
							  BcmigApplied *applied);

/* what bcmig_apply_batches does, in this order */
#define BCMIG_PASS_DELETE	0x01
#define BCMIG_PASS_RENAME	0x02	/* where deletes are not in the feed */
#define BCMIG_PASS_UPSERT	0x04
#define BCMIG_PASS_INSERT	0x08	/* without looking for the key: during the first copy there is no index */
#define BCMIG_PASSES		(BCMIG_PASS_DELETE | BCMIG_PASS_RENAME | BCMIG_PASS_UPSERT)
#define BCMIG_PASSES_PLAIN	(BCMIG_PASS_DELETE | BCMIG_PASS_INSERT)

/*
 * The same in batches of batch_rows, each in transactions of its own, rows
 * that green refuses to quarantine, until they are most_refused (0 = all of
 * them), those in "applied" before included.  Called outside a transaction.
 */
extern void bcmig_apply_batches(const BcmigTableInfo *table, BcmigSpool *spool,
								int passes, int64 most_refused, BcmigApplied *applied);

/* how many refused rows of one reading suspend the table */
extern int64 bcmig_most_refused(const BcmigTableInfo *table);

/* one row, in the caller's transaction, whatever the journal says; how many were changed */
extern uint64 bcmig_apply_row(const BcmigTableInfo *table, TupleDesc desc, MinimalTuple row,
							  bool delete);

/*
 * Told of the rows of a spool that a transaction writes, in that transaction;
 * NULL, or set by the room above (src/check) for all processes.
 */
typedef void (*BcmigMark) (const BcmigTableInfo *table, Tuplestorestate *rows, TupleDesc desc);
extern BcmigMark bcmig_mark_written;

/* called between two transactions of bcmig_apply_batches; NULL, or set by who applies */
extern void (*bcmig_between_batches) (void);

/* is this an error of one row (of a table or the world otherwise)? */
extern bool bcmig_is_row_error(const ErrorData *edata);

/* a unique key that is not the primary key was violated */
extern bool bcmig_is_secondary_key_error(const BcmigTableInfo *table, const ErrorData *edata);

#endif							/* BCMIG_APPLY_H */
