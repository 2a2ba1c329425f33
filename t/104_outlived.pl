# A crash of blue between two steps of bcmig: what was read before it and written
# after it, and transaction ids that are given out a second time.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

sub sql_green { return $green->safe_psql('postgres', $_[0]) }

$blue->safe_psql('postgres', q{
	CREATE TABLE tracked (id int PRIMARY KEY, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO tracked SELECT i, 'x' || i, 0 FROM generate_series(1, 300) i;
	CREATE TABLE late (LIKE tracked INCLUDING ALL);
	INSERT INTO late SELECT * FROM tracked;});
track($blue, $_) foreach qw(tracked late);
connect_blue($green, $blue, 's');
sql_green(q{SELECT bcmig_add_table('s', 'tracked')});
start_sync($green, 's');
wait_sync($green, 's');

# the poller has looked at the blue that is there now, and has found nothing lost
my $asked = q{bcmig.audit_log WHERE event = 'resync' AND detail <> 'upsert'};	# not that one begins
my $resyncs = "SELECT count(*) FROM $asked";
my $incarnation = '';
sub blue_is_known
{
	ok($green->poll_query_until('postgres', "SELECT incarnation <> '$incarnation' FROM bcmig.blue_position"), "$_[0]: the poller knows blue again");
	is(sql_green($resyncs), $_[1], 'nothing it knows of is lost');
}
sub remember_blue { $incarnation = sql_green('SELECT incarnation FROM bcmig.blue_position') }
sub read_again
{
	like(sql_green("SELECT detail FROM $asked ORDER BY audit_id DESC LIMIT 1"), qr/^blue restarted/, 'it is read again');
}

# ---------------------------------------------------------------------------
# A restart in which nothing is lost costs nothing, also when nothing has changed
# since the table is tracked
# ---------------------------------------------------------------------------
foreach my $mode ('fast', 'immediate')
{
	remember_blue();
	$blue->stop($mode);
	$blue->start;
	blue_is_known("$mode stop", 0);
	wait_sync($green, 's');
}
$blue->safe_psql('postgres', q{UPDATE tracked SET t = 'witness' WHERE id = 1});
wait_sync($green, 's');
is(sql_green($resyncs), '0', 'nothing is read again');

# ---------------------------------------------------------------------------
# That a transaction was rolled back comes to disk a moment later: after a crash in
# between its id is given out again, and nobody bore witness of it.  What it commits
# then was taken for seen.
# ---------------------------------------------------------------------------
my $position = q{SELECT position FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'tracked'};
my $xid;
kill_pid('STOP', $_) foreach pids($blue, 'walwriter');
foreach my $id (4000 .. 4050)
{
	$xid = $blue->safe_psql('postgres', "INSERT INTO tracked VALUES ($id, 'kept'); BEGIN; SELECT pg_current_xact_id(); ROLLBACK");
	wait_sync($green, 's');
	last if sql_green($position) > $xid;	# else a window came between the two
}
cmp_ok(sql_green($position), '>', $xid, 'a table is read beyond a transaction that was rolled back');
remember_blue();
$blue->stop('immediate');
start_unseen($blue, sub {
	is($blue->safe_psql('postgres', q{BEGIN; INSERT INTO tracked VALUES (5000, 'not seen'); UPDATE tracked SET t = 'not seen' WHERE id = 11;
		SELECT pg_current_xact_id(); COMMIT}), $xid, 'it is given out again');
	$blue->safe_psql('postgres', q{SELECT pg_current_xact_id()});
});
blue_is_known('given out again', 0);
wait_sync($green, 's');
all_equal($blue, $green, 'given out again', 'tracked');

# ---------------------------------------------------------------------------
# A window was read, blue lost what it brought, and the witnesses were asked before
# it was written: green kept rows blue does not have.
# ---------------------------------------------------------------------------
save_blue($blue);
wait_sync($green, 's');
my $hold = stop_at($green, 'window_read');
$blue->safe_psql('postgres', q{INSERT INTO tracked VALUES (6000, 'lost'); UPDATE tracked SET t = 'lost' WHERE id = 12});
ok(point_reached($green, 'window_read'), 'a window is read');
remember_blue();
lose_tail($blue, 1);
blue_is_known('window', 0);
release_point($green, $hold);
$green->poll_query_until('postgres', "SELECT ($resyncs) > 0") or die 'no resync';
wait_sync($green, 's');
all_equal($blue, $green, 'window', 'tracked');
read_again();

# ---------------------------------------------------------------------------
# The same with a chunk of a table that is read again
# ---------------------------------------------------------------------------
save_blue($blue);
wait_sync($green, 's');
$hold = stop_at($green, 'copy_chunk_before_read');
sql_green(q{SELECT bcmig_resync_table('s', 'tracked')});
ok(point_reached($green, 'copy_chunk_before_read'), 'a chunk is about to be read');
$blue->safe_psql('postgres', q{INSERT INTO tracked VALUES (7000, 'lost'); UPDATE tracked SET t = 'lost' WHERE id = 13});
my $writer = $green->background_psql('postgres', on_error_die => 1);
$writer->query_safe('BEGIN; SELECT FROM tracked WHERE id = 13 FOR UPDATE');
release_point($green, $hold);
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bcmig worker' AND wait_event_type = 'Lock'}), 'it is read and being written');
remember_blue();
my $write = sql_green(q{SELECT pid, xact_start FROM pg_stat_activity WHERE backend_type = 'bcmig worker' AND wait_event_type = 'Lock'});
lose_tail($blue, 1);
blue_is_known('chunk', 2);
# on a slow machine it has given up waiting meanwhile: then nothing outlived blue
my $outlives = $write eq sql_green(q{SELECT pid, xact_start FROM pg_stat_activity WHERE backend_type = 'bcmig worker' AND wait_event_type = 'Lock'});
$writer->query_safe('COMMIT');
$writer->quit;
$green->poll_query_until('postgres', "SELECT ($resyncs) > 2") or die 'no resync' if $outlives;
wait_sync($green, 's');
all_equal($blue, $green, 'chunk', 'tracked');
read_again() if $outlives;

# ---------------------------------------------------------------------------
# A copy that begins at a position of the blue before
# ---------------------------------------------------------------------------
$hold = stop_at($green, 'copy_position_taken');
sql_green(q{SELECT bcmig_add_table('s', 'late')});
ok(point_reached($green, 'copy_position_taken'), 'a copy is about to begin');
remember_blue();
$blue->stop('immediate');
$blue->start;
blue_is_known('copy', 2 + $outlives);
release_point($green, $hold);
wait_sync($green, 's', 'caught_up');
read_again();
all_equal($blue, $green, 'copy', qw(tracked late));
is(sql_green($resyncs), 3 + $outlives, 'nothing else was read again');

done_testing();
