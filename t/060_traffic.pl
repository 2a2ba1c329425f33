# Traffic by weight through a real HAProxy: gates, balancers set and read back,
# what fails is set back, drift, a worker that dies in between.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HAProxy;
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(usleep);

my $blue = new_blue();
my $green = new_green('green', 'restart_after_crash = on', "bcmig.debug_points = 'traffic_intent,traffic_set'");

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;});
track($blue, 'item');
connect_blue($green, $blue, 's', '{"traffic_timeout": "1s"}');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'item')});

my $front = HAProxy->new(blue => [ 'blue1', 'blue2' ], green => ['green1']);
my $second = HAProxy->new(blue => ['b'], green => ['g']);

sub add_balancer
{
	my ($name, $haproxy, $url) = @_;
	$url //= $haproxy->url;
	my $options = sprintf '{"backend": "bc", "blue": [%s], "green": [%s]}',
	  map { join ',', map { "\"$_\"" } @{ $haproxy->{$_} } } qw(blue green);
	$green->safe_psql('postgres', "SELECT bcmig_add_balancer('s', '$name', 'haproxy', '$url', '$options')");
}

# Ask for a weight and wait for the last event of it.
sub set_traffic
{
	my ($percent) = @_;
	my $before = $green->safe_psql('postgres', 'SELECT coalesce(max(event_id), 0) FROM bcmig.traffic_event');
	$green->safe_psql('postgres', "SELECT bcmig_set_traffic('s', $percent)");
	return event_after($before);
}

sub event_after
{
	my ($before) = @_;
	my $done = "event_id > $before AND event IN ('changed', 'refused', 'undone')";
	$green->poll_query_until('postgres', "SELECT count(*) > 0 FROM bcmig.traffic_event WHERE $done") or die 'no event';
	return $green->safe_psql('postgres', "SELECT event || coalesce(': ' || detail, '') FROM bcmig.traffic_event WHERE $done ORDER BY event_id LIMIT 1");
}

# Until a condition outside of the server holds.
sub poll
{
	my ($is) = @_;
	for (my $left = 10 * $PostgreSQL::Test::Utils::timeout_default; $left > 0; $left--)
	{
		return 1 if $is->();
		usleep(100_000);
	}
	return 0;
}

sub last_event { $green->safe_psql('postgres', 'SELECT coalesce(max(event_id), 0) FROM bcmig.traffic_event') }
sub weight { $green->safe_psql('postgres', q{SELECT green_percent || ' ' || coalesce(changing_to::text, '-') FROM bcmig.traffic_status}) }

# --- before the first start there is nothing to weigh ---
my ($rc, $out, $err) = $green->psql('postgres', q{SELECT bcmig_set_traffic('s', 5)}, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/BM009/, 'no weight before the first start, which raises the fence');
add_balancer('front', $front);
start_sync($green, 's');
wait_sync($green, 's');

# --- gates ---
like(set_traffic(5), qr/^refused: gate validation: inconclusive, never/, 'not proved: refused, and said why');
is(weight(), '0 -', 'the weight is as it was');
is($front->green_share, 0, 'the balancer too');
my ($run, $verdict) = run_validation($green, 's', 'full');
is($verdict, 'ok', 'validated');
is($green->safe_psql('postgres', q{SELECT string_agg(check_name || ' ' || status, ', ' ORDER BY check_name) FROM bcmig_check_gates('s')}),
	'conflicts ok, errors ok, fence ok, health of blue skipped, health of green skipped, journal ok, lag ok, quarantine ok, tables ok, validation ok',
	'all gates are ok');

# --- the steps: what HAProxy sends where ---
my $session = $green->background_psql('postgres', on_error_die => 1);
$session->query_safe("SELECT bcmig_route('s', 'warm')");
my $old = $green->background_psql('postgres', on_error_die => 1);
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM bcmig.sync');
my $epoch = 0;
foreach my $percent (5, 25, 50)
{
	is(set_traffic($percent), 'changed', "to $percent %");
	my $share = $front->share_of_requests(2000);
	ok(abs($share - $percent) <= 2, "of 2,000 requests $percent % go to green") or diag("share $share");
	my $now = $green->safe_psql('postgres', 'SELECT epoch FROM bcmig.traffic');
	ok($now > $epoch, 'a new epoch') or diag("$now after $epoch");
	$epoch = $now;
}
ok($epoch > 2**32, 'the epoch begins with the timeline');
is($session->query_safe(q{SELECT count(*) BETWEEN 450 AND 550 FROM generate_series(1, 1000) i WHERE bcmig_route('s', 'k' || i) = 'green'}),
	't', 'a session that was open routes by the new weight');
$old->query_safe(q{SELECT bcmig_route('s', 'k1'); COMMIT});
is($old->query_safe(q{SELECT count(*) BETWEEN 450 AND 550 FROM generate_series(1, 1000) i WHERE bcmig_route('s', 'k' || i) = 'green'}),
	't', 'and one in a transaction from before');
$session->quit;
$old->quit;
is($green->safe_psql('postgres', q{SELECT string_agg(DISTINCT moment || ' ' || status, ', ' ORDER BY moment || ' ' || status) FROM bcmig.gate_result
	JOIN bcmig.traffic_event USING (event_id) WHERE event = 'begun'}), 'after ok, after skipped, before ok, before skipped', 'gates are kept, of before and after');
is($green->safe_psql('postgres', q{SELECT green_percent FROM bcmig_status('s')}), '50', 'bcmig_status says it');

# --- a failing gate: not more, but less ---
green_behind($green, q{ALTER TABLE item ADD CONSTRAINT c CHECK (v <> 'bad')});
$blue->safe_psql('postgres', q{UPDATE item SET v = 'bad' WHERE id = 3});
$green->poll_query_until('postgres', 'SELECT count(*) = 1 FROM bcmig.quarantine');
like(set_traffic(75), qr/^refused: gate quarantine: fail, 1, wanted 0/, 'a quarantined row: not raised');
is(weight(), '50 -', 'the weight stays');
is(set_traffic(25), 'changed', 'lowering asks no gate');
ok(abs($front->share_of_requests(2000) - 25) <= 2, 'and is done');
green_behind($green, q{ALTER TABLE item DROP CONSTRAINT c});
$green->safe_psql('postgres', q{SELECT bcmig_retry_quarantine('s')});
$green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.quarantine');

# --- health of green ---
sub health_url
{
	$green->safe_psql('postgres', "SELECT bcmig_alter_environment('green', '{\"health_url\": \"http://127.0.0.1:" . $front->web_port . "$_[0]\"}')");
}
health_url('/sick');
like(set_traffic(50), qr/^refused: gate health of green: fail, .*status 503/, 'green says it is sick');
health_url('/');
is(set_traffic(50), 'changed', 'it is well again');

# --- a second balancer: joins at the weight; unreachable, it stops a change ---
add_balancer('zweiter', $second);
ok(poll(sub { $second->green_share == 50 }), 'a new balancer is brought to the weight');
$second->stop;
like(set_traffic(75), qr/^undone: balancer zweiter: /, 'one that cannot be reached undoes the change');
is(weight(), '50 -', 'the weight stays');
is($front->green_share, 50, 'the other one is set back');
like($green->safe_psql('postgres', q{SELECT balancer_problems FROM bcmig.traffic_status}), qr/^zweiter: /, 'traffic_status names it');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.alert WHERE name = 'balancer' AND cleared_at IS NULL}), 'an alert is raised');
$second->start;
ok($green->poll_query_until('postgres', q{SELECT balancer_problems IS NULL FROM bcmig.traffic_status}), 'it is back');
ok(poll(sub { $second->green_share == 50 }), 'and has the weight, which HAProxy had forgotten');
$green->safe_psql('postgres', q{SELECT bcmig_remove_balancer('s', 'zweiter')});

# --- a server HAProxy does not know ---
{
	local $second->{green} = ['nobody'];
	add_balancer('wrong', $second);
}
like(set_traffic(75), qr/^undone: balancer wrong: HAProxy at \S+ /, 'a server that is not there undoes the change');
is($front->green_share, 50, 'the other one is set back');
$green->safe_psql('postgres', q{SELECT bcmig_remove_balancer('s', 'wrong')});

# --- one that takes a connection and never answers ---
my $silent = IO::Socket::INET->new(Listen => 16, LocalAddr => '127.0.0.1', LocalPort => 0) or die "listen: $!";
add_balancer('silent', $second, 'tcp://127.0.0.1:' . $silent->sockport);
like(set_traffic(75), qr/^undone: balancer silent: .*no answer within 1000 ms/, 'time is up');
is($front->green_share, 50, 'the other one is set back');
$green->safe_psql('postgres', q{SELECT bcmig_remove_balancer('s', 'silent')});
close $silent;

# --- what goes wrong while balancers are set ---
foreach my $case ([ q{SELECT bcmig_suspend_table('s', 'item')}, qr/^undone: gate /, q{SELECT bcmig_resume_table('s', 'item')}, 'a gate fails' ],
	[ q{SELECT bcmig_hold_traffic('s', 'wait')}, qr/^undone: held: wait$/, q{SELECT bcmig_resume_traffic('s')}, 'a person holds it' ])
{
	my $start = last_event();
	my $point = hold_point($green, 'traffic_set');
	$green->safe_psql('postgres', q{SELECT bcmig_set_traffic('s', 75)});
	ok(point_reached($green, 'traffic_set'), "$case->[3]: balancers are set");
	is($front->green_share, 75, 'to the new weight');
	is($green->safe_psql('postgres', q{SELECT bcmig_route('s', 'k1', true)}), 'blue', 'writers stay on blue');
	$green->safe_psql('postgres', $case->[0]);
	$point->quit;
	like(event_after($start), $case->[1], 'undone');
	is(weight(), '50 -', 'the weight stays');
	is($front->green_share, 50, 'HAProxy has it again');
	$green->safe_psql('postgres', $case->[2]);
	wait_sync($green, 's');
}

# --- drift ---
my $before = last_event();
$front->tell('set weight bc/green1 0');
ok(poll(sub { $front->green_share == 50 }), 'a weight changed by hand is put back');
ok($green->poll_query_until('postgres', "SELECT detail LIKE 'front had 0 %, set again' FROM bcmig.traffic_event WHERE event_id > $before AND event = 'drift'"), 'and that is logged');

# --- two requests at once: the last one counts ---
my $held = hold_point($green, 'traffic_intent');
$green->safe_psql('postgres', q{SELECT bcmig_set_traffic('s', 20)});
ok(point_reached($green, 'traffic_intent'), 'a change has begun');
$green->safe_psql('postgres', q{SELECT bcmig_set_traffic('s', 30); SELECT bcmig_set_traffic('s', 10)});
is($green->safe_psql('postgres', q{SELECT changing_to || ' ' || wanted_percent FROM bcmig.traffic_status}), '20 10', 'one is done, one waits');
$held->quit;
ok($green->poll_query_until('postgres', q{SELECT green_percent = 10 AND changing_to IS NULL AND wanted_percent IS NULL FROM bcmig.traffic_status}), 'the last one counts');
is($front->green_share, 10, 'at the balancer too');

# --- the worker dies when the balancers are set and nothing is stored yet ---
foreach my $signal ('TERM', 'KILL')
{
	$before = last_event();
	my $point = hold_point($green, 'traffic_set');
	$green->safe_psql('postgres', q{SELECT bcmig_set_traffic('s', 60)});
	ok(point_reached($green, 'traffic_set'), "$signal: balancers are set");
	is($front->green_share, 60, 'HAProxy has the new weight');
	my $pid = $green->safe_psql('postgres', q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = 7268});
	kill_pid($signal, $pid);
	$point->{run}->kill_kill if $signal eq 'KILL';
	$green->poll_query_until('postgres', "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $pid)");
	$point->quit if $signal ne 'KILL';
	ok($green->poll_query_until('postgres', "SELECT count(*) = 1 FROM bcmig.traffic_event WHERE event_id > $before AND event = 'undone'"), 'the change is undone');
	is(weight(), '10 -', 'the stored weight is the old one');
	is($front->green_share, 10, 'HAProxy has it again');
}

# --- after a start of the server: not what is stored is not touched ---
$green->stop;
$front->tell('set weight bc/green1 100');
my $strange = $front->green_share;
$green->start;
ok($green->poll_query_until('postgres', q{SELECT held IS NOT NULL FROM bcmig.traffic_status}), 'traffic is held');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.alert WHERE name = 'traffic_held' AND cleared_at IS NULL}), 'an alert is raised');
is($front->green_share, $strange, 'the balancer is left alone');
($rc, $out, $err) = $green->psql('postgres', q{SELECT bcmig_set_traffic('s', 20)}, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr/BM030/, 'no weight is taken');
$green->safe_psql('postgres', q{SELECT bcmig_resume_traffic('s')});
ok(poll(sub { $front->green_share == 10 }), 'resumed: what is stored counts');

# --- held by a person; and back to blue ---
$green->safe_psql('postgres', q{SELECT bcmig_hold_traffic('s', 'month end')});
$front->tell('set weight bc/green1 0');
is($green->safe_psql('postgres', q{SELECT held FROM bcmig.traffic_status}), 'month end', 'held');
$green->safe_psql('postgres', q{SELECT bcmig_resume_traffic('s')});
ok(poll(sub { $front->green_share == 10 }), 'put back after the hold');
is(set_traffic(0), 'changed', 'back to 0');
is($front->share_of_requests(2000), 0, 'nothing goes to green');
foreach my $bad ('100', '-1', '100.5', "'NaN'")
{
	($rc, $out, $err) = $green->psql('postgres', "SELECT bcmig_set_traffic('s', $bad)", extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, qr/BM030/, "$bad % is refused");
}

# --- lowering works for a sync that does not run ---
wait_sync($green, 's');
run_validation($green, 's', 'full');
is(set_traffic(5), 'changed', 'once more');
$green->safe_psql('postgres', q{SELECT bcmig_stop_sync('s')});
$green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_status});
like(set_traffic(10), qr/^refused: gate lag: inconclusive/, 'a stopped sync: not more');
is(set_traffic(0), 'changed', 'but less');

done_testing();
