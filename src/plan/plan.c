/*-------------------------------------------------------------------------
 *
 * plan.c
 *	  bcmig_create_plan, bcmig_drop_plan: plans as they are written.
 *
 * A plan is checked as a whole when it is made: what is unknown, missing or
 * cannot be in any order is found then, and named by its place.  Phases are
 * stored in the order in which they will be run: as they are written (or by
 * position), moved behind what they depend on.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "plan.h"

#include "call.h"
#include "configure.h"
#include "miscadmin.h"
#include "options.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/numeric.h"

BCMIG_FUNCTION(bcmig_create_plan);
BCMIG_FUNCTION(bcmig_drop_plan);

#define MOST_PHASES		1000
#define MOST_RETRIES	1000

static const char *const types[] = {"schema", "data", "code", "configuration", "validation", "traffic", "cleanup"};
static const char *const keys[] = {
	"name", "type", "action", "sql", "arguments", "active", "depends_on", "position", "timeout", "retries", "backoff",
	"precondition", "compensation", "approval"
};

/* a phase as it is written */
typedef struct Phase
{
	char	   *where;			/* for messages */
	char	   *name;
	char	   *type;
	char	   *action;
	char	   *arguments;		/* jsonb */
	bool		active;
	List	   *depends_on;
	double		position;
	char	   *timeout;		/* interval */
	int			retries;
	char	   *backoff;
	char	   *precondition;
	char	   *compensation;
	char	   *approval;
	bool		placed;
} Phase;

typedef struct NewPlan
{
	List	   *syncs;			/* names */
	List	   *waves;			/* int, of each */
	Jsonb	   *options;		/* those of bcmig.option */
	char	   *steps;			/* weights, as jsonb; NULL = the default */
	bool		auto_rollback;
	List	   *phases;
} NewPlan;

/* ---- JSON ---- */

pg_noreturn static void
malformed(const char *where, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_PLAN),
			 errmsg("%s: %s", where, what),
			 errhint("SELECT jsonb_pretty(jsonb_agg(to_jsonb(p))) FROM bcmig.phase p; -- of a plan made with phases => NULL")));
}

static JsonbValue *
find_key(Jsonb *object, const char *key, JsonbValue *buf)
{
	JsonbValue *v = getKeyJsonValueFromContainer(&object->root, key, strlen(key), buf);

	return v != NULL && v->type == jbvNull ? NULL : v;
}

static Jsonb *
as_jsonb(JsonbValue *v)
{
	return JsonbValueToJsonb(v);
}

static char *
jsonb_text(Jsonb *j)
{
	return JsonbToCString(NULL, &j->root, VARSIZE(j));
}

/* NULL = it is not there */
static char *
text_key(Jsonb *object, const char *where, const char *key)
{
	JsonbValue	buf;
	JsonbValue *v = find_key(object, key, &buf);

	if (v == NULL)
		return NULL;
	if (v->type != jbvString || v->val.string.len == 0)
		malformed(where, psprintf("\"%s\" must be a text that is not empty", key));
	return pnstrdup(v->val.string.val, v->val.string.len);
}

static bool
bool_key(Jsonb *object, const char *where, const char *key, bool if_missing)
{
	JsonbValue	buf;
	JsonbValue *v = find_key(object, key, &buf);

	if (v == NULL)
		return if_missing;
	if (v->type != jbvBool)
		malformed(where, psprintf("\"%s\" must be true or false", key));
	return v->val.boolean;
}

static double
number_key(Jsonb *object, const char *where, const char *key, double least, double most, double if_missing)
{
	JsonbValue	buf;
	JsonbValue *v = find_key(object, key, &buf);
	double		n;

	if (v == NULL)
		return if_missing;
	if (v->type != jbvNumeric)
		malformed(where, psprintf("\"%s\" must be a number", key));
	n = DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(v->val.numeric)));
	if (!(n >= least && n <= most))
		malformed(where, psprintf("\"%s\" is %s, must be %g to %g", key,
								  DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric))), least, most));
	return n;
}

static void
parse_interval(void *arg)
{
	(void) DirectFunctionCall3(interval_in, CStringGetDatum(arg), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
}

/* text as an interval, or a number of ms */
static char *
interval_key(Jsonb *object, const char *where, const char *key, bool zero, const char *if_missing)
{
	JsonbValue	buf;
	JsonbValue *v = find_key(object, key, &buf);
	char	   *text;
	Interval	none = {0};
	Datum		i;

	if (v == NULL)
		return pstrdup(if_missing);
	if (v->type == jbvNumeric)
		text = psprintf("%s ms", DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric))));
	else if (v->type == jbvString)
		text = pnstrdup(v->val.string.val, v->val.string.len);
	else
		malformed(where, psprintf("\"%s\" must be a number of ms or a text like '30 min'", key));
	if (bcmig_try(parse_interval, text) != NULL)
		malformed(where, psprintf("\"%s\" is '%s', must be a number of ms or a text like '30 min'", key, text));
	i = DirectFunctionCall3(interval_in, CStringGetDatum(text), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
	if (!DatumGetBool(DirectFunctionCall2(zero ? interval_ge : interval_gt, i, IntervalPGetDatum(&none))))
		malformed(where, psprintf("\"%s\" is %s, must be %s", key, text, zero ? "0 or more" : "more than 0"));
	return text;
}

/* elements of an array of texts; ERROR unless it is one */
static List *
texts_of(JsonbValue *v, const char *where, const char *what)
{
	List	   *texts = NIL;
	JsonbIterator *it;
	JsonbValue	e;
	JsonbIteratorToken token;

	if (v->type != jbvBinary || !JsonContainerIsArray(v->val.binary.data))
		malformed(where, psprintf("%s must be an array of names", what));
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &e, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM)
			continue;
		if (e.type != jbvString || e.val.string.len == 0)
			malformed(where, psprintf("%s must be an array of names", what));
		texts = lappend(texts, pnstrdup(e.val.string.val, e.val.string.len));
	}
	return texts;
}

/* ---- one phase ---- */

static void
unknown_word(const char *where, const char *what, const char *word, List *known)
{
	char	   *near = bcmig_near_names(word, known);
	StringInfoData all;
	ListCell   *lc;

	initStringInfo(&all);
	foreach(lc, known)
		appendStringInfo(&all, "%s%s", all.len ? ", " : "", (char *) lfirst(lc));
	ereport(ERROR,
			(errcode(ERRCODE_BM_PLAN),
			 errmsg("%s: there is no %s \"%s\"", where, what, word),
			 near[0] ? errdetail("Near names: %s.", near) : 0,
			 errhint("There are: %s.", all.data)));
}

static List *
words(const char *const *array, int n)
{
	List	   *list = NIL;

	for (int i = 0; i < n; i++)
		list = lappend(list, unconstify(char *, array[i]));
	return list;
}

static List *
step_names(void)
{
	List	   *names = list_make1("sql");
	const BcmigPlanStep *s;

	for (int i = 0; (s = bcmig_plan_step_at(i)) != NULL; i++)
		names = lappend(names, unconstify(char *, s->name));
	return names;
}

/* those a step knows; ERROR when there are others, or one that it needs is missing */
static void
check_arguments(const char *where, const BcmigPlanStep *step, Jsonb *arguments)
{
	List	   *known = NIL;
	char	   *copy = pstrdup(step->arguments);
	char	   *save;
	JsonbIterator *it = JsonbIteratorInit(&arguments->root);
	JsonbValue	v;
	JsonbIteratorToken token;

	for (char *word = strtok_r(copy, " ", &save); word != NULL; word = strtok_r(NULL, " ", &save))
	{
		char	   *mark = strchr(word, '!');

		if (mark != NULL)
			*mark = '\0';
		known = lappend(known, word);
		if (mark != NULL && find_key(arguments, word, &v) == NULL)
			malformed(where, psprintf("step %s needs \"%s\" in its arguments", step->name, word));
	}
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *key;

		if (token != WJB_KEY)
			continue;
		key = pnstrdup(v.val.string.val, v.val.string.len);
		if (!bcmig_has_text(known, key))
			unknown_word(where, psprintf("argument of step %s named", step->name), key, known);
	}
}

static void
check_role(const char *where, const char *role)
{
	if (!OidIsValid(get_role_oid(role, true)))
		malformed(where, psprintf("\"approval\": role \"%s\" does not exist", role));
}

static Phase *
parse_phase(Jsonb *object, int n, bool auto_rollback)
{
	Phase	   *p = palloc0(sizeof(Phase));
	JsonbIterator *it = JsonbIteratorInit(&object->root);
	JsonbValue	v;
	JsonbIteratorToken token;
	JsonbValue *arguments;
	const BcmigPlanStep *step = NULL;
	char	   *sql;

	p->where = psprintf("phase %d", n);
	p->name = text_key(object, p->where, "name");
	if (p->name == NULL)
		malformed(p->where, "it has no \"name\"");
	if (strlen(p->name) >= NAMEDATALEN)
		malformed(p->where, psprintf("its name has more than %d bytes", NAMEDATALEN - 1));
	p->where = psprintf("phase %d \"%s\"", n, p->name);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *key;

		if (token != WJB_KEY)
			continue;
		key = pnstrdup(v.val.string.val, v.val.string.len);
		if (!bcmig_has_text(words(keys, lengthof(keys)), key))
			unknown_word(p->where, "key", key, words(keys, lengthof(keys)));
	}

	p->action = text_key(object, p->where, "action");
	sql = text_key(object, p->where, "sql");
	arguments = find_key(object, "arguments", &v);
	if (arguments != NULL && (arguments->type != jbvBinary || !JsonContainerIsObject(arguments->val.binary.data)))
		malformed(p->where, "\"arguments\" must be an object");
	p->arguments = arguments ? jsonb_text(as_jsonb(arguments)) : "{}";
	if (sql != NULL && ((p->action != NULL && strcmp(p->action, "sql") != 0) || arguments != NULL))
		malformed(p->where, "it has \"sql\", and \"action\" or \"arguments\" besides");
	if (sql == NULL && p->action == NULL)
		malformed(p->where, "it has no \"action\", and no \"sql\"");
	if (sql == NULL && strcmp(p->action, "sql") == 0)
	{
		sql = arguments ? text_key(as_jsonb(arguments), p->where, "statement") : NULL;
		if (sql == NULL)
			malformed(p->where, "it has no \"sql\"");
	}
	if (sql != NULL)
	{
		JsonbParseState *state = NULL;
		JsonbValue	key = {.type = jbvString,.val.string = {strlen("statement"), "statement"}};
		JsonbValue	value = {.type = jbvString,.val.string = {strlen(sql), sql}};

		bcmig_check_plan_sql(psprintf("%s, sql", p->where), sql);
		p->action = "sql";
		pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		pushJsonbValue(&state, WJB_KEY, &key);
		pushJsonbValue(&state, WJB_VALUE, &value);
		p->arguments = jsonb_text(JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL)));
	}
	else
	{
		step = bcmig_plan_step(p->action);
		if (step == NULL)
			unknown_word(p->where, "action", p->action, step_names());
		check_arguments(p->where, step, DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(p->arguments))));
	}

	p->type = text_key(object, p->where, "type");
	if (p->type == NULL && step == NULL)
		malformed(p->where, "it has no \"type\"");
	if (p->type == NULL)
		p->type = pstrdup(step->type);
	if (!bcmig_has_text(words(types, lengthof(types)), p->type))
		unknown_word(p->where, "type", p->type, words(types, lengthof(types)));

	p->active = bool_key(object, p->where, "active", true);
	p->position = number_key(object, p->where, "position", -1e9, 1e9, 0);
	p->timeout = interval_key(object, p->where, "timeout", false, "1 hour");
	p->retries = number_key(object, p->where, "retries", 0, MOST_RETRIES, 0);
	p->backoff = interval_key(object, p->where, "backoff", true, "5 s");
	arguments = find_key(object, "depends_on", &v);
	p->depends_on = arguments ? texts_of(arguments, p->where, "\"depends_on\"") : NIL;
	p->precondition = text_key(object, p->where, "precondition");
	if (p->precondition != NULL)
		bcmig_check_plan_sql(psprintf("%s, precondition", p->where), p->precondition);
	p->approval = text_key(object, p->where, "approval");
	if (p->approval != NULL)
		check_role(p->where, p->approval);

	p->compensation = text_key(object, p->where, "compensation");
	if (p->compensation == NULL && step != NULL && step->compensation != NULL)
		p->compensation = pstrdup(step->compensation);
	if (p->compensation == NULL && auto_rollback && strcmp(p->type, "validation") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_PLAN),
				 errmsg("%s: it has no \"compensation\", and the plan is to take back what is done", p->where),
				 errhint("\"compensation\": a step, an SQL statement, or \"none\" where nothing has to be taken back.")));
	if (p->compensation != NULL && strcmp(p->compensation, "none") != 0)
	{
		step = bcmig_plan_step(p->compensation);
		if (step == NULL)
			bcmig_check_plan_sql(psprintf("%s, compensation", p->where), p->compensation);
		else
			check_arguments(psprintf("%s, compensation", p->where), step, DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"))));
	}
	return p;
}

/* ---- all of them ---- */

static int
by_position(const ListCell *a, const ListCell *b)
{
	const Phase *x = lfirst(a);
	const Phase *y = lfirst(b);

	return x->position < y->position ? -1 : x->position > y->position;
}

static Phase *
find_phase(List *phases, const char *name)
{
	ListCell   *lc;

	foreach(lc, phases)
	{
		if (strcmp(((Phase *) lfirst(lc))->name, name) == 0)
			return lfirst(lc);
	}
	return NULL;
}

/* behind what it depends on; "under" are those on the way here */
static void
place(Phase *p, List *all, List **order, List *under)
{
	ListCell   *lc;

	if (p->placed)
		return;
	check_stack_depth();
	if (list_member_ptr(under, p))
	{
		StringInfoData way;

		initStringInfo(&way);
		foreach(lc, under)
		{
			if (way.len > 0 || lfirst(lc) == p)
				appendStringInfo(&way, "%s, ", ((Phase *) lfirst(lc))->name);
		}
		ereport(ERROR,
				(errcode(ERRCODE_BM_PLAN),
				 errmsg("%s: it depends on itself", p->where),
				 errdetail("In a circle: %s%s.", way.data, p->name)));
	}
	under = lappend(list_copy(under), p);
	foreach(lc, p->depends_on)
	{
		Phase	   *other = find_phase(all, lfirst(lc));

		if (other == NULL)
			malformed(p->where, psprintf("it depends on phase \"%s\", which is not there", (char *) lfirst(lc)));
		place(other, all, order, under);
	}
	p->placed = true;
	*order = lappend(*order, p);
}

static List *
parse_phases(Jsonb *array, bool auto_rollback)
{
	List	   *phases = NIL;
	List	   *order = NIL;
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	ListCell   *lc;
	int			n = 0;

	if (!JB_ROOT_IS_ARRAY(array) || JB_ROOT_IS_SCALAR(array))
		malformed("phases", "it must be an array of objects");
	if (JB_ROOT_COUNT(array) == 0 || JB_ROOT_COUNT(array) > MOST_PHASES)
		malformed("phases", psprintf("there are %d, must be 1 to %d", (int) JB_ROOT_COUNT(array), MOST_PHASES));
	it = JsonbIteratorInit(&array->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		Phase	   *p;

		CHECK_FOR_INTERRUPTS();
		if (token != WJB_ELEM)
			continue;
		n++;
		if (v.type != jbvBinary || !JsonContainerIsObject(v.val.binary.data))
			malformed(psprintf("phase %d", n), "it must be an object");
		p = parse_phase(as_jsonb(&v), n, auto_rollback);
		if (find_phase(phases, p->name) != NULL)
			malformed(p->where, "there is another one of this name");
		phases = lappend(phases, p);
	}
	list_sort(phases, by_position);
	foreach(lc, phases)
		place(lfirst(lc), phases, &order, NIL);
	return order;
}

/* ---- the standard plan ---- */

static char *
json_string(const char *s)
{
	StringInfoData buf;

	initStringInfo(&buf);
	escape_json(&buf, s);
	return buf.data;
}

/* those that are a switch's */
static char *
switch_options(Jsonb *options)
{
	bcmig_sql("SELECT coalesce(jsonb_object_agg(key, value), '{}')::text FROM jsonb_each($1) WHERE key IN "
			  "(SELECT name FROM bcmig.option WHERE 'switch' = ANY (scope))", "j", jsonb_text(options));
	return bcmig_get_text(0, 1);
}

/*
 * phases => NULL.  Written as a person would, and read as that; in a catalogue
 * scope, for the options.
 */
static char *
standard_phases(const NewPlan *plan)
{
	char	   *blue = bcmig_option_value("blue", NULL, plan->options);
	char	   *company = bcmig_option_value("company", NULL, plan->options);
	char	   *schema = bcmig_option_value("target_schema", NULL, plan->options);
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoChar(&s, '[');
	if (blue != NULL)
	{
		appendStringInfo(&s, "{\"name\": \"preflight\", \"action\": \"check_environment\", \"arguments\": {\"environment\": %s}},", json_string(blue));
		appendStringInfo(&s, "{\"name\": \"schema\", \"action\": \"create_sync\", \"arguments\": {\"blue\": %s}},", json_string(blue));
		appendStringInfo(&s, "{\"name\": \"company\", \"action\": \"add_company\", \"arguments\": {\"company\": %s%s%s}},", json_string(company),
						 schema ? ", \"target_schema\": " : "", schema ? json_string(schema) : "");
	}
	else
		appendStringInfoString(&s, "{\"name\": \"preflight\", \"action\": \"preflight\"},");
	appendStringInfo(&s,
					 "{\"name\": \"copy\", \"action\": \"copy\", \"timeout\": \"7 days\"},"
					 "{\"name\": \"catch up\", \"action\": \"catch_up\", \"timeout\": \"1 day\"},"
					 "{\"name\": \"validation\", \"action\": \"validate\", \"timeout\": \"2 days\", \"retries\": 2, \"arguments\": {\"mode\": \"%s\"}},"
					 "{\"name\": \"code\", \"action\": \"make_views\"},"
					 "{\"name\": \"sequences\", \"action\": \"set_sequences\"},"
					 "{\"name\": \"settings\", \"action\": \"optimize\", \"active\": false},"
					 "{\"name\": \"gates\", \"action\": \"gates\"},",
					 bcmig_option_value("validate_mode", NULL, plan->options));
	appendStringInfo(&s, "{\"name\": \"traffic\", \"action\": \"switch_traffic\", \"timeout\": \"30 days\", \"arguments\": {%s%s%s\"options\": %s}},",
					 plan->steps ? "\"steps\": " : "", plan->steps ? plan->steps : "", plan->steps ? ", " : "", switch_options(plan->options));
	appendStringInfoString(&s,
						   "{\"name\": \"observation\", \"action\": \"observe\", \"timeout\": \"30 days\"},"
						   "{\"name\": \"cleanup\", \"action\": \"complete_sync\", \"active\": false}]");
	return s.data;
}

/* ---- the options and the syncs ---- */

static void
parse_waves(NewPlan *plan, JsonbValue *waves)
{
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	int			wave = 0;

	if (waves->type != jbvBinary || !JsonContainerIsArray(waves->val.binary.data))
		malformed("option waves", "it must be an array of arrays of names of syncs");
	it = JsonbIteratorInit(waves->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		List	   *names;
		ListCell   *lc;

		if (token != WJB_ELEM)
			continue;
		names = texts_of(&v, "option waves", psprintf("wave %d", ++wave));
		if (names == NIL)
			malformed("option waves", psprintf("wave %d is empty", wave));
		foreach(lc, names)
		{
			if (bcmig_has_text(plan->syncs, lfirst(lc)))
				malformed("option waves", psprintf("sync \"%s\" is there twice", (char *) lfirst(lc)));
			plan->syncs = lappend(plan->syncs, lfirst(lc));
			plan->waves = lappend_int(plan->waves, wave);
		}
	}
	if (wave == 0)
		malformed("option waves", "there is none");
}

/* options without the two keys that are not in bcmig.option */
static Jsonb *
take_keys(NewPlan *plan, Jsonb *options, const char *sync)
{
	JsonbValue	buf;
	JsonbValue *v;

	if (!JB_ROOT_IS_OBJECT(options))
		return options;
	v = find_key(options, "waves", &buf);
	if (v != NULL)
		parse_waves(plan, v);
	if (sync != NULL && v == NULL)
	{
		plan->syncs = list_make1(unconstify(char *, sync));
		plan->waves = list_make1_int(1);
	}
	else if (sync != NULL && !bcmig_has_text(plan->syncs, sync))
		malformed("option waves", psprintf("sync \"%s\" is in none of them", sync));
	v = find_key(options, "steps", &buf);
	if (v != NULL)
	{
		JsonbIterator *it;
		JsonbValue	e;
		JsonbIteratorToken token;
		double		before = 0;

		if (v->type != jbvBinary || !JsonContainerIsArray(v->val.binary.data))
			malformed("option steps", "it must be an array of numbers");
		plan->steps = jsonb_text(as_jsonb(v));
		it = JsonbIteratorInit(v->val.binary.data);
		while ((token = JsonbIteratorNext(&it, &e, true)) != WJB_DONE)
		{
			double		step;

			if (token != WJB_ELEM)
				continue;
			step = e.type == jbvNumeric ? DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(e.val.numeric))) : -1;
			if (!(step > before && step <= 100))
				malformed("option steps", "they must be percentages, each above the one before, up to 100");
			before = step;
		}
		if (before == 0)
			malformed("option steps", "there is none");
	}
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_delete, DirectFunctionCall2(jsonb_delete, JsonbPGetDatum(options),
																			   CStringGetTextDatum("waves")), CStringGetTextDatum("steps")));
}

/* each is there and the caller's, or a phase makes it */
static void
check_syncs(const NewPlan *plan)
{
	bool		makes = false;
	ListCell   *lc;

	foreach(lc, plan->phases)
	{
		const Phase *p = lfirst(lc);
		const BcmigPlanStep *step = bcmig_plan_step(p->action);

		makes |= p->active && strcmp(p->action, "create_sync") == 0;
		if (step != NULL && step->per_sync && plan->syncs == NIL)
			malformed(p->where, psprintf("step %s is about a sync, and the plan has none", step->name));
	}
	foreach(lc, plan->syncs)
	{
		char	   *name = lfirst(lc);
		BcmigCatalogScope scope;
		bool		there;

		bcmig_catalog_begin(&scope);
		there = bcmig_sql("SELECT FROM bcmig.sync WHERE name = $1", "t", name) > 0;
		bcmig_catalog_end(&scope);
		if (there || !makes)
			(void) bcmig_load_sync(name);
	}
}

/*
 * bcmig_create_plan(plan, sync, phases, options)
 */
Datum
bcmig_create_plan(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *name = bcmig_arg_new_name(fcinfo, 0, "plan");
	char	   *sync = bcmig_arg_optional_text(fcinfo, 1);
	Jsonb	   *phases = PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2);
	Jsonb	   *options = bcmig_arg_options(fcinfo, 3);
	Oid			owner = GetUserId();
	NewPlan		plan = {0};
	BcmigCatalogScope scope;
	Datum	   *waves;
	ListCell   *lc;
	char	   *stored;
	char	   *written;
	int			plan_id;
	int			n = 0;

	if (sync != NULL)
		sync = bcmig_arg_new_name(fcinfo, 1, "sync");
	options = take_keys(&plan, options, sync);
	bcmig_catalog_begin(&scope);
	MemoryContextSwitchTo(caller);
	plan.options = bcmig_options_merge(NULL, options, "plan");
	plan.auto_rollback = bcmig_option_bool("auto_rollback", NULL, plan.options);
	if ((bcmig_option_value("blue", NULL, plan.options) == NULL) != (bcmig_option_value("company", NULL, plan.options) == NULL))
		malformed("options", "blue and company go together");
	if (bcmig_option_value("blue", NULL, plan.options) != NULL && list_length(plan.syncs) != 1)
		malformed("options", "with blue and company the plan is about one sync");
	written = phases == NULL ? standard_phases(&plan) : NULL;
	MemoryContextSwitchTo(caller);
	if (written != NULL)
		phases = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(written)));
	stored = jsonb_text(plan.options);
	bcmig_catalog_end(&scope);
	plan.phases = parse_phases(phases, plan.auto_rollback);
	check_syncs(&plan);

	waves = palloc(sizeof(Datum) * Max(list_length(plan.waves), 1));
	foreach(lc, plan.waves)
		waves[foreach_current_index(lc)] = Int32GetDatum(lfirst_int(lc));
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("INSERT INTO bcmig.plan (name, syncs, waves, options, owner) VALUES ($1, $2, $3, $4, $5) "
				  "ON CONFLICT (name) DO NOTHING RETURNING plan_id", "tknjo", name, bcmig_text_array(plan.syncs),
				  PointerGetDatum(construct_array(waves, list_length(plan.waves), INT4OID, sizeof(int32), true, TYPALIGN_INT)),
				  stored, owner) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("plan \"%s\" exists already", name),
				 errhint("SELECT bcmig_drop_plan(%s);", quote_literal_cstr(name))));
	plan_id = bcmig_get_int64(0, 1, 0);
	foreach(lc, plan.phases)
	{
		const Phase *p = lfirst(lc);

		bcmig_sql("INSERT INTO bcmig.phase (plan_id, position, name, type, action, arguments, active, depends_on, timeout, retries, backoff, "
				  " precondition, compensation, approval) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::interval, $10, $11::interval, $12, $13, $14)",
				  "iitttjbktitttt", plan_id, ++n, p->name, p->type, p->action, p->arguments, p->active, bcmig_text_array(p->depends_on),
				  p->timeout, p->retries, p->backoff, p->precondition, p->compensation, p->approval);
	}
	bcmig_audit("command", sync, NULL, "bcmig_create_plan", psprintf("%s: %d phases", name, n));
	bcmig_catalog_end(&scope);
	PG_RETURN_INT32(n);
}

/*
 * bcmig_drop_plan(plan)
 */
Datum
bcmig_drop_plan(PG_FUNCTION_ARGS)
{
	char	   *name = bcmig_arg_text(fcinfo, 0, "plan");
	BcmigCatalogScope scope;

	(void) bcmig_plan_owner(name);
	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.plan WHERE name = $1", "t", name);
	bcmig_audit("command", NULL, NULL, "bcmig_drop_plan", name);
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

Oid
bcmig_plan_owner(const char *name)
{
	BcmigCatalogScope scope;
	Oid			owner;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT owner::oid FROM bcmig.plan WHERE name = $1", "t", name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("plan \"%s\" does not exist", name),
				 errhint("SELECT name FROM bcmig.plan;")));
	owner = (Oid) bcmig_get_int64(0, 1, InvalidOid);
	bcmig_catalog_end(&scope);
	bcmig_check_member(owner, "plan", name);
	return owner;
}
