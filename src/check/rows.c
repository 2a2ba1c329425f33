/*-------------------------------------------------------------------------
 *
 * rows.c
 *	  A table under validation, and the rows of its two sides.
 *
 * Both sides are seen in the types of the feed, which are blue's: green's
 * columns of another type are cast, and what does not come back the same from
 * there is counted, so that the row is equal to nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "access/table.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* ---- the green row as blue would have it ---- */

static char *
type_name(Oid type, int32 typmod)
{
	return format_type_extended(type, typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

/* may values of the two types have different images though they are equal? */
static bool
needs_cast(Form_pg_attribute feed, Form_pg_attribute target)
{
	if (feed->atttypid != target->atttypid)
		return true;
	return feed->atttypmod != -1 && feed->atttypmod != target->atttypmod &&
		(feed->atttypid == NUMERICOID || feed->atttypid == BPCHAROID);
}

static void
make_select(BcmigProof *proof)
{
	const BcmigTableInfo *table = proof->table;
	Relation	rel = table_openrv(makeRangeVar(table->target_schema, table->target_table, -1), AccessShareLock);
	TupleDesc	target = RelationGetDescr(rel);
	StringInfoData s;
	StringInfoData inexact;

	initStringInfo(&s);
	initStringInfo(&inexact);
	for (int i = 0; i < proof->desc->natts; i++)
	{
		Form_pg_attribute from = TupleDescAttr(proof->desc, i);
		const char *name = quote_identifier(NameStr(from->attname));
		Form_pg_attribute to = NULL;

		for (int k = 0; k < target->natts && to == NULL; k++)
		{
			if (!TupleDescAttr(target, k)->attisdropped &&
				strcmp(NameStr(TupleDescAttr(target, k)->attname), NameStr(from->attname)) == 0)
				to = TupleDescAttr(target, k);
		}
		if (to == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("column %s of %s is gone", name, table->target_name),
					 errhint("ALTER TABLE %s ADD COLUMN %s %s; SELECT bcmig_resync_table(%s, %s);", table->target_name, name,
							 format_type_with_typemod(from->atttypid, from->atttypmod),
							 quote_literal_cstr(table->sync_name), quote_literal_cstr(table->target_name))));
		if (needs_cast(from, to))
		{
			char	   *cast = type_name(from->atttypid, from->atttypmod);

			appendStringInfo(&s, "%sg.%s::%s", i ? ", " : "", name, cast);
			appendStringInfo(&inexact, "%s(g.%s IS DISTINCT FROM g.%s::%s::%s)::pg_catalog.int4", inexact.len ? " + " : "",
							 name, name, cast, type_name(to->atttypid, to->atttypmod));
		}
		else
			appendStringInfo(&s, "%sg.%s", i ? ", " : "", name);
	}
	table_close(rel, NoLock);
	proof->has_inexact = inexact.len > 0;
	if (proof->has_inexact)
		appendStringInfo(&s, ", %s", inexact.data);
	proof->select = s.data;
}

BcmigProof *
bcmig_proof_open(BcmigWork *work)
{
	BcmigProof *proof = palloc0(sizeof(BcmigProof));
	Relation	feed = table_open(work->feed, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(feed);

	proof->work = work;
	proof->table = work->table;
	proof->hash = work->dialect->hash;
	proof->text_feed = bcmig_text_feed(work->table->environment_id);
	proof->desc = CreateTemplateTupleDesc(desc->natts - FEED_COLUMNS);
	proof->columns = palloc(sizeof(int) * proof->desc->natts);
	for (int i = 0; i < proof->desc->natts; i++)
	{
		TupleDescCopyEntry(proof->desc, i + 1, desc, i + 1 + FEED_COLUMNS);
		proof->columns[i] = i;
	}
	table_close(feed, NoLock);
	proof->hasher = bcmig_hasher_create(proof->hash->image, proof->desc);
	make_select(proof);
	return proof;
}

/* ---- green ---- */

typedef struct GreenReceiver
{
	DestReceiver pub;
	BcmigProof *proof;
	BcmigRowSink sink;
	void	   *arg;
	MemoryContext context;		/* of one row */
} GreenReceiver;

static void
green_startup(DestReceiver *self, int operation, TupleDesc desc)
{
}

static void
green_nothing(DestReceiver *self)
{
}

static bool
green_receive(TupleTableSlot *slot, DestReceiver *self)
{
	GreenReceiver *r = (GreenReceiver *) self;
	MemoryContext oldcontext = MemoryContextSwitchTo(r->context);
	int			inexact = 0;

	slot_getallattrs(slot);
	if (r->proof->has_inexact)
		inexact = DatumGetInt32(slot->tts_values[r->proof->desc->natts]);
	r->sink(r->arg, slot->tts_values, slot->tts_isnull, inexact);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(r->context);
	return true;
}

void
bcmig_green_rows(BcmigProof *proof, const char *condition, BcmigRowSink sink, void *arg)
{
	GreenReceiver r = {{0}};
	SPIExecuteOptions options = {0};
	char	   *sql = psprintf("SELECT %s FROM %s g%s%s", proof->select, proof->table->target_name,
							   condition ? " WHERE " : "", condition ? condition : "");
	int			rc;

	r.pub.receiveSlot = green_receive;
	r.pub.rStartup = green_startup;
	r.pub.rShutdown = green_nothing;
	r.pub.rDestroy = green_nothing;
	r.pub.mydest = DestNone;
	r.proof = proof;
	r.sink = sink;
	r.arg = arg;
	r.context = AllocSetContextCreate(CurrentMemoryContext, "bcmig green row", ALLOCSET_DEFAULT_SIZES);

	/* read only: the transaction's own snapshot, not a later one */
	options.read_only = true;
	options.dest = &r.pub;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	bcmig_hasher_begin(proof->hasher);
	rc = SPI_execute_extended(sql, &options);
	if (rc < 0)
		elog(ERROR, "SPI_execute_extended failed: %s: %s", SPI_result_code_string(rc), sql);
	bcmig_hasher_end(proof->hasher);
	SPI_finish();
	MemoryContextDelete(r.context);
}

/* ---- blue ---- */

typedef struct BlueReceiver
{
	BcmigReceiver receiver;
	BcmigRowSink sink;
	void	   *arg;
	MemoryContext context;
} BlueReceiver;

static void
blue_start(BcmigReceiver *self, TupleDesc desc)
{
}

static void
blue_row(BcmigReceiver *self, TupleTableSlot *slot, char op)
{
	BlueReceiver *r = (BlueReceiver *) self;
	MemoryContext oldcontext = MemoryContextSwitchTo(r->context);

	/* a key whose row is gone is no row, but its sink may want to know: all but the key is NULL */
	r->sink(r->arg, slot->tts_values + FEED_COLUMNS, slot->tts_isnull + FEED_COLUMNS, op == 'D' ? -1 : 0);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(r->context);
}

void
bcmig_blue_rows(BcmigProof *proof, const char *sql, BcmigRowSink sink, void *arg, BcmigSigns *signs)
{
	BlueReceiver r;

	bcmig_receiver_init(&r.receiver, blue_start, blue_row);
	r.sink = sink;
	r.arg = arg;
	r.context = AllocSetContextCreate(CurrentMemoryContext, "bcmig blue row", ALLOCSET_DEFAULT_SIZES);
	bcmig_hasher_begin(proof->hasher);
	bcmig_read(proof->work, sql, 0, &r.receiver);
	bcmig_hasher_end(proof->hasher);
	MemoryContextDelete(r.context);
	if (signs != NULL)
		*signs = r.receiver.signs;
}

/* ---- hashes and chunks of rows ---- */

void
bcmig_row_hashes(BcmigProof *proof, const Datum *values, const bool *isnull, int inexact,
				 BcmigHash *key, BcmigHash *row)
{
	const BcmigTableInfo *table = proof->table;

	if (row != NULL)
	{
		if (proof->count_only && table->nkeys > 0)
			memset(row, 0, sizeof(*row));
		else
			bcmig_hash_row(proof->hasher, values, isnull, proof->desc->natts, proof->columns, inexact, row);
	}
	if (table->nkeys > 0)
		bcmig_hash_row(proof->hasher, values, isnull, table->nkeys, table->keys, 0, key);
	else if (row != NULL)
		*key = *row;
	else
		bcmig_hash_row(proof->hasher, values, isnull, proof->desc->natts, proof->columns, inexact, key);
}

static int64
integer_value(const BcmigTableInfo *table, Datum value)
{
	const char *type = table->columns[table->keys[0]].source_type;

	return strcmp(type, "bigint") == 0 ? DatumGetInt64(value) :
		strcmp(type, "integer") == 0 ? DatumGetInt32(value) : DatumGetInt16(value);
}

int64
bcmig_chunk_of(const BcmigChunking *chunking, const BcmigTableInfo *table, const Datum *values, const BcmigHash *key)
{
	if (chunking->buckets)
		return (key->bytes[0] * 256 + key->bytes[1]) / (BCMIG_BUCKETS / chunking->size);
	return integer_value(table, values[table->keys[0]]) / chunking->size;
}

bool
bcmig_chunk_wanted(List *chunks, int64 chunk)
{
	ListCell   *lc;

	foreach(lc, chunks)
	{
		BcmigChunks *c = lfirst(lc);

		if (chunk >= c->first && chunk <= c->last)
			return true;
	}
	return chunks == NIL;
}

char *
bcmig_green_condition(const BcmigProof *proof, List *chunks)
{
	if (proof->chunking.buckets || chunks == NIL)
		return NULL;
	return bcmig_chunk_condition(&proof->chunking, chunks,
								 psprintf("g.%s", quote_identifier(proof->table->columns[proof->table->keys[0]].target)));
}
