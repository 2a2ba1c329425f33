# Configuration of a sync that runs: tables come and go, options change, wrong
# commands are refused and leave everything as it was.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE a (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE b (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE c (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO a SELECT i, 'a' || i FROM generate_series(1, 5000) i;
	INSERT INTO b SELECT i, 'b' || i FROM generate_series(1, 5000) i;
	INSERT INTO c SELECT i, 'c' || i FROM generate_series(1, 30000) i;
	});
track($blue, $_) foreach qw(a b c);
connect_blue($green, $blue, 's');

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

# SQLSTATE of a statement, and NOTICEs and hint in $said
my $said;

sub state_of_error
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	$said = $err;
	return $err =~ /ERROR:\s+(\w{5}):/ ? $1 : 'none';
}

sub wait_sync_state
{
	my ($state) = @_;
	return $green->poll_query_until('postgres', "SELECT state = '$state' FROM bcmig.sync_status WHERE sync = 's'");
}

# --- start and stop ---
is(state_of_error(q{SELECT bcmig_start_sync('s')}), 'BM009', 'a sync without tables is not started');
like($said, qr/HINT:.*bcmig_add_table/, 'the hint is the next statement');
on_green(q{SELECT bcmig_add_table('s', 'a')});
is(state_of_error(q{SELECT bcmig_sync_now('s')}), 'BM009', 'work out of turn needs a running sync');
is(state_of_error(q{BEGIN; SELECT bcmig_start_sync('s'); ROLLBACK}), 'none', 'a start can be rolled back');
is(on_green(q{SELECT wanted FROM bcmig.sync}), 'stopped', 'and nothing was asked for');
start_sync($green, 's');
wait_sync($green, 's');
is(state_of_error(q{SELECT bcmig_start_sync('s')}), 'none', 'started twice: no error');
like($said, qr/NOTICE:.*already started/, 'but a notice');
is(on_green(q{SELECT count(*) FROM bcmig.audit_log WHERE event = 'bcmig_start_sync'}), '1', 'the second start is not a command');
is(state_of_error(q{SELECT * FROM bcmig_drop_sync('s')}), 'BM009', 'a running sync is not dropped');
like($said, qr/HINT:.*bcmig_stop_sync/, 'the hint is the next statement');
is(state_of_error(q{SELECT bcmig_remove_environment('blue')}), 'BM009', 'an environment in use is not removed');
all_equal($blue, $green, 'after refused commands', 'a');

# --- a table is added while the sync runs and blue changes ---
my $loader = $blue->background_psql('postgres', on_error_die => 1);
$loader->query_safe('BEGIN; UPDATE b SET v = v || \' open\' WHERE id % 10 = 0');
on_green(q{SELECT bcmig_add_table('s', 'b')});
ok(wait_state($green, 'public.b', 'streaming'), 'the added table streams');
on_blue(q{UPDATE a SET v = v || ' more' WHERE id % 7 = 0});
$loader->query_safe('COMMIT');
$loader->quit;
wait_sync($green, 's');
all_equal($blue, $green, 'a table was added', 'a', 'b');

# an open transaction that configures stops no worker
{
	my $dba = $green->background_psql('postgres', on_error_die => 1);
	$dba->query_safe(q{BEGIN; SELECT bcmig_alter_sync('s', '{"batch_rows": 10}'); SELECT bcmig_add_table('s', 'c');});
	on_blue(q{UPDATE a SET v = 'while a dba thinks' WHERE id = 1; DELETE FROM b WHERE id = 1});
	wait_sync($green, 's');
	is(on_green(q{SELECT v FROM a WHERE id = 1}), 'while a dba thinks', 'work goes on beside an open transaction of a DBA');
	$dba->query_safe('ROLLBACK');
	$dba->quit;
	is(on_green(q{SELECT count(*) FROM pg_class WHERE relname = 'c' OR relname = 'feed_3'}), '0', 'a rolled back addition leaves nothing');
}

# --- removed while it is being copied: the worker lets go, the rest goes on ---
{
	my $hold = hold_point($green, 'copy_chunk_loaded');
	on_green(q{ALTER SYSTEM SET bcmig.debug_points = 'copy_chunk_loaded'});
	$green->reload;
	my $target = on_green(q{SELECT bcmig_add_table('s', 'c', options => '{"chunk_rows": 1000}')});
	is($target, 'public.c', 'the target is named');
	ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = 7268}), 'its copy is under way');
	my $remover = $green->background_psql('postgres', on_error_die => 1);
	$remover->query_until(qr/asked/, qq{\\echo asked\nSELECT bcmig_remove_table('s', 'c');\n});
	on_green(q{ALTER SYSTEM RESET bcmig.debug_points});
	$green->reload;
	$hold->quit;
	$remover->quit;
	is(on_green(q{SELECT count(*) FROM bcmig.sync_table WHERE source_table = 'c'}), '0', 'the table is out of the sync');
	is(on_green(q{SELECT count(*) FROM pg_class WHERE relnamespace = 'bcmig'::regnamespace AND relkind = 'f' AND relname NOT LIKE 'feed_env%'}), '2', 'its feed is gone');
	is(on_green(q{SELECT count(*) FROM pg_class WHERE oid = 'public.c'::regclass}), '1', 'the green table stays');
	ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.live_tables() WHERE table_id NOT IN (SELECT table_id FROM bcmig.sync_table)}), 'no live entry is left');
	on_blue(q{UPDATE a SET v = 'after removal' WHERE id = 2});
	wait_sync($green, 's');
	all_equal($blue, $green, 'a table was removed', 'a', 'b');
}

# --- a removed table comes back into the green table it had ---
is(state_of_error(q{SELECT bcmig_add_table('s', 'c')}), 'BM002', 'a target that exists has to be named');
on_green(q{TRUNCATE c; ALTER TABLE c ADD PRIMARY KEY (id)}) if on_green(q{SELECT count(*) FROM pg_index WHERE indrelid = 'c'::regclass}) eq '0';
on_green(q{TRUNCATE c; SELECT bcmig_add_table('s', 'c', 'c')});
wait_sync($green, 's');
all_equal($blue, $green, 'a table came back', 'c');

# --- options of a running sync ---
on_green(q{SELECT bcmig_alter_table('s', 'b', '{"enabled": false}')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.worker_status WHERE target = 'public.b'}), 'nobody works on a disabled table');
on_blue(q{UPDATE b SET v = 'not yet' WHERE id = 2; UPDATE a SET v = 'yes' WHERE id = 3});
ok($green->poll_query_until('postgres', q{SELECT v = 'yes' FROM a WHERE id = 3}), 'other tables go on');
isnt(on_green(q{SELECT v FROM b WHERE id = 2}), 'not yet', 'the disabled one does not');
on_green(q{SELECT bcmig_alter_table('s', 'b', '{"enabled": null}')});
wait_sync($green, 's');
all_equal($blue, $green, 'enabled again', 'a', 'b', 'c');
is(state_of_error(q{SELECT bcmig_alter_table('s', 'b', '{"bach_rows": 1}')}), 'BM003', 'an unknown option is refused');
like($said, qr/batch_rows/, 'the near one is named');
on_green(q{SELECT bcmig_alter_sync('s', '{"workers": 1, "batch_rows": 100}')});
on_blue(q{UPDATE a SET v = v || '!'; UPDATE b SET v = v || '!'; UPDATE c SET v = v || '!'});
wait_sync($green, 's');
all_equal($blue, $green, 'one worker, small batches', 'a', 'b', 'c');

# --- suspend, resume, resync ---
on_green(q{SELECT bcmig_suspend_table('s', 'a')});
on_blue(q{UPDATE a SET v = 'suspended' WHERE id = 4; UPDATE c SET v = 'on' WHERE id = 4});
ok($green->poll_query_until('postgres', q{SELECT v = 'on' FROM c WHERE id = 4}), 'other tables go on beside a suspended one');
isnt(on_green(q{SELECT v FROM a WHERE id = 4}), 'suspended', 'the suspended one does not');
is(on_green(q{SELECT count(*) FROM bcmig.sync_status WHERE lag IS NULL AND synced_through IS NULL}), '1', 'lag is unknown with a suspended table');
is(state_of_error(q{CALL bcmig_wait_sync('s', 'caught_up', '10 s')}), 'BM011', 'waiting says that it cannot get there');
on_green(q{SELECT bcmig_resume_table('s', 'a')});
wait_sync($green, 's');
green_behind($green, q{DELETE FROM c WHERE id = 5; UPDATE c SET v = 'spoiled' WHERE id = 6; INSERT INTO c (id, v) VALUES (-1, 'stranger')});
on_green(q{SELECT bcmig_resync_table('s', 'c')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM c WHERE id = -1}), 'a resync sweeps');
wait_sync($green, 's');
all_equal($blue, $green, 'after suspend and resync', 'a', 'b', 'c');

# --- stop, change on blue, stop again, start: on from the same position ---
on_green(q{SELECT bcmig_stop_sync('s')});
ok(wait_sync_state('stopped'), 'stopped');
is(state_of_error(q{SELECT bcmig_stop_sync('s')}), 'none', 'stopped twice: no error');
like($said, qr/NOTICE:.*already stopped/, 'but a notice');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'bcmig poller'}), 'nobody polls a blue that no running sync needs');
my $copied = on_green(q{SELECT string_agg(copy_finished::text, ' ' ORDER BY table_id) FROM bcmig.table_state});
on_blue(q{UPDATE a SET v = 'stopped' WHERE id < 100; DELETE FROM b WHERE id BETWEEN 10 AND 20; INSERT INTO c VALUES (-7, 'new', 0)});
is(on_green(q{SELECT count(*) FROM a WHERE v = 'stopped'}), '0', 'a stopped sync moves nothing');
start_sync($green, 's');
wait_sync($green, 's');
is(on_green(q{SELECT string_agg(copy_finished::text, ' ' ORDER BY table_id) FROM bcmig.table_state}), $copied, 'nothing was copied again');
all_equal($blue, $green, 'after stop and start', 'a', 'b', 'c');

# --- drop ---
on_green(q{SELECT bcmig_stop_sync('s')});
is(on_green(q{SELECT count(*) > 3 FROM bcmig_drop_sync('s', true, dry_run => true)}), 't', 'a dry run says what would be done');
is(on_green(q{SELECT count(*) FROM bcmig.sync_table}), '3', 'and does nothing');
on_green(q{SELECT bcmig_drop_sync('s', drop_tables => true)});
is(on_green(q{SELECT count(*) FROM pg_class WHERE relname IN ('a', 'b') OR relnamespace = 'bcmig'::regnamespace AND relkind = 'f' AND relname NOT LIKE 'feed_env%'}), '0', 'tables made by bcmig and feeds are gone');
is(on_green(q{SELECT count(*) FROM pg_class WHERE relname = 'c'}), '1', 'a table it was given stays');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.live_tables()}), 'no live entry is left');
is(on_green(q{SELECT count(*) > 10 FROM bcmig.audit_log}), 't', 'the audit log stays');

done_testing();
