/*-------------------------------------------------------------------------
 *
 * cleanup.c
 *	  What grows with every batch is kept bounded.
 *
 * Once a minute the manager takes away rows of bcmig.sync_batch and cleared
 * alerts that are older than bcmig.sync_batch_retention, and folds marks of
 * written chunks.  Each step is one transaction of at most CLEANUP_ROWS rows,
 * which finds them through an index or in a table that is itself bounded; when
 * there is more, the next step comes at once, between two rounds of the
 * manager.  Space is given back by autovacuum and used again.
 *
 * Not here: bcmig.metric (src/report/metrics.c), what blue records of its
 * changes (bcmig_blue.expire(), by the poller).  Never taken away: quarantine,
 * conflicts, journal and audit log.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "manager.h"

#include "catalog.h"

#define LADDER_MINUTES	10		/* of sync_batch that are always kept: the ladder counts them */
#define CLEANUP_ROWS		10000	/* in one transaction */
#define FOLD_MARKS		100000	/* marks made since the last time */

/* how many rows dirty_chunk had ever got when it was folded last; -1 = not by this manager */
static int64 marks_folded = -1;

/*
 * The oldest batches stand first in the key; no more than one transaction's are
 * looked at.  Returns whether there are more.
 */
static bool
prune_batches(void)
{
	if (bcmig_sync_batch_retention == 0)
		return false;
	bcmig_sql("DELETE FROM bcmig.alert_log WHERE cleared_at < now() - $1 * interval '1 minute'",
			  "i", bcmig_sync_batch_retention);
	return bcmig_sql("DELETE FROM bcmig.sync_batch WHERE batch_id IN (SELECT b.batch_id FROM "
					 " (SELECT batch_id, started_at FROM bcmig.sync_batch ORDER BY batch_id LIMIT $2) b "
					 " WHERE b.started_at < now() - $1 * interval '1 minute')",
					 "ii", Max(bcmig_sync_batch_retention, LADDER_MINUTES), CLEANUP_ROWS) == CLEANUP_ROWS;
}

/*
 * A window marks each chunk it writes to; where nobody validates, nobody takes
 * the marks away.  Marks of the same chunk become one, with the id of this
 * transaction: a comparison takes a mark away when its snapshot shows that
 * transaction, and then it shows all that this one has seen.  One that is under
 * way finds the marks it knows gone and leaves the new one, so the chunk is
 * compared once more.  Returns whether there are more.
 */
static bool
fold_marks(void)
{
	int64		made;
	int64		folded;

	bcmig_sql("SELECT pg_stat_get_tuples_inserted('bcmig.dirty_chunk'::regclass)", "");
	made = bcmig_get_int64(0, 1, 0);
	if (marks_folded >= 0 && made >= marks_folded && made - marks_folded < FOLD_MARKS)
		return false;
	bcmig_sql("WITH d AS (DELETE FROM bcmig.dirty_chunk WHERE ctid = ANY (ARRAY(SELECT x.ctid FROM "
			  "  (SELECT ctid, count(*) OVER (PARTITION BY table_id, generation, chunk) AS n FROM bcmig.dirty_chunk) x "
			  "  WHERE x.n > 1 LIMIT $1)) RETURNING table_id, generation, chunk), "
			  "f AS (INSERT INTO bcmig.dirty_chunk (table_id, generation, chunk) SELECT DISTINCT table_id, generation, chunk FROM d) "
			  "SELECT count(*) FROM d", "i", FOLD_MARKS);
	folded = bcmig_get_int64(0, 1, 0);
	if (folded == FOLD_MARKS)
		return true;
	marks_folded = made;
	return false;
}

bool
bcmig_clean_up(void)
{
	static bool (*const steps[]) (void) = {prune_batches, fold_marks};
	BcmigCatalogScope scope;
	bool		more = false;

	for (int i = 0; i < lengthof(steps); i++)
	{
		bcmig_start_transaction();
		bcmig_catalog_begin(&scope);
		bcmig_brief_locks();
		more |= steps[i] ();
		bcmig_catalog_end(&scope);
		bcmig_end_transaction();
	}
	return more;
}
