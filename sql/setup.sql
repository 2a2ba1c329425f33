-- What the other tests share: a blue in another database of this cluster.
-- That is enough for configuration; preflight refuses it (configure.sql).
CREATE EXTENSION bcmig CASCADE;

SELECT current_setting('port') AS port,
       split_part(current_setting('unix_socket_directories'), ',', 1) AS host \gset
SELECT current_database() AS green \gset

CREATE DATABASE regress_bcmig_blue TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C';
CREATE ROLE regress_bcmig_dba LOGIN SUPERUSER;
CREATE ROLE regress_bcmig_owner LOGIN;
CREATE ROLE regress_bcmig_other LOGIN;
CREATE ROLE regress_bcmig_nologin NOLOGIN;
CREATE ROLE regress_bcmig_reader LOGIN;

CREATE SERVER regress_blue FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host :'host', port :'port', dbname 'regress_bcmig_blue');
CREATE SERVER regress_nobody FOREIGN DATA WRAPPER postgres_fdw
    OPTIONS (host :'host', port :'port', dbname 'regress_no_such_database');
CREATE FOREIGN DATA WRAPPER regress_fdw;
CREATE SERVER regress_foreign FOREIGN DATA WRAPPER regress_fdw;
GRANT USAGE ON FOREIGN SERVER regress_blue, regress_nobody TO regress_bcmig_owner, regress_bcmig_nologin;
CREATE USER MAPPING FOR regress_bcmig_owner SERVER regress_blue
    OPTIONS (user 'regress_bcmig_reader', password_required 'false');
CREATE USER MAPPING FOR regress_bcmig_owner SERVER regress_nobody
    OPTIONS (user 'regress_bcmig_reader', password_required 'false');
CREATE USER MAPPING FOR regress_bcmig_nologin SERVER regress_blue
    OPTIONS (user 'regress_bcmig_reader', password_required 'false');

-- a role that is no superuser does the work
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO regress_bcmig_owner, regress_bcmig_other, regress_bcmig_nologin;
GRANT USAGE ON SCHEMA bcmig TO regress_bcmig_owner, regress_bcmig_other;
GRANT SELECT ON ALL TABLES IN SCHEMA bcmig TO regress_bcmig_owner, regress_bcmig_other;
CREATE SCHEMA regress_green AUTHORIZATION regress_bcmig_owner;

-- nothing to PUBLIC, and every function says what class it is of
SELECT p.proname
  FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
  JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'bcmig'
 WHERE has_function_privilege('regress_bcmig_reader', p.oid, 'EXECUTE')
    OR obj_description(p.oid, 'pg_proc') !~ '^(configuration|request|wait|report|engine): '
    OR obj_description(p.oid, 'pg_proc') IS NULL
 ORDER BY 1;

-- blue: names and types as awkward as they come
\c regress_bcmig_blue
SET client_min_messages = warning;
CREATE TYPE mood AS ENUM ('calm', 'angry');
CREATE DOMAIN code AS varchar(20);
CREATE TABLE "CRONUS$Customer" (
    "No_" varchar(20) NOT NULL DEFAULT '' PRIMARY KEY,
    "Name" varchar(100) NOT NULL DEFAULT '',
    "Balance (LCY)" numeric(38,20) NOT NULL DEFAULT 0,
    "Last Date" timestamp NOT NULL DEFAULT '1753-01-01 00:00:00',
    "Blocked" integer NOT NULL DEFAULT -1,
    "Active" boolean NOT NULL DEFAULT true,
    "Picture" bytea DEFAULT '\x00ff',
    "Quote" text DEFAULT 'it''s a \ back',
    "Created" timestamptz DEFAULT now(),
    "Day" date DEFAULT '2020-02-29',
    "Code" code,
    mood mood DEFAULT 'calm',
    "Twice" integer GENERATED ALWAYS AS ("Blocked" * 2) STORED,
    "$systemId" uuid NOT NULL);
CREATE UNIQUE INDEX "CRONUS$Customer$1" ON "CRONUS$Customer" ("$systemId");
CREATE INDEX "CRONUS$Customer$2" ON "CRONUS$Customer" ("Name", "Balance (LCY)");
CREATE INDEX "CRONUS$Customer$partial" ON "CRONUS$Customer" ("Name") WHERE "Active";
CREATE INDEX "CRONUS$Customer$expr" ON "CRONUS$Customer" (lower("Name"));
CREATE TABLE entry (no integer PRIMARY KEY, amount numeric(18,2) NOT NULL, note varchar(50), "timestamp" bigint NOT NULL DEFAULT 0);
CREATE INDEX entry_timestamp ON entry ("timestamp");
CREATE TABLE dimension ("Set" integer, "Code" varchar(20), value text, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY ("Code", "Set"));
CREATE TABLE heap (a integer, b text NOT NULL, c integer NOT NULL);
CREATE TABLE unique_only (a integer UNIQUE, b integer NOT NULL UNIQUE, c integer);
CREATE TABLE parted (id integer PRIMARY KEY, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (1000);
CREATE TABLE mood_key (m mood PRIMARY KEY);
CREATE TABLE bc_names (id integer PRIMARY KEY, bc_op text, bc_rowversion bigint);
CREATE VIEW a_view AS SELECT 1 AS one;
CREATE TABLE no_grant (id integer PRIMARY KEY);
CREATE TABLE no_columns ();
-- names
CREATE TABLE "quote"".dot$" (id integer PRIMARY KEY, "a ""b"".c" integer, "trailing " integer);
CREATE TABLE "trailing " (id integer PRIMARY KEY);
CREATE TABLE "trailing" (id integer PRIMARY KEY);
CREATE TABLE "select" ("from" integer PRIMARY KEY, "user" text);
CREATE TABLE "Þórður ærøskøbing Straße" ("Größe" integer PRIMARY KEY, "été" text);
CREATE TABLE "ÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅx" ("BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB" integer PRIMARY KEY);
CREATE SCHEMA "Other Schema";
CREATE TABLE "Other Schema".entry (no integer PRIMARY KEY);
GRANT USAGE ON SCHEMA "Other Schema" TO regress_bcmig_reader;
GRANT SELECT ON ALL TABLES IN SCHEMA public, "Other Schema" TO regress_bcmig_reader;
REVOKE ALL ON no_grant FROM regress_bcmig_reader;

-- a stand-in for postgres_tracking.sql: what describe reads of it
CREATE SCHEMA bcmig_blue;
CREATE TABLE bcmig_blue.tracked (relid oid PRIMARY KEY, capture text, stamp_column text);
INSERT INTO bcmig_blue.tracked VALUES
    ('entry'::regclass, 'change_tracking', 'timestamp'),
    ('dimension'::regclass, 'rowversion', 'timestamp'),
    ('"trailing "'::regclass, 'change_tracking', NULL);
