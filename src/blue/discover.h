/*-------------------------------------------------------------------------
 *
 * discover.h
 *	  What is on a Business Central blue.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_DISCOVER_H
#define BCMIG_DISCOVER_H

#include "bc_names.h"
#include "source.h"

/* ERROR where Business Central is not discovered */
extern void bcmig_require_bc(const BcmigEnvironment *env);

/* ask blue as "role"; classified */
extern BcmigInventory *bcmig_inventory(const BcmigEnvironment *env, Oid role);

/* the company of that name (as table Company spells it, or as tables do); ERROR when there is none */
extern char *bcmig_find_company(const BcmigInventory *inventory, const char *name);

#endif							/* BCMIG_DISCOVER_H */
