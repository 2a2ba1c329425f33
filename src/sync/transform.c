/*-------------------------------------------------------------------------
 *
 * transform.c
 *	  Columns and rows that are not on green as they are on blue.
 *
 * Rows come from blue as the feed has them, and stay so in spools, in the
 * quarantine and in chunks' marks.  Just before they are written they are put
 * through one SELECT with the table's transforms and its row filter into a
 * second tuplestore, which is then written by the same statements as any other
 * (apply.c).  So what a person wrote runs before bcmig's own writes, not inside
 * them, and a row it fails for is found by the same halving as one green
 * refuses.  A row the filter does not want gets bc_op 'F' and is deleted.
 *
 * Keys and $systemId are never transformed: a row must be found by them.
 *
 * Expressions run as the sync's owner with search_path pg_catalog.  Plans are
 * kept until configuration changes.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "transform.h"

#include "access/xact.h"
#include "configure.h"
#include "executor/spi.h"
#include "executor/tstoreReceiver.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#define BLANK_DATE		"'1753-01-01'"
#define BATCH_ROWS		1000
#define BATCH_BYTES		(4 * 1024 * 1024)

/* ---- built-ins ---- */

typedef enum BuiltinType
{
	TAKES_DATE,
	TAKES_TEXT,
	TAKES_FLAG,
	TAKES_TIMESTAMP
} BuiltinType;

/*
 * value and inverse have %1$s for the value and %2$s for its type; an inverse
 * of one that gives NULL needs a column that is NOT NULL on blue.
 */
typedef struct Builtin
{
	const char *name;
	BuiltinType takes;
	const char *value;
	const char *strict;			/* NULL = value */
	const char *inverse;		/* NULL = none */
	bool		gives_null;
	const char *gives;			/* type of the result; NULL = as before */
} Builtin;

static const Builtin builtins[] = {
	{"blank_date", TAKES_DATE, "nullif(%1$s, " BLANK_DATE "::%2$s)", NULL, "coalesce(%1$s, " BLANK_DATE "::%2$s)", true, NULL},
	{"blank_text", TAKES_TEXT, "nullif(%1$s, '')", NULL, "coalesce(%1$s, '')", true, NULL},
	{"boolean", TAKES_FLAG, "(%1$s <> 0)",
	"CASE WHEN bcmig.exact(%1$s, (%1$s <> 0)::pg_catalog.int4::%2$s, 'boolean') THEN %1$s <> 0 END", "%1$s::pg_catalog.int4::%2$s", false, "boolean"},
	{"trim", TAKES_TEXT, "rtrim(%1$s, ' ')", NULL, NULL, false, NULL},
	{"upper", TAKES_TEXT, "upper(%1$s)", NULL, NULL, false, NULL},
	{"utc", TAKES_TIMESTAMP, "(%1$s AT TIME ZONE 'UTC')", NULL, "(%1$s AT TIME ZONE 'UTC')::%2$s", false, "timestamp with time zone"},
};

static const Builtin *
find_builtin(const char *name)
{
	for (int i = 0; i < lengthof(builtins); i++)
	{
		if (strcmp(builtins[i].name, name) == 0)
			return &builtins[i];
	}
	return NULL;
}

bool
bcmig_is_builtin(const char *name)
{
	return find_builtin(name) != NULL;
}

List *
bcmig_builtins(void)
{
	List	   *names = NIL;

	for (int i = 0; i < lengthof(builtins); i++)
		names = lappend(names, unconstify(char *, builtins[i].name));
	return names;
}

static bool
is_timestamp(const char *type)
{
	return strncmp(type, "timestamp", 9) == 0 && strstr(type, "without time zone") != NULL;
}

bool
bcmig_builtin_takes(const char *name, const char **type, const char **expected)
{
	const Builtin *b = find_builtin(name);
	const char *before = *type;

	if (b->gives != NULL)
		*type = b->gives;
	switch (b->takes)
	{
		case TAKES_DATE:
			*expected = "date or timestamp without time zone";
			return strcmp(before, "date") == 0 || is_timestamp(before);
		case TAKES_TEXT:
			*expected = "text or character varying";
			return strcmp(before, "text") == 0 || strncmp(before, "character varying", 17) == 0;
		case TAKES_FLAG:
			*expected = "smallint, integer or bigint";
			return strcmp(before, "smallint") == 0 || strcmp(before, "integer") == 0 || strcmp(before, "bigint") == 0;
		case TAKES_TIMESTAMP:
			*expected = "timestamp without time zone";
			return is_timestamp(before);
	}
	return false;				/* keep compiler quiet */
}

/* the built-ins of a column, first applied first, with the type each is given */
static int
builtins_of(const BcmigColumn *column, const Builtin ***list, const char ***types)
{
	char	   *copy = pstrdup(column->transform_value);
	int			n = 1;
	const char *type = column->source_type;
	int			i = 0;

	for (const char *p = copy; *p; p++)
		n += *p == ',';
	*list = palloc(sizeof(Builtin *) * n);
	*types = palloc(sizeof(char *) * n);
	for (char *name = strtok(copy, ","); name != NULL; name = strtok(NULL, ","))
	{
		const Builtin *b = find_builtin(name);

		if (b == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_OPTION),
					 errmsg("there is no built-in transform \"%s\"", name)));
		(*types)[i] = type;
		(*list)[i++] = b;
		if (b->gives != NULL)
			type = b->gives;
	}
	return i;
}

/* a pattern of builtins[] with value and type filled in */
static char *
fill_in(const char *pattern, const char *value, const char *type)
{
	StringInfoData s;

	initStringInfo(&s);
	for (const char *p = pattern; *p; p++)
	{
		if (*p != '%')
			appendStringInfoChar(&s, *p);
		else
		{
			appendStringInfoString(&s, p[1] == '1' ? value : type);
			p += 3;
		}
	}
	return s.data;
}

bool
bcmig_has_inverse(const BcmigColumn *column)
{
	const Builtin **list;
	const char **types;
	int			n;

	if (column->transform != BCMIG_BUILTIN)
		return column->transform == BCMIG_AS_IS;
	n = builtins_of(column, &list, &types);
	for (int i = 0; i < n; i++)
	{
		if (list[i]->inverse == NULL || (list[i]->gives_null && !column->not_null))
			return false;
	}
	return true;
}

char *
bcmig_inverse_expression(const BcmigColumn *column, const char *green)
{
	const Builtin **list;
	const char **types;
	char	   *value = pstrdup(green);

	if (!bcmig_has_inverse(column))
		return NULL;
	if (column->transform == BCMIG_BUILTIN)
	{
		for (int i = builtins_of(column, &list, &types) - 1; i >= 0; i--)
			value = fill_in(list[i]->inverse, value, types[i]);
	}
	return value;
}

char *
bcmig_transform_expression(const BcmigColumn *column, const char *source, bool strict, char **type)
{
	const Builtin **list;
	const char **types;
	const char *result = column->source_type;
	char	   *value = pstrdup(source);
	int			n;

	switch (column->transform)
	{
		case BCMIG_AS_IS:
		case BCMIG_DROP:
			break;
		case BCMIG_CONSTANT:
			value = psprintf("%s::%s", column->transform_value ? quote_literal_cstr(column->transform_value) : "NULL",
							 column->target_type);
			result = column->target_type;
			break;
		case BCMIG_BUILTIN:
			n = builtins_of(column, &list, &types);
			for (int i = 0; i < n; i++)
			{
				value = fill_in(strict && list[i]->strict ? list[i]->strict : list[i]->value, value, types[i]);
				if (list[i]->gives)
					result = list[i]->gives;
			}
			break;
		case BCMIG_SQL:
			/* the line ends a comment it may end with */
			value = psprintf("(%s\n)", column->transform_value);
			result = NULL;
			break;
	}
	if (type != NULL)
		*type = result ? pstrdup(result) : NULL;
	return value;
}

bool
bcmig_may_give_null(const BcmigColumn *column)
{
	const Builtin **list;
	const char **types;
	int			n;

	if (column->transform == BCMIG_CONSTANT)
		return column->transform_value == NULL;
	if (column->transform != BCMIG_BUILTIN)
		return column->transform == BCMIG_SQL;
	n = builtins_of(column, &list, &types);
	for (int i = 0; i < n; i++)
	{
		if (list[i]->gives_null)
			return true;
	}
	return false;
}

/* ---- the statement ---- */

bool
bcmig_has_transforms(const BcmigTableInfo *table)
{
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (table->columns[i].transform != BCMIG_AS_IS)
			return true;
	}
	return table->row_filter != NULL;
}

char **
bcmig_row_names(int ncolumns, const BcmigColumn *columns)
{
	char	  **names = palloc(sizeof(char *) * (ncolumns + 2));
	List	   *taken = NIL;

	for (int i = 0; i < ncolumns + 2; i++)
	{
		names[i] = bcmig_green_name(i < ncolumns ? columns[i].source : i == ncolumns ? "bc_op" : "bc_rowversion", taken);
		taken = lappend(taken, names[i]);
	}
	return names;
}

/*
 * Rows 'D' have a key and nothing else, those the filter does not want are not
 * to be looked at: expressions are evaluated for 'U' only.
 */
static char *
statement_text(const BcmigTableInfo *table)
{
	char	  **names = bcmig_row_names(table->ncolumns, table->columns);
	char	   *op = pstrdup(quote_identifier(names[table->ncolumns]));
	char	   *version = pstrdup(quote_identifier(names[table->ncolumns + 1]));
	StringInfoData from;
	StringInfoData s;

	initStringInfo(&from);
	appendStringInfo(&from, "SELECT w.bc_op AS %s, w.bc_rowversion AS %s", op, version);
	for (int i = 0; i < table->ncolumns; i++)
		appendStringInfo(&from, ", w.%s AS %s", quote_identifier(table->columns[i].target), quote_identifier(names[i]));
	appendStringInfoString(&from, " FROM bcmig_rows w");

	initStringInfo(&s);
	if (table->row_filter != NULL)
	{
		/* OFFSET 0: once a row, not once a column */
		appendStringInfo(&s, "SELECT CASE WHEN \"row\".%1$s = 'U' AND (%2$s\n) IS NOT TRUE THEN '%3$c' ELSE \"row\".%1$s END AS %1$s, \"row\".%4$s",
						 op, table->row_filter, BCMIG_OP_FILTERED, version);
		for (int i = 0; i < table->ncolumns; i++)
			appendStringInfo(&s, ", \"row\".%s", quote_identifier(names[i]));
		appendStringInfo(&s, " FROM (%s) AS \"row\" OFFSET 0", from.data);
		from = s;
		initStringInfo(&s);
	}
	appendStringInfo(&s, "SELECT \"row\".%s AS bc_op, \"row\".%s AS bc_rowversion", op, version);
	for (int i = 0; i < table->ncolumns; i++)
	{
		const BcmigColumn *c = &table->columns[i];
		char	   *source = psprintf("\"row\".%s", quote_identifier(names[i]));

		if (c->transform == BCMIG_DROP)
			continue;
		if (c->transform == BCMIG_AS_IS)
			appendStringInfo(&s, ", %s", source);
		else
			appendStringInfo(&s, ", CASE WHEN \"row\".%s = 'U' THEN %s END", op,
							 bcmig_transform_expression(c, source, true, NULL));
		appendStringInfo(&s, " AS %s", quote_identifier(c->target));
	}
	appendStringInfo(&s, " FROM (%s) AS \"row\"", from.data);
	return s.data;
}

/* ---- plans ---- */

typedef struct TransformPlan
{
	int			table_id;		/* must be first */
	SPIPlanPtr	plan;
} TransformPlan;

static HTAB *plans = NULL;

void
bcmig_transform_forget(void)
{
	HASH_SEQ_STATUS seq;
	TransformPlan *p;

	if (plans == NULL)
		return;
	hash_seq_init(&seq, plans);
	while ((p = hash_seq_search(&seq)) != NULL)
	{
		if (p->plan != NULL)
			SPI_freeplan(p->plan);
		hash_search(plans, &p->table_id, HASH_REMOVE, NULL);
	}
}

/* with the rows registered */
static SPIPlanPtr
plan_of(const BcmigTableInfo *table)
{
	TransformPlan *p;
	bool		found;

	if (plans == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(int);
		ctl.entrysize = sizeof(TransformPlan);
		plans = hash_create("bcmig transforms", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	p = hash_search(plans, &table->table_id, HASH_ENTER, &found);
	if (!found)
		p->plan = NULL;
	if (p->plan == NULL)
	{
		char	   *sql = statement_text(table);
		SPIPlanPtr	plan = SPI_prepare(sql, 0, NULL);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s: %s", SPI_result_code_string(SPI_result), sql);
		SPI_keepplan(plan);
		p->plan = plan;
	}
	return p->plan;
}

Tuplestorestate *
bcmig_rows_of_plan(SPIPlanPtr plan, MemoryContext context, TupleDesc *desc)
{
	SPIExecuteOptions options = {0};
	CachedPlanSource *source = linitial(SPI_plan_get_plan_sources(plan));
	MemoryContext oldcontext = MemoryContextSwitchTo(context);
	Tuplestorestate *result = tuplestore_begin_heap(true, false, work_mem);
	int			rc;

	*desc = CreateTupleDescCopy(source->resultDesc);
	MemoryContextSwitchTo(oldcontext);
	options.read_only = true;
	options.dest = CreateDestReceiver(DestTuplestore);
	SetTuplestoreDestReceiverParams(options.dest, result, context, false, NULL, NULL);
	rc = SPI_execute_plan_extended(plan, &options);
	if (rc < 0)
		elog(ERROR, "SPI_execute_plan_extended failed: %s", SPI_result_code_string(rc));
	options.dest->rDestroy(options.dest);
	return result;
}

Tuplestorestate *
bcmig_transform_rows(const BcmigTableInfo *table, Tuplestorestate *store, TupleDesc feed, TupleDesc *desc)
{
	MemoryContext caller = CurrentMemoryContext;
	Tuplestorestate *result;

	if (!bcmig_has_transforms(table))
	{
		*desc = feed;
		return store;
	}
	bcmig_register_rows(store, feed);
	result = bcmig_rows_of_plan(plan_of(table), caller, desc);
	bcmig_unregister_rows();
	return result;
}

BcmigSpool *
bcmig_transform_spool(const BcmigTableInfo *table, BcmigSpool *spool)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigSpool *result;
	MemoryContext oldcontext;

	if (!bcmig_has_transforms(table))
		return spool;
	result = palloc0(sizeof(BcmigSpool));
	*result = *spool;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	oldcontext = MemoryContextSwitchTo(caller);
	result->store = bcmig_transform_rows(table, spool->store, spool->desc, &result->desc);
	MemoryContextSwitchTo(oldcontext);
	SPI_finish();
	return result;
}

/* ---- row by row ---- */

typedef struct Each
{
	const BcmigTableInfo *table;
	TupleDesc	feed;
	MinimalTuple *rows;
	TupleDesc	types;			/* NULL = as the transforms give them */
	BcmigTransformed done;
	void	   *arg;
	MemoryContext context;
} Each;

/*
 * Cast what has no inverse to the types wanted, with the same statement as it
 * is written.  Ends "rows".
 */
static Tuplestorestate *
cast_rows(const Each *e, Tuplestorestate *rows, TupleDesc *desc)
{
	StringInfoData s;
	int			att = FEED_COLUMNS;
	Tuplestorestate *result;
	SPIPlanPtr	plan;

	initStringInfo(&s);
	appendStringInfoString(&s, "SELECT w.bc_op, w.bc_rowversion");
	for (int i = 0; i < e->table->ncolumns; i++)
	{
		const BcmigColumn *c = &e->table->columns[i];

		if (c->transform == BCMIG_DROP)
			continue;
		if (bcmig_has_inverse(c))
			appendStringInfo(&s, ", w.%s", quote_identifier(c->target));
		else
			appendStringInfo(&s, ", %s", bcmig_value_expression(c->target, TupleDescAttr(*desc, att), TupleDescAttr(e->types, i)));
		att++;
	}
	appendStringInfoString(&s, " FROM bcmig_rows w");
	bcmig_register_rows(rows, *desc);
	plan = SPI_prepare(s.data, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s: %s", SPI_result_code_string(SPI_result), s.data);
	result = bcmig_rows_of_plan(plan, e->context, desc);
	bcmig_unregister_rows();
	tuplestore_end(rows);
	return result;
}

/*
 * Rows [from, to) through the statement, in a subtransaction for the sake of
 * its abort: nothing is written in it.  NULL, with *error, when one fails.
 */
static MinimalTuple *
attempt(Each *e, int from, int to, TupleDesc *desc, ErrorData **error)
{
	ResourceOwner oldowner = CurrentResourceOwner;
	MinimalTuple *volatile results = palloc(sizeof(MinimalTuple) * (to - from));

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(e->context);
	PG_TRY();
	{
		Tuplestorestate *store = tuplestore_begin_heap(true, false, work_mem);
		TupleTableSlot *slot = MakeSingleTupleTableSlot(e->feed, &TTSOpsMinimalTuple);
		Tuplestorestate *result;

		for (int i = from; i < to; i++)
		{
			ExecStoreMinimalTuple(e->rows[i], slot, false);
			tuplestore_puttupleslot(store, slot);
		}
		ExecDropSingleTupleTableSlot(slot);
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "SPI_connect failed");
		MemoryContextSwitchTo(e->context);
		result = bcmig_transform_rows(e->table, store, e->feed, desc);
		if (e->types != NULL)
			result = cast_rows(e, result, desc);
		SPI_finish();
		MemoryContextSwitchTo(e->context);
		slot = MakeSingleTupleTableSlot(*desc, &TTSOpsMinimalTuple);
		for (int i = 0; i < to - from; i++)
		{
			if (!tuplestore_gettupleslot(result, true, false, slot))
				elog(ERROR, "a transform has lost a row");
			results[i] = ExecCopySlotMinimalTuple(slot);
		}
		ExecDropSingleTupleTableSlot(slot);
		if (result != store)
			tuplestore_end(result);
		tuplestore_end(store);
		ReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(e->context);
		CurrentResourceOwner = oldowner;
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(e->context);
		*error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(e->context);
		CurrentResourceOwner = oldowner;
		results = NULL;
	}
	PG_END_TRY();
	return results;
}

/* halved on failure, down to the row */
static void
each_range(Each *e, int from, int to)
{
	ErrorData  *error = NULL;
	TupleDesc	desc;
	MinimalTuple *results;

	CHECK_FOR_INTERRUPTS();
	results = attempt(e, from, to, &desc, &error);
	if (results != NULL)
	{
		TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);

		for (int i = from; i < to; i++)
		{
			ExecStoreMinimalTuple(results[i - from], slot, false);
			slot_getallattrs(slot);
			e->done(e->arg, i, slot);
		}
		ExecDropSingleTupleTableSlot(slot);
		return;
	}
	if (!bcmig_is_row_error(error))
		ReThrowError(error);
	if (to - from == 1)
		e->done(e->arg, from, NULL);
	else
	{
		int			middle = from + (to - from) / 2;

		each_range(e, from, middle);
		each_range(e, middle, to);
	}
}

void
bcmig_transform_each(const BcmigTableInfo *table, TupleDesc feed, MinimalTuple *rows, int n,
					 TupleDesc types, BcmigTransformed done, void *arg)
{
	Each		e = {table, feed, rows, types, done, arg, NULL};
	MemoryContext caller;

	if (n == 0)
		return;
	e.context = AllocSetContextCreate(CurrentMemoryContext, "bcmig transform", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(e.context);
	each_range(&e, 0, n);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(e.context);
}

/* where bcmig_filtered_rows() collects */
typedef struct Filtered
{
	BcmigSpool *spool;
	MinimalTuple *rows;
	TupleTableSlot *slot;
} Filtered;

static void
take_filtered(void *arg, int row, TupleTableSlot *slot)
{
	Filtered   *f = arg;

	if (slot == NULL || *VARDATA_ANY(DatumGetTextPP(slot->tts_values[FEED_OP])) != BCMIG_OP_FILTERED)
		return;
	ExecStoreMinimalTuple(f->rows[row], f->slot, false);
	tuplestore_puttupleslot(f->spool->store, f->slot);
	f->spool->upserts++;
}

BcmigSpool *
bcmig_filtered_rows(const BcmigTableInfo *table, BcmigSpool *spool)
{
	MemoryContext context;
	Filtered	f;
	TupleTableSlot *slot;
	bool		more = true;

	if (table->row_filter == NULL || spool->upserts == 0)
		return NULL;
	f.spool = palloc0(sizeof(BcmigSpool));
	f.spool->desc = spool->desc;
	f.spool->store = tuplestore_begin_heap(true, false, work_mem);
	f.slot = MakeSingleTupleTableSlot(spool->desc, &TTSOpsMinimalTuple);
	slot = MakeSingleTupleTableSlot(spool->desc, &TTSOpsMinimalTuple);
	context = AllocSetContextCreate(CurrentMemoryContext, "bcmig filtered rows", ALLOCSET_DEFAULT_SIZES);
	f.rows = palloc(sizeof(MinimalTuple) * BATCH_ROWS);
	tuplestore_select_read_pointer(spool->store, 0);
	tuplestore_rescan(spool->store);
	while (more)
	{
		MemoryContext oldcontext = MemoryContextSwitchTo(context);
		int			n = 0;
		Size		bytes = 0;

		while (n < BATCH_ROWS && bytes < BATCH_BYTES &&
			   (more = tuplestore_gettupleslot(spool->store, true, false, slot)))
		{
			f.rows[n] = ExecCopySlotMinimalTuple(slot);
			bytes += f.rows[n++]->t_len;
		}
		bcmig_transform_each(table, spool->desc, f.rows, n, NULL, take_filtered, &f);
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(context);
	}
	ExecClearTuple(f.slot);
	ExecDropSingleTupleTableSlot(f.slot);
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(context);
	return f.spool;
}
