/*-------------------------------------------------------------------------
 *
 * reverse_rows.h
 *	  Keys with unsettled journal entries, and green's rows of them for blue.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_REVERSE_ROWS_H
#define BCMIG_REVERSE_ROWS_H

#include "catalog.h"
#include "dialect.h"

typedef struct BcmigReverseKey
{
	BcmigReverse reverse;		/* key, ids, what blue may have, the row */
	Datum		ids;
	char	  **texts;			/* the key */
	int64		net;			/* 1 = the entries made the row, -1 = they deleted it */
	char	   *old_image;		/* of the row both sides had; NULL = not known whole */
	int64		base_version;
	bool		decided;		/* for green, about blue's row as it was then: */
	char	   *seen_image;		/* NULL = there was none */
	bool		seen_whole;
	int64		seen_version;
} BcmigReverseKey;

/* which green this is: a copy of it, or one that was set back, is another */
extern char *bcmig_green_identity(int sync_id);

/* columns blue gets, as indexes: all whose values can be told from green's */
extern List *bcmig_columns_for_blue(const BcmigTableInfo *table, bool companions);

/*
 * What the journal says of these keys (List of char *), in the current
 * transaction and context; how many there are.  Keys without entries, and those
 * whose conflict waits, are left out.
 */
extern int	bcmig_load_reverse_keys(const BcmigTableInfo *table, List *texts, BcmigReverseKey **result);

/* how many of these keys have rows of not more than so many bytes together; at least one */
extern int	bcmig_keys_that_fit(const BcmigTableInfo *table, List *texts, int64 bytes);

/* green's rows, and what blue's may be, filled in; as the current user, in the active snapshot */
extern void bcmig_read_reverse_rows(const BcmigTableInfo *table, List *columns, int n, BcmigReverseKey *keys);

#endif							/* BCMIG_REVERSE_ROWS_H */
