/*-------------------------------------------------------------------------
 *
 * version.h
 *	  Is the SQL of the extension the one this library was built with?
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_VERSION_H
#define BCMIG_VERSION_H

/*
 * NULL when it is, or there is no extension; else its version, in the current
 * memory context.  Needs a transaction.
 */
extern char *bcmig_other_version(void);

/* what to do about another version of the SQL */
extern const char *bcmig_version_hint(const char *other);

/* ERROR when it is not; a script that installs or updates is let pass */
extern void bcmig_require_version(void);

#endif							/* BCMIG_VERSION_H */
