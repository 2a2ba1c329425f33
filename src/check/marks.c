/*-------------------------------------------------------------------------
 *
 * marks.c
 *	  Marks of chunks that have been written to.
 *
 * The transaction that writes rows of a table appends a row to
 * bcmig.dirty_chunk for each chunk they are in, once per spool: no row is ever
 * updated, so no two appliers wait for each other.  An incremental validation
 * compares marked chunks and takes those marks away that it saw before it read.
 *
 * How a table is cut is kept here from one window to the next; the insert
 * itself makes sure that it is still so, for the table may be cut anew between
 * two windows, and a mark of another cut would mean nothing.
 *
 * Not marked: rows the rename of a key deletes under their old key, whole
 * compares (snapshot tables are always validated in full) and the first load.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "foreign/foreign.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* how a table was cut when it was last looked at */
typedef struct KnownChunking
{
	int			table_id;		/* must be first */
	BcmigChunking chunking;		/* size 0 = not cut */
} KnownChunking;

static HTAB *known = NULL;

bool
bcmig_load_chunking(const BcmigTableInfo *table, BcmigChunking *chunking, bool *proved)
{
	Oid			feed = get_relname_relid(table->feed, get_namespace_oid("bcmig", false));
	BcmigCatalogScope scope;
	bool		found;

	memset(chunking, 0, sizeof(*chunking));
	chunking->image = bcmig_dialect_of_server(GetForeignTable(feed)->serverid)->hash->image;
	bcmig_catalog_begin(&scope);
	found = bcmig_sql("SELECT c.generation, c.method = 'buckets', c.size, c.proved_at > coalesce(s.copy_started, '-infinity') "
					  "FROM bcmig.chunking c JOIN bcmig.table_state s USING (table_id) WHERE c.table_id = $1", "i", table->table_id) > 0;
	if (found)
	{
		chunking->generation = bcmig_get_int64(0, 1, 0);
		chunking->buckets = bcmig_get_bool(0, 2);
		chunking->size = bcmig_get_int64(0, 3, 1);
		if (proved != NULL)
			*proved = bcmig_get_bool(0, 4);
	}
	bcmig_catalog_end(&scope);
	return found;
}

static int
compare_chunks(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/* the chunks of the rows, ascending, each once */
static Datum
chunks_of(const BcmigTableInfo *table, const BcmigChunking *chunking, Tuplestorestate *rows, TupleDesc desc, int *n)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
	BcmigHasher *hasher = NULL;
	int			size = 64;
	int64	   *chunks = palloc(sizeof(int64) * size);
	Datum	   *values;
	int		   *keys = palloc(sizeof(int) * Max(table->nkeys, 1));
	BcmigHash	hash;
	int			last = 0;

	*n = 0;
	for (int k = 0; k < table->nkeys; k++)
	{
		keys[k] = FEED_COLUMNS + table->keys[k];
		last = Max(last, keys[k]);
	}
	if (chunking->buckets)
	{
		hasher = bcmig_hasher_create(chunking->image, desc);
		bcmig_hasher_begin(hasher);
	}
	tuplestore_select_read_pointer(rows, 0);
	tuplestore_rescan(rows);
	while (tuplestore_gettupleslot(rows, true, false, slot))
	{
		int64		chunk;

		CHECK_FOR_INTERRUPTS();
		slot_getsomeattrs(slot, last + 1);
		if (hasher != NULL)
			bcmig_hash_row(hasher, slot->tts_values, slot->tts_isnull, table->nkeys, keys, 0, &hash);
		chunk = bcmig_chunk_of(chunking, table, slot->tts_values + FEED_COLUMNS, &hash);

		/* rows that are neighbours in the spool mostly are in the key too */
		if (*n > 0 && chunks[*n - 1] == chunk)
			continue;
		if (*n == size)
		{
			/* many rows in few chunks must stay few */
			qsort(chunks, *n, sizeof(int64), compare_chunks);
			*n = qunique(chunks, *n, sizeof(int64), compare_chunks);
			if (*n > size / 2)
			{
				size *= 2;
				chunks = repalloc_huge(chunks, sizeof(int64) * size);
			}
		}
		chunks[(*n)++] = chunk;
	}
	ExecDropSingleTupleTableSlot(slot);
	if (hasher != NULL)
		bcmig_hasher_end(hasher);
	qsort(chunks, *n, sizeof(int64), compare_chunks);
	*n = qunique(chunks, *n, sizeof(int64), compare_chunks);
	values = palloc(sizeof(Datum) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		values[i] = Int64GetDatum(chunks[i]);
	return PointerGetDatum(construct_array(values, *n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

void
bcmig_mark_chunks(const BcmigTableInfo *table, Tuplestorestate *rows, TupleDesc desc)
{
	MemoryContext context;
	MemoryContext oldcontext;
	KnownChunking *cut;
	BcmigCatalogScope scope;
	bool		found;

	if (table->nkeys == 0)
		return;
	if (known == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(int);
		ctl.entrysize = sizeof(KnownChunking);
		known = hash_create("bcmig chunkings", 256, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	cut = hash_search(known, &table->table_id, HASH_ENTER, &found);
	if (!found)
		cut->chunking.size = 0;
	context = AllocSetContextCreate(CurrentMemoryContext, "bcmig marks", ALLOCSET_DEFAULT_SIZES);
	oldcontext = MemoryContextSwitchTo(context);
	for (;;)
	{
		Datum		chunks;
		int			n;
		bool		done;

		if (cut->chunking.size == 0)
		{
			if (!bcmig_load_chunking(table, &cut->chunking, NULL))
				break;
		}
		chunks = chunks_of(table, &cut->chunking, rows, desc, &n);
		if (n == 0)
			break;
		bcmig_catalog_begin(&scope);
		done = bcmig_sql("INSERT INTO bcmig.dirty_chunk (table_id, generation, chunk) SELECT $1, $2, x "
						 "FROM bcmig.chunking c, unnest($3) x WHERE c.table_id = $1 AND c.generation = $2",
						 "iiq", table->table_id, cut->chunking.generation, chunks) > 0;
		bcmig_catalog_end(&scope);
		MemoryContextSwitchTo(context);
		if (done)
			break;
		/* cut anew meanwhile */
		cut->chunking.size = 0;
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}
