# A big window of one table applied by several workers.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use IPC::Run ();
use Test::More;

my $rows = 60_000;
my $blue = new_blue();
my $green = new_green('green', 'bcmig.max_workers = 4');

$blue->safe_psql('postgres', qq{
	CREATE TABLE busy (id int, code varchar(20), v text, n numeric(38,20), "\$systemId" uuid NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (id, code));
	INSERT INTO busy SELECT i, 'C' || i % 7, 'start', i, gen_random_uuid(), 0 FROM generate_series(1, $rows) i;
	CREATE TABLE acct (code varchar(20) PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO acct SELECT 'A' || i, 0, 0 FROM generate_series(1, 20000) i;
	CREATE TABLE uniq (id int PRIMARY KEY, u int UNIQUE, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO uniq SELECT i, i, 'start', 0 FROM generate_series(1, 3000) i;
	CREATE TABLE small (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	});
track($blue, $_, $_ eq 'busy' ? 'rowversion' : 'change_tracking') foreach qw(busy acct uniq small);
connect_blue($green, $blue, 's', '{"parallel": 3, "batch_rows": 200}');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach qw(busy acct uniq small);
start_sync($green, 's');
wait_sync($green, 's');
all_equal($blue, $green, 'after the copy', qw(busy acct uniq));

sub on_blue { $blue->safe_psql('postgres', $_[0]) }

sub on_green { $green->safe_psql('postgres', $_[0]) }

# processes that have come to a held point, as SQL
sub waiting
{
	my ($point) = @_;
	return "(SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = 7268 AND objid::bigint = hashtext('$point')::bigint & 4294967295)";
}

sub helpers { split /\n/, on_green("SELECT pid FROM bcmig.live_workers() WHERE phase = 'shard' ORDER BY pid") }

sub leader { on_green("SELECT w.pid FROM bcmig.live_workers() w JOIN bcmig.sync_table t USING (table_id) WHERE phase = 'window' AND target_table = 'busy'") }

sub position { on_green("SELECT s.position FROM bcmig.table_state s JOIN bcmig.sync_table t USING (table_id) WHERE target_table = 'busy'") }

# three processes stop where they have read a shard of a window of busy
sub stop_window_at
{
	my ($point, $change) = @_;
	my $hold = stop_at($green, $point);

	on_blue($change);
	ok($green->poll_query_until('postgres', 'SELECT ' . waiting($point) . ' = 3'), "three processes apply one window of one table ($point)");
	return $hold;
}

# --- several processes, and everything arrives: changed, new and renamed rows ---
{
	my $before = position();
	my $hold = stop_window_at('shard_read', q{BEGIN;
		UPDATE busy SET v = 'first ' || id, n = n + 0.5;
		UPDATE busy SET code = 'R' || id WHERE id % 100 = 0;
		INSERT INTO busy SELECT i, 'new', NULL, NULL, gen_random_uuid(), 0 FROM generate_series(100001, 102000) i; COMMIT});

	is(scalar(helpers()), 2, 'one has the window, two help');
	is(position(), $before, 'the position has not moved');
	is(on_green(q{SELECT count(*) FROM busy WHERE code LIKE 'C%' AND id % 100 = 0}), '0', 'renamed rows are gone under their old keys before the first shard');
	release_point($green, $hold);
	wait_sync($green, 's');
	cmp_ok(position(), '>', $before, 'the position has moved');
	all_equal($blue, $green, 'three processes', 'busy');
	is(on_green(q{SELECT max(rows_written) >= 61000 FROM bcmig.sync_batch WHERE kind = 'window'}), 't', 'the window counts the rows of all');
}

# --- helpers in the midst of a shard: the window waits for them; one is killed ---
{
	my $before = position();
	my $hold = stop_at($green, 'shard_between');

	on_blue(q{UPDATE busy SET v = 'second ' || id});
	ok($green->poll_query_until('postgres', 'SELECT ' . waiting('shard_between') . ' = 2'), 'two helpers have written a part of a shard');
	ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.live_workers() w JOIN pg_stat_activity a USING (pid) WHERE phase = 'window' AND wait_event_type = 'Extension'}),
		'the leader has done with all others and waits');
	cmp_ok(on_green(q{SELECT count(*) FROM busy WHERE v LIKE 'second%'}), '>', $rows / 2, 'which are there');
	is(position(), $before, 'the position has not moved');
	kill_pid('TERM', (helpers())[0]);
	ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.live_workers() WHERE phase = 'window'}), 'a helper is killed: the window ends');
	is(position(), $before, 'the position has not moved');
	release_point($green, $hold);
	wait_sync($green, 's');
	cmp_ok(position(), '>', $before, 'the position has moved');
	all_equal($blue, $green, 'a helper killed', 'busy');
	is(on_green(q{SELECT count(*) FROM bcmig.sync_batch JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'busy' AND status = 'Failed'}), '0',
		'which is no failure of the table');
}

# --- the leader is killed: rows its helpers have in hand are old by now, and must not follow newer ones ---
{
	my $hold = stop_window_at('shard_read', q{UPDATE busy SET v = 'third ' || id WHERE id % 5 = 0});
	my $leader = leader();

	# who comes now does not stop
	on_green('ALTER SYSTEM RESET bcmig.debug_points');
	$green->reload;

	kill_pid('TERM', $leader);
	ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $leader"), 'the leader is gone');
	is(scalar(helpers()), 2, 'its helpers are not');
	on_blue(q{UPDATE busy SET v = 'newer ' || id WHERE id % 5 = 0; INSERT INTO small VALUES (1, 'after')});
	ok($green->poll_query_until('postgres', 'SELECT count(*) = 1 FROM small'), 'other tables go on');

	# time enough for a newer window, if it could begin
	for my $round (2 .. 10)
	{
		on_blue("INSERT INTO small VALUES ($round, 'after')");
		$green->poll_query_until('postgres', "SELECT count(*) = $round FROM small");
	}
	is(leader(), '', 'no newer window begins before they have ended');
	is(on_green(q{SELECT count(*) FROM busy WHERE v LIKE 'newer%'}), '0', 'nor is a newer row there');
	release_point($green, $hold);
	wait_sync($green, 's');
	all_equal($blue, $green, 'the leader killed', qw(busy small));
}

# --- the lock alone keeps order: who takes it for himself waits for helpers ---
{
	my $hold = stop_window_at('shard_read', q{UPDATE busy SET v = 'fourth ' || id WHERE id % 5 = 0});
	my $id = on_green(q{SELECT table_id FROM bcmig.sync_table WHERE target_table = 'busy'});

	is(on_green("SELECT string_agg(DISTINCT mode, ' ') || count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = $id AND objsubid = 7268"),
		'RowExclusiveLock3', 'all three hold the applier lock, in a mode of their own');
	kill_pid('TERM', leader());
	ok($green->poll_query_until('postgres', "SELECT count(*) = 2 FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = $id AND objsubid = 7268"),
		'helpers of a dead leader go on holding it');
	release_point($green, $hold);
	wait_sync($green, 's');
	all_equal($blue, $green, 'the lock', 'busy');
}

# --- rows green refuses ---
{
	my $hold;

	green_behind($green, q{ALTER TABLE busy ADD CONSTRAINT c CHECK (v NOT LIKE 'refused%')});
	$hold = stop_window_at('shard_read', q{UPDATE busy SET v = CASE WHEN id IN (777, 7777, 17777, 37777) THEN 'refused ' ELSE 'fifth ' END || id WHERE id % 5 = 2});
	release_point($green, $hold);
	ok($green->poll_query_until('postgres', 'SELECT count(*) = 4 FROM bcmig.quarantine'), 'four are in quarantine');
	wait_sync($green, 's');
	is(on_green(q{SELECT count(*) FROM busy WHERE v LIKE 'fifth%'}), on_blue(q{SELECT count(*) FROM busy WHERE v LIKE 'fifth%'}), 'all others are there');
	is(on_green(q{SELECT rows_quarantined FROM bcmig.sync_batch WHERE rows_quarantined > 0}), '4', 'and are counted');
	green_behind($green, q{ALTER TABLE busy DROP CONSTRAINT c; SELECT bcmig_retry_quarantine('s')});
	ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.quarantine'), 'retried');
	all_equal($blue, $green, 'refused rows', 'busy');
}

# --- too many of them, in all shards together ---
{
	on_green(q{SELECT bcmig_alter_table('s', 'busy', '{"max_errors": 30}')});
	green_behind($green, q{ALTER TABLE busy ADD CONSTRAINT c CHECK (v NOT LIKE 'denied%')});
	my $before = position();
	on_blue(q{UPDATE busy SET v = CASE WHEN id % 1000 = 5 THEN 'denied ' ELSE 'sixth ' END || id WHERE id % 5 = 0});
	ok(wait_state($green, 'public.busy', 'suspended'), 'sixty refused rows suspend a table that stands thirty');
	is(position(), $before, 'the position has not moved');
	like(on_green(q{SELECT reason FROM bcmig.table_status WHERE target = 'public.busy'}), qr/max_errors is 30/, 'and the reason says so');
	green_behind($green, q{ALTER TABLE busy DROP CONSTRAINT c; SELECT bcmig_resume_table('s', 'busy')});
	wait_sync($green, 's');
	on_green(q{SELECT bcmig_retry_quarantine('s')});
	ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.quarantine'), 'retried');
	all_equal($blue, $green, 'resumed', 'busy');
}

# --- a secondary unique key: by one process ---
{
	my $hold = stop_at($green, 'shard_read');

	on_blue(q{UPDATE uniq SET v = 'first ' || id});
	wait_sync($green, 's');
	is(on_green(q{SELECT max(rows_written) FROM bcmig.sync_batch JOIN bcmig.sync_table USING (table_id) WHERE kind = 'window' AND target_table = 'uniq'}), '3000',
		'its window was big, and nobody came to a shard');
	release_point($green, $hold);
	all_equal($blue, $green, 'a secondary unique key', 'uniq');
}

# --- no worker is free: the one that has the window does it all ---
{
	my $hold;

	on_green(q{SELECT bcmig_alter_sync('s', '{"workers": 1}')});
	$hold = stop_at($green, 'shard_read');
	on_blue(q{UPDATE acct SET v = 1; DELETE FROM acct WHERE v = 1 AND code LIKE '%7'});
	ok($green->poll_query_until('postgres', 'SELECT ' . waiting('shard_read') . ' = 1'), 'one process');
	release_point($green, $hold);
	wait_sync($green, 's');
	all_equal($blue, $green, 'alone', 'acct');
}

# --- option parallel takes effect with the next window ---
{
	my $hold;

	on_green(q{SELECT bcmig_alter_sync('s', '{"workers": null, "parallel": 1}')});
	$hold = stop_at($green, 'between_transactions');
	on_blue(q{UPDATE acct SET v = 2});
	ok(point_reached($green, 'between_transactions'), 'its window is big');
	is(scalar(helpers()), 0, 'parallel 1: nobody helps');
	on_green(q{SELECT bcmig_alter_sync('s', '{"parallel": 2}')});
	release_point($green, $hold);
	wait_sync($green, 's');
	all_equal($blue, $green, 'parallel 1', 'acct');

	$hold = stop_at($green, 'shard_read');
	on_blue(q{UPDATE acct SET v = 3});
	ok($green->poll_query_until('postgres', 'SELECT ' . waiting('shard_read') . ' = 2'), 'parallel 2: one helps');
	release_point($green, $hold);
	wait_sync($green, 's');
	all_equal($blue, $green, 'parallel 2', 'acct');
}

# --- blue goes on changing everything, processes die ---
{
	my $script = $blue->basedir . '/load.sql';
	my ($out, $err) = ('', '');
	my $load;

	on_green(q{SELECT bcmig_alter_sync('s', '{"parallel": 3}')});
	PostgreSQL::Test::Utils::append_to_file($script, q{
\set a random(1, 20000)
\set b random(1, 20000)
BEGIN;
UPDATE acct SET v = v + 1 WHERE code = 'A' || :a;
DELETE FROM acct WHERE code = 'A' || :b;
INSERT INTO acct VALUES ('A' || :b, :a, 0);
UPDATE busy SET code = 'L' || :a % 10, v = 'load' WHERE id = :b;
COMMIT;
});
	$load = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', '6', '-R', '400', '-f', $script, $blue->connstr('postgres') ], '>', \$out, '2>', \$err);
	for my $round (1 .. 4)
	{
		my @workers;

		# rows are locked in another order than by the load: not beside it
		on_blue(qq{BEGIN; LOCK TABLE acct IN SHARE ROW EXCLUSIVE MODE; UPDATE acct SET v = v + 1000 WHERE code LIKE 'A%$round'; COMMIT});
		on_blue(qq{UPDATE busy SET n = n + $round WHERE id % 4 = $round % 4});
		@workers = pids($green, 'bcmig worker');
		kill_pid('TERM', $workers[ $round % @workers ]) if @workers;
	}
	IPC::Run::finish($load) or diag($err);
	like($out, qr/number of transactions actually processed: [1-9]/, 'blue was changed meanwhile');
	wait_sync($green, 's');
	all_equal($blue, $green, 'under load', qw(busy acct uniq small));
	is(on_green('SELECT count(*) FROM bcmig.quarantine'), '0', 'nothing is left over');
}

# --- outside writes while the shards are under way; each belongs to two keys, which mostly are in two shards ---
{
	my $hold = stop_at($green, 'shard_read');

	on_green(q{SELECT bcmig_alter_sync('s', '{"conflict": "source_wins"}')});
	on_blue(q{INSERT INTO acct SELECT 'A' || i, 0, 0 FROM generate_series(1, 20000) i ON CONFLICT (code) DO NOTHING; UPDATE acct SET v = v + 7});
	ok($green->poll_query_until('postgres', 'SELECT ' . waiting('shard_read') . ' = 3'), 'three processes');
	on_green(q{BEGIN; SELECT bcmig.arm_journal('s'); SELECT bcmig.lift_fence('s'); COMMIT});
	on_green(q{DELETE FROM acct WHERE code LIKE 'A1__'; UPDATE acct SET code = 'A1' || substr(code, 3) WHERE code LIKE 'A2__'});
	is(on_green('SELECT count(*) FROM bcmig.journal WHERE old_key <> new_key'), '100', 'a hundred keys are renamed on green');
	release_point($green, $hold);
	wait_sync($green, 's');
	all_equal($blue, $green, 'outside writes', 'acct');
	is(on_green('SELECT count(*) FROM bcmig.journal WHERE settled_at IS NULL'), '0', 'all of them are settled');
}

done_testing();
