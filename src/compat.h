/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Everything that differs between PostgreSQL 14 and 18.
 *
 * The base is PostgreSQL 15.  Wrappers have the newest signature; no other
 * file looks at PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_COMPAT_H
#define BCMIG_COMPAT_H

#if PG_VERSION_NUM < 140000
#error "bcmig needs PostgreSQL 14 or later"
#endif

/* 18 says it before the declaration */
#if PG_VERSION_NUM < 180000
#define pg_noreturn		pg_attribute_noreturn()
#endif

/* 16 moved these out of postgres.h and parse_node.h, and made soft errors */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#include "nodes/miscnodes.h"
#include "parser/parse_relation.h"
#endif

/* shmem_request_hook: 15 (4f2400cb3f10) */
#if PG_VERSION_NUM >= 150000
#define BCMIG_HAVE_SHMEM_REQUEST_HOOK 1
#endif

/* MarkGUCPrefixReserved: 15 (88103567cb8f) */
#if PG_VERSION_NUM < 150000
#define MarkGUCPrefixReserved(prefix) EmitWarningsOnPlaceholders(prefix)
#endif

/*
 * PGDLLEXPORT makes a symbol visible since 16 (089480c07706); before, it was
 * empty, and with -fvisibility=hidden nothing could be loaded.
 */
#if PG_VERSION_NUM < 160000
#undef PGDLLEXPORT
#define PGDLLEXPORT __attribute__((visibility("default")))
#endif

/* PGDLLEXPORT on PG_FUNCTION_INFO_V1 is core's since 16; visibility needs it before */
#if PG_VERSION_NUM < 160000
#define BCMIG_FUNCTION(name) \
	extern PGDLLEXPORT Datum name(PG_FUNCTION_ARGS); \
	PG_FUNCTION_INFO_V1(name)
#else
#define BCMIG_FUNCTION(name) PG_FUNCTION_INFO_V1(name)
#endif

/*
 * 14 has neither InitMaterializedSRF nor a FileSet without a shared memory
 * segment: its SharedFileSetInit() keeps the address of what it is given until
 * the process ends, and sync/shard.c gives it one on the stack.
 */
#if PG_VERSION_NUM < 150000
#error "PostgreSQL 14: InitMaterializedSRF and FileSet have to be provided here"
#endif

/*
 * ExecInitRangeTable for one relation: 16 (a61b1f74823c) moved permissions out
 * of the range table entry, 18 wants the unpruned relations named.  A macro, so
 * that only its user includes executor.h.
 */
#if PG_VERSION_NUM < 160000
#define BCMIG_INIT_RANGE_TABLE(estate, rte) \
	ExecInitRangeTable((estate), list_make1(rte))
#elif PG_VERSION_NUM < 180000
#define BCMIG_INIT_RANGE_TABLE(estate, rte) \
	do { List *perminfos = NIL; addRTEPermissionInfo(&perminfos, (rte)); \
		ExecInitRangeTable((estate), list_make1(rte), perminfos); } while (0)
#else
#define BCMIG_INIT_RANGE_TABLE(estate, rte) \
	do { List *perminfos = NIL; addRTEPermissionInfo(&perminfos, (rte)); \
		ExecInitRangeTable((estate), list_make1(rte), perminfos, bms_make_singleton(1)); } while (0)
#endif

/* ExecutorCheckPerms_hook: 16 (a61b1f74823c) has the permissions in a list of their own */
#if PG_VERSION_NUM < 160000
#define BCMIG_CHECK_PERMS_INFOS
#define BCMIG_CHECK_PERMS_PASS
#define BCMIG_REQUIRED_PERMS(rte)	((rte)->requiredPerms)
#else
#define BCMIG_CHECK_PERMS_INFOS		List *infos,
#define BCMIG_CHECK_PERMS_PASS		infos,
#define BCMIG_REQUIRED_PERMS(rte) \
	((rte)->perminfoindex > 0 ? getRTEPermissionInfo(infos, (rte))->requiredPerms : 0)
#endif

/* pg_class_ownercheck: 16 (afbfc02983f8) has object_ownercheck instead */
#if PG_VERSION_NUM < 160000
#define BCMIG_OWNS_RELATION(relid, role)	pg_class_ownercheck((relid), (role))
#else
#define BCMIG_OWNS_RELATION(relid, role)	object_ownercheck(RelationRelationId, (relid), (role))
#endif

#if PG_VERSION_NUM < 160000
#define BCMIG_MAY_MAKE_SCHEMA(role)	(pg_database_aclcheck(MyDatabaseId, (role), ACL_CREATE) == ACLCHECK_OK)
#else
#define BCMIG_MAY_MAKE_SCHEMA(role)	(object_aclcheck(DatabaseRelationId, MyDatabaseId, (role), ACL_CREATE) == ACLCHECK_OK)
#endif

/* 16 counts nanoseconds, before it was a timespec */
#if PG_VERSION_NUM >= 160000
#define BCMIG_INSTR_TIME_ADD_MICROSEC(t, us)	((t).ticks += (us) * 1000)
#else
#define BCMIG_INSTR_TIME_ADD_MICROSEC(t, us) \
	do { \
		(t).tv_nsec += (us) % 1000000 * 1000; \
		(t).tv_sec += (us) / 1000000 + (t).tv_nsec / 1000000000; \
		(t).tv_nsec %= 1000000000; \
	} while (0)
#endif

/* 16 (19d8e2308bc5) tells which indexes an update needs entries in */
#if PG_VERSION_NUM >= 160000
#define BCMIG_UPDATE_INDEXES	TU_UpdateIndexes
#define BCMIG_UPDATE_ALL		TU_All
#define BCMIG_INSERT_INDEX_TUPLES(rri, slot, estate, update, which) \
	ExecInsertIndexTuples((rri), (slot), (estate), (update), false, NULL, NIL, (which) == TU_Summarizing)
#else
#define BCMIG_UPDATE_INDEXES	bool
#define BCMIG_UPDATE_ALL		true
#define BCMIG_INSERT_INDEX_TUPLES(rri, slot, estate, update, which) \
	ExecInsertIndexTuples((rri), (slot), (estate), (update), false, NULL, NIL)
#endif

/* 16 renamed the map of a partition's rows, and makes it when first asked for */
#if PG_VERSION_NUM >= 160000
#define BCMIG_ROOT_TO_PARTITION_MAP(rri, estate)	ExecGetRootToChildMap((rri), (estate))
#else
#define BCMIG_ROOT_TO_PARTITION_MAP(rri, estate)	((rri)->ri_RootToPartitionMap)
#endif

/* soft errors: 16 */
#if PG_VERSION_NUM >= 160000
#define BCMIG_FLOAT8IN(text)	float8in_internal((text), NULL, "double precision", (text), NULL)
#define BCMIG_NAME_LIST(text)	stringToQualifiedNameList((text), NULL)
/* InvalidOid when there is no such type */
#define BCMIG_PARSE_TYPE(text, oid, typmod) \
	do { \
		ErrorSaveContext soft = {T_ErrorSaveContext}; \
		if (!parseTypeString((text), (oid), (typmod), (Node *) &soft)) \
			*(oid) = InvalidOid; \
	} while (0)
#else
#define BCMIG_FLOAT8IN(text)	float8in_internal((text), NULL, "double precision", (text))
#define BCMIG_NAME_LIST(text)	stringToQualifiedNameList(text)
#define BCMIG_PARSE_TYPE(text, oid, typmod)	parseTypeString((text), (oid), (typmod), true)
#endif

/* getIdentitySequence: 17 wants the relation open */
#if PG_VERSION_NUM >= 170000
#define BCMIG_IDENTITY_SEQUENCE(sequence, relid, attnum) \
	do { \
		Relation owner = table_open((relid), AccessShareLock); \
		(sequence) = getIdentitySequence(owner, (attnum), false); \
		table_close(owner, AccessShareLock); \
	} while (0)
#else
#define BCMIG_IDENTITY_SEQUENCE(sequence, relid, attnum) \
	((sequence) = getIdentitySequence((relid), (attnum), false))
#endif

/* backend IDs became process numbers: 17 */
#if PG_VERSION_NUM >= 170000
#define BCMIG_VXID_NUMBER(vxid)		((vxid).procNumber)
#define BCMIG_VXID_PROC(vxid)		ProcNumberGetProc((vxid).procNumber)
#define BCMIG_PROC_LXID(proc)		((proc)->vxid.lxid)
#else
#define BCMIG_VXID_NUMBER(vxid)		((vxid).backendId)
#define BCMIG_VXID_PROC(vxid)		BackendIdGetProc((vxid).backendId)
#define BCMIG_PROC_LXID(proc)		((proc)->lxid)
#endif

/* 18: a query is run once or has a portal, minimal tuples may have extra space, index scans may be counted */
#if PG_VERSION_NUM >= 180000
#define BCMIG_EXECUTOR_RUN(query)	ExecutorRun((query), ForwardScanDirection, 0)
#define BCMIG_MINIMAL_TUPLE(desc, values, isnull)	heap_form_minimal_tuple((desc), (values), (isnull), 0)
#define BCMIG_INDEX_BEGINSCAN(rel, index, snapshot, nkeys) \
	index_beginscan((rel), (index), (snapshot), NULL, (nkeys), 0)
#else
#define BCMIG_EXECUTOR_RUN(query)	ExecutorRun((query), ForwardScanDirection, 0, true)
#define BCMIG_MINIMAL_TUPLE(desc, values, isnull)	heap_form_minimal_tuple((desc), (values), (isnull))
#define BCMIG_INDEX_BEGINSCAN(rel, index, snapshot, nkeys) \
	index_beginscan((rel), (index), (snapshot), (nkeys), 0)
#endif

#endif							/* BCMIG_COMPAT_H */
