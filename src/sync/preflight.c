/*-------------------------------------------------------------------------
 *
 * preflight.c
 *	  Can this sync run?  Checks of both sides, and what a copy will take.
 *
 * Blue is asked once: its own checks and a description of every table travel
 * in one question.  What holds for all tables is one row; what fails is a row
 * for each table, with the statement that mends it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"
#include "conflict.h"

#include <sys/statvfs.h>

#include "access/twophase.h"
#include "ask.h"
#include "call.h"
#include "catalog/namespace.h"
#include "catalog/pg_tablespace.h"
#include "dialect.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "options.h"
#include "reach.h"
#include "schema_change.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"

/* a table takes about these locks when all of a sync are locked at once */
#define LOCKS_PER_TABLE		8

/* what one worker copies while nothing has been measured here */
#define ASSUMED_BYTES_PER_S	(20.0 * 1024 * 1024)

BCMIG_FUNCTION(bcmig_preflight);
BCMIG_FUNCTION(bcmig_estimate);

/* a table of the sync, as green has it and as blue describes it */
typedef struct Candidate
{
	BcmigTableInfo *info;
	bool		pending;
	bool		made;			/* else green table and feed come when the sync runs */
	Oid			target;			/* InvalidOid = gone */
	bool		owned;			/* by the owner of the sync, or a role it is in */
	bool		may_index;		/* CREATE in its schema */
	BcmigBlueTable *blue;		/* NULL = blue did not answer */
	List	   *described;		/* blue, and its companions */
} Candidate;

/* checks that hold for every table, in the order they are reported */
enum TableCheck
{
	SOURCE_TABLES,
	SOURCE_GRANTS,
	SOURCE_COLUMNS,
	SOURCE_KEYS,
	TRACKING,
	TARGET_TABLES,
	TARGET_RIGHTS,
	TARGET_EMPTY,
	CONFLICT_POLICY,
	N_TABLE_CHECKS
};

static const char *const table_check_names[N_TABLE_CHECKS] = {
	"source tables", "source grants", "source columns", "source keys",
	"tracking", "target tables", "target rights", "target empty",
	"conflict policy"
};

typedef struct TableChecks
{
	List	   *rows;
	int			bad[N_TABLE_CHECKS];
} TableChecks;

static void
table_check(TableChecks *c, enum TableCheck check, const char *status,
			const Candidate *t, char *detail, char *fix)
{
	c->bad[check]++;
	c->rows = bcmig_add_check(c->rows, table_check_names[check], status,
							  t->info->target_name, NULL, detail, fix);
}

/*
 * All tables of a sync, in the caller's memory context.
 */
static List *
load_candidates(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *ids = NIL;
	List	   *result = NIL;
	ListCell   *lc;
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT table_id FROM bcmig.sync_table WHERE sync_id = $1 ORDER BY table_id",
				  "i", sync->sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
		ids = lappend_int(ids, bcmig_get_int64(i, 1, 0));
	bcmig_catalog_end(&scope);

	foreach(lc, ids)
	{
		Candidate  *t = palloc0(sizeof(Candidate));
		Oid			nspid;

		t->info = bcmig_load_table(lfirst_int(lc));
		nspid = get_namespace_oid(t->info->target_schema, true);
		t->target = OidIsValid(nspid) ? get_relname_relid(t->info->target_table, nspid) : InvalidOid;

		bcmig_catalog_begin(&scope);
		if (bcmig_sql("SELECT s.state = 'pending', s.made, coalesce(pg_has_role($3, c.relowner, 'USAGE'), false), "
					  " coalesce(has_schema_privilege($3, c.relnamespace, 'CREATE'), false) "
					  "FROM bcmig.table_state s LEFT JOIN pg_class c ON c.oid = $2 WHERE s.table_id = $1",
					  "ioo", t->info->table_id, t->target, sync->owner) > 0)
		{
			t->pending = bcmig_get_bool(0, 1);
			t->made = bcmig_get_bool(0, 2);
			t->owned = bcmig_get_bool(0, 3);
			t->may_index = bcmig_get_bool(0, 4);
		}
		bcmig_catalog_end(&scope);
		result = lappend(result, t);
	}
	return result;
}

/* tables and companions, for blue to describe */
static List *
names_of(List *candidates)
{
	List	   *names = NIL;
	ListCell   *lc;

	foreach(lc, candidates)
		names = list_concat(names, bcmig_table_names(((Candidate *) lfirst(lc))->info));
	return names;
}

static void
attach_descriptions(List *candidates, List *tables)
{
	ListCell   *lc;
	int			next = 0;

	if (tables == NIL)
		return;
	foreach(lc, candidates)
	{
		Candidate  *t = (Candidate *) lfirst(lc);

		t->described = list_copy_head(list_copy_tail(tables, next), t->info->ncompanions + 1);
		t->blue = linitial(t->described);
		next += t->info->ncompanions + 1;
	}
}

/*
 * Background processes: launcher, manager, a poller for each blue and owner,
 * workers, one question at a time.
 */
static List *
check_workers(List *checks, const BcmigSync *sync)
{
	BcmigCatalogScope scope;
	int			pollers;
	int			others = 0;
	int			needed;
	int			least;
	const char *replication = GetConfigOption("max_logical_replication_workers", true, false);
	const char *status;
	bool		enough;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT count(DISTINCT (environment_id, owner)) FROM bcmig.sync "
			  "WHERE wanted = 'running' OR sync_id = $1", "i", sync->sync_id);
	pollers = (int) bcmig_get_int64(0, 1, 0);
	bcmig_catalog_end(&scope);

	if (bcmig_shared != NULL)
	{
		LWLockAcquire(bcmig_shared->lock, LW_SHARED);
		for (int i = 0; i < BCMIG_MAX_SLOTS; i++)
			others += bcmig_shared->slots[i].in_use && bcmig_shared->slots[i].dboid != MyDatabaseId;
		LWLockRelease(bcmig_shared->lock);
	}
	/* the logical replication launcher takes one of them as well */
	if (replication != NULL && strcmp(replication, "0") != 0)
		others++;

	least = 1 + 1 + pollers + 1 + 1 + others;
	needed = least - 1 + bcmig_max_workers;
	enough = max_worker_processes >= needed;
	status = enough ? "ok" : max_worker_processes >= least ? "warn" : "fail";
	return bcmig_add_check(checks, "workers", status, psprintf("%d", max_worker_processes),
						   psprintf("%d", needed),
						   enough ? NULL : "Launcher, manager, pollers, workers and questions take background workers; with fewer, work goes on more slowly.",
						   enough ? NULL : psprintf("ALTER SYSTEM SET max_worker_processes = %d; -- and restart", needed));
}

static List *
check_locks(List *checks, int ntables)
{
	int64		capacity = (int64) max_locks_per_xact * (MaxBackends + max_prepared_xacts);
	int64		needed = (int64) ntables * LOCKS_PER_TABLE;
	bool		enough = needed <= capacity / 2;

	return bcmig_add_check(checks, "locks", enough ? "ok" : "warn",
						   psprintf(INT64_FORMAT, capacity), psprintf(INT64_FORMAT, needed * 2),
						   enough ? NULL : "Dropping or fencing the sync locks all its tables in one transaction.",
						   enough ? NULL : psprintf("ALTER SYSTEM SET max_locks_per_transaction = " INT64_FORMAT "; -- and restart",
													needed * 2 / (MaxBackends + max_prepared_xacts) + 1));
}

/*
 * Free space against what the tables still to be copied take on blue, for
 * each tablespace.
 */
static List *
check_disk(List *checks, List *candidates)
{
	List	   *spaces = NIL;
	ListCell   *lc;
	ListCell   *ls;

	foreach(lc, candidates)
	{
		Candidate  *t = (Candidate *) lfirst(lc);

		if (OidIsValid(t->target))
		{
			Oid			space = get_rel_tablespace(t->target);

			spaces = list_append_unique_oid(spaces, OidIsValid(space) ? space : MyDatabaseTableSpace);
		}
	}

	foreach(ls, spaces)
	{
		Oid			wanted = lfirst_oid(ls);
		char	   *path = wanted == DEFAULTTABLESPACE_OID ? pstrdup(DataDir) : psprintf("pg_tblspc/%u", wanted);
		struct statvfs vfs;
		double		needed = 0;
		double		available;
		const char *status;

		foreach(lc, candidates)
		{
			Candidate  *t = (Candidate *) lfirst(lc);
			Oid			space = OidIsValid(t->target) ? get_rel_tablespace(t->target) : InvalidOid;

			if (t->blue != NULL && t->pending && t->info->copy_data &&
				(OidIsValid(space) ? space : MyDatabaseTableSpace) == wanted)
				needed += t->blue->bytes;
		}
		if (statvfs(path, &vfs) != 0)
		{
			checks = bcmig_add_check(checks, "disk", "warn", NULL, NULL,
									 psprintf("Free space of \"%s\" cannot be read: %m", path), NULL);
			continue;
		}
		available = (double) vfs.f_bavail * vfs.f_frsize;
		status = available < needed ? "fail" : available < 1.5 * needed ? "warn" : "ok";
		checks = bcmig_add_check(checks, "disk", status,
								 psprintf("%.0f MB free", available / 1048576), psprintf("%.0f MB", needed * 1.5 / 1048576),
								 strcmp(status, "ok") == 0 ? NULL :
								 psprintf("The tables to be copied take %.0f MB on blue; WAL and index builds come on top.", needed / 1048576),
								 strcmp(status, "ok") == 0 ? NULL : "CREATE TABLESPACE big LOCATION '...'; -- or add disk space");
	}
	return checks;
}

static char *
again(const Candidate *t)
{
	return psprintf("SELECT bcmig_remove_table(%s, %s); -- then add it again",
					quote_literal_cstr(t->info->sync_name), quote_literal_cstr(t->info->target_name));
}

/* columns and key against what they were when the table was added */
static void
check_source_shape(TableChecks *c, const Candidate *t)
{
	ListCell   *lc;

	foreach(lc, bcmig_compare_schema(t->info, t->described))
	{
		BcmigChange *change = lfirst(lc);

		table_check(c, change->kind == BCMIG_KEY_CHANGED ? SOURCE_KEYS : SOURCE_COLUMNS,
					change->kind == BCMIG_COLUMN_ADDED ? "warn" : "fail", t,
					bcmig_change_text(t->info, change), again(t));
	}
}

static void
check_source(TableChecks *c, const Candidate *t)
{
	const BcmigTableInfo *info = t->info;
	const BcmigBlueTable *blue = t->blue;

	if (!blue->exists || !blue->is_table)
	{
		table_check(c, SOURCE_TABLES, "fail", t,
					psprintf("Blue has no table \"%s\".\"%s\".", info->source_schema, info->source_table),
					psprintf("SELECT bcmig_remove_table(%s, %s);", quote_literal_cstr(info->sync_name),
							 quote_literal_cstr(info->target_name)));
		return;
	}
	if (!blue->readable)
		table_check(c, SOURCE_GRANTS, "fail", t,
					psprintf("Blue does not let bcmig read \"%s\".\"%s\".", info->source_schema, info->source_table),
					blue->grant_fix);
	check_source_shape(c, t);

	if (strcmp(info->capture, "change_tracking") == 0)
	{
		if (blue->capture == NULL || strcmp(blue->capture, "change_tracking") != 0)
			table_check(c, TRACKING, "fail", t, "Blue records no changes of it.", blue->track_fix);
	}
	else if (strcmp(info->capture, "rowversion") == 0)
	{
		if (blue->capture == NULL || blue->stamp_column == NULL || info->version_column == NULL ||
			strcmp(blue->stamp_column, info->version_column) != 0)
			table_check(c, TRACKING, "fail", t, "Blue does not stamp its rows.", blue->stamp_fix);
	}
	else if (info->nkeys > 0)
		table_check(c, TRACKING, "warn", t, "It is kept by comparing all its rows: changes show after sweep_interval.",
					psprintf("%s\nSELECT bcmig_alter_table(%s, %s, '{\"capture\": \"auto\"}'); -- then on green",
							 blue->track_fix, quote_literal_cstr(info->sync_name), quote_literal_cstr(info->target_name)));
}

/* a table with rows, where the copy expects none */
static bool
has_rows(const char *target)
{
	BcmigCatalogScope scope;
	bool		found;

	bcmig_catalog_begin(&scope);
	SPI_execute(psprintf("SELECT 1 FROM %s LIMIT 1", target), true, 1);
	found = SPI_processed > 0;
	bcmig_catalog_end(&scope);
	return found;
}

/* a table that is made once the sync runs */
static void
check_future_target(TableChecks *c, const Candidate *t, const BcmigSync *sync)
{
	char	   *owner = GetUserNameFromId(sync->owner, false);
	BcmigCatalogScope scope;
	bool		there;
	bool		may_create = false;

	bcmig_catalog_begin(&scope);
	there = bcmig_sql("SELECT has_schema_privilege($1::oid, n.oid, 'CREATE') AND has_schema_privilege($1::oid, n.oid, 'USAGE') "
					  "FROM pg_namespace n WHERE n.nspname = $2", "ot", sync->owner, t->info->target_schema) > 0;
	if (there)
		may_create = bcmig_get_bool(0, 1);
	bcmig_catalog_end(&scope);
	if (!there)
		table_check(c, TARGET_TABLES, "fail", t, "Its schema is gone.",
					psprintf("CREATE SCHEMA %s AUTHORIZATION %s;", quote_identifier(t->info->target_schema), quote_identifier(owner)));
	else if (!may_create)
		table_check(c, TARGET_RIGHTS, "fail", t, psprintf("Role \"%s\" may not create tables in its schema.", owner),
					psprintf("GRANT USAGE, CREATE ON SCHEMA %s TO %s;", quote_identifier(t->info->target_schema), quote_identifier(owner)));
}

static void
check_target(TableChecks *c, const Candidate *t, const BcmigSync *sync)
{
	char	   *owner = GetUserNameFromId(sync->owner, false);
	char	   *refused;

	if (!t->made)
	{
		check_future_target(c, t, sync);
		return;
	}
	if (!OidIsValid(t->target))
	{
		table_check(c, TARGET_TABLES, "fail", t, "The green table is gone.", again(t));
		return;
	}
	refused = bcmig_reach_refuses(bcmig_reach_of(t->info), t->info->capture, t->info->nkeys);
	if (refused != NULL)
		table_check(c, TARGET_TABLES, "fail", t, refused, again(t));
	if (!t->owned)
		table_check(c, TARGET_RIGHTS, "fail", t, psprintf("Role \"%s\" does not own it.", owner),
					psprintf("ALTER TABLE %s OWNER TO %s;", t->info->target_name, quote_identifier(owner)));
	if (!t->may_index)
		table_check(c, TARGET_RIGHTS, "fail", t, psprintf("Role \"%s\" may not create indexes in its schema.", owner),
					psprintf("GRANT CREATE ON SCHEMA %s TO %s;", quote_identifier(t->info->target_schema), quote_identifier(owner)));
	if (t->pending && t->info->copy_data && has_rows(t->info->target_name))
		table_check(c, TARGET_EMPTY, "fail", t, "It holds rows already, and is to be copied.",
					psprintf("TRUNCATE %s; -- or bcmig_alter_table(..., '{\"copy_data\": false}')", t->info->target_name));
}

/*
 * How blue is to be fenced at the last step of a switch, once somebody has said
 * so: what is known without blue, and *statement for blue's own row.  A sync
 * runs without it: none of it fails.
 */
static List *
check_blue_fence(List *checks, const BcmigEnvironment *env, char **statement)
{
	const BcmigFenceDialect *fence = bcmig_dialect_of_server(env->serverid)->fence;
	char	   *name = quote_literal_cstr(env->name);
	JsonbValue	buf;
	BcmigCatalogScope scope;
	bool		by_call;
	bool		by_hook;
	bool		no_hook;
	bool		no_login;

	*statement = NULL;
	if (getKeyJsonValueFromContainer(&env->options->root, "fence_by", strlen("fence_by"), &buf) == NULL)
		return checks;
	bcmig_catalog_begin(&scope);
	by_call = strcmp(bcmig_option_value("fence_by", env->options, NULL), "call") == 0;
	by_hook = strcmp(bcmig_option_value("fence_by", env->options, NULL), "hook") == 0;
	no_hook = bcmig_option_value("fence_hook", env->options, NULL) == NULL;
	no_login = bcmig_option_value("bc_login", env->options, NULL) == NULL;
	bcmig_catalog_end(&scope);

	if (by_call && fence->call == NULL)
		return bcmig_add_check(checks, "fence", "warn", "call", "confirm or hook", "bcmig cannot fence this kind of blue itself.",
							   psprintf("SELECT bcmig_alter_environment(%s, '{\"fence_by\": \"confirm\"}');", name));
	if (by_hook && no_hook)
		return bcmig_add_check(checks, "fence", "warn", "hook", "fence_hook", "Nobody would be told to fence blue.",
							   psprintf("SELECT bcmig_alter_environment(%s, '{\"fence_hook\": \"https://...\"}');", name));
	if (fence->call == NULL && no_login)
		return bcmig_add_check(checks, "fence", "warn", "not to be seen", "bc_login",
							   "Whether blue is fenced can only be seen by the rights of Business Central's own user; without it a person has to say so (bcmig_confirm).",
							   psprintf("SELECT bcmig_alter_environment(%s, '{\"bc_login\": \"...\"}');", name));
	if (by_call)
		*statement = fence->preflight();
	else
		checks = bcmig_add_check(checks, "fence", "ok", by_hook ? "hook" : "confirm", NULL, NULL, NULL);
	return checks;
}

List *
bcmig_preflight_checks(const BcmigSync *sync)
{
	BcmigEnvironment *env = bcmig_load_environment(NULL, sync->environment_id);
	List	   *candidates = load_candidates(sync);
	List	   *checks = bcmig_green_checks();
	List	   *rows = NIL;
	List	   *statements;
	TableChecks tables = {0};
	bool		answered;
	char	   *fence;
	ErrorData  *error;
	char	   *problem;
	char	   *fix;
	ListCell   *lc;

	checks = check_workers(checks, sync);
	checks = check_locks(checks, list_length(candidates));
	checks = check_blue_fence(checks, env, &fence);

	error = bcmig_check_askable(env->serverid, sync->owner);
	if (error != NULL)
		checks = bcmig_add_check(checks, "owner", "fail", GetUserNameFromId(sync->owner, false), NULL,
								 error->message, error->hint);
	else
	{
		checks = bcmig_add_check(checks, "owner", "ok", GetUserNameFromId(sync->owner, false), NULL, NULL, NULL);
		statements = bcmig_dialect_of_server(env->serverid)->describe(names_of(candidates));
		if (fence != NULL)
			statements = lcons(fence, statements);
		checks = list_concat(checks, bcmig_blue_checks(env, sync->owner, statements, &rows));
	}
	attach_descriptions(candidates, bcmig_read_descriptions(rows));
	answered = rows != NIL;
	if (answered)
		checks = check_disk(checks, candidates);

	foreach(lc, candidates)
	{
		Candidate  *t = (Candidate *) lfirst(lc);

		if (t->blue != NULL)
			check_source(&tables, t);
		check_target(&tables, t, sync);
		problem = bcmig_policy_problem(t->info->table_id, &fix);
		if (problem != NULL)
			table_check(&tables, CONFLICT_POLICY, "fail", t, problem, fix);
	}
	/* what no table fails is one row */
	for (int i = 0; i < N_TABLE_CHECKS; i++)
	{
		if (tables.bad[i] == 0 && (answered || i >= TARGET_TABLES))
			checks = bcmig_add_check(checks, table_check_names[i], "ok",
									 psprintf("%d tables", list_length(candidates)), NULL, NULL, NULL);
	}
	return list_concat(checks, tables.rows);
}

/*
 * bcmig_preflight(sync)
 */
Datum
bcmig_preflight(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));

	return bcmig_return_checks(fcinfo, bcmig_preflight_checks(sync));
}

/*
 * bcmig_estimate(sync): rows, bytes and seconds of the copy of each table by
 * one worker, from what chunks took here so far.
 */
Datum
bcmig_estimate(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	BcmigEnvironment *env = bcmig_load_environment(NULL, sync->environment_id);
	List	   *candidates = load_candidates(sync);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	BcmigCatalogScope scope;
	double		rate = ASSUMED_BYTES_PER_S;
	const char *basis = "assumed";
	bool		isnull;
	Datum		measured;
	ListCell   *lc;

	InitMaterializedSRF(fcinfo, 0);
	if (candidates == NIL)
		return (Datum) 0;
	attach_descriptions(candidates, bcmig_describe(env, sync->owner, names_of(candidates)));

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT sum(c.bytes) / sum(c.seconds) FROM bcmig.copy_chunk c JOIN bcmig.sync_table t USING (table_id) "
			  "WHERE t.sync_id = $1 AND c.done AND c.bytes > 0 AND c.seconds > 0", "i", sync->sync_id);
	measured = bcmig_get_datum(0, 1, &isnull);
	if (!isnull)
	{
		rate = DatumGetFloat8(measured);
		basis = "measured";
	}
	bcmig_catalog_end(&scope);

	foreach(lc, candidates)
	{
		Candidate  *t = (Candidate *) lfirst(lc);
		Datum		values[5];
		bool		nulls[5] = {0};

		values[0] = CStringGetTextDatum(t->info->target_name);
		values[1] = Int64GetDatum(t->blue->rows);
		values[2] = Int64GetDatum(t->blue->bytes);
		values[3] = Float8GetDatum(t->blue->bytes / rate);
		values[4] = CStringGetTextDatum(basis);
		nulls[1] = nulls[2] = nulls[3] = !t->blue->exists;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
