/*-------------------------------------------------------------------------
 *
 * event.c
 *	  NOTIFY bcmig_events: what the audit log says, for those who listen.
 *
 * The manager sends them in the transaction that chains the rows, so an event
 * is told once, after the commit of what it speaks of and in the order of the
 * chain.  Workers and sessions never notify: NOTIFY takes a lock of the whole
 * cluster at commit, cannot be prepared, and fails when a listener that is idle
 * in a transaction has let the queue fill up.  None of that may stop a sync;
 * here the queue is looked at first, and events are left out before it is full:
 * they are a signal to look, the audit log is the record.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "audit.h"

#include "catalog/pg_type.h"
#include "commands/async.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#define CHANNEL				"bcmig_events"
#define PAYLOAD				8000	/* bytes, with the end; NOTIFY takes no more */
#define EVENTS_AT_A_TIME	200		/* sent for one step of the chain */
#define QUEUE_FULL			0.5		/* from this share on nothing is sent */
#define WARN_INTERVAL		60000	/* ms between two words about that */

static void
add_text(StringInfo s, const char *name, const char *value, int most)
{
	char	   *cut;

	if (value == NULL)
		return;
	cut = pnstrdup(value, pg_mbcliplen(value, strlen(value), most));
	appendStringInfo(s, ",\"%s\":", name);
	escape_json(s, cut);
	pfree(cut);
}

/*
 * The payload of an event; texts are cut, at a character, until it fits.
 */
static char *
payload(const BcmigEvent *e, int left_out)
{
	StringInfoData s;
	char		at[MAXDATELEN + 1];

	initStringInfo(&s);
	for (int most = 6000;; most /= 2)
	{
		resetStringInfo(&s);
		appendStringInfo(&s, "{\"audit_id\":" INT64_FORMAT ",\"at\":\"%s\"", e->audit_id,
						 JsonEncodeDateTime(at, TimestampTzGetDatum(e->at), TIMESTAMPTZOID, NULL));
		add_text(&s, "kind", e->kind, most);
		add_text(&s, "event", e->event, most);
		add_text(&s, "sync", e->sync, most);
		add_text(&s, "target", e->target, most);
		add_text(&s, "detail", e->detail, most);
		if (left_out > 0)
			appendStringInfo(&s, ",\"left_out\":%d", left_out);
		appendStringInfoChar(&s, '}');
		if (s.len < PAYLOAD)
			return s.data;
	}
}

/* commands and errors are for the record only */
static bool
is_event(const BcmigEvent *e)
{
	return strcmp(e->kind, "command") != 0 && strcmp(e->kind, "error") != 0;
}

static bool
same_text(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/*
 * Is there a later word on the same thing?  Of a state the last one counts, of
 * conflicts of a table that there are some; all others are told each.
 */
static bool
is_overtaken(const BcmigEvent *events, int i, int n)
{
	const BcmigEvent *e = &events[i];
	bool		conflict = strcmp(e->kind, "conflict") == 0;

	if (!conflict && strcmp(e->kind, "state") != 0)
		return false;
	for (int k = i + 1; k < n; k++)
	{
		if (strcmp(e->kind, events[k].kind) == 0 && same_text(e->sync, events[k].sync) &&
			same_text(e->target, events[k].target) &&
			(!conflict || same_text(e->event, events[k].event)))
			return true;
	}
	return false;
}

/*
 * In one step at most EVENTS_AT_A_TIME are told, and the last one says how many
 * were left out.
 */
void
bcmig_notify(const BcmigEvent *events, int n)
{
	static TimestampTz warned = 0;
	const BcmigEvent **send = palloc(sizeof(BcmigEvent *) * Max(n, 1));
	int			nsend = 0;
	int			all = 0;

	for (int i = 0; i < n; i++)
	{
		if (!is_event(&events[i]))
			continue;
		all++;
		if (!is_overtaken(events, i, n))
			send[nsend++] = &events[i];
	}
	if (nsend > 0 && DatumGetFloat8(DirectFunctionCall1(pg_notification_queue_usage, (Datum) 0)) >= QUEUE_FULL)
	{
		TimestampTz now = GetCurrentTimestamp();

		if (warned == 0 || TimestampDifferenceExceeds(warned, now, WARN_INTERVAL))
			ereport(WARNING,
					(errmsg("bcmig sends no events: the queue of NOTIFY is half full"),
					 errdetail("A session that listens has been in a transaction for long."),
					 errhint("SELECT pid, xact_start, query FROM pg_stat_activity WHERE state = 'idle in transaction' ORDER BY xact_start;")));
		warned = now;
		return;
	}

	/* the newest ones: the end of the story */
	for (int i = Max(0, nsend - EVENTS_AT_A_TIME); i < nsend; i++)
		Async_Notify(CHANNEL, payload(send[i], i == nsend - 1 ? all - Min(nsend, EVENTS_AT_A_TIME) : 0));
}
