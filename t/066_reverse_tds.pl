# What was written on green, as a script for a SQL Server blue: each statement
# stands before the grammar, values are exact, and once blue has the rows the
# windows that read them back settle the entries.  The stand-in runs no writes:
# what the script says is done to its data by hand.
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
my $source = $ENV{BCMIG_SOURCE} // '.';

sub on_green { return $green->safe_psql('postgres', $_[0]) }
sub on_blue { return $blue->safe_psql('postgres', $_[0]) }

on_blue(qq{
	CREATE TABLE customer ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Name" varchar(100) NOT NULL DEFAULT '', "Balance" numeric(38,20) NOT NULL DEFAULT 0, "Picture" bytea,
		"Last Date" timestamp(3) NOT NULL DEFAULT '1753-01-01', "Blocked" smallint NOT NULL DEFAULT 0, "Entry" bigint NOT NULL DEFAULT 0, "\$systemId" uuid NOT NULL DEFAULT '00000000-0000-0000-0000-000000000001');
	CREATE TABLE customer_ext ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Rate\$$app" numeric(38,20) NOT NULL DEFAULT 0);
	CREATE TABLE entry ("timestamp" bigint NOT NULL DEFAULT 0, "Entry No_" int, "Date" timestamp(3), amount numeric(38,20) NOT NULL, PRIMARY KEY ("Entry No_", "Date"));
	INSERT INTO customer ("No_", "Name") SELECT 'C' || i, 'n' || i FROM generate_series(1, 20) i;
	INSERT INTO customer_ext SELECT 0, 'C' || i, i FROM generate_series(1, 20) i;
	INSERT INTO entry SELECT 0, i, '2026-01-01 10:00:00.003', i FROM generate_series(1, 300) i;
	SELECT mssql.register('customer', 'X\$Cust]omer\$$app'), mssql.register('customer_ext', 'X\$Cust]omer\$$app\$ext'), mssql.register('entry', 'X\$Entry\$$app');});
connect_sql_server($green, $server, 's');
on_green(qq{SELECT bcmig_add_table('s', 'X\$Cust]omer\$$app', 'public.customer', '{"companions": ["X\$Cust]omer\$$app\$ext"]}'), bcmig_add_table('s', 'X\$Entry\$$app', 'public.entry');
	SELECT bcmig_map_column('s', 'customer', 'Last Date', '{"rename": "changed", "builtin": "blank_date"}');
	SELECT bcmig_map_column('s', 'customer', 'Blocked', '{"builtin": "boolean"}');
	SELECT bcmig_map_column('s', 'customer', 'Rate\$$app', '{"rename": "rate"}');});
start_sync($green, 's');
wait_sync($green, 's');
on_green(q{BEGIN; SELECT bcmig.arm_journal('s'); SELECT bcmig.lift_fence('s'); COMMIT});

# blue's row versions
my %version = map { split /\|/ } split /\n/, on_blue(q{SELECT "No_", upper(lpad(to_hex("timestamp"), 16, '0')) FROM customer});
on_green(q~
	UPDATE customer SET "Name" = E'O''Neill \n[x] -- GO', "Balance" = 0.00000000000000000001, changed = NULL, rate = 7 WHERE "No_" = 'C1';
	UPDATE customer SET "Picture" = '\x00ff27', "Blocked" = true, changed = '2026-02-03 04:05:06.997' WHERE "No_" = 'C2';
	UPDATE customer SET "Name" = U&'\4e2d\+01F600' WHERE "No_" = 'C3';
	DELETE FROM customer WHERE "No_" = 'C4';
	UPDATE customer SET "No_" = 'R''5' WHERE "No_" = 'C5';
	INSERT INTO customer ("No_", "Name", "Balance", "Blocked", "Entry", "$systemId", rate) VALUES ('N1', '', -99999999999999999.99999999999999999999, false, 9223372036854775807, '00112233-4455-6677-8899-AABBCCDDEEFF', 0.5);
	INSERT INTO customer ("No_", "Name", "Balance", "Blocked", "Entry", "$systemId", rate) VALUES ('N2', 'without extension', 0, false, 0, '00112233-4455-6677-8899-AABBCCDDEEF0', NULL);
	BEGIN; INSERT INTO customer ("No_", "Name", "Balance", "Blocked", "Entry", "$systemId") VALUES ('N3', '', 0, false, 0, '00112233-4455-6677-8899-AABBCCDDEEF1'); DELETE FROM customer WHERE "No_" = 'N3'; COMMIT;
	UPDATE entry SET amount = amount + 1 WHERE "Entry No_" <= 150;~);
my $script = on_green(q{SELECT bcmig_blue_script('reverse', 's')});

# --- the grammar ---
my @batches = split /^GO$/m, $script;
is(scalar(grep { /\S/ } @batches), 4, 'a head, a batch of one table, two of the other');
script_accepted($script, 4, 'a grammar made elsewhere accepts all of it');

# --- what it says ---
sub has { my ($what, $text) = @_; ok(index($script, $text) >= 0, $what) or diag("missing: $text\n$script") }
my $t = "[dbo].[X\$Cust]]omer\$$app]";
my $ext = "[dbo].[X\$Cust]]omer\$$app\$ext]";
has('settings of indexed views', "SET ANSI_NULLS ON; SET ANSI_PADDING ON; SET ANSI_WARNINGS ON; SET ARITHABORT ON; SET CONCAT_NULL_YIELDS_NULL ON; SET QUOTED_IDENTIFIER ON;\nSET NUMERIC_ROUNDABORT OFF;\nSET XACT_ABORT ON;");
has('quotes and lines', "[Name] = (CONVERT(nvarchar(max), N'') + N'O''Neill ' + NCHAR(10) + N'[x] -- GO')");
has('a number, all digits', "[Balance] = CONVERT(decimal(38,20), N'0.00000000000000000001')");
has('a blank date', "[Last Date] = CONVERT(datetime, N'1753-01-01T00:00:00', 126)");
has('a date', "[Last Date] = CONVERT(datetime, N'2026-02-03T04:05:06.997', 126)");
has('bytes', '[Picture] = 0x00ff27');
like($script, qr/\[Blocked\] = CONVERT\(\w+, N'1'\)/, 'a boolean is the number blue has');
has('only what green was based on', "AS t WHERE t.[No_] = N'C1' AND t.[timestamp] IN (\@v, 0x$version{C1});");
has('a companion by its base row', "UPDATE p SET [Rate\$$app] = CONVERT(decimal(38,20), N'7.00000000000000000000') FROM $ext AS p INNER JOIN $t AS t ON p.[No_] = t.[No_] WHERE t.[No_] = N'C1';");
has('a deleted row', "DELETE t FROM $t AS t WHERE t.[No_] = N'C4';");
has('a renamed row', "INSERT INTO $t ([No_], ");
has('an identity', "IF OBJECTPROPERTY(OBJECT_ID(N'$t'), N'TableHasIdentity') = 1 SET IDENTITY_INSERT $t ON;");
unlike($script, qr/\[timestamp\] =|\(\[timestamp\]|, \[timestamp\]/, 'the version is never written');
unlike($script, qr/INSERT INTO \Q$ext\E[^\n]*N'N2'/, 'no companion where green has none');
is(() = $script =~ /BEGIN TRANSACTION;/g, 3, 'a transaction a batch');
my ($rc, $out, $error) = $green->psql('postgres', q{SELECT bcmig_blue_script('reverse', 'nobody')});
like($error, qr/sync "nobody" does not exist/, 'of a sync there is');
($rc, $out, $error) = $green->psql('postgres', q{CREATE ROLE stranger; GRANT EXECUTE ON FUNCTION bcmig_blue_script(text, text) TO stranger; SET ROLE stranger; SELECT bcmig_blue_script('reverse', 's')});
like($error, qr/permission denied|must be a member|may not/, 'not for a stranger');

# --- once blue has it, the entries are settled ---
is(on_green(q{SELECT count(*) FROM bcmig.journal WHERE settled_at IS NULL}), '159', 'the script settles nothing');
on_blue(qq~BEGIN;
	UPDATE customer SET "Name" = E'O''Neill \\n[x] -- GO', "Balance" = 0.00000000000000000001, "Last Date" = '1753-01-01' WHERE "No_" = 'C1'; UPDATE customer_ext SET "Rate\$$app" = 7 WHERE "No_" = 'C1';
	UPDATE customer SET "Picture" = '\\x00ff27', "Blocked" = 1, "Last Date" = '2026-02-03 04:05:06.997' WHERE "No_" = 'C2';
	UPDATE customer SET "Name" = U&'\\4e2d\\+01F600' WHERE "No_" = 'C3';
	DELETE FROM customer WHERE "No_" = 'C4'; DELETE FROM customer_ext WHERE "No_" = 'C4';
	UPDATE customer SET "No_" = 'R''5' WHERE "No_" = 'C5'; UPDATE customer_ext SET "No_" = 'R''5' WHERE "No_" = 'C5';
	INSERT INTO customer ("No_", "Name", "Balance", "Entry", "\$systemId") VALUES ('N1', '', -99999999999999999.99999999999999999999, 9223372036854775807, '00112233-4455-6677-8899-AABBCCDDEEFF'), ('N2', 'without extension', 0, 0, '00112233-4455-6677-8899-AABBCCDDEEF0');
	INSERT INTO customer_ext VALUES (0, 'N1', 0.5);
	UPDATE entry SET amount = amount + 1 WHERE "Entry No_" <= 150; COMMIT~);
wait_sync($green, 's');
is(on_green(q{SELECT string_agg(coalesce(settled_as, 'unsettled') || ' ' || n, ', ' ORDER BY settled_as) FROM (SELECT settled_as, count(*) AS n FROM bcmig.journal GROUP BY 1) x}), 'equal 158, unsettled 2', 'they are: but for a row that never was on blue');
is(on_green(q{SELECT count(*) FROM bcmig.conflict}), '0', 'no conflict');
like(on_green(q{SELECT bcmig_blue_script('reverse', 's')}), qr/1 keys of sync "s".*\["N3"\]/s, 'which the next script has alone');


# --- at weight 100 blue is looked at: what never was there needs no script ---
on_green(q{UPDATE entry SET amount = 0 WHERE "Entry No_" = 200; UPDATE bcmig.traffic SET green_percent = 100, switched_at = now(); SELECT bcmig_alter_sync('s', '{"reverse": true}')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.journal WHERE settled_at IS NULL}), 'neither side has the row: settled');
is(on_green(q{SELECT string_agg(settled_as, ',') FROM bcmig.journal WHERE '["N3"]' IN (old_key, new_key)}), 'equal,equal', 'as equal');
ok($green->poll_query_until('postgres', q{SELECT unreplayed = 1 AND problem LIKE '%bcmig_blue_script(''reverse'', ''s'')%' FROM bcmig.journal_status}), 'what waits for a person is told');
like(on_green(q{SELECT bcmig_blue_script('reverse', 's')}), qr/1 keys of sync "s".*\["200"/s, 'and is in the script');

TdsServer::stop_server($server);
done_testing();
