# Invariant 4: exact values, copied and streamed.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

# name => [type, value, another value]; values as SQL
my %columns = (
	'Date blank' => [ 'timestamp(3)', q{'1753-01-01 00:00:00'}, q{'1754-01-01 00:00:00'} ],
	'Closing.Date' => [ 'timestamp(3)', q{'2026-12-31 23:59:59'}, q{'9999-12-31 00:00:00'} ],
	'Time 1/300' => [ 'timestamp(3)', q{'1754-01-01 08:00:00.003'}, q{'2026-01-01 00:00:00.007'} ],
	'Amount' => [ 'numeric(38,20)', q{12345678901234567.12345678901234567890}, q{-0.00000000000000000001} ],
	'No typmod' => [ 'numeric', q{1.0}, q{1.00} ],
	'Duration' => [ 'bigint', q{-86400000}, q{9223372036854775807} ],
	'DateFormula' => [ 'varchar(32)', q{'10' || chr(2)}, q{chr(1) || chr(3) || chr(4) || chr(5) || chr(6) || chr(7)} ],
	'Blob' => [ 'bytea', q{'\x02457D5BF348CDC9C90700'}, q{'\x02457D5BF348CDC9C9D75108CF2FCA49510400'} ],
	'Blob empty' => [ 'bytea', q{''}, q{NULL} ],
	'Media Id' => [ 'uuid', q{'00000000-0000-0000-0000-000000000000'}, q{'ffffffff-ffff-ffff-ffff-ffffffffffff'} ],
	'Record Id' => [ 'bytea', q{'\x000000000000'}, q{'\x120000000087102700000000'} ],
	'Supplementary' => [ 'varchar(20)', q{U&'\+01F600 \+020000'}, q{U&'\0301a\200B'} ],
	'Trailing ' => [ 'varchar(20)', q{'A '}, q{'A'} ],
	'Empty or null' => [ 'varchar(20)', q{''}, q{NULL} ],
	'select' => [ 'text', q{'NULL'}, q{E'tab\t, newline\n, backslash \\\\, quote '' and "'} ],
	'Fixed' => [ 'char(5)', q{'ab'}, q{'abcde'} ],
	'Bool' => [ 'smallint', q{1}, q{0} ],
	'Real' => [ 'double precision', q{0.1::float8 + 0.2::float8}, q{'-Infinity'} ],
	'Stamp' => [ 'timestamptz', q{'2026-03-29 02:30:00+01'}, q{'infinity'} ],
	'List' => [ 'text[]', q!ARRAY['a,b', 'NULL', '', '{"']!, q{ARRAY[NULL, 'x']::text[]} ],
	'Json' => [ 'jsonb', q{'{"a": 1.00, "b": [null, ""]}'}, q{'{}'} ],
	'Bits' => [ 'bit varying(9)', q{B'010101'}, q{B''} ],
	"Cód_ Convenio 50%./'x" => [ 'varchar(9)', q{'é'}, q{'E' || chr(769)} ],
	'Mood' => [ 'mood', q{'sad'}, q{'not so sad'} ],
	'Dom' => [ 'positive', q{5}, q{6} ],
);
my @names = sort keys %columns;

sub id { my $n = shift; $n =~ s/"/""/g; return qq{"$n"} }

# 63 bytes, quotes, dots, $, accents, trailing blank
my $long = 'CRONUS International Ltd_$Ta"ble.with $x ÆØ' . 'y' x 15 . ' ';
my $table = id($long);
$blue->safe_psql('postgres', "CREATE TYPE mood AS ENUM ('sad', 'not so sad'); CREATE DOMAIN positive AS int CHECK (value > 0);
	CREATE TABLE $table (\"Key Code\" varchar(20), \"Line No_\" int, " . join(', ', map { id($_) . " $columns{$_}[0]" } @names)
	  . ', "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY ("Key Code", "Line No_"))');
my $insert = "INSERT INTO $table (\"Key Code\", \"Line No_\", " . join(', ', map { id($_) } @names) . ') SELECT ';
$blue->safe_psql('postgres', $insert . q{'a', i, } . join(', ', map { $columns{$_}[1] } @names) . ' FROM generate_series(1, 30) i');
# two codes that differ in case only, a blank one
$blue->safe_psql('postgres', $insert . q{unnest(ARRAY['A', 'Ä', '', ' ']), 1, } . join(', ', map { $columns{$_}[2] } @names));

$blue->safe_psql('postgres', q{
	CREATE TABLE lob (id int PRIMARY KEY, b bytea, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO lob SELECT i, convert_to(repeat('x' || i, 10000000), 'UTF8'), repeat('ä', 10000000 + i), 0 FROM generate_series(1, 4) i;
	INSERT INTO lob SELECT i, '', NULL, 0 FROM generate_series(5, 300) i;
	});

track($blue, 'public.' . $table);
track($blue, 'lob');
connect_blue($green, $blue, q{sync "one" $1.é});
my $name = $long;
$name =~ s/'/''/g;
my $sync = q{'sync "one" $1.é'};
$green->safe_psql('postgres', "SELECT bcmig_add_table($sync, '$name'), bcmig_add_table($sync, 'lob')");
start_sync($green, q{sync "one" $1.é});
wait_sync($green, q{sync "one" $1.é});

# every column as text, and how long it is
sub same
{
	my ($what) = @_;
	my $list = join(', ', '"Key Code"', '"Line No_"', map { my $i = id($_); "$i\::text, octet_length($i\::text)" } @names);
	is(compare_table($blue, $green, $table, $table, $list), '', "$what: every value is the same");
	is(compare_table($blue, $green, 'lob', 'lob', 'id, md5(b), md5(t), octet_length(b), octet_length(t)'), '', "$what: large values are the same");
}
same('copied');

$blue->safe_psql('postgres', "UPDATE $table SET " . join(', ', map { id($_) . " = $columns{$_}[2]" } @names) . q{ WHERE "Line No_" > 5});
$blue->safe_psql('postgres', q{UPDATE lob SET b = convert_to(repeat('new', 7000000), 'UTF8') WHERE id = 2; UPDATE lob SET b = NULL WHERE id = 6; UPDATE lob SET b = '', t = '' WHERE id = 1});
wait_sync($green, q{sync "one" $1.é});
same('updated');
$blue->safe_psql('postgres', "UPDATE $table SET " . join(', ', map { id($_) . " = $columns{$_}[1]" } @names) . q{ WHERE "Line No_" > 15});
wait_sync($green, q{sync "one" $1.é});
same('updated back');

# a change of nothing but a scale, or of '' to NULL, is a change
is($green->safe_psql('postgres', qq{SELECT count(*) FROM $table WHERE "No typmod"::text = '1.00' AND "Empty or null" IS NULL}), '14', 'scale and NULL arrive');
is($green->safe_psql('postgres', 'SELECT count(*) FROM bcmig.quarantine'), '0', 'nothing in quarantine');
like($green->safe_psql('postgres', qq{SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ',') FROM pg_attribute WHERE attrelid = '$table'::regclass AND attname IN ('Mood', 'Amount', 'bc_rowversion')}),
	qr/bc_rowversion bigint.*Amount numeric\(38,20\).*Mood text/, 'types: an enum green does not have is text');

done_testing();
