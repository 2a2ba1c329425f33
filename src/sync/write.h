/*-------------------------------------------------------------------------
 *
 * write.h
 *	  Fast path of apply: rows straight into a plain table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_WRITE_H
#define BCMIG_WRITE_H

#include "catalog.h"
#include "utils/relcache.h"
#include "utils/tuplestore.h"

/* may rows of this table be updated and deleted without a statement? */
extern bool bcmig_write_possible(const BcmigTableInfo *table, Relation rel);

/*
 * Delete the rows of the 'D' keys, or write the 'U' rows where green has not
 * just that; returns how many it was.  "rel" is locked by the caller as a
 * writer would.
 */
extern uint64 bcmig_write_rows(const BcmigTableInfo *table, Relation rel, char op,
							   Tuplestorestate *rows, TupleDesc desc);

#endif							/* BCMIG_WRITE_H */
