/*-------------------------------------------------------------------------
 *
 * compensate.c
 *	  The way back of an execution: what is done of a wave, the last first.
 *
 * One phase after the other, each as durable as on the way there: the mark that
 * its compensation was asked for commits with that.  What could not be taken
 * back after a few attempts is said and stays; then nothing before it of the
 * same sync is touched either: a sync whose traffic is still on green is not
 * stopped.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "execution.h"

#include "utils/builtins.h"
#include "utils/json.h"

#define TRIES			3
#define CALL_TIMEOUT	600000	/* ms */

static bool
is(const char *state, const char *name)
{
	return strcmp(state, name) == 0;
}

/* does it have an effect that may have to be taken back? */
static bool
had_effect(const BcmigPhaseRun *p)
{
	if (is(p->type, "validation") || p->compensation == NULL)
		return false;
	if (p->step != NULL && is(p->compensation, "none"))
		return false;

	/* a statement that failed has left nothing; a step may have */
	return is(p->state, "done") || is(p->state, "compensating") || (is(p->state, "failed") && p->begun && p->step != NULL);
}

static BcmigPhaseRun *
next_back(const BcmigExecution *e, int wave)
{
	BcmigPhaseRun *found = NULL;
	ListCell   *lc;

	foreach(lc, e->phases)
	{
		BcmigPhaseRun *p = lfirst(lc);

		if (p->wave == wave && had_effect(p) && (found == NULL || !is(found->state, "compensating")))
			found = p;
	}
	return found;
}

static bool
blocked(const BcmigExecution *e, const BcmigPhaseRun *p)
{
	ListCell   *lc;

	foreach(lc, e->phases)
	{
		const BcmigPhaseRun *q = lfirst(lc);

		if (q->wave == p->wave && q->position > p->position && q->stuck && (is(q->sync, p->sync) || *q->sync == '\0' || *p->sync == '\0'))
			return true;
	}
	return false;
}

static BcmigStepCall
call_back(const BcmigExecution *e, const BcmigPhaseRun *p)
{
	BcmigStepCall c = {bcmig_plan_step(p->compensation), p->sync, "{}", p->result};

	if (is(c.step->name, "rollback"))
	{
		StringInfoData s;

		initStringInfo(&s);
		escape_json(&s, psprintf("execution " INT64_FORMAT " of plan %s is taken back: %s", e->execution_id, e->plan,
								 e->error ? e->error : "it was cancelled"));
		c.arguments = psprintf("{\"reason\": %s}", s.data);
	}
	return c;
}

/* what the execution has not made is not its to take away */
static bool
is_another_s(const BcmigPhaseRun *p)
{
	return (is(p->compensation, "drop_sync") || is(p->compensation, "stop_sync")) && !p->made;
}

/* asks for it, together with the mark that it was asked for */
static void
begin_back(BcmigPhaseWork *w)
{
	BcmigPhaseRun *p = w->p;
	const BcmigPlanStep *step = bcmig_plan_step(p->compensation);
	BcmigCatalogScope scope;
	BcmigStepCall c;
	char	   *error = NULL;
	char	   *result = NULL;

	bcmig_catalog_begin(&scope);
	bcmig_change_phase(w->e, p, "state = 'compensating', percent = NULL", NULL, NULL);
	bcmig_catalog_end(&scope);
	p->state = "compensating";
	if (step == NULL)
		bcmig_run_plan_sql(w->e->owner, p->compensation);
	else if (!is_another_s(p))
	{
		c = call_back(w->e, p);
		if (!bcmig_step_has_effect(&c))
			error = bcmig_step_call(&c, &result);
		if (error != NULL)
			ereport(ERROR, (errcode(ERRCODE_BM_WRONG_STATE), errmsg("%s", error)));
	}
	bcmig_catalog_begin(&scope);
	if (step == NULL || step->look == NULL || is_another_s(p))
		bcmig_change_phase(w->e, p, "state = 'compensated', ended_at = clock_timestamp(), note = concat_ws('; ', note, $5), result = result || coalesce($6, '{}')::jsonb",
						   is_another_s(p) ? "left alone: it was so before the execution" : NULL, result);
	else
		bcmig_change_phase(w->e, p, "note = coalesce($5, note), result = result || coalesce($6, '{}')::jsonb", NULL, result);
	bcmig_catalog_end(&scope);
}

static void
look_back(BcmigPhaseWork *w)
{
	BcmigStepCall c = call_back(w->e, w->p);
	BcmigCatalogScope scope;
	char	   *percent;
	char	   *detail;
	char	   *result;

	w->state = bcmig_step_look(&c, &percent, &detail, &result);
	w->a = detail;
	if (!is(w->state, "done"))
		return;
	bcmig_catalog_begin(&scope);
	bcmig_change_phase(w->e, w->p, "state = 'compensated', ended_at = clock_timestamp(), percent = $5::numeric, result = result || coalesce($6, '{}')::jsonb", NULL, result);
	bcmig_catalog_end(&scope);
}

static void
failed_back(BcmigExecution *e, BcmigPhaseRun *p, const char *why, bool last)
{
	if (last)
		bcmig_set_phase(e, p, "state = 'not_compensated', ended_at = clock_timestamp(), note = concat_ws('; ', note, 'not taken back: ' || $5), "
						"result = result || '{\"stuck\": true}'::jsonb", why, NULL);
	else
		bcmig_set_phase(e, p, "state = CASE WHEN coalesce((result ->> 'tries')::int, 0) + 1 >= $6::int THEN 'not_compensated' ELSE state END, "
						"note = CASE WHEN coalesce((result ->> 'tries')::int, 0) + 1 >= $6::int THEN concat_ws('; ', note, 'not taken back: ' || $5) ELSE note END, "
						"not_before = clock_timestamp() + greatest(backoff, '1 s'), "
						"result = result || jsonb_build_object('tries', coalesce((result ->> 'tries')::int, 0) + 1) "
						" || CASE WHEN coalesce((result ->> 'tries')::int, 0) + 1 >= $6::int THEN '{\"stuck\": true}'::jsonb ELSE '{}' END", why, psprintf("%d", TRIES));
}

static void
end_back(BcmigPhaseWork *w)
{
	BcmigCatalogScope scope;
	char	   *left;
	bool		stuck = false;
	ListCell   *lc;

	foreach(lc, w->e->phases)
		stuck |= ((BcmigPhaseRun *) lfirst(lc))->stuck;
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT string_agg(name || CASE WHEN sync <> '' THEN ' (' || sync || ')' ELSE '' END, ', ' ORDER BY wave, position, sync) "
			  "FROM bcmig.phase_run WHERE execution_id = $1 AND state = 'not_compensated'", "I", w->e->execution_id);
	left = bcmig_get_text(0, 1);
	bcmig_change_execution(w->e, stuck ? "failed" : "rolled_back",
						   left ? psprintf("%s; not taken back: %s", w->e->error ? w->e->error : "cancelled", left) : NULL);
	bcmig_catalog_end(&scope);
}

bool
bcmig_compensate(BcmigExecution *e)
{
	int			wave = bcmig_present_wave(e);
	BcmigPhaseRun *p = next_back(e, wave);
	BcmigPhaseWork w = {.e = e,.p = p};
	ErrorData  *error;
	char	   *state;

	if (p == NULL)
	{
		error = bcmig_in_transaction(end_back, &w, 0);
		if (error != NULL)
			ThrowErrorData(error);
		return true;
	}
	if (p->wait > 0)
		return false;
	if (!is(p->state, "compensating") && blocked(e, p))
	{
		failed_back(e, p, "what came after it could not be", true);
		return true;
	}
	if (is(p->compensation, "none"))
	{
		bcmig_set_phase(e, p, "state = 'not_compensated', note = concat_ws('; ', note, $5)", "nothing takes it back", NULL);
		return true;
	}
	state = p->state;
	error = bcmig_in_transaction(is(state, "compensating") ? look_back : begin_back, &w, CALL_TIMEOUT);
	p->state = state;
	if (error != NULL)
		failed_back(e, p, bcmig_error_text(error, true), false);
	else if (w.state != NULL && is(w.state, "failed"))
		failed_back(e, p, w.a ? w.a : "it failed", true);
	return error == NULL && (w.state == NULL || is(w.state, "done"));
}
