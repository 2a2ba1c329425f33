/*-------------------------------------------------------------------------
 *
 * sequences.c
 *	  Numbers blue gives out beside the rows: sequences and identity columns.
 *
 * Business Central takes entry numbers from sequences of the database, and the
 * server numbers AutoIncrement fields itself; neither is in any table.  Green
 * gets a sequence for each, in the schema of the company whose name it begins
 * with; one of no company is the shared tables', or every company's of the sync.
 *
 * A sequence only moves on: what green has given out already is never given out
 * again.  setval() is not undone by ROLLBACK, which does no harm for that
 * reason.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"

#include "ask.h"
#include "bc_names.h"
#include "call.h"
#include "discover.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "remote.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

BCMIG_FUNCTION(bcmig_set_sequences);

/* a schema of green and the company whose tables are there */
typedef struct Place
{
	char	   *company;		/* NULL = shared tables */
	char	   *schema;
	bool		snake;
} Place;

static List *
load_places(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *places = NIL;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT company, target_schema, bool_or(naming = 'snake') FROM bcmig.sync_table "
			  "WHERE sync_id = $1 AND al_table IS NOT NULL GROUP BY 1, 2 ORDER BY 1 NULLS FIRST, 2", "i", sync->sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Place	   *p = palloc(sizeof(Place));

		p->company = bcmig_get_text(i, 1);
		p->schema = bcmig_get_text(i, 2);
		p->snake = bcmig_get_bool(i, 3);
		places = lappend(places, p);
	}
	bcmig_catalog_end(&scope);
	return places;
}

/* one of green's, and where it has to stand */
typedef struct Numbers
{
	const char *source;
	char	   *target;			/* qualified, quoted */
	int64		increment;
	bool		has_last;		/* blue has given out one */
	int64		last;
	int			table_id;		/* whose column it numbers; 0 = none */
	char	   *table;			/* qualified, quoted */
	char	   *column;
} Numbers;

/* columns "last" and increment; has "last" no value, the sequence begins where it begins */
static void
read_numbers(Numbers *n, char **row, int last)
{
	n->has_last = row[last] != NULL;
	n->last = n->has_last ? bcmig_answer_int64(row, last) : 0;
	n->increment = bcmig_answer_int64(row, last + 1);
}

/*
 * Make the sequence when it is missing, move it to the value given out last,
 * and remember that: validations assert it from now on.  Returns where it is.
 */
static int64
move_sequence(const BcmigSync *sync, const Numbers *n)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	bool		down = n->increment < 0;
	const char *furthest = down ? "least" : "greatest";
	char	   *last = n->has_last ? psprintf(INT64_FORMAT "::bigint", n->last) : "NULL::bigint";
	char	   *rows = n->table_id ? psprintf("(SELECT %s(%s)::bigint FROM %s)", down ? "min" : "max", n->column, n->table) : "NULL";
	bool		given;
	int64		value;

	bcmig_run_as(sync->owner, psprintf("CREATE SEQUENCE IF NOT EXISTS %s INCREMENT BY " INT64_FORMAT "%s", n->target, n->increment,
									   down ? " MINVALUE -9223372036854775808 MAXVALUE 9223372036854775807 START -1" : ""));
	bcmig_catalog_begin(&scope);
	SPI_execute(psprintf("INSERT INTO bcmig.number_sequence AS n (sync_id, target, source, table_id, \"column\", increment, blue, value) "
						 "SELECT %d, %s, %s, nullif(%d, 0), %s, " INT64_FORMAT ", %s, %s(%s, s.last_value, %s) "
						 "FROM pg_sequences s WHERE format('%%I.%%I', s.schemaname, s.sequencename) = %s "
						 "ON CONFLICT (sync_id, target) DO UPDATE SET source = excluded.source, table_id = excluded.table_id, "
						 " \"column\" = excluded.\"column\", increment = excluded.increment, blue = excluded.blue, value = excluded.value, set_at = excluded.set_at "
						 "RETURNING coalesce(n.value, 0), n.value IS NOT NULL",
						 sync->sync_id, quote_literal_cstr(n->target), quote_literal_cstr(n->source), n->table_id,
						 n->column ? quote_literal_cstr(n->column) : "NULL", n->increment, last, furthest, last, rows,
						 quote_literal_cstr(n->target)), false, 0);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("%s is no sequence that role \"%s\" may use", n->target, GetUserNameFromId(sync->owner, false)),
				 errhint("Rename it, and call bcmig_set_sequences again.")));
	value = bcmig_get_int64(0, 1, 0);
	given = bcmig_get_bool(0, 2);
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	if (given)
		bcmig_run_as(sync->owner, psprintf("SELECT setval(%s, " INT64_FORMAT ", true)", quote_literal_cstr(n->target), value));
	return value;
}

/* rsinfo NULL: nobody wants to know */
static void
put(ReturnSetInfo *rsinfo, const char *source, const char *target, int64 value)
{
	Datum		values[3] = {CStringGetTextDatum(source), CStringGetTextDatum(target), Int64GetDatum(value)};
	bool		nulls[3] = {0};

	if (rsinfo != NULL)
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* the company a sequence's name begins with, the longest as for tables; NULL = none.  *rest: what follows it */
static char *
company_of(const char *name, const BcmigInventory *inventory, const char **rest)
{
	char	   *company = NULL;
	size_t		longest = 0;
	ListCell   *lc;

	*rest = name;
	foreach(lc, inventory->companies)
	{
		char	   *prefix = psprintf("%s$", bcmig_mapped_name(lfirst(lc), inventory->invalid_chars));
		size_t		len = strlen(prefix);

		if (len > longest && strncmp(name, prefix, len) == 0)
		{
			company = lfirst(lc);
			longest = len;
			*rest = name + len;
		}
	}
	return company;
}

static void
set_sequence(const BcmigSync *sync, char **row, List *places, const BcmigInventory *inventory, ReturnSetInfo *rsinfo)
{
	const char *rest;
	char	   *company = company_of(bcmig_answer_text(row, 1), inventory, &rest);
	bool		has_shared = places != NIL && ((Place *) linitial(places))->company == NULL;
	ListCell   *lc;

	foreach(lc, places)
	{
		Place	   *p = lfirst(lc);
		Numbers		n = {.source = row[1]};

		if (company != NULL ? p->company == NULL || strcmp(p->company, company) != 0 : has_shared && p->company != NULL)
			continue;
		n.target = pstrdup(quote_qualified_identifier(p->schema,
													  bcmig_green_name(p->snake ? bcmig_snake(rest) : rest, NIL)));
		read_numbers(&n, row, 2);
		put(rsinfo, row[1], n.target, move_sequence(sync, &n));
	}
}

/*
 * The column gets a sequence of its own as default.
 */
static void
set_identity(const BcmigSync *sync, char **row, ReturnSetInfo *rsinfo)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	Numbers		n = {.source = psprintf("%s.%s", bcmig_answer_text(row, 2), bcmig_answer_text(row, 3))};

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT format('%I.%I', t.target_schema, t.target_table), quote_ident(m.target_column), t.target_schema, "
				  " t.target_table || '_' || m.target_column || '_seq', t.table_id "
				  "FROM bcmig.sync_table t JOIN bcmig.table_state s USING (table_id) JOIN bcmig.column_map m USING (table_id) "
				  "WHERE t.sync_id = $1 AND s.made AND t.source_schema = $2 AND t.source_table = $3 AND m.part = 0 AND m.source_column = $4 AND (m.transform IS NULL OR m.transform - 'rename' = '{}')",
				  "ittt", sync->sync_id, row[1], row[2], row[3]) > 0)
	{
		MemoryContextSwitchTo(caller);
		n.table = bcmig_get_text(0, 1);
		n.column = bcmig_get_text(0, 2);
		n.target = pstrdup(quote_qualified_identifier(bcmig_get_text(0, 3), bcmig_green_name(bcmig_get_text(0, 4), NIL)));
		n.table_id = bcmig_get_int64(0, 5, 0);
	}
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	if (n.table_id == 0)
		return;
	read_numbers(&n, row, 4);
	put(rsinfo, n.source, n.target, move_sequence(sync, &n));
	bcmig_run_as(sync->owner, psprintf("ALTER SEQUENCE %s OWNED BY %s.%s", n.target, n.table, n.column));
	bcmig_change_green(sync->owner, n.table,
					   psprintf("ALTER TABLE %s ALTER COLUMN %s SET DEFAULT nextval(%s)", n.table, n.column,
								quote_literal_cstr(n.target)));
}

void
bcmig_move_sequences(const BcmigSync *sync, const BcmigEnvironment *env, ReturnSetInfo *rsinfo)
{
	List	   *places = load_places(sync);
	BcmigInventory *inventory = bcmig_inventory(env, sync->owner);
	BcmigCatalogScope scope;
	ListCell   *lc;

	foreach(lc, bcmig_ask(env->serverid, sync->owner, list_make1(bcmig_dialect_of_server(env->serverid)->bc->sequences()),
						  bcmig_ask_timeout(env, 1)))
	{
		char	  **row = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (bcmig_answer_is(row, "sequence"))
			set_sequence(sync, row, places, inventory, rsinfo);
		else
			set_identity(sync, row, rsinfo);
	}
	bcmig_catalog_begin(&scope);
	bcmig_audit("command", sync->name, NULL, "bcmig_set_sequences", NULL);
	bcmig_catalog_end(&scope);
}

List *
bcmig_given_numbers(int sync_id)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *numbers = NIL;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT t.source_schema, coalesce(t.source_table, n.source), s.last_value, n.increment "
			  "FROM bcmig.number_sequence n LEFT JOIN bcmig.sync_table t USING (table_id) "
			  "JOIN pg_sequences s ON format('%I.%I', s.schemaname, s.sequencename) = n.target "
			  "WHERE n.sync_id = $1 AND s.last_value IS NOT NULL "
			  " AND CASE WHEN n.increment < 0 THEN s.last_value < n.blue ELSE s.last_value > n.blue END IS NOT FALSE "
			  "ORDER BY n.target", "i", sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		BcmigGivenNumber *given = palloc(sizeof(BcmigGivenNumber));

		given->schema = bcmig_get_text(i, 1);
		given->name = bcmig_get_text(i, 2);
		given->last = bcmig_get_int64(i, 3, 0);
		given->increment = bcmig_get_int64(i, 4, 0);
		numbers = lappend(numbers, given);
	}
	bcmig_catalog_end(&scope);
	return numbers;
}

/*
 * bcmig_set_sequences(sync)
 */
Datum
bcmig_set_sequences(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	BcmigEnvironment *env = bcmig_load_environment(NULL, sync->environment_id);

	bcmig_require_bc(env);
	InitMaterializedSRF(fcinfo, 0);
	bcmig_move_sequences(sync, env, (ReturnSetInfo *) fcinfo->resultinfo);
	return (Datum) 0;
}
