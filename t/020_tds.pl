# A blue on SQL Server, through real tds_fdw: the stand-in test/tds_server answers.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Utils;
use TdsServer;
use Test::More;

my $server = new_sql_server();
my $blue = $server->{node};
my $green = new_green();

my $columns = q{"timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) NOT NULL DEFAULT '', "Name" varchar(100) NOT NULL DEFAULT '', "Credit Limit (LCY)" numeric(38,20) NOT NULL DEFAULT 0,
	"Picture" bytea, "Last Date" timestamp(3) NOT NULL DEFAULT '1753-01-01', "Blocked" smallint NOT NULL DEFAULT 0, "Entry" bigint NOT NULL DEFAULT 0, "$systemId" uuid NOT NULL DEFAULT gen_random_uuid(), PRIMARY KEY ("No_")};
my $app = '437dbf0e-84ff-417a-965d-ed2bb9650972';
my %name = (
	customer => "CRONUS International Ltd_\$Customer\$$app",
	item => "My Company\$It]em's \"x\"\$$app",
	entry => "CRONUS International Ltd_\$Detailed Cust_ Ledg_ Entry\$$app",
	heap => 'CRONUS International Ltd_$Heap');
my @tables = sort keys %name;
$blue->safe_psql('postgres', qq{
	CREATE TABLE customer ($columns);
	CREATE TABLE item ($columns);
	CREATE TABLE entry ("timestamp" bigint NOT NULL DEFAULT 0, "Kind" int NOT NULL, "Date" timestamp(3) NOT NULL, "Id" uuid NOT NULL, amount numeric(38,20) NOT NULL, PRIMARY KEY ("Kind", "Date", "Id"));
	CREATE TABLE heap (a int, b varchar(10));});
$blue->safe_psql('postgres', q{
	INSERT INTO customer ("No_", "Name", "Credit Limit (LCY)", "Picture", "Last Date", "Blocked", "Entry") SELECT 'C' || i, 'Näme ''' || i || ' 😀', i / 3.0,
		CASE i % 4 WHEN 0 THEN NULL WHEN 1 THEN ''::bytea WHEN 2 THEN '\x02457d5bf348cdc9c90700'::bytea ELSE decode(repeat('00ff', 50000), 'hex') END,
		timestamp '2026-01-01' + i * interval '1 hour' + CASE i % 3 WHEN 1 THEN interval '0.003 s' WHEN 2 THEN interval '0.007 s' ELSE interval '0' END, i % 2, i * 10000000000
	FROM generate_series(1, 500) i;
	INSERT INTO customer ("No_", "Name", "Credit Limit (LCY)", "Last Date") VALUES ('', E'\x02\x07', 999999999999999999.12345678901234567890, '9999-12-31 23:59:59.997'), ('c1', 'other case', -0.00000000000000000001, '1754-01-01');
	INSERT INTO item SELECT * FROM customer;
	INSERT INTO entry SELECT 0, i % 5, timestamp '2026-01-01' + i % 50 * interval '1 day', gen_random_uuid(), -i / 7.0 FROM generate_series(1, 2000) i;
	INSERT INTO heap SELECT i % 10, CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'x' END FROM generate_series(1, 100) i;});
foreach my $table (@tables)
{
	my $tracked = $table eq 'item' ? 'false' : 'true';
	$blue->safe_psql('postgres', "SELECT mssql.register('$table', \$n\$$name{$table}\$n\$, $tracked)");
}

connect_sql_server($green, $server, 's', '{"max_delete_percent": 60}');
is($green->safe_psql('postgres', q{SELECT string_agg(check_name || ':' || status, ' ') FROM bcmig_check_environment('blue') WHERE status <> 'ok'}), '', 'the environment passes its checks');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', \$n\$$name{$_}\$n\$, 'public.$_')") foreach @tables;
is($green->safe_psql('postgres', q{SELECT string_agg(target_table || ':' || capture, ' ' ORDER BY target_table) FROM bcmig.sync_table}), 'customer:change_tracking entry:change_tracking heap:snapshot item:rowversion', 'capture as blue tracks each table');
start_sync($green, 's');
wait_sync($green, 's');
# what blue has no index for, windows by row version look for all the same
ok($green->poll_query_until('postgres', q{SELECT string_agg(c.relname, ' ') = 'item' FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN bcmig.sync_table t ON t.target_table = c.relname
	JOIN bcmig.column_map m ON m.table_id = t.table_id AND m.row_identity JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = m.target_column AND a.attnum = i.indkey[0]}),
	'renamed rows are looked for by an index');

sub equal
{
	my ($what, @which) = @_;
	foreach my $table (@which ? @which : @tables)
	{
		is(compare_table($blue, $green, $table), '', "$what: $table");
	}
}
equal('copied');
is($green->safe_psql('postgres', q{SELECT count(*) FROM customer WHERE "Picture" = ''}), '125', q{'' is not NULL});

$blue->safe_psql('postgres', q{
	UPDATE customer SET "Name" = 'changed' WHERE "Blocked" = 0; DELETE FROM customer WHERE "No_" LIKE 'C1%'; UPDATE customer SET "No_" = 'R' || "No_" WHERE "No_" LIKE 'C2%';
	UPDATE item SET "Name" = 'changed' WHERE "Blocked" = 0; UPDATE item SET "No_" = 'R' || "No_" WHERE "No_" LIKE 'C2%';
	UPDATE entry SET amount = amount + 1 WHERE "Kind" = 1; DELETE FROM entry WHERE "Kind" = 2; INSERT INTO entry SELECT 0, 9, '1753-01-01', gen_random_uuid(), 1 FROM generate_series(1, 100);
	INSERT INTO heap VALUES (NULL, NULL);});
wait_sync($green, 's');
equal('streamed', qw(customer entry item));
$green->safe_psql('postgres', q{SELECT bcmig_sync_now('s', 'public.heap')});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 101 FROM heap'), 'a heap is kept by compare');
# deletes without change tracking come by sweep
$blue->safe_psql('postgres', q{DELETE FROM item WHERE "No_" LIKE 'C3%'});
$green->safe_psql('postgres', q{SELECT bcmig_sweep_deletes('s', 'public.item')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM item WHERE "No_" LIKE 'C3%'}), 'a key sweep finds deletes of a table without change tracking');
equal('swept', 'item');

# late commits: what was stamped first commits last, with and without change tracking
my $late = $blue->background_psql('postgres', on_error_die => 1);
$late->query_safe(q{BEGIN; UPDATE customer SET "Name" = 'late' WHERE "No_" = 'C4'; UPDATE item SET "Name" = 'late' WHERE "No_" = 'C4'; DELETE FROM entry WHERE "Kind" = 3});
$blue->safe_psql('postgres', q{UPDATE customer SET "Name" = 'early' WHERE "No_" = 'C5'; UPDATE item SET "Name" = 'early' WHERE "No_" = 'C5';});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 2 FROM (SELECT FROM customer WHERE "Name" = 'early' UNION ALL SELECT FROM item WHERE "Name" = 'early') x}), 'what is committed above a held horizon arrives');
ok($green->poll_query_until('postgres', q{SELECT horizon < top AND blocked_by LIKE 'transaction of%' FROM bcmig.environment_status WHERE environment = 'blue'}), 'the horizon is held, and by whom is said');
$late->query_safe('COMMIT');
$late->quit;
wait_sync($green, 's');
equal('late commit', qw(customer entry item));

# truncate resyncs the table; nothing else
$blue->safe_psql('postgres', q{TRUNCATE entry; INSERT INTO entry VALUES (0, 1, '2026-01-01', gen_random_uuid(), 5)});
ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM bcmig.timeline WHERE target = 'public.entry' AND event = 'resync'}), 'TRUNCATE on blue: resync');
ok($green->poll_query_until('postgres', q{SELECT state = 'suspended' FROM bcmig.table_status WHERE target = 'public.entry'}), 'which would delete nearly everything: the breaker asks');
$green->safe_psql('postgres', q{SELECT bcmig_resume_table('s', 'public.entry')});
wait_sync($green, 's');
equal('truncated', 'entry');

# errors of SQL Server reach the DBA with number and text; the password never
sql_setting($server, 'fault_1', 'purpose=window=>once fail 1205 Transaction was deadlocked on lock resources.');
$blue->safe_psql('postgres', q{UPDATE customer SET "Name" = 'after a deadlock' WHERE "No_" = 'C5'});
wait_sync($green, 's');
is($green->safe_psql('postgres', q{SELECT last_error FROM bcmig.table_status WHERE last_error LIKE '%1205%'}), '40P01: SQL Server error 1205: Transaction was deadlocked on lock resources.', 'a deadlock is tried again, and was written down');
equal('deadlock', 'customer');
my ($ret, $out, $err) = $green->psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER blue OPTIONS (SET password 'wrong-pass-word'); SELECT status, detail, fix FROM bcmig_check_environment('blue') WHERE check_name = 'connect'});
like($out, qr/fail\|blue behind server "blue" cannot be reached: SQL Server error 18456: Login failed for user 'bcmig_reader'/, 'a wrong password: number and text');
$green->safe_psql('postgres', q{ALTER USER MAPPING FOR CURRENT_USER SERVER blue OPTIONS (SET password 'secret')});
unlike(slurp_file($green->logfile) =~ s/.*(?:statement:|STATEMENT:).*//gr, qr/wrong-pass-word|'secret'/, 'no password in the log');
wait_sync($green, 's');

# changes that were cleaned up while nobody read them: the table is read again
$green->safe_psql('postgres', q{SELECT bcmig_stop_sync('s')});
ok($green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_status}), 'stopped');
$blue->safe_psql('postgres', q{UPDATE customer SET "Name" = 'expired' WHERE "Blocked" = 1; DELETE FROM customer WHERE "No_" = 'C7';
	UPDATE mssql.object SET min_valid = (SELECT version FROM mssql.ct_current) WHERE rel = 'customer'::regclass; DELETE FROM mssql.change WHERE object_id = mssql.object_id((SELECT name FROM mssql.object WHERE rel = 'customer'::regclass))});
start_sync($green, 's');
ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM bcmig.timeline WHERE target = 'public.customer' AND event = 'resync' AND detail LIKE '%have expired%'}), 'expired changes: resync');
wait_sync($green, 's');
equal('expired', 'customer');

# another fork of the database is another history
sql_setting($server, 'recovery_fork_guid', '11111111-2222-3333-4444-555555555555');
ok($green->poll_query_until('postgres', q{SELECT count(DISTINCT target) >= 3 FROM bcmig.timeline WHERE event = 'resync' AND detail LIKE '%another database or history%'}), 'another recovery fork: all tables are read again');
wait_sync($green, 's');
equal('after a restore', qw(customer entry item));
is($green->safe_psql('postgres', 'SELECT count(*) FROM bcmig.quarantine'), '0', 'nothing in quarantine');

TdsServer::stop_server($server);
done_testing();
