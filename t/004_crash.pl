# Green's processes killed at random instants, in copy and streaming, under
# load: a crash repeats at most what was under way, and repeating is harmless.
#
# The seed is printed; BCMIG_SEED=n repeats a run as far as time lets it.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use IPC::Run ();
use Test::More;
use Time::HiRes qw(usleep);

my $seed = $ENV{BCMIG_SEED} // int(time) % 1_000_000;
srand($seed);
diag("BCMIG_SEED=$seed");

my $copy_kills = 15;
my $stream_kills = 15;
my $big = 600_000;

my $blue = new_blue();
my $green = new_green('green', 'restart_after_crash = on', 'bcmig.max_workers = 3', 'checkpoint_timeout = 30s');

$blue->safe_psql('postgres', qq{
	CREATE TABLE big (id int PRIMARY KEY, v int, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE INDEX ON big (v);
	INSERT INTO big SELECT i, i % 1000, CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'x' || i END FROM generate_series(1, $big) i;
	CREATE TABLE account (id int PRIMARY KEY, balance numeric(38,20), note text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO account SELECT i, i / 7.0 FROM generate_series(1, 2000) i;
	CREATE TABLE ledger (id bigint PRIMARY KEY, account int, amount numeric(38,20), "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE item (code varchar(20) PRIMARY KEY, "\$systemId" uuid NOT NULL UNIQUE, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT 'I' || i, gen_random_uuid(), 0, 0 FROM generate_series(1, 500) i;
	CREATE TABLE heap (a int, b text);
	INSERT INTO heap SELECT i % 5, NULLIF('b' || i % 3, 'b2') FROM generate_series(1, 100) i;
	CREATE SEQUENCE s START 1000000;
	CREATE FUNCTION post(a int, b int, c int) RETURNS void LANGUAGE plpgsql AS \$\$
	BEGIN
		-- the same order in every transaction
		UPDATE account SET balance = balance + c, note = CASE b % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'n' || b END WHERE id = a;
		DELETE FROM account WHERE id = b;
		INSERT INTO account VALUES (nextval('s'), c, NULL);
		UPDATE big SET v = v + 1, t = CASE c % 2 WHEN 0 THEN '' END WHERE id = b * 100;
		DELETE FROM big WHERE id = c;
		INSERT INTO big VALUES (nextval('s'), c, 'new');
		UPDATE item SET code = 'R' || nextval('s'), v = v + 1 WHERE code = 'I' || a % 500;
		UPDATE item SET v = v + 1 WHERE code = 'I' || b % 500;
		INSERT INTO ledger VALUES (nextval('s'), a, c);
		IF c % 20 = 0 THEN
			INSERT INTO heap VALUES (c % 5, NULL);
			DELETE FROM heap WHERE ctid = (SELECT min(ctid) FROM heap);
		END IF;
	END \$\$;
	});
my @tables = qw(big account ledger item heap);
track($blue, $_) foreach qw(big ledger item);
track($blue, 'account', 'rowversion');

my $script = $blue->basedir . '/load.sql';
PostgreSQL::Test::Utils::append_to_file($script, qq{
\\set a random(1, 2000)
\\set b random(1, 2000)
\\set c random(1, $big)
\\set last random(1, 8)
BEGIN;
SELECT post(:a, :b, :c);
\\if :last = 1
ROLLBACK;
\\else
COMMIT;
\\endif
});

# ---------------------------------------------------------------------------
# Load on blue
# ---------------------------------------------------------------------------
my $load;
my $load_output = $blue->basedir . '/load.log';

sub start_load
{
	$load = IPC::Run::start([ 'pgbench', '-n', '-c', '3', '-j', '2', '-T', '600', '-R', '100', '-M', 'prepared', '--max-tries=100',
			'-f', $script, '-d', $blue->connstr('postgres') . ' application_name=load' ], '<', '/dev/null', '>', $load_output, '2>&1');
}

sub stop_load
{
	ok($load->pumpable, 'the load ran all the time') or diag(PostgreSQL::Test::Utils::slurp_file($load_output));
	$load->signal('INT');
	$load->kill_kill(grace => 10);
	# a client that was cut off may still be at it
	$blue->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'load'});
}

# ---------------------------------------------------------------------------
# Crashes
# ---------------------------------------------------------------------------
sub rows
{
	return split /\n/, $green->safe_psql('postgres', $_[0]);
}

# what must outlive a crash
sub remember
{
	my %kept;
	foreach (rows(q{SELECT 'chunk ' || table_id || '/' || chunk, concat_ws(',', lower_key, upper_key, rows, finished_at) FROM bcmig.copy_chunk WHERE done
		UNION ALL SELECT 'copy of ' || table_id, concat_ws(',', copy_mode, copy_started) FROM bcmig.table_state WHERE copy_started IS NOT NULL}))
	{
		my ($name, $value) = split /\|/, $_, 2;
		$kept{$name} = $value;
	}
	my %position = map { split /\|/, $_, 2 }
	  rows(q{SELECT 'table ' || table_id, position FROM bcmig.table_state WHERE position IS NOT NULL
		UNION ALL SELECT 'blue', horizon FROM bcmig.blue_position});
	return { kept => \%kept, position => \%position };
}

sub compare_memories
{
	my ($before, $after, $what) = @_;
	my @lost = grep { ($after->{kept}{$_} // 'gone') ne $before->{kept}{$_} } sort keys %{ $before->{kept} };
	my @back = grep { ($after->{position}{$_} // -1) < $before->{position}{$_} } sort keys %{ $before->{position} };
	is("@lost[0 .. ($#lost < 4 ? $#lost : 4)]", '', "$what: finished chunks stay finished");
	is("@back", '', "$what: no position goes back");
}

# the sync is worked on by processes that were not there before
sub wait_back
{
	my ($old) = @_;
	ok($green->poll_query_until('postgres',
			"SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'bcmig manager' AND pid <> $old"),
		'bcmig is back');
}

sub crash
{
	my ($what, $number) = @_;
	my ($manager) = pids($green, 'bcmig manager');
	my $before = remember();
	my $done = 0;

	if ($what eq 'immediate stop')
	{
		$green->stop('immediate');
		$green->start;
	}
	else
	{
		my @pids = pids($green, "bcmig $what");
		$done = kill 9, $pids[ int(rand(@pids)) ] if @pids;
		# between two lives of it: then its manager
		kill 9, $manager unless $done;
	}
	wait_back($manager // 0);
	compare_memories($before, remember(), "$number: $what");
}

my @kinds = ('worker', 'poller', 'manager', 'immediate stop', 'worker');
my $number = 0;

sub copying
{
	return $green->safe_psql('postgres', "SELECT s.state = 'copying' FROM bcmig.table_state s JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'big'") eq 't';
}

connect_blue($green, $blue, 's', '{"sweep_interval": "1s", "max_delete_percent": 100}');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_', NULL, '{\"chunk_rows\": 100}')") foreach @tables;
start_load();
start_sync($green, 's');

my $crashes = 0;
while ($crashes < $copy_kills)
{
	# some way further than last time
	my $now = $green->safe_psql('postgres', 'SELECT count(*) FROM bcmig.copy_chunk WHERE done');
	last unless $green->poll_query_until('postgres',
		"SELECT (SELECT count(*) FROM bcmig.copy_chunk WHERE done) > $now OR EXISTS (SELECT FROM bcmig.sync_state WHERE state = 'streaming')");
	usleep(rand(300_000));
	last unless copying();
	crash($kinds[ $crashes % @kinds ], ++$number . ' copy');
	$crashes++;
}
is($crashes, $copy_kills, 'all crashes meant for the copy came while it copied');

wait_streaming($green, 's');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.timeline WHERE event = 'copying' AND target = 'public.big'}), '1',
	'the copy was begun once');
stop_load();
wait_sync($green, 's');
all_equal($blue, $green, 'after crashes in the copy', @tables);

start_load();
for my $i (1 .. $stream_kills)
{
	# every other time before it is well up
	if ($i % 2)
	{
		my $now = $green->safe_psql('postgres', 'SELECT sum(rows_applied) FROM bcmig.table_state');
		$green->poll_query_until('postgres', "SELECT sum(rows_applied) > $now FROM bcmig.table_state");
	}
	usleep(rand(700_000));
	crash($kinds[ $i % @kinds ], ++$number . ' streaming');
}
stop_load();
wait_sync($green, 's');
all_equal($blue, $green, 'after crashes in streaming', @tables);

cmp_ok($blue->safe_psql('postgres', 'SELECT count(*) FROM ledger'), '>', 200, 'there was a load');
is($green->safe_psql('postgres', q{SELECT string_agg(concat_ws(' ', target, event, detail), '; ') FROM bcmig.timeline WHERE event IN ('resync', 'suspended')}),
	'', 'no crash made bcmig read a table again or give one up');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.quarantine}), '0', 'nothing in quarantine');

done_testing();
