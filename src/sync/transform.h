/*-------------------------------------------------------------------------
 *
 * transform.h
 *	  Columns and rows that are not on green as they are on blue.
 *
 * docs/transforms.md says what there is.  Expressions see the source row as
 * "row", its columns under the names blue has for them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_TRANSFORM_H
#define BCMIG_TRANSFORM_H

#include "apply.h"
#include "executor/spi.h"

/* bc_op of a row that is on blue but does not fulfil the row filter: on green it is none */
#define BCMIG_OP_FILTERED	'F'

/*
 * Can blue's value be told from green's?  A transform that loses something has
 * no inverse, a constant and a dropped column neither; a rename loses nothing.
 */
extern bool bcmig_has_inverse(const BcmigColumn *column);

/* blue's value, in the type of the feed, of green's value "green" (an SQL expression); NULL = there is no inverse */
extern char *bcmig_inverse_expression(const BcmigColumn *column, const char *green);

/*
 * The value of a column on green, an SQL expression over "source", blue's value
 * (not looked at by an SQL transform).  Strict: ERROR for a value the built-in
 * was not made for.  *type, when not NULL, becomes the type where that is known
 * without asking the parser, else NULL.
 */
extern char *bcmig_transform_expression(const BcmigColumn *column, const char *source, bool strict, char **type);

/* names of the built-ins (List of char *) */
extern List *bcmig_builtins(void);

/* can a built-in be applied to a column of this type?  *type becomes that of its result, *expected says what is */
extern bool bcmig_builtin_takes(const char *builtin, const char **type, const char **expected);
extern bool bcmig_is_builtin(const char *name);

/* may the transform give NULL where blue has a value? */
extern bool bcmig_may_give_null(const BcmigColumn *column);

/* name of columns[i] in "row"; after them those of bc_op and bc_rowversion there, which no column has */
extern char **bcmig_row_names(int ncolumns, const BcmigColumn *columns);

/* does any row look other on green than in the feed, but for names of columns? */
extern bool bcmig_has_transforms(const BcmigTableInfo *table);

/*
 * Rows of a feed as they are to be on green: columns in the order of the feed
 * without those that are dropped, each in the type its transform gives it.
 * The store itself when there is nothing to do; else a new one, to be ended by
 * the caller, in the current memory context, with *desc set.  ERROR when it
 * fails for one row.  SPI connected; nothing else may be registered as
 * bcmig_rows.
 */
extern Tuplestorestate *bcmig_transform_rows(const BcmigTableInfo *table, Tuplestorestate *store,
											 TupleDesc feed, TupleDesc *desc);

/* the same for a spool, without SPI; the caller ends it when it is another one */
extern BcmigSpool *bcmig_transform_spool(const BcmigTableInfo *table, BcmigSpool *spool);

/*
 * Row by row: "done" gets each row, in order, as it is to be on green (in a
 * slot with the op at FEED_OP), or NULL when its transform failed.  types, when
 * not NULL, has columns of these names: what has no inverse is cast to their
 * types, as it is when it is written.  In a transaction, not under SPI.
 */
typedef void (*BcmigTransformed) (void *arg, int row, TupleTableSlot *slot);
extern void bcmig_transform_each(const BcmigTableInfo *table, TupleDesc feed, MinimalTuple *rows, int n,
								 TupleDesc types, BcmigTransformed done, void *arg);

/* of the rows of a spool those the row filter takes off green, as rows of the feed; NULL = none */
extern BcmigSpool *bcmig_filtered_rows(const BcmigTableInfo *table, BcmigSpool *spool);

/*
 * The rows a plan of a query without parameters gives, in a store in "context".
 * SPI connected; the current context is another one after its calls.
 */
extern Tuplestorestate *bcmig_rows_of_plan(SPIPlanPtr plan, MemoryContext context, TupleDesc *desc);

/* forget the plans (configuration has changed) */
extern void bcmig_transform_forget(void);

/* ---- transform_check.c ---- */

/*
 * An expression somebody wrote: ERROR unless it is one expression over the
 * columns of the row that the owner may evaluate and that depends on nothing
 * else.  Returns its type as format_type() spells it.  what: "transform",
 * "row_filter".
 */
extern char *bcmig_check_expression(Oid owner, int ncolumns, const BcmigColumn *columns, const char *what,
									const char *expression);

/* the same for a row filter: must be boolean */
extern void bcmig_check_filter(Oid owner, int ncolumns, const BcmigColumn *columns, const char *expression);

/* ERROR for a column blue does not have, naming the near ones; else its place */
extern int	bcmig_find_source(const BcmigTableInfo *table, const char *column_name);

#endif							/* BCMIG_TRANSFORM_H */
