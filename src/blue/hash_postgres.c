/*-------------------------------------------------------------------------
 *
 * hash_postgres.c
 *	  Hashes of rows, made by a PostgreSQL blue.
 *
 * The image of a row is what record_send() makes of it: the number of columns,
 * then of each the oid of its type, its length (-1 = NULL) and its value in
 * the type's binary form, the same on every PostgreSQL there is.  It is typed,
 * prefixed with lengths and tells NULL, and it is built by one call in C: the
 * same put together of SQL expressions takes twice as long.
 *
 * Only types are listed here whose oid is fixed and whose binary form depends
 * on nothing but the value.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "dialect.h"

#include "utils/builtins.h"

#define ident	bcmig_postgres_ident

/* a value of each kind, as blue and green spell it; the text of a class is format_type()'s without a modifier */
static const struct
{
	const char *type_class;
	const char *value;
	const char *what;
}			probes[] =
{
	{"smallint", "(-32768)::smallint", "lowest"},
	{"integer", "(-2147483648)::integer", "lowest"},
	{"bigint", "9223372036854775807::bigint", "highest"},
	{"numeric", "(-12345678901234567.00000000000000000001)::numeric(38,20)", "all digits"},
	{"numeric", "0::numeric(38,20)", "zero"},
	{"character varying", "('a' || chr(228) || chr(20013) || chr(128512) || ' ')::character varying", "beyond ASCII, a trailing blank"},
	{"text", "''::text", "empty"},
	{"character", "'a'::character(5)", "padded"},
	{"bytea", "'\\x00ff5c'::bytea", "any byte"},
	{"uuid", "'00112233-4455-6677-8899-aabbccddeeff'::uuid", "order of bytes"},
	{"timestamp without time zone", "'1753-01-01 00:00:00.003'::timestamp without time zone", "before 2000"},
	{"timestamp with time zone", "'9999-12-31 23:59:59.997+00'::timestamp with time zone", "far"},
	{"date", "'1753-01-01'::date", "before 2000"},
	{"time without time zone", "'23:59:59.999999'::time without time zone", "microseconds"},
	{"boolean", "true", "true"},
	{"double precision", "0.1::double precision", "inexact"},
	{"real", "0.1::real", "inexact"},
};

static const char *
pg_type_class(const BcmigColumn *column)
{
	if (strcmp(column->native_type, column->source_type) != 0)
		return NULL;
	for (int i = 0; i < lengthof(probes); i++)
	{
		size_t		len = strlen(probes[i].type_class);
		const char *rest = column->source_type + len;

		/* "timestamp(3) without time zone" has its modifier in the middle */
		if (strncmp(probes[i].type_class, "time", 4) == 0 && strchr(column->source_type, '(') != NULL)
		{
			const char *open = strchr(column->source_type, '(');
			const char *close = strchr(open, ')');

			if (strncmp(probes[i].type_class, column->source_type, open - column->source_type) == 0 &&
				strcmp(probes[i].type_class + (open - column->source_type), close + 1) == 0)
				return probes[i].type_class;
		}
		else if (strncmp(column->source_type, probes[i].type_class, len) == 0 &&
				 (*rest == '\0' || (*rest == '(' && rest[strlen(rest) - 1] == ')')))
			return probes[i].type_class;
	}
	return NULL;
}

static char *
hash_of(const char *columns)
{
	return psprintf("pg_catalog.sha256(pg_catalog.record_send(ROW(%s)))", columns);
}

static char *
pg_probe(void)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < lengthof(probes); i++)
		appendStringInfo(&s, "%sSELECT %s::text, pg_catalog.encode(%s, 'hex'), %s, %s, NULL, NULL, NULL, NULL",
						 i ? " UNION ALL " : "", quote_literal_cstr(probes[i].type_class), hash_of(probes[i].value),
						 quote_literal_cstr(probes[i].value), quote_literal_cstr(probes[i].what));
	return s.data;
}

/* columns of alias t, all or those of the key */
static char *
columns_of(const BcmigTableInfo *table, bool key, const char *cast)
{
	StringInfoData s;
	int			n = key ? table->nkeys : table->ncolumns;

	initStringInfo(&s);
	for (int i = 0; i < n; i++)
		appendStringInfo(&s, "%st.%s%s", i ? ", " : "", ident(table->columns[key ? table->keys[i] : i].source), cast);
	return s.data;
}

/* the table as t, only these chunks; *chunk is the expression for the chunk of a row */
static char *
from_chunks(const BcmigTableInfo *table, const BcmigChunking *chunking, List *chunks, char **chunk)
{
	char	   *name = bcmig_postgres_source_name(table);

	if (!chunking->buckets)
	{
		char	   *key = psprintf("t.%s", ident(table->columns[table->keys[0]].source));

		*chunk = psprintf("%s::bigint / " INT64_FORMAT, key, chunking->size);
		return psprintf("%s t%s%s", name, chunks ? " WHERE " : "", chunks ? bcmig_chunk_condition(chunking, chunks, key) : "");
	}
	*chunk = psprintf("((pg_catalog.get_byte(t.bcmig_bucket, 0) * 256 + pg_catalog.get_byte(t.bcmig_bucket, 1)) / " INT64_FORMAT ")",
					  BCMIG_BUCKETS / chunking->size);
	return psprintf("(SELECT t.*, %s AS bcmig_bucket FROM %s t OFFSET 0) t%s%s",
					hash_of(columns_of(table, table->nkeys > 0, "")), name, chunks ? " WHERE " : "",
					chunks ? bcmig_chunk_condition(chunking, chunks, *chunk) : "");
}

static char *
pg_sums(const BcmigTableInfo *table, const BcmigChunking *chunking, List *chunks, bool count_only)
{
	char	   *chunk;
	char	   *from = from_chunks(table, chunking, chunks, &chunk);
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "SELECT q.c::text, pg_catalog.count(*)::text");
	for (int lane = 0; lane < 4; lane++)
	{
		if (count_only)
			appendStringInfoString(&s, ", NULL");
		else
			appendStringInfo(&s, ", pg_catalog.sum(pg_catalog.get_byte(q.h, %d) * 16777216::bigint + (pg_catalog.get_byte(q.h, %d) * 65536"
							 " + pg_catalog.get_byte(q.h, %d) * 256 + pg_catalog.get_byte(q.h, %d)))::text",
							 4 * lane, 4 * lane + 1, 4 * lane + 2, 4 * lane + 3);
	}
	appendStringInfo(&s, ", NULL, NULL FROM (SELECT %s AS c%s%s FROM %s OFFSET 0) q GROUP BY q.c", chunk,
					 count_only ? "" : ", ", count_only ? "" : psprintf("%s AS h", hash_of(columns_of(table, false, ""))), from);
	return s.data;
}

static char *
pg_rows(const BcmigTableInfo *table, const BcmigChunking *chunking, List *chunks, bool count_only)
{
	char	   *chunk;
	char	   *from = from_chunks(table, chunking, chunks, &chunk);
	char	   *key = hash_of(columns_of(table, table->nkeys > 0, ""));
	char	   *row = count_only ? "NULL" : psprintf("pg_catalog.encode(pg_catalog.substr(%s, 1, 16), 'hex')", hash_of(columns_of(table, false, "")));

	return psprintf("SELECT pg_catalog.encode(pg_catalog.substr(%s, 1, 16), 'hex'), %s, %s, NULL, NULL, NULL, NULL, NULL FROM %s",
					key, row, table->nkeys > 0 ? psprintf("(ARRAY[%s])::text", columns_of(table, true, "::text")) : "NULL", from);
}

static char *
pg_pull(const BcmigTableInfo *table, const BcmigChunking *chunking, List *chunks)
{
	char	   *chunk;

	return psprintf("SELECT 'U'::text, NULL::bigint, %s FROM %s", columns_of(table, false, ""),
					from_chunks(table, chunking, chunks, &chunk));
}

static char *
pg_extent(const BcmigTableInfo *table)
{
	char	   *name = bcmig_postgres_source_name(table);
	char	   *key = bcmig_ranges_possible(table) ? ident(table->columns[table->keys[0]].source) : NULL;

	return psprintf("SELECT greatest((SELECT c.reltuples::bigint FROM pg_catalog.pg_class c WHERE c.oid = %1$s::pg_catalog.regclass),"
					" pg_catalog.pg_stat_get_live_tuples(%1$s::pg_catalog.regclass), 0)::text, %2$s, NULL, NULL, NULL, NULL, NULL",
					quote_literal_cstr(name),
					key ? psprintf("(SELECT pg_catalog.min(t.%1$s)::text FROM %2$s t), (SELECT pg_catalog.max(t.%1$s)::text FROM %2$s t)", key, name) : "NULL, NULL");
}

const BcmigHashDialect bcmig_postgres_hash = {
	.image = BCMIG_IMAGE_RECORD,
	.type_class = pg_type_class,
	.probe = pg_probe,
	.sums = pg_sums,
	.rows = pg_rows,
	.pull = pg_pull,
	.extent = pg_extent,
};
