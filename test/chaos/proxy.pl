#!/usr/bin/perl
#
# proxy.pl PORT TARGET-PORT CONTROL-FILE: the network between green and blue
#
# Passes bytes on between 127.0.0.1:PORT and 127.0.0.1:TARGET-PORT.  What the
# network does is a line in the control file, read again when it is replaced:
#
#	pass				all is well
#	cut					every connection is reset, new ones too
#	stall				nothing goes through in either direction, nothing is closed
#	half_open			connections there are dead and not told; new ones work
#	silent				new connections are accepted and never answered
#	slow MS BYTES		every piece waits MS, and a connection gets BYTES a second
#	torn BYTES			a connection is reset after at most so many bytes of answers:
#						in the midst of a message
#
# A connection that was dead (half_open, silent) is reset when the network is
# well again.  One process, no threads; it ends with its parent.
use strict;
use warnings;
use IO::Select;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_LINGER TCP_NODELAY IPPROTO_TCP);
use Time::HiRes qw(time);

my ($port, $target, $control) = @ARGV;
my $parent = getppid();
my $mode = 'pass';
my @args;
my $read_at = '';
my %link;						# fileno -> end of a connection

use constant PIECE => 65536;
use constant MOST_QUEUED => 1 << 20;

my $listener = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $port, Listen => 64, ReuseAddr => 1)
  or die "cannot listen on $port: $!";
$SIG{PIPE} = 'IGNORE';

# An end: {sock, peer, queue => [[due, bytes], ...], queued, eof, side}
sub add_end
{
	my ($sock, $side) = @_;
	my $end = { sock => $sock, side => $side, queue => [], queued => 0, free_at => 0, answered => 0 };

	$sock->blocking(0);
	setsockopt($sock, IPPROTO_TCP, TCP_NODELAY, 1);
	$link{ fileno($sock) } = $end;
	return $end;
}

# reset: the peer gets RST, not an orderly end
sub close_pair
{
	my ($end, $reset) = @_;

	foreach my $e ($end, $end->{peer})
	{
		next unless defined $e && defined $e->{sock};
		delete $link{ fileno($e->{sock}) };
		setsockopt($e->{sock}, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0)) if $reset;
		close $e->{sock};
		$e->{sock} = undef;
	}
}

sub close_all
{
	my ($only_dead) = @_;

	foreach my $end (my @ends = values %link)
	{
		close_pair($end, 1) if defined $end->{sock} && (!$only_dead || $end->{dead});
	}
}

sub read_control
{
	my @stat = stat($control) or return;
	my $stamp = "$stat[1] $stat[9]";

	return if $stamp eq $read_at;
	open my $file, '<', $control or return;
	my $line = <$file>;
	close $file;
	return unless defined $line;
	$read_at = $stamp;
	($mode, @args) = split ' ', $line;
	close_all(0) if $mode eq 'cut';
	close_all(1) if $mode eq 'pass';
	if ($mode eq 'half_open')
	{
		$_->{dead} = 1 foreach values %link;
	}
	if ($mode eq 'torn')
	{
		$_->{tear_at} = $_->{answered} + int(rand($args[0])) foreach grep { $_->{side} eq 'blue' } values %link;
	}
	open my $told, '>', "$control.told" or return;
	print $told $line;
	close $told;
}

sub accept_one
{
	my $client = $listener->accept or return;
	my $server;

	if ($mode eq 'cut')
	{
		setsockopt($client, SOL_SOCKET, SO_LINGER, pack('ii', 1, 0));
		close $client;
		return;
	}
	my $green = add_end($client, 'green');
	if ($mode eq 'silent')
	{
		$green->{dead} = 1;
		return;
	}
	$server = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $target, Timeout => 2);
	if (!$server)
	{
		close_pair($green, 1);
		return;
	}
	my $blue = add_end($server, 'blue');
	$green->{peer} = $blue;
	$blue->{peer} = $green;
	$blue->{tear_at} = int(rand($args[0])) if $mode eq 'torn';
}

# from an end into the queue of its peer
sub take
{
	my ($end) = @_;
	my $got = sysread($end->{sock}, my $bytes, PIECE);
	my $peer = $end->{peer};

	if (!defined $got)
	{
		close_pair($end, 1) unless $!{EAGAIN} || $!{EINTR};
		return;
	}
	if ($got == 0)
	{
		$end->{eof} = 1;
		close_pair($end, 0) unless defined $peer && $peer->{queued} > 0;
		return;
	}
	return unless defined $peer && !$end->{dead};
	my $due = time;
	if ($mode eq 'slow')
	{
		my ($ms, $rate) = @args;

		$due = $peer->{free_at} if $peer->{free_at} > $due;
		$due += $got / $rate;
		$peer->{free_at} = $due;
		$due += $ms / 1000;
	}
	push @{ $peer->{queue} }, [ $due, $bytes ];
	$peer->{queued} += $got;
}

# what is due from the queue of an end to its socket
sub give
{
	my ($end, $now) = @_;

	while (@{ $end->{queue} } && $end->{queue}[0][0] <= $now)
	{
		my $piece = $end->{queue}[0];
		my $bytes = $piece->[1];
		my $source = $end->{peer};

		if (defined $source && defined $source->{tear_at} && $source->{answered} + length($bytes) > $source->{tear_at})
		{
			my $left = $source->{tear_at} - $source->{answered};

			syswrite($end->{sock}, substr($bytes, 0, $left)) if $left > 0;
			# what has been sent arrives before the reset
			shutdown($end->{sock}, 1);
			close_pair($end, 0);
			return;
		}
		my $put = syswrite($end->{sock}, $bytes);
		if (!defined $put)
		{
			close_pair($end, 1) unless $!{EAGAIN} || $!{EINTR};
			return;
		}
		$end->{queued} -= $put;
		$source->{answered} += $put if defined $source;
		if ($put < length($bytes))
		{
			$piece->[1] = substr($bytes, $put);
			return;
		}
		shift @{ $end->{queue} };
	}
	close_pair($end, 0) if $end->{queued} == 0 && defined $end->{peer} && $end->{peer}{eof};
}

while (getppid() == $parent)
{
	my $now;
	my ($readers, $writers) = (IO::Select->new, IO::Select->new);

	read_control();
	$readers->add($listener);
	if ($mode ne 'stall')
	{
		foreach my $end (values %link)
		{
			my $peer = $end->{peer};

			# a dead end is read, so that its own end of the wire sees nothing
			$readers->add($end->{sock}) unless $end->{eof} || (defined $peer && $peer->{queued} > MOST_QUEUED);
			$writers->add($end->{sock}) if $end->{queued} > 0 && !$end->{dead} && $end->{queue}[0][0] <= time;
		}
	}
	my ($can_read, $can_write) = IO::Select->select($readers, $writers, undef, 0.01);
	$now = time;
	foreach my $sock (@{ $can_read // [] })
	{
		if ($sock == $listener)
		{
			accept_one();
			next;
		}
		my $end = defined fileno($sock) ? $link{ fileno($sock) } : undef;
		take($end) if defined $end && defined $end->{sock};
	}
	next if $mode eq 'stall';
	# a copy: ends go on the way
	foreach my $end (my @ends = values %link)
	{
		give($end, $now) if defined $end->{sock} && $end->{queued} > 0 && !$end->{dead};
	}
}
