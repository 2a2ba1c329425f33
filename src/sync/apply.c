/*-------------------------------------------------------------------------
 *
 * apply.c
 *	  Writing spooled rows to green, set-wise.
 *
 * The rows are an ephemeral named relation, bcmig_rows, as the transition
 * tables of a trigger are; three prepared statements per table do the rest:
 *
 *	delete	keys whose row is gone on blue, or not wanted by the row filter
 *	rename	rows whose $systemId comes back under another key (only where
 *			deletes are not in the feed: otherwise the old key is among them)
 *	upsert	INSERT ... ON CONFLICT (key) DO UPDATE, skipping rows that are equal
 *			bit for bit (record image comparison: 1.0 is not 1.00, '' not NULL)
 *
 * For a plain table delete and upsert are done by write.c without a statement.
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
 * Statements run as the sync's owner, with session_replication_role = replica
 * (set by worker.c) and search_path pg_catalog.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "apply.h"
#include "conflict.h"
#include "own_write.h"
#include "quarantine.h"
#include "transform.h"
#include "write.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#define PLANNED_ROWS		100 /* what plans assume: index look-ups, not scans of green */
#define MAX_SUBXACTS		60
#define BATCHES_A_TRANSACTION	10	/* each is a subtransaction or more */
#define ROWS_A_TRANSACTION	10000	/* other tables wait for its end */
#define BATCH_BYTES			(8 * 1024 * 1024)	/* rows of a batch are in memory at once */

typedef enum Statement
{
	STMT_DELETE,
	STMT_RENAME,
	STMT_UPSERT,
	STMT_INSERT,
	NSTATEMENTS
} Statement;

/* shape of the target the statements were made for */
typedef struct TargetShape
{
	Oid			relid;
	int			natts;
	Oid		   *types;
	int32	   *typmods;
} TargetShape;

typedef struct ApplyPlans
{
	int			table_id;		/* must be first */
	TargetShape shape;
	SPIPlanPtr	plans[NSTATEMENTS];
} ApplyPlans;

static HTAB *apply_plans = NULL;

BcmigMark	bcmig_mark_written = NULL;
void		(*bcmig_between_batches) (void) = NULL;

/* ---- statements ---- */

static const char *
id(const char *name)
{
	return quote_identifier(name);
}

char *
bcmig_key_condition(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int k = 0; k < table->nkeys; k++)
	{
		const char *name = id(table->columns[table->keys[k]].target);

		appendStringInfo(&s, "%sg.%s = w.%s", k ? " AND " : "", name, name);
	}
	return s.data;
}

/*
 * The value of a feed column for a target column.  Where the types differ an
 * explicit cast could cut or round without a word, so what it gives is cast
 * back and compared (bcmig.exact raises).
 */
char *
bcmig_value_expression(const char *name, Form_pg_attribute from, Form_pg_attribute to)
{
	char	   *target;
	char	   *source;

	if (from->atttypid == to->atttypid &&
		(from->atttypmod == to->atttypmod || to->atttypmod == -1))
		return psprintf("w.%s", id(name));
	target = format_type_extended(to->atttypid, to->atttypmod,
								  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
	source = format_type_extended(from->atttypid, from->atttypmod,
								  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
	return psprintf("CASE WHEN bcmig.exact(w.%s, (w.%s::%s)::%s, %s) THEN w.%s::%s END",
					id(name), id(name), target, source, quote_literal_cstr(name),
					id(name), target);
}

static Form_pg_attribute
find_attribute(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att;
	}
	return NULL;
}

static char *
statement_text(const BcmigTableInfo *table, TupleDesc feed, TupleDesc target, Statement which)
{
	StringInfoData names;
	StringInfoData values;
	StringInfoData sets;
	StringInfoData old;
	StringInfoData new;
	StringInfoData key;
	StringInfoData sql;
	const char *identity;

	initStringInfo(&sql);
	if (which == STMT_DELETE)
	{
		appendStringInfo(&sql, "DELETE FROM %s g USING " BCMIG_OWN_ROWS_NAME " w WHERE w.bc_op <> 'U' AND %s",
						 table->target_name, bcmig_key_condition(table));
		return sql.data;
	}
	if (which == STMT_RENAME)
	{
		identity = id(table->columns[table->identity_column].target);
		appendStringInfo(&sql, "DELETE FROM %s g USING " BCMIG_OWN_ROWS_NAME " w WHERE w.bc_op <> 'D' AND g.%s = w.%s"
						 " AND w.%s::text <> '00000000-0000-0000-0000-000000000000' AND NOT (%s) RETURNING %s",
						 table->target_name, identity, identity, identity,
						 bcmig_key_condition(table), bcmig_green_key(table, target, "g"));
		return sql.data;
	}

	initStringInfo(&names);
	initStringInfo(&values);
	initStringInfo(&sets);
	initStringInfo(&old);
	initStringInfo(&new);
	initStringInfo(&key);
	for (int i = FEED_VERSION; i < feed->natts; i++)
	{
		Form_pg_attribute from = TupleDescAttr(feed, i);
		const char *name = NameStr(from->attname);
		Form_pg_attribute to = find_attribute(target, name);
		const char *comma = names.len ? ", " : "";

		if (to == NULL)
		{
			if (i == FEED_VERSION)
				continue;
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("column %s of %s is gone", id(name), table->target_name),
					 errhint("ALTER TABLE %s ADD COLUMN %s %s; SELECT bcmig_resync_table(%s, %s);",
							 table->target_name, id(name),
							 format_type_with_typemod(from->atttypid, from->atttypmod),
							 quote_literal_cstr(table->sync_name),
							 quote_literal_cstr(table->target_name))));
		}
		appendStringInfo(&names, "%s%s", comma, id(name));
		appendStringInfo(&values, "%s%s", comma, bcmig_value_expression(name, from, to));
		appendStringInfo(&sets, "%s%s = excluded.%s", comma, id(name), id(name));
		appendStringInfo(&old, "%sg.%s", comma, id(name));
		appendStringInfo(&new, "%sexcluded.%s", comma, id(name));
	}
	for (int k = 0; k < table->nkeys; k++)
		appendStringInfo(&key, "%s%s", k ? ", " : "", id(table->columns[table->keys[k]].target));

	appendStringInfo(&sql, "INSERT INTO %s AS g (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM " BCMIG_OWN_ROWS_NAME " w WHERE w.bc_op = 'U'",
					 table->target_name, names.data, values.data);
	if (which == STMT_UPSERT)
		appendStringInfo(&sql, " ON CONFLICT (%s) DO UPDATE SET %s WHERE ROW(%s)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record",
						 key.data, sets.data, old.data, new.data);
	return sql.data;
}

/* ---- plans ---- */

void
bcmig_apply_forget(void)
{
	HASH_SEQ_STATUS seq;
	ApplyPlans *plans;

	bcmig_transform_forget();
	if (apply_plans == NULL)
		return;
	hash_seq_init(&seq, apply_plans);
	while ((plans = hash_seq_search(&seq)) != NULL)
	{
		for (int i = 0; i < NSTATEMENTS; i++)
		{
			if (plans->plans[i] != NULL)
				SPI_freeplan(plans->plans[i]);
		}
		if (plans->shape.types != NULL)
		{
			pfree(plans->shape.types);
			pfree(plans->shape.typmods);
		}
		hash_search(apply_plans, &plans->table_id, HASH_REMOVE, NULL);
	}
}

static bool
same_shape(const TargetShape *shape, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	if (shape->relid != RelationGetRelid(rel) || shape->natts != desc->natts)
		return false;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (shape->types[i] != (att->attisdropped ? InvalidOid : att->atttypid) ||
			shape->typmods[i] != att->atttypmod)
			return false;
	}
	return true;
}

static void
remember_shape(TargetShape *shape, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	shape->relid = RelationGetRelid(rel);
	shape->natts = desc->natts;
	shape->types = MemoryContextAlloc(TopMemoryContext, sizeof(Oid) * Max(desc->natts, 1));
	shape->typmods = MemoryContextAlloc(TopMemoryContext, sizeof(int32) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		shape->types[i] = att->attisdropped ? InvalidOid : att->atttypid;
		shape->typmods[i] = att->atttypmod;
	}
}

/* make the rows visible to statements of this SPI connection */
void
bcmig_register_rows(Tuplestorestate *store, TupleDesc desc)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));
	int			rc;

	enr->md.name = BCMIG_OWN_ROWS_NAME;
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = PLANNED_ROWS;
	enr->reldata = store;
	rc = SPI_register_relation(enr);
	if (rc != SPI_OK_REL_REGISTER)
		elog(ERROR, "SPI_register_relation failed: %s", SPI_result_code_string(rc));
}

void
bcmig_unregister_rows(void)
{
	int			rc = SPI_unregister_relation(BCMIG_OWN_ROWS_NAME);

	if (rc != SPI_OK_REL_UNREGISTER)
		elog(ERROR, "SPI_unregister_relation failed: %s", SPI_result_code_string(rc));
}

uint64
bcmig_query_spool(BcmigSpool *spool, const char *sql)
{
	int			rc;

	bcmig_register_rows(spool->store, spool->desc);
	rc = SPI_execute(sql, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute failed: %s: %s", SPI_result_code_string(rc), sql);
	return SPI_processed;
}

/*
 * Deferrable unique keys are checked by internal triggers, which do not fire
 * with session_replication_role = replica unless told so: duplicates would go
 * in without a word.  Tell them (only a superuser may, hence the catalogue
 * owner), whoever made the constraint; a restored dump has forgotten it.
 */
static void
enforce_unique_keys(Oid relid)
{
	Relation	rel = table_open(relid, RowExclusiveLock);
	char	   *name = pstrdup(quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
														  RelationGetRelationName(rel)));
	List	   *silent = NIL;
	ListCell   *lc;
	BcmigCatalogScope scope;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgfoid == F_UNIQUE_KEY_RECHECK && trigger->tgenabled != TRIGGER_FIRES_ALWAYS)
			silent = lappend(silent, pstrdup(trigger->tgname));
	}
	table_close(rel, NoLock);
	if (silent == NIL)
		return;
	bcmig_catalog_begin(&scope);
	foreach(lc, silent)
	{
		bcmig_own_ddl(relid);
		if (SPI_execute(psprintf("ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %s", name,
								 quote_identifier((char *) lfirst(lc))), false, 0) < 0)
			elog(ERROR, "ALTER TABLE failed");
		bcmig_own_write_end();
	}
	bcmig_catalog_end(&scope);
}

/*
 * The plans of a table, anew when its target has changed shape.  The target is
 * locked as a writer would.
 */
static ApplyPlans *
plans_of(const BcmigTableInfo *table)
{
	ApplyPlans *plans;
	bool		found;
	bool		partitioned;
	Oid			relid;
	Relation	rel;
	RangeVar   *rv = makeRangeVar(table->target_schema, table->target_table, -1);

	if (apply_plans == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(int);
		ctl.entrysize = sizeof(ApplyPlans);
		apply_plans = hash_create("bcmig apply plans", 256, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	rel = table_openrv(rv, RowExclusiveLock);
	plans = hash_search(apply_plans, &table->table_id, HASH_FIND, &found);
	if (found && !same_shape(&plans->shape, rel))
	{
		bcmig_apply_forget();
		found = false;
	}
	if (!found)
	{
		plans = hash_search(apply_plans, &table->table_id, HASH_ENTER, NULL);
		memset(plans->plans, 0, sizeof(plans->plans));
		memset(&plans->shape, 0, sizeof(plans->shape));
		remember_shape(&plans->shape, rel);
	}
	relid = RelationGetRelid(rel);
	partitioned = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	table_close(rel, NoLock);

	/* of leaf partitions only when plans are made: there may be many */
	if (!partitioned)
		enforce_unique_keys(relid);
	else if (!found)
	{
		List	   *all = find_all_inheritors(relid, RowExclusiveLock, NULL);
		ListCell   *lc;

		foreach(lc, all)
			enforce_unique_keys(lfirst_oid(lc));
	}
	return plans;
}

static uint64
run_statement(const BcmigTableInfo *table, Tuplestorestate *rows, TupleDesc feed, Statement which)
{
	ApplyPlans *plans = plans_of(table);
	int			rc;

	if (which == STMT_DELETE || which == STMT_UPSERT)
	{
		Relation	rel = table_open(plans->shape.relid, NoLock);
		bool		direct = bcmig_write_possible(table, rel);
		uint64		written = direct ? bcmig_write_rows(table, rel, which == STMT_DELETE ? 'D' : 'U', rows, feed) : 0;

		table_close(rel, NoLock);
		if (direct)
			return written;
	}
	if (plans->plans[which] == NULL)
	{
		Relation	rel = table_open(plans->shape.relid, NoLock);
		char	   *sql = statement_text(table, feed, RelationGetDescr(rel), which);
		SPIPlanPtr	plan = SPI_prepare(sql, 0, NULL);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s: %s", SPI_result_code_string(SPI_result), sql);
		SPI_keepplan(plan);
		plans->plans[which] = plan;
		table_close(rel, NoLock);
	}
	bcmig_own_write(plans->shape.relid);
	rc = SPI_execute_plan(plans->plans[which], NULL, NULL, false, 0);
	bcmig_own_write_end();
	if (rc < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

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

/* run STMT_RENAME; the keys of the rows it deleted, or NULL */
static ArrayBuildState *
rename_rows(const BcmigTableInfo *table, Tuplestorestate *rows, TupleDesc feed, uint64 *deleted, MemoryContext context)
{
	ArrayBuildState *keys = NULL;

	*deleted = run_statement(table, rows, feed, STMT_RENAME);
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
		applied->deleted += run_statement(table, rows, desc, STMT_DELETE);
	if (spool->upserts > 0)
	{
		if (needs_rename(table))
		{
			renamed = rename_rows(table, rows, desc, &n, caller);
			applied->deleted += n;
		}
		applied->written += run_statement(table, rows, desc, STMT_UPSERT);
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
	Statement	statement;
	MinimalTuple *rows;
	MemoryContext context;		/* of rows; reset per batch */
	int			subxacts;		/* in the present transaction */
	int64		refused;		/* rows; a key renamed in vain is none by itself */
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
	bool		rename = batch->statement == STMT_RENAME;
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
	if (batch->table->row_filter != NULL && batch->statement == STMT_UPSERT)
		*filtered = run_statement(batch->table, rows, desc, STMT_DELETE);
	if (rename)
		renamed = rename_rows(batch->table, rows, desc, &processed, caller);
	else
		processed = run_statement(batch->table, rows, desc, batch->statement);
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
	batch.statement = delete ? STMT_DELETE : STMT_UPSERT;
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
						 batch->statement == STMT_DELETE ? "delete" : "upsert", edata);
	/* what a transform fails for in the pass for renamed rows it fails for in the next one too */
	if (batch->statement != STMT_RENAME || !bcmig_has_transforms(batch->table))
		batch->applied->quarantined++;
	if (batch->applied->first_error[0] == '\0')
		bcmig_copy_text(batch->applied->first_error, bcmig_error_text(edata, true), BCMIG_TEXT);
	if (batch->statement != STMT_RENAME)
		batch->refused++;
	batch->applied->stopped = batch->most_refused > 0 && batch->refused >= batch->most_refused;
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

	if (batch->statement == STMT_RENAME)
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
		edata = bcmig_meet_conflict(batch->table, batch->desc, hits[i], batch->statement == STMT_DELETE, batch->applied);
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
		processed = write_rows(batch, from, to, &off, batch->statement == STMT_INSERT ? NULL : &met);
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
		if (batch->statement == STMT_DELETE || batch->statement == STMT_RENAME)
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
bcmig_apply_batches(const BcmigTableInfo *table, BcmigSpool *spool, bool plain,
					int64 most_refused, BcmigApplied *applied)
{
	Batch		batch = {0};

	batch.table = table;
	batch.desc = spool->desc;
	batch.applied = applied;
	batch.most_refused = most_refused;
	batch.context = AllocSetContextCreate(CurrentMemoryContext, "bcmig batch",
										  ALLOCSET_DEFAULT_SIZES);
	if (spool->deletes > 0)
	{
		batch.statement = STMT_DELETE;
		apply_pass(&batch, spool, 'D');
	}
	if (spool->upserts > 0)
	{
		if (needs_rename(table) && !plain)
		{
			batch.statement = STMT_RENAME;
			apply_pass(&batch, spool, 'U');
		}
		batch.statement = plain ? STMT_INSERT : STMT_UPSERT;
		apply_pass(&batch, spool, 'U');
	}
	MemoryContextDelete(batch.context);
}
