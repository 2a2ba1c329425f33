/*-------------------------------------------------------------------------
 *
 * transform_check.c
 *	  What may be written as a transform or row filter.
 *
 * One expression over the columns of the row, that gives the same for the same
 * row whenever it is evaluated: no subqueries, aggregates or functions that
 * return sets, nothing volatile, no time and no user.  It is parsed twice: by
 * itself, so that it is one expression and no more, and in the statement it
 * will be used in, so that names and types are those it will have then.  Both
 * as the owner of the sync, with search_path pg_catalog, as it will run.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "transform.h"

#include "catalog/pg_proc.h"
#include "configure.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/nodeFuncs.h"
#include "nodes/parsenodes.h"
#include "options.h"
#include "parser/parser.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/regproc.h"

#define EXAMPLE	"Write one expression over the columns of the row, as in: upper(\"Name\")."

static void
bad_expression(const char *what, const char *why)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("this cannot be a %s: %s", what, why),
			 errhint(EXAMPLE)));
}

/* names of columns of blue that look like "name" */
static char *
near_columns(int ncolumns, const BcmigColumn *columns, const char *name)
{
	List	   *known = NIL;

	for (int i = 0; i < ncolumns; i++)
	{
		/* the case alone makes another name of it */
		if (pg_strcasecmp(name, columns[i].source) == 0)
			return pstrdup(columns[i].source);
		known = lappend(known, columns[i].source);
	}
	return bcmig_near_names(name, known);
}

int
bcmig_find_source(const BcmigTableInfo *table, const char *column_name)
{
	char	   *near;

	/* of a base table before those of its companions */
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (strcmp(table->columns[i].source, column_name) == 0)
			return i;
	}
	near = near_columns(table->ncolumns, table->columns, column_name);
	ereport(ERROR,
			(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
			 errmsg("table \"%s\".\"%s\" has no column \"%s\" that is copied", table->source_schema, table->source_table, column_name),
			 near[0] ? errdetail("Near names: %s.", near) : 0,
			 errhint("SELECT source_column FROM bcmig.column_map JOIN bcmig.sync_table USING (table_id) WHERE source_table = %s;",
					 quote_literal_cstr(table->source_table))));
	return -1;					/* keep compiler quiet */
}

/* is the text one expression, and nothing that could end it? */
static void
check_text(const char *what, const char *expression)
{
	List	   *parsed = raw_parser(expression, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *s = (SelectStmt *) linitial_node(RawStmt, parsed)->stmt;

	if (list_length(s->targetList) != 1 || s->fromClause != NIL || s->whereClause != NULL || s->groupClause != NIL ||
		s->havingClause != NULL || s->windowClause != NIL || s->sortClause != NIL || s->limitCount != NULL ||
		s->limitOffset != NULL || s->lockingClause != NIL || s->distinctClause != NIL)
		bad_expression(what, "it is not a single expression");
	if (linitial_node(ResTarget, s->targetList)->name != NULL)
		bad_expression(what, "it has an alias");
}

static bool
is_volatile(Oid function, void *arg)
{
	Oid		   *found = arg;

	if (func_volatile(function) == PROVOLATILE_VOLATILE || function == F_NOW || function == F_TRANSACTION_TIMESTAMP ||
		function == F_STATEMENT_TIMESTAMP)
		*found = function;
	return OidIsValid(*found);
}

static bool
check_node(Node *node, void *arg)
{
	const char *what = arg;
	Oid			function = InvalidOid;

	if (node == NULL)
		return false;
	if (IsA(node, SubLink))
		bad_expression(what, "it has a subquery");
	if (IsA(node, Var) && ((Var *) node)->varattno == InvalidAttrNumber)
		bad_expression(what, "it takes the row as a whole; name its columns");
	if (IsA(node, SQLValueFunction))
		bad_expression(what, "it asks for the time or the user, and must depend on the row only");
	if (check_functions_in_node(node, is_volatile, &function))
		bad_expression(what, psprintf("function %s is volatile, and a value must depend on the row only",
									  format_procedure(function)));
	return expression_tree_walker(node, check_node, arg);
}

/* the row, all of it NULL */
static char *
null_row(int ncolumns, const BcmigColumn *columns)
{
	char	  **names = bcmig_row_names(ncolumns, columns);
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < ncolumns; i++)
		appendStringInfo(&s, "%sNULL::%s AS %s", i ? ", " : "", columns[i].source_type, quote_identifier(names[i]));
	return s.data;
}

/* in SPI, as the owner; result in the caller's context */
static char *
analyse(const char *what, const char *sql, MemoryContext caller)
{
	SPIPlanPtr	plan = SPI_prepare(sql, 0, NULL);
	Query	   *query;
	TargetEntry *tle;
	MemoryContext oldcontext;
	char	   *type;

	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
	query = linitial_node(Query, ((CachedPlanSource *) linitial(SPI_plan_get_plan_sources(plan)))->query_list);
	tle = linitial_node(TargetEntry, query->targetList);
	if (query->hasAggs)
		bad_expression(what, "it has an aggregate");
	if (query->hasWindowFuncs)
		bad_expression(what, "it has a window function");
	if (query->hasTargetSRFs)
		bad_expression(what, "it returns a set");
	(void) check_node((Node *) tle->expr, unconstify(char *, what));
	if (get_typtype(exprType((Node *) tle->expr)) == TYPTYPE_PSEUDO)
		bad_expression(what, "its type is no type of a column");
	oldcontext = MemoryContextSwitchTo(caller);
	type = format_type_extended(exprType((Node *) tle->expr), exprTypmod((Node *) tle->expr), FORMAT_TYPE_TYPEMOD_GIVEN);
	MemoryContextSwitchTo(oldcontext);

	/* planning folds what is constant, and starting looks at the rights on functions */
	if (SPI_execute_plan(plan, NULL, NULL, true, 1) < 0)
		elog(ERROR, "SPI_execute_plan failed");
	return type;
}

/*
 * What the parser, or the planner that folds constants, had to say, about what
 * the person wrote and not about the statement it was put into.
 */
static void
explain(const char *what, int ncolumns, const BcmigColumn *columns, ErrorData *edata)
{
	int			category = ERRCODE_TO_CATEGORY(edata->sqlerrcode);
	const char *near = "";
	char	   *name;

	edata->internalquery = NULL;
	edata->internalpos = 0;
	edata->cursorpos = 0;
	edata->context = NULL;
	if (edata->sqlerrcode == ERRCODE_INSUFFICIENT_PRIVILEGE ||
		(category != ERRCODE_TO_CATEGORY(ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION) &&
		 category != ERRCODE_TO_CATEGORY(ERRCODE_DATA_EXCEPTION)))
		ThrowErrorData(edata);
	if (edata->sqlerrcode == ERRCODE_UNDEFINED_COLUMN)
	{
		/* column "x" does not exist: which did they mean? */
		name = strchr(edata->message, '"');
		if (name != NULL && strrchr(name + 1, '"') != NULL)
			near = near_columns(ncolumns, columns, pnstrdup(name + 1, strrchr(name + 1, '"') - name - 1));
		edata->hint = "Columns are named as blue spells them, in double quotes where they are not in lower case.";
	}
	else if (edata->sqlerrcode == ERRCODE_UNDEFINED_FUNCTION)
		edata->hint = "Functions that are not PostgreSQL's own are named with their schema.";
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("this cannot be a %s: %s", what, edata->message),
			 near[0] ? errdetail("Near names: %s.", near) : 0,
			 errhint("%s", edata->hint ? edata->hint : EXAMPLE)));
}

char *
bcmig_check_expression(Oid owner, int ncolumns, const BcmigColumn *columns, const char *what, const char *expression)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *sql = psprintf("SELECT (%s\n) FROM (SELECT %s) AS \"row\" WHERE false", expression, null_row(ncolumns, columns));
	char	   *type = NULL;
	Oid			userid;
	int			sec_context;
	int			guc_level;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(owner, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	PG_TRY();
	{
		check_text(what, expression);
		type = analyse(what, sql, caller);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		/* the error goes on, so that all is undone by its abort */
		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		explain(what, ncolumns, columns, edata);
	}
	PG_END_TRY();
	SetUserIdAndSecContext(userid, sec_context);
	AtEOXact_GUC(true, guc_level);
	SPI_finish();
	return type;
}

void
bcmig_check_filter(Oid owner, int ncolumns, const BcmigColumn *columns, const char *expression)
{
	char	   *type = bcmig_check_expression(owner, ncolumns, columns, "row_filter", expression);

	if (strcmp(type, "boolean") != 0)
		bad_expression("row_filter", psprintf("its type is %s, not boolean", type));
}
