-- gl_entry.sql: a G/L Entry table of :rows rows, 24 columns with the types and
-- widths Business Central uses; its books balance
CREATE TABLE gl_entry (
	"timestamp" bigint NOT NULL DEFAULT 0,
	"Entry No_" int PRIMARY KEY,
	"G_L Account No_" varchar(20) NOT NULL,
	"Posting Date" timestamp(3) NOT NULL,
	"Document Type" int NOT NULL,
	"Document No_" varchar(20) NOT NULL,
	"Description" varchar(100) NOT NULL,
	"Bal_ Account No_" varchar(20) NOT NULL DEFAULT '',
	"Amount" numeric(38,20) NOT NULL,
	"Global Dimension 1 Code" varchar(20) NOT NULL,
	"Global Dimension 2 Code" varchar(20) NOT NULL,
	"User ID" varchar(50) NOT NULL,
	"Source Code" varchar(10) NOT NULL,
	"Quantity" numeric(38,20) NOT NULL,
	"VAT Amount" numeric(38,20) NOT NULL,
	"Transaction No_" int NOT NULL,
	"Debit Amount" numeric(38,20) NOT NULL,
	"Credit Amount" numeric(38,20) NOT NULL,
	"Document Date" timestamp(3) NOT NULL,
	"Source No_" varchar(20) NOT NULL,
	"Dimension Set ID" int NOT NULL,
	"Reversed" smallint NOT NULL DEFAULT 0,
	"$systemId" uuid NOT NULL DEFAULT gen_random_uuid(),
	"$systemCreatedAt" timestamp(3) NOT NULL DEFAULT '1753-01-01'
);
INSERT INTO gl_entry
SELECT 0, i, (1000 + 10 * (i * 7919 % 400))::text, date '2023-01-01' + (i * 1000 / :rows)::int, i % 7, 'INV' || 100000 + i / 2,
	   'Order ' || 100000 + i / 2 || ', Contoso Coffee Beans', CASE i % 3 WHEN 0 THEN '2910' ELSE '' END,
	   CASE i % 2 WHEN 0 THEN a ELSE -a END, CASE i % 4 WHEN 0 THEN 'SALES' ELSE '' END, CASE i % 5 WHEN 0 THEN 'TOYOTA' ELSE '' END,
	   'CRONUS\ADMIN', CASE i % 2 WHEN 0 THEN 'SALES' ELSE 'PURCHASES' END, i % 20, round(a * 0.19, 2), i / 2,
	   CASE i % 2 WHEN 0 THEN a ELSE 0 END, CASE i % 2 WHEN 1 THEN a ELSE 0 END, date '2023-01-01' + (i * 1000 / :rows)::int,
	   'C' || 10000 + i % 1000, i % 50, 0, gen_random_uuid(), timestamp '2023-01-01 10:00:00.123' + i * interval '1 second'
  FROM (SELECT i::int8 AS i, ((i / 2) * 48271::int8 % 1000000) / 100.0 AS a FROM generate_series(1, :rows) i) x;
SELECT bcmig_blue.track('gl_entry') \g /dev/null
VACUUM (ANALYZE, FREEZE) gl_entry;
