# Copy and stream: keys of several kinds, a heap, the first changes.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE plain (id int PRIMARY KEY, t text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO plain SELECT i, CASE i % 3 WHEN 0 THEN NULL WHEN 1 THEN '' ELSE 'x' || i END, 0 FROM generate_series(1, 5000) i;
	CREATE TABLE composite (k1 varchar(20), k2 int, v numeric(38,20), "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (k1, k2));
	INSERT INTO composite SELECT 'K' || i % 7, i, i / 7.0, 0 FROM generate_series(1, 3000) i;
	CREATE TABLE byuuid (id uuid PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO byuuid SELECT gen_random_uuid(), i, 0 FROM generate_series(1, 2000) i;
	CREATE TABLE nothing (id int PRIMARY KEY, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE onerow (id int PRIMARY KEY, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO onerow VALUES (1, 0);
	CREATE TABLE heap (a int, b text);
	INSERT INTO heap SELECT i % 5, NULLIF('b' || i % 3, 'b2') FROM generate_series(1, 100) i;
	});
my @tables = qw(plain composite byuuid nothing onerow heap);
track($blue, $_) foreach grep { $_ ne 'heap' && $_ ne 'byuuid' } @tables;
track($blue, 'byuuid', 'rowversion');

connect_blue($green, $blue, 's');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_', NULL, '{\"chunk_rows\": 700}')") foreach @tables;
start_sync($green, 's');
wait_sync($green, 's');
all_equal($blue, $green, 'after the copy', @tables);
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.copy_chunk c JOIN bcmig.sync_table USING (table_id) WHERE source_table = 'plain' AND done}),
	'8', 'the copy went by chunks');

$blue->safe_psql('postgres', q{
	UPDATE plain SET t = NULL WHERE id % 10 = 1; UPDATE plain SET t = '' WHERE id % 10 = 3;
	DELETE FROM plain WHERE id BETWEEN 100 AND 150; INSERT INTO plain VALUES (10000, 'new', 0);
	UPDATE composite SET k1 = 'moved' WHERE k2 % 100 = 0;
	DELETE FROM byuuid WHERE v < 10; UPDATE byuuid SET v = -v WHERE v % 2 = 0;
	INSERT INTO nothing VALUES (1, 0); DELETE FROM onerow;
	DELETE FROM heap WHERE ctid IN (SELECT ctid FROM heap WHERE a = 1 LIMIT 3); INSERT INTO heap VALUES (1, NULL), (1, NULL);
	});
wait_sync($green, 's');
all_equal($blue, $green, 'after changes', @tables);
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.quarantine}), '0', 'nothing in quarantine');

done_testing();
