-- latency_tables.sql: what a small posting touches
CREATE TABLE sales_header ("No_" varchar(20) PRIMARY KEY, "Status" int NOT NULL, "Amount" numeric(38,20) NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
CREATE SEQUENCE sales_line_no;
CREATE TABLE sales_line ("Document No_" varchar(20), "Line No_" bigint, "Description" varchar(100) NOT NULL, "Quantity" numeric(38,20) NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY ("Document No_", "Line No_"));
CREATE TABLE gl_posting ("Entry No_" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "G_L Account No_" varchar(20) NOT NULL, "Amount" numeric(38,20) NOT NULL, "Posting Date" timestamp(3) NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
CREATE TABLE customer ("No_" varchar(20) PRIMARY KEY, "Name" varchar(100) NOT NULL, "Balance" numeric(38,20) NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
CREATE TABLE posted (no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "timestamp" bigint NOT NULL DEFAULT 0);
INSERT INTO sales_header SELECT 'S' || i, 0, 0 FROM generate_series(1, 5000) i;
INSERT INTO customer SELECT 'C' || i, 'Customer ' || i, 0 FROM generate_series(1, 5000) i;
SELECT bcmig_blue.track(t) FROM unnest('{sales_header,sales_line,gl_posting,customer,posted}'::regclass[]) t \g /dev/null
VACUUM ANALYZE;
