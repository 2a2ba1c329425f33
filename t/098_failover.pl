# A standby of green is promoted in the midst of a copy, of streaming and of a
# switch; green is recovered to an earlier time; green is dumped and restored.
# Nothing is lost, and traffic waits for a person.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use File::Spec;
use HAProxy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Traffic;

my $blue = new_blue();
allow_switch($blue);
my $green = new_green('green', 'wal_level = replica', 'max_wal_senders = 5', 'wal_keep_size = 256MB', "bcmig.debug_points = 'copy_chunk_loaded,final_fenced,rollback_fenced'");
$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 30000) i;});
track($blue, 'item');
connect_blue($green, $blue, 's', '{"traffic_timeout": "2s"}');
$green->safe_psql('postgres', q{SELECT bcmig_alter_environment('blue', '{"fence_by": "call"}');
	SELECT bcmig_add_table('s', 'item', options => '{"chunk_rows": 100}')});

my $front = HAProxy->new(blue => ['b'], green => ['g']);
add_haproxy($green, 'front', $front);
my $next = 100000;

# some of everything on blue
sub change_blue
{
	$next += 10;
	$blue->safe_psql('postgres', qq{
		INSERT INTO item SELECT i, 'new ' || i, 0 FROM generate_series($next, $next + 9) i;
		UPDATE item SET v = v || '.' WHERE id % 7 = 0;
		DELETE FROM item WHERE id IN (SELECT id FROM item WHERE id < 30000 ORDER BY id DESC LIMIT 3);
		UPDATE item SET id = -id WHERE id = (SELECT min(id) FROM item WHERE id > 0);});
}

# a standby that has all of the primary's log
sub standby
{
	my ($name, $primary) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$primary->backup("for_$name");
	$node->init_from_backup($primary, "for_$name", has_streaming => 1);
	$node->start;
	$primary->wait_for_catchup($node);
	return $node;
}

sub same
{
	my ($node, $what) = @_;
	wait_sync($node, 's');
	all_equal($blue, $node, $what, 'item');
	is($node->safe_psql('postgres', 'SELECT count(*) FROM bcmig.quarantine'), '0', "$what: nothing refused");
	is($node->safe_psql('postgres', 'SELECT count(*) FROM bcmig_verify_audit() WHERE first_bad IS NOT NULL'), '0', "$what: the audit chain is whole");
}

# --- in the midst of a copy ---
my $point = hold_point($green, 'copy_chunk_loaded');
$point->query_safe(q{SELECT pg_advisory_unlock(7268, hashtext('copy_chunk_loaded'))});
start_sync($green, 's');
$green->poll_query_until('postgres', 'SELECT count(*) >= 5 FROM bcmig.copy_chunk WHERE done') or die;
$point->query_safe(q{SELECT pg_advisory_lock(7268, hashtext('copy_chunk_loaded'))});
ok(point_reached($green, q(copy_chunk_loaded)), "the copy is under way");
# not the first five: several workers copy, and the first may still be under way
my $done = $green->safe_psql('postgres', q{SELECT string_agg(chunk::text, ',') FROM bcmig.copy_chunk WHERE done});
my $finished = "SELECT chunk, finished_at FROM bcmig.copy_chunk WHERE chunk IN ($done) ORDER BY chunk";
my $copied = $green->safe_psql('postgres', $finished);
change_blue();
my $second = standby('second', $green);
$green->stop('immediate');
$point->{run}->kill_kill;
change_blue();
$second->promote;
same($second, 'promoted in the midst of a copy');
is($second->safe_psql('postgres', $finished), $copied, "what was copied there is not copied again (chunks $done)");

# --- in the midst of streaming, with a standby that lags: commits of green are lost ---
like(held_why($second), qr/promoted/, 'traffic is held');
$second->safe_psql('postgres', q{SELECT bcmig_adopt('s')});
run_validation($second, 's', 'full');
is(set_traffic($second, 25), 'changed', 'to 25 %');
my $third = standby('third', $second);
$third->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
$third->stop;
change_blue() foreach 1 .. 5;
wait_sync($second, 's');
my $position = $second->safe_psql('postgres', 'SELECT position FROM bcmig.table_state');
$second->backup('crashed');
$second->stop('immediate');
change_blue();
# the rest of the log never comes
$third->append_conf('postgresql.conf', "primary_conninfo = ''");
$third->start;
cmp_ok($third->safe_psql('postgres', 'SELECT position FROM bcmig.table_state'), '<', $position, 'it has not got the last windows');
$third->promote;
same($third, 'promoted with windows lost');
like(held_why($third), qr/promoted/, 'traffic is held');
is($front->green_share, 25, 'and stays where it was');
$third->safe_psql('postgres', q{SELECT bcmig_adopt('s')});

# --- recovered to an earlier time: what blue has done since comes again ---
my $archive = File::Spec->rel2abs("$PostgreSQL::Test::Utils::tmp_check/archive");
mkdir $archive or die;
$third->append_conf('postgresql.conf', "archive_mode = on\narchive_command = 'cp \"%p\" \"$archive/%f\"'\n");
$third->restart;
$third->backup('early');
change_blue();
wait_sync($third, 's');
$third->safe_psql('postgres', q{SELECT pg_create_restore_point('here')});
change_blue();
wait_sync($third, 's');
$position = $third->safe_psql('postgres', 'SELECT position FROM bcmig.table_state');
$third->safe_psql('postgres', 'SELECT pg_switch_wal()');
$third->poll_query_until('postgres', q{SELECT last_archived_wal IS NOT NULL AND pg_walfile_name(pg_current_wal_lsn()) > last_archived_wal FROM pg_stat_archiver}) or die;
my $recovered = PostgreSQL::Test::Cluster->new('recovered');
$recovered->init_from_backup($third, 'early');
$recovered->append_conf('recovery.signal', '');
$recovered->append_conf('postgresql.conf', "archive_mode = off\nrestore_command = 'cp \"$archive/%f\" \"%p\"'\nrecovery_target_name = 'here'\nrecovery_target_action = 'promote'\n");
$recovered->start;
$recovered->poll_query_until('postgres', 'SELECT NOT pg_is_in_recovery()') or die;
is($recovered->safe_psql('postgres', "SELECT count(*) FROM bcmig.sync_batch WHERE started_at < pg_postmaster_start_time() AND to_position >= $position"), '0', 'the last window is not there');
same($recovered, 'recovered to an earlier time');
like(held_why($recovered), qr/recovered to a target: .*here/, 'its traffic is held');
change_blue();
same($recovered, 'held, it still reads blue');
$recovered->stop;

# --- dumped and restored: held until adopted ---
my $dump = "$PostgreSQL::Test::Utils::tmp_check/green.dump";
command_ok([ 'pg_dump', '-Fc', '-f', $dump, '-d', $third->connstr('postgres') ], 'pg_dump');
my $restored = PostgreSQL::Test::Cluster->new('restored');
$restored->init(extra => [ '--locale=C.UTF-8', '--encoding=UTF8' ]);
$restored->start;
$restored->safe_psql('postgres', 'CREATE ROLE bcmig_maintenance SUPERUSER');
command_ok([ 'pg_restore', '--exit-on-error', '-d', $restored->connstr('postgres'), $dump ], 'pg_restore');
$restored->append_conf('postgresql.conf', "shared_preload_libraries = 'bcmig'\nmax_worker_processes = 24\nbcmig.naptime = 100\n");
$restored->restart;
like(held_why($restored), qr/another cluster/, 'a restored dump: traffic is held');
ok($restored->poll_query_until('postgres', q{SELECT state = 'held' FROM bcmig.sync_status}), 'and so is the sync');
is($restored->safe_psql('postgres', q{SELECT next_step FROM bcmig_status('s')}), q{SELECT bcmig_adopt('s');}, 'a person is told how to go on');
change_blue();
my $batches = $restored->safe_psql('postgres', 'SELECT count(*) FROM bcmig.sync_batch');
ok(worked($restored, 2), 'its workers look after it');
is($restored->safe_psql('postgres', 'SELECT count(*) FROM bcmig.sync_batch'), $batches, 'nothing is read');
like(refused($restored, q{UPDATE item SET v = 'x' WHERE id = 1}), qr/^BM021/, 'its fence is up');
$restored->safe_psql('postgres', q{SELECT bcmig_adopt('s')});
same($restored, 'restored and adopted');
run_validation($restored, 's', 'full');
is(set_traffic($restored, 20), 'changed', 'it moves traffic');
like(held_why($third), qr/blue was told/, 'and the one it was dumped from does not any more');
$restored->stop;
$third->safe_psql('postgres', q{SELECT bcmig_adopt('s')});
run_validation($third, 's', 'full');
is(set_traffic($third, 40), 'changed', 'until it is adopted');

# --- in the midst of the last step: blue is fenced, green is not open ---
run_validation($third, 's', 'full');
is(set_traffic($third, 30), 'changed', 'adopted, it goes on');
$point = hold_point($third, 'final_fenced');
$third->safe_psql('postgres', q{SELECT count(*) FROM bcmig_switch_traffic('s', '{100}', '{"stabilization": 0}')});
ok(point_reached($third, 'final_fenced'), 'blue is fenced');
my $fourth = standby('fourth', $third);
$third->stop('immediate');
$point->{run}->kill_kill;
$fourth->promote;
like(held_why($fourth), qr/promoted/, 'promoted in the midst of the last step: held');
my ($rc, $out, $err) = $blue->psql('postgres', q{UPDATE item SET v = 'x'});
isnt($rc, 0, 'blue is still fenced');
($rc, $out, $err) = $fourth->psql('postgres', q{UPDATE item SET v = 'x'});
isnt($rc, 0, 'and so is green: one writer at most');
$fourth->safe_psql('postgres', q{SELECT bcmig_adopt('s')});
ok($fourth->poll_query_until('postgres', q{SELECT state <> 'running' FROM bcmig.switch ORDER BY switch_id DESC LIMIT 1}), 'adopted, the step ends');
is(sides($fourth) . ' ' . $fourth->safe_psql('postgres', q{SELECT concat_ws(' ', state, problem) FROM bcmig.switch_status LIMIT 1}), '100 green open armed done', 'and is done');
($rc, $out, $err) = $blue->psql('postgres', q{UPDATE item SET v = 'x'});
isnt($rc, 0, 'blue is fenced, green is open');
$fourth->safe_psql('postgres', q{UPDATE item SET v = 'written on green' WHERE id = 100010});
ok($blue->poll_query_until('postgres', q{SELECT v = 'written on green' FROM item WHERE id = 100010}), 'what is written there reaches blue');

# --- in the midst of a rollback: past its point of no return ---
$point = hold_point($fourth, 'rollback_fenced');
$fourth->safe_psql('postgres', q{SELECT count(*) FROM bcmig_rollback('s', 'a test')});
ok(point_reached($fourth, 'rollback_fenced'), 'green is fenced, blue is not open yet');
my $fifth = standby('fifth', $fourth);
$fourth->stop('immediate');
$point->{run}->kill_kill;
$fifth->promote;
like(held_why($fifth), qr/promoted/, 'promoted in the midst of a rollback: held');
($rc, $out, $err) = $blue->psql('postgres', q{UPDATE item SET v = 'x'});
isnt($rc, 0, 'blue is still fenced');
($rc, $out, $err) = $fifth->psql('postgres', q{UPDATE item SET v = 'x'});
isnt($rc, 0, 'and so is green');
$fifth->safe_psql('postgres', q{SELECT bcmig_adopt('s')});
wait_sync($fifth, 's', 'rolled_back');
is(sides($fifth), '0 blue fenced', 'adopted, it is rolled back');
is($front->green_share, 0, 'readers are on blue');
$blue->safe_psql('postgres', q{UPDATE item SET v = 'blue again' WHERE id = 100011});
same($fifth, 'rolled back');
done_testing();
