/*-------------------------------------------------------------------------
 *
 * look.c
 *	  Changes of blue's tables and columns while a sync runs.
 *
 * The poller reads a mark of blue's schema; when it is another one than the
 * sync was last looked at for, a worker describes all its tables again and
 * compares them with bcmig.column_map.  What the option on_schema_change says is
 * done under the table's applier lock, so that no window is half of one shape:
 *
 *	stop	the table is suspended; resumed, it is looked at again
 *	ignore	new columns are not copied; what cannot be ignored stops
 *	follow	green and the feed are changed and the table is read again, which
 *			fills new columns of old rows; what cannot be followed stops
 *
 * Nothing is dropped on green: a column blue has no more stays, without values
 * for new rows.  New tables, companions and companies are noticed, no more:
 * whether they are wanted is a person's decision.
 *
 * Each table is a transaction; the mark is stored last, so a crash looks again.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"
#include "schema_change.h"
#include "worker.h"

#include "bc_names.h"
#include "catalog/pg_type.h"
#include "dictionary.h"
#include "discover.h"
#include "miscadmin.h"
#include "readable.h"
#include "slot.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#define TABLES_AT_A_TIME	50	/* described together */

/* ---- the log of changes ---- */

/* a change nobody has been told of yet; in a scope */
static void
log_change(int sync_id, int table_id, const char *kind, const char *object, const char *before,
		   const char *after, const char *action, const char *detail, const char *fix)
{
	bcmig_sql("INSERT INTO bcmig.schema_change (sync_id, table_id, kind, object, before, after, action, detail, fix, settled_at) "
			  "SELECT $1, nullif($2, 0), $3, $4, $5, $6, $7, $8, $9, CASE WHEN $7 <> 'stopped' THEN clock_timestamp() END "
			  "WHERE NOT EXISTS (SELECT FROM bcmig.schema_change c WHERE c.sync_id = $1 AND c.table_id IS NOT DISTINCT FROM nullif($2, 0) "
			  " AND (c.kind, c.object) = ($3, $4) AND c.after IS NOT DISTINCT FROM $6 AND c.action = $7 "
			  " AND CASE $7 WHEN 'stopped' THEN c.settled_at IS NULL WHEN 'followed' THEN false ELSE true END)",
			  "iittttttt", sync_id, table_id, kind, object, before, after, action, detail, fix);
}

static bool
is_ignored(const BcmigTableInfo *table, const BcmigChange *change)
{
	BcmigCatalogScope scope;
	bool		found;

	bcmig_catalog_begin(&scope);
	found = bcmig_sql("SELECT 1 FROM bcmig.schema_change WHERE table_id = $1 AND action = 'ignored' "
					  "AND kind = $2 AND object = $3 AND after IS NOT DISTINCT FROM $4",
					  "ittt", table->table_id, bcmig_change_name(change->kind), change->column, change->after) > 0;
	bcmig_catalog_end(&scope);
	return found;
}

/* ---- following ---- */

static BcmigColumn *
column_of(const BcmigTableInfo *table, const BcmigChange *change)
{
	for (int i = 0; i < table->ncolumns; i++)
	{
		BcmigColumn *c = &table->columns[i];

		if (c->part == change->part && strcmp(c->source, change->column) == 0)
			return c;
	}
	return NULL;
}

/* in a transaction; the type green gives it in *type */
static bool
can_follow(const BcmigTableInfo *table, const BcmigChange *change, const BcmigDialect *dialect, char **type)
{
	const BcmigColumn *c = change->column ? column_of(table, change) : NULL;
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	bool		fits;

	*type = NULL;
	if (change->after != NULL && change->blue != NULL)
	{
		bcmig_catalog_begin(&scope);
		MemoryContextSwitchTo(caller);
		*type = bcmig_known_type(dialect->green_type ? dialect->green_type(change->after) : change->after);
		bcmig_catalog_end(&scope);
		MemoryContextSwitchTo(caller);
	}
	switch (change->kind)
	{
		case BCMIG_COLUMN_ADDED:
			return change->blue->key_position == 0;
		case BCMIG_COLUMN_DROPPED:
			return c->key_position == 0 && c->transform == BCMIG_AS_IS;
		case BCMIG_COLUMN_ALTERED:
			/* what a transform makes of another type is a person's business */
			if (c->key_position > 0 || c->transform != BCMIG_AS_IS)
				return false;
			bcmig_catalog_begin(&scope);
			fits = bcmig_type_fits(*type, c->target_type) || bcmig_type_fits(c->target_type, *type);
			bcmig_catalog_end(&scope);
			return fits;
		default:
			return false;
	}
}

static void
add_column(const BcmigTableInfo *table, const BcmigChange *change, const char *type, const BcmigDialect *dialect)
{
	List	   *taken = list_make2("bc_op", "bc_rowversion");
	BcmigCatalogScope scope;
	MemoryContext caller = CurrentMemoryContext;
	const BcmigBlueColumn *b = change->blue;
	char	   *value = b->default_expr ? dialect->constant(b->default_expr) : NULL;
	bool		not_null = b->not_null && value != NULL && change->part == 0;
	const char *guess = bcmig_guess_al_type(b->name, b->native);
	char	   *name;
	bool		snake;

	for (int i = 0; i < table->ncolumns; i++)
		taken = lappend(taken, table->columns[i].target);
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT naming = 'snake' FROM bcmig.sync_table WHERE table_id = $1", "i", table->table_id);
	snake = bcmig_get_bool(0, 1);
	MemoryContextSwitchTo(caller);
	name = bcmig_green_name(snake ? bcmig_snake(b->name) : b->name, taken);
	bcmig_sql("INSERT INTO bcmig.column_map (table_id, ordinal, part, source_column, source_type, native_type, target_column, target_type, "
			  " not_null, default_value, al_type) "
			  "SELECT $1, max(ordinal) + 1, $2, $3, $4, $5, $6, $4, $7, $8, $9 FROM bcmig.column_map WHERE table_id = $1",
			  "iittttbtt", table->table_id, change->part, b->name, type, b->native, name, (int) not_null, value, guess);
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	bcmig_change_green(table->owner, table->target_name,
					   psprintf("ALTER TABLE %s ADD COLUMN IF NOT EXISTS %s %s%s%s%s", table->target_name,
								quote_identifier(name), type, value ? " DEFAULT " : "",
								value ? quote_literal_cstr(value) : "", not_null ? " NOT NULL" : ""));
}

static void
follow(const BcmigTableInfo *table, const BcmigChange *change, const char *type, const BcmigDialect *dialect)
{
	const BcmigColumn *c = column_of(table, change);
	BcmigCatalogScope scope;
	bool		widen;

	if (change->kind == BCMIG_COLUMN_ADDED)
	{
		add_column(table, change, type, dialect);
		return;
	}
	if (change->kind == BCMIG_COLUMN_DROPPED)
	{
		bcmig_change_green(table->owner, table->target_name,
						   psprintf("ALTER TABLE %s ALTER COLUMN %s DROP NOT NULL", table->target_name,
									quote_identifier(c->target)));
		bcmig_catalog_begin(&scope);
		bcmig_sql("DELETE FROM bcmig.column_map WHERE table_id = $1 AND target_column = $2", "it", table->table_id, c->target);
		bcmig_catalog_end(&scope);
		return;
	}
	bcmig_catalog_begin(&scope);
	widen = !bcmig_type_fits(type, c->target_type);
	bcmig_sql("UPDATE bcmig.column_map SET source_type = $3, native_type = $4, "
			  " target_type = CASE WHEN $5 THEN $3 ELSE target_type END WHERE table_id = $1 AND target_column = $2",
			  "itttb", table->table_id, c->target, type, change->after, (int) widen);
	bcmig_catalog_end(&scope);
	if (widen)
		bcmig_change_green(table->owner, table->target_name,
						   psprintf("ALTER TABLE %s ALTER COLUMN %s TYPE %s", table->target_name,
									quote_identifier(c->target), type));
}

/* the feed in the shape column_map has now */
static void
remake_feed(const BcmigTableInfo *table)
{
	BcmigTableInfo *now = bcmig_load_table(table->table_id);
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	SPI_execute(psprintf("DROP FOREIGN TABLE bcmig.%s", quote_identifier(now->feed)), false, 0);
	bcmig_make_feed(now);
	bcmig_catalog_end(&scope);
}

/*
 * Change column_map, green and the feed as blue has changed.  In a transaction,
 * under the applier lock.
 */
static void
follow_all(const BcmigSync *sync, const BcmigTableInfo *table, List *changes, const BcmigDialect *dialect)
{
	bool		altered = false;
	ListCell   *lc;

	foreach(lc, changes)
		altered |= ((BcmigChange *) lfirst(lc))->kind == BCMIG_COLUMN_ALTERED;
	/* a view would hold the types of its columns */
	if (altered)
		bcmig_drop_views(sync);
	foreach(lc, changes)
	{
		char	   *type;

		(void) can_follow(table, lfirst(lc), dialect, &type);
		follow(bcmig_load_table(table->table_id), lfirst(lc), type, dialect);
	}
	remake_feed(table);
	if (altered)
		bcmig_outdate_views(sync->sync_id);
	bcmig_state_resync(0, InvalidOid, table->table_id, "its columns have changed on blue");
}

/* ---- one table ---- */

/*
 * What is to be done about the changes of one table.  In a transaction, under
 * the applier lock.  Returns its new state, or BCMIG_PENDING: as it was.
 */
static BcmigTableState
settle_table(const BcmigSync *sync, const BcmigTableInfo *table, List *changes, const BcmigDialect *dialect)
{
	bool		following = strcmp(table->on_schema_change, "follow") == 0;
	bool		ignoring = strcmp(table->on_schema_change, "ignore") == 0;
	BcmigCatalogScope scope;
	List	   *news = NIL;
	char	   *reason = NULL;
	char	   *fix = psprintf("SELECT bcmig_alter_table(%1$s, %2$s, '{\"on_schema_change\": \"follow\"}'); SELECT bcmig_resume_table(%1$s, %2$s);",
							   quote_literal_cstr(table->sync_name), quote_literal_cstr(table->target_name));
	char	   *again = psprintf("SELECT bcmig_remove_table(%s, %s); -- then add it again",
								 quote_literal_cstr(table->sync_name), quote_literal_cstr(table->target_name));
	BcmigStored stored;
	ListCell   *lc;

	foreach(lc, changes)
	{
		BcmigChange *change = lfirst(lc);
		char	   *type;
		bool		can = can_follow(table, change, dialect, &type);

		if (ignoring && change->column != NULL && is_ignored(table, change))
			continue;
		news = lappend(news, change);
		if (ignoring ? change->kind != BCMIG_COLUMN_ADDED : !(following && can))
			reason = psprintf("%s%s%s", reason ? reason : "", reason ? " " : "", bcmig_change_text(table, change));
	}
	if (!bcmig_state_load(table->table_id, &stored))
		return BCMIG_PENDING;

	/* suspended for another reason: looked at again when it is resumed */
	if (stored.state == BCMIG_SUSPENDED && news != NIL && reason == NULL)
		reason = "the table is suspended";

	if (news != NIL && reason == NULL && following)
		follow_all(sync, table, news, dialect);

	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.schema_change SET settled_at = clock_timestamp() WHERE table_id = $1 AND settled_at IS NULL",
			  "i", table->table_id);
	foreach(lc, news)
	{
		BcmigChange *change = lfirst(lc);
		char	   *text = bcmig_change_text(table, change);
		const char *action = reason != NULL ? "stopped" : ignoring ? "ignored" : "followed";

		log_change(table->sync_id, table->table_id, bcmig_change_name(change->kind),
				   change->column ? change->column : change->part > 0 ? table->companions[change->part - 1].table : table->source_table,
				   change->before, change->after, action, text,
				   reason == NULL ? NULL : following || change->kind == BCMIG_TABLE_GONE ? again : fix);
		bcmig_audit("schema", table->sync_name, table->target_name, action, text);
	}
	if (news != NIL)
		bcmig_config_changed();
	bcmig_catalog_end(&scope);
	if (reason != NULL && stored.state != BCMIG_SUSPENDED)
	{
		bcmig_state_suspend(table, reason);
		return BCMIG_SUSPENDED;
	}
	return news != NIL && reason == NULL && following ? BCMIG_RESYNC : BCMIG_PENDING;
}

static void
look_at_table(const BcmigSync *sync, BcmigTableInfo *table, List *changes, const BcmigDialect *dialect)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigWork	work = {.table = table};
	BcmigTableInfo *now;
	BcmigTableState state;

	bcmig_applier_lock(&work, ExclusiveLock);
	bcmig_start_transaction();
	MemoryContextSwitchTo(caller);

	/* its options may have changed while blue was asked: who let it follow and resumed it meanwhile would find it stopped again */
	now = bcmig_load_table(table->table_id);
	state = now ? settle_table(sync, now, changes, dialect) : BCMIG_PENDING;
	bcmig_debug_point("look_before_commit");
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	if (state != BCMIG_PENDING)
		bcmig_publish_state(table->table_id, state);
	bcmig_applier_unlock(&work, ExclusiveLock);
}

/* ---- what is new on blue ---- */

static bool
is_known(int environment_id, const BcmigFound *f)
{
	return bcmig_sql("SELECT 1 FROM bcmig.companion c JOIN bcmig.sync_table t USING (table_id) JOIN bcmig.sync s USING (sync_id) "
					 "WHERE s.environment_id = $1 AND c.source_schema = $2 AND c.source_table = $3 "
					 "UNION ALL SELECT 1 FROM bcmig.sync_table t JOIN bcmig.sync s USING (sync_id) "
					 "WHERE s.environment_id = $1 AND t.source_schema = $2 AND t.source_table = $3",
					 "itt", environment_id, f->schema, f->name) > 0;
}

/*
 * New tables and companions of companies this sync has, and companies no sync
 * of this blue has.
 */
static void
look_for_news(const BcmigSync *sync, const BcmigEnvironment *env)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigInventory *inventory;
	char	   *name = quote_literal_cstr(sync->name);
	BcmigCatalogScope scope;
	bool		has_company;
	ListCell   *lc;

	bcmig_start_transaction();
	MemoryContextSwitchTo(caller);
	bcmig_catalog_begin(&scope);
	has_company = bcmig_sql("SELECT 1 FROM bcmig.sync_table WHERE sync_id = $1 AND company IS NOT NULL LIMIT 1", "i", sync->sync_id) > 0;
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	if (!has_company)
	{
		bcmig_end_transaction();
		return;
	}
	inventory = bcmig_inventory(env, sync->owner);
	bcmig_catalog_begin(&scope);
	foreach(lc, inventory->companies)
	{
		char	   *company = lfirst(lc);

		if (bcmig_sql("SELECT 1 FROM bcmig.sync_table t JOIN bcmig.sync s USING (sync_id) WHERE s.environment_id = $1 AND t.company = $2 LIMIT 1",
					  "it", sync->environment_id, company) == 0)
			log_change(sync->sync_id, 0, "company added", company, NULL, NULL, "noticed",
					   psprintf("Blue has a company \"%s\" that no sync has.", company),
					   psprintf("SELECT * FROM bcmig_add_company(%s, %s);", name, quote_literal_cstr(company)));
	}
	foreach(lc, inventory->tables)
	{
		BcmigFound *f = lfirst(lc);

		CHECK_FOR_INTERRUPTS();
		if (f->left_out != NULL || f->company == NULL ||
			bcmig_sql("SELECT 1 FROM bcmig.sync_table WHERE sync_id = $1 AND company = $2 LIMIT 1",
					  "it", sync->sync_id, f->company) == 0 ||
			is_known(sync->environment_id, f))
			continue;
		if (f->base != NULL)
			log_change(sync->sync_id, 0, "companion added", f->name, NULL, NULL, "noticed",
					   psprintf("Blue has a new companion \"%s\" of table \"%s\".", f->name, f->base->name),
					   psprintf("SELECT format('SELECT bcmig_remove_table(%%L, %%L); -- then add it again', %s, format('%%I.%%I', target_schema, target_table)) "
								"FROM bcmig.sync_table WHERE source_table = %s;", name, quote_literal_cstr(f->base->name)));
		else
			log_change(sync->sync_id, 0, "table added", f->name, NULL, NULL, "noticed",
					   psprintf("Blue has a new table \"%s\" of company \"%s\".", f->name, f->company),
					   psprintf("SELECT bcmig_add_table(%s, %s);", name, quote_literal_cstr(f->name)));
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
}

/* ---- the job ---- */

/*
 * The next lot of tables with an id above *after.  In a transaction.
 */
static List *
load_lot(int sync_id, int *after)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *tables = NIL;
	int			ids[TABLES_AT_A_TIME];
	int			n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT t.table_id FROM bcmig.sync_table t JOIN bcmig.table_state s USING (table_id) "
				  "WHERE t.sync_id = $1 AND t.table_id > $2 AND s.made AND s.state <> 'pending' ORDER BY 1 LIMIT $3",
				  "iii", sync_id, *after, TABLES_AT_A_TIME);
	for (int i = 0; i < n; i++)
		ids[i] = bcmig_get_int64(i, 1, 0);
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	for (int i = 0; i < n; i++)
	{
		*after = ids[i];
		tables = lappend(tables, bcmig_load_table(ids[i]));
	}
	return tables;
}

static int
look_at_lot(const BcmigSync *sync, const BcmigEnvironment *env, int *after)
{
	MemoryContext caller = CurrentMemoryContext;
	const BcmigDialect *dialect;
	List	   *tables;
	List	   *names = NIL;
	List	   *described = NIL;
	Datum		same[TABLES_AT_A_TIME];
	int			nsame = 0;
	BcmigCatalogScope scope;
	ListCell   *lc;
	int			next = 0;

	bcmig_start_transaction();
	MemoryContextSwitchTo(caller);
	dialect = bcmig_dialect_of_server(env->serverid);
	tables = load_lot(sync->sync_id, after);
	foreach(lc, tables)
		names = list_concat(names, bcmig_table_names(lfirst(lc)));
	if (names != NIL)
		described = bcmig_describe(env, sync->owner, names);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	foreach(lc, tables)
	{
		BcmigTableInfo *table = lfirst(lc);
		int			parts = table->ncompanions + 1;
		List	   *changes = bcmig_compare_schema(table, list_copy_head(list_copy_tail(described, next), parts));

		CHECK_FOR_INTERRUPTS();
		if (changes != NIL)
			look_at_table(sync, table, changes, dialect);
		else
			same[nsame++] = Int32GetDatum(table->table_id);
		next += parts;
	}

	/* what was changed has been changed back, or followed by hand */
	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.schema_change SET settled_at = clock_timestamp() WHERE settled_at IS NULL AND table_id = ANY ($1)",
			  "n", PointerGetDatum(construct_array(same, nsame, INT4OID, 4, true, TYPALIGN_INT)));
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);
	return list_length(tables);
}

/* the entry of the sync's blue; caller holds the lock */
static BcmigBlue *
live_blue(const BcmigSync *sync)
{
	int			index = bcmig_live_blue(MyDatabaseId, sync->environment_id, sync->owner);

	return index >= 0 ? &bcmig_shared->blues[index] : NULL;
}

void
bcmig_run_look(int sync_id)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext lot = AllocSetContextCreate(caller, "bcmig look", ALLOCSET_DEFAULT_SIZES);
	BcmigSync  *sync;
	BcmigEnvironment *env = NULL;
	BcmigBlue  *blue;
	BcmigCatalogScope scope;
	uint64		mark;
	int			after = 0;
	int			n;

	bcmig_slot_phase("look at schema", NULL, 0);
	bcmig_start_transaction();
	MemoryContextSwitchTo(caller);
	sync = bcmig_read_sync(sync_id);
	if (sync != NULL)
		env = bcmig_load_environment(NULL, sync->environment_id);
	bcmig_end_transaction();
	if (sync == NULL)
		return;

	/* read before blue is asked: what changes meanwhile has another mark */
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	blue = live_blue(sync);
	mark = blue ? blue->schema_mark : 0;
	LWLockRelease(bcmig_shared->lock);

	do
	{
		MemoryContextReset(lot);
		MemoryContextSwitchTo(lot);
		n = look_at_lot(sync, env, &after);
	} while (n == TABLES_AT_A_TIME);
	MemoryContextReset(lot);
	MemoryContextSwitchTo(lot);
	look_for_news(sync, env);
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(lot);

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.sync_state SET schema_mark = $2 WHERE sync_id = $1", "iI", sync_id, (int64) mark);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
	blue = live_blue(sync);
	if (blue != NULL)
		blue->look_failures = 0;
	LWLockRelease(bcmig_shared->lock);
}

/*
 * Of no table: blue as a whole is looked at again later.
 */
void
bcmig_look_failed(int sync_id, const ErrorData *edata)
{
	BcmigSync  *sync;
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	sync = bcmig_read_sync(sync_id);
	if (sync != NULL)
	{
		BcmigBlue  *blue;

		LWLockAcquire(bcmig_shared->lock, LW_EXCLUSIVE);
		blue = live_blue(sync);
		if (blue != NULL)
			blue->look_not_before = TimestampTzPlusMilliseconds(bcmig_steady_time(),
																bcmig_backoff(++blue->look_failures, 1000, 60000));
		LWLockRelease(bcmig_shared->lock);
		bcmig_catalog_begin(&scope);
		bcmig_audit("error", sync->name, NULL, "look at schema", bcmig_error_text(edata, true));
		bcmig_catalog_end(&scope);
	}
	bcmig_end_transaction();
}
