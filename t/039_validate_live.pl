# A hundred validations while rows are inserted, changed, deleted and renamed on
# blue: none reports a row that was only on its way, and each that has a row
# changed on green behind bcmig's back finds that row and no other.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $runs = 100;
my $blue = new_blue();
my $green = new_green();

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

# of "still" no row is ever inserted or deleted on blue: numbers of rows are told
# from changes on their way by nothing else
on_blue(q{
	CREATE TABLE still (no int PRIMARY KEY, amount int NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO still SELECT i, i FROM generate_series(1, 500) i;
	CREATE TABLE entry (no int PRIMARY KEY, amount numeric(38,20) NOT NULL, note text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE item (code varchar(20) PRIMARY KEY, name varchar(50) NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO entry SELECT i, i / 3.0, 'n' || i FROM generate_series(1, 3000) i;
	INSERT INTO item SELECT 'C' || i, 'n' || i FROM generate_series(1, 1500) i;});
track($blue, $_) foreach qw(entry item still);
connect_blue($green, $blue, 's');
on_green("SELECT bcmig_add_table('s', '$_')") foreach qw(entry item still);
start_sync($green, 's');
wait_sync($green, 's', 'caught_up');
run_validation($green, 's', 'full');

my $script = $blue->basedir . '/load.sql';
PostgreSQL::Test::Utils::append_to_file($script, q{
	\set k random(1, 300)
	UPDATE still SET amount = amount + 1 WHERE no = :k;
	UPDATE entry SET amount = amount + 1, note = 'x' || random() WHERE no = :k;
	DELETE FROM entry WHERE no = 1000 + :k;
	INSERT INTO entry VALUES (1000 + :k, 1, 'back', 0) ON CONFLICT DO NOTHING;
	UPDATE item SET name = CASE name WHEN 'a' THEN 'b' ELSE 'a' END WHERE code = 'C' || (:k % 20);
	UPDATE item SET code = 'R' || :k WHERE code = 'C' || (200 + :k);
	UPDATE item SET code = 'C' || (500 - :k) WHERE code = 'R' || (300 - :k);
	INSERT INTO item SELECT 'T' || :k, 't' WHERE :k % 2 = 0 ON CONFLICT DO NOTHING;
	DELETE FROM item WHERE code = 'T' || (301 - :k);
});
my $pgbench = IPC::Run::start([ 'pgbench', '-n', '-c', '3', '-T', '1000', '-R', '300', '-f', $script, $blue->connstr('postgres') ], '>', \my $bench, '2>', \my $bench_err);

# what is changed on green, by mode; "dirty" has bcmig write beside it first, or an incremental run would not look there
my %wrong = (
	count => [ q{DELETE FROM still WHERE no = 400}, 'missing ["400"]' ],
	incremental => [ q{UPDATE item SET name = 'wrong' WHERE code = 'C1400'}, 'different ["C1400"]' ],
	full => [ q{UPDATE entry SET amount = amount + 0.00000000000000000001 WHERE no = 2500}, 'different ["2500"]' ]);
my (%clean, %found, @false, @missed);
my $flying = 0;
foreach my $n (1 .. $runs)
{
	my $mode = (qw(count incremental full))[ $n % 3 ];
	my ($change, $expected) = @{ $wrong{$mode} };
	my $inject = $n % 4 == 0;

	green_behind($green, "SET session_replication_role = replica; $change") if $inject;
	# beside the wrong row: what an incremental run looks at is what bcmig has written to
	on_blue(q{UPDATE item SET name = name || '.' WHERE code = 'C1401'}), wait_sync($green, 's') if $inject && $mode eq 'incremental';
	my ($run, $verdict) = run_validation($green, 's', $mode);
	my $differences = on_green("SELECT string_agg(kind || ' ' || key, ', ') FROM bcmig.validation_difference WHERE run_id = $run");
	$flying += on_green("SELECT sum(in_flight) FROM bcmig.validation_result WHERE run_id = $run");
	if ($inject)
	{
		$found{$mode}++;
		push @missed, "$mode: $verdict, $differences" if "$verdict $differences" ne "different $expected";
		on_green("SELECT bcmig_repair($run)");
		$green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $run AND repaired_at IS NULL") or die 'not repaired';
	}
	else
	{
		$clean{$mode}++;
		push @false, "$mode: $verdict, $differences" if $verdict ne 'ok' || $differences ne '';
	}
}
ok($pgbench->pumpable, 'the load went on till the end');
$pgbench->kill_kill;
my $changes = on_green("SELECT sum(rows_read) FROM bcmig.sync_batch");
note("runs without a wrong row: " . join(', ', map { "$_ $clean{$_}" } sort keys %clean) . "; with one: " . join(', ', map { "$_ $found{$_}" } sort keys %found)
	. "; rows in flight: $flying; rows read in windows: $changes");
is(join('; ', @false), '', 'no false alarm');
is(join('; ', @missed), '', 'each wrong row was found, and no other');
is(eval { my $sum = 0; $sum += $_ foreach values %clean, values %found; $sum }, $runs, 'in all runs');
cmp_ok($flying, '>', 0, 'though rows were on their way');
is(on_green(q{SELECT count(*) FROM bcmig.table_root r JOIN bcmig.validation_result v USING (run_id, table_id) WHERE v.verdict = 'ok' AND r.blue <> r.green}), '0',
	'where all is equal hash roots are, or are not known');

# at rest
wait_sync($green, 's', 'caught_up');
is((run_validation($green, 's', 'full'))[1], 'ok', 'all is equal when it is over');
all_equal($blue, $green, 'and so says another compare', qw(entry item));

done_testing();
