# ALTER EXTENSION UPDATE: what it leaves is what a fresh install makes, and a
# library and SQL of different versions leave each other alone.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use ExtensionObjects;
use PostgreSQL::Test::Utils;
use Test::More;

my $scripts = `pg_config --sharedir`;
chomp $scripts;
$scripts .= '/extension';
my ($current) = slurp_file("$scripts/bcmig.control") =~ /^default_version = '([^']+)'/m or die 'no default_version';
my $install = slurp_file("$scripts/bcmig--$current.sql");

# Versions that are none, in this private copy, until the test ends.
my @made;

sub script
{
	my ($versions, $sql) = @_;

	push @made, "$scripts/bcmig--$versions.sql";
	open my $file, '>', $made[-1] or die "$made[-1]: $!";
	print $file $sql;
	close $file;
}
END { unlink @made }

# a next version with one thing of each kind that is easily forgotten
my %change = (
	column => "ALTER TABLE bcmig.environment ADD made_up integer DEFAULT 7",
	'not null' => "ALTER TABLE bcmig.environment ALTER made_up SET NOT NULL",
	default => "ALTER TABLE bcmig.environment ALTER made_up SET DEFAULT 8",
	check => "ALTER TABLE bcmig.environment ADD CONSTRAINT environment_made_up_check CHECK (made_up > 0)",
	'column comment' => "COMMENT ON COLUMN bcmig.environment.made_up IS 'made up'",
	table => "CREATE TABLE bcmig.made_up (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text)",
	'table comment' => "COMMENT ON TABLE bcmig.made_up IS 'made up'",
	privilege => "GRANT SELECT ON bcmig.made_up TO PUBLIC",
	dumped => "SELECT pg_extension_config_dump('bcmig.made_up', 'WHERE id > 0')",
	index => "CREATE INDEX made_up_what ON bcmig.made_up (what)",
	function => "CREATE OR REPLACE FUNCTION bcmig_is_closing_date(value timestamp) RETURNS boolean LANGUAGE sql IMMUTABLE STRICT AS 'SELECT false'",
	view => "DO \$\$ BEGIN EXECUTE 'CREATE OR REPLACE VIEW bcmig.environment_status AS SELECT made_up.* FROM (' || rtrim(pg_get_viewdef('bcmig.environment_status'::regclass), ';') || ') made_up'; END \$\$",
	'row' => "UPDATE bcmig.option SET meaning = meaning || ' (made up)' WHERE name = 'batch_rows'",
);
my @in_order = ('column', 'not null', 'default', 'check', 'column comment', 'table', 'table comment', 'privilege', 'dumped', 'index', 'function', 'view', 'row');
my $all = join(";\n", map { $change{$_} } @in_order) . ";\n";

script('99.0', "$install\n$all");
script("$current--99.0", $all);
# one that forgets all that does not hang on another, and what is seen then
script("$current--98.0", join(";\n", $change{column}, $change{table}) . ";\n");
my %seen = (
	'not null' => qr/column \d+ made_up integer not null (t|f)/,
	default => qr/made_up integer .*, default (7|8),/,
	check => qr/constraint environment_made_up_check/,
	'column comment' => qr/made_up integer .*, comment made up$/,
	'table comment' => qr/table bcmig\.made_up: comment made up/,
	privilege => qr/table bcmig\.made_up: privilege =r/,
	dumped => qr/dumped: bcmig\.made_up WHERE id > 0/,
	index => qr/CREATE INDEX made_up_what/,
	function => qr/SELECT false/,
	view => qr/view bcmig\.environment_status: .*made_up/,
	row => qr/bcmig\.option: row .*\(made up\)/,
);

my $green = new_green();
my @shipped = ('bcmig.option');
$green->safe_psql('postgres', qq{CREATE DATABASE fresh; CREATE DATABASE fresh_next; CREATE DATABASE other});
$green->safe_psql('fresh', 'CREATE EXTENSION bcmig CASCADE');
$green->safe_psql('fresh_next', "CREATE EXTENSION bcmig VERSION '99.0' CASCADE");
is(join("\n", extension_differences($green, 'postgres', 'fresh', 'bcmig', @shipped)), '', 'two installs are the same');
my @lines = extension_lines($green, 'fresh', 'bcmig', @shipped);
cmp_ok(scalar(@lines), '>', 1000, 'and have many lines');

# the update that forgets nothing, and those of this source that lead to its version
sub updated
{
	my ($from, $to) = @_;

	$green->safe_psql('other', "DROP EXTENSION IF EXISTS bcmig; CREATE EXTENSION bcmig VERSION '$from' CASCADE; ALTER EXTENSION bcmig UPDATE TO '$to'");
	return extension_differences($green, 'other', $to eq $current ? 'fresh' : 'fresh_next', 'bcmig', @shipped);
}
is(join("\n", updated($current, '99.0')), '', 'updated is as installed');
foreach my $from (split /\n/, $green->safe_psql('postgres', qq{
	SELECT p.source FROM pg_extension_update_paths('bcmig') p JOIN pg_available_extension_versions v ON v.name = 'bcmig' AND v.version = p.source
	 WHERE p.target = '$current' AND p.path IS NOT NULL AND p.source !~ '^9[89]'}))
{
	is(join("\n", updated($from, $current)), '', "updated from $from is as installed");
}
my @differences = updated($current, '98.0');
foreach my $what (sort keys %seen)
{
	ok((grep { /^[+-] / && $_ =~ $seen{$what} } @differences), "seen when an update forgets: $what");
}
is(join(', ', grep { $_ ne 'column' && $_ ne 'table' && !$seen{$_} } keys %change), '', 'all are looked for');

# ---- library and SQL of different versions ----
script('0.1', $install);
script("0.1--$current", "\n");
script("$current--99.1", "\n");
script("99.1--$current", "\n");

# SQLSTATE and hint of a statement that fails
sub refused
{
	my ($db, $sql) = @_;
	my ($rc, $out, $err) = $green->psql($db, "\\set VERBOSITY verbose\n$sql");

	return $rc == 0 ? "done: $out" : join(' ', $err =~ /ERROR:\s+(\w+):/, $err =~ /HINT:\s+([^\n]*)/);
}
my $waits = "SELECT phase = 'waits for its version' FROM bcmig.worker_status WHERE role = 'manager'";

$green->safe_psql('other', "DROP EXTENSION bcmig; CREATE EXTENSION bcmig VERSION '0.1' CASCADE");
is(refused('other', "SELECT bcmig_create_sync('s', 'nowhere')"), 'BM019 ALTER EXTENSION bcmig UPDATE;', 'library newer than SQL: functions are refused');
ok($green->poll_query_until('other', $waits), 'and the manager waits');
$green->safe_psql('other', 'ALTER EXTENSION bcmig UPDATE');
like(refused('other', "SELECT bcmig_create_sync('s', 'nowhere')"), qr/^(?!BM019)/, 'updated, functions work again');
ok($green->poll_query_until('other', "SELECT phase = 'schedules' FROM bcmig.worker_status WHERE role = 'manager'"), 'and the manager');

# in the middle of a sync
my $blue = new_blue();
$blue->safe_psql('postgres', q{CREATE TABLE t (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0); INSERT INTO t SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i});
track($blue, 't');
connect_blue($green, $blue, 's');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', 't')");
start_sync($green, 's');
wait_sync($green, 's');
$green->safe_psql('postgres', "ALTER EXTENSION bcmig UPDATE TO '99.1'");
$blue->safe_psql('postgres', "INSERT INTO t SELECT i, 'w', 0 FROM generate_series(101, 200) i; DELETE FROM t WHERE id < 10");
ok($green->poll_query_until('postgres', $waits), 'SQL newer than library: the manager waits');
is($green->safe_psql('postgres', "SELECT last_error FROM bcmig.worker_status WHERE role = 'manager'"),
	"SQL of version 99.1, library of version $current: Restart the server, so that it loads the installed library.", 'and says what for');
like($green->safe_psql('postgres', "SELECT problems FROM bcmig_status()"), qr/^nothing goes on: SQL of version 99\.1/, 'bcmig_status() too');
is(refused('postgres', "SELECT bcmig_stop_sync('s')"), 'BM019 Restart the server, so that it loads the installed library.', 'functions are refused');
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.worker_status WHERE role IN ('poller', 'runner')"), 'nobody asks blue any more');
is($green->safe_psql('postgres', 'SELECT count(*), max(id) FROM t'), '100|100', 'nothing of blue arrives');
like(refused('postgres', "INSERT INTO t (id, v) VALUES (1000, 'outside')"), qr/^BM021 /, 'the fence goes on');
is($green->safe_psql('postgres', "SELECT bcmig_route('s', 'x')"), 'blue', 'and applications are told where to go');

$green->safe_psql('postgres', "ALTER EXTENSION bcmig UPDATE TO '$current'");
wait_sync($green, 's');
all_equal($blue, $green, 'of one version again', 't');

# and the server it is said to be restarted into
$green->safe_psql('postgres', "ALTER EXTENSION bcmig UPDATE TO '99.1'");
$green->restart;
ok($green->poll_query_until('postgres', $waits), 'waits after a restart too');
is($green->safe_psql('postgres', 'DROP EXTENSION bcmig CASCADE; SELECT count(*) FROM t'), '191', 'what does not fit can be dropped, the rows stay');
unlike(slurp_file($green->logfile), qr/PANIC|was terminated by signal|BM019.*background worker/, 'no process has crashed');

done_testing();
