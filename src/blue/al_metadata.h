/*-------------------------------------------------------------------------
 *
 * al_metadata.h
 *	  What Business Central itself says of a table: fields, AL types, keys.
 *
 * Strings are in the server's encoding, everything is in the caller's memory
 * context.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_AL_METADATA_H
#define BCMIG_AL_METADATA_H

#include "nodes/pg_list.h"

/* a name a stored integer stands for, of an option or enum */
typedef struct BcmigAlOption
{
	int			ordinal;
	char	   *name;			/* may be blank; blanks around it count */
} BcmigAlOption;

typedef struct BcmigAlField
{
	int			number;
	char	   *name;
	const char *type;			/* Code, Text, Date, ..., Enum where enum_id is set */
	int			length;			/* 0 = the type has none */
	const char *class;			/* Normal, FlowField, FlowFilter: the last two have no column */
	List	   *options;		/* BcmigAlOption *; NIL = not in this document */
	int			enum_id;		/* enum object that names the values; 0 = none */
	char	   *app_id;			/* app that adds the field; NULL = not said */
	bool		enabled;		/* false: no column */
	const char *obsolete;		/* No, Pending, Removed, Moved, ... */
} BcmigAlField;

typedef struct BcmigAlKey
{
	char	   *name;			/* NULL = not said */
	List	   *fields;			/* field numbers, in order */
	bool		enabled;
	bool		clustered;
	bool		sql_index;		/* blue has an index for it */
} BcmigAlKey;

typedef struct BcmigAlTable
{
	int			number;			/* of an extension: its own */
	char	   *name;
	bool		extension;		/* a table extension: only what it adds */
	bool		per_company;	/* not said by extensions */
	char	   *app_id;			/* NULL = not said */
	List	   *fields;			/* BcmigAlField *, in the document's order */
	List	   *keys;			/* BcmigAlKey *, the primary key first */
} BcmigAlTable;

/*
 * From column Metadata of [Application Object Metadata] or [Object Metadata],
 * as it is stored.  ERROR when it is damaged or of another kind of object.
 */
extern BcmigAlTable *bcmig_read_al_table(bytea *metadata);

/* of an enum or an enum extension: List of BcmigAlOption * */
extern List *bcmig_read_al_enum(bytea *metadata);

#endif							/* BCMIG_AL_METADATA_H */
