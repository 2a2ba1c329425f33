# Every awkward value arrives bit for bit, copied and streamed: the fixtures of
# Business Central (blank dates, closing dates, wide decimals, DateFormulas,
# BLOB containers, RecordIds, codes), the types of PostgreSQL, odd keys, names
# of every kind, values of 20 MB in flat memory.  Both servers write dates,
# intervals, floats and bytes in a way nobody should read back.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my @settings = ("datestyle = 'SQL, DMY'", "intervalstyle = 'sql_standard'", 'extra_float_digits = -5',
	"bytea_output = 'escape'", "timezone = 'Asia/Kathmandu'", 'standard_conforming_strings = off',
	'escape_string_warning = off', 'backslash_quote = on');
my $blue = new_blue('blue', @settings);
my $green = new_green('green', @settings);
# the settings are for the servers and what they say to each other, not for this script
$ENV{PGOPTIONS} = '-c standard_conforming_strings=on';
connect_blue($green, $blue, 's');

sub drop_sync
{
	my ($name) = @_;
	$green->safe_psql('postgres', "SELECT bcmig_stop_sync($name)");
	$green->poll_query_until('postgres', "SELECT state = 'stopped' FROM bcmig.sync_state JOIN bcmig.sync USING (sync_id) WHERE name = $name");
	$green->safe_psql('postgres', "SELECT bcmig_drop_sync($name, true)");
}

# ---------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------
$blue->safe_psql('postgres', q{
	CREATE TYPE mood AS ENUM ('sad', 'it''s "ok"', 'happy ');
	CREATE TYPE pair AS (a int, b text);
	CREATE DOMAIN code AS varchar(20) CHECK (VALUE = upper(VALUE));
	CREATE DOMAIN money2 AS numeric(10,2);});

my @values = (
	[ 'datetime', 'timestamp(3)', qw('1753-01-01' '1754-01-01' '1754-01-01T08:00:00' '2026-12-31T23:59:59' '2026-12-31'
		  '9999-12-31' '9999-12-31T23:59:59.997' '2026-03-04T05:06:07.003' '-infinity' NULL) ],
	[ 'stamp6', 'timestamp', qw('2026-03-04T05:06:07.000001' '0044-03-15T00:00:00BC' '294276-12-31T23:59:59.999999') ],
	[ 'stamptz', 'timestamptz', qw('2026-03-29T02:30:00.123456+02' '2026-10-25T02:30:00+01' '1753-01-01T00:00:00Z' 'infinity') ],
	[ 'day', 'date', qw('1753-01-01' '9999-12-31' '2026-02-03' '2026-03-02') ],
	[ 'daytime', 'timetz', qw('23:59:59.999999+14' '24:00:00-12' '00:00+05:45') ],
	[ 'span', 'interval', "'-1 mon +2 days -03:04:05.6'", "'1 mon -2 days'", "'-1 day +02:00'", "'178000000 years'", "'0'" ],
	[ 'dec38', 'numeric(38,20)', qw(0 0.00000000000000000001 -0.00000000000000000001 12345678901234567.12345678901234567891
		  99999999999999999.99999999999999999999 -999999999999999999.99999999999999999999 NULL) ],
	[ 'dec', 'numeric', qw(1 1.0 1.00 1.000 0 0.0 0.000 'NaN' 'Infinity' -1e-100 123456789012345678901234567890.5) ],
	[ 'duration', 'bigint', qw(-1 -9223372036854775808 9223372036854775807 0 -86400000) ],
	[ 'formula', 'varchar(32)', (map { "'1$_' || chr($_)" } 1 .. 7), "'-' || chr(3) || '1' || chr(4) || '+5' || chr(5)", "''" ],
	[ 'blob', 'bytea', (map { "decode('$_', 'hex')" } qw(02457D5BF348CDC9C90700 02457D5BF348CDC9C9D75108CF2FCA49510400
			02457D5B0B730D0AF6F4F7D330D45408F60F0AF1F473D770CB4CCD4901F2C33D5C835C213C23535B43A0124D0600
			02457D5B 00 5C 5C78 2700225C0A0D)), "''", 'NULL' ],
	[ 'guid', 'uuid', map { "'$_'" } qw(00000000-0000-0000-0000-000000000000 437dbf0e-84ff-417a-965d-ed2bb9650972 ffffffff-ffff-ffff-ffff-ffffffffffff) ],
	[ 'recordid', 'bytea', map { "decode('$_', 'hex')" } qw(000000000000 1200000000871027000000000000 120000000087102700000000) ],
	[ 'words', 'text', "''", 'NULL', "' '", "'a'", "'a '", "'a  '", "' a'", "'A'", "'NULL'", "'null'", "'\\N'", "'\\'", "'\\\\'",
		"'O''Brien'", q{'"'}, q{'""'}, q{'{}'}, q{'(,)'}, q{'{"a":1}'}, "'\$1 %s %n \$\$'", "E'a\\nb'", "E'a\\r\\nb\\tc'", "'; DROP TABLE x; --'",
		"(SELECT string_agg(chr(i), '') FROM generate_series(1, 160) i)" ],
	[ 'unicode', 'varchar(30)', "U&'\\+01F600\\+020BB7'", "U&'\\+10FFFF'", "U&'\\00E9'", "U&'e\\0301'", "U&'\\FFFF\\FEFF'", "U&'\\0131\\0130\\00DF\\1E9E'",
		"U&'\\05D0\\202E\\0627'", "repeat(U&'\\+01F600', 30)", "U&'\\00A0'", "U&'\\3000'", "U&'C\\00F3d_'" ],
	[ 'fixed', 'char(5)', "''", "'a'", "'abcde'", "' a'", 'NULL' ],
	[ 'bits', 'bit(9)', "B'000000001'", "B'111111111'" ],
	[ 'varbits', 'bit varying', "B''", "B'0'", "B'00'" ],
	[ 'ints', 'int[]', "'{}'", "'{1,NULL,3}'", "'[0:2]={1,2,3}'", "'{{1,2},{3,4}}'", 'NULL' ],
	[ 'texts', 'text[]', q|ARRAY['a,b', '"q"', NULL, 'NULL', '', '\\\\', '{', ' ']|, q|'{}'|, q|ARRAY['']| ],
	[ 'nums', 'numeric(38,20)[]', "'{0.00000000000000000001,NaN}'" ],
	[ 'js', 'json', q{'{"b" : 1,  "a":[1.0, 1.00] , "b":2}'}, q{'null'}, 'NULL', q{'""'} ],
	[ 'jsb', 'jsonb', q{'{"b":1,"a":[1.0,1.00,null,"\\u00e9"]}'}, q{'null'}, 'NULL', q{'{"":""}'} ],
	[ 'dbl', 'float8', qw('NaN' '-0' '0' 'Infinity' 0.1::float8+0.2 5e-324 1.7976931348623157e308 1.0000000000000002) ],
	[ 'flt', 'real', qw('NaN' '-0' 0.1 1.4e-45 3.4028235e38) ],
	[ 'yes', 'boolean', qw(true false NULL) ],
	[ 'feeling', 'mood', "'sad'", "'it''s \"ok\"'", "'happy '", 'NULL' ],
	[ 'feelings', 'mood[]', "'{sad,\"happy \"}'", "'{}'" ],
	[ 'pairs', 'pair', "ROW(1, 'x,\"y')", 'ROW(NULL, NULL)' ],
	[ 'domtext', 'code', "''", "'ABC '", "'10000'" ],
	[ 'domnum', 'money2', qw(1.00 -0.01) ],
	[ 'range', 'numrange', "'[1.0,1.00]'", "'empty'", "'(,)'" ],
	[ 'tsv', 'tsvector', q{'a:1A ''it''''s'':2'}, "''" ],
	[ 'net', 'inet', "'10.0.0.1/8'", "'::1'" ],
	[ 'geo', 'point', "'(0.1,-0)'", "'(1e-300,NaN)'" ],
	[ 'mark', 'xml', "'<a b=\"1\"> &lt; </a>'" ],
	[ 'sys', 'name', "'x'" ],
	[ 'ch', '"char"', "'x'", "''" ],
);
my %exact = (dbl => 'float8send(v)', flt => 'float4send(v)', blob => "encode(v, 'hex')", recordid => "encode(v, 'hex')",
	fixed => 'v, octet_length(v)', geo => 'point_send(v)', span => 'interval_send(v)');

my $sql = '';
my @tables;
my $capture = 0;
foreach my $v (@values)
{
	my ($name, $type, @list) = @$v;
	my $i = 0;
	my $rows = join(', ', map { $i++; "($i, ($_)::$type)" } @list);

	push @tables, "v_$name";
	# a copy on blue of what the rows were
	$sql .= "CREATE TABLE o_$name (id int PRIMARY KEY, v $type); INSERT INTO o_$name VALUES $rows;\n"
	  . "CREATE TABLE v_$name (id int PRIMARY KEY, v $type, \"timestamp\" bigint NOT NULL DEFAULT 0); INSERT INTO v_$name SELECT id, v, 0 FROM o_$name;\n"
	  . "SELECT bcmig_blue.track('v_$name', '" . ($capture++ % 4 ? 'change_tracking' : 'rowversion') . "');\n";
}
$blue->safe_psql('postgres', $sql);
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', t) FROM unnest(ARRAY['" . join("','", @tables) . "']) t");
is($green->safe_psql('postgres', q{SELECT string_agg(format_type(atttypid, atttypmod), ',' ORDER BY attrelid::regclass::text) FROM pg_attribute
	WHERE attrelid IN ('v_feeling'::regclass, 'v_feelings'::regclass, 'v_pairs'::regclass, 'v_domtext'::regclass, 'v_dec38'::regclass) AND attname = 'v'}),
	'numeric(38,20),character varying(20),text,text,text', 'types green does not know are text there, domains what they stand for, others the same');

start_sync($green, 's');
wait_sync($green, 's');

sub values_equal
{
	my ($what) = @_;
	foreach my $table (@tables)
	{
		my $expression = $exact{ substr($table, 2) } // 'v';
		my $diff = compare_table($blue, $green, $table, $table, "id, $expression, v IS NOT DISTINCT FROM NULL");
		is($diff, '', "$what: $table") if $diff ne '';
		$blue->{bad}++ if $diff ne '';
	}
	is($blue->{bad} // 0, 0, "$what: all " . scalar(@tables) . ' tables of values are equal');
	$blue->{bad} = 0;
	is($green->safe_psql('postgres', 'SELECT count(*) FROM bcmig.quarantine'), '0', "$what: nothing in quarantine");
}
values_equal('copied');

# every row gets every other value of its list, one after the other, and back
my $most = 0;
foreach (@values) { $most = @$_ - 2 if @$_ - 2 > $most; }
my $bad = 0;
for (my $step = 1; $step <= $most; $step++)
{
	my $update = join(";\n", map { my $n = @$_ - 2; my $name = $_->[0];
		$step <= $n ? "UPDATE v_$name t SET v = o.v FROM o_$name o WHERE o.id = (t.id + $step - 1) % $n + 1" : () } @values);
	$blue->safe_psql('postgres', $update);
	# what is small enough to be looked at in every step
	next unless $step <= 3 || $step == $most;
	wait_sync($green, 's');
	values_equal("streamed, step $step");
}

# a change of scale alone is a change, as is '' against NULL and back
foreach my $change ([ 'v_dec', 1, '1', '1.000' ], [ 'v_dec', 1, '1.000', '1.0' ], [ 'v_words', 1, "''", 'NULL' ], [ 'v_words', 1, 'NULL', "''" ],
	[ 'v_words', 1, "''", "' '" ], [ 'v_dbl', 1, "'0'", "'-0'" ], [ 'v_fixed', 1, "''", 'NULL' ], [ 'v_blob', 1, "''", 'NULL' ], [ 'v_ints', 1, "'{1}'", "'[0:0]={1}'" ])
{
	my ($table, $id, $from, $to) = @$change;
	foreach my $value ($from, $to)
	{
		$blue->safe_psql('postgres', "UPDATE $table SET v = $value WHERE id = $id");
		wait_sync($green, 's');
	}
	my $query = "SELECT v::text, v IS NULL FROM $table WHERE id = $id";
	is($green->safe_psql('postgres', $query), $blue->safe_psql('postgres', $query), "$table: $from becomes $to");
}
drop_sync(q{'s'});

# ---------------------------------------------------------------------------
# Keys
# ---------------------------------------------------------------------------
# Chunks, windows, sweeps and re-reads all carry keys as literals.
$blue->safe_psql('postgres', q{
	CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	CREATE TABLE seeds (n serial, s text);
	INSERT INTO seeds (s) VALUES (''), (' '), ('a'), ('A'), ('a '), ('ä'), ('Ä'), (chr(2)), ('O''B'), ('x\\y'), ('\\'), ('"'), ('{,}'), ('NULL'),
		(U&'\+01F600'), (U&'\+10FFFF'), (U&'\FFFF'), (E'a\nb'), ('ß'), ('ss'), ('%'), ('_'), ('$1'), ('--'), ('10000'), ('9'), ('-1');
	CREATE TABLE k_text (k varchar(30) PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO k_text SELECT s || CASE g WHEN 0 THEN '' ELSE chr(64 + g) || s END, g, 0 FROM seeds, generate_series(0, 20) g ON CONFLICT DO NOTHING;
	CREATE TABLE k_ci (k text COLLATE ci PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO k_ci SELECT 'k' || g, g, 0 FROM generate_series(1, 400) g;
	CREATE TABLE k_c (k text COLLATE "C" PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO k_c SELECT k, v, 0 FROM k_text;
	CREATE TABLE k_date (k timestamp(3), c char(4), v int, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (c, k));
	INSERT INTO k_date SELECT timestamp '1753-01-01' + g * interval '1 day 23:59:59.003', CASE g % 3 WHEN 0 THEN '' WHEN 1 THEN 'ab' ELSE ' b' END, g, 0 FROM generate_series(0, 400) g;
	CREATE TABLE k_num (k numeric PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO k_num SELECT g / 8.0, g, 0 FROM generate_series(-200, 200) g;
	CREATE TABLE k_float (k float8 PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO k_float SELECT g / 7.0::float8, g, 0 FROM generate_series(-200, 200) g;
	CREATE TABLE k_bytes (k bytea, u uuid, v int, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (k, u));
	INSERT INTO k_bytes SELECT decode(lpad(to_hex(g * 89 % 65536), 6, '0'), 'hex'), CASE WHEN g % 2 = 0 THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE gen_random_uuid() END, g, 0 FROM generate_series(0, 400) g;
	CREATE TABLE k_tz (k timestamptz PRIMARY KEY, b boolean, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO k_tz SELECT timestamptz '2026-10-24 20:00Z' + g * interval '7 min 1.000001 s', g % 2 = 0, g, 0 FROM generate_series(0, 400) g;
	CREATE TABLE k_span (k interval, r numrange, v int, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (k, r));
	INSERT INTO k_span SELECT g * interval '1 day -1 hour', numrange(g, g + 1.50), g, 0 FROM generate_series(-200, 200) g;
	});
my @key_tables = qw(k_text k_ci k_c k_date k_num k_float k_bytes k_tz k_span);
foreach my $table (@key_tables)
{
	$blue->safe_psql('postgres', "CREATE TABLE r_$table (LIKE $table INCLUDING ALL); INSERT INTO r_$table SELECT * FROM $table;");
	track($blue, $table);
	track($blue, "r_$table", 'rowversion');
}
my @all_keys = (@key_tables, map { "r_$_" } @key_tables);
$green->safe_psql('postgres', q{SELECT bcmig_create_sync('keys', 'blue', '{"chunk_rows": 100, "max_delete_percent": 100}')});
$green->safe_psql('postgres', "SELECT bcmig_add_table('keys', t) FROM unnest(ARRAY['" . join("','", @all_keys) . "']) t");
start_sync($green, 'keys');
wait_sync($green, 'keys');
all_equal($blue, $green, 'keys, copied in chunks', @all_keys);
is($green->safe_psql('postgres', 'SELECT count(*) FROM (SELECT table_id FROM bcmig.copy_chunk GROUP BY 1 HAVING count(*) < 4) x'), '0', 'every one by chunks');

foreach my $prefix ('', 'r_')
{
	$blue->safe_psql('postgres', qq{
		-- only the case, only a trailing blank, only the scale, only the sign of zero
		UPDATE ${prefix}k_ci SET k = upper(k) WHERE v % 3 = 0; UPDATE ${prefix}k_ci SET v = -v WHERE v % 5 = 0;
		UPDATE ${prefix}k_text SET k = k || ' ' WHERE v = 3 OR k = 'Ä'; UPDATE ${prefix}k_text SET k = 'Q' || chr(7) WHERE k = ''; DELETE FROM ${prefix}k_text WHERE v = 5;
		UPDATE ${prefix}k_c SET k = k || '!' WHERE v BETWEEN 6 AND 9; DELETE FROM ${prefix}k_c WHERE v = 11;
		UPDATE ${prefix}k_date SET k = k + interval '0.004 s' WHERE v % 7 = 0; DELETE FROM ${prefix}k_date WHERE v % 4 = 0;
		UPDATE ${prefix}k_num SET k = k::numeric(20,8) WHERE v % 2 = 0; DELETE FROM ${prefix}k_num WHERE v % 9 = 0;
		UPDATE ${prefix}k_float SET k = '-0' WHERE k = 0; DELETE FROM ${prefix}k_float WHERE v % 6 = 5; UPDATE ${prefix}k_float SET k = k + 100.1 WHERE v % 10 = 3;
		UPDATE ${prefix}k_bytes SET k = k || '\\x00' WHERE v % 5 = 0; DELETE FROM ${prefix}k_bytes WHERE v % 4 = 1;
		UPDATE ${prefix}k_tz SET k = k + interval '0.000001 s' WHERE v % 3 = 0; DELETE FROM ${prefix}k_tz WHERE v % 4 = 1;
		UPDATE ${prefix}k_span SET k = k - interval '1 mon' WHERE v % 3 = 0; DELETE FROM ${prefix}k_span WHERE v % 4 = 1;
		UPDATE ${prefix}k_span SET r = numrange(lower(r), upper(r) + 0.000) WHERE v % 5 = 0;});
}
wait_sync($green, 'keys');
all_equal($blue, $green, 'keys, changed', @all_keys);
is($green->safe_psql('postgres', 'SELECT count(*) FROM bcmig.quarantine'), '0', 'no key in quarantine');
drop_sync(q{'keys'});

# ---------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------
my $sync = q{a "sync's" $1 %s. Ünï };
my @names = ('quote"d', "apo'strophe", 'dot.ted.name', 'Cust$No_$437dbf0e-84ff', 'trailing blank ', ' leading', 'back\\slash', 'select', 'order', 'user',
	'Cód_ Convenio (LCY)', 'x' x 63, 'é' x 31, 'Unit Cost % [LCY]', 'UPPER', 'a,b', '{json}', "tab\there", 'excluded', 'bcmig_rows', 'bcmig_feed');
my @columns = (@names, qw(g w k t c b x id xid ctid_ bc_op bc_rowversion table "all" n r bcmig_r bcmig_n timestamp));
sub ident { my ($n) = @_; $n =~ s/"/""/g; return qq{"$n"}; }
sub literal { my ($n) = @_; $n =~ s/\\/\\\\/g; $n =~ s/'/''/g; return "E'$n'"; }

$blue->safe_psql('postgres', 'CREATE SCHEMA ' . ident('Sch.ema "x" '));
$green->safe_psql('postgres', 'CREATE SCHEMA ' . ident('Green "Sch.ema" ') . '; SELECT bcmig_create_sync(' . literal($sync) . q{, 'blue')});
my $n = 0;
my @named;
foreach my $name (@names)
{
	my $table = ident('Sch.ema "x" ') . '.' . ident($name);
	my $stamp = $n % 2 ? 'timestamp' : q{sta'mp "x"};
	my $cols = join(', ', map { ident($_) . ' text' } grep { $_ ne $stamp && $_ ne 'timestamp' } @columns);
	my $key = ident($names[$n]);	# every name is a key once, and another a secondary unique key
	my $second = ident($names[ ($n + 1) % @names ]);
	my $kind = $n++ % 3 ? 'change_tracking' : 'rowversion';

	$blue->safe_psql('postgres', "CREATE TABLE $table ($cols, UNIQUE ($second), PRIMARY KEY ($key, \"order\"" . ($key eq '"order"' ? ', "user"' : '') . '));'
		  . "INSERT INTO $table ($key, \"order\"" . ($key eq '"order"' ? ', "user"' : '') . ", $second) SELECT 'k' || g, 'o' || g" . ($key eq '"order"' ? ", 'u'" : '') . ", 's' || g FROM generate_series(1, 50) g;"
		  . 'SELECT bcmig_blue.track(' . literal($table) . ", '$kind', " . literal($stamp) . ')')
	  if $key ne '"order"' && $second ne '"order"' && $key ne '"user"';
	next if $key eq '"order"' || $second eq '"order"' || $key eq '"user"';
	my $target = ident('Green "Sch.ema" ') . '.' . ident($name);
	$green->safe_psql('postgres', 'SELECT bcmig_add_table(' . literal($sync) . ', ' . literal($name) . ', ' . literal($target) . ", jsonb_build_object('source_schema', " . literal('Sch.ema "x" ') . '))');
	push @named, [ $table, $target, $key, $second ];
}
$green->safe_psql('postgres', 'SELECT bcmig_start_sync(' . literal($sync) . ')');
wait_sync($green, $sync =~ s/'/''/gr);

# green renames what collides with its own columns
my %renamed = map { split /\|/, $_, 2 } split /\n/, $green->safe_psql('postgres',
	q{SELECT DISTINCT source_column, quote_ident(target_column) FROM bcmig.column_map WHERE source_column IN ('bc_op', 'bc_rowversion')});
is(scalar(keys %renamed), 2, 'columns that collide with those of bcmig have another name');
sub named_equal
{
	my ($what) = @_;
	my @sides;
	foreach my $side ([ $blue, 0 ], [ $green, 1 ])
	{
		my ($node, $i) = @$side;
		my $list = join(', ', map { $i ? $renamed{$_} // ident($_) : ident($_) } grep { $_ ne 'timestamp' } @columns);
		push @sides, $node->safe_psql('postgres', join(' UNION ALL ', map { 'SELECT ' . literal($_->[0]) . ", count(*), string_agg(md5(ROW($list)::text), ' ' ORDER BY $_->[2] COLLATE \"C\") FROM $_->[$i]" } @named));
	}
	is($sides[1], $sides[0], "$what: tables and columns of every name are equal");
}
cmp_ok(scalar(@named), '>=', 17, 'tables of every name were added');
named_equal('copied');
foreach my $t (@named)
{
	my ($source, $target, $key, $second) = @$t;
	$blue->safe_psql('postgres', "UPDATE $source SET bc_op = 'U', bc_rowversion = '1', w = 'w', g = 'g', $second = $second || 'x' WHERE $key < 'k3';"
		  . "UPDATE $source SET $key = $key || ' ', x = 'e' WHERE $key LIKE 'k4%'; DELETE FROM $source WHERE $key LIKE 'k5%'; INSERT INTO $source ($key, \"order\", n) VALUES ('new', 'o', 'n')");
}
wait_sync($green, $sync =~ s/'/''/gr);
named_equal('streamed');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.table_status WHERE state <> 'streaming' OR last_error IS NOT NULL}), '0', 'without an error');

# every call that takes a name takes these, and every statement in a hint of theirs runs
my $odd = literal($named[0][1]);
foreach my $call ("bcmig_suspend_table(%s, $odd)", "bcmig_resume_table(%s, $odd)", "bcmig_resync_table(%s, $odd)", "bcmig_sweep_deletes(%s, $odd)",
	"bcmig_sync_now(%s, $odd)", "bcmig_alter_table(%s, $odd, '{\"batch_rows\": 10}')", 'bcmig_status(%s)', 'bcmig_preflight(%s)', 'bcmig_estimate(%s)')
{
	my $sql = 'SELECT 1 FROM ' . sprintf($call, literal($sync)) . ' LIMIT 1';
	is($green->psql('postgres', $sql), 0, $call);
}
wait_sync($green, $sync =~ s/'/''/gr);
named_equal('after a resync');
is($green->psql('postgres', $green->safe_psql('postgres', 'SELECT next_step FROM bcmig_status(' . literal($sync) . ')')), 0, 'the next step that bcmig_status names runs');
drop_sync(literal($sync));
is($green->safe_psql('postgres', q{SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE nspname LIKE 'Green%' AND relkind = 'r'}), '0', 'the tables went with their sync');

# ---------------------------------------------------------------------------
# 20 MB
# ---------------------------------------------------------------------------
my $rows = 15;
my $mb = 20;
$blue->safe_psql('postgres', qq{
	CREATE TABLE big (id int PRIMARY KEY, b bytea, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO big SELECT i, CASE WHEN i % 2 = 0 THEN convert_to(repeat(md5(i::text), $mb * 32768), 'UTF8') END, CASE WHEN i % 2 = 1 THEN repeat(md5(i::text), $mb * 32768) END, 0 FROM generate_series(1, $rows) i;});
track($blue, 'big');
$green->safe_psql('postgres', q{SELECT bcmig_create_sync('big', 'blue', '{"workers": 1, "maintenance_role": "bcmig_maintenance"}'); SELECT bcmig_add_table('big', 'big');});

# most private memory of any worker, in MB, until a query is true
sub memory_until
{
	my ($query) = @_;
	my $most = 0;
	my $deadline = time + 120;
	while (time < $deadline)
	{
		foreach my $pid (pids($green, 'bcmig worker'))
		{
			open(my $f, '<', "/proc/$pid/status") or next;
			while (<$f>) { $most = $1 / 1024 if /^RssAnon:\s+(\d+)/ && $1 / 1024 > $most; }
			close $f;
		}
		return $most if $green->safe_psql('postgres', $query) eq 't';
	}
	return 1e9;
}
# a fetched value is there as text in the wrapper, as hex twice for bytea, as
# itself and as a tuple: some 10 times its size; all of them would be $rows times more
my $bound = 10 * $mb;
my $streaming = "SELECT every(state = 'streaming') FROM bcmig.table_status WHERE sync = 'big'";
my $sum = "coalesce(md5(b), '-') || coalesce(md5(t), '-')";
start_sync($green, 'big');
cmp_ok(memory_until($streaming), '<', $bound, "copy of $rows values of $mb MB: private memory of the worker");
wait_sync($green, 'big');
is(compare_table($blue, $green, 'big', 'big', "id, $sum"), '', 'and they are equal');

$blue->safe_psql('postgres', "UPDATE big SET b = convert_to(t, 'UTF8'), t = convert_from(b, 'UTF8')");
my $swapped = 'SELECT every((b IS NULL) = (id % 2 = 0)) FROM big';
cmp_ok(memory_until($swapped), '<', $bound, 'window of them: private memory of the worker');
wait_sync($green, 'big');
is(compare_table($blue, $green, 'big', 'big', "id, $sum"), '', 'and they are equal');

# row by row, since one is refused
green_behind($green, 'ALTER TABLE big ADD CHECK (id <> 7 OR t IS NULL)');
$blue->safe_psql('postgres', "UPDATE big SET b = convert_to(t, 'UTF8'), t = convert_from(b, 'UTF8')");
cmp_ok(memory_until("SELECT count(*) = 1 FROM bcmig.quarantine"), '<', $bound, 'window in halves: private memory of the worker');
is($green->safe_psql('postgres', 'SELECT pg_column_size(image) < 1000 FROM bcmig.quarantine'), 't', 'the quarantine shows long values by their length');
green_behind($green, q{ALTER TABLE big DROP CONSTRAINT big_check; SELECT bcmig_retry_quarantine('big');});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.quarantine'), 'the retry empties it');
is(compare_table($blue, $green, 'big', 'big', "id, $sum"), '', 'and they are equal');

green_behind($green, q{UPDATE big SET t = 'x', b = 'x'; SELECT bcmig_resync_table('big', 'big');});
cmp_ok(memory_until("SELECT count(*) FILTER (WHERE t = 'x') = 0 FROM big"), '<', $bound, 'resync of them: private memory of the worker');
wait_sync($green, 'big');
is(compare_table($blue, $green, 'big', 'big', "id, $sum"), '', 'and they are equal');

done_testing();
