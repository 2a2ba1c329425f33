/*-------------------------------------------------------------------------
 *
 * depends.c
 *	  What a sync depends on: other syncs, by name (option depends_on).
 *
 * Sessions that set it come one after the other, so that two of them do not make
 * a circle between them.  Whoever drops a sync locks its row against those who
 * are about to depend on it, then looks.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"

#include "call.h"
#include "utils/builtins.h"

typedef struct Needed
{
	char	   *name;
	Oid			owner;
} Needed;

static void
cannot(const char *name, const char *other, bool itself)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 itself ? errmsg("sync \"%s\" cannot depend on itself", name) :
			 errmsg("sync \"%s\" cannot depend on sync \"%s\", which depends on it", name, other),
			 errhint("SELECT name, options->'depends_on' FROM bcmig.sync WHERE options ? 'depends_on';")));
}

/* in a scope */
static Oid
lock_needed(const char *name, const char *other)
{
	Oid			owner;

	if (bcmig_sql("SELECT owner::oid FROM bcmig.sync WHERE name = $1 FOR KEY SHARE", "t", other) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" of option depends_on does not exist", other),
				 errhint("SELECT name FROM bcmig.sync;")));
	owner = bcmig_get_int64(0, 1, 0);
	if (strcmp(name, other) == 0)
		cannot(name, other, true);
	if (bcmig_sql("WITH RECURSIVE d AS (SELECT $2 AS name UNION SELECT n.name FROM d JOIN bcmig.sync y USING (name), "
				  "jsonb_array_elements_text(y.options->'depends_on') n (name)) SELECT FROM d WHERE name = $1", "tt", name, other) > 0)
		cannot(name, other, false);
	return owner;
}

/*
 * The one who sets it must be a member of their owners: they cannot be dropped
 * any more.
 */
void
bcmig_check_depends_on(const char *name)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *needed = NIL;
	ListCell   *lc;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT n FROM bcmig.sync, jsonb_array_elements_text(options->'depends_on') n WHERE name = $1", "t", name);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		Needed	   *d = palloc(sizeof(Needed));

		d->name = bcmig_get_text(i, 1);
		needed = lappend(needed, d);
	}
	if (n > 0)
		SPI_execute("LOCK TABLE bcmig.sync IN SHARE UPDATE EXCLUSIVE MODE", false, 0);
	foreach(lc, needed)
	{
		Needed	   *d = lfirst(lc);

		d->owner = lock_needed(name, d->name);
	}
	bcmig_catalog_end(&scope);
	foreach(lc, needed)
	{
		const Needed *d = lfirst(lc);

		bcmig_check_member(d->owner, "sync", d->name);
	}
}

void
bcmig_require_no_dependents(const BcmigSync *sync)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT FROM bcmig.sync WHERE sync_id = $1 FOR UPDATE", "i", sync->sync_id);
	if (bcmig_sql("SELECT name FROM bcmig.sync WHERE options->'depends_on' ? $1 ORDER BY name", "t", sync->name) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" depends on sync \"%s\"", bcmig_get_text(0, 1), sync->name),
				 errhint("SELECT bcmig_alter_sync(%s, '{\"depends_on\": null}');", quote_literal_cstr(bcmig_get_text(0, 1)))));
	bcmig_catalog_end(&scope);
}
