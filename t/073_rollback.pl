# The way back from 100 %, and all that may be in its way: nothing that was
# acknowledged on green is lost, or traffic stays where it was.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HAProxy;
use Test::More;
use Traffic;

my $blue = new_blue();
my $green = new_green('green', 'restart_after_crash = on', "bcmig.debug_points = 'rollback_readers,rollback_fenced,rollback_replayed,rollback_open'");

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 200) i;});
track($blue, 'item');
allow_switch($blue);
connect_blue($green, $blue, 's', '{"traffic_timeout": "1s", "reverse": false}');
sub value { return $green->safe_psql('postgres', $_[0]) }
value(q{SELECT bcmig_alter_environment('blue', '{"fence_by": "call", "connect_timeout": "2s"}'); SELECT bcmig_add_table('s', 'item')});
my $front = HAProxy->new(blue => ['blue1'], green => ['green1']);
my $second = HAProxy->new(blue => ['b'], green => ['g']);
add_haproxy($green, 'front', $front);
add_haproxy($green, 'second', $second);
start_sync($green, 's');
wait_sync($green, 's');
is((run_validation($green, 's', 'full'))[1], 'ok', 'validated');
is(switch_to($green, '100'), 'done', 'to 100 %');
is(sides($green), '100 green open armed', 'writers on green');

my $writes = 0;
sub write_green { $writes++; value("INSERT INTO item (id, v) VALUES (1000 + $writes, 'green $writes'); UPDATE item SET v = 'green $writes' WHERE id = $writes; DELETE FROM item WHERE id = 200 - $writes") }
sub problem { $green->poll_query_until('postgres', q{SELECT problem IS NOT NULL FROM bcmig.switch_status WHERE state = 'running'}) or die sides($green); return value(q{SELECT problem FROM bcmig.switch_status WHERE state = 'running'}) }
sub back_on_blue
{
	my ($what) = @_;
	is(sides($green), '0 blue fenced', "$what: writers on blue");
	is($front->green_share, 0, "$what: readers too");
	$blue->safe_psql('postgres', "UPDATE item SET v = 'blue' WHERE id = 150");
	like(refused($green, 'DELETE FROM item'), qr/^BM021/, "$what: green is fenced");
	wait_sync($green, 's');
	is(compare_table($blue, $green, 'item'), '', "$what: the books are equal");
	is(value(q{SELECT count(*) FROM bcmig.journal WHERE settled_at IS NULL}), '0', "$what: nothing is left in the journal");
}
sub again
{
	is((run_validation($green, 's', 'incremental'))[1], 'ok', 'validated') or diag(value(q{SELECT * FROM bcmig.validation_summary LIMIT 1}));
	is(switch_to($green, '100'), 'done', 'and to green again');
	write_green();
}

# --- what would be done ---
write_green();
like(value(q{SELECT string_agg(concat_ws(': ', "where", expected), '; ' ORDER BY step) FROM bcmig_rollback('s', 'try', dry_run => true)}),
	qr/^balancer: nobody reads green; green: nobody writes.*; blue: 3 keys written on green, about 1 s; blue: .*point of no return; green: writers on blue$/, 'the plan, with what is not on blue yet');
is(sides($green), '100 green open armed', 'and nothing but the plan');
like(refused($green, q{SELECT bcmig_rollback('s', 'x', '{"replay": "never"}')}), qr/^BM003/, 'a bad option');
like(refused($green, q{SELECT bcmig_rollback('s', '')}), qr/./, 'a reason is wanted');
value(q{BEGIN; SELECT bcmig_rollback('s', 'thought better of it'); ROLLBACK});
is(value(q{SELECT count(*) FROM bcmig.switch WHERE kind = 'rollback'}), '0', 'rolled back: nothing was asked');

# --- somebody goes on writing on green ---
my $writer = $green->background_psql('postgres', on_error_die => 1);
$writer->query_safe(q{BEGIN; UPDATE item SET v = 'to the last moment' WHERE id = 77});
value(q{SELECT bcmig_rollback('s', 'a test', '{"drain_timeout": "100ms"}')});
like(refused($green, q{SELECT bcmig_rollback('s', 'twice')}), qr/^BM009: sync "s" is being rolled back already/, 'not twice');
like(problem(), qr/still writing on green since before: .*pid \d+/, 'who is in the way is named');
is(value(q{SELECT state FROM bcmig.sync_status}), 'rolling_back', 'the sync says so');
is($front->green_share, 0, 'readers are on blue meanwhile');
is(value(q{SELECT bcmig_route('s', 'k', write => true)}), 'pause', 'writers are told to wait');
like(refused($green, q{UPDATE item SET v = 'x' WHERE id = 1}), qr/^BM021/, 'nobody new writes on green');
$writer->query_safe('COMMIT');
wait_sync($green, 's', 'rolled_back');
is($blue->safe_psql('postgres', 'SELECT v FROM item WHERE id = 77'), 'to the last moment', 'he ends, it goes on, with what he wrote');
back_on_blue('a writer');
is(value(q{SELECT result->>'replayed_keys' FROM bcmig.switch_status LIMIT 1}), '4', 'what was brought back is counted');
again();
$writer->query_safe(q{BEGIN; UPDATE item SET v = 'never' WHERE id = 78});
is(roll_back($green, '{"drain_timeout": "100ms", "terminate_blockers": true}'), 'done', 'he is ended where that is asked for');
is($blue->safe_psql('postgres', q{SELECT count(*) FROM item WHERE v = 'never'}), '0', 'without what he had not committed');
back_on_blue('terminated');
eval { $writer->quit };

# --- blue is away: given up in time, green goes on ---
again();
$blue->stop('immediate');
my $asked = q{SELECT bcmig_rollback('s', 'a test', '{"replay_timeout": "3s"}')};
value($asked);
ok($green->poll_query_until('postgres', q{SELECT green_percent = 0 FROM bcmig.balancer_state LIMIT 1}), 'readers are sent to blue, whether it answers or not');
ok($green->poll_query_until('postgres', q{SELECT state = 'failed' FROM bcmig.switch_status LIMIT 1}), 'blue does not answer: given up') or diag(value('TABLE bcmig.switch'));
is(sides($green), '100 green open armed', 'writers go on on green');
ok(poll(sub { $front->green_share == 100 }), 'readers too');
write_green();
like(value(q{SELECT problem FROM bcmig.switch_status LIMIT 1}), qr/could not connect|does not answer/, 'and why is said');
$blue->start;
is(roll_back($green), 'done', 'blue is back');
back_on_blue('blue was away');

# --- a balancer is away: it holds up nothing ---
again();
$second->stop;
ok($green->poll_query_until('postgres', q{SELECT balancer_problems ~ 'second' FROM bcmig.traffic_status}), 'one of two balancers is away');
is(roll_back($green), 'done', 'the other one is enough');
like(value(q{SELECT result->>'balancers_missing' FROM bcmig.switch_status LIMIT 1}), qr/^second: /, 'it is said which');
back_on_blue('balancer');
$second->start;
ok(poll(sub { $second->green_share == 0 }), 'it is set when it is back');

# --- green has just been restarted, or is killed in the midst of it ---
again();
$green->restart;
is(roll_back($green), 'done', 'right after a start');
back_on_blue('restart');
foreach my $point (qw(rollback_readers rollback_fenced rollback_replayed rollback_open))
{
	again();
	my $hold = hold_point($green, $point);
	value(q{SELECT bcmig_rollback('s', 'a test')});
	ok(point_reached($green, $point), "at $point");
	$green->stop('immediate');
	eval { $hold->quit };
	$green->start;
	wait_sync($green, 's', 'rolled_back');
	back_on_blue($point);
}

# --- blue first, the writes later ---
again();
is(roll_back($green, '{"replay": "after"}'), 'done', 'replay after');
back_on_blue('after');

# --- copies of the tables ---
again();
is(roll_back($green, '{"preserve": "tables"}'), 'done', 'preserved');
my $schema = value(q{SELECT result->>'preserved_in' FROM bcmig.switch_status LIMIT 1});
is(value("SELECT count(*) FROM $schema.\"public.item\""), value('SELECT count(*) FROM item'), 'as they stood');
back_on_blue('preserved');

# --- no way back any more ---
again();
like(refused($green, q{SELECT bcmig_complete_sync('s', 's')}), qr/^BM009: completing sync "s" is not confirmed/, 'not while writes are not on blue');
my ($rc, $out, $err) = $green->psql('postgres', q{SELECT bcmig_complete_sync('s', 's')});
like($err, qr/DETAIL:\s+3 rows written on green are not on blue.*\nHINT:\s+SELECT \* FROM bcmig_complete_sync\('s', confirm => 's without 3'\)/, 'and how to say so');
is(value(q{SELECT count(*) > 3 FROM bcmig_complete_sync('s', '?', dry_run => true)}), 't', 'a dry run');
is(sides($green), '100 green open armed', 'and nothing but that');
value(q{BEGIN; SELECT bcmig_complete_sync('s', 's without 3'); COMMIT});
is(value(q{SELECT state FROM bcmig.sync_status}), 'completed', 'completed');
value(q{INSERT INTO item (id, v) VALUES (5000, 'mine alone'); TRUNCATE item; DROP TABLE item});
like(refused($green, q{SELECT bcmig_start_sync('s')}), qr/^BM009: sync "s" is completed/, 'it cannot be started again');
like(refused($green, q{SELECT bcmig_rollback('s', 'sorry')}), qr/^BM009/, 'nor rolled back');
is(value(q{SELECT count(*) FROM pg_class WHERE relkind = 'f' AND relname ~ '^feed_[0-9]+$'}), '0', 'no feed is left');
is(value(q{SELECT count(*) FROM bcmig.journal WHERE settled_at IS NULL}), '3', 'what is not on blue stays on record');
value(q{SELECT bcmig_drop_sync('s')});

done_testing();
