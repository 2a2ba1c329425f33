# Backlogs: changes that are many, and tables whose big windows take long to read.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', 'bcmig.max_workers = 2');

# windows of more than 100 changes are big
foreach my $t (qw(big1 big2 small other))
{
	$blue->safe_psql('postgres', qq{
		CREATE TABLE $t (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
		INSERT INTO $t SELECT i, 'start', 0 FROM generate_series(1, 400) i});
	track($blue, $t);
}
connect_blue($green, $blue, 's', '{"batch_rows": 10}');
$green->safe_psql('postgres', q{
	SELECT bcmig_add_table('s', 'big1', options => '{"priority": 1}'), bcmig_add_table('s', 'big2', options => '{"priority": 1}'), bcmig_add_table('s', 'small');
	SELECT bcmig_create_sync('t', 'blue'), bcmig_add_table('t', 'other');
	});
start_sync($green, $_) foreach qw(s t);
wait_sync($green, $_) foreach qw(s t);

sub on_blue { $blue->safe_psql('postgres', $_[0]) }

# --- many changes of few rows: what is looked at of them is not all ---
on_blue(q{
	DO $$ BEGIN
		FOR i IN 1 .. 150 LOOP UPDATE small SET v = 'hot ' || i WHERE id = 1; END LOOP;
		UPDATE small SET v = 'late' WHERE id BETWEEN 2 AND 30;
		DELETE FROM small WHERE id = 31;
		UPDATE big1 SET v = 'with it' WHERE id = 1;
	END $$});
wait_sync($green, 's');
all_equal($blue, $green, 'changes beyond those looked at', qw(big1 small));
on_blue(q{DO $$ BEGIN FOR i IN 1 .. 101 LOOP UPDATE small SET v = 'one more ' || i WHERE id = 2; END LOOP; END $$});
wait_sync($green, 's');
all_equal($blue, $green, 'one more than a small window has', 'small');

# Tables that are known to have big windows are changed, and cannot be read until ->quit of what is returned.
sub hold_up
{
	my ($v, @tables) = @_;
	my $writer = $blue->background_psql('postgres', on_error_die => 1);
	my @locks;

	on_blue("UPDATE $_ SET v = '$v' WHERE id <= 200") foreach @tables;
	wait_sync($green, 's');
	$writer->query_safe('BEGIN');
	foreach my $t (@tables)
	{
		$writer->query_safe("UPDATE $t SET v = '$v again' WHERE id = 300");

		# next in the queue: who comes later to read waits
		push @locks, $blue->background_psql('postgres', on_error_die => 1);
		$locks[-1]->query_until(qr/asks/, "\\echo asks\nBEGIN; LOCK TABLE $t IN ACCESS EXCLUSIVE MODE;\n");
		$blue->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = '$t'::regclass")
		  or die 'nobody asks for the lock';
	}
	$writer->query_safe('COMMIT');
	$writer->quit;
	held_up(1) or die 'no window waits';
	return @locks;
}

my $reads = q{SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'postgres_fdw'};

sub held_up { return $blue->poll_query_until('postgres', "SELECT ($reads) >= $_[0]") }

sub arrives
{
	my ($table, $id) = @_;
	on_blue("INSERT INTO $table VALUES ($id, 'live')");
	return $green->poll_query_until('postgres', "SELECT count(*) = 1 FROM $table WHERE id = $id");
}

# --- two big windows that cannot be read, two workers ---
{
	my @locks = hold_up('first', qw(big1 big2));

	ok(arrives('small', 1001), 'a small table of the same sync goes on');
	ok(arrives('other', 1001), 'and so does another sync');
	is($blue->safe_psql('postgres', $reads), '1', 'one big window at a time');
	$_->quit foreach @locks;
	wait_sync($green, $_) foreach qw(s t);
	all_equal($blue, $green, 'after two big windows', qw(big1 big2 small other));
}

# --- more workers, but not for this sync ---
{
	my @locks;

	$green->safe_psql('postgres', q{SELECT bcmig_alter_sync('s', '{"workers": 2}')});
	$green->safe_psql('postgres', q{ALTER SYSTEM SET bcmig.max_workers = 4});
	$green->reload;
	@locks = hold_up('second', qw(big1 big2));
	ok(arrives('small', 1002), 'a small table of the same sync goes on');
	is($blue->safe_psql('postgres', $reads), '1', 'one big window of the sync at a time');
	$_->quit foreach @locks;
	wait_sync($green, 's');
}

# --- a sync that has the one worker it may have ---
{
	my @locks;

	$green->safe_psql('postgres', q{SELECT bcmig_alter_sync('s', '{"workers": 1}')});
	@locks = hold_up('third', qw(big1 big2));
	ok(arrives('other', 1003), 'another sync goes on');
	$_->quit foreach @locks;
	wait_sync($green, $_) foreach qw(s t);
	all_equal($blue, $green, 'at the end', qw(big1 big2 small other));
}

# --- what has been read already is not read again, also where blue has no statistics of it ---
my $bare = new_blue('bare', 'autovacuum = off', "session_preload_libraries = 'auto_explain'", 'auto_explain.log_min_duration = 0');
$bare->safe_psql('postgres', q{CREATE TABLE entry (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0); INSERT INTO entry SELECT i, 'start' FROM generate_series(1, 100) i});
track($bare, 'entry');
$bare->safe_psql('postgres', q{DO $$ BEGIN FOR i IN 1 .. 1000 LOOP UPDATE entry SET v = 'change ' || i; END LOOP; END $$});
my $second = new_green('second');
connect_blue($second, $bare, 's');
$second->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'entry')});
start_sync($second, 's');
wait_sync($second, 's');
my $before = -s $bare->logfile;
$bare->safe_psql('postgres', q{UPDATE entry SET v = 'new' WHERE id <= 3});
wait_sync($second, 's');
is(compare_table($bare, $second, 'entry'), '', 'three new changes after 100,000 old ones');
my $log = substr(PostgreSQL::Test::Utils::slurp_file($bare->logfile), $before);
like($log, qr/Index Scan using \S+_xid_idx on "?c_\w+/, 'the new ones are looked for by the index');
unlike($log, qr/Seq Scan on "?c_\w+/, 'the old ones are not read');

done_testing();
