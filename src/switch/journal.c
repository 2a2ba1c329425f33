/*-------------------------------------------------------------------------
 *
 * journal.c
 *	  The journal: what outsiders write on green while it is theirs to write.
 *
 * While a sync's journal is armed every green table of it has a row trigger
 * that adds an entry to bcmig.journal, in the transaction of the write.  An
 * entry is a signal: this key has been written to.  A rollback reads the row as
 * it stands then, once for all entries of a key; images are evidence.
 * Triggers fire always, in replica mode too.  bcmig's own rows make no entry,
 * those a function of a user writes while bcmig writes do (own_write.c).
 *
 * All tables of a sync are armed in one transaction, or none is.  TRUNCATE and
 * changes of an armed table are refused (fence_ddl.c): no entry would tell of
 * them.
 *
 * Entries are read below the xmin of a snapshot: what has an older transaction
 * can only have been committed or rolled back, so nothing comes in between
 * afterwards.  Their ids give the order; inside one transaction it is that of
 * the triggers, not of the versions of a row.
 *
 * Memory: what is known of a table lives in a context of its own until any
 * relation changes; an entry is built in the trigger's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "journal.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "call.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/spi.h"
#include "fence.h"
#include "funcapi.h"
#include "load.h"
#include "miscadmin.h"
#include "own_write.h"
#include "transform.h"
#include "nodes/makefuncs.h"
#include "pgtime.h"
#include "quarantine.h"
#include "reach.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/float.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/xid8.h"
#include "worker.h"

#define TRIGGER_NAME	"bcmig_journal"

BCMIG_FUNCTION(bcmig_journal_row);
BCMIG_FUNCTION(bcmig_arm_journal);
BCMIG_FUNCTION(bcmig_disarm_journal);
BCMIG_FUNCTION(bcmig_journal_pending);

/* a relation with the trigger: a target, or a partition of one */
typedef struct JournalRelation
{
	Oid			relid;			/* must be first */
	BcmigTableInfo *table;
	TupleDesc	shape;			/* of the feed, with green's types */
	AttrNumber *attnums;		/* where the columns of the feed are; 0 = nowhere */
	bool		zoned;			/* has values that are spelled by the time zone */
} JournalRelation;

static MemoryContext journal_context = NULL;
static HTAB *relations = NULL;
static Oid	journal_relid = InvalidOid;
static Oid	journal_sequence = InvalidOid;	/* of its ids */
static bool stale = true;

/* ---------------------------------------------------------------------
 * The trigger
 * --------------------------------------------------------------------- */

static void
relation_invalidated(Datum arg, Oid relid)
{
	stale = true;
}

/*
 * What is known of a relation.  The columns are found by name: partitions may
 * have them in another order.
 */
static JournalRelation *
journal_relation(Relation rel, int table_id)
{
	Oid			relid = RelationGetRelid(rel);
	TupleDesc	desc = RelationGetDescr(rel);
	MemoryContext oldcontext;
	JournalRelation *entry;
	BcmigTableInfo *table;
	bool		found;

	if (stale)
	{
		HASHCTL		ctl = {0};

		if (journal_context == NULL)
			journal_context = AllocSetContextCreate(CacheMemoryContext, "bcmig journal", ALLOCSET_SMALL_SIZES);
		MemoryContextReset(journal_context);
		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(JournalRelation);
		ctl.hcxt = journal_context;
		relations = hash_create("bcmig journal", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
		stale = false;
		journal_relid = get_relname_relid("journal", get_namespace_oid("bcmig", false));
		BCMIG_IDENTITY_SEQUENCE(journal_sequence, journal_relid, get_attnum(journal_relid, "journal_id"));
	}
	entry = hash_search(relations, &relid, HASH_FIND, NULL);
	if (entry != NULL)
		return entry;

	oldcontext = MemoryContextSwitchTo(journal_context);
	table = bcmig_load_table(table_id);
	if (table == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_JOURNAL),
				 errmsg("trigger %s of table %s belongs to no sync", TRIGGER_NAME, RelationGetRelationName(rel)),
				 errhint("DROP TRIGGER %s ON %s;", TRIGGER_NAME,
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)), RelationGetRelationName(rel)))));
	entry = hash_search(relations, &relid, HASH_ENTER, &found);
	entry->table = table;
	entry->zoned = false;
	entry->attnums = palloc0(sizeof(AttrNumber) * (FEED_COLUMNS + table->ncolumns));
	entry->shape = CreateTemplateTupleDesc(FEED_COLUMNS + table->ncolumns);
	for (int i = 0; i < FEED_COLUMNS + table->ncolumns; i++)
	{
		const char *name = i == FEED_OP ? "bc_op" : i == FEED_VERSION ? "bc_rowversion" : table->columns[i - FEED_COLUMNS].target;
		Oid			type = i == FEED_OP ? TEXTOID : INT8OID;

		if (i != FEED_OP)
			entry->attnums[i] = Max(get_attnum(relid, name), 0);
		if (entry->attnums[i] > 0)
			type = TupleDescAttr(desc, entry->attnums[i] - 1)->atttypid;
		entry->zoned |= type == TIMESTAMPTZOID || type == TIMETZOID;
		TupleDescInitEntry(entry->shape, i + 1, name, type, -1, 0);
	}
	MemoryContextSwitchTo(oldcontext);
	return entry;
}

/*
 * Values are spelled as the processes of bcmig spell them, whatever the session
 * has set: a key that looks different is a different key.
 */
static int
spell_as_bcmig(const JournalRelation *entry)
{
	const struct
	{
		bool		differs;
		const char *name;
		const char *value;
	}			settings[] = {
		{DateStyle != USE_ISO_DATES, "datestyle", "ISO"},
		{IntervalStyle != INTSTYLE_POSTGRES, "intervalstyle", "postgres"},
		{extra_float_digits < 1, "extra_float_digits", "3"},
		{bytea_output != BYTEA_OUTPUT_HEX, "bytea_output", "hex"},
		{entry->zoned && strcmp(pg_get_timezone_name(session_timezone), "GMT") != 0, "timezone", "GMT"},
	};
	int			level = 0;

	for (int i = 0; i < lengthof(settings); i++)
	{
		if (!settings[i].differs)
			continue;
		if (level == 0)
			level = NewGUCNestLevel();
		(void) set_config_option(settings[i].name, settings[i].value, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	}
	return level;
}

/* key and image of one version of the row, as jsonb */
static void
describe_row(const JournalRelation *entry, TupleTableSlot *slot, Datum *key, Datum *image, Datum *version, bool *has_version)
{
	int			n = entry->shape->natts;
	Datum	   *values = palloc0(sizeof(Datum) * n);
	bool	   *nulls = palloc(sizeof(bool) * n);

	slot_getallattrs(slot);
	for (int i = 0; i < n; i++)
	{
		int			a = entry->attnums[i] - 1;

		nulls[i] = a < 0 || slot->tts_isnull[a];
		if (!nulls[i])
			values[i] = slot->tts_values[a];
	}
	*key = DirectFunctionCall1(jsonb_in, CStringGetDatum(bcmig_key_json(entry->table, entry->shape, values, nulls)));
	*image = DirectFunctionCall1(jsonb_in, CStringGetDatum(bcmig_image_json(entry->shape, FEED_COLUMNS, values, nulls)));
	if (version != NULL)
	{
		*version = values[FEED_VERSION];
		*has_version = !nulls[FEED_VERSION];
	}
}

/* what a trigger knows of an entry */
typedef struct Entry
{
	const JournalRelation *relation;
	const char *operation;
	Datum		keys[2];		/* old, new; 0 = none */
	Datum		images[2];
	Datum		version;
	bool		has_version;
} Entry;

static void
set_value(TupleTableSlot *slot, const char *name, Datum value)
{
	TupleDesc	desc = slot->tts_tupleDescriptor;

	for (int i = 0; i < desc->natts; i++)
	{
		if (strcmp(NameStr(TupleDescAttr(desc, i)->attname), name) == 0)
		{
			slot->tts_values[i] = value;
			slot->tts_isnull[i] = false;
			return;
		}
	}
	elog(ERROR, "column \"%s\" of bcmig's journal is missing", name);
}

/*
 * Straight into the table and its indexes: an INSERT takes several times as
 * long, and every outside write waits for it.  No rights are asked for, nobody
 * else writes here; defaults and checks of the table are ours to keep.
 */
static void
write_entry(const Entry *entry)
{
	static const char *const keys[] = {"old_key", "new_key"};
	static const char *const images[] = {"old_image", "new_image"};
	Relation	rel = table_open(journal_relid, RowExclusiveLock);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsVirtual);
	ResultRelInfo *rri;
	EState	   *estate = bcmig_create_estate(rel, &rri);

	ExecOpenIndices(rri, false);
	memset(slot->tts_isnull, true, sizeof(bool) * RelationGetNumberOfAttributes(rel));
	set_value(slot, "journal_id", Int64GetDatum(nextval_internal(journal_sequence, false)));
	set_value(slot, "sync_id", Int32GetDatum(entry->relation->table->sync_id));
	set_value(slot, "table_id", Int32GetDatum(entry->relation->table->table_id));
	set_value(slot, "operation", CStringGetTextDatum(entry->operation));
	for (int i = 0; i < 2; i++)
	{
		if (entry->keys[i] != 0)
		{
			set_value(slot, keys[i], entry->keys[i]);
			set_value(slot, images[i], entry->images[i]);
		}
	}
	set_value(slot, "xid", FullTransactionIdGetDatum(GetTopFullTransactionId()));
	if (entry->has_version)
		set_value(slot, "base_version", entry->version);
	set_value(slot, "actor", CStringGetTextDatum(GetUserNameFromId(GetSessionUserId(), false)));
	set_value(slot, "at", TimestampTzGetDatum(GetCurrentTimestamp()));
	ExecStoreVirtualTuple(slot);
	slot->tts_tableOid = journal_relid;
	table_tuple_insert(rel, slot, estate->es_output_cid, 0, NULL);
	(void) BCMIG_INSERT_INDEX_TUPLES(rri, slot, estate, false, BCMIG_UPDATE_ALL);
	ExecCloseIndices(rri);
	ExecDropSingleTupleTableSlot(slot);
	ExecResetTupleTable(estate->es_tupleTable, false);
	FreeExecutorState(estate);
	table_close(rel, NoLock);
}

/*
 * SQL: bcmig.journal_row(table_id), AFTER trigger of each row.
 */
Datum
bcmig_journal_row(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;
	Entry		entry = {0};
	TupleTableSlot *old;
	TupleTableSlot *new;
	int			guc_level;

	if (!CALLED_AS_TRIGGER(fcinfo) || !TRIGGER_FIRED_AFTER(trigdata->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigdata->tg_event) || trigdata->tg_trigger->tgnargs != 1)
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("bcmig.journal_row is for triggers that bcmig makes"),
				 errhint("SELECT bcmig.arm_journal('...');")));
	if (bcmig_own_rows())
		return PointerGetDatum(NULL);

	new = TRIGGER_FIRED_BY_UPDATE(trigdata->tg_event) ? trigdata->tg_newslot :
		TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) ? trigdata->tg_trigslot : NULL;
	old = TRIGGER_FIRED_BY_INSERT(trigdata->tg_event) ? NULL : trigdata->tg_trigslot;
	entry.relation = journal_relation(trigdata->tg_relation, pg_strtoint32(trigdata->tg_trigger->tgargs[0]));
	entry.operation = old == NULL ? "insert" : new == NULL ? "delete" : "update";
	guc_level = spell_as_bcmig(entry.relation);
	if (old != NULL)
		describe_row(entry.relation, old, &entry.keys[0], &entry.images[0], &entry.version, &entry.has_version);
	if (new != NULL)
		describe_row(entry.relation, new, &entry.keys[1], &entry.images[1], NULL, NULL);
	if (guc_level > 0)
		AtEOXact_GUC(true, guc_level);
	write_entry(&entry);
	return PointerGetDatum(NULL);
}

/* ---------------------------------------------------------------------
 * Arming
 * --------------------------------------------------------------------- */

/* ERROR when what is written to a table could not be brought back */
static void
check_reversible(const BcmigTableInfo *table, Oid relid)
{
	BcmigCatalogScope scope;

	if (bcmig_reach_of(table) != BCMIG_REACH_LOCAL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_JOURNAL),
				 errmsg("table %s keeps rows on other servers, where they can be written past the journal", table->target_name),
				 errdetail("Readers can move to such a table, writers cannot while a way back is wanted."),
				 errhint("SELECT bcmig_remove_table(%s, %s); or move its rows to this server.",
						 quote_literal_cstr(table->sync_name), quote_literal_cstr(table->target_name))));
	if (table->nkeys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_JOURNAL),
				 errmsg("table %s has no key, so no entry could say which row was written", table->target_name),
				 errhint("SELECT bcmig_remove_table(%s, %s); or add it again with option key.",
						 quote_literal_cstr(table->sync_name), quote_literal_cstr(table->target_name))));
	bcmig_catalog_begin(&scope);
	for (int i = 0; i < table->ncolumns; i++)
	{
		const BcmigColumn *c = &table->columns[i];
		AttrNumber	attnum = get_attnum(relid, c->target);
		Oid			type;
		int32		typmod;
		Oid			collation;
		char	   *green_type;

		if (!bcmig_has_inverse(c))
			ereport(ERROR,
					(errcode(ERRCODE_BM_JOURNAL),
					 errmsg("column %s of %s has no inverse", quote_identifier(c->target), table->target_name),
					 errdetail("Its transform loses what blue has."),
					 errhint("SELECT bcmig_unmap_column(%s, %s, %s);", quote_literal_cstr(table->sync_name),
							 quote_literal_cstr(table->target_name), quote_literal_cstr(c->source))));
		if (attnum <= 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("column %s of %s is gone", quote_identifier(c->target), table->target_name),
					 errhint("ALTER TABLE %s ADD COLUMN %s %s;", table->target_name, quote_identifier(c->target), c->target_type)));
		get_atttypetypmodcoll(relid, attnum, &type, &typmod, &collation);
		green_type = format_type_with_typemod(type, typmod);

		/* what is copied as it is can be brought back when blue's type holds all of green's */
		if (c->transform == BCMIG_AS_IS && !bcmig_type_fits(green_type, c->source_type))
			ereport(ERROR,
					(errcode(ERRCODE_BM_JOURNAL),
					 errmsg("column %s of %s has no inverse", quote_identifier(c->target), table->target_name),
					 errdetail("Its type %s holds values that blue's %s does not.", green_type, c->source_type),
					 errhint("ALTER TABLE %s ALTER COLUMN %s TYPE %s;", table->target_name, quote_identifier(c->target), c->source_type)));
	}
	bcmig_catalog_end(&scope);
}

/* one statement about a green table, as the owner of schema bcmig; in a catalogue scope */
static void
change_table(Oid relid, const char *sql)
{
	bcmig_own_ddl(relid);
	if (SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "SPI_execute failed: %s", sql);
	bcmig_own_write_end();
}

/* the ids of the tables of a sync, in the caller's context */
static List *
tables_of(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *ids = NIL;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT table_id FROM bcmig.sync_table WHERE sync_id = $1 ORDER BY table_id", "i", sync->sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		ids = lappend_int(ids, bcmig_get_int64(i, 1, 0));
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	return ids;
}

static bool
is_armed(const BcmigSync *sync)
{
	BcmigCatalogScope scope;
	bool		armed;

	bcmig_catalog_begin(&scope);
	armed = bcmig_sql("SELECT 1 FROM bcmig.traffic WHERE sync_id = $1 AND journal_armed", "i", sync->sync_id) > 0;
	bcmig_catalog_end(&scope);
	return armed;
}

static void
set_armed(const BcmigSync *sync, bool armed)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.traffic (sync_id, journal_armed) VALUES ($1, $2) "
			  "ON CONFLICT (sync_id) DO UPDATE SET journal_armed = $2, updated_at = clock_timestamp()",
			  "ib", sync->sync_id, (int) armed);
	bcmig_audit("state", sync->name, NULL, armed ? "journal armed" : "journal disarmed", NULL);
	bcmig_fence_changed();
	bcmig_catalog_end(&scope);
}

void
bcmig_require_disarmed(const BcmigSync *sync)
{
	if (is_armed(sync))
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("the journal of sync \"%s\" is armed", sync->name),
				 errdetail("All its tables are journaled, or none is: their number cannot change now."),
				 errhint("SELECT bcmig.disarm_journal(%s); -- gives up that outside writes can be brought back to blue",
						 quote_literal_cstr(sync->name))));
}

void
bcmig_journal_arm(const BcmigSync *sync)
{
	ListCell   *lc;

	if (is_armed(sync))
	{
		ereport(NOTICE,
				(errmsg("the journal of sync \"%s\" is already armed", sync->name)));
		return;
	}
	foreach(lc, tables_of(sync))
	{
		BcmigTableInfo *table = bcmig_load_table(lfirst_int(lc));
		Oid			relid = bcmig_target_relid(table);
		BcmigCatalogScope scope;

		CHECK_FOR_INTERRUPTS();
		check_reversible(table, relid);
		bcmig_catalog_begin(&scope);
		change_table(relid, psprintf("CREATE TRIGGER " TRIGGER_NAME " AFTER INSERT OR UPDATE OR DELETE ON %s "
									 "FOR EACH ROW EXECUTE FUNCTION bcmig.journal_row(%d)", table->target_name, table->table_id));
		change_table(relid, psprintf("ALTER TABLE %s ENABLE ALWAYS TRIGGER " TRIGGER_NAME, table->target_name));
		bcmig_catalog_end(&scope);
	}
	set_armed(sync, true);
}

/*
 * bcmig.arm_journal(sync): in the caller's transaction.  Entries are written
 * from its commit on; while the fence is up nobody is there to cause one.
 */
Datum
bcmig_arm_journal(PG_FUNCTION_ARGS)
{
	bcmig_require_loaded();
	bcmig_journal_arm(bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync")));
	PG_RETURN_VOID();
}

void
bcmig_journal_disarm(const BcmigSync *sync)
{
	ListCell   *lc;

	if (!is_armed(sync))
	{
		ereport(NOTICE,
				(errmsg("the journal of sync \"%s\" is not armed", sync->name)));
		return;
	}
	foreach(lc, tables_of(sync))
	{
		BcmigTableInfo *table = bcmig_load_table(lfirst_int(lc));
		Oid			relid = RangeVarGetRelid(makeRangeVar(table->target_schema, table->target_table, -1), NoLock, true);
		BcmigCatalogScope scope;

		CHECK_FOR_INTERRUPTS();
		if (!OidIsValid(relid))
			continue;
		bcmig_catalog_begin(&scope);
		change_table(relid, psprintf("DROP TRIGGER IF EXISTS " TRIGGER_NAME " ON %s", table->target_name));
		bcmig_catalog_end(&scope);
	}
	set_armed(sync, false);
}

/*
 * bcmig.disarm_journal(sync): in the caller's transaction.  Entries stay.
 */
Datum
bcmig_disarm_journal(PG_FUNCTION_ARGS)
{
	bcmig_journal_disarm(bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync")));
	PG_RETURN_VOID();
}

/* ---------------------------------------------------------------------
 * Reading
 * --------------------------------------------------------------------- */

/*
 * bcmig.journal_pending(sync text): the keys with entries that are not settled,
 * in the order of their first one; a renamed row is two keys.
 */
Datum
bcmig_journal_pending(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	char	   *name = bcmig_arg_optional_text(fcinfo, 0);
	BcmigCatalogScope scope;
	MemoryContext caller = CurrentMemoryContext;
	uint64		n;

	if (name != NULL)
		(void) bcmig_load_sync(name);
	InitMaterializedSRF(fcinfo, 0);
	bcmig_catalog_begin(&scope);

	/*
	 * The snapshot that is asked for its xmin is the one the rows are seen with:
	 * both are of one statement.
	 */
	n = bcmig_sql("SELECT j.sync_id, j.table_id, k.key, count(*), min(j.journal_id), max(j.journal_id), "
				  " array_agg(j.journal_id ORDER BY j.journal_id), (array_agg(j.base_version ORDER BY j.journal_id))[1], min(j.at), max(j.at) "
				  "FROM bcmig.journal j JOIN bcmig.sync s USING (sync_id), "
				  " LATERAL (SELECT j.old_key AS key WHERE j.old_key IS NOT NULL UNION SELECT j.new_key WHERE j.new_key IS NOT NULL) k "
				  "WHERE j.settled_at IS NULL AND ($1 IS NULL OR s.name = $1) AND j.xid < pg_snapshot_xmin(pg_current_snapshot()) "
				  "GROUP BY j.sync_id, j.table_id, k.key ORDER BY 5, 3", "t", name);
	for (uint64 i = 0; i < n; i++)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(caller);

		CHECK_FOR_INTERRUPTS();
		tuplestore_puttuple(rsinfo->setResult, SPI_tuptable->vals[i]);
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	return (Datum) 0;
}

void
bcmig_journal_init(void)
{
	CacheRegisterRelcacheCallback(relation_invalidated, (Datum) 0);
}
