/*-------------------------------------------------------------------------
 *
 * call.c
 *	  Arguments and results of the functions a DBA calls.
 *
 * The functions are not STRICT: a NULL where a name is wanted is a mistake to
 * be told, not a reason to do nothing.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "call.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"

char *
bcmig_arg_text(FunctionCallInfo fcinfo, int n, const char *name)
{
	char	   *value = PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));

	if (value == NULL || value[0] == '\0')
		ereport(ERROR,
				(errcode(value == NULL ? ERRCODE_NULL_VALUE_NOT_ALLOWED : ERRCODE_BM_OPTION),
				 errmsg("argument \"%s\" must not be %s", name, value == NULL ? "NULL" : "empty")));
	return value;
}

char *
bcmig_arg_optional_text(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* NULL counts as {} */
Jsonb *
bcmig_arg_options(FunctionCallInfo fcinfo, int n)
{
	if (PG_ARGISNULL(n))
		return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}")));
	return PG_GETARG_JSONB_P(n);
}

/* NULL counts as false */
bool
bcmig_arg_bool(FunctionCallInfo fcinfo, int n)
{
	return !PG_ARGISNULL(n) && PG_GETARG_BOOL(n);
}

/*
 * Names travel through process titles and shared memory: at most as long as
 * an identifier, and without control characters.
 */
char *
bcmig_arg_new_name(FunctionCallInfo fcinfo, int n, const char *name)
{
	char	   *value = bcmig_arg_text(fcinfo, n, name);

	if (strlen(value) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("argument \"%s\" is too long", name),
				 errdetail("It has %zu bytes, at most %d are allowed.", strlen(value), NAMEDATALEN - 1)));
	for (char *p = value; *p; p++)
	{
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			ereport(ERROR,
					(errcode(ERRCODE_BM_OPTION),
					 errmsg("argument \"%s\" must not contain control characters", name)));
	}
	return value;
}

void
bcmig_check_member(Oid owner, const char *kind, const char *name)
{
	if (!has_privs_of_role(GetUserId(), owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be a member of the owner of %s \"%s\"", kind, name),
				 errdetail("It belongs to role \"%s\".", GetUserNameFromId(owner, false)),
				 errhint("SET ROLE %s;", quote_identifier(GetUserNameFromId(owner, false)))));
}

List *
bcmig_add_check(List *checks, const char *name, const char *status,
				const char *value, const char *bound, const char *detail,
				const char *fix)
{
	BcmigCheck *check = palloc(sizeof(BcmigCheck));

	check->name = name;
	check->status = status;
	check->value = value;
	check->bound = bound;
	check->detail = detail;
	check->fix = fix;
	return lappend(checks, check);
}

static void
put_text(Datum *values, bool *nulls, int i, const char *text)
{
	nulls[i] = text == NULL;
	values[i] = text ? CStringGetTextDatum(text) : (Datum) 0;
}

Datum
bcmig_return_checks(FunctionCallInfo fcinfo, List *checks)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, checks)
	{
		BcmigCheck *c = (BcmigCheck *) lfirst(lc);
		Datum		values[6];
		bool		nulls[6];

		put_text(values, nulls, 0, c->name);
		put_text(values, nulls, 1, c->status);
		put_text(values, nulls, 2, c->value);
		put_text(values, nulls, 3, c->bound);
		put_text(values, nulls, 4, c->detail);
		put_text(values, nulls, 5, c->fix);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

List *
bcmig_add_step(List *steps, const char *where, char *statement, bool reversible,
			   char *expected, const char *on_failure)
{
	BcmigStep  *s = palloc(sizeof(BcmigStep));

	s->where = where;
	s->statement = statement;
	s->reversible = reversible;
	s->expected = expected;
	s->on_failure = on_failure;
	return lappend(steps, s);
}

Datum
bcmig_return_steps(FunctionCallInfo fcinfo, List *steps)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;
	int			n = 0;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, steps)
	{
		BcmigStep  *s = (BcmigStep *) lfirst(lc);
		Datum		values[6];
		bool		nulls[6] = {0};

		values[0] = Int32GetDatum(++n);
		put_text(values, nulls, 1, s->where);
		put_text(values, nulls, 2, s->statement);
		values[3] = BoolGetDatum(s->reversible);
		put_text(values, nulls, 4, s->expected);
		put_text(values, nulls, 5, s->on_failure);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
