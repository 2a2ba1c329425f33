/*-------------------------------------------------------------------------
 *
 * status.c
 *	  What is alive, for the views: processes, blues, tables, syncs.
 *
 * Functions return rows of shared memory, copied under the lock; names and
 * configuration are joined by the views.  Without shared memory they return no
 * row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "slot.h"
#include "throttle.h"
#include "through.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

BCMIG_FUNCTION(bcmig_live_workers);
BCMIG_FUNCTION(bcmig_live_blues);
BCMIG_FUNCTION(bcmig_live_tables);
BCMIG_FUNCTION(bcmig_live_syncs);

#define MAX_COLUMNS		16

/* a row under construction */
typedef struct Row
{
	int			n;
	Datum		values[MAX_COLUMNS];
	bool		nulls[MAX_COLUMNS];
} Row;

static void
add(Row *row, Datum value, bool isnull)
{
	Assert(row->n < MAX_COLUMNS);
	row->values[row->n] = value;
	row->nulls[row->n++] = isnull;
}

static void
add_text(Row *row, const char *s)
{
	add(row, s[0] ? CStringGetTextDatum(s) : (Datum) 0, s[0] == '\0');
}

static void
add_time(Row *row, TimestampTz t)
{
	add(row, TimestampTzGetDatum(t), t == 0);
}

static void
put(FunctionCallInfo fcinfo, Row *row)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, row->values, row->nulls);
}

/*
 * SQL: bcmig.live_workers()
 */
Datum
bcmig_live_workers(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {"", "manager", "poller", "worker", "runner"};

	InitMaterializedSRF(fcinfo, 0);
	if (bcmig_shared == NULL)
		return (Datum) 0;
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];
		Row			row = {0};

		if (!slot->in_use || slot->dboid != MyDatabaseId)
			continue;
		add(&row, Int32GetDatum(slot->pid), slot->pid == 0);
		add_text(&row, names[slot->role]);
		add(&row, ObjectIdGetDatum(slot->owner), !OidIsValid(slot->owner));
		add(&row, Int32GetDatum(slot->environment_id), slot->environment_id == 0);
		add(&row, Int32GetDatum(slot->job.sync_id), slot->job.kind == BCMIG_JOB_NONE);
		add(&row, Int32GetDatum(slot->job.table_id), slot->job.kind == BCMIG_JOB_NONE);
		add_text(&row, slot->phase);
		add_time(&row, slot->since);
		add(&row, Int64GetDatum(slot->rows_done), false);
		add(&row, Int64GetDatum(slot->rows_total), slot->rows_total <= 0);
		add(&row, Int64GetDatum(slot->jobs_done), false);
		add(&row, Int64GetDatum(slot->rows_processed), false);
		add(&row, Int64GetDatum(slot->errors), false);
		add_text(&row, slot->last_error);
		put(fcinfo, &row);
	}
	LWLockRelease(bcmig_shared->lock);
	return (Datum) 0;
}

/*
 * SQL: bcmig.live_blues()
 */
Datum
bcmig_live_blues(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	if (bcmig_shared == NULL)
		return (Datum) 0;
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	for (int i = 0; i < BCMIG_MAX_BLUES; i++)
	{
		BcmigBlue  *blue = &bcmig_shared->blues[i];
		Row			row = {0};

		if (!blue->in_use || blue->dboid != MyDatabaseId)
			continue;
		add(&row, Int32GetDatum(blue->environment_id), false);
		add(&row, ObjectIdGetDatum(blue->owner), false);
		add(&row, BoolGetDatum(blue->reachable), false);
		add(&row, Int64GetDatum((int64) blue->poll), false);
		add_time(&row, blue->clock);
		add(&row, Int64GetDatum(blue->poll > 0 ? bcmig_age_of(blue->read_at) / 1000 : 0), blue->poll == 0);
		add(&row, Int64GetDatum(blue->horizon), blue->poll == 0);
		add(&row, Int64GetDatum(blue->top), blue->poll == 0);
		add_text(&row, blue->incarnation_text);
		add_text(&row, blue->blocked_by);
		add_text(&row, blue->last_error);
		add(&row, Float8GetDatum(bcmig_answer_us(blue) / 1000.0), blue->throttle.answers == 0);
		add(&row, Float8GetDatum(bcmig_bound_us(blue) / 1000.0), bcmig_bound_us(blue) == 0);
		add(&row, TimestampTzGetDatum(blue->throttle.on ? GetCurrentTimestamp() - bcmig_age_of(blue->throttle.since) : 0), !blue->throttle.on);
		add(&row, Float8GetDatum(bcmig_throttled_us(blue) / 1000.0), false);
		put(fcinfo, &row);
	}
	LWLockRelease(bcmig_shared->lock);
	return (Datum) 0;
}

/*
 * SQL: bcmig.live_tables()
 */
Datum
bcmig_live_tables(PG_FUNCTION_ARGS)
{
	HASH_SEQ_STATUS seq;
	BcmigTable *table;

	InitMaterializedSRF(fcinfo, 0);
	if (bcmig_shared == NULL)
		return (Datum) 0;
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	hash_seq_init(&seq, bcmig_tables);
	while ((table = hash_seq_search(&seq)) != NULL)
	{
		Row			row = {0};

		if (table->key.dboid != MyDatabaseId)
			continue;
		add(&row, Int32GetDatum(table->key.table_id), false);
		add_text(&row, bcmig_state_name(table->state));
		add(&row, Int64GetDatum(bcmig_is_clean(table) && table->blue >= 0 ?
								bcmig_shared->blues[table->blue].horizon : table->position),
			table->state == BCMIG_PENDING);
		add(&row, BoolGetDatum(bcmig_is_clean(table)), false);
		add(&row, Int64GetDatum(table->rows_copied), false);
		add(&row, Int64GetDatum(table->rows_applied), false);
		add(&row, Int64GetDatum(table->rows_deleted), false);
		add(&row, Int64GetDatum(table->windows), false);
		add_time(&row, table->last_applied_at);
		add(&row, Int32GetDatum(table->failures), false);
		add(&row, Int32GetDatum(table->busy), false);
		put(fcinfo, &row);
	}
	LWLockRelease(bcmig_shared->lock);
	return (Datum) 0;
}

/*
 * SQL: bcmig.live_syncs(): a row per sync that has live tables.
 */
Datum
bcmig_live_syncs(PG_FUNCTION_ARGS)
{
	HASH_SEQ_STATUS seq;
	BcmigProved *proved;

	InitMaterializedSRF(fcinfo, 0);
	if (bcmig_shared == NULL)
		return (Datum) 0;
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	hash_seq_init(&seq, bcmig_all_proved());
	while ((proved = hash_seq_search(&seq)) != NULL)
	{
		Row			row = {0};
		TimestampTz through = 0;
		int64		lag = 0;
		bool		known = bcmig_proved_through(proved, &through, &lag);
		Interval   *interval = palloc0(sizeof(Interval));

		interval->time = lag;
		add(&row, Int32GetDatum(proved->sync_id), false);
		add(&row, TimestampTzGetDatum(through), !known);
		add(&row, IntervalPGetDatum(interval), !known);
		add_text(&row, proved->blue >= 0 ? bcmig_shared->blues[proved->blue].blocked_by : "");
		add(&row, BoolGetDatum(proved->blue >= 0 && bcmig_shared->blues[proved->blue].reachable), false);
		put(fcinfo, &row);
	}
	LWLockRelease(bcmig_shared->lock);
	return (Datum) 0;
}
