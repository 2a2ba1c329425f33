/*-------------------------------------------------------------------------
 *
 * http.h
 *	  HTTP requests, and lines exchanged over a socket.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_HTTP_H
#define BCMIG_HTTP_H

#include "nodes/pg_list.h"

typedef struct BcmigHttpRequest
{
	const char *method;			/* GET, HEAD, POST, PUT, PATCH or DELETE */
	const char *url;			/* http or https */
	List	   *headers;		/* char *, "Name: value" */
	const char *body;			/* NULL = none */
	const char *ca_file;		/* certificates that are trusted; NULL = the system's */
	int			timeout;		/* ms, of all of it */
	int			most_bytes;		/* of the answer's body: more is an error */
} BcmigHttpRequest;

typedef struct BcmigHttpAnswer
{
	long		status;			/* 0 = there was no answer */
	char	   *body;			/* never NULL */
	char	   *error;			/* NULL = an answer came, whatever its status */
	int			ms;				/* how long it took */
} BcmigHttpAnswer;

/*
 * Send a request, in the current memory context.  Only interrupts and lack of
 * memory are raised.  Not in a transaction and with no lock held: the other
 * side may take its time.
 *
 * Redirects are not followed and proxies not used; certificates and host
 * names are verified.
 */
extern BcmigHttpAnswer *bcmig_http(const BcmigHttpRequest *request);

/* the same for one line sent to a socket (tcp://host:port, unix:///path) that answers and closes */
extern BcmigHttpAnswer *bcmig_socket_line(const char *url, const char *line, int timeout, int most_bytes);

/* a URL, taken apart */
typedef struct BcmigUrl
{
	char	   *origin;			/* scheme://host:port, in lower case, the port always */
	char	   *path;			/* without dot segments */
	char	   *query;			/* NULL = none */
	char	   *whole;			/* all of it */
} BcmigUrl;

/*
 * A URL of http or https, which may be relative to "base" when there is one.
 * NULL when it is none, or holds a user or a fragment.
 */
extern BcmigUrl *bcmig_url(const char *base, const char *url);

#endif							/* BCMIG_HTTP_H */
