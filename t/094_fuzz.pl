# libFuzzer on everything that takes bytes from outside, a short run: every
# input that was a defect once, every seed, and some more.
use strict;
use warnings;
use Test::More;

my $source = $ENV{BCMIG_SOURCE} // '.';
my $runs = $ENV{FUZZ_RUNS} // 5000;

# a server built with the sanitizers of another compiler
plan(skip_all => 'it has sanitizers of its own') if $ENV{SANITIZE_REPORTS};

my @out = split /\n/, `RUNS=$runs TMPDIR=\${TESTDATADIR:-/tmp} '$source/test/fuzz/run' 2>&1`;
my $code = $? >> 8;
if ($code == 2)
{
	plan(skip_all => $out[0]);
}
open(my $in, '<', "$source/test/fuzz/fuzz.c") or die "fuzz.c: $!";
my $targets = () = do { local $/; <$in> } =~ /^\t\{"[a-z_]+", fuzz_/mg;
cmp_ok($targets, '>=', 15, 'there are targets');
is($code, 0, 'no finding') or diag(join "\n", @out);
my ($ran, $few) = (0, 0);
foreach (@out)
{
	next unless /^ok - fuzz (\w+): (\d+) inputs, (\d+) edges/;
	$ran++;
	note($_);
	# a target that reaches nothing proves nothing
	$few++ if $2 < $runs || $3 < 20;
}
is($ran, $targets, "all targets ran, $runs inputs each");
is($few, 0, 'each reaches its parser');

done_testing();
