# ChaosWorld.pm: a blue with the books of the demo and its workload, a green
# that follows it, and a network between them that can be broken.
#
# The SQL is the demo's (demo/): its tables, its generator, its workload, its
# rules of book-keeping.
package ChaosWorld;

use strict;
use warnings;

use BcmigTest qw(new_blue new_green new_clock start_with_clock);
use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Cwd qw(abs_path);
use File::Basename qw(dirname);
use File::Path qw(rmtree);
use POSIX ();
use Time::HiRes qw(time usleep);

my $source = $ENV{BCMIG_SOURCE} // '.';

our $company = 'CRONUS';

# %o: n, customers, ... (size of the books), rate (transactions a second),
# disk (a small file system for green's tables, '' = none), tables (names, all
# when left out), say (where lines go)
sub new
{
	my ($class, %o) = @_;
	my $self = bless {%o}, $class;

	$self->{syncs} = [qw(cronus by_sweep)];
	$self->{clock}{$_} = new_clock() foreach qw(blue green);
	$self->make_blue;
	$self->make_green;
	return $self;
}

# a directory, by a name that holds wherever a process goes
sub temporary
{
	my ($name) = @_;
	return abs_path(PostgreSQL::Test::Utils::tempdir($name));
}

# ---------------------------------------------------------------------------
# Clusters
# ---------------------------------------------------------------------------

# Seconds a side's clock is off.
sub set_clock
{
	my ($self, $side, $offset) = @_;
	BcmigTest::set_clock($self->{clock}{$side}, $offset);
}

# Start a server under its own clock.  The workload may hold up a start for as
# long as recovery takes.
sub start
{
	my ($self, $side) = @_;
	my $node = $self->{$side};

	# a killed postmaster leaves children and its lock file for a moment
	for my $try (1 .. 60)
	{
		return if start_with_clock($node, $self->{clock}{$side}, fail_ok => 1);
		usleep(500_000);
	}
	die "$side does not start";
}

sub stop
{
	my ($self, $side, $mode) = @_;
	my $node = $self->{$side};

	$node->stop($mode, fail_ok => 1);
	$node->stop('immediate', fail_ok => 1) if defined $node->{_pid};
}

# The postmaster alone is killed; its children notice.
sub kill_postmaster
{
	my ($self, $side) = @_;
	my @children = $self->processes($side);

	$self->{$side}->kill9;
	for (my $left = 200; $left > 0 && grep({ kill 0, $_ } @children); $left--)
	{
		usleep(50_000);
	}
	# a frozen one cannot notice
	kill 9, @children;
}

# pids of a server, without its postmaster
sub processes
{
	my ($self, $side) = @_;
	my $postmaster = $self->{$side}{_pid} // return;
	my @pids;

	foreach my $file (glob '/proc/[0-9]*/stat')
	{
		open my $stat, '<', $file or next;
		my $line = <$stat> // next;
		close $stat;
		push @pids, $1 if $line =~ /^(\d+) \(.*\) \S (\d+) / && $2 == $postmaster;
	}
	return sort { $a <=> $b } @pids;
}

# is a process of a server named like that? (ps shows "postgres: NAME: what ...")
sub process_named
{
	my ($self, $side, $pattern) = @_;
	my @found;

	foreach my $pid ($self->processes($side))
	{
		open my $file, '<', "/proc/$pid/cmdline" or next;
		my $title = <$file> // '';
		close $file;
		$title =~ tr/\0/ /;
		push @found, $pid if $title =~ $pattern;
	}
	return @found;
}

# ---------------------------------------------------------------------------
# SQL by an independent client
# ---------------------------------------------------------------------------

# Returns (ok, output); never dies, never waits longer than "seconds".
sub try_sql
{
	my ($self, $side, $sql, %o) = @_;
	my ($out, $err) = ('', '');
	my $user = $o{user} // '';
	my $ok = IPC::Run::run([ 'timeout', '-k', '5', $o{seconds} // 60, 'psql', '-X', '-A', '-t', '-q', '-v', 'ON_ERROR_STOP=1', '-v', 'VERBOSITY=verbose', '-d',
			$self->{$side}->connstr('postgres') . " connect_timeout=5" . ($user ? " user=$user" : '') ],
		'<', \$sql, '>', \$out, '2>', \$err);

	chomp $out;
	return ($ok, $ok ? $out : $err || 'no answer in time');
}

# Returns the output; undef when there was none.
sub ask
{
	my ($self, $side, $sql, %o) = @_;
	my ($ok, $out) = $self->try_sql($side, $sql, %o);

	return $ok ? $out : undef;
}

# dies when it fails
sub sql
{
	my ($self, $side, $sql, %o) = @_;
	my ($ok, $out) = $self->try_sql($side, $sql, seconds => 300, %o);

	die "on $side: $out\nSQL: " . substr($sql, 0, 500) . "\n" unless $ok;
	return $out;
}

sub green { my ($self, $sql, %o) = @_; return $self->sql('green', $sql, user => 'migrator', %o) }
sub blue { my ($self, $sql, %o) = @_; return $self->sql('blue', $sql, %o) }

# a session that stays open, doing what it is given; returns its handle
sub session
{
	my ($self, $side, $sql, %o) = @_;
	my $user = $o{user} // '';
	my ($in, $out) = ($sql, '');

	return IPC::Run::start([ 'psql', '-X', '-A', '-t', '-q', '-d',
			$self->{$side}->connstr('postgres') . " application_name=" . ($o{name} // 'chaos') . ($user ? " user=$user" : '') ],
		'<', \$in, '>', '/dev/null', '2>', '/dev/null');
}

sub end_session
{
	my ($self, $session) = @_;

	return unless defined $session;
	$session->kill_kill(grace => 2);
}

sub read_source
{
	my ($self, $file) = @_;
	return slurp_file("$source/$file");
}

# {Table} in SQL of the demo is a table of the company
sub for_company
{
	my ($self, $sql) = @_;

	$sql =~ s/\{([^{}]*)\}/"$company\$$1"/g;
	return $sql;
}

# ---------------------------------------------------------------------------
# Blue
# ---------------------------------------------------------------------------
sub make_blue
{
	my ($self) = @_;
	my $blue = new_blue('blue', 'wal_level = replica', 'max_wal_senders = 4', 'log_statement = none', 'restart_after_crash = on',
		'shared_buffers = 64MB', 'max_wal_size = 1GB', 'idle_in_transaction_session_timeout = 0');
	my %v = (n => $self->{n}, nc => $self->{customers}, nv => 20, ni => $self->{customers}, no => 30);
	my $sql;

	$self->{blue} = $blue;
	# the reader has to give its password
	my $hba = $blue->data_dir . '/pg_hba.conf';
	write_file($hba, "host all bcmig_reader 127.0.0.1/32 scram-sha-256\n" . slurp_file($hba));
	$self->stop('blue');
	$self->start('blue');

	$blue->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $blue->connstr('postgres'), '-f', "$source/demo/blue_schema.sql" ],
		'what the demo needs on blue');
	foreach my $of ('', $company)
	{
		my $only = $of eq '' || !defined $self->{tables} ? '' : join ',', @{ $self->{tables} };
		my $schema = '';

		IPC::Run::run([ 'awk', '-v', "company=$of", '-v', "only=$only", '-f', "$source/demo/schema.awk", "$source/demo/tables.txt" ], '>', \$schema)
		  or die 'schema.awk failed';
		$self->blue($schema);
	}
	$self->blue("SELECT demo.make_sequences('$company')");
	$sql = $self->for_company($self->read_source('demo/generate.sql'));
	$sql =~ s/:$_\b/$v{$_}/g foreach keys %v;
	$self->blue($sql);
	$self->blue($self->read_source('demo/shared.sql') . qq{
		DELETE FROM "Tenant Media" WHERE length("Content") > 500000;
		CREATE ROLE bcmig_reader LOGIN PASSWORD 'read me';
		GRANT pg_read_all_stats TO bcmig_reader;
		SELECT bcmig_blue.grant_reader('bcmig_reader');
		SELECT bcmig_blue.track(format('public.%I', full_name)::regclass, capture) FROM demo.tables WHERE capture <> 'none' ORDER BY full_name;
		SELECT format('GRANT SELECT ON public.%I TO bcmig_reader', full_name) FROM demo.tables \\gexec
		ANALYZE});
	$self->{last_cle} = $self->blue($self->for_company('SELECT max("Entry No_") FROM {Cust_ Ledger Entry}'));
}

# An earlier state of blue, to be put back later.
sub save_blue
{
	my ($self) = @_;

	$self->forget_saved_blue;
	$self->{saved} = $self->{blue}->basedir . '/saved';
	system_or_bail('pg_basebackup', '-D', $self->{saved}, '-d', $self->{blue}->connstr('postgres'), '-c', 'fast', '-X', 'stream', '--no-sync');
}

sub restore_blue
{
	my ($self) = @_;

	$self->stop('blue', 'immediate');
	rmtree($self->{blue}->data_dir);
	rename $self->{saved}, $self->{blue}->data_dir or die "rename: $!";
	chmod 0700, $self->{blue}->data_dir;
	delete $self->{saved};
	$self->start('blue');
}

sub forget_saved_blue
{
	my ($self) = @_;

	rmtree($self->{saved}) if defined $self->{saved};
	delete $self->{saved};
}

# ---------------------------------------------------------------------------
# Network
# ---------------------------------------------------------------------------
sub start_proxy
{
	my ($self) = @_;
	my $dir = temporary('proxy');

	$self->{control} = "$dir/control";
	$self->{proxy_port} = PostgreSQL::Test::Cluster::get_free_port();
	$self->network('pass');
	$self->{proxy} = IPC::Run::start([ $^X, dirname(__FILE__) . '/proxy.pl', $self->{proxy_port}, $self->{blue}->port, $self->{control} ],
		'<', '/dev/null', '>', "$dir/log", '2>', "$dir/errors");
	$self->network_told;
}

# What the network does from now on: see proxy.pl.
sub network
{
	my ($self, @words) = @_;

	write_file("$self->{control}.new", "@words\n");
	rename "$self->{control}.new", $self->{control} or die "rename: $!";
	$self->{network} = "@words\n";
	$self->network_told if defined $self->{proxy};
}

# the proxy knows
sub network_told
{
	my ($self) = @_;

	for (my $left = 500; $left > 0; $left--)
	{
		return if -s "$self->{control}.told" && slurp_file("$self->{control}.told") eq $self->{network};
		usleep(10_000);
	}
	die 'the proxy does not answer';
}

# ---------------------------------------------------------------------------
# Green
# ---------------------------------------------------------------------------
sub make_green
{
	my ($self) = @_;
	my $green = new_green('green', 'log_statement = none', 'restart_after_crash = on', 'shared_buffers = 64MB', 'max_wal_size = 1GB',
		'max_worker_processes = 16', 'max_connections = 60', 'log_min_messages = warning');

	$self->{green} = $green;
	$self->stop('green');
	$self->start('green');
	$self->start_proxy;
	$self->sql('green', qq{
		CREATE ROLE migrator LOGIN;
		GRANT pg_monitor TO migrator;
		GRANT CREATE ON DATABASE postgres TO migrator;
		GRANT CREATE, USAGE ON SCHEMA public TO migrator;
		GRANT EXECUTE ON ALL ROUTINES IN SCHEMA public TO migrator;
		CREATE SERVER blue FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '$self->{proxy_port}', dbname 'postgres',
			connect_timeout '5', tcp_user_timeout '15000', keepalives_idle '15', keepalives_interval '5');
		GRANT USAGE ON FOREIGN SERVER blue TO migrator;
		CREATE USER MAPPING FOR migrator SERVER blue OPTIONS (user 'bcmig_reader', password 'read me')});
	if ($self->{disk})
	{
		$self->sql('green', "CREATE TABLESPACE small LOCATION '$self->{disk}'");
		$self->sql('green', 'GRANT CREATE ON TABLESPACE small TO migrator');
		$self->sql('green', "ALTER ROLE migrator SET default_tablespace = small; ALTER ROLE migrator SET temp_tablespaces = small");
	}
	$self->green("SELECT bcmig_add_environment('blue', 'blue', 'blue')");
	# what is seen by comparing keys or rows has a sync of its own
	$self->make_sync('cronus', "capture = 'change_tracking'", '{}');
	$self->make_sync('by_sweep', "capture <> 'change_tracking'", '{"sweep_interval": "2s"}');
}

sub make_sync
{
	my ($self, $sync, $condition, $options) = @_;
	my @tables = split /\n/, $self->blue("SELECT quote_literal(full_name) FROM demo.tables WHERE $condition ORDER BY full_name COLLATE \"C\"");

	$self->green("SELECT bcmig_create_sync('$sync', 'blue', '$options')");
	# small chunks: copies take a while
	$self->green("SELECT bcmig_add_table('$sync', $_, options => '{\"chunk_rows\": 300}')") foreach @tables;
	my $failed = $self->green("SELECT check_name, detail, fix FROM bcmig_preflight('$sync') WHERE status = 'fail'");
	die "preflight of $sync: $failed" if $failed ne '';
	$self->{tables_of}{$sync} = \@tables;
}

sub start_syncs
{
	my ($self) = @_;
	$self->green("SELECT bcmig_start_sync('$_')") foreach @{ $self->{syncs} };
}

# ---------------------------------------------------------------------------
# Workload: pgbench, started again whenever blue has ended it
# ---------------------------------------------------------------------------
my %mix = (post_sale => 25, pay => 20, post_purchase => 10, order => 10, delete_order => 5, edit => 25, rename => 4, rolled_back => 4, log => 1);

sub write_workload
{
	my ($self) = @_;
	my $dir = temporary('workload');

	foreach my $file (grep { !/rolled_back/ } keys %mix)
	{
		write_file("$dir/$file.sql", $self->for_company($self->read_source("demo/workload/$file.sql")));
	}
	my $posting = slurp_file("$dir/post_sale.sql");
	$posting =~ s/^COMMIT;/ROLLBACK;/m;
	write_file("$dir/rolled_back.sql", $posting);
	$self->{workload_dir} = $dir;
}

sub start_workload
{
	my ($self) = @_;
	my @files = map { "-f $_.sql\@$mix{$_}" } sort keys %mix;
	my $connection = $self->{blue}->connstr('postgres') . ' application_name=workload';
	my $arguments = "-n -c 3 -j 1 -R $self->{rate} -T 36000 --max-tries=50 -D nc=$self->{customers} -D nv=20 -D ni=$self->{customers} "
	  . "-D last_cle=$self->{last_cle} @files";

	$self->write_workload unless defined $self->{workload_dir};
	return if defined $self->{workload};
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		setpgrp(0, 0);
		chdir $self->{workload_dir};
		exec 'bash', '-c', 'exec </dev/null >>log 2>&1; while :; do pgbench $1 "$2"; sleep 0.3; done', 'workload', $arguments, $connection or POSIX::_exit(1);
	}
	$self->{workload} = $pid;
}

# No transaction of it is open any more on return.
sub stop_workload
{
	my ($self) = @_;

	return unless defined $self->{workload};
	kill 'KILL', -$self->{workload};
	waitpid $self->{workload}, 0;
	delete $self->{workload};
	for (my $left = 300; $left > 0; $left--)
	{
		my $open = $self->ask('blue', "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'workload'", seconds => 10);

		return if defined $open && $open eq '0';
		usleep(100_000);
	}
	die 'the workload does not end';
}

# Documents posted so far: is there a load?
sub posted
{
	my ($self) = @_;
	return $self->blue($self->for_company(q{SELECT count(*) FROM {G_L Entry} WHERE "User ID" = 'LIVE'}));
}

# ---------------------------------------------------------------------------
# The end
# ---------------------------------------------------------------------------
sub finish
{
	my ($self) = @_;

	if (defined $self->{workload})
	{
		kill 'KILL', -$self->{workload};
		waitpid $self->{workload}, 0;
		delete $self->{workload};
	}
	foreach my $side (qw(green blue))
	{
		# a frozen server cannot be stopped
		kill 'CONT', $self->{$side}{_pid}, $self->processes($side) if defined $self->{$side} && defined $self->{$side}{_pid};
		$self->stop($side, 'immediate') if defined $self->{$side};
	}
	$self->{proxy}->kill_kill(grace => 2) if defined $self->{proxy};
}

sub write_file
{
	my ($name, $content) = @_;

	open my $file, '>', $name or die "$name: $!";
	print $file $content;
	close $file or die "$name: $!";
}

1;
