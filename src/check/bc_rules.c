#include "postgres.h"
#include "rule.h"
void
bcmig_ship_rules(int sync_id)
{
}
