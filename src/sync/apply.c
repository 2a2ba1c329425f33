/*-------------------------------------------------------------------------
 *
 * apply.c
 *	  Writing spooled rows to green, set-wise (statements.c), a batch at a time.
 *
 * A window arrives with one state per key, the last one, read after the table's
 * applier lock was taken (rule R1), so it is applied as it is.  Unique keys
 * beside the primary key are deferrable; SET CONSTRAINTS ALL IMMEDIATE at the
 * end of each batch brings their errors to where a row can be blamed.
 *
 * When a statement fails, the batch is halved in subtransactions down to the
 * row, which goes to quarantine.  At most MAX_SUBXACTS of them a transaction:
 * beyond 64 every other session's snapshots get slow.  Committing in between is
 * fine, the position moves last.
 *
 * What was written is looked up in the journal of outside writes afterwards,
 * with a newer snapshot: one that was not committed when the statement began
 * may have held the row's lock until it was.  Rows that meet one are rolled
 * back and go to conflict.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "apply.h"
#include "applier_lock.h"
#include "conflict.h"
#include "quarantine.h"
#include "transform.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#define MAX_SUBXACTS		60
#define BATCHES_A_TRANSACTION	10	/* each is a subtransaction or more */
#define ROWS_A_TRANSACTION	10000	/* other tables wait for its end */
#define BATCH_BYTES			(8 * 1024 * 1024)	/* rows of a batch are in memory at once */

BcmigMark	bcmig_mark_written = NULL;
void		(*bcmig_between_batches) (void) = NULL;

static bool
needs_rename(const BcmigTableInfo *table)
{
	return table->identity_column >= 0 && strcmp(table->capture, "rowversion") == 0;
}

/* SET CONSTRAINTS ALL, parsed once */
static void
constraints(bool deferred)
{
	static SPIPlanPtr plans[2];

	if (plans[deferred] == NULL)
	{
		SPIPlanPtr	plan = SPI_prepare(deferred ? "SET CONSTRAINTS ALL DEFERRED" :
									   "SET CONSTRAINTS ALL IMMEDIATE", 0, NULL);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		plans[deferred] = plan;
	}
	if (SPI_execute_plan(plans[deferred], NULL, NULL, false, 0) < 0)
		elog(ERROR, "SET CONSTRAINTS failed");
}

/* ---- applying ---- */

/* run BCMIG_STMT_RENAME; the keys of the rows it deleted, or NULL */
static ArrayBuildState *
rename_rows(const BcmigTableInfo *table, Tuplestorestate *rows, TupleDesc feed, uint64 *deleted, MemoryContext context)
{
	ArrayBuildState *keys = NULL;

	*deleted = bcmig_run_statement(table, rows, feed, BCMIG_STMT_RENAME);
	for (uint64 i = 0; i < *deleted; i++)
		keys = accumArrayResult(keys, CStringGetTextDatum(bcmig_get_text(i, 1)), false, TEXTOID, context);
	return keys;
}

void
bcmig_apply_whole(const BcmigTableInfo *table, BcmigSpool *spool, BcmigApplied *applied)
{
	MemoryContext caller = CurrentMemoryContext;
	ArrayBuildState *renamed = NULL;
	BcmigMet	met;
	uint64		n;
	Tuplestorestate *rows;
	TupleDesc	desc;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rows = bcmig_transform_rows(table, spool->store, spool->desc, &desc);
	bcmig_register_rows(rows, desc);
	constraints(true);
	if (spool->deletes > 0 || table->row_filter != NULL)
		applied->deleted += bcmig_run_statement(table, rows, desc, BCMIG_STMT_DELETE);
	if (spool->upserts > 0)
	{
		if (needs_rename(table))
		{
			renamed = rename_rows(table, rows, desc, &n, caller);
			applied->deleted += n;
		}
		applied->written += bcmig_run_statement(table, rows, desc, BCMIG_STMT_UPSERT);
	}
	constraints(false);
	if (rows != spool->store)
		tuplestore_end(rows);
	SPI_finish();
	if (bcmig_journal_met(table, spool->store, spool->desc, renamed, &met))
		ereport(ERROR,
				(errcode(ERRCODE_BM_CONFLICT),
				 errmsg("rows of blue for %s meet outside writes", table->target_name)));
	if (bcmig_mark_written != NULL)
		bcmig_mark_written(table, spool->store, spool->desc);
}

bool
bcmig_is_row_error(const ErrorData *edata)
{
	int			category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);

	return category == ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_CARDINALITY_VIOLATION) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_PROGRAM_LIMIT_EXCEEDED) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_WITH_CHECK_OPTION_VIOLATION) ||
		category == ERRCODE_TO_CATEGORY(ERRCODE_PLPGSQL_ERROR) ||
		edata->sqlerrcode == ERRCODE_BM_INEXACT || edata->sqlerrcode == ERRCODE_BM_CONFLICT;
}

bool
bcmig_is_secondary_key_error(const BcmigTableInfo *table, const ErrorData *edata)
{
	Oid			relid;
	Oid			pkey;

	if (edata->sqlerrcode != ERRCODE_UNIQUE_VIOLATION || edata->constraint_name == NULL)
		return false;
	relid = get_relname_relid(table->target_table,
							  get_namespace_oid(table->target_schema, true));
	pkey = OidIsValid(relid) ? bcmig_key_index(table, relid) : InvalidOid;
	return !OidIsValid(pkey) || strcmp(get_rel_name(pkey), edata->constraint_name) != 0;
}

/* one pass over a batch: what it does to which rows */
typedef struct Batch
{
	const BcmigTableInfo *table;
	TupleDesc	desc;
	BcmigStatement statement;
	MinimalTuple *rows;
	MemoryContext context;		/* of rows; reset per batch */
	int			subxacts;		/* in the present transaction */
	int64		most_refused;	/* 0 = no bound */
	BcmigApplied *applied;
} Batch;

/*
 * Write rows [from, to) of a batch.  *filtered are rows the row filter took off
 * green.  met: whether they meet outside writes is looked up and left to the
 * caller, who rolls back; NULL = of no interest.
 */
static uint64
write_rows(const Batch *batch, int from, int to, uint64 *filtered, BcmigMet *met)
{
	MemoryContext caller = CurrentMemoryContext;
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(batch->desc, &TTSOpsMinimalTuple);
	bool		rename = batch->statement == BCMIG_STMT_RENAME;
	ArrayBuildState *renamed = NULL;
	Tuplestorestate *rows;
	TupleDesc	desc;
	uint64		processed;
	bool		conflict = false;

	for (int i = from; i < to; i++)
	{
		ExecStoreMinimalTuple(batch->rows[i], slot, false);
		tuplestore_puttupleslot(store, slot);
	}
	ExecDropSingleTupleTableSlot(slot);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	rows = bcmig_transform_rows(batch->table, store, batch->desc, &desc);
	bcmig_register_rows(rows, desc);
	constraints(true);
	*filtered = 0;
	if (batch->table->row_filter != NULL && batch->statement == BCMIG_STMT_UPSERT)
		*filtered = bcmig_run_statement(batch->table, rows, desc, BCMIG_STMT_DELETE);
	if (rename)
		renamed = rename_rows(batch->table, rows, desc, &processed, caller);
	else
		processed = bcmig_run_statement(batch->table, rows, desc, batch->statement);
	constraints(false);
	if (rows != store)
		tuplestore_end(rows);
	SPI_finish();
	if (met != NULL)
		conflict = bcmig_journal_met(batch->table, rename ? NULL : store, batch->desc, renamed, met);
	if (!conflict && bcmig_mark_written != NULL)
		bcmig_mark_written(batch->table, store, batch->desc);
	tuplestore_end(store);
	return processed;
}

uint64
bcmig_apply_row(const BcmigTableInfo *table, TupleDesc desc, MinimalTuple row, bool delete)
{
	Batch		batch = {0};
	uint64		filtered;
	uint64		written;

	batch.table = table;
	batch.desc = desc;
	batch.statement = delete ? BCMIG_STMT_DELETE : BCMIG_STMT_UPSERT;
	batch.rows = &row;
	written = write_rows(&batch, 0, 1, &filtered, NULL);
	return written + filtered;
}

static void apply_range(Batch *batch, int from, int to);

static void
apply_halves(Batch *batch, int from, int to)
{
	int			middle = from + (to - from) / 2;

	apply_range(batch, from, middle);
	apply_range(batch, middle, to);
}

/* green refuses a row: quarantine, and perhaps the end of the batch */
static void
refuse_row(Batch *batch, MinimalTuple row, ErrorData *edata)
{
	bcmig_quarantine_row(batch->table, batch->desc, row,
						 batch->statement == BCMIG_STMT_DELETE ? "delete" : "upsert", edata);
	/* what a transform fails for in the pass for renamed rows it fails for in the next one too */
	if (batch->statement != BCMIG_STMT_RENAME || !bcmig_has_transforms(batch->table))
		batch->applied->quarantined++;
	if (batch->applied->first_error[0] == '\0')
		bcmig_copy_text(batch->applied->first_error, bcmig_error_text(edata, true), BCMIG_TEXT);
	if (batch->statement != BCMIG_STMT_RENAME)
		batch->applied->refused++;
	batch->applied->stopped = batch->most_refused > 0 && batch->applied->refused >= batch->most_refused;
	FreeErrorData(edata);
}

/* room for n more subtransactions */
static void
make_room(Batch *batch, int n)
{
	if (batch->subxacts + n > MAX_SUBXACTS)
	{
		bcmig_end_transaction();
		bcmig_start_transaction();
		batch->subxacts = 0;
	}
	batch->subxacts += n;
}

/*
 * Until the transaction ends this is the only one that decides conflicts of the
 * table.  Entries of an outside rename belong to two keys, which may be in two
 * shards of a window: who comes second must see what the first made of them.
 */
static void
lock_conflicts(const BcmigTableInfo *table)
{
	LOCKTAG		tag;

	BCMIG_CONFLICT_LOCKTAG(tag, table->table_id);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/*
 * Some of rows [from, to) meet outside writes and were rolled back: apply the
 * others, then decide those one by one.  A renamed row whose old key was
 * written to leaves that alone: a sweep finds it, and that it is gone on blue.
 */
static void
apply_apart(Batch *batch, int from, int to, const BcmigMet *met)
{
	MinimalTuple *hits = palloc(sizeof(MinimalTuple) * (to - from));
	int			nhits = 0;
	int			clean = from;

	if (batch->statement == BCMIG_STMT_RENAME)
	{
		if (to - from > 1)
			apply_halves(batch, from, to);
		return;
	}
	for (int i = from; i < to; i++)
	{
		if (bms_is_member(i - from, met->rows))
			hits[nhits++] = batch->rows[i];
		else
			batch->rows[clean++] = batch->rows[i];
	}
	if (clean > from)
		apply_range(batch, from, clean);
	for (int i = 0; i < nhits && !batch->applied->stopped; i++)
	{
		ErrorData  *edata;

		CHECK_FOR_INTERRUPTS();
		make_room(batch, BCMIG_CONFLICT_SUBXACTS);
		lock_conflicts(batch->table);
		edata = bcmig_meet_conflict(batch->table, batch->desc, hits[i], batch->statement == BCMIG_STMT_DELETE, batch->applied);
		if (edata != NULL)
			refuse_row(batch, hits[i], edata);
	}
	pfree(hits);
}

/*
 * Apply rows [from, to) in a subtransaction; halve on failure.  Leaves the
 * batch's memory context current.
 */
static void
apply_range(Batch *batch, int from, int to)
{
	MemoryContext oldcontext = batch->context;
	ResourceOwner oldowner;
	ErrorData  *volatile edata = NULL;
	volatile uint64 processed = 0;
	BcmigMet	met = {0};
	volatile uint64 filtered = 0;

	CHECK_FOR_INTERRUPTS();
	if (batch->applied->stopped)
		return;
	make_room(batch, 1);
	oldowner = CurrentResourceOwner;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(oldcontext);
	PG_TRY();
	{
		uint64		off;

		/* the first copy's rows: nobody else has written there */
		processed = write_rows(batch, from, to, &off, batch->statement == BCMIG_STMT_INSERT ? NULL : &met);
		filtered = off;
		if (met.any)
			RollbackAndReleaseCurrentSubTransaction();
		else
			ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(oldcontext);
		CurrentResourceOwner = oldowner;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(oldcontext);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(oldcontext);
		CurrentResourceOwner = oldowner;
	}
	PG_END_TRY();

	if (edata == NULL && met.any)
	{
		apply_apart(batch, from, to, &met);
		return;
	}
	if (edata == NULL)
	{
		if (batch->statement == BCMIG_STMT_DELETE || batch->statement == BCMIG_STMT_RENAME)
			batch->applied->deleted += processed;
		else
			batch->applied->written += processed;
		batch->applied->deleted += filtered;
		return;
	}
	if (!bcmig_is_row_error(edata))
		ReThrowError(edata);
	if (to - from > 1)
	{
		FreeErrorData(edata);
		apply_halves(batch, from, to);
		return;
	}
	refuse_row(batch, batch->rows[from], edata);
}

/*
 * One pass over the whole spool with one statement.
 */
static void
apply_pass(Batch *batch, BcmigSpool *spool, char op)
{
	MemoryContext caller = CurrentMemoryContext;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(spool->desc, &TTSOpsMinimalTuple);
	bool		more = true;
	int			batches = 0;	/* and rows in the present transaction */
	int			rows = 0;

	tuplestore_select_read_pointer(spool->store, 0);
	tuplestore_rescan(spool->store);
	while (more && !batch->applied->stopped)
	{
		int			n = 0;
		Size		bytes = 0;

		MemoryContextReset(batch->context);
		batch->rows = MemoryContextAlloc(batch->context, sizeof(MinimalTuple) * batch->table->batch_rows);
		while (n < batch->table->batch_rows && bytes < BATCH_BYTES &&
			   (more = tuplestore_gettupleslot(spool->store, true, false, slot)))
		{
			bool		isnull;
			Datum		row_op = slot_getattr(slot, FEED_OP + 1, &isnull);
			MemoryContext oldcontext;

			if (*VARDATA_ANY(DatumGetTextPP(row_op)) != op)
				continue;
			oldcontext = MemoryContextSwitchTo(batch->context);
			batch->rows[n] = ExecCopySlotMinimalTuple(slot);
			bytes += batch->rows[n++]->t_len;
			MemoryContextSwitchTo(oldcontext);
		}
		if (n > 0)
		{
			if (batches++ == 0)
			{
				bcmig_start_transaction();
				batch->subxacts = 0;
			}
			apply_range(batch, 0, n);
			MemoryContextSwitchTo(caller);
			rows += n;
			if (batches == BATCHES_A_TRANSACTION || rows >= ROWS_A_TRANSACTION)
			{
				bcmig_end_transaction();
				batches = rows = 0;
				if (bcmig_between_batches != NULL)
					bcmig_between_batches();
			}
		}
	}
	if (batches > 0)
		bcmig_end_transaction();
	ExecDropSingleTupleTableSlot(slot);
}

int64
bcmig_most_refused(const BcmigTableInfo *table)
{
	return table->on_error_suspend ? 1 : table->max_errors;
}

void
bcmig_apply_batches(const BcmigTableInfo *table, BcmigSpool *spool, int passes,
					int64 most_refused, BcmigApplied *applied)
{
	Batch		batch = {0};

	batch.table = table;
	batch.desc = spool->desc;
	batch.applied = applied;
	batch.most_refused = most_refused;
	batch.context = AllocSetContextCreate(CurrentMemoryContext, "bcmig batch",
										  ALLOCSET_DEFAULT_SIZES);
	if (spool->deletes > 0 && (passes & BCMIG_PASS_DELETE))
	{
		batch.statement = BCMIG_STMT_DELETE;
		apply_pass(&batch, spool, 'D');
	}
	if (spool->upserts > 0)
	{
		if (needs_rename(table) && (passes & BCMIG_PASS_RENAME))
		{
			batch.statement = BCMIG_STMT_RENAME;
			apply_pass(&batch, spool, 'U');
		}
		if (passes & (BCMIG_PASS_UPSERT | BCMIG_PASS_INSERT))
		{
			batch.statement = passes & BCMIG_PASS_INSERT ? BCMIG_STMT_INSERT : BCMIG_STMT_UPSERT;
			apply_pass(&batch, spool, 'U');
		}
	}
	MemoryContextDelete(batch.context);
}
