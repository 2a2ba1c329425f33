/*-------------------------------------------------------------------------
 *
 * options.c
 *	  Options as jsonb, validated against bcmig.option.
 *
 * bcmig.option is the one list: a key that is not in it is an error, and what
 * its row says (kind, unit, bounds, choices) is all that is checked here.
 * Values are stored in normal form, so that the engine never parses a unit:
 * intervals as a number of ms, sizes as a number of bytes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "options.h"

#include <math.h>

#include "catalog.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/numeric.h"
#include "utils/varlena.h"

/* bytes of a name or value repeated in a message */
#define MAX_SHOWN			80

/* the longest name varstr_levenshtein looks at */
#define MAX_COMPARED_NAME	255

/* A row of bcmig.option. */
typedef struct OptionDef
{
	char	   *name;
	char	   *kind;
	char	   *unit;			/* NULL = none */
	char	   *default_value;	/* NULL = none */
	bool		has_min;
	bool		has_max;
	int64		min;
	int64		max;
	List	   *choices;		/* of char * */
	List	   *scopes;			/* of char * */
} OptionDef;

static List *
text_array_list(Datum array)
{
	Datum	   *elems;
	bool	   *nulls;
	int			n;
	List	   *result = NIL;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &elems, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		if (!nulls[i])
			result = lappend(result, TextDatumGetCString(elems[i]));
	}
	return result;
}

static bool
in_list(List *names, const char *name)
{
	ListCell   *lc;

	foreach(lc, names)
	{
		if (strcmp((char *) lfirst(lc), name) == 0)
			return true;
	}
	return false;
}

static char *
join_list(List *names, const char *separator)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, names)
		appendStringInfo(&buf, "%s%s", buf.len > 0 ? separator : "", (char *) lfirst(lc));
	return buf.data;
}

/*
 * Look an option up; NULL when there is none of that name.
 */
static OptionDef *
find_option(const char *name)
{
	OptionDef  *def;
	Datum		value;
	bool		isnull;

	if (bcmig_sql("SELECT kind, unit, default_value, min_value, max_value, choices, scope "
				  "FROM bcmig.option WHERE name = $1", "t", name) == 0)
		return NULL;
	def = palloc0(sizeof(OptionDef));
	def->name = pstrdup(name);
	def->kind = bcmig_get_text(0, 1);
	def->unit = bcmig_get_text(0, 2);
	def->default_value = bcmig_get_text(0, 3);
	(void) bcmig_get_datum(0, 4, &isnull);
	def->has_min = !isnull;
	def->min = bcmig_get_int64(0, 4, 0);
	(void) bcmig_get_datum(0, 5, &isnull);
	def->has_max = !isnull;
	def->max = bcmig_get_int64(0, 5, 0);
	value = bcmig_get_datum(0, 6, &isnull);
	if (!isnull)
		def->choices = text_array_list(value);
	def->scopes = text_array_list(bcmig_get_datum(0, 7, &isnull));
	return def;
}

char *
bcmig_near_names(const char *name, List *known)
{
	List	   *near = NIL;
	int			len = strlen(name);
	ListCell   *lc;

	if (len == 0 || len > MAX_COMPARED_NAME)
		return "";
	foreach(lc, known)
	{
		char	   *other = lfirst(lc);
		int			other_len = strlen(other);
		int			limit = Max(2, Min(len, other_len) / 3);

		if (other_len <= MAX_COMPARED_NAME &&
			(varstr_levenshtein_less_equal(name, len, other, other_len, 1, 1, 1, limit, false) <= limit ||
			 (len >= 3 && strstr(other, name) != NULL) || strstr(name, other) != NULL))
			near = lappend(near, other);
	}
	return join_list(near, ", ");
}

/* options of this scope that look like "name" */
static char *
near_names(const char *name, const char *scope)
{
	List	   *known = NIL;
	uint64		n = bcmig_sql("SELECT name FROM bcmig.option WHERE $1 = ANY (scope) ORDER BY name",
							  "t", scope);

	for (uint64 i = 0; i < n; i++)
		known = lappend(known, bcmig_get_text(i, 1));
	return bcmig_near_names(name, known);
}

/* what somebody wrote, short enough for a message */
static char *
clipped(const char *text)
{
	int			len = strlen(text);
	int			clip = pg_mbcliplen(text, len, MAX_SHOWN);

	return clip == len ? pstrdup(text) : psprintf("%.*s...", clip, text);
}

static void
unknown_option(const char *name, const char *scope)
{
	char	   *near = near_names(name, scope);

	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("unknown option \"%s\"", clipped(name)),
			 near[0] != '\0' ? errdetail("Near names: %s.", near) : 0,
			 errhint("SELECT name, unit, default_value, meaning FROM bcmig.option WHERE '%s' = ANY (scope);",
					 scope)));
}

/* what a value of this option may look like, for messages */
static char *
expectation(const OptionDef *def)
{
	StringInfoData buf;

	initStringInfo(&buf);
	if (strcmp(def->kind, "enum") == 0)
		appendStringInfo(&buf, "one of %s", join_list(def->choices, ", "));
	else if (strcmp(def->kind, "boolean") == 0)
		appendStringInfoString(&buf, "true or false");
	else if (strcmp(def->kind, "text") == 0)
		appendStringInfoString(&buf, "a text that is not empty");
	else if (strcmp(def->kind, "list") == 0)
		appendStringInfoString(&buf, "an array of texts, none empty");
	else
	{
		if (strcmp(def->kind, "integer") == 0)
			appendStringInfoString(&buf, "a whole number");
		else if (strcmp(def->kind, "interval") == 0)
			appendStringInfoString(&buf, "a number of ms or a text like '2s'");
		else if (strcmp(def->kind, "bytes") == 0)
			appendStringInfoString(&buf, "a number of bytes or a text like '64MB'");
		else
			appendStringInfoString(&buf, "a number");
		if (def->has_min && def->has_max)
			appendStringInfo(&buf, " from " INT64_FORMAT " to " INT64_FORMAT, def->min, def->max);
		if (def->choices != NIL)
			appendStringInfo(&buf, ", or %s", join_list(def->choices, ", "));
	}
	return buf.data;
}

static void
bad_value(const OptionDef *def, const char *value)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("option \"%s\" cannot be \"%s\"", def->name, clipped(value)),
			 errdetail("Expected %s.", expectation(def)),
			 errhint("SELECT * FROM bcmig.option WHERE name = '%s';", def->name)));
}

static bool
is_number_kind(const OptionDef *def)
{
	return strcmp(def->kind, "integer") == 0 || strcmp(def->kind, "interval") == 0 ||
		strcmp(def->kind, "bytes") == 0 || strcmp(def->kind, "percent") == 0;
}

/*
 * Parse "text" as a number of the option's base unit.  false: not a number of
 * this kind.  Bounds are not looked at.
 */
static bool
parse_number(const OptionDef *def, const char *text, double *result)
{
	int			flags = 0;
	const char *hint;

	if (strcmp(def->kind, "interval") == 0)
		flags = GUC_UNIT_MS;
	else if (strcmp(def->kind, "bytes") == 0)
		flags = GUC_UNIT_BYTE;
	if (!parse_real(text, result, flags, &hint))
		return false;
	/* a unit finer than the base one ('500us') is rounded as a GUC is */
	if (flags != 0)
		*result = rint(*result);
	return strcmp(def->kind, "percent") == 0 || *result == rint(*result);
}

static char *
number_text(double number)
{
	return number == rint(number) ? psprintf("%.0f", number) : psprintf("%g", number);
}

/*
 * Bring one value into normal form, or raise.
 */
static JsonbValue
normalise(const OptionDef *def, JsonbValue *value)
{
	JsonbValue	result = *value;
	char	   *text;

	/* as the user wrote it, for messages and for parsing */
	if (value->type == jbvString)
		text = pnstrdup(value->val.string.val, value->val.string.len);
	else if (value->type == jbvBool)
		text = value->val.boolean ? "true" : "false";
	else if (value->type == jbvNumeric)
		text = DatumGetCString(DirectFunctionCall1(numeric_out,
												   NumericGetDatum(value->val.numeric)));
	else
	{
		Jsonb	   *whole = JsonbValueToJsonb(value);

		text = JsonbToCString(NULL, &whole->root, VARSIZE(whole));
	}

	/* words like auto stand for themselves, whatever the kind */
	if (value->type == jbvString &&
		(in_list(def->choices, text) ||
		 (def->default_value && strcmp(text, "auto") == 0 &&
		  strcmp(def->default_value, "auto") == 0)))
		return result;

	if (is_number_kind(def))
	{
		double		number;

		if ((value->type != jbvString && value->type != jbvNumeric) ||
			!parse_number(def, text, &number))
			bad_value(def, text);
		if ((def->has_min && number < (double) def->min) ||
			(def->has_max && number > (double) def->max) || isinf(number))
			bad_value(def, text);
		result.type = jbvNumeric;
		result.val.numeric = DatumGetNumeric(DirectFunctionCall3(numeric_in,
																 CStringGetDatum(number_text(number)),
																 ObjectIdGetDatum(InvalidOid),
																 Int32GetDatum(-1)));
	}
	else if (strcmp(def->kind, "boolean") == 0)
	{
		bool		flag;

		if (value->type == jbvBool)
			return result;
		if (value->type != jbvString || !parse_bool(text, &flag))
			bad_value(def, text);
		result.type = jbvBool;
		result.val.boolean = flag;
	}
	else if (strcmp(def->kind, "list") == 0)
	{
		JsonbIterator *it;
		JsonbValue	elem;
		JsonbIteratorToken token;
		int			n = 0;

		if (value->type != jbvBinary || !JsonContainerIsArray(value->val.binary.data))
			bad_value(def, text);
		it = JsonbIteratorInit(value->val.binary.data);
		while ((token = JsonbIteratorNext(&it, &elem, true)) != WJB_DONE)
		{
			if (token != WJB_ELEM)
				continue;
			if (elem.type != jbvString || elem.val.string.len == 0)
				bad_value(def, text);
			n++;
		}
		if (n == 0)
			bad_value(def, text);
	}
	else if (value->type != jbvString || text[0] == '\0' || strcmp(def->kind, "enum") == 0)
		bad_value(def, text);
	return result;
}

/* "base" without the keys of "change", pushed into an open object */
static void
push_kept(JsonbParseState **state, Jsonb *base, Jsonb *change)
{
	JsonbIterator *it = JsonbIteratorInit(&base->root);
	JsonbValue	v;
	JsonbValue	kept;
	JsonbIteratorToken token;
	bool		skip = false;

	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			skip = getKeyJsonValueFromContainer(&change->root, v.val.string.val,
												v.val.string.len, &kept) != NULL;
			if (!skip)
				pushJsonbValue(state, WJB_KEY, &v);
		}
		else if (token == WJB_VALUE && !skip)
			pushJsonbValue(state, WJB_VALUE, &v);
	}
}

Jsonb *
bcmig_options_merge(Jsonb *base, Jsonb *change, const char *scope)
{
	JsonbParseState *state = NULL;
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	OptionDef  *def = NULL;

	if (change == NULL || !JB_ROOT_IS_OBJECT(change))
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("options must be a JSON object"),
				 errhint("Write options => '{\"batch_rows\": 500}'.")));

	pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (base != NULL)
		push_kept(&state, base, change);

	it = JsonbIteratorInit(&change->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			char	   *name = pnstrdup(v.val.string.val, v.val.string.len);

			def = find_option(name);
			if (def == NULL)
				unknown_option(name, scope);
			if (!in_list(def->scopes, scope))
				ereport(ERROR,
						(errcode(ERRCODE_BM_OPTION),
						 errmsg("option \"%s\" cannot be set for %s %s", name,
								strchr("aeiou", scope[0]) ? "an" : "a", scope),
						 errdetail("It can be set for: %s.", join_list(def->scopes, ", ")),
						 errhint("SELECT * FROM bcmig.option WHERE name = '%s';", name)));
		}
		else if (token == WJB_VALUE && v.type != jbvNull)
		{
			JsonbValue	key;
			JsonbValue	value = normalise(def, &v);

			key.type = jbvString;
			key.val.string.val = def->name;
			key.val.string.len = strlen(def->name);
			pushJsonbValue(&state, WJB_KEY, &key);
			pushJsonbValue(&state, WJB_VALUE, &value);
		}
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* text of one key of an options object, NULL when it is not there */
static char *
stored_value(Jsonb *options, const char *name)
{
	JsonbValue	buf;
	JsonbValue *v;
	Jsonb	   *whole;

	if (options == NULL)
		return NULL;
	v = getKeyJsonValueFromContainer(&options->root, name, strlen(name), &buf);
	if (v == NULL)
		return NULL;
	if (v->type == jbvString)
		return pnstrdup(v->val.string.val, v->val.string.len);
	if (v->type == jbvBool)
		return v->val.boolean ? "true" : "false";
	if (v->type == jbvNumeric)
		return DatumGetCString(DirectFunctionCall1(numeric_out,
												   NumericGetDatum(v->val.numeric)));
	whole = JsonbValueToJsonb(v);
	return JsonbToCString(NULL, &whole->root, VARSIZE(whole));
}

char *
bcmig_option_value(const char *name, Jsonb *table, Jsonb *sync)
{
	char	   *value = stored_value(table, name);
	OptionDef  *def;
	double		number;

	if (value == NULL)
		value = stored_value(sync, name);
	if (value != NULL)
		return value;

	def = find_option(name);
	if (def == NULL)
		elog(ERROR, "bcmig.option has no row \"%s\"", name);
	if (def->default_value != NULL && is_number_kind(def) &&
		parse_number(def, def->default_value, &number))
		return number_text(number);
	return def->default_value;
}

int64
bcmig_option_int64(const char *name, Jsonb *table, Jsonb *sync, int64 if_auto)
{
	char	   *value = bcmig_option_value(name, table, sync);

	if (value == NULL || strcmp(value, "auto") == 0)
		return if_auto;
	return (int64) rint(strtod(value, NULL));
}

bool
bcmig_option_bool(const char *name, Jsonb *table, Jsonb *sync)
{
	char	   *value = bcmig_option_value(name, table, sync);
	bool		flag;

	return value != NULL && parse_bool(value, &flag) && flag;
}
