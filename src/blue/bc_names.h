/*-------------------------------------------------------------------------
 *
 * bc_names.h
 *	  What Business Central's table names mean, and what they are on green.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_BC_NAMES_H
#define BCMIG_BC_NAMES_H

#include "nodes/pg_list.h"

/* characters of AL names that are _ in SQL, where blue does not say otherwise */
#define BCMIG_INVALID_CHARS	".\"\\/'%[]"

/* a table of blue */
typedef struct BcmigFound
{
	char	   *schema;
	char	   *name;
	int64		rows;			/* estimate */
	int64		bytes;
	char	   *capture;		/* as blue tracks it; NULL = not at all */
	bool		has_identity;	/* a column $systemId */
	List	   *keys;			/* char *, primary key in order */
	List	   *collations;		/* char *, of key columns that have one, each once */
	char	   *identity;		/* column numbered by blue; NULL = none */

	/* filled in by bcmig_classify */
	char	   *company;		/* as table Company spells it; NULL = shared */
	char	   *al_name;		/* as SQL spells the table's name */
	char	   *app_id;			/* NULL = none in the name */
	const char *shape;			/* base, companion, app_companion, shared, platform, orphan */
	const char *left_out;		/* why it is not migrated; NULL = it is */
	struct BcmigFound *base;	/* of a companion */
	List	   *companions;		/* BcmigFound *, of a base */
} BcmigFound;

typedef struct BcmigInventory
{
	List	   *tables;			/* BcmigFound * */
	List	   *companies;		/* char *, as table Company spells them */
	char	   *invalid_chars;	/* each is _ in names on blue */
	char	   *retention;		/* of change tracking; NULL = off */
} BcmigInventory;

/* fill in what the names of all tables mean */
extern void bcmig_classify(BcmigInventory *inventory);

/* a company's name as it begins table names */
extern char *bcmig_mapped_name(const char *name, const char *invalid_chars);

/*
 * A name as PostgreSQL users type it: lower case, runs of other characters one
 * underscore, never a reserved word, at most 63 bytes (cut names end in a hash
 * of the whole).  Two names may come out alike: see bcmig_green_name().
 */
extern char *bcmig_snake(const char *name);

#endif							/* BCMIG_BC_NAMES_H */
