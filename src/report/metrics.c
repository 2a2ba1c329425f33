/*-------------------------------------------------------------------------
 *
 * metrics.c
 *	  A row a minute per running sync in bcmig.metric.
 *
 * The manager samples what is alive at equal times, not when something
 * happens: right after a window the lag is always small, so samples taken then
 * would flatter.  A sample is what bcmig.sync_status would have said of
 * synced_through; when that is unknown it is counted as unknown (or as copying,
 * while tables are read for the first time), never as a lag of 0.
 *
 * What jobs did is not sampled but counted: workers add to a tally in the live
 * entry of their table after their commit, the manager takes it away when it
 * writes a row.
 *
 * Samples live in the manager's memory, a fixed number per sync.  A crash or
 * restart loses those of the present minute.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "report.h"

#include "access/xact.h"
#include "catalog.h"
#include "catalog/pg_type.h"
#include "manager.h"
#include "miscadmin.h"
#include "through.h"
#include "throttle.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define MOST_SAMPLES		300		/* in one row */
#define LEAST_BETWEEN		50		/* ms between two samples */
#define MOST_BETWEEN		1000
#define IDLE_WAIT			60000	/* ms, when no sync runs */
#define PRUNE_ROWS			10000	/* deleted in one transaction */
#define LOCK_WAIT			"1s"	/* the manager has other things to do */

/* the present minute of a sync */
typedef struct Meter
{
	int			sync_id;		/* must be first */
	int			samples;		/* with a lag */
	int			unknown;
	int			copying;		/* unknown because tables are read for the first time */
	int			workers;		/* sum over all samples */
	int			throttled;		/* samples in which what can wait had to wait for blue */
	int			answers;		/* samples with an answer time of blue */
	double		answer_ms;		/* their sum */
	double		lags[MOST_SAMPLES]; /* ms */
	BcmigTally	tally;
} Meter;

static HTAB *meters = NULL;
static TimestampTz next_sample = 0;
static TimestampTz period_start = 0;
static TimestampTz period_end = 0;
static int	period_interval = 0;	/* bcmig.metric_interval that period_end was made from */

double
bcmig_bucket_edge(int bucket)
{
	return pow(2.0, (double) bucket / BCMIG_BUCKETS_AN_OCTAVE);
}

static int
bucket_of(double ms)
{
	int			bucket;

	if (ms < 1)
		return 0;
	bucket = 1 + (int) floor(log2(ms) * BCMIG_BUCKETS_AN_OCTAVE);
	return Min(bucket, BCMIG_LAG_BUCKETS - 1);
}

static Meter *
meter_of(int sync_id)
{
	Meter	   *meter;
	bool		found;

	if (meters == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(int);
		ctl.entrysize = sizeof(Meter);
		meters = hash_create("bcmig meters", 16, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	meter = hash_search(meters, &sync_id, HASH_ENTER, &found);
	if (!found)
		memset((char *) meter + sizeof(int), 0, sizeof(Meter) - sizeof(int));
	return meter;
}

/* ---- sampling ---- */

/*
 * Is the lag of a sync unknown only because tables are still being read for
 * the first time?  Not when blue was there and does not answer now.
 */
static bool
is_copying(const Sync *sync, const BcmigProved *proved)
{
	const BcmigBlue *blue;

	if (sync->blue < 0)
		return false;
	blue = &bcmig_shared->blues[sync->blue];
	return proved->reading && (blue->reachable || blue->poll == 0);
}

/* caller holds the lock */
static void
sample_sync(const Sync *sync, const BcmigProved *proved)
{
	Meter	   *meter = meter_of(sync->sync_id);
	TimestampTz through;
	int64		lag;

	if (meter->samples + meter->unknown + meter->copying >= MOST_SAMPLES)
		return;
	if (proved != NULL && bcmig_proved_through(proved, &through, &lag))
		meter->lags[meter->samples++] = lag / 1000.0;
	else if (proved != NULL && is_copying(sync, proved))
		meter->copying++;
	else
		meter->unknown++;
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];

		if (slot->in_use && slot->role == BCMIG_WORKER && slot->dboid == MyDatabaseId &&
			slot->job.kind != BCMIG_JOB_NONE && slot->job.sync_id == sync->sync_id)
			meter->workers++;
	}
	if (sync->blue >= 0 && bcmig_shared->blues[sync->blue].throttle.on)
		meter->throttled++;
	if (sync->blue >= 0 && bcmig_shared->blues[sync->blue].reachable && bcmig_shared->blues[sync->blue].poll > 0)
	{
		meter->answers++;
		meter->answer_ms += bcmig_answer_us(&bcmig_shared->blues[sync->blue]) / 1000.0;
	}
}

static long
sample(TimestampTz now)
{
	long		between = Min(MOST_BETWEEN, Max(LEAST_BETWEEN, bcmig_metric_interval * 1000L / MOST_SAMPLES));
	bool		running = false;
	HTAB	   *all;

	for (int i = 0; i < bcmig_managed->nsyncs; i++)
		running |= bcmig_managed->syncs[i].running;
	if (!running)
		return IDLE_WAIT;

	/* the clock may have been set back */
	if (now < next_sample && next_sample - now <= between * 1000)
		return Max(1, TimestampDifferenceMilliseconds(now, next_sample));
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	all = bcmig_all_proved();
	for (int i = 0; i < bcmig_managed->nsyncs; i++)
	{
		Sync	   *sync = &bcmig_managed->syncs[i];

		if (sync->running)
			sample_sync(sync, hash_search(all, &sync->sync_id, HASH_FIND, NULL));
	}
	LWLockRelease(bcmig_shared->lock);
	hash_destroy(all);
	next_sample = TimestampTzPlusMilliseconds(now, between);
	return between;
}

/* ---- storing ---- */

/* take what was counted for a table; caller holds the lock exclusively */
static void
take_tally(BcmigTable *live)
{
	BcmigTally *from = &live->tally;
	BcmigTally *to;

	if (from->written + from->deleted + from->failed + from->bytes + from->errors == 0)
		return;
	to = &meter_of(live->sync_id)->tally;
	to->written += from->written;
	to->deleted += from->deleted;
	to->failed += from->failed;
	to->bytes += from->bytes;
	to->errors += from->errors;
	memset(from, 0, sizeof(BcmigTally));
}

static void
take_tallies(void)
{
	HASH_SEQ_STATUS seq;
	BcmigTable *live;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	hash_seq_init(&seq, bcmig_tables);
	while ((live = hash_seq_search(&seq)) != NULL)
	{
		if (live->key.dboid == MyDatabaseId)
			take_tally(live);
	}
	LWLockRelease(bcmig_shared->lock);
}

static int
compare_lags(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return x < y ? -1 : x > y;
}

/* what the views know of a sync */
typedef struct Standing
{
	int			sync_id;
	int64		tables;
	int64		streaming;
	int64		quarantined;
	int64		conflicts;
} Standing;

/* the row of one sync; in a scope */
static void
store_meter(Meter *meter, const Standing *s, TimestampTz from, double seconds)
{
	int			all = meter->samples + meter->unknown + meter->copying;
	double		sum = 0;
	double		p95 = 0;
	double		highest = 0;
	Datum		buckets[BCMIG_LAG_BUCKETS];
	int			counts[BCMIG_LAG_BUCKETS] = {0};
	int			nbuckets = 0;
	Datum		histogram = (Datum) 0;

	if (meter->samples > 0)
	{
		qsort(meter->lags, meter->samples, sizeof(double), compare_lags);
		for (int i = 0; i < meter->samples; i++)
		{
			sum += meter->lags[i];
			counts[bucket_of(meter->lags[i])]++;
		}
		/* the least lag that is not exceeded by 95 of 100 samples */
		p95 = meter->lags[(meter->samples * 95 + 99) / 100 - 1];
		highest = meter->lags[meter->samples - 1];
		nbuckets = bucket_of(highest) + 1;
		for (int i = 0; i < nbuckets; i++)
			buckets[i] = Int32GetDatum(counts[i]);
		histogram = PointerGetDatum(construct_array(buckets, nbuckets, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	}
	bcmig_sql("INSERT INTO bcmig.metric (sync_id, minute, seconds, samples, unknown, copying, lag_avg_ms, lag_p95_ms, lag_max_ms, lag_buckets, "
			  " rows_written, rows_deleted, rows_failed, bytes_copied, errors, workers, blue_answer_ms, throttled_percent, "
			  " tables, tables_streaming, quarantined, conflicts) "
			  "VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $4 > 0 THEN $7 END, CASE WHEN $4 > 0 THEN $8 END, CASE WHEN $4 > 0 THEN $9 END, $10, "
			  " $11, $12, $13, $14, $15, $16, nullif($17, -1), $18, $19, $20, $21, $22) "
			  "ON CONFLICT DO NOTHING",
			  "izfiiifffnIIIIIfffIIII", meter->sync_id, from, seconds, meter->samples, meter->unknown, meter->copying,
			  meter->samples > 0 ? sum / meter->samples : 0.0, p95, highest, histogram,
			  meter->tally.written, meter->tally.deleted, meter->tally.failed, meter->tally.bytes, meter->tally.errors,
			  all > 0 ? (double) meter->workers / all : 0.0,
			  meter->answers > 0 ? meter->answer_ms / meter->answers : -1.0,
			  all > 0 ? 100.0 * meter->throttled / all : 0.0,
			  s->tables, s->streaming, s->quarantined, s->conflicts);
}

static void
prune(void)
{
	BcmigCatalogScope scope;
	uint64		deleted;

	if (bcmig_metric_retention == 0)
		return;
	do
	{
		CHECK_FOR_INTERRUPTS();
		bcmig_start_transaction();
		bcmig_catalog_begin(&scope);
		deleted = bcmig_sql("DELETE FROM bcmig.metric WHERE (sync_id, minute) IN (SELECT sync_id, minute FROM bcmig.metric "
							" WHERE minute < now() - $1 * interval '1 minute' ORDER BY minute LIMIT $2)",
							"ii", bcmig_metric_retention, PRUNE_ROWS);
		bcmig_catalog_end(&scope);
		bcmig_end_transaction();
	} while (deleted == PRUNE_ROWS);
}

static void
store_period(TimestampTz from, double seconds)
{
	Standing   *standings;
	Meter	   *meter;
	BcmigCatalogScope scope;
	int			n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	(void) set_config_option("lock_timeout", LOCK_WAIT, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	/* of all syncs at once: the view goes through all tables; one that was dropped meanwhile is not there, and gets no row */
	n = bcmig_sql("SELECT y.sync_id, s.tables, s.tables_streaming, s.quarantined, s.conflicts "
				  "FROM bcmig.sync y JOIN bcmig.sync_status s ON s.sync = y.name", "");
	standings = palloc(sizeof(Standing) * Max(n, 1));
	for (int i = 0; i < n; i++)
		standings[i] = (Standing) {
			.sync_id = bcmig_get_int64(i, 1, 0),
			.tables = bcmig_get_int64(i, 2, 0),
			.streaming = bcmig_get_int64(i, 3, 0),
			.quarantined = bcmig_get_int64(i, 4, 0),
			.conflicts = bcmig_get_int64(i, 5, 0),
		};
	for (int i = 0; i < n; i++)
	{
		meter = hash_search(meters, &standings[i].sync_id, HASH_FIND, NULL);
		if (meter != NULL)
			store_meter(meter, &standings[i], from, seconds);
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

static void
forget_meters(void)
{
	HASH_SEQ_STATUS seq;
	Meter	   *meter;

	hash_seq_init(&seq, meters);
	while ((meter = hash_seq_search(&seq)) != NULL)
		hash_search(meters, &meter->sync_id, HASH_REMOVE, NULL);
}

/* the next whole multiple of the interval */
static TimestampTz
end_of_period(TimestampTz now)
{
	TimestampTz usecs = bcmig_metric_interval * USECS_PER_SEC;

	return (now / usecs + 1) * usecs;
}

/*
 * Write the rows of the period when it is over.  A failure costs the rows, not
 * the manager: without it nothing would be synced.
 */
static TimestampTz
store(TimestampTz now)
{
	MemoryContext caller = CurrentMemoryContext;
	TimestampTz from = period_start;
	TimestampTz to;

	if (period_start == 0 || now < period_start)
	{
		/* begun just now, or the clock was set back */
		period_start = now;
		period_interval = 0;
	}
	if (period_interval != bcmig_metric_interval)
	{
		period_end = end_of_period(now);
		period_interval = bcmig_metric_interval;
	}
	if (now < period_end)
		return period_end;

	/* a manager that was held up writes one row for all that time */
	to = end_of_period(now) - period_interval * USECS_PER_SEC;
	period_start = to;
	period_end = end_of_period(now);
	take_tallies();
	PG_TRY();
	{
		if (meters != NULL && hash_get_num_entries(meters) > 0)
			store_period(from, (to - from) / (double) USECS_PER_SEC);
		prune();
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(caller);
		ereport(WARNING,
				(errcode(edata->sqlerrcode),
				 errmsg("bcmig could not write bcmig.metric: %s", edata->message)));
	}
	PG_END_TRY();
	if (meters != NULL)
		forget_meters();
	return period_end;
}

void
bcmig_metrics_init(void)
{
	static const BcmigReportRoom room = {
		.sample = sample,
		.store = store,
		.table_leaves = take_tally,
	};

	bcmig_report_room = &room;
}
