/*-------------------------------------------------------------------------
 *
 * phases.c
 *	  The steps of bcmig that can be phases of a plan.
 *
 * A step is a call of a public function and a look at what came of it.  The
 * call commits together with the mark that it was made (runner.c), and what it
 * does is transactional too: a row that asks for something, or configuration.
 * So nothing is asked for twice, whatever dies between two lines.  The effect is
 * looked at before the call nevertheless: a person may have been faster.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "plan.h"

#include "call.h"
#include "catalog/pg_type.h"
#include "configure.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "slot.h"
#include "utils/builtins.h"

BCMIG_FUNCTION(bcmig_plan_steps);

/* the tables of a sync that take part */
#define TABLES \
	"bcmig.sync y JOIN bcmig.sync_table t USING (sync_id) JOIN bcmig.table_state s USING (table_id) " \
	"LEFT JOIN bcmig.live_tables() l USING (table_id) " \
	"WHERE y.name = $1 AND coalesce((t.options ->> 'enabled')::boolean, true)"

#define FAILING	"string_agg(check_name || coalesce(': ' || coalesce(detail, value), ''), '; ') FILTER (WHERE status = 'fail')"

/* the weight the steps lead to */
#define LAST_STEP	"coalesce((SELECT max(x::numeric) FROM jsonb_array_elements_text($2 -> 'steps') x), 100)"

#define STEPS \
	"coalesce((SELECT array_agg(x::numeric ORDER BY o) FROM jsonb_array_elements_text($2 -> 'steps') WITH ORDINALITY e (x, o)), '{5,10,25,50,75,100}')"

#define OPTIONS	"coalesce($2 -> 'options', '{}')"

/* the newest switch or rollback of a sync */
#define NEWEST(kind) \
	"bcmig.switch w JOIN bcmig.sync y USING (sync_id) LEFT JOIN bcmig.traffic r USING (sync_id) " \
	"WHERE y.name = $1 AND w.kind = '" kind "' ORDER BY w.switch_id DESC LIMIT 1"

#define SWITCH_DETAIL	"concat_ws(', ', w.phase, w.problem, 'held: ' || r.held)"

static const BcmigPlanStep steps[] = {
	{
		.name = "check_environment", .type = "validation", .per_sync = false, .arguments = "environment!",
		.meaning = "bcmig_check_environment finds nothing that fails",
		.call = "SELECT " FAILING ", jsonb_build_object('checks', count(*)) FROM @.bcmig_check_environment($2 ->> 'environment')",
		.rehearse = "SELECT c.* FROM @.bcmig_check_environment($2 ->> 'environment') c"
	},
	{
		.name = "preflight", .type = "validation", .per_sync = true, .arguments = "",
		.meaning = "bcmig_preflight finds nothing that fails",
		.call = "SELECT " FAILING ", jsonb_build_object('checks', count(*)) FROM @.bcmig_preflight($1)",
		.rehearse = "SELECT c.* FROM @.bcmig_preflight($1) c"
	},
	{
		.name = "create_sync", .type = "schema", .per_sync = true, .arguments = "blue! options", .compensation = "drop_sync",
		.meaning = "bcmig_create_sync",
		.effect = "SELECT true FROM bcmig.sync y JOIN bcmig.environment e USING (environment_id) WHERE y.name = $1 AND e.name = $2 ->> 'blue'",
		.call = "SELECT NULL, '{\"made\": true}'::jsonb FROM @.bcmig_create_sync($1, $2 ->> 'blue', " OPTIONS ")",
		.rehearse = "SELECT 'environment', CASE WHEN e.name IS NULL THEN 'fail' ELSE 'ok' END, $2 ->> 'blue', NULL, "
		" CASE WHEN e.name IS NULL THEN 'There is no such blue.' END, "
		" CASE WHEN e.name IS NULL THEN format('SELECT bcmig_add_environment(%L, ''blue'', ''...'');', $2 ->> 'blue') END "
		"FROM (SELECT) x LEFT JOIN bcmig.environment e ON e.name = $2 ->> 'blue' AND e.side = 'blue' "
		"UNION ALL SELECT 'sync', 'fail', $1, NULL, 'There is a sync of this name, of another blue.', format('SELECT * FROM bcmig_drop_sync(%L);', $1) "
		"FROM bcmig.sync y JOIN bcmig.environment e USING (environment_id) WHERE y.name = $1 AND e.name <> $2 ->> 'blue'"
	},
	{
		.name = "add_company", .type = "schema", .per_sync = true, .arguments = "company! target_schema options",
		.compensation = "none", .meaning = "bcmig_add_company; taken back with its sync",
		.effect = "SELECT true FROM bcmig.sync y JOIN bcmig.sync_table t USING (sync_id) WHERE y.name = $1 AND t.company = $2 ->> 'company' LIMIT 1",
		.call = "SELECT NULL, jsonb_build_object('tables', count(*)) FROM @.bcmig_add_company($1, $2 ->> 'company', $2 ->> 'target_schema', " OPTIONS ")",
		.rehearse = "SELECT 'schema', 'ok', $2 ->> 'target_schema', NULL, 'Its tables are made when it is executed.', NULL"
	},
	{
		.name = "add_shared", .type = "schema", .per_sync = true, .arguments = "target_schema options", .compensation = "none",
		.meaning = "bcmig_add_shared; taken back with its sync",
		.call = "SELECT NULL, jsonb_build_object('tables', count(*)) FROM @.bcmig_add_shared($1, $2 ->> 'target_schema', " OPTIONS ")",
		.rehearse = "SELECT 'schema', 'ok', $2 ->> 'target_schema', NULL, 'Its tables are made when it is executed.', NULL"
	},
	{
		.name = "add_table", .type = "schema", .per_sync = true, .arguments = "source_table! target! options", .compensation = "none",
		.meaning = "bcmig_add_table; taken back with its sync",
		.effect = "SELECT true FROM bcmig.sync y JOIN bcmig.sync_table t USING (sync_id) WHERE y.name = $1 AND t.source_table = $2 ->> 'source_table' "
		"AND t.source_schema = coalesce(nullif($2 -> 'options' ->> 'source_schema', 'auto'), t.source_schema)",
		.call = "SELECT NULL, jsonb_build_object('target', @.bcmig_add_table($1, $2 ->> 'source_table', $2 ->> 'target', " OPTIONS "))",
		.rehearse = "SELECT 'table', 'ok', $2 ->> 'source_table', NULL, 'It is made when it is executed.', NULL"
	},
	{
		.name = "copy", .type = "data", .per_sync = true, .arguments = "force", .compensation = "stop_sync",
		.meaning = "bcmig_start_sync, until every table is copied",
		.effect = "SELECT true FROM bcmig.sync WHERE name = $1 AND wanted = 'running'",
		.call = "SELECT NULL, '{\"made\": true}'::jsonb FROM @.bcmig_start_sync($1, coalesce(($2 ->> 'force')::boolean, false))",
		.look = "SELECT CASE WHEN bool_or(coalesce(l.state, s.state) = 'suspended' AND s.state = 'suspended') THEN 'failed' "
		"  WHEN count(*) FILTER (WHERE coalesce(l.state, s.state) IN ('pending', 'copying', 'resync') OR s.state IN ('pending', 'copying', 'resync')) = 0 THEN 'done' ELSE 'running' END, "
		" round(100.0 * sum(CASE WHEN coalesce(l.state, s.state) IN ('catching_up', 'streaming') THEN greatest(s.rows_total, 1) "
		"   ELSE least(coalesce(l.rows_copied, s.rows_copied), s.rows_total) END) / greatest(sum(greatest(s.rows_total, 1)), 1), 1), "
		" min(format('%I.%I: %s', t.target_schema, t.target_table, s.reason)) FILTER (WHERE s.state = 'suspended'), "
		" jsonb_build_object('tables', count(*), 'rows', sum(coalesce(l.rows_copied, s.rows_copied))) FROM " TABLES,
		.rehearse = "SELECT c.* FROM @.bcmig_preflight($1) c WHERE c.status <> 'ok'"
	},
	{
		.name = "catch_up", .type = "data", .per_sync = true, .arguments = "", .compensation = "none",
		.meaning = "all that blue had committed when the phase began is on green",
		.look = "SELECT CASE WHEN x.suspended IS NOT NULL THEN 'failed' "
		"  WHEN x.streaming AND v.synced_through >= ($3 ->> 'clock')::timestamptz THEN 'done' ELSE 'running' END, "
		" NULL, coalesce(x.suspended, 'lag ' || v.lag), "
		" CASE WHEN $3 ->> 'clock' IS NULL AND b.clock IS NOT NULL AND clock_timestamp() - b.age_ms * interval '1 ms' > ($3 ->> 'begun')::timestamptz "
		"  THEN jsonb_build_object('clock', b.clock) ELSE '{}' END "
		"FROM (SELECT y.sync_id, y.environment_id, y.owner, "
		"   bool_and(coalesce(l.state, s.state) = 'streaming' AND s.state = 'streaming') AS streaming, "
		"   min(format('%I.%I: %s', t.target_schema, t.target_table, s.reason)) FILTER (WHERE s.state = 'suspended') AS suspended "
		"  FROM " TABLES " GROUP BY 1, 2, 3) x "
		"LEFT JOIN bcmig.live_syncs() v USING (sync_id) "
		"LEFT JOIN bcmig.live_blues() b ON b.environment_id = x.environment_id AND b.owner = x.owner::oid AND b.reachable",
		.ask_sweeps = true,
		.call = "SELECT NULL, jsonb_build_object('begun', clock_timestamp(), 'clock', NULL)"
	},
	{
		.name = "validate", .type = "validation", .per_sync = true, .arguments = "mode",
		.meaning = "bcmig_validate (mode full), until it has found both sides equal",
		.call = "SELECT NULL, jsonb_build_object('run_id', @.bcmig_validate($1, NULL, coalesce($2 ->> 'mode', 'full')))",
		.look = "SELECT CASE WHEN r.state = 'running' THEN 'running' WHEN r.state = 'finished' AND r.verdict = 'ok' THEN 'done' ELSE 'failed' END, "
		" (SELECT round(100.0 * count(*) FILTER (WHERE v.done) / greatest(count(*), 1), 1) FROM bcmig.validation_result v WHERE v.run_id = r.run_id), "
		" format('validation %s: %s%s', r.run_id, coalesce(r.verdict, r.state), coalesce('; ' || (SELECT string_agg(concat_ws(' ', format('%I.%I', t.target_schema, t.target_table), p.part, p.name, p.verdict, p.detail), '; ') "
		"   FROM (SELECT * FROM bcmig.validation_verdict p WHERE p.run_id = r.run_id AND p.rank <= 2 ORDER BY p.rank LIMIT 5) p LEFT JOIN bcmig.sync_table t USING (table_id) "
		"   WHERE r.verdict <> 'ok'), '')), "
		" '{}'::jsonb FROM bcmig.validation_run r WHERE r.run_id = ($3 ->> 'run_id')::bigint",
		.cancel = "SELECT @.bcmig_cancel_validation(($3 ->> 'run_id')::bigint)",
		.rehearse = "SELECT 'validation', 'ok', coalesce($2 ->> 'mode', 'full'), NULL, 'Compares both sides when it is executed.', NULL"
	},
	{
		.name = "make_views", .type = "code", .per_sync = true, .arguments = "", .compensation = "none",
		.meaning = "readable views and grants, as options views and grant_select of the sync say",
		.call = "SELECT NULL, jsonb_build_object('views', bcmig.make_views($1))"
	},
	{
		.name = "set_sequences", .type = "configuration", .per_sync = true, .arguments = "", .compensation = "none",
		.meaning = "bcmig_set_sequences, where the sync has tables of Business Central",
		.effect = "SELECT true WHERE NOT EXISTS (SELECT FROM bcmig.sync y JOIN bcmig.sync_table t USING (sync_id) WHERE y.name = $1 AND t.al_table IS NOT NULL)",
		.call = "SELECT NULL, jsonb_build_object('sequences', count(*)) FROM @.bcmig_set_sequences($1)",
		.rehearse = "SELECT 'sequences', 'warn', NULL, NULL, 'Sequences do not go back with a transaction: they are not set now.', NULL"
	},
	{
		.name = "optimize", .type = "configuration", .per_sync = true, .arguments = "", .compensation = "none",
		.meaning = "bcmig_optimize_sync, applied",
		.call = "SELECT NULL, jsonb_build_object('settings', count(*) FILTER (WHERE applied)) FROM @.bcmig_optimize_sync($1, apply => true)"
	},
	{
		.name = "gates", .type = "validation", .per_sync = true, .arguments = "", .until_ok = true,
		.meaning = "bcmig_check_gates, until all are ok",
		.call = "SELECT string_agg(check_name || ': ' || status || coalesce(', ' || coalesce(detail, value), ''), '; ') FILTER (WHERE status NOT IN ('ok', 'warn', 'skipped')), "
		" jsonb_build_object('gates', count(*)) FROM @.bcmig_check_gates($1)",
		.rehearse = "SELECT check_name, CASE WHEN status IN ('ok', 'skipped') THEN 'ok' ELSE 'warn' END, value, bound, coalesce(detail, status), fix FROM @.bcmig_check_gates($1)"
	},
	{
		.name = "switch_traffic", .type = "traffic", .per_sync = true, .arguments = "steps options", .compensation = "rollback",
		.meaning = "bcmig_switch_traffic, until the last weight is reached",
		.effect = "SELECT true FROM bcmig.sync y JOIN bcmig.traffic r USING (sync_id) WHERE y.name = $1 AND r.green_percent >= " LAST_STEP " AND r.intent IS NULL",
		.call = "SELECT NULL, jsonb_build_object('steps', (SELECT count(*) FROM @.bcmig_switch_traffic($1, " STEPS ", " OPTIONS ")))",
		.after = "SELECT jsonb_build_object('switch_id', w.switch_id) FROM " NEWEST("switch"),
		.look = "SELECT CASE WHEN $3 ->> 'switch_id' IS NULL THEN 'done' WHEN w.state IN ('failed', 'cancelled') THEN 'failed' "
		"  WHEN w.state = 'done' OR (w.step = cardinality(w.steps) AND w.reached_at IS NOT NULL) THEN 'done' ELSE 'running' END, "
		" round(100.0 * (w.step - 1) / greatest(cardinality(w.steps), 1), 1), " SWITCH_DETAIL ", '{}'::jsonb "
		"FROM (SELECT) x LEFT JOIN bcmig.switch w ON w.switch_id = ($3 ->> 'switch_id')::bigint LEFT JOIN bcmig.traffic r USING (sync_id)",
		.cancel = "SELECT @.bcmig_hold_traffic($1, 'the execution of a plan was broken off')",
		.rehearse = "SELECT s.\"where\", 'warn', s.statement, NULL, 'Not done now, cannot be rolled back: ' || coalesce(s.expected, ''), NULL "
		"FROM @.bcmig_switch_traffic($1, " STEPS ", " OPTIONS ", dry_run => true) s"
	},
	{
		.name = "observe", .type = "traffic", .per_sync = true, .arguments = "", .compensation = "none",
		.meaning = "the last weight stands for the stabilization of its switch",
		.effect = "SELECT true WHERE NOT EXISTS (SELECT FROM " NEWEST("switch") ")",
		.look = "SELECT CASE w.state WHEN 'done' THEN 'done' WHEN 'running' THEN 'running' ELSE 'failed' END, "
		" round(least(100, 100 * extract(epoch FROM clock_timestamp() - w.reached_at) * 1000 / greatest((w.options ->> 'stabilization')::numeric, 1)), 1), "
		SWITCH_DETAIL ", jsonb_build_object('switch_id', w.switch_id) FROM " NEWEST("switch"),
		.cancel = "SELECT @.bcmig_hold_traffic($1, 'the execution of a plan was broken off')"
	},
	{
		.name = "complete_sync", .type = "cleanup", .per_sync = true, .arguments = "confirm", .compensation = "none",
		.meaning = "bcmig_complete_sync: there is no way back after it",
		.effect = "SELECT true FROM bcmig.sync y JOIN bcmig.traffic r USING (sync_id) WHERE y.name = $1 AND r.completed_at IS NOT NULL",
		.call = "SELECT NULL, jsonb_build_object('steps', (SELECT count(*) FROM @.bcmig_complete_sync($1, coalesce($2 ->> 'confirm', $1))))",
		.rehearse = "SELECT 'complete', 'warn', $1, NULL, 'Not done now: there is no way back after it.', NULL"
	},

	/* what takes others back; a plan may have them as phases too */
	{
		.name = "rollback", .type = "traffic", .per_sync = true, .arguments = "reason options", .compensation = "none",
		.meaning = "bcmig_rollback: all traffic to blue",
		.effect = "SELECT true WHERE EXISTS (SELECT FROM bcmig.switch w JOIN bcmig.sync y USING (sync_id) WHERE y.name = $1 AND w.kind = 'rollback' AND w.state = 'running') "
		"OR NOT EXISTS (SELECT FROM bcmig.traffic r JOIN bcmig.sync y USING (sync_id) WHERE y.name = $1 AND (r.green_percent > 0 OR r.intent IS NOT NULL "
		" OR EXISTS (SELECT FROM bcmig.switch w WHERE w.sync_id = r.sync_id AND w.kind = 'switch' AND w.state = 'running')))",
		.call = "SELECT NULL, jsonb_build_object('steps', (SELECT count(*) FROM @.bcmig_rollback($1, coalesce($2 ->> 'reason', 'by a plan'), " OPTIONS ")))",
		.after = "SELECT jsonb_build_object('rollback_id', w.switch_id) FROM " NEWEST("rollback"),
		.look = "SELECT CASE w.state WHEN 'done' THEN 'done' WHEN 'running' THEN 'running' WHEN 'failed' THEN 'failed' WHEN 'cancelled' THEN 'failed' ELSE 'done' END, "
		" NULL, " SWITCH_DETAIL ", '{}'::jsonb "
		"FROM (SELECT) x LEFT JOIN (SELECT w.*, r.held FROM " NEWEST("rollback") ") w ON w.state = 'running' OR w.switch_id = ($3 ->> 'rollback_id')::bigint "
		"LEFT JOIN bcmig.traffic r USING (sync_id)",
		.rehearse = "SELECT 'rollback', 'warn', $1, NULL, 'Not done now, cannot be rolled back.', NULL"
	},
	{
		.name = "stop_sync", .type = "data", .per_sync = true, .arguments = "", .compensation = "none",
		.meaning = "bcmig_stop_sync, until nothing works for it any more",
		.effect = "SELECT true WHERE NOT EXISTS (SELECT FROM bcmig.sync WHERE name = $1 AND wanted = 'running')",
		.call = "SELECT NULL, '{}'::jsonb FROM @.bcmig_stop_sync($1)",
		.look = "SELECT CASE WHEN coalesce(s.state, 'stopped') IN ('stopped', 'created') THEN 'done' ELSE 'running' END, NULL, s.state, '{}'::jsonb "
		"FROM (SELECT) x LEFT JOIN (SELECT s.state FROM bcmig.sync y JOIN bcmig.sync_state s USING (sync_id) WHERE y.name = $1) s ON true"
	},
	{
		.name = "drop_sync", .type = "schema", .per_sync = true, .arguments = "", .compensation = "none",
		.meaning = "bcmig_drop_sync with the green tables bcmig has made",
		.effect = "SELECT true WHERE NOT EXISTS (SELECT FROM bcmig.sync WHERE name = $1)",
		.call = "SELECT NULL, jsonb_build_object('steps', (SELECT count(*) FROM @.bcmig_drop_sync($1, drop_tables => true)))",
		.rehearse = "SELECT 'drop', 'warn', $1, NULL, 'Not done now.', NULL"
	},
};

const BcmigPlanStep *
bcmig_plan_step(const char *name)
{
	for (int i = 0; i < lengthof(steps); i++)
	{
		if (strcmp(steps[i].name, name) == 0)
			return &steps[i];
	}
	return NULL;
}

const BcmigPlanStep *
bcmig_plan_step_at(int i)
{
	return i < lengthof(steps) ? &steps[i] : NULL;
}

List *
bcmig_steps_per_sync(void)
{
	List	   *names = NIL;

	for (int i = 0; i < lengthof(steps); i++)
	{
		if (steps[i].per_sync)
			names = lappend(names, unconstify(char *, steps[i].name));
	}
	return names;
}

/* ---- statements ---- */

/* bcmig's own tables; rows in SPI_tuptable, in the scope */
static uint64
ask(const BcmigStepCall *c, const char *sql)
{
	return bcmig_sql(sql, "tjj", c->sync, c->arguments, c->result);
}

/* with the schema of bcmig's functions for each "@" */
static char *
in_schema(const char *sql)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *schema;
	StringInfoData s;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT quote_ident(n.nspname) FROM pg_extension x JOIN pg_namespace n ON n.oid = x.extnamespace WHERE x.extname = 'bcmig'", "");
	schema = MemoryContextStrdup(caller, bcmig_get_text(0, 1));
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	initStringInfo(&s);
	for (const char *p = sql; *p; p++)
	{
		if (*p == '@')
			appendStringInfoString(&s, schema);
		else
			appendStringInfoChar(&s, *p);
	}
	return s.data;
}

/* as the current user; rows in SPI_tuptable, in the SPI connection it leaves open */
static uint64
call_function(const BcmigStepCall *c, const char *sql)
{
	Oid			types[] = {TEXTOID, JSONBOID, JSONBOID};
	Datum		values[3];
	char	   *text = in_schema(sql);

	values[0] = CStringGetTextDatum(c->sync);
	values[1] = DirectFunctionCall1(jsonb_in, CStringGetDatum(c->arguments));
	values[2] = DirectFunctionCall1(jsonb_in, CStringGetDatum(c->result));
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(text, 3, types, values, NULL, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", text);
	return SPI_processed;
}

bool
bcmig_step_has_effect(const BcmigStepCall *c)
{
	BcmigCatalogScope scope;
	bool		has;

	if (c->step->effect == NULL)
		return false;
	bcmig_catalog_begin(&scope);
	has = ask(c, c->step->effect) > 0 && bcmig_get_bool(0, 1);
	bcmig_catalog_end(&scope);
	return has;
}

char *
bcmig_step_call(const BcmigStepCall *c, char **result)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *error = NULL;

	*result = NULL;
	if (c->step->call != NULL)
	{
		MemoryContext inner;

		(void) call_function(c, c->step->call);
		inner = MemoryContextSwitchTo(caller);
		if (SPI_processed > 0)
		{
			error = bcmig_get_text(0, 1);
			*result = bcmig_get_text(0, 2);
		}
		MemoryContextSwitchTo(inner);
		SPI_finish();
		MemoryContextSwitchTo(caller);
	}
	if (error == NULL && c->step->after != NULL)
	{
		bcmig_catalog_begin(&scope);
		if (ask(c, c->step->after) > 0)
		{
			MemoryContext inner = MemoryContextSwitchTo(caller);

			*result = bcmig_get_text(0, 1);
			MemoryContextSwitchTo(inner);
		}
		bcmig_catalog_end(&scope);
		MemoryContextSwitchTo(caller);
	}
	return error;
}

void
bcmig_step_cancel(const BcmigStepCall *c)
{
	MemoryContext caller = CurrentMemoryContext;

	if (c->step->cancel == NULL)
		return;
	(void) call_function(c, c->step->cancel);
	SPI_finish();
	MemoryContextSwitchTo(caller);
}

char *
bcmig_step_look(const BcmigStepCall *c, char **percent, char **detail, char **result)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *state = "failed";

	*percent = *result = NULL;
	*detail = "what it has asked for is not there any more";
	bcmig_catalog_begin(&scope);
	if (ask(c, c->step->look) > 0)
	{
		MemoryContext inner = MemoryContextSwitchTo(caller);

		state = bcmig_get_text(0, 1);
		*percent = bcmig_get_text(0, 2);
		*detail = bcmig_get_text(0, 3);
		*result = bcmig_get_text(0, 4);
		MemoryContextSwitchTo(inner);
	}
	if (c->step->ask_sweeps && bcmig_sql("SELECT sync_id FROM bcmig.sync WHERE name = $1", "t", c->sync) > 0)
	{
		bcmig_ask_for_sweeps(bcmig_get_int64(0, 1, 0));
		bcmig_wake_pollers();
	}
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	return state;
}

List *
bcmig_step_rehearse(const BcmigStepCall *c)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *checks = NIL;
	uint64		n;

	if (c->step->rehearse == NULL)
		return NIL;
	n = call_function(c, c->step->rehearse);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		checks = bcmig_add_check(checks, bcmig_get_text(i, 1), bcmig_get_text(i, 2), bcmig_get_text(i, 3),
								 bcmig_get_text(i, 4), bcmig_get_text(i, 5), bcmig_get_text(i, 6));
	SPI_finish();
	MemoryContextSwitchTo(caller);
	return checks;
}

/*
 * SQL: bcmig.plan_steps()
 */
Datum
bcmig_plan_steps(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < lengthof(steps); i++)
	{
		const BcmigPlanStep *s = &steps[i];
		Datum		values[5];
		bool		nulls[5] = {0};

		values[0] = CStringGetTextDatum(s->name);
		values[1] = CStringGetTextDatum(s->type);
		values[2] = CStringGetTextDatum(s->arguments);
		nulls[3] = s->compensation == NULL;
		values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(s->compensation);
		values[4] = CStringGetTextDatum(s->meaning);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
