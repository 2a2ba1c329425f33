/*-------------------------------------------------------------------------
 *
 * suspects.c
 *	  The rows of a chunk that differ.
 *
 * Green's rows are put into a hash table by the hash of their key; blue's then
 * take out what is equal.  What is left on either side is suspect: it differs,
 * or a change of it is on its way (settle.c).
 *
 * Where there is no key the row is its own key, and a row that stands three
 * times stands there with a count of three.
 *
 * Memory: 48 bytes a row of the chunks, and the keys of what is suspect.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "remote.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

typedef struct Entry
{
	BcmigHash	key;			/* must be first */
	BcmigHash	row;
	int32		times;			/* on green, minus on blue */
} Entry;

typedef struct Search
{
	BcmigProof *proof;
	List	   *chunks;
	HTAB	   *entries;
	List	   *suspects;
	int			most;
	bool		too_many;
	MemoryContext context;		/* of what is found */
} Search;

static bool
is_wanted(const Search *s, const Datum *values, const BcmigHash *key)
{
	return bcmig_chunk_wanted(s->chunks, bcmig_chunk_of(&s->proof->chunking, s->proof->table, values, key));
}

/* texts: nkeys of them, NULL where there is no key */
static void
suspect(Search *s, const BcmigHash *key, char **texts, bool extra)
{
	const BcmigChunking *chunking = &s->proof->chunking;
	MemoryContext oldcontext;
	BcmigSuspect *x;

	if (list_length(s->suspects) >= s->most)
	{
		s->too_many = true;
		return;
	}
	oldcontext = MemoryContextSwitchTo(s->context);
	x = palloc0(sizeof(BcmigSuspect));
	x->key = *key;
	x->extra = extra;
	x->chunk = chunking->buckets ? bcmig_chunk_of(chunking, s->proof->table, NULL, key) :
		pg_strtoint64(texts[0]) / chunking->size;
	if (texts != NULL)
	{
		x->texts = palloc(sizeof(char *) * s->proof->table->nkeys);
		for (int i = 0; i < s->proof->table->nkeys; i++)
			x->texts[i] = pstrdup(texts[i]);
	}
	s->suspects = lappend(s->suspects, x);
	MemoryContextSwitchTo(oldcontext);
}

/* green's rows, first */
static void
enter_row(void *arg, const Datum *values, const bool *isnull, int inexact)
{
	Search	   *s = arg;
	BcmigHash	key;
	BcmigHash	row;
	Entry	   *e;
	bool		found;

	bcmig_row_hashes(s->proof, values, isnull, inexact, &key, &row);
	if (s->proof->chunking.buckets && !is_wanted(s, values, &key))
		return;
	e = hash_search(s->entries, &key, HASH_ENTER, &found);
	if (!found)
		e->times = 0;
	e->row = row;
	e->times++;
}

/* the key of a row as texts, in the current context */
static char **
key_texts(BcmigProof *proof, const Datum *values)
{
	char	  **texts = palloc(sizeof(char *) * Max(proof->table->nkeys, 1));

	for (int k = 0; k < proof->table->nkeys; k++)
	{
		int			att = proof->table->keys[k];
		Oid			out;
		bool		varlena;

		getTypeOutputInfo(TupleDescAttr(proof->desc, att)->atttypid, &out, &varlena);
		texts[k] = OidOutputFunctionCall(out, values[att]);
	}
	return texts;
}

/* a row of blue takes out its equal; texts are asked for only when it has none */
static void
match(Search *s, const BcmigHash *key, const BcmigHash *row, char **(*texts_of) (Search *s, void *from), void *from)
{
	Entry	   *e = hash_search(s->entries, key, HASH_FIND, NULL);
	bool		keyless = s->proof->table->nkeys == 0;

	if (e != NULL && e->times > 0)
	{
		e->times--;
		if (keyless || memcmp(&e->row, row, sizeof(BcmigHash)) == 0)
			return;
	}
	suspect(s, key, keyless ? NULL : texts_of(s, from), false);
}

/* the text of an array, as the rows of BcmigHashDialect.rows have it */
static char **
texts_of_array(Search *s, void *from)
{
	Datum		array;

	if (from == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_BLUE),
				 errmsg("blue's answer to a question for hashes is not one bcmig understands")));
	array = OidFunctionCall3(F_ARRAY_IN, CStringGetDatum((char *) from), ObjectIdGetDatum(TEXTOID), Int32GetDatum(-1));
	return bcmig_bound_values(s->proof->table, array);
}

static char **
texts_of_row(Search *s, void *from)
{
	return key_texts(s->proof, (const Datum *) from);
}

static void
match_hashes(void *arg, char **row)
{
	Search	   *s = arg;
	BcmigHash	key;
	BcmigHash	image;

	memset(&image, 0, sizeof(image));
	if (row[0] == NULL || !bcmig_hash_read(row[0], &key) || (row[1] != NULL && !bcmig_hash_read(row[1], &image)))
		ereport(ERROR,
				(errcode(ERRCODE_BM_BLUE),
				 errmsg("blue's answer to a question for hashes is not one bcmig understands")));
	match(s, &key, &image, texts_of_array, row[2]);
}

static void
match_row(void *arg, const Datum *values, const bool *isnull, int inexact)
{
	Search	   *s = arg;
	BcmigHash	key;
	BcmigHash	row;

	bcmig_row_hashes(s->proof, values, isnull, inexact, &key, &row);
	if (!s->proof->chunking.buckets || is_wanted(s, values, &key))
		match(s, &key, &row, texts_of_row, (void *) values);
}

/* green's rows once more: the keys of those blue has not */
static void
extra_row(void *arg, const Datum *values, const bool *isnull, int inexact)
{
	Search	   *s = arg;
	BcmigHash	key;
	Entry	   *e;

	bcmig_row_hashes(s->proof, values, isnull, inexact, &key, NULL);
	e = hash_search(s->entries, &key, HASH_FIND, NULL);
	if (e == NULL || e->times <= 0)
		return;
	e->times--;
	suspect(s, &key, s->proof->table->nkeys > 0 ? key_texts(s->proof, values) : NULL, true);
}

List *
bcmig_find_suspects(BcmigProof *proof, List *chunks, int most, bool *too_many)
{
	HASHCTL		ctl = {0};
	Search		s = {proof, chunks, NULL, NIL, most, false, CurrentMemoryContext};
	char	   *condition = bcmig_green_condition(proof, chunks);
	HASH_SEQ_STATUS seq;
	Entry	   *e;
	bool		extra = false;

	ctl.keysize = sizeof(BcmigHash);
	ctl.entrysize = sizeof(Entry);
	ctl.hcxt = CurrentMemoryContext;
	s.entries = hash_create("bcmig rows", 16384, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	bcmig_green_rows(proof, condition, enter_row, &s);
	CHECK_FOR_INTERRUPTS();
	if (proof->pushdown || (proof->count_only && proof->table->nkeys > 0 && proof->table->row_filter == NULL))
		bcmig_remote_each_text(proof->text_feed, proof->hash->rows(proof->hashed, &proof->chunking, chunks, proof->count_only),
							   match_hashes, &s);
	else
		bcmig_blue_rows(proof, proof->hash->pull(proof->table, &proof->chunking, proof->chunking.buckets ? NIL : chunks),
						match_row, &s, NULL);
	hash_seq_init(&seq, s.entries);
	while ((e = hash_seq_search(&seq)) != NULL)
		extra |= e->times > 0;
	if (extra)
		bcmig_green_rows(proof, condition, extra_row, &s);
	hash_destroy(s.entries);
	*too_many = s.too_many;
	return s.suspects;
}
