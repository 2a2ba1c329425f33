/*-------------------------------------------------------------------------
 *
 * rule.h
 *	  Rules of a validation.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_RULE_H
#define BCMIG_RULE_H

#include "check.h"
#include "executor/spi.h"
#include "nodes/bitmapset.h"
#include "user_query.h"

/* a rule a run has to look at */
typedef struct BcmigRule
{
	int			rule_id;
	char	   *name;
	char	   *query;
	char	   *blue_query;		/* NULL = none */
} BcmigRule;

/* ---- rule_query.c ---- */

/* as bcmig_prepare_user_query() takes it; in the current context */
extern BcmigUserQuery *bcmig_rule_query(const char *name, const char *query);

/* ids of the sync's tables among them, in order; *others: something else is read too.  In a transaction. */
extern List *bcmig_tables_read(int sync_id, const BcmigReads *reads, bool *others);

/* ---- rule_look.c ---- */

typedef struct BcmigRuleLook
{
	MemoryContext context;		/* holds all of it */
	HTAB	   *rows;			/* which rows they were */
	bool		all;			/* rows has all of them */
	int64		failing;		/* rows */
	int64		again;			/* of these, in the look before as well */
	char	   *examples;		/* the first as a jsonb array; those there again, if any */
	List	   *tables;			/* ids of tables it read; NIL = cannot be told */
	bool		others;			/* it read something else too */
	char	   *error;			/* why it came to nothing, or NULL */
	bool		blue_failed;	/* blue's fault */
} BcmigRuleLook;

/*
 * Run the query of a rule once, read only, in a transaction of its own.
 * "before" is the look before, or NULL.  Not in a transaction.
 */
extern BcmigRuleLook *bcmig_look_at_rule(int sync_id, const BcmigRule *rule, Oid feed, int timeout,
										 const BcmigRuleLook *before);

#endif							/* BCMIG_RULE_H */
