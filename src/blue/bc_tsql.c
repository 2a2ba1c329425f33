/*-------------------------------------------------------------------------
 *
 * bc_tsql.c
 *	  What Business Central keeps in a SQL Server database: its tables and
 *	  companies, its sequences, its dictionary of objects, sums of its entries.
 *
 * The dictionary is [Application Object Metadata] (BC 15 and later), in a
 * multitenant deployment in the application's database, or [Object Metadata]
 * beside [Object] (NAV, BC 14).  Old versions of an app leave their rows
 * behind; those that count are of a package in [NAV App Installed App].
 *
 * Numbers of object types are those of the AL option "Object Type": 1 Table,
 * 15 TableExtension, 16 Enum, 17 EnumExtension.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "tsql.h"

#include "mb/pg_wchar.h"

static char *
inventory(void)
{
	return bcmig_tsql_batch(NULL, "inventory",
							BCMIG_DECLARE_ANSWER
							" INSERT INTO @r SELECT 0, N'', 0, N'retention', CONVERT(nvarchar(20), t.retention_period) + N' ' + t.retention_period_units_desc,"
							" NULL, NULL, NULL, NULL, NULL, NULL FROM sys.change_tracking_databases AS t WHERE t.database_id = DB_ID();"
							" INSERT INTO @r SELECT 1, SCHEMA_NAME(o.schema_id) + N'.' + o.name, 0, N'table', SCHEMA_NAME(o.schema_id), o.name,"
							" (SELECT CONVERT(nvarchar(20), SUM(p.rows)) FROM sys.partitions AS p WHERE p.object_id = o.object_id AND p.index_id IN (0, 1)),"
							" CASE WHEN EXISTS (SELECT 1 FROM sys.change_tracking_tables AS t WHERE t.object_id = o.object_id) THEN N'change_tracking'"
							" WHEN EXISTS (SELECT 1 FROM sys.columns AS c WHERE c.object_id = o.object_id AND c.system_type_id = 189) THEN N'rowversion' END,"
							" CASE WHEN EXISTS (SELECT 1 FROM sys.columns AS c WHERE c.object_id = o.object_id AND c.name = N'$systemId') THEN N'1' ELSE N'0' END,"
							" NULL, NULL FROM sys.tables AS o WHERE o.is_ms_shipped = 0;"
							" INSERT INTO @r SELECT 1, SCHEMA_NAME(o.schema_id) + N'.' + o.name, x.key_ordinal, N'key', c.name, c.collation_name, NULL, NULL, NULL, NULL, NULL"
							" FROM sys.tables AS o JOIN sys.indexes AS i ON i.object_id = o.object_id AND i.is_primary_key = 1"
							" JOIN sys.index_columns AS x ON x.object_id = i.object_id AND x.index_id = i.index_id AND x.key_ordinal > 0"
							" JOIN sys.columns AS c ON c.object_id = x.object_id AND c.column_id = x.column_id WHERE o.is_ms_shipped = 0;"
							" INSERT INTO @r SELECT 1, SCHEMA_NAME(o.schema_id) + N'.' + o.name, 999, N'identity', c.name, NULL, NULL, NULL, NULL, NULL, NULL"
							" FROM sys.tables AS o JOIN sys.columns AS c ON c.object_id = o.object_id AND c.is_identity = 1 WHERE o.is_ms_shipped = 0;"
							" IF HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE') = 1"
							" INSERT INTO @r SELECT 1, SCHEMA_NAME(o.schema_id) + N'.' + o.name, 1000, N'bytes',"
							" (SELECT CONVERT(nvarchar(20), SUM(s.used_page_count) * 8192) FROM sys.dm_db_partition_stats AS s WHERE s.object_id = o.object_id),"
							" NULL, NULL, NULL, NULL, NULL, NULL FROM sys.tables AS o WHERE o.is_ms_shipped = 0;"
							BCMIG_SELECT_ANSWER);
}

static char *
companies(bool has_properties)
{
	return bcmig_tsql_batch(NULL, "companies",
							psprintf("SELECT N'company', c.[Name], NULL, NULL, NULL, NULL, NULL, NULL FROM [dbo].[Company] AS c%s",
									 has_properties ? " UNION ALL SELECT N'chars', p.[invalididentifierchars], NULL, NULL, NULL, NULL, NULL, NULL FROM [dbo].[$ndo$dbproperty] AS p" : ""));
}

static char *
sequences(void)
{
	return bcmig_tsql_batch(NULL, "sequences",
							"SELECT N'sequence', q.name, CONVERT(nvarchar(20), CONVERT(bigint, q.current_value)), CONVERT(nvarchar(20), CONVERT(bigint, q.increment)),"
							" NULL, NULL, NULL, NULL FROM sys.sequences AS q"
							" UNION ALL SELECT N'identity', SCHEMA_NAME(o.schema_id), o.name, c.name, CONVERT(nvarchar(20), CONVERT(bigint, c.last_value)),"
							" CONVERT(nvarchar(20), CONVERT(bigint, c.increment_value)), NULL, NULL"
							" FROM sys.identity_columns AS c JOIN sys.tables AS o ON o.object_id = c.object_id WHERE o.is_ms_shipped = 0");
}

static char *
dictionaries(void)
{
	return bcmig_tsql_batch(NULL, "dictionary",
							"SELECT o.name, NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM sys.tables AS o"
							" WHERE o.name IN (N'Application Object Metadata', N'Object Metadata', N'Object', N'NAV App Installed App')");
}

static char *
packages(void)
{
	return bcmig_tsql_batch(NULL, "dictionary",
							"SELECT LOWER(CONVERT(nvarchar(36), a.[Package ID])), LOWER(CONVERT(nvarchar(36), a.[App ID])), NULL, NULL, NULL, NULL, NULL, NULL"
							" FROM [dbo].[NAV App Installed App] AS a");
}

#define OBJECT_COLUMNS \
	"CONVERT(nvarchar(10), m.[Object Type]), CONVERT(nvarchar(20), m.[Object ID]), m.[Object Name], m.[Object Subtype]," \
	" LOWER(CONVERT(nvarchar(36), m.[Package ID])), CONVERT(nvarchar(max), CONVERT(varbinary(max), m.[Metadata]), 2), NULL, NULL" \
	" FROM [dbo].[Application Object Metadata] AS m"

static void
append_packages(StringInfo s, List *wanted)
{
	ListCell   *lc;

	foreach(lc, wanted)
		appendStringInfo(s, "%s%s", lc == list_head(wanted) ? " AND LOWER(CONVERT(nvarchar(36), m.[Package ID])) IN (" : ", ",
						 bcmig_tsql_string(lfirst(lc)));
	if (wanted != NIL)
		appendStringInfoChar(s, ')');
}

/* a name as Business Central spells it in SQL: on blue, to compare with the tables' */
static char *
mapped(char *name, const char *invalid_chars)
{
	for (const char *p = invalid_chars; *p; p += pg_mblen(p))
		name = psprintf("REPLACE(%s, %s, N'_')", name, bcmig_tsql_string(pnstrdup(p, pg_mblen(p))));
	return name;
}

static char *
tables_by_name(bool application, List *wanted, const char *invalid_chars, List *names)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	if (application)
		appendStringInfo(&s, "SELECT " OBJECT_COLUMNS " WHERE m.[Object Type] = 1 AND %s IN (",
						 mapped("m.[Object Name]", invalid_chars));
	else
		appendStringInfo(&s,
						 "SELECT N'1', CONVERT(nvarchar(20), m.[Object ID]), o.[Name], N'', N'', CONVERT(nvarchar(max), CONVERT(varbinary(max), m.[Metadata]), 2), NULL, NULL"
						 " FROM [dbo].[Object Metadata] AS m JOIN [dbo].[Object] AS o ON o.[Type] = 1 AND o.[ID] = m.[Object ID]"
						 " WHERE m.[Object Type] = 1 AND %s IN (",
						 mapped("o.[Name]", invalid_chars));
	foreach(lc, names)
		appendStringInfo(&s, "%s%s", lc == list_head(names) ? "" : ", ", bcmig_tsql_string(lfirst(lc)));
	appendStringInfoChar(&s, ')');
	if (application)
		append_packages(&s, wanted);
	return bcmig_tsql_batch(NULL, "dictionary", s.data);
}

static char *
object_numbers(List *wanted)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s,
						   "SELECT CONVERT(nvarchar(20), m.[Object ID]), NULL, NULL, NULL, NULL, NULL, NULL, NULL"
						   " FROM [dbo].[Application Object Metadata] AS m WHERE m.[Object Type] IN (15, 16, 17)");
	append_packages(&s, wanted);
	appendStringInfoString(&s, " GROUP BY m.[Object ID]");
	return bcmig_tsql_batch(NULL, "dictionary", s.data);
}

static char *
objects_by_number(List *wanted, List *numbers)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	appendStringInfoString(&s, "SELECT " OBJECT_COLUMNS " WHERE m.[Object Type] IN (15, 16, 17) AND m.[Object ID] IN (");
	foreach(lc, numbers)
		appendStringInfo(&s, "%s%d", lc == list_head(numbers) ? "" : ", ", lfirst_int(lc));
	appendStringInfoChar(&s, ')');
	append_packages(&s, wanted);
	return bcmig_tsql_batch(NULL, "dictionary", s.data);
}

/*
 * Texts that are one to the column's collation may be two to green.
 */
static char *
group_of(const BcmigColumn *column)
{
	const char *type = column->native_type;
	bool		text = bcmig_tsql_type_is(type, "nvarchar") || bcmig_tsql_type_is(type, "varchar");

	return psprintf("s.%s%s", bcmig_tsql_identifier(column->source), text ? " COLLATE Latin1_General_100_BIN2" : "");
}

static char *
sums(const BcmigSum *sum)
{
	const BcmigTableInfo *table = &sum->table;
	StringInfoData s;
	ListCell   *lc;
	ListCell   *ln;

	initStringInfo(&s);
	appendStringInfo(&s, BCMIG_SNAPSHOT_WHERE_ALLOWED "SELECT %s, CONVERT(nvarchar(60), q.v), NULL, NULL, NULL, NULL, NULL, NULL FROM (SELECT ",
					 bcmig_tsql_key_array(table, "q"));
	for (int i = 0; i < table->nkeys; i++)
		appendStringInfo(&s, "%s AS %s, ", group_of(&table->columns[table->keys[i]]),
						 bcmig_tsql_identifier(table->columns[table->keys[i]].source));
	appendStringInfo(&s, "%sSUM(s.%s) AS v FROM %s AS s", sum->negative ? "-" : "",
					 bcmig_tsql_identifier(table->columns[sum->column].source), bcmig_tsql_source_name(table));
	forboth(lc, sum->filters, ln, sum->numbers)
		appendStringInfo(&s, "%ss.%s = %d", lc == list_head(sum->filters) ? " WHERE " : " AND ",
						 bcmig_tsql_identifier(table->columns[lfirst_int(lc)].source), lfirst_int(ln));
	appendStringInfoString(&s, " GROUP BY ");
	for (int i = 0; i < table->nkeys; i++)
		appendStringInfo(&s, "%s%s", i ? ", " : "", group_of(&table->columns[table->keys[i]]));
	appendStringInfoString(&s, ") AS q WHERE q.v <> 0 OPTION (MAXDOP 1)");
	return bcmig_tsql_batch(table, "sums", s.data);
}

const BcmigBcDialect bcmig_tsql_bc = {
	.inventory = inventory,
	.companies = companies,
	.sequences = sequences,
	.dictionaries = dictionaries,
	.packages = packages,
	.tables_by_name = tables_by_name,
	.object_numbers = object_numbers,
	.objects_by_number = objects_by_number,
	.sums = sums,
};
