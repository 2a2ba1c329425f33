# Switch and rollback under load through a real HAProxy: what share each step
# has, a client that never stops, and writers of whom no acknowledged write may
# be missing on either side afterwards.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HAProxy;
use IPC::Run;
use Test::More;
use Time::HiRes qw(usleep);

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE entry (id bigint PRIMARY KEY, amount numeric(38,20), note text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO entry SELECT i, i / 3.0, 'old', 0 FROM generate_series(1, 2000) i;
	CREATE TABLE other (id bigint PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);});
track($blue, $_) foreach qw(entry other);
allow_switch($blue);
connect_blue($green, $blue, 's', '{"traffic_timeout": "2s"}');
$green->safe_psql('postgres', q{SELECT bcmig_alter_environment('blue', '{"fence_by": "call"}');
	SELECT bcmig_add_table('s', 'entry');
	SELECT bcmig_create_sync('o', 'blue'); SELECT bcmig_add_table('o', 'other');});

my $front = HAProxy->new(blue => [ 'blue1', 'blue2' ], green => [ 'green1', 'green2' ]);
$green->safe_psql('postgres', q{SELECT bcmig_add_balancer('s', 'front', 'haproxy', '} . $front->url
	. q{', '{"backend": "bc", "blue": ["blue1", "blue2"], "green": ["green1", "green2"]}')});
start_sync($green, $_) foreach qw(s o);
wait_sync($green, $_) foreach qw(s o);
is((run_validation($green, 's', 'full'))[1], 'ok', 'validated');

# --- who goes on all the time: readers, writers, another company on blue ---
my $dir = PostgreSQL::Test::Utils::tempdir();
my $stop = "$dir/stop";
my @readers = map { $front->client("$dir/reader$_", $stop) } 1 .. 2;
my (@writers, @inputs, @outputs);
foreach my $n (0 .. 2)
{
	my ($in, $out) = ('', '');
	push @inputs, \$in;
	push @outputs, \$out;
	push @writers, IPC::Run::start([ 'python3', $ENV{BCMIG_SOURCE} . '/t/lib/app.py', $green->connstr('postgres'), $blue->connstr('postgres'), 's',
		10_000_000 * ($n + 1), "$dir/writer$n", 150 ], '<', $inputs[$n], '>&', $outputs[$n]);
}
my $posting = IPC::Run::start([ 'pgbench', '-n', '-T', '600', '-c', '1', '-R', '150', '-f', write_file("$dir/post.sql",
	"INSERT INTO other (id, v) VALUES ((random() * 1e15)::bigint, 'posted') ON CONFLICT DO NOTHING;\n"), $blue->connstr('postgres') ], '>&', \my $posted);

sub write_file
{
	my ($name, $text) = @_;
	PostgreSQL::Test::Utils::append_to_file($name, $text);
	return $name;
}
sub acknowledged
{
	my $n = 0;
	foreach my $file (grep { -e $_ } map { "$dir/writer$_" } 0 .. 2)
	{
		$n += () = PostgreSQL::Test::Utils::slurp_file($file) =~ /^(?:blue|green) /mg;
	}
	return $n;
}
sub more_writes
{
	my $from = acknowledged();
	for (my $left = 3000; $left > 0; $left--)
	{
		return 1 if acknowledged() >= $from + 300;
		usleep(100_000);
	}
	return 0;
}
ok(more_writes(), 'writers are at work');

# --- each step, and what HAProxy makes of it ---
foreach my $percent (5, 10, 25, 50, 75, 100)
{
	$green->safe_psql('postgres', qq{SELECT bcmig_switch_traffic('s', '{$percent}', '{"stabilization": 0}')});
	wait_sync($green, 's', 'switched');
	my $share = $front->share_of_requests(10_000);
	ok(abs($share - $percent) <= 1, "of 10,000 requests $percent % go to green") or diag("share $share");
}
is($green->safe_psql('postgres', q{SELECT writes FROM bcmig.traffic WHERE sync_id = 1}), 'green', 'writers are on green');
ok(more_writes(), 'and write there');
is($green->safe_psql('postgres', q{SELECT state FROM bcmig.sync_status WHERE sync = 'o'}), 'streaming', 'the other company goes on');
my $before = $blue->safe_psql('postgres', 'SELECT count(*) FROM other');
ok($blue->poll_query_until('postgres', "SELECT count(*) > $before FROM other"), 'and posts on blue');

# --- back ---
$green->safe_psql('postgres', q{SELECT bcmig_rollback('s', 'a test')});
wait_sync($green, 's', 'rolled_back');
is($front->share_of_requests(1000), 0, 'nothing goes to green');
ok(more_writes(), 'writers write on blue again');

# --- and forth, and back, with writes on the way of the echo ---
run_validation($green, 's', 'incremental');
$green->safe_psql('postgres', q{SELECT bcmig_switch_traffic('s', '{50,100}', '{"stabilization": 0}')});
wait_sync($green, 's', 'switched');
ok(more_writes(), 'a second time on green');
$green->safe_psql('postgres', q{SELECT bcmig_rollback('s', 'a test', '{"preserve": "tables"}')});
wait_sync($green, 's', 'rolled_back');
ok(more_writes(), 'and back');

# --- the books ---
$_->pump_nb, $_->kill_kill foreach $posting;
PostgreSQL::Test::Utils::append_to_file($stop, '');
foreach my $n (0 .. 2) { ${ $inputs[$n] } = ''; $writers[$n]->finish; }
my ($requests, $failed) = (0, '');
foreach my $reader (@readers)
{
	my $said = $front->client_end($reader);
	$said =~ /^requests (\d+)\nfailed (\d+)(.*)/s or die "client: $said";
	$requests += $1;
	$failed .= $3 if $2 > 0;
}
cmp_ok($requests, '>', 1000, 'readers that never stopped');
is($failed, '', 'and not one request of theirs failed');

my %last;
my %sides;
foreach my $n (0 .. 2)
{
	my $log = PostgreSQL::Test::Utils::slurp_file("$dir/writer$n");
	unlike($log, qr/^error/m, 'a writer met no other error');
	while ($log =~ /^(blue|green) (\d+) (\S+)$/mg) { $sides{$1}++; $last{$2} = $3; }
}
cmp_ok($sides{$_} // 0, '>', 500, "many acknowledged writes on $_") foreach qw(blue green);
wait_sync($green, 's');
foreach my $node ($blue, $green)
{
	my %there = map { split /\|/ } split /\n/, $node->safe_psql('postgres', 'SELECT id, note FROM entry WHERE id >= 10000000');
	my @wrong = grep { ($there{$_} // '-') ne $last{$_} } keys %last;
	is(scalar(@wrong), 0, $node->name . ': every acknowledged write is there') or diag("$wrong[0]: $last{$wrong[0]}, there " . ($there{ $wrong[0] } // '-'));
	is(scalar(grep { !exists $last{$_} } keys %there), 0, $node->name . ': and nothing else');
}
is(compare_table($blue, $green, 'entry'), '', 'the books are equal');
is((run_validation($green, 's', 'full'))[1], 'ok', 'a full validation says so too');
is($green->safe_psql('postgres', 'SELECT count(*) FROM bcmig.conflict'), '0', 'no echo was taken for a conflict');
is($green->safe_psql('postgres', 'SELECT count(*) FROM bcmig.journal WHERE settled_at IS NULL'), '0', 'no entry is left');
like($green->safe_psql('postgres', q{SELECT result->>'preserved_in' FROM bcmig.switch_status LIMIT 1}), qr/^bcmig_preserved_\d+$/, 'what green had is preserved');

done_testing();
