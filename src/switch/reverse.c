/*-------------------------------------------------------------------------
 *
 * reverse.c
 *	  Bringing to blue what was written on green.
 *
 * Table by table, under its applier lock, so that nothing of blue is read and
 * written to green meanwhile.  A batch is one transaction:
 *
 *	1	one snapshot shows the unsettled entries of some keys and green's rows
 *		of them: a write and its entry commit together, so the rows are what
 *		these entries have made of them, whoever else is writing
 *	2	one statement brings the rows to blue, each only when blue has what
 *		green's row was based on (blue/postgres_switch.sql)
 *	3	the entries are settled
 *
 * postgres_fdw commits blue just before green commits.  Who dies in between has
 * written to blue and settled nothing.  bcmig.reverse_sent says so from before
 * the batch, and whoever is next to apply rows of blue asks blue first.
 *
 * What was written on blue as well is read again from there and meets the
 * journal like any other change of blue (conflict.c), which records it.  A key
 * whose conflict waits, or that blue refuses, holds back itself only.
 *
 * Rows of the green table are read as the sync's owner, the journal as the owner
 * of the catalogue.  Memory: a context per batch.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "reverse.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "conflict.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "remote.h"
#include "reverse_rows.h"
#include "slot.h"
#include "state.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "worker.h"

#define PAGE_KEYS		20000	/* keys listed at a time */
#define AGAIN_KEYS		10000	/* of those refused before, which may need each other */
#define LOOK_KEYS		200		/* read from blue at a time */
#define BATCH_BYTES		(8 * 1024 * 1024)

/* one pass over a table */
typedef struct Pass
{
	BcmigWork  *work;
	const char *green;
	Oid			feed;			/* text feed of the environment */
	bool		by_script;		/* a person writes to blue, we only look */
	List	   *columns;
	TimestampTz deadline;
	int			batch;			/* keys in one */
	bool		late;			/* the deadline came first */
	int64		refused;
	int64		met;			/* keys blue has changed too */
	BcmigReplayed *result;
} Pass;

/* a batch is being committed: for bcmig_debug_point */
static bool committing = false;

/* ---- what is to be brought back ---- */

/*
 * Keys with unsettled entries in the order of their first one, after (id, key)
 * and up to entry "last".  List of char *, in the current context.
 */
static List *
list_keys(const BcmigTableInfo *table, int64 *after_id, char **after_key, int64 last)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *keys = NIL;
	uint64		n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT k.key::text, min(j.journal_id) FROM bcmig.journal j, "
				  " LATERAL (SELECT j.old_key AS key WHERE j.old_key IS NOT NULL UNION SELECT j.new_key WHERE j.new_key IS NOT NULL) k "
				  "WHERE j.table_id = $1 AND j.settled_at IS NULL GROUP BY k.key "
				  "HAVING (min(j.journal_id), k.key::text) > ($2, $3) AND min(j.journal_id) <= $4 ORDER BY 2, 1 LIMIT $5",
				  "iItIi", table->table_id, *after_id, *after_key, last, PAGE_KEYS);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		keys = lappend(keys, bcmig_get_text(i, 1));
		*after_id = bcmig_get_int64(i, 2, 0);
	}
	if (n > 0)
		*after_key = llast(keys);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return keys;
}

/* ---- a batch ---- */

static void
at_commit(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_PRE_COMMIT && committing)
		bcmig_debug_point("replay_between_commits");
	else if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT)
		committing = false;
}

/* registered before any wrapper's, so that it is called after them */
void
bcmig_reverse_init(void)
{
	RegisterXactCallback(at_commit, NULL);
}

/* the first problem counts; it outlives the batch */
static void
set_problem(BcmigReplayed *result, const char *problem)
{
	if (result->problem == NULL)
		result->problem = MemoryContextStrdup(GetMemoryChunkContext(result), problem);
}

/*
 * What blue has changed too: read from there, it meets the journal.
 */
static void
meet_conflicts(Pass *pass, List *met)
{
	BcmigWork  *work = pass->work;
	int			nkeys = work->table->nkeys;
	char	  **texts = palloc(sizeof(char *) * list_length(met) * nkeys);
	BcmigReading reading;
	BcmigApplied applied = {0};
	BcmigReverseKey *still;
	List	   *keys = NIL;
	int			left;
	ListCell   *lc;

	bcmig_reading(work->table->table_id, &reading);
	if (reading.poll == 0)
	{
		pass->refused += list_length(met);
		set_problem(pass->result, psprintf("rows of %s that blue has changed too cannot be read from it: sync \"%s\" does not run",
										   work->table->target_name, work->table->sync_name));
		return;
	}
	foreach(lc, met)
	{
		BcmigReverseKey *k = lfirst(lc);

		memcpy(&texts[foreach_current_index(lc) * nkeys], k->texts, sizeof(char *) * nkeys);
		keys = lappend(keys, k->reverse.key);
	}
	bcmig_reread_keys(work, "reverse", list_length(met), texts, &applied);

	/* neither settled nor waiting: decided for green, for the next round, or blue has changed once more */
	bcmig_start_transaction();
	left = bcmig_load_reverse_keys(work->table, keys, &still);
	bcmig_end_transaction();
	pass->refused += left;
	if (left > 0 && !pass->by_script)
		set_problem(pass->result, psprintf("blue has changed %s of %s meanwhile", still[0].reverse.key, work->table->target_name));
}

/* known before blue can have anything of the batch; in no transaction */
static void
mark_sent(int table_id)
{
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.reverse_sent (table_id) VALUES ($1) ON CONFLICT DO NOTHING", "i", table_id);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

/* in the transaction that settles the entries */
static void
forget_sent(int table_id)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.reverse_sent WHERE table_id = $1", "i", table_id);
	bcmig_catalog_end(&scope);
}

void
bcmig_replay_heard(BcmigWork *work)
{
	BcmigTableInfo *table = work->table;
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	BcmigSettled *settled;
	List	   *answers;
	ListCell   *lc;
	int64		since;
	int			n = 0;

	bcmig_applier_lock(work, ExclusiveLock);
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT min(journal_id) FROM bcmig.journal WHERE table_id = $1 AND settled_at IS NULL", "i", table->table_id);
	since = bcmig_get_int64(0, 1, PG_INT64_MAX);
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	answers = bcmig_remote_texts(bcmig_text_feed(table->environment_id),
								 work->dialect->replayed(table, bcmig_green_identity(table->sync_id), since));
	settled = palloc(sizeof(BcmigSettled) * Max(list_length(answers), 1));
	foreach(lc, answers)
	{
		char	  **answer = lfirst(lc);
		Datum		ids = OidInputFunctionCall(F_ARRAY_IN, bcmig_answer_text(answer, 1), INT8OID, -1);

		settled[n++] = (BcmigSettled) {.key = bcmig_answer_text(answer, 0), .ids = ids, .as = "replayed",
			.version = answer[2] ? bcmig_answer_int64(answer, 2) : -1};
	}
	bcmig_catalog_begin(&scope);
	bcmig_settle_entries(n, settled);
	bcmig_catalog_end(&scope);
	forget_sent(table->table_id);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	bcmig_applier_unlock(work, ExclusiveLock);
}

/*
 * Bring these keys (List of char *) to blue, or as many of them as fit; returns
 * how many were dealt with.
 */
static int
replay_batch(Pass *pass, List *texts)
{
	const BcmigTableInfo *table = pass->work->table;
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	BcmigReplayed *result = pass->result;
	BcmigReverse *reverse;
	BcmigSettled *settled;
	BcmigReverseKey *keys;
	List	   *answers;
	bool	   *answered;
	List	   *met = NIL;
	ListCell   *lc;
	int			n;
	int			nsettled = 0;
	int			done;
	int64		written = 0;
	int64		equal = 0;

	mark_sent(table->table_id);
	bcmig_start_snapshot();
	done = bcmig_keys_that_fit(table, texts, BATCH_BYTES);
	texts = list_truncate(list_copy(texts), done);
	n = bcmig_load_reverse_keys(table, texts, &keys);
	if (n == 0)
	{
		forget_sent(table->table_id);
		bcmig_end_transaction();
		return done;
	}
	bcmig_read_reverse_rows(table, pass->columns, n, keys);
	reverse = palloc(sizeof(BcmigReverse) * n);
	for (int i = 0; i < n; i++)
		reverse[i] = keys[i].reverse;

	bcmig_debug_point("replay_read");
	answers = bcmig_remote_texts(pass->feed, pass->work->dialect->replay(table, pass->green, pass->columns, n, reverse));
	settled = palloc(sizeof(BcmigSettled) * n);
	answered = palloc0(sizeof(bool) * n);
	foreach(lc, answers)
	{
		char	  **answer = lfirst(lc);
		int64		number = bcmig_answer_int64(answer, 0);
		const char *outcome = bcmig_answer_text(answer, 1);
		int			i = number - 1;

		/* about each row once; one without an answer stays as it is, unsettled */
		if (number < 1 || number > n || answered[i])
			bcmig_bad_answer(psprintf("It is about row " INT64_FORMAT " of %d%s.", number, n,
									  number >= 1 && number <= n ? ", once more" : ""));
		answered[i] = true;
		if (strcmp(outcome, "conflict") == 0)
			met = lappend(met, &keys[i]);
		else if (strcmp(outcome, "refused") == 0)
		{
			pass->refused++;
			set_problem(result, psprintf("blue refuses %s of %s: %s: %s", keys[i].reverse.key, table->target_name,
										  answer[3] ? answer[3] : "?", answer[4] ? answer[4] : "?"));
		}
		else if (strcmp(outcome, "written") != 0 && strcmp(outcome, "applied") != 0 && strcmp(outcome, "equal") != 0)
			bcmig_bad_answer(psprintf("What became of row " INT64_FORMAT " is \"%.60s\".", number, outcome));
		else
		{
			bool		same = strcmp(outcome, "equal") == 0;

			*(same ? &equal : &written) += 1;
			settled[nsettled++] = (BcmigSettled) {.key = keys[i].reverse.key, .ids = keys[i].ids, .as = same ? "equal" : "replayed",
				.version = answer[2] && keys[i].reverse.row ? bcmig_answer_int64(answer, 2) : -1};
		}
	}
	bcmig_catalog_begin(&scope);
	bcmig_settle_entries(nsettled, settled);
	bcmig_catalog_end(&scope);
	forget_sent(table->table_id);
	committing = true;
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);

	result->written += written;
	result->equal += equal;
	pass->met += list_length(met);
	if (met != NIL)
		meet_conflicts(pass, met);
	return done;
}

/*
 * A blue that is written to by script: what a person has brought there settles
 * when windows read it back.  Rows that are on neither side, and were not, no
 * window will ever tell of: these are looked at.
 */
static int
look_batch(Pass *pass, List *texts)
{
	BcmigReverseKey *keys;
	List	   *met = NIL;
	int			n;

	bcmig_start_snapshot();
	n = bcmig_load_reverse_keys(pass->work->table, texts, &keys);
	bcmig_read_reverse_rows(pass->work->table, pass->columns, n, keys);
	bcmig_end_transaction();
	for (int i = 0; i < n; i++)
	{
		if (keys[i].reverse.row == NULL && keys[i].reverse.known[0].absent)
			met = lappend(met, &keys[i]);
	}
	if (met != NIL)
		meet_conflicts(pass, met);
	return list_length(texts);
}

/* ---- a table ---- */

static int64
newest_entry(int table_id)
{
	BcmigCatalogScope scope;
	int64		id;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT max(journal_id) FROM bcmig.journal WHERE table_id = $1 AND settled_at IS NULL", "i", table_id);
	id = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return id;
}

static void
replay_table(Pass *pass)
{
	BcmigWork  *work = pass->work;
	MemoryContext page_context = AllocSetContextCreate(CurrentMemoryContext, "bcmig reverse", ALLOCSET_DEFAULT_SIZES);
	MemoryContext batch_context = AllocSetContextCreate(CurrentMemoryContext, "bcmig reverse batch", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = CurrentMemoryContext;
	int64		last = newest_entry(work->table->table_id);
	int64		after_id = 0;
	char	   *after_key = "";
	bool		more;

	bcmig_slot_phase("reverse", work->table->target_name, 0);
	bcmig_applier_lock(work, ExclusiveLock);
	do
	{
		List	   *keys;

		MemoryContextSwitchTo(oldcontext);
		after_key = pstrdup(after_key);
		MemoryContextReset(page_context);
		MemoryContextSwitchTo(page_context);
		keys = list_keys(work->table, &after_id, &after_key, last);
		more = list_length(keys) == PAGE_KEYS;
		while (keys != NIL && !pass->late)
		{
			int			done;

			CHECK_FOR_INTERRUPTS();
			MemoryContextSwitchTo(batch_context);
			done = pass->by_script ? look_batch(pass, list_truncate(list_copy(keys), LOOK_KEYS)) :
				replay_batch(pass, list_truncate(list_copy(keys), pass->batch));
			MemoryContextSwitchTo(page_context);
			MemoryContextReset(batch_context);
			keys = list_delete_first_n(keys, done);
			pass->late = bcmig_steady_time() >= pass->deadline;
		}
	} while (more && !pass->late);
	bcmig_applier_unlock(work, ExclusiveLock);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(page_context);
	MemoryContextDelete(batch_context);
}

/* ---- a sync ---- */

/* tables with unsettled entries; in the current context */
static List *
pending_tables(int sync_id)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *ids = NIL;
	uint64		n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT t.table_id FROM bcmig.sync_table t WHERE t.sync_id = $1 "
				  "AND EXISTS (SELECT FROM bcmig.journal j WHERE j.table_id = t.table_id AND j.settled_at IS NULL) ORDER BY 1", "i", sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		ids = lappend_int(ids, bcmig_get_int64(i, 1, 0));
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return ids;
}

int64
bcmig_unreplayed(int sync_id)
{
	BcmigCatalogScope scope;
	int64		n;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT count(DISTINCT (j.table_id, k.key)) FROM bcmig.journal j, "
			  " LATERAL (SELECT j.old_key AS key WHERE j.old_key IS NOT NULL UNION SELECT j.new_key WHERE j.new_key IS NOT NULL) k "
			  "WHERE j.sync_id = $1 AND j.settled_at IS NULL", "i", sync_id);
	n = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	return n;
}

/* keys whose conflict waits; in no transaction */
static int64
waiting_conflicts(int sync_id)
{
	BcmigCatalogScope scope;
	int64		n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT count(*) FROM bcmig.conflict WHERE sync_id = $1 AND decision IS NULL", "i", sync_id);
	n = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return n;
}

static Oid
text_feed_of(const BcmigSync *sync, const BcmigDialect **dialect)
{
	Oid			feed = bcmig_text_feed(sync->environment_id);

	if (!OidIsValid(feed))
		ereport(ERROR,
				(errcode(ERRCODE_BM_FEED_SHAPE),
				 errmsg("the text feed of environment %d is gone", sync->environment_id)));
	*dialect = bcmig_dialect_of_server(GetForeignTable(feed)->serverid);
	return feed;
}

bool
bcmig_replay_by_script(const BcmigSync *sync)
{
	const BcmigDialect *dialect;

	bcmig_start_transaction();
	(void) text_feed_of(sync, &dialect);
	bcmig_end_transaction();
	return dialect->replay == NULL;
}

char *
bcmig_replay_problem(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	const BcmigDialect *dialect;
	char	   *problem = NULL;
	Oid			feed;
	List	   *answers;
	char	  **answer;

	bcmig_start_transaction();
	MemoryContextSwitchTo(caller);
	feed = text_feed_of(sync, &dialect);
	if (dialect->replay == NULL)
		problem = psprintf("bcmig does not write to a blue on %s itself", dialect->name);
	else
	{
		answers = bcmig_remote_texts(feed, dialect->may_write());
		answer = answers != NIL ? linitial(answers) : NULL;
		if (answer == NULL || answer[0] == NULL)
			problem = psprintf("blue/postgres_switch.sql has not been run on blue");
		else if (strcmp(answer[0], "true") != 0)
			problem = psprintf("%s may not write to blue: SELECT bcmig_blue.grant_switch(%s); -- on blue", bcmig_answer_text(answer, 1),
							   quote_literal_cstr(quote_identifier(bcmig_answer_text(answer, 1))));
	}
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	return problem;
}

void
bcmig_forget_replayed(const BcmigSync *sync)
{
	const BcmigDialect *dialect;
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	int64		below;
	Oid			feed;

	bcmig_start_transaction();
	MemoryContextSwitchTo(caller);
	feed = text_feed_of(sync, &dialect);
	if (dialect->forget_replayed != NULL)
	{
		bcmig_catalog_begin(&scope);
		bcmig_sql("SELECT min(journal_id) FROM bcmig.journal WHERE sync_id = $1 AND settled_at IS NULL", "i", sync->sync_id);
		below = bcmig_get_int64(0, 1, PG_INT64_MAX);
		bcmig_catalog_end(&scope);
		MemoryContextSwitchTo(caller);
		(void) bcmig_remote_texts(feed, dialect->forget_replayed(bcmig_green_identity(sync->sync_id), below));
	}
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
}

/*
 * Passes over all tables as long as one helps: what a unique or foreign key of
 * blue refuses may wait for another row, or another table.
 */
void
bcmig_replay(const BcmigSync *sync, TimestampTz deadline, BcmigReplayed *result)
{
	MemoryContext caller = CurrentMemoryContext;
	const BcmigDialect *dialect;
	Oid			feed;
	bool		again;
	BcmigReplayed *now = palloc(sizeof(BcmigReplayed));

	memset(result, 0, sizeof(*result));
	bcmig_start_transaction();
	feed = text_feed_of(sync, &dialect);
	bcmig_end_transaction();
	for (int round = 1;; round++)
	{
		List	   *tables = pending_tables(sync->sync_id);
		int64		refused = 0;
		int64		met = 0;
		bool		late = false;
		ListCell   *lc;

		memset(now, 0, sizeof(*now));
		again = false;
		foreach(lc, tables)
		{
			Pass		pass = {.by_script = dialect->replay == NULL, .green = bcmig_green_identity(sync->sync_id), .feed = feed, .deadline = deadline, .result = now};

			pass.work = bcmig_load_work(lfirst_int(lc), caller);
			if (pass.work == NULL)
				continue;
			pass.columns = bcmig_columns_for_blue(pass.work->table, false);
			pass.batch = round == 1 ? pass.work->table->batch_rows : Max(pass.work->table->batch_rows, AGAIN_KEYS);
			replay_table(&pass);
			refused += pass.refused;
			met += pass.met;
			/* those that need each other may have been in two batches */
			again |= round == 1 && !pass.by_script && (pass.refused > 1 || pass.met > 0);
			late = pass.late;
			if (late)
				break;
		}
		result->written += now->written;
		result->equal += now->equal;
		result->left = refused;
		result->problem = now->problem;
		if (late)
		{
			bcmig_start_transaction();
			result->left = Max(refused, bcmig_unreplayed(sync->sync_id) - met);
			bcmig_end_transaction();
			if (result->left > 0 && result->problem == NULL)
				result->problem = pstrdup("time was up");
			break;
		}
		if (!again && !(refused > 0 && now->written + now->equal > 0))
			break;
	}
	result->conflicts = waiting_conflicts(sync->sync_id);
	if (dialect->replay == NULL)
	{
		bcmig_start_transaction();
		result->left = Max(0, bcmig_unreplayed(sync->sync_id) - result->conflicts);
		bcmig_end_transaction();
		if (result->left > 0 && result->problem == NULL)
			result->problem = psprintf("a person has to run what SELECT bcmig_blue_script('reverse', %s) prints", quote_literal_cstr(sync->name));
	}
}
