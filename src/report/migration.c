/*-------------------------------------------------------------------------
 *
 * migration.c
 *	  bcmig_migration_report: what became of a migration, and may it go on?
 *
 * Of an execution of a plan, or (NULL) of all syncs of this database.  The first
 * page is go, no-go or unknown, by the gates of each sync and by the state of the
 * execution; then what was proved and when.  Whatever was not measured, or is not
 * kept any more, is said to be unknown.
 *
 * All is read by short statements of one transaction of the caller; nothing is
 * asked of blue.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report.h"

#include "call.h"
#include "catalog/pg_type.h"
#include "configure.h"
#include "document.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "traffic.h"
#include "utils/array.h"
#include "utils/builtins.h"

BCMIG_FUNCTION(bcmig_migration_report);

/* may it go on? */
typedef enum Verdict
{
	GO,
	UNKNOWN,
	NO_GO
} Verdict;

static const char *const verdict_names[] = {"GO", "UNKNOWN", "NO-GO"};

/* what the report is about */
typedef struct Scope
{
	int64		execution;		/* 0 = all syncs */
	Datum		syncs;			/* int4[], their ids */
	int			nsyncs;
	int		   *sync_ids;
	List	   *missing;		/* char *, syncs of the execution that are gone */
	char	   *plan;
	char	   *state;			/* of the execution */
	char	   *error;
	Verdict		verdict;
	List	   *reasons;		/* char *, why it is no GO */
} Scope;

/* ---- what it is about ---- */

static void
take_syncs(Scope *s, MemoryContext caller, uint64 n)
{
	MemoryContext oldcontext = MemoryContextSwitchTo(caller);
	Datum	   *values = palloc(sizeof(Datum) * Max(n, 1));

	s->sync_ids = palloc(sizeof(int) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		int			id = (int) bcmig_get_int64(i, 1, 0);

		if (id == 0)
			s->missing = lappend(s->missing, bcmig_get_text(i, 2));
		else
		{
			values[s->nsyncs] = Int32GetDatum(id);
			s->sync_ids[s->nsyncs++] = id;
		}
	}
	s->syncs = PointerGetDatum(construct_array(values, s->nsyncs, INT4OID, sizeof(int32), true, TYPALIGN_INT));
	MemoryContextSwitchTo(oldcontext);
}

static void
load_scope(Scope *s)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext oldcontext;
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (s->execution != 0)
	{
		if (bcmig_sql("SELECT plan_name, state, error, kind FROM bcmig.execution WHERE execution_id = $1", "I", s->execution) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
					 errmsg("there is no execution " INT64_FORMAT, s->execution),
					 errhint("SELECT execution_id, plan_name, state FROM bcmig.execution;")));
		oldcontext = MemoryContextSwitchTo(caller);
		s->plan = psprintf("%s " INT64_FORMAT " of plan %s", bcmig_get_text(0, 4), s->execution, bcmig_get_text(0, 1));
		s->state = bcmig_get_text(0, 2);
		s->error = bcmig_get_text(0, 3);
		MemoryContextSwitchTo(oldcontext);
		take_syncs(s, caller, bcmig_sql("SELECT y.sync_id, n.name FROM bcmig.execution e, unnest(e.syncs) n (name) LEFT JOIN bcmig.sync y USING (name) "
										"WHERE e.execution_id = $1 ORDER BY n.name", "I", s->execution));
	}
	else
		take_syncs(s, caller, bcmig_sql("SELECT sync_id, name FROM bcmig.sync ORDER BY name", ""));
	bcmig_catalog_end(&scope);
}

/* ---- go or no-go ---- */

static void
worse(Scope *s, Verdict verdict, char *reason)
{
	s->verdict = Max(s->verdict, verdict);
	s->reasons = lappend(s->reasons, reason);
}

/*
 * Gates that say nothing of a sync that has got so far: writers on green come
 * with a lifted fence and an armed journal, and one that is completed streams no
 * more.
 */
static bool
counts(const char *gate, const char *stage)
{
	static const char *const lasting[] = {"validation", "quarantine", "conflicts"};

	if (strcmp(stage, "completed") == 0)
	{
		for (int i = 0; i < lengthof(lasting); i++)
		{
			if (strcmp(gate, lasting[i]) == 0)
				return true;
		}
		return false;
	}
	return strcmp(stage, "switched") != 0 || (strcmp(gate, "fence") != 0 && strcmp(gate, "journal") != 0);
}

/* columns of the table of checks that are looked at again */
enum
{
	CHECK_STATUS,
	CHECK_NAME,
	CHECK_SYNC,
	CHECK_FIX = 6
};

static const BcmigField check_fields[] = {
	{"status", "status", BCMIG_SHOW_STATUS},
	{"check", "check", BCMIG_SHOW_TEXT},
	{"sync", "sync", BCMIG_SHOW_TEXT, "all"},
	{"value", "value", BCMIG_SHOW_TEXT, ""},
	{"bound", "wanted", BCMIG_SHOW_TEXT, ""},
	{"detail", "detail", BCMIG_SHOW_TEXT, ""},
	{"fix", NULL, BCMIG_SHOW_CODE},
};

static void
add_check(Scope *s, BcmigPart *table, const char *sync, const BcmigCheck *c)
{
	const char *values[] = {c->status, c->name, sync, c->value, c->bound, c->detail, c->fix};
	bool		ok = strcmp(c->status, "ok") == 0 || strcmp(c->status, "skipped") == 0;

	bcmig_table_row(table, values);
	if (!ok)
		worse(s, strcmp(c->status, "fail") == 0 ? NO_GO : UNKNOWN,
			  psprintf("%s%s%s: %s%s%s", sync ? sync : "", sync ? ", " : "", c->name, c->value ? c->value : c->status,
					   c->bound ? ", wanted " : "", c->bound ? c->bound : ""));
}

/* for the first page: what speaks against it first */
static int
by_status(const ListCell *a, const ListCell *b)
{
	static const char *const order[] = {"fail", "inconclusive", "ok", "skipped"};
	const BcmigCell *x = lfirst(a);
	const BcmigCell *y = lfirst(b);
	int			i = 0;
	int			k = 0;

	while (i < lengthof(order) && strcmp(order[i], x[CHECK_STATUS].text) != 0)
		i++;
	while (k < lengthof(order) && strcmp(order[k], y[CHECK_STATUS].text) != 0)
		k++;
	if (i != k)
		return i - k;
	i = strcmp(x[CHECK_SYNC].text, y[CHECK_SYNC].text);
	return i != 0 ? i : strcmp(x[CHECK_NAME].text, y[CHECK_NAME].text);
}

static void
check_execution(Scope *s, BcmigPart *table)
{
	BcmigCheck	check = {.name = "execution", .value = s->state, .bound = "done", .detail = s->error};
	ListCell   *lc;

	foreach(lc, s->missing)
	{
		BcmigCheck	gone = {.name = "sync", .status = "inconclusive", .value = "gone", .detail = "There is no such sync any more."};

		add_check(s, table, lfirst(lc), &gone);
	}
	if (s->execution != 0)
	{
		check.status = strcmp(s->state, "done") == 0 ? "ok" :
			strcmp(s->state, "failed") == 0 || strcmp(s->state, "rolled_back") == 0 || strcmp(s->state, "cancelled") == 0 ? "fail" : "inconclusive";
		if (strcmp(check.status, "fail") == 0)
			check.fix = psprintf("SELECT name, sync, error FROM bcmig.phase_run WHERE execution_id = " INT64_FORMAT " AND error IS NOT NULL;", s->execution);
		add_check(s, table, NULL, &check);
	}
	else if (s->nsyncs == 0)
	{
		check = (BcmigCheck) {.name = "syncs", .status = "inconclusive", .value = "0", .bound = "at least 1", .detail = "There is nothing to report on."};
		add_check(s, table, NULL, &check);
	}
}

/*
 * Gates take an incremental run for proof, as far as it goes; here every table
 * must have been equal when all its rows were compared last.
 */
static BcmigCheck
check_proof(const BcmigSync *sync, MemoryContext context)
{
	BcmigCheck	check = {.name = "proof", .status = "inconclusive", .value = "no table", .bound = "all tables equal", .detail = "All rows, when they were compared last."};
	MemoryContext oldcontext;
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT p.equal || ' of ' || p.tables || ' tables equal', p.equal = p.tables FROM bcmig.sync_proof p WHERE p.sync_id = $1", "i", sync->sync_id) > 0)
	{
		oldcontext = MemoryContextSwitchTo(context);
		check.value = bcmig_get_text(0, 1);
		if (bcmig_get_bool(0, 2))
			check.status = "ok";
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(context);
	if (strcmp(check.status, "ok") != 0)
		check.fix = psprintf("SELECT bcmig_validate(%s, mode => 'full');", quote_literal_cstr(sync->name));
	return check;
}

static void
check_syncs(Scope *s, BcmigPart *in)
{
	BcmigPart  *table = bcmig_table(in, "checks", "What speaks for it and against it", check_fields, lengthof(check_fields));

	check_execution(s, table);
	for (int i = 0; i < s->nsyncs; i++)
	{
		MemoryContext caller = CurrentMemoryContext;
		BcmigSync  *sync = bcmig_read_sync(s->sync_ids[i]);
		BcmigCatalogScope scope;
		BcmigCheck	proof;
		char	   *stage;
		ListCell   *lc;

		CHECK_FOR_INTERRUPTS();
		if (sync == NULL)		/* dropped this moment */
			continue;
		bcmig_catalog_begin(&scope);
		stage = "";
		if (bcmig_sql("SELECT coalesce(stage, '') FROM bcmig.traffic_stage WHERE sync_id = $1", "i", sync->sync_id) > 0)
			stage = MemoryContextStrdup(caller, bcmig_get_text(0, 1));
		bcmig_catalog_end(&scope);
		foreach(lc, bcmig_gates(sync, true))
		{
			const BcmigCheck *check = lfirst(lc);

			if (counts(check->name, stage))
				add_check(s, table, sync->name, check);
		}
		proof = check_proof(sync, caller);
		add_check(s, table, sync->name, &proof);
	}
	list_sort(table->rows, by_status);
}

/* ---- sections; each inside a scope ---- */

/*
 * Times in which any of some tables was being copied, added up once: tables are
 * copied side by side.
 */
#define COPIED_FOR(where) \
	"(SELECT extract(epoch FROM sum(upper(u) - lower(u))) FROM (SELECT range_agg(tstzrange(x.copy_started, " \
	"  CASE WHEN x.copy_finished >= x.copy_started THEN x.copy_finished ELSE greatest(x.copy_started, clock_timestamp()) END)) AS m " \
	"  FROM bcmig.table_state x JOIN bcmig.sync_table xt USING (table_id) WHERE " where " AND x.copy_started IS NOT NULL " \
	"  AND (x.copy_finished >= x.copy_started OR x.state IN ('copying', 'resync'))) r, unnest(r.m) u)"

static const BcmigField data_fields[] = {
	{"tables", "tables", BCMIG_SHOW_INT},
	{"tables_streaming", "in step", BCMIG_SHOW_INT},
	{"rows_copied", "rows copied", BCMIG_SHOW_INT, "none"},
	{"bytes_copied", "copied", BCMIG_SHOW_BYTES, "none"},
	{"copy_seconds", "copied for", BCMIG_SHOW_SECONDS},
	{"copy_bytes_per_second", "speed of the copy", BCMIG_SHOW_BYTE_RATE},
	{"copy_rows_per_second", NULL, BCMIG_SHOW_ROW_RATE},
	{"rows_applied", "changes applied", BCMIG_SHOW_INT, "none"},
	{"rows_deleted", "deletes applied", BCMIG_SHOW_INT, "none"},
};

static const BcmigField effect_fields[] = {
	{"metrics_since", "measured since", BCMIG_SHOW_TEXT, "never"},
	{"rows_written", NULL, BCMIG_SHOW_INT},
	{"rows_failed", "rows refused", BCMIG_SHOW_INT},
	{"success_percent", "success rate", BCMIG_SHOW_PERCENT},
	{"errors", "jobs failed", BCMIG_SHOW_INT},
	{"lag_max_ms", "highest lag", BCMIG_SHOW_MS},
};

static void
data_section(const Scope *s, BcmigPart *document)
{
	BcmigPart  *out = bcmig_section(document, "data", "Data");

	bcmig_sql("SELECT d.tables, d.streaming, d.rows_copied, d.bytes, c.seconds, d.bytes / nullif(c.seconds, 0), d.rows_copied / nullif(c.seconds, 0), d.applied, d.deleted "
			  "FROM (SELECT count(*) AS tables, count(*) FILTER (WHERE t.state = 'streaming') AS streaming, sum(t.rows_copied) AS rows_copied, "
			  "  sum(s.bytes_copied) AS bytes, sum(t.rows_applied) AS applied, sum(t.rows_deleted) AS deleted "
			  "  FROM bcmig.table_status t JOIN bcmig.table_state s USING (table_id) WHERE t.sync_id = ANY ($1)) d, "
			  " (SELECT " COPIED_FOR("xt.sync_id = ANY ($1)") " AS seconds) c", "n", s->syncs);
	bcmig_row_lines(out, data_fields, lengthof(data_fields), 0);
	bcmig_sql("SELECT " BCMIG_AT("min(m.minute)") ", sum(m.rows_written + m.rows_deleted), sum(m.rows_failed), "
			  " 100.0 * sum(m.rows_written + m.rows_deleted) / nullif(sum(m.rows_written + m.rows_deleted + m.rows_failed), 0), "
			  " sum(m.errors), max(m.lag_max_ms) "
			  "FROM bcmig.metric m WHERE m.sync_id = ANY ($1) AND ($2 = 0 OR m.minute >= (SELECT date_trunc('minute', started_at) FROM bcmig.execution WHERE execution_id = $2)) "
			  " AND ($2 = 0 OR m.minute <= (SELECT coalesce(ended_at, 'infinity') FROM bcmig.execution WHERE execution_id = $2))",
			  "nI", s->syncs, s->execution);
	bcmig_row_lines(out, effect_fields, lengthof(effect_fields), 0);
}

static const BcmigField proof_fields[] = {
	{"sync", "sync", BCMIG_SHOW_TEXT},
	{"tables", "tables", BCMIG_SHOW_INT, "none"},
	{"compared", "compared", BCMIG_SHOW_INT, "none"},
	{"equal", "equal", BCMIG_SHOW_INT, "none"},
	{"oldest_at", "first compared", BCMIG_SHOW_TEXT, "never"},
	{"newest_at", "last compared", BCMIG_SHOW_TEXT, "never"},
	{"rows_blue", "rows on blue", BCMIG_SHOW_INT},
	{"rows_green", "rows on green", BCMIG_SHOW_INT},
	{"roots", "roots", BCMIG_SHOW_STATUS},
	{"root_blue", "root of blue", BCMIG_SHOW_CODE},
	{"root_green", "root of green", BCMIG_SHOW_CODE},
};

static const BcmigField run_fields[] = {
	{"sync", "sync", BCMIG_SHOW_TEXT},
	{"run_id", "run", BCMIG_SHOW_INT, "none"},
	{"mode", "mode", BCMIG_SHOW_TEXT, ""},
	{"verdict", "verdict", BCMIG_SHOW_STATUS, "not validated"},
	{"finished_at", "finished", BCMIG_SHOW_TEXT, ""},
	{"tables", "tables", BCMIG_SHOW_INT, ""},
	{"chunks", "chunks compared", BCMIG_SHOW_INT, ""},
	{"differences", "rows that differ", BCMIG_SHOW_INT, ""},
};

/*
 * All rows, table by table, whenever that was done last; and the newest run,
 * which looks also at rules and sequences, and of tables that were compared in
 * full only at what was written to since.
 */
static void
proof_section(const Scope *s, BcmigPart *document)
{
	BcmigPart  *out = bcmig_section(document, "proof", "Proof");

	bcmig_sql("SELECT y.name, p.tables, p.compared, p.equal, " BCMIG_AT("p.oldest_at") ", " BCMIG_AT("p.newest_at") ", p.rows_blue, p.rows_green, "
			  " CASE WHEN p.root_blue = p.root_green THEN 'equal' WHEN p.root_blue <> p.root_green THEN 'different' ELSE 'unknown' END, p.root_blue, p.root_green "
			  "FROM bcmig.sync y LEFT JOIN bcmig.sync_proof p USING (sync_id) WHERE y.sync_id = ANY ($1) ORDER BY y.name", "n", s->syncs);
	(void) bcmig_result_table(out, "full", "All rows of all tables, compared with blue", proof_fields, lengthof(proof_fields));
	bcmig_sql("SELECT y.name, r.run_id, r.mode, r.verdict, " BCMIG_AT("r.finished_at") ", v.tables, v.chunks, v.differences "
			  "FROM bcmig.sync y LEFT JOIN LATERAL (SELECT * FROM bcmig.validation_run r WHERE r.sync_id = y.sync_id AND r.table_id IS NULL "
			  "  AND r.state = 'finished' AND r.mode <> 'count' ORDER BY r.run_id DESC LIMIT 1) r ON true "
			  "LEFT JOIN LATERAL (SELECT count(*) AS tables, sum(chunks) AS chunks, sum(differences) AS differences FROM bcmig.validation_result v "
			  "  WHERE v.run_id = r.run_id HAVING r.run_id IS NOT NULL) v ON true "
			  "WHERE y.sync_id = ANY ($1) ORDER BY y.name", "n", s->syncs);
	(void) bcmig_result_table(out, "newest", "The newest validation of each sync", run_fields, lengthof(run_fields));
}

static const BcmigField phase_fields[] = {
	{"wave", "wave", BCMIG_SHOW_INT},
	{"sync", "sync", BCMIG_SHOW_TEXT, "all"},
	{"name", "phase", BCMIG_SHOW_TEXT},
	{"type", "type", BCMIG_SHOW_TEXT},
	{"state", "state", BCMIG_SHOW_STATUS},
	{"attempt", "attempts", BCMIG_SHOW_INT},
	{"started_at", "started", BCMIG_SHOW_TEXT, "not begun"},
	{"seconds", "took", BCMIG_SHOW_SECONDS, ""},
	{"tables", "tables", BCMIG_SHOW_INT, ""},
	{"rows", "rows", BCMIG_SHOW_INT, ""},
	{"bytes", "bytes", BCMIG_SHOW_BYTES, ""},
	{"sqlstate", NULL, BCMIG_SHOW_TEXT},
	{"error", "error", BCMIG_SHOW_TEXT, ""},
	{"note", "note", BCMIG_SHOW_TEXT, ""},
};

#define FIGURE(name)	"CASE WHEN jsonb_typeof(p.result -> '" name "') = 'number' THEN p.result ->> '" name "' END"

static void
phase_section(const Scope *s, BcmigPart *document)
{
	BcmigPart  *out;

	if (s->execution == 0)
		return;
	out = bcmig_section(document, "plan", "Phases");
	bcmig_sql("SELECT p.wave, nullif(p.sync, ''), p.name, p.type, p.state, p.attempt, " BCMIG_AT("p.started_at") ", "
			  " extract(epoch FROM coalesce(p.ended_at, CASE WHEN p.state IN ('running', 'compensating') THEN clock_timestamp() END) - p.started_at), "
			  " " FIGURE("tables") ", " FIGURE("rows") ", " FIGURE("bytes") ", p.sqlstate, p.error, p.note "
			  "FROM bcmig.phase_run p WHERE p.execution_id = $1 ORDER BY p.wave, p.position, p.sync", "I", s->execution);
	(void) bcmig_result_table(out, "phases", "Each phase", phase_fields, lengthof(phase_fields));
}

static const BcmigField sync_fields[] = {
	{"sync", "sync", BCMIG_SHOW_TEXT},
	{"state", "state", BCMIG_SHOW_TEXT},
	{"green_percent", "on green", BCMIG_SHOW_PERCENT},
	{"tables", "tables", BCMIG_SHOW_INT},
	{"rows_copied", "rows copied", BCMIG_SHOW_INT, "none"},
	{"bytes_copied", "copied", BCMIG_SHOW_BYTES, "none"},
	{"copy_seconds", "took", BCMIG_SHOW_SECONDS},
	{"copy_bytes_per_second", "speed", BCMIG_SHOW_BYTE_RATE},
	{"lag_ms", "lag", BCMIG_SHOW_MS},
	{"quarantined", "quarantined", BCMIG_SHOW_INT},
	{"conflicts_open", "open conflicts", BCMIG_SHOW_INT},
	{"conflicts", "conflicts", BCMIG_SHOW_INT},
	{"write_pause_ms", "write pause", BCMIG_SHOW_MS, "none yet"},
	{"switched_at", NULL, BCMIG_SHOW_TEXT},
};

static void
sync_section(const Scope *s, BcmigPart *document)
{
	BcmigPart  *out = bcmig_section(document, "per_sync", "Syncs");

	bcmig_sql("SELECT y.name, st.state, coalesce(t.green_percent, 0), st.tables, d.rows, d.bytes, c.seconds, d.bytes / nullif(c.seconds, 0), "
			  " extract(epoch FROM st.lag) * 1000, st.quarantined, st.conflicts, f.n, "
			  " (SELECT extract(epoch FROM w.write_pause) * 1000 FROM bcmig.switch w WHERE w.sync_id = y.sync_id AND w.kind = 'switch' AND w.write_pause IS NOT NULL ORDER BY w.switch_id DESC LIMIT 1), "
			  " " BCMIG_AT("t.switched_at") " "
			  "FROM bcmig.sync y JOIN bcmig.sync_status st ON st.sync = y.name LEFT JOIN bcmig.traffic t USING (sync_id), "
			  " LATERAL (SELECT sum(x.rows_copied) AS rows, sum(x.bytes_copied) AS bytes FROM bcmig.table_state x JOIN bcmig.sync_table xt USING (table_id) WHERE xt.sync_id = y.sync_id) d, "
			  " LATERAL (SELECT " COPIED_FOR("xt.sync_id = y.sync_id") " AS seconds) c, "
			  " LATERAL (SELECT count(*) AS n FROM bcmig.conflict x WHERE x.sync_id = y.sync_id) f "
			  "WHERE y.sync_id = ANY ($1) ORDER BY y.name", "n", s->syncs);
	(void) bcmig_result_table(out, "syncs", "Each sync", sync_fields, lengthof(sync_fields));
}

static const BcmigField switch_fields[] = {
	{"sync", "sync", BCMIG_SHOW_TEXT},
	{"kind", "what", BCMIG_SHOW_TEXT},
	{"state", "state", BCMIG_SHOW_STATUS},
	{"asked_at", "asked", BCMIG_SHOW_TEXT},
	{"ended_at", "ended", BCMIG_SHOW_TEXT, "not yet"},
	{"write_pause_ms", "writes stopped for", BCMIG_SHOW_MS, "not stopped"},
	{"by", "by", BCMIG_SHOW_TEXT},
	{"reason", "reason", BCMIG_SHOW_TEXT, ""},
	{"problem", "problem", BCMIG_SHOW_TEXT, ""},
};

static const BcmigField conflict_fields[] = {
	{"sync", "sync", BCMIG_SHOW_TEXT},
	{"policy", "policy", BCMIG_SHOW_TEXT},
	{"decision", "decision", BCMIG_SHOW_TEXT, "waits"},
	{"conflicts", "conflicts", BCMIG_SHOW_INT},
};

static void
traffic_section(const Scope *s, BcmigPart *document)
{
	BcmigPart  *out = bcmig_section(document, "traffic", "Switch and way back");

	bcmig_sql("SELECT y.name, w.kind, w.state, " BCMIG_AT("w.asked_at") ", " BCMIG_AT("w.ended_at") ", extract(epoch FROM w.write_pause) * 1000, w.by, w.reason, w.problem "
			  "FROM bcmig.switch w JOIN bcmig.sync y USING (sync_id) WHERE w.sync_id = ANY ($1) ORDER BY w.switch_id DESC", "n", s->syncs);
	(void) bcmig_result_table(out, "switches", "Switches and rollbacks", switch_fields, lengthof(switch_fields));
	bcmig_rollback_readiness(out, s->syncs);
	bcmig_sql("SELECT y.name, c.policy, c.decision, count(*) FROM bcmig.conflict c JOIN bcmig.sync y USING (sync_id) WHERE c.sync_id = ANY ($1) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
			  "n", s->syncs);
	(void) bcmig_result_table(out, "conflicts", "Conflicts", conflict_fields, lengthof(conflict_fields));
}

static const BcmigField cost_fields[] = {
	{"answer_ms", "a poll was answered in", BCMIG_SHOW_MS},
	{"answer_max_ms", "in the worst minute in", BCMIG_SHOW_MS},
	{"polls", "polls of this server run", BCMIG_SHOW_INT, "unknown: no poller runs"},
	{"batches_since", "reading recorded since", BCMIG_SHOW_TEXT, "never"},
	{"batches", "times tables were read", BCMIG_SHOW_INT},
	{"rows_read", "rows read", BCMIG_SHOW_INT},
	{"bytes_copied", "bytes read by the copy", BCMIG_SHOW_BYTES},
	{"statements", "statements", BCMIG_SHOW_INT, "not counted"},
};

static void
cost_section(const Scope *s, BcmigPart *document)
{
	BcmigPart  *out = bcmig_section(document, "blue_cost", "What it has cost blue");

	bcmig_sql("SELECT m.avg, m.max, l.polls, " BCMIG_AT("b.since") ", b.n, b.rows, (SELECT sum(x.bytes_copied) FROM bcmig.table_state x JOIN bcmig.sync_table t USING (table_id) WHERE t.sync_id = ANY ($1)), NULL "
			  "FROM (SELECT sum(blue_answer_ms * seconds) / nullif(sum(seconds) FILTER (WHERE blue_answer_ms IS NOT NULL), 0) AS avg, max(blue_answer_ms) AS max FROM bcmig.metric WHERE sync_id = ANY ($1)) m, "
			  " (SELECT min(started_at) AS since, nullif(count(*), 0) AS n, sum(rows_read) AS rows FROM bcmig.sync_batch WHERE sync_id = ANY ($1)) b, "
			  " (SELECT sum(polls) AS polls FROM bcmig.live_blues() WHERE (environment_id, owner) IN (SELECT environment_id, owner::oid FROM bcmig.sync WHERE sync_id = ANY ($1))) l",
			  "n", s->syncs);
	bcmig_row_lines(out, cost_fields, lengthof(cost_fields), 0);
}

static const BcmigField baseline_fields[] = {
	{"environment", "environment", BCMIG_SHOW_TEXT},
	{"side", "side", BCMIG_SHOW_TEXT},
	{"taken_at", "taken", BCMIG_SHOW_TEXT},
	{"tables", "tables", BCMIG_SHOW_INT},
	{"rows", "rows (estimate)", BCMIG_SHOW_INT},
	{"bytes", "size", BCMIG_SHOW_BYTES},
	{"columns", "columns", BCMIG_SHOW_INT},
	{"indexes", "indexes", BCMIG_SHOW_INT},
};

static const BcmigField time_compare_fields[] = {
	{"query", "query", BCMIG_SHOW_TEXT},
	{"blue_ms", "blue", BCMIG_SHOW_MS},
	{"green_ms", "green", BCMIG_SHOW_MS},
	{"ratio_percent", "green of blue", BCMIG_SHOW_PERCENT},
	{"blue_rows", "rows of blue", BCMIG_SHOW_INT},
	{"green_rows", "rows of green", BCMIG_SHOW_INT},
	{"error", "error", BCMIG_SHOW_TEXT, ""},
};

static const BcmigField size_compare_fields[] = {
	{"target", "table", BCMIG_SHOW_TEXT},
	{"blue_rows", "rows of blue", BCMIG_SHOW_INT},
	{"green_rows", "rows of green", BCMIG_SHOW_INT},
	{"blue_bytes", "size on blue", BCMIG_SHOW_BYTES},
	{"green_bytes", "size on green", BCMIG_SHOW_BYTES},
	{"blue_indexes", "indexes of blue", BCMIG_SHOW_INT},
	{"green_indexes", "indexes of green", BCMIG_SHOW_INT},
};

/* the newest baseline of each blue of the syncs, and of green */
#define NEWEST_BASELINES \
	"WITH n AS MATERIALIZED (SELECT DISTINCT ON (b.environment, b.side) b.* FROM bcmig.baseline b WHERE b.side = 'green' OR b.environment IN " \
	" (SELECT e.name FROM bcmig.environment e JOIN bcmig.sync y USING (environment_id) WHERE y.sync_id = ANY ($1)) " \
	" ORDER BY b.environment, b.side, b.baseline_id DESC), " \
	" mine AS MATERIALIZED (SELECT format('%I.%I', target_schema, target_table) AS target FROM bcmig.sync_table WHERE sync_id = ANY ($1)) "

static void
baseline_section(const Scope *s, BcmigPart *document)
{
	BcmigPart  *out = bcmig_section(document, "baseline", "Before and after");

	bcmig_sql(NEWEST_BASELINES
			  "SELECT n.environment, n.side, " BCMIG_AT("n.taken_at") ", count(t.target), sum(t.rows), sum(t.bytes), sum(t.columns), sum(t.indexes) "
			  "FROM n LEFT JOIN (bcmig.baseline_table t JOIN mine USING (target)) USING (baseline_id) GROUP BY 1, 2, n.taken_at ORDER BY 2, 1", "n", s->syncs);
	(void) bcmig_result_table(out, "baselines", "Baselines (bcmig_baseline)", baseline_fields, lengthof(baseline_fields));
	bcmig_sql(NEWEST_BASELINES
			  ", t AS MATERIALIZED (SELECT n.side, n.environment, x.* FROM n JOIN bcmig.baseline_time x USING (baseline_id)) "
			  "SELECT coalesce(b.name, g.name), b.ms, g.ms, 100 * g.ms / nullif(b.ms, 0), b.rows, g.rows, nullif(concat_ws('; ', 'blue: ' || b.error, 'green: ' || g.error), '') "
			  "FROM (SELECT * FROM t WHERE side = 'blue') b FULL JOIN (SELECT * FROM t WHERE side = 'green') g ON g.name = b.name ORDER BY 1, b.environment", "n", s->syncs);
	(void) bcmig_result_table(out, "queries", "Answer times of registered queries, median of five", time_compare_fields, lengthof(time_compare_fields));
	bcmig_sql(NEWEST_BASELINES
			  ", t AS MATERIALIZED (SELECT n.side, x.* FROM n JOIN bcmig.baseline_table x USING (baseline_id) JOIN mine USING (target)) "
			  "SELECT target, b.rows, g.rows, b.bytes, g.bytes, b.indexes, g.indexes "
			  "FROM (SELECT * FROM t WHERE side = 'blue') b FULL JOIN (SELECT * FROM t WHERE side = 'green') g USING (target) ORDER BY greatest(b.bytes, g.bytes) DESC NULLS LAST, target", "n", s->syncs);
	(void) bcmig_result_table(out, "sizes", "Tables, the biggest first; rows as the statistics of each side have them", size_compare_fields, lengthof(size_compare_fields));
}

static const BcmigField audit_fields[] = {
	{"rows", "rows in the chain", BCMIG_SHOW_INT, "none"},
	{"root", "ends with", BCMIG_SHOW_CODE, "nothing"},
	{"at", "at", BCMIG_SHOW_TEXT, ""},
	{"pending", "rows not chained yet", BCMIG_SHOW_INT},
};

static void
audit_section(BcmigPart *document)
{
	BcmigPart  *out = bcmig_section(document, "audit", "Audit log");

	bcmig_sql("SELECT h.rows, encode(h.hash, 'hex'), " BCMIG_AT("h.at") ", p.n FROM (SELECT count(*) AS n FROM bcmig.audit_pending) p LEFT JOIN bcmig.audit_head h ON true", "");
	bcmig_row_lines(out, audit_fields, lengthof(audit_fields), 0);
	bcmig_line(out, "checked", "not by this report: SELECT * FROM bcmig_verify_audit();");
}

static const BcmigField table_fields[] = {
	{"sync", "sync", BCMIG_SHOW_TEXT},
	{"target", "table", BCMIG_SHOW_TEXT},
	{"state", "state", BCMIG_SHOW_TEXT},
	{"rows_copied", "rows copied", BCMIG_SHOW_INT},
	{"bytes_copied", "copied", BCMIG_SHOW_BYTES},
	{"copy_seconds", "took", BCMIG_SHOW_SECONDS, ""},
	{"rows_applied", "changes", BCMIG_SHOW_INT},
	{"verdict", "proof", BCMIG_SHOW_STATUS, "not compared"},
	{"rows_blue", "rows on blue", BCMIG_SHOW_INT, ""},
	{"rows_green", "rows on green", BCMIG_SHOW_INT, ""},
	{"root_blue", NULL, BCMIG_SHOW_CODE},
	{"root_green", NULL, BCMIG_SHOW_CODE},
};

static void
table_section(const Scope *s, BcmigPart *document)
{
	BcmigPart  *out = bcmig_section(document, "all_tables", "Tables");

	bcmig_sql("WITH p AS MATERIALIZED (SELECT * FROM bcmig.table_proof WHERE sync_id = ANY ($1)) "
			  "SELECT t.sync, t.target, t.state, t.rows_copied, x.bytes_copied, CASE WHEN x.copy_finished >= x.copy_started THEN extract(epoch FROM x.copy_finished - x.copy_started) END, "
			  " t.rows_applied, p.verdict, p.rows_blue, p.rows_green, p.root_blue, p.root_green "
			  "FROM bcmig.table_status t JOIN bcmig.table_state x USING (table_id) JOIN p USING (table_id) "
			  "WHERE t.sync_id = ANY ($1) ORDER BY x.bytes_copied DESC, t.rows_copied DESC, t.target", "n", s->syncs);
	(void) bcmig_result_table(out, "tables", "Each table, the biggest first, with the newest comparison of all its rows", table_fields, lengthof(table_fields));
}

static const BcmigField advice_fields[] = {
	{"sync", "sync", BCMIG_SHOW_TEXT, "all"},
	{"why", "why", BCMIG_SHOW_TEXT},
	{"statement", "statement", BCMIG_SHOW_CODE},
};

/* what to do about each check that is not ok, and about each alert; a statement once */
static void
advice_section(const Scope *s, BcmigPart *document, const BcmigPart *checks)
{
	BcmigPart  *out = bcmig_section(document, "advice", "What to do next");
	BcmigPart  *table = bcmig_table(out, "recommendations", "Recommendations", advice_fields, lengthof(advice_fields));
	List	   *said = NIL;
	ListCell   *lc;

	foreach(lc, checks->rows)
	{
		const BcmigCell *c = lfirst(lc);
		const char *values[3];

		if (strcmp(c[CHECK_STATUS].text, "ok") == 0 || strcmp(c[CHECK_STATUS].text, "skipped") == 0 || strcmp(c[CHECK_FIX].json, "null") == 0)
			continue;
		values[0] = strcmp(c[CHECK_SYNC].json, "null") == 0 ? NULL : c[CHECK_SYNC].text;
		values[1] = psprintf("%s: %s", c[CHECK_NAME].text, c[CHECK_STATUS].text);
		values[2] = c[CHECK_FIX].text;
		bcmig_table_row(table, values);
		said = lappend(said, c[CHECK_FIX].text);
	}
	bcmig_sql("SELECT sync, concat_ws(', ', 'alert ' || name, target, detail), fix FROM bcmig.alert WHERE cleared_at IS NULL AND fix IS NOT NULL "
			  " AND (sync IS NULL OR sync IN (SELECT name FROM bcmig.sync WHERE sync_id = ANY ($1))) LIMIT 200", "n", s->syncs);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		const char *values[3] = {bcmig_get_text(i, 1), bcmig_get_text(i, 2), bcmig_get_text(i, 3)};
		bool		again = false;

		foreach(lc, said)
			again = again || strcmp(lfirst(lc), values[2]) == 0;
		if (!again)
			bcmig_table_row(table, values);
	}
	if (table->rows == NIL && s->verdict == GO)
		bcmig_line(out, "nothing", "is left to do before the next step");
}

/* ---- the first page ---- */

static const BcmigField time_fields[] = {
	{"status", "status", BCMIG_SHOW_TEXT},
	{"started_at", "started", BCMIG_SHOW_TEXT},
	{"ended_at", "ended", BCMIG_SHOW_TEXT, "not yet"},
	{"elapsed_seconds", "elapsed", BCMIG_SHOW_SECONDS},
};

static const BcmigField proved_fields[] = {
	{"proved_at", "proved at", BCMIG_SHOW_TEXT, "never"},
	{NULL, "tables compared", BCMIG_SHOW_TEXT, "none"},
	{"compared_tables", NULL, BCMIG_SHOW_INT},
	{"tables", NULL, BCMIG_SHOW_INT},
	{"compared_rows", "rows compared", BCMIG_SHOW_INT, "none"},
	{"proof", "proof", BCMIG_SHOW_TEXT},
};

/* proved at: each table was compared then or later */
static void
first_page(const Scope *s, BcmigPart *out)
{
	BcmigCatalogScope scope;
	StringInfoData reasons;
	ListCell   *lc;
	int			n = 0;

	bcmig_catalog_begin(&scope);
	if (s->execution != 0)
		bcmig_sql("SELECT state, " BCMIG_AT("started_at") ", " BCMIG_AT("ended_at") ", extract(epoch FROM coalesce(ended_at, clock_timestamp()) - started_at) "
				  "FROM bcmig.execution WHERE execution_id = $1", "I", s->execution);
	else
		bcmig_sql("SELECT coalesce(string_agg(DISTINCT st.state, ', ' ORDER BY st.state), 'no sync'), " BCMIG_AT("min(x.copy_started)") ", "
				  " CASE WHEN bool_and(t.switched_at IS NOT NULL) THEN " BCMIG_AT("max(t.switched_at)") " END, "
				  " extract(epoch FROM CASE WHEN bool_and(t.switched_at IS NOT NULL) THEN max(t.switched_at) ELSE clock_timestamp() END - min(x.copy_started)) "
				  "FROM bcmig.sync y JOIN bcmig.sync_status st ON st.sync = y.name LEFT JOIN bcmig.traffic t USING (sync_id) "
				  "LEFT JOIN LATERAL (SELECT min(x.copy_started) AS copy_started FROM bcmig.table_state x JOIN bcmig.sync_table xt USING (table_id) WHERE xt.sync_id = y.sync_id) x ON true "
				  "WHERE y.sync_id = ANY ($1)", "n", s->syncs);
	bcmig_row_lines(out, time_fields, lengthof(time_fields), 0);
	bcmig_sql("SELECT CASE WHEN sum(p.compared) = sum(p.tables) THEN " BCMIG_AT("min(p.oldest_at)") " END, sum(p.compared) || ' of ' || sum(p.tables), sum(p.compared), sum(p.tables), sum(p.rows_blue), "
			  " CASE WHEN coalesce(sum(p.compared), 0) = 0 THEN 'none: no table was compared in full' "
			  "  WHEN sum(p.differences) > 0 THEN 'rows differ: ' || string_agg(y.name, ', ' ORDER BY y.name) FILTER (WHERE p.differences > 0) "
			  "  WHEN bool_or(p.tables IS NULL OR p.compared < p.tables) THEN 'not of all: ' || string_agg(y.name, ', ' ORDER BY y.name) FILTER (WHERE p.tables IS NULL OR p.compared < p.tables) "
			  "  WHEN bool_or(p.equal < p.tables) THEN 'inconclusive: ' || string_agg(y.name, ', ' ORDER BY y.name) FILTER (WHERE p.equal < p.tables) "
			  "  WHEN count(*) FILTER (WHERE p.root_blue = p.root_green) = count(*) THEN 'every row of every table was equal on both sides, hash roots too' "
			  "  ELSE 'every row was equal; hash roots are unknown, as rows were on their way' END "
			  "FROM bcmig.sync y LEFT JOIN bcmig.sync_proof p USING (sync_id) WHERE y.sync_id = ANY ($1)", "n", s->syncs);
	bcmig_row_lines(out, proved_fields, lengthof(proved_fields), 0);
	bcmig_catalog_end(&scope);

	initStringInfo(&reasons);
	foreach(lc, s->reasons)
	{
		if (n++ == 5)
		{
			appendStringInfo(&reasons, "; and %d more", list_length(s->reasons) - 5);
			break;
		}
		appendStringInfo(&reasons, "%s%s", n > 1 ? "; " : "", (char *) lfirst(lc));
	}
	bcmig_line(out, "because", "%s", n > 0 ? reasons.data : "all checks are ok");
}

/*
 * bcmig_migration_report(execution bigint, format text)
 */
Datum
bcmig_migration_report(PG_FUNCTION_ARGS)
{
	static const BcmigField verdict_field = {"verdict", "verdict", BCMIG_SHOW_STATUS};
	char	   *format = bcmig_arg_text(fcinfo, 1, "format");
	Scope		s = {.execution = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT64(0)};
	BcmigCatalogScope scope;
	BcmigPart  *document;
	BcmigPart  *first;
	BcmigPart  *checks;
	List	   *parts;

	bcmig_check_format(format);
	if (!PG_ARGISNULL(0) && s.execution <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("there is no execution " INT64_FORMAT, s.execution),
				 errhint("SELECT execution_id, plan_name, state FROM bcmig.execution;")));
	load_scope(&s);
	document = bcmig_document("migration", psprintf("Migration report: %s", s.plan ? s.plan : "all syncs"));
	bcmig_member_raw(document, "execution_id", s.execution != 0 ? psprintf(INT64_FORMAT, s.execution) : "null");
	first = bcmig_section(document, "summary", psprintf("Migration, %s", s.plan ? s.plan : "all syncs"));

	/* the verdict comes first, and is known last */
	check_syncs(&s, first);
	parts = first->parts;
	checks = linitial(parts);
	first->parts = NIL;
	bcmig_value(first, &verdict_field, verdict_names[s.verdict]);
	first_page(&s, first);
	first->parts = list_concat(first->parts, parts);

	bcmig_catalog_begin(&scope);
	data_section(&s, document);
	proof_section(&s, document);
	if (strcmp(format, "html") == 0)
		bcmig_migration_plots(document, s.syncs, s.nsyncs, s.execution);
	phase_section(&s, document);
	sync_section(&s, document);
	traffic_section(&s, document);
	cost_section(&s, document);
	baseline_section(&s, document);
	audit_section(document);
	advice_section(&s, document, checks);
	table_section(&s, document);
	bcmig_catalog_end(&scope);
	PG_RETURN_TEXT_P(cstring_to_text(bcmig_write_document(document, format)));
}
