/*-------------------------------------------------------------------------
 *
 * blue_fence.c
 *	  The refusal of outside writes on blue, from the last step of a switch on.
 *
 * How it is raised is up to the environment (option fence_by): by functions on
 * blue, by a hook somebody has written, by a person with a script.  None of
 * these is believed: whether it is so is read from blue each time.  Only where
 * blue cannot tell, a person's word counts (bcmig_confirm), and only one that
 * was given after the fence was last asked for.
 *
 * What is asked for is committed before anything is sent: a crash in between
 * leaves a fence that may be up, and a state that is read.
 *
 * Nothing is locked and no transaction is open while a hook answers; blue's
 * functions run inside one of ours, which commits there as it does here.
 *
 * Memory: the caller's context.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "blue_fence.h"

#include "access/xact.h"
#include "call.h"
#include "foreign/foreign.h"
#include "http.h"
#include "options.h"
#include "remote.h"
#include "slot.h"
#include "traffic.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/timestamp.h"
#include "worker.h"

#define MOST_ANSWER		(64 * 1024)
#define STORE_INTERVAL	60000	/* ms between two stored readings that are the same */

BCMIG_FUNCTION(bcmig_confirm);
BCMIG_FUNCTION(bcmig_try_blue_fence);

/* may somebody try it?  Not while green is, or is about to be, written to.  Of bcmig.traffic t */
#define BLUE_IN_CHARGE \
	"t.fence AND NOT t.journal_armed AND t.writes = 'blue' AND t.green_percent < 100 AND t.intent IS NULL AND t.held IS NULL"

/* what the fence of a sync's blue takes */
typedef struct Fencing
{
	char	   *environment;
	char	   *method;			/* fence_by */
	char	   *hook;			/* URL, NULL = none */
	char	   *login;			/* of Business Central on blue, NULL = not said */
	const BcmigFenceDialect *dialect;
	const char *dialect_name;
	Oid			feed;
	List	   *tables;			/* BcmigName: tables of the sync and their companions */
	int64		epoch;
} Fencing;

static const char *const state_names[] = {"open", "partly", "fenced", "unknown"};

static char *
option_text(const BcmigEnvironment *env, const char *name, MemoryContext context)
{
	char	   *value = bcmig_option_value(name, env->options, NULL);

	return value ? MemoryContextStrdup(context, value) : NULL;
}

/* in a transaction */
static Fencing *
load(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigEnvironment *env = bcmig_load_environment(NULL, sync->environment_id);
	const BcmigDialect *dialect = bcmig_dialect_of_server(env->serverid);
	Fencing    *f = palloc0(sizeof(Fencing));
	BcmigCatalogScope scope;
	uint64		n;

	f->environment = env->name;
	f->dialect = dialect->fence;
	f->dialect_name = dialect->name;
	f->feed = bcmig_text_feed(env->environment_id);
	bcmig_catalog_begin(&scope);
	f->method = option_text(env, "fence_by", caller);
	f->hook = option_text(env, "fence_hook", caller);
	f->login = option_text(env, "bc_login", caller);
	/* a companion may be a table of the sync as well */
	n = bcmig_sql("SELECT DISTINCT p.source_schema, p.source_table FROM bcmig.sync_table t, "
				  " LATERAL (SELECT t.source_schema, t.source_table UNION ALL "
				  "  SELECT c.source_schema, c.source_table FROM bcmig.companion c WHERE c.table_id = t.table_id) p "
				  "WHERE t.sync_id = $1 ORDER BY 1, 2", "i", sync->sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		f->tables = lappend(f->tables, bcmig_name(bcmig_get_text(i, 1), bcmig_get_text(i, 2)));
	if (bcmig_sql("SELECT epoch FROM bcmig.traffic WHERE sync_id = $1", "i", sync->sync_id) > 0)
		f->epoch = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	return f;
}

bool
bcmig_blue_fence_by_hand(const BcmigSync *sync)
{
	return strcmp(load(sync)->method, "confirm") == 0;
}

/* ---- asking ---- */

/*
 * Asked again for the same thing and the same change of traffic, the time stays:
 * what a person has confirmed since then holds.  In a transaction.
 */
static void
remember_asking(const BcmigSync *sync, const Fencing *f, bool up)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("UPDATE bcmig.traffic SET blue_fence_asked = jsonb_build_object('up', $2, 'at', clock_timestamp(), 'intent', intent->'id') "
				  "WHERE sync_id = $1 AND (blue_fence_asked IS NULL OR (blue_fence_asked->>'up')::bool <> $2 "
				  " OR blue_fence_asked->>'intent' IS DISTINCT FROM intent->>'id')", "ib", sync->sync_id, (int) up) > 0)
		bcmig_audit("traffic", sync->name, NULL, up ? "blue fence wanted" : "blue fence not wanted", f->method);
	bcmig_catalog_end(&scope);
}

static char *
ask_hook(const BcmigSync *sync, const Fencing *f, bool up, int timeout)
{
	StringInfoData body;
	ListCell   *lc;
	BcmigHttpAnswer *answer;
	BcmigHttpRequest request = {
		.method = "POST", .url = f->hook, .timeout = timeout, .most_bytes = MOST_ANSWER,
		.headers = list_make1("Content-Type: application/json")
	};

	if (f->hook == NULL)
		return psprintf("environment %s fences by a hook, and has no option fence_hook", f->environment);
	initStringInfo(&body);
	appendStringInfoString(&body, "{\"sync\":");
	escape_json(&body, sync->name);
	appendStringInfoString(&body, ",\"environment\":");
	escape_json(&body, f->environment);
	appendStringInfo(&body, ",\"action\":\"%s\",\"tables\":[", up ? "fence" : "unfence");
	foreach(lc, f->tables)
	{
		BcmigName  *t = lfirst(lc);

		appendStringInfoString(&body, lc == list_head(f->tables) ? "{\"schema\":" : ",{\"schema\":");
		escape_json(&body, t->schema);
		appendStringInfoString(&body, ",\"table\":");
		escape_json(&body, t->name);
		appendStringInfoChar(&body, '}');
	}
	appendStringInfo(&body, "],\"epoch\":" INT64_FORMAT "}", f->epoch);
	request.body = body.data;
	answer = bcmig_http(&request);
	if (answer->error != NULL)
		return psprintf("hook %s: %s", f->hook, answer->error);
	if (answer->status < 200 || answer->status > 299)
		return psprintf("hook %s answers with status %ld%s%.200s", f->hook, answer->status, answer->body[0] ? ": " : "", answer->body);
	return NULL;
}

char *
bcmig_ask_blue_fence(const BcmigSync *sync, bool up, int timeout)
{
	Fencing    *f;

	bcmig_start_transaction();
	f = load(sync);
	remember_asking(sync, f, up);
	bcmig_end_transaction();

	if (strcmp(f->method, "hook") == 0)
		return ask_hook(sync, f, up, timeout);
	if (strcmp(f->method, "call") == 0)
	{
		if (f->dialect->call == NULL)
			return psprintf("bcmig cannot fence a %s blue itself: option fence_by of environment %s must be confirm or hook", f->dialect_name, f->environment);
		bcmig_start_transaction();
		(void) bcmig_remote_texts(f->feed, f->dialect->call(f->tables, up, timeout));
		bcmig_end_transaction();
	}
	return NULL;
}

/* ---- reading ---- */

/*
 * What a person has said since the fence was last asked for; in a transaction.
 * UNKNOWN: nothing.
 */
static BcmigBlueFence
confirmed(const BcmigSync *sync, char **detail)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	BcmigBlueFence said = BCMIG_BLUE_UNKNOWN;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT c.what = 'fence', format('%s says so (%s)', c.by, c.note) FROM bcmig.confirmation c JOIN bcmig.traffic t USING (sync_id) "
				  "WHERE c.sync_id = $1 AND c.what IN ('fence', 'unfence') AND c.at > (t.blue_fence_asked->>'at')::timestamptz "
				  "ORDER BY c.at DESC, c.confirmation_id DESC LIMIT 1", "i", sync->sync_id) > 0)
	{
		said = bcmig_get_bool(0, 1) ? BCMIG_BLUE_FENCED : BCMIG_BLUE_OPEN;
		MemoryContextSwitchTo(caller);
		*detail = bcmig_get_text(0, 2);
	}
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	return said;
}

/* for the views; in a transaction */
static void
store_state(const BcmigSync *sync, BcmigBlueFence state, const char *detail)
{
	BcmigCatalogScope scope;
	char	   *text = psprintf("%s: %s", state_names[state], detail);

	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.traffic SET blue_fence = $2, blue_fence_at = clock_timestamp() WHERE sync_id = $1 "
			  "AND (blue_fence IS DISTINCT FROM $2 OR blue_fence_at < clock_timestamp() - $3 * interval '1 ms')",
			  "iti", sync->sync_id, text, STORE_INTERVAL);
	bcmig_catalog_end(&scope);
}

BcmigBlueFence
bcmig_blue_fence_state(const BcmigSync *sync, char **detail)
{
	Fencing    *f;
	BcmigBlueFence state;
	List	   *rows = NIL;
	ListCell   *lc;
	char	   *example[3] = {NULL, NULL, NULL};	/* of open, fenced, unknown */
	int			count[3] = {0, 0, 0};
	int			n;

	bcmig_start_transaction();
	f = load(sync);
	foreach(lc, f->tables == NIL ? NIL : f->dialect->state(f->tables, f->login))
		rows = list_concat(rows, bcmig_remote_texts(f->feed, lfirst(lc)));
	bcmig_end_transaction();

	foreach(lc, rows)
	{
		char	  **row = lfirst(lc);
		const char *said = bcmig_answer_text(row, 2);
		int			which = strcmp(said, "open") == 0 ? 0 : strcmp(said, "fenced") == 0 ? 1 : 2;

		if (count[which]++ == 0)
			example[which] = psprintf("%s.%s: %s", bcmig_answer_text(row, 0), bcmig_answer_text(row, 1), row[3] ? row[3] : "");
	}
	n = list_length(f->tables);
	if (count[0] + count[1] + count[2] != n)
		elog(ERROR, "blue told of the fence of %d of %d tables", count[0] + count[1] + count[2], n);
	if (n == 0)
	{
		state = BCMIG_BLUE_UNKNOWN;
		*detail = pstrdup("the sync has no tables");
	}
	else if (count[0] > 0)
	{
		state = count[0] == n ? BCMIG_BLUE_OPEN : BCMIG_BLUE_PARTLY;
		*detail = psprintf("%d of %d tables can be written to, such as %s", count[0], n, example[0]);
	}
	else if (count[2] > 0)
	{
		state = BCMIG_BLUE_UNKNOWN;
		*detail = psprintf("%d of %d tables, such as %s", count[2], n, example[2]);
	}
	else
	{
		state = BCMIG_BLUE_FENCED;
		*detail = psprintf("%d tables, such as %s", n, example[1]);
	}

	bcmig_start_transaction();
	if (state == BCMIG_BLUE_UNKNOWN)
	{
		char	   *said;
		BcmigBlueFence by_person = confirmed(sync, &said);

		if (by_person != BCMIG_BLUE_UNKNOWN)
		{
			state = by_person;
			*detail = psprintf("%s; blue itself cannot tell: %s", said, *detail);
		}
	}
	store_state(sync, state, *detail);
	bcmig_end_transaction();
	return state;
}

/* ---- trying it in advance ---- */

/*
 * Ask and read; what became of it.  An error of blue is not one of the job,
 * which goes on to the weights; but the wrapper may have leaked its connection,
 * so this process ends after it.
 */
static char *
try_fence(const BcmigSync *sync, const char *action, int timeout)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *volatile result = NULL;

	PG_TRY();
	{
		char	   *detail;
		BcmigBlueFence state;

		if (strcmp(action, "read") != 0)
			result = bcmig_ask_blue_fence(sync, strcmp(action, "fence") == 0, timeout);
		if (result == NULL)
		{
			state = bcmig_blue_fence_state(sync, &detail);
			result = psprintf("now %s: %s", state_names[state], detail);
		}
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		AbortCurrentTransaction();
		MemoryContextSwitchTo(caller);
		bcmig_remote_running = false;
		bcmig_slot->stop = true;
		result = bcmig_error_text(error, true);
	}
	PG_END_TRY();
	return result;
}

/*
 * A trial that was asked for: once, whatever becomes of it.
 */
void
bcmig_run_blue_fence_trial(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *action = NULL;
	char	   *result;
	bool		free_to = false;
	int			timeout;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	timeout = bcmig_option_int64("traffic_timeout", NULL, sync->options, 0);
	if (bcmig_sql("WITH d AS (DELETE FROM bcmig.blue_fence_trial WHERE sync_id = $1 RETURNING trial_id, action) "
				  "SELECT d.action, " BLUE_IN_CHARGE " FROM d, bcmig.traffic t WHERE t.sync_id = $1 ORDER BY trial_id DESC LIMIT 1",
				  "i", sync->sync_id) > 0)
	{
		free_to = bcmig_get_bool(0, 2);
		MemoryContextSwitchTo(caller);
		action = bcmig_get_text(0, 1);
		bcmig_config_changed();
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	if (action == NULL)
		return;

	result = free_to || strcmp(action, "read") == 0 ? try_fence(sync, action, timeout) : "traffic is held, being changed, or at 100 %";
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_audit("traffic", sync->name, NULL, "blue fence tried", psprintf("%s: %s", action, result));
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

/* ---------------------------------------------------------------------
 * SQL
 * --------------------------------------------------------------------- */

/*
 * bcmig_confirm(sync, what, note): a person's word for what bcmig cannot see.
 */
Datum
bcmig_confirm(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *what = bcmig_arg_text(fcinfo, 1, "what");
	char	   *note = bcmig_arg_text(fcinfo, 2, "note");
	BcmigTraffic traffic;
	BcmigCatalogScope scope;
	bool		asked;

	if (strcmp(what, "fence") != 0 && strcmp(what, "unfence") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("\"%s\" is nothing that can be confirmed", what),
				 errdetail("Expected fence (nobody but bcmig can write to blue's tables of the sync) or unfence (everybody can again)."),
				 errhint("SELECT bcmig_confirm(%s, 'fence', 'the service is stopped, ...');", quote_literal_cstr(sync->name))));
	if (note[strspn(note, " \t\r\n")] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("a confirmation needs a note"),
				 errhint("Say what was done, and how it was seen.")));
	bcmig_require_started(sync, false, &traffic);
	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.confirmation (sync_id, what, note) VALUES ($1, $2, $3)", "itt", sync->sync_id, what, note);
	bcmig_audit("command", sync->name, NULL, "bcmig_confirm", psprintf("%s: %s", what, note));
	bcmig_config_changed();
	bcmig_sql("SELECT coalesce((blue_fence_asked->>'up')::bool = ($2 = 'fence'), false) FROM bcmig.traffic WHERE sync_id = $1", "it", sync->sync_id, what);
	asked = bcmig_get_bool(0, 1);
	bcmig_catalog_end(&scope);
	if (!asked)
		ereport(NOTICE,
				(errmsg("nobody has asked for \"%s\" yet", what),
				 errdetail("When a switch or rollback asks for it later, it has to be confirmed again.")));
	PG_RETURN_VOID();
}

/*
 * bcmig.try_blue_fence(sync, action)
 */
Datum
bcmig_try_blue_fence(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync;
	char	   *action;
	BcmigTraffic traffic;
	BcmigCatalogScope scope;
	bool		free_to;

	bcmig_require_loaded();
	sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	action = bcmig_arg_text(fcinfo, 1, "action");
	if (strcmp(action, "fence") != 0 && strcmp(action, "unfence") != 0 && strcmp(action, "read") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("blue's fence cannot be tried by \"%s\"", action),
				 errdetail("Expected fence, unfence or read."),
				 errhint("SELECT bcmig.try_blue_fence(%s, 'read');", quote_literal_cstr(sync->name))));
	bcmig_require_started(sync, false, &traffic);
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT " BLUE_IN_CHARGE " FROM bcmig.traffic t WHERE sync_id = $1", "i", sync->sync_id);
	free_to = bcmig_get_bool(0, 1);
	if (!free_to && strcmp(action, "read") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_TRAFFIC),
				 errmsg("blue's fence of sync \"%s\" is not free to be tried", sync->name),
				 errdetail("Traffic is held, being changed, or at 100 %%: then switch and rollback say whether it is up."),
				 errhint("SELECT * FROM bcmig.traffic_status WHERE sync = %s;", quote_literal_cstr(sync->name))));
	bcmig_sql("INSERT INTO bcmig.blue_fence_trial (sync_id, action) VALUES ($1, $2)", "it", sync->sync_id, action);
	bcmig_audit("command", sync->name, NULL, "bcmig.try_blue_fence", action);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}
