/*-------------------------------------------------------------------------
 *
 * load.c
 *	  Fast path of the copy: rows straight into the heap, many at a time.
 *
 * The pattern is that of COPY (copyfrom.c): rows are collected in slots and
 * written with table_multi_insert, per leaf partition where the target is
 * partitioned; constraints are checked row by row, index entries follow each
 * batch (during the first copy there are none).  Feed and target must have the
 * same types; defaults, generated columns, row triggers, row security and what
 * is no heap of this server (reach.c) go the SQL way (apply.c) instead.
 *
 * Memory: everything lives in the loader's context, which is a child of the
 * transaction's; buffered rows are bounded by count and bytes.  An ERROR needs
 * no cleanup here: the transaction's abort frees context and pins.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "load.h"
#include "reach.h"
#include "slot.h"

#include "access/heapam.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "executor/execPartition.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"

#define MAX_BUFFERED_TUPLES		1000
#define MAX_BUFFERED_BYTES		65535
#define MAX_LEAF_BUFFERS		32
#define PROGRESS_EVERY			1000

/* rows collected for one heap */
typedef struct LeafBuffer
{
	ResultRelInfo *rri;
	BulkInsertState bistate;
	int			nused;
	TupleTableSlot *slots[MAX_BUFFERED_TUPLES];
} LeafBuffer;

struct BcmigLoader
{
	BcmigReceiver receiver;		/* must be first */
	MemoryContext context;
	const BcmigTableInfo *table;
	Relation	rel;
	EState	   *estate;
	ModifyTableState *mtstate;
	ResultRelInfo *rri;
	PartitionTupleRouting *routing; /* NULL: a plain table */
	TupleTableSlot *root_slot;	/* partitioned: the row before routing */
	int		   *attno;			/* feed attribute -> target attribute, 0-based, -1 = none */
	int			nattrs;			/* of the feed */
	List	   *buffers;
	LeafBuffer *last;
	int			buffered_tuples;
	Size		buffered_bytes;
	CommandId	cid;
	int64		rows;
	int64		bytes;
};

int
bcmig_target_attribute(const BcmigTableInfo *table, TupleDesc desc, int i)
{
	const char *name = i == FEED_VERSION ? "bc_rowversion" : table->columns[i - FEED_COLUMNS].target;

	if (i >= FEED_COLUMNS && table->columns[i - FEED_COLUMNS].transform == BCMIG_DROP)
		return -1;
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, a);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return a;
	}
	return -1;
}

bool
bcmig_load_possible(const BcmigTableInfo *table, Relation rel, Oid feed)
{
	return bcmig_heaps_only(rel) && bcmig_same_columns(table, rel, feed);
}

bool
bcmig_same_columns(const BcmigTableInfo *table, Relation rel, Oid feed)
{
	TupleDesc	desc = RelationGetDescr(rel);
	bool	   *filled = palloc0(sizeof(bool) * desc->natts);
	Relation	feedrel;
	bool		possible = table->row_filter == NULL;

	if (rel->rd_rel->relhasrules)
		return false;
	if (check_enable_rls(RelationGetRelid(rel), InvalidOid, true) == RLS_ENABLED)
		return false;

	feedrel = table_open(feed, AccessShareLock);
	for (int i = FEED_VERSION; i < table->ncolumns + FEED_COLUMNS && possible; i++)
	{
		int			a = bcmig_target_attribute(table, desc, i);
		Form_pg_attribute from = TupleDescAttr(RelationGetDescr(feedrel), i);
		const BcmigColumn *c = i >= FEED_COLUMNS ? &table->columns[i - FEED_COLUMNS] : NULL;
		Form_pg_attribute to;

		if (a < 0)
		{
			/* older targets may lack bc_rowversion */
			possible &= c == NULL || c->transform == BCMIG_DROP;
			continue;
		}
		to = TupleDescAttr(desc, a);
		filled[a] = true;
		possible = (c == NULL || c->transform == BCMIG_AS_IS) && from->atttypid == to->atttypid &&
			(from->atttypmod == to->atttypmod || to->atttypmod == -1) && !to->attgenerated;
	}
	table_close(feedrel, AccessShareLock);

	for (int a = 0; a < desc->natts && possible; a++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, a);

		if (!att->attisdropped && !filled[a] &&
			(att->atthasdef || att->attidentity || att->attgenerated))
			possible = false;
	}
	pfree(filled);
	return possible;
}

EState *
bcmig_create_estate(Relation rel, ResultRelInfo **rri)
{
	EState	   *estate = CreateExecutorState();
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(rel);
	rte->relkind = rel->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
	BCMIG_INIT_RANGE_TABLE(estate, rte);
	*rri = makeNode(ResultRelInfo);
	InitResultRelInfo(*rri, rel, 1, NULL, 0);
	estate->es_output_cid = GetCurrentCommandId(true);
	return estate;
}

static void
flush_buffer(BcmigLoader *loader, LeafBuffer *buffer)
{
	EState	   *estate = loader->estate;
	MemoryContext oldcontext;

	/* table_multi_insert leaks; the per-tuple context takes it */
	oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(estate));
	table_multi_insert(buffer->rri->ri_RelationDesc, buffer->slots, buffer->nused,
					   loader->cid, 0, buffer->bistate);
	MemoryContextSwitchTo(oldcontext);

	for (int i = 0; i < buffer->nused; i++)
	{
		if (buffer->rri->ri_NumIndices > 0)
			list_free(BCMIG_INSERT_INDEX_TUPLES(buffer->rri, buffer->slots[i], estate, false, BCMIG_UPDATE_ALL));
		ExecClearTuple(buffer->slots[i]);
	}
	buffer->nused = 0;
	ResetPerTupleExprContext(estate);
}

static void
drop_buffer(LeafBuffer *buffer)
{
	FreeBulkInsertState(buffer->bistate);
	for (int i = 0; i < MAX_BUFFERED_TUPLES && buffer->slots[i] != NULL; i++)
		ExecDropSingleTupleTableSlot(buffer->slots[i]);
	table_finish_bulk_insert(buffer->rri->ri_RelationDesc, 0);
	pfree(buffer);
}

/*
 * Write everything collected; keep at most MAX_LEAF_BUFFERS buffers.
 */
static void
flush(BcmigLoader *loader)
{
	ListCell   *lc;

	foreach(lc, loader->buffers)
	{
		LeafBuffer *buffer = lfirst(lc);

		if (buffer->nused > 0)
			flush_buffer(loader, buffer);
	}
	loader->buffered_tuples = 0;
	loader->buffered_bytes = 0;
	while (list_length(loader->buffers) > MAX_LEAF_BUFFERS)
	{
		LeafBuffer *buffer = linitial(loader->buffers);

		if (buffer == loader->last)
			loader->last = NULL;
		drop_buffer(buffer);
		loader->buffers = list_delete_first(loader->buffers);
	}
}

static LeafBuffer *
buffer_of(BcmigLoader *loader, ResultRelInfo *rri)
{
	ListCell   *lc;
	LeafBuffer *buffer;

	if (loader->last != NULL && loader->last->rri == rri)
		return loader->last;
	foreach(lc, loader->buffers)
	{
		buffer = lfirst(lc);
		if (buffer->rri == rri)
			return loader->last = buffer;
	}
	buffer = palloc0(sizeof(LeafBuffer));
	buffer->rri = rri;
	buffer->bistate = GetBulkInsertState();
	loader->buffers = lappend(loader->buffers, buffer);
	return loader->last = buffer;
}

/* feed row -> values of the target row */
static void
fill(BcmigLoader *loader, TupleTableSlot *from, TupleTableSlot *to)
{
	ExecClearTuple(to);
	memset(to->tts_isnull, true, sizeof(bool) * to->tts_tupleDescriptor->natts);
	for (int i = FEED_VERSION; i < loader->nattrs; i++)
	{
		int			a = loader->attno[i];

		if (a >= 0)
		{
			to->tts_values[a] = from->tts_values[i];
			to->tts_isnull[a] = from->tts_isnull[i];
		}
	}
	ExecStoreVirtualTuple(to);
}

static void
load_row(BcmigReceiver *self, TupleTableSlot *feed_slot, char op)
{
	BcmigLoader *loader = (BcmigLoader *) self;
	MemoryContext oldcontext = MemoryContextSwitchTo(loader->context);
	ResultRelInfo *rri = loader->rri;
	LeafBuffer *buffer;
	TupleTableSlot *slot;
	HeapTuple	tuple;

	if (loader->routing != NULL)
	{
		fill(loader, feed_slot, loader->root_slot);
		rri = ExecFindPartition(loader->mtstate, loader->rri, loader->routing,
								loader->root_slot, loader->estate);
	}
	buffer = buffer_of(loader, rri);
	slot = buffer->slots[buffer->nused];
	if (slot == NULL)
		slot = buffer->slots[buffer->nused] = table_slot_create(rri->ri_RelationDesc, NULL);

	if (loader->routing == NULL)
		fill(loader, feed_slot, slot);
	else
	{
		TupleConversionMap *map = BCMIG_ROOT_TO_PARTITION_MAP(rri, loader->estate);

		if (map != NULL)
			execute_attr_map_slot(map->attrMap, loader->root_slot, slot);
		else
			ExecCopySlot(slot, loader->root_slot);
	}
	slot->tts_tableOid = RelationGetRelid(rri->ri_RelationDesc);

	if (rri->ri_RelationDesc->rd_att->constr != NULL)
		ExecConstraints(rri, slot, loader->estate);

	/* the feed's memory is reused for the next row */
	ExecMaterializeSlot(slot);
	tuple = ExecFetchSlotHeapTuple(slot, false, NULL);
	buffer->nused++;
	loader->buffered_tuples++;
	loader->buffered_bytes += tuple->t_len;
	loader->bytes += tuple->t_len;
	if (buffer->nused >= MAX_BUFFERED_TUPLES ||
		loader->buffered_tuples >= MAX_BUFFERED_TUPLES ||
		loader->buffered_bytes >= MAX_BUFFERED_BYTES)
		flush(loader);
	if (++loader->rows % PROGRESS_EVERY == 0)
		bcmig_slot_progress(loader->rows);
	MemoryContextSwitchTo(oldcontext);
}

static void
load_start(BcmigReceiver *self, TupleDesc desc)
{
	BcmigLoader *loader = (BcmigLoader *) self;

	if (desc->natts != loader->nattrs)
		elog(ERROR, "feed of %s has %d columns, expected %d",
			 loader->table->target_name, desc->natts, loader->nattrs);
}

/*
 * "rel" is open and locked by the caller until the transaction ends.  Needs
 * an active snapshot.  The current user must be allowed to insert.
 */
BcmigLoader *
bcmig_loader_begin(const BcmigTableInfo *table, Relation rel)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bcmig load",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	BcmigLoader *loader = palloc0(sizeof(BcmigLoader));
	AclResult	acl = pg_class_aclcheck(RelationGetRelid(rel), GetUserId(), ACL_INSERT);

	if (acl != ACLCHECK_OK)
		aclcheck_error(acl, get_relkind_objtype(rel->rd_rel->relkind),
					   RelationGetRelationName(rel));

	bcmig_receiver_init(&loader->receiver, load_start, load_row);
	loader->context = context;
	loader->table = table;
	loader->rel = rel;
	loader->cid = GetCurrentCommandId(true);
	loader->nattrs = table->ncolumns + FEED_COLUMNS;
	loader->attno = palloc(sizeof(int) * loader->nattrs);
	for (int i = FEED_VERSION; i < loader->nattrs; i++)
		loader->attno[i] = bcmig_target_attribute(table, RelationGetDescr(rel), i);

	loader->estate = bcmig_create_estate(rel, &loader->rri);
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
	{
		loader->mtstate = makeNode(ModifyTableState);
		loader->mtstate->ps.state = loader->estate;
		loader->mtstate->operation = CMD_INSERT;
		loader->mtstate->mt_nrels = 1;
		loader->mtstate->resultRelInfo = loader->rri;
		loader->mtstate->rootResultRelInfo = loader->rri;
		loader->routing = ExecSetupPartitionTupleRouting(loader->estate, rel);
		loader->root_slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	}
	else
		ExecOpenIndices(loader->rri, false);
	MemoryContextSwitchTo(oldcontext);
	return loader;
}

BcmigReceiver *
bcmig_loader_receiver(BcmigLoader *loader)
{
	return &loader->receiver;
}

void
bcmig_loader_end(BcmigLoader *loader, int64 *rows, int64 *bytes)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(loader->context);
	ListCell   *lc;

	flush(loader);
	foreach(lc, loader->buffers)
		drop_buffer(lfirst(lc));
	if (loader->routing != NULL)
	{
		ExecCleanupTupleRouting(loader->mtstate, loader->routing);
		ExecDropSingleTupleTableSlot(loader->root_slot);
	}
	else
		ExecCloseIndices(loader->rri);
	ExecResetTupleTable(loader->estate->es_tupleTable, false);
	FreeExecutorState(loader->estate);
	*rows = loader->rows;
	*bytes = loader->bytes;
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(loader->context);
}
