# TdsServer.pm: a SQL Server that is none (test/tds_server), with its data in a
# PostgreSQL cluster of its own.
package TdsServer;

use strict;
use warnings;

use Cwd 'abs_path';
use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw(new_sql_server connect_sql_server sql_setting freetds_timeout script_accepted);

my $source = $ENV{BCMIG_SOURCE} // '.';
my %running;

# Statements are judged by a grammar, which takes seconds for a shape it has not
# seen: nothing may time out meanwhile, a minute unless all takes longer.
my $conf = abs_path(PostgreSQL::Test::Utils::tempdir()) . '/freetds.conf';
freetds_timeout(int($PostgreSQL::Test::Utils::timeout_default / 3));
$ENV{FREETDSCONF} = $conf;

# FreeTDS reads the file for every connection.
sub freetds_timeout
{
	my ($seconds) = @_;
	open(my $fh, '>', $conf) or die "$conf: $!";
	print $fh "[global]\ntds version = 7.4\nclient charset = UTF-8\ntext size = 2147483647\ntimeout = $seconds\nconnect timeout = 10\n";
	close $fh;
}

# Returns { node, port, handle }.  Write to node's database postgres.
sub new_sql_server
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name // 'sqlserver');
	my $server = { node => $node, port => PostgreSQL::Test::Cluster::get_free_port() };

	$node->init(extra => [ '--locale=C.UTF-8', '--encoding=UTF8' ]);
	$node->append_conf('postgresql.conf', "max_connections = 60\nmax_prepared_transactions = 10\nlog_min_messages = warning\n");
	$node->start;
	$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', "$source/test/tds_server/backing.sql" ],
		'backing database of the SQL Server stand-in');
	start_server($server);
	return $server;
}

sub start_server
{
	my ($server) = @_;
	my ($host, $pgport) = ($server->{node}->host, $server->{node}->port);
	my $user = (getpwuid($<))[0];
	my $out = '';

	$server->{handle} = IPC::Run::start(
		[ '/usr/bin/python3', "$source/test/tds_server/tds_server", '--port', $server->{port}, '--cache', "$source/tsql-verdicts",
			'--backing', "host=$host port=$pgport user=$user dbname=postgres" ],
		'<', \undef, '>', \$out, '2>>', $server->{node}->logfile . '.tds');
	$running{ $server->{port} } = $server->{handle};
	IPC::Run::pump($server->{handle}) until $out =~ /listening/;
}

sub stop_server
{
	my ($server) = @_;
	$server->{handle}->kill_kill;
	delete $running{ $server->{port} };
}

# also when the test dies; its exit code stays
END
{
	my $code = $?;
	$_->kill_kill for values %running;
	$? = $code;
}

# tds_fdw, server, user mapping and environment 'blue' on green; a sync when named.
sub connect_sql_server
{
	my ($green, $server, $sync, $options) = @_;
	$green->safe_psql('postgres', qq{
		CREATE EXTENSION IF NOT EXISTS tds_fdw;
		CREATE SERVER blue FOREIGN DATA WRAPPER tds_fdw OPTIONS (servername '127.0.0.1', port '$server->{port}', database 'BC', tds_version '7.4', character_set 'UTF-8', msg_handler 'notice');
		CREATE USER MAPPING FOR CURRENT_USER SERVER blue OPTIONS (username 'bcmig_reader', password 'secret');
		SELECT bcmig_add_environment('blue', 'blue', 'blue', options => '{"connect_timeout": "120s"}');});
	$green->safe_psql('postgres', "SELECT bcmig_create_sync('$sync', 'blue', '{\"maintenance_role\": \"bcmig_maintenance\"}' || '" . ($options // '{}') . "'::jsonb)")
	  if defined $sync;
}

# A setting of the stand-in; undef takes it away.
sub sql_setting
{
	my ($server, $name, $value) = @_;
	$server->{node}->safe_psql('postgres', "DELETE FROM mssql.setting WHERE name = '$name'");
	$server->{node}->safe_psql('postgres', "INSERT INTO mssql.setting VALUES ('$name', \$v\$$value\$v\$)") if defined $value;
}

# Does a grammar made elsewhere accept each batch of a script?
sub script_accepted
{
	my ($script, $batches, $what) = @_;
	my ($judged, $err) = ('', '');
	IPC::Run::run([ '/usr/bin/python3', '-c', q{
import sys
sys.path.insert(0, sys.argv[1])
from grammar import Grammar
g = Grammar(sys.argv[2])
# the transaction by itself: what stands in it is judged statement by statement
for batch in sys.stdin.read().split('\nGO\n'):
    if batch.strip():
        whole = 'BEGIN TRANSACTION;', 'COMMIT TRANSACTION;'
        inside = batch.replace(whole[0], '').replace(whole[1], '')
        print(g.accepts(inside) or (batch != inside and g.accepts(' '.join(whole))) or 'ok')
}, "$source/test/tds_server", "$source/tsql-verdicts" ], '<', \$script, '>', \$judged, '2>', \$err);
	is($judged, "ok\n" x $batches, $what) or diag($err);
}

1;
