/*-------------------------------------------------------------------------
 *
 * options.h
 *	  Options as jsonb, validated against bcmig.option.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_OPTIONS_H
#define BCMIG_OPTIONS_H

#include "nodes/pg_list.h"
#include "utils/jsonb.h"

/*
 * Merge "change" into "base" and validate every key of the change for "scope"
 * ("environment", "sync" or "table").  JSON null resets a key.  Values are
 * normalised: intervals to a number of ms, sizes to bytes.  ERROR (class BM)
 * for an unknown key, naming the near ones, or a bad value.  Needs a catalogue
 * scope.  Result in the current memory context.
 */
extern Jsonb *bcmig_options_merge(Jsonb *base, Jsonb *change, const char *scope);

/*
 * The effective value of an option as text in normal form: the first of
 * "table" and "sync" (either may be NULL) that has it, else the default; NULL
 * when that is NULL.  "auto" comes back as "auto".  Needs a catalogue scope.
 */
extern char *bcmig_option_value(const char *name, Jsonb *table, Jsonb *sync);

/* the same as a number; "auto" gives if_auto */
extern int64 bcmig_option_int64(const char *name, Jsonb *table, Jsonb *sync,
								int64 if_auto);
extern bool bcmig_option_bool(const char *name, Jsonb *table, Jsonb *sync);

/* those of the names (List of char *) that look like "name", with commas: few letters away, or one contained in the other */
extern char *bcmig_near_names(const char *name, List *known);

#endif							/* BCMIG_OPTIONS_H */
