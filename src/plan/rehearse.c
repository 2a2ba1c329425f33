/*-------------------------------------------------------------------------
 *
 * rehearse.c
 *	  bcmig_rehearse_plan: what would fail, before it does.
 *
 * In the caller's session, as the owner of the plan.  Steps of bcmig are asked
 * for their dry run and their checks, and do nothing.  SQL is run: all of it, in
 * the order of the plan, in one subtransaction that is rolled back at the end,
 * under lock_timeout and the timeout of the phase; each phase in one of its own,
 * so that one that fails does not hide what comes after it.
 *
 * What does not go back with a transaction is not done but listed:
 *
 *	sequences		what moves them is given copies: ALTER SEQUENCE makes a new file
 *					for each that is there, which goes with the transaction.  It
 *					holds up others who want a number of them, as long as the SQL
 *					runs and no longer.
 *	other servers	statements that write to foreign tables, COPY to a file or a
 *					program, functions that may do anything (volatile, in C, of no
 *					system catalogue; or named below)
 *	bcmig itself	its functions refuse to be called meanwhile
 *
 * A function in a procedural language cannot be looked into: what it writes to a
 * foreign table would go there, and come back by the rollback of the same
 * transaction there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "plan.h"

#include "access/transam.h"
#include "access/xact.h"
#include "call.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "parser/analyze.h"
#include "parser/parser.h"
#include "parser/parsetree.h"
#include "storage/latch.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/regproc.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/timeout.h"

BCMIG_FUNCTION(bcmig_rehearse_plan);

#define LOCK_TIMEOUT_TEXT	"2s"
#define MOST_MS				60000	/* a statement may take here, whatever the phase may */

/* a phase, for each sync it is about */
typedef struct Part
{
	char	   *name;
	char	   *sync;
	char	   *action;
	char	   *arguments;
	char	   *statement;		/* of SQL */
	char	   *precondition;
	char	   *approval;
	int64		timeout;
} Part;

/* ---- what a statement would do outside ---- */

typedef struct Outside
{
	const char *what;			/* NULL = nothing that is seen */
} Outside;

/* functions of PostgreSQL itself whose effect stays */
static bool
stays(Oid function)
{
	static const char *const names[] = {
		"lo_export", "pg_terminate_backend", "pg_cancel_backend", "pg_reload_conf", "pg_rotate_logfile", "pg_switch_wal",
		"pg_logical_emit_message", "pg_create_restore_point", "pg_promote", "pg_create_physical_replication_slot",
		"pg_create_logical_replication_slot", "pg_drop_replication_slot", "pg_wal_replay_pause", "pg_advisory_lock", "pg_advisory_lock_shared",
		"pg_try_advisory_lock", "pg_try_advisory_lock_shared", "pg_stat_reset", "pg_stat_reset_shared", "pg_export_snapshot"
	};
	char	   *name = get_func_name(function);

	for (int i = 0; name != NULL && i < lengthof(names); i++)
	{
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	return false;
}

static bool
reaches_out(Oid function, void *context)
{
	Outside    *o = context;
	HeapTuple	tuple;
	bool		out = false;

	if (function < FirstNormalObjectId)
		out = stays(function);
	else if ((tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function))) != NULL)
	{
		Form_pg_proc proc = (Form_pg_proc) GETSTRUCT(tuple);

		out = proc->prolang == ClanguageId && proc->provolatile == PROVOLATILE_VOLATILE;
		ReleaseSysCache(tuple);
	}
	if (out)
		o->what = psprintf("it calls %s", format_procedure(function));
	return out;
}

static bool
walk(Node *node, Outside *o)
{
	if (node == NULL)
		return false;
	if (IsA(node, Query))
	{
		Query	   *q = (Query *) node;

		if (q->resultRelation > 0)
		{
			Oid			relid = rt_fetch(q->resultRelation, q->rtable)->relid;

			if (get_rel_relkind(relid) == RELKIND_FOREIGN_TABLE)
			{
				o->what = psprintf("it writes to foreign table %s", get_rel_name(relid));
				return true;
			}
		}
		return query_tree_walker(q, walk, o, 0);
	}
	if (check_functions_in_node(node, reaches_out, o))
		return true;
	return expression_tree_walker(node, walk, o);
}

/*
 * One statement, as far as it can be seen before it is run.
 */
static const char *
outside(RawStmt *raw, const char *sql)
{
	Outside		o = {NULL};
	Query	   *query;

	if (IsA(raw->stmt, CopyStmt))
		return "it copies from or to a file";
	if (IsA(raw->stmt, NotifyStmt) || IsA(raw->stmt, LoadStmt) || IsA(raw->stmt, CreateSubscriptionStmt) || IsA(raw->stmt, AlterSubscriptionStmt) ||
		IsA(raw->stmt, DropSubscriptionStmt) || IsA(raw->stmt, ImportForeignSchemaStmt))
		return "it is not only about this database";
	if (IsA(raw->stmt, CreateStmt) || IsA(raw->stmt, DropStmt))
		return NULL;
	query = parse_analyze_fixedparams(copyObject(raw), sql, NULL, 0, NULL);
	if (query->commandType != CMD_UTILITY)
		(void) walk((Node *) query, &o);
	else if (query->utilityStmt != NULL && IsA(query->utilityStmt, CreateTableAsStmt))
		(void) walk(((CreateTableAsStmt *) query->utilityStmt)->query, &o);
	else if (query->utilityStmt != NULL && IsA(query->utilityStmt, CallStmt) && ((CallStmt *) query->utilityStmt)->funcexpr != NULL)
		(void) walk((Node *) ((CallStmt *) query->utilityStmt)->funcexpr, &o);
	return o.what;
}

/* ---- in subtransactions of the one that is rolled back ---- */

/* a phase that is tried */
typedef struct Try
{
	Oid			owner;
	const Part *part;
	List	   *checks;			/* of a step */
	bool		holds;			/* of a precondition */
	const char *outside;		/* why a statement of SQL was not run */
} Try;

static volatile sig_atomic_t too_long;
static TimeoutId too_long_id;	/* 0 = not registered yet */

/* the session's own statement_timeout is left alone */
static void
on_timeout(void)
{
	too_long = true;
	InterruptPending = true;
	QueryCancelPending = true;
	SetLatch(MyLatch);
}

static void
try_condition(void *arg)
{
	Try		   *t = arg;

	t->holds = bcmig_plan_condition(t->owner, t->part->name, t->part->precondition);
}

static void
try_sql(void *arg)
{
	Try		   *t = arg;

	t->outside = bcmig_try_plan_sql(t->owner, t->part->statement, outside);
}

static void
try_step(void *arg)
{
	Try		   *t = arg;
	BcmigStepCall c = {bcmig_plan_step(t->part->action), t->part->sync, t->part->arguments, "{}"};
	Oid			userid;
	int			sec_context;

	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(t->owner, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	t->checks = bcmig_step_rehearse(&c);
	SetUserIdAndSecContext(userid, sec_context);
}

/*
 * A file of its own for each sequence, for as long as this transaction lives.
 * As the superuser of the cluster: they belong to anybody.
 */
static void
copy_sequences(void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *statements = NIL;
	BcmigCatalogScope scope;
	Oid			userid;
	int			sec_context;
	uint64		n;
	ListCell   *lc;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT format('ALTER SEQUENCE %I.%I INCREMENT BY %s', n.nspname, c.relname, s.seqincrement) "
				  "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_sequence s ON s.seqrelid = c.oid "
				  "WHERE c.relkind = 'S' AND c.relpersistence <> 't' AND n.nspname <> 'bcmig' ORDER BY c.oid", "");
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		statements = lappend(statements, bcmig_get_text(i, 1));
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	foreach(lc, statements)
	{
		CHECK_FOR_INTERRUPTS();
		if (SPI_execute(lfirst(lc), false, 0) < 0)
			elog(ERROR, "SPI_execute failed: %s", (char *) lfirst(lc));
	}
	SetUserIdAndSecContext(userid, sec_context);
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
}

/* ---- the plan ---- */

static List *
load_parts(const char *plan)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *parts = NIL;
	BcmigCatalogScope scope;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql(BCMIG_PHASES_OF_PLAN("f.name, coalesce(y.sync, ''), f.action, f.arguments, f.arguments ->> 'statement', f.precondition, f.approval, f.timeout")
				  " ORDER BY w.wave, f.position, y.sync", "tk", plan, bcmig_text_array(bcmig_steps_per_sync()));
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		Part	   *p = palloc0(sizeof(Part));

		p->name = bcmig_get_text(i, 1);
		p->sync = bcmig_get_text(i, 2);
		p->action = bcmig_get_text(i, 3);
		p->arguments = bcmig_get_text(i, 4);
		p->statement = bcmig_get_text(i, 5);
		p->precondition = bcmig_get_text(i, 6);
		p->approval = bcmig_get_text(i, 7);
		p->timeout = bcmig_get_ms(i, 8);
		if (*p->sync != '\0')
			p->name = psprintf("%s (%s)", p->name, p->sync);
		parts = lappend(parts, p);
	}
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	return parts;
}

static bool
sync_exists(const char *name)
{
	BcmigCatalogScope scope;
	bool		there;

	bcmig_catalog_begin(&scope);
	there = bcmig_sql("SELECT FROM bcmig.sync WHERE name = $1", "t", name) > 0;
	bcmig_catalog_end(&scope);
	return there;
}

static List *
add_error(List *checks, const Part *p, const ErrorData *error, const char *status)
{
	char	   *detail = bcmig_error_text(error, true);

	/* a person has had enough */
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED && !too_long)
		ThrowErrorData(unconstify(ErrorData *, error));
	if (too_long)
		detail = psprintf("it takes longer than %d s here", (int) (Min(p->timeout, MOST_MS) / 1000));
	if (error->hint != NULL && !too_long)
		detail = psprintf("%s. %s", detail, error->hint);
	return bcmig_add_check(checks, p->name, status, p->action, NULL, detail,
						   p->statement ? psprintf("SELECT arguments ->> 'statement' FROM bcmig.phase WHERE name = %s; -- what is to be mended", quote_literal_cstr(p->name)) :
						   psprintf("SELECT * FROM bcmig.plan_step WHERE step = %s;", quote_literal_cstr(p->action)));
}

/* not possible now, but it may be when its turn has come */
static bool
comes_later(const ErrorData *error)
{
	return error->sqlerrcode == ERRCODE_BM_WRONG_STATE || error->sqlerrcode == ERRCODE_BM_TRAFFIC;
}

static List *
rehearse_step(List *checks, Oid owner, const Part *p)
{
	const BcmigPlanStep *step = bcmig_plan_step(p->action);
	Try			t = {owner, p};
	ErrorData  *error;
	ListCell   *lc;

	if (step->per_sync && strcmp(step->name, "create_sync") != 0 && !sync_exists(p->sync))
		return bcmig_add_check(checks, p->name, "warn", p->action, NULL, "Not looked at: its sync is made when the plan is executed.", NULL);
	error = bcmig_try(try_step, &t);
	if (error != NULL)
		return add_error(checks, p, error, comes_later(error) ? "warn" : "fail");
	foreach(lc, t.checks)
	{
		BcmigCheck *c = lfirst(lc);

		checks = bcmig_add_check(checks, psprintf("%s: %s", p->name, c->name), c->status, c->value, c->bound, c->detail, c->fix);
	}
	if (t.checks == NIL)
		checks = bcmig_add_check(checks, p->name, "ok", p->action, NULL, step->meaning, NULL);
	return checks;
}

static List *
rehearse_sql(List *checks, Oid owner, const Part *p)
{
	Try			t = {owner, p};
	ErrorData  *error;

	too_long = false;
	bcmig_met_in_rehearsal = false;
	enable_timeout_after(too_long_id, (int) Min(p->timeout, MOST_MS));
	error = p->precondition ? bcmig_try(try_condition, &t) : NULL;
	if (error == NULL)
		error = bcmig_try(try_sql, &t);
	disable_timeout(too_long_id, false);
	if (bcmig_met_in_rehearsal)
		return bcmig_add_check(checks, p->name, "warn", p->action, NULL, "Not run, cannot be rolled back: it calls bcmig.", NULL);
	if (error != NULL)
		return add_error(checks, p, error, "fail");
	if (t.outside != NULL)
		return bcmig_add_check(checks, p->name, "warn", p->action, NULL, psprintf("Not run, cannot be rolled back: %s.", t.outside), NULL);
	return bcmig_add_check(checks, p->name, p->precondition && !t.holds ? "warn" : "ok", p->action, NULL,
						   p->precondition && !t.holds ? "Run and rolled back; its precondition is not true." : "Run and rolled back.", NULL);
}

/*
 * All phases in their order; the SQL after the checks of the steps, which ask
 * others: nobody waits for a sequence longer than the SQL takes.
 */
static List *
rehearse(Oid owner, const char *plan)
{
	List	   *parts = load_parts(plan);
	List	  **of_part = palloc0(sizeof(List *) * Max(list_length(parts), 1));
	List	   *checks = NIL;
	bool		sql = false;
	ErrorData  *error;
	ListCell   *lc;

	foreach(lc, parts)
	{
		Part	   *p = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (p->statement != NULL)
			sql = true;
		else
			of_part[foreach_current_index(lc)] = rehearse_step(NIL, owner, p);
		if (p->approval != NULL && !OidIsValid(get_role_oid(p->approval, true)))
			of_part[foreach_current_index(lc)] = bcmig_add_check(of_part[foreach_current_index(lc)], p->name, "fail", p->approval, NULL, "The role that is to approve it does not exist.",
																 psprintf("CREATE ROLE %s;", quote_identifier(p->approval)));
	}
	error = sql ? bcmig_try(copy_sequences, NULL) : NULL;
	bcmig_rehearsing = sql;
	foreach(lc, parts)
	{
		Part	   *p = lfirst(lc);
		List	  **own = &of_part[foreach_current_index(lc)];

		if (p->statement != NULL && error != NULL)
			*own = bcmig_add_check(*own, p->name, "warn", p->action, NULL, psprintf("Not run: sequences could not be kept from moving: %s", bcmig_error_text(error, true)), NULL);
		else if (p->statement != NULL)
			*own = rehearse_sql(*own, owner, p);
		checks = list_concat(checks, *own);
	}
	return checks;
}

/*
 * bcmig_rehearse_plan(plan)
 */
Datum
bcmig_rehearse_plan(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner resources = CurrentResourceOwner;
	char	   *plan = bcmig_arg_text(fcinfo, 0, "plan");
	Oid			owner = bcmig_plan_owner(plan);
	List	   *volatile checks = NIL;
	int			guc_level = NewGUCNestLevel();

	if (too_long_id == 0)
		too_long_id = RegisterTimeout(USER_TIMEOUT, on_timeout);
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);
	(void) set_config_option("lock_timeout", LOCK_TIMEOUT_TEXT, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	PG_TRY();
	{
		checks = rehearse(owner, plan);
	}
	PG_FINALLY();
	{
		bcmig_rehearsing = false;
		disable_timeout(too_long_id, false);
	}
	PG_END_TRY();
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = resources;
	AtEOXact_GUC(false, guc_level);
	return bcmig_return_checks(fcinfo, checks);
}
