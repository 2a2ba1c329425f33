/*-------------------------------------------------------------------------
 *
 * readable.h
 *	  The readable layer: a view per green table, for people and reports.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_READABLE_H
#define BCMIG_READABLE_H

#include "configure.h"
#include "lib/stringinfo.h"
#include "read_table.h"

/*
 * What views and grants of a sync (y) depend on, as an SQL expression;
 * sync_state.views_made is that of those there are.  NULL: none are wanted.
 */
#define BCMIG_VIEWS_KEY \
	"(SELECT CASE WHEN y.options->>'views' = 'true' OR y.options ? 'grant_select' THEN " \
	" concat_ws(',', y.options->>'views', y.options->>'grant_select', max(t.table_id), count(*), sum(m.n)) END " \
	"FROM bcmig.sync_table t JOIN bcmig.table_state x USING (table_id), " \
	" LATERAL (SELECT count(*) AS n FROM bcmig.column_map c WHERE c.table_id = t.table_id) m " \
	"WHERE t.sync_id = y.sync_id AND x.made)"

/*
 * readable.c: make or replace the views of at most so many of a sync's tables,
 * those with an id above *after, which moves on; how many there were
 */
extern int	bcmig_make_views(const BcmigSync *sync, int *after, int most);

/* readable.c: drop the views of the sync; until the end of the transaction nobody makes any */
extern void bcmig_drop_views(const BcmigSync *sync);

/* readable.c: views are to be made, also by whoever is about to make them as they were */
extern void bcmig_outdate_views(int sync_id);

/* readable.c: the roles of option grant_select, as GRANT lists them; NULL = none.  ERROR when one is missing */
extern char *bcmig_granted_roles(const char *options);

/* readable.c: let the roles of option grant_select read tables and views */
extern void bcmig_grant_select(const BcmigSync *sync);

/* readable.c: statements that take away what bcmig_make_views made (char *) */
extern List *bcmig_drop_views_statements(const BcmigSync *sync);

/* a column of a view that is computed from other rows */
typedef struct BcmigComputed
{
	const char *al_name;
	char	   *expression;		/* over the base table as t */
	char	   *formula;		/* for people */
} BcmigComputed;

/* a computed column, of all records: a column of another table added up by others of it */
typedef struct BcmigFlowSum
{
	const char *al_table;		/* whose column it is */
	const char *al_name;
	BcmigReadTable *from;
	const BcmigReadColumn *column;
	bool		negative;
	List	   *keys;			/* BcmigReadColumn * of from: which record */
	List	   *filters;		/* BcmigReadColumn * of from ... */
	List	   *numbers;		/* ... and the int each must be */
} BcmigFlowSum;

/* readable.c */
extern char *bcmig_readable_name(const BcmigReadTable *t, const char *al_name);

/* flow_fields.c: "tables" are all of the sync (BcmigReadTable *) */
extern List *bcmig_flow_fields(BcmigReadTable *t, List *tables);
extern List *bcmig_flow_sums(BcmigReadTable *t, List *tables);
extern void bcmig_flow_functions(StringInfo sql, BcmigReadTable *t, List *tables, const char *schema);

#endif							/* BCMIG_READABLE_H */
