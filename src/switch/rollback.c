/*-------------------------------------------------------------------------
 *
 * rollback.c
 *	  bcmig_rollback: traffic back to blue, without losing what was written on
 *	  green.
 *
 * Where only readers have moved balancers are set back, and that is all.  From
 * 100, and where writers move by weight, in this order:
 *
 *	1	intent; writers are told to wait (bcmig_route answers pause)
 *	2	readers to blue at once, whatever its health; sessions on green closed
 *	3	green fenced; who was writing has ended
 *	4	the journal to its end, brought to blue (replay before, the default)
 *	5	preserve tables: copies of the green tables as they stand
 *	6	point of no return; blue is opened, and seen to be
 *	7	one transaction: weight 0, writes blue, journal disarmed
 *	8	replay after: the journal is brought to blue now
 *
 * Every part can be done again: a worker or server that dies in it begins at 2
 * and goes through.  Before 6 what cannot be done in time is given up, and
 * traffic stays on green as it was; after it there is only forward.  A balancer
 * that does not answer holds up nothing: it is set as soon as it does.
 *
 * While writers are told to wait nobody can write: blue is fenced still, green
 * again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include "blue_fence.h"
#include "call.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "compat.h"
#include "fence.h"
#include "journal.h"
#include "miscadmin.h"
#include "options.h"
#include "reverse.h"
#include "slot.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "writers.h"

#define REPLAY_AFTER	"replay, blue is open"
#define TERMINATE_WAIT	5000	/* ms for terminated sessions to end */
#define KEYS_PER_S		1000	/* replayed to a PostgreSQL blue, for a plan: bench/RESULTS.md */

BCMIG_FUNCTION(bcmig_rollback);

bool
bcmig_rollback_asked(int sync_id)
{
	BcmigCatalogScope scope;
	bool		asked;

	bcmig_catalog_begin(&scope);
	asked = bcmig_sql("SELECT FROM bcmig.switch WHERE sync_id = $1 AND kind = 'rollback' AND state = 'running'", "i", sync_id) > 0;
	bcmig_catalog_end(&scope);
	return asked;
}

void
bcmig_ask_rollback(int sync_id, const char *by, const char *reason, const char *options)
{
	bcmig_sql("INSERT INTO bcmig.switch (sync_id, kind, reason, by, options) "
			  "VALUES ($1, 'rollback', $2, coalesce($3, session_user), $4) ON CONFLICT DO NOTHING", "ittj", sync_id, reason, by, options);
	bcmig_config_changed();
}

/* ---------------------------------------------------------------------
 * Parts; each in transactions of its own
 * --------------------------------------------------------------------- */

/* what the report tells; jsonb, merged into the row */
static void
note(const BcmigSwitch *sw, const char *name, const char *value)
{
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.switch SET result = result || jsonb_build_object($2, $3) WHERE switch_id = $1 AND NOT result ? $2",
			  "Itt", sw->switch_id, name, value);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

/* 2 */
static void
readers_to_blue(BcmigTrafficJob *job, const BcmigSwitch *sw)
{
	char	   *failed = bcmig_leave_green(job);

	note(sw, "readers_back_at", timestamptz_to_str(GetCurrentTimestamp()));
	if (failed != NULL)
		note(sw, "balancers_missing", failed);
	bcmig_start_transaction();
	bcmig_store_fronts(job);
	bcmig_end_transaction();
}

/* 3; NULL: nobody can write to green any more */
static char *
fence_green(BcmigTrafficJob *job, const BcmigSwitch *sw)
{
	MemoryContext caller = CurrentMemoryContext;
	int64		timeout = bcmig_switch_ms(sw, "drain_timeout");
	bool		ending = bcmig_switch_is(sw, "terminate_blockers", "true");
	List	   *writers;
	char	   *text = NULL;

	bcmig_start_transaction();
	(void) bcmig_set_fence(job->sync, true, "writers move back to blue");
	bcmig_end_transaction();

	bcmig_start_transaction();
	writers = bcmig_wait_for_writers(bcmig_fenced_relations(job->sync), TimestampTzPlusMilliseconds(bcmig_steady_time(), timeout));
	if (writers != NIL && ending)
	{
		bcmig_end_writers(writers);
		writers = bcmig_wait_for_writers(bcmig_fenced_relations(job->sync),
										 TimestampTzPlusMilliseconds(bcmig_steady_time(), TERMINATE_WAIT));
	}
	if (writers != NIL)
		text = MemoryContextStrdup(caller, psprintf("still writing on green since before: %s", bcmig_writers_text(writers)));
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	return text;
}

/* 4, 8; NULL: all that can be on blue is there */
static char *
replay(BcmigTrafficJob *job, const BcmigSwitch *sw, int64 patience)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigReplayed r = {0};
	char	   *by_hand;
	int64		left;

	if (!bcmig_green_may_act(job->sync, &job->traffic, true))
		return BCMIG_NOT_KNOWN_TO_BE_GREEN(&job->traffic);
	by_hand = bcmig_replay_problem(job->sync);
	if (by_hand == NULL || bcmig_replay_by_script(job->sync))
		bcmig_replay(job->sync, TimestampTzPlusMilliseconds(bcmig_steady_time(), patience), &r);
	bcmig_start_transaction();
	left = bcmig_unreplayed(job->sync->sync_id);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	if (by_hand != NULL && left > 0)
		return psprintf(INT64_FORMAT " keys are not on blue; a person brings them there: SELECT bcmig_blue_script('reverse', %s); (%s)",
						left, quote_literal_cstr(job->sync->name), by_hand);
	if (r.left > 0)
		return psprintf(INT64_FORMAT " keys are not on blue%s%s", r.left, r.problem ? ": " : "", r.problem ? r.problem : "");
	note(sw, "replayed_keys", psprintf(INT64_FORMAT, r.written + r.equal));
	if (r.conflicts > 0)
		note(sw, "conflicts", psprintf(INT64_FORMAT, r.conflicts));
	return NULL;
}

/* 5: as the owner of the sync; a table that has been copied is not copied again */
static void
preserve_tables(BcmigTrafficJob *job, const BcmigSwitch *sw)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *schema = psprintf("bcmig_preserved_" INT64_FORMAT, sw->switch_id);
	BcmigCatalogScope scope;
	List	   *names = NIL;
	ListCell   *lc;
	uint64		n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT format('%I.%I', target_schema, target_table), quote_ident(target_schema || '.' || target_table) "
				  "FROM bcmig.sync_table WHERE sync_id = $1 ORDER BY 1", "i", job->sync->sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		names = lappend(names, list_make2(bcmig_get_text(i, 1), bcmig_get_text(i, 2)));
	bcmig_catalog_end(&scope);
	bcmig_run_as(job->sync->owner, psprintf("CREATE SCHEMA IF NOT EXISTS %s", schema));
	bcmig_end_transaction();
	foreach(lc, names)
	{
		List	   *name = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		bcmig_start_transaction();
		bcmig_run_as(job->sync->owner, psprintf("CREATE TABLE IF NOT EXISTS %s.%s AS TABLE %s", schema,
												(char *) lsecond(name), (char *) linitial(name)));
		bcmig_end_transaction();
	}
	note(sw, "preserved_in", schema);
}

/* 6: from now on only forward */
static void
pass_no_return(BcmigTrafficJob *job)
{
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.traffic SET intent = intent || '{\"no_return\": true}', updated_at = clock_timestamp() WHERE sync_id = $1",
			  "i", job->sync->sync_id);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	job->traffic.no_return = true;
}

/* 7 */
static void
take_back(BcmigTrafficJob *job, void *arg)
{
	const BcmigSwitch *sw = arg;
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_brief_locks();
	bcmig_journal_disarm(job->sync);
	bcmig_sql("UPDATE bcmig.traffic SET writes = 'blue' WHERE sync_id = $1", "i", job->sync->sync_id);

	/* a crash right after this commit must not forget what is still to be done */
	bcmig_sql("UPDATE bcmig.switch SET write_pause = clock_timestamp() - writes_stopped_at, "
			  " phase = CASE WHEN options->>'replay' = 'after' THEN $2 ELSE phase END WHERE switch_id = $1",
			  "It", sw->switch_id, REPLAY_AFTER);
	bcmig_catalog_end(&scope);
}

/* before the point of no return: all as it was, traffic on green */
static void
give_up(BcmigTrafficJob *job, const BcmigSwitch *sw, const char *why)
{
	bcmig_start_transaction();
	(void) bcmig_set_fence(job->sync, false, "the rollback is given up");
	bcmig_end_transaction();
	bcmig_undo_change(job, why);
	bcmig_end_switch(sw->switch_id, "failed", why);
}

/* ---------------------------------------------------------------------
 * All of it
 * --------------------------------------------------------------------- */

/* NULL: done; else what is in the way */
static char *
from_green(BcmigTrafficJob *job, const BcmigSwitch *sw)
{
	bool		first = bcmig_switch_is(sw, "replay", "before");
	char	   *why;

	if (!job->traffic.no_return)
	{
		/* done again each time, but what it waits for stays to be read */
		bool		again = sw->replay_ms >= 0;

		bcmig_switch_phase(sw, again ? "replay" : "readers to blue", sw->problem);
		readers_to_blue(job, sw);
		bcmig_debug_point("rollback_readers");
		bcmig_switch_phase(sw, again ? "replay" : "fencing green", sw->problem);
		why = fence_green(job, sw);
		if (why != NULL)
			return why;
		bcmig_debug_point("rollback_fenced");
		bcmig_ask_outside(job->sync);
		if (first)
		{
			bcmig_switch_phase(sw, "replay", sw->problem);
			note(sw, "replay_since", timestamptz_to_str(GetCurrentTimestamp()));
			why = replay(job, sw, bcmig_switch_ms(sw, "replay_timeout"));
			if (why != NULL)
				return why;
		}
		bcmig_debug_point("rollback_replayed");
		if (bcmig_switch_is(sw, "preserve", "tables"))
		{
			bcmig_switch_phase(sw, "preserving tables", NULL);
			preserve_tables(job, sw);
		}
	}
	if (!bcmig_green_may_act(job->sync, &job->traffic, true))
		return BCMIG_NOT_KNOWN_TO_BE_GREEN(&job->traffic);
	if (!job->traffic.no_return)
		pass_no_return(job);
	bcmig_switch_phase(sw, "opening blue", NULL);
	why = bcmig_open_blue(job);
	if (why != NULL)
		return psprintf("blue is not open yet: %s", why);
	bcmig_debug_point("rollback_open");
	return bcmig_end_change(job, take_back, (void *) sw);
}

/* below 100: only readers have moved */
static char *
from_blue(BcmigTrafficJob *job, const BcmigSwitch *sw)
{
	bcmig_switch_phase(sw, "readers to blue", NULL);
	readers_to_blue(job, sw);
	return bcmig_end_change(job, NULL, NULL);
}

/* 8 */
static void
replay_after(BcmigTrafficJob *job, const BcmigSwitch *sw)
{
	char	   *why;

	bcmig_switch_phase(sw, REPLAY_AFTER, sw->problem);
	why = replay(job, sw, bcmig_switch_ms(sw, "replay_timeout"));
	if (why == NULL)
		bcmig_end_switch(sw->switch_id, "done", NULL);
	else
		bcmig_switch_phase(sw, REPLAY_AFTER, why);
}

/* do writers have to go back, too? */
static bool
has_writers(const BcmigTraffic *traffic)
{
	return traffic->green_percent == 100 || traffic->both_write;
}

/* false: somebody else's change is under way, it is tried again */
static bool
begin(BcmigTrafficJob *job, const BcmigSwitch *sw)
{
	BcmigChange change = {.kind = BCMIG_ROLLBACK, .by = sw->by, .reason = sw->reason, .pause = has_writers(&job->traffic)};
	BcmigCatalogScope scope;

	if (bcmig_begin_change(job, &change) != NULL)
		return false;
	if (change.pause)
	{
		bcmig_start_transaction();
		bcmig_catalog_begin(&scope);
		bcmig_sql("UPDATE bcmig.switch SET writes_stopped_at = clock_timestamp() WHERE switch_id = $1", "I", sw->switch_id);
		bcmig_catalog_end(&scope);
		bcmig_end_transaction();
	}
	bcmig_debug_point("rollback_intent");
	return true;
}

bool
bcmig_run_rollback(BcmigTrafficJob *job)
{
	BcmigTraffic *t = &job->traffic;
	BcmigSwitch sw;
	bool		writers;
	char	   *why;

	bcmig_start_transaction();
	(void) bcmig_load_switch(job->sync->sync_id, "rollback", &sw);
	bcmig_end_transaction();
	if (sw.switch_id == 0)
		return false;
	bcmig_cancel_switch(job->sync->sync_id, "a rollback was asked for");
	if (strcmp(sw.phase, REPLAY_AFTER) == 0)
	{
		replay_after(job, &sw);
		return true;
	}
	if (t->intent == 0 && !begin(job, &sw))
		return true;

	/* blue may be away, which ends the worker each time */
	bcmig_slot_phase("rollback", NULL, 0);
	writers = has_writers(t);
	if (writers && !t->no_return && sw.replay_ms >= bcmig_switch_ms(&sw, "replay_timeout"))
	{
		give_up(job, &sw, sw.problem ? sw.problem : "blue does not answer");
		return true;
	}
	why = writers ? from_green(job, &sw) : from_blue(job, &sw);
	if (why != NULL)
		bcmig_switch_phase(&sw, NULL, why);
	else if (writers && bcmig_switch_is(&sw, "replay", "after"))
		replay_after(job, &sw);
	else
		bcmig_end_switch(sw.switch_id, "done", NULL);
	return true;
}

/* ---------------------------------------------------------------------
 * SQL
 * --------------------------------------------------------------------- */

static List *
plan_of(const BcmigSync *sync, const BcmigTraffic *traffic, Jsonb *options, int64 unreplayed)
{
	const char *stays = "given up after replay_timeout: traffic stays on green";
	const char *again = "tried again until it is done";
	bool		before = strcmp(bcmig_option_value("replay", NULL, options), "before") == 0;
	char	   *writes = psprintf(INT64_FORMAT " keys written on green, about " INT64_FORMAT " s", unreplayed,
								  (unreplayed + KEYS_PER_S - 1) / KEYS_PER_S);
	List	   *plan = NIL;

	plan = bcmig_add_step(plan, "balancer", "readers to blue, sessions on green closed", true, "nobody reads green", "one that does not answer is set when it does");
	if (!has_writers(traffic))
		return plan;
	plan = bcmig_add_step(plan, "green", psprintf("CALL bcmig.raise_fence(%s)", quote_literal_cstr(sync->name)), true,
					"nobody writes to green; from here on writers wait", "the fence stays up, those who write are named");
	if (before)
		plan = bcmig_add_step(plan, "blue", "bring the journal to blue", true, writes, stays);
	if (strcmp(bcmig_option_value("preserve", NULL, options), "tables") == 0)
		plan = bcmig_add_step(plan, "green", "CREATE TABLE bcmig_preserved_...", true, "green's tables as they stood", stays);
	plan = bcmig_add_step(plan, "blue", psprintf("SELECT bcmig_blue_script('unfence', %s)", quote_literal_cstr(sync->name)), false,
					"blue takes writes again: the point of no return", again);
	plan = bcmig_add_step(plan, "green", "one transaction: weight 0, writes blue, journal disarmed", false, "writers on blue", again);
	if (!before)
		plan = bcmig_add_step(plan, "blue", "bring the journal to blue", false,
						psprintf("%s; rows changed on blue meanwhile are conflicts", writes), again);
	return plan;
}

/*
 * bcmig_rollback(sync, reason, options, dry_run): a row nobody waits for.
 */
Datum
bcmig_rollback(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigSync  *sync;
	BcmigTraffic traffic;
	BcmigCatalogScope scope;
	char	   *reason;
	bool		dry_run = bcmig_arg_bool(fcinfo, 3);
	Jsonb	   *options;
	List	   *plan;

	bcmig_require_loaded();
	sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	reason = bcmig_arg_text(fcinfo, 1, "reason");
	bcmig_require_started(sync, false, &traffic);
	bcmig_catalog_begin(&scope);
	options = bcmig_options_merge(NULL, bcmig_arg_options(fcinfo, 2), "rollback");
	MemoryContextSwitchTo(caller);
	plan = plan_of(sync, &traffic, options, bcmig_unreplayed(sync->sync_id));
	if (!dry_run)
	{
		/* a copy of the database that moves the traffic must not */
		if (traffic.held != NULL && bcmig_incarnation_differs(sync, NULL))
			bcmig_refuse_held(sync, &traffic);
		if (bcmig_rollback_asked(sync->sync_id))
			ereport(ERROR,
					(errcode(ERRCODE_BM_WRONG_STATE),
					 errmsg("sync \"%s\" is being rolled back already", sync->name),
					 errhint("SELECT * FROM bcmig.switch_status WHERE sync = %s;", quote_literal_cstr(sync->name))));
		if (strcmp(bcmig_option_value("preserve", NULL, options), "tables") == 0 &&
			!BCMIG_MAY_MAKE_SCHEMA(sync->owner))
			ereport(ERROR,
					(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
					 errmsg("role \"%s\", the owner of sync \"%s\", may not make a schema for the tables that are to be preserved",
							GetUserNameFromId(sync->owner, false), sync->name),
					 errhint("GRANT CREATE ON DATABASE %s TO %s;", quote_identifier(get_database_name(MyDatabaseId)),
							 quote_identifier(GetUserNameFromId(sync->owner, false)))));
		if (traffic.green_percent == 0 && traffic.intent == 0 &&
			bcmig_sql("SELECT FROM bcmig.switch WHERE sync_id = $1 AND kind = 'switch' AND state = 'running'", "i", sync->sync_id) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_WRONG_STATE),
					 errmsg("nothing of the traffic of sync \"%s\" is on green", sync->name),
					 errhint("SELECT * FROM bcmig.traffic_status WHERE sync = %s;", quote_literal_cstr(sync->name))));
		bcmig_audit("command", sync->name, NULL, "bcmig_rollback", reason);
		bcmig_ask_rollback(sync->sync_id, NULL, reason, JsonbToCString(NULL, &options->root, VARSIZE(options)));

		/* a person who held it, or a switch that did, has had his say */
		if (traffic.held != NULL)
		{
			bcmig_sql("UPDATE bcmig.traffic SET held = NULL, updated_at = clock_timestamp() WHERE sync_id = $1", "i", sync->sync_id);
			(void) bcmig_traffic_event(sync->name, "resumed", -1, -1, 0, GetUserNameFromId(GetSessionUserId(), false), "for a rollback");
		}
	}
	bcmig_catalog_end(&scope);
	return bcmig_return_steps(fcinfo, plan);
}
