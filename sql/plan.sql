-- Plans as they are written: what is wrong is said, with its place.
SET ROLE regress_bcmig_owner;
SELECT bcmig_add_environment('plan_blue', 'blue', 'regress_blue');
SELECT bcmig_create_sync('planned', 'plan_blue');

-- the standard plan, and one that makes its sync
SELECT bcmig_create_plan('standard', 'planned');
SELECT position, name, type, action, arguments, active, timeout, retries, compensation FROM bcmig.phase ORDER BY 1;
SELECT bcmig_create_plan('standard', 'planned');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_drop_plan('standard');
SELECT bcmig_create_plan('standard', 'new', NULL, '{"blue": "plan_blue", "company": "CRONUS \"AG\"", "target_schema": "cronus", "steps": [50, 100],
    "stabilization": "10 s", "on_failure": "hold", "validate_mode": "count", "auto_rollback": true}');
SELECT position, name, action, arguments, compensation FROM bcmig.phase WHERE arguments <> '{}' ORDER BY 1;
SELECT name, syncs, waves, options, owner FROM bcmig.plan;
SELECT bcmig_drop_plan('standard');
SELECT bcmig_drop_plan('standard');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_create_plan('standard', 'planned', NULL, '{"blue": "plan_blue"}');
SELECT bcmig_create_plan('standard', 'not there');
SELECT bcmig_create_plan(NULL, 'planned');
SELECT bcmig_create_plan('', 'planned');

-- options
SELECT bcmig_create_plan('p', 'planned', NULL, '{"auto_rolback": true}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_create_plan('p', 'planned', NULL, '[]');
SELECT bcmig_create_plan('p', 'planned', NULL, '{"waves": ["planned"]}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_create_plan('p', 'planned', NULL, '{"waves": [["planned", "planned"]]}');
SELECT bcmig_create_plan('p', 'planned', NULL, '{"waves": [["planned"], []]}');
SELECT bcmig_create_plan('p', 'planned', NULL, '{"waves": [["other"]]}');
SELECT bcmig_create_plan('p', 'planned', NULL, '{"waves": {}}');
SELECT bcmig_create_plan('p', 'planned', NULL, '{"steps": [50, 50]}');
SELECT bcmig_create_plan('p', 'planned', NULL, '{"steps": 50}');
SELECT bcmig_create_plan('p', 'planned', NULL, '{"steps": []}');
SELECT bcmig_create_plan('p', 'planned', NULL, '{"stabilization": -1}');
SELECT bcmig_create_plan('p', NULL);

-- phases that cannot be read
SELECT bcmig_create_plan('p', NULL, '{}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_create_plan('p', NULL, '"x"');
SELECT bcmig_create_plan('p', NULL, '[]');
SELECT bcmig_create_plan('p', NULL, '[1]');
SELECT bcmig_create_plan('p', NULL, '[{}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": ""}]');
SELECT bcmig_create_plan('p', NULL, jsonb_build_array(jsonb_build_object('name', repeat('n', 64), 'type', 'code', 'sql', 'SELECT 1')));
SELECT bcmig_create_plan('p', NULL, '[{"name": "a"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "sql": "SELECT 1"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "kode", "sql": "SELECT 1"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "aktion": "sql"}]');
SELECT bcmig_create_plan('p', 'planned', '[{"name": "a", "action": "validat"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "action": "validate"}]');
SELECT bcmig_create_plan('p', 'planned', '[{"name": "a", "action": "validate", "arguments": {"mod": "full"}}]');
SELECT bcmig_create_plan('p', 'planned', '[{"name": "a", "action": "create_sync"}]');
SELECT bcmig_create_plan('p', 'planned', '[{"name": "a", "action": "validate", "arguments": []}]');
SELECT bcmig_create_plan('p', 'planned', '[{"name": "a", "action": "validate", "sql": "SELECT 1"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "action": "sql"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELEC 1"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": " -- nothing"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1; COMMIT"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "set session authorization regress_bcmig_dba"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "RESET ROLE"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "timeout": "-1 s"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "timeout": 0}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "timeout": "soon"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "backoff": "-1 s"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "retries": -1}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "retries": "many"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "active": "yes"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "approval": "regress_nobody"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "precondition": "SELECT"}, {"name": "a", "type": "code", "sql": "SELECT 1"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "precondition": "tru"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "compensation": "undo it"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1"}]', '{"auto_rollback": true}');

-- order
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "depends_on": ["x"]}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "depends_on": "b"}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "z", "type": "code", "sql": "SELECT 1", "depends_on": ["b"]}, {"name": "a", "type": "code", "sql": "SELECT 1", "depends_on": ["c"]},
    {"name": "b", "type": "code", "sql": "SELECT 1", "depends_on": ["a"]}, {"name": "c", "type": "code", "sql": "SELECT 1", "depends_on": ["b"]}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "depends_on": ["a"]}]');
SELECT bcmig_create_plan('p', NULL, '[{"name": "d", "type": "code", "sql": "SELECT 1", "position": 4}, {"name": "a", "type": "code", "sql": "SELECT 1", "depends_on": ["c"], "position": 1},
    {"name": "b", "type": "code", "sql": "SELECT 1", "position": 2}, {"name": "c", "type": "code", "sql": "SELECT 1", "position": 3, "timeout": 1500, "backoff": "1 min 1 s"}]');
SELECT position, name, timeout, backoff FROM bcmig.phase ORDER BY 1;

-- rows of a table are phases too
SELECT bcmig_create_plan('rows', NULL, (SELECT jsonb_agg(to_jsonb(r)) FROM (VALUES (2, 'b', 'code', 'SELECT 2', NULL), (1, 'a', 'schema', 'SELECT 1', '1 min')) r (position, name, type, sql, timeout)));
SELECT position, f.name, type, timeout FROM bcmig.phase f JOIN bcmig.plan p USING (plan_id) WHERE p.name = 'rows' ORDER BY 1;
SELECT bcmig_drop_plan('rows');

-- who may, and what is not there
RESET ROLE;
SET ROLE regress_bcmig_other;
SELECT bcmig_create_plan('q', 'planned');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_execute_plan('p');
SELECT * FROM bcmig_rehearse_plan('p');
SELECT bcmig_drop_plan('p');
\echo :LAST_ERROR_SQLSTATE
SET ROLE regress_bcmig_owner;
SELECT bcmig_execute_plan('not there');
SELECT * FROM bcmig_rehearse_plan('not there');
SELECT bcmig_pause_execution(4711);
SELECT bcmig_resume_execution(NULL);
SELECT bcmig_cancel_execution(4711);
SELECT bcmig_approve_phase(4711, 'a');
SELECT bcmig_skip_phase(4711, 'a', NULL);
SELECT bcmig_drop_plan('p');

-- the steps there are
RESET ROLE;
SELECT step, type, arguments, compensation FROM bcmig.plan_step;
SELECT event, detail FROM bcmig.audit_log WHERE event LIKE '%plan' ORDER BY audit_id;
SET ROLE regress_bcmig_owner;
SELECT count(*) FROM bcmig_drop_sync('planned');
SELECT bcmig_remove_environment('plan_blue');
