/*-------------------------------------------------------------------------
 *
 * company.c
 *	  A whole company, or the tables of all companies, in one call.
 *
 * The tables are discovered, described many at a time, and added one by one, a
 * record with its companions as one table.  All in the caller's transaction, and
 * nothing but rows of the catalogue: ROLLBACK is the dry run, and until the sync
 * runs and its tables are made (make.c) the mapping may be edited.
 *
 * Memory: a context for each lot of tables; what a company of thousands has in
 * columns is never together in memory.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"

#include "ask.h"
#include "call.h"
#include "catalog/namespace.h"
#include "dictionary.h"
#include "discover.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "options.h"
#include "readable.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#define TABLES_AT_A_TIME	50	/* described together */
#define SHARED_SCHEMA		"bc_shared"

BCMIG_FUNCTION(bcmig_add_company);
BCMIG_FUNCTION(bcmig_add_shared);
BCMIG_FUNCTION(bcmig_remove_company);

/* tables on their way into a sync */
typedef struct NewTables
{
	const BcmigSync *sync;
	const BcmigEnvironment *env;
	const BcmigDialect *dialect;
	const BcmigInventory *inventory;
	BcmigDictionary *dictionary;
	char	   *company;		/* as inventory->companies has it; NULL = shared tables */
	char	   *schema;
	bool		snake;
	char	   *indexes;		/* option */
	List	   *taken;			/* names of tables given out */
	MemoryContext context;		/* of a lot */
} NewTables;

/* columns of table User no reader of green needs */
static const char *const user_secrets[] = {
	"Password", "Windows Security ID", "Name Identifier", "Authentication Key", "WebServices Key", "Exchange Identifier"
};

/*
 * The schema, made as the owner of the sync when it is missing.
 */
static void
ensure_schema(const NewTables *c)
{
	if (!OidIsValid(get_namespace_oid(c->schema, true)))
		bcmig_run_as(c->sync->owner, psprintf("CREATE SCHEMA %s", quote_identifier(c->schema)));
}

/* "name": ["a", "b"], or nothing */
static void
append_list(StringInfo json, const char *name, List *values)
{
	ListCell   *lc;

	foreach(lc, values)
	{
		appendStringInfo(json, lc == list_head(values) ? ", \"%s\": [" : ", ", name);
		escape_json(json, lfirst(lc));
	}
	if (values != NIL)
		appendStringInfoChar(json, ']');
}

static Jsonb *
options_of(const BcmigFound *found)
{
	StringInfoData json;
	List	   *companions = NIL;
	List	   *left_out = NIL;
	ListCell   *lc;

	foreach(lc, found->companions)
		companions = lappend(companions, ((BcmigFound *) lfirst(lc))->name);
	if (found->company == NULL && strcmp(found->al_name, "User") == 0)
	{
		for (int i = 0; i < lengthof(user_secrets); i++)
			left_out = lappend(left_out, unconstify(char *, user_secrets[i]));
	}
	initStringInfo(&json);
	appendStringInfoString(&json, "{\"source_schema\": ");
	escape_json(&json, found->schema);
	append_list(&json, "companions", companions);
	append_list(&json, "leave_out", left_out);
	appendStringInfoChar(&json, '}');
	return bcmig_table_options(NULL, DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json.data))));
}

/*
 * AL types and names of values of all columns, from the dictionary where it
 * knows them.
 */
static void
take_al_types(const NewTables *c, BcmigNewTable *new, const BcmigFound *found)
{
	for (int i = 0; i < new->ncolumns; i++)
	{
		BcmigColumn *column = &new->columns[i];
		const BcmigFound *companion = column->part > 0 ? list_nth(found->companions, column->part - 1) : NULL;
		const BcmigAlField *field = bcmig_dictionary_field(c->dictionary, found, companion, column->source);

		column->from_metadata = field != NULL;
		if (field != NULL)
		{
			column->al_type = pstrdup(field->type);
			new->enum_values[i] = bcmig_dictionary_values(c->dictionary, field);
		}
		else
		{
			const char *guess = bcmig_guess_al_type(column->source, column->native_type);

			column->al_type = guess ? pstrdup(guess) : NULL;
		}
	}
}

/* an index for each enabled secondary key of the AL table */
static List *
al_indexes(const NewTables *c, const BcmigFound *found)
{
	const BcmigAlTable *table = bcmig_dictionary_table(c->dictionary, found);
	List	   *indexes = NIL;
	int			number = 0;
	ListCell   *lc;
	ListCell   *lf;
	ListCell   *cell;

	foreach(lc, table ? table->keys : NIL)
	{
		BcmigAlKey *key = lfirst(lc);
		BcmigBlueIndex *index;

		if (++number == 1 || !key->enabled)
			continue;
		index = palloc0(sizeof(BcmigBlueIndex));
		foreach(lf, key->fields)
		{
			foreach(cell, table->fields)
			{
				BcmigAlField *field = lfirst(cell);

				if (field->number == lfirst_int(lf))
					index->columns = lappend(index->columns, bcmig_mapped_name(field->name, c->inventory->invalid_chars));
			}
		}
		/* a FlowFilter, or a field of an extension, has no column here */
		if (list_length(index->columns) == list_length(key->fields))
			indexes = lappend(indexes, index);
	}
	return indexes;
}

/*
 * Add some tables, with one question to blue for all of them.
 */
static void
add_some(NewTables *c, List *found, ReturnSetInfo *rsinfo)
{
	MemoryContext caller = CurrentMemoryContext;
	List	   *news = NIL;
	List	   *names = NIL;
	List	   *described;
	ListCell   *lc;
	ListCell   *cell;
	int			next = 0;

	foreach(lc, found)
	{
		BcmigFound *f = lfirst(lc);
		char	   *name = bcmig_green_name(c->snake ? bcmig_snake(f->al_name) : f->al_name, c->taken);

		c->taken = lappend(c->taken, name);
	}
	MemoryContextReset(c->context);
	MemoryContextSwitchTo(c->context);
	foreach(lc, found)
	{
		BcmigFound *f = lfirst(lc);
		BcmigNewTable *new = palloc0(sizeof(BcmigNewTable));

		new->sync = c->sync;
		new->source_table = f->name;
		new->snake = c->snake;
		new->company = c->company;
		new->al_table = f->al_name;
		new->options = options_of(f);
		bcmig_find_target(new, quote_qualified_identifier(c->schema,
														  list_nth(c->taken, list_length(c->taken) - list_length(found) + list_length(news))));
		names = list_concat(names, bcmig_names_of(new, c->dialect));
		news = lappend(news, new);
	}
	described = bcmig_describe(c->env, c->sync->owner, names);
	bcmig_dictionary_read(c->dictionary, found);
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
		bcmig_choose_columns(new);
		take_al_types(c, new, f);
		if (strcmp(c->indexes, "blue") != 0)
			new->blue->indexes = strcmp(c->indexes, "al") == 0 ? al_indexes(c, f) : NIL;
		(void) bcmig_add_described(new);
		values[0] = CStringGetTextDatum(f->name);
		values[1] = CStringGetTextDatum(quote_qualified_identifier(new->target_schema, new->target_table));
		values[2] = CStringGetTextDatum(new->capture);
		values[3] = Int64GetDatum(f->rows);
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	MemoryContextSwitchTo(caller);
}

/* views and grant_select hold for all tables of the sync, those to come as well; in a scope */
static void
store_sync_options(const BcmigSync *sync, Jsonb *options)
{
	char	   *text = JsonbToCString(NULL, &options->root, VARSIZE(options));

	(void) bcmig_granted_roles(text);
	bcmig_sql("UPDATE bcmig.sync SET options = options || coalesce((SELECT jsonb_object_agg(key, value) FROM jsonb_each($2) "
			  " WHERE key IN ('views', 'grant_select')), '{}') WHERE sync_id = $1", "ij", sync->sync_id, text);
}

/*
 * Add every table of c->company that is to be migrated.
 */
static void
add_tables(FunctionCallInfo fcinfo, NewTables *c, Jsonb *options, const char *what, const char *event)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *some = NIL;
	ListCell   *lc;
	int			tables = 0;
	char	   *given;

	bcmig_catalog_begin(&scope);
	options = bcmig_options_merge(NULL, options, "company");
	given = MemoryContextStrdup(caller, JsonbToCString(NULL, &options->root, VARSIZE(options)));
	store_sync_options(c->sync, options);
	c->snake = strcmp(bcmig_option_value("naming", options, NULL), "snake") == 0;
	c->indexes = MemoryContextStrdup(caller, bcmig_option_value("indexes", options, NULL));
	bcmig_catalog_end(&scope);

	ensure_schema(c);
	c->context = AllocSetContextCreate(caller, "bcmig company", ALLOCSET_DEFAULT_SIZES);
	c->dictionary = bcmig_open_dictionary(c->env, c->sync->owner, c->inventory);
	InitMaterializedSRF(fcinfo, 0);
	foreach(lc, c->inventory->tables)
	{
		BcmigFound *f = lfirst(lc);

		if (f->company != c->company || f->left_out != NULL || f->base != NULL)
			continue;
		some = lappend(some, f);
		tables++;
		if (list_length(some) == TABLES_AT_A_TIME)
		{
			add_some(c, some, rsinfo);
			some = NIL;
		}
	}
	if (tables == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("%s no tables this login may see", what),
				 errhint("SELECT * FROM bcmig_discover(%s);", quote_literal_cstr(c->env->name))));
	if (some != NIL)
		add_some(c, some, rsinfo);
	bcmig_catalog_begin(&scope);
	bcmig_audit("command", c->sync->name, NULL, event,
				psprintf("%s%s%d tables in schema %s, options %s", c->company ? c->company : "", c->company ? ": " : "",
						 tables, quote_identifier(c->schema), given));
	bcmig_catalog_end(&scope);
}

static void
begin(NewTables *c, FunctionCallInfo fcinfo)
{
	c->sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	c->env = bcmig_load_environment(NULL, c->sync->environment_id);
	c->dialect = bcmig_dialect_of_server(c->env->serverid);
	bcmig_require_bc(c->env);
	c->inventory = bcmig_inventory(c->env, c->sync->owner);
}

/*
 * bcmig_add_company(sync, company, target_schema, options)
 */
Datum
bcmig_add_company(PG_FUNCTION_ARGS)
{
	NewTables	c = {0};
	char	   *company = bcmig_arg_text(fcinfo, 1, "company");

	c.schema = bcmig_arg_optional_text(fcinfo, 2);
	begin(&c, fcinfo);
	c.company = bcmig_find_company(c.inventory, company);
	if (c.schema == NULL)
		c.schema = bcmig_snake(c.company);
	add_tables(fcinfo, &c, bcmig_arg_options(fcinfo, 3), psprintf("company \"%s\" has", c.company), "bcmig_add_company");
	return (Datum) 0;
}

/*
 * bcmig_add_shared(sync, target_schema, options)
 */
Datum
bcmig_add_shared(PG_FUNCTION_ARGS)
{
	NewTables	c = {0};

	c.schema = bcmig_arg_optional_text(fcinfo, 1);
	begin(&c, fcinfo);
	if (c.schema == NULL)
		c.schema = pstrdup(SHARED_SCHEMA);
	add_tables(fcinfo, &c, bcmig_arg_options(fcinfo, 2), "blue has, beside those of companies,", "bcmig_add_shared");
	return (Datum) 0;
}

/*
 * bcmig_remove_company(sync, company): blue is not asked, it may not have the
 * company any more.
 */
Datum
bcmig_remove_company(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *company = bcmig_arg_text(fcinfo, 1, "company");
	BcmigCatalogScope scope;
	int64		removed = bcmig_remove_tables_of(sync, company);

	if (removed == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" has no tables of company \"%s\"", sync->name, company),
				 errhint("SELECT DISTINCT company FROM bcmig.sync_table JOIN bcmig.sync USING (sync_id) WHERE name = %s;",
						 quote_literal_cstr(sync->name))));
	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.rule WHERE sync_id = $1 AND company = $2", "it", sync->sync_id, company);
	bcmig_audit("command", sync->name, NULL, "bcmig_remove_company",
				psprintf("%s, " INT64_FORMAT " tables", company, removed));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_INT64(removed);
}
