# The standard plan: docs/plans.md, every block of it run as it stands there; and
# the one that makes its sync from a company on SQL Server.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Utils;
use TdsServer;
use Test::More;

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;});
track($blue, 'item');
allow_switch($blue);
connect_blue($green, $blue, 's');
$green->safe_psql('postgres', q{SELECT bcmig_alter_environment('blue', '{"fence_by": "call"}'); SELECT bcmig_add_table('s', 'item'); CREATE ROLE cutover_board});

my $page = slurp_file((-e 'docs/plans.md' ? '.' : $ENV{BCMIG_SOURCE}) . '/docs/plans.md');
my @blocks = $page =~ /```sql\n(.*?)```/sg;
is(scalar @blocks, 3, 'blocks');

my $said = $green->safe_psql('postgres', $blocks[0]);
like($said, qr/^traffic \(s\)\|warn\|/m, 'the rehearsal speaks of traffic');
unlike($said, qr/\|fail\|/, 'and of nothing that fails');
ok($green->poll_query_until('postgres', q{SELECT state = 'done' FROM bcmig.execution WHERE execution_id = 1}), 'the standard plan is carried out')
  or diag($green->safe_psql('postgres', 'SELECT name, state, error, note FROM bcmig.phase_run ORDER BY position'));
is($green->safe_psql('postgres', q{SELECT green_percent, writes FROM bcmig.traffic_status}), '100|green', 'writers are on green');

$green->safe_psql('postgres', $blocks[1]);
ok($green->poll_query_until('postgres', q{SELECT waits_for ~ '^go: approval' FROM bcmig.execution_status WHERE execution = 2}), 'the other one waits for its approval');
$green->safe_psql('postgres', $blocks[2]);
$green->safe_psql('postgres', q{SELECT bcmig_approve_phase(2, 'go')});
ok($green->poll_query_until('postgres', q{SELECT state = 'done' FROM bcmig.execution WHERE execution_id = 2}), 'and is done');
is($green->safe_psql('postgres', 'SELECT what FROM public.cutover'), 'approved', 'what it was for');

# the page names the phases of the standard plan, and all keys
my @phases = $page =~ /^\| ([a-z ]+) \| `(\w+)` \|/mg;
is("@phases", $green->safe_psql('postgres', q{SELECT string_agg(p.name || ' ' || p.action, ' ' ORDER BY position) FROM bcmig.phase p JOIN bcmig.plan n USING (plan_id) WHERE n.name = 'move'}),
	'the table of the standard plan is right');

$green->stop;
$blue->stop;

# ---------------------------------------------------------------------------
# From a company's name to its sync; the stand-in is slow, the rest is as above
# ---------------------------------------------------------------------------
my $server = new_sql_server();
my $bc = $server->{node};
my $app = '437dbf0e-84ff-417a-965d-ed2bb9650972';
my $n = 0;
sub table
{
	my ($name, $key, @more) = @_;
	my $rel = sprintf('t%03d', ++$n);
	my @parts = ('"timestamp" bigint NOT NULL DEFAULT 0', "\"$key\" varchar(30) NOT NULL DEFAULT '' PRIMARY KEY", @more);
	$bc->safe_psql('postgres', "CREATE TABLE $rel (" . join(', ', @parts) . "); SELECT mssql.register('$rel', \$q\$$name\$q\$)");
	return $rel;
}
my $id = '"$systemId" uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE';
my $company = table('Company', 'Name');
my $customer = table("CRONUS\$Customer\$$app", 'No_', '"Name" varchar(100) NOT NULL DEFAULT \'\'', $id);
my $entry = table("CRONUS\$G_L Entry\$$app", 'Entry No_', '"Amount" numeric(38,20) NOT NULL DEFAULT 0', $id);
$bc->safe_psql('postgres', qq{INSERT INTO $company ("Name") VALUES ('CRONUS');
	INSERT INTO $customer ("No_", "Name") SELECT 'C' || i, 'n' || i FROM generate_series(1, 200) i; INSERT INTO $entry ("Entry No_", "Amount") SELECT i, i / 3.0 FROM generate_series(1, 300) i});
my $other = new_green('other');
connect_sql_server($other, $server);
$other->safe_psql('postgres', q{SELECT bcmig_create_plan('company', 'cronus', NULL, '{"blue": "blue", "company": "CRONUS", "target_schema": "cronus", "steps": [50], "stabilization": 0, "auto_rollback": true}')});
is($other->safe_psql('postgres', q{SELECT count(*) FROM bcmig.sync}), '0', 'there is no sync yet');
$other->safe_psql('postgres', q{SELECT bcmig_execute_plan('company')});
ok($other->poll_query_until('postgres', q{SELECT state = 'done' FROM bcmig.phase_run WHERE name = 'company'}), 'the sync and its company are there');
is($other->safe_psql('postgres', q{SELECT (result ->> 'tables')::int FROM bcmig.phase_run WHERE name = 'company'}), '2', 'both tables of the company');

done_testing();
