/*-------------------------------------------------------------------------
 *
 * gate_query.c
 *	  Gates that are queries of the user.
 *
 * A query of one boolean, run by the worker as the owner of the sync in a
 * read-only transaction of its own, under traffic_timeout.  What it answers, or
 * raises, is stored in another transaction, so that a query which never ends
 * holds up nothing but itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "gate.h"

#include "call.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "user_query.h"
#include "utils/builtins.h"
#include "utils/timeout.h"

BCMIG_FUNCTION(bcmig_add_gate);
BCMIG_FUNCTION(bcmig_remove_gate);

static void
make_query(BcmigUserQuery *q, const char *name, const char *query)
{
	q->kind = "gate";
	q->name = name;
	q->query = query;
	q->hint = psprintf("SELECT bcmig_add_gate('sync', %s, 'SELECT count(*) = 0 FROM ...'); with a query that returns one row: true lets a weight be raised.",
					   quote_literal_cstr(name));
	q->result = BOOLOID;
}

/* ---- added and removed ---- */

/* gates bcmig has itself; keys_disjoint is always a user's */
static void
refuse_own_name(const char *name)
{
	static const char *const own[] = {"lag", "tables", "quarantine", "conflicts", "errors", "validation", "fence", "journal"};
	static const char *const of[] = {"health of ", "lag of ", "tables of ", "validation of "};
	bool		taken = false;

	for (int i = 0; i < lengthof(own); i++)
		taken |= strcmp(name, own[i]) == 0;
	for (int i = 0; i < lengthof(of); i++)
		taken |= strncmp(name, of[i], strlen(of[i])) == 0;
	if (taken)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("\"%s\" is the name of one of bcmig's own gates", name),
				 errhint("Choose another name.")));
}

/*
 * bcmig_add_gate(sync, name, query)
 */
Datum
bcmig_add_gate(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *name = bcmig_arg_new_name(fcinfo, 1, "name");
	char	   *query = bcmig_arg_text(fcinfo, 2, "query");
	BcmigUserQuery q;
	BcmigCatalogScope scope;

	refuse_own_name(name);
	make_query(&q, name, query);
	bcmig_check_user_query(sync->owner, &q, NULL);
	bcmig_catalog_begin(&scope);
	if (bcmig_sql("INSERT INTO bcmig.gate (sync_id, name, query) VALUES ($1, $2, $3) ON CONFLICT (sync_id, name) DO NOTHING",
				  "itt", sync->sync_id, name, query) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("sync \"%s\" has a gate \"%s\" already", sync->name, name),
				 errhint("SELECT bcmig_remove_gate(%s, %s);", quote_literal_cstr(sync->name), quote_literal_cstr(name))));
	bcmig_audit("command", sync->name, NULL, "bcmig_add_gate", psprintf("%s: %s", name, query));
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/*
 * bcmig_remove_gate(sync, name)
 */
Datum
bcmig_remove_gate(PG_FUNCTION_ARGS)
{
	BcmigSync  *sync = bcmig_load_sync(bcmig_arg_text(fcinfo, 0, "sync"));
	char	   *name = bcmig_arg_text(fcinfo, 1, "name");
	BcmigCatalogScope scope;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("DELETE FROM bcmig.gate WHERE sync_id = $1 AND name = $2", "it", sync->sync_id, name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("sync \"%s\" has no gate \"%s\" of its own", sync->name, name),
				 errhint("SELECT g.name, g.query FROM bcmig.gate g JOIN bcmig.sync y USING (sync_id) WHERE y.name = %s;",
						 quote_literal_cstr(sync->name))));
	bcmig_audit("command", sync->name, NULL, "bcmig_remove_gate", name);
	bcmig_config_changed();
	bcmig_catalog_end(&scope);
	PG_RETURN_VOID();
}

/* ---- asking ---- */

typedef struct Look
{
	int			gate_id;
	BcmigUserQuery query;
	int			timeout;		/* ms */
	const char *status;
	const char *value;
	const char *detail;			/* NULL = none */
} Look;

static void
look(void *arg)
{
	Look	   *l = arg;
	Portal		portal;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	enable_timeout_after(STATEMENT_TIMEOUT, l->timeout);
	portal = SPI_cursor_open(NULL, bcmig_prepare_user_query(&l->query, NULL), NULL, NULL, true);
	SPI_cursor_fetch(portal, true, 2);
	if (SPI_processed == 0)
	{
		l->status = "inconclusive";
		l->value = "no row";
	}
	else if (SPI_processed > 1)
	{
		l->status = "fail";
		l->value = "several rows";
	}
	else
	{
		bool		isnull;
		bool		value = DatumGetBool(bcmig_get_datum(0, 1, &isnull));

		l->status = isnull ? "inconclusive" : value ? "ok" : "fail";
		l->value = isnull ? "NULL" : value ? "true" : "false";
	}
	SPI_cursor_close(portal);
	disable_timeout(STATEMENT_TIMEOUT, false);
	SPI_finish();
}

/* unless it has been removed meanwhile */
static void
store(const Look *l)
{
	BcmigCatalogScope scope;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_sql("INSERT INTO bcmig.gate_answer (gate_id, asked_at, counts_until, status, value, detail) "
			  "SELECT gate_id, clock_timestamp(), clock_timestamp() + $5 * interval '1 s', $2, $3, $4 "
			  "FROM bcmig.gate WHERE gate_id = $1 FOR KEY SHARE "
			  "ON CONFLICT (gate_id) DO UPDATE SET asked_at = excluded.asked_at, counts_until = excluded.counts_until, "
			  " status = excluded.status, value = excluded.value, detail = excluded.detail",
			  "ittti", l->gate_id, l->status, l->value, l->detail, ANSWER_COUNTS);
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
}

void
bcmig_ask_queries(const BcmigSync *sync, int timeout)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	List	   *looks = NIL;
	ListCell   *lc;
	uint64		n;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	n = bcmig_sql("SELECT gate_id, name, query FROM bcmig.gate WHERE sync_id = $1 ORDER BY name", "i", sync->sync_id);
	MemoryContextSwitchTo(caller);
	for (uint64 i = 0; i < n; i++)
	{
		Look	   *l = palloc0(sizeof(Look));

		l->gate_id = bcmig_get_int64(i, 1, 0);
		make_query(&l->query, bcmig_get_text(i, 2), bcmig_get_text(i, 3));
		l->timeout = timeout;
		looks = lappend(looks, l);
	}
	bcmig_catalog_end(&scope);
	bcmig_end_transaction();
	MemoryContextSwitchTo(caller);

	foreach(lc, looks)
	{
		Look	   *l = lfirst(lc);
		ErrorData  *error;

		CHECK_FOR_INTERRUPTS();
		if (bcmig_way_back_asked(sync->sync_id))
			return;
		error = bcmig_read_only(look, l);
		if (error != NULL)
		{
			l->status = "fail";
			l->value = "error";
			l->detail = bcmig_error_text(error, true);
		}
		store(l);
	}
}

/* ---- the gates ---- */

List *
bcmig_query_gates(List *checks, MemoryContext context, const BcmigSync *sync, bool asking)
{
	uint64		n = bcmig_sql("SELECT g.name, g.query, a.status, a.value, extract(epoch FROM clock_timestamp() - a.asked_at)::int8, a.detail, "
							  " a.counts_until < clock_timestamp() FROM bcmig.gate g LEFT JOIN bcmig.gate_answer a USING (gate_id) "
							  "WHERE g.sync_id = $1 ORDER BY g.name", "i", sync->sync_id);

	MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < n; i++)
	{
		char	   *name = bcmig_get_text(i, 1);
		char	   *query = bcmig_get_text(i, 2);
		char	   *status = bcmig_get_text(i, 3);
		int64		age = bcmig_get_int64(i, 5, 0);
		bool		old = bcmig_get_bool(i, 7);

		if (status == NULL || (old && !asking))
			checks = bcmig_add_check(checks, name, "inconclusive",
									 status == NULL ? "not asked" : psprintf("asked " INT64_FORMAT " s ago", age),
									 status == NULL ? "true" : ANSWER_COUNTS_TEXT, asking ? "Asked when a weight is raised." : NULL, query);
		else
			checks = bcmig_add_check(checks, name, status,
									 psprintf("%s, asked " INT64_FORMAT " s ago", bcmig_get_text(i, 4), age), "true", bcmig_get_text(i, 6),
									 strcmp(status, "ok") == 0 ? NULL : query);
	}
	return checks;
}
