# One record of a base table and its companions on SQL Server: a change of any
# part re-reads and replaces the whole record.
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
my $other = 'ec255f57-31d0-4ca2-b751-f2fa7c745abb';

# c: change tracking, r: row versions only; a second companion is keyed by a column that is not the base's key
foreach my $t (qw(c r))
{
	my $tracked = $t eq 'c' ? 'true' : 'false';
	$blue->safe_psql('postgres', qq{
		CREATE TABLE $t ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) NOT NULL, "Line" int NOT NULL UNIQUE, "Name" varchar(50) NOT NULL DEFAULT '', "\$systemId" uuid NOT NULL DEFAULT gen_random_uuid(), PRIMARY KEY ("No_"));
		CREATE TABLE ${t}_ext ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) NOT NULL PRIMARY KEY, "Shop No_\$$other" varchar(30) NOT NULL DEFAULT '', "Rate\$$other" numeric(38,20) NOT NULL DEFAULT 0);
		CREATE TABLE ${t}_two ("timestamp" bigint NOT NULL DEFAULT 0, "Line" int NOT NULL PRIMARY KEY, "Note" varchar(30) NOT NULL DEFAULT '');
		INSERT INTO $t SELECT 0, 'C' || i, i, 'n' || i FROM generate_series(1, 300) i;
		INSERT INTO ${t}_ext SELECT 0, 'C' || i, 's' || i, i / 3.0 FROM generate_series(1, 300) i WHERE i % 3 > 0;
		INSERT INTO ${t}_two SELECT 0, i, 't' || i FROM generate_series(1, 300) i WHERE i % 2 > 0;
		SELECT mssql.register('$t', 'X\$Customer $t\$$app', $tracked), mssql.register('${t}_ext', 'X\$Customer $t\$$app\$ext', $tracked), mssql.register('${t}_two', 'X\$Customer $t\$$other', $tracked);
		CREATE VIEW ${t}_record AS SELECT b."No_", b."Line", b."Name", b."\$systemId", e."Shop No_\$$other" AS shop, e."Rate\$$other" AS rate, w."Note" FROM $t b LEFT JOIN ${t}_ext e USING ("No_") LEFT JOIN ${t}_two w ON w."Line" = b."Line";});
}
connect_sql_server($green, $server, 's', '{"max_delete_percent": 60}');
$green->safe_psql('postgres', qq{SELECT bcmig_add_table('s', 'X\$Customer $_\$$app', 'public.$_', '{"companions": ["X\$Customer $_\$$app\$ext", "X\$Customer $_\$$other"]}')}) foreach qw(c r);
is($green->safe_psql('postgres', q{SELECT string_agg(target_table || ':' || capture, ' ' ORDER BY target_table) FROM bcmig.sync_table}), 'c:change_tracking r:rowversion', 'a record is captured as its parts are tracked');
$green->safe_psql('postgres', qq{CREATE VIEW ${_}_record AS SELECT "No_", "Line", "Name", "\$systemId", "Shop No_\$$other" AS shop, "Rate\$$other" AS rate, "Note" FROM $_}) foreach qw(c r);
my ($ret, $out, $err) = $green->psql('postgres', qq{\\set VERBOSITY verbose\nSELECT bcmig_add_table('s', 'X\$Customer c\$$other', 'public.bad', '{"companions": ["X\$Customer c\$$app\$ext"]}')});
like($err, qr/BM010.*"No_" of the key of companion.*does not exist in its base/s, 'a companion whose key the base lacks is refused');
start_sync($green, 's');
wait_sync($green, 's');
my @columns = ('"No_"', '"Line"', '"Name"', '"$systemId"', 'shop', 'rate', '"Note"');

sub equal
{
	my ($what) = @_;
	wait_sync($green, 's');
	is(compare_table($blue, $green, "${_}_record", "${_}_record", join(', ', @columns)), '', "$what: $_") foreach qw(c r);
}
equal('copied');
sub both { $blue->safe_psql('postgres', $_[0] =~ s/\bT\b/$_/gr =~ s/\bT_/${_}_/gr) foreach qw(c r) }

both(q{UPDATE T SET "Name" = 'base only' WHERE "Line" <= 20});
equal('the base changed');
both(qq{UPDATE T_ext SET "Shop No_\$$other" = 'ext only' WHERE "No_" IN ('C31', 'C32'); INSERT INTO T_ext ("No_", "Shop No_\$$other") VALUES ('C33', 'new'); UPDATE T_two SET "Note" = 'two only' WHERE "Line" IN (41, 43); INSERT INTO T_two VALUES (0, 42, 'new')});
equal('companions changed');
both(qq{BEGIN; UPDATE T SET "No_" = 'R' || "No_" WHERE "Line" BETWEEN 50 AND 60; UPDATE T_ext SET "No_" = 'R' || "No_" WHERE "No_" IN (SELECT 'C' || i FROM generate_series(50, 60) i); COMMIT});
equal('renamed');
both(q{DELETE FROM T WHERE "Line" BETWEEN 70 AND 80; DELETE FROM T_ext WHERE "No_" IN (SELECT 'C' || i FROM generate_series(70, 80) i)});
$green->safe_psql('postgres', q{SELECT bcmig_sweep_deletes('s', 'public.r')});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 289 FROM r'), 'deletes of the base are found by the sweep');
equal('deleted');
# a companion row alone goes: seen by change tracking
$blue->safe_psql('postgres', q{DELETE FROM c_ext WHERE "No_" IN ('C1', 'C2'); DELETE FROM c_two WHERE "Line" = 1});
equal('companion rows deleted');
# base and companion in two transactions that overlap
my $late = $blue->background_psql('postgres', on_error_die => 1);
$late->query_safe(qq{BEGIN; UPDATE c_ext SET "Rate\$$other" = 77 WHERE "No_" = 'C100'; UPDATE r_ext SET "Rate\$$other" = 77 WHERE "No_" = 'C100'});
both(q{UPDATE T SET "Name" = 'overlaps' WHERE "No_" = 'C100'});
ok($green->poll_query_until('postgres', q{SELECT (SELECT "Name" FROM c WHERE "No_" = 'C100') = 'overlaps' AND (SELECT "Name" FROM r WHERE "No_" = 'C100') = 'overlaps'}), 'the base change arrives');
$late->query_safe('COMMIT');
$late->quit;
equal('base and companion in two transactions');
$blue->safe_psql('postgres', 'TRUNCATE c_two');
ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM bcmig.timeline WHERE target = 'public.c' AND event = 'resync'}), 'TRUNCATE of a companion: resync');
equal('companion truncated');

TdsServer::stop_server($server);
done_testing();
