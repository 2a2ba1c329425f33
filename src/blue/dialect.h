/*-------------------------------------------------------------------------
 *
 * dialect.h
 *	  The text of every statement sent to blue.
 *
 * A dialect writes statements, nothing else: it does not connect, plan or
 * run.  All results arrive through a feed, either the text feed of an
 * environment (columns c1..c8, text) or the row feed of a table (bc_op,
 * bc_rowversion, then the columns of bcmig.column_map).  Strings are
 * allocated in the current memory context.
 *
 * Rows of a row feed carry in bc_op what they are:
 *	'U'  a row as it is now; bc_rowversion its version.  A number may follow: the bytes of its texts, in UTF-16, and of
 *		 its binary values, so that what is lost on the way is noticed
 *	'D'  a key whose row is gone now; only the key columns are set
 *	'B'  bc_rowversion = begin version: another one than last time means the
 *		 change feed of the table was reset (TRUNCATE), the table is resynced
 *	'M'  bc_rowversion = changes below it have expired
 *	'I'  bc_rowversion = hash of blue's incarnation
 *	'N'  bc_rowversion = changes a window with a bound has looked at
 *	'X'  bc_rowversion = a trace: a transaction that changed the table, deletes
 *		 included, and whose changes this window may hold; the newest
 *		 BCMIG_TRACES are enough
 * 'B', 'M' and 'I' may come several times (before and after the rows); all of
 * one kind must agree.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_DIALECT_H
#define BCMIG_DIALECT_H

#include "catalog.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"

#define BCMIG_TRACES	50		/* traces kept of a window */

/* a table of blue */
typedef struct BcmigName
{
	char	   *schema;
	char	   *name;
} BcmigName;

/* a table in a script for blue */
typedef struct BcmigScriptTable
{
	char	   *schema;
	char	   *table;
	char	   *capture;
	bool		has_key;
	bool		asked;			/* bcmig asked for its tracking: it was not tracked before */
} BcmigScriptTable;

/* a table the poller watches: moves are reported under the name of its base */
typedef struct BcmigWatched
{
	char	   *schema;
	char	   *table;
	char	   *capture;
	char	   *base_schema;
	char	   *base_table;
} BcmigWatched;

/* what the hashes of a blue are hashes of; docs/consistency.md */
typedef enum BcmigImage
{
	BCMIG_IMAGE_RECORD,			/* PostgreSQL's binary form of a record */
	BCMIG_IMAGE_FIELDS			/* SQL Server: fields with a tag, text in UTF-16 */
} BcmigImage;

/*
 * How a table is cut into chunks for validation: ranges of the first key
 * column, an integer (chunk = value / size, towards zero), or buckets by the
 * first 16 bits of the hash of the key - of the row, where there is no key.
 */
typedef struct BcmigChunking
{
	bool		buckets;
	int64		size;			/* width of a range; or how many buckets, a power of two up to BCMIG_BUCKETS */
	int			generation;		/* of bcmig.chunking */
	BcmigImage	image;			/* of the keys whose hashes tell the bucket */
} BcmigChunking;

#define BCMIG_BUCKETS	65536

/* chunks from first to last, both included */
typedef struct BcmigChunks
{
	int64		first;
	int64		last;
} BcmigChunks;

/*
 * Hashes of rows, made by blue (text feed unless said).  "chunks" is a List of
 * BcmigChunks; count_only: do not look at columns beside the key.
 */
typedef struct BcmigHashDialect
{
	BcmigImage	image;

	/* types that are hashed alike, as probe names them; NULL: not hashed on blue */
	const char *(*type_class) (const BcmigColumn *column);

	/*
	 * Rows of one column each: class, hash of the row in hex, an expression
	 * that gives the same value on green, what is special about it.
	 */
	char	   *(*probe) (void);

	/* per chunk that has rows: chunk, rows, the sums of four lanes of 32 bits of their hashes */
	char	   *(*sums) (const BcmigTableInfo *table, const BcmigChunking *chunking, List *chunks, bool count_only);

	/*
	 * Per row: first 16 bytes of the hash of its key and of the row, both in
	 * hex, its key as the text of a text array.
	 */
	char	   *(*rows) (const BcmigTableInfo *table, const BcmigChunking *chunking, List *chunks, bool count_only);

	/* row feed: the rows themselves; chunks NIL = all */
	char	   *(*pull) (const BcmigTableInfo *table, const BcmigChunking *chunking, List *chunks);

	/* rows (estimate), lowest and highest value of the first key column where that is an integer */
	char	   *(*extent) (const BcmigTableInfo *table);
} BcmigHashDialect;

/* a state of a row of blue that green's row was based on */
typedef struct BcmigKnown
{
	bool		absent;			/* there was none */
	int64		version;		/* -1 = not known */
	char	   *row;			/* as blue has it, jsonb array of texts as text; NULL = not known */
} BcmigKnown;

#define BCMIG_MOST_KNOWN	2

/* a row of green for blue */
typedef struct BcmigReverse
{
	char	   *key;			/* jsonb array of texts, as text */
	int			nids;
	int64	   *ids;			/* journal entries that are in it */
	int			nknown;
	BcmigKnown	known[BCMIG_MOST_KNOWN];
	char	   *row;			/* values for blue: the text of a text array; NULL = no row */
} BcmigReverse;

/* rows of a table added up by others of its columns */
typedef struct BcmigSum
{
	BcmigTableInfo table;		/* names, and the columns this is about; its key tells groups */
	int			column;
	bool		negative;
	List	   *filters;		/* int: columns[] ... */
	List	   *numbers;		/* ... and what each must be */
} BcmigSum;

/* the number green has given out last in place of a sequence of blue, or of a column of a table of blue's */
typedef struct BcmigGivenNumber
{
	char	   *schema;			/* of the table; NULL = a sequence */
	char	   *name;			/* of the table, or the sequence */
	int64		last;
	int64		increment;
} BcmigGivenNumber;

/*
 * What Business Central keeps in its database (text feed).
 */
typedef struct BcmigBcDialect
{
	/*
	 * "retention", text, and all tables: "table", schema, name, rows, capture,
	 * has $systemId 1/0; then of each "key", column, collation, in order;
	 * "identity", column; "bytes", size.
	 */
	char	   *(*inventory) (void);

	/*
	 * "company", name; "chars", those BC maps to _ (when table
	 * $ndo$dbproperty is there)
	 */
	char	   *(*companies) (bool has_properties);

	/*
	 * "sequence", name, value given out last, increment; "identity", schema,
	 * table, column, value given out last (NULL = none yet), increment.
	 */
	char	   *(*sequences) (void);

	/* names of the tables of the dictionary of objects that are there */
	char	   *(*dictionaries) (void);

	/* package id, app id of each installed app */
	char	   *(*packages) (void);

	/*
	 * Objects of the dictionary: type, number, name, subtype, package id,
	 * metadata in hex; of "packages" (char *, NIL = of any).  Tables by their
	 * names on blue; or (application dictionaries only) extensions and enums:
	 * first only their numbers, then those of some numbers (int).
	 */
	char	   *(*tables_by_name) (bool application, List *packages, const char *invalid_chars, List *names);
	char	   *(*object_numbers) (List *packages);
	char	   *(*objects_by_number) (List *packages, List *numbers);

	/* per group that does not add up to 0: its key as the text of a text array, the sum */
	char	   *(*sums) (const BcmigSum *sum);
} BcmigBcDialect;

/*
 * The refusal of outside writes on blue.  tables: List of BcmigName; login:
 * that of Business Central on blue, NULL = not known.
 */
typedef struct BcmigFenceDialect
{
	/*
	 * Statements (text feed) that tell of each table, in a row: schema, name,
	 * "fenced", "open" or "unknown", why.
	 */
	List	   *(*state) (List *tables, const char *login);

	/* for a person to review and run on blue */
	char	   *(*script) (List *tables, const char *login, bool up);

	/* text feed: raise or lift it; and can that be done?  A row of preflight.  NULL: not by bcmig */
	char	   *(*call) (List *tables, bool up, int timeout);
	char	   *(*preflight) (void);
} BcmigFenceDialect;

/*
 * What blue remembers of the green that moved a sync's traffic last (text feed).
 */
typedef struct BcmigWitnessDialect
{
	/* one row: why this blue cannot remember anything, NULL = it can */
	char	   *(*missing) (void);

	/* green, epoch, nonce, when it was told; or no row */
	char	   *(*get) (const char *sync);

	/* one row: "true", or a newer one is known and nothing was changed */
	char	   *(*put) (const char *sync, const char *green, int64 epoch, const char *nonce);
} BcmigWitnessDialect;

typedef struct BcmigDialect
{
	const char *name;			/* for messages: "PostgreSQL" */
	const char *fdw;			/* foreign data wrapper it goes with */
	const char *default_schema; /* where source tables are unless said */
	bool		has_fetch_size; /* third member of the scan's fdw_private */
	bool		joins_companions;	/* reads BcmigTableInfo.companions */

	/*
	 * OPTIONS of a feed, and whether this is the text its wrapper then plans:
	 * it names the feed, so that nobody's foreign table is taken for one.
	 */
	char	   *(*feed_options) (const char *feed);
	bool		(*is_feed_text) (const char *feed, const char *text);

	/* before the first statement of a process; may be NULL */
	void		(*prepare_process) (void);

	/*
	 * Called in the handler of an error the wrapper raised: raises a better
	 * one, or returns.  May be NULL.
	 */
	void		(*explain_error) (const char *sql);

	/*
	 * What is missing so that a stalled network cannot hold a worker (and a
	 * shutdown) for as long as TCP likes: NULL, or a sentence, with the fix in
	 * *fix.  *fatal: the preflight must not pass.
	 */
	char	   *(*missing_timeouts) (ForeignServer *server, char **fix, bool *fatal);

	/*
	 * A type as blue spells it -> the feed's type, NULL: the same.  And the
	 * constant a default expression stands for, or NULL.
	 */
	char	   *(*green_type) (const char *native);
	char	   *(*constant) (const char *expression);

	/*
	 * Polling (text feed).  One row 'poll', microseconds since 1970 of blue's
	 * clock, horizon, top, mark ("seen" of windows that use this poll),
	 * incarnation hash, incarnation text, floor of the moved log; then a row
	 * 'moved', schema, table per table (of BcmigWatched) that moved since the
	 * poll whose mark was "previous" (NULL: since ever is not asked, only the
	 * poll row); a row 'all' when each may have moved.  Where blue can only hint at what moved: 'count', schema,
	 * table, a number that changes when the table is written to, be it not yet
	 * committed.
	 *
	 * can_wait: with "wait" blue answers when something has moved since
	 * "previous", or after a second; a row 'waited', microseconds says for how
	 * long the clock was not read.
	 */
	bool		can_wait;
	char	   *(*poll) (const char *previous, List *watched, bool wait);

	/*
	 * More statements (List of char *) for rows 'moved' between two marks, run
	 * after the poll that left "current"; NULL: the poll says it all.
	 */
	List	   *(*moved) (const char *previous, const char *current, List *watched);

	/* are moves of tables captured this way only hinted at? */
	bool		(*hinted) (const char *capture);

	/* who holds the horizon back: one row with a sentence, or none */
	char	   *(*blocker) (void);

	/*
	 * One row with a text that is another one when tables or columns of blue
	 * are: c1.
	 */
	char	   *(*schema_mark) (void);

	/* forget what is older than blue's retention; not NULL: there may be more of it */
	char	   *(*expire) (void);

	/*
	 * Row feed.  A window: every change at or above position that "seen" does
	 * not cover, without an upper bound, with B, M and I rows.
	 *
	 * most > 0: the caller wants none of it when there are so many changes or
	 * more.  A blue that would sort all changes of a table before it sends a row
	 * (counts_changes, of a capture) then looks at so many only, and says in an N
	 * row how many it has looked at.
	 */
	char	   *(*window) (const BcmigTableInfo *table, int64 position,
						   const char *seen, int64 most);
	bool		(*counts_changes) (const char *capture);

	/*
	 * Text feed: one row, how many of these traces blue does not have any more
	 * though they have not expired.
	 */
	char	   *(*lost_traces) (const BcmigTableInfo *table, const char *traces);

	/*
	 * Traces are positions, and after a crash those above the last that came to
	 * the log are given out again.
	 */
	bool		positions_again;

	/*
	 * Text feed: one row, how many of these keys were changed after the position
	 * given for each.  NULL, or a NULL text: blue cannot tell.
	 */
	char	   *(*later_changes) (const BcmigTableInfo *table, int n, char **keys, const int64 *positions);

	/*
	 * Text feed: "rows", schema, name of those of these tables (List of
	 * BcmigName) that have any, and "incarnation", hash.  NULL: do not ask.
	 */
	char	   *(*with_rows) (List *tables);

	/* all rows with lower < key <= upper (NULL = open end) */
	char	   *(*chunk) (const BcmigTableInfo *table, Datum lower, Datum upper);

	/*
	 * The present state of given keys: U or D for each.  keys: nkeys text
	 * values for each of n rows, in key order.
	 */
	char	   *(*rows_by_key) (const BcmigTableInfo *table, int n,
								char **keys);

	/* all keys: U rows with only the key columns set */
	char	   *(*key_list) (const BcmigTableInfo *table);

	/*
	 * Text feed.  The next chunk: the key that is "rows" rows after lower
	 * (c1 = '1' and c2.. = key values), or c1 = '0' when fewer are left;
	 * when the table has unbounded columns, c6 = rows in it, c7 = their bytes,
	 * c8 = bytes of the widest one.
	 */
	char	   *(*chunk_bound) (const BcmigTableInfo *table, Datum lower,
								int64 rows);

	/* estimated number of rows and bytes: c1, c2 */
	char	   *(*table_size) (const BcmigTableInfo *table);

	/*
	 * Discovery, text feed: rows of describe and of preflight as
	 * describe_postgres.c lists them.  describe: statements (List of char *)
	 * that describe these tables (List of BcmigName) in this order.
	 */
	List	   *(*describe) (List *tables);

	char	   *(*preflight) (void);

	/* NULL: Business Central is not discovered on this kind of blue */
	const BcmigBcDialect *bc;

	const BcmigHashDialect *hash;

	/* NULL: bcmig only reads this kind of blue */
	const BcmigWitnessDialect *witness;

	/*
	 * Text feed.  Statements (List of char *) for a query somebody else wrote;
	 * at most so many rows of it come, c1 = the row as text, c2 not NULL (that
	 * of other rows is).  ERROR when it may be more than one query.
	 * rows_are_records: the text of a record, else of the only column.
	 */
	List	   *(*own_query) (const char *query, int64 most);
	bool		rows_are_records;
	const char *own_query_hint; /* what such a query has to look like */

	/*
	 * Text for a person to review and run on blue: kind login, tracking or
	 * cleanup; tables is a List of BcmigScriptTable, NIL = none known yet.
	 */
	char	   *(*script) (const char *kind, const char *login, List *tables);

	/* the same: an index on the version column of a table, which has one */
	char	   *(*version_index) (const BcmigTableInfo *table);

	/* refusal of outside writes on blue */
	const BcmigFenceDialect *fence;
	/*
	 * Text feed.  Write rows of green to blue, each only when blue's row is one
	 * of those known, in one transaction of blue's that also keeps what it did:
	 * "green" names the database and its history.  columns: indexes into
	 * table->columns, as the values of a row.  Rows: number from 1, what became of it
	 * (written, equal, applied = it had been written before, conflict,
	 * refused), version or NULL, SQLSTATE and message of one refused.  NULL:
	 * this blue is not written to by bcmig.
	 *
	 * replayed: what it wrote last to rows of the table since an entry: key,
	 * journal ids as the text of an array, version or NULL.
	 *
	 * forget_replayed: of what it wrote long ago, forget that of journal entries
	 * below one; some of it.  One row, how many.
	 *
	 * may_write: one row, 'true' when all that needs is there, the login.
	 */
	char	   *(*replay) (const BcmigTableInfo *table, const char *green, List *columns, int n, const BcmigReverse *reverse);
	char	   *(*replayed) (const BcmigTableInfo *table, const char *green, int64 since);
	char	   *(*forget_replayed) (const char *green, int64 below);
	char	   *(*may_write) (void);

	/*
	 * The same as a script for a person, where bcmig does not write to blue
	 * itself: its head, a batch of rows (keys: nkeys texts each; values: by
	 * table->columns, NULL = no row), and what makes blue give out none of the
	 * numbers green has given out.
	 */
	char	   *(*reverse_head) (const char *sync, int64 keys);
	char	   *(*reverse_batch) (const BcmigTableInfo *table, const char *green, List *columns, int n, const BcmigReverse *reverse,
								  char ***keys, char ***values);
	char	   *(*reverse_number) (const BcmigGivenNumber *given);
} BcmigDialect;

extern const BcmigDialect bcmig_dialect_postgres;
extern const BcmigDialect bcmig_dialect_tsql;

/* dialect_postgres.c */
extern char *bcmig_postgres_ident(const char *name);
extern char *bcmig_postgres_source_name(const BcmigTableInfo *table);

/* describe_postgres.c */
extern char *bcmig_postgres_missing_timeouts(ForeignServer *server, char **fix, bool *fatal);
extern char *bcmig_postgres_constant(const char *expression);
extern List *bcmig_postgres_describe(List *tables);
extern char *bcmig_postgres_preflight(void);
extern char *bcmig_postgres_script(const char *kind, const char *login, List *tables);
extern char *bcmig_postgres_version_index(const BcmigTableInfo *table);

/* reverse_postgres.c */
extern char *bcmig_postgres_replay(const BcmigTableInfo *table, const char *green, List *columns, int n, const BcmigReverse *reverse);
extern char *bcmig_postgres_forget_replayed(const char *green, int64 below);
extern char *bcmig_postgres_replayed(const BcmigTableInfo *table, const char *green, int64 since);
extern char *bcmig_postgres_may_write(void);

/* dialect.c */
extern BcmigName *bcmig_name(char *schema, char *name);

/* own_query.c */
extern List *bcmig_postgres_own_query(const char *query, int64 most);

/* fence_postgres.c */
extern const BcmigFenceDialect bcmig_postgres_fence;

/* hash_postgres.c */
extern const BcmigHashDialect bcmig_postgres_hash;

/* witness_postgres.c; an expression: what a blue lacks to remember anything, NULL = nothing */
#define BCMIG_WITNESS_MISSING \
	"(SELECT CASE WHEN min(p.oid) IS NULL THEN 'postgres_switch.sql was not run there'" \
	" WHEN NOT pg_catalog.has_function_privilege(min(p.oid), 'EXECUTE') THEN pg_catalog.format('role %I was not granted it there', current_user) END" \
	" FROM pg_catalog.pg_proc p WHERE p.proname = 'witness_put'" \
	" AND p.pronamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'bcmig_blue'))"
extern const BcmigWitnessDialect bcmig_postgres_witness;

/* parts of statements */
extern bool bcmig_ranges_possible(const BcmigTableInfo *table);
extern void bcmig_range_bounds(const BcmigChunking *chunking, int64 first, int64 last, int64 *low, int64 *high);
extern char *bcmig_chunk_condition(const BcmigChunking *chunking, List *chunks, const char *what);
extern char *bcmig_nulls(int n);
extern char *bcmig_in_comment(const char *name);
extern char **bcmig_bound_values(const BcmigTableInfo *table, Datum bound);

/* the dialect of a foreign server; ERROR when its wrapper is none of ours */
extern const BcmigDialect *bcmig_dialect_of_server(Oid serverid);

#endif							/* BCMIG_DIALECT_H */
