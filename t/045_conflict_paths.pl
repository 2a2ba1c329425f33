# Conflicts on every way rows come in: key sweep, compare of a whole table,
# renames, repair, companions of one window, a unique key an outside row holds,
# long values, keys of several columns and types.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', "timezone = 'Asia/Kolkata'");

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

on_blue(q{
	CREATE TABLE swept (k int PRIMARY KEY, v text, "$systemId" uuid NOT NULL DEFAULT gen_random_uuid(), "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO swept (k, v) SELECT i, 'base' FROM generate_series(1, 20) i;
	CREATE TABLE compared (k int PRIMARY KEY, v text);
	INSERT INTO compared SELECT i, 'base' FROM generate_series(1, 20) i;
	CREATE TABLE uniq (k int PRIMARY KEY, v text UNIQUE, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO uniq SELECT i, 'v' || i FROM generate_series(1, 20) i;
	CREATE TABLE zoned (k timestamptz PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO zoned VALUES ('2026-01-01 12:00+00', 'base', 0);
	CREATE TABLE odd (d timestamp, n numeric(38,20), t varchar(20), v text, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (d, n, t));
	INSERT INTO odd VALUES ('1753-01-01', 1.5, '', 'base', 0), ('1753-01-01', 1.5, 'it''s "x" \y', 'base', 0), ('2026-01-01 12:00:00.003', -0.00000000000000000001, 'long', repeat('a', 100000), 0);});
track($blue, 'swept', 'rowversion');
track($blue, $_) foreach qw(uniq zoned odd);
connect_blue($green, $blue, 's', '{"sweep_interval": "10min"}');
on_green("SELECT bcmig_add_table('s', '$_')") foreach qw(swept compared uniq zoned odd);
on_green('ALTER TABLE odd ADD green_only text');
start_sync($green, 's');
wait_sync($green, 's');

on_green(q{BEGIN; SELECT bcmig.arm_journal('s'); SELECT bcmig.lift_fence('s'); COMMIT});

# records of a table and its unsettled entries: "key blue/green/decision ...|n"
sub conflicts
{
	my ($table) = @_;
	return on_green(qq{SELECT coalesce((SELECT string_agg(format('%s %s/%s/%s', key->>0, blue_operation, green_operation, coalesce(decision, 'waits')), ' ' ORDER BY conflict_id)
			FROM bcmig.conflict JOIN bcmig.sync_table t USING (table_id) WHERE t.target_table = '$table'), 'none') || '|' ||
		(SELECT count(*) FROM bcmig.journal JOIN bcmig.sync_table t USING (table_id) WHERE t.target_table = '$table' AND settled_at IS NULL)});
}
sub rows { return on_green("SELECT string_agg(k || ' ' || v, ' ' ORDER BY k) FROM $_[0] WHERE $_[1]") }

sub sweep
{
	on_green("SELECT bcmig_sweep_deletes('s', '$_[0]')");
	$green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.request') or die 'no sweep';
}

# --- key sweep: outside rows stay, a row gone on blue is a conflict ---
on_green(q{SELECT bcmig_alter_table('s', 'swept', '{"conflict": "manual"}'); INSERT INTO swept (k, v, "$systemId") VALUES (100, 'green', gen_random_uuid());
	UPDATE swept SET v = 'green' WHERE k IN (1, 2)});
on_blue('DELETE FROM swept WHERE k IN (2, 3)');
sweep('swept');
is(rows('swept', 'k IN (1, 2, 3, 100)'), '1 green 2 green 100 green', 'swept: outside writes stay, what is gone from blue goes');
is(conflicts('swept'), '2 delete/update/waits|3', 'one is gone on both sides of an outside write');
sweep('swept');
is(conflicts('swept'), '2 delete/update/waits|3', 'once');

# a mass of outside rows is not taken for a mass delete
on_green(q{INSERT INTO swept (k, v, "$systemId") SELECT i, 'many', gen_random_uuid() FROM generate_series(1001, 1300) i});
sweep('swept');
is(state_of($green, 'public.swept') . ' ' . on_green('SELECT count(*) FROM swept WHERE k > 1000'), 'streaming 300', 'outside rows do not trip the breaker');

# --- blue renames a row whose old key was written to: the old row stays until it is decided ---
on_green(q{UPDATE swept SET v = 'green' WHERE k = 5});
on_blue('UPDATE swept SET k = 50 WHERE k = 5; UPDATE swept SET k = 60 WHERE k = 6');
wait_sync($green, 's');
is(rows('swept', 'k IN (5, 50, 6, 60)'), '5 green 50 base 60 base', 'renamed: the outside write stays under the old key');
sweep('swept');
is(conflicts('swept'), '2 delete/update/waits 5 delete/update/waits|304', 'a sweep finds the old key gone from blue');
on_green(q{SELECT bcmig_resolve_conflict(conflict_id, 'source') FROM bcmig.conflict WHERE decision IS NULL});
$green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.request') or die 'not resolved';
is(rows('swept', 'k IN (2, 5, 50)'), '50 base', 'both resolved for blue by one job each');

# --- compare of a table without changes to read ---
on_green(q{SELECT bcmig_alter_table('s', 'compared', '{"conflict": "manual"}');
	INSERT INTO compared (k, v) VALUES (100, 'green'); UPDATE compared SET v = 'green' WHERE k IN (1, 2, 3, 4); DELETE FROM compared WHERE k = 5});
on_blue(q{UPDATE compared SET v = 'blue' WHERE k IN (2, 10); DELETE FROM compared WHERE k IN (3, 11); UPDATE compared SET v = 'green' WHERE k = 4});
sweep('compared');
is(rows('compared', 'k IN (1, 2, 3, 4, 5, 10, 11, 100)'), '1 green 2 green 3 green 4 green 10 blue 100 green', 'compared: outside writes stay, what blue has changed alone is applied');
is(conflicts('compared'), '3 delete/update/waits 2 update/update/waits|5', 'what both have changed waits, what is equal is settled');
is(state_of($green, 'public.compared'), 'streaming', 'the table streams');
on_green(q{SELECT bcmig_alter_table('s', 'compared', '{"conflict": "source_wins"}'); UPDATE compared SET v = 'green 2' WHERE k = 12});
on_blue(q{UPDATE compared SET v = 'blue' WHERE k = 12});
sweep('compared');
is(rows('compared', 'k IN (1, 2, 12, 100)'), '1 green 2 green 12 blue 100 green', 'source_wins: of what both have changed, and does not wait already');

# --- repair reads keys from blue: outside writes are no damage ---
my $run = on_green(q{SELECT bcmig_validate('s', 'compared', 'full')});
$green->poll_query_until('postgres', "SELECT state <> 'running' FROM bcmig.validation_run WHERE run_id = $run") or die 'validation does not end';
is(on_green("SELECT string_agg(key->>0, ' ' ORDER BY (key->>0)::int) FROM bcmig.validation_difference WHERE run_id = $run"), '1 2 3 5 100', 'a validation shows them');
on_green("SELECT bcmig_repair($run)");
$green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.request') or die 'no repair';
is(rows('compared', 'k IN (1, 2, 3, 5, 100)'), '1 green 2 green 3 green 100 green', 'a repair leaves them');

# --- a unique value an outside row holds ---
on_green(q{SELECT bcmig_alter_table('s', 'uniq', '{"conflict": "source_wins"}'); INSERT INTO uniq (k, v) VALUES (100, 'taken'); UPDATE uniq SET v = 'swapped' WHERE k = 1});
on_blue(q{INSERT INTO uniq VALUES (30, 'taken'), (31, 'free'); UPDATE uniq SET v = 'swapped' WHERE k = 2});
$green->poll_query_until('postgres', 'SELECT count(*) = 2 FROM bcmig.quarantine') or die 'not in quarantine';
wait_sync($green, 's');
is(rows('uniq', 'k IN (1, 2, 30, 31, 100)') . ' ' . state_of($green, 'public.uniq'), '1 swapped 2 v2 31 free 100 taken streaming', 'unique: rows an outside row stands in the way of are in quarantine, others go on');
on_blue(q{UPDATE uniq SET v = 'blue' WHERE k = 1});
wait_sync($green, 's');
is(rows('uniq', 'k IN (1, 2)'), '1 blue 2 v2', 'the outside write is overwritten');
on_green(q{DELETE FROM uniq WHERE k = 100; SELECT bcmig_retry_quarantine('s')});
$green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.quarantine') or die 'not retried';
is(rows('uniq', 'k IN (1, 2, 30, 31, 100)'), '1 blue 2 swapped 30 taken 31 free', 'nothing stands in the way: all are applied');
is(conflicts('uniq'), '1 update/update/source|2', 'the record');

# --- keys of several types, quotes and blanks; a value too long for an image; a column of green's own ---
on_green(q{SELECT bcmig_alter_table('s', 'odd', '{"conflict": "target_wins"}');
	UPDATE odd SET v = 'green' WHERE t <> 'long'; UPDATE odd SET v = repeat('b', 100000), green_only = 'x' WHERE t = 'long'});
on_blue(q{UPDATE odd SET v = 'blue' WHERE t <> 'long'; UPDATE odd SET v = repeat('b', 100000) WHERE t = 'long'});
wait_sync($green, 's');
is(on_green(q{SELECT string_agg(v, ' ' ORDER BY t) FROM odd WHERE t <> 'long'}), 'green green', 'odd keys are found in the journal');
is(on_green(q{SELECT settled_as FROM bcmig.journal WHERE new_key->>2 = 'long'}), 'equal', 'long values are compared as they are');
on_green(q{UPDATE odd SET v = repeat('c', 100000) WHERE t = 'long'});
on_blue(q{UPDATE odd SET v = repeat('d', 100000) WHERE t = 'long'});
wait_sync($green, 's');
on_blue(q{UPDATE odd SET v = repeat('e', 100000) WHERE t = 'long'});
wait_sync($green, 's');
is(on_green(q{SELECT left(v, 1) || green_only FROM odd WHERE t = 'long'}), 'cx', 'green wins');
is(on_green(q{SELECT count(*) || ' ' || max(blue->>'v') FROM bcmig.conflict WHERE key->>2 = 'long'}), '2 {"characters": 100000}', 'two long values of one length are two');

# blue's row read again, unchanged: known by its version where the journal only describes the image, else by that
on_green(q{UPDATE bcmig.journal SET settled_at = now() WHERE new_key->>2 = 'long' AND settled_at IS NULL; SELECT bcmig_resync_table('s', 'odd')});
wait_sync($green, 's');
foreach my $base ([ 'described', '' ], [ 'whole', q{UPDATE bcmig.journal SET old_image = jsonb_set(old_image, '{v}', to_jsonb(repeat('e', 100000))), base_version = NULL WHERE new_key->>2 = 'long' AND settled_at IS NULL} ])
{
	on_green(qq{UPDATE odd SET v = repeat('g', 100000) WHERE t = 'long'; $base->[1]; SELECT bcmig_resync_table('s', 'odd')});
	wait_sync($green, 's');
	is(on_green(q{SELECT left(v, 1) FROM odd WHERE t = 'long'}) . ' ' . on_green(q{SELECT count(*) FROM bcmig.conflict WHERE key->>2 = 'long'}), 'g 2', "unchanged on blue: $base->[0]");
	on_green(q{UPDATE bcmig.journal SET settled_at = now() WHERE new_key->>2 = 'long' AND settled_at IS NULL; SELECT bcmig_resync_table('s', 'odd')});
	wait_sync($green, 's');
}

# --- a key that is spelled by the time zone ---
on_green(q{SET timezone = 'America/New_York'; SET datestyle = 'German'; UPDATE zoned SET v = 'green'});
on_blue(q{UPDATE zoned SET v = 'blue'});
wait_sync($green, 's');
is(conflicts('zoned') . on_green(q{SELECT v FROM zoned}), '2026-01-01 12:00:00+00 update/update/source|0blue', 'a key is found whatever the settings of the session that wrote');

is(on_green(q{SELECT string_agg(DISTINCT state, ' ') FROM bcmig.table_status}), 'streaming', 'every table streams');
done_testing();
