# What names a version says the same, and META.json is as PGXN wants it.
use strict;
use warnings;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $top = $ENV{BCMIG_SOURCE} // '.';

sub file
{
	return slurp_file("$top/$_[0]");
}

my ($version) = file('bcmig.control') =~ /^default_version = '([^']+)'/m;
ok(-s "$top/bcmig--$version.sql", "the script of version $version is there");
like(file('CHANGELOG.md'), qr/^## \Q$version\E /m, 'the changelog has it');
like(file('debian/changelog'), qr/\Abcmig \(\Q$version\E-\d+\) /, 'Debian packages are of it');
like(file('docs/versions.md'), qr/^\| 15 \|/m, 'and there is a table of versions of PostgreSQL');

my $meta = eval { JSON::PP->new->decode(file('META.json')) };
is($@, '', 'META.json is JSON');

# what the PGXN Meta Spec 1.0.0 requires
foreach my $key (qw(name abstract maintainer license version provides meta-spec))
{
	ok(defined $meta->{$key}, "META.json has $key");
}
my $semver = qr/^(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$/;
like($meta->{version}, $semver, 'a semantic version');
is($meta->{version}, "$version.0", 'which is that of the extension');
is($meta->{'meta-spec'}{version}, '1.0.0', 'the spec it keeps to');
like($meta->{name}, qr/^[^\s\/\\]{2,}$/, 'a name without spaces and slashes');
ok((grep { $_ eq $meta->{license} } qw(agpl_3 apache_1_1 apache_2_0 artistic_1 artistic_2 bsd freebsd gfdl_1_2 gfdl_1_3 gpl_1 gpl_2 gpl_3
	lgpl_2_1 lgpl_3_0 mit mozilla_1_0 mozilla_1_1 openssl perl_5 postgresql qpl_1_0 ssleay sun zlib open_source restricted unrestricted unknown)), 'a license it knows');
ok((grep { $_ eq $meta->{release_status} } qw(stable testing unstable)), 'a status it knows');
is(join(',', keys %{ $meta->{provides} }), 'bcmig', 'it provides the extension');
my $provided = $meta->{provides}{bcmig};
like($provided->{version}, $semver, 'of a semantic version');
is($provided->{file}, "bcmig--$version.sql", 'from its script');
ok(-s "$top/$provided->{$_}", "$_ is there") foreach qw(file docfile);
foreach my $phase (keys %{ $meta->{prereqs} })
{
	ok((grep { $_ eq $phase } qw(configure build runtime test develop)), "phase $phase");
	foreach my $kind (keys %{ $meta->{prereqs}{$phase} })
	{
		ok((grep { $_ eq $kind } qw(requires recommends suggests conflicts)), "relation $kind");
		like($_, qr/^(0|(>=|<=|==|!=|>|<)?\s*\d+\.\d+\.\d+)$/, 'a range of versions') foreach values %{ $meta->{prereqs}{$phase}{$kind} };
	}
}
is(ref $meta->{tags}, 'ARRAY', 'tags are a list');

# what a package installs
foreach my $name (split ' ', (file('debian/rules') =~ /dh_installdocs --all (.*)/)[0])
{
	ok(-e "$top/$name", "debian/rules installs $name");
}

done_testing();
