/*-------------------------------------------------------------------------
 *
 * errors.h
 *	  The SQLSTATEs of bcmig, class BM.
 *
 * One list, here and in docs/errors.md.  Tests assert these codes, never the
 * message texts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_ERRORS_H
#define BCMIG_ERRORS_H

#define BCMIG_ERRCODE(d3, d4, d5)	MAKE_SQLSTATE('B', 'M', d3, d4, d5)

/* no environment, sync, table, request or quarantine entry of that name */
#define ERRCODE_BM_UNKNOWN_OBJECT		BCMIG_ERRCODE('0', '0', '1')
/* the name, target or source is taken */
#define ERRCODE_BM_DUPLICATE			BCMIG_ERRCODE('0', '0', '2')
/* unknown option, or a value outside its kind or bounds */
#define ERRCODE_BM_OPTION				BCMIG_ERRCODE('0', '0', '3')
/* preflight found a failing check */
#define ERRCODE_BM_PREFLIGHT			BCMIG_ERRCODE('0', '0', '4')
/* bcmig is not in shared_preload_libraries */
#define ERRCODE_BM_NOT_LOADED			BCMIG_ERRCODE('0', '0', '5')
/* blue cannot be reached, or did not answer in time */
#define ERRCODE_BM_UNREACHABLE			BCMIG_ERRCODE('0', '0', '6')
/* blue answered with an error: no grant, no such table, ... */
#define ERRCODE_BM_BLUE					BCMIG_ERRCODE('0', '0', '7')
/* the plan of a feed does not look as this bcmig expects (FDW version) */
#define ERRCODE_BM_FEED_SHAPE			BCMIG_ERRCODE('0', '0', '8')
/* not possible in the present state of the sync or table */
#define ERRCODE_BM_WRONG_STATE			BCMIG_ERRCODE('0', '0', '9')
/* the source or target table does not fit */
#define ERRCODE_BM_UNSUITABLE			BCMIG_ERRCODE('0', '1', '0')
/* bcmig_wait_sync: time is up, or the sync cannot get there */
#define ERRCODE_BM_WAIT					BCMIG_ERRCODE('0', '1', '1')
/* no background worker could be had */
#define ERRCODE_BM_NO_WORKER			BCMIG_ERRCODE('0', '1', '3')
/* blue is not the database it was: another incarnation, or a reset table */
#define ERRCODE_BM_INCARNATION			BCMIG_ERRCODE('0', '1', '4')
/* a value cannot be represented exactly in the target column */
#define ERRCODE_BM_INEXACT				BCMIG_ERRCODE('0', '1', '5')
/* a compressed BLOB or a metadata document of BC that cannot be read */
#define ERRCODE_BM_DAMAGED				BCMIG_ERRCODE('0', '1', '6')
/* blue and green were found not to be equal, or could not be compared */
#define ERRCODE_BM_DIFFERENT			BCMIG_ERRCODE('0', '1', '7')
/* another extension is needed for this, and is not there */
#define ERRCODE_BM_MISSING_EXTENSION	BCMIG_ERRCODE('0', '1', '8')
/* library and SQL of bcmig are of different versions */
#define ERRCODE_BM_VERSION				BCMIG_ERRCODE('0', '1', '9')
/* a write to a green table that is fenced */
#define ERRCODE_BM_FENCED				BCMIG_ERRCODE('0', '2', '1')
/* somebody who wrote before the fence was raised has not ended in time */
#define ERRCODE_BM_FENCE_BLOCKED		BCMIG_ERRCODE('0', '2', '2')
/* the journal cannot be armed, or a statement it cannot record */
#define ERRCODE_BM_JOURNAL				BCMIG_ERRCODE('0', '2', '3')
/* a row of blue meets an outside write on green; never leaves a worker */
#define ERRCODE_BM_CONFLICT				BCMIG_ERRCODE('0', '2', '4')
/* a weight that cannot be set, or not now */
#define ERRCODE_BM_TRAFFIC				BCMIG_ERRCODE('0', '3', '0')

/* a plan that cannot be made as it is written */
#define ERRCODE_BM_PLAN					BCMIG_ERRCODE('0', '3', '1')

#endif							/* BCMIG_ERRORS_H */
