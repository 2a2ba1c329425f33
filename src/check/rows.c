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

#define TRANSFORM_ROWS		500 /* of blue that are transformed in one statement */
#define TRANSFORM_BYTES		(4 * 1024 * 1024)

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

/* the target's column of this name, or NULL */
static Form_pg_attribute
target_column(TupleDesc target, const char *name)
{
	for (int k = 0; k < target->natts; k++)
	{
		Form_pg_attribute att = TupleDescAttr(target, k);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att;
	}
	return NULL;
}

static void
add_inexact(StringInfo inexact, const char *column, const char *should_be)
{
	appendStringInfo(inexact, "%s(%s IS DISTINCT FROM %s)::pg_catalog.int4", inexact->len ? " + " : "", column, should_be);
}

/* is it not blue's value that green has, but always the same, or none? */
static bool
is_constant(const BcmigColumn *c)
{
	return c->transform == BCMIG_DROP || c->transform == BCMIG_CONSTANT;
}

static void
take_constant(BcmigProof *proof, int i, Form_pg_attribute to)
{
	char	   *text = proof->table->columns[i].transform_value;
	Oid			input;
	Oid			param;

	if (text == NULL)
		return;
	proof->constants[i].isnull = false;
	getTypeInputInfo(to->atttypid, &input, &param);
	proof->constants[i].value = OidInputFunctionCall(input, text, param, to->atttypmod);
}

/*
 * The SELECT list of the green row, and the type each column is compared in:
 * blue's, where green's value tells what blue's must be; where a transform has
 * no inverse green's, in which case blue's rows are put through it (see
 * read_blue).  A column green
 * does not have is NULL on both sides; a constant is looked at here.
 */
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
		const BcmigColumn *c = &table->columns[i];
		const char *name = quote_identifier(NameStr(from->attname));
		char	   *column = psprintf("g.%s", name);
		char	   *cast = type_name(from->atttypid, from->atttypmod);
		Form_pg_attribute to = target_column(target, NameStr(from->attname));
		char	   *inverse;

		if (i > 0)
			appendStringInfoString(&s, ", ");
		if (c->transform == BCMIG_DROP)
		{
			appendStringInfo(&s, "NULL::%s", cast);
			continue;
		}
		if (to == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("column %s of %s is gone", name, table->target_name),
					 errhint("ALTER TABLE %s ADD COLUMN %s %s; SELECT bcmig_resync_table(%s, %s);", table->target_name, name,
							 format_type_with_typemod(from->atttypid, from->atttypmod),
							 quote_literal_cstr(table->sync_name), quote_literal_cstr(table->target_name))));
		if (c->transform == BCMIG_AS_IS)
		{
			if (needs_cast(from, to))
			{
				appendStringInfo(&s, "%s::%s", column, cast);
				add_inexact(&inexact, column, psprintf("%s::%s::%s", column, cast, type_name(to->atttypid, to->atttypmod)));
			}
			else
				appendStringInfoString(&s, column);
			continue;
		}
		inverse = bcmig_inverse_expression(c, column);
		if (inverse != NULL)
		{
			appendStringInfo(&s, "(%s)::%s", inverse, cast);
			add_inexact(&inexact, column, bcmig_transform_expression(c, psprintf("(%s)::%s", inverse, cast), false, NULL));
			continue;
		}
		if (c->transform == BCMIG_CONSTANT)
		{
			add_inexact(&inexact, column, bcmig_transform_expression(c, "", false, NULL));
			take_constant(proof, i, to);
		}
		appendStringInfoString(&s, column);
		TupleDescInitEntry(proof->desc, i + 1, pstrdup(NameStr(from->attname)), to->atttypid, to->atttypmod, 0);
	}
	table_close(rel, NoLock);
	proof->has_inexact = inexact.len > 0;
	if (proof->has_inexact)
		appendStringInfo(&s, ", %s", inexact.data);
	proof->select = s.data;
}

char *
bcmig_transforms_pulled(const BcmigProof *proof)
{
	StringInfoData s;

	if (!proof->transformed)
		return NULL;
	initStringInfo(&s);
	for (int i = 0; i < proof->table->ncolumns; i++)
	{
		const BcmigColumn *c = &proof->table->columns[i];

		if ((c->transform == BCMIG_BUILTIN || c->transform == BCMIG_SQL) && !bcmig_has_inverse(c))
			appendStringInfo(&s, "%scolumn \"%s\"", s.len ? ", " : "", c->source);
	}
	return psprintf("rows were pulled: the transform of %s%s%s cannot be told backwards", s.data, proof->table->row_filter && s.len ? " and " : "",
					proof->table->row_filter ? "the rows the row filter leaves" : "");
}

/* the columns that are compared by hash, and the table as blue is to hash it */
static void
choose_hashed(BcmigProof *proof)
{
	const BcmigTableInfo *table = proof->table;
	BcmigTableInfo *hashed = palloc(sizeof(BcmigTableInfo));

	*hashed = *table;
	hashed->columns = palloc(sizeof(BcmigColumn) * Max(table->ncolumns, 1));
	hashed->keys = palloc(sizeof(int) * Max(table->nkeys, 1));
	proof->columns = palloc(sizeof(int) * Max(table->ncolumns, 1));
	proof->transformed = table->row_filter != NULL;
	for (int i = 0; i < table->ncolumns; i++)
	{
		const BcmigColumn *c = &table->columns[i];

		if (is_constant(c))
		{
			if (proof->constants == NULL)
				proof->constants = palloc0(sizeof(NullableDatum) * table->ncolumns);
			proof->constants[i].isnull = true;
			continue;
		}
		if (!bcmig_has_inverse(c))
			proof->transformed = true;
		if (c->key_position > 0)
			hashed->keys[c->key_position - 1] = proof->ncolumns;
		hashed->columns[proof->ncolumns] = *c;
		proof->columns[proof->ncolumns++] = i;
	}
	hashed->ncolumns = proof->ncolumns;
	hashed->identity_column = -1;
	proof->hashed = hashed;
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
	for (int i = 0; i < proof->desc->natts; i++)
		TupleDescCopyEntry(proof->desc, i + 1, desc, i + 1 + FEED_COLUMNS);
	table_close(feed, NoLock);
	choose_hashed(proof);
	make_select(proof);
	proof->hasher = bcmig_hasher_create(proof->hash->image, proof->desc);
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
	BcmigProof *proof;
	bool		transform;
	BcmigRowSink sink;
	void	   *arg;
	TupleDesc	feed;
	MemoryContext context;		/* of one row, or of those kept */
	int			n;				/* kept to be transformed together */
	Size		bytes;
	MinimalTuple rows[TRANSFORM_ROWS];
} BlueReceiver;

static void
blue_start(BcmigReceiver *self, TupleDesc desc)
{
	BlueReceiver *r = (BlueReceiver *) self;

	/* rows are still at hand when the statement that brought them has ended */
	MemoryContext oldcontext = MemoryContextSwitchTo(GetMemoryChunkContext(r));

	r->feed = CreateTupleDescCopy(desc);
	MemoryContextSwitchTo(oldcontext);
}

/*
 * A row as it is to be on green, put back into the places of the feed.  One
 * the transform fails for is on blue, and equal to nothing.
 */
static void
transformed_row(void *arg, int row, TupleTableSlot *slot)
{
	BlueReceiver *r = arg;
	const BcmigTableInfo *table = r->proof->table;
	int			natts = r->proof->desc->natts;
	Datum	   *values = palloc0(sizeof(Datum) * natts);
	bool	   *isnull = palloc(sizeof(bool) * natts);
	TupleTableSlot *raw;
	int			att = FEED_COLUMNS;

	if (slot != NULL && *VARDATA_ANY(DatumGetTextPP(slot->tts_values[FEED_OP])) == BCMIG_OP_FILTERED)
		return;
	raw = MakeSingleTupleTableSlot(r->feed, &TTSOpsMinimalTuple);
	ExecStoreMinimalTuple(r->rows[row], raw, false);
	slot_getallattrs(raw);
	memset(isnull, true, sizeof(bool) * natts);
	for (int i = 0; i < natts; i++)
	{
		const BcmigColumn *c = &table->columns[i];

		if (is_constant(c))
		{
			values[i] = r->proof->constants[i].value;
			isnull[i] = r->proof->constants[i].isnull;
			att += c->transform == BCMIG_CONSTANT;
			continue;
		}
		/* where green's value tells blue's, that is what is compared */
		if (bcmig_has_inverse(c) && (slot != NULL || c->key_position > 0))
		{
			values[i] = raw->tts_values[FEED_COLUMNS + i];
			isnull[i] = raw->tts_isnull[FEED_COLUMNS + i];
		}
		else if (slot != NULL)
		{
			values[i] = slot->tts_values[att];
			isnull[i] = slot->tts_isnull[att];
		}
		att++;
	}
	r->sink(r->arg, values, isnull, slot != NULL ? 0 : 1);
	ExecDropSingleTupleTableSlot(raw);
}

static void
flush_blue(BlueReceiver *r)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(r->context);

	bcmig_transform_each(r->proof->table, r->feed, r->rows, r->n, r->proof->desc, transformed_row, r);
	r->n = 0;
	r->bytes = 0;
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(r->context);
}

static void
blue_row(BcmigReceiver *self, TupleTableSlot *slot, char op)
{
	BlueReceiver *r = (BlueReceiver *) self;
	MemoryContext oldcontext = MemoryContextSwitchTo(r->context);

	if (op == 'U' && r->transform)
	{
		r->rows[r->n] = ExecCopySlotMinimalTuple(slot);
		r->bytes += r->rows[r->n++]->t_len;
		MemoryContextSwitchTo(oldcontext);
		if (r->n == TRANSFORM_ROWS || r->bytes > TRANSFORM_BYTES)
			flush_blue(r);
		return;
	}

	/* the slot's arrays are written anew for each row */
	for (int i = 0; r->proof->constants != NULL && i < r->proof->desc->natts; i++)
	{
		if (!is_constant(&r->proof->table->columns[i]))
			continue;
		slot->tts_values[FEED_COLUMNS + i] = r->proof->constants[i].value;
		slot->tts_isnull[FEED_COLUMNS + i] = r->proof->constants[i].isnull;
	}

	/* a key whose row is gone is no row, but its sink may want to know: all but the key is NULL */
	r->sink(r->arg, slot->tts_values + FEED_COLUMNS, slot->tts_isnull + FEED_COLUMNS, op == 'D' ? -1 : 0);
	MemoryContextSwitchTo(oldcontext);
	if (r->n == 0)
		MemoryContextReset(r->context);
}

static void
read_blue(BcmigProof *proof, const char *sql, bool transform, BcmigRowSink sink, void *arg, BcmigSigns *signs)
{
	BlueReceiver *r = palloc0(sizeof(BlueReceiver));

	bcmig_receiver_init(&r->receiver, blue_start, blue_row);
	r->proof = proof;
	r->transform = transform;
	r->sink = sink;
	r->arg = arg;
	r->context = AllocSetContextCreate(CurrentMemoryContext, "bcmig blue row", ALLOCSET_DEFAULT_SIZES);
	bcmig_hasher_begin(proof->hasher);
	bcmig_read(proof->work, sql, 0, &r->receiver);
	flush_blue(r);
	bcmig_hasher_end(proof->hasher);
	MemoryContextDelete(r->context);
	if (signs != NULL)
		*signs = r->receiver.signs;
	pfree(r);
}

void
bcmig_blue_rows(BcmigProof *proof, const char *sql, BcmigRowSink sink, void *arg, BcmigSigns *signs)
{
	read_blue(proof, sql, proof->transformed, sink, arg, signs);
}

void
bcmig_blue_keys(BcmigProof *proof, const char *sql, BcmigRowSink sink, void *arg, BcmigSigns *signs)
{
	read_blue(proof, sql, false, sink, arg, signs);
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
			bcmig_hash_row(proof->hasher, values, isnull, proof->ncolumns, proof->columns, inexact, row);
	}
	if (table->nkeys > 0)
		bcmig_hash_row(proof->hasher, values, isnull, table->nkeys, table->keys, 0, key);
	else if (row != NULL)
		*key = *row;
	else
		bcmig_hash_row(proof->hasher, values, isnull, proof->ncolumns, proof->columns, inexact, key);
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
