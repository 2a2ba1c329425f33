-- Bad input: one clear error each, with a hint that is the next statement,
-- and nothing half made.
SET ROLE regress_bcmig_owner;
SET search_path = regress_green, public;

-- environments
SELECT bcmig_add_environment(NULL, 'blue', 'regress_blue');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_environment('', 'blue', 'regress_blue');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_environment(repeat('x', 64), 'blue', 'regress_blue');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_environment(E'two\nlines', 'blue', 'regress_blue');
SELECT bcmig_add_environment('bad', 'red', 'regress_blue');
SELECT bcmig_add_environment('bad', 'green');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_environment('bad', 'blue');
SELECT bcmig_add_environment('bad', 'blue', 'no_such_server');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_environment('bad', 'blue', 'regress_foreign');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_environment('bad', 'blue', 'regress_blue', options => '{"connect_timeout": "1us"}');
SELECT bcmig_alter_environment('bad', '{}');
SELECT bcmig_remove_environment('bad');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_check_environment('bad');
SELECT count(*) FROM bcmig.environment WHERE side = 'blue';
SELECT bcmig_add_environment('bad', 'blue', 'regress_blue');
SELECT bcmig_add_environment('bad', 'blue', 'regress_blue');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_remove_environment('green');
RESET ROLE;
SELECT bcmig_remove_environment('green');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_bcmig_other;
SELECT bcmig_alter_environment('bad', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_environment('mine', 'blue', 'regress_blue');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_blue_script('tracking', 'no such sync');
SELECT bcmig_blue_script('fence');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_blue_script('poem');

-- owners that cannot: no USAGE, no mapping, no LOGIN
SELECT bcmig_create_sync('bad', 'bad');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER regress_blue TO regress_bcmig_other;
SET ROLE regress_bcmig_other;
SELECT bcmig_create_sync('bad', 'bad');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_bcmig_nologin;
SELECT bcmig_create_sync('bad', 'bad');
\echo :LAST_ERROR_SQLSTATE

-- syncs
SET ROLE regress_bcmig_owner;
SELECT bcmig_create_sync('bad', 'nowhere');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_create_sync('bad', 'green');
SELECT bcmig_create_sync('bad', 'bad', '{"batch_rows": 99999999999}');
SELECT bcmig_create_sync('bad', 'bad', '{"speed": "high"}');
SELECT bcmig_alter_sync('bad', '{}');
SELECT bcmig_drop_sync('bad');
SELECT bcmig_start_sync('bad');
SELECT bcmig_stop_sync('bad');
SELECT bcmig_preflight('bad');
SELECT bcmig_estimate('bad');
SELECT bcmig_sync_now('bad');
SELECT bcmig_retry_quarantine('bad');
\echo :LAST_ERROR_SQLSTATE
SELECT count(*) FROM bcmig.sync;
SELECT bcmig_create_sync('bad', 'bad');
SELECT bcmig_create_sync('bad', 'bad');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_remove_environment('bad');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_start_sync('bad');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_sync_now('bad');
\echo :LAST_ERROR_SQLSTATE
\set VERBOSITY terse
SELECT bcmig_discard_quarantine('bad', NULL);
SELECT bcmig_retry_quarantine('bad', '{NULL}');
SELECT bcmig_retry_quarantine('bad', '{12345678}');
\set VERBOSITY default
SET ROLE regress_bcmig_other;
SELECT bcmig_alter_sync('bad', '{}');
SELECT bcmig_start_sync('bad');
SELECT bcmig_add_table('bad', 'entry');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_bcmig_reader;
SELECT bcmig_create_sync('x', 'bad');
SET ROLE regress_bcmig_owner;

-- tables of blue
SELECT bcmig_add_table('bad', NULL);
SELECT bcmig_add_table('bad', 'no_such_table');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_table('bad', 'ENTRY');
SELECT bcmig_add_table('bad', 'entry ');
SELECT bcmig_add_table('bad', 'entry', options => '{"source_schema": "nowhere"}');
SELECT bcmig_add_table('bad', 'a_view');
SELECT bcmig_add_table('bad', 'no_columns');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_table('bad', 'no_grant');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_table('bad', 'heap', options => '{"keyless": "refuse"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_table('bad', 'heap', options => '{"capture": "change_tracking"}');
SELECT bcmig_add_table('bad', 'heap', options => '{"key": ["a"]}');
SELECT bcmig_add_table('bad', 'heap', options => '{"key": ["b", "b"]}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_table('bad', 'heap', options => '{"key": ["nothing"]}');
SELECT bcmig_add_table('bad', 'heap', options => '{"key": []}');
SELECT bcmig_add_table('bad', 'heap', options => '{"key": [1]}');
SELECT bcmig_add_table('bad', 'mood_key');
SELECT bcmig_add_table('bad', 'unique_only', options => '{"capture": "change_tracking"}');
SELECT bcmig_add_table('bad', 'unique_only', options => '{"capture": "rowversion"}');
SELECT bcmig_add_table('bad', 'entry', options => '{"capture": "change_tracking", "key": ["amount"]}');
SELECT bcmig_add_table('bad', 'entry', options => '{"speed": "high"}');

-- targets
SELECT bcmig_add_table('bad', 'entry', 'a.b.c');
SELECT bcmig_add_table('bad', 'entry', 'no table name');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_table('bad', 'entry', '');
SELECT bcmig_add_table('bad', 'entry', '"no such schema".entry');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_table('bad', 'entry', 'bcmig.entry');
SELECT bcmig_add_table('bad', 'entry', 'pg_catalog.entry');
SELECT bcmig_add_table('bad', 'entry', 'public.entry');
\echo :LAST_ERROR_SQLSTATE
SET search_path = nowhere;
SELECT public.bcmig_add_table('bad', 'entry');
SET search_path = regress_green, public;

CREATE TABLE entry (no integer PRIMARY KEY, amount numeric(18,2), note varchar(50));
SELECT bcmig_add_table('bad', 'entry');
\echo :LAST_ERROR_SQLSTATE
CREATE TABLE missing (no integer PRIMARY KEY);
SELECT bcmig_add_table('bad', 'entry', 'missing');
\echo :LAST_ERROR_SQLSTATE
CREATE TABLE narrow (no smallint PRIMARY KEY, amount numeric(18,1), note varchar(49));
SELECT bcmig_add_table('bad', 'entry', 'narrow');
CREATE TABLE other_types (no text PRIMARY KEY, amount double precision, note bytea);
SELECT bcmig_add_table('bad', 'entry', 'other_types');
CREATE TABLE generated (no integer PRIMARY KEY, amount numeric(18,2) GENERATED ALWAYS AS (1) STORED, note text, bc_rowversion integer, must integer NOT NULL);
SELECT bcmig_add_table('bad', 'entry', 'generated');
CREATE TABLE no_key (no integer, amount numeric(18,2), note varchar(50));
SELECT bcmig_add_table('bad', 'entry', 'no_key');
CREATE UNIQUE INDEX ON no_key (no) WHERE no > 0;
CREATE UNIQUE INDEX ON no_key (no, note);
ALTER TABLE no_key ADD UNIQUE (no) DEFERRABLE;
SELECT bcmig_add_table('bad', 'entry', 'no_key');
\echo :LAST_ERROR_SQLSTATE
CREATE VIEW view_target AS SELECT * FROM entry;
SELECT bcmig_add_table('bad', 'entry', 'view_target');
CREATE UNLOGGED TABLE unlogged_target (LIKE entry INCLUDING ALL);
SELECT bcmig_add_table('bad', 'entry', 'unlogged_target');
CREATE TEMP TABLE temp_target (LIKE entry INCLUDING ALL);
\set VERBOSITY sqlstate
SELECT bcmig_add_table('bad', 'entry', 'temp_target');
\set VERBOSITY default
RESET ROLE;
CREATE TABLE regress_green.someone_elses (LIKE regress_green.entry INCLUDING ALL);
ALTER TABLE regress_green.someone_elses OWNER TO regress_bcmig_dba;
SET ROLE regress_bcmig_owner;
SELECT bcmig_add_table('bad', 'entry', 'someone_elses');
\echo :LAST_ERROR_SQLSTATE
REVOKE CREATE ON SCHEMA regress_green FROM regress_bcmig_owner;
SELECT bcmig_add_table('bad', 'dimension');
GRANT CREATE ON SCHEMA regress_green TO regress_bcmig_owner;

-- nothing half made by any of them
SELECT count(*) FROM bcmig.sync_table;
SELECT count(*) FROM bcmig.column_map;
SELECT count(*) FROM pg_class WHERE relnamespace = 'bcmig'::regnamespace AND relkind = 'f' AND relname !~ '^feed_env_\d+$';
SELECT to_regclass('dimension'), to_regclass('heap'), to_regclass('no_grant');

-- twice
SELECT bcmig_add_table('bad', 'entry', 'entry');
SELECT bcmig_add_table('bad', 'entry', 'entry_2');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_create_sync('second', 'bad');
SELECT bcmig_add_table('second', 'entry', 'entry');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_table('second', 'entry');

-- tables of a sync
SELECT bcmig_alter_table('bad', 'nothing', '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_alter_table('bad', 'entry', '{"key": ["amount"]}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_alter_table('bad', 'entry', '{"workers": 3}');
SELECT bcmig_alter_table('bad', 'entry', '{"priority": 10}');
SELECT bcmig_remove_table('bad', 'nothing');
SELECT bcmig_remove_table('second', 'entry');
SELECT bcmig_suspend_table('bad', 'nothing');
SELECT bcmig_resume_table('bad', NULL);
SELECT bcmig_resync_table('bad', 'nothing');
SELECT bcmig_sweep_deletes('bad', 'nothing');

-- start twice, drop while running, stop twice
BEGIN;
SELECT bcmig_start_sync('bad', force => true);
SELECT bcmig_start_sync('bad', force => true);
SAVEPOINT s;
SELECT bcmig_drop_sync('bad');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO s;
SELECT bcmig_drop_sync('bad', dry_run => true);
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO s;
SELECT bcmig_stop_sync('bad');
SELECT bcmig_stop_sync('bad');
ROLLBACK;

-- the server disappears under an environment, or what a role may do on it
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER regress_blue FROM regress_bcmig_owner;
SET ROLE regress_bcmig_owner;
SELECT bcmig_add_table('bad', 'dimension');
\echo :LAST_ERROR_SQLSTATE
SELECT check_name, status, detail, fix FROM bcmig_preflight('bad') WHERE check_name IN ('owner', 'connect');
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER regress_blue TO regress_bcmig_owner;
DROP USER MAPPING FOR regress_bcmig_owner SERVER regress_blue;
SET ROLE regress_bcmig_owner;
SELECT bcmig_add_table('bad', 'dimension');
\echo :LAST_ERROR_SQLSTATE
SELECT check_name, status, detail, fix FROM bcmig_preflight('bad') WHERE check_name IN ('owner', 'connect');
RESET ROLE;
\set VERBOSITY terse
DROP SERVER regress_blue;
\set VERBOSITY default

SET ROLE regress_bcmig_owner;
SELECT count(*) FROM bcmig_drop_sync('bad', true);
SELECT count(*) FROM bcmig_drop_sync('second', true);
SELECT bcmig_remove_environment('bad');
-- the target was not made by bcmig
SELECT to_regclass('entry');
RESET ROLE;

-- take everything down
SET client_min_messages = warning;
DROP SCHEMA regress_green CASCADE;
DROP SERVER regress_blue CASCADE;
DROP SERVER regress_nobody CASCADE;
DROP FOREIGN DATA WRAPPER regress_fdw CASCADE;
DROP DATABASE regress_bcmig_blue;
DROP OWNED BY regress_bcmig_owner, regress_bcmig_other, regress_bcmig_nologin, regress_bcmig_dba, regress_bcmig_reader;
DROP ROLE regress_bcmig_owner, regress_bcmig_other, regress_bcmig_nologin, regress_bcmig_dba, regress_bcmig_reader;
