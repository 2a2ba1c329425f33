# A copy of green does not move traffic: a crash and a restart go on, a copy
# beside the original is held, and who was adopted drives while the other finds
# by blue's witness that it is not the one any more.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HAProxy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Traffic;

my $blue = new_blue();
allow_switch($blue);
my $green = new_green('green', 'wal_level = replica', 'max_wal_senders = 5', 'restart_after_crash = on', "bcmig.debug_points = 'witness'");
$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;});
track($blue, 'item');
connect_blue($green, $blue, 's', '{"traffic_timeout": "2s"}');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'item')});

my $front = HAProxy->new(blue => ['b'], green => ['g']);
add_haproxy($green, 'front', $front);

sub green { return $green->safe_psql('postgres', $_[0]) }
sub refused
{
	my ($node, $sql) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err;
}

# --- the witness ---
like(green(q{SELECT status || ' ' || value FROM bcmig_preflight('s') WHERE check_name = 'blue witness'}), qr/^ok possible$/, 'preflight: blue can keep a witness');
start_sync($green, 's');
wait_sync($green, 's');
my (undef, $verdict) = run_validation($green, 's', 'full');
is($verdict, 'ok', 'validated');
is(set_traffic($green, 25), 'changed', 'to 25 %');
ok($green->poll_query_until('postgres', q{SELECT witness = 'kept' FROM bcmig.traffic_status}), 'blue has been told');

sub witness { return $blue->safe_psql('postgres', q{SELECT epoch || ' ' || nonce FROM bcmig_blue.witness WHERE sync = 's'}) }
sub stored { return $_[0]->safe_psql('postgres', q{SELECT epoch || ' ' || nonce FROM bcmig.traffic JOIN bcmig.incarnation USING (sync_id)}) }
is(witness(), stored($green), 'of the epoch and its nonce');
like($blue->safe_psql('postgres', 'SELECT green FROM bcmig_blue.witness'), qr/, port ${\$green->port}, .*timeline 1/, 'and of who it is');
like(refused($green, q{SELECT bcmig_adopt('s')}), qr/NOTICE.*already/, 'there is nothing to adopt');

my $system = green('SELECT system_identifier FROM pg_control_system()');
command_like([ 'pg_dump', '--data-only', '-d', $green->connstr('postgres') ],
	qr/^COPY bcmig\.traffic .*^COPY bcmig\.incarnation [^\n]*\n1\t$system\t/ms, 'a dump takes it along, after the traffic it belongs to');

# --- a crash, a restart ---
foreach my $mode ('immediate', 'fast')
{
	$green->stop($mode);
	$green->start;
	ok($green->poll_query_until('postgres', q{SELECT every(server_start = pg_postmaster_start_time())
		FROM (SELECT server_start FROM bcmig.incarnation UNION ALL SELECT server_start FROM bcmig.balancer_state) x}), "$mode stop and start: blue is asked, and the balancer");
	$front->tell('set weight bc/g 0');
	ok(poll(sub { $front->green_share == 25 }), 'and it goes on: balancers are looked after');
}

# --- it dies between its commit and blue's answer ---
my $point = hold_point($green, 'witness');
green(q{SELECT bcmig_set_traffic('s', 20)});
ok(point_reached($green, 'witness'), 'the weight is stored, blue is not told yet');
isnt(witness(), stored($green), 'blue has the epoch before');
kill_pid('KILL', green(q{SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = 7268}));
$point->{run}->kill_kill;
ok($green->poll_query_until('postgres', q{SELECT witness = 'kept' FROM bcmig.traffic_status}), 'after the crash it is told');
is(witness(), stored($green), 'the new epoch');
is(green(q{SELECT count(*) FROM bcmig.traffic_event WHERE event = 'held'}), '0', 'traffic was never held');
wait_sync($green, 's');
run_validation($green, 's', 'full');
is(set_traffic($green, 25), 'changed', 'to 25 % again');

# --- blue away ---
$blue->stop('immediate');
is(set_traffic($green, 10), 'changed', 'blue is away: the weight can be lowered');
like(green(q{SELECT witness || ' ' || witness_error FROM bcmig.traffic_status}), qr/^behind 08/, 'blue is told later');
$blue->start;
ok($green->poll_query_until('postgres', q{SELECT witness = 'kept' AND witness_error IS NULL FROM bcmig.traffic_status}), 'it is');
is(witness(), stored($green), 'the last epoch');

# --- blue away, and the server was started: what others did meanwhile is not known ---
$blue->stop('immediate');
$green->restart;
ok($green->poll_query_until('postgres', q{SELECT server_start = pg_postmaster_start_time() FROM bcmig.balancer_state}), 'it looks at the balancer');
$front->tell('set weight bc/g 100');
my $strange = $front->green_share;
green(q{SELECT bcmig_set_traffic('s', 5)});
ok(worked($green, 2), 'and again');
is($front->green_share, $strange, 'but leaves it alone');
is(green(q{SELECT green_percent || ' ' || wanted_percent || ' ' || coalesce(held, 'not held') FROM bcmig.traffic_status}), '10 5 not held', 'the weight waits for blue');
green(q{SELECT bcmig_adopt('s')});
ok($green->poll_query_until('postgres', q{SELECT green_percent = 5 FROM bcmig.traffic_status}), 'or for a person who says that this is the one');
ok(abs($front->green_share - 5) < 0.5, 'then it acts');
$blue->start;
ok($green->poll_query_until('postgres', q{SELECT witness = 'kept' FROM bcmig.traffic_status}), 'blue is told when it is back');
is(witness(), stored($green), 'the last epoch');
wait_sync($green, 's');
run_validation($green, 's', 'full');
is(set_traffic($green, 10), 'changed', 'to 10 % again');

# --- a copy beside it, started from a base backup ---
$green->backup('copy');
$green->stop;
my ($weight) = $front->tell('get weight bc/g') =~ /^(\d+) / or die;
$front->tell('set weight bc/g 100');
$strange = $front->green_share;
my $clone = PostgreSQL::Test::Cluster->new('clone');
$clone->init_from_backup($green, 'copy');
$clone->start;
like(held_why($clone), qr/another data directory.*SELECT bcmig_adopt\('s'\);$/, 'a copy is held, and says why');
ok($clone->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.alert WHERE name = 'traffic_held' AND cleared_at IS NULL AND fix = 'SELECT bcmig_adopt(''s'');'}), 'an alert says what to do');
ok(worked($clone, 2), 'its workers go on');
is($front->green_share, $strange, 'and leaves it alone');
like(refused($clone, q{SELECT bcmig_set_traffic('s', 5)}), qr/BM030.*HINT:  SELECT bcmig_adopt\('s'\);/s, 'it takes no weight');
like(refused($clone, q{SELECT bcmig_resume_traffic('s')}), qr/BM030.*HINT:  SELECT bcmig_adopt\('s'\);/s, 'and is not resumed by accident');
like(refused($clone, q{SELECT count(*) FROM bcmig_rollback('s', 'by the wrong one')}), qr/BM030.*another data directory.*HINT:  SELECT bcmig_adopt\('s'\);/s, 'nor rolls back');
like(refused($clone, q{SELECT count(*) FROM bcmig_switch_traffic('s')}), qr/BM030.*HINT:  SELECT bcmig_adopt\('s'\);/s, 'nor begins a switch');
is($clone->safe_psql('postgres', q{SELECT count(*) FROM bcmig_rollback('s', 'only asking', '{}', true)}) > 0 ? 1 : 0, 1, 'what it would do may be asked');
is($clone->safe_psql('postgres', q{SELECT green_percent || ' ' || coalesce(intent::text, 'none') FROM bcmig.traffic}), '10 none', 'nothing is on its way');
$blue->safe_psql('postgres', q{UPDATE item SET v = 'new' WHERE id = 7});
ok($clone->poll_query_until('postgres', q{SELECT v = 'new' FROM item WHERE id = 7}), 'it reads blue all the same');

$front->tell("set weight bc/g $weight");
$green->start;
ok($green->poll_query_until('postgres', q{SELECT server_start = pg_postmaster_start_time() AND held IS NULL FROM bcmig.incarnation JOIN bcmig.traffic USING (sync_id)}), 'the original goes on');
is(set_traffic($green, 0), 'changed', 'and drives');

# --- the copy is adopted ---
$clone->safe_psql('postgres', q{SELECT bcmig_adopt('s')});
ok($clone->poll_query_until('postgres', q{SELECT witness = 'kept' AND held IS NULL FROM bcmig.traffic_status}), 'adopted: blue is told');
is(witness(), stored($clone), 'of a new epoch');
cmp_ok((split / /, witness())[0], '>', (split / /, stored($green))[0], 'above that of the original');
like($clone->safe_psql('postgres', q{SELECT string_agg(detail, '') FROM bcmig.traffic_event WHERE event = 'adopted'}), qr/another data directory/, 'an event');
like(held_why($green), qr/blue was told at .* by .*, port ${\$clone->port}, /, 'the original finds traffic held: both would set the balancer');
ok(poll(sub { abs($front->green_share - 10) < 0.5 }), 'it has the weight of the copy');

# --- the original again, and the copy at its next weight ---
green(q{SELECT bcmig_adopt('s')});
ok($green->poll_query_until('postgres', q{SELECT witness = 'kept' FROM bcmig.traffic_status}), 'the original is adopted');
like(held_why($clone), qr/blue was told at .* by .*, port ${\$green->port}, /, 'now the copy is held');
ok(poll(sub { $front->green_share == 0 }), 'and the balancer has the weight of the original');
$clone->stop;

done_testing();
