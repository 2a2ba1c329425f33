/*-------------------------------------------------------------------------
 *
 * gate.c
 *	  What must be so before more readers are sent to green.
 *
 * ok and skipped (there is nothing to look at) let pass; what is not known does
 * not.  Lowering a weight asks none of them.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include "call.h"
#include "http.h"
#include "options.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

BCMIG_FUNCTION(bcmig_check_gates);

#define HEALTH_FRESH	30		/* s an answer of a health URL counts */
#define MOST_ANSWER		(64 * 1024)

/* ---- health ---- */

typedef struct HealthUrl
{
	int			environment_id;
	char	   *url;
} HealthUrl;

#define HEALTH_URL	"coalesce(e.options->>'health_url', e.health_url)"

/*
 * Of the sync's blue and of green.  In no transaction: the answers may take
 * their time.
 */
void
bcmig_ask_health(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *urls = NIL;
	ListCell   *lc;
	int			timeout;
	uint64		n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	timeout = bcmig_option_int64("traffic_timeout", NULL, sync->options, 0);
	n = bcmig_sql("SELECT e.environment_id, " HEALTH_URL " FROM bcmig.environment e "
				  "WHERE (e.environment_id = $1 OR e.side = 'green') AND " HEALTH_URL " IS NOT NULL", "i", sync->environment_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		HealthUrl  *u = palloc(sizeof(HealthUrl));

		u->environment_id = bcmig_get_int64(i, 1, 0);
		u->url = bcmig_get_text(i, 2);
		urls = lappend(urls, u);
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();

	foreach(lc, urls)
	{
		HealthUrl  *u = lfirst(lc);
		BcmigHttpRequest request = {.method = "GET", .url = u->url, .timeout = timeout, .most_bytes = MOST_ANSWER};
		BcmigHttpAnswer *answer = bcmig_http(&request);
		bool		ok = answer->error == NULL && answer->status >= 200 && answer->status < 300;

		bcmig_start_transaction();
		bcmig_catalog_begin(&scope);
		bcmig_sql("INSERT INTO bcmig.health (environment_id, asked_at, ok, detail) "
				  "SELECT environment_id, clock_timestamp(), $2, $3 FROM bcmig.environment WHERE environment_id = $1 "
				  "ON CONFLICT (environment_id) DO UPDATE SET asked_at = excluded.asked_at, ok = excluded.ok, detail = excluded.detail",
				  "ibt", u->environment_id, (int) ok,
				  answer->error ? psprintf("%s: %s", u->url, answer->error) :
				  psprintf("%s: status %ld after %d ms", u->url, answer->status, answer->ms));
		bcmig_catalog_end(&scope);
		bcmig_end_transaction();
	}
}

/* the stored answers; a session that only asks has none of its own */
static List *
health_gates(List *checks, MemoryContext context, const BcmigSync *sync, bool asking)
{
	uint64		n = bcmig_sql("SELECT e.side, " HEALTH_URL ", h.ok, extract(epoch FROM clock_timestamp() - h.asked_at)::int8, "
							  " h.detail, e.name FROM bcmig.environment e LEFT JOIN bcmig.health h USING (environment_id) "
							  "WHERE e.environment_id = $1 OR e.side = 'green' ORDER BY 1", "i", sync->environment_id);

	MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *name = psprintf("health of %s", bcmig_get_text(i, 1));
		char	   *url = bcmig_get_text(i, 2);
		int64		age = bcmig_get_int64(i, 4, -1);
		bool		fresh = age >= 0 && age <= HEALTH_FRESH;
		char	   *fix = psprintf("SELECT bcmig_alter_environment(%s, '{\"health_url\": \"https://...\"}');",
								   quote_literal_cstr(bcmig_get_text(i, 6)));

		if (url == NULL)
			checks = bcmig_add_check(checks, name, "skipped", NULL, NULL, "No health URL is known.", fix);
		else if (!fresh)
			checks = bcmig_add_check(checks, name, asking ? "skipped" : "inconclusive",
									 age < 0 ? "not asked" : psprintf(INT64_FORMAT " s ago", age), psprintf("%d s", HEALTH_FRESH),
									 asking ? psprintf("Asked when a weight is raised.%s%s", age < 0 ? "" : " Last: ", age < 0 ? "" : bcmig_get_text(i, 5)) :
									 url, NULL);
		else
			checks = bcmig_add_check(checks, name, bcmig_get_bool(i, 3) ? "ok" : "fail", psprintf(INT64_FORMAT " s ago", age),
									 psprintf("%d s", HEALTH_FRESH), bcmig_get_text(i, 5), bcmig_get_bool(i, 3) ? NULL : fix);
	}
	return checks;
}

/* ---- what the catalogue and shared memory say ---- */

/* a row: check_name, status, value, bound, detail, fix */
static const char *const gates =
	"WITH y AS (SELECT y.sync_id, y.name, y.options, b.bound, l.lag, s.state FROM bcmig.sync y JOIN bcmig.sync_state s USING (sync_id) "
	"  JOIN bcmig.lag_bound b USING (sync_id) LEFT JOIN bcmig.live_syncs() l USING (sync_id) WHERE y.sync_id = $1), "
	" r AS (SELECT r.run_id, r.mode, r.verdict, r.finished_at FROM bcmig.validation_run r WHERE r.sync_id = $1 AND r.table_id IS NULL "
	"  AND r.state = 'finished' AND r.mode <> 'count' ORDER BY r.run_id DESC LIMIT 1) "
	"SELECT 'lag', CASE WHEN lag IS NULL THEN 'inconclusive' WHEN lag <= bound THEN 'ok' ELSE 'fail' END, "
	"  coalesce(lag::text, 'unknown'), bound::text, 'The sync is ' || state || '.', "
	"  CASE WHEN lag IS NULL OR lag > bound THEN format('SELECT * FROM bcmig_status(%L);', name) END FROM y "
	"UNION ALL "
	"SELECT 'tables', CASE WHEN count(t.table_id) = 0 THEN 'fail' WHEN count(*) FILTER (WHERE NOT serves) = 0 THEN 'ok' ELSE 'fail' END, "
	"  count(*) FILTER (WHERE serves)::text, count(t.table_id)::text, 'Not streaming: ' || min(target) FILTER (WHERE NOT serves), "
	"  CASE WHEN count(*) FILTER (WHERE NOT serves) > 0 "
	"  THEN format('SELECT target, state, reason FROM bcmig.table_status WHERE sync = %L AND state <> ''streaming'';', min(y.name)) END "
	" FROM y LEFT JOIN (SELECT t.sync_id, t.table_id, t.target, "
	"   t.state = 'streaming' AND coalesce((c.options->>'enabled')::bool, true) AS serves "
	"   FROM bcmig.table_status t JOIN bcmig.sync_table c USING (table_id)) t USING (sync_id) "
	"UNION ALL "
	"SELECT 'quarantine', CASE WHEN q.n = 0 THEN 'ok' ELSE 'fail' END, q.n::text, '0', NULL, "
	"  CASE WHEN q.n > 0 THEN format('SELECT bcmig_retry_quarantine(%L);', name) END "
	" FROM y, LATERAL (SELECT count(*) AS n FROM bcmig.quarantine q JOIN bcmig.sync_table t USING (table_id) WHERE t.sync_id = y.sync_id) q "
	"UNION ALL "
	"SELECT 'conflicts', CASE WHEN c.n = 0 THEN 'ok' ELSE 'fail' END, c.n::text, '0', NULL, "
	"  CASE WHEN c.n > 0 THEN format('SELECT bcmig_resolve_conflict(%s, ''source''); -- or target', c.first) END "
	" FROM y, LATERAL (SELECT count(*) AS n, min(conflict_id) AS first FROM bcmig.conflict c JOIN bcmig.sync_table t USING (table_id) WHERE t.sync_id = y.sync_id AND c.decision IS NULL) c "
	"UNION ALL "
	"SELECT 'validation', CASE WHEN r.run_id IS NULL THEN 'inconclusive' WHEN r.verdict = 'different' THEN 'fail' "
	"  WHEN r.verdict <> 'ok' OR r.finished_at < clock_timestamp() - a.age OR a.unseen > 0 THEN 'inconclusive' ELSE 'ok' END, "
	"  coalesce(r.verdict || ', ' || to_char(r.finished_at, 'YYYY-MM-DD HH24:MI'), 'never'), 'ok, ' || a.age, "
	"  'Run ' || r.run_id || ' (' || r.mode || ')' || CASE WHEN a.unseen > 0 THEN ', before ' || a.unseen || ' tables were added' ELSE '' END, "
	"  CASE WHEN r.verdict = 'different' THEN format('SELECT * FROM bcmig.validation_summary WHERE run_id = %s AND verdict <> ''ok'';', r.run_id) "
	"  WHEN r.run_id IS NULL OR r.verdict <> 'ok' OR r.finished_at < clock_timestamp() - a.age OR a.unseen > 0 THEN format('SELECT bcmig_validate(%L);', y.name) END "
	" FROM y LEFT JOIN r ON true, LATERAL (SELECT interval '1 ms' * coalesce((y.options->>'proof_age')::int8, 604800000) AS age, "
	"  (SELECT count(*) FROM bcmig.sync_table t WHERE t.sync_id = y.sync_id AND NOT EXISTS "
	"   (SELECT FROM bcmig.validation_result v WHERE v.run_id = r.run_id AND v.table_id = t.table_id)) AS unseen) a "
	"UNION ALL "
	"SELECT 'fence', CASE WHEN t.fence THEN 'ok' ELSE 'fail' END, CASE WHEN t.fence THEN 'up' ELSE 'down' END, 'up', "
	"  CASE WHEN t.fence THEN NULL ELSE 'Somebody beside the sync may write to green tables.' END, "
	"  CASE WHEN t.fence THEN NULL ELSE format('CALL bcmig.raise_fence(%L);', name) END "
	" FROM y LEFT JOIN bcmig.traffic t USING (sync_id) "
	"UNION ALL "
	"SELECT 'journal', CASE WHEN t.journal_armed THEN 'fail' ELSE 'ok' END, CASE WHEN t.journal_armed THEN 'armed' ELSE 'not armed' END, "
	"  'not armed', NULL, CASE WHEN t.journal_armed THEN format('SELECT bcmig.disarm_journal(%L);', name) END "
	" FROM y LEFT JOIN bcmig.traffic t USING (sync_id)";

List *
bcmig_gates(const BcmigSync *sync, bool asking)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *checks = NIL;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql(gates, "i", sync->sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		checks = bcmig_add_check(checks, bcmig_get_text(i, 1), bcmig_get_text(i, 2), bcmig_get_text(i, 3),
								 bcmig_get_text(i, 4), bcmig_get_text(i, 5), bcmig_get_text(i, 6));
	checks = health_gates(checks, caller, sync, asking);
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
