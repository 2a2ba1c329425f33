# A blue that answers slowly: copies, sweeps and validations wait, changes go on
# arriving, and all goes on when it is well again.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', 'bcmig.metric_interval = 1');

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

# what a poll reads sleeps as long as table knob says
on_blue(q{
	CREATE TABLE knob (seconds float8); INSERT INTO knob VALUES (0);
	ALTER FUNCTION bcmig_blue.incarnation() RENAME TO incarnation_itself;
	CREATE FUNCTION bcmig_blue.incarnation() RETURNS text LANGUAGE plpgsql AS $$
	BEGIN PERFORM pg_sleep(seconds) FROM public.knob; RETURN bcmig_blue.incarnation_itself(); END $$;
	CREATE TABLE big (id int PRIMARY KEY, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO big SELECT i, 'x' || i, 0 FROM generate_series(1, 5000) i;
	CREATE TABLE live (LIKE big INCLUDING ALL); INSERT INTO live SELECT * FROM big LIMIT 200;
	CREATE TABLE versioned (LIKE big INCLUDING ALL); INSERT INTO versioned SELECT * FROM big LIMIT 200;
	CREATE TABLE other (LIKE big INCLUDING ALL); INSERT INTO other SELECT * FROM big LIMIT 200;});
track($blue, $_) foreach qw(big live other);
track($blue, 'versioned', 'rowversion');
sub knob { on_blue("UPDATE knob SET seconds = $_[0]") }

# --- the option ---
connect_blue($green, $blue, 's', '{"max_answer": "500ms", "poll_interval": 50, "sweep_interval": 1000, "chunk_rows": 100}');
on_green(q{SELECT bcmig_create_sync('second', 'blue')});
foreach my $bad ('-1', '3600001', '"soon"', '"2h"', 'true', '[1]', '"off"')
{
	my ($rc, $out, $err) = $green->psql('postgres', qq(SELECT bcmig_alter_sync('s', '{"max_answer": $bad}')), extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	like($err, qr/BM\d+.*"max_answer" cannot be.*Expected a number of ms or a text like '2s' from 0 to 3600000, or auto/s, "max_answer $bad is refused");
}
is(on_green(q{SELECT options->>'max_answer' FROM bcmig.sync WHERE name = 's'}), '500', 'nothing of that is kept');

# the sync is shown as throttled, or not
sub throttled
{
	my ($wanted, $what) = @_;
	ok($green->poll_query_until('postgres', "SELECT bool_and((throttled_since IS NOT NULL) = $wanted) FROM bcmig.sync_status WHERE sync IN ('s', 'second')"), $what);
}

# so many polls are over, and one that is out now is not counted
sub after_polls
{
	my ($n) = @_;
	my $polls = q{SELECT polls FROM bcmig.environment_status WHERE environment = 'blue'};
	my $from = on_green($polls);
	$green->poll_query_until('postgres', "SELECT polls >= $from + $n + 1 FROM bcmig.environment_status WHERE environment = 'blue'") or die 'no polls';
}

on_green(q{SELECT bcmig_add_table('s', 'live'), bcmig_add_table('s', 'versioned'), bcmig_add_table('second', 'other')});
start_sync($green, $_) foreach qw(s second);
wait_sync($green, $_) foreach qw(s second);
cmp_ok(on_green(q{SELECT max_answer_ms FROM bcmig.environment_status WHERE environment = 'blue'}), '==', 500, 'the smaller bound of two syncs holds');

# --- slow in the middle of a copy ---
my $hold = stop_at($green, 'copy_chunk_loaded');
on_green(q{SELECT bcmig_add_table('s', 'big')});
ok(point_reached($green, 'copy_chunk_loaded'), 'a chunk is being copied');
knob(0.6);
throttled('true', 'blue has become slow: both syncs of it are throttled');
release_point($green, $hold);
ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM bcmig.worker_status WHERE role = 'worker' AND phase = 'throttled'}), 'who copied says why it does not');
is(on_green(q{SELECT count(*) FROM bcmig.worker_status WHERE role = 'poller' AND phase = 'polls blue, throttled'}), '1', 'so does the poller');
is(on_green(q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'bcmig worker' AND query = 'bcmig: throttled'}), 't', 'in pg_stat_activity too');
$green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.worker_status WHERE phase IN ('copy', 'sweep')});
my $chunks = q{SELECT count(*) FILTER (WHERE done), count(*) FROM bcmig.copy_chunk JOIN bcmig.sync_table USING (table_id) WHERE source_table = 'big'};
my $swept = q{SELECT s.swept_at FROM bcmig.table_state s JOIN bcmig.sync_table USING (table_id) WHERE source_table = 'versioned'};
my ($before, $swept_before) = (on_green($chunks), on_green($swept));
my $run = on_green(q{SELECT bcmig_validate('s', 'public.live', 'full')});
on_blue(q{UPDATE live SET t = 'meanwhile' WHERE id <= 10; DELETE FROM other WHERE id <= 10});
ok($green->poll_query_until('postgres', q{SELECT (SELECT count(*) FROM live WHERE t = 'meanwhile') = 10 AND (SELECT count(*) FROM other) = 190}), 'changes go on arriving, in both syncs');
after_polls(3);
is(on_green($chunks), $before, 'no chunk was copied or cut');
cmp_ok(on_green("SELECT count(*) FROM big"), '<', 4000, 'though the copy had only begun');
is(on_green($swept), $swept_before, 'no sweep was begun');
is(on_green("SELECT state FROM bcmig.validation_run WHERE run_id = $run") . on_green("SELECT coalesce(sum(chunks), 0) FROM bcmig.validation_result WHERE run_id = $run"), 'running0', 'and nothing compared');
is(on_green(q{SELECT answer_ms > 500 FROM bcmig.sync_status WHERE sync = 's'}), 't', 'how slow it is, is shown');
like(on_green(q{SELECT problems FROM bcmig_status('second')}), qr/blue takes \d+ ms to answer: copies, sweeps and validations wait/, 'bcmig_status says so');
on_green(q{SELECT bcmig_sweep_deletes('s', 'public.versioned')});
ok($green->poll_query_until('postgres', "SELECT ($swept) > '$swept_before'"), 'a sweep somebody asks for is made');
throttled('true', 'it was throttled all the time');

# --- well again ---
knob(0);
wait_sync($green, 's');
throttled('false', 'blue is well again');
all_equal($blue, $green, 'after the pause', qw(big live versioned other));
ok($green->poll_query_until('postgres', "SELECT verdict = 'ok' FROM bcmig.validation_run WHERE run_id = $run"), 'the validation went on');
is(on_green(q{SELECT count(*) FROM bcmig.worker_status WHERE phase LIKE '%throttled'}), '0', 'nobody is said to be throttled')
  if $green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.worker_status WHERE phase LIKE '%throttled'});

# --- a poll that does not come back at all ---
my $lock = $blue->background_psql('postgres', on_error_die => 1);
$lock->query_safe('BEGIN; LOCK TABLE bcmig_blue.state');
throttled('true', 'a poll that is not answered counts');
$lock->query_safe('COMMIT');
$lock->quit;
throttled('false', 'and is forgotten');
is(on_green(q{SELECT throttled_ms > 2000 FROM bcmig.environment_status WHERE environment = 'blue'}), 't', 'the time of all pauses');
ok($green->poll_query_until('postgres', q{SELECT max(throttled_percent) > 0 AND max(throttled_percent) <= 100 AND max(blue_answer_ms) > 500 FROM bcmig.metric}), 'what share of the time, by the minute');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 2 FROM bcmig.timeline WHERE kind = 'throttle' AND event = 'ends'}), 'it is over');
is(on_green(q{SELECT string_agg(event, ' ' ORDER BY at) FROM bcmig.timeline WHERE kind = 'throttle' AND sync = 's'}), 'begins ends', 'two pauses soon after each other are one event');
like(on_green(q{SELECT detail FROM bcmig.timeline WHERE kind = 'throttle' AND event = 'ends' AND sync = 's'}), qr/waited for \d+\.\d s, \d+ % of the time; the slowest answer took \d+ ms/, 'which says what it was');

# --- switched off ---
knob(0.6);
throttled('true', 'slow again');
on_blue(q{CREATE TABLE late (LIKE big INCLUDING ALL); INSERT INTO late SELECT * FROM big LIMIT 300});
track($blue, 'late');
on_green(qq{SELECT bcmig_alter_sync('$_', '{"max_answer": 0}')}) foreach qw(s second);
on_green(q{SELECT bcmig_add_table('s', 'late')});
ok($green->poll_query_until('postgres', q{SELECT state = 'streaming' FROM bcmig.table_status WHERE target = 'public.late'}), 'max_answer 0: copied from a slow blue');
is(on_green(q{SELECT answer_ms > 500, throttled_since IS NULL, max_answer_ms IS NULL FROM bcmig.environment_status WHERE environment = 'blue'}), 't|t|t', 'which is as slow as it was');

done_testing();
