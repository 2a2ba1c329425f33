# Processes: who runs, as whom, how many, what they answer to, what they cost.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

my @verbose = (extra_params => [ '-v', 'VERBOSITY=verbose' ]);

my $blue = new_blue();
$blue->safe_psql('postgres', join '', map { qq{
	CREATE TABLE t$_ (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO t$_ SELECT i, 'x' || i, 0 FROM generate_series(1, 500) i;
	SELECT bcmig_blue.track('t$_', '} . ($_ == 3 ? 'rowversion' : 'change_tracking') . q{');} } 1 .. 6);

# ---------------------------------------------------------------------------
# Not in shared_preload_libraries
# ---------------------------------------------------------------------------
my $bare = PostgreSQL::Test::Cluster->new('bare');
$bare->init(extra => ['--locale=C.UTF-8', '--encoding=UTF8']);
$bare->start;
$bare->safe_psql('postgres', 'CREATE EXTENSION bcmig CASCADE; CREATE ROLE bcmig_maintenance SUPERUSER');
connect_blue($bare, $blue, 's');
$bare->safe_psql('postgres', q{SELECT bcmig_add_table('s', 't1')});
my ($ret, $stdout, $stderr) = $bare->psql('postgres', q{SELECT bcmig_start_sync('s')}, @verbose);
like($stderr, qr/ERROR:  BM005:.*shared_preload_libraries = 'bcmig'/s, 'not loaded: start_sync says which line to add');
($ret, $stdout, $stderr) = $bare->psql('postgres', q{CALL bcmig_wait_sync('s')}, @verbose);
like($stderr, qr/ERROR:  BM005:/, 'not loaded: wait_sync too');
is($bare->safe_psql('postgres', q{SELECT state FROM bcmig_status()}), 'created', 'not loaded: reports work');
is($bare->safe_psql('postgres', q{SELECT count(*) > 0 FROM bcmig_drop_sync('s', drop_tables => true)}), 't', 'not loaded: a sync can be dropped');
$bare->stop;

# ---------------------------------------------------------------------------
# A pool of one, then more by reload; what pg_stat_activity shows
# ---------------------------------------------------------------------------
my $green = new_green('green', 'bcmig.max_workers = 1', 'autovacuum = off', 'checkpoint_timeout = 1h',
	"bcmig.debug_points = 'copy_chunk_before_read'");
my $held = q{SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.locktype = 'advisory' AND NOT granted AND a.backend_type = 'bcmig worker'};

sub green
{
	return $green->safe_psql('postgres', $_[0]);
}

sub reload
{
	green("ALTER SYSTEM SET $_") foreach @_;
	$green->reload;
}

sub wait_green
{
	my ($sql, $what, $expected) = @_;
	ok($green->poll_query_until('postgres', $sql, $expected), $what);
}

# ms until a process is gone
sub answer_to_term
{
	my ($pid) = @_;
	my $begun = time;
	kill 'TERM', $pid;
	usleep(5000) while kill(0, $pid) && time - $begun < 20;
	return (time - $begun) * 1000;
}

my $hold = hold_point($green, 'copy_chunk_before_read');
connect_blue($green, $blue, 's');
green("SELECT bcmig_add_table('s', '$_')") foreach qw(t1 t2 t3 t4);
start_sync($green, 's');
wait_green($held, 'a pool of one copies', '1');
like(green(q{SELECT query FROM pg_stat_activity WHERE backend_type = 'bcmig worker'}), qr/^bcmig: copy public\.t\d$/, 'a worker says what it does');
is(green(q{SELECT string_agg(backend_type, ',' ORDER BY backend_type) FROM pg_stat_activity WHERE backend_type LIKE 'bcmig%'}),
	'bcmig launcher,bcmig manager,bcmig poller,bcmig worker', 'one of each');
like(green(q{SELECT role || phase || target FROM bcmig.worker_status WHERE role = 'worker'}), qr/^workercopypublic\.t\d$/, 'worker_status says the same');

my $ms = answer_to_term(pids($green, 'bcmig worker'));
cmp_ok($ms, '<', 1000, 'a worker that waits for a lock answers SIGTERM');
wait_green($held, 'another one goes on', '1');
reload('bcmig.max_workers = 3');
wait_green($held, 'bcmig.max_workers is reloaded', '3');
green('ALTER SYSTEM SET bcmig.debug_points = \'\'');
$green->reload;
$hold->quit;
wait_sync($green, 's');
all_equal($blue, $green, 'pool of one, then three', qw(t1 t2 t3 t4));

# ---------------------------------------------------------------------------
# An idle sync writes nothing
# ---------------------------------------------------------------------------
sub footprint
{
	return green(q{SELECT pg_current_wal_insert_lsn(), (SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_all_tables)});
}

my $polls = q{SELECT polls FROM bcmig.environment_status WHERE side = 'blue'};
my $quiet = 0;
my $deadline = time + 60;
while (!$quiet && time < $deadline)
{
	my $before = footprint();
	my $from = green($polls);
	$green->poll_query_until('postgres', "SELECT ($polls) >= $from + 20");
	$quiet = footprint() eq $before;
}
ok($quiet, 'twenty polls of an idle sync write nothing');
my $stored = green('SELECT updated_at FROM bcmig.blue_position');
ok(green("SELECT count(*) FROM bcmig.timeline WHERE kind = 'error'") eq '0', 'no error so far');

# ---------------------------------------------------------------------------
# SIGTERM, idle and busy; a long nap does not delay what is due
# ---------------------------------------------------------------------------
reload('bcmig.naptime = 60000');
foreach my $type ('worker', 'poller', 'manager', 'launcher')
{
	my ($pid) = pids($green, "bcmig $type");
	$ms = answer_to_term($pid);
	cmp_ok($ms, '<', 1000, "an idle $type answers SIGTERM");
	my $begun = time;
	$blue->safe_psql('postgres', "UPDATE t1 SET v = 'after $type'");
	wait_green("SELECT count(*) = 500 FROM t1 WHERE v = 'after $type'", "work goes on after an idle $type ended");
	cmp_ok(time - $begun, '<', 20, 'before the nap would be over');
}
wait_green(q{SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bcmig launcher'}, 'the launcher is back');
wait_sync($green, 's');
is(green("SELECT count(*) FROM bcmig.blue_position WHERE updated_at < '$stored'"), '0', 'the position of blue does not go back');

my $lock = $green->background_psql('postgres', on_error_die => 1);
$lock->query_safe('BEGIN; LOCK TABLE t2 IN ACCESS EXCLUSIVE MODE');
$blue->safe_psql('postgres', q{UPDATE t2 SET v = 'locked'});
ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.relation = 't2'::regclass AND NOT l.granted AND a.backend_type = 'bcmig worker'}),
	'a worker waits for a table');
$ms = answer_to_term(green(q{SELECT l.pid FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE l.relation = 't2'::regclass AND NOT l.granted AND a.backend_type = 'bcmig worker' LIMIT 1}));
cmp_ok($ms, '<', 1000, 'it answers SIGTERM');
$lock->quit;
wait_sync($green, 's');
all_equal($blue, $green, 'after SIGTERM', qw(t1 t2 t3 t4));
reload('bcmig.naptime = 100');

# ---------------------------------------------------------------------------
# A feed somebody altered
# ---------------------------------------------------------------------------
green(q{SELECT bcmig_alter_table('s', 't2', '{"max_retries": 0}')});
my $feed = green(q{SELECT feed FROM bcmig.sync_table WHERE target_table = 't2'});
green("ALTER FOREIGN TABLE bcmig.$feed OPTIONS (SET table_name 'x')");
$blue->safe_psql('postgres', q{UPDATE t2 SET v = 'shape'; UPDATE t1 SET v = 'others go on'});
ok(wait_state($green, 'public.t2', 'suspended'), 'an altered feed suspends its table');
like(green(q{SELECT reason FROM bcmig.table_status WHERE target = 'public.t2'}), qr/^BM008: /, 'and says why');
wait_green(q{SELECT count(*) = 500 FROM t1 WHERE v = 'others go on'}, 'other tables go on');
green("ALTER FOREIGN TABLE bcmig.$feed OPTIONS (SET table_name '$feed')");
green(q{SELECT bcmig_resume_table('s', 't2')});
wait_sync($green, 's');
all_equal($blue, $green, 'feed mended', 't2');

# ---------------------------------------------------------------------------
# An owner that is no superuser, with a password, and what it needs
# ---------------------------------------------------------------------------
$blue->safe_psql('postgres', q{
	CREATE ROLE reader LOGIN PASSWORD 'secret';
	GRANT SELECT ON t5, t6 TO reader;
	SELECT bcmig_blue.grant_reader('reader');});
my $hba = slurp_file($blue->data_dir . '/pg_hba.conf');
unlink $blue->data_dir . '/pg_hba.conf';
$blue->append_conf('pg_hba.conf', "host all reader 127.0.0.1/32 scram-sha-256\n$hba");
$blue->reload;
my $port = $blue->port;
green(qq{
	CREATE ROLE mig LOGIN;
	CREATE SCHEMA company;
	CREATE SERVER blue_tcp FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '$port', dbname 'postgres');
	-- all it needs:
	GRANT USAGE, CREATE ON SCHEMA company TO mig;
	GRANT USAGE ON FOREIGN SERVER blue_tcp TO mig;
	CREATE USER MAPPING FOR mig SERVER blue_tcp OPTIONS (user 'reader', password 'secret');
	GRANT EXECUTE ON FUNCTION bcmig_add_environment(text, text, text, text, jsonb), bcmig_create_sync(text, text, jsonb),
		bcmig_add_table(text, text, text, jsonb), bcmig_start_sync(text, boolean) TO mig;});
my ($host, $gport) = ($green->host, $green->port);
$green->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', "host=$host port=$gport dbname=postgres user=mig",
		'-c', q{SET search_path = company, public},
		'-c', q{SELECT bcmig_add_environment('b2', 'blue', 'blue_tcp')},
		'-c', q{SELECT bcmig_create_sync('mig', 'b2')},
		'-c', q{SELECT bcmig_add_table('mig', 't5'); SELECT bcmig_add_table('mig', 't6')},
		'-c', q{SELECT bcmig_start_sync('mig')} ], 'an ordinary role sets a sync up and starts it');
wait_sync($green, 'mig');
is(compare_table($blue, $green, 't5', 'company.t5', 'id, v'), '', 'its tables are copied');
$blue->safe_psql('postgres', q{UPDATE t5 SET v = NULL WHERE id % 3 = 0; DELETE FROM t6 WHERE id % 7 = 0; INSERT INTO t6 VALUES (1000, '')});
wait_sync($green, 'mig');
is(compare_table($blue, $green, $_, "company.$_", 'id, v'), '', "$_ follows") foreach qw(t5 t6);
is(green(q{SELECT string_agg(DISTINCT usename, ',') FROM pg_stat_activity WHERE backend_type IN ('bcmig worker', 'bcmig poller')}), 'mig,postgres',
	'work of a sync is done as its owner');
is(green(q{SELECT count(*) FROM pg_tables WHERE schemaname = 'company' AND tableowner = 'mig'}), '2', 'which owns the tables');

# no login any more
my $log = -s $green->logfile;
green(q{ALTER ROLE mig NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'mig'});
$green->wait_for_log(qr/role "mig" is not permitted to log in/, $log);
$blue->safe_psql('postgres', q{UPDATE t5 SET v = 'while no login'; UPDATE t1 SET v = 'while no login'});
wait_green(q{SELECT count(*) = 500 FROM t1 WHERE v = 'while no login'}, 'an owner that cannot log in stops nobody else');
my $tries = () = slurp_file($green->logfile, $log) =~ /role "mig" is not permitted to log in/g;
cmp_ok($tries, '<', 40, 'and is not tried without end');
is(green(q{SELECT count(*) FROM t1 a JOIN company.t5 b USING (id) WHERE b.v = 'while no login'}), '0', 'its own sync stands still');
green(q{ALTER ROLE mig LOGIN});
wait_sync($green, 'mig');
is(compare_table($blue, $green, 't5', 'company.t5', 'id, v'), '', 'login again: it goes on');

# ---------------------------------------------------------------------------
# Two databases side by side; DROP EXTENSION and CREATE EXTENSION
# ---------------------------------------------------------------------------
green('CREATE DATABASE two');
sub two
{
	return $green->safe_psql('two', $_[0]);
}
sub processes
{
	my ($database) = @_;
	return qq{SELECT count(*) > 0 FROM pg_stat_activity WHERE backend_type LIKE 'bcmig%' AND datname = '$database'};
}
my ($bhost, $bport, $user) = ($blue->host, $blue->port, (getpwuid($<))[0]);
my $set_up = qq{
	CREATE EXTENSION bcmig CASCADE;
	CREATE SERVER blue FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$bhost', port '$bport', dbname 'postgres');
	CREATE USER MAPPING FOR CURRENT_USER SERVER blue OPTIONS (user '$user');
	SELECT bcmig_add_environment('blue', 'blue', 'blue');
	SELECT bcmig_create_sync('s', 'blue'); SELECT bcmig_add_table('s', 't1'); SELECT bcmig_add_table('s', 't3');};
two($set_up);
two(q{SELECT bcmig_start_sync('s')});
two(q{CALL bcmig_wait_sync('s')});
$blue->safe_psql('postgres', q{UPDATE t1 SET v = 'both'; UPDATE t3 SET v = 'both'; DELETE FROM t3 WHERE id = 3});
two(q{CALL bcmig_wait_sync('s')});
wait_sync($green, 's');
all_equal($blue, $green, 'two databases, the first', qw(t1 t3));
my $sums = q{SELECT string_agg(id || ':' || coalesce(v, '-'), ',' ORDER BY id) FROM };
is(two("$sums $_"), $blue->safe_psql('postgres', "$sums $_"), "two databases, the second: $_") foreach qw(t1 t3);
is(green(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bcmig manager'}), '2', 'a manager each');

two('DROP EXTENSION bcmig CASCADE');
ok($green->poll_query_until('postgres', processes('two'), 'f'), 'DROP EXTENSION ends its processes');
is(green(processes('postgres')), 't', 'and nobody else\'s');
two('DROP SERVER blue CASCADE; DROP EXTENSION postgres_fdw; DROP TABLE t1, t3');
two($set_up);
ok($green->poll_query_until('postgres', processes('two'), 't'), 'CREATE EXTENSION starts them again');
two(q{SELECT bcmig_start_sync('s')});
two(q{CALL bcmig_wait_sync('s')});
is(two("$sums t1"), $blue->safe_psql('postgres', "$sums t1"), 'and all is copied anew');

# a database nobody wants any more
reload('bcmig.databases = \'postgres\'');
ok($green->poll_query_until('postgres', processes('two'), 'f'), 'bcmig.databases is reloaded');
green('DROP DATABASE two');
$green->stop;

# ---------------------------------------------------------------------------
# Too few background workers
# ---------------------------------------------------------------------------
# launcher, manager, poller, PostgreSQL's logical replication launcher: two are left
my $small = new_green('small', 'max_worker_processes = 6', 'bcmig.max_workers = 4', "bcmig.debug_points = 'copy_chunk_before_read'");
$hold = hold_point($small, 'copy_chunk_before_read');
connect_blue($small, $blue, 's');
$small->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach qw(t1 t2 t3 t4 t5 t6);
is($small->safe_psql('postgres', q{SELECT status FROM bcmig_preflight('s') WHERE check_name = 'workers'}), 'warn', 'preflight warns of too few workers');
start_sync($small, 's');
$small->wait_for_log(qr/Set max_worker_processes to 8 or more \(now 6\)/);
ok($small->poll_query_until('postgres', $held, '2'), 'two workers where four were wanted');
$hold->quit;
wait_sync($small, 's');
all_equal($blue, $small, 'fewer workers', qw(t1 t2 t3 t4 t5 t6));
my $said = () = slurp_file($small->logfile) =~ /Set max_worker_processes to/g;
cmp_ok($said, '<=', 4, 'the log is not flooded');

# one worker for copies, sweeps and windows
$small->append_conf('postgresql.conf', "bcmig.max_workers = 1\nbcmig.debug_points = ''");
$small->restart;
$small->safe_psql('postgres', "SELECT bcmig_resync_table('s', '$_')") foreach qw(t1 t3 t5);
$blue->safe_psql('postgres', "UPDATE $_ SET v = 'one worker' WHERE id % 2 = 0; DELETE FROM $_ WHERE id % 50 = 7") foreach qw(t1 t2 t3 t4 t5 t6);
wait_sync($small, 's');
all_equal($blue, $small, 'one worker', qw(t1 t2 t3 t4 t5 t6));
is($small->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bcmig worker'}), '1', 'one it was');

done_testing();
