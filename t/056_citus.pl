# A table distributed by Citus is an empty shell: a row written to its own file is
# lost.  Citus is not packaged for Debian; test/fake_citus stands in for it.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Cwd qw(abs_path);
use File::Copy qw(copy);
use PostgreSQL::Test::Utils;
use Test::More;

my $source = ($ENV{BCMIG_SOURCE} // '.') . '/test/fake_citus';
my $library = abs_path(PostgreSQL::Test::Utils::tempdir()) . '/fake_citus.so';
chomp(my $include = `pg_config --includedir-server`);
chomp(my $share = `pg_config --sharedir`);
system_or_bail('cc', '-Wall', '-Werror', '-O1', '-g', '-fPIC', '-shared', "-I$include", '-o', $library, "$source/fake_citus.c");
copy("$source/$_", "$share/extension/$_") or BAIL_OUT("$share/extension/$_: $!") foreach qw(citus.control citus--1.0.sql);

my $blue = new_blue();
my $green = new_green('green', 'bcmig.max_workers = 4', 'restart_after_crash = on');
my $conf = "shared_preload_libraries = 'bcmig,$library'";

$blue->safe_psql('postgres', q{
	CREATE TABLE entry (no int, code varchar(10), amount numeric(38,20), v text, b bytea, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (no, code));
	INSERT INTO entry SELECT i, 'C' || i % 7, i / 7.0, nullif('v' || i, 'v7'), decode(repeat('00ff', i % 5), 'hex'), 0 FROM generate_series(1, 3000) i;
	CREATE TABLE plain (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO plain SELECT i, 'v', 0 FROM generate_series(1, 1000) i;
	CREATE TABLE later (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO later SELECT i, 'v', 0 FROM generate_series(1, 1000) i;
	CREATE TABLE stamped (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE untracked (id int PRIMARY KEY, v text);});
track($blue, $_) foreach qw(entry plain later);
track($blue, 'stamped', 'rowversion');
connect_blue($green, $blue, 's', '{"sweep_interval": "1 h", "max_delete_percent": 100}');
$green->append_conf('postgresql.conf', $conf);
$green->restart;
$green->safe_psql('postgres', q{
	CREATE EXTENSION citus;
	CREATE TABLE entry (no int, code varchar(10), amount numeric(38,20), v text, b bytea, bc_rowversion bigint, PRIMARY KEY (no, code));
	CREATE TABLE stamped (id int PRIMARY KEY, v text, bc_rowversion bigint);
	SELECT create_distributed_table(t, 'no') FROM unnest('{entry,stamped}'::regclass[]) t;});

my ($ret, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\nSELECT bcmig_add_table('s', 'stamped', 'stamped')");
like($err, qr/BM010: .*distributed by Citus, which takes capture change_tracking/, 'a capture that needs joins with rows of ours is refused');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'entry', 'entry', '{"chunk_rows": 1000}'); SELECT bcmig_add_table('s', 'plain'); SELECT bcmig_add_table('s', 'later')});
$green->safe_psql('postgres', q{SELECT create_distributed_table('later', 'id')});	# made by bcmig, distributed by its owner

$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'untracked'); SELECT create_distributed_table('untracked', 'id')});
is($green->safe_psql('postgres', q{SELECT check_name, status, detail ~ 'Captured by snapshot' FROM bcmig_preflight('s') WHERE status = 'fail'}), 'target tables|fail|t', 'preflight sees a table that was distributed after it was added');
$green->safe_psql('postgres', q{SELECT bcmig_remove_table('s', 'untracked')});
($ret, $out, $err) = $green->psql('postgres', q{SELECT bcmig_alter_table('s', 'entry', '{"capture": "snapshot"}')});
like($err, qr/public.entry cannot be captured by snapshot/, 'nor can its capture be changed to one');

my @tables = qw(entry plain later);
# bytes in a table's own file
sub own_file { $green->safe_psql('postgres', "SELECT pg_relation_size('$_[0]')") }

sub are_in_shards
{
	my ($when) = @_;
	all_equal($blue, $green, $when, @tables);
	is(own_file($_), '0', "$when: nothing is in the shell of $_") foreach qw(entry later);
	is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.quarantine}), '0', "$when: nothing is in quarantine");
}
start_sync($green, 's');
wait_sync($green, 's');
are_in_shards('copied');
cmp_ok(own_file('plain'), '>', 0, 'a plain table is where it was');
is($green->safe_psql('postgres', q{SELECT sum(rows) FROM bcmig.copy_chunk JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'entry'}), '3000', 'and every row was counted once');

$blue->safe_psql('postgres', q{
	BEGIN;
	INSERT INTO entry SELECT i, 'N', NULL, '', NULL, 0 FROM generate_series(5001, 5600) i;
	UPDATE entry SET v = 'changed', amount = 0.00000000000000000001 WHERE no % 10 = 1;
	UPDATE entry SET code = 'K' || no WHERE no % 10 = 4;
	DELETE FROM entry WHERE no % 10 = 5;
	UPDATE later SET v = v || '!'; DELETE FROM later WHERE id % 4 = 0; UPDATE later SET id = id + 5000 WHERE id % 4 = 1;
	COMMIT;});
wait_sync($green, 's');
are_in_shards('insert, update, delete, other keys');

# refused by the shard
$green->safe_psql('postgres', q{ALTER TABLE entry_102008 ADD CONSTRAINT c CHECK (v <> 'bad')});
$blue->safe_psql('postgres', q{UPDATE entry SET v = CASE WHEN no IN (3, 11) THEN 'bad' ELSE 'good' END WHERE no < 50});
wait_sync($green, 's');
is($green->safe_psql('postgres', q{SELECT string_agg((key->>0) || ':' || sqlstate, ' ' ORDER BY (key->>0)::int) FROM bcmig.quarantine}), '3:23514 11:23514', 'rows the shard refuses are in quarantine');
$green->safe_psql('postgres', q{ALTER TABLE entry_102008 DROP CONSTRAINT c; SELECT bcmig_retry_quarantine('s')});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.quarantine'), 'a retry empties it');
wait_sync($green, 's');
are_in_shards('retried');

# killed between the rows of a window and its position
my $hold = hold_point($green, 'window_before_commit');
$green->safe_psql('postgres', q{ALTER SYSTEM SET bcmig.debug_points = 'window_before_commit'});
$green->reload;
$blue->safe_psql('postgres', q{UPDATE entry SET v = 'killed' WHERE no % 3 = 0});
ok(point_reached($green, 'window_before_commit'), 'a window is written, not committed');
ok(crash($green, $green->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE wait_event = 'advisory' AND backend_type = 'bcmig worker' LIMIT 1})), 'green is back');
$hold->quit;
$green->safe_psql('postgres', 'ALTER SYSTEM RESET bcmig.debug_points');
$green->reload;
wait_sync($green, 's');
are_in_shards('after a crash');

# differences are found; a resync sweeps away what blue does not have
$green->safe_psql('postgres', q{UPDATE entry_102008 SET v = 'altered' WHERE no = 100; DELETE FROM entry_102008 WHERE no = 102; INSERT INTO entry_102008 (no, code) VALUES (-1, '')});
my ($run, $verdict) = run_validation($green, 's', 'full');
isnt($verdict, 'ok', 'validation finds what was altered in a shard');
$green->safe_psql('postgres', q{SELECT bcmig_resync_table('s', 'entry')});
ok(wait_state($green, 'public.entry', 'streaming'), 'resynced');
wait_sync($green, 's');
are_in_shards('after the resync');
($run, $verdict) = run_validation($green, 's', 'full');
is($verdict, 'ok', 'validation: equal');

# the fence knows our statements by more than their table
($ret, $out, $err) = $green->psql('postgres', q{INSERT INTO entry AS bcmig_rows (no, code) VALUES (-2, '')});
like($err, qr/fenced by sync/, 'nobody else writes to it');

done_testing();
