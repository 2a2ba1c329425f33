# The journal: every outside write on green makes an entry, bcmig's own make
# none, all tables of a sync are armed or none is, and it can be read while
# others write.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green('green', "datestyle = 'German'");

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

sub state_of_error
{
	my ($sql) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\n\\set ON_ERROR_STOP 1\n$sql");
	return $err =~ /ERROR:  (\w{5}):.*?(?:HINT:|\z)/s ? $1 : $rc == 0 ? '' : "rc $rc: $err";
}

# the entries since the last call, a line each
my $seen = 0;
sub entries
{
	my $lines = on_green(qq{SELECT concat_ws(' ', operation, coalesce(old_key::text, '-'), coalesce(new_key::text, '-')) FROM bcmig.journal WHERE journal_id > $seen ORDER BY journal_id});
	$seen = on_green('SELECT coalesce(max(journal_id), 0) FROM bcmig.journal');
	return $lines;
}

on_blue(q{
	CREATE TABLE a (code varchar(20), day timestamp, zone timestamptz, amount numeric(38,20), note text, raw bytea, f float8, "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (code, day, zone));
	INSERT INTO a SELECT 'K' || i, '1753-01-01', '2020-06-01 12:00+00', i, 'v' || i, '\x00ff', 0.1, 0 FROM generate_series(1, 20) i;
	CREATE TABLE p (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO p SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;
	CREATE TABLE heap (id int, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE wide (id int PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE late (id int PRIMARY KEY, "timestamp" bigint NOT NULL DEFAULT 0);});
track($blue, $_) foreach qw(a p wide late);
connect_blue($green, $blue, 's');
on_green(q{
	CREATE TABLE p (dropped int, v text, id int PRIMARY KEY, bc_rowversion bigint, more text DEFAULT 'x') PARTITION BY RANGE (id);
	ALTER TABLE p DROP dropped;
	CREATE TABLE p1 (id int NOT NULL, more text DEFAULT 'x', bc_rowversion bigint, v text);
	ALTER TABLE p ATTACH PARTITION p1 FOR VALUES FROM (0) TO (50);
	CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (50) TO (1000);
	CREATE TABLE wide (id int PRIMARY KEY, v bigint, bc_rowversion bigint);
	SELECT bcmig_add_table('s', 'a');
	SELECT bcmig_add_table('s', 'p', 'p');});
start_sync($green, 's');
wait_sync($green, 's');

# --- as a whole, or not at all ---
sub triggers { return on_green(q{SELECT count(*) FROM pg_trigger WHERE tgname = 'bcmig_journal'}) }
on_green(q{SELECT bcmig_add_table('s', 'heap')});
is(state_of_error(q{SELECT bcmig.arm_journal('s')}), 'BM023', 'a table without a key cannot be journaled');
is(triggers(), '0', 'and then none is');
on_green(q{SELECT bcmig_remove_table('s', 'heap'); SELECT bcmig_add_table('s', 'wide', 'wide')});
is(state_of_error(q{SELECT bcmig.arm_journal('s')}), 'BM023', 'nor one whose column holds more than blue can');
my ($rc, $out, $err) = $green->psql('postgres', q{SELECT bcmig.arm_journal('s')});
like($err, qr/column v of public.wide has no inverse.*bigint.*HINT:  ALTER TABLE public.wide ALTER COLUMN v TYPE integer;/s, 'it is named, with what to do');
is(triggers() . on_green(q{SELECT count(*) FROM bcmig.traffic WHERE journal_armed}), '00', 'and none is');
on_green(q{SELECT bcmig_map_column('s', 'p', 'v', '{"builtin": "upper"}')});
($rc, $out, $err) = $green->psql('postgres', q{SELECT bcmig_remove_table('s', 'wide'); SELECT bcmig.arm_journal('s')});
like($err, qr/column v of public.p has no inverse.*HINT:  SELECT bcmig_unmap_column\('s', 'public.p', 'v'\);/s, 'nor one whose transform loses something');
on_green(q{SELECT bcmig_unmap_column('s', 'p', 'v')});
wait_sync($green, 's');
on_green(q{CREATE ROLE stranger; GRANT USAGE ON SCHEMA bcmig TO stranger; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bcmig TO stranger});
is(state_of_error(q{SET ROLE stranger; SELECT bcmig.arm_journal('s')}), '42501', 'not by a stranger');
wait_sync($green, 's');
on_green(q{BEGIN; SELECT bcmig.arm_journal('s'); SELECT bcmig.lift_fence('s'); COMMIT});
is(triggers(), '4', 'armed: two tables, two partitions');

# --- every operation, key and image exact, whatever the session has set ---
my $odd = q{SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kolkata'; SET bytea_output = 'escape'; SET extra_float_digits = -10; };
on_green($odd . q{INSERT INTO a (code, day, zone, amount, note, raw, f) VALUES ('neu', '2020-12-31 23:59:59.997', '2020-06-01 12:00+00', 1.5, E'it''s "x"\n', '\x00', 0.1)});
is(entries(), 'insert - ["neu", "2020-12-31 23:59:59.997", "2020-06-01 12:00:00+00"]', 'INSERT');
is(on_green(q{SELECT new_image::text FROM bcmig.journal ORDER BY journal_id DESC LIMIT 1}),
	'{"f": "0.1", "day": "2020-12-31 23:59:59.997", "raw": "\\\\x00", "code": "neu", "note": "it\'s \"x\"\n", "zone": "2020-06-01 12:00:00+00", "amount": "1.50000000000000000000"}',
	'its image');
is(on_green(q{SELECT count(*) FROM bcmig.journal WHERE old_image IS NULL AND base_version IS NULL AND actor = session_user AND settled_at IS NULL AND xid < pg_snapshot_xmin(pg_current_snapshot())}), '1', 'and the rest of it');
on_green($odd . q{UPDATE a SET amount = 7 WHERE code = 'K1'});
is(entries(), 'update ["K1", "1753-01-01 00:00:00", "2020-06-01 12:00:00+00"] ["K1", "1753-01-01 00:00:00", "2020-06-01 12:00:00+00"]', 'UPDATE');
is(on_green(q{SELECT old_image->>'amount' || ' ' || (new_image->>'amount') || ' ' || (base_version = (SELECT bc_rowversion FROM a WHERE code = 'K1')) FROM bcmig.journal ORDER BY journal_id DESC LIMIT 1}),
	'1.00000000000000000000 7.00000000000000000000 true', 'both images, and the version it was based on');
on_green(q{UPDATE p SET id = 700 WHERE id = 7});
is(entries(), qq{delete ["7"] -\ninsert - ["700"]}, 'a key changed across partitions');
on_green(q{UPDATE p1 SET id = 0 WHERE id = 8; DELETE FROM p WHERE id = 60});
is(entries(), qq{update ["8"] ["0"]\ndelete ["60"] -}, 'a key changed, in a partition; DELETE');
is(on_green(q{SELECT old_image::text || new_image FROM bcmig.journal WHERE operation = 'update' ORDER BY journal_id DESC LIMIT 1}), '{"v": "v8", "id": "8"}{"v": "v8", "id": "0"}', 'columns by name, and only those of blue');
$green->psql('postgres', qq{COPY p (id, v) FROM STDIN;\n801\tx\n802\tx\n\\.\n});
is(entries(), qq{insert - ["801"]\ninsert - ["802"]}, 'COPY');
on_green(q{MERGE INTO p USING (VALUES (801), (900)) x(id) ON x.id = p.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT (id) VALUES (x.id)});
is(join(',', sort split /\n/, entries()), 'delete ["801"] -,insert - ["900"]', 'MERGE');
on_green(q{SET session_replication_role = replica; INSERT INTO p (id) VALUES (901)});
is(entries(), 'insert - ["901"]', 'replica mode is no way past it');
on_green(q{BEGIN; DELETE FROM p WHERE id = 1; SAVEPOINT x; DELETE FROM p WHERE id = 2; ROLLBACK TO x; COMMIT; BEGIN; DELETE FROM p; ROLLBACK});
is(entries(), 'delete ["1"] -', 'what is rolled back leaves nothing');
is(state_of_error(q{INSERT INTO p (id) VALUES (5000000)}), '23514', 'a refused row');
is(entries(), '', 'makes no entry');
on_green(q{GRANT ALL ON p TO stranger; SET ROLE stranger; DELETE FROM public.p WHERE id = 2});
is(entries(), 'delete ["2"] -', 'a role without rights on the journal writes it all the same');

# --- what no entry would tell of ---
is(state_of_error($_), 'BM023', $_) foreach 'TRUNCATE a', 'TRUNCATE p1', 'ALTER TABLE a DISABLE TRIGGER ALL', 'DROP TRIGGER bcmig_journal ON a', 'ALTER TABLE p DETACH PARTITION p1',
	'DROP TABLE a', 'ALTER TABLE a DROP COLUMN note';
is(state_of_error($_), 'BM009', $_) foreach q{SELECT bcmig_remove_table('s', 'a')}, q{SELECT bcmig_add_table('s', 'late')};

# --- bcmig's own rows make none; those of a function inside do ---
on_blue(q{UPDATE a SET note = 'from blue' WHERE code = 'K5'; INSERT INTO p VALUES (90000 / 100, 'n', 0), (30, 'new', 0) ON CONFLICT DO NOTHING; DELETE FROM p WHERE id = 40});
ok($green->poll_query_until('postgres', q{SELECT (SELECT note = 'from blue' FROM a WHERE code = 'K5') AND NOT EXISTS (SELECT FROM p WHERE id = 40)}), 'windows go on');
is(entries(), '', 'they make no entry');
green_behind($green, q{
	CREATE FUNCTION inside() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO public.p (id, v) VALUES (500, 'by a trigger') ON CONFLICT DO NOTHING;
		RETURN NULL; END $$;
	CREATE TRIGGER aaa AFTER UPDATE ON a FOR EACH ROW EXECUTE FUNCTION inside();
	ALTER TABLE a ENABLE ALWAYS TRIGGER aaa});
on_blue(q{UPDATE a SET note = 'again' WHERE code IN ('K5', 'K6')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 2 FROM a WHERE note = 'again'}), 'a window with a trigger of a user');
is(entries(), 'insert - ["500"]', 'what the trigger wrote makes an entry, once');
green_behind($green, q{DROP TRIGGER aaa ON a});

# --- reading: nothing comes in before what has been read ---
on_green(q{UPDATE bcmig.journal SET settled_at = now(), settled_as = 'test'});
my $early = $green->background_psql('postgres', on_error_die => 1);
$early->query_safe(q{BEGIN; INSERT INTO p (id) VALUES (601);});
on_green(q{INSERT INTO p (id) VALUES (602); UPDATE p SET v = 'x' WHERE id = 602});
sub pending { return on_green(q{SELECT string_agg(target || key || entries, ' ') FROM bcmig.journal_pending}) }
is(pending(), '', 'an older transaction is still running: nothing is read');
$early->query_safe(q{UPDATE p SET id = 603 WHERE id = 602; COMMIT});
$early->quit;
$green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM bcmig.journal_pending});
is(pending(), 'public.p["601"]1 public.p["602"]3 public.p["603"]1', 'then all of it, a line a key, in order; a renamed row is two keys');
is(on_green(q{SELECT count(*) FROM bcmig.journal_pending('s') WHERE cardinality(journal_ids) = entries AND last_id >= first_id}), '3', 'the function has the entries of each');
is(state_of_error(q{SET ROLE stranger; SELECT * FROM bcmig.journal_pending('s')}), '42501', 'not for strangers');

# --- restart, disarm ---
entries();
$green->stop('immediate');
$green->start;
on_green(q{DELETE FROM p WHERE id = 601});
is(entries(), 'delete ["601"] -', 'armed after a crash');
on_green(q{SELECT bcmig.disarm_journal('s')});
is(triggers(), '0', 'disarmed as a whole');
on_green(q{DELETE FROM p WHERE id = 603; TRUNCATE p2});
is(entries(), '', 'no more entries');
isnt(on_green('SELECT count(*) FROM bcmig.journal'), '0', 'those there were stay');
on_green(q{SELECT bcmig_remove_table('s', 'a')});
is(state_of_error(q{SELECT bcmig.disarm_journal('s')}), '', 'twice does no harm');

done_testing();
