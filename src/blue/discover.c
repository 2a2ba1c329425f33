/*-------------------------------------------------------------------------
 *
 * discover.c
 *	  What is on a Business Central blue: companies, tables, their shapes.
 *
 * Two questions: all tables with their keys; then table Company and the
 * characters BC maps to _, where the first answer has shown that they are there.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "discover.h"

#include "ask.h"
#include "call.h"
#include "catalog/pg_type.h"
#include "dialect.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "remote.h"
#include "utils/builtins.h"
#include "utils/tuplestore.h"

/* an inventory reads the catalogue of thousands of tables */
#define INVENTORY_STATEMENTS	100

BCMIG_FUNCTION(bcmig_companies);
BCMIG_FUNCTION(bcmig_discover);

void
bcmig_require_bc(const BcmigEnvironment *env)
{
	const BcmigDialect *dialect = bcmig_dialect_of_server(env->serverid);

	if (dialect->bc == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("Business Central is not discovered on a %s blue", dialect->name),
				 errhint("SELECT bcmig_add_table(...); for each table.")));
}

static void
add_collation(BcmigFound *t, char *collation)
{
	ListCell   *lc;

	if (collation == NULL)
		return;
	foreach(lc, t->collations)
	{
		if (strcmp(lfirst(lc), collation) == 0)
			return;
	}
	t->collations = lappend(t->collations, collation);
}

BcmigInventory *
bcmig_inventory(const BcmigEnvironment *env, Oid role)
{
	const BcmigDialect *dialect = bcmig_dialect_of_server(env->serverid);
	BcmigInventory *inventory = palloc0(sizeof(BcmigInventory));
	BcmigFound *t = NULL;
	bool		company = false;
	bool		property = false;
	List	   *rows;
	ListCell   *lc;

	bcmig_require_bc(env);
	rows = bcmig_ask(env->serverid, role, list_make1(dialect->bc->inventory()),
					 bcmig_ask_timeout(env, INVENTORY_STATEMENTS));
	foreach(lc, rows)
	{
		char	  **row = lfirst(lc);

		if (bcmig_answer_is(row, "table"))
		{
			t = palloc0(sizeof(BcmigFound));
			t->schema = bcmig_answer_text(row, 1);
			t->name = bcmig_answer_text(row, 2);
			t->rows = row[3] ? bcmig_answer_int64(row, 3) : 0;
			t->capture = row[4];
			t->has_identity = row[5] != NULL && row[5][0] == '1';
			inventory->tables = lappend(inventory->tables, t);
			company |= strcmp(t->name, "Company") == 0;
			property |= strcmp(t->name, "$ndo$dbproperty") == 0;
		}
		else if (bcmig_answer_is(row, "retention"))
			inventory->retention = row[1];
		else if (t != NULL && bcmig_answer_is(row, "key"))
		{
			t->keys = lappend(t->keys, bcmig_answer_text(row, 1));
			add_collation(t, row[2]);
		}
		else if (t != NULL && bcmig_answer_is(row, "identity"))
			t->identity = row[1];
		else if (t != NULL && bcmig_answer_is(row, "bytes"))
			t->bytes = bcmig_answer_int64(row, 1);
	}
	if (!company)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("environment \"%s\" is no Business Central database", env->name),
				 errdetail("It has no table Company this login may see, among %d tables.", list_length(inventory->tables)),
				 errhint("Check the option database of the foreign server; in a multitenant deployment name the tenant's database.")));

	/* what BC maps unless told otherwise */
	inventory->invalid_chars = BCMIG_INVALID_CHARS;
	rows = bcmig_ask(env->serverid, role, list_make1(dialect->bc->companies(property)), bcmig_ask_timeout(env, 2));
	foreach(lc, rows)
	{
		char	  **row = lfirst(lc);

		if (bcmig_answer_is(row, "company"))
			inventory->companies = lappend(inventory->companies, bcmig_answer_text(row, 1));
		else if (row[1] != NULL)
			inventory->invalid_chars = row[1];
	}
	bcmig_classify(inventory);
	return inventory;
}

char *
bcmig_find_company(const BcmigInventory *inventory, const char *name)
{
	ListCell   *lc;
	StringInfoData all;
	char	   *mapped = NULL;

	initStringInfo(&all);
	foreach(lc, inventory->companies)
	{
		char	   *company = lfirst(lc);

		if (strcmp(company, name) == 0)
			return company;
		if (strcmp(bcmig_mapped_name(company, inventory->invalid_chars), name) == 0)
			mapped = company;
		appendStringInfo(&all, "%s\"%s\"", all.len ? ", " : "", company);
	}
	if (mapped == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("blue has no company \"%s\"", name),
				 errdetail("Companies there: %s.", all.len ? all.data : "none"),
				 errhint("Name it exactly as blue spells it.")));
	return mapped;
}

/*
 * bcmig_companies(environment): company, tables, rows, bytes, suggested schema
 */
Datum
bcmig_companies(PG_FUNCTION_ARGS)
{
	BcmigEnvironment *env = bcmig_load_environment(bcmig_arg_text(fcinfo, 0, "environment"), 0);
	BcmigInventory *inventory = bcmig_inventory(env, GetUserId());
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;
	ListCell   *cell;

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, inventory->companies)
	{
		char	   *company = lfirst(lc);
		Datum		values[5];
		bool		nulls[5] = {0};
		int64		tables = 0;
		int64		rows = 0;
		int64		bytes = 0;

		foreach(cell, inventory->tables)
		{
			BcmigFound *t = lfirst(cell);

			if (t->company != company)
				continue;
			tables++;
			bytes += t->bytes;
			if (t->base == NULL)
				rows += t->rows;
		}
		values[0] = CStringGetTextDatum(company);
		values[1] = Int64GetDatum(tables);
		values[2] = Int64GetDatum(rows);
		values[3] = Int64GetDatum(bytes);
		values[4] = CStringGetTextDatum(bcmig_snake(company));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}

static char *
latency(const BcmigFound *t, const BcmigInventory *inventory)
{
	if (t->keys == NIL)
		return "sweep_interval: no key, compared as a whole";
	if (t->capture == NULL)
		return "sweep_interval: neither change tracking nor a row version";
	if (strcmp(t->capture, "change_tracking") == 0)
		return psprintf("max_latency: change tracking, kept for %s", inventory->retention ? inventory->retention : "an unknown time");
	return "15 s, deletes sweep_interval: no change tracking, read by [timestamp]";
}

/*
 * bcmig_discover(environment, company): a row per table
 */
Datum
bcmig_discover(PG_FUNCTION_ARGS)
{
	BcmigEnvironment *env = bcmig_load_environment(bcmig_arg_text(fcinfo, 0, "environment"), 0);
	char	   *company = bcmig_arg_optional_text(fcinfo, 1);
	BcmigInventory *inventory = bcmig_inventory(env, GetUserId());
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	ListCell   *lc;

	if (company != NULL)
		company = bcmig_find_company(inventory, company);
	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, inventory->tables)
	{
		BcmigFound *t = lfirst(lc);
		Datum		values[14];
		bool		nulls[14] = {0};

		if (company != NULL && t->company != company)
			continue;
		nulls[0] = t->company == NULL;
		values[0] = t->company ? CStringGetTextDatum(t->company) : (Datum) 0;
		values[1] = CStringGetTextDatum(t->schema);
		values[2] = CStringGetTextDatum(t->name);
		values[3] = CStringGetTextDatum(t->al_name);
		nulls[4] = t->app_id == NULL;
		values[4] = t->app_id ? CStringGetTextDatum(t->app_id) : (Datum) 0;
		values[5] = CStringGetTextDatum(t->shape);
		nulls[6] = t->base == NULL;
		values[6] = t->base ? CStringGetTextDatum(t->base->name) : (Datum) 0;
		values[7] = Int64GetDatum(t->rows);
		values[8] = Int64GetDatum(t->bytes);
		values[9] = bcmig_text_array(t->keys);
		values[10] = bcmig_text_array(t->collations);
		nulls[11] = t->identity == NULL;
		values[11] = t->identity ? CStringGetTextDatum(t->identity) : (Datum) 0;
		values[12] = CStringGetTextDatum(latency(t, inventory));
		nulls[13] = t->left_out == NULL;
		values[13] = t->left_out ? CStringGetTextDatum(t->left_out) : (Datum) 0;
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	return (Datum) 0;
}
