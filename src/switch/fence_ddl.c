/*-------------------------------------------------------------------------
 *
 * fence_ddl.c
 *	  The fence and everything that is not rows: TRUNCATE, DDL, cascades,
 *	  subscriptions, prepared transactions.
 *
 * Commands that name a table are looked at before they run: every target is
 * locked as the command will lock it, then the fence is asked.  Asking first
 * would let through a TRUNCATE that waits for its lock while the fence goes up.
 * What a command reaches without naming it (CASCADE, DROP SCHEMA, DROP OWNED,
 * partitions) comes by object_access_hook, under the lock of the command.
 *
 * Not refused: what neither changes rows nor what rows may be there.  VACUUM,
 * ANALYZE, REINDEX, CLUSTER, COMMENT, GRANT, CREATE STATISTICS, LOCK, indexes
 * that are not unique, storage parameters and statistics targets.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fence.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_attrdef.h"
#include "catalog/pg_constraint.h"
#include "catalog/pg_index.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_policy.h"
#include "catalog/pg_rewrite.h"
#include "catalog/pg_subscription.h"
#include "catalog/pg_subscription_rel.h"
#include "catalog/pg_trigger.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "own_write.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

static ProcessUtility_hook_type prev_utility = NULL;
static object_access_hook_type prev_object_access = NULL;

/* the utility statement that runs is our own; false again in any statement inside it */
static bool own_statement = false;

/* it changes owners: not asked for by name */
static bool reassigning = false;

static void
check_relation(Oid relid)
{
	const BcmigFence *fence = bcmig_fence_of(relid);

	if (fence != NULL && !bcmig_fence_passes(fence))
		bcmig_fence_refuse(fence, relid);
}

/* ---------------------------------------------------------------------
 * Commands that name a table
 * --------------------------------------------------------------------- */

/*
 * Lock a target as its command will, and ask.  Whoever has no right on it gets
 * no lock either: the command is going to say so itself.
 */
static void
check_target(RangeVar *target, LOCKMODE mode, AclMode right)
{
	Oid			relid;
	char		relkind;

	if (!bcmig_fence_possible())
		return;
	relid = RangeVarGetRelid(target, NoLock, true);
	relkind = OidIsValid(relid) ? get_rel_relkind(relid) : '\0';
	if (relkind != RELKIND_RELATION && relkind != RELKIND_PARTITIONED_TABLE && relkind != RELKIND_FOREIGN_TABLE)
		return;
	if (bcmig_own_ddl_take(relid))
	{
		own_statement = true;
		return;
	}
	if (!BCMIG_OWNS_RELATION(relid, GetUserId()) &&
		(right == ACL_NO_RIGHTS || pg_class_aclcheck(relid, GetUserId(), right) != ACLCHECK_OK))
		return;
	relid = RangeVarGetRelid(target, mode, true);
	if (OidIsValid(relid))
		check_relation(relid);
}

static bool
is_harmless(const AlterTableCmd *cmd)
{
	switch (cmd->subtype)
	{
		case AT_SetStatistics:
		case AT_SetOptions:
		case AT_ResetOptions:
		case AT_SetStorage:
		case AT_SetCompression:
		case AT_ClusterOn:
		case AT_DropCluster:
		case AT_SetRelOptions:
		case AT_ResetRelOptions:
			return true;
		default:
			return false;
	}
}

static void
check_alter_table(AlterTableStmt *stmt)
{
	LOCKMODE	mode = AlterTableGetLockLevel(stmt->cmds);
	bool		harmless = true;
	ListCell   *lc;

	foreach(lc, stmt->cmds)
		harmless &= is_harmless(lfirst_node(AlterTableCmd, lc));
	if (harmless)
		return;
	check_target(stmt->relation, mode, ACL_NO_RIGHTS);
	foreach(lc, stmt->cmds)
	{
		AlterTableCmd *cmd = lfirst_node(AlterTableCmd, lc);

		if (cmd->subtype == AT_AttachPartition)
			check_target(castNode(PartitionCmd, cmd->def)->name, AccessExclusiveLock, ACL_NO_RIGHTS);
		else if (cmd->subtype == AT_AddInherit)
			check_target(castNode(RangeVar, cmd->def), ShareUpdateExclusiveLock, ACL_NO_RIGHTS);
	}
}

/* our own DROP TABLE or DROP TRIGGER; anybody else's is refused where its objects go */
static void
take_drop(DropStmt *stmt)
{
	ListCell   *lc;

	if (stmt->removeType != OBJECT_TABLE && stmt->removeType != OBJECT_TRIGGER)
		return;
	foreach(lc, stmt->objects)
	{
		List	   *name = lfirst(lc);

		/* a trigger's name follows its table's */
		if (stmt->removeType == OBJECT_TRIGGER)
			name = list_truncate(list_copy(name), list_length(name) - 1);
		own_statement |= bcmig_own_ddl_take(RangeVarGetRelid(makeRangeVarFromNameList(name), NoLock, true));
	}
}

/* a transaction that may have written to a fenced table is not to outlive its session */
static void
check_prepare(void)
{
	LockData   *data;

	if (!bcmig_fence_possible())
		return;
	data = GetLockStatusData();
	for (int i = 0; i < data->nelements; i++)
	{
		LockInstanceData *lock = &data->locks[i];
		Oid			relid = lock->locktag.locktag_field2;
		const BcmigFence *fence;

		if (lock->pid != MyProcPid || lock->locktag.locktag_type != LOCKTAG_RELATION ||
			lock->locktag.locktag_field1 != MyDatabaseId ||
			(lock->holdMask & (LOCKBIT_ON(RowExclusiveLock) | LOCKBIT_ON(AccessExclusiveLock))) == 0)
			continue;
		fence = bcmig_fence_of(relid);
		if (fence != NULL && fence->up)
			bcmig_fence_refuse(fence, relid);
	}
}

/*
 * Statements that are none of ours must not come to read the catalogue: that
 * takes a snapshot, and SET TRANSACTION wants to be before the first.
 */
static void
check_statement(Node *node)
{
	ListCell   *lc;

	switch (nodeTag(node))
	{
		case T_TruncateStmt:
			foreach(lc, ((TruncateStmt *) node)->relations)
				check_target(lfirst(lc), AccessExclusiveLock, ACL_TRUNCATE);
			break;
		case T_AlterTableStmt:
			check_alter_table((AlterTableStmt *) node);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) node)->relation != NULL)
				check_target(((RenameStmt *) node)->relation, AccessExclusiveLock, ACL_NO_RIGHTS);
			break;
		case T_AlterObjectSchemaStmt:
			if (((AlterObjectSchemaStmt *) node)->relation != NULL)
				check_target(((AlterObjectSchemaStmt *) node)->relation, AccessExclusiveLock, ACL_NO_RIGHTS);
			break;
		case T_CreateTrigStmt:
			check_target(((CreateTrigStmt *) node)->relation, ShareRowExclusiveLock, ACL_TRIGGER);
			break;
		case T_RuleStmt:
			check_target(((RuleStmt *) node)->relation, AccessExclusiveLock, ACL_NO_RIGHTS);
			break;
		case T_CreatePolicyStmt:
			check_target(((CreatePolicyStmt *) node)->table, AccessExclusiveLock, ACL_NO_RIGHTS);
			break;
		case T_AlterPolicyStmt:
			check_target(((AlterPolicyStmt *) node)->table, AccessExclusiveLock, ACL_NO_RIGHTS);
			break;
		case T_IndexStmt:
			if (((IndexStmt *) node)->unique)
				check_target(((IndexStmt *) node)->relation,
							 ((IndexStmt *) node)->concurrent ? ShareUpdateExclusiveLock : ShareLock, ACL_NO_RIGHTS);
			break;
		case T_CreateStmt:
		case T_CreateForeignTableStmt:
			foreach(lc, ((CreateStmt *) node)->inhRelations)
				check_target(lfirst(lc), ShareUpdateExclusiveLock, ACL_NO_RIGHTS);
			break;
		case T_DropStmt:
			take_drop((DropStmt *) node);
			break;
		case T_ReassignOwnedStmt:
			reassigning = true;
			break;
		case T_TransactionStmt:
			if (((TransactionStmt *) node)->kind == TRANS_STMT_PREPARE)
				check_prepare();
			break;
		default:
			break;
	}
}

static void
utility(PlannedStmt *pstmt, const char *source, bool read_only_tree, ProcessUtilityContext context,
		ParamListInfo params, QueryEnvironment *env, DestReceiver *dest, QueryCompletion *qc)
{
	bool		own_before = own_statement;
	bool		reassigning_before = reassigning;

	/* parts of a statement are what the statement is */
	if (context != PROCESS_UTILITY_SUBCOMMAND)
		own_statement = reassigning = false;
	PG_TRY();
	{
		if (context != PROCESS_UTILITY_SUBCOMMAND && IsTransactionState() && !IsAbortedTransactionBlockState())
			check_statement(pstmt->utilityStmt);
		if (prev_utility)
			prev_utility(pstmt, source, read_only_tree, context, params, env, dest, qc);
		else
			standard_ProcessUtility(pstmt, source, read_only_tree, context, params, env, dest, qc);
	}
	PG_FINALLY();
	{
		own_statement = own_before;
		reassigning = reassigning_before;
	}
	PG_END_TRY();
}

/* ---------------------------------------------------------------------
 * What a command reaches without naming it
 * --------------------------------------------------------------------- */

/*
 * A column of a catalogue row found by its oid; InvalidOid when there is none,
 * or when a column that says so (0 = none) is true.
 */
static Oid
oid_of_row(Oid catalog, Oid index, AttrNumber key_column, Oid key, AttrNumber wanted, AttrNumber unless)
{
	Relation	rel = table_open(catalog, AccessShareLock);
	ScanKeyData scankey;
	SysScanDesc scan;
	HeapTuple	tuple;
	Oid			result = InvalidOid;
	bool		isnull;

	ScanKeyInit(&scankey, key_column, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(key));
	scan = systable_beginscan(rel, index, true, NULL, 1, &scankey);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)) &&
		(unless == 0 || !DatumGetBool(heap_getattr(tuple, unless, RelationGetDescr(rel), &isnull))))
		result = DatumGetObjectId(heap_getattr(tuple, wanted, RelationGetDescr(rel), &isnull));
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return result;
}

static bool
is_unique_index(Oid index)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	bool		unique = HeapTupleIsValid(tuple) && ((Form_pg_index) GETSTRUCT(tuple))->indisunique;

	if (HeapTupleIsValid(tuple))
		ReleaseSysCache(tuple);
	return unique;
}

/* the table an object that is dropped is a part of, or InvalidOid */
static Oid
table_of(Oid class, Oid object)
{
	switch (class)
	{
		case RelationRelationId:
			if (get_rel_relkind(object) != RELKIND_INDEX && get_rel_relkind(object) != RELKIND_PARTITIONED_INDEX)
				return object;

			/* any other index only makes reading fast */
			return is_unique_index(object) ? IndexGetRelation(object, true) : InvalidOid;
		case TriggerRelationId:
			/* internal: of a foreign key, which is the other table's too */
			return oid_of_row(TriggerRelationId, TriggerOidIndexId, Anum_pg_trigger_oid, object, Anum_pg_trigger_tgrelid,
							  Anum_pg_trigger_tgisinternal);
		case ConstraintRelationId:
			return oid_of_row(ConstraintRelationId, ConstraintOidIndexId, Anum_pg_constraint_oid, object,
							  Anum_pg_constraint_conrelid, 0);
		case AttrDefaultRelationId:
			return oid_of_row(AttrDefaultRelationId, AttrDefaultOidIndexId, Anum_pg_attrdef_oid, object,
							  Anum_pg_attrdef_adrelid, 0);
		case RewriteRelationId:
			return oid_of_row(RewriteRelationId, RewriteOidIndexId, Anum_pg_rewrite_oid, object, Anum_pg_rewrite_ev_class, 0);
		case PolicyRelationId:
			return oid_of_row(PolicyRelationId, PolicyOidIndexId, Anum_pg_policy_oid, object, Anum_pg_policy_polrelid, 0);
		default:
			return InvalidOid;
	}
}

/* its workers would write without asking; the rows of this command are seen too */
static void
check_subscription(Oid subscription)
{
	Relation	rel = table_open(SubscriptionRelRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;

	ScanKeyInit(&key, Anum_pg_subscription_rel_srsubid, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(subscription));
	scan = systable_beginscan(rel, InvalidOid, false, SnapshotSelf, 1, &key);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Oid			relid = ((Form_pg_subscription_rel) GETSTRUCT(tuple))->srrelid;
		const BcmigFence *fence = bcmig_fence_of(relid);

		if (fence != NULL && fence->up)
			bcmig_fence_refuse(fence, relid);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static void
check_schema(Oid nspid)
{
	char	   *schema = get_namespace_name(nspid);
	const BcmigFence *fence = schema ? bcmig_fence_of_schema(schema) : NULL;

	if (fence != NULL && !bcmig_fence_passes(fence))
		ereport(ERROR,
				(errcode(ERRCODE_BM_FENCED),
				 errmsg("schema %s has tables of sync \"%s\"", quote_identifier(schema), fence->sync_name),
				 errdetail("They are fenced or journaled, and found by its name."),
				 errhint("SELECT bcmig_drop_sync(%s); first, or leave the schema its name.", quote_literal_cstr(fence->sync_name))));
}

static void
object_access(ObjectAccessType access, Oid class, Oid object, int part, void *arg)
{
	if (prev_object_access)
		prev_object_access(access, class, object, part, arg);
	if (own_statement)
		return;
	switch (access)
	{
		case OAT_TRUNCATE:
			check_relation(object);
			break;
		case OAT_DROP:
			/* internal: parts of another command, the old heap of a CLUSTER, temporary tables */
			if ((((ObjectAccessDrop *) arg)->dropflags & PERFORM_DELETION_INTERNAL) == 0 && bcmig_fence_possible())
			{
				Oid			relid = table_of(class, object);

				if (OidIsValid(relid))
					check_relation(relid);
			}
			break;
		case OAT_POST_CREATE:
			if (class == SubscriptionRelationId)
				check_subscription(object);
			break;
		case OAT_POST_ALTER:
			if (class == SubscriptionRelationId)
				check_subscription(object);
			else if (class == NamespaceRelationId)
				check_schema(object);
			else if (class == RelationRelationId && reassigning)
				check_relation(object);
			break;
		default:
			break;
	}
}

void
bcmig_fence_ddl_init(void)
{
	prev_utility = ProcessUtility_hook;
	ProcessUtility_hook = utility;
	prev_object_access = object_access_hook;
	object_access_hook = object_access;
}
