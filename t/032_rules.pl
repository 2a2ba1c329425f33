# Rules of a validation: what may be one, what becomes of a bad one, whose fault
# a failure is, and that a change on its way is no failure.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', "bcmig.debug_points = 'rule_failed'");

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

on_blue(q{
	CREATE TABLE entry (no int PRIMARY KEY, account varchar(20) NOT NULL, amount numeric(38,20) NOT NULL, note text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE account (code varchar(20) PRIMARY KEY, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO entry SELECT i, 'A' || i % 10, CASE i % 2 WHEN 0 THEN 1.5 ELSE -1.5 END FROM generate_series(1, 1000) i;
	INSERT INTO account SELECT 'A' || i FROM generate_series(0, 9) i;});
track($blue, $_) foreach qw(entry account);
connect_blue($green, $blue, 's');
on_green("SELECT bcmig_add_table('s', '$_')") foreach qw(entry account);
start_sync($green, 's');
wait_sync($green, 's', 'caught_up');

sub refused
{
	my ($code, $sql, $what) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	like($err, qr/ERROR:  $code:.*HINT:/s, $what);
}

sub rule
{
	my ($name, $severity, $query, $kind) = @_;
	on_green("SELECT bcmig_add_rule('s', '$name', '" . ($kind // 'business') . "', '$severity', \$q\$$query\$q\$)");
}

sub validate
{
	my ($mode, $meanwhile) = @_;
	return run_validation($green, 's', $mode, meanwhile => $meanwhile);
}

sub result
{
	my ($run, $name, $columns) = @_;
	return on_green("SELECT " . ($columns // 'x.verdict') . " FROM bcmig.rule_result x JOIN bcmig.rule u USING (rule_id) WHERE run_id = $run AND name = '$name'");
}

# --- what is no rule ---
my $orphans = 'SELECT e.no, e.account FROM public.entry e WHERE NOT EXISTS (SELECT FROM public.account a WHERE a.code = e.account)';
refused('BM001', "SELECT bcmig_add_rule('nobody', 'x', 'business', 'hard', 'SELECT 1')", 'an unknown sync');
refused('BM003', "SELECT bcmig_add_rule('s', 'x', 'guess', 'hard', 'SELECT 1')", 'a kind there is not');
refused('BM003', "SELECT bcmig_add_rule('s', 'x', 'business', 'harder', 'SELECT 1')", 'a severity there is not');
refused('BM003', "SELECT bcmig_add_rule('s', 'x', 'business', 'hard', '$_->[0]')", $_->[1])
  foreach (
	[ 'SELECT 1; SELECT 2', 'two statements' ],
	[ '-- nothing', 'no statement' ],
	[ 'INSERT INTO public.account VALUES (1) RETURNING code', 'INSERT' ],
	[ 'DELETE FROM public.account', 'DELETE' ],
	[ 'WITH x AS (DELETE FROM public.account RETURNING code) SELECT * FROM x', 'a WITH that writes' ],
	[ 'SELECT code FROM (SELECT code FROM public.account FOR UPDATE) x', 'FOR UPDATE' ],
	[ 'SELECT code INTO public.copy FROM public.account', 'SELECT INTO' ],
	[ 'EXPLAIN SELECT 1', 'a command' ]);
refused('42P01', "SELECT bcmig_add_rule('s', 'x', 'business', 'hard', 'SELECT code FROM account')", 'a name without its schema');
refused('BM001', "SELECT bcmig_remove_rule('s', 'x')", 'nothing to remove');
rule('orphans', 'hard', "$orphans; -- with a comment", 'reference');
refused('BM002', "SELECT bcmig_add_rule('s', 'orphans', 'business', 'hard', 'SELECT 1')", 'a name that is taken');
is(on_green(q{SELECT source_table FROM bcmig.rule u JOIN bcmig.sync_table USING (table_id) WHERE u.name = 'orphans'}), 'entry', 'it counts for the first table it reads');
on_green(q{CREATE ROLE stranger; GRANT EXECUTE ON FUNCTION bcmig_add_rule(text, text, text, text, text) TO stranger});
my ($rc, $out, $err) = $green->psql('postgres', "SET ROLE stranger; SELECT bcmig_add_rule('s', 'x', 'business', 'hard', 'SELECT 1')");
like($err, qr/must be a member/, 'only for members of the owner');

# --- all is well, but for what is no fault of the data ---
on_green(q{
	CREATE TABLE outside (a int);
	CREATE FUNCTION public.writes() RETURNS int LANGUAGE sql AS 'INSERT INTO public.outside VALUES (1) RETURNING a';
	CREATE FUNCTION public.sets() RETURNS text LANGUAGE sql AS $$SELECT set_config('search_path', 'nowhere', false)$$;
	SELECT bcmig_alter_sync('s', '{"rule_timeout": "1s"}')});
rule('writes', 'soft', 'SELECT public.writes()');
rule('raises', 'soft', 'SELECT 1 / (amount - amount) FROM public.entry');
rule('never ends', 'soft', 'SELECT pg_sleep(600)');
rule('restless', 'soft', 'SELECT clock_timestamp()');
rule('sets', 'soft', 'SELECT public.sets() WHERE false');
rule('sum', 'hard', 'SELECT sum(amount) FROM public.entry HAVING sum(amount) <> 0');
my ($run, $verdict) = validate('full');
is(result($run, $_->[0]), $_->[1], "$_->[0]: $_->[1]")
  foreach ([ 'orphans', 'ok' ], [ 'sum', 'ok' ], [ 'writes', 'error' ], [ 'raises', 'error' ], [ 'never ends', 'error' ], [ 'restless', 'inconclusive' ]);
like(result($run, 'writes', 'detail'), qr/^25006: .*read-only/, 'a function that writes is refused');
is(on_green('SELECT count(*) FROM outside'), '0', 'and has not written');
like(result($run, 'raises', 'detail'), qr/^22012: /, 'what was raised');
like(result($run, 'never ends', 'detail'), qr/^57014: .*timeout/, 'rule_timeout ends it');
is(result($run, 'restless', 'looks'), '5', 'rows that are others each time are looked at five times');
is($verdict, 'ok', 'soft rules do not turn the verdict');
($run, $verdict) = validate('count');
is(on_green("SELECT count(*) FROM bcmig.rule_result WHERE run_id = $run"), '0', 'counting looks at no rule');
on_green("SELECT bcmig_remove_rule('s', '$_')") foreach ('writes', 'never ends', 'restless', 'sets');
rule('raises hard', 'hard', 'SELECT 1 / 0');
is((validate('incremental'))[1], 'inconclusive', 'a hard rule that raises leaves it open');
on_green("SELECT bcmig_remove_rule('s', '$_')") foreach ('raises', 'raises hard');

# --- it fails on blue as well ---
rule('long', 'soft', q{SELECT no, note FROM public.entry WHERE note <> ''});
on_blue(q{INSERT INTO entry SELECT i, 'nowhere', 0 FROM generate_series(2001, 2030) i; UPDATE entry SET note = repeat('x', 5000) WHERE no = 7});
wait_sync($green, 's', 'caught_up');
($run, $verdict) = validate('full');
is(result($run, 'orphans', 'x.verdict, failing, looks, jsonb_array_length(examples)'), 'fails on blue|30|2|20', 'equal data that fail, fail on blue');
is(result($run, 'orphans', q{examples->0->>'account'}), 'nowhere', 'the rows are shown');
is(result($run, 'long', q{length(examples->0->>'note')}), '1003', 'long texts are cut');
is($verdict, 'ok', 'which is no difference');
on_blue(q{DELETE FROM entry WHERE no > 2000; UPDATE entry SET note = NULL WHERE no = 7});
wait_sync($green, 's', 'caught_up');
is((validate('full'))[1], 'ok', 'mended on blue');

# --- a table's verdict is made of four parts, each the worst of its rules ---
sub parts
{
	my ($run) = @_;
	return on_green("SELECT target, verdict, data, \"references\", rules, calculated FROM bcmig.validation_summary WHERE run_id = $run ORDER BY 1");
}
on_green("SELECT bcmig_remove_rule('s', 'long')");
my $of_entry = 'FROM public.entry WHERE';
rule('soft fails', 'soft', "SELECT no $of_entry no = 1");
rule('hard error', 'hard', "SELECT 1 / 0 $of_entry no > 0", 'calculated');
rule('soft error', 'soft', "SELECT 1 / 0 $of_entry no > 0", 'reference');
($run, $verdict) = validate('full');
is(parts($run), join("\n", 'public.account|ok|ok|none|none|none', 'public.entry|inconclusive|ok|error (soft)|fails on blue|error'), 'the worst of each part, and of all');
is($verdict, 'inconclusive', 'and of the run');
is(on_green("SELECT name, verdict, rank FROM bcmig.validation_verdict WHERE run_id = $run ORDER BY rank, name LIMIT 3"), "hard error|error|2\nsoft fails|fails on blue|3\nsoft error|error|5", 'what turned it comes first');
rule('other', 'hard', "SELECT o.a FROM public.outside o, public.entry e WHERE e.no = 1", 'calculated');
on_green('INSERT INTO outside VALUES (3)');
($run, $verdict) = validate('incremental');
is(parts($run), join("\n", 'public.account|ok|ok|none|none|none', 'public.entry|different|ok|error (soft)|fails on blue|fails'), 'a hard rule that fails is worse than one that raises');
is($verdict, 'different', 'for the run as well');
($rc, $out, $err) = $green->psql('postgres', "CALL bcmig_wait_sync('s', 'validated')");
like($err, qr/DETAIL:  public.entry calculated other: fails, 1 rows/, 'bcmig_wait_sync names it');
($run, $verdict) = run_validation($green, 's', 'count');
is(parts($run), join("\n", 'public.account|ok|ok|none|none|none', 'public.entry|ok|ok|none|none|none'), 'a count asserts no rules');
is(on_green("SELECT target, rows_blue, rows_green FROM bcmig.validation_summary WHERE run_id = $run ORDER BY 1"), "public.account|10|10\npublic.entry|1000|1000", 'it counts');
on_green("DELETE FROM outside; SELECT bcmig_remove_rule('s', '$_')") foreach ('soft fails', 'hard error', 'soft error', 'other');

# --- on green alone ---
rule('unknown reads', 'hard', 'SELECT e.no FROM public.entry e, public.outside o WHERE e.amount = o.a');
green_behind($green, q{INSERT INTO outside VALUES (7); UPDATE entry SET amount = 7 WHERE no = 5});
($run, $verdict) = validate('incremental');
is(result($run, 'sum'), 'fails on blue', 'an incremental run does not see what changed behind its back');
like(result($run, 'sum', 'detail'), qr/behind bcmig/, 'and says so');
is(result($run, 'unknown reads'), 'fails', 'a table of no sync is nobody else\'s fault');
is($verdict, 'different', 'which turns the verdict though all tables are equal');
on_green("SELECT bcmig_remove_rule('s', 'unknown reads')");
is((validate('incremental'))[1], 'ok', 'a rule that fails on blue does not');
($run, $verdict) = validate('full');
is(result($run, 'sum', 'x.verdict, looks, failing'), 'fails|2|1', 'data that differ are green\'s own fault');
is($verdict, 'different', 'and a difference');
# the table is repaired behind bcmig's back as well, another one is not
green_behind($green, q{UPDATE entry SET amount = -1.5 WHERE no = 5});
is((validate('full'))[1], 'ok', 'mended on green');
rule('soft', 'soft', 'SELECT a FROM public.outside');
($run, $verdict) = validate('incremental');
is(result($run, 'soft') . " $verdict", 'fails ok', 'a soft rule that fails is reported, no more');

# --- a change on its way ---
my $hold = hold_point($green, 'rule_failed');
on_blue(q{INSERT INTO entry VALUES (5000, 'new', 0)});
wait_sync($green, 's', 'caught_up');
($run, $verdict) = validate('full', sub {
	$green->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)}) or die 'no rule fails';
	on_blue(q{INSERT INTO account VALUES ('new')});
	$hold->quit;
});
is(result($run, 'orphans', 'x.verdict, looks, failing, examples'), 'ok|2|0|', 'what is on its way is no failure, and leaves nothing of the look that saw it');
$hold = hold_point($green, 'rule_failed');
on_blue(q{DELETE FROM account WHERE code = 'new'});
wait_sync($green, 's', 'caught_up');
($run, $verdict) = validate('full', sub {
	$green->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)}) or die 'no rule fails';
	on_blue(q{UPDATE entry SET account = 'newer' WHERE no = 5000});
	$hold->quit;
});
is(result($run, 'orphans', q{x.verdict, looks, examples->0->>'account'}), 'fails on blue|3|newer', 'a row that was another one is looked at once more');
on_blue(q{DELETE FROM entry WHERE no = 5000});

# --- a worker that dies repeats one rule ---
rule('first', 'hard', 'SELECT 1 WHERE false');
rule('held', 'hard', 'SELECT 1 WHERE pg_try_advisory_xact_lock_shared(1) AND pg_advisory_xact_lock_shared(4711) IS NULL');
on_green(q{SELECT bcmig_alter_sync('s', '{"rule_timeout": "60s"}')});
wait_sync($green, 's', 'caught_up');
my $lock = $green->background_psql('postgres', on_error_die => 1);
$lock->query_safe('SELECT pg_advisory_lock(4711)');
my $first;
($run, $verdict) = validate('full', sub {
	my ($run) = @_;
	my $waits = q{FROM pg_locks WHERE locktype = 'advisory' AND objid = 4711 AND NOT granted};
	$green->poll_query_until('postgres', "SELECT EXISTS (SELECT $waits)") or die 'the rule does not wait';
	$first = result($run, 'first', 'finished_at');
	on_green("SELECT pg_terminate_backend(pid, 10000) $waits");
	$lock->quit;
});
is(result($run, 'held', 'x.verdict'), 'ok', 'another worker goes on');
is(result($run, 'first', 'finished_at'), $first, 'with the rule the first had begun');
is($verdict, 'ok', 'and ends the run');

# --- a table that does not stream ---
on_green(q{SELECT bcmig_suspend_table('s', 'account')});
wait_state($green, 'public.account', 'suspended');
green_behind($green, q{DELETE FROM account WHERE code = 'A3'});
($run, $verdict) = validate('full');
is(result($run, 'orphans', q{x.verdict, failing, detail ~ 'not known'}), 'inconclusive|100|t', 'a rule over a table that stands still proves nothing');
is($verdict, 'inconclusive', 'nor does the run');

# --- rules that cannot be looked at as a whole: tried three times, not for ever ---
on_green(q{SELECT bcmig_resume_table('s', 'account'); SELECT bcmig_resync_table('s', 'account')});
wait_sync($green, 's', 'caught_up');
on_green(q{ALTER TABLE bcmig.rule_result ADD CONSTRAINT broken CHECK (looks < 0) NOT VALID});
$run = on_green(q{SELECT bcmig_validate('s', mode => 'full')});
foreach my $failures (1 .. 3)
{
	$green->poll_query_until('postgres', "SELECT failures >= $failures FROM bcmig.validation_run WHERE run_id = $run") or die "not tried $failures times";
	on_green(qq{SELECT bcmig_alter_sync('s', '{"rule_timeout": "5${failures}s"}')});	# has the manager look again
}
is(on_green("SELECT state, verdict, detail ~ 'broken' FROM bcmig.validation_run WHERE run_id = $run"), 'finished|inconclusive|t', 'and is said');
($rc, $out, $err) = $green->psql('postgres', "CALL bcmig_wait_sync('s', 'validated')");
like($err, qr/BM017|inconclusive.*run: error, .*broken/s, 'also by bcmig_wait_sync');
on_green(q{ALTER TABLE bcmig.rule_result DROP CONSTRAINT broken});

done_testing();
