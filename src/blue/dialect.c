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
		elog(ERROR, "a bound of table %s has %d values, its key %d columns",
			 table->target_name, n, table->nkeys);
	texts = palloc(sizeof(char *) * n);
	for (int i = 0; i < n; i++)
		texts[i] = TextDatumGetCString(values[i]);
	return texts;
}
