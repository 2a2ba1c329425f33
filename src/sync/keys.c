/*-------------------------------------------------------------------------
 *
 * keys.c
 *	  Key and indexes of a green table around its copy.
 *
 * A table bcmig made is loaded without its primary key, which is built after
 * the last chunk.  A key that stands twice by then (rows that moved while they
 * were copied) is deleted and re-read from blue.  Secondary indexes come after
 * the first catch-up, since the copy is not a moment in time and may break
 * them; unique ones are deferrable, so that two rows can swap a value.
 *
 * All DDL runs as the owner of the sync, each statement in a transaction of its
 * own: a crash between two of them goes on with the next.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "own_write.h"
#include "quarantine.h"
#include "reach.h"
#include "slot.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#define DUPLICATE_ROUNDS	5
#define DUPLICATE_KEYS		1000

Oid
bcmig_target_relid(const BcmigTableInfo *table)
{
	Oid			nsp = get_namespace_oid(table->target_schema, true);
	Oid			relid = OidIsValid(nsp) ? get_relname_relid(table->target_table, nsp) : InvalidOid;

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("green table %s is gone", table->target_name),
				 errhint("SELECT bcmig_remove_table(%s, %s);",
						 quote_literal_cstr(table->sync_name), quote_literal_cstr(table->target_name))));
	return relid;
}

/* change the table, as the current user, the sync's owner; in a transaction */
static void
change(const BcmigTableInfo *table, const char *sql)
{
	int			rc;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	bcmig_own_ddl(bcmig_target_relid(table));
	rc = SPI_execute(sql, false, 0);
	bcmig_own_write_end();
	if (rc < 0)
		elog(ERROR, "SPI_execute failed: %s: %s", SPI_result_code_string(rc), sql);
	SPI_finish();
}

static char *
key_list(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int k = 0; k < table->nkeys; k++)
		appendStringInfo(&s, "%s%s", k ? ", " : "",
						 quote_identifier(table->columns[table->keys[k]].target));
	return s.data;
}

/*
 * Before the copy of a table bcmig made: the key goes, unless something
 * depends on it.  In a transaction.
 */
void
bcmig_drop_key(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	Oid			relid = bcmig_target_relid(table);
	BcmigCatalogScope scope;
	char	   *constraint = NULL;
	MemoryContext caller = CurrentMemoryContext;

	/* distributed meanwhile: its copy needs the key */
	if (bcmig_reach_of(table) != BCMIG_REACH_LOCAL)
		return;
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT c.conname FROM pg_constraint c JOIN bcmig.sync_table t ON t.table_id = $2 AND t.made_target "
				  "WHERE c.conrelid = $1 AND c.contype = 'p' "
				  /* through pg_depend: there is no index on conindid */
				  "AND NOT EXISTS (SELECT FROM pg_depend d JOIN pg_constraint f ON f.oid = d.objid "
				  " WHERE d.classid = 'pg_constraint'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.conindid AND f.contype = 'f')",
				  "oi", relid, table->table_id) > 0)
		constraint = MemoryContextStrdup(caller, bcmig_get_text(0, 1));
	bcmig_catalog_end(&scope);
	if (constraint != NULL)
		change(table, psprintf("ALTER TABLE %s DROP CONSTRAINT %s", table->target_name,
						 quote_identifier(constraint)));
}

/*
 * Delete every row of keys that stand more than once and read them again, as
 * many keys as go into one statement.  Returns how many there were.
 */
static int
mend_duplicates(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	MemoryContext caller = CurrentMemoryContext;
	char	   *keys = key_list(table);
	BcmigSpool *spool;
	BcmigApplied applied = {0};
	BcmigReading reading;
	StringInfoData sql;
	char	  **texts;
	int			n;

	bcmig_reading(table->table_id, &reading);
	bcmig_start_transaction();
	initStringInfo(&sql);
	appendStringInfoString(&sql, "SELECT ARRAY[");
	for (int k = 0; k < table->nkeys; k++)
		appendStringInfo(&sql, "%s%s::text", k ? ", " : "",
						 quote_identifier(table->columns[table->keys[k]].target));
	appendStringInfo(&sql, "] FROM %s GROUP BY %s HAVING count(*) > 1 LIMIT %d",
					 table->target_name, keys, DUPLICATE_KEYS);
	if (SPI_connect() != SPI_OK_CONNECT ||
		SPI_execute(sql.data, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "looking for duplicate keys failed");
	n = SPI_processed;
	texts = MemoryContextAlloc(caller, sizeof(char *) * Max(n * table->nkeys, 1));
	for (int i = 0; i < n; i++)
		memcpy(&texts[i * table->nkeys], bcmig_get_texts(i, 1, table->nkeys, caller),
			   sizeof(char *) * table->nkeys);
	SPI_finish();
	bcmig_end_transaction();
	if (n == 0)
		return 0;

	bcmig_start_transaction();
	spool = bcmig_spool_create();
	bcmig_read(work, work->dialect->rows_by_key(table, n, texts), 0, &spool->receiver);
	bcmig_end_transaction();
	bcmig_check_same_blue(&reading, &spool->receiver.signs);

	bcmig_start_transaction();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	bcmig_own_write(bcmig_target_relid(table));
	bcmig_query_spool(spool, psprintf("DELETE FROM %s g USING bcmig_rows w WHERE %s",
									  table->target_name, bcmig_key_condition(table)));
	bcmig_own_write_end();
	SPI_finish();
	bcmig_state_witness(table->table_id, reading.incarnation, spool->receiver.signs.ntraces, spool->receiver.signs.traces);
	bcmig_end_transaction();
	bcmig_apply_batches(table, spool, BCMIG_PASSES_PLAIN, 0, &applied);
	bcmig_spool_end(spool);
	ereport(LOG,
			(errmsg("bcmig: %d keys stood twice in %s after the copy and were read again",
					n, table->target_name)));
	return n;
}

/*
 * Build the primary key, once its duplicates are mended.  Under the exclusive
 * applier lock, outside a transaction.  Does nothing when there is a key, or can
 * be none.
 */
void
bcmig_build_key(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	MemoryContext caller = CurrentMemoryContext;
	volatile int round = 0;

	if (table->nkeys == 0)
		return;
	for (;;)
	{
		ErrorData  *volatile edata = NULL;

		PG_TRY();
		{
			bcmig_start_transaction();
			if (bcmig_reach_of(table) != BCMIG_REACH_FOREIGN && !OidIsValid(bcmig_key_index(table, bcmig_target_relid(table))))
			{
				bcmig_slot_phase("index build", table->target_name, 0);
				change(table, psprintf("ALTER TABLE %s ADD PRIMARY KEY (%s)", table->target_name, key_list(table)));
			}
			bcmig_end_transaction();
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(caller);
			edata = CopyErrorData();
			if (edata->sqlerrcode != ERRCODE_UNIQUE_VIOLATION || round >= DUPLICATE_ROUNDS)
				PG_RE_THROW();
			FlushErrorState();
			AbortCurrentTransaction();
			MemoryContextSwitchTo(caller);
		}
		PG_END_TRY();
		if (edata == NULL)
			return;
		while (mend_duplicates(work) == DUPLICATE_KEYS)
			CHECK_FOR_INTERRUPTS();
		round++;
	}
}

/*
 * Statements that make the secondary indexes recorded for the table that are not
 * there yet.  In a transaction, in the caller's memory context.
 */
static List *
secondary_indexes(const BcmigTableInfo *table)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *statements = NIL;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT CASE WHEN x.u THEN format('ALTER TABLE %s ADD UNIQUE (%s) DEFERRABLE INITIALLY IMMEDIATE', $3, x.cols) "
			  " ELSE format('CREATE INDEX ON %s (%s)', $3, x.cols) END "
			  "FROM (SELECT (i->>'unique')::bool AND c.plain AS u, "
			  "  c.cols, c.atts "
			  "  FROM bcmig.sync_table t, jsonb_array_elements(t.indexes) i, "
			  "   LATERAL (SELECT string_agg(quote_ident(m.target_column), ', ' ORDER BY e.o) AS cols, array_agg(a.attnum ORDER BY e.o) AS atts, "
			  "     bool_and(m.transform IS NULL OR m.transform - 'rename' = '{}') AS plain "
			  "    FROM jsonb_array_elements_text(i->'columns') WITH ORDINALITY e(c, o) "
			  "    JOIN bcmig.column_map m ON m.table_id = t.table_id AND m.part = 0 AND m.source_column = e.c "
			  "    JOIN pg_attribute a ON a.attrelid = $2 AND a.attname = m.target_column "
			  "    HAVING count(*) = jsonb_array_length(i->'columns')) c "
			  "  WHERE t.table_id = $1) x "
			  "WHERE NOT EXISTS (SELECT FROM pg_index p WHERE p.indrelid = $2 AND p.indisunique = x.u "
			  "  AND (SELECT array_agg(k ORDER BY o) FROM unnest(p.indkey::int2[]) WITH ORDINALITY k(k, o) WHERE o <= p.indnkeyatts) = x.atts)",
			  "iot", table->table_id, bcmig_target_relid(table), table->target_name);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
		statements = lappend(statements, bcmig_get_text(i, 1));
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	return statements;
}

/* all of them in the caller's transaction, for a table without rows */
void
bcmig_build_secondary_now(const BcmigTableInfo *table)
{
	ListCell   *lc;

	foreach(lc, secondary_indexes(table))
		change(table, lfirst(lc));
}

/*
 * Build the secondary indexes, each in a transaction of its own.  Under the
 * exclusive applier lock, outside a transaction.
 */
void
bcmig_build_secondary(BcmigWork *work)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *statements;
	ListCell   *lc;

	bcmig_start_transaction();
	MemoryContextSwitchTo(caller);
	statements = secondary_indexes(work->table);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	foreach(lc, statements)
	{
		CHECK_FOR_INTERRUPTS();
		bcmig_slot_phase("index build", work->table->target_name, 0);
		bcmig_start_transaction();
		change(work->table, lfirst(lc));
		bcmig_end_transaction();
	}
}
