# docs/runbook.md, block by block, against real servers: a PostgreSQL blue, an
# empty green, HAProxy, and for the section about it the stand-in for SQL Server.
# Blocks come from the page itself, and so do what is to be put in for its names
# (its table) and what one should see (the block marked text after another).
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use DocPage;
use HAProxy;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use TdsServer;
use Time::HiRes qw(time usleep);

my $page = ($ENV{BCMIG_SOURCE} // '.') . '/docs/runbook.md';

# the page, and in its first section the names to put something in for
my @sections = read_page($page);
my @names = @{ $sections[0]{names} };

# ---------------------------------------------------------------------------
# The servers: blue with a company, green as initdb has left it
# ---------------------------------------------------------------------------
my $blue = PostgreSQL::Test::Cluster->new('blue');
my $green = PostgreSQL::Test::Cluster->new('green');
$_->init(extra => [ '--locale=C.UTF-8', '--encoding=UTF8' ]) foreach $blue, $green;
$green->append_conf('postgresql.conf', "bcmig.naptime = 100\nlog_min_messages = warning");
$blue->append_conf('postgresql.conf', 'log_min_messages = warning');
$_->start foreach $blue, $green;
$blue->safe_psql('postgres', 'CREATE DATABASE bc');
$blue->safe_psql('bc', q{
	CREATE TABLE customer (no varchar(20) PRIMARY KEY, name text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO customer SELECT 'C' || i, 'customer ' || i, 0 FROM generate_series(1, 100) i;
	CREATE TABLE gl_entry (entry_no bigint PRIMARY KEY, amount numeric(38,20), "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO gl_entry SELECT i, i / 3.0, 0 FROM generate_series(1, 2000) i;});
my $server = new_sql_server();
$server->{node}->safe_psql('postgres', q{
	CREATE TABLE company ("timestamp" bigint NOT NULL DEFAULT 0, "Name" varchar(30) PRIMARY KEY);
	CREATE TABLE customer ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Name" varchar(100) NOT NULL DEFAULT '', "$systemId" uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE);
	SELECT mssql.register('company', 'Company'), mssql.register('customer', 'Fabrikam$Customer$437dbf0e-84ff-417a-965d-ed2bb9650972');
	INSERT INTO company ("Name") VALUES ('Fabrikam'); INSERT INTO customer ("No_") VALUES ('1');});
my $front = HAProxy->new(blue => [ 'blue1', 'blue2' ], green => ['green1']);

my $log = $green->logfile;
my $data = $green->data_dir;
my %put = (
	'blue.example' => $blue->host,
	'5432' => $blue->port,
	'/etc/postgresql/15/main/conf.d/bcmig.conf' => "$data/postgresql.conf",
	'sudo systemctl restart postgresql@15-main' => "pg_ctl -D '$data' -l '$log' -w restart >/dev/null",
	'tcp://10.0.0.5:9999' => $front->url,
	'sql.example' => '127.0.0.1',
	'1433' => $server->{port},
	'http://bc.example:7048/BC/Health/System' => 'http://127.0.0.1:' . $front->{ports}{blue1} . '/',
	'http://app.example/health' => 'http://127.0.0.1:' . $front->{ports}{green1} . '/',
	'30min' => '0s');
is_deeply([ sort @names ], [ sort map { "`$_`" } keys %put ], 'the names to put something in for are those the page lists');

# ---------------------------------------------------------------------------
# A block
# ---------------------------------------------------------------------------
my $database = 'postgres';

sub put_names
{
	my ($text) = @_;
	my $any = join '|', map { quotemeta } sort { length $b <=> length $a } keys %put;
	return $text =~ s/($any)/$put{$1}/gr;
}

sub run_psql
{
	my ($block) = @_;
	my $on_blue = $block->{text} =~ /\A-- on blue\b/;
	my ($out, $err) = ('', '');
	my $text = put_names($block->{text});

	IPC::Run::run([ 'psql', '-X', '-v', 'ON_ERROR_STOP=1', '-d', ($on_blue ? $blue->connstr('bc') : $green->connstr($database)), '-f', '-' ],
		'<', \$text, '>', \$out, '2>', \$err, IPC::Run::timeout(100));
	my $rc = $? >> 8;
	$database = $1 if $block->{text} =~ /^\\connect (\w+)/m;
	return ($rc, $out, $err);
}

# what widths of columns have to do with it is left out
sub plain
{
	my ($text) = @_;
	return join '', map { s/\s+$//r =~ s/ +/ /gr =~ s/-{2,}/--/gr . "\n" } grep { /\S/ && !/^You are now connected/ } split /\n/, $text;
}

sub as_page_says
{
	my ($out, $seen) = @_;
	my $re = quotemeta(plain($seen)) =~ s/^\\\.\\\.\\\.\\\n/(?:.*\\n)*?/mgr =~ s/\\\.\\\.\\\./.*?/gr;
	return plain($out) =~ /\A$re\z/;
}

# lines of a script, which psql prints in a frame
sub prints
{
	my ($out, $lines) = @_;
	return !grep { index($out, $_) < 0 } split /\n/, $lines;
}

sub is_seen
{
	my ($out, $block) = @_;
	return $block->{lines} ? prints($out, $block->{seen}) : as_page_says($out, $block->{seen});
}

sub run_block
{
	my ($block) = @_;
	my $what = "line $block->{line}: " . ($block->{text} =~ /^([^\n]{0,60})/)[0];
	my ($rc, $out, $err, $end) = (0, '', '', time + 60);

	if ($block->{kind} eq 'sh')
	{
		my $text = put_names($block->{text});
		is(system('bash', '-e', '-c', $text), 0, $what);
		return;
	}
	$block->{kind} eq 'sql' or die "$what: nobody knows how to run a block of kind $block->{kind}";
	do
	{
		usleep(100_000) if $rc == 0 && $out ne '';
		($rc, $out, $err) = run_psql($block);
	} while ($rc == 0 && $block->{text} =~ /\A-- until/ && defined $block->{seen} && !is_seen($out, $block) && time < $end);
	is($rc, 0, $what) or diag($err);
	ok(is_seen($out, $block), "$what: what is seen") or diag("$out\nthe page says\n$block->{seen}") if defined $block->{seen};
}

# ---------------------------------------------------------------------------
# What is so when a section is read: title and number of the block => what makes
# it so before that block
# ---------------------------------------------------------------------------
sub on_green { return $green->safe_psql('bc', $_[0]) }
sub on_blue { return $blue->safe_psql('bc', $_[0]) }

sub holds
{
	my ($sql, $what) = @_;
	$green->poll_query_until('bc', $sql) or die "no $what: " . on_green('SELECT * FROM bcmig.switch_status LIMIT 1');
}

sub alert
{
	my ($name) = @_;
	ok($green->poll_query_until('bc', "SELECT count(*) = 1 FROM bcmig.alert WHERE cleared_at IS NULL AND name = '$name'"), "alert $name");
}

sub switch
{
	my ($steps, $options) = @_;
	on_green("SELECT bcmig_switch_traffic('cronus', '{$steps}', '{\"stabilization\": 0, \"on_failure\": \"hold\"}' || '" . ($options // '{}') . "'::jsonb)");
}

# a transaction that writes and does not end
my $open;
sub write_and_wait
{
	my ($node) = @_;
	$open = $node->background_psql('bc', on_error_stop => 0);
	$open->query(q{BEGIN; UPDATE customer SET name = 'open' WHERE no = 'C2'});
}
sub end_of_it
{
	eval { $open->quit };
	undef $open;
}

my %before = (
	'12. After it 1' => sub { on_green(q{UPDATE customer SET name = 'written on green' WHERE no = 'C1'}) },

	# statements are judged by a grammar there, which takes its time
	'Blue is a SQL Server 2' => sub { on_green(q{SELECT bcmig_alter_environment('sql', '{"connect_timeout": "120s"}')}) },

	'Green is behind 1' => sub {
		on_green(q{SELECT bcmig_alter_sync('cronus', '{"traffic_timeout": "1s"}'); ALTER ROLE CURRENT_USER SET client_min_messages = warning});
		write_and_wait($blue);
		on_blue(q{UPDATE customer SET name = 'after it' WHERE no = 'C3'});
	},
	'Green is behind 4' => sub { end_of_it() },

	'A gate is not ok: the switch waits 1' => sub {
		on_green(q{SELECT bcmig_resync_table('cronus', 'customer'); CALL bcmig_wait_sync('cronus', 'caught_up')});
		switch(5);
	},

	'The switch is held 1' => sub {
		on_green(qq{SELECT bcmig_alter_environment('blue', '{"health_url": "$put{'http://bc.example:7048/BC/Health/System'}sick"}')});
		switch(10, '{"failed_looks": 1}');
		holds('SELECT held IS NOT NULL FROM bcmig.traffic', 'hold');
		alert('traffic_held');
	},
	'The switch is held 2' => sub { on_green(qq{SELECT bcmig_alter_environment('blue', '{"health_url": null}')}) },

	'The balancer is away 1' => sub { $front->stop },
	'The balancer is away 2' => sub { $front->start },

	'The last step was undone 1' => sub {
		write_and_wait($blue);
		switch(100, '{"failed_looks": 1}');
		holds('SELECT held IS NOT NULL FROM bcmig.traffic', 'hold');
	},
	'The last step was undone 2' => sub { end_of_it() },

	'Writes on green do not reach blue 1' => sub {
		on_blue('REVOKE EXECUTE ON FUNCTION bcmig_blue.replay(text, text, text, text, text[], text[], jsonb, text[]) FROM bcmig_reader');
		on_green(q{UPDATE customer SET name = 'again' WHERE no = 'C1'});
	},

	'A rollback waits 1' => sub {
		write_and_wait($green);
		on_green(q{SELECT bcmig_rollback('cronus', 'a test', '{"drain_timeout": "100ms"}'); UPDATE bcmig.switch SET asked_at = asked_at - interval '2 min' WHERE state = 'running'});
		holds('SELECT count(*) = 1 FROM bcmig.switch WHERE state = \'running\' AND writes_stopped_at IS NOT NULL', 'pause');
		on_green(q{UPDATE bcmig.switch SET writes_stopped_at = writes_stopped_at - interval '2 min' WHERE state = 'running'});
		alert($_) foreach qw(rollback_waits writes_stopped);
	},
	'A rollback waits 3' => sub { end_of_it() },

	'A person is to fence blue 1' => sub {
		on_green(q{SELECT bcmig_alter_environment('blue', '{"fence_by": null}')});
		switch(100);
		alert('switch_waits');
	},

	'Held after a restore or a failover 1' => sub {
		on_green(q{SELECT bcmig_alter_environment('blue', '{"fence_by": "call"}'); UPDATE bcmig.incarnation SET directory = 'elsewhere'});
	},

	'Blue is away 1' => sub { $blue->stop('immediate') },
	'Blue is away 2' => sub { $blue->start },

	'Rows in quarantine 1' => sub {
		on_green(q{CREATE ROLE mender SUPERUSER; SELECT bcmig_alter_sync('cronus', '{"maintenance_role": "mender"}');
			SET ROLE mender; ALTER TABLE customer ADD CONSTRAINT no_such_name CHECK (name <> 'refused')});
		on_blue(q{UPDATE customer SET name = 'refused' WHERE no = 'C4'});
	},
	'Rows in quarantine 2' => sub { on_green(q{SET ROLE mender; ALTER TABLE customer DROP CONSTRAINT no_such_name}) },

	'A table is suspended 1' => sub { on_blue(q{DELETE FROM gl_entry WHERE entry_no <= 1000}) },

	'A conflict waits 1' => sub {
		on_green(q{SELECT bcmig.lift_fence('cronus'); SELECT bcmig.arm_journal('cronus'); UPDATE customer SET name = 'of green' WHERE no = 'C4'});
		on_blue(q{UPDATE customer SET name = 'of blue' WHERE no = 'C4'});
	},
	'The disk is full 1' => sub { on_green(q{SELECT bcmig.disarm_journal('cronus'); CALL bcmig.raise_fence('cronus')}) },

	'14. Completion 1' => sub {
		run_validation_of_all();
		switch(100);
		on_green(qq{CALL bcmig_wait_sync('cronus', 'switched', '$patience')});
	});

sub run_validation_of_all
{
	on_green(qq{SELECT bcmig_validate('cronus', mode => 'full'); CALL bcmig_wait_sync('cronus', 'validated', '$patience')});
}

# what is done last on the page is not the end of the day: 3 a.m. comes first
my ($completion) = grep { $_->{title} eq '14. Completion' } @sections;
foreach my $section ((grep { $_ != $completion } @sections), $completion)
{
	my $n = 0;
	foreach my $block (@{ $section->{blocks} })
	{
		my $make_it_so = delete $before{ "$section->{title} " . ++$n };
		$make_it_so->() if $make_it_so;
		run_block($block);
	}
}
ok($green->poll_query_until('bc', q{SELECT count(*) = 0 FROM bcmig.alert WHERE cleared_at IS NULL AND name IN ('traffic_held', 'balancer', 'switch_waits', 'rollback_waits', 'writes_stopped', 'unreplayed')}), 'alerts of traffic are cleared');
is(join(', ', sort keys %before), '', 'every section that something was made so for is there');
done_testing();
