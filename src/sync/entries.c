/*-------------------------------------------------------------------------
 *
 * entries.c
 *	  Journal entries that need not be brought to blue any more.
 *
 * An entry of an outside rename concerns two keys.  Settled for one of them it
 * lives on as a new entry for the other.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "conflict.h"

#include "catalog/pg_type.h"
#include "utils/array.h"
#include "utils/builtins.h"

static Datum
int8_array(int64 *values, int n)
{
	Datum	   *datums = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		datums[i] = Int64GetDatum(values[i]);
	return PointerGetDatum(construct_array(datums, n, INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * A line an entry of a key, with all that is wanted of the key: nothing to join
 * but the journal, by its primary key.
 */
void
bcmig_settle_entries(int n, const BcmigSettled *settled)
{
	List	   *keys = NIL;
	List	   *hows = NIL;
	int64	   *versions;
	int64	   *ids;
	int			nids = 0;

	if (n == 0)
		return;
	for (int i = 0; i < n; i++)
		nids += ArrayGetNItems(ARR_NDIM(DatumGetArrayTypeP(settled[i].ids)), ARR_DIMS(DatumGetArrayTypeP(settled[i].ids)));
	ids = palloc(sizeof(int64) * Max(nids, 1));
	versions = palloc(sizeof(int64) * Max(nids, 1));
	nids = 0;
	for (int i = 0; i < n; i++)
	{
		Datum	   *values;
		int			nvalues;

		deconstruct_array(DatumGetArrayTypeP(settled[i].ids), INT8OID, sizeof(int64), FLOAT8PASSBYVAL, TYPALIGN_DOUBLE,
						  &values, NULL, &nvalues);
		for (int k = 0; k < nvalues; k++)
		{
			keys = lappend(keys, unconstify(char *, settled[i].key));
			hows = lappend(hows, unconstify(char *, settled[i].as));
			versions[nids] = settled[i].version;
			ids[nids++] = DatumGetInt64(values[k]);
		}
	}
	bcmig_sql("WITH k AS MATERIALIZED (SELECT u.id, u.key::jsonb AS key, u.how, u.version FROM unnest($1, $2, $3, $4) u(id, key, how, version)), "
			  "d AS MATERIALIZED (SELECT j.journal_id, max(k.how) AS how, max(nullif(k.version, -1)) FILTER (WHERE k.key = j.new_key) AS version, "
			  "  bool_or(k.key = j.old_key) AS old_done, bool_or(k.key = j.new_key) AS new_done "
			  "  FROM k JOIN bcmig.journal j ON j.journal_id = k.id AND j.settled_at IS NULL AND (j.old_key = k.key OR j.new_key = k.key) GROUP BY 1), "
			  "s AS (UPDATE bcmig.journal j SET settled_at = clock_timestamp(), settled_as = d.how, produced_version = d.version "
			  "  FROM d WHERE d.journal_id = j.journal_id RETURNING j.*, d.old_done, d.new_done) "
			  "INSERT INTO bcmig.journal (sync_id, table_id, operation, old_key, new_key, old_image, new_image, xid, base_version, actor, at) "
			  "SELECT sync_id, table_id, CASE WHEN new_done THEN 'delete' ELSE 'insert' END, "
			  " CASE WHEN new_done THEN old_key END, CASE WHEN old_done THEN new_key END, "
			  " CASE WHEN new_done THEN old_image END, CASE WHEN old_done THEN new_image END, xid, CASE WHEN new_done THEN base_version END, actor, at "
			  "FROM s WHERE old_key <> new_key AND old_done <> new_done",
			  "qkkq", int8_array(ids, nids), bcmig_text_array(keys), bcmig_text_array(hows), int8_array(versions, nids));
}
