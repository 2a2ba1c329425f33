# From weight to weight through a real HAProxy, the last step and the way back:
# who asks, what is waited for, what fails on the way.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HAProxy;
use Test::More;
use Traffic;

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

sub value { return $green->safe_psql('postgres', $_[0]) }

like(refused($green, q{SELECT bcmig_switch_traffic('s')}), qr/^BM009: .*never started/, 'no switch before the first start');
value(qq{SELECT bcmig_add_balancer('s', 'front', 'haproxy', '} . $front->url . q{', '{"backend": "bc", "blue": ["blue1", "blue2"], "green": ["green1"]}')});
start_sync($green, 's');
wait_sync($green, 's');

# --- bad input ---
like(refused($green, q{SELECT bcmig_switch_traffic('s', '{5,5}')}), qr/^BM030: step 2 of the switch is 5/, 'steps that do not ascend');
like(refused($green, q{SELECT bcmig_switch_traffic('s', '{50,101}')}), qr/^BM030: step 2 of the switch is 101/, 'above 100');
like(refused($green, q{SELECT bcmig_switch_traffic('s', '{-1}')}), qr/^BM030: step 1 of the switch is -1/, 'below 0');
like(refused($green, q{SELECT bcmig_switch_traffic('s', '{NULL}')}), qr/^BM030: step 1 of the switch is NULL/, 'no number');
like(refused($green, q{SELECT bcmig_switch_traffic('s', '{}')}), qr/^BM030: a switch needs steps/, 'none');
like(refused($green, q{SELECT bcmig_switch_traffic('s', '{5}', '{"stabilisation": 1}')}), qr/^BM003: /, 'an unknown option');
like(refused($green, q{SELECT bcmig_set_traffic('s', 100)}), qr/^BM030: .*cannot be set to 100/, '100 by hand');
like(refused($green, q{SELECT bcmig_rollback('s', 'why')}), qr/^BM009: nothing of the traffic/, 'nothing to roll back');
like(refused($green, q{SELECT bcmig_complete_sync('s', 's')}), qr/^BM009: .*cannot be completed/, 'nothing to complete');
like(refused($green, q{CALL bcmig_wait_sync('s', 'switched', '1 s')}), qr/^BM009: sync "s" has no switch to wait for/, 'nothing to wait for');

# --- the plan ---
is(value(q{SELECT string_agg("where", ' ' ORDER BY step) FROM bcmig_switch_traffic('s', '{50,100}', dry_run => true)}),
	'green balancer green green blue blue green green balancer green green', 'the plan, in its order');
is(value('SELECT count(*) FROM bcmig.switch'), '0', 'and nothing but the plan');

# --- gates that are not ok: waited for, then given up ---
like(switch_to($green, '5', '{"step_timeout": "1s", "on_failure": "hold", "stabilization": 0}', sub {
	ok($green->poll_query_until('postgres', q{SELECT held ~ 'step 1 of 1 .5 %.: gate validation: inconclusive, never' FROM bcmig.traffic_status}), 'not proved: held, and said why');
	like(refused($green, q{SELECT bcmig_switch_traffic('s', '{5}')}), qr/^BM030: traffic of sync "s" is held/, 'no other one meanwhile');
	is(sides($green), '0 blue fenced', 'nothing has moved');
	run_validation($green, 's', 'full');
	value(q{SELECT bcmig_resume_traffic('s')});
}), qr/^done$/, 'validated and resumed, it goes on');
is(sides($green), '5 blue fenced', 'readers only');
is(value(q{SELECT state FROM bcmig.sync_status}), 'streaming', 'the sync streams');

# --- two at once, by hand in between ---
value(q{SELECT bcmig_switch_traffic('s', '{10,25,50}', '{"stabilization": "1h"}')});
like(refused($green, q{SELECT bcmig_switch_traffic('s', '{50}')}), qr/^BM009: traffic of sync "s" is being switched already/, 'not two at once');
ok($green->poll_query_until('postgres', q{SELECT phase = 'stabilising' AND green_percent = 10 FROM bcmig.switch_status WHERE state = 'running'}), 'the first step stands');
is(value(q{SELECT state FROM bcmig.sync_status}), 'switching', 'the sync says so');
value(q{SELECT bcmig_set_traffic('s', 7)});
ok($green->poll_query_until('postgres', q{SELECT state = 'cancelled' AND problem ~ 'has set 7 % by hand' FROM bcmig.switch_status LIMIT 1}), 'a weight set by hand ends it');
ok($green->poll_query_until('postgres', q{SELECT green_percent = 7 FROM bcmig.traffic_status}), 'and is set');

# --- in a transaction that is rolled back nothing is asked ---
value(q{BEGIN; SELECT bcmig_switch_traffic('s', '{50}'); SELECT bcmig_rollback('s', 'why'); ROLLBACK});
is(value(q{SELECT count(*) FROM bcmig.switch WHERE state = 'running'}), '0', 'rolled back: nothing was asked');

# --- all but the last step, and back ---
is(switch_to($green, '25,50,75'), 'done', 'three steps');
is(sides($green), '75 blue fenced', 'readers only');
is($front->green_share, 75, 'HAProxy has it');
like(refused($green, q{SELECT bcmig_switch_traffic('s', '{50,75}')}), qr/^BM030: sync "s" is at 75 % already/, 'no steps below');
is(roll_back($green), 'done', 'back');
is(sides($green), '0 blue fenced', 'as it was');
is($front->green_share, 0, 'HAProxy too');
is(value(q{SELECT state FROM bcmig.sync_status}), 'rolled_back', 'its state says so');

# --- green falls ill at 25 %: by itself back to 0 ---
sub health { value("SELECT bcmig_alter_environment('green', '{\"health_url\": \"http://127.0.0.1:" . $front->web_port . "$_[0]\"}')") }
health('/');
value(q{SELECT bcmig_switch_traffic('s', '{25,50}', '{"stabilization": "1h", "failed_looks": 2}')});
ok($green->poll_query_until('postgres', q{SELECT phase = 'stabilising' AND green_percent = 25 FROM bcmig.switch_status WHERE state = 'running'}), '25 % stand');
health('/sick');
ok($green->poll_query_until('postgres', q{SELECT kind = 'rollback' AND state = 'done' FROM bcmig.switch_status LIMIT 1}), 'green is ill: rolled back by itself');
is($front->green_share, 0, 'nobody is sent to green');
like(value(q{SELECT problem FROM bcmig.switch_status WHERE kind = 'switch' LIMIT 1}), qr/^step 1 of 2 \(25 %\): gate health of green: fail.*status 503/, 'and why is said');
is(value(q{SELECT reason = (SELECT problem FROM bcmig.switch_status WHERE kind = 'switch' LIMIT 1) FROM bcmig.switch_status LIMIT 1}), 't', 'in both');
health('/');

# --- one step back ---
health('/sick_from/30');
value(q{SELECT bcmig_switch_traffic('s', '{10,30,60}', '{"stabilization": "1s", "failed_looks": 1, "on_failure": "step_back"}')});
ok($green->poll_query_until('postgres', q{SELECT green_percent = 10 AND held ~ 'step 2 of 3 .30 %.: gate health of green: fail' FROM bcmig.traffic_status}), 'ill at 30: 10 %, and held');
is($front->green_share, 10, 'HAProxy too');
health('/');
value(q{SELECT bcmig_resume_traffic('s')});
wait_sync($green, 's', 'switched');
is(sides($green), '60 blue fenced', 'resumed, it goes on to the end');

done_testing();
