/*-------------------------------------------------------------------------
 *
 * elsewhere.h
 *	  Statements that write rows to tables whose rows lie elsewhere.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_ELSEWHERE_H
#define BCMIG_ELSEWHERE_H

#include "executor/spi.h"
#include "reach.h"
#include "statements.h"

/*
 * What bcmig_run_statement does, where bcmig_reach() is not LOCAL.  plans:
 * BCMIG_PLANS of them, NULL until they are needed, kept by the caller.
 */
extern uint64 bcmig_write_elsewhere(const BcmigTableInfo *table, Relation rel, BcmigReach reach, BcmigStatement which,
									Tuplestorestate *rows, TupleDesc feed, SPIPlanPtr *plans);

#endif							/* BCMIG_ELSEWHERE_H */
