# The image of a row, both kinds: hashes made by C against hashes made by a
# program that knows only docs/consistency.md.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = ($ENV{BCMIG_SOURCE} // '.') . '/test/row_image';
my %image = (tsql => 'fields', postgres => 'record');
my $green = new_green('green');

my $stored = slurp_file("$source/vectors.txt");
my ($printed) = run_command([ 'python3', "$source/vectors.py" ]);
is($printed . "\n", $stored, 'vectors.txt is what vectors.py prints');

my @vectors = map { [ split /\t/ ] } split /\n/, $stored;
my %classes;
$classes{"$_->[0] $_->[1]"}++ foreach @vectors;
cmp_ok(scalar(@vectors), '>=', 100, 'there are vectors');
ok($classes{$_}, "vectors of $_") foreach 'tsql int', 'tsql decimal(38,20)', 'tsql nvarchar', 'tsql datetime', 'tsql uniqueidentifier',
  'tsql varbinary', 'tsql nvarchar,nvarchar', 'postgres numeric(38,20)', 'postgres text', 'postgres timestamp', 'postgres bytea';

# one answer for all: each line is a number and a hash
my $i = 0;
my @hashes = split /\n/, $green->safe_psql('postgres', join(' UNION ALL ',
	map { sprintf("SELECT %d, encode(bcmig_row_hash(ROW(%s), '%s'), 'hex')", $i++, $_->[2], $image{$_->[0]}) } @vectors) . ' ORDER BY 1');
is(scalar(@hashes), scalar(@vectors), 'every vector has a hash');
foreach my $v (@vectors)
{
	my (undef, $hash) = split /\|/, shift(@hashes) // '';
	is($hash, $v->[3], substr("$v->[0] $v->[2]", 0, 90));
}

# the claim of the second image: it is what PostgreSQL itself sends
is($green->safe_psql('postgres', 'SELECT count(*) FROM (' . join(' UNION ALL ',
		map { "SELECT bcmig_row_hash(ROW($_->[2]), 'record') = sha256(record_send(ROW($_->[2]))) AS same" } @vectors) . ') x WHERE NOT same'),
	'0', 'image record is record_send');

# numerics are read as they are stored: both headers, any sign, weight and scale, and packed in a row
is($green->safe_psql('postgres', q{
	CREATE TABLE n AS SELECT s * m * 10::numeric ^ e AS v FROM generate_series(-150, 150) e, unnest(ARRAY[1, -1]) s, unnest(ARRAY[1, 1234.5678, 9999]::numeric[]) m
		UNION ALL SELECT unnest(ARRAY['NaN', 'Infinity', '-Infinity', '0', '0.00', '1.50', '1e-70', '1e2000']::numeric[]) UNION ALL SELECT round(1::numeric / i, i) FROM generate_series(1, 100) i;
	SELECT count(*), count(*) FILTER (WHERE bcmig_row_hash(ROW(v), 'record') <> sha256(record_send(ROW(v)))) FROM n}), '1914|0', 'numerics of every shape');

done_testing();
