/*-------------------------------------------------------------------------
 *
 * tsql.h
 *	  The parts of the SQL Server dialect.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_TSQL_H
#define BCMIG_TSQL_H

#include "dialect.h"

/* rows of an answer, put together by several statements */
#define BCMIG_DECLARE_ANSWER \
	"DECLARE @r TABLE (part int, name nvarchar(256), n int, c1 nvarchar(256), c2 nvarchar(4000), c3 nvarchar(4000)," \
	" c4 nvarchar(4000), c5 nvarchar(4000), c6 nvarchar(4000), c7 nvarchar(4000), c8 nvarchar(4000));"
#define BCMIG_SELECT_ANSWER \
	" SELECT r.c1, r.c2, r.c3, r.c4, r.c5, r.c6, r.c7, r.c8 FROM @r AS r ORDER BY r.part, r.name, r.n"

/* readers do not wait for writers where the database allows it */
#define BCMIG_SNAPSHOT_WHERE_ALLOWED \
	"IF EXISTS (SELECT 1 FROM sys.databases AS d WHERE d.database_id = DB_ID() AND d.snapshot_isolation_state = 1)" \
	" SET TRANSACTION ISOLATION LEVEL SNAPSHOT; "

/* dialect_tsql.c: parts of statements about a table; the base is t, companions p1, p2, ... */
extern char *bcmig_tsql_source_name(const BcmigTableInfo *table);
extern char *bcmig_tsql_from_clause(const BcmigTableInfo *table);
extern char *bcmig_tsql_value_of(const BcmigColumn *column, const char *alias);
extern char *bcmig_tsql_key_array(const BcmigTableInfo *table, const char *alias);
extern char *bcmig_tsql_literal(const BcmigColumn *column, const char *value);
extern bool bcmig_tsql_type_is(const char *native, const char *name);

/*
 * measure_tsql.c: bc_op of a row, or of its key alone, with the bytes it has; and the bytes of its columns without a
 * bound, NULL when it has none.
 */
extern char *bcmig_tsql_row_op(const BcmigTableInfo *table, bool key_only);
extern char *bcmig_tsql_unbounded_bytes(const BcmigTableInfo *table);

/* own_query.c */
extern List *bcmig_tsql_own_query(const char *query, int64 most);

/* fence_tsql.c */
extern const BcmigFenceDialect bcmig_tsql_fence;

/* hash_tsql.c */
extern const BcmigHashDialect bcmig_tsql_hash;

/* describe_tsql.c */
extern char *bcmig_tsql_identifier(const char *name);
extern char *bcmig_tsql_string(const char *value);
extern char *bcmig_tsql_batch(const BcmigTableInfo *table, const char *purpose, const char *sql);
extern List *bcmig_tsql_describe(List *tables);
extern char *bcmig_tsql_preflight(void);
extern char *bcmig_tsql_script(const char *kind, const char *login, List *tables);
extern char *bcmig_tsql_version_index(const BcmigTableInfo *table);
extern char *bcmig_tsql_green_type(const char *native);
extern char *bcmig_tsql_constant(const char *expression);

/* reverse_tsql.c */
extern char *bcmig_tsql_reverse_head(const char *sync, int64 keys);
extern char *bcmig_tsql_reverse_batch(const BcmigTableInfo *table, const char *green, List *columns, int n, const BcmigReverse *reverse,
									  char ***keys, char ***values);
extern char *bcmig_tsql_reverse_number(const BcmigGivenNumber *given);

/* bc_tsql.c */
extern const BcmigBcDialect bcmig_tsql_bc;

/* tds_messages.c */
extern void bcmig_tds_prepare_process(void);
extern void bcmig_tds_explain_error(const char *sql);
extern char *bcmig_tds_missing_timeouts(ForeignServer *server, char **fix, bool *fatal);

#endif							/* BCMIG_TSQL_H */
