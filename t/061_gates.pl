# The gates before a weight is raised: what each of them says when what it looks
# at is not well, and that it lets pass when it is.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Cluster;
use Test::More;
use WebServer;

my $blue = new_blue();
my $green = new_green('green', "bcmig.debug_points = 'traffic_set'");
my $web = WebServer->new;

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

on_blue(q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 50) i;
	CREATE TABLE unit (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO unit SELECT i, 'v' || i, 0 FROM generate_series(1, 5) i;});
track($blue, $_) foreach qw(item unit);
connect_blue($green, $blue, 'shared');
on_green(q{
	SELECT bcmig_create_sync('s', 'blue', '{"maintenance_role": "bcmig_maintenance", "traffic_timeout": "1s", "depends_on": ["shared"]}');
	SELECT bcmig_add_table('s', 'item'); SELECT bcmig_add_table('shared', 'unit');
	CREATE TABLE flag (open boolean)});
start_sync($green, $_) foreach qw(s shared);
wait_sync($green, $_) foreach qw(s shared);

# Ask for a weight; the last event of it.
sub weigh
{
	my ($percent) = @_;
	my $before = on_green('SELECT coalesce(max(event_id), 0) FROM bcmig.traffic_event');
	my $done = "event_id > $before AND event IN ('changed', 'refused', 'undone')";
	on_green("SELECT bcmig_set_traffic('s', $percent)");
	$green->poll_query_until('postgres', "SELECT count(*) > 0 FROM bcmig.traffic_event WHERE $done") or die 'no event';
	return on_green("SELECT event || coalesce(': ' || detail, '') FROM bcmig.traffic_event WHERE $done ORDER BY event_id LIMIT 1");
}

# Raised by one percent: the weight itself does not matter here.
my $weight = 0;
sub raised
{
	my ($what) = @_;
	is(weigh(++$weight), 'changed', $what);
}

sub refused
{
	my ($pattern, $what) = @_;
	my $said = weigh($weight + 1);
	$weight++ if $said eq 'changed';
	like($said, qr/^refused: gate $pattern/, $what);
}

sub gate
{
	my ($name, $columns) = @_;
	$columns //= 'status';
	return on_green("SELECT $columns FROM bcmig_check_gates('s') WHERE check_name = '$name'");
}

# --- what the sync depends on ---
run_validation($green, 's', 'full');
refused('validation of shared: inconclusive, never', 'the shared tables are not proved');
run_validation($green, 'shared', 'full');
raised('both are proved');
on_green(q{SELECT bcmig_suspend_table('shared', 'unit')});
refused('(?:lag of shared: inconclusive, .*; gate )?tables of shared: fail, 0, wanted 1 \(Not streaming: public.unit\)', 'a shared table does not stream');
on_green(q{SELECT bcmig_resume_table('shared', 'unit')});
wait_sync($green, 'shared');
on_green(q{SELECT bcmig_stop_sync('shared')});
$green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_status WHERE sync = 'shared'});
refused('lag of shared: inconclusive, unknown', 'the shared tables are not in step');
start_sync($green, 'shared');
wait_sync($green, 'shared');
raised('they are again');

# --- a table read again after it was validated ---
on_green(q{SELECT bcmig_resync_table('shared', 'unit')});
wait_sync($green, 'shared');
refused('validation of shared: inconclusive, ok, .*before 1 tables were added or read again', 'what was read again is not proved');
run_validation($green, 'shared', 'incremental');
raised('it is now');

# --- error rate ---
is(gate('errors', 'status, value'), 'skipped|0 of 50 rows failed', 'too few rows say nothing');
on_green(q{SELECT bcmig_alter_table('s', 'item', '{"error_threshold": 100}')});
green_behind($green, q{ALTER TABLE item ADD CONSTRAINT c CHECK (v <> 'bad')});
on_blue(q{INSERT INTO item SELECT i, CASE WHEN i <= 120 THEN 'bad' ELSE 'v' END, 0 FROM generate_series(101, 300) i});
wait_sync($green, 's');
$green->poll_query_until('postgres', 'SELECT count(*) = 20 FROM bcmig.quarantine') or die 'not refused';
refused('quarantine: fail, 20, wanted 0; gate errors: fail, 20 of 250 rows failed, wanted 5 % of at least 100', 'too many rows have failed');
green_behind($green, q{ALTER TABLE item DROP CONSTRAINT c});
on_green(q{SELECT bcmig_retry_quarantine('s')});
$green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.quarantine') or die 'not applied';
refused('errors: fail, 20 of 250 rows failed[^;]*$', 'their number counts though they are mended');
on_green(q{SELECT bcmig_alter_sync('s', '{"error_threshold": 8}')});
raised('20 of 250 are 8 percent');
on_green(q{SELECT bcmig_alter_sync('s', '{"error_threshold": 100}')});

# --- health: what is no good answer ---
sub ask
{
	my ($url, %o) = @_;
	$o{health_url} = $url;
	my $options = join ', ', map { "\"$_\": \"$o{$_}\"" } sort keys %o;
	on_green(q{SELECT bcmig_alter_environment('green', (SELECT jsonb_object_agg(name, NULL) FROM bcmig.option WHERE name ~ '^health_|_count$|^failure_limit' AND 'environment' = ANY (scope)))});
	on_green(qq{SELECT bcmig_alter_environment('green', '{$options}')});
}

foreach my $case (
	[ 'ill', 'status 503 after \d+ ms, not 200 to 299' ],
	[ 'redirect', 'status 302 after \d+ ms, a redirect, which is not followed' ],
	[ 'big', 'the answer is longer than 65536 bytes' ],
	[ 'hang', 'no answer within 1000 ms' ],
	[ 'drip', 'no answer within 1000 ms' ])
{
	ask($web->url($case->[0]));
	$web->script('ok');
	refused("health of green: fail, ill 1 times .*$case->[1]", "health: $case->[0]");
	is(join(' ', $web->requests), $case->[0], 'asked once');
}
my $closed = PostgreSQL::Test::Cluster::get_free_port();
ask("http://127.0.0.1:$closed/");
refused('health of green: fail, .*connect', 'health: nobody is there');

# --- health: what the body says ---
foreach my $case (
	[ 'status', '{"result": false}', 'the body says "result": false' ],
	[ 'result', '{"result": false}', 'the body says "result": false' ],
	[ 'result', 'true', 'the body is not' ],
	[ 'result', '{"result": "true"}', 'the body is not' ],
	[ 'result', '{"value": {"result": true}}', 'the body is not' ],
	[ 'result', '[{"result": true}]', 'the body is not' ],
	[ 'result', '{"result": true', 'the body is not' ],
	[ 'result', "{\"result\": true, \"a\": \"\xff\"}", 'the body is not' ],
	[ 'result', '{"a":' x 12_000, 'the body is not' ])
{
	$web->body($case->[1]);
	ask($web->url('body'), health_expect => $case->[0]);
	refused("health of green: fail, .*$case->[2]", "health: a body that is bad where $case->[0] is expected: " . (substr($case->[1], 0, 40) =~ s/\xff/?/r));
}
$web->body('{"result": true');
ask($web->url('body'));
raised('health: a body that need not say anything');
$web->body("\r\n {\"result\": true}");
ask($web->url('body'), health_expect => 'result');
raised('health: a body that says so');

# --- health: several probes ---
ask($web->url('script'), health_probes => 3, health_required => 2, health_interval => '10ms');
$web->script(qw(ill ok ill ok));
refused('health of green: fail, .*status 503 .*\(1 of 3 probes were well, 2 must be\)', 'health: too few probes are well');
$web->script(qw(ill ill ok));
refused('health of green: fail, .*\(0 of 2 probes were well, 2 must be\)', 'health: decided after two');
is(scalar(() = $web->requests), 2, 'nobody is asked more than is needed');
$web->script(qw(ok ill ok));
raised('health: two of three');
is(scalar(() = $web->requests), 5, 'asked three times before, twice after');

# --- health: answers in a row ---
ask($web->url('script'), failure_limit => 2, success_count => 3, health_interval => '10ms');
$web->script('ok');
raised('well already');
$web->script('ill');
refused('health of green: inconclusive, ill 1 times in a row', 'one bad answer is not enough to fail');
refused('health of green: fail, ill 2 times in a row', 'two are');
$web->script(qw(ok ok ill));
refused('health of green: inconclusive, ill 1 times in a row', 'well in between: they are counted anew');
is(scalar(() = $web->requests), 3, 'asked until it was ill');
$web->script('ok');
raised('well three times in a row');
is(scalar(() = $web->requests), 4, 'asked three times before, once after');
is(on_green(q{SELECT successes, failures FROM bcmig.health}), '4|0', 'counted');
like(gate('health of green', 'status, value, bound'), qr/^ok\|well 4 times in a row, asked \d+ s ago\|well 3 times$/, 'and shown');
on_green(q{UPDATE bcmig.health SET asked_at = asked_at - interval '10 min', counts_until = counts_until - interval '10 min'});
like(gate('health of green', 'status, value'), qr/^ok\|well 4 times in a row, asked 6\d\d s ago$/, 'a session is shown the last answer');
$web->script('ok');
raised('asked anew');
is(scalar(() = $web->requests), 4, 'a row ends when nobody has asked for long');
ask($web->url('ok'));
is(gate('health of green', 'status, value'), 'skipped|not asked', 'another URL has not answered yet');
raised('it has');
is(on_green(q{SELECT successes FROM bcmig.health}), '2', 'a row of its own');

# --- health: certificates ---
my ($url, $certificate) = $web->tls('IP:127.0.0.1');
ask($url);
refused('health of green: fail, .*self.signed certificate', 'health: a certificate nobody has signed');
ask($url, health_ca_file => $certificate);
raised('health: it is trusted');
my ($other_url, $other) = $web->tls('DNS:elsewhere');
ask($other_url, health_ca_file => $other);
refused('health of green: fail, .*certificate.*match', 'health: a certificate of somebody else');
ask($url, health_ca_file => "$certificate.not");
refused('health of green: fail, .*(?:setting certificate|adding trust anchors)', 'health: no such file');
ask($web->url('ok'));

# --- queries of one's own ---
on_green(q{SELECT bcmig_add_gate('s', 'open', 'SELECT open FROM public.flag')});
is(gate('open', 'status, value'), 'inconclusive|not asked', 'nobody has asked it');
refused('open: inconclusive, no row, ', 'no row');
on_green('INSERT INTO flag VALUES (NULL)');
refused('open: inconclusive, NULL, ', 'NULL');
on_green('UPDATE flag SET open = false');
refused('open: fail, false, ', 'false');
on_green(q{UPDATE bcmig.gate_answer SET asked_at = asked_at - interval '1 hour', counts_until = counts_until - interval '1 hour'});
like(gate('open', 'status, value, fix'), qr/^fail\|false, asked 36\d\d s ago\|SELECT open FROM public.flag$/, 'a session is shown the last answer');
on_green('UPDATE flag SET open = true');
raised('true');
on_green('INSERT INTO flag VALUES (true)');
refused('open: fail, several rows, ', 'two rows');
on_green('DROP TABLE flag');
refused('open: fail, error, .*42P01: relation "public.flag" does not exist', 'an error is told');
on_green('CREATE TABLE flag (open boolean); INSERT INTO flag VALUES (true)');
raised('the table is back');

on_green(q{CREATE FUNCTION writes() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.flag VALUES (true); RETURN true; END';
	CREATE FUNCTION leaves() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_advisory_lock(4711), set_config(''search_path'', ''nowhere'', false); RETURN true; END'});
foreach my $case (
	[ 'SELECT pg_sleep(1000) IS NOT NULL', '57014: canceling statement due to statement timeout', 'one that does not end' ],
	[ 'SELECT public.writes()', '25006: cannot execute INSERT in a read-only transaction', 'one that writes' ],
	[ 'SELECT 1 / (SELECT count(*) - 1 FROM public.flag) = 1', '22012: division by zero', 'one that divides by zero' ])
{
	on_green(qq{SELECT bcmig_add_gate('s', 'bad', '$case->[0]')});
	refused("bad: fail, error, .*$case->[1]", "a query: $case->[2]");
	on_green(q{SELECT bcmig_remove_gate('s', 'bad')});
}
on_green(q{SELECT bcmig_add_gate('s', 'first', 'SELECT public.leaves()');
	SELECT bcmig_add_gate('s', 'second', 'SELECT current_setting(''search_path'') = ''pg_catalog, pg_temp'' AND NOT EXISTS (SELECT FROM pg_locks WHERE locktype = ''advisory'' AND objid = 4711)')});
raised('nothing that one has set stays for the next');
on_green(q{SELECT bcmig_remove_gate('s', 'first'); SELECT bcmig_remove_gate('s', 'second')});

# --- asked again when the balancers are set ---
my $point = hold_point($green, 'traffic_set');
my $before = on_green('SELECT max(event_id) FROM bcmig.traffic_event');
on_green(q{SELECT bcmig_set_traffic('s', 99)});
ok(point_reached($green, 'traffic_set'), 'balancers are set');
on_green('UPDATE flag SET open = false');
$point->quit;
$green->poll_query_until('postgres', "SELECT count(*) = 1 FROM bcmig.traffic_event WHERE event_id > $before AND event = 'undone'");
like(on_green("SELECT detail FROM bcmig.traffic_event WHERE event_id > $before AND event = 'undone'"), qr/^gate open: fail, false/, 'what has changed meanwhile undoes the change');
is(on_green(q{SELECT green_percent FROM bcmig.traffic_status WHERE sync = 's'}), $weight, 'the weight stays');
on_green(q{SELECT bcmig_remove_gate('s', 'open')});

# --- writers by weight ---
on_green(q{SELECT bcmig_alter_sync('s', '{"traffic": "reads_and_writes"}')});
refused('keys_disjoint: fail, there is no such gate, wanted true', 'writers by weight: nobody says that numbers do not meet');
on_green(q{SELECT bcmig_add_gate('s', 'keys_disjoint', 'SELECT min(id) > 1000 FROM public.item')});
refused('keys_disjoint: fail, false', 'they do meet');
on_green(q{SELECT bcmig_remove_gate('s', 'keys_disjoint'); SELECT bcmig_add_gate('s', 'keys_disjoint', 'SELECT max(id) < 1000 FROM public.item')});
raised('they do not');
on_green(q{SELECT bcmig_rollback('s', 'both sides are written to')});
wait_sync($green, 's', 'rolled_back');
on_green(q{SELECT bcmig_alter_sync('s', '{"traffic": "reads"}')});
is(weigh($weight), 'changed', 'readers only, as before');

# --- who waits for the way back does not wait for probes ---
ask($web->url('hang'), health_probes => 20, health_interval => '10ms');
$web->script('ok');
$before = on_green('SELECT max(event_id) FROM bcmig.traffic_event');
on_green(q{SELECT bcmig_set_traffic('s', 99)});
$green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.live_workers() WHERE phase = 'traffic'}) or die 'nobody raises it';
on_green(q{SELECT bcmig_set_traffic('s', 1)});
ok($green->poll_query_until('postgres', "SELECT count(*) = 1 FROM bcmig.traffic_event WHERE event_id > $before AND event = 'changed' AND to_percent = 1"), 'lowered');
cmp_ok(scalar(() = $web->requests), '<', 20, 'before all probes had their time');
is(on_green("SELECT count(*) FROM bcmig.traffic_event WHERE event_id > $before AND event = 'changed'"), 1, 'and not raised');

# --- lowering asks nobody ---
ask($web->url('ill'));
$web->script('ok');
is(weigh(0), 'changed', 'lowering needs no gate');
is(scalar(() = $web->requests), 0, 'nobody was asked');

done_testing();
