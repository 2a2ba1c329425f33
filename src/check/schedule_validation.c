/*-------------------------------------------------------------------------
 *
 * schedule_validation.c
 *	  Validations at fixed times, through pg_cron.
 *
 * pg_cron's own table is the only record of a schedule: a job of the name
 * "bcmig validate <sync>", made as the calling role, whose command calls
 * bcmig.validate_scheduled.  So \d and the views of pg_cron show all there is,
 * and a job somebody took away there is gone for us too.
 *
 * Jobs of other roles are found and taken away as the owner of schema bcmig,
 * who is a superuser.  All of it happens in the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "call.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/guc.h"

BCMIG_FUNCTION(bcmig_schedule_validation);
BCMIG_FUNCTION(bcmig_unschedule_validation);
BCMIG_FUNCTION(bcmig_validate_scheduled);

/* are pg_cron's functions there, and can they run? */
static bool
have_pg_cron(void)
{
	return OidIsValid(get_extension_oid("pg_cron", true)) &&
		GetConfigOption("cron.database_name", true, false) != NULL;
}

static void
require_pg_cron(void)
{
	char	   *database = get_database_name(MyDatabaseId);

	if (!have_pg_cron())
		ereport(ERROR,
				(errcode(ERRCODE_BM_MISSING_EXTENSION),
				 OidIsValid(get_extension_oid("pg_cron", true)) ?
				 errmsg("pg_cron is not in shared_preload_libraries") :
				 errmsg("extension pg_cron is not in database \"%s\"", database),
				 errdetail("Validations are scheduled by pg_cron, which works in one database of a server."),
				 errhint("apt-get install postgresql-%s-cron; in postgresql.conf: shared_preload_libraries = 'bcmig,pg_cron', cron.database_name = %s; restart; CREATE EXTENSION pg_cron;",
						 PG_MAJORVERSION, quote_literal_cstr(database))));
}

/* a name has to fit into type name; the number keeps cut ones apart */
static char *
job_name(int sync_id, const char *sync_name)
{
	char	   *name = psprintf("bcmig validate %s", sync_name);

	if (strlen(name) >= NAMEDATALEN)
	{
		name = psprintf("bcmig validate %d %s", sync_id, sync_name);
		name[pg_mbcliplen(name, strlen(name), NAMEDATALEN - 1)] = '\0';
	}
	return name;
}

/*
 * Take the jobs of this name away, of any role but "keep".  Returns how many
 * there were.  In a catalogue scope.
 */
static uint64
take_away(const char *name, const char *keep)
{
	return bcmig_sql("SELECT cron.unschedule(j.jobid) FROM cron.job j "
					 "WHERE j.jobname = $1::name AND j.database = current_database() AND j.username IS DISTINCT FROM $2",
					 "tt", name, keep);
}

/*
 * What pg_cron will run the job as: the calling role, which has to be able to
 * log in and to call what the job calls.
 */
static void
prepare_role(Oid role)
{
	char	   *name = GetUserNameFromId(role, false);
	const char *quoted = quote_identifier(name);
	BcmigCatalogScope scope;
	bool		login;
	bool		cron;
	bool		usage;
	bool		execute;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT rolcanlogin, has_schema_privilege(oid, 'cron', 'USAGE'), has_schema_privilege(oid, 'bcmig', 'USAGE'), "
			  " has_function_privilege(oid, 'bcmig.validate_scheduled(text, text)', 'EXECUTE') FROM pg_roles WHERE oid = $1", "o", role);
	login = bcmig_get_bool(0, 1);
	cron = bcmig_get_bool(0, 2);
	usage = bcmig_get_bool(0, 3);
	execute = bcmig_get_bool(0, 4);
	if (!login)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("role %s cannot log in", quoted),
				 errdetail("pg_cron runs the job as the role that schedules it."),
				 errhint("ALTER ROLE %s LOGIN; or SET ROLE to one that can.", quoted)));
	if (!cron)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role %s may not use schema cron", quoted),
				 errdetail("pg_cron runs the job as the role that schedules it."),
				 errhint("GRANT USAGE ON SCHEMA cron TO %s;", quoted)));
	if (!usage || !execute)
		bcmig_lock_grants();
	if (!usage)
		SPI_execute(psprintf("GRANT USAGE ON SCHEMA bcmig TO %s", quoted), false, 0);
	if (!execute)
		SPI_execute(psprintf("GRANT EXECUTE ON FUNCTION bcmig.validate_scheduled(text, text) TO %s", quoted), false, 0);
	bcmig_catalog_end(&scope);
}

/*
 * cron.schedule, as the caller.  A job of the same name and role is replaced.
 */
static int64
cron_schedule(const BcmigSync *sync, const char *name, const char *cron, const char *command)
{
	Oid			types[3] = {TEXTOID, TEXTOID, TEXTOID};
	Datum		values[3];
	MemoryContext caller = CurrentMemoryContext;
	int			guc_level;
	bool		isnull;
	int64		job;

	values[0] = CStringGetTextDatum(name);
	values[1] = CStringGetTextDatum(cron);
	values[2] = CStringGetTextDatum(command);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	PG_TRY();
	{
		if (SPI_execute_with_args("SELECT cron.schedule($1, $2, $3)", 3, types, values, NULL, false, 0) != SPI_OK_SELECT ||
			SPI_processed != 1)
			elog(ERROR, "cron.schedule gave no job");
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		/* what is no schedule; all else is not about our arguments */
		if (geterrcode() != ERRCODE_INVALID_PARAMETER_VALUE)
			PG_RE_THROW();
		MemoryContextSwitchTo(caller);
		edata = CopyErrorData();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("pg_cron refused the schedule \"%s\"", cron),
				 errdetail("pg_cron: %s", edata->message),
				 errhint("Minute, hour, day, month, weekday, in GMT; every quarter of an hour: SELECT bcmig_schedule_validation(%s, '*/15 * * * *');",
						 quote_literal_cstr(sync->name))));
	}
	PG_END_TRY();
	job = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
	AtEOXact_GUC(true, guc_level);
	SPI_finish();
	return job;
}

/*
 * bcmig_schedule_validation(sync, cron, mode) returns the job's id
 */
Datum
bcmig_schedule_validation(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *cron = bcmig_arg_text(fcinfo, 1, "cron");
	char	   *mode = bcmig_arg_text(fcinfo, 2, "mode");
	char	   *name = job_name(sync->sync_id, sync->name);
	BcmigCatalogScope scope;
	int64		job;

	bcmig_check_mode(mode);
	require_pg_cron();
	prepare_role(GetUserId());
	job = cron_schedule(sync, name, cron,
						psprintf("SELECT bcmig.validate_scheduled(%s, %s)", quote_literal_cstr(sync->name), quote_literal_cstr(mode)));
	bcmig_catalog_begin(&scope);
	(void) take_away(name, GetUserNameFromId(scope.userid, false));
	bcmig_audit("command", sync->name, NULL, "bcmig_schedule_validation",
				psprintf("%s, %s, job " INT64_FORMAT, cron, mode, job));
	bcmig_catalog_end(&scope);
	PG_RETURN_INT64(job);
}

/*
 * bcmig_unschedule_validation(sync)
 */
Datum
bcmig_unschedule_validation(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	BcmigCatalogScope scope;

	require_pg_cron();
	bcmig_catalog_begin(&scope);
	if (take_away(job_name(sync->sync_id, sync->name), NULL) == 0)
		ereport(NOTICE,
				(errmsg("no validation of sync \"%s\" is scheduled", sync->name)));
	else
		bcmig_audit("command", sync->name, NULL, "bcmig_unschedule_validation", NULL);
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * The sync is dropped.  Nothing here may stand in its way.
 */
char *
bcmig_unschedule_jobs(int sync_id, const char *sync_name, bool dry_run)
{
	char	   *name = job_name(sync_id, sync_name);
	char	   *statement;
	BcmigCatalogScope scope;
	uint64		jobs;

	if (!OidIsValid(get_extension_oid("pg_cron", true)))
		return NULL;
	statement = psprintf("SELECT cron.unschedule(jobid) FROM cron.job WHERE jobname = %s;", quote_literal_cstr(name));
	bcmig_catalog_begin(&scope);
	jobs = bcmig_sql("SELECT 1 FROM cron.job WHERE jobname = $1::name AND database = current_database()", "t", name);
	if (jobs > 0 && !dry_run)
	{
		if (have_pg_cron())
			(void) take_away(name, NULL);
		else
			ereport(WARNING,
					(errmsg("the scheduled validation of sync \"%s\" stays", sync_name),
					 errdetail("pg_cron is not in shared_preload_libraries, so its jobs cannot be changed."),
					 errhint("Later: %s", statement)));
	}
	bcmig_catalog_end(&scope);
	return jobs > 0 ? statement : NULL;
}

/*
 * bcmig.validate_scheduled(sync, mode): what the job runs.  Runs must not pile
 * up where one takes longer than the time between two; the row of the sync is
 * locked, so two calls cannot both find none.
 */
Datum
bcmig_validate_scheduled(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync;
	char	   *mode;
	BcmigCatalogScope scope;
	int64		run_id = 0;

	bcmig_require_loaded();
	sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	mode = bcmig_arg_text(fcinfo, 1, "mode");
	bcmig_check_mode(mode);
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT run_id FROM bcmig.validation_run "
				  "WHERE sync_id = $1 AND mode = $2 AND table_id IS NULL AND state = 'running' ORDER BY run_id LIMIT 1",
				  "it", sync->sync_id, mode) > 0)
	{
		run_id = bcmig_get_int64(0, 1, 0);
		bcmig_audit("command", sync->name, NULL, "validate_scheduled",
					psprintf("left out: run " INT64_FORMAT ", %s, is under way", run_id, mode));
	}
	bcmig_catalog_end(&scope);
	if (run_id != 0)
		PG_RETURN_NULL();
	PG_RETURN_INT64(bcmig_run_begin(sync, NULL, mode));
}
