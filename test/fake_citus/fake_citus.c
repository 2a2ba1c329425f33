/*
 * fake_citus.c: what matters of Citus to who writes to a distributed table.
 *
 * A planner hook sends statements on a table T to T_102008, and refuses what
 * Citus refuses: rows of a tuplestore of this session beside a distributed
 * table, deletes by a join, updates of a row's image by comparison of records.
 * As in Citus, the plan's range table names T too, for the check of rights.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "fmgr.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/planner.h"
#include "parser/parse_relation.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"

PG_MODULE_MAGIC;

PGDLLEXPORT void _PG_init(void);

static planner_hook_type prev_planner = NULL;

typedef struct Seen
{
	List	   *shells;			/* copies of range table entries as they were */
	List	   *permissions;	/* since 16: copies of what they may, in the same order */
	bool		distributed;
	bool		tuplestore;
	bool		record_comparison;
} Seen;

static Oid
shard_of(Oid relid)
{
	char	   *name = get_rel_name(relid);

	return name == NULL || strlen(name) + 8 > NAMEDATALEN ? InvalidOid :
		get_relname_relid(psprintf("%s_102008", name), get_rel_namespace(relid));
}

static bool
redirect(Node *node, Seen *seen)
{
	if (node == NULL)
		return false;
	if (IsA(node, OpExpr))
		seen->record_comparison |= strcmp(get_opname(((OpExpr *) node)->opno), "*<>") == 0;
	if (IsA(node, Query))
	{
		Query	   *query = (Query *) node;
		ListCell   *lc;

		foreach(lc, query->rtable)
		{
			RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);
			Oid			shard;

			seen->tuplestore |= rte->rtekind == RTE_NAMEDTUPLESTORE;
			if (rte->rtekind != RTE_RELATION || !OidIsValid(shard = shard_of(rte->relid)))
				continue;
			seen->distributed = true;
			if (list_length(query->rtable) > 1 && query->commandType == CMD_DELETE)
				ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("fake citus: complex joins in a DELETE")));
			seen->shells = lappend(seen->shells, copyObject(rte));
#if PG_VERSION_NUM >= 160000
			{
				RTEPermissionInfo *p = getRTEPermissionInfo(query->rteperminfos, rte);

				seen->permissions = lappend(seen->permissions, copyObject(p));
				p->relid = shard;
			}
#endif
			LockRelationOid(shard, rte->rellockmode);
			rte->relid = shard;
		}
		return query_tree_walker(query, redirect, seen, 0);
	}
	return expression_tree_walker(node, redirect, seen);
}

static PlannedStmt *
fake_planner(Query *parse, const char *query_string, int options, ParamListInfo params)
{
	Seen		seen = {0};
	PlannedStmt *plan;

	(void) redirect((Node *) parse, &seen);
	if (seen.distributed && seen.tuplestore)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("fake citus: a tuplestore beside a distributed table")));
	if (seen.distributed && seen.record_comparison)
		ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("fake citus: operator does not exist: integer *<> integer")));
	plan = prev_planner ? prev_planner(parse, query_string, options, params) : standard_planner(parse, query_string, options, params);
#if PG_VERSION_NUM >= 160000
	for (int i = 0; i < list_length(seen.shells); i++)
	{
		plan->permInfos = lappend(plan->permInfos, list_nth(seen.permissions, i));
		((RangeTblEntry *) list_nth(seen.shells, i))->perminfoindex = list_length(plan->permInfos);
	}
#endif
	plan->rtable = list_concat(plan->rtable, seen.shells);
	return plan;
}

void
_PG_init(void)
{
	prev_planner = planner_hook;
	planner_hook = fake_planner;
}
