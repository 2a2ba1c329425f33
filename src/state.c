/*-------------------------------------------------------------------------
 *
 * state.c
 *	  The state and position of one table: stored, effective, published.
 *
 * The stored truth is bcmig.table_state.  A streaming table that does not move
 * costs no write: while its blue goes on, it is complete to the position of
 * the blue as a whole, which the poller stores once a minute together with the
 * tables that were dirty then (bcmig.blue_position).  So the position a window
 * starts from is the later of the two.
 *
 * Transitions write the row and, after commit, the live entry.  A transition
 * made by somebody else while a window runs is noticed because the window's
 * own update names the state it began in.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "state.h"

#include "access/xact.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "slot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define MOST_WITNESSES	10	/* lines of bcmig.table_state.witness */

bool
bcmig_state_load(int table_id, BcmigStored *stored)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	bool		found;

	memset(stored, 0, sizeof(*stored));
	bcmig_catalog_begin(&scope);
	found = bcmig_sql("SELECT s.state, "
					  " CASE WHEN b.ahead THEN b.horizon ELSE s.position END, "
					  " CASE WHEN s.reread_from IS NOT NULL THEN NULL WHEN b.ahead THEN b.seen ELSE s.seen END, "
					  " s.begin_version, s.copy_mode, s.all_chunks, s.delete_confirmed, s.rows_total, "
					  " coalesce(s.incarnation <> b.incarnation_hash, false), s.reread_from "
					  "FROM bcmig.table_state s JOIN bcmig.sync_table t USING (table_id) "
					  "JOIN bcmig.sync y USING (sync_id) "
					  "LEFT JOIN LATERAL (SELECT p.horizon, p.seen, p.incarnation_hash, "
					  "   s.state = 'streaming' AND t.capture <> 'snapshot' AND p.horizon > s.position AND NOT s.table_id = ANY (p.dirty) AS ahead "
					  " FROM bcmig.blue_position p "
					  " WHERE p.environment_id = y.environment_id AND p.owner = y.owner::oid) b ON true "
					  "WHERE s.table_id = $1", "i", table_id) > 0;
	if (found)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(caller);
		char	   *position = bcmig_get_text(0, 2);

		stored->state = bcmig_state_value(bcmig_get_text(0, 1));
		stored->has_position = position != NULL;
		stored->position = bcmig_get_int64(0, 2, 0);
		stored->seen = bcmig_get_text(0, 3);
		stored->begin_version = bcmig_get_text(0, 4);
		stored->copy_mode = bcmig_get_text(0, 5);
		stored->all_chunks = bcmig_get_bool(0, 6);
		stored->delete_confirmed = bcmig_get_bool(0, 7);
		stored->rows_total = bcmig_get_int64(0, 8, 0);
		stored->other_blue = bcmig_get_bool(0, 9);
		stored->from = Min(stored->position, bcmig_get_int64(0, 10, PG_INT64_MAX));
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	return found;
}

/*
 * It goes back to the state it is in now, which may be another than that in which
 * a job began: a resync that was asked for meanwhile is not to be lost.
 */
static void
suspend(const BcmigTableInfo *table, const char *reason, bool asks_delete)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("UPDATE bcmig.table_state SET state = 'suspended', reason = $2, resume_state = state, "
				  " since = clock_timestamp(), last_error = $2, last_error_at = clock_timestamp(), delete_asked = $3, delete_confirmed = false "
				  "WHERE table_id = $1 AND state <> 'suspended'",
				  "itb", table->table_id, reason, (int) asks_delete) > 0)
		bcmig_audit("state", table->sync_name, table->target_name, "suspended", reason);
	bcmig_catalog_end(&scope);
}

/*
 * Take a table aside until a person looks at it.  Idempotent.
 */
void
bcmig_state_suspend(const BcmigTableInfo *table, const char *reason)
{
	suspend(table, reason, false);
}

/*
 * The same because of a mass delete: only then does bcmig_resume_table() take it
 * as meant.
 */
void
bcmig_state_ask_delete(const BcmigTableInfo *table, const char *reason)
{
	suspend(table, reason, true);
}

/*
 * Put one table (table_id) or all tables of a blue (table_id 0) into resync:
 * everything is read again and swept, nothing is truncated.  The next job of
 * each table begins it.
 */
void
bcmig_state_resync(int environment_id, Oid owner, int table_id, const char *reason)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("WITH t AS (SELECT t.table_id, y.name, t.target_schema, t.target_table "
			  "  FROM bcmig.sync_table t JOIN bcmig.sync y USING (sync_id) "
			  "  WHERE CASE WHEN $3 <> 0 THEN t.table_id = $3 "
			  "        ELSE y.environment_id = $1 AND y.owner::oid = $2 END), "
			  "c AS (DELETE FROM bcmig.copy_chunk WHERE table_id IN (SELECT table_id FROM t)), "
			  "u AS (UPDATE bcmig.table_state s SET "
			  "   state = CASE s.state WHEN 'suspended' THEN s.state ELSE 'resync' END, "
			  "   resume_state = CASE s.state WHEN 'suspended' THEN 'resync' END, "
			  "   reason = CASE s.state WHEN 'suspended' THEN s.reason ELSE $4 END, "
			  "   since = clock_timestamp(), copy_mode = NULL, frontier = NULL, all_chunks = false, "
			  "   begin_version = NULL, witness = NULL, copy_started = NULL, copy_finished = NULL "
			  "   FROM t WHERE t.table_id = s.table_id AND s.state <> 'pending' RETURNING s.table_id) "
			  "SELECT t.name, format('%I.%I', t.target_schema, t.target_table), $4 FROM t JOIN u USING (table_id)",
			  "ioit", environment_id, owner, table_id, reason);
	bcmig_audit_each("state", "resync");
	bcmig_catalog_end(&scope);
}

void
bcmig_state_outlived(int table_id)
{
	bcmig_state_resync(0, InvalidOid, table_id, "blue restarted before what had been read of it was written");
	bcmig_config_changed();
}

/*
 * Traces are kept beside those of the windows and of the last such readings;
 * the next window that brings some takes their place.
 */
void
bcmig_state_witness(int table_id, int64 incarnation, int n, const int64 *traces)
{
	BcmigCatalogScope scope;
	StringInfoData s;
	bool		outlived;

	if (n == 0)
		return;
	initStringInfo(&s);
	for (int i = 0; i < n; i++)
		appendStringInfo(&s, "%s" INT64_FORMAT, i ? "," : "{\"x\":[", traces[i]);
	appendStringInfoString(&s, "]}");
	bcmig_catalog_begin(&scope);

	/* the lock: who takes over positions for another incarnation sees this witness, or is seen here */
	outlived = bcmig_sql("SELECT incarnation FROM bcmig.table_state WHERE table_id = $1 FOR NO KEY UPDATE", "i", table_id) > 0 &&
		bcmig_get_int64(0, 1, incarnation) != incarnation;
	if (outlived)
		bcmig_state_outlived(table_id);
	bcmig_sql("UPDATE bcmig.table_state s SET witness = jsonb_build_array($2) || "
			  " coalesce((SELECT jsonb_agg(w.e ORDER BY w.n) FROM jsonb_array_elements(s.witness) WITH ORDINALITY w (e, n) WHERE w.n < $3 AND w.e <> $2), '[]') "
			  "WHERE table_id = $1 AND s.witness -> 0 IS DISTINCT FROM $2",
			  "iji", table_id, s.data, MOST_WITNESSES);
	bcmig_catalog_end(&scope);
	pfree(s.data);
}

void
bcmig_reading(int table_id, BcmigReading *reading)
{
	BcmigTable *live;
	char		seen[BCMIG_SNAPSHOT_TEXT];

	memset(reading, 0, sizeof(*reading));
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	live = bcmig_live_table(table_id);
	if (live != NULL && live->blue >= 0)
	{
		BcmigBlue  *blue = &bcmig_shared->blues[live->blue];

		reading->poll = blue->poll;
		reading->horizon = blue->horizon;
		reading->incarnation = blue->incarnation;
		reading->reachable = blue->reachable;
		strlcpy(seen, blue->seen, sizeof(seen));
	}
	LWLockRelease(bcmig_shared->lock);
	if (reading->poll > 0 && seen[0] != '\0')
		reading->seen = pstrdup(seen);
}

void
bcmig_publish_state(int table_id, BcmigTableState state)
{
	BcmigTable *live;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	live = bcmig_live_table(table_id);
	if (live != NULL)
	{
		live->state = state;
		if (state == BCMIG_STREAMING)
			live->failures = 0;
		live->version = ++bcmig_shared->publications;
		if (state != BCMIG_STREAMING)
			live->window_poll = 0;
	}
	LWLockRelease(bcmig_shared->lock);
}
