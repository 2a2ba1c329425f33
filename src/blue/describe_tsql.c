/*-------------------------------------------------------------------------
 *
 * describe_tsql.c
 *	  What a SQL Server blue can say about itself and its tables, its types on
 *	  green, and the scripts a person runs there.
 *
 * Rows are those of describe_postgres.c.  Only catalogue views every reader of
 * the database may see are asked without a test for the permission; what needs
 * one (sys.dm_*) is asked where HAS_PERMS_BY_NAME says it is there.
 *
 * Every name goes through bcmig_tsql_identifier() or, as a value, through
 * bcmig_tsql_string().
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "dialect.h"
#include "tsql.h"
#include "utils/builtins.h"

/* DB-Library has these off; LOCK_TIMEOUT in ms: a reader must not wait long behind a posting */
#define SESSION_SETTINGS \
	"SET NOCOUNT ON; SET ANSI_NULLS ON; SET ANSI_PADDING ON; SET ANSI_WARNINGS ON; SET ARITHABORT ON;" \
	" SET CONCAT_NULL_YIELDS_NULL ON; SET QUOTED_IDENTIFIER ON; SET NUMERIC_ROUNDABORT OFF;" \
	" SET LOCK_TIMEOUT 10000; SET DEADLOCK_PRIORITY LOW; SET TEXTSIZE 2147483647; "

#define DESCRIBED_AT_A_TIME	50	/* tables in one statement */

char *
bcmig_tsql_identifier(const char *name)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoChar(&s, '[');
	for (const char *p = name; *p; p++)
	{
		if (*p == ']')
			appendStringInfoChar(&s, ']');
		appendStringInfoChar(&s, *p);
	}
	appendStringInfoChar(&s, ']');
	return s.data;
}

char *
bcmig_tsql_string(const char *value)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "N'");
	for (const char *p = value; *p; p++)
	{
		if (*p == '\'')
			appendStringInfoChar(&s, '\'');
		appendStringInfoChar(&s, *p);
	}
	appendStringInfoChar(&s, '\'');
	return s.data;
}

/* what may stand in a comment */
static char *
comment_word(const char *name)
{
	char	   *copy = pstrdup(name);

	for (char *p = copy; *p; p++)
	{
		if (*p == '*' || *p == '/' || (unsigned char) *p <= ' ')
			*p = '_';
	}
	return copy;
}

/*
 * A batch for tds_fdw, which reads the first result set only: all statements
 * travel as one EXEC.  The comment in front tells blue's DBA who asks.
 */
char *
bcmig_tsql_batch(const BcmigTableInfo *table, const char *purpose, const char *sql)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "/* bcmig ");
	if (table != NULL)
		appendStringInfo(&s, "sync=%s table=%s ", comment_word(table->sync_name),
						 comment_word(table->source_table));
	appendStringInfo(&s, "purpose=%s */ EXEC(%s)", purpose,
					 bcmig_tsql_string(psprintf(SESSION_SETTINGS "%s", sql)));
	return s.data;
}

/* ---- types ---- */

static const struct
{
	const char *native;			/* up to a parenthesis */
	const char *green;			/* %s: what stands in the parentheses */
}			types[] =
{
	{"int", "integer"},
	{"bigint", "bigint"},
	{"smallint", "smallint"},
	{"tinyint", "smallint"},
	{"bit", "smallint"},
	{"decimal", "numeric(%s)"},
	{"numeric", "numeric(%s)"},
	{"money", "numeric(19,4)"},
	{"smallmoney", "numeric(10,4)"},
	{"float", "double precision"},
	{"real", "real"},
	{"datetime", "timestamp(3) without time zone"},
	{"smalldatetime", "timestamp(0) without time zone"},
	{"date", "date"},
	{"uniqueidentifier", "uuid"},
	{"nvarchar", "character varying(%s)"},
	{"varchar", "character varying(%s)"},
	{"nchar", "character(%s)"},
	{"char", "character(%s)"},
	{"image", "bytea"},
	{"varbinary", "bytea"},
	{"binary", "bytea"},
	{"timestamp", "bytea"},
	{"rowversion", "bytea"},
};

/*
 * The feed's type for a type of SQL Server.  What is not listed comes as text:
 * xml, sql_variant, and the types of ten millionths of a second (datetime2(7),
 * time(7), datetimeoffset), which PostgreSQL cannot hold exactly.
 */
char *
bcmig_tsql_green_type(const char *native)
{
	size_t		len = strcspn(native, "(");
	const char *inside = native[len] ? native + len + 1 : "";

	if (strncmp(inside, "max", 3) == 0)
		return pstrdup(strncmp(native, "varbinary", 9) == 0 ? "bytea" : "text");
	if (strncmp(native, "datetime2(", 10) == 0 && atoi(inside) <= 6)
		return psprintf("timestamp(%d) without time zone", atoi(inside));
	if (strncmp(native, "time(", 5) == 0 && atoi(inside) <= 6)
		return psprintf("time(%d) without time zone", atoi(inside));
	for (int i = 0; i < lengthof(types); i++)
	{
		if (strlen(types[i].native) != len || strncmp(types[i].native, native, len) != 0)
			continue;
		if (strstr(types[i].green, "%s") == NULL)
			return pstrdup(types[i].green);
		return psprintf("%.*s%s", (int) strcspn(types[i].green, "%"), types[i].green, inside);
	}
	return pstrdup("text");
}

/*
 * The constant in ((0)), ('1753.01.01'), (N''), (0x00); NULL for anything else.
 */
char *
bcmig_tsql_constant(const char *expression)
{
	const char *p = expression;
	size_t		len = strlen(p);
	StringInfoData value;

	while (len >= 2 && p[0] == '(' && p[len - 1] == ')')
	{
		p++;
		len -= 2;
	}
	initStringInfo(&value);
	if (len >= 2 && p[0] == '0' && (p[1] == 'x' || p[1] == 'X') &&
		strspn(p + 2, "0123456789abcdefABCDEF") == len - 2)
		return psprintf("\\x%.*s", (int) len - 2, p + 2);
	if (len > 0 && strspn(p, "-0123456789.") >= len)
		return pnstrdup(p, len);
	if (len > 0 && p[0] == 'N')
	{
		p++;
		len--;
	}
	if (len < 2 || p[0] != '\'' || p[len - 1] != '\'')
		return NULL;
	for (size_t i = 1; i < len - 1; i++)
	{
		if (p[i] == '\'' && (++i >= len - 1 || p[i] != '\''))
			return NULL;
		appendStringInfoChar(&value, p[i]);
	}
	/* a blank date */
	if (strcmp(value.data, "1753.01.01") == 0)
		return pstrdup("1753-01-01");
	return value.data;
}

/* ---- describe ---- */

/*
 * Of each table w.n number, w.o object, w.q name as a statement spells it, w.t
 * name; of its best unique key k.k index.  Parts of the answer are in the order
 * of the tables: ten times n, and the kind of row.
 */
static char *
describe_some(List *tables)
{
	StringInfoData s;
	ListCell   *lc;
	int			n = 0;

	initStringInfo(&s);
	appendStringInfoString(&s, BCMIG_DECLARE_ANSWER
						   " DECLARE @w TABLE (n int, o int, q nvarchar(300), t nvarchar(256)); DECLARE @k TABLE (n int, k int);");
	foreach(lc, tables)
	{
		BcmigName  *t = lfirst(lc);
		char	   *name = bcmig_tsql_string(psprintf("%s.%s", bcmig_tsql_identifier(t->schema), bcmig_tsql_identifier(t->name)));

		appendStringInfo(&s, " INSERT INTO @w SELECT %d, OBJECT_ID(%s), %s, %s;", ++n, name, name,
						 bcmig_tsql_string(TextDatumGetCString(DirectFunctionCall1(btrim1, CStringGetTextDatum(t->name)))));
	}
	appendStringInfoString(&s,
						   " INSERT INTO @k SELECT w.n, (SELECT TOP (1) i.index_id FROM sys.indexes AS i WHERE i.object_id = w.o"
						   " AND i.is_unique = 1 AND i.is_disabled = 0 AND i.has_filter = 0"
						   " AND NOT EXISTS (SELECT 1 FROM sys.index_columns AS x JOIN sys.columns AS y ON y.object_id = x.object_id AND y.column_id = x.column_id"
						   " WHERE x.object_id = i.object_id AND x.index_id = i.index_id AND x.key_ordinal > 0 AND y.is_nullable = 1)"
						   " ORDER BY i.is_primary_key DESC, i.index_id) FROM @w AS w;");
	/* table */
	appendStringInfoString(&s,
						   " INSERT INTO @r SELECT w.n * 10 + 1, N'', 0, N'table',"
						   " (SELECT CASE o.type WHEN 'U' THEN N'r' ELSE N'v' END FROM sys.objects AS o WHERE o.object_id = w.o AND o.type IN ('U', 'V')),"
						   " CASE WHEN HAS_PERMS_BY_NAME(w.q, N'OBJECT', N'SELECT') = 1 THEN N'true' ELSE N'false' END,"
						   " (SELECT CONVERT(nvarchar(20), SUM(p.rows)) FROM sys.partitions AS p WHERE p.object_id = w.o AND p.index_id IN (0, 1)),"
						   " N'0',"
						   " CASE WHEN EXISTS (SELECT 1 FROM sys.change_tracking_tables AS t WHERE t.object_id = w.o) THEN N'change_tracking'"
						   " WHEN EXISTS (SELECT 1 FROM sys.columns AS c WHERE c.object_id = w.o AND c.system_type_id = 189) THEN N'rowversion' END,"
						   " (SELECT c.name FROM sys.columns AS c WHERE c.object_id = w.o AND c.system_type_id = 189),"
						   " NULL FROM @w AS w;");
	/* fix */
	appendStringInfoString(&s,
						   " INSERT INTO @r SELECT w.n * 10 + 2, N'', 0, N'fix',"
						   " N'GRANT SELECT ON ' + w.q + N' TO ' + QUOTENAME(USER_NAME()) + N'; -- on blue',"
						   " N'ALTER TABLE ' + w.q + N' ENABLE CHANGE_TRACKING; -- on blue',"
						   " N'ALTER TABLE ' + w.q + N' ADD [timestamp] rowversion; -- on blue', NULL, NULL, NULL, NULL FROM @w AS w;");
	/* columns */
	appendStringInfoString(&s,
						   " INSERT INTO @r SELECT w.n * 10 + 3, N'', c.column_id, N'column', c.name,"
						   " y.name + CASE WHEN y.name IN (N'nvarchar', N'nchar') THEN N'(' + CASE c.max_length WHEN -1 THEN N'max' ELSE CONVERT(nvarchar(10), c.max_length / 2) END + N')'"
						   " WHEN y.name IN (N'varchar', N'char', N'varbinary', N'binary') THEN N'(' + CASE c.max_length WHEN -1 THEN N'max' ELSE CONVERT(nvarchar(10), c.max_length) END + N')'"
						   " WHEN y.name IN (N'decimal', N'numeric') THEN N'(' + CONVERT(nvarchar(10), c.[precision]) + N',' + CONVERT(nvarchar(10), c.scale) + N')'"
						   " WHEN y.name IN (N'datetime2', N'time', N'datetimeoffset') THEN N'(' + CONVERT(nvarchar(10), c.scale) + N')' ELSE N'' END,"
						   " CASE c.is_nullable WHEN 1 THEN N'false' ELSE N'true' END,"
						   " (SELECT d.[definition] FROM sys.default_constraints AS d WHERE d.object_id = c.default_object_id),"
						   " (SELECT CONVERT(nvarchar(10), x.key_ordinal) FROM sys.index_columns AS x WHERE x.object_id = w.o AND x.index_id = k.k AND x.column_id = c.column_id AND x.key_ordinal > 0),"
						   " NULL, NULL"
						   " FROM @w AS w JOIN @k AS k ON k.n = w.n JOIN sys.columns AS c ON c.object_id = w.o"
						   " JOIN sys.types AS y ON y.user_type_id = c.system_type_id WHERE c.is_computed = 0;");
	/* secondary indexes */
	appendStringInfoString(&s,
						   " INSERT INTO @r SELECT w.n * 10 + 4, i.name, x.key_ordinal, N'index', i.name, CASE i.is_unique WHEN 1 THEN N'true' ELSE N'false' END, c.name, NULL, NULL, NULL, NULL"
						   " FROM @w AS w JOIN @k AS k ON k.n = w.n JOIN sys.indexes AS i ON i.object_id = w.o"
						   " JOIN sys.index_columns AS x ON x.object_id = i.object_id AND x.index_id = i.index_id AND x.key_ordinal > 0"
						   " JOIN sys.columns AS c ON c.object_id = x.object_id AND c.column_id = x.column_id"
						   " WHERE i.index_id <> ISNULL(k.k, -1) AND i.type IN (1, 2) AND i.is_disabled = 0 AND i.has_filter = 0;");
	/* near */
	appendStringInfoString(&s,
						   " INSERT INTO @r SELECT w.n * 10 + 5, o.name, 0, N'near', SCHEMA_NAME(o.schema_id) + N'.' + o.name, NULL, NULL, NULL, NULL, NULL, NULL"
						   " FROM @w AS w JOIN sys.tables AS o ON LOWER(LTRIM(RTRIM(o.name))) = LOWER(w.t) WHERE w.o IS NULL;"
						   BCMIG_SELECT_ANSWER);
	return bcmig_tsql_batch(NULL, "describe", s.data);
}

List *
bcmig_tsql_describe(List *tables)
{
	List	   *statements = NIL;

	for (int first = 0; first < list_length(tables); first += DESCRIBED_AT_A_TIME)
		statements = lappend(statements,
							 describe_some(list_copy_head(list_copy_tail(tables, first), DESCRIBED_AT_A_TIME)));
	return statements;
}

/* ---- preflight ---- */

/* one row; all but name and bad are T-SQL expressions */
static void
append_check(StringInfo s, const char *name, const char *value, const char *bound, const char *test,
			 const char *bad, const char *detail, const char *fix)
{
	appendStringInfo(s,
					 " INSERT INTO @r SELECT %d, N'', 0, N'%s', CASE WHEN %s THEN N'ok' ELSE N'%s' END, CONVERT(nvarchar(4000), %s), %s,"
					 " CASE WHEN %s THEN NULL ELSE %s END, CASE WHEN %s THEN NULL ELSE %s END, NULL, NULL;",
					 s->len, name, test, bad, value, bound, test, detail, test, fix);
}

char *
bcmig_tsql_preflight(void)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, BCMIG_DECLARE_ANSWER);
	append_check(&s, "blue version", "SERVERPROPERTY(N'ProductVersion')", "N'13 (2016) or later'",
				 "CONVERT(int, PARSENAME(CONVERT(nvarchar(128), SERVERPROPERTY(N'ProductVersion')), 4)) >= 13", "warn",
				 "N'Older servers are not tested.'", "NULL");
	append_check(&s, "blue change tracking",
				 "CASE WHEN EXISTS (SELECT 1 FROM sys.change_tracking_databases AS t WHERE t.database_id = DB_ID()) THEN N'on' ELSE N'off' END", "N'on'",
				 "EXISTS (SELECT 1 FROM sys.change_tracking_databases AS t WHERE t.database_id = DB_ID())", "warn",
				 "N'Without it changes are found by [timestamp], and deletes by sweeps only.'",
				 "N'ALTER DATABASE ' + QUOTENAME(DB_NAME()) + N' SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 7 DAYS, AUTO_CLEANUP = ON); -- on blue'");
	append_check(&s, "blue retention",
				 "ISNULL((SELECT CONVERT(nvarchar(20), t.retention_period) + N' ' + t.retention_period_units_desc FROM sys.change_tracking_databases AS t WHERE t.database_id = DB_ID()), N'none')",
				 "N'3 DAYS'",
				 "NOT EXISTS (SELECT 1 FROM sys.change_tracking_databases AS t WHERE t.database_id = DB_ID() AND t.is_auto_cleanup_on = 1"
				 " AND CASE t.retention_period_units WHEN 1 THEN t.retention_period WHEN 2 THEN t.retention_period * 60 ELSE t.retention_period * 1440 END < 4320)", "warn",
				 "N'An outage longer than this costs a full resync.'",
				 "N'ALTER DATABASE ' + QUOTENAME(DB_NAME()) + N' SET CHANGE_TRACKING (CHANGE_RETENTION = 7 DAYS); -- on blue'");
	append_check(&s, "blue snapshot isolation",
				 "(SELECT d.snapshot_isolation_state_desc FROM sys.databases AS d WHERE d.database_id = DB_ID())", "N'ON'",
				 "EXISTS (SELECT 1 FROM sys.databases AS d WHERE d.database_id = DB_ID() AND (d.snapshot_isolation_state = 1 OR d.is_read_committed_snapshot_on = 1))", "warn",
				 "N'Readers wait behind postings, and postings behind readers.'",
				 "N'ALTER DATABASE ' + QUOTENAME(DB_NAME()) + N' SET ALLOW_SNAPSHOT_ISOLATION ON; -- on blue'");
	append_check(&s, "blue durability",
				 "(SELECT d.delayed_durability_desc FROM sys.databases AS d WHERE d.database_id = DB_ID())", "N'DISABLED'",
				 "NOT EXISTS (SELECT 1 FROM sys.databases AS d WHERE d.database_id = DB_ID() AND d.delayed_durability <> 0)", "fail",
				 "N'A crash of blue may lose transactions that green has already.'",
				 "N'ALTER DATABASE ' + QUOTENAME(DB_NAME()) + N' SET DELAYED_DURABILITY = DISABLED; -- on blue'");
	append_check(&s, "blue is a primary",
				 "DATABASEPROPERTYEX(DB_NAME(), N'Updateability')", "N'READ_WRITE'",
				 "CONVERT(nvarchar(128), DATABASEPROPERTYEX(DB_NAME(), N'Updateability')) = N'READ_WRITE'", "fail",
				 "N'A readable secondary is behind its primary by an unknown time; a read-only database stands still.'", "NULL");
	append_check(&s, "blue row level security",
				 "(SELECT COUNT(*) FROM sys.security_policies AS p WHERE p.is_enabled = 1)", "N'0'",
				 "NOT EXISTS (SELECT 1 FROM sys.security_policies AS p WHERE p.is_enabled = 1)", "fail",
				 "N'A policy may hide rows from the login bcmig reads with: they would be missing on green.'",
				 "N'-- on blue: exempt the login in the predicate of each policy of sys.security_policies, or ALTER SECURITY POLICY ... WITH (STATE = OFF);'");
	append_check(&s, "blue masked columns",
				 "(SELECT COUNT(*) FROM sys.masked_columns AS m WHERE m.is_masked = 1)", "N'0'",
				 "NOT EXISTS (SELECT 1 FROM sys.masked_columns AS m WHERE m.is_masked = 1) OR HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'UNMASK') = 1", "fail",
				 "N'Masked values would be copied as they look.'",
				 "N'GRANT UNMASK TO ' + QUOTENAME(USER_NAME()) + N'; -- on blue'");
	append_check(&s, "blue permission VIEW CHANGE TRACKING",
				 "ISNULL(HAS_PERMS_BY_NAME(N'dbo', N'SCHEMA', N'VIEW CHANGE TRACKING'), 0)", "N'1'",
				 "ISNULL(HAS_PERMS_BY_NAME(N'dbo', N'SCHEMA', N'VIEW CHANGE TRACKING'), 0) = 1", "fail",
				 "N'CHANGETABLE is refused without it.'",
				 "N'GRANT VIEW CHANGE TRACKING ON SCHEMA::dbo TO ' + QUOTENAME(USER_NAME()) + N'; -- on blue'");
	append_check(&s, "blue permission VIEW DATABASE STATE",
				 "ISNULL(HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE'), 0)", "N'1'",
				 "ISNULL(HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE'), 0) = 1", "warn",
				 "N'Tables without change tracking are then read at a slow interval, and blocked_by cannot name who holds blue back.'",
				 "N'GRANT VIEW DATABASE STATE TO ' + QUOTENAME(USER_NAME()) + N'; -- on blue'");
	appendStringInfoString(&s, BCMIG_SELECT_ANSWER);
	return bcmig_tsql_batch(NULL, "preflight", s.data);
}

/* ---- scripts ---- */

char *
bcmig_tsql_script(const char *kind, const char *login, List *tables)
{
	StringInfoData s;
	ListCell   *lc;
	char	   *user = bcmig_tsql_identifier(login);

	initStringInfo(&s);
	if (strcmp(kind, "login") == 0)
		appendStringInfo(&s,
						 "-- bcmig: the login bcmig reads blue with. Review, put in a password, run as a sysadmin in the BC database.\n"
						 "CREATE LOGIN %1$s WITH PASSWORD = N'change me';\n"
						 "CREATE USER %1$s FOR LOGIN %1$s;\n"
						 "ALTER ROLE db_datareader ADD MEMBER %1$s;\n"
						 "GRANT VIEW CHANGE TRACKING ON SCHEMA::dbo TO %1$s;\n"
						 "GRANT VIEW DATABASE STATE TO %1$s;\n"
						 "GRANT VIEW DEFINITION TO %1$s;\n", user);
	else if (strcmp(kind, "tracking") == 0)
	{
		appendStringInfoString(&s,
							   "-- bcmig: change tracking. Review and run as db_owner in the BC database, in a quiet hour: each table is\n"
							   "-- locked for a moment. BC itself may have tracking on; what is on already stays as it is.\n"
							   "SET LOCK_TIMEOUT 5000;\n"
							   "IF NOT EXISTS (SELECT 1 FROM sys.change_tracking_databases WHERE database_id = DB_ID())\n"
							   "\tALTER DATABASE CURRENT SET CHANGE_TRACKING = ON (CHANGE_RETENTION = 7 DAYS, AUTO_CLEANUP = ON);\n"
							   "ALTER DATABASE CURRENT SET ALLOW_SNAPSHOT_ISOLATION ON;\n");
		foreach(lc, tables)
		{
			BcmigScriptTable *t = (BcmigScriptTable *) lfirst(lc);
			char	   *name = psprintf("%s.%s", bcmig_tsql_identifier(t->schema), bcmig_tsql_identifier(t->table));

			if (!t->has_key)
				appendStringInfo(&s, "-- %s has no primary key: it is kept by compare\n", bcmig_in_comment(name));
			else
				appendStringInfo(&s, "IF NOT EXISTS (SELECT 1 FROM sys.change_tracking_tables WHERE object_id = OBJECT_ID(%s))\n"
								 "\tALTER TABLE %s ENABLE CHANGE_TRACKING;\n", bcmig_tsql_string(name), name);
		}
		if (tables == NIL)
			appendStringInfoString(&s, "-- pass a sync for its tables: SELECT bcmig_blue_script('tracking', 'sync');\n");
	}
	else
	{
		appendStringInfoString(&s,
							   "-- bcmig: takes what bcmig asked for away from blue. Tables that were tracked before are left alone; lines are\n"
							   "-- commented out where BC, or another green, may need the same thing. Review.\n");
		foreach(lc, tables)
		{
			BcmigScriptTable *t = (BcmigScriptTable *) lfirst(lc);

			if (t->asked)
				appendStringInfo(&s, "IF EXISTS (SELECT 1 FROM sys.change_tracking_tables WHERE object_id = OBJECT_ID(%s))\n"
								 "\tALTER TABLE %s.%s DISABLE CHANGE_TRACKING;\n",
								 bcmig_tsql_string(psprintf("%s.%s", bcmig_tsql_identifier(t->schema), bcmig_tsql_identifier(t->table))),
								 bcmig_tsql_identifier(t->schema), bcmig_tsql_identifier(t->table));
		}
		appendStringInfo(&s,
						 "-- ALTER DATABASE CURRENT SET CHANGE_TRACKING = OFF;\n"
						 "DROP USER %1$s;\n"
						 "DROP LOGIN %1$s;\n", user);
	}
	return s.data;
}

char *
bcmig_tsql_version_index(const BcmigTableInfo *table)
{
	return psprintf("CREATE INDEX [bcmig_rowversion] ON %s.%s (%s);", bcmig_tsql_identifier(table->source_schema),
					bcmig_tsql_identifier(table->source_table), bcmig_tsql_identifier(table->version_column));
}
