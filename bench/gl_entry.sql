-- G/L Entry with 24 columns; :rows rows
CREATE TABLE gl (
    "timestamp" bigint NOT NULL DEFAULT 0, "Entry No_" int PRIMARY KEY, "G_L Account No_" varchar(20) NOT NULL DEFAULT '',
    "Posting Date" timestamp(3) NOT NULL DEFAULT '1753-01-01', "Document Type" int NOT NULL DEFAULT 0,
    "Document No_" varchar(20) NOT NULL DEFAULT '', "Description" varchar(100) NOT NULL DEFAULT '',
    "Bal_ Account No_" varchar(20) NOT NULL DEFAULT '', "Amount" numeric(38,20) NOT NULL DEFAULT 0,
    "Global Dimension 1 Code" varchar(20) NOT NULL DEFAULT '', "Global Dimension 2 Code" varchar(20) NOT NULL DEFAULT '',
    "User ID" varchar(50) NOT NULL DEFAULT '', "Source Code" varchar(10) NOT NULL DEFAULT '',
    "Quantity" numeric(38,20) NOT NULL DEFAULT 0, "VAT Amount" numeric(38,20) NOT NULL DEFAULT 0,
    "Transaction No_" int NOT NULL DEFAULT 0, "Debit Amount" numeric(38,20) NOT NULL DEFAULT 0,
    "Credit Amount" numeric(38,20) NOT NULL DEFAULT 0, "Document Date" timestamp(3) NOT NULL DEFAULT '1753-01-01',
    "Source No_" varchar(20) NOT NULL DEFAULT '', "Dimension Set ID" int NOT NULL DEFAULT 0, "Reversed" smallint NOT NULL DEFAULT 0,
    "$systemId" uuid NOT NULL DEFAULT gen_random_uuid(), "$systemCreatedAt" timestamp(3) NOT NULL DEFAULT '1753-01-01');
INSERT INTO gl
SELECT 0, i, (1000 + i % 500)::text, '2026-01-01'::timestamp + (i % 365) * interval '1 day', i % 7, 'INV' || i / 2, 'Order ' || i, '',
       (i % 100000) / 100.0 * (CASE WHEN i % 2 = 0 THEN 1 ELSE -1 END), 'SALES', '', 'CRONUS\ADMIN', 'SALES', 0, 0, i / 2,
       CASE WHEN i % 2 = 0 THEN (i % 100000) / 100.0 ELSE 0 END, CASE WHEN i % 2 = 1 THEN (i % 100000) / 100.0 ELSE 0 END,
       '2026-01-01', 'C' || i % 1000, i % 50, 0, gen_random_uuid(), '2026-01-01 10:00:00.123'
  FROM generate_series(1, :rows) i;
SELECT bcmig_blue.track('gl');
VACUUM ANALYZE gl;
