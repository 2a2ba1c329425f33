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

/* ERROR while the journal of a sync is armed */
extern void bcmig_require_disarmed(const BcmigSync *sync);

#endif							/* BCMIG_JOURNAL_H */
