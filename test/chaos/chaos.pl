#!/usr/bin/perl
#
# chaos.pl: make chaos.  See test/chaos/run.
use strict;
use warnings;

my $stdout;
BEGIN { open $stdout, '>&', \*STDOUT; select $stdout; $| = 1; select STDOUT; }

use FindBin;
use lib "$FindBin::RealBin", "$FindBin::RealBin/../../t/lib";
use Chaos;
use ChaosWorld;
use Test::More;

sub say_it { print $stdout "$_\n" foreach @_ }

my $seed = $ENV{CHAOS_SEED} // int(time) % 1_000_000;
my $seconds = $ENV{CHAOS_SECONDS} // 1800;
my $steps = $ENV{CHAOS_STEPS} // 0;

say_it("CHAOS_SEED=$seed CHAOS_SECONDS=$seconds FAULTS='" . ($ENV{FAULTS} // '') . "'");
my $world;
$SIG{$_} = sub { $world->finish if defined $world; exit 1 } foreach qw(INT TERM HUP);
$world = ChaosWorld->new(n => $ENV{CHAOS_INVOICES} // 200, customers => 200, rate => $ENV{CHAOS_RATE} // 20, disk => $ENV{CHAOS_DISK} // '');
say_it('no small file system: the disk does not become full (needs root, and mount)') unless $world->{disk};

$world->start_workload;
$world->start_syncs;
my @wrong = Chaos::run(world => $world, seed => $seed, seconds => $seconds, steps => $steps, only => $ENV{FAULTS}, recovery => 180, say => \&say_it);
if (@wrong && $ENV{CHAOS_HOLD})
{
	say_it("blue: psql '" . $world->{blue}->connstr('postgres') . "'", "green: psql '" . $world->{green}->connstr('postgres') . "'");
	sleep $ENV{CHAOS_HOLD};
}
$world->finish;
ok(!@wrong, 'nothing is lost');
done_testing();
say_it(@wrong ? "CHAOS FAILED: CHAOS_SEED=$seed" : 'CHAOS OK');
