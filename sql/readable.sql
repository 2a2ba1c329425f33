-- The readable layer: views for people, made from the catalogue.  Tables and
-- catalogue are filled by hand here, no blue is asked.
SET client_min_messages = warning;
\set VERBOSITY default
\pset null '(null)'
SELECT current_database() AS green \gset
CREATE ROLE regress_rd_owner;
CREATE ROLE regress_rd_other;
CREATE ROLE regress_rd_report;
CREATE ROLE regress_rd_nobody;
GRANT CREATE ON DATABASE :green TO regress_rd_owner;
GRANT USAGE ON SCHEMA bcmig TO regress_rd_owner, regress_rd_other;
CREATE SCHEMA rd AUTHORIZATION regress_rd_owner;

INSERT INTO bcmig.environment (name, side, server, owner) VALUES ('rd', 'blue', 'none', 'regress_rd_owner');
INSERT INTO bcmig.sync (name, environment_id, owner)
SELECT 'rd', environment_id, 'regress_rd_owner' FROM bcmig.environment WHERE name = 'rd';
GRANT EXECUTE ON FUNCTION bcmig.make_views(text) TO regress_rd_owner, regress_rd_other;

-- a table with its catalogue: each column is source|target|type|AL type|part
CREATE FUNCTION bc(target_schema text, target_table text, al_table text, VARIADIC columns text[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    id integer;
    c text[];
    list text := 'bc_rowversion bigint';
BEGIN
    INSERT INTO bcmig.sync_table (sync_id, source_schema, source_table, target_schema, target_table, feed, capture, made_target, company, al_table, naming)
    SELECT sync_id, 'dbo', target_schema || '$' || target_table, target_schema, target_table, 'none', 'snapshot', true, CASE WHEN target_schema LIKE 'rd_' THEN 'rd' ELSE target_schema END, bc.al_table,
           CASE WHEN target_table = lower(target_table) THEN 'snake' ELSE 'source' END
      FROM bcmig.sync WHERE name = 'rd' RETURNING table_id INTO id;
    FOR i IN 1 .. cardinality(columns) LOOP
        c := string_to_array(columns[i], '|');
        list := list || format(', %I %s', c[2], c[3]);
        INSERT INTO bcmig.column_map (table_id, ordinal, source_column, source_type, native_type, target_column, target_type, al_type, part)
        VALUES (id, i, c[1], c[3], CASE WHEN c[3] LIKE 'timestamp%' THEN 'datetime' ELSE c[3] END, c[2], c[3], nullif(c[4], ''), coalesce(c[5]::int, 0));
    END LOOP;
    EXECUTE format('CREATE TABLE %I.%I (%s)', target_schema, target_table, list);
    EXECUTE format('ALTER TABLE %I.%I OWNER TO regress_rd_owner', target_schema, target_table);
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
 (6, 'no closing', '2026-12-31 23:59:59.003', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
 (5, 'lowest closing', '1754-01-01 23:59:59', '1754-01-01 00:00:00.003', NULL, NULL, NULL, 0.00000000000000000001, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);

SET ROLE regress_rd_owner;
SELECT bcmig.make_views('rd');
\d rd_read.every
SET timezone = 'UTC';
SET datestyle = 'ISO';
\x
SELECT * FROM rd_read.every;
\x
RESET ROLE;
SELECT a.attname, col_description(a.attrelid, a.attnum) FROM pg_attribute a
 WHERE a.attrelid = 'rd_read.every'::regclass AND col_description(a.attrelid, a.attnum) IS NOT NULL ORDER BY a.attnum;
SELECT obj_description('rd_read.every'::regclass), obj_description('rd_read'::regnamespace), relowner::regrole FROM pg_class WHERE oid = 'rd_read.every'::regclass;

-- a small set of books
SELECT bc('rd', 'g_l_account', 'G_L Account', 'No_|no|varchar(20)|Code', 'Totaling|totaling|varchar(250)|Text');
SELECT bc('rd', 'g_l_entry', 'G_L Entry', 'Entry No_|entry_no|integer|Integer', 'G_L Account No_|g_l_account_no|varchar(20)|Code',
    'Posting Date|posting_date|timestamp(3)|Date', 'Amount|amount|numeric(38,20)|Decimal', 'Debit Amount|debit_amount|numeric(38,20)|Decimal',
    'Credit Amount|credit_amount|numeric(38,20)|Decimal', 'Global Dimension 1 Code|global_dimension_1_code|varchar(20)|Code',
    'Dimension Set ID|dimension_set_id|integer|Integer');
SELECT bc('rd', 'dimension_set_entry', 'Dimension Set Entry', 'Dimension Set ID|dimension_set_id|integer|Integer', 'Dimension Code|dimension_code|varchar(20)|Code',
    'Dimension Value Code|dimension_value_code|varchar(20)|Code', 'Global Dimension No_|global_dimension_no|integer|Integer');
SELECT bc('rd', 'comment_line', 'Comment Line', 'Table Name|table_name|integer|Enum', 'No_|no|varchar(20)|Code', 'Line No_|line_no|integer|Integer');
SELECT value_names('comment_line', 'table_name', 'G/L Account', 'Customer', 'Vendor', 'Item');
SELECT bc('rd', 'customer', 'Customer', 'No_|no|varchar(20)|Code');
SELECT bc('rd', 'cust_ledger_entry', 'Cust_ Ledger Entry', 'Entry No_|entry_no|integer|Integer', 'Customer No_|customer_no|varchar(20)|Code',
    'Sales (LCY)|sales_lcy|numeric(38,20)|Decimal', 'Profit (LCY)|profit_lcy|numeric(38,20)|Decimal');
SELECT bc('rd', 'detailed_cust_ledg_entry', 'Detailed Cust_ Ledg_ Entry', 'Entry No_|entry_no|integer|Integer', 'Cust_ Ledger Entry No_|cust_ledger_entry_no|integer|Integer',
    'Customer No_|customer_no|varchar(20)|Code', 'Entry Type|entry_type|integer|Enum', 'Initial Document Type|initial_document_type|integer|Enum',
    'Posting Date|posting_date|timestamp(3)|Date', 'Initial Entry Due Date|initial_entry_due_date|timestamp(3)|Date', 'Amount|amount|numeric(38,20)|Decimal',
    'Amount (LCY)|amount_lcy|numeric(38,20)|Decimal', 'Ledger Entry Amount|ledger_entry_amount|smallint|Boolean',
    'Excluded from calculation|excluded_from_calculation|smallint|Boolean');
SELECT bc('rd', 'vendor', 'Vendor', 'No_|no|varchar(20)|Code');
SELECT bc('rd', 'vendor_ledger_entry', 'Vendor Ledger Entry', 'Entry No_|entry_no|integer|Integer');
SELECT bc('rd', 'detailed_vendor_ledg_entry', 'Detailed Vendor Ledg_ Entry', 'Vendor Ledger Entry No_|vendor_ledger_entry_no|integer|Integer',
    'Vendor No_|vendor_no|varchar(20)|Code', 'Entry Type|entry_type|integer|Enum', 'Amount|amount|numeric(38,20)|Decimal',
    'Amount (LCY)|amount_lcy|numeric(38,20)|Decimal', 'Ledger Entry Amount|ledger_entry_amount|smallint|Boolean');
SELECT bc('rd', 'item', 'Item', 'No_|no|varchar(20)|Code');
SELECT bc('rd', 'item_ledger_entry', 'Item Ledger Entry', 'Entry No_|entry_no|integer|Integer', 'Item No_|item_no|varchar(20)|Code',
    'Quantity|quantity|numeric(38,20)|Decimal', 'Invoiced Quantity|invoiced_quantity|numeric(38,20)|Decimal');
SELECT bc('rd', 'value_entry', 'Value Entry', 'Item Ledger Entry No_|item_ledger_entry_no|integer|Integer', 'Cost Amount (Actual)|cost_amount_actual|numeric(38,20)|Decimal',
    'Cost Amount (Expected)|cost_amount_expected|numeric(38,20)|Decimal', 'Sales Amount (Actual)|sales_amount_actual|numeric(38,20)|Decimal');
SELECT bc('rd', 'sales_header', 'Sales Header', 'Document Type|document_type|integer|Enum', 'No_|no|varchar(20)|Code',
    'Shortcut Dimension 1 Code|shortcut_dimension_1_code|varchar(20)|Code', 'Shortcut Dimension 4 Code|shortcut_dimension_4_code|varchar(20)|Code',
    'Dimension Set ID|dimension_set_id|integer|Integer');
SELECT bc('rd', 'sales_line', 'Sales Line', 'Document Type|document_type|integer|Enum', 'Document No_|document_no|varchar(20)|Code', 'Type|type|integer|Enum',
    'No_|no|varchar(20)|Code', 'Bill-to Customer No_|bill_to_customer_no|varchar(20)|Code', 'Amount|amount|numeric(38,20)|Decimal',
    'Amount Including VAT|amount_including_vat|numeric(38,20)|Decimal', 'Outstanding Amount (LCY)|outstanding_amount_lcy|numeric(38,20)|Decimal',
    'Outstanding Qty_ (Base)|outstanding_qty_base|numeric(38,20)|Decimal');
-- lacks "Outstanding Qty. (Base)": no Item."Qty. on Purch. Order"
SELECT bc('rd', 'purchase_line', 'Purchase Line', 'Document Type|document_type|integer|Enum', 'Type|type|integer|Enum', 'No_|no|varchar(20)|Code');
SELECT bc('rd', 'sales_invoice_header', 'Sales Invoice Header', 'No_|no|varchar(20)|Code', 'Cust_ Ledger Entry No_|cust_ledger_entry_no|integer|Integer');
SELECT bc('rd', 'sales_invoice_line', 'Sales Invoice Line', 'Document No_|document_no|varchar(20)|Code', 'Amount|amount|numeric(38,20)|Decimal');
SELECT bc('rd', 'bank_account', 'Bank Account', 'No_|no|varchar(20)|Code');
SELECT bc('rd', 'bank_account_ledger_entry', 'Bank Account Ledger Entry', 'Bank Account No_|bank_account_no|varchar(20)|Code', 'Amount|amount|numeric(38,20)|Decimal');

INSERT INTO rd.g_l_account (no, totaling) VALUES ('1000', ''), ('10000', ''), ('1500', ''), ('1999', ''), ('2000', ''), ('2100', ''), ('A', ''), ('empty', ''),
    ('T1', '1000..1999|2100'), ('T2', ' 1000 .. 1500 | 1400..1999'), ('T3', '..1500'), ('T4', '2000..'), ('T5', ' 1500 '), ('T6', '1*'),
    ('T7', '1000..1999&<>1500'), ('T8', '1000...1999'), ('T9', '1000..1500..1999'), ('Ta', 'a'), ('Tb', '3000..4000'), ('Tc', '1500|1500|..'), ('Td', '1000..1999&1500');
INSERT INTO rd.g_l_entry (entry_no, g_l_account_no, posting_date, amount, debit_amount, credit_amount, global_dimension_1_code, dimension_set_id) VALUES
    (1, '1000', '2026-01-01', 100, 100, 0, 'SALES', 1), (2, '10000', '2026-06-30', 20.50, 20.50, 0, '', 2), (3, '1500', '2026-12-31', 3, 3, 0, '', 0),
    (4, '1999', '2026-12-31 23:59:59', -4, 0, 4, '', 3), (5, '2000', '2027-01-01', 1000, 1000, 0, '', 0), (6, '2100', '2025-12-31 23:59:59', 7, 7, 0, '', 0),
    (7, '1000', '2027-01-01', -1, 0, 1, '', 0), (8, 'A', '1753-01-01', 0.00000000000000000001, 0, 0, '', 0);
INSERT INTO rd.dimension_set_entry (dimension_set_id, dimension_code, dimension_value_code, global_dimension_no) VALUES
    (1, 'DEPT', 'SALES', 1), (1, 'PROJECT', 'P1', 2), (1, 'AREA', 'EU', 3), (1, 'X', 'NOT GLOBAL', 0), (2, 'ZONE', 'Z8', 8), (2, 'PROJECT', 'P2', 2);
INSERT INTO rd.comment_line (table_name, no, line_no) VALUES (0, '1000', 1), (0, '1000', 2), (1, 'C2', 1), (2, 'C1', 1), (3, 'I1', 1), (2, 'V1', 1);
INSERT INTO rd.customer (no) VALUES ('C1'), ('C2'), ('C3');
INSERT INTO rd.cust_ledger_entry (entry_no, customer_no, sales_lcy, profit_lcy) VALUES (1, 'C1', 80, 30), (2, 'C1', 0, 0), (3, 'C2', 10, -1), (4, 'C1', 5, 5);
INSERT INTO rd.detailed_cust_ledg_entry (entry_no, cust_ledger_entry_no, customer_no, entry_type, initial_document_type, posting_date, initial_entry_due_date, amount, amount_lcy, ledger_entry_amount, excluded_from_calculation) VALUES
    (1, 1, 'C1', 1, 2, '2026-01-10', '2026-02-10', 100, 110, 1, 0),   -- invoice
    (2, 2, 'C1', 1, 1, '2026-02-01', '2026-02-01', -60, -66, 1, 0),   -- payment
    (3, 1, 'C1', 2, 2, '2026-02-01', '2026-02-10', -60, -66, 0, 0),   -- applied
    (4, 2, 'C1', 2, 1, '2026-02-01', '2026-02-01', 60, 66, 0, 0),
    (5, 1, 'C1', 1, 2, '2026-03-01', '2026-03-31', 1000, 1000, 1, 1), -- excluded
    (6, 4, 'C1', 1, 2, '2026-12-31 23:59:59', '2027-01-31', 5, 5, 1, 0),
    (7, 3, 'C2', 1, 2, '2026-01-01', '2026-01-31', 10, 10, 1, 0);
INSERT INTO rd.vendor (no) VALUES ('V1'), ('V2');
INSERT INTO rd.vendor_ledger_entry (entry_no) VALUES (1), (2);
INSERT INTO rd.detailed_vendor_ledg_entry (vendor_ledger_entry_no, vendor_no, entry_type, amount, amount_lcy, ledger_entry_amount) VALUES
    (1, 'V1', 1, -200, -220, 1), (1, 'V1', 2, 50, 55, 0), (2, 'V1', 1, 50, 55, 1), (2, 'V1', 2, -50, -55, 0);
INSERT INTO rd.item (no) VALUES ('I1'), ('I2');
INSERT INTO rd.item_ledger_entry (entry_no, item_no, quantity, invoiced_quantity) VALUES (1, 'I1', 10, 8), (2, 'I1', -3, -3), (3, 'I2', 1.5, 0);
INSERT INTO rd.value_entry (item_ledger_entry_no, cost_amount_actual, cost_amount_expected, sales_amount_actual) VALUES
    (1, 40, 10, 0), (1, 2.5, -10, 0), (2, -12.75, 0, 30), (0, 99, 99, 99);
INSERT INTO rd.sales_header (document_type, no, dimension_set_id, shortcut_dimension_1_code, shortcut_dimension_4_code) VALUES (1, '1001', 1, 'SALES', 'stored'), (0, '1001', 0, '', '');
INSERT INTO rd.sales_line (document_type, document_no, type, no, bill_to_customer_no, amount, amount_including_vat, outstanding_amount_lcy, outstanding_qty_base) VALUES
    (1, '1001', 2, 'I1', 'C1', 100, 120, 60, 4), (1, '1001', 2, 'I2', 'C1', 10, 12, 12, 1), (1, '1001', 1, 'I1', 'C1', 1, 1.2, 1.2, 9), (0, '1001', 2, 'I1', 'C1', 7, 8.4, 8.4, 70);
INSERT INTO rd.sales_invoice_header (no, cust_ledger_entry_no) VALUES ('INV1', 1), ('INV2', 0);
INSERT INTO rd.sales_invoice_line (document_no, amount) VALUES ('INV1', 90), ('INV1', 10);
INSERT INTO rd.bank_account (no) VALUES ('B1'), ('B2');
INSERT INTO rd.bank_account_ledger_entry (bank_account_no, amount) VALUES ('B1', 500), ('B1', -0.25);

SET ROLE regress_rd_owner;
SELECT bcmig.make_views('rd');
SELECT * FROM rd_read.g_l_account ORDER BY no COLLATE "C";
SELECT * FROM rd_read.g_l_entry ORDER BY entry_no;
SELECT * FROM rd_read.dimension_set_entry ORDER BY dimension_set_id, dimension_code;
SELECT * FROM rd_read.customer ORDER BY no;
SELECT * FROM rd_read.cust_ledger_entry ORDER BY entry_no;
SELECT * FROM rd_read.vendor ORDER BY no;
SELECT * FROM rd_read.vendor_ledger_entry ORDER BY entry_no;
SELECT * FROM rd_read.item ORDER BY no;
SELECT * FROM rd_read.item_ledger_entry ORDER BY entry_no;
SELECT * FROM rd_read.sales_header ORDER BY document_type;
SELECT * FROM rd_read.sales_invoice_header ORDER BY no;
SELECT * FROM rd_read.bank_account ORDER BY no;
SELECT * FROM rd_read.comment_line ORDER BY table_name, no, line_no;

-- dates as parameters; a closing date is not within its day unless asked for
SELECT oid::regprocedure, obj_description(oid, 'pg_proc') FROM pg_proc WHERE pronamespace = 'rd_read'::regnamespace ORDER BY oid::regprocedure::text COLLATE "C";
SELECT at, rd_read.g_l_account_balance_at_date('T1', at) AS t1, rd_read.g_l_account_balance_at_date('T1', at, true) AS t1_closing,
       rd_read.g_l_account_balance_at_date('1000', at) AS "1000", rd_read.g_l_account_balance_at_date('A', at) AS a
  FROM unnest('{1753-01-01,2025-12-31,2026-01-01,2026-12-30,2026-12-31,2027-01-01,NULL}'::date[]) at;
SELECT rd_read.g_l_account_net_change('T1', '2026-01-01', '2026-12-31') AS year, rd_read.g_l_account_net_change('T1', '2026-01-01', '2026-12-31', true) AS closed,
       rd_read.g_l_account_net_change('T1', '2026-12-31', '2026-12-31') AS day, rd_read.g_l_account_net_change('T1', NULL, NULL) AS always,
       rd_read.g_l_account_net_change('T1', '2025-12-31', '2025-12-31', true) AS only_closing, rd_read.g_l_account_net_change('T6', NULL, NULL) AS unknown_filter,
       rd_read.g_l_account_net_change('nobody', NULL, NULL) AS nobody;
SELECT rd_read.customer_net_change_lcy('C1', '2026-01-01', '2026-12-31') AS year, rd_read.customer_net_change_lcy('C1', '2026-02-01', '2026-12-31', true) AS closed,
       rd_read.customer_balance_due_lcy('C1', '2026-02-09') AS due_february_9, rd_read.customer_balance_due_lcy('C1', '2026-02-10') AS due_february_10;
-- entries are summed once for all totals of a list
RESET ROLE;
CREATE FUNCTION pg_temp.loops(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) ' || query LOOP
        IF line ~ 'HashAggregate|GroupAggregate' THEN RETURN NEXT regexp_replace(btrim(line), '^.*rows=(\d+)(\.00)?', 'rows=\1'); END IF;
    END LOOP;
END $$;
SELECT pg_temp.loops('SELECT no, balance FROM rd_read.g_l_account');

-- names as blue spells them, as awkward as they come; 63 bytes; a name that is taken
RESET ROLE;
CREATE SCHEMA "RD ""; DROP SCHEMA rd CASCADE; --" AUTHORIZATION regress_rd_owner;
CREATE SCHEMA "rd 3456789 123456789 123456789 123456789 123456789 123456789 12" AUTHORIZATION regress_rd_owner;
SELECT bc('RD "; DROP SCHEMA rd CASCADE; --', 'G_L Account', 'G_L Account', 'No_|No_|varchar(20)|Code', 'Totaling|Totaling|varchar(250)|Text', 'Balance|Balance|integer|Integer');
SELECT bc('RD "; DROP SCHEMA rd CASCADE; --', 'G_L "Entry', 'G_L Entry', 'G_L Account No_|G_L Account''No_"|varchar(20)|Code', 'Amount|Amount of another app|numeric(38,20)|Decimal|1', 'Amount|Amount|numeric(38,20)|Decimal',
    'Posting Date|Posting Date|timestamp(3)|Date', 'Posting Date_is_closing|Posting Date_is_closing|smallint|Boolean',
    'Cód "; -- ''\|Cód "; -- ''\|integer|Option', 'Dimension Set ID|Dimension Set ID|integer|Integer');
SELECT value_names('G_L "Entry', 'Cód "; -- ''\', 'a''; DROP TABLE x; --');
SELECT bc('RD "; DROP SCHEMA rd CASCADE; --', 'Item', 'Item', 'No_|No_|varchar(20)|Code');
SELECT bc('RD "; DROP SCHEMA rd CASCADE; --', 'Item Ledger Entry', 'Item Ledger Entry', 'Item No_|Item No_|varchar(20)|Code', 'Invoiced Quantity|Invoiced Quantity|numeric(38,20)|Decimal');
SELECT bc('rd 3456789 123456789 123456789 123456789 123456789 123456789 12', 'tablé 789 123456789 123456789 123456789 123456789 123456789 12', NULL,
    'c|columné 9 123456789 123456789 123456789 123456789 123456789 12|integer|Enum', 'd|date é 89 123456789 123456789 123456789 123456789 123456789 12|timestamp(3)|Date');
SELECT value_names('tablé 789 123456789 123456789 123456789 123456789 123456789 12', 'columné 9 123456789 123456789 123456789 123456789 123456789 12', 'zero');
INSERT INTO "RD ""; DROP SCHEMA rd CASCADE; --"."G_L Account" VALUES (1, '1', '', 42);
INSERT INTO "RD ""; DROP SCHEMA rd CASCADE; --"."G_L ""Entry" VALUES (1, '1', 999, 3, '2026-12-31 23:59:59', 1, 0, 0);
SET ROLE regress_rd_owner;
SELECT bcmig.make_views('rd');
SELECT c.oid::regclass AS view, attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0
 WHERE relkind = 'v' AND relnamespace::regnamespace::text ~ '^"' ORDER BY relnamespace::regnamespace::text COLLATE "C", relname, attnum;
SELECT * FROM "RD ""; DROP SCHEMA rd CASCADE; --_read"."G_L Account";
SELECT * FROM "RD ""; DROP SCHEMA rd CASCADE; --_read"."G_L ""Entry";
SELECT "RD ""; DROP SCHEMA rd CASCADE; --_read"."G_L Account Net Change"('1', '2026-01-01', NULL);

-- targets of other types than BC's are shown as they are; no table, no view; no naming, no FlowFields without AL's name
RESET ROLE;
CREATE SCHEMA rd2 AUTHORIZATION regress_rd_owner;
SELECT bc('rd2', 'customer', 'Customer', 'No_|no|varchar(20)|Code', 'Flag|flag|text|Boolean', 'Day|day|text|Date', 'Kind|kind|text|Enum', 'Amount|amount|double precision|Decimal',
    'F|f|bytea|DateFormula', 'T|t|timestamptz|DateTime', 'D|d|text|Duration', 'M|m|text|Media');
SELECT bc('rd2', 'detailed', 'Detailed Cust_ Ledg_ Entry', 'Customer No_|customer_no|integer|Integer', 'Amount|amount|numeric|Decimal', 'Amount (LCY)|amount_lcy|double precision|Decimal');
SELECT bc('rd2', 'gone', 'Gone', 'No_|no|varchar(20)|Code');
SELECT bc('rd2', 'vendor', NULL, 'No_|no|varchar(20)|Code');
SELECT bc('rd2', 'detailed_vendor', 'Detailed Vendor Ledg_ Entry', 'Vendor No_|vendor_no|varchar(20)|Code', 'Vendor Ledger Entry No_|vendor_ledger_entry_no|integer|Integer',
    'Amount|amount|numeric|Decimal');
SELECT bc('rd2', 'vendor_ledger_entry', 'Vendor Ledger Entry', 'Entry No_|entry_no|integer|Integer');
SELECT bc('rd2', 'item', 'Item', 'No_|no|varchar(20)|Code');
SELECT bc('rd2', 'sales_line', 'Sales Line', 'Document Type|document_type|text|Enum', 'Type|type|integer|Enum', 'No_|no|varchar(20)|Code', 'Outstanding Qty_ (Base)|outstanding_qty_base|numeric|Decimal');
DROP TABLE rd2.gone;
SET ROLE regress_rd_owner;
SELECT bcmig.make_views('rd');
SELECT c.relname, attname, format_type(atttypid, atttypmod) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND attnum > 0
 WHERE relnamespace = 'rd2_read'::regnamespace ORDER BY relname, attnum;

-- another company in the same schema
RESET ROLE;
UPDATE bcmig.sync_table SET company = 'other' WHERE target_schema = 'rd' AND target_table = 'bank_account';
SET ROLE regress_rd_owner;
SELECT bcmig.make_views('rd');
SELECT * FROM rd_read.bank_account ORDER BY no;

-- a column more: the view is replaced, rights on it stay; what uses it is not dropped
RESET ROLE;
GRANT SELECT ON rd_read.customer TO regress_rd_other WITH GRANT OPTION;
GRANT SELECT ON rd_read.vendor TO PUBLIC;
ALTER TABLE rd.customer ADD COLUMN name varchar(100) DEFAULT 'somebody';
INSERT INTO bcmig.column_map (table_id, ordinal, source_column, source_type, native_type, target_column, target_type, al_type)
SELECT table_id, 99, 'Name', 'varchar(100)', 'nvarchar(100)', 'name', 'varchar(100)', 'Text' FROM bcmig.sync_table WHERE target_schema = 'rd' AND target_table = 'customer';
CREATE SCHEMA rd_reports;
CREATE VIEW rd_reports.rich AS SELECT no FROM rd_read.customer WHERE balance_lcy > 40;
CREATE VIEW rd_reports.names AS SELECT count(*) FROM rd_read.customer;
SET ROLE regress_rd_owner;
SELECT bcmig.make_views('rd');
RESET ROLE;
SELECT * FROM rd_reports.rich;
DROP SCHEMA rd_reports CASCADE;
-- replaced in place where that is possible, with its users
CREATE VIEW public.rd_vendors AS SELECT no FROM rd_read.vendor;
SELECT 'rd_read.vendor'::regclass::oid AS vendor, 'rd_read.customer'::regclass::oid AS customer \gset
SET ROLE regress_rd_owner;
SELECT bcmig.make_views('rd');
RESET ROLE;
SELECT 'rd_read.vendor'::regclass = :vendor AS same_vendor, 'rd_read.customer'::regclass = :customer AS same_customer;
SELECT * FROM public.rd_vendors ORDER BY no;
SELECT no, name, balance FROM rd_read.customer ORDER BY no;
SELECT relname, acl FROM pg_class, unnest(relacl) acl WHERE relnamespace = 'rd_read'::regnamespace AND relname IN ('customer', 'vendor') AND acl::text NOT LIKE 'regress_rd_owner=%' ORDER BY 1;
DROP VIEW public.rd_vendors;
-- what is not ours is left alone
DROP VIEW rd_read.vendor;
CREATE VIEW rd_read.vendor AS SELECT 'mine' AS whose;
SELECT bcmig.make_views('rd');
DROP VIEW rd_read.vendor;
CREATE TABLE rd_read.vendor (whose text);
SELECT bcmig.make_views('rd');
DROP TABLE rd_read.vendor;

-- who may read
SET ROLE regress_rd_other;
SELECT bcmig.make_views('rd');
RESET ROLE;
SELECT name, scope, kind, default_value FROM bcmig.option WHERE name IN ('views', 'grant_select') ORDER BY name;
SELECT bcmig_alter_sync('rd', '{"grant_select": ["regress_rd_report", "regress_rd_no; DROP"]}');
SELECT bcmig.make_views('rd');
SELECT bcmig_alter_sync('rd', '{"grant_select": "regress_rd_report"}');
CREATE ROLE "regress_rd ""; DROP";
SELECT bcmig_alter_sync('rd', '{"grant_select": ["regress_rd_report", "regress_rd \"; DROP"]}');
SELECT bcmig.make_views('rd');
SET ROLE regress_rd_report;
SELECT no, balance, rd_read.g_l_account_net_change(no, '2026-12-31', '2026-12-31') FROM rd_read.g_l_account WHERE no = 'T1';
SELECT count(*) FROM rd.g_l_entry;
SELECT * FROM rd_read.every WHERE no = 'none';
SELECT "Amount" FROM "RD ""; DROP SCHEMA rd CASCADE; --_read"."G_L ""Entry";
DELETE FROM rd_read.customer;
DELETE FROM rd.customer;
RESET ROLE;
SELECT has_table_privilege('regress_rd "; DROP', 'rd_read.customer', 'SELECT') AS awkward, has_table_privilege('regress_rd_nobody', 'rd.customer', 'SELECT') AS nobody,
       has_function_privilege('regress_rd_nobody', 'rd_read.customer_balance_due_lcy(text, date, boolean)', 'EXECUTE') AS nobody_executes;
-- a schema of somebody else
ALTER SCHEMA rd2 OWNER TO regress_rd_other;
REVOKE ALL ON SCHEMA rd2 FROM PUBLIC, regress_rd_report, "regress_rd ""; DROP";
GRANT USAGE, CREATE ON SCHEMA rd2 TO regress_rd_owner;
SELECT bcmig.make_views('rd');
GRANT USAGE ON SCHEMA rd2 TO regress_rd_report, "regress_rd ""; DROP";
SELECT bcmig.make_views('rd');
SELECT bcmig.make_views('no such sync');
SELECT bcmig.make_views(NULL);

-- views use nothing of the extension
SELECT DISTINCT n.nspname FROM pg_depend d JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
  JOIN pg_class v ON v.oid = r.ev_class JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND p.oid = d.refobjid JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE v.relnamespace = 'rd_read'::regnamespace;

-- views go before their tables
SELECT left(statement, 20) AS statement, expected FROM bcmig_drop_sync('rd', drop_tables => true, dry_run => true) WHERE statement ~ '^DROP (VIEW|FUNCTION)';
SELECT count(*) FROM bcmig_drop_sync('rd', drop_tables => true);
SELECT relnamespace::regnamespace, relkind, count(*) FROM pg_class WHERE relnamespace::regnamespace::text ~ 'rd|RD' AND relkind IN ('r', 'v') GROUP BY 1, 2;

-- leave nothing
DELETE FROM bcmig.environment WHERE name = 'rd';
DROP SCHEMA rd CASCADE;
DROP SCHEMA rd_read CASCADE;
DROP SCHEMA rd2 CASCADE;
DROP SCHEMA rd2_read CASCADE;
DROP SCHEMA "RD ""; DROP SCHEMA rd CASCADE; --" CASCADE;
DROP SCHEMA "RD ""; DROP SCHEMA rd CASCADE; --_read" CASCADE;
DROP SCHEMA "rd 3456789 123456789 123456789 123456789 123456789 123456789 12" CASCADE;
SELECT nspname, octet_length(nspname) FROM pg_namespace WHERE nspname LIKE 'rd 345%' \gset
DROP SCHEMA :"nspname" CASCADE;
REVOKE CREATE ON DATABASE :green FROM regress_rd_owner;
REVOKE EXECUTE ON FUNCTION bcmig.make_views(text) FROM regress_rd_owner, regress_rd_other;
REVOKE USAGE ON SCHEMA bcmig FROM regress_rd_owner, regress_rd_other;
DROP FUNCTION bc(text, text, text, text[]), value_names(text, text, text[]);
DROP ROLE regress_rd_owner, regress_rd_other, regress_rd_report, regress_rd_nobody, "regress_rd ""; DROP";
