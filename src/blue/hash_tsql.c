/*-------------------------------------------------------------------------
 *
 * hash_tsql.c
 *	  Hashes of rows, made by a SQL Server blue.
 *
 * The image of a row is its fields one after the other, each with a tag that
 * says what it is; 00 is NULL.  What has no fixed length carries it in front,
 * so that '12', '3' is not '1', '23':
 *
 *	01	integers, bit		bigint, big-endian
 *	02	decimal, money		length, its digits as text with all decimals
 *	03	text				length, UTF-16LE, as SQL Server has it
 *	04	datetime			days since 1900 and 1/300 seconds, 4 bytes each
 *	05	uniqueidentifier	16 bytes in the order SQL Server has them
 *	06	binary, image		length, bytes
 *
 * What tds_fdw hands over as text (datetime2, date, time, sql_variant, ...) is
 * text here too.  float and real are not hashed: such a table is pulled.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "tsql.h"

#define ident	bcmig_tsql_identifier
#define type_is bcmig_tsql_type_is

static const char *
tsql_type_class(const BcmigColumn *column)
{
	const char *type = column->native_type;

	if (type_is(type, "tinyint") || type_is(type, "smallint") || type_is(type, "int") || type_is(type, "bigint") || type_is(type, "bit"))
		return "integer";
	if (type_is(type, "decimal") || type_is(type, "numeric") || type_is(type, "money") || type_is(type, "smallmoney"))
		return "decimal";
	if (type_is(type, "datetime") || type_is(type, "smalldatetime"))
		return "datetime";
	if (type_is(type, "uniqueidentifier"))
		return "uniqueidentifier";
	if (type_is(type, "binary") || type_is(type, "varbinary") || type_is(type, "image") || type_is(type, "timestamp"))
		return "binary";
	if (type_is(type, "float") || type_is(type, "real"))
		return NULL;
	return "text";
}

static char *
with_length(const char *tag, const char *bytes)
{
	return psprintf("%s + CONVERT(binary(4), CONVERT(int, DATALENGTH(%s))) + %s", tag, bytes, bytes);
}

/* a field that is not NULL */
static char *
field(const char *type_class, const char *value)
{
	if (strcmp(type_class, "integer") == 0)
		return psprintf("0x01 + CONVERT(binary(8), CONVERT(bigint, %s))", value);
	if (strcmp(type_class, "decimal") == 0)
		return with_length("0x02", psprintf("CONVERT(varbinary(60), CONVERT(varchar(60), %s))", value));
	if (strcmp(type_class, "datetime") == 0)
		return psprintf("0x04 + CONVERT(binary(8), %s)", value);
	if (strcmp(type_class, "uniqueidentifier") == 0)
		return psprintf("0x05 + CONVERT(binary(16), %s)", value);
	if (strcmp(type_class, "binary") == 0)
		return with_length("0x06", psprintf("CONVERT(varbinary(max), %s)", value));
	return with_length("0x03", psprintf("CONVERT(varbinary(max), CONVERT(nvarchar(max), %s))", value));
}

/*
 * SHA-256 of fields.  The first operand is varbinary(max), or + would cut at
 * 8,000 bytes without a word.
 */
static char *
hash_of(const char *fields)
{
	return psprintf("HASHBYTES('SHA2_256', CONVERT(varbinary(max), 0x)%s)", fields);
}

static char *
hash_of_columns(const BcmigTableInfo *table, bool key)
{
	StringInfoData s;
	int			n = key ? table->nkeys : table->ncolumns;

	initStringInfo(&s);
	for (int i = 0; i < n; i++)
	{
		const BcmigColumn *c = &table->columns[key ? table->keys[i] : i];
		char	   *value = bcmig_tsql_value_of(c, "t");
		char	   *bytes = field(tsql_type_class(c), value);

		if (c->not_null && c->part == 0)
			appendStringInfo(&s, " + %s", bytes);
		else
			appendStringInfo(&s, " + CASE WHEN %s IS NULL THEN 0x00 ELSE %s END", value, bytes);
	}
	return hash_of(s.data);
}

static char *
tsql_probe(void)
{
	static const struct
	{
		const char *type_class;
		const char *blue;
		const char *green;
		const char *what;
	}			probes[] =
	{
		{"integer", "CONVERT(bigint, -2147483648)", "(-2147483648)::integer", "negative"},
		{"decimal", "CONVERT(decimal(38,20), -12345678901234567.00000000000000000001)", "(-12345678901234567.00000000000000000001)::numeric(38,20)", "all digits"},
		{"decimal", "CONVERT(decimal(38,20), -0.5)", "(-0.5)::numeric(38,20)", "below one"},
		{"text", "N'a\xC3\xA4\xE4\xB8\xAD\xF0\x9F\x98\x80 '", "('a' || chr(228) || chr(20013) || chr(128512) || ' ')::text", "beyond ASCII, a trailing blank"},
		{"text", "N''", "''::text", "empty"},
		{"datetime", "CONVERT(datetime, N'1753-01-01T00:00:00.003', 126)", "'1753-01-01 00:00:00.003'::timestamp(3)", "before 1900, a third of a hundredth"},
		{"datetime", "CONVERT(datetime, N'9999-12-31T23:59:59.997', 126)", "'9999-12-31 23:59:59.997'::timestamp(3)", "the last"},
		{"uniqueidentifier", "CONVERT(uniqueidentifier, N'00112233-4455-6677-8899-AABBCCDDEEFF')", "'00112233-4455-6677-8899-aabbccddeeff'::uuid", "order of bytes"},
		{"binary", "CONVERT(varbinary(8), 0x00FF5C)", "'\\x00ff5c'::bytea", "any byte"},
	};
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < lengthof(probes); i++)
		appendStringInfo(&s, "%sSELECT %s, CONVERT(nvarchar(64), %s, 2), %s, %s, NULL, NULL, NULL, NULL", i ? " UNION ALL " : "",
						 bcmig_tsql_string(probes[i].type_class),
						 hash_of(psprintf(" + %s", field(probes[i].type_class, probes[i].blue))),
						 bcmig_tsql_string(probes[i].green), bcmig_tsql_string(probes[i].what));
	return bcmig_tsql_batch(NULL, "probe", s.data);
}

/* the bucket of a hash */
static char *
bucket(const BcmigChunking *chunking, const char *hash)
{
	return psprintf("CONVERT(bigint, SUBSTRING(%s, 1, 2)) / " INT64_FORMAT, hash, BCMIG_BUCKETS / chunking->size);
}

/* chunk, key hash (of buckets), row hash and more of the rows in these chunks, as a derived table */
static char *
rows_of(const BcmigTableInfo *table, const BcmigChunking *chunking, List *chunks, const char *columns)
{
	char	   *from = bcmig_tsql_from_clause(table);

	if (!chunking->buckets)
	{
		char	   *key = psprintf("t.%s", ident(table->columns[table->keys[0]].source));

		return psprintf("(SELECT CONVERT(bigint, %s) / " INT64_FORMAT " AS c%s FROM %s%s%s)", key, chunking->size, columns, from,
						chunks ? " WHERE " : "", chunks ? bcmig_chunk_condition(chunking, chunks, key) : "");
	}
	return psprintf("(SELECT %s AS c%s FROM %s%s%s)", bucket(chunking, hash_of_columns(table, table->nkeys > 0)), columns, from,
					chunks ? " WHERE " : "",
					chunks ? bcmig_chunk_condition(chunking, chunks, bucket(chunking, hash_of_columns(table, table->nkeys > 0))) : "");
}

static char *
batch(const BcmigTableInfo *table, const char *sql)
{
	return bcmig_tsql_batch(table, "hash", psprintf(BCMIG_SNAPSHOT_WHERE_ALLOWED "%s OPTION (MAXDOP 1)", sql));
}

static char *
tsql_sums(const BcmigTableInfo *table, const BcmigChunking *chunking, List *chunks, bool count_only)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "SELECT CONVERT(nvarchar(20), q.c), CONVERT(nvarchar(20), COUNT_BIG(*))");
	for (int lane = 0; lane < 4; lane++)
	{
		if (count_only)
			appendStringInfoString(&s, ", NULL");
		else
			appendStringInfo(&s, ", CONVERT(nvarchar(20), SUM(CONVERT(bigint, SUBSTRING(q.h, %d, 4))))", 4 * lane + 1);
	}
	appendStringInfo(&s, ", NULL, NULL FROM %s AS q GROUP BY q.c",
					 rows_of(table, chunking, chunks, count_only ? "" : psprintf(", %s AS h", hash_of_columns(table, false))));
	return batch(table, s.data);
}

static char *
tsql_rows(const BcmigTableInfo *table, const BcmigChunking *chunking, List *chunks, bool count_only)
{
	char	   *columns = psprintf(", %s AS k, %s AS h, %s AS a", hash_of_columns(table, table->nkeys > 0),
								   count_only ? "NULL" : hash_of_columns(table, false),
								   table->nkeys > 0 ? bcmig_tsql_key_array(table, "t") : "NULL");

	return batch(table, psprintf("SELECT CONVERT(nvarchar(32), SUBSTRING(q.k, 1, 16), 2), %s, q.a, NULL, NULL, NULL, NULL, NULL FROM %s AS q",
								 count_only ? "NULL" : "CONVERT(nvarchar(32), SUBSTRING(q.h, 1, 16), 2)",
								 rows_of(table, chunking, chunks, columns)));
}

static char *
tsql_pull(const BcmigTableInfo *table, const BcmigChunking *chunking, List *chunks)
{
	StringInfoData s;
	char	   *key = chunks != NIL ? psprintf("t.%s", ident(table->columns[table->keys[0]].source)) : NULL;

	initStringInfo(&s);
	appendStringInfo(&s, "SELECT %s, CONVERT(bigint, NULL)", bcmig_tsql_row_op(table, false));
	for (int i = 0; i < table->ncolumns; i++)
		appendStringInfo(&s, ", %s", bcmig_tsql_value_of(&table->columns[i], "t"));
	appendStringInfo(&s, " FROM %s%s%s", bcmig_tsql_from_clause(table), key ? " WHERE " : "",
					 key ? bcmig_chunk_condition(chunking, chunks, key) : "");
	return batch(table, s.data);
}

static char *
tsql_extent(const BcmigTableInfo *table)
{
	char	   *name = bcmig_tsql_source_name(table);
	char	   *key = bcmig_ranges_possible(table) ? ident(table->columns[table->keys[0]].source) : NULL;

	return bcmig_tsql_batch(table, "extent",
							psprintf("SELECT CONVERT(nvarchar(20), ISNULL((SELECT SUM(p.rows) FROM sys.partitions AS p WHERE p.object_id = OBJECT_ID(%s)"
									 " AND p.index_id IN (0, 1)), 0)), %s, NULL, NULL, NULL, NULL, NULL", bcmig_tsql_string(name),
									 key ? psprintf("CONVERT(nvarchar(20), (SELECT MIN(t.%1$s) FROM %2$s AS t)), CONVERT(nvarchar(20), (SELECT MAX(t.%1$s) FROM %2$s AS t))", key, name)
									 : "NULL, NULL"));
}

const BcmigHashDialect bcmig_tsql_hash = {
	.image = BCMIG_IMAGE_FIELDS,
	.type_class = tsql_type_class,
	.probe = tsql_probe,
	.sums = tsql_sums,
	.rows = tsql_rows,
	.pull = tsql_pull,
	.extent = tsql_extent,
};
