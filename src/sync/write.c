/*-------------------------------------------------------------------------
 *
 * write.c
 *	  Fast path of apply: rows straight into a plain table.
 *
 * What DELETE and INSERT ... ON CONFLICT DO UPDATE of apply.c do, without the
 * executor: the key's index is looked at once a row, a row that is equal bit
 * for bit is left alone, constraints are checked, index entries made, deferrable
 * unique keys queued to be checked again.  The pattern is that of logical
 * replication's apply worker (execReplication.c), without its row locks: a row
 * somebody else changes between look and write is looked for again.
 *
 * Only for plain heaps of this server whose columns have just the types of the feed, without
 * transforms, row triggers that would fire, rules, row security, generated columns,
 * defaults of columns blue does not have, or children; and only for owners with
 * the rights on the whole table.  Everything else goes by SQL.  Asked anew for
 * each batch, since any of that may change between two.
 *
 * Memory: an executor state and all that belongs to it per call, freed at its
 * end; what a row needs is in the state's per-tuple context.  After an ERROR
 * the (sub)transaction frees both.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "write.h"

#include "access/genam.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "load.h"
#include "miscadmin.h"
#include "quarantine.h"
#include "reach.h"
#include "storage/lmgr.h"
#include "transform.h"
#include "utils/acl.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

typedef struct Writer
{
	const BcmigTableInfo *table;
	Relation	rel;
	EState	   *estate;
	ResultRelInfo *rri;
	int		   *feed_att;		/* of each target attribute, 0-based; -1 = not in the feed */
	Relation	index;
	MemoryContext context;		/* of the scan, which keeps things from row to row */
	IndexScanDesc scan;
	SnapshotData dirty;
	ScanKeyData keys[INDEX_MAX_KEYS];
	int			key_att[INDEX_MAX_KEYS];	/* feed attribute of each key */
	TupleTableSlot *found;		/* green's row */
	TupleTableSlot *row;		/* what it shall be */
} Writer;

/* would a row trigger have something to say?  Unique keys that are checked later have theirs, which we serve. */
static bool
triggers_fire(Relation rel)
{
	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		const Trigger *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgfoid == F_UNIQUE_KEY_RECHECK)
			continue;

		/* we run with session_replication_role = replica */
		if (trigger->tgenabled == TRIGGER_FIRES_ALWAYS || trigger->tgenabled == TRIGGER_FIRES_ON_REPLICA)
			return true;
	}
	return false;
}

bool
bcmig_write_possible(const BcmigTableInfo *table, Relation rel)
{
	Oid			relid = RelationGetRelid(rel);
	Oid			feed;

	if (rel->rd_rel->relkind != RELKIND_RELATION || rel->rd_rel->relispartition || rel->rd_rel->relhassubclass ||
		rel->rd_rel->relam != HEAP_TABLE_AM_OID || bcmig_reach(rel) != BCMIG_REACH_LOCAL)
		return false;
	if (bcmig_has_transforms(table) || triggers_fire(rel) || !OidIsValid(bcmig_key_index(table, relid)))
		return false;
	if (pg_class_aclmask(relid, GetUserId(), ACL_SELECT | ACL_INSERT | ACL_UPDATE | ACL_DELETE, ACLMASK_ALL) !=
		(ACL_SELECT | ACL_INSERT | ACL_UPDATE | ACL_DELETE))
		return false;
	feed = get_relname_relid(table->feed, get_namespace_oid("bcmig", false));
	return OidIsValid(feed) && bcmig_same_columns(table, rel, feed);
}

static void
writer_begin(Writer *w, const BcmigTableInfo *table, Relation rel, char op)
{
	TupleDesc	desc = RelationGetDescr(rel);

	w->table = table;
	w->rel = rel;
	w->context = CurrentMemoryContext;
	CheckCmdReplicaIdentity(rel, op == 'D' ? CMD_DELETE : CMD_UPDATE);
	CommandCounterIncrement();
	w->estate = bcmig_create_estate(rel, &w->rri);
	w->row = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	w->found = table_slot_create(rel, NULL);
	w->feed_att = palloc(sizeof(int) * desc->natts);
	for (int a = 0; a < desc->natts; a++)
		w->feed_att[a] = -1;
	for (int i = FEED_VERSION; i < table->ncolumns + FEED_COLUMNS; i++)
	{
		int			a = bcmig_target_attribute(table, desc, i);

		if (a >= 0)
			w->feed_att[a] = i;
	}

	w->index = index_open(bcmig_key_index(table, RelationGetRelid(rel)), RowExclusiveLock);
	for (int k = 0; k < IndexRelationGetNumberOfKeyAttributes(w->index); k++)
	{
		int			a = w->index->rd_index->indkey.values[k];
		Oid			opfamily = w->index->rd_opfamily[k];
		Oid			type = w->index->rd_opcintype[k];
		Oid			operator = get_opfamily_member(opfamily, type, type, BTEqualStrategyNumber);

		if (!OidIsValid(operator))
			elog(ERROR, "missing operator %d(%u,%u) in opfamily %u", BTEqualStrategyNumber, type, type, opfamily);
		w->key_att[k] = w->feed_att[a - 1];
		ScanKeyEntryInitialize(&w->keys[k], 0, k + 1, BTEqualStrategyNumber, type,
							   w->index->rd_indcollation[k], get_opcode(operator), (Datum) 0);
	}
	InitDirtySnapshot(w->dirty);
	w->scan = BCMIG_INDEX_BEGINSCAN(rel, w->index, &w->dirty, IndexRelationGetNumberOfKeyAttributes(w->index));
	if (op == 'U')
		ExecOpenIndices(w->rri, false);
	AfterTriggerBeginQuery();
}

static void
writer_end(Writer *w)
{
	/* queues the checks of deferrable keys */
	AfterTriggerEndQuery(w->estate);
	index_endscan(w->scan);
	index_close(w->index, NoLock);
	ExecCloseIndices(w->rri);
	ExecDropSingleTupleTableSlot(w->found);
	ExecDropSingleTupleTableSlot(w->row);
	ExecResetTupleTable(w->estate->es_tupleTable, false);
	FreeExecutorState(w->estate);
	pfree(w->feed_att);
	CommandCounterIncrement();
}

/*
 * The newest row of this key into w->found; false when there is none.  Waits
 * for a transaction that is about to make, change or delete it.
 */
static bool
find_row(Writer *w, TupleTableSlot *slot)
{
	for (;;)
	{
		MemoryContext oldcontext;
		bool		found;
		TransactionId other;

		for (int k = 0; k < w->scan->numberOfKeys; k++)
		{
			/* NULL is never found, as in SQL */
			if (slot->tts_isnull[w->key_att[k]])
				return false;
			w->keys[k].sk_argument = slot->tts_values[w->key_att[k]];
		}
		oldcontext = MemoryContextSwitchTo(w->context);
		index_rescan(w->scan, w->keys, w->scan->numberOfKeys, NULL, 0);
		found = index_getnext_slot(w->scan, ForwardScanDirection, w->found);
		MemoryContextSwitchTo(oldcontext);
		if (!found)
			return false;
		other = TransactionIdIsValid(w->dirty.xmin) ? w->dirty.xmin : w->dirty.xmax;
		if (!TransactionIdIsValid(other))
			return true;
		XactLockTableWait(other, NULL, NULL, XLTW_None);
	}
}

/* true: done; false: look for the row again */
static bool
judge(TM_Result result)
{
	switch (result)
	{
		case TM_Ok:
			return true;
		case TM_Updated:
		case TM_Deleted:
			return false;
		case TM_SelfModified:
		case TM_Invisible:
			ereport(ERROR,
					(errcode(ERRCODE_CARDINALITY_VIOLATION),
					 errmsg("two rows of a window have the same key")));
			break;
		default:
			elog(ERROR, "unexpected result %d of writing a row", result);
	}
	return false;
}

static bool
delete_row(Writer *w, TupleTableSlot *slot)
{
	TM_FailureData failure;

	do
	{
		if (!find_row(w, slot))
			return false;
	} while (!judge(table_tuple_delete(w->rel, &w->found->tts_tid, w->estate->es_output_cid, GetActiveSnapshot(),
									   InvalidSnapshot, true, &failure, false)));
	return true;
}

/*
 * Make w->row of the feed's row and, where they are there, of the columns of
 * green's the feed does not have.  Returns whether it differs from green's.
 */
static bool
make_row(Writer *w, TupleTableSlot *slot, bool found)
{
	TupleDesc	desc = RelationGetDescr(w->rel);
	bool		differs = !found;

	ExecClearTuple(w->row);
	if (found)
		slot_getallattrs(w->found);
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, a);
		Datum		value = (Datum) 0;
		bool		isnull = true;
		int			i = w->feed_att[a];

		if (i >= 0)
		{
			value = slot->tts_values[i];
			isnull = slot->tts_isnull[i];
		}
		if (found && !att->attisdropped)
		{
			Datum		old = w->found->tts_values[a];
			bool		oldnull = w->found->tts_isnull[a];

			/* what is equal stays as it is stored: a long value is not written again */
			if (i < 0 || (isnull == oldnull && (isnull || datum_image_eq(old, value, att->attbyval, att->attlen))))
			{
				value = old;
				isnull = oldnull;
			}
			else
				differs = true;
		}
		w->row->tts_values[a] = value;
		w->row->tts_isnull[a] = isnull;
	}
	ExecStoreVirtualTuple(w->row);
	return differs;
}

static bool
upsert_row(Writer *w, TupleTableSlot *slot)
{
	BCMIG_UPDATE_INDEXES update_indexes;
	TM_FailureData failure;
	LockTupleMode lockmode;
	List	   *recheck = NIL;

	for (;;)
	{
		bool		found = find_row(w, slot);

		if (!make_row(w, slot, found))
			return false;
		w->row->tts_tableOid = RelationGetRelid(w->rel);
		if (w->rel->rd_att->constr != NULL)
			ExecConstraints(w->rri, w->row, w->estate);
		if (!found)
		{
			table_tuple_insert(w->rel, w->row, w->estate->es_output_cid, 0, NULL);
			recheck = BCMIG_INSERT_INDEX_TUPLES(w->rri, w->row, w->estate, false, BCMIG_UPDATE_ALL);
			ExecARInsertTriggers(w->estate, w->rri, w->row, recheck, NULL);
			return true;
		}
		if (judge(table_tuple_update(w->rel, &w->found->tts_tid, w->row, w->estate->es_output_cid, GetActiveSnapshot(),
									 InvalidSnapshot, true, &failure, &lockmode, &update_indexes)))
			break;
	}
	if (w->rri->ri_NumIndices > 0 && update_indexes)
		recheck = BCMIG_INSERT_INDEX_TUPLES(w->rri, w->row, w->estate, true, update_indexes);
	ExecARUpdateTriggers(w->estate, w->rri, NULL, NULL, &w->found->tts_tid, NULL, w->row, recheck, NULL, false);
	return true;
}

uint64
bcmig_write_rows(const BcmigTableInfo *table, Relation rel, char op, Tuplestorestate *rows, TupleDesc desc)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	Writer		w = {0};
	uint64		written = 0;

	writer_begin(&w, table, rel, op);
	tuplestore_select_read_pointer(rows, 0);
	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, slot))
	{
		MemoryContext oldcontext;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (*VARDATA_ANY(DatumGetTextPP(slot->tts_values[FEED_OP])) != op)
			continue;
		oldcontext = MemoryContextSwitchTo(GetPerTupleMemoryContext(w.estate));
		written += op == 'D' ? delete_row(&w, slot) : upsert_row(&w, slot);
		MemoryContextSwitchTo(oldcontext);
		ResetPerTupleExprContext(w.estate);
	}
	ExecDropSingleTupleTableSlot(slot);
	writer_end(&w);
	return written;
}
