/*-------------------------------------------------------------------------
 *
 * map_column.c
 *	  Transforms of columns and the row filter, as a DBA sets them.
 *
 * A change is made under the table's applier lock, held until it commits: no
 * rows are under way then that were read with the mapping before, and a job
 * that was begun with it finds out before it writes (worker.c).  In the same
 * transaction the table is put into resync, so that all rows are written anew;
 * a green table bcmig made is altered, one a person made must fit already.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"
#include "transform.h"

#include "access/table.h"
#include "applier_lock.h"
#include "call.h"
#include "catalog/catalog.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "nodes/makefuncs.h"
#include "options.h"
#include "parser/parse_type.h"
#include "readable.h"
#include "state.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

BCMIG_FUNCTION(bcmig_map_column);
BCMIG_FUNCTION(bcmig_unmap_column);

/* a change of one column */
typedef struct Change
{
	const BcmigSync *sync;
	const BcmigTableInfo *table;
	bool		made_target;	/* bcmig made the green table, or will */
	bool		there;			/* it is there */
	const BcmigColumn *old;
	BcmigColumn new;
	char	   *type;			/* of what the transform gives */
	char	   *stored;			/* the transform, as jsonb; NULL = none */
} Change;

/* ---- what was written ---- */

static const char *const kinds[] = {NULL, "drop", "constant", "builtin", "sql"};

static void
bad_transform(const char *message)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("%s", message),
			 errdetail("A transform is an object with \"drop\": true, or \"rename\": a name and one of \"constant\", \"builtin\", \"sql\"."),
			 errhint("SELECT bcmig_map_column('...', '...', '...', '{\"builtin\": \"blank_date\"}');")));
}

static void
unknown_word(const char *what, const char *word, List *known)
{
	char	   *near = bcmig_near_names(word, known);
	StringInfoData all;
	ListCell   *lc;

	initStringInfo(&all);
	foreach(lc, known)
		appendStringInfo(&all, "%s%s", all.len ? ", " : "", (char *) lfirst(lc));
	ereport(ERROR,
			(errcode(ERRCODE_BM_OPTION),
			 errmsg("there is no %s \"%s\"", what, word),
			 near[0] ? errdetail("Near names: %s.", near) : 0,
			 errhint("There are: %s.", all.data)));
}

static char *
string_of(const JsonbValue *v, const char *key)
{
	if (v->type != jbvString || v->val.string.len == 0)
		bad_transform(psprintf("\"%s\" must be a text that is not empty", key));
	return pnstrdup(v->val.string.val, v->val.string.len);
}

/* one built-in, or an array of them */
static char *
builtin_names(JsonbValue *v)
{
	StringInfoData s;
	JsonbIterator *it;
	JsonbValue	e;
	JsonbIteratorToken token;

	if (v->type == jbvString)
		return string_of(v, "builtin");
	if (v->type != jbvBinary || !JsonContainerIsArray(v->val.binary.data))
		bad_transform("\"builtin\" must be a name or an array of names");
	initStringInfo(&s);
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &e, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM)
			appendStringInfo(&s, "%s%s", s.len ? "," : "", string_of(&e, "builtin"));
	}
	if (s.len == 0)
		bad_transform("\"builtin\" names none");
	return s.data;
}

static char *
constant_text(JsonbValue *v)
{
	switch (v->type)
	{
		case jbvNull:
			return NULL;
		case jbvString:
			return pnstrdup(v->val.string.val, v->val.string.len);
		case jbvBool:
			return pstrdup(v->val.boolean ? "true" : "false");
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric)));
		default:
			bad_transform("\"constant\" must be a text, a number, true, false or null");
	}
	return NULL;				/* keep compiler quiet */
}

/* transform and transform_value of the column, and its new name (NULL = its own) */
static void
parse_transform(Jsonb *transform, BcmigColumn *c, char **rename)
{
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;

	*rename = NULL;
	c->transform = BCMIG_AS_IS;
	c->transform_value = NULL;
	if (transform == NULL)
		return;
	if (!JB_ROOT_IS_OBJECT(transform) || JB_ROOT_COUNT(transform) == 0)
		bad_transform("this is no transform");
	it = JsonbIteratorInit(&transform->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		char	   *key;
		int			kind = 0;

		if (token != WJB_KEY)
			continue;
		key = pnstrdup(v.val.string.val, v.val.string.len);
		(void) JsonbIteratorNext(&it, &v, true);
		if (strcmp(key, "rename") == 0)
		{
			*rename = string_of(&v, key);
			continue;
		}
		for (int i = BCMIG_DROP; i < lengthof(kinds); i++)
		{
			if (strcmp(key, kinds[i]) == 0)
				kind = i;
		}
		if (kind == 0)
			unknown_word("transform", key, list_make5("drop", "rename", "constant", "builtin", "sql"));
		if (c->transform != BCMIG_AS_IS)
			bad_transform(psprintf("\"%s\" and \"%s\" exclude each other", kinds[c->transform], key));
		c->transform = (BcmigTransformKind) kind;
		if (kind == BCMIG_DROP && (v.type != jbvBool || !v.val.boolean))
			bad_transform("\"drop\" must be true");
		if (kind == BCMIG_CONSTANT)
			c->transform_value = constant_text(&v);
		else if (kind == BCMIG_BUILTIN)
			c->transform_value = builtin_names(&v);
		else if (kind == BCMIG_SQL)
			c->transform_value = string_of(&v, key);
	}
	if (c->transform == BCMIG_DROP && *rename != NULL)
		bad_transform("\"drop\" and \"rename\" exclude each other");
}

/* ---- may it be ---- */

static void
check_key(const Change *change)
{
	const BcmigColumn *c = &change->new;

	if (c->transform == BCMIG_AS_IS || (c->key_position == 0 && !c->row_identity))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_BM_UNSUITABLE),
			 errmsg("column \"%s\" of %s can be renamed only", c->source, change->table->target_name),
			 errdetail("%s", c->key_position > 0 ? "It is part of the key: a row is found by it on both sides, so its values must be blue's." :
					   "Rows whose key is renamed are found by it, so its values must be blue's."),
			 errhint("The readable view shows it another way: SELECT bcmig_alter_sync(%s, '{\"views\": true}');",
					 quote_literal_cstr(change->table->sync_name))));
}

static void
check_builtins(const Change *change)
{
	const BcmigColumn *c = &change->new;
	const char *type = c->source_type;
	char	   *copy = pstrdup(c->transform_value);

	for (char *name = strtok(copy, ","); name != NULL; name = strtok(NULL, ","))
	{
		const char *before = type;
		const char *expected;

		if (!bcmig_is_builtin(name))
			unknown_word("built-in transform", name, bcmig_builtins());
		if (!bcmig_builtin_takes(name, &type, &expected))
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("built-in transform \"%s\" is not for column \"%s\" of type %s", name, c->source, before),
					 errdetail("It takes %s.", expected),
					 errhint("An expression can do more: {\"sql\": \"...\"}.")));
	}
}

/* does the constant fit the type whole? */
static void
check_constant(const Change *change)
{
	const BcmigColumn *c = &change->new;
	BcmigCatalogScope scope;
	Oid			type;
	int32		typmod;
	char	   *base;
	bool		fits;

	if (c->transform_value == NULL)
		return;
	bcmig_catalog_begin(&scope);
	parseTypeString(c->target_type, &type, &typmod, false);
	base = format_type_extended(type, -1, FORMAT_TYPE_FORCE_QUALIFY);
	SPI_execute(psprintf("SELECT %1$s::%2$s::%3$s IS NOT DISTINCT FROM %1$s::%3$s", quote_literal_cstr(c->transform_value),
						 c->target_type, base), true, 1);
	fits = bcmig_get_bool(0, 1);
	bcmig_catalog_end(&scope);
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("\"%s\" cannot be represented exactly in column %s of type %s", c->transform_value,
						quote_identifier(c->target), c->target_type),
				 errhint("Write a value of that type.")));
}

/* may values of one type be written to a column of the other?  What does not fit is found row by row. */
static bool
may_hold(const char *from, const char *to)
{
	BcmigCatalogScope scope;
	Oid			from_type;
	Oid			to_type;
	int32		typmod;
	char		category;
	bool		preferred;
	bool		fits;

	bcmig_catalog_begin(&scope);
	fits = bcmig_type_fits(from, to);
	if (!fits)
	{
		/* a text may be too long for a column, and is refused then */
		parseTypeString(from, &from_type, &typmod, false);
		parseTypeString(to, &to_type, &typmod, false);
		get_type_category_preferred(from_type, &category, &preferred);
		fits = category == TYPCATEGORY_STRING && (to_type == VARCHAROID || to_type == TEXTOID) &&
			(from_type == VARCHAROID || from_type == TEXTOID);
	}
	bcmig_catalog_end(&scope);
	return fits;
}

static void
check_name(const Change *change, const char *rename)
{
	const BcmigTableInfo *table = change->table;
	bool		taken = strcmp(rename, "bc_op") == 0 || strcmp(rename, "bc_rowversion") == 0;

	if (strlen(rename) >= NAMEDATALEN)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("the name \"%s\" is too long", rename),
				 errdetail("It has %zu bytes, at most %d are allowed.", strlen(rename), NAMEDATALEN - 1)));
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (&table->columns[i] != change->old && strcmp(table->columns[i].target, rename) == 0)
			taken = true;
	}
	if (!taken && change->made_target && change->there && strcmp(rename, change->old->target) != 0)
	{
		Relation	rel = table_openrv(makeRangeVar(table->target_schema, table->target_table, -1), AccessShareLock);

		taken = get_attnum(RelationGetRelid(rel), rename) != InvalidAttrNumber;
		table_close(rel, NoLock);
	}
	if (taken)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("the name \"%s\" is taken in %s", rename, table->target_name),
				 errhint("SELECT source_column, target_column FROM bcmig.column_map JOIN bcmig.sync_table USING (table_id) WHERE target_table = %s;",
						 quote_literal_cstr(table->target_table))));
}

/* the column of a green table a person made: it must be ready for what is to come */
static void
check_green_column(Change *change)
{
	const BcmigTableInfo *table = change->table;
	BcmigColumn *c = &change->new;
	const char *name = quote_identifier(c->target);
	Relation	rel = table_openrv(makeRangeVar(table->target_schema, table->target_table, -1), AccessShareLock);
	AttrNumber	attnum = get_attnum(RelationGetRelid(rel), c->target);
	Form_pg_attribute att = attnum > 0 ? TupleDescAttr(RelationGetDescr(rel), attnum - 1) : NULL;
	char	   *wrong = NULL;
	char	   *fix = NULL;

	if (att == NULL)
	{
		if (c->transform != BCMIG_DROP)
		{
			wrong = psprintf("It has no column %s.", name);
			fix = strcmp(c->target, change->old->target) != 0 && get_attnum(RelationGetRelid(rel), change->old->target) > 0 ?
				psprintf("RENAME COLUMN %s TO %s", quote_identifier(change->old->target), name) :
				psprintf("ADD COLUMN %s %s", name, change->type ? change->type : c->source_type);
		}
	}
	else if (c->transform == BCMIG_DROP)
	{
		if (att->attnotnull && !att->atthasdef && att->attidentity == '\0')
		{
			wrong = psprintf("Column %s is NOT NULL, has no default, and would not be written.", name);
			fix = psprintf("ALTER COLUMN %s DROP NOT NULL", name);
		}
	}
	else
	{
		BcmigCatalogScope scope;
		MemoryContext caller = CurrentMemoryContext;

		bcmig_catalog_begin(&scope);	/* types are spelled for search_path pg_catalog */
		MemoryContextSwitchTo(caller);
		c->target_type = format_type_with_typemod(att->atttypid, att->atttypmod);
		bcmig_catalog_end(&scope);
		MemoryContextSwitchTo(caller);
		if (att->attgenerated != '\0')
			wrong = psprintf("Column %s is generated.", name);
		else if (c->transform != BCMIG_CONSTANT && !may_hold(change->type, c->target_type))
		{
			wrong = psprintf("Column %s has type %s, the values have type %s.", name, c->target_type, change->type);
			fix = psprintf("ALTER COLUMN %s TYPE %s", name, change->type);
		}
		else if (att->attnotnull && bcmig_may_give_null(c) && c->transform != BCMIG_SQL)
		{
			/* of an expression nobody knows: a row it is NULL for is refused */
			wrong = psprintf("Column %s is NOT NULL, and the transform may give NULL.", name);
			fix = psprintf("ALTER COLUMN %s DROP NOT NULL", name);
		}
	}
	table_close(rel, NoLock);
	if (wrong != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("table %s does not fit this transform of column \"%s\"", table->target_name, c->source),
				 errdetail("%s", wrong),
				 fix ? errhint("ALTER TABLE %s %s;", table->target_name, fix) : 0));
}

/* ---- green ---- */

/* what the rows show until they are read again, where the column changes its type */
static char *
meanwhile(const Change *change)
{
	const char *column = quote_identifier(change->new.target);

	if (change->old->transform == BCMIG_AS_IS &&
		(change->new.transform == BCMIG_BUILTIN || change->new.transform == BCMIG_CONSTANT))
		return psprintf("%s::%s", bcmig_transform_expression(&change->new, column, false, NULL), change->new.target_type);
	if (change->new.transform == BCMIG_AS_IS && bcmig_has_inverse(change->old))
		return bcmig_inverse_expression(change->old, column);
	return psprintf("NULL::%s", change->new.target_type);
}

/* the green table bcmig made follows; as the owner */
static void
alter_green(const Change *change)
{
	const BcmigTableInfo *table = change->table;
	const BcmigColumn *old = change->old;
	const BcmigColumn *new = &change->new;
	const char *name = quote_identifier(new->target);
	char	   *alter = psprintf("ALTER TABLE %s ALTER COLUMN %s", table->target_name, name);
	List	   *statements = NIL;
	ListCell   *lc;

	if (new->transform == BCMIG_DROP)
	{
		if (old->transform != BCMIG_DROP)
			statements = lappend(statements, psprintf("ALTER TABLE %s DROP COLUMN %s", table->target_name, quote_identifier(old->target)));
	}
	else if (old->transform == BCMIG_DROP)
		statements = lappend(statements, psprintf("ALTER TABLE %s ADD COLUMN %s %s", table->target_name, name, new->target_type));
	else
	{
		if (strcmp(old->target, new->target) != 0)
			statements = lappend(statements, psprintf("ALTER TABLE %s RENAME COLUMN %s TO %s", table->target_name,
													  quote_identifier(old->target), name));
		if (new->transform != BCMIG_AS_IS && old->default_value != NULL)
			statements = lappend(statements, psprintf("%s DROP DEFAULT", alter));
		if (old->not_null && (bcmig_may_give_null(new) || strcmp(old->target_type, new->target_type) != 0))
			statements = lappend(statements, psprintf("%s DROP NOT NULL", alter));
		if (strcmp(old->target_type, new->target_type) != 0)
			statements = lappend(statements, psprintf("%s TYPE %s USING %s", alter, new->target_type, meanwhile(change)));
	}
	if (new->transform == BCMIG_AS_IS && old->transform != BCMIG_AS_IS && new->default_value != NULL)
		statements = lappend(statements, psprintf("%s SET DEFAULT %s", alter, quote_literal_cstr(new->default_value)));

	/*
	 * A view would hold names and types of its columns, and who is about to make
	 * one may have read the mapping as it was: so views are made again also
	 * where there is none.
	 */
	if (statements != NIL)
		bcmig_drop_views(change->sync);
	foreach(lc, statements)
		bcmig_change_green(change->sync->owner, table->target_name, lfirst(lc));
	if (statements != NIL)
		bcmig_outdate_views(change->sync->sync_id);
}

/* ---- the change ---- */

/* a lock until the end of the transaction; workers wait for it, or fail and try again */
static void
lock_applier(int table_id)
{
	LOCKTAG		tag;

	BCMIG_APPLIER_LOCKTAG(tag, table_id);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/* in a catalogue scope */
static void
count_mapping(int table_id)
{
	bcmig_sql("UPDATE bcmig.sync_table SET mapping = mapping + 1 WHERE table_id = $1", "i", table_id);
}

static void
choose_type(Change *change)
{
	BcmigColumn *c = &change->new;

	if (change->made_target)
		c->target_type = c->source_type;
	switch (c->transform)
	{
		case BCMIG_AS_IS:
		case BCMIG_DROP:
			change->type = c->source_type;
			break;
		case BCMIG_CONSTANT:
			check_constant(change);
			change->type = c->target_type;
			break;
		case BCMIG_BUILTIN:
			check_builtins(change);
			(void) bcmig_transform_expression(c, "x", true, &change->type);
			break;
		case BCMIG_SQL:
			change->type = bcmig_check_expression(change->sync->owner, change->table->ncolumns, change->table->columns,
												  "transform", c->transform_value);
			break;
	}
	if (change->made_target && !may_hold(change->type, c->target_type))
		c->target_type = change->type;
}

static void
change_column(const BcmigSync *sync, int table_id, const char *column_name, Jsonb *transform)
{
	Change		change = {0};
	BcmigCatalogScope scope;
	const char *plain;
	char	   *rename;
	bool		same_values;

	bcmig_switch_room->changing(sync);
	lock_applier(table_id);
	change.sync = sync;
	change.table = bcmig_load_table(table_id);
	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT t.made_target, s.made FROM bcmig.sync_table t JOIN bcmig.table_state s USING (table_id) WHERE t.table_id = $1", "i", table_id);
	change.made_target = bcmig_get_bool(0, 1);
	change.there = bcmig_get_bool(0, 2) || !change.made_target;
	bcmig_catalog_end(&scope);

	change.old = &change.table->columns[bcmig_find_source(change.table, column_name)];
	change.new = *change.old;
	parse_transform(transform, &change.new, &rename);
	change.stored = transform ? JsonbToCString(NULL, &transform->root, VARSIZE(transform)) : NULL;
	check_key(&change);
	plain = change.old->plain_target ? change.old->plain_target : change.old->target;
	change.new.target = rename ? rename : pstrdup(plain);
	change.new.plain_target = strcmp(change.new.target, plain) != 0 ? pstrdup(plain) : NULL;
	check_name(&change, change.new.target);
	choose_type(&change);
	if (!change.made_target)
		check_green_column(&change);
	else if (change.there)
		alter_green(&change);

	same_values = change.made_target && change.old->transform == change.new.transform &&
		strcmp(change.old->target_type, change.new.target_type) == 0 &&
		(change.old->transform_value == NULL) == (change.new.transform_value == NULL) &&
		(change.old->transform_value == NULL || strcmp(change.old->transform_value, change.new.transform_value) == 0);
	bcmig_catalog_begin(&scope);
	if (strcmp(change.old->target, change.new.target) != 0 &&
		bcmig_sql("SELECT 1 FROM pg_class WHERE relname = $1 AND relnamespace = 'bcmig'::regnamespace", "t", change.table->feed) > 0)
		SPI_execute(psprintf("ALTER FOREIGN TABLE bcmig.%s RENAME COLUMN %s TO %s", quote_identifier(change.table->feed),
							 quote_identifier(change.old->target), quote_identifier(change.new.target)), false, 0);
	bcmig_sql("UPDATE bcmig.column_map SET transform = $3, target_column = $4, plain_column = $5, target_type = $6 "
			  "WHERE table_id = $1 AND target_column = $2", "itjttt", table_id, change.old->target, change.stored,
			  change.new.target, change.new.plain_target, change.new.target_type);
	count_mapping(table_id);
	bcmig_audit("command", sync->name, change.table->target_name, transform ? "bcmig_map_column" : "bcmig_unmap_column",
				psprintf("column \"%s\"%s%s", column_name, transform ? ": " : "", transform ? change.stored : ""));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	if (!same_values)
		bcmig_state_resync(sync->environment_id, sync->owner, table_id, psprintf("column \"%s\" is mapped otherwise", column_name));
}

/*
 * bcmig_map_column(sync, target, column_name, transform)
 */
Datum
bcmig_map_column(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *target;
	int			table_id = bcmig_find_table(sync, bcmig_arg_text(fcinfo, 1, "target"), &target);
	char	   *column_name = bcmig_arg_text(fcinfo, 2, "column_name");

	if (PG_ARGISNULL(3))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("argument \"transform\" must not be NULL"),
				 errhint("SELECT bcmig_unmap_column(%s, %s, %s);", quote_literal_cstr(sync->name),
						 quote_literal_cstr(target), quote_literal_cstr(column_name))));
	change_column(sync, table_id, column_name, PG_GETARG_JSONB_P(3));
	PG_RETURN_VOID();
}

/*
 * bcmig_unmap_column(sync, target, column_name)
 */
Datum
bcmig_unmap_column(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *target;
	int			table_id = bcmig_find_table(sync, bcmig_arg_text(fcinfo, 1, "target"), &target);

	change_column(sync, table_id, bcmig_arg_text(fcinfo, 2, "column_name"), NULL);
	PG_RETURN_VOID();
}

/*
 * Another row filter, or none, for a table that is there; options hold it
 * already, and are stored by the caller.
 */
void
bcmig_change_filter(const BcmigSync *sync, int table_id, Jsonb *options)
{
	char	   *filter = bcmig_filter_of(options);
	BcmigTableInfo *table;
	BcmigCatalogScope scope;

	bcmig_switch_room->changing(sync);
	lock_applier(table_id);
	table = bcmig_load_table(table_id);
	if (filter != NULL)
		bcmig_check_filter(sync->owner, table->ncolumns, table->columns, filter);
	bcmig_catalog_begin(&scope);
	count_mapping(table_id);
	bcmig_catalog_end(&scope);
	bcmig_state_resync(sync->environment_id, sync->owner, table_id, "its row filter was changed");
}

/* the row filter in options of a table, or NULL */
char *
bcmig_filter_of(Jsonb *options)
{
	JsonbValue	buf;
	JsonbValue *v = getKeyJsonValueFromContainer(&options->root, "row_filter", strlen("row_filter"), &buf);

	return v != NULL && v->type == jbvString ? pnstrdup(v->val.string.val, v->val.string.len) : NULL;
}
