/*-------------------------------------------------------------------------
 *
 * elsewhere.c
 *	  Statements that write rows to tables whose rows lie elsewhere.
 *
 * Neither another PostgreSQL nor Citus can read a tuplestore of ours, so rows
 * travel as parameters, an array for each column, BATCH_ROWS at a time:
 *
 *	foreign	a table with foreign partitions has no unique key of its own and
 *			knows no ON CONFLICT: rows that differ are deleted, then what is not
 *			there is inserted.  Not updated: a row of a foreign table whose
 *			partition key changes would stay where it was without a word.  The
 *			arrays of the keys stand as a condition of their own beside the join,
 *			which the other server can use its index for.
 *	citus	INSERT ... SELECT ... ON CONFLICT DO UPDATE; deletes by key, one
 *			by one: it sends each to the one shard it can be in.  Rows that are
 *			equal are written too: Citus takes a comparison of row images apart
 *			when it writes the statement for its shards.
 *
 * What another server has committed stays when our transaction fails after
 * that, so every statement here may be run twice, also those of the first
 * copy.  The position, which is ours, commits last.
 *
 * Memory: a batch is in memory up to three times, in a context of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "elsewhere.h"

#include "catalog/pg_type.h"
#include "conflict.h"
#include "miscadmin.h"
#include "own_write.h"
#include "quarantine.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

#define BATCH_ROWS		1000
#define BATCH_BYTES		(8 * 1024 * 1024)
#define UNNEST			"pg_catalog.unnest"

/* the columns of a statement: its parameters, in this order */
typedef struct Parameters
{
	int			n;
	int		   *feed_att;		/* 0-based */
	Oid		   *types;			/* of the parameters: arrays, or single values */
} Parameters;

/* a batch of rows of one kind */
typedef struct Rows
{
	int			n;
	Datum	  **values;			/* of row i, as the feed has them */
	bool	  **nulls;
} Rows;

static int
att_of(TupleDesc desc, const char *name)
{
	for (int a = 0; a < desc->natts; a++)
	{
		if (!TupleDescAttr(desc, a)->attisdropped && strcmp(NameStr(TupleDescAttr(desc, a)->attname), name) == 0)
			return a;
	}
	return -1;
}

static const char *
id_of(TupleDesc feed, int a)
{
	return quote_identifier(NameStr(TupleDescAttr(feed, a)->attname));
}

static bool
is_key(const BcmigTableInfo *table, const char *name)
{
	for (int k = 0; k < table->nkeys; k++)
	{
		if (strcmp(table->columns[table->keys[k]].target, name) == 0)
			return true;
	}
	return false;
}

/*
 * The parameters of a statement: the key in its order, then what else it needs.
 */
static void
choose_parameters(Parameters *p, const BcmigTableInfo *table, TupleDesc feed, TupleDesc target, BcmigStatement which,
				  bool arrays)
{
	p->feed_att = palloc(sizeof(int) * feed->natts);
	p->types = palloc(sizeof(Oid) * feed->natts);
	p->n = 0;
	for (int k = 0; k < table->nkeys; k++)
		p->feed_att[p->n++] = att_of(feed, table->columns[table->keys[k]].target);
	if (which == BCMIG_STMT_RENAME)
		p->feed_att[p->n++] = att_of(feed, table->columns[table->identity_column].target);
	else if (which == BCMIG_STMT_UPSERT || which == BCMIG_STMT_REPLACE)
	{
		for (int a = FEED_VERSION; a < feed->natts; a++)
		{
			const char *name = NameStr(TupleDescAttr(feed, a)->attname);

			if (is_key(table, name) || (a == FEED_VERSION && att_of(target, name) < 0))
				continue;
			p->feed_att[p->n++] = a;
		}
	}
	for (int i = 0; i < p->n; i++)
	{
		Form_pg_attribute from;

		if (p->feed_att[i] < 0)
			elog(ERROR, "a key column of %s is not in its feed", table->target_name);
		from = TupleDescAttr(feed, p->feed_att[i]);
		if (att_of(target, NameStr(from->attname)) < 0)
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("column %s of %s is gone", id_of(feed, p->feed_att[i]), table->target_name),
					 errhint("ALTER TABLE %s ADD COLUMN %s %s; SELECT bcmig_resync_table(%s, %s);",
							 table->target_name, id_of(feed, p->feed_att[i]),
							 format_type_with_typemod(from->atttypid, from->atttypmod),
							 quote_literal_cstr(table->sync_name), quote_literal_cstr(table->target_name))));
		p->types[i] = arrays ? get_array_type(from->atttypid) : from->atttypid;
		if (!OidIsValid(p->types[i]))
			ereport(ERROR,
					(errcode(ERRCODE_BM_UNSUITABLE),
					 errmsg("column %s of %s has type %s, of which there are no arrays", id_of(feed, p->feed_att[i]),
							table->target_name, format_type_be(from->atttypid))));
	}
}

/* ---- texts ---- */

/* "unnest($1, $2, ...) AS w(a, b, ...)" */
static char *
rows_of_arrays(const Parameters *p, TupleDesc feed)
{
	StringInfoData s;

	initStringInfo(&s);
	appendStringInfoString(&s, "ROWS FROM (");
	for (int i = 0; i < p->n; i++)
		appendStringInfo(&s, "%s" UNNEST "($%d)", i ? ", " : "", i + 1);
	appendStringInfoString(&s, ") AS w(");
	for (int i = 0; i < p->n; i++)
		appendStringInfo(&s, "%s%s", i ? ", " : "", id_of(feed, p->feed_att[i]));
	appendStringInfoChar(&s, ')');
	return s.data;
}

/* the join of "alias" and w by key, and the same keys for who has no w */
static char *
find_by_key(const BcmigTableInfo *table, const char *alias)
{
	StringInfoData s;

	initStringInfo(&s);
	for (int k = 0; k < table->nkeys; k++)
	{
		const char *name = quote_identifier(table->columns[table->keys[k]].target);

		appendStringInfo(&s, "%s%s.%s = w.%s AND %s.%s = ANY ($%d)", k ? " AND " : "", alias, name, name, alias, name, k + 1);
	}
	return s.data;
}

static char *
statement_text(const BcmigTableInfo *table, TupleDesc feed, TupleDesc target, BcmigReach reach, BcmigStatement which,
			   const Parameters *p)
{
	const char *own = bcmig_own_name();
	char	   *from = rows_of_arrays(p, feed);
	StringInfoData names;
	StringInfoData values;
	StringInfoData old;
	StringInfoData sets;
	StringInfoData keys;
	StringInfoData s;

	initStringInfo(&names);
	initStringInfo(&values);
	initStringInfo(&old);
	initStringInfo(&sets);
	initStringInfo(&keys);
	initStringInfo(&s);
	for (int i = 0; i < p->n; i++)
	{
		Form_pg_attribute att = TupleDescAttr(feed, p->feed_att[i]);
		const char *name = NameStr(att->attname);
		const char *comma = i ? ", " : "";

		appendStringInfo(&names, "%s%s", comma, quote_identifier(name));
		appendStringInfo(&values, "%s%s", comma,
						 bcmig_value_expression(name, att, TupleDescAttr(target, att_of(target, name))));
		appendStringInfo(&old, "%s%s.%s", comma, own, quote_identifier(name));
		if (is_key(table, name))
			appendStringInfo(&keys, "%s%s", comma, quote_identifier(name));
		else
			appendStringInfo(&sets, "%s%s = excluded.%s", sets.len ? ", " : "", quote_identifier(name), quote_identifier(name));
	}

	switch (which)
	{
		case BCMIG_STMT_DELETE:
			appendStringInfo(&s, "DELETE FROM %s AS %s", table->target_name, own);
			if (reach == BCMIG_REACH_FOREIGN)
				appendStringInfo(&s, " USING %s WHERE %s", from, find_by_key(table, own));
			else
			{
				for (int k = 0; k < table->nkeys; k++)
					appendStringInfo(&s, "%s %s.%s = $%d", k ? " AND" : " WHERE", own, id_of(feed, p->feed_att[k]), k + 1);
			}
			break;
		case BCMIG_STMT_RENAME:
			{
				const char *identity = id_of(feed, p->feed_att[table->nkeys]);

				appendStringInfo(&s, "DELETE FROM %s AS %s USING %s WHERE %s.%s = w.%s AND %s.%s = ANY ($%d)"
								 " AND w.%s::text <> '00000000-0000-0000-0000-000000000000' AND NOT (true",
								 table->target_name, own, from, own, identity, identity, own, identity, table->nkeys + 1, identity);
				for (int k = 0; k < table->nkeys; k++)
					appendStringInfo(&s, " AND %s.%s = w.%s", own, id_of(feed, p->feed_att[k]), id_of(feed, p->feed_att[k]));
				appendStringInfo(&s, ") RETURNING %s", bcmig_green_key(table, target, own));
				break;
			}
		case BCMIG_STMT_TWICE:
			appendStringInfo(&s, "SELECT 1 FROM %s GROUP BY %s HAVING count(*) > 1 LIMIT 1", from, keys.data);
			break;
		case BCMIG_STMT_REPLACE:
			appendStringInfo(&s, "DELETE FROM %s AS %s USING %s WHERE %s AND ROW(%s)::record OPERATOR(pg_catalog.*<>) ROW(%s)::record",
							 table->target_name, own, from, find_by_key(table, own), old.data, values.data);
			break;
		default:
			appendStringInfo(&s, "INSERT INTO %s AS %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s", table->target_name, own,
							 names.data, values.data, from);
			if (reach == BCMIG_REACH_FOREIGN)
				appendStringInfo(&s, " WHERE NOT EXISTS (SELECT FROM %s g WHERE %s)", table->target_name, find_by_key(table, "g"));
			else if (sets.len > 0)
				appendStringInfo(&s, " ON CONFLICT (%s) DO UPDATE SET %s", keys.data, sets.data);
			else
				appendStringInfo(&s, " ON CONFLICT (%s) DO NOTHING", keys.data);
	}
	return s.data;
}

/* ---- running ---- */

static Datum
array_of(const Rows *rows, int att, Oid type)
{
	Datum	   *values = palloc(sizeof(Datum) * rows->n);
	bool	   *nulls = palloc(sizeof(bool) * rows->n);
	int			dims[1] = {rows->n};
	int			lower[1] = {1};
	int16		len;
	bool		byval;
	char		align;

	for (int i = 0; i < rows->n; i++)
	{
		values[i] = rows->values[i][att];
		nulls[i] = rows->nulls[i][att];
	}
	get_typlenbyvalalign(type, &len, &byval, &align);
	return PointerGetDatum(construct_md_array(values, nulls, 1, dims, lower, type, len, byval, align));
}

/*
 * One statement over a batch; for Citus a delete is one for each row.
 */
static uint64
run(const BcmigTableInfo *table, Relation rel, BcmigReach reach, BcmigStatement which, const Rows *rows, TupleDesc feed,
	SPIPlanPtr *plans)
{
	MemoryContext context = CurrentMemoryContext;	/* SPI leaves another one */
	bool		one_by_one = reach == BCMIG_REACH_CITUS && which == BCMIG_STMT_DELETE;
	Parameters	p;
	Datum	   *values;
	char	   *nulls;
	uint64		processed = 0;

	choose_parameters(&p, table, feed, RelationGetDescr(rel), which, !one_by_one);
	if (plans[which] == NULL)
	{
		char	   *sql = statement_text(table, feed, RelationGetDescr(rel), reach, which, &p);
		SPIPlanPtr	plan = SPI_prepare(sql, p.n, p.types);

		if (plan == NULL)
			elog(ERROR, "SPI_prepare failed: %s: %s", SPI_result_code_string(SPI_result), sql);
		SPI_keepplan(plan);
		plans[which] = plan;
		MemoryContextSwitchTo(context);
	}
	values = palloc(sizeof(Datum) * p.n);
	nulls = palloc0(sizeof(char) * p.n + 1);
	for (int r = 0; r < (one_by_one ? rows->n : 1); r++)
	{
		int			rc;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < p.n; i++)
		{
			int			att = p.feed_att[i];

			values[i] = one_by_one ? rows->values[r][att] : array_of(rows, att, TupleDescAttr(feed, att)->atttypid);
			nulls[i] = one_by_one && rows->nulls[r][att] ? 'n' : ' ';
		}
		if (which != BCMIG_STMT_TWICE)
			bcmig_own_write(RelationGetRelid(rel));
		rc = SPI_execute_plan(plans[which], values, nulls, false, 0);
		bcmig_own_write_end();
		if (rc < 0)
			elog(ERROR, "SPI_execute_plan failed: %s", SPI_result_code_string(rc));
		processed += SPI_processed;
		MemoryContextSwitchTo(context);
	}
	return processed;
}

/* does the statement look at rows of this kind?  Beside U and D there are those the row filter does not want. */
static bool
is_for(BcmigStatement which, char op)
{
	return which == BCMIG_STMT_DELETE ? op != 'U' : which == BCMIG_STMT_RENAME ? op != 'D' : op == 'U';
}

/* one batch; how many rows it changed */
static uint64
write_batch(const BcmigTableInfo *table, Relation rel, BcmigReach reach, BcmigStatement which, const Rows *rows,
			TupleDesc feed, SPIPlanPtr *plans)
{
	if (which == BCMIG_STMT_UPSERT && reach == BCMIG_REACH_FOREIGN)
	{
		/* no unique key would say so */
		if (rows->n > 1 && run(table, rel, reach, BCMIG_STMT_TWICE, rows, feed, plans) > 0)
			ereport(ERROR,
					(errcode(ERRCODE_CARDINALITY_VIOLATION),
					 errmsg("two rows of a window have the same key")));
		(void) run(table, rel, reach, BCMIG_STMT_REPLACE, rows, feed, plans);
	}
	return run(table, rel, reach, which, rows, feed, plans);
}

uint64
bcmig_write_elsewhere(const BcmigTableInfo *table, Relation rel, BcmigReach reach, BcmigStatement which,
					  Tuplestorestate *rows, TupleDesc feed, SPIPlanPtr *plans)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "bcmig elsewhere", ALLOCSET_DEFAULT_SIZES);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(feed, &TTSOpsMinimalTuple);
	bool		more = true;
	uint64		processed = 0;

	/* what another server committed before a crash is there when a chunk is repeated */
	if (which == BCMIG_STMT_INSERT)
		which = BCMIG_STMT_UPSERT;
	if (which == BCMIG_STMT_RENAME && reach == BCMIG_REACH_CITUS)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("%s is distributed by Citus, which takes capture change_tracking", table->target_name),
				 errhint("SELECT undistribute_table(%s);", quote_literal_cstr(table->target_name))));

	tuplestore_select_read_pointer(rows, 0);
	tuplestore_rescan(rows);
	while (more)
	{
		MemoryContext oldcontext;
		Rows		batch = {0};
		Size		bytes = 0;

		MemoryContextReset(context);
		oldcontext = MemoryContextSwitchTo(context);
		batch.values = palloc(sizeof(Datum *) * BATCH_ROWS);
		batch.nulls = palloc(sizeof(bool *) * BATCH_ROWS);

		/* a rename returns what it did as one result, so that it is one statement */
		while ((which == BCMIG_STMT_RENAME || (batch.n < BATCH_ROWS && bytes < BATCH_BYTES)) &&
			   (more = tuplestore_gettupleslot(rows, true, false, slot)))
		{
			MinimalTuple copy;
			HeapTupleData tuple;
			Datum	   *values;
			bool	   *nulls;

			CHECK_FOR_INTERRUPTS();
			slot_getallattrs(slot);
			if (!is_for(which, *VARDATA_ANY(DatumGetTextPP(slot->tts_values[FEED_OP]))))
				continue;
			copy = ExecCopySlotMinimalTuple(slot);
			bytes += copy->t_len;
			tuple.t_len = copy->t_len + MINIMAL_TUPLE_OFFSET;
			tuple.t_data = (HeapTupleHeader) ((char *) copy - MINIMAL_TUPLE_OFFSET);
			values = palloc(sizeof(Datum) * feed->natts);
			nulls = palloc(sizeof(bool) * feed->natts);
			heap_deform_tuple(&tuple, feed, values, nulls);
			if (batch.n > 0 && batch.n % BATCH_ROWS == 0)
			{
				batch.values = repalloc(batch.values, sizeof(Datum *) * (batch.n + BATCH_ROWS));
				batch.nulls = repalloc(batch.nulls, sizeof(bool *) * (batch.n + BATCH_ROWS));
			}
			batch.values[batch.n] = values;
			batch.nulls[batch.n++] = nulls;
		}
		if (batch.n > 0)
			processed += write_batch(table, rel, reach, which, &batch, feed, plans);
		MemoryContextSwitchTo(oldcontext);
	}
	ExecDropSingleTupleTableSlot(slot);
	MemoryContextDelete(context);
	return processed;
}
