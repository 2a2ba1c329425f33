/*-------------------------------------------------------------------------
 *
 * company.c
 *	  A whole company in one call.
 *
 * The tables of a company are discovered, described many at a time, and added
 * one by one, a record with its companions as one table.  All in the caller's
 * transaction: ROLLBACK is the dry run.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"

#include "ask.h"
#include "call.h"
#include "catalog/namespace.h"
#include "discover.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "options.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/tuplestore.h"

#define DESCRIBED_AT_A_TIME	50	/* tables in one question */

BCMIG_FUNCTION(bcmig_add_company);

/* a company on its way into a sync */
typedef struct NewCompany
{
	const BcmigSync *sync;
	const BcmigEnvironment *env;
	const BcmigDialect *dialect;
	char	   *schema;
	bool		snake;
	List	   *taken;			/* names of tables given out */
} NewCompany;

/*
 * The schema, made as the owner of the sync when it is missing.
 */
static void
ensure_schema(const NewCompany *c)
{
	BcmigCatalogScope scope;

	if (OidIsValid(get_namespace_oid(c->schema, true)))
		return;
	bcmig_catalog_begin(&scope);
	bcmig_restore_user(&scope);
	bcmig_run_as(c->sync->owner, psprintf("CREATE SCHEMA %s", quote_identifier(c->schema)));
	bcmig_become_catalog_owner(&scope);
	bcmig_catalog_end(&scope);
}

static Jsonb *
options_of(const BcmigFound *found)
{
	StringInfoData json;
	ListCell   *lc;

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"source_schema\": ");
	escape_json(&json, found->schema);
	foreach(lc, found->companions)
	{
		appendStringInfoString(&json, lc == list_head(found->companions) ? ", \"companions\": [" : ", ");
		escape_json(&json, ((BcmigFound *) lfirst(lc))->name);
	}
	appendStringInfoString(&json, found->companions != NIL ? "]}" : "}");
	return bcmig_table_options(NULL, DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data))));
}

/*
 * Add some tables, with one question to blue for all of them.
 */
static void
add_some(NewCompany *c, List *found, ReturnSetInfo *rsinfo)
{
	List	   *news = NIL;
	List	   *statements = NIL;
	List	   *described;
	ListCell   *lc;
	ListCell   *cell;
	int			next = 0;

	foreach(lc, found)
	{
		BcmigFound *f = lfirst(lc);
		BcmigNewTable *new = palloc0(sizeof(BcmigNewTable));
		char	   *name = bcmig_green_name(c->snake ? bcmig_snake(f->al_name) : f->al_name, c->taken);

		c->taken = lappend(c->taken, name);
		new->sync = c->sync;
		new->source_table = f->name;
		new->snake = c->snake;
		new->options = options_of(f);
		bcmig_find_target(new, quote_qualified_identifier(c->schema, name));
		statements = list_concat(statements, bcmig_describe_statements(new, c->dialect));
		news = lappend(news, new);
	}
	described = bcmig_read_descriptions(bcmig_ask(c->env->serverid, c->sync->owner, statements,
												  bcmig_ask_timeout(c->env, list_length(statements))));
	if (list_length(described) != list_length(statements))
		elog(ERROR, "blue described %d of %d tables", list_length(described), list_length(statements));
	forboth(lc, news, cell, found)
	{
		BcmigNewTable *new = lfirst(lc);
		BcmigFound *f = lfirst(cell);
		Datum		values[4];
		bool		nulls[4] = {0};
		List	   *own = list_copy_head(list_copy_tail(described, next), new->ncompanions + 1);

		CHECK_FOR_INTERRUPTS();
		next += new->ncompanions + 1;
		bcmig_take_descriptions(new, c->dialect, own);
		values[0] = CStringGetTextDatum(f->name);
		values[1] = CStringGetTextDatum(bcmig_add_described(new));
		values[2] = CStringGetTextDatum(new->capture);
		values[3] = Int64GetDatum(f->rows);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
}

/*
 * bcmig_add_company(sync, company, target_schema, options)
 */
Datum
bcmig_add_company(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	NewCompany	c = {0};
	char	   *company = bcmig_arg_text(fcinfo, 1, "company");
	Jsonb	   *options = bcmig_arg_options(fcinfo, 3);
	BcmigInventory *inventory;
	BcmigCatalogScope scope;
	List	   *some = NIL;
	ListCell   *lc;
	int			tables = 0;

	c.sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	c.env = bcmig_load_environment(NULL, c.sync->environment_id);
	c.dialect = bcmig_dialect_of_server(c.env->serverid);
	c.schema = bcmig_arg_optional_text(fcinfo, 2);

	bcmig_catalog_begin(&scope);
	options = bcmig_options_merge(NULL, options, "company");
	c.snake = strcmp(bcmig_option_value("naming", options, NULL), "snake") == 0;
	bcmig_catalog_end(&scope);

	inventory = bcmig_inventory(c.env, c.sync->owner);
	company = bcmig_find_company(inventory, company);
	if (c.schema == NULL)
		c.schema = bcmig_snake(company);
	ensure_schema(&c);

	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, inventory->tables)
	{
		BcmigFound *f = lfirst(lc);

		if (f->company != company || f->left_out != NULL || f->base != NULL)
			continue;
		some = lappend(some, f);
		tables++;
		if (list_length(some) == DESCRIBED_AT_A_TIME)
		{
			add_some(&c, some, rsinfo);
			some = NIL;
		}
	}
	if (tables == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("company \"%s\" has no tables this login may see", company),
				 errhint("SELECT * FROM bcmig_discover(%s);", quote_literal_cstr(c.env->name))));
	if (some != NIL)
		add_some(&c, some, rsinfo);
	return (Datum) 0;
}
