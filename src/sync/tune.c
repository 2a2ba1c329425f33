/*-------------------------------------------------------------------------
 *
 * tune.c
 *	  What the figures of a sync say about its options.
 *
 * The engine adapts by itself what it can from one moment to the next: how
 * often blue is polled, the size of copy chunks, how windows travel together.
 * What stays a person's choice is looked at here, from what has been measured:
 * bcmig.sync_batch, sizes of green's tables, live state.  Each recommendation
 * carries its numbers.  With apply => true options are set as
 * bcmig_alter_sync() and bcmig_alter_table() set them, in the caller's
 * transaction; what concerns blue is a statement to review, never run.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "call.h"
#include "configure.h"
#include "dialect.h"
#include "options.h"

#include "catalog/namespace.h"
#include "foreign/foreign.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "throttle.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

#define BATCH_BYTES			(8 * 1024 * 1024)	/* what a batch may take in memory, as in apply.c */
#define MOST_BATCH_ROWS		1000	/* more has not been seen to be faster, and others wait longer */
#define LEAST_BATCH_ROWS	100
#define BIG_WINDOW			10	/* batches a window may have and be one transaction */
#define LATE_PRIORITY		8
#define LONG_VALUES			(1024 * 1024)	/* bytes out of line worth another compression */
#define COMPARED_ROWS		10000	/* rows of a table read as a whole again and again */
#define SCANNED_ROWS		100000	/* rows of a table blue may scan for a few */
#define SLOW_WINDOW			500 /* ms */

BCMIG_FUNCTION(bcmig_optimize_sync);

/* what is known of a table */
typedef struct Measured
{
	int			table_id;
	char	   *target;
	char	   *capture;
	bool		has_key;
	bool		only_table;		/* of its sync */
	double		rows;			/* of green, as last analyzed; -1 = not known */
	int64		bytes;			/* of its heap */
	int64		long_bytes;		/* out of line */
	int64		uncompressed;	/* columns whose long values are not compressed with lz4 */
	int64		batch_rows;
	bool		own_priority;
	char	   *parallel;
	int64		copy_seconds;
	int64		windows;		/* completed and on record */
	int64		big_windows;
	int64		read;			/* rows of all windows */
	int64		big_read;		/* rows of big windows */
	int64		most;			/* rows of the biggest */
	int64		refusing;		/* windows with rows green refused */
	int64		window_ms;		/* middle one of small windows */
} Measured;

typedef struct Advice
{
	FunctionCallInfo fcinfo;
	const BcmigSync *sync;
	bool		apply;
	int			given;
} Advice;

static const char *const measure =
"SELECT t.table_id, format('%I.%I', t.target_schema, t.target_table), t.capture, "
" EXISTS (SELECT FROM bcmig.column_map m WHERE m.table_id = t.table_id AND m.key_position IS NOT NULL), "
" (SELECT count(*) = 1 FROM bcmig.sync_table o WHERE o.sync_id = t.sync_id), "
" coalesce(c.reltuples, -1)::bigint, coalesce(pg_relation_size(c.oid), 0), "
" coalesce(pg_total_relation_size(nullif(c.reltoastrelid, 0)), 0), "
" (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped "
"  AND a.attstorage IN ('x', 'm') AND a.attcompression <> 'l' "
"  AND EXISTS (SELECT FROM pg_settings s WHERE s.name = 'default_toast_compression' AND 'lz4' = ANY (s.enumvals) "
"   AND NOT (a.attcompression = '' AND s.setting = 'lz4'))), "
" b.value::bigint, p.source <> 'default', l.value, "
" k.seconds, w.n, w.big, w.read, w.big_read, w.most, w.refusing, w.ms "
"FROM bcmig.sync_table t "
"JOIN bcmig.effective_option b ON b.table_id = t.table_id AND b.name = 'batch_rows' "
"JOIN bcmig.effective_option p ON p.table_id = t.table_id AND p.name = 'priority' "
"JOIN bcmig.effective_option l ON l.table_id = t.table_id AND l.name = 'parallel' "
"LEFT JOIN pg_class c ON c.oid = to_regclass(format('%I.%I', t.target_schema, t.target_table)) "
/* each once over sync_batch, not once for each table */
"LEFT JOIN (SELECT x.table_id, sum(extract(epoch FROM x.finished_at - x.started_at))::bigint AS seconds FROM bcmig.sync_batch x "
" WHERE x.sync_id = $1 AND x.kind = 'copy' GROUP BY 1) k ON k.table_id = t.table_id "
"LEFT JOIN (SELECT x.table_id, count(*) AS n, count(*) FILTER (WHERE x.rows_read > $2 * o.value::bigint) AS big, "
"  sum(x.rows_read)::bigint AS read, sum(x.rows_read) FILTER (WHERE x.rows_read > $2 * o.value::bigint)::bigint AS big_read, "
"  max(x.rows_read) AS most, count(*) FILTER (WHERE x.rows_quarantined > 0) AS refusing, "
"  (1000 * percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM x.finished_at - x.started_at)) "
"   FILTER (WHERE x.rows_read <= o.value::bigint))::bigint AS ms "
" FROM bcmig.sync_batch x JOIN bcmig.effective_option o ON o.table_id = x.table_id AND o.name = 'batch_rows' "
" WHERE x.sync_id = $1 AND x.kind = 'window' AND x.status = 'Completed' GROUP BY 1) w ON w.table_id = t.table_id "
"WHERE t.sync_id = $1 ORDER BY 2";

static Measured *
load_measured(const BcmigSync *sync, int *n)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	Measured   *all;

	bcmig_catalog_begin(&scope);
	*n = bcmig_sql(measure, "ii", sync->sync_id, BIG_WINDOW);
	MemoryContextSwitchTo(caller);
	all = palloc0(sizeof(Measured) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
	{
		Measured   *m = &all[i];

		m->table_id = bcmig_get_int64(i, 1, 0);
		m->target = bcmig_get_text(i, 2);
		m->capture = bcmig_get_text(i, 3);
		m->has_key = bcmig_get_bool(i, 4);
		m->only_table = bcmig_get_bool(i, 5);
		m->rows = bcmig_get_int64(i, 6, -1);
		m->bytes = bcmig_get_int64(i, 7, 0);
		m->long_bytes = bcmig_get_int64(i, 8, 0);
		m->uncompressed = bcmig_get_int64(i, 9, 0);
		m->batch_rows = bcmig_get_int64(i, 10, 0);
		m->own_priority = bcmig_get_bool(i, 11);
		m->parallel = bcmig_get_text(i, 12);
		m->copy_seconds = bcmig_get_int64(i, 13, 0);
		m->windows = bcmig_get_int64(i, 14, 0);
		m->big_windows = bcmig_get_int64(i, 15, 0);
		m->read = bcmig_get_int64(i, 16, 0);
		m->big_read = bcmig_get_int64(i, 17, 0);
		m->most = bcmig_get_int64(i, 18, 0);
		m->refusing = bcmig_get_int64(i, 19, 0);
		m->window_ms = bcmig_get_int64(i, 20, 0);
	}
	bcmig_catalog_end(&scope);
	return all;
}

/* what a value becomes when an option is set to it */
static Datum
option_change(const char *name, const char *value)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoChar(&s, '{');
	escape_json(&s, name);
	appendStringInfoChar(&s, ':');
	escape_json(&s, value);
	appendStringInfoChar(&s, '}');
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(s.data));
}

/*
 * A row of the report.  target NULL: of the sync as a whole.  "option": it is
 * one bcmig can set; else for a person to read.
 */
static void
advise(Advice *a, const char *target, const char *setting, const char *current, const char *recommended,
	   const char *evidence, bool option)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) a->fcinfo->resultinfo;
	const char *texts[] = {target, setting, current, recommended, evidence};
	Datum		values[6];
	bool		nulls[6] = {0};

	for (int i = 0; i < lengthof(texts); i++)
	{
		nulls[i] = texts[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(texts[i]);
	}
	values[5] = BoolGetDatum(option && a->apply);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	a->given++;
	if (!option || !a->apply)
		return;
	if (target == NULL)
		DirectFunctionCall2(bcmig_alter_sync, CStringGetTextDatum(a->sync->name), option_change(setting, recommended));
	else
		DirectFunctionCall3(bcmig_alter_table, CStringGetTextDatum(a->sync->name), CStringGetTextDatum(target),
							option_change(setting, recommended));
}

/* rows to a batch: many where windows are big and rows narrow, few where green refuses rows */
static void
look_at_batches(Advice *a, const Measured *m)
{
	char	   *current = psprintf(INT64_FORMAT, m->batch_rows);
	int64		wanted;

	if (m->refusing > 0 && m->refusing * 10 >= m->windows)
	{
		wanted = Max(LEAST_BATCH_ROWS, m->batch_rows / 10);
		if (wanted < m->batch_rows)
			advise(a, m->target, "batch_rows", current, psprintf(INT64_FORMAT, wanted),
				   psprintf("green refused rows in " INT64_FORMAT " of " INT64_FORMAT " windows: each time a batch is halved down to the row",
							m->refusing, m->windows), true);
		return;
	}
	if (m->big_read * 2 <= m->read || m->rows <= 0)
		return;
	wanted = Min(MOST_BATCH_ROWS, (int64) (BATCH_BYTES / Max(m->bytes / m->rows, 1)));
	if (wanted >= 2 * m->batch_rows)
		advise(a, m->target, "batch_rows", current, psprintf(INT64_FORMAT, wanted),
			   psprintf(INT64_FORMAT " of " INT64_FORMAT " rows came in " INT64_FORMAT " windows of more than %d batches, at most " INT64_FORMAT
						" rows in one; a row takes %.0f bytes", m->big_read, m->read, m->big_windows, BIG_WINDOW, m->most, m->bytes / m->rows), true);
}

static void
look_at_priority(Advice *a, const Measured *m)
{
	if (m->own_priority || m->only_table || m->big_read * 2 <= m->read)
		return;
	advise(a, m->target, "priority", "5", psprintf("%d", LATE_PRIORITY),
		   psprintf(INT64_FORMAT " of " INT64_FORMAT " rows came in " INT64_FORMAT " big windows: small changes of other tables first",
					m->big_read, m->read, m->big_windows), true);
}

static void
look_at_compression(Advice *a, const Measured *m)
{
	if (m->long_bytes < LONG_VALUES || m->uncompressed == 0)
		return;
	advise(a, m->target, "compression", "pglz", "lz4",
		   psprintf(INT64_FORMAT " kB of long values, " INT64_FORMAT " columns not compressed with lz4; what is stored stays as it is until it is written again",
					m->long_bytes / 1024, m->uncompressed), true);
}

static void
look_at_parallel(Advice *a, const Measured *m)
{
	if (strcmp(m->parallel, "1") != 0 || m->copy_seconds < 60 || bcmig_max_workers < 2)
		return;
	advise(a, m->target, "parallel", "1", "auto",
		   psprintf("one worker copied " INT64_FORMAT " MB in " INT64_FORMAT " s; the pool has %d", m->bytes / (1024 * 1024), m->copy_seconds,
					bcmig_max_workers), true);
}

/* what blue could do better; for its DBA */
static void
look_at_blue(Advice *a, const Measured *m)
{
	BcmigTableInfo *table;
	Oid			server;
	bool		whole = strcmp(m->capture, "snapshot") == 0;

	if (m->has_key && m->rows >= (whole ? COMPARED_ROWS : SCANNED_ROWS) && strcmp(m->capture, "change_tracking") != 0)
		advise(a, m->target, "capture", m->capture, "change_tracking",
			   psprintf("%s reads %.0f rows; run on blue what SELECT bcmig_blue_script('tracking', %s) prints, then SELECT bcmig_alter_table(%s, %s, '{\"capture\": \"change_tracking\"}')",
						whole ? "each compare" : "each sweep for deletes", m->rows, quote_literal_cstr(a->sync->name),
						quote_literal_cstr(a->sync->name), quote_literal_cstr(m->target)), false);

	if (strcmp(m->capture, "rowversion") != 0 || m->rows < SCANNED_ROWS || m->window_ms < SLOW_WINDOW)
		return;
	table = bcmig_load_table(m->table_id);
	server = get_relname_relid(table->feed, get_namespace_oid("bcmig", false));
	if (table->version_column == NULL || !OidIsValid(server))
		return;
	advise(a, m->target, "index on blue", NULL,
		   bcmig_dialect_of_server(GetForeignTable(server)->serverid)->version_index(table),
		   psprintf("a window of at most " INT64_FORMAT " rows takes " INT64_FORMAT " ms, of %.0f rows: blue seems to read them all", m->batch_rows,
					m->window_ms, m->rows), false);
}

static void
look_at_polls(Advice *a)
{
	BcmigCatalogScope scope;
	int64		interval;
	int64		latency;
	int			answer = 0;

	bcmig_catalog_begin(&scope);
	interval = bcmig_option_int64("poll_interval", NULL, a->sync->options, 0);
	latency = bcmig_option_int64("max_latency", NULL, a->sync->options, 0);
	bcmig_catalog_end(&scope);
	if (interval == 0 || interval <= latency)
		return;
	if (bcmig_shared != NULL)
	{
		LWLockAcquire(bcmig_shared->lock, LW_SHARED);
		for (int i = 0; i < BCMIG_MAX_BLUES; i++)
		{
			const BcmigBlue *blue = &bcmig_shared->blues[i];

			if (blue->in_use && blue->dboid == MyDatabaseId && blue->environment_id == a->sync->environment_id)
				answer = Max(answer, (int) (bcmig_answer_us(blue) / 1000));
		}
		LWLockRelease(bcmig_shared->lock);
	}
	advise(a, NULL, "poll_interval", psprintf(INT64_FORMAT "ms", interval), "auto",
		   psprintf("max_latency is " INT64_FORMAT "ms, and blue is polled every " INT64_FORMAT "ms; it takes %d ms to answer", latency, interval, answer), true);
}

/*
 * SQL: bcmig_optimize_sync(sync text, apply boolean) returns a row for each
 * setting the figures speak against.
 */
Datum
bcmig_optimize_sync(PG_FUNCTION_ARGS)
{
	Advice		a = {0};
	Measured   *all;
	int64		windows = 0;
	int			n;

	a.fcinfo = fcinfo;
	a.sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	a.apply = bcmig_arg_bool(fcinfo, 1);
	InitMaterializedSRF(fcinfo, 0);
	all = load_measured(a.sync, &n);
	look_at_polls(&a);
	for (int i = 0; i < n; i++)
	{
		const Measured *m = &all[i];

		windows += m->windows;
		look_at_batches(&a, m);
		look_at_priority(&a, m);
		look_at_compression(&a, m);
		look_at_parallel(&a, m);
		look_at_blue(&a, m);
	}
	if (windows == 0)
	{
		a.apply = false;
		advise(&a, NULL, NULL, NULL, NULL,
			   psprintf("no window of the %d tables of this sync is on record in bcmig.sync_batch: ask again when it has streamed changes for a while", n), false);
	}
	return (Datum) 0;
}
