/*-------------------------------------------------------------------------
 *
 * balancer_function.c
 *	  A balancer only the DBA knows: two SQL functions.
 *
 * Options set and get name them as regprocedure does, with their schemas:
 *
 *	set(sync text, percent numeric)		returns void, or boolean: false = it did not
 *	get(sync text)						returns numeric, the percent of green
 *
 * There is no url.  A call is a transaction of its own, no longer than option
 * traffic_timeout, as the owner of the sync, in a security-restricted operation:
 * it leaves nothing behind in the worker's session.  No write of it is bcmig's:
 * fence, journal and triggers are there for it as for everybody.  Functions are
 * looked up anew each time: they may have been replaced.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "balancer.h"
#include "catalog.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/numeric.h"

typedef struct Shape
{
	const char *option;
	const char *arguments;		/* as an oidvector */
	const char *results;		/* as an oid[] */
	const char *words;
} Shape;

static const Shape shape_of_set = {"set", "25 1700", "{2278,16}", "a function (sync text, percent numeric) that returns void or boolean"};
static const Shape shape_of_get = {"get", "25", "{1700}", "a function (sync text) that returns numeric"};

StaticAssertDecl(TEXTOID == 25 && NUMERICOID == 1700 && VOIDOID == 2278 && BOOLOID == 16, "types of PostgreSQL");

static char *
example(const BcmigBalancer *b)
{
	return psprintf("SELECT bcmig_add_balancer(%s, %s, 'function', NULL, '{\"set\": \"app.set_share(text,numeric)\", \"get\": \"app.get_share(text)\"}');",
					quote_literal_cstr(b->sync_name), quote_literal_cstr(b->name));
}

/*
 * The quoted name of the function of an option.  ERROR when there is none that
 * fits, or the owner may not call it.
 */
static char *
find_function(const BcmigBalancer *b, const Shape *shape)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *wanted = bcmig_balancer_text(b, shape->option);
	BcmigCatalogScope scope;
	char	   *name;
	char	   *full;
	bool		fits;
	bool		may;

	if (wanted == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("balancer \"%s\" needs option %s", b->name, shape->option),
				 errhint("%s", example(b))));
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT format('%I.%I', n.nspname, p.proname), p.oid::regprocedure::text, "
				  " p.prokind = 'f' AND NOT p.proretset AND p.proargtypes = $2::oidvector AND p.prorettype = ANY ($3::oid[]), "
				  " has_function_privilege($4, p.oid, 'EXECUTE') AND has_schema_privilege($4, n.oid, 'USAGE') "
				  "FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
				  "WHERE p.oid = CASE WHEN $1 LIKE '%(%)' THEN to_regprocedure($1) END",
				  "ttto", wanted, shape->arguments, shape->results, b->owner) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("there is no function \"%s\"", wanted),
				 errdetail("Option %s of balancer \"%s\" names it with schema and types of its arguments.", shape->option, b->name),
				 errhint("%s", example(b))));
	MemoryContextSwitchTo(caller);
	name = bcmig_get_text(0, 1);
	full = bcmig_get_text(0, 2);
	fits = bcmig_get_bool(0, 3);
	may = bcmig_get_bool(0, 4);
	bcmig_catalog_end(&scope);
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("%s does not fit option %s of balancer \"%s\"", full, shape->option, b->name),
				 errdetail("It must be %s.", shape->words)));
	if (!may)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role %s may not execute %s", GetUserNameFromId(b->owner, false), full),
				 errdetail("Balancers are set as the owner of the sync."),
				 errhint("GRANT EXECUTE ON FUNCTION %s TO %s; -- and USAGE on its schema", full,
						 quote_identifier(GetUserNameFromId(b->owner, false)))));
	return name;
}

static void
function_check(const BcmigBalancer *b)
{
	if (*b->url != '\0')
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("balancer \"%s\" of driver function has no url", b->name),
				 errhint("%s", example(b))));
	bcmig_balancer_keys(b, &b->options->root, "", list_make2("set", "get"));
	(void) find_function(b, &shape_of_set);
	(void) find_function(b, &shape_of_get);
}

/* however it is spelled */
static char *
function_backend(const BcmigBalancer *b)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *name = bcmig_balancer_text(b, "set");
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT p.oid::regprocedure::text FROM pg_proc p WHERE p.oid = to_regprocedure($1)", "t", name) > 0)
		name = MemoryContextStrdup(caller, bcmig_get_text(0, 1));
	bcmig_catalog_end(&scope);
	return psprintf("function %s", name);
}

/* ---- calls, each in a transaction of bcmig_balancer_try() ---- */

typedef struct Call
{
	const BcmigBalancer *balancer;
	double		percent;
} Call;

/*
 * Leaves the result as the one row of SPI_tuptable, in an SPI connection.
 */
static void
call_function(const BcmigBalancer *b, const char *sql, int nargs, Datum *values)
{
	Oid			types[] = {TEXTOID, NUMERICOID};
	Oid			userid;
	int			sec_context;
	int			guc_level;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(b->owner, sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	guc_level = NewGUCNestLevel();

	/* the worker's own writes fire no trigger and check no foreign key, these do */
	(void) set_config_option("session_replication_role", "origin", PGC_SUSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (SPI_execute_with_args(sql, nargs, types, values, NULL, false, 0) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "SPI_execute failed: %s", sql);

	/* as after an abort: settings of the worker stay what they were */
	AtEOXact_GUC(false, guc_level);
	SetUserIdAndSecContext(userid, sec_context);
}

static void
call_set(void *arg)
{
	const Call *call = arg;
	const BcmigBalancer *b = call->balancer;
	char	   *name = find_function(b, &shape_of_set);
	Datum		values[2];
	Datum		result;
	bool		isnull;

	values[0] = CStringGetTextDatum(b->sync_name);
	values[1] = DirectFunctionCall1(float8_numeric, Float8GetDatum(call->percent));
	call_function(b, psprintf("SELECT %s($1, $2)", name), 2, values);
	result = bcmig_get_datum(0, 1, &isnull);
	if (SPI_gettypeid(SPI_tuptable->tupdesc, 1) == BOOLOID && (isnull || !DatumGetBool(result)))
		ereport(ERROR,
				(errcode(ERRCODE_BM_TRAFFIC),
				 errmsg("%s returned %s", name, isnull ? "NULL" : "false")));
	SPI_finish();
}

static void
call_get(void *arg)
{
	Call	   *call = arg;
	const BcmigBalancer *b = call->balancer;
	char	   *name = find_function(b, &shape_of_get);
	Datum		values[1];
	Datum		result;
	bool		isnull;

	values[0] = CStringGetTextDatum(b->sync_name);
	call_function(b, psprintf("SELECT %s($1)::pg_catalog.float8", name), 1, values);
	result = bcmig_get_datum(0, 1, &isnull);
	if (isnull || !(DatumGetFloat8(result) >= 0 && DatumGetFloat8(result) <= 100))
		ereport(ERROR,
				(errcode(ERRCODE_BM_TRAFFIC),
				 errmsg("%s returned %s, which is no percentage", name, isnull ? "NULL" : bcmig_get_text(0, 1))));
	call->percent = DatumGetFloat8(result);
	SPI_finish();
}

static char *
function_set(const BcmigBalancer *b, double green_percent)
{
	Call		call = {b, green_percent};

	return bcmig_balancer_try(call_set, &call, b->timeout);
}

static char *
function_get(const BcmigBalancer *b, double *green_percent)
{
	Call		call = {b, -1};
	char	   *error = bcmig_balancer_try(call_get, &call, b->timeout);

	*green_percent = call.percent;
	return error;
}

const BcmigBalancerDriver bcmig_function_balancer = {
	.name = "function",
	.check = function_check,
	.backend = function_backend,
	.set = function_set,
	.get = function_get,
};
