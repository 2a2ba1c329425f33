# Chromium.pm: a page as a browser shows it.
package Chromium;

use strict;
use warnings;

use Compress::Zlib ();
use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Utils;

our @EXPORT_OK = qw(page_facts screenshot read_png);

# Run Chromium on a page of this directory; returns what it writes.
sub chromium
{
	my ($dir, $dark, @args) = @_;
	my ($out, $err);

	local $ENV{HOME} = $dir;
	IPC::Run::run([ 'chromium', '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars', "--user-data-dir=$dir/profile",
			'--blink-settings=preferredColorScheme=' . ($dark ? 0 : 1), '--virtual-time-budget=20000', @args ],
		'>', \$out, '2>', \$err, IPC::Run::timeout(90)) or die "chromium: $err";
	return $out;
}

# A page around the report, in which it is as wide as a phone: a window of the
# browser is never that narrow.
sub wrap
{
	my ($dir, $name, $width, $height, $script) = @_;

	unlink "$dir/wrap.html";
	PostgreSQL::Test::Utils::append_to_file("$dir/wrap.html", '<!DOCTYPE html><html style="color-scheme:light dark"><body style="margin:0">'
		. ($script // '') . "<iframe src=\"$name.html\" style=\"border:0;width:${width}px;height:${height}px\"></iframe></body></html>");
	return "file://$dir/wrap.html";
}

sub screenshot
{
	my ($dir, $name, $shot, $width, $height, $dark) = @_;

	chromium($dir, $dark, "--window-size=$width,$height", "--screenshot=$dir/$shot.png", wrap($dir, $name, $width, $height));
	return "$dir/$shot.png";
}

# What JavaScript of the test (the page has none) says of the page: a line for each fact.
sub page_facts
{
	my ($dir, $name, $width, $dark) = @_;
	my $page = PostgreSQL::Test::Utils::slurp_file("$dir/$name.html");
	my $ask = q{<script>addEventListener('load', () => { const f = [];
		f.push('width ' + document.documentElement.scrollWidth + ' of ' + innerWidth);
		f.push('background ' + getComputedStyle(document.body).backgroundColor);
		document.querySelectorAll('svg').forEach(s => { const b = s.getBoundingClientRect(); let n = 0, l = 0;
			s.querySelectorAll('path.line').forEach(p => { n++; l += p.getTotalLength() });
			s.querySelectorAll('rect.bar').forEach(r => { n++; l += r.getBoundingClientRect().width });
			let out = 0, small = 99; s.querySelectorAll('text').forEach(t => { const r = t.getBoundingClientRect();
				if (r.left < b.left - 1 || r.right > b.right + 1 || r.bottom > b.bottom + 1) out++; small = Math.min(small, r.height) });
			f.push('svg ' + s.getAttribute('aria-label') + ': ' + (b.width > 100 && b.height > 10 && n > 0 && l > 10 ? 'drawn' : 'empty') + ', texts outside ' + out + ', ' + (small >= 9 ? 'readable' : 'too small')) });
		f.push('resources ' + performance.getEntriesByType('resource').length);
		parent.postMessage(f.join('\n'), '*') })</script>};

	$page =~ s{</body>}{$ask</body>} or die 'no body';
	unlink "$dir/asked.html";
	PostgreSQL::Test::Utils::append_to_file("$dir/asked.html", $page);
	my $dom = chromium($dir, $dark, '--window-size=1400,900', '--dump-dom', wrap($dir, 'asked', $width, 900,
		q{<pre id="facts"></pre><script>addEventListener('message', e => { document.getElementById('facts').textContent = e.data })</script>}));
	return $dom =~ m{<pre id="facts">(.*?)</pre>}s ? $1 : "no facts in: $dom";
}

# Width, height, number of colours and the colour of the first pixel of a PNG of
# 8 bits a sample.
sub read_png
{
	my $png = PostgreSQL::Test::Utils::slurp_file($_[0]);
	my ($pos, $data) = (8, '');
	my ($width, $height, $depth, $type);

	while ($pos < length $png)
	{
		my ($length, $name) = unpack 'N a4', substr($png, $pos, 8);
		my $body = substr($png, $pos + 8, $length);
		($width, $height, $depth, $type) = unpack 'NNCC', $body if $name eq 'IHDR';
		$data .= $body if $name eq 'IDAT';
		$pos += 12 + $length;
	}
	my $bytes = { 2 => 3, 6 => 4 }->{$type} or die "PNG of type $type";
	my $raw = Compress::Zlib::uncompress($data);
	my @above = (0) x ($width * $bytes);
	my %colours;
	my $first;
	foreach my $y (0 .. $height - 1)
	{
		my ($filter, @row) = unpack 'C*', substr($raw, $y * ($width * $bytes + 1), $width * $bytes + 1);
		foreach my $i (0 .. $#row)
		{
			last if $filter == 0;
			my $left = $i >= $bytes ? $row[ $i - $bytes ] : 0;
			my $up = $above[$i];
			if ($filter == 1) { $row[$i] += $left }
			elsif ($filter == 2) { $row[$i] += $up }
			elsif ($filter == 3) { $row[$i] += int(($left + $up) / 2) }
			else
			{
				my $corner = $i >= $bytes ? $above[ $i - $bytes ] : 0;
				my ($a, $b, $c) = (abs($up - $corner), abs($left - $corner), abs($left + $up - 2 * $corner));
				$row[$i] += $a <= $b && $a <= $c ? $left : $b <= $c ? $up : $corner;
			}
			$row[$i] &= 255;
		}
		for (my $i = 0; $i < @row; $i += $bytes)
		{
			my $colour = join ',', @row[ $i .. $i + 2 ];
			$first //= $colour;
			$colours{$colour}++;
		}
		@above = @row;
	}
	return { width => $width, height => $height, colours => scalar keys %colours, first => $first };
}

1;
