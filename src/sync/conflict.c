/*-------------------------------------------------------------------------
 *
 * conflict.c
 *	  A change of blue meets an outside write on green: who wins.
 *
 * Outside writes accepted on green are in bcmig.journal until they have been
 * brought to blue.  apply.c writes its rows first and looks them up in the
 * journal afterwards, with a newer snapshot; the other order loses a write that
 * was uncommitted during the look-up and committed while we waited for its row
 * lock.  Rows that meet an entry are rolled back and come here one by one.
 *
 * What the entries of a key did together says whether both sides had the row
 * before (the order of entries within a transaction is not that of its
 * writes, so they are counted, not followed).  Then
 *
 *	both sides are equal		no conflict, the entries are settled
 *	blue has what both had		no conflict, green's row stays; so does an echo
 *								of our own writes to blue
 *	it waits for a person		the record gets blue's newest row
 *	it was decided before		for green, and blue has not changed since
 *	insert against insert		waits for a person, whatever the policy
 *	else						the policy decides
 *
 * To see blue's row as green would hold it, it is written in a subtransaction
 * and read back; that is kept when blue wins.  Row, entries and record are one
 * transaction.  Green's row is locked before; where there is none, an outside
 * insert may still come in between, so the entries are read before and after,
 * and all is done again when they are not the same.
 *
 * Rows of the green table are touched as the sync's owner, the journal as the
 * owner of the catalogue.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "conflict.h"
#include "own_write.h"
#include "quarantine.h"
#include "worker.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

const BcmigForced *bcmig_forced_conflicts = NULL;

/* what becomes of a row */
typedef enum Outcome
{
	APPLIED,					/* there was no entry any more */
	EQUAL,
	UNCHANGED,					/* blue has what both had */
	DECIDED,					/* for green, before */
	WAITS,
	SOURCE,
	TARGET,
	ROW,
	ASK							/* conflict_function */
} Outcome;

/* the unsettled entries of a key */
typedef struct Entries
{
	int64		n;
	int64		last;			/* the newest id */
	Datum		ids;			/* int8[] */
	int64		net;			/* 1 = together they made the row, -1 = deleted it */
	char	   *old_image;
	bool		old_is_whole;
	int64		base_version;	/* -1 = not known */
	TimestampTz at;				/* of the last one */
} Entries;

typedef struct Conflict
{
	const BcmigTableInfo *table;
	Oid			relid;
	TupleDesc	desc;			/* of the feed */
	MinimalTuple row;
	bool		delete;
	int64		version;		/* blue's, -1 = none */
	char	   *key;			/* jsonb as text */
	MemoryContext context;
	Entries		entries;
	bool		had_row;		/* both sides, before */
	BcmigSide	old;
	BcmigSide	blue;
	BcmigSide	green;
	BcmigSide	result;			/* of conflict_function */
	int64		waiting;		/* id of the record that waits, or 0 */
	bool		forced;			/* somebody asked for blue's row */
	char	   *policy;
	char	   *detail;
	Outcome		outcome;
	uint64		changed;		/* rows */
} Conflict;

/* ---- what meets the journal ---- */

char *
bcmig_green_key(const BcmigTableInfo *table, TupleDesc target, const char *alias)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "pg_catalog.jsonb_build_array(");
	for (int k = 0; k < table->nkeys; k++)
	{
		const char *name = table->columns[table->keys[k]].target;

		for (int i = 0; i < target->natts; i++)
		{
			Form_pg_attribute att = TupleDescAttr(target, i);

			if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
				appendStringInfo(&s, "%s(%s.%s::%s)::pg_catalog.text", k ? ", " : "", alias, quote_identifier(name),
								 format_type_extended(att->atttypid, att->atttypmod,
													  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		}
	}
	appendStringInfoString(&s, ")::pg_catalog.text");
	return s.data;
}

/* keys of spooled rows, in their order, added to "keys" */
static ArrayBuildState *
keys_of_rows(const BcmigTableInfo *table, Tuplestorestate *store, TupleDesc desc, ArrayBuildState *keys)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigSpool	rows = {0};
	Relation	rel = table_open(bcmig_target_relid(table), AccessShareLock);
	char	   *key = bcmig_green_key(table, RelationGetDescr(rel), "w");
	uint64		n;

	table_close(rel, AccessShareLock);
	rows.store = store;
	rows.desc = desc;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	n = bcmig_query_spool(&rows, psprintf("SELECT %s FROM bcmig_rows w", key));
	for (uint64 i = 0; i < n; i++)
		keys = accumArrayResult(keys, CStringGetTextDatum(bcmig_get_text(i, 1)), false, TEXTOID, caller);
	SPI_finish();
	return keys;
}

/* has the table unsettled entries at all?  In a catalogue scope. */
static bool
journal_has(const BcmigTableInfo *table)
{
	return bcmig_sql("SELECT 1 FROM bcmig.journal WHERE table_id = $1 AND settled_at IS NULL LIMIT 1",
					 "i", table->table_id) > 0;
}

bool
bcmig_journal_met(const BcmigTableInfo *table, Tuplestorestate *store, TupleDesc desc,
				  ArrayBuildState *keys, BcmigMet *met)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	int			first = keys ? keys->nelems : 0;
	bool		has;

	met->any = false;
	met->rows = NULL;
	if (table->nkeys == 0 || (store == NULL && keys == NULL))
		return false;

	/* nearly always the end: one look-up a window, no subtransaction */
	bcmig_catalog_begin(&scope);
	has = journal_has(table);
	bcmig_catalog_end(&scope);
	if (!has)
		return false;

	if (store != NULL)
		keys = keys_of_rows(table, store, desc, keys);
	if (keys == NULL)
		return false;
	bcmig_catalog_begin(&scope);
	/* OFFSET 0: looked up key by key, by the index; a join that takes the unsettled entries for few reads all of them for each */
	bcmig_sql("SELECT k.n FROM unnest($2) WITH ORDINALITY k(key, n) WHERE EXISTS (SELECT FROM bcmig.journal j "
			  " WHERE j.table_id = $1 AND j.settled_at IS NULL AND jsonb_hash(j.old_key) = jsonb_hash(k.key::jsonb) AND j.old_key = k.key::jsonb "
			  " AND j.old_key IS DISTINCT FROM j.new_key OFFSET 0) "
			  "OR EXISTS (SELECT FROM bcmig.journal j "
			  " WHERE j.table_id = $1 AND j.settled_at IS NULL AND jsonb_hash(j.new_key) = jsonb_hash(k.key::jsonb) AND j.new_key = k.key::jsonb OFFSET 0)",
			  "ik", table->table_id, makeArrayResult(keys, CurrentMemoryContext));
	met->any = SPI_processed > 0;
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int			n = bcmig_get_int64(i, 1, 0) - 1;
		MemoryContext oldcontext = MemoryContextSwitchTo(caller);

		if (n >= first)
			met->rows = bms_add_member(met->rows, n - first);
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	return met->any;
}

int
bcmig_without_outside_rows(const BcmigTableInfo *table, int n, char **keys)
{
	BcmigCatalogScope scope;
	ArrayBuildState *texts = NULL;
	int			left = 0;
	int			next = 0;

	bcmig_catalog_begin(&scope);
	if (n == 0 || !journal_has(table))
	{
		bcmig_catalog_end(&scope);
		return n;
	}
	for (int i = 0; i < n; i++)
	{
		StringInfoData s;

		initStringInfo(&s);
		for (int k = 0; k < table->nkeys; k++)
		{
			appendStringInfoChar(&s, k ? ',' : '[');
			escape_json(&s, keys[(Size) i * table->nkeys + k]);
		}
		appendStringInfoChar(&s, ']');
		texts = accumArrayResult(texts, CStringGetTextDatum(s.data), false, TEXTOID, CurrentMemoryContext);
		pfree(s.data);
	}
	/* OFFSET 0: as above */
	bcmig_sql("SELECT k.n FROM unnest($2) WITH ORDINALITY k(key, n) WHERE EXISTS (SELECT FROM bcmig.journal j "
			  " WHERE j.table_id = $1 AND j.settled_at IS NULL AND jsonb_hash(j.new_key) = jsonb_hash(k.key::jsonb) AND j.new_key = k.key::jsonb "
			  " AND j.old_key IS DISTINCT FROM j.new_key OFFSET 0) ORDER BY k.n",
			  "ik", table->table_id, makeArrayResult(texts, CurrentMemoryContext));
	for (int i = 0; i < n; i++)
	{
		if (next < SPI_processed && bcmig_get_int64(next, 1, 0) == i + 1)
			next++;
		else
			memmove(&keys[(Size) left++ * table->nkeys], &keys[(Size) i * table->nkeys],
					sizeof(char *) * table->nkeys);
	}
	bcmig_catalog_end(&scope);
	return left;
}

/* ---- one row ---- */

/* blue's row as apply.c has them; version: -1 = none */
static Tuplestorestate *
store_of_row(const Conflict *c, int64 *version)
{
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(c->desc, &TTSOpsMinimalTuple);
	Datum		value;
	bool		isnull;

	ExecStoreMinimalTuple(c->row, slot, false);
	value = slot_getattr(slot, FEED_VERSION + 1, &isnull);
	*version = isnull ? -1 : DatumGetInt64(value);
	tuplestore_puttupleslot(store, slot);
	ExecDropSingleTupleTableSlot(slot);
	return store;
}

/* one of our images in which a long value is described by its length is no proof */
static bool
is_whole(const char *image)
{
	return image == NULL || strstr(image, ":{\"characters\":") == NULL;
}

bool
bcmig_same_side(const BcmigSide *a, const BcmigSide *b)
{
	if (a->exists != b->exists)
		return false;
	if (!a->exists)
		return true;
	if (is_whole(a->image) && is_whole(b->image))
		return strcmp(a->image, b->image) == 0;
	return DatumGetBool(OidFunctionCall2(F_RECORD_IMAGE_EQ, a->mapped, b->mapped));
}

/* green's row of the key; its lock is held until the end of the (sub)transaction */
static void
read_green(Conflict *c, BcmigSide *side)
{
	Relation	rel = table_open(c->relid, AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData s;
	Oid			type = JSONBOID;
	Datum		key = DirectFunctionCall1(jsonb_in, CStringGetDatum(c->key));

	initStringInfo(&s);
	appendStringInfo(&s, "SELECT g FROM %s g WHERE ", c->table->target_name);
	for (int k = 0; k < c->table->nkeys; k++)
	{
		const char *name = c->table->columns[c->table->keys[k]].target;
		AttrNumber	attnum = get_attnum(c->relid, name);

		if (attnum == InvalidAttrNumber)
			elog(ERROR, "column \"%s\" of %s is gone", name, c->table->target_name);
		appendStringInfo(&s, "%sg.%s = ($1->>%d)::%s", k ? " AND " : "", quote_identifier(name), k,
						 format_type_be_qualified(TupleDescAttr(desc, attnum - 1)->atttypid));
	}
	appendStringInfoString(&s, " FOR UPDATE");
	table_close(rel, AccessShareLock);
	bcmig_read_side(c->table, c->relid, s.data, 1, &type, &key, NULL, side);
}

/* the unsettled entries of the key, locked against who settles them */
static void
read_entries(Conflict *c, Entries *e)
{
	BcmigCatalogScope scope;
	MemoryContext oldcontext;
	bool		isnull;
	Datum		value;

	memset(e, 0, sizeof(*e));
	bcmig_catalog_begin(&scope);
	bcmig_sql("WITH j AS MATERIALIZED (SELECT * FROM bcmig.journal WHERE table_id = $1 AND settled_at IS NULL "
			  "  AND (jsonb_hash(old_key) = jsonb_hash($2) AND old_key = $2 AND old_key IS DISTINCT FROM new_key OR jsonb_hash(new_key) = jsonb_hash($2) AND new_key = $2) "
			  "  ORDER BY journal_id FOR UPDATE) "
			  "SELECT a.*, (b.first).old_image::text, (b.first).base_version, "
			  " NOT EXISTS (SELECT FROM jsonb_each((b.first).old_image) v WHERE jsonb_typeof(v.value) IN ('object', 'array')) "
			  "FROM (SELECT count(*), max(journal_id), array_agg(journal_id ORDER BY journal_id), max(at), "
			  "  count(*) FILTER (WHERE new_key = $2 AND old_key IS DISTINCT FROM $2) "
			  "   - count(*) FILTER (WHERE old_key = $2 AND new_key IS DISTINCT FROM $2) FROM j) a "
			  /* the image no other entry has made; else the oldest */
			  "LEFT JOIN (SELECT o AS first FROM j o WHERE o.old_key = $2 ORDER BY EXISTS "
			  "  (SELECT FROM j x WHERE x.new_key = $2 AND x.new_image = o.old_image), o.journal_id LIMIT 1) b ON true",
			  "ij", c->table->table_id, c->key);
	oldcontext = MemoryContextSwitchTo(c->context);
	e->n = bcmig_get_int64(0, 1, 0);
	e->last = bcmig_get_int64(0, 2, 0);
	value = bcmig_get_datum(0, 3, &isnull);
	e->ids = isnull ? (Datum) 0 : PointerGetDatum(DatumGetArrayTypePCopy(value));
	value = bcmig_get_datum(0, 4, &isnull);
	e->at = isnull ? 0 : DatumGetTimestampTz(value);
	e->net = bcmig_get_int64(0, 5, 0);
	e->old_image = bcmig_get_text(0, 6);
	e->base_version = bcmig_get_int64(0, 7, -1);
	e->old_is_whole = bcmig_get_bool(0, 8);
	MemoryContextSwitchTo(oldcontext);
	bcmig_catalog_end(&scope);
}

/*
 * The record of this key that waits, and whether the newest decided one was
 * decided for green about the same row of blue and entries that are still there.
 */
static bool
look_at_records(Conflict *c)
{
	BcmigCatalogScope scope;
	bool		decided;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT conflict_id FROM bcmig.conflict WHERE table_id = $1 AND jsonb_hash(key) = jsonb_hash($2) AND key = $2 "
			  "AND decision IS NULL FOR UPDATE", "ij", c->table->table_id, c->key);
	c->waiting = SPI_processed > 0 ? bcmig_get_int64(0, 1, 0) : 0;
	decided = bcmig_sql("SELECT 1 FROM (SELECT * FROM bcmig.conflict WHERE table_id = $1 AND jsonb_hash(key) = jsonb_hash($2) AND key = $2 "
						" AND decision IS NOT NULL ORDER BY conflict_id DESC LIMIT 1) d "
						"WHERE d.decision IN ('target', 'row') AND d.blue IS NOT DISTINCT FROM $3 AND d.journal_ids && $4",
						"ijjq", c->table->table_id, c->key, c->blue.image, c->entries.ids) > 0;
	bcmig_catalog_end(&scope);
	c->forced = false;
	for (int i = 0; bcmig_forced_conflicts != NULL && i < bcmig_forced_conflicts->n; i++)
		c->forced |= bcmig_forced_conflicts->ids[i] == c->waiting;
	return decided && is_whole(c->blue.image);
}

static const char *
blue_operation(const Conflict *c)
{
	return !c->blue.exists ? "delete" : c->had_row ? "update" : "insert";
}

static const char *
green_operation(const Conflict *c)
{
	return !c->green.exists ? "delete" : c->had_row ? "update" : "insert";
}

/*
 * Is blue's row one we have made the same as green's before, so that what was
 * written on green since was based on it?  Then it is an echo of our own write,
 * whatever a trigger of blue has made of it.
 */
static bool
is_echo(const Conflict *c)
{
	BcmigCatalogScope scope;
	bool		echo;

	if (!c->blue.exists || c->version < 0 || c->table->ncompanions > 0)
		return false;
	bcmig_catalog_begin(&scope);
	echo = bcmig_sql("SELECT 1 FROM bcmig.journal WHERE table_id = $1 AND produced_version = $3 AND jsonb_hash(new_key) = jsonb_hash($2) "
					 "AND new_key = $2 LIMIT 1", "ijI", c->table->table_id, c->key, c->version) > 0;
	bcmig_catalog_end(&scope);
	return echo;
}

/* has blue the row both sides had? */
static bool
blue_is_unchanged(const Conflict *c)
{
	if (is_echo(c))
		return true;
	if (!c->blue.exists || !c->had_row)
		return !c->blue.exists && !c->had_row;
	if (c->old.exists && !c->old.partial)
		return bcmig_same_side(&c->blue, &c->old);

	/* the journal does not hold it whole; versions of companions are not known */
	return c->table->ncompanions == 0 && c->version >= 0 && c->version == c->entries.base_version;
}

/*
 * All sides are known: what becomes of the row.
 */
static Outcome
decide(Conflict *c)
{
	Oid			type = JSONBOID;
	bool		decided;

	c->detail = NULL;
	c->had_row = (c->green.exists ? 1 : 0) - c->entries.net > 0;
	memset(&c->old, 0, sizeof(c->old));
	if (c->had_row && c->entries.old_image != NULL)
	{
		Datum		image = DirectFunctionCall1(jsonb_in, CStringGetDatum(c->entries.old_image));

		bcmig_read_side(c->table, c->relid, psprintf("SELECT pg_catalog.jsonb_populate_record(NULL::%s, $1) OFFSET 0", c->table->target_name),
						1, &type, &image, NULL, &c->old);
		c->old.partial = !c->entries.old_is_whole;
		if (c->old.partial)
			c->old.image = c->entries.old_image;
	}

	c->policy = bcmig_conflict_policy(c->table);
	decided = look_at_records(c);
	if (bcmig_same_side(&c->blue, &c->green))
	{
		c->detail = "both sides are equal now";
		return EQUAL;
	}
	if (c->forced)
		return SOURCE;
	if (blue_is_unchanged(c))
	{
		c->detail = "blue has the row it had before";
		return UNCHANGED;
	}
	if (c->waiting != 0)
		return WAITS;
	if (decided)
		return DECIDED;
	if (!c->had_row && c->blue.exists && c->green.exists)
	{
		c->detail = "two different rows were inserted: a policy does not decide that";
		return WAITS;
	}
	if (strcmp(c->policy, "source_wins") == 0)
		return SOURCE;
	if (strcmp(c->policy, "target_wins") == 0)
		return TARGET;
	if (strcmp(c->policy, "latest_wins") == 0)
	{
		bool		later = bcmig_green_is_later(c->table, &c->old, &c->blue, &c->green, c->entries.at, &c->detail);

		return c->detail != NULL ? WAITS : later ? TARGET : SOURCE;
	}
	if (strcmp(c->policy, "function") == 0)
		return ASK;
	return WAITS;
}

/*
 * Write blue's row, see what that means, and leave it written or not.  Green's
 * row and "before" were read by the caller.  False: entries came or went
 * meanwhile, nothing was done.  In a subtransaction that the caller ends.
 */
static bool
try_blue(Conflict *c, const Entries *before)
{
	c->changed = bcmig_apply_row(c->table, c->desc, c->row, c->delete);
	read_green(c, &c->blue);
	read_entries(c, &c->entries);
	if (c->entries.n != before->n || c->entries.last != before->last)
		return false;
	c->outcome = c->entries.n == 0 ? APPLIED : decide(c);
	return true;
}

/*
 * Write the row conflict_function returned, in place of green's.  Columns bcmig
 * does not know are written as well: it returns whole rows.
 */
static bool
try_result(Conflict *c, const Entries *before)
{
	Relation	rel = table_open(c->relid, AccessShareLock);
	TupleDesc	desc = CreateTupleDescCopy(RelationGetDescr(rel));
	BcmigSpool	rows = {0};
	HeapTupleHeader record = DatumGetHeapTupleHeader(c->result.record);
	HeapTupleData tuple = {0};
	StringInfoData names;
	StringInfoData sets;
	StringInfoData key;
	Entries		now;
	Tuplestorestate *store;

	initStringInfo(&names);
	initStringInfo(&sets);
	initStringInfo(&key);
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		const char *name = quote_identifier(NameStr(att->attname));
		const char *comma = names.len ? ", " : "";

		if (att->attisdropped || att->attgenerated)
			continue;
		appendStringInfo(&names, "%s%s", comma, name);
		appendStringInfo(&sets, "%s%s = excluded.%s", comma, name, name);
	}
	for (int k = 0; k < c->table->nkeys; k++)
		appendStringInfo(&key, "%s%s", k ? ", " : "", quote_identifier(c->table->columns[c->table->keys[k]].target));
	table_close(rel, AccessShareLock);

	/* as all that bcmig writes, it is read from bcmig_rows */
	tuple.t_len = HeapTupleHeaderGetDatumLength(record);
	tuple.t_data = record;
	rows.desc = desc;
	rows.store = tuplestore_begin_heap(false, false, work_mem);
	tuplestore_puttuple(rows.store, &tuple);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	bcmig_own_write(c->relid);
	c->changed = bcmig_query_spool(&rows, psprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM bcmig_rows w ON CONFLICT (%s) DO UPDATE SET %s",
												   c->table->target_name, names.data, names.data, key.data, sets.data));
	bcmig_own_write_end();
	SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0);
	SPI_finish();
	tuplestore_end(rows.store);
	if (bcmig_mark_written != NULL)
	{
		store = store_of_row(c, &c->version);
		bcmig_mark_written(c->table, store, c->desc);
		tuplestore_end(store);
	}
	read_entries(c, &now);
	return now.n == before->n && now.last == before->last;
}

typedef bool (*Attempt) (Conflict *c, const Entries *before);

/*
 * Run one attempt in a subtransaction, kept when it succeeded and the outcome
 * is among "kept" (a bit each).  Errors of the row are returned.
 */
static bool
attempt(Conflict *c, Attempt what, const Entries *before, int kept, ErrorData **error)
{
	ResourceOwner oldowner = CurrentResourceOwner;
	ErrorData  *volatile edata = NULL;
	volatile bool done = false;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(c->context);
	PG_TRY();
	{
		done = what(c, before);
		if (done && (kept & (1 << c->outcome)) != 0)
			ReleaseCurrentSubTransaction();
		else
			RollbackAndReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(c->context);
		edata = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(c->context);
	CurrentResourceOwner = oldowner;
	if (edata != NULL && !bcmig_is_row_error(edata))
		ReThrowError(edata);
	*error = edata;
	return edata != NULL || done;
}

/* ---- what is written down ---- */

/* blue has won, or both are the same: the entries need not be brought to it any more */
static void
settle(const Conflict *c, const char *as)
{
	BcmigSettled settled = {.key = c->key, .ids = c->entries.ids, .as = as, .version = c->blue.exists ? c->version : -1};

	bcmig_settle_entries(1, &settled);
}

static void
record_new(const Conflict *c, const char *decision)
{
	bcmig_sql("INSERT INTO bcmig.conflict (sync_id, table_id, key, blue_operation, green_operation, old, blue, green, policy, "
			  " decision, blue_version, journal_ids, detail, decided_at) "
			  "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, nullif($11, -1), $12, $13, CASE WHEN $10 IS NOT NULL THEN clock_timestamp() END)",
			  "iijttjjjttIqt", c->table->sync_id, c->table->table_id, c->key, blue_operation(c), green_operation(c),
			  c->old.image, c->blue.image, c->green.image, c->policy, decision, c->version, c->entries.ids, c->detail);
}

/* the record that waits: what blue has now, and perhaps what became of it */
static void
record_again(const Conflict *c, const char *decision, const char *by)
{
	bcmig_sql("UPDATE bcmig.conflict SET blue_operation = $2, green_operation = $3, blue = $4, green = $5, blue_version = nullif($6, -1), "
			  " journal_ids = $7, detail = coalesce($8, detail), decision = $9, decided_by = $10, "
			  " decided_at = CASE WHEN $9 IS NOT NULL THEN clock_timestamp() END "
			  "WHERE conflict_id = $1 AND ($9 IS NOT NULL OR (blue, green, journal_ids) IS DISTINCT FROM ($4, $5, $7))",
			  "IttjjIqttt", c->waiting, blue_operation(c), green_operation(c), c->blue.image, c->green.image, c->version,
			  c->entries.ids, c->detail, decision, by);
}

/* in the transaction of the row */
static void
record(const Conflict *c)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	switch (c->outcome)
	{
		case EQUAL:
			settle(c, "equal");
			if (c->waiting != 0)
				record_again(c, "source", c->forced ? bcmig_forced_conflicts->by : NULL);
			break;
		case UNCHANGED:
			if (c->waiting != 0)
				record_again(c, "target", NULL);
			break;
		case SOURCE:
			settle(c, "overwritten");
			if (c->waiting != 0)
				record_again(c, "source", c->forced ? bcmig_forced_conflicts->by : NULL);
			else
				record_new(c, "source");
			break;
		case WAITS:
			if (c->waiting != 0)
				record_again(c, NULL, NULL);
			else
				record_new(c, NULL);
			break;
		case TARGET:
			record_new(c, "target");
			break;
		case ROW:
			record_new(c, "row");
			break;
		case APPLIED:
		case DECIDED:
		case ASK:
			break;
	}
	bcmig_catalog_end(&scope);
}

/* ---- the way of one row ---- */

static void
take_row(Conflict *c)
{
	Tuplestorestate *store = store_of_row(c, &c->version);
	ArrayBuildState *keys = keys_of_rows(c->table, store, c->desc, NULL);

	c->key = TextDatumGetCString(keys->dvalues[0]);
	tuplestore_end(store);
	c->relid = bcmig_target_relid(c->table);
}

/*
 * conflict_function is to decide.  Returns false when entries came meanwhile.
 */
static bool
ask(Conflict *c)
{
	ErrorData  *error;
	char	   *why;

	if (!bcmig_ask_conflict_function(c->table, c->relid, c->key, &c->old, &c->blue, &c->green, &c->result, &why))
	{
		c->detail = why;
		c->outcome = WAITS;
		return true;
	}
	if (bcmig_same_side(&c->result, &c->green))
	{
		c->outcome = TARGET;
		return true;
	}
	c->outcome = bcmig_same_side(&c->result, &c->blue) ? SOURCE : ROW;
	if (c->outcome == ROW)
		c->detail = psprintf("written: %s", c->result.image);
	if (!attempt(c, try_result, &c->entries, 1 << SOURCE | 1 << ROW, &error))
		return false;
	if (error != NULL)
	{
		c->detail = psprintf("green refuses the row of conflict_function: %s: %s, %s", unpack_sql_state(error->sqlerrcode),
							 error->message, c->result.image);
		c->outcome = WAITS;
	}
	return true;
}

ErrorData *
bcmig_meet_conflict(const BcmigTableInfo *table, TupleDesc desc, MinimalTuple row, bool delete,
					BcmigApplied *applied)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bcmig conflict", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Conflict	c = {0};
	ErrorData  *error = NULL;
	Entries		before;
	bool		done;

	c.table = table;
	c.desc = desc;
	c.row = row;
	c.delete = delete;
	c.context = context;
	take_row(&c);
	do
	{
		CHECK_FOR_INTERRUPTS();
		c.changed = 0;
		read_green(&c, &c.green);
		read_entries(&c, &before);
		done = attempt(&c, try_blue, &before, 1 << APPLIED | 1 << EQUAL | 1 << SOURCE, &error);
		if (done && error == NULL && c.outcome == ASK)
			done = ask(&c);
	} while (!done);

	MemoryContextSwitchTo(oldcontext);
	if (error != NULL)
		return error;			/* goes with the caller's context */

	record(&c);
	if (c.outcome == APPLIED || c.outcome == SOURCE || c.outcome == ROW)
	{
		if (delete && c.outcome != ROW)
			applied->deleted += c.changed;
		else
			applied->written += c.changed;
	}
	MemoryContextDelete(context);
	return NULL;
}
