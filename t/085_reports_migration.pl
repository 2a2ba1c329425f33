# bcmig_migration_report and bcmig_progress_report: figures are those of plain
# SQL, hash roots are those of the rows, and what is not known is not made up.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use JSON::PP;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', 'bcmig.metric_interval = 1s');
my $odd = q{a<b>&"c'd};		# a sync of that name must not spoil a report

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }
sub text { return on_green('SELECT bcmig_migration_report(' . ($_[0] // 'NULL') . ')') }
sub json { return decode_json(on_green('SELECT bcmig_migration_report(' . ($_[0] // 'NULL') . q{, 'json')::jsonb})) }
sub value { return $_[0] =~ /^  \Q$_[1]\E  +(.*)$/m ? $1 : undef }
sub check_of { my ($json, $name) = @_; return join ',', map { $_->{status} } grep { $_->{check} eq $name } @{ $json->{summary}{checks} } }

# --- no data at all ---
my $text = text();
my $json = json();
is(value($text, 'verdict'), 'UNKNOWN', 'nothing there: neither go nor no-go');
is($json->{summary}{verdict}, 'UNKNOWN', 'json: the same');
is($json->{summary}{proved_at}, undef, 'nothing was proved');
is($json->{data}{$_}, undef, "$_ is null, not 0") foreach qw(rows_copied copy_seconds copy_bytes_per_second success_percent errors);
is($json->{blue_cost}{statements}, undef, 'statements on blue are not counted, and not made up');
like(on_green(q{SELECT bcmig_migration_report(format => 'html')}), qr/UNKNOWN/, 'html too');
is(on_green('SELECT count(*) FROM bcmig_progress_report()'), '0', 'no execution has no progress');

# --- a sync that was copied, and nothing compared ---
on_blue(q{CREATE TABLE "T<1>" (id int PRIMARY KEY, v text, n numeric(38,20), "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO "T<1>" SELECT i, 'v' || i, i / 3.0, 0 FROM generate_series(1, 5000) i;
	CREATE TABLE u (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO u SELECT i, 'u', 0 FROM generate_series(1, 100) i});
track($blue, $_) foreach '"T<1>"', 'u';
connect_blue($green, $blue);
(my $quoted = $odd) =~ s/'/''/g;
on_green(qq{SELECT bcmig_create_sync('$quoted', 'blue', '{"maintenance_role": "bcmig_maintenance"}'), bcmig_add_table('$quoted', 'T<1>'), bcmig_add_table('$quoted', 'u')});
is(json()->{per_sync}{syncs}[0]{copy_seconds}, undef, 'a copy that has not begun has no time');
start_sync($green, $quoted);
wait_sync($green, $quoted);
on_blue(q{UPDATE u SET v = 'changed' WHERE id <= 10; DELETE FROM u WHERE id > 90});
wait_sync($green, $quoted);
ok($green->poll_query_until('postgres', q{SELECT sum(rows_written) = 5110 AND sum(rows_deleted) = 10 FROM bcmig.metric}), 'all is measured');
$json = json();
is($json->{summary}{verdict}, 'UNKNOWN', 'not compared: unknown');
is($json->{summary}{proof}, 'none: no table was compared in full', 'and says so');
is($json->{proof}{full}[0]{roots}, 'unknown', 'roots are unknown');
is($json->{proof}{full}[0]{root_blue}, undef, 'and null');
like(text(), qr/^  \Q$odd\E  /m, 'the name of the sync as it is');
ok((grep { $_->{statement} eq "SELECT bcmig_validate('$quoted');" } @{ $json->{advice}{recommendations} }), 'the next step is to compare');

# --- proved ---
my ($run, $verdict) = run_validation($green, $quoted, 'full');
is($verdict, 'ok', 'compared');
$json = json();
is($json->{summary}{verdict}, 'GO', 'go') or diag(text());
is($json->{summary}{proof}, 'every row of every table was equal on both sides, hash roots too', 'proof');
is($json->{summary}{compared_rows}, on_green(q{SELECT (SELECT count(*) FROM "T<1>") + (SELECT count(*) FROM u)}), 'all rows were compared');
is($json->{proof}{full}[0]{"rows_$_"}, 5090, "rows on $_") foreach qw(blue green);

# the roots by other means: hashes of the rows that are there now, each side by itself
sub sums_of
{
	my ($table, $columns) = @_;
	my $lanes = join q{ || ' ' || }, map { "sum(('x' || substr(h, $_, 8))::bit(32)::bigint)" } 1, 9, 17, 25;
	return "(SELECT count(*) || ' ' || $lanes FROM (SELECT left(encode(sha256(record_send(r)), 'hex'), 32) AS h FROM (SELECT $columns FROM $table) r) x)";
}
my $line = q{'public.%s ' || encode(sha256(convert_to(%s, 'UTF8')), 'hex')};
my $lines = join q{ || E'\n' || }, sprintf($line, '"T<1>"', sums_of('"T<1>"', 'id, v, n')), sprintf($line, 'u', sums_of('u', 'id, v'));
is($json->{proof}{full}[0]{"root_$_->[0]"}, $_->[1]->safe_psql('postgres', "SELECT encode(sha256(convert_to($lines, 'UTF8')), 'hex')"),
	"root of $_->[0]: as plain SQL makes it of the rows there") foreach [ blue => $blue ], [ green => $green ];
is($json->{proof}{full}[0]{roots}, 'equal', 'equal');

# --- figures against plain SQL ---
is($json->{data}{rows_copied}, on_green('SELECT sum(rows_copied) FROM bcmig.table_state'), 'rows copied');
is($json->{data}{bytes_copied}, on_green('SELECT sum(bytes_copied) FROM bcmig.table_state'), 'bytes copied');
my $first = on_green('SELECT extract(epoch FROM max(copy_finished) - min(copy_started)) FROM bcmig.table_state');
cmp_ok($json->{data}{copy_seconds}, '>', 0, 'the copy took time');
cmp_ok($json->{data}{copy_seconds}, '<=', $first + 0, 'not more than from its beginning to its end');
is(sprintf('%.3f', $json->{data}{copy_bytes_per_second}), sprintf('%.3f', $json->{data}{bytes_copied} / $json->{data}{copy_seconds}), 'bytes a second');
is(sprintf('%.3f', $json->{data}{copy_rows_per_second}), sprintf('%.3f', $json->{data}{rows_copied} / $json->{data}{copy_seconds}), 'rows a second');
is($json->{data}{success_percent} + 0, 100, 'no row failed');
is($json->{data}{errors}, 0, 'no job failed');
is($json->{blue_cost}{rows_read}, on_green('SELECT sum(rows_read) FROM bcmig.sync_batch'), 'rows read from blue');
is($json->{blue_cost}{batches}, on_green('SELECT count(*) FROM bcmig.sync_batch'), 'times blue was read');
is("$json->{audit}{rows} $json->{audit}{root}", on_green(q{SELECT rows || ' ' || encode(hash, 'hex') FROM bcmig.audit_head}), 'root of the audit log')
  if $green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.audit_pending') && ($json = json());
is(join(',', map { "$_->{target}=$_->{rows_green}" } sort { $a->{target} cmp $b->{target} } @{ $json->{all_tables}{tables} }), 'public."T<1>"=5000,public.u=90', 'each table');
is($json->{traffic}{rollback_readiness}[0]{readiness}, 'nothing to bring back', 'nothing to roll back');
is($json->{per_sync}{syncs}[0]{write_pause_ms}, undef, 'no write pause yet');

# copies side by side are not added up: two tables, 10 s each, 5 s of them together
on_green(q{BEGIN; CREATE TEMP TABLE kept AS SELECT table_id, copy_started, copy_finished FROM bcmig.table_state;
	UPDATE bcmig.table_state SET copy_started = now() - interval '1 h' + n * interval '5 s', copy_finished = now() - interval '1 h' + n * interval '5 s' + interval '10 s'
	FROM (SELECT table_id, row_number() OVER () AS n FROM bcmig.table_state) x WHERE x.table_id = table_state.table_id; CREATE TABLE report_of AS SELECT bcmig_migration_report(NULL, 'json')::jsonb AS r;
	UPDATE bcmig.table_state t SET copy_started = k.copy_started, copy_finished = k.copy_finished FROM kept k WHERE k.table_id = t.table_id; COMMIT});
is(on_green(q{SELECT (r->'data'->>'copy_seconds')::numeric(10,2) FROM report_of}), '15.00', 'time of copies side by side counts once');

# --- rows on their way: equal all the same, and so are the roots ---
$green->append_conf('postgresql.conf', "bcmig.debug_points = 'window_before_read, validate_compared'\n");
my $hold = hold_point($green, 'window_before_read');
my $compared = hold_point($green, 'validate_compared');
$green->reload;
on_blue(q{UPDATE "T<1>" SET v = 'on its way' WHERE id BETWEEN 100 AND 120; INSERT INTO "T<1>" VALUES (6000, 'new', 1, 0)});
($run, $verdict) = run_validation($green, $quoted, 'full', meanwhile => sub {
	ok(point_reached($green, 'window_before_read'), 'changes are held back');
	ok($green->poll_query_until('postgres', "SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = 7268
		AND objid::bigint = hashtext('validate_compared')::bigint & 4294967295"), 'while both tables are compared');
	$_->quit foreach $compared, $hold;
});
$green->append_conf('postgresql.conf', "bcmig.debug_points = ''\n");
$green->reload;
is($verdict, 'ok', 'rows on their way are no difference');
cmp_ok(on_green("SELECT sum(in_flight) FROM bcmig.validation_result WHERE run_id = $run"), '>', 0, 'they were seen');
is(on_green("SELECT count(*) FILTER (WHERE blue = green), count(*) FROM bcmig.table_root WHERE run_id = $run"), '2|2', 'and the roots are those of one moment');

# --- a difference ---
green_behind($green, q{SET session_replication_role = replica; UPDATE "T<1>" SET n = n + 0.00000000000000000001 WHERE id = 7});
($run, $verdict) = run_validation($green, $quoted, 'full');
is($verdict, 'different', 'a changed row is found');
$json = json();
is($json->{summary}{verdict}, 'NO-GO', 'no-go');
is($json->{summary}{proof}, "rows differ: $odd", 'for that reason');
is($json->{proof}{full}[0]{roots}, 'different', 'roots differ');
is(check_of($json, 'validation'), 'fail', 'the gate says so');
is(on_green("SELECT count(*) FILTER (WHERE blue = green) FROM bcmig.table_root WHERE run_id = $run"), 1, 'of that table only');
on_green("SELECT bcmig_repair($run)");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $run AND repaired_at IS NULL"), 'repaired');
is(json()->{summary}{verdict}, 'NO-GO', 'what was repaired is not proved yet');
run_validation($green, $quoted, 'incremental');
$json = json();
is($json->{proof}{newest}[0]{mode} . ' ' . $json->{proof}{newest}[0]{verdict}, 'incremental ok', 'an incremental run finds all equal');
is($json->{proof}{full}[0]{roots}, 'different', 'but proves no root');
is(check_of($json, 'validation') . ' ' . check_of($json, 'proof') . " $json->{summary}{verdict}", 'ok inconclusive UNKNOWN', 'nor does it make it a go');
ok((grep { $_->{statement} eq "SELECT bcmig_validate('$quoted', mode => 'full');" } @{ $json->{advice}{recommendations} }), 'all has to be compared again');
run_validation($green, $quoted, 'full');
is(json()->{summary}{verdict}, 'GO', 'go again');

# --- failures count ---
green_behind($green, q{ALTER TABLE u ADD CONSTRAINT c CHECK (v <> 'bad')});
on_blue(q{UPDATE u SET v = 'bad' WHERE id <= 4});
ok($green->poll_query_until('postgres', 'SELECT sum(rows_failed) = 4 FROM bcmig.metric'), 'four rows are refused');
$json = json();
my ($good, $bad) = split /\|/, on_green('SELECT sum(rows_written + rows_deleted), sum(rows_failed) FROM bcmig.metric');
is(sprintf('%.6f', $json->{data}{success_percent}), sprintf('%.6f', 100 * $good / ($good + $bad)), 'success rate');
is($json->{summary}{verdict}, 'NO-GO', 'rows in quarantine: no-go');
ok((grep { $_->{statement} eq "SELECT bcmig_retry_quarantine('$quoted');" } @{ $json->{advice}{recommendations} }), 'what to do about it');
green_behind($green, "ALTER TABLE u DROP CONSTRAINT c; SELECT bcmig_retry_quarantine('$quoted')");
ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.quarantine'), 'and it was done');

# --- an execution; seen by this session only, or its runner would go on with it ---
my ($id, $failed) = (1002, '');
my $execution = qq{INSERT INTO bcmig.execution (execution_id, plan_name, owner, syncs, options, state, kind, started_at, ended_at) OVERRIDING SYSTEM VALUE VALUES
	(1001, 'p', current_user::regrole, ARRAY['$quoted'], '{}', 'done', 'rehearsal', now() - interval '3 h', now() - interval '3 h' + interval '100 s'),
	(1002, 'p', current_user::regrole, ARRAY['$quoted', 'gone'], '{}', 'running', 'execution', now() - interval '50 s', NULL);
	INSERT INTO bcmig.phase_run (execution_id, position, sync, name, type, action, arguments, depends_on, timeout, retries, backoff, state, started_at, ended_at, percent, error, result)
	SELECT e.execution_id, x.position, x.sync, x.name, 'data', 'sql', '{}', '{}', '1 h', 0, '1 s', x.state, e.started_at, e.started_at + x.took, x.percent, x.error, x.result::jsonb
	FROM bcmig.execution e JOIN (VALUES
	('done', 1, '', 'prepare', 'done', interval '10 s', NULL::numeric, NULL, '{}'), ('done', 2, '$quoted', 'copy', 'done', '80 s', NULL, NULL, '{"rows": 5000, "bytes": 123456}'), ('done', 3, '', 'check', 'done', '10 s', NULL, NULL, '{}'),
	('running', 1, '', 'prepare', 'done', '10 s', NULL, NULL, '{}'), ('running', 2, '$quoted', 'copy', 'running', NULL, 50, NULL, '{"rows": "many"}'), ('running', 3, '', 'check', 'pending', NULL, NULL, NULL, '{}')
	) x (of, position, sync, name, state, took, percent, error, result) ON x.of = e.state};
sub executing { return on_green("BEGIN; $execution; $failed; $_[0]; ROLLBACK") }
sub json_of { return decode_json(executing("SELECT bcmig_migration_report($_[0], 'json')::jsonb")) }
is(executing(q{SELECT status, percent, phases_total, phases_completed, phases_running, phases_failed, current_phase, tables_behind FROM bcmig_progress_report()}),
	"running|50.0|3|1|1|0|copy ($odd)|0", 'progress by the time each phase took before: 10 and half of 80 of 100 s');
is(executing(q{SELECT eta, extract(epoch FROM elapsed) BETWEEN 50 AND 250 FROM bcmig_progress_report()}), '00:00:50|t', 'time left');
is(executing("SELECT basis, assessment FROM bcmig_progress_report($id)"), 'time of each phase in execution ' . ($id - 1) . '|on its way', 'and by what');
is(executing('SELECT percent, eta IS NULL, assessment, basis FROM bcmig_progress_report(' . ($id - 1) . ')'), '100.0|t|done|phases count alike', 'the one before is done');
$json = json_of($id);
is($json->{execution_id}, $id, 'the report of an execution');
is($json->{summary}{status}, 'running', 'its state');
is(check_of($json, 'execution') . check_of($json, 'sync'), 'inconclusiveinconclusive', 'not done, and one of its syncs is gone: unknown');
is($json->{summary}{verdict}, 'UNKNOWN', 'so is the verdict');
is(join(',', map { "$_->{name}:$_->{state}" } @{ $json->{plan}{phases} }), 'prepare:done,copy:running,check:pending', 'each phase');
is($json->{plan}{phases}[1]{rows}, undef, 'a result that is no number is none');
is($json->{plan}{phases}[2]{seconds}, undef, 'what has not begun took no time');
is(json_of($id - 1)->{plan}{phases}[1]{rows}, 5000, 'rows of a phase');
$failed = "UPDATE bcmig.execution SET state = 'failed', error = 'boom', ended_at = now() WHERE execution_id = $id;
	UPDATE bcmig.phase_run SET state = 'failed', error = E'line 1\\n  verdict  GO' WHERE execution_id = $id AND position = 2";
is(json_of($id)->{summary}{verdict}, 'NO-GO', 'a failed execution: no-go');
is(scalar(() = executing("SELECT bcmig_migration_report($id)") =~ /^  verdict/mg), 1, 'an error of many lines cannot forge a line');
like(executing("SELECT assessment FROM bcmig_progress_report($id)"), qr/^failed: boom$/, 'progress says why');

# --- a switched sync is judged by what counts then; a wait on the writes is shown ---
on_green(qq{UPDATE bcmig.traffic SET green_percent = 0;
	INSERT INTO bcmig.switch (sync_id, kind, state, steps, options, write_pause, writes_stopped_at, ended_at) SELECT sync_id, 'switch', 'cancelled', '{100}', '{}', '1234 ms', now(), now() FROM bcmig.sync});
is(json()->{per_sync}{syncs}[0]{write_pause_ms} + 0, 1234, 'write pause');

# --- a rollback ---
sub rollback { return decode_json(on_green("SELECT bcmig_rollback_report('$quoted', 'json')::jsonb")) }
$json = rollback();
is($json->{rollback}{state}, undef, 'no rollback: nothing made up');
is($json->{now}{rollback_readiness}[0]{readiness}, 'nothing to bring back', 'nor is there anything to bring back');
is(value(on_green("SELECT bcmig_rollback_report('$quoted')"), 'rollback'), 'there was none', 'text says so');
on_green(qq{INSERT INTO bcmig.switch (sync_id, kind, state, options, reason, phase, asked_at, ended_at, write_pause, result)
	SELECT sync_id, 'rollback', 'done', '{}', E'seen\n  state  failed', 'done', now() - interval '1 h', now() - interval '59 min', '2500 ms',
		jsonb_build_object('readers_back_at', (now() - interval '1 h' + interval '3 s')::text, 'replayed_keys', '17') FROM bcmig.sync;
	INSERT INTO bcmig.journal (sync_id, table_id, operation, old_key, new_key) SELECT sync_id, table_id, o, k1::jsonb, k2::jsonb FROM bcmig.sync_table,
		(VALUES ('update', '["1"]', '["1"]'), ('update', '["1"]', '["1"]'), ('update', '["2"]', '["3"]')) v (o, k1, k2) WHERE target_table = 'u';
	INSERT INTO bcmig.conflict (sync_id, table_id, key, blue_operation, green_operation, policy, journal_ids) SELECT sync_id, table_id, '["1"]', 'update', 'update', 'manual', '{1}' FROM bcmig.sync_table WHERE target_table = 'u'});
$json = rollback();
is(join('|', map { defined $_ ? /^[0-9.]+$/ ? $_ + 0 : $_ : 'NULL' } @{ $json->{rollback} }{qw(state seconds write_pause_ms replayed_keys conflicts preserved_in)}), 'done|60|2500|17|NULL|NULL', 'what the rollback has done');
is($json->{rollback}{readers_back_seconds} + 0, 3, 'readers were back after three seconds');
is(join('|', map { "$_->{target} $_->{keys} $_->{conflicts}" } @{ $json->{now}{not_on_blue} }), 'public.u 3 1', 'rows, not entries, that blue does not have: a renamed one is two');
is($json->{now}{recommendations}[0]{why}, 'conflict ' . on_green('SELECT max(conflict_id) FROM bcmig.conflict') . ' waits', 'what to do');
is(scalar(() = on_green("SELECT bcmig_rollback_report('$quoted')") =~ /^  state/mg), 1, 'a reason of many lines cannot forge a line');
is(join('|', map { "$_->{policy} " . ($_->{decision} // 'waits') . " $_->{conflicts}" } @{ json()->{traffic}{conflicts} }), 'manual waits 1', 'the conflict is in the migration report');
# as if writes were on green
foreach my $case ([ 'green_percent = 25', 'ready: readers go to blue at once' ], [ 'green_percent = 100, journal_armed = true', 'ready: 3 rows to bring to blue first, 1 conflicts wait' ],
	[ 'journal_armed = false', 'no: writes on green are not recorded' ], [ q{held = 'by hand'}, 'held: by hand' ], [ 'completed_at = now()', 'no: given up by bcmig_complete_sync' ])
{
	is(on_green("BEGIN; UPDATE bcmig.traffic SET green_percent = 100; UPDATE bcmig.traffic SET $case->[0];
		SELECT bcmig_rollback_report('$quoted', 'json')::jsonb->'now'->'rollback_readiness'->0->>'readiness'; ROLLBACK"), $case->[1], "$case->[0]: $case->[1]");
}
# fence and journal say nothing against a sync whose writers are on green
is(on_green(q{BEGIN; UPDATE bcmig.traffic SET green_percent = 100, journal_armed = true, fence = false;
	SELECT string_agg(c->>'check', ' ' ORDER BY c->>'check') FROM jsonb_array_elements(bcmig_migration_report(NULL, 'json')::jsonb->'summary'->'checks') c WHERE c->>'status' = 'fail'; ROLLBACK}),
	'conflicts', 'at 100 % an armed journal and a lifted fence are as they should be');
on_green('DELETE FROM bcmig.journal; DELETE FROM bcmig.conflict');

# --- bcmig.psqlrc: each of its words in psql ---
my $psqlrc = (-e 'bcmig.psqlrc' ? '.' : $ENV{BCMIG_SOURCE}) . '/bcmig.psqlrc';
my @words = map { /^\\set (\w+)/ ? $1 : () } split /\n/, PostgreSQL::Test::Utils::slurp_file($psqlrc);
is("@words", 'status progress working timeline alerts switches report', 'words of bcmig.psqlrc');
foreach my $word (@words)
{
	my ($rc, $out, $err) = $green->psql('postgres', "\\i $psqlrc\n:$word\n", extra_params => [ '-P', 'tuples_only=off' ]);
	is($err, '', ":$word works");
	like($out, { status => qr/next_step/, progress => qr/assessment/, working => qr/rows_per_s/, timeline => qr/bcmig_create_sync/, alerts => qr/raised_at/, switches => qr/write_pause_ms/, report => qr/^Migration, all syncs$/m }->{$word}, ":$word shows what it should");
}

# --- errors and roles ---
sub error_of
{
	my ($sql, $role) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', ($role ? "SET ROLE $role; " : '') . "\\set VERBOSITY verbose\n$sql");
	return $err;
}
like(error_of('SELECT bcmig_migration_report(99)'), qr/BM001: there is no execution 99.*HINT/s, 'no such execution');
like(error_of('SELECT bcmig_migration_report(0)'), qr/BM001/, 'nor 0');
like(error_of(q{SELECT bcmig_migration_report(NULL, 'pdf')}), qr/BM003: .*"pdf".*HINT:  This version knows: text, json, html\./s, 'no such format');
like(error_of('SELECT bcmig_migration_report(NULL, NULL)'), qr/22004/, 'NULL format');
like(error_of(q{SELECT bcmig_rollback_report('nobody')}), qr/BM001: sync "nobody" does not exist.*HINT/s, 'no such sync');
on_green('CREATE ROLE watcher; GRANT pg_monitor TO watcher; CREATE ROLE stranger');
like(error_of("SELECT $_", 'stranger'), qr/42501/, "a stranger may not call $_") foreach 'bcmig_migration_report()', q{bcmig_rollback_report('x')}, '* FROM bcmig_progress_report()';
is(error_of(qq{SELECT bcmig_migration_report(), bcmig_progress_report(), bcmig_rollback_report('$quoted')}, 'watcher'), '', 'pg_monitor may');

done_testing();
