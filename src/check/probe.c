/*-------------------------------------------------------------------------
 *
 * probe.c
 *	  Does blue hash values as green does?
 *
 * Before a run uses blue's hashes, blue hashes a value of each type, and green
 * the same.  Where they do not agree - a server was found that hashes nvarchar
 * in another encoding - the tables with such a column are pulled, and it is
 * said.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "check.h"

#include "executor/spi.h"
#include "remote.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

/* hash of a row of one column, as green makes it; in a catalogue scope */
static BcmigHash
green_hash(BcmigImage image, const char *expression)
{
	const int	first = 0;
	BcmigHash	hash;
	Datum		value;
	bool		isnull;

	if (SPI_execute(psprintf("SELECT %s", expression), true, 1) != SPI_OK_SELECT)
		elog(ERROR, "SPI_execute failed: %s", expression);
	value = bcmig_get_datum(0, 1, &isnull);
	bcmig_hash_row(bcmig_hasher_create(image, SPI_tuptable->tupdesc), &value, &isnull, 1, &first, 0, &hash);
	return hash;
}

static void
probe(BcmigProof *proof)
{
	List	   *rows = bcmig_remote_texts(proof->text_feed, proof->hash->probe());
	int			environment_id = proof->table->environment_id;
	BcmigCatalogScope scope;
	ListCell   *lc;

	bcmig_catalog_begin(&scope);
	bcmig_sql("DELETE FROM bcmig.hash_probe WHERE environment_id = $1", "i", environment_id);
	bcmig_catalog_end(&scope);
	foreach(lc, rows)
	{
		char	  **row = lfirst(lc);
		BcmigHash	green;
		BcmigHash	blue;
		bool		agrees;

		bcmig_catalog_begin(&scope);
		green = green_hash(proof->hash->image, bcmig_answer_text(row, 2));
		agrees = row[1] != NULL && strlen(row[1]) > 2 * BCMIG_HASH_BYTES &&
			bcmig_hash_read(pnstrdup(row[1], 2 * BCMIG_HASH_BYTES), &blue) && memcmp(&green, &blue, sizeof(green)) == 0;
		bcmig_sql("INSERT INTO bcmig.hash_probe AS p (environment_id, type_class, agrees, detail) VALUES ($1, $2, $3, $4) "
				  "ON CONFLICT (environment_id, type_class) DO UPDATE SET agrees = excluded.agrees, detail = excluded.detail "
				  "WHERE p.agrees", "itbt", environment_id, row[0], (int) agrees,
				  psprintf("%s (%s): %s", row[2], row[3], agrees ? "the same hash" : "another hash"));
		bcmig_catalog_end(&scope);
	}
}

bool
bcmig_may_push_down(BcmigProof *proof, char **why)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	bool		done;
	StringInfoData types;

	*why = bcmig_transforms_pulled(proof);
	if (*why != NULL)
		return false;
	bcmig_catalog_begin(&scope);
	done = bcmig_sql("SELECT 1 FROM bcmig.hash_probe p, bcmig.validation_run r WHERE p.environment_id = $1 AND r.run_id = $2 "
					 "AND p.probed_at > r.started_at LIMIT 1", "iI", proof->table->environment_id, proof->run_id) > 0;
	bcmig_catalog_end(&scope);
	MemoryContextSwitchTo(caller);
	if (!done)
		probe(proof);

	initStringInfo(&types);
	for (int i = 0; i < proof->hashed->ncolumns; i++)
	{
		const BcmigColumn *c = &proof->hashed->columns[i];
		const char *type_class = proof->hash->type_class(c);
		bool		agrees = false;

		if (type_class != NULL)
		{
			bcmig_catalog_begin(&scope);
			agrees = bcmig_sql("SELECT 1 FROM bcmig.hash_probe WHERE environment_id = $1 AND type_class = $2 AND agrees",
							   "it", proof->table->environment_id, type_class) > 0;
			bcmig_catalog_end(&scope);
			MemoryContextSwitchTo(caller);
		}
		if (!agrees && (types.len == 0 || strstr(types.data, c->native_type) == NULL))
			appendStringInfo(&types, "%s%s", types.len ? ", " : "", c->native_type);
	}
	*why = types.len > 0 ? psprintf("rows were pulled: blue does not hash %s as green does", types.data) : NULL;
	return types.len == 0;
}
