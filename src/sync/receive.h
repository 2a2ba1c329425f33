/*-------------------------------------------------------------------------
 *
 * receive.h
 *	  What comes back through the row feed of a table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_RECEIVE_H
#define BCMIG_RECEIVE_H

#include "bcmig.h"
#include "dialect.h"
#include "executor/tuptable.h"
#include "tcop/dest.h"
#include "utils/tuplestore.h"

/* attributes of a row feed before the table's own columns */
#define FEED_OP			0
#define FEED_VERSION	1
#define FEED_COLUMNS	2

/* what the B, M, I, N and X rows said; see dialect.h */
typedef struct BcmigSigns
{
	bool		has_begin;
	bool		begin_changed;	/* two B rows disagreed */
	int64		begin;
	bool		has_min_valid;
	int64		min_valid;
	bool		has_incarnation;
	bool		incarnation_changed;
	int64		incarnation;
	bool		has_changes;
	int64		changes;		/* looked at, of a window with a bound */
	int			ntraces;
	int64		traces[BCMIG_TRACES];
} BcmigSigns;

/*
 * A DestReceiver that takes the signs out of the stream and hands the rows on.
 * Embed it first; "row" is called with 'U' or 'D' and a fully deformed slot.
 */
typedef struct BcmigReceiver
{
	DestReceiver pub;
	BcmigSigns	signs;
	int64		most;			/* stop reading after so many rows, or when there are so many changes; 0 = never */
	int64		rows;			/* handed on */
	bool		cut;			/* stopped: nothing is complete */
	TupleTableSlot *plain;		/* a row that was measured, its bc_op without the number */
	void		(*start) (struct BcmigReceiver *self, TupleDesc desc);
	void		(*row) (struct BcmigReceiver *self, TupleTableSlot *slot, char op);
} BcmigReceiver;

extern void bcmig_receiver_init(BcmigReceiver *r,
								void (*start) (BcmigReceiver *, TupleDesc),
								void (*row) (BcmigReceiver *, TupleTableSlot *, char));

/* the last rows of a window, by version: its witnesses */
#define BCMIG_WITNESSES		5

/*
 * Rows read in one go and kept, on disk beyond work_mem, across transactions.
 * Lives in the memory context it was made in; bcmig_spool_end frees the file.
 */
typedef struct BcmigSpool
{
	BcmigReceiver receiver;		/* pass &spool->receiver.pub to the remote */
	MemoryContext context;
	TupleDesc	desc;
	Tuplestorestate *store;
	int64		upserts;
	int64		deletes;
	int64		max_version;
} BcmigSpool;

extern BcmigSpool *bcmig_spool_create(void);
extern void bcmig_spool_end(BcmigSpool *spool);

#endif							/* BCMIG_RECEIVE_H */
