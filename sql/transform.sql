-- What may be written as a transform or row filter, and what becomes of the
-- green table; no row is read.
RESET ROLE;
SELECT current_database() AS green \gset
\c regress_bcmig_blue
CREATE TABLE "Item" ("No_" integer NOT NULL, "Line" integer NOT NULL, "Name" varchar(50) NOT NULL DEFAULT 'none', "Name 2" varchar(50), "Blank" timestamp(3) NOT NULL,
    "Maybe" timestamp(3), "Flag" smallint NOT NULL DEFAULT 0, "Amount" numeric(38,20) NOT NULL, "$systemId" uuid NOT NULL, row text, PRIMARY KEY ("No_", "Line"));
GRANT SELECT ON "Item" TO regress_bcmig_reader;
\c :green
SET ROLE regress_bcmig_owner;
SET search_path = regress_green, public;
SELECT bcmig_add_environment('tf', 'blue', 'regress_blue');
SELECT bcmig_create_sync('tf', 'tf');
SELECT bcmig_add_table('tf', 'Item', 'item');

-- no transform at all
SELECT bcmig_map_column('tf', 'item', 'Name', NULL);
SELECT bcmig_map_column('tf', 'item', 'Name', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_map_column('tf', 'item', 'Name', '"trim"');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"renam": "x"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_map_column('tf', 'item', 'Name', '{"drop": false}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"drop": true, "rename": "x"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"constant": "x", "sql": "1"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"constant": [1]}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": ""}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"rename": null}');

-- no such thing
SELECT bcmig_map_column('tf', 'item', 'name', '{"builtin": "trim"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_map_column('tf', 'item', 'Nothing like it', '{"builtin": "trim"}');
SELECT bcmig_map_column('tf', 'itm', 'Name', '{"builtin": "trim"}');
SELECT bcmig_map_column('tg', 'item', 'Name', '{"builtin": "trim"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"builtin": "trin"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"builtin": ["trim", "nonsense"]}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"builtin": []}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"builtin": {"trim": true}}');
SELECT bcmig_unmap_column('tf', 'item', 'Nam');

-- not for this column
SELECT bcmig_map_column('tf', 'item', 'No_', '{"drop": true}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_map_column('tf', 'item', 'Line', '{"sql": "\"Line\" + 1"}');
SELECT bcmig_map_column('tf', 'item', '$systemId', '{"drop": true}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"builtin": "blank_date"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_map_column('tf', 'item', 'Amount', '{"builtin": "boolean"}');
SELECT bcmig_map_column('tf', 'item', 'Blank', '{"builtin": ["utc", "utc"]}');
SELECT bcmig_map_column('tf', 'item', 'Flag', '{"constant": "many"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"constant": "012345678901234567890123456789012345678901234567890"}');
\echo :LAST_ERROR_SQLSTATE

-- names
SELECT bcmig_map_column('tf', 'item', 'Name', '{"rename": "Flag"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_map_column('tf', 'item', 'Name', '{"rename": "bc_rowversion"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"rename": "ctid"}');
SELECT bcmig_map_column('tf', 'item', 'Name', format('{"rename": "%s"}', repeat('ä', 32))::jsonb);
\echo :LAST_ERROR_SQLSTATE

-- expressions
CREATE FUNCTION regress_green.vol(text) RETURNS text LANGUAGE sql VOLATILE AS 'SELECT $1';
CREATE FUNCTION regress_green.sta(text) RETURNS text LANGUAGE sql STABLE AS 'SELECT $1';
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "regress_green.vol(\"Name\")"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "random()::text"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "coalesce(\"Name\", current_user)"}');
SELECT bcmig_map_column('tf', 'item', 'Blank', '{"sql": "now()"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "(SELECT 1)"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "EXISTS (SELECT FROM pg_class)"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "max(\"Name\")"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "row_number() OVER ()"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "generate_series(1, 2)"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "\"Name\", \"Flag\""}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "\"Name\" FROM pg_class"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "\"Name\"); DROP TABLE item; --"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "\"Name\" /*"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "\"Name\" AS x"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "\"Nane\""}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "name"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "other.\"Name\""}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "no_such_function(\"Name\")"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "ROW(1, 2)"}');
SELECT bcmig_map_column('tf', 'item', 'row', '{"sql": "\"row\".*::text"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "$1"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "1 / 0"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "sta(\"Name\")"}');
RESET ROLE;
REVOKE EXECUTE ON FUNCTION regress_green.sta(text) FROM PUBLIC, regress_bcmig_owner;
ALTER FUNCTION regress_green.sta(text) OWNER TO regress_bcmig_dba;
SET ROLE regress_bcmig_owner;
SELECT bcmig_map_column('tf', 'item', 'Name', '{"sql": "regress_green.sta(\"Name\")"}');

-- row filters
SELECT bcmig_alter_table('tf', 'item', '{"row_filter": "\"Flg\" = 1"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_alter_table('tf', 'item', '{"row_filter": "\"Flag\""}');
SELECT bcmig_alter_table('tf', 'item', '{"row_filter": "\"Name\" = regress_green.vol(\"Name\")"}');
SELECT bcmig_alter_table('tf', 'item', '{"row_filter": ""}');
SELECT bcmig_add_table('tf', 'entry', 'filtered_entry', '{"row_filter": "nott IS NULL"}');

-- another role
SET ROLE regress_bcmig_other;
SELECT bcmig_map_column('tf', 'item', 'Name', '{"drop": true}');
SELECT bcmig_unmap_column('tf', 'item', 'Name');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_bcmig_owner;

-- nothing of all this has left a trace
SELECT source_column, target_column, target_type, transform, plain_column FROM bcmig.column_map JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'item' ORDER BY ordinal;
SELECT mapping, options FROM bcmig.sync_table WHERE target_table = 'item';

-- what is right
SELECT bcmig_map_column('tf', 'item', c, t::jsonb) FROM (VALUES
    ('No_', '{"rename": "number"}'), ('Name', '{"rename": "title", "builtin": ["trim", "blank_text"]}'), ('Name 2', '{"drop": true}'),
    ('Blank', '{"builtin": ["blank_date", "utc"]}'), ('Maybe', '{"constant": null}'), ('Flag', '{"rename": "is it?", "builtin": "boolean"}'),
    ('Amount', '{"sql": "trunc(row.\"Amount\")::integer + length(row.row)"}'), ('row', '{"sql": "concat(\"Name\", ''--'', \"Name 2\") -- it''s all"}')) v(c, t);
\d item
SELECT source_column, target_column, target_type, transform, plain_column FROM bcmig.column_map JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'item' ORDER BY ordinal;
SELECT string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
  FROM pg_attribute a JOIN bcmig.sync_table t ON a.attrelid = format('bcmig.%I', t.feed)::regclass
 WHERE t.target_table = 'item' AND a.attnum > 0;
-- it is a transaction
BEGIN;
SELECT bcmig_map_column('tf', 'item', 'Name', '{"drop": true}');
ROLLBACK;
-- a name that has become free, and one that has not
SELECT bcmig_map_column('tf', 'item', 'Flag', '{"rename": "Name"}');
SELECT bcmig_map_column('tf', 'item', 'Name', '{"builtin": "trim"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_map_column('tf', 'item', 'Flag', '{"rename": "title"}');
SELECT bcmig_map_column('tf', 'item', 'Flag', '{"rename": "Flag"}');
-- and all back again
SELECT bcmig_unmap_column('tf', 'item', source_column) FROM (SELECT source_column FROM bcmig.column_map JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'item' ORDER BY ordinal) x;
\d item
SELECT count(*) FROM bcmig.column_map JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'item' AND (transform IS NOT NULL OR plain_column IS NOT NULL OR target_column <> source_column OR source_type <> target_type);
-- a filter is set, changed, taken away
SELECT bcmig_alter_table('tf', 'item', '{"row_filter": "\"Flag\" = 1 AND row.row IS NOT NULL -- only those"}');
SELECT options FROM bcmig.sync_table WHERE target_table = 'item';
SELECT bcmig_alter_table('tf', 'item', '{"row_filter": null}');
SELECT options, mapping > 10 AS counted FROM bcmig.sync_table WHERE target_table = 'item';
-- pending still: there was nothing to read again
SELECT state FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'item';
SELECT count(*) FROM bcmig_drop_sync('tf', true);
SELECT bcmig_remove_environment('tf');
DROP FUNCTION vol(text);
RESET ROLE;
DROP FUNCTION regress_green.sta(text);
\c regress_bcmig_blue
DROP TABLE "Item";
\c :green
