# Rows green refuses, what 007 does not ask: keys of two columns and renamed
# ones, every kind of narrowing, retry and discard by id, values of a unique key
# swapped in halved batches, both rungs of the ladder and what they do to waiters.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();
connect_blue($green, $blue, 's', '{"error_threshold": 100}');

my @tables = qw(nn narrow wide checked uniq big);
$blue->safe_psql('postgres', q{
	CREATE TABLE nn (k varchar(10), n int, v text, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (k, n));
	INSERT INTO nn SELECT 'K' || i, i, 'v', 0 FROM generate_series(1, 300) i;
	CREATE TABLE narrow (id int PRIMARY KEY, t varchar(50), d numeric(38,20), i bigint, s timestamp(3), "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO narrow SELECT i, 't', i, i, '2026-01-01', 0 FROM generate_series(1, 300) i;
	CREATE TABLE wide (id int PRIMARY KEY, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE checked (id int PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO checked SELECT i, i, 0 FROM generate_series(1, 300) i;
	CREATE TABLE uniq (id int PRIMARY KEY, u int UNIQUE, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO uniq SELECT i, i, 0 FROM generate_series(1, 300) i;
	CREATE TABLE big (id int PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO big SELECT i, i, 0 FROM generate_series(1, 10) i;});
track($blue, $_) foreach @tables;
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach @tables;
start_sync($green, 's');
wait_sync($green, 's');

# rows of the quarantine of a table
sub quarantined
{
	my ($table, $columns) = @_;
	$columns //= 'count(*)';
	return $green->safe_psql('postgres', "SELECT $columns FROM bcmig.quarantine JOIN bcmig.sync_table USING (table_id) WHERE target_table = '$table'");
}

sub retry_empties
{
	my ($table) = @_;
	$green->safe_psql('postgres', q{SELECT bcmig_retry_quarantine('s')});
	ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.quarantine JOIN bcmig.sync_table USING (table_id) WHERE target_table = '$table'"),
		"$table: the retry empties the quarantine");
	wait_sync($green, 's');
	is(compare_table($blue, $green, $table), '', "$table: equal after the retry");
}

# ---------------------------------------------------------------------------
# NOT NULL
# ---------------------------------------------------------------------------
green_behind($green, 'ALTER TABLE nn ALTER v SET NOT NULL');
$blue->safe_psql('postgres', q{BEGIN; UPDATE nn SET v = CASE WHEN n IN (7, 150) THEN NULL ELSE 'new' END; INSERT INTO nn VALUES ('K', 301, NULL), ('', 302, ''); COMMIT;});
wait_sync($green, 's');
is(quarantined('nn', q{string_agg(key::text || operation || sqlstate, ' ' ORDER BY key::text)}),
	'["K", "301"]upsert23502 ["K150", "150"]upsert23502 ["K7", "7"]upsert23502', 'the rows with NULL are in quarantine, key and SQLSTATE told');
is($green->safe_psql('postgres', q{SELECT image->>'k', image->>'n', jsonb_typeof(image->'v'), image ? 'bc_rowversion', message ~ 'null value in column "v"' FROM bcmig.quarantine WHERE key->>1 = '7'}),
	'K7|7|null|t|t', 'image and message too');
is($green->safe_psql('postgres', q{SELECT count(*) FILTER (WHERE v = 'new'), count(*) FILTER (WHERE v = 'v'), count(*) FILTER (WHERE v = '') FROM nn}), '298|2|1', 'all other rows of the window went on, refused ones are as they were');
is($green->safe_psql('postgres', q{SELECT state, quarantined FROM bcmig.table_status WHERE source_table = 'nn'}), 'streaming|3', 'the table streams, the status counts them');
like($green->safe_psql('postgres', q{SELECT problems || next_step FROM bcmig_status('s')}), qr/3 rows in quarantine.*bcmig_retry_quarantine/s, 'bcmig_status says so and how to go on');
is($green->safe_psql('postgres', q{SELECT max(rows_quarantined) FROM bcmig.sync_batch WHERE kind = 'window'}), '3', 'the batch counts them');

# refused again: the same entries, one attempt more
my $attempts = quarantined('nn', 'max(attempts)');
$green->safe_psql('postgres', q{SELECT bcmig_retry_quarantine('s')}) for 1 .. $attempts;
ok($green->poll_query_until('postgres', "SELECT count(*) = 3 AND every(attempts > $attempts) FROM bcmig.quarantine"), 'a retry in vain counts an attempt');
# a newer version of the row clears its entry, a delete on blue too
$blue->safe_psql('postgres', q{UPDATE nn SET v = 'mended' WHERE n = 7; DELETE FROM nn WHERE n IN (150, 301);});
wait_sync($green, 's');
is(quarantined('nn'), '0', 'newer versions and deletes of the rows clear their entries');
is(compare_table($blue, $green, 'nn'), '', 'nn: equal');
# a key renamed away from a refused row
$blue->safe_psql('postgres', q{UPDATE nn SET v = NULL WHERE n IN (20, 21);});
wait_sync($green, 's');
$blue->safe_psql('postgres', q{UPDATE nn SET k = 'renamed' WHERE n = 20; UPDATE nn SET v = 'x', k = 'renamed' WHERE n = 21;});
wait_sync($green, 's');
is(quarantined('nn', q{string_agg(key::text, ' ')}), '["renamed", "20"]', 'a renamed row is in quarantine under its new key only');
is($green->safe_psql('postgres', q{SELECT string_agg(k, ',') FROM nn WHERE n IN (20, 21)}), 'renamed', 'the old keys are gone from green');
green_behind($green, 'ALTER TABLE nn ALTER v DROP NOT NULL');
retry_empties('nn');

# ---------------------------------------------------------------------------
# Too narrow: nothing is cut or rounded silently
# ---------------------------------------------------------------------------
green_behind($green, q{ALTER TABLE narrow ALTER t TYPE varchar(5), ALTER d TYPE numeric(20,2), ALTER i TYPE int, ALTER s TYPE timestamp(0);});
$blue->safe_psql('postgres', q{
	UPDATE narrow SET t = 'abcdef' WHERE id = 1;
	UPDATE narrow SET t = 'abcde    ' WHERE id = 2;			-- an explicit cast cuts without a word
	UPDATE narrow SET d = 1.005 WHERE id = 3;				-- and rounds
	UPDATE narrow SET d = 1.00000000000000000001 WHERE id = 4;
	UPDATE narrow SET d = 999999999999999999.999 WHERE id = 5;
	UPDATE narrow SET i = 3000000000 WHERE id = 6;
	UPDATE narrow SET s = '2026-01-01 00:00:00.003' WHERE id = 7;
	UPDATE narrow SET t = 'abcde', d = 2.50, i = 2147483647, s = '1753-01-01' WHERE id = 8;
	INSERT INTO narrow VALUES (1001, NULL, NULL, NULL, NULL, 0), (1002, 'too wide', 0.001, -3000000000, '9999-12-31T23:59:59.997', 0);});
wait_sync($green, 's');
is(quarantined('narrow', q{string_agg((key->>0) || ':' || sqlstate, ' ' ORDER BY (key->>0)::int)}),
	'1:BM015 2:BM015 3:BM015 4:BM015 5:22003 6:22003 7:BM015 1002:BM015', 'rows whose values do not fit are in quarantine, rounded and cut ones with BM015')
  or diag(quarantined('narrow', q{string_agg((key->>0) || ':' || sqlstate || message, ' ' ORDER BY (key->>0)::int)}));
is($green->safe_psql('postgres', q{SELECT t, d, i, s FROM narrow WHERE id = 8}), 'abcde|2.50|2147483647|1753-01-01 00:00:00', 'what fits arrives');
is($green->safe_psql('postgres', q{SELECT count(*) FROM narrow WHERE id BETWEEN 1 AND 7 AND (t <> 't' OR d <> id OR i <> id OR s <> '2026-01-01')}), '0', 'nothing altered was written');
like(quarantined('narrow', q{string_agg(message, '') FILTER (WHERE key->>0 = '3')}), qr/"d"/, 'the message names the column');
is($green->safe_psql('postgres', q{SELECT image->>'d' FROM bcmig.quarantine WHERE key->>0 = '4'}), '1.00000000000000000001', 'the image has the exact value');
# one entry by id, the others stay
green_behind($green, q{ALTER TABLE narrow ALTER t TYPE varchar(50), ALTER d TYPE numeric(38,20);});
# a window may read a row twice, so that their attempts are not equal to begin with
my $others = q{string_agg((key->>0) || ':' || attempts, ' ' ORDER BY (key->>0)::int) FILTER (WHERE key->>0 NOT IN ('3', '6'))};
my ($of_others, $of_6) = (quarantined('narrow', $others), quarantined('narrow', q{max(attempts) FILTER (WHERE key->>0 = '6')}));
$green->safe_psql('postgres', q{SELECT bcmig_retry_quarantine('s', ARRAY(SELECT quarantine_id FROM bcmig.quarantine WHERE key->>0 IN ('3', '6')))});
ok($green->poll_query_until('postgres', "SELECT string_agg(key->>0, ',' ORDER BY (key->>0)::int) = '1,2,4,5,6,7,1002' AND max(attempts) FILTER (WHERE key->>0 = '6') = $of_6 + 1 FROM bcmig.quarantine"), 'a retry by id settles what can be');
is(quarantined('narrow', $others), $of_others, 'and reads those rows only');
green_behind($green, q{ALTER TABLE narrow ALTER i TYPE bigint, ALTER s TYPE timestamp(3);});
retry_empties('narrow');

# ---------------------------------------------------------------------------
# CHECK, discard
# ---------------------------------------------------------------------------
green_behind($green, 'ALTER TABLE checked ADD CONSTRAINT no_negatives CHECK (v >= 0)');
$blue->safe_psql('postgres', 'UPDATE checked SET v = -v WHERE id % 100 = 0; INSERT INTO checked VALUES (400, 4, 0)');
wait_sync($green, 's');
is(quarantined('checked', q{string_agg((key->>0) || ':' || sqlstate, ' ' ORDER BY (key->>0)::int)}), '100:23514 200:23514 300:23514', 'rows a CHECK refuses are in quarantine');
is($green->safe_psql('postgres', 'SELECT v FROM checked WHERE id = 400'), '4', 'the other row went on');
my $ids = quarantined('checked', 'array_agg(quarantine_id ORDER BY quarantine_id)');
my ($first) = $ids =~ /(\d+)/;
my ($ret, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\nSELECT bcmig_discard_quarantine('s', ARRAY[$first, 999999])");
like($err, qr/BM001/, 'an id that is not there is an error');
is(quarantined('checked'), '3', 'and nothing was discarded');
is($green->safe_psql('postgres', "SELECT bcmig_discard_quarantine('s', ARRAY[$first]::bigint[])"), '1', 'discard by id');
is(quarantined('checked'), '2', 'the others stay');
like($green->safe_psql('postgres', q{SELECT detail FROM bcmig.audit_log WHERE event = 'bcmig_discard_quarantine'}), qr/"100".*23514.*"v": ?"-100"/s, 'key, error and image are in the audit log');
is($green->safe_psql('postgres', 'SELECT v FROM checked WHERE id = 100'), '100', 'green keeps the old row');
green_behind($green, 'ALTER TABLE checked DROP CONSTRAINT no_negatives');
$blue->safe_psql('postgres', 'UPDATE checked SET v = v WHERE id = 100');
wait_sync($green, 's');
retry_empties('checked');

# ---------------------------------------------------------------------------
# Secondary unique key: a row somebody wrote on green
# ---------------------------------------------------------------------------
green_behind($green, 'INSERT INTO uniq (id, u) VALUES (5000, 1000)');
$blue->safe_psql('postgres', 'UPDATE uniq SET u = 1000 WHERE id = 1; UPDATE uniq SET u = 1001 WHERE id = 2; INSERT INTO uniq VALUES (301, 1002, 0)');
wait_sync($green, 's');
is(quarantined('uniq', q{string_agg((key->>0) || ':' || sqlstate, ' ')}), '1:23505', 'the row in conflict is in quarantine');
is($green->safe_psql('postgres', 'SELECT count(*) FROM uniq WHERE (id, u) IN ((1, 1), (2, 1001), (301, 1002), (5000, 1000))'), '4', 'the others went on, nobody\'s row was touched');
green_behind($green, 'DELETE FROM uniq WHERE id = 5000');
retry_empties('uniq');
# two values swapped, three turned round, in one transaction
$blue->safe_psql('postgres', q{BEGIN; UPDATE uniq SET u = -1 WHERE id = 10; UPDATE uniq SET u = 10 WHERE id = 11; UPDATE uniq SET u = 11 WHERE id = 10;
	UPDATE uniq SET u = -2 WHERE id = 20; UPDATE uniq SET u = 20 WHERE id = 21; UPDATE uniq SET u = 21 WHERE id = 22; UPDATE uniq SET u = 22 WHERE id = 20; COMMIT;});
wait_sync($green, 's');
is(compare_table($blue, $green, 'uniq'), '', 'swapped and turned values of a unique key arrive');
is(quarantined('uniq'), '0', 'none of them in quarantine');
# the same while another row of the window is refused, so that it goes in halves
green_behind($green, 'ALTER TABLE uniq ADD CONSTRAINT c CHECK (id <> 150 OR u = 150)');
$blue->safe_psql('postgres', q{BEGIN; UPDATE uniq SET u = -u - 100000; UPDATE uniq SET u = 302 - (-u - 100000) WHERE u > -100400; COMMIT;});
wait_sync($green, 's');
cmp_ok(quarantined('uniq'), '>', 2, 'many values turned round in halves: some rows wait for others');
green_behind($green, 'ALTER TABLE uniq DROP CONSTRAINT c');
retry_empties('uniq');

# ---------------------------------------------------------------------------
# The ladder
# ---------------------------------------------------------------------------
sub resumes
{
	my ($table, $what) = @_;
	$green->safe_psql('postgres', "SELECT bcmig_resume_table('s', '$table')");
	ok(wait_state($green, "public.$table", 'streaming'), "$what: resume lets it stream");
	retry_empties($table);
}
# an absolute count
green_behind($green, q{SELECT bcmig_alter_table('s', 'checked', '{"max_errors": 10}'); ALTER TABLE checked ADD CONSTRAINT c CHECK (v <> -1);});
$blue->safe_psql('postgres', 'UPDATE checked SET v = -1 WHERE id <= 9');
wait_sync($green, 's');
is($green->safe_psql('postgres', q{SELECT state, quarantined FROM bcmig.table_status WHERE source_table = 'checked'}), 'streaming|9', 'nine errors of ten: still streaming');
$blue->safe_psql('postgres', 'UPDATE checked SET v = -1 WHERE id = 11; UPDATE big SET v = 7 WHERE id = 7');
ok(wait_state($green, 'public.checked', 'suspended'), 'suspended at max_errors');
like($green->safe_psql('postgres', q{SELECT reason FROM bcmig.table_status WHERE source_table = 'checked'}), qr/10 rows.*max_errors/, 'the reason says so');
ok($green->poll_query_until('postgres', 'SELECT v = 7 FROM big WHERE id = 7'), 'other tables stream on');
is($green->safe_psql('postgres', q{SELECT synced_through IS NULL, lag IS NULL FROM bcmig.sync_status}), 't|t', 'nothing is proved while a table is suspended');
($ret, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\nCALL bcmig_wait_sync('s', 'caught_up', '30 s')");
like($err, qr/BM011.*checked/s, 'bcmig_wait_sync gives up at once and names the table');
$blue->safe_psql('postgres', 'UPDATE checked SET v = 12 WHERE id = 12; DELETE FROM checked WHERE id = 13');
green_behind($green, 'ALTER TABLE checked DROP CONSTRAINT c');
resumes('checked', 'max_errors');

# a share of the rows, of at least a hundred; counted from when it was resumed, over a restart
$green->safe_psql('postgres', q{SELECT bcmig_alter_table('s', 'checked', '{"max_errors": null, "error_threshold": 20}')});
$green->restart;
wait_sync($green, 's');
green_behind($green, 'ALTER TABLE checked ADD CONSTRAINT c CHECK (v NOT IN (-3, -4))');
$blue->safe_psql('postgres', 'UPDATE checked SET v = -3 WHERE id <= 50');
wait_sync($green, 's');
is($green->safe_psql('postgres', q{SELECT state FROM bcmig.table_status WHERE source_table = 'checked'}), 'streaming', 'every row of fewer than a hundred failed: no share to speak of');
$blue->safe_psql('postgres', 'UPDATE checked SET v = v + 1 WHERE id > 50');
wait_sync($green, 's');
is($green->safe_psql('postgres', q{SELECT state FROM bcmig.table_status WHERE source_table = 'checked'}), 'streaming', 'a window without errors suspends nothing');
$blue->safe_psql('postgres', 'UPDATE checked SET v = -4 WHERE id BETWEEN 51 AND 80');
ok(wait_state($green, 'public.checked', 'suspended'), 'suspended above error_threshold');
like($green->safe_psql('postgres', q{SELECT reason FROM bcmig.table_status WHERE source_table = 'checked'}), qr/ of .* rows failed.*error_threshold 20/, 'the reason says so');
green_behind($green, 'ALTER TABLE checked DROP CONSTRAINT c');
resumes('checked', 'error_threshold');

# no table left: the sync has failed, and comes back
$green->safe_psql('postgres', q{SELECT bcmig_suspend_table('s', t) FROM unnest(ARRAY['nn', 'narrow', 'wide', 'checked', 'uniq', 'big']) t});
ok($green->poll_query_until('postgres', q{SELECT state = 'failed' FROM bcmig.sync_status}), 'no table streams: the sync has failed');
$green->safe_psql('postgres', q{SELECT bcmig_resume_table('s', t) FROM unnest(ARRAY['nn', 'narrow', 'wide', 'checked', 'uniq', 'big']) t});
wait_sync($green, 's');
all_equal($blue, $green, 'in the end', @tables);
is($green->safe_psql('postgres', 'SELECT count(*) FROM bcmig.quarantine'), '0', 'the quarantine is empty');

done_testing();
