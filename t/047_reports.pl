# bcmig.metric and the two reports: what they say is what was done.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use JSON::PP;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', 'bcmig.metric_interval = 1s');

$blue->safe_psql('postgres', q{
	CREATE TABLE a (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO a SELECT i, 'v', 0 FROM generate_series(1, 1000) i;
	CREATE TABLE b (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO b SELECT i, 'v', 0 FROM generate_series(1, 30) i;
	});
track($blue, $_) foreach qw(a b);
connect_blue($green, $blue);
$green->safe_psql('postgres', "SELECT bcmig_create_sync('$_->[0]', 'blue', '{\"maintenance_role\": \"bcmig_maintenance\"}'), bcmig_add_table('$_->[0]', '$_->[1]')")
  foreach ([ 'one', 'a' ], [ 'two', 'b' ]);

sub sums
{
	return $green->safe_psql('postgres', "SELECT sum(rows_written), sum(rows_deleted), sum(rows_failed) FROM bcmig.metric "
		. "JOIN bcmig.sync USING (sync_id) WHERE name = '$_[0]'");
}
sub wait_sums
{
	return $green->poll_query_until('postgres', "SELECT sum(rows_written), sum(rows_deleted), sum(rows_failed) FROM bcmig.metric "
		. "JOIN bcmig.sync USING (sync_id) WHERE name = '$_[0]'", $_[1]);
}
sub wait_rows
{
	my ($sync, $n) = @_;
	my $have = $green->safe_psql('postgres', "SELECT count(*) FROM bcmig.metric JOIN bcmig.sync USING (sync_id) WHERE name = '$sync'");
	return $green->poll_query_until('postgres',
		"SELECT count(*) >= $have + $n FROM bcmig.metric JOIN bcmig.sync USING (sync_id) WHERE name = '$sync'");
}
sub text { return $green->safe_psql('postgres', "SELECT bcmig_$_[0]_report(" . (defined $_[1] ? "'$_[1]'" : 'NULL') . ')') }
sub json { return decode_json($green->safe_psql('postgres', "SELECT bcmig_$_[0]_report(" . (defined $_[1] ? "'$_[1]'" : 'NULL') . ", 'json')::jsonb")) }
# the value of a line of a text report
sub value { return $_[0] =~ /^  \Q$_[1]\E  +(.*)$/m ? $1 : undef }

# --- no data ---
foreach my $kind (qw(health sync))
{
	my $text = text($kind, 'one');

	is(value($text, 'data'), 'no data yet', "$kind: no data is said");
	is(value($text, 'assessment'), 'unknown: no data yet', "$kind: and is not taken for good");
	is(json($kind)->{total}->{assessment}, 'unknown', "$kind: nor for all syncs");
	is(json($kind)->{syncs}->[0]->{latency_avg_ms}, undef, "$kind: no latency is null");
}

# --- rows of a copy and of windows ---
start_sync($green, 'one');
wait_sync($green, 'one');
ok(wait_sums('one', '1000|0|0'), 'the copy is counted');
green_behind($green, q{ALTER TABLE a ADD CONSTRAINT c CHECK (v <> 'bad')});
$blue->safe_psql('postgres', q{BEGIN; UPDATE a SET v = CASE WHEN id <= 5 THEN 'bad' ELSE 'good' END WHERE id <= 100;
	DELETE FROM a WHERE id > 990; COMMIT});
ok(wait_sums('one', '1095|10|5'), 'written, deleted and refused rows are counted, each for itself');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.metric WHERE quarantined = 5 AND tables = 1 AND tables_streaming = 1}) > 0, 1,
	'what was in quarantine too');
my $text = text('health', 'one');
is(value($text, 'records processed'), '1,110 (1,095 written, 10 deleted, 5 failed)', 'health: records processed');
is(value($text, 'error rate'), '0.45 % (5 of 1,110 rows failed)', 'health: error rate with both numbers');
is(value($text, 'in quarantine'), '5 rows', 'health: quarantine');
my $json = json('health', 'one')->{syncs}->[0];
is("$json->{rows_processed}|$json->{rows_written}|$json->{rows_deleted}|$json->{rows_failed}", '1110|1095|10|5', 'json: the same numbers');
is(sprintf('%.6f', $json->{error_percent}), sprintf('%.6f', 500 / 1110), 'json: the exact rate');

# the figures of a row fit each other
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.metric WHERE samples > 0 AND NOT (lag_avg_ms > 0 AND lag_avg_ms <= lag_max_ms
	AND lag_p95_ms <= lag_max_ms AND samples = (SELECT sum(n) FROM unnest(lag_buckets) n) AND blue_answer_ms >= 0 AND workers >= 0)}), '0',
	'averages are below maxima, buckets hold all samples');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.metric WHERE (samples = 0) <> (lag_avg_ms IS NULL)}), '0', 'no sample, no lag');

# --- a retry that changes nothing is no new failure, one that helps is a row written ---
$green->safe_psql('postgres', q{SELECT bcmig_retry_quarantine('one')});
ok($green->poll_query_until('postgres', 'SELECT min(attempts) = 2 FROM bcmig.quarantine'), 'retried in vain');
green_behind($green, q{ALTER TABLE a DROP CONSTRAINT c; SELECT bcmig_retry_quarantine('one')});
ok(wait_sums('one', '1100|10|5'), 'five rows were written by the retry, five had failed');

# --- the lag is that of sync_status ---
my $holder = $blue->background_psql('postgres', on_error_die => 1);
$holder->query_safe(q{BEGIN; UPDATE a SET v = 'held' WHERE id = 500});
$blue->safe_psql('postgres', 'SELECT txid_current()');	# something commits behind it
ok($green->poll_query_until('postgres', q{SELECT max(lag_max_ms) > 1500 FROM bcmig.metric}), 'an open transaction of blue shows as lag');
is($green->safe_psql('postgres', q{SELECT lag > '1 s' FROM bcmig.sync_status WHERE sync = 'one'}), 't', 'as sync_status has it');
$holder->query_safe('COMMIT');
$holder->quit;
wait_sync($green, 'one');

# --- several syncs ---
start_sync($green, 'two');
wait_sync($green, 'two');
ok(wait_sums('two', '30|0|0'), 'the second sync has its own rows');
ok(wait_sums('one', '1101|10|5'), 'the first has the row that was held');
$json = json('sync');
is(join(',', map { $_->{sync} . '=' . $_->{rows_processed} } @{ $json->{syncs} }), 'one=1116,two=30', 'one block a sync');
is($json->{total}->{rows_processed}, 1146, 'and a total');
is($json->{total}->{tables_active}, 2, 'of tables too');
$text = text('sync');
is(scalar(() = $text =~ /^Synchronisation of /mg), 3, 'text: three blocks');
like($text, qr/^Synchronisation of all syncs, last 7 days$/m, 'text: the total is named');
is(value($text, 'coverage'), '100.0 %', 'text: coverage');
note($_) foreach text('health'), $text;

# --- jobs that fail ---
$green->safe_psql('postgres', q{SELECT bcmig_alter_table('one', 'a', '{"max_retries": 1000}')});
green_behind($green, 'ALTER TABLE a RENAME v TO w');
$blue->safe_psql('postgres', q{UPDATE a SET v = 'renamed' WHERE id = 700});
ok($green->poll_query_until('postgres', q{SELECT sum(errors) > 0 FROM bcmig.metric}), 'a job that failed is an error');
green_behind($green, 'ALTER TABLE a RENAME w TO v');
ok($green->poll_query_until('postgres', q{SELECT v = 'renamed' FROM a WHERE id = 700}), 'the next one does it');
ok($green->poll_query_until('postgres', q{SELECT sum(errors) = (SELECT count(*) FROM bcmig.sync_batch WHERE status = 'Failed') FROM bcmig.metric}),
	'as many as sync_batch has');
is(json('health', 'one')->{syncs}->[0]->{jobs_failed}, $green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.sync_batch WHERE status = 'Failed'}), 'and the report');

# --- what was done just before a stop is counted, though the live table is gone when the row is written ---
sub interval
{
	$green->safe_psql('postgres', "ALTER SYSTEM SET bcmig.metric_interval = '$_[0]'");
	$green->reload;
}
interval('5min');
$blue->safe_psql('postgres', q{UPDATE b SET v = 'last'});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 30 FROM b WHERE v = 'last'}), 'thirty rows more');
$green->safe_psql('postgres', q{SELECT bcmig_stop_sync('two')});
ok($green->poll_query_until('postgres', q{SELECT state = 'stopped' AND (SELECT count(*) = 1 FROM bcmig.live_tables()) FROM bcmig.sync_status WHERE sync = 'two'}), 'two is stopped');
interval('1s');
ok(wait_sums('two', '60|0|0'), 'they are counted');

# --- a stopped sync writes no rows ---
wait_rows('one', 2);
my $rows = $green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.metric JOIN bcmig.sync USING (sync_id) WHERE name = 'two'});
wait_rows('one', 2);
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.metric JOIN bcmig.sync USING (sync_id) WHERE name = 'two'}), $rows, 'and has no new rows');
is(json('sync', 'two')->{syncs}->[0]->{coverage_percent}, 0, 'nor active tables');
is($green->safe_psql('postgres', q{SELECT count(*) FROM (SELECT minute + make_interval(secs => seconds) AS until,
	lead(minute) OVER (PARTITION BY sync_id ORDER BY minute) AS next FROM bcmig.metric) x WHERE next < until}), '0', 'no two rows stand for the same time');

# --- what cannot be written costs a minute, not the sync ---
my ($manager) = pids($green, 'bcmig manager');
my $locker = $green->background_psql('postgres', on_error_die => 1);
my $log = -s $green->logfile;
$locker->query_safe('BEGIN; LOCK TABLE bcmig.metric');
ok($green->wait_for_log(qr/WARNING:.* bcmig could not write bcmig\.metric/, $log), 'a locked table is a warning');
$blue->safe_psql('postgres', q{UPDATE a SET v = 'on it goes' WHERE id = 600});
ok($green->poll_query_until('postgres', q{SELECT v = 'on it goes' FROM a WHERE id = 600}), 'the sync goes on');
$locker->query_safe('COMMIT');
$locker->quit;
is((pids($green, 'bcmig manager'))[0], $manager, 'by the same manager');
ok(wait_rows('one', 1), 'and rows come again');

# --- history outlives a restart ---
my $history = "SELECT md5(string_agg(m::text, ' ' ORDER BY sync_id, minute)) FROM bcmig.metric m WHERE minute <= ";
my $newest = $green->safe_psql('postgres', "SELECT max(minute) FROM bcmig.metric");
my $before = $green->safe_psql('postgres', "$history '$newest'");
$green->restart;
ok(wait_rows('one', 2), 'rows come after a restart');
is($green->safe_psql('postgres', "$history '$newest'"), $before, 'those from before are there');
$green->stop('immediate');
$green->start;
ok(wait_rows('one', 2), 'and after a crash');
is($green->safe_psql('postgres', "$history '$newest'"), $before, 'with all that had been written');

# --- a lag that is not known is not 0 ---
wait_sync($green, 'one');
$green->safe_psql('postgres', q{SELECT bcmig_suspend_table('one', 'a')});
my $tail = q{(SELECT m.* FROM bcmig.metric m JOIN bcmig.sync USING (sync_id) WHERE name = 'one' ORDER BY minute DESC LIMIT 2) m};
ok($green->poll_query_until('postgres', qq{SELECT bool_and(samples = 0 AND unknown > 0 AND copying = 0 AND lag_avg_ms IS NULL AND lag_buckets IS NULL) FROM $tail}),
	'a suspended table: no lag is known');
ok($green->poll_query_until('postgres', q{SELECT 20 * sum(unknown) > sum(samples + unknown) FROM bcmig.metric JOIN bcmig.sync USING (sync_id) WHERE name = 'one'}),
	'for more than 5 % of the time');
$json = json('health', 'one')->{syncs}->[0];
is($json->{assessment}, 'attention', 'and that is not well');
is(grep({ /^time with unknown latency above 5 %$/ } @{ $json->{reasons} }) + 0, 1, 'for that reason');
$green->safe_psql('postgres', q{SELECT bcmig_resume_table('one', 'a')});
wait_sync($green, 'one');

# --- blue away: what is proved grows old ---
$blue->stop('immediate');
ok($green->poll_query_until('postgres', qq{SELECT bool_and(samples > 0 AND lag_avg_ms > 2000 AND blue_answer_ms IS NULL) FROM $tail}),
	'blue away: the lag grows, and no answer has a time');
$blue->start;

# --- bounds of the assessments, by rows made by hand ---
$green->safe_psql('postgres', q{SELECT bcmig_create_sync('three', 'blue');
	INSERT INTO bcmig.metric SELECT sync_id, now() - interval '1 min', 60, 100, 0, 0, 1, 1, 1, '{0,100}', 100, 0, 0, 0, 0, 1.5, 2, 0, 1, 1, 0, 0
	FROM bcmig.sync WHERE name = 'three'});
foreach my $case (
	[ 100, 99, 1, 0, 'excellent', 'excellent' ], [ 100.5, 99, 1, 0, 'good', 'excellent' ], [ 1, 199, 3, 0, 'good', 'good' ],
	[ 500, 95, 5, 0, 'good', 'good' ], [ 501, 95, 5, 0, 'attention', 'good' ], [ 1000, 100, 0, 0, 'attention', 'excellent' ],
	[ 1001, 100, 0, 0, 'attention', 'good' ], [ 5000, 100, 0, 0, 'attention', 'good' ], [ 5001, 100, 0, 0, 'attention', 'attention' ],
	[ 1, 94, 6, 0, 'attention', 'attention' ], [ 1, 0, 0, 0, 'excellent', 'excellent' ], [ 1, 100, 0, 1, 'excellent', 'excellent' ],
	[ 1, 100, 0, 3, 'good', 'good' ], [ 1, 100, 0, 7, 'attention', 'attention' ])
{
	my ($lag, $good, $bad, $unknown, @expected) = @$case;

	$green->safe_psql('postgres', "UPDATE bcmig.metric SET lag_avg_ms = $lag, lag_max_ms = $lag, rows_written = $good, rows_failed = $bad, unknown = $unknown "
		. "WHERE sync_id = (SELECT sync_id FROM bcmig.sync WHERE name = 'three')");
	is(join(',', map { json($_, 'three')->{syncs}->[0]->{assessment} } qw(health sync)), join(',', @expected),
		"$lag ms, $bad of " . ($good + $bad) . " rows failed, $unknown samples unknown");
}
# 95 samples of 100 in the bucket that ends at 16 ms, 5 below 1,024 ms
my $set = 'WHERE sync_id = (SELECT sync_id FROM bcmig.sync WHERE name = \'three\')';
$green->safe_psql('postgres', "UPDATE bcmig.metric SET lag_max_ms = 1000, lag_buckets = array_fill(0, ARRAY[16]) || 95 || array_fill(0, ARRAY[23]) || 5 $set");
is(json('health', 'three')->{syncs}->[0]->{latency_p95_ms}, 16, 'p95 is the upper edge of its bucket');
$green->safe_psql('postgres', "UPDATE bcmig.metric SET lag_buckets = array_fill(0, ARRAY[16]) || 94 || array_fill(0, ARRAY[23]) || 6 $set");
is(json('health', 'three')->{syncs}->[0]->{latency_p95_ms}, 1000, 'and never above the highest');
is(value(text('health', 'three'), 'active workers'), '1.50 on average', 'workers');
$green->safe_psql('postgres', "UPDATE bcmig.metric SET minute = now() - interval '6 min' $set");
like(value(text('health', 'three'), 'data'), qr/^none; the newest is of \d{4}-/, 'old data is not taken for new');
is(json('health', 'three')->{syncs}->[0]->{assessment}, 'unknown', 'nor assessed');
$green->safe_psql('postgres', "UPDATE bcmig.metric SET minute = now() - interval '1 min', samples = 0, copying = 100, unknown = 0, lag_avg_ms = NULL, lag_max_ms = NULL, lag_buckets = NULL $set");
is(value(text('health', 'three'), 'assessment'), 'unknown: tables are being copied', 'a copy is neither good nor bad');

# --- retention ---
$green->safe_psql('postgres', q{INSERT INTO bcmig.metric SELECT y.sync_id, now() - make_interval(days => d), m.seconds, m.samples, m.unknown, m.copying,
	NULL, NULL, NULL, NULL, 0, 0, 0, 0, 0, 0, NULL, NULL, 1, 1, 0, 0
	FROM bcmig.sync y JOIN bcmig.metric m USING (sync_id), unnest('{29,31,400}'::int[]) d WHERE y.name = 'three'});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.metric WHERE minute < now() - interval '1 day'}), 'rows of more than 30 days go');
$green->append_conf('postgresql.conf', "bcmig.metric_retention = 10d\n");
$green->reload;
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.metric WHERE minute < now() - interval '1 day'}), 'as metric_retention says');

# --- errors and roles ---
sub error_of
{
	my ($sql, $role) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', ($role ? "SET ROLE $role; " : '') . "\\set VERBOSITY verbose\n$sql");
	return $err;
}
like(error_of("SELECT bcmig_health_report('nobody')"), qr/BM001: sync "nobody" does not exist.*HINT/s, 'unknown sync');
like(error_of("SELECT bcmig_sync_report('one', 'pdf')"), qr/BM003: .*"pdf".*HINT:  This version knows: text, json, html\./s, 'unknown format names the known ones');
like(error_of('SELECT bcmig_health_report(NULL, NULL)'), qr/22004/, 'NULL format');
$green->safe_psql('postgres', 'CREATE ROLE watcher; GRANT pg_monitor TO watcher; CREATE ROLE stranger');
like(error_of('SELECT bcmig_health_report()', 'stranger'), qr/42501/, 'a stranger may not ask');
like(error_of('SELECT * FROM bcmig.metric', 'stranger'), qr/42501/, 'nor read');
is(error_of('SELECT bcmig_health_report(), bcmig_sync_report(), count(*) FROM bcmig.metric', 'watcher'), '', 'pg_monitor reads all, as of bcmig_status');
like(error_of('DELETE FROM bcmig.metric', 'watcher'), qr/42501/, 'and writes nothing');

# --- a dropped sync takes its rows along ---
$green->safe_psql('postgres', q{SELECT bcmig_drop_sync('two')});
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.metric WHERE sync_id NOT IN (SELECT sync_id FROM bcmig.sync)}), '0', 'no rows of a dropped sync');

done_testing();
