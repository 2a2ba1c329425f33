# Tables and columns of blue change while the sync runs.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use TdsServer;
use Test::More;

my $server = new_sql_server();
my $blue = $server->{node};
my $green = new_green();
my $app = '437dbf0e-84ff-417a-965d-ed2bb9650972';

sub table
{
	my ($rel, $name, $company) = @_;
	$company //= 'C';
	return qq{CREATE TABLE $rel ("timestamp" bigint NOT NULL DEFAULT 0, "No_" varchar(20) PRIMARY KEY, "Name" varchar(20) NOT NULL DEFAULT '', "Old" int NOT NULL DEFAULT 0, "\$systemId" uuid NOT NULL DEFAULT gen_random_uuid());
		SELECT mssql.register('$rel', '$company\$$name\$$app'); INSERT INTO $rel ("No_", "Name", "Old") SELECT 'K' || i, 'n' || i, i FROM generate_series(1, 5) i;};
}
$blue->safe_psql('postgres', qq{CREATE TABLE company ("timestamp" bigint NOT NULL DEFAULT 0, "Name" varchar(30) PRIMARY KEY); SELECT mssql.register('company', 'Company'); INSERT INTO company ("Name") VALUES ('C');} .
	table('stops', 'Stops') . table('follows', 'Follows') . table('ignores', 'Ignores') . table('gone', 'Gone'));
connect_sql_server($green, $server, 's');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig_add_company('s', 'C')}), '4', 'added');
$green->safe_psql('postgres', q{SELECT bcmig_alter_table('s', 'c.follows', '{"on_schema_change": "follow"}'), bcmig_alter_table('s', 'c.ignores', '{"on_schema_change": "ignore"}')});
start_sync($green, 's');
wait_sync($green, 's');
ok($green->poll_query_until('postgres', q{SELECT schema_mark IS NOT NULL FROM bcmig.sync_state}), 'looked at once');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.schema_change}), '0', 'nothing has changed');

# a column is added to each, one is widened, one dropped
$blue->safe_psql('postgres', join(';', map { qq{ALTER TABLE $_ ADD COLUMN "New Field" varchar(30) NOT NULL DEFAULT 'filled'} } qw(stops follows ignores)) .
	qq{; ALTER TABLE follows ALTER COLUMN "Name" TYPE varchar(50); ALTER TABLE follows DROP COLUMN "Old"; UPDATE follows SET "Name" = repeat('x', 50), "New Field" = 'changed' WHERE "No_" = 'K2'; UPDATE ignores SET "Name" = 'goes on' WHERE "No_" = 'K1'});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 5 FROM bcmig.schema_change}), 'changes are noticed');
is($green->safe_psql('postgres', q{SELECT target_table, kind, object, before, after, action, settled_at IS NOT NULL FROM bcmig.schema_change JOIN bcmig.sync_table USING (table_id) ORDER BY 1, 2}), join("\n",
	'follows|column added|New Field||nvarchar(30)|followed|t', 'follows|column altered|Name|nvarchar(20)|nvarchar(50)|followed|t', 'follows|column dropped|Old|int||followed|t',
	'ignores|column added|New Field||nvarchar(30)|ignored|t', 'stops|column added|New Field||nvarchar(30)|stopped|f'), 'what changed, and what was done');
is($green->safe_psql('postgres', q{SELECT state, reason FROM bcmig.table_status WHERE target = 'c.stops'}),
	qq{suspended|Blue has a new column "New Field" (nvarchar(30)) in "C\$Stops\$$app".}, 'the default is to stop');
ok($green->poll_query_until('postgres', q{SELECT state = 'streaming' FROM bcmig.table_status WHERE target = 'c.follows'}), 'follow goes on');
is($green->safe_psql('postgres', q{SELECT no, length(name), new_field, old IS NULL FROM c.follows WHERE no IN ('K1', 'K2') ORDER BY 1}), "K1|2|filled|f\nK2|50|changed|f", 'new columns of old rows are filled, nothing is dropped on green');
$blue->safe_psql('postgres', q{INSERT INTO follows ("No_", "New Field") VALUES ('K6', 'six')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 1 FROM c.follows WHERE no = 'K6' AND new_field = 'six' AND old = 0}), 'and new rows come');
ok($green->poll_query_until('postgres', q{SELECT name = 'goes on' FROM c.ignores WHERE no = 'K1'}), 'ignore goes on without the column');

# what the log says to run
my $fix = $green->safe_psql('postgres', q{SELECT fix FROM bcmig.schema_change WHERE action = 'stopped'});
$green->safe_psql('postgres', $fix);
ok($green->poll_query_until('postgres', q{SELECT count(new_field) = 5 FROM (SELECT (to_jsonb(s) ->> 'new_field') AS new_field FROM c.stops s) x}), 'the fix follows');
is($green->safe_psql('postgres', q{SELECT count(*) FROM bcmig.schema_change WHERE settled_at IS NULL}), '0', 'and nothing waits any more');

# narrower: cannot be followed
$blue->safe_psql('postgres', q{ALTER TABLE follows ALTER COLUMN "New Field" DROP DEFAULT, ALTER COLUMN "New Field" TYPE int USING 0});
ok($green->poll_query_until('postgres', q{SELECT state = 'suspended' AND reason ~ 'is int on blue now, it was nvarchar' FROM bcmig.table_status WHERE target = 'c.follows'}), 'what cannot be followed stops');

# a table goes, one comes, a company comes
$blue->safe_psql('postgres', q{DROP TABLE gone; INSERT INTO company ("Name") VALUES ('D');} . table('comes', 'Comes') . table('d_table', 'Stops', 'D'));
ok($green->poll_query_until('postgres', q{SELECT state = 'suspended' FROM bcmig.table_status WHERE target = 'c.gone'}), 'a table that vanished is suspended');
is($green->safe_psql('postgres', q{SELECT count(*) FROM c.gone}), '5', 'and nothing is deleted');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 2 FROM bcmig.schema_change WHERE action = 'noticed'}), 'news are noticed');
is($green->safe_psql('postgres', q{SELECT kind, object, fix FROM bcmig.schema_change WHERE action = 'noticed' ORDER BY 1}), join("\n",
	q{company added|D|SELECT * FROM bcmig_add_company('s', 'D');}, qq{table added|C\$Comes\$$app|SELECT bcmig_add_table('s', 'C\$Comes\$$app');}), 'with the statement that takes them');

# an upgrade of Business Central: blue is left alone
$green->safe_psql('postgres', q{SELECT bcmig_alter_sync('s', '{"maintenance": true}')});
ok($green->poll_query_until('postgres', q{SELECT (SELECT state FROM bcmig.sync_status) = 'held' AND NOT EXISTS (SELECT FROM bcmig.worker_status WHERE role = 'poller')}), 'maintenance leaves blue alone');
$blue->safe_psql('postgres', q{TRUNCATE ignores; INSERT INTO ignores ("No_", "Name") VALUES ('U', 'upgraded')});
$green->safe_psql('postgres', q{SELECT bcmig_alter_table('s', 'c.ignores', '{"max_delete_percent": 100}'), bcmig_alter_sync('s', '{"maintenance": false}')});
ok($green->poll_query_until('postgres', q{SELECT string_agg(no || name, ',') = 'Uupgraded' FROM c.ignores}), 'and is read again afterwards');

TdsServer::stop_server($server);
done_testing();
