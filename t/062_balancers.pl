# Balancers other than the plain case of t/060: SQL functions, HTTP with secrets,
# those that lie, and green left at once.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use HAProxy;
use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

my $blue = new_blue();
my $green = new_green('green', 'log_min_messages = debug1', "log_statement = 'none'");

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 10) i;});
track($blue, 'item');
connect_blue($green, $blue, 's', '{"traffic_timeout": "1s"}');
$green->safe_psql('postgres', q{SELECT bcmig_add_table('s', 'item')});
start_sync($green, 's');
wait_sync($green, 's');
run_validation($green, 's', 'full');

sub green { return $green->safe_psql('postgres', $_[0]) }

# Ask for a weight; what became of it.
sub set_traffic
{
	my ($percent) = @_;
	my $done = 'event_id > ' . green('SELECT coalesce(max(event_id), 0) FROM bcmig.traffic_event') . " AND event IN ('changed', 'refused', 'undone')";
	green("SELECT bcmig_set_traffic('s', $percent)");
	$green->poll_query_until('postgres', "SELECT count(*) > 0 FROM bcmig.traffic_event WHERE $done") or die 'no event';
	return green("SELECT event || coalesce(': ' || detail, '') FROM bcmig.traffic_event WHERE $done ORDER BY event_id LIMIT 1");
}

sub add { my ($name, $driver, $url, $options) = @_; green("SELECT bcmig_add_balancer('s', '$name', '$driver', $url, \$o\$$options\$o\$)") }
sub remove { green("SELECT bcmig_remove_balancer('s', '$_[0]')") }

# ---------------------------------------------------------------------------
# SQL functions
# ---------------------------------------------------------------------------
green(q{
	CREATE SCHEMA app;
	CREATE TABLE app.share (sync text, percent numeric, by text DEFAULT current_user || ' ' || current_setting('search_path'));
	CREATE FUNCTION app.set_share(sync text, percent numeric) RETURNS void LANGUAGE sql AS 'INSERT INTO app.share VALUES ($1, $2)';
	CREATE FUNCTION app.get_share(sync text) RETURNS numeric LANGUAGE sql AS
		'SELECT coalesce((SELECT percent FROM app.share s WHERE s.sync = $1 ORDER BY ctid DESC LIMIT 1), 0)';});
add('own', 'function', 'NULL', '{"set": "app.set_share(text,numeric)", "get": "app.get_share(text)"}');
is(set_traffic(12.5), 'changed', 'a function is set and read back');
is(green(q{SELECT DISTINCT sync || ' ' || percent || ' ' || by FROM app.share}), 's 12.5 ' . (getpwuid($<))[0] . ' pg_catalog, pg_temp',
	'called as the owner, with the name of the sync');

foreach my $case (
	[ 'void', 'SELECT', qr/^undone: balancer own: it was set to 20 % and shows 12.5 %/, 'does nothing' ],
	[ 'boolean', 'SELECT false', qr/^undone: balancer own: BM030: app\.set_share returned false/, 'says it did not' ],
	[ 'boolean', 'SELECT NULL::boolean', qr/^undone: balancer own: BM030: app\.set_share returned NULL/, 'does not say' ],
	[ 'void', 'SELECT pg_sleep(60)', qr/^undone: balancer own: 57014: /, 'takes too long' ],
	[ 'void', 'SELECT 1/(percent - 20)', qr/^undone: balancer own: 22012: /, 'fails' ],
	[ 'void', 'INSERT INTO public.item VALUES (77)', qr/^undone: balancer own: BM021: /, 'writes to a fenced table' ],
	[ 'void', q{SELECT set_config('role', 'pg_monitor', false)}, qr/^undone: balancer own: 42501: /, 'becomes somebody else' ],
	[ 'int', 'SELECT 1', qr/^undone: balancer own: BM003: app\.set_share\(text,numeric\) does not fit/, 'has another result now' ])
{
	my ($type, $body, $expected, $name) = @$case;
	green("DROP FUNCTION app.set_share; CREATE FUNCTION app.set_share(sync text, percent numeric) RETURNS $type LANGUAGE sql AS \$f\$$body"
		. ($type eq 'void' ? '; SELECT' : '') . '$f$');
	like(set_traffic(20), $expected, "a function that $name");
}
green(q{DROP FUNCTION app.set_share});
like(set_traffic(20), qr/^undone: balancer own: BM001: there is no function/, 'a function that is gone');
is(green(q{SELECT green_percent FROM bcmig.traffic_status}), '12.5', 'the weight stays');

# settings, and a constraint that is to be looked at when the transaction ends
green(q{
	CREATE TABLE app.one (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
	CREATE FUNCTION app.set_share(sync text, percent numeric) RETURNS boolean LANGUAGE sql AS $f$
		INSERT INTO app.share VALUES ($1, $2); INSERT INTO app.one SELECT 1 FROM generate_series(1, (percent > 20)::int + 1);
		SELECT set_config('search_path', 'app', false), set_config('statement_timeout', '1', false); SELECT true $f$;});
like(set_traffic(30), qr/^undone: balancer own: 42501: cannot fire deferred trigger/, 'nothing of a function is left for the end of its transaction');
green(q{ALTER TABLE app.one DROP CONSTRAINT one_id_key; TRUNCATE app.share});
is(set_traffic(15), 'changed', 'mended');
is(set_traffic(16), 'changed', 'again');
is(green(q{SELECT string_agg(DISTINCT by, ';') FROM app.share}), (getpwuid($<))[0] . ' pg_catalog, pg_temp', 'what a function sets is gone when it ends');
green(q{CREATE OR REPLACE FUNCTION app.get_share(sync text) RETURNS numeric LANGUAGE sql AS $$SELECT 'NaN'::numeric$$});
like(set_traffic(15), qr/^undone: balancer own: BM030: app\.get_share returned NaN, which is no percentage/, 'a share that is none');
remove('own');
is(set_traffic(0), 'changed', 'back to 0');

# ---------------------------------------------------------------------------
# HAProxy: green is left at once
# ---------------------------------------------------------------------------
my $front = HAProxy->new(blue => ['blue1'], green => [ 'green1', 'green2' ], cookie => 1);

# A request; the server's name (its first line), its cookie, and the connection.
sub request
{
	my ($path, $cookie) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $front->{port}) or die "haproxy: $!";
	print $socket "GET $path HTTP/1.1\r\nHost: bc\r\nConnection: close\r\n" . ($cookie ? "Cookie: SERVER=$cookie\r\n" : '') . "\r\n";
	my ($head, $new) = ('', $cookie);
	while (defined(my $line = <$socket>)) { last if $line =~ /^\r?\n$/; $head .= $line; }
	$new = $1 if $head =~ /set-cookie: SERVER=(\w+)/i;
	my $body = <$socket>;
	die "no answer: $head" unless defined $body;
	chomp $body;
	return ($body, $new, $socket);
}
sub servers { my ($n, $cookie) = @_; my %seen; $seen{ (request('/', $cookie))[0] }++ foreach 1 .. $n; return join ' ', sort keys %seen }

# Has the other side closed?  Waits for it.
sub closed
{
	my ($socket) = @_;
	my $left = $PostgreSQL::Test::Utils::timeout_default;
	while (IO::Select->new($socket)->can_read($left)) { return 1 unless sysread($socket, my $bytes, 1000) }
	return 0;
}

add('front', 'haproxy', "'" . $front->url . "'", '{"backend": "bc", "blue": ["blue1"], "green": ["green1", "green2"]}');
is(set_traffic(50), 'changed', 'half to green');
my ($name, $cookie, $open) = request('/open', 'green1');
is($name, 'green1', 'a long answer from green');
my (undef, undef, $on_blue) = request('/open', 'blue1');
is(set_traffic(0), 'changed', 'set to 0');
is(servers(20), 'blue1', 'nothing new goes to green');
is(servers(20, 'green1'), 'green1', 'who has its cookie still does');
ok(!IO::Select->new($open)->can_read(0), 'and what is open stays open');

is(set_traffic(50), 'changed', 'half again');
is(green(q{SELECT coalesce(bcmig.leave_green('s'), '-')}), '-', 'green is left');
ok(closed($open), 'what was open is closed');
ok(!IO::Select->new($on_blue)->can_read(0), 'on blue it is not');
is(servers(50), 'blue1', 'nothing new goes to green');
is(servers(50, 'green1'), 'blue1', 'with its cookie neither');
is(servers(50, 'green2'), 'blue1', 'nor with the other one');
done_testing();
