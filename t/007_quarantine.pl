# Rows green refuses: halved down to the row, kept with key, image and reason,
# others go on; retry, discard, the ladder.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE q (id int PRIMARY KEY, a text, n numeric(38,20), w varchar(100), "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO q SELECT i, 'a' || i, i, 'w' || i, 0 FROM generate_series(1, 2000) i;
	CREATE TABLE big (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE uq (id int PRIMARY KEY, u int UNIQUE, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO uq SELECT i, i, 0 FROM generate_series(1, 20) i;
	CREATE TABLE lad (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO lad SELECT i, 'v', 0 FROM generate_series(1, 400) i;
	});
track($blue, $_) foreach qw(q big uq lad);
connect_blue($green, $blue, 's', '{"batch_rows": 1000}');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach qw(q big uq lad);
start_sync($green, 's');
wait_sync($green, 's');

sub quarantine { $green->safe_psql('postgres', "SELECT count(*) FROM bcmig.quarantine") }
sub wait_quarantine { $green->poll_query_until('postgres', "SELECT count(*) = $_[0] FROM bcmig.quarantine") }

# --- made NOT NULL and too narrow mid-stream ---
green_behind($green, q{ALTER TABLE q ALTER a SET NOT NULL, ALTER n TYPE numeric(30,2), ALTER w TYPE varchar(10)});
$blue->safe_psql('postgres', q{BEGIN;
	UPDATE q SET a = NULL WHERE id = 3; UPDATE q SET n = 1.005 WHERE id = 4; UPDATE q SET w = 'much too long for ten' WHERE id = 5;
	UPDATE q SET w = 'blanks    ' || '   ' WHERE id = 6; UPDATE q SET a = 'fine' WHERE id BETWEEN 7 AND 300; COMMIT});
ok(wait_quarantine(4), 'four rows are refused');
is($green->safe_psql('postgres', q{SELECT string_agg(key::text || ' ' || sqlstate, ', ' ORDER BY key) FROM bcmig.quarantine}),
	'["3"] 23502, ["4"] BM015, ["5"] BM015, ["6"] BM015', 'each with key and SQLSTATE: nothing is rounded or cut without a word');
is($green->safe_psql('postgres', q{SELECT image->>'w' FROM bcmig.quarantine WHERE key = '["5"]'}), 'much too long for ten', 'and the image');
is($green->safe_psql('postgres', q{SELECT count(*) FROM q WHERE a = 'fine'}), '294', 'the others went on');
is($green->safe_psql('postgres', q{SELECT quarantined FROM bcmig.sync_status}), '4', 'sync_status counts them');
is($green->safe_psql('postgres', q{SELECT a || n || w FROM q WHERE id = 3}), 'a33.00w3', 'the row stays as it was');

# a newer version clears its entry, a delete too
$blue->safe_psql('postgres', q{UPDATE q SET n = 7 WHERE id = 4; DELETE FROM q WHERE id = 5});
ok(wait_quarantine(2), 'a newer version that fits, and a delete, settle their entries');

# retry before the fix keeps them, after it empties the quarantine
$green->safe_psql('postgres', q{SELECT bcmig_retry_quarantine('s')});
ok($green->poll_query_until('postgres', 'SELECT min(attempts) = 2 FROM bcmig.quarantine'), 'a retry that fails counts its attempts');
green_behind($green, q{ALTER TABLE q ALTER a DROP NOT NULL, ALTER n TYPE numeric(38,20), ALTER w TYPE varchar(100)});
is($green->safe_psql('postgres', q{SELECT bcmig_retry_quarantine('s')}), '2', 'retry takes both');
ok(wait_quarantine(0), 'the quarantine is empty');
wait_sync($green, 's');
all_equal($blue, $green, 'after the fix', 'q');

# --- discard by id ---
green_behind($green, q{ALTER TABLE q ADD CONSTRAINT c CHECK (a <> 'bad')});
$blue->safe_psql('postgres', q{UPDATE q SET a = 'bad' WHERE id = 20});
ok(wait_quarantine(1), 'a CHECK refuses a row');
$green->safe_psql('postgres', q{SELECT bcmig_discard_quarantine('s', ARRAY(SELECT quarantine_id FROM bcmig.quarantine))});
is(quarantine(), '0', 'discarded by id');
green_behind($green, q{ALTER TABLE q DROP CONSTRAINT c; SELECT bcmig_resync_table('s', 'q')});
wait_sync($green, 's');
all_equal($blue, $green, 'a resync brings the discarded row', 'q');

# --- 100,000 rows in one transaction, batches of 1000, two bad ones ---
green_behind($green, q{ALTER TABLE big ADD CONSTRAINT c CHECK (id NOT IN (777, 77777))});
$blue->safe_psql('postgres', q{INSERT INTO big SELECT i, repeat('x', i % 50), 0 FROM generate_series(1, 100000) i});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 99998 FROM big'), '99,998 of 100,000 rows arrive');
ok(wait_quarantine(2), 'two are in quarantine');
green_behind($green, q{ALTER TABLE big DROP CONSTRAINT c; SELECT bcmig_retry_quarantine('s')});
ok(wait_quarantine(0), 'and empty again');
wait_sync($green, 's');
all_equal($blue, $green, '100,000 rows', 'big');

# --- a secondary unique key somebody else's row on green holds ---
green_behind($green, q{INSERT INTO uq (id, u) VALUES (1000, 1000)});
$blue->safe_psql('postgres', q{INSERT INTO uq VALUES (30, 1000, 0), (31, 31, 0)});
ok(wait_quarantine(1), 'a unique key is not the end of the table');
is($green->safe_psql('postgres', q{SELECT count(*) FROM uq WHERE id = 31}), '1', 'the other row went on');
green_behind($green, q{DELETE FROM uq WHERE id = 1000; SELECT bcmig_retry_quarantine('s')});
ok(wait_quarantine(0), 'retried');
wait_sync($green, 's');
all_equal($blue, $green, 'unique key', 'uq');

# --- the ladder: too many failures suspend the table ---
green_behind($green, q{ALTER TABLE lad ADD CONSTRAINT c CHECK (v <> 'bad')});
$blue->safe_psql('postgres', q{UPDATE lad SET v = CASE WHEN id % 10 = 0 THEN 'bad' ELSE 'good' END});
ok(wait_state($green, 'public.lad', 'suspended'), 'ten percent of 400 rows suspend the table');
like($green->safe_psql('postgres', q{SELECT reason FROM bcmig.table_status WHERE target = 'public.lad'}), qr/40 of 400 rows failed within five minutes/, 'and the reason says so');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.quarantine}), '40', 'nothing is lost');
green_behind($green, q{ALTER TABLE lad DROP CONSTRAINT c; SELECT bcmig_resume_table('s', 'lad')});
ok(wait_state($green, 'public.lad', 'streaming'), 'resumed');
$green->safe_psql('postgres', q{SELECT bcmig_retry_quarantine('s')});
ok(wait_quarantine(0), 'the quarantine empties');
wait_sync($green, 's');
all_equal($blue, $green, 'in the end', qw(q big uq lad));

done_testing();
