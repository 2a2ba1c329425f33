# A plan rehearsed at fixed times by the real pg_cron, beside validations: the
# lines of docs/plans.md as they stand there, every minute (pg_cron's shortest
# interval) instead of every week.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', "shared_preload_libraries = 'bcmig,pg_cron'", "cron.database_name = 'postgres'", 'cron.use_background_workers = on');

$blue->safe_psql('postgres', 'CREATE TABLE item (id int PRIMARY KEY, name text); INSERT INTO item SELECT i, i FROM generate_series(1, 100) i');
track($blue, 'item');
allow_switch($blue);
connect_blue($green, $blue, 's');
$green->safe_psql('postgres', q{SELECT bcmig_alter_environment('blue', '{"fence_by": "call"}'); SELECT bcmig_add_table('s', 'item')});
start_sync($green, 's');
wait_sync($green, 's');

my $page = slurp_file((-e 'docs/plans.md' ? '.' : $ENV{BCMIG_SOURCE}) . '/docs/plans.md');
my ($lines) = $page =~ /\n\n((?:    [^\n]*\n)*    [^\n]*cron\.schedule[^\n]*\n(?:    [^\n]*\n)*)\n/;
is(() = ($lines // '') =~ /;\n/g, 4, 'the page has its lines');
is($lines =~ s/'\d \d \* \* [*0]'/'* * * * *'/g, 2, 'two schedules');

# one that would fail, beside it
$green->safe_psql('postgres', q{CREATE EXTENSION pg_cron;
	SELECT bcmig_create_plan('move', 's', NULL, '{"steps": [100], "stabilization": 0}');
	SELECT bcmig_create_plan('broken', 's', '[{"name": "divide", "type": "data", "sql": "SELECT 1 / 0", "compensation": "none"}]')});
$green->safe_psql('postgres', $lines);
is($green->safe_psql('postgres', q{SELECT count(*) FROM public.rehearsal WHERE status = 'fail'}), '0', 'nothing of it fails at first');
my $before = $green->safe_psql('postgres', 'SELECT max(at) FROM public.rehearsal');
$green->safe_psql('postgres', $lines =~ s/^.*validation.*\n|^.*CREATE TABLE.*\n//mgr =~ s/\bmove\b/broken/gr);
is($green->safe_psql('postgres', 'SELECT count(*) FROM cron.job WHERE active'), '3', 'three jobs');

ok($green->poll_query_until('postgres', q{SELECT count(DISTINCT jobid) = 3 FROM cron.job_run_details WHERE status = 'succeeded'}), 'all of them have run')
  or diag($green->safe_psql('postgres', 'SELECT command, status, return_message FROM cron.job_run_details'));
ok($green->poll_query_until('postgres', "SELECT count(DISTINCT at) >= 2 FROM public.rehearsal WHERE at > '$before'"), 'two rehearsals are on record');
is($green->safe_psql('postgres', "SELECT count(*) FROM public.rehearsal WHERE at > '$before' AND check_name LIKE 'traffic (s)%' AND status = 'warn'") > 0, 1, 'of the plan as it stands, to its switch');
is($green->safe_psql('postgres', "SELECT DISTINCT check_name || ' ' || status || ' ' || detail FROM public.rehearsal WHERE at > '$before' AND status = 'fail'") =~ /^divide.* fail .*division by zero/, 1, 'what would fail is named')
  or diag($green->safe_psql('postgres', "SELECT * FROM public.rehearsal WHERE at > '$before'"));
is($green->safe_psql('postgres', 'SELECT count(*) FROM bcmig.execution'), '0', 'nothing was carried out');
is($green->safe_psql('postgres', q{SELECT state, coalesce(green_percent, 0) FROM bcmig.sync_status LEFT JOIN bcmig.traffic_status USING (sync)}), 'streaming|0', 'and nothing moved');
ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM bcmig.validation_run WHERE mode = 'full' AND state = 'finished'}), 'the validation has run')
  or diag($green->safe_psql('postgres', 'SELECT * FROM bcmig.validation_run'));

done_testing();
