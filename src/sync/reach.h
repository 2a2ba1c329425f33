/*-------------------------------------------------------------------------
 *
 * reach.h
 *	  Where the rows of a green table lie, and who may write there how.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_REACH_H
#define BCMIG_REACH_H

#include "catalog.h"
#include "utils/relcache.h"

typedef enum BcmigReach
{
	BCMIG_REACH_LOCAL,			/* here */
	BCMIG_REACH_FOREIGN,		/* some or all through foreign tables: no key over all, no ON CONFLICT */
	BCMIG_REACH_CITUS			/* in shards: what is under this table's own name is an empty shell */
} BcmigReach;

extern BcmigReach bcmig_reach(Relation rel);

/* the same for the target of a table, LOCAL while there is none; in a transaction */
extern BcmigReach bcmig_reach_of(const BcmigTableInfo *table);

/*
 * Is this table, with all its partitions, a heap of this server where an
 * INSERT fires no trigger?
 */
extern bool bcmig_heaps_only(Relation rel);

/* why rows captured like that cannot be kept there, or NULL: all that may change once a table has been added */
extern char *bcmig_reach_refuses(BcmigReach reach, const char *capture, int nkeys);

/*
 * ERROR when rows of this table cannot be kept there, or not by this capture,
 * saying what could be done.  owner: who will write.
 */
extern void bcmig_check_reach(Relation rel, Oid owner, const char *name, const char *capture,
							  int nkeys, const char *const *keys, int ncolumns, const char *const *columns);

#endif							/* BCMIG_REACH_H */
