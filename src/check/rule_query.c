/*-------------------------------------------------------------------------
 *
 * rule_query.c
 *	  The query of a rule, and which tables of the sync it reads.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "rule.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

BcmigUserQuery *
bcmig_rule_query(const char *name, const char *query)
{
	BcmigUserQuery *q = palloc0(sizeof(BcmigUserQuery));

	q->kind = "rule";
	q->name = name;
	q->query = query;
	q->hint = psprintf("SELECT bcmig_add_rule('sync', %s, 'business', 'hard', 'SELECT ...'); with a query that returns the rows that break the rule.",
					   quote_literal_cstr(name));
	return q;
}

List *
bcmig_tables_read(int sync_id, const BcmigReads *reads, bool *others)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	Datum	   *oids = palloc(sizeof(Datum) * Max(list_length(reads->relations), 1));
	List	   *tables = NIL;
	int			n = 0;
	ListCell   *lc;

	foreach(lc, reads->relations)
		oids[n++] = Int64GetDatum((int64) lfirst_oid(lc));
	*others = reads->more;
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT t.table_id FROM unnest($2) WITH ORDINALITY o (relid, n) "
			  "LEFT JOIN (pg_class c JOIN pg_namespace s ON s.oid = c.relnamespace "
			  " JOIN bcmig.sync_table t ON t.target_schema = s.nspname AND t.target_table = c.relname AND t.sync_id = $1) ON c.oid = o.relid::oid "
			  "ORDER BY o.n", "iq", sync_id,
			  PointerGetDatum(construct_array(oids, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE)));
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		int			table_id = bcmig_get_int64(i, 1, 0);

		if (table_id == 0)
			*others = true;
		else
			tables = lappend_int(tables, table_id);
	}
	bcmig_catalog_end(&scope);
	return tables;
}
