# A hostile blue: what it answers may be wrong in any way.  It gives errors,
# never a crash, a wrong row or a process that cannot be stopped.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $blue = new_blue('blue');
my $green = new_green('green', 'log_min_messages = warning');
my $me = (getpwuid($<))[0];
my @tables = qw(good types columns names keys twice endless slow huge message);

# what a window may put on disk is the owner's to say
$green->safe_psql('postgres', qq{ALTER ROLE "$me" SET temp_file_limit = '4MB'});
foreach (@tables)
{
	$blue->safe_psql('postgres', qq{CREATE TABLE $_ (id int PRIMARY KEY, v text, n int, "timestamp" bigint NOT NULL DEFAULT 0);
		INSERT INTO $_ SELECT i, 'v' || i, i FROM generate_series(1, 100) i});
	track($blue, $_, $_ eq 'keys' ? 'change_tracking' : 'rowversion');
}
$blue->safe_psql('postgres', 'CREATE EXTENSION file_fdw; CREATE SERVER program FOREIGN DATA WRAPPER file_fdw');
connect_blue($green, $blue, 's', '{"max_retries": 3, "sweep_interval": "1h"}');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach @tables;
start_sync($green, 's');
wait_sync($green, 's');
my $postmaster = $green->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

# From now on blue says "select" where a table was, and that it has moved.
sub hostile
{
	my ($table, $select) = @_;
	$blue->safe_psql('postgres', qq{BEGIN; ALTER TABLE $table RENAME TO old_$table; CREATE VIEW $table AS $select;
		UPDATE bcmig_blue.tracked SET relid = '$table'::regclass WHERE relid = 'old_$table'::regclass;
		INSERT INTO bcmig_blue.moved SELECT '$table'::regclass, pg_current_xact_id()::text::bigint; COMMIT});
}

# From now on blue has more rows in a table: what a program prints.
sub more
{
	my ($table, $program) = @_;
	$blue->safe_psql('postgres', qq{BEGIN; CREATE FOREIGN TABLE more_$table () INHERITS ($table) SERVER program OPTIONS (program \$p\$$program\$p\$, format 'csv');
		UPDATE ONLY $table SET n = n WHERE id = 1; COMMIT});
}

sub no_more { $blue->safe_psql('postgres', "BEGIN; DROP FOREIGN TABLE more_$_[0]; UPDATE $_[0] SET n = n; COMMIT") }

# Honest again, and every row new.
sub honest
{
	my ($table) = @_;
	$blue->safe_psql('postgres', qq{BEGIN; UPDATE bcmig_blue.tracked SET relid = 'old_$table'::regclass WHERE relid = '$table'::regclass;
		DROP VIEW $table; ALTER TABLE old_$table RENAME TO $table; UPDATE $table SET n = n; COMMIT});
}

sub last_error { $green->safe_psql('postgres', "SELECT coalesce(last_error, '') FROM bcmig.table_status WHERE target = 'public.$_[0]'") }
sub digest { $green->safe_psql('postgres', "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM $_[0] t") }

# The table fails with this error, its rows stay, another table goes on, and all is well once blue is honest.
my $turn = 0;
sub fails
{
	my ($table, $what, $error) = @_;
	my $before = digest($table);
	# a table that is a view now may be missed before it is read
	ok($green->poll_query_until('postgres', "SELECT last_error ~ '$error|has no (table|column)' FROM bcmig.table_status WHERE target = 'public.$table'"), "$what: an error")
	  or diag(last_error($table));
	$turn++;
	$blue->safe_psql('postgres', "UPDATE good SET n = $turn WHERE id = 1");
	ok($green->poll_query_until('postgres', "SELECT n = $turn FROM good WHERE id = 1"), "$what: other tables go on");
	is(digest($table), $before, "$what: the rows stay as they were");
}

# --- values of other types, and columns that are not there ---
hostile('types', q{SELECT id, v, v AS n, 9e15::bigint AS "timestamp" FROM old_types});
fails('types', 'a column of another type', 'invalid input syntax for type integer');
honest('types');

hostile('columns', q{SELECT id, v, 9e15::bigint AS "timestamp" FROM old_columns});
fails('columns', 'a column that is not there', 'does not exist');
honest('columns');

# the schema is another one between two statements
$blue->safe_psql('postgres', 'ALTER TABLE names RENAME v TO w; UPDATE names SET n = 1');
ok($green->poll_query_until('postgres', q{SELECT state = 'suspended' OR last_error ~ 'does not exist' FROM bcmig.table_status WHERE target = 'public.names'}), 'a column is renamed: an error');
$blue->safe_psql('postgres', 'ALTER TABLE names RENAME w TO v');

# --- keys ---
my ($changes) = $blue->safe_psql('postgres', q{SELECT change_table FROM bcmig_blue.tracked WHERE table_name = 'keys'});
$blue->safe_psql('postgres', qq{BEGIN; ALTER TABLE $changes ALTER id DROP NOT NULL; INSERT INTO $changes (xid, id) VALUES (pg_current_xact_id()::text::bigint, NULL);
	UPDATE keys SET n = 7 WHERE id = 7; COMMIT}) if $blue->safe_psql('postgres', qq{SELECT count(*) FROM pg_constraint WHERE conrelid = '$changes'::regclass AND contype = 'p'}) eq '0';
more('twice', q{printf '1,again,1,9000000000000000\\n2,again,1,9000000000000000\\n1,once more,1,9000000000000000\\n,no key,1,9000000000000000\\n'});
ok($green->poll_query_until('postgres', q{SELECT last_error IS NOT NULL OR quarantined > 0 FROM bcmig.table_status WHERE target = 'public.twice'}), 'keys twice, and NULL: an error');
note(last_error('twice'));
is($green->safe_psql('postgres', q{SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE id IS NULL) FROM twice}), '100|100|0', 'no row twice, none without a key');
no_more('twice');

# --- an answer without an end ---
more('endless', q{yes '1000,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,1,9000000000000000'});
fails('endless', 'an answer without an end', 'temp');
no_more('endless');

# --- a value beyond what PostgreSQL can send ---
hostile('huge', q{SELECT 1 AS id, repeat('x', 1100000000) AS v, 1 AS n, 9e15::bigint AS "timestamp"});
fails('huge', 'a value of more than 1 GB', 'memory|too large');
honest('huge');

# --- words that are no words ---
more('message', q{yes '%n%s%1000000d' | head -n 100000 | tr -d '\\n'});
fails('message', 'an endless message of format characters', '%n%s%1000000d');
cmp_ok(length(last_error('message')), '<', 9000, 'it is cut');
cmp_ok(-s $green->logfile, '<', 60_000_000, 'and the log stays small');
no_more('message');

# --- polls that say nonsense ---
sub blue_says
{
	my ($function, $type, $body) = @_;
	$blue->safe_psql('postgres', "CREATE OR REPLACE FUNCTION bcmig_blue.$function() RETURNS $type LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS \$\$ $body \$\$");
}
my %honest = map { $_ => $blue->safe_psql('postgres', "SELECT pg_get_functiondef('bcmig_blue.$_()'::regprocedure)") } qw(incarnation incarnation_hash);
sub environment_error { $green->poll_query_until('postgres', "SELECT coalesce(last_error, '') ~ '$_[0]' FROM bcmig.environment_status WHERE environment = 'blue'") }
blue_says('incarnation', 'text', 'SELECT NULL::text');
ok(environment_error('not one bcmig understands'), 'a poll with NULL where something must be');
blue_says('incarnation', 'text', q{SELECT repeat('%n%s', 100000)});
$green->poll_query_until('postgres', q{SELECT coalesce(last_error, '') = '' OR reachable FROM bcmig.environment_status WHERE environment = 'blue'});
blue_says('incarnation_hash', 'bigint', 'SELECT (random() * 1e15)::bigint');
$blue->safe_psql('postgres', 'UPDATE good SET n = n + 1');
ok($green->poll_query_until('postgres', q{SELECT bool_or(coalesce(last_error, '') <> '' OR state = 'resync') FROM bcmig.table_status}), 'another incarnation with each answer');
$blue->safe_psql('postgres', "$honest{incarnation}; $honest{incarnation_hash};");

# --- one that does not answer: the sync can be stopped ---
$green->poll_query_until('postgres', q{SELECT bool_and(state = 'streaming') FROM bcmig.table_status WHERE target IN ('public.slow', 'public.good')}) or die;
hostile('slow', q{SELECT id, v || pg_sleep(60)::text AS v, n, 9e15::bigint AS "timestamp" FROM old_slow});
ok($blue->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_stat_activity WHERE query ~ 'FETCH' AND wait_event = 'PgSleep'}), 'blue is slow');
$green->safe_psql('postgres', q{SELECT bcmig_stop_sync('s')});
ok($green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_status WHERE sync = 's'}), 'and the sync can be stopped');
ok($blue->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'}), 'nothing is left running on blue');
honest('slow');

# --- what the copy asks ---
$blue->safe_psql('postgres', q{UPDATE pg_class SET reltuples = -7 WHERE relname = 'good'; UPDATE pg_class SET reltuples = 1e18 WHERE relname = 'types'});
start_sync($green, 's');
$green->safe_psql('postgres', "SELECT bcmig_resync_table('s', '$_')") foreach qw(good types);
$green->safe_psql('postgres', "SELECT bcmig_resume_table('s', replace(target, 'public.', '')) FROM bcmig.table_status WHERE state = 'suspended'");
wait_sync($green, 's');
all_equal($blue, $green, 'once blue is honest', @tables);

# --- bytes that are no text: a blue of encoding SQL_ASCII has what it was given; the preflight says so, and may be overruled ---
$blue->safe_psql('postgres', q{CREATE DATABASE bytes TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'});
$blue->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $blue->connstr('bytes'), '-f', ($ENV{BCMIG_SOURCE} // '.') . '/blue/postgres_tracking.sql',
	'-c', q{CREATE TABLE bytes (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0); INSERT INTO bytes VALUES (1, 'text'); SELECT bcmig_blue.track('bytes')} ], 'a blue of SQL_ASCII');
my ($host, $port) = ($blue->host, $blue->port);
$green->safe_psql('postgres', qq{CREATE SERVER bytes FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'bytes');
	CREATE USER MAPPING FOR CURRENT_USER SERVER bytes OPTIONS (user '$me'); SELECT bcmig_add_environment('bytes', 'blue', 'bytes');
	SELECT bcmig_create_sync('b', 'bytes'); SELECT bcmig_add_table('b', 'bytes'); SELECT bcmig_start_sync('b', true);});
wait_sync($green, 'b');
$blue->safe_psql('bytes', q{INSERT INTO bytes VALUES (2, E'\xff\xfe'), (3, 'text')});
ok($green->poll_query_until('postgres', q{SELECT state = 'suspended' AND last_error ~ '22021: ' FROM bcmig.table_status WHERE target = 'public.bytes'}), 'bytes that are no text: an error');
is($green->safe_psql('postgres', 'SELECT count(*) FROM bytes'), '1', 'and they are not on green');
$blue->safe_psql('bytes', q{UPDATE bytes SET v = 'mended' WHERE id = 2});
$green->safe_psql('postgres', q{SELECT bcmig_resume_table('b', 'bytes')});
wait_sync($green, 'b');
is($green->safe_psql('postgres', q{SELECT string_agg(v, ',' ORDER BY id) FROM bytes}), 'text,mended,text', 'mended on blue, it goes on');

is($green->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $postmaster, 'the server has been up all the time');
unlike(slurp_file($green->logfile), qr/terminated by signal|PANIC|server process .* was terminated/, 'no process crashed');

done_testing();
