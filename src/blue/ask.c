/*-------------------------------------------------------------------------
 *
 * ask.c
 *	  A question to blue from a session: answered by a one-off worker.
 *
 * A session never opens a connection to blue itself: it would run as the
 * caller, keep the connection, and with tds_fdw leak it on an error.  So a
 * dynamic background worker is started as the given role; it needs neither
 * shared_preload_libraries nor our shared memory.
 *
 * Protocol.  The session makes a DSM segment with three chunks: AskHeader,
 * the statements (NUL-terminated, one after the other), a shm_mq.  The worker
 * sends messages: 'R' and eight values (int32 length or -1, bytes) per row; 'T'
 * and the microseconds it took (int64) per statement;
 * last 'Z', or 'E' with SQLSTATE, where it happened, message, detail and hint.
 *
 * Life.  The segment belongs to the session's resource owner: whatever ends
 * the call (answer, error, cancel, timeout, FATAL) detaches it, and the detach
 * callback terminates the worker.  The worker's own transaction is rolled back
 * always; it made nothing but its transient feed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "ask.h"
#include "dialect.h"

#include "access/xact.h"
#include "catalog.h"
#include "commands/dbcommands.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "portability/instr_time.h"
#include "postmaster/bgworker.h"
#include "remote.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shm_mq.h"
#include "storage/shm_toc.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#define ASK_MAGIC			0xbc316a5c
#define ASK_KEY_HEADER		1
#define ASK_KEY_SQL			2
#define ASK_KEY_QUEUE		3
#define ASK_QUEUE_SIZE		65536
#define ASK_COLUMNS			8

typedef struct AskHeader
{
	Oid			dboid;
	Oid			role;
	Oid			serverid;
	int			nstatements;
} AskHeader;

extern PGDLLEXPORT void bcmig_ask_main(Datum main_arg);

/* ---------------------------------------------------------------------
 * The worker
 * ---------------------------------------------------------------------
 */

static void
send_text(StringInfo buf, const char *text)
{
	if (text == NULL)
		pq_sendint32(buf, (uint32) -1);
	else
	{
		pq_sendint32(buf, strlen(text));
		pq_sendbytes(buf, text, strlen(text));
	}
}

/* false: the session is gone */
static bool
send_message(shm_mq_handle *mqh, StringInfo buf)
{
	return shm_mq_send(mqh, buf->len, buf->data, false, true) == SHM_MQ_SUCCESS;
}

/*
 * A text feed of our own, as every environment has one; it goes away with the
 * transaction.
 */
static Oid
make_transient_feed(Oid serverid, Oid role)
{
	BcmigCatalogScope scope;
	char	   *name = psprintf("feed_ask_%d", MyProcPid);
	ForeignServer *server = GetForeignServerExtended(serverid, FSV_MISSING_OK);
	Oid			feed;

	if (server == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNREACHABLE),
				 errmsg("the foreign server is not there yet for other sessions"),
				 errhint("COMMIT the transaction that made it, then call again.")));

	bcmig_catalog_begin(&scope);
	SPI_execute(psprintf("CREATE FOREIGN TABLE bcmig.%s (c1 text, c2 text, c3 text, c4 text, "
						 "c5 text, c6 text, c7 text, c8 text) SERVER %s OPTIONS (%s)",
						 name, quote_identifier(server->servername),
						 bcmig_dialect_of_server(serverid)->feed_options(name)),
				false, 0);
	SPI_execute(psprintf("ALTER FOREIGN TABLE bcmig.%s OWNER TO %s", name,
						 quote_identifier(GetUserNameFromId(role, false))),
				false, 0);
	bcmig_sql("SELECT ('bcmig.' || $1)::regclass::oid", "t", name);
	feed = (Oid) bcmig_get_int64(0, 1, InvalidOid);
	bcmig_catalog_end(&scope);
	CommandCounterIncrement();
	return feed;
}

static void
answer(AskHeader *header, char *sql, shm_mq_handle *mqh)
{
	Oid			feed;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	feed = make_transient_feed(header->serverid, header->role);
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());

	for (int i = 0; i < header->nstatements; i++)
	{
		ListCell   *lc;
		List	   *rows;
		instr_time	start;
		instr_time	end;
		StringInfoData took;

		pgstat_report_activity(STATE_RUNNING, psprintf("question to blue, statement %d of %d",
													   i + 1, header->nstatements));
		INSTR_TIME_SET_CURRENT(start);
		rows = bcmig_remote_texts(feed, sql);
		INSTR_TIME_SET_CURRENT(end);
		INSTR_TIME_SUBTRACT(end, start);
		foreach(lc, rows)
		{
			char	  **row = (char **) lfirst(lc);
			StringInfoData buf;

			initStringInfo(&buf);
			pq_sendbyte(&buf, 'R');
			for (int col = 0; col < ASK_COLUMNS; col++)
				send_text(&buf, row[col]);
			if (!send_message(mqh, &buf))
				proc_exit(0);
			pfree(buf.data);
		}
		initStringInfo(&took);
		pq_sendbyte(&took, 'T');
		pq_sendint64(&took, (int64) INSTR_TIME_GET_MICROSEC(end));
		if (!send_message(mqh, &took))
			proc_exit(0);
		pfree(took.data);
		sql += strlen(sql) + 1;
	}
	PopActiveSnapshot();
	AbortCurrentTransaction();
}

void
bcmig_ask_main(Datum main_arg)
{
	dsm_segment *seg;
	shm_toc    *toc;
	AskHeader  *header;
	char	   *sql;
	shm_mq	   *mq;
	shm_mq_handle *mqh;
	StringInfoData buf;
	MemoryContext context;

	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	bcmig_own_process = true;

	seg = dsm_attach(DatumGetUInt32(main_arg));
	if (seg == NULL)
		proc_exit(0);			/* the session has given up already */
	toc = shm_toc_attach(ASK_MAGIC, dsm_segment_address(seg));
	header = shm_toc_lookup(toc, ASK_KEY_HEADER, false);
	sql = shm_toc_lookup(toc, ASK_KEY_SQL, false);
	mq = shm_toc_lookup(toc, ASK_KEY_QUEUE, false);
	shm_mq_set_sender(mq, MyProc);
	mqh = shm_mq_attach(mq, seg, NULL);

	BackgroundWorkerInitializeConnectionByOid(header->dboid, header->role, 0);
	pgstat_report_appname("bcmig worker");
	context = AllocSetContextCreate(TopMemoryContext, "bcmig ask", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);

	PG_TRY();
	{
		answer(header, sql, mqh);
		MemoryContextSwitchTo(context);
		initStringInfo(&buf);
		pq_sendbyte(&buf, 'Z');
	}
	PG_CATCH();
	{
		ErrorData  *edata;

		MemoryContextSwitchTo(context);
		edata = CopyErrorData();
		FlushErrorState();
		initStringInfo(&buf);
		pq_sendbyte(&buf, 'E');
		pq_sendint32(&buf, edata->sqlerrcode);
		pq_sendbyte(&buf, bcmig_remote_running ? 1 : 0);
		send_text(&buf, edata->message);
		send_text(&buf, edata->detail);
		send_text(&buf, edata->hint);
		AbortOutOfAnyTransaction();
	}
	PG_END_TRY();

	(void) send_message(mqh, &buf);
	/* the connection to blue ends with the process */
	proc_exit(0);
}

/* ---------------------------------------------------------------------
 * The session
 * ---------------------------------------------------------------------
 */

/* detach callback: nobody waits for this worker any more */
static void
terminate_worker(dsm_segment *seg, Datum arg)
{
	TerminateBackgroundWorker((BackgroundWorkerHandle *) DatumGetPointer(arg));
}

static ErrorData *
make_error(int sqlstate, char *message, char *detail, char *hint)
{
	ErrorData  *edata = palloc0(sizeof(ErrorData));

	edata->elevel = ERROR;
	edata->sqlerrcode = sqlstate;
	edata->message = message;
	edata->detail = detail;
	edata->hint = hint;
	edata->assoc_context = CurrentMemoryContext;
	return edata;
}

/*
 * What would make the worker die before it can say why, or say it badly.
 */
ErrorData *
bcmig_check_askable(Oid serverid, Oid role)
{
	ForeignServer *server = GetForeignServer(serverid);
	BcmigCatalogScope scope;
	char	   *role_name = GetUserNameFromId(role, false);
	const char *quoted_role = quote_identifier(role_name);
	const char *quoted_server = quote_identifier(server->servername);
	char	   *database = get_database_name(MyDatabaseId);
	bool		can_login;
	bool		usage;
	bool		mapping;
	bool		connect;

	bcmig_catalog_begin(&scope);
	bcmig_sql("SELECT r.rolcanlogin, has_server_privilege(r.oid, $2, 'USAGE'), "
			  " EXISTS (SELECT 1 FROM pg_user_mapping m WHERE m.umserver = $2 AND m.umuser IN (0, $1)), "
			  " has_database_privilege(r.oid, current_database(), 'CONNECT') "
			  "FROM pg_roles r WHERE r.oid = $1", "oo", role, serverid);
	can_login = bcmig_get_bool(0, 1);
	usage = bcmig_get_bool(0, 2);
	mapping = bcmig_get_bool(0, 3);
	connect = bcmig_get_bool(0, 4);
	bcmig_catalog_end(&scope);

	if (!can_login)
		return make_error(ERRCODE_BM_UNSUITABLE,
						  psprintf("role %s cannot log in", quoted_role),
						  pstrdup("All work for blue runs in background workers as that role."),
						  psprintf("ALTER ROLE %s LOGIN;", quoted_role));
	if (!connect)
		return make_error(ERRCODE_BM_UNSUITABLE,
						  psprintf("role %s may not connect to this database", quoted_role),
						  NULL,
						  psprintf("GRANT CONNECT ON DATABASE %s TO %s;",
								   quote_identifier(database), quoted_role));
	if (!usage)
		return make_error(ERRCODE_INSUFFICIENT_PRIVILEGE,
						  psprintf("permission denied for foreign server %s", quoted_server),
						  psprintf("Role %s has no USAGE on it.", quoted_role),
						  psprintf("GRANT USAGE ON FOREIGN SERVER %s TO %s;",
								   quoted_server, quoted_role));
	if (!mapping)
		return make_error(ERRCODE_BM_UNSUITABLE,
						  psprintf("role %s has no user mapping for foreign server %s",
								   quoted_role, quoted_server),
						  NULL,
						  psprintf("CREATE USER MAPPING FOR %s SERVER %s OPTIONS (user '...', password '...');",
								   quoted_role, quoted_server));
	return NULL;
}

/*
 * Errors of the remote side under codes of ours; the original code stays in
 * the detail.  postgres_fdw says 08001 for a connection it could not make and
 * passes on 57P0x and class 08 of one that broke.
 */
static ErrorData *
classify(ForeignServer *server, int sqlstate, bool remote, char *message,
		 char *detail, char *hint)
{
	char	   *original;

	if (!remote)
		return make_error(sqlstate, message, detail, hint);

	original = psprintf("%s (SQLSTATE %s)%s%s", message, unpack_sql_state(sqlstate),
						detail ? " " : "", detail ? detail : "");
	if (ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_CONNECTION_EXCEPTION ||
		ERRCODE_TO_CATEGORY(sqlstate) == MAKE_SQLSTATE('5', '7', '0', '0', '0') ||
		ERRCODE_TO_CATEGORY(sqlstate) == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION ||
		strstr(message, "could not connect") != NULL)
		return make_error(ERRCODE_BM_UNREACHABLE,
						  psprintf("blue behind server \"%s\" cannot be reached", server->servername),
						  original,
						  hint ? hint :
						  psprintf("Check that it runs, and host, port, dbname and user mapping: SELECT srvoptions FROM pg_foreign_server WHERE srvname = %s;",
								   quote_literal_cstr(server->servername)));
	return make_error(ERRCODE_BM_BLUE,
					  psprintf("blue behind server \"%s\" refused a statement", server->servername),
					  original, hint);
}

static char *
read_text(StringInfo msg)
{
	int32		len = (int32) pq_getmsgint(msg, 4);

	return len < 0 ? NULL : pnstrdup(pq_getmsgbytes(msg, len), len);
}

/*
 * Start the worker for a prepared segment.  NULL: no slot was free.
 */
static BackgroundWorkerHandle *
launch(dsm_segment *seg)
{
	BackgroundWorker worker;
	BackgroundWorkerHandle *handle;
	MemoryContext oldcontext;
	bool		ok;

	memset(&worker, 0, sizeof(worker));
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	strlcpy(worker.bgw_library_name, "bcmig", BGW_MAXLEN);
	strlcpy(worker.bgw_function_name, "bcmig_ask_main", BGW_MAXLEN);
	strlcpy(worker.bgw_name, "bcmig worker", BGW_MAXLEN);
	strlcpy(worker.bgw_type, "bcmig worker", BGW_MAXLEN);
	worker.bgw_main_arg = UInt32GetDatum(dsm_segment_handle(seg));
	worker.bgw_notify_pid = MyProcPid;

	/* the detach callback may run while this transaction is cleaned up */
	oldcontext = MemoryContextSwitchTo(TopTransactionContext);
	ok = RegisterDynamicBackgroundWorker(&worker, &handle);
	MemoryContextSwitchTo(oldcontext);
	return ok ? handle : NULL;
}

/*
 * Put the question into a new segment.
 */
static dsm_segment *
make_segment(Oid serverid, Oid role, List *statements, shm_mq **mq)
{
	shm_toc_estimator e;
	Size		sql_size = 0;
	Size		size;
	dsm_segment *seg;
	shm_toc    *toc;
	AskHeader  *header;
	char	   *sql;
	ListCell   *lc;

	foreach(lc, statements)
		sql_size += strlen((char *) lfirst(lc)) + 1;

	shm_toc_initialize_estimator(&e);
	shm_toc_estimate_chunk(&e, sizeof(AskHeader));
	shm_toc_estimate_chunk(&e, sql_size);
	shm_toc_estimate_chunk(&e, ASK_QUEUE_SIZE);
	shm_toc_estimate_keys(&e, 3);
	size = shm_toc_estimate(&e);
	seg = dsm_create(size, 0);
	toc = shm_toc_create(ASK_MAGIC, dsm_segment_address(seg), size);

	header = shm_toc_allocate(toc, sizeof(AskHeader));
	header->dboid = MyDatabaseId;
	header->role = role;
	header->serverid = serverid;
	header->nstatements = list_length(statements);
	shm_toc_insert(toc, ASK_KEY_HEADER, header);

	sql = shm_toc_allocate(toc, sql_size);
	shm_toc_insert(toc, ASK_KEY_SQL, sql);
	foreach(lc, statements)
	{
		strcpy(sql, (char *) lfirst(lc));
		sql += strlen(sql) + 1;
	}

	*mq = shm_mq_create(shm_toc_allocate(toc, ASK_QUEUE_SIZE), ASK_QUEUE_SIZE);
	shm_toc_insert(toc, ASK_KEY_QUEUE, *mq);
	shm_mq_set_receiver(*mq, MyProc);
	return seg;
}

/*
 * Read messages until the last one.  NULL rows and an error, or rows.  times may
 * be NULL.
 */
static List *
receive(ForeignServer *server, shm_mq_handle *mqh, int timeout_ms, List **times, ErrorData **error)
{
	TimestampTz deadline = TimestampTzPlusMilliseconds(bcmig_steady_time(), timeout_ms);
	List	   *rows = NIL;

	for (;;)
	{
		Size		len;
		void	   *data;
		StringInfoData msg;
		shm_mq_result res = shm_mq_receive(mqh, &len, &data, true);

		if (res == SHM_MQ_WOULD_BLOCK)
		{
			long		remaining = TimestampDifferenceMilliseconds(bcmig_steady_time(), deadline);

			if (remaining <= 0)
			{
				*error = make_error(ERRCODE_BM_UNREACHABLE,
									psprintf("blue behind server \"%s\" did not answer within %d ms",
											 server->servername, timeout_ms),
									NULL,
									pstrdup("Check the network, or set the environment's option connect_timeout higher."));
				return NIL;
			}
			(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 remaining, PG_WAIT_EXTENSION);
			ResetLatch(MyLatch);
			CHECK_FOR_INTERRUPTS();
			continue;
		}
		if (res == SHM_MQ_DETACHED)
		{
			*error = make_error(ERRCODE_BM_NO_WORKER,
								pstrdup("the worker that asks blue ended without an answer"),
								NULL,
								pstrdup("See the server log for the reason."));
			return NIL;
		}

		msg.data = data;
		msg.len = msg.maxlen = len;
		msg.cursor = 0;
		switch (pq_getmsgbyte(&msg))
		{
			case 'R':
				{
					char	  **row = palloc(sizeof(char *) * ASK_COLUMNS);

					for (int col = 0; col < ASK_COLUMNS; col++)
						row[col] = read_text(&msg);
					rows = lappend(rows, row);
					break;
				}
			case 'T':
				{
					double	   *ms = palloc(sizeof(double));

					*ms = pq_getmsgint64(&msg) / 1000.0;
					if (times != NULL)
						*times = lappend(*times, ms);
					break;
				}
			case 'E':
				{
					int			sqlstate = (int) pq_getmsgint(&msg, 4);
					bool		remote = pq_getmsgbyte(&msg) != 0;
					char	   *message = read_text(&msg);
					char	   *detail = read_text(&msg);
					char	   *hint = read_text(&msg);

					*error = classify(server, sqlstate, remote, message, detail, hint);
					return NIL;
				}
			default:
				return rows;
		}
	}
}

List *
bcmig_try_ask(Oid serverid, Oid role, List *statements, int timeout_ms, ErrorData **error)
{
	return bcmig_try_ask_timed(serverid, role, statements, timeout_ms, NULL, error);
}

List *
bcmig_try_ask_timed(Oid serverid, Oid role, List *statements, int timeout_ms, List **times, ErrorData **error)
{
	ForeignServer *server = GetForeignServer(serverid);
	dsm_segment *seg;
	shm_mq	   *mq;
	BackgroundWorkerHandle *handle;
	List	   *rows;

	*error = bcmig_check_askable(serverid, role);
	if (*error != NULL)
		return NIL;

	seg = make_segment(serverid, role, statements, &mq);
	handle = launch(seg);
	if (handle == NULL)
	{
		dsm_detach(seg);
		*error = make_error(ERRCODE_BM_NO_WORKER,
							pstrdup("no background worker is free to ask blue"),
							psprintf("max_worker_processes is %d, and all are in use.",
									 max_worker_processes),
							psprintf("ALTER SYSTEM SET max_worker_processes = %d; and restart the server.",
									 max_worker_processes + 8));
		return NIL;
	}
	on_dsm_detach(seg, terminate_worker, PointerGetDatum(handle));
	rows = receive(server, shm_mq_attach(mq, seg, handle), timeout_ms, times, error);
	dsm_detach(seg);
	return rows;
}

List *
bcmig_ask(Oid serverid, Oid role, List *statements, int timeout_ms)
{
	ErrorData  *error;
	List	   *rows = bcmig_try_ask(serverid, role, statements, timeout_ms, &error);

	if (error != NULL)
		ThrowErrorData(error);
	return rows;
}
