# Plans and their execution: how they are made and refused, retries, approval,
# pause, skip, cancel, what is taken back, SQL that would be somebody else.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;
	CREATE TABLE other (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);});
track($blue, $_) foreach qw(item other);
allow_switch($blue);
connect_blue($green, $blue, 's');
$green->safe_psql('postgres', q{SELECT bcmig_alter_environment('blue', '{"fence_by": "call"}'); SELECT bcmig_add_table('s', 'item')});

sub value { return $green->safe_psql('postgres', $_[0]) }

# error of a statement: SQLSTATE: message
sub refused
{
	my ($sql, $user) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose', $user ? ('-U', $user) : () ]);
	return $err =~ /ERROR:\s+(.*)/ ? $1 : "not refused: $out";
}

# make and execute; %o: options (JSON), sync
sub execute
{
	my ($name, $phases, %o) = @_;
	my $sync = $o{sync} ? "'$o{sync}'" : 'NULL';
	my $options = $o{options} // '{}';
	value("SELECT bcmig_create_plan('$name', $sync, \$json\$$phases\$json\$, '$options')");
	return value("SELECT bcmig_execute_plan('$name')");
}

sub wait_for
{
	my ($execution, $state) = @_;
	return 1 if $green->poll_query_until('postgres', "SELECT state = '$state' FROM bcmig.execution WHERE execution_id = $execution");
	diag(value("SELECT * FROM bcmig.execution WHERE execution_id = $execution"));
	diag(value("SELECT position, name, sync, state, attempt, error, note, result FROM bcmig.phase_run WHERE execution_id = $execution ORDER BY wave, position"));
	return 0;
}

sub phases
{
	my ($execution) = @_;
	return value("SELECT string_agg(name || ' ' || state, ', ' ORDER BY wave, position, sync) FROM bcmig.phase_run WHERE execution_id = $execution");
}

sub wait_phase
{
	my ($execution, $phase, $state) = @_;
	return $green->poll_query_until('postgres', "SELECT count(*) > 0 FROM bcmig.phase_run WHERE execution_id = $execution AND name = '$phase' AND state = '$state'");
}

# ---------------------------------------------------------------------------
# SQL phases
# ---------------------------------------------------------------------------
value('CREATE TABLE public.log (id int GENERATED ALWAYS AS IDENTITY, what text, who text DEFAULT session_user)');
my $e = execute('simple', q{[
	{"name": "second", "type": "code", "sql": "INSERT INTO public.log (what) VALUES ('second')", "depends_on": ["first"]},
	{"name": "first", "type": "schema", "sql": "CREATE TABLE public.made (id int); INSERT INTO public.log (what) VALUES ('first'), (current_user)"},
	{"name": "not", "type": "code", "sql": "INSERT INTO public.log (what) VALUES ('not')", "active": false}]});
ok(wait_for($e, 'done'), 'a plan of SQL is done');
is(value('SELECT string_agg(what, \' \' ORDER BY id) FROM public.log'), 'first ' . (getpwuid($<))[0] . ' second', 'each once, in order, as the owner');
is(value("SELECT state, phases_total, phases_done, phases_failed, success_rate, percent, current_phase IS NULL FROM bcmig.execution_status WHERE execution = $e"),
	'done|2|2|0|100.0|100.0|t', 'its line');


# --- SQL that would be somebody else, or stay ---
value(q{CREATE ROLE boss SUPERUSER; CREATE ROLE clerk LOGIN; CREATE ROLE approver LOGIN; CREATE ROLE stranger LOGIN; GRANT boss TO clerk WITH ADMIN OPTION;
	CREATE SCHEMA clerk AUTHORIZATION clerk; GRANT USAGE ON SCHEMA bcmig TO clerk, approver, stranger; GRANT SELECT ON ALL TABLES IN SCHEMA bcmig TO clerk, approver, stranger});
value(q{SELECT format('GRANT EXECUTE ON ROUTINE %s TO clerk, approver, stranger', p.oid::regprocedure) FROM pg_proc p WHERE p.proname ~ '^bcmig' \gexec});
value(q{CREATE FUNCTION public.rise() RETURNS void LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''role'', ''boss'', false); END';
	CREATE FUNCTION public.rise_later() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM set_config(''role'', ''boss'', false); RETURN NULL; END';
	CREATE TABLE clerk.t (id int); ALTER TABLE clerk.t OWNER TO clerk;
	CREATE CONSTRAINT TRIGGER later AFTER INSERT ON clerk.t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.rise_later()});
my %rising = (
	'DO' => [ q{DO $$ BEGIN SET ROLE boss; END $$}, qr/^42501/ ],
	'a function' => [ q{SELECT public.rise()}, qr/^42501/ ],
	'session authorization' => [ q{DO $$ BEGIN EXECUTE 'SET SESSION AUTHORIZATION boss'; END $$}, qr/^42501/ ],
	'a deferred trigger' => [ q{INSERT INTO clerk.t VALUES (1)}, qr/^42501/ ],
	'COMMIT in a block' => [ q{DO $$ BEGIN COMMIT; END $$}, qr/^2D000/ ],
	'a temporary table' => [ q{CREATE TEMP TABLE x (id int)}, qr/^42501/ ],
	'VACUUM' => [ q{VACUUM clerk.t}, qr/^25001/ ],
	'no such table' => [ q{SELECT * FROM clerk.not_there}, qr/^42P01/ ],
	'an error' => [ q{SELECT 1/0}, qr/^22012/ ],
	'too long' => [ q{SELECT pg_sleep(100)}, qr/^57014/, '"timeout": 300' ],
	'who ends its process' => [ q{SELECT pg_cancel_backend(pg_backend_pid()), pg_sleep(1)}, qr/^57014/ ]);
foreach my $how (sort keys %rising)
{
	my ($sql, $error, $more) = @{ $rising{$how} };
	$green->safe_psql('postgres', "SELECT bcmig_create_plan('rise', NULL, jsonb_build_array(jsonb_build_object('name', 'p', 'type', 'code', 'sql', \$sql\$$sql\$sql\$)"
		. ($more ? " || '{$more}'" : '') . "))", extra_params => [ '-U', 'clerk' ]);
	my $n = $green->safe_psql('postgres', q{SELECT bcmig_execute_plan('rise')}, extra_params => [ '-U', 'clerk' ]);
	ok(wait_for($n, 'failed'), "$how fails");
	like(value("SELECT sqlstate || ' ' || error FROM bcmig.phase_run WHERE execution_id = $n"), $error, "$how: with its error");
	value(q{SELECT bcmig_drop_plan('rise')});
}
is(value(q{SELECT string_agg(DISTINCT owner::text, ' ') FROM bcmig.execution WHERE plan_name = 'rise'}), 'clerk', 'all of it as clerk');
is(value('SELECT count(*) FROM clerk.t'), '0', 'and nothing of it stays');
like(refused(q{SELECT bcmig_create_plan('x', NULL, '[{"name": "a", "type": "code", "sql": "SET ROLE boss"}]')}), qr/^BM031: phase 1 "a", sql: it must not become another role/, 'SET ROLE is refused at once');
like(refused(q{SELECT bcmig_create_plan('x', NULL, '[{"name": "a", "type": "code", "sql": "BEGIN; SELECT 1"}]')}), qr/^BM031: .*must not begin or end/, 'so is BEGIN');
like(refused(q{SELECT bcmig_create_plan('x', 's', NULL)}, 'stranger'), qr/^42501: /, 'a plan about the sync of another');
like(refused("SELECT bcmig_cancel_execution($e)", 'stranger'), qr/^42501: /, 'an execution of another');
like(refused(q{SELECT bcmig_execute_plan('simple')}, 'stranger'), qr/^42501: /, 'a plan of another');
like(refused(q{SELECT bcmig_drop_plan('simple')}, 'stranger'), qr/^42501: /, 'nor dropped');

# --- retries, with a pause in between ---
$e = execute('retry', q{[{"name": "p", "type": "code", "sql": "INSERT INTO public.not_yet VALUES (1)", "retries": 2, "backoff": "1 ms"}]});
ok(wait_for($e, 'failed'), 'fails in the end');
is(value("SELECT attempt, sqlstate, error IS NOT NULL FROM bcmig.phase_run WHERE execution_id = $e"), '3|42P01|t', 'after three attempts');
is(value("SELECT success_rate, error FROM bcmig.execution_status WHERE execution = $e"), '0.0|phase p failed', 'its line says so');
value('CREATE TABLE public.not_yet (id int)');
value("SELECT bcmig_resume_execution($e)");
ok(wait_for($e, 'done'), 'resumed after it was mended');
is(value('SELECT count(*) FROM public.not_yet'), '1', 'once');

# --- approval, pause, skip, resume; a plan that changes meanwhile ---
$e = execute('asks', q{[
	{"name": "a", "type": "code", "sql": "INSERT INTO public.log (what) VALUES ('a')"},
	{"name": "b", "type": "code", "sql": "INSERT INTO public.log (what) VALUES ('b')", "approval": "approver"},
	{"name": "c", "type": "code", "sql": "INSERT INTO public.log (what) VALUES ('c')", "precondition": "SELECT count(*) > 1 FROM public.not_yet"},
	{"name": "d", "type": "code", "sql": "SELECT 1/0"}]});
ok(wait_phase($e, 'b', 'waiting'), 'waits for approval');
like(value("SELECT waits_for FROM bcmig.execution_status WHERE execution = $e"), qr/^b: approval by role approver: SELECT bcmig_approve_phase\($e, 'b'\);$/, 'and says whose');
like(refused("SELECT bcmig_approve_phase($e, 'b')", 'stranger'), qr/^42501: must be a member of role "approver"/, 'approved without the right');
like(refused("SELECT bcmig_approve_phase($e, 'c')"), qr/^BM009: .*needs no approval/, 'what needs none');
like(refused("SELECT bcmig_approve_phase($e, 'x')"), qr/^BM001: /, 'no such phase');
like(refused(q{SELECT bcmig_execute_plan('asks')}), qr/^BM009: execution $e of plan "asks" is not over/, 'a second execution');
value(q{SELECT bcmig_drop_plan('asks'); SELECT bcmig_create_plan('asks', NULL, '[{"name": "b", "type": "code", "sql": "SELECT 1"}]')});
value("SELECT bcmig_pause_execution($e)");
ok(wait_for($e, 'paused'), 'paused');
$green->safe_psql('postgres', "SELECT bcmig_approve_phase($e, 'b')", extra_params => [ '-U', 'approver' ]);
ok($green->poll_query_until('postgres', "SELECT approved_by = 'approver' FROM bcmig.phase_run WHERE execution_id = $e AND name = 'b'"), 'approved while it is paused');
is(value("SELECT state FROM bcmig.execution WHERE execution_id = $e"), 'paused', 'and paused it stays');
value("SELECT bcmig_resume_execution($e)");
ok(wait_phase($e, 'c', 'waiting'), 'goes on to the precondition');
is(phases($e), 'a done, b done, c waiting, d pending', 'of the plan as it was');
value('INSERT INTO public.not_yet VALUES (2)');
ok(wait_for($e, 'failed'), 'goes on when it is true, until one fails');
value("SELECT bcmig_skip_phase($e, 'd', 'not needed')");
ok(wait_phase($e, 'd', 'skipped'), 'skipped');
value("SELECT bcmig_resume_execution($e)");
ok(wait_for($e, 'done'), 'and done');
is(value("SELECT note FROM bcmig.phase_run WHERE execution_id = $e AND name = 'd'"), 'not needed (' . (getpwuid($<))[0] . ')', 'with the reason');
is(value("SELECT phases_done, phases_skipped, percent FROM bcmig.execution_status WHERE execution = $e"), '3|1|100.0', 'its line');
like(refused("SELECT bcmig_pause_execution($e)"), qr/^BM009: .*cannot be paused: it is done/, 'what is done is not paused');
like(refused('SELECT bcmig_cancel_execution(4711)'), qr/^BM001: execution 4711 does not exist/, 'an unknown execution');

# --- an open transaction of a person stops nothing ---
$e = execute('open', q{[{"name": "a", "type": "code", "sql": "SELECT 1", "approval": "approver"}, {"name": "b", "type": "code", "sql": "SELECT 1"}]});
ok(wait_phase($e, 'a', 'waiting'), 'waits');
my $open = $green->background_psql('postgres', on_error_die => 1);
$open->query_safe("BEGIN; SELECT bcmig_pause_execution($e)");
value("SELECT bcmig_approve_phase($e, 'a')");
ok(wait_for($e, 'done'), 'while a pause is not committed');
$open->query_safe('COMMIT');
$open->quit;
ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.execution_request'), 'a pause that comes late is forgotten');
is(value("SELECT state FROM bcmig.execution WHERE execution_id = $e"), 'done', 'done it stays');

# --- what is done is taken back, the last first ---
$e = execute('back', q{[
	{"name": "a", "type": "schema", "sql": "CREATE TABLE public.a (id int)", "compensation": "DROP TABLE public.a; INSERT INTO public.log (what) VALUES ('a back')"},
	{"name": "b", "type": "code", "sql": "SELECT 1", "compensation": "none"},
	{"name": "c", "type": "data", "sql": "INSERT INTO public.a VALUES (1)", "compensation": "INSERT INTO public.log (what) SELECT 'c back' || count(*) FROM public.a"},
	{"name": "d", "type": "validation", "sql": "SELECT 1/0"}]}, options => '{"auto_rollback": true}');
ok(wait_for($e, 'rolled_back'), 'taken back');
is(phases($e), 'a compensated, b not_compensated, c compensated, d failed', 'all that can be');
is(value(q{SELECT string_agg(what, ' ' ORDER BY id) FROM public.log WHERE what LIKE '% back%'}), 'c back1 a back', 'in reverse');
is(value("SELECT error FROM bcmig.execution WHERE execution_id = $e"), 'phase d failed; not taken back: b', 'what could not is listed');
like(refused("SELECT bcmig_resume_execution($e)"), qr/^BM009: .*it is taken back/, 'and is not resumed');
like(refused(q{SELECT bcmig_create_plan('x', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1"}]', '{"auto_rollback": true}')}),
	qr/^BM031: phase 1 "a": it has no "compensation"/, 'a compensation that is missing');

# one that fails stops those before it
$e = execute('stuck', q{[
	{"name": "a", "type": "schema", "sql": "SELECT 1", "compensation": "INSERT INTO public.log (what) VALUES ('never')"},
	{"name": "b", "type": "code", "sql": "SELECT 1", "compensation": "SELECT 1/0", "backoff": 0},
	{"name": "c", "type": "validation", "sql": "SELECT 1/0"}]}, options => '{"auto_rollback": true}');
ok(wait_for($e, 'failed'), 'a compensation fails');
is(phases($e), 'a not_compensated, b not_compensated, c failed', 'and what was before it stays');
is(value(q{SELECT count(*) FROM public.log WHERE what = 'never'}), '0', 'untouched');

# --- cancel, while SQL runs too ---
$e = execute('cancel', q{[
	{"name": "a", "type": "schema", "sql": "CREATE TABLE public.a (id int)", "compensation": "DROP TABLE public.a"},
	{"name": "b", "type": "code", "sql": "SELECT pg_sleep(600)", "compensation": "none", "retries": 5}]}, options => '{"auto_rollback": true}');
ok(wait_phase($e, 'b', 'running'), 'runs');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'}), 'its statement too');
value("SELECT bcmig_cancel_execution($e)");
ok(wait_for($e, 'rolled_back'), 'cancelled');
is(phases($e), 'a compensated, b pending', 'broken off, and taken back');
is(value("SELECT error FROM bcmig.execution WHERE execution_id = $e"), 'cancelled by ' . (getpwuid($<))[0], 'by whom');

# ---------------------------------------------------------------------------
# Steps of bcmig: two companies in two waves
# ---------------------------------------------------------------------------
value(q{SELECT bcmig_create_sync('o', 'blue', '{"maintenance_role": "bcmig_maintenance"}'); SELECT bcmig_add_table('o', 'other')});
value(q{SELECT bcmig_create_plan('waves', NULL, NULL, '{"waves": [["s"], ["o"]], "steps": [50, 100], "stabilization": 0}')});
is(value(q{SELECT string_agg(p.name || CASE WHEN p.active THEN '' ELSE ' (not)' END, ', ' ORDER BY p.position) FROM bcmig.phase p JOIN bcmig.plan USING (plan_id) WHERE plan.name = 'waves'}),
	'preflight, copy, catch up, validation, code, sequences, settings (not), gates, traffic, observation, cleanup (not)', 'the standard plan');
$e = value(q{SELECT bcmig_execute_plan('waves')});
ok(wait_for($e, 'done'), 'the standard plan, twice');
is(value(q{SELECT string_agg(sync || ' ' || green_percent, ', ' ORDER BY sync) FROM bcmig.traffic_status}), 'o 100, s 100', 'both syncs are on green');
is(value("SELECT count(*), count(DISTINCT wave), bool_and(state = 'done') FROM bcmig.phase_run WHERE execution_id = $e"), '18|2|t', 'nine phases in each of two waves');
is(value("SELECT bool_and(result ? 'switch_id') FROM bcmig.phase_run WHERE execution_id = $e AND name = 'traffic'"), 't', 'with what they did');
is(value(q{SELECT count(*) FROM bcmig.switch}), '2', 'one switch each');
cmp_ok(value("SELECT min(started_at) FROM bcmig.phase_run WHERE execution_id = $e AND wave = 2"), 'gt',
	value("SELECT max(ended_at) FROM bcmig.phase_run WHERE execution_id = $e AND wave = 1"), 'one wave after the other');
is(compare_table($blue, $green, $_), '', "$_ is equal") foreach qw(item other);

# --- a wave that fails stops what comes after it, and takes itself back ---
value(q{SELECT bcmig_rollback('s', 'again'); SELECT bcmig_rollback('o', 'again')});
wait_sync($green, $_, 'rolled_back') foreach qw(s o);
value(q{SELECT bcmig_stop_sync('s')});
ok($green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_state JOIN bcmig.sync USING (sync_id) WHERE name = 's'}), 'stopped');
value(q{SELECT bcmig_create_plan('fails', 's', (SELECT jsonb_agg(to_jsonb(p) - '{plan_id,position}'::text[] ORDER BY p.position) FROM bcmig.phase p JOIN bcmig.plan USING (plan_id)
		WHERE plan.name = 'waves' AND p.active AND p.name IN ('copy', 'catch up', 'validation', 'traffic'))
	|| '[{"name": "no", "type": "validation", "sql": "SELECT 1/0"}]', '{"auto_rollback": true, "waves": [["s"], ["o"]]}')});
$e = value(q{SELECT bcmig_execute_plan('fails')});
ok(wait_for($e, 'rolled_back'), 'taken back');
is(phases($e), 'copy compensated, catch up done, validation done, traffic compensated, no failed, copy pending, catch up pending, validation pending, traffic pending, no pending',
	'the first wave is, the second never began');
is(value(q{SELECT string_agg(sync || ' ' || green_percent, ', ' ORDER BY sync) FROM bcmig.traffic_status}), 'o 0, s 0', 'nothing is on green');
is(value(q{SELECT state FROM bcmig.sync_status WHERE sync = 's'}), 'stopped', 'and it is stopped again');

# --- what an execution has made goes with it, what was there stays ---
value(q{CREATE TABLE public.bystander (id int)});
$blue->safe_psql('postgres', q{CREATE TABLE made (id int PRIMARY KEY, "timestamp" bigint NOT NULL DEFAULT 0); INSERT INTO made SELECT i, 0 FROM generate_series(1, 50) i});
track($blue, 'made');
my $makes = q{[{"name": "sync", "action": "create_sync", "arguments": {"blue": "blue"}},
	{"name": "table", "action": "add_table", "arguments": {"source_table": "made", "target": "public.made_there"}},
	{"name": "copy", "action": "copy"}, {"name": "catch up", "action": "catch_up"},
	{"name": "gates", "action": "gates", "timeout": "SHORT ms"}]};
# enough for them to be looked at once
my $short = int($PostgreSQL::Test::Utils::timeout_default / 0.1);
$makes =~ s/SHORT/$short/;
$e = execute('makes', $makes, sync => 'm', options => '{"auto_rollback": true}');
ok(wait_for($e, 'rolled_back'), 'taken back');
is(phases($e), 'sync compensated, table done, copy compensated, catch up done, gates failed', 'the sync was stopped and dropped');
like(value("SELECT sqlstate || ' ' || error FROM bcmig.phase_run WHERE execution_id = $e AND name = 'gates'"), qr/^57014 it was not done in time: validation/, 'gates that are not ok in time');
is(value(q{SELECT count(*) FROM bcmig.sync WHERE name = 'm'}), '0', 'no sync');
is(value(q{SELECT to_regclass('public.made_there') IS NULL, to_regclass('public.bystander') IS NOT NULL}), 't|t', 'no table of it');
value(q{SELECT bcmig_create_sync('m', 'blue'); SELECT bcmig_add_table('m', 'made', 'public.made_there')});
$e = value(q{SELECT bcmig_execute_plan('makes')});
ok(wait_for($e, 'rolled_back'), 'the same once more, where the sync is there already');
is(value("SELECT note FROM bcmig.phase_run WHERE execution_id = $e AND name = 'sync'"), 'it was so already; left alone: it was so before the execution', 'it is left alone');
is(value(q{SELECT state FROM bcmig.sync_status WHERE sync = 'm'}), 'stopped', 'and stopped, as it was');

# --- nobody it could run as ---
value(q{CREATE ROLE nologin; GRANT ALL ON ALL FUNCTIONS IN SCHEMA public TO nologin; SET ROLE nologin; SELECT bcmig_create_plan('nologin', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1"}]')});
like(refused(q{SELECT bcmig_execute_plan('nologin')}), qr/^BM009: the owner of plan "nologin" may not log in/, 'an owner who may not log in');

# --- a copy of green does not go on ---
$e = execute('copy', q{[{"name": "a", "type": "code", "sql": "SELECT 1", "approval": "approver"}, {"name": "b", "type": "code", "sql": "SELECT 1"}]});
ok(wait_phase($e, 'a', 'waiting'), 'waits');
value("UPDATE bcmig.execution SET green[4] = 'of another' WHERE execution_id = $e");
ok(wait_for($e, 'paused'), 'on another machine: paused');
like(value("SELECT error FROM bcmig.execution WHERE execution_id = $e"), qr/^this is another machine.*bcmig_resume_execution\($e\)/, 'and says why');
value("SELECT bcmig_approve_phase($e, 'a')");
ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.execution_request'), 'approved');
is(value("SELECT state FROM bcmig.execution WHERE execution_id = $e"), 'paused', 'and paused it stays');
value("SELECT bcmig_resume_execution($e)");
ok(wait_for($e, 'done'), 'resumed by a person');

is(value(q{SELECT count(*) FROM bcmig.worker_status WHERE role = 'runner'}), '0', 'no runner is left');

done_testing();
