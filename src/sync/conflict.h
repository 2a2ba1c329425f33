/*-------------------------------------------------------------------------
 *
 * conflict.h
 *	  A change of blue meets an outside write on green.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_CONFLICT_H
#define BCMIG_CONFLICT_H

#include "apply.h"
#include "configure.h"
#include "nodes/bitmapset.h"

/* which of some written rows have unsettled journal entries */
typedef struct BcmigMet
{
	bool		any;
	Bitmapset  *rows;			/* in the order of the store */
} BcmigMet;

/*
 * conflict.c.  Looks rows that have just been written, and "keys" besides
 * (jsonb as text, may be NULL), up in the journal, with a snapshot of its own.
 * Result and met in the current memory context.
 */
extern bool bcmig_journal_met(const BcmigTableInfo *table, Tuplestorestate *store, TupleDesc desc,
							  ArrayBuildState *keys, BcmigMet *met);

/* SQL for the key of green's row "alias" as the journal has it: a jsonb array of texts */
extern char *bcmig_green_key(const BcmigTableInfo *table, TupleDesc target, const char *alias);

/*
 * Decide one row that meets journal entries, write what is decided and record
 * it.  In a transaction; starts up to BCMIG_CONFLICT_SUBXACTS in it, more when
 * somebody writes to the row all the time.  Returns the error when green refuses
 * blue's row, in the current memory context; else NULL.
 */
#define BCMIG_CONFLICT_SUBXACTS		4
extern ErrorData *bcmig_meet_conflict(const BcmigTableInfo *table, TupleDesc desc, MinimalTuple row,
									  bool delete, BcmigApplied *applied);

/*
 * Of n keys (nkeys texts each) that blue does not have: take out those an
 * outside write has inserted, which blue need not have.  Returns how many are
 * left.  In a transaction.
 */
extern int	bcmig_without_outside_rows(const BcmigTableInfo *table, int n, char **keys);

/*
 * entries.c: entries of n keys are settled; inside a scope.  "version" is that
 * of blue's row, which is then the same as green's; -1 = not known.
 */
typedef struct BcmigSettled
{
	const char *key;			/* jsonb as text */
	Datum		ids;			/* int8[] */
	const char *as;
	int64		version;
} BcmigSettled;

extern void bcmig_settle_entries(int n, const BcmigSettled *settled);

/* while set, waiting conflicts with these ids are decided for blue */
typedef struct BcmigForced
{
	int			n;
	int64	   *ids;
	char	   *by;
} BcmigForced;
extern const BcmigForced *bcmig_forced_conflicts;

/*
 * A row of green: as it is, as a jsonb object of texts, and its key.
 */
typedef struct BcmigSide
{
	bool		exists;
	bool		partial;		/* long values are only described */
	Datum		record;			/* of green's row type */
	Datum		mapped;			/* the columns that come from blue, without its version */
	char	   *image;			/* of those */
	char	   *key;
} BcmigSide;

/* both gone, or the same bit for bit */
extern bool bcmig_same_side(const BcmigSide *a, const BcmigSide *b);

/*
 * conflict_policy.c
 *
 * The one row of a query with one column of green's row type, whose arguments
 * are given; all in the current memory context.
 */
extern void bcmig_read_side(const BcmigTableInfo *table, Oid relid, const char *query, int nargs,
							Oid *types, Datum *values, const char *nulls, BcmigSide *side);

/* the policy of a table as it is set now; in a transaction */
extern char *bcmig_conflict_policy(const BcmigTableInfo *table);

/*
 * latest_wins: true when green's row is the later one.  *why is set when it
 * cannot be said.
 */
extern bool bcmig_green_is_later(const BcmigTableInfo *table, const BcmigSide *old, const BcmigSide *blue,
								 const BcmigSide *green, TimestampTz written_at, char **why);

/* ask the table's conflict_function; false, and why, when it does not decide */
extern bool bcmig_ask_conflict_function(const BcmigTableInfo *table, Oid relid, const char *key,
										const BcmigSide *old, const BcmigSide *blue, const BcmigSide *green,
										BcmigSide *result, char **why);

/* why the policy of a table cannot work, or NULL; *fix is a statement to run */
extern char *bcmig_policy_problem(int table_id, char **fix);

/* ERROR when the policy of a table, or (0) of one of a sync's tables, cannot work */
extern void bcmig_require_policy(const BcmigSync *sync, int table_id);

#endif							/* BCMIG_CONFLICT_H */
