/*-------------------------------------------------------------------------
 *
 * version.c
 *	  Is the SQL of the extension the one this library was built with?
 *
 * The library is loaded when the server starts, the SQL changes when somebody
 * says ALTER EXTENSION: between the two, tables may have columns the library
 * does not know, or lack what it writes to.  Functions are refused then, our
 * processes end at their next transaction, and the manager waits until both
 * are of one version again.  The fence of green goes on: what it reads must
 * keep its form over versions (docs/versions.md).
 *
 * Nothing tells a backend that pg_extension has changed, so it is asked every
 * time: one look at an index.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "bcmig.h"
#include "version.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

char *
bcmig_other_version(void)
{
	Relation	rel = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ, CStringGetDatum("bcmig"));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion, RelationGetDescr(rel), &isnull);

		version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	if (version != NULL && strcmp(version, BCMIG_VERSION) == 0)
	{
		pfree(version);
		version = NULL;
	}
	return version;
}

/* 1.9 before 1.10; what follows numbers and points is not looked at */
static bool
is_older(const char *a, const char *b)
{
	for (;;)
	{
		char	   *a_end;
		char	   *b_end;
		long		x = strtol(a, &a_end, 10);
		long		y = strtol(b, &b_end, 10);

		if (x != y)
			return x < y;
		if (*b_end != '.')
			return false;
		if (*a_end != '.')
			return true;
		a = a_end + 1;
		b = b_end + 1;
	}
}

const char *
bcmig_version_hint(const char *other)
{
	if (is_older(other, BCMIG_VERSION))
		return "ALTER EXTENSION bcmig UPDATE;";
	return "Restart the server, so that it loads the installed library.";
}

void
bcmig_require_version(void)
{
	char	   *other;

	if (creating_extension)
		return;
	other = bcmig_other_version();
	if (other != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_VERSION),
				 errmsg("the SQL of bcmig in this database is of version %s, the library the server has loaded of version " BCMIG_VERSION, other),
				 errhint("%s", bcmig_version_hint(other))));
}
