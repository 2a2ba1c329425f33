/*-------------------------------------------------------------------------
 *
 * statements.c
 *	  The statements that write rows to a green table.
 *
 * The rows are an ephemeral named relation, bcmig_rows, as the transition
 * tables of a trigger are; prepared statements per table do the rest:
 *
 *	delete	keys whose row is gone on blue, or not wanted by the row filter
 *	rename	rows whose $systemId comes back under another key (only where
 *			deletes are not in the feed: otherwise the old key is among them)
 *	upsert	INSERT ... ON CONFLICT (key) DO UPDATE, skipping rows that are equal
 *			bit for bit (record image comparison: 1.0 is not 1.00, '' not NULL)
 *	insert	the same without looking for the key
 *
 * For a plain table delete and upsert are done by write.c without a statement;
 * where the rows lie on other servers, elsewhere.c has other statements.
 *
 * Plans are kept per table until its target changes shape or configuration
 * changes.  Statements run as the sync's owner, with session_replication_role =
 * replica (set by worker.c) and search_path pg_catalog.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "conflict.h"
#include "elsewhere.h"
#include "own_write.h"
#include "quarantine.h"
#include "statements.h"
#include "transform.h"
#include "write.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "commands/trigger.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"

#define PLANNED_ROWS		100 /* what plans assume: index look-ups, not scans of green */

/* shape of the target the statements were made for */
typedef struct TargetShape
{
	Oid			relid;
	int			natts;
	Oid		   *types;
	int32	   *typmods;
} TargetShape;

typedef struct ApplyPlans
{
	int			table_id;		/* must be first */
	TargetShape shape;
	BcmigReach	reach;
	SPIPlanPtr	plans[BCMIG_STATEMENTS];
} ApplyPlans;

static HTAB *apply_plans = NULL;

/* ---- statements ---- */

static const char *
id(const char *name)
{
	return quote_identifier(name);
}

char *
bcmig_key_condition(const BcmigTableInfo *table)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int k = 0; k < table->nkeys; k++)
	{
		const char *name = id(table->columns[table->keys[k]].target);

		appendStringInfo(&s, "%sg.%s = w.%s", k ? " AND " : "", name, name);
	}
	return s.data;
}

/*
 * The value of a feed column for a target column.  Where the types differ an
 * explicit cast could cut or round without a word, so what it gives is cast
 * back and compared (bcmig.exact raises).
 */
char *
bcmig_value_expression(const char *name, Form_pg_attribute from, Form_pg_attribute to)
{
	char	   *target;
	char	   *source;

	if (from->atttypid == to->atttypid &&
		(from->atttypmod == to->atttypmod || to->atttypmod == -1))
		return psprintf("w.%s", id(name));
	target = format_type_extended(to->atttypid, to->atttypmod,
								  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
	source = format_type_extended(from->atttypid, from->atttypmod,
								  FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
	return psprintf("CASE WHEN bcmig.exact(w.%s, (w.%s::%s)::%s, %s) THEN w.%s::%s END",
					id(name), id(name), target, source, quote_literal_cstr(name),
					id(name), target);
}

static Form_pg_attribute
find_attribute(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (!att->attisdropped && strcmp(NameStr(att->attname), name) == 0)
			return att;
	}
	return NULL;
}

static char *
statement_text(const BcmigTableInfo *table, TupleDesc feed, TupleDesc target, BcmigStatement which)
{
	StringInfoData names;
	StringInfoData values;
	StringInfoData sets;
	StringInfoData old;
	StringInfoData new;
	StringInfoData key;
	StringInfoData sql;
	const char *identity;

	initStringInfo(&sql);
	if (which == BCMIG_STMT_DELETE)
	{
		appendStringInfo(&sql, "DELETE FROM %s g USING " BCMIG_OWN_ROWS_NAME " w WHERE w.bc_op <> 'U' AND %s",
						 table->target_name, bcmig_key_condition(table));
		return sql.data;
	}
	if (which == BCMIG_STMT_RENAME)
	{
		identity = id(table->columns[table->identity_column].target);
		appendStringInfo(&sql, "DELETE FROM %s g USING " BCMIG_OWN_ROWS_NAME " w WHERE w.bc_op <> 'D' AND g.%s = w.%s"
						 " AND w.%s::text <> '00000000-0000-0000-0000-000000000000' AND NOT (%s) RETURNING %s",
						 table->target_name, identity, identity, identity,
						 bcmig_key_condition(table), bcmig_green_key(table, target, "g"));
		return sql.data;
	}

	initStringInfo(&names);
	initStringInfo(&values);
	initStringInfo(&sets);
	initStringInfo(&old);
	initStringInfo(&new);
	initStringInfo(&key);
	for (int i = FEED_VERSION; i < feed->natts; i++)
	{
		Form_pg_attribute from = TupleDescAttr(feed, i);
		const char *name = NameStr(from->attname);
		Form_pg_attribute to = find_attribute(target, name);
		const char *comma = names.len ? ", " : "";

		if (to == NULL)
		{
			if (i == FEED_VERSION)
				continue;
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("column %s of %s is gone", id(name), table->target_name),
					 errhint("ALTER TABLE %s ADD COLUMN %s %s; SELECT bcmig_resync_table(%s, %s);",
							 table->target_name, id(name),
							 format_type_with_typemod(from->atttypid, from->atttypmod),
							 quote_literal_cstr(table->sync_name),
							 quote_literal_cstr(table->target_name))));
		}
		appendStringInfo(&names, "%s%s", comma, id(name));
		appendStringInfo(&values, "%s%s", comma, bcmig_value_expression(name, from, to));
		appendStringInfo(&sets, "%s%s = excluded.%s", comma, id(name), id(name));
		appendStringInfo(&old, "%sg.%s", comma, id(name));
		appendStringInfo(&new, "%sexcluded.%s", comma, id(name));
	}
	for (int k = 0; k < table->nkeys; k++)
		appendStringInfo(&key, "%s%s", k ? ", " : "", id(table->columns[table->keys[k]].target));

	appendStringInfo(&sql, "INSERT INTO %s AS g (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM " BCMIG_OWN_ROWS_NAME " w WHERE w.bc_op = 'U'",
					 table->target_name, names.data, values.data);
	if (which == BCMIG_STMT_UPSERT)
		appendStringInfo(&sql, " ON CONFLICT (%s) DO UPDATE SET %s WHERE ROW(%s)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record",
						 key.data, sets.data, old.data, new.data);
	return sql.data;
}

/* ---- plans ---- */

void
bcmig_apply_forget(void)
{
	HASH_SEQ_STATUS seq;
	ApplyPlans *plans;

	bcmig_transform_forget();
	if (apply_plans == NULL)
		return;
	hash_seq_init(&seq, apply_plans);
	while ((plans = hash_seq_search(&seq)) != NULL)
	{
		for (int i = 0; i < BCMIG_STATEMENTS; i++)
		{
			if (plans->plans[i] != NULL)
				SPI_freeplan(plans->plans[i]);
		}
		if (plans->shape.types != NULL)
		{
			pfree(plans->shape.types);
			pfree(plans->shape.typmods);
		}
		hash_search(apply_plans, &plans->table_id, HASH_REMOVE, NULL);
	}
}

static bool
same_shape(const TargetShape *shape, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	if (shape->relid != RelationGetRelid(rel) || shape->natts != desc->natts)
		return false;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (shape->types[i] != (att->attisdropped ? InvalidOid : att->atttypid) ||
			shape->typmods[i] != att->atttypmod)
			return false;
	}
	return true;
}

static void
remember_shape(TargetShape *shape, Relation rel)
{
	TupleDesc	desc = RelationGetDescr(rel);

	shape->relid = RelationGetRelid(rel);
	shape->natts = desc->natts;
	shape->types = MemoryContextAlloc(TopMemoryContext, sizeof(Oid) * Max(desc->natts, 1));
	shape->typmods = MemoryContextAlloc(TopMemoryContext, sizeof(int32) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		shape->types[i] = att->attisdropped ? InvalidOid : att->atttypid;
		shape->typmods[i] = att->atttypmod;
	}
}

/* make the rows visible to statements of this SPI connection */
void
bcmig_register_rows(Tuplestorestate *store, TupleDesc desc)
{
	EphemeralNamedRelation enr = palloc0(sizeof(EphemeralNamedRelationData));
	int			rc;

	enr->md.name = BCMIG_OWN_ROWS_NAME;
	enr->md.reliddesc = InvalidOid;
	enr->md.tupdesc = desc;
	enr->md.enrtype = ENR_NAMED_TUPLESTORE;
	enr->md.enrtuples = PLANNED_ROWS;
	enr->reldata = store;
	rc = SPI_register_relation(enr);
	if (rc != SPI_OK_REL_REGISTER)
		elog(ERROR, "SPI_register_relation failed: %s", SPI_result_code_string(rc));
}

void
bcmig_unregister_rows(void)
{
	int			rc = SPI_unregister_relation(BCMIG_OWN_ROWS_NAME);

	if (rc != SPI_OK_REL_UNREGISTER)
		elog(ERROR, "SPI_unregister_relation failed: %s", SPI_result_code_string(rc));
}

uint64
bcmig_query_spool(BcmigSpool *spool, const char *sql)
{
	int			rc;

	bcmig_register_rows(spool->store, spool->desc);
	rc = SPI_execute(sql, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute failed: %s: %s", SPI_result_code_string(rc), sql);
	return SPI_processed;
}

/*
 * Deferrable unique keys are checked by internal triggers, which do not fire
 * with session_replication_role = replica unless told so: duplicates would go
 * in without a word.  Tell them (only a superuser may, hence the catalogue
 * owner), whoever made the constraint; a restored dump has forgotten it.
 */
static void
enforce_unique_keys(Oid relid)
{
	Relation	rel = table_open(relid, RowExclusiveLock);
	char	   *name = pstrdup(quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
														  RelationGetRelationName(rel)));
	List	   *silent = NIL;
	ListCell   *lc;
	BcmigCatalogScope scope;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
	{
		Trigger    *trigger = &rel->trigdesc->triggers[i];

		if (trigger->tgfoid == F_UNIQUE_KEY_RECHECK && trigger->tgenabled != TRIGGER_FIRES_ALWAYS)
			silent = lappend(silent, pstrdup(trigger->tgname));
	}
	table_close(rel, NoLock);
	if (silent == NIL)
		return;
	bcmig_catalog_begin(&scope);
	foreach(lc, silent)
	{
		bcmig_own_ddl(relid);
		if (SPI_execute(psprintf("ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %s", name,
								 quote_identifier((char *) lfirst(lc))), false, 0) < 0)
			elog(ERROR, "ALTER TABLE failed");
		bcmig_own_write_end();
	}
	bcmig_catalog_end(&scope);
}

/*
 * The plans of a table, anew when its target has changed shape.  The target is
 * locked as a writer would.
 */
static ApplyPlans *
plans_of(const BcmigTableInfo *table)
{
	ApplyPlans *plans;
	bool		found;
	bool		partitioned;
	BcmigReach	reach;
	Oid			relid;
	Relation	rel;
	RangeVar   *rv = makeRangeVar(table->target_schema, table->target_table, -1);

	if (apply_plans == NULL)
	{
		HASHCTL		ctl = {0};

		ctl.keysize = sizeof(int);
		ctl.entrysize = sizeof(ApplyPlans);
		apply_plans = hash_create("bcmig apply plans", 256, &ctl, HASH_ELEM | HASH_BLOBS);
	}
	rel = table_openrv(rv, RowExclusiveLock);
	reach = bcmig_reach(rel);
	plans = hash_search(apply_plans, &table->table_id, HASH_FIND, &found);
	if (found && (!same_shape(&plans->shape, rel) || plans->reach != reach))
	{
		bcmig_apply_forget();
		found = false;
	}
	if (!found)
	{
		plans = hash_search(apply_plans, &table->table_id, HASH_ENTER, NULL);
		memset(plans->plans, 0, sizeof(plans->plans));
		memset(&plans->shape, 0, sizeof(plans->shape));
		remember_shape(&plans->shape, rel);
		plans->reach = reach;
	}
	relid = RelationGetRelid(rel);
	partitioned = rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE;
	table_close(rel, NoLock);

	/* of leaf partitions only when plans are made: there may be many */
	if (!partitioned)
		enforce_unique_keys(relid);
	else if (!found)
	{
		List	   *all = find_all_inheritors(relid, RowExclusiveLock, NULL);
		ListCell   *lc;

		foreach(lc, all)
			enforce_unique_keys(lfirst_oid(lc));
	}
	return plans;
}

uint64
bcmig_run_statement(const BcmigTableInfo *table, Tuplestorestate *rows, TupleDesc feed, BcmigStatement which)
{
	ApplyPlans *plans = plans_of(table);
	int			rc;

	if (plans->reach != BCMIG_REACH_LOCAL)
	{
		Relation	rel = table_open(plans->shape.relid, NoLock);
		uint64		written = bcmig_write_elsewhere(table, rel, plans->reach, which, rows, feed, plans->plans);

		table_close(rel, NoLock);
		return written;
	}
	if (which == BCMIG_STMT_DELETE || which == BCMIG_STMT_UPSERT)
	{
		Relation	rel = table_open(plans->shape.relid, NoLock);
		bool		direct = bcmig_write_possible(table, rel);
		uint64		written = direct ? bcmig_write_rows(table, rel, which == BCMIG_STMT_DELETE ? 'D' : 'U', rows, feed) : 0;

		table_close(rel, NoLock);
		if (direct)
			return written;
	}
	if (plans->plans[which] == NULL)
	{
		Relation	rel = table_open(plans->shape.relid, NoLock);
		char	   *sql = statement_text(table, feed, RelationGetDescr(rel), which);
		SPIPlanPtr	plan = SPI_prepare(sql, 0, NULL);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s: %s", SPI_result_code_string(SPI_result), sql);
		SPI_keepplan(plan);
		plans->plans[which] = plan;
		table_close(rel, NoLock);
	}
	bcmig_own_write(plans->shape.relid);
	rc = SPI_execute_plan(plans->plans[which], NULL, NULL, false, 0);
	bcmig_own_write_end();
	if (rc < 0)
		elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
	return SPI_processed;
}
