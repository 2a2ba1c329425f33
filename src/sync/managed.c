/*-------------------------------------------------------------------------
 *
 * managed.c
 *	  What a manager has to look after: syncs, tables and requests, read from
 *	  the catalogue, and a live entry in shared memory for every table of a
 *	  running sync.
 *
 * One load replaces the last one as a whole, in a memory context of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "manager.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog.h"
#include "miscadmin.h"
#include "readable.h"
#include "slot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define STOP_GRACE		10000	/* ms at the same thing before a worker of a sync that stops is cancelled */
#define REVERSE_MOST_WAIT	30000	/* ms: the longest backoff (reverse_feed.c) */

Config	   *bcmig_managed = NULL;

static char *
copy_text(MemoryContext context, uint64 row, int col)
{
	char	   *s = bcmig_get_text(row, col);

	return s ? MemoryContextStrdup(context, s) : NULL;
}

/*
 * A sync that was started in another cluster or database came here by a dump or
 * a template: nothing is done for it but to hold its traffic, until
 * bcmig_adopt().  One whose row of bcmig.incarnation is not there is just being
 * restored: nothing at all is done.
 */
static void
load_syncs(Config *c)
{
	char	   *system = psprintf(UINT64_FORMAT, GetSystemIdentifier());

	bcmig_sql("SELECT s.sync_id, s.name, s.owner::oid, s.environment_id, s.wanted = 'running', "
			  " nullif(s.options->>'workers', 'auto')::int, nullif(s.options->>'poll_interval', 'auto')::int, "
			  " coalesce((s.options->>'max_latency')::int, 100), st.state, st.views_made IS DISTINCT FROM " BCMIG_VIEWS_KEY ", "
			  " coalesce((s.options->>'maintenance')::bool, false), coalesce(st.schema_mark, 0), "
			  " EXISTS (SELECT FROM bcmig.schema_change c JOIN bcmig.table_state t USING (table_id) "
			  "  WHERE c.sync_id = s.sync_id AND c.settled_at IS NULL AND c.action = 'stopped' AND t.state <> 'suspended'), "
			  " EXISTS (SELECT FROM bcmig.validation_run r WHERE r.sync_id = s.sync_id AND r.state = 'running' "
			  "  AND NOT EXISTS (SELECT FROM bcmig.validation_result v WHERE v.run_id = r.run_id AND NOT v.done)), "
			  " nullif(concat_ws(' ', (SELECT 'request ' || max(w.request_id) FROM bcmig.traffic_request w WHERE w.sync_id = s.sync_id), "
			  "  (SELECT 'trial ' || max(w.trial_id) FROM bcmig.blue_fence_trial w WHERE w.sync_id = s.sync_id), "
			  "  (SELECT string_agg(w.kind || ' ' || w.switch_id, ' ' ORDER BY w.switch_id) FROM bcmig.switch w WHERE w.sync_id = s.sync_id AND w.state = 'running'), "
			  "  (SELECT concat_ws(' ', 'intent ' || (t.intent->>'id'), CASE WHEN t.held IS NOT NULL THEN 'held' END, "
			  "   CASE WHEN t.held IS NULL AND t.completed_at IS NULL AND (i.witness IN ('behind', 'take') OR t.epoch > 0 AND i.server_start IS DISTINCT FROM $1 OR (i.system, i.database) <> ($2, $3)) "
			  "   THEN 'witness ' || t.epoch END) FROM bcmig.traffic t LEFT JOIN bcmig.incarnation i USING (sync_id) WHERE t.sync_id = s.sync_id)), ''), "
			  " EXISTS (SELECT FROM bcmig.balancer b WHERE b.sync_id = s.sync_id), "
			  " coalesce((s.options->>'reverse')::bool, true) AND EXISTS (SELECT FROM bcmig.traffic t WHERE t.sync_id = s.sync_id "
			  "  AND (t.green_percent = 100 OR t.writes = 'key') AND t.journal_armed AND t.intent IS NULL AND t.held IS NULL), "
			  " coalesce((SELECT 1000 * extract(epoch FROM v.not_before - clock_timestamp()) FROM bcmig.reverse_state v WHERE v.sync_id = s.sync_id), 0)::int8, "
			  " coalesce(nullif(s.options->>'max_answer', 'auto')::int, -1), "
			  " (SELECT (i.system, i.database) <> ($2, $3) FROM bcmig.incarnation i WHERE i.sync_id = s.sync_id) "
			  "FROM bcmig.sync s JOIN bcmig.sync_state st USING (sync_id), LATERAL (SELECT s.sync_id, s.options) y "
			  "ORDER BY s.sync_id", "zto", PgStartTime, system, MyDatabaseId);
	c->nsyncs = SPI_processed;
	c->syncs = MemoryContextAllocZero(c->context, sizeof(Sync) * Max(c->nsyncs, 1));
	for (int i = 0; i < c->nsyncs; i++)
	{
		Sync	   *s = &c->syncs[i];
		Sync	   *before;
		bool		isnull;

		s->sync_id = bcmig_get_int64(i, 1, 0);
		s->name = copy_text(c->context, i, 2);
		s->owner = bcmig_get_int64(i, 3, 0);
		s->environment_id = bcmig_get_int64(i, 4, 0);
		s->running = bcmig_get_bool(i, 5);
		s->workers = bcmig_get_int64(i, 6, 0);
		s->poll_interval = bcmig_get_int64(i, 7, 0);
		s->max_latency = bcmig_get_int64(i, 8, 100);
		s->state = copy_text(c->context, i, 9);
		s->views_due = bcmig_get_bool(i, 10);
		s->maintenance = bcmig_get_bool(i, 11);
		s->schema_mark = (uint64) bcmig_get_int64(i, 12, 0);
		s->look_again = bcmig_get_bool(i, 13);
		s->rules_due = bcmig_get_bool(i, 14);
		s->traffic_due = copy_text(c->context, i, 15);
		s->balancers = bcmig_get_bool(i, 16);
		before = bcmig_managed ? bcmig_find_managed_sync(bcmig_managed, s->sync_id) : NULL;

		/* what is new is done at once, what has failed is tried again after a while */
		s->traffic_next = before && (s->traffic_due == NULL ||
									 (before->traffic_due != NULL && strcmp(s->traffic_due, before->traffic_due) == 0)) ? before->traffic_next : 0;
		s->reverse = bcmig_get_bool(i, 17);
		s->max_answer = bcmig_get_int64(i, 19, -1);
		(void) bcmig_get_datum(i, 20, &isnull);
		s->elsewhere = !isnull && bcmig_get_bool(i, 20);
		s->running &= !isnull && !s->elsewhere;
		s->half = isnull && strcmp(s->state, "created") != 0;
		s->reverse &= s->running;

		/* a stored time of the clock; longer than any backoff only when the clock was set back */
		s->reverse_next = Max(before ? before->reverse_next : 0,
							  TimestampTzPlusMilliseconds(bcmig_steady_time(), Max(0, Min(bcmig_get_int64(i, 18, 0), REVERSE_MOST_WAIT))));
	}
}

Sync *
bcmig_find_managed_sync(Config *c, int sync_id)
{
	for (int i = 0; i < c->nsyncs; i++)
	{
		if (c->syncs[i].sync_id == sync_id)
			return &c->syncs[i];
	}
	return NULL;
}

/*
 * The live entry of a table, made when missing.  What is stored (row "row" of
 * the query of load_tables) fills in an entry nobody works on, unless something
 * was published since "seen": the query may not have seen that.  *again: it has
 * to be looked at soon, since the stored state (a command's, perhaps) is another
 * one than the live one.  Caller holds the lock exclusively.
 */
static BcmigTable *
enter_table(Table *t, uint64 row, uint64 seen, bool *again)
{
	BcmigTableKey key = {MyDatabaseId, t->table_id};
	BcmigTable *live;
	bool		found;
	bool		isnull;
	Datum		swept_at;

	live = hash_search(bcmig_tables, &key, HASH_ENTER_NULL, &found);
	if (live == NULL)
		return NULL;
	if (!found)
	{
		memset((char *) live + sizeof(key), 0, sizeof(*live) - sizeof(key));
		live->moved_poll = 1;	/* dirty until a window has proved it clean */
		live->rows_copied = bcmig_get_int64(row, 12, 0);
		live->rows_applied = bcmig_get_int64(row, 13, 0);
		live->rows_deleted = bcmig_get_int64(row, 14, 0);
		live->name_hash = bcmig_source_hash(bcmig_get_text(row, 15), bcmig_get_text(row, 16));
	}
	if (!found || (live->busy == 0 && live->version <= seen))
	{
		BcmigTableState state = bcmig_state_value(bcmig_get_text(row, 8));

		if (live->state != state)
		{
			live->window_poll = 0;
			live->failures = 0;
			live->not_before = 0;
			live->drained = false;
		}
		live->state = state;
		if (live->window_poll == 0)
			live->position = bcmig_get_int64(row, 9, 0);
		live->swept_position = t->snapshot || t->sweeps ? bcmig_get_int64(row, 10, 0) : PG_INT64_MAX;
		swept_at = bcmig_get_datum(row, 11, &isnull);
		live->swept_at = isnull ? 0 : DatumGetTimestampTz(swept_at);
		live->quarantined = bcmig_get_int64(row, 17, 0);
		live->analyze_due = bcmig_get_bool(row, 20);
	}
	else if (live->state != bcmig_state_value(bcmig_get_text(row, 8)))
		*again = true;
	live->sync_id = t->sync->sync_id;
	live->blue = t->sync->blue;
	live->stopping = !t->enabled;
	return live;
}

/* returns whether it is to be done again soon */
static bool
load_tables(Config *c)
{
	uint64		seen;
	bool		full = false;
	bool		again = false;

	/* everything published until here is in the snapshot taken below */
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	seen = bcmig_shared->publications;
	LWLockRelease(bcmig_shared->lock);

	bcmig_sql("SELECT t.table_id, t.sync_id, t.capture, "
			  " coalesce((t.options->>'priority')::int, 5), "
			  " coalesce(nullif(coalesce(t.options->>'parallel', s.options->>'parallel'), 'auto')::int, 0), "
			  " coalesce((t.options->>'enabled')::bool, true), "
			  " coalesce(coalesce(t.options->>'sweep_interval', s.options->>'sweep_interval')::int8, 900000), "
			  " st.state, coalesce(st.position, 0), coalesce(st.swept_position, 0), st.swept_at, "
			  " st.rows_copied, st.rows_applied, st.rows_deleted, t.source_schema, t.source_table, "
			  " coalesce(q.n, 0)::int8, st.made, "
			  " EXISTS (SELECT FROM bcmig.validation_result v JOIN bcmig.validation_run r USING (run_id) "
			  "  WHERE v.table_id = t.table_id AND NOT v.done AND r.state = 'running'), st.analyze_due "
			  "FROM bcmig.sync_table t JOIN bcmig.sync s USING (sync_id) JOIN bcmig.table_state st USING (table_id) "
			  "LEFT JOIN (SELECT table_id, count(*) AS n FROM bcmig.quarantine GROUP BY 1) q USING (table_id) "
			  "ORDER BY 4, 1", "");
	c->ntables = SPI_processed;
	c->tables = MemoryContextAllocZero(c->context, sizeof(Table) * Max(c->ntables, 1));
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < c->ntables; i++)
	{
		Table	   *t = &c->tables[i];
		char	   *capture = bcmig_get_text(i, 3);

		t->table_id = bcmig_get_int64(i, 1, 0);
		t->sync = bcmig_find_managed_sync(c, bcmig_get_int64(i, 2, 0));
		t->priority = bcmig_get_int64(i, 4, 5);
		t->parallel = bcmig_get_int64(i, 5, 0);
		t->enabled = bcmig_get_bool(i, 6);
		t->sweep_interval = bcmig_get_int64(i, 7, 900000);
		t->made = bcmig_get_bool(i, 18);
		t->check_due = bcmig_get_bool(i, 19);
		t->snapshot = strcmp(capture, "snapshot") == 0;
		t->sweeps = strcmp(capture, "rowversion") == 0;
		if (t->sync != NULL && t->sync->running && t->sync->blue >= 0)
		{
			t->live = enter_table(t, i, seen, &again);
			full |= t->live == NULL;
		}
	}
	LWLockRelease(bcmig_shared->lock);
	if (full)
		ereport(WARNING,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("bcmig works on at most %d tables at a time, more are configured", bcmig_max_tables),
				 errhint("Raise bcmig.max_tables and restart the server.")));
	return again;
}

static void
load_requests(Config *c)
{
	static const struct
	{
		const char *name;
		BcmigJobKind kind;
	}			kinds[] = {
		{"window", BCMIG_JOB_WINDOW}, {"sweep", BCMIG_JOB_SWEEP}, {"retry", BCMIG_JOB_RETRY},
		{"repair", BCMIG_JOB_REPAIR}, {"resolve", BCMIG_JOB_RESOLVE}
	};

	bcmig_sql("SELECT request_id, table_id, kind FROM bcmig.request WHERE table_id IS NOT NULL ORDER BY 1", "");
	c->requests = MemoryContextAllocZero(c->context, sizeof(Request) * Max(SPI_processed, 1));
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Request    *r = &c->requests[c->nrequests];
		char	   *kind = bcmig_get_text(i, 3);

		r->id = bcmig_get_int64(i, 1, 0);
		r->table_id = bcmig_get_int64(i, 2, 0);
		for (int k = 0; k < lengthof(kinds); k++)
		{
			if (strcmp(kinds[k].name, kind) == 0)
				r->kind = kinds[k].kind;
		}
		if (r->kind != BCMIG_JOB_NONE)
			c->nrequests++;
	}
}

static int
compare_ids(const void *a, const void *b)
{
	int			x = *(const int *) a;
	int			y = *(const int *) b;

	return x < y ? -1 : x > y;
}

/*
 * Workers at a table of a sync that is being stopped end by themselves, at the
 * next window or chunk.  One that has been at the same thing for long may be
 * waiting for a blue that never answers: its statement is cancelled, which
 * costs no more than reading it again.  Under BcmigShared->lock.
 */
static void
cancel_stuck(const BcmigTable *live)
{
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		const BcmigSlot *slot = &bcmig_shared->slots[i];

		if (slot->in_use && slot->pid != 0 && slot->dboid == MyDatabaseId && slot->job.kind != BCMIG_JOB_NONE &&
			slot->job.table_id == live->key.table_id && bcmig_ms_since(slot->since) > STOP_GRACE)
			(void) kill(slot->pid, SIGINT);
	}
}

/*
 * Take live entries away whose table is not configured in a running sync any
 * more, once nobody works on them.
 */
static bool
remove_stale_tables(Config *c)
{
	bool		again = false;
	HASH_SEQ_STATUS seq;
	BcmigTable *live;
	int		   *wanted = palloc(sizeof(int) * Max(c->ntables, 1));
	int			nwanted = 0;

	/* sorted: it is looked into for every table, with the lock held */
	for (int i = 0; i < c->ntables; i++)
	{
		if (c->tables[i].live != NULL)
			wanted[nwanted++] = c->tables[i].table_id;
	}
	qsort(wanted, nwanted, sizeof(int), compare_ids);
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	hash_seq_init(&seq, bcmig_tables);
	while ((live = hash_seq_search(&seq)) != NULL)
	{
		if (live->key.dboid != MyDatabaseId)
			continue;
		if (bsearch(&live->key.table_id, wanted, nwanted, sizeof(int), compare_ids) == NULL)
		{
			live->stopping = true;
			if (live->busy == 0 && bcmig_report_room != NULL)
				bcmig_report_room->table_leaves(live);
			if (live->busy == 0)
				hash_search(bcmig_tables, &live->key, HASH_REMOVE, NULL);
			else
			{
				cancel_stuck(live);
				again = true;
			}
		}
	}
	LWLockRelease(bcmig_shared->lock);
	pfree(wanted);
	return again;
}

static void
assign_blues(Config *c)
{
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < BCMIG_MAX_BLUES; i++)
	{
		if (bcmig_shared->blues[i].in_use && bcmig_shared->blues[i].dboid == MyDatabaseId)
		{
			bcmig_shared->blues[i].max_latency = 0;
			bcmig_shared->blues[i].throttle.max_answer = 0;
			bcmig_shared->blues[i].throttle.automatic = false;
		}
	}
	for (int i = 0; i < c->nsyncs; i++)
	{
		Sync	   *s = &c->syncs[i];
		BcmigBlue  *blue;

		s->blue = s->running && !s->maintenance ? bcmig_live_blue(MyDatabaseId, s->environment_id, s->owner) : -1;
		if (s->blue < 0)
			continue;
		blue = &bcmig_shared->blues[s->blue];
		if (s->max_answer < 0)
			blue->throttle.automatic = true;
		else if (s->max_answer > 0 && (blue->throttle.max_answer == 0 || s->max_answer < blue->throttle.max_answer))
			blue->throttle.max_answer = s->max_answer;
		if (blue->max_latency == 0)
		{
			blue->max_latency = s->max_latency;
			blue->fixed_interval = s->poll_interval;
		}
		else
		{
			blue->max_latency = Min(blue->max_latency, s->max_latency);
			if (s->poll_interval > 0 && blue->fixed_interval > 0)
				blue->fixed_interval = Min(blue->fixed_interval, s->poll_interval);
			else
				blue->fixed_interval = 0;
		}
	}
	LWLockRelease(bcmig_shared->lock);
}

static void
load_runs(Config *c)
{
	bcmig_sql("SELECT e.execution_id, e.owner::oid, EXISTS (SELECT FROM bcmig.execution_request r "
			  " WHERE r.execution_id = e.execution_id AND r.kind = 'cancel') FROM bcmig.execution e WHERE e.state IN ('running', 'compensating') "
			  "OR EXISTS (SELECT FROM bcmig.execution_request r WHERE r.execution_id = e.execution_id) ORDER BY 1", "");
	c->nruns = SPI_processed;
	c->runs = MemoryContextAllocZero(c->context, sizeof(Run) * Max(c->nruns, 1));
	for (int i = 0; i < c->nruns; i++)
	{
		c->runs[i].execution_id = bcmig_get_int64(i, 1, 0);
		c->runs[i].owner = (Oid) bcmig_get_int64(i, 2, InvalidOid);
		c->runs[i].cancelled = bcmig_get_bool(i, 3);
	}
}

/*
 * Returns whether an entry could not be removed or brought up to date yet, so
 * that the next load must be soon.
 */
bool
bcmig_managed_load(void)
{
	bool		again;
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "bcmig config",
												  ALLOCSET_DEFAULT_SIZES);
	Config	   *c = MemoryContextAllocZero(context, sizeof(Config));
	BcmigCatalogScope scope;

	c->context = context;
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	load_syncs(c);
	assign_blues(c);
	again = load_tables(c);
	load_requests(c);
	load_runs(c);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	again |= remove_stale_tables(c);

	if (bcmig_managed != NULL)
		MemoryContextDelete(bcmig_managed->context);
	bcmig_managed = c;
	return again;
}
