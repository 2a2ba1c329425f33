/*-------------------------------------------------------------------------
 *
 * fence_tsql.c
 *	  The fence of a SQL Server blue: DENY for the user of Business Central.
 *
 * INSERT, UPDATE and DELETE, and ALTER: that is what TRUNCATE asks for, which BC
 * does from version 27 on.  DENY binds members of db_owner, but neither dbo nor
 * a sysadmin, nor who owns the table, nor (for UPDATE) who was granted a single
 * column.  What cannot be seen is unknown.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "tsql.h"

#define TABLES_AT_A_TIME	200

static char *
table_name(const BcmigName *t)
{
	return psprintf("%s.%s", bcmig_tsql_identifier(t->schema), bcmig_tsql_identifier(t->name));
}

static char *
state_of_some(List *tables, const char *login)
{
	char	   *user = login ? bcmig_tsql_string(login) : "NULL";
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	/* @u user, @a is its login a sysadmin, @r is the database read-only */
	appendStringInfo(&s,
					 "DECLARE @u int; SET @u = (SELECT p.principal_id FROM sys.database_principals AS p WHERE p.name = %1$s);"
					 " IF @u IS NULL AND EXISTS (SELECT 1 FROM sys.databases AS d WHERE d.database_id = DB_ID() AND SUSER_SNAME(d.owner_sid) = %1$s) SET @u = 1;"
					 " DECLARE @a int; SET @a = IS_SRVROLEMEMBER(N'sysadmin', (SELECT SUSER_SNAME(p.sid) FROM sys.database_principals AS p WHERE p.principal_id = @u));"
					 " DECLARE @r int; SET @r = (SELECT CONVERT(int, d.is_read_only) FROM sys.databases AS d WHERE d.database_id = DB_ID());"
					 " DECLARE @w TABLE (s nvarchar(256), n nvarchar(256), o int, x int, g int);",
					 user);
	foreach(lc, tables)
	{
		BcmigName  *t = lfirst(lc);

		appendStringInfo(&s, " INSERT INTO @w SELECT %s, %s, OBJECT_ID(%s), 0, 0;", bcmig_tsql_string(t->schema), bcmig_tsql_string(t->name),
						 bcmig_tsql_string(table_name(t)));
	}
	appendStringInfo(&s,
					 " SELECT y.s, y.n, y.v, CASE WHEN @r = 1 THEN N'the database is read-only'"
					 " WHEN y.o IS NULL THEN N'it is not there, or not to be seen'"
					 " WHEN @u IS NULL THEN %1$s"
					 " WHEN @u = 1 THEN N'the login is dbo, which DENY does not bind: stop the service, or set the database READ_ONLY'"
					 " WHEN @a IS NULL THEN N'whether the login is a sysadmin cannot be seen (VIEW ANY DEFINITION)'"
					 " WHEN @a = 1 THEN N'the login is a sysadmin, which DENY does not bind: stop the service, or set the database READ_ONLY'"
					 " WHEN y.v = N'fenced' THEN N'writes are denied' WHEN y.d = 4 THEN N'DENY does not bind the owner of a table, nor a grant of a column'"
					 " ELSE N'writes are not denied' END, NULL, NULL, NULL, NULL"
					 " FROM (SELECT z.s, z.n, z.o, z.d, CASE WHEN @r = 1 THEN N'fenced' WHEN z.o IS NULL OR @u IS NULL OR @u = 1 OR @a IS NULL OR @a = 1 THEN N'unknown'"
					 " WHEN z.d = 4 AND z.x = 0 AND z.g = 0 THEN N'fenced' ELSE N'open' END AS v"
					 " FROM (SELECT w.s, w.n, w.o,"
					 " (SELECT COUNT(DISTINCT p.type) FROM sys.database_permissions AS p WHERE p.[class] = 1 AND p.major_id = w.o AND p.minor_id = 0"
					 " AND p.grantee_principal_id = @u AND p.state = N'D' AND p.type IN (N'IN', N'UP', N'DL', N'AL')) AS d,"
					 " (SELECT COUNT(*) FROM sys.tables AS t JOIN sys.schemas AS c ON c.schema_id = t.schema_id WHERE t.object_id = w.o AND ISNULL(t.principal_id, c.principal_id) = @u) AS x,"
					 " (SELECT COUNT(*) FROM sys.database_permissions AS p WHERE p.[class] = 1 AND p.major_id = w.o AND p.minor_id > 0 AND p.state <> N'D' AND p.type = N'UP') AS g"
					 " FROM @w AS w) AS z) AS y",
					 login ? bcmig_tsql_string(psprintf("the database has no user %s, or the reader may not see it (VIEW DEFINITION)", login)) : "N'who Business Central is cannot be told: option bc_login is not set'");
	return bcmig_tsql_batch(NULL, "fence", s.data);
}

static List *
tsql_state(List *tables, const char *login)
{
	List	   *statements = NIL;

	for (int first = 0; first < list_length(tables); first += TABLES_AT_A_TIME)
		statements = lappend(statements, state_of_some(list_copy_head(list_copy_tail(tables, first), TABLES_AT_A_TIME), login));
	return statements;
}

/* VALUES of the names, as a table t(n) */
static char *
name_values(List *tables)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	foreach(lc, tables)
		appendStringInfo(&s, "%s\n\t(%s)", lc == list_head(tables) ? "" : ",", bcmig_tsql_string(table_name(lfirst(lc))));
	return psprintf("(VALUES%s) AS t(n)", s.data);
}

static char *
tsql_script(List *tables, const char *login, bool up)
{
	StringInfoData s;
	ListCell   *lc;
	char	   *user = login ? bcmig_tsql_identifier(login) : NULL;

	initStringInfo(&s);
	appendStringInfo(&s,
					 "-- bcmig: %s. Review and run as db_owner in the BC database.\n",
					 up ? "writes of Business Central to these tables are denied" : "takes the DENY of script 'fence' back, and nothing else");
	if (up)
		appendStringInfoString(&s,
							   "-- DENY binds members of db_owner. It does NOT bind dbo (the login that owns the database) nor a sysadmin: if BC's\n"
							   "-- service is one of these, stop the service or ALTER DATABASE CURRENT SET READ_ONLY instead (all companies), then on\n"
							   "-- green: SELECT bcmig_confirm(sync, 'fence', 'who has stopped it').\n");
	if (tables == NIL || user == NULL)
	{
		appendStringInfoString(&s, user == NULL ?
							   "-- Who BC's service is has not been said. On green, with its user in this database:\n"
							   "-- SELECT bcmig_alter_environment(environment, '{\"bc_login\": \"...\"}'); and get this script again.\n" :
							   "-- The sync has no tables.\n");
		return s.data;
	}
	appendStringInfoString(&s, "SET LOCK_TIMEOUT 5000;\n");
	if (up)
		appendStringInfo(&s,
						 "-- Rights granted on these tables one by one, which DENY replaces and REVOKE does not bring back. Keep the result.\n"
						 "SELECT t.n, p.permission_name, p.state_desc FROM %s\n"
						 "JOIN sys.database_permissions AS p ON p.[class] = 1 AND p.major_id = OBJECT_ID(t.n)\n"
						 "WHERE p.grantee_principal_id = USER_ID(%s) AND p.type IN (N'IN', N'UP', N'DL', N'AL') AND p.state <> N'D';\n",
						 name_values(tables), bcmig_tsql_string(login));
	foreach(lc, tables)
	{
		if (up)
			appendStringInfo(&s, "DENY INSERT, UPDATE, DELETE, ALTER ON %s TO %s;\n", table_name(lfirst(lc)), user);
		else
			appendStringInfo(&s, "REVOKE INSERT, UPDATE, DELETE, ALTER ON %s FROM %s;\n", table_name(lfirst(lc)), user);
	}
	appendStringInfo(&s,
					 "-- What it may do now: %s in each row.\n"
					 "EXECUTE AS USER = %s;\n"
					 "SELECT t.n, HAS_PERMS_BY_NAME(t.n, N'OBJECT', N'INSERT') AS [insert], HAS_PERMS_BY_NAME(t.n, N'OBJECT', N'UPDATE') AS [update],\n"
					 "\tHAS_PERMS_BY_NAME(t.n, N'OBJECT', N'DELETE') AS [delete], HAS_PERMS_BY_NAME(t.n, N'OBJECT', N'ALTER') AS [truncate] FROM %s;\n"
					 "REVERT;\n",
					 up ? "0" : "what it could before, 1", bcmig_tsql_string(login), name_values(tables));
	return s.data;
}

const BcmigFenceDialect bcmig_tsql_fence = {
	.state = tsql_state,
	.script = tsql_script,
};
