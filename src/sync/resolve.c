/*-------------------------------------------------------------------------
 *
 * resolve.c
 *	  Conflicts that wait for a person, and what the person says.
 *
 * For green nothing moves: the record is decided, the journal entries go on
 * waiting to be brought to blue.  For blue its row is read again, under the
 * applier lock and by the same code as a window's, since the record may be
 * older than blue is by then; record and entries are settled in the transaction
 * that writes the row.  A crash before that repeats the request.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "conflict.h"
#include "worker.h"

#include "call.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "slot.h"
#include "utils/array.h"
#include "utils/builtins.h"

BCMIG_FUNCTION(bcmig_resolve_conflict);

/* what the session needs to know of a conflict */
typedef struct Waiting
{
	int			table_id;
	char	   *sync_name;
	Oid			owner;
	bool		running;
	char	   *target;
	char	   *key;
	char	   *decision;
	bool		asked;
} Waiting;

/* in a catalogue scope; locks the record against the worker that decides it */
static void
load_waiting(int64 id, Waiting *w)
{
	if (bcmig_sql("SELECT c.table_id, y.name, y.owner::oid, y.wanted = 'running', format('%I.%I', t.target_schema, t.target_table), "
				  " c.key::text, c.decision, EXISTS (SELECT FROM bcmig.request r WHERE r.kind = 'resolve' AND c.conflict_id = ANY (r.ids)) "
				  "FROM bcmig.conflict c JOIN bcmig.sync_table t USING (table_id) JOIN bcmig.sync y ON y.sync_id = t.sync_id "
				  "WHERE c.conflict_id = $1 FOR UPDATE OF c", "I", id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("there is no conflict " INT64_FORMAT " of a table that is synced", id),
				 errhint("SELECT conflict_id, key, blue, green FROM bcmig.conflict WHERE decision IS NULL;")));
	w->table_id = bcmig_get_int64(0, 1, 0);
	w->sync_name = bcmig_get_text(0, 2);
	w->owner = bcmig_get_int64(0, 3, 0);
	w->running = bcmig_get_bool(0, 4);
	w->target = bcmig_get_text(0, 5);
	w->key = bcmig_get_text(0, 6);
	w->decision = bcmig_get_text(0, 7);
	w->asked = bcmig_get_bool(0, 8);
}

/*
 * bcmig_resolve_conflict(id, winner)
 */
Datum
bcmig_resolve_conflict(PG_FUNCTION_ARGS)
{
	char	   *winner = bcmig_arg_text(fcinfo, 1, "winner");
	bool		source = strcmp(winner, "source") == 0;
	int64		id;
	Waiting		w;
	BcmigCatalogScope scope;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"id\" must not be NULL"),
				 errhint("SELECT conflict_id, key, blue, green FROM bcmig.conflict WHERE decision IS NULL;")));
	id = PG_GETARG_INT64(0);
	if (!source && strcmp(winner, "target") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("winner cannot be \"%s\"", winner),
				 errdetail("Expected source (blue's row) or target (green's row)."),
				 errhint("SELECT bcmig_resolve_conflict(" INT64_FORMAT ", 'source');", id)));

	bcmig_catalog_begin(&scope);
	load_waiting(id, &w);
	bcmig_restore_user(&scope);
	bcmig_check_member(w.owner, "sync", w.sync_name);
	bcmig_become_catalog_owner(&scope);
	if (w.decision != NULL || w.asked)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 w.decision != NULL ? errmsg("conflict " INT64_FORMAT " has been decided: %s", id, w.decision) :
				 errmsg("conflict " INT64_FORMAT " is being decided for blue", id),
				 errhint("SELECT * FROM bcmig.conflict WHERE conflict_id = " INT64_FORMAT ";", id)));
	if (source && !w.running)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" is not running", w.sync_name),
				 errdetail("The row is read again from blue by its workers."),
				 errhint("SELECT bcmig_start_sync(%s);", quote_literal_cstr(w.sync_name))));
	if (source)
		bcmig_sql("INSERT INTO bcmig.request (sync_id, table_id, kind, ids) SELECT sync_id, table_id, 'resolve', ARRAY[conflict_id] "
				  "FROM bcmig.conflict WHERE conflict_id = $1", "I", id);
	else
		bcmig_sql("UPDATE bcmig.conflict SET decision = 'target', decided_at = clock_timestamp(), decided_by = session_user "
				  "WHERE conflict_id = $1", "I", id);
	bcmig_audit("command", w.sync_name, w.target, "bcmig_resolve_conflict",
				psprintf("conflict " INT64_FORMAT ", key %s: %s", id, w.key, winner));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * The conflicts of the present request that still wait: ids, and keys for
 * blue, in the caller's memory context.
 */
static char **
requested(const BcmigWork *work, BcmigForced *forced)
{
	MemoryContext caller = CurrentMemoryContext;
	int			nkeys = work->table->nkeys;
	BcmigCatalogScope scope;
	char	  **keys;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	forced->n = bcmig_sql("SELECT c.conflict_id, ARRAY(SELECT jsonb_array_elements_text(c.key)), r.requested_by "
						  "FROM bcmig.request r JOIN bcmig.conflict c ON c.conflict_id = ANY (r.ids) AND c.table_id = r.table_id "
						  "WHERE r.request_id = $1 AND c.decision IS NULL", "I", work->request_id);
	MemoryContextSwitchTo(caller);
	forced->ids = palloc(sizeof(int64) * Max(forced->n, 1));
	keys = palloc(sizeof(char *) * Max(forced->n * nkeys, 1));
	for (int i = 0; i < forced->n; i++)
	{
		char	  **key = bcmig_get_texts(i, 2, nkeys, caller);

		forced->ids[i] = bcmig_get_int64(i, 1, 0);
		forced->by = bcmig_get_text(i, 3);
		if (key == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_WRONG_STATE),
					 errmsg("conflict " INT64_FORMAT " was found with another key", forced->ids[i]),
					 errhint("SELECT bcmig_resolve_conflict(" INT64_FORMAT ", 'target');", forced->ids[i])));
		memcpy(&keys[i * nkeys], key, sizeof(char *) * nkeys);
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return keys;
}

void
bcmig_run_resolve(BcmigWork *work)
{
	BcmigForced forced;
	char	  **keys;
	BcmigApplied applied = {0};
	BcmigCatalogScope scope;

	bcmig_slot_phase("resolve", work->table->target_name, 0);
	keys = requested(work, &forced);
	if (forced.n == 0)
		return;

	/* an error ends the process, and this with it */
	bcmig_forced_conflicts = &forced;
	bcmig_reread_keys(work, "resolve", forced.n, keys, &applied);
	bcmig_forced_conflicts = NULL;

	/*
	 * What still waits met no entry any more and was simply written, or is in
	 * quarantine.
	 */
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	for (int i = 0; i < forced.n; i++)
		bcmig_sql("UPDATE bcmig.conflict c SET decision = CASE WHEN q.message IS NULL THEN 'source' END, "
				  " decided_at = CASE WHEN q.message IS NULL THEN clock_timestamp() END, "
				  " decided_by = CASE WHEN q.message IS NULL THEN $2 END, "
				  " detail = coalesce('blue''s row is in quarantine: ' || q.message, c.detail) "
				  "FROM bcmig.conflict x LEFT JOIN bcmig.quarantine q ON q.table_id = x.table_id AND q.key = x.key "
				  "WHERE x.conflict_id = c.conflict_id AND c.conflict_id = $1 AND c.decision IS NULL",
				  "It", forced.ids[i], forced.by);
	bcmig_audit("state", work->table->sync_name, work->table->target_name, "conflict resolved for blue",
				psprintf(INT64_FORMAT " written, " INT64_FORMAT " deleted, " INT64_FORMAT " in quarantine",
						 applied.written, applied.deleted, applied.quarantined));
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}
