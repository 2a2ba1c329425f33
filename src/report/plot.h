/*-------------------------------------------------------------------------
 *
 * plot.h
 *	  Plots as inline SVG.
 *
 * Times are seconds since 1970.  What is not known is NaN: a line has a gap
 * there.  Every text is escaped here.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_PLOT_H
#define BCMIG_PLOT_H

#include "nodes/pg_list.h"

/* how the values of an axis are written */
typedef char *(*BcmigTick) (double value);

typedef struct BcmigSeries
{
	const char *name;
	char		colour;			/* a to d */
	bool		steps;			/* a value stands until the next one */
	bool		percent;		/* 0 to 100 of the height, whatever the axis says */
	int			n;
	double	   *x;
	double	   *y;
} BcmigSeries;

/* a bar from a time to another; or (from is not used) of a length */
typedef struct BcmigBar
{
	const char *label;
	const char *note;			/* beside it */
	char		colour;
	double		from;
	double		to;
} BcmigBar;

/*
 * series: List of BcmigSeries.  logarithmic: a tick for each power of ten from 1.
 * NULL when there is nothing to draw.
 */
extern char *bcmig_plot_lines(const char *about, List *series, bool logarithmic, BcmigTick tick);

/* List of BcmigBar: over time, and by length; NULL when there are none */
extern char *bcmig_plot_gantt(const char *about, List *bars);
extern char *bcmig_plot_bars(const char *about, List *bars);

#endif							/* BCMIG_PLOT_H */
