/*-------------------------------------------------------------------------
 *
 * fence.h
 *	  The refusal of outside writes on green.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_FENCE_H
#define BCMIG_FENCE_H

#include "configure.h"
#include "storage/lock.h"

/* a sync whose fence is up or whose journal is armed, as this backend has read it */
typedef struct BcmigFence
{
	int			sync_id;
	bool		up;
	bool		armed;
	char	   *sync_name;
	Oid			maintenance;	/* role that passes, InvalidOid = none */
	char	   *maintenance_name;	/* NULL = none */
} BcmigFence;

/*
 * Callbacks and (preloaded) hooks of this room; once, when the library is
 * loaded.  A library that only some backends have loaded guards nothing.
 */
extern void bcmig_switch_init(bool preloaded);
extern void bcmig_fence_ddl_init(void);

/*
 * Who fences or journals this relation: the caller holds the lock of its write
 * on it, else the answer may be old.  NULL = nobody.  Valid until the next call.
 */
extern const BcmigFence *bcmig_fence_of(Oid relid);

/* the same for any table of a schema */
extern const BcmigFence *bcmig_fence_of_schema(const char *schema);

/* is bcmig in this database, so that a table might be fenced? */
extern bool bcmig_fence_possible(void);

/* may the current user write behind the fence? */
extern bool bcmig_fence_passes(const BcmigFence *fence);

/* ERROR: a write to a fenced table; anything but rows to a fenced or journaled one */
pg_noreturn extern void bcmig_fence_refuse(const BcmigFence *fence, Oid relid);

/* a relation, its partitions and children, and all it is a part of */
extern List *bcmig_relation_family(Oid relid);

/* has a subscription this relation as target?  Its name, or NULL */
extern char *bcmig_subscription_of(Oid relid);

/* every backend reads bcmig.traffic again, from the commit of this transaction on */
extern void bcmig_fence_changed(void);

/* ---- raise.c ---- */

/* up with the first start of a sync, from the commit of this transaction on */
extern void bcmig_fence_at_start(const BcmigSync *sync);

/* write the flag, what it was before is returned; in the caller's transaction, who waits for writers is not it */
extern bool bcmig_set_fence(const BcmigSync *sync, bool up, const char *event);

/* the relations a fence of this sync is about; in a transaction */
extern List *bcmig_fenced_relations(const BcmigSync *sync);

#endif							/* BCMIG_FENCE_H */
