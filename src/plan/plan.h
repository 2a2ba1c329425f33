/*-------------------------------------------------------------------------
 *
 * plan.h
 *	  Plans: phases, the steps of bcmig they are made of, their execution.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_PLAN_H
#define BCMIG_PLAN_H

#include "catalog.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/*
 * A step of bcmig (phases.c): statements with the parameters $1 sync, $2
 * arguments, $3 result so far.  "call" and "cancel" run as the owner of the
 * plan, and "@" in them is the schema of bcmig's functions; the others read
 * bcmig's tables.
 */
typedef struct BcmigPlanStep
{
	const char *name;
	const char *type;			/* of a phase that does not say */
	bool		per_sync;
	const char *arguments;		/* known ones; ! = must be given */
	const char *compensation;	/* of a phase that does not say; NULL = none */
	const char *meaning;

	/* is what it does done or asked for already?  Then it is not called, but looked at */
	const char *effect;

	/* (error text, result jsonb): error NULL = it is done, or asked for */
	const char *call;
	bool		until_ok;		/* called again and again, until error is NULL */

	/* result jsonb, in the transaction of the call */
	const char *after;

	/* (state text, percent numeric, detail text, result jsonb), NULL: done with the call */
	const char *look;
	bool		ask_sweeps;		/* at each look */

	/* breaks it off */
	const char *cancel;

	/* a rehearsal, as owner: rows as a check has them; writes nothing */
	const char *rehearse;
} BcmigPlanStep;

/* what a step is about */
typedef struct BcmigStepCall
{
	const BcmigPlanStep *step;
	const char *sync;			/* "" = none */
	const char *arguments;		/* jsonb */
	const char *result;			/* jsonb */
} BcmigStepCall;

/* phases.c: by name, or NULL; all, to NULL */
extern const BcmigPlanStep *bcmig_plan_step(const char *name);
extern const BcmigPlanStep *bcmig_plan_step_at(int i);
extern List *bcmig_steps_per_sync(void);	/* names */

/* in a transaction, results in the caller's context */
extern bool bcmig_step_has_effect(const BcmigStepCall *call);

/* NULL, or why it could not be done; *result is added to that of the phase, may be NULL */
extern char *bcmig_step_call(const BcmigStepCall *call, char **result);
extern void bcmig_step_cancel(const BcmigStepCall *call);

/* "running", "done" or "failed" */
extern char *bcmig_step_look(const BcmigStepCall *call, char **percent, char **detail, char **result);

/* a List of BcmigCheck */
extern List *bcmig_step_rehearse(const BcmigStepCall *call);

/* plan.c: ERROR unless it is there and the caller's */
extern Oid	bcmig_plan_owner(const char *name);

/* plan_sql.c: SQL of users, in a transaction, as "owner" and nobody else; what it raises is raised */
extern void bcmig_run_plan_sql(Oid owner, const char *sql);

/*
 * The same for a rehearsal, statement by statement: those of which "outside" has
 * something to say are not run.  What it said last, or NULL.
 */
struct RawStmt;
extern const char *bcmig_try_plan_sql(Oid owner, const char *sql, const char *(*outside) (struct RawStmt *stmt, const char *sql));

/* one plain SELECT of a boolean; NULL counts as false */
extern bool bcmig_plan_condition(Oid owner, const char *phase, const char *query);

/* ERROR, with "where" before it, when it cannot be parsed or would become somebody else */
extern void bcmig_check_plan_sql(const char *where, const char *sql);

/*
 * The phases of the plan $1 as they are run: a step once for each sync of a wave,
 * everything else once a wave.  $2: steps that are about a sync.
 */
#define BCMIG_PHASES_OF_PLAN(columns) \
	"SELECT " columns " FROM bcmig.plan p JOIN bcmig.phase f USING (plan_id) " \
	"CROSS JOIN LATERAL (SELECT DISTINCT coalesce(x.wave, 1) AS wave FROM (SELECT) one LEFT JOIN unnest(p.waves) x (wave) ON true) w " \
	"LEFT JOIN LATERAL (SELECT x.sync FROM unnest(p.syncs, p.waves) x (sync, wave) WHERE x.wave = w.wave AND f.action = ANY ($2)) y ON true " \
	"WHERE p.name = $1 AND f.active"

/* ms of an interval column of a result row, -1 = NULL */
extern int64 bcmig_get_ms(uint64 row, int col);

#endif							/* BCMIG_PLAN_H */
