/*-------------------------------------------------------------------------
 *
 * reverse_rows.c
 *	  Keys with unsettled journal entries, and green's rows of them for blue.
 *
 * Rows are read as the current user, the journal as the owner of the catalogue.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "reverse_rows.h"

#include "access/table.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "conflict.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "transform.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "worker.h"

/*
 * Unsettled entries e of keys k(n, key), a line a key and entry.  OFFSET 0: they
 * are looked up key by key, by the index; a join that takes the unsettled entries
 * for few reads all of them for each.
 */
#define ENTRIES_BY(column, but) \
	"SELECT k.n, k.key, j.* FROM k, LATERAL (SELECT journal_id, old_key, new_key, old_image, new_image, base_version FROM bcmig.journal " \
	"  WHERE table_id = $1 AND settled_at IS NULL AND jsonb_hash(" column ") = jsonb_hash(k.key) AND " column " = k.key" but " OFFSET 0) j"
#define ENTRIES \
	"k AS MATERIALIZED (SELECT n, key::jsonb AS key FROM unnest($2) WITH ORDINALITY u(key, n)), " \
	"e AS MATERIALIZED (" ENTRIES_BY("new_key", "") " UNION ALL " ENTRIES_BY("old_key", " AND old_key IS DISTINCT FROM new_key") ") "

char *
bcmig_green_identity(int sync_id)
{
	return psprintf(UINT64_FORMAT "/%u/%u/%d", GetSystemIdentifier(), GetWALInsertionTimeLine(), MyDatabaseId, sync_id);
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

int
bcmig_load_reverse_keys(const BcmigTableInfo *table, List *texts, BcmigReverseKey **result)
{
	MemoryContext caller = CurrentMemoryContext;
	Datum		array = bcmig_text_array(texts);
	BcmigCatalogScope scope;
	BcmigReverseKey *keys;
	int			n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("WITH " ENTRIES ", "
				  /* the images entries found (old) and made; "moves": its other key is another */
				  "i AS (SELECT n, key, journal_id, old_image AS image, base_version, true AS old, new_key IS DISTINCT FROM key AS moves FROM e WHERE old_key = key "
				  "  UNION ALL SELECT n, key, journal_id, new_image, NULL, false, old_key IS DISTINCT FROM key FROM e WHERE new_key = key), "
				  "m AS (SELECT *, bool_or(NOT old) OVER (PARTITION BY n, image) AS made FROM i), "
				  /* of those found the one no entry has made; else the oldest.  Not by joins: the planner takes e for short */
				  "a AS (SELECT n, key, array_agg(DISTINCT journal_id ORDER BY journal_id) AS ids, "
				  "  count(*) FILTER (WHERE moves AND NOT old) - count(*) FILTER (WHERE moves AND old) AS net, "
				  "  (array_agg(image ORDER BY made, journal_id) FILTER (WHERE old))[1] AS old_image, "
				  "  (array_agg(base_version ORDER BY made, journal_id) FILTER (WHERE old))[1] AS base_version FROM m GROUP BY n, key) "
				  "SELECT a.key::text, a.ids, ARRAY(SELECT jsonb_array_elements_text(a.key)), a.net, "
				  " CASE WHEN NOT EXISTS (SELECT FROM jsonb_each(a.old_image) v WHERE jsonb_typeof(v.value) IN ('object', 'array')) THEN a.old_image::text END, "
				  " a.base_version, d.conflict_id IS NOT NULL, d.blue::text, d.blue_version, "
				  " NOT EXISTS (SELECT FROM jsonb_each(d.blue) v WHERE jsonb_typeof(v.value) IN ('object', 'array')) "
				  "FROM a LEFT JOIN LATERAL (SELECT * FROM (SELECT * FROM bcmig.conflict c WHERE c.table_id = $1 AND jsonb_hash(c.key) = jsonb_hash(a.key) "
				  "   AND c.key = a.key AND c.decision IS NOT NULL ORDER BY c.conflict_id DESC LIMIT 1) c "
				  "  WHERE c.decision IN ('target', 'row') AND c.journal_ids && a.ids) d ON true "
				  "WHERE NOT EXISTS (SELECT FROM bcmig.conflict c WHERE c.table_id = $1 AND jsonb_hash(c.key) = jsonb_hash(a.key) "
				  "  AND c.key = a.key AND c.decision IS NULL OFFSET 0) ORDER BY a.n",
				  "ik", table->table_id, array);
	MemoryContextSwitchTo(caller);
	keys = palloc0(sizeof(BcmigReverseKey) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		BcmigReverseKey *k = &keys[i];
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

List *
bcmig_columns_for_blue(const BcmigTableInfo *table, bool companions)
{
	List	   *columns = NIL;

	for (int i = 0; i < table->ncolumns; i++)
	{
		if ((companions || table->columns[i].part == 0) && bcmig_has_inverse(&table->columns[i]))
			columns = lappend_int(columns, i);
	}
	return columns;
}

/* SQL: the values of green's row "g" for blue, a text array */
static char *
row_for_blue(const BcmigTableInfo *table, List *columns)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	appendStringInfoString(&s, "ARRAY[");
	foreach(lc, columns)
	{
		const BcmigColumn *c = &table->columns[lfirst_int(lc)];

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

/*
 * SQL: the keys in $1 joined to the rows they have, as g.  OFFSET 0: by the key's
 * index, however small the table seems to be.
 */
static char *
rows_by_key(const BcmigTableInfo *table)
{
	Relation	rel = table_open(bcmig_target_relid(table), AccessShareLock);
	TupleDesc	desc = RelationGetDescr(rel);
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "pg_catalog.unnest($1) WITH ORDINALITY k(key, n), LATERAL (SELECT * FROM %s g WHERE ", table->target_name);
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
	appendStringInfo(&s, "k.key::pg_catalog.jsonb = (%s)::pg_catalog.jsonb OFFSET 0) g", bcmig_green_key(table, desc, "g"));
	table_close(rel, AccessShareLock);
	return s.data;
}

int
bcmig_keys_that_fit(const BcmigTableInfo *table, List *texts, int64 most)
{
	StringInfoData size;
	int64		bytes = 0;
	int			fit = list_length(texts);

	initStringInfo(&size);
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (bcmig_unbounded_type(table->columns[i].source_type))
			appendStringInfo(&size, "%scoalesce(pg_catalog.octet_length(g.%s::pg_catalog.text), 0)", size.len ? " + " : "",
							 quote_identifier(table->columns[i].target));
	}
	if (size.len == 0)
		return fit;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ask_green(psprintf("SELECT k.n::pg_catalog.int8, (%s)::pg_catalog.int8 FROM %s ORDER BY k.n", size.data, rows_by_key(table)), bcmig_text_array(texts));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		bytes += bcmig_get_int64(i, 2, 0);
		if (bytes > most && i > 0)
		{
			fit = bcmig_get_int64(i, 1, 0) - 1;
			break;
		}
	}
	SPI_finish();
	return Max(fit, 1);
}

static void
read_rows(const BcmigTableInfo *table, List *columns, int n, BcmigReverseKey *keys)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *texts = NIL;

	for (int i = 0; i < n; i++)
		texts = lappend(texts, keys[i].reverse.key);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	ask_green(psprintf("SELECT k.n::pg_catalog.int8, %s::pg_catalog.text FROM %s", row_for_blue(table, columns), rows_by_key(table)), bcmig_text_array(texts));
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
		keys[bcmig_get_int64(i, 1, 0) - 1].reverse.row = bcmig_get_text(i, 2);
	SPI_finish();
	MemoryContextSwitchTo(caller);
}

/* images of rows, as the journal and conflicts have them, as blue has such rows; NULL = none */
static char **
images_for_blue(const BcmigTableInfo *table, List *columns, char **images, int n)
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
					   "WHERE i.image IS NOT NULL", row_for_blue(table, columns), table->target_name),
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
add_known(const BcmigTableInfo *table, List *columns, int n, BcmigReverseKey *keys)
{
	char	  **images = palloc0(sizeof(char *) * Max(n, 1) * 2);
	char	  **rows;

	for (int i = 0; i < n; i++)
	{
		images[2 * i] = keys[i].old_image;
		images[2 * i + 1] = keys[i].decided && keys[i].seen_whole ? keys[i].seen_image : NULL;
	}
	rows = images_for_blue(table, columns, images, 2 * n);
	for (int i = 0; i < n; i++)
	{
		BcmigReverseKey *k = &keys[i];
		bool		had_row = (k->reverse.row ? 1 : 0) - k->net > 0;
		BcmigKnown *known = k->reverse.known;

		known[k->reverse.nknown++] = (BcmigKnown) {.absent = !had_row, .version = k->base_version, .row = rows[2 * i]};
		if (k->decided)
			known[k->reverse.nknown++] = (BcmigKnown) {.absent = k->seen_image == NULL, .version = k->seen_version, .row = rows[2 * i + 1]};
	}
}

void
bcmig_read_reverse_rows(const BcmigTableInfo *table, List *columns, int n, BcmigReverseKey *keys)
{
	read_rows(table, columns, n, keys);
	add_known(table, columns, n, keys);
}
