# Validations at fixed times, by the real pg_cron: what it is asked for it does,
# as who asked; runs do not pile up; what is dropped leaves no job.  Its
# shortest interval is a minute: a job is made first, the rest of the test fills
# the time until it has run.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my $blue = new_blue('blue');
my $green = new_green('green', "shared_preload_libraries = 'bcmig,pg_cron'", "cron.database_name = 'postgres'", 'cron.use_background_workers = on',
	"log_min_messages = warning");

$blue->safe_psql('postgres', 'CREATE TABLE item (id int PRIMARY KEY, name text); INSERT INTO item SELECT i, i FROM generate_series(1, 100) i');
track($blue, 'item');
connect_blue($green, $blue, 's');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', 'item')");

# like: SQLSTATE, message, hint
sub fails
{
	my ($sql, $code, $hint, $what) = @_;
	my ($rc, undef, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	like($err, qr/ERROR:  $code:.*HINT:.*$hint/s, $what);
}

sub value
{
	return $green->safe_psql('postgres', $_[0]);
}

# true once a query is, within so many seconds
sub becomes_true
{
	my ($sql, $seconds) = @_;
	my $end = time + $seconds;
	while (time < $end)
	{
		return 1 if value($sql) eq 't';
		usleep(200_000);
	}
	return 0;
}

# ---------------------------------------------------------------------------
# Without pg_cron
# ---------------------------------------------------------------------------
fails("SELECT bcmig_schedule_validation('s', '* * * * *')", 'BM018', "apt-get install postgresql-\\d+-cron;.*cron.database_name = 'postgres'.*CREATE EXTENSION pg_cron", 'no extension: the package and the settings are named');
fails("SELECT bcmig_unschedule_validation('s')", 'BM018', 'CREATE EXTENSION pg_cron', 'no extension: nothing to unschedule');
$green->safe_psql('postgres', q{CREATE SERVER other FOREIGN DATA WRAPPER postgres_fdw; CREATE USER MAPPING FOR CURRENT_USER SERVER other;
	SELECT bcmig_add_environment('other', 'blue', 'other'); SELECT bcmig_create_sync('none', 'other'); SELECT bcmig_drop_sync('none')});
is(value("SELECT count(*) FROM bcmig.sync WHERE name = 'none'"), '0', 'no extension: a sync can be dropped');

# ---------------------------------------------------------------------------
# Scheduled
# ---------------------------------------------------------------------------
value('CREATE EXTENSION pg_cron');
start_sync($green, 's');
wait_sync($green, 's', 'caught_up');
my $job = value("SELECT bcmig_schedule_validation('s', '* * * * *', 'count')");
my $scheduled = time;
is(value('SELECT jobid, jobname, schedule, command, active FROM cron.job'),
	"$job|bcmig validate s|* * * * *|SELECT bcmig.validate_scheduled('s', 'count')|t", 'the job is what was asked for');

# ---------------------------------------------------------------------------
# Bad input, meanwhile
# ---------------------------------------------------------------------------
fails("SELECT bcmig_schedule_validation('nobody', '* * * * *')", 'BM001', 'bcmig.sync', 'unknown sync');
fails("SELECT bcmig_schedule_validation('s', '* * * * *', 'quick')", 'BM003', 'count, incremental, full', 'unknown mode');
fails("SELECT bcmig_schedule_validation('s', '$_')", 'BM003', "'\\*/15 \\* \\* \\* \\*'", "pg_cron refuses \"$_\"") foreach 'every day', '99 * * * *', '* * * *';
fails("SELECT bcmig_unschedule_validation('nobody')", 'BM001', 'bcmig.sync', 'unschedule an unknown sync');
foreach my $sql ("SELECT bcmig_schedule_validation('s', NULL)", "SELECT bcmig_schedule_validation(NULL, '* * * * *')", "SELECT bcmig_schedule_validation('s', '* * * * *', NULL)")
{
	my ($rc, undef, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\n$sql");
	like($err, qr/ERROR:  22004:/, "$sql: an error");
}
is(value("SELECT schedule FROM cron.job"), '* * * * *', 'what was refused left the job as it was');

# other roles, none of them a superuser: no member; a member without rights on cron; one that cannot log in
value(qq{CREATE ROLE keeper LOGIN; CREATE ROLE stranger LOGIN; CREATE ROLE helper LOGIN; CREATE ROLE nologin;
	GRANT EXECUTE ON FUNCTION bcmig_schedule_validation(text, text, text), bcmig_unschedule_validation(text), bcmig_create_sync(text, text, jsonb), bcmig_drop_sync(text, boolean, boolean) TO keeper, stranger, helper, nologin;
	GRANT keeper TO helper, nologin; GRANT USAGE ON FOREIGN SERVER other TO keeper; CREATE USER MAPPING FOR keeper SERVER other});
value("SET ROLE keeper; SELECT bcmig_create_sync('kept', 'other')");
my $late = q{'59 23 31 12 *'};
fails("SET ROLE stranger; SELECT bcmig_schedule_validation('kept', $late)", '42501', 'SET ROLE keeper', 'not a member of the owner');
fails("SET ROLE stranger; SELECT bcmig_unschedule_validation('kept')", '42501', 'SET ROLE keeper', 'not a member of the owner: unschedule');
fails("SET ROLE helper; SELECT bcmig_schedule_validation('kept', $late)", '42501', 'GRANT USAGE ON SCHEMA cron TO helper', 'a member without rights on schema cron');
value('GRANT USAGE ON SCHEMA cron TO helper, nologin');
fails("SET ROLE nologin; SELECT bcmig_schedule_validation('kept', $late)", 'BM010', 'ALTER ROLE nologin LOGIN', 'a role that cannot log in');

# a second schedule replaces the first, also that of another role
my $first = value("SET ROLE helper; SELECT bcmig_schedule_validation('kept', $late)");
is(value("SELECT jobid, username FROM cron.job WHERE jobname = 'bcmig validate kept'"), "$first|helper", 'scheduled as the caller');
fails("SET ROLE helper; SELECT bcmig.validate_scheduled('kept', 'full')", 'BM009', 'bcmig_start_sync', 'who schedules may call what the job calls; a stopped sync is not validated');
fails("SET ROLE helper; SELECT bcmig.validate_scheduled('s', 'full')", '42501', 'SET ROLE', 'but not for a sync of others');
my $second = value("SELECT bcmig_schedule_validation('kept', '0 0 1 1 *')");
isnt($second, $first, 'a schedule of another role is another job');
is(value("SELECT jobid, username = current_user, schedule FROM cron.job WHERE jobname = 'bcmig validate kept'"), "$second|t|0 0 1 1 *", 'one schedule a sync');
is(value("SELECT bcmig_schedule_validation('kept', '0 0 2 1 *')"), $second, 'the same role again: the same job');
value("SET ROLE keeper; SELECT bcmig_unschedule_validation('kept')");
is(value("SELECT count(*) FROM cron.job WHERE jobname = 'bcmig validate kept'"), '0', 'unscheduled by its owner, though the job is of another role');

# names: quotes, and one too long for pg_cron's column
my $odd = q{it''s \ "x"};
my $long = 'x' x 63;
foreach my $name ($odd, $long, 'y' x 62)
{
	value("SELECT bcmig_create_sync('$name', 'other')");
	value("SELECT bcmig_schedule_validation('$name', '0 3 1 1 *')");
}
is(value("SELECT count(*) FROM cron.job WHERE length(jobname::text) <= 63 AND schedule = '0 3 1 1 *'"), '3', 'odd and long names have their jobs');
is(value("SELECT count(*) FROM bcmig_drop_sync('$odd', dry_run => true) WHERE statement LIKE '%cron.unschedule%'"), '1', 'dry run of a drop shows the job');
is(value("SELECT count(*) FROM cron.job WHERE schedule = '0 3 1 1 *'"), '3', 'and takes nothing away');
value("SELECT bcmig_drop_sync('$_')") foreach $odd, $long;
is(value("SELECT jobname FROM cron.job WHERE schedule = '0 3 1 1 *'") =~ /yyy/ ? 1 : 0, 1, 'a dropped sync leaves no job, another keeps its own');
value("SELECT bcmig_drop_sync('" . 'y' x 62 . "')");
is(value("SELECT count(*) FROM cron.job"), '1', 'only the first job is left');

# ---------------------------------------------------------------------------
# It has run
# ---------------------------------------------------------------------------
ok(becomes_true("SELECT count(*) > 0 FROM bcmig.validation_run WHERE mode = 'count'", 75 - (time - $scheduled)), 'pg_cron has begun a run');
is(value("SELECT DISTINCT status FROM cron.job_run_details WHERE jobid = $job"), 'succeeded', 'and says so')
  or diag(value('SELECT status, return_message FROM cron.job_run_details'));
is(value("SELECT requested_by = current_user FROM bcmig.validation_run WHERE mode = 'count' LIMIT 1"), 't', 'as who scheduled it');

# from here on it is not wanted again
value("SELECT bcmig_schedule_validation('s', $late)");

# ---------------------------------------------------------------------------
# Runs do not pile up: without blue none can end
# ---------------------------------------------------------------------------
ok(becomes_true("SELECT count(*) = 0 FROM bcmig.validation_run WHERE state = 'running'", 60), 'no run is under way');
$blue->stop('immediate');
my $run = value("SELECT bcmig.validate_scheduled('s', 'incremental')");
like($run, qr/^\d+$/, 'a run begins');
is(value("SELECT bcmig.validate_scheduled('s', 'incremental') IS NULL"), 't', 'the next is left out while it is under way');
is(value("SELECT count(*) FROM bcmig.validation_run WHERE mode = 'incremental'"), '1', 'there is one run');
is(value("SELECT detail FROM bcmig.audit_log WHERE event = 'validate_scheduled' AND detail LIKE '%incremental%'"), "left out: run $run, incremental, is under way", 'the audit log says it');
like(value("SELECT bcmig.validate_scheduled('s', 'full')"), qr/^\d+$/, 'a run of another mode begins');
value("SELECT bcmig_cancel_validation($run)");
like(value("SELECT bcmig.validate_scheduled('s', 'incremental')"), qr/^\d+$/, 'after its end the next begins');
value("SELECT bcmig_validate('s', 'item', 'count')");
like(value("SELECT bcmig.validate_scheduled('s', 'count')"), qr/^\d+$/, 'a run of one table is not in the way');

# ---------------------------------------------------------------------------
# Taken away
# ---------------------------------------------------------------------------
value("BEGIN; SELECT bcmig_unschedule_validation('s'); ROLLBACK");
is(value('SELECT count(*) FROM cron.job'), '1', 'rolled back, the job stays');
value("SELECT bcmig_unschedule_validation('s')");
is(value('SELECT count(*) FROM cron.job'), '0', 'unscheduled');
my ($rc, undef, $err) = $green->psql('postgres', "SELECT bcmig_unschedule_validation('s')");
like($err, qr/NOTICE:.*no validation/, 'a second time: a notice');
value("SELECT cron.schedule('bcmig validate another', '* * * * *', 'SELECT 1')");
value("SELECT bcmig_schedule_validation('s', '0 0 1 1 *')");
value("SELECT bcmig_stop_sync('s')");
ok(becomes_true("SELECT state = 'stopped' FROM bcmig.sync_status WHERE sync = 's'", 60), 'stopped');
value("SELECT bcmig_drop_sync('s')");
is(value('SELECT jobname FROM cron.job'), 'bcmig validate another', 'a dropped sync leaves no job behind');

done_testing();
