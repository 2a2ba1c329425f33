# Chaos.pm: faults, recovery, books; again and again until time is up.
package Chaos;

use strict;
use warnings;

use ChaosBooks;
use ChaosFaults;
use ChaosWorld;
use Time::HiRes qw(time usleep);

# %o: world, seed, seconds (0 = no matter), steps (0 = no matter), only (which
# faults), plain (none that need anything), brief (factor for how long faults
# last), recovery (seconds it may take), say (a sub for each line).  Returns what
# is wrong; nothing is well.
sub run
{
	my (%o) = @_;
	my ($world, $say) = @o{qw(world say)};
	my @from = ChaosFaults::available($world, $o{only});
	@from = grep { !$_->{needs} } @from if $o{plain};
	my @deck;
	my %seen;					# fault -> {times, seconds => [], acts => {}}
	my $from = time;
	my $step = 0;
	my @wrong;

	die "no fault matches '$o{only}'" unless @from;
	srand($o{seed});
	while (!@wrong && ($o{seconds} == 0 || time - $from < $o{seconds}) && ($o{steps} == 0 || $step < $o{steps}))
	{
		my @group = ChaosFaults::next_group(\@deck, $o{brief} // 1, @from);
		my $names = join ' + ', map { sprintf '%s (%.1f s)', $_->{fault}{name}, $_->{seconds} } @group;
		my ($seconds, $acts);
		my $before = ChaosBooks::remember($world);

		$step++;
		$world->start_workload;
		usleep(1_000_000);
		eval {
			do_faults($world, @group);
			($seconds, $acts) = ChaosBooks::recover($world, $o{recovery});
		};
		push @wrong, $@ if $@;
		@wrong = eval { ChaosBooks::check($world, $before) } unless @wrong;
		push @wrong, "could not be compared: $@" if $@ && !@wrong;
		if (@wrong)
		{
			$say->("step $step of seed $o{seed}: $names");
			$say->("LOST: $_") foreach map { split /\n/ } @wrong;
			last;
		}
		$say->(sprintf '%4d [%d s]  %s: back in %.1f s, %d tables, %d rows equal%s', $step, time - $from, $names, $seconds, $world->{compared}, $world->{rows},
			@$acts ? '; ' . join('; ', @$acts) : '');
		foreach my $f (@group)
		{
			my $s = $seen{ $f->{fault}{name} } //= { seconds => [], acts => {} };

			push @{ $s->{seconds} }, $seconds;
			$s->{acts}{ $_ =~ s/ \(.*//sr }++ foreach @$acts;
		}
	}
	$say->(table(\%seen));
	$say->(sprintf 'seed %d: %d steps, %d faults; blue lost %d bytes of WAL in crashes', $o{seed}, $step, faults(\%seen), $world->{lost_wal} // 0);
	return @wrong;
}

# Begin each after its pause, end each when it has lasted.
sub do_faults
{
	my ($world, @group) = @_;
	my $from = time;
	my (@plan, @late, $failed);

	foreach my $f (@group)
	{
		push @plan, [ $f->{after}, 'begin', $f ], [ $f->{after} + $f->{seconds}, 'end', $f ];
	}
	foreach my $p (sort { $a->[0] <=> $b->[0] } @plan)
	{
		my ($at, $what, $f) = @$p;
		my $left = $from + $at - time;

		usleep($left * 1e6) if $left > 0;
		next if eval { $f->{fault}{$what}->($world, $f->{drawn}); 1 };
		if ($what eq 'end')
		{
			push @late, $f;
			next;
		}
		$failed //= "begin of $f->{fault}{name}: $@";
	}
	foreach my $f (@late)
	{
		for (my $left = 300; $left > 0; $left--)
		{
			last if eval { $f->{fault}{end}->($world, $f->{drawn}); 1 };
			$failed //= "end of $f->{fault}{name}: $@" if $left == 1;
			usleep(200_000);
		}
	}
	die $failed if defined $failed;
}

sub faults
{
	my ($seen) = @_;
	my $n = 0;

	$n += @{ $_->{seconds} } foreach values %$seen;
	return $n;
}

# The fault table.
sub table
{
	my ($seen) = @_;
	my @lines = (sprintf '%-46s %5s %10s %10s  %s', 'fault', 'times', 'median s', 'worst s', 'how');

	foreach my $name (sort keys %$seen)
	{
		my $s = $seen->{$name};
		my @t = sort { $a <=> $b } @{ $s->{seconds} };
		my $how = join '; ', map { "$_ ($s->{acts}{$_})" } sort keys %{ $s->{acts} };

		push @lines, sprintf '%-46s %5d %10.1f %10.1f  %s', $name, scalar @t, $t[ @t / 2 ], $t[-1], $how eq '' ? 'by itself' : $how;
	}
	return @lines;
}

1;
