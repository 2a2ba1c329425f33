/*-------------------------------------------------------------------------
 *
 * chunks.c
 *	  Cutting a table into chunks, and adding chunks up on both sides.
 *
 * A chunk is a range of the first key column where that is an integer with
 * enough values, else a bucket of the key's hash.  Of integers both engines
 * surely say the same about order and division; text and GUIDs are ordered by
 * collations and by bytes no two engines share.
 *
 * Buckets are told by reading the whole table, so their statement does; ranges
 * are read through the key's index, many in one statement.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "remote.h"
#include "utils/builtins.h"

#define CHUNK_ROWS		10000	/* wanted in one chunk */
#define CROWDED			4		/* times as many are too many */

/* ---- cutting ---- */

/* bounds of green's first key column and its rows (estimate); in a transaction */
static void
green_extent(BcmigProof *proof, bool *any, int64 *low, int64 *high)
{
	const char *key = quote_identifier(proof->table->columns[proof->table->keys[0]].target);
	bool		isnull;

	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute(psprintf("SELECT min(g.%s)::pg_catalog.int8, max(g.%s)::pg_catalog.int8 FROM %s g", key, key,
							 proof->table->target_name), true, 1) != SPI_OK_SELECT)
		elog(ERROR, "looking at the keys of %s failed", proof->table->target_name);
	*low = bcmig_get_int64(0, 1, 0);
	*high = bcmig_get_int64(0, 2, 0);
	(void) bcmig_get_datum(0, 1, &isnull);
	*any = !isnull;
	SPI_finish();
}

static void
store_chunking(BcmigProof *proof)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.chunking AS c (table_id, generation, method, size) VALUES ($1, 1, $2, $3) "
			  "ON CONFLICT (table_id) DO UPDATE SET generation = c.generation + 1, method = excluded.method, size = excluded.size, proved_at = NULL "
			  "RETURNING generation", "itI", proof->table->table_id, proof->chunking.buckets ? "buckets" : "range", proof->chunking.size);
	proof->chunking.generation = bcmig_get_int64(0, 1, 0);
	bcmig_sql("DELETE FROM bcmig.dirty_chunk WHERE table_id = $1", "i", proof->table->table_id);
	bcmig_catalog_end(&scope);
}

void
bcmig_plan_chunks(BcmigProof *proof, bool anew, int64 *first, int64 *last, int64 *rows)
{
	const BcmigTableInfo *table = proof->table;
	bool		known = bcmig_load_chunking(table, &proof->chunking, NULL);
	List	   *answer = bcmig_remote_texts(proof->text_feed, proof->hash->extent(table));
	char	  **row = answer ? linitial(answer) : NULL;
	bool		any = row != NULL && row[1] != NULL && row[2] != NULL;
	int64		low = any ? bcmig_answer_int64(row, 1) : 0;
	int64		high = any ? bcmig_answer_int64(row, 2) : 0;
	BcmigChunking best = proof->chunking;
	double		span;
	int64		wanted;

	*rows = row != NULL && row[0] != NULL ? Max(bcmig_answer_int64(row, 0), 0) : 0;
	wanted = Max(1, *rows / CHUNK_ROWS);
	if (bcmig_ranges_possible(table))
	{
		int64		green_low;
		int64		green_high;
		bool		green_any;

		green_extent(proof, &green_any, &green_low, &green_high);
		if (green_any)
		{
			low = any ? Min(low, green_low) : green_low;
			high = any ? Max(high, green_high) : green_high;
		}
	}
	span = (double) high - (double) low + 1;
	best.buckets = !bcmig_ranges_possible(table) || *rows / span > CROWDED * CHUNK_ROWS;
	if (best.buckets)
	{
		best.size = 1;
		while (best.size < wanted && best.size < BCMIG_BUCKETS)
			best.size *= 2;
	}
	else
		best.size = Max(1, (int64) Min(span / wanted, (double) PG_INT64_MAX / 4));
	if (!known || (anew && (best.buckets != proof->chunking.buckets || best.size > CROWDED * proof->chunking.size ||
							best.size < proof->chunking.size / CROWDED)))
	{
		proof->chunking = best;
		store_chunking(proof);
	}
	if (proof->chunking.buckets)
	{
		*first = 0;
		*last = proof->chunking.size - 1;
	}
	else
	{
		*first = low / proof->chunking.size;
		*last = high / proof->chunking.size;
	}
}

/* ---- adding up ---- */

typedef struct Adding
{
	BcmigProof *proof;
	HTAB	   *pairs;
	List	   *chunks;			/* wanted; NIL = all */
	bool		blue;
} Adding;

static BcmigChunkPair *
pair_of(HTAB *pairs, int64 chunk)
{
	bool		found;
	BcmigChunkPair *pair = hash_search(pairs, &chunk, HASH_ENTER, &found);

	if (!found)
	{
		memset(&pair->blue, 0, sizeof(pair->blue));
		memset(&pair->green, 0, sizeof(pair->green));
	}
	return pair;
}

static void
add_row(void *arg, const Datum *values, const bool *isnull, int inexact)
{
	Adding	   *a = arg;
	BcmigProof *proof = a->proof;
	BcmigHash	key;
	BcmigHash	row;
	BcmigChunkPair *pair;
	int64		chunk;

	/* the key's hash is wanted for buckets only, and the row's for those only that are wanted */
	if (!proof->chunking.buckets)
	{
		memset(&row, 0, sizeof(row));
		if (!proof->count_only)
			bcmig_hash_row(proof->hasher, values, isnull, proof->ncolumns, proof->columns, inexact, &row);
		chunk = bcmig_chunk_of(&proof->chunking, proof->table, values, NULL);
	}
	else
	{
		bcmig_row_hashes(proof, values, isnull, inexact, &key, NULL);
		chunk = bcmig_chunk_of(&proof->chunking, proof->table, values, &key);
		if (!bcmig_chunk_wanted(a->chunks, chunk))
			return;
		bcmig_row_hashes(proof, values, isnull, inexact, &key, &row);
		if (proof->count_only)
			memset(&row, 0, sizeof(row));
	}
	pair = pair_of(a->pairs, chunk);
	bcmig_sums_add(a->blue ? &pair->blue : &pair->green, &row);
}

/* a row of BcmigHashDialect.sums */
static void
take_sums(void *arg, char **row)
{
	Adding	   *a = arg;
	BcmigChunkPair *pair;

	pair = pair_of(a->pairs, bcmig_answer_int64(row, 0));
	pair->blue.rows += bcmig_answer_int64(row, 1);
	for (int lane = 0; lane < 4; lane++)
		pair->blue.lanes[lane] += row[2 + lane] ? bcmig_answer_int64(row, 2 + lane) : 0;
}

HTAB *
bcmig_compare_chunks(BcmigProof *proof, List *chunks)
{
	HASHCTL		ctl = {0};
	Adding		a = {proof, NULL, chunks, true};

	ctl.keysize = sizeof(int64);
	ctl.entrysize = sizeof(BcmigChunkPair);
	ctl.hcxt = CurrentMemoryContext;
	a.pairs = hash_create("bcmig chunks", 1024, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	if (proof->pushdown || (proof->count_only && proof->table->row_filter == NULL))
		bcmig_remote_each_text(proof->text_feed, proof->hash->sums(proof->hashed, &proof->chunking, chunks, proof->count_only),
							   take_sums, &a);
	else
		bcmig_blue_rows(proof, proof->hash->pull(proof->table, &proof->chunking, proof->chunking.buckets ? NIL : chunks),
						add_row, &a, NULL);
	CHECK_FOR_INTERRUPTS();
	a.blue = false;
	bcmig_green_rows(proof, bcmig_green_condition(proof, chunks), add_row, &a);
	return a.pairs;
}
