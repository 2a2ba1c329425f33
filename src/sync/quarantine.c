/*-------------------------------------------------------------------------
 *
 * quarantine.c
 *	  Rows green refuses, and the ladder from row to table.
 *
 * An entry is written in the transaction that goes past the row, so none is
 * lost and none is there for a row that was applied after all.  There is one
 * entry per key; a later failure of the same key updates it, a later success
 * removes it.  The image shows long values by length only: a retry re-reads
 * the row from blue, the image is for the eye.
 *
 * The ladder counts what is stored: entries, and the batches of the last five
 * minutes in bcmig.sync_batch, which commit with the rows they speak of.  So it
 * goes on after a crash where it was, and a window that is repeated is not
 * counted twice.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "quarantine.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "slot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#define LONG_VALUE			65536	/* bytes; longer ones are described */
#define LONG_IMAGE			262144	/* bytes; once an image has so many, only short values follow */
#define SHORT_VALUE			256
#define LADDER_PERIOD		300000	/* ms */
#define LADDER_LEAST_ROWS	100

BCMIG_FUNCTION(bcmig_exact);

/*
 * SQL: bcmig.exact(source anyelement, back anyelement, column_name text)
 * returns boolean.  True when a value that was cast to the target's type and
 * back is what it was, bit for bit; else ERROR.
 */
Datum
bcmig_exact(PG_FUNCTION_ARGS)
{
	int16		typlen;
	bool		typbyval;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(true);
	get_typlenbyval(get_fn_expr_argtype(fcinfo->flinfo, 0), &typlen, &typbyval);
	if (PG_ARGISNULL(1) ||
		!datum_image_eq(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), typbyval, typlen))
		ereport(ERROR,
				(errcode(ERRCODE_BM_INEXACT),
				 errmsg("value of column \"%s\" cannot be represented exactly on green",
						PG_ARGISNULL(2) ? "?" : text_to_cstring(PG_GETARG_TEXT_PP(2))),
				 errhint("Widen the column on green, then bcmig_retry_quarantine.")));
	PG_RETURN_BOOL(true);
}

static char *
value_text(TupleDesc desc, int att, Datum value)
{
	Oid			out;
	bool		varlena;

	getTypeOutputInfo(TupleDescAttr(desc, att)->atttypid, &out, &varlena);
	return OidOutputFunctionCall(out, value);
}

char *
bcmig_key_json(const BcmigTableInfo *table, TupleDesc desc, const Datum *values, const bool *isnull)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoChar(&s, '[');
	for (int k = 0; k < table->nkeys; k++)
	{
		int			att = FEED_COLUMNS + table->keys[k];

		if (k > 0)
			appendStringInfoChar(&s, ',');
		if (isnull[att])
			appendStringInfoString(&s, "null");
		else
			escape_json(&s, value_text(desc, att, values[att]));
	}
	appendStringInfoChar(&s, ']');
	return s.data;
}

char *
bcmig_row_key(const BcmigTableInfo *table, TupleTableSlot *slot)
{
	slot_getallattrs(slot);
	return bcmig_key_json(table, slot->tts_tupleDescriptor, slot->tts_values, slot->tts_isnull);
}

char *
bcmig_image_json(TupleDesc desc, int first, const Datum *values, const bool *isnull)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoChar(&s, '{');
	for (int att = first; att < desc->natts; att++)
	{
		if (att > first)
			appendStringInfoChar(&s, ',');
		escape_json(&s, NameStr(TupleDescAttr(desc, att)->attname));
		appendStringInfoChar(&s, ':');
		if (isnull[att])
			appendStringInfoString(&s, "null");
		else
		{
			char	   *value = value_text(desc, att, values[att]);

			if (strlen(value) > (s.len < LONG_IMAGE ? LONG_VALUE : SHORT_VALUE))
				appendStringInfo(&s, "{\"characters\":%zu}", strlen(value));
			else
				escape_json(&s, value);
			pfree(value);
		}
	}
	appendStringInfoChar(&s, '}');
	return s.data;
}

void
bcmig_quarantine_row(const BcmigTableInfo *table, TupleDesc desc, MinimalTuple row,
					 const char *operation, const ErrorData *edata)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	BcmigCatalogScope scope;

	ExecStoreMinimalTuple(row, slot, false);
	slot_getallattrs(slot);
	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.quarantine AS q (sync_id, table_id, key, image, operation, sqlstate, message, first_seen, last_seen) "
			  "VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp(), $8) "
			  "ON CONFLICT (table_id, key) DO UPDATE SET image = excluded.image, operation = excluded.operation, "
			  " sqlstate = excluded.sqlstate, message = excluded.message, attempts = q.attempts + 1, last_seen = excluded.last_seen",
			  "iijjtttz", table->sync_id, table->table_id, bcmig_row_key(table, slot),
			  bcmig_image_json(desc, FEED_VERSION, slot->tts_values, slot->tts_isnull), operation, unpack_sql_state(edata->sqlerrcode), bcmig_error_text(edata, false),
			  bcmig_forward_time());
	bcmig_catalog_end(&scope);
	ExecDropSingleTupleTableSlot(slot);
}

void
bcmig_quarantine_settle(const BcmigTableInfo *table, BcmigSpool *spool, TimestampTz since)
{
	TupleTableSlot *slot;
	BcmigTable *live;
	int			entries = 0;
	ArrayBuildState *keys = NULL;
	BcmigCatalogScope scope;

	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	live = bcmig_live_table(table->table_id);
	if (live != NULL)
		entries = live->quarantined;
	LWLockRelease(bcmig_shared->lock);
	if (entries == 0 || table->nkeys == 0)
		return;

	slot = MakeSingleTupleTableSlot(spool->desc, &TTSOpsMinimalTuple);
	tuplestore_select_read_pointer(spool->store, 0);
	tuplestore_rescan(spool->store);
	while (tuplestore_gettupleslot(spool->store, true, false, slot))
		keys = accumArrayResult(keys, CStringGetTextDatum(bcmig_row_key(table, slot)), false,
								TEXTOID, CurrentMemoryContext);
	ExecDropSingleTupleTableSlot(slot);
	if (keys == NULL)
		return;
	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.quarantine WHERE table_id = $1 AND last_seen < $3 "
			  "AND key IN (SELECT k::jsonb FROM unnest($2) k)",
			  "ikz", table->table_id, makeArrayResult(keys, CurrentMemoryContext), since);
	bcmig_catalog_end(&scope);
}

int64
bcmig_quarantine_count(const BcmigTableInfo *table)
{
	BcmigCatalogScope scope;
	BcmigTable *live;
	int64		n;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT count(*) FROM bcmig.quarantine WHERE table_id = $1", "i", table->table_id);
	n = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(table->table_id);
	if (live != NULL)
		live->quarantined = n;
	LWLockRelease(bcmig_shared->lock);
	return n;
}

char *
bcmig_ladder(const BcmigTableInfo *table, TimestampTz started, const BcmigApplied *applied)
{
	BcmigCatalogScope scope;
	int64		entries;
	int64		rows;
	int64		failed;

	if (applied->quarantined == 0)
		return NULL;
	entries = bcmig_quarantine_count(table);
	if (applied->stopped)
		return psprintf("green refused " INT64_FORMAT " rows, %s, and what came after was left alone; the first: %s",
						applied->quarantined,
						table->on_error_suspend ? "on_error is suspend" : psprintf("max_errors is " INT64_FORMAT, table->max_errors),
						applied->first_error);
	if (entries >= bcmig_most_refused(table))
		return psprintf(INT64_FORMAT " rows are in quarantine, max_errors is " INT64_FORMAT,
						entries, bcmig_most_refused(table));

	/* since it last changed state: a resumed table starts anew */
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT coalesce(sum(b.rows_read), 0)::bigint, coalesce(sum(b.rows_quarantined), 0)::bigint "
			  "FROM bcmig.sync_batch b JOIN bcmig.table_state s USING (table_id) "
			  "WHERE b.table_id = $1 AND b.kind IN ('window', 'copy') AND b.status = 'Completed' "
			  "AND b.started_at >= least($2, clock_timestamp() - $3 * interval '1 ms') "
			  "AND b.finished_at > greatest(s.since, clock_timestamp() - $3 * interval '1 ms')",
			  "izi", table->table_id, started, LADDER_PERIOD);
	rows = bcmig_get_int64(0, 1, 0);
	failed = bcmig_get_int64(0, 2, 0);
	bcmig_catalog_end(&scope);
	if (rows >= LADDER_LEAST_ROWS && failed * 100.0 > table->error_threshold * rows)
		return psprintf(INT64_FORMAT " of " INT64_FORMAT " rows failed within five minutes, more than error_threshold %g %%",
						failed, rows, table->error_threshold);
	return NULL;
}

Oid
bcmig_key_index(const BcmigTableInfo *table, Oid relid)
{
	Relation	rel = table_open(relid, AccessShareLock);
	const char **names = palloc(sizeof(char *) * Max(table->nkeys, 1));
	Oid			found;

	for (int k = 0; k < table->nkeys; k++)
		names[k] = table->columns[table->keys[k]].target;
	found = bcmig_unique_index(rel, table->nkeys, names);
	table_close(rel, AccessShareLock);
	return found;
}
