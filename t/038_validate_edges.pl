# What a validation and a repair make of bad input, of tables that are not
# streaming, of a blue that goes away in the midst of it, and of rows that cannot
# be repaired.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', 'log_lock_waits = on', 'deadlock_timeout = 100ms');

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

on_blue(q{
	CREATE TABLE item (id uuid PRIMARY KEY, name text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE entry (no int PRIMARY KEY, name text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE heap (a int, b text);
	CREATE TABLE late (no int PRIMARY KEY, name text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT md5(i::text)::uuid, 'n' || i FROM generate_series(1, 3000) i;
	INSERT INTO entry SELECT i, 'n' || i FROM generate_series(1, 5000) i;
	INSERT INTO heap SELECT i / 3, 'h' FROM generate_series(0, 29) i;
	INSERT INTO late SELECT i, 'n' FROM generate_series(1, 100) i;});
track($blue, $_) foreach qw(item entry late);
connect_blue($green, $blue, 's', '{"sweep_interval": "1h"}');
on_green("SELECT bcmig_add_table('s', '$_')") foreach qw(item entry heap);
start_sync($green, 's');
wait_sync($green, 's', 'caught_up');

sub fails
{
	my ($code, $sql, $what) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	like($err, qr/ERROR:  $code:/, $what);
	return $err;
}

sub validate
{
	my ($mode, $target) = @_;
	return run_validation($green, 's', $mode, target => $target);
}

sub differences
{
	my ($run, $columns) = @_;
	return on_green("SELECT $columns FROM bcmig.validation_difference JOIN bcmig.sync_table USING (table_id) WHERE run_id = $run ORDER BY source_table, key, difference_id");
}

sub dry_run
{
	my ($run) = @_;
	return on_green("SELECT step, \"where\", statement, reversible, expected, on_failure FROM bcmig_repair($run, true)");
}

sub debug_points
{
	$green->append_conf('postgresql.conf', "bcmig.debug_points = '$_[0]'");
	$green->reload;
	$green->poll_query_until('postgres', "SELECT current_setting('bcmig.debug_points') = '$_[0]'") or die;
}

# a worker waits at the debug point somebody holds
sub wait_for_point
{
	$green->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = 7268 AND NOT granted)}) or die 'nobody comes to the debug point';
}

# --- what is no run, table, mode ---
fails('BM001', 'SELECT bcmig_cancel_validation(4711)', 'cancel an unknown run');
fails('BM001', 'SELECT bcmig_repair(4711)', 'repair an unknown run');
fails('22004', 'SELECT bcmig_cancel_validation(NULL)', 'cancel NULL');
fails('22004', 'SELECT bcmig_repair(NULL)', 'repair NULL');
fails('BM001', "CALL bcmig_wait_sync('nobody', 'validated')", 'wait for an unknown sync');
like(fails('BM009', "CALL bcmig_wait_sync('s', 'validated')", 'wait where there is no run'), qr/HINT:  SELECT bcmig_validate\('s'\)/, 'and how to get one');
fails('BM003', "SELECT bcmig_validate('s', mode => 'quick')", 'an unknown mode');
fails('BM001', "SELECT bcmig_validate('s', 'public.nothing')", 'an unknown table');
fails('BM001', "SELECT bcmig_validate('nobody')", 'an unknown sync');
is(on_green('SELECT count(*) FROM bcmig.validation_run'), '0', 'none of it left a run');
my ($run, $verdict) = validate('full');
is($verdict, 'ok', 'all is equal');
is(on_green("SELECT method FROM bcmig.chunking JOIN bcmig.sync_table USING (table_id) WHERE source_table = 'item'"), 'buckets', 'a key two engines do not sort alike');
like(($green->psql('postgres', "SELECT bcmig_cancel_validation($run)"))[2], qr/NOTICE:.*over already/, 'cancelled too late');
is(on_green("SELECT count(*) FROM bcmig_repair($run)"), '0', 'nothing to repair');

# --- a run and its repair are of the members of the sync's owner ---
on_green('CREATE ROLE stranger; GRANT EXECUTE ON FUNCTION bcmig_repair(bigint, boolean), bcmig_cancel_validation(bigint), bcmig_validate(text, text, text) TO stranger');
fails('42501', "SET ROLE stranger; SELECT $_", "$_ of another's sync") foreach "bcmig_repair($run)", "bcmig_repair($run, true)", "bcmig_cancel_validation($run)", "bcmig_validate('s')";

# --- all that is said of a difference, in each mode, with and without key ---
my $faults = q{SET session_replication_role = replica;
	DELETE FROM entry WHERE no = 7; INSERT INTO entry (no, name) VALUES (9000, 'extra'); UPDATE entry SET name = 'x' WHERE no = 8;
	DELETE FROM item WHERE id = md5('5')::uuid; INSERT INTO heap (a, b) VALUES (3, 'h'), (3, 'h');};
green_behind($green, $faults);
my @there = ('entry|missing|["7"]||n7|', 'entry|extra|["9000"]|||extra');
my @not_there = ("heap|extra||||", "heap|extra||||", 'item|missing|["' . on_blue("SELECT md5('5')::uuid") . '"]||n5|');
($run, $verdict) = validate('count');
is(differences($run, q{source_table, kind, key, columns, blue->>'name', green->>'name'}), join("\n", @there, @not_there), 'counted: key, kind and the image there is');
is(differences($run, q{DISTINCT ON (source_table, key, difference_id) source_table, green->>'a', green->>'b'} ) =~ /^heap\|3\|h\nheap\|3\|h$/m ? 'yes' : 'no', 'yes', 'a row that stands too often is shown as often');
is(on_green("SELECT target, rows_blue, rows_green, differences, verdict FROM bcmig.validation_summary WHERE run_id = $run ORDER BY 1"), join("\n",
	'public.entry|5000|5000|2|different', 'public.heap|30|32|2|different', 'public.item|3000|2999|1|different'), 'and the rows of each table');
($run, $verdict) = validate('full');
is(differences($run, q{source_table, kind, key, columns, blue->>'name', green->>'name'}), join("\n", $there[0], 'entry|different|["8"]|{name}|n8|x', $there[1], @not_there), 'in full: what differs too, with both images');

# --- repair: what it would do; that the rows have gone on both sides meanwhile ---
is(dry_run($run), join("\n",
	'1|green|read 3 rows of public.entry from blue by key and write them|f|the rows are as blue has them|validation_difference.repair_error says why, nothing else changes',
	'2|green|compare public.heap with blue as a whole and make it equal|f|the rows are as blue has them|validation_difference.repair_error says why, nothing else changes',
	'3|green|read 1 rows of public.item from blue by key and write them|f|the rows are as blue has them|validation_difference.repair_error says why, nothing else changes'), 'a dry run lists a step a table');
on_blue(q{DELETE FROM entry WHERE no IN (7, 8); DELETE FROM item WHERE id = md5('5')::uuid});
wait_sync($green, 's', 'caught_up');
on_green("SELECT bcmig_repair($run)");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $run AND repaired_at IS NULL"), 'rows both sides have no more are repaired');
is((validate('full'))[1], 'ok', 'and all is equal');
is(on_green("SELECT count(*) FROM bcmig_repair($run)"), '0', 'once is enough');

# --- a row green refuses ---
green_behind($green, q{SET session_replication_role = replica; UPDATE entry SET name = 'y' WHERE no IN (20, 21); ALTER TABLE entry ADD CONSTRAINT c CHECK (name <> 'n20')});
($run, $verdict) = validate('full', 'public.entry');
on_green("SELECT bcmig_repair($run)");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.request"), 'the repair has run');
is(differences($run, q{key, repaired_at IS NOT NULL, repair_error}), qq{["20"]|f|23514: new row for relation "entry" violates check constraint "c" (Failing row contains (0, 20, n20).)\n["21"]|t|}, 'what green refuses is said, the other row is right');
is(on_green('SELECT key FROM bcmig.quarantine'), '["20"]', 'and stays in quarantine');
green_behind($green, "ALTER TABLE entry DROP CONSTRAINT c; SELECT bcmig_repair($run)");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $run AND (repaired_at IS NULL OR repair_error IS NOT NULL)"), 'a second repair does the rest');
is(on_green('SELECT count(*) FROM bcmig.quarantine'), '0', 'and settles its entry');

# --- who waits says in the log at what ---
green_behind($green, q{SET session_replication_role = replica; UPDATE entry SET name = 'w' WHERE no = 25});
($run, $verdict) = validate('full', 'public.entry');
my $session = $green->background_psql('postgres', on_error_die => 1);
$session->query_safe('BEGIN; LOCK TABLE entry IN ACCESS EXCLUSIVE MODE');
foreach ([ "SELECT bcmig_repair($run)", 'repair' ], [ q{SELECT bcmig_validate('s', 'public.entry', 'full')}, 'validate' ])
{
	my $from = -s $green->logfile;
	on_green($_->[0]);
	$green->wait_for_log(qr/still waiting for .*\n.*DETAIL:.*\n.*CONTEXT:.*bcmig job $_->[1] of table \d+/, $from);
	pass("job $_->[1]");
}
$session->query_safe('COMMIT');
$session->quit;
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.request"), 'both have run');
is((validate('full', 'public.entry'))[1], 'ok', 'and it is repaired');

# --- a suspended table ---
green_behind($green, q{SET session_replication_role = replica; UPDATE entry SET name = 'z' WHERE no = 30; UPDATE item SET name = 'z' WHERE id = md5('30')::uuid});
($run, $verdict) = validate('full');
on_green("SELECT bcmig_suspend_table('s', 'entry')");
wait_state($green, 'public.entry', 'suspended');
like(dry_run($run), qr/entry.*waits until the table streams: SELECT bcmig_resume_table\('s', 'public.entry'\);.*\n.*item.*\|the rows are as blue has them\|/, 'a dry run says that it would wait');
on_green("SELECT bcmig_repair($run)");
ok($green->poll_query_until('postgres', "SELECT count(*) = 1 FROM bcmig.validation_difference WHERE run_id = $run AND repaired_at IS NOT NULL"), 'the other table is repaired');
is(on_green("SELECT repair_error FROM bcmig.validation_difference WHERE run_id = $run AND repaired_at IS NULL"),
	q{waits until the table streams: SELECT bcmig_resume_table('s', 'public.entry');}, 'of this one it is said');
is((validate('full', 'public.entry'))[1], 'inconclusive', 'nor can it be proved');
on_green("SELECT bcmig_resume_table('s', 'entry')");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $run AND (repaired_at IS NULL OR repair_error IS NOT NULL)"), 'until it is resumed');

# --- a sync that is stopped between two batches of a repair ---
green_behind($green, q{SET session_replication_role = replica; UPDATE entry SET name = 'z' WHERE no BETWEEN 40 AND 700});
($run, $verdict) = validate('full', 'public.entry');
debug_points('retry_before_read');
my $hold = hold_point($green, 'retry_before_read');
on_green("SELECT bcmig_repair($run)");
wait_for_point();
on_green("SELECT bcmig_stop_sync('s')");
$green->poll_query_until('postgres', 'SELECT count(*) = 1 FROM bcmig.live_tables()') or die 'the manager does not stop the sync';
$hold->quit;
debug_points('');
ok($green->poll_query_until('postgres', "SELECT state = 'stopped' FROM bcmig.sync_status"), 'stopped');
is(on_green("SELECT count(*) FILTER (WHERE repaired_at IS NOT NULL), count(*) FROM bcmig.validation_difference WHERE run_id = $run"), '200|661', 'in the midst of a repair');
fails('BM009', "SELECT bcmig_repair($run)", 'a stopped sync repairs nothing');
on_green("SELECT bcmig_start_sync('s')");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $run AND repaired_at IS NULL"), 'what was asked for before is done');

# --- a table that is being copied ---
debug_points('copy_chunk_loaded');
$hold = hold_point($green, 'copy_chunk_loaded');
on_green("SELECT bcmig_add_table('s', 'late')");
wait_for_point();
($run, $verdict) = validate('full');
is(on_green("SELECT target, verdict, data, detail FROM bcmig.validation_summary WHERE run_id = $run AND verdict <> 'ok'"), 'public.late|inconclusive|inconclusive|the table is copying', 'a table that is being copied is not proved');
is($verdict, 'inconclusive', 'nor is the run');
like(($green->psql('postgres', "CALL bcmig_wait_sync('s', 'validated')"))[2], qr/inconclusive.*public.late: inconclusive, the table is copying/s, 'bcmig_wait_sync says so');
$hold->quit;
debug_points('');
wait_sync($green, 's', 'caught_up');
is((validate('incremental'))[1], 'ok', 'when it streams it is, in full');

# --- a blue whose answers take seconds, as far as the polls can tell ---
green_behind($green, q{UPDATE heap SET b = 'z' WHERE a = 3});
my ($poller) = pids($green, 'bcmig poller');
kill_pid('STOP', $poller);
$run = on_green("SELECT bcmig_validate('s', 'public.heap', 'full')");
$green->poll_query_until('postgres', "SELECT state <> 'running' OR clock_timestamp() - started_at > '12 s' FROM bcmig.validation_run WHERE run_id = $run");
is(on_green("SELECT state FROM bcmig.validation_run WHERE run_id = $run"), 'running', 'a table without key is proved by polls: the run waits for them');
kill_pid('CONT', $poller);
ok($green->poll_query_until('postgres', "SELECT verdict = 'different' FROM bcmig.validation_run WHERE run_id = $run"), 'and is conclusive');

# --- blue goes away when rows that differ are about to be looked at again ---
green_behind($green, q{SET session_replication_role = replica; UPDATE entry SET name = 'z' WHERE no = 50});
debug_points('validate_compared');
$hold = hold_point($green, 'validate_compared');
$run = on_green("SELECT bcmig_validate('s', 'public.entry', 'full')");
wait_for_point();
$blue->stop('immediate');
$hold->quit;
debug_points('');
ok($green->poll_query_until('postgres', q{SELECT NOT reachable FROM bcmig.environment_status WHERE environment = 'blue'}), 'blue is gone');
is(on_green("SELECT state, v.verdict, differences FROM bcmig.validation_run JOIN bcmig.validation_result v USING (run_id) WHERE run_id = $run"), 'running||0', 'the run waits');
$blue->start;
ok($green->poll_query_until('postgres', "SELECT state = 'finished' FROM bcmig.validation_run WHERE run_id = $run"), 'and goes on when it is back');
is(on_green("SELECT rows_blue, rows_green, differences, verdict FROM bcmig.validation_result WHERE run_id = $run"), '4998|4998|1|different', 'each row counted once');
is(differences($run, 'key, green->>\'name\''), '["50"]|z', 'and listed once');

done_testing();
