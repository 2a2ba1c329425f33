/*-------------------------------------------------------------------------
 *
 * execution.h
 *	  An execution of a plan, as its runner works on it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_EXECUTION_H
#define BCMIG_EXECUTION_H

#include "plan.h"

/* a row of bcmig.phase_run, with its times as of the load */
typedef struct BcmigPhaseRun
{
	int			wave;
	int			position;
	char	   *sync;			/* "" = it is about all */
	char	   *name;
	char	   *type;
	char	   *action;
	const BcmigPlanStep *step;	/* NULL = sql */
	char	   *arguments;
	char	   *precondition;
	char	   *compensation;
	char	   *approval;
	char	   *approved_by;
	char	   *state;
	int			attempt;
	int			retries;
	bool		begun;
	int64		timeout;		/* ms */
	int64		backoff;		/* ms */
	int64		since;			/* ms since it began; -1 = it has not */
	int64		wait;			/* ms until it may begin again; 0 or less = it may */
	char	   *result;
	char	   *note;
	bool		failed;			/* an error of it is on record */
	bool		made;			/* what it is about was not there before */
	bool		stuck;			/* could not be taken back, or not tried because of one that could not */
} BcmigPhaseRun;

typedef struct BcmigExecution
{
	int64		execution_id;
	char	   *plan;
	Oid			owner;
	char	   *state;
	char	   *wanted;
	bool		auto_rollback;
	char	   *error;
	List	   *phases;			/* BcmigPhaseRun, by wave, position, sync */
} BcmigExecution;

/* execution.c: false = there is none; in a transaction, memory in the caller's context */
extern bool bcmig_load_execution(int64 execution_id, BcmigExecution *e);

/* what this database is, for bcmig.execution.green; and why it is not that one, NULL = it is */
extern char *bcmig_execution_disputed(const BcmigExecution *e);

/* in a scope: what persons have asked for */
extern void bcmig_take_execution_requests(BcmigExecution *e);

/*
 * In a scope: "set" is an assignment list for the row, with $5 = a and $6 = b;
 * ERROR unless the row is still in the state it was loaded with.
 */
extern void bcmig_change_phase(const BcmigExecution *e, BcmigPhaseRun *p, const char *set, const char *a, const char *b);

/* in a scope; the state of an execution, with a row of the audit log */
extern void bcmig_change_execution(BcmigExecution *e, const char *state, const char *error);

/* the first wave that is not over; 0 = all are */
extern int	bcmig_present_wave(const BcmigExecution *e);

/* compensate.c: one step on the way back; true = there is more to do at once */
extern bool bcmig_compensate(BcmigExecution *e);

/*
 * runner.c: work(arg) in a transaction of its own, in no longer than timeout ms;
 * what it has raised, in the current context, or NULL.
 */
typedef struct BcmigPhaseWork
{
	BcmigExecution *e;
	BcmigPhaseRun *p;
	const char *set;			/* for bcmig_change_phase */
	const char *a;
	const char *b;
	char	   *state;			/* what came of it */
	bool		not_yet;
	bool		holds;
} BcmigPhaseWork;

extern ErrorData *bcmig_in_transaction(void (*work) (BcmigPhaseWork *w), BcmigPhaseWork *w, int64 timeout);

/* a change of a phase in a transaction of its own */
extern void bcmig_set_phase(BcmigExecution *e, BcmigPhaseRun *p, const char *set, const char *a, const char *b);

/* for messages */
extern char *bcmig_phase_title(const BcmigPhaseRun *p);

#endif							/* BCMIG_EXECUTION_H */
