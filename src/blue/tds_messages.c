/*-------------------------------------------------------------------------
 *
 * tds_messages.c
 *	  What SQL Server says when something goes wrong, for the DBA to read.
 *
 * tds_fdw raises nearly every error under one SQLSTATE and with a text of
 * DB-Library ("General SQL Server error: Check messages from the SQL Server").
 * The message itself it reports before as a NOTICE (feeds have msg_handler
 * 'notice').  In our own processes a log hook takes those NOTICEs out of the
 * log and remembers the last one that is an error; explain_error() then raises
 * an error with the server's number and text and a SQLSTATE by the number.
 *
 * NOTICE is above INFO: the password, which tds_fdw writes at DEBUG, is never
 * logged, and none of these texts holds it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "tsql.h"

#include "commands/defrem.h"
#include "errors.h"
#include "miscadmin.h"
#include "remote.h"
#include "storage/fd.h"
#include "utils/builtins.h"
#include "utils/elog.h"
#include "utils/guc.h"
#include "utils/memutils.h"

#define LEAST_ERROR_LEVEL	11	/* messages below are information */
#define UNREADABLE_TEXT		2403	/* FreeTDS's number */

/* the last error message of the present statement; number 0 = none */
static struct
{
	int			number;
	int			level;
	char		text[1024];
}			last;

static emit_log_hook_type previous_hook = NULL;
static int	asked_level;		/* log_min_messages as the DBA set it */

static const struct
{
	int			number;
	int			sqlstate;
	const char *hint;
}			known[] =
{
	/* unreachable, login */
	{18456, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, "Check user and password of the user mapping."},
	{18452, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, "Use a SQL Server login, no Windows account."},
	{18487, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, "The password has expired on blue."},
	{18488, ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION, "The password must be changed on blue."},
	{4060, ERRCODE_SQLSERVER_REJECTED_ESTABLISHMENT_OF_SQLCONNECTION, "Check the option database of the foreign server, and that the login has a user there."},
	{911, ERRCODE_SQLSERVER_REJECTED_ESTABLISHMENT_OF_SQLCONNECTION, "Check the option database of the foreign server."},
	{40197, ERRCODE_CONNECTION_FAILURE, NULL},
	{40501, ERRCODE_CONNECTION_FAILURE, NULL},
	{40613, ERRCODE_CONNECTION_FAILURE, NULL},
	{6005, ERRCODE_CONNECTION_FAILURE, NULL},
	/* permission */
	{229, ERRCODE_INSUFFICIENT_PRIVILEGE, "Run what SELECT bcmig_blue_script('login') prints on blue."},
	{230, ERRCODE_INSUFFICIENT_PRIVILEGE, "Run what SELECT bcmig_blue_script('login') prints on blue."},
	{262, ERRCODE_INSUFFICIENT_PRIVILEGE, NULL},
	{297, ERRCODE_INSUFFICIENT_PRIVILEGE, "GRANT VIEW DATABASE STATE TO the login; on blue."},
	{300, ERRCODE_INSUFFICIENT_PRIVILEGE, NULL},
	/* passing */
	{1204, ERRCODE_OUT_OF_MEMORY, NULL},
	{1205, ERRCODE_T_R_DEADLOCK_DETECTED, NULL},
	{1222, ERRCODE_LOCK_NOT_AVAILABLE, NULL},
	{3960, ERRCODE_T_R_SERIALIZATION_FAILURE, NULL},
	{701, ERRCODE_OUT_OF_MEMORY, NULL},
	{8645, ERRCODE_OUT_OF_MEMORY, NULL},
	/* the schema is not what it was */
	{207, ERRCODE_UNDEFINED_COLUMN, NULL},
	{208, ERRCODE_UNDEFINED_TABLE, NULL},
	/* change tracking */
	{22105, ERRCODE_BM_BLUE, "Run what SELECT bcmig_blue_script('tracking', sync) prints on blue, then bcmig_resync_table."},
	{22117, ERRCODE_BM_BLUE, "Run what SELECT bcmig_blue_script('tracking', sync) prints on blue, then bcmig_resync_table."},
	/* data */
	{241, ERRCODE_INVALID_DATETIME_FORMAT, NULL},
	{245, ERRCODE_INVALID_TEXT_REPRESENTATION, NULL},
	{8114, ERRCODE_INVALID_TEXT_REPRESENTATION, NULL},
	{8115, ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, NULL},
	{8134, ERRCODE_DIVISION_BY_ZERO, NULL},
	{8169, ERRCODE_INVALID_TEXT_REPRESENTATION, NULL},
	{3952, ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, NULL},
	{102, ERRCODE_SYNTAX_ERROR, NULL},
	{156, ERRCODE_SYNTAX_ERROR, NULL},
};

/*
 * "DB-Library notice: Msg #: %ld, Msg state: %i, Msg: %s, Server: %s, Process:
 * %s, Line: %i, Level: %i" (tds_fdw.c); other NOTICEs of tds_fdw tell of its
 * planning.
 */
static void
take_message(ErrorData *edata)
{
	const char *number;
	const char *text;
	const char *end = NULL;
	const char *level = NULL;

	if (edata->elevel == NOTICE && edata->message != NULL &&
		(strncmp(edata->message, "DB-Library notice: ", 19) == 0 ||
		 strncmp(edata->message, "tds_fdw: ", 9) == 0))
	{
		edata->output_to_server = false;
		number = strstr(edata->message, "Msg #: ");
		text = strstr(edata->message, ", Msg: ");
		for (const char *p = text; p != NULL; p = strstr(p + 1, ", Server: "))
			end = p;
		for (const char *p = text; p != NULL; p = strstr(p + 1, ", Level: "))
			level = p;
		if (number != NULL && text != NULL && end > text && level != NULL &&
			atoi(level + 9) >= LEAST_ERROR_LEVEL)
		{
			last.number = atoi(number + 7);
			last.level = atoi(level + 9);
			snprintf(last.text, sizeof(last.text), "%.*s", (int) (end - text - 7), text + 7);
		}
	}
	else if (edata->elevel == NOTICE && asked_level > NOTICE)
		edata->output_to_server = false;	/* is here for our own ears only */
	if (previous_hook != NULL)
		previous_hook(edata);
}

void
bcmig_tds_prepare_process(void)
{
	static bool prepared = false;

	last.number = 0;
	if (prepared)
		return;
	prepared = true;
	previous_hook = emit_log_hook;
	emit_log_hook = take_message;
	asked_level = log_min_messages;

	/*
	 * The hook is asked only about what would go to the log.  Never below
	 * NOTICE in a process that talks to blue: at DEBUG tds_fdw writes the
	 * password.
	 */
	SetConfigOption("log_min_messages", "notice", PGC_SUSET, PGC_S_OVERRIDE);
}

/* the value of purpose= in the comment a batch begins with */
static char *
purpose_of(const char *sql)
{
	const char *p = strstr(sql, "purpose=");

	return p == NULL ? pstrdup("statement") : pnstrdup(p + 8, strcspn(p + 8, " */"));
}

/*
 * In the handler of an error.  Errors of the receiver, which runs inside the
 * scan, are none of ours.
 */
void
bcmig_tds_explain_error(const char *sql)
{
	int			code = geterrcode();
	int			sqlstate = ERRCODE_BM_BLUE;
	const char *hint = NULL;
	ErrorData  *edata;
	MemoryContext oldcontext;
	char	   *library;

	if (ERRCODE_TO_CATEGORY(code) != ERRCODE_TO_CATEGORY(ERRCODE_FDW_ERROR))
		return;
	oldcontext = MemoryContextSwitchTo(CurTransactionContext);
	edata = CopyErrorData();
	FlushErrorState();
	library = edata->message;

	/*
	 * DB-Library's own: 20002 login, 20003 timeout, 20004 read, 20006 write,
	 * 20009 unreachable, 20012 unknown host, 20047 connection dead, ...
	 */
	if (last.number == 0)
	{
		int			number = 0;
		char	   *p = strstr(library, "DB #: ");

		if (p != NULL)
			number = atoi(p + 6);
		if (number == UNREADABLE_TEXT)
		{
			MemoryContextSwitchTo(oldcontext);
			ereport(ERROR,
					(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
					 errmsg("blue has a text that is no valid UTF-16, such as half of a character that was cut"),
					 errdetail("%s", library),
					 errhint("On blue, rows with such a text in a column are among those WHERE [column] LIKE N'%%[' + NCHAR(55296) + N'-' + NCHAR(57343) + N']%%' COLLATE Latin1_General_BIN2; mend it there, then bcmig_resume_table()."),
					 errcontext(BCMIG_BLUE_CONTEXT ", purpose %s", purpose_of(sql))));
		}
		if (number >= 20002 && number <= 20017)
			sqlstate = ERRCODE_CONNECTION_FAILURE;
		else if (number == 20047 || code == ERRCODE_FDW_UNABLE_TO_ESTABLISH_CONNECTION)
			sqlstate = ERRCODE_CONNECTION_FAILURE;
		MemoryContextSwitchTo(oldcontext);
		ereport(ERROR,
				(errcode(sqlstate),
				 sqlstate == ERRCODE_CONNECTION_FAILURE ?
				 errmsg("could not connect to blue, or the connection broke") :
				 errmsg("blue's answer could not be read"),
				 errdetail("%s", library),
				 errcontext(BCMIG_BLUE_CONTEXT ", purpose %s", purpose_of(sql))));
	}

	for (int i = 0; i < lengthof(known); i++)
	{
		if (known[i].number == last.number)
		{
			sqlstate = known[i].sqlstate;
			hint = known[i].hint;
		}
	}
	MemoryContextSwitchTo(oldcontext);
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("SQL Server error %d: %s", last.number, last.text),
			 hint ? errhint("%s", hint) : 0,
			 errcontext(BCMIG_BLUE_CONTEXT ", purpose %s", purpose_of(sql))));
}

/* ---- freetds.conf ---- */

/*
 * Does a freetds.conf set "timeout" and "connect timeout" in [global] or in
 * the section of this server?
 */
static bool
read_freetds_conf(const char *path, const char *server, bool *timeout, bool *connect)
{
	FILE	   *file = AllocateFile(path, "r");
	char		line[1024];
	bool		ours = false;

	if (file == NULL)
		return false;
	while (fgets(line, sizeof(line), file) != NULL)
	{
		char	   *p = line + strspn(line, " \t");
		char	   *value = strchr(p, '=');

		if (*p == '[')
		{
			char	   *end = strchr(p, ']');

			if (end != NULL)
				*end = '\0';
			ours = pg_strcasecmp(p + 1, "global") == 0 || pg_strcasecmp(p + 1, server) == 0;
		}
		else if (ours && value != NULL && *p != '#' && *p != ';' && atoi(value + 1) > 0)
		{
			*value = '\0';
			while (value > p && strchr(" \t", value[-1]) != NULL)
				*--value = '\0';
			*timeout |= pg_strcasecmp(p, "timeout") == 0;
			*connect |= pg_strcasecmp(p, "connect timeout") == 0;
		}
	}
	FreeFile(file);
	return true;
}

/*
 * tds_fdw knows no timeouts of its own; DB-Library takes them from
 * freetds.conf, looked for as FreeTDS does.  Without, a stalled connection
 * hangs even a fast shutdown of the server.
 */
char *
bcmig_tds_missing_timeouts(ForeignServer *server, char **fix, bool *fatal)
{
	const char *paths[3] = {getenv("FREETDSCONF"), NULL, "/etc/freetds/freetds.conf"};
	const char *home = getenv("HOME");
	const char *name = "";
	const char *found = NULL;
	bool		timeout = false;
	bool		connect = false;
	bool		notice = false;
	ListCell   *lc;

	if (home != NULL)
		paths[1] = psprintf("%s/.freetds.conf", home);
	foreach(lc, server->options)
	{
		DefElem    *def = (DefElem *) lfirst(lc);

		if (strcmp(def->defname, "servername") == 0)
			name = defGetString(def);
		notice |= strcmp(def->defname, "msg_handler") == 0 && strcmp(defGetString(def), "notice") == 0;
	}
	for (int i = 0; i < lengthof(paths) && found == NULL; i++)
	{
		if (paths[i] != NULL && read_freetds_conf(paths[i], name, &timeout, &connect))
			found = paths[i];
	}
	if (timeout && connect && notice)
		return NULL;
	if (timeout && connect)
	{
		*fatal = false;
		*fix = psprintf("ALTER SERVER %s OPTIONS (msg_handler 'notice');", quote_identifier(server->servername));
		return pstrdup("Without msg_handler 'notice' errors of blue come without their number and text.");
	}
	*fatal = true;
	*fix = psprintf("-- in %s: [global] timeout = 30, connect timeout = 10",
					found ? found : "/etc/freetds/freetds.conf");
	return psprintf("Without \"timeout\" and \"connect timeout\" in freetds.conf (%s) a stalled connection hangs a worker, and a fast shutdown with it.",
					found ? found : "none was found");
}
