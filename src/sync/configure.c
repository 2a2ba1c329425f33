/*-------------------------------------------------------------------------
 *
 * configure.c
 *	  Syncs and their tables: create, alter, drop, add, remove.
 *
 * Everything happens in the caller's transaction, so BEGIN ... ROLLBACK is
 * the dry run, and an error leaves nothing half made.  Rows of progress tables
 * are only made here, with their defaults; from then on they are the engine's.
 *
 * Locks: the row of bcmig.sync is locked FOR NO KEY UPDATE, which serialises
 * configuration of one sync without standing in the way of foreign key checks
 * of workers.  A table is taken out under its applier lock, so that no worker
 * is in the middle of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"
#include "conflict.h"

#include "al_metadata.h"
#include "applier_lock.h"
#include "ask.h"
#include "call.h"
#include "catalog/namespace.h"
#include "catalog/pg_namespace.h"
#include "miscadmin.h"
#include "options.h"
#include "transform.h"
#include "reach.h"
#include "readable.h"
#include "state.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "worker.h"

#define MANY_TABLES		100		/* whose locks are too many for one transaction */

BCMIG_FUNCTION(bcmig_create_sync);
BCMIG_FUNCTION(bcmig_alter_sync);
BCMIG_FUNCTION(bcmig_drop_sync);
BCMIG_FUNCTION(bcmig_add_table);
BCMIG_FUNCTION(bcmig_alter_table);
BCMIG_FUNCTION(bcmig_remove_table);

static char *
options_text(Jsonb *options)
{
	return JsonbToCString(NULL, &options->root, VARSIZE(options));
}

/* a row of bcmig.sync by name or, for our processes, by id; NULL when there is none */
static BcmigSync *
read_sync(const char *name, int sync_id, bool lock)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext oldcontext;
	BcmigCatalogScope scope;
	BcmigSync  *sync = NULL;
	Datum		options;
	bool		isnull;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql(lock ? "SELECT sync_id, name, owner::oid, environment_id, wanted = 'running', options "
				  "FROM bcmig.sync WHERE CASE WHEN $1 IS NULL THEN sync_id = $2 ELSE name = $1 END FOR NO KEY UPDATE" :
				  "SELECT sync_id, name, owner::oid, environment_id, wanted = 'running', options "
				  "FROM bcmig.sync WHERE CASE WHEN $1 IS NULL THEN sync_id = $2 ELSE name = $1 END",
				  "ti", name, sync_id) > 0)
	{
		oldcontext = MemoryContextSwitchTo(caller);
		sync = palloc0(sizeof(BcmigSync));
		sync->sync_id = bcmig_get_int64(0, 1, 0);
		sync->name = bcmig_get_text(0, 2);
		sync->owner = bcmig_get_int64(0, 3, 0);
		sync->environment_id = bcmig_get_int64(0, 4, 0);
		sync->wanted = bcmig_get_bool(0, 5);
		options = bcmig_get_datum(0, 6, &isnull);
		sync->options = DatumGetJsonbPCopy(options);
		MemoryContextSwitchTo(oldcontext);
	}
	bcmig_catalog_end(&scope);
	return sync;
}

/*
 * Load a sync and lock its row; the caller must be a member of its owner.
 */
BcmigSync *
bcmig_load_sync(const char *name)
{
	BcmigSync  *sync = read_sync(name, 0, true);

	if (sync == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" does not exist", name),
				 errhint("SELECT name FROM bcmig.sync; or SELECT bcmig_create_sync(%s, '...');",
						 quote_literal_cstr(name))));
	bcmig_check_member(sync->owner, "sync", sync->name);
	return sync;
}

BcmigSync *
bcmig_read_sync(int sync_id)
{
	return read_sync(NULL, sync_id, false);
}

/*
 * The table of a sync by its target: schema.table or table, quoted or as it
 * is.  *name becomes the target's quoted name, in the caller's memory context.
 */
int
bcmig_find_table(const BcmigSync *sync, const char *target, char **name)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	uint64		n;
	int			table_id;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT table_id, format('%I.%I', target_schema, target_table) FROM bcmig.sync_table WHERE sync_id = $1 AND $2 IN "
				  "(format('%I.%I', target_schema, target_table), target_schema || '.' || target_table, "
				  " format('%I', target_table), target_table)", "it", sync->sync_id, target);
	if (n != 1)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 n == 0 ? errmsg("sync \"%s\" has no target \"%s\"", sync->name, target) :
				 errmsg("sync \"%s\" has several targets \"%s\"", sync->name, target),
				 errhint("SELECT format('%%I.%%I', target_schema, target_table) FROM bcmig.sync_table JOIN bcmig.sync USING (sync_id) WHERE name = %s;",
						 quote_literal_cstr(sync->name))));
	table_id = bcmig_get_int64(0, 1, 0);
	*name = MemoryContextStrdup(caller, bcmig_get_text(0, 2));
	bcmig_catalog_end(&scope);
	return table_id;
}

/*
 * Two sessions that change the rights on one object at the same time fail with
 * "tuple concurrently updated": let them come one after the other.  A lock that
 * conflicts with itself only, until the end of the transaction; taking it makes
 * what the other one has committed visible.
 */
void
bcmig_lock_grants(void)
{
	LockDatabaseObject(NamespaceRelationId, get_namespace_oid("bcmig", false), 0,
					   ShareUpdateExclusiveLock);
}

static bool
has_key(Jsonb *options, const char *name)
{
	JsonbValue	buf;

	return getKeyJsonValueFromContainer(&options->root, name, strlen(name), &buf) != NULL;
}

/*
 * Roles named in the options of a sync.  In a catalogue scope.  Whoever writes
 * behind the fence must not be the one user expressions run as in our processes.
 */
static void
check_roles(Jsonb *options, Oid owner)
{
	char	   *name = bcmig_option_value("maintenance_role", NULL, options);
	Oid			role = name ? get_role_oid(name, true) : InvalidOid;

	(void) bcmig_granted_roles(options_text(options));
	if (name == NULL)
		return;
	if (!OidIsValid(role))
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("role \"%s\" of option maintenance_role does not exist", name),
				 errhint("CREATE ROLE %s;", quote_identifier(name))));
	if (role == owner)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("the owner of a sync cannot be its maintenance_role"),
				 errdetail("Functions and triggers of users run as role \"%s\" while bcmig writes.", name),
				 errhint("CREATE ROLE bcmig_maintenance; GRANT %s TO bcmig_maintenance;", quote_identifier(name))));
}

/*
 * bcmig_create_sync(sync, blue, options)
 */
Datum
bcmig_create_sync(PG_FUNCTION_ARGS)
{
	char	   *name = bcmig_arg_new_name(fcinfo, 0, "sync");
	BcmigEnvironment *env = bcmig_load_environment(bcmig_arg_text(fcinfo, 1, "blue"), 0);
	Jsonb	   *options = bcmig_arg_options(fcinfo, 2);
	Oid			owner = GetUserId();
	ErrorData  *error;
	BcmigCatalogScope scope;
	char	   *stored;
	int			sync_id;

	if (!env->blue)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("environment \"%s\" is not a blue", env->name),
				 errhint("SELECT name FROM bcmig.environment WHERE side = 'blue';")));
	error = bcmig_check_askable(env->serverid, owner);
	if (error != NULL)
		ThrowErrorData(error);

	bcmig_catalog_begin(&scope);
	options = bcmig_options_merge(NULL, options, "sync");
	stored = options_text(options);
	check_roles(options, owner);
	/* against a session that removes it */
	if (bcmig_sql("SELECT 1 FROM bcmig.environment WHERE environment_id = $1 FOR KEY SHARE",
				  "i", env->environment_id) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("environment \"%s\" has just been removed", env->name),
				 errhint("SELECT name FROM bcmig.environment WHERE side = 'blue';")));
	if (bcmig_sql("INSERT INTO bcmig.sync (name, environment_id, owner, options) VALUES ($1, $2, $3, $4) "
				  "ON CONFLICT (name) DO NOTHING RETURNING sync_id",
				  "tioj", name, env->environment_id, owner, stored) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("sync \"%s\" exists already", name),
				 errhint("SELECT bcmig_alter_sync(%s, '{...}');", quote_literal_cstr(name))));
	sync_id = bcmig_get_int64(0, 1, 0);
	bcmig_sql("INSERT INTO bcmig.sync_state (sync_id) VALUES ($1)", "i", sync_id);
	bcmig_lock_grants();
	if (owner != env->owner)
		SPI_execute(psprintf("GRANT SELECT ON bcmig.%s TO %s",
							 bcmig_environment_feed(env->environment_id),
							 quote_identifier(GetUserNameFromId(owner, false))), false, 0);
	/* what the statements of apply.c call */
	SPI_execute(psprintf("GRANT USAGE ON SCHEMA bcmig TO %1$s; "
						 "GRANT EXECUTE ON FUNCTION bcmig.exact(anyelement, anyelement, text) TO %1$s",
						 quote_identifier(GetUserNameFromId(owner, false))), false, 0);
	bcmig_audit("command", name, NULL, "bcmig_create_sync", stored);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	bcmig_check_depends_on(name);
	PG_RETURN_VOID();
}

/*
 * bcmig_alter_sync(sync, options)
 */
Datum
bcmig_alter_sync(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	Jsonb	   *change = bcmig_arg_options(fcinfo, 1);
	Jsonb	   *options;
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_audit("command", sync->name, NULL, "bcmig_alter_sync", options_text(change));
	options = bcmig_options_merge(sync->options, change, "sync");
	check_roles(options, sync->owner);
	bcmig_sql("UPDATE bcmig.sync SET options = $2 WHERE sync_id = $1",
			  "ij", sync->sync_id, options_text(options));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	if (has_key(change, "conflict"))
		bcmig_require_policy(sync, 0);
	if (has_key(change, "depends_on"))
		bcmig_check_depends_on(sync->name);
	PG_RETURN_VOID();
}

static void
require_stopped(const BcmigSync *sync)
{
	if (sync->wanted)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("sync \"%s\" is running", sync->name),
				 errhint("SELECT bcmig_stop_sync(%s);", quote_literal_cstr(sync->name))));
}

static List *
add_step(List *steps, char *statement, bool reversible, char *expected)
{
	return bcmig_add_step(steps, "green", statement, reversible, expected, "nothing has changed: all is one transaction");
}

/* the statements that take one table out, in the caller's memory context */
typedef struct Removal
{
	int			table_id;
	char	   *target;			/* quoted */
	char	   *feed;
	bool		drop_target;
	int64		quarantined;
} Removal;

/* of a sync: one table, or (0) those of a company, or (NULL) all */
static List *
removals(int sync_id, int table_id, const char *company, bool drop_tables)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *result = NIL;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT t.table_id, format('%I.%I', t.target_schema, t.target_table), t.feed, "
				  " t.made_target AND $3 AND to_regclass(format('%I.%I', t.target_schema, t.target_table)) IS NOT NULL, "
				  " (SELECT count(*) FROM bcmig.quarantine q WHERE q.table_id = t.table_id) "
				  "FROM bcmig.sync_table t WHERE t.sync_id = $1 AND ($2 = 0 OR t.table_id = $2) AND ($4 IS NULL OR t.company = $4) ORDER BY t.table_id",
				  "iibt", sync_id, table_id, (int) drop_tables, company);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		Removal    *r = palloc(sizeof(Removal));

		r->table_id = bcmig_get_int64(i, 1, 0);
		r->target = bcmig_get_text(i, 2);
		r->feed = bcmig_get_text(i, 3);
		r->drop_target = bcmig_get_bool(i, 4);
		r->quarantined = bcmig_get_int64(i, 5, 0);
		result = lappend(result, r);
	}
	bcmig_catalog_end(&scope);
	return result;
}

/*
 * Take one table out.  What it wrote to green stays unless the target goes.
 * Where there are many, their feeds are left for the manager to drop: all in
 * one transaction would need more locks than a server has by default.
 */
static void
remove_table(const BcmigSync *sync, const Removal *r, bool many)
{
	BcmigCatalogScope scope;
	LOCKTAG		tag;

	bcmig_switch_room->changing(sync);
	BCMIG_APPLIER_LOCKTAG(tag, r->table_id);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.quarantine WHERE table_id = $1", "i", r->table_id);
	bcmig_sql("DELETE FROM bcmig.sync_table WHERE table_id = $1", "i", r->table_id);
	if (!many)
		SPI_execute(psprintf("DROP FOREIGN TABLE IF EXISTS bcmig.%s", quote_identifier(r->feed)), false, 0);
	bcmig_catalog_end(&scope);
	if (r->drop_target)
		bcmig_change_green(sync->owner, r->target, psprintf("DROP TABLE %s", r->target));
}

int64
bcmig_remove_tables_of(const BcmigSync *sync, const char *company)
{
	List	   *tables = removals(sync->sync_id, 0, company, false);
	ListCell   *lc;

	foreach(lc, tables)
	{
		CHECK_FOR_INTERRUPTS();
		remove_table(sync, lfirst(lc), list_length(tables) > MANY_TABLES);
	}
	return list_length(tables);
}

/* readers that are sent to green would go on reading what nobody keeps in step */
static void
require_no_traffic(const BcmigSync *sync)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT green_percent FROM bcmig.traffic WHERE sync_id = $1 AND (green_percent > 0 OR intent IS NOT NULL) AND completed_at IS NULL FOR UPDATE",
				  "i", sync->sync_id) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("%s %% of the readers of sync \"%s\" are on green", bcmig_get_text(0, 1), sync->name),
				 errhint("SELECT bcmig_set_traffic(%s, 0);", quote_literal_cstr(sync->name))));
	bcmig_catalog_end(&scope);
}

/*
 * bcmig_drop_sync(sync, drop_tables, dry_run)
 */
Datum
bcmig_drop_sync(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	bool		drop_tables = bcmig_arg_bool(fcinfo, 1);
	bool		dry_run = bcmig_arg_bool(fcinfo, 2);
	BcmigCatalogScope scope;
	List	   *tables;
	List	   *steps = NIL;
	ListCell   *lc;
	char	   *unschedule;

	require_stopped(sync);
	require_no_traffic(sync);
	bcmig_require_no_dependents(sync);
	tables = removals(sync->sync_id, 0, NULL, drop_tables);
	foreach(lc, drop_tables ? bcmig_drop_views_statements(sync) : NIL)
	{
		steps = add_step(steps, lfirst(lc), true, "the readable views are gone");
		if (!dry_run)
			bcmig_run_as(sync->owner, lfirst(lc));
	}
	foreach(lc, tables)
	{
		Removal    *r = (Removal *) lfirst(lc);

		if (r->quarantined > 0)
			steps = add_step(steps, psprintf("DELETE FROM bcmig.quarantine WHERE table_id = %d;", r->table_id), false,
							 psprintf(INT64_FORMAT " quarantined rows of %s are discarded", r->quarantined, r->target));
		steps = add_step(steps, psprintf("DROP FOREIGN TABLE bcmig.%s;", quote_identifier(r->feed)), true,
						 psprintf("%s is not fed any more", r->target));
		if (r->drop_target)
			steps = add_step(steps, psprintf("DROP TABLE %s;", r->target), false,
							 psprintf("%s and its rows are gone", r->target));
		if (!dry_run)
			remove_table(sync, r, list_length(tables) > MANY_TABLES);
	}
	unschedule = bcmig_check_room->unschedule(sync->sync_id, sync->name, dry_run);
	if (unschedule != NULL)
		steps = add_step(steps, unschedule, true, "validations are not run by pg_cron any more");
	steps = add_step(steps, psprintf("DELETE FROM bcmig.sync WHERE name = %s;", quote_literal_cstr(sync->name)), false,
					 psprintf("configuration and progress of %d tables are gone; the audit log stays", list_length(tables)));

	if (!dry_run)
	{
		bcmig_catalog_begin(&scope);
		bcmig_sql("DELETE FROM bcmig.sync WHERE sync_id = $1", "i", sync->sync_id);
		bcmig_sql("DELETE FROM bcmig.metric WHERE sync_id = $1", "i", sync->sync_id);
		if (bcmig_sql("SELECT 1 FROM bcmig.sync WHERE environment_id = $1 AND owner::oid = $2 "
					  "UNION ALL SELECT 1 FROM bcmig.environment WHERE environment_id = $1 AND owner::oid = $2",
					  "io", sync->environment_id, sync->owner) == 0)
		{
			bcmig_lock_grants();
			SPI_execute(psprintf("REVOKE SELECT ON bcmig.%s FROM %s",
								 bcmig_environment_feed(sync->environment_id),
								 quote_identifier(GetUserNameFromId(sync->owner, false))), false, 0);
			bcmig_sql("DELETE FROM bcmig.blue_position WHERE environment_id = $1 AND owner = $2",
					  "io", sync->environment_id, sync->owner);
		}
		bcmig_audit("command", sync->name, NULL, "bcmig_drop_sync",
					drop_tables ? "with the tables bcmig had made" : NULL);
		bcmig_config_changed();
		bcmig_catalog_end(&scope);
	}
	return bcmig_return_steps(fcinfo, steps);
}

static void
store_column(int table_id, int ordinal, const BcmigColumn *c, List *values)
{
	ListCell   *lc;

	bcmig_sql("INSERT INTO bcmig.column_map (table_id, ordinal, source_column, source_type, target_column, "
			  " target_type, key_position, row_identity, native_type, part, not_null, default_value, al_type, type_source) "
			  "VALUES ($1, $2, $3, $4, $5, $6, nullif($7, 0), $8, $9, $10, $11, $12, $13, $14)",
			  "iittttibtibttt", table_id, ordinal, c->source, c->source_type, c->target, c->target_type,
			  c->key_position, (int) c->row_identity, c->native_type, c->part,
			  (int) c->not_null, c->default_value, c->al_type, c->from_metadata ? "metadata" : "sql");
	foreach(lc, values)
	{
		BcmigAlOption *o = lfirst(lc);

		bcmig_sql("INSERT INTO bcmig.enum_value (table_id, ordinal, value, name) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
				  "iiit", table_id, ordinal, o->ordinal, o->name);
	}
}

/*
 * The rows of a table in the catalogue; returns its id.
 */
static int
store_table(BcmigNewTable *new)
{
	BcmigCatalogScope scope;
	int			table_id;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT nextval(pg_get_serial_sequence('bcmig.sync_table', 'table_id'))::int", "");
	table_id = bcmig_get_int64(0, 1, 0);
	if (bcmig_sql("INSERT INTO bcmig.sync_table (table_id, sync_id, source_schema, source_table, target_schema, "
				  " target_table, feed, capture, version_column, indexes, made_target, options, company, al_table, naming) "
				  "OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15) "
				  "ON CONFLICT DO NOTHING RETURNING 1", "iitttttttjbjttt",
				  table_id, new->sync->sync_id, new->source_schema, new->source_table,
				  new->target_schema, new->target_table, psprintf("feed_%d", table_id),
				  new->capture, new->version_column, new->indexes, (int) !OidIsValid(new->target),
				  options_text(new->options), new->company, new->al_table,
				  new->snake ? "snake" : "source") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("table %s, or its source, has just been added by another session",
						quote_qualified_identifier(new->target_schema, new->target_table)),
				 errhint("SELECT * FROM bcmig.sync_table;")));
	for (int i = 0; i < new->ncolumns; i++)
		store_column(table_id, i + 1, &new->columns[i], new->enum_values[i]);
	for (int i = 0; i < new->ncompanions; i++)
	{
		BcmigCompanion *p = &new->companions[i];
		Datum	   *keys = palloc(sizeof(Datum) * p->nkeys);

		for (int k = 0; k < p->nkeys; k++)
			keys[k] = CStringGetTextDatum(p->keys[k]);
		bcmig_sql("INSERT INTO bcmig.companion (table_id, part, source_schema, source_table, version_column, key_columns) "
				  "VALUES ($1, $2, $3, $4, $5, $6)", "iitttk", table_id, i + 1, p->schema, p->table, p->version_column,
				  PointerGetDatum(construct_array(keys, p->nkeys, TEXTOID, -1, false, TYPALIGN_INT)));
	}
	bcmig_sql("INSERT INTO bcmig.table_state (table_id) VALUES ($1)", "i", table_id);
	bcmig_audit("command", new->sync->name,
				quote_qualified_identifier(new->target_schema, new->target_table), "bcmig_add_table",
				psprintf("%s.%s, capture %s, options %s", quote_identifier(new->source_schema),
						 quote_identifier(new->source_table), new->capture, options_text(new->options)));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	return table_id;
}

static void
check_source_is_free(const BcmigNewTable *new)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT format('%I.%I', target_schema, target_table) FROM bcmig.sync_table "
				  "WHERE sync_id = $1 AND source_schema = $2 AND source_table = $3",
				  "itt", new->sync->sync_id, new->source_schema, new->source_table) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("table \"%s\".\"%s\" of blue is already in sync \"%s\"",
						new->source_schema, new->source_table, new->sync->name),
				 errdetail("Its target is %s.", bcmig_get_text(0, 1)),
				 errhint("SELECT bcmig_alter_table(%s, %s, '{...}');", quote_literal_cstr(new->sync->name),
						 quote_literal_cstr(bcmig_get_text(0, 1)))));
	bcmig_catalog_end(&scope);
}

/* options of a table from an argument, merged into "base"; in the caller's memory context */
Jsonb *
bcmig_table_options(Jsonb *base, Jsonb *change)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	Jsonb	   *merged;

	bcmig_catalog_begin(&scope);
	merged = bcmig_options_merge(base, change, "table");
	MemoryContextSwitchTo(caller);
	merged = DatumGetJsonbPCopy(JsonbPGetDatum(merged));
	bcmig_catalog_end(&scope);
	return merged;
}

int
bcmig_add_described(BcmigNewTable *new)
{
	char	   *filter = bcmig_filter_of(new->options);

	bcmig_switch_room->changing(new->sync);
	check_source_is_free(new);
	if (filter != NULL)
		bcmig_check_filter(new->sync->owner, new->ncolumns, new->columns, filter);
	if (OidIsValid(new->target))
	{
		bcmig_check_target(new);
		new->indexes = "[]";	/* its owner's business */
	}
	else
		bcmig_choose_indexes(new);
	return store_table(new);
}

/*
 * bcmig_add_table(sync, source_table, target, options) returns the target
 */
Datum
bcmig_add_table(PG_FUNCTION_ARGS)
{
	BcmigNewTable new = {0};
	char	   *target = bcmig_arg_optional_text(fcinfo, 2);
	int			table_id;

	new.sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	new.source_table = bcmig_arg_text(fcinfo, 1, "source_table");
	new.options = bcmig_table_options(NULL, bcmig_arg_options(fcinfo, 3));

	/* what can be said without blue comes first */
	bcmig_find_target(&new, target);
	bcmig_describe_source(&new);
	bcmig_choose_columns(&new);
	table_id = bcmig_add_described(&new);
	bcmig_make_table(table_id);
	if (has_key(new.options, "conflict"))
		bcmig_require_policy(new.sync, table_id);
	PG_RETURN_TEXT_P(cstring_to_text(quote_qualified_identifier(new.target_schema, new.target_table)));
}

/*
 * Another capture for a table that is there: blue is asked again.  A table
 * that has begun is resynced, its position being of the old kind.
 */
static void
change_capture(const BcmigSync *sync, int table_id, Jsonb *options)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	BcmigNewTable new = {0};
	const BcmigTableInfo *table = bcmig_load_table(table_id);
	char	   *refused;

	new.sync = sync;
	new.options = options;
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT source_schema, source_table FROM bcmig.sync_table WHERE table_id = $1", "i", table_id);
	MemoryContextSwitchTo(caller);
	new.source_schema = bcmig_get_text(0, 1);
	new.source_table = bcmig_get_text(0, 2);
	bcmig_catalog_end(&scope);

	bcmig_describe_source(&new);
	bcmig_choose_capture(&new);
	refused = bcmig_reach_refuses(bcmig_reach_of(table), new.capture, table->nkeys);
	if (refused != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("table %s cannot be captured by %s", table->target_name, new.capture),
				 errdetail("%s", refused),
				 errhint("SELECT undistribute_table(%s);", quote_literal_cstr(table->target_name))));

	bcmig_catalog_begin(&scope);
	if (new.version_column != NULL &&
		bcmig_sql("SELECT 1 FROM bcmig.column_map WHERE table_id = $1 AND part = 0 AND source_column = $2",
				  "it", table_id, new.version_column) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_WRONG_STATE),
				 errmsg("column \"%s\" of blue is copied as it is, and now holds the row version", new.version_column),
				 errhint("Remove the table from the sync and add it again.")));
	bcmig_sql("UPDATE bcmig.sync_table SET capture = $2, version_column = $3 WHERE table_id = $1",
			  "itt", table_id, new.capture, new.version_column);
	bcmig_catalog_end(&scope);
	bcmig_state_resync(sync->environment_id, sync->owner, table_id, "its capture was changed");
}

/*
 * bcmig_alter_table(sync, target, options)
 */
Datum
bcmig_alter_table(PG_FUNCTION_ARGS)
{
	static const char *const fixed[] = {"companions", "key", "keyless", "leave_out", "source_schema"};
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *target;
	int			table_id = bcmig_find_table(sync, bcmig_arg_text(fcinfo, 1, "target"), &target);
	Jsonb	   *change = bcmig_arg_options(fcinfo, 2);
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	Datum		stored;
	bool		isnull;
	Jsonb	   *options;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT options FROM bcmig.sync_table WHERE table_id = $1", "i", table_id);
	stored = bcmig_get_datum(0, 1, &isnull);
	MemoryContextSwitchTo(caller);
	options = DatumGetJsonbPCopy(stored);
	bcmig_catalog_end(&scope);

	options = bcmig_table_options(options, change);
	for (int i = 0; i < lengthof(fixed); i++)
	{
		if (has_key(change, fixed[i]))
			ereport(ERROR,
					(errcode(ERRCODE_BM_WRONG_STATE),
					 errmsg("option \"%s\" cannot be changed once a table has been added", fixed[i]),
					 errhint("SELECT bcmig_remove_table(%s, %s); then add the table again.",
							 quote_literal_cstr(sync->name), quote_literal_cstr(target))));
	}
	if (has_key(change, "row_filter"))
		bcmig_change_filter(sync, table_id, options);
	if (has_key(change, "capture"))
		change_capture(sync, table_id, options);

	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.sync_table SET options = $2 WHERE table_id = $1",
			  "ij", table_id, options_text(options));
	bcmig_audit("command", sync->name, target, "bcmig_alter_table", options_text(change));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	if (has_key(change, "conflict") || has_key(change, "conflict_function"))
		bcmig_require_policy(sync, table_id);
	if (has_key(change, "compression"))
		bcmig_compress_target(table_id);
	PG_RETURN_VOID();
}

/*
 * bcmig_remove_table(sync, target): allowed while the sync runs.  The green
 * table stays.
 */
Datum
bcmig_remove_table(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *target;
	int			table_id = bcmig_find_table(sync, bcmig_arg_text(fcinfo, 1, "target"), &target);
	Removal    *r = linitial(removals(sync->sync_id, table_id, NULL, false));
	BcmigCatalogScope scope;

	remove_table(sync, r, false);
	bcmig_catalog_begin(&scope);
	bcmig_audit("command", sync->name, target, "bcmig_remove_table", NULL);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}
