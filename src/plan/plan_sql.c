/*-------------------------------------------------------------------------
 *
 * plan_sql.c
 *	  SQL of users in plans: phases, preconditions, compensations.
 *
 * It runs as the owner of the plan in a security-restricted operation: SET ROLE,
 * SET SESSION AUTHORIZATION and whatever would outlive the transaction in the
 * process are refused by the server, and settings it makes end with it.  What is
 * deferred is brought forward, so that it runs inside as well.  It is bcmig's in
 * nothing: fence, journal and triggers are there for it as for everybody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "plan.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "parser/parser.h"
#include "user_query.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

/* the stretch in which it runs */
typedef struct Restricted
{
	Oid			userid;
	int			sec_context;
	int			guc_level;
} Restricted;

static void
restrict_to(Oid owner, Restricted *r)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	GetUserIdAndSecContext(&r->userid, &r->sec_context);
	SetUserIdAndSecContext(owner, r->sec_context | SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
	r->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

static void
end_restricted(const Restricted *r)
{
	AtEOXact_GUC(false, r->guc_level);
	SetUserIdAndSecContext(r->userid, r->sec_context);
	SPI_finish();
}

static void
in_sql(void *arg)
{
	int			code = geterrcode();

	if (code == ERRCODE_UNDEFINED_TABLE || code == ERRCODE_UNDEFINED_FUNCTION || code == ERRCODE_UNDEFINED_OBJECT)
		errhint("Names in the SQL of a plan are written with their schema.");
}

static void
execute(const char *sql)
{
	int			rc = SPI_execute(sql, false, 0);

	if (rc == SPI_ERROR_TRANSACTION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("the SQL of a plan must not begin or end a transaction"),
				 errdetail("It runs in one, together with the mark that it is done.")));
	if (rc < 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the SQL of a plan cannot be run"),
				 errdetail("%s", SPI_result_code_string(rc))));
}

void
bcmig_run_plan_sql(Oid owner, const char *sql)
{
	ErrorContextCallback callback = {error_context_stack, in_sql, NULL};
	Restricted	r;

	restrict_to(owner, &r);
	error_context_stack = &callback;
	execute(sql);
	execute("SET CONSTRAINTS ALL IMMEDIATE");
	error_context_stack = callback.previous;
	end_restricted(&r);
}

const char *
bcmig_try_plan_sql(Oid owner, const char *sql, const char *(*outside) (struct RawStmt *stmt, const char *sql))
{
	ErrorContextCallback callback = {error_context_stack, in_sql, NULL};
	MemoryContext caller = CurrentMemoryContext;
	const char *said = NULL;
	Restricted	r;
	ListCell   *lc;

	restrict_to(owner, &r);
	error_context_stack = &callback;
	foreach(lc, raw_parser(sql, RAW_PARSE_DEFAULT))
	{
		RawStmt    *stmt = lfirst_node(RawStmt, lc);
		int			len = stmt->stmt_len > 0 ? stmt->stmt_len : (int) strlen(sql) - stmt->stmt_location;
		const char *what = outside(stmt, sql);

		if (what != NULL)
			said = MemoryContextStrdup(caller, what);
		else
			execute(pnstrdup(sql + stmt->stmt_location, len));
		CommandCounterIncrement();
	}
	execute("SET CONSTRAINTS ALL IMMEDIATE");
	error_context_stack = callback.previous;
	end_restricted(&r);
	return said;
}

bool
bcmig_plan_condition(Oid owner, const char *phase, const char *query)
{
	BcmigUserQuery q = {"precondition", phase, query, "SELECT * FROM bcmig.phase;", BOOLOID};
	Restricted	r;
	bool		holds;

	restrict_to(owner, &r);
	if (SPI_execute_plan(bcmig_prepare_user_query(&q, NULL), NULL, NULL, false, 2) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute_plan failed");
	if (SPI_processed > 1)
		ereport(ERROR,
				(errcode(ERRCODE_CARDINALITY_VIOLATION),
				 errmsg("the precondition of phase \"%s\" returns more than one row", phase)));
	holds = SPI_processed == 1 && bcmig_get_bool(0, 1);
	end_restricted(&r);
	return holds;
}

typedef struct Checked
{
	const char *where;
	const char *sql;
} Checked;

/* where in this SQL, not in the statement of the session */
static void
in_check(void *arg)
{
	const Checked *checked = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(checked->sql);
	}
	errcontext("%s", checked->where);
}

void
bcmig_check_plan_sql(const char *where, const char *sql)
{
	Checked		checked = {where, sql};
	ErrorContextCallback callback = {error_context_stack, in_check, &checked};
	List	   *statements;
	ListCell   *lc;

	error_context_stack = &callback;
	statements = raw_parser(sql, RAW_PARSE_DEFAULT);
	error_context_stack = callback.previous;
	if (statements == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_PLAN),
				 errmsg("%s: there is no statement in it", where)));
	foreach(lc, statements)
	{
		Node	   *stmt = lfirst_node(RawStmt, lc)->stmt;

		if (IsA(stmt, TransactionStmt))
			ereport(ERROR,
					(errcode(ERRCODE_BM_PLAN),
					 errmsg("%s: it must not begin or end a transaction", where),
					 errdetail("It runs in one, together with the mark that it is done.")));
		if (IsA(stmt, VariableSetStmt) && ((VariableSetStmt *) stmt)->name != NULL &&
			(pg_strcasecmp(((VariableSetStmt *) stmt)->name, "role") == 0 ||
			 pg_strcasecmp(((VariableSetStmt *) stmt)->name, "session_authorization") == 0))
			ereport(ERROR,
					(errcode(ERRCODE_BM_PLAN),
					 errmsg("%s: it must not become another role", where),
					 errdetail("All of a plan runs as its owner.")));
	}
}

int64
bcmig_get_ms(uint64 row, int col)
{
	bool		isnull;
	Datum		value = bcmig_get_datum(row, col, &isnull);
	Interval   *i;

	if (isnull)
		return -1;
	i = DatumGetIntervalP(value);
	return i->time / 1000 + ((int64) i->day + (int64) i->month * DAYS_PER_MONTH) * SECS_PER_DAY * 1000;
}
