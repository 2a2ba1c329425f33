/*-------------------------------------------------------------------------
 *
 * reverse.c
 *	  Bringing to blue what was written on green.
 *
 * Table by table, under its applier lock, so that nothing of blue is read and
 * written to green meanwhile.  A batch is one transaction:
 *
 *	1	one snapshot shows the unsettled entries of some keys and green's rows
 *		of them: a write and its entry commit together, so the rows are what
 *		these entries have made of them, whoever else is writing
 *	2	one statement brings the rows to blue, each only when blue has what
 *		green's row was based on (blue/postgres_switch.sql)
 *	3	the entries are settled
 *
 * postgres_fdw commits blue just before green commits.  Who dies in between has
 * written to blue and settled nothing.  bcmig.reverse_sent says so from before
 * the batch, and whoever is next to apply rows of blue asks blue first.
 *
 * What was written on blue as well is read again from there and meets the
 * journal like any other change of blue (conflict.c), which records it.  A key
 * whose conflict waits, or that blue refuses, holds back itself only.
 *
 * Rows of the green table are read as the sync's owner, the journal as the owner
 * of the catalogue.  Memory: a context per batch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "reverse.h"

#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "conflict.h"
#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "remote.h"
#include "slot.h"
#include "state.h"
#include "transform.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "worker.h"

#define PAGE_KEYS		20000	/* keys listed at a time */
#define AGAIN_KEYS		10000	/* of those refused before, which may need each other */
#define BATCH_BYTES		(8 * 1024 * 1024)

/* a key of a batch */
typedef struct Key
{
	BcmigReverse reverse;		/* must be first: key, ids, what blue may have, the row */
	Datum		ids;
	char	  **texts;			/* the key */
	int64		net;			/* 1 = the entries made the row, -1 = they deleted it */
	char	   *old_image;		/* of the row both sides had; NULL = not known whole */
	int64		base_version;
	bool		decided;		/* for green, about blue's row as it was then: */
	char	   *seen_image;		/* NULL = there was none */
	bool		seen_whole;
	int64		seen_version;
} Key;

/* one pass over a table */
typedef struct Pass
{
	BcmigWork  *work;
	const char *green;
	Oid			feed;			/* text feed of the environment */
	List	   *columns;
	TimestampTz deadline;
	int			batch;			/* keys in one */
	bool		late;			/* the deadline came first */
	int64		refused;
	int64		met;			/* keys blue has changed too */
	BcmigReplayed *result;
} Pass;

/* a batch is being committed: for bcmig_debug_point */
static bool committing = false;

/* which green this is: a copy of it, or one that was set back, is another */
static char *
green_identity(int sync_id)
{
	return psprintf(UINT64_FORMAT "/%u/%u/%d", GetSystemIdentifier(), GetWALInsertionTimeLine(), MyDatabaseId, sync_id);
}

/* ---- what is to be brought back ---- */

/* unsettled entries e of keys k(n, key), a line a key and entry */
#define ENTRIES \
	"k AS MATERIALIZED (SELECT n, key::jsonb AS key FROM unnest($2) WITH ORDINALITY u(key, n)), " \
	"e AS MATERIALIZED (SELECT k.n, k.key, j.journal_id, j.old_key, j.new_key, j.old_image, j.new_image, j.base_version " \
	"  FROM k JOIN bcmig.journal j ON j.table_id = $1 AND j.settled_at IS NULL AND jsonb_hash(j.new_key) = jsonb_hash(k.key) AND j.new_key = k.key " \
	" UNION ALL SELECT k.n, k.key, j.journal_id, j.old_key, j.new_key, j.old_image, j.new_image, j.base_version " \
	"  FROM k JOIN bcmig.journal j ON j.table_id = $1 AND j.settled_at IS NULL AND jsonb_hash(j.old_key) = jsonb_hash(k.key) AND j.old_key = k.key " \
	"   AND j.old_key IS DISTINCT FROM j.new_key) "

/*
 * Keys with unsettled entries in the order of their first one, after (id, key)
 * and up to entry "last".  List of char *, in the current context.
 */
static List *
list_keys(const BcmigTableInfo *table, int64 *after_id, char **after_key, int64 last)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *keys = NIL;
	uint64		n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT k.key::text, min(j.journal_id) FROM bcmig.journal j, "
				  " LATERAL (SELECT j.old_key AS key WHERE j.old_key IS NOT NULL UNION SELECT j.new_key WHERE j.new_key IS NOT NULL) k "
				  "WHERE j.table_id = $1 AND j.settled_at IS NULL GROUP BY k.key "
				  "HAVING (min(j.journal_id), k.key::text) > ($2, $3) AND min(j.journal_id) <= $4 ORDER BY 2, 1 LIMIT $5",
				  "iItIi", table->table_id, *after_id, *after_key, last, PAGE_KEYS);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		keys = lappend(keys, bcmig_get_text(i, 1));
		*after_id = bcmig_get_int64(i, 2, 0);
	}
	if (n > 0)
		*after_key = llast(keys);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return keys;
}

static int64 *
get_ids(Datum array, int *n)
{
	Datum	   *values;
	int64	   *ids;

	deconstruct_array(DatumGetArrayTypeP(array), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values, NULL, n);
	ids = palloc(sizeof(int64) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		ids[i] = DatumGetInt64(values[i]);
	return ids;
}

/*
 * What the journal says of these keys, in the current transaction and context;
 * how many there are.  Keys without entries, and those whose conflict waits, are
 * left out.
 */
static int
load_keys(const BcmigTableInfo *table, List *texts, Key **result)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum		array = bcmig_text_array(texts);
	BcmigCatalogScope scope;
	Key		   *keys;
	int			n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("WITH " ENTRIES ", "
				  "a AS (SELECT n, key, array_agg(journal_id ORDER BY journal_id) AS ids, "
				  "  count(*) FILTER (WHERE new_key = key AND old_key IS DISTINCT FROM key) "
				  "   - count(*) FILTER (WHERE old_key = key AND new_key IS DISTINCT FROM key) AS net FROM e GROUP BY n, key), "
				  /* the image no other entry has made; else the oldest */
				  "b AS (SELECT DISTINCT ON (o.n) o.n, o.old_image, o.base_version FROM e o "
				  "  LEFT JOIN (SELECT DISTINCT n, new_image FROM e WHERE new_key = key) x ON x.n = o.n AND x.new_image = o.old_image "
				  "  WHERE o.old_key = o.key ORDER BY o.n, x.n IS NOT NULL, o.journal_id) "
				  "SELECT a.key::text, a.ids, ARRAY(SELECT jsonb_array_elements_text(a.key)), a.net, "
				  " CASE WHEN NOT EXISTS (SELECT FROM jsonb_each(b.old_image) v WHERE jsonb_typeof(v.value) IN ('object', 'array')) THEN b.old_image::text END, "
				  " b.base_version, d.conflict_id IS NOT NULL, d.blue::text, d.blue_version, "
				  " NOT EXISTS (SELECT FROM jsonb_each(d.blue) v WHERE jsonb_typeof(v.value) IN ('object', 'array')) "
				  "FROM a LEFT JOIN b USING (n) "
				  "LEFT JOIN LATERAL (SELECT * FROM (SELECT * FROM bcmig.conflict c WHERE c.table_id = $1 AND jsonb_hash(c.key) = jsonb_hash(a.key) "
				  "   AND c.key = a.key AND c.decision IS NOT NULL ORDER BY c.conflict_id DESC LIMIT 1) c "
				  "  WHERE c.decision IN ('target', 'row') AND c.journal_ids && a.ids) d ON true "
				  "WHERE NOT EXISTS (SELECT FROM bcmig.conflict c WHERE c.table_id = $1 AND jsonb_hash(c.key) = jsonb_hash(a.key) "
				  "  AND c.key = a.key AND c.decision IS NULL) ORDER BY a.n",
				  "ik", table->table_id, array);
	MemoryContextSwitchTo(caller);
	keys = palloc0(sizeof(Key) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		Key		   *k = &keys[i];
		bool		isnull;

		k->reverse.key = bcmig_get_text(i, 1);
		k->ids = PointerGetDatum(DatumGetArrayTypePCopy(bcmig_get_datum(i, 2, &isnull)));
		k->reverse.ids = get_ids(k->ids, &k->reverse.nids);
		k->texts = bcmig_get_texts(i, 3, table->nkeys, caller);
		k->net = bcmig_get_int64(i, 4, 0);
		k->old_image = bcmig_get_text(i, 5);
		k->base_version = bcmig_get_int64(i, 6, -1);
		k->decided = bcmig_get_bool(i, 7);
		k->seen_image = bcmig_get_text(i, 8);
		k->seen_version = bcmig_get_int64(i, 9, -1);
		k->seen_whole = bcmig_get_bool(i, 10);
		if (k->texts == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_JOURNAL),
					 errmsg("an entry of the journal was made with another key: %s", k->reverse.key),
					 errhint("SELECT * FROM bcmig.journal WHERE settled_at IS NULL AND table_id = %d;", table->table_id)));
	}
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	*result = keys;
	return n;
}

/* ---- green's rows ---- */

/* columns blue gets: all of the base table whose values can be told from green's */
static List *
columns_for_blue(const BcmigTableInfo *table)
{
	List	   *columns = NIL;

	for (int i = 0; i < table->ncolumns; i++)
	{
		if (table->columns[i].part == 0 && bcmig_has_inverse(&table->columns[i]))
			columns = lappend_int(columns, i);
	}
	return columns;
}

/* SQL: the values of green's row "g" for blue, a text array */
static char *
row_for_blue(const Pass *pass)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	appendStringInfoString(&s, "ARRAY[");
	foreach(lc, pass->columns)
	{
		const BcmigColumn *c = &pass->work->table->columns[lfirst_int(lc)];

		appendStringInfo(&s, "%s(%s)::pg_catalog.text", foreach_current_index(lc) > 0 ? ", " : "",
						 bcmig_inverse_expression(c, psprintf("g.%s", quote_identifier(c->target))));
	}
	appendStringInfoString(&s, "]");
	return s.data;
}

/* a query about green's table with one text[] argument, as the current user, in the current snapshot; SPI connected */
static void
ask_green(const char *sql, Datum array)
{
	Oid			type = TEXTARRAYOID;

	if (SPI_execute_with_args(sql, 1, &type, &array, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", sql);
}

/* SQL: the keys in $1 joined to the rows they have, as g */
static char *
rows_by_key(const BcmigTableInfo *table)
{
	Relation	rel = table_open(bcmig_target_relid(table), AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "pg_catalog.unnest($1) WITH ORDINALITY k(key, n) JOIN %s g ON ", table->target_name);
	for (int i = 0; i < table->nkeys; i++)
	{
		const char *name = table->columns[table->keys[i]].target;
		AttrNumber	attnum = get_attnum(RelationGetRelid(rel), name);

		if (attnum == InvalidAttrNumber)
			elog(ERROR, "column \"%s\" of %s is gone", name, table->target_name);
		appendStringInfo(&s, "g.%s = (k.key::pg_catalog.jsonb->>%d)::%s AND ", quote_identifier(name), i,
						 format_type_be_qualified(TupleDescAttr(desc, attnum - 1)->atttypid));
	}
	/* equal is not enough where a collation says so */
	appendStringInfo(&s, "k.key::pg_catalog.jsonb = (%s)::pg_catalog.jsonb", bcmig_green_key(table, desc, "g"));
	table_close(rel, AccessShareLock);
	return s.data;
}

/*
 * How many of these keys have rows that are not too much for one statement; at
 * least one.
 */
static int
fitting(Pass *pass, int n, Datum keys)
{
	const BcmigTableInfo *table = pass->work->table;
	StringInfoData size;
	int64		bytes = 0;
	int			fit = n;

	if (!pass->work->unbounded)
		return n;
	initStringInfo(&size);
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (bcmig_unbounded_type(table->columns[i].source_type))
			appendStringInfo(&size, "%scoalesce(pg_catalog.octet_length(g.%s::pg_catalog.text), 0)", size.len ? " + " : "",
							 quote_identifier(table->columns[i].target));
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ask_green(psprintf("SELECT k.n::pg_catalog.int8, (%s)::pg_catalog.int8 FROM %s ORDER BY k.n", size.data, rows_by_key(table)), keys);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bytes += bcmig_get_int64(i, 2, 0);
		if (bytes > BATCH_BYTES && i > 0)
		{
			fit = bcmig_get_int64(i, 1, 0) - 1;
			break;
		}
	}
	SPI_finish();
	return Max(fit, 1);
}

static void
read_rows(Pass *pass, Key *keys, int n, Datum texts)
{
	MemoryContext caller = CurrentMemoryContext;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ask_green(psprintf("SELECT k.n::pg_catalog.int8, %s::pg_catalog.text FROM %s", row_for_blue(pass), rows_by_key(pass->work->table)), texts);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
		keys[bcmig_get_int64(i, 1, 0) - 1].reverse.row = bcmig_get_text(i, 2);
	SPI_finish();
	MemoryContextSwitchTo(caller);
}

/* images of rows, as the journal and conflicts have them, as blue has such rows; NULL = none */
static char **
images_for_blue(Pass *pass, char **images, int n)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum	   *values = palloc(sizeof(Datum) * Max(n, 1));
	bool	   *nulls = palloc(sizeof(bool) * Max(n, 1));
	int			dims = n;
	int			lower = 1;
	char	  **rows = palloc0(sizeof(char *) * Max(n, 1));

	for (int i = 0; i < n; i++)
	{
		nulls[i] = images[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(images[i]);
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ask_green(psprintf("SELECT i.n::pg_catalog.int8, pg_catalog.to_jsonb(%s)::pg_catalog.text FROM pg_catalog.unnest($1) WITH ORDINALITY i(image, n), "
					   "LATERAL (SELECT (x.r).* FROM (SELECT pg_catalog.jsonb_populate_record(NULL::%s, i.image::pg_catalog.jsonb) AS r OFFSET 0) x) g "
					   "WHERE i.image IS NOT NULL", row_for_blue(pass), pass->work->table->target_name),
			  PointerGetDatum(construct_md_array(values, nulls, 1, &dims, &lower, TEXTOID, -1, false, TYPALIGN_INT)));
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
		rows[bcmig_get_int64(i, 1, 0) - 1] = bcmig_get_text(i, 2);
	SPI_finish();
	MemoryContextSwitchTo(caller);
	return rows;
}

/*
 * What blue's rows may be: the row both sides had before the first of the
 * entries, and the one a person has decided about.
 */
static void
add_known(Pass *pass, Key *keys, int n)
{
	char	  **images = palloc0(sizeof(char *) * Max(n, 1) * 2);
	char	  **rows;

	for (int i = 0; i < n; i++)
	{
		images[2 * i] = keys[i].old_image;
		images[2 * i + 1] = keys[i].decided && keys[i].seen_whole ? keys[i].seen_image : NULL;
	}
	rows = images_for_blue(pass, images, 2 * n);
	for (int i = 0; i < n; i++)
	{
		Key		   *k = &keys[i];
		bool		had_row = (k->reverse.row ? 1 : 0) - k->net > 0;
		BcmigKnown *known = k->reverse.known;

		known[k->reverse.nknown++] = (BcmigKnown) {.absent = !had_row, .version = k->base_version, .row = rows[2 * i]};
		if (k->decided)
			known[k->reverse.nknown++] = (BcmigKnown) {.absent = k->seen_image == NULL, .version = k->seen_version, .row = rows[2 * i + 1]};
	}
}

/* ---- a batch ---- */

static void
at_commit(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT && committing)
		bcmig_debug_point("replay_between_commits");
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		committing = false;
}

/* registered before any wrapper's, so that it is called after them */
void
bcmig_reverse_init(void)
{
	RegisterXactCallback(at_commit, NULL);
}

/* the first problem counts; it outlives the batch */
static void
set_problem(BcmigReplayed *result, const char *problem)
{
	if (result->problem == NULL)
		result->problem = MemoryContextStrdup(GetMemoryChunkContext(result), problem);
}

/*
 * What blue has changed too: read from there, it meets the journal.
 */
static void
meet_conflicts(Pass *pass, List *met)
{
	BcmigWork  *work = pass->work;
	int			nkeys = work->table->nkeys;
	char	  **texts = palloc(sizeof(char *) * list_length(met) * nkeys);
	BcmigReading reading;
	BcmigApplied applied = {0};
	ListCell   *lc;

	bcmig_reading(work->table->table_id, &reading);
	if (reading.poll == 0)
	{
		pass->refused += list_length(met);
		set_problem(pass->result, psprintf("rows of %s that blue has changed too cannot be read from it: sync \"%s\" does not run",
										   work->table->target_name, work->table->sync_name));
		return;
	}
	foreach(lc, met)
		memcpy(&texts[foreach_current_index(lc) * nkeys], ((Key *) lfirst(lc))->texts, sizeof(char *) * nkeys);
	bcmig_reread_keys(work, "reverse", list_length(met), texts, &applied);
}

/* known before blue can have anything of the batch; in no transaction */
static void
mark_sent(int table_id)
{
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.reverse_sent (table_id) VALUES ($1) ON CONFLICT DO NOTHING", "i", table_id);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

/* in the transaction that settles the entries */
static void
forget_sent(int table_id)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.reverse_sent WHERE table_id = $1", "i", table_id);
	bcmig_catalog_end(&scope);
}

void
bcmig_replay_heard(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	BcmigSettled *settled;
	List	   *answers;
	ListCell   *lc;
	int64		since;
	int			n = 0;

	bcmig_applier_lock(work, ExclusiveLock);
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT min(journal_id) FROM bcmig.journal WHERE table_id = $1 AND settled_at IS NULL", "i", table->table_id);
	since = bcmig_get_int64(0, 1, PG_INT64_MAX);
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	answers = bcmig_remote_texts(bcmig_text_feed(table->environment_id),
								 work->dialect->replayed(table, green_identity(table->sync_id), since));
	settled = palloc(sizeof(BcmigSettled) * Max(list_length(answers), 1));
	foreach(lc, answers)
	{
		char	  **answer = lfirst(lc);
		Datum		ids = OidInputFunctionCall(F_ARRAY_IN, answer[1], INT8OID, -1);

		settled[n++] = (BcmigSettled) {.key = answer[0], .ids = ids, .as = "replayed", .version = answer[2] ? pg_strtoint64(answer[2]) : -1};
	}
	bcmig_catalog_begin(&scope);
	bcmig_settle_entries(n, settled);
	bcmig_catalog_end(&scope);
	forget_sent(table->table_id);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	bcmig_applier_unlock(work, ExclusiveLock);
}

/*
 * Bring these keys (List of char *) to blue, or as many of them as fit; returns
 * how many were dealt with.
 */
static int
replay_batch(Pass *pass, List *texts)
{
	const BcmigTableInfo *table = pass->work->table;
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	BcmigReplayed *result = pass->result;
	BcmigReverse *reverse;
	BcmigSettled *settled;
	Key		   *keys;
	List	   *answers;
	List	   *met = NIL;
	ListCell   *lc;
	int			n;
	int			nsettled = 0;
	int			done;
	int64		written = 0;
	int64		equal = 0;

	mark_sent(table->table_id);
	bcmig_start_snapshot();
	done = fitting(pass, list_length(texts), bcmig_text_array(texts));
	texts = list_truncate(list_copy(texts), done);
	n = load_keys(table, texts, &keys);
	if (n == 0)
	{
		forget_sent(table->table_id);
		bcmig_end_transaction();
		return done;
	}
	texts = NIL;
	for (int i = 0; i < n; i++)
		texts = lappend(texts, keys[i].reverse.key);
	read_rows(pass, keys, n, bcmig_text_array(texts));
	add_known(pass, keys, n);
	reverse = palloc(sizeof(BcmigReverse) * n);
	for (int i = 0; i < n; i++)
		reverse[i] = keys[i].reverse;

	bcmig_debug_point("replay_read");
	answers = bcmig_remote_texts(pass->feed, pass->work->dialect->replay(table, pass->green, pass->columns, n, reverse));
	settled = palloc(sizeof(BcmigSettled) * n);
	foreach(lc, answers)
	{
		char	  **answer = lfirst(lc);
		int			i = pg_strtoint32(answer[0]) - 1;
		const char *outcome = answer[1];

		if (i < 0 || i >= n)
			elog(ERROR, "blue answered about row %d of %d", i + 1, n);
		if (strcmp(outcome, "conflict") == 0)
			met = lappend(met, &keys[i]);
		else if (strcmp(outcome, "refused") == 0)
		{
			pass->refused++;
			set_problem(result, psprintf("blue refuses %s of %s: %s: %s", keys[i].reverse.key, table->target_name, answer[3], answer[4]));
		}
		else
		{
			bool		same = strcmp(outcome, "equal") == 0;

			*(same ? &equal : &written) += 1;
			settled[nsettled++] = (BcmigSettled) {.key = keys[i].reverse.key, .ids = keys[i].ids, .as = same ? "equal" : "replayed",
				.version = answer[2] && keys[i].reverse.row ? pg_strtoint64(answer[2]) : -1};
		}
	}
	bcmig_catalog_begin(&scope);
	bcmig_settle_entries(nsettled, settled);
	bcmig_catalog_end(&scope);
	forget_sent(table->table_id);
	committing = true;
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);

	result->written += written;
	result->equal += equal;
	pass->met += list_length(met);
	if (met != NIL)
		meet_conflicts(pass, met);
	return done;
}

/* ---- a table ---- */

static int64
newest_entry(int table_id)
{
	BcmigCatalogScope scope;
	int64		id;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT max(journal_id) FROM bcmig.journal WHERE table_id = $1 AND settled_at IS NULL", "i", table_id);
	id = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return id;
}

static void
replay_table(Pass *pass)
{
	BcmigWork  *work = pass->work;
	MemoryContext page_context = AllocSetContextCreate(CurrentMemoryContext, "bcmig reverse", ALLOCSET_DEFAULT_SIZES);
	MemoryContext batch_context = AllocSetContextCreate(CurrentMemoryContext, "bcmig reverse batch", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = CurrentMemoryContext;
	int64		last = newest_entry(work->table->table_id);
	int64		after_id = 0;
	char	   *after_key = "";
	bool		more;

	bcmig_slot_phase("reverse", work->table->target_name, 0);
	bcmig_applier_lock(work, ExclusiveLock);
	do
	{
		List	   *keys;

		MemoryContextSwitchTo(oldcontext);
		after_key = pstrdup(after_key);
		MemoryContextReset(page_context);
		MemoryContextSwitchTo(page_context);
		keys = list_keys(work->table, &after_id, &after_key, last);
		more = list_length(keys) == PAGE_KEYS;
		while (keys != NIL && !pass->late)
		{
			int			done;

			CHECK_FOR_INTERRUPTS();
			MemoryContextSwitchTo(batch_context);
			done = replay_batch(pass, list_truncate(list_copy(keys), pass->batch));
			MemoryContextSwitchTo(page_context);
			MemoryContextReset(batch_context);
			keys = list_delete_first_n(keys, done);
			pass->late = GetCurrentTimestamp() >= pass->deadline;
		}
	} while (more && !pass->late);
	bcmig_applier_unlock(work, ExclusiveLock);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(page_context);
	MemoryContextDelete(batch_context);
}

/* ---- a sync ---- */

/* tables with unsettled entries; in the current context */
static List *
pending_tables(int sync_id)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *ids = NIL;
	uint64		n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT t.table_id FROM bcmig.sync_table t WHERE t.sync_id = $1 "
				  "AND EXISTS (SELECT FROM bcmig.journal j WHERE j.table_id = t.table_id AND j.settled_at IS NULL) ORDER BY 1", "i", sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		ids = lappend_int(ids, bcmig_get_int64(i, 1, 0));
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return ids;
}

int64
bcmig_unreplayed(int sync_id)
{
	BcmigCatalogScope scope;
	int64		n;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT count(DISTINCT (j.table_id, k.key)) FROM bcmig.journal j, "
			  " LATERAL (SELECT j.old_key AS key WHERE j.old_key IS NOT NULL UNION SELECT j.new_key WHERE j.new_key IS NOT NULL) k "
			  "WHERE j.sync_id = $1 AND j.settled_at IS NULL", "i", sync_id);
	n = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	return n;
}

/* keys whose conflict waits; in no transaction */
static int64
waiting_conflicts(int sync_id)
{
	BcmigCatalogScope scope;
	int64		n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT count(*) FROM bcmig.conflict WHERE sync_id = $1 AND decision IS NULL", "i", sync_id);
	n = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return n;
}

static Oid
text_feed_of(const BcmigSync *sync, const BcmigDialect **dialect)
{
	Oid			feed = bcmig_text_feed(sync->environment_id);

	if (!OidIsValid(feed))
		ereport(ERROR,
				(errcode(ERRCODE_BM_FEED_SHAPE),
				 errmsg("the text feed of environment %d is gone", sync->environment_id)));
	*dialect = bcmig_dialect_of_server(GetForeignTable(feed)->serverid);
	return feed;
}

char *
bcmig_replay_problem(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	const BcmigDialect *dialect;
	char	   *problem = NULL;
	Oid			feed;
	List	   *answers;
	char	  **answer;

	bcmig_start_transaction();
	MemoryContextSwitchTo(caller);
	feed = text_feed_of(sync, &dialect);
	if (dialect->replay == NULL)
		problem = psprintf("bcmig does not write to a blue on %s itself", dialect->name);
	else
	{
		answers = bcmig_remote_texts(feed, dialect->may_write());
		answer = answers != NIL ? linitial(answers) : NULL;
		if (answer == NULL || answer[0] == NULL)
			problem = psprintf("blue/postgres_switch.sql has not been run on blue");
		else if (strcmp(answer[0], "true") != 0)
			problem = psprintf("%s may not write to blue: SELECT bcmig_blue.grant_switch(%s); -- on blue", answer[1],
							   quote_literal_cstr(quote_identifier(answer[1])));
	}
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	return problem;
}

/*
 * Passes over all tables as long as one helps: what a unique or foreign key of
 * blue refuses may wait for another row, or another table.
 */
void
bcmig_replay(const BcmigSync *sync, TimestampTz deadline, BcmigReplayed *result)
{
	MemoryContext caller = CurrentMemoryContext;
	const BcmigDialect *dialect;
	Oid			feed;
	bool		again;
	BcmigReplayed *now = palloc(sizeof(BcmigReplayed));

	memset(result, 0, sizeof(*result));
	bcmig_start_transaction();
	feed = text_feed_of(sync, &dialect);
	bcmig_end_transaction();
	if (dialect->replay == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_BLUE),
				 errmsg("bcmig does not write to a blue on %s itself", dialect->name),
				 errhint("SELECT bcmig_blue_script('reverse', %s);", quote_literal_cstr(sync->name))));
	for (int round = 1;; round++)
	{
		List	   *tables = pending_tables(sync->sync_id);
		int64		refused = 0;
		int64		met = 0;
		bool		late = false;
		ListCell   *lc;

		memset(now, 0, sizeof(*now));
		again = false;
		foreach(lc, tables)
		{
			Pass		pass = {.green = green_identity(sync->sync_id), .feed = feed, .deadline = deadline, .result = now};

			pass.work = bcmig_load_work(lfirst_int(lc), caller);
			if (pass.work == NULL)
				continue;
			pass.columns = columns_for_blue(pass.work->table);
			pass.batch = round == 1 ? pass.work->table->batch_rows : Max(pass.work->table->batch_rows, AGAIN_KEYS);
			replay_table(&pass);
			refused += pass.refused;
			met += pass.met;
			/* those that need each other may have been in two batches */
			again |= round == 1 && (pass.refused > 1 || pass.met > 0);
			late = pass.late;
			if (late)
				break;
		}
		result->written += now->written;
		result->equal += now->equal;
		result->left = refused;
		result->problem = now->problem;
		if (late)
		{
			bcmig_start_transaction();
			result->left = Max(refused, bcmig_unreplayed(sync->sync_id) - met);
			bcmig_end_transaction();
			if (result->left > 0 && result->problem == NULL)
				result->problem = pstrdup("time was up");
			break;
		}
		if (!again && !(refused > 0 && now->written + now->equal > 0))
			break;
	}
	result->conflicts = waiting_conflicts(sync->sync_id);
}
