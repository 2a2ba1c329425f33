# The fence of blue: who writes there after the last step of a switch is refused,
# whoever it is and by whatever way; whether it is so is read from blue.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use IPC::Run;
use Test::More;

my $blue = new_blue('blue', 'wal_level = logical');
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE "Odd ""Name" (id int PRIMARY KEY, v text);
	CREATE TABLE part (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
	CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM (0) TO (100);
	CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM (100) TO (200);
	CREATE TABLE child (id int PRIMARY KEY, item int REFERENCES item ON DELETE CASCADE);
	CREATE TABLE other_company (id int PRIMARY KEY, v text);
	CREATE VIEW item_view AS SELECT id, v FROM item;
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i; INSERT INTO "Odd ""Name" VALUES (1, 'x');
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

# Fence, unfence or read, as the engine does; what came of it.
sub try_fence
{
	my ($action) = @_;
	my $before = $green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.audit_log WHERE event = 'blue fence tried'});
	$green->safe_psql('postgres', "SELECT bcmig.try_blue_fence('s', '$action')");
	$green->poll_query_until('postgres', "SELECT count(*) > $before FROM bcmig.audit_log WHERE event = 'blue fence tried'") or die 'nothing tried';
	return $green->safe_psql('postgres', q{SELECT detail FROM bcmig.audit_log WHERE event = 'blue fence tried' ORDER BY audit_id DESC LIMIT 1});
}

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
	q{INSERT INTO "Odd ""Name" VALUES (2, 'x')}, q{INSERT INTO part VALUES (1, 'x')}, q{UPDATE part SET id = 199 WHERE id = 50}, q{DELETE FROM part_2},
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

# --- down ---
like(try_fence('unfence'), qr/^unfence: now open: 3 of 3/, 'lifted');
is(sqlstate($blue, q{UPDATE item SET v = 'x' WHERE id = 1; INSERT INTO part VALUES (1, 'x'); DELETE FROM "Odd ""Name"}), '', 'blue takes writes');
is($blue->safe_psql('postgres', q{SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'bcmig_fence%'}), '0', 'no trigger is left');

done_testing();
