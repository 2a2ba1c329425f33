# monitoring/: the real prometheus-postgres-exporter exports what psql shows,
# and the dashboard asks for nothing else.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HTTP::Tiny;
use IPC::Run;
use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $dir = ($ENV{BCMIG_SOURCE} // '.') . '/monitoring';
my $blue = new_blue();
my $green = new_green('green', 'bcmig.metric_interval = 1s');

$blue->safe_psql('postgres', q{
	CREATE TABLE a (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO a SELECT i, 'v', 0 FROM generate_series(1, 500) i;
	CREATE TABLE b (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	});
track($blue, $_) foreach qw(a b);
connect_blue($green, $blue, 'a "sync"');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('a "sync"', 'a'), bcmig_add_table('a "sync"', 'b'); SELECT bcmig_create_sync('idle', 'blue')});
start_sync($green, 'a "sync"');
wait_sync($green, 'a "sync"');

# 96 rows written, 3 deleted, 4 refused
green_behind($green, q{ALTER TABLE a ADD CONSTRAINT c CHECK (v <> 'bad')});
$blue->safe_psql('postgres', q{BEGIN; UPDATE a SET v = CASE WHEN id <= 4 THEN 'bad' ELSE 'good' END WHERE id <= 100; DELETE FROM a WHERE id > 497; COMMIT});
ok($green->poll_query_until('postgres', 'SELECT count(*) = 4 FROM bcmig.quarantine'), 'rows were written, deleted and refused');
$green->safe_psql('postgres', q{SELECT bcmig_validate('a "sync"', mode => 'count')});
ok($green->poll_query_until('postgres', q{SELECT state = 'finished' FROM bcmig.validation_run}), 'a validation is over');
$green->safe_psql('postgres', q{SELECT bcmig_suspend_table('a "sync"', 'b')});
ok(wait_state($green, 'public.b', 'suspended'), 'a table is suspended: the lag is unknown');

# a role that only monitors
$green->safe_psql('postgres', 'CREATE ROLE bcmig_exporter LOGIN; GRANT pg_monitor TO bcmig_exporter');

my $port = PostgreSQL::Test::Cluster::get_free_port();
my ($out, $url) = ('', "http://127.0.0.1:$port/metrics");
$ENV{DATA_SOURCE_NAME} = sprintf('user=bcmig_exporter host=%s port=%d dbname=postgres sslmode=disable', $green->host, $green->port);
my $exporter = IPC::Run::start([ 'prometheus-postgres-exporter', "--extend.query-path=$dir/queries.yaml",
	"--web.listen-address=127.0.0.1:$port", '--disable-default-metrics', '--disable-settings-metrics' ], '<', '/dev/null', '>&', \$out);

END
{
	local $?;
	$exporter->kill_kill if defined $exporter;
}

# series "name{labels}" => value
sub metrics
{
	my $reply = HTTP::Tiny->new(timeout => 20)->get($url);
	return undef unless $reply->{success};
	return { map { /^(\w+(?:\{.*\})?) (\S+)$/ ? (without_server($1) => $2) : () } split /\n/, $reply->{content} };
}

# the exporter labels every series with the server it asked
sub without_server
{
	my ($series) = @_;
	$series =~ s/server="[^"]*",?//;
	$series =~ s/,\}$/}/;
	$series =~ s/\{\}$//;
	return $series;
}
my $metrics;
for (my $left = 10 * $PostgreSQL::Test::Utils::timeout_default; $left > 0 && !defined $metrics; $left--)
{
	$metrics = metrics();
	usleep(100_000) unless defined $metrics;
}
ok(defined $metrics, 'the exporter answers') or diag($out);

my %names = map { /^(\w+)/ ? ($1 => 1) : () } keys %$metrics;

my $sync = '{sync="a \"sync\""}';
sub is_series { my ($series, $expected) = @_; is($metrics->{$series}, $expected, $series) }
is_series("bcmig_sync_$_->[0]$sync", $_->[1])
  foreach ([ 'wanted', 1 ], [ 'lag_known', 0 ], [ 'lag_seconds', 'NaN' ], [ 'tables', 2 ], [ 'tables_streaming', 1 ], [ 'tables_suspended', 1 ],
	[ 'rows_copied', 500 ], [ 'rows_applied', 96 ], [ 'rows_deleted', 3 ], [ 'quarantined', 4 ], [ 'conflicts', 0 ]);
is_series('bcmig_sync_wanted{sync="idle"}', 0);
is_series('bcmig_sync_state_current{state="streaming",sync="a \"sync\""}', 1);
is_series('bcmig_sync_state_current{state="created",sync="idle"}', 1);
is_series("bcmig_validation_$_->[0]$sync", $_->[1]) foreach ([ 'ok', 1 ], [ 'differences', 0 ]);
my $me = $green->safe_psql('postgres', 'SELECT current_user');
is_series("bcmig_blue_$_->[0]" . qq({environment="blue",owner="$me"}), $_->[1]) foreach ([ 'reachable', 1 ], [ 'blocked', 0 ]);
is_series("bcmig_process_count{role=\"$_\"}", 1) foreach qw(manager poller);

# once the sync is stopped, its newest minute stays as it is
$green->safe_psql('postgres', q{SELECT bcmig_resume_table('a "sync"', 'b')});
wait_state($green, 'public.b', 'streaming');
$blue->safe_psql('postgres', q{UPDATE a SET v = 'again' WHERE id > 200});
ok($green->poll_query_until('postgres', q{SELECT sum(rows_written) = 500 + 96 + 297 FROM bcmig.metric}), 'all rows are in bcmig.metric');
$green->safe_psql('postgres', q{SELECT bcmig_stop_sync('a "sync"')});
ok($green->poll_query_until('postgres', q{SELECT state = 'stopped' AND (SELECT max(minute) < now() - interval '3 s' FROM bcmig.metric)
	FROM bcmig.sync_status WHERE sync = 'a "sync"'}), 'stopped');
$metrics = metrics();
is_series("bcmig_minute_$_->[0]$sync", $green->safe_psql('postgres', "SELECT coalesce(($_->[1])::text, 'NaN') FROM bcmig.metric ORDER BY minute DESC LIMIT 1"))
  foreach ([ 'lag_avg_seconds', 'lag_avg_ms / 1000' ], [ 'lag_p95_seconds', 'lag_p95_ms / 1000' ], [ 'lag_max_seconds', 'lag_max_ms / 1000' ],
	[ 'unknown_ratio', 'unknown::float8 / nullif(samples + unknown, 0)' ], [ 'workers', 'workers' ], [ 'blue_answer_seconds', 'blue_answer_ms / 1000' ],
	map { [ $_, $_ ] } qw(rows_written rows_deleted rows_failed bytes_copied errors seconds));
is_series("bcmig_sync_lag_known$sync", 0);

# the dashboard asks only for what there is
$names{$_} = 1 foreach map { /^(\w+)/ } keys %$metrics;
my $dashboard = decode_json(slurp_file("$dir/grafana-dashboard.json"));
my @exprs = map { $_->{expr} } map { @{ $_->{targets} } } @{ $dashboard->{panels} };
push @exprs, map { $_->{query} } @{ $dashboard->{templating}->{list} };
my %asked = map { $_ => 1 } map { /\b(bcmig_\w+)/g } @exprs;
cmp_ok(scalar keys %asked, '>', 20, 'the dashboard asks for series');
my @unknown = grep { !$names{$_} } sort keys %asked;
is("@unknown", '', 'and all of them are exported');

$exporter->signal('TERM');
$exporter->finish;
unlike($out, qr/level=error/, 'the exporter had nothing to complain of');

done_testing();
