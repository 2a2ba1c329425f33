/*-------------------------------------------------------------------------
 *
 * reach.c
 *	  Where the rows of a green table lie.
 *
 * Going round the executor (load.c, write.c) is right only where a table's own
 * file holds its rows.  It does not where
 *
 *	- a partition is a foreign table: there is no file;
 *	- Citus has distributed the table: it still looks like a plain one, its
 *	  file is still there and takes rows, which nobody would ever see again,
 *	  since a planner hook sends every statement to the shards;
 *	- it has another access method than heap, which may do as it likes.
 *
 * There rows go by SQL.  For foreign and distributed tables those are other
 * statements than for tables of this server: elsewhere.c.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "reach.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/skey.h"
#include "access/table.h"
#include "access/tableam.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_am.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "foreign/fdwapi.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"

#define CITUS				"citus"
#define CITUS_TABLES		"pg_dist_partition"
#define CITUS_TABLE_COLUMN	"logicalrelid"

/*
 * Does Citus keep the rows of this relation?  Its catalogue is known by the
 * extension it belongs to, not by its name alone.  Reference and local tables
 * it manages are listed too, and are as empty under their own name.
 */
static bool
is_citus_table(Oid relid)
{
	const char *names[] = {CITUS_TABLE_COLUMN};
	Oid			extension = get_extension_oid(CITUS, true);
	Oid			catalog;
	AttrNumber	column;
	Relation	rel;
	SysScanDesc scan;
	ScanKeyData key;
	Oid			index;
	bool		found;

	if (!OidIsValid(extension))
		return false;
	catalog = get_relname_relid(CITUS_TABLES, PG_CATALOG_NAMESPACE);
	if (!OidIsValid(catalog) || getExtensionOfObject(RelationRelationId, catalog) != extension ||
		(column = get_attnum(catalog, CITUS_TABLE_COLUMN)) == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("extension citus is here, but not its list of tables, pg_catalog.pg_dist_partition"),
				 errdetail("Whether a table is distributed cannot be told, and a row written past Citus would be lost."),
				 errhint("SELECT extversion FROM pg_extension WHERE extname = 'citus';")));
	rel = table_open(catalog, AccessShareLock);
	index = bcmig_unique_index(rel, lengthof(names), names);
	ScanKeyInit(&key, column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, index, OidIsValid(index), NULL, 1, &key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return found;
}

static bool
has_unique_index(Relation rel)
{
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;
	bool		unique = false;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));

		if (!HeapTupleIsValid(tuple))
			continue;
		unique |= ((Form_pg_index) GETSTRUCT(tuple))->indisunique;
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	return unique;
}

BcmigReach
bcmig_reach(Relation rel)
{
	if (is_citus_table(RelationGetRelid(rel)))
		return BCMIG_REACH_CITUS;
	if (rel->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
		return BCMIG_REACH_FOREIGN;

	/* a unique key and foreign partitions shut each other out: no need to look at each */
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE && !has_unique_index(rel))
	{
		ListCell   *lc;

		foreach(lc, find_all_inheritors(RelationGetRelid(rel), NoLock, NULL))
		{
			if (get_rel_relkind(lfirst_oid(lc)) == RELKIND_FOREIGN_TABLE)
				return BCMIG_REACH_FOREIGN;
		}
	}
	return BCMIG_REACH_LOCAL;
}

BcmigReach
bcmig_reach_of(const BcmigTableInfo *table)
{
	Relation	rel = table_openrv_extended(makeRangeVar(table->target_schema, table->target_table, -1), AccessShareLock, true);
	BcmigReach	reach;

	if (rel == NULL)
		return BCMIG_REACH_LOCAL;
	reach = bcmig_reach(rel);
	table_close(rel, AccessShareLock);
	return reach;
}

static bool
is_heap(Relation rel)
{
	return rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ||
		(rel->rd_rel->relkind == RELKIND_RELATION && rel->rd_rel->relam == HEAP_TABLE_AM_OID);
}

static bool
insert_fires(const TriggerDesc *triggers)
{
	return triggers != NULL &&
		(triggers->trig_insert_before_row || triggers->trig_insert_after_row ||
		 triggers->trig_insert_instead_row || triggers->trig_insert_new_table);
}

bool
bcmig_heaps_only(Relation rel)
{
	ListCell   *lc;

	if (!is_heap(rel) || insert_fires(rel->trigdesc) || is_citus_table(RelationGetRelid(rel)))
		return false;
	if (rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return true;
	foreach(lc, find_all_inheritors(RelationGetRelid(rel), NoLock, NULL))
	{
		Relation	child;
		bool		plain;

		if (lfirst_oid(lc) == RelationGetRelid(rel))
			continue;
		child = table_open(lfirst_oid(lc), AccessShareLock);
		plain = is_heap(child) && !insert_fires(child->trigdesc);
		table_close(child, NoLock);
		if (!plain)
			return false;
	}
	return true;
}

/* a leaf that is a foreign table */
static void
check_foreign_leaf(Relation leaf, Oid owner, const char *name)
{
	const int	needed = (1 << CMD_INSERT) | (1 << CMD_DELETE);
	FdwRoutine *routine = GetFdwRoutineForRelation(leaf, false);
	Oid			serverid = GetForeignServerIdByRelId(RelationGetRelid(leaf));
	const char *server = GetForeignServer(serverid)->servername;
	BcmigCatalogScope scope;
	bool		is_blue;

	bcmig_catalog_begin(&scope);
	is_blue = bcmig_sql("SELECT 1 FROM bcmig.environment WHERE server = $1 AND side = 'blue'", "t", server) > 0;
	bcmig_catalog_end(&scope);
	if (is_blue)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("%s has rows on server \"%s\", which is a blue", name, server),
				 errdetail("Green cannot be kept in the database it is copied from."),
				 errhint("Pass another target, or none to have the table made.")));
	if (routine->ExecForeignInsert == NULL || routine->ExecForeignDelete == NULL ||
		(routine->IsForeignRelUpdatable != NULL && (routine->IsForeignRelUpdatable(leaf) & needed) != needed))
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("foreign table %s of %s cannot be written to", quote_identifier(RelationGetRelationName(leaf)), name),
				 errhint("ALTER FOREIGN TABLE %s OPTIONS (SET updatable 'true'); if its wrapper can do that.",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(leaf)), RelationGetRelationName(leaf)))));

	/* ERROR without a user mapping: better now than at the first row */
	(void) GetUserMapping(owner, serverid);
}

static void
check_foreign(Relation rel, Oid owner, const char *name, int nkeys, const char *const *keys,
			  int ncolumns, const char *const *columns)
{
	TupleDesc	desc = RelationGetDescr(rel);
	ListCell   *lc;

	if (nkeys == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("%s keeps rows on other servers, and blue's table has no key to find them by", name),
				 errhint("Pass option key, or another target, or none to have the table made.")));
	for (int a = 0; a < desc->natts; a++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, a);
		bool		known = att->attisdropped || strcmp(NameStr(att->attname), "bc_rowversion") == 0;

		for (int i = 0; i < ncolumns && !known; i++)
			known = strcmp(NameStr(att->attname), columns[i]) == 0;
		if (!known)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("column %s of %s does not exist on blue", quote_identifier(NameStr(att->attname)), name),
					 errdetail("A row that may have to move to another server is deleted and inserted, which would forget it."),
					 errhint("ALTER TABLE %s DROP COLUMN %s;", name, quote_identifier(NameStr(att->attname)))));
	}
	foreach(lc, find_all_inheritors(RelationGetRelid(rel), AccessShareLock, NULL))
	{
		Relation	leaf = table_open(lfirst_oid(lc), NoLock);

		if (leaf->rd_rel->relkind == RELKIND_FOREIGN_TABLE)
			check_foreign_leaf(leaf, owner, name);
		else if (leaf->rd_rel->relkind != RELKIND_PARTITIONED_TABLE && !OidIsValid(bcmig_unique_index(leaf, nkeys, keys)))
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("partition %s of %s has no unique key on the key columns of blue",
							quote_identifier(RelationGetRelationName(leaf)), name),
					 errhint("ALTER TABLE %s ADD PRIMARY KEY (...);",
							 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(leaf)), RelationGetRelationName(leaf)))));
		table_close(leaf, NoLock);
	}
}

char *
bcmig_reach_refuses(BcmigReach reach, const char *capture, int nkeys)
{
	if (reach == BCMIG_REACH_CITUS && (nkeys == 0 || strcmp(capture, "change_tracking") != 0))
		return psprintf("Captured by %s%s, rows to delete would be found by joins that Citus does not do.", capture,
						nkeys == 0 ? " without a key" : "");
	if (reach == BCMIG_REACH_FOREIGN && nkeys == 0)
		return pstrdup("It keeps rows on other servers, and blue's table has no key to find them by.");
	return NULL;
}

void
bcmig_check_reach(Relation rel, Oid owner, const char *name, const char *capture,
				  int nkeys, const char *const *keys, int ncolumns, const char *const *columns)
{
	char	   *refused;

	switch (bcmig_reach(rel))
	{
		case BCMIG_REACH_LOCAL:
			break;
		case BCMIG_REACH_FOREIGN:
			check_foreign(rel, owner, name, nkeys, keys, ncolumns, columns);
			break;
		case BCMIG_REACH_CITUS:
			refused = bcmig_reach_refuses(BCMIG_REACH_CITUS, capture, nkeys);
			if (refused != NULL)
				ereport(ERROR,
						(errcode(ERRCODE_BM_UNSUITABLE),
						 errmsg("%s is distributed by Citus, which takes capture change_tracking and a key", name),
						 errdetail("%s", refused),
						 errhint("Let blue track the table, or distribute it when the sync is completed: SELECT undistribute_table(%s);",
								 quote_literal_cstr(name))));
			break;
	}
}
