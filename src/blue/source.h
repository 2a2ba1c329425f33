/*-------------------------------------------------------------------------
 *
 * source.h
 *	  Environments, and what blue says about itself and its tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_SOURCE_H
#define BCMIG_SOURCE_H

#include "catalog.h"
#include "utils/jsonb.h"

/* A row of bcmig.environment, in the caller's memory context. */
typedef struct BcmigEnvironment
{
	int			environment_id;
	char	   *name;
	bool		blue;
	char	   *server;			/* NULL for green */
	Oid			serverid;		/* InvalidOid when the server is gone */
	Oid			owner;
	Jsonb	   *options;
	int			connect_timeout;	/* ms, effective */
	char	   *application_server; /* NULL = none */
} BcmigEnvironment;

typedef struct BcmigBlueColumn
{
	char	   *name;
	char	   *type;			/* of the feed column */
	char	   *native;			/* as blue spells it, domains resolved */
	bool		not_null;
	char	   *default_expr;	/* NULL = none */
	char	   *default_value;	/* where that is a constant */
	int			key_position;	/* from 1; 0 = not in the key */
} BcmigBlueColumn;

typedef struct BcmigBlueIndex
{
	char	   *name;
	bool		unique;
	List	   *columns;		/* char *, blue's spelling */
} BcmigBlueIndex;

/* What describe said about one table of blue. */
typedef struct BcmigBlueTable
{
	bool		exists;
	bool		is_table;		/* something that holds rows: no view, no foreign table */
	bool		readable;		/* by the login of the user mapping */
	int64		rows;			/* estimate */
	int64		bytes;			/* with its indexes */
	char	   *capture;		/* how blue tracks it: change_tracking, rowversion, NULL */
	char	   *stamp_column;	/* column with the row version, NULL = none */
	List	   *columns;		/* BcmigBlueColumn, in blue's order */
	List	   *indexes;		/* BcmigBlueIndex, without the key's own */
	List	   *near;			/* char *: names like the one that is missing */
	char	   *grant_fix;		/* statements for blue */
	char	   *track_fix;
	char	   *stamp_fix;
} BcmigBlueTable;

/* ERROR with a hint when there is none of that name */
extern BcmigEnvironment *bcmig_load_environment(const char *name, int environment_id);

/* the rows of describe for some tables -> BcmigBlueTable, in the same order */
extern List *bcmig_read_descriptions(List *rows);

/* ask blue to describe some tables (BcmigName) */
extern List *bcmig_describe(const BcmigEnvironment *env, Oid role, List *tables);

/* how long to wait for that many statements */
extern int	bcmig_ask_timeout(const BcmigEnvironment *env, int statements);

/* the text feed of an environment: its name in schema bcmig, and, in a transaction, itself */
extern char *bcmig_environment_feed(int environment_id);
extern Oid	bcmig_text_feed(int environment_id);

/* Lists of BcmigCheck */
extern List *bcmig_green_checks(void);
extern List *bcmig_blue_checks(const BcmigEnvironment *env, Oid role,
							   List *statements, List **more);

/* script "reverse" of a sync; set by the room that keeps the journal (src/switch) */
extern char *(*bcmig_reverse_script) (const char *sync);

#endif							/* BCMIG_SOURCE_H */
