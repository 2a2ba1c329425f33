/*-------------------------------------------------------------------------
 *
 * dictionary.h
 *	  What Business Central's own dictionary of objects says of its tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_DICTIONARY_H
#define BCMIG_DICTIONARY_H

#include "al_metadata.h"
#include "bc_names.h"
#include "source.h"

typedef struct BcmigDictionary BcmigDictionary;

/*
 * Ask blue (or the server its option application_server names) as "role" which
 * dictionary there is, and for extensions and enums.
 */
extern BcmigDictionary *bcmig_open_dictionary(const BcmigEnvironment *env, Oid role,
											  const BcmigInventory *inventory);

/*
 * Ask for what it says of these tables (BcmigFound, bases) and forget others.
 * What cannot be read is a WARNING: SQL types are good enough.
 */
extern void bcmig_dictionary_read(BcmigDictionary *dictionary, List *found);

/* NULL when it does not know the table */
extern const BcmigAlTable *bcmig_dictionary_table(const BcmigDictionary *dictionary, const BcmigFound *found);

/*
 * The field of a column of this table, or, with "companion", of one of its
 * companions; NULL when it is not known.
 */
extern const BcmigAlField *bcmig_dictionary_field(const BcmigDictionary *dictionary, const BcmigFound *found,
												  const BcmigFound *companion, const char *column);

/*
 * The AL type a column of this SQL type may have; NULL where several are as
 * likely (datetime: Date, Time, DateTime).  int may be an Option, which guessing
 * does not tell.
 */
extern const char *bcmig_guess_al_type(const char *column, const char *native_type);

/* names of the field's values (BcmigAlOption); NIL when it has none, or they are not known */
extern List *bcmig_dictionary_values(const BcmigDictionary *dictionary, const BcmigAlField *field);

#endif							/* BCMIG_DICTIONARY_H */
