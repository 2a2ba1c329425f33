/*-------------------------------------------------------------------------
 *
 * rules.c
 *	  Rules of a validation: added, removed, looked at.
 *
 * A rule is a query on green that returns the rows that break it.  The worker
 * that ends a run looks at each rule in a transaction of its own and stores what
 * it found in another, so a crash repeats one rule and a rule that raises or
 * never ends costs only itself.
 *
 * Tables are written one after the other while the sync runs, so a rule over
 * two of them may fail for a moment.  What fails is looked at again when the
 * tables it reads are complete to a moment after the first look; only rows that
 * fail both times do.
 *
 * A rule that fails where the data are equal fails on blue as well.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "rule.h"

#include "bc_rules.h"
#include "call.h"
#include "configure.h"
#include "miscadmin.h"
#include "options.h"
#include "slot.h"
#include "through.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

BCMIG_FUNCTION(bcmig_add_rule);
BCMIG_FUNCTION(bcmig_remove_rule);

#define LOOKS			5
#define THROUGH_STEP	50		/* ms */
#define THROUGH_WAIT	60000	/* ms, for the sync to be proved through a look */
#define UNKNOWN_WAIT	10000	/* ms, when not even how far it is proved is known */
#define NEXT_WAIT		2000	/* ms, once that was not enough in this run */

/* ---- added and removed ---- */

static void
check_word(const char *what, const char *word, const char *const *words)
{
	StringInfoData list;

	initStringInfo(&list);
	for (; *words; words++)
	{
		if (strcmp(word, *words) == 0)
			return;
		appendStringInfo(&list, "%s%s", list.len > 0 ? ", " : "", *words);
	}
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("there is no %s of a rule \"%s\"", what, word),
			 errhint("Choose one of: %s.", list.data)));
}

/*
 * The table a rule's verdict counts for, 0 = none.  ERROR when the query is no
 * plain SELECT.
 */
static int
check_query(const BcmigSync *sync, const char *name, const char *query)
{
	BcmigReads	reads;
	List	   *tables;
	bool		others;

	bcmig_check_user_query(sync->owner, bcmig_rule_query(name, query), &reads);
	tables = bcmig_tables_read(sync->sync_id, &reads, &others);
	return tables != NIL ? linitial_int(tables) : 0;
}

/*
 * bcmig_add_rule(sync, name, kind, severity, query)
 */
Datum
bcmig_add_rule(PG_FUNCTION_ARGS)
{
	static const char *const kinds[] = {"reference", "business", "calculated", NULL};
	static const char *const severities[] = {"hard", "soft", NULL};
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *name = bcmig_arg_new_name(fcinfo, 1, "name");
	char	   *kind = bcmig_arg_text(fcinfo, 2, "kind");
	char	   *severity = bcmig_arg_text(fcinfo, 3, "severity");
	char	   *query = bcmig_arg_text(fcinfo, 4, "query");
	BcmigCatalogScope scope;
	int			table_id;

	check_word("kind", kind, kinds);
	check_word("severity", severity, severities);
	table_id = check_query(sync, name, query);
	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.rule WHERE sync_id = $1 AND name = $2 AND removed", "it", sync->sync_id, name);
	if (bcmig_sql("INSERT INTO bcmig.rule (sync_id, table_id, name, kind, severity, query) VALUES ($1, nullif($2, 0), $3, $4, $5, $6) "
				  "ON CONFLICT (sync_id, name) DO NOTHING", "iitttt", sync->sync_id, table_id, name, kind, severity, query) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("sync \"%s\" has a rule \"%s\" already", sync->name, name),
				 errhint("SELECT bcmig_remove_rule(%s, %s); or choose another name.", quote_literal_cstr(sync->name), quote_literal_cstr(name))));
	bcmig_audit("command", sync->name, NULL, "bcmig_add_rule", psprintf("%s, %s, %s: %s", name, kind, severity, query));
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * bcmig_remove_rule(sync, name): one of Business Central's is remembered, or it
 * would come again.
 */
Datum
bcmig_remove_rule(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *name = bcmig_arg_text(fcinfo, 1, "name");
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("DELETE FROM bcmig.rule WHERE sync_id = $1 AND name = $2 AND NOT shipped", "it", sync->sync_id, name) == 0 &&
		bcmig_sql("UPDATE bcmig.rule SET removed = true WHERE sync_id = $1 AND name = $2 AND NOT removed", "it", sync->sync_id, name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" has no rule \"%s\"", sync->name, name),
				 errhint("SELECT r.name FROM bcmig.rule r JOIN bcmig.sync s USING (sync_id) WHERE s.name = %s AND NOT removed;",
						 quote_literal_cstr(sync->name))));
	bcmig_audit("command", sync->name, NULL, "bcmig_remove_rule", name);
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/* ---- waiting ---- */

/* blue's clock now, or later: all that was seen had been committed by then.  0 = not known */
static TimestampTz
blue_clock(int sync_id)
{
	TimestampTz through;
	TimestampTz clock = 0;
	int64		lag;
	int			blue;

	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	(void) bcmig_synced_through(sync_id, &through, &lag, &blue);
	if (blue >= 0 && bcmig_shared->blues[blue].poll > 0)
		clock = bcmig_shared->blues[blue].clock + bcmig_age_of(bcmig_shared->blues[blue].read_at);
	LWLockRelease(bcmig_shared->lock);
	return clock;
}

typedef enum Passed
{
	PASSED,
	BEHIND,
	UNKNOWN,
	STOPPED
} Passed;

/* are these tables (NULL = all) complete to this moment of blue's clock? */
static Passed
has_passed(int sync_id, const Bitmapset *tables, TimestampTz moment)
{
	TimestampTz through;
	int64		lag;
	int			blue;
	Passed		result = STOPPED;

	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	if (!bcmig_slot->stop)
	{
		(void) bcmig_synced_through(sync_id, &through, &lag, &blue);
		if (blue >= 0)			/* else no table of the sync is alive: it is being stopped */
			result = moment == 0 || !bcmig_tables_through(sync_id, tables, &through, &lag, &blue) ? UNKNOWN :
				through >= moment ? PASSED : BEHIND;
	}
	LWLockRelease(bcmig_shared->lock);
	return result;
}

static Passed
wait_for_through(int sync_id, const Bitmapset *tables, TimestampTz moment, int most)
{
	TimestampTz since = bcmig_steady_time();

	for (;;)
	{
		Passed		passed = has_passed(sync_id, tables, moment);
		int			patience = passed == UNKNOWN ? Min(most, UNKNOWN_WAIT) : most;

		if (passed == PASSED || passed == STOPPED ||
			bcmig_steady_time() >= TimestampTzPlusMilliseconds(since, patience))
			return passed;
		bcmig_pause(THROUGH_STEP);
	}
}

/* ---- the job ---- */

typedef struct Verdict
{
	const char *word;
	const char *detail;			/* NULL = none */
	int			looks;
	int64		failing;
	const char *examples;		/* NULL = none */
} Verdict;

/* what a job knows beside its run */
typedef struct RulesJob
{
	const BcmigRun *run;
	Oid			feed;			/* texts of blue */
	int			timeout;		/* ms, of a look */
	int			wait;			/* ms, for the sync to be proved through a look */
} RulesJob;

/*
 * Have all the tables it read been found equal in this run?
 */
static bool
data_are_equal(const BcmigRun *run, const BcmigRuleLook *look)
{
	BcmigCatalogScope scope;
	Datum	   *ids = palloc(sizeof(Datum) * Max(list_length(look->tables), 1));
	int			n = 0;
	bool		equal;
	ListCell   *lc;

	if (look->tables == NIL || look->others)
		return false;
	foreach(lc, look->tables)
		ids[n++] = Int32GetDatum(lfirst_int(lc));
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT count(*) FROM bcmig.validation_result WHERE run_id = $1 AND table_id = ANY ($2) AND verdict = 'ok' AND done", "In",
			  run->run_id, PointerGetDatum(construct_array(ids, n, INT4OID, sizeof(int32), true, TYPALIGN_INT)));
	equal = bcmig_get_int64(0, 1, 0) == n;
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return equal;
}

static void
fails(const RulesJob *job, const BcmigRule *rule, const BcmigRuleLook *look, Verdict *v)
{
	v->word = "fails";
	v->failing = look->again;
	v->examples = look->examples;
	if (!look->all)
		v->detail = "there are more failing rows than were counted";
	if (rule->blue_query == NULL && data_are_equal(job->run, look))
	{
		v->word = "fails on blue";
		v->detail = strcmp(job->run->mode, "full") == 0 ?
			"this run found blue and green equal in every table it reads: it fails on blue as well" :
			"blue and green are equal in every table it reads, as far as an incremental run can tell: it fails on blue as well, unless green was changed behind bcmig's back";
	}
}

/*
 * Look at a rule until it is known what it is.  false: the sync is being
 * stopped.
 */
static bool
judge(RulesJob *job, const BcmigRule *rule, Verdict *v)
{
	int			sync_id = job->run->sync_id;
	BcmigRuleLook *before = NULL;

	memset(v, 0, sizeof(*v));
	v->word = "inconclusive";
	for (;;)
	{
		BcmigRuleLook *look = bcmig_look_at_rule(sync_id, rule, job->feed, job->timeout, before);
		TimestampTz moment;
		Bitmapset  *tables = NULL;
		Passed		passed;
		ListCell   *lc;

		v->looks++;
		if (before != NULL)
		{
			/* what was taken from it goes with it */
			v->failing = 0;
			v->examples = NULL;
			MemoryContextDelete(before->context);
		}
		before = look;
		if (look->error != NULL)
		{
			v->word = look->blue_failed ? "inconclusive" : "error";
			v->detail = look->error;

			/* the wrapper may have leaked its connection */
			if (look->blue_failed)
				bcmig_slot->stop = true;
			return true;
		}
		if (look->failing == 0)
		{
			v->word = "ok";
			return true;
		}
		if (look->again > 0)
		{
			fails(job, rule, look, v);
			return true;
		}
		v->failing = look->failing;
		v->examples = look->examples;
		if (v->looks == LOOKS)
		{
			v->detail = "other rows failed each time it was looked at";
			return true;
		}

		bcmig_debug_point("rule_failed");
		moment = blue_clock(sync_id);
		foreach(lc, look->others ? NIL : look->tables)
			tables = bms_add_member(tables, lfirst_int(lc));
		passed = wait_for_through(sync_id, tables, moment, job->wait);
		if (passed == STOPPED)
			return false;
		if (passed != PASSED)
		{
			job->wait = NEXT_WAIT;
			v->detail = passed == UNKNOWN ? "it fails, but how far the tables it reads are in step is not known" :
				"it fails, but the tables it reads are too far behind to tell that from changes on their way";
			return true;
		}
	}
}

/* the next rule without a result of this run, in the current context; NULL = none */
static BcmigRule *
next_rule(const BcmigRun *run)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	BcmigRule  *rule = NULL;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT u.rule_id, u.name, u.query, u.blue_query FROM bcmig.rule u JOIN bcmig.validation_run r USING (sync_id) "
				  "WHERE r.run_id = $1 AND r.state = 'running' AND NOT u.removed AND r.mode <> 'count' AND coalesce(r.table_id, u.table_id) IS NOT DISTINCT FROM u.table_id "
				  "AND NOT EXISTS (SELECT FROM bcmig.rule_result x WHERE x.run_id = r.run_id AND x.rule_id = u.rule_id) "
				  "ORDER BY u.rule_id LIMIT 1", "I", run->run_id) > 0)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(caller);

		rule = palloc(sizeof(BcmigRule));
		rule->rule_id = bcmig_get_int64(0, 1, 0);
		rule->name = bcmig_get_text(0, 2);
		rule->query = bcmig_get_text(0, 3);
		rule->blue_query = bcmig_get_text(0, 4);
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return rule;
}

/* unless rule or run have gone meanwhile */
static void
store_verdict(const BcmigRun *run, const BcmigRule *rule, const Verdict *v, double seconds)
{
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.rule_result (run_id, rule_id, verdict, failing, examples, looks, detail, seconds) "
			  "SELECT r.run_id, u.rule_id, $3, $4, $5, $6, $7, $8 FROM bcmig.validation_run r, bcmig.rule u "
			  "WHERE r.run_id = $1 AND u.rule_id = $2 FOR KEY SHARE",
			  "IitIjitf", run->run_id, rule->rule_id, v->word, v->failing, v->examples, v->looks, v->detail, seconds);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

/* in a transaction */
static void
open_job(RulesJob *job, const BcmigRun *run)
{
	BcmigSync  *sync = bcmig_read_sync(run->sync_id);
	BcmigCatalogScope scope;

	job->run = run;
	job->feed = bcmig_text_feed(sync->environment_id);
	job->wait = THROUGH_WAIT;
	bcmig_catalog_begin(&scope);
	job->timeout = bcmig_option_int64("rule_timeout", NULL, sync->options, 0);
	bcmig_catalog_end(&scope);
	if (strcmp(run->mode, "count") != 0)
		bcmig_make_bc_rules(run->sync_id, run->sync_name, job->feed);
}

void
bcmig_run_rules(int sync_id)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "bcmig rule", ALLOCSET_DEFAULT_SIZES);
	BcmigRun   *run;
	RulesJob	job;
	BcmigRule  *rule;

	bcmig_start_transaction();
	run = bcmig_run_ready(sync_id);
	if (run != NULL)
		open_job(&job, run);
	bcmig_end_transaction();
	if (run == NULL)
		return;

	MemoryContextSwitchTo(context);
	while ((rule = next_rule(run)) != NULL)
	{
		TimestampTz started = GetCurrentTimestamp();
		Verdict		verdict;

		CHECK_FOR_INTERRUPTS();
		bcmig_slot_phase("rule", rule->name, 0);
		if (!judge(&job, rule, &verdict))
			break;
		store_verdict(run, rule, &verdict, (GetCurrentTimestamp() - started) / 1e6);
		if (has_passed(sync_id, NULL, 0) == STOPPED)
			break;				/* the next worker, or the next start, goes on */
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(caller);
	if (rule == NULL)
	{
		bcmig_start_transaction();
		bcmig_check_numbers(run, job.feed);
		bcmig_end_transaction();
		bcmig_start_transaction();
		bcmig_run_finish(run, NULL);
		bcmig_end_transaction();
	}
	MemoryContextDelete(context);
}
