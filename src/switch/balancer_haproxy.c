/*-------------------------------------------------------------------------
 *
 * balancer_haproxy.c
 *	  HAProxy, through its runtime API.
 *
 * The url is where HAProxy's "stats socket ... level admin" listens:
 * tcp://host:port or unix:///path.  Options: backend, and the names of its
 * servers on either side, lists blue and green.
 *
 * Weights of servers are whole numbers up to 256 and only their proportion
 * counts: of each side all servers get the same, so that the sides stand as
 * (100 - p) : p as nearly as that allows.  All commands of a step go as one
 * line, which HAProxy works off without letting another in between.  What was
 * done is then read back ("show servers state"): an answer alone proves
 * nothing.
 *
 * A server with weight 0 still gets those who have its cookie, and keeps those
 * who are there.  To leave green at once its servers go into maintenance and
 * their sessions are closed.  Servers in maintenance count as weight 0; any
 * weight above 0 makes them ready.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "balancer.h"
#include "errors.h"
#include "http.h"
#include "slot.h"

#include <math.h>

#include "lib/stringinfo.h"
#include "utils/builtins.h"

#define MOST_WEIGHT		256
#define LEAVE_GRACE		500		/* ms for requests on green to end before their sessions are closed */
#define LEAVE_LOOK		20
#define MOST_ANSWER		(1024 * 1024)

/* names go into a command of words */
static bool
is_word(const char *s)
{
	return *s != '\0' && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:") == strlen(s);
}

static void
check_names(const BcmigBalancer *b, const char *option, List *names)
{
	ListCell   *lc;

	foreach(lc, names)
	{
		if (!is_word(lfirst(lc)))
			ereport(ERROR,
					(errcode(ERRCODE_BM_OPTION),
					 errmsg("\"%s\" is not the name of a backend or server of HAProxy", (char *) lfirst(lc)),
					 errdetail("Option %s of balancer \"%s\": letters, digits and - _ . : only.", option, b->name)));
	}
	if (names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("balancer \"%s\" needs option %s", b->name, option),
				 errhint("SELECT bcmig_add_balancer(%s, %s, 'haproxy', %s, '{\"backend\": \"bc\", \"blue\": [\"blue1\"], \"green\": [\"green1\"]}');",
						 quote_literal_cstr(b->sync_name), quote_literal_cstr(b->name), quote_literal_cstr(b->url))));
}

static void
haproxy_check(const BcmigBalancer *b)
{
	char	   *backend = bcmig_balancer_text(b, "backend");
	List	   *blue = bcmig_balancer_list(b, "blue");
	List	   *green = bcmig_balancer_list(b, "green");

	if (strncmp(b->url, "tcp://", 6) != 0 && strncmp(b->url, "unix:///", 8) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("\"%s\" is not the address of HAProxy's runtime API", b->url),
				 errhint("Give what \"stats socket\" in haproxy.cfg says, as tcp://host:port or unix:///path; its level must be admin.")));
	bcmig_balancer_keys(b, &b->options->root, "", list_make3("backend", "blue", "green"));
	check_names(b, "backend", backend ? list_make1(backend) : NIL);
	check_names(b, "blue", blue);
	check_names(b, "green", green);
	if (list_length(blue) > MOST_WEIGHT / 2 || list_length(green) > MOST_WEIGHT / 2)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("balancer \"%s\" has more servers than weights of HAProxy can tell apart", b->name)));
}

/* the answer to a line of commands; *error is NULL when there is one */
static char *
ask(const BcmigBalancer *b, const char *line, char **error)
{
	BcmigHttpAnswer *answer = bcmig_socket_line(b->url, line, b->timeout, MOST_ANSWER);

	*error = answer->error ? psprintf("HAProxy at %s: %s", b->url, answer->error) : NULL;
	return answer->body;
}

/* commands that say nothing when they have done it; NULL, or what HAProxy says instead */
static char *
tell(const BcmigBalancer *b, const char *line)
{
	char	   *error;
	char	   *answer = ask(b, line, &error);

	if (error != NULL)
		return error;
	answer += strspn(answer, "\r\n ");
	if (*answer == '\0')
		return NULL;
	return psprintf("HAProxy at %s refuses: %s", b->url, pnstrdup(answer, strcspn(answer, "\r\n")));
}

static void
command(StringInfo line, const BcmigBalancer *b, const char *verb, const char *server, const char *rest)
{
	appendStringInfo(line, "%s%s %s/%s%s", line->len ? "; " : "", verb, bcmig_balancer_text(b, "backend"), server, rest);
}

/*
 * Weights of one server of each side for a share of green.
 */
static void
weights_of(double percent, int nblue, int ngreen, int *blue, int *green)
{
	double		of_blue = (100 - percent) * ngreen;
	double		of_green = percent * nblue;
	double		scale = Max(of_blue, of_green) > MOST_WEIGHT || percent != floor(percent) ? MOST_WEIGHT / Max(of_blue, of_green) : 1;

	*blue = (int) rint(of_blue * scale);
	*green = (int) rint(of_green * scale);

	/* a side that is to have something gets something */
	if (percent < 100)
		*blue = Max(*blue, 1);
	if (percent > 0)
		*green = Max(*green, 1);
}

static char *
haproxy_backend(const BcmigBalancer *b)
{
	return psprintf("backend %s of HAProxy at %s", bcmig_balancer_text(b, "backend"), b->url);
}

static void
commands_of_weights(StringInfo line, const BcmigBalancer *b, double green_percent)
{
	List	   *servers[] = {bcmig_balancer_list(b, "blue"), bcmig_balancer_list(b, "green")};
	int			weights[2];

	weights_of(green_percent, list_length(servers[0]), list_length(servers[1]), &weights[0], &weights[1]);
	for (int side = 0; side < 2; side++)
	{
		ListCell   *lc;

		foreach(lc, servers[side])
		{
			command(line, b, "set weight", lfirst(lc), psprintf(" %d", weights[side]));
			if (weights[side] > 0)
				command(line, b, "set server", lfirst(lc), " state ready");
		}
	}
}

static char *
haproxy_set(const BcmigBalancer *b, double green_percent)
{
	StringInfoData line;

	initStringInfo(&line);
	commands_of_weights(&line, b, green_percent);
	return tell(b, line.data);
}

/* columns of "show servers state", version 1 */
#define COLUMN_SERVER	3
#define COLUMN_ADMIN	6
#define COLUMN_WEIGHT	7
#define NCOLUMNS		8

#define ADMIN_MAINTENANCE	0x01	/* by a command; other bits: by configuration, inherited, drained */

/*
 * Weight of a server in the answer, 0 in maintenance; -1 = it is not there.
 */
static int
weight_in(const char *state, const char *server)
{
	for (const char *line = state; *line; line += strcspn(line, "\n"), line += *line == '\n')
	{
		char	   *copy = pnstrdup(line, strcspn(line, "\n"));
		char	   *rest = NULL;
		char	   *words[NCOLUMNS];
		int			n = 0;

		if (*copy == '#')
			continue;
		for (char *word = strtok_r(copy, " ", &rest); word != NULL && n < NCOLUMNS; word = strtok_r(NULL, " ", &rest))
			words[n++] = word;
		if (n == NCOLUMNS && strcmp(words[COLUMN_SERVER], server) == 0)
			return strtol(words[COLUMN_ADMIN], NULL, 10) & ADMIN_MAINTENANCE ? 0 : (int) strtol(words[COLUMN_WEIGHT], NULL, 10);
	}
	return -1;
}

static char *
haproxy_get(const BcmigBalancer *b, double *green_percent)
{
	const char *backend = bcmig_balancer_text(b, "backend");
	List	   *servers[] = {bcmig_balancer_list(b, "blue"), bcmig_balancer_list(b, "green")};
	int			sums[2] = {0};
	char	   *error;
	char	   *state = ask(b, psprintf("show servers state %s", backend), &error);

	if (error != NULL)
		return error;
	if (strncmp(state, "1\n", 2) != 0)
		return psprintf("HAProxy at %s does not show the servers of backend %s: %s", b->url, backend, pnstrdup(state, strcspn(state, "\r\n")));
	for (int side = 0; side < 2; side++)
	{
		ListCell   *lc;

		foreach(lc, servers[side])
		{
			int			weight = weight_in(state, lfirst(lc));

			if (weight < 0)
				return psprintf("HAProxy at %s has no server %s in backend %s", b->url, (char *) lfirst(lc), backend);
			sums[side] += weight;
		}
	}
	if (sums[0] + sums[1] == 0)
		return psprintf("no server of backend %s of HAProxy at %s gets anything", backend, b->url);
	*green_percent = 100.0 * sums[1] / (sums[0] + sums[1]);
	return NULL;
}

/* columns of "show servers conn" */
#define COLUMN_NAME		0		/* backend/server */
#define COLUMN_USED		6
#define NCONN_COLUMNS	7

/*
 * Connections to these servers that are in use, as "show servers conn" has it;
 * 0 when it does not say.
 */
static long
used_in(const char *answer, const char *backend, List *servers)
{
	long		used = 0;

	for (const char *line = answer; *line; line += strcspn(line, "\n"), line += *line == '\n')
	{
		char	   *copy = pnstrdup(line, strcspn(line, "\n"));
		char	   *rest = NULL;
		char	   *words[NCONN_COLUMNS];
		int			n = 0;
		ListCell   *lc;

		for (char *word = strtok_r(copy, " ", &rest); word != NULL && n < NCONN_COLUMNS; word = strtok_r(NULL, " ", &rest))
			words[n++] = word;
		foreach(lc, servers)
		{
			if (n == NCONN_COLUMNS && strcmp(words[COLUMN_NAME], psprintf("%s/%s", backend, (char *) lfirst(lc))) == 0)
				used += strtol(words[COLUMN_USED], NULL, 10);
		}
	}
	return used;
}

/*
 * Blue first gets a weight, then green is in maintenance: cookies do not count
 * any more.  Requests it is answering get a moment to end, so that nobody sees
 * one fail; what stays connected is shut down, its clients come again at once.
 */
static char *
haproxy_leave(const BcmigBalancer *b)
{
	const char *backend = bcmig_balancer_text(b, "backend");
	List	   *green = bcmig_balancer_list(b, "green");
	StringInfoData line;
	ListCell   *lc;
	double		percent;
	char	   *error;

	initStringInfo(&line);
	commands_of_weights(&line, b, 0);
	foreach(lc, green)
		command(&line, b, "set server", lfirst(lc), " state maint");
	error = tell(b, line.data);
	for (int waited = 0; error == NULL && waited < LEAVE_GRACE; waited += LEAVE_LOOK)
	{
		char	   *answer = ask(b, psprintf("show servers conn %s", backend), &error);

		if (error != NULL || used_in(answer, backend, green) == 0)
			break;
		bcmig_pause(LEAVE_LOOK);
	}
	resetStringInfo(&line);
	foreach(lc, green)
		command(&line, b, "shutdown sessions server", lfirst(lc), "");
	if (error == NULL)
		error = tell(b, line.data);
	if (error == NULL)
		error = haproxy_get(b, &percent);
	if (error == NULL && percent > 0)
		error = psprintf("HAProxy at %s still gives green %g %%", b->url, percent);
	return error;
}

const BcmigBalancerDriver bcmig_haproxy = {
	.name = "haproxy",
	.check = haproxy_check,
	.backend = haproxy_backend,
	.set = haproxy_set,
	.get = haproxy_get,
	.leave = haproxy_leave,
};
