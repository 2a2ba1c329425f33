# A hostile SQL Server: what it sends may be wrong in any way, or be what
# PostgreSQL cannot hold.  It gives errors, never a crash or a wrong row.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Utils;
use TdsServer;
use Test::More;

my $server = new_sql_server();
my $blue = $server->{node};
my $green = new_green('green', 'log_min_messages = warning');
my $me = (getpwuid($<))[0];
my @tables = qw(good half zero padded types columns endless message garbage);

# what a window may put on disk is the owner's to say; the stand-in has to sort
$green->safe_psql('postgres', qq{ALTER ROLE "$me" SET temp_file_limit = '4MB'});
$blue->safe_psql('postgres', qq{ALTER ROLE "$me" SET temp_file_limit = '64MB'; CREATE EXTENSION file_fdw; CREATE SERVER program FOREIGN DATA WRAPPER file_fdw});
foreach (@tables)
{
	my $type = $_ eq 'padded' ? 'char(12)' : 'varchar(50)';
	$blue->safe_psql('postgres', qq{CREATE TABLE $_ ("timestamp" bigint NOT NULL DEFAULT 0, id int PRIMARY KEY, v $type NOT NULL, n int NOT NULL);
		INSERT INTO $_ (id, v, n) SELECT i, 'v' || i, i FROM generate_series(1, 100) i;
		SELECT mssql.register('$_', '$_', tracked => '$_' <> 'endless')});
}
connect_sql_server($green, $server, 's', '{"max_retries": 1, "sweep_interval": "1h"}');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach @tables;
start_sync($green, 's');
wait_sync($green, 's');
my $postmaster = $green->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

sub last_error { $green->safe_psql('postgres', "SELECT coalesce(last_error, '') FROM bcmig.table_status WHERE target = 'public.$_[0]'") }
sub digest { $green->safe_psql('postgres', "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM $_[0] t") }

# The table fails with this error, its rows stay, and another table goes on.
my $turn = 0;
sub fails
{
	my ($table, $do, $what, $error) = @_;
	my $before = digest($table);
	$do->();
	ok($green->poll_query_until('postgres', "SELECT coalesce(last_error, '') ~ \$e\$$error\$e\$ FROM bcmig.table_status WHERE target = 'public.$table'"), "$what: an error")
	  or diag(last_error($table));
	note(last_error($table));
	$turn++;
	$blue->safe_psql('postgres', "UPDATE good SET n = $turn WHERE id = 1");
	ok($green->poll_query_until('postgres', "SELECT n = $turn FROM good WHERE id = 1"), "$what: other tables go on");
	is(digest($table), $before, "$what: the rows stay as they were");
}
sub on_blue { my ($sql) = @_; return sub { $blue->safe_psql('postgres', $sql) } }

# From now on blue has more rows in a table: what a program prints.
sub more
{
	my ($table, $program) = @_;
	return on_blue(qq{BEGIN; CREATE FOREIGN TABLE more_$table () INHERITS ($table) SERVER program OPTIONS (program \$p\$$program\$p\$, format 'csv');
		UPDATE ONLY $table SET n = 1 WHERE id = 1; COMMIT});
}

# --- text SQL Server holds and PostgreSQL cannot (the stand-in has characters that stand for it) ---
fails('half', on_blue(q{UPDATE half SET v = 'a' || chr(x'10FFFD'::int) || 'b' WHERE id = 7}), 'half a surrogate pair', '22021: blue has a text that is no valid UTF-16');
$blue->safe_psql('postgres', q{UPDATE half SET v = 'mended' WHERE id = 7});
fails('zero', on_blue(q{UPDATE zero SET v = 'a' || chr(x'10FFFC'::int) || 'b' WHERE id = 7}), 'a character U+0000',
	q{22021: of a row's texts and binary values 2 bytes came, blue has 6 .The row begins with id = 7, v = a, n = 7});
$blue->safe_psql('postgres', q{UPDATE zero SET v = 'mended' WHERE id = 7});
fails('padded', on_blue(q{UPDATE padded SET v = 'a' || chr(x'10FFFC'::int) || 'b' WHERE id = 7}), 'one in a text that is filled up with blanks',
	q{22021: of a row's texts and binary values 2 bytes came, blue has 6 });
$blue->safe_psql('postgres', q{UPDATE padded SET v = 'mended' WHERE id = 7});

# --- values of other types, and columns that are not there ---
fails('types', on_blue(q{ALTER TABLE types ALTER n TYPE varchar(20) USING 'no ' || n; UPDATE types SET v = 'new' WHERE id = 3}), 'a column of another type',
	'invalid input syntax for type integer|changed its type|is now');
$blue->safe_psql('postgres', q{ALTER TABLE types ALTER n TYPE int USING substr(n, 4)::int});
fails('columns', on_blue(q{ALTER TABLE columns RENAME v TO w; UPDATE columns SET n = -1 WHERE id = 3}), 'a column that is not there', 'SQL Server error 207|has no column|is gone');
$blue->safe_psql('postgres', q{ALTER TABLE columns RENAME w TO v});

# --- an answer without an end ---
fails('endless', more('endless', q{yes '9000000000000000,1000,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx,1'}), 'an answer without an end', 'temp');
$blue->safe_psql('postgres', 'BEGIN; DROP FOREIGN TABLE more_endless; UPDATE endless SET n = n; COMMIT');

# --- words that are no words ---
fails('message', sub { sql_setting($server, 'fault_1', 'table=message purpose=window=>fail 50000 ' . '%n%s%1000000d' x 100); $blue->safe_psql('postgres', 'UPDATE message SET n = 5 WHERE id = 5') },
	'a message of format characters', '%n%s%1000000d');
cmp_ok(length(last_error('message')), '<', 9000, 'it is cut');
sql_setting($server, 'fault_1', undef);

# --- bytes that are no protocol, in the midst of a row ---
foreach my $bytes ('d1 100000', '00 100000', 'ff 100000', 'd1feff41 30000', 'd1ffff 50000', 'fd 20000', 'aa 40000', '81ffff 30000', 'e3 30000')
{
	sql_setting($server, 'fault_1', "table=garbage purpose=window=>once garble 1 $bytes");
	$turn++;
	$blue->safe_psql('postgres', "UPDATE garbage SET n = -$turn WHERE id <= 3");
	ok($blue->poll_query_until('postgres', q{SELECT count(*) = 0 FROM mssql.setting WHERE name = 'fault_1'}), "garbage of $bytes: sent");
	# FreeTDS may take it for a broken connection, which is tried again, or for an answer it does not understand
	$green->poll_query_until('postgres', "SELECT state = 'suspended' OR (SELECT count(*) = 3 FROM garbage WHERE n = -$turn) FROM bcmig.table_status WHERE target = 'public.garbage'");
	note(last_error('garbage'));
	$green->safe_psql('postgres', q{SELECT bcmig_resume_table('s', 'garbage') FROM bcmig.table_status WHERE target = 'public.garbage' AND state = 'suspended'});
	ok($green->poll_query_until('postgres', "SELECT count(*) = 3 FROM garbage WHERE n = -$turn"), "garbage of $bytes: read again");
}

# --- polls that say nonsense ---
sub polls { $green->safe_psql('postgres', q{SELECT polls FROM bcmig.environment_status WHERE environment = 'blue'}) }
my $honest = $blue->safe_psql('postgres', q{SELECT pg_get_functiondef('mssql.change_tracking_current_version()'::regprocedure)});
foreach my $version ('NULL', -7, '9223372036854775807')
{
	my $polls = polls();
	$blue->safe_psql('postgres', "CREATE OR REPLACE FUNCTION mssql.change_tracking_current_version() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT ($version)::bigint'; UPDATE good SET n = n + 1");
	ok($green->poll_query_until('postgres', "SELECT polls >= $polls + 3 FROM bcmig.environment_status WHERE environment = 'blue'"), "a version of $version: polls go on");
	next if $version ne '9223372036854775807';

	# a table that has been read to it would see no change any more
	ok($green->poll_query_until('postgres', "SELECT seen LIKE '$version:%' FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'good'"), 'and a table is read to there');
}
$blue->safe_psql('postgres', $honest);

# --- once it is honest ---
$green->safe_psql('postgres', "SELECT bcmig_resume_table('s', replace(target, 'public.', '')) FROM bcmig.table_status WHERE state = 'suspended'");
$blue->safe_psql('postgres', "UPDATE $_ SET n = n + 1") foreach @tables;
wait_sync($green, 's');
all_equal($blue, $green, 'once blue is honest', @tables);
is($green->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $postmaster, 'the server has been up all the time');
unlike(slurp_file($green->logfile), qr/terminated by signal|PANIC|server process .* was terminated/, 'no process crashed');

TdsServer::stop_server($server);
done_testing();
