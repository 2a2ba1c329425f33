/*-------------------------------------------------------------------------
 *
 * route.c
 *	  Where a request of a consumer goes: bcmig_route().
 *
 * Sticky and monotone: the key is hashed to a number from 0 to 100 that never
 * changes, and goes to green while that is below the weight.  As the weight
 * rises keys only ever move from blue to green.  The hash is PostgreSQL's
 * hash_bytes_extended() with seed 0, the upper 53 bits of it.
 *
 * Called for every request, so what the catalogue says is kept by each session
 * until bcmig.traffic changes: whoever changes it invalidates the relation
 * (bcmig_fence_changed), as commands that change syncs do with bcmig.sync_table,
 * and sessions drop what they know when they next look at invalidations, at the
 * latest when their next transaction begins.
 *
 * It is read with the newest snapshot, not the transaction's: what a REPEATABLE
 * READ transaction from before a change saw would be kept for ever after.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "traffic.h"

#include "call.h"
#include "catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

BCMIG_FUNCTION(bcmig_route);

typedef struct Route
{
	char		sync[NAMEDATALEN];	/* must be first; longer names are not kept */
	double		green_percent;
	char		writes;			/* 'b'lue, 'g'reen, by 'k'ey as reads are, 'p'ause */
} Route;

static HTAB *routes = NULL;
static uint64 generation = 0;	/* moves with every invalidation */
static Oid	traffic_relid = InvalidOid;
static Oid	sync_table_relid = InvalidOid;

static void
forget_routes(Datum arg, Oid relid)
{
	if (relid != InvalidOid && relid != traffic_relid && relid != sync_table_relid)
		return;
	generation++;
	if (routes != NULL)
		hash_destroy(routes);
	routes = NULL;
}

static void
read_route(const char *sync, Route *route)
{
	static const char *const query =
		"SELECT coalesce(t.green_percent, 0)::float8, coalesce(t.writes, 'blue') "
		"FROM bcmig.sync s LEFT JOIN bcmig.traffic t USING (sync_id) WHERE s.name = $1";
	BcmigCatalogScope scope;
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(sync);
	SPIPlanPtr	plan;
	Oid			nsp;
	bool		isnull;

	bcmig_catalog_begin_any_version(&scope);
	nsp = get_namespace_oid("bcmig", false);
	traffic_relid = get_relname_relid("traffic", nsp);
	sync_table_relid = get_relname_relid("sync_table", nsp);
	plan = SPI_prepare(query, 1, &type);
	if (plan == NULL ||
		SPI_execute_snapshot(plan, &value, NULL, GetLatestSnapshot(), InvalidSnapshot, true, false, 0) != SPI_OK_SELECT)
		elog(ERROR, "reading bcmig.traffic failed");
	if (SPI_processed != 1)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("there is no sync \"%s\"", sync),
				 errhint("SELECT sync FROM bcmig.sync_status;")));
	route->green_percent = DatumGetFloat8(bcmig_get_datum(0, 1, &isnull));
	route->writes = *bcmig_get_text(0, 2);
	bcmig_catalog_end(&scope);
}

static Route
find_route(const char *sync)
{
	static bool registered = false;
	bool		fits = strlen(sync) < NAMEDATALEN;
	Route	   *known = fits && routes != NULL ? hash_search(routes, sync, HASH_FIND, NULL) : NULL;
	Route		route;
	uint64		before;

	if (known != NULL)
		return *known;
	if (!registered)
		CacheRegisterRelcacheCallback(forget_routes, (Datum) 0);
	registered = true;
	do
	{
		/* what changed while it was read may or may not be in it */
		before = generation;
		read_route(sync, &route);
	} while (before != generation);
	if (!fits)
		return route;
	if (routes == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = NAMEDATALEN;
		ctl.entrysize = sizeof(Route);
		ctl.hcxt = TopMemoryContext;
		routes = hash_create("bcmig routes", 16, &ctl, HASH_ELEM | HASH_STRINGS | HASH_CONTEXT);
	}
	strcpy(route.sync, sync);
	known = hash_search(routes, sync, HASH_ENTER, NULL);
	*known = route;
	return route;
}

/* from 0 to below 100, for ever the same for a key */
static double
place_of(const text *key)
{
	uint64		h = hash_bytes_extended((const unsigned char *) VARDATA_ANY(key), VARSIZE_ANY_EXHDR(key), 0);

	return (h >> 11) * (100.0 / ((uint64) 1 << 53));
}

/*
 * bcmig_route(sync, key, write): blue, green or pause
 */
Datum
bcmig_route(PG_FUNCTION_ARGS)
{
	const char *sync = bcmig_arg_text(fcinfo, 0, "sync");
	bool		write = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	Route		route;
	bool		green;

	if (PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("key must not be null"),
				 errhint("Give what is to stay on one side: a user, a customer, a session.")));
	route = find_route(sync);
	if (write && route.writes == 'p')
		PG_RETURN_TEXT_P(cstring_to_text("pause"));
	green = write && route.writes != 'k' ? route.writes == 'g' :
		place_of(PG_GETARG_TEXT_PP(1)) < route.green_percent;
	PG_RETURN_TEXT_P(cstring_to_text(green ? "green" : "blue"));
}
