# WeightServer.pm: a gateway with a REST API (test/weight_server).
package WeightServer;

use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Utils;

my $source = $ENV{BCMIG_SOURCE} // '.';
my @running;

# bearer, basic: what it wants as Authorization; tls: file of certificate and key.
sub new
{
	my ($class, %o) = @_;
	my $self = bless { log => PostgreSQL::Test::Utils::tempdir() . '/requests', owner => $$ }, $class;

	$self->{pid} = fork() // die "fork: $!";
	if ($self->{pid} == 0)
	{
		open STDOUT, '>', $self->{log};
		open STDERR, '>', "$self->{log}.errors";
		exec '/usr/bin/python3', "$source/test/weight_server", ($o{tls} ? ('--tls', $o{tls}) : ()), $o{bearer}, $o{basic} or die "python3: $!";
	}
	push @running, $self;
	foreach (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		my $first = -e $self->{log} ? (split /\n/, slurp_file($self->{log}), 2)[0] : '';
		if (($first // '') =~ /^(\d+)$/) { $self->{port} = $1; return $self; }
		select undef, undef, undef, 0.1;
	}
	die 'weight_server does not start: ' . slurp_file("$self->{log}.errors");
}

# Requests so far, oldest first.
sub requests { my $self = shift; my @lines = split /\n/, slurp_file($self->{log}); shift @lines; return map { decode_json($_) } @lines }

END
{
	my $code = $?;
	foreach my $self (@running)
	{
		next unless $$ == $self->{owner};
		kill 'KILL', $self->{pid};
		waitpid $self->{pid}, 0;
	}
	$? = $code;
}

1;
