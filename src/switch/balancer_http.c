/*-------------------------------------------------------------------------
 *
 * balancer_http.c
 *	  A balancer that is set and read by HTTP requests a DBA describes.
 *
 * Options: server (a foreign server of wrapper bcmig_http, see http_server.c),
 * and two requests:
 *
 *	set		method, url, headers, body, expect_status
 *	get		the same, and path: a JSON path to the percent of green in the answer
 *
 * url may be relative to the balancer's; both must lie below the server's.  In
 * url, header values and body stand {{percent}}, {{blue_percent}}, {{sync}},
 * {{name}}, and the secrets of the user mapping of the sync's owner: {{user}},
 * {{password}}, {{token}}, {{basic}}.  What is filled in is escaped for the
 * place it stands in.
 *
 * No answer of the balancer and no filled-in template gets into a message: both
 * may hold a secret.  Messages show the templates.
 *
 * Memory: all in the context of the job, secrets too.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "balancer.h"
#include "catalog.h"
#include "http_server.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/formatting.h"
#include "utils/json.h"
#include "utils/numeric.h"

#define MOST_ANSWER		(1024 * 1024)
#define NO_PERCENT		-1

typedef struct Header
{
	char	   *name;
	char	   *value;			/* a template */
} Header;

/* one of the two requests, as it is configured */
typedef struct Exchange
{
	const char *what;			/* set or get */
	char	   *method;
	char	   *url;			/* a template */
	char	   *body;			/* a template; NULL = none */
	List	   *headers;		/* Header * */
	List	   *statuses;		/* int: that mean it was done */
	char	   *path;			/* get only */
} Exchange;

/* how a value is written where it stands */
typedef enum Place
{
	IN_URL,
	IN_JSON,
	IN_HEADER,
	IN_UNKNOWN					/* a body of another type: numbers only */
} Place;

/* ---- configuration ---- */

static char *
example(const BcmigBalancer *b)
{
	return psprintf("SELECT bcmig_add_balancer(%s, %s, 'http', 'https://gw.example:8443/api/', '{\"server\": \"gw\", "
					"\"set\": {\"method\": \"PUT\", \"url\": \"weights\", \"headers\": {\"Authorization\": \"Bearer {{token}}\"}, \"body\": \"{\\\"green\\\": {{percent}}}\"}, "
					"\"get\": {\"url\": \"weights\", \"headers\": {\"Authorization\": \"Bearer {{token}}\"}, \"path\": \"$.green\"}}');",
					quote_literal_cstr(b->sync_name), quote_literal_cstr(b->name));
}

static void
refuse(const BcmigBalancer *b, const char *what, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("option %s of balancer \"%s\": %s", what, b->name, problem),
			 errhint("%s", example(b))));
}

/* a member that must be a text where it is there */
static char *
text_member(const BcmigBalancer *b, const Exchange *e, JsonbContainer *object, const char *name, char *if_missing)
{
	JsonbValue	buf;

	if (getKeyJsonValueFromContainer(object, name, strlen(name), &buf) == NULL)
		return if_missing;
	if (buf.type != jbvString)
		refuse(b, e->what, psprintf("%s must be a text", name));
	return bcmig_json_text(object, name);
}

static bool
is_word(const char *s)
{
	return *s != '\0' && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == strlen(s);
}

static bool
is_in(const char *name, const char *const *names)
{
	for (; *names != NULL; names++)
	{
		if (pg_strcasecmp(name, *names) == 0)
			return true;
	}
	return false;
}

static void
read_headers(const BcmigBalancer *b, Exchange *e, JsonbContainer *object)
{
	/* what the request is, and where it goes, is not theirs to say */
	static const char *const ours[] = {"Host", "Content-Length", "Transfer-Encoding", "Connection", "Expect", NULL};
	static const char *const secret[] = {"Authorization", "Proxy-Authorization", "Cookie", NULL};
	JsonbValue	buf;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;
	Header	   *h = NULL;

	if (getKeyJsonValueFromContainer(object, "headers", strlen("headers"), &buf) == NULL)
		return;
	if (buf.type != jbvBinary || !JsonContainerIsObject(buf.val.binary.data))
		refuse(b, e->what, "headers must be an object of texts");
	it = JsonbIteratorInit(buf.val.binary.data);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			h = palloc0(sizeof(Header));
			h->name = pnstrdup(v.val.string.val, v.val.string.len);
			if (!is_word(h->name) || is_in(h->name, ours))
				refuse(b, e->what, psprintf("\"%s\" is no header that can be given", h->name));
		}
		else if (token == WJB_VALUE)
		{
			if (v.type != jbvString)
				refuse(b, e->what, psprintf("header %s must be a text", h->name));
			h->value = pnstrdup(v.val.string.val, v.val.string.len);
			if (is_in(h->name, secret) && strstr(h->value, "{{") == NULL)
				refuse(b, e->what, psprintf("a secret does not belong in header %s as it is: give it to the user mapping, and its template here", h->name));
			e->headers = lappend(e->headers, h);
		}
	}
}

static void
read_statuses(const BcmigBalancer *b, Exchange *e, JsonbContainer *object)
{
	JsonbValue	buf;

	if (getKeyJsonValueFromContainer(object, "expect_status", strlen("expect_status"), &buf) == NULL)
	{
		e->statuses = list_make2_int(200, 204);
		return;
	}
	if (buf.type == jbvBinary && JsonContainerIsArray(buf.val.binary.data))
	{
		for (uint32 i = 0; i < JsonContainerSize(buf.val.binary.data); i++)
		{
			JsonbValue *v = getIthJsonbValueFromContainer(buf.val.binary.data, i);
			double		status = v->type == jbvNumeric ?
				DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(v->val.numeric))) : 0;

			if (!(status >= 200 && status < 300 && status == (int) status))
				refuse(b, e->what, "expect_status must be a list of numbers from 200 to 299");
			e->statuses = lappend_int(e->statuses, (int) status);
		}
	}
	if (e->statuses == NIL)
		refuse(b, e->what, "expect_status must be a list of numbers from 200 to 299");
}

/* ERROR when it is not as it should be; templates are looked at when they are filled in */
static Exchange *
read_exchange(const BcmigBalancer *b, const char *what)
{
	static const char *const methods[] = {"GET", "POST", "PUT", "PATCH", "DELETE", NULL};
	bool		set = strcmp(what, "set") == 0;
	Exchange   *e = palloc0(sizeof(Exchange));
	List	   *known = list_make5("method", "url", "headers", "body", "expect_status");
	JsonbContainer *object;
	JsonbValue	buf;

	e->what = what;
	if (getKeyJsonValueFromContainer(&b->options->root, what, strlen(what), &buf) == NULL ||
		buf.type != jbvBinary || !JsonContainerIsObject(buf.val.binary.data))
		refuse(b, what, "an object that describes the request is needed");
	object = buf.val.binary.data;
	bcmig_balancer_keys(b, object, set ? "set." : "get.", set ? known : lappend(known, "path"));
	e->method = text_member(b, e, object, "method", set ? "PUT" : "GET");
	e->url = text_member(b, e, object, "url", "");
	e->body = text_member(b, e, object, "body", NULL);
	e->path = text_member(b, e, object, "path", NULL);
	if (!is_in(e->method, methods))
		refuse(b, what, "method must be GET, POST, PUT, PATCH or DELETE");
	e->method = asc_toupper(e->method, strlen(e->method));
	if (!set && e->path == NULL)
		refuse(b, what, "path is needed, a JSON path to the percent of green");
	read_headers(b, e, object);
	read_statuses(b, e, object);
	return e;
}

/* ---- templates ---- */

typedef struct Fill
{
	const BcmigBalancer *balancer;
	const Exchange *exchange;
	const BcmigHttpServer *server;	/* NULL: secrets and percents stay as they are */
	double		percent;		/* NO_PERCENT in get */
} Fill;

/* plain digits, no more than it is exact for */
static char *
digits(double percent)
{
	return DatumGetCString(DirectFunctionCall1(numeric_out, DirectFunctionCall1(float8_numeric, Float8GetDatum(percent))));
}

/* NULL: it is not to be filled in now */
static char *
value_of(const Fill *fill, const char *name, bool *number)
{
	bool		of_blue = strcmp(name, "blue_percent") == 0;

	*number = of_blue || strcmp(name, "percent") == 0;
	if (strcmp(name, "sync") == 0)
		return fill->balancer->sync_name;
	if (strcmp(name, "name") == 0)
		return fill->balancer->name;
	if (*number && fill->server != NULL && fill->percent == NO_PERCENT)
		refuse(fill->balancer, fill->exchange->what, psprintf("{{%s}} is not known when the weight is read", name));
	if (!*number && !bcmig_is_http_secret(name))
		refuse(fill->balancer, fill->exchange->what,
			   psprintf("there is no {{%s}}, but {{percent}}, {{blue_percent}}, {{sync}}, {{name}}, {{user}}, {{password}}, {{token}} and {{basic}}", name));
	if (fill->server == NULL)
		return NULL;
	if (*number)
		return digits(of_blue ? 100 - fill->percent : fill->percent);
	return bcmig_http_secret(fill->server, name);
}

static char *
to_utf8(char *s)
{
	return pg_server_to_any(s, strlen(s), PG_UTF8);
}

static void
append_value(StringInfo s, char *value, Place place)
{
	StringInfoData quoted;

	switch (place)
	{
		case IN_URL:
			for (const unsigned char *c = (unsigned char *) to_utf8(value); *c; c++)
			{
				if (isalnum(*c) && *c < 0x80)
					appendStringInfoChar(s, *c);
				else if (strchr("-._~", *c) != NULL)
					appendStringInfoChar(s, *c);
				else
					appendStringInfo(s, "%%%02X", *c);
			}
			break;
		case IN_JSON:
			/* the quotes are the template's */
			initStringInfo(&quoted);
			escape_json(&quoted, value);
			appendBinaryStringInfo(s, quoted.data + 1, quoted.len - 2);
			break;
		case IN_HEADER:
		case IN_UNKNOWN:
			appendStringInfoString(s, value);
			break;
	}
}

/* a template, filled in; as UTF-8 */
static char *
filled(const Fill *fill, const char *template, Place place)
{
	StringInfoData s;
	const char *open;

	initStringInfo(&s);
	while ((open = strstr(template, "{{")) != NULL)
	{
		const char *close = strstr(open, "}}");
		char	   *name;
		char	   *value;
		bool		number;

		if (close == NULL)
			refuse(fill->balancer, fill->exchange->what, "{{ without }}");
		name = pnstrdup(open + 2, close - open - 2);
		value = value_of(fill, name, &number);
		appendBinaryStringInfo(&s, template, open - template);
		if (value == NULL)
			appendStringInfo(&s, "{{%s}}", name);
		else if (place == IN_UNKNOWN && !number)
			refuse(fill->balancer, fill->exchange->what,
				   psprintf("{{%s}} can be put into a body of JSON, or of a form (Content-Type application/x-www-form-urlencoded), only", name));
		else
			append_value(&s, value, place);
		template = close + 2;
	}
	appendStringInfoString(&s, template);
	return to_utf8(s.data);
}

static char *
filled_header(const Fill *fill, const Header *h)
{
	char	   *value = filled(fill, h->value, IN_HEADER);

	for (const unsigned char *c = (unsigned char *) value; *c; c++)
	{
		if ((*c < ' ' && *c != '\t') || *c == 0x7f)
			refuse(fill->balancer, fill->exchange->what, psprintf("header %s would hold an end of line or another control character", h->name));
	}
	if (value[strspn(value, " \t")] == '\0')
		refuse(fill->balancer, fill->exchange->what, psprintf("header %s would be empty", h->name));
	return psprintf("%s: %s", h->name, value);
}

/* what the body is, by its header, which is added where it is missing */
static Place
place_of_body(const Exchange *e, List **headers)
{
	ListCell   *lc;

	foreach(lc, e->headers)
	{
		const Header *h = lfirst(lc);

		if (pg_strcasecmp(h->name, "Content-Type") != 0)
			continue;
		return pg_strncasecmp(h->value, "application/x-www-form-urlencoded", 33) == 0 ? IN_URL :
			strstr(h->value, "json") != NULL ? IN_JSON : IN_UNKNOWN;
	}

	/* libcurl would say that it is a form */
	*headers = lappend(*headers, e->body != NULL ? "Content-Type: application/json" : "Content-Type:");
	return IN_JSON;
}

/*
 * The request of an exchange.  ERROR when it cannot be made.
 */
static BcmigHttpRequest
make_request(const BcmigBalancer *b, const Exchange *e, double percent)
{
	BcmigHttpRequest request = {.method = e->method, .timeout = b->timeout, .most_bytes = MOST_ANSWER};
	Fill		fill = {b, e, bcmig_http_server(bcmig_balancer_text(b, "server"), b->owner), percent};
	BcmigUrl   *url;
	ListCell   *lc;
	Place		place;

	url = bcmig_url(b->url, filled(&fill, e->url, IN_URL));
	if (url == NULL)
		refuse(b, e->what, psprintf("\"%s\" and \"%s\" make no URL of http or https", b->url, e->url));
	if (!bcmig_http_may(fill.server, url))
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("\"%s\" and \"%s\" of balancer \"%s\" make no URL below that of server \"%s\"", b->url, e->url, b->name, fill.server->name),
				 errdetail("Requests go to %s and below only.", fill.server->url->whole)));
	request.url = url->whole;
	request.ca_file = fill.server->ca_file;
	foreach(lc, e->headers)
		request.headers = lappend(request.headers, filled_header(&fill, lfirst(lc)));
	place = place_of_body(e, &request.headers);
	if (e->body != NULL)
		request.body = filled(&fill, e->body, place);
	else if (strcmp(e->method, "GET") != 0 && strcmp(e->method, "DELETE") != 0)
		request.body = "";
	return request;
}

static bool
has_percent(const char *template)
{
	return template != NULL && (strstr(template, "{{percent}}") != NULL || strstr(template, "{{blue_percent}}") != NULL);
}

static void
http_check(const BcmigBalancer *b)
{
	Exchange   *set;
	Exchange   *get;
	bool		found;
	ListCell   *lc;
	BcmigCatalogScope scope;

	if (bcmig_url(NULL, b->url) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("the url of balancer \"%s\" is not one of http or https", b->name),
				 errdetail("Without user and fragment: secrets belong to a user mapping."),
				 errhint("%s", example(b))));
	bcmig_balancer_keys(b, &b->options->root, "", list_make3("server", "set", "get"));
	if (bcmig_balancer_text(b, "server") == NULL)
		refuse(b, "server", "the name of a foreign server of wrapper bcmig_http is needed");
	set = read_exchange(b, "set");
	get = read_exchange(b, "get");
	found = has_percent(set->url) || has_percent(set->body);
	foreach(lc, set->headers)
		found = found || has_percent(((Header *) lfirst(lc))->value);
	if (!found)
		refuse(b, "set", "{{percent}} or {{blue_percent}} must be in it");
	(void) make_request(b, set, 50);
	(void) make_request(b, get, NO_PERCENT);
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT $1::jsonpath", "t", get->path);
	bcmig_catalog_end(&scope);
}

/* the URL that is set, as far as it is known without secrets */
static char *
http_backend(const BcmigBalancer *b)
{
	Exchange   *set = read_exchange(b, "set");
	Fill		fill = {b, set, NULL, NO_PERCENT};
	char	   *template = filled(&fill, set->url, IN_URL);
	BcmigUrl   *url = bcmig_url(b->url, template);

	return url ? url->whole : psprintf("%s and %s", b->url, template);
}

/* ---- requests ---- */

typedef struct Making
{
	const BcmigBalancer *balancer;
	const char *what;
	double		percent;
	Exchange   *exchange;
	BcmigHttpRequest request;
} Making;

static void
make(void *arg)
{
	Making	   *m = arg;

	m->exchange = read_exchange(m->balancer, m->what);
	m->request = make_request(m->balancer, m->exchange, m->percent);
}

/* NULL, or what went wrong; *answer is set when an answer came */
static char *
exchange(const BcmigBalancer *b, const char *what, double percent, Exchange **e, BcmigHttpAnswer **answer)
{
	Making		m = {b, what, percent};
	char	   *error = bcmig_balancer_try(make, &m, b->timeout);
	StringInfoData wanted;
	ListCell   *lc;

	if (error != NULL)
		return error;
	*e = m.exchange;
	*answer = bcmig_http(&m.request);
	if ((*answer)->error != NULL)
		return psprintf("%s %s at %s: %s", m.exchange->method, m.exchange->url, b->url, (*answer)->error);
	if (list_member_int(m.exchange->statuses, (*answer)->status))
		return NULL;
	initStringInfo(&wanted);
	foreach(lc, m.exchange->statuses)
		appendStringInfo(&wanted, "%s%d", wanted.len > 0 ? ", " : "", lfirst_int(lc));
	return psprintf("%s %s at %s: status %ld, wanted %s", m.exchange->method, m.exchange->url, b->url, (*answer)->status, wanted.data);
}

static char *
http_set(const BcmigBalancer *b, double green_percent)
{
	Exchange   *e;
	BcmigHttpAnswer *answer;

	return exchange(b, "set", green_percent, &e, &answer);
}

typedef struct Reading
{
	const char *path;
	char	   *body;
	int			n;				/* what the path finds */
	char	   *type;			/* of the first one */
	double		percent;		/* where that is a number */
} Reading;

static void
read_share(void *arg)
{
	Reading    *r = arg;
	MemoryContext caller = CurrentMemoryContext;
	char	   *body = pg_any_to_server(r->body, strlen(r->body), PG_UTF8);
	BcmigCatalogScope scope;
	bool		isnull;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT count(*), min(jsonb_typeof(v)), min(CASE WHEN jsonb_typeof(v) = 'number' THEN v::float8 ELSE -1 END) "
			  "FROM jsonb_path_query($1, $2::jsonpath, '{}', true) v", "jt", body, r->path);
	r->n = bcmig_get_int64(0, 1, 0);
	if (r->n > 0)
	{
		r->type = MemoryContextStrdup(caller, bcmig_get_text(0, 2));
		r->percent = DatumGetFloat8(bcmig_get_datum(0, 3, &isnull));
	}
	bcmig_catalog_end(&scope);
}

static char *
http_get(const BcmigBalancer *b, double *green_percent)
{
	Reading		r = {0};
	Exchange   *e;
	BcmigHttpAnswer *answer;
	char	   *error = exchange(b, "get", NO_PERCENT, &e, &answer);
	char	   *problem;

	if (error != NULL)
		return error;
	r.path = e->path;
	r.body = answer->body;
	error = bcmig_balancer_try(read_share, &r, b->timeout);

	/* not the error itself: it may show what the answer holds */
	if (error != NULL)
		problem = psprintf("the answer could not be read as JSON (SQLSTATE %s)", pnstrdup(error, 5));
	else if (r.n != 1)
		problem = psprintf("%s finds %d values in the answer", e->path, r.n);
	else if (strcmp(r.type, "number") != 0)
		problem = psprintf("%s finds a %s, no number", e->path, r.type);
	else if (!(r.percent >= 0 && r.percent <= 100))
		problem = psprintf("%s finds %g, no percentage", e->path, r.percent);
	else
	{
		*green_percent = r.percent;
		return NULL;
	}
	return psprintf("%s %s at %s: %s", e->method, e->url, b->url, problem);
}

const BcmigBalancerDriver bcmig_http_balancer = {
	.name = "http",
	.check = http_check,
	.backend = http_backend,
	.set = http_set,
	.get = http_get,
};
