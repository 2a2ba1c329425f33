# Forced order: what lost data or hung in a first draft.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE k (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO k SELECT i, 'start', 0 FROM generate_series(1, 50) i;
	CREATE TABLE r (id varchar(20) PRIMARY KEY, v text, "$systemId" uuid NOT NULL DEFAULT gen_random_uuid(), u int UNIQUE DEFERRABLE, "timestamp" bigint NOT NULL DEFAULT 0, UNIQUE ("$systemId"));
	INSERT INTO r SELECT 'R' || i, 'start', gen_random_uuid(), i, 0 FROM generate_series(1, 50) i;
	CREATE TABLE base (no varchar(20) PRIMARY KEY, name text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE "base$ext" (no varchar(20) PRIMARY KEY, extra text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO base SELECT 'C' || i, 'n', 0 FROM generate_series(1, 20) i;
	INSERT INTO "base$ext" SELECT 'C' || i, 'e', 0 FROM generate_series(1, 20) i;
	});
track($blue, 'k');
track($blue, 'r', 'rowversion');
track($blue, 'base');
track($blue, '"base$ext"');
connect_blue($green, $blue, 's');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach ('k', 'r', 'base', 'base$ext');
my @tables = ('k', 'r', 'base', '"base$ext"');

sub on_blue { $blue->safe_psql('postgres', $_[0]) }
sub on_green { $green->safe_psql('postgres', $_[0]) }

sub stopped { return point_reached($green, $_[0]) }

sub go_on { release_point($green, $_[0]) }

# --- stamps are not monotone: T1 takes its id first and writes K last ---
{
	my $t1 = $blue->background_psql('postgres', on_error_die => 1);
	$t1->query_safe('BEGIN; UPDATE k SET v = \'t1 early\' WHERE id = 50');
	on_blue(q{UPDATE k SET v = 't2' WHERE id = 1; UPDATE r SET v = 't2' WHERE id = 'R1'});

	# the copy reads K with T2's stamp while T1 is open below it
	start_sync($green, 's');
	wait_streaming($green, 's');
	is(on_green(q{SELECT v FROM k WHERE id = 1}), 't2', 'the copy has the version of T2');
	ok($green->poll_query_until('postgres', q{SELECT blocked_by LIKE '%transaction of%' FROM bcmig.sync_status}), 'blocked_by names the open transaction');
	my $through = on_green('SELECT synced_through FROM bcmig.sync_status');
	on_blue(q{UPDATE k SET v = 'while t1 is open' WHERE id = 2});
	ok($green->poll_query_until('postgres', q{SELECT v = 'while t1 is open' FROM k WHERE id = 2}), 'what is committed arrives although the horizon stands still');
	is(on_green('SELECT synced_through FROM bcmig.sync_status'), $through, 'but synced_through stands still');

	$t1->query_safe(q{UPDATE k SET v = 't1 late' WHERE id = 1; UPDATE r SET v = 't1 late' WHERE id = 'R1'; COMMIT});
	$t1->quit;
	wait_sync($green, 's');
	is(on_green(q{SELECT v FROM k WHERE id = 1}), 't1 late', 'change tracking: a later write with an older stamp arrives');
	is(on_green(q{SELECT v FROM r WHERE id = 'R1'}), 't1 late', 'rowversion: a later write with an older stamp arrives');
	all_equal($blue, $green, 'non-monotone stamps', @tables);
}

# --- a prepared transaction holds the horizon too, once a later one has ended ---
on_blue(q{BEGIN; UPDATE k SET v = 'prepared' WHERE id = 3; PREPARE TRANSACTION 'left behind'});
on_blue(q{UPDATE k SET v = 'later' WHERE id = 2});
ok($green->poll_query_until('postgres', q{SELECT blocked_by LIKE '%prepared transaction ''left behind''%' FROM bcmig.sync_status}), 'blocked_by names the prepared transaction');
on_blue(q{COMMIT PREPARED 'left behind'});
wait_sync($green, 's');
is(on_green(q{SELECT v FROM k WHERE id = 3}), 'prepared', 'and it arrives');

# --- a window reads, then blue changes the same key before it is applied ---
{
	my $hold = stop_at($green, 'window_read');
	on_blue(q{UPDATE k SET v = 'read' WHERE id = 4});
	ok(stopped('window_read'), 'a window stands between reading and applying');
	on_blue(q{UPDATE k SET v = 'after' WHERE id = 4; DELETE FROM k WHERE id = 5; INSERT INTO k VALUES (1000, 'new', 0)});
	go_on($hold);
	wait_sync($green, 's');
	all_equal($blue, $green, 'changed between reading and applying', 'k');
}

# --- horizon beside an open remote snapshot: committed after the snapshot ---
{
	my $hold = stop_at($green, 'window_before_read');
	on_blue(q{UPDATE k SET v = 'one' WHERE id = 6});
	ok(stopped('window_before_read'), 'a window stands before reading');
	my $t = $blue->background_psql('postgres', on_error_die => 1);
	$t->query_safe(q{BEGIN; UPDATE k SET v = 'open' WHERE id = 7});
	on_blue(q{UPDATE k SET v = 'two' WHERE id = 6});
	go_on($hold);
	ok($green->poll_query_until('postgres', q{SELECT v = 'two' FROM k WHERE id = 6}), 'it reads what was committed');
	$t->query_safe('COMMIT');
	$t->quit;
	wait_sync($green, 's');
	all_equal($blue, $green, 'open beside the snapshot', 'k');
}

# --- sweep against insert: a key that comes back after the key list was read ---
{
	on_blue(q{DELETE FROM r WHERE id = 'R10'});
	my $hold = stop_at($green, 'sweep_collected');
	on_green(q{SELECT bcmig_sweep_deletes('s', 'r')});
	ok(stopped('sweep_collected'), 'a sweep has collected its candidates');
	on_blue(q{INSERT INTO r VALUES ('R10', 'back again', gen_random_uuid(), 10, 0); DELETE FROM r WHERE id = 'R11'});
	ok($green->poll_query_until('postgres', q{SELECT v = 'back again' FROM r WHERE id = 'R10'}), 'a window goes by meanwhile');
	go_on($hold);
	ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.request'), 'the sweep ends');
	is(on_green(q{SELECT v FROM r WHERE id = 'R10'}), 'back again', 'the row that came back is not deleted');
	wait_sync($green, 's');
	all_equal($blue, $green, 'sweep against insert', 'r');
}

# --- retry against delete: the row goes between listing and re-reading ---
{
	green_behind($green, q{ALTER TABLE k ADD CONSTRAINT short CHECK (length(v) < 20)});
	on_blue(q{UPDATE k SET v = repeat('x', 30) WHERE id IN (8, 9)});
	ok($green->poll_query_until('postgres', 'SELECT count(*) = 2 FROM bcmig.quarantine'), 'two rows in quarantine');
	green_behind($green, q{ALTER TABLE k DROP CONSTRAINT short});
	my $hold = stop_at($green, 'retry_before_read');
	on_green(q{SELECT bcmig_retry_quarantine('s')});
	ok(stopped('retry_before_read'), 'a retry is about to read');
	on_blue(q{DELETE FROM k WHERE id = 8; UPDATE k SET v = 'newer' WHERE id = 9});
	go_on($hold);
	ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.quarantine'), 'the quarantine is empty');
	wait_sync($green, 's');
	all_equal($blue, $green, 'retry against delete', 'k');
}

# --- unique values, renames ---
on_blue(q{BEGIN; SET CONSTRAINTS ALL DEFERRED; UPDATE r SET u = CASE id WHEN 'R20' THEN 21 ELSE 20 END WHERE id IN ('R20', 'R21'); COMMIT});
wait_sync($green, 's');
all_equal($blue, $green, 'two rows swapped a unique value', 'r');

on_blue(q{BEGIN; UPDATE r SET id = 'tmp' WHERE id = 'R30'; UPDATE r SET id = 'R30' WHERE id = 'R31'; UPDATE r SET id = 'R31' WHERE id = 'tmp'; COMMIT});
wait_sync($green, 's');
all_equal($blue, $green, 'A became B and B became A', 'r');

on_blue(q{UPDATE r SET id = 'r32' WHERE id = 'R32'; UPDATE base SET no = 'c1' WHERE no = 'C1'});
wait_sync($green, 's');
all_equal($blue, $green, 'renamed in case only', 'r', 'base');

on_blue(q{DELETE FROM k WHERE id = 12; INSERT INTO k VALUES (12, 'again', 0); DELETE FROM r WHERE id = 'R33'; INSERT INTO r VALUES ('R33', 'again', gen_random_uuid(), 33, 0)});
wait_sync($green, 's');
all_equal($blue, $green, 'deleted and inserted again', 'k', 'r');

# --- base and companion in two transactions ---
{
	my $t = $blue->background_psql('postgres', on_error_die => 1);
	$t->query_safe(q{BEGIN; UPDATE "base$ext" SET extra = 'two' WHERE no = 'C2'});
	on_blue(q{UPDATE base SET name = 'two' WHERE no = 'C2'});
	ok($green->poll_query_until('postgres', q{SELECT name = 'two' FROM base WHERE no = 'C2'}), 'the base row is there while its companion is open');
	$t->query_safe(q{UPDATE "base$ext" SET no = 'c1' WHERE no = 'C1'; COMMIT});
	$t->quit;
	wait_sync($green, 's');
	all_equal($blue, $green, 'base and companion', 'base', '"base$ext"');
}

is(on_green('SELECT count(*) FROM bcmig.quarantine'), '0', 'nothing in quarantine');
done_testing();
