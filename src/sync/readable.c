/*-------------------------------------------------------------------------
 *
 * readable.c
 *	  The readable layer: a view per green table, for people and reports.
 *
 * Green tables are lossless copies: a blank date is 1753-01-01, a Boolean a
 * number, an Option its ordinal.  The view of a table shows what they mean.  It
 * is made from the catalogue alone, blue is not asked: what AL's metadata says
 * of a column, where it is known, decides; else the SQL type does.
 *
 * Views use nothing but what PostgreSQL has itself: a role needs no more than
 * SELECT on the view, and views outlive the extension.  They are made as the
 * owner of the sync, with that role's rights.
 *
 * What is made here has a comment that begins with "bcmig: "; a relation
 * without one is somebody else's and left alone.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "readable.h"

#include "access/xact.h"
#include "applier_lock.h"
#include "bc_names.h"
#include "call.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/comment.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

BCMIG_FUNCTION(bcmig_sql_make_views);

#define BLANK_DATE	"'1753-01-01'"

/* a view on its way */
typedef struct View
{
	BcmigReadTable *table;
	char	   *name;			/* quoted, with schema */
	List	   *taken;			/* names of columns given out */
	StringInfoData columns;
	StringInfoData comments;	/* statements */
} View;

/* ---------------------------------------------------------------------
 * The columns of a view
 * --------------------------------------------------------------------- */

static bool
is_type(const BcmigReadColumn *c, const char *begin)
{
	return strncmp(c->type, begin, strlen(begin)) == 0;
}

static bool
is_timestamp(const BcmigReadColumn *c)
{
	return is_type(c, "timestamp") && strstr(c->type, "without time zone") != NULL;
}

static bool
is_whole_number(const BcmigReadColumn *c)
{
	return strcmp(c->type, "smallint") == 0 || strcmp(c->type, "integer") == 0 || strcmp(c->type, "bigint") == 0;
}

static bool
is_al(const BcmigReadColumn *c, const char *al_type)
{
	return c->al_type != NULL && pg_strcasecmp(c->al_type, al_type) == 0;
}

/*
 * A name of AL in the naming of the table.
 */
char *
bcmig_readable_name(const BcmigReadTable *t, const char *al_name)
{
	return t->snake ? bcmig_snake(al_name) : bcmig_mapped_name(al_name, BCMIG_INVALID_CHARS);
}

/*
 * A column "name", or one much like it when that is taken; with a comment when
 * it is computed.
 */
static void
add_column(View *v, const char *name, const char *expression, const char *comment)
{
	appendStringInfo(&v->columns, "%s%s AS %s", v->columns.len > 0 ? ", " : "", expression, quote_identifier(name));
	if (comment != NULL)
		appendStringInfo(&v->comments, "COMMENT ON COLUMN %s.%s IS %s;", v->name, quote_identifier(name),
						 quote_literal_cstr(comment));
}

static void
add_computed(View *v, const char *name, const char *expression, const char *comment)
{
	char	   *free_name = bcmig_green_name(name, v->taken);

	v->taken = lappend(v->taken, free_name);
	add_column(v, free_name, expression, psprintf("bcmig: %s", comment));
}

/*
 * The names of an Option's or Enum's values, beside the number.
 */
static void
add_value_names(View *v, const BcmigReadColumn *c)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	StringInfoData names;
	const char *column = quote_identifier(c->target);
	uint64		n;

	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT value, name FROM bcmig.enum_value WHERE table_id = $1 AND ordinal = $2 ORDER BY value",
				  "ii", v->table->table_id, c->ordinal);
	MemoryContextSwitchTo(caller);
	initStringInfo(&names);
	appendStringInfo(&names, "CASE t.%s", column);
	for (uint64 i = 0; i < n; i++)
		appendStringInfo(&names, " WHEN %d THEN %s", (int) bcmig_get_int64(i, 1, 0),
						 quote_literal_cstr(bcmig_get_text(i, 2)));
	bcmig_catalog_end(&scope);
	appendStringInfo(&names, " ELSE t.%s::text END", column);
	if (n > 0)
		add_computed(v, psprintf("%s_name", c->target), names.data,
					 psprintf("name of the value of \"%s\" in AL; a number without a name is shown as it is", c->source));
}

/*
 * One column as people read it.  A target somebody made may have another type
 * than the one BC's values come in; that column is shown as it is stored.
 */
static void
add_readable(View *v, const BcmigReadColumn *c)
{
	const char *column = psprintf("t.%s", quote_identifier(c->target));
	char	   *expression = pstrdup(column);

	if (is_timestamp(c))
	{
		bool		system = strcmp(c->source, "$systemCreatedAt") == 0 || strcmp(c->source, "$systemModifiedAt") == 0;
		char	   *no_blank = psprintf("nullif(%s, " BLANK_DATE "::timestamp)", column);

		if (system || is_al(c, "DateTime"))
			expression = psprintf("%s AT TIME ZONE 'UTC'", no_blank);
		else if (is_al(c, "Date"))
		{
			add_column(v, c->target, psprintf("%s::date", no_blank), NULL);
			add_computed(v, psprintf("%s_is_closing", c->target),
						 psprintf("%s >= '1754-01-01' AND %s::time = '23:59:59'", column, column),
						 psprintf("true when \"%s\" is a closing date: after that day, before the next one", c->source));
			return;
		}
		else if (is_al(c, "Time"))
			expression = psprintf("%s::time(3)", no_blank);
		else if (c->al_type == NULL && strcmp(c->native_type, "datetime") == 0)
			expression = no_blank;
	}
	else if (is_whole_number(c))
	{
		if (is_al(c, "Boolean"))
			expression = psprintf("%s <> 0", column);
		else if (is_al(c, "Duration"))
			expression = psprintf("%s * '1 millisecond'::interval", column);
		else if (is_al(c, "Option") || is_al(c, "Enum"))
		{
			add_column(v, c->target, column, NULL);
			add_value_names(v, c);
			return;
		}
	}
	else if (is_type(c, "numeric") && is_al(c, "Decimal"))
		expression = psprintf("trim_scale(%s)", column);
	else if ((is_type(c, "character varying") || is_type(c, "text")) && is_al(c, "DateFormula"))
	{
		/* D, M and Y were seen; C, WD, W and Q are what the others are taken for */
		expression = psprintf("replace(translate(%s, E'\\x01\\x02\\x04\\x05\\x06\\x07', 'CDWMQY'), E'\\x03', 'WD')", column);
	}
	else if (is_type(c, "uuid") && (is_al(c, "Media") || is_al(c, "MediaSet")))
		expression = psprintf("nullif(%s, '00000000-0000-0000-0000-000000000000')", column);
	add_column(v, c->target, expression, NULL);
}

/* ---------------------------------------------------------------------
 * The views
 * --------------------------------------------------------------------- */

static char *
read_schema(const char *schema)
{
	return bcmig_green_name(psprintf("%s_read", schema), NIL);
}

/*
 * The schema of the views of "schema", made when it is missing; its name.
 */
static char *
ensure_read_schema(const BcmigSync *sync, const char *schema)
{
	char	   *name = read_schema(schema);

	if (!OidIsValid(get_namespace_oid(name, true)))
		bcmig_run_as(sync->owner,
					 psprintf("CREATE SCHEMA %s; COMMENT ON SCHEMA %s IS %s", quote_identifier(name), quote_identifier(name),
							  quote_literal_cstr(psprintf("bcmig: readable views of schema %s", quote_identifier(schema)))));
	return name;
}

/*
 * What uses a view and would go with it; NULL = nothing.
 */
static char *
users_of_view(Oid view)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *users;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT string_agg(DISTINCT CASE WHEN r.oid IS NULL THEN pg_describe_object(d.classid, d.objid, 0) "
			  "ELSE pg_describe_object('pg_class'::regclass, r.ev_class, 0) END, ', ') "
			  "FROM pg_depend d LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid "
			  "WHERE d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.deptype = 'n' "
			  "AND r.ev_class IS DISTINCT FROM $1", "o", view);
	MemoryContextSwitchTo(caller);
	users = bcmig_get_text(0, 1);
	bcmig_catalog_end(&scope);
	return users;
}

/*
 * The rights others have on a view, as statements.
 */
static char *
grants_of_view(Oid view, const char *name)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *grants;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT coalesce(string_agg(format('GRANT %s ON %s TO %s%s;', a.privilege_type, $2, "
			  "CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END, "
			  "CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' END), ''), '') "
			  "FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = $1 AND a.grantee <> c.relowner",
			  "ot", view, name);
	MemoryContextSwitchTo(caller);
	grants = bcmig_get_text(0, 1);
	bcmig_catalog_end(&scope);
	return grants;
}

typedef struct OwnersStatement
{
	Oid			owner;
	const char *sql;
} OwnersStatement;

static void
run_as_owner(void *arg)
{
	OwnersStatement *statement = arg;

	bcmig_run_as(statement->owner, statement->sql);
}

/*
 * Replace a view in place, which keeps what uses it and the rights on it.
 * false: its columns have changed so that PostgreSQL does not do that.
 */
static bool
replace_in_place(const BcmigSync *sync, const char *query)
{
	OwnersStatement statement = {sync->owner, query};
	ErrorData  *error = bcmig_try(run_as_owner, &statement);

	if (error != NULL && error->sqlerrcode != ERRCODE_INVALID_TABLE_DEFINITION)
		ReThrowError(error);
	return error == NULL;
}

static bool
is_our_view(Oid relid)
{
	char	   *comment = GetComment(relid, RelationRelationId, 0);

	return get_rel_relkind(relid) == RELKIND_VIEW && comment != NULL && strncmp(comment, "bcmig: ", 7) == 0;
}

/* ERROR when the name of a view is taken by something that is not ours */
static void
check_view_is_ours(const View *v, Oid relid)
{
	if (!is_our_view(relid))
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("%s is in the way of the readable view of %s", v->name,
						quote_qualified_identifier(v->table->schema, v->table->name)),
				 errdetail("It was not made by bcmig."),
				 errhint("ALTER %s %s RENAME TO ...;", get_rel_relkind(relid) == RELKIND_VIEW ? "VIEW" : "TABLE", v->name)));
}

static void
make_view(const BcmigSync *sync, BcmigReadTable *t, List *tables)
{
	View		v = {0};
	char	   *schema = ensure_read_schema(sync, t->schema);
	Oid			old = get_relname_relid(t->name, get_namespace_oid(schema, false));
	char	   *base = quote_qualified_identifier(t->schema, t->name);
	char	   *query;
	char	   *users;
	ListCell   *lc;

	v.table = t;
	v.name = quote_qualified_identifier(schema, t->name);
	initStringInfo(&v.columns);
	initStringInfo(&v.comments);
	bcmig_read_columns(t);
	for (int i = 0; i < t->ncolumns; i++)
		v.taken = lappend(v.taken, t->columns[i].target);
	for (int i = 0; i < t->ncolumns; i++)
		add_readable(&v, &t->columns[i]);
	foreach(lc, bcmig_flow_fields(t, tables))
	{
		BcmigComputed *f = lfirst(lc);

		add_computed(&v, bcmig_readable_name(t, f->al_name), f->expression,
					 psprintf("\"%s\" of Business Central: %s", f->al_name, f->formula));
	}
	appendStringInfo(&v.comments, "COMMENT ON VIEW %s IS %s;", v.name,
					 quote_literal_cstr(t->al_table == NULL ? psprintf("bcmig: %s, readable", base) :
										psprintf("bcmig: %s, readable (table \"%s\" of Business Central)", base, t->al_table)));
	query = psprintf("VIEW %s AS SELECT %s FROM %s t", v.name, v.columns.data, base);

	if (OidIsValid(old))
		check_view_is_ours(&v, old);
	if (!OidIsValid(old))
		bcmig_run_as(sync->owner, psprintf("CREATE %s", query));
	else if (!replace_in_place(sync, psprintf("CREATE OR REPLACE %s", query)))
	{
		users = users_of_view(old);
		if (users != NULL)
			ereport(ERROR,
					(errcode(ERRCODE_BM_WRONG_STATE),
					 errmsg("the columns of view %s have changed, but it is in use", v.name),
					 errdetail("It is used by: %s.", users),
					 errhint("Drop those, run SELECT bcmig.make_views(%s); and make them again.",
							 quote_literal_cstr(sync->name))));
		bcmig_run_as(sync->owner, psprintf("DROP VIEW %s; CREATE %s; %s", v.name, query, grants_of_view(old, v.name)));
	}
	bcmig_flow_functions(&v.comments, t, tables, schema);
	bcmig_run_as(sync->owner, v.comments.data);
}

/*
 * Who makes views locks tables that are read, who changes one that table and
 * then the views: without this each could wait for the other.
 */
static void
lock_views(int sync_id)
{
	LOCKTAG		tag;

	BCMIG_VIEWS_LOCKTAG(tag, sync_id);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

int
bcmig_make_views(const BcmigSync *sync, int *after, int most)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext context = AllocSetContextCreate(caller, "bcmig view", ALLOCSET_DEFAULT_SIZES);
	List	   *tables;
	ListCell   *lc;
	int			n = 0;

	lock_views(sync->sync_id);
	tables = bcmig_read_tables(sync->sync_id, NULL);
	foreach(lc, tables)
	{
		BcmigReadTable *t = lfirst(lc);

		if (t->table_id <= *after)
			continue;
		if (n == most)
			break;
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(context);
		make_view(sync, t, tables);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(context);
		*after = t->table_id;
		n++;
	}
	MemoryContextDelete(context);
	return n;
}

/*
 * What was made for a sync, as DROP and GRANT list it; NULL = nothing.
 */
static char *
views_of(const BcmigSync *sync)
{
	StringInfoData views;
	ListCell   *lc;

	initStringInfo(&views);
	foreach(lc, bcmig_read_tables(sync->sync_id, NULL))
	{
		BcmigReadTable *t = lfirst(lc);
		char	   *schema = read_schema(t->schema);
		Oid			nspid = get_namespace_oid(schema, true);
		Oid			view = OidIsValid(nspid) ? get_relname_relid(t->name, nspid) : InvalidOid;

		if (OidIsValid(view) && is_our_view(view))
			appendStringInfo(&views, "%s%s", views.len > 0 ? ", " : "", quote_qualified_identifier(schema, t->name));
	}
	return views.len > 0 ? views.data : NULL;
}

static char *
functions_of(const BcmigSync *sync)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *functions;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT string_agg(DISTINCT p.oid::regprocedure::text, ', ') "
			  "FROM bcmig.sync_table t "
			  "JOIN pg_namespace n ON n.nspname = t.target_schema "
			  "JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.target_table "
			  "JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.classid = 'pg_proc'::regclass "
			  "JOIN pg_proc p ON p.oid = d.objid "
			  "WHERE t.sync_id = $1 AND obj_description(p.oid, 'pg_proc') LIKE 'bcmig: %'", "i", sync->sync_id);
	MemoryContextSwitchTo(caller);
	functions = bcmig_get_text(0, 1);
	bcmig_catalog_end(&scope);
	return functions;
}

List *
bcmig_drop_views_statements(const BcmigSync *sync)
{
	char	   *views = views_of(sync);
	char	   *functions = functions_of(sync);
	List	   *statements = NIL;

	if (views != NULL)
		statements = lappend(statements, psprintf("DROP VIEW %s;", views));
	if (functions != NULL)
		statements = lappend(statements, psprintf("DROP FUNCTION %s;", functions));
	return statements;
}

void
bcmig_drop_views(const BcmigSync *sync)
{
	ListCell   *lc;

	lock_views(sync->sync_id);
	foreach(lc, bcmig_drop_views_statements(sync))
		bcmig_run_as(sync->owner, lfirst(lc));
}

void
bcmig_outdate_views(int sync_id)
{
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	bcmig_sql("UPDATE bcmig.sync_state SET views_made = NULL WHERE sync_id = $1", "i", sync_id);
	bcmig_catalog_end(&scope);
}

/* ---------------------------------------------------------------------
 * Who may read
 * --------------------------------------------------------------------- */

/*
 * The roles of option grant_select, as GRANT lists them; NULL = none.
 */
char *
bcmig_granted_roles(const char *options)
{
	BcmigCatalogScope scope;
	MemoryContext caller = CurrentMemoryContext;
	char	   *roles;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT min(name) FILTER (WHERE r.oid IS NULL), string_agg(quote_ident(name), ', ') "
			  "FROM jsonb_array_elements_text($1 -> 'grant_select') name LEFT JOIN pg_roles r ON rolname = name", "j", options);
	MemoryContextSwitchTo(caller);
	if (bcmig_get_text(0, 1) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("role \"%s\" of option grant_select does not exist", bcmig_get_text(0, 1)),
				 errhint("CREATE ROLE %s;", quote_identifier(bcmig_get_text(0, 1)))));
	roles = bcmig_get_text(0, 2);
	bcmig_catalog_end(&scope);
	return roles;
}

/*
 * Those of the roles that may not use a schema, as GRANT lists them; NULL =
 * all may.
 */
static char *
shut_out(const char *options, const char *schema)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *roles;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT string_agg(quote_ident(name), ', ') FROM jsonb_array_elements_text($1 -> 'grant_select') name "
			  "WHERE NOT has_schema_privilege(name, $2, 'USAGE')", "jt", options, schema);
	MemoryContextSwitchTo(caller);
	roles = bcmig_get_text(0, 1);
	bcmig_catalog_end(&scope);
	return roles;
}

/*
 * A GRANT that may not be given is a mere warning: look whether it works.
 */
static void
grant_usage(const BcmigSync *sync, const char *schema, const char *options)
{
	char	   *roles = shut_out(options, schema);

	if (roles == NULL)
		return;
	bcmig_run_as(sync->owner, psprintf("GRANT USAGE ON SCHEMA %s TO %s", quote_identifier(schema), roles));
	roles = shut_out(options, schema);
	if (roles != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("role \"%s\" may not grant USAGE on schema \"%s\"", GetUserNameFromId(sync->owner, false), schema),
				 errhint("GRANT USAGE ON SCHEMA %s TO %s;", quote_identifier(schema), roles)));
}

void
bcmig_grant_select(const BcmigSync *sync)
{
	char	   *options = JsonbToCString(NULL, &sync->options->root, VARSIZE(sync->options));
	char	   *roles = bcmig_granted_roles(options);
	List	   *schemas = NIL;
	char	   *views;
	char	   *functions;
	StringInfoData relations;
	ListCell   *lc;

	if (roles == NULL)
		return;
	initStringInfo(&relations);
	foreach(lc, bcmig_read_tables(sync->sync_id, NULL))
	{
		BcmigReadTable *t = lfirst(lc);
		char	   *schema = read_schema(t->schema);

		appendStringInfo(&relations, "%s%s", relations.len > 0 ? ", " : "", quote_qualified_identifier(t->schema, t->name));
		schemas = list_append_unique(schemas, makeString(t->schema));
		if (OidIsValid(get_namespace_oid(schema, true)))
			schemas = list_append_unique(schemas, makeString(schema));
	}
	if (relations.len == 0)
		return;
	views = views_of(sync);
	functions = functions_of(sync);
	bcmig_run_as(sync->owner, psprintf("GRANT SELECT ON %s TO %s", relations.data, roles));
	if (views != NULL)
		bcmig_run_as(sync->owner, psprintf("GRANT SELECT ON %s TO %s", views, roles));
	if (functions != NULL)
		bcmig_run_as(sync->owner, psprintf("GRANT EXECUTE ON FUNCTION %s TO %s", functions, roles));
	foreach(lc, schemas)
		grant_usage(sync, strVal(lfirst(lc)), options);
}

/*
 * bcmig.make_views(sync)
 */
Datum
bcmig_sql_make_views(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	int			after = 0;
	int			views = bcmig_make_views(sync, &after, INT_MAX);
	BcmigCatalogScope scope;

	bcmig_grant_select(sync);
	bcmig_catalog_begin(&scope);
	bcmig_audit("command", sync->name, NULL, "bcmig.make_views", psprintf("%d views", views));
	bcmig_catalog_end(&scope);
	PG_RETURN_INT32(views);
}
