# Blue away, cut off, restarted, crashed with lost commits, replaced.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Utils;
use Test::More;

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE stamped (id int PRIMARY KEY, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO stamped SELECT i, 'x' || i, 0 FROM generate_series(1, 3000) i;
	CREATE TABLE plain (id int PRIMARY KEY, t text);
	INSERT INTO plain SELECT i, 'x' || i FROM generate_series(1, 3000) i;
	CREATE TABLE versioned (id int PRIMARY KEY, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO versioned SELECT i, 'x' || i, 0 FROM generate_series(1, 3000) i;
	CREATE TABLE heap (a int, b text);
	INSERT INTO heap SELECT i % 5, NULLIF('b' || i % 3, 'b2') FROM generate_series(1, 100) i;
	});
my @tables = qw(stamped plain versioned heap);
track($blue, $_) foreach qw(stamped plain);
track($blue, 'versioned', 'rowversion');

connect_blue($green, $blue, 's');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_', NULL, '{\"chunk_rows\": 100}')") foreach @tables;

sub sql_green
{
	return $green->safe_psql('postgres', $_[0]);
}

# state changes of the sync or a table after audit row $_[0]
my $mark = 0;

sub mark
{
	$mark = sql_green('SELECT max(audit_id) FROM bcmig.audit_log');
}

sub events
{
	my ($event) = @_;
	return sql_green("SELECT count(*) FROM bcmig.audit_log WHERE audit_id > $mark AND kind = 'state' AND event = '$event'");
}

sub wait_sync_state
{
	my ($state) = @_;
	return $green->poll_query_until('postgres', "SELECT state = '$state' FROM bcmig.sync_status");
}

# what is on green, and who wrote it
sub contents
{
	return sql_green(join ' UNION ALL ', map { "SELECT '$_', count(*), max(xmin::text::bigint), md5(string_agg(r::text, ',' ORDER BY r::text)) FROM $_ r" } @tables);
}

# log lines of green after position $_[1]
sub log_count
{
	my ($pattern, $from) = @_;
	my @hits = slurp_file($green->logfile, $from) =~ /$pattern/g;
	return scalar @hits;
}

# ---------------------------------------------------------------------------
# Down while it is copied
# ---------------------------------------------------------------------------
my $hold = stop_at($green, 'copy_chunk_loaded');
start_sync($green, 's');
ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}), 'a chunk is being copied');
$blue->stop('immediate');
ok(wait_sync_state('waiting'), 'blue down while it is copied: waiting');
sql_green('ALTER SYSTEM RESET bcmig.debug_points');
$green->reload;
$hold->quit;
$blue->start;
wait_sync($green, 's');
all_equal($blue, $green, 'blue was down during the copy', @tables);
is(sql_green(q{SELECT count(*) FROM bcmig.timeline WHERE event IN ('resync', 'suspended')}), '0', 'copied once');

# ---------------------------------------------------------------------------
# Down while streaming
# ---------------------------------------------------------------------------
mark();
my $before = contents();
my $log = -s $green->logfile;
$blue->stop;
ok(wait_sync_state('waiting'), 'blue down: waiting');
my $written = sql_green(q{SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE schemaname = 'public'});

# several attempts, each later than the one before
my $deadline = time + 60;
while (log_count('could not connect to server', $log) < 5 && time < $deadline)
{
	$green->poll_query_until('postgres', "SELECT state = 'waiting' FROM bcmig.sync_status");
}
cmp_ok(log_count('could not connect to server', $log), '>=', 5, 'bcmig tries again and again');
is(events('waiting'), '1', 'it waits from the first failure on');
is(events('streaming'), '0', 'and does nothing else');
is(sql_green(q{SELECT string_agg(DISTINCT state, ',') FROM bcmig.table_status}), 'streaming', 'no table is suspended');
is(sql_green(q{SELECT state FROM bcmig_status('s')}), 'waiting', 'bcmig_status says so');
is(sql_green(q{SELECT lag IS NOT NULL AND lag > '1 s' FROM bcmig.sync_status}), 't', 'lag grows while blue is away');
is(contents(), $before, 'green is untouched');
is(sql_green(q{SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_user_tables WHERE schemaname = 'public'}), $written, 'and not written to');
my ($ret, $stdout, $stderr) = $green->psql('postgres', "CALL bcmig_wait_sync('s', 'caught_up', '500 ms')", extra_params => [ '-v', 'VERBOSITY=sqlstate' ]);
like($stderr, qr/BM011/, 'bcmig_wait_sync gives up in time');
$blue->start;
$blue->safe_psql('postgres', q{UPDATE stamped SET t = 'after' WHERE id % 7 = 0; DELETE FROM plain WHERE id < 20; UPDATE versioned SET t = '' WHERE id < 20; DELETE FROM versioned WHERE id = 30});
wait_sync($green, 's');
ok(wait_sync_state('streaming'), 'blue is back: streaming');
all_equal($blue, $green, 'blue was down', @tables);
is(events('resync'), '0', 'a clean restart makes nothing be read again');

# ---------------------------------------------------------------------------
# Connections cut, again and again
# ---------------------------------------------------------------------------
mark();
for my $i (1 .. 12)
{
	$blue->safe_psql('postgres', qq{
		UPDATE stamped SET t = 'cut $i' WHERE id % 13 = $i; UPDATE plain SET t = 'cut $i' WHERE id % 13 = $i;
		UPDATE versioned SET t = 'cut $i' WHERE id % 13 = $i; DELETE FROM stamped WHERE id = 100 + $i; INSERT INTO plain VALUES (10000 + $i, NULL);
		SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'postgres_fdw'});
}
wait_sync($green, 's');
ok(wait_sync_state('streaming'), 'connections cut: streaming again');
all_equal($blue, $green, 'connections cut', @tables);
is(events('resync') + events('suspended'), '0', 'cut connections cost nothing but time');

# ---------------------------------------------------------------------------
# Lost commits: blue's data directory goes back to an older state, as after a
# crash with synchronous_commit = off
# ---------------------------------------------------------------------------
my %lost = (
	'an insert' => [ q{INSERT INTO stamped VALUES (20000, 'lost', 0)}, 1 ],
	'an update' => [ q{UPDATE stamped SET t = 'lost' WHERE id = 500}, 1 ],
	'an update of a table without stamp' => [ q{UPDATE plain SET t = 'lost' WHERE id = 500}, 1 ],
	'an update of a rowversion table' => [ q{UPDATE versioned SET t = 'lost' WHERE id = 500}, 1 ],
	'a delete' => [ q{DELETE FROM stamped WHERE id = 600}, 1 ],
	'a delete from a table without stamp' => [ q{DELETE FROM plain WHERE id = 600}, 1 ],
	'a swept delete' => [ q{DELETE FROM versioned WHERE id = 600}, 1 ],
	'transaction ids' => [ q{INSERT INTO stamped VALUES (20000, 'lost', 0); DELETE FROM plain WHERE id = 700}, 0 ],
);
foreach my $what (sort keys %lost)
{
	my ($sql, $burn) = @{ $lost{$what} };

	save_blue($blue);
	wait_sync($green, 's');
	$blue->safe_psql('postgres', $sql);
	wait_sync($green, 's');
	mark();
	lose_tail($blue, $burn);
	wait_sync($green, 's');
	cmp_ok(events('resync'), '>', 0, "lost $what: noticed");
	all_equal($blue, $green, "lost $what", @tables);
}

# nothing lost: no resync
save_blue($blue);
wait_sync($green, 's');
$blue->safe_psql('postgres', q{UPDATE stamped SET t = 'kept' WHERE id = 501; DELETE FROM plain WHERE id = 601; UPDATE versioned SET t = 'kept' WHERE id = 501});
wait_sync($green, 's');
mark();
$blue->stop('immediate');
$blue->start;
$blue->safe_psql('postgres', q{INSERT INTO plain VALUES (601, 'again')});
wait_sync($green, 's');
all_equal($blue, $green, 'a crash that lost nothing', @tables);
is(events('resync'), '0', 'a crash that lost nothing makes nothing be read again');

# ---------------------------------------------------------------------------
# Another system behind the same address
# ---------------------------------------------------------------------------
mark();
$blue->stop;
my $other = new_blue('other');
$other->safe_psql('postgres', q{CREATE TABLE stamped (id int PRIMARY KEY, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE plain (id int PRIMARY KEY, t text);
	CREATE TABLE versioned (id int PRIMARY KEY, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE heap (a int, b text);
	INSERT INTO stamped SELECT i, 'other' || i, 0 FROM generate_series(5, 2900) i;
	INSERT INTO plain SELECT i, 'x' || i FROM generate_series(1, 3100) i;
	INSERT INTO versioned SELECT i, 'x' || i, 0 FROM generate_series(1, 2900) i WHERE i <> 5;
	INSERT INTO heap SELECT i % 5, NULLIF('b' || i % 3, 'b2') FROM generate_series(1, 90) i;});
track($other, $_) foreach qw(stamped plain);
track($other, 'versioned', 'rowversion');
$other->safe_psql('postgres', 'DO $$ BEGIN FOR i IN 1 .. 3000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$');
$other->stop;
$other->append_conf('postgresql.conf', 'port = ' . $blue->port . "\nunix_socket_directories = '" . $blue->host . "'");
$other->{_port} = $blue->port;
$other->{_host} = $blue->host;
$other->start;
wait_sync($green, 's');
cmp_ok(events('resync'), '>=', 3, 'another system: everything is read again');
all_equal($other, $green, 'another system', @tables);
is(sql_green(q{SELECT count(*) FROM bcmig.quarantine}), '0', 'nothing in quarantine');

done_testing();
