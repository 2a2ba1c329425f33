# What make chaos has found (test/chaos), each as a test of its own.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE tracked (id int PRIMARY KEY, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO tracked SELECT i, 'x' || i, 0 FROM generate_series(1, 300) i;
	});
track($blue, 'tracked');
connect_blue($green, $blue, 's');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'tracked')});
start_sync($green, 's');
wait_sync($green, 's');

sub sql_green
{
	return $green->safe_psql('postgres', $_[0]);
}

# ---------------------------------------------------------------------------
# A table whose deletes come with windows was swept (a resync ends with a sweep):
# what its windows proved no longer counted, and the lag of the sync grew while
# every row arrived, until the table had been quite idle for a moment.
# ---------------------------------------------------------------------------
sql_green(q{ALTER SYSTEM SET bcmig.debug_points = 'validate_compared'});
$green->reload;
my $hold = hold_point($green, 'validate_compared');
sql_green(q{SELECT bcmig_validate('s', 'tracked', 'full')});
ok(point_reached($green, 'validate_compared'), 'a long validation is at the table');
my $swept = sql_green('SELECT swept_at FROM bcmig.table_state');
sql_green(q{SELECT bcmig_sweep_deletes('s', 'tracked')});
ok($green->poll_query_until('postgres', "SELECT swept_at IS DISTINCT FROM nullif('$swept', '')::timestamptz FROM bcmig.table_state"), 'meanwhile it is swept');
$blue->safe_psql('postgres', q{UPDATE tracked SET t = 'after the sweep' WHERE id = 7});
my $at = $blue->safe_psql('postgres', 'SELECT clock_timestamp()');
ok($green->poll_query_until('postgres', q{SELECT t = 'after the sweep' FROM tracked WHERE id = 7}), 'rows arrive');
ok($green->poll_query_until('postgres', "SELECT coalesce(synced_through > '$at', false) FROM bcmig.sync_status"), 'and are proved to have arrived');
release_point($green, $hold);
wait_sync($green, 's');
all_equal($blue, $green, 'swept beside a validation', 'tracked');

done_testing();
