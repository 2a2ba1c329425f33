# Rows written straight into plain tables, beside those that need a statement.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE plain (id int PRIMARY KEY, v text, n numeric(38,20), u int UNIQUE, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO plain SELECT i, 'start', i, i, 0 FROM generate_series(1, 100) i;
	CREATE TABLE wide (a varchar(20), b int, long text, v int, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (b, a));
	INSERT INTO wide SELECT 'A' || i, i, (SELECT string_agg(md5((i * 1000 + k)::text), '') FROM generate_series(1, 300) k), 0, 0 FROM generate_series(1, 20) i;
	CREATE TABLE seen (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO seen SELECT i, 'start', 0 FROM generate_series(1, 10) i;
	});
track($blue, $_) foreach qw(plain wide seen);
connect_blue($green, $blue, 's');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach qw(plain wide seen);
start_sync($green, 's');
wait_sync($green, 's');
my @tables = qw(plain wide seen);

sub on_blue { $blue->safe_psql('postgres', $_[0]) }
sub on_green { $green->safe_psql('postgres', $_[0]) }

# --- all kinds of change in one window, a unique value that goes round ---
on_blue(q{
	BEGIN;
	UPDATE plain SET u = NULL WHERE id <= 3;
	UPDATE plain SET u = id % 3 + 1, v = '' WHERE id <= 3;
	DELETE FROM plain WHERE id BETWEEN 50 AND 60;
	INSERT INTO plain SELECT i, NULL, 0.5, i FROM generate_series(101, 120) i;
	INSERT INTO plain VALUES (55, 'again', 55.50, 55);
	COMMIT});
wait_sync($green, 's');
all_equal($blue, $green, 'mixed changes', @tables);

# --- a long value that did not change is not written again ---
my $toast = on_green(q{SELECT reltoastrelid::regclass FROM pg_class WHERE oid = 'wide'::regclass});
my $chunks = on_green("SELECT max(chunk_id) FROM $toast");
on_blue(q{UPDATE wide SET v = v + 1});
wait_sync($green, 's');
is(on_green("SELECT max(chunk_id) FROM $toast"), $chunks, 'long values stay where they are');
on_blue(q{UPDATE wide SET long = long || 'x' WHERE b = 3});
wait_sync($green, 's');
isnt(on_green("SELECT max(chunk_id) FROM $toast"), $chunks, 'unless they have changed');
all_equal($blue, $green, 'long values', @tables);

# --- a column of green's own stays as it is ---
green_behind($green, q{ALTER TABLE plain ADD COLUMN own text});
green_behind($green, q{UPDATE plain SET own = 'mine' WHERE id = 20});
on_blue(q{UPDATE plain SET v = 'theirs' WHERE id IN (20, 21); INSERT INTO plain VALUES (200, 'new', 1, 200)});
wait_sync($green, 's');
is(on_green(q{SELECT string_agg(id || ' ' || v || ' ' || coalesce(own, '-'), ', ' ORDER BY id) FROM plain WHERE id IN (20, 21, 200)}),
	'20 theirs mine, 21 theirs -, 200 new -', 'a column blue does not have is kept');
green_behind($green, q{ALTER TABLE plain DROP COLUMN own});

# --- somebody else is writing the row ---
{
	my $other = $green->background_psql('postgres', on_error_die => 1);

	$other->query_safe(q{SET ROLE bcmig_maintenance; BEGIN; UPDATE plain SET v = 'other' WHERE id = 30; DELETE FROM plain WHERE id = 31; INSERT INTO plain VALUES (0, 300, 'other', 1, 300)});
	on_blue(q{BEGIN; UPDATE plain SET v = 'blue' WHERE id IN (29, 30, 31, 32); INSERT INTO plain VALUES (300, 'blue', 3, 300); COMMIT});
	ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'transactionid' AND NOT granted}), 'the window waits for the other');
	$other->query_safe('COMMIT');
	$other->quit;
	wait_sync($green, 's');
	all_equal($blue, $green, 'a writer on green', @tables);
}

# --- what cannot be written straight ---
green_behind($green, q{
	CREATE TABLE log (id int, v text);
	CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.log VALUES (NEW.id, NEW.v); RETURN NEW; END';
	CREATE TRIGGER note AFTER INSERT OR UPDATE ON seen FOR EACH ROW EXECUTE FUNCTION note()});
on_blue(q{UPDATE seen SET v = 'quiet' WHERE id = 1});
wait_sync($green, 's');
is(on_green('SELECT count(*) FROM log'), '0', 'an ordinary trigger does not fire');
green_behind($green, 'ALTER TABLE seen ENABLE ALWAYS TRIGGER note');
on_blue(q{UPDATE seen SET v = 'loud' WHERE id = 2; INSERT INTO seen VALUES (11, 'loud')});
wait_sync($green, 's');
is(on_green(q{SELECT string_agg(id || ' ' || v, ', ' ORDER BY id) FROM log}), '2 loud, 11 loud', 'one that is always to fire does');
green_behind($green, q{ALTER TABLE seen DISABLE TRIGGER note; CREATE RULE keep AS ON DELETE TO seen DO INSTEAD NOTHING; ALTER TABLE seen ENABLE ALWAYS RULE keep});
on_blue('DELETE FROM seen WHERE id = 5');
wait_sync($green, 's');
is(on_green('SELECT count(*) FROM seen WHERE id = 5'), '1', 'a rule that is always to hold does');
green_behind($green, 'DROP RULE keep ON seen; DELETE FROM seen WHERE id = 5');
all_equal($blue, $green, 'in the end', @tables);

# --- constraints of green ---
green_behind($green, q{ALTER TABLE plain ADD CONSTRAINT short CHECK (length(v) < 10)});
on_blue(q{BEGIN; UPDATE plain SET v = 'much too long for it' WHERE id = 40; UPDATE plain SET v = 'fits' WHERE id IN (39, 41); COMMIT});
wait_sync($green, 's');
is(on_green(q{SELECT string_agg(id || ' ' || v, ', ' ORDER BY id) FROM plain WHERE id BETWEEN 39 AND 41}), '39 fits, 40 start, 41 fits', 'a refused row is left out alone');
is(on_green(q{SELECT key, sqlstate FROM bcmig.quarantine}), '["40"]|23514', 'and is in quarantine');

done_testing();
