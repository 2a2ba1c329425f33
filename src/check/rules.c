#include "postgres.h"

#include "check.h"

void
bcmig_run_rules(int sync_id)
{
	BcmigRun   *run;

	bcmig_start_transaction();
	run = bcmig_run_ready(sync_id);
	if (run != NULL)
		bcmig_run_finish(run);
	bcmig_end_transaction();
}
