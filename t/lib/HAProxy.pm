# HAProxy.pm: a real HAProxy in front of web servers that say their names.
package HAProxy;

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

my @running;

# blue, green: names of servers, all answered by one process, a port each; cookie:
# clients stick to a server by its name in cookie SERVER.
sub new
{
	my ($class, %o) = @_;
	my $self = bless { blue => $o{blue}, green => $o{green}, cookie => $o{cookie}, dir => PostgreSQL::Test::Utils::tempdir(), owner => $$ }, $class;

	$self->{port} = PostgreSQL::Test::Cluster::get_free_port();
	$self->{api} = PostgreSQL::Test::Cluster::get_free_port();
	$self->_start_web(@{ $self->{blue} }, @{ $self->{green} });
	push @running, $self;
	$self->start;
	return $self;
}

# They answer with their name: without an end for /open, as an error for /sick, and for
# /sick_from/N once N percent go to green.
sub _start_web
{
	my ($self, @names) = @_;
	my %name_of;

	foreach my $name (@names)
	{
		my $listener = IO::Socket::INET->new(Listen => 128, LocalAddr => '127.0.0.1', LocalPort => 0) or die "listen: $!";
		$self->{ports}{$name} = $listener->sockport;
		$name_of{$listener} = [ $name, $listener ];
	}
	my $pid = fork() // die "fork: $!";
	if ($pid == 0)
	{
		local $SIG{CHLD} = 'IGNORE';
		my $select = IO::Select->new(map { $_->[1] } values %name_of);
		while (1)
		{
			foreach my $listener ($select->can_read)
			{
				my $client = $listener->accept or next;
				my $request = <$client> // '';
				while (defined(my $line = <$client>)) { last if $line =~ /^\r?\n$/; }
				my $name = $name_of{$listener}[0];
				if ($request =~ m{ /open }) { _stay_open($client, $name); next }
				my $sick = $request =~ m{ /sick_from/(\d+) } ? $self->green_share >= $1 : $request =~ m{ /sick };
				print $client "HTTP/1.1 " . ($sick ? '503 Sick' : '200 OK') . "\r\n"
				  . 'Content-Length: ' . length($name) . "\r\nConnection: close\r\n\r\n$name";
				close $client;
			}
		}
	}
	$self->{web} = $pid;
}

# An answer that goes on until the client has gone.
sub _stay_open
{
	my ($client, $name) = @_;
	return if fork();
	$client->autoflush(1);
	print $client "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n$name\n";
	1 while sysread($client, my $byte, 1);
	exec '/bin/true';
}

sub web_port { my $self = shift; return $self->{ports}{ $self->{green}[0] } }
sub url { my $self = shift; return "tcp://127.0.0.1:$self->{api}" }

# Weights as haproxy.cfg has them: all to blue.
sub start
{
	my $self = shift;
	my $conf = "$self->{dir}/haproxy.cfg";
	my $servers = '';

	foreach my $side (qw(blue green))
	{
		$servers .= "	server $_ 127.0.0.1:$self->{ports}{$_} weight " . ($side eq 'blue' ? 100 : 0)
		  . ($self->{cookie} ? " cookie $_" : '') . "\n" foreach @{ $self->{$side} };
	}
	PostgreSQL::Test::Utils::append_to_file($conf, "global\n	stats socket ipv4\@127.0.0.1:$self->{api} level admin\n"
		. "defaults\n	mode http\n	timeout connect 5s\n	timeout client 30s\n	timeout server 30s\n"
		. "frontend f\n	bind 127.0.0.1:$self->{port}\n	default_backend bc\n"
		. "backend bc\n	balance roundrobin\n"
		. ($self->{cookie} ? "	cookie SERVER insert indirect nocache\n" : '') . $servers) unless -e $conf;
	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		open STDOUT, '>>', "$self->{dir}/log";
		open STDERR, '>&', \*STDOUT;
		exec '/usr/sbin/haproxy', '-db', '-f', $conf or die "haproxy: $!";
	}
	foreach (1 .. 100)
	{
		return if defined eval { $self->tell('show info') };
		usleep(50_000);
	}
	die 'haproxy does not start: ' . PostgreSQL::Test::Utils::slurp_file("$self->{dir}/log");
}

sub stop
{
	my $self = shift;
	return unless $self->{pid};
	kill 'KILL', $self->{pid};
	waitpid $self->{pid}, 0;
	$self->{pid} = 0;
}

# A line to the runtime API, and its answer.
sub tell
{
	my ($self, $line) = @_;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{api}) or die "haproxy: $!";
	print $socket "$line\n";
	local $/;
	return scalar <$socket>;
}

# What the weights give green, in percent; not bcmig's reading of it.
sub green_share
{
	my $self = shift;
	my %sum = (blue => 0, green => 0);

	foreach my $side (qw(blue green))
	{
		foreach my $server (@{ $self->{$side} })
		{
			$self->tell("get weight bc/$server") =~ /^(\d+) / and $sum{$side} += $1;
		}
	}
	return 100 * $sum{green} / ($sum{blue} + $sum{green});
}

# Percent of n requests that green has answered.  One connection, as HAProxy
# chooses a server for each request anyway.
sub share_of_requests
{
	my ($self, $n) = @_;
	my %green = map { $_ => 1 } @{ $self->{green} };
	my $count = 0;
	my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}) or die "haproxy: $!";

	foreach (1 .. $n)
	{
		my $length = -1;
		print $socket "GET / HTTP/1.1\r\nHost: bc\r\n\r\n";
		<$socket> =~ m{^HTTP/1.1 200 } or die 'no answer';
		while (defined(my $line = <$socket>))
		{
			last if $line =~ /^\r?$/;
			$length = $1 if $line =~ /^content-length: (\d+)/i;
		}
		read($socket, my $name, $length) == $length or die 'half an answer';
		$count++ if $green{$name};
	}
	return 100 * $count / $n;
}

# A process that sends one request after the other, some hundred a second, until
# the file "stop" is there, and then writes how many there were and what went
# wrong with which.
sub client
{
	my ($self, $report, $stop) = @_;
	my $pid = fork() // die "fork: $!";
	return { pid => $pid, report => $report } if $pid;

	my ($requests, $failed, $why) = (0, 0, '');
	my $parent = getppid();
	until (-e $stop || getppid() != $parent)
	{
		my $answer = '';
		usleep(2_000);
		$requests++;
		if (my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $self->{port}))
		{
			print $socket "GET / HTTP/1.1\r\nHost: bc\r\nConnection: close\r\n\r\n";
			local $/;
			$answer = <$socket> // '';
		}
		next if $answer =~ /^HTTP\/1.1 200 .*\r\n\r\n\w+$/s;
		$failed++;
		$why .= "\nrequest $requests: $answer";
	}
	PostgreSQL::Test::Utils::append_to_file($report, "requests $requests\nfailed $failed$why");
	require POSIX;
	POSIX::_exit(0);
}

sub client_end
{
	my ($self, $client) = @_;
	waitpid $client->{pid}, 0;
	return PostgreSQL::Test::Utils::slurp_file($client->{report});
}

END
{
	my $code = $?;
	foreach my $self (@running)
	{
		next unless $$ == $self->{owner};
		$self->stop;
		kill 'KILL', $self->{web};
		waitpid $self->{web}, 0;
	}
	$? = $code;
}

1;
