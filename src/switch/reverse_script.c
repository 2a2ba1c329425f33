/*-------------------------------------------------------------------------
 *
 * reverse_script.c
 *	  bcmig_blue_script('reverse', sync): what was written on green, as a script
 *	  for a blue bcmig does not write to itself.
 *
 * In the session of the caller, who must be a member of the sync's owner; rows of
 * green are read as that owner.  It settles nothing: once the script has been
 * run, windows read the rows back, and entries of rows that are equal are
 * settled.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "reverse.h"

#include "call.h"
#include "catalog/pg_type.h"
#include "configure.h"
#include "miscadmin.h"
#include "reverse_rows.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#define BATCH_KEYS	100			/* in one transaction of blue's */

/* values by the columns of the table, from the text of a text array */
static char **
values_of(const BcmigTableInfo *table, List *columns, const char *row)
{
	char	  **values = palloc0(sizeof(char *) * table->ncolumns);
	Datum	   *datums;
	bool	   *nulls;
	int			n;
	ListCell   *lc;

	deconstruct_array(DatumGetArrayTypeP(OidInputFunctionCall(F_ARRAY_IN, unconstify(char *, row), TEXTOID, -1)),
					  TEXTOID, -1, false, TYPALIGN_INT, &datums, &nulls, &n);
	foreach(lc, columns)
	{
		if (!nulls[foreach_current_index(lc)])
			values[lfirst_int(lc)] = TextDatumGetCString(datums[foreach_current_index(lc)]);
	}
	return values;
}

/* the keys of a table with unsettled entries, in their order */
static List *
keys_of(int table_id)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *keys = NIL;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT k.key::text FROM bcmig.journal j, LATERAL (SELECT j.old_key AS key UNION SELECT j.new_key) k "
				  "WHERE j.table_id = $1 AND j.settled_at IS NULL AND k.key IS NOT NULL GROUP BY k.key ORDER BY min(j.journal_id), 1", "i", table_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		keys = lappend(keys, bcmig_get_text(i, 1));
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	return keys;
}

/* rows of green as the owner of the sync, spelled as bcmig does */
static void
read_rows(const BcmigTableInfo *table, List *columns, int n, BcmigReverseKey *keys)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"}, {"datestyle", "ISO"}, {"intervalstyle", "postgres"}, {"extra_float_digits", "3"},
		{"bytea_output", "hex"}, {"timezone", "GMT"}
	};
	Oid			userid;
	int			sec_context;
	int			level = NewGUCNestLevel();

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(table->owner, sec_context | SECURITY_LOCAL_USERID_CHANGE);

	/* not older than the entries */
	PushActiveSnapshot(GetTransactionSnapshot());
	bcmig_read_reverse_rows(table, columns, n, keys);
	PopActiveSnapshot();
	SetUserIdAndSecContext(userid, sec_context);
	AtEOXact_GUC(true, level);
}

/* a table's part of the script; how many keys */
static int64
append_table(StringInfo s, const BcmigDialect *dialect, const BcmigTableInfo *table)
{
	List	   *columns = bcmig_columns_for_blue(table, true);
	List	   *texts = keys_of(table->table_id);
	int64		total = 0;

	while (texts != NIL)
	{
		List	   *some = list_truncate(list_copy(texts), BATCH_KEYS);
		BcmigReverseKey *keys;
		BcmigReverse *reverse;
		char	 ***texts_of;
		char	 ***values;
		int			n = bcmig_load_reverse_keys(table, some, &keys);

		CHECK_FOR_INTERRUPTS();
		texts = list_delete_first_n(texts, list_length(some));
		if (n == 0)
			continue;
		read_rows(table, columns, n, keys);
		reverse = palloc(sizeof(BcmigReverse) * n);
		texts_of = palloc(sizeof(char **) * n);
		values = palloc(sizeof(char **) * n);
		for (int i = 0; i < n; i++)
		{
			reverse[i] = keys[i].reverse;
			texts_of[i] = keys[i].texts;
			values[i] = reverse[i].row ? values_of(table, columns, reverse[i].row) : NULL;
		}
		appendStringInfoString(s, dialect->reverse_batch(table, bcmig_green_identity(table->sync_id), columns, n, reverse, texts_of, values));
		total += n;
	}
	return total;
}

char *
bcmig_make_reverse_script(const char *sync_name)
{
	BcmigSync  *sync = bcmig_load_sync(sync_name);
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	const BcmigDialect *dialect;
	StringInfoData s;
	List	   *ids = NIL;
	ListCell   *lc;
	int64		total = 0;
	uint64		n;
	char	   *server;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT server FROM bcmig.environment WHERE environment_id = $1", "i", sync->environment_id);
	server = MemoryContextStrdup(caller, bcmig_get_text(0, 1));
	n = bcmig_sql("SELECT table_id FROM bcmig.sync_table WHERE sync_id = $1 ORDER BY 1", "i", sync->sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		ids = lappend_int(ids, bcmig_get_int64(i, 1, 0));
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	dialect = bcmig_dialect_of_server(get_foreign_server_oid(server, false));
	if (dialect->reverse_batch == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("there is no script \"reverse\" for a blue on %s", dialect->name),
				 errdetail("bcmig writes to it itself, where blue/postgres_switch.sql has been run."),
				 errhint("SELECT * FROM bcmig.journal_status WHERE sync = %s;", quote_literal_cstr(sync->name))));
	initStringInfo(&s);
	foreach(lc, ids)
	{
		BcmigTableInfo *table = bcmig_load_table(lfirst_int(lc));

		if (table != NULL)
			total += append_table(&s, dialect, table);
	}
	foreach(lc, bcmig_given_numbers(sync->sync_id))
		appendStringInfoString(&s, dialect->reverse_number(lfirst(lc)));
	return psprintf("%s%s", dialect->reverse_head(sync->name, total), s.data);
}
