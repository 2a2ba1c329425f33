/*-------------------------------------------------------------------------
 *
 * targets.c
 *	  The green table of a synced table, made or checked, and its feed.
 *
 * Green tables are made and dropped as the owner of the sync, with that
 * role's rights; feeds are made as the owner of schema bcmig and handed over.
 * What blue says never reaches a statement unquoted: names are quoted, types
 * have gone through the parser, defaults are taken apart to their value.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "configure.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "dialect.h"
#include "transform.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "own_write.h"
#include "parser/parse_type.h"
#include "reach.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/numeric.h"
#include "utils/regproc.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"

/*
 * Run one statement as another role, with search_path pg_catalog.
 */
void
bcmig_run_as(Oid role, const char *sql)
{
	Oid			userid;
	int			sec_context;
	int			guc_level;
	int			rc;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	guc_level = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	GetUserIdAndSecContext(&userid, &sec_context);
	SetUserIdAndSecContext(role, sec_context | SECURITY_LOCAL_USERID_CHANGE);
	rc = SPI_execute(sql, false, 0);
	if (rc < 0)
		elog(ERROR, "SPI_execute failed: %s: %s", SPI_result_code_string(rc), sql);
	SetUserIdAndSecContext(userid, sec_context);
	AtEOXact_GUC(true, guc_level);
	SPI_finish();
}

/*
 * The same for a statement that changes or drops a green table, which the fence
 * lets nobody else do.
 */
void
bcmig_change_green(Oid role, const char *target, const char *sql)
{
	bcmig_own_ddl(RangeVarGetRelid(makeRangeVarFromNameList(BCMIG_NAME_LIST(target)), NoLock, true));
	bcmig_run_as(role, sql);
	bcmig_own_write_end();
}

static bool
is_taken(const char *name, List *taken)
{
	ListCell   *lc;

	foreach(lc, taken)
	{
		if (strcmp((char *) lfirst(lc), name) == 0)
			return true;
	}
	return false;
}

/*
 * The name green uses for one of blue's: the same where green can hold it and
 * it is free, else cut on a character boundary, with a hash of the whole.
 */
char *
bcmig_green_name(const char *name, List *taken)
{
	int			len = strlen(name);
	char	   *result = pstrdup(name);

	for (uint32 salt = 0; len >= NAMEDATALEN || is_taken(result, taken); salt++)
	{
		uint32		hash = hash_bytes((const unsigned char *) name, strlen(name)) + salt;
		int			cut = pg_mbcliplen(name, strlen(name), NAMEDATALEN - 10);

		result = psprintf("%.*s_%08x", cut, name, hash);
		len = strlen(result);
	}
	return result;
}

/*
 * The schema a table without one is made in.
 */
static Oid
current_target_schema(BcmigNewTable *new)
{
	List	   *path = fetch_search_path(false);

	if (path == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
				 errmsg("no schema has been selected for the green table"),
				 errhint("SET search_path = bc; or pass target => 'schema.table'.")));
	new->target_schema = get_namespace_name(linitial_oid(path));
	return linitial_oid(path);
}

/*
 * Where the rows go: target_schema, target_table, and target when that table
 * is there.  Name look-up is the caller's own.
 */
void
bcmig_find_target(BcmigNewTable *new, const char *target)
{
	BcmigCatalogScope scope;
	Oid			nspid;

	if (target == NULL)
	{
		nspid = current_target_schema(new);
		new->target_table = bcmig_green_name(new->source_table, NIL);
		new->target = get_relname_relid(new->target_table, nspid);
	}
	else
	{
		char	   *copy = pstrdup(target);
		List	   *parts;

		if (!SplitIdentifierString(copy, '.', &parts) || list_length(parts) < 1 || list_length(parts) > 2)
			ereport(ERROR,
					(errcode(ERRCODE_BM_OPTION),
					 errmsg("target \"%s\" is no table name", target),
					 errhint("Write schema.table, with double quotes around names that need them: '\"My schema\".\"My table\"'.")));
		new->target_table = llast(parts);
		if (list_length(parts) == 2)
		{
			new->target_schema = linitial(parts);
			nspid = get_namespace_oid(new->target_schema, true);
			if (!OidIsValid(nspid))
				ereport(ERROR,
						(errcode(ERRCODE_BM_UNKNOWN_OBJECT),
						 errmsg("schema \"%s\" does not exist", new->target_schema),
						 errhint("CREATE SCHEMA %s AUTHORIZATION %s;", quote_identifier(new->target_schema),
								 quote_identifier(GetUserNameFromId(new->sync->owner, false)))));
			new->target = get_relname_relid(new->target_table, nspid);
		}
		else
		{
			new->target = RelnameGetRelid(new->target_table);
			if (OidIsValid(new->target))
				new->target_schema = get_namespace_name(get_rel_namespace(new->target));
			else
				(void) current_target_schema(new);
		}
	}

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT s.name FROM bcmig.sync_table t JOIN bcmig.sync s USING (sync_id) "
				  "WHERE t.target_schema = $1 AND t.target_table = $2",
				  "tt", new->target_schema, new->target_table) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("table %s is already a target of sync \"%s\"",
						quote_qualified_identifier(new->target_schema, new->target_table),
						bcmig_get_text(0, 1)),
				 errhint("SELECT bcmig_remove_table(%s, %s); or pass another target.",
						 quote_literal_cstr(bcmig_get_text(0, 1)),
						 quote_literal_cstr(quote_qualified_identifier(new->target_schema, new->target_table)))));
	bcmig_catalog_end(&scope);

	if (target == NULL && OidIsValid(new->target))
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("table %s exists already",
						quote_qualified_identifier(new->target_schema, new->target_table)),
				 errhint("Pass target => %s to fill that table.",
						 quote_literal_cstr(quote_qualified_identifier(new->target_schema, new->target_table)))));
	if (strcmp(new->target_schema, "bcmig") == 0 || strcmp(new->target_schema, "information_schema") == 0 ||
		IsCatalogNamespace(get_namespace_oid(new->target_schema, false)))
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("schema \"%s\" is not for green tables", new->target_schema),
				 errhint("Pass target => 'schema.table' with a schema of yours.")));
}

/*
 * A part of a character, numeric, timestamp or bit type is at least as wide.
 */
static bool
modifier_fits(Oid type, int32 from, int32 to)
{
	int			from_precision;
	int			from_scale;
	int			to_precision;
	int			to_scale;

	if (to < 0 || from == to)
		return true;
	switch (type)
	{
		case VARCHAROID:
		case BPCHAROID:
		case BITOID:
		case VARBITOID:
			/* bit(n) takes nothing but n bits */
			return from >= 0 && to >= from && type != BITOID;
		case NUMERICOID:
			if (from < 0)
				return false;
			from_precision = ((from - VARHDRSZ) >> 16) & 0xffff;
			from_scale = (((from - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
			to_precision = ((to - VARHDRSZ) >> 16) & 0xffff;
			to_scale = (((to - VARHDRSZ) & 0x7ff) ^ 1024) - 1024;
			return to_scale >= from_scale && to_precision - to_scale >= from_precision - from_scale;
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return to >= (from < 0 ? MAX_TIMESTAMP_PRECISION : from);
		default:
			return false;
	}
}

/*
 * Every value of type "from" is one of type "to", and looks the same there.
 */
static bool
type_fits(Oid from, int32 from_mod, Oid to, int32 to_mod)
{
	if (from == to)
		return modifier_fits(from, from_mod, to_mod);
	switch (to)
	{
		case INT4OID:
			return from == INT2OID;
		case INT8OID:
			return from == INT2OID || from == INT4OID;
		case FLOAT8OID:
			return from == FLOAT4OID;
		case NUMERICOID:
			return to_mod < 0 && (from == INT2OID || from == INT4OID || from == INT8OID);
		case TEXTOID:
			return from == VARCHAROID;
		case VARCHAROID:
			return from == TEXTOID && to_mod < 0;
		default:
			return false;
	}
}

bool
bcmig_type_fits(const char *from, const char *to)
{
	Oid			from_type;
	Oid			to_type;
	int32		from_mod;
	int32		to_mod;

	parseTypeString(from, &from_type, &from_mod, false);
	parseTypeString(to, &to_type, &to_mod, false);
	return type_fits(from_type, from_mod, to_type, to_mod);
}

/*
 * Columns of an existing target: fills columns[].target_type, or names
 * everything that does not fit.
 */
static void
check_target_columns(BcmigNewTable *new, Relation rel, const char *name)
{
	StringInfoData bad;
	StringInfoData fix;
	TupleDesc	desc = RelationGetDescr(rel);
	bool	   *mapped = palloc0(sizeof(bool) * desc->natts);
	BcmigCatalogScope scope;
	MemoryContext caller = CurrentMemoryContext;

	initStringInfo(&bad);
	initStringInfo(&fix);
	bcmig_catalog_begin(&scope);	/* types are spelled for search_path pg_catalog */
	MemoryContextSwitchTo(caller);
	for (int i = 0; i < new->ncolumns; i++)
	{
		BcmigColumn *c = &new->columns[i];
		AttrNumber	attnum = get_attnum(RelationGetRelid(rel), c->target);
		Form_pg_attribute att;
		Oid			from;
		int32		from_mod;

		if (attnum <= 0)
		{
			appendStringInfo(&bad, "%sColumn \"%s\" is missing.", bad.len ? " " : "", c->target);
			appendStringInfo(&fix, "%s ADD COLUMN %s %s", fix.len ? "," : "",
							 quote_identifier(c->target), c->source_type);
			continue;
		}
		att = TupleDescAttr(desc, attnum - 1);
		mapped[attnum - 1] = true;
		c->target_type = format_type_with_typemod(att->atttypid, att->atttypmod);
		parseTypeString(c->source_type, &from, &from_mod, false);
		if (att->attgenerated != '\0')
			appendStringInfo(&bad, "%sColumn \"%s\" is generated.", bad.len ? " " : "", c->target);
		else if (!type_fits(from, from_mod, att->atttypid, att->atttypmod))
		{
			appendStringInfo(&bad, "%sColumn \"%s\" has type %s, which cannot hold every %s of blue.",
							 bad.len ? " " : "", c->target, c->target_type, c->source_type);
			appendStringInfo(&fix, "%s ALTER COLUMN %s TYPE %s", fix.len ? "," : "",
							 quote_identifier(c->target), c->source_type);
		}
	}
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped || mapped[i])
			continue;
		if (strcmp(NameStr(att->attname), "bc_rowversion") == 0)
		{
			if (att->atttypid != INT8OID)
				appendStringInfo(&bad, "%sColumn \"bc_rowversion\" is not bigint.", bad.len ? " " : "");
		}
		else if (att->attnotnull && !att->atthasdef && att->attidentity == '\0')
		{
			appendStringInfo(&bad, "%sColumn \"%s\" is NOT NULL, has no default, and does not exist on blue.",
							 bad.len ? " " : "", NameStr(att->attname));
			appendStringInfo(&fix, "%s ALTER COLUMN %s DROP NOT NULL", fix.len ? "," : "",
							 quote_identifier(NameStr(att->attname)));
		}
	}
	bcmig_catalog_end(&scope);

	if (bad.len > 0)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("table %s does not fit %s.%s of blue", name,
						quote_identifier(new->source_schema), quote_identifier(new->source_table)),
				 errdetail("%s", bad.data),
				 fix.len ? errhint("ALTER TABLE %s%s;", name, fix.data) : 0));
}

/* names on green of the key's columns, or of all */
static const char **
target_names(BcmigNewTable *new, bool key)
{
	const char **names = palloc(sizeof(char *) * Max(new->ncolumns, 1));
	int			n = 0;

	for (int i = 0; i < new->ncolumns; i++)
	{
		if (!key || new->columns[i].key_position > 0)
			names[n++] = new->columns[i].target;
	}
	return names;
}

/*
 * An existing table as target: ours to write, something that holds rows, wide
 * enough, with the key, or where a key cannot be, with all that makes up for it
 * (reach.c).  Holds its lock until the end of the transaction.
 */
void
bcmig_check_target(BcmigNewTable *new)
{
	Relation	rel = table_open(new->target, AccessShareLock);
	char	   *name = pstrdup(quote_qualified_identifier(new->target_schema, new->target_table));
	char	   *owner = GetUserNameFromId(new->sync->owner, false);
	const char **keys = target_names(new, true);

	if (rel->rd_rel->relkind != RELKIND_RELATION && rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE &&
		rel->rd_rel->relkind != RELKIND_FOREIGN_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("%s is no plain, partitioned or foreign table", name),
				 rel->rd_rel->relkind == RELKIND_VIEW ?
				 errdetail("A view has no key, and its INSTEAD OF triggers do not fire for bcmig, which writes as replication does: every row would be lost.") : 0,
				 errhint("Pass another target, or none to have the table made.")));
	if (!has_privs_of_role(new->sync->owner, rel->rd_rel->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("table %s belongs to role \"%s\"", name,
						GetUserNameFromId(rel->rd_rel->relowner, false)),
				 errdetail("Sync \"%s\" works as role \"%s\", which must own its targets.", new->sync->name, owner),
				 errhint("ALTER TABLE %s OWNER TO %s;", name, quote_identifier(owner))));
	if (rel->rd_rel->relpersistence != RELPERSISTENCE_PERMANENT)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("table %s is not permanent", name),
				 errdetail("A crash would empty it, while its position says it is complete."),
				 errhint("ALTER TABLE %s SET LOGGED;", name)));
	check_target_columns(new, rel, name);
	bcmig_check_reach(rel, new->sync->owner, name, new->capture, new->nkeys, keys, new->ncolumns, target_names(new, false));
	if (new->nkeys > 0 && bcmig_reach(rel) != BCMIG_REACH_FOREIGN && !OidIsValid(bcmig_unique_index(rel, new->nkeys, keys)))
	{
		StringInfoData list;

		initStringInfo(&list);
		for (int k = 1; k <= new->nkeys; k++)
		{
			for (int i = 0; i < new->ncolumns; i++)
			{
				if (new->columns[i].key_position == k)
					appendStringInfo(&list, "%s%s", k > 1 ? ", " : "",
									 quote_identifier(new->columns[i].target));
			}
		}
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("table %s has no unique key on the key columns of blue", name),
				 errdetail("Needed is a primary key or unique index, not deferrable and not partial, on (%s).", list.data),
				 errhint("ALTER TABLE %s ADD PRIMARY KEY (%s);", name, list.data)));
	}
	table_close(rel, NoLock);
}

/* the key's columns, quoted */
static char *
key_list(const BcmigTableInfo *table)
{
	StringInfoData keys;

	initStringInfo(&keys);
	for (int k = 0; k < table->nkeys; k++)
		appendStringInfo(&keys, "%s%s", k > 0 ? ", " : "", quote_identifier(table->columns[table->keys[k]].target));
	return keys.data;
}

/*
 * Make the green table, as the owner of the sync.
 */
void
bcmig_make_target(const BcmigTableInfo *table)
{
	StringInfoData sql;
	BcmigCatalogScope scope;
	bool		may_create;
	char	   *owner = GetUserNameFromId(table->owner, false);

	bcmig_catalog_begin(&scope);
	may_create = bcmig_sql("SELECT 1 FROM pg_namespace n WHERE n.nspname = $2 "
						   "AND has_schema_privilege($1::oid, n.oid, 'CREATE') AND has_schema_privilege($1::oid, n.oid, 'USAGE')",
						   "ot", table->owner, table->target_schema) > 0;
	bcmig_catalog_end(&scope);
	if (!may_create)
		ereport(ERROR,
				(errcode(ERRCODE_BM_UNSUITABLE),
				 errmsg("role \"%s\" may not create tables in schema \"%s\"", owner, table->target_schema),
				 errhint("GRANT USAGE, CREATE ON SCHEMA %s TO %s;",
						 quote_identifier(table->target_schema), quote_identifier(owner))));

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE TABLE %s (bc_rowversion bigint", table->target_name);
	for (int i = 0; i < table->ncolumns; i++)
	{
		const BcmigColumn *c = &table->columns[i];

		if (c->transform == BCMIG_DROP)
			continue;
		appendStringInfo(&sql, ", %s %s%s", quote_identifier(c->target), c->target_type,
						 c->not_null && !bcmig_may_give_null(c) ? " NOT NULL" : "");
		if (c->default_value != NULL && c->transform == BCMIG_AS_IS)
			appendStringInfo(&sql, " DEFAULT %s", quote_literal_cstr(c->default_value));
	}
	if (table->nkeys > 0)
		appendStringInfo(&sql, ", PRIMARY KEY (%s)", key_list(table));
	appendStringInfoChar(&sql, ')');

	/*
	 * The name was free when the table was added.  Another session that makes
	 * the same table is waited for by the catalogue's unique index.
	 */
	PG_TRY();
	{
		bcmig_run_as(table->owner, sql.data);
	}
	PG_CATCH();
	{
		int			code = geterrcode();

		if (code != ERRCODE_UNIQUE_VIOLATION && code != ERRCODE_DUPLICATE_TABLE)
			PG_RE_THROW();
		FlushErrorState();
		ereport(ERROR,
				(errcode(ERRCODE_BM_DUPLICATE),
				 errmsg("table %s has been made by somebody else", table->target_name),
				 errhint("Rename or drop it; or remove the table from the sync and add it again with this target.")));
	}
	PG_END_TRY();
}

/* windows look for rows whose key was renamed by it (apply.c), so the time they take must not grow with the table */
static const BcmigColumn *
identity_to_look_for(const BcmigNewTable *new)
{
	if (strcmp(new->capture, "rowversion") != 0)
		return NULL;
	for (int i = 0; i < new->ncolumns; i++)
	{
		if (new->columns[i].row_identity && new->columns[i].key_position != 1)
			return &new->columns[i];
	}
	return NULL;
}

/*
 * Secondary indexes the engine is to build: those of the base whose columns all
 * come across, and one to look for renamed rows by, which BC has on blue.
 */
void
bcmig_choose_indexes(BcmigNewTable *new)
{
	const BcmigColumn *identity = identity_to_look_for(new);
	StringInfoData json;
	ListCell   *lc;

	initStringInfo(&json);
	foreach(lc, new->blue->indexes)
	{
		BcmigBlueIndex *index = (BcmigBlueIndex *) lfirst(lc);
		StringInfoData columns;
		ListCell   *cell;
		int			mapped = 0;

		if (identity != NULL && strcmp(linitial(index->columns), identity->source) == 0)
			identity = NULL;

		initStringInfo(&columns);
		foreach(cell, index->columns)
		{
			for (int i = 0; i < new->ncolumns; i++)
			{
				if (new->columns[i].part > 0 || strcmp(new->columns[i].source, (char *) lfirst(cell)) != 0)
					continue;
				if (mapped++ > 0)
					appendStringInfoString(&columns, ", ");
				escape_json(&columns, new->columns[i].source);
			}
		}
		if (mapped == list_length(index->columns))
			appendStringInfo(&json, "%s{\"columns\": [%s], \"unique\": %s}", json.len > 0 ? ", " : "",
							 columns.data, index->unique ? "true" : "false");
	}
	if (identity != NULL)
	{
		appendStringInfo(&json, "%s{\"columns\": [", json.len > 0 ? ", " : "");
		escape_json(&json, identity->source);
		appendStringInfoString(&json, "], \"unique\": false}");
	}
	new->indexes = psprintf("[%s]", json.data);
}

/*
 * The row feed of a table.  Inside a catalogue scope.
 */
void
bcmig_make_feed(const BcmigTableInfo *table)
{
	StringInfoData sql;
	char	   *server;

	bcmig_sql("SELECT server FROM bcmig.environment WHERE environment_id = $1", "i", table->environment_id);
	server = bcmig_get_text(0, 1);
	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE FOREIGN TABLE bcmig.%s (bc_op text, bc_rowversion bigint", quote_identifier(table->feed));
	for (int i = 0; i < table->ncolumns; i++)
		appendStringInfo(&sql, ", %s %s", quote_identifier(table->columns[i].target),
						 table->columns[i].source_type);
	appendStringInfo(&sql, ") SERVER %s OPTIONS (%s)", quote_identifier(server),
					 bcmig_dialect_of_server(get_foreign_server_oid(server, false))->feed_options(table->feed));
	SPI_execute(sql.data, false, 0);
	SPI_execute(psprintf("ALTER FOREIGN TABLE bcmig.%s OWNER TO %s", quote_identifier(table->feed),
						 quote_identifier(GetUserNameFromId(table->owner, false))), false, 0);
}

void
bcmig_compress_target(int table_id)
{
	MemoryContext caller = CurrentMemoryContext;
	BcmigCatalogScope scope;
	char	   *sql = NULL;
	char	   *target = NULL;
	Oid			owner = InvalidOid;

	bcmig_catalog_begin(&scope);
	if (bcmig_sql("SELECT s.owner::oid, a.attrelid::regclass::text, format('ALTER TABLE %s %s', a.attrelid::regclass, string_agg(format('ALTER COLUMN %I SET COMPRESSION %s', a.attname, "
				  " CASE o.value WHEN 'auto' THEN 'default' ELSE o.value END), ', ')) "
				  "FROM bcmig.sync_table t JOIN bcmig.sync s USING (sync_id) "
				  "JOIN bcmig.effective_option o ON o.table_id = t.table_id AND o.name = 'compression' "
				  "JOIN pg_class c ON c.oid = to_regclass(format('%I.%I', t.target_schema, t.target_table)) AND c.relkind IN ('r', 'p') "
				  "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attstorage IN ('x', 'm') "
				  " AND a.attcompression <> CASE o.value WHEN 'lz4' THEN 'l' WHEN 'pglz' THEN 'p' ELSE '' END "
				  "WHERE t.table_id = $1 GROUP BY s.owner, a.attrelid", "i", table_id) > 0)
	{
		MemoryContextSwitchTo(caller);
		owner = bcmig_get_int64(0, 1, 0);
		target = bcmig_get_text(0, 2);
		sql = bcmig_get_text(0, 3);
	}
	bcmig_catalog_end(&scope);
	if (sql != NULL)
		bcmig_change_green(owner, target, sql);
}
