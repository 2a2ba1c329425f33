/*-------------------------------------------------------------------------
 *
 * copy.c
 *	  Initial copy of a table, and its reading again (resync).
 *
 * The position is taken first: whatever changes on blue from then on comes
 * with a window.  Then key ranges are cut ahead (the bounds are computed and
 * applied by blue, in its own order), claimed with FOR UPDATE SKIP LOCKED and
 * committed one by one with their checkpoint; several workers share a table.
 * A crash loses the chunks under way and nothing else.
 *
 *	load	into an empty table without key: straight into the heap, applier
 *			lock shared (ranges are disjoint and no window runs yet); where the
 *			rows lie elsewhere (reach.h) by SQL, one chunk of a table at a time
 *	upsert	over rows that are there (resync): spooled and applied like a
 *			window, applier lock exclusive; a sweep follows
 *
 * A table without key is one chunk with open ends; its resync is a compare.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "load.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "quarantine.h"
#include "remote.h"
#include "slot.h"
#include "source.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "writers.h"

#define FIRST_CHUNK_ROWS	20000
#define LEAST_CHUNK_ROWS	500
#define MOST_CHUNK_ROWS		500000
#define CHUNK_BYTES			(256 * 1024 * 1024)
#define COPY_TURN			5000	/* ms */
#define CUT_AHEAD			4	/* chunks cut at a time */
#define WRITERS_WAIT		5000	/* ms; then the table is tried again later */

typedef enum ChunkResult
{
	CHUNK_DONE,
	CHUNK_NONE_FREE,			/* others work on the last ones */
	CHUNK_ALL_DONE,
	CHUNK_STATE_CHANGED
} ChunkResult;

/* a claimed chunk */
typedef struct Chunk
{
	int			number;
	Datum		lower;			/* text[], 0 = open */
	Datum		upper;
	int64		max_row_bytes;	/* 0 = not known */
	bool		found;
} Chunk;

static bool
target_is_empty(const BcmigTableInfo *table)
{
	uint64		n;

	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute(psprintf("SELECT 1 FROM %s LIMIT 1", table->target_name), true, 1) != SPI_OK_SELECT)
		elog(ERROR, "looking into %s failed", table->target_name);
	n = SPI_processed;
	SPI_finish();
	return n == 0;
}

/*
 * The fence of a sync is there from its start, but who had locked the table
 * before may still commit: rows that would be in it for ever.  In a transaction.
 */
static void
wait_for_writers(const BcmigTableInfo *table)
{
	List	   *relations = find_all_inheritors(bcmig_target_relid(table), NoLock, NULL);
	List	   *writers = bcmig_wait_for_writers(relations, TimestampTzPlusMilliseconds(bcmig_steady_time(), WRITERS_WAIT));

	if (writers != NIL)
		ereport(ERROR,
				(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
				 errmsg("table %s is still written to by %s", table->target_name, bcmig_writers_text(writers)),
				 errdetail("They began before the sync was started; the copy begins when they have ended.")));
}

/*
 * Take the position and say what kind of copy it will be.  Returns false when
 * there is nothing to copy.
 */
static bool
begin_copy(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	BcmigStored stored;
	BcmigReading reading;
	BcmigCatalogScope scope;
	Oid			env_feed;
	List	   *sizes;
	int64		rows = 0;
	bool		load;
	bool		copy;
	BcmigTableState next;

	/* begun already: workers that join do not wait for chunks under way */
	bcmig_start_transaction();
	copy = bcmig_state_load(table->table_id, &stored) && stored.copy_mode != NULL;
	bcmig_end_transaction();
	if (copy)
		return true;

	bcmig_applier_lock(work, ExclusiveLock);
	bcmig_hear_blue(work);
	bcmig_reading(table->table_id, &reading);
	bcmig_start_transaction();
	if (reading.poll == 0 || !bcmig_state_load(table->table_id, &stored) ||
		(stored.state != BCMIG_PENDING && stored.state != BCMIG_COPYING && stored.state != BCMIG_RESYNC) ||
		stored.copy_mode != NULL)
	{
		/* somebody else has begun it, or it may not begin */
		copy = stored.copy_mode != NULL;
		bcmig_end_transaction();
		bcmig_applier_unlock(work, ExclusiveLock);
		return copy;
	}
	bcmig_slot_phase("begin copy", table->target_name, 0);
	env_feed = bcmig_text_feed(table->environment_id);
	sizes = bcmig_remote_texts(env_feed, work->dialect->table_size(table));
	if (sizes != NIL && ((char **) linitial(sizes))[0] != NULL)
		rows = Max(bcmig_answer_int64(linitial(sizes), 0), 0);
	bcmig_end_transaction();
	bcmig_start_transaction();
	wait_for_writers(table);
	bcmig_end_transaction();
	bcmig_debug_point("copy_position_taken");

	/* a resync may find a half loaded table: it needs the key now */
	copy = stored.state == BCMIG_RESYNC || table->copy_data;
	if (stored.state == BCMIG_RESYNC)
		bcmig_build_key(work);

	bcmig_start_transaction();
	load = stored.state != BCMIG_RESYNC && copy && target_is_empty(table);
	if (load)
		bcmig_drop_key(work);

	/* rows without a key cannot be written over others: the compare does it all */
	if (!load && table->nkeys == 0)
		copy = false;
	next = !copy ? BCMIG_CATCHING_UP :
		stored.state == BCMIG_RESYNC ? BCMIG_RESYNC : BCMIG_COPYING;
	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.copy_chunk WHERE table_id = $1", "i", table->table_id);
	if (copy && table->nkeys == 0)
		bcmig_sql("INSERT INTO bcmig.copy_chunk (table_id, chunk) VALUES ($1, 1)", "i", table->table_id);
	bcmig_sql("UPDATE bcmig.table_state SET state = $2, since = clock_timestamp(), position = $3, seen = $4, "
			  " incarnation = $8, reread_from = NULL, begin_version = NULL, witness = NULL, copy_mode = $5, frontier = NULL, all_chunks = $6, "
			  " rows_total = $7, rows_copied = 0, bytes_copied = 0, copy_started = clock_timestamp(), copy_finished = NULL, "
			  " swept_at = NULL, swept_position = NULL "
			  "WHERE table_id = $1",
			  "itIttbII", table->table_id, bcmig_state_name(next), reading.horizon, reading.seen,
			  copy ? (load ? "load" : "upsert") : NULL, table->nkeys == 0, rows, reading.incarnation);
	bcmig_audit("state", table->sync_name, table->target_name, bcmig_state_name(next),
				copy ? (load ? "load" : "upsert") : "without copy");
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	bcmig_publish_state(table->table_id, next);
	bcmig_applier_unlock(work, ExclusiveLock);
	return copy;
}

/*
 * The bound blue names, which is not the one before: a blue that names it again
 * would never come to an end.
 */
static Datum
bound_of_answer(const BcmigTableInfo *table, Datum frontier, const char *text)
{
	Datum		upper = OidFunctionCall3(F_ARRAY_IN, CStringGetDatum(text), ObjectIdGetDatum(TEXTOID), Int32GetDatum(-1));

	/* as many values as the key has columns, and each is there */
	(void) bcmig_bound_values(table, upper);
	if (frontier != (Datum) 0 && datumIsEqual(upper, frontier, false, -1))
		bcmig_bad_answer(psprintf("The chunk of %s after %s ends there too.", table->target_name, text));
	return upper;
}

/*
 * The bound of a chunk of *rows rows from "frontier" on; fewer where unbounded
 * columns make them more than CHUNK_BYTES.  NULL: there are no rows.
 */
static char **
ask_bound(BcmigWork *work, Oid env_feed, Datum frontier, int64 *rows, int64 *widest)
{
	for (;;)
	{
		List	   *answer = bcmig_remote_texts(env_feed, work->dialect->chunk_bound(work->table, frontier, *rows));
		char	  **row = answer != NIL ? linitial(answer) : NULL;
		int64		n;
		int64		bytes;

		CHECK_FOR_INTERRUPTS();
		if (row == NULL || row[5] == NULL || row[6] == NULL || row[7] == NULL)
			return row;
		n = Min(bcmig_answer_int64(row, 5), *rows);
		bytes = bcmig_answer_int64(row, 6);
		*widest = Max(bcmig_answer_int64(row, 7), 0);
		if (n <= 1 || bytes <= CHUNK_BYTES || work->table->chunk_rows > 0)
			return row;
		*rows = Max(1, Min(n - 1, (int64) (n * ((double) CHUNK_BYTES / bytes))));
	}
}

/*
 * Cut the next chunks off the frontier.  Serialised by the row lock on
 * bcmig.table_state, which is held over the (short, index-only) questions for
 * bounds.  Sizes follow what the last chunks took, and shrink towards the end
 * of the table, so that its workers are done at the same time (guided
 * self-scheduling: Polychronopoulos and Kuck, 1987).
 */
static void
cut_chunks(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	BcmigCatalogScope scope;
	Oid			env_feed = bcmig_text_feed(table->environment_id);
	Datum		frontier;
	bool		isnull;
	int64		rows;
	int64		total;
	bool		all;
	int			number;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT frontier, all_chunks, rows_total FROM bcmig.table_state WHERE table_id = $1 FOR UPDATE",
				  "i", table->table_id) == 0)
	{
		/* the table was taken out meanwhile */
		bcmig_catalog_end(&scope);
		return;
	}
	frontier = bcmig_get_datum(0, 1, &isnull);
	frontier = isnull ? (Datum) 0 : frontier;
	all = bcmig_get_bool(0, 2);
	total = bcmig_get_int64(0, 3, 0);
	if (all || bcmig_sql("SELECT 1 FROM bcmig.copy_chunk WHERE table_id = $1 AND NOT done HAVING count(*) >= $2",
						 "ii", table->table_id, CUT_AHEAD) > 0)
	{
		bcmig_catalog_end(&scope);
		return;
	}
	bcmig_sql("SELECT count(*), coalesce(max(chunk), 0), "
			  " (SELECT (least(rows / greatest(seconds, 0.01) * $2 / 1000, rows::float8 * $3 / greatest(bytes, 1)))::int8 "
			  "  FROM bcmig.copy_chunk WHERE table_id = $1 AND done AND rows > 0 ORDER BY finished_at DESC LIMIT 1), "
			  " coalesce(sum(rows), 0)::int8, count(*) FILTER (WHERE NOT done) "
			  "FROM bcmig.copy_chunk WHERE table_id = $1",
			  "iII", table->table_id, bcmig_gentle_ms(work, table->chunk_target), (int64) CHUNK_BYTES);
	number = bcmig_get_int64(0, 2, 0);
	rows = table->chunk_rows > 0 ? table->chunk_rows :
		Min(Max(bcmig_get_int64(0, 3, FIRST_CHUNK_ROWS), LEAST_CHUNK_ROWS), MOST_CHUNK_ROWS);
	if (table->chunk_rows == 0 && total > 0 && table->parallel != 1)
	{
		int64		left = total - bcmig_get_int64(0, 4, 0) - bcmig_get_int64(0, 5, 0) * rows;

		rows = Min(rows, Max(left / (2 * CUT_AHEAD), Min(FIRST_CHUNK_ROWS, rows)));
	}

	for (int i = 0; i < CUT_AHEAD && !all; i++)
	{
		Datum		upper = (Datum) 0;
		int64		widest = 0;
		char	  **row;

		CHECK_FOR_INTERRUPTS();
		bcmig_restore_user(&scope);
		row = ask_bound(work, env_feed, frontier, &rows, &widest);
		bcmig_become_catalog_owner(&scope);
		if (row != NULL && row[0] != NULL && strcmp(row[0], "1") == 0)
			upper = bound_of_answer(table, frontier, bcmig_answer_text(row, 1));
		else
			all = true;
		bcmig_sql("INSERT INTO bcmig.copy_chunk (table_id, chunk, lower_key, upper_key, max_row_bytes) VALUES ($1, $2, $3, $4, nullif($5, 0))",
				  "iikkI", table->table_id, ++number, frontier, upper, widest);
		if (!all)
			frontier = upper;
	}
	bcmig_sql("UPDATE bcmig.table_state SET frontier = $2, all_chunks = $3 WHERE table_id = $1",
			  "ikb", table->table_id, frontier, all);
	bcmig_catalog_end(&scope);
}

/*
 * Claim a chunk: its row stays locked until the transaction ends.
 */
static void
claim_chunk(BcmigWork *work, MemoryContext context, Chunk *chunk)
{
	BcmigCatalogScope scope;
	MemoryContext oldcontext;
	bool		isnull;
	Datum		value;

	memset(chunk, 0, sizeof(*chunk));
	bcmig_catalog_begin(&scope);
	chunk->found = bcmig_sql("SELECT chunk, lower_key, upper_key, max_row_bytes FROM bcmig.copy_chunk "
							 "WHERE table_id = $1 AND NOT done ORDER BY chunk LIMIT 1 FOR UPDATE SKIP LOCKED",
							 "i", work->table->table_id) > 0;
	if (chunk->found)
	{
		oldcontext = MemoryContextSwitchTo(context);
		chunk->number = bcmig_get_int64(0, 1, 0);
		value = bcmig_get_datum(0, 2, &isnull);
		chunk->lower = isnull ? (Datum) 0 : datumCopy(value, false, -1);
		value = bcmig_get_datum(0, 3, &isnull);
		chunk->upper = isnull ? (Datum) 0 : datumCopy(value, false, -1);
		chunk->max_row_bytes = bcmig_get_int64(0, 4, 0);
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
}

/*
 * The checkpoint of a chunk, in the transaction of its last rows.
 */
static void
finish_chunk(BcmigWork *work, const Chunk *chunk, TimestampTz started, int64 rows,
			 int64 bytes, const BcmigSigns *signs, const BcmigApplied *applied)
{
	BcmigTableInfo *table = work->table;
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.copy_chunk SET done = true, rows = $3, bytes = $4, finished_at = clock_timestamp(), "
			  " seconds = extract(epoch FROM clock_timestamp() - $5) WHERE table_id = $1 AND chunk = $2",
			  "iiIIz", table->table_id, chunk->number, rows, bytes, started);
	if (signs->has_begin)
	{
		char	   *begin = psprintf(INT64_FORMAT, signs->begin);

		if (bcmig_sql("SELECT 1 FROM bcmig.table_state WHERE table_id = $1 AND begin_version <> $2",
					  "it", table->table_id, begin) > 0)
			bcmig_state_resync(0, InvalidOid, table->table_id,
							   "the source table was truncated during the copy");
		else
			bcmig_sql("UPDATE bcmig.table_state SET begin_version = $2 WHERE table_id = $1 AND begin_version IS NULL",
					  "it", table->table_id, begin);
	}
	bcmig_catalog_end(&scope);
	bcmig_state_witness(table->table_id, signs->incarnation, signs->ntraces, signs->traces);
	bcmig_log_batch(work, "copy", started, "Completed", rows, applied, NULL, NULL, NULL);
}

static void
count_copied(BcmigWork *work, int64 rows)
{
	BcmigTable *live;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(work->table->table_id);
	if (live != NULL)
	{
		live->rows_copied += rows;
		live->failures = 0;
		live->not_before = 0;
	}
	bcmig_slot->rows_processed += rows;
	LWLockRelease(bcmig_shared->lock);
}

/* still the copy this job was started for?  In a transaction. */
static bool
still_copying(BcmigWork *work, const char *mode)
{
	BcmigStored stored;

	return bcmig_state_load(work->table->table_id, &stored) &&
		(stored.state == BCMIG_COPYING || stored.state == BCMIG_RESYNC) &&
		stored.copy_mode != NULL && strcmp(stored.copy_mode, mode) == 0;
}

/*
 * One chunk straight into the heap.  Returns false when a row was refused; the
 * transaction is gone then and the chunk as it was.
 */
static bool
load_chunk(BcmigWork *work, const Chunk *chunk, const BcmigReading *reading)
{
	BcmigTableInfo *table = work->table;
	MemoryContext caller = CurrentMemoryContext;
	volatile bool loaded = false;

	PG_TRY();
	{
		TimestampTz started = GetCurrentTimestamp();
		Relation	rel = table_openrv(makeRangeVar(table->target_schema, table->target_table, -1),
									   RowExclusiveLock);
		BcmigLoader *loader = bcmig_loader_begin(table, rel);
		BcmigReceiver *receiver = bcmig_loader_receiver(loader);
		BcmigApplied applied = {0};
		BcmigSigns	signs;
		int64		rows;
		int64		bytes;

		bcmig_debug_point("copy_chunk_before_read");
		bcmig_read(work, work->dialect->chunk(table, chunk->lower, chunk->upper),
				   chunk->max_row_bytes, receiver);
		signs = receiver->signs;
		bcmig_loader_end(loader, &rows, &bytes);
		table_close(rel, NoLock);
		bcmig_check_same_blue(reading, &signs);
		applied.written = rows;
		finish_chunk(work, chunk, started, rows, bytes, &signs, &applied);
		bcmig_debug_point("copy_chunk_loaded");
		bcmig_end_transaction();
		count_copied(work, rows);
		bcmig_count_rows(work, &applied, bytes);
		loaded = true;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		if (!bcmig_is_row_error(edata) || bcmig_remote_failed(edata))
			PG_RE_THROW();
		FlushErrorState();
		AbortCurrentTransaction();
		bcmig_remote_running = false;
		MemoryContextSwitchTo(caller);
	}
	PG_END_TRY();
	return loaded;
}

/*
 * One chunk through the spool, rows that green refuses to quarantine.  Not in
 * a transaction; the caller holds the applier lock exclusively, so the chunk
 * needs no claim.  Rows commit before the checkpoint, so after a crash they are
 * there when the chunk is repeated: where the target has a key to say so, they
 * are looked for (elsewhere.c always does); else what stands twice is mended
 * before the key is built, or found by the compare.
 */
static void
spool_chunk(BcmigWork *work, const Chunk *chunk, const BcmigReading *reading, bool load)
{
	BcmigTableInfo *table = work->table;
	TimestampTz started = bcmig_forward_time();
	BcmigApplied applied = {0};
	BcmigSpool *spool;
	char	   *reason;
	int			passes;

	bcmig_start_transaction();
	passes = !load ? BCMIG_PASSES :
		OidIsValid(bcmig_key_index(table, bcmig_target_relid(table))) ? BCMIG_PASS_DELETE | BCMIG_PASS_UPSERT : BCMIG_PASSES_PLAIN;
	spool = bcmig_spool_create();
	bcmig_debug_point("copy_chunk_before_read");
	bcmig_read(work, work->dialect->chunk(table, chunk->lower, chunk->upper),
			   chunk->max_row_bytes, &spool->receiver);
	bcmig_end_transaction();
	bcmig_check_same_blue(reading, &spool->receiver.signs);

	bcmig_apply_batches(table, spool, passes, bcmig_most_refused(table), &applied);
	bcmig_start_transaction();
	if (!applied.stopped)
	{
		finish_chunk(work, chunk, started, spool->upserts, 0, &spool->receiver.signs, &applied);
		bcmig_quarantine_settle(table, spool, started);
	}
	reason = bcmig_ladder(table, started, &applied);
	if (applied.stopped)		/* the chunk stays open */
		bcmig_log_batch(work, "copy", started, "Failed", spool->upserts, &applied, NULL, NULL, reason);
	if (reason != NULL)
		bcmig_state_suspend(table, reason);
	bcmig_debug_point("copy_chunk_loaded");
	bcmig_end_transaction();
	if (reason != NULL)
		bcmig_publish_state(table->table_id, BCMIG_SUSPENDED);
	if (!applied.stopped)
		count_copied(work, spool->upserts);
	bcmig_count_rows(work, &applied, 0);
	bcmig_spool_end(spool);
}

/*
 * With the lock: nobody else works on the chunk, and it is not done.  By its
 * bounds: before the lock was there the table may have been put into resync once
 * more, and be cut otherwise.
 */
static bool
chunk_is_open(BcmigWork *work, const Chunk *chunk, const char *mode)
{
	BcmigCatalogScope scope;
	bool		open;

	bcmig_start_transaction();
	open = still_copying(work, mode);
	if (open)
	{
		bcmig_catalog_begin(&scope);
		open = bcmig_sql("SELECT 1 FROM bcmig.copy_chunk WHERE table_id = $1 AND chunk = $2 AND NOT done "
						 "AND lower_key IS NOT DISTINCT FROM $3 AND upper_key IS NOT DISTINCT FROM $4",
						 "iikk", work->table->table_id, chunk->number, chunk->lower, chunk->upper) > 0;
		bcmig_catalog_end(&scope);
	}
	bcmig_end_transaction();
	return open;
}

static ChunkResult
copy_next_chunk(BcmigWork *work, MemoryContext context)
{
	BcmigTableInfo *table = work->table;
	BcmigStored stored;
	BcmigReading reading;
	BcmigCatalogScope scope;
	Chunk		chunk;
	Relation	rel;
	bool		load;
	bool		fast;

	bcmig_reading(table->table_id, &reading);
	bcmig_start_transaction();
	if (!bcmig_state_load(table->table_id, &stored) || stored.copy_mode == NULL ||
		(stored.state != BCMIG_COPYING && stored.state != BCMIG_RESYNC))
	{
		bcmig_end_transaction();
		return CHUNK_STATE_CHANGED;
	}

	/*
	 * Lock first, claim after: who takes the table out goes in that order too.
	 */
	load = strcmp(stored.copy_mode, "load") == 0;
	if (load)
		bcmig_applier_lock(work, ShareLock);
	claim_chunk(work, context, &chunk);
	if (!chunk.found)
	{
		ChunkResult result = CHUNK_DONE;	/* look again */

		if (!stored.all_chunks)
			cut_chunks(work);
		else
		{
			bcmig_catalog_begin(&scope);
			result = bcmig_sql("SELECT 1 FROM bcmig.copy_chunk WHERE table_id = $1 AND NOT done LIMIT 1",
							   "i", table->table_id) > 0 ? CHUNK_NONE_FREE : CHUNK_ALL_DONE;
			bcmig_catalog_end(&scope);
		}
		bcmig_end_transaction();
		if (load)
			bcmig_applier_unlock(work, ShareLock);
		return result;
	}

	rel = table_openrv(makeRangeVar(table->target_schema, table->target_table, -1), RowExclusiveLock);
	fast = load && bcmig_load_possible(table, rel, work->feed);
	table_close(rel, NoLock);
	bcmig_slot_phase(load ? "copy" : "resync", table->target_name, stored.rows_total);

	if (fast && still_copying(work, "load"))
	{
		bool		loaded = load_chunk(work, &chunk, &reading);

		bcmig_applier_unlock(work, ShareLock);
		if (loaded)
			return CHUNK_DONE;
		/* its transaction and with it the claim are gone; go the careful way */
	}
	else
	{
		bcmig_end_transaction();
		if (load)
			bcmig_applier_unlock(work, ShareLock);
	}

	bcmig_applier_lock(work, ExclusiveLock);
	if (chunk_is_open(work, &chunk, load ? "load" : "upsert"))
		spool_chunk(work, &chunk, &reading, load);
	bcmig_applier_unlock(work, ExclusiveLock);
	return CHUNK_DONE;
}

/*
 * The last chunk is done: key, and over to the windows.  Statistics are made
 * once no table waits for its copy any more; a crash before leaves them due.
 */
static void
finish_copy(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	BcmigStored stored;
	BcmigCatalogScope scope;
	bool		snapshot = strcmp(table->capture, "snapshot") == 0;
	bool		mine;
	bool		changed;
	TimestampTz built;
	BcmigTable *live;

	bcmig_applier_lock(work, ExclusiveLock);
	bcmig_start_transaction();
	mine = bcmig_state_load(table->table_id, &stored) && stored.all_chunks && stored.copy_mode != NULL &&
		(stored.state == BCMIG_COPYING || stored.state == BCMIG_RESYNC);
	bcmig_end_transaction();
	if (!mine)
	{
		bcmig_applier_unlock(work, ExclusiveLock);
		return;
	}

	bcmig_build_key(work);
	built = GetCurrentTimestamp();

	/* rows of green that blue does not have */
	if (strcmp(stored.copy_mode, "upsert") == 0 && !snapshot && !bcmig_run_sweep(work))
	{
		bcmig_applier_unlock(work, ExclusiveLock);
		return;
	}

	/*
	 * Suspended meanwhile, or put into resync once more: a sweep that had asked
	 * blue before proves nothing then.  No copy can have begun, for the lock.
	 */
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	changed = bcmig_sql("UPDATE bcmig.table_state s SET state = 'catching_up', since = clock_timestamp(), copy_finished = $3, analyze_due = true, "
						" rows_copied = c.rows, bytes_copied = c.bytes, rows_total = c.rows "
						"FROM (SELECT coalesce(sum(rows), 0)::int8 AS rows, coalesce(sum(bytes), 0)::int8 AS bytes FROM bcmig.copy_chunk WHERE table_id = $1) c "
						"WHERE table_id = $1 AND state = $2 AND copy_mode IS NOT NULL",
						"itz", table->table_id, bcmig_state_name(stored.state), built) > 0;
	if (changed)
		bcmig_audit("state", table->sync_name, table->target_name, "catching_up", NULL);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	if (!changed)
	{
		bcmig_applier_unlock(work, ExclusiveLock);
		return;
	}
	bcmig_publish_state(table->table_id, BCMIG_CATCHING_UP);
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(table->table_id);
	if (live != NULL)
		live->analyze_due = true;
	LWLockRelease(bcmig_shared->lock);
	if (snapshot)
		(void) bcmig_run_sweep(work);
	bcmig_applier_unlock(work, ExclusiveLock);
}

/*
 * Windows go on meanwhile: ANALYZE's lock is none of theirs.
 */
void
bcmig_run_analyze(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	bcmig_slot_phase("analyze", table->target_name, 0);
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute(psprintf("ANALYZE %s", table->target_name), false, 0) < 0)
		elog(ERROR, "ANALYZE failed");
	SPI_finish();
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.table_state SET analyze_due = false WHERE table_id = $1", "i", table->table_id);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

/*
 * Copy chunks until none is left, the sync stops, blue answers slowly, or the turn
 * is over: then the manager decides anew who needs this worker most.
 */
void
bcmig_run_copy(BcmigWork *work)
{
	MemoryContext chunk_context = AllocSetContextCreate(CurrentMemoryContext, "bcmig chunk",
														ALLOCSET_DEFAULT_SIZES);
	ChunkResult result = CHUNK_DONE;
	TimestampTz until = TimestampTzPlusMilliseconds(bcmig_steady_time(), COPY_TURN);

	if (!begin_copy(work))
		return;
	while (result == CHUNK_DONE && !bcmig_stopping(work) && !bcmig_held_back(work) && bcmig_steady_time() < until)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(chunk_context);

		CHECK_FOR_INTERRUPTS();
		result = copy_next_chunk(work, chunk_context);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(chunk_context);
	}
	if (result == CHUNK_ALL_DONE)
		finish_copy(work);
	else if (result == CHUNK_NONE_FREE)
	{
		BcmigTable *live;

		/* the manager sends nobody else until those at work are done */
		LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
		live = bcmig_live_table(work->table->table_id);
		if (live != NULL)
			live->drained = true;
		LWLockRelease(bcmig_shared->lock);
	}
}
