# Traffic after a failover, by on_promotion; after a recovery to a target, and
# after an older state was put back in place.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HAProxy;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Traffic;

my $blue = new_blue();
allow_switch($blue);
my $green = new_green('green', 'wal_level = replica', 'max_wal_senders = 5', 'wal_keep_size = 256MB');
$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;});
track($blue, 'item');
connect_blue($green, $blue, 's', '{"traffic_timeout": "2s"}');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'item')});
my $front = HAProxy->new(blue => ['b'], green => ['g']);
add_haproxy($green, 'front', $front);
start_sync($green, 's');
wait_sync($green, 's');
run_validation($green, 's', 'full');
is(set_traffic($green, 25), 'changed', 'to 25 %');

sub witness { return $blue->safe_psql('postgres', q{SELECT epoch || ' ' || nonce FROM bcmig_blue.witness WHERE sync = 's'}) }
sub stored { return $_[0]->safe_psql('postgres', q{SELECT epoch || ' ' || nonce FROM bcmig.traffic JOIN bcmig.incarnation USING (sync_id)}) }
sub kept { return $_[0]->poll_query_until('postgres', q{SELECT witness = 'kept' FROM bcmig.traffic_status}) }
sub new_node
{
	my ($name, $backup, %o) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init_from_backup($green, $backup, %o);
	return $node;
}

# --- what must be the same, one by one ---
ok(kept($green), 'blue has been told');
foreach my $case ([ q{system = '1'}, qr/^held: this is another cluster: system identifier \d+, was 1\. / ], [ 'database = 1', qr/^held: this is another database: oid \d+, was 1\. / ],
	[ q{machine = 'm'}, qr/^held: this is another machine: machine id ".*", was "m"\. / ], [ 'timeline = 7', qr/^held: an older state was restored: timeline 1, was 7\. / ],
	[ q{directory = 'd'}, qr/^held: this is another data directory .*, was d\. / ])
{
	$green->safe_psql('postgres', "UPDATE bcmig.incarnation SET $case->[0]");
	like(set_traffic($green, 20), $case->[1], "$case->[0]: held");
	$green->safe_psql('postgres', q{SELECT bcmig_adopt('s')});
	ok(kept($green), 'adopted');
	is(witness(), stored($green), 'and blue knows');
}
is(set_traffic($green, 20), 'changed', 'it goes on');

# --- held by a person too: adopting does not end that ---
$green->safe_psql('postgres', q{SELECT bcmig_hold_traffic('s', 'month end'); UPDATE bcmig.incarnation SET machine = 'm'});
my ($rc, $out, $err) = $green->psql('postgres', q{SELECT bcmig_resume_traffic('s')});
like($err, qr/may be a copy/, 'a hold from before the copy was made is not resumed');
$green->safe_psql('postgres', q{SELECT bcmig_adopt('s')});
is($green->safe_psql('postgres', 'SELECT held FROM bcmig.traffic'), 'month end', 'adopted, the hold stays');
$green->safe_psql('postgres', q{SELECT bcmig_resume_traffic('s')});
ok(kept($green), 'resumed: blue is told');
wait_sync($green, 's');
run_validation($green, 's', 'full');
is(set_traffic($green, 25), 'changed', 'to 25 % again');

# --- a standby that is promoted: on_promotion is hold ---
$green->backup('base');
my $first = new_node('first', 'base', has_streaming => 1);
my $second = new_node('second', 'base', has_streaming => 1);
$_->start foreach $first, $second;
$green->wait_for_catchup($_) foreach $first, $second;
$green->stop;
my ($weight) = $front->tell('get weight bc/g') =~ /^(\d+) / or die;
$front->tell('set weight bc/g 100');
my $strange = $front->green_share;
$first->promote;
like(held_why($first), qr/^this cluster was promoted or recovered: timeline 2, was 1\. .*bcmig_adopt/, 'a promoted standby: held');
ok(worked($first, 2), 'its workers go on');
is($front->green_share, $strange, 'and leaves it alone');
$first->stop;
$front->tell("set weight bc/g $weight");

# --- on_promotion continue: it goes on, and who comes back is held ---
$green->start;
$green->safe_psql('postgres', q{SELECT bcmig_alter_sync('s', '{"on_promotion": "continue"}')});
$green->backup('later');
$green->wait_for_catchup($second);
$green->stop;
my $before = witness();
$second->promote;
ok($second->poll_query_until('postgres', q{SELECT count(*) = 1 FROM bcmig.traffic_event WHERE event = 'promoted' AND detail = 'timeline 2, was 1'}), 'a promoted standby goes on');
ok(kept($second), 'blue is told');
is(witness(), stored($second), 'of its epoch');
cmp_ok((split / /, witness())[0], '>', 2 * 2**32, 'on its timeline');
is($second->safe_psql('postgres', 'SELECT held IS NULL FROM bcmig.traffic'), 't', 'nothing is held');
is(set_traffic($second, 10), 'changed', 'it drives');
$green->start;
like(held_why($green), qr/^blue was told at .*timeline 2/, 'the old primary comes back: held');
is($front->green_share > 9 && $front->green_share < 11, 1, 'the balancer does what the new one wants');
$green->stop;

# --- a recovery to a target is no failover, whatever the option ---
my $recovered = new_node('recovered', 'later', has_restoring => 1, standby => 0);
$recovered->append_conf('postgresql.conf', "recovery_target = 'immediate'\nrecovery_target_action = 'promote'\n");
$recovered->start;
like(held_why($recovered), qr/^this cluster was promoted or recovered: timeline \d, was 1, recovered to a target: reached consistency\. /, 'recovered to a target: held');
$recovered->stop;

# --- an older state put back in place: everything is the same but the witness ---
ok(kept($second), 'blue has been told');
$second->stop;
my $data = $second->data_dir;
my $saved = $second->backup_dir;
system_or_bail('cp', '-a', "$data/.", "$saved/");
$second->start;
is(set_traffic($second, 5), 'changed', 'to 5 %');
ok(kept($second), 'blue has been told');
my $newer = witness();
$second->stop;
system_or_bail('find', $data, '-mindepth', '1', '-maxdepth', '1', '!', '-name', 'PG_VERSION', '-exec', 'rm', '-rf', '{}', '+');
system_or_bail('cp', '-a', "$saved/.", "$data/");
$front->tell('set weight bc/g 100');
$strange = $front->green_share;
$second->start;
like(held_why($second), qr/^blue was told at .* of epoch ${\(split ' ', $newer)[0]} by .*, port ${\$second->port}, /, 'an older state in place: blue knows better');
is($front->green_share, $strange, 'the balancer is left alone');
$second->safe_psql('postgres', q{SELECT bcmig_adopt('s')});
ok(kept($second), 'adopted');
cmp_ok((split ' ', witness())[0], '>', (split ' ', $newer)[0], 'its epoch is above all there were');
ok(poll(sub { abs($front->green_share - 10) < 0.5 }), 'and its weight is that of the state that was put back');

# --- writes on green that are not on blue yet: a copy does not bring them there ---
$second->safe_psql('postgres', q{
	SELECT bcmig_alter_sync('s', '{"reverse": false}');
	BEGIN; SELECT bcmig.arm_journal('s'); SELECT bcmig.lift_fence('s'); COMMIT;
	UPDATE bcmig.traffic SET green_percent = 100;
	SELECT bcmig_remove_balancer('s', 'front');
	UPDATE item SET v = 'written on green' WHERE id = 1;});
$second->stop;
$second->backup_fs_cold('cold');
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($second, 'cold');
$copy->start;
like(held_why($copy), qr/another data directory/, 'the copy is held');

# as if the job that brings writes back had come before the one that held it
$copy->safe_psql('postgres', q{
	UPDATE bcmig.incarnation SET disputed = NULL, server_start = pg_postmaster_start_time();
	UPDATE bcmig.traffic SET held = NULL;
	SELECT bcmig_alter_sync('s', '{"reverse": true}');});
like(held_why($copy), qr/another data directory/, 'before it writes to blue it is held');
is($blue->safe_psql('postgres', 'SELECT v FROM item WHERE id = 1'), 'v1', 'blue has what it had');
is($copy->safe_psql('postgres', 'SELECT count(*) FROM bcmig.journal WHERE settled_at IS NULL'), '1', 'the entry waits');
$copy->stop;
$second->start;
$second->safe_psql('postgres', q{SELECT bcmig_alter_sync('s', '{"reverse": true}')});
ok($blue->poll_query_until('postgres', q{SELECT v = 'written on green' FROM item WHERE id = 1}), 'the original brings it there');

done_testing();
