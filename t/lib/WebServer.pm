# WebServer.pm: a web server that answers as a test wants, also badly; and one
# with a certificate.
package WebServer;

use strict;
use warnings;

use Cwd qw(abs_path);
use IO::Socket::INET;
use POSIX ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

my @running;

# A process for each client, so that one that hangs is alone.  Paths:
#	/script			what script() was given: a word for each request, the last one for ever
#	/WORD			that word
sub new
{
	my ($class) = @_;
	my $self = bless { dir => abs_path(PostgreSQL::Test::Utils::tempdir()), pids => [], owner => $$ }, $class;
	my $listener = IO::Socket::INET->new(Listen => 128, LocalAddr => '127.0.0.1', LocalPort => 0) or die "listen: $!";

	$self->{port} = $listener->sockport;
	$self->script('ok');
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		setpgrp;
		$SIG{CHLD} = 'IGNORE';
		while (1)
		{
			my $client = $listener->accept or next;
			my ($path) = (<$client> // '') =~ m{ /(\S*) };
			PostgreSQL::Test::Utils::append_to_file("$self->{dir}/log", "$path\n");
			$path = $self->_next if $path eq 'script';
			my $child = fork() // die "fork: $!";
			if ($child == 0)
			{
				while (defined(my $line = <$client>)) { last if $line =~ /^\r?\n$/; }
				$self->_answer($client, $path);
				close $client;
				POSIX::_exit(0);
			}
			close $client;
		}
	}
	push @{ $self->{pids} }, -$pid;
	push @running, $self;
	return $self;
}

sub url { my ($self, $path) = @_; return "http://127.0.0.1:$self->{port}/$path" }

# Words of the requests to come; begins the log anew.
sub script
{
	my ($self, @words) = @_;
	$self->_write('script', join("\n", @words) . "\n");
	$self->_write('log', '');
}

# What /body says.
sub body { my ($self, $body) = @_; $self->_write('body', $body) }

# Paths asked for since script().
sub requests { my $self = shift; my @paths = split /\n/, PostgreSQL::Test::Utils::slurp_file("$self->{dir}/log"); return @paths }

sub _write
{
	my ($self, $file, $text) = @_;
	open my $out, '>:raw', "$self->{dir}/$file.new" or die "$file: $!";
	print $out $text;
	close $out;
	rename "$self->{dir}/$file.new", "$self->{dir}/$file" or die "$file: $!";
}

sub _next
{
	my $self = shift;
	my @words = split /\n/, PostgreSQL::Test::Utils::slurp_file("$self->{dir}/script");
	$self->_write('script', join("\n", @words[ 1 .. $#words ]) . "\n") if @words > 1;
	return $words[0];
}

sub _answer
{
	my ($self, $client, $word) = @_;
	my $body = 'fine';
	my $status = '200 OK';
	my $more = '';

	local $SIG{PIPE} = 'IGNORE';
	sleep 1000 if $word eq 'hang';
	if ($word eq 'drip')
	{
		print $client "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
		$client->flush;
		while (print $client '.') { $client->flush or last; usleep(20_000) }
		return;
	}
	$status = '503 Sick' if $word eq 'ill';
	($status, $more) = ('302 Found', "Location: /elsewhere\r\n") if $word eq 'redirect';
	$body = 'x' x 10_000_000 if $word eq 'big';
	$body = PostgreSQL::Test::Utils::slurp_file("$self->{dir}/body") if $word eq 'body';
	print $client "HTTP/1.1 $status\r\n${more}Content-Length: " . length($body) . "\r\nConnection: close\r\n\r\n$body";
}

# A server with a certificate for a name, signed by nobody but itself; its URL
# and the file of the certificate.
sub tls
{
	my ($self, $name) = @_;
	my $port = PostgreSQL::Test::Cluster::get_free_port();
	my $file = "$self->{dir}/" . $name =~ s/\W/_/gr;

	system("openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=bcmig -addext 'subjectAltName=$name' -keyout $file.key -out $file.crt >$file.log 2>&1") == 0
	  or die 'openssl: ' . PostgreSQL::Test::Utils::slurp_file("$file.log");
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		open STDIN, '<', '/dev/null';
		open STDOUT, '>>', "$file.log";
		open STDERR, '>&', \*STDOUT;
		exec 'openssl', 's_server', '-accept', "127.0.0.1:$port", '-cert', "$file.crt", '-key', "$file.key", '-www' or die "openssl: $!";
	}
	push @{ $self->{pids} }, $pid;
	foreach (1 .. 100)
	{
		return ("https://127.0.0.1:$port/", "$file.crt") if IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port);
		usleep(50_000);
	}
	die 'openssl s_server does not start: ' . PostgreSQL::Test::Utils::slurp_file("$file.log");
}

END
{
	my $code = $?;
	foreach my $self (@running)
	{
		next unless $$ == $self->{owner};
		kill 'KILL', @{ $self->{pids} };
		waitpid abs($_), 0 foreach @{ $self->{pids} };
	}
	$? = $code;
}

1;
