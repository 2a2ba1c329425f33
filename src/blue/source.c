/*-------------------------------------------------------------------------
 *
 * source.c
 *	  Environments: registered blues, and green which is this database.
 *
 * An environment is a name for a foreign server.  Credentials stay in user
 * mappings; what connects is a worker running as the role that asks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "source.h"

#include "ask.h"
#include "call.h"
#include "catalog/namespace.h"
#include "catalog/pg_foreign_server.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "dialect.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "options.h"
#include "remote.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* a table is described in a few ms; this is for the slow ones */
#define TIMEOUT_PER_STATEMENT	200

BCMIG_FUNCTION(bcmig_add_environment);
BCMIG_FUNCTION(bcmig_alter_environment);
BCMIG_FUNCTION(bcmig_remove_environment);
BCMIG_FUNCTION(bcmig_check_environment);
BCMIG_FUNCTION(bcmig_blue_script);

char	   *(*bcmig_reverse_script) (const char *sync) = NULL;

char *
bcmig_environment_feed(int environment_id)
{
	return psprintf("feed_env_%d", environment_id);
}

Oid
bcmig_text_feed(int environment_id)
{
	return get_relname_relid(bcmig_environment_feed(environment_id), get_namespace_oid("bcmig", false));
}

/*
 * By name, or by id when the name is NULL.
 */
BcmigEnvironment *
bcmig_load_environment(const char *name, int environment_id)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext oldcontext;
	BcmigCatalogScope scope;
	BcmigEnvironment *env;
	bool		isnull;
	Datum		options;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT environment_id, name, side = 'blue', server, owner::oid, options "
				  "FROM bcmig.environment WHERE CASE WHEN $1 IS NULL THEN environment_id = $2 ELSE name = $1 END",
				  "ti", name, environment_id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 name ? errmsg("environment \"%s\" does not exist", name) :
				 errmsg("environment %d does not exist", environment_id),
				 errhint("SELECT name FROM bcmig.environment; or SELECT bcmig_add_environment(...);")));
	oldcontext = MemoryContextSwitchTo(caller);
	env = palloc0(sizeof(BcmigEnvironment));
	env->environment_id = bcmig_get_int64(0, 1, 0);
	env->name = bcmig_get_text(0, 2);
	env->blue = bcmig_get_bool(0, 3);
	env->server = bcmig_get_text(0, 4);
	env->serverid = env->server ? get_foreign_server_oid(env->server, true) : InvalidOid;
	env->owner = bcmig_get_int64(0, 5, 0);
	options = bcmig_get_datum(0, 6, &isnull);
	env->options = DatumGetJsonbPCopy(options);
	MemoryContextSwitchTo(oldcontext);
	env->connect_timeout = bcmig_option_int64("connect_timeout", env->options, NULL, 0);
	env->application_server = MemoryContextStrdup(caller, bcmig_option_value("application_server", env->options, NULL));
	if (strcmp(env->application_server, "auto") == 0)
		env->application_server = NULL;
	bcmig_catalog_end(&scope);

	if (env->blue && !OidIsValid(env->serverid))
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("foreign server \"%s\" of environment \"%s\" is gone", env->server, env->name),
				 errhint("CREATE SERVER %s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (...);",
						 quote_identifier(env->server))));
	return env;
}

int
bcmig_ask_timeout(const BcmigEnvironment *env, int statements)
{
	int64		ms = env->connect_timeout + (int64) statements * TIMEOUT_PER_STATEMENT;

	return (int) Min(ms, INT_MAX / 2);
}

List *
bcmig_read_descriptions(List *rows)
{
	List	   *result = NIL;
	BcmigBlueTable *table = NULL;
	ListCell   *lc;

	foreach(lc, rows)
	{
		char	  **row = (char **) lfirst(lc);

		if (bcmig_answer_is(row, "table"))
		{
			table = palloc0(sizeof(BcmigBlueTable));
			table->exists = row[1] != NULL;
			table->is_table = table->exists && row[1][0] != '\0' && strchr("rp", row[1][0]) != NULL;
			table->readable = row[2] != NULL && strcmp(row[2], "true") == 0;
			table->rows = row[3] ? bcmig_answer_int64(row, 3) : 0;
			table->bytes = row[4] ? bcmig_answer_int64(row, 4) : 0;
			table->capture = row[5];
			table->stamp_column = row[6];
			result = lappend(result, table);
		}
		else if (table == NULL)
			bcmig_bad_answer(psprintf("A description begins with \"%.60s\".", row[0] ? row[0] : "NULL"));
		else if (bcmig_answer_is(row, "fix"))
		{
			table->grant_fix = row[1];
			table->track_fix = row[2];
			table->stamp_fix = row[3];
		}
		else if (bcmig_answer_is(row, "column"))
		{
			BcmigBlueColumn *c = palloc0(sizeof(BcmigBlueColumn));

			c->name = bcmig_answer_text(row, 1);
			c->type = c->native = bcmig_answer_text(row, 2);
			c->not_null = strcmp(bcmig_answer_text(row, 3), "true") == 0;
			c->default_expr = row[4];
			c->key_position = row[5] ? bcmig_answer_int64(row, 5) : 0;
			table->columns = lappend(table->columns, c);
		}
		else if (bcmig_answer_is(row, "index"))
		{
			BcmigBlueIndex *index = table->indexes == NIL ? NULL : llast(table->indexes);

			if (index == NULL || strcmp(index->name, bcmig_answer_text(row, 1)) != 0)
			{
				index = palloc0(sizeof(BcmigBlueIndex));
				index->name = bcmig_answer_text(row, 1);
				index->unique = strcmp(bcmig_answer_text(row, 2), "true") == 0;
				table->indexes = lappend(table->indexes, index);
			}
			index->columns = lappend(index->columns, bcmig_answer_text(row, 3));
		}
		else if (bcmig_answer_is(row, "near"))
			table->near = lappend(table->near, bcmig_answer_text(row, 1));
	}
	return result;
}

List *
bcmig_describe(const BcmigEnvironment *env, Oid role, List *tables)
{
	List	   *statements = bcmig_dialect_of_server(env->serverid)->describe(tables);
	List	   *described = bcmig_read_descriptions(bcmig_ask(env->serverid, role, statements,
															  bcmig_ask_timeout(env, list_length(tables))));

	if (list_length(described) != list_length(tables))
		ereport(ERROR,
				(errcode(ERRCODE_BM_BLUE),
				 errmsg("blue described %d of %d tables", list_length(described), list_length(tables))));
	return described;
}

/*
 * The text feed of an environment.  Inside a catalogue scope.
 */
static void
make_environment_feed(int environment_id, const char *server, Oid owner)
{
	char	   *feed = bcmig_environment_feed(environment_id);

	SPI_execute(psprintf("CREATE FOREIGN TABLE bcmig.%s (c1 text, c2 text, c3 text, c4 text, "
						 "c5 text, c6 text, c7 text, c8 text) SERVER %s OPTIONS (%s)",
						 feed, quote_identifier(server),
						 bcmig_dialect_of_server(get_foreign_server_oid(server, false))->feed_options(feed)), false, 0);
	SPI_execute(psprintf("ALTER FOREIGN TABLE bcmig.%s OWNER TO %s",
						 feed, quote_identifier(GetUserNameFromId(owner, false))), false, 0);
}

static void
check_application_server(const char *environment, Jsonb *options)
{
	const char *server = bcmig_option_value("application_server", options, NULL);

	if (strcmp(server, "auto") != 0 && !OidIsValid(get_foreign_server_oid(server, true)))
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("foreign server \"%s\", option application_server of environment \"%s\", does not exist",
						server, environment),
				 errhint("CREATE SERVER %s FOREIGN DATA WRAPPER tds_fdw OPTIONS (...);", quote_identifier(server))));
}

/* in a catalogue scope; url: what bcmig_add_environment was given, or NULL */
static void
check_health(const char *environment, const char *url, Jsonb *options)
{
	char	   *option = bcmig_option_value("health_url", NULL, options);
	int64		probes = bcmig_option_int64("health_probes", NULL, options, 0);
	int64		required = bcmig_option_int64("health_required", NULL, options, 0);
	char	   *ca_file = bcmig_option_value("health_ca_file", NULL, options);

	if (option != NULL)
		url = option;
	if (ca_file != NULL && !is_absolute_path(ca_file))
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("option health_ca_file is not an absolute path"),
				 errhint("SELECT bcmig_alter_environment(%s, '{\"health_ca_file\": \"/etc/ssl/...\"}');", quote_literal_cstr(environment))));
	if (url != NULL && pg_strncasecmp(url, "http://", 7) != 0 && pg_strncasecmp(url, "https://", 8) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("the health URL of environment \"%s\" is neither http nor https", environment),
				 errhint("SELECT bcmig_alter_environment(%s, '{\"health_url\": \"https://...\"}');", quote_literal_cstr(environment))));
	if (url != NULL && memchr(strchr(url, '/') + 2, '@', strcspn(strchr(url, '/') + 2, "/?#")) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("the health URL of environment \"%s\" holds a user or a password", environment),
				 errdetail("Views and reports show it. Let the health page be one that needs none."),
				 errhint("SELECT bcmig_alter_environment(%s, '{\"health_url\": \"https://...\"}');", quote_literal_cstr(environment))));
	if (required > probes)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("option health_required is " INT64_FORMAT " and health_probes only " INT64_FORMAT, required, probes),
				 errhint("SELECT bcmig_alter_environment(%s, '{\"health_probes\": " INT64_FORMAT "}');", quote_literal_cstr(environment), required)));
}

/*
 * bcmig_add_environment(name, side, server, health_url, options)
 */
Datum
bcmig_add_environment(PG_FUNCTION_ARGS)
{
	char	   *name = bcmig_arg_new_name(fcinfo, 0, "name");
	char	   *side = bcmig_arg_text(fcinfo, 1, "side");
	char	   *server = bcmig_arg_optional_text(fcinfo, 2);
	char	   *health_url = bcmig_arg_optional_text(fcinfo, 3);
	Jsonb	   *options = bcmig_arg_options(fcinfo, 4);
	Oid			owner = GetUserId();
	Oid			serverid;
	BcmigCatalogScope scope;
	char	   *stored;
	bool		usage;

	if (strcmp(side, "blue") != 0 && strcmp(side, "green") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("side cannot be \"%s\"", side),
				 errdetail("Expected blue."),
				 errhint("SELECT bcmig_add_environment(%s, 'blue', server => '...');",
						 quote_literal_cstr(name))));
	if (strcmp(side, "green") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("green is this database, and it is registered already"),
				 errhint("SELECT * FROM bcmig.environment WHERE side = 'green';")));
	if (server == NULL || server[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("a blue environment needs a foreign server"),
				 errhint("CREATE SERVER bc FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '...', dbname '...'); then pass server => 'bc'.")));
	serverid = get_foreign_server_oid(server, true);
	if (!OidIsValid(serverid))
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("foreign server \"%s\" does not exist", server),
				 errhint("CREATE SERVER %s FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '...', dbname '...');",
						 quote_identifier(server))));
	(void) bcmig_dialect_of_server(serverid);

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT has_server_privilege($1::oid, $2::oid, 'USAGE')", "oo", owner, serverid);
	usage = bcmig_get_bool(0, 1);
	if (!usage)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server \"%s\"", server),
				 errhint("GRANT USAGE ON FOREIGN SERVER %s TO %s;", quote_identifier(server),
						 quote_identifier(GetUserNameFromId(owner, false)))));
	options = bcmig_options_merge(NULL, options, "environment");
	check_application_server(name, options);
	check_health(name, health_url, options);
	stored = JsonbToCString(NULL, &options->root, VARSIZE(options));
	if (bcmig_sql("INSERT INTO bcmig.environment (name, side, server, health_url, options, owner) "
				  "VALUES ($1, 'blue', $2, $3, $4, $5) ON CONFLICT (name) DO NOTHING RETURNING environment_id",
				  "tttjo", name, server, health_url, stored, owner) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("environment \"%s\" exists already", name),
				 errhint("SELECT * FROM bcmig_check_environment(%s);", quote_literal_cstr(name))));
	make_environment_feed(bcmig_get_int64(0, 1, 0), server, owner);
	bcmig_audit("command", NULL, name, "bcmig_add_environment", server);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * bcmig_alter_environment(name, options)
 */
Datum
bcmig_alter_environment(PG_FUNCTION_ARGS)
{
	BcmigEnvironment *env = bcmig_load_environment(bcmig_arg_text(fcinfo, 0, "name"), 0);
	Jsonb	   *options = bcmig_arg_options(fcinfo, 1);
	BcmigCatalogScope scope;
	char	   *stored;

	bcmig_check_member(env->owner, "environment", env->name);
	bcmig_catalog_begin(&scope);
	options = bcmig_options_merge(env->options, options, "environment");
	check_application_server(env->name, options);
	check_health(env->name, NULL, options);
	stored = JsonbToCString(NULL, &options->root, VARSIZE(options));
	bcmig_sql("UPDATE bcmig.environment SET options = $2 WHERE environment_id = $1",
			  "ij", env->environment_id, stored);
	bcmig_audit("command", NULL, env->name, "bcmig_alter_environment", stored);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * bcmig_remove_environment(name)
 */
Datum
bcmig_remove_environment(PG_FUNCTION_ARGS)
{
	char	   *name = bcmig_arg_text(fcinfo, 0, "name");
	BcmigCatalogScope scope;
	int			environment_id;
	Oid			owner;
	bool		blue;
	char	   *sync;

	/* not bcmig_load_environment: the server may be gone, and that must not stop it */
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT environment_id, owner::oid, side = 'blue' FROM bcmig.environment WHERE name = $1 FOR UPDATE",
				  "t", name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("environment \"%s\" does not exist", name),
				 errhint("SELECT name FROM bcmig.environment;")));
	environment_id = bcmig_get_int64(0, 1, 0);
	owner = bcmig_get_int64(0, 2, 0);
	blue = bcmig_get_bool(0, 3);

	bcmig_restore_user(&scope);
	bcmig_check_member(owner, "environment", name);
	bcmig_become_catalog_owner(&scope);

	if (!blue)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("environment \"%s\" is this database and cannot be removed", name),
				 errhint("DROP EXTENSION bcmig; removes all of bcmig.")));
	if (bcmig_sql("SELECT name FROM bcmig.sync WHERE environment_id = $1 ORDER BY name LIMIT 1",
				  "i", environment_id) > 0)
	{
		sync = bcmig_get_text(0, 1);
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("environment \"%s\" is used by sync \"%s\"", name, sync),
				 errhint("SELECT * FROM bcmig_drop_sync(%s);", quote_literal_cstr(sync))));
	}
	bcmig_sql("DELETE FROM bcmig.environment WHERE environment_id = $1", "i", environment_id);
	SPI_execute(psprintf("DROP FOREIGN TABLE IF EXISTS bcmig.%s",
						 bcmig_environment_feed(environment_id)), false, 0);
	bcmig_audit("command", NULL, name, "bcmig_remove_environment", NULL);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * bcmig_check_environment(name)
 */
Datum
bcmig_check_environment(PG_FUNCTION_ARGS)
{
	BcmigEnvironment *env = bcmig_load_environment(bcmig_arg_text(fcinfo, 0, "name"), 0);
	List	   *checks = NIL;

	if (env->blue)
		checks = bcmig_blue_checks(env, GetUserId(), NIL, NULL);
	else
		checks = bcmig_green_checks();
	return bcmig_return_checks(fcinfo, checks);
}

/*
 * What green can say about itself without a sync.
 */
List *
bcmig_green_checks(void)
{
	List	   *checks = NIL;
	const char *encoding = GetDatabaseEncodingName();

	checks = bcmig_add_check(checks, "green version", "ok", PG_VERSION, "14 or later", NULL, NULL);
	checks = bcmig_add_check(checks, "green encoding",
							 GetDatabaseEncoding() == PG_UTF8 ? "ok" : "fail", encoding, "UTF8",
							 GetDatabaseEncoding() == PG_UTF8 ? NULL : "Texts would be converted on their way.",
							 GetDatabaseEncoding() == PG_UTF8 ? NULL :
							 "CREATE DATABASE green TEMPLATE template0 ENCODING 'UTF8';");
	if (bcmig_shared != NULL && bcmig_database_wanted(get_database_name(MyDatabaseId)))
		checks = bcmig_add_check(checks, "loaded", "ok", "yes", "yes", NULL, NULL);
	else if (bcmig_shared != NULL)
		checks = bcmig_add_check(checks, "loaded", "fail", bcmig_databases, get_database_name(MyDatabaseId),
								 "bcmig.databases does not name this database: nothing would run here.",
								 psprintf("ALTER SYSTEM SET bcmig.databases = %s; SELECT pg_reload_conf();",
										  quote_literal_cstr(psprintf("%s%s%s", bcmig_databases,
																	  bcmig_databases[0] ? "," : "",
																	  quote_identifier(get_database_name(MyDatabaseId))))));
	else
		checks = bcmig_add_check(checks, "loaded", "fail", "no", "yes",
								 "Its background processes start from shared_preload_libraries; append bcmig to the list that is there, and restart.",
								 "ALTER SYSTEM SET shared_preload_libraries = 'bcmig';");
	return checks;
}

/* a stalled network must not hold a worker for ever */
static List *
check_timeouts(List *checks, const BcmigEnvironment *env, const BcmigDialect *dialect)
{
	char	   *fix = NULL;
	bool		fatal = false;
	char	   *missing = dialect->missing_timeouts(GetForeignServer(env->serverid), &fix, &fatal);

	if (missing == NULL)
		return bcmig_add_check(checks, "server options", "ok", NULL, NULL, NULL, NULL);
	return bcmig_add_check(checks, "server options", fatal ? "fail" : "warn", "missing", NULL, missing, fix);
}

/*
 * Ask blue about itself as "role", together with more statements (a List of
 * char *), whose rows come back in *more.  A blue that does not answer is a
 * failing check, not an error.
 */
List *
bcmig_blue_checks(const BcmigEnvironment *env, Oid role, List *statements, List **more)
{
	const BcmigDialect *dialect = bcmig_dialect_of_server(env->serverid);
	ErrorData  *error;
	List	   *checks = check_timeouts(NIL, env, dialect);
	List	   *rows;
	ListCell   *lc;
	char	   *cluster = psprintf(UINT64_FORMAT, GetSystemIdentifier());
	bool		described = false;

	rows = bcmig_try_ask(env->serverid, role, lcons(dialect->preflight(), statements),
						 bcmig_ask_timeout(env, list_length(statements) + 1), &error);
	if (error != NULL)
		return bcmig_add_check(checks, "connect", "fail", unpack_sql_state(error->sqlerrcode), NULL,
							   error->detail ? psprintf("%s: %s", error->message, error->detail) : error->message,
							   error->hint);

	checks = bcmig_add_check(checks, "connect", "ok", env->server, NULL, NULL, NULL);
	foreach(lc, rows)
	{
		char	  **row = (char **) lfirst(lc);

		/* the first description ends the rows of preflight */
		described |= strcmp(row[0], "table") == 0;
		if (described)
			*more = lappend(*more, row);
		else if (strcmp(row[0], "cluster") != 0)
			checks = bcmig_add_check(checks, row[0], row[1], row[2], row[3], row[4], row[5]);
		else if (row[2] != NULL && strcmp(row[2], cluster) == 0)
			checks = bcmig_add_check(checks, "separate clusters", "fail", "one cluster", "two",
									 "Blue and green are databases of one cluster: green's own transactions would hold back blue's horizon.",
									 "CREATE DATABASE green; -- in another cluster (initdb), and install bcmig there");
		else
			checks = bcmig_add_check(checks, "separate clusters", "ok", "two", "two", NULL, NULL);
	}
	if (dialect->witness == NULL)
		checks = bcmig_add_check(checks, "blue witness", "ok", "none", NULL,
								 "bcmig only reads this blue: a copy of green is told by identifiers and balancers alone.", NULL);
	return checks;
}

/*
 * Tables of a sync for a script, and the login of its owner's user mapping.
 */
static List *
script_tables(const char *sync, bool asks, const BcmigDialect **dialect, char **login)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext oldcontext;
	BcmigCatalogScope scope;
	List	   *tables = NIL;
	char	   *server;
	Oid			owner;
	uint64		n;
	char	   *user = NULL;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT e.server, s.owner::oid, "
				  " (SELECT o.option_value FROM pg_user_mappings m, pg_options_to_table(m.umoptions) o "
				  "  WHERE m.srvname = e.server AND m.umuser IN (s.owner::oid, 0) AND o.option_name = 'user' "
				  "  ORDER BY m.umuser DESC LIMIT 1) "
				  "FROM bcmig.sync s JOIN bcmig.environment e USING (environment_id) WHERE s.name = $1",
				  "t", sync) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" does not exist", sync),
				 errhint("SELECT name FROM bcmig.sync;")));
	server = bcmig_get_text(0, 1);
	owner = bcmig_get_int64(0, 2, 0);
	user = bcmig_get_text(0, 3);
	oldcontext = MemoryContextSwitchTo(caller);
	if (user != NULL)
		*login = pstrdup(user);
	MemoryContextSwitchTo(oldcontext);
	*dialect = bcmig_dialect_of_server(get_foreign_server_oid(server, false));

	/* what the script is about to ask for: a table without a key cannot be tracked, a record is when all its parts are */
	if (asks)
	{
		n = bcmig_sql("UPDATE bcmig.sync_table t SET tracking_asked = true FROM bcmig.sync s "
					  "WHERE s.sync_id = t.sync_id AND s.name = $1 AND t.capture <> 'change_tracking' AND NOT t.tracking_asked "
					  "AND EXISTS (SELECT 1 FROM bcmig.column_map m WHERE m.table_id = t.table_id AND m.key_position IS NOT NULL)",
					  "t", sync);
		if (n > 0)
			bcmig_audit("command", sync, NULL, "bcmig_blue_script",
						psprintf("tracking asked for " UINT64_FORMAT " tables", n));
	}
	n = bcmig_sql("SELECT p.source_schema, p.source_table, t.capture, "
				  " EXISTS (SELECT 1 FROM bcmig.column_map m WHERE m.table_id = t.table_id AND m.key_position IS NOT NULL), "
				  " t.tracking_asked "
				  "FROM bcmig.sync_table t JOIN bcmig.sync s USING (sync_id), "
				  " LATERAL (SELECT t.source_schema, t.source_table UNION ALL "
				  "  SELECT c.source_schema, c.source_table FROM bcmig.companion c WHERE c.table_id = t.table_id) p "
				  "WHERE s.name = $1 ORDER BY 1, 2",
				  "t", sync);
	oldcontext = MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		BcmigScriptTable *t = palloc(sizeof(BcmigScriptTable));

		t->schema = bcmig_get_text(i, 1);
		t->table = bcmig_get_text(i, 2);
		t->capture = bcmig_get_text(i, 3);
		t->has_key = bcmig_get_bool(i, 4);
		t->asked = bcmig_get_bool(i, 5);
		tables = lappend(tables, t);
	}
	MemoryContextSwitchTo(oldcontext);
	bcmig_catalog_end(&scope);
	bcmig_check_member(owner, "sync", sync);
	return tables;
}

static char *
fence_script(const char *kind, const char *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	const BcmigDialect *dialect;
	char	   *reader;
	char	   *login = NULL;
	char	   *text;
	List	   *names = NIL;
	ListCell   *lc;

	if (sync == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("script \"%s\" is about the tables of a sync", kind),
				 errhint("SELECT bcmig_blue_script(%s, 'sync');", quote_literal_cstr(kind))));
	foreach(lc, script_tables(sync, false, &dialect, &reader))
	{
		BcmigScriptTable *t = (BcmigScriptTable *) lfirst(lc);

		names = lappend(names, bcmig_name(t->schema, t->table));
	}
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT e.options->>'bc_login' FROM bcmig.sync s JOIN bcmig.environment e USING (environment_id) WHERE s.name = $1", "t", sync);
	text = bcmig_get_text(0, 1);
	if (text != NULL)
		login = MemoryContextStrdup(caller, text);
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	return dialect->fence->script(names, login, strcmp(kind, "fence") == 0);
}

/*
 * bcmig_blue_script(kind, sync)
 */
Datum
bcmig_blue_script(PG_FUNCTION_ARGS)
{
	char	   *kind = bcmig_arg_text(fcinfo, 0, "kind");
	char	   *sync = bcmig_arg_optional_text(fcinfo, 1);
	const BcmigDialect *dialect = &bcmig_dialect_postgres;
	char	   *login = "bcmig_reader";
	List	   *tables = NIL;

	if (strcmp(kind, "fence") == 0 || strcmp(kind, "unfence") == 0)
		PG_RETURN_TEXT_P(cstring_to_text(fence_script(kind, sync)));
	if (strcmp(kind, "reverse") == 0)
		PG_RETURN_TEXT_P(cstring_to_text(bcmig_reverse_script(bcmig_arg_text(fcinfo, 1, "sync"))));
	if (strcmp(kind, "login") != 0 && strcmp(kind, "tracking") != 0 && strcmp(kind, "cleanup") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("there is no script \"%s\"", kind),
				 errhint("Scripts: login, tracking, fence, unfence, reverse, cleanup.")));
	if (sync != NULL)
		tables = script_tables(sync, strcmp(kind, "tracking") == 0, &dialect, &login);
	PG_RETURN_TEXT_P(cstring_to_text(dialect->script(kind, login, tables)));
}
