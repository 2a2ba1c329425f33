/*-------------------------------------------------------------------------
 *
 * migration_plots.c
 *	  The plots of reports: rows over time, lag and weight; of a migration also
 *	  phases and the biggest tables.
 *
 * bcmig.metric may hold a month of minutes for each of many syncs: POINTS of
 * them are drawn, each standing for as many minutes as it must.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "report.h"

#include "document.h"
#include "miscadmin.h"
#include "plot.h"
#include "utils/builtins.h"
#include "utils/float.h"

#define POINTS		200
#define MOST_BARS	40			/* of a plot of phases */
#define BIGGEST		15			/* tables */

/* column of the last result; NULL = NaN */
static double
number(uint64 row, int col)
{
	char	   *text = bcmig_get_text(row, col);

	return text ? BCMIG_FLOAT8IN(text) : get_float8_nan();
}

static BcmigSeries *
series(const char *name, char colour, uint64 n)
{
	BcmigSeries *s = palloc0(sizeof(BcmigSeries));

	s->name = name;
	s->colour = colour;
	s->x = palloc(sizeof(double) * (n + 1));
	s->y = palloc(sizeof(double) * (n + 1));
	return s;
}

static void
point(BcmigSeries *s, double x, double y)
{
	s->x[s->n] = x;
	s->y[s->n++] = y;
}

static char *
row_tick(double value)
{
	if (value >= 1e9)
		return psprintf("%g bn", value / 1e9);
	if (value >= 1e6)
		return psprintf("%g m", value / 1e6);
	if (value >= 1e4)
		return psprintf("%g k", value / 1e3);
	return psprintf("%g", value);
}

static char *
ms_tick(double ms)
{
	if (ms < 1000)
		return psprintf("%g ms", ms);
	return psprintf("%g s", ms / 1000);
}

static void
add_plot(BcmigPart *in, const char *title, char *svg)
{
	if (svg != NULL)
		bcmig_plot(in, title, svg);
	else
		bcmig_line(in, title, "nothing measured yet");
}

/* the average weight of the syncs after each change, as steps, to the end of the other lines */
static BcmigSeries *
weight_steps(Datum syncs, int nsyncs, double from, double to)
{
	uint64		n = bcmig_sql("SELECT extract(epoch FROM e.at), array_position($1, y.sync_id), e.to_percent FROM bcmig.traffic_event e JOIN bcmig.sync y ON y.name = e.sync_name "
							  "WHERE y.sync_id = ANY ($1) AND e.event = 'changed' AND e.to_percent IS NOT NULL ORDER BY e.at, e.event_id", "n", syncs);
	BcmigSeries *s = series("share of traffic on green", 'c', n + 2);
	double	   *weights = palloc0(sizeof(double) * Max(nsyncs, 1));
	double		sum = 0;

	s->steps = s->percent = true;
	point(s, from, 0);
	for (uint64 i = 0; i < n; i++)
	{
		int			which = (int) bcmig_get_int64(i, 2, 1) - 1;
		double		percent = number(i, 3);

		sum += percent - weights[which];
		weights[which] = percent;
		if (number(i, 1) <= to)
			point(s, Max(from, number(i, 1)), sum / nsyncs);
	}
	point(s, to, sum / nsyncs);
	return s;
}

void
bcmig_metric_plots(BcmigPart *in, Datum syncs, int nsyncs, int64 execution, int seconds)
{
	uint64		n = bcmig_sql("WITH m AS (SELECT extract(epoch FROM minute)::float8 AS at, seconds, rows_written + rows_deleted AS rows, samples, lag_avg_ms, lag_max_ms FROM bcmig.metric m "
							  "  WHERE sync_id = ANY ($1) AND ($2 = 0 OR minute + seconds * interval '1 s' >= (SELECT started_at FROM bcmig.execution WHERE execution_id = $2)) "
							  "  AND ($2 = 0 OR minute <= (SELECT coalesce(ended_at, 'infinity') FROM bcmig.execution WHERE execution_id = $2)) "
							  "  AND ($4 = 0 OR minute >= now() - $4 * interval '1 s')), "
							  " r AS (SELECT min(at) AS low, greatest(min(seconds), (max(at) - min(at)) / $3) AS width FROM m) "
							  "SELECT min(m.at) AS at, sum(m.rows), sum(m.lag_avg_ms * m.samples) / nullif(sum(m.samples) FILTER (WHERE m.lag_avg_ms IS NOT NULL), 0), max(m.lag_max_ms), max(m.at + m.seconds) "
							  "FROM m, r GROUP BY floor((m.at - r.low) / r.width) ORDER BY 1", "nIii", syncs, execution, POINTS, seconds);
	BcmigSeries *rows = series("rows written and deleted, in all", 'a', n + 1);
	BcmigSeries *average = series("lag, average", 'a', n);
	BcmigSeries *highest = series("highest", 'd', n);
	double		sum = 0;
	double		from = 0;
	double		to = 0;
	List	   *lag;

	for (uint64 i = 0; i < n; i++)
	{
		if (i == 0)
		{
			from = number(i, 1);
			point(rows, from, 0);
		}
		sum += number(i, 2);
		to = number(i, 5);
		point(rows, to, sum);
		point(average, number(i, 1), number(i, 3));
		point(highest, number(i, 1), number(i, 4));
	}
	add_plot(in, "Rows over time", n > 0 ? bcmig_plot_lines("Rows over time", list_make1(rows), false, row_tick) : NULL);
	if (n == 0)
	{
		add_plot(in, "Lag and weight", NULL);
		return;
	}
	lag = list_make2(average, highest);
	lag = lappend(lag, weight_steps(syncs, nsyncs, from, to));
	add_plot(in, "Lag (logarithmic), and the share of traffic on green (0 to 100 % of the height)", bcmig_plot_lines("Lag and weight", lag, true, ms_tick));
}

static BcmigBar *
bar(char *label, char *note, char colour, double from, double to)
{
	BcmigBar   *b = palloc(sizeof(BcmigBar));

	b->label = label;
	b->note = note;
	b->colour = colour;
	b->from = from;
	b->to = to;
	return b;
}

/*
 * Phases of the execution; without one, what each sync has done that took time.
 */
static void
phase_plot(BcmigPart *in, Datum syncs, int64 execution)
{
	uint64		n;
	List	   *bars = NIL;

	if (execution != 0)
		n = bcmig_sql("SELECT name || CASE WHEN sync <> '' THEN ', ' || sync ELSE '' END, state, extract(epoch FROM started_at), "
					  " extract(epoch FROM coalesce(ended_at, clock_timestamp())) FROM bcmig.phase_run WHERE execution_id = $1 AND started_at IS NOT NULL "
					  "ORDER BY wave, position, sync LIMIT $2", "Ii", execution, MOST_BARS + 1);
	else
		n = bcmig_sql("SELECT * FROM (SELECT 'copy of ' || y.name, CASE WHEN count(x.copy_finished) = count(*) THEN 'done' ELSE 'running' END, extract(epoch FROM min(x.copy_started)) AS at, "
					  "  extract(epoch FROM coalesce(max(x.copy_finished), clock_timestamp())) FROM bcmig.sync y JOIN bcmig.sync_table t USING (sync_id) JOIN bcmig.table_state x USING (table_id) "
					  "  WHERE y.sync_id = ANY ($1) AND x.copy_started IS NOT NULL GROUP BY y.name "
					  " UNION ALL SELECT r.mode || ' validation of ' || y.name, CASE WHEN r.verdict = 'ok' THEN 'done' WHEN r.state = 'running' THEN 'running' ELSE 'failed' END, "
					  "  extract(epoch FROM r.started_at), extract(epoch FROM coalesce(r.finished_at, clock_timestamp())) "
					  "  FROM (SELECT r.*, row_number() OVER (PARTITION BY r.sync_id ORDER BY r.run_id DESC) AS newest FROM bcmig.validation_run r WHERE r.table_id IS NULL) r "
					  "  JOIN bcmig.sync y USING (sync_id) WHERE r.newest <= 5 AND r.sync_id = ANY ($1) "
					  " UNION ALL SELECT w.kind || ' of ' || y.name, CASE w.state WHEN 'done' THEN 'done' WHEN 'running' THEN 'running' ELSE 'failed' END, "
					  "  extract(epoch FROM w.asked_at), extract(epoch FROM coalesce(w.ended_at, clock_timestamp())) FROM bcmig.switch w JOIN bcmig.sync y USING (sync_id) WHERE w.sync_id = ANY ($1)) b "
					  "ORDER BY at LIMIT $2", "ni", syncs, MOST_BARS + 1);
	for (uint64 i = 0; i < Min(n, MOST_BARS); i++)
	{
		char	   *state = bcmig_get_text(i, 2);
		double		from = number(i, 3);
		double		to = Max(from, number(i, 4));
		char		colour = strcmp(state, "done") == 0 ? 'b' : strcmp(state, "running") == 0 ? 'a' : 'c';

		bars = lappend(bars, bar(bcmig_get_text(i, 1), bcmig_duration(to - from), colour, from, to));
	}
	add_plot(in, n > MOST_BARS ? psprintf("Phases (the first %d)", MOST_BARS) : "Phases", bcmig_plot_gantt("Phases over time", bars));
}

static void
table_plot(BcmigPart *in, Datum syncs)
{
	uint64		n = bcmig_sql("SELECT format('%I.%I', t.target_schema, t.target_table), x.bytes_copied FROM bcmig.sync_table t JOIN bcmig.table_state x USING (table_id) "
							  "WHERE t.sync_id = ANY ($1) AND x.bytes_copied > 0 ORDER BY x.bytes_copied DESC, 1 LIMIT $2", "ni", syncs, BIGGEST);
	List	   *bars = NIL;

	for (uint64 i = 0; i < n; i++)
		bars = lappend(bars, bar(bcmig_get_text(i, 1), bcmig_bytes(number(i, 2)), 'a', 0, number(i, 2)));
	add_plot(in, "Biggest tables, bytes copied", bcmig_plot_bars("Biggest tables", bars));
}

void
bcmig_migration_plots(BcmigPart *document, Datum syncs, int nsyncs, int64 execution)
{
	BcmigPart  *out = bcmig_section(document, NULL, "Plots");

	bcmig_metric_plots(out, syncs, nsyncs, execution, 0);
	phase_plot(out, syncs, execution);
	table_plot(out, syncs);
}
