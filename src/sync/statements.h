/*-------------------------------------------------------------------------
 *
 * statements.h
 *	  The statements that write rows to a green table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BCMIG_STATEMENTS_H
#define BCMIG_STATEMENTS_H

#include "access/tupdesc.h"
#include "catalog.h"
#include "receive.h"
#include "utils/tuplestore.h"

typedef enum BcmigStatement
{
	BCMIG_STMT_DELETE,
	BCMIG_STMT_RENAME,
	BCMIG_STMT_UPSERT,
	BCMIG_STMT_INSERT,

	/* parts of an upsert elsewhere.c makes */
	BCMIG_STMT_REPLACE,
	BCMIG_STMT_TWICE,
	BCMIG_STATEMENTS
} BcmigStatement;

/*
 * Run one on the rows that are registered as bcmig_rows ("rows", of shape
 * "feed"); how many rows of green it changed.  A rename returns their keys in
 * SPI_tuptable.  SPI connected.
 */
extern uint64 bcmig_run_statement(const BcmigTableInfo *table, Tuplestorestate *rows, TupleDesc feed,
								  BcmigStatement which);

/* forget the plans of all tables (configuration has changed) */
extern void bcmig_apply_forget(void);

/* make rows visible as bcmig_rows to statements of this SPI connection, and take them away */
extern void bcmig_register_rows(Tuplestorestate *store, TupleDesc desc);
extern void bcmig_unregister_rows(void);

/* run "sql" with the spool's rows visible as bcmig_rows, as the current user; SPI connected */
extern uint64 bcmig_query_spool(BcmigSpool *spool, const char *sql);

/*
 * The value of w.name, a column of one type, for a target column of another:
 * ERROR where it would not be the same there.  SQL.
 */
extern char *bcmig_value_expression(const char *name, Form_pg_attribute from, Form_pg_attribute to);

/* the join condition of green row alias "g" and spool row alias "w" */
extern char *bcmig_key_condition(const BcmigTableInfo *table);

#endif							/* BCMIG_STATEMENTS_H */
