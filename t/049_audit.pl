# The audit log: who did what, and a chain that gives away what was changed
# behind it; computed here once more from docs/audit.md alone.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Digest::SHA qw(sha256);
use Encode qw(encode decode);
use PostgreSQL::Test::Utils;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', "bcmig.debug_points = 'audit_chain_before_commit'");
my ($host, $port) = ($blue->host, $blue->port);
my $me = (getpwuid($<))[0];

sub green { return $green->safe_psql('postgres', $_[0]) }
sub chained { ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.audit_pending'), $_[0] // 'everything is chained') }
sub verdict { return green('SELECT first_bad, what FROM bcmig_verify_audit()') }

# the chain as docs/audit.md describes it
sub own_chain
{
	my $hash = "\0" x 32;
	my $rows = green(q{SELECT string_agg(concat_ws(' ', encode(convert_to(audit_id::text, 'UTF8'), 'hex'),
			encode(convert_to((extract(epoch FROM at) * 1000000)::bigint::text, 'UTF8'), 'hex'), 'x' || encode(convert_to(actor, 'UTF8'), 'hex'),
			coalesce('x' || encode(convert_to(sync_name, 'UTF8'), 'hex'), '-'), coalesce('x' || encode(convert_to(target, 'UTF8'), 'hex'), '-'),
			'x' || encode(convert_to(kind, 'UTF8'), 'hex'), 'x' || encode(convert_to(event, 'UTF8'), 'hex'),
			coalesce('x' || encode(convert_to(detail, 'UTF8'), 'hex'), '-')), E'\n' ORDER BY seq)
		FROM bcmig.audit_chain JOIN bcmig.audit_log USING (audit_id)});
	foreach my $row (split /\n/, $rows)
	{
		my $bytes = '';
		foreach my $field (split / /, $row)
		{
			$field =~ s/^x//;
			$bytes .= $field eq '-' ? "\0" : "\1" . pack('N', length($field) / 2) . pack('H*', $field);
		}
		$hash = sha256($hash . $bytes);
	}
	return unpack('H*', $hash);
}

# the query of docs/audit.md, as it stands there
my ($query) = slurp_file((-e 'docs/audit.md' ? '.' : $ENV{BCMIG_SOURCE}) . '/docs/audit.md') =~ /```sql\n(.*?)```/s;
like($query, qr/sha256/, 'the page has a query');

# ---------------------------------------------------------------------------
# Every public command leaves a row with the user of the session
# ---------------------------------------------------------------------------
$blue->safe_psql('postgres', q{
	CREATE TABLE a (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO a SELECT i, 'x', 0 FROM generate_series(1, 50) i;
	CREATE TABLE b (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);});
track($blue, $_) foreach qw(a b);
green(qq{CREATE ROLE boss LOGIN; CREATE ROLE clerk LOGIN; GRANT boss TO clerk; GRANT CREATE ON SCHEMA public TO boss; GRANT CREATE ON DATABASE postgres TO boss;
	CREATE SERVER blue FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
	GRANT USAGE ON FOREIGN SERVER blue TO boss; GRANT USAGE ON SCHEMA bcmig TO boss; GRANT SELECT ON ALL TABLES IN SCHEMA bcmig TO boss;
	CREATE USER MAPPING FOR boss SERVER blue OPTIONS (user '$me', password_required 'false'); CREATE USER MAPPING FOR CURRENT_USER SERVER blue OPTIONS (user '$me');});
green(q{SELECT format('GRANT EXECUTE ON ROUTINE %s TO boss', p.oid::regprocedure) FROM pg_proc p WHERE p.proname ~ '^bcmig' OR p.pronamespace = 'bcmig'::regnamespace \gexec});

# clerk in the role of boss, who owns it all
sub clerk { return $green->safe_psql('postgres', "SET ROLE boss; $_[0]", extra_params => [ '-U', 'clerk' ]) }
clerk(q{SELECT bcmig_add_environment('blue', 'blue', 'blue');
	SELECT bcmig_alter_environment('blue', '{"connect_timeout": "9s"}');
	SELECT bcmig_create_sync('s', 'blue', '{"maintenance_role": "bcmig_maintenance"}');
	SELECT bcmig_alter_sync('s', '{"max_latency": "200ms"}');
	SELECT bcmig_add_table('s', 'a'); SELECT bcmig_add_table('s', 'b');
	SELECT bcmig_alter_table('s', 'a', '{"priority": 2}');
	SELECT bcmig_map_column('s', 'b', 'v', '{"rename": "w"}'); SELECT bcmig_unmap_column('s', 'b', 'v');
	SELECT count(bcmig_blue_script('tracking', 's'));
	SELECT bcmig_add_rule('s', 'r', 'business', 'soft', 'SELECT id FROM public.a WHERE id < 0');
	SELECT bcmig_add_gate('s', 'g', 'SELECT true');
	SELECT bcmig_add_baseline_query('q', 'SELECT 1', 'SELECT 1'); SELECT bcmig_baseline('blue'); SELECT bcmig_remove_baseline_query('q');
	SELECT bcmig_start_sync('s', force => true); CALL bcmig_wait_sync('s');
	SELECT bcmig.make_views('s');
	SELECT bcmig_sync_now('s'); SELECT bcmig_sweep_deletes('s', 'a'); SELECT bcmig_resync_table('s', 'a'); CALL bcmig_wait_sync('s');
	SELECT bcmig_suspend_table('s', 'b'); SELECT bcmig_resume_table('s', 'b'); CALL bcmig_wait_sync('s');
	SELECT bcmig_add_balancer('s', 'front', 'haproxy', 'tcp://127.0.0.1:1', '{"backend": "bc", "blue": ["b"], "green": ["g"]}');
	SELECT bcmig_hold_traffic('s', 'try'); SELECT bcmig_resume_traffic('s'); SELECT bcmig_set_traffic('s', 0); SELECT bcmig_remove_balancer('s', 'front');
	SELECT bcmig_confirm('s', 'fence', 'by hand'); SELECT bcmig.try_blue_fence('s', 'read');
	SELECT bcmig_validate('s'); CALL bcmig_wait_sync('s', 'validated');
	SELECT bcmig_create_plan('p', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1", "approval": "boss"}]');
	SELECT bcmig_execute_plan('p'); SELECT bcmig_pause_execution(1); SELECT bcmig_resume_execution(1); SELECT bcmig_approve_phase(1, 'a'); SELECT bcmig_skip_phase(1, 'a', 'of no use');
	SELECT bcmig_cancel_execution(1); SELECT bcmig_drop_plan('p');
	SELECT bcmig_switch_traffic('s', '{50}'); SELECT bcmig_rollback('s', 'seen enough'); CALL bcmig_wait_sync('s', 'rolled_back');});
green(q{UPDATE bcmig.incarnation SET machine = 'of another'});
clerk(q{SELECT bcmig_adopt('s')});
green_behind($green, q{ALTER TABLE a ADD CONSTRAINT c CHECK (v <> 'bad')});
$blue->safe_psql('postgres', q{UPDATE a SET v = 'bad' WHERE id IN (1, 2)});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 2 FROM bcmig.quarantine'), 'two rows are refused');
my $run = clerk(q{SELECT bcmig_validate('s', mode => 'full')});
ok($green->poll_query_until('postgres', "SELECT verdict = 'different' FROM bcmig.validation_run WHERE run_id = $run"), 'and found different');
clerk("SELECT count(*) FROM bcmig_repair($run)");
clerk(q{SELECT bcmig_cancel_validation(bcmig_validate('s', mode => 'full'))});
clerk(q{SELECT bcmig_retry_quarantine('s');
	SELECT bcmig_discard_quarantine('s', ARRAY(SELECT quarantine_id FROM bcmig.quarantine));
	SELECT bcmig_remove_rule('s', 'r'); SELECT bcmig_remove_gate('s', 'g'); SELECT bcmig_remove_table('s', 'b');
	SELECT bcmig_stop_sync('s');});
ok($green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_state}), 'stopped');
clerk(q{SELECT count(*) FROM bcmig_drop_sync('s'); SELECT bcmig_remove_environment('blue')});

# functions that change something, by their comment; not here: those of a BC on
# SQL Server, of pg_cron, of conflicts, of advice and of the end of all, which have their own tests
my $silent = green(q{SELECT string_agg(proname, ' ' ORDER BY proname) FROM (
	SELECT DISTINCT p.proname FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	 WHERE obj_description(p.oid, 'pg_proc') ~ '^(configuration|request): ') f
	WHERE NOT EXISTS (SELECT FROM bcmig.audit_log a WHERE a.event IN (f.proname, 'bcmig.' || f.proname) AND a.kind = 'command')});
is($silent, 'bcmig_add_company bcmig_add_shared bcmig_complete_sync bcmig_optimize_sync bcmig_remove_company bcmig_resolve_conflict bcmig_schedule_validation bcmig_set_sequences bcmig_unschedule_validation wake', 'every command leaves a row');
is(green(q{SELECT string_agg(DISTINCT actor, ' ') FROM bcmig.audit_log WHERE kind = 'command'}), 'clerk', 'with the user of the session, not the role, not the owner');
is(green(q{SELECT string_agg(DISTINCT actor, ' ') FROM bcmig.audit_log WHERE event = 'streaming' AND target IS NOT NULL}), 'boss', 'what workers do carries the owner of the sync');
like(green(q{SELECT detail FROM bcmig.audit_log WHERE event = 'bcmig_start_sync'}), qr/force/, 'a forced start is told from another');
is(green(q{SELECT count(*) FROM bcmig.audit_log WHERE event = 'bcmig_discard_quarantine' AND detail ~ '"v": "bad"'}), '2', 'discarded rows with their images');
is(green(q{SELECT string_agg(event, ' ' ORDER BY audit_id) FROM bcmig.audit_log WHERE kind = 'validation'}), 'ok different', 'the verdict of the validation');
cmp_ok(green(q{SELECT count(*) FROM bcmig.timeline WHERE sync = 's'}), '>', 30, 'all that of a sync that was dropped');
is(green(q{SELECT string_agg(DISTINCT r.rolname || ' ' || a.privilege_type, ', ') FROM pg_class c, aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee
	WHERE c.relnamespace = 'bcmig'::regnamespace AND c.relname ~ '^audit_' AND a.grantee <> c.relowner AND r.rolname <> 'boss'}), 'pg_monitor SELECT', 'nobody else may write there');
foreach my $write (q{DELETE FROM bcmig.audit_log}, q{UPDATE bcmig.audit_log SET actor = 'x'}, q{INSERT INTO bcmig.audit_pending VALUES (1)},
	q{TRUNCATE bcmig.audit_chain}, q{UPDATE bcmig.audit_head SET rows = 0})
{
	my ($ret, $out, $err) = $green->psql('postgres', "SET ROLE boss; $write", extra_params => [ '-U', 'clerk' ]);
	like($err, qr/permission denied/, "refused: $write");
}
# the manager may still be clearing alerts of the sync
my $before = green(q{SELECT count(*) FROM bcmig.audit_log WHERE kind = 'command'});
green(q{BEGIN; SELECT bcmig_add_environment('e', 'blue', 'blue'); ROLLBACK});
is(green(q{SELECT count(*) FROM bcmig.audit_log WHERE kind = 'command'}), $before, 'a command that is rolled back leaves nothing');

# ---------------------------------------------------------------------------
# The chain, computed from the page
# ---------------------------------------------------------------------------
green(qq{SELECT bcmig_create_sync(n, 'blue') FROM bcmig_add_environment('blue', 'blue', 'blue'), unnest(ARRAY['\x{c3}\x{a9}\x{e6}\x{97}\x{a5}', '''', ' ', repeat('n', 63)]) n});
chained();
is(own_chain(), green(q{SELECT encode(hash, 'hex') FROM bcmig.audit_head}), 'the same hash from the page alone');
is(green($query), '', 'the query of the page finds nothing');
is(verdict(), '|ok, ends with ' . own_chain(), 'bcmig_verify_audit says ok');
is(green(q{SELECT count(*) = max(seq) AND min(seq) = 1 AND count(*) = (SELECT rows FROM bcmig.audit_head) AND count(*) = (SELECT count(*) FROM bcmig.audit_log) FROM bcmig.audit_chain}), 't', 'places without gaps');

# ---------------------------------------------------------------------------
# Commits out of order, rolled back ones, a crash while chaining
# ---------------------------------------------------------------------------
my $late = $green->background_psql('postgres', on_error_die => 1);
$late->query_safe(q{BEGIN; SELECT bcmig_alter_environment('blue', '{"connect_timeout": "8s"}')});
my $late_id = $late->query_safe('SELECT max(audit_id) FROM bcmig.audit_log');
my @sessions = map { $green->background_psql('postgres', on_error_die => 1) } 1 .. 6;
my $n = 0;
foreach my $round (1 .. 5)
{
	my $i = 0;
	foreach my $session (@sessions)
	{
		# each alters the options of a sync of its own
		$session->query_safe("SELECT bcmig_create_sync('c$i', 'blue')") if $round == 1;
		$session->query_safe("BEGIN; SELECT bcmig_alter_sync('c$i', '{\"batch_rows\": " . (100 + $round) . "}')");
		$i++;
	}
	# the last first; every third is rolled back
	$_->query_safe(++$n % 3 == 0 ? 'ROLLBACK' : 'COMMIT') foreach reverse @sessions;
	chained("round $round is chained while an older transaction is open");
}
$_->quit foreach @sessions;
is(verdict(), '|ok, ends with ' . own_chain(), 'ok');
$late->query_safe('COMMIT');
$late->quit;
chained('the late one too');
is(green("SELECT seq = (SELECT max(seq) FROM bcmig.audit_chain) AND audit_id < (SELECT max(audit_id) FROM bcmig.audit_log) FROM bcmig.audit_chain WHERE audit_id = $late_id"), 't',
	'who commits late gets the last place, with an old id');
is(verdict(), '|ok, ends with ' . own_chain(), 'ok');

# somebody locks the chain: the syncs go on, and it is made up for
my $lock = $green->background_psql('postgres', on_error_die => 1);
$lock->query_safe('BEGIN; LOCK TABLE bcmig.audit_chain, bcmig.alert_log');
green(q{SELECT bcmig_add_table('c1', 'a', 'public.a'); SELECT bcmig_start_sync('c1', force => true)});
$blue->safe_psql('postgres', q{INSERT INTO a VALUES (1000, 'while locked', 0)});
ok($green->poll_query_until('postgres', q{SELECT v = 'while locked' FROM a WHERE id = 1000}), 'a change arrives while the chain is locked');
ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM bcmig.audit_pending}), 'what was written waits');
$lock->query_safe('COMMIT');
$lock->quit;
chained('once it is free again');
green(q{SELECT bcmig_stop_sync('c1')});
ok($green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_state JOIN bcmig.sync USING (sync_id) WHERE name = 'c1'}), 'stopped');
chained();

my $point = hold_point($green, 'audit_chain_before_commit');
green(q{SELECT bcmig_alter_sync('c0', '{"batch_rows": 7}')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}), 'the manager is about to commit the chain');
like(verdict(), qr/^\|ok, ends with .*\n\|1 rows are not chained yet$/, 'not chained yet: said, no damage');
$green->stop('immediate');
eval { $point->quit };
$green->start;
chained('after the crash');
is(verdict(), '|ok, ends with ' . own_chain(), 'ok');
is(green(q{SELECT count(*) FROM bcmig.audit_log JOIN bcmig.audit_chain USING (audit_id) WHERE detail ~ '"batch_rows": "?7'}), '1', 'chained once');

# ---------------------------------------------------------------------------
# Whoever changes something is found out; each time all is put back
# ---------------------------------------------------------------------------
my $some = green('SELECT audit_id FROM bcmig.audit_chain WHERE seq = 10');
my $next = green('SELECT audit_id FROM bcmig.audit_chain WHERE seq = 11');
my $last = green('SELECT audit_id FROM bcmig.audit_chain ORDER BY seq DESC LIMIT 1');
sub damage
{
	my ($what, $sql, $expected) = @_;
	my $out = green("BEGIN; SET client_min_messages = error; $sql; SELECT first_bad, what FROM bcmig_verify_audit(); ROLLBACK");
	is($out, $expected, $what);
}
foreach my $column (qw(actor sync_name target kind event detail))
{
	damage("$column changed", "UPDATE bcmig.audit_log SET $column = " . ($column eq 'kind' ? "'traffic'" : "'x' || coalesce($column, '')") . " WHERE audit_id = $some", "$some|rows were changed, moved or put in");
}
damage('NULL made empty', qq{UPDATE bcmig.audit_log SET target = '' WHERE audit_id = (SELECT min(audit_id) FROM bcmig.audit_log WHERE target IS NULL)},
	green('SELECT min(audit_id) FROM bcmig.audit_log WHERE target IS NULL') . '|rows were changed, moved or put in');
damage('time changed by a microsecond', "UPDATE bcmig.audit_log SET at = at + interval '1 microsecond' WHERE audit_id = $some", "$some|rows were changed, moved or put in");
damage('a row removed', "DELETE FROM bcmig.audit_log WHERE audit_id = $some", "$some|rows were removed");
damage('a row and its place removed', "DELETE FROM bcmig.audit_log WHERE audit_id = $some; DELETE FROM bcmig.audit_chain WHERE audit_id = $some",
	"$next|places were taken out of the chain\n$last|the chain does not end where it ended");
my $end = green('SELECT audit_id FROM bcmig.audit_chain ORDER BY seq DESC OFFSET 2 LIMIT 1');
damage('the last two removed, with their places', "DELETE FROM bcmig.audit_log WHERE audit_id IN (SELECT audit_id FROM bcmig.audit_chain ORDER BY seq DESC LIMIT 2); DELETE FROM bcmig.audit_chain WHERE audit_id NOT IN (SELECT audit_id FROM bcmig.audit_log)",
	"$end|the chain does not end where it ended");
damage('everything removed', 'DELETE FROM bcmig.audit_log; DELETE FROM bcmig.audit_chain; DELETE FROM bcmig.audit_pending', '|the chain does not end where it ended');
damage('a row put in', q{INSERT INTO bcmig.audit_log (audit_id, kind, event) OVERRIDING SYSTEM VALUE VALUES (-1, 'command', 'forged')}, "-1|rows were put in that bcmig did not write");
damage('a row put in with a place', q{INSERT INTO bcmig.audit_log (audit_id, kind, event) OVERRIDING SYSTEM VALUE VALUES (-1, 'command', 'forged');
	INSERT INTO bcmig.audit_chain SELECT max(seq) + 1, -1, sha256('x') FROM bcmig.audit_chain}, "-1|rows were changed, moved or put in\n-1|the chain does not end where it ended");
damage('two places exchanged', "UPDATE bcmig.audit_chain SET audit_id = -1 WHERE audit_id = $some; UPDATE bcmig.audit_chain SET audit_id = $some WHERE audit_id = $next; UPDATE bcmig.audit_chain SET audit_id = $next WHERE audit_id = -1",
	"$next|rows were changed, moved or put in (2)");
damage('removed before it was chained', q{INSERT INTO bcmig.audit_pending VALUES (-5)}, "-5|rows were removed before they were chained\n|1 rows are not chained yet");
damage('the head changed', q{UPDATE bcmig.audit_head SET rows = rows + 1}, "$last|the chain does not end where it ended");
damage('a hash changed', "UPDATE bcmig.audit_chain SET hash = '\\x00' WHERE seq = 10", "$some|rows were changed, moved or put in (2)");
is(verdict(), '|ok, ends with ' . own_chain(), 'and all was put back');
my $found = green("BEGIN; UPDATE bcmig.audit_log SET actor = 'x' WHERE audit_id = $some; $query; ROLLBACK");
is($found, "10|$some", 'the query of the page finds it too');

# ---------------------------------------------------------------------------
# A dump takes the chain along
# ---------------------------------------------------------------------------
my $dump = $green->basedir . '/dump.sql';
$green->command_ok([ 'pg_dump', '-d', $green->connstr('postgres'), '-f', $dump ], 'dumped');
green('CREATE DATABASE restored');
$green->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $green->connstr('restored'), '-f', $dump ], 'restored');
# the manager there may write rows of its own first, which are chained a moment later
ok($green->poll_query_until('restored', q{SELECT string_agg(split_part(what, ',', 1), ' ') = 'ok' FROM bcmig_verify_audit()}), 'the restored chain fits, and goes on')
  or diag($green->safe_psql('restored', 'SELECT first_bad, what FROM bcmig_verify_audit()'));

done_testing();
