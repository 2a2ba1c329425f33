/*-------------------------------------------------------------------------
 *
 * poller.c
 *	  One process per (blue, owner): reads blue's clock, top, horizon,
 *	  incarnation and which tables moved.
 *
 * Each poll is a transaction of its own, so that its horizon is older than the
 * snapshot of any window that uses it.  What a poll read is published in
 * shared memory under bcmig_shared->lock, with the moved tables marked in the
 * same section: whoever sees the new horizon sees the marks too.
 *
 * After a start every table of the blue counts as moved, since nobody watched
 * in between; so it does when blue's log of what moved has been expired past
 * the previous poll.
 *
 * Where blue only hints at what moved (write counters), a table counts as moved
 * from the poll that saw its counter change until the horizon has passed the
 * top of that poll: the writer may still be open.  Since a hint may be missing,
 * such tables count as moved every HINTED_INTERVAL anyway, and none of them is
 * ever taken to be at the horizon without a window (BcmigTable.hinted).
 *
 * An error ends the process: the manager starts another one with backoff.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "poller.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "dialect.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "catalog.h"
#include "remote.h"
#include "slot.h"
#include "throttle.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "through.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

extern PGDLLEXPORT void bcmig_poller_main(Datum arg);

#define IDLE_INTERVAL		600 /* ms between polls of an idle blue: a poll is five statements through postgres_fdw */
#define MOST_WAIT			1000	/* ms a poll lets blue wait for something to move */
#define QUIET_BEFORE_IDLE	2000	/* ms without movement before polls slow down */
#define STORE_INTERVAL		60000	/* ms between two writes of bcmig.blue_position */
#define EXPIRE_INTERVAL		60000	/* ms between two calls of blue's expire() */
#define EXPIRE_AGAIN		10000	/* ms, when it has not got to an end: no poll is made while it is at work */
#define HINTED_INTERVAL		15000	/* ms after which tables with hints are read in any case */
#define SCHEMA_INTERVAL		15000	/* ms between two looks at whether tables of blue have changed */
#define BLOCKED_AFTER		1000	/* ms the horizon stands still before we ask who holds it */

static int	blue_index;
static BcmigBlue *blue;
static Oid	feed;
static const BcmigDialect *dialect;

/* the tables blue is asked about; loaded again when configuration changes */
static List *watched = NIL;
static MemoryContext watched_context;
static bool watched_stale = true;
static Oid	sync_table_relid;

/* table -> last counter, and the top the horizon has to pass */
typedef struct Hint
{
	uint64		table;			/* must be first */
	int64		count;
	int64		until;			/* 0 = nothing open */
} Hint;

static HTAB *hints = NULL;

static void
config_invalidated(Datum arg, Oid relid)
{
	if (relid == sync_table_relid || !OidIsValid(relid))
		watched_stale = true;
}

/*
 * Tables of the syncs of this blue and owner.  In a transaction.  Without
 * suspended ones: blue may not have the table any more, and a poll that names
 * it would fail.  Suspending does not make the list stale; the poll that fails
 * ends the process, and the next one loads it anew.
 */
static void
load_watched(void)
{
	BcmigCatalogScope scope;

	watched_stale = false;
	MemoryContextReset(watched_context);
	watched = NIL;
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT coalesce(p.source_schema, t.source_schema), coalesce(p.source_table, t.source_table), t.capture, "
			  " t.source_schema, t.source_table "
			  "FROM bcmig.sync_table t JOIN bcmig.sync y USING (sync_id) JOIN bcmig.table_state s USING (table_id), "
			  " LATERAL (SELECT NULL::text AS source_schema, NULL::text AS source_table "
			  "  UNION ALL SELECT source_schema, source_table FROM bcmig.companion c WHERE c.table_id = t.table_id) p "
			  "WHERE y.environment_id = $1 AND y.owner::oid = $2 AND t.capture <> 'snapshot' AND s.state <> 'suspended' ORDER BY 1, 2",
			  "io", bcmig_slot->environment_id, bcmig_slot->owner);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(watched_context);
		BcmigWatched *w = palloc(sizeof(BcmigWatched));

		w->schema = bcmig_get_text(i, 1);
		w->table = bcmig_get_text(i, 2);
		w->capture = bcmig_get_text(i, 3);
		w->base_schema = bcmig_get_text(i, 4);
		w->base_table = bcmig_get_text(i, 5);
		watched = lappend(watched, w);
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
}

/* feed and dialect of this poller's environment */
static void
find_feed(int environment_id)
{
	ForeignTable *ft;
	char		name[NAMEDATALEN];

	bcmig_start_transaction();
	snprintf(name, sizeof(name), "feed_env_%d", environment_id);
	feed = get_relname_relid(name, get_namespace_oid("bcmig", false));
	if (!OidIsValid(feed))
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("environment %d has no feed", environment_id)));
	ft = GetForeignTable(feed);
	dialect = bcmig_dialect_of_server(ft->serverid);
	sync_table_relid = get_relname_relid("sync_table", get_namespace_oid("bcmig", false));
	bcmig_end_transaction();
}

/* does blue wait for something to move, instead of us? */
static bool
waits(void)
{
	return dialect->can_wait && !blue->refuses_wait && blue->fixed_interval == 0;
}

/* microseconds blue waited on purpose, as a poll says */
static int64
waited_us(char **row)
{
	return bcmig_answer_is(row, "waited") ? bcmig_answer_int64(row, 1) : 0;
}

/*
 * The question of a poll, and how long blue takes for it.  The first one of a
 * process logs in and is planned besides: that is not blue's answer.
 */
static List *
ask_and_measure(char *question)
{
	static bool asked = false;
	instr_time	asked_at;
	int64		us;
	List	   *rows;
	ListCell   *lc;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	bcmig_throttle_asked(blue, waits() ? MOST_WAIT : 0);
	asked_at = blue->throttle.asked_at;
	LWLockRelease(bcmig_shared->lock);

	rows = bcmig_remote_texts(feed, question);
	us = bcmig_age_of(asked_at);
	foreach(lc, rows)
	{
		char	  **row = lfirst(lc);

		if (row[0] != NULL)
			us -= waited_us(row);
	}

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	bcmig_throttle_answered(blue, asked ? Max(us, 0) : -1);
	LWLockRelease(bcmig_shared->lock);
	asked = true;
	return rows;
}

/*
 * Ask blue once.  Result in "context".
 */
static BcmigPoll *
ask_blue(MemoryContext context, const char *previous)
{
	BcmigPoll  *poll;
	List	   *rows;
	ListCell   *lc;
	char	  **first;
	MemoryContext oldcontext;

	bcmig_start_transaction();
	if (watched_stale)
		load_watched();
	oldcontext = MemoryContextSwitchTo(context);
	rows = ask_and_measure(dialect->poll(previous, watched, waits()));
	if (dialect->moved != NULL && rows != NIL)
	{
		foreach(lc, dialect->moved(previous, ((char **) linitial(rows))[4], watched))
			rows = list_concat(rows, bcmig_remote_texts(feed, lfirst(lc)));
	}
	poll = palloc0(sizeof(BcmigPoll));
	poll->moved = palloc(sizeof(uint64) * Max(list_length(rows) + list_length(watched), 1));
	poll->counts = palloc(sizeof(BcmigCount) * Max(list_length(rows), 1));
	MemoryContextSwitchTo(oldcontext);
	bcmig_end_transaction();
	MemoryContextSwitchTo(context);

	first = rows == NIL ? NULL : linitial(rows);
	if (first == NULL || !bcmig_answer_is(first, "poll"))
		ereport(ERROR,
				(errcode(ERRCODE_BM_BLUE),
				 errmsg("blue's answer to a poll is not one bcmig understands")));
	poll->clock = bcmig_answer_int64(first, 1) -
		(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	poll->horizon = bcmig_answer_int64(first, 2);
	poll->top = bcmig_answer_int64(first, 3);
	poll->seen = first[4] ? first[4] : "";
	poll->incarnation = bcmig_answer_int64(first, 5);
	poll->incarnation_text = bcmig_answer_text(first, 6);
	poll->floor = first[7] ? bcmig_answer_int64(first, 7) : 0;
	for_each_from(lc, rows, 1)
	{
		char	  **row = lfirst(lc);

		poll->waited += waited_us(row);
		if (bcmig_answer_is(row, "moved"))
			poll->moved[poll->nmoved++] = bcmig_source_hash(bcmig_answer_text(row, 1), bcmig_answer_text(row, 2));
		else if (bcmig_answer_is(row, "all"))
			poll->all_moved = true;
		else if (bcmig_answer_is(row, "count") && row[3] != NULL)
		{
			poll->counts[poll->ncounts].table = bcmig_source_hash(bcmig_answer_text(row, 1), bcmig_answer_text(row, 2));
			poll->counts[poll->ncounts++].count = bcmig_answer_int64(row, 3);
		}
	}
	return poll;
}

/*
 * Turn hints into moved tables; "all": the slow interval is over.
 */
static void
take_hints(BcmigPoll *poll, bool all)
{
	ListCell   *lc;

	if (hints == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(uint64);
		ctl.entrysize = sizeof(Hint);
		hints = hash_create("bcmig hints", 128, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	for (int i = 0; i < poll->ncounts; i++)
	{
		bool		found;
		Hint	   *hint = hash_search(hints, &poll->counts[i].table, HASH_ENTER, &found);

		/* a new one is moved already: it has just become known */
		if (!found)
			hint->until = 0;
		else if (hint->count != poll->counts[i].count)
			hint->until = poll->top;
		hint->count = poll->counts[i].count;
		if (hint->until > 0)
		{
			poll->moved[poll->nmoved++] = hint->table;
			if (poll->horizon >= hint->until)
				hint->until = 0;
		}
	}
	if (!all)
		return;
	foreach(lc, watched)
	{
		BcmigWatched *w = lfirst(lc);

		if (dialect->hinted(w->capture))
			poll->moved[poll->nmoved++] = bcmig_source_hash(w->base_schema, w->base_table);
	}
}

/*
 * Add a (clock, top) pair.  When the ring is full every second of the older
 * three quarters goes, so it reaches back ever further, ever more coarsely.
 */
static void
add_pair(TimestampTz clock, int64 top)
{
	int			kept = 0;

	/* another incarnation counts anew: what was proved before does not hold */
	if (blue->npairs > 0 && top < blue->pairs[blue->npairs - 1].top)
		blue->npairs = 0;
	if (blue->npairs == BCMIG_PAIRS)
	{
		for (int i = 0; i < BCMIG_PAIRS; i++)
		{
			if (i >= BCMIG_PAIRS * 3 / 4 || i % 2 == 0)
				blue->pairs[kept++] = blue->pairs[i];
		}
		blue->npairs = kept;
	}
	blue->pairs[blue->npairs].clock = clock;
	blue->pairs[blue->npairs].top = top;
	blue->npairs++;
}

static int
compare_hash(const void *a, const void *b)
{
	uint64		x = *(const uint64 *) a;
	uint64		y = *(const uint64 *) b;

	return x < y ? -1 : x > y;
}

/*
 * Publish a reading.  Returns whether a table moved.
 */
static bool
publish(BcmigPoll *poll, instr_time asked_at, bool all_moved)
{
	HASH_SEQ_STATUS seq;
	BcmigTable *table;
	bool		moved = false;
	uint64	   *hinted = palloc(sizeof(uint64) * Max(list_length(watched), 1));
	int			nhinted = 0;
	ListCell   *lc;

	qsort(poll->moved, poll->nmoved, sizeof(uint64), compare_hash);
	foreach(lc, watched)
	{
		BcmigWatched *w = lfirst(lc);

		if (dialect->hinted(w->capture))
			hinted[nhinted++] = bcmig_source_hash(w->base_schema, w->base_table);
	}
	qsort(hinted, nhinted, sizeof(uint64), compare_hash);

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	blue->reachable = true;
	blue->poll++;
	blue->read_at = asked_at;
	blue->clock = poll->clock;
	blue->horizon = poll->horizon;
	blue->top = poll->top;
	blue->incarnation = poll->incarnation;
	strlcpy(blue->incarnation_text, poll->incarnation_text, sizeof(blue->incarnation_text));
	/* a mark that does not fit is no mark: windows then read from the position on */
	if (strlcpy(blue->seen, poll->seen, sizeof(blue->seen)) >= sizeof(blue->seen))
		blue->seen[0] = '\0';
	blue->last_error[0] = '\0';
	if (poll->horizon >= poll->top)
		blue->blocked_by[0] = '\0';
	add_pair(poll->clock, poll->top);

	hash_seq_init(&seq, bcmig_tables);
	while ((table = hash_seq_search(&seq)) != NULL)
	{
		if (table->blue != blue_index || table->key.dboid != MyDatabaseId)
			continue;
		table->hinted = nhinted > 0 &&
			bsearch(&table->name_hash, hinted, nhinted, sizeof(uint64), compare_hash) != NULL;
		if (all_moved || (poll->nmoved > 0 &&
						  bsearch(&table->name_hash, poll->moved, poll->nmoved,
								  sizeof(uint64), compare_hash) != NULL))
		{
			table->moved_poll = blue->poll;
			moved = true;
		}
	}
	LWLockRelease(bcmig_shared->lock);
	return moved;
}

/*
 * The horizon stands still below the top: find out who holds it.
 */
static void
ask_blocker(MemoryContext context)
{
	List	   *rows;
	const char *who = "";
	MemoryContext oldcontext;

	bcmig_start_transaction();
	oldcontext = MemoryContextSwitchTo(context);
	rows = bcmig_remote_texts(feed, dialect->blocker());
	MemoryContextSwitchTo(oldcontext);
	bcmig_end_transaction();
	if (rows != NIL && ((char **) linitial(rows))[0] != NULL)
		who = ((char **) linitial(rows))[0];

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	strlcpy(blue->blocked_by, who, sizeof(blue->blocked_by));
	LWLockRelease(bcmig_shared->lock);
}

/* returns the time until blue is asked for it again */
static long
ask_expire(MemoryContext context)
{
	MemoryContext oldcontext;
	char	   *sql = dialect->expire();
	List	   *rows;

	if (sql == NULL)
		return EXPIRE_INTERVAL;
	bcmig_start_transaction();
	oldcontext = MemoryContextSwitchTo(context);
	rows = bcmig_remote_texts(feed, sql);
	MemoryContextSwitchTo(oldcontext);
	bcmig_end_transaction();
	return rows != NIL && ((char **) linitial(rows))[0] != NULL ? EXPIRE_AGAIN : EXPIRE_INTERVAL;
}

/*
 * Have tables or columns of blue changed?  The manager compares the mark with
 * what each sync has been looked at for.
 */
static void
ask_schema(MemoryContext context)
{
	List	   *rows;
	MemoryContext oldcontext;
	const char *text = NULL;
	uint64		mark;

	bcmig_start_transaction();
	oldcontext = MemoryContextSwitchTo(context);
	rows = bcmig_remote_texts(feed, dialect->schema_mark());
	MemoryContextSwitchTo(oldcontext);
	bcmig_end_transaction();
	if (rows != NIL)
		text = ((char **) linitial(rows))[0];
	if (text == NULL)
		return;
	mark = Max(1, hash_bytes_extended((const unsigned char *) text, strlen(text), 0) >> 1);

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	blue->schema_mark = mark;
	blue->schema_doubted = false;
	LWLockRelease(bcmig_shared->lock);
}

/*
 * Does what can wait have to wait for blue?  Said where people look; the manager
 * hears when it is over.
 */
static bool
look_at_throttle(void)
{
	static bool before = false;
	bool		on;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	on = bcmig_throttled(blue);
	LWLockRelease(bcmig_shared->lock);
	if (on != before)
	{
		bcmig_slot_phase(on ? "polls blue, throttled" : "polls blue", NULL, 0);
		bcmig_wake_manager(MyDatabaseId);
	}
	before = on;
	return on;
}

/*
 * Time until the next poll, the last one having taken "took" ms.  While blue
 * moves: a tenth of the wanted latency from poll to poll, since a change waits
 * for the next one longer than for all that follows; but a blue whose answer
 * takes time is left alone as long, up to a sixth.  Idle: growing.
 */
static long
moving_interval(long quiet_for, long took)
{
	long		fast = Max(5, Min(1000, blue->max_latency / 10));
	long		slow = Max(fast, IDLE_INTERVAL);
	long		pause = Max(fast - took, Min(took, Max(5, Min(1000, blue->max_latency / 6))));

	if (blue->fixed_interval > 0)
		return blue->fixed_interval;
	if (waits() || quiet_for < QUIET_BEFORE_IDLE)
		return pause;
	return Min(slow, fast + (quiet_for - QUIET_BEFORE_IDLE) / 10);
}

/* the same, but a blue in trouble is left alone for at least as long as it takes to answer */
static long
next_interval(long quiet_for, long took)
{
	long		interval = moving_interval(quiet_for, took);

	return look_at_throttle() ? Max(interval, (long) (blue->throttle.middle / 1000)) : interval;
}

static long
elapsed_ms(TimestampTz since)
{
	return since == 0 ? LONG_MAX : TimestampDifferenceMilliseconds(since, bcmig_steady_time());
}

static void
poll_loop(MemoryContext context)
{
	char	   *previous = NULL;
	int64		previous_horizon = 0;
	TimestampTz last_moved = bcmig_steady_time();
	TimestampTz last_stored = 0;
	TimestampTz last_expired = bcmig_steady_time();
	long		expire_after = EXPIRE_INTERVAL;
	TimestampTz last_hinted = 0;
	TimestampTz last_schema = 0;
	TimestampTz held_since = 0;
	TimestampTz last_blocker = 0;
	int64		held_horizon = -1;
	int64		stored_incarnation = 0;

	for (;;)
	{
		BcmigPoll  *poll;
		instr_time	asked_at;
		instr_time	took;
		bool		all_moved;

		CHECK_FOR_INTERRUPTS();
		bcmig_take_config();
		if (bcmig_slot->stop)
			return;
		MemoryContextSwitchTo(context);
		MemoryContextReset(context);

		INSTR_TIME_SET_CURRENT(asked_at);
		poll = ask_blue(context, previous);
		BCMIG_INSTR_TIME_ADD_MICROSEC(asked_at, poll->waited);
		bcmig_debug_point("poll_read");
		if (elapsed_ms(last_hinted) >= HINTED_INTERVAL)
		{
			take_hints(poll, true);
			last_hinted = bcmig_steady_time();
		}
		else
			take_hints(poll, false);

		all_moved = previous == NULL || poll->all_moved;
		if (poll->floor > previous_horizon)
			all_moved = true;
		if (stored_incarnation != poll->incarnation || poll->horizon < previous_horizon)
		{
			/* before anyone can use this reading */
			if (bcmig_check_incarnation(bcmig_slot->environment_id, bcmig_slot->owner, poll))
				all_moved = true;
			stored_incarnation = poll->incarnation;
			last_stored = 0;
		}
		if (publish(poll, asked_at, all_moved))
		{
			last_moved = bcmig_steady_time();
			bcmig_wake_manager(MyDatabaseId);
		}
		if (previous != NULL)
			pfree(previous);
		previous = MemoryContextStrdup(TopMemoryContext, poll->seen);
		previous_horizon = poll->horizon;
		bcmig_slot->jobs_done++;

		if (elapsed_ms(last_stored) >= STORE_INTERVAL)
		{
			bcmig_store_blue(blue_index);
			last_stored = bcmig_steady_time();
			bcmig_wake_manager(MyDatabaseId);
		}
		if (poll->horizon >= poll->top || poll->horizon != held_horizon)
		{
			held_horizon = poll->horizon;
			held_since = bcmig_steady_time();
		}
		else if (elapsed_ms(held_since) >= BLOCKED_AFTER && elapsed_ms(last_blocker) >= BLOCKED_AFTER)
		{
			ask_blocker(context);
			last_blocker = bcmig_steady_time();
		}
		if (blue->schema_doubted || elapsed_ms(last_schema) >= SCHEMA_INTERVAL)
		{
			ask_schema(context);
			last_schema = bcmig_steady_time();
			bcmig_wake_manager(MyDatabaseId);
		}
		if (elapsed_ms(last_expired) >= expire_after)
		{
			expire_after = ask_expire(context);
			last_expired = bcmig_steady_time();
		}
		pgstat_report_stat(false);

		INSTR_TIME_SET_CURRENT(took);
		INSTR_TIME_SUBTRACT(took, asked_at);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 next_interval(elapsed_ms(last_moved), (long) INSTR_TIME_GET_MILLISEC(took)),
						 PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

void
bcmig_poller_main(Datum arg)
{
	MemoryContext context;

	bcmig_process_start("bcmig poller");
	context = AllocSetContextCreate(TopMemoryContext, "bcmig poll", ALLOCSET_DEFAULT_SIZES);
	watched_context = AllocSetContextCreate(TopMemoryContext, "bcmig watched tables", ALLOCSET_SMALL_SIZES);

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	blue_index = bcmig_live_blue(MyDatabaseId, bcmig_slot->environment_id, bcmig_slot->owner);
	LWLockRelease(bcmig_shared->lock);
	if (blue_index < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("bcmig reads at most %d blues", BCMIG_MAX_BLUES)));
	blue = &bcmig_shared->blues[blue_index];
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	bcmig_throttle_reset(blue);
	LWLockRelease(bcmig_shared->lock);
	bcmig_slot_phase("polls blue", NULL, 0);

	PG_TRY();
	{
		find_feed(bcmig_slot->environment_id);
		CacheRegisterRelcacheCallback(config_invalidated, (Datum) 0);
		poll_loop(context);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		EmitErrorReport();
		FlushErrorState();
		AbortCurrentTransaction();

		LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
		blue->reachable = false;
		bcmig_throttle_reset(blue);
		/* a make of server without the statement: poll plainly from now on */
		if (edata->sqlerrcode == ERRCODE_SYNTAX_ERROR && waits())
			blue->refuses_wait = true;
		strlcpy(blue->last_error, edata->message, sizeof(blue->last_error));
		LWLockRelease(bcmig_shared->lock);
		bcmig_slot_error(edata->message);
		proc_exit(1);
	}
	PG_END_TRY();
}
