/*-------------------------------------------------------------------------
 *
 * catalog.h
 *	  Reading and writing the tables of schema bcmig.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_CATALOG_H
#define BCMIG_CATALOG_H

#include "bcmig.h"
#include "executor/spi.h"
#include "nodes/pg_list.h"
#include "utils/elog.h"
#include "utils/relcache.h"

/*
 * A stretch of code that works on bcmig's own tables.  Runs as the owner of
 * schema bcmig, with search_path pg_catalog, inside an SPI connection.
 * Errors undo it (transaction abort restores user and GUCs).
 */
typedef struct BcmigCatalogScope
{
	Oid			userid;
	int			sec_context;
	int			guc_level;
} BcmigCatalogScope;

/*
 * In a rehearsal (src/plan/rehearse.c) SQL of users that comes here is refused:
 * what bcmig does does not all go back with a transaction.  met: that was so.
 */
extern bool bcmig_rehearsing;
extern bool bcmig_met_in_rehearsal;

extern void bcmig_catalog_begin(BcmigCatalogScope *scope);
extern void bcmig_catalog_begin_any_version(BcmigCatalogScope *scope);
extern void bcmig_catalog_end(BcmigCatalogScope *scope);

/* wait a second at most for a lock, to the end of the scope */
extern void bcmig_brief_locks(void);

/*
 * A transaction of our own processes, with an active snapshot.  The memory
 * context of the caller is current again after the end.
 */
extern void bcmig_start_transaction(void);

/* the same; all its statements see one snapshot */
extern void bcmig_start_snapshot(void);
extern void bcmig_end_transaction(void);

/*
 * what(arg) in a subtransaction and the current context: NULL, or the error that
 * undid it.
 */
extern ErrorData *bcmig_try(void (*what) (void *arg), void *arg);

/* the user switch alone, without SPI and search_path */
extern void bcmig_become_catalog_owner(BcmigCatalogScope *scope);
extern void bcmig_restore_user(BcmigCatalogScope *scope);

/*
 * Run one parameterised statement inside a scope.  "types" is a string with a
 * letter per parameter: i int4, I int8, t text (char *, NULL allowed), o oid,
 * b bool, z timestamptz, f float8, j jsonb (char *, NULL allowed), k text[]
 * and q int8[] and n int4[] (Datum, 0 = NULL).  Returns SPI_processed; rows
 * are in SPI_tuptable.
 */
extern uint64 bcmig_sql(const char *sql, const char *types,...);

/* column of a result row as text (NULL for SQL NULL), int64, bool */
extern char *bcmig_get_text(uint64 row, int col);
extern int64 bcmig_get_int64(uint64 row, int col, int64 if_null);
extern bool bcmig_get_bool(uint64 row, int col);
extern Datum bcmig_get_datum(uint64 row, int col, bool *isnull);

/* column of type text[] as n strings in "context"; NULL when it has not just n */
extern char **bcmig_get_texts(uint64 row, int col, int n, MemoryContext context);

/* is this one of the texts (List of char *)? */
extern bool bcmig_has_text(List *texts, const char *text);

/* a text[] of a list of char *, in the current context */
extern Datum bcmig_text_array(List *texts);

/*
 * The unique, immediate, complete index of a relation on exactly these columns
 * (the primary key if it is that), or InvalidOid.
 */
extern Oid	bcmig_unique_index(Relation rel, int n, const char *const *names);

/* tell managers and workers, at commit, that configuration has changed */
extern void bcmig_config_changed(void);

/*
 * Append to bcmig.audit_log, from where the chain and the events follow
 * (audit.c); inside a scope.  The only way a row gets there.
 * kind: command, state, error, schema, validation, alert, conflict, traffic.
 */
extern void bcmig_audit(const char *kind, const char *sync_name,
						const char *target, const char *event,
						const char *detail);

/* a row for each row of the last result: sync, target, detail */
extern void bcmig_audit_each(const char *kind, const char *event);

/* what becomes of a column on green, apart from its name; see sync/transform.h */
typedef enum BcmigTransformKind
{
	BCMIG_AS_IS,
	BCMIG_DROP,
	BCMIG_CONSTANT,
	BCMIG_BUILTIN,
	BCMIG_SQL
} BcmigTransformKind;

/* one column of a synced table */
typedef struct BcmigColumn
{
	char	   *source;
	char	   *source_type;	/* of the feed column */
	char	   *native_type;	/* as blue spells it */
	char	   *target;
	char	   *target_type;
	bool		not_null;		/* on blue */
	char	   *default_value;	/* blue's, where it is a constant; else NULL */
	char	   *al_type;		/* NULL = not known */
	bool		from_metadata;	/* where al_type is from; else guessed by the SQL type */
	int			key_position;	/* 0 = not in the key */
	bool		row_identity;
	int			part;			/* 0 = of the base table, i = of companions[i - 1] */
	BcmigTransformKind transform;
	char	   *transform_value;	/* constant (NULL = NULL), names of built-ins with commas, or the expression */
	char	   *plain_target;	/* "target" before a rename; NULL = not renamed */
} BcmigColumn;

/* a table of blue with more columns of the same rows */
typedef struct BcmigCompanion
{
	char	   *schema;
	char	   *table;
	char	   *version_column; /* NULL = none */
	int			nkeys;
	char	  **keys;			/* the base has columns of these names */
} BcmigCompanion;

/*
 * All that is configured for one table.  Allocated in the caller's memory
 * context.
 */
typedef struct BcmigTableInfo
{
	int			table_id;
	int			sync_id;
	char	   *sync_name;
	Oid			owner;
	int			environment_id;
	char	   *source_schema;
	char	   *source_table;
	char	   *target_schema;
	char	   *target_table;
	char	   *target_name;	/* schema.table, quoted, for statements and messages */
	char	   *feed;			/* name in schema bcmig */
	char	   *capture;
	char	   *version_column; /* NULL = none */
	char	   *indexes;		/* jsonb as text */
	int			ncolumns;
	BcmigColumn *columns;
	int			nkeys;
	int		   *keys;			/* columns[] index of each key column, in key order */
	int			identity_column;	/* columns[] index, or -1 */
	int			ncompanions;
	BcmigCompanion *companions;
	int			nleft_out;
	char	  **left_out;		/* columns of blue that are not copied on purpose */
	int			mapping;		/* counts the changes of transforms and row_filter */
	char	   *row_filter;		/* SQL; NULL = all rows */

	/* effective options */
	int			batch_rows;
	int			max_retries;
	double		error_threshold;
	int64		max_errors;
	bool		on_error_suspend;	/* the first refused row suspends the table */
	double		max_delete_percent;
	int64		chunk_rows;		/* 0 = auto */
	int64		chunk_target;	/* ms */
	int64		sweep_interval; /* ms */
	bool		copy_data;
	char	   *on_schema_change;
	int			priority;
	int			parallel;		/* 0 = auto */
	bool		enabled;
} BcmigTableInfo;

/* "SQLSTATE: message (detail)", or without the code; cut to what is worth keeping */
extern char *bcmig_error_text(const ErrorData *edata, bool with_code);

/* copy a text into size bytes, cut at a character */
extern void bcmig_copy_text(char *to, const char *from, int size);

/* may a value of this type (as format_type spells it) be of any size? */
extern bool bcmig_unbounded_type(const char *type);

/* NULL when there is no such table; needs a transaction, opens its own scope */
extern BcmigTableInfo *bcmig_load_table(int table_id);

#endif							/* BCMIG_CATALOG_H */
