# SQL Server that fails, cuts off, stalls or withholds: nothing is lost, nothing
# half read is taken for whole.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use TdsServer;
use Test::More;

my $server = new_sql_server();
my $blue = $server->{node};
my $green = new_green();
$blue->safe_psql('postgres', q{
	CREATE TABLE big ("timestamp" bigint NOT NULL DEFAULT 0, id int PRIMARY KEY, v varchar(50) NOT NULL DEFAULT '');
	INSERT INTO big (id, v) SELECT i, 'v' || i FROM generate_series(1, 3000) i;
	CREATE TABLE gone (LIKE big INCLUDING ALL); INSERT INTO gone SELECT * FROM big;
	SELECT mssql.register('big', 'X$Big'), mssql.register('gone', 'X$Gone');});
connect_sql_server($green, $server, 's', '{"chunk_rows": 1000}');

# what the preflight must not let pass, and how to mend it
sub check
{
	my ($setting, $value, $name, $status, $fix) = @_;
	my $old = $blue->safe_psql('postgres', "SELECT value FROM mssql.setting WHERE name = '$setting'");
	sql_setting($server, $setting, $value);
	like($green->safe_psql('postgres', "SELECT status, fix FROM bcmig_check_environment('blue') WHERE check_name = '$name'"), qr/^$status\|.*$fix/, "$name: $status, with the fix");
	sql_setting($server, $setting, $old);
}
check('deny', 'VIEW CHANGE TRACKING', 'blue permission VIEW CHANGE TRACKING', 'fail', 'GRANT VIEW CHANGE TRACKING ON SCHEMA::dbo TO \[bcmig_reader\]');
check('deny', 'VIEW DATABASE STATE', 'blue permission VIEW DATABASE STATE', 'warn', 'GRANT VIEW DATABASE STATE');
check('row_policies', '1', 'blue row level security', 'fail', 'SECURITY POLICY');
check('delayed_durability', '2', 'blue durability', 'fail', 'DELAYED_DURABILITY = DISABLED');
check('change_tracking', '0', 'blue change tracking', 'warn', 'SET CHANGE_TRACKING = ON');
check('retention_days', '1', 'blue retention', 'warn', 'CHANGE_RETENTION = 7 DAYS');
check('snapshot_isolation_state', '0', 'blue snapshot isolation', 'warn', 'ALLOW_SNAPSHOT_ISOLATION ON');
check('updateability', 'READ_ONLY', 'blue is a primary', 'fail', '');
like($green->safe_psql('postgres', q{ALTER SERVER blue OPTIONS (SET database 'Nowhere'); SELECT status, detail, fix FROM bcmig_check_environment('blue') WHERE check_name = 'connect'}),
	qr/fail\|.*error 4060.*\|Check the option database/, 'a wrong database');
like($green->safe_psql('postgres', q{ALTER SERVER blue OPTIONS (SET database 'BC', SET port '1'); SELECT status, detail FROM bcmig_check_environment('blue') WHERE check_name = 'connect'}),
	qr/fail\|blue behind server "blue" cannot be reached/, 'a wrong port');
$green->safe_psql('postgres', "ALTER SERVER blue OPTIONS (SET port '$server->{port}')");

$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'X$Big', 'public.big'), bcmig_add_table('s', 'X$Gone', 'public.gone')});
sql_setting($server, 'fault_1', 'table=X.Big purpose=chunk=>once cut 400');
start_sync($green, 's');
wait_sync($green, 's');
all_equal($blue, $green, 'a chunk cut off in the middle', 'big', 'gone');
like($green->safe_psql('postgres', q{SELECT string_agg(detail, ' ') FROM bcmig.timeline WHERE kind = 'error'}) . $green->safe_psql('postgres', q{SELECT string_agg(last_error, ' ') FROM bcmig.table_status}), qr/connection broke/, 'it was cut off');

my $round = 0;
foreach my $fault ('once cut 5', 'once cutfail 5 1205 Transaction was deadlocked', 'once cutfail 0 8630 Internal query processor error', 'once fail 1222 Lock request time out period exceeded', 'once drop')
{
	$round++;
	sql_setting($server, 'fault_1', "table=X.Big purpose=window=>$fault");
	$blue->safe_psql('postgres', "UPDATE big SET v = 'round $round' WHERE id <= 50; DELETE FROM big WHERE id = 100 + $round; INSERT INTO big (id) VALUES (5000 + $round)");
	wait_sync($green, 's');
	is(compare_table($blue, $green, 'big'), '', "a window with $fault");
	is($blue->safe_psql('postgres', q{SELECT count(*) FROM mssql.setting WHERE name = 'fault_1'}), '0', 'the fault was met');
}
sql_setting($server, 'fault_1', 'purpose=poll=>once drop');
$blue->safe_psql('postgres', q{UPDATE big SET v = 'after a poll' WHERE id <= 50});
wait_sync($green, 's');
is(compare_table($blue, $green, 'big'), '', 'a poll cut off');

# a server that stalls: FreeTDS's timeout ends the wait, nothing is suspended
freetds_timeout(4);
sql_setting($server, 'fault_1', 'table=X.Big purpose=window=>once stall');
$blue->safe_psql('postgres', q{UPDATE big SET v = 'after a stall' WHERE id <= 50});
wait_sync($green, 's');
is(compare_table($blue, $green, 'big'), '', 'a window that stalled');
sql_setting($server, 'fault_1', 'purpose=poll=>stall');
ok($green->poll_query_until('postgres', q{SELECT NOT reachable FROM bcmig.environment_status WHERE environment = 'blue'}), 'a stalled poll: not reachable');
$green->stop('fast');
pass('a fast shutdown ends though the server stalls');
sql_setting($server, 'fault_1', undef);
$green->start;
wait_sync($green, 's');
is(compare_table($blue, $green, 'big'), '', 'equal again');

# a table that goes away is asked about, the other one goes on
$blue->safe_psql('postgres', q{DROP TABLE gone; UPDATE big SET v = 'goes on' WHERE id <= 10});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 10 FROM big WHERE v = 'goes on'}), 'other tables go on');
$green->safe_psql('postgres', q{SELECT bcmig_sync_now('s', 'public.gone')});
ok($green->poll_query_until('postgres', q{SELECT state = 'suspended' AND reason LIKE 'the source table vanished%208%' FROM bcmig.table_status WHERE target = 'public.gone'}), 'a table that vanished is suspended');
is($green->safe_psql('postgres', 'SELECT count(*) FROM gone'), '3000', 'and its rows stay');
# polls do not fail over it for ever
$green->poll_query_until('postgres', q{SELECT reachable FROM bcmig.environment_status WHERE environment = 'blue'});
$blue->safe_psql('postgres', q{UPDATE big SET v = 'once' WHERE id <= 10});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 10 FROM big WHERE v = 'once'}), 'a change after it');
my @poller = pids($green, 'bcmig poller');
foreach my $i (1 .. 5)
{
	$blue->safe_psql('postgres', "UPDATE big SET v = 'poll $i' WHERE id <= 10");
	$green->poll_query_until('postgres', "SELECT count(*) = 10 FROM big WHERE v = 'poll $i'");
}
is(join(' ', pids($green, 'bcmig poller')), join(' ', @poller), 'five more changes by the same poller');

TdsServer::stop_server($server);
done_testing();
