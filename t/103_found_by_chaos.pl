# What make chaos has found (test/chaos), each as a test of its own.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;
use Time::HiRes qw(usleep);

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE tracked (id int PRIMARY KEY, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO tracked SELECT i, 'x' || i, 0 FROM generate_series(1, 300) i;
	});
track($blue, 'tracked');
connect_blue($green, $blue, 's');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'tracked')});
start_sync($green, 's');
wait_sync($green, 's');

sub sql_green
{
	return $green->safe_psql('postgres', $_[0]);
}

# ---------------------------------------------------------------------------
# A table whose deletes come with windows was swept (a resync ends with a sweep):
# what its windows proved no longer counted, and the lag of the sync grew while
# every row arrived, until the table had been quite idle for a moment.
# ---------------------------------------------------------------------------
my $hold = stop_at($green, 'validate_compared');
sql_green(q{SELECT bcmig_validate('s', 'tracked', 'full')});
ok(point_reached($green, 'validate_compared'), 'a long validation is at the table');
my $swept = sql_green('SELECT swept_at FROM bcmig.table_state');
sql_green(q{SELECT bcmig_sweep_deletes('s', 'tracked')});
ok($green->poll_query_until('postgres', "SELECT swept_at IS DISTINCT FROM nullif('$swept', '')::timestamptz FROM bcmig.table_state"), 'meanwhile it is swept');
$blue->safe_psql('postgres', q{UPDATE tracked SET t = 'after the sweep' WHERE id = 7});
my $at = $blue->safe_psql('postgres', 'SELECT clock_timestamp()');
ok($green->poll_query_until('postgres', q{SELECT t = 'after the sweep' FROM tracked WHERE id = 7}), 'rows arrive');
ok($green->poll_query_until('postgres', "SELECT coalesce(synced_through > '$at', false) FROM bcmig.sync_status"), 'and are proved to have arrived');
release_point($green, $hold);
wait_sync($green, 's');
all_equal($blue, $green, 'swept beside a validation', 'tracked');

# ---------------------------------------------------------------------------
# Commits of blue that a crash took back were seen by a chunk of a copy, and by
# nothing else: no window had brought them, so nothing bore witness, and green
# kept rows that blue does not have.
# ---------------------------------------------------------------------------
sub resyncs
{
	return sql_green(q{SELECT count(*) FROM bcmig.audit_log WHERE event = 'resync' AND detail LIKE '%lost commits%'});
}

# noticed after the copy has ended, or before: then it is not over with the sweep
# that is under way, which has asked blue before the crash
my $resyncs = 0;
foreach my $noticed (0, 1)
{
	save_blue($blue);
	wait_sync($green, 's');
	sql_green(q{ALTER SYSTEM SET bcmig.debug_points = 'copy_chunk_before_read,sweep_collected'});
	$green->reload;
	my $before_read = hold_point($green, 'copy_chunk_before_read');
	my $after_copy = hold_point($green, 'sweep_collected');
	sql_green(q{SELECT bcmig_resync_table('s', 'tracked')});
	ok(point_reached($green, 'copy_chunk_before_read'), 'the position of a copy is taken');
	$blue->safe_psql('postgres', q{INSERT INTO tracked VALUES (1000, 'lost'); UPDATE tracked SET t = 'lost' WHERE id = 8});
	$before_read->quit;
	ok(point_reached($green, 'sweep_collected'), 'its chunk has read what follows');
	is(sql_green(q{SELECT count(*) FROM tracked WHERE t = 'lost'}), '2', 'and has committed it');
	lose_tail($blue, 1);
	$resyncs++;
	ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.table_state WHERE reason LIKE '%lost commits%'}), 'noticed beside the sweep') if $noticed;
	release_point($green, $after_copy);
	wait_sync($green, 's');
	all_equal($blue, $green, 'lost commits seen by a copy alone', 'tracked');
	is(resyncs(), $resyncs, 'noticed');
}

# lost before anybody saw them
save_blue($blue);
wait_sync($green, 's');
my $window = stop_at($green, 'window_before_read');
$blue->safe_psql('postgres', q{DELETE FROM tracked WHERE id = 9});
ok(point_reached($green, 'window_before_read'), 'no window comes to it');
lose_tail($blue, 1);
release_point($green, $window);
wait_sync($green, 's');
all_equal($blue, $green, 'lost commits nobody has seen', 'tracked');
is(resyncs(), $resyncs, 'cost nothing');

# ---------------------------------------------------------------------------
# A compare that had read blue when its table was put into resync made it
# streaming: the resync never came.
# ---------------------------------------------------------------------------
$blue->safe_psql('postgres', q{CREATE TABLE heap (a int, b text); INSERT INTO heap SELECT i, 'x' FROM generate_series(1, 30) i});
sql_green(q{SELECT bcmig_add_table('s', 'heap')});
wait_sync($green, 's');
my $writer = $green->background_psql('postgres', on_error_die => 1);
$writer->query_safe('BEGIN; SELECT FROM heap WHERE a = 5 FOR UPDATE');
$blue->safe_psql('postgres', q{UPDATE heap SET b = 'y' WHERE a = 5});
sql_green(q{SELECT bcmig_sweep_deletes('s', 'heap')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bcmig worker' AND wait_event_type = 'Lock'}), 'a compare writes');
sql_green(q{SELECT bcmig_resync_table('s', 'heap')});
$writer->query_safe('COMMIT');
$writer->quit;
wait_sync($green, 's');
is(sql_green(q{SELECT copy_started IS NOT NULL FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'heap'}), 't', 'it is read again');
all_equal($blue, $green, 'a compare and a resync', 'heap');
sql_green(q{SELECT bcmig_remove_table('s', 'heap')});

# the same with a window that takes too many rows away: resumed, the table streamed as before
$blue->safe_psql('postgres', q{CREATE TABLE many (LIKE tracked INCLUDING ALL); INSERT INTO many SELECT * FROM tracked});
track($blue, 'many');
sql_green(q{SELECT bcmig_add_table('s', 'many')});
wait_sync($green, 's');
my $reads = stop_at($green, 'window_before_read');
$blue->safe_psql('postgres', q{DELETE FROM many WHERE id > 20});
ok(point_reached($green, 'window_before_read'), 'a window begins');
sql_green(q{SELECT bcmig_resync_table('s', 'many')});
release_point($green, $reads);
ok(wait_state($green, 'public.many', 'suspended'), 'so many rows are not deleted unasked');
sql_green(q{SELECT bcmig_resume_table('s', 'many')});
wait_sync($green, 's');
is(sql_green(q{SELECT copy_started IS NOT NULL FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'many'}), 't', 'resumed, it is read again');
all_equal($blue, $green, 'a mass delete and a resync', 'many');
sql_green(q{SELECT bcmig_remove_table('s', 'many')});

# ---------------------------------------------------------------------------
# The application, after the crash, did again what was lost: the same key under
# the same transaction id, but not the same row.  Every witness agreed.
# ---------------------------------------------------------------------------
sub next_xid
{
	return $blue->safe_psql('postgres', 'SELECT pg_snapshot_xmax(pg_current_snapshot())');
}

save_blue($blue);
wait_sync($green, 's');
my $xid = $blue->safe_psql('postgres', q{BEGIN; INSERT INTO tracked VALUES (2000, 'lost'); SELECT pg_current_xact_id(); COMMIT});
wait_sync($green, 's');
is(sql_green('SELECT t FROM tracked WHERE id = 2000'), 'lost', 'green has what will be lost');
lose_tail($blue, 0, sub {
	while (next_xid() < $xid)
	{
		$blue->safe_psql('postgres', 'SELECT pg_current_xact_id()');
	}
	is($blue->safe_psql('postgres', q{BEGIN; INSERT INTO tracked VALUES (2000, 'again'); SELECT pg_current_xact_id(); COMMIT}), $xid, 'done again by the same transaction');
});
wait_sync($green, 's');
all_equal($blue, $green, 'lost and done again', 'tracked');
is(resyncs(), ++$resyncs, 'noticed');

# ---------------------------------------------------------------------------
# A row applied last was deleted on blue, and blue crashed before green had seen
# that: taken for a lost commit, and everything was read again.
# ---------------------------------------------------------------------------
$blue->safe_psql('postgres', q{INSERT INTO tracked VALUES (3000, 'not for long')});
wait_sync($green, 's');
my $late = stop_at($green, 'window_before_read');
$blue->safe_psql('postgres', q{DELETE FROM tracked WHERE id = 3000});
ok(point_reached($green, 'window_before_read'), 'a delete is not read yet');
$blue->stop('immediate');
$blue->start;
release_point($green, $late);
wait_sync($green, 's');
all_equal($blue, $green, 'deleted before a crash', 'tracked');
is(resyncs(), $resyncs, 'nothing was lost, nothing is read again');

# ---------------------------------------------------------------------------
# The clock of green was set back by two hours: what waited out a backoff, a
# poll, a reload, a sweep, waited two hours more.
# ---------------------------------------------------------------------------
my $clock = new_clock();
$green->stop;
start_with_clock($green, $clock);
wait_sync($green, 's');
my $from = -s $green->logfile;

sub tries
{
	my @tries = PostgreSQL::Test::Utils::slurp_file($green->logfile, $from) =~ /could not connect to server "blue"/g;
	return scalar @tries;
}

# far apart: the next one is seconds away when the clock changes
$blue->stop;
for (my $left = 600; $left > 0 && tries() < 5; $left--)
{
	usleep(100_000);
}
cmp_ok(tries(), '>=', 5, 'blue is away, green tries less and less often');
set_clock($clock, -7200);
$blue->start;
$blue->safe_psql('postgres', q{UPDATE tracked SET t = 'clock' WHERE id = 10});
ok($green->poll_query_until('postgres', q{SELECT t = 'clock' FROM tracked WHERE id = 10}), 'the clock of green is set back, and nothing waits for it to catch up');
cmp_ok(sql_green('SELECT extract(epoch FROM clock_timestamp())'), '<', time() - 7000, 'it was');

# ---------------------------------------------------------------------------
# The clock was set back while a window was being applied: the entry of a row
# refused in it looked older than the window, was taken for settled and went, and
# with it the last that told of the row.
# ---------------------------------------------------------------------------
set_clock($clock, 0);
green_behind($green, q{ALTER TABLE tracked ADD CHECK (t <> 'refused') NOT VALID});
$blue->safe_psql('postgres', q{UPDATE tracked SET t = 'refused' WHERE id = 11});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 1 FROM bcmig.quarantine'), 'a row is refused');
wait_sync($green, 's');
my $read = stop_at($green, 'window_read');
$blue->safe_psql('postgres', q{UPDATE tracked SET t = 'refused' WHERE id = 12});
ok(point_reached($green, 'window_read'), 'a window is read');
set_clock($clock, -3600);
release_point($green, $read);
$blue->safe_psql('postgres', q{UPDATE tracked SET t = 'after it' WHERE id = 13});
ok($green->poll_query_until('postgres', q{SELECT t = 'after it' FROM tracked WHERE id = 13}), 'and applied in an earlier time');
is(sql_green('SELECT string_agg(key::text, $$ $$ ORDER BY key) FROM bcmig.quarantine'), '["11"] ["12"]', 'both rows are in quarantine');
green_behind($green, q{ALTER TABLE tracked DROP CONSTRAINT tracked_t_check});
sql_green(q{SELECT bcmig_retry_quarantine('s')});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.quarantine'), 'and can be tried again in it');
wait_sync($green, 's');
all_equal($blue, $green, 'clock set back', 'tracked');

# ---------------------------------------------------------------------------
# Where blue's machine vanished while it was at a statement, with nothing of ours
# unanswered, a worker waited for as long as TCP keeps a silent connection: two
# hours.  tcp_user_timeout, which preflight asked for, does not see that.
# ---------------------------------------------------------------------------
sql_green(q{CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '} . $blue->port . q{', dbname 'postgres',
		connect_timeout '5', tcp_user_timeout '15000');
	CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user '} . (getpwuid($<))[0] . q{');
	SELECT bcmig_add_environment('far', 'blue', 'far')});
my $check = q{SELECT status, fix FROM bcmig_check_environment('far') WHERE fix LIKE '%keepalives%'};
is(sql_green($check), q{warn|ALTER SERVER far OPTIONS (ADD keepalives_idle '30', ADD keepalives_interval '10');}, 'what is missing for a silent connection is named');
sql_green(q{ALTER SERVER far OPTIONS (ADD keepalives_idle '30', ADD keepalives_interval '10')});
is(sql_green($check), '', 'and with it all is well');

done_testing();
