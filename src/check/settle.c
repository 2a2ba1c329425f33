/*-------------------------------------------------------------------------
 *
 * settle.c
 *	  Real differences, told from changes on their way.
 *
 * A row that differed while blue and green were read at different instants
 * proves nothing.  So each is looked at again by its key, without a lock:
 *
 *	1.	green's position P (and what is seen above it), as committed
 *	2.	green's rows, read after that: they are complete to P at least
 *	3.	blue's rows
 *	4.	the keys of a window above P, read after that
 *
 * A key that is not in the window has not changed on blue since P: what green
 * had then is what blue has now, or should be.  If the two differ, that is
 * real.  A key in the window is in flight: the sync is about to write it as
 * blue has it, and it is looked at again a few times.
 *
 * While writes are on green it is the journal that tells: a key with an entry
 * that was not settled, or only settled since green's rows were read, is in
 * flight to blue.
 *
 * Deletes are not in every window (rowversion), and some tables have none
 * (snapshot).  There a difference is real when blue has not moved since the
 * last window, or the last compare; else a sweep is run first, which deletes
 * what blue has no more.
 *
 * Differences are stored as they are found, by chunk: a chunk that is looked
 * at again after a crash begins by forgetting its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "quarantine.h"
#include "slot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define BATCH_KEYS		200
#define BATCH_WIDE_KEYS	10		/* of tables with columns of any length */
#define LOOKS			5
#define SETTLE_TIME		2000	/* ms, at most, between settling an entry and its commit */
#define LOOK_WAIT		30000	/* ms, at most, for polls: a blue may take seconds to answer one */

/* both sides of a suspect, as one look saw them */
typedef struct Pair
{
	BcmigHash	key;			/* must be first */
	BcmigSuspect *suspect;
	MinimalTuple blue;			/* NULL = no row */
	MinimalTuple green;
	BcmigHash	blue_hash;
	BcmigHash	green_hash;
	bool		in_window;
} Pair;

typedef struct Look
{
	BcmigProof *proof;
	HTAB	   *pairs;
	MemoryContext context;		/* of this look */
	int			side;			/* whose rows are coming */
} Look;

enum
{
	GREEN, BLUE, WINDOW
};

static void
take_row(void *arg, const Datum *values, const bool *isnull, int inexact)
{
	Look	   *look = arg;
	BcmigHash	key;
	BcmigHash	row;
	Pair	   *pair;
	MinimalTuple tuple;
	MemoryContext oldcontext;

	bcmig_row_hashes(look->proof, values, isnull, Max(inexact, 0), &key, look->side == WINDOW ? NULL : &row);
	pair = hash_search(look->pairs, &key, HASH_FIND, NULL);
	if (pair == NULL)
		return;
	if (look->side == WINDOW)
	{
		pair->in_window = true;
		return;
	}
	if (inexact < 0)
		return;					/* gone */
	oldcontext = MemoryContextSwitchTo(look->context);
	tuple = BCMIG_MINIMAL_TUPLE(look->proof->desc, unconstify(Datum *, values), unconstify(bool *, isnull));
	MemoryContextSwitchTo(oldcontext);
	if (look->side == GREEN)
	{
		pair->green = tuple;
		pair->green_hash = row;
	}
	else
	{
		pair->blue = tuple;
		pair->blue_hash = row;
	}
}

/* (g.k1, g.k2) IN (VALUES ...) in the target's types */
static char *
key_condition(const BcmigTableInfo *table, char **keys, int n)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int k = 0; k < table->nkeys; k++)
		appendStringInfo(&s, "%sg.%s", k ? ", " : "(", quote_identifier(table->columns[table->keys[k]].target));
	appendStringInfoString(&s, ") IN (VALUES ");
	for (int i = 0; i < n; i++)
	{
		for (int k = 0; k < table->nkeys; k++)
			appendStringInfo(&s, "%s%s::%s", k ? ", " : i ? ", (" : "(", quote_literal_cstr(keys[i * table->nkeys + k]),
							 table->columns[table->keys[k]].target_type);
		appendStringInfoChar(&s, ')');
	}
	appendStringInfoChar(&s, ')');
	return s.data;
}

/* is the table complete to all that blue's polls have seen of it? */
static bool
is_clean(int table_id, uint64 *poll)
{
	BcmigTable *live;
	bool		clean = false;

	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	live = bcmig_live_table(table_id);
	if (live != NULL && live->blue >= 0 && live->state == BCMIG_STREAMING)
	{
		clean = live->window_poll >= live->moved_poll;
		*poll = bcmig_shared->blues[live->blue].poll;
	}
	LWLockRelease(bcmig_shared->lock);
	return clean;
}

/* wait until "polls" more polls have been answered, LOOK_WAIT at most; false = the sync is being stopped */
static bool
wait_for_polls(BcmigProof *proof, uint64 since, int polls)
{
	TimestampTz until = TimestampTzPlusMilliseconds(bcmig_steady_time(), LOOK_WAIT);

	while (bcmig_steady_time() < until)
	{
		uint64		poll = since;

		if (bcmig_stopping(proof->work))
			return false;
		(void) is_clean(proof->table->table_id, &poll);
		if (poll >= since + polls)
			break;
		bcmig_pause(20);
	}
	return true;
}

/* ---- what is real ---- */

static char *
row_json(BcmigProof *proof, MinimalTuple tuple, TupleTableSlot *slot)
{
	if (tuple == NULL)
		return NULL;
	ExecStoreMinimalTuple(tuple, slot, false);
	slot_getallattrs(slot);
	return bcmig_image_json(proof->desc, 0, slot->tts_values, slot->tts_isnull);
}

/* names of the columns that differ as text[], 0 where a row is missing */
static Datum
differing_columns(BcmigProof *proof, const Pair *pair, TupleTableSlot *slot)
{
	int			n = proof->desc->natts;
	Datum	   *values = palloc(sizeof(Datum) * n);
	bool	   *isnull = palloc(sizeof(bool) * n);
	Datum	   *names = palloc(sizeof(Datum) * n);
	int			differ = 0;

	if (pair->blue == NULL || pair->green == NULL)
		return (Datum) 0;
	ExecStoreMinimalTuple(pair->blue, slot, false);
	slot_getallattrs(slot);
	for (int i = 0; i < n; i++)
	{
		Form_pg_attribute att = TupleDescAttr(proof->desc, i);

		isnull[i] = slot->tts_isnull[i];
		values[i] = isnull[i] ? (Datum) 0 : datumCopy(slot->tts_values[i], att->attbyval, att->attlen);
	}
	ExecStoreMinimalTuple(pair->green, slot, false);
	slot_getallattrs(slot);
	for (int i = 0; i < n; i++)
	{
		Form_pg_attribute att = TupleDescAttr(proof->desc, i);

		if (isnull[i] != slot->tts_isnull[i] ||
			(!isnull[i] && !datum_image_eq(values[i], slot->tts_values[i], att->attbyval, att->attlen)))
			names[differ++] = CStringGetTextDatum(NameStr(att->attname));
	}
	return PointerGetDatum(construct_array(names, differ, TEXTOID, -1, false, TYPALIGN_INT));
}

/* in a transaction */
static void
store_difference(BcmigProof *proof, const Pair *pair, TupleTableSlot *slot)
{
	const char *kind = pair->blue == NULL ? "extra" : pair->green == NULL ? "missing" : "different";
	char	   *blue = row_json(proof, pair->blue, slot);
	char	   *green = row_json(proof, pair->green, slot);
	Datum		columns = differing_columns(proof, pair, slot);
	StringInfoData key;
	BcmigCatalogScope scope;

	initStringInfo(&key);
	for (int k = 0; k < proof->table->nkeys; k++)
	{
		appendStringInfoChar(&key, k ? ',' : '[');
		escape_json(&key, pair->suspect->texts[k]);
	}
	appendStringInfoChar(&key, ']');
	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.validation_difference (run_id, table_id, chunk, kind, key, columns, blue, green) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
			  "IiItjkjj", proof->run_id, proof->table->table_id, pair->suspect->chunk, kind,
			  proof->table->nkeys > 0 ? key.data : NULL, columns, blue, green);
	bcmig_catalog_end(&scope);
}

/*
 * Suspects that outside writes on green are, or have just been, bringing to
 * blue: settled a moment before "since" counts too, that may have been written
 * before it was committed.  Read after both sides; in a transaction.  Numbers of
 * suspects.
 */
static Bitmapset *
outside_writes(const BcmigTableInfo *table, BcmigSuspect **suspects, int n, TimestampTz since)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *keys = NIL;
	Bitmapset  *outside = NULL;
	uint64		found;

	if (table->nkeys == 0)
		return NULL;
	for (int i = 0; i < n; i++)
	{
		StringInfoData key;

		initStringInfo(&key);
		for (int k = 0; k < table->nkeys; k++)
		{
			appendStringInfoChar(&key, k == 0 ? '[' : ',');
			if (suspects[i]->texts[k] != NULL)
				escape_json(&key, suspects[i]->texts[k]);
			else
				appendStringInfoString(&key, "null");
		}
		appendStringInfoChar(&key, ']');
		keys = lappend(keys, key.data);
	}
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT 1 FROM bcmig.traffic WHERE sync_id = $1 AND switched_at IS NOT NULL", "i", table->sync_id) > 0)
	{
		found = bcmig_sql("WITH k AS (SELECT key::jsonb AS key, n FROM unnest($2) WITH ORDINALITY u (key, n)), "
						  " j AS (SELECT old_key, new_key FROM bcmig.journal WHERE table_id = $1 AND (settled_at IS NULL OR settled_at >= $3)) "
						  "SELECT k.n FROM k JOIN j ON j.new_key = k.key UNION SELECT k.n FROM k JOIN j ON j.old_key = k.key",
						  "ikz", table->table_id, bcmig_text_array(keys), TimestampTzPlusMilliseconds(since, -SETTLE_TIME));
		MemoryContextSwitchTo(caller);
		for (uint64 i = 0; i < found; i++)
			outside = bms_add_member(outside, bcmig_get_int64(i, 1, 1) - 1);
	}
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	return outside;
}

/*
 * One look at n suspects.  Returns false when nothing can be said: the table is
 * not streaming, or is about to be read again.
 */
static bool
look_at(BcmigProof *proof, BcmigSuspect **suspects, int n, BcmigSettled *settled)
{
	const BcmigTableInfo *table = proof->table;
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bcmig look", ALLOCSET_DEFAULT_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(context);
	bool		windows = strcmp(table->capture, "snapshot") != 0;
	bool		deletes = strcmp(table->capture, "change_tracking") == 0;
	char	  **keys = palloc(sizeof(char *) * n * table->nkeys);
	HASHCTL		ctl = {0};
	Look		look = {proof, NULL, context, GREEN};
	BcmigStored stored;
	BcmigSigns	signs = {0};
	TupleTableSlot *slot;
	uint64		poll = 0;
	TimestampTz since;
	Bitmapset  *outside;
	bool		clean;
	bool		streaming;

	ctl.keysize = sizeof(BcmigHash);
	ctl.entrysize = sizeof(Pair);
	ctl.hcxt = context;
	look.pairs = hash_create("bcmig look", n, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < n; i++)
	{
		bool		found;
		Pair	   *pair = hash_search(look.pairs, &suspects[i]->key, HASH_ENTER, &found);

		memset((char *) pair + sizeof(pair->key), 0, sizeof(*pair) - sizeof(pair->key));
		pair->suspect = suspects[i];
		memcpy(keys + i * table->nkeys, suspects[i]->texts, sizeof(char *) * table->nkeys);
	}

	since = GetCurrentTimestamp();
	clean = is_clean(table->table_id, &poll);
	bcmig_start_transaction();
	streaming = bcmig_state_load(table->table_id, &stored) && stored.state == BCMIG_STREAMING;
	bcmig_end_transaction();
	if (streaming)
	{
		bcmig_debug_point("settle_position");
		bcmig_start_transaction();
		bcmig_green_rows(proof, key_condition(table, keys, n), take_row, &look);
		bcmig_debug_point("settle_green");
		look.side = BLUE;
		bcmig_blue_rows(proof, proof->work->dialect->rows_by_key(table, n, keys), take_row, &look, &signs);
		bcmig_end_transaction();

		/* in a transaction of its own: on blue too it begins after the rows were read */
		look.side = WINDOW;
		if (windows)
		{
			bcmig_start_transaction();
			bcmig_blue_keys(proof, proof->work->dialect->window(table, stored.from, stored.seen, 0), take_row, &look, &signs);
			bcmig_end_transaction();
			streaming = !signs.begin_changed && !(signs.has_min_valid && signs.min_valid > stored.position) &&
				(stored.begin_version == NULL || !signs.has_begin || pg_strtoint64(stored.begin_version) == signs.begin);
		}
	}
	if (!streaming)
	{
		settled->unknown = MemoryContextStrdup(caller, "the table is not streaming, or about to be read again");
		MemoryContextSwitchTo(caller);
		MemoryContextDelete(context);
		return false;
	}

	/* all that had moved on blue until its rows were read is known after two more polls */
	if (!deletes && clean)
	{
		uint64		now = poll;

		(void) wait_for_polls(proof, poll, 2);
		clean = is_clean(table->table_id, &now) && now >= poll + 2;
	}
	else if (!deletes)
		(void) wait_for_polls(proof, poll, 2);

	slot = MakeSingleTupleTableSlot(proof->desc, &TTSOpsMinimalTuple);
	bcmig_start_transaction();
	streaming = bcmig_same_mapping(table);
	outside = outside_writes(table, suspects, n, since);
	for (int i = 0; i < n && streaming; i++)
	{
		Pair	   *pair = hash_search(look.pairs, &suspects[i]->key, HASH_FIND, NULL);
		bool		same = (pair->blue == NULL) == (pair->green == NULL) &&
			(pair->blue == NULL || memcmp(&pair->blue_hash, &pair->green_hash, sizeof(BcmigHash)) == 0);
		bool		known = (deletes || (windows && pair->blue != NULL) ? !pair->in_window : clean) && !bms_is_member(i, outside);

		CHECK_FOR_INTERRUPTS();
		if (suspects[i]->settled)
			continue;
		if (same)
		{
			suspects[i]->settled = true;
			settled->in_flight++;
		}
		else if (known)
		{
			suspects[i]->settled = true;
			settled->differences++;
			store_difference(proof, pair, slot);
		}
	}
	bcmig_end_transaction();
	ExecDropSingleTupleTableSlot(slot);
	if (!streaming)
		settled->unknown = MemoryContextStrdup(caller, "the mapping of the table was changed meanwhile");
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return streaming;
}

/* those not settled yet, moved to the front */
static int
unsettled(BcmigSuspect **suspects, int n)
{
	int			left = 0;

	for (int i = 0; i < n; i++)
	{
		if (!suspects[i]->settled)
			suspects[left++] = suspects[i];
	}
	return left;
}

static void
settle_batch(BcmigProof *proof, BcmigSuspect **suspects, int n, BcmigSettled *settled)
{
	bool		swept = false;

	for (int look = 0; look < LOOKS && n > 0; look++)
	{
		uint64		poll = 0;

		CHECK_FOR_INTERRUPTS();
		(void) is_clean(proof->table->table_id, &poll);
		if (look > 0 && !wait_for_polls(proof, poll, 2))
			break;
		if (!look_at(proof, suspects, n, settled))
			return;
		n = unsettled(suspects, n);

		/* what is left may be deletes only a sweep, or changes only a compare can see */
		if (n > 0 && look == LOOKS / 2 && !swept && strcmp(proof->table->capture, "change_tracking") != 0)
		{
			(void) bcmig_run_sweep(proof->work);
			swept = true;
		}
	}
	if (n > 0 && strcmp(proof->table->capture, "change_tracking") != 0)
		settled->unknown = "rows that differ kept moving, and no feed tells which of them changed";
	settled->in_flight += n;
}

/* ---- tables without key ---- */

/* green's and blue's rows with these hashes, as many as are suspect */
static void
take_keyless(void *arg, const Datum *values, const bool *isnull, int inexact)
{
	Look	   *look = arg;
	BcmigHash	key;
	Pair	   *pair;
	MemoryContext oldcontext;

	bcmig_row_hashes(look->proof, values, isnull, inexact, &key, NULL);
	pair = hash_search(look->pairs, &key, HASH_FIND, NULL);
	if (pair == NULL)
		return;
	oldcontext = MemoryContextSwitchTo(look->context);
	if (look->side == GREEN && pair->suspect->extra && pair->green == NULL)
		pair->green = BCMIG_MINIMAL_TUPLE(look->proof->desc, unconstify(Datum *, values), unconstify(bool *, isnull));
	else if (look->side == BLUE && !pair->suspect->extra && pair->blue == NULL)
		pair->blue = BCMIG_MINIMAL_TUPLE(look->proof->desc, unconstify(Datum *, values), unconstify(bool *, isnull));
	MemoryContextSwitchTo(oldcontext);
}

/*
 * The row is all there is to say which it is, so all are looked for again; they
 * are real when blue has not moved since before that.
 */
static void
settle_keyless(BcmigProof *proof, List *suspects, BcmigSettled *settled)
{
	HASHCTL		ctl = {0};
	Look		look = {proof, NULL, CurrentMemoryContext, GREEN};
	TupleTableSlot *slot;
	ListCell   *lc;
	List	   *chunks = NIL;

	foreach(lc, suspects)
	{
		BcmigChunks *c = palloc(sizeof(BcmigChunks));

		c->first = c->last = ((BcmigSuspect *) lfirst(lc))->chunk;
		if (!bcmig_chunk_wanted(chunks, c->first) || chunks == NIL)
			chunks = lappend(chunks, c);
	}
	for (int n = 0; n < LOOKS; n++)
	{
		uint64		poll = 0;
		uint64		now = 0;
		bool		clean = is_clean(proof->table->table_id, &poll);
		bool		too_many;

		bcmig_start_transaction();
		suspects = bcmig_find_suspects(proof, chunks, list_length(suspects) + 1000, &too_many);
		bcmig_end_transaction();
		if (suspects == NIL)
			return;
		if (!wait_for_polls(proof, poll, 2))
			return;
		if (clean && is_clean(proof->table->table_id, &now) && now >= poll + 2)
			break;
		if (n == LOOKS - 1)
		{
			settled->unknown = "rows that differ kept moving, and no feed tells which of them changed";
			return;
		}
	}

	ctl.keysize = sizeof(BcmigHash);
	ctl.entrysize = sizeof(Pair);
	ctl.hcxt = CurrentMemoryContext;
	look.pairs = hash_create("bcmig look", 256, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	foreach(lc, suspects)
	{
		BcmigSuspect *x = lfirst(lc);
		bool		found;
		Pair	   *pair = hash_search(look.pairs, &x->key, HASH_ENTER, &found);

		if (!found)
			memset((char *) pair + sizeof(pair->key), 0, sizeof(*pair) - sizeof(pair->key));
		pair->suspect = x;
	}
	bcmig_start_transaction();
	bcmig_green_rows(proof, NULL, take_keyless, &look);
	look.side = BLUE;
	bcmig_blue_rows(proof, proof->hash->pull(proof->table, &proof->chunking, NIL), take_keyless, &look, NULL);
	slot = MakeSingleTupleTableSlot(proof->desc, &TTSOpsMinimalTuple);
	foreach(lc, suspects)
	{
		BcmigSuspect *x = lfirst(lc);
		Pair	   *pair = hash_search(look.pairs, &x->key, HASH_FIND, NULL);

		/* neither side has it now: it went between the two reads */
		if (pair->blue == NULL && pair->green == NULL)
		{
			settled->in_flight++;
			continue;
		}
		settled->differences++;
		store_difference(proof, pair, slot);
	}
	ExecDropSingleTupleTableSlot(slot);
	bcmig_end_transaction();
}

void
bcmig_settle(BcmigProof *proof, List *suspects, BcmigSettled *settled)
{
	int			size = proof->work->unbounded ? BATCH_WIDE_KEYS : BATCH_KEYS;
	BcmigSuspect **batch = palloc(sizeof(BcmigSuspect *) * size);

	if (proof->table->nkeys == 0)
	{
		settle_keyless(proof, suspects, settled);
		return;
	}
	for (int at = 0; at < list_length(suspects) && settled->unknown == NULL && !bcmig_stopping(proof->work); at += size)
	{
		int			n = Min(size, list_length(suspects) - at);

		for (int i = 0; i < n; i++)
			batch[i] = list_nth(suspects, at + i);
		settle_batch(proof, batch, n, settled);
	}
}
