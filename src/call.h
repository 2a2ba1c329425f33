/*-------------------------------------------------------------------------
 *
 * call.h
 *	  Arguments and results of the functions a DBA calls.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_CALL_H
#define BCMIG_CALL_H

#include "bcmig.h"
#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/*
 * One row of a check, the shape all checks share: check_name, status (ok,
 * warn, fail), value, bound, detail, fix.  fix is a statement to run.
 */
typedef struct BcmigCheck
{
	const char *name;
	const char *status;
	const char *value;
	const char *bound;
	const char *detail;
	const char *fix;
} BcmigCheck;

/* one row of a dry run: (step,) where, statement, reversible, expected, on_failure */
typedef struct BcmigStep
{
	const char *where;			/* green or blue */
	char	   *statement;
	bool		reversible;
	char	   *expected;
	const char *on_failure;
} BcmigStep;

/* arguments; ERROR naming the parameter when a required one is NULL or empty */
extern char *bcmig_arg_text(FunctionCallInfo fcinfo, int n, const char *name);
extern char *bcmig_arg_optional_text(FunctionCallInfo fcinfo, int n);
extern Jsonb *bcmig_arg_options(FunctionCallInfo fcinfo, int n);
extern bool bcmig_arg_bool(FunctionCallInfo fcinfo, int n);

/* a new name of an environment or sync, checked */
extern char *bcmig_arg_new_name(FunctionCallInfo fcinfo, int n, const char *name);

/* caller must be a member of the role that owns the thing */
extern void bcmig_check_member(Oid owner, const char *kind, const char *name);

extern List *bcmig_add_check(List *checks, const char *name, const char *status,
							 const char *value, const char *bound,
							 const char *detail, const char *fix);
extern Datum bcmig_return_checks(FunctionCallInfo fcinfo, List *checks);
extern List *bcmig_add_step(List *steps, const char *where, char *statement, bool reversible,
							char *expected, const char *on_failure);
extern Datum bcmig_return_steps(FunctionCallInfo fcinfo, List *steps);

#endif							/* BCMIG_CALL_H */
