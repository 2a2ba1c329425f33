# Validation of a SQL Server blue: it hashes its own rows, or they are pulled;
# the ten faults are found and repaired.
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

$blue->safe_psql('postgres', qq{
	CREATE TABLE entry ("timestamp" bigint NOT NULL DEFAULT 0, "Entry No_" int PRIMARY KEY, "Account" varchar(20) NOT NULL, "Amount" numeric(38,20) NOT NULL, "Posting Date" timestamp(3) NOT NULL,
		"Debit" numeric(38,20) NOT NULL, "Credit" numeric(38,20) NOT NULL, "Note" varchar(250) NOT NULL, "Open" smallint NOT NULL, "Guid" uuid NOT NULL DEFAULT gen_random_uuid(), "Picture" bytea);
	CREATE TABLE customer ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Name" varchar(50) NOT NULL);
	CREATE TABLE customer_ext ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Rate\$$app" numeric(38,20) NOT NULL);
	CREATE TABLE buffer (a int, b varchar(10));
	INSERT INTO entry SELECT 0, i, 'A' || i % 100, i / 3.0, mssql.datetime(timestamp '2026-01-01' + i * interval '61.0033 s'), i, -i,
		CASE i % 5 WHEN 0 THEN '' WHEN 1 THEN chr(228) || chr(20013) || chr(128512) || ' ' WHEN 2 THEN chr(2) ELSE 'note ' || i END, i % 2, gen_random_uuid(),
		CASE WHEN i % 500 = 0 THEN decode(repeat('00ff', 6000), 'hex') END FROM generate_series(-100, 3000) i;
	UPDATE entry SET "Posting Date" = '1753-01-01' WHERE "Entry No_" % 10 = 0;
	INSERT INTO customer SELECT 0, 'C' || i, 'n' || i FROM generate_series(1, 500) i;
	INSERT INTO customer_ext SELECT 0, 'C' || i, i / 7.0 FROM generate_series(1, 300) i;
	INSERT INTO buffer SELECT i % 5, 'b' FROM generate_series(1, 20) i;
	SELECT mssql.register('entry', 'X\$G_L Entry\$$app'), mssql.register('customer', 'X\$Customer\$$app'), mssql.register('customer_ext', 'X\$Customer\$$app\$ext'), mssql.register('buffer', 'X\$Buffer\$$app');});
connect_sql_server($green, $server, 's', '{"sweep_interval": "1h"}');
on_green(qq{SELECT bcmig_add_table('s', 'X\$G_L Entry\$$app', 'public.entry'), bcmig_add_table('s', 'X\$Customer\$$app', 'public.customer', '{"companions": ["X\$Customer\$$app\$ext"]}'),
	bcmig_add_table('s', 'X\$Buffer\$$app', 'public.buffer')});
start_sync($green, 's');
wait_sync($green, 's');

sub validate
{
	my ($mode, $target) = @_;
	return run_validation($green, 's', $mode, target => $target);
}

my ($run, $verdict) = validate('full');
is($verdict, 'ok', 'equal sides are ok');
is(on_green("SELECT target, rows_blue, rows_green, verdict, pushdown, detail FROM bcmig.validation_summary WHERE run_id = $run ORDER BY 1"), join("\n",
	'public.buffer|20|20|ok|t|', 'public.customer|500|500|ok|t|', 'public.entry|3101|3101|ok|t|'), 'one line a table, hashed by blue, companions in it');
is(on_green(q{SELECT string_agg(type_class, ' ' ORDER BY type_class) FROM bcmig.hash_probe WHERE agrees}), 'binary datetime decimal integer text uniqueidentifier', 'the probe');

# the faults
my $faults = q{SET session_replication_role = replica;
	DELETE FROM entry WHERE "Entry No_" = -50;
	INSERT INTO entry ("Entry No_", "Account", "Amount", "Posting Date", "Debit", "Credit", "Note", "Open", "Guid")
		SELECT 999999, "Account", "Amount", "Posting Date", "Debit", "Credit", "Note", "Open", "Guid" FROM entry WHERE "Entry No_" = 1;
	UPDATE entry SET "Picture" = set_bit("Picture", 77777, 1 - get_bit("Picture", 77777)) WHERE "Entry No_" = 500;
	UPDATE entry e SET "Account" = x."Account", "Amount" = x."Amount" FROM entry x WHERE e."Entry No_" IN (2001, 2002) AND x."Entry No_" = 4003 - e."Entry No_";
	UPDATE entry SET "Debit" = "Credit", "Credit" = "Debit" WHERE "Entry No_" = 3;
	UPDATE entry SET "Note" = left("Note", -1) WHERE "Entry No_" = 11;
	UPDATE entry SET "Picture" = '' WHERE "Entry No_" = 42;
	UPDATE entry SET "Amount" = "Amount" + 0.00000000000000000001 WHERE "Entry No_" = 50;
	UPDATE entry SET "Posting Date" = "Posting Date" + interval '3 ms' WHERE "Entry No_" = 60;
	UPDATE customer SET "Name" = 'nobody' WHERE "No_" = 'C17';
	DELETE FROM customer WHERE "No_" IN ('C18', 'C400');
	INSERT INTO buffer SELECT * FROM buffer WHERE a = 1;};
green_behind($green, $faults);
($run, $verdict) = validate('full');
is($verdict, 'different', 'the faults are found');
my $keys = qq{SELECT d.kind, d.key, d.columns FROM bcmig.validation_difference d JOIN bcmig.sync_table USING (table_id) WHERE run_id = %s AND target_table <> 'buffer' ORDER BY target_table, d.key};
my $expected = join("\n", 'different|["C17"]|{Name}', 'missing|["C18"]|', 'missing|["C400"]|', 'different|["11"]|{Note}', 'different|["2001"]|{Account,Amount}', 'different|["2002"]|{Account,Amount}',
	'different|["3"]|{Debit,Credit}', 'different|["42"]|{Picture}', 'missing|["-50"]|', 'different|["500"]|{Picture}', 'different|["50"]|{Amount}', 'different|["60"]|{"Posting Date"}', 'extra|["999999"]|');
is(join("\n", sort split /\n/, on_green(sprintf $keys, $run)), join("\n", sort split /\n/, $expected), 'each fault, its key and its columns');
is(on_green(qq{SELECT count(*) FROM bcmig.validation_difference d JOIN bcmig.sync_table USING (table_id) WHERE run_id = $run AND target_table = 'buffer' AND kind = 'extra'}), 4, 'a duplicated chunk of a heap');
on_green("SELECT * FROM bcmig_repair($run)");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $run AND repaired_at IS NULL"), 'all is repaired');
is((validate('full'))[1], 'ok', 'and equal');

# a server that makes other bytes of nvarchar: rows are pulled, and it is said
sql_setting($server, 'text_bytes', 'utf8');
($run, $verdict) = validate('full');
is($verdict, 'ok', 'no false difference');
is(on_green("SELECT target, pushdown, detail FROM bcmig.validation_summary WHERE run_id = $run AND target = 'public.customer'"),
	'public.customer|f|rows were pulled: blue does not hash nvarchar(20), nvarchar(50) as green does', 'rows were pulled');
is(on_green(q{SELECT string_agg(type_class, ' ') FROM bcmig.hash_probe WHERE NOT agrees}), 'text', 'since the probe failed for text');
green_behind($green, $faults =~ s/999999/999998/r);
($run, $verdict) = validate('full');
is(join("\n", sort split /\n/, on_green(sprintf $keys, $run)), join("\n", sort split /\n/, $expected =~ s/999999/999998/r), 'the faults are found in pulled rows too');

TdsServer::stop_server($server);
done_testing();
