-- Options: units, bounds, choices, scopes, near names.
\set VERBOSITY default
SET ROLE regress_bcmig_owner;
SELECT bcmig_add_environment('opt', 'blue', 'regress_blue', options => '{"connect_timeout": "30s"}');
SELECT bcmig_create_sync('opt', 'opt');

-- every option has a meaning, and a default that is valid
SELECT name FROM bcmig.option WHERE meaning !~ '\.$' OR kind = 'enum' AND choices IS NULL;
SELECT bcmig_alter_sync('opt', jsonb_object_agg(name, default_value)) FROM bcmig.option
 WHERE 'sync' = ANY (scope) AND default_value IS NOT NULL;
SELECT jsonb_pretty(options) FROM bcmig.sync WHERE name = 'opt';

-- null resets
SELECT bcmig_alter_sync('opt', (SELECT jsonb_object_agg(name, NULL) FROM bcmig.option WHERE 'sync' = ANY (scope)));
SELECT options FROM bcmig.sync WHERE name = 'opt';

-- units and normal form
SELECT bcmig_alter_sync('opt', '{"max_latency": "2 s", "sweep_interval": "15min", "chunk_target": 1500, "batch_rows": "500",
    "error_threshold": 2.5, "copy_data": "off", "workers": "auto", "capture": "snapshot", "poll_interval": "100ms"}');
SELECT options FROM bcmig.sync WHERE name = 'opt';
SELECT bcmig_alter_sync('opt', '{"max_latency": "1500us"}');
SELECT bcmig_alter_sync('opt', '{"sweep_interval": "1.5h", "max_latency": null, "copy_data": true}');
SELECT options FROM bcmig.sync WHERE name = 'opt';
SELECT bcmig_alter_sync('opt', NULL);

-- values outside their kind or bounds
SELECT bcmig_alter_sync('opt', '{"batch_rows": 0}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_alter_sync('opt', '{"batch_rows": -5}');
SELECT bcmig_alter_sync('opt', '{"batch_rows": 1e30}');
SELECT bcmig_alter_sync('opt', '{"batch_rows": 1.5}');
SELECT bcmig_alter_sync('opt', '{"batch_rows": "many"}');
SELECT bcmig_alter_sync('opt', '{"batch_rows": true}');
SELECT bcmig_alter_sync('opt', '{"batch_rows": [1]}');
SELECT bcmig_alter_sync('opt', '{"batch_rows": "10ms"}');
SELECT bcmig_alter_sync('opt', '{"batch_rows": "NaN"}');
SELECT bcmig_alter_sync('opt', '{"max_latency": "1 parsec"}');
SELECT bcmig_alter_sync('opt', '{"max_latency": "1h 1h"}');
SELECT bcmig_alter_sync('opt', '{"max_latency": "9999999999d"}');
SELECT bcmig_alter_sync('opt', '{"workers": "all"}');
SELECT bcmig_alter_sync('opt', '{"capture": "telepathy"}');
SELECT bcmig_alter_sync('opt', '{"capture": 5}');
SELECT bcmig_alter_sync('opt', '{"copy_data": "perhaps"}');
SELECT bcmig_alter_sync('opt', '{"copy_data": 1}');
SELECT bcmig_alter_sync('opt', '{"source_schema": ""}');
SELECT bcmig_alter_sync('opt', '{"source_schema": {"a": 1}}');
SELECT bcmig_alter_sync('opt', '["batch_rows"]');
SELECT bcmig_alter_sync('opt', '5');
\echo :LAST_ERROR_SQLSTATE

-- unknown keys name the near ones; a wrong scope is no unknown key
SELECT bcmig_alter_sync('opt', '{"batch_row": 5}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_alter_sync('opt', '{"latency": 5}');
SELECT bcmig_alter_sync('opt', '{"Batch_Rows": 5}');
SELECT bcmig_alter_sync('opt', '{"zzzzzzzzzzzzzzz": 5}');
SELECT bcmig_alter_sync('opt', '{"": 5}');
SELECT bcmig_alter_sync('opt', jsonb_build_object(repeat('x', 300), 1));
SELECT bcmig_alter_sync('opt', '{"priority": 5}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_alter_environment('opt', '{"batch_rows": 5}');

-- nothing of a bad change is kept
SELECT bcmig_alter_sync('opt', '{"batch_rows": 7, "max_errors": 0}');
SELECT options FROM bcmig.sync WHERE name = 'opt';

-- effective values and where they come from
SET search_path = regress_green, public;
SELECT bcmig_add_table('opt', 'unique_only', options => '{"batch_rows": 50, "priority": 1, "max_latency": "1s"}');
SELECT o.name, value, source FROM bcmig.effective_option o JOIN bcmig.sync s USING (sync_id)
 WHERE s.name = 'opt' AND o.name IN ('batch_rows', 'priority', 'max_latency', 'sweep_interval', 'workers', 'copy_data', 'chunk_target')
 ORDER BY o.name;
SELECT bcmig_alter_table('opt', 'unique_only', '{"batch_rows": null, "max_latency": null}');
SELECT o.name, value, source FROM bcmig.effective_option o JOIN bcmig.sync s USING (sync_id)
 WHERE s.name = 'opt' AND o.name IN ('batch_rows', 'max_latency') ORDER BY o.name;

SELECT count(*) FROM bcmig_drop_sync('opt', drop_tables => true);
SELECT bcmig_remove_environment('opt');
