/*-------------------------------------------------------------------------
 *
 * shard.c
 *	  A big window applied by several workers.
 *
 * The leader, the worker that has read the window, applies deletes and the
 * clean-up of renamed rows for the whole window first, by itself: a row that
 * goes and one that comes may be in different shards.  Then it deals the
 * upserts out by hash of key into files, says so in its slot, and applies shard
 * after shard.  The manager lends idle workers as helpers, who do the same.
 * Nobody waits for a helper that does not come.  When no shard is left the
 * leader waits for those that are being applied; only then the position moves.
 *
 * Equal keys are in one shard, by the equality of green's key, and a shard is
 * applied by one process; so rows of one window never meet.  They could in a
 * secondary unique key, in a trigger, a transform: such tables go serially.
 *
 * Rule R1, no row is written after one that was read later: leader and helpers
 * hold the applier lock in a mode they share and that shuts out everybody else
 * (RowExclusiveLock against the ExclusiveLock of windows and the ShareLock of
 * copies).  The leader takes it before it lets go of the exclusive one, and
 * the exclusive one again before it moves the position.  A helper claims a
 * shard only with the lock in hand and while the window is open, that is while
 * its leader holds the lock; it keeps the lock until the shard's last
 * transaction has ended.  The leader closes the window before it lets go of
 * the lock, also when it dies.  So a window that is open is the newest that was
 * read, and no other is read while a helper may still write rows of this one,
 * whatever became of its leader.  The manager does not even try (helpers in
 * BcmigTable).
 *
 * A helper that fails, or ends, fails the window: the leader raises it and the
 * window is repeated, serially while the table has failures.  Helpers of a
 * leader that is gone stop after the present transaction.
 *
 * Files: a FileSet, no shared memory segment: its description is in the slot.
 * They outlive the transaction they are written in.  The leader removes them
 * at the end and, by before_shmem_exit, when it ends otherwise; a server that
 * starts anew removes what a crash has left.
 *
 * BcmigShards is guarded by BcmigShared->lock.  Memory: a context per shard.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "shard.h"

#include "access/genam.h"
#include "access/table.h"
#include "catalog/pg_index.h"
#include "common/hashfn.h"
#include "load.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "pgstat.h"
#include "quarantine.h"
#include "slot.h"
#include "storage/buffile.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/typcache.h"
#include "write.h"

#define SHARDS_A_PROCESS	4	/* so that all end at about the same time */
#define SHAPE_FILE			"shape"
#define WAIT_STEP			50	/* ms between two looks at small windows of other tables */

/* how keys are hashed, by the equality of green's key */
typedef struct KeyHash
{
	int			nkeys;
	int			att[INDEX_MAX_KEYS];	/* in the feed, 0-based */
	FmgrInfo   *hash[INDEX_MAX_KEYS];
	Oid			collation[INDEX_MAX_KEYS];
} KeyHash;

/* a column of the feed, in SHAPE_FILE */
typedef struct ShapeColumn
{
	NameData	name;
	Oid			type;
	int32		typmod;
	Oid			collation;
} ShapeColumn;

/* a shard this process has claimed */
typedef struct Claim
{
	BcmigSlot  *leader;
	uint64		serial;
	int			shard;
	FileSet		files;
	int64		most_refused;
	int64		refused;		/* of the window, so far */
} Claim;

/* what a helper is applying, to be stopped when its leader is gone */
static BcmigApplied *helping = NULL;
static const Claim *helping_with = NULL;

/* ---- may it be done ---- */

static Relation
open_target(const BcmigTableInfo *table)
{
	return table_openrv(makeRangeVar(table->target_schema, table->target_table, -1), AccessShareLock);
}

/* is there a key beside the one rows are found by? */
static bool
other_unique_key(Relation rel, Oid key)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;
	bool		found = false;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));

		if (!HeapTupleIsValid(tuple))
			continue;
		if (lfirst_oid(lc) != key)
			found |= ((Form_pg_index) GETSTRUCT(tuple))->indisunique || ((Form_pg_index) GETSTRUCT(tuple))->indisexclusion;
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	return found;
}

/* false when keys of such a type cannot be hashed */
static bool
key_hash(const BcmigTableInfo *table, Relation rel, KeyHash *h)
{
	Relation	index = index_open(bcmig_key_index(table, RelationGetRelid(rel)), AccessShareLock);
	bool		possible = true;

	h->nkeys = table->nkeys;
	for (int k = 0; k < table->nkeys && possible; k++)
	{
		int			a = bcmig_target_attribute(table, RelationGetDescr(rel), FEED_COLUMNS + table->keys[k]);
		TypeCacheEntry *type;

		h->att[k] = FEED_COLUMNS + table->keys[k];
		h->collation[k] = InvalidOid;
		for (int i = 0; i < IndexRelationGetNumberOfKeyAttributes(index); i++)
		{
			if (index->rd_index->indkey.values[i] == a + 1)
				h->collation[k] = index->rd_indcollation[i];
		}
		type = a < 0 ? NULL : lookup_type_cache(TupleDescAttr(RelationGetDescr(rel), a)->atttypid, TYPECACHE_HASH_EXTENDED_PROC_FINFO);
		possible = type != NULL && OidIsValid(type->hash_extended_proc_finfo.fn_oid);
		if (possible)
			h->hash[k] = &type->hash_extended_proc_finfo;
	}
	index_close(index, AccessShareLock);
	return possible;
}

bool
bcmig_shards_possible(const BcmigWork *work, const BcmigSpool *spool)
{
	const BcmigTableInfo *table = work->table;
	BcmigTable *live;
	Relation	rel;
	KeyHash		h;
	bool		possible;

	if (table->parallel < 2 || table->nkeys == 0 || bcmig_max_workers < 2 || spool->upserts <= table->batch_rows)
		return false;
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	live = bcmig_live_table(table->table_id);
	possible = live != NULL && live->failures == 0;
	LWLockRelease(bcmig_shared->lock);
	if (!possible)
		return false;

	bcmig_start_transaction();
	rel = open_target(table);
	possible = bcmig_write_possible(table, rel) &&
		!other_unique_key(rel, bcmig_key_index(table, RelationGetRelid(rel))) && key_hash(table, rel, &h);
	table_close(rel, AccessShareLock);
	bcmig_end_transaction();
	return possible;
}

/* ---- files ---- */

static void
write_shape(FileSet *files, TupleDesc desc)
{
	BufFile    *file = BufFileCreateFileSet(files, SHAPE_FILE);

	BufFileWrite(file, &desc->natts, sizeof(int));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		ShapeColumn column = {att->attname, att->atttypid, att->atttypmod, att->attcollation};

		BufFileWrite(file, &column, sizeof(column));
	}
	BufFileClose(file);
}

/* false at the end of the file, where that may be */
static bool
read_part(BufFile *file, void *to, size_t size, bool end_allowed)
{
	size_t		n = BufFileRead(file, to, size);

	if (n == size)
		return true;
	if (n != 0 || !end_allowed)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("a file of a window's rows ends too early")));
	return false;
}

static TupleDesc
read_shape(BufFile *file)
{
	TupleDesc	desc;
	int			natts;

	read_part(file, &natts, sizeof(natts), false);
	desc = CreateTemplateTupleDesc(natts);
	for (int i = 0; i < natts; i++)
	{
		ShapeColumn column;

		read_part(file, &column, sizeof(column), false);
		TupleDescInitEntry(desc, i + 1, NameStr(column.name), column.type, column.typmod, 0);
		TupleDescInitEntryCollation(desc, i + 1, column.collation);
	}
	return desc;
}

static void
shard_name(char *name, int shard)
{
	snprintf(name, NAMEDATALEN, "shard%d", shard);
}

/*
 * Deal the upserts of the window out into n files.  A transaction of its own:
 * its resource owner closes the files should something fail.
 */
static void
write_files(const BcmigTableInfo *table, BcmigSpool *spool, FileSet *files, int n)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(spool->desc, &TTSOpsMinimalTuple);
	BufFile   **shards = palloc(sizeof(BufFile *) * n);
	Relation	rel;
	KeyHash		h;

	rel = open_target(table);
	if (!key_hash(table, rel, &h))
		elog(ERROR, "the key of %s cannot be hashed any more", table->target_name);
	table_close(rel, AccessShareLock);
	write_shape(files, spool->desc);
	for (int i = 0; i < n; i++)
	{
		char		name[NAMEDATALEN];

		shard_name(name, i);
		shards[i] = BufFileCreateFileSet(files, name);
	}
	tuplestore_select_read_pointer(spool->store, 0);
	tuplestore_rescan(spool->store);
	while (tuplestore_gettupleslot(spool->store, true, false, slot))
	{
		uint64		hash = 0;
		bool		should_free;
		MinimalTuple tuple;

		CHECK_FOR_INTERRUPTS();
		slot_getallattrs(slot);
		if (*VARDATA_ANY(DatumGetTextPP(slot->tts_values[FEED_OP])) != 'U')
			continue;
		for (int k = 0; k < h.nkeys; k++)
		{
			uint64		one = slot->tts_isnull[h.att[k]] ? 0 :
			DatumGetUInt64(FunctionCall2Coll(h.hash[k], h.collation[k], slot->tts_values[h.att[k]], UInt64GetDatum(0)));

			hash = hash_combine64(hash, one);
		}
		tuple = ExecFetchSlotMinimalTuple(slot, &should_free);
		BufFileWrite(shards[hash % n], tuple, tuple->t_len);
		if (should_free)
			pfree(tuple);
	}
	for (int i = 0; i < n; i++)
		BufFileClose(shards[i]);
	pfree(shards);
	ExecDropSingleTupleTableSlot(slot);
}

/* the rows of a shard, in the current context, or NULL when the leader has taken the files away */
static BcmigSpool *
read_shard(Claim *claim)
{
	BcmigSpool *spool;
	BufFile    *file;
	TupleTableSlot *slot;
	char		name[NAMEDATALEN];
	uint32		length;

	bcmig_start_transaction();
	spool = bcmig_spool_create();
	file = BufFileOpenFileSet(&claim->files, SHAPE_FILE, O_RDONLY, true);
	if (file != NULL)
	{
		spool->desc = read_shape(file);
		BufFileClose(file);
		shard_name(name, claim->shard);
		file = BufFileOpenFileSet(&claim->files, name, O_RDONLY, true);
	}
	if (file == NULL)
	{
		bcmig_end_transaction();
		bcmig_spool_end(spool);
		return NULL;
	}
	slot = MakeSingleTupleTableSlot(spool->desc, &TTSOpsMinimalTuple);
	while (read_part(file, &length, sizeof(length), true))
	{
		MinimalTuple tuple = palloc(length);

		CHECK_FOR_INTERRUPTS();
		tuple->t_len = length;
		read_part(file, (char *) tuple + sizeof(length), length - sizeof(length), false);
		ExecStoreMinimalTuple(tuple, slot, true);
		tuplestore_puttupleslot(spool->store, slot);
		spool->upserts++;
	}
	ExecDropSingleTupleTableSlot(slot);
	BufFileClose(file);
	bcmig_end_transaction();
	return spool;
}

/* ---- claims; the lock is held ---- */

/* the window of this table that is open, or NULL */
static BcmigSlot *
open_window(int table_id)
{
	for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
	{
		BcmigSlot  *slot = &bcmig_shared->slots[i];

		if (slot->in_use && slot->dboid == MyDatabaseId && slot->shards.open && slot->shards.table_id == table_id)
			return slot;
	}
	return NULL;
}

static bool
still_open(const Claim *claim)
{
	return claim->leader->in_use && claim->leader->shards.open && claim->leader->shards.serial == claim->serial;
}

/* false: there is nothing (more) to do */
static bool
claim_shard(int table_id, Claim *claim)
{
	BcmigSlot  *leader;
	bool		claimed = false;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	leader = open_window(table_id);
	if (leader != NULL && !leader->shards.failed && !leader->shards.stopped && leader->shards.next < leader->shards.n)
	{
		BcmigShards *shards = &leader->shards;

		claim->leader = leader;
		claim->serial = shards->serial;
		claim->shard = shards->next++;
		claim->files = shards->files;
		claim->most_refused = shards->most_refused;
		claim->refused = shards->refused;
		shards->running++;
		if (leader != bcmig_slot)
		{
			bcmig_slot->job.leader = leader - bcmig_shared->slots;
			bcmig_slot->job.shards = shards->serial;
		}
		claimed = true;
	}
	LWLockRelease(bcmig_shared->lock);
	return claimed;
}

static void
finish_shard(const Claim *claim, const BcmigApplied *applied)
{
	BcmigShards *shards = &claim->leader->shards;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	if (still_open(claim))
	{
		shards->running--;
		shards->written += applied->written;
		shards->deleted += applied->deleted;
		shards->quarantined += applied->quarantined;
		shards->refused += applied->refused - claim->refused;
		shards->stopped |= applied->stopped ||
			(shards->most_refused > 0 && shards->refused >= shards->most_refused);
		if (shards->refusal[0] == '\0')
			strlcpy(shards->refusal, applied->first_error, BCMIG_TEXT);
		SetLatch(&claim->leader->proc->procLatch);
	}
	if (claim->leader != bcmig_slot)
		bcmig_slot->job.shards = 0;
	LWLockRelease(bcmig_shared->lock);
}

/*
 * Between two transactions of a helper.
 */
static void
look_at_leader(void)
{
	bcmig_debug_point("shard_between");
	LWLockAcquire(bcmig_shared->lock, LW_SHARED);
	if (!still_open(helping_with))
		helping->stopped = true;
	LWLockRelease(bcmig_shared->lock);
}

/*
 * Apply shards until none is left.
 */
static void
apply_shards(const BcmigTableInfo *table)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bcmig shard", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Claim		claim;

	while (claim_shard(table->table_id, &claim))
	{
		BcmigApplied applied = {0};
		BcmigSpool *spool;

		CHECK_FOR_INTERRUPTS();
		bcmig_debug_point("shard_claimed");
		spool = read_shard(&claim);
		if (spool == NULL)
			break;				/* the claim fails with the job, if anybody still asks */
		if (spool->desc->natts != table->ncolumns + FEED_COLUMNS)
			elog(ERROR, "a window of %s has %d columns, %d are expected", table->target_name,
				 spool->desc->natts, table->ncolumns + FEED_COLUMNS);
		bcmig_debug_point("shard_read");
		applied.refused = claim.refused;
		helping = &applied;
		helping_with = &claim;
		bcmig_apply_batches(table, spool, BCMIG_PASS_UPSERT, claim.most_refused, &applied);
		bcmig_spool_end(spool);
		finish_shard(&claim, &applied);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(oldcontext);
	MemoryContextDelete(context);
}

/* ---- the leader ---- */

/*
 * Nobody may claim a shard any more; what was said of it stays until the next
 * window.  Before the applier lock goes.
 */
static void
close_window(void)
{
	FileSet		files;
	bool		was_open;

	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	was_open = bcmig_slot->shards.open;
	bcmig_slot->shards.open = false;
	files = bcmig_slot->shards.files;
	LWLockRelease(bcmig_shared->lock);
	if (was_open)
		FileSetDeleteAll(&files);
}

/* comes after slot.c's was registered and those of the core, so it runs before them: the locks are still held */
static void
leader_ends(int code, Datum arg)
{
	close_window();
}

static void
open_shards(const BcmigTableInfo *table, BcmigSpool *spool, int64 most_refused, const BcmigApplied *applied)
{
	BcmigShards *shards = &bcmig_slot->shards;
	int			n = Min(table->parallel * SHARDS_A_PROCESS, spool->upserts / table->batch_rows + 1);
	FileSet		files;
	static bool registered = false;

	if (!registered)
		before_shmem_exit(leader_ends, 0);
	registered = true;
	bcmig_start_transaction();
	FileSetInit(&files);

	/* from here on they are removed, whatever happens; nothing can be claimed yet */
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	memset(shards, 0, sizeof(*shards));
	shards->files = files;
	shards->serial = ++bcmig_shared->publications;
	shards->table_id = table->table_id;
	shards->most_refused = most_refused;
	shards->refused = applied->refused;
	shards->open = true;
	LWLockRelease(bcmig_shared->lock);

	write_files(table, spool, &files, n);
	bcmig_end_transaction();
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	shards->n = n;
	shards->wanted = Min(table->parallel, n) - 1;
	LWLockRelease(bcmig_shared->lock);
	bcmig_wake_manager(MyDatabaseId);
}

/*
 * Wait until no shard is being applied, taking small windows of other tables as
 * between two transactions.
 */
static void
wait_for_helpers(const BcmigTableInfo *table)
{
	BcmigShards *shards = &bcmig_slot->shards;

	for (;;)
	{
		BcmigShards now;

		CHECK_FOR_INTERRUPTS();
		LWLockAcquire(bcmig_shared->lock, LW_SHARED);
		now = *shards;
		LWLockRelease(bcmig_shared->lock);
		if (now.failed)
			ereport(ERROR,
					(errcode(now.sqlerrcode != 0 ? now.sqlerrcode : ERRCODE_ADMIN_SHUTDOWN),
					 errmsg("a worker that helped to apply a window of %s failed: %s", table->target_name, now.error),
					 errhint("Nothing is to be done: the window is repeated.")));
		if (now.running == 0)
			return;
		if (bcmig_between_batches != NULL)
			bcmig_between_batches();
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, WAIT_STEP, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
}

void
bcmig_apply_shards(BcmigWork *work, BcmigSpool *spool, int64 most_refused, BcmigApplied *applied)
{
	BcmigTableInfo *table = work->table;
	BcmigShards *shards = &bcmig_slot->shards;

	bcmig_apply_batches(table, spool, BCMIG_PASS_DELETE | BCMIG_PASS_RENAME, most_refused, applied);
	if (applied->stopped)
		return;

	/* an ERROR from here on ends the process, and leader_ends() closes the window */
	bcmig_applier_lock(work, RowExclusiveLock);
	bcmig_applier_unlock(work, ExclusiveLock);
	open_shards(table, spool, most_refused, applied);
	apply_shards(table);
	wait_for_helpers(table);
	close_window();
	bcmig_applier_lock(work, ExclusiveLock);
	bcmig_applier_unlock(work, RowExclusiveLock);

	/* nobody else writes here once it is closed */
	applied->written += shards->written;
	applied->deleted += shards->deleted;
	applied->quarantined += shards->quarantined;
	applied->refused = shards->refused;
	applied->stopped = shards->stopped;
	if (applied->first_error[0] == '\0')
		strlcpy(applied->first_error, shards->refusal, BCMIG_TEXT);
}

/* ---- a helper ---- */

void
bcmig_run_shards(BcmigWork *work)
{
	/* never waits; when somebody waits for the lock, or has it, this window gets no more help */
	if (!bcmig_applier_try_lock(work, RowExclusiveLock))
	{
		BcmigSlot  *leader;

		LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
		leader = open_window(work->table->table_id);
		if (leader != NULL)
			leader->shards.wanted = 0;
		LWLockRelease(bcmig_shared->lock);
		return;
	}
	bcmig_slot_phase("shard", work->table->target_name, 0);
	bcmig_between_batches = look_at_leader;
	apply_shards(work->table);
	bcmig_between_batches = NULL;
	bcmig_applier_unlock(work, RowExclusiveLock);
}
