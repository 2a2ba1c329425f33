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

#include "access/xact.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "options.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "readable.h"
#include "remote.h"
#include "slot.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define TABLES_AT_A_TIME	100
#define POLL_WAIT			100		/* ms */
#define POLL_WAITS			50

/*
 * Returns what is configured for it; *made_target: the green table is new.
 */
static BcmigTableInfo *
make_table(int table_id, bool *made_target)
{
	BcmigTableInfo *table = bcmig_load_table(table_id);
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT made_target FROM bcmig.sync_table WHERE table_id = $1", "i", table_id);
	*made_target = bcmig_get_bool(0, 1);
	bcmig_catalog_end(&scope);
	if (*made_target)
	{
		bcmig_make_target(table);
		bcmig_compress_target(table->table_id);
	}

	bcmig_catalog_begin(&scope);
	bcmig_make_feed(table);
	bcmig_sql("UPDATE bcmig.table_state SET made = true WHERE table_id = $1", "i", table_id);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	return table;
}

void
bcmig_make_table(int table_id)
{
	bool		made_target;

	(void) make_table(table_id, &made_target);
}

/* ---- tables without rows ---- */

/*
 * A company has thousands of tables that hold nothing.  Blue says of a hundred
 * at a time which have rows; one that has none is complete to the horizon read
 * before that question, as a copy of no rows would be, and streams at once.  Only
 * where blue's word on what moved is exact, and only with a reading of a poll
 * that watched the table already: "since" is the poll before the job began.
 */
typedef struct Empties
{
	BcmigReading reading;		/* older than the answer */
	uint64		since;
	List	   *with_rows;		/* BcmigName */
	bool		known;
} Empties;

static uint64
current_poll(int table_id)
{
	BcmigReading reading;

	bcmig_reading(table_id, &reading);
	return reading.poll;
}

/*
 * Wait for a poll that began after the job did; polls are a second apart at
 * most.  False: it does not come.
 */
static bool
wait_for_poll(Empties *e, int table_id)
{
	for (int i = 0; i < POLL_WAITS; i++)
	{
		CHECK_FOR_INTERRUPTS();
		bcmig_reading(table_id, &e->reading);
		if (e->reading.poll >= e->since + 2)
			return e->reading.reachable;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, POLL_WAIT, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		if (bcmig_slot->stop)
			return false;
	}
	return false;
}

/* the statement, and the feed to run it through; NULL = not for this kind of blue */
static char *
question(int n, const int *ids, Oid *feed)
{
	const BcmigDialect *dialect;
	List	   *names = NIL;

	*feed = InvalidOid;
	for (int i = 0; i < n; i++)
	{
		BcmigTableInfo *table = bcmig_load_table(ids[i]);

		if (table == NULL)
			continue;
		names = lappend(names, bcmig_name(table->source_schema, table->source_table));
		*feed = bcmig_text_feed(table->environment_id);
	}
	if (names == NIL)
		return NULL;
	dialect = bcmig_dialect_of_server(GetForeignTable(*feed)->serverid);
	return dialect->with_rows != NULL ? dialect->with_rows(names) : NULL;
}

static void
take_answer(Empties *e, List *rows)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		char	  **row = lfirst(lc);

		if (bcmig_answer_is(row, "rows"))
			e->with_rows = lappend(e->with_rows, bcmig_name(bcmig_answer_text(row, 1), bcmig_answer_text(row, 2)));
		else
			e->known = bcmig_answer_int64(row, 1) == e->reading.incarnation;
	}
}

/*
 * Ask.  What goes wrong here will go wrong again where the table at fault is
 * copied, and be said of that table; but the wrapper may have leaked its
 * connection, so this process ends after its job.
 */
static void
ask_for_rows(Empties *e, int n, const int *ids)
{
	MemoryContext context = CurrentMemoryContext;
	char	   *statement;
	Oid			feed;

	e->known = false;
	e->with_rows = NIL;
	if (!wait_for_poll(e, ids[0]))
		return;
	bcmig_start_transaction();
	MemoryContextSwitchTo(context);
	statement = question(n, ids, &feed);
	PG_TRY();
	{
		if (statement != NULL)
			take_answer(e, bcmig_remote_texts(feed, statement));
		bcmig_end_transaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		bcmig_remote_running = false;
		e->known = false;
		bcmig_slot->stop = true;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
}

static bool
is_empty(const Empties *e, const BcmigTableInfo *table)
{
	ListCell   *lc;

	if (!e->known || !table->copy_data || strcmp(table->capture, "change_tracking") != 0)
		return false;
	foreach(lc, e->with_rows)
	{
		BcmigName  *name = lfirst(lc);

		if (strcmp(name->schema, table->source_schema) == 0 && strcmp(name->name, table->source_table) == 0)
			return false;
	}
	return true;
}

/* in the transaction that makes the table */
static void
stream_at_once(const Empties *e, const BcmigTableInfo *table)
{
	BcmigCatalogScope scope;

	bcmig_build_secondary_now(table);
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.table_state SET state = 'streaming', since = clock_timestamp(), position = $2, seen = $3, incarnation = $4, "
			  " copy_mode = 'load', all_chunks = true, rows_total = 0, copy_started = clock_timestamp(), "
			  " copy_finished = clock_timestamp() WHERE table_id = $1",
			  "iItI", table->table_id, e->reading.horizon, e->reading.seen, e->reading.incarnation);
	bcmig_audit("state", table->sync_name, table->target_name, "streaming", "blue has no rows of it");
	bcmig_catalog_end(&scope);
}

static void
publish(const Empties *e, int n, const int *ids)
{
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < n; i++)
	{
		BcmigTable *live = bcmig_live_table(ids[i]);

		if (live == NULL)
			continue;
		live->state = BCMIG_STREAMING;
		live->position = e->reading.horizon;
		live->window_poll = e->reading.poll;
		live->failures = 0;
		live->version = ++bcmig_shared->publications;
	}
	LWLockRelease(bcmig_shared->lock);
}

/* ---- readable views ---- */

static bool
views_wanted(Jsonb *options)
{
	BcmigCatalogScope scope;
	bool		wanted;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	wanted = strcmp(bcmig_option_value("views", NULL, options), "true") == 0;
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return wanted;
}

/*
 * What the views are about to be made for.  Who changes a mapping meanwhile leaves
 * NULL, which views_are_made() must not write over.
 */
static void
views_are_due(int sync_id)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.sync_state s SET views_made = concat('making ', " BCMIG_VIEWS_KEY ") FROM bcmig.sync y "
			  "WHERE y.sync_id = s.sync_id AND s.sync_id = $1", "i", sync_id);
	bcmig_catalog_end(&scope);
}

static void
views_are_made(int sync_id, const char *sync_name, const char *error)
{
	BcmigCatalogScope scope;
	bool		valid;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	valid = bcmig_sql("UPDATE bcmig.sync_state SET views_made = nullif(substr(views_made, length('making ') + 1), '') "
					  "WHERE sync_id = $1 AND views_made LIKE 'making %'", "i", sync_id) > 0;
	/* else they are made again, and may have failed for that very change */
	if (valid && error != NULL)
		bcmig_audit("error", sync_name, NULL, "make views", error);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

/*
 * Views and grants the sync's options ask for, when all its tables are there: a
 * FlowField reads other tables.  What goes wrong here stops no table: it is
 * written down, and bcmig.make_views() is there to try again.
 */
static void
make_views(int sync_id)
{
	MemoryContext context = CurrentMemoryContext;
	BcmigSync  *volatile sync = NULL;
	char	   *volatile error = NULL;

	PG_TRY();
	{
		int			after = 0;
		int			n = TABLES_AT_A_TIME;
		Jsonb	   *options;

		bcmig_start_transaction();
		MemoryContextSwitchTo(context);
		sync = bcmig_read_sync(sync_id);
		options = sync ? sync->options : NULL;
		views_are_due(sync_id);
		bcmig_end_transaction();
		while (options != NULL && n == TABLES_AT_A_TIME && views_wanted(options))
		{
			bcmig_start_transaction();
			n = bcmig_make_views(sync, &after, TABLES_AT_A_TIME);
			bcmig_end_transaction();
		}
		if (options != NULL)
		{
			bcmig_start_transaction();
			bcmig_grant_select(sync);
			bcmig_end_transaction();
		}
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();
		if (ProcDiePending)
			proc_exit(1);
		MemoryContextSwitchTo(context);
		error = psprintf("%s: %s%s%s", unpack_sql_state(edata->sqlerrcode), edata->message,
						 edata->hint ? "; " : "", edata->hint ? edata->hint : "");
	}
	PG_END_TRY();
	bcmig_debug_point("views_made");
	if (sync != NULL)
		views_are_made(sync_id, sync->name, error);
}

/* ---- the job ---- */

/* does this table wait for another try after a failure? */
static bool
backs_off(int table_id)
{
	BcmigTable *live;
	bool		waits;

	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	live = bcmig_live_table(table_id);
	waits = live == NULL || live->stopping || live->not_before > bcmig_steady_time();
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
	Empties		empties = {0};
	int			after = 0;
	int			n;

	empties.since = current_poll(*current);
	do
	{
		BcmigCatalogScope scope;
		int			ids[TABLES_AT_A_TIME];
		int			streaming[TABLES_AT_A_TIME];
		int			nstreaming = 0;

		MemoryContextReset(context);
		bcmig_slot_phase("make tables", NULL, 0);
		bcmig_start_transaction();
		bcmig_catalog_begin(&scope);
		n = bcmig_sql("SELECT t.table_id FROM bcmig.sync_table t JOIN bcmig.table_state s USING (table_id) "
					  "WHERE t.sync_id = $1 AND NOT s.made AND s.state = 'pending' AND t.table_id > $2 "
					  "ORDER BY t.table_id LIMIT $3", "iii", sync_id, after, TABLES_AT_A_TIME);
		for (int i = 0; i < n; i++)
			ids[i] = bcmig_get_int64(i, 1, 0);
		bcmig_catalog_end(&scope);
		bcmig_end_transaction();
		if (n == 0)
			break;
		MemoryContextSwitchTo(context);
		ask_for_rows(&empties, n, ids);

		bcmig_start_transaction();
		MemoryContextSwitchTo(context);
		for (int i = 0; i < n; i++)
		{
			BcmigTableInfo *table;
			bool		made_target;

			CHECK_FOR_INTERRUPTS();
			after = ids[i];
			if (backs_off(ids[i]))
				continue;
			*current = ids[i];
			table = make_table(ids[i], &made_target);
			if (made_target && is_empty(&empties, table))
			{
				stream_at_once(&empties, table);
				streaming[nstreaming++] = ids[i];
			}
		}
		bcmig_debug_point("make_before_commit");
		bcmig_end_transaction();
		publish(&empties, nstreaming, streaming);
		bcmig_wake_manager(MyDatabaseId);
	} while (n == TABLES_AT_A_TIME && !bcmig_slot->stop);
	MemoryContextReset(context);
	MemoryContextSwitchTo(context);
	if (!bcmig_slot->stop)
		make_views(sync_id);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}
