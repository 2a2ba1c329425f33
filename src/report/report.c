/*-------------------------------------------------------------------------
 *
 * report.c
 *	  bcmig_health_report and bcmig_sync_report: what bcmig.metric says of a
 *	  stretch of time, for people and for programs.
 *
 * Both have the same figures; they differ in how far they look back and in
 * what they call good.  Averages are weighted by samples.  A percentile of
 * many minutes comes from their buckets: it is the upper edge of one, so at
 * most 19 % too high and never too low.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "report.h"

#include "call.h"
#include "catalog.h"
#include "catalog/pg_type.h"
#include "document.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"

BCMIG_FUNCTION(bcmig_health_report);
BCMIG_FUNCTION(bcmig_sync_report);

#define EXCELLENT_ERRORS	1.0 /* percent, also of time with unknown lag */
#define GOOD_ERRORS			5.0

/* a kind of report */
typedef struct Kind
{
	const char *name;
	const char *title;
	const char *period;
	int			seconds;
	double		excellent_ms;
	double		good_ms;
	bool		coverage;		/* say how many tables are kept in step */
} Kind;

static const Kind health = {"health", "Health", "last 5 minutes", 5 * 60, 100, 500, false};
static const Kind synchronisation = {"sync", "Synchronisation", "last 7 days", 7 * 24 * 60 * 60, 1000, 5000, true};

/* in ascending order of how much it needs a person */
typedef enum Assessment
{
	EXCELLENT,
	GOOD,
	UNKNOWN,
	ATTENTION
} Assessment;

static const char *const assessment_names[] = {"excellent", "good", "unknown", "attention"};

/* a sync, or all together */
typedef struct Figures
{
	char	   *name;			/* NULL = all */
	int			sync_id;
	char	   *state;
	bool		running;
	char	   *last;			/* newest row there is, also before the period; NULL = none */
	int64		tables;
	int64		active;
	int64		quarantined;
	int64		conflicts;
	double		seconds;		/* that rows stand for; 0 = no data */
	int64		samples;
	int64		unknown;
	int64		copying;
	double		lag_sum;		/* ms, over all samples */
	double		lag_max;
	int64		buckets[BCMIG_LAG_BUCKETS];
	int64		written;
	int64		deleted;
	int64		failed;
	int64		bytes;
	int64		errors;
	double		workers;
	Assessment	assessment;
	List	   *reasons;		/* why it is no better */
} Figures;

/* ---- figures ---- */

static double
get_float(uint64 row, int col)
{
	bool		isnull;
	Datum		value = bcmig_get_datum(row, col, &isnull);

	return isnull ? 0 : DatumGetFloat8(value);
}

static void
get_buckets(uint64 row, int col, int64 *buckets)
{
	bool		isnull;
	Datum		array = bcmig_get_datum(row, col, &isnull);
	Datum	   *values;
	int			n;

	if (isnull)
		return;
	deconstruct_array(DatumGetArrayTypeP(array), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
					  &values, NULL, &n);
	for (int i = 0; i < n; i++)
		buckets[Min(i, BCMIG_LAG_BUCKETS - 1)] += DatumGetInt64(values[i]);
}

/*
 * Figures of a sync, or (NULL) of all, by name; in the current context.
 */
static List *
collect(const Kind *kind, const char *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *all = NIL;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT y.name, s.state, y.wanted = 'running', s.tables, "
			  " CASE WHEN y.wanted = 'running' THEN s.tables_streaming ELSE 0 END, s.quarantined, s.conflicts, "
			  " m.seconds, m.samples, m.unknown, m.copying, m.lag_sum, m.lag_max, b.buckets, "
			  " m.written, m.deleted, m.failed, m.bytes, m.errors, m.workers, "
			  " (SELECT to_char(max(minute), 'YYYY-MM-DD HH24:MI TZ') FROM bcmig.metric x WHERE x.sync_id = y.sync_id), y.sync_id "
			  "FROM bcmig.sync y JOIN bcmig.sync_status s ON s.sync = y.name "
			  "CROSS JOIN LATERAL (SELECT sum(seconds) AS seconds, sum(samples)::int8 AS samples, sum(unknown)::int8 AS unknown, "
			  "  sum(copying)::int8 AS copying, sum(lag_avg_ms * samples) AS lag_sum, max(lag_max_ms) AS lag_max, "
			  "  sum(rows_written)::int8 AS written, sum(rows_deleted)::int8 AS deleted, sum(rows_failed)::int8 AS failed, "
			  "  sum(bytes_copied)::int8 AS bytes, sum(errors)::int8 AS errors, sum(workers * seconds) / sum(seconds) AS workers "
			  "  FROM bcmig.metric m WHERE m.sync_id = y.sync_id AND m.minute >= now() - $2 * interval '1 s') m "
			  "CROSS JOIN LATERAL (SELECT array_agg(n ORDER BY bucket) AS buckets FROM (SELECT bucket, sum(n)::int8 AS n "
			  "  FROM bcmig.metric m, unnest(m.lag_buckets) WITH ORDINALITY u (n, bucket) "
			  "  WHERE m.sync_id = y.sync_id AND m.minute >= now() - $2 * interval '1 s' GROUP BY bucket) x) b "
			  "WHERE $1 IS NULL OR y.name = $1 ORDER BY y.name", "ti", sync, kind->seconds);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(caller);
		Figures    *f = palloc0(sizeof(Figures));

		f->name = bcmig_get_text(i, 1);
		f->state = bcmig_get_text(i, 2);
		f->running = bcmig_get_bool(i, 3);
		f->tables = bcmig_get_int64(i, 4, 0);
		f->active = bcmig_get_int64(i, 5, 0);
		f->quarantined = bcmig_get_int64(i, 6, 0);
		f->conflicts = bcmig_get_int64(i, 7, 0);
		f->seconds = get_float(i, 8);
		f->samples = bcmig_get_int64(i, 9, 0);
		f->unknown = bcmig_get_int64(i, 10, 0);
		f->copying = bcmig_get_int64(i, 11, 0);
		f->lag_sum = get_float(i, 12);
		f->lag_max = get_float(i, 13);
		get_buckets(i, 14, f->buckets);
		f->written = bcmig_get_int64(i, 15, 0);
		f->deleted = bcmig_get_int64(i, 16, 0);
		f->failed = bcmig_get_int64(i, 17, 0);
		f->bytes = bcmig_get_int64(i, 18, 0);
		f->errors = bcmig_get_int64(i, 19, 0);
		f->workers = get_float(i, 20);
		f->last = bcmig_get_text(i, 21);
		f->sync_id = bcmig_get_int64(i, 22, 0);
		all = lappend(all, f);
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	if (sync != NULL && all == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" does not exist", sync),
				 errhint("SELECT name FROM bcmig.sync;")));
	return all;
}

static int64
processed(const Figures *f)
{
	return f->written + f->deleted + f->failed;
}

static double
error_percent(const Figures *f)
{
	return processed(f) > 0 ? f->failed * 100.0 / processed(f) : 0;
}

/* of the time in which it could have been known */
static double
unknown_percent(const Figures *f)
{
	return f->samples + f->unknown > 0 ? f->unknown * 100.0 / (f->samples + f->unknown) : 0;
}

static double
lag_average(const Figures *f)
{
	return f->lag_sum / f->samples;
}

static double
lag_p95(const Figures *f)
{
	int64		below = 0;

	for (int i = 0; i < BCMIG_LAG_BUCKETS; i++)
	{
		below += f->buckets[i];
		if (below * 100 >= f->samples * 95)
			return Min(i == BCMIG_LAG_BUCKETS - 1 ? f->lag_max : bcmig_bucket_edge(i), f->lag_max);
	}
	return f->lag_max;
}

/* hold a figure against its bounds */
static void
judge(Figures *f, const char *what, const char *unit, double value, double excellent, double good)
{
	if (value <= excellent)
		return;
	f->assessment = Max(f->assessment, value <= good ? GOOD : ATTENTION);
	f->reasons = lappend(f->reasons, psprintf("%s above %g %s", what, value <= good ? excellent : good, unit));
}

/*
 * Time in which the lag was not known counts like rows that failed: a sync
 * that cannot say how far behind it is is not well.
 */
static void
assess(const Kind *kind, Figures *f)
{
	f->assessment = EXCELLENT;
	if (f->samples > 0)
		judge(f, "average latency", "ms", lag_average(f), kind->excellent_ms, kind->good_ms);
	judge(f, "error rate", "%", error_percent(f), EXCELLENT_ERRORS, GOOD_ERRORS);
	judge(f, "time with unknown latency", "%", unknown_percent(f), EXCELLENT_ERRORS, GOOD_ERRORS);
	if (f->samples == 0 && f->unknown == 0 && f->assessment < UNKNOWN)
	{
		f->assessment = UNKNOWN;
		f->reasons = list_make1(f->copying > 0 ? "tables are being copied" : f->last ? "no data" : "no data yet");
	}
}

/*
 * All syncs together are as well as the worst of them; one that neither runs
 * nor ran does not count.
 */
static Figures *
add_up(const List *all)
{
	Figures    *total = palloc0(sizeof(Figures));
	bool		any = false;
	ListCell   *lc;

	foreach(lc, all)
	{
		const Figures *f = lfirst(lc);

		total->tables += f->tables;
		total->active += f->active;
		total->quarantined += f->quarantined;
		total->conflicts += f->conflicts;
		total->seconds = Max(total->seconds, f->seconds);
		total->samples += f->samples;
		total->unknown += f->unknown;
		total->copying += f->copying;
		total->lag_sum += f->lag_sum;
		total->lag_max = Max(total->lag_max, f->lag_max);
		for (int i = 0; i < BCMIG_LAG_BUCKETS; i++)
			total->buckets[i] += f->buckets[i];
		total->written += f->written;
		total->deleted += f->deleted;
		total->failed += f->failed;
		total->bytes += f->bytes;
		total->errors += f->errors;
		total->workers += f->workers;
		if (!f->running && f->seconds == 0)
			continue;
		any = true;
		if (f->assessment > total->assessment)
			total->assessment = f->assessment;
		if (f->reasons != NIL)
			total->reasons = lappend(total->reasons, psprintf("%s: %s", f->name, (char *) linitial(f->reasons)));
	}
	if (!any)
	{
		total->assessment = UNKNOWN;
		total->reasons = list_make1("no data yet");
	}
	return total;
}

/* ---- the document ---- */

static void
describe_latency(BcmigPart *out, const Figures *f)
{
	if (f->samples == 0)
	{
		bcmig_line(out, "latency", "%s", f->seconds == 0 ? "no data yet" : "unknown");
		return;
	}
	bcmig_line(out, "latency, average", "%s", bcmig_milliseconds(lag_average(f)));
	bcmig_line(out, "latency, p95", "%s", bcmig_milliseconds(lag_p95(f)));
	bcmig_line(out, "latency, highest", "%s", bcmig_milliseconds(f->lag_max));
}

static void
lines(BcmigPart *out, const Kind *kind, const Figures *f)
{
	StringInfoData assessment;
	ListCell   *lc;

	if (f->state != NULL)
		bcmig_line(out, "state", "%s", f->state);
	if (kind->coverage)
	{
		bcmig_line(out, "tables configured", "%s", bcmig_grouped(f->tables));
		bcmig_line(out, "tables active", "%s", bcmig_grouped(f->active));
		bcmig_line(out, "coverage", "%s", f->tables > 0 ? psprintf("%.1f %%", f->active * 100.0 / f->tables) : "no tables");
	}
	if (f->seconds == 0 && f->last != NULL)
		bcmig_line(out, "data", "none; the newest is of %s", f->last);
	else if (f->seconds == 0)
		bcmig_line(out, "data", "no data yet");
	else
	{
		bcmig_line(out, "data", "of %s%s", bcmig_duration(f->seconds),
				   f->copying > 0 ? psprintf(", %.1f %% of them copying", f->copying * 100.0 / (f->samples + f->unknown + f->copying)) : "");
		describe_latency(out, f);
		if (f->unknown > 0)
			bcmig_line(out, "latency unknown", "%.1f %% of the time", unknown_percent(f));
		bcmig_line(out, "records processed", "%s (%s written, %s deleted, %s failed)", bcmig_grouped(processed(f)),
				   bcmig_grouped(f->written), bcmig_grouped(f->deleted), bcmig_grouped(f->failed));
		bcmig_line(out, "active workers", "%.2f on average", f->workers);
		bcmig_line(out, "error rate", "%.2f %% (%s of %s rows failed)", error_percent(f), bcmig_grouped(f->failed), bcmig_grouped(processed(f)));
		bcmig_line(out, "jobs failed", "%s", bcmig_grouped(f->errors));
	}
	bcmig_line(out, "in quarantine", "%s rows", bcmig_grouped(f->quarantined));
	bcmig_line(out, "open conflicts", "%s", bcmig_grouped(f->conflicts));
	initStringInfo(&assessment);
	appendStringInfoString(&assessment, f->assessment == ATTENTION ? "needs attention" : assessment_names[f->assessment]);
	foreach(lc, f->reasons)
		appendStringInfo(&assessment, "%s%s", lc == list_head(f->reasons) ? ": " : ", ", (char *) lfirst(lc));
	bcmig_line(out, "assessment", "%s", assessment.data);
}

static void
members(BcmigPart *out, const Figures *f)
{
	StringInfoData reasons;
	ListCell   *lc;

	if (f->name != NULL)
	{
		bcmig_member_text(out, "sync", f->name);
		bcmig_member_text(out, "state", f->state);
		bcmig_member_text(out, "newest_data", f->last);
	}
	bcmig_member_int(out, "tables_configured", f->tables);
	bcmig_member_int(out, "tables_active", f->active);
	bcmig_member_float(out, "coverage_percent", f->tables > 0, f->active * 100.0 / Max(f->tables, 1));
	bcmig_member_float(out, "seconds", true, f->seconds);
	bcmig_member_int(out, "samples", f->samples);
	bcmig_member_int(out, "samples_unknown", f->unknown);
	bcmig_member_int(out, "samples_copying", f->copying);
	bcmig_member_float(out, "latency_avg_ms", f->samples > 0, f->samples > 0 ? lag_average(f) : 0);
	bcmig_member_float(out, "latency_p95_ms", f->samples > 0, lag_p95(f));
	bcmig_member_float(out, "latency_max_ms", f->samples > 0, f->lag_max);
	bcmig_member_int(out, "rows_processed", processed(f));
	bcmig_member_int(out, "rows_written", f->written);
	bcmig_member_int(out, "rows_deleted", f->deleted);
	bcmig_member_int(out, "rows_failed", f->failed);
	bcmig_member_float(out, "error_percent", processed(f) > 0, error_percent(f));
	bcmig_member_int(out, "bytes_copied", f->bytes);
	bcmig_member_int(out, "jobs_failed", f->errors);
	bcmig_member_float(out, "active_workers", f->seconds > 0, f->workers);
	bcmig_member_int(out, "quarantined", f->quarantined);
	bcmig_member_int(out, "conflicts", f->conflicts);
	bcmig_member_text(out, "assessment", assessment_names[f->assessment]);
	initStringInfo(&reasons);
	appendStringInfoChar(&reasons, '[');
	foreach(lc, f->reasons)
	{
		if (lc != list_head(f->reasons))
			appendStringInfoString(&reasons, ", ");
		escape_json(&reasons, lfirst(lc));
	}
	appendStringInfoChar(&reasons, ']');
	bcmig_member_raw(out, "reasons", reasons.data);
}

static void
block(BcmigPart *in, const char *key, const Kind *kind, const Figures *f)
{
	BcmigPart  *out = bcmig_section(in, key, psprintf("%s of %s, %s", kind->title, f->name ? f->name : "all syncs", kind->period));

	lines(out, kind, f);
	members(out, f);
}

static void
plots(BcmigPart *document, const Kind *kind, List *all)
{
	Datum	   *ids = palloc(sizeof(Datum) * Max(list_length(all), 1));
	BcmigCatalogScope scope;
	ListCell   *lc;
	int			n = 0;

	foreach(lc, all)
		ids[n++] = Int32GetDatum(((Figures *) lfirst(lc))->sync_id);
	bcmig_catalog_begin(&scope);
	bcmig_metric_plots(bcmig_section(document, NULL, psprintf("Plots, %s", kind->period)),
					   PointerGetDatum(construct_array(ids, n, INT4OID, sizeof(int32), true, TYPALIGN_INT)), n, 0, kind->seconds);
	bcmig_catalog_end(&scope);
}

/* ---- the functions ---- */

static Datum
report(FunctionCallInfo fcinfo, const Kind *kind)
{
	char	   *sync = bcmig_arg_optional_text(fcinfo, 0);
	char	   *format = bcmig_arg_text(fcinfo, 1, "format");
	BcmigPart  *document;
	BcmigPart  *syncs;
	List	   *all;
	ListCell   *lc;

	bcmig_check_format(format);
	all = collect(kind, sync);
	document = bcmig_document(kind->name, psprintf("%s report", kind->title));
	bcmig_member_int(document, "period_seconds", kind->seconds);
	syncs = bcmig_list(document, "syncs");
	foreach(lc, all)
	{
		assess(kind, lfirst(lc));
		block(syncs, NULL, kind, lfirst(lc));
	}
	if (sync == NULL)
		block(document, "total", kind, add_up(all));
	if (strcmp(format, "html") == 0)
		plots(document, kind, all);
	PG_RETURN_TEXT_P(cstring_to_text(bcmig_write_document(document, format)));
}

/*
 * bcmig_health_report(sync text, format text)
 */
Datum
bcmig_health_report(PG_FUNCTION_ARGS)
{
	return report(fcinfo, &health);
}

/*
 * bcmig_sync_report(sync text, format text)
 */
Datum
bcmig_sync_report(PG_FUNCTION_ARGS)
{
	return report(fcinfo, &synchronisation);
}
