/*-------------------------------------------------------------------------
 *
 * read_table.h
 *	  Green tables of a sync, found by the names Business Central has for them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_READ_TABLE_H
#define BCMIG_READ_TABLE_H

#include "nodes/pg_list.h"

/* a column of a green table, of those blue has */
typedef struct BcmigReadColumn
{
	int			ordinal;		/* in column_map */
	int			part;			/* 0 = of the base table */
	char	   *source;
	char	   *target;
	char	   *type;			/* on green, as format_type spells it */
	char	   *native_type;	/* as blue spells it */
	char	   *al_type;		/* NULL = unknown */
} BcmigReadColumn;

typedef struct BcmigReadTable
{
	int			table_id;
	Oid			relid;
	char	   *schema;
	char	   *name;
	char	   *source_schema;
	char	   *source_name;
	char	   *company;		/* NULL = shared, or added by itself */
	char	   *al_table;		/* as SQL spells it; NULL = added by itself */
	bool		snake;			/* names are in snake_case */
	int			ncolumns;		/* -1 = not read yet */
	BcmigReadColumn *columns;	/* in the order of the table */
} BcmigReadTable;

/* the tables of a sync, or of one company of it, that are there (BcmigReadTable *); in a transaction */
extern List *bcmig_read_tables(int sync_id, const char *company);

/* its columns, once, in the context of the table */
extern void bcmig_read_columns(BcmigReadTable *t);

extern bool bcmig_same_name(const char *al_name, const char *sql_name);

/* of the base table; NULL = there is none */
extern const BcmigReadColumn *bcmig_find_column(BcmigReadTable *t, const char *al_name);

#endif							/* BCMIG_READ_TABLE_H */
