/*-------------------------------------------------------------------------
 *
 * flow_fields.c
 *	  FlowFields of Business Central's standard tables, as SQL.
 *
 * A FlowField has no column: Business Central computes it from other tables
 * whenever it is shown.  Their formulas are code of the Base Application, not
 * data, so those users look at most are listed here, names as AL spells them.
 * One is made where every table and column it needs is there, in the same
 * schema and of the same company.
 *
 * A FlowField that depends on a date is a function with dates as parameters,
 * the others are columns of the view of their table.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "readable.h"

#include "bc_names.h"
#include "utils/builtins.h"

#define MAX_CONDITIONS	4

typedef enum Aggregate
{
	SUM,
	MINUS_SUM,
	EXIST,
	LOOKUP
} Aggregate;

/* column = field of the table itself, or = the value of that name, or = number */
typedef struct Condition
{
	const char *column;
	const char *field;
	const char *value;
	int			number;
	bool		if_there;		/* left out where there is no such column */
} Condition;

typedef enum Dates
{
	ALWAYS,						/* no date: a column of the view */
	AT_DATE,					/* up to a date */
	PERIOD						/* from one date to another */
} Dates;

typedef struct FlowField
{
	const char *table;
	const char *name;
	Aggregate	aggregate;
	const char *from;
	const char *column;
	Condition	where[MAX_CONDITIONS];
	Dates		dates;
	const char *date;			/* what the date filter is on */
	const char *totaling;		/* field with a filter that takes the place of where[0] */
} FlowField;

/* a condition on a column that is there: = field of the table itself, or = number */
typedef struct BoundCondition
{
	const BcmigReadColumn *column;
	const BcmigReadColumn *field;	/* NULL: number */
	int			number;
	const Condition *condition;
} BoundCondition;

/* a FlowField over tables that have all it needs */
typedef struct Bound
{
	const FlowField *f;
	BcmigReadTable *from;
	const BcmigReadColumn *column;
	const BcmigReadColumn *date;
	const BcmigReadColumn *totaling;
	int			nconditions;
	BoundCondition where[MAX_CONDITIONS];	/* the first is f->where[0] */
} Bound;

#define NOT_EXCLUDED	{"Excluded from calculation", .number = 0, .if_there = true}

#define OF_CUSTOMER		"Detailed Cust. Ledg. Entry"
#define OF_VENDOR		"Detailed Vendor Ledg. Entry"

/* the comments of a master record: the value of "Table Name" is found by its name */
#define COMMENT_OF(table) \
	{table, "Comment", EXIST, "Comment Line", NULL, {{"Table Name", .value = table}, {"No.", "No."}}}

/* the same on entries of customers and vendors */
#define LEDGER_ENTRY(table, from, entry) \
	{table, "Amount", SUM, from, "Amount", {{entry, "Entry No."}, {"Ledger Entry Amount", .number = 1}}}, \
	{table, "Amount (LCY)", SUM, from, "Amount (LCY)", {{entry, "Entry No."}, {"Ledger Entry Amount", .number = 1}}}, \
	{table, "Remaining Amount", SUM, from, "Amount", {{entry, "Entry No."}, NOT_EXCLUDED}}, \
	{table, "Remaining Amt. (LCY)", SUM, from, "Amount (LCY)", {{entry, "Entry No."}, NOT_EXCLUDED}}, \
	{table, "Original Amount", SUM, from, "Amount", {{entry, "Entry No."}, {"Entry Type", .number = 1}, NOT_EXCLUDED}}

#define GL_ACCOUNT(name, column, ...) \
	{"G/L Account", name, SUM, "G/L Entry", column, {{"G/L Account No.", "No."}}, .totaling = "Totaling", __VA_ARGS__}

static const FlowField flow_fields[] =
{
	GL_ACCOUNT("Balance", "Amount", .dates = ALWAYS),
	GL_ACCOUNT("Debit Amount", "Debit Amount", .dates = ALWAYS),
	GL_ACCOUNT("Credit Amount", "Credit Amount", .dates = ALWAYS),
	GL_ACCOUNT("Balance at Date", "Amount", .dates = AT_DATE, .date = "Posting Date"),
	GL_ACCOUNT("Net Change", "Amount", .dates = PERIOD, .date = "Posting Date"),
	COMMENT_OF("G/L Account"),

	{"Customer", "Balance", SUM, OF_CUSTOMER, "Amount", {{"Customer No.", "No."}, NOT_EXCLUDED}},
	{"Customer", "Balance (LCY)", SUM, OF_CUSTOMER, "Amount (LCY)", {{"Customer No.", "No."}, NOT_EXCLUDED}},
	{"Customer", "Net Change (LCY)", SUM, OF_CUSTOMER, "Amount (LCY)", {{"Customer No.", "No."}, NOT_EXCLUDED}, PERIOD, "Posting Date"},
	{"Customer", "Balance Due (LCY)", SUM, OF_CUSTOMER, "Amount (LCY)", {{"Customer No.", "No."}, NOT_EXCLUDED}, AT_DATE, "Initial Entry Due Date"},
	{"Customer", "Sales (LCY)", SUM, "Cust. Ledger Entry", "Sales (LCY)", {{"Customer No.", "No."}}},
	{"Customer", "Profit (LCY)", SUM, "Cust. Ledger Entry", "Profit (LCY)", {{"Customer No.", "No."}}},
	{"Customer", "Payments (LCY)", MINUS_SUM, OF_CUSTOMER, "Amount (LCY)",
	{{"Customer No.", "No."}, {"Initial Document Type", .number = 1}, {"Entry Type", .number = 1}, NOT_EXCLUDED}},
	{"Customer", "Outstanding Orders (LCY)", SUM, "Sales Line", "Outstanding Amount (LCY)",
	{{"Bill-to Customer No.", "No."}, {"Document Type", .number = 1}}},
	COMMENT_OF("Customer"),

	{"Vendor", "Balance", MINUS_SUM, OF_VENDOR, "Amount", {{"Vendor No.", "No."}, NOT_EXCLUDED}},
	{"Vendor", "Balance (LCY)", MINUS_SUM, OF_VENDOR, "Amount (LCY)", {{"Vendor No.", "No."}, NOT_EXCLUDED}},
	COMMENT_OF("Vendor"),

	LEDGER_ENTRY("Cust. Ledger Entry", OF_CUSTOMER, "Cust. Ledger Entry No."),
	LEDGER_ENTRY("Vendor Ledger Entry", OF_VENDOR, "Vendor Ledger Entry No."),

	{"Item", "Inventory", SUM, "Item Ledger Entry", "Quantity", {{"Item No.", "No."}}},
	{"Item", "Net Invoiced Qty.", SUM, "Item Ledger Entry", "Invoiced Quantity", {{"Item No.", "No."}}},
	{"Item", "Qty. on Sales Order", SUM, "Sales Line", "Outstanding Qty. (Base)",
	{{"No.", "No."}, {"Document Type", .number = 1}, {"Type", .number = 2}}},
	{"Item", "Qty. on Purch. Order", SUM, "Purchase Line", "Outstanding Qty. (Base)",
	{{"No.", "No."}, {"Document Type", .number = 1}, {"Type", .number = 2}}},
	COMMENT_OF("Item"),

	{"Item Ledger Entry", "Cost Amount (Actual)", SUM, "Value Entry", "Cost Amount (Actual)", {{"Item Ledger Entry No.", "Entry No."}}},
	{"Item Ledger Entry", "Cost Amount (Expected)", SUM, "Value Entry", "Cost Amount (Expected)", {{"Item Ledger Entry No.", "Entry No."}}},
	{"Item Ledger Entry", "Sales Amount (Actual)", SUM, "Value Entry", "Sales Amount (Actual)", {{"Item Ledger Entry No.", "Entry No."}}},

	{"Bank Account", "Balance", SUM, "Bank Account Ledger Entry", "Amount", {{"Bank Account No.", "No."}}},
	COMMENT_OF("Bank Account"),

	{"Sales Header", "Amount", SUM, "Sales Line", "Amount", {{"Document Type", "Document Type"}, {"Document No.", "No."}}},
	{"Sales Header", "Amount Including VAT", SUM, "Sales Line", "Amount Including VAT", {{"Document Type", "Document Type"}, {"Document No.", "No."}}},
	{"Sales Invoice Header", "Amount", SUM, "Sales Invoice Line", "Amount", {{"Document No.", "No."}}},
	{"Sales Invoice Header", "Remaining Amount", SUM, OF_CUSTOMER, "Amount", {{"Cust. Ledger Entry No.", "Cust. Ledger Entry No."}}},
};

/* what two columns must share to be compared */
static char
family(const BcmigReadColumn *c)
{
	if (strcmp(c->type, "smallint") == 0 || strcmp(c->type, "integer") == 0 || strcmp(c->type, "bigint") == 0)
		return 'i';
	if (strcmp(c->type, "text") == 0 || strncmp(c->type, "character varying", 17) == 0)
		return 't';
	if (strncmp(c->type, "numeric", 7) == 0)
		return 'n';
	return strncmp(c->type, "timestamp", 9) == 0 ? 'd' : 'x';
}

static const char *
column_of(const char *alias, const BcmigReadColumn *c)
{
	return psprintf("%s.%s", alias, quote_identifier(c->target));
}

/*
 * The number that stands for a value of an Option or Enum, by its name in AL.
 */
static bool
find_value(const BcmigReadTable *t, const BcmigReadColumn *c, const char *name, int *number)
{
	BcmigCatalogScope scope;
	bool		found;

	bcmig_catalog_begin(&scope);
	found = bcmig_sql("SELECT value FROM bcmig.enum_value WHERE table_id = $1 AND ordinal = $2 AND name = $3",
					  "iit", t->table_id, c->ordinal, name) == 1;
	if (found)
		*number = bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);
	return found;
}

/*
 * One more condition; false = it cannot be asked.
 */
static bool
bind_condition(Bound *bound, const Condition *w, BcmigReadTable *t)
{
	BoundCondition b = {.condition = w, .number = w->number};

	b.column = bcmig_find_column(bound->from, w->column);
	if (b.column == NULL)
		return w->if_there;
	if (w->field != NULL)
	{
		b.field = bcmig_find_column(t, w->field);
		if (b.field == NULL || family(b.field) != family(b.column))
			return false;
	}
	else if (family(b.column) != 'i' || (w->value != NULL && !find_value(bound->from, b.column, w->value, &b.number)))
		return false;
	bound->where[bound->nconditions++] = b;
	return true;
}

/*
 * A FlowField of table t over one table that may be the one it needs; false =
 * it is not.
 */
static bool
bind_over(Bound *bound, const FlowField *f, BcmigReadTable *t, BcmigReadTable *from)
{
	memset(bound, 0, sizeof(*bound));
	bound->f = f;
	bound->from = from;
	bound->column = f->column ? bcmig_find_column(from, f->column) : NULL;
	bound->date = f->date ? bcmig_find_column(from, f->date) : NULL;
	bound->totaling = f->totaling ? bcmig_find_column(t, f->totaling) : NULL;
	if (f->column != NULL && (bound->column == NULL || family(bound->column) != (f->aggregate == LOOKUP ? 't' : 'n')))
		return false;
	if (f->date != NULL && (bound->date == NULL || family(bound->date) != 'd'))
		return false;
	if (f->totaling != NULL && (bound->totaling == NULL || family(bound->totaling) != 't'))
		return false;
	for (int i = 0; i < MAX_CONDITIONS && f->where[i].column != NULL; i++)
	{
		if (!bind_condition(bound, &f->where[i], t))
			return false;
	}
	return true;
}

/*
 * A FlowField of table t, where what it needs is there.  Two apps may have a
 * table of the same name.
 */
static bool
bind(Bound *bound, const FlowField *f, BcmigReadTable *t, List *tables)
{
	ListCell   *lc;

	foreach(lc, tables)
	{
		BcmigReadTable *from = lfirst(lc);

		if (from == t || from->al_table == NULL || strcmp(from->schema, t->schema) != 0 ||
			strcmp(from->company ? from->company : "", t->company ? t->company : "") != 0 ||
			!bcmig_same_name(f->from, from->al_table))
			continue;
		if (bind_over(bound, f, t, from))
			return true;
	}
	return false;
}

/* ---- as an expression over its table ---- */

/*
 * One condition appended to sql, and to formula as AL writes it.
 */
static void
add_condition(StringInfo sql, StringInfo formula, const BoundCondition *b)
{
	const char *comma = formula->len > 0 ? ", " : "";

	if (b->field != NULL)
	{
		appendStringInfo(sql, " AND %s = %s", column_of("s", b->column), column_of("t", b->field));
		appendStringInfo(formula, "%s\"%s\" = field(\"%s\")", comma, b->condition->column, b->condition->field);
		return;
	}
	appendStringInfo(sql, " AND %s = %d", column_of("s", b->column), b->number);
	appendStringInfo(formula, "%s\"%s\" = const(%d)", comma, b->condition->column, b->number);
}

/*
 * What a date filter lets through.  A filter up to a day does not let its
 * closing date through, which comes after the day; include_closing does.  A
 * bound that is NULL is none.
 */
static void
add_dates(StringInfo sql, const FlowField *f, const BcmigReadColumn *date)
{
	if (f->dates == PERIOD)
		appendStringInfo(sql, " AND %s >= coalesce($2::timestamp, '-infinity')", column_of("s", date));
	if (f->dates != ALWAYS)
		appendStringInfo(sql, " AND %s <= coalesce(%s + CASE WHEN %s THEN '23:59:59' ELSE '00:00' END::interval, 'infinity')",
						 column_of("s", date), f->dates == PERIOD ? "$3" : "$2", f->dates == PERIOD ? "$4" : "$3");
}

/*
 * A total: what the filter in "totaling" selects, where that is set.  Ranges
 * and alternatives are understood, as BC compares Codes of digits and capital
 * letters; any other operator makes it NULL rather than wrong.
 *
 * Entries are summed by account once for all rows of the view.
 */
static char *
total(const char *simple, const char *totaling, const char *account, const char *amount, const char *from, const char *where)
{
	return psprintf("CASE WHEN %s = '' THEN %s "
					"WHEN %s ~ '[&*?@<>=()''\"%%]|\\.\\.\\.|\\.\\.[^|]*\\.\\.' THEN NULL "
					"ELSE (WITH a AS MATERIALIZED (SELECT %s AS account, sum(%s) AS amount FROM %s s WHERE true%s GROUP BY 1) "
					"SELECT coalesce(trim_scale(sum(a.amount)), 0) FROM a "
					"WHERE EXISTS (SELECT FROM unnest(string_to_array(upper(%s), '|')) p (part) "
					"WHERE CASE WHEN strpos(p.part, '..') = 0 THEN a.account = btrim(p.part) "
					"ELSE a.account COLLATE \"C\" >= btrim(split_part(p.part, '..', 1)) "
					"AND (btrim(split_part(p.part, '..', 2)) = '' "
					"OR a.account COLLATE \"C\" <= btrim(split_part(p.part, '..', 2))) END)) END",
					totaling, simple, totaling, account, amount, from, where, totaling);
}

static BcmigComputed *
flow_field(const FlowField *f, BcmigReadTable *t, List *tables)
{
	BcmigComputed *result;
	Bound		bound;
	const char *base;
	const char *minus = f->aggregate == MINUS_SUM ? "-" : "";
	StringInfoData own;			/* where[0] */
	StringInfoData where;		/* the others, dates too */
	StringInfoData formula;

	if (!bind(&bound, f, t, tables))
		return NULL;
	base = quote_qualified_identifier(bound.from->schema, bound.from->name);
	initStringInfo(&own);
	initStringInfo(&where);
	initStringInfo(&formula);
	for (int i = 0; i < bound.nconditions; i++)
		add_condition(i == 0 ? &own : &where, &formula, &bound.where[i]);
	add_dates(&where, f, bound.date);

	result = palloc0(sizeof(BcmigComputed));
	result->al_name = f->name;
	switch (f->aggregate)
	{
		case EXIST:
			result->expression = psprintf("EXISTS (SELECT FROM %s s WHERE true%s%s)", base, own.data, where.data);
			result->formula = psprintf("exist(\"%s\" where(%s))", f->from, formula.data);
			break;
		case LOOKUP:
			result->expression = psprintf("(SELECT coalesce(min(%s), '') FROM %s s WHERE true%s%s)",
										  column_of("s", bound.column), base, own.data, where.data);
			result->formula = psprintf("lookup(\"%s\".\"%s\" where(%s))", f->from, f->column, formula.data);
			break;
		case SUM:
		case MINUS_SUM:
			result->expression = psprintf("(SELECT coalesce(trim_scale(%ssum(%s)), 0) FROM %s s WHERE true%s%s)",
										  minus, column_of("s", bound.column), base, own.data, where.data);
			result->formula = psprintf("%ssum(\"%s\".\"%s\" where(%s))", minus, f->from, f->column, formula.data);
			break;
	}
	if (bound.totaling != NULL)
	{
		result->expression = total(result->expression, column_of("t", bound.totaling),
								   column_of("s", bound.where[0].column),
								   column_of("s", bound.column), base, where.data);
		result->formula = psprintf("%s; where \"%s\" is set, its filter in place of the first condition (NULL for filters with other operators than .. and |)",
								   result->formula, f->totaling);
	}
	return result;
}

/*
 * The codes of dimensions a record does not hold itself.  Business Central
 * stores the first two of most records, under one of two names.
 */
static List *
dimensions(BcmigReadTable *t, List *tables)
{
	List	   *result = NIL;

	if (bcmig_find_column(t, "Dimension Set ID") == NULL)
		return NIL;
	for (int n = 1; n <= 8; n++)
	{
		char	   *name = psprintf("Shortcut Dimension %d Code", n);
		FlowField	f = {NULL, name, LOOKUP, "Dimension Set Entry", "Dimension Value Code",
		{{"Dimension Set ID", "Dimension Set ID"}, {"Global Dimension No.", .number = n}}};
		BcmigComputed *dimension;

		if (bcmig_find_column(t, name) != NULL || bcmig_find_column(t, psprintf("Global Dimension %d Code", n)) != NULL)
			continue;
		dimension = flow_field(&f, t, tables);
		if (dimension != NULL)
			result = lappend(result, dimension);
	}
	return result;
}

/*
 * What the view of a table has besides its columns: BcmigComputed *.
 */
List *
bcmig_flow_fields(BcmigReadTable *t, List *tables)
{
	List	   *result;

	if (t->al_table == NULL)
		return NIL;
	result = dimensions(t, tables);
	for (int i = 0; i < lengthof(flow_fields); i++)
	{
		const FlowField *f = &flow_fields[i];
		BcmigComputed *computed;

		if (f->dates != ALWAYS || !bcmig_same_name(f->table, t->al_table))
			continue;
		computed = flow_field(f, t, tables);
		if (computed != NULL)
			result = lappend(result, computed);
	}
	return result;
}

/*
 * Functions for those that depend on dates, as statements: <table>_<field>(key,
 * dates), NULL for a record that is not there.
 */
void
bcmig_flow_functions(StringInfo sql, BcmigReadTable *t, List *tables, const char *schema)
{
	if (t->al_table == NULL)
		return;
	for (int i = 0; i < lengthof(flow_fields); i++)
	{
		const FlowField *f = &flow_fields[i];
		const BcmigReadColumn *key;
		BcmigComputed *computed;
		char	   *name;
		char	   *dates;

		if (f->dates == ALWAYS || !bcmig_same_name(f->table, t->al_table))
			continue;
		computed = flow_field(f, t, tables);
		if (computed == NULL)
			continue;
		key = bcmig_find_column(t, f->where[0].field);
		name = bcmig_green_name(psprintf(t->snake ? "%s_%s" : "%s %s", t->name, bcmig_readable_name(t, f->name)), NIL);
		name = pstrdup(quote_qualified_identifier(schema, name));
		dates = f->dates == AT_DATE ? "at date" : "from_date date, to_date date";
		appendStringInfo(sql, "CREATE OR REPLACE FUNCTION %s(no text, %s, include_closing boolean DEFAULT false) RETURNS numeric "
						 "LANGUAGE sql STABLE PARALLEL SAFE BEGIN ATOMIC SELECT %s FROM %s t WHERE %s = $1; END;",
						 name, dates, computed->expression, quote_qualified_identifier(t->schema, t->name), column_of("t", key));
		dates = f->dates == AT_DATE ? "date" : "date, date";
		appendStringInfo(sql, "REVOKE ALL ON FUNCTION %s(text, %s, boolean) FROM PUBLIC;", name, dates);
		appendStringInfo(sql, "COMMENT ON FUNCTION %s(text, %s, boolean) IS %s;", name, dates,
						 quote_literal_cstr(psprintf("bcmig: \"%s\" of Business Central: %s, \"%s\" as its date filter; a closing date comes after its day, include_closing takes that of the last day in",
													 f->name, computed->formula, f->date)));
	}
}

/*
 * The sums that need no date, for all records of the table at once; a total is
 * made of the sums of other records.
 */
List *
bcmig_flow_sums(BcmigReadTable *t, List *tables)
{
	List	   *result = NIL;

	for (int i = 0; i < lengthof(flow_fields); i++)
	{
		const FlowField *f = &flow_fields[i];
		BcmigFlowSum *sum;
		Bound		bound;

		if (f->dates != ALWAYS || (f->aggregate != SUM && f->aggregate != MINUS_SUM) ||
			!bcmig_same_name(f->table, t->al_table) || !bind(&bound, f, t, tables))
			continue;
		sum = palloc0(sizeof(BcmigFlowSum));
		sum->al_name = f->name;
		sum->al_table = f->table;
		sum->from = bound.from;
		sum->column = bound.column;
		sum->negative = f->aggregate == MINUS_SUM;
		for (int k = 0; k < bound.nconditions; k++)
		{
			const BoundCondition *b = &bound.where[k];

			if (b->field != NULL)
				sum->keys = lappend(sum->keys, unconstify(BcmigReadColumn *, b->column));
			else
			{
				sum->filters = lappend(sum->filters, unconstify(BcmigReadColumn *, b->column));
				sum->numbers = lappend_int(sum->numbers, b->number);
			}
		}
		result = lappend(result, sum);
	}
	return result;
}
