/*-------------------------------------------------------------------------
 *
 * dialect_tsql.c
 *	  The statements for a SQL Server blue, through tds_fdw.
 *
 * Positions are row versions: horizon is MIN_ACTIVE_ROWVERSION() (every
 * transaction that took a lower one has ended), top @@DBTS + 1.  The mark
 * "seen" is the change tracking version at the poll.  A table with change
 * tracking is read by CHANGETABLE above the mark of its last window; its
 * position is the horizon of that poll all the same, so one (clock, top) pair
 * proves tables of both kinds.  Neither has an upper bound.
 *
 * What is checked after the rows (begin and minimum valid version, object id)
 * stands last in the UNION ALL; OPTION (MAXDOP 1) keeps the plan serial, and a
 * serial concatenation runs its inputs in order.
 *
 * A row may be gone though CHANGETABLE says insert or update: it is a delete
 * for now, and a later window tells the rest.
 *
 * Plain T-SQL: every identifier bracketed, every value a typed literal, row
 * comparisons written out, nothing above SQL Server 2016.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "tsql.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

/* short names of what tsql.h shares */
#define ident		bcmig_tsql_identifier
#define source_name bcmig_tsql_source_name
#define from_clause bcmig_tsql_from_clause
#define value_of	bcmig_tsql_value_of
#define key_array	bcmig_tsql_key_array
#define type_is		bcmig_tsql_type_is
#define literal		bcmig_tsql_literal

#define WAIT_STEPS	48			/* of 20 ms */
#define MOVED_TABLES	200		/* asked in one statement */

/* <database>.<fork>/<start of the server>, as incarnation.c takes it apart */
#define DECLARE_INCARNATION \
	"DECLARE @inc nvarchar(200) = ISNULL((SELECT CONVERT(nvarchar(36), r.database_guid) + N'.' + CONVERT(nvarchar(36), r.recovery_fork_guid)" \
	" FROM sys.database_recovery_status AS r WHERE r.database_id = DB_ID()), N'unknown')" \
	" + N'/' + ISNULL((SELECT CONVERT(nvarchar(30), d.create_date, 126) FROM sys.databases AS d WHERE d.name = N'tempdb'), N'unknown');" \
	" DECLARE @i bigint = CONVERT(bigint, CONVERT(binary(8), HASHBYTES('MD5', @inc))); "

char *
source_name(const BcmigTableInfo *table)
{
	return psprintf("%s.%s", ident(table->source_schema), ident(table->source_table));
}

bool
type_is(const char *native, const char *name)
{
	size_t		len = strlen(name);

	return strncmp(native, name, len) == 0 && (native[len] == '\0' || native[len] == '(');
}

/*
 * A value, as green writes it, in the type of its column.
 */
char *
bcmig_tsql_literal(const BcmigColumn *column, const char *value)
{
	const char *type = column->native_type;
	char	   *copy;
	char	   *blank;

	if (type_is(type, "varbinary") || type_is(type, "binary") || type_is(type, "timestamp") || type_is(type, "image"))
	{
		/* \x... */
		if (value[0] != '\\' || value[1] != 'x' || strspn(value + 2, "0123456789abcdefABCDEF") != strlen(value + 2))
			elog(ERROR, "\"%s\" is no binary value", value);
		return psprintf("0x%s", value + 2);
	}
	if (type_is(type, "nvarchar") || type_is(type, "nchar"))
		return bcmig_tsql_string(value);
	if (type_is(type, "datetime") || type_is(type, "smalldatetime") || type_is(type, "datetime2"))
	{
		/* ISO 8601, the one form no language setting changes */
		copy = pstrdup(value);
		blank = strchr(copy, ' ');
		if (blank != NULL)
			*blank = 'T';
		return psprintf("CONVERT(%s, %s, 126)", type, bcmig_tsql_string(copy));
	}
	return psprintf("CONVERT(%s, %s)", type, bcmig_tsql_string(value));
}

/*
 * Companions as p1, p2, ... beside the base as t, which may lack its companion
 * row.
 */
static char *
companion_joins(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->ncompanions; i++)
	{
		const BcmigCompanion *p = &table->companions[i];

		appendStringInfo(&s, " LEFT JOIN %s.%s AS p%d ON ", ident(p->schema), ident(p->table), i + 1);
		for (int k = 0; k < p->nkeys; k++)
			appendStringInfo(&s, "%sp%d.%s = t.%s", k ? " AND " : "", i + 1, ident(p->keys[k]), ident(p->keys[k]));
	}
	return s.data;
}

char *
from_clause(const BcmigTableInfo *table)
{
	return psprintf("%s AS t%s", source_name(table), companion_joins(table));
}

/* a column of the feed, of alias "alias"; t stands for the part it is of */
char *
value_of(const BcmigColumn *column, const char *alias)
{
	char	   *name = psprintf("%s.%s", column->part == 0 ? alias : psprintf("p%d", column->part),
								ident(column->source));
	const char *type = column->native_type;

	if (type_is(type, "money") || type_is(type, "smallmoney"))
		return psprintf("CONVERT(decimal(19,4), %s)", name);
	if (type_is(type, "smalldatetime"))
		return psprintf("CONVERT(datetime, %s)", name);
	if (type_is(type, "date"))
		return psprintf("CONVERT(nvarchar(10), %s, 23)", name);
	if (type_is(type, "datetime2") || type_is(type, "time") || type_is(type, "datetimeoffset"))
		return psprintf("CONVERT(nvarchar(40), %s, 121)", name);
	if (strcmp(column->source_type, "text") == 0 && !type_is(type, "nvarchar") && !type_is(type, "varchar") &&
		!type_is(type, "ntext") && !type_is(type, "text"))
		return psprintf("CONVERT(nvarchar(max), %s)", name);
	return name;
}

/* the text of a key column that literal() understands */
static char *
text_of(const BcmigColumn *column, const char *alias)
{
	char	   *name = psprintf("%s.%s", alias, ident(column->source));
	const char *type = column->native_type;

	if (type_is(type, "nvarchar") || type_is(type, "varchar") || type_is(type, "nchar") || type_is(type, "char"))
		return psprintf("CONVERT(nvarchar(4000), %s)", name);
	if (type_is(type, "varbinary") || type_is(type, "binary") || type_is(type, "timestamp"))
		return psprintf("N'\\x' + CONVERT(nvarchar(4000), CONVERT(varbinary(1700), %s), 2)", name);
	if (type_is(type, "datetime") || type_is(type, "smalldatetime"))
		return psprintf("CONVERT(nvarchar(40), CONVERT(datetime, %s), 121)", name);
	if (type_is(type, "date") || type_is(type, "datetime2") || type_is(type, "time"))
		return psprintf("CONVERT(nvarchar(40), %s, 121)", name);
	return psprintf("CONVERT(nvarchar(60), %s)", name);
}

static char *
version_of(const BcmigTableInfo *table)
{
	return table->version_column ? psprintf("CONVERT(bigint, t.%s)", ident(table->version_column)) :
		pstrdup("CONVERT(bigint, NULL)");
}

/* t.k = k.k AND ... */
static char *
join_keys(const BcmigTableInfo *table, const char *other)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->nkeys; i++)
	{
		const char *name = ident(table->columns[table->keys[i]].source);

		appendStringInfo(&s, "%st.%s = %s.%s", i ? " AND " : "", name, other, name);
	}
	return s.data;
}

static char *
key_columns(const BcmigTableInfo *table, const char *prefix)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->nkeys; i++)
		appendStringInfo(&s, "%s%s%s", i ? ", " : "", prefix,
						 ident(table->columns[table->keys[i]].source));
	return s.data;
}

/*
 * The columns of the feed.  "rows": of alias t; "keys": the key of that alias
 * where there is no row (or no rows at all).
 */
static char *
feed_columns(const BcmigTableInfo *table, bool rows, const char *keys)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < table->ncolumns; i++)
	{
		const BcmigColumn *c = &table->columns[i];

		if (c->key_position > 0 && keys != NULL && rows)
			appendStringInfo(&s, ", COALESCE(%s, %s)", value_of(c, "t"), value_of(c, keys));
		else if (c->key_position > 0 && keys != NULL)
			appendStringInfo(&s, ", %s", value_of(c, keys));
		else if (rows)
			appendStringInfo(&s, ", %s", value_of(c, "t"));
		else
			appendStringInfoString(&s, ", NULL");
	}
	return s.data;
}

/* object ids of base and companions */
static char *
object_ids(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "OBJECT_ID(%s)", bcmig_tsql_string(source_name(table)));
	for (int i = 0; i < table->ncompanions; i++)
		appendStringInfo(&s, ", OBJECT_ID(%s)",
						 bcmig_tsql_string(psprintf("%s.%s", ident(table->companions[i].schema),
													ident(table->companions[i].table))));
	return s.data;
}

/*
 * The signs of a table and its companions together.  begin = begin version and object id of all in one number;
 * minimum valid version: 0, or more than any position when changes above "mark"
 * have been cleaned up, or blue has not come to "mark" (yet, or any more).
 */
static void
append_signs(StringInfo s, const BcmigTableInfo *table, int64 mark)
{
	appendStringInfo(s, " UNION ALL SELECT N'I', @i%s", bcmig_nulls(table->ncolumns));
	if (strcmp(table->capture, "change_tracking") == 0)
	{
		char	   *from = psprintf("%s FROM sys.change_tracking_tables AS r WHERE r.object_id IN (%s) HAVING COUNT(*) = %d",
									bcmig_nulls(table->ncolumns), object_ids(table), table->ncompanions + 1);

		if (mark >= 0)
			appendStringInfo(s, " UNION ALL SELECT N'M', CASE WHEN MAX(r.min_valid_version) > " INT64_FORMAT
							 " OR ISNULL(CHANGE_TRACKING_CURRENT_VERSION(), 0) < " INT64_FORMAT
							 " THEN CONVERT(bigint, 9223372036854775807) ELSE CONVERT(bigint, 0) END%s",
							 mark, mark, from);
		appendStringInfo(s, " UNION ALL SELECT N'B', SUM(CONVERT(bigint, r.object_id) + r.begin_version * 1000003)%s", from);
	}
	else if (strcmp(table->capture, "rowversion") == 0)
		appendStringInfo(s, " UNION ALL SELECT N'B', SUM(CONVERT(bigint, r.object_id))%s FROM sys.objects AS r WHERE r.object_id IN (%s) HAVING COUNT(*) = %d",
						 bcmig_nulls(table->ncolumns), object_ids(table), table->ncompanions + 1);
	appendStringInfoString(s, " OPTION (MAXDOP 1)");
}

static char *
row_batch(const BcmigTableInfo *table, const char *purpose, const char *sql)
{
	return bcmig_tsql_batch(table, purpose, psprintf(BCMIG_SNAPSHOT_WHERE_ALLOWED DECLARE_INCARNATION "%s", sql));
}

/* ---- polling ---- */

static bool
tsql_hinted(const char *capture)
{
	return strcmp(capture, "rowversion") == 0;
}

/*
 * What a poll leaves for the next one, and for windows, which need the version
 * only; as text version:horizon:top:floors.
 */
typedef struct Mark
{
	int64		version;		/* of change tracking */
	int64		horizon;
	int64		top;
	int64		floors;			/* sum of the minimum valid versions of all tables */
} Mark;

static bool
read_mark(const char *text, Mark *mark)
{
	memset(mark, 0, sizeof(*mark));
	return text != NULL &&
		sscanf(text, INT64_FORMAT ":" INT64_FORMAT ":" INT64_FORMAT ":" INT64_FORMAT,
			   &mark->version, &mark->horizon, &mark->top, &mark->floors) > 0;
}

/*
 * With "wait" first steps of 20 ms, a second at most, until a version has been
 * given out, a transaction that held the horizon has ended, or one with change
 * tracking has committed.
 *
 * Clock, top, version, floors, horizon in this order, each a statement of its own.
 * Which tables moved is asked by tsql_moved(); of tables without change tracking
 * the write counters of their indexes are a hint.
 */
static char *
tsql_poll(const char *previous, List *watched, bool wait)
{
	StringInfoData s;
	StringInfoData hints;
	ListCell   *lc;
	Mark		mark;
	bool		known = read_mark(previous, &mark);

	initStringInfo(&s);
	initStringInfo(&hints);
	appendStringInfo(&s, "DECLARE @begun datetime2(6) = SYSUTCDATETIME(); DECLARE @n int = %d;",
					 known && wait ? 0 : WAIT_STEPS);
	if (known && wait)
		appendStringInfo(&s,
						 " WHILE @n < %d AND CONVERT(bigint, @@DBTS) = " INT64_FORMAT
						 " AND CONVERT(bigint, MIN_ACTIVE_ROWVERSION()) = " INT64_FORMAT
						 " AND ISNULL(CHANGE_TRACKING_CURRENT_VERSION(), 0) = " INT64_FORMAT
						 " BEGIN WAITFOR DELAY '00:00:00.020'; SET @n = @n + 1; END;",
						 WAIT_STEPS, mark.top - 1, mark.horizon, mark.version);
	appendStringInfo(&s,
					 " DECLARE @now datetime2(6) = SYSUTCDATETIME();"
					 " DECLARE @clock bigint = CONVERT(bigint, DATEDIFF(SECOND, '20000101', @now)) * 1000000 + 946684800000000 + DATEPART(MICROSECOND, @now);"
					 " DECLARE @top bigint = CONVERT(bigint, @@DBTS) + 1;"
					 " DECLARE @v bigint = ISNULL(CHANGE_TRACKING_CURRENT_VERSION(), 0);"
					 " DECLARE @f bigint = ISNULL((SELECT SUM(r.min_valid_version) FROM sys.change_tracking_tables AS r), 0);"
					 " DECLARE @h bigint = CONVERT(bigint, MIN_ACTIVE_ROWVERSION());"
					 " " DECLARE_INCARNATION);
	foreach(lc, watched)
	{
		BcmigWatched *w = (BcmigWatched *) lfirst(lc);

		if (!tsql_hinted(w->capture))
			continue;
		appendStringInfo(&hints, "%s(%s, %s, %s)", hints.len ? ", " : "",
						 bcmig_tsql_string(psprintf("%s.%s", ident(w->schema), ident(w->table))),
						 bcmig_tsql_string(w->base_schema), bcmig_tsql_string(w->base_table));
	}
	appendStringInfoString(&s,
						   " SELECT N'poll', CONVERT(nvarchar(400), @clock), CONVERT(nvarchar(400), @h), CONVERT(nvarchar(20), @top),"
						   " CONVERT(nvarchar(20), @v) + N':' + CONVERT(nvarchar(20), @h) + N':' + CONVERT(nvarchar(20), @top) + N':' + CONVERT(nvarchar(20), @f),"
						   " CONVERT(nvarchar(20), @i), @inc, CONVERT(nvarchar(20), NULL)"
						   " UNION ALL SELECT N'waited', CONVERT(nvarchar(20), DATEDIFF(MICROSECOND, @begun, @now)), NULL, NULL, NULL, NULL, NULL, NULL");
	/* TRUNCATE leaves no change, it raises the table's minimum valid version; below a version that has gone back nothing would have moved */
	if (known)
		appendStringInfo(&s, " UNION ALL SELECT N'all', NULL, NULL, NULL, NULL, NULL, NULL, NULL WHERE @f <> " INT64_FORMAT " OR @v < " INT64_FORMAT,
						 mark.floors, mark.version);
	if (hints.len > 0)
		appendStringInfo(&s,
						 " UNION ALL SELECT N'count', w.s, w.t, CONVERT(nvarchar(20), SUM(x.leaf_insert_count + x.leaf_update_count + x.leaf_delete_count + x.leaf_ghost_count)),"
						 " NULL, NULL, NULL, NULL FROM (VALUES %s) AS w(n, s, t)"
						 " JOIN sys.dm_db_index_operational_stats(DB_ID(), NULL, NULL, NULL) AS x"
						 " ON x.object_id = OBJECT_ID(w.n) AND x.index_id IN (0, 1)"
						 " WHERE HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE') = 1 GROUP BY w.s, w.t",
						 hints.data);
	return bcmig_tsql_batch(NULL, "poll", s.data);
}

/*
 * Tables with changes above the version of the previous poll; asked only when
 * the version has moved, so an idle blue of thousands of tables is asked little.
 */
static List *
tsql_moved(const char *previous, const char *current, List *watched)
{
	Mark		before;
	Mark		now;
	List	   *statements = NIL;
	StringInfoData s;
	int			n = 0;
	ListCell   *lc;

	if (!read_mark(previous, &before) || !read_mark(current, &now) || before.version == now.version)
		return NIL;
	initStringInfo(&s);
	foreach(lc, watched)
	{
		BcmigWatched *w = (BcmigWatched *) lfirst(lc);

		if (strcmp(w->capture, "change_tracking") == 0)
		{
			appendStringInfo(&s, "%sSELECT N'moved', %s, %s, NULL, NULL, NULL, NULL, NULL WHERE EXISTS (SELECT 1 FROM CHANGETABLE(CHANGES %s.%s, " INT64_FORMAT ") AS c)",
							 n > 0 ? " UNION ALL " : "", bcmig_tsql_string(w->base_schema), bcmig_tsql_string(w->base_table),
							 ident(w->schema), ident(w->table), before.version);
			n++;
		}
		if (n == MOVED_TABLES || (n > 0 && lnext(watched, lc) == NULL))
		{
			statements = lappend(statements, bcmig_tsql_batch(NULL, "moved", s.data));
			resetStringInfo(&s);
			n = 0;
		}
	}
	return statements;
}

static char *
tsql_blocker(void)
{
	return bcmig_tsql_batch(NULL, "blocker",
							"IF HAS_PERMS_BY_NAME(DB_NAME(), N'DATABASE', N'VIEW DATABASE STATE') = 1"
							" SELECT TOP (1) N'transaction of ' + ISNULL(s.login_name, N'?') + N' (session ' + CONVERT(nvarchar(10), s.session_id)"
							" + N', program ' + ISNULL(s.program_name, N'?') + N') since ' + CONVERT(nvarchar(30), d.database_transaction_begin_time, 126),"
							" NULL, NULL, NULL, NULL, NULL, NULL, NULL"
							" FROM sys.dm_tran_database_transactions AS d"
							" JOIN sys.dm_tran_session_transactions AS x ON x.transaction_id = d.transaction_id"
							" JOIN sys.dm_exec_sessions AS s ON s.session_id = x.session_id"
							" WHERE d.database_id = DB_ID() AND d.database_transaction_begin_time IS NOT NULL"
							" ORDER BY d.database_transaction_begin_time"
							" ELSE SELECT N'a transaction this login may not see (GRANT VIEW DATABASE STATE on blue)', NULL, NULL, NULL, NULL, NULL, NULL, NULL");
}

/* ALTER TABLE and its kind move modify_date, DROP the count */
static char *
tsql_schema_mark(void)
{
	return bcmig_tsql_batch(NULL, "schema",
							"SELECT CONVERT(nvarchar(20), COUNT(*)) + N'/' + CONVERT(nvarchar(20), SUM(CONVERT(bigint, o.object_id))) + N'/' +"
							" CONVERT(nvarchar(20), SUM(CONVERT(bigint, DATEDIFF(SECOND, '20000101', o.modify_date)) * 1000 + DATEPART(MILLISECOND, o.modify_date))),"
							" NULL, NULL, NULL, NULL, NULL, NULL, NULL FROM sys.tables AS o WHERE o.is_ms_shipped = 0");
}

/* SQL Server cleans up by itself */
static char *
tsql_expire(void)
{
	return NULL;
}

/* ---- rows ---- */

/* base (0) or companion */
static char *
part_name(const BcmigTableInfo *table, int part)
{
	if (part == 0)
		return source_name(table);
	return psprintf("%s.%s", ident(table->companions[part - 1].schema), ident(table->companions[part - 1].table));
}

/*
 * The keys of the base whose row, or a companion row, has changed since mark.
 * A companion with another key than the base's finds the base row by it; when
 * that is gone the base's own change tells so.
 */
static char *
changed_keys(const BcmigTableInfo *table, int64 mark)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int part = 0; part <= table->ncompanions; part++)
	{
		const BcmigCompanion *p = part > 0 ? &table->companions[part - 1] : NULL;
		bool		same = p == NULL || p->nkeys == table->nkeys;

		for (int i = 0; p != NULL && same && i < table->nkeys; i++)
		{
			bool		found = false;

			for (int k = 0; k < p->nkeys; k++)
				found |= strcmp(p->keys[k], table->columns[table->keys[i]].source) == 0;
			same = found;
		}
		appendStringInfo(&s, "%sSELECT %s FROM CHANGETABLE(CHANGES %s, " INT64_FORMAT ") AS x",
						 part > 0 ? " UNION " : "", key_columns(table, same ? "x." : "b."), part_name(table, part), mark);
		if (same)
			continue;
		appendStringInfo(&s, " JOIN %s AS b ON ", source_name(table));
		for (int k = 0; k < p->nkeys; k++)
			appendStringInfo(&s, "%sb.%s = x.%s", k ? " AND " : "", ident(p->keys[k]), ident(p->keys[k]));
	}
	return s.data;
}

static char *
tsql_window(const BcmigTableInfo *table, int64 position, const char *seen, int64 most)
{
	StringInfoData s;
	Mark		last;
	int64		mark;

	(void) read_mark(seen, &last);
	mark = last.version;
	initStringInfo(&s);
	if (strcmp(table->capture, "change_tracking") == 0)
	{
		StringInfoData newest;

		initStringInfo(&newest);
		appendStringInfo(&s, "SELECT CASE WHEN t.%s IS NULL THEN N'D' ELSE %s END, %s%s FROM (%s) AS c LEFT JOIN %s AS t ON %s%s",
						 ident(table->columns[table->keys[0]].source), bcmig_tsql_row_op(table, false), version_of(table),
						 feed_columns(table, true, "c"), changed_keys(table, mark), source_name(table),
						 join_keys(table, "c"), companion_joins(table));
		for (int i = 0; i <= table->ncompanions; i++)
			appendStringInfo(&newest, "%sSELECT MAX(x.SYS_CHANGE_VERSION) AS m FROM CHANGETABLE(CHANGES %s, " INT64_FORMAT ") AS x",
							 i ? " UNION ALL " : "", part_name(table, i), mark);
		appendStringInfo(&s, " UNION ALL SELECT N'X', MAX(v.m)%s FROM (%s) AS v HAVING MAX(v.m) IS NOT NULL",
						 bcmig_nulls(table->ncolumns), newest.data);
		append_signs(&s, table, mark);
	}
	else
	{
		appendStringInfo(&s, "SELECT %s, %s%s FROM %s WHERE t.%s >= 0x%016llX",
						 bcmig_tsql_row_op(table, false), version_of(table), feed_columns(table, true, NULL), from_clause(table),
						 ident(table->version_column), (unsigned long long) position);
		for (int i = 0; i < table->ncompanions; i++)
			appendStringInfo(&s, " OR p%d.%s >= 0x%016llX", i + 1, ident(table->companions[i].version_column),
							 (unsigned long long) position);
		append_signs(&s, table, -1);
	}
	return row_batch(table, "window", s.data);
}

/*
 * A trace is a change tracking version: one above the current version is of a
 * history blue does not have any more.
 */
static char *
tsql_lost_traces(const BcmigTableInfo *table, const char *traces)
{
	int64		newest = 0;
	const char *p = traces;

	while (*p != '\0')
	{
		newest = Max(newest, strtoll(p, NULL, 10));
		p += strcspn(p, ",");
		p += *p == ',';
	}
	return bcmig_tsql_batch(table, "witness",
							psprintf("SELECT CASE WHEN " INT64_FORMAT " > ISNULL(CHANGE_TRACKING_CURRENT_VERSION(), 0) THEN N'1' ELSE N'0' END,"
									 " NULL, NULL, NULL, NULL, NULL, NULL, NULL", newest));
}

/*
 * (k1, k2, ...) > (v1, v2, ...) written out, with a first term an index can
 * seek by; "last" is the operator of the last column.
 */
static void
append_bound(StringInfo s, const BcmigTableInfo *table, char op, const char *last, Datum bound)
{
	char	  **values;

	if (bound == (Datum) 0)
		return;
	values = bcmig_bound_values(table, bound);
	if (table->nkeys > 1)
		appendStringInfo(s, " AND t.%s %c= %s", ident(table->columns[table->keys[0]].source), op,
						 literal(&table->columns[table->keys[0]], values[0]));
	appendStringInfoString(s, " AND (");
	for (int i = 0; i < table->nkeys; i++)
	{
		const BcmigColumn *c = &table->columns[table->keys[i]];
		char	   *name = ident(c->source);
		char	   *value = literal(c, values[i]);

		if (i < table->nkeys - 1)
			appendStringInfo(s, "t.%s %c %s OR (t.%s = %s AND (", name, op, value, name, value);
		else
			appendStringInfo(s, "t.%s %s %s", name, last, value);
	}
	for (int i = 0; i < table->nkeys - 1; i++)
		appendStringInfoString(s, "))");
	appendStringInfoChar(s, ')');
}

static char *
tsql_chunk(const BcmigTableInfo *table, Datum lower, Datum upper)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "SELECT %s, %s%s FROM %s WHERE 1 = 1", bcmig_tsql_row_op(table, false), version_of(table),
					 feed_columns(table, true, NULL), from_clause(table));
	append_bound(&s, table, '>', ">", lower);
	append_bound(&s, table, '<', "<=", upper);
	append_signs(&s, table, -1);
	return row_batch(table, "chunk", s.data);
}

static char *
tsql_with_rows(List *tables)
{
	StringInfoData s;
	ListCell   *lc;

	initStringInfo(&s);
	appendStringInfoString(&s, BCMIG_SNAPSHOT_WHERE_ALLOWED DECLARE_INCARNATION
						   "SELECT N'incarnation', CONVERT(nvarchar(20), @i), NULL, NULL, NULL, NULL, NULL, NULL");
	foreach(lc, tables)
	{
		BcmigName  *t = lfirst(lc);

		appendStringInfo(&s, " UNION ALL SELECT N'rows', %s, %s, NULL, NULL, NULL, NULL, NULL WHERE EXISTS (SELECT 1 FROM %s.%s AS t)",
						 bcmig_tsql_string(t->schema), bcmig_tsql_string(t->name), ident(t->schema), ident(t->name));
	}
	return bcmig_tsql_batch(NULL, "empty", s.data);
}

static char *
tsql_rows_by_key(const BcmigTableInfo *table, int n, char **keys)
{
	StringInfoData s;
	StringInfoData values;
	StringInfoData differs;

	initStringInfo(&s);
	initStringInfo(&values);
	initStringInfo(&differs);
	for (int row = 0; row < n; row++)
	{
		appendStringInfoString(&values, row ? ", (" : "(");
		for (int i = 0; i < table->nkeys; i++)
			appendStringInfo(&values, "%s%s", i ? ", " : "",
							 literal(&table->columns[table->keys[i]], keys[row * table->nkeys + i]));
		appendStringInfoChar(&values, ')');
	}

	/*
	 * Equal keys need not be the same characters (collations without case,
	 * trailing blanks): what green has under the old ones must go.
	 */
	for (int i = 0; i < table->nkeys; i++)
	{
		const BcmigColumn *c = &table->columns[table->keys[i]];

		if (strstr(c->native_type, "char") != NULL)
			appendStringInfo(&differs, " OR CONVERT(varbinary(8000), CONVERT(nvarchar(4000), t.%1$s)) <> CONVERT(varbinary(8000), CONVERT(nvarchar(4000), k.%1$s))",
							 ident(c->source));
	}
	appendStringInfo(&s, "SELECT %s, %s%s FROM %s WHERE EXISTS (SELECT 1 FROM (VALUES %s) AS k(%s) WHERE %s)",
					 bcmig_tsql_row_op(table, false), version_of(table), feed_columns(table, true, NULL), from_clause(table),
					 values.data, key_columns(table, ""), join_keys(table, "k"));
	appendStringInfo(&s, " UNION ALL SELECT N'D', NULL%s FROM (VALUES %s) AS k(%s) LEFT JOIN %s AS t ON %s WHERE t.%s IS NULL%s",
					 feed_columns(table, false, "k"), values.data, key_columns(table, ""),
					 source_name(table), join_keys(table, "k"),
					 ident(table->columns[table->keys[0]].source), differs.data);
	append_signs(&s, table, -1);
	return row_batch(table, "rows", s.data);
}

static char *
tsql_key_list(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfo(&s, "SELECT %s, CONVERT(bigint, NULL)%s FROM %s AS t", bcmig_tsql_row_op(table, true),
					 feed_columns(table, false, "t"), source_name(table));
	append_signs(&s, table, -1);
	return row_batch(table, "keys", s.data);
}

/* {"a","b"}: PostgreSQL's text of an array */
char *
key_array(const BcmigTableInfo *table, const char *alias)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "N'{'");
	for (int i = 0; i < table->nkeys; i++)
		appendStringInfo(&s, " + N'%s\"' + REPLACE(REPLACE(%s, N'\\', N'\\\\'), N'\"', N'\\\"') + N'\"'", i ? "," : "",
						 text_of(&table->columns[table->keys[i]], alias));
	appendStringInfoString(&s, " + N'}'");
	return s.data;
}

static char *
tsql_chunk_bound(const BcmigTableInfo *table, Datum lower, int64 rows)
{
	StringInfoData s;
	StringInfoData where;
	char	   *bytes = bcmig_tsql_unbounded_bytes(table);

	initStringInfo(&s);
	initStringInfo(&where);
	append_bound(&where, table, '>', ">", lower);
	if (bytes == NULL)
		appendStringInfo(&s,
						 "SELECT N'1', %s, NULL, NULL, NULL, NULL, NULL, NULL FROM (SELECT TOP (" INT64_FORMAT ") %s,"
						 " ROW_NUMBER() OVER (ORDER BY %s) AS [bcmig_n] FROM %s AS t WHERE 1 = 1%s ORDER BY %s) AS r WHERE r.[bcmig_n] = " INT64_FORMAT,
						 key_array(table, "r"), rows, key_columns(table, "t."), key_columns(table, "t."),
						 source_name(table), where.data, key_columns(table, "t."), rows);
	else
		appendStringInfo(&s,
						 "SELECT CASE WHEN COUNT(*) = " INT64_FORMAT " THEN N'1' ELSE N'0' END,"
						 " MAX(CASE WHEN r.n = " INT64_FORMAT " THEN r.k END), NULL, NULL, NULL, CONVERT(nvarchar(20), COUNT(*)),"
						 " CONVERT(nvarchar(20), SUM(CONVERT(bigint, r.b))), CONVERT(nvarchar(20), MAX(r.b))"
						 " FROM (SELECT TOP (" INT64_FORMAT ") %s AS k, %s AS b, ROW_NUMBER() OVER (ORDER BY %s) AS n FROM %s WHERE 1 = 1%s ORDER BY %s) AS r",
						 rows, rows, rows, key_array(table, "t"), bytes, key_columns(table, "t."),
						 from_clause(table), where.data, key_columns(table, "t."));
	return bcmig_tsql_batch(table, "bound", s.data);
}

static char *
tsql_table_size(const BcmigTableInfo *table)
{
	return bcmig_tsql_batch(table, "size",
							psprintf("SELECT CONVERT(nvarchar(20), ISNULL(SUM(p.rows), 0)), N'0', NULL, NULL, NULL, NULL, NULL, NULL"
									 " FROM sys.partitions AS p WHERE p.object_id = OBJECT_ID(%s) AND p.index_id IN (0, 1)",
									 bcmig_tsql_string(source_name(table))));
}

/* ---- feeds ---- */

/* planning runs it: tds_fdw 2.0.3 estimates by executing */
static char *
feed_query(const char *feed)
{
	return psprintf("SELECT 1 AS %s WHERE 1 = 0", feed);
}

static char *
tsql_feed_options(const char *feed)
{
	return psprintf("query %s, match_column_names '0'",
					quote_literal_cstr(feed_query(feed)));
}

static bool
tsql_is_feed_text(const char *feed, const char *text)
{
	return strcmp(text, feed_query(feed)) == 0;
}

const BcmigDialect bcmig_dialect_tsql = {
	.name = "SQL Server",
	.fdw = "tds_fdw",
	.default_schema = "dbo",
	.has_fetch_size = false,
	.joins_companions = true,
	.feed_options = tsql_feed_options,
	.is_feed_text = tsql_is_feed_text,
	.prepare_process = bcmig_tds_prepare_process,
	.explain_error = bcmig_tds_explain_error,
	.missing_timeouts = bcmig_tds_missing_timeouts,
	.green_type = bcmig_tsql_green_type,
	.constant = bcmig_tsql_constant,
	.can_wait = true,
	.poll = tsql_poll,
	.moved = tsql_moved,
	.hinted = tsql_hinted,
	.blocker = tsql_blocker,
	.schema_mark = tsql_schema_mark,
	.expire = tsql_expire,
	.window = tsql_window,
	.lost_traces = tsql_lost_traces,
	.with_rows = tsql_with_rows,
	.chunk = tsql_chunk,
	.rows_by_key = tsql_rows_by_key,
	.key_list = tsql_key_list,
	.chunk_bound = tsql_chunk_bound,
	.table_size = tsql_table_size,
	.describe = bcmig_tsql_describe,
	.preflight = bcmig_tsql_preflight,
	.bc = &bcmig_tsql_bc,
	.hash = &bcmig_tsql_hash,
	.own_query = bcmig_tsql_own_query,
	.own_query_hint = "On SQL Server a query may have one column, no WITH in front and no ORDER BY; put columns together with CONCAT(..., N'|', ...), on green with concat(..., '|', ...).",
	.script = bcmig_tsql_script,
	.version_index = bcmig_tsql_version_index,
	.reverse_head = bcmig_tsql_reverse_head,
	.reverse_batch = bcmig_tsql_reverse_batch,
	.reverse_number = bcmig_tsql_reverse_number,
	.fence = &bcmig_tsql_fence,
};
