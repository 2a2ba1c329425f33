/*-------------------------------------------------------------------------
 *
 * baseline.c
 *	  bcmig_baseline: what a side is like: its tables and how fast it answers.
 *
 * Taken of blue before and of green after, so that the migration report can
 * hold one against the other.  Blue is asked by one-off workers as the owner of
 * the environment; green here, each query as who has registered it and read
 * only.  All is asked before anything is written: no row is locked meanwhile.
 *
 * A query is answered when its last row is there, as text on both sides: what an
 * application would wait for.  It is run RUNS times, the median counts.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "report.h"

#include "access/xact.h"
#include "ask.h"
#include "call.h"
#include "catalog/pg_type.h"
#include "configure.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "portability/instr_time.h"
#include "remote.h"
#include "user_query.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"

BCMIG_FUNCTION(bcmig_add_baseline_query);
BCMIG_FUNCTION(bcmig_remove_baseline_query);
BCMIG_FUNCTION(bcmig_baseline);

#define RUNS			5
#define MOST_ROWS		100000	/* of an answer; more are not waited for, on either side */
#define FETCH_ROWS		1000
#define QUERY_TIMEOUT	(10 * 60 * 1000)	/* ms, for all runs of a query on blue */

typedef struct TableFigures
{
	char	   *target;
	char	   *source;
	const BcmigName *name;
	bool		base;			/* else a companion of the one before */
	bool		exists;
	int64		rows;
	int64		bytes;			/* -1 = not known */
	int			columns;
	int			indexes;
} TableFigures;

typedef struct QueryFigures
{
	char	   *name;
	char	   *query;
	Oid			owner;
	double		ms[RUNS];
	int64		rows;
	char	   *error;			/* NULL: it was answered */
} QueryFigures;

/* ---- registered queries ---- */

static void
make_query(BcmigUserQuery *q, const char *name, const char *query)
{
	*q = (BcmigUserQuery) {.kind = "baseline", .name = name, .query = query, .hint = "One SELECT, names with their schema."};
}

/*
 * bcmig_add_baseline_query(name, blue_query, green_query)
 */
Datum
bcmig_add_baseline_query(PG_FUNCTION_ARGS)
{
	char	   *name = bcmig_arg_new_name(fcinfo, 0, "name");
	char	   *blue_query = bcmig_arg_text(fcinfo, 1, "blue_query");
	char	   *green_query = bcmig_arg_text(fcinfo, 2, "green_query");
	BcmigCatalogScope scope;
	BcmigUserQuery q;
	Oid			owner = GetUserId();

	make_query(&q, name, green_query);
	bcmig_check_user_query(owner, &q, NULL);
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("INSERT INTO bcmig.baseline_query (name, blue_query, green_query, owner) VALUES ($1, $2, $3, $4::regrole) ON CONFLICT (name) DO NOTHING",
				  "ttto", name, blue_query, green_query, owner) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("there is a baseline query \"%s\" already", name),
				 errhint("SELECT bcmig_remove_baseline_query(%s);", quote_literal_cstr(name))));
	bcmig_audit("command", NULL, name, "bcmig_add_baseline_query", psprintf("blue: %s; green: %s", blue_query, green_query));
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * bcmig_remove_baseline_query(name); what it has measured stays
 */
Datum
bcmig_remove_baseline_query(PG_FUNCTION_ARGS)
{
	char	   *name = bcmig_arg_text(fcinfo, 0, "name");
	BcmigCatalogScope scope;
	Oid			owner = InvalidOid;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT owner::oid FROM bcmig.baseline_query WHERE name = $1", "t", name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("there is no baseline query \"%s\"", name),
				 errhint("SELECT name FROM bcmig.baseline_query;")));
	owner = (Oid) bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	bcmig_check_member(owner, "baseline query", name);
	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.baseline_query WHERE name = $1", "t", name);
	bcmig_audit("command", NULL, name, "bcmig_remove_baseline_query", NULL);
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

static List *
load_queries(bool blue)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *queries = NIL;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT name, CASE WHEN $1 THEN blue_query ELSE green_query END, owner::oid FROM bcmig.baseline_query ORDER BY name", "b", (int) blue);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		QueryFigures *q = palloc0(sizeof(QueryFigures));

		q->name = bcmig_get_text(i, 1);
		q->query = bcmig_get_text(i, 2);
		q->owner = (Oid) bcmig_get_int64(i, 3, 0);
		queries = lappend(queries, q);
	}
	bcmig_catalog_end(&scope);
	return queries;
}

/* ---- blue ---- */

/* the size of a table of Business Central, as its inventory has it */
typedef struct SizeOfTable
{
	char	   *schema;
	char	   *name;
	int64		bytes;
} SizeOfTable;

static int
by_name(const void *a, const void *b)
{
	const SizeOfTable *x = a;
	const SizeOfTable *y = b;
	int			c = strcmp(x->schema, y->schema);

	return c != 0 ? c : strcmp(x->name, y->name);
}

/*
 * SQL Server describes a table without its size; the inventory of all tables has
 * it, where the login may see that.
 */
static void
take_sizes(const BcmigEnvironment *env, const BcmigDialect *dialect, List *tables)
{
	List	   *rows = bcmig_ask(env->serverid, env->owner, list_make1(dialect->bc->inventory()), QUERY_TIMEOUT);
	SizeOfTable *sizes = palloc(sizeof(SizeOfTable) * (list_length(rows) + 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, rows)
	{
		char	  **row = lfirst(lc);

		if (bcmig_answer_is(row, "table"))
			sizes[n++] = (SizeOfTable) {bcmig_answer_text(row, 1), bcmig_answer_text(row, 2), -1};
		else if (bcmig_answer_is(row, "bytes") && n > 0 && row[1] != NULL)
			sizes[n - 1].bytes = bcmig_answer_int64(row, 1);
	}
	qsort(sizes, n, sizeof(SizeOfTable), by_name);
	foreach(lc, tables)
	{
		TableFigures *t = lfirst(lc);
		SizeOfTable wanted = {t->name->schema, t->name->name, -1};
		const SizeOfTable *found = bsearch(&wanted, sizes, n, sizeof(SizeOfTable), by_name);

		t->bytes = found ? found->bytes : -1;
	}
}

/*
 * The tables of all syncs from this blue with their companions, whose bytes are
 * the table's too.
 */
static List *
blue_tables(const BcmigEnvironment *env)
{
	const BcmigDialect *dialect = bcmig_dialect_of_server(env->serverid);
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *tables = NIL;
	List	   *names = NIL;
	List	   *described;
	ListCell   *lc;
	ListCell   *cell;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT format('%I.%I', t.target_schema, t.target_table), p.schema, p.name, p.part = 0 "
				  "FROM bcmig.sync y JOIN bcmig.sync_table t USING (sync_id), LATERAL (SELECT 0, t.source_schema, t.source_table "
				  " UNION ALL SELECT c.part, c.source_schema, c.source_table FROM bcmig.companion c WHERE c.table_id = t.table_id) p (part, schema, name) "
				  "WHERE y.environment_id = $1 ORDER BY t.table_id, p.part", "i", env->environment_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		TableFigures *t = palloc0(sizeof(TableFigures));
		BcmigName  *name = palloc(sizeof(BcmigName));

		t->target = bcmig_get_text(i, 1);
		name->schema = bcmig_get_text(i, 2);
		name->name = bcmig_get_text(i, 3);
		t->source = psprintf("%s.%s", name->schema, name->name);
		t->name = name;
		t->base = bcmig_get_bool(i, 4);
		tables = lappend(tables, t);
		names = lappend(names, name);
	}
	bcmig_catalog_end(&scope);
	if (names == NIL)
		return NIL;

	described = bcmig_describe(env, env->owner, names);
	forboth(lc, tables, cell, described)
	{
		TableFigures *t = lfirst(lc);
		const BcmigBlueTable *b = lfirst(cell);

		t->exists = b->exists;
		t->rows = b->rows;
		t->bytes = b->bytes;
		t->columns = list_length(b->columns);
		t->indexes = list_length(b->indexes);
	}
	if (dialect->bc != NULL)
		take_sizes(env, dialect, tables);
	return tables;
}

/*
 * Runs after one of another query, which is what the connection takes.
 */
static void
ask_blue(const BcmigEnvironment *env, QueryFigures *q)
{
	const BcmigDialect *dialect = bcmig_dialect_of_server(env->serverid);
	List	   *statements = dialect->own_query("SELECT 1", 1);
	int			before = list_length(statements);
	int			each = 0;
	List	   *times = NIL;
	List	   *rows;
	ErrorData  *error;
	ListCell   *lc;

	if (!is_member_of_role(q->owner, env->owner))
	{
		q->error = psprintf("role %s, who has registered it, is no member of %s, the owner of the environment",
							GetUserNameFromId(q->owner, false), GetUserNameFromId(env->owner, false));
		return;
	}
	for (int run = 0; run < RUNS; run++)
	{
		List	   *one = dialect->own_query(q->query, MOST_ROWS);

		each = list_length(one);
		statements = list_concat(statements, one);
	}
	rows = bcmig_try_ask_timed(env->serverid, env->owner, statements, QUERY_TIMEOUT, &times, &error);
	if (error != NULL)
	{
		q->error = bcmig_error_text(error, true);
		return;
	}
	for (int run = 0; run < RUNS; run++)
		q->ms[run] = *(double *) list_nth(times, before + (run + 1) * each - 1);
	foreach(lc, rows)
	{
		if (((char **) lfirst(lc))[1] != NULL)
			q->rows++;
	}
	q->rows = (q->rows - 1) / RUNS;
}

/* ---- green ---- */

static void
run_green(void *arg)
{
	QueryFigures *q = arg;
	BcmigUserQuery user_query;
	SPIPlanPtr	plan;
	Portal		portal;
	char	   *sql = psprintf("SELECT ROW(q.*)::pg_catalog.text FROM (\n%s\n) q LIMIT %d", q->query, MOST_ROWS);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	make_query(&user_query, q->name, q->query);
	(void) bcmig_prepare_user_query(&user_query, NULL);
	make_query(&user_query, q->name, sql);
	plan = bcmig_prepare_user_query(&user_query, NULL);
	for (int run = 0; run < RUNS; run++)
	{
		instr_time	start;
		instr_time	end;

		q->rows = 0;
		INSTR_TIME_SET_CURRENT(start);
		portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
		do
		{
			CHECK_FOR_INTERRUPTS();
			SPI_cursor_fetch(portal, true, FETCH_ROWS);
			q->rows += SPI_processed;
			SPI_freetuptable(SPI_tuptable);
		} while (SPI_processed > 0);
		SPI_cursor_close(portal);
		INSTR_TIME_SET_CURRENT(end);
		INSTR_TIME_SUBTRACT(end, start);
		q->ms[run] = INSTR_TIME_GET_MILLISEC(end);
	}
	SPI_finish();
}

/*
 * As who registered it: who takes a baseline does not lend him his rights.  The
 * subtransaction of bcmig_try() keeps an error from all the others.
 */
static void
ask_green(QueryFigures *q)
{
	Oid			userid;
	int			sec_context;
	int			guc_level = NewGUCNestLevel();
	bool		read_only = XactReadOnly;
	ErrorData  *error;

	GetUserIdAndSecContext(&userid, &sec_context);
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	SetUserIdAndSecContext(q->owner, sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	XactReadOnly = true;
	error = bcmig_try(run_green, q);
	XactReadOnly = read_only;
	SetUserIdAndSecContext(userid, sec_context);
	AtEOXact_GUC(false, guc_level);
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ThrowErrorData(error);
	if (error != NULL)
		q->error = bcmig_error_text(error, true);
}

/* ---- both ---- */

static int
by_value(const void *a, const void *b)
{
	double		x = *(const double *) a;
	double		y = *(const double *) b;

	return (x > y) - (x < y);
}

static double
median(const double *ms)
{
	double		sorted[RUNS];

	memcpy(sorted, ms, sizeof(sorted));
	qsort(sorted, RUNS, sizeof(double), by_value);
	return sorted[RUNS / 2];
}

static void
store_tables(int64 id, List *tables)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		const TableFigures *t = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (t->base)
			bcmig_sql("INSERT INTO bcmig.baseline_table (baseline_id, target, source, rows, bytes, columns, indexes) "
					  "SELECT $1, $2, $3, CASE WHEN $8 THEN $4 END, CASE WHEN $8 THEN nullif($5, -1) END, CASE WHEN $8 THEN $6 END, CASE WHEN $8 THEN $7 END",
					  "IttIIiib", id, t->target, t->source, t->rows, t->bytes, t->columns, t->indexes, (int) t->exists);
		else if (t->exists)
			bcmig_sql("UPDATE bcmig.baseline_table SET bytes = bytes + nullif($3, -1), columns = columns + $4, indexes = indexes + $5 "
					  "WHERE baseline_id = $1 AND target = $2", "ItIii", id, t->target, t->bytes, t->columns, t->indexes);
	}
}

static void
store_queries(int64 id, List *queries)
{
	ListCell   *lc;

	foreach(lc, queries)
	{
		const QueryFigures *q = lfirst(lc);
		bool		ok = q->error == NULL;

		bcmig_sql("INSERT INTO bcmig.baseline_time (baseline_id, name, ms, fastest_ms, slowest_ms, rows, error) SELECT $1, $2, CASE WHEN $7 THEN $3 END, "
				  " CASE WHEN $7 THEN least($4, $3) END, CASE WHEN $7 THEN greatest($5, $3) END, CASE WHEN $7 THEN $6 END, $8",
				  "ItfffIbt", id, q->name, median(q->ms), Min(Min(q->ms[0], q->ms[1]), Min(Min(q->ms[2], q->ms[3]), q->ms[4])),
				  Max(Max(q->ms[0], q->ms[1]), Max(Max(q->ms[2], q->ms[3]), q->ms[4])), q->rows, (int) ok, q->error);
	}
}

/*
 * bcmig_baseline(environment)
 */
Datum
bcmig_baseline(PG_FUNCTION_ARGS)
{
	BcmigEnvironment *env = bcmig_load_environment(bcmig_arg_text(fcinfo, 0, "environment"), 0);
	BcmigCatalogScope scope;
	List	   *tables = NIL;
	List	   *queries;
	ListCell   *lc;
	int64		id;

	if (env->blue)
	{
		bcmig_check_member(env->owner, "environment", env->name);
		tables = blue_tables(env);
	}
	queries = load_queries(env->blue);
	foreach(lc, queries)
	{
		CHECK_FOR_INTERRUPTS();
		if (env->blue)
			ask_blue(env, lfirst(lc));
		else
			ask_green(lfirst(lc));
	}

	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.baseline (environment, side) VALUES ($1, $2) RETURNING baseline_id", "tt", env->name, env->blue ? "blue" : "green");
	id = bcmig_get_int64(0, 1, 0);
	if (env->blue)
		store_tables(id, tables);
	else
		bcmig_sql("INSERT INTO bcmig.baseline_table (baseline_id, target, source, rows, bytes, columns, indexes) "
				  "SELECT $1, format('%I.%I', t.target_schema, t.target_table), format('%s.%s', t.source_schema, t.source_table), "
				  " (CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE pg_stat_get_live_tuples(c.oid) END)::int8, pg_total_relation_size(c.oid), "
				  " (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), "
				  " (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid AND NOT i.indisprimary) "
				  "FROM bcmig.sync_table t LEFT JOIN pg_class c ON c.oid = to_regclass(format('%I.%I', t.target_schema, t.target_table))", "I", id);
	store_queries(id, queries);
	bcmig_audit("command", NULL, env->name, "bcmig_baseline", psprintf("baseline " INT64_FORMAT, id));
	bcmig_catalog_end(&scope);
	PG_RETURN_INT64(id);
}
