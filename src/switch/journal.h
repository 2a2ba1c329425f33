/*-------------------------------------------------------------------------
 *
 * journal.h
 *	  The record of outside writes accepted on green.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_JOURNAL_H
#define BCMIG_JOURNAL_H

#include "configure.h"

/* callbacks; once, when the library is loaded */
extern void bcmig_journal_init(void);

/* triggers on all green tables of a sync, or none; ERROR when a write to one could not be brought back */
extern void bcmig_journal_arm(const BcmigSync *sync);

/* triggers off, entries stay; both in the caller's transaction */
extern void bcmig_journal_disarm(const BcmigSync *sync);

/* ERROR while the journal of a sync is armed */
extern void bcmig_require_disarmed(const BcmigSync *sync);

#endif							/* BCMIG_JOURNAL_H */
