/*-------------------------------------------------------------------------
 *
 * source_table.c
 *	  What a table of blue becomes: its key, its capture, its columns.
 *
 * Source names are kept exactly as blue spells them; target names are cut to
 * what green can hold.  A type green does not know becomes text, which both
 * sides can write and read.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"

#include "ask.h"
#include "bc_names.h"
#include "catalog/pg_type.h"
#include "dialect.h"
#include "options.h"
#include "parser/parse_type.h"
#include "utils/builtins.h"

/* BC's row identity: stays the same when the primary key is renamed */
#define ROW_IDENTITY	"$systemId"

static char *
source_name(const BcmigNewTable *new)
{
	return psprintf("\"%s\".\"%s\"", new->source_schema, new->source_table);
}

static char *
join_names(List *names)
{
	StringInfoData buf;
	ListCell   *lc;

	initStringInfo(&buf);
	foreach(lc, names)
		appendStringInfo(&buf, "%s%s", buf.len ? ", " : "", (char *) lfirst(lc));
	return buf.data;
}

/* names of an option of kind list; NIL when it is not set, or auto */
static List *
option_list(const BcmigNewTable *new, const char *option)
{
	JsonbValue	buf;
	JsonbValue *list = getKeyJsonValueFromContainer(&new->options->root, option, strlen(option), &buf);
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	List	   *names = NIL;

	if (list == NULL || list->type != jbvBinary)
		return NIL;
	it = JsonbIteratorInit(list->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_ELEM)
			names = lappend(names, pnstrdup(v.val.string.val, v.val.string.len));
	}
	return names;
}

/* companions[] from the option */
static void
name_companions(BcmigNewTable *new, const BcmigDialect *dialect)
{
	List	   *names = option_list(new, "companions");
	ListCell   *lc;

	if (names != NIL && !dialect->joins_companions)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("companions are not joined on a %s blue", dialect->name),
				 errhint("Add each of them as a table of its own.")));
	new->companions = palloc0(sizeof(BcmigCompanion) * Max(list_length(names), 1));
	foreach(lc, names)
	{
		BcmigCompanion *p = &new->companions[new->ncompanions++];

		p->schema = new->source_schema;
		p->table = lfirst(lc);
	}
}

/* types and defaults as green knows them */
static void
take_types(BcmigBlueTable *blue, const BcmigDialect *dialect)
{
	ListCell   *lc;

	foreach(lc, blue->columns)
	{
		BcmigBlueColumn *c = (BcmigBlueColumn *) lfirst(lc);

		if (dialect->green_type != NULL)
			c->type = dialect->green_type(c->native);
		if (c->default_expr != NULL)
			c->default_value = dialect->constant(c->default_expr);
	}
}

static BcmigBlueColumn *
find_column(const BcmigBlueTable *blue, const char *name)
{
	ListCell   *lc;

	foreach(lc, blue->columns)
	{
		BcmigBlueColumn *c = (BcmigBlueColumn *) lfirst(lc);

		if (strcmp(c->name, name) == 0)
			return c;
	}
	return NULL;
}

/*
 * A companion must be there, be readable and have a key whose columns the base
 * has too.
 */
static void
check_companions(BcmigNewTable *new)
{
	for (int i = 0; i < new->ncompanions; i++)
	{
		BcmigCompanion *p = &new->companions[i];
		BcmigBlueTable *blue = list_nth(new->blue_companions, i);
		ListCell   *lc;

		if (!blue->exists || !blue->readable)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
					 errmsg("companion \"%s\".\"%s\" is not there, or bcmig may not read it", p->schema, p->table),
					 errhint("%s", blue->exists ? blue->grant_fix : "Name it exactly as blue spells it.")));
		p->version_column = blue->stamp_column;
		p->keys = palloc(sizeof(char *) * list_length(blue->columns));
		foreach(lc, blue->columns)
		{
			BcmigBlueColumn *c = (BcmigBlueColumn *) lfirst(lc);

			if (c->key_position == 0)
				continue;
			if (find_column(new->blue, c->name) == NULL)
				ereport(ERROR,
						(errcode(ERRCODE_BM_UNSUITABLE),
						 errmsg("column \"%s\" of the key of companion \"%s\" does not exist in its base table",
								c->name, p->table),
						 errhint("Add it as a table of its own.")));
			p->keys[p->nkeys++] = c->name;
		}
		if (p->nkeys == 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("companion \"%s\".\"%s\" has no key", p->schema, p->table),
					 errhint("Add it as a table of its own.")));
	}
}

/*
 * The table and its companions, for blue to describe.  new->options must be
 * set; fills source_schema and the companions' names.
 */
List *
bcmig_names_of(BcmigNewTable *new, const BcmigDialect *dialect)
{
	BcmigCatalogScope scope;
	MemoryContext caller = CurrentMemoryContext;
	List	   *names;

	if (new->source_schema == NULL)
	{
		bcmig_catalog_begin(&scope);
		new->source_schema = MemoryContextStrdup(caller,
												 bcmig_option_value("source_schema", new->options,
																	new->sync->options));
		bcmig_catalog_end(&scope);
		if (strcmp(new->source_schema, "auto") == 0)
			new->source_schema = pstrdup(dialect->default_schema);
	}

	name_companions(new, dialect);
	names = list_make1(bcmig_name(new->source_schema, new->source_table));
	for (int i = 0; i < new->ncompanions; i++)
		names = lappend(names, bcmig_name(new->companions[i].schema, new->companions[i].table));
	return names;
}

/*
 * Ask blue about one table.
 */
void
bcmig_describe_source(BcmigNewTable *new)
{
	BcmigEnvironment *env = bcmig_load_environment(NULL, new->sync->environment_id);
	const BcmigDialect *dialect = bcmig_dialect_of_server(env->serverid);

	bcmig_take_descriptions(new, dialect,
							bcmig_describe(env, new->sync->owner, bcmig_names_of(new, dialect)));
}

/*
 * The answers (BcmigBlueTable, the table's own first): fills blue and
 * companions; ERROR when the table cannot be synced.
 */
void
bcmig_take_descriptions(BcmigNewTable *new, const BcmigDialect *dialect, List *described)
{
	ListCell   *lc;

	foreach(lc, described)
		take_types(lfirst(lc), dialect);
	new->blue = linitial(described);
	new->blue_companions = list_copy_tail(described, 1);

	if (!new->blue->exists)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("blue has no table %s", source_name(new)),
				 new->blue->near ? errdetail("Near names: %s.", join_names(new->blue->near)) : 0,
				 errhint("Name it exactly as blue spells it; another schema goes into options => '{\"source_schema\": \"...\"}'.")));
	if (!new->blue->is_table)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("%s is no table on blue", source_name(new)),
				 errdetail("Views and foreign tables hold no rows of their own."),
				 errhint("Add the tables it reads.")));
	if (!new->blue->readable)
		ereport(ERROR,
				(errcode(ERRCODE_BM_BLUE),
				 errmsg("blue does not let bcmig read table %s", source_name(new)),
				 errhint("%s", new->blue->grant_fix)));
	if (new->blue->columns == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("table %s has no columns on blue", source_name(new)),
				 errhint("Leave it out: there is nothing to copy.")));
	check_companions(new);
}

/*
 * Put the option "key" in the place of blue's own key.
 */
static void
override_key(BcmigNewTable *new)
{
	List	   *names = option_list(new, "key");
	ListCell   *lc;
	int			position = 0;

	if (names == NIL)
		return;

	foreach(lc, new->blue->columns)
	{
		BcmigBlueColumn *c = (BcmigBlueColumn *) lfirst(lc);

		/* remembered as negative, to see whether it is blue's key after all */
		c->key_position = -c->key_position;
	}

	foreach(lc, names)
	{
		char	   *name = lfirst(lc);
		BcmigBlueColumn *found = find_column(new->blue, name);

		if (found == NULL || found->key_position > 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_OPTION),
					 found ? errmsg("option \"key\" names column \"%s\" twice", name) :
					 errmsg("option \"key\" names column \"%s\", which table %s does not have",
							name, source_name(new)),
					 errhint("Name columns exactly as blue spells them.")));
		if (!found->not_null)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("column \"%s\" of the key can be NULL on blue", name),
					 errhint("A key needs NOT NULL columns; leave the option out to keep the table by compare.")));
		position++;
		if (found->key_position != -position)
			new->key_overridden = true;
		found->key_position = position;
	}

	foreach(lc, new->blue->columns)
	{
		BcmigBlueColumn *c = (BcmigBlueColumn *) lfirst(lc);

		if (c->key_position < 0)
		{
			new->key_overridden = true;
			c->key_position = 0;
		}
	}
}

static void
not_captured(const BcmigNewTable *new, const char *what, const char *fix)
{
	ereport(ERROR,
			(errcode(ERRCODE_BM_UNSUITABLE),
			 errmsg("table %s cannot be captured by %s", source_name(new), what),
			 errdetail("Blue's tracking of it: %s.",
					   new->blue->capture ? new->blue->capture : "none, or bcmig may not see it"),
			 errhint("%s", fix)));
}

/*
 * Decide key and capture from the options and what blue tracks.
 */
void
bcmig_choose_capture(BcmigNewTable *new)
{
	BcmigCatalogScope scope;
	MemoryContext caller = CurrentMemoryContext;
	char	   *capture;
	char	   *keyless;
	bool		changes;
	bool		stamped;
	ListCell   *lc;

	bcmig_catalog_begin(&scope);
	capture = MemoryContextStrdup(caller, bcmig_option_value("capture", new->options, new->sync->options));
	keyless = MemoryContextStrdup(caller, bcmig_option_value("keyless", new->options, new->sync->options));
	bcmig_catalog_end(&scope);

	override_key(new);
	foreach(lc, new->blue->columns)
		new->nkeys += ((BcmigBlueColumn *) lfirst(lc))->key_position > 0;

	new->version_column = new->blue->stamp_column;
	stamped = new->blue->capture != NULL && new->version_column != NULL;
	/* a change table holds blue's own key, no other */
	changes = new->blue->capture != NULL && strcmp(new->blue->capture, "change_tracking") == 0 &&
		!new->key_overridden;
	/* a record is tracked as well as the worst of its parts */
	foreach(lc, new->blue_companions)
	{
		BcmigBlueTable *p = lfirst(lc);

		changes &= p->capture != NULL && strcmp(p->capture, "change_tracking") == 0;
		stamped &= p->stamp_column != NULL;
	}

	if (new->nkeys == 0)
	{
		if (strcmp(keyless, "refuse") == 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("table %s has no key on blue", source_name(new)),
					 errdetail("The option keyless says to refuse such tables."),
					 errhint("Set options => '{\"key\": [\"...\"]}', or '{\"keyless\": \"snapshot\"}' to keep it by compare.")));
		if (strcmp(capture, "auto") != 0 && strcmp(capture, "snapshot") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("table %s has no key on blue and cannot be captured by %s",
							source_name(new), capture),
					 errhint("Set options => '{\"key\": [\"...\"]}' or '{\"capture\": \"snapshot\"}'.")));
		new->capture = "snapshot";
	}
	else if (strcmp(capture, "auto") == 0)
		new->capture = changes ? "change_tracking" : stamped ? "rowversion" : "snapshot";
	else
	{
		if (strcmp(capture, "change_tracking") == 0 && new->key_overridden)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("table %s cannot be captured by change_tracking with another key than blue's", source_name(new)),
					 errdetail("A change table holds blue's own key."),
					 errhint("Leave one of the options key and capture out.")));
		if (strcmp(capture, "change_tracking") == 0 && !changes)
			not_captured(new, "change_tracking", new->blue->track_fix);
		if (strcmp(capture, "rowversion") == 0 && !stamped)
			not_captured(new, "rowversion", new->blue->stamp_fix);
		new->capture = capture;
	}
}

/*
 * The type as green spells it, or text.  Never as blue spelled it: a comment may
 * stand in a type name, and would swallow what follows in a statement.  Inside
 * a catalogue scope, whose search_path is that of the remote session.
 */
char *
bcmig_known_type(const char *type)
{
	Oid			typeid;
	int32		typmod;

	BCMIG_PARSE_TYPE(type, &typeid, &typmod);
	return OidIsValid(typeid) ? format_type_with_typemod(typeid, typmod) : pstrdup("text");
}

/*
 * Add one column of blue to columns[].  Inside a catalogue scope, in the
 * caller's memory context.
 */
static void
add_column(BcmigNewTable *new, BcmigBlueColumn *b, int part, List **taken)
{
	BcmigColumn *c = &new->columns[new->ncolumns];

	new->ncolumns++;
	c->source = b->name;
	c->not_null = b->not_null;
	c->default_value = b->default_value;
	c->part = part;
	c->native_type = b->native;
	c->source_type = bcmig_known_type(b->type);
	c->target = bcmig_green_name(new->snake ? bcmig_snake(b->name) : b->name, *taken);
	c->target_type = c->source_type;
	c->key_position = part == 0 ? b->key_position : 0;
	c->row_identity = part == 0 && strcmp(b->name, ROW_IDENTITY) == 0;
	*taken = lappend(*taken, c->target);

	if (c->key_position > 0 && strcmp(c->source_type, "text") == 0 && strcmp(b->type, "text") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("column \"%s\" of the key of %s has type %s, which green does not know",
						b->name, source_name(new), b->type),
				 errhint("Create the type on green, or set options => '{\"key\": [\"...\"]}'.")));
}

/*
 * Choose capture and key, and fill columns[]: every column of blue but the one that holds the row version;
 * of companions also without their keys, and NULL where there is no row.
 */
void
bcmig_choose_columns(BcmigNewTable *new)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	ListCell   *lc;
	ListCell   *cell;
	List	   *left_out = option_list(new, "leave_out");
	List	   *taken = list_make2("bc_op", "bc_rowversion");
	static const char *const system_columns[] = {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"};
	int			n = list_length(new->blue->columns);
	int			part = 0;

	bcmig_choose_capture(new);

	foreach(lc, new->blue_companions)
		n += list_length(((BcmigBlueTable *) lfirst(lc))->columns);
	new->columns = palloc0(sizeof(BcmigColumn) * n);
	new->enum_values = palloc0(sizeof(List *) * n);

	for (int i = 0; i < lengthof(system_columns); i++)
		taken = lappend(taken, unconstify(char *, system_columns[i]));

	bcmig_catalog_begin(&scope);
	MemoryContextSwitchTo(caller);
	foreach(lc, new->blue->columns)
	{
		BcmigBlueColumn *b = (BcmigBlueColumn *) lfirst(lc);

		if (new->version_column != NULL && strcmp(b->name, new->version_column) == 0)
			continue;
		if (!bcmig_has_text(left_out, b->name))
			add_column(new, b, 0, &taken);
		else if (b->key_position > 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_OPTION),
					 errmsg("option \"leave_out\" names column \"%s\" of the key of %s", b->name, source_name(new)),
					 errhint("A row cannot be found without its key.")));
	}
	foreach(lc, new->blue_companions)
	{
		BcmigBlueTable *p = lfirst(lc);

		part++;
		foreach(cell, p->columns)
		{
			BcmigBlueColumn *b = (BcmigBlueColumn *) lfirst(cell);

			if (bcmig_has_text(left_out, b->name) || b->key_position > 0 || (p->stamp_column != NULL && strcmp(b->name, p->stamp_column) == 0))
				continue;
			b->not_null = false;
			add_column(new, b, part, &taken);
		}
	}
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
}
