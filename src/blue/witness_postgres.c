/*-------------------------------------------------------------------------
 *
 * witness_postgres.c
 *	  What a PostgreSQL blue remembers of the green that moved its traffic
 *	  (blue/postgres_switch.sql).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "dialect.h"

#include "utils/builtins.h"

static char *
pg_missing(void)
{
	return pstrdup("SELECT " BCMIG_WITNESS_MISSING ", NULL, NULL, NULL, NULL, NULL, NULL, NULL");
}

static char *
pg_get(const char *sync)
{
	return psprintf("SELECT green, epoch::text, nonce, at::text, NULL, NULL, NULL, NULL FROM bcmig_blue.witness_get(%s)",
					quote_literal_cstr(sync));
}

static char *
pg_put(const char *sync, const char *green, int64 epoch, const char *nonce)
{
	return psprintf("SELECT bcmig_blue.witness_put(%s, %s, " INT64_FORMAT ", %s)::text, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
					quote_literal_cstr(sync), quote_literal_cstr(green), epoch, quote_literal_cstr(nonce));
}

const BcmigWitnessDialect bcmig_postgres_witness = {
	.missing = pg_missing,
	.get = pg_get,
	.put = pg_put,
};
