/*-------------------------------------------------------------------------
 *
 * fence.c
 *	  The refusal of outside writes on green: who is fenced, and rows.
 *
 * A green table is fenced while its sync's row in bcmig.traffic says so, and
 * with it all its partitions and all tables it is a part of.  There is no
 * trigger on it: rights are checked where the executor (COPY, foreign keys,
 * rules and views as well) checks its own, so it makes no difference who
 * writes.  What is not rows is in fence_ddl.c.
 *
 * The catalogue is the flag.  Every backend keeps what it has read for the
 * relations it writes, and forgets it with any invalidation of a relation: a
 * change of the flag invalidates bcmig.traffic.  Invalidations are put into
 * shared memory at commit, after the transaction has become visible and before
 * its locks go, and taken in by whoever locks a relation.  So nobody can see an
 * old flag who locks his table after that commit, and those who had locked it
 * before are waited for (raise.c).  Nothing is lost by a crash, nothing has to
 * be loaded before the first connection, no number of tables is too many; what
 * has not been read yet is read before the write goes on.
 *
 * The reads use the newest snapshot, not the transaction's, and no SPI: a
 * REPEATABLE READ transaction older than the fence must see it.
 *
 * Memory: what has been read lives in a context of its own under
 * CacheMemoryContext, thrown away as a whole.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fence.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/stratnum.h"
#include "access/table.h"
#include "access/transam.h"
#include "catalog/namespace.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/executor.h"
#include "journal.h"
#include "miscadmin.h"
#include "own_write.h"
#include "reverse.h"
#include "traffic.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

/* what was found out about a relation */
typedef struct FenceEntry
{
	Oid			relid;			/* must be first */
	const BcmigFence *fence;	/* NULL = not fenced */
} FenceEntry;

static ExecutorCheckPerms_hook_type prev_check_perms = NULL;

/* what this backend has read; "loaded" only once all of it is there */
static bool loaded = false;
static MemoryContext fence_context = NULL;
static bool extension_here = false;
static int	nfences = 0;
static BcmigFence *fences = NULL;
static HTAB *entries = NULL;
static Oid	sync_table_relid = InvalidOid;

/* ---------------------------------------------------------------------
 * Reading the catalogue
 * --------------------------------------------------------------------- */

static void
relation_invalidated(Datum arg, Oid relid)
{
	loaded = false;
}

static void
name_invalidated(Datum arg, int cacheid, uint32 hashvalue)
{
	loaded = false;
}

void
bcmig_fence_changed(void)
{
	CacheInvalidateRelcacheByRelid(get_relname_relid("traffic", get_namespace_oid("bcmig", false)));
}

static AttrNumber
column(Oid relid, const char *name)
{
	AttrNumber	attnum = get_attnum(relid, name);

	if (attnum == InvalidAttrNumber)
		elog(ERROR, "column \"%s\" of bcmig's table \"%s\" is missing", name, get_rel_name(relid));
	return attnum;
}

static Datum
value_of(HeapTuple tuple, Relation rel, const char *name, bool *isnull)
{
	return heap_getattr(tuple, column(RelationGetRelid(rel), name), RelationGetDescr(rel), isnull);
}

/* the role of option maintenance_role, in "fence" */
static void
read_maintenance_role(BcmigFence *fence, Jsonb *options)
{
	JsonbValue	buf;
	JsonbValue *v = getKeyJsonValueFromContainer(&options->root, "maintenance_role",
												 strlen("maintenance_role"), &buf);

	if (v == NULL || v->type != jbvString)
		return;
	fence->maintenance_name = pnstrdup(v->val.string.val, v->val.string.len);
	fence->maintenance = get_role_oid(fence->maintenance_name, true);
}

/* name and maintenance role of the syncs in fences[] */
static void
read_syncs(Oid relid, Snapshot snapshot)
{
	Relation	rel = table_open(relid, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	HeapTuple	tuple;
	bool		isnull;

	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		int			sync_id = DatumGetInt32(value_of(tuple, rel, "sync_id", &isnull));

		for (int i = 0; i < nfences; i++)
		{
			if (fences[i].sync_id != sync_id)
				continue;
			fences[i].sync_name = TextDatumGetCString(value_of(tuple, rel, "name", &isnull));
			read_maintenance_role(&fences[i], DatumGetJsonbP(value_of(tuple, rel, "options", &isnull)));
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* bcmig.traffic: which syncs are fenced or journaled; in fence_context */
static void
read_fences(Oid traffic, Oid sync)
{
	Relation	rel = try_table_open(traffic, AccessShareLock);
	SysScanDesc scan;
	Snapshot	snapshot;
	HeapTuple	tuple;
	bool		isnull;
	int			room = 0;

	if (rel == NULL)
		return;					/* just dropped */
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		bool		up = DatumGetBool(value_of(tuple, rel, "fence", &isnull));
		bool		armed = DatumGetBool(value_of(tuple, rel, "journal_armed", &isnull));

		if (!up && !armed)
			continue;
		if (nfences == room)
		{
			room += 16;
			fences = room == 16 ? palloc(sizeof(BcmigFence) * room) : repalloc(fences, sizeof(BcmigFence) * room);
		}
		memset(&fences[nfences], 0, sizeof(BcmigFence));
		fences[nfences].up = up;
		fences[nfences].armed = armed;
		fences[nfences++].sync_id = DatumGetInt32(value_of(tuple, rel, "sync_id", &isnull));
	}
	systable_endscan(scan);
	if (nfences > 0)
		read_syncs(sync, snapshot);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
}

/*
 * Read what there is.  What is invalidated while this runs counts for the next
 * call; an error leaves nothing that could be taken for the whole.
 */
static void
load(void)
{
	MemoryContext oldcontext;
	HASHCTL		ctl = {0};

	if (fence_context == NULL)
		fence_context = AllocSetContextCreate(CacheMemoryContext, "bcmig fence", ALLOCSET_SMALL_SIZES);
	MemoryContextReset(fence_context);
	oldcontext = MemoryContextSwitchTo(fence_context);
	nfences = 0;
	extension_here = false;
	entries = NULL;
	loaded = true;
	PG_TRY();
	{
		Oid			nsp = get_namespace_oid("bcmig", true);
		Oid			traffic = OidIsValid(nsp) ? get_relname_relid("traffic", nsp) : InvalidOid;

		sync_table_relid = OidIsValid(nsp) ? get_relname_relid("sync_table", nsp) : InvalidOid;

		/* without a table its script is just running */
		if (OidIsValid(traffic) && OidIsValid(sync_table_relid) && OidIsValid(get_extension_oid("bcmig", true)))
		{
			ctl.keysize = sizeof(Oid);
			ctl.entrysize = sizeof(FenceEntry);
			ctl.hcxt = fence_context;
			entries = hash_create("bcmig fence", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
			extension_here = true;
			read_fences(traffic, get_relname_relid("sync", nsp));
		}
	}
	PG_CATCH();
	{
		loaded = false;
		PG_RE_THROW();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(oldcontext);
}

bool
bcmig_fence_possible(void)
{
	if (!loaded)
		load();
	return extension_here;
}

/* the parents of "relid", added to a list of relations */
static List *
add_parents(List *family, Oid relid)
{
	Relation	rel = table_open(InheritsRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_inherits_inhrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, InheritsRelidSeqnoIndexId, true, NULL, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		family = list_append_unique_oid(family, ((Form_pg_inherits) GETSTRUCT(tuple))->inhparent);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return family;
}

List *
bcmig_relation_family(Oid relid)
{
	List	   *up = list_make1_oid(relid);
	List	   *down;

	/* grows while it is walked */
	for (int i = 0; i < list_length(up); i++)
		up = add_parents(up, list_nth_oid(up, i));
	if (!has_subclass(relid))
		return up;
	down = find_all_inheritors(relid, NoLock, NULL);
	return list_concat_unique_oid(down, up);
}

/*
 * The fence of the sync that has a table of this name, or (relname NULL) any
 * table in this schema.
 */
static const BcmigFence *
fence_of_name(const char *nspname, const char *relname, Snapshot snapshot)
{
	static const char *const names[] = {"target_schema", "target_table"};
	Relation	rel = try_table_open(sync_table_relid, AccessShareLock);
	const BcmigFence *found = NULL;
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			index;
	bool		isnull;

	if (rel == NULL)
		return NULL;			/* just dropped */
	index = bcmig_unique_index(rel, lengthof(names), names);
	for (int i = 0; i < lengthof(names); i++)
		ScanKeyEntryInitialize(&keys[i], 0, column(sync_table_relid, names[i]), BTEqualStrategyNumber, TEXTOID,
							   DEFAULT_COLLATION_OID, F_TEXTEQ,
							   CStringGetTextDatum(i == 0 || relname == NULL ? nspname : relname));
	scan = systable_beginscan(rel, index, OidIsValid(index), snapshot, relname ? 2 : 1, keys);
	while (found == NULL && HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		int			sync_id = DatumGetInt32(value_of(tuple, rel, "sync_id", &isnull));

		for (int i = 0; i < nfences; i++)
		{
			if (fences[i].sync_id == sync_id)
				found = &fences[i];
		}
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

const BcmigFence *
bcmig_fence_of_schema(const char *schema)
{
	const BcmigFence *fence;
	Snapshot	snapshot;

	if (!bcmig_fence_possible() || nfences == 0)
		return NULL;
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	fence = fence_of_name(schema, NULL, snapshot);
	UnregisterSnapshot(snapshot);
	return fence;
}

const BcmigFence *
bcmig_fence_of(Oid relid)
{
	FenceEntry *entry;
	const BcmigFence *fence = NULL;
	Snapshot	snapshot;
	ListCell   *lc;

	if (relid < FirstNormalObjectId)
		return NULL;
	if (!loaded)
		load();
	if (nfences == 0)
		return NULL;
	entry = hash_search(entries, &relid, HASH_FIND, NULL);
	if (entry != NULL)
		return entry->fence;

	snapshot = RegisterSnapshot(GetLatestSnapshot());
	foreach(lc, bcmig_relation_family(relid))
	{
		char	   *name = get_rel_name(lfirst_oid(lc));
		char	   *schema = name ? get_namespace_name(get_rel_namespace(lfirst_oid(lc))) : NULL;

		if (schema != NULL && fence == NULL)
			fence = fence_of_name(schema, name, snapshot);
	}
	UnregisterSnapshot(snapshot);
	entry = hash_search(entries, &relid, HASH_ENTER, NULL);
	entry->fence = fence;
	return fence;
}

/* ---------------------------------------------------------------------
 * Refusing
 * --------------------------------------------------------------------- */

/*
 * The role itself, as SET ROLE makes it: that a superuser could be anybody does
 * not make him the one who means it.
 */
bool
bcmig_fence_passes(const BcmigFence *fence)
{
	return OidIsValid(fence->maintenance) && GetUserId() == fence->maintenance;
}

void
bcmig_fence_refuse(const BcmigFence *fence, Oid relid)
{
	char	   *name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));

	if (!fence->up)
		ereport(ERROR,
				(errcode(ERRCODE_BM_JOURNAL),
				 errmsg("table %s is journaled for sync \"%s\"", name, fence->sync_name),
				 errdetail("A rollback brings rows back to blue one by one: the journal cannot record this."),
				 errhint("DELETE instead of TRUNCATE. To change the table: SELECT bcmig.disarm_journal(%s); -- gives up that outside writes can be brought back",
						 quote_literal_cstr(fence->sync_name))));
	ereport(ERROR,
			(errcode(ERRCODE_BM_FENCED),
			 errmsg("table %s is fenced by sync \"%s\"", name, fence->sync_name),
			 errdetail("Until traffic is switched to green, blue is the one writer: what anybody else writes here would make the two differ."),
			 fence->maintenance_name != NULL ?
			 errhint("Write on blue. To mend green by hand: SET ROLE %s;", quote_identifier(fence->maintenance_name)) :
			 errhint("Write on blue. To mend green by hand: SELECT bcmig_alter_sync(%s, '{\"maintenance_role\": \"...\"}'); SET ROLE ...;",
					 quote_literal_cstr(fence->sync_name))));
}

/*
 * ExecutorCheckPerms hook.  Relations are locked for their use by now.  A lock
 * below RowExclusiveLock is no write: SELECT FOR UPDATE asks for the right to
 * update too.
 */
static bool
check_perms(List *range_table, BCMIG_CHECK_PERMS_INFOS bool raise)
{
	Oid			ours = bcmig_own_write_take(range_table);
	ListCell   *lc;

	foreach(lc, range_table)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
		const BcmigFence *fence;

		if (rte->rtekind != RTE_RELATION || rte->rellockmode < RowExclusiveLock || rte->relid == ours ||
			(BCMIG_REQUIRED_PERMS(rte) & (ACL_INSERT | ACL_UPDATE | ACL_DELETE)) == 0)
			continue;
		fence = bcmig_fence_of(rte->relid);
		if (fence == NULL || !fence->up || bcmig_fence_passes(fence))
			continue;
		if (raise)
			bcmig_fence_refuse(fence, rte->relid);
		return false;
	}
	return prev_check_perms == NULL || prev_check_perms(range_table, BCMIG_CHECK_PERMS_PASS raise);
}

/* ---------------------------------------------------------------------
 * Subscriptions: their workers write without asking for rights
 * --------------------------------------------------------------------- */

char *
bcmig_subscription_of(Oid relid)
{
	Relation	rel = table_open(SubscriptionRelRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *name = NULL;

	ScanKeyInit(&key, Anum_pg_subscription_rel_srrelid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, InvalidOid, false, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
		name = get_subscription_name(((Form_pg_subscription_rel) GETSTRUCT(tuple))->srsubid, true);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return name;
}

void
bcmig_switch_init(bool preloaded)
{
	static const BcmigSwitchRoom room = {
		.starting = bcmig_fence_at_start,
		.changing = bcmig_require_disarmed,
		.traffic = bcmig_run_traffic,
		.traffic_failed = bcmig_traffic_failed,
		.reverse = bcmig_run_reverse,
		.reverse_failed = bcmig_reverse_failed,
		.hear_blue = bcmig_replay_heard,
	};

	bcmig_switch_room = &room;
	bcmig_reverse_script = bcmig_make_reverse_script;
	if (!preloaded)
		return;
	prev_check_perms = ExecutorCheckPerms_hook;
	ExecutorCheckPerms_hook = check_perms;
	bcmig_fence_ddl_init();
	bcmig_journal_init();
	bcmig_reverse_init();
	bcmig_own_write_init();
	CacheRegisterRelcacheCallback(relation_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(NAMESPACEOID, name_invalidated, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, name_invalidated, (Datum) 0);
}
