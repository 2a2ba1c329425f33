/*-------------------------------------------------------------------------
 *
 * quarantine.h
 *	  Rows green refuses, and the ladder from row to table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_QUARANTINE_H
#define BCMIG_QUARANTINE_H

#include "access/htup.h"
#include "apply.h"
#include "catalog.h"
#include "receive.h"

/* record a row; in a transaction, which decides whether it is recorded */
extern void bcmig_quarantine_row(const BcmigTableInfo *table, TupleDesc desc,
								 MinimalTuple row, const char *operation,
								 const ErrorData *edata);

/*
 * A newer state of these rows was applied: their entries go, but for those
 * recorded since "since", by bcmig_forward_time().  In a transaction.
 */
extern void bcmig_quarantine_settle(const BcmigTableInfo *table, BcmigSpool *spool,
									TimestampTz since);

/* key of a row of the feed's shape as a jsonb array of texts */
extern char *bcmig_row_key(const BcmigTableInfo *table, TupleTableSlot *slot);
extern char *bcmig_key_json(const BcmigTableInfo *table, TupleDesc desc, const Datum *values, const bool *isnull);

/* the row itself, from attribute "first" on, as a jsonb object of texts; long ones by their length */
extern char *bcmig_image_json(TupleDesc desc, int first, const Datum *values, const bool *isnull);

/*
 * After a batch that began at "started" was logged, in its transaction: why
 * the table has to be suspended, or NULL.
 */
extern char *bcmig_ladder(const BcmigTableInfo *table, TimestampTz started,
						  const BcmigApplied *applied);

/* how many entries a table has, read into its live entry too; in a transaction */
extern int64 bcmig_quarantine_count(const BcmigTableInfo *table);

/* the unique, immediate index of exactly the key columns, or InvalidOid */
extern Oid	bcmig_key_index(const BcmigTableInfo *table, Oid relid);

#endif							/* BCMIG_QUARANTINE_H */
