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
#include "nodes/execnodes.h"
#include "receive.h"
#include "utils/relcache.h"

typedef struct BcmigLoader BcmigLoader;

/* may rows of this table go straight into the heap? */
extern bool bcmig_load_possible(const BcmigTableInfo *table, Relation rel, Oid feed);

/*
 * Does the target hold the feed's values just as they come: the same types,
 * nothing generated, no default for what the feed does not have, no rules, no
 * row security?
 */
extern bool bcmig_same_columns(const BcmigTableInfo *table, Relation rel, Oid feed);

/* 0-based target attribute of feed attribute i, or -1 */
extern int	bcmig_target_attribute(const BcmigTableInfo *table, TupleDesc desc, int i);

/* an executor state to write into one relation the caller has open (the model is worker.c:create_edata_for_relation) */
extern EState *bcmig_create_estate(Relation rel, ResultRelInfo **rri);

/* start, receive through bcmig_loader_receiver(), end; one transaction */
extern BcmigLoader *bcmig_loader_begin(const BcmigTableInfo *table, Relation rel);
extern BcmigReceiver *bcmig_loader_receiver(BcmigLoader *loader);
extern void bcmig_loader_end(BcmigLoader *loader, int64 *rows, int64 *bytes);

#endif							/* BCMIG_LOAD_H */
