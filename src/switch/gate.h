/*-------------------------------------------------------------------------
 *
 * gate.h
 *	  Gates whose answer comes from outside of the catalogue.
 *
 * They are asked in no transaction and their answers are stored; the gates of a
 * change, which are looked at inside of its transactions, read what is stored.
 * An answer counts for ANSWER_COUNTS seconds after the round it was asked in.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_GATE_H
#define BCMIG_GATE_H

#include "configure.h"

#define ANSWER_COUNTS	30		/* s */
#define ANSWER_COUNTS_TEXT	"30 s"

/*
 * Gates of what is stored, appended to checks in "context"; inside a scope.
 * asking: a session only asks, it is shown the last answer however old.
 */
extern List *bcmig_health_gates(List *checks, MemoryContext context, const BcmigSync *sync, bool asking);
extern List *bcmig_query_gates(List *checks, MemoryContext context, const BcmigSync *sync, bool asking);

/* ask and store; in no transaction */
extern void bcmig_ask_health(const BcmigSync *sync, int timeout);
extern void bcmig_ask_queries(const BcmigSync *sync, int timeout);

/* is a lower weight, or a rollback, waited for?  Then nobody is to be asked for long.  In no transaction. */
extern bool bcmig_way_back_asked(int sync_id);

#endif							/* BCMIG_GATE_H */
