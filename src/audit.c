/*-------------------------------------------------------------------------
 *
 * audit.c
 *	  The audit log and its chain.
 *
 * Whoever does something writes a row, in the transaction that does it, and
 * names it in bcmig.audit_pending; nobody waits for anybody.  The manager comes
 * after the commit: it gives each pending row the next place in
 * bcmig.audit_chain, with the SHA-256 of the hash before it and the row.  A
 * transaction that commits late gets a place then, however old its row's id:
 * the chain is in the order in which rows became visible, and whatever is
 * pending is chained sooner or later.  Place, hash, head and the end of being
 * pending commit together, so a crash repeats a step or nothing.
 *
 * docs/audit.md says what is hashed, byte by byte.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "audit.h"

#include "catalog.h"
#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#define CHAIN_ROWS		1000	/* chained in one transaction */
#define ROW_FIELDS		8		/* audit_id, at, actor, sync_name, target, kind, event, detail */

BCMIG_FUNCTION(bcmig_audit_hash);

void
bcmig_audit(const char *kind, const char *sync_name, const char *target,
			const char *event, const char *detail)
{
	bcmig_sql("WITH a AS (INSERT INTO bcmig.audit_log (kind, sync_name, target, event, detail) "
			  " VALUES ($1, $2, $3, $4, $5) RETURNING audit_id) "
			  "INSERT INTO bcmig.audit_pending SELECT audit_id FROM a",
			  "ttttt", kind, sync_name, target, event, detail);
	bcmig_wake_at_commit();
}

void
bcmig_audit_each(const char *kind, const char *event)
{
	SPITupleTable *rows = SPI_tuptable;
	uint64		n = SPI_processed;

	for (uint64 i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		bcmig_audit(kind, SPI_getvalue(rows->vals[i], rows->tupdesc, 1),
					SPI_getvalue(rows->vals[i], rows->tupdesc, 2), event,
					SPI_getvalue(rows->vals[i], rows->tupdesc, 3));
	}
}

/* ---- hashing ---- */

/* one field: 00 for NULL, else 01, the length in 4 bytes, the bytes */
static void
add_field(StringInfo s, const char *bytes, int len)
{
	uint32		n = pg_hton32((uint32) len);

	appendStringInfoCharMacro(s, 1);
	appendBinaryStringInfo(s, (const char *) &n, sizeof(n));
	appendBinaryStringInfo(s, bytes, len);
}

/*
 * The hash of a row that comes after "previous".
 */
static void
hash_row(const uint8 *previous, const Datum *values, const bool *isnull, uint8 *hash)
{
	pg_cryptohash_ctx *sha = pg_cryptohash_create(PG_SHA256);
	StringInfoData s;

	initStringInfo(&s);
	for (int i = 0; i < ROW_FIELDS; i++)
	{
		char		number[32];

		if (isnull[i])
			appendStringInfoCharMacro(&s, 0);
		else if (i < 2)
		{
			int64		n = DatumGetInt64(values[i]);

			/* a timestamptz: microseconds since 1970 */
			if (i == 1)
				n += (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
			add_field(&s, number, snprintf(number, sizeof(number), INT64_FORMAT, n));
		}
		else
		{
			text	   *t = DatumGetTextPP(values[i]);
			char	   *utf8 = pg_server_to_any(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t), PG_UTF8);

			add_field(&s, utf8, utf8 == VARDATA_ANY(t) ? VARSIZE_ANY_EXHDR(t) : strlen(utf8));
		}
	}
	if (sha == NULL || pg_cryptohash_init(sha) < 0 ||
		pg_cryptohash_update(sha, previous, PG_SHA256_DIGEST_LENGTH) < 0 ||
		pg_cryptohash_update(sha, (uint8 *) s.data, s.len) < 0 ||
		pg_cryptohash_final(sha, hash, PG_SHA256_DIGEST_LENGTH) < 0)
		elog(ERROR, "could not hash a row of the audit log");
	pg_cryptohash_free(sha);
	pfree(s.data);
}

/*
 * SQL: bcmig.audit_hash(previous bytea, audit_id, at, actor, sync_name, target,
 * kind, event, detail) returns bytea
 */
Datum
bcmig_audit_hash(PG_FUNCTION_ARGS)
{
	bytea	   *previous;
	bytea	   *result = palloc(VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	Datum		values[ROW_FIELDS];
	bool		isnull[ROW_FIELDS];

	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	previous = PG_GETARG_BYTEA_PP(0);
	if (VARSIZE_ANY_EXHDR(previous) != PG_SHA256_DIGEST_LENGTH)
		PG_RETURN_NULL();		/* of a damaged chain: fits nothing */
	for (int i = 0; i < ROW_FIELDS; i++)
	{
		values[i] = PG_GETARG_DATUM(i + 1);
		isnull[i] = PG_ARGISNULL(i + 1);
	}
	hash_row((uint8 *) VARDATA_ANY(previous), values, isnull, (uint8 *) VARDATA(result));
	SET_VARSIZE(result, VARHDRSZ + PG_SHA256_DIGEST_LENGTH);
	PG_RETURN_BYTEA_P(result);
}

/* ---- chaining ---- */

static Datum
hex_text(const uint8 *hash)
{
	char		hex[2 * PG_SHA256_DIGEST_LENGTH + 1];

	hex_encode((const char *) hash, PG_SHA256_DIGEST_LENGTH, hex);
	hex[2 * PG_SHA256_DIGEST_LENGTH] = '\0';
	return CStringGetTextDatum(hex);
}

/*
 * Where the chain ends; nothing yet is 32 zero bytes.  The row lock keeps a
 * second manager, should there ever be one, from giving the same places.
 */
static int64
read_head(uint8 *hash)
{
	bytea	   *stored;
	bool		isnull;

	memset(hash, 0, PG_SHA256_DIGEST_LENGTH);
	if (bcmig_sql("SELECT rows, hash FROM bcmig.audit_head FOR UPDATE", "") == 0)
		return 0;
	stored = DatumGetByteaPP(bcmig_get_datum(0, 2, &isnull));
	if (VARSIZE_ANY_EXHDR(stored) == PG_SHA256_DIGEST_LENGTH)
		memcpy(hash, VARDATA_ANY(stored), PG_SHA256_DIGEST_LENGTH);
	return bcmig_get_int64(0, 1, 0);
}

static void
chain_rows(int64 rows, uint8 *hash, int n)
{
	Datum	   *ids = palloc(sizeof(Datum) * n);
	Datum	   *hashes = palloc(sizeof(Datum) * n);
	BcmigEvent *events = palloc0(sizeof(BcmigEvent) * n);
	Datum		chained;

	for (int i = 0; i < n; i++)
	{
		Datum		values[ROW_FIELDS];
		bool		isnull[ROW_FIELDS];

		CHECK_FOR_INTERRUPTS();
		for (int f = 0; f < ROW_FIELDS; f++)
			values[f] = bcmig_get_datum(i, f + 1, &isnull[f]);
		hash_row(hash, values, isnull, hash);
		ids[i] = values[0];
		hashes[i] = hex_text(hash);
		events[i].audit_id = DatumGetInt64(values[0]);
		events[i].at = DatumGetTimestampTz(values[1]);
		events[i].sync = bcmig_get_text(i, 4);
		events[i].target = bcmig_get_text(i, 5);
		events[i].kind = bcmig_get_text(i, 6);
		events[i].event = bcmig_get_text(i, 7);
		events[i].detail = bcmig_get_text(i, 8);
	}
	chained = PointerGetDatum(construct_array(ids, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
	bcmig_sql("INSERT INTO bcmig.audit_chain (seq, audit_id, hash) "
			  "SELECT $1 + u.n, u.id, decode(u.hash, 'hex') FROM unnest($2, $3) WITH ORDINALITY u(id, hash, n)",
			  "Iqk", rows, chained,
			  PointerGetDatum(construct_array(hashes, n, TEXTOID, -1, false, TYPALIGN_INT)));
	bcmig_sql("DELETE FROM bcmig.audit_pending WHERE audit_id = ANY ($1)", "q", chained);
	bcmig_sql("INSERT INTO bcmig.audit_head (rows, hash) VALUES ($1, decode($2, 'hex')) "
			  "ON CONFLICT (one) DO UPDATE SET rows = excluded.rows, hash = excluded.hash, at = clock_timestamp()",
			  "It", rows + n, TextDatumGetCString(hashes[n - 1]));
	bcmig_notify(events, n);
}

bool
bcmig_audit_chain(void)
{
	BcmigCatalogScope scope;
	uint8		hash[PG_SHA256_DIGEST_LENGTH];
	int			n = 0;

	bcmig_start_transaction();
	bcmig_catalog_begin(&scope);
	bcmig_brief_locks();
	if (bcmig_sql("SELECT 1 FROM bcmig.audit_pending LIMIT 1", "") > 0)
	{
		int64		rows = read_head(hash);

		n = bcmig_sql("SELECT a.audit_id, a.at, a.actor, a.sync_name, a.target, a.kind, a.event, a.detail "
					  "FROM bcmig.audit_pending p JOIN bcmig.audit_log a USING (audit_id) ORDER BY a.audit_id LIMIT $1",
					  "i", CHAIN_ROWS);
		if (n > 0)
			chain_rows(rows, hash, n);
	}
	bcmig_catalog_end(&scope);
	bcmig_debug_point("audit_chain_before_commit");
	bcmig_end_transaction();
	return n == CHAIN_ROWS;
}
