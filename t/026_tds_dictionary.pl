# What Business Central's own dictionary says: types, names of values, keys;
# shared tables; green tables made once the sync runs.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use TdsServer;
use IO::Compress::RawDeflate qw(rawdeflate);
use Test::More;

my $server = new_sql_server();
my $blue = $server->{node};
my $green = new_green();
my $base = '437dbf0e-84ff-417a-965d-ed2bb9650972';
my $shop = 'ec255f57-31d0-4ca2-b751-f2fa7c745abb';
my $c = 'CRONUS_';

# an XML document as Business Central stores it
sub stored
{
	my ($xml) = @_;
	rawdeflate(\$xml => \my $deflated) or die;
	return '\\x02457D5B' . unpack('H*', $deflated);
}

my $aom = q{CREATE TABLE aom ("timestamp" bigint NOT NULL DEFAULT 0, "Runtime Package ID" uuid NOT NULL DEFAULT gen_random_uuid(), "Package ID" uuid NOT NULL, "Object Type" int NOT NULL,
		"Object ID" int NOT NULL, "Object Name" varchar(30) NOT NULL, "Object Subtype" varchar(250) NOT NULL DEFAULT '', "Metadata" bytea, PRIMARY KEY ("Package ID", "Object Type", "Object ID"));};
my %package = ($base => '11111111-0000-0000-0000-000000000001', $shop => '22222222-0000-0000-0000-000000000002');
$blue->safe_psql('postgres', qq{
	CREATE TABLE company ("timestamp" bigint NOT NULL DEFAULT 0, "Name" varchar(30) PRIMARY KEY, "Display Name" varchar(250) NOT NULL DEFAULT '');
	CREATE TABLE property (invalididentifierchars varchar(50));
	$aom
	CREATE TABLE installed ("App ID" uuid NOT NULL, "Package ID" uuid NOT NULL, "Name" varchar(250) NOT NULL, PRIMARY KEY ("App ID"));
	CREATE TABLE customer ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Name" varchar(100) NOT NULL DEFAULT '', "Blocked" int NOT NULL DEFAULT 0,
		"Balance Date" timestamp(3) NOT NULL DEFAULT '1753-01-01', "Opens" timestamp(3) NOT NULL DEFAULT '1753-01-01', "Seen At" timestamp(3) NOT NULL DEFAULT '1753-01-01',
		"Privacy" smallint NOT NULL DEFAULT 0, "Old_ Field" int NOT NULL DEFAULT 0, "\$systemId" uuid NOT NULL DEFAULT gen_random_uuid(), "\$systemCreatedAt" timestamp(3) NOT NULL DEFAULT '1753-01-01');
	CREATE TABLE customer_ext ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Shop Status\$$shop" int NOT NULL DEFAULT 0, "Hidden\$$shop" int NOT NULL DEFAULT 0);
	CREATE TABLE broken ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY);
	CREATE TABLE usr ("timestamp" bigint NOT NULL DEFAULT 0, "User Security ID" uuid PRIMARY KEY, "User Name" varchar(50) NOT NULL DEFAULT '', "Windows Security ID" varchar(119) NOT NULL DEFAULT '');
	CREATE TABLE media ("timestamp" bigint NOT NULL DEFAULT 0, "ID" uuid PRIMARY KEY, "Content" bytea);
	CREATE TABLE tags ("timestamp" bigint NOT NULL DEFAULT 0, "Tag" varchar(250) PRIMARY KEY);
	CREATE INDEX k2 ON customer ("Name");
	SELECT mssql.register('company', 'Company'), mssql.register('property', '\$ndo\$dbproperty'), mssql.register('aom', 'Application Object Metadata'), mssql.register('installed', 'NAV App Installed App'),
		mssql.register('customer', '$c\$Customer\$$base'), mssql.register('customer_ext', '$c\$Customer\$$base\$ext'), mssql.register('broken', '$c\$G_L Entry\$$base'),
		mssql.register('usr', 'User'), mssql.register('media', 'Tenant Media'), mssql.register('tags', 'Upgrade Tags\$$base');
	INSERT INTO company ("Name") VALUES ('CRONUS.'); INSERT INTO property VALUES ('."\\/''%[]');
	INSERT INTO installed VALUES ('$base', '$package{$base}', 'Base Application'), ('$shop', '$package{$shop}', 'Shop');
	INSERT INTO customer ("No_", "Name") VALUES ('C1', 'one'), ('C2', 'two'); INSERT INTO usr VALUES (0, gen_random_uuid(), 'ADMIN', 'S-1-5-21');
	INSERT INTO media VALUES (0, gen_random_uuid(), decode(repeat('00ff', 50000), 'hex'));});

my @objects;
sub object
{
	my ($app, $type, $id, $name, $subtype, $document, $other) = @_;
	my $p = $other // $package{$app};
	push @objects, qq{INSERT INTO aom ("Package ID", "Object Type", "Object ID", "Object Name", "Object Subtype", "Metadata") VALUES ('$p', $type, $id, '$name', '$subtype', '$document');};
}

object($base, 1, 18, 'Customer', '', stored(qq{<?xml version="1.0" encoding="utf-8"?><MetaTable xmlns="urn:schemas-microsoft-com:dynamics:NAV:MetaObjects" ID="18" Name="Customer" SourceAppId="$base"><Fields>
	<Field ID="1" Name="No." Datatype="Code" DataLength="20"/><Field ID="2" Name="Name" Datatype="Text" DataLength="100"/>
	<Field ID="39" Name="Blocked" Datatype="Option" EnumTypeId="39"/><Field ID="50" Name="Balance Date" Datatype="Date"/><Field ID="51" Name="Opens" Datatype="Time"/>
	<Field ID="52" Name="Seen At" Datatype="DateTime"/><Field ID="53" Name="Privacy" Datatype="Option" OptionString=" ,Private,Public"/><Field ID="58" Name="Balance" Datatype="Decimal" FieldClass="FlowField"/>
	</Fields><Keys><Key Key="Field1" Name="Key1" Clustered="1"/><Key Key="Field2,Field39" Name="Key2"/><Key Key="Field50" Name="Key3" MaintainSQLIndex="0"/><Key Key="Field58" Name="Key4"/><Key Key="Field51" Name="Key5" Enabled="0"/></Keys></MetaTable>}));
object($base, 1, 18, 'Customer', '', stored('<MetaTable ID="18" Name="Customer"><Fields><Field ID="1" Name="No." Datatype="Integer"/></Fields></MetaTable>'), '99999999-0000-0000-0000-000000000009');
object($base, 1, 17, 'G/L Entry', '', '\\x02457D5Bffffffff');
object($base, 16, 39, 'Customer Blocked', '', stored('<Enum ID="39" Name="Customer Blocked"><Values><Value Ordinal="0" Name=" "/><Value Ordinal="1" Name="Ship"/><Value Ordinal="3" Name="All"/></Values></Enum>'));
object($shop, 17, 50000, 'Shop Blocked', '39', stored('<Enum ID="50000" Name="Shop Blocked"><Values><Value Ordinal="50000" Name="Web only"/></Values></Enum>'));
object($shop, 15, 50001, 'Shop Customer', '18', stored(qq{<MetadataRuntimeDeltas ID="50001" Name="Shop Customer" SourceAppId="$shop"><FieldAdd ID="50000" Name="Shop Status" Datatype="Option" OptionString="Open,Closed" SourceAppId="$shop"/></MetadataRuntimeDeltas>}));

$blue->safe_psql('postgres', "@objects");
connect_sql_server($green, $server, 's');
my ($ret, $out, $err) = $green->psql('postgres', q{SELECT * FROM bcmig_add_company('s', 'CRONUS.', 'cronus', '{"grant_select": ["analyst"]}')});
like($err, qr/role "analyst" of option grant_select does not exist/, 'a reader that is not there');
$green->safe_psql('postgres', 'CREATE ROLE analyst');
($ret, $out, $err) = $green->psql('postgres', q{SELECT target, capture FROM bcmig_add_company('s', 'CRONUS.', 'cronus', '{"indexes": "al", "views": true, "grant_select": ["analyst"]}') ORDER BY 1});
is($out, "cronus.customer|change_tracking\ncronus.g_l_entry|change_tracking", 'the company is added');
like($err, qr/WARNING:  metadata of object 17 "G\/L Entry" of type 1 cannot be read, SQL types are used.*offset/s, 'a damaged document is a warning');
is($green->safe_psql('postgres', q{SELECT target_column, coalesce(al_type, '?'), type_source FROM bcmig.column_map JOIN bcmig.sync_table USING (table_id) ORDER BY target_table, ordinal}), join("\n",
	'no|Code|metadata', 'name|Text|metadata', 'blocked|Enum|metadata', 'balance_date|Date|metadata', 'opens|Time|metadata', 'seen_at|DateTime|metadata', 'privacy|Option|metadata',
	'old_field|Integer|sql', 'system_id|GUID|sql', 'system_created_at|DateTime|sql', 'shop_status|Option|metadata', 'hidden|Integer|sql', 'no|Text|sql'), 'types, and where they are from');
is($green->safe_psql('postgres', q{SELECT target_column, string_agg(value || '=' || name, ',' ORDER BY value) FROM bcmig.enum_value JOIN bcmig.column_map USING (table_id, ordinal) GROUP BY 1 ORDER BY 1}), join("\n",
	'blocked|0= ,1=Ship,3=All,50000=Web only', 'privacy|0= ,1=Private,2=Public', 'shop_status|0=Open,1=Closed'), 'names of values, those of extensions too');
is($green->safe_psql('postgres', q{SELECT i->'columns' FROM bcmig.sync_table, jsonb_array_elements(indexes) i ORDER BY i->>'columns'}),
	qq{["Balance Date"]\n["Name", "Blocked"]}, 'an index for each enabled key that has columns');

is($green->safe_psql('postgres', q{SELECT source_table, target FROM bcmig_add_shared('s') ORDER BY 2}) =~ s/\$$base//r,
	"Company|bc_shared.company\nTenant Media|bc_shared.tenant_media\nUpgrade Tags|bc_shared.upgrade_tags\nUser|bc_shared.user_", 'shared tables');
is($green->safe_psql('postgres', q{SELECT string_agg(target_column, ',' ORDER BY ordinal) FROM bcmig.column_map JOIN bcmig.sync_table USING (table_id) WHERE source_table = 'User'}),
	'user_security_id,user_name', 'User without secrets');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.table_state WHERE made}), '0', 'nothing is made yet');
$green->safe_psql('postgres', q{UPDATE bcmig.column_map SET target_column = 'customer_name' WHERE target_column = 'name'});
is($green->safe_psql('postgres', q{SELECT check_name, status, detail FROM bcmig_preflight('s') WHERE check_name ~ '^(source|target)' AND status <> 'ok'}), '', 'preflight has nothing against tables that are not made yet');

# a table of that name comes in between: that table stops, the others go on
$green->safe_psql('postgres', 'CREATE TABLE bc_shared.upgrade_tags (x int)');
start_sync($green, 's');
ok($green->poll_query_until('postgres', q{SELECT state = 'suspended' AND reason ~ 'made by somebody else' FROM bcmig.table_status WHERE target = 'bc_shared.upgrade_tags'}), 'a table in the way is said');
$green->safe_psql('postgres', q{DROP TABLE bc_shared.upgrade_tags; SELECT bcmig_resume_table('s', 'bc_shared.upgrade_tags')});
wait_sync($green, 's', 'caught_up', '170 s');
is($green->safe_psql('postgres', q{SELECT string_agg(no || customer_name, ',' ORDER BY no) FROM cronus.customer}), 'C1one,C2two', 'the mapping was edited');
is($green->safe_psql('postgres', q{SELECT length(content), encode(substr(content, 99999, 2), 'hex') FROM bc_shared.tenant_media}), '100000|00ff', 'pictures of shared tables');
is($green->safe_psql('postgres', q{SELECT count(*) FROM pg_indexes WHERE schemaname = 'cronus' AND indexdef ~ '\((customer_name, blocked|balance_date)\)'}), '2', 'AL keys are indexes');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_class WHERE oid = to_regclass('cronus_read.customer')}), 'readable views come by themselves');
$blue->safe_psql('postgres', q{UPDATE customer SET "Balance Date" = '2026-12-31 23:59:59', "Opens" = '1754-01-01 08:30:00', "Blocked" = 3, "Privacy" = 1 WHERE "No_" = 'C1'});
wait_sync($green, 's', 'caught_up', '170 s');
is($green->safe_psql('postgres', q{SET ROLE analyst; SELECT balance_date, balance_date_is_closing, opens, seen_at IS NULL, blocked_name, privacy_name, shop_status FROM cronus_read.customer WHERE no = 'C1'}),
	'2026-12-31|t|08:30:00|t|All|Private|', 'and read as people do, by whom grant_select names');
$blue->safe_psql('postgres', q{UPDATE customer SET "Name" = 'new' WHERE "No_" = 'C2'});
wait_sync($green, 's', 'caught_up', '170 s');
is($green->safe_psql('postgres', q{SELECT customer_name FROM cronus.customer WHERE no = 'C2'}), 'new', 'and stays in step');

# the application database of a multitenant deployment
($ret, $out, $err) = $green->psql('postgres', q{SELECT bcmig_alter_environment('blue', '{"application_server": "nowhere"}'); SELECT * FROM bcmig_add_company('s', 'CRONUS.')});
like($err, qr/foreign server "nowhere", option application_server of environment "blue", does not exist/, 'an application server that is not there');

is($green->safe_psql('postgres', q{SELECT bcmig_remove_company('s', 'CRONUS.')}), '2', 'the company is taken out');
is($green->safe_psql('postgres', q{SELECT count(*) FROM cronus.customer}), '2', 'its green tables stay');
($ret, $out, $err) = $green->psql('postgres', q{SELECT bcmig_remove_company('s', 'CRONUS.')});
like($err, qr/sync "s" has no tables of company "CRONUS\."/, 'twice is an error');
my $application = new_sql_server('application');
sql_setting($application, 'database', 'BCApp');
$application->{node}->safe_psql('postgres', "$aom SELECT mssql.register('aom', 'Application Object Metadata'); @objects");
$blue->safe_psql('postgres', q{DELETE FROM aom});
$green->safe_psql('postgres', qq{CREATE SERVER application FOREIGN DATA WRAPPER tds_fdw OPTIONS (servername '127.0.0.1', port '$application->{port}', database 'BCApp', tds_version '7.4', character_set 'UTF-8', msg_handler 'notice');
	CREATE USER MAPPING FOR CURRENT_USER SERVER application OPTIONS (username 'bcmig_reader', password 'secret');
	SELECT bcmig_alter_environment('blue', '{"application_server": "application"}');});
is($green->safe_psql('postgres', q{SET client_min_messages = error; SELECT count(*) FROM bcmig_add_company('s', 'CRONUS.', 'again'); SELECT count(*) FROM bcmig.column_map WHERE type_source = 'metadata'}), "2\n8",
	'the dictionary of the application database, the apps of the tenant');

TdsServer::stop_server($application);
TdsServer::stop_server($server);
done_testing();
