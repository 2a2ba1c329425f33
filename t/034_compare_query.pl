# bcmig_compare_query: what differs is shown, with how many times; values are
# spelt alike whatever the settings of the servers; neither side can be written
# to.  A blue on PostgreSQL, then one on SQL Server.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Utils;
use TdsServer;
use Test::More;

my @settings = ("datestyle = 'SQL, DMY'", "intervalstyle = 'sql_standard'", 'extra_float_digits = -5', "bytea_output = 'escape'");
my $blue = new_blue('blue', @settings, "timezone = 'Asia/Kathmandu'");
my $green = new_green('green', "timezone = 'America/New_York'");
my ($sync, $node);

# the answer, a line each row
sub compare
{
	my ($on_blue, $on_green) = @_;
	return $green->safe_psql('postgres', "SELECT side || ' ' || times || ' ' || coalesce(value, 'NULL') FROM bcmig_compare_query('$sync', \$b\$$on_blue\$b\$, \$g\$$on_green\$g\$)");
}

sub fails
{
	my ($on_blue, $on_green, $like, $what) = @_;
	my ($rc, undef, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM bcmig_compare_query('$sync', \$b\$$on_blue\$b\$, \$g\$$on_green\$g\$)");
	like($err, qr/ERROR:  $like/s, $what);
	unlike($err, qr/Failed|terminated|crash/, "$what: no worse");
}

my $table = q{
	CREATE TABLE item (id int PRIMARY KEY, name text, price numeric, at timestamptz, span interval, share float8, picture bytea);
	INSERT INTO item VALUES (1, 'one', 1.50, '2026-03-04 05:06:07.003+00', '1 mon -2 days', 0.1, '\x00ff5c'),
		(2, '', 0, '1753-01-01 00:00:00+00', '00:00:01', 1e300, ''), (3, NULL, NULL, NULL, NULL, NULL, NULL), (4, 'a"b,(c)', 4, '2026-06-01 12:00+05:45', '0', '-0', '\x');
	CREATE FUNCTION write_item() RETURNS int LANGUAGE sql AS 'INSERT INTO public.item (id) VALUES (99) RETURNING id';};
$blue->safe_psql('postgres', $table);
$green->safe_psql('postgres', $table);
connect_blue($green, $blue, 'pg');
$sync = 'pg';

# ---------------------------------------------------------------------------
# PostgreSQL
# ---------------------------------------------------------------------------
is(compare('SELECT * FROM public.item', 'SELECT * FROM item'), '', 'equal, though both servers spell values otherwise');
is(compare('SELECT i.*, 2 AS id, 3 AS q FROM public.item i ORDER BY 1 DESC -- a comment', 'WITH x AS (SELECT * FROM item) SELECT x.*, 2, 3 FROM x'), '',
	'columns of any name, in any order of rows, with a comment at the end');
is(compare('SELECT id, name FROM public.item', 'SELECT id, name FROM item WHERE id > 1'), 'blue 1 (1,one)', 'a row only blue has');
is(compare('SELECT id, name FROM public.item WHERE id > 1', 'SELECT id, name FROM item'), 'green 1 (1,one)', 'a row only green has');
is(compare("SELECT x FROM (VALUES ('a'), ('a'), ('a'), ('b')) v(x)", "SELECT x FROM (VALUES ('a'), ('b'), ('b'), ('c')) v(x)"),
	"blue 2 (a)\ngreen 1 (b)\ngreen 1 (c)", 'rows are counted');
is(compare("SELECT ''::text", 'SELECT NULL::text'), "blue 1 (\"\")\ngreen 1 ()", q{'' is not NULL});
is(compare('SELECT 1.5', 'SELECT 1.50'), "blue 1 (1.5)\ngreen 1 (1.50)", 'other text is another value');
is(compare('SELECT 1 WHERE false', 'SELECT 1 WHERE false'), '', 'no rows on both sides');
is(compare('SELECT 1 WHERE false', 'SELECT 1'), 'green 1 (1)', 'no rows on blue');
is(compare(q{SELECT ';', $a$;)$a$, E'\\';', "x;" FROM (SELECT 1 AS "x;") y /* ; /* ) */ ; */ -- ;}, q{SELECT ';', ';)', ''';', 1}), '', 'semicolons in quotes and comments');
is(compare('SELECT id FROM public.item', "SELECT id FROM item WHERE current_setting('timezone') = 'GMT'"), '', 'times of both sides are in GMT');
is($green->safe_psql('postgres', "SELECT * FROM bcmig_compare_query('pg', 'SELECT 1', 'SELECT 1'); SHOW timezone; SHOW transaction_read_only"),
	"America/New_York\noff", 'settings are as before');
is($green->safe_psql('postgres', "BEGIN; SELECT * FROM bcmig_compare_query('pg', 'SELECT 1', 'SELECT 1'); INSERT INTO item (id) VALUES (50); ROLLBACK; SELECT count(*) FROM item"), '4', 'the transaction can write afterwards');

# bad input
fails('SELECT 1', 'SELECT nothing', '42703:', 'green: an error of the query is passed on');
fails('SELECT nothing', 'SELECT 1', 'BM007:.*nothing.*HINT', 'blue: an error of the query is passed on');
fails('SELECT * FROM item', 'SELECT 1', 'BM007:.*item.*HINT:.*schema', 'blue: a table without its schema');
fails($_, 'SELECT 1', 'BM003:.*HINT', "blue: $_") foreach 'SELECT 1;', 'SELECT 1; DELETE FROM public.item', 'SELECT 1) q; DELETE FROM public.item; --', q{SELECT 'a}, 'SELECT (1', '/* SELECT 1';
fails('', 'SELECT 1', 'BM003:', 'blue: an empty query');
fails('SELECT 1', '', 'BM003:', 'green: an empty query');
fails($_, 'SELECT 1', 'BM007:', "blue: $_") foreach 'DELETE FROM public.item RETURNING id', 'WITH x AS (DELETE FROM public.item RETURNING id) SELECT * FROM x', 'TRUNCATE public.item', "SELECT set_config('transaction_read_only', 'off', true), public.write_item()";
fails($_, 'SELECT 1', 'BM007:.*25006', "blue: $_") foreach 'SELECT public.write_item()', 'SELECT * FROM public.item FOR UPDATE';
fails('SELECT 1', $_, '\w{5}:', "green: $_") foreach 'SELECT 1; DELETE FROM item', 'SELECT 1) q; DELETE FROM item; SELECT 1 FROM (SELECT 1', 'DELETE FROM item RETURNING id', 'WITH x AS (DELETE FROM item RETURNING id) SELECT * FROM x', 'TRUNCATE item';
fails('SELECT 1', $_, '25006:', "green: $_") foreach 'SELECT write_item()', 'SELECT * FROM item FOR UPDATE';
is($_->safe_psql('postgres', 'SELECT count(*) FROM item'), '4', 'nothing was written') foreach $blue, $green;
fails('SELECT generate_series(1, 1000001)', 'SELECT 1', '54000:.*HINT', 'blue: too many rows');
fails('SELECT 1', 'SELECT generate_series(1, 1000001)', '54000:.*HINT', 'green: too many rows');
foreach my $args ("NULL, 'SELECT 1', 'SELECT 1'", "'pg', NULL, 'SELECT 1'", "'pg', 'SELECT 1', NULL")
{
	my ($rc, undef, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM bcmig_compare_query($args)");
	like($err, qr/ERROR:  22004:/, "bcmig_compare_query($args): an error");
}
$sync = 'nobody';
fails('SELECT 1', 'SELECT 1', 'BM001:', 'unknown sync');
$sync = 'pg';

# the caller's rights on green, the owner's on blue; only for members of the owner
$green->safe_psql('postgres', 'CREATE ROLE stranger LOGIN; CREATE ROLE keeper LOGIN; CREATE ROLE helper LOGIN; GRANT keeper TO helper;
	GRANT EXECUTE ON FUNCTION bcmig_compare_query(text, text, text), bcmig_create_sync(text, text, jsonb) TO stranger, keeper, helper; GRANT USAGE ON FOREIGN SERVER blue TO keeper;
	CREATE USER MAPPING FOR keeper SERVER blue OPTIONS (user \'' . (getpwuid($<))[0] . q{', password_required 'false')});
$green->safe_psql('postgres', q{SET ROLE keeper; SELECT bcmig_create_sync('kept', 'blue')});
my $ask = q{SELECT count(*) FROM bcmig_compare_query('kept', 'SELECT id FROM public.item', 'SELECT id FROM item')};
my ($rc, undef, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE stranger; $ask");
like($err, qr/ERROR:  42501:.*owner of sync/, 'not a member of the owner');
($rc, undef, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\nSET ROLE helper; $ask");
like($err, qr/ERROR:  42501:.*item/, 'the caller may not read the green table');
$green->safe_psql('postgres', 'GRANT SELECT ON item TO helper');
is($green->safe_psql('postgres', "SET ROLE helper; $ask"), '0', 'a member who may read both');

# a long question holds nobody up: blue waits for a lock
my $lock = $blue->background_psql('postgres', on_error_die => 1);
$lock->query_safe('BEGIN; LOCK TABLE item');
my $asking = $green->background_psql('postgres', on_error_stop => 0);
$asking->query_until(qr/asking/, "\\echo asking\nSELECT count(*) FROM bcmig_compare_query('pg', 'SELECT id FROM public.item', 'SELECT id FROM item');\n");
ok($blue->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%public.item%'"), 'blue is asked');
is($green->safe_psql('postgres', q{SET lock_timeout = '5s'; SELECT bcmig_alter_sync('pg', '{"max_retries": 4}')}), '', 'meanwhile the sync can be altered');
$green->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE '%bcmig_compare_query%' AND backend_type = 'client backend' AND pid <> pg_backend_pid()});
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '%bcmig_compare_query(''pg''%' AND state = 'active' AND pid <> pg_backend_pid()"), 'and the question cancelled');
$lock->query_safe('ROLLBACK');
$lock->quit;
$asking->quit;

# ---------------------------------------------------------------------------
# SQL Server
# ---------------------------------------------------------------------------
my $server = new_sql_server();
$server->{node}->safe_psql('postgres', q{CREATE TABLE customer ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Name" varchar(100), "Amount" numeric(38,20) NOT NULL DEFAULT 0);
	INSERT INTO customer VALUES (0, 'A;1', 'Näme 😀', 1.5), (0, 'B', '', 2), (0, 'C', NULL, 3);
	SELECT mssql.register('customer', 'Cust; (omer)', true)});
$green->safe_psql('postgres', qq{CREATE TABLE customer (no text, name text, amount numeric(38,20)); INSERT INTO customer VALUES ('A;1', 'Näme 😀', 1.5), ('B', '', 2), ('C', NULL, 3);
	CREATE EXTENSION tds_fdw;
	CREATE SERVER mssql FOREIGN DATA WRAPPER tds_fdw OPTIONS (servername '127.0.0.1', port '$server->{port}', database 'BC', tds_version '7.4', character_set 'UTF-8', msg_handler 'notice');
	CREATE USER MAPPING FOR CURRENT_USER SERVER mssql OPTIONS (username 'bcmig_reader', password 'secret');
	SELECT bcmig_add_environment('mssql', 'blue', 'mssql'); SELECT bcmig_create_sync('ms', 'mssql')});
$sync = 'ms';
is(compare('SELECT t.[Name] FROM [dbo].[Cust; (omer)] AS t -- one column;', 'SELECT name FROM customer'), '', 'SQL Server: equal; NULL, blanks, all characters');
is(compare("SELECT t.[No_] FROM [dbo].[Cust; (omer)] AS t WHERE t.[No_] <> N'B;)'", "SELECT no FROM customer WHERE no <> 'B' UNION ALL SELECT 'C'"),
	"blue 1 B\ngreen 1 C", 'SQL Server: rows only one side has');
is(compare('SELECT t.[Amount] FROM [dbo].[Cust; (omer)] AS t', 'SELECT amount FROM customer'), '', 'SQL Server: decimals with all digits');
is(compare("SELECT NULLIF(t.[Name], N'') FROM [dbo].[Cust; (omer)] AS t", 'SELECT name FROM customer'), "blue 1 NULL\ngreen 1 ", 'SQL Server: NULL is not blank');
fails($_, 'SELECT 1', 'BM003:.*HINT', "SQL Server: $_") foreach 'SELECT 1;', 'SELECT 1 AS c) AS q(c) DELETE FROM [dbo].[Cust; (omer)] SELECT c FROM (SELECT 2 AS c', 'SELECT [a', q{SELECT N'a}, '/* /* */ SELECT 1', '[]]) SELECT (1';
fails($_, 'SELECT 1', 'BM007:.*HINT', "SQL Server: $_") foreach 'DELETE FROM [dbo].[Cust; (omer)]', 'SELECT t.[nothing] FROM [dbo].[Cust; (omer)] AS t';
fails('SELECT t.[No_] FROM [dbo].[Cust; (omer)] AS t', 'SELECT no, name FROM customer', 'BM003:.*one.*CONCAT', 'SQL Server: one column on green too');
is($server->{node}->safe_psql('postgres', 'SELECT count(*) FROM customer'), '3', 'SQL Server: nothing was written');

done_testing();
