# A big change of one table does not hold up the others.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

# windows of more than 100 rows of big are big: ten batches of ten rows a transaction
$blue->safe_psql('postgres', q{
	CREATE TABLE big (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO big SELECT i, 'start', 0 FROM generate_series(1, 1000) i;
	CREATE TABLE small (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE small2 (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	});
track($blue, $_) foreach qw(big small small2);
connect_blue($green, $blue, 's', '{"workers": 1, "batch_rows": 10}');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach qw(big small small2);
start_sync($green, 's');
wait_sync($green, 's');

sub on_blue { $blue->safe_psql('postgres', $_[0]) }

sub stopped { return point_reached($green, $_[0]) }

# The worker stops between two transactions of a window of big.
sub stop_in_big
{
	my ($change) = @_;
	my $hold = hold_point($green, 'between_transactions');

	$green->safe_psql('postgres', "ALTER SYSTEM SET bcmig.debug_points = 'between_transactions'");
	$green->reload;
	on_blue($change);
	ok(stopped('between_transactions'), 'the big window is being applied');
	return $hold;
}

sub go_on { release_point($green, $_[0]) }

# the one worker has taken a window of this table, though it has not done with big
sub given
{
	my ($table) = @_;
	return $green->poll_query_until('postgres',
		"SELECT l.busy > 0 FROM bcmig.live_tables() l JOIN bcmig.sync_table t USING (table_id) WHERE t.target_table = '$table'");
}

sub in_between
{
	my ($table) = @_;
	return $green->safe_psql('postgres', "
		SELECT s.finished_at BETWEEN b.started_at AND b.finished_at FROM
		 (SELECT * FROM bcmig.sync_batch JOIN bcmig.sync_table USING (table_id) WHERE target_table = '$table' AND kind = 'window' ORDER BY batch_id DESC LIMIT 1) s,
		 (SELECT * FROM bcmig.sync_batch JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'big' AND kind = 'window' ORDER BY batch_id DESC LIMIT 1) b");
}

# --- a pool of one: small is applied while big has not been ---
{
	my $hold = stop_in_big(q{UPDATE big SET v = 'first'});

	on_blue(q{INSERT INTO small VALUES (1, 'one')});
	ok(given('small'), 'a small window is given aside');
	is($green->safe_psql('postgres', q{SELECT count(*) FROM big WHERE v = 'first'}), '100', 'one transaction of the big window has been committed');
	go_on($hold);
	wait_sync($green, 's');
	is(in_between('small'), 't', 'the small window was over before the big one');
	all_equal($blue, $green, 'small windows aside', qw(big small small2));
}

# --- two big ones: the second waits for a turn of its own ---
{
	my $hold = stop_in_big(q{UPDATE big SET v = 'second'});

	on_blue(q{INSERT INTO small SELECT i, 'many' FROM generate_series(2, 500) i});
	ok(given('small'), 'it is not known yet that this is big');
	go_on($hold);
	wait_sync($green, 's');
	is(in_between('small'), 'f', 'a big window is not done aside');
	all_equal($blue, $green, 'two big windows', qw(big small small2));
}

# --- a row green refuses, aside ---
{
	my $hold;

	green_behind($green, q{ALTER TABLE small2 ADD CHECK (v <> 'refused')});
	$hold = stop_in_big(q{UPDATE big SET v = 'third'});
	on_blue(q{INSERT INTO small2 SELECT i, CASE WHEN i = 7 THEN 'refused' ELSE 'taken' END FROM generate_series(2, 20) i});
	ok(given('small2'), 'given aside');
	go_on($hold);
	wait_sync($green, 's');
	is(in_between('small2'), 't', 'applied in between');
	is($green->safe_psql('postgres', q{SELECT string_agg(key::text, ' ') FROM bcmig.quarantine}), '["7"]', 'the row is in quarantine');
	is($green->safe_psql('postgres', q{SELECT count(*) FROM small2}), '18', 'the others are there');
	all_equal($blue, $green, 'a refused row aside', qw(big small));
	on_blue(q{DELETE FROM small2 WHERE id = 7});
	wait_sync($green, 's');
}

# --- the worker dies with both ---
{
	my $hold = stop_in_big(q{UPDATE big SET v = 'fourth'; DELETE FROM big WHERE id > 950});

	on_blue(q{UPDATE small SET v = 'after'});
	on_blue(q{UPDATE small2 SET v = 'after'});
	ok(given('small2'), 'given aside');
	kill_pid('TERM', $_) foreach pids($green, 'bcmig worker');
	ok(stopped('between_transactions'), 'the big window is repeated');
	go_on($hold);
	wait_sync($green, 's');
	all_equal($blue, $green, 'after the end of the worker', qw(big small small2));
}

done_testing();
