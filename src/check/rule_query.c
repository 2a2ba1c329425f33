/*-------------------------------------------------------------------------
 *
 * rule_query.c
 *	  What the query of a rule is, and what it reads.
 *
 * A rule is one plain SELECT.  That is looked at after parse analysis and
 * rewriting, so nothing hides in a view or a WITH; functions it calls cannot be
 * looked into, they are stopped by the read-only transaction it runs in.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "rule.h"

#include "access/transam.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "nodes/nodeFuncs.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"

static void
not_plain(const char *name, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("the query of rule \"%s\" is not one plain SELECT", name),
			 errdetail("%s", what),
			 errhint("SELECT bcmig_add_rule('sync', %s, 'business', 'hard', 'SELECT ...'); with a query that returns the rows that break the rule.",
					 quote_literal_cstr(name))));
}

/* may it read tables?  Functions of PostgreSQL itself are taken at their arguments' word. */
static bool
may_read(Oid function, void *context)
{
	return function >= FirstNormalObjectId && func_volatile(function) != PROVOLATILE_IMMUTABLE;
}

typedef struct Walk
{
	const char *name;
	bool		more;
} Walk;

static bool
walk(Node *node, Walk *w)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;

		if (query->commandType != CMD_SELECT || query->hasModifyingCTE)
			not_plain(w->name, "It writes.");
		if (query->rowMarks != NIL)
			not_plain(w->name, "It locks rows.");
		return query_tree_walker(query, walk, w, 0);
	}
	if (check_functions_in_node(node, may_read, NULL))
		w->more = true;
	return expression_tree_walker(node, walk, w);
}

static void
in_rule(void *arg)
{
	int			code = geterrcode();

	errcontext("query of rule \"%s\"", (const char *) arg);
	if (code == ERRCODE_UNDEFINED_TABLE || code == ERRCODE_UNDEFINED_FUNCTION || code == ERRCODE_UNDEFINED_OBJECT)
		errhint("Names in the query of a rule are written with their schema.");
}

SPIPlanPtr
bcmig_prepare_rule(const char *name, const char *query, BcmigReads *reads)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorContextCallback callback = {error_context_stack, in_rule, unconstify(char *, name)};
	SPIPlanPtr	plan;
	CachedPlanSource *source;
	Walk		w = {name, false};
	ListCell   *lc;

	error_context_stack = &callback;
	plan = SPI_prepare(query, 0, NULL);
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(caller);
	if (plan == NULL)
		not_plain(name, SPI_result_code_string(SPI_result));
	if (list_length(SPI_plan_get_plan_sources(plan)) != 1)
		not_plain(name, psprintf("It has %d statements.", list_length(SPI_plan_get_plan_sources(plan))));
	source = linitial(SPI_plan_get_plan_sources(plan));
	if (list_length(source->query_list) != 1 || !SPI_is_cursor_plan(plan))
		not_plain(name, "It returns no rows.");
	if (linitial_node(Query, source->query_list)->utilityStmt != NULL)
		not_plain(name, "It is a command.");
	(void) walk(linitial(source->query_list), &w);
	if (reads == NULL)
		return plan;

	reads->relations = NIL;
	reads->more = w.more;
	foreach(lc, source->relationOids)
	{
		if (get_rel_relkind(lfirst_oid(lc)) != RELKIND_VIEW)
			reads->relations = list_append_unique_oid(reads->relations, lfirst_oid(lc));
	}
	return plan;
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
