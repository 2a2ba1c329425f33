# Invariant 1: no lost change.  Eight writers, a hundred rounds of random
# interleaving: transactions stay open across windows, are prepared, rolled
# back, have savepoints.  Every committed row arrives, no other.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $seed = $ENV{BCMIG_SEED} // time ^ $$;
srand($seed);
note("BCMIG_SEED=$seed");

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE ct (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE rv (id int PRIMARY KEY, v text, "$systemId" uuid NOT NULL DEFAULT gen_random_uuid() UNIQUE, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO ct SELECT i, 'start', 0 FROM generate_series(1, 200) i;
	INSERT INTO rv SELECT i, 'start' FROM generate_series(1, 200) i;
	});
track($blue, 'ct');
track($blue, 'rv', 'rowversion');
connect_blue($green, $blue, 's', '{"max_delete_percent": 100}');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'ct'), bcmig_add_table('s', 'rv')});
start_sync($green, 's');
wait_streaming($green, 's');

my @writers;
foreach my $n (0 .. 7)
{
	push @writers, { session => $blue->background_psql('postgres', on_error_die => 1), open => 0, n => $n };
}
my (@prepared, $prepared_count);
my %done = (commit => 0, rollback => 0, prepare => 0);

# each writer has keys of its own (id % 8), so that nobody waits for a lock
sub statement
{
	my ($w, $round) = @_;
	my $id = 8 * int(rand(60)) + $w->{n};
	my $v = "w$w->{n} r$round";
	my $table = rand() < 0.5 ? 'ct' : 'rv';
	my $kind = int(rand(5));
	return "INSERT INTO $table (id, v) VALUES ($id, '$v') ON CONFLICT (id) DO UPDATE SET v = excluded.v" if $kind < 2;
	return "UPDATE $table SET v = '$v' WHERE id % 8 = $w->{n} AND id < $id + 40" if $kind == 2;
	return "DELETE FROM $table WHERE id = $id" if $kind == 3;
	return "SAVEPOINT a; DELETE FROM ct WHERE id % 8 = $w->{n}; UPDATE rv SET v = 'never' WHERE id % 8 = $w->{n}; "
	  . "ROLLBACK TO a; UPDATE $table SET v = '$v sp' WHERE id = $id";
}

foreach my $round (1 .. 100)
{
	foreach my $w (@writers)
	{
		# stays as it is this round, open or not; keys of a prepared one are locked
		next if $w->{prepared} || rand() < 0.4;
		my $s = $w->{session};
		if (!$w->{open})
		{
			$s->query_safe('BEGIN');
			$w->{open} = 1;
		}
		$s->query_safe(statement($w, $round)) foreach 1 .. 1 + int(rand(3));
		my $end = rand();
		if ($end < 0.4)
		{
			$s->query_safe('COMMIT');
			$w->{open} = 0;
			$done{commit}++;
		}
		elsif ($end < 0.55)
		{
			$s->query_safe('ROLLBACK');
			$w->{open} = 0;
			$done{rollback}++;
		}
		elsif ($end < 0.6 && !$w->{prepared})
		{
			my $gid = 'g' . ++$prepared_count;
			$s->query_safe("PREPARE TRANSACTION '$gid'");
			$w->{prepared} = $gid;
			$w->{open} = 0;
			push @prepared, { gid => $gid, writer => $w, until => $round + 1 + int(rand(8)) };
			$done{prepare}++;
		}
	}
	foreach my $p (@prepared)
	{
		next if $p->{until} > $round && $round < 100;
		$blue->safe_psql('postgres', (rand() < 0.7 ? 'COMMIT' : 'ROLLBACK') . " PREPARED '$p->{gid}'");
		$p->{settled} = 1;
		$p->{writer}{prepared} = undef;
	}
	@prepared = grep { !$_->{settled} } @prepared;

	if ($round % 25 == 0)
	{
		my $open = grep { $_->{open} } @writers;
		ok($green->poll_query_until('postgres', 'SELECT min(windows) >= 1 FROM bcmig.live_tables()'),
			"round $round: windows go on with $open transactions open");
	}
}
foreach my $w (@writers)
{
	$w->{session}->query_safe(rand() < 0.5 ? 'COMMIT' : 'ROLLBACK') if $w->{open};
	$w->{session}->quit;
}
note("commits $done{commit}, rollbacks $done{rollback}, prepared $done{prepare}");
cmp_ok($done{commit}, '>', 50, 'there were commits');
cmp_ok($done{prepare}, '>', 3, 'there were prepared transactions');
wait_sync($green, 's');
all_equal($blue, $green, 'in the end', 'ct', 'rv');
is($green->safe_psql('postgres', 'SELECT count(*) FROM bcmig.quarantine'), '0', 'nothing in quarantine');

done_testing();
