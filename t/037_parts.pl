# A table compared in parts: two workers at the same time, each chunk counted
# once, whatever becomes of one of them.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', "bcmig.debug_points = 'validate_compared'");

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

# Few rows over many chunks: once the table is cut, keys far from the others
# make more chunks of the same size.
on_blue(q{
	CREATE TABLE wide (no int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO wide SELECT i, 'v' || i FROM generate_series(1, 10000) i;});
track($blue, 'wide');
connect_blue($green, $blue, 's');
on_green("SELECT bcmig_add_table('s', 'wide')");
start_sync($green, 's');
wait_sync($green, 's', 'caught_up');
on_green("SELECT bcmig_validate('s')");
wait_sync($green, 's', 'validated');
on_blue(q{INSERT INTO wide SELECT i * 10000, 'far' FROM generate_series(2, 80) i});
wait_sync($green, 's', 'caught_up');

my $at_it = q{FROM bcmig.worker_status WHERE phase = 'validate'};

# a run held in the middle; what is done meanwhile; its result
sub validate_held
{
	my ($mode, $meanwhile) = @_;
	my $hold = hold_point($green, 'validate_compared');
	my $run = on_green("SELECT bcmig_validate('s', 'public.wide', '$mode')");
	$green->poll_query_until('postgres', "SELECT count(*) = 2 $at_it") or die 'no two workers';
	$meanwhile->($run);
	$hold->quit;
	$green->poll_query_until('postgres', "SELECT state <> 'running' FROM bcmig.validation_run WHERE run_id = $run") or die 'no end';
	return $run;
}

my $run = validate_held('count', sub {
	my ($run) = @_;
	is(on_green("SELECT count(DISTINCT part), count(*) FILTER (WHERE done) FROM bcmig.validation_part WHERE run_id = $run"), '2|0', 'two parts, two workers');
	is(on_green("SELECT verdict FROM bcmig.validation_summary WHERE run_id = $run"), 'running, 0 %', 'progress is of all parts');
});
is(on_green("SELECT rows_blue, rows_green, chunks, verdict FROM bcmig.validation_summary WHERE run_id = $run"), '10079|10079|81|ok', 'each chunk is counted once');

green_behind($green, q{SET session_replication_role = replica; DELETE FROM wide WHERE no IN (77, 790000)});
$run = validate_held('count', sub { kill_pid('TERM', on_green("SELECT pid $at_it LIMIT 1")) });
is(on_green("SELECT rows_blue, rows_green, chunks, verdict FROM bcmig.validation_summary WHERE run_id = $run"), '10079|10077|81|different', 'also when one of the workers dies');
is(on_green("SELECT string_agg(kind || key, ' ' ORDER BY key) FROM bcmig.validation_difference WHERE run_id = $run"), 'missing["77"] missing["790000"]', 'what each part found');

$run = validate_held('count', sub { on_green("SELECT bcmig_suspend_table('s', 'public.wide')") });
is(on_green("SELECT verdict FROM bcmig.validation_run WHERE run_id = $run"), 'inconclusive', 'a table suspended meanwhile is not proved');
on_green("SELECT bcmig_resume_table('s', 'public.wide')");
wait_sync($green, 's', 'caught_up');
on_green(q{SELECT bcmig_alter_table('s', 'public.wide', '{"parallel": 1}')});
wait_sync($green, 's', 'caught_up');
my $hold = hold_point($green, 'validate_compared');
$run = on_green("SELECT bcmig_validate('s', 'public.wide', 'count')");
$green->poll_query_until('postgres', "SELECT count(*) = 1 $at_it") or die 'nobody is at it';
is(on_green("SELECT count(*) FROM bcmig.validation_part WHERE run_id = $run"), 1, 'option parallel bounds it');
$hold->quit;

done_testing();
