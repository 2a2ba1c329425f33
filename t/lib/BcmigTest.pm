# BcmigTest.pm: a blue and a green cluster, a sync between them, and a compare
# that is not bcmig's code.
package BcmigTest;

use strict;
use warnings;

use Exporter 'import';
use IPC::Run;
use Cwd qw(abs_path);
use File::Path qw(rmtree);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::RecursiveCopy;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

our @EXPORT = qw(
  new_blue new_green connect_blue green_behind start_sync wait_sync wait_streaming
  compare_table all_equal state_of wait_state hold_point stop_at point_reached release_point pids kill_pid crash
  $patience track allow_switch try_blue_fence table_value run_validation save_blue lose_tail start_unseen
  new_clock set_clock start_with_clock);

# The source tree, set by test/run.
my $source = $ENV{BCMIG_SOURCE} // '.';
my $tracking = "$source/blue/postgres_tracking.sql";

# How long bcmig_wait_sync waits; longer where PG_TEST_TIMEOUT_DEFAULT says that all takes longer.
our $patience = (2 * $PostgreSQL::Test::Utils::timeout_default) . ' s';

# A blue with the tracking script.  More lines of configuration may follow.
sub new_blue
{
	my ($name, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name // 'blue');

	$node->init(extra => ['--locale=C.UTF-8', '--encoding=UTF8']);
	$node->append_conf('postgresql.conf', join("\n",
		'max_prepared_transactions = 20', 'max_connections = 60', 'listen_addresses = \'127.0.0.1\'',
		'log_min_messages = warning', @conf) . "\n");
	$node->start;
	$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-f', $tracking ],
		'tracking script loads');
	return $node;
}

# A green with bcmig loaded and created in database postgres.
sub new_green
{
	my ($name, @conf) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name // 'green');

	$node->init(extra => ['--locale=C.UTF-8', '--encoding=UTF8']);
	$node->append_conf('postgresql.conf', join("\n",
		"shared_preload_libraries = 'bcmig'", 'max_worker_processes = 24',
		'max_prepared_transactions = 20', 'bcmig.naptime = 100', @conf) . "\n");
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION bcmig CASCADE; CREATE ROLE bcmig_maintenance SUPERUSER');
	return $node;
}

# Server, user mapping and environment 'blue' on green; a sync when named.
sub connect_blue
{
	my ($green, $blue, $sync, $options) = @_;
	my ($host, $port) = ($blue->host, $blue->port);

	$green->safe_psql('postgres', qq{
		CREATE SERVER blue FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
		CREATE USER MAPPING FOR CURRENT_USER SERVER blue OPTIONS (user '} . (getpwuid($<))[0] . q{');
		SELECT bcmig_add_environment('blue', 'blue', 'blue');});
	$green->safe_psql('postgres',
		"SELECT bcmig_create_sync('$sync', 'blue', '{\"maintenance_role\": \"bcmig_maintenance\"}' || '" . ($options // '{}') . "'::jsonb)")
	  if defined $sync;
}

# Change green behind bcmig's back, which its fence lets the maintenance role of
# a sync do; returns the rows of the last statement.
sub green_behind
{
	my ($green, $sql) = @_;
	return $green->safe_psql('postgres', "SET ROLE bcmig_maintenance; $sql");
}

# Track a table of blue.
sub track
{
	my ($blue, $table, $capture) = @_;
	$capture //= 'change_tracking';
	$blue->safe_psql('postgres', "SELECT bcmig_blue.track('$table', '$capture')");
}

# Let bcmig fence a blue and write to it.
sub allow_switch
{
	my ($blue) = @_;
	$blue->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $blue->connstr('postgres'),
		'-f', $tracking =~ s/tracking/switch/r, '-c', 'SELECT bcmig_blue.grant_switch(current_user::regrole)' ],
		'switch script loads');
}

# Fence, unfence or read blue, as the engine does; what came of it.
sub try_blue_fence
{
	my ($green, $sync, $action) = @_;
	my $tried = "FROM bcmig.audit_log WHERE event = 'blue fence tried' AND sync_name = '$sync'";
	my $before = $green->safe_psql('postgres', "SELECT count(*) $tried");
	$green->safe_psql('postgres', "SELECT bcmig.try_blue_fence('$sync', '$action')");
	$green->poll_query_until('postgres', "SELECT count(*) > $before $tried") or die 'nothing tried';
	return $green->safe_psql('postgres', "SELECT detail $tried ORDER BY audit_id DESC LIMIT 1");
}

sub start_sync
{
	my ($green, $sync) = @_;
	$green->safe_psql('postgres', "SELECT bcmig_start_sync('$sync')");
}

# CALL bcmig_wait_sync; dies with its error.
sub wait_sync
{
	my ($green, $sync, $until) = @_;
	$until //= 'caught_up';
	$green->safe_psql('postgres', "CALL bcmig_wait_sync('$sync', '$until', '$patience')");
}

sub wait_streaming
{
	my ($green, $sync) = @_;
	wait_sync($green, $sync, 'streaming');
}

# State of a green table as the views show it.
sub state_of
{
	my ($green, $target) = @_;
	return $green->safe_psql('postgres', "SELECT state FROM bcmig.table_status WHERE target = '$target'");
}

sub wait_state
{
	my ($green, $target, $state) = @_;
	return $green->poll_query_until('postgres',
		"SELECT state = '$state' FROM bcmig.table_status WHERE target = '$target'");
}

# Validate to the end; returns the run's id and its verdict.  %o: target;
# meanwhile, called with the id once the run has been asked for.
sub run_validation
{
	my ($green, $sync, $mode, %o) = @_;
	my $run = $green->safe_psql('postgres',
		"SELECT bcmig_validate('$sync', " . (defined $o{target} ? "'$o{target}'" : 'NULL') . ", '$mode')");
	$o{meanwhile}->($run) if defined $o{meanwhile};
	$green->poll_query_until('postgres', "SELECT state <> 'running' FROM bcmig.validation_run WHERE run_id = $run")
	  or die "validation $run does not end: " . $green->safe_psql('postgres', "SELECT * FROM bcmig.validation_summary WHERE run_id = $run");
	return ($run, $green->safe_psql('postgres', "SELECT verdict FROM bcmig.validation_run WHERE run_id = $run"));
}

# Plain values of a query.
sub table_value
{
	my ($node, $sql) = @_;
	return $node->safe_psql('postgres', $sql);
}

# Compare a table of both sides by its rows as text, in sorted order.  $columns
# are those of blue to compare; default: all that both sides have, but the
# stamp.  Returns '' when equal, else the first difference.
sub compare_table
{
	my ($blue, $green, $source, $target, $columns) = @_;
	$target //= $source;
	my $list = "SELECT string_agg(quote_ident(attname) || '::text', ', ' ORDER BY attname) FROM pg_attribute "
	  . "WHERE attrelid = '$source'::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'timestamp'";
	$columns //= $blue->safe_psql('postgres', $list);
	my @sides;
	foreach my $side ([ $blue, $source ], [ $green, $target ])
	{
		my ($node, $table) = @$side;
		# a row is a line: newlines inside values are shown as \n
		push @sides, [ split /\n/, $node->safe_psql('postgres',
			"SELECT r FROM (SELECT replace(ROW($columns)::text, E'\\n', '\\n') AS r FROM $table) x ORDER BY r COLLATE \"C\"") ];
	}
	my ($b, $g) = @sides;
	for (my $i = 0; $i < @$b || $i < @$g; $i++)
	{
		my $x = $b->[$i] // '(none)';
		my $y = $g->[$i] // '(none)';
		return sprintf("row %d of %d/%d: blue %s, green %s", $i, scalar(@$b), scalar(@$g),
			substr($x, 0, 300), substr($y, 0, 300)) if $x ne $y;
	}
	return '';
}

# One test per table: both sides equal.
sub all_equal
{
	my ($blue, $green, $what, @tables) = @_;
	foreach my $table (@tables)
	{
		is(compare_table($blue, $green, $table), '', "$what: $table is equal on both sides");
	}
}

# Hold a named debug point of green: returns a background session that holds
# the advisory lock the engine will wait for; ->quit lets it go.  The point
# must be listed in bcmig.debug_points.
sub hold_point
{
	my ($green, $name) = @_;
	my $session = $green->background_psql('postgres', on_error_die => 1);
	$session->query_safe("SELECT pg_advisory_lock(7268, hashtext('$name'))");
	return $session;
}

# The same, and green's processes stop there from now on, also where the point
# was not listed; release_point lets them go.
sub stop_at
{
	my ($green, $name) = @_;
	my $session = hold_point($green, $name);
	$green->safe_psql('postgres', "ALTER SYSTEM SET bcmig.debug_points = '$name'");
	$green->reload;
	return $session;
}

# Wait until a process of green has come to a held point.
sub point_reached
{
	my ($green, $point) = @_;
	return $green->poll_query_until('postgres',
		"SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = 7268 AND objid::bigint = hashtext('$point')::bigint & 4294967295");
}

# Let it go on, and nobody stop any more.
sub release_point
{
	my ($green, $hold) = @_;
	$green->safe_psql('postgres', 'ALTER SYSTEM RESET bcmig.debug_points');
	$green->reload;
	$hold->quit;
}

# In place of what Cluster.pm has, which starts a psql for each look: one psql looks
# again and again.  A server that goes down or comes up does not end it.
{
	no warnings 'redefine';
	*PostgreSQL::Test::Cluster::poll_query_until = \&poll_query_until;
}
sub poll_query_until
{
	my ($node, $database, $query, $expected) = @_;
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	my $script = $node->basedir . "/poll.$$.sql";
	my ($out, $err);

	$expected //= 't';
	open(my $file, '>', $script) or die "$script: $!";
	print $file "$query\n\\watch 0.05\n";
	close($file);
	while ((my $left = $deadline - time) > 0)
	{
		($out, $err) = ('', '');
		my $timer = IPC::Run::timer($left);
		my $psql = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($database), '-f', $script ],
			'<', '/dev/null', '>', \$out, '2>', \$err, $timer);
		my $found = 0;

		until ($found || $timer->is_expired || !$psql->pumpable)
		{
			$psql->pump;
			$found = $out =~ /^\Q$expected\E$/m;
		}
		$psql->signal('KILL');
		$psql->finish;
		return 1 if $found;
		usleep(50_000);
	}
	diag("timed out: $query\nexpected: $expected\nlast: " . ((split /\n/, $out)[-1] // '') . "\n$err");
	return 0;
}

# The state of a blue that lose_tail() puts back.
sub save_blue
{
	my ($blue) = @_;
	my $save = $blue->basedir . '/saved';

	$blue->stop;
	rmtree($save);
	PostgreSQL::Test::RecursiveCopy::copypath($blue->data_dir, $save);
	$blue->start;
}

# Put it back, as after a crash with synchronous_commit = off; burn transaction
# ids up to where green has been, so that only what is in the tables can tell.
# "unseen" is called before green sees it.
sub lose_tail
{
	my ($blue, $burn, $unseen) = @_;
	my $save = $blue->basedir . '/saved';
	my $top = $blue->safe_psql('postgres', 'SELECT pg_snapshot_xmax(pg_current_snapshot())');

	$blue->stop('immediate');
	rmtree($blue->data_dir);
	PostgreSQL::Test::RecursiveCopy::copypath($save, $blue->data_dir);
	chmod 0700, $blue->data_dir;
	return $blue->start unless $burn || $unseen;
	start_unseen($blue, sub {
		$blue->safe_psql('postgres', "DO \$\$ BEGIN WHILE pg_current_xact_id()::text::bigint < $top + 10 LOOP COMMIT; END LOOP; END \$\$")
		  if $burn;
		$unseen->() if $unseen;
	});
}

# What is done on blue before green reaches it again: it is started on another port first.
sub start_unseen
{
	my ($blue, $what) = @_;
	my $port = $blue->port;
	my $aside = PostgreSQL::Test::Cluster::get_free_port();

	$blue->append_conf('postgresql.conf', "port = $aside");
	$blue->{_port} = $aside;
	$blue->start;
	$what->();
	$blue->stop;
	$blue->append_conf('postgresql.conf', "port = $port");
	$blue->{_port} = $port;
	$blue->start;
}

# A clock that can be set (clock.c), for servers started with it.
my $clock_library;

sub new_clock
{
	my $clock = abs_path(PostgreSQL::Test::Utils::tempdir()) . '/clock';

	if (!defined $clock_library)
	{
		$clock_library = "$clock.so";
		PostgreSQL::Test::Utils::system_or_bail('cc', '-shared', '-fPIC', '-O1', '-o', $clock_library, "$source/t/lib/clock.c", '-ldl');
	}
	set_clock($clock, 0);
	return $clock;
}

# How many seconds it is off.
sub set_clock
{
	my ($clock, $seconds) = @_;

	open my $file, -e $clock ? '+<:raw' : '>:raw', $clock or die "$clock: $!";
	syswrite($file, pack('q', $seconds * 1_000_000)) == 8 or die "$clock: $!";
	close $file;
}

sub start_with_clock
{
	my ($node, $clock, %params) = @_;
	local @ENV{qw(LD_PRELOAD BCMIG_CLOCK)} = ($clock_library, $clock);

	return $node->start(%params);
}

# pids of processes of bcmig, by backend_type
sub pids
{
	my ($green, $type) = @_;
	return split /\n/, $green->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = '$type' ORDER BY pid");
}

sub kill_pid
{
	my ($signal, $pid) = @_;
	return kill $signal, $pid;
}

# Kills a process of a server, which ends all others of it, and waits until the server is
# back.  Before it has noticed it still answers.
sub crash
{
	my ($node, $pid) = @_;
	my ($checkpointer) = pids($node, 'checkpointer');

	kill_pid('KILL', $pid);
	return $node->poll_query_until('postgres', "SELECT pid <> $checkpointer FROM pg_stat_activity WHERE backend_type = 'checkpointer'");
}

1;
