# A SQL Server that answers slowly: copies wait, changes go on arriving.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use TdsServer;
use Test::More;

my $server = new_sql_server();
my $blue = $server->{node};
my $green = new_green();

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

on_blue(q{
	CREATE TABLE big ("timestamp" bigint NOT NULL DEFAULT 0, id int PRIMARY KEY, v varchar(50) NOT NULL DEFAULT '');
	INSERT INTO big (id, v) SELECT i, 'v' || i FROM generate_series(1, 2000) i;
	CREATE TABLE live (LIKE big INCLUDING ALL); INSERT INTO live SELECT * FROM big LIMIT 100;
	SELECT mssql.register('big', 'X$Big'), mssql.register('live', 'X$Live');});
connect_sql_server($green, $server, 's', '{"max_answer": "1s", "chunk_rows": 100, "workers": 2}');
on_green(q{SELECT bcmig_add_table('s', 'X$Live', 'public.live')});
start_sync($green, 's');
wait_sync($green, 's');
sql_setting($server, 'fault_1', 'purpose=poll=>delay 1.2');
ok($green->poll_query_until('postgres', q{SELECT throttled_since IS NOT NULL FROM bcmig.sync_status}), 'slow');
on_green(q{SELECT bcmig_add_table('s', 'X$Big', 'public.big')});
on_blue(q{UPDATE live SET v = 'meanwhile' WHERE id <= 10});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 10 FROM live WHERE v = 'meanwhile'}), 'changes arrive');
is(on_green(q{SELECT s.state, (SELECT count(*) FROM bcmig.copy_chunk JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'big'), y.throttled_since IS NOT NULL
	FROM bcmig.table_status s, bcmig.sync_status y WHERE target = 'public.big'}), 'pending|0|t', 'no copy is begun');
sql_setting($server, 'fault_1', undef);
wait_sync($green, 's');
all_equal($blue, $green, 'well again', qw(big live));

done_testing();
