/*-------------------------------------------------------------------------
 *
 * own_write.h
 *	  bcmig's own writes to a green table: a scope, never a process.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_OWN_WRITE_H
#define BCMIG_OWN_WRITE_H

#include "nodes/pg_list.h"

/* what bcmig calls the rows it is about to write; every statement of its own reads them */
#define BCMIG_OWN_ROWS_NAME		"bcmig_rows"

/*
 * A statement that cannot read them, since another server shall run it, calls
 * the table it writes to by this name, which nobody else knows.
 */
extern const char *bcmig_own_name(void);

/* hooks of the executor and of transaction ends; once, when the library is loaded */
extern void bcmig_own_write_init(void);

/*
 * The next statement that writes rows of (or: changes) this green table is
 * ours.  Taken by that statement, taken back by bcmig_own_write_end() or an
 * abort.
 */
extern void bcmig_own_write(Oid relid);
extern void bcmig_own_ddl(Oid relid);
extern void bcmig_own_write_end(void);

/* for the fence: the relation this range table writes as one of our statements, or InvalidOid */
extern Oid	bcmig_own_write_take(List *range_table);
extern bool bcmig_own_ddl_take(Oid relid);

/* for a trigger: is the row it fires for one that our statement wrote? */
extern bool bcmig_own_rows(void);

#endif							/* BCMIG_OWN_WRITE_H */
