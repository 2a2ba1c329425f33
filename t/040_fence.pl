# The fence: every kind of outside write to a green table is refused, whoever
# comes, and bcmig's own are not.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use PostgreSQL::Test::Cluster;
use Test::More;

my $blue = new_blue('blue', 'wal_level = logical', 'max_wal_senders = 5', 'max_replication_slots = 5');
my $green = new_green();

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

# the SQLSTATE of a statement's error, '' when there is none
sub state_of_error
{
	my ($sql, $role) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\n\\set ON_ERROR_STOP 1\n" . ($role ? "SET ROLE $role;\n" : '') . $sql);
	return $err =~ /ERROR:  (\w{5}):/ ? $1 : $rc == 0 ? '' : "rc $rc: $err";
}

sub refused { my ($sql, $what, $role) = @_; is(state_of_error($sql, $role), 'BM021', $what) }
sub passes { my ($sql, $what, $role) = @_; is(state_of_error($sql, $role), '', $what) }

on_blue(q{
	CREATE TABLE t (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO t SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;
	CREATE TABLE p (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO p SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;
	CREATE TABLE c (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE leaf (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE TABLE src (id int PRIMARY KEY, v text, bc_rowversion bigint);
	INSERT INTO src VALUES (1, 'published', 0);
	CREATE PUBLICATION pub FOR TABLE src;
	CREATE TABLE sub2 (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	CREATE PUBLICATION pub2 FOR TABLE sub2;});
track($blue, $_) foreach qw(t p c leaf);
connect_blue($green, $blue, 's');
on_green(q{
	CREATE TABLE p (id int PRIMARY KEY, v text, bc_rowversion bigint) PARTITION BY RANGE (id);
	CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (50);
	CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (50) TO (1000) PARTITION BY RANGE (id);
	CREATE TABLE p21 PARTITION OF p2 FOR VALUES FROM (50) TO (1000);
	CREATE TABLE above (id int PRIMARY KEY, v text, bc_rowversion bigint) PARTITION BY RANGE (id);
	CREATE TABLE leaf PARTITION OF above FOR VALUES FROM (0) TO (1000);
	CREATE TABLE beside PARTITION OF above FOR VALUES FROM (1000) TO (2000);
	CREATE TABLE outside (id int PRIMARY KEY, v text);
	INSERT INTO outside SELECT i, 'o' FROM generate_series(1, 10) i;
	CREATE TABLE c (id int PRIMARY KEY REFERENCES outside ON DELETE CASCADE, v text, bc_rowversion bigint);
	CREATE TABLE free (id int PRIMARY KEY, v text);
	SELECT bcmig_add_table('s', 't');
	SELECT bcmig_add_table('s', 'p', 'p');
	SELECT bcmig_add_table('s', 'c', 'c');
	SELECT bcmig_add_table('s', 'leaf', 'leaf');
	CREATE ROLE writer LOGIN;
	GRANT ALL ON ALL TABLES IN SCHEMA public TO writer;
	CREATE VIEW simple_view AS SELECT id, v FROM t;
	CREATE VIEW ruled_view AS SELECT 1 AS id;
	CREATE RULE r AS ON INSERT TO ruled_view DO INSTEAD INSERT INTO t (id, v) VALUES (new.id, 'by a rule');
	CREATE FUNCTION definer() RETURNS void LANGUAGE sql SECURITY DEFINER BEGIN ATOMIC UPDATE t SET v = 'definer'; END;
	GRANT ALL ON ALL TABLES IN SCHEMA public TO writer;});

# --- not fenced while it is only configured ---
passes(q{UPDATE c SET v = v; INSERT INTO p (id, v) VALUES (999, 'x'); DELETE FROM p WHERE id = 999; TRUNCATE p}, 'a sync that has not been started fences nothing');

# a session that has looked before the fence was there, in a snapshot of before
my $old = $green->background_psql('postgres', on_error_stop => 0);
$old->query_safe(q{INSERT INTO p (id, v) VALUES (999, 'x'); DELETE FROM p WHERE id = 999});
$old->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ});
$old->query_safe(q{SELECT count(*) FROM free});

# and one that has written, and has not ended
my $before = $green->background_psql('postgres', on_error_die => 1);
$before->query_safe(q{BEGIN; INSERT INTO p (id, v) VALUES (998, 'from before the start')});

start_sync($green, 's');
ok($green->poll_query_until('postgres', q{SELECT state = 'streaming' FROM bcmig.table_status WHERE target = 'public.t'}), 'other tables are copied meanwhile');
is(on_green(q{SELECT count(*) FROM p}), '0', 'no copy begins beside a writer of before');
$before->query_safe(q{COMMIT});
$before->quit;
wait_sync($green, 's');
is(on_green(q{SELECT count(*) FROM p WHERE id = 998}), '0', 'what he left is not taken for a row of blue');
green_behind($green, q{CREATE ROLE holder; ALTER TABLE leaf OWNER TO holder});
all_equal($blue, $green, 'copied behind the fence', qw(t p c));

$old->query(q{INSERT INTO p (id, v) VALUES (999, 'x')});
like($old->{stderr}, qr/is fenced by sync "s"/, 'a transaction whose snapshot is older than the fence sees it');
$old->quit;

# --- rows, by whoever ---
foreach my $role (undef, 'writer')
{
	my $who = $role // 'a superuser';
	refused(q{INSERT INTO t (id, v) VALUES (1000, 'x')}, "INSERT by $who", $role);
	refused(q{UPDATE t SET v = 'x' WHERE false}, "UPDATE by $who", $role);
	refused(q{DELETE FROM t}, "DELETE by $who", $role);
	refused(q{INSERT INTO t (id, v) VALUES (1, 'x') ON CONFLICT (id) DO UPDATE SET v = 'x'}, "upsert by $who", $role);
	refused(q{MERGE INTO t USING (VALUES (1)) x(id) ON x.id = t.id WHEN MATCHED THEN DELETE}, "MERGE by $who", $role);
	refused(qq{COPY t (id, v) FROM STDIN;\n1001\tx\n\\.\n}, "COPY by $who", $role);
	refused(q{TRUNCATE t}, "TRUNCATE by $who", $role);
	refused(q{WITH w AS (DELETE FROM t RETURNING id) SELECT count(*) FROM w}, "a CTE that deletes, by $who", $role);
	refused(q{PREPARE w AS UPDATE t SET v = 'x'; EXECUTE w}, "a prepared statement, by $who", $role);
}
refused(q{SET session_replication_role = replica; UPDATE t SET v = 'x'}, 'replica mode is no way through');
refused(q{DO $$ BEGIN UPDATE t SET v = 'x'; END $$}, 'nor a DO block');
refused(q{SELECT definer()}, 'nor a security definer function', 'writer');
refused(q{UPDATE simple_view SET v = 'x'}, 'nor a writable view');
refused(q{INSERT INTO ruled_view VALUES (1000)}, 'nor a rule');
refused(q{DELETE FROM outside}, 'nor a foreign key with ON DELETE CASCADE') if on_blue(q{INSERT INTO c VALUES (1, 'x', 0)}) eq '' && $green->poll_query_until('postgres', 'SELECT count(*) = 1 FROM c');
refused(q{TRUNCATE outside CASCADE}, 'nor TRUNCATE ... CASCADE');

# --- partitions and what they are part of ---
refused(q{INSERT INTO p (id) VALUES (500)}, 'the target that is partitioned');
refused(q{UPDATE p1 SET v = 'x'}, 'its partition');
refused(q{UPDATE p2 SET v = 'x'}, 'one that is partitioned again');
refused(qq{COPY p21 (id) FROM STDIN;\n600\n\\.\n}, 'and a leaf of that');
refused(q{TRUNCATE p21}, 'TRUNCATE of a leaf');
refused(q{INSERT INTO above (id) VALUES (1500)}, 'the parent of a target');
refused(q{TRUNCATE above}, 'TRUNCATE of the parent');
passes(q{INSERT INTO beside (id) VALUES (1500); DELETE FROM beside}, 'the sibling of a target is free');

# --- DDL ---
refused($_, $_) foreach (
	q{ALTER TABLE t ADD COLUMN x int}, q{ALTER TABLE t ALTER v TYPE varchar(1)}, q{ALTER TABLE t DISABLE TRIGGER ALL},
	q{ALTER TABLE t RENAME TO u}, q{ALTER TABLE t RENAME v TO w}, q{ALTER TABLE t SET SCHEMA bcmig}, q{ALTER TABLE t OWNER TO writer},
	q{ALTER TABLE t ADD CHECK (id > 0)}, q{ALTER TABLE t DROP CONSTRAINT t_pkey}, q{ALTER TABLE t SET UNLOGGED},
	q{DROP TABLE c}, q{DROP TABLE t CASCADE}, q{DROP TABLE above CASCADE}, q{DROP TABLE p21}, q{ALTER TABLE p DETACH PARTITION p1},
	q{CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (5000) TO (6000)}, q{CREATE TABLE kid () INHERITS (t)},
	q{CREATE TABLE whole (LIKE t) PARTITION BY RANGE (id); ALTER TABLE whole ATTACH PARTITION t DEFAULT},
	q{CREATE TABLE kid (LIKE t INCLUDING ALL); ALTER TABLE kid INHERIT t},
	q{CREATE UNIQUE INDEX ON t (v)}, q{CREATE RULE r AS ON INSERT TO t DO INSTEAD NOTHING}, q{CREATE POLICY p ON t},
	q{CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER f BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()},
	q{DROP SCHEMA public CASCADE}, q{ALTER SCHEMA public RENAME TO private}, q{REASSIGN OWNED BY holder TO writer}, q{DROP OWNED BY holder},
	q{DO $$ BEGIN EXECUTE 'TRUNCATE t'; END $$});
passes($_, $_) foreach (
	q{VACUUM t}, q{VACUUM FULL t}, q{ANALYZE t}, q{REINDEX TABLE t}, q{CLUSTER t USING t_pkey}, q{COMMENT ON TABLE t IS 'x'}, q{GRANT SELECT ON t TO writer},
	q{CREATE INDEX plain ON t (v); REINDEX INDEX CONCURRENTLY plain; DROP INDEX plain}, q{ALTER TABLE t SET (fillfactor = 90)}, q{CREATE STATISTICS st ON id, v FROM t; DROP STATISTICS st},
	q{BEGIN; LOCK TABLE t IN ROW EXCLUSIVE MODE; COMMIT}, q{SELECT * FROM t FOR UPDATE}, q{CREATE TEMP TABLE t2 AS SELECT * FROM t}, q{COPY t TO STDOUT},
	q{CREATE TABLE refers (id int REFERENCES t); DROP TABLE refers},
	q{INSERT INTO free VALUES (1, 'x'); TRUNCATE free; ALTER TABLE free ADD x int; DROP TABLE free});

is($green->safe_psql('postgres', "BEGIN ISOLATION LEVEL REPEATABLE READ; COMMIT; BEGIN; SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; SHOW transaction_isolation; COMMIT"), 'serializable',
	'a new session may still choose its isolation');

# --- beside the executor: prepared transactions, subscriptions ---
refused(q{BEGIN; LOCK TABLE t IN ROW EXCLUSIVE MODE; PREPARE TRANSACTION 'x'}, 'a transaction that could have written is not prepared');
passes(q{BEGIN; SELECT 1; PREPARE TRANSACTION 'x'; ROLLBACK PREPARED 'x'}, 'another one is');
my ($host, $port) = ($blue->host, $blue->port);
my $conn = "host=$host port=$port dbname=postgres user=" . (getpwuid($<))[0];
on_blue(q{CREATE TABLE other (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0)});
track($blue, 'other');
on_green(q{CREATE TABLE src (id int PRIMARY KEY, v text, bc_rowversion bigint); SELECT bcmig_add_table('s', 'other', 'src')});
refused(qq{CREATE SUBSCRIPTION sub CONNECTION '$conn' PUBLICATION pub}, 'a subscription that writes a fenced table');
on_blue(q{SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots});
on_green(qq{CREATE TABLE sub2 (id int PRIMARY KEY, v text, "timestamp" bigint); CREATE SUBSCRIPTION sub CONNECTION '$conn' PUBLICATION pub2});
on_blue(q{ALTER PUBLICATION pub2 ADD TABLE src});
refused(q{ALTER SUBSCRIPTION sub REFRESH PUBLICATION}, 'or is to write one from now on');
track($blue, 'sub2');
on_green(q{SELECT bcmig_create_sync('s2', 'blue'); SELECT bcmig_add_table('s2', 'sub2', 'sub2')});
is(state_of_error(q{SELECT bcmig_start_sync('s2', force => true)}), 'BM009', 'a sync whose table a subscription writes is not started');
on_green(q{SELECT * FROM bcmig_drop_sync('s2'); DROP SUBSCRIPTION sub});

# --- the maintenance role, and only as itself ---
refused(q{UPDATE t SET v = v}, 'a member of the maintenance role', 'writer') if on_green(q{GRANT bcmig_maintenance TO writer}) eq '';
is(green_behind($green, q{BEGIN; UPDATE t SET v = 'mended' WHERE id = 1 RETURNING v; ALTER TABLE t ADD y int; TRUNCATE p1; ROLLBACK}), 'mended', 'the maintenance role itself passes');
is(state_of_error(q{SELECT bcmig_alter_sync('s', '{"maintenance_role": "nobody"}')}), 'BM001', 'a role that does not exist');
is(state_of_error(q{SELECT bcmig_alter_sync('s', jsonb_build_object('maintenance_role', current_user))}), 'BM003', 'the owner cannot be it');
on_green(q{SELECT bcmig_alter_sync('s', '{"maintenance_role": null}')});
refused(q{UPDATE t SET v = v}, 'nobody passes without the option', 'bcmig_maintenance');
on_green(q{SELECT bcmig_alter_sync('s', '{"maintenance_role": "bcmig_maintenance"}')});

# --- bcmig's own writes go on, and lend nothing to what runs inside them ---
green_behind($green, q{
	CREATE TABLE marks (n int);
	CREATE FUNCTION sneak() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		BEGIN UPDATE public.p SET v = 'sneaked'; EXCEPTION WHEN OTHERS THEN INSERT INTO public.marks VALUES (1); END;
		BEGIN DELETE FROM public.t WHERE id = 50; EXCEPTION WHEN OTHERS THEN INSERT INTO public.marks VALUES (2); END;
		RETURN NEW; END $$;
	CREATE TRIGGER sneak BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION sneak();
	ALTER TABLE t ENABLE ALWAYS TRIGGER sneak});
on_blue(q{UPDATE t SET v = 'new' WHERE id = 2; INSERT INTO t VALUES (200, 'new', 0); DELETE FROM t WHERE id = 3});
wait_sync($green, 's');
all_equal($blue, $green, 'windows pass, a trigger function inside does not', qw(t p));
is(on_green(q{SELECT string_agg(DISTINCT n::text, ',' ORDER BY n::text) FROM marks}), '1,2', 'both of its writes were refused');
green_behind($green, q{DROP TRIGGER sneak ON t});
on_green(q{SELECT bcmig_resync_table('s', 't')});
wait_sync($green, 's');
all_equal($blue, $green, 'a resync passes', 't');

# --- restart: fenced before any process of bcmig has run ---
$green->append_conf('postgresql.conf', "max_worker_processes = 0");
$green->restart;
is(on_green(q{SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'bcmig%'}), '0', 'restarted, no process of bcmig runs');
refused(q{UPDATE t SET v = 'x'}, 'the first session finds the fence up');
refused(q{TRUNCATE p1}, 'for TRUNCATE as well');
$green->append_conf('postgresql.conf', "max_worker_processes = 24");
$green->stop('immediate');
$green->start;
refused(q{UPDATE t SET v = 'x'}, 'the same after a crash');

# --- lifted, raised, taken out ---
on_green(q{SELECT bcmig.lift_fence('s')});
passes(q{BEGIN; UPDATE t SET v = 'x'; ROLLBACK}, 'lifted: everybody writes');
is(state_of_error(q{BEGIN; CALL bcmig.raise_fence('s')}), '25001', 'raising commits, so not inside a transaction');
is(state_of_error(q{CALL bcmig.raise_fence('s')}, 'writer'), '42501', 'not by a stranger');
on_green(q{GRANT USAGE ON SCHEMA bcmig TO writer; GRANT EXECUTE ON ALL ROUTINES IN SCHEMA bcmig TO writer; REVOKE bcmig_maintenance FROM writer});
is(state_of_error(q{CALL bcmig.raise_fence('s')}, 'writer'), '42501', 'who has the right to call it needs the sync');
is(state_of_error(q{SELECT bcmig.lift_fence('s')}, 'writer'), '42501', 'and to lift it too');
is(state_of_error(q{CALL bcmig.raise_fence('nowhere')}), 'BM001', 'an unknown sync');

# a prepared transaction of before blocks, and is named
on_green(q{BEGIN; UPDATE p SET v = v WHERE id = 7; PREPARE TRANSACTION 'sleeper'});
my ($rc, $out, $err) = $green->psql('postgres', "\\set VERBOSITY verbose\nCALL bcmig.raise_fence('s', '100 ms')");
like($err, qr/BM022:.*prepared transaction 'sleeper' of .*fence is down again/s, 'a prepared transaction stands in the way and is named');
passes(q{BEGIN; UPDATE t SET v = 'x'; ROLLBACK}, 'the fence went down again');
($rc, $out, $err) = $green->psql('postgres', "CALL bcmig.raise_fence('s', '100 ms', keep => true)");
like($err, qr/sleeper.*The fence is up/s, 'or stays up');
refused(q{UPDATE t SET v = 'x'}, 'for everybody else');
on_green(q{ROLLBACK PREPARED 'sleeper'});
passes(q{CALL bcmig.raise_fence('s')}, 'raised');

# a session of before is ended where that is asked for
on_green(q{SELECT bcmig.lift_fence('s')});
my $writer = $green->background_psql('postgres', on_error_stop => 0);
$writer->query(q{BEGIN; UPDATE p SET v = v WHERE id = 7;});
my $pid = $writer->query(q{SELECT pg_backend_pid()});
($rc, $out, $err) = $green->psql('postgres', "CALL bcmig.raise_fence('s', '100 ms')");
like($err, qr/pid $pid \(user /, 'a session that stands in the way is named');
passes(q{CALL bcmig.raise_fence('s', '100 ms', terminate_blockers => true)}, 'terminate_blockers ends it');
is(on_green("SELECT count(*) FROM pg_stat_activity WHERE pid = $pid"), '0', 'it is gone');
eval { $writer->quit };

on_green(q{SELECT bcmig_remove_table('s', 'leaf')});
passes(q{INSERT INTO above (id) VALUES (1500), (5)}, 'a table that was taken out is free');
on_green(q{SELECT bcmig_stop_sync('s')});
refused(q{UPDATE t SET v = 'x'}, 'a stopped sync is fenced');
$green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_status});
my $session = $green->background_psql('postgres', on_error_stop => 0);
$session->query(q{UPDATE t SET v = v});
like($session->{stderr}, qr/fenced/, 'a session knows the fence');
$session->{stderr} = '';
on_green(q{DROP EXTENSION bcmig CASCADE});
$session->query(q{UPDATE t SET v = v});
unlike($session->{stderr}, qr/ERROR/, 'and that the extension is gone');
$session->quit;

done_testing();
