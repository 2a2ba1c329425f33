/*-------------------------------------------------------------------------
 *
 * witness.c
 *	  Asking and telling blue which green moves the traffic of a sync.
 *
 * Each call is a transaction of its own on either side.  postgres_fdw commits
 * on blue before the local transaction ends, so what was answered holds; when
 * the connection breaks in between, blue may have been told all the same, which
 * the next answer shows.
 *
 * An error of blue is an answer here, not the end of the job: traffic can be
 * taken back to blue though it does not answer.  Its transaction is aborted as a
 * whole, since postgres_fdw does not let one go on whose connection is lost.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "witness.h"

#include "access/xact.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "options.h"
#include "remote.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "worker.h"

/* the first row of a statement; NULL = none */
static char **
first_row(Oid feed, const char *sql)
{
	List	   *rows = bcmig_remote_texts(feed, sql);

	return rows != NIL ? linitial(rows) : NULL;
}

/* "nonce" NULL = only ask */
static void
exchange(const BcmigSync *sync, const char *green, int64 epoch, const char *nonce, BcmigWitness *w)
{
	Oid			feed = bcmig_text_feed(sync->environment_id);
	const BcmigWitnessDialect *dialect = bcmig_dialect_of_server(GetForeignTable(feed)->serverid)->witness;
	BcmigCatalogScope scope;
	int			timeout;
	bool		maintenance;
	char	  **row;

	if (dialect == NULL)
	{
		w->answer = BCMIG_WITNESS_ABSENT;
		w->problem = pstrdup("bcmig only reads this kind of blue");
		return;
	}
	bcmig_catalog_begin(&scope);
	timeout = bcmig_option_int64("traffic_timeout", NULL, sync->options, 0);
	maintenance = bcmig_option_bool("maintenance", NULL, sync->options);
	bcmig_catalog_end(&scope);
	if (maintenance)
	{
		w->problem = pstrdup("blue is left alone for maintenance");
		return;
	}

	enable_timeout_after(STATEMENT_TIMEOUT, timeout);
	row = first_row(feed, dialect->missing());
	if (row == NULL || row[0] != NULL)
	{
		w->answer = BCMIG_WITNESS_ABSENT;
		w->problem = row ? row[0] : pstrdup("it does not say");
	}
	else
	{
		if (nonce != NULL)
			(void) first_row(feed, dialect->put(sync->name, green, epoch, nonce));
		row = first_row(feed, dialect->get(sync->name));
		w->answer = row != NULL ? BCMIG_WITNESS_KNOWN : BCMIG_WITNESS_NOTHING;
		if (row != NULL)
		{
			w->green = bcmig_answer_text(row, 0);
			w->epoch = bcmig_answer_int64(row, 1);
			w->nonce = bcmig_answer_text(row, 2);
			w->at = row[3];
		}
	}
	disable_timeout(STATEMENT_TIMEOUT, false);
}

/* it may have come the moment the answer did */
static void
forget_timeout(void)
{
	disable_timeout(STATEMENT_TIMEOUT, false);
	QueryCancelPending = false;
}

void
bcmig_witness_tell(const BcmigSync *sync, const char *green, int64 epoch, const char *nonce, BcmigWitness *w)
{
	MemoryContext caller = CurrentMemoryContext;

	memset(w, 0, sizeof(*w));
	w->answer = BCMIG_WITNESS_UNKNOWN;
	PG_TRY();
	{
		bcmig_start_transaction();
		exchange(sync, green, epoch, nonce, w);
		bcmig_end_transaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		w->answer = BCMIG_WITNESS_UNKNOWN;
		w->problem = bcmig_error_text(CopyErrorData(), true);
		FlushErrorState();
		forget_timeout();
		if (ProcDiePending)
			proc_exit(1);
		AbortCurrentTransaction();
		bcmig_remote_running = false;
	}
	PG_END_TRY();
	forget_timeout();
	MemoryContextSwitchTo(caller);
}

void
bcmig_witness_ask(const BcmigSync *sync, BcmigWitness *w)
{
	bcmig_witness_tell(sync, NULL, 0, NULL, w);
}
