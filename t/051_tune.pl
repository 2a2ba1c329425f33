# What the figures of a sync say about its options.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', 'autovacuum = off', "default_toast_compression = 'pglz'");

$blue->safe_psql('postgres', q{
	CREATE TABLE bulk (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO bulk SELECT i, 'start', 0 FROM generate_series(1, 2000) i;
	CREATE TABLE calm (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE media (id int PRIMARY KEY, v text, b bytea, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO media SELECT i, (SELECT string_agg(md5((i * 1000 + k)::text), '') FROM generate_series(1, 500) k), NULL, 0 FROM generate_series(1, 100) i;
	CREATE TABLE whole (id int PRIMARY KEY, v text);
	INSERT INTO whole SELECT i, 'row' FROM generate_series(1, 12000) i;
	});
track($blue, $_) foreach qw(bulk calm media);
connect_blue($green, $blue, 's', '{"batch_rows": 50, "poll_interval": "300ms"}');
$green->safe_psql('postgres', "SELECT bcmig_add_table('s', '$_')") foreach qw(bulk calm media);
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'whole', options => '{"capture": "snapshot"}')});

sub advice
{
	my ($apply) = @_;
	return $green->safe_psql('postgres',
		"SELECT coalesce(target, '-'), coalesce(setting, '-'), \"current\", recommended, applied FROM bcmig_optimize_sync('s', $apply) ORDER BY 1, 2");
}

# --- nothing measured yet ---
like($green->safe_psql('postgres', q{SELECT evidence FROM bcmig_optimize_sync('s', true) WHERE setting IS NULL}),
	qr/no window of the 4 tables .* is on record/, 'without figures it says so');

# --- a sync that has worked ---
start_sync($green, 's');
wait_sync($green, 's');
$blue->safe_psql('postgres', q{UPDATE bulk SET v = 'changed'});
$blue->safe_psql('postgres', q{INSERT INTO calm VALUES (1, 'one')});
wait_sync($green, 's');
$green->safe_psql('postgres', 'ANALYZE');
my $found = q{-|poll_interval|300ms|auto|f
public.bulk|batch_rows|50|1000|f
public.bulk|priority|5|8|f
public.media|compression|pglz|lz4|f
public.whole|capture|snapshot|change_tracking|f};
# the first call has set poll_interval already
$found =~ s/^-.*\n//;
is(advice('false'), $found, 'recommendations');
like($green->safe_psql('postgres', q{SELECT evidence FROM bcmig_optimize_sync('s') WHERE setting = 'batch_rows'}),
	qr/^2000 of 2000 rows came in 1 windows of more than 10 batches, at most 2000 rows in one; a row takes \d+ bytes$/, 'with their numbers');
is(advice('false'), $found, 'looking changes nothing');

$green->safe_psql('postgres', q{BEGIN; SELECT count(*) FROM bcmig_optimize_sync('s', true); ROLLBACK});
is(advice('false'), $found, 'neither does a call that is rolled back');

# --- applied ---
(my $applied = $found) =~ s/f$/t/mg;
$applied =~ s/(change_tracking)\|t/$1|f/;
is(advice('true'), $applied, 'applied, but for what concerns blue');
is($green->safe_psql('postgres', q{SELECT string_agg(target_table || ' ' || options::text, '; ' ORDER BY target_table) FROM bcmig.sync_table WHERE target_table IN ('bulk', 'media')}),
	'bulk {"priority": 8, "batch_rows": 1000}; media {"compression": "lz4"}', 'options are set');
is($green->safe_psql('postgres', q{SELECT string_agg(attname || attcompression::text, ' ' ORDER BY attname) FROM pg_attribute WHERE attrelid = 'media'::regclass AND attstorage IN ('x', 'm') AND attnum > 0}),
	'bl vl', 'and long values will be compressed');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.audit_log WHERE event = 'bcmig_alter_table' AND target IN ('public.bulk', 'public.media')}), '3', 'each is in the audit log');
is($green->safe_psql('postgres', q{SELECT options ->> 'poll_interval' FROM bcmig.sync}), 'auto', 'the sync polls as it sees fit');
is(advice('false'), 'public.whole|capture|snapshot|change_tracking|f', 'nothing more is recommended');
$blue->safe_psql('postgres', q{UPDATE bulk SET v = 'again'; UPDATE media SET v = v || 'x'});
wait_sync($green, 's');
all_equal($blue, $green, 'with the new options', qw(bulk calm media));

# --- blue's version column without an index ---
$green->safe_psql('postgres', q{
	UPDATE bcmig.sync_table SET capture = 'rowversion' WHERE target_table = 'calm';
	UPDATE pg_class SET reltuples = 200000 WHERE oid = 'calm'::regclass;
	UPDATE bcmig.sync_batch SET finished_at = started_at + interval '2 s' WHERE table_id = (SELECT table_id FROM bcmig.sync_table WHERE target_table = 'calm')});
is($green->safe_psql('postgres', q{SELECT recommended, applied FROM bcmig_optimize_sync('s', true) WHERE setting = 'index on blue'}),
	'CREATE INDEX CONCURRENTLY ON "public"."calm" ("timestamp");|f', 'a statement for blue');

# --- bad input ---
my ($rc, $out, $err) = $green->psql('postgres', q{SELECT * FROM bcmig_optimize_sync('none')});
like($err, qr/sync "none" does not exist/, 'unknown sync');
($rc, $out, $err) = $green->psql('postgres', q{SELECT * FROM bcmig_optimize_sync(NULL)});
isnt($rc, 0, 'no sync');
$green->safe_psql('postgres', 'CREATE ROLE other LOGIN; GRANT EXECUTE ON FUNCTION bcmig_optimize_sync(text, boolean), bcmig_alter_table(text, text, jsonb) TO other');
($rc, $out, $err) = $green->psql('postgres', q{SET ROLE other; SELECT * FROM bcmig_optimize_sync('s', true)});
like($err, qr/must be|not a member|permission denied/, 'the sync of another role');
($rc, $out, $err) = $green->psql('postgres', q{SELECT bcmig_alter_table('s', 'public.media', '{"compression": "zip"}')});
like($err, qr/compression/, 'another compression');
$green->safe_psql('postgres', q{SELECT bcmig_alter_table('s', 'public.media', '{"compression": null}')});
is($green->safe_psql('postgres', q{SELECT count(*) FROM pg_attribute WHERE attrelid = 'media'::regclass AND attcompression <> ''}), '0', 'as it was');

done_testing();
