# bcmig_baseline: tables and answer times of both sides, held against each other
# in the migration report; a query runs with the rights of who registered it.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use JSON::PP;
use TdsServer;
use Test::More;

my $blue = new_blue();
my $green = new_green();

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }
sub error_of
{
	my ($sql, $role) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', ($role ? "SET ROLE $role; " : '') . "\\set VERBOSITY verbose\n$sql");
	return $err;
}
sub report { return decode_json(on_green(q{SELECT bcmig_migration_report(NULL, 'json')::jsonb}))->{baseline} }

on_blue(q{CREATE TABLE item (id int PRIMARY KEY, name text, price numeric(38,20), "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE INDEX ON item (name);
	INSERT INTO item SELECT i, 'n' || i, i, 0 FROM generate_series(1, 3000) i; ANALYZE item});
track($blue, 'item');
connect_blue($green, $blue, 's');
on_green(q{SELECT bcmig_add_table('s', 'item')});
start_sync($green, 's');
wait_sync($green, 's');
on_green('ANALYZE item');
is_deeply(report(), { baselines => [], queries => [], sizes => [] }, 'no baseline: nothing made up');

# --- registering ---
on_green(q{SELECT bcmig_add_baseline_query('items', 'SELECT * FROM public.item', 'SELECT * FROM public.item'),
	bcmig_add_baseline_query('slow', 'SELECT pg_sleep(0.01)', 'SELECT 1 FROM (SELECT pg_sleep(0.02)) x'),
	bcmig_add_baseline_query('broken', 'SELECT nothing', 'SELECT 1 / (SELECT count(*) FROM public.item WHERE id < 0)')});
like(error_of(q{SELECT bcmig_add_baseline_query('items', 'SELECT 1', 'SELECT 1')}), qr/BM002: .*"items" already.*HINT:  SELECT bcmig_remove_baseline_query/s, 'a name is taken once');
like(error_of("SELECT bcmig_add_baseline_query('x', 'SELECT 1', \$\$$_\$\$)"), qr/BM003|42601|42P01/, "not for green: $_") foreach 'DELETE FROM public.item', 'SELECT 1; SELECT 2', 'SELECT * FROM item', 'VACUUM', '';
like(error_of(q{SELECT bcmig_remove_baseline_query('nothing')}), qr/BM001:.*HINT/s, 'nothing to remove');

# --- both sides ---
is(on_green(q{SELECT bcmig_baseline('blue')}), '1', 'of blue');
is(on_green(q{SELECT bcmig_baseline('green')}), '2', 'of green');
is(on_green(q{SELECT side, target, rows, columns, indexes, bytes > 0 FROM bcmig.baseline_table JOIN bcmig.baseline USING (baseline_id) ORDER BY 1}),
	"blue|public.item|3000|" . on_blue(q{SELECT count(*) FROM pg_attribute WHERE attrelid = 'item'::regclass AND attnum > 0}) . "|1|t\n"
	. 'green|public.item|3000|' . on_green(q{SELECT count(*) FROM pg_attribute WHERE attrelid = 'item'::regclass AND attnum > 0}) . '|1|t', 'tables');
is(on_green('SELECT bytes = ' . on_blue(q{SELECT pg_total_relation_size('item')}) . q{ FROM bcmig.baseline_table WHERE baseline_id = 1}), 't', 'size of blue, with indexes');
is(on_green(q{SELECT bytes = pg_total_relation_size('item') FROM bcmig.baseline_table WHERE baseline_id = 2}), 't', 'and of green');
is(on_green(q{SELECT side, name, rows, ms > 0 AND fastest_ms <= ms AND ms <= slowest_ms, error IS NOT NULL FROM bcmig.baseline_time JOIN bcmig.baseline USING (baseline_id) ORDER BY 1, 2}),
	"blue|broken|||t\nblue|items|3000|t|f\nblue|slow|1|t|f\ngreen|broken|||t\ngreen|items|3000|t|f\ngreen|slow|1|t|f", 'answer times; a query that fails has none, and spoils no other');
is(on_green(q{SELECT min(ms) >= 10 FROM bcmig.baseline_time WHERE name = 'slow'}), 't', 'what takes 10 ms is not measured as less');
is(on_green(q{SELECT max(ms) < 10000 FROM bcmig.baseline_time WHERE name = 'slow'}), 't', 'nor is the time of all runs');
like(on_green(q{SELECT error FROM bcmig.baseline_time WHERE name = 'broken' AND baseline_id = 1}), qr/nothing/, 'why it failed on blue');
like(on_green(q{SELECT error FROM bcmig.baseline_time WHERE name = 'broken' AND baseline_id = 2}), qr/^22012: division by zero/, 'and on green');

# --- in the report ---
my $json = report();
is(join('|', map { "$_->{environment} $_->{side} $_->{tables} $_->{rows}" } @{ $json->{baselines} }), 'blue blue 1 3000|green green 1 3000', 'both are in the report');
my %time = map { $_->{query} => $_ } @{ $json->{queries} };
foreach my $name (qw(items slow))
{
	is($time{$name}{"$_->[0]_ms"}, on_green("SELECT ms FROM bcmig.baseline_time WHERE name = '$name' AND baseline_id = $_->[1]"), "$name of $_->[0]") foreach [ blue => 1 ], [ green => 2 ];
	is(sprintf('%.6f', $time{$name}{ratio_percent}), sprintf('%.6f', 100 * $time{$name}{green_ms} / $time{$name}{blue_ms}), "$name: green of blue");
}
is($time{broken}{ratio_percent}, undef, 'no ratio of what was not measured');
like($time{broken}{error}, qr/^blue: .*; green: /s, 'but why');
is($json->{sizes}[0]{target} . " $json->{sizes}[0]{blue_rows} $json->{sizes}[0]{green_rows}", 'public.item 3000 3000', 'tables side by side');

# a newer one counts; what is gone is unknown, not 0
on_blue('DROP INDEX item_name_idx');
on_green(q{SELECT bcmig_remove_baseline_query('broken'), bcmig_baseline('blue')});
$json = report();
is($json->{sizes}[0]{blue_indexes}, 0, 'the newest counts');
is(join(' ', map { $_->{query} } @{ $json->{queries} }), 'broken items slow', 'what green had measured stays');
is(on_green(q{SELECT count(*) FROM bcmig.baseline WHERE side = 'blue'}), 2, 'the older one stays too');
on_blue('ALTER TABLE item RENAME TO gone');
on_green(q{SELECT bcmig_baseline('blue')});
is(report()->{sizes}[0]{blue_rows}, undef, 'a table that is gone has no rows that are known');
on_blue('ALTER TABLE gone RENAME TO item');

# --- rights ---
on_green(q{CREATE ROLE clerk LOGIN; CREATE ROLE stranger;
	GRANT EXECUTE ON FUNCTION bcmig_add_baseline_query(text, text, text), bcmig_remove_baseline_query(text), bcmig_baseline(text) TO clerk; GRANT USAGE ON SCHEMA bcmig TO clerk;
	CREATE TABLE secret (v text); INSERT INTO secret VALUES ('x');
	CREATE FUNCTION clerk_write() RETURNS int LANGUAGE sql AS 'INSERT INTO public.secret VALUES (current_user) RETURNING 1';
	GRANT CREATE ON SCHEMA public TO clerk});
like(error_of(q{SELECT bcmig_baseline('green')}, 'stranger'), qr/42501/, 'not for everybody');
like(error_of(q{SELECT bcmig_baseline('blue')}, 'clerk'), qr/42501|must be|member/, 'of blue: only members of its owner');
on_green(q{SET ROLE clerk; SELECT bcmig_add_baseline_query('spy', 'SELECT 1', 'SELECT v FROM public.secret')});
on_green(q{SET ROLE clerk; SELECT bcmig_add_baseline_query('sneak', 'SELECT 1', 'SELECT public.clerk_write()')});
like(error_of(q{SELECT bcmig_remove_baseline_query('items')}, 'clerk'), qr/42501|must be|member/, 'nor remove that of others');
my $id = on_green(q{SELECT bcmig_baseline('green')});
like(on_green("SELECT error FROM bcmig.baseline_time WHERE name = '$_' AND baseline_id = $id"), qr/^(42501|25006)/, "$_: a query of a clerk has not the rights of who measures") foreach qw(spy sneak);
is(on_green('SELECT count(*) FROM secret'), 1, 'and writes nothing');
$id = on_green(q{SELECT bcmig_baseline('blue')});
like(on_green("SELECT error FROM bcmig.baseline_time WHERE name = 'sneak' AND baseline_id = $id"), qr/no member/, 'nor those of the owner of the environment on blue');
on_green(q{SELECT bcmig_remove_baseline_query('sneak')});
on_green(q{SELECT bcmig_add_baseline_query('sneak', 'SELECT 1', 'SELECT public.clerk_write()')});
$id = on_green(q{SELECT bcmig_baseline('green')});
like(on_green("SELECT error FROM bcmig.baseline_time WHERE name = 'sneak' AND baseline_id = $id"), qr/^25006/, 'read only also for who may write');
is(on_green('SELECT count(*) FROM secret') . on_green('SHOW transaction_read_only'), '1off', 'nothing is written');
like(error_of(q{SET statement_timeout = '500ms'; SELECT bcmig_add_baseline_query('long', 'SELECT 1', 'SELECT pg_sleep(60)'), bcmig_baseline('green')}), qr/57014/, 'it can be cancelled');
like(error_of(q{SELECT bcmig_baseline('nowhere')}), qr/BM001:.*HINT/s, 'no such environment');

# --- a blue on SQL Server: a table with its companion is one ---
my $server = new_sql_server();
my $app = '437dbf0e-84ff-417a-965d-ed2bb9650972';
$server->{node}->safe_psql('postgres', qq{
	CREATE TABLE customer ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Name" varchar(50) NOT NULL);
	CREATE TABLE customer_ext ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Rate\$$app" numeric(38,20) NOT NULL);
	INSERT INTO customer SELECT 0, 'C' || i, 'n' || i FROM generate_series(1, 500) i;
	INSERT INTO customer_ext SELECT 0, 'C' || i, i / 7.0 FROM generate_series(1, 300) i;
	SELECT mssql.register('customer', 'X\$Customer\$$app'), mssql.register('customer_ext', 'X\$Customer\$$app\$ext')});
on_green(qq{CREATE EXTENSION tds_fdw;
	CREATE SERVER mssql FOREIGN DATA WRAPPER tds_fdw OPTIONS (servername '127.0.0.1', port '$server->{port}', database 'BC', tds_version '7.4', character_set 'UTF-8', msg_handler 'notice');
	CREATE USER MAPPING FOR CURRENT_USER SERVER mssql OPTIONS (username 'bcmig_reader', password 'secret')});
on_green(q{SELECT bcmig_add_environment('mssql', 'blue', 'mssql', options => '{"connect_timeout": "120s"}'), bcmig_create_sync('ms', 'mssql')});
on_green(qq{SELECT bcmig_add_table('ms', 'X\$Customer\$$app', 'public.customer', '{"companions": ["X\$Customer\$$app\$ext"]}'),
	bcmig_add_baseline_query('customers', 'SELECT t.[No_] FROM [dbo].[X\$Customer\$$app] AS t', 'SELECT "No_" FROM public.customer')});
$id = on_green(q{SELECT bcmig_baseline('mssql')});
is(on_green("SELECT target, rows, columns, bytes > 0 FROM bcmig.baseline_table WHERE baseline_id = $id"), 'public.customer|500|6|t', 'SQL Server: rows of the base, columns and bytes of both');
is(on_green("SELECT rows, ms > 0, error IS NULL FROM bcmig.baseline_time WHERE name = 'customers' AND baseline_id = $id"), '500|t|t', 'SQL Server: a query is timed');
like(on_green("SELECT error FROM bcmig.baseline_time WHERE name = 'slow' AND baseline_id = $id"), qr/BM007|pg_sleep/, 'SQL Server: one it does not know is an error of its own');

# --- blue away: an error, and no half a baseline ---
my $before = on_green('SELECT count(*) FROM bcmig.baseline');
$blue->stop;
like(error_of(q{SELECT bcmig_baseline('blue')}), qr/BM006:/, 'blue cannot be asked');
is(on_green('SELECT count(*) FROM bcmig.baseline'), $before, 'nothing is stored');

done_testing();
