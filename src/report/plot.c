/*-------------------------------------------------------------------------
 *
 * plot.c
 *	  Plots as inline SVG: lines over time, bars over time, bars by length.
 *
 * A plot is 400 units wide and is shown at the width of a phone or at most half
 * again as wide, so that its texts stay readable.  Colours are classes of the
 * page (html.c), which knows light and dark.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "plot.h"

#include "document.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define WIDTH		400
#define LEFT		58			/* of the area: texts of the axis stand there */
#define RIGHT		390
#define TOP			14
#define BOTTOM		172
#define HEIGHT		210
#define ROW			20			/* of a bar */
#define LABEL_CHARS 24

static void
begin(StringInfo out, const char *about, int height)
{
	initStringInfo(out);
	appendStringInfo(out, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\" xmlns=\"http://www.w3.org/2000/svg\">\n",
					 WIDTH, height, bcmig_html_escape(about));
}

static void
write_text(StringInfo out, double x, double y, const char *anchor, const char *text)
{
	appendStringInfo(out, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, bcmig_html_escape(text));
}

/* a moment as it is written below an axis of that many seconds */
static char *
moment(double seconds, double range)
{
	TimestampTz t = (TimestampTz) ((seconds - (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * (double) SECS_PER_DAY) * USECS_PER_SEC);
	const char *text = timestamptz_to_str(t);

	/* 2026-11-28 05:12:33.123+00 */
	if (strlen(text) < 19)
		return pstrdup(text);
	return range < 600 ? pnstrdup(text + 11, 8) : range < 86400 ? pnstrdup(text + 11, 5) : pnstrdup(text + 5, 11);
}

static void
time_axis(StringInfo out, double from, double to, double left, double y)
{
	write_text(out, left, y, "start", moment(from, to - from));
	write_text(out, (left + RIGHT) / 2, y, "middle", moment((from + to) / 2, to - from));
	write_text(out, RIGHT, y, "end", moment(to, to - from));
}

/* the next of 1, 2, 5, 10, ... */
static double
round_up(double value)
{
	double		power;
	double		x;

	if (!(value > 0))
		return 1;
	power = pow(10, floor(log10(value)));
	x = value / power;
	return (x <= 1 ? 1 : x <= 2 ? 2 : x <= 5 ? 5 : 10) * power;
}

typedef struct Axes
{
	double		from;
	double		to;
	double		most;
	bool		logarithmic;
} Axes;

static double
x_of(const Axes *a, double x)
{
	return LEFT + (RIGHT - LEFT) * (x - a->from) / (a->to - a->from);
}

static double
y_of(const Axes *a, const BcmigSeries *s, double y)
{
	double		part;

	if (s != NULL && s->percent)
		part = y / 100;
	else if (a->logarithmic)
		part = log10(Max(y, 1)) / log10(a->most);
	else
		part = y / a->most;
	return BOTTOM - (BOTTOM - TOP) * Min(Max(part, 0), 1);
}

static void
draw_series(StringInfo out, const Axes *a, const BcmigSeries *s)
{
	bool		pen = false;
	double		last = 0;

	appendStringInfo(out, "<path class=\"line %c\" d=\"", s->colour);
	for (int i = 0; i < s->n; i++)
	{
		double		x = x_of(a, s->x[i]);
		double		y;

		CHECK_FOR_INTERRUPTS();
		if (isnan(s->y[i]))
		{
			pen = false;
			continue;
		}
		y = y_of(a, s, s->y[i]);
		/* a point between two gaps is drawn as well */
		if (!pen)
			appendStringInfo(out, "M%.1f %.1fh.1", x, y);
		if (pen && s->steps)
			appendStringInfo(out, "L%.1f %.1f", x, last);
		appendStringInfo(out, "L%.1f %.1f", x, y);
		last = y;
		pen = true;
	}
	appendStringInfoString(out, "\"/>\n");
}

static void
legend(StringInfo out, List *series)
{
	double		x = LEFT;
	ListCell   *lc;

	foreach(lc, series)
	{
		const BcmigSeries *s = lfirst(lc);

		appendStringInfo(out, "<path class=\"line %c\" d=\"M%.1f %dh14\"/>\n", s->colour, x, HEIGHT - 8);
		write_text(out, x + 18, HEIGHT - 4, "start", s->name);
		x += 32 + 6.2 * pg_mbstrlen(s->name);
	}
}

char *
bcmig_plot_lines(const char *about, List *series, bool logarithmic, BcmigTick tick)
{
	StringInfoData out;
	Axes		a = {.logarithmic = logarithmic};
	bool		any = false;
	int			ticks;
	ListCell   *lc;

	foreach(lc, series)
	{
		const BcmigSeries *s = lfirst(lc);

		for (int i = 0; i < s->n; i++)
		{
			a.from = any ? Min(a.from, s->x[i]) : s->x[i];
			a.to = any ? Max(a.to, s->x[i]) : s->x[i];
			any = true;
			if (!s->percent && !isnan(s->y[i]))
				a.most = Max(a.most, s->y[i]);
		}
	}
	if (!any)
		return NULL;
	if (a.to <= a.from)
		a.to = a.from + 1;
	a.most = logarithmic ? pow(10, Max(1, ceil(log10(Max(a.most, 2))))) : round_up(a.most);

	begin(&out, about, HEIGHT);
	ticks = logarithmic ? (int) rint(log10(a.most)) : 2;
	for (int i = 0; i <= ticks; i++)
	{
		double		value = logarithmic ? pow(10, i) : a.most * i / ticks;
		double		y = y_of(&a, NULL, value);

		appendStringInfo(&out, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", LEFT, y, RIGHT);
		write_text(&out, LEFT - 5, y + 4, "end", tick(value));
	}
	foreach(lc, series)
		draw_series(&out, &a, lfirst(lc));
	time_axis(&out, a.from, a.to, LEFT, BOTTOM + 16);
	legend(&out, series);
	appendStringInfoString(&out, "</svg>\n");
	return out.data;
}

/* a label that fits, the whole of it shown when pointed at */
static void
bar_label(StringInfo out, const char *label, double y)
{
	int			clip = pg_mbcharcliplen(label, strlen(label), LABEL_CHARS);

	appendStringInfo(out, "<text x=\"0\" y=\"%.1f\"><title>%s</title>%s%s</text>\n", y, bcmig_html_escape(label),
					 bcmig_html_escape(pnstrdup(label, clip)), label[clip] != '\0' ? "\xe2\x80\xa6" : "");
}

#define BARS_LEFT	160

char *
bcmig_plot_gantt(const char *about, List *bars)
{
	StringInfoData out;
	double		from = 0;
	double		to = 0;
	int			y = 4;
	ListCell   *lc;

	if (bars == NIL)
		return NULL;
	foreach(lc, bars)
	{
		const BcmigBar *bar = lfirst(lc);

		from = lc == list_head(bars) ? bar->from : Min(from, bar->from);
		to = lc == list_head(bars) ? bar->to : Max(to, bar->to);
	}
	if (to <= from)
		to = from + 1;
	begin(&out, about, list_length(bars) * ROW + 26);
	foreach(lc, bars)
	{
		const BcmigBar *bar = lfirst(lc);
		double		x = BARS_LEFT + (RIGHT - BARS_LEFT) * (bar->from - from) / (to - from);
		double		width = Max(2, (RIGHT - BARS_LEFT) * (bar->to - bar->from) / (to - from));
		bool		left = x + width > (BARS_LEFT + RIGHT) / 2.0;

		CHECK_FOR_INTERRUPTS();
		bar_label(&out, bar->label, y + 12);
		appendStringInfo(&out, "<rect class=\"bar %c\" x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>\n", bar->colour, Min(x, RIGHT - 2), y, width, ROW - 6);
		/* where there is room */
		if (bar->note != NULL && (!left || x - BARS_LEFT > 60))
			write_text(&out, left ? x - 4 : x + width + 4, y + 12, left ? "end" : "start", bar->note);
		y += ROW;
	}
	time_axis(&out, from, to, BARS_LEFT, y + 14);
	appendStringInfoString(&out, "</svg>\n");
	return out.data;
}

char *
bcmig_plot_bars(const char *about, List *bars)
{
	StringInfoData out;
	double		most = 0;
	int			y = 4;
	ListCell   *lc;

	foreach(lc, bars)
		most = Max(most, ((BcmigBar *) lfirst(lc))->to);
	if (bars == NIL)
		return NULL;
	begin(&out, about, list_length(bars) * ROW + 6);
	foreach(lc, bars)
	{
		const BcmigBar *bar = lfirst(lc);
		double		width = most > 0 ? Max(1, (RIGHT - BARS_LEFT - 70) * bar->to / most) : 1;

		bar_label(&out, bar->label, y + 12);
		appendStringInfo(&out, "<rect class=\"bar %c\" x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\"/>\n", bar->colour, BARS_LEFT, y, width, ROW - 6);
		if (bar->note != NULL)
			write_text(&out, BARS_LEFT + width + 5, y + 12, "start", bar->note);
		y += ROW;
	}
	appendStringInfoString(&out, "</svg>\n");
	return out.data;
}
