#include "postgres.h"
#include "reverse.h"
void bcmig_replay(const BcmigSync *sync, bool fenced, TimestampTz deadline, BcmigReplayed *result){}
int64 bcmig_unreplayed(int sync_id){return 0;}
char *bcmig_replay_problem(const BcmigSync *sync){return NULL;}
