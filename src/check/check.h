/*-------------------------------------------------------------------------
 *
 * check.h
 *	  Validation: what its files share.
 *
 * A run (bcmig.validation_run) is a set of tables (bcmig.validation_result) to
 * compare, then rules.  Workers take both as jobs, when nothing more urgent is
 * due; all that has been found out is in the catalogue, so a crash repeats one
 * group of chunks or one rule.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_CHECK_H
#define BCMIG_CHECK_H

#include "worker.h"

/* a run whose tables have all been compared and whose rules have not been looked at */
typedef struct BcmigRun
{
	int64		run_id;
	int			sync_id;
	char	   *sync_name;
	char	   *mode;			/* count, incremental, full */
	int			table_id;		/* 0 = all */
} BcmigRun;

/* run.c: hands the jobs of this room to the workers; once, when the library is loaded */
extern void bcmig_check_init(void);

/* sync and owner of a run; ERROR when there is none */
extern void bcmig_run_sync(int64 run_id, char **sync_name, Oid *owner);

/* the oldest run of a sync that is ready for its rules, in the current context; NULL = none.  In a transaction. */
extern BcmigRun *bcmig_run_ready(int sync_id);

/* all is known: store the verdict.  In a transaction. */
extern void bcmig_run_finish(const BcmigRun *run);

/* validate.c */
extern void bcmig_run_check(BcmigWork *work);

/* rules.c */
extern void bcmig_run_rules(int sync_id);

/* repair.c */
extern void bcmig_run_repair(BcmigWork *work);

#endif							/* BCMIG_CHECK_H */
