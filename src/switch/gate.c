/*-------------------------------------------------------------------------
 *
 * gate.c
 *	  What must be so before more readers are sent to green.
 *
 * ok and skipped (there is nothing to look at) let pass; what is not known does
 * not.  Lowering a weight asks none of them.  docs/gates.md has them all.
 *
 * A sync this one depends on (option depends_on) has to be in step and proved as
 * well, and those that one depends on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include "call.h"
#include "gate.h"
#include "options.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

BCMIG_FUNCTION(bcmig_check_gates);

/* rows of five minutes below which their error rate says nothing */
#define LEAST_ROWS_TEXT	"100"

bool
bcmig_way_back_asked(int sync_id)
{
	BcmigCatalogScope scope;
	bool		asked;

	bcmig_start_transaction();
	asked = bcmig_rollback_asked(sync_id);
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT FROM (SELECT green_percent FROM bcmig.traffic_request WHERE sync_id = $1 ORDER BY request_id DESC LIMIT 1) r "
				  "JOIN bcmig.traffic t ON t.sync_id = $1 WHERE r.green_percent < t.green_percent", "i", sync_id) > 0)
		asked = true;
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return asked;
}

/*
 * All answers of a round count from its end, however long it took.
 */
void
bcmig_ask_outside(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	TimestampTz began = GetCurrentTimestamp();
	BcmigCatalogScope scope;
	int			timeout = bcmig_traffic_timeout(sync);

	bcmig_ask_health(sync, timeout);
	bcmig_ask_queries(sync, timeout);

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.health SET counts_until = clock_timestamp() + $3 * interval '1 s' WHERE asked_at >= $2 AND environment_id IN "
			  "(SELECT environment_id FROM bcmig.environment WHERE environment_id = $1 OR side = 'green')", "izi", sync->environment_id, began, ANSWER_COUNTS);
	bcmig_sql("UPDATE bcmig.gate_answer SET counts_until = clock_timestamp() + $3 * interval '1 s' WHERE asked_at >= $2 AND gate_id IN "
			  "(SELECT gate_id FROM bcmig.gate WHERE sync_id = $1)", "izi", sync->sync_id, began, ANSWER_COUNTS);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
}

/*
 * A row: check_name, status, value, bound, detail, fix.  Each statement is about
 * one sync and planned for that: found together with what is depended on it would
 * be planned for thousands.
 */

/* of the sync $1 itself and of what it depends on; $2 ends the names of gates */
static const char *const step_gates =
	"WITH y AS (SELECT y.sync_id, y.name, y.options, b.bound, l.lag, s.state FROM bcmig.sync y JOIN bcmig.sync_state s USING (sync_id) "
	"  JOIN bcmig.lag_bound b USING (sync_id) LEFT JOIN bcmig.live_syncs() l USING (sync_id) WHERE y.sync_id = $1), "
	" r AS (SELECT r.run_id, r.mode, r.verdict, r.finished_at FROM bcmig.validation_run r WHERE r.sync_id = $1 AND r.table_id IS NULL "
	"  AND r.state = 'finished' AND r.mode <> 'count' ORDER BY r.run_id DESC LIMIT 1) "
	"SELECT 'lag' || $2, CASE WHEN lag IS NULL THEN 'inconclusive' WHEN lag <= bound THEN 'ok' ELSE 'fail' END, "
	"  coalesce(lag::text, 'unknown'), bound::text, 'The sync is ' || state || '.', "
	"  CASE WHEN lag IS NULL OR lag > bound THEN format('SELECT * FROM bcmig_status(%L);', name) END FROM y "
	"UNION ALL "
	"SELECT 'tables' || $2, CASE WHEN count(t.table_id) = 0 THEN 'fail' WHEN count(*) FILTER (WHERE NOT serves) = 0 THEN 'ok' ELSE 'fail' END, "
	"  count(*) FILTER (WHERE serves)::text, count(t.table_id)::text, 'Not streaming: ' || min(target) FILTER (WHERE NOT serves), "
	"  CASE WHEN count(t.table_id) = 0 THEN format('SELECT bcmig_add_table(%L, ''...'');', min(y.name)) "
	"  WHEN count(*) FILTER (WHERE NOT serves) > 0 "
	"  THEN format('SELECT target, state, reason FROM bcmig.table_status WHERE sync = %L;', min(y.name)) END "
	" FROM y LEFT JOIN (SELECT t.sync_id, t.table_id, t.target, "
	/* stored as well as alive: what a session has just suspended still streams until the manager has read it */
	"   t.state = 'streaming' AND s.state = 'streaming' AND coalesce((c.options->>'enabled')::bool, true) AS serves "
	"   FROM bcmig.table_status t JOIN bcmig.sync_table c USING (table_id) JOIN bcmig.table_state s USING (table_id)) t USING (sync_id) "
	"UNION ALL "
	"SELECT 'validation' || $2, CASE WHEN r.run_id IS NULL THEN 'inconclusive' WHEN r.verdict = 'different' THEN 'fail' "
	"  WHEN r.verdict <> 'ok' OR r.finished_at < clock_timestamp() - a.age OR a.unseen > 0 THEN 'inconclusive' ELSE 'ok' END, "
	"  coalesce(r.verdict || ', ' || to_char(r.finished_at, 'YYYY-MM-DD HH24:MI'), 'never'), 'ok, ' || a.age, "
	"  'Run ' || r.run_id || ' (' || r.mode || ')' || CASE WHEN a.unseen > 0 THEN ', before ' || a.unseen || ' tables were added or read again' ELSE '' END, "
	"  CASE WHEN r.verdict = 'different' THEN format('SELECT * FROM bcmig.validation_summary WHERE run_id = %s AND verdict <> ''ok'';', r.run_id) "
	"  WHEN r.run_id IS NULL OR r.verdict <> 'ok' OR r.finished_at < clock_timestamp() - a.age OR a.unseen > 0 THEN format('SELECT bcmig_validate(%L);', y.name) END "
	" FROM y LEFT JOIN r ON true, LATERAL (SELECT interval '1 ms' * coalesce((y.options->>'proof_age')::int8, 604800000) AS age, "
	"  (SELECT count(*) FROM bcmig.sync_table t JOIN bcmig.table_state s USING (table_id) WHERE t.sync_id = y.sync_id AND NOT EXISTS "
	"   (SELECT FROM bcmig.validation_result v WHERE v.run_id = r.run_id AND v.table_id = t.table_id "
	/* what is read again by compare has no end of a copy */
	"    AND v.started_at > coalesce(s.copy_finished, s.copy_started, 'infinity'))) AS unseen) a";

/* of the sync $1 itself */
static const char *const own_gates =
	"WITH y AS (SELECT y.sync_id, y.name, y.options, t.fence, t.journal_armed FROM bcmig.sync y LEFT JOIN bcmig.traffic t USING (sync_id) WHERE y.sync_id = $1) "
	"SELECT 'quarantine', CASE WHEN q.n = 0 THEN 'ok' ELSE 'fail' END, q.n::text, '0', NULL, "
	"  CASE WHEN q.n > 0 THEN format('SELECT bcmig_retry_quarantine(%L);', name) END "
	" FROM y, LATERAL (SELECT count(*) AS n FROM bcmig.quarantine q JOIN bcmig.sync_table t USING (table_id) WHERE t.sync_id = y.sync_id) q "
	"UNION ALL "
	"SELECT 'conflicts', CASE WHEN c.n = 0 THEN 'ok' ELSE 'fail' END, c.n::text, '0', NULL, "
	"  CASE WHEN c.n > 0 THEN format('SELECT bcmig_resolve_conflict(%s, ''source''); -- or target', c.first) END "
	" FROM y, LATERAL (SELECT count(*) AS n, min(conflict_id) AS first FROM bcmig.conflict c JOIN bcmig.sync_table t USING (table_id) WHERE t.sync_id = y.sync_id AND c.decision IS NULL) c "
	"UNION ALL "
	/* batches are found by their start: none takes an hour */
	"SELECT 'errors', CASE WHEN e.rows < " LEAST_ROWS_TEXT " THEN 'skipped' WHEN e.failed * 100.0 <= e.bound * e.rows THEN 'ok' ELSE 'fail' END, "
	"  e.failed || ' of ' || e.rows || ' rows failed', e.bound || ' % of at least " LEAST_ROWS_TEXT "', 'In the last five minutes.', "
	"  CASE WHEN e.failed > 0 THEN 'SELECT table_id, key, message FROM bcmig.quarantine ORDER BY last_seen DESC;' END "
	" FROM y, LATERAL (SELECT coalesce(sum(b.rows_read), 0) AS rows, coalesce(sum(b.rows_quarantined), 0) AS failed, "
	"   coalesce((y.options->>'error_threshold')::numeric, 5) AS bound FROM bcmig.sync_batch b "
	"   WHERE b.sync_id = y.sync_id AND b.kind IN ('window', 'copy') AND b.status = 'Completed' "
	"   AND b.started_at > now() - interval '1 hour' AND b.finished_at > now() - interval '5 min') e "
	"UNION ALL "
	/* where writers move by weight the fence is down, and the journal armed, from the first step on */
	"SELECT 'fence', CASE WHEN fence OR journal_armed AND options->>'traffic' = 'reads_and_writes' THEN 'ok' ELSE 'fail' END, CASE WHEN fence THEN 'up' ELSE 'down' END, 'up', "
	"  CASE WHEN fence THEN NULL ELSE 'Somebody beside the sync may write to green tables.' END, "
	"  CASE WHEN fence THEN NULL ELSE format('CALL bcmig.raise_fence(%L);', name) END FROM y "
	"UNION ALL "
	"SELECT 'journal', CASE WHEN journal_armed AND coalesce(options->>'traffic', 'reads') = 'reads' THEN 'fail' ELSE 'ok' END, CASE WHEN journal_armed THEN 'armed' ELSE 'not armed' END, "
	"  'not armed', NULL, CASE WHEN journal_armed THEN format('SELECT bcmig.disarm_journal(%L);', name) END FROM y "
	"UNION ALL "
	/* where it is there it is one of the sync's own queries */
	"SELECT 'keys_disjoint', 'fail', 'there is no such gate', 'true', 'Both sides give out numbers while writers are on both: their ranges must not meet.', "
	"  format('SELECT bcmig_add_gate(%L, ''keys_disjoint'', ''SELECT min(last_number) >= 1000000000 FROM ...''); -- true: green and blue give out different numbers', name) "
	" FROM y WHERE options->>'traffic' = 'reads_and_writes' AND NOT EXISTS (SELECT FROM bcmig.gate g WHERE g.sync_id = y.sync_id AND g.name = 'keys_disjoint')";

/* the rows of the last result */
static List *
add_rows(List *checks, MemoryContext context, uint64 n)
{
	MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
		checks = bcmig_add_check(checks, bcmig_get_text(i, 1), bcmig_get_text(i, 2), bcmig_get_text(i, 3),
								 bcmig_get_text(i, 4), bcmig_get_text(i, 5), bcmig_get_text(i, 6));
	return checks;
}

/* of what the sync depends on, and what that depends on */
static List *
needed_gates(List *checks, MemoryContext context, const BcmigSync *sync)
{
	uint64		n = bcmig_sql("WITH RECURSIVE d AS (SELECT name, options FROM bcmig.sync WHERE sync_id = $1 "
							  " UNION SELECT n.name, y.options FROM d, jsonb_array_elements_text(d.options->'depends_on') n (name) "
							  " LEFT JOIN bcmig.sync y ON y.name = n.name) "
							  "SELECT d.name, y.sync_id FROM d LEFT JOIN bcmig.sync y USING (name) WHERE y.sync_id IS DISTINCT FROM $1 ORDER BY 1",
							  "i", sync->sync_id);
	char	  **names;
	int		   *ids;

	MemoryContextSwitchTo(context);
	names = palloc(sizeof(char *) * Max(n, 1));
	ids = palloc(sizeof(int) * Max(n, 1));
	for (uint64 i = 0; i < n; i++)
	{
		names[i] = bcmig_get_text(i, 1);
		ids[i] = bcmig_get_int64(i, 2, 0);
	}
	for (uint64 i = 0; i < n; i++)
	{
		if (ids[i] == 0)
			checks = bcmig_add_check(checks, psprintf("lag of %s", names[i]), "fail", "unknown", NULL, "There is no such sync.",
									 psprintf("SELECT bcmig_alter_sync(%s, '{\"depends_on\": [\"...\"]}');", quote_literal_cstr(sync->name)));
		else
			checks = add_rows(checks, context, bcmig_sql(step_gates, "it", ids[i], psprintf(" of %s", names[i])));
	}
	return checks;
}

List *
bcmig_gates(const BcmigSync *sync, bool asking)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *checks = NIL;

	bcmig_catalog_begin(&scope);
	checks = add_rows(checks, caller, bcmig_sql(step_gates, "it", sync->sync_id, ""));
	checks = add_rows(checks, caller, bcmig_sql(own_gates, "i", sync->sync_id));
	checks = needed_gates(checks, caller, sync);
	checks = bcmig_health_gates(checks, caller, sync, asking);
	checks = bcmig_query_gates(checks, caller, sync, asking);
	bcmig_catalog_end(&scope);
	return checks;
}

char *
bcmig_gates_text(List *checks)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	foreach(lc, checks)
	{
		const BcmigCheck *c = lfirst(lc);

		if (strcmp(c->status, "ok") != 0 && strcmp(c->status, "skipped") != 0)
			appendStringInfo(&s, "%sgate %s: %s, %s%s%s%s%s%s", s.len > 0 ? "; " : "", c->name, c->status,
							 c->value ? c->value : "", c->bound ? ", wanted " : "", c->bound ? c->bound : "",
							 c->detail ? " (" : "", c->detail ? c->detail : "", c->detail ? ")" : "");
	}
	return s.len > 0 ? s.data : NULL;
}

/*
 * bcmig_check_gates(sync): as a worker would find them now.
 */
Datum
bcmig_check_gates(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));

	return bcmig_return_checks(fcinfo, bcmig_gates(sync, true));
}
