/*-------------------------------------------------------------------------
 *
 * schema_change.c
 *	  What is different on blue since a table was added.
 *
 * bcmig.column_map holds the columns as they were.  Columns the option leave_out
 * names are no news; a companion's key, and columns that hold row versions, are
 * never mapped.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "schema_change.h"

#include "utils/builtins.h"

const char *
bcmig_change_name(BcmigChangeKind kind)
{
	static const char *const names[] = {
		"table gone", "companion gone", "column added", "column dropped", "column altered", "key changed"
	};

	return names[kind];
}

List *
bcmig_table_names(const BcmigTableInfo *table)
{
	List	   *names = list_make1(bcmig_name(table->source_schema, table->source_table));

	for (int i = 0; i < table->ncompanions; i++)
		names = lappend(names, bcmig_name(table->companions[i].schema, table->companions[i].table));
	return names;
}

static const char *
part_name(const BcmigTableInfo *table, int part)
{
	return part == 0 ? table->source_table : table->companions[part - 1].table;
}

char *
bcmig_change_text(const BcmigTableInfo *table, const BcmigChange *change)
{
	const char *name = part_name(table, change->part);

	switch (change->kind)
	{
		case BCMIG_TABLE_GONE:
			return psprintf("Blue has no table \"%s\" any more.", name);
		case BCMIG_COMPANION_GONE:
			return psprintf("Blue has no companion \"%s\" any more.", name);
		case BCMIG_COLUMN_ADDED:
			return psprintf("Blue has a new column \"%s\" (%s) in \"%s\".", change->column, change->after, name);
		case BCMIG_COLUMN_DROPPED:
			return psprintf("Blue has no column \"%s\" in \"%s\" any more.", change->column, name);
		case BCMIG_COLUMN_ALTERED:
			return psprintf("Column \"%s\" of \"%s\" is %s on blue now, it was %s.", change->column, name,
							change->after, change->before);
		case BCMIG_KEY_CHANGED:
			return psprintf("Column \"%s\" of \"%s\" has place %s in blue's key now, it had %s.", change->column, name,
							change->after ? change->after : "none", change->before ? change->before : "none");
	}
	return NULL;				/* keep compiler quiet */
}

static List *
add_change(List *changes, BcmigChangeKind kind, int part, char *column, char *before, char *after)
{
	BcmigChange *c = palloc0(sizeof(BcmigChange));

	c->kind = kind;
	c->part = part;
	c->column = column;
	c->before = before;
	c->after = after;
	return lappend(changes, c);
}

static BcmigBlueColumn *
find_blue_column(const BcmigBlueTable *blue, const char *name)
{
	ListCell   *lc;

	foreach(lc, blue->columns)
	{
		BcmigBlueColumn *b = lfirst(lc);

		if (strcmp(b->name, name) == 0)
			return b;
	}
	return NULL;
}

static bool
is_mapped(const BcmigTableInfo *table, int part, const char *name)
{
	for (int i = 0; i < table->ncolumns; i++)
	{
		if (table->columns[i].part == part && strcmp(table->columns[i].source, name) == 0)
			return true;
	}
	return false;
}

/* columns that are never mapped, and those that are left out on purpose */
static bool
is_expected(const BcmigTableInfo *table, int part, const char *name)
{
	const BcmigCompanion *p = part > 0 ? &table->companions[part - 1] : NULL;
	const char *version = p ? p->version_column : table->version_column;

	if (version != NULL && strcmp(version, name) == 0)
		return true;
	for (int i = 0; p != NULL && i < p->nkeys; i++)
	{
		if (strcmp(p->keys[i], name) == 0)
			return true;
	}
	for (int i = 0; i < table->nleft_out; i++)
	{
		if (strcmp(table->left_out[i], name) == 0)
			return true;
	}
	return false;
}

static char *
place(int position)
{
	return position > 0 ? psprintf("%d", position) : NULL;
}

List *
bcmig_compare_schema(const BcmigTableInfo *table, List *described)
{
	List	   *changes = NIL;
	const BcmigBlueTable *base = linitial(described);
	ListCell   *lc;
	ListCell   *cell;
	int			part = -1;

	if (!base->exists || !base->is_table)
		return add_change(NIL, BCMIG_TABLE_GONE, 0, NULL, NULL, NULL);
	for (int i = 0; i < table->ncolumns; i++)
	{
		const BcmigColumn *c = &table->columns[i];
		const BcmigBlueTable *blue = list_nth(described, c->part);
		BcmigBlueColumn *b;

		if (!blue->exists)
			continue;
		b = find_blue_column(blue, c->source);
		if (b == NULL)
		{
			changes = add_change(changes, BCMIG_COLUMN_DROPPED, c->part, c->source, c->native_type, NULL);
			continue;
		}
		if (strcmp(b->native, c->native_type) != 0)
		{
			changes = add_change(changes, BCMIG_COLUMN_ALTERED, c->part, c->source, c->native_type, b->native);
			((BcmigChange *) llast(changes))->blue = b;
		}

		/* a key of the option's choosing must be NOT NULL, blue's own must stay what it is */
		if (c->key_position > 0 && !b->not_null)
			changes = add_change(changes, BCMIG_KEY_CHANGED, c->part, c->source, place(c->key_position), "NULL");
		else if (c->part == 0 && strcmp(table->capture, "change_tracking") == 0 && b->key_position != c->key_position)
			changes = add_change(changes, BCMIG_KEY_CHANGED, c->part, c->source, place(c->key_position), place(b->key_position));
	}
	foreach(lc, described)
	{
		const BcmigBlueTable *blue = lfirst(lc);

		if (++part > 0 && !blue->exists)
			changes = add_change(changes, BCMIG_COMPANION_GONE, part, NULL, NULL, NULL);
		foreach(cell, blue->columns)
		{
			BcmigBlueColumn *b = lfirst(cell);

			if (is_mapped(table, part, b->name) || is_expected(table, part, b->name))
				continue;
			changes = add_change(changes, BCMIG_COLUMN_ADDED, part, b->name, NULL, b->native);
			((BcmigChange *) llast(changes))->blue = b;
		}
	}
	return changes;
}
