/*-------------------------------------------------------------------------
 *
 * remote.c
 *	  Running a statement on blue through a feed: one plan, many statements.
 *
 * A feed is a foreign table nobody ever scans as it stands.  It is planned
 * once as SELECT * FROM feed; to run a statement, a copy of that plan gets the
 * statement's text in place of the text the wrapper deparsed, and is executed
 * into the caller's DestReceiver.  Both wrappers we work with keep that text as
 * the first member of ForeignScan.fdw_private; postgres_fdw keeps its
 * fetch_size as the third (postgres_fdw.c, enum FdwScanPrivateIndex).  That is
 * no interface, so the shape is checked to the letter before it is touched.
 *
 * Planning and name look-up run as the owner of schema bcmig; execution as the
 * current user, whose user mapping is used and who must own the feed.
 *
 * Memory: plans are kept by SPI for the life of the process; the copy lives in
 * the caller's context until the statement is done.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "remote.h"

#include "catalog.h"
#include "catalog/pg_type.h"
#include "dialect.h"
#include "executor/executor.h"
#include "foreign/foreign.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "nodes/value.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"

#define TEXT_FEED_COLUMNS	8

/* of the rows of one answer: a blue that never ends must not take all memory */
#define ANSWER_LIMIT		((Size) 512 * 1024 * 1024)

bool		bcmig_remote_running = false;

/* feed -> kept plan */
typedef struct FeedPlan
{
	Oid			feed;			/* must be first */
	SPIPlanPtr	plan;
} FeedPlan;

static HTAB *feed_plans = NULL;

/*
 * The kept plan of a feed, planned on first use.  Inside SPI, as catalogue
 * owner.
 */
static SPIPlanPtr
feed_plan(Oid feed)
{
	FeedPlan   *entry;
	bool		found;

	if (feed_plans == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(Oid);
		ctl.entrysize = sizeof(FeedPlan);
		feed_plans = hash_create("bcmig feed plans", 64, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	entry = hash_search(feed_plans, &feed, HASH_ENTER, &found);
	if (!found)
		entry->plan = NULL;
	if (entry->plan == NULL)
	{
		char	   *name = get_rel_name(feed);
		char	   *sql;
		SPIPlanPtr	plan;

		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_FEED_SHAPE),
					 errmsg("feed with OID %u is gone", feed)));
		sql = psprintf("SELECT * FROM %s",
					   quote_qualified_identifier(get_namespace_name(get_rel_namespace(feed)), name));
		plan = SPI_prepare(sql, 0, NULL);
		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s", SPI_result_code_string(SPI_result));
		SPI_keepplan(plan);
		entry->plan = plan;
	}
	return entry->plan;
}

static void
bad_shape(Oid feed, const char *what)
{
	ForeignServer *server = GetForeignServer(GetForeignTable(feed)->serverid);
	ForeignDataWrapper *fdw = GetForeignDataWrapper(server->fdwid);

	ereport(ERROR,
			(errcode(ERRCODE_BM_FEED_SHAPE),
			 errmsg("the plan of feed \"%s\" is not what bcmig expects of %s",
					get_rel_name(feed), fdw->fdwname),
			 errdetail("%s", what),
			 errhint("This version of bcmig was made for postgres_fdw of PostgreSQL 14 to 18 and tds_fdw 2.0; check SELECT * FROM pg_available_extensions WHERE name = '%s', and that nobody altered the feed.",
					 fdw->fdwname)));
}

/*
 * Replace statement and fetch size in a copied plan.
 */
static void
retarget(PlannedStmt *pstmt, Oid feed, const BcmigDialect *dialect, const char *sql, int fetch_size)
{
	ForeignScan *scan = (ForeignScan *) pstmt->planTree;
	char	   *text;

	if (!IsA(scan, ForeignScan))
		bad_shape(feed, "The top of the plan is not a foreign scan.");
	if (list_length(scan->fdw_private) < 2 || !IsA(linitial(scan->fdw_private), String))
		bad_shape(feed, "The scan does not start with the text of its statement.");
	text = strVal(linitial(scan->fdw_private));
	if (!dialect->is_feed_text(get_rel_name(feed), text))
		bad_shape(feed, psprintf("Its statement is \"%s\".", text));
	linitial(scan->fdw_private) = makeString(pstrdup(sql));
	if (!dialect->has_fetch_size)
		return;
	if (list_length(scan->fdw_private) < 3 || !IsA(lthird(scan->fdw_private), Integer))
		bad_shape(feed, "The scan does not carry its fetch size third.");
	lthird(scan->fdw_private) = makeInteger(fetch_size);
}

void
bcmig_remote_run(Oid feed, const char *sql, int fetch_size, DestReceiver *dest)
{
	BcmigCatalogScope scope;
	SPIPlanPtr	plan;
	CachedPlan *cplan;
	PlannedStmt *pstmt;
	QueryDesc  *qdesc;
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext oldcontext;
	const BcmigDialect *dialect = bcmig_dialect_of_server(GetForeignTable(feed)->serverid);

	if (dialect->prepare_process != NULL)
		dialect->prepare_process();

	bcmig_remote_running = true;
	PG_TRY();
	{
		/*
		 * Names are looked up as the catalogue's owner; planned as the current
		 * user, since tds_fdw connects to do it.  The cached plan is valid as
		 * long as we hold it in this transaction (its locks are ours now); what
		 * we change is a copy.
		 */
		bcmig_catalog_begin(&scope);
		plan = feed_plan(feed);
		bcmig_restore_user(&scope);
		cplan = SPI_plan_get_cached_plan(plan);
		if (cplan == NULL || list_length(cplan->stmt_list) != 1)
			bad_shape(feed, "There is no single plan.");
		oldcontext = MemoryContextSwitchTo(caller);
		pstmt = copyObject(linitial_node(PlannedStmt, cplan->stmt_list));
		retarget(pstmt, feed, dialect, sql, fetch_size);
		MemoryContextSwitchTo(oldcontext);
		ReleaseCachedPlan(cplan, CurrentResourceOwner);
		bcmig_become_catalog_owner(&scope);
		bcmig_catalog_end(&scope);
		MemoryContextSwitchTo(caller);

		qdesc = CreateQueryDesc(pstmt, sql, GetActiveSnapshot(), InvalidSnapshot,
								dest, NULL, NULL, 0);
		ExecutorStart(qdesc, 0);
		BCMIG_EXECUTOR_RUN(qdesc);
		ExecutorFinish(qdesc);
		ExecutorEnd(qdesc);
		FreeQueryDesc(qdesc);
	}
	PG_CATCH();
	{
		if (dialect->explain_error != NULL)
			dialect->explain_error(sql);
		PG_RE_THROW();
	}
	PG_END_TRY();
	bcmig_remote_running = false;
}

bool
bcmig_remote_failed(const ErrorData *edata)
{
	/* errcontext of pgfdw_report_error and of the conversion of a value */
	return bcmig_remote_running && edata->context != NULL &&
		(strstr(edata->context, BCMIG_BLUE_CONTEXT) != NULL ||
		 strstr(edata->context, "remote SQL command") != NULL ||
		 strstr(edata->context, "of foreign table") != NULL ||
		 ERRCODE_TO_CATEGORY(edata->sqlerrcode) == ERRCODE_TO_CATEGORY(ERRCODE_CONNECTION_EXCEPTION));
}

/* ---- the rows of a text feed ---- */

typedef struct TextReceiver
{
	DestReceiver pub;
	MemoryContext context;		/* of one row */
	BcmigTextRow row;
	void	   *arg;
} TextReceiver;

static void
text_startup(DestReceiver *self, int operation, TupleDesc typeinfo)
{
	if (typeinfo->natts != TEXT_FEED_COLUMNS)
		elog(ERROR, "a text feed has %d columns, not %d", TEXT_FEED_COLUMNS, typeinfo->natts);
}

static bool
text_receive(TupleTableSlot *slot, DestReceiver *self)
{
	TextReceiver *r = (TextReceiver *) self;
	MemoryContext oldcontext = MemoryContextSwitchTo(r->context);
	char	   *row[TEXT_FEED_COLUMNS] = {NULL};

	slot_getallattrs(slot);
	bcmig_check_encoding(slot);
	for (int i = 0; i < TEXT_FEED_COLUMNS; i++)
	{
		if (!slot->tts_isnull[i])
			row[i] = TextDatumGetCString(slot->tts_values[i]);
	}
	r->row(r->arg, row);
	MemoryContextSwitchTo(oldcontext);
	MemoryContextReset(r->context);
	return true;
}

static void
text_nothing(DestReceiver *self)
{
}

void
bcmig_remote_each_text(Oid feed, const char *sql, BcmigTextRow row, void *arg)
{
	TextReceiver r = {{0}};

	r.pub.receiveSlot = text_receive;
	r.pub.rStartup = text_startup;
	r.pub.rShutdown = text_nothing;
	r.pub.rDestroy = text_nothing;
	r.pub.mydest = DestNone;
	r.context = AllocSetContextCreate(CurrentMemoryContext, "bcmig text row", ALLOCSET_SMALL_SIZES);
	r.row = row;
	r.arg = arg;
	bcmig_remote_run(feed, sql, 10000, &r.pub);
	MemoryContextDelete(r.context);
}

/* where bcmig_remote_texts() collects */
typedef struct TextList
{
	MemoryContext context;
	List	   *rows;
	Size		bytes;
} TextList;

static void
collect_row(void *arg, char **row)
{
	TextList   *list = arg;
	MemoryContext oldcontext = MemoryContextSwitchTo(list->context);
	char	  **copy = palloc0(sizeof(char *) * TEXT_FEED_COLUMNS);

	CHECK_FOR_INTERRUPTS();
	list->bytes += sizeof(char *) * TEXT_FEED_COLUMNS;
	for (int i = 0; i < TEXT_FEED_COLUMNS; i++)
	{
		copy[i] = row[i] ? pstrdup(row[i]) : NULL;
		list->bytes += row[i] ? strlen(row[i]) + 1 : 0;
	}
	if (list->bytes > ANSWER_LIMIT)
		ereport(ERROR,
				(errcode(ERRCODE_BM_BLUE),
				 errmsg("blue's answer is longer than %zu MB", ANSWER_LIMIT / (1024 * 1024))));
	list->rows = lappend(list->rows, copy);
	MemoryContextSwitchTo(oldcontext);
}

List *
bcmig_remote_texts(Oid feed, const char *sql)
{
	TextList	list = {CurrentMemoryContext, NIL, 0};

	bcmig_remote_each_text(feed, sql, collect_row, &list);
	return list.rows;
}

/* ---- what blue answers is not trusted ---- */

void
bcmig_bad_answer(const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_BLUE),
			 errmsg("blue's answer is not one bcmig understands"),
			 errdetail("%s", detail)));
}

pg_noreturn static void
bad_column(char **row, int column)
{
	bcmig_bad_answer(psprintf("Column %d of its row \"%.60s\" is %s%.60s%s.", column + 1, row[0] ? row[0] : "NULL",
							  row[column] ? "\"" : "", row[column] ? row[column] : "NULL", row[column] ? "\"" : ""));
}

/*
 * The wrappers call the input functions of the types, which believe what they
 * get.  A value that is not valid would be stored, and nobody could read or
 * restore it.
 */
void
bcmig_check_encoding(TupleTableSlot *slot)
{
	for (int i = 0; i < slot->tts_tupleDescriptor->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(slot->tts_tupleDescriptor, i);
		struct varlena *value;

		if (slot->tts_isnull[i] ||
			(att->atttypid != TEXTOID && att->atttypid != VARCHAROID && att->atttypid != BPCHAROID &&
			 att->atttypid != JSONOID && att->atttypid != XMLOID))
			continue;
		value = PG_DETOAST_DATUM_PACKED(slot->tts_values[i]);
		if (!pg_verifymbstr(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value), true))
			ereport(ERROR,
					(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
					 errmsg("blue sent a text that is not valid in encoding %s", GetDatabaseEncodingName()),
					 errdetail("It is in column \"%s\".", NameStr(att->attname)),
					 errcontext(BCMIG_BLUE_CONTEXT)));
	}
}

char *
bcmig_answer_text(char **row, int column)
{
	if (row[column] == NULL)
		bad_column(row, column);
	return row[column];
}

int64
bcmig_answer_int64(char **row, int column)
{
	const char *text = bcmig_answer_text(row, column);
	char	   *end;
	int64		value;

	errno = 0;
	value = strtoi64(text, &end, 10);
	if (end == text || *end != '\0' || errno != 0)
		bad_column(row, column);
	return value;
}

bool
bcmig_answer_is(char **row, const char *word)
{
	return row[0] != NULL && strcmp(row[0], word) == 0;
}
