# docs/troubleshooting.md: its statements are read against the catalogue, and
# those that decide nothing are run on a healthy sync: there each may be refused
# by bcmig (class BM: nothing is to be mended) but by nobody else, and what it
# says is so when something is over is so.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use DocPage;
use IPC::Run;
use Test::More;
use Time::HiRes qw(time usleep);

my $source = $ENV{BCMIG_SOURCE} // '.';
my $blue = new_blue();
allow_switch($blue);
my $green = new_green();
$blue->safe_psql('postgres', q{
	CREATE ROLE bcmig_reader;
	CREATE TABLE customer (no varchar(20) PRIMARY KEY, name text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO customer SELECT 'C' || i, 'customer ' || i, 0 FROM generate_series(1, 100) i;
	CREATE TABLE gl_entry (entry_no bigint PRIMARY KEY, amount numeric(38,20), "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO gl_entry SELECT i, i / 3.0, 0 FROM generate_series(1, 500) i;});
track($blue, $_) foreach qw(customer gl_entry);
connect_blue($green, $blue, 'cronus', '{"views": true}');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('cronus', 'customer'), bcmig_add_table('cronus', 'gl_entry')});
start_sync($green, 'cronus');
wait_sync($green, 'cronus');
run_validation($green, 'cronus', 'full');

# exit status, what was printed, what was said
sub run_sql
{
	my ($node, $sql, @options) = @_;
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'psql', '-XAtq', @options, '-d', $node->connstr('postgres'), '-f', '-' ], '<', \$sql, '>', \$out, '2>', \$err, IPC::Run::timeout(100));
	return ($? >> 8, $out, $err);
}

my ($blocks, $over) = (0, 0);
foreach my $section (read_page("$source/docs/troubleshooting.md"))
{
	foreach my $block (@{ $section->{blocks} })
	{
		my $text = $block->{text};
		my $what = "line $block->{line}, $section->{title}";
		my $node = $text =~ /\A-- on blue\b/ ? $blue : $green;
		my ($rc, $out, $err);

		$block->{kind} eq 'sql' or die "$what: nobody knows how to run a block of kind $block->{kind}";
		$blocks++;

		# names and types of the whole block, nothing run; a role it makes is there then
		my ($roles, $rest) = ('', $text);
		$roles .= $1 while $rest =~ s/^(CREATE ROLE [^;]*;\n)//m;
		($rc, $out, $err) = run_sql($node, "BEGIN; $roles CREATE FUNCTION pg_temp.block() RETURNS void LANGUAGE sql AS \$block\$\n$rest\$block\$; ROLLBACK;", '-v', 'ON_ERROR_STOP=1');
		is($rc, 0, "$what: is understood") or diag($err);
		next if $text =~ /\A-- decide: /;

		if ($text =~ /\A-- over when\n/)
		{
			my $end = time + 60;

			$over++;
			do { ($rc, $out, $err) = run_sql($node, $text, '-v', 'ON_ERROR_STOP=1'); usleep(100_000) if $out !~ /^t(?:\|t)*\n\z/; }
			  while ($rc == 0 && $out !~ /^t(?:\|t)*\n\z/ && time < $end);
			ok($rc == 0 && $out =~ /^t(?:\|t)*\n\z/, "$what: is so") or diag("$out$err");
			next;
		}
		($rc, $out, $err) = run_sql($node, $text, '-v', 'VERBOSITY=verbose');
		is(join("\n", grep { /(?:ERROR|FATAL|PANIC|error): / && !/ERROR:  BM/ } split /\n/, $err), '', "$what: can be run");
	}
}

# the last block, for real: what was green's stays, and is free
my ($uninstall) = map { $_->{text} } grep { $_->{text} =~ /DROP EXTENSION/ } map { @{ $_->{blocks} } } read_page("$source/docs/troubleshooting.md");
my ($rc, $out, $err) = run_sql($green, $uninstall, '-v', 'ON_ERROR_STOP=1');
is($rc, 0, 'uninstalling works as written') or diag($err);
is($green->safe_psql('postgres', q{INSERT INTO customer (no) VALUES ('new'); SELECT count(*) || ' ' || (SELECT count(*) FROM public_read.customer) FROM customer}), '101 101', 'the tables and their views stay, and can be written to');

# ---------------------------------------------------------------------------
# What the page quotes
# ---------------------------------------------------------------------------
my $text = PostgreSQL::Test::Utils::slurp_file("$source/docs/troubleshooting.md");
my %known = map { $_ => 1 } PostgreSQL::Test::Utils::slurp_file("$source/src/blue/tds_messages.c") =~ /^\t\{(\d+), /mg;
my @numbers = map { split /, / } $text =~ /^\| (\d{3,}(?:, \d+)*) \|/mg;
cmp_ok(scalar(@numbers), '>', 10, 'there are numbers of SQL Server');
is(join(' ', grep { !$known{$_} } @numbers), '', 'bcmig knows each of them');

# messages: what of them is no name or number is in the source, or another's
my $messages = join '', map { PostgreSQL::Test::Utils::slurp_file($_) } glob("$source/src/*.c $source/src/*/*.c $source/bcmig--1.0.sql");
my @of_others = ('password authentication failed', 'Login failed for user', 'permission denied for table', 'General SQL Server error: Check messages from the SQL Server',
	'No space left on device', 'permission was denied', 'is being accessed by other users', 'could not find function', 'does not exist', 'could not connect to server');
my ($quoted, @unknown) = (0);
$text =~ s/^```.*?^```$//msg;
foreach my $see ($text =~ /^\*See:\* (.*?)\*Why/msg, $text =~ /^(\| `[^\n]* \|) /mg)
{
	foreach my $message ($see =~ /`([^`]+)`/g)
	{
		$message =~ s/\s+/ /g;
		next unless $message =~ /\w+ \w+ \w+/ && $message !~ /^[A-Z]{4,} /;
		my ($longest) = sort { length $b <=> length $a } split /"[^"]*"|\.\.\.|\b\d+\b|\bn\b|\bm\b|\bpid\b|\bof postgres_fdw\b|public\.customer|\bcustomer\b/, $message;
		$longest =~ s/^[\s:;,%.]+|[\s:;,.%]+$//g;
		$quoted++;
		push @unknown, "$message: $longest" unless index($messages, $longest) >= 0 || grep { index($message, $_) >= 0 } @of_others;
	}
}
cmp_ok($quoted, '>', 15, 'messages are quoted');
is(join("\n", @unknown), '', 'and are what the source says');
cmp_ok($blocks, '>', 80, 'the blocks of the page');
cmp_ok($over, '>', 25, 'those that say when it is over');
done_testing();
