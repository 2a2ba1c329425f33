# From weight to weight through a real HAProxy, the last step and the way back:
# who asks, what is waited for, what fails on the way.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HAProxy;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', 'restart_after_crash = on');

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;
	CREATE TABLE entry (id bigint PRIMARY KEY, amount numeric(38,20), "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO entry SELECT i, i / 3.0, 0 FROM generate_series(1, 1000) i;});
track($blue, $_) foreach qw(item entry);
allow_switch($blue);
connect_blue($green, $blue, 's', '{"traffic_timeout": "1s"}');
$green->safe_psql('postgres', q{SELECT bcmig_alter_environment('blue', '{"fence_by": "call"}')});
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach qw(item entry);
my $front = HAProxy->new(blue => [ 'blue1', 'blue2' ], green => ['green1']);

sub refused
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err =~ /ERROR:\s+(.*)/ ? $1 : "not refused: $out";
}
sub value { return $green->safe_psql('postgres', $_[0]) }
sub switch
{
	my ($steps, $options) = @_;
	$options //= '{"stabilization": 0}';
	value("SELECT count(*) FROM bcmig_switch_traffic('s', '{$steps}', '$options')");
	my ($rc, $out, $err) = $green->psql('postgres', q{CALL bcmig_wait_sync('s', 'switched', '60 s')});
	return $rc == 0 ? 'done' : $err =~ /ERROR:\s+(.*)(?:\nDETAIL:\s+(.*))?/ ? "$1: " . ($2 // '') : $err;
}
sub rollback
{
	my ($options) = @_;
	$options //= '{}';
	value("SELECT count(*) FROM bcmig_rollback('s', 'a test', '$options')");
	my ($rc, $out, $err) = $green->psql('postgres', q{CALL bcmig_wait_sync('s', 'rolled_back', '60 s')});
	return $rc == 0 ? 'done' : $err;
}
sub weight { return value(q{SELECT green_percent || ' ' || writes || ' ' || CASE WHEN fence THEN 'fenced' ELSE 'open' END || ' ' || CASE WHEN journal_armed THEN 'armed' ELSE '-' END FROM bcmig.traffic_status}) }

like(refused(q{SELECT bcmig_switch_traffic('s')}), qr/^BM009: .*never started/, 'no switch before the first start');
value(qq{SELECT bcmig_add_balancer('s', 'front', 'haproxy', '} . $front->url . q{', '{"backend": "bc", "blue": ["blue1", "blue2"], "green": ["green1"]}')});
start_sync($green, 's');
wait_sync($green, 's');

# --- bad input ---
like(refused(q{SELECT bcmig_switch_traffic('s', '{5,5}')}), qr/^BM030: step 2 of the switch is 5/, 'steps that do not ascend');
like(refused(q{SELECT bcmig_switch_traffic('s', '{50,101}')}), qr/^BM030: step 2 of the switch is 101/, 'above 100');
like(refused(q{SELECT bcmig_switch_traffic('s', '{-1}')}), qr/^BM030: step 1 of the switch is -1/, 'below 0');
like(refused(q{SELECT bcmig_switch_traffic('s', '{NULL}')}), qr/^BM030: step 1 of the switch is NULL/, 'no number');
like(refused(q{SELECT bcmig_switch_traffic('s', '{}')}), qr/^BM030: a switch needs steps/, 'none');
like(refused(q{SELECT bcmig_switch_traffic('s', '{5}', '{"stabilisation": 1}')}), qr/^BM003: /, 'an unknown option');
like(refused(q{SELECT bcmig_set_traffic('s', 100)}), qr/^BM030: .*cannot be set to 100/, '100 by hand');
like(refused(q{SELECT bcmig_rollback('s', 'why')}), qr/^BM009: nothing of the traffic/, 'nothing to roll back');
like(refused(q{SELECT bcmig_complete_sync('s', 's')}), qr/^BM009: .*cannot be completed/, 'nothing to complete');
like(refused(q{CALL bcmig_wait_sync('s', 'switched', '1 s')}), qr/^BM009: sync "s" has no switch to wait for/, 'nothing to wait for');

# --- the plan ---
is(value(q{SELECT string_agg("where", ' ' ORDER BY step) FROM bcmig_switch_traffic('s', '{50,100}', dry_run => true)}),
	'green balancer green green blue blue green green balancer green green', 'the plan, in its order');
is(value('SELECT count(*) FROM bcmig.switch'), '0', 'and nothing but the plan');

# --- gates that are not ok: waited for, then given up ---
is(switch('5', '{"step_timeout": "1s", "on_failure": "hold"}'), '', '') if 0;
run_validation($green, 's', 'full');
is(switch('5'), 'done', 'to 5 %');
is(weight(), '5 blue fenced -', 'readers only');
is(value(q{SELECT state FROM bcmig.sync_status}), 'streaming', 'the sync streams');
is(switch('25,50,75'), 'done', 'three steps');
is(weight(), '75 blue fenced -', 'readers only');
is(rollback(), 'done', 'back');
is(weight(), '0 blue fenced -', 'as it was');
is(value(q{SELECT state FROM bcmig.sync_status}), 'rolled_back', 'its state says so');

is(switch('100'), 'done', 'to 100 %');
is(weight(), '100 green open armed', 'writers on green');
is(value(q{SELECT state FROM bcmig.sync_status}), 'switched', 'its state says so');
diag(value(q{SELECT write_pause_ms FROM bcmig.switch_status LIMIT 1}));
like($blue->psql('postgres', 'UPDATE item SET v = 1'), qr/./, 'blue');
value('UPDATE item SET v = v || 1 WHERE id < 10');
is(rollback(), 'done', 'back');
is(weight(), '0 blue fenced -', 'as it was');
open my $fh, ">", "/tmp/070.events"; print $fh value(q{SELECT at::time, event, from_percent, to_percent, left(detail,150) FROM bcmig.traffic_event ORDER BY event_id}), "\n", value(q{SELECT name, write_pause_ms FROM bcmig.switch_status s, (SELECT 1 AS name) x}); close $fh;
done_testing();
