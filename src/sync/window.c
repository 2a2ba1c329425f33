/*-------------------------------------------------------------------------
 *
 * window.c
 *	  Windows: the changes of tables between their position and a horizon.
 *
 * Under the applier lock: state and position are read, a reading of blue is
 * taken, the changes above the position are read in one statement without an
 * upper bound and spooled, the remote transaction ends; then the rows and the
 * new position commit together.  The horizon comes from a poll that had ended
 * before this window's remote transaction began.
 *
 * A crash before the last commit repeats the window, which does no harm: what
 * is read later is at least as new.
 *
 * Keys re-read by name (quarantine, sweep) go the same way, without a position.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "worker.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "poller.h"
#include "quarantine.h"
#include "shard.h"
#include "slot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define WHOLE_BATCHES		10	/* a window of so many batches is still one transaction */
#define UNIQUE_RETRIES		3	/* windows a secondary key may stop before rows are blamed */
#define RETRY_KEYS			2000	/* keys in one re-read: more than max_errors lets stand, since rows that
								 * swapped a unique value can only be applied together */

/* the most rows of a window that is applied as one transaction */
static int64
whole_rows(const BcmigWork *work)
{
	return (int64) work->table->batch_rows * WHOLE_BATCHES;
}

/*
 * What blue must still have after a restart for this window not to have been
 * lost there: [{"x": [trace, ...]}, {"k": key, "v": version, "h": contents}, ...], the keys
 * being those of the last rows by version.  NULL when there is none.
 */
static char *
witnesses(const BcmigTableInfo *table, BcmigSpool *spool)
{
	const BcmigSigns *signs = &spool->receiver.signs;
	StringInfoData s;
	int			n = 0;

	initStringInfo(&s);
	if (signs->ntraces > 0)
	{
		for (int i = 0; i < signs->ntraces; i++)
			appendStringInfo(&s, "%s" INT64_FORMAT, i ? "," : "[{\"x\":[", signs->traces[i]);
		appendStringInfoString(&s, "]}");
	}
	if (spool->upserts > 0 && table->nkeys > 0)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(spool->desc, &TTSOpsMinimalTuple);

		tuplestore_select_read_pointer(spool->store, 0);
		tuplestore_rescan(spool->store);
		while (n < BCMIG_WITNESSES && tuplestore_gettupleslot(spool->store, true, false, slot))
		{
			slot_getallattrs(slot);
			if (*VARDATA_ANY(DatumGetTextPP(slot->tts_values[FEED_OP])) != 'U')
				continue;
			if (!slot->tts_isnull[FEED_VERSION] &&
				DatumGetInt64(slot->tts_values[FEED_VERSION]) != spool->max_version)
				continue;
			appendStringInfo(&s, "%c{\"k\":%s", s.len > 0 ? ',' : '[', bcmig_row_key(table, slot));
			if (!slot->tts_isnull[FEED_VERSION])
				appendStringInfo(&s, ",\"v\":" INT64_FORMAT, spool->max_version);
			/* a row of several tables may change without its version */
			if (!slot->tts_isnull[FEED_VERSION] && table->ncompanions == 0)
				appendStringInfo(&s, ",\"h\":" INT64_FORMAT, bcmig_row_contents(slot));
			appendStringInfoChar(&s, '}');
			n++;
		}
		ExecDropSingleTupleTableSlot(slot);
	}
	if (s.len == 0)
		return NULL;
	appendStringInfoChar(&s, ']');
	return s.data;
}

/*
 * Why this table has to be read again as a whole, or NULL.
 */
static char *
broken_feed(const BcmigTableInfo *table, const BcmigStored *stored, const BcmigSigns *signs)
{
	if (strcmp(table->capture, "snapshot") == 0)
		return NULL;
	if (!signs->has_begin)
		ereport(ERROR,
				(errcode(ERRCODE_BM_BLUE),
				 errmsg("%s is no longer tracked on blue", table->target_name),
				 errhint("Run what SELECT bcmig_blue_script('tracking', %s) prints on blue, then SELECT bcmig_resync_table(%s, %s);",
						 quote_literal_cstr(table->sync_name), quote_literal_cstr(table->sync_name),
						 quote_literal_cstr(table->target_name))));

	/* its copy began when the poller had already looked at what others had read */
	if (stored->other_blue)
		return pstrdup("blue restarted when its copy began");
	if (signs->begin_changed ||
		(stored->begin_version != NULL && pg_strtoint64(stored->begin_version) != signs->begin))
		return pstrdup("the source table was truncated or its tracking begun anew");
	if (signs->has_min_valid && signs->min_valid > stored->position)
		return pstrdup("changes since the last window have expired on blue");
	return NULL;
}

/*
 * The end of a window, in the transaction of its last rows.
 */
static void
move_position(BcmigWork *work, BcmigSpool *spool, const BcmigStored *stored,
			  const BcmigReading *reading, const BcmigApplied *applied,
			  TimestampTz started, bool *suspended)
{
	BcmigTableInfo *table = work->table;
	BcmigCatalogScope scope;
	int64		rows = spool->upserts + spool->deletes;
	char	   *reason;

	/* the position stays: what was left alone is read again once the table is resumed */
	if (applied->stopped)
	{
		reason = bcmig_ladder(table, started, applied);
		bcmig_log_batch(work, "window", started, "Failed", rows, applied, stored, NULL, reason);
		bcmig_state_suspend(table, reason);
		*suspended = true;
		return;
	}

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("UPDATE bcmig.table_state SET position = $2, seen = $3, reread_from = NULL, "
				  " begin_version = coalesce($4, begin_version), witness = coalesce($5, witness), "
				  " rows_applied = rows_applied + $6, rows_deleted = rows_deleted + $7, delete_confirmed = false "
				  "WHERE table_id = $1 AND state = $8 AND incarnation = $9",
				  "iIttjIItI", table->table_id, reading->horizon, reading->seen,
				  spool->receiver.signs.has_begin ? psprintf(INT64_FORMAT, spool->receiver.signs.begin) : NULL,
				  witnesses(table, spool), applied->written, applied->deleted,
				  bcmig_state_name(stored->state), reading->incarnation) == 0)
	{
		if (bcmig_sql("SELECT FROM bcmig.table_state WHERE table_id = $1 AND state = $2", "it",
					  table->table_id, bcmig_state_name(stored->state)) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_WRONG_STATE),
					 errmsg("the state of %s changed while a window was applied", table->target_name)));
		bcmig_state_outlived(table->table_id);
		bcmig_catalog_end(&scope);
		return;
	}
	bcmig_catalog_end(&scope);

	if (rows > 0)
	{
		bcmig_log_batch(work, "window", started, "Completed", rows, applied, stored, reading, NULL);
		bcmig_quarantine_settle(table, spool, started);
		reason = bcmig_ladder(table, started, applied);
		if (reason != NULL)
		{
			bcmig_state_suspend(table, reason);
			*suspended = true;
		}
	}
}

static void
publish_window(BcmigWork *work, int64 rows, const BcmigReading *reading, const BcmigApplied *applied)
{
	BcmigTable *live;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(work->table->table_id);
	if (live != NULL)
	{
		live->position = reading->horizon;
		live->window_poll = reading->poll;
		/* what follows the first windows (indexes) may fail as well, again and again */
		if (live->state != BCMIG_CATCHING_UP)
			live->failures = 0;
		live->not_before = 0;
		live->unique_retries = 0;
		live->windows++;
		live->bulk = rows > whole_rows(work);
		live->rows_applied += applied->written;
		live->rows_deleted += applied->deleted;
		if (applied->written + applied->deleted > 0)
			live->last_applied_at = GetCurrentTimestamp();
	}
	bcmig_slot->rows_processed += applied->written + applied->deleted;
	LWLockRelease(bcmig_shared->lock);
}

/*
 * May a secondary key be the fault of a torn reading?  Then the next window
 * mends it.
 */
static bool
next_window_may_mend(BcmigWork *work, const ErrorData *edata)
{
	BcmigTable *live;
	bool		may = false;

	bcmig_start_transaction();
	may = bcmig_is_secondary_key_error(work->table, edata);
	bcmig_end_transaction();
	if (!may)
		return false;
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(work->table->table_id);
	may = live != NULL && live->unique_retries < UNIQUE_RETRIES;
	if (may)
	{
		live->unique_retries++;
		live->not_before = TimestampTzPlusMilliseconds(bcmig_steady_time(), 100 * live->unique_retries);
	}
	LWLockRelease(bcmig_shared->lock);
	return may;
}

bool
bcmig_apply_spool(BcmigWork *work, BcmigSpool *spool, BcmigApplied *applied, int64 most_whole,
				  bool window, BcmigLastStep last, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	int64		rows = spool->upserts + spool->deletes;
	volatile bool done = false;

	if (rows <= most_whole)
	{
		ErrorData  *volatile edata = NULL;

		PG_TRY();
		{
			bcmig_start_transaction();
			if (rows > 0)
				bcmig_apply_whole(work->table, spool, applied);
			last(work, spool, applied, arg);
			bcmig_debug_point("window_before_commit");
			bcmig_end_transaction();
			done = true;
		}
		PG_CATCH();
		{
			MemoryContextSwitchTo(caller);
			edata = CopyErrorData();
			if (!bcmig_is_row_error(edata))
				PG_RE_THROW();
			FlushErrorState();
			AbortCurrentTransaction();
			MemoryContextSwitchTo(caller);
		}
		PG_END_TRY();
		if (done)
			return true;
		memset(applied, 0, sizeof(*applied));
		if (window && next_window_may_mend(work, edata))
			return false;
	}

	if (window && rows > most_whole && bcmig_shards_possible(work, spool))
		bcmig_apply_shards(work, spool, bcmig_most_refused(work->table), applied);
	else
		bcmig_apply_batches(work->table, spool, BCMIG_PASSES, window ? bcmig_most_refused(work->table) : 0, applied);
	bcmig_start_transaction();
	last(work, spool, applied, arg);
	bcmig_debug_point("window_before_commit");
	bcmig_end_transaction();
	return true;
}

typedef struct WindowEnd
{
	BcmigStored *stored;
	BcmigReading *reading;
	TimestampTz started;
	bool		suspended;
} WindowEnd;

static void
window_last_step(BcmigWork *work, BcmigSpool *spool, BcmigApplied *applied, void *arg)
{
	WindowEnd  *end = arg;

	move_position(work, spool, end->stored, end->reading, applied, end->started, &end->suspended);
}

static void retry_quarantine(BcmigWork *work, bool unique_only);

static void
resync_table(BcmigWork *work, const char *reason)
{
	bcmig_start_transaction();
	bcmig_state_resync(0, InvalidOid, work->table->table_id, reason);
	bcmig_end_transaction();
	bcmig_publish_state(work->table->table_id, BCMIG_RESYNC);
}

/*
 * First catch-up is done: build what had to wait, then stream.
 */
static void
begin_streaming(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	BcmigCatalogScope scope;
	bool		changed;

	/* stale keys of renamed rows would break the unique keys to be built */
	if (strcmp(table->capture, "rowversion") == 0 && !bcmig_run_sweep(work))
		return;
	bcmig_build_secondary(work);

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	changed = bcmig_sql("UPDATE bcmig.table_state SET state = 'streaming', reason = NULL, since = clock_timestamp() "
						"WHERE table_id = $1 AND state = 'catching_up'", "i", table->table_id) > 0;
	if (changed)
		bcmig_audit("state", table->sync_name, table->target_name, "streaming", NULL);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	if (changed)
		bcmig_publish_state(table->table_id, BCMIG_STREAMING);
}

/* one table of a group */
typedef struct Window
{
	BcmigWork  *work;
	bool		locked;
	bool		open;			/* read, and not yet applied or given up */
	BcmigStored stored;
	BcmigReading reading;
	BcmigSpool *spool;
	BcmigApplied applied;
	WindowEnd	end;
} Window;

/* errors are the table's that is being worked on */
static void
blame(const Window *w)
{
	bcmig_slot->job.table_id = w->work->table->table_id;
}

static void
give_up(Window *w)
{
	bcmig_spool_end(w->spool);
	w->open = false;
}

/* has the manager been told that the next window of this table is a big one? */
static bool
known_big(const BcmigWork *work)
{
	BcmigTable *live;
	bool		big;

	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	live = bcmig_live_table(work->table->table_id);
	big = live != NULL && live->bulk;
	LWLockRelease(bcmig_shared->lock);
	return big;
}

/*
 * Read the changes of one table, in the group's transaction.  A big window is
 * left for a job of its own, which the manager gives only while others are left
 * a worker; until he knows that it is one, or where others wait for it, no more
 * of it is read than tells.
 */
static void
read_window(Window *w, bool alone)
{
	BcmigTableInfo *table = w->work->table;
	int64		most = 0;

	blame(w);
	if (!bcmig_state_load(table->table_id, &w->stored) || !w->stored.has_position ||
		strcmp(table->capture, "snapshot") == 0 ||
		(w->stored.state != BCMIG_STREAMING && w->stored.state != BCMIG_CATCHING_UP))
		return;
	bcmig_slot_phase("window", table->target_name, 0);
	w->end.started = bcmig_forward_time();
	w->end.stored = &w->stored;
	w->end.reading = &w->reading;
	w->spool = bcmig_spool_create();
	if (!alone || (w->work->request_id == 0 && w->stored.state != BCMIG_CATCHING_UP && !known_big(w->work)))
		most = whole_rows(w->work) + 1;
	w->spool->receiver.most = most;
	bcmig_debug_point("window_before_read");
	bcmig_read(w->work, w->work->dialect->window(table, w->stored.from, w->stored.seen, most), 0,
			   &w->spool->receiver);
	w->open = true;

	/* without that number nobody knows whether there is more */
	if (most > 0 && w->work->dialect->counts_changes != NULL && w->work->dialect->counts_changes(table->capture) &&
		!w->spool->receiver.cut && !w->spool->receiver.signs.has_changes)
		ereport(ERROR,
				(errcode(ERRCODE_BM_BLUE),
				 errmsg("blue did not say how many changes of %s it has looked at", table->target_name)));
	if (w->spool->receiver.cut)
	{
		BcmigTable *live;

		give_up(w);
		LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
		live = bcmig_live_table(table->table_id);
		if (live != NULL)
			live->bulk = true;
		LWLockRelease(bcmig_shared->lock);
	}
}

/*
 * May the rows of this window be applied?  If not the table is put into resync
 * or suspended here.
 */
static void
check_window(Window *w)
{
	BcmigTableInfo *table = w->work->table;
	char	   *reason;

	blame(w);
	bcmig_check_same_blue(&w->reading, &w->spool->receiver.signs);
	reason = broken_feed(table, &w->stored, &w->spool->receiver.signs);
	if (reason != NULL)
	{
		give_up(w);
		resync_table(w->work, reason);
		return;
	}
	if (w->spool->upserts + w->spool->deletes > 0)
		bcmig_hear_blue(w->work);
	if ((w->spool->deletes == 0 && table->row_filter == NULL) || w->stored.delete_confirmed)
		return;
	bcmig_start_transaction();

	/* how many of them green has is asked only when it matters; a filter may take any row away */
	reason = bcmig_breaker(w->work, w->spool->deletes + (table->row_filter ? w->spool->upserts : 0), false);
	if (reason != NULL)
		reason = bcmig_breaker(w->work, bcmig_count_deletes(w->work, w->spool), false);
	if (reason != NULL)
		bcmig_state_ask_delete(table, reason);
	bcmig_end_transaction();
	if (reason != NULL)
	{
		give_up(w);
		bcmig_publish_state(table->table_id, BCMIG_SUSPENDED);
	}
}

/*
 * A quiet table costs no write; its position is the blue-wide one.  Traces
 * without rows are deletes a sweep will find, or has found.
 */
static bool
needs_write(const Window *w)
{
	return w->open && (w->spool->upserts + w->spool->deletes > 0 ||
					   w->spool->receiver.signs.ntraces > 0 ||
					   w->stored.state == BCMIG_CATCHING_UP);
}

static void
window_done(Window *w)
{
	if (!w->applied.stopped)
		publish_window(w->work, w->spool->upserts + w->spool->deletes, &w->reading, &w->applied);
	bcmig_count_rows(w->work, &w->applied, 0);

	/* two rows that swapped a unique value may have been in two batches */
	if (w->applied.quarantined > 0 && !w->end.suspended)
		retry_quarantine(w->work, true);
	if (w->end.suspended)
		bcmig_publish_state(w->work->table->table_id, BCMIG_SUSPENDED);
	else if (w->stored.state == BCMIG_CATCHING_UP)
		begin_streaming(w->work);
	give_up(w);
}

/*
 * All windows of the group in one transaction, when they are small and no row
 * is refused.  Returns false when nothing was applied.
 */
static bool
apply_group(Window *windows, int n)
{
	MemoryContext caller = CurrentMemoryContext;
	int64		rows = 0;
	int			writes = 0;
	volatile bool done = false;

	for (int i = 0; i < n; i++)
	{
		if (needs_write(&windows[i]))
		{
			rows += windows[i].spool->upserts + windows[i].spool->deletes;
			writes++;
		}
	}
	if (writes < 2 || rows > whole_rows(windows[0].work))
		return false;

	PG_TRY();
	{
		bcmig_start_transaction();
		for (int i = 0; i < n; i++)
		{
			Window	   *w = &windows[i];

			if (!needs_write(w))
				continue;
			blame(w);
			bcmig_apply_whole(w->work->table, w->spool, &w->applied);
			window_last_step(w->work, w->spool, &w->applied, &w->end);
		}
		bcmig_debug_point("window_before_commit");
		bcmig_end_transaction();
		done = true;
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		if (!bcmig_is_row_error(edata))
			PG_RE_THROW();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(caller);
		for (int i = 0; i < n; i++)
		{
			memset(&windows[i].applied, 0, sizeof(BcmigApplied));
			windows[i].end.suspended = false;
		}
	}
	PG_END_TRY();
	return done;
}

/*
 * A window too big to be one transaction takes long: small ones of other
 * tables may come in between.  What has been given when it is over is done then.
 */
static void
take_aside(bool take)
{
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	bcmig_slot->takes_aside = take;
	LWLockRelease(bcmig_shared->lock);
	bcmig_between_batches = take ? bcmig_run_aside : NULL;
	if (!take)
		bcmig_run_aside();
}

/*
 * Windows of n tables of one sync: one remote transaction reads them all, one
 * local transaction applies them; a group that cannot be applied as one is
 * applied table by table.  A table whose applier lock somebody else holds is
 * left for another time, so that no group waits for another.
 */
void
bcmig_run_windows(BcmigWork **works, int n, bool aside)
{
	Window	   *windows = palloc0(sizeof(Window) * n);
	int			nopen = 0;
	bool		grouped;

	for (int i = 0; i < n; i++)
	{
		Window	   *w = &windows[i];

		w->work = works[i];
		blame(w);
		if (n == 1 && !aside)
		{
			bcmig_applier_lock(w->work, ExclusiveLock);
			w->locked = true;
		}
		else
			w->locked = bcmig_applier_try_lock(w->work, ExclusiveLock);

		/* after the lock and before the remote transaction */
		if (w->locked)
			bcmig_reading(w->work->table->table_id, &w->reading);
	}

	bcmig_start_transaction();
	for (int i = 0; i < n; i++)
	{
		if (windows[i].locked && windows[i].reading.poll > 0)
			read_window(&windows[i], n == 1 && !aside);
	}
	bcmig_end_transaction();
	bcmig_debug_point("window_read");

	for (int i = 0; i < n; i++)
	{
		if (windows[i].open)
			check_window(&windows[i]);
		nopen += windows[i].open;
	}
	grouped = nopen > 1 && apply_group(windows, n);
	for (int i = 0; i < n; i++)
	{
		Window	   *w = &windows[i];

		if (w->open)
		{
			bool		done = grouped || !needs_write(w);

			blame(w);
			if (!done)
			{
				bool		big = !aside && w->spool->upserts + w->spool->deletes > whole_rows(w->work);

				if (big)
					take_aside(true);
				done = bcmig_apply_spool(w->work, w->spool, &w->applied, whole_rows(w->work), true, window_last_step, &w->end);
				if (big)
					take_aside(false);
			}
			if (done)
				window_done(w);
			else
				give_up(w);
		}
		if (w->locked)
			bcmig_applier_unlock(w->work, ExclusiveLock);
	}
}

/* ---- keys by name ---- */

typedef struct RereadEnd
{
	const char *kind;
	TimestampTz started;
} RereadEnd;

static void
reread_last_step(BcmigWork *work, BcmigSpool *spool, BcmigApplied *applied, void *arg)
{
	RereadEnd  *end = arg;

	if (applied->written + applied->deleted + applied->quarantined > 0)
		bcmig_log_batch(work, end->kind, end->started, "Completed",
						spool->upserts + spool->deletes, applied, NULL, NULL, NULL);
	bcmig_quarantine_settle(work->table, spool, end->started);
	if (applied->written + applied->deleted > 0)
		bcmig_state_witness(work->table->table_id, spool->receiver.signs.incarnation,
							spool->receiver.signs.ntraces, spool->receiver.signs.traces);
}

/*
 * Read n keys (nkeys texts each) from blue and make green the same: rows that
 * are there are written, keys that are gone deleted.  Takes the applier lock,
 * so what windows read earlier has been applied and what they read later comes
 * after.
 */
void
bcmig_reread_keys(BcmigWork *work, const char *kind, int n, char **keys,
				  BcmigApplied *applied)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bcmig re-read",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	RereadEnd	end;
	BcmigReading reading;
	BcmigSpool *spool;
	BcmigApplied done = {0};

	end.kind = kind;
	end.started = bcmig_forward_time();
	bcmig_applier_lock(work, ExclusiveLock);
	bcmig_reading(work->table->table_id, &reading);
	bcmig_debug_point("retry_before_read");
	bcmig_start_transaction();
	spool = bcmig_spool_create();
	bcmig_read(work, work->dialect->rows_by_key(work->table, n, keys), 0, &spool->receiver);
	bcmig_end_transaction();
	bcmig_check_same_blue(&reading, &spool->receiver.signs);
	bcmig_hear_blue(work);
	(void) bcmig_apply_spool(work, spool, &done, whole_rows(work), false, reread_last_step, &end);
	bcmig_spool_end(spool);
	bcmig_applier_unlock(work, ExclusiveLock);
	applied->written += done.written;
	applied->deleted += done.deleted;
	applied->quarantined += done.quarantined;

	/* a row that still fails was counted when it failed first */
	if (strcmp(kind, "retry") == 0)
		done.quarantined = 0;
	bcmig_count_rows(work, &done, 0);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}

/*
 * Re-read the rows of the table's quarantine, or those of the request's ids;
 * unique_only: those a unique key has refused.
 */
static void
retry_quarantine(BcmigWork *work, bool unique_only)
{
	BcmigTableInfo *table = work->table;
	MemoryContext caller = CurrentMemoryContext;
	int64		after = 0;
	BcmigApplied applied = {0};
	TimestampTz begun = bcmig_forward_time();

	bcmig_slot_phase("retry", table->target_name, 0);
	for (;;)
	{
		BcmigCatalogScope scope;
		char	  **keys;
		int			n;

		bcmig_start_transaction();
		bcmig_quarantine_count(table);
		bcmig_catalog_begin(&scope);
		bcmig_sql("SELECT q.quarantine_id, ARRAY(SELECT jsonb_array_elements_text(q.key)) FROM bcmig.quarantine q "
				  "WHERE q.table_id = $1 AND q.quarantine_id > $2 AND q.last_seen < $4 "
				  "AND (NOT $6 OR q.sqlstate = '23505') "
				  "AND coalesce((SELECT r.ids IS NULL OR q.quarantine_id = ANY (r.ids) FROM bcmig.request r WHERE r.request_id = $3), true) "
				  "ORDER BY q.quarantine_id LIMIT $5",
				  "iIIzib", table->table_id, after, work->request_id, begun, RETRY_KEYS, unique_only);
		n = SPI_processed;
		keys = MemoryContextAlloc(caller, sizeof(char *) * Max(n * table->nkeys, 1));
		for (int i = 0; i < n; i++)
		{
			char	  **key = bcmig_get_texts(i, 2, table->nkeys, caller);

			after = bcmig_get_int64(i, 1, 0);
			if (key == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_BM_WRONG_STATE),
						 errmsg("quarantine entry " INT64_FORMAT " was made with another key", after),
						 errhint("SELECT bcmig_resync_table(%s, %s); then discard the entry.",
								 quote_literal_cstr(table->sync_name), quote_literal_cstr(table->target_name))));
			memcpy(&keys[i * table->nkeys], key, sizeof(char *) * table->nkeys);
		}
		bcmig_catalog_end(&scope);
		bcmig_end_transaction();
		if (n == 0)
			break;
		bcmig_reread_keys(work, "retry", n, keys, &applied);
	}

	bcmig_start_transaction();
	bcmig_quarantine_count(table);
	bcmig_end_transaction();
}

void
bcmig_run_retry(BcmigWork *work)
{
	retry_quarantine(work, false);
}

void
bcmig_retry_unique(BcmigWork *work)
{
	retry_quarantine(work, true);
}
