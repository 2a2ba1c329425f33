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

#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "remote.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

static void
receiver_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	BcmigReceiver *r = (BcmigReceiver *) self;

	r->start(r, typeinfo);
}

static void
receiver_shutdown(DestReceiver *self)
{
	BcmigReceiver *r = (BcmigReceiver *) self;

	if (r->plain != NULL)
		ExecDropSingleTupleTableSlot(r->plain);
	r->plain = NULL;
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

/* bytes of a text in UTF-16: four for what takes four bytes here, two for all other characters */
static int64
utf16_bytes(const char *s, int len)
{
	int64		n = 0;

	for (int i = 0; i < len; i++)
		n += (((unsigned char) s[i] & 0xC0) != 0x80) + ((unsigned char) s[i] >= 0xF0);
	return 2 * n;
}

/* how a row begins, for a person to find it by */
static char *
row_begin(TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	StringInfoData s;

	initStringInfo(&s);
	for (int i = FEED_COLUMNS; i < Min(desc->natts, FEED_COLUMNS + 3); i++)
	{
		Oid			out;
		bool		varlena;

		getTypeOutputInfo(TupleDescAttr(desc, i)->atttypid, &out, &varlena);
		appendStringInfo(&s, "%s%s = %.60s", s.len ? ", " : "", NameStr(TupleDescAttr(desc, i)->attname),
						 slot->tts_isnull[i] ? "NULL" : OidOutputFunctionCall(out, slot->tts_values[i]));
	}
	return s.data;
}

/*
 * A row blue has measured, all of which must have come: tds_fdw ends a text at
 * U+0000, and nobody would notice.  The row with a plain bc_op.
 */
static TupleTableSlot *
whole_row(BcmigReceiver *r, TupleTableSlot *slot, int64 wanted)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	int64		came = 0;

	for (int i = FEED_COLUMNS; i < desc->natts; i++)
	{
		Oid			type = TupleDescAttr(desc, i)->atttypid;
		struct varlena *value;
		int			len;

		if (slot->tts_isnull[i] || (type != TEXTOID && type != VARCHAROID && type != BPCHAROID && type != BYTEAOID))
			continue;
		value = PG_DETOAST_DATUM_PACKED(slot->tts_values[i]);
		len = VARSIZE_ANY_EXHDR(value);
		if (type == BPCHAROID)
			len = bpchartruelen(VARDATA_ANY(value), len);
		came += type == BYTEAOID ? len : utf16_bytes(VARDATA_ANY(value), len);
	}
	if (came != wanted)
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("of a row's texts and binary values " INT64_FORMAT " bytes came, blue has " INT64_FORMAT, came, wanted),
				 errdetail("The row begins with %s.", row_begin(slot)),
				 errhint("A text may hold the character U+0000, which PostgreSQL cannot store.  On blue: WHERE CHARINDEX(NCHAR(0), [column] COLLATE Latin1_General_BIN2) > 0; mend it there, then bcmig_resume_table()."),
				 errcontext(BCMIG_BLUE_CONTEXT)));

	if (r->plain == NULL)
	{
		r->plain = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
		r->plain->tts_values[FEED_OP] = CStringGetTextDatum("U");
		r->plain->tts_isnull[FEED_OP] = false;
	}
	ExecClearTuple(r->plain);
	memcpy(r->plain->tts_values + FEED_VERSION, slot->tts_values + FEED_VERSION, sizeof(Datum) * (desc->natts - FEED_VERSION));
	memcpy(r->plain->tts_isnull + FEED_VERSION, slot->tts_isnull + FEED_VERSION, sizeof(bool) * (desc->natts - FEED_VERSION));
	return ExecStoreVirtualTuple(r->plain);
}

/* the number after 'U'; -1 = it is another letter, or what follows is no number */
static int64
measure_of(const text *op)
{
	const char *p = VARDATA_ANY(op) + 1;
	const char *end = VARDATA_ANY(op) + VARSIZE_ANY_EXHDR(op);
	int64		n = *VARDATA_ANY(op) == 'U' ? 0 : -1;

	for (; p < end && n >= 0; p++)
		n = *p >= '0' && *p <= '9' && n < PG_INT64_MAX / 100 ? n * 10 + (*p - '0') : -1;
	return n;
}

static bool
receiver_receive(TupleTableSlot *slot, DestReceiver *self)
{
	BcmigReceiver *r = (BcmigReceiver *) self;
	text	   *op;
	char		letter = '\0';
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
	if (VARSIZE_ANY_EXHDR(op) == 1)
		letter = *VARDATA_ANY(op);
	else if (VARSIZE_ANY_EXHDR(op) > 1)
	{
		int64		bytes = measure_of(op);

		if (bytes >= 0)
		{
			slot = whole_row(r, slot, bytes);
			letter = 'U';
		}
	}
	switch (letter)
	{
		case 'U':
		case 'D':
			r->row(r, slot, letter);
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
	r->pub.rShutdown = receiver_shutdown;
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
