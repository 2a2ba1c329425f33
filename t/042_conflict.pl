# A change of blue meets an outside write on green: every pairing of insert,
# update and delete under every policy, with the row, the record and the journal
# of each; waiting conflicts and their resolution.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

sub refused
{
	my ($code, $sql, $what, $detail) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	like($err, qr/ERROR:  $code:.*HINT:/s, $what);
	like($err, $detail, "$what: says why") if defined $detail;
}

# one table a policy, the same rows in each
my @policies = qw(source_wins target_wins latest_wins manual function);
my $columns = 'k varchar(20) PRIMARY KEY, v text, "$systemModifiedAt" timestamp(3), "timestamp" bigint NOT NULL DEFAULT 0';
my @keys = qw(uu uu_same uu_green uu_unset ud du dd iu uu_rename far1 far2);
foreach my $p (@policies)
{
	on_blue(qq{CREATE TABLE $p ($columns); INSERT INTO $p SELECT k, 'base', '2026-01-01' FROM unnest(ARRAY['} . join("','", @keys) . q{']) k});
	track($blue, $p);
}
on_blue(q{CREATE TABLE plain (k varchar(20) PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0)});
track($blue, 'plain');
connect_blue($green, $blue, 's');
on_green("SELECT bcmig_add_table('s', '$_')") foreach (@policies, 'plain');

# --- policies that cannot work ---
refused('BM003', q{SELECT bcmig_alter_table('s', 'plain', '{"conflict": "latest_wins"}')}, 'latest_wins without $systemModifiedAt', qr/public\.plain has none/);
refused('BM003', q{SELECT bcmig_alter_sync('s', '{"conflict": "latest_wins"}')}, 'for a sync with such a table', qr/public\.plain has none/);
refused('BM003', q{SELECT bcmig_alter_table('s', 'plain', '{"conflict": "both_win"}')}, 'a policy there is not');
refused('BM003', q{SELECT bcmig_alter_table('s', 'function', '{"conflict": "function"}')}, 'function without a function');
refused('BM003', q{SELECT bcmig_alter_table('s', 'function', '{"conflict": "function", "conflict_function": "public.nobody(public.function)"}')}, 'a function there is not', qr/no function public\.nobody/);
on_green(q{CREATE FUNCTION public.two(public."function", public."function") RETURNS public."function" LANGUAGE sql AS 'SELECT $1';
	CREATE FUNCTION public.wrong(public."function", public."function", public.plain) RETURNS public."function" LANGUAGE sql AS 'SELECT $1'});
refused('BM003', qq{SELECT bcmig_alter_table('s', 'function', '{"conflict": "function", "conflict_function": "public.$_"}')}, "a function of other arguments")
  foreach ('two(public.\"function\",public.\"function\")', 'wrong(public.\"function\",public.\"function\",public.plain)');
on_green(q{UPDATE bcmig.sync_table SET options = '{"conflict": "latest_wins"}' WHERE target_table = 'plain'});
is(on_green(q{SELECT check_name || ' ' || value FROM (SELECT check_name, coalesce(value, '') AS value FROM bcmig_preflight('s') WHERE status = 'fail') x}), 'conflict policy public.plain', 'preflight finds one that cannot work');
on_green(q{SELECT bcmig_alter_table('s', 'plain', '{"conflict": null}')});

on_green(q{
	CREATE FUNCTION public.merge(old public."function", blue public."function", green public."function") RETURNS public."function" LANGUAGE plpgsql AS $$
	DECLARE k text := coalesce(blue.k, green.k); r public."function" := green;
	BEGIN
		IF k = 'raise' THEN RAISE EXCEPTION 'no idea';
		ELSIF k = 'refused' THEN r.v := 'refused'; RETURN r;
		ELSIF k = 'sleeps' THEN PERFORM pg_sleep(600);
		ELSIF k = 'null' THEN RETURN NULL;
		ELSIF k = 'key' THEN r.k := 'other'; RETURN r;
		ELSIF k = 'writes' THEN DELETE FROM public.plain; RETURN blue;
		ELSIF k = 'blue' THEN RETURN blue;
		ELSIF k = 'green' THEN RETURN green;
		END IF;
		r.k := k;
		r.v := concat_ws('+', coalesce(old.v, 'none'), coalesce(blue.v, 'none'), coalesce(green.v, 'none'));
		RETURN r;
	END $$;});
on_green(q{SELECT bcmig_alter_table('s', 'function', '{"conflict": "function", "conflict_function": "public.merge(public.\"function\",public.\"function\",public.\"function\")"}')});
on_green(q{CREATE FUNCTION public.allowed(text) RETURNS boolean LANGUAGE sql AS $$SELECT true$$; ALTER TABLE plain ADD CHECK (public.allowed(v)); ALTER TABLE "function" ADD CONSTRAINT c CHECK (v <> 'refused')});
on_green("SELECT bcmig_alter_table('s', '$_', '{\"conflict\": \"$_\"}')") foreach grep { $_ ne 'function' } @policies;
start_sync($green, 's');
wait_sync($green, 's');

on_green(q{BEGIN; SELECT bcmig.arm_journal('s'); SELECT bcmig.lift_fence('s'); COMMIT});

# Row, records and journal of a key: "v|blue/green/decision ...|settled ..."
sub cell
{
	my ($table, $key) = @_;
	return on_green(qq{SELECT coalesce((SELECT v FROM public.$table WHERE k = '$key'), 'gone') || '|' ||
		coalesce((SELECT string_agg(blue_operation || '/' || green_operation || '/' || coalesce(decision, 'waits'), ' ' ORDER BY conflict_id)
			FROM bcmig.conflict JOIN bcmig.sync_table t USING (table_id) WHERE t.target_table = '$table' AND key = '["$key"]'), 'none') || '|' ||
		coalesce((SELECT string_agg(coalesce(settled_as, 'unsettled'), ' ' ORDER BY journal_id)
			FROM bcmig.journal JOIN bcmig.sync_table t USING (table_id) WHERE t.target_table = '$table' AND '["$key"]' IN (old_key, new_key)), 'none')});
}

# --- the matrix: green writes first, blue afterwards ---
foreach my $p (@policies)
{
	on_green(qq{
		UPDATE $p SET v = 'green', "\$systemModifiedAt" = '2026-01-02' WHERE k IN ('uu', 'du', 'iu');
		UPDATE $p SET v = 'same', "\$systemModifiedAt" = '2026-01-03' WHERE k = 'uu_same';
		UPDATE $p SET v = 'green', "\$systemModifiedAt" = '2026-01-09' WHERE k = 'uu_green';
		UPDATE $p SET v = 'green' WHERE k = 'uu_unset';
		DELETE FROM $p WHERE k IN ('ud', 'dd');
		INSERT INTO $p (k, v, "\$systemModifiedAt") VALUES ('ii', 'green', '2026-01-02'), ('ii_same', 'same', '2026-01-02'), ('ui', 'green', '2026-01-02'), ('di', 'green', '2026-01-02'), ('id', 'green', '2026-01-02');
		DELETE FROM $p WHERE k = 'id';
		UPDATE $p SET k = 'renamed' WHERE k = 'uu_rename'});
	on_blue(qq{BEGIN;
		UPDATE $p SET v = 'blue', "\$systemModifiedAt" = '2026-01-03' WHERE k IN ('uu', 'uu_green', 'uu_unset', 'ud', 'uu_rename');
		UPDATE $p SET v = 'same', "\$systemModifiedAt" = '2026-01-03' WHERE k = 'uu_same';
		DELETE FROM $p WHERE k IN ('du', 'dd', 'iu');
		INSERT INTO $p VALUES ('ii', 'blue', '2026-01-03'), ('ui', 'early', '2026-01-03'), ('di', 'blue', '2026-01-03'), ('id', 'blue', '2026-01-03'), ('iu', 'blue', '2026-01-03'), ('ii_same', 'same', '2026-01-02'),
			('alone', 'blue', NULL);
		DELETE FROM $p WHERE k = 'di';
		UPDATE $p SET v = 'far' WHERE k = 'far1';
		COMMIT});
}
wait_sync($green, 's');
on_blue(qq{UPDATE $_ SET v = 'blue' WHERE k = 'ui'; UPDATE $_ SET v = 'far' WHERE k = 'far2'}) foreach @policies;
wait_sync($green, 's');

# What blue did is seen from the row both sides had.  So blue cannot insert a
# row green has updated (iu: blue deleted and inserted it, which is an update),
# nor update one green has inserted (ui: two inserts, and blue's newest row), and
# what it inserts and deletes between two windows it has not done (di).
my %expected = (
	#					source_wins									target_wins									latest_wins									manual									function
	uu		=> [ 'blue|update/update/source|overwritten',	'green|update/update/target|unsettled',	'blue|update/update/source|overwritten',	'green|update/update/waits|unsettled',	'base+blue+green|update/update/row|unsettled' ],
	uu_green => [ 'blue|update/update/source|overwritten',	'green|update/update/target|unsettled',	'green|update/update/target|unsettled',		'green|update/update/waits|unsettled',	'base+blue+green|update/update/row|unsettled' ],
	# an outside write that left $systemModifiedAt alone: the time of its entry counts
	uu_unset => [ 'blue|update/update/source|overwritten',	'green|update/update/target|unsettled',	'green|update/update/target|unsettled',		'green|update/update/waits|unsettled',	'base+blue+green|update/update/row|unsettled' ],
	uu_same	=> [ ('same|none|equal') x 5 ],
	ud		=> [ 'blue|update/delete/source|overwritten',	'gone|update/delete/target|unsettled',	'gone|update/delete/target|unsettled',		'gone|update/delete/waits|unsettled',	'base+blue+none|update/delete/row|unsettled' ],
	du		=> [ 'gone|delete/update/source|overwritten',	'green|delete/update/target|unsettled',	'green|delete/update/waits|unsettled',		'green|delete/update/waits|unsettled',	'base+none+green|delete/update/row|unsettled' ],
	dd		=> [ ('gone|none|equal') x 5 ],
	ii		=> [ ('green|insert/insert/waits|unsettled') x 5 ],
	ii_same	=> [ ('same|none|equal') x 5 ],
	iu		=> [ 'blue|update/update/source|overwritten',	'green|update/update/target|unsettled',	'blue|update/update/source|overwritten',	'green|update/update/waits|unsettled',	'base+blue+green|update/update/row|unsettled' ],
	ui		=> [ ('green|insert/insert/waits|unsettled') x 5 ],
	di		=> [ ('green|none|unsettled') x 5 ],
	id		=> [ 'blue|insert/delete/source|overwritten overwritten', 'gone|insert/delete/target|unsettled unsettled', 'gone|insert/delete/target|unsettled unsettled',
		'gone|insert/delete/waits|unsettled unsettled', 'none+blue+none|insert/delete/row|unsettled unsettled' ],
	# the old key of an outside rename; the entry lives on for the new key
	uu_rename => [ 'blue|update/delete/source|overwritten',	'gone|update/delete/target|unsettled',	'gone|update/delete/target|unsettled',		'gone|update/delete/waits|unsettled',	'base+blue+none|update/delete/row|unsettled' ],
	renamed	=> [ 'base|none|overwritten unsettled', ('base|none|unsettled') x 4 ],
	far1	=> [ ('far|none|none') x 5 ],
	far2	=> [ ('far|none|none') x 5 ],
	alone	=> [ ('blue|none|none') x 5 ]);
foreach my $key (sort keys %expected)
{
	is(cell($policies[$_], $key), $expected{$key}[$_], "$key, $policies[$_]") foreach 0 .. $#policies;
}
is(on_green(q{SELECT string_agg(format('%s %s %s', old->>'v', blue->>'v', green->>'v'), '') FROM bcmig.conflict JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'manual' AND key = '["uu"]'}), 'base blue green', 'a record has the images');
is(on_green(q{SELECT blue->>'v' || ' ' || (green->>'v') FROM bcmig.conflict JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'manual' AND key = '["ui"]'}), 'blue green', 'one that waits has the newest of blue');
is(on_green(q{SELECT detail FROM bcmig.conflict JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'latest_wins' AND key = '["du"]'}), 'blue deleted the row, nobody knows when', 'latest_wins does not guess');
is(on_green(q{SELECT string_agg(DISTINCT state, ' ') FROM bcmig.table_status}), 'streaming', 'every table streams');
is(on_green(q{SELECT conflicts FROM bcmig.sync_status}), on_green(q{SELECT count(*) FROM bcmig.conflict WHERE decision IS NULL}), 'sync_status counts those that wait');
like(on_green(q{SELECT problems || ' ' || next_step FROM bcmig_status()}), qr/\d+ conflicts wait for a decision .*FROM bcmig\.conflict/, 'and bcmig_status says so');

# --- nothing new: read again, decided rows stay as they were decided ---
my $all = on_green(q{SELECT md5(string_agg(c::text, '' ORDER BY conflict_id)) FROM bcmig.conflict c});
on_green("SELECT bcmig_resync_table('s', '$_')") foreach @policies;
wait_sync($green, 's');
is(on_green(q{SELECT md5(string_agg(c::text, '' ORDER BY conflict_id)) FROM bcmig.conflict c}), $all, 'a resync finds no conflict twice');
is(cell($policies[$_], 'uu'), $expected{uu}[$_], "uu, $policies[$_], read again") foreach 0 .. $#policies;
is(cell('manual', 'di'), 'green|none|unsettled', 'an outside row is not swept away');

# --- waiting ones are resolved ---
sub id_of { return on_green("SELECT max(conflict_id) FROM bcmig.conflict JOIN bcmig.sync_table USING (table_id) WHERE target_table = '$_[0]' AND key = '[\"$_[1]\"]'") }

sub resolve
{
	my ($table, $key, $winner) = @_;
	my $id = id_of($table, $key);
	on_green("SELECT bcmig_resolve_conflict($id, '$winner')");
	$green->poll_query_until('postgres', "SELECT decision IS NOT NULL FROM bcmig.conflict WHERE conflict_id = $id") or die "$key is not decided";
}
my $id = id_of('manual', 'uu');
refused('BM001', q{SELECT bcmig_resolve_conflict(1000000, 'source')}, 'an id there is not');
refused('BM003', "SELECT bcmig_resolve_conflict($id, 'blue')", 'a winner there is not');
refused('22004', q{SELECT bcmig_resolve_conflict(NULL, 'source')}, 'no id');
refused('BM009', 'SELECT bcmig_resolve_conflict(' . id_of('source_wins', 'uu') . q{, 'target')}, 'one a policy has decided');
on_green(q{CREATE ROLE stranger; GRANT EXECUTE ON FUNCTION bcmig_resolve_conflict(bigint, text) TO stranger});
refused('42501', "SET ROLE stranger; SELECT bcmig_resolve_conflict($id, 'source')", 'another role');
is(cell('manual', 'uu'), 'green|update/update/waits|unsettled', 'nothing has changed');
resolve('manual', $_, 'source') foreach qw(uu ud du ii id);
resolve('manual', $_, 'target') foreach qw(ui iu uu_green uu_rename);
resolve('latest_wins', 'du', 'target');
refused('BM009', "SELECT bcmig_resolve_conflict($id, 'target')", 'resolved twice');
is(cell('manual', $_->[0]), $_->[1], "manual, $_->[0], resolved")
  foreach ([ 'uu', 'blue|update/update/source|overwritten' ], [ 'ud', 'blue|update/delete/source|overwritten' ], [ 'du', 'gone|delete/update/source|overwritten' ],
	[ 'ii', 'blue|insert/insert/source|overwritten' ], [ 'id', 'blue|insert/delete/source|overwritten overwritten' ],
	[ 'ui', 'green|insert/insert/target|unsettled' ], [ 'iu', 'green|update/update/target|unsettled' ]);
is(on_green(qq{SELECT decided_by = session_user AND decided_at > found_at FROM bcmig.conflict WHERE conflict_id = $_}), 't', 'who and when') foreach ($id, id_of('manual', 'ui'));
is(on_green(q{SELECT count(*) FROM bcmig.audit_log WHERE event = 'bcmig_resolve_conflict'}), '10', 'audited');

# blue's row as it is when it is resolved, not as it was recorded; later changes are new
on_blue(q{UPDATE manual SET v = 'blue 2' WHERE k IN ('uu', 'iu')});
wait_sync($green, 's');
is(cell('manual', 'uu'), 'blue 2|update/update/source|overwritten', 'its key flows again');
is(cell('manual', 'iu'), 'green|update/update/target update/update/waits|unsettled', 'decided for green: another change of blue is another conflict');
on_blue(q{UPDATE manual SET v = 'green', "$systemModifiedAt" = '2026-01-02' WHERE k = 'iu'});
wait_sync($green, 's');
is(cell('manual', 'iu'), 'green|update/update/target update/update/source|equal', 'both come to agree');
on_green(q{UPDATE manual SET v = 'green' WHERE k = 'far1'});
on_blue(q{UPDATE manual SET v = 'blue' WHERE k = 'far1'});
wait_sync($green, 's');
is(cell('manual', 'far1'), 'green|update/update/waits|unsettled', 'waits');
on_blue(q{UPDATE manual SET v = 'far' WHERE k = 'far1'});
wait_sync($green, 's');
is(cell('manual', 'far1'), 'green|update/update/target|unsettled', 'blue takes its change back: green stays');

# --- functions that do not decide ---
on_blue(q{INSERT INTO "function" SELECT k, 'x' FROM unnest(ARRAY['raise', 'null', 'key', 'writes', 'refused', 'sleeps', 'blue', 'green']) k; INSERT INTO plain VALUES ('p', 'kept')});
wait_sync($green, 's');
on_green(q{UPDATE "function" SET v = 'green' WHERE v = 'x'});
on_blue(q{UPDATE "function" SET v = 'blue' WHERE v = 'x'});
wait_sync($green, 's');
is(cell('function', $_), 'green|update/update/waits|unsettled', "$_: waits") foreach qw(raise null key writes refused sleeps);
is(cell('function', 'blue'), 'blue|update/update/source|overwritten', 'it returns blue');
is(cell('function', 'green'), 'green|update/update/target|unsettled', 'it returns green');
like(on_green("SELECT detail FROM bcmig.conflict WHERE key = '[\"$_->[0]\"]'"), $_->[1], "$_->[0]: and says why")
  foreach ([ 'raise', qr/^public\.merge failed: P0001: no idea$/ ], [ 'null', qr/^public\.merge returned NULL$/ ], [ 'key', qr/returned the row of another key: \["other"\]$/ ],
	[ 'writes', qr/failed: 25006: / ], [ 'refused', qr/refuses the row of conflict_function: 23514: / ], [ 'sleeps', qr/failed: 57014: .*timeout/ ]);
is(on_green('SELECT count(*) FROM plain'), '1', 'it has written nothing');

# --- a batch of 1,000 where 999 apply ---
on_blue(q{INSERT INTO plain SELECT i, 'start' FROM generate_series(1, 1000) i});
wait_sync($green, 's');
on_green(q{UPDATE bcmig.traffic SET green_percent = 100, switched_at = now(); UPDATE plain SET v = 'green' WHERE k = '500'});
on_blue(q{UPDATE plain SET v = 'blue' WHERE v = 'start'});
wait_sync($green, 's');
is(on_green(q{SELECT string_agg(v || ' ' || n, ', ' ORDER BY v) FROM (SELECT v, count(*) AS n FROM plain GROUP BY v) x}), 'blue 999, green 1, kept 1', '999 of 1,000 rows apply');
is(cell('plain', 500), 'green|update/update/waits|unsettled', 'one waits: at weight 100 the default is manual');

# --- † not committed yet when the window begins: it waits for the row, then sees the entry ---
foreach my $race ([ 'update', q{UPDATE plain SET v = 'outside' WHERE k = '7'}, 'update/update' ], [ 'delete', q{DELETE FROM plain WHERE k = '8'}, 'update/delete' ])
{
	my ($what, $sql, $operations) = @$race;
	my $key = $what eq 'update' ? 7 : 8;
	my $outside = $green->background_psql('postgres', on_error_die => 1);

	$outside->query_safe("BEGIN; $sql");
	on_blue("UPDATE plain SET v = 'blue 2' WHERE k IN ('$key', '9')");
	ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type = 'bcmig worker' AND wait_event_type = 'Lock'}), 'the window waits for the row');
	$outside->query_safe('COMMIT');
	$outside->quit;
	wait_sync($green, 's');
	is(cell('plain', $key), ($what eq 'update' ? 'outside' : 'gone') . "|$operations/waits|unsettled", "an outside $what that commits meanwhile is not lost");
	is(cell('plain', 9), 'blue 2|none|none', 'the other row is applied');
}

# --- a conflict's row that green refuses ---
on_green(q{CREATE OR REPLACE FUNCTION public.allowed(text) RETURNS boolean LANGUAGE sql AS $$SELECT $1 <> 'bad'$$});
on_blue(q{UPDATE plain SET v = 'bad' WHERE k = '500'});
$green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.quarantine}) or die 'not in quarantine';
is(cell('plain', 500), 'green|update/update/waits|unsettled', 'a row that green refuses goes to quarantine, the conflict waits');
on_green('SELECT bcmig_resolve_conflict(' . id_of('plain', 500) . q{, 'source')});
$green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.request}) or die 'request is not done';
like(on_green('SELECT detail FROM bcmig.conflict WHERE conflict_id = ' . id_of('plain', 500)), qr/in quarantine/, 'resolving it says so');
is(cell('plain', 500), 'green|update/update/waits|unsettled', 'and goes on waiting');
on_green(q{CREATE OR REPLACE FUNCTION public.allowed(text) RETURNS boolean LANGUAGE sql AS $$SELECT true$$; SELECT bcmig_retry_quarantine('s')});
$green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.quarantine}) or die 'not retried';
is(cell('plain', 500), 'green|update/update/waits|unsettled', 'a retry meets the journal too');
resolve('plain', 500, 'source');
is(cell('plain', 500), 'bad|update/update/source|overwritten', 'resolved after all');
is(on_green(q{SELECT string_agg(DISTINCT state, ' ') FROM bcmig.table_status}), 'streaming', 'every table streams');

done_testing();
