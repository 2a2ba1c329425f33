# Discovery of a Business Central database on SQL Server, and a company in one call.
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
my $shop = 'ec255f57-31d0-4ca2-b751-f2fa7c745abb';
my $n = 0;

# a table under a name of BC's; $more are columns beside timestamp and key
sub table
{
	my ($name, $key, $more, $system) = @_;
	my $rel = sprintf('t%03d', ++$n);
	my @parts = ('"timestamp" bigint NOT NULL DEFAULT 0', map({ "\"$_\" varchar(30) NOT NULL DEFAULT ''" } @$key), $more || ());
	push @parts, '"$systemId" uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE' if $system // 1;
	push @parts, 'PRIMARY KEY (' . join(', ', map { "\"$_\"" } @$key) . ')' if @$key;
	$blue->safe_psql('postgres', "CREATE TABLE $rel (" . join(', ', @parts) . "); SELECT mssql.register('$rel', \$q\$$name\$q\$)");
	return $rel;
}

my $company = table('Company', ['Name'], '"Display Name" varchar(250) NOT NULL DEFAULT \'\'', 0);
my $property = table('$ndo$dbproperty', [], 'invalididentifierchars varchar(50)', 0);
$blue->safe_psql('postgres', qq{INSERT INTO $company ("Name") VALUES ('CRONUS International Ltd.'), ('CRONUS'), ('A\$B/C %'); INSERT INTO $property (invalididentifierchars) VALUES ('."\\/''%[]');});

my $c = 'CRONUS International Ltd_';
my $customer = table("$c\$Customer\$$app", ['No_'], q{"Name" varchar(100) NOT NULL DEFAULT '', "Credit Limit (LCY)" numeric(38,20) NOT NULL DEFAULT 0, "VAT _" int NOT NULL DEFAULT 0, "Order" int NOT NULL DEFAULT 0});
my $ext = table("$c\$Customer\$$app\$ext", ['No_'], qq{"Shop No_\$$shop" varchar(20) NOT NULL DEFAULT '', "Name\$$shop" varchar(20) NOT NULL DEFAULT ''}, 0);
my $entry = table("$c\$G_L Entry\$$app", ['Entry No_'], '"Amount" numeric(38,20) NOT NULL DEFAULT 0');
my $comment = table("$c\$Comment Line\$$app", [ 'Table Name', 'No_' ], '"Comment" varchar(80) NOT NULL DEFAULT \'\'');
my $old = table("$c\$Comment Line\$$shop", [ 'Table Name', 'No_' ], '"Extra" int NOT NULL DEFAULT 0', 0);
my $series = table("$c\$No_ Series\$$app", ['Code']);
my $moved = table("$c\$No_ Series\$f3552374-a1f2-4356-848e-196002525837", ['Code'], '"Description" varchar(100) NOT NULL DEFAULT \'\'');
my $user = table("$c\$User\$$app", ['Code']);
my $long = table("$c\$A Table With A Really Long Name\$$shop", ['Code']);
my $heap = table("$c\$Import Buffer\$$shop", [], 'a int, b varchar(10)', 0);
my $nav = table('CRONUS$Item', ['No_']);
my $dollar = table("A\$B_C _\$Customer\$$app", ['No_']);
table("Gone Ltd_\$Customer\$$app", ['No_']);
table("Upgrade Tags\$63ca2fa4-4f03-4f2b-a480-172fef340d3f", ['Tag']);
table('Active Session', ['Server Instance ID']);
table('Tenant Media', ['ID']);
$blue->safe_psql('postgres', qq{
	INSERT INTO $customer ("No_", "Name", "Credit Limit (LCY)", "VAT _", "Order") SELECT 'C' || i, 'n' || i, i / 3.0, i, -i FROM generate_series(1, 200) i;
	INSERT INTO $ext ("No_", "Shop No_\$$shop", "Name\$$shop") SELECT 'C' || i, 's' || i, 'x' FROM generate_series(1, 150) i;
	INSERT INTO $entry ("Entry No_", "Amount") SELECT i, i FROM generate_series(1, 300) i;
	INSERT INTO $comment SELECT 0, 'T', i, 'c' FROM generate_series(1, 50) i; INSERT INTO $old SELECT 0, 'T', i, i FROM generate_series(1, 20) i;
	INSERT INTO $series ("Code") VALUES ('A'); INSERT INTO $moved ("Code") VALUES ('A'), ('B'); INSERT INTO $heap (a, b) VALUES (1, 'x'), (1, 'x'), (NULL, NULL);
	INSERT INTO $nav ("No_") VALUES ('I1'); INSERT INTO $dollar ("No_") VALUES ('D1');});

connect_sql_server($green, $server, 's');
is($green->safe_psql('postgres', q{SELECT company, tables, suggested_schema FROM bcmig_companies('blue') ORDER BY 1}),
	"A\$B/C %|1|a_b_c\nCRONUS|1|cronus\nCRONUS International Ltd.|10|cronus_international_ltd", 'companies, the longest prefix counts');
is($green->safe_psql('postgres', q{SELECT al_table, shape, companion_of IS NOT NULL, company, left_out FROM bcmig_discover('blue') WHERE shape <> 'base' ORDER BY source_table COLLATE "C"}), join("\n",
	'$ndo$dbproperty|platform|f||bookkeeping of the platform',
	'Active Session|platform|f||sessions',
	'Comment Line|app_companion|t|CRONUS International Ltd.|',
	'Customer|companion|t|CRONUS International Ltd.|',
	'Company|shared|f||',
	"Gone Ltd_\$Customer|orphan|f||of a company that is not in table Company",
	'Tenant Media|shared|f||',
	'Upgrade Tags|shared|f||'), 'shapes by name, key and $systemId');
is($green->safe_psql('postgres', q{SELECT string_agg(DISTINCT latency, E'\n' ORDER BY latency) FROM bcmig_discover('blue', 'CRONUS International Ltd_')}),
	"max_latency: change tracking, kept for 7 DAYS\nsweep_interval: no key, compared as a whole", 'how long changes take, and why; the company by its mapped name');
my ($ret, $out, $err) = $green->psql('postgres', q{SELECT * FROM bcmig_add_company('s', 'Cronus')});
like($err, qr/blue has no company "Cronus".*"CRONUS"/s, 'a company that is not there, with those that are');

is($green->safe_psql('postgres', q{SELECT target, capture FROM bcmig_add_company('s', 'CRONUS International Ltd.') ORDER BY 1}) =~ s/no_series_[0-9a-f]{8}/no_series_HASH/r, join("\n",
	'cronus_international_ltd.a_table_with_a_really_long_name|change_tracking',
	'cronus_international_ltd.comment_line|change_tracking',
	'cronus_international_ltd.customer|change_tracking',
	'cronus_international_ltd.g_l_entry|change_tracking',
	'cronus_international_ltd.import_buffer|snapshot',
	'cronus_international_ltd.no_series|change_tracking',
	'cronus_international_ltd."No_ Series_HASH"|change_tracking',
	'cronus_international_ltd.user_|change_tracking') =~ s/"No_ Series_HASH"/no_series_HASH/r, 'a table per record, names as PostgreSQL users type them');
is($green->safe_psql('postgres', q{SELECT string_agg(target_column, ' ' ORDER BY ordinal) FROM bcmig.column_map JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'customer'}) =~ s/name_[0-9a-f]{8}/name_HASH/r,
	'no name credit_limit_lcy vat order_ system_id shop_no name_HASH', 'columns of base and companion');
($ret, $out, $err) = $green->psql('postgres', q{SELECT * FROM bcmig_add_company('s', 'CRONUS International Ltd.')});
like($err, qr/already/, 'twice is an error');
is($green->safe_psql('postgres', q{SELECT target FROM bcmig_add_company('s', 'CRONUS', 'nav', '{"naming": "source"}')}), 'nav."Item"', 'naming source');
is($green->safe_psql('postgres', q{SELECT target FROM bcmig_add_company('s', 'A$B/C %')}), 'a_b_c.customer', 'a $ in the name of the company');
start_sync($green, 's');
wait_sync($green, 's');
is($green->safe_psql('postgres', q{SELECT (SELECT count(*) FROM cronus_international_ltd.customer WHERE shop_no IS NULL), (SELECT sum(credit_limit_lcy * vat + order_) FROM cronus_international_ltd.customer),
	(SELECT sum(extra) FROM cronus_international_ltd.comment_line), (SELECT count(*) FROM cronus_international_ltd.import_buffer), (SELECT count(*) FROM nav."Item"), (SELECT no FROM a_b_c.customer)}),
	$blue->safe_psql('postgres', qq{SELECT 50, sum("Credit Limit (LCY)" * "VAT _" + "Order"), 210, 3, 1, 'D1' FROM $customer}), 'the rows are there');
$blue->safe_psql('postgres', qq{UPDATE $ext SET "Shop No_\$$shop" = 'changed' WHERE "No_" = 'C7'; INSERT INTO $moved ("Code") VALUES ('C');});
wait_sync($green, 's');
is($green->safe_psql('postgres', q{SELECT shop_no FROM cronus_international_ltd.customer WHERE no = 'C7'}), 'changed', 'and stay in step');


# only what bcmig asked for is ever turned off: here one table's tracking, and its companion's
$blue->safe_psql('postgres', qq{CREATE TABLE untracked ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY); CREATE TABLE untracked_ext ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY);
	SELECT mssql.register('untracked', 'A\$B_C _\$Vendor\$$app', false), mssql.register('untracked_ext', 'A\$B_C _\$Vendor\$$app\$ext', false)});
$green->safe_psql('postgres', qq{SELECT bcmig_add_table('s', 'A\$B_C _\$Vendor\$$app', 'a_b_c.vendor', '{"companions": ["A\$B_C _\$Vendor\$$app\$ext"]}')});
unlike($green->safe_psql('postgres', q{SELECT bcmig_blue_script('cleanup', 's')}), qr/DISABLE CHANGE_TRACKING/, 'nothing was asked for yet');
like($green->safe_psql('postgres', q{SELECT bcmig_blue_script('tracking', 's')}), qr/ALTER TABLE \[dbo\]\.\[A\$B_C _\$Vendor\$$app\$ext\] ENABLE CHANGE_TRACKING/, 'companions are tracked as well');
is(join("\n", sort $green->safe_psql('postgres', q{SELECT bcmig_blue_script('cleanup', 's')}) =~ /ALTER TABLE (\S.*) DISABLE/g),
	"[dbo].[A\$B_C _\$Vendor\$$app\$ext]\n[dbo].[A\$B_C _\$Vendor\$$app]", 'cleanup takes back what was asked for, no more');

TdsServer::stop_server($server);
done_testing();
