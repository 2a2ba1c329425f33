# Rights and secrets: docs/security.md as it is written; who may not, may not;
# secrets put wherever one can be put are nowhere else.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Utils;
use Test::More;
use WeightServer;

my $source = $ENV{BCMIG_SOURCE} // '.';
my $doc = slurp_file("$source/docs/security.md");
my $me = (getpwuid($<))[0];
# recognisable
my %secret = (blue => 'S3CRETblue', token => 'S3CRETtoken', user => 'S3CRETuser', password => 'S3CRETpassword');
my $basic = do { use MIME::Base64; encode_base64("$secret{user}:$secret{password}", '') };

my $blue = new_blue();
my $green = new_green('green', 'log_min_messages = debug5', 'log_error_verbosity = verbose', 'debug_print_plan = off', 'log_statement = none');
sub on_green { return $green->safe_psql('postgres', $_[0]) }
sub error_of { my ($sql, $role) = @_; my ($rc, $out, $err) = $green->psql('postgres', ($role ? "SET ROLE $role; " : '') . "\\set VERBOSITY verbose\n$sql"); return $err }

$blue->safe_psql('postgres', qq{
	CREATE TABLE item (no int PRIMARY KEY, name text, price int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'n' || i, i FROM generate_series(1, 100) i;
	CREATE TABLE hidden (no int PRIMARY KEY, name text, wage int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO hidden SELECT i, 'n' || i, i FROM generate_series(1, 10) i;
	CREATE ROLE bcmig_reader LOGIN PASSWORD '$secret{blue}'});
track($blue, $_) foreach qw(item hidden);
$blue->safe_psql('postgres', q{SELECT bcmig_blue.grant_reader('bcmig_reader'); GRANT SELECT ON item, hidden TO bcmig_reader});
# the password is asked for
my $hba = $blue->data_dir . '/pg_hba.conf';
append_to_file($hba . '.new', "host all bcmig_reader 127.0.0.1/32 scram-sha-256\nlocal all bcmig_reader scram-sha-256\n" . slurp_file($hba));
rename "$hba.new", $hba;
$blue->reload;

# --- an owner who is no superuser; the grants of the page ---
my ($host, $port) = ($blue->host, $blue->port);
on_green(qq{
	CREATE ROLE bc_owner LOGIN; GRANT CREATE ON SCHEMA public TO bc_owner; GRANT USAGE ON SCHEMA bcmig TO bc_owner; CREATE ROLE stranger LOGIN;
	CREATE SERVER blue FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
	GRANT USAGE ON FOREIGN SERVER blue TO bc_owner;
	CREATE USER MAPPING FOR bc_owner SERVER blue OPTIONS (user 'bcmig_reader', password '$secret{blue}');
	CREATE USER MAPPING FOR CURRENT_USER SERVER blue OPTIONS (user '$me');
	SELECT bcmig_add_environment('blue', 'blue', 'blue')});
my @grants = $doc =~ /^```sql\n(CREATE ROLE .*?)^```$/msg;
is(scalar(@grants), 2, 'the page has grants for two roles');
foreach (@grants)
{
	my $file = PostgreSQL::Test::Utils::tempdir() . '/grants.sql';
	unlink $file;
	append_to_file($file, $_);
	$green->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $green->connstr('postgres'), '-f', $file ], 'they run as they are written');
}

# --- nothing for PUBLIC ---
is(on_green(q{SELECT count(*) FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e', aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
	WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bcmig') AND a.grantee = 0}), '0', 'no function for PUBLIC');
is(on_green(q{SELECT count(*) FROM pg_class c LEFT JOIN pg_namespace n ON n.oid = relnamespace, aclexplode(coalesce(c.relacl, acldefault('r', c.relowner)) || n.nspacl) a WHERE n.nspname = 'bcmig' AND a.grantee = 0}), '0',
	'no table, view or schema for PUBLIC');
like(error_of("$_", 'stranger'), qr/42501/, "a stranger may not: $_") foreach 'SELECT bcmig_status()', 'SELECT * FROM bcmig.sync', q{SELECT bcmig_stop_sync('s')}, 'SELECT bcmig_migration_report()';

# --- SECURITY DEFINER: the page's list is all there is ---
is(on_green(q{SELECT count(*) FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bcmig') AND p.prosecdef}), '0', 'none on green');
is(on_green(q{SELECT count(*) FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' JOIN pg_language l ON l.oid = p.prolang
	WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bcmig') AND l.lanname NOT IN ('c', 'internal') AND p.prosqlbody IS NULL AND coalesce(array_to_string(p.proconfig, ','), '') !~ 'search_path=pg_catalog'}), '0',
	'functions in SQL have their search_path');
allow_switch($blue);
my %listed = map { $_ => 1 } map { /`(\w+)`/g } map { (split /\|/)[1] } grep { /^\| `/ } split /\n/, $doc =~ s/.*## SECURITY DEFINER(.*?)\n## .*/$1/sr;
my %definer = map { $_ => 1 } grep { !/_\d+$/ } split /\n/, $blue->safe_psql('postgres', q{SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'bcmig_blue'::regnamespace AND prosecdef});
is(join(' ', sort keys %definer), join(' ', sort keys %listed), 'on blue those of the page');
is($blue->safe_psql('postgres', q{SELECT count(*) FROM pg_proc p WHERE pronamespace = 'bcmig_blue'::regnamespace AND prosecdef
	AND (coalesce(array_to_string(proconfig, ','), '') !~ 'search_path=pg_catalog' OR has_function_privilege('pg_database_owner', oid, 'EXECUTE'))}), '0', 'each with a search_path, and for nobody');

# --- the operator works, the viewer sees how it does and no row ---
on_green(q{SET ROLE bc_operator; SELECT bcmig_status()});
is(error_of(q{SELECT bcmig_create_sync('mine', 'blue')}, 'stranger') =~ /42501/ ? 1 : 0, 1, 'a stranger makes no sync');
$green->safe_psql('postgres', q{SET ROLE bc_operator; SET ROLE bc_owner; SELECT 1});
on_green(q{GRANT EXECUTE ON FUNCTION bcmig_create_sync(text, text, jsonb), bcmig_add_table(text, text, text, jsonb), bcmig_start_sync(text, boolean) TO bc_owner;
	SET ROLE bc_owner; CREATE TABLE item (no int PRIMARY KEY, name text, price int); ALTER TABLE item ENABLE ROW LEVEL SECURITY; ALTER TABLE item FORCE ROW LEVEL SECURITY;
	CREATE POLICY cheap ON item USING (true) WITH CHECK (price < 1000);
	SELECT bcmig_create_sync('s', 'blue'); SELECT bcmig_add_table('s', 'item', 'public.item'); SELECT bcmig_add_table('s', 'hidden'); SELECT bcmig_start_sync('s', true)});
wait_sync($green, 's');
on_green(q{SET ROLE bc_operator; SELECT bcmig_suspend_table('s', 'item'); SELECT bcmig_resume_table('s', 'item'); SELECT bcmig_health_report('s')});
pass('an operator acts on the syncs of its owner');
like(error_of(q{SELECT bcmig_stop_sync('s')}, 'bc_viewer'), qr/42501/, 'a viewer does not');
is(error_of("SELECT * FROM bcmig.$_", 'bc_viewer'), '', "a viewer reads $_") foreach qw(sync_status table_status progress worker_status environment_status validation_summary switch_status traffic_status execution_status option);
like(error_of('SELECT * FROM bcmig_status()', 'bc_viewer'), qr/42501/, 'not bcmig_status(), which looks into rows');
like(error_of("SELECT * FROM bcmig.$_", 'bc_viewer'), qr/42501/, "not $_") foreach qw(quarantine conflict journal validation_difference audit_log balancer);
on_green('CREATE ROLE agent; GRANT pg_monitor TO agent');
is(error_of('SELECT * FROM bcmig.sync_status, bcmig.table_status, bcmig.worker_status', 'agent'), '', 'pg_monitor reads the status views');
like(error_of('UPDATE bcmig.sync SET name = name', $_), qr/42501/, "$_ writes nothing there") foreach qw(agent bc_operator bc_owner bc_viewer);

# --- the owner's rights ---
$blue->safe_psql('postgres', 'UPDATE item SET price = 500 WHERE no = 6');
ok($green->poll_query_until('postgres', 'SELECT price = 500 FROM item WHERE no = 6'), 'a row the policy lets pass');
$blue->safe_psql('postgres', 'UPDATE item SET price = 5000 WHERE no = 5');
ok($green->poll_query_until('postgres', q{SELECT state = 'suspended' AND reason ~ '^42501: ' FROM bcmig.table_status WHERE target = 'public.item'}), 'one it refuses suspends the table');
is(on_green('SELECT price FROM item WHERE no = 5'), '5', 'and not written');
$blue->safe_psql('postgres', 'REVOKE SELECT ON hidden FROM bcmig_reader; GRANT SELECT (no, name, "timestamp") ON hidden TO bcmig_reader; UPDATE hidden SET name = 7');
ok($green->poll_query_until('postgres', q{SELECT last_error ~ '42501' FROM bcmig.table_status WHERE target = 'public.hidden'}), 'a column of blue that may not be read: an error');
is(on_green(q{SELECT count(*) FROM hidden WHERE wage IS NULL}), '0', 'and nothing instead of it');

# --- only http and https, only registered hosts ---
like(error_of($_), qr/BM003/, "refused: $_") foreach
  q{SELECT bcmig_alter_environment('blue', '{"health_url": "file:///etc/passwd"}')},
  q{SELECT bcmig_alter_environment('blue', '{"health_url": "gopher://h/"}')},
  qq{SELECT bcmig_alter_environment('blue', '{"health_url": "https://$secret{user}:$secret{password}\@h/"}')},
  q{CREATE SERVER x FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'file:///etc/')},
  q{CREATE SERVER x FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'ftp://h/')},
  qq{CREATE SERVER x FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'https://$secret{user}\@h/')};

# --- secrets ---
my $api = WeightServer->new(bearer => $secret{token}, basic => $basic);
on_green(qq{CREATE SERVER gw FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'http://127.0.0.1:$api->{port}/'); GRANT USAGE ON FOREIGN SERVER gw TO bc_owner;
	CREATE USER MAPPING FOR bc_owner SERVER gw OPTIONS (token '$secret{token}', user '$secret{user}', password '$secret{password}')});
like(error_of(q{SELECT bcmig_add_balancer('s', 'b', 'http', 'http://127.0.0.2:1/', '{"server": "gw", "set": {"url": "w", "body": "{{percent}}"}, "get": {"url": "w", "path": "$"}}')}), qr/BM003/, 'a host that is not registered');
like(error_of(qq{SELECT bcmig_add_balancer('s', 'b', 'http', 'http://127.0.0.1:$api->{port}/', '{"server": "gw", "set": {"url": "w", "headers": {"Authorization": "Bearer plain"}, "body": "{{percent}}"}, "get": {"url": "w", "path": "\$"}}')}), qr/BM003/, 'a secret that is no template');
my $auth = '"headers": {"Authorization": "Bearer {{token}}"}';
on_green(qq{SELECT bcmig_add_balancer('s', 'b', 'http', 'http://127.0.0.1:$api->{port}/', '{"server": "gw", "set": {"url": "weights/{{token}}/nowhere", $auth, "body": "{\\"green\\": {{percent}}, \\"p\\": \\"{{password}}\\"}"}, "get": {"url": "weights", $auth, "path": "\$.green"}}')});
# balancers that fail, the login refused, a table that is away
on_green(q{SELECT bcmig_set_traffic('s', 5)});
ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM bcmig.traffic_event WHERE event IN ('refused', 'undone', 'changed')}), 'traffic was tried');
$blue->safe_psql('postgres', "ALTER ROLE bcmig_reader PASSWORD 'another'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bcmig_reader'");
ok($green->poll_query_until('postgres', q{SELECT last_error ~ 'could not connect' FROM bcmig.environment_status WHERE environment = 'blue'}), 'blue refuses the login');
my $seen = join "\n", map { on_green($_) } (
	(map { "SELECT t::text FROM bcmig.$_ t" } split /\n/, on_green(q{SELECT relname FROM pg_class WHERE relnamespace = 'bcmig'::regnamespace AND relkind IN ('r', 'v')})),
	q{SELECT * FROM pg_stat_activity}, 'SELECT bcmig_status()::text', 'SELECT bcmig_health_report()', 'SELECT bcmig_sync_report()',
	(map { "SELECT bcmig_migration_report(NULL, '$_')" } qw(text json html)), q{SELECT bcmig_rollback_report('s')}, q{SELECT bcmig_blue_script('login', 's')}, q{SELECT bcmig_check_gates('s')::text});
my ($dump) = run_command([ 'pg_dump', '-a', '-n', 'bcmig', '-e', 'bcmig', '-d', $green->connstr('postgres') ]);
my $log = slurp_file($green->logfile);
cmp_ok(length($log), '>', 100_000, 'the log is of level debug5');
like($dump, qr/weights/, 'the dump has the balancer');
like($seen, qr/\{\{token\}\}/, 'views have its template');
foreach my $what ([ log => $log ], [ views => $seen ], [ dump => $dump ])
{
	# what the test itself typed is not the point: statements are not logged, but errors quote theirs
	my @lines = grep { /S3CRET|\Q$basic\E/ && !/STATEMENT:|CREATE USER MAPPING|CREATE ROLE|LOCATION:|health_url|OPTIONS \(url/ } split /\n/, $what->[1];
	is(scalar(@lines), 0, "no secret in the $what->[0]") or diag(substr(join("\n", @lines), 0, 2000));
}

done_testing();
