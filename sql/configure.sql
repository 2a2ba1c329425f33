-- Environments, syncs and tables as a DBA configures them.
SET ROLE regress_bcmig_owner;
SET search_path = regress_green, public;

-- environments
SELECT bcmig_add_environment('production', 'blue', 'regress_blue', 'https://bc.example/health');
SELECT name, side, server, health_url, options, owner FROM bcmig.environment ORDER BY name;
SELECT bcmig_alter_environment('production', '{"connect_timeout": "20s"}');
SELECT options FROM bcmig.environment WHERE name = 'production';

-- blue without its tracking schema readable: said, with what to do
SELECT check_name, status, bound, detail, fix FROM bcmig_check_environment('production');
SELECT check_name, status FROM bcmig_check_environment('green');

-- a blue that is not there is a failing check, not an error
SELECT bcmig_add_environment('nowhere', 'blue', 'regress_nobody');
SELECT check_name, status, value FROM bcmig_check_environment('nowhere');
SELECT bcmig_remove_environment('nowhere');

-- a sync and its tables, capture by what blue tracks: nothing is visible yet
SELECT bcmig_create_sync('cronus', 'production', '{"batch_rows": 500}');
BEGIN;
SELECT bcmig_add_table('cronus', 'entry');
SELECT capture, version_column FROM bcmig.sync_table;
ROLLBACK;

-- now the reader may see it
RESET ROLE;
SELECT current_database() AS green \gset
\c regress_bcmig_blue
GRANT USAGE ON SCHEMA bcmig_blue TO regress_bcmig_reader;
GRANT SELECT ON bcmig_blue.tracked TO regress_bcmig_reader;
\c :green
SET ROLE regress_bcmig_owner;
SET search_path = regress_green, public;

SELECT bcmig_add_table('cronus', 'CRONUS$Customer');
SELECT bcmig_add_table('cronus', 'entry', options => '{"priority": 1}');
SELECT bcmig_add_table('cronus', 'dimension');
SELECT bcmig_add_table('cronus', 'heap');
SELECT bcmig_add_table('cronus', 'unique_only', 'only_b');
SELECT bcmig_add_table('cronus', 'parted');
SELECT bcmig_add_table('cronus', 'bc_names');
SELECT bcmig_add_table('cronus', 'entry', 'other_entry', '{"source_schema": "Other Schema"}');
SELECT source_schema, source_table, target_schema, target_table, capture, version_column, made_target, options, indexes
  FROM bcmig.sync_table ORDER BY target_table COLLATE "C";
SELECT t.target_table, m.ordinal, m.source_column, m.source_type, m.target_column, m.target_type, m.key_position, m.row_identity
  FROM bcmig.column_map m JOIN bcmig.sync_table t USING (table_id) ORDER BY t.target_table COLLATE "C", m.ordinal;
SELECT t.target_table, s.state, s.position, s.rows_copied FROM bcmig.table_state s JOIN bcmig.sync_table t USING (table_id) ORDER BY t.target_table COLLATE "C";
SELECT s.state FROM bcmig.sync_state s JOIN bcmig.sync USING (sync_id) WHERE name = 'cronus';

-- what was made
\d "CRONUS$Customer"
\d dimension
\d heap
\d bc_names
SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'regress_green';
SELECT count(*), bool_and(pg_get_userbyid(c.relowner) = 'regress_bcmig_owner') AS ours
  FROM pg_class c JOIN bcmig.sync_table t ON t.feed = c.relname AND c.relnamespace = 'bcmig'::regnamespace;
SELECT string_agg(format('%s %s', a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
  FROM pg_attribute a JOIN bcmig.sync_table t ON a.attrelid = format('bcmig.%I', t.feed)::regclass
 WHERE t.target_table = 'dimension' AND a.attnum > 0;

-- names of every kind, kept exactly on blue's side
SELECT bcmig_create_sync('a "name".with $ and é', 'production');
SELECT bcmig_add_table('a "name".with $ and é', n) FROM unnest(ARRAY['quote".dot$', 'trailing ', 'trailing', 'select',
    'Þórður ærøskøbing Straße', 'ÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅÅx']) n;
SELECT quote_literal(t.source_table) AS source, quote_literal(t.target_table) AS target, t.capture,
       string_agg(quote_literal(m.target_column), ', ' ORDER BY m.ordinal) AS columns
  FROM bcmig.sync_table t JOIN bcmig.sync s USING (sync_id) JOIN bcmig.column_map m USING (table_id)
 WHERE s.name LIKE 'a %' GROUP BY 1, 2, 3 ORDER BY quote_literal(t.source_table) COLLATE "C";
-- each is found again, as written or quoted
SELECT bcmig_alter_table('a "name".with $ and é', n, '{"priority": 9}') FROM unnest(ARRAY['quote".dot$', '"quote"".dot$"',
    'regress_green."trailing "', 'regress_green.trailing', '"select"', 'Þórður ærøskøbing Straße']) n;
SELECT quote_literal(target_table) FROM bcmig.sync_table WHERE options @> '{"priority": 9}' ORDER BY quote_literal(target_table) COLLATE "C";
SELECT expected FROM bcmig_drop_sync('a "name".with $ and é', true);
SELECT count(*) FROM pg_tables WHERE schemaname = 'regress_green' AND tablename LIKE 'trail%';

-- the option key: other columns than blue's own key
SELECT bcmig_create_sync('keys', 'production');
SELECT bcmig_add_table('keys', 'heap', 'heap_by_c', '{"key": ["c", "b"]}');
SELECT bcmig_add_table('keys', 'entry', 'entry_by_amount', '{"key": ["amount"]}');
SELECT bcmig_add_table('keys', 'dimension', 'dimension_keyed', '{"key": ["Code", "Set"], "capture": "rowversion"}');
SELECT t.target_table, t.capture, string_agg(m.target_column, ', ' ORDER BY m.key_position) AS key
  FROM bcmig.sync_table t JOIN bcmig.sync s USING (sync_id) JOIN bcmig.column_map m USING (table_id)
 WHERE s.name = 'keys' AND m.key_position IS NOT NULL GROUP BY 1, 2 ORDER BY 1;
\d heap_by_c

-- existing tables as targets
CREATE TABLE wide (no bigint PRIMARY KEY, amount numeric(20,4), note text, extra integer DEFAULT 1, serial integer GENERATED ALWAYS AS IDENTITY);
CREATE TABLE parts (no integer, amount numeric, note varchar(50)) PARTITION BY RANGE (no);
CREATE UNIQUE INDEX parts_no ON parts (no);
SELECT bcmig_create_sync('wide', 'production');
SELECT bcmig_add_table('wide', 'entry', 'regress_green.wide', '{"capture": "snapshot"}');
SELECT bcmig_create_sync('parts', 'production');
SELECT bcmig_add_table('parts', 'entry', 'parts');
SELECT s.name, t.target_table, t.made_target, t.capture, t.indexes, m.target_column, m.source_type, m.target_type
  FROM bcmig.sync_table t JOIN bcmig.sync s USING (sync_id) JOIN bcmig.column_map m USING (table_id)
 WHERE t.target_table IN ('wide', 'parts') ORDER BY 1, 2, m.ordinal;

-- another capture once blue tracks the table
SELECT bcmig_alter_table('parts', 'parts', '{"capture": "rowversion"}');
SELECT capture FROM bcmig.sync_table WHERE target_table = 'parts';
SELECT bcmig_alter_table('parts', 'parts', '{"capture": null}');
SELECT capture, options FROM bcmig.sync_table WHERE target_table = 'parts';

-- preflight: both sides in one cluster is refused; values differ by machine
SELECT check_name, status, detail, fix FROM bcmig_preflight('parts') WHERE status = 'fail' ORDER BY 1, 3;
SELECT check_name, status FROM bcmig_preflight('parts') WHERE status <> 'fail'
   AND check_name NOT IN ('workers', 'disk', 'green version', 'loaded', 'blue synchronous commit') ORDER BY 1;
INSERT INTO wide VALUES (1);
ALTER TABLE heap_by_c RENAME TO heap_gone;
SELECT check_name, status, value, detail, fix FROM bcmig_preflight('keys') WHERE check_name ~ '^(source|target|tracking)' ORDER BY 1, 3;
SELECT check_name, status, value, detail, fix FROM bcmig_preflight('wide') WHERE check_name ~ '^(source|target|tracking)' AND status <> 'ok' ORDER BY 1, 3;
ALTER TABLE heap_gone RENAME TO heap_by_c;
-- blue drifts away
RESET ROLE;
\c regress_bcmig_blue
ALTER TABLE entry RENAME COLUMN note TO remark;
ALTER TABLE entry ALTER COLUMN amount TYPE numeric(30,2);
REVOKE SELECT ON dimension FROM regress_bcmig_reader;
DELETE FROM bcmig_blue.tracked WHERE relid = 'dimension'::regclass;
\c :green
SET ROLE regress_bcmig_owner;
SET search_path = regress_green, public;
SELECT check_name, status, value, detail, fix FROM bcmig_preflight('keys') WHERE check_name ~ '^(source|tracking)' AND status <> 'ok' ORDER BY 1, 3, 4;
SELECT target, rows >= 0 AS rows, bytes > 0 AS bytes, seconds > 0 AS seconds, basis FROM bcmig_estimate('keys') ORDER BY 1;

-- start is refused by preflight, and forced
\set VERBOSITY sqlstate
SELECT bcmig_start_sync('parts');
\set VERBOSITY default
BEGIN;
SELECT bcmig_start_sync('parts', force => true);
SELECT bcmig_start_sync('parts');
SELECT wanted FROM bcmig.sync WHERE name = 'parts';
SELECT bcmig_sync_now('parts');
SELECT bcmig_sweep_deletes('parts', 'parts');
SELECT bcmig_retry_quarantine('parts');
SELECT kind, ids FROM bcmig.request ORDER BY request_id;
SELECT bcmig_stop_sync('parts');
SELECT bcmig_stop_sync('parts');
ROLLBACK;

-- suspend and resume
SELECT bcmig_suspend_table('parts', 'parts');
SELECT bcmig_suspend_table('parts', 'parts');
SELECT state, reason ~ '^suspended by ' AS reason, resume_state FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'parts';
SELECT bcmig_resume_table('parts', 'parts');
SELECT bcmig_resume_table('parts', 'parts');
SELECT state, reason, resume_state, delete_confirmed FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'parts';
-- resync: of a table that has begun, and of a suspended one
BEGIN;
RESET ROLE;
UPDATE bcmig.table_state SET state = 'streaming', position = 5 WHERE table_id = (SELECT table_id FROM bcmig.sync_table WHERE target_table = 'parts');
SET ROLE regress_bcmig_owner;
SELECT bcmig_resync_table('parts', 'parts');
SELECT state, reason FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'parts';
SELECT bcmig_suspend_table('parts', 'parts');
SELECT bcmig_resync_table('parts', 'parts');
SELECT state, resume_state FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'parts';
ROLLBACK;

-- quarantined rows: discarded by name, kept in the audit log
RESET ROLE;
INSERT INTO bcmig.quarantine (sync_id, table_id, key, image, operation, sqlstate, message)
SELECT sync_id, table_id, '["7"]', '{"no": "7"}', 'upsert', '22001', 'value too long' FROM bcmig.sync_table WHERE target_table = 'parts';
SET ROLE regress_bcmig_owner;
\set VERBOSITY sqlstate
SELECT bcmig_discard_quarantine('keys', (SELECT array_agg(quarantine_id) FROM bcmig.quarantine));
\set VERBOSITY default
SELECT bcmig_discard_quarantine('parts', (SELECT array_agg(quarantine_id) FROM bcmig.quarantine));
SELECT count(*) FROM bcmig.quarantine;
SELECT target, regexp_replace(detail, 'row \d+', 'row N') AS detail FROM bcmig.audit_log WHERE event = 'bcmig_discard_quarantine';

-- scripts for blue
SELECT bcmig_blue_script('login') \g (format=unaligned tuples_only=on)
SELECT bcmig_blue_script('login', 'keys') \g (format=unaligned tuples_only=on)
SELECT bcmig_blue_script('tracking') \g (format=unaligned tuples_only=on)
SELECT bcmig_blue_script('tracking', 'keys') \g (format=unaligned tuples_only=on)
SELECT bcmig_blue_script('cleanup', 'parts') \g (format=unaligned tuples_only=on)

-- drop: said first, then done; tables that were there before stay
SELECT step, "where", regexp_replace(statement, 'feed_\d+', 'feed_N') AS statement, reversible, expected FROM bcmig_drop_sync('keys', drop_tables => true, dry_run => true);
SELECT count(*) FROM bcmig.sync WHERE name = 'keys';
SELECT count(*) FROM bcmig_drop_sync('keys', drop_tables => true);
SELECT count(*) FROM bcmig_drop_sync('parts');
SELECT count(*) FROM bcmig_drop_sync('wide', drop_tables => true);
SELECT bcmig_remove_table('cronus', 'only_b');
SELECT to_regclass('only_b');
SELECT count(*) FROM bcmig_drop_sync('cronus');
SELECT tablename FROM pg_tables WHERE schemaname = 'regress_green' ORDER BY 1;
SELECT relname FROM pg_class WHERE relnamespace = 'bcmig'::regnamespace AND relkind = 'f' AND relname !~ '^feed_env_\d+$';
SELECT bcmig_remove_environment('production');
SELECT count(*) FROM pg_class WHERE relnamespace = 'bcmig'::regnamespace AND relkind = 'f';

-- everything was written down
SELECT event, count(*) FROM bcmig.audit_log WHERE kind = 'command' AND (sync_name ~ '^(cronus|keys|parts|wide|a )' OR target = 'production') GROUP BY 1 ORDER BY 1;

DROP TABLE wide, parts, "CRONUS$Customer", entry, dimension, heap, only_b, parted, bc_names, other_entry;
RESET ROLE;
\c regress_bcmig_blue
ALTER TABLE entry RENAME COLUMN remark TO note;
ALTER TABLE entry ALTER COLUMN amount TYPE numeric(18,2);
GRANT SELECT ON dimension TO regress_bcmig_reader;
INSERT INTO bcmig_blue.tracked VALUES ('dimension'::regclass, 'rowversion', 'timestamp');
