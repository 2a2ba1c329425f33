/*-------------------------------------------------------------------------
 *
 * sweep.c
 *	  Deletes no change feed tells of: key sweep, and compare of whole tables.
 *
 * Sweep: all keys of blue are read (without a lock, in one statement), green's
 * keys that are not among them are candidates.  When the breaker lets them
 * pass, each is read again by name under the applier lock and deleted only if
 * it is gone then: a row inserted meanwhile is simply written.
 *
 * Compare (tables without a version column, and heaps): under the applier lock
 * the whole table is read and green made equal in one transaction, or in batches
 * when green refuses a row or rows meet outside writes.
 *
 * A complete run stores the position it covers: the horizon of a poll before
 * it began.  A crash in between starts it over, which does no harm.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "conflict.h"
#include "quarantine.h"
#include "reach.h"
#include "worker.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "own_write.h"
#include "slot.h"
#include "transform.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/timestamp.h"

#define BREAKER_LEAST_ROWS	100 /* fewer deletes than this never trip it */
#define RECHECK_KEYS		200 /* candidates re-read in one statement */
#define GREEN_KEYS			"bcmig_green_keys"

/* one number from a query as the current user; in a transaction */
static int64
count_query(const char *sql, BcmigSpool *spool)
{
	bool		isnull;
	int64		n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (spool != NULL)
		bcmig_query_spool(spool, sql);
	else if (SPI_execute(sql, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", sql);
	n = DatumGetInt64(bcmig_get_datum(0, 1, &isnull));
	SPI_finish();
	return n;
}

int64
bcmig_count_deletes(const BcmigWork *work, BcmigSpool *spool)
{
	BcmigSpool *filtered = NULL;
	int64		deletes = spool->deletes;

	if (spool->upserts + spool->deletes >= BREAKER_LEAST_ROWS)
		filtered = bcmig_filtered_rows(work->table, spool);

	/* Citus joins nothing with rows of ours: what may already be gone is counted too */
	if (bcmig_reach_of(work->table) == BCMIG_REACH_CITUS)
	{
		if (filtered != NULL)
		{
			deletes += filtered->upserts + filtered->deletes;
			bcmig_spool_end(filtered);
		}
		return deletes;
	}
	if (spool->deletes >= BREAKER_LEAST_ROWS)
		deletes = count_query(psprintf("SELECT count(*) FROM %s g WHERE EXISTS (SELECT FROM bcmig_rows w WHERE w.bc_op = 'D' AND %s)",
									   work->table->target_name, bcmig_key_condition(work->table)),
							  spool);
	if (filtered != NULL)
	{
		deletes += count_query(psprintf("SELECT count(*) FROM %s g WHERE EXISTS (SELECT FROM bcmig_rows w WHERE %s)",
										work->table->target_name, bcmig_key_condition(work->table)),
							   filtered);
		bcmig_spool_end(filtered);
	}
	return deletes;
}

char *
bcmig_breaker(const BcmigWork *work, int64 deletes, bool blue_is_empty)
{
	BcmigTableInfo *table = work->table;
	const char *enough = "ALL";
	int64		rows;

	if (deletes < BREAKER_LEAST_ROWS && !(blue_is_empty && deletes > 0))
		return NULL;

	/* no more is counted than is needed to say that so many may go */
	if (!blue_is_empty && table->max_delete_percent > 0)
		enough = psprintf("%.0f", Min(1e18, ceil(deletes * 100.0 / table->max_delete_percent) + 1));
	rows = count_query(psprintf("SELECT count(*) FROM (SELECT FROM %s LIMIT %s) g", table->target_name, enough), NULL);
	if (blue_is_empty || deletes * 100.0 > table->max_delete_percent * rows)
		return psprintf("%s" INT64_FORMAT " of " INT64_FORMAT " rows would be deleted, max_delete_percent is %g; "
						"if that is right: SELECT bcmig_resume_table(%s, %s);",
						blue_is_empty ? "blue shows no row: " : "", deletes, rows,
						table->max_delete_percent, quote_literal_cstr(table->sync_name),
						quote_literal_cstr(table->target_name));
	return NULL;
}

static void
publish_sweep(BcmigWork *work, int64 position, uint64 poll, TimestampTz started, bool compared)
{
	BcmigTable *live;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(work->table->table_id);
	if (live != NULL)
	{
		/* a resync sweeps tables, too, whose deletes come with windows: no bound to what those prove */
		if (live->swept_position != PG_INT64_MAX)
			live->swept_position = position;
		live->swept_at = GetCurrentTimestamp();
		live->sweep_ms = TimestampDifferenceMilliseconds(started, live->swept_at);
		live->failures = 0;
		live->not_before = 0;
		if (compared)
		{
			live->window_poll = poll;
			live->position = position;
			live->last_applied_at = GetCurrentTimestamp();
		}
	}
	LWLockRelease(bcmig_shared->lock);
}

/*
 * A complete sweep or compare, in a transaction.  A snapshot table is
 * streaming from its first complete compare on.
 */
static void
store_swept(BcmigWork *work, const BcmigReading *reading)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.table_state SET swept_at = clock_timestamp(), delete_confirmed = false, "
			  " swept_position = CASE WHEN incarnation = $3 THEN $2 ELSE swept_position END WHERE table_id = $1",
			  "iII", work->table->table_id, reading->horizon, reading->incarnation);
	bcmig_catalog_end(&scope);
}

static bool
suspend(BcmigWork *work, const char *reason)
{
	bcmig_state_ask_delete(work->table, reason);
	bcmig_end_transaction();
	bcmig_publish_state(work->table->table_id, BCMIG_SUSPENDED);
	return false;
}

/*
 * The keys of green as bcmig_green_keys, for statements that cannot name green's
 * table beside rows of ours.  SPI connected.
 */
static void
fetch_green_keys(const BcmigTableInfo *table)
{
	StringInfoData sql;
	TupleDesc	desc;
	Tuplestorestate *keys;
	SPIPlanPtr	plan;
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));

	initStringInfo(&sql);
	for (int k = 0; k < table->nkeys; k++)
		appendStringInfo(&sql, "%s%s", k ? ", " : "SELECT ", quote_identifier(table->columns[table->keys[k]].target));
	appendStringInfo(&sql, " FROM %s", table->target_name);
	plan = SPI_prepare(sql.data, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s: %s", SPI_result_code_string(SPI_result), sql.data);
	keys = bcmig_rows_of_plan(plan, CurrentMemoryContext, &desc);
	enr->md.name = GREEN_KEYS;
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = tuplestore_tuple_count(keys);
	enr->reldata = keys;
	if (SPI_register_relation(enr) != SPI_OK_REL_REGISTER)
		elog(ERROR, "SPI_register_relation failed");
}

/*
 * Green's keys that are not in the spool, nkeys texts each, in the caller's
 * context.  In a transaction.
 */
static char **
candidates(BcmigWork *work, BcmigSpool *spool, int *n)
{
	BcmigTableInfo *table = work->table;
	MemoryContext caller = CurrentMemoryContext;
	bool		apart = bcmig_reach_of(table) == BCMIG_REACH_CITUS;
	StringInfoData sql;
	char	  **keys;

	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ARRAY[");
	for (int k = 0; k < table->nkeys; k++)
		appendStringInfo(&sql, "%sg.%s::text", k ? ", " : "",
						 quote_identifier(table->columns[table->keys[k]].target));
	appendStringInfo(&sql, "] FROM %s g WHERE NOT EXISTS (SELECT FROM bcmig_rows w WHERE %s)",
					 apart ? GREEN_KEYS : table->target_name, bcmig_key_condition(table));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (apart)
		fetch_green_keys(table);
	*n = bcmig_query_spool(spool, sql.data);
	keys = MemoryContextAllocHuge(caller, sizeof(char *) * Max((Size) *n * table->nkeys, 1));
	for (int i = 0; i < *n; i++)
		memcpy(&keys[(Size) i * table->nkeys], bcmig_get_texts(i, 1, table->nkeys, caller),
			   sizeof(char *) * table->nkeys);
	SPI_finish();
	return keys;
}

static bool
key_sweep(BcmigWork *work, bool confirmed, const BcmigReading *reading)
{
	BcmigSpool *spool;
	BcmigApplied applied = {0};
	char	  **keys;
	int			n;
	char	   *reason = NULL;
	TimestampTz started = GetCurrentTimestamp();

	bcmig_start_transaction();
	spool = bcmig_spool_create();
	bcmig_read(work, work->dialect->key_list(work->table), 64, &spool->receiver);
	bcmig_end_transaction();
	bcmig_check_same_blue(reading, &spool->receiver.signs);

	bcmig_start_transaction();
	keys = candidates(work, spool, &n);
	n = bcmig_without_outside_rows(work->table, n, keys);
	if (!confirmed)
		reason = bcmig_breaker(work, n, spool->upserts == 0);
	bcmig_spool_end(spool);
	if (reason != NULL)
		return suspend(work, reason);
	bcmig_end_transaction();
	bcmig_debug_point("sweep_collected");

	for (int i = 0; i < n; i += RECHECK_KEYS)
	{
		CHECK_FOR_INTERRUPTS();
		bcmig_reread_keys(work, "sweep", Min(RECHECK_KEYS, n - i),
						  keys + (Size) i * work->table->nkeys, &applied);
	}

	/* a row without $systemId that was renamed stood in its own way until now */
	bcmig_retry_unique(work);
	bcmig_start_transaction();
	store_swept(work, reading);
	bcmig_end_transaction();
	publish_sweep(work, reading->horizon, reading->poll, started, false);
	return true;
}

/*
 * Statements that make green equal to bcmig_rows where there is no key: both
 * sides are numbered within equal rows, so that a row that stands three times
 * on blue stands three times on green.
 */
static void
compare_heap(BcmigWork *work, BcmigSpool *spool, BcmigApplied *applied, bool confirmed,
			 char **reason)
{
	BcmigTableInfo *table = work->table;
	StringInfoData names;
	StringInfoData image_g;
	StringInfoData image_w;
	char	   *missing;
	int64		deletes;

	initStringInfo(&names);
	initStringInfo(&image_g);
	initStringInfo(&image_w);
	for (int i = 0; i < table->ncolumns; i++)
	{
		const char *name = quote_identifier(table->columns[i].target);
		const char *comma = names.len ? ", " : "";

		if (table->columns[i].transform == BCMIG_DROP)
			continue;
		appendStringInfo(&names, "%s%s", comma, name);
		appendStringInfo(&image_g, "%sg.%s::text", comma, name);
		appendStringInfo(&image_w, "%sw.%s::%s::text", comma, name, table->columns[i].target_type);
	}
	missing = psprintf("SELECT g.ctid, g.tableoid FROM (SELECT g.ctid, g.tableoid, ROW(%s)::text AS r, "
					   " row_number() OVER (PARTITION BY ROW(%s)::text) AS n FROM %s g) g "
					   "WHERE NOT EXISTS (SELECT FROM (SELECT ROW(%s)::text AS r, "
					   " row_number() OVER (PARTITION BY ROW(%s)::text) AS n FROM bcmig_rows w WHERE w.bc_op = 'U') w WHERE w.r = g.r AND w.n = g.n)",
					   image_g.data, image_g.data, table->target_name, image_w.data, image_w.data);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	bcmig_query_spool(spool, psprintf("SELECT count(*) FROM (%s) x", missing));
	deletes = bcmig_get_int64(0, 1, 0);
	if (!confirmed)
		*reason = bcmig_breaker(work, deletes, spool->upserts == 0);
	if (*reason == NULL)
	{
		if (deletes > 0)
		{
			bcmig_own_write(bcmig_target_relid(table));
			SPI_execute(psprintf("DELETE FROM %s d USING (%s) m WHERE d.ctid = m.ctid AND d.tableoid = m.tableoid",
								 table->target_name, missing), false, 0);
			bcmig_own_write_end();
			applied->deleted += SPI_processed;
		}
		bcmig_own_write(bcmig_target_relid(table));
		SPI_execute(psprintf("INSERT INTO %s (%s) SELECT %s FROM (SELECT w.*, ROW(%s)::text AS bcmig_r, "
							 " row_number() OVER (PARTITION BY ROW(%s)::text) AS bcmig_n FROM bcmig_rows w WHERE w.bc_op = 'U') w "
							 "WHERE NOT EXISTS (SELECT FROM (SELECT ROW(%s)::text AS r, "
							 " row_number() OVER (PARTITION BY ROW(%s)::text) AS n FROM %s g) g WHERE g.r = w.bcmig_r AND g.n = w.bcmig_n)",
							 table->target_name, names.data, names.data, image_w.data, image_w.data,
							 image_g.data, image_g.data, table->target_name), false, 0);
		bcmig_own_write_end();
		applied->written += SPI_processed;
	}
	SPI_finish();
}

/*
 * Where there is a key, green's rows that blue does not have are deletes as a
 * feed would send them: D rows are added to the spool.  In a transaction.
 */
static void
add_deletes(BcmigWork *work, BcmigSpool *spool, bool confirmed, char **reason)
{
	BcmigTableInfo *table = work->table;
	TupleDesc	desc = spool->desc;
	Datum	   *values = palloc0(sizeof(Datum) * desc->natts);
	bool	   *nulls = palloc(sizeof(bool) * desc->natts);
	int			n;
	char	  **keys = candidates(work, spool, &n);

	n = bcmig_without_outside_rows(table, n, keys);

	/* the row filter takes rows away as well */
	if (!confirmed)
		*reason = bcmig_breaker(work, n + bcmig_count_deletes(work, spool), spool->upserts == 0);
	if (*reason != NULL)
		return;
	memset(nulls, true, sizeof(bool) * desc->natts);
	values[FEED_OP] = CStringGetTextDatum("D");
	nulls[FEED_OP] = false;
	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		for (int k = 0; k < table->nkeys; k++)
		{
			int			att = FEED_COLUMNS + table->keys[k];
			Oid			input;
			Oid			param;

			getTypeInputInfo(TupleDescAttr(desc, att)->atttypid, &input, &param);
			values[att] = OidInputFunctionCall(input, keys[(Size) i * table->nkeys + k], param,
											   TupleDescAttr(desc, att)->atttypmod);
			nulls[att] = false;
		}
		tuplestore_putvalues(spool->store, desc, values, nulls);
		spool->deletes++;
	}
}

typedef struct CompareEnd
{
	const BcmigReading *reading;
	TimestampTz started;
	bool		first;			/* complete compare of the table */
	bool		suspended;
} CompareEnd;

static void
compare_last_step(BcmigWork *work, BcmigSpool *spool, BcmigApplied *applied, void *arg)
{
	BcmigTableInfo *table = work->table;
	CompareEnd *end = arg;
	BcmigCatalogScope scope;
	char	   *reason;

	if (applied->written + applied->deleted + applied->quarantined > 0)
		bcmig_log_batch(work, "compare", end->started, "Completed", spool->upserts, applied,
						NULL, NULL, NULL);
	bcmig_quarantine_settle(table, spool, end->started);
	store_swept(work, end->reading);
	bcmig_catalog_begin(&scope);
	end->first = bcmig_sql("UPDATE bcmig.table_state SET state = 'streaming', reason = NULL, since = clock_timestamp() "
						   "WHERE table_id = $1 AND state = 'catching_up'", "i", table->table_id) > 0;
	bcmig_sql("UPDATE bcmig.table_state SET position = CASE WHEN incarnation = $5 THEN $2 ELSE position END, "
			  " rows_applied = rows_applied + $3, rows_deleted = rows_deleted + $4 WHERE table_id = $1",
			  "iIIII", table->table_id, end->reading->horizon, applied->written, applied->deleted, end->reading->incarnation);
	if (end->first)
		bcmig_audit("state", table->sync_name, table->target_name, "streaming", NULL);
	bcmig_catalog_end(&scope);
	reason = bcmig_ladder(table, end->started, applied);
	end->suspended = reason != NULL;
	if (reason != NULL)
		bcmig_state_suspend(table, reason);
}

static bool
compare(BcmigWork *work, bool confirmed, const BcmigReading *reading)
{
	BcmigTableInfo *table = work->table;
	BcmigSpool *spool;
	BcmigSpool *wanted;
	BcmigApplied applied = {0};
	CompareEnd	end = {0};
	char	   *reason = NULL;

	end.reading = reading;
	end.started = bcmig_forward_time();
	bcmig_start_transaction();
	spool = bcmig_spool_create();
	bcmig_read(work, work->dialect->chunk(table, (Datum) 0, (Datum) 0), 0, &spool->receiver);
	bcmig_end_transaction();
	bcmig_check_same_blue(reading, &spool->receiver.signs);

	bcmig_start_transaction();
	if (table->nkeys > 0)
		add_deletes(work, spool, confirmed, &reason);
	else
	{
		wanted = bcmig_transform_spool(table, spool);
		compare_heap(work, wanted, &applied, confirmed, &reason);
		if (wanted != spool)
			bcmig_spool_end(wanted);
	}
	if (reason != NULL)
	{
		bcmig_spool_end(spool);
		return suspend(work, reason);
	}
	if (table->nkeys == 0)
		compare_last_step(work, spool, &applied, &end);
	bcmig_end_transaction();
	if (table->nkeys > 0)
		(void) bcmig_apply_spool(work, spool, &applied, PG_INT64_MAX, false, compare_last_step, &end);
	bcmig_spool_end(spool);
	bcmig_count_rows(work, &applied, 0);
	if (end.suspended)
		bcmig_publish_state(table->table_id, BCMIG_SUSPENDED);
	else if (end.first)
		bcmig_publish_state(table->table_id, BCMIG_STREAMING);
	publish_sweep(work, reading->horizon, reading->poll, end.started, true);
	return true;
}

bool
bcmig_run_sweep(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	bool		snapshot = strcmp(table->capture, "snapshot") == 0;
	BcmigReading reading;
	BcmigStored stored;
	bool		swept = false;

	/* a compare writes what it reads, the sweep only what it re-reads */
	if (snapshot)
	{
		bcmig_applier_lock(work, ExclusiveLock);
		bcmig_hear_blue(work);
	}
	bcmig_reading(table->table_id, &reading);
	bcmig_start_transaction();
	if (!bcmig_state_load(table->table_id, &stored))
		stored.state = BCMIG_SUSPENDED;
	bcmig_end_transaction();
	if (reading.poll > 0 && stored.state != BCMIG_SUSPENDED && stored.state != BCMIG_PENDING)
	{
		bcmig_slot_phase(snapshot ? "compare" : "sweep", table->target_name, 0);
		swept = snapshot ? compare(work, stored.delete_confirmed, &reading)
			: key_sweep(work, stored.delete_confirmed, &reading);
	}
	if (snapshot)
		bcmig_applier_unlock(work, ExclusiveLock);
	return swept;
}
