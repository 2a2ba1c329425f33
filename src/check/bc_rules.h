/*-------------------------------------------------------------------------
 *
 * bc_rules.h
 *	  Rules Business Central's own posting code guarantees.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_BC_RULES_H
#define BCMIG_BC_RULES_H

#define BCMIG_RULE_TABLES	4

/*
 * A rule with the names of AL.  In the query [e] is table e and its alias,
 * [e.Amount] a column of it; what stands in braces is left out where one of its
 * columns is not there.
 */
typedef struct BcmigBcRule
{
	const char *id;
	const char *what;			/* with the id, its name */
	const char *kind;
	const char *severity;
	struct
	{
		char		alias;
		const char *name;
	}			tables[BCMIG_RULE_TABLES];	/* the first is the one it counts for */
	const char *query;
	const char *unless;			/* column that makes another rule do for this one; NULL = none */
} BcmigBcRule;

/* bc_rules_data.c; the last has no id */
extern const BcmigBcRule bcmig_bc_rules[];

/*
 * bc_rules.c: make the rules of all companies of a sync anew.  "feed": text
 * feed of its blue.  In a transaction.
 */
extern void bcmig_make_bc_rules(int sync_id, const char *sync_name, Oid feed);

#endif							/* BCMIG_BC_RULES_H */
