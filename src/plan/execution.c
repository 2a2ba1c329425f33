/*-------------------------------------------------------------------------
 *
 * execution.c
 *	  Executions of plans: what a session asks for, and the rows.
 *
 * bcmig_execute_plan copies the plan into bcmig.execution and bcmig.phase_run;
 * from then on these belong to the runner.  A session puts what it wants into
 * bcmig.execution_request: its open transaction stops nobody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "execution.h"

#include "call.h"
#include "configure.h"
#include "miscadmin.h"
#include "traffic.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

BCMIG_FUNCTION(bcmig_execute_plan);
BCMIG_FUNCTION(bcmig_approve_phase);
BCMIG_FUNCTION(bcmig_skip_phase);
BCMIG_FUNCTION(bcmig_pause_execution);
BCMIG_FUNCTION(bcmig_resume_execution);
BCMIG_FUNCTION(bcmig_cancel_execution);

/* the wave that is worked on: the first with a phase that is not over */
#define PRESENT_WAVE \
	"(SELECT min(w.wave) FROM bcmig.phase_run w WHERE w.execution_id = $1 AND w.state NOT IN ('done', 'skipped'))"

/* ---- rows ---- */

bool
bcmig_load_execution(int64 execution_id, BcmigExecution *e)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	bool		found;

	memset(e, 0, sizeof(*e));
	bcmig_catalog_begin(&scope);
	found = bcmig_sql("SELECT plan_name, owner::oid, state, wanted, coalesce((options ->> 'auto_rollback')::boolean, false), error "
					  "FROM bcmig.execution WHERE execution_id = $1", "I", execution_id) > 0;
	if (found)
	{
		uint64		n;

		MemoryContextSwitchTo(caller);
		e->execution_id = execution_id;
		e->plan = bcmig_get_text(0, 1);
		e->owner = (Oid) bcmig_get_int64(0, 2, InvalidOid);
		e->state = bcmig_get_text(0, 3);
		e->wanted = bcmig_get_text(0, 4);
		e->auto_rollback = bcmig_get_bool(0, 5);
		e->error = bcmig_get_text(0, 6);
		n = bcmig_sql("SELECT wave, position, sync, name, type, action, arguments, precondition, compensation, approval, approved_by, state, "
					  " attempt, retries, begun, timeout, backoff, clock_timestamp() - started_at, "
					  " not_before - clock_timestamp(), result, error IS NOT NULL, result ? 'made', result ? 'stuck', note "
					  "FROM bcmig.phase_run WHERE execution_id = $1 ORDER BY wave, position, sync", "I", execution_id);
		MemoryContextSwitchTo(caller);
		for (uint64 i = 0; i < n; i++)
		{
			BcmigPhaseRun *p = palloc0(sizeof(BcmigPhaseRun));

			p->wave = bcmig_get_int64(i, 1, 0);
			p->position = bcmig_get_int64(i, 2, 0);
			p->sync = bcmig_get_text(i, 3);
			p->name = bcmig_get_text(i, 4);
			p->type = bcmig_get_text(i, 5);
			p->action = bcmig_get_text(i, 6);
			p->step = bcmig_plan_step(p->action);
			p->arguments = bcmig_get_text(i, 7);
			p->precondition = bcmig_get_text(i, 8);
			p->compensation = bcmig_get_text(i, 9);
			p->approval = bcmig_get_text(i, 10);
			p->approved_by = bcmig_get_text(i, 11);
			p->state = bcmig_get_text(i, 12);
			p->attempt = bcmig_get_int64(i, 13, 0);
			p->retries = bcmig_get_int64(i, 14, 0);
			p->begun = bcmig_get_bool(i, 15);
			p->timeout = bcmig_get_ms(i, 16);
			p->backoff = bcmig_get_ms(i, 17);
			p->since = bcmig_get_ms(i, 18);
			p->wait = bcmig_get_ms(i, 19);
			p->result = bcmig_get_text(i, 20);
			p->failed = bcmig_get_bool(i, 21);
			p->made = bcmig_get_bool(i, 22);
			p->stuck = bcmig_get_bool(i, 23);
			p->note = bcmig_get_text(i, 24);
			e->phases = lappend(e->phases, p);
		}
	}
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	return found;
}

void
bcmig_change_phase(const BcmigExecution *e, BcmigPhaseRun *p, const char *set, const char *a, const char *b)
{
	MemoryContext caller = CurrentMemoryContext;

	if (bcmig_sql(psprintf("UPDATE bcmig.phase_run SET %s WHERE execution_id = $1 AND wave = $2 AND position = $3 AND sync = $4 "
						   "AND state = $7 AND begun = $8", set),
				  "Iiittttb", e->execution_id, p->wave, p->position, p->sync, a, b, p->state, p->begun) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("phase \"%s\" of execution " INT64_FORMAT " is in another state", p->name, e->execution_id)));
	MemoryContextSwitchTo(caller);
}

void
bcmig_change_execution(BcmigExecution *e, const char *state, const char *error)
{
	bcmig_sql("UPDATE bcmig.execution SET state = $2, error = coalesce($3, error), pid = NULL, "
			  " ended_at = CASE WHEN $2 IN ('running', 'paused', 'compensating') THEN NULL ELSE clock_timestamp() END "
			  "WHERE execution_id = $1", "Itt", e->execution_id, state, error);
	bcmig_audit("state", NULL, NULL, psprintf("execution %s", state),
				psprintf(INT64_FORMAT " of plan %s%s%s", e->execution_id, e->plan, error ? ": " : "", error ? error : ""));
	bcmig_config_changed();
	e->state = MemoryContextStrdup(GetMemoryChunkContext(e->plan), state);
}

/*
 * A copy of green has the same executions, and must not go on with them.
 */
char *
bcmig_execution_disputed(const BcmigExecution *e)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *ids = NIL;
	ListCell   *lc;
	char	  **green;
	char	   *why = NULL;
	uint64		n;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT green FROM bcmig.execution WHERE execution_id = $1", "I", e->execution_id);
	green = bcmig_get_texts(0, 1, BCMIG_GREEN_PARTS, caller);
	n = bcmig_sql("SELECT y.sync_id FROM bcmig.sync y JOIN bcmig.traffic USING (sync_id) JOIN bcmig.execution e ON y.name = ANY (e.syncs) "
				  "WHERE e.execution_id = $1", "I", e->execution_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		ids = lappend_int(ids, bcmig_get_int64(i, 1, 0));
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	if (green != NULL)
		why = bcmig_another_green(green);
	foreach(lc, ids)
	{
		BcmigSync  *sync = why ? NULL : bcmig_read_sync(lfirst_int(lc));

		if (sync != NULL)
			why = bcmig_incarnation_differs(sync, NULL);
		if (why != NULL && sync != NULL)
			why = psprintf("sync \"%s\": %s", sync->name, why);
	}
	return why;
}

int
bcmig_present_wave(const BcmigExecution *e)
{
	ListCell   *lc;

	foreach(lc, e->phases)
	{
		const BcmigPhaseRun *p = lfirst(lc);

		if (strcmp(p->state, "done") != 0 && strcmp(p->state, "skipped") != 0)
			return p->wave;
	}
	return 0;
}

static void
take_request(BcmigExecution *e, const char *kind, const char *phase, const char *reason, const char *by)
{
	bool		ended = strcmp(e->state, "running") != 0 && strcmp(e->state, "paused") != 0;

	if (strcmp(kind, "approve") == 0)
		bcmig_sql("UPDATE bcmig.phase_run SET approved_by = $3 WHERE execution_id = $1 AND name = $2 AND wave = " PRESENT_WAVE
				  " AND state IN ('pending', 'waiting') AND approved_by IS NULL", "Itt", e->execution_id, phase, by);
	else if (strcmp(kind, "skip") == 0)
		bcmig_sql("UPDATE bcmig.phase_run SET state = 'skipped', note = format('%s (%s)', $3, $4), ended_at = clock_timestamp(), percent = NULL "
				  "WHERE execution_id = $1 AND name = $2 AND wave = " PRESENT_WAVE " AND state IN ('pending', 'waiting', 'failed')",
				  "Ittt", e->execution_id, phase, reason, by);
	else if (strcmp(kind, "resume") == 0)
	{
		char	   *parts[BCMIG_GREEN_PARTS];
		List	   *green = NIL;

		if (ended && strcmp(e->state, "failed") != 0)
			return;
		bcmig_this_green(parts);
		for (int i = 0; i < BCMIG_GREEN_PARTS; i++)
			green = lappend(green, parts[i]);
		bcmig_sql("UPDATE bcmig.execution SET wanted = 'run', error = NULL, green = $2 WHERE execution_id = $1", "Ik",
				  e->execution_id, bcmig_text_array(green));
		bcmig_sql("UPDATE bcmig.phase_run SET state = 'pending', attempt = 0, begun = false, not_before = NULL, error = NULL, sqlstate = NULL, "
				  " ended_at = NULL WHERE execution_id = $1 AND state = 'failed'", "I", e->execution_id);
		if (strcmp(e->state, "running") != 0)
			bcmig_change_execution(e, "running", NULL);
	}
	else if (!ended)
	{
		bcmig_sql("UPDATE bcmig.execution SET wanted = $2, error = CASE WHEN $2 = 'cancel' THEN 'cancelled by ' || $3 ELSE error END "
				  "WHERE execution_id = $1 AND wanted <> 'cancel'", "Itt", e->execution_id, kind, by);
		if (strcmp(kind, "cancel") == 0 && strcmp(e->state, "paused") == 0)
			bcmig_change_execution(e, "running", NULL);
	}
}

void
bcmig_take_execution_requests(BcmigExecution *e)
{
	MemoryContext caller = CurrentMemoryContext;
	uint64		n = bcmig_sql("SELECT request_id, kind, phase, reason, by FROM bcmig.execution_request WHERE execution_id = $1 "
							  "ORDER BY request_id", "I", e->execution_id);
	SPITupleTable *rows = SPI_tuptable;

	for (uint64 i = 0; i < n; i++)
	{
		char	   *request = SPI_getvalue(rows->vals[i], rows->tupdesc, 1);

		take_request(e, SPI_getvalue(rows->vals[i], rows->tupdesc, 2), SPI_getvalue(rows->vals[i], rows->tupdesc, 3),
					 SPI_getvalue(rows->vals[i], rows->tupdesc, 4), SPI_getvalue(rows->vals[i], rows->tupdesc, 5));
		bcmig_sql("DELETE FROM bcmig.execution_request WHERE request_id = $1::bigint", "t", request);
	}
	MemoryContextSwitchTo(caller);
}

/* ---- SQL ---- */

/*
 * bcmig_execute_plan(plan)
 */
Datum
bcmig_execute_plan(PG_FUNCTION_ARGS)
{
	char	   *name = bcmig_arg_text(fcinfo, 0, "plan");
	char	   *parts[BCMIG_GREEN_PARTS];
	List	   *green = NIL;
	BcmigCatalogScope scope;
	int64		execution_id;
	Oid			owner;

	bcmig_require_loaded();
	owner = bcmig_plan_owner(name);
	bcmig_this_green(parts);
	for (int i = 0; i < BCMIG_GREEN_PARTS; i++)
		green = lappend(green, parts[i]);

	bcmig_catalog_begin(&scope);

	if (bcmig_sql("SELECT FROM pg_roles WHERE oid = $1 AND rolcanlogin", "o", owner) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("the owner of plan \"%s\" may not log in", name),
				 errdetail("A process of the server carries it out as that role."),
				 errhint("ALTER ROLE %s LOGIN;", quote_identifier(GetUserNameFromId(owner, false)))));

	/* one execution of a sync at a time; the rows of the plan and of its syncs are what two sessions meet at */
	bcmig_sql("SELECT FROM bcmig.plan WHERE name = $1 FOR UPDATE", "t", name);
	bcmig_sql("SELECT FROM bcmig.sync y JOIN bcmig.plan p ON y.name = ANY (p.syncs) WHERE p.name = $1 ORDER BY sync_id FOR NO KEY UPDATE OF y", "t", name);
	if (bcmig_sql("SELECT e.execution_id, e.plan_name FROM bcmig.execution e JOIN bcmig.plan p ON e.syncs && p.syncs OR e.plan_name = p.name "
				  "WHERE p.name = $1 AND e.state IN ('running', 'paused', 'compensating') AND e.kind = 'execution'", "t", name) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("execution %s of plan \"%s\" is not over", bcmig_get_text(0, 1), bcmig_get_text(0, 2)),
				 errhint("SELECT * FROM bcmig.execution_status WHERE execution = %s; -- bcmig_cancel_execution(%s) ends it",
						 bcmig_get_text(0, 1), bcmig_get_text(0, 1))));
	bcmig_sql("INSERT INTO bcmig.execution (plan_name, owner, syncs, options, green) SELECT name, owner, syncs, options, $2 "
			  "FROM bcmig.plan WHERE name = $1 RETURNING execution_id", "tk", name, bcmig_text_array(green));
	execution_id = bcmig_get_int64(0, 1, 0);

	bcmig_sql("INSERT INTO bcmig.phase_run (execution_id, position, sync, wave, name, type, action, arguments, depends_on, timeout, retries, backoff, "
			  " precondition, compensation, approval) "
			  BCMIG_PHASES_OF_PLAN("$3, f.position, coalesce(y.sync, ''), w.wave, f.name, f.type, f.action, f.arguments, f.depends_on, f.timeout, "
								   "f.retries, f.backoff, f.precondition, f.compensation, f.approval"),
			  "tkI", name, bcmig_text_array(bcmig_steps_per_sync()), execution_id);
	if (SPI_processed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("no phase of plan \"%s\" is active", name)));
	bcmig_audit("command", NULL, NULL, "bcmig_execute_plan", psprintf("%s: execution " INT64_FORMAT, name, execution_id));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_INT64(execution_id);
}

/*
 * One that is there and, unless anybody may, the caller's.  Leaves its state.
 */
static char *
find_execution(FunctionCallInfo fcinfo, int64 *execution_id, bool anybody)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *state;
	Oid			owner;

	bcmig_require_loaded();
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"execution\" must not be NULL")));
	*execution_id = PG_GETARG_INT64(0);
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT state, owner::oid FROM bcmig.execution WHERE execution_id = $1 AND kind = 'execution'", "I", *execution_id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("execution " INT64_FORMAT " does not exist", *execution_id),
				 errhint("SELECT execution, plan, state FROM bcmig.execution_status;")));
	MemoryContextSwitchTo(caller);
	state = bcmig_get_text(0, 1);
	owner = (Oid) bcmig_get_int64(0, 2, InvalidOid);
	bcmig_catalog_end(&scope);
	if (!anybody)
		bcmig_check_member(owner, "execution", psprintf(INT64_FORMAT, *execution_id));
	return state;
}

static void
refuse(int64 execution_id, const char *what, const char *state)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_WRONG_STATE),
			 errmsg("execution " INT64_FORMAT " cannot be %s: it is %s", execution_id, what, state),
			 errhint("SELECT * FROM bcmig.execution_status WHERE execution = " INT64_FORMAT ";", execution_id)));
}

static void
request(int64 execution_id, const char *kind, const char *function, const char *phase, const char *reason)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.execution_request (execution_id, kind, phase, reason) VALUES ($1, $2, $3, $4)",
			  "Ittt", execution_id, kind, phase, reason);
	bcmig_audit("command", NULL, NULL, function, psprintf(INT64_FORMAT "%s%s%s%s", execution_id, phase ? ", " : "", phase ? phase : "",
														  reason ? ": " : "", reason ? reason : ""));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
}

static bool
is_one_of(const char *state, const char *a, const char *b, const char *c)
{
	return strcmp(state, a) == 0 || strcmp(state, b) == 0 || strcmp(state, c) == 0;
}

/* the state and the approval of a phase of the present wave; ERROR when there is none */
static char *
find_phase_run(int64 execution_id, const char *phase, char **approval)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *state;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT state, approval FROM bcmig.phase_run WHERE execution_id = $1 AND name = $2 AND wave = "
				  "coalesce(" PRESENT_WAVE ", 1) ORDER BY state IN ('pending', 'waiting', 'failed') DESC LIMIT 1", "It", execution_id, phase) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("execution " INT64_FORMAT " has no phase \"%s\"", execution_id, phase),
				 errhint("SELECT wave, position, name, sync, state FROM bcmig.phase_run WHERE execution_id = " INT64_FORMAT " ORDER BY 1, 2;", execution_id)));
	MemoryContextSwitchTo(caller);
	state = bcmig_get_text(0, 1);
	*approval = bcmig_get_text(0, 2);
	bcmig_catalog_end(&scope);
	return state;
}

/*
 * bcmig_approve_phase(execution, phase)
 */
Datum
bcmig_approve_phase(PG_FUNCTION_ARGS)
{
	int64		execution_id;
	char	   *state = find_execution(fcinfo, &execution_id, true);
	char	   *phase = bcmig_arg_text(fcinfo, 1, "phase");
	char	   *approval;
	char	   *phase_state = find_phase_run(execution_id, phase, &approval);

	if (approval == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("phase \"%s\" needs no approval", phase)));
	if (!has_privs_of_role(GetUserId(), get_role_oid(approval, false)))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be a member of role \"%s\" to approve phase \"%s\"", approval, phase)));
	if (!is_one_of(state, "running", "paused", "failed"))
		refuse(execution_id, "approved", state);
	if (!is_one_of(phase_state, "pending", "waiting", "failed"))
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("phase \"%s\" is %s", phase, phase_state)));
	request(execution_id, "approve", "bcmig_approve_phase", phase, NULL);
	PG_RETURN_VOID();
}

/*
 * bcmig_skip_phase(execution, phase, reason)
 */
Datum
bcmig_skip_phase(PG_FUNCTION_ARGS)
{
	int64		execution_id;
	char	   *state = find_execution(fcinfo, &execution_id, false);
	char	   *phase = bcmig_arg_text(fcinfo, 1, "phase");
	char	   *reason = bcmig_arg_text(fcinfo, 2, "reason");
	char	   *approval;
	char	   *phase_state = find_phase_run(execution_id, phase, &approval);

	if (!is_one_of(state, "running", "paused", "failed"))
		refuse(execution_id, "changed", state);
	if (!is_one_of(phase_state, "pending", "waiting", "failed"))
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("phase \"%s\" is %s and cannot be skipped", phase, phase_state),
				 errhint("SELECT bcmig_cancel_execution(" INT64_FORMAT "); -- breaks off what runs", execution_id)));
	request(execution_id, "skip", "bcmig_skip_phase", phase, reason);
	PG_RETURN_VOID();
}

Datum
bcmig_pause_execution(PG_FUNCTION_ARGS)
{
	int64		execution_id;
	char	   *state = find_execution(fcinfo, &execution_id, false);

	if (!is_one_of(state, "running", "paused", "paused"))
		refuse(execution_id, "paused", state);
	request(execution_id, "pause", "bcmig_pause_execution", NULL, NULL);
	PG_RETURN_VOID();
}

Datum
bcmig_resume_execution(PG_FUNCTION_ARGS)
{
	int64		execution_id;
	char	   *state = find_execution(fcinfo, &execution_id, false);
	BcmigCatalogScope scope;
	bool		taken_back;

	bcmig_catalog_begin(&scope);
	taken_back = bcmig_sql("SELECT FROM bcmig.phase_run WHERE execution_id = $1 AND state IN ('compensating', 'compensated', 'not_compensated') LIMIT 1",
						   "I", execution_id) > 0;
	bcmig_catalog_end(&scope);
	if (!is_one_of(state, "running", "paused", "failed") || taken_back)
		refuse(execution_id, "resumed", taken_back ? "taken back" : state);
	request(execution_id, "resume", "bcmig_resume_execution", NULL, NULL);
	PG_RETURN_VOID();
}

Datum
bcmig_cancel_execution(PG_FUNCTION_ARGS)
{
	int64		execution_id;
	char	   *state = find_execution(fcinfo, &execution_id, false);

	if (!is_one_of(state, "running", "paused", "paused"))
		refuse(execution_id, "cancelled", state);
	request(execution_id, "cancel", "bcmig_cancel_execution", NULL, NULL);
	PG_RETURN_VOID();
}
