/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  What the jobs of a worker share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_WORKER_H
#define BCMIG_WORKER_H

#include "apply.h"
#include "catalog.h"
#include "dialect.h"
#include "receive.h"
#include "state.h"
#include "storage/lockdefs.h"

/* one table, as a job sees it; lives until configuration changes */
typedef struct BcmigWork
{
	BcmigTableInfo *table;
	Oid			feed;
	const BcmigDialect *dialect;
	int64		request_id;		/* of the present job, or 0 */
	bool		unbounded;		/* has columns of any length: fetch them one by one */
} BcmigWork;

/*
 * The applier lock of a table (rule R1): held from before a remote read starts
 * until its rows have committed.  Session level, so it outlives the
 * transaction of the read.  Copy chunks take it shared (ShareLock), those who
 * apply one window together in a mode that shuts out all others
 * (RowExclusiveLock, shard.c).
 */
extern void bcmig_applier_lock(const BcmigWork *work, LOCKMODE mode);
extern bool bcmig_applier_try_lock(const BcmigWork *work, LOCKMODE mode);
extern void bcmig_applier_unlock(const BcmigWork *work, LOCKMODE mode);

/* are the table's transforms and row filter still what "table" says?  In a transaction. */
extern bool bcmig_same_mapping(const BcmigTableInfo *table);

/*
 * Rows of blue are about to be applied, under the applier lock: entries that have
 * been sent to blue by somebody who did not live to settle them are settled, so
 * that what comes back is not taken for a change of blue.  In no transaction.
 */
extern void bcmig_hear_blue(BcmigWork *work);

/* run a statement of the dialect through the table's feed, in a transaction */
extern void bcmig_read(BcmigWork *work, const char *sql, int64 row_bytes,
					   BcmigReceiver *receiver);

/* ERROR when the rows came from another incarnation than "reading" */
extern void bcmig_check_same_blue(const BcmigReading *reading, const BcmigSigns *signs);

/* what a job needs to know of a table, in "context"; NULL when it is gone.  In no transaction. */
extern BcmigWork *bcmig_load_work(int table_id, MemoryContext context);

/* is the sync being stopped? */
extern bool bcmig_stopping(const BcmigWork *work);

/* must a job that can wait end here, since blue answers slowly?  Then the worker is shown as throttled. */
extern bool bcmig_held_back(const BcmigWork *work);

/* of what such a job reads at a time: so many ms, less while blue is in trouble */
extern int64 bcmig_gentle_ms(const BcmigWork *work, int64 ms);

/* for bcmig.metric: rows whose transaction has committed; bytes: 0 = not known */
extern void bcmig_count_rows(const BcmigWork *work, const BcmigApplied *applied, int64 bytes);

/* append to bcmig.sync_batch; in a transaction */
extern void bcmig_log_batch(const BcmigWork *work, const char *kind,
							TimestampTz started, const char *status,
							int64 rows_read, const BcmigApplied *applied,
							const BcmigStored *from, const BcmigReading *to,
							const char *error);

/*
 * What the room above does when it is there (src/check): jobs of kind CHECK,
 * RULES and REPAIR (false: its request stays, the sync is being stopped), what
 * is to be done when one of them fails, and marks of what was written, in the
 * transaction that wrote it.
 *
 * unschedule: a sync is dropped, its scheduled validations go; returns the
 * statement for it, also in a dry run, or NULL when there is nothing to do.
 */
typedef struct BcmigCheckRoom
{
	void		(*check) (BcmigWork *work);
	void		(*rules) (int sync_id);
	bool		(*repair) (BcmigWork *work);
	void		(*failed) (const BcmigJob *job, const ErrorData *edata, bool passing);
	char	   *(*unschedule) (int sync_id, const char *sync_name, bool dry_run);
} BcmigCheckRoom;

extern const BcmigCheckRoom *bcmig_check_room;

/* look.c */
extern void bcmig_run_look(int sync_id);
extern void bcmig_look_failed(int sync_id, const ErrorData *edata);

/* make.c */
extern void bcmig_run_make(int sync_id, int *current);

/*
 * window.c.  aside: beside the big window of another table, whose applier lock
 * is held, so nothing is waited for and nothing big is done.
 */
extern void bcmig_run_windows(BcmigWork **works, int n, bool aside);

/* between two transactions of a big window: small ones of other tables, when the manager has given some */
extern void bcmig_run_aside(void);
extern void bcmig_reread_keys(BcmigWork *work, const char *kind, int n, char **keys,
							  BcmigApplied *applied);
extern void bcmig_run_retry(BcmigWork *work);

/*
 * Apply a spool: as one transaction where it has not more than most_whole rows
 * and nothing is wrong with it, else in batches.  "last" runs in the
 * transaction that ends it.  window: not a re-read of keys nor a compare; such a
 * one stops when too many rows are refused, and returns false when the next one
 * shall try again.
 */
typedef void (*BcmigLastStep) (BcmigWork *work, BcmigSpool *spool, BcmigApplied *applied, void *arg);
extern bool bcmig_apply_spool(BcmigWork *work, BcmigSpool *spool, BcmigApplied *applied, int64 most_whole,
							  bool window, BcmigLastStep last, void *arg);

/* resolve.c */
extern void bcmig_run_resolve(BcmigWork *work);

/* re-read the rows a unique key has refused: what stood in their way may be gone */
extern void bcmig_retry_unique(BcmigWork *work);

/* copy.c, keys.c */
extern void bcmig_run_copy(BcmigWork *work);
extern void bcmig_run_analyze(BcmigWork *work);
extern Oid	bcmig_target_relid(const BcmigTableInfo *table);
extern void bcmig_drop_key(BcmigWork *work);
extern void bcmig_build_key(BcmigWork *work);
extern void bcmig_build_secondary(BcmigWork *work);
extern void bcmig_build_secondary_now(const BcmigTableInfo *table);

/* sweep.c: false when the breaker suspended the table */
extern bool bcmig_run_sweep(BcmigWork *work);

/*
 * Invariant 8: why so many deletes need a person's word, or NULL.  In a
 * transaction.  bcmig_count_deletes: D rows of a spool that green has.
 */
extern char *bcmig_breaker(const BcmigWork *work, int64 deletes, bool blue_is_empty);
extern int64 bcmig_count_deletes(const BcmigWork *work, BcmigSpool *spool);

#endif							/* BCMIG_WORKER_H */
