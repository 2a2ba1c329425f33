/*-------------------------------------------------------------------------
 *
 * check.h
 *	  Validation: what its files share.
 *
 * A run (bcmig.validation_run) is a set of tables (bcmig.validation_result) to
 * compare, then rules.  Workers take both as jobs, when nothing more urgent is
 * due; all that has been found out is in the catalogue, so a crash repeats one
 * group of chunks or one rule.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_CHECK_H
#define BCMIG_CHECK_H

#include "configure.h"
#include "row_image.h"
#include "utils/hsearch.h"
#include "transform.h"
#include "worker.h"

/* ---- run.c ---- */

/* a run whose tables have all been compared and whose rules have not been looked at */
typedef struct BcmigRun
{
	int64		run_id;
	int			sync_id;
	char	   *sync_name;
	char	   *mode;			/* count, incremental, full */
	int			table_id;		/* 0 = all */
} BcmigRun;

/* hands the jobs of this room to the workers; once, when the library is loaded */
extern void bcmig_check_init(void);

/* ERROR when there is no such mode */
extern void bcmig_check_mode(const char *mode);

/* begin a run of a table, or (NULL) of all; returns its id */
extern int64 bcmig_run_begin(const BcmigSync *sync, const char *target, const char *mode);

/* end a run before its time; false when it is over.  In a transaction. */
extern bool bcmig_run_cancel(int64 run_id);

/* sync and owner of a run; ERROR when there is none */
extern void bcmig_run_sync(int64 run_id, char **sync_name, Oid *owner);

/* the oldest run of a sync that is ready for its rules, in the current context; NULL = none.  In a transaction. */
extern BcmigRun *bcmig_run_ready(int sync_id);

/* all is known, or (error) cannot be: store the verdict.  In a transaction. */
extern void bcmig_run_finish(const BcmigRun *run, const char *error);

/* ---- numbers.c ---- */

/* sequences, once in a run of all tables; in a transaction */
extern void bcmig_check_numbers(const BcmigRun *run, Oid feed);

/* the job that ends the run has failed: they could not be looked at.  In a transaction */
extern void bcmig_numbers_failed(int sync_id, const char *message);

/* ---- schedule_validation.c ---- */

/* BcmigCheckRoom.unschedule */
extern char *bcmig_unschedule_jobs(int sync_id, const char *sync_name, bool dry_run);

/* ---- one table under validation: rows.c ---- */

typedef struct BcmigProof
{
	BcmigWork  *work;
	const BcmigTableInfo *table;
	const BcmigHashDialect *hash;
	int64		run_id;
	bool		count_only;		/* rows are there or not; what is in them does not matter */
	bool		pushdown;		/* blue hashes its rows itself */
	BcmigChunking chunking;
	Oid			text_feed;
	TupleDesc	desc;			/* the feed's columns, without bc_op and bc_rowversion, in the types they are compared in */
	BcmigHasher *hasher;		/* for desc */
	int			ncolumns;
	int		   *columns;		/* of desc, those that are compared by hash */
	const BcmigTableInfo *hashed;	/* the table with these columns only, for blue to hash */
	NullableDatum *constants;	/* what blue's row shows where green has a constant, or no column; NULL = all columns are blue's */
	bool		transformed;	/* blue's rows are put through the transforms here */
	char	   *select;			/* SELECT list of the green row (alias g), in the feed's types */
	bool		has_inexact;	/* its last column counts values the types of the feed cannot hold */
} BcmigProof;

/* in a transaction; lives in the current context */
extern BcmigProof *bcmig_proof_open(BcmigWork *work);

/*
 * Rows of one side, as arrays of proof->desc->natts; gone after the call.  A key whose row is gone on blue comes as inexact -1, all but the key NULL;
 * else inexact is as of bcmig_hash_row().
 */
typedef void (*BcmigRowSink) (void *arg, const Datum *values, const bool *isnull, int inexact);

/* which transforms blue cannot compute, so that its rows are pulled; NULL = none */
extern char *bcmig_transforms_pulled(const BcmigProof *proof);

/* rows of green that fulfil "condition" on alias g; as the current user, in a transaction */
extern void bcmig_green_rows(BcmigProof *proof, const char *condition, BcmigRowSink sink, void *arg);

/* rows a statement for the row feed gives; signs may be NULL */
extern void bcmig_blue_rows(BcmigProof *proof, const char *sql, BcmigRowSink sink, void *arg, BcmigSigns *signs);

/* the same as the feed has them, transforms or not: their keys */
extern void bcmig_blue_keys(BcmigProof *proof, const char *sql, BcmigRowSink sink, void *arg, BcmigSigns *signs);

/* hashes of a row and of its key (of the row, where there is no key); row may be NULL */
extern void bcmig_row_hashes(BcmigProof *proof, const Datum *values, const bool *isnull, int inexact,
							 BcmigHash *key, BcmigHash *row);

/* the chunk of a row; key is its hash where chunks are buckets */
extern int64 bcmig_chunk_of(const BcmigChunking *chunking, const BcmigTableInfo *table, const Datum *values,
							const BcmigHash *key);

/* is it one of these (List of BcmigChunks, NIL = all)? */
extern bool bcmig_chunk_wanted(List *chunks, int64 chunk);

/* the condition on green's rows for chunks; NULL = all (buckets are told by bcmig_chunk_of) */
extern char *bcmig_green_condition(const BcmigProof *proof, List *chunks);

/* ---- chunks.c ---- */

/* a chunk, both sides added up; key of the hash table of bcmig_compare_chunks */
typedef struct BcmigChunkPair
{
	int64		chunk;			/* must be first */
	BcmigSums	blue;
	BcmigSums	green;
} BcmigChunkPair;

/* add up these chunks (List of BcmigChunks) on both sides; in a transaction */
extern HTAB *bcmig_compare_chunks(BcmigProof *proof, List *chunks);

/* load, or make, how the table is cut; "anew" when it does not fit any more.  First and last chunk of both sides. */
extern void bcmig_plan_chunks(BcmigProof *proof, bool anew, int64 *first, int64 *last, int64 *rows);

/* ---- suspects.c ---- */

/* a row that was not the same on both sides when it was looked at */
typedef struct BcmigSuspect
{
	BcmigHash	key;			/* must be first */
	int64		chunk;
	char	  **texts;			/* its key, nkeys texts as blue or green writes it */
	bool		extra;			/* green has it and blue has not: told only where there is no key */
	bool		settled;
} BcmigSuspect;

/* rows of these chunks that differ: List of BcmigSuspect in the current context; in a transaction */
extern List *bcmig_find_suspects(BcmigProof *proof, List *chunks, int most, bool *too_many);

/* ---- settle.c ---- */

typedef struct BcmigSettled
{
	int64		differences;
	int64		in_flight;		/* were only on their way */
	char	   *unknown;		/* why some could not be told apart, or NULL */
} BcmigSettled;

/*
 * Tell rows that differ from rows that change: real differences are stored in
 * bcmig.validation_difference.  Not in a transaction.
 */
extern void bcmig_settle(BcmigProof *proof, List *suspects, BcmigSettled *settled);

/* ---- probe.c ---- */

/* does blue hash all columns of this table as green does?  Asks blue once per run. */
extern bool bcmig_may_push_down(BcmigProof *proof, char **why);

/* ---- marks.c ---- */

/* for bcmig_mark_written */
extern void bcmig_mark_chunks(const BcmigTableInfo *table, Tuplestorestate *rows, TupleDesc desc);

/* how a table is cut; false = not yet.  In a transaction. */
extern bool bcmig_load_chunking(const BcmigTableInfo *table, BcmigChunking *chunking, bool *proved);

/* ---- jobs ---- */

extern void bcmig_run_check(BcmigWork *work);	/* validate.c */
extern void bcmig_run_rules(int sync_id);	/* rules.c */
extern bool bcmig_run_repair(BcmigWork *work);	/* repair.c */

#endif							/* BCMIG_CHECK_H */
