/*-------------------------------------------------------------------------
 *
 * reverse_tsql.c
 *	  The script that brings rows of green to a SQL Server blue.
 *
 * A person runs it.  It may be run again, whole or after it was cut short: table
 * dbo.bcmig_applied, written in the same transactions, knows what has been done.
 * A row is written only where blue has the version green's row was based on, or
 * the one an earlier run has made; where that version is not known the script
 * says so.
 *
 * The settings are those an indexed view asks of who writes below it (BC has one
 * for each SumIndexField).  [timestamp] is never written.  A companion row is
 * found through the base row it goes with.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "tsql.h"

#include "common/int.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"

#define ident		bcmig_tsql_identifier
#define source_name bcmig_tsql_source_name
#define APPLIED		"[dbo].[bcmig_applied]"

char *
bcmig_tsql_reverse_head(const char *sync, int64 keys)
{
	StringInfoData name;

	/* stays on its line */
	initStringInfo(&name);
	escape_json(&name, sync);
	return psprintf("-- bcmig: what was written on green, for blue: " INT64_FORMAT " keys of sync %s.\n"
					"-- Review, and run it in the database of Business Central (sqlcmd -x -b -I -f 65001, or SSMS) as somebody who may write to\n"
					"-- its tables, while nobody else does. It may be run again. Rows blue has changed itself are named and left alone.\n"
					"SET ANSI_NULLS ON; SET ANSI_PADDING ON; SET ANSI_WARNINGS ON; SET ARITHABORT ON; SET CONCAT_NULL_YIELDS_NULL ON; SET QUOTED_IDENTIFIER ON;\n"
					"SET NUMERIC_ROUNDABORT OFF;\n"
					"SET XACT_ABORT ON;\n"
					"SET NOCOUNT ON;\n"
					"SET LOCK_TIMEOUT 10000;\n"
					"IF OBJECT_ID(N'" APPLIED "') IS NULL\n"
					"CREATE TABLE " APPLIED " ([green] nvarchar(100) NOT NULL, [source_table] nvarchar(300) NOT NULL, [key_hash] binary(32) NOT NULL,"
					" [journal_id] bigint NOT NULL, [version] binary(8) NULL, [applied_at] datetime2 NOT NULL DEFAULT SYSUTCDATETIME(),"
					" CONSTRAINT [bcmig_applied_key] PRIMARY KEY ([green], [source_table], [key_hash], [journal_id]));\n"
					"GO\n", keys, name.data);
}

/* sha256 of a key: it may be too long for an index */
static char *
key_hash(const char *key)
{
	bytea	   *hash = DatumGetByteaPP(DirectFunctionCall1(sha256_bytea, PointerGetDatum(cstring_to_text(key))));
	char	   *hex = palloc(VARSIZE_ANY_EXHDR(hash) * 2 + 1);

	hex[hex_encode(VARDATA_ANY(hash), VARSIZE_ANY_EXHDR(hash), hex)] = '\0';
	return psprintf("0x%s", hex);
}

/*
 * The same expression without an end of line in a literal, after which sqlcmd
 * would look for GO and its own commands, and without $( for its variables.
 */
static char *
for_script(const char *expression)
{
	StringInfoData s;
	const char *literal = strstr(expression, "N'");
	const char *end = strrchr(expression, '\'');
	bool		changed = false;

	/* pieces of nvarchar(n) together would be cut at 4000 characters */
	initStringInfo(&s);
	if (literal == NULL)
		return pstrdup(expression);
	appendStringInfo(&s, "%.*s(CONVERT(nvarchar(max), N'') + ", (int) (literal - expression), expression);
	for (const char *p = literal; p <= end; p++)
	{
		if (*p == '\n' || *p == '\r')
			appendStringInfo(&s, "' + NCHAR(%d) + N'", *p);
		else if (*p == '(' && p[-1] == '$')
			appendStringInfoString(&s, "' + N'(");
		else
		{
			appendStringInfoChar(&s, *p);
			continue;
		}
		changed = true;
	}
	appendStringInfo(&s, ")%s", end + 1);
	return changed ? s.data : pstrdup(expression);
}

static char *
script_literal(const BcmigColumn *column, const char *value)
{
	return for_script(bcmig_tsql_literal(column, value));
}

static char *
script_string(const char *value)
{
	return for_script(bcmig_tsql_string(value));
}

static char *
value_of(const BcmigTableInfo *table, char **values, int column)
{
	return values[column] ? script_literal(&table->columns[column], values[column]) : pstrdup("NULL");
}

/* t.[k] = value AND ... */
static char *
key_condition(const BcmigTableInfo *table, char **key)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->nkeys; i++)
	{
		const BcmigColumn *c = &table->columns[table->keys[i]];

		appendStringInfo(&s, "%st.%s = %s", i > 0 ? " AND " : "", ident(c->source), script_literal(c, key[i]));
	}
	return s.data;
}

/* columns of one part that are written: [a] = x, ... or [a], ... or x, ...; without those of the key */
static char *
column_list(const BcmigTableInfo *table, List *columns, char **values, int part, bool keys, const char *format)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	foreach(lc, columns)
	{
		const BcmigColumn *c = &table->columns[lfirst_int(lc)];

		if (c->part != part || (c->key_position > 0 && !keys))
			continue;
		if (s.len > 0)
			appendStringInfoString(&s, ", ");
		for (const char *p = format; *p; p++)
		{
			if (*p == 'c')
				appendStringInfoString(&s, ident(c->source));
			else if (*p == 'v')
				appendStringInfoString(&s, value_of(table, values, lfirst_int(lc)));
			else
				appendStringInfoChar(&s, *p);
		}
	}
	return s.data;
}

/* has green a row of this companion? */
static bool
has_part(const BcmigTableInfo *table, List *columns, char **values, int part)
{
	ListCell   *lc;

	foreach(lc, columns)
	{
		if (table->columns[lfirst_int(lc)].part == part && values[lfirst_int(lc)] != NULL)
			return true;
	}
	return false;
}

static char *
companion_join(const BcmigCompanion *companion)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int k = 0; k < companion->nkeys; k++)
		appendStringInfo(&s, "%sp.%s = t.%s", k > 0 ? " AND " : "", ident(companion->keys[k]), ident(companion->keys[k]));
	return s.data;
}

static char *
companion_name(const BcmigCompanion *companion)
{
	return psprintf("%s.%s", ident(companion->schema), ident(companion->table));
}

static void
write_companions(StringInfo s, const BcmigTableInfo *table, List *columns, char **values, const char *condition)
{
	for (int i = 0; i < table->ncompanions; i++)
	{
		const BcmigCompanion *companion = &table->companions[i];
		char	   *name = companion_name(companion);
		char	   *join = companion_join(companion);
		StringInfoData keys;

		if (!has_part(table, columns, values, i + 1))
			continue;
		initStringInfo(&keys);
		for (int k = 0; k < companion->nkeys; k++)
			appendStringInfo(&keys, "%s%s", k > 0 ? ", " : "", ident(companion->keys[k]));
		appendStringInfo(s, "\t\tUPDATE p SET %s FROM %s AS p INNER JOIN %s AS t ON %s WHERE %s;\n",
						 column_list(table, columns, values, i + 1, true, "c = v"), name, source_name(table), join, condition);
		appendStringInfo(s, "\t\tINSERT INTO %s (%s, %s) SELECT ", name, keys.data, column_list(table, columns, values, i + 1, true, "c"));
		for (int k = 0; k < companion->nkeys; k++)
			appendStringInfo(s, "t.%s, ", ident(companion->keys[k]));
		appendStringInfo(s, "%s FROM %s AS t WHERE %s AND NOT EXISTS (SELECT 1 FROM %s AS p WHERE %s);\n",
						 column_list(table, columns, values, i + 1, true, "v"), source_name(table), condition, name, join);
	}
}

static void
delete_companions(StringInfo s, const BcmigTableInfo *table, const char *condition)
{
	for (int i = 0; i < table->ncompanions; i++)
		appendStringInfo(s, "\t\tDELETE p FROM %s AS p INNER JOIN %s AS t ON %s WHERE %s;\n",
						 companion_name(&table->companions[i]), source_name(table), companion_join(&table->companions[i]), condition);
}

/* one key.  values: of the row, by columns; NULL = deleted */
static void
write_key(StringInfo s, const BcmigTableInfo *table, List *columns, const BcmigReverse *reverse, char **key, char **values)
{
	char	   *name = source_name(table);
	char	   *condition = key_condition(table, key);
	char	   *mine = psprintf("a.[green] = @green AND a.[source_table] = %s AND a.[key_hash] = %s", script_string(name), key_hash(reverse->key));
	int64		last = reverse->ids[reverse->nids - 1];
	StringInfoData version;
	bool		absent = false;
	bool		known = false;

	initStringInfo(&version);
	for (int i = 0; i < reverse->nknown; i++)
	{
		absent |= reverse->known[i].absent;
		known |= !reverse->known[i].absent && reverse->known[i].version >= 0;
	}
	appendStringInfo(s, "-- %s\n", reverse->key);
	if (table->version_column != NULL && (known || absent))
	{
		appendStringInfo(&version, " AND t.%s IN (@v", ident(table->version_column));
		for (int i = 0; i < reverse->nknown; i++)
		{
			if (!reverse->known[i].absent && reverse->known[i].version >= 0)
				appendStringInfo(&version, ", 0x%016llX", (unsigned long long) reverse->known[i].version);
		}
		appendStringInfoChar(&version, ')');
	}
	else
		appendStringInfoString(s, "-- no version is known: what blue has is not looked at\n");
	appendStringInfo(s, "IF NOT EXISTS (SELECT 1 FROM " APPLIED " AS a WHERE %s AND a.[journal_id] = " INT64_FORMAT ")\nBEGIN\n", mine, last);
	appendStringInfo(s, "\tSET @v = (SELECT TOP (1) a.[version] FROM " APPLIED " AS a WHERE %s ORDER BY a.[journal_id] DESC);\n\tSET @n = 0;\n", mine);
	if (values == NULL)
	{
		appendStringInfo(s, "\tIF EXISTS (SELECT 1 FROM %s AS t WITH (UPDLOCK, HOLDLOCK) WHERE %s%s)\n\tBEGIN\n", name, condition, version.data);
		delete_companions(s, table, condition);
		appendStringInfo(s, "\t\tDELETE t FROM %s AS t WHERE %s;\n\t\tSET @n = 1;\n\tEND;\n", name, condition);
		appendStringInfo(s, "\tIF @n = 0 AND NOT EXISTS (SELECT 1 FROM %s AS t WHERE %s)\n\t\tSET @n = 1;\n", name, condition);
		appendStringInfoString(s, "\tIF @n = 1\n\tBEGIN\n");
	}
	else
	{
		char	   *sets = column_list(table, columns, values, 0, false, "c = v");
		const char *first = ident(table->columns[table->keys[0]].source);

		appendStringInfo(s, "\tUPDATE t SET %s FROM %s AS t WHERE %s%s;\n\tSET @n = @@ROWCOUNT;\n",
						 sets[0] ? sets : psprintf("%s = %s", first, first), name, condition, version.data);
		if (absent)
		{
			appendStringInfo(s, "\tIF @n = 0 AND NOT EXISTS (SELECT 1 FROM %s AS t WITH (UPDLOCK, HOLDLOCK) WHERE %s)\n\tBEGIN\n", name, condition);
			appendStringInfo(s, "\t\tIF OBJECTPROPERTY(OBJECT_ID(%s), N'TableHasIdentity') = 1 SET IDENTITY_INSERT %s ON;\n", script_string(name), name);
			appendStringInfo(s, "\t\tINSERT INTO %s (%s) VALUES (%s);\n", name, column_list(table, columns, values, 0, true, "c"),
							 column_list(table, columns, values, 0, true, "v"));
			appendStringInfo(s, "\t\tIF OBJECTPROPERTY(OBJECT_ID(%s), N'TableHasIdentity') = 1 SET IDENTITY_INSERT %s OFF;\n", script_string(name), name);
			appendStringInfoString(s, "\t\tSET @n = 1;\n\tEND;\n");
		}
		appendStringInfoString(s, "\tIF @n = 1\n\tBEGIN\n");
		write_companions(s, table, columns, values, condition);
	}
	appendStringInfo(s, "\t\tINSERT INTO " APPLIED " ([green], [source_table], [key_hash], [journal_id], [version]) VALUES (@green, %s, %s, " INT64_FORMAT ", ",
					 script_string(name), key_hash(reverse->key), last);
	if (table->version_column != NULL)
		appendStringInfo(s, "(SELECT CONVERT(binary(8), t.%s) FROM %s AS t WHERE %s));\n", ident(table->version_column), name, condition);
	else
		appendStringInfoString(s, "NULL);\n");
	appendStringInfo(s, "\tEND\n\tELSE\n\t\tPRINT %s;\nEND;\n",
					 script_string(psprintf("not written, blue has changed it: %s %s", name, reverse->key)));
}

char *
bcmig_tsql_reverse_batch(const BcmigTableInfo *table, const char *green, List *columns, int n, const BcmigReverse *reverse,
						 char ***keys, char ***values)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "DECLARE @green nvarchar(100) = %s; DECLARE @v binary(8); DECLARE @n int;\nBEGIN TRANSACTION;\n", script_string(green));
	for (int deletes = 1; deletes >= 0; deletes--)
	{
		for (int i = 0; i < n; i++)
		{
			if ((values[i] == NULL) == (deletes == 1))
				write_key(&s, table, columns, &reverse[i], keys[i], values[i]);
		}
	}
	appendStringInfoString(&s, "COMMIT TRANSACTION;\nGO\n");
	return s.data;
}

/*
 * Both only move on, so the script may be run again; at worst a number is left
 * out.  A sequence: by sp_sequence_get_range, which needs no right to alter it.  An identity column
 * that has never given out a number begins with what it is reseeded to, any other
 * after it.
 */
char *
bcmig_tsql_reverse_number(const BcmigGivenNumber *given)
{
	char	   *name = psprintf("%s.%s", ident(given->schema ? given->schema : "dbo"), ident(given->name));
	const char *reached = given->increment < 0 ? ">=" : "<=";
	int64		next;
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "-- green has given out " INT64_FORMAT "\n", given->last);
	if (given->schema == NULL)
		appendStringInfo(&s, "DECLARE @name nvarchar(776) = %s; DECLARE @first sql_variant; DECLARE @n bigint;\n"
						 "SET @n = (SELECT (" INT64_FORMAT " - CONVERT(bigint, q.current_value)) / CONVERT(bigint, q.increment) FROM sys.sequences AS q WHERE q.object_id = OBJECT_ID(@name));\n"
						 "IF @n >= 0\nBEGIN\n\tSET @n = @n + 1;\n"
						 "\tEXEC sys.sp_sequence_get_range @sequence_name = @name, @range_size = @n, @range_first_value = @first OUTPUT;\nEND;\n",
						 script_string(name), given->last);
	else if (!pg_add_s64_overflow(given->last, given->increment, &next))
		appendStringInfo(&s, "DECLARE @reseed nvarchar(max) = %s;\n"
						 "IF IDENT_CURRENT(%s) %s " INT64_FORMAT " EXEC sys.sp_executesql @reseed;\n",
						 script_string(psprintf("DBCC CHECKIDENT (%s, RESEED, " INT64_FORMAT ") WITH NO_INFOMSGS", script_string(name), next)),
						 script_string(name), reached, given->last);
	appendStringInfoString(&s, "GO\n");
	return s.data;
}
