# Validation of a PostgreSQL blue: equal is ok, every kind of difference is
# found, no change on its way is taken for one.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

on_blue(q{
	CREATE TABLE entry (no int PRIMARY KEY, account varchar(20) NOT NULL, amount numeric(38,20) NOT NULL, at timestamp(3) NOT NULL,
		debit numeric(38,20) NOT NULL, credit numeric(38,20) NOT NULL, note text, picture bytea, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE customer (code varchar(20) PRIMARY KEY, name varchar(50) NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE versioned (a int, b varchar(10), v int NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (a, b));
	CREATE TABLE heap (a int, b text);
	INSERT INTO entry SELECT i, 'A' || i % 100, i / 3.0, timestamp '2026-01-01' + i * interval '1 minute', i, -i, CASE WHEN i % 7 = 0 THEN NULL ELSE 'note ' || i END,
		CASE WHEN i % 5000 = 0 THEN decode(repeat('00ff', 10000), 'hex') END FROM generate_series(1, 60000) i;
	INSERT INTO customer SELECT 'C' || i, 'n' || i FROM generate_series(1, 25000) i;
	INSERT INTO versioned SELECT i / 10, 'x' || i, i FROM generate_series(1, 2000) i;
	INSERT INTO heap SELECT i % 50, 'h' || i % 50 FROM generate_series(1, 200) i;});
track($blue, $_) foreach qw(entry customer);
track($blue, 'versioned', 'rowversion');
connect_blue($green, $blue, 's', '{"sweep_interval": "1h"}');
on_green("SELECT bcmig_add_table('s', '$_')") foreach qw(entry customer versioned heap);

my ($rc, $out, $err) = $green->psql('postgres', "SELECT bcmig_validate('s')");
like($err, qr/not running/, 'a stopped sync is not validated');
start_sync($green, 's');
wait_sync($green, 's', 'caught_up');

sub validate
{
	my ($mode, $target) = @_;
	return run_validation($green, 's', $mode, target => $target);
}

my ($run, $verdict) = validate('full');
is($verdict, 'ok', 'equal sides are ok');
is(on_green("SELECT target, rows_blue, rows_green, differing, verdict, pushdown FROM bcmig.validation_summary WHERE run_id = $run ORDER BY 1"), join("\n",
	'public.customer|25000|25000|0|ok|t', 'public.entry|60000|60000|0|ok|t', 'public.heap|200|200|0|ok|t', 'public.versioned|2000|2000|0|ok|t'),
	'one line a table, hashed by blue');
is(on_green(q{SELECT string_agg(method, ',' ORDER BY source_table) FROM bcmig.chunking JOIN bcmig.sync_table USING (table_id)}), 'buckets,range,buckets,range',
	'ranges of integers, buckets of all else');
is(on_green(q{SELECT count(*) FILTER (WHERE agrees), count(*) FILTER (WHERE NOT agrees) FROM bcmig.hash_probe}), '16|0', 'blue hashes every type as green does');

# --- the faults ---
green_behind($green, q{SET session_replication_role = replica;
	DELETE FROM entry WHERE no = 100;
	INSERT INTO entry (no, account, amount, at, debit, credit, note, picture) SELECT 99999999, account, amount, at, debit, credit, note, picture FROM entry WHERE no = 1;
	UPDATE entry SET picture = set_bit(picture, 77777, 1 - get_bit(picture, 77777)) WHERE no = 5000;
	UPDATE entry e SET account = x.account, amount = x.amount, note = x.note FROM entry x WHERE e.no IN (20001, 20002) AND x.no = 40003 - e.no;
	UPDATE entry SET debit = credit, credit = debit WHERE no = 30000;
	UPDATE entry SET note = left(note, -1) WHERE no = 40001;
	UPDATE entry SET note = '' WHERE no = 42;
	UPDATE entry SET amount = amount + 0.00000000000000000001 WHERE no = 50000;
	UPDATE entry SET at = at + interval '3 ms' WHERE no = 55555;
	UPDATE customer SET name = 'nobody' WHERE code = 'C17';
	DELETE FROM customer WHERE code IN ('C18', 'C19');
	UPDATE versioned SET v = -1 WHERE b = 'x77';
	INSERT INTO heap SELECT * FROM heap WHERE a < 3;});
is((validate('incremental'))[1], 'different', 'an incremental run compares heaps in full');
is(on_green(q{SELECT string_agg(DISTINCT target, ',') FROM bcmig.validation_summary WHERE run_id = (SELECT max(run_id) FROM bcmig.validation_run) AND verdict = 'different'}),
	'public.heap', 'but of others only what bcmig wrote');
($run, $verdict) = validate('full');
is($verdict, 'different', 'a full run trusts nothing');
is(on_green(qq{SELECT d.kind, d.key, d.columns FROM bcmig.validation_difference d JOIN bcmig.sync_table USING (table_id)
	WHERE run_id = $run AND source_table = 'entry' ORDER BY (d.key->>0)::int}), join("\n",
	'different|["42"]|{note}', 'missing|["100"]|', 'different|["5000"]|{picture}', 'different|["20001"]|{account,amount,note}', 'different|["20002"]|{account,amount,note}',
	'different|["30000"]|{debit,credit}', 'different|["40001"]|{note}', 'different|["50000"]|{amount}', 'different|["55555"]|{at}', 'extra|["99999999"]|'),
	'each fault, its key and its columns');
is(on_green(qq{SELECT d.blue->>'note' IS NULL, d.green->>'note' FROM bcmig.validation_difference d WHERE run_id = $run AND key = '["42"]'}), 't|', 'both images');
is(on_green(qq{SELECT d.kind, d.key FROM bcmig.validation_difference d JOIN bcmig.sync_table USING (table_id) WHERE run_id = $run AND source_table = 'customer' ORDER BY 2}),
	qq{different|["C17"]\nmissing|["C18"]\nmissing|["C19"]}, 'in buckets too');
is(on_green(qq{SELECT d.kind, d.key FROM bcmig.validation_difference d JOIN bcmig.sync_table USING (table_id) WHERE run_id = $run AND source_table = 'versioned'}),
	'different|["7", "x77"]', 'and where changes come by version');
is(on_green(qq{SELECT v.differences, count(d.*), min(d.green->>'b') FROM bcmig.validation_result v JOIN bcmig.sync_table USING (table_id)
	LEFT JOIN bcmig.validation_difference d USING (run_id, table_id) WHERE v.run_id = $run AND source_table = 'heap' GROUP BY 1}), '12|12|h0', 'a duplicated chunk of a heap');
($rc, $out, $err) = $green->psql('postgres', "CALL bcmig_wait_sync('s', 'validated')");
like($err, qr/different.*differ/s, 'bcmig_wait_sync raises');
my $found = $run;
is((validate('count', 'public.entry'))[1], 'different', 'numbers of rows differ in their chunks though not in all');

# --- repair ---
($rc, $out, $err) = $green->psql('postgres', "SELECT bcmig_repair(4711)");
like($err, qr/no validation 4711/, 'an unknown run');
is(on_green("SELECT count(*) FROM bcmig_repair($found, true)"), 4, 'a dry run lists a step per table');
is(on_green("SELECT count(*) FROM bcmig.request"), 0, 'and asks for nothing');
on_green("SELECT * FROM bcmig_repair($found)");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $found AND repaired_at IS NULL"), 'all is repaired');
is((validate('incremental'))[1], 'ok', 'what differed was marked, and is equal now');
is((validate('full'))[1], 'ok', 'and all else');
all_equal($blue, $green, 'after the repair', qw(entry customer versioned));

# --- what was written is compared again, and no more ---
green_behind($green, q{SET session_replication_role = replica; UPDATE entry SET credit = 7 WHERE no = 41005; UPDATE customer SET name = 'x' WHERE code = 'C100'});
on_blue(q{UPDATE entry SET debit = debit + 1 WHERE no BETWEEN 41006 AND 42005});
wait_sync($green, 's', 'caught_up');
($run, $verdict) = validate('incremental');
is(on_green("SELECT target, chunks < 3, verdict FROM bcmig.validation_summary WHERE run_id = $run AND mode = 'incremental' ORDER BY 1"), join("\n",
	'public.customer|t|ok', 'public.entry|t|different', 'public.versioned|t|ok'), 'chunks that were written to, no others');
is(on_green("SELECT key FROM bcmig.validation_difference WHERE run_id = $run"), '["41005"]', 'what is wrong there is found');
($run, $verdict) = validate('incremental');
is($verdict, 'different', 'and stays found');
($run, $verdict) = validate('full');
is(on_green("SELECT string_agg(key::text, ' ' ORDER BY key::text) FROM bcmig.validation_difference WHERE run_id = $run"), '["41005"] ["C100"]', 'a full run finds the rest');
on_green("SELECT * FROM bcmig_repair($run)");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $run AND repaired_at IS NULL"), 'repaired');

# --- under load: rows are changed, deleted, put back; keys that hash into a few chunks ---
my $load = q{
	\set k random(1, 300)
	UPDATE entry SET amount = amount + 1, note = 'x' || random() WHERE no = :k;
	UPDATE customer SET name = CASE name WHEN 'a' THEN 'b' ELSE 'a' END WHERE code = 'C' || (:k % 20);
	DELETE FROM entry WHERE no = 1000 + :k;
	INSERT INTO entry SELECT 1000 + :k, 'A', 1, '2026-01-01', 0, 0, 'back', NULL, 0 ON CONFLICT DO NOTHING;
	UPDATE versioned SET v = v + 1 WHERE b = 'x' || :k;
	UPDATE heap SET b = b WHERE a = 1;
};
my $script = $blue->basedir . '/load.sql';
PostgreSQL::Test::Utils::append_to_file($script, $load);
my $pgbench = IPC::Run::start([ 'pgbench', '-n', '-c', '3', '-T', '1000', '-R', '300', '-f', $script, $blue->connstr('postgres') ], '>', \my $bench, '2>', \my $bench_err);
my %verdicts;
my $flying = 0;
foreach my $n (1 .. 12)
{
	($run, $verdict) = validate($n % 3 == 0 ? 'incremental' : 'full', 'public.entry');
	$verdicts{$verdict}++;
	$flying += on_green("SELECT sum(in_flight) FROM bcmig.validation_result WHERE run_id = $run");
	($run, $verdict) = validate('full', $n % 2 ? 'public.customer' : 'public.versioned');
	$verdicts{$verdict}++;
}
is(join(',', map { "$_ $verdicts{$_}" } sort keys %verdicts), 'ok 24', 'no false alarm under load');
cmp_ok($flying, '>', 0, 'though rows were in flight');
green_behind($green, q{SET session_replication_role = replica; UPDATE entry SET credit = credit + 1 WHERE no IN (40000, 500)});
($run, $verdict) = validate('full', 'public.entry');
is($verdict, 'different', 'a wrong row is found under load');
is(on_green("SELECT key FROM bcmig.validation_difference WHERE run_id = $run ORDER BY (key->>0)::int"), qq{["500"]\n["40000"]}, 'and no other');
$pgbench->kill_kill;

# --- interrupted: a worker dies in the middle, the run goes on ---
on_green("SELECT * FROM bcmig_repair($run)");
$green->append_conf('postgresql.conf', "bcmig.debug_points = 'validate_compared'");
$green->reload;
my $hold = hold_point($green, 'validate_compared');
$run = on_green("SELECT bcmig_validate('s', 'public.customer', 'full')");
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.worker_status WHERE phase = 'validate'}), 'a worker is at it');
is(on_green(q{SELECT count(*) FROM bcmig.progress WHERE phase = 'validate'}), 1, 'progress shows it');
kill_pid('TERM', on_green(q{SELECT pid FROM bcmig.worker_status WHERE phase = 'validate'}));
$hold->quit;
$green->append_conf('postgresql.conf', "bcmig.debug_points = ''");
$green->reload;
ok($green->poll_query_until('postgres', "SELECT verdict = 'ok' FROM bcmig.validation_run WHERE run_id = $run"), 'the run ends well after a crash');
is(on_green("SELECT rows_blue, rows_green FROM bcmig.validation_result WHERE run_id = $run"), '25000|25000', 'each chunk counted once');

# --- cancelled; a table that is not streaming ---
on_green("SELECT bcmig_suspend_table('s', 'public.customer')");
is((validate('full', 'public.customer'))[1], 'inconclusive', 'a table that does not stream cannot be proved');
on_green("SELECT bcmig_resume_table('s', 'public.customer')");
wait_sync($green, 's', 'caught_up');
$run = on_green("BEGIN; SELECT bcmig_validate('s'); SELECT bcmig_cancel_validation(max(run_id)) FROM bcmig.validation_run; COMMIT");
is(on_green(q{SELECT state FROM bcmig.validation_run ORDER BY run_id DESC LIMIT 1}), 'cancelled', 'cancelled');
is((validate('full'))[1], 'ok', 'the next run is not in its way');

# --- blue goes away in the middle ---
$blue->stop('immediate');
$green->poll_query_until('postgres', q{SELECT NOT reachable FROM bcmig.environment_status WHERE environment = 'blue'});
$run = on_green("SELECT bcmig_validate('s', mode => 'full')");
is(on_green("SELECT state FROM bcmig.validation_run WHERE run_id = $run"), 'running', 'a run waits for blue');
$blue->start;
ok($green->poll_query_until('postgres', "SELECT verdict = 'ok' FROM bcmig.validation_run WHERE run_id = $run"), 'and goes on when it is back');
$green->safe_psql('postgres', "CALL bcmig_wait_sync('s', 'validated')");
is(on_green("SELECT proof LIKE 'ok (full%' FROM bcmig_status('s')"), 't', 'the status says so');

done_testing();
