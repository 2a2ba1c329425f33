# Killed at twenty random instants of switches and rollbacks: what is killed is a
# worker at its traffic, the manager, or the whole server.  Afterwards tables,
# balancer, both fences and bcmig_route agree, and no write is lost.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HAProxy;
use Test::More;
use Time::HiRes qw(usleep);
use Traffic;

my $seed = $ENV{SEED} // int(rand(1 << 30));
srand($seed);
diag("SEED=$seed");

my $blue = new_blue();
my $green = new_green('green', 'restart_after_crash = on');

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 200) i;});
track($blue, 'item');
allow_switch($blue);
connect_blue($green, $blue, 's', '{"traffic_timeout": "2s"}');
$green->safe_psql('postgres', q{SELECT bcmig_alter_environment('blue', '{"fence_by": "call"}'); SELECT bcmig_add_table('s', 'item')});
my $front = HAProxy->new(blue => [ 'blue1', 'blue2' ], green => ['green1']);
add_haproxy($green, 'front', $front);
start_sync($green, 's');
wait_sync($green, 's');
is((run_validation($green, 's', 'full'))[1], 'ok', 'validated');

my ($round, %written) = (0);
sub row { return $green->poll_query_until('postgres', $_[0]) }

# Where a write goes, by bcmig_route and by trying: both must agree.
sub write_somewhere
{
	my $side = $green->safe_psql('postgres', q{SELECT bcmig_route('s', 'me', write => true)});
	my ($node, $other) = $side eq 'green' ? ($green, $blue) : ($blue, $green);

	isnt($side, 'pause', "round $round: writers are not left waiting") or return;
	$written{$round} = "by $side";
	$node->safe_psql('postgres', "INSERT INTO item (id, v) VALUES (1000 + $round, 'by $side')");
	my ($rc) = $other->psql('postgres', "INSERT INTO item (id, v) VALUES (5000 + $round, 'by both')");
	isnt($rc, 0, "round $round: the other side refuses");
}

sub kill_something
{
	my $what = (qw(worker worker manager server))[ int(rand(4)) ];
	if ($what eq 'server')
	{
		$green->stop('immediate');
		$green->start;
		return $what;
	}
	my $who = $what eq 'manager' ? q{role = 'manager'} : q{role = 'worker' AND phase ~ '^(traffic|switch|rollback)'};
	my ($pid) = split /\n/, $green->safe_psql('postgres', "SELECT pid FROM bcmig.worker_status WHERE pid > 0 AND $who");
	return "$what (had ended)" unless $pid;
	return crash($green, $pid) ? $what : "$what (green does not come back)";
}

my $done = q{SELECT count(*) = 0 FROM bcmig.switch WHERE state = 'running'};
my $settled = q{SELECT t.intent IS NULL AND t.writes <> 'pause' AND t.held IS NULL FROM bcmig.traffic t};
while ($round < 20)
{
	$round++;
	my $at = $green->safe_psql('postgres', 'SELECT green_percent FROM bcmig.traffic');
	my $ask = $at == 100 || ($at > 0 && rand() < 0.5) ? q{SELECT bcmig_rollback('s', 'a test')}
	  : sprintf q{SELECT bcmig_switch_traffic('s', '{%s}', '{"stabilization": 0, "failed_looks": 5}')}, $at == 0 ? '30,100' : '100';
	$green->safe_psql('postgres', $ask);
	usleep(int(rand(250_000)));
	my $what = kill_something();

	# what was begun must leave nothing behind where it does not go on, too
	if (rand() < 0.5)
	{
		my ($rc) = $green->psql('postgres', q{SELECT bcmig_rollback('s', 'enough of it')});
		$what .= ', and back' if $rc == 0;
	}
	ok($green->poll_query_until('postgres', $done), "round $round ($ask, $what): it is carried through") or diag($green->safe_psql('postgres', 'TABLE bcmig.switch'));
	ok($green->poll_query_until('postgres', $settled), "round $round: nothing is left open") or diag($green->safe_psql('postgres', 'TABLE bcmig.traffic'));

	my ($percent, $writes, $fence, $armed) = split /\|/, $green->safe_psql('postgres', 'SELECT green_percent, writes, fence, journal_armed FROM bcmig.traffic');
	is("$writes $fence $armed", $percent == 100 ? 'green f t' : 'blue t f', "round $round: at $percent % fence and journal are as they belong");
	ok(poll(sub { $front->green_share == $percent }), "round $round: the balancer has $percent %") or diag($front->green_share);
	write_somewhere();
	if ($percent < 100)
	{
		$green->poll_query_until('postgres', q{SELECT state IN ('streaming', 'rolled_back', 'switching') FROM bcmig.sync_status});
		wait_sync($green, 's');
		run_validation($green, 's', 'incremental');
	}
}

$green->safe_psql('postgres', q{SELECT bcmig_rollback('s', 'the end')}) if $green->safe_psql('postgres', 'SELECT green_percent FROM bcmig.traffic') > 0;
ok(row($done), 'back');
wait_sync($green, 's');
is(compare_table($blue, $green, 'item'), '', 'both sides are equal');
foreach my $node ($blue, $green)
{
	my %there = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT id - 1000, v FROM item WHERE id > 1000');
	is_deeply(\%there, \%written, $node->name . ': no write is missing');
}
is((run_validation($green, 's', 'full'))[1], 'ok', 'a full validation says so');

done_testing();
