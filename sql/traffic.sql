-- Balancers as they are configured, and where requests go.
SET ROLE regress_bcmig_owner;
SET search_path = regress_green, public;
SELECT bcmig_add_environment('traffic_blue', 'blue', 'regress_blue');
SELECT bcmig_create_sync('front', 'traffic_blue');
SELECT bcmig_create_sync('other_front', 'traffic_blue');

-- balancers
SELECT bcmig_add_balancer('front', 'lb', 'nginx', 'http://127.0.0.1/');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_balancer('front', 'lb', 'haproxy', 'http://127.0.0.1/', '{"backend": "bc", "blue": ["b1"], "green": ["g1"]}');
SELECT bcmig_add_balancer('front', 'lb', 'haproxy', 'tcp://127.0.0.1:1', '{"backend": "bc", "blue": ["b1"]}');
SELECT bcmig_add_balancer('front', 'lb', 'haproxy', 'tcp://127.0.0.1:1', '{"backend": "bc; shutdown", "blue": ["b1"], "green": ["g1"]}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_balancer('front', 'lb', 'haproxy', 'tcp://127.0.0.1:1', '[]');
SELECT bcmig_add_balancer('front', NULL, 'haproxy', 'tcp://127.0.0.1:1');
BEGIN;
SELECT count(bcmig_add_balancer('front', 'lb', 'haproxy', 'tcp://127.0.0.1:1', '{"backend": "bc", "blue": ["b1"], "green": ["g1"]}'));
SAVEPOINT s;
SELECT bcmig_add_balancer('front', 'lb', 'haproxy', 'tcp://127.0.0.1:2', '{"backend": "bc", "blue": ["b1"], "green": ["g1"]}');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO s;
SELECT bcmig_add_balancer('other_front', 'lb', 'haproxy', 'tcp://127.0.0.1:1', '{"backend": "bc", "blue": ["b1"], "green": ["g1"]}');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK TO s;
SELECT sync, green_percent, writes, balancers, balancer_problems FROM bcmig.traffic_status WHERE sync LIKE '%front';
SELECT bcmig_remove_balancer('front', 'lb');
SELECT bcmig_remove_balancer('front', 'lb');
ROLLBACK;
SELECT target, event FROM bcmig.audit_log WHERE event LIKE '%balancer';
SELECT bcmig_add_balancer('front', 'lb', 'haproxy', 'tcp://127.0.0.1:1', '{"backend": "bc", "blue": ["b1"], "gren": ["g1"]}');
SELECT bcmig_add_balancer('front', 'lb', 'haproxy', NULL, '{"backend": "bc", "blue": ["b1"], "green": ["g1"]}');

-- balancers that are SQL functions
CREATE FUNCTION regress_green.set_share(sync text, percent numeric) RETURNS void LANGUAGE sql AS 'SELECT';
CREATE FUNCTION regress_green.get_share(sync text) RETURNS numeric LANGUAGE sql AS 'SELECT 0.0';
CREATE FUNCTION regress_green.set_share(sync text, percent float8) RETURNS void LANGUAGE sql AS 'SELECT';
SELECT bcmig_add_balancer('front', 'f', 'function', 'http://127.0.0.1/', '{"set": "regress_green.set_share(text,numeric)", "get": "regress_green.get_share(text)"}');
SELECT bcmig_add_balancer('front', 'f', 'function', NULL);
SELECT bcmig_add_balancer('front', 'f', 'function', NULL, '{"set": "regress_green.set_share(text,numeric)"}');
SELECT bcmig_add_balancer('front', 'f', 'function', NULL, '{"set": "regress_green.set_share", "get": "regress_green.get_share(text)"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_balancer('front', 'f', 'function', NULL, '{"set": "set_share(text,numeric)", "get": "regress_green.get_share(text)"}');
SELECT bcmig_add_balancer('front', 'f', 'function', NULL, '{"set": "regress_green.set_share(text,float8)", "get": "regress_green.get_share(text)"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_balancer('front', 'f', 'function', NULL, '{"set": "regress_green.set_share(text,numeric)", "get": "pg_catalog.upper(text)"}');
SELECT bcmig_add_balancer('front', 'f', 'function', NULL, '{"set": "regress_green.set_share(text,numeric); DROP TABLE x", "get": "regress_green.get_share(text)"}');
SELECT bcmig_add_balancer('front', 'f', 'function', NULL, '{"set": "regress_green.set_share(text,numeric)", "get": "regress_green.get_share(text)", "url": 1}');
REVOKE EXECUTE ON FUNCTION regress_green.set_share(text, numeric) FROM PUBLIC, regress_bcmig_owner;
SELECT bcmig_add_balancer('front', 'f', 'function', NULL, '{"set": "regress_green.set_share(text,numeric)", "get": "regress_green.get_share(text)"}');
\echo :LAST_ERROR_SQLSTATE
GRANT EXECUTE ON FUNCTION regress_green.set_share(text, numeric) TO regress_bcmig_owner;
BEGIN;
SELECT count(bcmig_add_balancer('front', 'f', 'function', NULL, '{"set": "regress_green.set_share(text,numeric)", "get": "regress_green.get_share(text)"}'));
SELECT bcmig_add_balancer('other_front', 'f', 'function', '', '{"set": "\"regress_green\".set_share(pg_catalog.text, decimal)", "get": "regress_green.get_share(text)"}');
\echo :LAST_ERROR_SQLSTATE
ROLLBACK;
DROP FUNCTION regress_green.set_share(text, numeric), regress_green.set_share(text, float8), regress_green.get_share(text);

-- hosts for HTTP requests
RESET ROLE;
CREATE SERVER regress_gw FOREIGN DATA WRAPPER bcmig_http;
CREATE SERVER regress_gw FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'gw.example');
CREATE SERVER regress_gw FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'file:///etc/passwd');
CREATE SERVER regress_gw FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'https://user:secret@gw.example/');
CREATE SERVER regress_gw FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'https://gw.example/?a=b');
CREATE SERVER regress_gw FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'https://gw.example/api', ca_file 'pem');
CREATE SERVER regress_gw FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'https://gw.example/api', password 'x');
\echo :LAST_ERROR_SQLSTATE
CREATE SERVER regress_gw FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'https://gw.example/api', ca_file '/etc/ssl/gw.pem');
ALTER SERVER regress_gw OPTIONS (DROP url);
CREATE USER MAPPING FOR regress_bcmig_owner SERVER regress_gw OPTIONS (url 'https://gw.example/');
CREATE FOREIGN TABLE regress_green.gw (a int) SERVER regress_gw OPTIONS (url 'x');

-- balancers that are set by them
CREATE FUNCTION add_http(url text, change jsonb) RETURNS void LANGUAGE sql AS $f$
    SELECT bcmig_add_balancer('front', 'h', 'http', url, (SELECT jsonb_strip_nulls(
        jsonb_build_object('server', coalesce(change->'server', to_jsonb('regress_gw'::text))) || (change - 'set' - 'get' - 'server') || jsonb_build_object(
        'set', CASE WHEN jsonb_typeof(change->'set') IS DISTINCT FROM 'object' AND change ? 'set' THEN change->'set'
               ELSE '{"url": "w", "body": "{\"green\": {{percent}}}"}' || coalesce(change->'set', '{}') END,
        'get', '{"url": "w", "path": "$.green"}' || coalesce(change->'get', '{}'))))) $f$;
GRANT EXECUTE ON FUNCTION add_http TO regress_bcmig_owner;
SET ROLE regress_bcmig_owner;
\set VERBOSITY terse
SELECT add_http('https://gw.example/api/', '{}');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
GRANT USAGE ON FOREIGN SERVER regress_gw TO regress_bcmig_owner;
SET ROLE regress_bcmig_owner;
SELECT add_http('https://gw.example/api/', '{"server": "regress_nowhere"}');
SELECT add_http('https://gw.example/api/', '{"server": "regress_blue"}');
SELECT add_http('https://gw.example/api/', '{"server": 1}');
SELECT add_http(NULL, '{}');
SELECT add_http('gw.example', '{}');
SELECT add_http('ftp://gw.example/api/', '{}');
SELECT add_http('https://user:secret@gw.example/api/', '{}');

-- requests stay below the url of the server
SELECT add_http('https://gw.example.evil/api/', '{}');
SELECT add_http('http://gw.example/api/', '{}');
SELECT add_http('https://gw.example:8443/api/', '{}');
SELECT add_http('https://gw.example/', '{}');
SELECT add_http('https://gw.example/apis/', '{}');
SELECT add_http('https://gw.example/api/', '{"set": {"url": "https://evil.example/api/w"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"url": "//evil.example/api/w"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"url": "/admin"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"url": "../admin"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"url": "%2E%2e/admin"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"url": "..%2fadmin"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"url": "..\\admin"}}');
SELECT add_http('https://gw.example', '{"set": {"url": "@evil.example/api/w"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"url": "w\r\nX: y"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"url": "w#x"}}');

-- what a request is made of
SELECT add_http('https://gw.example/api/', '{"sett": {}}');
SELECT add_http('https://gw.example/api/', '{"set": "PUT"}');
SELECT add_http('https://gw.example/api/', '{"set": {"verb": "PUT"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"path": "$.green"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"method": "TRACE"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"method": "PUT / HTTP/1.1\r\nX: y"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"url": ["w"]}}');
SELECT add_http('https://gw.example/api/', '{"set": {"body": {"green": 1}}}');
SELECT add_http('https://gw.example/api/', '{"set": {"body": "{\"green\": 50}"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"headers": ["X"]}}');
SELECT add_http('https://gw.example/api/', '{"set": {"headers": {"X": 1}}}');
SELECT add_http('https://gw.example/api/', '{"set": {"headers": {"X": ""}}}');
SELECT add_http('https://gw.example/api/', '{"set": {"headers": {"X: y\r\nZ": "1"}}}');
SELECT add_http('https://gw.example/api/', '{"set": {"headers": {"X": "y\r\nZ: 1"}}}');
SELECT add_http('https://gw.example/api/', '{"set": {"headers": {"host": "evil.example"}}}');
SELECT add_http('https://gw.example/api/', '{"set": {"headers": {"authorization": "Bearer secret"}}}');
SELECT add_http('https://gw.example/api/', '{"set": {"expect_status": 200}}');
SELECT add_http('https://gw.example/api/', '{"set": {"expect_status": []}}');
SELECT add_http('https://gw.example/api/', '{"set": {"expect_status": [302]}}');
SELECT add_http('https://gw.example/api/', '{"set": {"expect_status": ["200"]}}');
SELECT add_http('https://gw.example/api/', '{"get": {"path": "$."}}');
SELECT add_http('https://gw.example/api/', '{"get": {"path": ["$"]}}');

-- templates
SELECT add_http('https://gw.example/api/', '{"set": {"url": "{{percent"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"url": "{{pecent}}"}}');
SELECT add_http('https://gw.example/api/', '{"get": {"url": "{{percent}}"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"headers": {"Content-Type": "text/xml"}, "body": "<a green=\"{{percent}}\">{{sync}}</a>"}}');
SELECT add_http('https://gw.example/api/', '{"set": {"headers": {"Authorization": "Bearer {{token}}"}}}');
RESET ROLE;
CREATE USER MAPPING FOR regress_bcmig_owner SERVER regress_gw OPTIONS (user 'clerk', token 'hidden');
SET ROLE regress_bcmig_owner;
SELECT add_http('https://gw.example/api/', '{"set": {"headers": {"Authorization": "Basic {{basic}}"}}}');
BEGIN;
SELECT add_http('https://gw.example/api/', '{"set": {"headers": {"Authorization": "Bearer {{token}}"}}}');
SELECT url, options FROM bcmig.balancer WHERE driver = 'http';
SELECT detail FROM bcmig.audit_log WHERE event = 'bcmig_add_balancer';
ROLLBACK;
\set VERBOSITY default
RESET ROLE;
DROP FUNCTION add_http;
DROP SERVER regress_gw CASCADE;
SET ROLE regress_bcmig_owner;
SET ROLE regress_bcmig_other;
SELECT bcmig_add_balancer('front', 'lb', 'haproxy', 'tcp://127.0.0.1:1', '{"backend": "bc", "blue": ["b1"], "green": ["g1"]}');
SET ROLE regress_bcmig_owner;

-- gates of one's own
SELECT bcmig_add_gate('no such sync', 'g', 'SELECT true');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_gate('front', NULL, 'SELECT true');
SELECT bcmig_add_gate('front', 'g', NULL);
SELECT bcmig_add_gate('front', 'g', '');
SELECT bcmig_add_gate('front', E'two\nlines', 'SELECT true');
SELECT bcmig_add_gate('front', 'lag', 'SELECT true');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_gate('front', 'lag of other_front', 'SELECT true');
SELECT bcmig_add_gate('front', 'g', 'SELECT 1');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_gate('front', 'g', 'SELECT true, true');
SELECT bcmig_add_gate('front', 'g', 'SELECT');
SELECT bcmig_add_gate('front', 'g', 'SELECT true; SELECT true');
SELECT bcmig_add_gate('front', 'g', '-- nothing');
SELECT bcmig_add_gate('front', 'g', 'DROP TABLE bcmig.sync');
SELECT bcmig_add_gate('front', 'g', 'WITH d AS (DELETE FROM pg_class RETURNING true AS t) SELECT t FROM d');
SELECT bcmig_add_gate('front', 'g', 'SELECT true FROM no_such_table');
SELECT bcmig_add_gate('front', 'g', 'SELECT (');
SELECT bcmig_add_gate('front', 'g', 'SELECT true FROM pg_authid FOR UPDATE');
SELECT name, query FROM bcmig.gate;
SELECT bcmig_add_gate('front', 'g', 'SELECT count(*) >= 0 FROM pg_class');
SELECT bcmig_add_gate('front', 'g', 'SELECT false');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_gate('other_front', 'g', 'SELECT false');
SELECT * FROM bcmig_check_gates('front') WHERE check_name = 'g';
SELECT bcmig_remove_gate('front', 'h');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_remove_gate('front', NULL);
SET ROLE regress_bcmig_other;
SELECT bcmig_add_gate('front', 'h', 'SELECT true');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_remove_gate('front', 'g');
SET ROLE regress_bcmig_owner;
SELECT bcmig_remove_gate('front', 'g');
SELECT y.name, g.name, g.query FROM bcmig.gate g JOIN bcmig.sync y USING (sync_id);
SELECT event, detail FROM bcmig.audit_log WHERE event LIKE '%gate' ORDER BY audit_id;

-- what a health URL may be asked
SELECT bcmig_alter_environment('traffic_blue', '{"health_url": "file:///etc/passwd"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_add_environment('traffic_blue2', 'blue', 'regress_blue', 'www.example.com');
SELECT bcmig_alter_environment('traffic_blue', '{"health_required": 2}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_alter_environment('traffic_blue', '{"health_ca_file": "ca.pem"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_alter_environment('traffic_blue', '{"health_probes": 21}');
SELECT bcmig_alter_environment('traffic_blue', '{"health_expect": "happiness"}');
SELECT bcmig_alter_environment('traffic_blue', '{"failure_limit": 0}');
SELECT bcmig_alter_sync('front', '{"failure_limit": 3}');
SELECT bcmig_alter_environment('traffic_blue', '{"health_required": 2, "health_probes": 3, "health_url": "https://127.0.0.1:1/", "health_interval": "1s"}');
SELECT options FROM bcmig.environment WHERE name = 'traffic_blue';
SELECT check_name, status, value, detail FROM bcmig_check_gates('front') WHERE check_name LIKE 'health%';

-- writers by weight need a gate that says that numbers do not meet
SELECT bcmig_alter_sync('front', '{"traffic": "writes"}');
SELECT bcmig_alter_sync('front', '{"traffic": "reads_and_writes"}');
SELECT check_name, status, value, bound, fix FROM bcmig_check_gates('front') WHERE check_name = 'keys_disjoint';
SELECT bcmig_add_gate('front', 'keys_disjoint', 'SELECT true');
SELECT check_name, status, value, bound, fix FROM bcmig_check_gates('front') WHERE check_name = 'keys_disjoint';
SELECT bcmig_remove_gate('front', 'keys_disjoint');
SELECT bcmig_alter_sync('front', '{"traffic": null}');
SELECT count(*) FROM bcmig_check_gates('front') WHERE check_name = 'keys_disjoint';

-- syncs that depend on others
SELECT bcmig_alter_sync('front', '{"depends_on": "other_front"}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_alter_sync('front', '{"depends_on": [""]}');
SELECT bcmig_alter_sync('front', '{"depends_on": ["nobody"]}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_alter_sync('front', '{"depends_on": ["other_front", "front"]}');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_create_sync('third_front', 'traffic_blue', '{"depends_on": ["third_front"]}');
SELECT bcmig_create_sync('third_front', 'traffic_blue', '{"depends_on": ["front"]}');
SELECT bcmig_alter_sync('front', '{"depends_on": ["other_front"]}');
SELECT bcmig_alter_sync('other_front', '{"depends_on": ["third_front"]}');
\echo :LAST_ERROR_SQLSTATE
SELECT check_name, status, value, bound, detail, fix FROM bcmig_check_gates('third_front') WHERE check_name LIKE '% of %front' ORDER BY 1;
SELECT bcmig_drop_sync('other_front', dry_run => true);
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_drop_sync('other_front');
SELECT count(*) FROM bcmig_drop_sync('third_front');
RESET ROLE;
UPDATE bcmig.sync SET options = '{"depends_on": ["front", "gone"]}' WHERE name = 'other_front';
SELECT check_name, status, value, bound, detail, fix FROM bcmig_check_gates('front') WHERE check_name LIKE '% of %' AND check_name NOT LIKE 'health%' ORDER BY 1;
UPDATE bcmig.sync SET options = '{}' WHERE name = 'other_front';
UPDATE bcmig.sync SET owner = 'regress_bcmig_other' WHERE name = 'other_front';
SET ROLE regress_bcmig_owner;
SELECT bcmig_alter_sync('front', '{"depends_on": ["other_front"]}');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
UPDATE bcmig.sync SET owner = 'regress_bcmig_owner' WHERE name = 'other_front';
SET ROLE regress_bcmig_owner;
SELECT bcmig_alter_sync('front', '{"depends_on": null}');

-- routes
SELECT bcmig_route('no such sync', 'a');
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_route('front', NULL);
\echo :LAST_ERROR_SQLSTATE
SELECT bcmig_route(NULL, 'a');
SELECT bcmig_route('front', 'a'), bcmig_route('front', 'a', true), bcmig_route('front', '', NULL);

-- a share as it is asked for, keys that only ever move to green; as
-- bcmig_set_traffic does it, but without gates: the sync does not run
RESET ROLE;
CREATE TABLE key_side (percent numeric, key text, side text);
INSERT INTO bcmig.traffic (sync_id) SELECT sync_id FROM bcmig.sync WHERE name = 'front';
CREATE FUNCTION weigh(percent numeric) RETURNS void LANGUAGE sql BEGIN ATOMIC
    UPDATE bcmig.traffic SET green_percent = weigh.percent;
    SELECT bcmig_alter_sync('front', '{}');
END;
SELECT weigh(0);
INSERT INTO key_side SELECT 0, 'user' || i, bcmig_route('front', 'user' || i) FROM generate_series(1, 10000) i;
SELECT weigh(5);
INSERT INTO key_side SELECT 5, 'user' || i, bcmig_route('front', 'user' || i) FROM generate_series(1, 10000) i;
SELECT weigh(10);
INSERT INTO key_side SELECT 10, 'user' || i, bcmig_route('front', 'user' || i) FROM generate_series(1, 10000) i;
SELECT weigh(25);
INSERT INTO key_side SELECT 25, 'user' || i, bcmig_route('front', 'user' || i) FROM generate_series(1, 10000) i;
SELECT weigh(50);
INSERT INTO key_side SELECT 50, 'user' || i, bcmig_route('front', 'user' || i) FROM generate_series(1, 10000) i;
SELECT weigh(75);
INSERT INTO key_side SELECT 75, 'user' || i, bcmig_route('front', 'user' || i) FROM generate_series(1, 10000) i;
SELECT weigh(100);
INSERT INTO key_side SELECT 100, 'user' || i, bcmig_route('front', 'user' || i) FROM generate_series(1, 10000) i;
SELECT percent, abs(avg((side = 'green')::int) * 100 - percent) < 1 AS within_one_percent FROM key_side GROUP BY 1 ORDER BY 1;
SELECT count(*) AS moved_back FROM key_side a JOIN key_side b USING (key) WHERE a.percent < b.percent AND a.side = 'green' AND b.side = 'blue';

-- writers: to one side, as readers, or nowhere
SELECT weigh(50);
SELECT bcmig_route('front', 'user1') AS reads, string_agg(DISTINCT bcmig_route('front', 'user' || i, true), ', ') AS writes FROM generate_series(1, 100) i;
UPDATE bcmig.traffic SET writes = 'green';
SELECT weigh(50);
SELECT string_agg(DISTINCT bcmig_route('front', 'user' || i, true), ', ') AS writes FROM generate_series(1, 100) i;
UPDATE bcmig.traffic SET writes = 'key';
SELECT weigh(50);
SELECT count(*) AS differ FROM generate_series(1, 100) i WHERE bcmig_route('front', 'user' || i, true) <> bcmig_route('front', 'user' || i);
UPDATE bcmig.traffic SET writes = 'pause';
SELECT weigh(50);
SELECT bcmig_route('front', 'user1', true), string_agg(DISTINCT bcmig_route('front', 'user' || i), ', ' ORDER BY bcmig_route('front', 'user' || i)) AS reads
  FROM generate_series(1, 100) i;
DROP FUNCTION weigh(numeric);
DROP TABLE key_side;

-- a share on green is taken back before the sync goes; routes go with it
SET ROLE regress_bcmig_owner;
SELECT count(*) FROM bcmig_drop_sync('front');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
UPDATE bcmig.traffic SET green_percent = 0;
SET ROLE regress_bcmig_owner;
SELECT count(*) FROM bcmig_drop_sync('front');
SELECT bcmig_route('front', 'user1');
SELECT count(*) FROM bcmig_drop_sync('other_front');
SELECT bcmig_remove_environment('traffic_blue');
