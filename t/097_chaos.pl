# A short run of make chaos: the same faults in the same order every time, the
# books compared after each group by a client that is not bcmig.
#
# Only faults that need neither root nor other packages.  CHAOS_SEED=n tries
# others; test/chaos/run is the long run.
use strict;
use warnings;
use FindBin;
use lib 't/lib', "$FindBin::RealBin/../test/chaos";
use BcmigTest;
use Chaos;
use ChaosFaults;
use ChaosWorld;
use Test::More;

my $seed = $ENV{CHAOS_SEED} // 97;
diag("CHAOS_SEED=$seed");

# what the network does, bytes for bytes, before it is trusted
my $world = ChaosWorld->new(n => 40, customers => 60, rate => 20, disk => '');
$world->network('cut');
my ($ok, $said) = $world->try_sql('green', "SELECT status FROM bcmig_check_environment('blue') WHERE status <> 'ok' LIMIT 1", user => 'migrator');
isnt($said, '', 'a cut network is noticed');
$world->network('pass');

$world->start_workload;
$world->start_syncs;
my @wrong = Chaos::run(
	world => $world, seed => $seed, seconds => 0, steps => 7, brief => 0.25, plain => 1, recovery => 120, say => sub { diag($_) foreach @_ },
	only => 'kill -9 bcmig worker|^green: immediate|network: (cut|half)|loses commits|restored|^DBA: (stops|has a table)|prepared');
is(join("\n", @wrong), '', 'nothing is lost');
cmp_ok($world->posted, '>', 50, 'there was a load');

# a check that finds nothing must be able to: a row altered on green, a register
# that lacks its entry
$world->stop_workload;
$world->sql('green', 'CREATE ROLE breaker SUPERUSER');
$world->green(q{SELECT bcmig_alter_sync('cronus', '{"maintenance_role": "breaker"}')});
$world->sql('green', $world->for_company(q{SET ROLE breaker; UPDATE {G_L Entry} SET "Amount" = "Amount" + 0.01, "Debit Amount" = "Debit Amount" + 0.01 WHERE "Entry No_" = (SELECT min("Entry No_") FROM {G_L Entry})}));
my @differ = ChaosBooks::differences($world);
is(scalar @differ, 1, 'one altered row is one table that differs');
like($differ[0] // '', qr/^CRONUS\$G_L Entry: .*only blue: .*only green: /s, 'shown from both sides');
like(join("\n", ChaosBooks::broken_rules($world, 'green')), qr/G1 G\/L entries sum to zero/, 'and the books do not balance');
is(join("\n", ChaosBooks::broken_rules($world, 'blue')), '', 'those of blue do');

$world->finish;
done_testing();
