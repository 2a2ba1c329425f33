/*-------------------------------------------------------------------------
 *
 * http_server.c
 *	  Foreign servers of wrapper bcmig_http: hosts requests may go to, and the
 *	  secrets for them.
 *
 * A server is made by who may use the wrapper, so by default a superuser, and
 * says with its url below which URLs those with USAGE on it may have this
 * server of PostgreSQL send requests.  Secrets are options of the user mapping
 * of the role on whose behalf a request is made.  They are read when they are
 * needed, kept no longer than the request, and appear in no message.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "http_server.h"

#include "access/reloptions.h"
#include "catalog.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "common/base64.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

BCMIG_FUNCTION(bcmig_http_validator);

#define WRAPPER		"bcmig_http"

static const char *const secrets[] = {"user", "password", "token"};

static bool
is_one_of(const char *name, const char *const *names, int n)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

/* ---- options ---- */

static void
check_server_option(const char *name, const char *value)
{
	BcmigUrl   *url;

	if (strcmp(name, "ca_file") == 0)
	{
		if (value[0] != '/')
			ereport(ERROR,
					(errcode(ERRCODE_BM_OPTION),
					 errmsg("option ca_file is not an absolute path: \"%s\"", value)));
		return;
	}
	url = bcmig_url(NULL, value);
	if (url == NULL || url->query != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("option url of a server of %s must be a URL of http or https", WRAPPER),
				 errdetail("Without user, query and fragment. Requests go to it and to what is below it.")));
}

/*
 * bcmig.http_validator(options, catalog)
 */
Datum
bcmig_http_validator(PG_FUNCTION_ARGS)
{
	static const char *const of_server[] = {"url", "ca_file"};
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);
	bool		server = catalog == ForeignServerRelationId;
	const char *const *known = server ? of_server : secrets;
	int			nknown = server ? lengthof(of_server) : catalog == UserMappingRelationId ? lengthof(secrets) : 0;
	bool		has_url = false;
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst(lc);

		if (!is_one_of(option->defname, known, nknown))
			ereport(ERROR,
					(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
					 errmsg("%s has no option \"%s\" here", WRAPPER, option->defname),
					 errhint("Server: url, ca_file. User mapping: user, password, token.")));
		if (server)
			check_server_option(option->defname, defGetString(option));
		has_url = has_url || strcmp(option->defname, "url") == 0;
	}
	if (server && !has_url)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("a server of %s needs option url", WRAPPER),
				 errhint("CREATE SERVER ... FOREIGN DATA WRAPPER %s OPTIONS (url 'https://host:port/path/');", WRAPPER)));
	PG_RETURN_VOID();
}

/* ---- servers ---- */

static char *
option_of(List *options, const char *name)
{
	ListCell   *lc;

	foreach(lc, options)
	{
		DefElem    *option = lfirst(lc);

		if (strcmp(option->defname, name) == 0)
			return defGetString(option);
	}
	return NULL;
}

static bool
may_use(Oid serverid, Oid role)
{
	BcmigCatalogScope scope;
	bool		may;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT has_server_privilege($1, $2, 'USAGE')", "oo", role, serverid);
	may = bcmig_get_bool(0, 1);
	bcmig_catalog_end(&scope);
	return may;
}

BcmigHttpServer *
bcmig_http_server(const char *name, Oid role)
{
	ForeignServer *foreign = GetForeignServerByName(name, true);
	const char *role_name = quote_identifier(GetUserNameFromId(role, false));
	BcmigHttpServer *server;

	if (foreign == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("there is no server \"%s\"", name),
				 errhint("CREATE SERVER %s FOREIGN DATA WRAPPER %s OPTIONS (url 'https://host:port/path/');", quote_identifier(name), WRAPPER)));
	if (strcmp(GetForeignDataWrapper(foreign->fdwid)->fdwname, WRAPPER) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("server \"%s\" is not of wrapper %s", name, WRAPPER)));
	if (!may_use(foreign->serverid, role))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role %s may not use server \"%s\"", role_name, name),
				 errhint("GRANT USAGE ON FOREIGN SERVER %s TO %s;", quote_identifier(name), role_name)));
	server = palloc0(sizeof(BcmigHttpServer));
	server->name = pstrdup(name);
	server->role = role;
	server->url = option_of(foreign->options, "url") ? bcmig_url(NULL, option_of(foreign->options, "url")) : NULL;
	if (server->url == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("server \"%s\" has no usable option url", name),
				 errdetail("It was made while wrapper %s had no validator.", WRAPPER)));
	server->ca_file = option_of(foreign->options, "ca_file");
	server->mapped = SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(role), ObjectIdGetDatum(foreign->serverid)) ||
		SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid), ObjectIdGetDatum(foreign->serverid));
	if (server->mapped)
		server->secrets = GetUserMapping(role, foreign->serverid)->options;
	return server;
}

bool
bcmig_is_http_secret(const char *name)
{
	return is_one_of(name, secrets, lengthof(secrets)) || strcmp(name, "basic") == 0;
}

char *
bcmig_http_secret(const BcmigHttpServer *server, const char *name)
{
	char	   *value;

	if (strcmp(name, "basic") == 0)
	{
		char	   *pair = psprintf("%s:%s", bcmig_http_secret(server, "user"), bcmig_http_secret(server, "password"));
		int			room = pg_b64_enc_len(strlen(pair));
		int			len;

		value = palloc(room + 1);
		/* bytes are of another type in newer versions */
		len = pg_b64_encode((void *) pair, strlen(pair), value, room);
		if (len < 0)
			elog(ERROR, "user and password could not be encoded");
		value[len] = '\0';
		return value;
	}
	value = option_of(server->secrets, name);
	if (value == NULL)
	{
		const char *role_name = quote_identifier(GetUserNameFromId(server->role, false));

		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 server->mapped ? errmsg("the user mapping of role %s for server \"%s\" has no option %s", role_name, server->name, name) :
				 errmsg("role %s has no user mapping for server \"%s\"", role_name, server->name),
				 errhint("%s USER MAPPING FOR %s SERVER %s OPTIONS (%s%s '...');", server->mapped ? "ALTER" : "CREATE", role_name,
						 quote_identifier(server->name), server->mapped ? "ADD " : "", name)));
	}
	return value;
}

/*
 * A path that another server might read as one that climbs out is refused too.
 */
static bool
may_climb(const char *path)
{
	char	   *plain = palloc(strlen(path) + 3);
	char	   *to = plain;

	for (const char *c = path; *c; c++)
	{
		unsigned int byte;

		if (c[0] == '%' && isxdigit((unsigned char) c[1]) && isxdigit((unsigned char) c[2]) && sscanf(c + 1, "%2x", &byte) == 1)
		{
			*to++ = byte == '\0' ? '?' : byte;
			c += 2;
		}
		else
			*to++ = *c;
	}
	strcpy(to, "/");
	for (char *c = plain; *c; c++)
	{
		if (*c == '\\')
			*c = '/';
	}
	return strstr(plain, "/../") != NULL || strstr(plain, "/./") != NULL;
}

bool
bcmig_http_may(const BcmigHttpServer *server, const BcmigUrl *url)
{
	int			len = strlen(server->url->path);

	if (len > 0 && server->url->path[len - 1] == '/')
		len--;
	return strcmp(url->origin, server->url->origin) == 0 && strncmp(url->path, server->url->path, len) == 0 &&
		(url->path[len] == '\0' || url->path[len] == '/') && !may_climb(url->path);
}
