# Balancers other than the plain case of t/060: SQL functions, HTTP with secrets,
# those that lie, and green left at once.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Cwd 'abs_path';
use HAProxy;
use IO::Select;
use IO::Socket::INET;
use JSON::PP;
use MIME::Base64;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);
use WeightServer;

my $blue = new_blue();
my $green = new_green('green', 'log_min_messages = debug1', "log_statement = 'none'");

$blue->safe_psql('postgres', q{
	CREATE TABLE item (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO item SELECT i, 'v' || i, 0 FROM generate_series(1, 10) i;});
track($blue, 'item');
my $me = (getpwuid($<))[0];
connect_blue($green, $blue);

# the owner of the sync is no superuser
$green->safe_psql('postgres', qq{
	CREATE ROLE boss LOGIN; GRANT pg_monitor TO boss; GRANT CREATE ON SCHEMA public TO boss;
	GRANT USAGE ON FOREIGN SERVER blue TO boss; CREATE USER MAPPING FOR boss SERVER blue OPTIONS (user '$me', password_required 'false');
	GRANT USAGE ON SCHEMA bcmig TO boss; GRANT SELECT ON ALL TABLES IN SCHEMA bcmig TO boss; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO boss;
	SET ROLE boss;
	SELECT bcmig_create_sync('s', 'blue', '{"traffic_timeout": "20s"}');
	SELECT bcmig_add_table('s', 'item');
	SELECT bcmig_start_sync('s');});
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

# For cases that wait for it; others may be slow on a busy machine.
sub timeout { green("SELECT bcmig_alter_sync('s', '{\"traffic_timeout\": \"$_[0]\"}')") }

sub add { my ($name, $driver, $url, $options) = @_; green("SELECT bcmig_add_balancer('s', '$name', '$driver', $url, \$o\$$options\$o\$)") }
# Also from the memory of a worker that has read it before.
sub remove
{
	green("SELECT bcmig_remove_balancer('s', '$_[0]')");
	$green->poll_query_until('postgres', q{SELECT NOT EXISTS (SELECT FROM bcmig.worker_status WHERE phase = 'traffic')}) or die 'traffic is never done';
}

# ---------------------------------------------------------------------------
# SQL functions
# ---------------------------------------------------------------------------
green(q{
	CREATE SCHEMA app; GRANT USAGE ON SCHEMA app TO boss;
	CREATE TABLE app.share (sync text, percent numeric, by text DEFAULT current_user || ' ' || current_setting('search_path'));
	CREATE FUNCTION app.set_share(sync text, percent numeric) RETURNS void LANGUAGE sql AS 'INSERT INTO app.share VALUES ($1, $2)';
	CREATE FUNCTION app.get_share(sync text) RETURNS numeric LANGUAGE sql AS
		'SELECT coalesce((SELECT percent FROM app.share s WHERE s.sync = $1 ORDER BY ctid DESC LIMIT 1), 0)';
	GRANT SELECT, INSERT ON app.share TO boss;});
add('own', 'function', 'NULL', '{"set": "app.set_share(text,numeric)", "get": "app.get_share(text)"}');
is(set_traffic(12.5), 'changed', 'a function is set and read back');
is(green(q{SELECT DISTINCT sync || ' ' || percent || ' ' || by  FROM app.share}), 's 12.5 boss pg_catalog, pg_temp',
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
	timeout('300ms') if $body =~ /sleep/;
	like(set_traffic(20), $expected, "a function that $name");
	timeout('20s') if $body =~ /sleep/;
}
green(q{DROP FUNCTION app.set_share});
like(set_traffic(20), qr/^undone: balancer own: BM001: there is no function/, 'a function that is gone');
green(q{CREATE FUNCTION app.set_share(sync text, percent numeric) RETURNS void LANGUAGE sql AS 'SELECT'; REVOKE EXECUTE ON FUNCTION app.set_share FROM PUBLIC});
like(set_traffic(20), qr/^undone: balancer own: 42501: role boss may not execute/, 'a function that the owner may not execute any more');
green(q{DROP FUNCTION app.set_share});
is(green(q{SELECT green_percent FROM bcmig.traffic_status}), '12.5', 'the weight stays');

# settings, and a constraint that is to be looked at when the transaction ends
green(q{
	CREATE TABLE app.one (id int UNIQUE DEFERRABLE INITIALLY DEFERRED); GRANT INSERT ON app.one TO boss;
	CREATE FUNCTION app.set_share(sync text, percent numeric) RETURNS boolean LANGUAGE sql AS $f$
		INSERT INTO app.share VALUES ($1, $2); INSERT INTO app.one SELECT 1 FROM generate_series(1, (percent > 20)::int + 1);
		SELECT set_config('search_path', 'app', false), set_config('statement_timeout', '1', false); SELECT true $f$;});
like(set_traffic(30), qr/^undone: balancer own: 42501: cannot fire deferred trigger/, 'nothing of a function is left for the end of its transaction');
green(q{ALTER TABLE app.one DROP CONSTRAINT one_id_key; TRUNCATE app.share});
is(set_traffic(15), 'changed', 'mended');
is(set_traffic(16), 'changed', 'again');
is(green(q{SELECT string_agg(DISTINCT by, ';') FROM app.share}), 'boss pg_catalog, pg_temp', 'what a function sets is gone when it ends');
green(q{CREATE OR REPLACE FUNCTION app.get_share(sync text) RETURNS numeric LANGUAGE sql AS $$SELECT 'NaN'::numeric$$});
like(set_traffic(15), qr/^undone: balancer own: BM030: app\.get_share returned NaN, which is no percentage/, 'a share that is none');
remove('own');
is(set_traffic(0), 'changed', 'back to 0');

# ---------------------------------------------------------------------------
# HTTP
# ---------------------------------------------------------------------------
my $token = q{TopSecretToken"\\&/+ %=};
my $password = 'Hidden:Password';
my $gateway = WeightServer->new(bearer => $token, basic => "clerk:$password");
my $api = "http://127.0.0.1:$gateway->{port}/api/";
green(qq{
	CREATE SERVER gw FOREIGN DATA WRAPPER bcmig_http OPTIONS (url 'http://127.0.0.1:$gateway->{port}/api');
	GRANT USAGE ON FOREIGN SERVER gw TO boss;
	CREATE USER MAPPING FOR boss SERVER gw OPTIONS (user 'clerk', password '$password', token '$token');});

# A balancer at a path of the gateway: set and get, and what is to be added to them.
sub add_http
{
	my ($path, $set, $get) = @_;
	my $headers = '"headers": {"Authorization": "Bearer {{token}}"}';
	$set //= qq{$headers, "body": "{\\"green\\": {{percent}}}"};
	$get //= qq{$headers, "path": "\$.green"};
	add('gw', 'http', "'$api'", qq({"server": "gw", "set": {"url": "$path", $set}, "get": {"url": "$path", $get}}));
}
sub last_request { my ($method) = @_; return (grep { $_->{method} eq $method } $gateway->requests)[-1] }

# as docs/traffic.md has it
add('gw', 'http', "'$api'", q({"server": "gw",
	"set": {"method": "PUT", "url": "weights/{{sync}}", "headers": {"Authorization": "Bearer {{token}}"}, "body": "{\"green\": {{percent}}, \"blue\": {{blue_percent}}}"},
	"get": {"url": "weights/{{sync}}", "headers": {"Authorization": "Bearer {{token}}"}, "path": "$.green"}}));
is(set_traffic(33.3), 'changed', 'a gateway is set and read back');
my $request = last_request('PUT');
is($request->{path}, '/api/weights/s', 'where it was told to');
is($request->{body}, '{"green": 33.3, "blue": 66.7}', 'what it was told to');
is($request->{headers}{'content-type'}, 'application/json', 'said to be JSON');
is($request->{headers}{authorization}, "Bearer $token", 'with the token, as it is in a header');
my ($rc, $out, $err) = $green->psql('postgres', qq{BEGIN; SELECT bcmig_create_sync('other', 'blue'); GRANT USAGE ON FOREIGN SERVER gw TO CURRENT_USER;
	SELECT bcmig_add_balancer('other', 'gw', 'http', 'HTTP://127.0.0.1:$gateway->{port}/api/x/', \$o\${"server": "gw",
	"set": {"url": "../weights/s", "body": "{{percent}}"}, "get": {"path": "\$.green"}}\$o\$)}, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($err, qr{BM002: http://127\.0\.0\.1:\d+/api/weights/s is balancer "gw" of sync "s" already}, 'one sync for a URL, however it is spelled');
remove('gw');
set_traffic(0);

# every place a secret can stand in, and every way to ask
foreach my $case (
	[ '"method": "POST", "headers": {"Authorization": "Basic {{basic}}"}, "body": "{\"green\": {{percent}}, \"key\": \"{{token}}\"}"',
		sub { decode_json($_[0]->{body})->{key} }, $token, 'JSON' ],
	[ '"method": "post", "headers": {"Authorization": "Basic {{basic}}", "Content-Type": "application/x-www-form-urlencoded"}, "body": "green={{percent}}&key={{token}}"',
		sub { (grep { s/^key=// } split /&/, $_[0]->{body})[0] }, 'TopSecretToken%22%5C%26%2F%2B%20%25%3D', 'a form' ],
	[ '"method": "PATCH", "headers": {"Authorization": "Basic {{basic}}", "Content-Type": "text/plain", "X-User": "{{user}} of {{name}}"}, "body": "{\"green\": {{percent}}}"',
		sub { $_[0]->{headers}{'x-user'} }, 'clerk of gw', 'a header' ])
{
	my ($set, $look, $expected, $name) = @$case;
	add_http('weights/places', $set);
	is(set_traffic(20), 'changed', "$name: set");
	is($look->((grep { $_->{method} =~ /P/ } $gateway->requests)[-1]), $expected, "$name: as it should be");
	remove('gw');
	set_traffic(0);
}
add('gw', 'http', "'$api'", q({"server": "gw", "set": {"method": "POST", "url": "weights/query?green={{percent}}&key={{token}}"},
	"get": {"url": "weights/query?key={{token}}", "path": "$.shares[0] * 100", "expect_status": [200]}}));
is(set_traffic(12.5), 'changed', 'a URL with a token, and a share that is computed');
$request = last_request('POST');
is("$request->{query}{key} $request->{body} $request->{headers}{'content-length'}", "$token  0", 'as it should be');
remove('gw');
set_traffic(0);

# what goes wrong
my $bearer = '"headers": {"Authorization": "Bearer {{token}}"}';
foreach my $case (
	[ 'liar', undef, undef, qr{it was set to 20 % and shows 0 %$}, 'says yes and does nothing' ],
	[ 'moved', undef, undef, qr{PUT moved at \S+: status 302, wanted 200, 204$}, 'sends elsewhere' ],
	[ 'weights/a', '"body": "{\"green\": {{percent}}}"', undef, qr{PUT weights/a at \S+: status 401, wanted 200, 204$}, 'does not know us' ],
	[ 'weights/a?key={{password}}', '"body": "{\"green\": {{percent}}}"', undef, qr{PUT weights/a\?key=\{\{password\}\} at \S+: status 401}, 'does not know us, and is told who we are in the URL' ],
	[ 'weights/a', qq{$bearer, "body": "{\\"green\\": {{percent}}}", "expect_status": [201]}, undef, qr{status 204, wanted 201$}, 'has another status' ],
	[ 'big', undef, undef, qr{\w+ big at \S+: the answer is longer than 1048576 bytes}, 'sends 10 MB' ],
	[ 'words', undef, undef, qr{GET words at \S+: the answer could not be read as JSON \(SQLSTATE 22P02\)$}, 'sends no JSON, and our secret back' ],
	[ 'bytes', undef, undef, qr{GET bytes at \S+: the answer could not be read as JSON \(SQLSTATE 22021\)$}, 'sends what is no UTF-8' ],
	[ 'weights/a', undef, qq{$bearer, "path": "\$.gren"}, qr{\$\.gren finds 0 values in the answer$}, 'has no such field' ],
	[ 'weights/a', undef, qq{$bearer, "path": "\$.*"}, qr{finds 5 values|finds 4 values}, 'has too many' ],
	[ 'weights/a', undef, qq{$bearer, "path": "\$.text"}, qr{\$\.text finds a string, no number$}, 'has a text' ],
	[ 'weights/a', undef, qq{$bearer, "path": "\$.none"}, qr{\$\.none finds a null, no number$}, 'has a null' ],
	[ 'weights/a', undef, qq{$bearer, "path": "\$.green * 100"}, qr{finds 2000, no percentage$}, 'has another unit' ])
{
	my ($path, $set, $get, $expected, $name) = @$case;
	add_http($path, $set, $get);
	like(set_traffic(20), qr/^undone: balancer gw: .*$expected/, "a gateway that $name");
	remove('gw');
}

# a secret that would make a header of its own
add_http('weights/b');
green(q{ALTER USER MAPPING FOR boss SERVER gw OPTIONS (SET token E'x\r\nX-Evil: TopSecretToken')});
my $before = () = $gateway->requests;
like(set_traffic(20), qr/^undone: balancer gw: BM003: option set of balancer "gw": header Authorization would hold an end of line/, 'an end of line in a header');
is(scalar(() = $gateway->requests), $before, 'was not sent');
green(q{ALTER USER MAPPING FOR boss SERVER gw OPTIONS (DROP token)});
like(set_traffic(20), qr/^undone: balancer gw: \w+: the user mapping of role \S+ for server "gw" has no option token/, 'a secret that is not there');
green(q{REVOKE USAGE ON FOREIGN SERVER gw FROM boss});
like(set_traffic(20), qr/^undone: balancer gw: 42501: role boss may not use server "gw"/, 'a server the owner may not use any more');
green(q{GRANT USAGE ON FOREIGN SERVER gw TO boss; DROP USER MAPPING FOR boss SERVER gw});
like(set_traffic(20), qr/^undone: balancer gw: \w+: role \S+ has no user mapping for server "gw"/, 'nor any other');
green(q{ALTER SERVER gw OPTIONS (SET url 'http://127.0.0.1:1/api')});
like(set_traffic(20), qr/^undone: balancer gw: BM003: "\S+" and "weights\/b" of balancer "gw" make no URL below that of server "gw"/, 'a server that is another one now');
remove('gw');

# TLS: by the server's certificates only
my $pem = abs_path(PostgreSQL::Test::Utils::tempdir()) . '/pem';
system_or_bail('openssl', 'req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', '-subj', '/CN=gateway', '-addext', 'subjectAltName=IP:127.0.0.1',
	'-keyout', "$pem.key", '-out', "$pem.crt");
append_to_file($pem, slurp_file("$pem.crt") . slurp_file("$pem.key"));
my $tls = WeightServer->new(bearer => $token, basic => 'nobody:x', tls => $pem);
green(qq{ALTER SERVER gw OPTIONS (SET url 'https://127.0.0.1:$tls->{port}/');
	CREATE USER MAPPING FOR boss SERVER gw OPTIONS (user 'clerk', password '$password', token '$token');});
$api = "https://127.0.0.1:$tls->{port}/api/";
add_http('weights/tls');
like(set_traffic(20), qr/^undone: balancer gw: PUT weights\/tls at \S+: .*certificate/, 'a certificate nobody vouches for');
is(scalar(() = $tls->requests), 0, 'gets no request');
green(qq{ALTER SERVER gw OPTIONS (ADD ca_file '$pem.crt')});
is(set_traffic(20), 'changed', 'one that ca_file vouches for');
is(set_traffic(0), 'changed', 'and back');

# while a request is under way, and afterwards, a secret is nowhere to be seen
remove('gw');
timeout('300ms');
add('gw', 'http', "'$api'", q({"server": "gw", "set": {"url": "silent?key={{token}}&green={{percent}}"}, "get": {"url": "silent?key={{token}}", "path": "$"}}));
green(q{SELECT bcmig_set_traffic('s', 0)});
ok($green->poll_query_until('postgres', q{SELECT count(*) > 0 FROM bcmig.worker_status WHERE phase = 'traffic'}), 'a worker asks');
unlike(green('SELECT string_agg(a::text, E\'\n\') FROM pg_stat_activity a'), qr/TopSecretToken|Hidden/, 'pg_stat_activity');
ok($green->poll_query_until('postgres', q{SELECT balancer_problems LIKE 'gw: %no answer%' FROM bcmig.traffic_status}), 'it gives up');
remove('gw');
timeout('20s');
my $relations = green(q{SELECT string_agg(c.oid::regclass::text, ' ') FROM pg_class c WHERE relnamespace = 'bcmig'::regnamespace AND relkind IN ('r', 'v')});
my $everything = join "\n", map { green("SELECT t::text FROM $_ t") } split / /, $relations;
like($everything, qr/weights\/a\?key=\{\{password\}\}/, 'bcmig.* has the template');
my $secret = qr/TopSecretToken|Hidden.?Password|@{[ substr(MIME::Base64::encode_base64("clerk:$password", ''), 0, 20) ]}/;
unlike($everything, $secret, 'and no secret');
like(slurp_file($green->logfile), qr/bcmig worker|background worker/, 'the log has something of workers');
unlike(slurp_file($green->logfile), $secret, 'and no secret');

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

sub rollback
{
	green(q{SELECT count(*) FROM bcmig_rollback('s', 'a test')});
	wait_sync($green, 's', 'rolled_back');
}

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
rollback();
ok(closed($open), 'after a rollback: what was open on green is closed');
ok(!IO::Select->new($on_blue)->can_read(0), 'on blue it is not');
is(servers(50), 'blue1', 'nothing new goes to green');
is(servers(50, 'green1'), 'blue1', 'with its cookie neither');
is(servers(50, 'green2'), 'blue1', 'nor with the other one');
is($front->green_share, 0, 'its weight is 0');
green(q{SELECT bcmig_hold_traffic('s', 'x'); SELECT bcmig_resume_traffic('s'); SELECT bcmig_set_traffic('s', 0)});
ok($green->poll_query_until('postgres', q{SELECT green_percent = 0 FROM bcmig.balancer_state}), 'it is read as 0');
is(servers(20, 'green1'), 'blue1', 'and left alone');
is(set_traffic(50), 'changed', 'a weight brings green back');
is(servers(20, 'green1'), 'green1', 'to those who have its cookie too');
$front->stop;
rollback();
like(green(q{SELECT result->>'balancers_missing' FROM bcmig.switch ORDER BY switch_id DESC LIMIT 1}), qr/^front: HAProxy at \S+ /, 'one that is down is named');
remove('front');

# --- a runtime API that takes every command and does nothing ---
my $listener = IO::Socket::INET->new(Listen => 16, LocalAddr => '127.0.0.1', LocalPort => 0) or die "listen: $!";
my $stub = fork() // die "fork: $!";
if ($stub == 0)
{
	while (my $client = $listener->accept)
	{
		my $line = <$client> // '';
		print $client "1\n# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight\n"
		  . "3 bc 1 b 127.0.0.1 2 0 100\n3 bc 2 g 127.0.0.1 2 0 0\n\n" if $line =~ /^show/;
		close $client;
	}
	exec '/bin/true';
}
add('stub', 'haproxy', "'tcp://127.0.0.1:" . $listener->sockport . "'", '{"backend": "bc", "blue": ["b"], "green": ["g"]}');
like(set_traffic(20), qr/^undone: balancer stub: it was set to 20 % and shows 0 %$/, 'one that does nothing is found out');
is(green('SELECT green_percent FROM bcmig.traffic_status'), '0', 'the weight stays');
kill 'KILL', $stub;
waitpid $stub, 0;

done_testing();
