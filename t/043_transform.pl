# Transforms and row filters: copied, streamed, swept, changed while streaming,
# validated, repaired; a row a transform fails for is quarantined by itself.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }
sub fails
{
	my ($sql, $like, $what) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', $sql);
	like($err, $like, $what);
}

# run a validation to its end: its id and verdict
sub validate
{
	my ($target, $mode) = @_;
	my $run = on_green("SELECT bcmig_validate('s', " . (defined $target ? "'$target'" : 'NULL') . ", '" . ($mode // 'full') . "')");
	$green->poll_query_until('postgres', "SELECT state <> 'running' FROM bcmig.validation_run WHERE run_id = $run") or die "validation $run does not end";
	return ($run, on_green("SELECT verdict FROM bcmig.validation_run WHERE run_id = $run"));
}

# what green must be: a query of blue and one of green, sorted rows
sub same
{
	my ($what, $blue_query, $green_query) = @_;
	my @sides = map { join "\n", sort split /\n/, $_ } ($blue->safe_psql('postgres', $blue_query), $green->safe_psql('postgres', $green_query));
	is($sides[1], $sides[0], $what);
}

on_blue(q{
	CREATE TABLE item ("No_" int PRIMARY KEY, "Name" varchar(50) NOT NULL, "Code" varchar(20) NOT NULL, "Blank" timestamp(3) NOT NULL,
		"Made" timestamp(3) NOT NULL, "Flag" smallint NOT NULL DEFAULT 0, "Secret" text NOT NULL DEFAULT 'secret', "Const" int NOT NULL DEFAULT 7,
		"Amount" numeric(38,20) NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, CASE WHEN i % 3 = 0 THEN '' ELSE 'name ' || i || '  ' END, 'c' || i,
		CASE WHEN i % 2 = 0 THEN timestamp '1753-01-01' ELSE timestamp '2026-01-01' + i * interval '1 hour' END,
		timestamp '2026-03-29' + i * interval '1 minute', i % 2, 'secret', i, i / 3.0 FROM generate_series(1, 3000) i;
	CREATE TABLE part (id int PRIMARY KEY, kind text NOT NULL, v int NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO part SELECT i, CASE WHEN i % 2 = 0 THEN 'keep' ELSE 'leave' END, i FROM generate_series(1, 2000) i;
	CREATE TABLE stamped (id int PRIMARY KEY, "$systemId" uuid NOT NULL, v text NOT NULL, n int NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO stamped SELECT i, ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid, 'v' || i, i FROM generate_series(1, 300) i;
	CREATE TABLE heap (a int, b text);
	INSERT INTO heap SELECT i % 10, CASE WHEN i % 2 = 0 THEN 'x ' ELSE 'y' END FROM generate_series(1, 100) i;
	CREATE TABLE snap (id int PRIMARY KEY, v text NOT NULL);
	INSERT INTO snap SELECT i, 'v' || i || ' ' FROM generate_series(1, 50) i;
});
on_blue(q{
	CREATE TABLE fast (a text NOT NULL, b timestamp(3) NOT NULL, c smallint NOT NULL, key1 varchar(10) NOT NULL, d text NOT NULL, e int NOT NULL, key2 int NOT NULL,
		n varchar(20) NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (key2, key1));
	INSERT INTO fast SELECT 'a' || i, CASE WHEN i % 2 = 0 THEN timestamp '1753-01-01' ELSE '2026-06-01 12:00:00.003' END, i % 2, 'k' || i, 'd' || i, i, i % 7,
		CASE WHEN i % 3 = 0 THEN '' ELSE 'n' || i END FROM generate_series(1, 3000) i;
	CREATE TABLE quick (id int PRIMARY KEY, a text NOT NULL, b text NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO quick SELECT i, 'a' || i, 'b' || i FROM generate_series(1, 3000) i;});
track($blue, $_) foreach qw(item part fast quick);
track($blue, 'stamped', 'rowversion');
connect_blue($green, $blue, 's', '{"sweep_interval": "1h"}');
on_green("SELECT bcmig_add_table('s', '$_')") foreach qw(item stamped fast quick);
on_green(q{SELECT bcmig_add_table('s', 'part', options => '{"row_filter": "kind = ''keep''"}')});
on_green(q{SELECT bcmig_add_table('s', 'heap', options => '{"row_filter": "a > 2"}')});
on_green(q{SELECT bcmig_add_table('s', 'snap', options => '{"row_filter": "id <> 13"}')});

# --- before the copy: all kinds at once, and nothing is read for it ---
on_green(q{
	SELECT bcmig_map_column('s', 'item', 'Secret', '{"drop": true}');
	SELECT bcmig_map_column('s', 'item', 'Name', '{"rename": "title", "builtin": ["trim", "blank_text"]}');
	SELECT bcmig_map_column('s', 'item', 'Blank', '{"builtin": "blank_date"}');
	SELECT bcmig_map_column('s', 'item', 'Made', '{"builtin": "utc"}');
	SELECT bcmig_map_column('s', 'item', 'Flag', '{"builtin": "boolean"}');
	SELECT bcmig_map_column('s', 'item', 'Const', '{"constant": 42}');
	SELECT bcmig_map_column('s', 'item', 'Code', '{"builtin": "upper"}');
	SELECT bcmig_map_column('s', 'item', 'Amount', '{"sql": "round(row.\"Amount\" * 100)::bigint -- in hundredths"}');
	SELECT bcmig_map_column('s', 'stamped', 'v', '{"rename": "value"}');
	SELECT bcmig_map_column('s', 'stamped', 'n', '{"builtin": "boolean"}');
	SELECT bcmig_map_column('s', 'fast', 'a', '{"drop": true}');
	SELECT bcmig_map_column('s', 'fast', 'b', '{"builtin": ["blank_date", "utc"]}');
	SELECT bcmig_map_column('s', 'fast', 'c', '{"builtin": "boolean"}');
	SELECT bcmig_map_column('s', 'fast', 'd', '{"constant": "always"}');
	SELECT bcmig_map_column('s', 'fast', 'key1', '{"rename": "the key"}');
	SELECT bcmig_map_column('s', 'fast', 'n', '{"builtin": "blank_text"}');
	SELECT bcmig_map_column('s', 'quick', 'a', '{"drop": true}');
	SELECT bcmig_map_column('s', 'quick', 'b', '{"rename": "b2"}');
	SELECT bcmig_map_column('s', 'heap', 'b', '{"builtin": "trim"}');
	SELECT bcmig_map_column('s', 'snap', 'v', '{"builtin": "trim"}');
});
on_blue(q{UPDATE stamped SET n = n % 2});
is(on_green(q{SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' not null' ELSE '' END, ', ' ORDER BY attnum)
	FROM pg_attribute WHERE attrelid = 'item'::regclass AND attnum > 0 AND NOT attisdropped}),
	'bc_rowversion bigint, No_ integer not null, title character varying(50), Code character varying(20) not null, Blank timestamp(3) without time zone, '
	. 'Made timestamp with time zone, Flag boolean, Const integer not null, Amount bigint', 'the green table follows');

my $item_blue = q{SELECT "No_", nullif(rtrim("Name", ' '), ''), upper("Code"), nullif("Blank", '1753-01-01'), ("Made" AT TIME ZONE 'UTC'), "Flag" <> 0, 42, round("Amount" * 100)::bigint FROM item};
my $item_green = q{SELECT "No_", title, "Code", "Blank", "Made", "Flag", "Const", "Amount" FROM item};
my %pairs = (
	item => [ $item_blue, $item_green ],
	part => [ q{SELECT id, kind, v FROM part WHERE kind = 'keep'}, 'SELECT id, kind, v FROM part' ],
	stamped => [ q{SELECT id, "$systemId", v, n <> 0 FROM stamped}, q{SELECT id, "$systemId", value, n FROM stamped} ],
	fast => [ q{SELECT nullif(b, '1753-01-01') AT TIME ZONE 'UTC', c <> 0, key1, 'always', e, key2, nullif(n, '') FROM fast}, q{SELECT b, c, "the key", d, e, key2, n FROM fast} ],
	quick => [ q{SELECT id, b FROM quick}, q{SELECT id, b2 FROM quick} ],
	heap => [ q{SELECT a, rtrim(b, ' ') FROM heap WHERE a > 2}, q{SELECT a, b FROM heap} ],
	snap => [ q{SELECT id, rtrim(v, ' ') FROM snap WHERE id <> 13}, q{SELECT id, v FROM snap} ]);
sub all_same { my ($what) = @_; same("$what: $_", @{ $pairs{$_} }) foreach sort keys %pairs; }

start_sync($green, 's');
wait_sync($green, 's');
all_same('copied');

# --- streamed: changes, deletes, a renamed key; rows that enter and leave the filter ---
on_blue(q{
	UPDATE item SET "Name" = 'other  ', "Code" = 'zz' || "No_", "Flag" = 1, "Blank" = '1753-01-01', "Secret" = 'changed' WHERE "No_" BETWEEN 10 AND 20;
	DELETE FROM item WHERE "No_" = 30;
	INSERT INTO item VALUES (9001, ' ', '', '2026-01-01', '2026-10-25 01:30', 1, 's', 1, 1.005);
	UPDATE part SET kind = 'keep' WHERE id IN (1, 3);
	UPDATE part SET kind = 'leave' WHERE id IN (2, 4);
	UPDATE part SET v = -v WHERE id IN (5, 6);
	INSERT INTO part VALUES (9001, 'keep', 1), (9002, 'leave', 2);
	DELETE FROM part WHERE id IN (7, 8);
	UPDATE stamped SET id = 1005 WHERE id = 5;
	UPDATE stamped SET n = 1 - n WHERE id BETWEEN 6 AND 9;
	DELETE FROM stamped WHERE id = 10;
	UPDATE fast SET a = 'x', b = '2030-01-01', c = 1 - c, d = 'y', n = 'z' WHERE e < 50;
	DELETE FROM fast WHERE e = 50;
	UPDATE quick SET a = 'x', b = 'y' WHERE id < 50;
	INSERT INTO heap VALUES (2, 'left out'), (7, 'new ');
	UPDATE snap SET v = 'new ' WHERE id = 7;
});
wait_sync($green, 's');
on_green(q{SELECT bcmig_sweep_deletes('s')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.request}), 'swept');
all_same('streamed and swept');
is(on_green(q{SELECT count(*) FROM bcmig.quarantine}), 0, 'nothing in quarantine');

# --- validation: transforms with an inverse by blue's hashes, others pulled ---
my ($run, $verdict) = validate();
is($verdict, 'ok', 'equal');
is(on_green("SELECT target, verdict, pushdown, coalesce(detail, '') FROM bcmig.validation_summary WHERE run_id = $run ORDER BY 1"), join("\n",
	'public.fast|ok|t|', 'public.heap|ok|f|rows were pulled: the transform of column "b" and the rows the row filter leaves cannot be told backwards',
	'public.item|ok|f|rows were pulled: the transform of column "Name", column "Code", column "Amount" cannot be told backwards',
	'public.part|ok|f|rows were pulled: the transform of the rows the row filter leaves cannot be told backwards',
	'public.quick|ok|t|', 'public.snap|ok|f|rows were pulled: the transform of column "v" and the rows the row filter leaves cannot be told backwards',
	'public.stamped|ok|t|'), 'and how each was compared');
is(on_green("SELECT target, rows_blue, rows_green FROM bcmig.validation_summary WHERE run_id = $run AND target = 'public.part'"), 'public.part|1000|1000', 'only rows of the filter count');
is((validate('public.part', 'count'))[1], 'ok', 'numbers of rows too');

# faults under every kind of transform
green_behind($green, q{SET session_replication_role = replica;
	UPDATE item SET title = 'x' WHERE "No_" = 101;
	UPDATE item SET "Code" = 'c102' WHERE "No_" = 102;
	UPDATE item SET "Blank" = '1753-01-01' WHERE "No_" = 104;
	UPDATE item SET "Made" = "Made" + interval '1 ms' WHERE "No_" = 105;
	UPDATE item SET "Flag" = NOT "Flag" WHERE "No_" = 106;
	UPDATE item SET "Const" = 43 WHERE "No_" = 107;
	UPDATE item SET "Amount" = "Amount" + 1 WHERE "No_" = 108;
	UPDATE fast SET b = b + interval '1 us' WHERE e = 101;
	UPDATE fast SET b = NULL WHERE e = 103;
	UPDATE fast SET c = NOT c WHERE e = 104;
	UPDATE fast SET d = 'never' WHERE e = 105;
	UPDATE fast SET n = '' WHERE e = 106;
	DELETE FROM fast WHERE e = 107;
	UPDATE quick SET b2 = 'x' WHERE id = 101;
	UPDATE stamped SET n = NOT n WHERE id = 20;
	UPDATE stamped SET n = NULL WHERE id = 21;
	DELETE FROM part WHERE id = 20;
	INSERT INTO part (id, kind, v) SELECT 21, 'leave', 21;
	UPDATE snap SET v = 'v9 ' WHERE id = 9;});
($run, $verdict) = validate();
is($verdict, 'different', 'faults are found');
is(on_green("SELECT source_table, kind, key, columns FROM bcmig.validation_difference JOIN bcmig.sync_table USING (table_id) WHERE run_id = $run ORDER BY 1, (key->>0)::int, key"), join("\n",
	'fast|different|["0", "k105"]|{d}', 'fast|different|["1", "k106"]|{n}', 'fast|missing|["2", "k107"]|', 'fast|different|["3", "k101"]|{}',
	'fast|different|["5", "k103"]|{b}', 'fast|different|["6", "k104"]|{c}', 'item|different|["101"]|{title}', 'item|different|["102"]|{Code}', 'item|different|["104"]|{}', 'item|different|["105"]|{Made}', 'item|different|["106"]|{Flag}',
	'item|different|["107"]|{Const}', 'item|different|["108"]|{Amount}', 'part|missing|["20"]|', 'part|extra|["21"]|', 'quick|different|["101"]|{b2}', 'snap|different|["9"]|{v}',
	'stamped|different|["20"]|{n}', 'stamped|different|["21"]|{n}'), 'each with its column');
on_green("SELECT * FROM bcmig_repair($run)");
ok($green->poll_query_until('postgres', "SELECT count(*) = 0 FROM bcmig.validation_difference WHERE run_id = $run AND repaired_at IS NULL"), 'repaired');
all_same('repaired');
is((validate())[1], 'ok', 'and equal');

# --- a row a transform fails for, copied by the resync of a change and streamed ---
on_blue(q{CREATE TABLE r (id int PRIMARY KEY, a int NOT NULL, b text NOT NULL, f smallint NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO r SELECT i, i % 5 + 1, 'b' || i, 0 FROM generate_series(1, 1000) i; UPDATE r SET a = 0 WHERE id = 77});
track($blue, 'r');
on_green(q{SELECT bcmig_add_table('s', 'r'); SELECT bcmig_map_column('s', 'r', 'a', '{"sql": "100 / a"}');
	SELECT bcmig_map_column('s', 'r', 'f', '{"builtin": "boolean"}')});
wait_sync($green, 's');
sub quarantine { on_green(q{SELECT string_agg(key::text || ' ' || sqlstate, ', ' ORDER BY key::text) FROM bcmig.quarantine}) }
is(quarantine(), '["77"] 22012', 'a division by zero is that of one row');
is(on_green('SELECT count(*) FROM r'), 999, 'the others are there');
on_blue(q{UPDATE r SET a = 0 WHERE id IN (5, 900); UPDATE r SET f = 2 WHERE id = 6; UPDATE r SET b = 'new' WHERE id < 10});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 4 FROM bcmig.quarantine'), 'streamed too');
is(quarantine(), '["5"] 22012, ["6"] BM015, ["77"] 22012, ["900"] 22012', 'each with its reason: 2 is neither true nor false');
is(on_green(q{SELECT count(*) FROM r WHERE b = 'new'}), 7, 'the others went on');
is(on_green(q{SELECT image->>'a' FROM bcmig.quarantine WHERE key = '["900"]'}), 0, 'the image is blue\'s row');
($run, $verdict) = validate('public.r');
is(on_green("SELECT string_agg(kind || ' ' || key::text, ', ' ORDER BY (key->>0)::int) FROM bcmig.validation_difference WHERE run_id = $run"),
	'different ["5"], different ["6"], missing ["77"], different ["900"]', 'a validation shows them, and does not stumble over them');
on_green(q{SELECT bcmig_unmap_column('s', 'r', 'a'); SELECT bcmig_unmap_column('s', 'r', 'f')});
wait_sync($green, 's');
is(quarantine(), '', 'unmapped, all rows are read again');
same('unmapped', 'SELECT id, a, b, f FROM r', 'SELECT id, a, b, f FROM r');
# a filter that fails for a row, and a retry
on_green(q{SELECT bcmig_alter_table('s', 'r', '{"row_filter": "10 / a > 3"}')});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 3 FROM bcmig.quarantine'), 'a filter fails for three rows');
on_blue('UPDATE r SET a = 1 WHERE id = 5');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 2 FROM bcmig.quarantine}), 'a newer version settles its entry');
on_green(q{SELECT bcmig_alter_table('s', 'r', '{"row_filter": "a = 0 OR 10 / a > 3"}')});
wait_sync($green, 's');
is(quarantine(), '', 'and a better filter the others');
same('filtered', 'SELECT id, a, b, f FROM r WHERE a = 0 OR 10 / a > 3', 'SELECT id, a, b, f FROM r');
is((validate('public.r'))[1], 'ok', 'equal');

# --- a mass of rows that leave the filter is not deleted without a word ---
on_blue(q{UPDATE part SET kind = 'leave' WHERE id < 1900});
ok(wait_state($green, 'public.part', 'suspended'), 'more than max_delete_percent leave the filter');
like(on_green(q{SELECT reason FROM bcmig.table_status WHERE target = 'public.part'}), qr/of 1000 rows would be deleted/, 'and the reason says so');
is(on_green('SELECT count(*) FROM part'), 1000, 'nothing is deleted');
on_green(q{SELECT bcmig_resume_table('s', 'part')});
wait_sync($green, 's');
same('confirmed', @{ $pairs{part} });

# --- a table a person made must fit, and says how ---
on_blue(q{CREATE TABLE mine (id int PRIMARY KEY, d timestamp(3) NOT NULL, n numeric(38,20) NOT NULL, x text NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO mine SELECT i, '1753-01-01', i, 'x' || i FROM generate_series(1, 10) i});
track($blue, 'mine');
on_green(q{CREATE TABLE mine (id int PRIMARY KEY, d timestamp(3) NOT NULL, n numeric(38,20) NOT NULL, x text NOT NULL);
	SELECT bcmig_add_table('s', 'mine', 'public.mine')});
fails(q{SELECT bcmig_map_column('s', 'mine', 'd', '{"builtin": "blank_date"}')}, qr/NOT NULL, and the transform may give NULL.*ALTER TABLE public.mine ALTER COLUMN d DROP NOT NULL;/s, 'NOT NULL');
fails(q{SELECT bcmig_map_column('s', 'mine', 'n', '{"sql": "n::int"}')}, qr/ALTER TABLE public.mine ALTER COLUMN n TYPE integer;/s, 'another type');
fails(q{SELECT bcmig_map_column('s', 'mine', 'x', '{"rename": "y"}')}, qr/ALTER TABLE public.mine RENAME COLUMN x TO y;/s, 'another name');
fails(q{SELECT bcmig_map_column('s', 'mine', 'x', '{"drop": true}')}, qr/ALTER TABLE public.mine ALTER COLUMN x DROP NOT NULL;/s, 'not written any more');
green_behind($green, q{BEGIN; ALTER TABLE mine ALTER d DROP NOT NULL, ALTER n TYPE integer; ALTER TABLE mine RENAME x TO y;
	SELECT bcmig_map_column('s', 'mine', 'd', '{"builtin": "blank_date"}');
	SELECT bcmig_map_column('s', 'mine', 'n', '{"sql": "n::int"}');
	SELECT bcmig_map_column('s', 'mine', 'x', '{"rename": "y"}'); COMMIT});
wait_sync($green, 's');
same('a table a person made', 'SELECT id, NULL, n::int, x FROM mine', 'SELECT id, d, n, y FROM mine');
is((validate('public.mine'))[1], 'ok', 'is equal');

# --- readable views follow: they would hold types and names ---
on_green(q{SELECT bcmig_alter_sync('s', '{"views": true}')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_attribute WHERE attrelid = to_regclass('public_read.fast') AND attname = 'c'}), 'a view is made');
on_green(q{SELECT bcmig_unmap_column('s', 'fast', 'c'); SELECT bcmig_map_column('s', 'fast', 'n', '{"rename": "n2"}')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_attribute WHERE attrelid = to_regclass('public_read.fast') AND attname = 'n2'}), 'and made anew');
wait_sync($green, 's');
same('and equal', q{SELECT c, n, key1 FROM fast}, q{SELECT c, n2, "the key" FROM public_read.fast});

# a mapping that changes while they are made is not taken for one they were made for
my $making = stop_at($green, 'views_made');
on_green(q{SELECT bcmig_map_column('s', 'fast', 'n', '{"rename": "n3"}')});
ok(point_reached($green, 'views_made'), 'views are made, and it is not written down yet');
on_green(q{SELECT bcmig_map_column('s', 'fast', 'n', '{"rename": "n4"}')});
release_point($green, $making);
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_attribute WHERE attrelid = to_regclass('public_read.fast') AND attname = 'n4'}), 'for the newest mapping in the end');

# nor one that changes while they are about to be made, where there is none yet
green_behind($green, 'DROP VIEW public_read.fast');
my $session = $green->background_psql('postgres', on_error_die => 1);
$session->query_safe('BEGIN; LOCK TABLE fast IN ACCESS SHARE MODE');
my $mapping = $green->background_psql('postgres', on_error_die => 1);
$mapping->query_until(qr/^begun$/m, qq{\\echo begun\nSELECT bcmig_map_column('s', 'fast', 'n', '{"rename": "n5"}');\n});
my $waits = 'SELECT count(*) = 1 FROM pg_locks WHERE NOT granted AND';
ok($green->poll_query_until('postgres', "$waits mode = 'AccessExclusiveLock' AND relation = to_regclass('fast')"), 'a mapping waits for the table');
on_green(q{UPDATE bcmig.sync_state SET views_made = NULL; SELECT bcmig_alter_environment('blue', '{}')});	# the latter wakes the manager
ok($green->poll_query_until('postgres', "$waits locktype = 'advisory' AND objsubid = 7270"), 'and who makes the view for it');
$session->query_safe('COMMIT');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_attribute WHERE attrelid = to_regclass('public_read.fast') AND attname = 'n5'}), 'it is made of those there are');
is(on_green(q{SELECT count(*) FROM bcmig.timeline WHERE event = 'make views'}), '0', 'and was never tried with others');
$_->quit foreach $session, $mapping;
on_green(q{SELECT bcmig_map_column('s', 'fast', 'n', '{"rename": "n4"}')});
$pairs{fast} = [ q{SELECT nullif(b, '1753-01-01') AT TIME ZONE 'UTC', c, key1, 'always', e, key2, n FROM fast}, q{SELECT b, c, "the key", d, e, key2, n4 FROM fast} ];

# --- mappings changed while blue is written to ---
my $script = $blue->basedir . '/load.sql';
PostgreSQL::Test::Utils::append_to_file($script, q{
	\set k random(1, 3000)
	UPDATE item SET "Amount" = "Amount" + 1, "Name" = 'n' || random() || ' ', "Flag" = 1 - "Flag" WHERE "No_" = :k;
	DELETE FROM item WHERE "No_" = :k + 5000;
	INSERT INTO item VALUES (:k + 5000, 'x ', 'c', '1753-01-01', '2026-01-01', 0, 's', 1, :k) ON CONFLICT DO NOTHING;
	UPDATE part SET kind = CASE kind WHEN 'keep' THEN 'leave' ELSE 'keep' END WHERE id = :k % 100;
	UPDATE stamped SET v = 'w' || random() WHERE id = :k % 300;
});
my $pgbench = IPC::Run::start([ 'pgbench', '-n', '-c', '2', '-T', '60', '-R', '200', '-f', $script, $blue->connstr('postgres') ], '>', \my $bench, '2>', \my $bench_err);
foreach my $round (1 .. 2)
{
	on_green(q{SELECT bcmig_unmap_column('s', 'item', 'Name'); SELECT bcmig_unmap_column('s', 'item', 'Secret'); SELECT bcmig_unmap_column('s', 'item', 'Flag')});
	on_green(q{SELECT bcmig_unmap_column('s', 'item', 'Amount'); SELECT bcmig_alter_table('s', 'part', '{"row_filter": null}')});
	on_green(q{SELECT bcmig_map_column('s', 'stamped', 'v', '{"rename": "again", "builtin": "upper"}')});
	wait_streaming($green, 's') if $round == 1;
	on_green(q{SELECT bcmig_map_column('s', 'item', 'Name', '{"rename": "title", "builtin": ["trim", "blank_text"]}');
		SELECT bcmig_map_column('s', 'item', 'Secret', '{"drop": true}')});
	on_green(q{SELECT bcmig_map_column('s', 'item', 'Flag', '{"builtin": "boolean"}');
		SELECT bcmig_map_column('s', 'item', 'Amount', '{"sql": "round(\"Amount\" * 100)::bigint"}');
		SELECT bcmig_map_column('s', 'stamped', 'v', '{"rename": "value"}')});
	on_green(q{SELECT bcmig_alter_table('s', 'part', '{"row_filter": "kind = ''keep''"}')});
	wait_streaming($green, 's');
}
is((validate('public.item'))[1], 'ok', 'no false alarm under load');
$pgbench->kill_kill;
wait_sync($green, 's');
on_green(q{SELECT bcmig_sweep_deletes('s')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.request}), 'swept');
all_same('after changes under load');
is((validate())[1], 'ok', 'and equal');
is(quarantine(), '', 'nothing in quarantine');

is(on_green(q{SELECT count(*) > 0 FROM bcmig.audit_log WHERE event = 'bcmig_map_column' AND detail LIKE 'column "Name": %trim%'}), 't', 'changes are in the audit log');

done_testing();
