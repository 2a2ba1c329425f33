/*-------------------------------------------------------------------------
 *
 * dictionary.c
 *	  What Business Central's own dictionary of objects says of its tables.
 *
 * A table's document is found by the name its SQL tables carry, and by app
 * where several apps have a table of that name.  What extensions add stands in
 * documents of their own, and in columns named after the app that adds them:
 * an added field is found by its name and app.  An enum's values are those of
 * its document and of every extension of it.
 *
 * The dictionary is read in pieces: a document is some 10 kB of deflated XML,
 * and there are thousands.  Tables are asked for when they are wanted, the
 * documents of extensions and enums are taken apart a hundred at a time.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "dictionary.h"

#include "ask.h"
#include "dialect.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "remote.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#define OBJECTS_AT_A_TIME	100

/* numbers of the AL option Object Type */
#define TYPE_TABLE_EXTENSION	15
#define TYPE_ENUM				16
#define TYPE_ENUM_EXTENSION		17

/* a table, or a table extension: only what it adds */
typedef struct KnownTable
{
	char	   *name;			/* as SQL spells it */
	char	   *app_id;			/* NULL = not known */
	int			extends;		/* number of the extended table, 0 = not known */
	BcmigAlTable *table;
} KnownTable;

/* an enum, or an extension of one */
typedef struct KnownEnum
{
	int			number;			/* of the enum whose values these are */
	List	   *values;			/* BcmigAlOption * */
} KnownEnum;

typedef struct Package
{
	char	   *id;
	char	   *app_id;
} Package;

struct BcmigDictionary
{
	const BcmigEnvironment *env;
	Oid			role;
	Oid			serverid;		/* where the dictionary is */
	const BcmigBcDialect *bc;
	const BcmigInventory *inventory;
	bool		there;
	bool		application;	/* Application Object Metadata, else Object Metadata */
	List	   *packages;		/* Package *; NIL = all count */
	List	   *package_ids;	/* char * */
	List	   *extensions;		/* KnownTable * */
	List	   *enums;			/* KnownEnum * */
	MemoryContext context;		/* of tables */
	List	   *tables;			/* KnownTable *, of the last bcmig_dictionary_read() */
};

/* the columns of an answer */
enum AnswerColumn
{
	COL_TYPE,
	COL_NUMBER,
	COL_NAME,
	COL_SUBTYPE,
	COL_PACKAGE,
	COL_METADATA
};

static List *
ask(const BcmigDictionary *d, Oid serverid, char *statement)
{
	return bcmig_ask(serverid, d->role, list_make1(statement), bcmig_ask_timeout(d->env, OBJECTS_AT_A_TIME));
}

static const char *
app_of_package(const BcmigDictionary *d, const char *package)
{
	ListCell   *lc;

	foreach(lc, d->packages)
	{
		Package    *p = lfirst(lc);

		if (package != NULL && strcmp(p->id, package) == 0)
			return p->app_id;
	}
	return NULL;
}

/*
 * The document of an object: a table, or the values of an enum in *values.
 * Reading it touches nothing but memory, so an error is caught without a
 * subtransaction.
 */
static BcmigAlTable *
read_document(char **row, List **values)
{
	MemoryContext context = CurrentMemoryContext;
	BcmigAlTable *volatile table = NULL;

	if (row[COL_METADATA] == NULL || row[COL_METADATA][0] == '\0')
		return NULL;
	PG_TRY();
	{
		bytea	   *metadata = DatumGetByteaPP(DirectFunctionCall2(binary_decode,
																   CStringGetTextDatum(row[COL_METADATA]),
																   CStringGetTextDatum("hex")));

		if (values != NULL)
			*values = bcmig_read_al_enum(metadata);
		else
			table = bcmig_read_al_table(metadata);
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		if (edata->sqlerrcode == ERRCODE_QUERY_CANCELED || edata->sqlerrcode == ERRCODE_ADMIN_SHUTDOWN ||
			edata->sqlerrcode == ERRCODE_OUT_OF_MEMORY)
			PG_RE_THROW();
		FlushErrorState();
		ereport(WARNING,
				(errmsg("metadata of object %s \"%s\" of type %s cannot be read, SQL types are used in its place",
						row[COL_NUMBER], row[COL_NAME] ? row[COL_NAME] : "", row[COL_TYPE]),
				 errdetail("%s%s%s", edata->message, edata->detail ? ": " : "", edata->detail ? edata->detail : "")));
		FreeErrorData(edata);
		table = NULL;
	}
	PG_END_TRY();
	return table;
}

static KnownTable *
known_table(const BcmigDictionary *d, char **row)
{
	BcmigAlTable *table = read_document(row, NULL);
	KnownTable *k;
	const char *app = app_of_package(d, row[COL_PACKAGE]);

	if (table == NULL)
		return NULL;
	k = palloc0(sizeof(KnownTable));
	k->table = table;
	k->name = bcmig_mapped_name(table->name, d->inventory->invalid_chars);
	k->app_id = app != NULL ? pstrdup(app) : table->app_id;
	if (table->extension && row[COL_SUBTYPE] != NULL)
		k->extends = atoi(row[COL_SUBTYPE]);
	return k;
}

/*
 * Extensions and enums: all of them, they are many but small.
 */
static void
read_extensions(BcmigDictionary *d)
{
	List	   *rows = ask(d, d->serverid, d->bc->object_numbers(d->package_ids));
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext piece = AllocSetContextCreate(caller, "bcmig dictionary", ALLOCSET_DEFAULT_SIZES);

	for (int first = 0; first < list_length(rows); first += OBJECTS_AT_A_TIME)
	{
		List	   *numbers = NIL;
		ListCell   *lc;

		MemoryContextReset(piece);
		MemoryContextSwitchTo(piece);
		for (int i = first; i < Min(first + OBJECTS_AT_A_TIME, list_length(rows)); i++)
			numbers = lappend_int(numbers, bcmig_answer_int64(list_nth(rows, i), 0));
		foreach(lc, ask(d, d->serverid, d->bc->objects_by_number(d->package_ids, numbers)))
		{
			char	  **row = lfirst(lc);
			int			type = bcmig_answer_int64(row, COL_TYPE);

			CHECK_FOR_INTERRUPTS();
			MemoryContextSwitchTo(caller);
			if (type == TYPE_TABLE_EXTENSION)
			{
				KnownTable *k = known_table(d, row);

				if (k != NULL)
					d->extensions = lappend(d->extensions, k);
			}
			else
			{
				KnownEnum  *k = palloc0(sizeof(KnownEnum));

				k->number = bcmig_answer_int64(row, type == TYPE_ENUM || row[COL_SUBTYPE] == NULL ? COL_NUMBER : COL_SUBTYPE);
				(void) read_document(row, &k->values);
				d->enums = lappend(d->enums, k);
			}
			MemoryContextSwitchTo(piece);
		}
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(piece);
}

/* is the table among the rows of dictionaries()? */
static bool
has_table(List *rows, const char *name)
{
	ListCell   *lc;

	foreach(lc, rows)
	{
		if (bcmig_answer_is(lfirst(lc), name))
			return true;
	}
	return false;
}

BcmigDictionary *
bcmig_open_dictionary(const BcmigEnvironment *env, Oid role, const BcmigInventory *inventory)
{
	BcmigDictionary *d = palloc0(sizeof(BcmigDictionary));
	List	   *rows;
	List	   *elsewhere;
	ListCell   *lc;

	d->env = env;
	d->role = role;
	d->inventory = inventory;
	d->serverid = env->application_server ? get_foreign_server_oid(env->application_server, false) : env->serverid;
	d->bc = bcmig_dialect_of_server(env->serverid)->bc;
	d->context = AllocSetContextCreate(CurrentMemoryContext, "bcmig dictionary", ALLOCSET_DEFAULT_SIZES);

	rows = elsewhere = ask(d, env->serverid, d->bc->dictionaries());
	if (d->serverid != env->serverid)
		elsewhere = ask(d, d->serverid, d->bc->dictionaries());
	d->application = has_table(elsewhere, "Application Object Metadata");
	d->there = d->application || (has_table(elsewhere, "Object Metadata") && has_table(elsewhere, "Object"));
	if (!d->application)
		return d;

	if (has_table(rows, "NAV App Installed App"))
	{
		foreach(lc, ask(d, env->serverid, d->bc->packages()))
		{
			char	  **row = lfirst(lc);
			Package    *p = palloc(sizeof(Package));

			if (row[0] == NULL || row[1] == NULL)
				continue;
			p->id = row[0];
			p->app_id = row[1];
			d->packages = lappend(d->packages, p);
			d->package_ids = lappend(d->package_ids, p->id);
		}
	}
	read_extensions(d);
	return d;
}

void
bcmig_dictionary_read(BcmigDictionary *d, List *found)
{
	MemoryContext oldcontext;
	List	   *names = NIL;
	ListCell   *lc;

	MemoryContextReset(d->context);
	d->tables = NIL;
	if (!d->there)
		return;
	oldcontext = MemoryContextSwitchTo(d->context);
	foreach(lc, found)
		names = lappend(names, ((BcmigFound *) lfirst(lc))->al_name);
	foreach(lc, ask(d, d->serverid, d->bc->tables_by_name(d->application, d->package_ids,
														  d->inventory->invalid_chars, names)))
	{
		KnownTable *k = known_table(d, lfirst(lc));

		CHECK_FOR_INTERRUPTS();
		if (k != NULL)
			d->tables = lappend(d->tables, k);
	}
	MemoryContextSwitchTo(oldcontext);
}

const BcmigAlTable *
bcmig_dictionary_table(const BcmigDictionary *d, const BcmigFound *found)
{
	const BcmigAlTable *by_name = NULL;
	ListCell   *lc;

	foreach(lc, d->tables)
	{
		KnownTable *k = lfirst(lc);

		if (strcmp(k->name, found->al_name) != 0)
			continue;
		if (found->app_id == NULL || k->app_id == NULL)
			by_name = k->table;
		else if (pg_strcasecmp(k->app_id, found->app_id) == 0)
			return k->table;
	}
	return by_name;
}

/* the field of that name (as SQL spells it) that has a column */
static const BcmigAlField *
find_field(const BcmigDictionary *d, const BcmigAlTable *table, const char *name)
{
	ListCell   *lc;

	foreach(lc, table->fields)
	{
		BcmigAlField *f = lfirst(lc);

		if (f->enabled && strcmp(f->class, "Normal") == 0 &&
			strcmp(bcmig_mapped_name(f->name, d->inventory->invalid_chars), name) == 0)
			return f;
	}
	return NULL;
}

const BcmigAlField *
bcmig_dictionary_field(const BcmigDictionary *d, const BcmigFound *found, const BcmigFound *companion,
					   const char *column)
{
	const BcmigAlTable *table = bcmig_dictionary_table(d, found);
	const BcmigAlField *field = NULL;
	const char *app = NULL;
	char	   *name = pstrdup(column);
	char	   *dollar = strrchr(name, '$');
	ListCell   *lc;

	if (companion == NULL)
		return table ? find_field(d, table, column) : NULL;

	/* <field>$<app id>; in a companion of one app, BC 22 and before, perhaps only <field> */
	if (dollar != NULL && dollar > name)
	{
		app = dollar + 1;
		*dollar = '\0';
	}
	else
		app = companion->app_id;
	foreach(lc, d->extensions)
	{
		KnownTable *k = lfirst(lc);

		if (app != NULL && k->app_id != NULL && pg_strcasecmp(k->app_id, app) != 0)
			continue;
		if (k->extends != 0 && table != NULL && k->extends != table->number)
			continue;
		field = find_field(d, k->table, name);
		if (field != NULL && (field->app_id == NULL || app == NULL || pg_strcasecmp(field->app_id, app) == 0))
			break;
		field = NULL;
	}

	/* a document of the base may hold what extensions add, with their app */
	if (field == NULL && table != NULL)
	{
		field = find_field(d, table, name);
		if (field != NULL && (field->app_id == NULL || app == NULL || pg_strcasecmp(field->app_id, app) != 0))
			field = NULL;
	}
	return field;
}

List *
bcmig_dictionary_values(const BcmigDictionary *d, const BcmigAlField *field)
{
	List	   *values = NIL;
	ListCell   *lc;

	if (field->enum_id == 0)
		return field->options;
	foreach(lc, d->enums)
	{
		KnownEnum  *k = lfirst(lc);

		if (k->number == field->enum_id)
			values = list_concat(values, k->values);
	}
	return values != NIL ? values : field->options;
}

const char *
bcmig_guess_al_type(const char *column, const char *native_type)
{
	static const struct
	{
		const char *native;		/* all of it, or up to a parenthesis */
		const char *al;
	}			types[] = {
		{"int", "Integer"}, {"bigint", "BigInteger"}, {"tinyint", "Boolean"}, {"decimal", "Decimal"},
		{"nvarchar", "Text"}, {"varchar", "DateFormula"}, {"uniqueidentifier", "GUID"}, {"image", "BLOB"},
		{"varbinary", "RecordId"}
	};
	size_t		len = strcspn(native_type, "(");

	if (strcmp(column, "$systemCreatedAt") == 0 || strcmp(column, "$systemModifiedAt") == 0)
		return "DateTime";
	for (int i = 0; i < lengthof(types); i++)
	{
		if (strlen(types[i].native) == len && strncmp(types[i].native, native_type, len) == 0)
			return types[i].al;
	}
	return NULL;
}
