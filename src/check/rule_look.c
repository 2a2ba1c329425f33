/*-------------------------------------------------------------------------
 *
 * rule_look.c
 *	  Running the query of a rule once.
 *
 * It is user SQL: it runs as the sync's owner in a read-only transaction of its
 * own, under a timeout, and whatever it raises is its result.
 *
 * A row is known again by the hash of its text.
 *
 * A calculated field has a query for blue as well: its rows are collected in a
 * tuplestore, which goes to disk when it is big, and joined with green's by
 * PostgreSQL.  A sum is known again by its key: where sums move all the time
 * some differ at every look, but not the same ones.  One that was equal at the
 * look before is right as of then, whatever it does now.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "rule.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "remote.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/tuplestore.h"

#define EXAMPLES		20
#define MOST_ROWS		100000	/* counted */
#define ROWS_AT_A_TIME	100
#define BLUE_SUMS		"bcmig_blue_sums"

typedef struct RowId
{
	uint64		hash[2];
} RowId;

/* a row of BcmigRuleLook.rows */
typedef struct Row
{
	RowId		id;				/* of the row, of the key of a sum; must be first */
	RowId		whole;
} Row;

/* an example on its way: texts longer than a screen are cut */
#define CUT_TEXTS \
	"SELECT coalesce(jsonb_object_agg(key, CASE WHEN length(value #>> '{}') > 1000 " \
	" THEN to_jsonb(left(value #>> '{}', 1000) || '...') ELSE value END), '{}')::text FROM jsonb_each($1::jsonb)"

static char *
cut_texts(char *json)
{
	Oid			type = TEXTOID;
	Datum		value = CStringGetTextDatum(json);

	if (SPI_execute_with_args(CUT_TEXTS, 1, &type, &value, NULL, true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not shorten a row");
	return bcmig_get_text(0, 1);
}

static RowId
row_id(const char *text)
{
	int			len = strlen(text);
	RowId		id;

	id.hash[0] = hash_bytes_extended((const unsigned char *) text, len, 1);
	id.hash[1] = hash_bytes_extended((const unsigned char *) text, len, 2);
	return id;
}

/* one row of the query; "key" is that of a sum, else NULL */
static void
take_row(BcmigRuleLook *look, const BcmigRuleLook *before, StringInfo examples, int *nexamples, bool *only_again,
		 const char *key, char *json)
{
	RowId		whole = row_id(json);
	RowId		id = key ? row_id(key) : whole;
	bool		found = false;

	if (before != NULL)
	{
		const Row  *row = hash_search(before->rows, &id, HASH_FIND, NULL);

		if (key != NULL && row == NULL && before->all)
			return;
		found = row ? memcmp(&row->whole, &whole, sizeof(RowId)) == 0 : !before->all;
	}
	((Row *) hash_search(look->rows, &id, HASH_ENTER, NULL))->whole = whole;
	look->failing++;
	look->again += found;

	/* those that have been there before say more than those that may be on their way */
	if (found && !*only_again)
	{
		*only_again = true;
		*nexamples = 0;
		resetStringInfo(examples);
	}
	if (*nexamples < EXAMPLES && (found || !*only_again))
		appendStringInfo(examples, "%s%s", (*nexamples)++ ? "," : "", cut_texts(json));
}

static void
run_query(BcmigRuleLook *look, const BcmigRuleLook *before, SPIPlanPtr plan, bool sums)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bcmig rule rows", ALLOCSET_DEFAULT_SIZES);
	MemoryContext oldcontext;
	Portal		portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	StringInfoData examples;
	int			nexamples = 0;
	bool		only_again = false;
	uint64		n;

	oldcontext = MemoryContextSwitchTo(look->context);
	initStringInfo(&examples);
	MemoryContextSwitchTo(oldcontext);
	do
	{
		SPITupleTable *rows;

		SPI_cursor_fetch(portal, true, ROWS_AT_A_TIME);
		rows = SPI_tuptable;
		n = SPI_processed;
		oldcontext = MemoryContextSwitchTo(context);
		for (uint64 i = 0; i < n; i++)
		{
			Datum		row = heap_copy_tuple_as_datum(rows->vals[i], BlessTupleDesc(rows->tupdesc));

			CHECK_FOR_INTERRUPTS();
			take_row(look, before, &examples, &nexamples, &only_again, sums ? SPI_getvalue(rows->vals[i], rows->tupdesc, 1) : NULL,
					 text_to_cstring(DatumGetTextPP(DirectFunctionCall1(row_to_json, row))));
		}
		MemoryContextSwitchTo(oldcontext);
		MemoryContextReset(context);
		SPI_freetuptable(rows);
	} while (n == ROWS_AT_A_TIME && look->failing < MOST_ROWS);
	look->all = n < ROWS_AT_A_TIME;
	if (look->failing > 0)
	{
		oldcontext = MemoryContextSwitchTo(look->context);
		look->examples = psprintf("[%s]", examples.data);
		MemoryContextSwitchTo(oldcontext);
	}
	SPI_cursor_close(portal);
}

/* ---- calculated fields ---- */

typedef struct BlueSums
{
	Tuplestorestate *store;
	TupleDesc	desc;
} BlueSums;

static void
take_sum(void *arg, char **row)
{
	BlueSums   *sums = arg;
	Datum		values[2];
	bool		nulls[2];

	for (int i = 0; i < 2; i++)
	{
		nulls[i] = row[i] == NULL;
		values[i] = nulls[i] ? (Datum) 0 : CStringGetTextDatum(row[i]);
	}
	tuplestore_putvalues(sums->store, sums->desc, values, nulls);
}

/* blue's rows, as a relation this SPI connection can query */
static void
read_blue(const BcmigRule *rule, Oid feed)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));
	BlueSums	sums;

	sums.desc = CreateTemplateTupleDesc(2);
	TupleDescInitEntry(sums.desc, 1, "key", TEXTOID, -1, 0);
	TupleDescInitEntry(sums.desc, 2, "value", TEXTOID, -1, 0);
	sums.store = tuplestore_begin_heap(true, false, work_mem);
	bcmig_remote_each_text(feed, rule->blue_query, take_sum, &sums);
	relation->md.name = BLUE_SUMS;
	relation->md.tupdesc = sums.desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = tuplestore_tuple_count(sums.store);
	relation->reldata = sums.store;
	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the rows of blue");
}

/* where the two sides differ; a group that is not there has the sum 0 */
static char *
differing_sums(const BcmigRule *rule)
{
	return psprintf("SELECT key, trim_scale(coalesce(b.value, 0)) AS blue, trim_scale(coalesce(g.value, 0)) AS green "
					"FROM (SELECT x.key::text[], x.value::numeric FROM " BLUE_SUMS " x) b (key, value) "
					"FULL JOIN (%s) g (key, value) USING (key) WHERE coalesce(b.value, 0) <> coalesce(g.value, 0)",
					rule->query);
}

/* ---- a look ---- */

typedef struct LookAt
{
	BcmigRuleLook *look;
	int			sync_id;
	const BcmigRule *rule;
	Oid			feed;
	int			timeout;		/* ms */
	const BcmigRuleLook *before;
} LookAt;

static void
look_at(void *arg)
{
	const LookAt *at = arg;
	BcmigRuleLook *look = at->look;
	const BcmigRule *rule = at->rule;
	MemoryContext oldcontext;
	BcmigReads	reads;
	List	   *tables;
	bool		others;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (rule->blue_query != NULL)
		read_blue(rule, at->feed);
	enable_timeout_after(STATEMENT_TIMEOUT, at->timeout);
	run_query(look, at->before,
			  bcmig_prepare_user_query(bcmig_rule_query(rule->name, rule->blue_query ? differing_sums(rule) : rule->query), NULL),
			  rule->blue_query != NULL);
	disable_timeout(STATEMENT_TIMEOUT, false);
	if (look->failing > 0)
	{
		(void) bcmig_prepare_user_query(bcmig_rule_query(rule->name, rule->query), &reads);
		tables = bcmig_tables_read(at->sync_id, &reads, &others);
		oldcontext = MemoryContextSwitchTo(look->context);
		look->tables = list_copy(tables);
		look->others = others;
		MemoryContextSwitchTo(oldcontext);
	}
	SPI_finish();
}

BcmigRuleLook *
bcmig_look_at_rule(int sync_id, const BcmigRule *rule, Oid feed, int timeout, const BcmigRuleLook *before)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "bcmig rule look", ALLOCSET_DEFAULT_SIZES);
	BcmigRuleLook *look = MemoryContextAllocZero(context, sizeof(BcmigRuleLook));
	LookAt		at = {look, sync_id, rule, feed, timeout, before};
	HASHCTL		ctl = {0};
	ErrorData  *error;

	look->context = context;
	ctl.keysize = sizeof(RowId);
	ctl.entrysize = sizeof(Row);
	ctl.hcxt = context;
	look->rows = hash_create("bcmig failing rows", 64, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	error = bcmig_read_only(look_at, &at);
	if (error != NULL)
	{
		MemoryContextSwitchTo(context);
		look->error = bcmig_error_text(error, true);
		look->blue_failed = bcmig_remote_failed(error);
		MemoryContextSwitchTo(caller);
	}
	return look;
}
