# A company of 2,000 tables on a server with default settings.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use TdsServer;
use Test::More;

my $server = new_sql_server();
my $blue = $server->{node};
my $green = new_green();
my $app = '437dbf0e-84ff-417a-965d-ed2bb9650972';

$blue->safe_psql('postgres', qq{
	CREATE TABLE company ("timestamp" bigint NOT NULL DEFAULT 0, "Name" varchar(30) PRIMARY KEY);
	SELECT mssql.register('company', 'Company'); INSERT INTO company ("Name") VALUES ('Big');});
# in lots: the stand-in's own server has default settings, too
for my $lot (0 .. 3)
{
	$blue->safe_psql('postgres', qq{
		DO \$\$ BEGIN FOR i IN 1 .. 100 LOOP
			EXECUTE format('CREATE TABLE t%1\$s ("timestamp" bigint NOT NULL DEFAULT 0, "Entry No_" int PRIMARY KEY, "Text" varchar(50) NOT NULL DEFAULT '''', "\$systemId" uuid NOT NULL DEFAULT gen_random_uuid())', $lot * 100 + i);
			PERFORM mssql.register(format('t%s', $lot * 100 + i)::regclass, format('Big\$Table %s\$$app', $lot * 100 + i));
		END LOOP; END \$\$;});
}
$blue->safe_psql('postgres', join(';', map { "INSERT INTO t$_ SELECT 0, i, 'r' || i FROM generate_series(1, 20) i" } 1 .. 60));

connect_sql_server($green, $server, 's');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig_add_company('s', 'Big')}), '400', 'added');
is($green->safe_psql('postgres', q{SELECT string_agg(check_name || ': ' || detail, E'\n') FROM bcmig_preflight('s') WHERE status = 'fail'}), '', 'preflight');
my $started = time;
start_sync($green, 's');
wait_sync($green, 's');
note(sprintf('copied and streaming after %d s', time - $started));
is($green->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE state = 'streaming'), sum(rows_copied) FROM bcmig.table_status}), '400|1200', 'every table streams');
is($green->safe_psql('postgres', q{SELECT sum((xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM big.%I', target_table), false, true, '')))[1]::text::int) FROM bcmig.sync_table WHERE target_table ~ '^table_(1|2)?.?.$'}),
	$blue->safe_psql('postgres', q{SELECT 20 * count(*) FROM generate_series(1, 60) i WHERE 'table_' || i ~ '^table_(1|2)?.?.$'}), 'with their rows');
$blue->safe_psql('postgres', q{INSERT INTO t399 VALUES (0, 1, 'late')});
wait_sync($green, 's');
is($green->safe_psql('postgres', q{SELECT text FROM big.table_399}), 'late', 'an empty table gets a row');
$green->safe_psql('postgres', q{SELECT bcmig_stop_sync('s')});
is($green->safe_psql('postgres', q{SELECT bcmig_remove_company('s', 'Big')}), '400', 'removed');
$green->safe_psql('postgres', q{SELECT bcmig.wake()});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_class WHERE relname ~ '^feed_[0-9]+$'}), 'their feeds go');

TdsServer::stop_server($server);
done_testing();
