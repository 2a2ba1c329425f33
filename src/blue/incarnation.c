/*-------------------------------------------------------------------------
 *
 * incarnation.c
 *	  Is blue still the database it was?
 *
 * A dialect's incarnation text is <fork>/<start>: what identifies the database
 * and its history, a slash, what identifies this start of the server.
 *
 *	- another fork, a horizon below the stored one, or a top below the position of
 *	  a table: blue was restored, failed over or lost transactions.  Everything of
 *	  it is read again (resync, never truncate).
 *	- another start only: blue may have lost its last commits in a crash
 *	  (asynchronous commit).  The tail witness of each table, the transactions,
 *	  keys, versions and contents applied last, and the transactions seen when chunks of a
 *	  copy and single rows were read, is read back; when one is missing or older,
 *	  all tables are read again, since what was lost is the end of the log, not
 *	  of a table.  When all agree there may still be lost what nobody bears witness
 *	  of, such as transactions that were rolled back, and their positions are given
 *	  out again: the next windows read all that lies above the newest witness.
 *
 * The new incarnation is stored in the transaction that marks the tables (or
 * after the witnesses agreed), so a crash in between asks again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "poller.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "dialect.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "remote.h"
#include "slot.h"
#include "source.h"
#include "state.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* receiver of the rows a witness asks for */
typedef struct WitnessReceiver
{
	DestReceiver pub;
	const BcmigTableInfo *table;
	int			nwitness;
	int64	   *versions;		/* wanted, -1 = only existence */
	int64	   *contents;		/* at that version, -1 = not known */
	char	  **keys;			/* nwitness * nkeys texts */
	int64	   *positions;		/* a later change is none that green has seen */
	bool	   *found;			/* whatever it is like */
	int			good;
} WitnessReceiver;

/* the number of columns above the rest: a feed that got other columns has other numbers */
#define CONTENTS_BITS	48

int64
bcmig_row_contents(TupleTableSlot *slot)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;
	uint64		h = 0;

	slot_getallattrs(slot);
	for (int i = 2; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		h = hash_combine64(h, slot->tts_isnull[i] ? 0 :
						   1 + (uint64) datum_image_hash(slot->tts_values[i], att->attbyval, att->attlen));
	}
	return ((int64) desc->natts << CONTENTS_BITS) | (h >> (64 - CONTENTS_BITS));
}

/* "contents": of the row at the version that was wanted */
static bool
same_contents(int64 contents, TupleTableSlot *slot)
{
	int64		now = bcmig_row_contents(slot);

	return contents < 0 || contents >> CONTENTS_BITS != now >> CONTENTS_BITS || contents == now;
}

static void
witness_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
}

static void
witness_nothing(DestReceiver *self)
{
}

static bool
witness_receive(TupleTableSlot *slot, DestReceiver *self)
{
	WitnessReceiver *r = (WitnessReceiver *) self;
	const BcmigTableInfo *t = r->table;
	TupleDesc	desc = slot->tts_tupleDescriptor;

	slot_getallattrs(slot);
	if (slot->tts_isnull[0] || strcmp(TextDatumGetCString(slot->tts_values[0]), "U") != 0)
		return true;
	for (int i = 0; i < r->nwitness; i++)
	{
		bool		same = true;

		for (int k = 0; k < t->nkeys && same; k++)
		{
			int			att = 2 + t->keys[k];
			Oid			out;
			bool		varlena;

			getTypeOutputInfo(TupleDescAttr(desc, att)->atttypid, &out, &varlena);
			same = !slot->tts_isnull[att] &&
				strcmp(OidOutputFunctionCall(out, slot->tts_values[att]), r->keys[i * t->nkeys + k]) == 0;
		}
		r->found[i] |= same;
		if (same && (r->versions[i] < 0 ||
					 (!slot->tts_isnull[1] &&
					  (DatumGetInt64(slot->tts_values[1]) > r->versions[i] ||
					   (DatumGetInt64(slot->tts_values[1]) == r->versions[i] && same_contents(r->contents[i], slot))))))
			r->good++;
	}
	return true;
}

/*
 * Does blue still have the transactions whose changes were applied last?  They
 * tell of deletes, and of rows without a version, which keys cannot.
 */
static bool
traces_hold(const BcmigTableInfo *table)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *traces;
	Oid			feed;
	List	   *rows;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT string_agg(x, ',') FROM bcmig.table_state s, jsonb_array_elements(s.witness) w, "
			  " jsonb_array_elements_text(w->'x') x WHERE s.table_id = $1", "i", table->table_id);
	traces = bcmig_get_text(0, 1);
	if (traces != NULL)
		traces = MemoryContextStrdup(caller, traces);
	bcmig_catalog_end(&scope);
	if (traces == NULL)
		return true;

	feed = bcmig_text_feed(table->environment_id);
	rows = bcmig_remote_texts(feed, bcmig_dialect_of_server(GetForeignTable(feed)->serverid)->lost_traces(table, traces));
	return rows != NIL && ((char **) linitial(rows))[0] != NULL &&
		strcmp(((char **) linitial(rows))[0], "0") == 0;
}

/*
 * How many of the rows that are gone from blue were changed there after what
 * green has seen?  Those have been deleted, not lost.
 */
static int
deleted_since(Oid env_feed, const BcmigDialect *dialect, const WitnessReceiver *r)
{
	const BcmigTableInfo *table = r->table;
	char	  **keys = palloc(sizeof(char *) * r->nwitness * table->nkeys);
	int64	   *positions = palloc(sizeof(int64) * r->nwitness);
	int			n = 0;
	char	   *sql;
	List	   *rows;

	for (int i = 0; i < r->nwitness; i++)
	{
		if (r->found[i] || r->positions[i] < 0)
			continue;
		memcpy(&keys[n * table->nkeys], &r->keys[i * table->nkeys], sizeof(char *) * table->nkeys);
		positions[n++] = r->positions[i];
	}
	sql = n == 0 || dialect->later_changes == NULL ? NULL : dialect->later_changes(table, n, keys, positions);
	if (sql == NULL)
		return 0;
	rows = bcmig_remote_texts(env_feed, sql);
	return rows == NIL || ((char **) linitial(rows))[0] == NULL ? 0 : bcmig_answer_int64(linitial(rows), 0);
}

/*
 * Are the last changes applied to this table still on blue, and the rows at
 * least as new?  A table nothing of which had moved has no witness and agrees.
 */
static bool
witness_holds(int table_id)
{
	BcmigTableInfo *table;
	BcmigCatalogScope scope;
	WitnessReceiver r = {{0}};
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext oldcontext;
	Oid			feed;
	const BcmigDialect *dialect;

	table = bcmig_load_table(table_id);
	if (table == NULL)
		return true;
	if (!traces_hold(table))
		return false;
	if (table->nkeys == 0)
		return true;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT (w->>'v')::int8, ARRAY(SELECT jsonb_array_elements_text(w->'k')), (w->>'h')::int8, "
			  " coalesce((w->>'v')::int8, (SELECT max(x::int8) FROM jsonb_array_elements(s.witness) t, jsonb_array_elements_text(t->'x') x)) "
			  "FROM bcmig.table_state s, jsonb_array_elements(s.witness) w WHERE s.table_id = $1 AND w ? 'k'",
			  "i", table_id);
	oldcontext = MemoryContextSwitchTo(caller);
	r.nwitness = SPI_processed;
	r.versions = palloc(sizeof(int64) * Max(r.nwitness, 1));
	r.contents = palloc(sizeof(int64) * Max(r.nwitness, 1));
	r.positions = palloc(sizeof(int64) * Max(r.nwitness, 1));
	r.found = palloc0(sizeof(bool) * Max(r.nwitness, 1));
	r.keys = palloc(sizeof(char *) * Max(r.nwitness * table->nkeys, 1));
	for (int i = 0; i < r.nwitness; i++)
	{
		char	  **key = bcmig_get_texts(i, 2, table->nkeys, caller);

		r.versions[i] = bcmig_get_int64(i, 1, -1);
		r.contents[i] = bcmig_get_int64(i, 3, -1);
		r.positions[i] = bcmig_get_int64(i, 4, -1);
		if (key != NULL)
			memcpy(&r.keys[i * table->nkeys], key, sizeof(char *) * table->nkeys);
		else
			r.nwitness = 0;		/* the key was changed: nothing to ask */
	}
	MemoryContextSwitchTo(oldcontext);
	bcmig_catalog_end(&scope);
	if (r.nwitness == 0)
		return true;

	feed = get_relname_relid(table->feed, get_namespace_oid("bcmig", false));
	dialect = bcmig_dialect_of_server(GetForeignTable(feed)->serverid);
	r.pub.receiveSlot = witness_receive;
	r.pub.rStartup = witness_startup;
	r.pub.rShutdown = witness_nothing;
	r.pub.rDestroy = witness_nothing;
	r.table = table;
	bcmig_remote_run(feed, dialect->rows_by_key(table, r.nwitness, r.keys), 100, &r.pub);
	return r.good == r.nwitness ||
		r.good + deleted_since(bcmig_text_feed(table->environment_id), dialect, &r) == r.nwitness;
}

static List *
tables_to_witness(int environment_id, Oid owner)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *ids = NIL;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT t.table_id FROM bcmig.table_state s JOIN bcmig.sync_table t USING (table_id) "
			  "JOIN bcmig.sync y USING (sync_id) "
			  "WHERE y.environment_id = $1 AND y.owner::oid = $2 AND s.witness IS NOT NULL",
			  "io", environment_id, owner);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(caller);

		ids = lappend_int(ids, bcmig_get_int64(i, 1, 0));
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	return ids;
}

static size_t
fork_length(const char *incarnation)
{
	const char *slash = strrchr(incarnation, '/');

	return slash ? slash - incarnation : strlen(incarnation);
}

/*
 * The transactions that bear witness, and those that began the tracking of tables,
 * are in blue's log, so it gives none up to them out again.  Older ones than its
 * change log reaches back to have been there for long.
 */
static int64
proved_position(int environment_id, Oid owner, const BcmigPoll *poll)
{
	int64		newest;

	bcmig_sql("SELECT max(greatest(s.begin_version::int8, w.newest)) "
			  "FROM bcmig.table_state s JOIN bcmig.sync_table t USING (table_id) JOIN bcmig.sync y USING (sync_id), "
			  " LATERAL (SELECT max(x::int8) AS newest FROM jsonb_array_elements(s.witness) e, jsonb_array_elements_text(e -> 'x') x) w "
			  "WHERE y.environment_id = $1 AND y.owner::oid = $2", "io", environment_id, owner);
	newest = bcmig_get_int64(0, 1, -1);
	return Max(newest + 1, poll->floor);
}

/*
 * From now on positions hold for this incarnation.  What was read of the one before
 * and is not written yet bears no witness yet, so this comes before witnesses are
 * asked; who writes it notices (move_position() in window.c, bcmig_state_witness()).
 */
static void
take_over_positions(int environment_id, Oid owner, const BcmigPoll *poll, bool reread)
{
	BcmigCatalogScope scope;
	int64		proved = 0;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	if (reread)
		proved = proved_position(environment_id, owner, poll);
	bcmig_sql("UPDATE bcmig.table_state s SET incarnation = $3, reread_from = CASE WHEN $5 THEN least(s.reread_from, $4) ELSE s.reread_from END "
			  "FROM bcmig.sync_table t JOIN bcmig.sync y USING (sync_id) "
			  "WHERE t.table_id = s.table_id AND y.environment_id = $1 AND y.owner::oid = $2 "
			  " AND s.state <> 'pending' AND s.incarnation IS DISTINCT FROM $3",
			  "ioIIb", environment_id, owner, poll->incarnation, proved, reread);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

bool
bcmig_check_incarnation(int environment_id, Oid owner, const BcmigPoll *poll)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *stored = NULL;
	int64		horizon = 0;
	int64		position;
	bool		reread;
	char	   *reason = NULL;
	List	   *ids;
	ListCell   *lc;

	bcmig_start_transaction();
	reread = bcmig_dialect_of_server(GetForeignTable(bcmig_text_feed(environment_id))->serverid)->positions_again;
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT incarnation, horizon FROM bcmig.blue_position WHERE environment_id = $1 AND owner = $2",
				  "io", environment_id, owner) > 0)
	{
		stored = MemoryContextStrdup(caller, bcmig_get_text(0, 1));
		horizon = bcmig_get_int64(0, 2, 0);
	}

	/* the stored horizon may be a minute old; what tables have been read to is not */
	bcmig_sql("SELECT max(s.position) FROM bcmig.table_state s JOIN bcmig.sync_table t USING (table_id) JOIN bcmig.sync y USING (sync_id) "
			  "WHERE y.environment_id = $1 AND y.owner::oid = $2 AND s.state IN ('copying', 'catching_up', 'streaming')",
			  "io", environment_id, owner);
	position = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();

	reread = reread && stored != NULL && strcmp(stored, poll->incarnation_text) != 0;
	take_over_positions(environment_id, owner, poll, reread);

	bcmig_start_transaction();
	MemoryContextSwitchTo(caller);
	if (stored == NULL)
		reason = NULL;
	else if (fork_length(stored) != fork_length(poll->incarnation_text) ||
			 strncmp(stored, poll->incarnation_text, fork_length(stored)) != 0)
		reason = psprintf("blue is another database or history: %s, was %s", poll->incarnation_text, stored);
	else if (poll->horizon < horizon)
		reason = psprintf("blue went back: horizon " INT64_FORMAT ", was " INT64_FORMAT, poll->horizon, horizon);
	else if (poll->top < position)
		reason = psprintf("blue went back: it has given out " INT64_FORMAT ", green has read to " INT64_FORMAT, poll->top, position);
	else if (strcmp(stored, poll->incarnation_text) != 0)
	{
		/* a question per table, each in a transaction of its own */
		ids = tables_to_witness(environment_id, owner);
		foreach(lc, ids)
		{
			CHECK_FOR_INTERRUPTS();
			if (!witness_holds(lfirst_int(lc)))
			{
				reason = psprintf("blue restarted and lost commits: the last rows applied to table %d are missing or older there",
								  lfirst_int(lc));
				break;
			}
			bcmig_end_transaction();
			bcmig_start_transaction();
			MemoryContextSwitchTo(caller);
		}
	}

	if (reason != NULL)
	{
		ereport(LOG, (errmsg("bcmig: %s; all its tables are read again", reason)));
		bcmig_state_resync(environment_id, owner, 0, reason);
	}
	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.blue_position AS p (environment_id, owner, horizon, seen, dirty, incarnation, incarnation_hash, clock) "
			  "VALUES ($1, $2, $3, NULL, "
			  " ARRAY(SELECT t.table_id FROM bcmig.sync_table t JOIN bcmig.sync y USING (sync_id) "
			  "       WHERE y.environment_id = $1 AND y.owner::oid = $2), $4, $5, $6) "
			  "ON CONFLICT (environment_id, owner) DO UPDATE SET incarnation = excluded.incarnation, incarnation_hash = excluded.incarnation_hash, "
			  " horizon = CASE WHEN $7 THEN excluded.horizon ELSE p.horizon END, "
			  " seen = CASE WHEN $7 THEN NULL ELSE p.seen END, "
			  " dirty = CASE WHEN $7 THEN excluded.dirty ELSE p.dirty END, "
			  " updated_at = clock_timestamp()",
			  "ioItIzb", environment_id, owner, poll->horizon, poll->incarnation_text, poll->incarnation, poll->clock,
			  reason != NULL);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);

	if (reason != NULL)
	{
		HASH_SEQ_STATUS seq;
		BcmigTable *table;
		int			index;

		LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
		index = bcmig_live_blue(MyDatabaseId, environment_id, owner);
		hash_seq_init(&seq, bcmig_tables);
		while ((table = hash_seq_search(&seq)) != NULL)
		{
			if (table->blue == index && table->key.dboid == MyDatabaseId &&
				table->state != BCMIG_PENDING && table->state != BCMIG_SUSPENDED)
			{
				table->state = BCMIG_RESYNC;
				table->window_poll = 0;
				table->version = ++bcmig_shared->publications;
			}
		}
		LWLockRelease(bcmig_shared->lock);
	}
	return reason != NULL;
}

/*
 * Write bcmig.blue_position from what shared memory holds: in one look, the
 * horizon and the tables that are not complete to it.
 */
void
bcmig_store_blue(int index)
{
	BcmigBlue	copy;
	BcmigCatalogScope scope;
	HASH_SEQ_STATUS seq;
	BcmigTable *table;
	Datum	   *dirty;
	Datum	   *watched;
	int			ndirty = 0;
	int			nwatched = 0;

	dirty = palloc(sizeof(Datum) * bcmig_max_tables);
	watched = palloc(sizeof(Datum) * bcmig_max_tables);
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	copy = bcmig_shared->blues[index];
	hash_seq_init(&seq, bcmig_tables);
	while ((table = hash_seq_search(&seq)) != NULL)
	{
		if (table->blue != index || table->key.dboid != MyDatabaseId)
			continue;
		watched[nwatched++] = Int32GetDatum(table->key.table_id);
		if (table->state != BCMIG_STREAMING || table->window_poll == 0 || table->hinted ||
			table->window_poll < table->moved_poll)
			dirty[ndirty++] = Int32GetDatum(table->key.table_id);
	}
	LWLockRelease(bcmig_shared->lock);
	if (copy.poll == 0)
		return;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);

	/*
	 * Tables without a live entry (their sync is stopped) were not watched:
	 * they are dirty too.
	 */
	bcmig_sql("UPDATE bcmig.blue_position SET horizon = $3, seen = nullif($4, ''), clock = $5, updated_at = clock_timestamp(), "
			  " dirty = $6 || ARRAY(SELECT t.table_id FROM bcmig.sync_table t JOIN bcmig.sync y USING (sync_id) "
			  "   WHERE y.environment_id = $1 AND y.owner::oid = $2 AND NOT t.table_id = ANY ($7)) "
			  "WHERE environment_id = $1 AND owner = $2 AND incarnation = $8",
			  "ioItznnt", copy.environment_id, copy.owner, copy.horizon, copy.seen, copy.clock,
			  PointerGetDatum(construct_array(dirty, ndirty, INT4OID, 4, true, TYPALIGN_INT)),
			  PointerGetDatum(construct_array(watched, nwatched, INT4OID, 4, true, TYPALIGN_INT)),
			  copy.incarnation_text);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	pfree(dirty);
	pfree(watched);
}
