/*-------------------------------------------------------------------------
 *
 * balancer.c
 *	  Load balancers as a DBA configures them, and the drivers there are.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include "access/xact.h"
#include "call.h"
#include "miscadmin.h"
#include "options.h"
#include "utils/builtins.h"
#include "utils/timeout.h"

BCMIG_FUNCTION(bcmig_add_balancer);
BCMIG_FUNCTION(bcmig_remove_balancer);

static const BcmigBalancerDriver *const drivers[] = {&bcmig_haproxy, &bcmig_http_balancer, &bcmig_function_balancer};

/* NULL when there is none */
const BcmigBalancerDriver *
bcmig_balancer_driver(const char *name)
{
	for (int i = 0; i < lengthof(drivers); i++)
	{
		if (strcmp(drivers[i]->name, name) == 0)
			return drivers[i];
	}
	return NULL;
}

static char *
text_of(const JsonbValue *v)
{
	return pnstrdup(v->val.string.val, v->val.string.len);
}

char *
bcmig_json_text(JsonbContainer *object, const char *name)
{
	JsonbValue	buf;
	JsonbValue *v = getKeyJsonValueFromContainer(object, name, strlen(name), &buf);

	return v != NULL && v->type == jbvString ? text_of(v) : NULL;
}

char *
bcmig_balancer_text(const BcmigBalancer *balancer, const char *name)
{
	return bcmig_json_text(&balancer->options->root, name);
}

/* what is no text is left out: check() sees the rest */
List *
bcmig_balancer_list(const BcmigBalancer *balancer, const char *name)
{
	JsonbValue	buf;
	JsonbValue *v = getKeyJsonValueFromContainer(&balancer->options->root, name, strlen(name), &buf);
	List	   *result = NIL;

	if (v == NULL || v->type != jbvBinary || !JsonContainerIsArray(v->val.binary.data))
		return NIL;
	for (uint32 i = 0; i < JsonContainerSize(v->val.binary.data); i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(v->val.binary.data, i);

		if (element->type == jbvString)
			result = lappend(result, text_of(element));
	}
	return result;
}

void
bcmig_balancer_keys(const BcmigBalancer *balancer, JsonbContainer *object, const char *where, List *known)
{
	JsonbIterator *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue	v;
	ListCell   *lc;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *key = token == WJB_KEY ? text_of(&v) : NULL;
		bool		found = key == NULL;
		StringInfoData all;

		initStringInfo(&all);
		foreach(lc, known)
		{
			found = found || strcmp(key, lfirst(lc)) == 0;
			appendStringInfo(&all, "%s%s", all.len > 0 ? ", " : "", (char *) lfirst(lc));
		}
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_BM_OPTION),
					 errmsg("balancer \"%s\" has no option \"%s%s\"", balancer->name, where, key),
					 errhint("Known: %s.", all.data)));
	}
}

/*
 * All of the transaction is undone, not a part of it: its commit may fail too.
 */
char *
bcmig_balancer_try(void (*what) (void *arg), void *arg, int timeout)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData  *volatile edata = NULL;

	PG_TRY();
	{
		bcmig_start_transaction();
		enable_timeout_after(STATEMENT_TIMEOUT, timeout);
		what(arg);
		bcmig_end_transaction();
	}
	PG_CATCH();
	{
		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		AbortOutOfAnyTransaction();
		RESUME_INTERRUPTS();
	}
	PG_END_TRY();

	/* it may have been cancelled by its timeout the moment it came to its end */
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
	MemoryContextSwitchTo(caller);
	return edata ? bcmig_error_text(edata, true) : NULL;
}

/* row of a result with balancer_id, name, driver, url, options; in the current context */
static BcmigBalancer *
read_balancer(uint64 row, MemoryContext context)
{
	MemoryContext old = MemoryContextSwitchTo(context);
	BcmigBalancer *b = palloc0(sizeof(BcmigBalancer));
	bool		isnull;

	b->balancer_id = bcmig_get_int64(row, 1, 0);
	b->name = bcmig_get_text(row, 2);
	b->driver = bcmig_get_text(row, 3);
	b->url = bcmig_get_text(row, 4);
	b->options = DatumGetJsonbPCopy(bcmig_get_datum(row, 5, &isnull));
	MemoryContextSwitchTo(old);
	return b;
}

List *
bcmig_load_balancers(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *result = NIL;
	int			timeout;
	uint64		n;

	bcmig_catalog_begin(&scope);
	timeout = bcmig_option_int64("traffic_timeout", NULL, sync->options, 0);
	n = bcmig_sql("SELECT balancer_id, name, driver, url, options FROM bcmig.balancer WHERE sync_id = $1 ORDER BY name",
				  "i", sync->sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		BcmigBalancer *b = read_balancer(i, caller);

		b->sync_name = sync->name;
		b->owner = sync->owner;
		b->timeout = timeout;
		result = lappend(result, b);
	}
	bcmig_catalog_end(&scope);
	return result;
}

static char *
driver_names(void)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < lengthof(drivers); i++)
		appendStringInfo(&s, "%s%s", i > 0 ? ", " : "", drivers[i]->name);
	return s.data;
}

/*
 * Two syncs on one backend would each put it back to their own weight.  Others
 * who add a balancer wait for the end of this transaction.
 */
static void
refuse_shared(const BcmigBalancer *b, const BcmigBalancerDriver *driver)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *backend = driver->backend(b);
	BcmigCatalogScope scope;
	List	   *others = NIL;
	ListCell   *lc;
	uint64		n;

	bcmig_catalog_begin(&scope);
	bcmig_sql("LOCK TABLE bcmig.balancer IN SHARE ROW EXCLUSIVE MODE", "");
	n = bcmig_sql("SELECT b.balancer_id, b.name, b.driver, b.url, b.options, y.name, y.owner::oid::int8 "
				  "FROM bcmig.balancer b JOIN bcmig.sync y USING (sync_id) WHERE b.driver = $1", "t", b->driver);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		BcmigBalancer *other = read_balancer(i, caller);

		other->sync_name = bcmig_get_text(i, 6);
		other->owner = bcmig_get_int64(i, 7, InvalidOid);
		others = lappend(others, other);
	}
	bcmig_catalog_end(&scope);

	foreach(lc, others)
	{
		const BcmigBalancer *other = lfirst(lc);

		if (strcmp(driver->backend(other), backend) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_DUPLICATE),
					 errmsg("%s is balancer \"%s\" of sync \"%s\" already", backend, other->name, other->sync_name),
					 errhint("A sync needs a backend of its own, since it has a weight of its own.")));
	}
}

/*
 * bcmig_add_balancer(sync, name, driver, url, options): its id.  Asks nothing
 * of the balancer: the next look at the sync's traffic brings it to the weight.
 */
Datum
bcmig_add_balancer(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	BcmigBalancer b = {0};
	const BcmigBalancerDriver *driver;
	BcmigCatalogScope scope;
	char	   *options;
	int			balancer_id;

	b.sync_name = sync->name;
	b.owner = sync->owner;
	b.name = bcmig_arg_new_name(fcinfo, 1, "name");
	b.driver = bcmig_arg_text(fcinfo, 2, "driver");
	b.url = bcmig_arg_optional_text(fcinfo, 3);
	if (b.url == NULL)
		b.url = "";
	b.options = bcmig_arg_options(fcinfo, 4);
	driver = bcmig_balancer_driver(b.driver);
	if (driver == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("there is no driver \"%s\" for balancers", b.driver),
				 errhint("Drivers: %s.", driver_names())));
	if (!JB_ROOT_IS_OBJECT(b.options))
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("options of balancer \"%s\" are not an object", b.name)));
	driver->check(&b);
	options = JsonbToCString(NULL, &b.options->root, VARSIZE(b.options));
	refuse_shared(&b, driver);

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("INSERT INTO bcmig.balancer (sync_id, name, driver, url, options) VALUES ($1, $2, $3, $4, $5) "
				  "ON CONFLICT (sync_id, name) DO NOTHING RETURNING balancer_id",
				  "itttj", sync->sync_id, b.name, b.driver, b.url, options) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("sync \"%s\" has a balancer \"%s\" already", sync->name, b.name),
				 errhint("SELECT bcmig_remove_balancer(%s, %s);", quote_literal_cstr(sync->name), quote_literal_cstr(b.name))));
	balancer_id = bcmig_get_int64(0, 1, 0);
	bcmig_sql("INSERT INTO bcmig.balancer_state (balancer_id) VALUES ($1)", "i", balancer_id);
	bcmig_audit("command", sync->name, NULL, "bcmig_add_balancer", psprintf("%s: %s %s %s", b.name, b.driver, b.url, options));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_INT32(balancer_id);
}

/*
 * bcmig_remove_balancer(sync, name): also one that does not answer any more.
 */
Datum
bcmig_remove_balancer(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *name = bcmig_arg_text(fcinfo, 1, "name");
	BcmigTraffic traffic;
	BcmigCatalogScope scope;

	(void) bcmig_traffic_load(sync->sync_id, true, &traffic);
	if (traffic.intent != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("traffic of sync \"%s\" is being moved", sync->name),
				 errhint("SELECT * FROM bcmig.traffic_status WHERE sync = %s; -- and again when changing_to is empty",
						 quote_literal_cstr(sync->name))));
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("DELETE FROM bcmig.balancer WHERE sync_id = $1 AND name = $2", "it", sync->sync_id, name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" has no balancer \"%s\"", sync->name, name),
				 errhint("SELECT b.name, b.url FROM bcmig.balancer b JOIN bcmig.sync y USING (sync_id) WHERE y.name = %s;",
						 quote_literal_cstr(sync->name))));
	if (traffic.green_percent > 0)
		ereport(NOTICE,
				(errmsg("balancer \"%s\" goes on sending %g %% to green", name, traffic.green_percent)));
	bcmig_audit("command", sync->name, NULL, "bcmig_remove_balancer", name);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}
