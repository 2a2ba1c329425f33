# Hostile names and values in every statement for blue, in both dialects: one
# statement each, and what was put in comes out byte for byte.
use strict;
use warnings;
use Cwd 'abs_path';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = $ENV{BCMIG_SOURCE} // '.';
my $statements = $ENV{QUOTING_STATEMENTS} // 100_000;
my $seed = $ENV{QUOTING_SEED} // int(rand(1_000_000));
# of a shape the grammar has not seen it takes seconds
my $judged = $ENV{QUOTING_JUDGED} // 4;
note("seed $seed");

# the sources as they were built for the extension, and the test's own
my $module = abs_path(PostgreSQL::Test::Utils::tempdir()) . '/quoting.so';
chomp(my $include = `pg_config --includedir-server`);
my $made = system('sh', '-c', "gcc -O1 -fPIC -fvisibility=hidden -shared -I'$include' "
	  . join(' ', map { "-I'$source/src$_'" } '', qw(/blue /sync /check /switch /plan /report))
	  . " -o '$module' '$source/test/quoting/quoting.c' '$source'/src/*.o '$source'/src/*/*.o -lxml2 -lz -lcurl");
is($made, 0, 'the module of the test builds') or BAIL_OUT('no module');

my $node = PostgreSQL::Test::Cluster->new('quoting');
$node->init(extra => [ '--locale=C.UTF-8', '--encoding=UTF8' ]);
$node->start;
$node->safe_psql('postgres', qq{
	CREATE FUNCTION quoting(text, bigint, int) RETURNS text LANGUAGE c AS '$module';
	CREATE FUNCTION quoting_statements(text, bigint, OUT what text, OUT sql text) RETURNS SETOF record LANGUAGE c AS '$module'});

foreach my $dialect (qw(postgres tsql))
{
	my $each = $node->safe_psql('postgres', "SELECT count(*) FROM quoting_statements('$dialect', 1)");
	my $sets = int(($statements + $each - 1) / $each);
	my ($rc, $out, $err) = $node->psql('postgres', "SELECT quoting('$dialect', $seed, $sets)");
	is($rc, 0, "$dialect: names and values come out as they went in, seed $seed") or diag(substr($err, 0, 3000));
	my ($n, $items) = split / /, ($out || '0 0');
	cmp_ok($n, '>=', $statements, "$dialect: $n statements, $items items of them compared");
}

# the lexer of the test is ours; a grammar made elsewhere agrees, for some
my $sample = $node->safe_psql('postgres', qq{SELECT string_agg(encode(convert_to(sql, 'UTF8'), 'hex'), E'\\n') FROM
	(SELECT DISTINCT ON (what) what, sql FROM quoting_statements('tsql', $seed) WHERE what IN ('rows_by_key', 'chunk', 'key_list', 'with_rows', 'sums', 'chunk_bound') LIMIT $judged) x});
my ($verdicts, $err) = ('', '');
IPC::Run::run([ '/usr/bin/python3', '-c', q{
import sys
sys.path.insert(0, sys.argv[1])
from grammar import Grammar
g = Grammar(sys.argv[2])
for line in sys.stdin:
    print(g.accepts(bytes.fromhex(line.strip()).decode('utf-8')) or 'ok')
}, "$source/test/tds_server", "$source/tsql-verdicts" ], '<', \$sample, '>', \$verdicts, '2>', \$err);
is($verdicts, "ok\n" x $judged, "sqlfluff accepts $judged of them") or diag($err);

done_testing();
