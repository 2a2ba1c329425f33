-- The readable layer: views for people, made from the catalogue.  Tables and
-- catalogue are filled by hand here, no blue is asked.
SET client_min_messages = warning;
\set VERBOSITY default
SELECT current_database() AS green \gset
GRANT CREATE ON DATABASE :green TO regress_bcmig_owner;
CREATE ROLE regress_bcmig_report;
CREATE SCHEMA rd AUTHORIZATION regress_bcmig_owner;

INSERT INTO bcmig.environment (name, side, server, owner) VALUES ('rd', 'blue', 'regress_blue', 'regress_bcmig_owner');
INSERT INTO bcmig.sync (name, environment_id, owner)
SELECT 'rd', environment_id, 'regress_bcmig_owner' FROM bcmig.environment WHERE name = 'rd';
GRANT EXECUTE ON FUNCTION bcmig.make_views(text) TO regress_bcmig_owner, regress_bcmig_other;

-- a table with its catalogue: each column is source|target|type|AL type
CREATE FUNCTION bc(target_schema text, target_table text, al_table text, VARIADIC columns text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    id integer;
    c text[];
    list text := 'bc_rowversion bigint';
BEGIN
    INSERT INTO bcmig.sync_table (sync_id, source_schema, source_table, target_schema, target_table, feed, capture, made_target, company, al_table)
    SELECT sync_id, 'dbo', target_schema || '$' || target_table, target_schema, target_table, 'none', 'snapshot', true, target_schema, bc.al_table
      FROM bcmig.sync WHERE name = 'rd' RETURNING table_id INTO id;
    FOR i IN 1 .. cardinality(columns) LOOP
        c := string_to_array(columns[i], '|');
        list := list || format(', %I %s', c[2], c[3]);
        INSERT INTO bcmig.column_map (table_id, ordinal, source_column, source_type, native_type, target_column, target_type, al_type)
        VALUES (id, i, c[1], c[3], CASE WHEN c[3] LIKE 'timestamp%' THEN 'datetime' ELSE c[3] END, c[2], c[3], nullif(c[4], ''));
    END LOOP;
    EXECUTE format('CREATE TABLE %I.%I (%s)', target_schema, target_table, list);
    EXECUTE format('ALTER TABLE %I.%I OWNER TO regress_bcmig_owner', target_schema, target_table);
END $$;
CREATE FUNCTION value_names(target_table text, target_column text, VARIADIC names text[]) RETURNS void
LANGUAGE sql AS $$
INSERT INTO bcmig.enum_value
SELECT m.table_id, m.ordinal, n.i - 1, n.name
  FROM bcmig.column_map m JOIN bcmig.sync_table t USING (table_id), unnest(names) WITH ORDINALITY n(name, i)
 WHERE t.target_table = value_names.target_table AND m.target_column = value_names.target_column;
$$;

-- every type, and its edges
SELECT bc('rd', 'every', 'Every', 'No_|no|varchar(20)|Code', 'Day|day|timestamp(3)|Date', 'At Time|at_time|timestamp(3)|Time',
    'At|at|timestamp(3)|DateTime', 'Unknown|unknown|timestamp(3)|', 'Flag|flag|smallint|Boolean', 'Amount|amount|numeric(38,20)|Decimal',
    'Kind|kind|integer|Enum', 'No Names|no_names|integer|Option', 'Formula|formula|varchar(32)|DateFormula', 'Took|took|bigint|Duration',
    'Picture|picture|bytea|BLOB', 'Image|image|uuid|Media', 'Id|id|uuid|GUID', 'Rec|rec|bytea|RecordId', 'Text|text|varchar(50)|Text', 'Big|big|bigint|BigInteger',
    '$systemCreatedAt|system_created_at|timestamp(3)|');
SELECT value_names('every', 'kind', ' ', 'Order', 'It''s "quoted" \', '日本');
INSERT INTO rd.every VALUES
 (1, 'blank', '1753-01-01', '1753-01-01', '1753-01-01', '1753-01-01', 0, 0, 0, 0, '', 0, NULL, '00000000-0000-0000-0000-000000000000', '00000000-0000-0000-0000-000000000000', '\x', '', 0, '1753-01-01'),
 (2, 'lowest', '1754-01-01', '1754-01-01', '1754-01-01', '1754-01-01', 1, -0.5, 1, 1, E'1\x02', 1, '\x02457D5BF348CDC9C90700', '00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-000000000001', '\x000000000000', ' x ', 9223372036854775807, '2026-07-01 12:00:00.003'),
 (3, 'closing', '2026-12-31 23:59:59', '1754-01-01 23:59:59.997', '2026-12-31 23:59:59', '2026-12-31 23:59:59', 1, 100.10, 2, 7, E'\x01\x05+1\x07-10\x03', -86400000, '\x00', NULL, NULL, NULL, NULL, NULL, NULL),
 (4, 'highest', '9999-12-31', '1754-01-01 08:30', '9999-12-31 23:59:59.997', '9999-12-31', 1, 123456789012345678.12345678901234567890, 99, 0, E'2\x06+3\x04', 3661001, '\x', NULL, NULL, NULL, NULL, NULL, NULL),
 (5, 'lowest closing', '1754-01-01 23:59:59', '1754-01-01 00:00:00.003', NULL, NULL, NULL, 0.00000000000000000001, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

SET ROLE regress_bcmig_owner;
SELECT bcmig.make_views('rd');
\d rd_read.every
SET timezone = 'UTC';
SET datestyle = 'ISO';
\x
SELECT * FROM rd_read.every;
\x
