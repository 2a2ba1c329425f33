/*-------------------------------------------------------------------------
 *
 * compare_query.c
 *	  The same question to both sides: which rows has only one of them?
 *
 * Blue is asked by a one-off worker as the owner of the sync, then green here
 * as the caller, read only.  Rows become text, with the same settings on both
 * sides, are sorted and merged; so they have to fit into memory, and a limit
 * sees to that.  Green is read last and with a new snapshot: what blue had
 * long ago cannot be missing for want of a newer look.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "access/xact.h"
#include "ask.h"
#include "call.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "source.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#define MOST_ROWS		1000000
#define FETCH_ROWS		1000
#define BLUE_TIMEOUT	(60 * 60 * 1000)	/* ms; a session can be cancelled any time */

BCMIG_FUNCTION(bcmig_compare_query);

/* rows of one side as text; NULL is NULL */
typedef struct Rows
{
	char	  **values;
	int64		n;
	int64		size;
	MemoryContext context;		/* of the values */
} Rows;

static void
add_row(Rows *rows, const char *side, char *value)
{
	if (rows->n >= MOST_ROWS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the query for %s gives more than %d rows", side, MOST_ROWS),
				 errhint("Compare sums and counts, or a part of the rows at a time; whole tables: bcmig_validate.")));
	if (rows->n >= rows->size)
	{
		rows->size = rows->size ? rows->size * 2 : 1024;
		rows->values = rows->values ? repalloc_huge(rows->values, sizeof(char *) * rows->size) :
			MemoryContextAlloc(rows->context, sizeof(char *) * rows->size);
	}
	rows->values[rows->n++] = value;
}

/*
 * The sync, without a lock on its row: an answer may take long, and nobody has
 * to wait for it.
 */
static BcmigSync *
sync_of(const char *name)
{
	BcmigCatalogScope scope;
	BcmigSync  *sync = NULL;
	int			sync_id = 0;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT sync_id FROM bcmig.sync WHERE name = $1", "t", name) > 0)
		sync_id = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	if (sync_id != 0)
		sync = bcmig_read_sync(sync_id);
	if (sync == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" does not exist", name),
				 errhint("SELECT name FROM bcmig.sync;")));
	bcmig_check_member(sync->owner, "sync", sync->name);
	return sync;
}

static void
read_blue(const BcmigSync *sync, Oid serverid, const BcmigDialect *dialect, const char *query, Rows *rows)
{
	ErrorData  *error;
	List	   *answer;
	ListCell   *lc;

	answer = bcmig_try_ask(serverid, sync->owner, dialect->own_query(query, MOST_ROWS + 1), BLUE_TIMEOUT, &error);
	if (error != NULL)
	{
		if (error->hint == NULL)
			error->hint = pstrdup(dialect->own_query_hint);
		ThrowErrorData(error);
	}
	foreach(lc, answer)
	{
		char	  **row = (char **) lfirst(lc);

		/* what was said before the query has no mark */
		if (row[1] != NULL)
			add_row(rows, "blue", row[0]);
	}
	list_free_deep(answer);
}

/* as postgres_fdw sets them for a session on blue */
static void
spell_as_blue(void)
{
	static const char *const settings[][2] = {
		{"datestyle", "ISO"}, {"intervalstyle", "postgres"}, {"extra_float_digits", "3"},
		{"timezone", "GMT"}, {"bytea_output", "hex"}
	};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static void
fetch_green(const BcmigDialect *dialect, const char *query, Rows *rows)
{
	const char *sql = dialect->rows_are_records ? psprintf("SELECT ROW(q.*)::pg_catalog.text FROM (\n%s\n) q", query) : query;
	SPIPlanPtr	plan;
	Portal		portal;

	plan = SPI_prepare(sql, 0, NULL);
	if (plan == NULL || !SPI_is_cursor_plan(plan))
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("the query for green is not one query"),
				 errhint("One SELECT, without a semicolon.")));
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, false);
	if (portal->tupDesc->natts != 1)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("the query for green gives %d columns, not one", portal->tupDesc->natts),
				 errhint("%s", dialect->own_query_hint)));
	for (;;)
	{
		CHECK_FOR_INTERRUPTS();
		SPI_cursor_fetch(portal, true, FETCH_ROWS);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			char	   *value = SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1);

			add_row(rows, "green", value ? MemoryContextStrdup(rows->context, value) : NULL);
			if (value)
				pfree(value);
		}
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
}

/*
 * Read only as a transaction is: also for functions the query calls.
 */
static void
read_green(const BcmigDialect *dialect, const char *query, Rows *rows)
{
	bool		read_only = XactReadOnly;
	int			guc_level = NewGUCNestLevel();

	spell_as_blue();
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	XactReadOnly = true;
	PG_TRY();
	{
		fetch_green(dialect, query, rows);
	}
	PG_FINALLY();
	{
		XactReadOnly = read_only;
	}
	PG_END_TRY();
	SPI_finish();
	AtEOXact_GUC(true, guc_level);
}

static int
compare_values(const void *a, const void *b)
{
	const char *x = *(char *const *) a;
	const char *y = *(char *const *) b;

	if (x == NULL || y == NULL)
		return (y == NULL) - (x == NULL);
	return strcmp(x, y);
}

/* how often the value at "from" stands there */
static int64
run_length(const Rows *rows, int64 from)
{
	int64		end = from + 1;

	while (end < rows->n && compare_values(&rows->values[from], &rows->values[end]) == 0)
		end++;
	return end - from;
}

static void
return_row(ReturnSetInfo *rsinfo, const char *side, int64 times, const char *value)
{
	Datum		values[3];
	bool		nulls[3] = {false, false, value == NULL};

	values[0] = CStringGetTextDatum(side);
	values[1] = Int64GetDatum(times);
	values[2] = value ? CStringGetTextDatum(value) : (Datum) 0;
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	pfree(DatumGetPointer(values[0]));
	if (value)
		pfree(DatumGetPointer(values[2]));
}

/*
 * bcmig_compare_query(sync, blue_query, green_query) returns (side, times,
 * value), ordered by value
 */
Datum
bcmig_compare_query(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = sync_of(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *blue_query = bcmig_arg_text(fcinfo, 1, "blue_query");
	char	   *green_query = bcmig_arg_text(fcinfo, 2, "green_query");
	BcmigEnvironment *env = bcmig_load_environment(NULL, sync->environment_id);
	const BcmigDialect *dialect = bcmig_dialect_of_server(env->serverid);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Rows		blue = {.context = CurrentMemoryContext};
	Rows		green = {.context = CurrentMemoryContext};
	int64		b = 0;
	int64		g = 0;

	InitMaterializedSRF(fcinfo, 0);
	read_blue(sync, env->serverid, dialect, blue_query, &blue);
	read_green(dialect, green_query, &green);
	if (blue.n > 1)
		qsort(blue.values, blue.n, sizeof(char *), compare_values);
	if (green.n > 1)
		qsort(green.values, green.n, sizeof(char *), compare_values);

	while (b < blue.n || g < green.n)
	{
		int			c = b >= blue.n ? 1 : g >= green.n ? -1 : compare_values(&blue.values[b], &green.values[g]);
		int64		on_blue = c <= 0 ? run_length(&blue, b) : 0;
		int64		on_green = c >= 0 ? run_length(&green, g) : 0;

		CHECK_FOR_INTERRUPTS();
		if (on_blue > on_green)
			return_row(rsinfo, "blue", on_blue - on_green, blue.values[b]);
		else if (on_green > on_blue)
			return_row(rsinfo, "green", on_green - on_blue, green.values[g]);
		b += on_blue;
		g += on_green;
	}
	return (Datum) 0;
}
