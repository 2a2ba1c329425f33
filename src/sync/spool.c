/*-------------------------------------------------------------------------
 *
 * spool.c
 *	  Receiving the rows of a feed: signs taken out, rows kept.
 *
 * A window is read in one pass and kept in a tuplestore that outlives the
 * transaction, so that blue's snapshot is let go before green starts to write.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "receive.h"

#include "miscadmin.h"
#include "remote.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	BcmigReceiver *r = (BcmigReceiver *) self;

	r->start(r, typeinfo);
}

static void
receiver_nothing(DestReceiver *self)
{
}

static void
note_sign(bool *has, bool *changed, int64 *value, int64 now)
{
	if (*has && *value != now)
		*changed = true;
	*has = true;
	*value = now;
}

static bool
receiver_receive(TupleTableSlot *slot, DestReceiver *self)
{
	BcmigReceiver *r = (BcmigReceiver *) self;
	text	   *op;
	bool		unused = false;
	int64		version;

	CHECK_FOR_INTERRUPTS();
	slot_getallattrs(slot);
	bcmig_check_encoding(slot);
	if (slot->tts_isnull[FEED_OP])
		ereport(ERROR,
				(errcode(ERRCODE_BM_BLUE),
				 errmsg("blue sent a row without bc_op")));
	op = DatumGetTextPP(slot->tts_values[FEED_OP]);
	version = slot->tts_isnull[FEED_VERSION] ? 0 : DatumGetInt64(slot->tts_values[FEED_VERSION]);
	switch (VARSIZE_ANY_EXHDR(op) == 1 ? *VARDATA_ANY(op) : '\0')
	{
		case 'U':
		case 'D':
			r->row(r, slot, *VARDATA_ANY(op));
			r->cut |= ++r->rows == r->most;
			break;
		case 'B':
			note_sign(&r->signs.has_begin, &r->signs.begin_changed, &r->signs.begin, version);
			break;
		case 'M':
			note_sign(&r->signs.has_min_valid, &unused, &r->signs.min_valid,
					  r->signs.has_min_valid ? Max(version, r->signs.min_valid) : version);
			break;
		case 'I':
			note_sign(&r->signs.has_incarnation, &r->signs.incarnation_changed,
					  &r->signs.incarnation, version);
			break;
		case 'N':
			note_sign(&r->signs.has_changes, &unused, &r->signs.changes, version);
			r->cut |= r->most > 0 && version >= r->most;
			break;
		case 'X':
			if (r->signs.ntraces < BCMIG_TRACES)
				r->signs.traces[r->signs.ntraces++] = version;
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_BM_BLUE),
					 errmsg("blue sent a row with an unknown bc_op")));
	}
	return !r->cut;
}

void
bcmig_receiver_init(BcmigReceiver *r,
					void (*start) (BcmigReceiver *, TupleDesc),
					void (*row) (BcmigReceiver *, TupleTableSlot *, char))
{
	memset(r, 0, sizeof(*r));
	r->pub.receiveSlot = receiver_receive;
	r->pub.rStartup = receiver_startup;
	r->pub.rShutdown = receiver_nothing;
	r->pub.rDestroy = receiver_nothing;
	r->pub.mydest = DestNone;
	r->start = start;
	r->row = row;
}

static void
spool_start(BcmigReceiver *self, TupleDesc desc)
{
	BcmigSpool *spool = (BcmigSpool *) self;
	MemoryContext oldcontext;

	/* a second statement into the same spool: same feed, same shape */
	if (spool->desc != NULL)
		return;
	oldcontext = MemoryContextSwitchTo(spool->context);
	spool->desc = CreateTupleDescCopy(desc);
	MemoryContextSwitchTo(oldcontext);
}

static void
spool_row(BcmigReceiver *self, TupleTableSlot *slot, char op)
{
	BcmigSpool *spool = (BcmigSpool *) self;

	if (op == 'U')
	{
		spool->upserts++;
		if (!slot->tts_isnull[FEED_VERSION])
			spool->max_version = Max(spool->max_version, DatumGetInt64(slot->tts_values[FEED_VERSION]));
	}
	else
		spool->deletes++;
	tuplestore_puttupleslot(spool->store, slot);
}

BcmigSpool *
bcmig_spool_create(void)
{
	BcmigSpool *spool = palloc0(sizeof(BcmigSpool));

	bcmig_receiver_init(&spool->receiver, spool_start, spool_row);
	spool->context = CurrentMemoryContext;

	/* randomAccess: read once per pass and retry; interXact: outlives the read */
	spool->store = tuplestore_begin_heap(true, true, work_mem);
	return spool;
}

void
bcmig_spool_end(BcmigSpool *spool)
{
	tuplestore_end(spool->store);
	spool->store = NULL;
}
