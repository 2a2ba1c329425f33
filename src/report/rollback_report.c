/*-------------------------------------------------------------------------
 *
 * rollback_report.c
 *	  bcmig_rollback_report: what a rollback has done, and what is not on blue.
 *
 * Readers go back to blue before all that was written on green has been brought
 * there (bcmig_rollback); what they cannot see yet is told by table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "report.h"

#include "call.h"
#include "catalog/pg_type.h"
#include "document.h"
#include "fmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"

BCMIG_FUNCTION(bcmig_rollback_report);

static const BcmigField readiness_fields[] = {
	{"sync", "sync", BCMIG_SHOW_TEXT},
	{"green_percent", "on green", BCMIG_SHOW_PERCENT},
	{"writes", "writes go to", BCMIG_SHOW_TEXT},
	{"journal_armed", "journal", BCMIG_SHOW_BOOL},
	{"unreplayed", "not on blue", BCMIG_SHOW_INT},
	{"blue_fence", "blue", BCMIG_SHOW_TEXT, "never read"},
	{"readiness", "rollback", BCMIG_SHOW_TEXT},
};

void
bcmig_rollback_readiness(BcmigPart *in, Datum syncs)
{
	bcmig_sql("SELECT y.name, coalesce(t.green_percent, 0), coalesce(t.writes, 'blue'), j.journal_armed, j.unreplayed, t.blue_fence, "
			  " CASE WHEN t.completed_at IS NOT NULL THEN 'no: given up by bcmig_complete_sync' "
			  "  WHEN t.held IS NOT NULL THEN 'held: ' || t.held "
			  "  WHEN coalesce(t.green_percent, 0) = 0 THEN 'nothing to bring back' "
			  "  WHEN t.green_percent < 100 THEN 'ready: readers go to blue at once' "
			  "  WHEN NOT j.journal_armed THEN 'no: writes on green are not recorded' "
			  "  WHEN j.problem IS NOT NULL THEN 'in doubt, ' || j.unreplayed || ' rows are not on blue: ' || j.problem "
			  "  ELSE 'ready: ' || j.unreplayed || ' rows to bring to blue first' || CASE WHEN j.conflicts > 0 THEN ', ' || j.conflicts || ' conflicts wait' ELSE '' END END "
			  "FROM bcmig.sync y JOIN bcmig.journal_status j ON j.sync = y.name LEFT JOIN bcmig.traffic t USING (sync_id) WHERE y.sync_id = ANY ($1) ORDER BY y.name",
			  "n", syncs);
	(void) bcmig_result_table(in, "rollback_readiness", "Can it be rolled back?", readiness_fields, lengthof(readiness_fields));
}

static const BcmigField rollback_fields[] = {
	{"state", "state", BCMIG_SHOW_STATUS},
	{"reason", "reason", BCMIG_SHOW_TEXT, "none given"},
	{"by", "asked by", BCMIG_SHOW_TEXT},
	{"asked_at", "asked", BCMIG_SHOW_TEXT},
	{"phase", "where it is", BCMIG_SHOW_TEXT},
	{"problem", "problem", BCMIG_SHOW_TEXT, "none"},
	{"ended_at", "ended", BCMIG_SHOW_TEXT, "not yet"},
	{"seconds", "took", BCMIG_SHOW_SECONDS},
	{"readers_back_seconds", "readers back after", BCMIG_SHOW_SECONDS, "not yet"},
	{"write_pause_ms", "writes stopped for", BCMIG_SHOW_MS, "not stopped"},
	{"replayed_keys", "rows brought to blue", BCMIG_SHOW_TEXT, "none recorded"},
	{"conflicts", "conflicts", BCMIG_SHOW_TEXT, "none recorded"},
	{"balancers_missing", "balancers missing", BCMIG_SHOW_TEXT, "none"},
	{"preserved_in", "green preserved in", BCMIG_SHOW_TEXT, "the journal"},
	{"from_percent", "on green before", BCMIG_SHOW_PERCENT},
};

static const BcmigField unseen_fields[] = {
	{"target", "table", BCMIG_SHOW_TEXT},
	{"keys", "rows", BCMIG_SHOW_INT},
	{"oldest_at", "oldest", BCMIG_SHOW_TEXT},
	{"conflicts", "conflicts that wait", BCMIG_SHOW_INT},
};

static const BcmigField next_fields[] = {
	{"why", "why", BCMIG_SHOW_TEXT},
	{"statement", "statement", BCMIG_SHOW_CODE},
};

static void
rollback_section(BcmigPart *document, int sync_id, const char *sync)
{
	BcmigPart  *out = bcmig_section(document, "rollback", psprintf("Rollback of %s", sync));

	if (bcmig_sql("SELECT w.state, w.reason, w.by, " BCMIG_AT("w.asked_at") ", w.phase, w.problem, " BCMIG_AT("w.ended_at") ", extract(epoch FROM coalesce(w.ended_at, clock_timestamp()) - w.asked_at), "
				  " extract(epoch FROM (w.result ->> 'readers_back_at')::timestamptz - w.asked_at), extract(epoch FROM w.write_pause) * 1000, "
				  " w.result ->> 'replayed_keys', w.result ->> 'conflicts', w.result ->> 'balancers_missing', w.result ->> 'preserved_in', "
				  " (SELECT e.from_percent FROM bcmig.traffic_event e WHERE e.sync_name = $2 AND e.event = 'begun' AND e.at >= w.asked_at ORDER BY e.event_id LIMIT 1) "
				  "FROM bcmig.switch w WHERE w.sync_id = $1 AND w.kind = 'rollback' ORDER BY w.switch_id DESC LIMIT 1", "it", sync_id, sync) > 0)
		bcmig_row_lines(out, rollback_fields, lengthof(rollback_fields), 0);
	else
	{
		bcmig_line(out, "rollback", "there was none");
		bcmig_member_text(out, "state", NULL);
	}
}

/*
 * bcmig_rollback_report(sync text, format text)
 */
Datum
bcmig_rollback_report(PG_FUNCTION_ARGS)
{
	char	   *sync = bcmig_arg_text(fcinfo, 0, "sync");
	char	   *format = bcmig_arg_text(fcinfo, 1, "format");
	BcmigPart  *document;
	BcmigPart  *out;
	BcmigCatalogScope scope;
	Datum		id;

	bcmig_check_format(format);
	document = bcmig_document("rollback", psprintf("Rollback report: %s", sync));
	bcmig_member_text(document, "sync", sync);
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT sync_id FROM bcmig.sync WHERE name = $1", "t", sync) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" does not exist", sync),
				 errhint("SELECT name FROM bcmig.sync;")));
	id = Int32GetDatum((int32) bcmig_get_int64(0, 1, 0));
	rollback_section(document, DatumGetInt32(id), sync);
	out = bcmig_section(document, "now", "Now");
	bcmig_rollback_readiness(out, PointerGetDatum(construct_array(&id, 1, INT4OID, sizeof(int32), true, TYPALIGN_INT)));
	bcmig_sql("SELECT format('%I.%I', t.target_schema, t.target_table), coalesce(j.keys, 0), " BCMIG_AT("j.oldest") ", coalesce(c.n, 0) FROM bcmig.sync_table t "
			  "LEFT JOIN (SELECT j.table_id, count(DISTINCT k.key) AS keys, min(j.at) AS oldest FROM bcmig.journal j, unnest(ARRAY[j.old_key, j.new_key]) k (key) "
			  "  WHERE j.sync_id = $1 AND j.settled_at IS NULL AND k.key IS NOT NULL GROUP BY 1) j USING (table_id) "
			  "LEFT JOIN (SELECT table_id, count(*) AS n FROM bcmig.conflict WHERE sync_id = $1 AND decision IS NULL GROUP BY 1) c USING (table_id) "
			  "WHERE t.sync_id = $1 AND (j.keys > 0 OR c.n > 0) ORDER BY 2 DESC, 1", "i", DatumGetInt32(id));
	(void) bcmig_result_table(out, "not_on_blue", "Written on green, and not to be seen on blue", unseen_fields, lengthof(unseen_fields));
	bcmig_sql("SELECT why, statement FROM (SELECT 1 AS n, w.kind || ' is running: ' || w.phase || coalesce(', ' || w.problem, '') AS why, format('CALL bcmig_wait_sync(%L, ''rolled_back'');', $2) AS statement "
			  "  FROM bcmig.switch w WHERE w.sync_id = $1 AND w.kind = 'rollback' AND w.state = 'running' "
			  " UNION ALL SELECT 2, 'conflict ' || c.conflict_id || ' waits', format('SELECT bcmig_resolve_conflict(%s, ''source''); -- or target', c.conflict_id) "
			  "  FROM (SELECT * FROM bcmig.conflict c WHERE c.sync_id = $1 AND c.decision IS NULL ORDER BY c.conflict_id LIMIT 10) c "
			  " UNION ALL SELECT 3, t.name || ': ' || t.error, format('SELECT * FROM bcmig.traffic_status WHERE sync = %L;', $2) "
			  "  FROM (SELECT b.name, s.error FROM bcmig.balancer b JOIN bcmig.balancer_state s USING (balancer_id) WHERE b.sync_id = $1 AND s.error IS NOT NULL) t "
			  " UNION ALL SELECT 4, 'traffic is held: ' || f.held, format('SELECT %s(%L);', CASE WHEN i.disputed IS NOT NULL THEN 'bcmig_adopt' ELSE 'bcmig_resume_traffic' END, $2) "
			  "  FROM bcmig.traffic f LEFT JOIN bcmig.incarnation i USING (sync_id) WHERE f.sync_id = $1 AND f.held IS NOT NULL) x "
			  "ORDER BY n, why", "it", DatumGetInt32(id), sync);
	(void) bcmig_result_table(out, "recommendations", "What to do next", next_fields, lengthof(next_fields));
	bcmig_catalog_end(&scope);
	PG_RETURN_TEXT_P(cstring_to_text(bcmig_write_document(document, format)));
}
