/*-------------------------------------------------------------------------
 *
 * read_table.c
 *	  Green tables of a sync, found by the names Business Central has for them.
 *
 * What is made over green tables (views, FlowFields, rules) is written down
 * with the names of AL; here they are looked up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "read_table.h"

#include "bc_names.h"
#include "catalog.h"
#include "utils/memutils.h"

List *
bcmig_read_tables(int sync_id, const char *company)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *tables = NIL;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT t.table_id, c.oid, t.target_schema, t.target_table, t.company, t.al_table, t.naming = 'snake', "
				  "t.source_schema, t.source_table "
				  "FROM bcmig.sync_table t "
				  "JOIN pg_namespace n ON n.nspname = t.target_schema "
				  "JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.target_table "
				  "WHERE t.sync_id = $1 AND ($2 IS NULL OR t.company = $2) ORDER BY t.table_id", "it", sync_id, company);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		BcmigReadTable *t = palloc0(sizeof(BcmigReadTable));

		t->table_id = bcmig_get_int64(i, 1, 0);
		t->relid = bcmig_get_int64(i, 2, 0);
		t->schema = bcmig_get_text(i, 3);
		t->name = bcmig_get_text(i, 4);
		t->company = bcmig_get_text(i, 5);
		t->al_table = bcmig_get_text(i, 6);
		t->snake = bcmig_get_bool(i, 7);
		t->source_schema = bcmig_get_text(i, 8);
		t->source_name = bcmig_get_text(i, 9);
		t->ncolumns = -1;
		tables = lappend(tables, t);
	}
	bcmig_catalog_end(&scope);
	return tables;
}

void
bcmig_read_columns(BcmigReadTable *t)
{
	MemoryContext context = GetMemoryChunkContext(t);
	BcmigCatalogScope scope;

	if (t->ncolumns >= 0)
		return;
	bcmig_catalog_begin(&scope);
	t->ncolumns = bcmig_sql("SELECT m.ordinal, m.part, m.source_column, m.target_column, "
							"format_type(a.atttypid, a.atttypmod), m.native_type, m.al_type "
							"FROM bcmig.column_map m "
							"JOIN pg_attribute a ON a.attrelid = $2 AND a.attname = m.target_column "
							"WHERE m.table_id = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
							"io", t->table_id, t->relid);
	MemoryContextSwitchTo(context);
	t->columns = palloc0(sizeof(BcmigReadColumn) * Max(t->ncolumns, 1));
	for (int i = 0; i < t->ncolumns; i++)
	{
		BcmigReadColumn *c = &t->columns[i];

		c->ordinal = bcmig_get_int64(i, 1, 0);
		c->part = bcmig_get_int64(i, 2, 0);
		c->source = bcmig_get_text(i, 3);
		c->target = bcmig_get_text(i, 4);
		c->type = bcmig_get_text(i, 5);
		c->native_type = bcmig_get_text(i, 6);
		c->al_type = bcmig_get_text(i, 7);
	}
	bcmig_catalog_end(&scope);
}

/*
 * Names in SQL have underscores for some characters; which, is a setting of
 * blue, so both sides are looked at with all of the usual ones replaced.  Those
 * are ASCII, no part of another character.
 */
bool
bcmig_same_name(const char *al_name, const char *sql_name)
{
	const char *a = al_name;
	const char *b = sql_name;

	while (*a && *b &&
		   (*a == *b || (strchr("_" BCMIG_INVALID_CHARS, *a) != NULL && strchr("_" BCMIG_INVALID_CHARS, *b) != NULL)))
	{
		a++;
		b++;
	}
	return *a == *b;
}

const BcmigReadColumn *
bcmig_find_column(BcmigReadTable *t, const char *al_name)
{
	bcmig_read_columns(t);
	for (int i = 0; i < t->ncolumns; i++)
	{
		if (t->columns[i].part == 0 && bcmig_same_name(al_name, t->columns[i].source))
			return &t->columns[i];
	}
	return NULL;
}
