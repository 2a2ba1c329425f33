# The last step of a switch, and all that may be in its way: it is done within
# its time, or all is as before and blue can be written to.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HAProxy;
use Test::More;
use Traffic;

my $blue = new_blue();
my $green = new_green('green', 'restart_after_crash = on', "bcmig.debug_points = 'final_intent,final_fenced,final_set'");

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;
	CREATE TABLE late (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO late SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;
	CREATE TABLE elsewhere (id int PRIMARY KEY, v text);});
track($blue, 'item');
track($blue, 'late', 'rowversion');
allow_switch($blue);
connect_blue($green, $blue, 's', '{"traffic_timeout": "1s"}');
sub value { return $green->safe_psql('postgres', $_[0]) }
sub by { value("SELECT bcmig_alter_environment('blue', '{\"fence_by\": \"$_[0]\"}')") }
by('call');
value("SELECT bcmig_add_table('s', '$_')") foreach qw(item late);
my $front = HAProxy->new(blue => ['blue1'], green => ['green1']);
value(q{SELECT bcmig_add_balancer('s', 'front', 'haproxy', '} . $front->url . q{', '{"backend": "bc", "blue": ["blue1"], "green": ["green1"]}')});
start_sync($green, 's');
wait_sync($green, 's');
is((run_validation($green, 's', 'full'))[1], 'ok', 'validated');
is(switch_to($green, '50'), 'done', 'half of the readers');
my $hold = '{"stabilization": 0, "failed_looks": 1, "on_failure": "hold", "write_pause": "2s"}';

# All is as before: weight, balancer, fence of green, blue.
my $writes = 0;
sub as_before
{
	my ($what) = @_;
	ok($green->poll_query_until('postgres', q{SELECT changing_to IS NULL AND green_percent = 50 AND writes = 'blue' AND fence AND NOT journal_armed FROM bcmig.traffic_status}),
		"$what: green as before") or diag(sides($green));
	is($front->green_share, 50, "$what: the balancer too");
	$writes++;
	$blue->safe_psql('postgres', "UPDATE item SET v = 'again $writes' WHERE id = 1; DELETE FROM late WHERE id = 100 - $writes");
	like(refused($green, 'DELETE FROM item WHERE id = 1'), qr/^BM021/, "$what: blue takes writes, green does not");
	# in one transaction: the switch that was held ends, and does not try again
	value(q{BEGIN; SELECT bcmig_resume_traffic('s'); SELECT bcmig_set_traffic('s', 50); COMMIT});
	$green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.switch WHERE state = 'running'}) or die 'still running';
	wait_sync($green, 's');
}
sub held_by { return value('SELECT held FROM bcmig.traffic_status') }
sub held { $green->poll_query_until('postgres', 'SELECT held IS NOT NULL FROM bcmig.traffic_status') or die sides($green); return held_by(); }
sub try_100 { value("SELECT bcmig_switch_traffic('s', '{100}', '" . ($_[0] // $hold) . "')"); }

# --- somebody writes on blue for too long: the fence does not get its locks ---
my $writer = $blue->background_psql('postgres', on_error_die => 1);
$writer->query_safe(q{BEGIN; UPDATE item SET v = 'mine' WHERE id = 2});
try_100();
like(held(), qr/BM022: table public.item is being written to/, 'a writer that does not end');
$writer->query_safe('COMMIT');
as_before('writer');

# --- a transaction that was open at the fence, though not on these tables: not quiet in time ---
$writer->query_safe(q{BEGIN; INSERT INTO elsewhere VALUES (1, 'x')});
try_100();
like(held(), qr/not done in time: quiet, transactions that were open on blue have not ended: /, 'not quiet in time, and who it is');
$blue->safe_psql('postgres', q{UPDATE item SET v = 'beside it' WHERE id = 1});
$writer->query_safe('ROLLBACK');
as_before('not quiet');
$writer->quit;

# --- a row that is wrong on green: the validation says so ---
green_behind($green, q{UPDATE item SET v = 'wrong' WHERE id = 50});
$blue->safe_psql('postgres', q{UPDATE item SET v = v WHERE id = 51});	# so that its chunk is looked at
wait_sync($green, 's');
try_100();
like(held(), qr/validation \d+: different/, 'a validation that finds a difference');
as_before('different');
$blue->safe_psql('postgres', q{UPDATE item SET v = 'right' WHERE id = 50});
wait_sync($green, 's');
is((run_validation($green, 's', 'full'))[1], 'ok', 'mended');

# --- the journal cannot be armed: nothing is begun ---
green_behind($green, q{ALTER TABLE item ALTER COLUMN v TYPE varchar(2000); ALTER TABLE item ADD COLUMN extra int});
$blue->safe_psql('postgres', q{SELECT 1});
value(q{SELECT bcmig_map_column('s', 'late', 'v', '{"drop": true}')});
wait_sync($green, 's');
is((run_validation($green, 's', 'full'))[1], 'ok', 'a column is left out');
my $event = value('SELECT max(event_id) FROM bcmig.traffic_event');
try_100();
like(held(), qr/the journal cannot be armed: BM023: .*has no inverse/, 'a column that could not be brought back');
is(value(q{SELECT count(*) FROM bcmig.traffic_event WHERE event = 'begun' AND event_id > } . $event), '0', 'nothing was begun');
as_before('no inverse');
value(q{SELECT bcmig_unmap_column('s', 'late', 'v')});
wait_sync($green, 's');
is((run_validation($green, 's', 'full'))[1], 'ok', 'it is there again');

# --- the balancer is away when it is its turn ---
my $point = hold_point($green, 'final_fenced');
try_100($hold =~ s/2s/60s/r);	# what is asked while it is held takes its time
ok(point_reached($green, 'final_fenced'), 'fenced');
like($blue->psql('postgres', 'UPDATE item SET v = 1', extra_params => [ '-v', 'VERBOSITY=verbose' ]), qr/3|1/, 'blue refuses');
is(value(q{SELECT bcmig_route('s', 'k', write => true)}), 'pause', 'writers are told to wait');
cmp_ok(value(q{SELECT coalesce(writes_stopped_ms, -1) FROM bcmig.switch_status LIMIT 1}), '>=', 0, 'and it is shown for how long');
$front->stop;
release_point($green, $point);
like(held(), qr/balancer front: /, 'a balancer that is away');
$front->start;
value(q{BEGIN; SELECT bcmig_resume_traffic('s'); SELECT bcmig_set_traffic('s', 50); COMMIT});
ok(poll(sub { $front->green_share == 50 }), 'it is back, and set');
as_before('balancer');

# --- blue's fence goes in between ---
$point = hold_point($green, 'final_set');
try_100('{"stabilization": 0, "failed_looks": 1, "on_failure": "hold", "write_pause": "60s"}');
ok(point_reached($green, 'final_set'), 'balancers are set');
$blue->safe_psql('postgres', q{SELECT bcmig_blue.lift_fence(ARRAY['public.item'], '1 s')});
release_point($green, $point);
like(held(), qr/blue is not fenced any more/, 'blue opened behind our back: green stays closed');
as_before('opened');

# --- held by a person, rolled back, meanwhile ---
$point = hold_point($green, 'final_fenced');
try_100();
ok(point_reached($green, 'final_fenced'), 'fenced');
value(q{SELECT bcmig_hold_traffic('s', 'wait a moment')});
release_point($green, $point);
as_before('held');
$point = hold_point($green, 'final_fenced');
try_100();
ok(point_reached($green, 'final_fenced'), 'fenced');
value(q{SELECT bcmig_rollback('s', 'not today')});
release_point($green, $point);
wait_sync($green, 's', 'rolled_back');
is(sides($green), '0 blue fenced', 'rolled back from the midst of it');
$blue->safe_psql('postgres', q{UPDATE item SET v = 'open' WHERE id = 1});
is(switch_to($green, '50'), 'done', 'half again');

# --- blue dies with its fence up: opened when it is back ---
$point = hold_point($green, 'final_fenced');
try_100();
ok(point_reached($green, 'final_fenced'), 'fenced');
my $errors = value(q{SELECT count(*) FROM bcmig.audit_log WHERE kind = 'error' AND event = 'traffic'});
$blue->stop('immediate');
release_point($green, $point);
ok($green->poll_query_until('postgres', qq{SELECT count(*) > $errors FROM bcmig.audit_log WHERE kind = 'error' AND event = 'traffic'}), 'blue is away in the midst of it');
like(sides($green), qr/^50 pause fenced to 100/, 'it cannot be known what blue does: writers wait');
$blue->start;
as_before('blue was away');

# --- by a person ---
by('confirm');
my $patient = '{"stabilization": 0, "failed_looks": 1, "on_failure": "hold", "fence_timeout": "2s"}';
try_100($patient);
like(held(), qr/not done in time: blue to be fenced by a person/, 'nobody came');
as_before('nobody came');
is(switch_to($green, '100', undef, sub {
	ok($green->poll_query_until('postgres', q{SELECT phase = 'blue to be fenced by a person' FROM bcmig.switch_status LIMIT 1}), 'a person is waited for');
	is(value(q{SELECT bcmig_route('s', 'k', write => true)}), 'blue', 'writes go on meanwhile');
	value(q{SELECT bcmig_confirm('s', 'fence', 'I believe so')});
	$blue->safe_psql('postgres', q{UPDATE item SET v = 'to the last moment' WHERE id = 3});
	$blue->safe_psql('postgres', value(q{SELECT bcmig_blue_script('fence', 's')}));
}), 'done', 'the script was run: done');
is(sides($green), '100 green open armed', 'writers on green');
is(value(q{SELECT v FROM item WHERE id = 3}), 'to the last moment', 'with what was written last');
is(value(q{SELECT state FROM bcmig.sync_status}), 'switched', 'the sync says so');
cmp_ok(value(q{SELECT write_pause_ms FROM bcmig.switch_status LIMIT 1}), '>', 0, 'and how long nobody could write');
is(compare_table($blue, $green, $_), '', "$_: equal") foreach qw(item late);
like(refused($green, q{SELECT bcmig_set_traffic('s', 50)}), qr/^BM030: writers of sync "s" are on green/, 'no lower weight by hand');
like(refused($green, q{SELECT bcmig_drop_sync('s')}), qr/^BM009/, 'it cannot be dropped');

done_testing();
