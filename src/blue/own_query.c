/*-------------------------------------------------------------------------
 *
 * own_query.c
 *	  A query a DBA wrote, on its way to blue.
 *
 * It is put into parentheses and selected from, so it can be nothing but a
 * query: no engine takes another statement there.  For that it must stay
 * inside its parentheses, which is what is checked here.  A PostgreSQL blue
 * takes one statement at a time anyway and runs it in a read only transaction;
 * for SQL Server, where a batch goes on without so much as a semicolon, the
 * check is all there is, beside the rights of the login.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "tsql.h"

#include "errors.h"

/* after the end of what is quoted, where quotes are doubled; NULL = it has no end */
static const char *
skip_quoted(const char *p, char close)
{
	while (*p)
	{
		if (*p != close)
			p++;
		else if (p[1] == close)
			p += 2;
		else
			return p + 1;
	}
	return NULL;
}

/* after a comment that may hold others */
static const char *
skip_comment(const char *p)
{
	int			depth = 0;

	while (*p)
	{
		if (p[0] == '/' && p[1] == '*')
		{
			depth++;
			p += 2;
		}
		else if (p[0] == '*' && p[1] == '/')
		{
			p += 2;
			if (--depth == 0)
				return p;
		}
		else
			p++;
	}
	return NULL;
}

/* PostgreSQL: after '...' with backslashes */
static const char *
skip_escaped(const char *p)
{
	while (*p)
	{
		if (*p == '\\' && p[1] != '\0')
			p += 2;
		else if (*p == '\'' && p[1] == '\'')
			p += 2;
		else if (*p++ == '\'')
			return p;
	}
	return NULL;
}

static bool
is_word(char c)
{
	return isalnum((unsigned char) c) || c == '_' || c == '$' || IS_HIGHBIT_SET(c);
}

/* PostgreSQL: after $tag$ ... $tag$; "p" itself when it is no such quote */
static const char *
skip_dollar(const char *p)
{
	const char *end = p + 1;
	char	   *tag;
	const char *close;

	while (is_word(*end) && *end != '$')
		end++;
	if (*end != '$' || isdigit((unsigned char) p[1]))
		return p;
	tag = pnstrdup(p, end - p + 1);
	close = strstr(end + 1, tag);
	return close ? close + strlen(tag) : NULL;
}

/*
 * ERROR unless parentheses, quotes and comments are closed, none is closed that
 * was not opened, and nothing ends the statement.
 */
static void
check_query(const char *query, bool tsql)
{
	const char *wrong = NULL;
	int			depth = 0;

	for (const char *p = query; wrong == NULL && *p;)
	{
		const char *next = p + 1;
		bool		in_word = p > query && is_word(p[-1]);

		if (*p == '\'' && !tsql && p > query && (p[-1] == 'E' || p[-1] == 'e') && (p - 1 == query || !is_word(p[-2])))
			next = skip_escaped(next);
		else if (*p == '\'' || *p == '"')
			next = skip_quoted(next, *p);
		else if (*p == '[' && tsql)
			next = skip_quoted(next, ']');
		else if (*p == '$' && !tsql && !in_word)
		{
			next = skip_dollar(p);
			if (next == p)
				next++;
		}
		else if (p[0] == '-' && p[1] == '-')
			next = p + strcspn(p, "\n");
		else if (p[0] == '/' && p[1] == '*')
			next = skip_comment(p);
		else if (*p == ';')
			wrong = "it has a semicolon";
		else if (*p == '(')
			depth++;
		else if (*p == ')' && --depth < 0)
			wrong = "it closes a parenthesis that is not open";
		if (next == NULL)
			wrong = "a quote or comment in it has no end";
		p = next;
	}
	if (wrong == NULL && depth > 0)
		wrong = "a parenthesis in it is not closed";
	if (wrong != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_OPTION),
				 errmsg("the query for blue is not one query: %s", wrong),
				 errhint("One SELECT, without a semicolon.")));
}

/*
 * A row is the text of a record.  Settings that decide how values are spelt are
 * postgres_fdw's, but for bytea.
 */
List *
bcmig_postgres_own_query(const char *query, int64 most)
{
	check_query(query, false);
	return list_make2(pstrdup("SELECT pg_catalog.set_config('transaction_read_only', 'on', true), NULL,"
							  " pg_catalog.set_config('bytea_output', 'hex', true), NULL, NULL, NULL, NULL, NULL"),
					  psprintf("SELECT ROW(q.*)::text, 'row', NULL, NULL, NULL, NULL, NULL, NULL FROM (\n%s\n) q LIMIT " INT64_FORMAT,
							   query, most));
}

/*
 * There is no text of a record: one column.
 */
List *
bcmig_tsql_own_query(const char *query, int64 most)
{
	check_query(query, true);
	return list_make1(bcmig_tsql_batch(NULL, "compare",
									   psprintf(BCMIG_SNAPSHOT_WHERE_ALLOWED
												"SELECT TOP (" INT64_FORMAT ") CONVERT(nvarchar(max), q.c), N'row', NULL, NULL, NULL, NULL, NULL, NULL"
												" FROM (\n%s\n) AS q(c)", most, query)));
}
