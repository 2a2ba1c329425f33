# Transforms and a row filter over a SQL Server blue, with a companion: copied,
# streamed, validated by its hashes or pulled, repaired.
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

sub on_green { return $green->safe_psql('postgres', $_[0]) }
sub on_blue { return $blue->safe_psql('postgres', $_[0]) }

on_blue(qq{
	CREATE TABLE entry ("timestamp" bigint NOT NULL DEFAULT 0, "Text" varchar(50) NOT NULL, "Entry No_" int PRIMARY KEY, "Posting Date" timestamp(3) NOT NULL, "Amount" numeric(38,20) NOT NULL,
		"Open" smallint NOT NULL, "Guid" uuid NOT NULL DEFAULT gen_random_uuid());
	CREATE TABLE customer ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Name" varchar(50) NOT NULL);
	CREATE TABLE customer_ext ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Rate\$$app" numeric(38,20) NOT NULL);
	INSERT INTO entry SELECT 0, CASE i % 3 WHEN 0 THEN '' ELSE 'text ' || i || ' ' END, i, CASE i % 2 WHEN 0 THEN timestamp '1753-01-01' ELSE '2026-05-05 10:00:00.003' END, i / 3.0, i % 2
		FROM generate_series(1, 2000) i;
	INSERT INTO customer SELECT 0, 'C' || i, 'n' || i || ' ' FROM generate_series(1, 300) i;
	INSERT INTO customer_ext SELECT 0, 'C' || i, i / 7.0 FROM generate_series(1, 200) i;
	SELECT mssql.register('entry', 'X\$G_L Entry\$$app'), mssql.register('customer', 'X\$Customer\$$app'), mssql.register('customer_ext', 'X\$Customer\$$app\$ext');});
connect_sql_server($green, $server, 's', '{"sweep_interval": "1h"}');
on_green(qq{SELECT bcmig_add_table('s', 'X\$G_L Entry\$$app', 'public.entry'),
	bcmig_add_table('s', 'X\$Customer\$$app', 'public.customer', '{"companions": ["X\$Customer\$$app\$ext"], "row_filter": "\\"Rate\$$app\\" IS NOT NULL AND \\"No_\\" <> ''C7''"}');
	SELECT bcmig_map_column('s', 'entry', 'Text', '{"builtin": "blank_text"}');
	SELECT bcmig_map_column('s', 'entry', 'Posting Date', '{"rename": "posted_at", "builtin": ["blank_date", "utc"]}');
	SELECT bcmig_map_column('s', 'entry', 'Open', '{"builtin": "boolean"}');
	SELECT bcmig_map_column('s', 'entry', 'Guid', '{"drop": true}');
	SELECT bcmig_map_column('s', 'customer', 'Rate\$$app', '{"rename": "rate", "sql": "(\\"Rate\$$app\\" * 100)::numeric(38,20)"}');
	SELECT bcmig_map_column('s', 'customer', 'Name', '{"builtin": "trim"}')});
start_sync($green, 's');
wait_sync($green, 's');

sub same
{
	my ($what) = @_;
	my @pairs = (
		[ 'entry', q{SELECT "Entry No_", nullif("Text", ''), nullif("Posting Date", '1753-01-01') AT TIME ZONE 'UTC', "Amount", "Open" <> 0 FROM entry}, q{SELECT "Entry No_", "Text", posted_at, "Amount", "Open" FROM entry} ],
		[ 'customer', qq{SELECT "No_", rtrim("Name", ' '), ("Rate\$$app" * 100)::numeric(38,20) FROM customer JOIN customer_ext USING ("No_") WHERE "No_" <> 'C7'}, q{SELECT "No_", "Name", rate FROM customer} ]);
	foreach my $p (@pairs)
	{
		my ($b, $g) = map { join "\n", sort split /\n/, $_ } (on_blue($p->[1]), on_green($p->[2]));
		is($g, $b, "$what: $p->[0]");
	}
}
sub validate
{
	my $run = on_green("SELECT bcmig_validate('s', mode => 'full')");
	$green->poll_query_until('postgres', "SELECT state <> 'running' FROM bcmig.validation_run WHERE run_id = $run") or die "validation $run does not end";
	return ($run, on_green("SELECT verdict FROM bcmig.validation_run WHERE run_id = $run"));
}
same('copied');

# a companion row decides whether its base row fulfils the filter
on_blue(qq{UPDATE entry SET "Text" = '', "Posting Date" = '1753-01-01', "Open" = 1 - "Open" WHERE "Entry No_" < 20;
	DELETE FROM entry WHERE "Entry No_" = 30;
	INSERT INTO customer_ext VALUES (0, 'C250', 2.5); DELETE FROM customer_ext WHERE "No_" = 'C9';
	UPDATE customer SET "Name" = 'new  ' WHERE "No_" IN ('C8', 'C251')});
wait_sync($green, 's');
same('streamed');

my ($run, $verdict) = validate();
is($verdict, 'ok', 'equal');
is(on_green("SELECT target, pushdown, rows_green FROM bcmig.validation_summary WHERE run_id = $run ORDER BY 1"), "public.customer|f|199\npublic.entry|t|1999", 'hashed by blue, or pulled');
green_behind($green, q{SET session_replication_role = replica;
	UPDATE entry SET posted_at = posted_at + interval '10 ms' WHERE "Entry No_" = 101;
	UPDATE entry SET "Text" = '' WHERE "Entry No_" = 102;
	UPDATE entry SET "Open" = NOT "Open" WHERE "Entry No_" = 103;
	UPDATE customer SET rate = rate + 1 WHERE "No_" = 'C100';
	INSERT INTO customer ("No_", "Name") VALUES ('C7', 'n7');});
($run, $verdict) = validate();
is(on_green("SELECT kind, key, columns FROM bcmig.validation_difference JOIN bcmig.sync_table USING (table_id) WHERE run_id = $run ORDER BY target_table, key"), join("\n",
	'different|["C100"]|{rate}', 'extra|["C7"]|', 'different|["101"]|{posted_at}', 'different|["102"]|{}', 'different|["103"]|{Open}'), 'faults are found');
on_green("SELECT * FROM bcmig_repair($run)");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $run AND repaired_at IS NULL"), 'repaired');
same('repaired');

# another mapping while it streams
on_green(q{SELECT bcmig_unmap_column('s', 'entry', 'Posting Date'); SELECT bcmig_map_column('s', 'entry', 'Posting Date', '{"rename": "posted_at", "builtin": ["utc"]}')});
wait_sync($green, 's');
is(on_green(q{SELECT count(*) FILTER (WHERE posted_at = '1753-01-01 00:00+00') > 900, count(*) FILTER (WHERE posted_at IS NULL) FROM entry}), 't|0', 'mapped otherwise');
is((validate())[1], 'ok', 'and equal');

TdsServer::stop_server($server);
done_testing();
