# Invariant 8: nothing vanishes.  Mass deletes, truncated, dropped and emptied
# tables suspend until a person says so.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

foreach my $t (qw(mass trunc gone swept empty expired))
{
	$blue->safe_psql('postgres', qq{
		CREATE TABLE $t (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
		INSERT INTO $t SELECT i, 'v' || i, 0 FROM generate_series(1, 1000) i;});
	track($blue, $t, $t =~ /swept|empty/ ? 'rowversion' : 'change_tracking');
}
connect_blue($green, $blue, 's');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach qw(mass trunc gone swept empty expired);
start_sync($green, 's');
wait_sync($green, 's');
all_equal($blue, $green, 'before', qw(mass trunc gone swept empty expired));

sub reason { $green->safe_psql('postgres', "SELECT reason FROM bcmig.table_status WHERE target = 'public.$_[0]'") }
sub rows { $green->safe_psql('postgres', "SELECT count(*) FROM $_[0]") }

# --- a window that deletes a lot ---
$blue->safe_psql('postgres', 'DELETE FROM mass WHERE id <= 150');
ok($green->poll_query_until('postgres', 'SELECT count(*) = 850 FROM mass'), '15 percent go by themselves');
$blue->safe_psql('postgres', 'DELETE FROM mass WHERE id <= 500');
ok(wait_state($green, 'public.mass', 'suspended'), '41 percent suspend the table');
like(reason('mass'), qr/350 of 850 rows would be deleted, max_delete_percent is 20/, 'and the reason says how many');
is(rows('mass'), '850', 'no row is gone');
$blue->safe_psql('postgres', q{UPDATE mass SET v = 'while suspended' WHERE id = 999});
my ($rc, $out, $err) = $green->psql('postgres', "CALL bcmig_wait_sync('s', 'caught_up', '30 s')", on_error_die => 0);
like($err, qr/cannot get to caught_up.*would be deleted/s, 'bcmig_wait_sync says so at once');
$green->safe_psql('postgres', q{SELECT bcmig_resume_table('s', 'mass')});
wait_sync($green, 's');
all_equal($blue, $green, 'confirmed', 'mass');

# --- resumed for another reason: nobody was asked about deletes ---
$green->safe_psql('postgres', q{SELECT bcmig_suspend_table('s', 'mass')});
ok(wait_state($green, 'public.mass', 'suspended'), 'suspended by hand');
$blue->safe_psql('postgres', 'DELETE FROM mass WHERE id <= 700');
$green->safe_psql('postgres', q{SELECT bcmig_resume_table('s', 'mass')});
ok($green->poll_query_until('postgres', q{SELECT reason ~ 'rows would be deleted' FROM bcmig.table_status WHERE target = 'public.mass'}), 'resumed: a mass delete suspends it again');
is(rows('mass'), '500', 'no row is gone');
$green->safe_psql('postgres', q{SELECT bcmig_resume_table('s', 'mass')});
wait_sync($green, 's');
all_equal($blue, $green, 'asked and confirmed', 'mass');

# --- truncate ---
$blue->safe_psql('postgres', q{TRUNCATE trunc; INSERT INTO trunc SELECT i, 'fresh', 0 FROM generate_series(1, 10) i});
ok(wait_state($green, 'public.trunc', 'suspended'), 'TRUNCATE: resync, then the sweep asks');
like($green->safe_psql('postgres', q{SELECT string_agg(detail, ' ') FROM bcmig.timeline WHERE target = 'public.trunc' AND event = 'resync'}), qr/truncated/, 'the timeline says why');
is(rows('trunc'), '1000', 'no row is gone');
$green->safe_psql('postgres', q{SELECT bcmig_resume_table('s', 'trunc')});
wait_sync($green, 's');
all_equal($blue, $green, 'truncated and filled again', 'trunc');

# --- a table that vanishes, and comes back ---
$blue->safe_psql('postgres', q{UPDATE gone SET v = 'last words' WHERE id = 1; DROP TABLE gone});
ok(wait_state($green, 'public.gone', 'suspended'), 'a dropped table is suspended');
like(reason('gone'), qr/vanished|42P01|has no table/, 'and the reason says so');
is(rows('gone'), '1000', 'no row is gone');
$blue->safe_psql('postgres', q{CREATE TABLE gone (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO gone SELECT i, 'v' || i, 0 FROM generate_series(1, 1000) i; UPDATE gone SET v = 'second life' WHERE id = 7});
track($blue, 'gone');
$green->safe_psql('postgres', q{SELECT bcmig_resync_table('s', 'gone'); SELECT bcmig_resume_table('s', 'gone')});
wait_sync($green, 's');
all_equal($blue, $green, 'dropped and made again', 'gone');

# --- a sweep that would delete too much; an empty key list ---
$blue->safe_psql('postgres', 'DELETE FROM swept WHERE id <= 300; DELETE FROM empty');
$green->safe_psql('postgres', q{SELECT bcmig_sweep_deletes('s')});
ok(wait_state($green, 'public.swept', 'suspended'), 'a sweep of 30 percent suspends');
ok(wait_state($green, 'public.empty', 'suspended'), 'an empty key list suspends');
like(reason('empty'), qr/blue shows no row/, 'and the reason says so');
is(rows('swept') . '/' . rows('empty'), '1000/1000', 'no row is gone');
$green->safe_psql('postgres', q{SELECT bcmig_resume_table('s', 'swept'), bcmig_resume_table('s', 'empty')});
wait_sync($green, 's');
all_equal($blue, $green, 'confirmed', 'swept', 'empty');

# --- changes expired on blue before they were read ---
$green->safe_psql('postgres', q{SELECT bcmig_stop_sync('s')});
ok($green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_status}), 'stopped');
$blue->safe_psql('postgres', q{UPDATE expired SET v = 'not read in time' WHERE id % 2 = 0; DELETE FROM expired WHERE id <= 50});
# each call works for 100 ms
$blue->safe_psql('postgres', q{UPDATE bcmig_blue.state SET retention = '0'});
$blue->poll_query_until('postgres', 'SELECT bcmig_blue.expire() = 0');
is($blue->safe_psql('postgres', q{SELECT count(*) FROM bcmig_blue.moved}), '0', 'the log of blue is empty');
$blue->safe_psql('postgres', q{UPDATE bcmig_blue.state SET retention = '2 days'});
start_sync($green, 's');
wait_sync($green, 's');
like($green->safe_psql('postgres', q{SELECT string_agg(detail, ' ') FROM bcmig.timeline WHERE target = 'public.expired' AND event = 'resync'}), qr/expired on blue/, 'the table was read again');
all_equal($blue, $green, 'after expiry', qw(mass trunc gone swept empty expired));

done_testing();
