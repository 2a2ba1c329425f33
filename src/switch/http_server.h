/*-------------------------------------------------------------------------
 *
 * http_server.h
 *	  Foreign servers of wrapper bcmig_http: hosts requests may go to, and the
 *	  secrets for them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_HTTP_SERVER_H
#define BCMIG_HTTP_SERVER_H

#include "http.h"

typedef struct BcmigHttpServer
{
	char	   *name;
	Oid			role;			/* whose secrets they are */
	BcmigUrl   *url;			/* requests go below it */
	char	   *ca_file;		/* NULL = the system's */
	bool		mapped;			/* the role has a user mapping */
	List	   *secrets;		/* DefElem, of that */
} BcmigHttpServer;

/*
 * ERROR when there is none, or the role may not use it.  In a transaction;
 * memory in the caller's context.
 */
extern BcmigHttpServer *bcmig_http_server(const char *name, Oid role);

/*
 * user, password, token, or basic: user and password as HTTP's basic
 * authentication wants them.  ERROR when the mapping does not have it.
 */
extern char *bcmig_http_secret(const BcmigHttpServer *server, const char *name);
extern bool bcmig_is_http_secret(const char *name);

/* may a request go there? */
extern bool bcmig_http_may(const BcmigHttpServer *server, const BcmigUrl *url);

#endif							/* BCMIG_HTTP_SERVER_H */
