# What is written on green comes back to a PostgreSQL blue: every operation,
# hostile values, unique values that swap, a crash between blue's commit and
# green's, what blue has changed meanwhile, its echo, and all of it continuously.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', "bcmig.debug_points = 'replay_between_commits,replay_read,window_read'");

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

allow_switch($blue);
on_blue(q{
	CREATE TABLE item (code varchar(20) PRIMARY KEY, name varchar(100) UNIQUE, amount numeric(38,20), day timestamp NOT NULL, flag smallint NOT NULL,
		note text, raw bytea, fixed char(5), f float8, at timestamptz, "odd ""name""" int, made int GENERATED ALWAYS AS (flag + 1) STORED, unmapped text DEFAULT 'kept', "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item (code, name, amount, day, flag, note, unmapped) SELECT 'K' || i, 'n' || i, i, '1753-01-01', 0, 'v' || i, 'own' || i FROM generate_series(1, 200) i;
	CREATE TABLE pair (a int, b varchar(20), v text, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (a, b));
	INSERT INTO pair SELECT i / 10, 'b' || i, 'v' || i FROM generate_series(1, 50) i;
	CREATE TABLE plain (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO plain SELECT i, 'v' || i FROM generate_series(1, 100) i;
	CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES plain, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE snap (id int PRIMARY KEY, v text);
	INSERT INTO snap SELECT i, 'v' || i FROM generate_series(1, 20) i;
	CREATE TABLE stamped (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO stamped SELECT i, 'v' || i FROM generate_series(1, 20) i;});
track($blue, $_) foreach qw(item pair child plain);
track($blue, 'stamped', 'rowversion');
connect_blue($green, $blue, 's', '{"sweep_interval": "1 s"}');
my @tables = qw(item pair child plain snap stamped);
on_green("SELECT bcmig_add_table('s', '$_')") foreach @tables;
on_green(q{
	SELECT bcmig_map_column('s', 'item', 'name', '{"rename": "label"}');
	SELECT bcmig_map_column('s', 'item', 'flag', '{"builtin": "boolean"}');
	SELECT bcmig_map_column('s', 'item', 'day', '{"builtin": "blank_date"}');});
start_sync($green, 's');
wait_sync($green, 's');
on_green(q{BEGIN; SELECT bcmig.arm_journal('s'); SELECT bcmig.lift_fence('s'); COMMIT;
	UPDATE bcmig.traffic SET green_percent = 100, switched_at = now(); SELECT bcmig_alter_sync('s', '{"reverse": true}')});

my $fenced = 'ARRAY[' . join(',', map { "'public.$_'" } @tables) . ']';
on_blue("SELECT bcmig_blue.raise_fence($fenced)");

# green as blue would have it, equal to blue
my $as_blue = q{SELECT format('%s|%s|%s|%s|%s|%s|%s|%s|%s|%s|%s', code, label, amount, coalesce(day, '1753-01-01'), flag::int, note, raw, fixed, f, at, "odd ""name""") FROM item ORDER BY 1};
my $of_blue = q{SELECT format('%s|%s|%s|%s|%s|%s|%s|%s|%s|%s|%s', code, name, amount, day, flag, note, raw, fixed, f, at, "odd ""name""") FROM item ORDER BY 1};

sub unsettled { return on_green(q{SELECT count(*) FROM bcmig.journal WHERE settled_at IS NULL}) }

sub replayed
{
	my ($what) = @_;
	ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.journal WHERE settled_at IS NULL}), "$what: all of it is brought to blue")
	  or diag(on_green(q{SELECT * FROM bcmig.reverse_state}));
	wait_sync($green, 's');
	is(on_blue($of_blue), on_green($as_blue), "$what: item is equal on both sides");
	all_equal($blue, $green, $what, grep { $_ ne 'item' } @tables);
	is(on_green(q{SELECT count(*) FROM bcmig.conflict}), '0', "$what: no conflict");
}

# --- every operation ---
on_green(q{
	UPDATE item SET label = 'changed', flag = true, day = '2026-02-03 04:05:06' WHERE code = 'K1';
	UPDATE item SET day = NULL, note = NULL WHERE code = 'K2';
	INSERT INTO item (code, label, amount, day, flag, note, fixed, f, "odd ""name""") VALUES ('N1', 'new', 0.00000000000000000001, NULL, false, '', 'ab', 0.1, 7);
	DELETE FROM item WHERE code = 'K3';
	UPDATE item SET code = 'R4' WHERE code = 'K4';
	BEGIN; DELETE FROM item WHERE code = 'K5'; INSERT INTO item (code, label, flag, note) VALUES ('K5', 'again', true, 'fresh'); COMMIT;
	UPDATE pair SET b = 'moved', v = NULL WHERE a = 1 AND b = 'b11';
	INSERT INTO snap (id, v) VALUES (100, 'new'); DELETE FROM snap WHERE id = 1; UPDATE snap SET v = '' WHERE id = 2; UPDATE snap SET id = 200 WHERE id = 3;
	UPDATE stamped SET v = 'x' WHERE id = 1; DELETE FROM stamped WHERE id = 2; INSERT INTO stamped (id, v) VALUES (300, 'n');
	INSERT INTO plain (id, v) VALUES (500, 'p'); INSERT INTO child (id, parent) VALUES (1, 500);});
on_green(qq{UPDATE plain SET v = 'times $_' WHERE id = 1}) foreach 1 .. 5;
replayed('every operation');
is(on_blue(q{SELECT string_agg(unmapped, ',' ORDER BY code) FROM item WHERE code IN ('K1', 'K2', 'N1')}), 'own1,own2,kept', 'columns green does not have are left alone');
is(on_green(q{SELECT string_agg(DISTINCT settled_as, ',') FROM bcmig.journal}), 'replayed', 'settled as replayed');

# --- hostile values, exact ---
on_green(q~
	INSERT INTO item (code, label, amount, flag, note, raw, fixed, f, at, "odd ""name""") VALUES
	('q''"\{}', E'it''s "x" \\ {a,b} \n\t$1', 99999999999999999.99999999999999999999, true, 'NULL', '\x00275c22ff', 'a', 'NaN', '2026-01-01 12:00+05', -1),
	('null', NULL, NULL, false, NULL, NULL, NULL, NULL, NULL, NULL),
	('', '', 0, false, '', '', '', '-0', 'infinity', 0),
	('unicode', U&'\00e4\4e2d\+01F600', -0.00000000000000000001, true, repeat('long ', 20000), decode(repeat('00ff', 50000), 'hex'), U&'\00e4', 1e-300, '0044-03-15 00:00 BC', 2147483647),
	('null text', 'null', 0, false, '{}', '\x', 'NULL', 'Infinity', NULL, NULL);
	UPDATE item SET note = '' WHERE code = 'K10'; UPDATE item SET note = NULL WHERE code = 'K11'; UPDATE item SET note = ' trailing ' WHERE code = 'K12';
	UPDATE item SET day = '9999-12-31 23:59:59.999999' WHERE code = 'K13';~);
replayed('hostile values');
is(on_blue(q{SELECT count(*) FROM item WHERE note = '' AND code = 'K10' OR note IS NULL AND code IN ('K11', 'null') OR name = '' AND code = '' OR name IS NULL AND code = 'null'}), '4', 'empty is not NULL');
is(on_blue(q{SELECT length(raw) || ' ' || length(note) FROM item WHERE code = 'unicode'}), '100000 100000', 'long values');

# --- unique values that move between rows: a chain, a ring; with what green does not know of the rows ---
on_green(q{
	UPDATE item SET label = 'tmp' WHERE code = 'K20'; UPDATE item SET label = 'n20' WHERE code = 'K21'; UPDATE item SET label = 'n21' WHERE code = 'K20';
	UPDATE item SET label = 'tmp' WHERE code = 'K30'; UPDATE item SET label = 'n30' WHERE code = 'K31'; UPDATE item SET label = 'n31' WHERE code = 'K32'; UPDATE item SET label = 'n32' WHERE code = 'K30';
	DELETE FROM item WHERE code = 'K40'; UPDATE item SET label = 'n40' WHERE code = 'K41'; INSERT INTO item (code, label, flag) VALUES ('N41', 'n41', false);});
replayed('unique values');
is(on_blue(q{SELECT string_agg(unmapped, ',' ORDER BY code) FROM item WHERE code IN ('K20', 'K21', 'K30', 'K31', 'K32')}), 'own20,own21,own30,own31,own32', 'and the rest of the rows');
on_green(q{SELECT bcmig_alter_table('s', 'item', '{"batch_rows": 1}');
	UPDATE item SET label = 'tmp' WHERE code = 'K50'; UPDATE item SET label = 'n50' WHERE code = 'K51'; UPDATE item SET label = 'n51' WHERE code = 'K50';});
replayed('a ring over two batches');
on_green(q{SELECT bcmig_alter_table('s', 'item', '{"batch_rows": null}')});

# --- again: nothing ---
my $stamps = q{SELECT md5(string_agg(code || "timestamp", ',' ORDER BY code)) FROM item};
my $before = on_blue($stamps);
on_green(q{UPDATE bcmig.journal SET settled_at = NULL, settled_as = NULL, produced_version = NULL});
replayed('sent again');
is(on_blue($stamps), $before, 'blue is not written to twice');

# --- a crash after blue's commit: blue has it, green does not know ---
sub held
{
	my ($point, $between) = @_;
	my $hold = hold_point($green, $point);
	$between->();
	return ($hold, point_reached($green, $point));
}
{
	my ($hold) = held('replay_between_commits', sub { on_green(q{UPDATE plain SET v = 'crash' WHERE id = 2; INSERT INTO plain (id, v) VALUES (600, 'crash'); DELETE FROM plain WHERE id = 3}) });
	is(on_blue(q{SELECT count(*) FROM plain WHERE v = 'crash' OR id = 3}), '2', 'blue has committed');
	is(unsettled(), '3', 'green has not');
	on_green(q{UPDATE plain SET v = 'later' WHERE id = 2; DELETE FROM plain WHERE id = 600; INSERT INTO plain (id, v) VALUES (3, 'later')});
	# windows come first, with what blue has committed
	on_green(q{SELECT bcmig_alter_sync('s', '{"reverse": false}')});
	$green->stop('immediate');
	$hold->quit;
	$green->start;
	wait_sync($green, 's');
	is(on_green(q{SELECT count(*) FROM bcmig.conflict}), '0', 'what comes back is no conflict');
	is(on_green(q{SELECT string_agg(id || v, ' ' ORDER BY id) FROM plain WHERE id IN (2, 3, 600)}), '2later 3later', 'nor written over what came later');
	is(unsettled(), '3', 'what blue has is settled, the rest is not');
	on_green(q{SELECT bcmig_alter_sync('s', '{"reverse": true}')});
}
replayed('after a crash');
is(on_blue(q{SELECT string_agg(id || v, ' ' ORDER BY id) FROM plain WHERE id IN (2, 3, 600)}), '2later 3later', 'with what came later');
is(on_blue(q{SELECT count(*) FROM bcmig_blue.replaying}), '0', 'no mark is left');

# --- the echo of our own write, and a later write that was not committed when it came ---
on_green(q{UPDATE item SET note = repeat('first ', 20000) WHERE code = 'K60'});
replayed('long value');
{
	my ($hold) = held('replay_between_commits', sub { on_green(q{UPDATE item SET note = repeat('second ', 20000) WHERE code = 'K60'}) });
	my $outside = $green->background_psql('postgres', on_error_die => 1);
	$outside->query_safe(q{BEGIN; UPDATE item SET note = repeat('third ', 20000) WHERE code = 'K60'});
	$hold->quit;
	ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'bcmig worker' AND wait_event_type = 'Lock' AND wait_event = 'transactionid'}),
		'the window with the echo waits for the row');
	is(on_blue(q{SELECT left(note, 7) FROM item WHERE code = 'K60'}), 'second ', 'blue has the one before');
	$outside->query_safe('COMMIT');
	$outside->quit;
}
replayed('echo');
is(on_blue(q{SELECT left(note, 6) FROM item WHERE code = 'K60'}), 'third ', 'the later write is not lost');

# --- what a trigger of blue makes of it comes back ---
on_blue(q{CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := upper(NEW.v); RETURN NEW; END'; CREATE TRIGGER shout BEFORE UPDATE ON plain FOR EACH ROW EXECUTE FUNCTION shout()});
{
	my ($hold) = held('replay_between_commits', sub { on_green(q{UPDATE plain SET v = 'quiet' WHERE id IN (5, 6)}) });
	on_green(q{UPDATE plain SET v = 'quieter' WHERE id = 6});
	$hold->quit;
}
replayed('trigger of blue');
is(on_green(q{SELECT string_agg(v, ' ' ORDER BY id) FROM plain WHERE id IN (5, 6)}), 'QUIET QUIETER', 'and green has it too');
on_blue('DROP TRIGGER shout ON plain');

on_blue("SELECT bcmig_blue.lift_fence($fenced)");

# --- blue has changed meanwhile: nothing is overwritten ---
on_blue(q{INSERT INTO plain SELECT i, 'base' FROM generate_series(1001, 1010) i; INSERT INTO snap SELECT i, 'base' FROM generate_series(1001, 1002) i});
wait_sync($green, 's');
$green->poll_query_until('postgres', 'SELECT count(*) = 2 FROM snap WHERE id > 1000') or die 'not compared';
sub meanwhile
{
	my ($on_green, $on_blue) = @_;
	my ($hold) = held('replay_read', sub { on_green($on_green) });
	on_blue($on_blue);
	$hold->quit;
}
meanwhile(q{BEGIN; UPDATE plain SET v = 'green' WHERE id IN (1001, 1003, 1004, 1005, 1010); DELETE FROM plain WHERE id = 1002; INSERT INTO plain (id, v) VALUES (2000, 'green'), (2001, 'same'); COMMIT},
	q{BEGIN; UPDATE plain SET v = 'blue' WHERE id IN (1001, 1002, 1004, 1005); DELETE FROM plain WHERE id = 1003; INSERT INTO plain VALUES (2000, 'blue'), (2001, 'same'); COMMIT});
my $records = q{SELECT string_agg(concat_ws(' ', key->>0, blue_operation, green_operation, coalesce(blue->>'v', '-'), coalesce(green->>'v', '-'), policy, coalesce(decision, 'waits')), E'\n' ORDER BY key->>0, conflict_id) FROM bcmig.conflict};
my $waiting = "1001 update update blue green manual waits\n1002 update delete blue - manual waits\n1003 delete update - green manual waits\n"
  . "1004 update update blue green manual waits\n1005 update update blue green manual waits\n2000 insert insert blue green manual waits";
ok($green->poll_query_until('postgres', q{SELECT count(*) = 6 FROM bcmig.conflict}), 'conflicts are recorded');
is(on_green($records), $waiting, 'each once, with both rows');
wait_sync($green, 's');
is(on_green($records), $waiting, 'the window with the same change makes no other');
is(on_blue(q{SELECT string_agg(id || v, ' ' ORDER BY id) FROM plain WHERE id > 1000}), '1001blue 1002blue 1004blue 1005blue 1006base 1007base 1008base 1009base 1010green 2000blue 2001same', 'blue keeps what it has; the rest is brought');
is(on_green(q{SELECT string_agg(id || v, ' ' ORDER BY id) FROM plain WHERE id > 1000}), '1001green 1003green 1004green 1005green 1006base 1007base 1008base 1009base 1010green 2000green 2001same', 'so does green');
is(on_green(q{SELECT count(*) FROM bcmig.journal WHERE settled_at IS NULL}), '6', 'their entries wait');

# resolved: for green, for blue; for green, but blue has changed once more
sub id_of { return on_green("SELECT max(conflict_id) FROM bcmig.conflict WHERE key = '[\"$_[0]\"]'") }
on_green(q{SELECT bcmig_resolve_conflict(} . id_of($_) . q{, 'target')}) foreach 1001, 1002, 1003, 2000;
on_green(q{SELECT bcmig_resolve_conflict(} . id_of(1004) . q{, 'source')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.journal WHERE settled_at IS NULL}), 'resolved ones are brought to blue');
is(on_blue(q{SELECT string_agg(id || v, ' ' ORDER BY id) FROM plain WHERE id IN (1001, 1002, 1003, 1004, 2000)}), '1001green 1003green 1004blue 2000green', 'green has won, or blue');
meanwhile(q{SELECT bcmig_resolve_conflict(} . id_of(1005) . q{, 'target')}, q{UPDATE plain SET v = 'blue again' WHERE id = 1005});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.conflict WHERE decision IS NULL}), 'another change of blue is another conflict');
is(on_blue(q{SELECT v FROM plain WHERE id = 1005}), 'blue again', 'not overwritten: nobody has seen it');
is(on_green($records . q{ WHERE key = '["1005"]'}), "1005 update update blue green manual target\n1005 update update blue again green manual waits", 'and recorded');
on_green(q{SELECT bcmig_resolve_conflict(} . id_of(1005) . q{, 'target')});

# a table without versions: by its rows
meanwhile(q{UPDATE snap SET v = 'green' WHERE id IN (1001, 1002)}, q{UPDATE snap SET v = 'blue' WHERE id = 1001});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.conflict WHERE key = '["1001"]' AND decision IS NULL}), 'found without a version');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.journal WHERE settled_at IS NULL}), 'the other one is brought');
is(on_blue(q{SELECT string_agg(id || v, ' ' ORDER BY id) FROM snap WHERE id > 1000}), '1001blue 1002green', 'not overwritten');
on_green(q{SELECT bcmig_resolve_conflict(} . id_of(1001) . q{, 'target')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.journal WHERE settled_at IS NULL}), 'all is settled');
on_green(q{DELETE FROM bcmig.conflict});
replayed('after conflicts');

# --- a row blue refuses holds back itself only ---
on_blue(q{ALTER TABLE plain ADD CONSTRAINT c CHECK (v <> 'bad')});
on_green(q{UPDATE plain SET v = 'bad' WHERE id = 7; UPDATE plain SET v = 'good' WHERE id = 8});
ok($green->poll_query_until('postgres', q{SELECT problem LIKE 'blue refuses ["7"] of public.plain: 23514: %' FROM bcmig.reverse_state}), 'a refused row is told');
is(on_blue(q{SELECT string_agg(v, ' ' ORDER BY id) FROM plain WHERE id IN (7, 8)}), 'v7 good', 'the other is brought');
is(unsettled(), '1', 'it stays to be done');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.alert WHERE name = 'unreplayed' AND cleared_at IS NULL AND detail LIKE '%blue refuses%'}), 'there is an alert');
on_blue(q{ALTER TABLE plain DROP CONSTRAINT c});
replayed('no longer refused');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.alert WHERE name = 'unreplayed' AND cleared_at IS NOT NULL}), 'it is cleared');
is(on_green(q{SELECT unreplayed || ' ' || conflicts || ' ' || (replayed > 50) || ' ' || (replayed_at IS NOT NULL) || coalesce(problem, '') FROM bcmig.journal_status}), '0 0 true true', 'journal_status has it all');
is(on_green(q{SELECT problem IS NULL AND failing_since IS NULL FROM bcmig.reverse_state}), 't', 'and nothing is wrong any more');

# --- under writers ---
my @writers = map {
	my $w = $_;
	my $sql = qq{DO \$\$ DECLARE k int; BEGIN FOR i IN 1..1200 LOOP
		k := 1 + (random() * 19)::int;
		IF i % 5 = 0 THEN INSERT INTO plain (id, v) VALUES ($w * 100000 + i, 'w$w');
		ELSIF i % 7 = 0 THEN DELETE FROM plain WHERE id = $w * 100000 + i - 7;
		ELSIF i % 11 = 0 THEN UPDATE plain SET id = id + 50000 WHERE id = $w * 100000 + i - 1;
		ELSIF i % 3 = 0 THEN UPDATE item SET amount = amount + 1, note = '$w ' || i WHERE code = 'K' || (100 + k);
		ELSE UPDATE plain SET v = '$w ' || i WHERE id = k; END IF;
		COMMIT; END LOOP; END \$\$};
	my ($out, $err) = ('', '');
	IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $green->connstr('postgres'), '-c', $sql ], '<', '/dev/null', '>', \$out, '2>', \$err);
} 1 .. 3;
ok(IPC::Run::finish($_), 'a writer is done') foreach @writers;
replayed('under writers');

done_testing();
