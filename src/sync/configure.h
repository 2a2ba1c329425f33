/*-------------------------------------------------------------------------
 *
 * configure.h
 *	  Syncs and tables as a DBA configures them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_CONFIGURE_H
#define BCMIG_CONFIGURE_H

#include "catalog.h"
#include "dialect.h"
#include "fmgr.h"
#include "source.h"
#include "utils/jsonb.h"

/* A row of bcmig.sync, in the caller's memory context. */
typedef struct BcmigSync
{
	int			sync_id;
	char	   *name;
	Oid			owner;
	int			environment_id;
	bool		wanted;			/* running is wanted */
	Jsonb	   *options;
} BcmigSync;

/*
 * A table on its way into a sync: what blue said of it, and what becomes of
 * it on green.
 */
typedef struct BcmigNewTable
{
	const BcmigSync *sync;
	Jsonb	   *options;		/* of the table, validated */
	char	   *source_schema;
	char	   *source_table;
	BcmigBlueTable *blue;
	int			ncompanions;
	BcmigCompanion *companions;
	List	   *blue_companions;	/* BcmigBlueTable of each */
	const char *capture;
	char	   *version_column; /* NULL = none */
	bool		key_overridden;
	int			ncolumns;
	BcmigColumn *columns;
	List	  **enum_values;	/* of each column: BcmigAlOption, NIL = none */
	int			nkeys;
	bool		snake;			/* target columns in snake_case */
	char	   *target_schema;
	char	   *target_table;
	Oid			target;			/* InvalidOid = to be made */
	char	   *indexes;		/* jsonb as text */
	char	   *company;		/* NULL = none */
	char	   *al_table;		/* NULL = not known */
} BcmigNewTable;

/* configure.c: ERROR when there is none, or the caller may not touch it */
extern BcmigSync *bcmig_load_sync(const char *name);

/* without a lock or a look at rights, for our processes; NULL when there is none */
extern BcmigSync *bcmig_read_sync(int sync_id);
extern int	bcmig_find_table(const BcmigSync *sync, const char *target, char **name);

/* before rights on objects of schema bcmig are changed */
extern void bcmig_lock_grants(void);

/*
 * A table whose columns have been chosen: checks a target that is there, stores
 * it all.  Returns the table's id; green table and feed are made
 * by bcmig_make_table().
 */
extern int	bcmig_add_described(BcmigNewTable *new);
/* take the tables of a company out of a sync; how many there were */
extern int64 bcmig_remove_tables_of(const BcmigSync *sync, const char *company);

extern Jsonb *bcmig_table_options(Jsonb *base, Jsonb *change);

/* SQL functions, called for what bcmig_optimize_sync() recommends */
extern PGDLLEXPORT Datum bcmig_alter_sync(PG_FUNCTION_ARGS);
extern PGDLLEXPORT Datum bcmig_alter_table(PG_FUNCTION_ARGS);

/* source_table.c */
extern List *bcmig_names_of(BcmigNewTable *new, const BcmigDialect *dialect);
extern void bcmig_take_descriptions(BcmigNewTable *new, const BcmigDialect *dialect, List *described);
extern void bcmig_describe_source(BcmigNewTable *new);
extern void bcmig_choose_capture(BcmigNewTable *new);
extern void bcmig_choose_columns(BcmigNewTable *new);
extern char *bcmig_known_type(const char *type);

/* targets.c */
extern void bcmig_run_as(Oid role, const char *sql);
extern void bcmig_change_green(Oid role, const char *target, const char *sql);
extern char *bcmig_green_name(const char *name, List *taken);
extern void bcmig_find_target(BcmigNewTable *new, const char *target);
extern void bcmig_check_target(BcmigNewTable *new);
/* does every value of the type "from" fit "to", looking the same?  In a catalogue scope */
extern bool bcmig_type_fits(const char *from, const char *to);
extern void bcmig_choose_indexes(BcmigNewTable *new);
extern void bcmig_make_target(const BcmigTableInfo *table);
/* option compression, on the columns of the green table where that is not so already */
extern void bcmig_compress_target(int table_id);
extern void bcmig_make_feed(const BcmigTableInfo *table);

/* map_column.c: another row filter for a table that is there; and the one in options, or NULL */
extern void bcmig_change_filter(const BcmigSync *sync, int table_id, Jsonb *options);
extern char *bcmig_filter_of(Jsonb *options);

/* depends.c: is what the stored options of a sync say it depends on possible?  ERROR when not, or when another depends on it */
extern void bcmig_check_depends_on(const char *name);
extern void bcmig_require_no_dependents(const BcmigSync *sync);

/* make.c: the green table of an added table, where bcmig is to make it, and its feed */
extern void bcmig_make_table(int table_id);

/*
 * sequences.c: those of green go on where blue's stand; a row for each in
 * rsinfo, unless that is NULL.  Asks blue, which has Business Central.
 */
struct ReturnSetInfo;
extern void bcmig_move_sequences(const BcmigSync *sync, const BcmigEnvironment *env, struct ReturnSetInfo *rsinfo);

/* sequences.c: BcmigGivenNumber *, of each sequence that is further than blue's was then; in a transaction */
extern List *bcmig_given_numbers(int sync_id);

/* request.c: sweeps for the tables whose deletes come by them; in a transaction */
extern void bcmig_ask_for_sweeps(int sync_id);

/*
 * What the room above does when it is there (src/switch).  starting: a sync is
 * about to be started, in the transaction that says so; changing: a table is
 * about to come or go: ERROR when that cannot be.  traffic: a worker looks after
 * the weight of a sync and its balancers; failed: that raised an error; reverse:
 * it brings what was written on green to blue; hear_blue: ask blue what of it it
 * has, where nobody lived to hear of it.
 */
struct BcmigWork;

typedef struct BcmigSwitchRoom
{
	void		(*starting) (const BcmigSync *sync);
	void		(*changing) (const BcmigSync *sync);
	void		(*traffic) (int sync_id);
	void		(*traffic_failed) (const BcmigJob *job, const ErrorData *edata);
	void		(*reverse) (int sync_id);
	void		(*reverse_failed) (const BcmigJob *job, const ErrorData *edata);
	void		(*hear_blue) (struct BcmigWork *work);
} BcmigSwitchRoom;

extern const BcmigSwitchRoom *bcmig_switch_room;

/* preflight.c: a List of BcmigCheck */
extern List *bcmig_preflight_checks(const BcmigSync *sync);

#endif							/* BCMIG_CONFIGURE_H */
