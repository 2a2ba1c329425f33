# A rehearsal says what would fail and how it is mended, does nothing outside of
# its transaction, and leaves nothing behind: no object, no row, no number.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 100) i;
	CREATE TABLE remote (id int);});
track($blue, 'item');
connect_blue($green, $blue, 's');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'item');
	CREATE TABLE public.log (id int GENERATED ALWAYS AS IDENTITY, n serial, what text);
	INSERT INTO public.log (what) VALUES ('before');
	CREATE SEQUENCE public.loose INCREMENT BY -3 MINVALUE -1000 START -1 CACHE 5 CYCLE; SELECT nextval('public.loose');
	CREATE FOREIGN TABLE public.remote (id int) SERVER blue;
	CREATE SCHEMA clerk; CREATE ROLE clerk LOGIN; ALTER SCHEMA clerk OWNER TO clerk; CREATE TABLE clerk.own (id serial, v int CHECK (v > 0)); ALTER TABLE clerk.own OWNER TO clerk;
	GRANT USAGE ON SCHEMA bcmig TO clerk; CREATE ROLE approver;});
$green->safe_psql('postgres', q{SELECT format('GRANT EXECUTE ON ROUTINE %s TO clerk', p.oid::regprocedure) FROM pg_proc p WHERE p.proname ~ '^bcmig' \gexec});

sub value { return $green->safe_psql('postgres', $_[0]) }

# all there is: the schema, every row of every table but what is measured (of the minute in which a sync still ran it is written down when the
# minute is over), where every sequence stands
sub everything
{
	my $dump = $green->basedir . '/dump.sql';

	$green->poll_query_until('postgres', 'SELECT count(*) = 0 FROM bcmig.audit_pending') or die;
	$green->command_ok([ 'pg_dump', '--exclude-table-data', 'bcmig.metric', '-d', $green->connstr('postgres'), '-f', $dump ], 'dumped');
	return join("\n", grep { !/^\\(un)?restrict / } split /\n/, PostgreSQL::Test::Utils::slurp_file($dump))
	  . value(q{SELECT string_agg(format('%s %s %s', c.oid::regclass, c.relfilenode, pg_sequence_last_value(c.oid)), E'\n' ORDER BY c.oid) FROM pg_class c WHERE c.relkind = 'S'});
}

sub rehearse
{
	my ($phases, %o) = @_;
	my $sync = $o{sync} ? "'$o{sync}'" : 'NULL';
	my @as = $o{user} ? ('-U', $o{user}) : ();

	$green->safe_psql('postgres', "SELECT bcmig_create_plan('r', $sync, " . (defined $phases ? "\$json\$$phases\$json\$" : 'NULL') . ", '" . ($o{options} // '{}') . "')", extra_params => \@as);
	my $before = everything();
	my $said = $green->safe_psql('postgres', q{SELECT check_name || '|' || status || '|' || coalesce(detail, '') FROM bcmig_rehearse_plan('r')}, extra_params => \@as);
	is(everything(), $before, 'nothing is left behind');
	$green->safe_psql('postgres', q{SELECT bcmig_drop_plan('r')});
	return $said;
}

# --- all that is well: each phase sees what those before it have made ---
is(rehearse(q{[
	{"name": "a", "type": "schema", "sql": "CREATE TABLE public.made (id serial PRIMARY KEY, v int); CREATE SEQUENCE public.of_made; INSERT INTO public.made (v) SELECT i FROM generate_series(1, 10) i"},
	{"name": "b", "type": "data", "sql": "INSERT INTO public.log (what) SELECT 'x' FROM public.made; SELECT nextval('public.loose'), setval('public.log_n_seq', 4711)", "precondition": "SELECT count(*) = 10 FROM public.made"},
	{"name": "c", "type": "code", "sql": "SET LOCAL search_path = public; CREATE VIEW seen AS SELECT * FROM made; GRANT SELECT ON seen TO clerk; ALTER TABLE log ADD COLUMN more int; TRUNCATE log RESTART IDENTITY"}]}),
	"a|ok|Run and rolled back.\nb|ok|Run and rolled back.\nc|ok|Run and rolled back.", 'a plan that is well');

# --- all that is not, each of it said ---
my @said = split /\n/, rehearse(q{[
	{"name": "a", "type": "schema", "sql": "CREATE TABLE clerk.t (id int)"},
	{"name": "b", "type": "schema", "sql": "CREATE TABLE clerk.t (id int)"},
	{"name": "c", "type": "schema", "sql": "CREATE TABLE public.not_mine (id int); DROP TABLE public.log"},
	{"name": "d", "type": "data", "sql": "INSERT INTO clerk.own (v) VALUES (1); INSERT INTO clerk.own (v) VALUES (-1)"},
	{"name": "e", "type": "data", "sql": "INSERT INTO clerk.own (v) SELECT id FROM clerk.t"},
	{"name": "f", "type": "code", "sql": "DO $$ BEGIN SET ROLE postgres; END $$"},
	{"name": "g", "type": "code", "sql": "SELECT pg_sleep(10)", "timeout": 100},
	{"name": "h", "type": "code", "sql": "SELECT 1", "precondition": "SELECT true FROM public.not_there"}]}, user => 'clerk');
is($said[0], 'a|ok|Run and rolled back.', 'first');
like($said[1], qr/^b\|fail\|42P07: /, 'what is there already');
like($said[2], qr/^c\|fail\|42501: /, 'without the right');
like($said[3], qr/^d\|fail\|23514: /, 'a row that is refused');
is($said[4], 'e|ok|Run and rolled back.', 'what comes after it is looked at');
like($said[5], qr/^f\|fail\|42501: /, 'SQL that would be somebody else');
like($said[6], qr/^g\|fail\|it takes longer than/, 'what takes too long');
like($said[7], qr/^h\|fail\|42P01: .*Names in the query of a precondition/, 'a precondition that is wrong, with what to do');

# --- what cannot be rolled back is not done ---
@said = split /\n/, rehearse(q{[
	{"name": "a", "type": "data", "sql": "INSERT INTO public.remote VALUES (1)"},
	{"name": "b", "type": "data", "sql": "COPY public.log TO '/tmp/bcmig_not_written'"},
	{"name": "c", "type": "data", "sql": "SELECT bcmig_create_sync('x', 'blue')"},
	{"name": "d", "type": "data", "sql": "DO $$ BEGIN PERFORM public.bcmig_create_sync('x', 'blue'); END $$"},
	{"name": "e", "type": "data", "sql": "SELECT pg_reload_conf()"},
	{"name": "f", "type": "data", "sql": "NOTIFY x"},
	{"name": "g", "type": "data", "sql": "WITH x AS (DELETE FROM public.remote RETURNING id) INSERT INTO public.log (what) SELECT id FROM x"}]});
like($said[0], qr/^a\|warn\|Not run, cannot be rolled back: it writes to foreign table remote/, 'a foreign table');
like($said[1], qr/^b\|warn\|Not run, cannot be rolled back: it copies/, 'a file');
ok(!-e '/tmp/bcmig_not_written', 'and there is none');
like($said[2], qr/^c\|fail\|42883: .*with their schema/, 'a function without its schema');
like($said[3], qr/^d\|warn\|Not run, cannot be rolled back: it calls bcmig/, 'bcmig itself');
like($said[4], qr/^e\|warn\|Not run, .*pg_reload_conf/, 'the server');
like($said[5], qr/^f\|warn\|Not run/, 'other sessions');
like($said[6], qr/^g\|warn\|Not run, .*foreign table remote/, 'a foreign table in a WITH');
is($blue->safe_psql('postgres', 'SELECT count(*) FROM remote'), '0', 'nothing came to blue');

# --- the standard plan, before anything runs, and when all is ready ---
my $standard = rehearse(undef, sync => 's');
unlike($standard, qr/\|fail\|/, 'nothing fails before it is started');
like($standard, qr/^traffic \(s\)\|warn\|BM009: /m, 'traffic cannot be looked at yet, and that is said');
value(q{SELECT bcmig_start_sync('s')});
wait_sync($green, 's');
is((run_validation($green, 's', 'full'))[1], 'ok', 'validated');
$green->safe_psql('postgres', q{SELECT bcmig_stop_sync('s')});
$green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_state});
like(rehearse(undef, sync => 's', options => '{"steps": [50]}'), qr/^traffic \(s\): balancer\|warn\|Not done now, cannot be rolled back: 50 % of new requests/m, 'the steps of the switch are listed');

@said = split /\n/, rehearse(undef, sync => 'new', options => '{"blue": "blue", "company": "CRONUS"}');
like($said[0], qr/^preflight: [\w ]+\|ok\|/, 'blue is looked at');
ok((grep { /^copy \(new\)\|warn\|Not looked at: its sync is made when/ } @said), 'what comes after the sync is made cannot be');

# --- who waits for a number waits no longer than the SQL; who holds one is not waited for for long ---
my $open = $green->background_psql('postgres', on_error_die => 1);
$open->query_safe(q{BEGIN; INSERT INTO public.log (what) VALUES ('open')});
value(q{SELECT bcmig_create_plan('r', NULL, '[{"name": "a", "type": "code", "sql": "SELECT 1"}]')});
like(value(q{SELECT status || ' ' || detail FROM bcmig_rehearse_plan('r')}), qr/^warn Not run: sequences could not be kept from moving: 55P03: /, 'given up after lock_timeout');
$open->query_safe('COMMIT');
is(value(q{SELECT status FROM bcmig_rehearse_plan('r')}), 'ok', 'later it can');
my ($rc, $out, $err) = $green->psql('postgres', q{SET ROLE clerk; SELECT * FROM bcmig_rehearse_plan('r')});
like($err, qr/must be a member of the owner of plan "r"/, 'not by others');
$open->quit;

done_testing();
