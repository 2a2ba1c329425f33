/*-------------------------------------------------------------------------
 *
 * schema_change.h
 *	  What is different on blue since a table was added.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_SCHEMA_CHANGE_H
#define BCMIG_SCHEMA_CHANGE_H

#include "catalog.h"
#include "dialect.h"
#include "source.h"

typedef enum BcmigChangeKind
{
	BCMIG_TABLE_GONE,			/* or no table any more */
	BCMIG_COMPANION_GONE,
	BCMIG_COLUMN_ADDED,
	BCMIG_COLUMN_DROPPED,
	BCMIG_COLUMN_ALTERED,		/* another type */
	BCMIG_KEY_CHANGED
} BcmigChangeKind;

typedef struct BcmigChange
{
	BcmigChangeKind kind;
	int			part;			/* 0 = base, else companion */
	char	   *column;			/* as blue spells it; NULL where it is of the table */
	char	   *before;			/* type, or place in the key; NULL = none */
	char	   *after;
	BcmigBlueColumn *blue;		/* of an added or altered column */
} BcmigChange;

/* as bcmig.schema_change has it */
extern const char *bcmig_change_name(BcmigChangeKind kind);

/* one sentence about it */
extern char *bcmig_change_text(const BcmigTableInfo *table, const BcmigChange *change);

/* the table and its companions (BcmigName), for blue to describe */
extern List *bcmig_table_names(const BcmigTableInfo *table);

/* their descriptions, in that order, against what is configured: BcmigChange */
extern List *bcmig_compare_schema(const BcmigTableInfo *table, List *described);

#endif							/* BCMIG_SCHEMA_CHANGE_H */
