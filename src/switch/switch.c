/*-------------------------------------------------------------------------
 *
 * switch.c
 *	  bcmig_switch_traffic: from weight to weight, as long as all is well.
 *
 * A switch is a row of bcmig.switch.  The job of the sync's traffic, which runs
 * every few seconds, carries it on: it moves the weight to that of the present
 * step when the gates are ok, then looks at them again and again until the step
 * has stood for the time of stabilisation, then takes the next one.
 *
 *	ok				the count of failures begins anew
 *	fail			failed_looks of them in a row: on_failure
 *	inconclusive	nothing moves; for longer than step_timeout: on_failure
 *
 * on_failure is hold (stay, until a person resumes), step_back (to the weight
 * before, and hold) or roll_back.  Where a crash leaves a switch is written in
 * its row; a change of the weight that was under way has its intent (change.c).
 *
 * The row is written by the worker only, once it is there: a person's open
 * transaction stops nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include "blue_fence.h"
#include "call.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "options.h"
#include "slot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#define LOOK_INTERVAL	3000	/* ms between two looks at the gates while a step stands */

BCMIG_FUNCTION(bcmig_switch_traffic);

/* what a look at the gates says */
typedef enum Verdict
{
	GO,
	WAIT,
	FAIL
} Verdict;

/* ---------------------------------------------------------------------
 * The row
 * --------------------------------------------------------------------- */

bool
bcmig_load_switch(int sync_id, const char *kind, BcmigSwitch *sw)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	Datum	   *elements;
	Datum		value;
	bool		found;
	bool		isnull;

	memset(sw, 0, sizeof(*sw));
	bcmig_catalog_begin(&scope);
	found = bcmig_sql("SELECT switch_id, steps::float8[], step, options, reason, by, phase, "
					  " (extract(epoch FROM clock_timestamp() - phase_since) * 1000)::int8, "
					  " (extract(epoch FROM clock_timestamp() - reached_at) * 1000)::int8, failures, problem, "
					  " (extract(epoch FROM clock_timestamp() - (result->>'replay_since')::timestamptz) * 1000)::int8 "
					  "FROM bcmig.switch WHERE sync_id = $1 AND kind = $2 AND state = 'running'", "it", sync_id, kind) > 0;
	if (found)
	{
		MemoryContextSwitchTo(caller);
		sw->switch_id = bcmig_get_int64(0, 1, 0);
		value = bcmig_get_datum(0, 2, &isnull);
		if (!isnull)
		{
			deconstruct_array(DatumGetArrayTypePCopy(value), FLOAT8OID, sizeof(float8), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
							  &elements, NULL, &sw->nsteps);
			sw->steps = palloc(sizeof(double) * Max(sw->nsteps, 1));
			for (int i = 0; i < sw->nsteps; i++)
				sw->steps[i] = DatumGetFloat8(elements[i]);
		}
		sw->step = bcmig_get_int64(0, 3, 1);
		sw->options = DatumGetJsonbPCopy(bcmig_get_datum(0, 4, &isnull));
		sw->reason = bcmig_get_text(0, 5);
		sw->by = bcmig_get_text(0, 6);
		sw->phase = bcmig_get_text(0, 7);
		sw->phase_ms = bcmig_get_int64(0, 8, 0);
		sw->reached_ms = bcmig_get_int64(0, 9, -1);
		sw->failures = bcmig_get_int64(0, 10, 0);
		sw->problem = bcmig_get_text(0, 11);
		sw->replay_ms = bcmig_get_int64(0, 12, -1);
	}
	bcmig_catalog_end(&scope);
	return found;
}

/* one statement about the row with the id $1, in a transaction of its own */
static void
write_row(int64 switch_id, const char *sql, const char *a, const char *b)
{
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql(sql, "Itt", switch_id, a, b);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

void
bcmig_switch_phase(const BcmigSwitch *sw, const char *phase, const char *problem)
{
	write_row(sw->switch_id,
			  "UPDATE bcmig.switch SET phase = coalesce($2, phase), problem = $3, "
			  " phase_since = CASE WHEN phase = coalesce($2, phase) THEN phase_since ELSE clock_timestamp() END "
			  "WHERE switch_id = $1 AND (phase <> $2 OR problem IS DISTINCT FROM $3)", phase, problem);
}

void
bcmig_end_switch(int64 switch_id, const char *state, const char *problem)
{
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("UPDATE bcmig.switch w SET state = $2, problem = $3, ended_at = clock_timestamp() FROM bcmig.sync y "
				  "WHERE switch_id = $1 AND w.state = 'running' AND y.sync_id = w.sync_id RETURNING y.name, w.kind, w.by",
				  "Itt", switch_id, state, problem) > 0)
	{
		(void) bcmig_traffic_event(bcmig_get_text(0, 1), psprintf("%s %s", bcmig_get_text(0, 2), state), -1, -1, 0,
								   bcmig_get_text(0, 3), problem);
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

int64
bcmig_switch_ms(const BcmigSwitch *sw, const char *name)
{
	BcmigCatalogScope scope;
	int64		ms;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	ms = bcmig_option_int64(name, NULL, sw->options, 0);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return ms;
}

bool
bcmig_switch_is(const BcmigSwitch *sw, const char *name, const char *value)
{
	BcmigCatalogScope scope;
	bool		is;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	is = strcmp(bcmig_option_value(name, NULL, sw->options), value) == 0;
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return is;
}

void
bcmig_cancel_switch(int sync_id, const char *why)
{
	BcmigSwitch sw;

	bcmig_start_transaction();
	(void) bcmig_load_switch(sync_id, "switch", &sw);
	bcmig_end_transaction();
	if (sw.switch_id != 0)
		bcmig_end_switch(sw.switch_id, "cancelled", why);
}

/* ---------------------------------------------------------------------
 * Looks and steps
 * --------------------------------------------------------------------- */

/*
 * Once writers are on green only what serves them counts: what was to be proved
 * before is proved, and the fence is down because of it.
 */
static bool
counts(const BcmigCheck *check, bool switched)
{
	return !switched || strcmp(check->name, "health of green") == 0;
}

static Verdict
look(const BcmigTrafficJob *job, char **why)
{
	bool		switched = job->traffic.green_percent == 100;
	List	   *considered = NIL;
	Verdict		verdict = GO;
	ListCell   *lc;

	bcmig_ask_outside(job->sync);
	bcmig_start_transaction();
	foreach(lc, bcmig_gates(job->sync, false))
	{
		const BcmigCheck *c = lfirst(lc);

		if (!counts(c, switched))
			continue;
		considered = lappend(considered, (void *) c);
		if (strcmp(c->status, "fail") == 0)
			verdict = FAIL;
		else if (strcmp(c->status, "inconclusive") == 0)
			verdict = Max(verdict, WAIT);
	}
	bcmig_end_transaction();
	*why = bcmig_gates_text(considered);
	return verdict;
}

/*
 * What is to be done when a step cannot be taken or does not stand.
 */
static void
act_on_failure(BcmigTrafficJob *job, const BcmigSwitch *sw, const char *why)
{
	BcmigCatalogScope scope;
	char	   *reason = psprintf("step %d of %d (%g %%): %s", sw->step, sw->nsteps, sw->steps[sw->step - 1], why);

	if (bcmig_switch_is(sw, "on_failure", "roll_back"))
	{
		bcmig_start_transaction();
		bcmig_catalog_begin(&scope);
		bcmig_ask_rollback(job->sync->sync_id, NULL, reason, "{}");
		bcmig_catalog_end(&scope);
		bcmig_end_transaction();
		bcmig_end_switch(sw->switch_id, "failed", reason);
		return;
	}
	if (bcmig_switch_is(sw, "on_failure", "step_back") && job->traffic.green_percent < 100 &&
		job->traffic.green_percent == sw->steps[sw->step - 1])
	{
		BcmigChange back = {.percent = sw->step > 1 ? sw->steps[sw->step - 2] : 0, .by = sw->by, .reason = reason};
		char	   *failed = bcmig_change_weight(job, &back);

		if (failed != NULL)
			reason = psprintf("%s; could not be set back: %s", reason, failed);
	}
	write_row(sw->switch_id,
			  "UPDATE bcmig.switch SET failures = 0, reached_at = NULL, phase = $2, problem = $3, phase_since = clock_timestamp() "
			  "WHERE switch_id = $1", "held", reason);
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_traffic_hold(job->sync->sync_id, job->sync->name, sw->by, reason);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

/* one more failure; true: that was one too many */
static bool
count_failure(const BcmigSwitch *sw, const char *phase, const char *why)
{
	write_row(sw->switch_id,
			  "UPDATE bcmig.switch SET failures = failures + 1, phase = $2, problem = $3, "
			  " phase_since = CASE WHEN phase = $2 THEN phase_since ELSE clock_timestamp() END WHERE switch_id = $1", phase, why);
	return sw->failures + 1 >= bcmig_switch_ms(sw, "failed_looks");
}

/* wait, but not for long; true: it is time to go on */
static bool
pause_for(int64 ms)
{
	if (ms > LOOK_INTERVAL)
		return false;
	bcmig_pause(Max(ms, 1));
	return true;
}

/* the switch, as it is now; false: there is none, or a person or a rollback has taken over */
static bool
is_ours(BcmigTrafficJob *job, BcmigSwitch *sw)
{
	bool		ours;

	bcmig_start_transaction();
	ours = bcmig_load_switch(job->sync->sync_id, "switch", sw) &&
		bcmig_traffic_load(job->sync->sync_id, false, &job->traffic) &&
		job->traffic.held == NULL && job->traffic.intent == 0 && !bcmig_rollback_asked(job->sync->sync_id);
	bcmig_end_transaction();
	return ours;
}

/*
 * One look or one step.  True: there is more to do at once.
 */
static bool
advance(BcmigTrafficJob *job)
{
	BcmigSwitch sw;
	BcmigTraffic *t = &job->traffic;
	Verdict		verdict;
	bool		standing;
	double		target;
	int64		left;
	char	   *why;

	if (!is_ours(job, &sw))
		return false;
	target = sw.steps[sw.step - 1];
	standing = t->green_percent == target;

	/* what failed may have ended the worker as well */
	if (sw.failures >= bcmig_switch_ms(&sw, "failed_looks"))
	{
		act_on_failure(job, &sw, sw.problem ? sw.problem : "too many attempts have failed");
		return false;
	}
	verdict = look(job, &why);
	if (verdict == FAIL || (verdict == WAIT && sw.phase_ms >= bcmig_switch_ms(&sw, "step_timeout")))
	{
		if (verdict == WAIT || count_failure(&sw, standing ? "failing" : "gates", why))
			act_on_failure(job, &sw, why);
		return false;
	}
	if (verdict == WAIT)
	{
		bcmig_switch_phase(&sw, "gates", why);
		return false;
	}
	if (!standing)
	{
		BcmigChange change = {.percent = target, .by = sw.by,
		.reason = psprintf("step %d of %d", sw.step, sw.nsteps)};

		bcmig_switch_phase(&sw, target == 100 ? "final step" : "moving", NULL);
		why = target == 100 ? bcmig_final_step(job, &sw) : bcmig_change_weight(job, &change);
		if (why != NULL)
		{
			/* taken out of its hands is no failure of the step */
			if (!is_ours(job, &sw))
				return false;
			if (count_failure(&sw, "failing", why))
				act_on_failure(job, &sw, why);
			return false;
		}
		write_row(sw.switch_id,
				  "UPDATE bcmig.switch SET reached_at = clock_timestamp(), failures = 0, phase = $2, problem = $3, phase_since = clock_timestamp() "
				  "WHERE switch_id = $1", "stabilising", NULL);
		return true;
	}

	/* it stands */
	left = bcmig_switch_ms(&sw, "stabilization") - Max(sw.reached_ms, 0);
	write_row(sw.switch_id,
			  "UPDATE bcmig.switch SET failures = 0, phase = $2, problem = $3, reached_at = coalesce(reached_at, clock_timestamp()), "
			  " phase_since = CASE WHEN phase = $2 THEN phase_since ELSE clock_timestamp() END "
			  "WHERE switch_id = $1 AND (failures > 0 OR phase <> $2 OR reached_at IS NULL OR problem IS NOT NULL)", "stabilising", NULL);
	if (left > 0)
		return pause_for(left);
	if (sw.step == sw.nsteps)
	{
		bcmig_end_switch(sw.switch_id, "done", NULL);
		return false;
	}
	write_row(sw.switch_id,
			  "UPDATE bcmig.switch SET step = step + 1, reached_at = NULL, phase = $2, problem = $3, phase_since = clock_timestamp() "
			  "WHERE switch_id = $1", "gates", NULL);
	return true;
}

void
bcmig_run_switch(BcmigTrafficJob *job)
{
	while (advance(job))
		CHECK_FOR_INTERRUPTS();
}

/* ---------------------------------------------------------------------
 * SQL
 * --------------------------------------------------------------------- */

/* the steps as an argument; ERROR unless they ascend, up to 100 */
static double *
steps_of(ArrayType *array, int *n)
{
	Datum	   *elements;
	bool	   *nulls;
	double	   *steps;
	double		before = 0;

	deconstruct_array(array, NUMERICOID, -1, false, TYPALIGN_INT, &elements, &nulls, n);
	if (*n == 0 || ARR_NDIM(array) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_BM_TRAFFIC),
				 errmsg("a switch needs steps"),
				 errhint("steps => '{5,10,25,50,75,100}'")));
	steps = palloc(sizeof(double) * *n);
	for (int i = 0; i < *n; i++)
	{
		steps[i] = nulls[i] ? -1 : DatumGetFloat8(DirectFunctionCall1(numeric_float8, elements[i]));
		if (!(steps[i] > before && steps[i] <= 100))
			ereport(ERROR,
					(errcode(ERRCODE_BM_TRAFFIC),
					 errmsg("step %d of the switch is %s", i + 1, nulls[i] ? "NULL" :
							DatumGetCString(DirectFunctionCall1(numeric_out, elements[i]))),
					 errdetail("Steps are percentages of green, each above the one before, up to 100."),
					 errhint("steps => '{5,10,25,50,75,100}'")));
		before = steps[i];
	}
	return steps;
}

static char *
duration(int64 ms)
{
	return ms % 1000 == 0 ? psprintf(INT64_FORMAT " s", ms / 1000) : psprintf(INT64_FORMAT " ms", ms);
}

/*
 * What will be done, in the order in which it is.
 */
static List *
plan_of(const BcmigSync *sync, int nsteps, const double *steps, Jsonb *options, int64 balancers)
{
	char	   *policy = bcmig_option_value("on_failure", NULL, options);
	int64		stabilization = bcmig_option_int64("stabilization", NULL, options, 0);
	int64		budget = bcmig_option_int64("write_pause", NULL, options, 0);
	char	   *fronts = balancers > 0 ? psprintf("set " INT64_FORMAT " balancers and read them back", balancers) :
		pstrdup("no balancer is known: consumers ask bcmig_route()");
	char	   *back = psprintf("as before this step, then on_failure: %s", policy);
	char	   *in_budget = psprintf("within %s of stopped writes; else as before, blue writable", duration(budget));
	List	   *plan = NIL;

	for (int i = 0; i < nsteps; i++)
	{
		char	   *share = psprintf("%g %%", steps[i]);

		plan = bcmig_add_step(plan, "green", psprintf("SELECT * FROM bcmig_check_gates(%s)", quote_literal_cstr(sync->name)), true,
						psprintf("all gates ok before %s", share), psprintf("wait, then on_failure: %s", policy));
		if (steps[i] == 100)
		{
			bool		by_hand = bcmig_blue_fence_by_hand(sync);

			plan = bcmig_add_step(plan, "blue", psprintf("SELECT bcmig_blue_script('fence', %s)", quote_literal_cstr(sync->name)), true,
							by_hand ? "a person fences blue; seen by reading blue" : "blue is fenced; seen by reading blue", in_budget);
			plan = bcmig_add_step(plan, "blue", "wait until all that was open at the fence has ended and is on green", true, "quiet", in_budget);
			plan = bcmig_add_step(plan, "green", psprintf("SELECT bcmig_validate(%s, mode => 'incremental')", quote_literal_cstr(sync->name)), true, "ok", in_budget);
			plan = bcmig_add_step(plan, "green", psprintf("SELECT bcmig_set_sequences(%s)", quote_literal_cstr(sync->name)), true, "numbers go on after blue's", in_budget);
		}
		plan = bcmig_add_step(plan, "balancer", fronts, true, psprintf("%s of new requests to green", share), back);
		if (steps[i] == 100)
			plan = bcmig_add_step(plan, "green", "one transaction: fence lifted, journal armed, weight 100, writes green", true,
							"writers on green", in_budget);
		plan = bcmig_add_step(plan, "green", psprintf("look at the gates for %s", duration(stabilization)), true,
						steps[i] == 100 ? "health of green stays ok" : "all gates stay ok", psprintf("on_failure: %s", policy));
	}
	return plan;
}

/*
 * bcmig_switch_traffic(sync, steps, options, dry_run): a row nobody waits for.
 */
Datum
bcmig_switch_traffic(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigSync  *sync;
	BcmigTraffic traffic;
	BcmigCatalogScope scope;
	bool		dry_run = bcmig_arg_bool(fcinfo, 3);
	ArrayType  *array;
	double	   *steps;
	int			nsteps;
	Jsonb	   *options;
	List	   *plan;
	int64		balancers;
	int			skip = 0;

	bcmig_require_loaded();
	sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"steps\" must not be NULL")));
	array = PG_GETARG_ARRAYTYPE_P(1);
	steps = steps_of(array, &nsteps);
	bcmig_require_started(sync, false, &traffic);
	if (!dry_run)
		bcmig_refuse_held(sync, &traffic);
	while (skip < nsteps && steps[skip] <= traffic.green_percent)
		skip++;
	if (skip == nsteps)
		ereport(ERROR,
				(errcode(ERRCODE_BM_TRAFFIC),
				 errmsg("sync \"%s\" is at %g %% already", sync->name, traffic.green_percent),
				 errhint("Steps above that, or SELECT bcmig_rollback(%s, 'why');", quote_literal_cstr(sync->name))));

	bcmig_catalog_begin(&scope);
	options = bcmig_options_merge(NULL, bcmig_arg_options(fcinfo, 2), "switch");
	bcmig_sql("SELECT count(*) FROM bcmig.balancer WHERE sync_id = $1", "i", sync->sync_id);
	balancers = bcmig_get_int64(0, 1, 0);
	MemoryContextSwitchTo(caller);
	plan = plan_of(sync, nsteps - skip, steps + skip, options, balancers);
	if (!dry_run)
	{
		char	   *steps_text = OidOutputFunctionCall(F_ARRAY_OUT, PointerGetDatum(array));

		if (bcmig_sql("SELECT min(format('%I.%I is %s', t.target_schema, t.target_table, s.state)) FROM bcmig.sync_table t "
					  "JOIN bcmig.table_state s USING (table_id) WHERE t.sync_id = $1 AND s.state <> 'streaming' "
					  "AND coalesce((t.options->>'enabled')::bool, true)", "i", sync->sync_id) > 0 && bcmig_get_text(0, 1) != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_TRAFFIC),
					 errmsg("traffic of sync \"%s\" cannot be switched yet", sync->name),
					 errdetail("%s.", bcmig_get_text(0, 1)),
					 errhint("CALL bcmig_wait_sync(%s, 'streaming', '1 hour');", quote_literal_cstr(sync->name))));
		bcmig_sql("INSERT INTO bcmig.switch (sync_id, kind, steps, step, options) "
				  "VALUES ($1, 'switch', $2::numeric[], $3, $4) ON CONFLICT DO NOTHING", "itij", sync->sync_id, steps_text, skip + 1,
				  JsonbToCString(NULL, &options->root, VARSIZE(options)));
		if (SPI_processed == 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_WRONG_STATE),
					 errmsg("traffic of sync \"%s\" is being switched already", sync->name),
					 errhint("SELECT * FROM bcmig.switch_status WHERE sync = %s; -- bcmig_hold_traffic stops it, bcmig_rollback takes it back",
							 quote_literal_cstr(sync->name))));
		bcmig_audit("command", sync->name, NULL, "bcmig_switch_traffic",
					psprintf("%s, from %g %%", steps_text, traffic.green_percent));
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
	return bcmig_return_steps(fcinfo, plan);
}
