# Targets whose rows do not lie in heaps of green: a table with partitions on
# another server, a foreign table, and what cannot be a target at all.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $far = PostgreSQL::Test::Cluster->new('far');
$far->init(extra => [ '--locale=C.UTF-8', '--encoding=UTF8' ]);
$far->append_conf('postgresql.conf', "listen_addresses = '127.0.0.1'\nmax_connections = 40\n");
$far->start;
my $green = new_green('green', 'bcmig.max_workers = 4', 'restart_after_crash = on');
my $me = (getpwuid($<))[0];
my ($host, $port) = ($far->host, $far->port);

$blue->safe_psql('postgres', q{
	CREATE TABLE entry (no int, code varchar(10), day date NOT NULL, amount numeric(38,20), v text, "$systemId" uuid NOT NULL DEFAULT gen_random_uuid(), "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (no, code));
	INSERT INTO entry SELECT i, 'C' || i % 7, '2026-01-15'::date + (i % 3) * 31, i / 7.0, 'start', gen_random_uuid(), 0 FROM generate_series(1, 3000) i;
	CREATE TABLE far_alone (id int PRIMARY KEY, v text, b bytea, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO far_alone SELECT i, nullif('v' || i, 'v7'), decode(repeat('00ff', i % 5), 'hex'), 0 FROM generate_series(1, 500) i;
	CREATE TABLE heapless (v text);
	CREATE TABLE here (id int PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO here SELECT i, i, 0 FROM generate_series(1, 100) i;});
track($blue, 'entry', 'rowversion');
track($blue, $_) foreach qw(far_alone here);

my $columns = q{no int NOT NULL, code varchar(10) NOT NULL, day date NOT NULL, amount numeric(38,20), v text, "$systemId" uuid, bc_rowversion bigint};
$far->safe_psql('postgres', qq{
	CREATE TABLE entry_2 ($columns, PRIMARY KEY (no, code));
	CREATE TABLE entry_3 ($columns, PRIMARY KEY (no, code));
	CREATE TABLE far_alone (id int PRIMARY KEY, v text, b bytea, bc_rowversion bigint);});
connect_blue($green, $blue, 's', '{"sweep_interval": "1 h", "max_delete_percent": 100}');
$green->safe_psql('postgres', qq{
	CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres', connect_timeout '5');
	CREATE TABLE entry ($columns) PARTITION BY RANGE (day);
	CREATE TABLE entry_1 PARTITION OF entry FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
	CREATE FOREIGN TABLE entry_2 PARTITION OF entry FOR VALUES FROM ('2026-02-01') TO ('2026-03-01') SERVER far OPTIONS (batch_size '100');
	CREATE FOREIGN TABLE entry_3 PARTITION OF entry FOR VALUES FROM ('2026-03-01') TO ('2026-04-01') SERVER far OPTIONS (updatable 'false');
	CREATE FOREIGN TABLE far_alone (id int NOT NULL, v text, b bytea, bc_rowversion bigint) SERVER far;
	CREATE FOREIGN TABLE of_blue (id int NOT NULL, v int, bc_rowversion bigint) SERVER blue OPTIONS (table_name 'here');
	CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler;
	CREATE TABLE here (id int PRIMARY KEY, v int, bc_rowversion bigint) USING other;
	CREATE FOREIGN TABLE far_heap (v text) SERVER far OPTIONS (table_name 'nowhere');
	CREATE TABLE base (id int PRIMARY KEY, v int, bc_rowversion bigint);
	CREATE VIEW through AS SELECT * FROM base;
	CREATE FUNCTION through() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO base VALUES (NEW.*); RETURN NEW; END';
	CREATE TRIGGER t INSTEAD OF INSERT ON through FOR EACH ROW EXECUTE FUNCTION through();});

# ---------------------------------------------------------------------------
# What cannot be kept there is refused when it is configured
# ---------------------------------------------------------------------------
sub refuses
{
	my ($table, $target, $why, $what, $fix) = @_;
	my ($ret, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\nSELECT bcmig_add_table('s', '$table', '$target')");

	like($err, qr/BM010: .*$why/s, "refused: $what");
	$green->safe_psql('postgres', $fix) if defined $fix;
}
refuses('here', 'through', 'no plain, partitioned or foreign table.*INSTEAD OF triggers do not fire', 'a view');
refuses('here', 'of_blue', 'is a blue', 'a foreign table of blue itself');
refuses('heapless', 'far_heap', 'no key to find them by', 'rows without a key on another server');
my ($ret, $out, $err) = $green->psql('postgres', "SELECT bcmig_add_table('s', 'far_alone', 'far_alone')");
like($err, qr/user mapping not found/, 'refused: a server its owner cannot log in to');
$green->safe_psql('postgres', "CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user '$me')");
refuses('entry', 'entry', 'partition entry_1 .*no unique key', 'a partition of green without the key', 'ALTER TABLE entry_1 ADD PRIMARY KEY (code, no)');
refuses('entry', 'entry', 'entry_3 .*cannot be written to', 'a foreign table that is read only', q{ALTER FOREIGN TABLE entry_3 OPTIONS (SET updatable 'true'); ALTER TABLE entry ADD COLUMN extra int});
refuses('entry', 'entry', 'column extra .*does not exist on blue', 'a column that would be forgotten', 'ALTER TABLE entry DROP COLUMN extra');
is($green->safe_psql('postgres', 'SELECT count(*) FROM bcmig.sync_table'), '0', 'nothing of it was kept');

# ---------------------------------------------------------------------------
# Copy: a process dies when rows are on the other server and their checkpoint is not
# ---------------------------------------------------------------------------
my @tables = qw(entry far_alone);
$green->safe_psql('postgres', qq{SELECT bcmig_add_table('s', '$_', '$_', '{"chunk_rows": 1000}')}) foreach @tables;
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'here', 'here')});
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig_preflight('s') WHERE status = 'fail'}), '0', 'preflight lets them');
my $hold = hold_point($green, 'copy_chunk_loaded');
$green->safe_psql('postgres', q{ALTER SYSTEM SET bcmig.debug_points = 'copy_chunk_loaded'});
$green->reload;
start_sync($green, 's');
my $held = q{FROM pg_locks l JOIN bcmig.live_workers() w USING (pid) JOIN bcmig.sync_table t USING (table_id)
	WHERE l.locktype = 'advisory' AND NOT l.granted AND l.classid = 7268 AND t.target_table = 'entry'};
ok($green->poll_query_until('postgres', "SELECT count(*) = 1 $held"), 'one worker copies entry, and it has written a chunk');
cmp_ok($far->safe_psql('postgres', 'SELECT count(*) FROM entry_2'), '>', 100, 'rows of it are on the other server');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.copy_chunk JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'entry' AND done}), '0', 'no chunk is done');
ok(crash($green, $green->safe_psql('postgres', "SELECT pid $held")), 'green is back');
$hold->quit;
$green->safe_psql('postgres', 'ALTER SYSTEM RESET bcmig.debug_points');
$green->reload;
wait_sync($green, 's');
all_equal($blue, $green, 'after the copy and a crash', @tables, 'here');
is($far->safe_psql('postgres', q{SELECT (SELECT count(*) FROM entry_2), (SELECT count(*) FROM entry_3), (SELECT count(*) FROM far_alone)}), '1000|1000|500', 'they are where they belong');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.quarantine}), '0', 'none was refused for being there twice');

# ---------------------------------------------------------------------------
# Stream
# ---------------------------------------------------------------------------
$blue->safe_psql('postgres', q{
	BEGIN;
	INSERT INTO entry SELECT i, 'N', '2026-03-02'::date - (i % 60), 0.00000000000000000001, '', gen_random_uuid(), 0 FROM generate_series(5001, 5600) i;
	UPDATE entry SET v = 'changed', amount = NULL WHERE no % 10 = 1;
	UPDATE entry SET day = day + 31 WHERE day < '2026-03-01' AND no % 10 = 2;	-- to the next partition: here to there, there to there
	UPDATE entry SET day = day - 62 WHERE day >= '2026-03-15' AND no % 10 = 3;	-- and back here
	UPDATE entry SET code = 'K' || no WHERE no % 10 = 4;
	DELETE FROM far_alone WHERE id % 3 = 0;
	UPDATE far_alone SET v = v || '!', b = NULL WHERE id % 3 = 1;
	UPDATE far_alone SET id = id + 10000 WHERE id % 5 = 2;
	COMMIT;});
wait_sync($green, 's');
all_equal($blue, $green, 'insert, update, delete, other keys, other partitions', @tables);
is($far->safe_psql('postgres', q{SELECT (SELECT count(*) FROM entry_2 WHERE day < '2026-02-01' OR day >= '2026-03-01'), (SELECT count(*) FROM entry_3 WHERE day < '2026-03-01' OR day >= '2026-04-01')}), '0|0', 'no row stands in a partition it does not belong to');
is($far->safe_psql('postgres', q{SELECT count(*) FROM entry_2 WHERE v = '' AND amount = 0.00000000000000000001}), $blue->safe_psql('postgres', q{SELECT count(*) FROM entry WHERE v = '' AND day >= '2026-02-01' AND day < '2026-03-01'}), 'values are exact');

# what is equal is not written again
my $version = q{SELECT xmin FROM far_alone WHERE id = 5};
my $before = $far->safe_psql('postgres', $version);
$green->safe_psql('postgres', q{SELECT bcmig_resync_table('s', 'far_alone')});
wait_sync($green, 's');
is($green->safe_psql('postgres', q{SELECT s.copy_mode, s.copy_finished IS NOT NULL FROM bcmig.table_state s JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'far_alone'}), 'upsert|t', 'read again as a whole');
is($far->safe_psql('postgres', $version), $before, 'rows that are equal are left alone');

# rows blue deletes without telling, found by the sweep
$blue->safe_psql('postgres', 'DELETE FROM entry WHERE no BETWEEN 100 AND 200');
$green->safe_psql('postgres', q{SELECT bcmig_sweep_deletes('s', 'entry')});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM entry WHERE no BETWEEN 100 AND 200'), 'the sweep deletes there too');

# ---------------------------------------------------------------------------
# Refused by the other server
# ---------------------------------------------------------------------------
$far->safe_psql('postgres', q{ALTER TABLE far_alone ADD CONSTRAINT c CHECK (v <> 'bad'); ALTER TABLE entry_2 ADD CONSTRAINT c CHECK (v <> 'bad')});
$blue->safe_psql('postgres', q{UPDATE far_alone SET v = CASE WHEN id IN (4, 10) THEN 'bad' ELSE 'good' END WHERE id < 100; UPDATE entry SET v = 'bad' WHERE no IN (1, 7, 10);});
wait_sync($green, 's');
is($green->safe_psql('postgres', q{SELECT string_agg((key->>0) || ':' || sqlstate, ' ' ORDER BY key->>0) FROM bcmig.quarantine JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'far_alone'}), '10:23514 4:23514', 'rows the other server refuses are in quarantine');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.quarantine JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'entry'}),
	$blue->safe_psql('postgres', q{SELECT count(*) FROM entry WHERE v = 'bad' AND day >= '2026-02-01' AND day < '2026-03-01'}), 'of the partitioned table those of the partition that refuses them');
is($green->safe_psql('postgres', q{SELECT count(*) FROM far_alone WHERE v = 'good'}), $blue->safe_psql('postgres', q{SELECT count(*) FROM far_alone WHERE v = 'good'}), 'all others went on');
$far->safe_psql('postgres', 'ALTER TABLE far_alone DROP CONSTRAINT c; ALTER TABLE entry_2 DROP CONSTRAINT c');
$green->safe_psql('postgres', q{SELECT bcmig_retry_quarantine('s')});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.quarantine'), 'a retry empties the quarantine');
wait_sync($green, 's');
all_equal($blue, $green, 'after the retry', @tables);

# ---------------------------------------------------------------------------
# The other server away and back
# ---------------------------------------------------------------------------
$far->stop('immediate');
$blue->safe_psql('postgres', q{UPDATE far_alone SET v = 'while it was away'; UPDATE here SET v = 7;});
ok($green->poll_query_until('postgres', 'SELECT bool_and(v = 7) FROM here'), 'tables of green go on while the other server is away');
ok($green->poll_query_until('postgres', q{SELECT last_error IS NOT NULL FROM bcmig.table_status WHERE source_table = 'far_alone'}), 'the table says what is wrong');
is($green->safe_psql('postgres', q{SELECT state FROM bcmig.table_status WHERE source_table = 'far_alone'}), 'streaming', 'and is not suspended');
$far->start;
wait_sync($green, 's');
all_equal($blue, $green, 'when it is back', @tables, 'here');

# ---------------------------------------------------------------------------
# Differences are found, repaired and resynced
# ---------------------------------------------------------------------------
my ($run, $verdict) = run_validation($green, 's', 'full');
is($verdict, 'ok', 'validation: equal');
$far->safe_psql('postgres', q{UPDATE entry_2 SET v = 'altered' WHERE no % 100 = 5; DELETE FROM far_alone WHERE id < 20; INSERT INTO far_alone (id) VALUES (-1);});
($run, $verdict) = run_validation($green, 's', 'full');
isnt($verdict, 'ok', 'validation: what somebody changed over there is found');
$green->safe_psql('postgres', "SELECT bcmig_resync_table('s', '$_')") foreach @tables;
ok($green->poll_query_until('postgres', q{SELECT bool_and(state = 'streaming') FROM bcmig.table_status}), 'resynced');
wait_sync($green, 's');
all_equal($blue, $green, 'after the resync', @tables);
($run, $verdict) = run_validation($green, 's', 'full');
is($verdict, 'ok', 'validation: equal again');

# writers cannot be let to where nobody sees what they write
($ret, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\nSELECT bcmig.arm_journal('s')");
like($err, qr/keeps rows on other servers, where they can be written past the journal/, 'the journal of such a table cannot be armed');
($ret, $out, $err) = $green->psql('postgres', "INSERT INTO entry (no, code, day) VALUES (1, 'x', '2026-02-02')");
like($err, qr/fenced/, 'through green nobody writes');

# ---------------------------------------------------------------------------
# Nor a function that runs while a statement of bcmig's own is planned: a constraint with
# constant arguments is worked out then
# ---------------------------------------------------------------------------
green_behind($green, q{
	CREATE TABLE said (what text);
	CREATE FUNCTION intrude() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN INSERT INTO public.far_alone (id, v) VALUES (-1, 'intruder'); INSERT INTO public.said VALUES ('written');
	EXCEPTION WHEN OTHERS THEN INSERT INTO public.said VALUES (SQLERRM); END $$;
	CREATE FUNCTION planned(int) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM public.intrude(); RETURN true; END';
	ALTER FOREIGN TABLE far_alone ADD CHECK (planned(1) AND id > 0);
	GRANT ALL ON said TO PUBLIC});
$green->safe_psql('postgres', q{ALTER SYSTEM SET constraint_exclusion = on});
$green->reload;
$blue->safe_psql('postgres', q{UPDATE far_alone SET v = 'while planned' WHERE id = 5});
wait_sync($green, 's');
is($far->safe_psql('postgres', 'SELECT v FROM far_alone WHERE id = 5'), 'while planned', 'the row arrives');
is($green->safe_psql('postgres', q{SELECT DISTINCT what ~ 'fenced' FROM said}), 't', 'the function ran, and was refused');
is($far->safe_psql('postgres', 'SELECT count(*) FROM far_alone WHERE id < 0'), '0', 'and nothing of it is there');

done_testing();
