/*-------------------------------------------------------------------------
 *
 * report.h
 *	  What the files of src/report share.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_REPORT_H
#define BCMIG_REPORT_H

#include "catalog.h"

/*
 * Lags are kept in buckets so that a percentile of many minutes can be told:
 * bucket 0 is below 1 ms, each further one is 2^(1/4) times as wide, the last
 * has everything from 17 minutes on.
 */
#define BCMIG_LAG_BUCKETS		82
#define BCMIG_BUCKETS_AN_OCTAVE	4

/* the upper edge of a bucket, in ms */
extern double bcmig_bucket_edge(int bucket);

/* registers bcmig_report_room; once, when the library is loaded */
extern void bcmig_metrics_init(void);

/* in a statement: a time, for people and programs */
#define BCMIG_AT(time)	"to_char(" time ", 'YYYY-MM-DD HH24:MI:SSOF')"

/* rollback_report.c: can each of these syncs (int4[]) be rolled back?  Inside a scope */
struct BcmigPart;
extern void bcmig_rollback_readiness(struct BcmigPart *in, Datum syncs);

/*
 * migration_plots.c: inside a scope; syncs: int4[] of their ids, execution 0 =
 * none.  All plots of a migration in a section; rows and lag of the time of the
 * execution, or of the last seconds (0 = all).
 */
extern void bcmig_metric_plots(struct BcmigPart *in, Datum syncs, int nsyncs, int64 execution, int seconds);
extern void bcmig_migration_plots(struct BcmigPart *document, Datum syncs, int nsyncs, int64 execution);

#endif							/* BCMIG_REPORT_H */
