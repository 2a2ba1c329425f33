/*-------------------------------------------------------------------------
 *
 * own_write.c
 *	  bcmig's own writes to a green table: a scope, never a process.
 *
 * Functions of users run inside our statements: in constraints, defaults,
 * triggers.  What they write is nobody's but their own, so a mark on the
 * process, or for the time of a statement, would let them through.  Here a
 * token names one relation and stands for one statement: whoever checks the
 * rights of a range table that carries it takes it away, before any expression
 * of the statement runs.  Expressions that run while it is planned cannot take
 * it either: the range table must also have our rows (BCMIG_OWN_ROWS_NAME),
 * which no statement of theirs sees, or the table by a name that is drawn by lot
 * in each process.
 *
 * The executor then remembers which query took the token, for the triggers
 * fired at its end: a row written by a function inside our statement belongs
 * to another query.
 *
 * All of it is taken back by an abort of the (sub)transaction it was set in, not
 * of one inside it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "own_write.h"

#include "access/xact.h"
#include "executor/executor.h"
#include "nodes/parsenodes.h"
#include "storage/lockdefs.h"

static ExecutorStart_hook_type prev_executor_start = NULL;
static ExecutorFinish_hook_type prev_executor_finish = NULL;

/* the token */
static Oid	token = InvalidOid;
static bool token_ddl = false;
static int	token_level = 0;	/* of the transaction it was set in */

static bool taken = false;		/* by the query that is being started */
static QueryDesc *own_query = NULL;
static int	own_level = 0;
static bool finishing_own = false;

const char *
bcmig_own_name(void)
{
	static char name[NAMEDATALEN] = "";

	if (name[0] == '\0')
	{
		uint64		lot[2];

		if (!pg_strong_random(lot, sizeof(lot)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("no random number to be had")));
		snprintf(name, sizeof(name), "bcmig_" UINT64_FORMAT "_" UINT64_FORMAT, lot[0], lot[1]);
	}
	return name;
}

void
bcmig_own_write(Oid relid)
{
	token = relid;
	token_ddl = false;
	token_level = GetCurrentTransactionNestLevel();
}

void
bcmig_own_ddl(Oid relid)
{
	bcmig_own_write(relid);
	token_ddl = true;
}

void
bcmig_own_write_end(void)
{
	token = InvalidOid;
}

Oid
bcmig_own_write_take(List *range_table)
{
	bool		ours = false;
	bool		named = false;
	Oid			relid = token;
	ListCell   *lc;

	if (!OidIsValid(token) || token_ddl)
		return InvalidOid;
	foreach(lc, range_table)
	{
		RangeTblEntry *rte = lfirst_node(RangeTblEntry, lc);

		if (rte->rtekind == RTE_RELATION && rte->relid == relid && rte->rellockmode >= RowExclusiveLock)
		{
			named = true;
			ours |= rte->alias != NULL && strcmp(rte->alias->aliasname, bcmig_own_name()) == 0;
		}
		ours |= rte->rtekind == RTE_NAMEDTUPLESTORE && rte->enrname != NULL &&
			strcmp(rte->enrname, BCMIG_OWN_ROWS_NAME) == 0;
	}
	if (!ours || !named)
		return InvalidOid;
	token = InvalidOid;
	taken = true;
	return relid;
}

bool
bcmig_own_ddl_take(Oid relid)
{
	if (!token_ddl || !OidIsValid(relid) || token != relid)
		return false;
	token = InvalidOid;
	return true;
}

bool
bcmig_own_rows(void)
{
	return finishing_own;
}

static void
executor_start(QueryDesc *query, int eflags)
{
	bool		before = taken;

	taken = false;
	if (prev_executor_start)
		prev_executor_start(query, eflags);
	else
		standard_ExecutorStart(query, eflags);
	if (taken)
	{
		own_query = query;
		own_level = GetCurrentTransactionNestLevel();
	}
	taken = before;
}

static void
finish(QueryDesc *query)
{
	if (prev_executor_finish)
		prev_executor_finish(query);
	else
		standard_ExecutorFinish(query);
}

static void
executor_finish(QueryDesc *query)
{
	bool		own = own_query == query;
	bool		before = finishing_own;

	if (!own && !before)
	{
		finish(query);
		return;
	}
	finishing_own = own;
	PG_TRY();
	{
		finish(query);
	}
	PG_FINALLY();
	{
		finishing_own = before;
		if (own)
			own_query = NULL;
	}
	PG_END_TRY();
}

/* a (sub)transaction of this level has failed */
static void
forget(int level)
{
	taken = false;
	if (token_level >= level)
		token = InvalidOid;
	if (own_level >= level)
		own_query = NULL;
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		forget(0);
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		forget(GetCurrentTransactionNestLevel());
}

void
bcmig_own_write_init(void)
{
	prev_executor_start = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
	prev_executor_finish = ExecutorFinish_hook;
	ExecutorFinish_hook = executor_finish;
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
