/*-------------------------------------------------------------------------
 *
 * catalog.c
 *	  Reading and writing the tables of schema bcmig.
 *
 * Callers run as anybody: a DBA's session, or a worker as the owner of its
 * sync.  None of them needs a grant on our tables, because every access is
 * inside a scope that runs as the owner of schema bcmig with a fixed
 * search_path; nothing a user wrote runs inside one.
 *
 * Statements are planned once a process: a small cache keyed by their text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog.h"
#include "slot.h"
#include "version.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_index.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "jit/jit.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#define PLAN_CACHE_SIZE		256
#define MAX_PARAMS			24
#define ERROR_TEXT			8192	/* bytes kept of an error */

typedef struct CachedStatement
{
	char	   *sql;
	SPIPlanPtr	plan;
} CachedStatement;

bool		bcmig_rehearsing = false;
bool		bcmig_met_in_rehearsal = false;

static CachedStatement statements[PLAN_CACHE_SIZE];

/*
 * DROP EXTENSION locks the extension, then its tables in an order of its own.
 * Our processes therefore take the extension first as well: they wait there, or
 * are waited for, and neither side meets the other halfway.  Dropped meanwhile:
 * there is nothing left to do.
 */
static void
lock_extension(void)
{
	static Oid	extension = InvalidOid;
	LOCKTAG		tag;

	if (!OidIsValid(extension))
		extension = get_extension_oid("bcmig", true);
	if (!OidIsValid(extension))
		return;
	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, ExtensionRelationId, extension, 0);
	if (LockAcquire(&tag, AccessShareLock, false, true) != LOCKACQUIRE_NOT_AVAIL)
		return;
	(void) LockAcquire(&tag, AccessShareLock, false, false);
	AcceptInvalidationMessages();
	if (get_extension_name(extension) == NULL)
		proc_exit(0);
}

/*
 * The same for another version of the SQL than ours: what we would read and write
 * may not be what it was.  A manager comes again and waits (await_version).
 */
static void
leave_other_version(void)
{
	if (bcmig_slot != NULL && bcmig_other_version() != NULL)
		proc_exit(0);
}

static void
start_transaction(bool one_snapshot)
{
	MemoryContext caller = CurrentMemoryContext;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	if (one_snapshot)
		XactIsoLevel = XACT_REPEATABLE_READ;
	if (bcmig_own_process)
	{
		lock_extension();
		leave_other_version();
	}
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(caller);
}

void
bcmig_start_transaction(void)
{
	start_transaction(false);
}

void
bcmig_start_snapshot(void)
{
	start_transaction(true);
}

void
bcmig_end_transaction(void)
{
	MemoryContext caller = CurrentMemoryContext;

	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(caller);
}

ErrorData *
bcmig_try(void (*what) (void *arg), void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(caller);	/* what it returns outlives the transaction it may be part of */
	PG_TRY();
	{
		what(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * Become the owner of schema bcmig.
 */
void
bcmig_become_catalog_owner(BcmigCatalogScope *scope)
{
	HeapTuple	tuple = SearchSysCache1(NAMESPACENAME, CStringGetDatum("bcmig"));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("schema \"bcmig\" does not exist in this database"),
				 errhint("CREATE EXTENSION bcmig CASCADE;")));
	owner = ((Form_pg_namespace) GETSTRUCT(tuple))->nspowner;
	ReleaseSysCache(tuple);

	GetUserIdAndSecContext(&scope->userid, &scope->sec_context);
	SetUserIdAndSecContext(owner, scope->sec_context | SECURITY_LOCAL_USERID_CHANGE);
}

void
bcmig_restore_user(BcmigCatalogScope *scope)
{
	SetUserIdAndSecContext(scope->userid, scope->sec_context);
}

/*
 * Open a scope: SPI, search_path, user.  Needs a transaction.  On ERROR the
 * (sub)transaction abort takes all three back.
 */
void
bcmig_catalog_begin(BcmigCatalogScope *scope)
{
	if (!bcmig_own_process)
		bcmig_require_version();
	bcmig_catalog_begin_any_version(scope);
}

/*
 * For what applications call: it must read columns only that all versions have.
 */
void
bcmig_catalog_begin_any_version(BcmigCatalogScope *scope)
{
	if (bcmig_rehearsing)
	{
		bcmig_met_in_rehearsal = true;
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("bcmig cannot be called in a rehearsal")));
	}
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	scope->guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);

	/* tables nobody has analyzed look big: compiling such a statement takes seconds, running it a few ms */
	if (jit_enabled)
		(void) set_config_option("jit", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	bcmig_become_catalog_owner(scope);
}

void
bcmig_brief_locks(void)
{
	(void) set_config_option("lock_timeout", "1s", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
}

void
bcmig_catalog_end(BcmigCatalogScope *scope)
{
	bcmig_restore_user(scope);
	AtEOXact_GUC(true, scope->guc_level);
	SPI_finish();
}

/*
 * The plan of a statement, kept.  Of one with arrays only what it was parsed to:
 * a plan that fits all lengths is made for ten elements, and joins thousands to
 * thousands in nested loops.
 */
static SPIPlanPtr
plan_statement(const char *sql, int nargs, Oid *types)
{
	CachedStatement *entry;
	MemoryContext oldcontext;
	SPIPlanPtr	plan;
	int			options = 0;

	entry = &statements[hash_bytes((const unsigned char *) sql, strlen(sql)) % PLAN_CACHE_SIZE];
	if (entry->plan != NULL && strcmp(entry->sql, sql) == 0)
		return entry->plan;

	for (int i = 0; i < nargs; i++)
	{
		if (types[i] == TEXTARRAYOID || types[i] == INT8ARRAYOID || types[i] == INT4ARRAYOID)
			options = CURSOR_OPT_CUSTOM_PLAN;
	}
	plan = SPI_prepare_cursor(sql, nargs, types, options);
	if (plan == NULL)
		elog(ERROR, "SPI_prepare failed: %s: %s", SPI_result_code_string(SPI_result), sql);
	SPI_keepplan(plan);

	if (entry->plan != NULL)
	{
		SPI_freeplan(entry->plan);
		pfree(entry->sql);
		entry->plan = NULL;
	}
	oldcontext = MemoryContextSwitchTo(TopMemoryContext);
	entry->sql = pstrdup(sql);
	MemoryContextSwitchTo(oldcontext);
	entry->plan = plan;
	return plan;
}

uint64
bcmig_sql(const char *sql, const char *types,...)
{
	Oid			oids[MAX_PARAMS];
	Datum		values[MAX_PARAMS];
	char		nulls[MAX_PARAMS + 1];
	int			n = 0;
	int			rc;
	va_list		args;
	MemoryContext caller = CurrentMemoryContext;

	va_start(args, types);
	for (const char *t = types; *t; t++, n++)
	{
		const char *s;

		if (n >= MAX_PARAMS)
			elog(ERROR, "too many parameters: %s", sql);
		nulls[n] = ' ';
		switch (*t)
		{
			case 'i':
				oids[n] = INT4OID;
				values[n] = Int32GetDatum(va_arg(args, int));
				break;
			case 'I':
				oids[n] = INT8OID;
				values[n] = Int64GetDatum(va_arg(args, int64));
				break;
			case 'o':
				oids[n] = OIDOID;
				values[n] = ObjectIdGetDatum(va_arg(args, Oid));
				break;
			case 'b':
				oids[n] = BOOLOID;
				values[n] = BoolGetDatum(va_arg(args, int));
				break;
			case 'z':
				oids[n] = TIMESTAMPTZOID;
				values[n] = TimestampTzGetDatum(va_arg(args, TimestampTz));
				break;
			case 'f':
				oids[n] = FLOAT8OID;
				values[n] = Float8GetDatum(va_arg(args, double));
				break;
			case 't':
			case 'j':
				oids[n] = *t == 't' ? TEXTOID : JSONBOID;
				s = va_arg(args, const char *);
				if (s == NULL)
				{
					values[n] = (Datum) 0;
					nulls[n] = 'n';
				}
				else if (*t == 't')
					values[n] = CStringGetTextDatum(s);
				else
					values[n] = DirectFunctionCall1(jsonb_in, CStringGetDatum(s));
				break;
			case 'k':
			case 'q':
			case 'n':
				oids[n] = *t == 'k' ? TEXTARRAYOID : *t == 'q' ? INT8ARRAYOID : INT4ARRAYOID;
				values[n] = va_arg(args, Datum);
				if (values[n] == (Datum) 0)
					nulls[n] = 'n';
				break;
			default:
				elog(ERROR, "bcmig_sql: unknown parameter letter \"%c\"", *t);
		}
	}
	va_end(args);

	rc = SPI_execute_plan(plan_statement(sql, n, oids), values, nulls, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute_plan failed: %s: %s", SPI_result_code_string(rc), sql);

	/* SPI leaves its own context behind, in which what the caller makes next would go away with SPI_finish() */
	MemoryContextSwitchTo(caller);
	return SPI_processed;
}

Datum
bcmig_get_datum(uint64 row, int col, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col, isnull);
}

char *
bcmig_get_text(uint64 row, int col)
{
	return SPI_getvalue(SPI_tuptable->vals[row], SPI_tuptable->tupdesc, col);
}

int64
bcmig_get_int64(uint64 row, int col, int64 if_null)
{
	bool		isnull;
	Datum		value = bcmig_get_datum(row, col, &isnull);

	if (isnull)
		return if_null;
	switch (SPI_gettypeid(SPI_tuptable->tupdesc, col))
	{
		case INT8OID:
			return DatumGetInt64(value);
		case INT4OID:
			return DatumGetInt32(value);
		case OIDOID:
		case REGROLEOID:
			return DatumGetObjectId(value);
	}
	elog(ERROR, "column %d is not an integer", col);
	return 0;					/* keep compiler quiet */
}

bool
bcmig_get_bool(uint64 row, int col)
{
	bool		isnull;
	Datum		value = bcmig_get_datum(row, col, &isnull);

	return !isnull && DatumGetBool(value);
}

char **
bcmig_get_texts(uint64 row, int col, int n, MemoryContext context)
{
	bool		isnull;
	Datum		array = bcmig_get_datum(row, col, &isnull);
	Datum	   *values;
	bool	   *nulls;
	int			nvalues;
	char	  **texts;

	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false, TYPALIGN_INT,
					  &values, &nulls, &nvalues);
	if (nvalues != n)
		return NULL;
	texts = MemoryContextAlloc(context, sizeof(char *) * Max(n, 1));
	for (int i = 0; i < n; i++)
		texts[i] = nulls[i] ? NULL : MemoryContextStrdup(context, TextDatumGetCString(values[i]));
	return texts;
}

bool
bcmig_has_text(List *texts, const char *text)
{
	ListCell   *lc;

	foreach(lc, texts)
	{
		if (strcmp(lfirst(lc), text) == 0)
			return true;
	}
	return false;
}

Datum
bcmig_text_array(List *texts)
{
	Datum	   *values = palloc(sizeof(Datum) * Max(list_length(texts), 1));
	int			n = 0;
	ListCell   *lc;

	foreach(lc, texts)
		values[n++] = CStringGetTextDatum(lfirst(lc));
	return PointerGetDatum(construct_array(values, n, TEXTOID, -1, false, TYPALIGN_INT));
}

Oid
bcmig_unique_index(Relation rel, int n, const char *const *names)
{
	Oid			found = InvalidOid;
	List	   *indexes = RelationGetIndexList(rel);
	ListCell   *lc;

	foreach(lc, indexes)
	{
		HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(lfirst_oid(lc)));
		Form_pg_index index;
		int			matched = 0;

		if (!HeapTupleIsValid(tuple))
			continue;
		index = (Form_pg_index) GETSTRUCT(tuple);
		if (index->indisunique && index->indimmediate && index->indisvalid &&
			index->indnkeyatts == n &&
			heap_attisnull(tuple, Anum_pg_index_indpred, NULL) &&
			heap_attisnull(tuple, Anum_pg_index_indexprs, NULL))
		{
			for (int i = 0; i < n; i++)
			{
				AttrNumber	attnum = get_attnum(RelationGetRelid(rel), names[i]);

				for (int k = 0; k < n; k++)
					matched += attnum != InvalidAttrNumber && index->indkey.values[k] == attnum;
			}
			if (n > 0 && matched == n && (!OidIsValid(found) || index->indisprimary))
				found = index->indexrelid;
		}
		ReleaseSysCache(tuple);
	}
	list_free(indexes);
	return found;
}

/*
 * Tell managers and workers that configuration has changed, at commit: they
 * watch the relcache entries of bcmig.sync and bcmig.sync_table.
 */
void
bcmig_config_changed(void)
{
	Oid			nsp = get_namespace_oid("bcmig", false);

	CacheInvalidateRelcacheByRelid(get_relname_relid("sync_table", nsp));
	bcmig_wake_at_commit();
}

void
bcmig_copy_text(char *to, const char *from, int size)
{
	int			len = pg_mbcliplen(from, strlen(from), size - 1);

	memcpy(to, from, len);
	to[len] = '\0';
}

char *
bcmig_error_text(const ErrorData *edata, bool with_code)
{
	char	   *text = psprintf("%s%s%s%s%s%s", with_code ? unpack_sql_state(edata->sqlerrcode) : "", with_code ? ": " : "",
								edata->message ? edata->message : "?", edata->detail ? " (" : "",
								edata->detail ? edata->detail : "", edata->detail ? ")" : "");

	text[pg_mbcliplen(text, strlen(text), ERROR_TEXT)] = '\0';
	return text;
}

bool
bcmig_unbounded_type(const char *type)
{
	static const char *const names[] = {
		"bytea", "text", "xml", "json", "jsonb", "character varying",
		"bit varying", "tsvector"
	};

	for (int i = 0; i < lengthof(names); i++)
	{
		if (strcmp(type, names[i]) == 0)
			return true;
	}

	/* arrays, and types of extensions and of the user */
	return strstr(type, "[]") != NULL || strchr(type, '.') != NULL;
}

/*
 * Load the configuration of one table.
 */
BcmigTableInfo *
bcmig_load_table(int table_id)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext oldcontext;
	BcmigCatalogScope scope;
	BcmigTableInfo *t = NULL;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT t.table_id, t.sync_id, s.name, s.owner::oid, s.environment_id, "
				  " t.source_schema, t.source_table, t.target_schema, t.target_table, "
				  " t.feed, t.capture, t.version_column, t.indexes::text, "
				  " (o.v->>'batch_rows')::int, (o.v->>'max_retries')::int, "
				  " (o.v->>'error_threshold')::float8, (o.v->>'max_errors')::int8, "
				  " (o.v->>'max_delete_percent')::float8, "
				  " nullif(o.v->>'chunk_rows', 'auto')::int8, (o.v->>'chunk_target')::int8, "
				  " (o.v->>'sweep_interval')::int8, (o.v->>'copy_data')::bool, "
				  " (o.v->>'priority')::int, nullif(o.v->>'parallel', 'auto')::int, "
				  " (o.v->>'enabled')::bool, "
				  " cardinality(l.names), l.names, o.v->>'on_schema_change', o.v->>'on_error' = 'suspend', t.mapping, o.v->>'row_filter' "
				  "FROM bcmig.sync_table t JOIN bcmig.sync s USING (sync_id) "
				  "CROSS JOIN LATERAL (SELECT array(SELECT jsonb_array_elements_text(CASE jsonb_typeof(t.options->'leave_out') "
				  "  WHEN 'array' THEN t.options->'leave_out' ELSE '[]' END)) AS names) l "
				  "CROSS JOIN LATERAL (SELECT jsonb_object_agg(e.name, e.value) AS v "
				  "  FROM bcmig.effective_option e WHERE e.table_id = t.table_id) o "
				  "WHERE t.table_id = $1", "i", table_id) > 0)
	{
		bool		isnull;

		oldcontext = MemoryContextSwitchTo(caller);
		t = palloc0(sizeof(BcmigTableInfo));
		t->table_id = bcmig_get_int64(0, 1, 0);
		t->sync_id = bcmig_get_int64(0, 2, 0);
		t->sync_name = bcmig_get_text(0, 3);
		t->owner = bcmig_get_int64(0, 4, 0);
		t->environment_id = bcmig_get_int64(0, 5, 0);
		t->source_schema = bcmig_get_text(0, 6);
		t->source_table = bcmig_get_text(0, 7);
		t->target_schema = bcmig_get_text(0, 8);
		t->target_table = bcmig_get_text(0, 9);
		t->target_name = pstrdup(quote_qualified_identifier(t->target_schema, t->target_table));
		t->feed = bcmig_get_text(0, 10);
		t->capture = bcmig_get_text(0, 11);
		t->version_column = bcmig_get_text(0, 12);
		t->indexes = bcmig_get_text(0, 13);
		t->batch_rows = bcmig_get_int64(0, 14, 0);
		t->max_retries = bcmig_get_int64(0, 15, 0);
		t->error_threshold = DatumGetFloat8(bcmig_get_datum(0, 16, &isnull));
		t->max_errors = bcmig_get_int64(0, 17, 0);
		t->max_delete_percent = DatumGetFloat8(bcmig_get_datum(0, 18, &isnull));
		t->chunk_rows = bcmig_get_int64(0, 19, 0);
		t->chunk_target = bcmig_get_int64(0, 20, 0);
		t->sweep_interval = bcmig_get_int64(0, 21, 0);
		t->copy_data = bcmig_get_bool(0, 22);
		t->priority = bcmig_get_int64(0, 23, 0);
		t->parallel = bcmig_get_int64(0, 24, 0);
		t->enabled = bcmig_get_bool(0, 25);
		t->on_schema_change = bcmig_get_text(0, 28);
		t->on_error_suspend = bcmig_get_bool(0, 29);
		t->mapping = bcmig_get_int64(0, 30, 0);
		t->row_filter = bcmig_get_text(0, 31);
		t->nleft_out = bcmig_get_int64(0, 26, 0);
		t->left_out = bcmig_get_texts(0, 27, t->nleft_out, caller);
		MemoryContextSwitchTo(oldcontext);

		bcmig_sql("SELECT source_column, source_type, target_column, target_type, key_position, row_identity, native_type, part, "
				  " not_null, default_value, al_type, type_source = 'metadata', "
				  " CASE WHEN transform ? 'drop' THEN 1 WHEN transform ? 'constant' THEN 2 WHEN transform ? 'builtin' THEN 3 "
				  "  WHEN transform ? 'sql' THEN 4 ELSE 0 END, "
				  " CASE WHEN jsonb_typeof(transform->'builtin') = 'array' THEN (SELECT string_agg(b, ',' ORDER BY o) "
				  "   FROM jsonb_array_elements_text(transform->'builtin') WITH ORDINALITY x(b, o)) "
				  "  ELSE coalesce(transform->>'constant', transform->>'builtin', transform->>'sql') END, plain_column "
				  "FROM bcmig.column_map WHERE table_id = $1 ORDER BY ordinal", "i", table_id);
		oldcontext = MemoryContextSwitchTo(caller);
		t->ncolumns = SPI_processed;
		t->columns = palloc0(sizeof(BcmigColumn) * Max(t->ncolumns, 1));
		t->keys = palloc0(sizeof(int) * Max(t->ncolumns, 1));
		t->identity_column = -1;
		for (int i = 0; i < t->ncolumns; i++)
		{
			BcmigColumn *c = &t->columns[i];

			c->source = bcmig_get_text(i, 1);
			c->source_type = bcmig_get_text(i, 2);
			c->target = bcmig_get_text(i, 3);
			c->target_type = bcmig_get_text(i, 4);
			c->key_position = bcmig_get_int64(i, 5, 0);
			c->row_identity = bcmig_get_bool(i, 6);
			c->native_type = bcmig_get_text(i, 7);
			c->part = bcmig_get_int64(i, 8, 0);
			c->not_null = bcmig_get_bool(i, 9);
			c->default_value = bcmig_get_text(i, 10);
			c->al_type = bcmig_get_text(i, 11);
			c->from_metadata = bcmig_get_bool(i, 12);
			c->transform = (BcmigTransformKind) bcmig_get_int64(i, 13, BCMIG_AS_IS);
			c->transform_value = bcmig_get_text(i, 14);
			c->plain_target = bcmig_get_text(i, 15);
			if (c->row_identity)
				t->identity_column = i;
			if (c->key_position > 0 && c->key_position <= t->ncolumns)
			{
				t->keys[c->key_position - 1] = i;
				t->nkeys = Max(t->nkeys, c->key_position);
			}
		}
		MemoryContextSwitchTo(oldcontext);

		bcmig_sql("SELECT source_schema, source_table, version_column, cardinality(key_columns), key_columns "
				  "FROM bcmig.companion WHERE table_id = $1 ORDER BY part", "i", table_id);
		oldcontext = MemoryContextSwitchTo(caller);
		t->ncompanions = SPI_processed;
		t->companions = palloc0(sizeof(BcmigCompanion) * Max(t->ncompanions, 1));
		for (int i = 0; i < t->ncompanions; i++)
		{
			BcmigCompanion *p = &t->companions[i];

			p->schema = bcmig_get_text(i, 1);
			p->table = bcmig_get_text(i, 2);
			p->version_column = bcmig_get_text(i, 3);
			p->nkeys = bcmig_get_int64(i, 4, 0);
			p->keys = bcmig_get_texts(i, 5, p->nkeys, caller);
		}
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	return t;
}
