# Option traffic reads_and_writes: writers on both sides by key while the weight
# rises, then all on green, then back.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use IPC::Run;
use Test::More;
use Time::HiRes qw(usleep);
use Traffic;

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{CREATE TABLE entry (id bigint PRIMARY KEY, amount numeric(38,20), note text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO entry SELECT i, i / 3.0, 'old', 0 FROM generate_series(1, 500) i;});
track($blue, 'entry');
allow_switch($blue);
connect_blue($green, $blue, 's', '{"traffic": "reads_and_writes"}');
sub value { return $green->safe_psql('postgres', $_[0]) }
value(q{SELECT bcmig_alter_environment('blue', '{"fence_by": "call"}'); SELECT bcmig_add_table('s', 'entry')});
start_sync($green, 's');
wait_sync($green, 's');
is((run_validation($green, 's', 'full'))[1], 'ok', 'validated');

# nothing without a word that numbers do not meet
like(set_traffic($green, 20), qr/^refused: gate keys_disjoint: fail/, 'both sides would give out the same numbers');
value(q{SELECT bcmig_add_gate('s', 'keys_disjoint', 'SELECT false')});
like(set_traffic($green, 20), qr/^refused: gate keys_disjoint: fail/, 'a gate that says they do');
value(q{SELECT bcmig_remove_gate('s', 'keys_disjoint'); SELECT bcmig_add_gate('s', 'keys_disjoint', 'SELECT true')});
is(sides($green), '0 blue fenced', 'nothing has moved');

# one application; its rows are its own
my $dir = PostgreSQL::Test::Utils::tempdir();
my ($in, $out) = ('', '');
my $app = IPC::Run::start([ 'python3', $ENV{BCMIG_SOURCE} . '/t/lib/app.py', $green->connstr('postgres'), $blue->connstr('postgres'), 's', 1_000_000, "$dir/log" ], '<', \$in, '>&', \$out);
sub acknowledged
{
	my ($side) = @_;
	return 0 unless -e "$dir/log";
	my $n = () = PostgreSQL::Test::Utils::slurp_file("$dir/log") =~ /^$side /mg;
	return $n;
}
sub writes_on { my ($side) = @_; my $from = acknowledged($side); return poll(sub { acknowledged($side) >= $from + 50 }) }

# A key that has moved to green may be written there before its last change on blue has come: a conflict, which waits for a person.  Here
# green's row is the newer one, since the application waits for blue's word before it goes on.
sub settle
{
	wait_sync($green, 's');
	value(q{SELECT bcmig_resolve_conflict(conflict_id, 'target') FROM bcmig.conflict WHERE decision IS NULL});
}

ok(writes_on('blue'), 'the application writes on blue');
is(set_traffic($green, 30), 'changed', 'to 30 %');
is(sides($green), '30 key open armed', 'both sides are written to');
ok(writes_on($_), "it writes on $_") foreach qw(green blue);
like(refused($green, q{SELECT bcmig_set_traffic('s', 10)}), qr/^BM030/, 'no lower weight by hand: who wrote on green would go to blue too soon');
settle();
is((run_validation($green, 's', 'incremental'))[1], 'ok', 'both sides agree all the time');
is(set_traffic($green, 60), 'changed', 'to 60 %');
ok(writes_on('green'), 'it writes on green');
settle();
is(roll_back($green), 'done', 'back');
is(sides($green), '0 blue fenced', 'all on blue');
ok(writes_on('blue'), 'it writes on blue');
wait_sync($green, 's');
is((run_validation($green, 's', 'incremental'))[1], 'ok', 'equal');
is(switch_to($green, '40'), 'done', 'by a switch to 40 %');
settle();
is(switch_to($green, '100'), 'done', 'and to 100 %');
is(sides($green), '100 green open armed', 'all on green');
ok(writes_on('green'), 'it writes on green');
is(roll_back($green), 'done', 'and back');
ok(writes_on('blue'), 'it writes on blue');

$in = '';
$app->finish;
my $log = PostgreSQL::Test::Utils::slurp_file("$dir/log");
unlike($log, qr/^error/m, 'it met no error');
my %last;
$last{$1} = $2 while $log =~ /^(?:blue|green) (\d+) (\S+)$/mg;
wait_sync($green, 's');
is(value(q{SELECT string_agg(blue_operation || ' against ' || green_operation, ', ') FROM bcmig.conflict WHERE decision IS NULL}), '', 'no conflict waits');
foreach my $node ($blue, $green)
{
	my %there = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT id, note FROM entry WHERE id >= 1000000');
	is_deeply([ grep { ($there{$_} // '-') ne $last{$_} } sort keys %last ], [], $node->name . ': every acknowledged write is there');
}
is(compare_table($blue, $green, 'entry'), '', 'the books are equal');

done_testing();
