/*-------------------------------------------------------------------------
 *
 * user_query.c
 *	  Queries of users: what may be one, what it reads, and how it is run.
 *
 * One plain SELECT.  That is looked at after parse analysis and rewriting, so
 * nothing hides in a view or a WITH; functions it calls cannot be looked into,
 * they are stopped by the read-only transaction it runs in.  That one is always
 * rolled back, so that nothing a function has set stays.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "user_query.h"

#include "access/transam.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "remote.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/timeout.h"

static void
not_plain(const BcmigUserQuery *query, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("the query of %s \"%s\" is not %s", query->kind, query->name,
					OidIsValid(query->result) ? psprintf("one plain SELECT of one %s", format_type_be(query->result)) : "one plain SELECT"),
			 errdetail("%s", what),
			 errhint("%s", query->hint)));
}

/* may it read tables?  Functions of PostgreSQL itself are taken at their arguments' word. */
static bool
may_read(Oid function, void *context)
{
	return function >= FirstNormalObjectId && func_volatile(function) != PROVOLATILE_IMMUTABLE;
}

typedef struct Walk
{
	const BcmigUserQuery *query;
	bool		more;
} Walk;

static bool
walk(Node *node, Walk *w)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *q = (Query *) node;

		if (q->commandType != CMD_SELECT || q->hasModifyingCTE)
			not_plain(w->query, "It writes.");
		if (q->rowMarks != NIL)
			not_plain(w->query, "It locks rows.");
		return query_tree_walker(q, walk, w, 0);
	}
	if (check_functions_in_node(node, may_read, NULL))
		w->more = true;
	return expression_tree_walker(node, walk, w);
}

static void
in_query(void *arg)
{
	const BcmigUserQuery *query = arg;
	int			code = geterrcode();

	errcontext("query of %s \"%s\"", query->kind, query->name);
	if (code == ERRCODE_UNDEFINED_TABLE || code == ERRCODE_UNDEFINED_FUNCTION || code == ERRCODE_UNDEFINED_OBJECT)
		errhint("Names in the query of a %s are written with their schema.", query->kind);
}

SPIPlanPtr
bcmig_prepare_user_query(const BcmigUserQuery *query, BcmigReads *reads)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorContextCallback callback = {error_context_stack, in_query, unconstify(BcmigUserQuery *, query)};
	SPIPlanPtr	plan;
	CachedPlanSource *source;
	Walk		w = {query, false};
	ListCell   *lc;

	error_context_stack = &callback;
	plan = SPI_prepare(query->query, 0, NULL);
	error_context_stack = callback.previous;
	MemoryContextSwitchTo(caller);
	if (plan == NULL)
		not_plain(query, SPI_result_code_string(SPI_result));
	if (list_length(SPI_plan_get_plan_sources(plan)) != 1)
		not_plain(query, psprintf("It has %d statements.", list_length(SPI_plan_get_plan_sources(plan))));
	source = linitial(SPI_plan_get_plan_sources(plan));
	if (list_length(source->query_list) != 1 || !SPI_is_cursor_plan(plan))
		not_plain(query, "It returns no rows.");
	if (linitial_node(Query, source->query_list)->utilityStmt != NULL)
		not_plain(query, "It is a command.");
	(void) walk(linitial(source->query_list), &w);
	if (OidIsValid(query->result) &&
		(source->resultDesc->natts != 1 || TupleDescAttr(source->resultDesc, 0)->atttypid != query->result))
		not_plain(query, source->resultDesc->natts != 1 ? psprintf("It has %d columns.", source->resultDesc->natts) :
				  psprintf("Its column is of type %s.", format_type_be(TupleDescAttr(source->resultDesc, 0)->atttypid)));
	if (reads == NULL)
		return plan;

	reads->relations = NIL;
	reads->more = w.more;
	foreach(lc, source->relationOids)
	{
		if (get_rel_relkind(lfirst_oid(lc)) != RELKIND_VIEW)
			reads->relations = list_append_unique_oid(reads->relations, lfirst_oid(lc));
	}
	return plan;
}

void
bcmig_check_user_query(Oid owner, const BcmigUserQuery *query, BcmigReads *reads)
{
	MemoryContext caller = CurrentMemoryContext;
	Oid			userid;
	int			sec_context;
	int			guc_level;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(caller);
	guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(owner, sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	(void) bcmig_prepare_user_query(query, reads);
	SetUserIdAndSecContext(userid, sec_context);
	AtEOXact_GUC(true, guc_level);
	SPI_finish();
}

/* it may have been cancelled by its timeout the moment it came to its end */
static void
forget_timeout(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
}

ErrorData *
bcmig_read_only(void (*look) (void *arg), void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData  *volatile error = NULL;

	PG_TRY();
	{
		bcmig_start_transaction();
		XactReadOnly = true;
		look(arg);
		forget_timeout();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		forget_timeout();
		if (ProcDiePending)
			proc_exit(1);
	}
	PG_END_TRY();
	AbortCurrentTransaction();
	bcmig_remote_running = false;
	LockReleaseAll(USER_LOCKMETHOD, true);
	MemoryContextSwitchTo(caller);
	return error;
}
