# The fence of a SQL Server blue: scripts for a person, and what blue's catalogue
# says of the rights of Business Central's user.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use TdsServer;
use IPC::Run;
use Test::More;

my $server = new_sql_server();
my $blue = $server->{node};
my $green = new_green();
my $source = $ENV{BCMIG_SOURCE} // '.';

$blue->safe_psql('postgres', q{
	CREATE TABLE customer ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, name varchar(50) NOT NULL DEFAULT '');
	CREATE TABLE customer_ext ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, extra int NOT NULL DEFAULT 0);
	CREATE TABLE other ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY);
	SELECT mssql.register('customer', 'CRONUS]''s$Customer'), mssql.register('customer_ext', 'CRONUS]''s$Customer$ext'), mssql.register('other', 'Other$Customer');
	INSERT INTO customer ("No_") VALUES ('1'); INSERT INTO customer_ext ("No_") VALUES ('1');
	INSERT INTO mssql.principal VALUES (6, 'CONTOSO\bc', 'CONTOSO\bc', false), (7, 'admin', 'admin', true);});
connect_sql_server($green, $server, 's', '{"traffic_timeout": "60s"}');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'CRONUS]''s$Customer', 'customer', '{"companions": ["CRONUS]''s$Customer$ext"]}')});
sub option { $green->safe_psql('postgres', "SELECT bcmig_alter_environment('blue', '$_[0]')") }

sub try_fence { return try_blue_fence($green, 's', @_) }

sub state_is
{
	my ($state, $what) = @_;
	like(try_fence('read'), qr/^read: now $state/, $what);
}

sub script { return $green->safe_psql('postgres', "SELECT bcmig_blue_script('$_[0]', 's')") }

# What the grammar has against a script.
sub grammar
{
	my ($text) = @_;
	my ($out, $err);
	IPC::Run::run([ '/usr/bin/python3', '-c', 'import sys; sys.path.insert(0, sys.argv[1]); from grammar import Grammar; print(Grammar(sys.argv[2]).accepts(sys.stdin.read()))',
		"$source/test/tds_server", "$source/tsql-verdicts" ], '<', \$text, '>', \$out, '2>', \$err) or return $err;
	chomp $out;
	return $out;
}

# DENY and REVOKE of a script, as a person runs it.
sub run_script
{
	my ($text) = @_;
	my $n = 0;
	while ($text =~ /^(DENY|REVOKE) ([A-Z, ]+) ON \[dbo\]\.\[((?:[^\]]|\]\])*)\] (?:TO|FROM) \[((?:[^\]]|\]\])*)\];$/mg)
	{
		my ($verb, $rights, $table, $user) = ($1, $2, $3, $4);
		s/\]\]/]/g foreach $table, $user;
		my $of = "FROM mssql.object o, mssql.principal p, regexp_split_to_table('$rights', ', ') r WHERE o.name = \$t\$$table\$t\$ AND p.name = \$t\$$user\$t\$";
		$blue->safe_psql('postgres', "DELETE FROM mssql.permission x WHERE column_id = 0 AND (x.object_id, x.principal_id, x.permission_name) IN (SELECT o.object_id, p.principal_id, r $of)");
		$blue->safe_psql('postgres', "INSERT INTO mssql.permission SELECT o.object_id, 0, p.principal_id, r, 'D' $of") if $verb eq 'DENY';
		$n++;
	}
	return $n;
}

like(script('fence'), qr/\A(--[^\n]*\n)+\z/, 'without bc_login the script only tells what to do');
option('{"fence_by": "call"}');
sub fence_check { return $green->safe_psql('postgres', q{SELECT status, value, bound FROM bcmig_preflight('s') WHERE check_name = 'fence'}) }
is(fence_check(), 'warn|call|confirm or hook', 'preflight: bcmig cannot do it itself');
start_sync($green, 's');
wait_sync($green, 's');
like(try_fence('fence'), qr/^fence: bcmig cannot fence a SQL Server blue itself/, 'and says so when it is to');
option('{"fence_by": "confirm"}');
is(fence_check(), 'warn|not to be seen|bc_login', 'preflight: a person will have to say so');

# --- nobody said who Business Central is ---
like(try_fence('fence'), qr/^fence: now unknown: 2 of 2 tables.*option bc_login is not set/, 'unknown');
$green->safe_psql('postgres', q{SELECT bcmig_confirm('s', 'fence', 'the service is stopped')});
state_is('fenced: \w+ says so \(the service is stopped\)', 'a person knows');
like(try_fence('unfence'), qr/^unfence: now unknown/, 'but not for the next time');

# --- DENY ---
option('{"bc_login": "CONTOSO\\\\bc"}');
is(fence_check(), 'ok|confirm|', 'preflight: it can be seen');
state_is('open: 2 of 2 tables can be written to, such as dbo\..*writes are not denied', 'not denied');
$green->safe_psql('postgres', q{SELECT bcmig_confirm('s', 'fence', 'I think so')});
state_is('open', 'where blue can tell nobody knows better');
my $fence = script('fence');
is(grammar($fence), 'None', 'script fence is T-SQL');
isnt(grammar($fence =~ s/ TO \[/ [/r), 'None', 'which is more than anything');
like($fence, qr/DENY INSERT, UPDATE, DELETE, ALTER ON \[dbo\]\.\[CRONUS\]\]'s\$Customer\$ext\] TO \[CONTOSO\\bc\];/, 'companions too, names quoted');
like($fence, qr/EXECUTE AS USER = N'CONTOSO\\bc';\nSELECT t\.n, HAS_PERMS_BY_NAME.*\nREVERT;/s, 'and shows what that user may do then');
unlike($fence, qr/Other/, 'only tables of the sync');
is(run_script($fence), 2, 'two tables');
state_is('fenced: 2 tables, such as dbo\..*writes are denied', 'denied');

# --- what does not bind ---
like(try_fence('fence'), qr/^fence: now fenced/, 'asked for: what was said before is of no account from now on');
my $ext = q{(SELECT object_id FROM mssql.object WHERE name LIKE '%$ext')};
foreach my $case (
	[ 'a right left', "DELETE FROM mssql.permission WHERE object_id = $ext AND permission_name = 'DELETE'", "INSERT INTO mssql.permission VALUES ($ext, 0, 6, 'DELETE', 'D')", 'partly: 1 of 2' ],
	[ 'TRUNCATE', "DELETE FROM mssql.permission WHERE object_id = $ext AND permission_name = 'ALTER'", "INSERT INTO mssql.permission VALUES ($ext, 0, 6, 'ALTER', 'D')", 'partly: 1 of 2' ],
	[ 'a grant instead', "UPDATE mssql.permission SET state = 'G' WHERE object_id = $ext AND permission_name = 'INSERT'", "UPDATE mssql.permission SET state = 'D'", 'partly: 1 of 2' ],
	[ 'another user', "INSERT INTO mssql.principal VALUES (8, 'second', 'second'); UPDATE mssql.permission SET principal_id = 8 WHERE object_id = $ext", 'UPDATE mssql.permission SET principal_id = 6', 'partly: 1 of 2' ],
	[ 'a column', "INSERT INTO mssql.permission VALUES ($ext, 2, 6, 'UPDATE', 'G')", 'DELETE FROM mssql.permission WHERE column_id > 0', 'partly: 1 of 2 .*grant of a column' ],
	[ 'a sysadmin', 'UPDATE mssql.principal SET sysadmin = true WHERE principal_id = 6', 'UPDATE mssql.principal SET sysadmin = false WHERE principal_id = 6', 'unknown: 2 of 2.*sysadmin, which DENY does not bind: stop the service' ],
	[ 'perhaps a sysadmin', q{UPDATE mssql.setting SET value = 'SERVER ROLE' WHERE name = 'deny'}, q{UPDATE mssql.setting SET value = '' WHERE name = 'deny'}, 'unknown: 2 of 2.*cannot be seen' ],
	[ 'rights that cannot be seen', q{UPDATE mssql.setting SET value = 'VIEW DEFINITION' WHERE name = 'deny'}, q{UPDATE mssql.setting SET value = '' WHERE name = 'deny'}, 'open: 2 of 2' ],
	[ 'the owner of the tables', 'CREATE OR REPLACE VIEW sys.schemas AS SELECT 1 AS schema_id, \'dbo\' AS name, 6 AS principal_id', 'CREATE OR REPLACE VIEW sys.schemas AS SELECT 1 AS schema_id, \'dbo\' AS name, 1 AS principal_id', 'open: 2 of 2.*owner' ])
{
	my ($what, $do, $undo, $state) = @$case;
	$blue->safe_psql('postgres', $do);
	state_is($state, "no fence: $what");
	$blue->safe_psql('postgres', $undo);
}
state_is('fenced', 'all is as it was');
foreach my $login ([ 'dbo', 'dbo, which DENY does not bind' ], [ 'CONTOSO\\\\owner', 'dbo, which DENY does not bind' ], [ 'admin', 'sysadmin' ], [ "no one", 'has no user no one' ])
{
	option(qq({"bc_login": "$login->[0]"}));
	state_is("unknown: 2 of 2 .*$login->[1]", "bc_login $login->[0]");
}
like(try_fence('fence'), qr/^fence: now unknown/, 'such a one is asked for');
$green->safe_psql('postgres', q{SELECT bcmig_confirm('s', 'fence', 'the service is stopped')});
state_is('fenced: \w+ says so', 'and confirmed by a person');
like(try_fence('unfence'), qr/^unfence: now unknown/, 'until it is to be open');

# --- READ_ONLY binds all ---
$blue->safe_psql('postgres', q{UPDATE mssql.setting SET value = 'READ_ONLY' WHERE name = 'updateability'});
option('{"bc_login": null}');
state_is('fenced: 2 tables.*read-only', 'a read-only database');
$blue->safe_psql('postgres', q{UPDATE mssql.setting SET value = 'READ_WRITE' WHERE name = 'updateability'});

# --- and back ---
option('{"bc_login": "CONTOSO\\\\bc"}');
my $unfence = script('unfence');
is(grammar($unfence), 'None', 'script unfence is T-SQL');
state_is('fenced', 'still denied');
$blue->safe_psql('postgres', "INSERT INTO mssql.permission SELECT object_id, 0, 6, 'SELECT', 'D' FROM mssql.object");
is(run_script($unfence), 2, 'two tables');
state_is('open: 2 of 2', 'open');
is($blue->safe_psql('postgres', q{SELECT count(*), min(permission_name) FROM mssql.permission}), '3|SELECT', 'nothing else was taken back');

# --- a table that is gone ---
$blue->safe_psql('postgres', 'DROP TABLE customer_ext');
state_is('partly|open: 1 of 2', 'a table that is gone leaves the other open');

done_testing();
