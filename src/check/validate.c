/*-------------------------------------------------------------------------
 *
 * validate.c
 *	  Comparing one table with blue: a worker's job.
 *
 * Groups of chunks are added up on both sides; where the sums differ the rows
 * are, and what differs there is settled (settle.c).  Each group commits with
 * its numbers, the next chunk and the marks it has answered, so a crash, a
 * stopped sync or a blue that went away repeats one group.
 *
 * A big table is compared in parts, by several workers: while one waits for
 * blue's sums another makes green's.  Which parts there are is in the catalogue
 * (bcmig.validation_part), who is at which only in shared memory, so whatever
 * happens to a worker, its part is free again.
 *
 * The table goes on streaming meanwhile: no lock is held, no statement on blue
 * takes long (groups adapt to GROUP_MS; buckets need a pass over the table),
 * and the job gives its worker back after a turn.  It pauses while blue answers
 * slowly or green has many sessions at work.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "slot.h"
#include "throttle.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define TURN			5000	/* ms */
#define GROUP_MS		1500	/* wanted of a group of chunks */
#define FIRST_GROUP		16		/* chunks */
#define MOST_GROUP		1000
#define PAUSE			1000	/* ms, when throttled */
#define MOST_DIFFERENCES 10000	/* listed of a table */
#define AUTO_PARTS		2		/* of a table, where option parallel says nothing */
#define MOST_PARTS		16
#define PART_CHUNKS		16		/* at least, in a part */
#define SUM_AGAIN		3		/* times chunks are added up again whose rows were only on their way */

/* the unfinished result of a table, and one part of it */
typedef struct Pending
{
	int64		run_id;
	char	   *mode;			/* of the run */
	bool		begun;
	bool		pushdown;
	char	   *done_as;		/* mode of this table */
	int			part;
	int64		next;
	int64		last;
	int			ntodo;			/* -1 = all */
	int64	   *todo;			/* ascending */
} Pending;

static int	group_chunks = FIRST_GROUP;

/* the oldest result of the table that is not done; in a transaction */
static bool
load_result(int table_id, Pending *r)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	bool		found;

	memset(r, 0, sizeof(*r));
	bcmig_catalog_begin(&scope);
	found = bcmig_sql("SELECT v.run_id, r.mode, v.started_at IS NOT NULL, coalesce(v.pushdown, false), v.mode "
					  "FROM bcmig.validation_result v JOIN bcmig.validation_run r USING (run_id) "
					  "WHERE v.table_id = $1 AND NOT v.done AND r.state = 'running' ORDER BY v.run_id LIMIT 1", "i", table_id) > 0;
	if (found)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(caller);

		r->run_id = bcmig_get_int64(0, 1, 0);
		r->mode = bcmig_get_text(0, 2);
		r->begun = bcmig_get_bool(0, 3);
		r->pushdown = bcmig_get_bool(0, 4);
		r->done_as = bcmig_get_text(0, 5);
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	return found;
}

/* how many parts of the table are left to compare; 0 = none, or not known */
static void
publish_parts(int table_id, int parts)
{
	BcmigTable *live;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(table_id);
	if (live != NULL)
		live->check_parts = parts;
	LWLockRelease(bcmig_shared->lock);
}

/* this worker's from now to the end of its job, unless it is another's */
static bool
claim_part(int table_id, int part)
{
	uint32		bit = (uint32) 1 << part;
	BcmigTable *live;
	bool		mine;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(table_id);
	mine = live != NULL && (live->checked & bit) == 0;
	if (mine)
	{
		live->checked |= bit;
		bcmig_slot->job.part = bit;
	}
	LWLockRelease(bcmig_shared->lock);
	return mine;
}

/*
 * A part nobody is at; false = there is none.  In a transaction.
 */
static bool
take_part(int table_id, Pending *r)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	bool		found = false;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT part, next_chunk, last_chunk, todo FROM bcmig.validation_part WHERE run_id = $1 AND table_id = $2 AND NOT done ORDER BY part",
			  "Ii", r->run_id, table_id);
	publish_parts(table_id, SPI_processed);
	for (uint64 i = 0; i < SPI_processed && !found; i++)
	{
		MemoryContext oldcontext;
		bool		isnull;
		Datum		todo;

		r->part = bcmig_get_int64(i, 1, 0);
		if (!claim_part(table_id, r->part))
			continue;
		found = true;
		oldcontext = MemoryContextSwitchTo(caller);
		r->next = bcmig_get_int64(i, 2, 0);
		r->last = bcmig_get_int64(i, 3, -1);
		r->ntodo = -1;
		todo = bcmig_get_datum(i, 4, &isnull);
		if (!isnull)
		{
			Datum	   *values;
			bool	   *nulls;

			deconstruct_array(DatumGetArrayTypeP(todo), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
							  &values, &nulls, &r->ntodo);
			r->todo = palloc(sizeof(int64) * Max(r->ntodo, 1));
			for (int k = 0; k < r->ntodo; k++)
				r->todo[k] = DatumGetInt64(values[k]);
		}
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	return found;
}

/*
 * The verdict of a table; detail NULL: what was found says it.  In a
 * transaction.
 */
static void
finish(const BcmigTableInfo *table, const Pending *r, const char *detail, bool proved)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	/* sums that differ where no row does cannot be: if they do, nothing is proved */
	bcmig_sql("UPDATE bcmig.validation_result SET done = true, "
			  " detail = coalesce($3, CASE WHEN differences = 0 AND lanes_blue <> lanes_green THEN 'no row differs, but the sums do' END, detail), "
			  " verdict = CASE WHEN differences > 0 THEN 'different' WHEN $3 IS NULL AND lanes_blue IS NOT DISTINCT FROM lanes_green THEN 'ok' ELSE 'inconclusive' END, "
			  " started_at = coalesce(started_at, clock_timestamp()), finished_at = clock_timestamp() "
			  "WHERE run_id = $1 AND table_id = $2 AND NOT done", "Iit", r->run_id, table->table_id, detail);
	if (proved)
		bcmig_sql("UPDATE bcmig.chunking SET proved_at = clock_timestamp() WHERE table_id = $1", "i", table->table_id);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	publish_parts(table->table_id, 0);
}

/*
 * A part has been compared: with the last one the table is.  In a transaction.
 */
static void
finish_part(const BcmigTableInfo *table, const Pending *r, bool proved)
{
	BcmigCatalogScope scope;
	int64		left;

	bcmig_catalog_begin(&scope);
	/* the row of the table keeps two parts that end at the same time apart */
	bcmig_sql("SELECT 1 FROM bcmig.validation_result WHERE run_id = $1 AND table_id = $2 FOR UPDATE", "Ii", r->run_id, table->table_id);
	bcmig_sql("UPDATE bcmig.validation_part SET done = true WHERE run_id = $1 AND table_id = $2 AND part = $3",
			  "Iii", r->run_id, table->table_id, r->part);
	bcmig_sql("SELECT count(*) FROM bcmig.validation_part WHERE run_id = $1 AND table_id = $2 AND NOT done", "Ii", r->run_id, table->table_id);
	left = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	if (left == 0)
		finish(table, r, NULL, proved);
	else
		publish_parts(table->table_id, left);
}

/*
 * What is to be compared: all chunks, or those marked, in parts of about as
 * many.  In a transaction.
 */
static void
begin_table(BcmigProof *proof, Pending *r)
{
	const BcmigTableInfo *table = proof->table;
	bool		count = strcmp(r->mode, "count") == 0;
	BcmigCatalogScope scope;
	BcmigChunking chunking;
	bool		proved = false;
	bool		marked;
	char	   *why = NULL;
	int64		first;
	int64		last;
	int64		rows;
	int			parts = 1;

	proof->count_only = count;
	r->pushdown = bcmig_may_push_down(proof, &why);
	r->done_as = count ? "count" : "full";
	if (strcmp(r->mode, "incremental") == 0 && strcmp(table->capture, "snapshot") != 0 &&
		bcmig_load_chunking(table, &chunking, &proved) && proved)
		r->done_as = "incremental";
	marked = strcmp(r->done_as, "incremental") == 0;
	bcmig_plan_chunks(proof, strcmp(r->done_as, "full") == 0, &first, &last, &rows);

	/* buckets are told by reading the whole table, which more workers would do more often */
	if (!proof->chunking.buckets && !marked)
		parts = Max(1, (int) Min(table->parallel > 0 ? Min(table->parallel, MOST_PARTS) : AUTO_PARTS, (last - first + 1) / PART_CHUNKS));
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.validation_result SET mode = $3, pushdown = $4, detail = $5, started_at = clock_timestamp(), "
			  " lanes_blue = CASE WHEN $3 = 'full' THEN '{0,0,0,0}'::numeric[] END, lanes_green = CASE WHEN $3 = 'full' THEN '{0,0,0,0}'::numeric[] END "
			  "WHERE run_id = $1 AND table_id = $2",
			  "Iitbt", r->run_id, table->table_id, r->done_as, (int) r->pushdown, why);
	for (int part = 0; part < parts; part++)
	{
		int64		size = (last - first + 1) / parts;
		int64		from = first + part * size;

		bcmig_sql("INSERT INTO bcmig.validation_part (run_id, table_id, part, first_chunk, next_chunk, last_chunk, todo) "
				  "SELECT $1, $2, $3, $4, $4, $5, CASE WHEN $6 THEN coalesce((SELECT array_agg(DISTINCT d.chunk ORDER BY d.chunk) "
				  "  FROM bcmig.dirty_chunk d WHERE d.table_id = $2 AND d.generation = $7), '{}') END",
				  "IiiIIbi", r->run_id, table->table_id, part, from, part == parts - 1 ? last : from + size - 1, (int) marked,
				  proof->chunking.generation);
	}
	bcmig_catalog_end(&scope);
}

/* chunks of the next group, as few intervals as may be; *after is the chunk to go on with */
static List *
next_group(const Pending *r, int most, int64 *after)
{
	List	   *chunks = NIL;

	if (r->ntodo < 0)
	{
		BcmigChunks *c = palloc(sizeof(BcmigChunks));

		c->first = r->next;
		c->last = Min(r->last, r->next + most - 1);
		*after = c->last + 1;
		return list_make1(c);
	}
	*after = r->last + 1;
	for (int i = 0; i < r->ntodo; i++)
	{
		BcmigChunks *c = chunks ? llast(chunks) : NULL;

		if (r->todo[i] < r->next)
			continue;
		if (most-- == 0)
		{
			*after = r->todo[i];
			break;
		}
		if (c != NULL && c->last + 1 == r->todo[i])
			c->last++;
		else
		{
			c = palloc(sizeof(BcmigChunks));
			c->first = c->last = r->todo[i];
			chunks = lappend(chunks, c);
		}
		*after = r->todo[i] + 1;
	}
	return chunks;
}

/* first and last chunks of intervals as two int8[] */
static Datum
bounds_of(List *chunks, bool last)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(list_length(chunks), 1));
	ListCell   *lc;
	int			n = 0;

	foreach(lc, chunks)
		values[n++] = Int64GetDatum(last ? ((BcmigChunks *) lfirst(lc))->last : ((BcmigChunks *) lfirst(lc))->first);
	return PointerGetDatum(construct_array(values, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/* must the job wait?  Why, or NULL. */
static const char *
throttled(const BcmigProof *proof)
{
	BcmigCatalogScope scope;
	BcmigTable *live;
	int64		answer;
	int64		sessions;
	const char *why = NULL;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT coalesce((s.options->>'validate_answer')::int8, 1000), coalesce(nullif(s.options->>'validate_sessions', 'auto')::int8, 0), "
			  " CASE WHEN s.options ? 'validate_sessions' THEN (SELECT count(*) FROM pg_stat_get_activity(NULL) a WHERE a.state = 'active' AND a.client_port IS NOT NULL) ELSE 0 END "
			  "FROM bcmig.sync s WHERE s.sync_id = $1", "i", proof->table->sync_id);
	answer = bcmig_get_int64(0, 1, 1000);
	sessions = bcmig_get_int64(0, 2, 0);
	if (sessions > 0 && bcmig_get_int64(0, 3, 0) > sessions)
		why = "paused: many sessions are active on green";
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();

	if (bcmig_held_back(proof->work))
		why = "throttled";
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(proof->table->table_id);
	if (why == NULL && live != NULL && live->blue >= 0 && bcmig_answer_us(&bcmig_shared->blues[live->blue]) > answer * 1000)
		why = "paused: blue answers slowly";
	if (live != NULL && why != NULL)
		live->check_not_before = TimestampTzPlusMilliseconds(bcmig_steady_time(), PAUSE);
	LWLockRelease(bcmig_shared->lock);
	return why;
}

static void
add_sums(BcmigSums *to, const BcmigSums *sums)
{
	to->rows += sums->rows;
	for (int lane = 0; lane < lengthof(to->lanes); lane++)
		to->lanes[lane] += sums->lanes[lane];
}

/* the sums of both sides */
typedef struct Pair
{
	BcmigSums	blue;
	BcmigSums	green;
} Pair;

/* the chunks of a group whose sums are not the same; those of the others are added to "same" */
static List *
differing_chunks(HTAB *pairs, Pair *same, Pair *others, int64 *n)
{
	HASH_SEQ_STATUS seq;
	BcmigChunkPair *pair;
	List	   *differing = NIL;

	hash_seq_init(&seq, pairs);
	while ((pair = hash_seq_search(&seq)) != NULL)
	{
		bool		differs = memcmp(&pair->blue, &pair->green, sizeof(BcmigSums)) != 0;

		(*n)++;
		add_sums(differs ? &others->blue : &same->blue, &pair->blue);
		add_sums(differs ? &others->green : &same->green, &pair->green);
		if (differs)
		{
			BcmigChunks *c = palloc(sizeof(BcmigChunks));

			c->first = c->last = pair->chunk;
			differing = lappend(differing, c);
		}
	}
	return differing;
}

/*
 * Chunks all of whose rows turned out to be equal once they had arrived: their
 * sums at a moment at which both sides have the same.  false: there was none, as
 * they are written to all the time.  Where that takes another pass over the table
 * it is tried once.  In no transaction.
 */
static bool
sum_again(BcmigProof *proof, List *chunks, Pair *sums)
{
	int			times = proof->pushdown && !proof->chunking.buckets ? SUM_AGAIN : 1;

	for (int i = 0; i < times && !bcmig_stopping(proof->work); i++)
	{
		Pair		same = {0};
		Pair		others = {0};
		int64		n = 0;
		List	   *differing;

		bcmig_start_transaction();
		differing = differing_chunks(bcmig_compare_chunks(proof, chunks), &same, &others, &n);
		bcmig_end_transaction();
		if (differing == NIL)
		{
			*sums = same;
			return true;
		}
	}
	return false;
}

static Datum
lanes_of(const BcmigSums *a, const BcmigSums *b)
{
	Datum		values[lengthof(a->lanes)];

	for (int lane = 0; lane < lengthof(values); lane++)
		values[lane] = Int64GetDatum(a->lanes[lane] + b->lanes[lane]);
	return PointerGetDatum(construct_array(values, lengthof(values), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * One group.  Returns false when the table is done with, or cannot be gone on
 * with now.
 */
static bool
validate_group(BcmigProof *proof, Pending *r)
{
	const BcmigTableInfo *table = proof->table;
	TimestampTz started = GetCurrentTimestamp();
	int			most = proof->chunking.buckets ? Max(1, (int) Min(proof->chunking.size, 100)) : group_chunks;
	int64		after;
	List	   *chunks = next_group(r, most, &after);
	List	   *differing;
	List	   *suspects = NIL;
	ListCell   *lc;
	Pair		same = {0};
	Pair		others = {0};	/* of chunks that differed */
	bool		summed = true;
	BcmigSettled settled = {0};
	bool		too_many = false;
	int64		n = 0;
	int64		bad = 0;
	int			ms;
	int			wanted_ms;
	char	   *seen;
	BcmigCatalogScope scope;

	if (!proof->pushdown && (!proof->count_only || proof->table->row_filter != NULL) && proof->chunking.buckets)
	{
		/* rows come in one pass */
		chunks = NIL;
		after = r->last + 1;
	}
	else if (chunks == NIL)
		return false;			/* NIL would be all of them */
	bcmig_start_transaction();
	/* marks of transactions this snapshot shows will have been answered */
	seen = OidOutputFunctionCall(F_PG_SNAPSHOT_OUT, OidFunctionCall0(F_PG_CURRENT_SNAPSHOT));
	differing = differing_chunks(bcmig_compare_chunks(proof, chunks), &same, &others, &n);
	bcmig_end_transaction();
	ms = TimestampDifferenceMilliseconds(started, GetCurrentTimestamp());
	bcmig_debug_point("validate_compared");

	if (differing != NIL)
	{
		bcmig_start_transaction();
		bcmig_catalog_begin(&scope);
		bcmig_sql("DELETE FROM bcmig.validation_difference WHERE run_id = $1 AND table_id = $2 AND chunk = ANY ($3)",
				  "Iiq", r->run_id, table->table_id, bounds_of(differing, false));
		bcmig_catalog_end(&scope);
		suspects = bcmig_find_suspects(proof, differing, MOST_DIFFERENCES, &too_many);
		bcmig_end_transaction();
		bcmig_settle(proof, suspects, &settled);
		if (strcmp(r->done_as, "full") == 0 && settled.differences == 0 && settled.unknown == NULL && !too_many)
			summed = sum_again(proof, differing, &others);
		if (bcmig_stopping(proof->work))
			return false;
	}

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	foreach(lc, differing)
	{
		int64		chunk = ((BcmigChunks *) lfirst(lc))->first;

		/* a chunk with differences stays marked: the next incremental run looks at it again */
		if (bcmig_sql("INSERT INTO bcmig.dirty_chunk (table_id, generation, chunk) SELECT $1, $2, $3 WHERE EXISTS (SELECT FROM bcmig.validation_difference "
					  "WHERE run_id = $4 AND table_id = $1 AND chunk = $3)",
					  "iiII", table->table_id, proof->chunking.generation, chunk, r->run_id) > 0)
			bad++;
	}
	if (!proof->count_only && settled.unknown == NULL)
		bcmig_sql("DELETE FROM bcmig.dirty_chunk d WHERE d.table_id = $1 AND d.generation = $2 AND pg_visible_in_snapshot(d.xid, $3::pg_snapshot) "
				  "AND (cardinality($4) = 0 OR EXISTS (SELECT FROM unnest($4, $5) u(f, l) WHERE d.chunk BETWEEN u.f AND u.l))",
				  "iitqq", table->table_id, proof->chunking.generation, seen, bounds_of(chunks, false), bounds_of(chunks, true));
	bcmig_sql("UPDATE bcmig.validation_result SET chunks = chunks + $3, differing = differing + $4, "
			  " rows_blue = rows_blue + $5, rows_green = rows_green + $6, in_flight = in_flight + $7, differences = differences + $8, "
			  " seconds = seconds + extract(epoch FROM clock_timestamp() - $9), "
			  " lanes_blue = CASE WHEN $12 AND lanes_blue IS NOT NULL THEN ARRAY(SELECT u.o + u.n FROM unnest(lanes_blue, $10) WITH ORDINALITY u (o, n, i) ORDER BY u.i) END, "
			  " lanes_green = CASE WHEN $12 AND lanes_green IS NOT NULL THEN ARRAY(SELECT u.o + u.n FROM unnest(lanes_green, $11) WITH ORDINALITY u (o, n, i) ORDER BY u.i) END "
			  "WHERE run_id = $1 AND table_id = $2",
			  "IiIIIIIIzqqb", r->run_id, table->table_id, n, bad, same.blue.rows + others.blue.rows, same.green.rows + others.green.rows,
			  settled.in_flight, settled.differences, started,
			  lanes_of(&same.blue, &others.blue), lanes_of(&same.green, &others.green), (int) summed);
	bcmig_sql("UPDATE bcmig.validation_part SET next_chunk = $4 WHERE run_id = $1 AND table_id = $2 AND part = $3",
			  "IiiI", r->run_id, table->table_id, r->part, after);
	bcmig_catalog_end(&scope);
	r->next = after;
	if (settled.unknown != NULL)
		finish(table, r, settled.unknown, false);
	else if (too_many)
		finish(table, r, psprintf("more than %d rows differ in one group of chunks; the comparison ended there", MOST_DIFFERENCES), false);
	else if (after > r->last)
		finish_part(table, r, !proof->count_only);
	bcmig_debug_point("validate_before_commit");
	bcmig_end_transaction();

	wanted_ms = bcmig_gentle_ms(proof->work, GROUP_MS);
	if (ms < wanted_ms / 2)
		group_chunks = Min(group_chunks * 2, MOST_GROUP);
	else if (ms > wanted_ms * 2)
		group_chunks = Max(group_chunks / 2, 1);
	return settled.unknown == NULL && !too_many && after <= r->last;
}

/* is it still wanted?  In no transaction. */
static bool
still_wanted(int64 run_id, int table_id)
{
	BcmigCatalogScope scope;
	bool		running;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	running = bcmig_sql("SELECT 1 FROM bcmig.validation_run r JOIN bcmig.validation_result v USING (run_id) "
						"WHERE r.run_id = $1 AND v.table_id = $2 AND r.state = 'running' AND NOT v.done", "Ii", run_id, table_id) > 0;
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return running;
}

void
bcmig_run_check(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	TimestampTz until = TimestampTzPlusMilliseconds(bcmig_steady_time(), TURN);
	MemoryContext group_context;
	BcmigProof *proof;
	BcmigStored stored;
	BcmigTable *live;
	Pending		r;
	bool		more = true;

	bcmig_start_transaction();
	if (!load_result(table->table_id, &r))
	{
		bcmig_end_transaction();
		return;
	}
	if (!bcmig_state_load(table->table_id, &stored) || stored.state != BCMIG_STREAMING)
	{
		finish(table, &r, psprintf("the table is %s", bcmig_state_name(stored.state)), false);
		bcmig_end_transaction();
		return;
	}
	bcmig_slot_phase("validate", table->target_name, stored.rows_total);
	proof = bcmig_proof_open(work);
	proof->run_id = r.run_id;
	if (!r.begun)
	{
		begin_table(proof, &r);
		bcmig_end_transaction();
		bcmig_start_transaction();
		(void) load_result(table->table_id, &r);
	}
	if (!take_part(table->table_id, &r))
	{
		bcmig_end_transaction();
		return;
	}
	proof->count_only = strcmp(r.done_as, "count") == 0;
	/* the mapping may have changed since the run began */
	proof->pushdown = r.pushdown && !proof->transformed;
	if (!bcmig_load_chunking(table, &proof->chunking, NULL))
		elog(ERROR, "table %s is not cut into chunks", table->target_name);
	if (r.next > r.last || (r.ntodo >= 0 && (r.ntodo == 0 || r.todo[r.ntodo - 1] < r.next)))
	{
		finish_part(table, &r, false);
		more = false;
	}
	bcmig_end_transaction();

	group_context = AllocSetContextCreate(CurrentMemoryContext, "bcmig validate", ALLOCSET_DEFAULT_SIZES);
	while (more && bcmig_steady_time() < until)
	{
		const char *why;
		MemoryContext oldcontext = MemoryContextSwitchTo(group_context);

		CHECK_FOR_INTERRUPTS();
		if (bcmig_stopping(work) || !still_wanted(r.run_id, table->table_id))
			break;
		why = throttled(proof);
		if (why != NULL)
		{
			bcmig_slot_phase(why, table->target_name, 0);
			MemoryContextSwitchTo(oldcontext);
			break;
		}
		more = validate_group(proof, &r);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(group_context);
	}

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(table->table_id);
	if (live != NULL)
		live->check_failures = 0;
	LWLockRelease(bcmig_shared->lock);
}
