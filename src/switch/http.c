/*-------------------------------------------------------------------------
 *
 * http.c
 *	  HTTP requests, lines exchanged over a socket, URLs: all that knows libcurl.
 *
 * One transfer at a time, through a multi handle, so that the process looks up
 * every WAIT_MS whatever the other side does: curl_multi_poll() returns when
 * something has happened on the socket, when its time is up, and when a signal
 * came.  Then interrupts are checked, outside of libcurl.
 *
 * libcurl's callbacks never raise: they would jump over its frames.  They write
 * into a buffer of full size and stop when it is full.  Signals are blocked
 * while libcurl may start its resolver thread, so that handlers of ours run on
 * the main thread only.
 *
 * Handles live in malloc'ed memory and are freed on every way out.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "http.h"

#include <curl/curl.h>

#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "portability/instr_time.h"

StaticAssertDecl(LIBCURL_VERSION_NUM >= 0x075500, "bcmig needs libcurl 7.85 or newer");

#define WAIT_MS		50

typedef struct Transfer
{
	CURLM	   *multi;
	CURL	   *easy;
	struct curl_slist *headers;
	instr_time	started;
	int			timeout;		/* ms */
	char		message[CURL_ERROR_SIZE];
	char	   *body;			/* most_bytes + 1 */
	int			bytes;
	int			most_bytes;
	bool		too_long;
} Transfer;

static int
elapsed_ms(const Transfer *t)
{
	instr_time	now;

	INSTR_TIME_SET_CURRENT(now);
	INSTR_TIME_SUBTRACT(now, t->started);
	return (int) INSTR_TIME_GET_MILLISEC(now);
}

static size_t
take_body(char *data, size_t size, size_t n, void *arg)
{
	Transfer   *t = arg;

	if (size * n > t->most_bytes - t->bytes)
	{
		t->too_long = true;
		return 0;
	}
	memcpy(t->body + t->bytes, data, size * n);
	t->bytes += size * n;
	return size * n;
}

static void
begin(Transfer *t, int timeout, int most_bytes)
{
	static bool initialized = false;

	/* in the process that needs it, never in the postmaster */
	if (!initialized && curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("libcurl could not be initialized")));
	initialized = true;
	memset(t, 0, sizeof(*t));
	INSTR_TIME_SET_CURRENT(t->started);
	t->timeout = timeout;
	t->most_bytes = most_bytes;
	t->body = palloc(most_bytes + 1);
	t->multi = curl_multi_init();
	t->easy = curl_easy_init();
	if (t->multi == NULL || t->easy == NULL)
	{
		curl_easy_cleanup(t->easy);
		curl_multi_cleanup(t->multi);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory in libcurl")));
	}
	curl_easy_setopt(t->easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, t->message);
	curl_easy_setopt(t->easy, CURLOPT_PROXY, "");
	curl_easy_setopt(t->easy, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(t->easy, CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(t->easy, CURLOPT_TIMEOUT_MS, (long) timeout);
	curl_easy_setopt(t->easy, CURLOPT_CONNECTTIMEOUT_MS, (long) timeout);
}

static void
end(Transfer *t)
{
	curl_multi_remove_handle(t->multi, t->easy);
	curl_easy_cleanup(t->easy);
	curl_multi_cleanup(t->multi);
	curl_slist_free_all(t->headers);
}

/* drive the transfer to its end */
static CURLcode
drive(Transfer *t)
{
	CURLcode	result = CURLE_OK;
	bool		done = false;

	if (curl_multi_add_handle(t->multi, t->easy) != CURLM_OK)
		return CURLE_OUT_OF_MEMORY;
	while (!done)
	{
		int			running;
		int			queued;
		CURLMcode	code;
		CURLMsg    *msg;

		sigprocmask(SIG_SETMASK, &BlockSig, NULL);
		code = curl_multi_perform(t->multi, &running);
		sigprocmask(SIG_SETMASK, &UnBlockSig, NULL);
		if (code != CURLM_OK)
			return CURLE_FAILED_INIT;
		while ((msg = curl_multi_info_read(t->multi, &queued)) != NULL)
		{
			if (msg->msg == CURLMSG_DONE)
			{
				result = msg->data.result;
				done = true;
			}
		}
		if (!done)
			(void) curl_multi_poll(t->multi, NULL, 0, WAIT_MS, NULL);
		CHECK_FOR_INTERRUPTS();
	}
	return result;
}

/* what went wrong, in words; NULL = nothing */
static char *
error_of(const Transfer *t, CURLcode code)
{
	if (t->too_long)
		return psprintf("the answer is longer than %d bytes", t->most_bytes);
	if (code == CURLE_OK)
		return NULL;
	if (code == CURLE_OPERATION_TIMEDOUT)
		return psprintf("no answer within %d ms", t->timeout);
	return pstrdup(t->message[0] ? t->message : curl_easy_strerror(code));
}

static BcmigHttpAnswer *
answer_of(Transfer *t, char *error)
{
	BcmigHttpAnswer *answer = palloc0(sizeof(BcmigHttpAnswer));

	t->body[t->bytes] = '\0';
	answer->body = t->body;
	answer->error = error;
	answer->ms = elapsed_ms(t);
	return answer;
}

BcmigHttpAnswer *
bcmig_http(const BcmigHttpRequest *request)
{
	Transfer	t;
	BcmigHttpAnswer *volatile answer = NULL;
	ListCell   *lc;

	begin(&t, request->timeout, request->most_bytes);
	PG_TRY();
	{
		CURLcode	code;

		foreach(lc, request->headers)
			t.headers = curl_slist_append(t.headers, lfirst(lc));
		curl_easy_setopt(t.easy, CURLOPT_PROTOCOLS_STR, "http,https");
		curl_easy_setopt(t.easy, CURLOPT_URL, request->url);
		curl_easy_setopt(t.easy, CURLOPT_HTTPHEADER, t.headers);
		curl_easy_setopt(t.easy, CURLOPT_USERAGENT, "bcmig");
		curl_easy_setopt(t.easy, CURLOPT_WRITEFUNCTION, take_body);
		curl_easy_setopt(t.easy, CURLOPT_WRITEDATA, &t);
		if (request->ca_file != NULL)
			curl_easy_setopt(t.easy, CURLOPT_CAINFO, request->ca_file);
		if (strcmp(request->method, "HEAD") == 0)
			curl_easy_setopt(t.easy, CURLOPT_NOBODY, 1L);
		if (request->body != NULL)
		{
			curl_easy_setopt(t.easy, CURLOPT_POSTFIELDSIZE, (long) strlen(request->body));
			curl_easy_setopt(t.easy, CURLOPT_POSTFIELDS, request->body);
		}
		curl_easy_setopt(t.easy, CURLOPT_CUSTOMREQUEST, request->method);
		code = drive(&t);
		answer = answer_of(&t, error_of(&t, code));
		curl_easy_getinfo(t.easy, CURLINFO_RESPONSE_CODE, &answer->status);
	}
	PG_FINALLY();
	{
		end(&t);
	}
	PG_END_TRY();
	return answer;
}

/*
 * After CURLOPT_CONNECT_ONLY: send all of it, or receive what is there.
 * CURLE_AGAIN waits for the socket, no longer than the transfer may take.
 */
static CURLcode
exchange(Transfer *t, const char *line)
{
	size_t		sent = 0;
	size_t		len = strlen(line);
	size_t		n = 0;
	curl_socket_t socket;
	CURLcode	code;

	code = curl_easy_getinfo(t->easy, CURLINFO_ACTIVESOCKET, &socket);
	while (code == CURLE_OK || code == CURLE_AGAIN)
	{
		if (code == CURLE_AGAIN)
		{
			struct curl_waitfd fd = {socket, sent < len ? CURL_WAIT_POLLOUT : CURL_WAIT_POLLIN, 0};

			if (elapsed_ms(t) >= t->timeout)
				return CURLE_OPERATION_TIMEDOUT;
			(void) curl_multi_poll(t->multi, &fd, 1, WAIT_MS, NULL);
		}
		CHECK_FOR_INTERRUPTS();
		if (sent < len)
		{
			code = curl_easy_send(t->easy, line + sent, len - sent, &n);
			if (code == CURLE_OK)
				sent += n;
			continue;
		}
		if (t->bytes == t->most_bytes)
		{
			t->too_long = true;
			return CURLE_OK;
		}
		code = curl_easy_recv(t->easy, t->body + t->bytes, t->most_bytes - t->bytes, &n);
		if (code == CURLE_OK && n == 0)
			return CURLE_OK;	/* the other side has closed */
		if (code == CURLE_OK)
			t->bytes += n;
	}
	return code;
}

BcmigHttpAnswer *
bcmig_socket_line(const char *url, const char *line, int timeout, int most_bytes)
{
	Transfer	t;
	BcmigHttpAnswer *volatile answer = NULL;
	bool		local = strncmp(url, "unix://", 7) == 0;

	begin(&t, timeout, most_bytes);
	PG_TRY();
	{
		CURLcode	code;

		curl_easy_setopt(t.easy, CURLOPT_CONNECT_ONLY, 1L);
		curl_easy_setopt(t.easy, CURLOPT_PROTOCOLS_STR, "http");
		if (local)
			curl_easy_setopt(t.easy, CURLOPT_UNIX_SOCKET_PATH, url + 7);
		curl_easy_setopt(t.easy, CURLOPT_URL, local ? "http://localhost/" : psprintf("http://%s/", url + 6));
		code = drive(&t);
		if (code == CURLE_OK)
			code = exchange(&t, psprintf("%s\n", line));
		answer = answer_of(&t, error_of(&t, code));
	}
	PG_FINALLY();
	{
		end(&t);
	}
	PG_END_TRY();
	return answer;
}

/* ---- URLs ---- */

/* in our memory; NULL when there is none */
static char *
url_part(CURLU *handle, CURLUPart part, unsigned int flags)
{
	char	   *value = NULL;
	char	   *result = NULL;

	if (curl_url_get(handle, part, &value, flags) == CURLUE_OK)
		result = pstrdup(value);
	curl_free(value);
	return result;
}

/* libcurl refuses these in some of its versions and mends them in others */
static bool
has_controls(const char *text)
{
	for (; *text; text++)
	{
		if ((unsigned char) *text < ' ' || *text == 0x7f)
			return true;
	}
	return false;
}

BcmigUrl *
bcmig_url(const char *base, const char *url)
{
	CURLU	   *handle = curl_url();
	BcmigUrl   *volatile result = NULL;

	if (handle == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory in libcurl")));
	PG_TRY();
	{
		char	   *scheme;

		if ((base == NULL || !has_controls(base)) && !has_controls(url) &&
			(base == NULL || curl_url_set(handle, CURLUPART_URL, base, CURLU_DISALLOW_USER) == CURLUE_OK) &&
			curl_url_set(handle, CURLUPART_URL, url, CURLU_DISALLOW_USER) == CURLUE_OK &&
			(scheme = url_part(handle, CURLUPART_SCHEME, 0)) != NULL &&
			(pg_strcasecmp(scheme, "http") == 0 || pg_strcasecmp(scheme, "https") == 0) &&
			url_part(handle, CURLUPART_FRAGMENT, 0) == NULL)
		{
			BcmigUrl   *u = palloc0(sizeof(BcmigUrl));

			u->origin = psprintf("%s://%s:%s", scheme, url_part(handle, CURLUPART_HOST, 0),
								 url_part(handle, CURLUPART_PORT, CURLU_DEFAULT_PORT));
			for (char *c = u->origin; *c; c++)
				*c = pg_ascii_tolower(*c);
			u->path = url_part(handle, CURLUPART_PATH, 0);
			u->query = url_part(handle, CURLUPART_QUERY, 0);
			u->whole = psprintf("%s%s%s%s", u->origin, u->path, u->query ? "?" : "", u->query ? u->query : "");
			result = u;
		}
	}
	PG_FINALLY();
	{
		curl_url_cleanup(handle);
	}
	PG_END_TRY();
	return result;
}
