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

done_testing();
