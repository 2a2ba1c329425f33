/*-------------------------------------------------------------------------
 *
 * health.c
 *	  What the health URLs of both sides answer.
 *
 * An answer is made of probes: health_required of at most health_probes must be
 * well, and nobody is asked once that is decided.  Each answer is stored with
 * how many have been alike in a row; a row ends where the URL is another one or
 * nobody has asked for SERIES_GAP.
 *
 * A side that needs success_count answers in a row is asked that often when it
 * is well, so that a weight can be raised by one request; one that is not is
 * asked once.  Between two requests the way back comes first: when it is asked for
 * the rest is given up.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "gate.h"

#include "call.h"
#include "http.h"
#include "mb/pg_wchar.h"
#include "options.h"
#include "slot.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#define MOST_ANSWER		(64 * 1024)
#define SERIES_GAP		300		/* s */

#define HEALTH_URL	"coalesce(e.options->>'health_url', e.health_url)"

typedef struct Side
{
	int			environment_id;
	char	   *url;
	Jsonb	   *options;

	/* of these */
	char	   *ca_file;		/* NULL = the system's */
	bool		result;			/* the body has to say so */
	int			probes;
	int			required;
	int			interval;		/* ms */
	int			success_count;
} Side;

/* those of a sync's blue and of green that have a URL */
static List *
load_sides(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *sides = NIL;
	ListCell   *lc;
	uint64		n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT e.environment_id, " HEALTH_URL ", e.options FROM bcmig.environment e "
				  "WHERE (e.environment_id = $1 OR e.side = 'green') AND " HEALTH_URL " IS NOT NULL ORDER BY e.side", "i", sync->environment_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		Side	   *s = palloc(sizeof(Side));
		bool		isnull;

		s->environment_id = bcmig_get_int64(i, 1, 0);
		s->url = bcmig_get_text(i, 2);
		s->options = DatumGetJsonbPCopy(bcmig_get_datum(i, 3, &isnull));
		sides = lappend(sides, s);
	}
	foreach(lc, sides)
	{
		Side	   *s = lfirst(lc);
		char	   *ca_file = bcmig_option_value("health_ca_file", NULL, s->options);

		s->ca_file = ca_file ? MemoryContextStrdup(caller, ca_file) : NULL;
		s->result = strcmp(bcmig_option_value("health_expect", NULL, s->options), "result") == 0;
		s->probes = bcmig_option_int64("health_probes", NULL, s->options, 0);
		s->required = bcmig_option_int64("health_required", NULL, s->options, 0);
		s->interval = bcmig_option_int64("health_interval", NULL, s->options, 0);
		s->success_count = bcmig_option_int64("success_count", NULL, s->options, 0);
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	return sides;
}

/* ---- what a body says ---- */

typedef struct Body
{
	const char *text;
	bool		has_result;		/* it is a JSON object with a boolean "result" */
	bool		result;
} Body;

static void
read_body(void *arg)
{
	Body	   *body = arg;
	JsonbValue	buf;
	JsonbValue *v;
	Jsonb	   *json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
														  CStringGetDatum(pg_any_to_server(body->text, strlen(body->text), PG_UTF8))));

	if (!JB_ROOT_IS_OBJECT(json))
		return;
	v = getKeyJsonValueFromContainer(&json->root, "result", 6, &buf);
	body->has_result = v != NULL && v->type == jbvBool;
	body->result = body->has_result && v->val.boolean;
}

/*
 * NULL, or what is wrong with it.  One that says that it is not well is believed
 * whatever is expected.
 */
static char *
body_problem(const Side *side, const char *text)
{
	Body		body = {text};

	/* whatever it is, it only makes a subtransaction fail */
	bcmig_start_transaction();
	if (text[strspn(text, " \t\r\n")] == '{')
		(void) bcmig_try(read_body, &body);
	bcmig_end_transaction();
	if (body.has_result)
		return body.result ? NULL : "the body says \"result\": false";
	return side->result ? "the body is not {\"result\": true}" : NULL;
}

/* ---- asking ---- */

/* bytes of the other side may be in it */
static char *
printable(char *text)
{
	for (char *p = text; *p; p++)
	{
		if ((unsigned char) *p < ' ' || (unsigned char) *p >= 0x7f)
			*p = '?';
	}
	return text;
}

static bool
probe(const Side *side, int timeout, char **detail)
{
	BcmigHttpRequest request = {.method = "GET", .url = side->url, .ca_file = side->ca_file, .timeout = timeout, .most_bytes = MOST_ANSWER};
	BcmigHttpAnswer *answer = bcmig_http(&request);
	char	   *problem = NULL;

	if (answer->error != NULL)
	{
		*detail = psprintf("%s: %s", side->url, printable(answer->error));
		return false;
	}
	if (answer->status >= 300 && answer->status < 400)
		problem = "a redirect, which is not followed";
	else if (answer->status < 200 || answer->status >= 300)
		problem = "not 200 to 299";
	else
		problem = body_problem(side, answer->body);
	*detail = psprintf("%s: status %ld after %d ms%s%s", side->url, answer->status, answer->ms,
					   problem ? ", " : "", problem ? problem : "");
	return problem == NULL;
}

static void
pause_for(int ms)
{
	TimestampTz until = TimestampTzPlusMilliseconds(bcmig_steady_time(), ms);
	TimestampTz now;

	while ((now = bcmig_steady_time()) < until)
	{
		bcmig_pause(Max(1, TimestampDifferenceMilliseconds(now, until)));
	}
}

/* false: given up.  The detail is that of the last probe which decided it */
static bool
ask(const Side *side, int sync_id, int timeout, bool *answer, char **detail)
{
	int			well = 0;
	int			ill = 0;
	char	   *last[2] = {NULL, NULL};

	for (;;)
	{
		char	   *said;
		bool		ok = probe(side, timeout, &said);

		last[ok] = said;
		if (ok)
			well++;
		else
			ill++;
		if (well >= side->required || ill > side->probes - side->required)
			break;
		if (bcmig_way_back_asked(sync_id))
			return false;
		pause_for(side->interval);
	}
	*answer = well >= side->required;
	*detail = last[*answer];
	if (side->probes > 1)
		*detail = psprintf("%s (%d of %d probes were well, %d must be)", *detail, well, well + ill, side->required);
	return true;
}

/* returns how many have been well in a row */
static int
store(const Side *side, bool ok, const char *detail)
{
	BcmigCatalogScope scope;
	int			row = 0;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("INSERT INTO bcmig.health AS h (environment_id, url, asked_at, counts_until, ok, detail, successes, failures) "
				  "SELECT environment_id, $2, clock_timestamp(), clock_timestamp() + $5 * interval '1 s', $3, $4, $3::int, (NOT $3)::int "
				  "FROM bcmig.environment WHERE environment_id = $1 FOR KEY SHARE "
				  "ON CONFLICT (environment_id) DO UPDATE SET url = excluded.url, asked_at = excluded.asked_at, counts_until = excluded.counts_until, "
				  " ok = excluded.ok, detail = excluded.detail, "
				  " successes = CASE WHEN NOT excluded.ok THEN 0 WHEN h.url = excluded.url AND h.asked_at > excluded.asked_at - $6 * interval '1 s' THEN h.successes + 1 ELSE 1 END, "
				  " failures = CASE WHEN excluded.ok THEN 0 WHEN h.url = excluded.url AND h.asked_at > excluded.asked_at - $6 * interval '1 s' THEN h.failures + 1 ELSE 1 END "
				  "RETURNING h.successes",
				  "itbtii", side->environment_id, side->url, (int) ok, detail, ANSWER_COUNTS, SERIES_GAP) > 0)
		row = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	return row;
}

void
bcmig_ask_health(const BcmigSync *sync, int timeout)
{
	ListCell   *lc;

	foreach(lc, load_sides(sync))
	{
		Side	   *side = lfirst(lc);

		for (int asked = 1;; asked++)
		{
			char	   *detail;
			bool		ok;

			if (!ask(side, sync->sync_id, timeout, &ok, &detail))
				return;
			if (store(side, ok, detail) >= side->success_count || !ok || asked >= side->success_count)
				break;
			if (bcmig_way_back_asked(sync->sync_id))
				return;
			pause_for(side->interval);
		}
	}
}

/* ---- the gates ---- */

List *
bcmig_health_gates(List *checks, MemoryContext context, const BcmigSync *sync, bool asking)
{
	uint64		n = bcmig_sql("SELECT e.side, " HEALTH_URL ", h.ok, extract(epoch FROM clock_timestamp() - h.asked_at)::int8, "
							  " h.detail, e.name, h.successes, h.failures, "
							  " coalesce((e.options->>'success_count')::int, 1), coalesce((e.options->>'failure_limit')::int, 1), "
							  " h.url IS DISTINCT FROM " HEALTH_URL ", h.counts_until < clock_timestamp() "
							  "FROM bcmig.environment e LEFT JOIN bcmig.health h USING (environment_id) "
							  "WHERE e.environment_id = $1 OR e.side = 'green' ORDER BY 1", "i", sync->environment_id);

	MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *name = psprintf("health of %s", bcmig_get_text(i, 1));
		char	   *url = bcmig_get_text(i, 2);
		bool		ok = bcmig_get_bool(i, 3);
		int64		age = bcmig_get_int64(i, 4, 0);
		char	   *detail = bcmig_get_text(i, 5);
		char	   *environment = quote_literal_cstr(bcmig_get_text(i, 6));
		int64		row = bcmig_get_int64(i, ok ? 7 : 8, 0);
		int64		wanted = bcmig_get_int64(i, ok ? 9 : 10, 1);
		bool		other = bcmig_get_bool(i, 11);
		bool		old = bcmig_get_bool(i, 12);
		char	   *fix = psprintf("SELECT bcmig_alter_environment(%s, '{\"health_url\": \"https://...\"}');", environment);

		if (url == NULL)
			checks = bcmig_add_check(checks, name, "skipped", NULL, NULL, "No health URL is known.", fix);
		else if (other || (old && !asking))
			checks = bcmig_add_check(checks, name, asking ? "skipped" : "inconclusive",
									 other ? "not asked" : psprintf("asked " INT64_FORMAT " s ago", age), ANSWER_COUNTS_TEXT,
									 asking ? "Asked when a weight is raised." : url, NULL);
		else
			checks = bcmig_add_check(checks, name, row < wanted ? "inconclusive" : ok ? "ok" : "fail",
									 psprintf("%s " INT64_FORMAT " times in a row, asked " INT64_FORMAT " s ago", ok ? "well" : "ill", row, age),
									 ok ? psprintf("well " INT64_FORMAT " times", wanted) : psprintf("ill less than " INT64_FORMAT " times", wanted),
									 detail, ok ? NULL : fix);
	}
	return checks;
}
