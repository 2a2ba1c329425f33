/*-------------------------------------------------------------------------
 *
 * numbers.c
 *	  Sequences and numbered columns in a validation.
 *
 * While blue gives out numbers green's sequences stand behind, as they should:
 * they are set when blue has stopped.  So nothing is asserted of a sequence
 * bcmig_set_sequences has not set, nor of one blue has gone on with since while
 * green gave out nothing: both are "not set".  Anything else that would let
 * green give out a number that is taken is "behind", and a difference.
 *
 * Read in this order, so that what happens meanwhile only makes a side look
 * further than it has to be: numbers in green's rows, then blue's (a row's
 * number was given out before the row came), then green's sequences with what
 * they were set to.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "executor/spi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "remote.h"
#include "slot.h"

/* a column of green that has been given its sequence */
typedef struct Numbered
{
	char	   *target;
	char	   *sql;			/* for the last number in its table's rows */
	char	   *rows;			/* that number, or NULL */
} Numbered;

/* with the numbers in their rows, read as the current user; in a transaction */
static List *
load_numbered(int sync_id)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *numbered = NIL;
	ListCell   *lc;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT n.target, format('SELECT %s(%s)::pg_catalog.text FROM %I.%I', CASE WHEN n.increment < 0 THEN 'min' ELSE 'max' END, "
			  " n.\"column\", t.target_schema, t.target_table) "
			  "FROM bcmig.number_sequence n JOIN bcmig.sync_table t USING (table_id) WHERE n.sync_id = $1", "i", sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Numbered   *n = palloc0(sizeof(Numbered));

		n->target = bcmig_get_text(i, 1);
		n->sql = bcmig_get_text(i, 2);
		numbered = lappend(numbered, n);
	}
	bcmig_catalog_end(&scope);

	foreach(lc, numbered)
	{
		Numbered   *n = lfirst(lc);
		char	   *rows;

		CHECK_FOR_INTERRUPTS();
		if (SPI_connect() != SPI_OK_CONNECT || SPI_execute(n->sql, true, 1) != SPI_OK_SELECT)
			elog(ERROR, "looking at the numbers of %s failed", n->target);
		rows = bcmig_get_text(0, 1);
		n->rows = rows ? MemoryContextStrdup(caller, rows) : NULL;
		SPI_finish();
	}
	return numbered;
}

/* one of blue's; in a catalogue scope */
static void
store_blue(const BcmigRun *run, char **row)
{
	bool		identity = bcmig_answer_is(row, "identity");
	char	   *source = identity ? psprintf("%s.%s", bcmig_answer_text(row, 2), bcmig_answer_text(row, 3)) : bcmig_answer_text(row, 1);
	char	   *last = identity ? row[4] : row[2];

	/* set: for each of green's */
	if (bcmig_sql("UPDATE bcmig.validation_sequence SET blue = $3::int8 WHERE run_id = $1 AND source = $2", "Itt",
				  run->run_id, source, last) > 0)
		return;

	/* not set, and one of this sync's tables or companies, or of none */
	bcmig_sql("INSERT INTO bcmig.validation_sequence (run_id, source, blue, verdict, detail) "
			  "SELECT $1, $2, $3::int8, 'not set', format('SELECT * FROM bcmig_set_sequences(%L); when blue has stopped', $8) "
			  "WHERE CASE WHEN $4 THEN EXISTS (SELECT FROM bcmig.sync_table t JOIN bcmig.column_map m USING (table_id) "
			  "  WHERE t.sync_id = $5 AND t.source_schema = $6 AND t.source_table = $7 AND m.part = 0 AND m.source_column = $9) "
			  " ELSE EXISTS (SELECT FROM bcmig.sync_table t WHERE t.sync_id = $5 AND t.al_table IS NOT NULL "
			  "  AND (strpos($2, '$') = 0 OR starts_with($2, left(t.source_table, length(t.company) + 1)))) END",
			  "Ittbitttt", run->run_id, source, last, (int) identity, run->sync_id, identity ? row[1] : NULL,
			  identity ? row[2] : NULL, run->sync_name, identity ? row[3] : NULL);
}

/*
 * Verdicts of those that have been set; u.up turns around what counts down.  In
 * a catalogue scope.
 */
static void
judge(const BcmigRun *run)
{
	bcmig_sql("UPDATE bcmig.validation_sequence q SET green = x.green, verdict = x.verdict, "
			  " detail = CASE x.verdict WHEN 'not set' THEN format('blue has given out more since it was set: SELECT * FROM bcmig_set_sequences(%L); when blue has stopped', $2) "
			  "  WHEN 'behind' THEN CASE WHEN NOT x.there THEN 'the sequence is gone' WHEN x.short THEN 'it was set to ' || x.value "
			  "   WHEN x.moved THEN 'blue and green both have given out numbers since it was set' ELSE 'green''s rows have numbers neither side has given out' END "
			  "   || format(': SELECT * FROM bcmig_set_sequences(%L);', $2) END "
			  "FROM (SELECT *, CASE WHEN NOT there OR short THEN 'behind' WHEN NOT overtaken THEN 'ok' "
			  "   WHEN moved AND green IS NOT DISTINCT FROM value THEN 'not set' ELSE 'behind' END AS verdict "
			  "  FROM (SELECT n.target, n.value, s.last_value AS green, s.sequencename IS NOT NULL AS there, "
			  "     coalesce((n.value - coalesce(s.last_value, n.value - u.up)) * u.up > 0, false) AS short, "
			  "     coalesce((v.blue - coalesce(s.last_value, v.blue - u.up)) * u.up > 0, false) "
			  "      OR coalesce((v.rows - coalesce(s.last_value, v.rows - u.up)) * u.up > 0, false) AS overtaken, "
			  "     coalesce((v.blue - coalesce(n.blue, v.blue - u.up)) * u.up > 0, false) AS moved "
			  "    FROM bcmig.validation_sequence v JOIN bcmig.number_sequence n ON n.sync_id = $3 AND n.target = v.target "
			  "    CROSS JOIN LATERAL (SELECT sign(n.increment)::numeric AS up) u "
			  "    LEFT JOIN pg_sequences s ON format('%I.%I', s.schemaname, s.sequencename) = n.target "
			  "    WHERE v.run_id = $1) y) x "
			  "WHERE q.run_id = $1 AND q.target = x.target", "Iti", run->run_id, run->sync_name, run->sync_id);
}

/* does the run look at sequences, and has it neither done so nor failed to? */
static bool
is_due(const BcmigRun *run)
{
	BcmigCatalogScope scope;
	bool		looked;

	if (run->table_id != 0 || strcmp(run->mode, "count") == 0)
		return false;
	bcmig_catalog_begin(&scope);
	looked = bcmig_sql("SELECT 1 FROM bcmig.validation_sequence WHERE run_id = $1 LIMIT 1", "I", run->run_id) > 0;
	bcmig_catalog_end(&scope);
	return !looked;
}

void
bcmig_check_numbers(const BcmigRun *run, Oid feed)
{
	const BcmigBcDialect *bc = bcmig_dialect_of_server(GetForeignTable(feed)->serverid)->bc;
	BcmigCatalogScope scope;
	List	   *numbered;
	List	   *blue;
	ListCell   *lc;

	if (bc == NULL || !is_due(run))
		return;
	bcmig_slot_phase("sequences", NULL, 0);
	numbered = load_numbered(run->sync_id);
	blue = bcmig_remote_texts(feed, bc->sequences());

	bcmig_catalog_begin(&scope);
	/* but for those of companies that have been taken out of the sync */
	bcmig_sql("INSERT INTO bcmig.validation_sequence (run_id, source, target, verdict) SELECT $1, n.source, n.target, 'ok' "
			  "FROM bcmig.number_sequence n WHERE n.sync_id = $2 AND EXISTS (SELECT FROM bcmig.sync_table t "
			  " WHERE t.sync_id = n.sync_id AND t.target_schema = (parse_ident(n.target))[1])", "Ii", run->run_id, run->sync_id);
	foreach(lc, numbered)
	{
		Numbered   *n = lfirst(lc);

		bcmig_sql("UPDATE bcmig.validation_sequence SET rows = $3::int8 WHERE run_id = $1 AND target = $2", "Itt",
				  run->run_id, n->target, n->rows);
	}
	foreach(lc, blue)
	{
		CHECK_FOR_INTERRUPTS();
		store_blue(run, lfirst(lc));
	}
	judge(run);
	bcmig_catalog_end(&scope);
}

void
bcmig_numbers_failed(int sync_id, const char *message)
{
	BcmigCatalogScope scope;
	BcmigRun   *run = bcmig_run_ready(sync_id);

	if (run == NULL || !is_due(run))
		return;
	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.validation_sequence (run_id, verdict, detail) VALUES ($1, 'inconclusive', $2)", "It", run->run_id, message);
	bcmig_catalog_end(&scope);
}
