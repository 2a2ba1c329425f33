/*-------------------------------------------------------------------------
 *
 * load.h
 *	  Fast path of the copy: rows straight into the heap.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_LOAD_H
#define BCMIG_LOAD_H

#include "catalog.h"
#include "receive.h"
#include "utils/relcache.h"

typedef struct BcmigLoader BcmigLoader;

/* may rows of this table go straight into the heap? */
extern bool bcmig_load_possible(const BcmigTableInfo *table, Relation rel, Oid feed);

/* start, receive through bcmig_loader_receiver(), end; one transaction */
extern BcmigLoader *bcmig_loader_begin(const BcmigTableInfo *table, Relation rel);
extern BcmigReceiver *bcmig_loader_receiver(BcmigLoader *loader);
extern void bcmig_loader_end(BcmigLoader *loader, int64 *rows, int64 *bytes);

#endif							/* BCMIG_LOAD_H */
