/*-------------------------------------------------------------------------
 *
 * alert.c
 *	  What asks for a person: raised once, cleared once.
 *
 * The manager looks every second nap.  View bcmig.alert_condition says what is
 * wrong now, bcmig.alert_log what has been said; only where the two differ is
 * something written.  So a restart raises nothing twice, and the alert of a
 * sync that was dropped is cleared because its condition is gone.
 *
 * A condition that comes and goes names a number of looks: so often in a row it
 * must be there, or gone.  What is being counted is in memory of the manager; a
 * restart begins to count anew.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "manager.h"

#include "catalog.h"
#include "miscadmin.h"
#include "through.h"
#include "throttle.h"
#include "utils/memutils.h"

#define AUDIT_PLACES	1000	/* of the audit chain looked at each time */

#define CALM			5000000	/* us without a pause until blue is said to be well again */

/* a difference that has to last before it is written */
typedef struct Counted
{
	char	   *key;
	int			looks;
} Counted;

/* what the looks of this manager have found out about the audit chain */
static int64 audit_next = 1;
static char audit_damage[BCMIG_TEXT];	/* "" = none */
static char audit_found[BCMIG_TEXT];	/* in the present round */
static bool audit_known = false;	/* a whole round is over since the manager began */

static List *counted = NIL;		/* of the last look */
static MemoryContext counted_context = NULL;

/*
 * The next piece of the audit chain; from its end on again from the beginning.
 * Damage stands until a whole round has found none.
 */
static void
look_at_audit(void)
{
	if (bcmig_sql("SELECT d.what, d.audit_id FROM bcmig.audit_defects($1, $1 + $2 - 1) d ORDER BY d.seq LIMIT 1",
				  "Ii", audit_next, AUDIT_PLACES) > 0)
	{
		snprintf(audit_found, sizeof(audit_found), "%s, the first has audit_id " INT64_FORMAT,
				 bcmig_get_text(0, 1), bcmig_get_int64(0, 2, 0));
		strlcpy(audit_damage, audit_found, sizeof(audit_damage));
	}
	bcmig_sql("SELECT coalesce(max(seq), 0) FROM bcmig.audit_chain", "");
	audit_next += AUDIT_PLACES;
	if (audit_next <= bcmig_get_int64(0, 1, 0))
		return;
	if (bcmig_sql("SELECT 1 FROM bcmig.audit_head WHERE rows <> (SELECT count(*) FROM bcmig.audit_chain)", "") > 0)
	{
		strlcpy(audit_found, "the chain does not end where it ended", sizeof(audit_found));
		strlcpy(audit_damage, audit_found, sizeof(audit_damage));
	}
	audit_next = 1;
	audit_known = true;
	if (audit_found[0] == '\0')
		audit_damage[0] = '\0';
	audit_found[0] = '\0';
}

/*
 * Has this difference been there at so many looks in a row, this one included?
 * What is not asked for in a look is forgotten with the list of the last one.
 */
static bool
is_due(List **now, MemoryContext context, const char *key, int looks)
{
	MemoryContext oldcontext;
	Counted    *c;
	ListCell   *lc;
	int			before = 0;

	if (looks <= 1)
		return true;
	foreach(lc, counted)
	{
		const Counted *old = lfirst(lc);

		if (strcmp(old->key, key) == 0)
			before = old->looks;
	}
	if (before + 1 >= looks)
		return true;
	oldcontext = MemoryContextSwitchTo(context);
	c = palloc(sizeof(Counted));
	c->key = pstrdup(key);
	c->looks = before + 1;
	*now = lappend(*now, c);
	MemoryContextSwitchTo(oldcontext);
	return false;
}

/*
 * That blue answers slowly is an event, not an alert: it may come and go many
 * times while a big table is copied, so it is over only after CALM.
 */
static void
tell_throttle(int index, const BcmigThrottle *t, int64 answer, int64 bound)
{
	BcmigCatalogScope scope;
	char	   *detail;

	if (t->told)
	{
		int64		paused = t->paused - t->told_paused;

		detail = psprintf("copies, sweeps and validations waited for %.1f s, %.0f %% of the time; the slowest answer took " INT64_FORMAT " ms",
						  paused / 1e6, Min(100.0, 100.0 * paused / Max(1, bcmig_age_of(t->told_at) - bcmig_age_of(t->since))), t->slowest / 1000);
	}
	else
		detail = psprintf("blue takes " INT64_FORMAT " ms to answer, max_answer is " INT64_FORMAT " ms: copies, sweeps and validations wait",
						  Max(answer, t->slowest) / 1000, bound / 1000);
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_brief_locks();
	for (int i = 0; i < bcmig_managed->nsyncs; i++)
	{
		if (bcmig_managed->syncs[i].blue == index)
			bcmig_audit("throttle", bcmig_managed->syncs[i].name, NULL, t->told ? "ends" : "begins", detail);
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

bool
bcmig_tell_throttles(void)
{
	for (int i = 0; i < BCMIG_MAX_BLUES; i++)
	{
		BcmigBlue  *blue = &bcmig_shared->blues[i];
		BcmigThrottle t;
		int64		answer;
		int64		bound;

		LWLockAcquire(bcmig_shared->lock, LW_SHARED);
		t = blue->throttle;
		answer = bcmig_answer_us(blue);
		bound = bcmig_bound_us(blue);
		LWLockRelease(bcmig_shared->lock);
		if (!blue->in_use || blue->dboid != MyDatabaseId ||
			(t.told ? t.on || bcmig_age_of(t.since) < CALM : t.pauses == t.told_pauses))
			continue;
		tell_throttle(i, &t, answer, bound);

		LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
		blue->throttle.told = !t.told;
		INSTR_TIME_SET_CURRENT(blue->throttle.told_at);
		blue->throttle.told_pauses = t.pauses;
		blue->throttle.told_paused = t.paused;
		LWLockRelease(bcmig_shared->lock);
	}
	return false;
}

bool
bcmig_look_for_alerts(void)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bcmig alerts", ALLOCSET_SMALL_SIZES);
	List	   *now = NIL;
	BcmigCatalogScope scope;
	SPITupleTable *rows;
	uint64		n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_brief_locks();
	look_at_audit();
	n = bcmig_sql("SELECT o.alert_id, coalesce(c.name, o.name), coalesce(c.sync, o.sync_name), coalesce(c.target, o.target), "
				  " c.severity, c.value, c.bound, coalesce(c.detail, o.detail), c.fix, coalesce(c.looks, o.looks) "
				  "FROM (SELECT * FROM bcmig.alert_condition "
				  "      UNION ALL SELECT 'workers_missing', NULL, NULL, 'warning', $1::text, '0', "
				  "       'The server gives no more background workers; bcmig goes on with fewer.', "
				  "       format('ALTER SYSTEM SET max_worker_processes = %s; -- and restart', current_setting('max_worker_processes')::int + $1), 3 WHERE $1 > 0 "
				  "      UNION ALL SELECT 'audit_damaged', NULL, NULL, 'critical', NULL, NULL, $2, 'SELECT * FROM bcmig_verify_audit();', 1 WHERE $2 <> '') c "
				  "FULL JOIN (SELECT * FROM bcmig.alert_log WHERE cleared_at IS NULL) o "
				  " ON (o.name, coalesce(o.sync_name, ''), coalesce(o.target, '')) = (c.name, coalesce(c.sync, ''), coalesce(c.target, '')) "
				  "WHERE o.name IS NULL OR c.name IS NULL ORDER BY 2, 3, 4",
				  "it", bcmig_workers_short, audit_damage);
	rows = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
	{
		char	   *text[11];
		bool		raise;

		CHECK_FOR_INTERRUPTS();
		for (int col = 1; col <= 10; col++)
			text[col] = SPI_getvalue(rows->vals[i], rows->tupdesc, col);
		raise = text[1] == NULL;
		if (!raise && !audit_known && strcmp(text[2], "audit_damaged") == 0)
			continue;
		if (!is_due(&now, context, psprintf("%c%s\n%s\n%s", raise ? '+' : '-', text[2], text[3] ? text[3] : "", text[4] ? text[4] : ""),
					atoi(text[10])))
			continue;
		if (raise)
			bcmig_sql("INSERT INTO bcmig.alert_log (name, sync_name, target, severity, value, bound, detail, fix, looks) "
					  "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)", "ttttttttI",
					  text[2], text[3], text[4], text[5], text[6], text[7], text[8], text[9], (int64) atoi(text[10]));
		else
			bcmig_sql("UPDATE bcmig.alert_log SET cleared_at = clock_timestamp() WHERE alert_id = $1", "I", (int64) strtoll(text[1], NULL, 10));
		bcmig_audit("alert", text[3], text[4], psprintf("%s %s", text[2], raise ? "raised" : "cleared"), text[8]);
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();

	if (counted_context != NULL)
		MemoryContextDelete(counted_context);
	MemoryContextSetParent(context, TopMemoryContext);
	counted_context = context;
	counted = now;
	return false;
}
