#include "postgres.h"

#include "check.h"

void
bcmig_run_check(BcmigWork *work)
{
}
