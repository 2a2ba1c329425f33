# The server of green is killed at ten random instants of a plan that goes from
# nothing to 100 % through a real HAProxy: it ends right, and nothing it did was
# done twice.  SEED=n repeats a run.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HAProxy;
use Test::More;
use Time::HiRes qw(usleep);

my $seed = $ENV{SEED} // time;
srand($seed);
diag("SEED=$seed");

my $blue = new_blue();
my $green = new_green();
my $kills = 10;

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 1000) i;
	CREATE TABLE entry (id bigint PRIMARY KEY, amount numeric(38,20), "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO entry SELECT i, i / 3.0, 0 FROM generate_series(1, 20000) i;});
track($blue, $_) foreach qw(item entry);
allow_switch($blue);
connect_blue($green, $blue);
$green->safe_psql('postgres', q{SELECT bcmig_alter_environment('blue', '{"fence_by": "call"}');
	CREATE TABLE public.log (id int GENERATED ALWAYS AS IDENTITY, what text)});
my $front = HAProxy->new(blue => [ 'blue1', 'blue2' ], green => ['green1']);

# the sync is made by the plan; SQL is long enough to be hit
my $balancer = q{SELECT public.bcmig_add_balancer('s', 'front', 'haproxy', '} . $front->url . q{', '{\"backend\": \"bc\", \"blue\": [\"blue1\", \"blue2\"], \"green\": [\"green1\"]}')};
$green->safe_psql('postgres', q{SELECT bcmig_create_plan('p', 's', $json$[
	{"name": "environment", "action": "check_environment", "arguments": {"environment": "blue"}},
	{"name": "schema", "action": "create_sync", "arguments": {"blue": "blue", "options": {"traffic_timeout": "2s"}}},
	{"name": "item", "action": "add_table", "arguments": {"source_table": "item", "target": "public.item"}},
	{"name": "entry", "action": "add_table", "arguments": {"source_table": "entry", "target": "public.entry"}},
	{"name": "balancer", "type": "configuration", "sql": "BALANCER"},
	{"name": "preflight", "action": "preflight"},
	{"name": "copy", "action": "copy"},
	{"name": "catch up", "action": "catch_up"},
	{"name": "code", "type": "code", "sql": "INSERT INTO public.log (what) VALUES ('code'); SELECT pg_sleep(0.5)"},
	{"name": "validation", "action": "validate"},
	{"name": "views", "action": "make_views"},
	{"name": "sequences", "action": "set_sequences"},
	{"name": "gates", "action": "gates"},
	{"name": "traffic", "action": "switch_traffic", "arguments": {"steps": [10, 50, 75, 100], "options": {"stabilization": 500, "on_failure": "hold"}}},
	{"name": "after", "type": "configuration", "sql": "INSERT INTO public.log (what) VALUES ('after'); SELECT pg_sleep(0.5)"},
	{"name": "observation", "action": "observe"}]$json$)} =~ s/BALANCER/$balancer/r);
my $e = $green->safe_psql('postgres', q{SELECT bcmig_execute_plan('p')});

my @where;
foreach my $n (1 .. $kills)
{
	usleep(rand(1_200_000));
	push @where, $green->safe_psql('postgres', "SELECT state || ': ' || coalesce(current_phase, '-') FROM bcmig.execution_status WHERE execution = $e");
	$green->stop('immediate');
	$green->start;
}
diag('killed while ' . join(', ', @where));
cmp_ok(scalar(grep { /^running/ } @where), '>=', 5, 'killed on its way');
ok($green->poll_query_until('postgres', "SELECT state NOT IN ('running', 'compensating') FROM bcmig.execution WHERE execution_id = $e"), 'ends')
  or diag($green->safe_psql('postgres', "SELECT name, state, attempt, begun, percent, note, error FROM bcmig.phase_run WHERE execution_id = $e ORDER BY position"));
is($green->safe_psql('postgres', "SELECT state, phases_done, phases_failed, success_rate, percent FROM bcmig.execution_status WHERE execution = $e"), 'done|16|0|100.0|100.0', 'done, all of it')
  or diag($green->safe_psql('postgres', "SELECT name, state, attempt, note, error FROM bcmig.phase_run WHERE execution_id = $e AND state <> 'done' ORDER BY position LIMIT 3"));

# --- what it has done ---
is($green->safe_psql('postgres', q{SELECT green_percent || ' ' || writes || ' ' || journal_armed || ' ' || fence FROM bcmig.traffic}), '100 green true false', 'writers are on green');
is($front->share_of_requests(200), 100, 'and all requests');
my ($rc, $out, $err) = $blue->psql('postgres', q{UPDATE item SET v = 'x' WHERE id = 1});
ok($rc != 0, 'blue is fenced');
is(compare_table($blue, $green, $_), '', "$_ is equal") foreach qw(item entry);

# --- once ---
is($green->safe_psql('postgres', q{SELECT string_agg(what, ' ' ORDER BY id) FROM public.log}), 'code after', 'SQL was run once, in order');
is($green->safe_psql('postgres', q{SELECT string_agg(event || ' ' || n, ', ' ORDER BY event) FROM (SELECT event, count(*) AS n FROM bcmig.audit_log
	WHERE kind = 'command' AND event IN ('bcmig_create_sync', 'bcmig_add_table', 'bcmig_add_balancer', 'bcmig_start_sync', 'bcmig_switch_traffic') GROUP BY 1) x}),
	'bcmig_add_balancer 1, bcmig_add_table 2, bcmig_create_sync 1, bcmig_start_sync 1, bcmig_switch_traffic 1', 'each step was asked for once');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.validation_run WHERE mode = 'full'}), '1', 'one full validation');
is($green->safe_psql('postgres', q{SELECT count(*), min(state) FROM bcmig.switch}), '1|done', 'one switch');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.audit_log WHERE event = 'phase done'}), '16', 'each phase was done once');
is($green->safe_psql('postgres', "SELECT bool_and(attempt = 1) FROM bcmig.phase_run WHERE execution_id = $e"), 't', 'at the first attempt');
is($green->safe_psql('postgres', q{SELECT split_part(what, ',', 1) FROM bcmig_verify_audit() WHERE first_bad IS NULL LIMIT 1}), 'ok', 'the chain of the audit log fits');
is((run_validation($green, 's', 'full'))[1], 'ok', 'and so do the rows');

done_testing();
