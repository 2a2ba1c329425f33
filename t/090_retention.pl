# What grows with every batch is taken away again: batches and cleared alerts by
# age, marks of chunks by folding, blue's changes by its log of moved tables.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/lib";
use BcmigTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', "bcmig.debug_points = 'validate_compared'");

sub b { return $blue->safe_psql('postgres', $_[0]); }
sub g { return $green->safe_psql('postgres', $_[0]); }

b(q{CREATE TABLE a (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO a SELECT i, 'a' || i FROM generate_series(1, 30000) i; CREATE TABLE c (LIKE a INCLUDING ALL)});
track($blue, $_) foreach qw(a c);
connect_blue($green, $blue, 's');
g(qq{SELECT bcmig_add_table('s', '$_')}) foreach qw(a c);
start_sync($green, 's');
wait_sync($green, 's');
is((run_validation($green, 's', 'full'))[1], 'ok', 'validated: the table is cut into chunks');
my $table = g(q{SELECT table_id FROM bcmig.sync_table WHERE target_table = 'a'});
my $marks = "FROM bcmig.dirty_chunk WHERE table_id = $table";

# --- batches ---
my $ids = 'sync_id, table_id, kind, status, started_at';
g(qq{INSERT INTO bcmig.sync_batch ($ids) SELECT 1, $table, 'window', 'Completed', now() - interval '8 days' FROM generate_series(1, 25000);
	INSERT INTO bcmig.sync_batch ($ids) SELECT 1, $table, 'window', 'Completed', now() - interval '6 days' FROM generate_series(1, 50)});
# old ones come to stand behind young ones only when a clock was set; these were there before
g(q{UPDATE bcmig.sync_batch SET started_at = now() - interval '9 days' WHERE started_at > now() - interval '1 day'});
g(q{INSERT INTO bcmig.alert_log (name, severity, looks, cleared_at) VALUES ('old', 'warning', 1, now() - interval '8 days'),
	('young', 'warning', 1, now() - interval '6 days')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.sync_batch WHERE started_at < now() - interval '7 days'}), 'old batches go');
is(g(q{SELECT count(*) FROM bcmig.sync_batch WHERE started_at < now() - interval '5 days'}), '50', 'younger ones stay');
is(g(q{SELECT string_agg(name, ' ') FROM bcmig.alert_log WHERE name IN ('old', 'young')}), 'young', 'so do cleared alerts');

# --- marks ---
# as many as a table would get of which nobody asks for a validation
sub marks_of
{
	my ($chunk, $n) = @_;
	return qq{INSERT INTO bcmig.dirty_chunk (table_id, generation, chunk) SELECT c.table_id, c.generation, $chunk
		FROM bcmig.chunking c, generate_series(1, $n) WHERE c.table_id = $table};
}
b(q{UPDATE a SET v = 'changed' WHERE id = 29999});
wait_sync($green, 's');
my $others = g("SELECT string_agg(chunk || ' ' || xid, ',' ORDER BY xid) $marks");
ok($others, 'a chunk that was written to has its mark');
g(marks_of(0, 100001));
ok($green->poll_query_until('postgres', "SELECT count(*) = 1 $marks AND chunk = 0"), 'many marks of a chunk become one');
is(g("SELECT string_agg(chunk || ' ' || xid, ',' ORDER BY xid) $marks AND chunk <> 0"), $others, 'a chunk with one keeps it as it is');
g(q{SET ROLE bcmig_maintenance; UPDATE a SET v = 'wrong' WHERE id = 5});
my ($run, $verdict) = run_validation($green, 's', 'incremental');
is($verdict, 'different', 'and the chunk is compared: an incremental run finds a row that is wrong');
g("SELECT * FROM bcmig_repair($run)");
ok($green->poll_query_until('postgres', q{SELECT v = 'a5' FROM a WHERE id = 5}), 'repaired');
is((run_validation($green, 's', 'incremental'))[1], 'ok', 'ok again');
is(g("SELECT count(*) $marks"), '0', 'which takes the marks away');

# a comparison whose snapshot shows the younger of two marks and not the older, which commits only then
my $open = $green->background_psql('postgres', on_error_die => 1);
$open->query_safe('BEGIN');
$open->query_safe(marks_of(0, 1));
g(marks_of(0, 1));
my $hold = hold_point($green, 'validate_compared');
my $compared = g(q{SELECT bcmig_validate('s', 'public.a', 'full')});
point_reached($green, 'validate_compared') or die 'no comparison';
$open->query_safe('COMMIT');
$open->quit;
is(g("SELECT count(*) $marks AND chunk = 0"), '2', 'two marks of a chunk');
g(marks_of(99, 100001));
ok($green->poll_query_until('postgres', "SELECT count(*) FILTER (WHERE chunk = 0) = 1 AND count(*) FILTER (WHERE chunk = 99) = 1 $marks"),
	'marks become one while a comparison is under way');
release_point($green, $hold);
$green->poll_query_until('postgres', "SELECT state <> 'running' FROM bcmig.validation_run WHERE run_id = $compared") or die 'no end';
is(g("SELECT count(*) $marks AND chunk = 0"), '1', 'that one is not taken away: the comparison has not seen all it stands for');

# --- what blue records ---
g(q{SELECT bcmig_stop_sync('s')});
$green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_status}) or die 'does not stop';
b(q{CREATE TABLE q (LIKE c INCLUDING ALL)});
track($blue, 'q');
b(q{UPDATE bcmig_blue.state SET retention = '0'});
b(q{SELECT bcmig_blue.expire()}) foreach 1 .. 3;
is(b(q{SELECT count(*) FROM bcmig_blue.moved}), '0', 'all of blue has expired');
my $valid = 'SELECT min_valid FROM bcmig_blue.tracked WHERE table_name =';
my $quiet = b("$valid 'q'");

b(q{INSERT INTO c VALUES (1, 'old')});
is(b(q{BEGIN; SELECT pg_sleep(0), bcmig_blue.expire(); COMMIT}) =~ s/^\|//r, '2', 'a change and its entry expire');
is(b(q{INSERT INTO c VALUES (2, 'old')}), '', 'another');
my @locked = split /\n/, b(q{BEGIN; SELECT bcmig_blue.expire() \g /dev/null
	SELECT k.table_name FROM pg_locks l JOIN bcmig_blue.tracked k ON l.relation = k.change_table::regclass WHERE l.pid = pg_backend_pid() ORDER BY 1; COMMIT});
is_deeply([ sort(keys(%{ { map { $_ => 1 } @locked } })) ], ['c'], 'only change tables of tables that moved are looked at');
is(b("$valid 'q'"), $quiet, 'a table that did not move stays valid from where it was');

# one that gets more than a call can delete does not keep others from their turn
my $calls = 0;
b(q{INSERT INTO a SELECT i, 'flood' FROM generate_series(100001, 150000) i; INSERT INTO c VALUES (3, 'behind it')});
do
{
	b(q{UPDATE a SET v = v || '.' WHERE id > 100000; SELECT bcmig_blue.expire()});
} while (++$calls < 30 && b('SELECT count(*) FROM ' . b(q{SELECT change_table FROM bcmig_blue.tracked WHERE table_name = 'c'})) > 0);
cmp_ok($calls, '<', 30, 'a change of another table expires though there is always one table with more');
my $left = 200;
while (b(q{SELECT bcmig_blue.expire()}) > 0)
{
	last unless --$left;
}
is(b('SELECT (SELECT count(*) FROM bcmig_blue.moved) || \'/\' || (SELECT count(*) FROM ' . b(q{SELECT change_table FROM bcmig_blue.tracked WHERE table_name = 'a'}) . ')'), '0/0', 'and in the end all are gone');
b(q{UPDATE bcmig_blue.state SET retention = '2 days'});

# what expired unread is read again
start_sync($green, 's');
wait_sync($green, 's');
all_equal($blue, $green, 'after all that', 'a', 'c');

done_testing();
