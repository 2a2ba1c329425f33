/*-------------------------------------------------------------------------
 *
 * make.c
 *	  Green tables and feeds of added tables.
 *
 * bcmig_add_table makes its one table at once.  A company may have thousands:
 * they are made by a worker once the sync runs, a hundred in a transaction,
 * which the locks of a server with default settings suffice for; until then
 * bcmig.column_map may be edited.  Tables are copied as soon as they are there.
 *
 * A crash loses the batch under way, which the next job makes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"
#include "worker.h"

#include "miscadmin.h"
#include "slot.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define TABLES_AT_A_TIME	100

void
bcmig_make_table(int table_id)
{
	BcmigTableInfo *table = bcmig_load_table(table_id);
	BcmigCatalogScope scope;
	bool		make_target;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT made_target FROM bcmig.sync_table WHERE table_id = $1", "i", table_id);
	make_target = bcmig_get_bool(0, 1);
	bcmig_catalog_end(&scope);
	if (make_target)
		bcmig_make_target(table);

	bcmig_catalog_begin(&scope);
	bcmig_make_feed(table);
	bcmig_sql("UPDATE bcmig.table_state SET made = true WHERE table_id = $1", "i", table_id);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
}

/* does this table wait for another try after a failure? */
static bool
backs_off(int table_id)
{
	BcmigTable *live;
	bool		waits;

	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	live = bcmig_live_table(table_id);
	waits = live == NULL || live->stopping || live->not_before > GetCurrentTimestamp();
	LWLockRelease(bcmig_shared->lock);
	return waits;
}

/*
 * Make all tables of a sync that are not there yet.  *current is the table at
 * work, for whoever handles an error.
 */
void
bcmig_run_make(int sync_id, int *current)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bcmig make", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	int			after = 0;
	int			n;

	do
	{
		BcmigCatalogScope scope;
		int			ids[TABLES_AT_A_TIME];

		MemoryContextReset(context);
		bcmig_start_transaction();
		bcmig_slot_phase("make tables", NULL, 0);
		bcmig_catalog_begin(&scope);
		n = bcmig_sql("SELECT t.table_id FROM bcmig.sync_table t JOIN bcmig.table_state s USING (table_id) "
					  "WHERE t.sync_id = $1 AND NOT s.made AND s.state = 'pending' AND t.table_id > $2 "
					  "ORDER BY t.table_id LIMIT $3", "iii", sync_id, after, TABLES_AT_A_TIME);
		for (int i = 0; i < n; i++)
			ids[i] = bcmig_get_int64(i, 1, 0);
		bcmig_catalog_end(&scope);
		for (int i = 0; i < n; i++)
		{
			CHECK_FOR_INTERRUPTS();
			after = ids[i];
			if (backs_off(ids[i]))
				continue;
			*current = ids[i];
			bcmig_make_table(ids[i]);
		}
		bcmig_end_transaction();
		bcmig_wake_manager(MyDatabaseId);
	} while (n == TABLES_AT_A_TIME && !bcmig_slot->stop);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}
