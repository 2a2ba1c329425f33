/*-------------------------------------------------------------------------
 *
 * dialect.c
 *	  Which dialect a blue speaks, and what all dialects write alike.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "dialect.h"

#include "catalog/pg_type.h"
#include "common/int.h"
#include "errors.h"
#include "utils/array.h"
#include "utils/builtins.h"

const BcmigDialect *
bcmig_dialect_of_server(Oid serverid)
{
	static const BcmigDialect *const dialects[] = {&bcmig_dialect_postgres, &bcmig_dialect_tsql};
	ForeignServer *server = GetForeignServer(serverid);
	ForeignDataWrapper *fdw = GetForeignDataWrapper(server->fdwid);

	for (int i = 0; i < lengthof(dialects); i++)
	{
		if (strcmp(fdw->fdwname, dialects[i]->fdw) == 0)
			return dialects[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_BM_UNSUITABLE),
			 errmsg("server \"%s\" uses foreign data wrapper \"%s\"",
					server->servername, fdw->fdwname),
			 errdetail("bcmig reads a blue through tds_fdw (SQL Server) or postgres_fdw."),
			 errhint("CREATE SERVER ... FOREIGN DATA WRAPPER tds_fdw ...;")));
	return NULL;				/* keep compiler quiet */
}

BcmigName *
bcmig_name(char *schema, char *name)
{
	BcmigName  *n = palloc(sizeof(BcmigName));

	n->schema = schema;
	n->name = name;
	return n;
}

/* a name as it may stand in a comment to the end of the line */
char *
bcmig_in_comment(const char *name)
{
	char	   *copy = pstrdup(name);

	for (char *p = copy; *p; p++)
	{
		if ((unsigned char) *p < ' ' || *p == 0x7f)
			*p = '?';
	}
	return copy;
}

/* so many columns that are NULL */
char *
bcmig_nulls(int n)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < n; i++)
		appendStringInfoString(&s, ", NULL");
	return s.data;
}

/*
 * Can the table be cut by its first key column?  Integers are the one kind of
 * value both engines surely order, divide and print alike.
 */
bool
bcmig_ranges_possible(const BcmigTableInfo *table)
{
	const char *type;

	if (table->nkeys == 0)
		return false;
	type = table->columns[table->keys[0]].source_type;
	return table->columns[table->keys[0]].part == 0 &&
		(strcmp(type, "integer") == 0 || strcmp(type, "bigint") == 0 || strcmp(type, "smallint") == 0);
}

/*
 * First and last value of the ranges from first to last.  Division is towards
 * zero, as both engines do it, so chunk 0 is twice as wide.
 */
void
bcmig_range_bounds(const BcmigChunking *chunking, int64 first, int64 last, int64 *low, int64 *high)
{
	if (pg_mul_s64_overflow(first, chunking->size, low) ||
		(first <= 0 && pg_sub_s64_overflow(*low, chunking->size - 1, low)))
		*low = PG_INT64_MIN;
	if (pg_mul_s64_overflow(last, chunking->size, high) ||
		(last >= 0 && pg_add_s64_overflow(*high, chunking->size - 1, high)))
		*high = PG_INT64_MAX;
}

/*
 * A condition on "what", an integer, that is true in the given chunks; for
 * ranges on the key itself, so that an index helps.
 */
char *
bcmig_chunk_condition(const BcmigChunking *chunking, List *chunks, const char *what)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	foreach(lc, chunks)
	{
		BcmigChunks *c = lfirst(lc);
		int64		low = c->first;
		int64		high = c->last;

		if (!chunking->buckets)
			bcmig_range_bounds(chunking, c->first, c->last, &low, &high);
		/* the lowest bigint has no literal of its own */
		appendStringInfo(&s, "%s%s BETWEEN " INT64_FORMAT " AND " INT64_FORMAT, s.len ? " OR " : "(", what,
						 Max(low, -PG_INT64_MAX), high);
	}
	appendStringInfoChar(&s, ')');
	return s.data;
}

/*
 * The values of a bound (text[]) of a key, in key order.
 */
char **
bcmig_bound_values(const BcmigTableInfo *table, Datum bound)
{
	Datum	   *values;
	bool	   *isnull;
	char	  **texts;
	int			n;

	deconstruct_array(DatumGetArrayTypeP(bound), TEXTOID, -1, false, TYPALIGN_INT,
					  &values, &isnull, &n);
	if (n != table->nkeys)
		ereport(ERROR,
				(errcode(ERRCODE_BM_BLUE),
				 errmsg("a bound of table %s has %d values, its key %d columns", table->target_name, n, table->nkeys)));
	texts = palloc(sizeof(char *) * n);
	for (int i = 0; i < n; i++)
	{
		if (isnull[i])
			ereport(ERROR,
					(errcode(ERRCODE_BM_BLUE),
					 errmsg("a bound of table %s has NULL for a column of its key", table->target_name)));
		texts[i] = TextDatumGetCString(values[i]);
	}
	return texts;
}
