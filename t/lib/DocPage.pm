# DocPage.pm: a page of docs/ as its sections and blocks.
package DocPage;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Utils;

our @EXPORT = qw(read_page);

# Sections are title and blocks; a block is its kind, text, line, and, when a
# block marked text (or tsql: lines of a script) follows, what is seen then.
sub read_page
{
	my ($page) = @_;
	my (@sections, $block);
	my $n = 0;

	foreach my $line (split /\n/, PostgreSQL::Test::Utils::slurp_file($page))
	{
		$n++;
		if (defined $block)
		{
			if ($line ne '```') { $block->{text} .= "$line\n"; next }
			if ($block->{kind} =~ /^t/)
			{
				my $before = $sections[-1]{blocks}[-1];
				$before && !defined $before->{seen} or die "line $block->{line}: nothing it could be seen after";
				$before->{seen} = $block->{text};
				$before->{lines} = $block->{kind} eq 'tsql';
			}
			else { push @{ $sections[-1]{blocks} }, $block }
			$block = undef;
		}
		elsif ($line =~ /^```(.+)/) { $block = { kind => $1, text => '', line => $n } }
		elsif ($line =~ /^#+ (.*)/) { push @sections, { title => $1, blocks => [] } }
		elsif ($line =~ /^\| (`.+`) \|/) { push @{ $sections[-1]{names} }, split /, /, $1 }
	}
	die "a block has no end" if defined $block;
	return @sections;
}

1;
