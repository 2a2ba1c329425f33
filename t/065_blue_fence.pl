# The fence of blue: who writes there after the last step of a switch is refused,
# whoever it is and by whatever way; whether it is so is read from blue.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use IPC::Run;
use Test::More;

my $blue = new_blue('blue', 'wal_level = logical', 'max_wal_senders = 4', 'max_replication_slots = 4');
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE "Odd ""Name" (id int PRIMARY KEY, v text);
	CREATE TABLE part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
	CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
	CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (200);
	CREATE TABLE child (id int PRIMARY KEY, item int REFERENCES item ON DELETE CASCADE);
	CREATE TABLE other_company (id int PRIMARY KEY, v text);
	CREATE TABLE country (code text PRIMARY KEY); INSERT INTO country VALUES ('DK');
	ALTER TABLE "Odd ""Name" ADD country text REFERENCES country ON DELETE CASCADE ON UPDATE SET NULL;
	CREATE VIEW item_view AS SELECT id, v FROM item;
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i; INSERT INTO "Odd ""Name" VALUES (1, 'x', 'DK');
	INSERT INTO part SELECT i, 'v' FROM generate_series(50, 150, 10) i; INSERT INTO other_company VALUES (1, 'x');
	CREATE ROLE bc LOGIN; CREATE ROLE clerks; GRANT ALL ON item, "Odd ""Name", part, child TO bc;});
track($blue, $_) foreach 'item', '"Odd ""Name"', 'child', 'other_company';
connect_blue($green, $blue, 's', '{"traffic_timeout": "2s"}');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'item'); SELECT bcmig_add_table('s', 'Odd "Name'); SELECT bcmig_add_table('s', 'part')});

sub option { $green->safe_psql('postgres', "SELECT bcmig_alter_environment('blue', '$_[0]')") }

# SQLSTATE of what blue or green says to a statement; '' = nothing
sub sqlstate
{
	my ($node, $sql, $user) = @_;
	my (undef, undef, $err) = $node->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose', $user ? ('-U', $user) : () ]);
	return $err =~ /ERROR:\s+(\w{5})/ ? $1 : $err;
}

sub try_fence { return try_blue_fence($green, 's', @_) }

# --- before the first start ---
is(sqlstate($green, q{SELECT bcmig_confirm('s', 'fence', 'x')}), 'BM009', 'nothing can be confirmed of a sync that was never started');
is(sqlstate($green, q{SELECT bcmig.try_blue_fence('s', 'fence')}), 'BM009', 'nor tried');
start_sync($green, 's');
wait_sync($green, 's');

# --- call: without the script, without the grant ---
option('{"fence_by": "call"}');
like(try_fence('fence'), qr/^fence: \w{5}: .*raise_fence/, 'blue does not know the functions');
like(try_fence('read'), qr/^read: now open: 3 of 3 tables/, 'and is open');
allow_switch($blue);

# --- call: up, for everybody and every way to write ---
like(try_fence('fence'), qr/^fence: now fenced: 3 tables, such as public\..*triggers/, 'fenced');
my $before = $blue->safe_psql('postgres', q{SELECT md5(string_agg(x::text, ',' ORDER BY x::text)) FROM (SELECT item.*::text FROM item UNION ALL SELECT part.*::text FROM part UNION ALL SELECT o.*::text FROM "Odd ""Name" o) x});
foreach my $sql (q{INSERT INTO item VALUES (1000, 'x')}, q{UPDATE item SET v = 'x' WHERE id = 1}, q{DELETE FROM item WHERE id = 1}, q{TRUNCATE item CASCADE},
	"COPY item (id, v) FROM PROGRAM 'printf ''1000\\tx\\n'''", q{INSERT INTO item VALUES (1, 'x') ON CONFLICT DO NOTHING},
	q{INSERT INTO item VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'x'}, q{MERGE INTO item USING (SELECT 1 AS id) s USING (id) WHEN MATCHED THEN DELETE} =~ s/USING \(id\)/ON item.id = s.id/r,
	q{WITH w AS (DELETE FROM item WHERE id = 2 RETURNING *) SELECT * FROM w}, q{UPDATE item_view SET v = 'x' WHERE id = 1},
	q{DELETE FROM country}, q{UPDATE country SET code = 'SE'}, q{INSERT INTO "Odd ""Name" VALUES (2, 'x')}, q{INSERT INTO part VALUES (1, 'x')}, q{UPDATE part SET id = 199 WHERE id = 50}, q{DELETE FROM part_2},
	q{TRUNCATE part_2}, q{TRUNCATE part}, q{SET session_replication_role = replica; UPDATE item SET v = 'x' WHERE id = 1},
	q{BEGIN; SAVEPOINT s; UPDATE item SET v = 'x' WHERE id = 1; COMMIT})
{
	is(sqlstate($blue, $sql), 'BM021', "superuser and owner: $sql");
}
is(sqlstate($blue, q{UPDATE item SET v = 'x' WHERE id = 1}, 'bc'), 'BM021', 'BC itself');
is(sqlstate($blue, q{INSERT INTO child VALUES (1, 1)}), '', 'a table of no sync takes writes');
is(sqlstate($blue, q{UPDATE other_company SET v = 'y'}), '', 'that of another company too');
is(sqlstate($blue, q{SELECT * FROM item FOR UPDATE}), '', 'reading and locking is no write');
my (undef, undef, $err) = $blue->psql('postgres', q{UPDATE item SET v = 'x' WHERE id = 1});
like($err, qr/public\.item takes no writes.*DETAIL:.*fenced it at \d{4}-\d\d-\d\d .*, for \w+.*HINT:.*administrator/s, 'the error says why, since when, and who to ask');
is($blue->safe_psql('postgres', q{SELECT md5(string_agg(x::text, ',' ORDER BY x::text)) FROM (SELECT item.*::text FROM item UNION ALL SELECT part.*::text FROM part UNION ALL SELECT o.*::text FROM "Odd ""Name" o) x}), $before, 'nothing was written');

# --- bcmig's own writes pass, those of its transaction only ---
my $own = 'BEGIN; INSERT INTO bcmig_blue.replaying VALUES (pg_current_xact_id()::text::bigint)';
is($blue->safe_psql('postgres', qq{$own; UPDATE item SET v = 'own' WHERE id = 1; SAVEPOINT s; DELETE FROM item WHERE id = 2; INSERT INTO item VALUES (2000, 'x');
	SELECT count(*) FILTER (WHERE v = 'own' AND "timestamp" = pg_current_xact_id()::text::bigint) || ' ' || max(id) || ' ' || count(*) FROM item; ROLLBACK}), '1 2000 100', 'insert, update and delete, stamped');
is(sqlstate($blue, "$own; TRUNCATE part"), 'BM021', 'TRUNCATE is never one of them');
my $other = $blue->background_psql('postgres', on_error_die => 1);
$other->query_safe($own);
is(sqlstate($blue, q{UPDATE item SET v = 'x' WHERE id = 1}), 'BM021', 'another session beside it is refused');
$other->query_safe('COMMIT');
is(sqlstate($blue, q{UPDATE item SET v = 'x' WHERE id = 1}), 'BM021', 'and after it');
is($other->query_safe(q{BEGIN; SELECT count(*) FROM bcmig_blue.replaying WHERE xid = pg_current_xact_id()::text::bigint; COMMIT}), '0', 'the next transaction of the same session is another');
$other->quit;

# --- logical replication into blue ---
$blue->safe_psql('postgres', 'CREATE DATABASE pub');
$blue->safe_psql('pub', q{CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0); CREATE PUBLICATION p FOR TABLE item;
	SELECT pg_create_logical_replication_slot('sub', 'pgoutput')});
$blue->safe_psql('postgres', sprintf q{CREATE SUBSCRIPTION sub CONNECTION $c$%s$c$ PUBLICATION p WITH (create_slot = false, copy_data = false)}, $blue->connstr('pub'));
my $log = -s $blue->logfile;
$blue->safe_psql('pub', q{INSERT INTO item VALUES (3000, 'replicated')});
ok($blue->wait_for_log(qr/public\.item takes no writes/, $log), 'an apply worker is refused');
is($blue->safe_psql('postgres', 'SELECT count(*) FROM item WHERE id = 3000'), '0', 'and writes nothing');
$blue->safe_psql('postgres', q{ALTER SUBSCRIPTION sub DISABLE; ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub});
$blue->poll_query_until('pub', q{SELECT count(pg_drop_replication_slot('sub')) = 1}, 't');

# --- twice, and with tracking done again ---
like(try_fence('fence'), qr/^fence: now fenced: 3 tables/, 'raised twice');
track($blue, 'item');
track($blue, 'item', 'rowversion');
like(try_fence('read'), qr/^read: now fenced: 3 tables/, 'a table that is tracked anew stays fenced');
$blue->safe_psql('postgres', q{SELECT bcmig_blue.untrack('"Odd ""Name"')});
like(try_fence('read'), qr/^read: now fenced: 3 tables/, 'one that is untracked too');
track($blue, $_) foreach 'item', '"Odd ""Name"';
like($green->safe_psql('postgres', q{SELECT blue_fence FROM bcmig.traffic_status WHERE blue_fence_at > clock_timestamp() - interval '1 hour'}), qr/^fenced: 3 tables/, 'traffic_status shows it');

# --- what is not as it was made is no fence ---
foreach my $damage ([ 'ALTER TABLE item DISABLE TRIGGER bcmig_fence', 'ALTER TABLE item ENABLE ALWAYS TRIGGER bcmig_fence' ],
	[ 'ALTER TABLE item ENABLE TRIGGER bcmig_fence_truncate', 'ALTER TABLE item ENABLE ALWAYS TRIGGER bcmig_fence_truncate' ],
	[ 'CREATE TABLE part_3 PARTITION OF part FOR VALUES FROM (200) TO (300)', 'DROP TABLE part_3' ],
	[ q{DROP TRIGGER bcmig_fence ON part_1; CREATE TRIGGER bcmig_fence BEFORE INSERT OR UPDATE OR DELETE ON part_1 FOR EACH ROW WHEN (false) EXECUTE FUNCTION bcmig_blue.fenced();
		ALTER TABLE part_1 ENABLE ALWAYS TRIGGER bcmig_fence}, q{DROP TRIGGER bcmig_fence ON part_1; SELECT bcmig_blue.raise_fence('{public.part}')} ])
{
	$blue->safe_psql('postgres', $damage->[0]);
	like(try_fence('read'), qr/^read: now partly: 1 of 3 tables can be written to/, "open again: $damage->[0]");
	$blue->safe_psql('postgres', $damage->[1]);
}
like(try_fence('read'), qr/^read: now fenced/, 'mended');

# --- down; who reads holds nothing up ---
my $reader = $blue->background_psql('postgres', on_error_die => 1);
$reader->query_safe('BEGIN; SELECT count(*) FROM item');
like(try_fence('unfence'), qr/^unfence: now open: 3 of 3/, 'lifted beside a reader');
is(sqlstate($blue, q{UPDATE item SET v = 'x' WHERE id = 1; INSERT INTO part VALUES (1, 'x'); DELETE FROM "Odd ""Name"}), '', 'blue takes writes');
is($blue->safe_psql('postgres', q{SELECT string_agg(format('%s %s', tgrelid::regclass, tgenabled), ', ') FROM pg_trigger WHERE tgname LIKE 'bcmig_fence%'}), 'item D, item D', 'the triggers of the table that is read are off');
like(try_fence('fence'), qr/^fence: now fenced/, 'up again beside the reader');
$reader->query_safe('COMMIT');
$reader->quit;
like(try_fence('unfence'), qr/^unfence: now open: 3 of 3/, 'lifted');
is($blue->safe_psql('postgres', q{SELECT (SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'bcmig_fence%') + (SELECT count(*) FROM bcmig_blue.fence)}), '0', 'nothing is left');
like(try_fence('unfence'), qr/^unfence: now open: 3 of 3/, 'lifted twice');

# --- those who are writing already: waited for, or named ---
my $writer = $blue->background_psql('postgres', on_error_die => 1);
my $pid = $writer->query_safe('SELECT pg_backend_pid()');
$writer->query_safe(q{BEGIN; INSERT INTO part VALUES (199, 'in flight')});
like(try_fence('fence'), qr/^fence: BM022: .*part_2 is being written to.*pid $pid, user \w+, since \d\d:\d\d:\d\d/, 'a writer in flight is named');
like(try_fence('read'), qr/^read: now open: 3 of 3/, 'then no table is fenced');
is(sqlstate($blue, q{UPDATE item SET v = 'y' WHERE id = 1}), '', 'nor locked');
$green->safe_psql('postgres', q{SELECT bcmig_alter_sync('s', '{"traffic_timeout": "60s"}')});
$green->safe_psql('postgres', q{SELECT bcmig.try_blue_fence('s', 'fence')});
ok($blue->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE relation = 'part_2'::regclass AND NOT granted}), 'with more time it is waited for');
$writer->query_safe('COMMIT');
ok($green->poll_query_until('postgres', q{SELECT blue_fence LIKE 'fenced%' FROM bcmig.traffic_status}), 'and fenced then');
is($blue->safe_psql('postgres', q{SELECT v FROM part WHERE id = 199}), 'in flight', 'what it wrote is there');
like(try_fence('unfence'), qr/^unfence: now open/, 'lifted');
$green->safe_psql('postgres', q{SELECT bcmig_alter_sync('s', '{"traffic_timeout": "1s"}')});
$blue->safe_psql('postgres', q{BEGIN; UPDATE item SET v = 'z' WHERE id = 2; PREPARE TRANSACTION 'left over'});
like(try_fence('fence'), qr/^fence: BM022: .*item is being written to.*prepared transaction 'left over' of \w+ since/, 'a prepared transaction too');
$blue->safe_psql('postgres', q{ROLLBACK PREPARED 'left over'});
$writer->quit;

# --- who may ---
$blue->safe_psql('postgres', 'CREATE ROLE mover LOGIN; CREATE VIEW v AS SELECT 1 AS x');
my @raise = map { "SELECT bcmig_blue.raise_fence('{$_}')" } 'public.item';
is(sqlstate($blue, $raise[0], 'mover'), '42501', 'nobody who was not named');
$blue->safe_psql('postgres', q{SELECT bcmig_blue.grant_switch('mover')});
is(sqlstate($blue, $raise[0], 'mover'), '42501', 'nor a table it cannot read');
$blue->safe_psql('postgres', 'GRANT SELECT ON item TO mover');
is(sqlstate($blue, $raise[0], 'mover'), '', 'else without any right to write');
is(sqlstate($blue, q{UPDATE item SET v = 'x' WHERE id = 1}), 'BM021', 'it binds all');
is(sqlstate($blue, q{SELECT bcmig_blue.lift_fence('{public.item,public.gone}')}, 'mover'), '', 'a table that is gone does not keep others shut');
foreach my $bad ([ '{public.gone}', '42P01' ], [ '{public.v}', '42809' ], [ '{bcmig_blue.state}', '42809' ], [ '{pg_catalog.pg_class}', '42809' ])
{
	is(sqlstate($blue, "SELECT bcmig_blue.raise_fence('$bad->[0]')"), $bad->[1], "refused: $bad->[0]");
}
is(sqlstate($blue, 'SELECT bcmig_blue.raise_fence(NULL)'), '42P01', 'refused: NULL');
is(sqlstate($blue, 'SELECT * FROM bcmig_blue.replaying', 'mover'), '42501', 'whose transactions pass is nobody\'s to read');

# --- by the rights of Business Central's login ---
option('{"fence_by": "confirm", "bc_login": "bc"}');
sub state_is
{
	my ($state, $what) = @_;
	like(try_fence('read'), qr/^read: now $state/, $what);
}
state_is('open: 3 of 3 tables can be written to, such as public\..*role bc may write$', 'it may write');
$blue->safe_psql('postgres', 'REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON item, "Odd ""Name", part FROM bc');
state_is('fenced: 3 tables, such as public\..*role bc has no right to write$', 'it may not');
foreach my $grant ([ 'GRANT UPDATE (v) ON item TO bc', 'REVOKE UPDATE (v) ON item FROM bc', 'role bc may write' ],
	[ 'GRANT TRUNCATE ON part_1 TO PUBLIC', 'REVOKE TRUNCATE ON part_1 FROM PUBLIC', 'role bc may write' ],
	[ 'GRANT DELETE ON part TO clerks; ALTER ROLE bc NOINHERIT; GRANT clerks TO bc', 'REVOKE clerks FROM bc', 'role clerks may write, which bc is a member of' ])
{
	$blue->safe_psql('postgres', $grant->[0]);
	state_is("partly: 1 of 3 tables.*$grant->[2]", $grant->[0]);
	$blue->safe_psql('postgres', $grant->[1]);
}
$blue->safe_psql('postgres', 'ALTER TABLE item OWNER TO bc; REVOKE ALL ON item FROM bc');
state_is('fenced', 'the owner that has nothing left');
$blue->safe_psql('postgres', 'ALTER ROLE bc SUPERUSER');
state_is('open', 'a superuser');
$blue->safe_psql('postgres', 'ALTER ROLE bc NOSUPERUSER');

# --- a person's word: only where blue cannot tell, only for what was asked last ---
is(sqlstate($green, "SELECT bcmig_confirm('s', $_)"), 'BM003', "refused: $_") foreach q{'fences', 'x'}, q{'fence', E' \t'}, q{'fence', ''};
is(sqlstate($green, q{SELECT bcmig_confirm('s', 'fence', NULL)}), '22004', 'refused: NULL');
option('{"bc_login": "nobody"}');
like(try_fence('fence'), qr/^fence: now unknown: 3 of 3 tables.*no role nobody/, 'nothing is sent, and blue cannot tell');
$green->safe_psql('postgres', q{SELECT bcmig_confirm('s', 'fence', 'the service is stopped')});
state_is('fenced: \w+ says so \(the service is stopped\); blue itself cannot tell', 'confirmed');
like(try_fence('fence'), qr/^fence: now fenced/, 'asked again for the same, it holds');
$green->safe_psql('postgres', q{SELECT bcmig_confirm('s', 'unfence', 'the service runs')});
state_is('open: \w+ says so', 'the last word counts');
$green->safe_psql('postgres', q{SELECT bcmig_confirm('s', 'fence', 'stopped again')});
like(try_fence('unfence'), qr/^unfence: now unknown/, 'what was said before is not about this');
(undef, undef, $err) = $green->psql('postgres', q{BEGIN; SELECT bcmig_confirm('s', 'unfence', 'x'); SELECT bcmig_confirm('s', 'fence', 'x'); ROLLBACK});
is(join(' ', $err =~ /NOTICE:\s+(.*)/g), 'nobody has asked for "fence" yet', 'who is too early is told');
like(try_fence('fence'), qr/^fence: now unknown/, 'nor for the fence that is asked for later');
$green->safe_psql('postgres', q{SELECT bcmig_confirm('s', 'fence', 'stopped')});
option('{"bc_login": null}');
state_is('open: 3 of 3', 'a person does not know better than blue: open');
$blue->safe_psql('postgres', q{SELECT bcmig_blue.raise_fence('{public.item}')});
state_is('partly: 2 of 3', 'nor in part');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.audit_log WHERE event = 'bcmig_confirm' AND detail = 'fence: the service is stopped'}), '1', 'in the audit log');

# --- the scripts ---
foreach my $kind ([ 'fence', 'fenced' ], [ 'unfence', 'open' ])
{
	$blue->safe_psql('postgres', $green->safe_psql('postgres', "SELECT bcmig_blue_script('$kind->[0]', 's')"));
	state_is("$kind->[1]: 3", "script $kind->[0]");
}

# --- a hook: what blue says counts, not what the hook does ---
my $calls = $blue->basedir . '/calls';
my $port = PostgreSQL::Test::Cluster::get_free_port();
my $up = q{SELECT bcmig_blue.raise_fence('{public.item,public.part,"public.\"Odd \"\"Name\""}')};
my $server = IPC::Run::start([ $^X, '-e', q{
	use IO::Socket::INET;
	my ($port, $calls, $connstr, $up) = @ARGV;
	my $l = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 5, ReuseAddr => 1) or die;
	print "ready\n"; close STDOUT;
	while (my $c = $l->accept)
	{
		my ($head, $body) = ('', '');
		while (defined(my $line = <$c>)) { last if $line =~ /^\r?\n/; $head .= $line }
		my ($n) = $head =~ /content-length: (\d+)/i;
		read($c, $body, $n // 0);
		open my $f, '>>', $calls; print $f "$head$body\n"; close $f;
		my ($path) = $head =~ m{^POST /(\w+)};
		system('psql', '-X', '-q', '-o', '/dev/null', '-d', $connstr, '-c', $body =~ /"unfence"/ ? $up =~ s/raise/lift/r : $up) if $path eq 'good';
		print $c "HTTP/1.1 " . ($path eq 'sick' ? '500 No' : $path eq 'moved' ? "302 Found\r\nLocation: http://127.0.0.1:$port/good" : '202 Accepted') . "\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc";
		close $c;
	}
}, $port, $calls, $blue->connstr('postgres'), $up ], '<', \undef, '>', \my $ready, '2>', \my $complaints);
$server->pump until $ready =~ /ready/;
option('{"fence_by": "hook"}');
like(try_fence('fence'), qr/^fence: environment blue fences by a hook, and has no option fence_hook/, 'no hook');
sub hook { option(qq({"fence_hook": "http://127.0.0.1:$port/$_[0]"})) }
hook('lies');
like(try_fence('fence'), qr/^fence: now open: 3 of 3/, 'a hook that only says yes');
hook('sick');
like(try_fence('fence'), qr/^fence: hook http.*status 500: abc/, 'one that says no');
hook('moved');
like(try_fence('fence'), qr/^fence: hook http.*status 302/, 'a redirect is not followed');
hook('good');
like(try_fence('fence'), qr/^fence: now fenced: 3/, 'one that does it');
like(try_fence('unfence'), qr/^unfence: now open: 3/, 'and undoes it');
my ($last) = PostgreSQL::Test::Utils::slurp_file($calls) =~ /(\{[^\n]*)\n\z/;
is($green->safe_psql('postgres', "SELECT \$j\$$last\$j\$::jsonb"), $green->safe_psql('postgres', q{SELECT jsonb_build_object('sync', 's', 'environment', 'blue', 'action', 'unfence', 'epoch', 0,
	'tables', '[{"schema": "public", "table": "Odd \"Name"}, {"schema": "public", "table": "item"}, {"schema": "public", "table": "part"}]'::jsonb)}), 'what it is told');
$server->kill_kill;
like(try_fence('fence'), qr/^fence: hook http.*(refused|connect)/i, 'one that is away');

# --- preflight ---
sub fence_check { return $green->safe_psql('postgres', q{SELECT status, value, fix FROM bcmig_preflight('s') WHERE check_name = 'fence'}) }
is(fence_check(), 'ok|hook|', 'a hook');
option('{"fence_hook": null}');
like(fence_check(), qr/^warn\|hook\|SELECT bcmig_alter_environment/, 'none');
option('{"fence_by": null}');
is(fence_check(), '', 'nothing was asked for');
option('{"fence_by": "call"}');
is(fence_check(), 'ok|can be called|', 'functions that may be called');
$blue->safe_psql('postgres', 'ALTER FUNCTION bcmig_blue.lift_fence(text[], interval) RENAME TO gone');
like(fence_check(), qr/^warn\|missing\|\\i postgres_switch.sql/, 'that are not there');
$blue->safe_psql('postgres', 'ALTER FUNCTION bcmig_blue.gone(text[], interval) RENAME TO lift_fence');

# --- not while green is written to ---
$green->safe_psql('postgres', 'UPDATE bcmig.traffic SET green_percent = 100');
is(sqlstate($green, q{SELECT bcmig.try_blue_fence('s', 'unfence')}), 'BM030', 'at 100 % nobody tries it');
like(try_fence('read'), qr/^read: now open/, 'or only to read');
$green->safe_psql('postgres', 'UPDATE bcmig.traffic SET green_percent = 0');
is(sqlstate($green, q{SELECT bcmig.try_blue_fence('s', 'up')}), 'BM003', 'an unknown action');

# --- blue away ---
$blue->stop;
like(try_fence('fence'), qr/^fence: 08\d{3}: /, 'blue is away');
$blue->start;
like(try_fence('fence'), qr/^fence: now fenced/, 'and back');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.audit_log WHERE event = 'blue fence wanted'}), $green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.audit_log WHERE event = 'blue fence wanted' AND detail IN ('call', 'confirm', 'hook')}), 'what was asked for is in the audit log');

done_testing();
