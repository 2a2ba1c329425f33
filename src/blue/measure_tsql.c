/*-------------------------------------------------------------------------
 *
 * measure_tsql.c
 *	  How many bytes a row has on a SQL Server, so that what is lost on the way is noticed.
 *
 * nvarchar may hold U+0000.  tds_fdw hands a value on as a C string, which ends
 * there, and nobody is told: a row altered silently.  So each row says in bc_op
 * how many bytes its texts and binary values have, which costs the server a look
 * at lengths it has stored, and spool.c counts what came.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "tsql.h"

#define type_is bcmig_tsql_type_is

/* does green get it as text or bytes? */
static bool
is_measured(const BcmigColumn *c)
{
	return strncmp(c->source_type, "character", 9) == 0 || strcmp(c->source_type, "text") == 0 || strcmp(c->source_type, "bytea") == 0;
}

static bool
is_measured_key(const BcmigColumn *c)
{
	return c->key_position > 0 && is_measured(c);
}

static bool
is_unbounded(const BcmigColumn *c)
{
	return bcmig_unbounded_type(c->source_type);
}

/* bytes of these columns of row t, texts as UTF-16; NULL when there are none */
static char *
bytes_of(const BcmigTableInfo *table, bool (*counts) (const BcmigColumn *))
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->ncolumns; i++)
	{
		const BcmigColumn *c = &table->columns[i];
		const char *type = c->native_type;
		char	   *value = bcmig_tsql_value_of(c, "t");

		if (!counts(c))
			continue;
		/* of a code page */
		if (type_is(type, "varchar") || type_is(type, "char") || type_is(type, "text"))
			value = psprintf("CONVERT(nvarchar(max), %s)", value);
		/* filled up with blanks, here and there: what was cut off would not be missed */
		if (type_is(type, "nchar") || type_is(type, "char"))
			value = psprintf("RTRIM(%s)", value);
		appendStringInfo(&s, "%sISNULL(CONVERT(bigint, DATALENGTH(%s)), 0)", s.len ? " + " : "", value);
	}
	return s.len ? s.data : NULL;
}

char *
bcmig_tsql_row_op(const BcmigTableInfo *table, bool key_only)
{
	char	   *bytes = bytes_of(table, key_only ? is_measured_key : is_measured);

	return bytes ? psprintf("N'U' + CONVERT(nvarchar(20), %s)", bytes) : pstrdup("N'U'");
}

char *
bcmig_tsql_unbounded_bytes(const BcmigTableInfo *table)
{
	return bytes_of(table, is_unbounded);
}
