/*-------------------------------------------------------------------------
 *
 * state.h
 *	  The state and position of one table: stored, effective, published.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_STATE_H
#define BCMIG_STATE_H

#include "catalog.h"

/*
 * A row of bcmig.table_state.  position and seen are the effective ones: the
 * blue-wide position where the table was clean when that was stored.
 */
typedef struct BcmigStored
{
	BcmigTableState state;
	bool		has_position;
	int64		position;
	int64		from;			/* a window reads from there on: position, or below it */
	char	   *seen;			/* of windows from position on; NULL = no mark */
	bool		other_blue;		/* position and seen are of an incarnation that is over */
	char	   *begin_version;	/* NULL = not known yet */
	char	   *copy_mode;		/* NULL = copy not begun */
	bool		all_chunks;
	bool		delete_confirmed;
	int64		rows_total;
} BcmigStored;

/* what the poller of a table's blue knew when it was asked; see BcmigBlue */
typedef struct BcmigReading
{
	uint64		poll;			/* 0 = nothing known */
	int64		horizon;
	int64		incarnation;
	bool		reachable;
	char	   *seen;
} BcmigReading;

/* all need a transaction and open their own catalogue scope */
extern bool bcmig_state_load(int table_id, BcmigStored *stored);
extern void bcmig_state_suspend(const BcmigTableInfo *table, const char *reason);
extern void bcmig_state_ask_delete(const BcmigTableInfo *table, const char *reason);
extern void bcmig_state_resync(int environment_id, Oid owner, int table_id,
							   const char *reason);

/*
 * Rows were written that were read in an incarnation of blue which is over; who
 * asked what is lost of it could not know of them: resync.
 */
extern void bcmig_state_outlived(int table_id);

/* rows were read beside the windows: what a restart of blue must not have lost for them to stand */
extern void bcmig_state_witness(int table_id, int64 incarnation, int n, const int64 *traces);

/* needs no transaction; memory in the current context */
extern void bcmig_reading(int table_id, BcmigReading *reading);

/* after the commit that made it true */
extern void bcmig_publish_state(int table_id, BcmigTableState state);

#endif							/* BCMIG_STATE_H */
