# The reference made from a fresh install (docs/reference.sql), and the pages of
# docs/ against it: nothing without its word, and no word of a thing there is not.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;

my $source = $ENV{BCMIG_SOURCE} // '.';
my $green = new_green();
sub lines { return split /\n/, $green->safe_psql('postgres', $_[0]) }
sub none { my ($what, @bad) = @_; is(join("\n", @bad), '', $what) }
sub file { return PostgreSQL::Test::Utils::slurp_file("$source/$_[0]") }

# --- the page ---
sub make_page { return PostgreSQL::Test::Utils::run_command([ 'bash', '-c', 'cd "$1" && psql -XAtq -d "$2" -f docs/reference.sql', '-', $source, $green->connstr('postgres') ]) }
my ($page, $err) = make_page();
is($err, '', 'nothing is said against it');
ok(length($page) > 50_000, 'the reference is made');
ok($page eq (make_page())[0], 'and is the same the next time');
my $data = $green->data_dir;
none('there is nothing of this machine or version in it', grep { /\Q$data\E|PostgreSQL 1\d\.\d|20[2-9]\d-\d\d-\d\d/ } split /\n/, $page);
# a column of a table may have for it the values it is held to, or the table it refers to
{
	my ($heading, @empty) = ('');
	foreach (split /\n/, $page)
	{
		$heading = $1 if /^#+ (.*)/;
		push @empty, "$heading: $_" if /^\| `.*\|\s*\|$/;
	}
	none('every row of the page says something', @empty);
}

# --- what there is ---
my $members = q{SELECT objid FROM pg_depend WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
	AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bcmig') AND classid = };
my (%function, %argument, %relation, %option, %setting);
foreach (lines(qq{SELECT CASE n.nspname WHEN 'bcmig' THEN 'bcmig.' ELSE '' END || proname || ' ' || coalesce(array_to_string(proargnames, ' '), '')
	FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE p.oid IN ($members 'pg_proc'::regclass)}))
{
	my ($name, @arguments) = split / /;
	$function{$name} = 1;
	$argument{$name}{$_} = 1 foreach @arguments;
}
$relation{$_->[0]}{$_->[1]} = 1 foreach map { [ split / / ] } lines(qq{SELECT relname || ' ' || attname FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
	WHERE relkind IN ('r', 'v') AND attnum > 0 AND c.oid IN ($members 'pg_class'::regclass)});
foreach (lines(q{SELECT name || ' ' || array_to_string(scope, ' ') FROM bcmig.option}))
{
	my ($name, @scope) = split / /;
	$option{$name} = { map { $_ => 1 } @scope };
}
$setting{$_} = 1 foreach lines(q{SELECT name FROM pg_settings WHERE name LIKE 'bcmig.%'});
cmp_ok(scalar(keys %$_), '>', 5, 'they are found') foreach \%function, \%relation, \%option, \%setting;

none('all of them are in the reference', grep {
		my $n = quotemeta; $page !~ /^### $n$/m && $page !~ /^\| `$n` \|/m
	} sort(keys %function, keys %option, keys %setting), map { "bcmig.$_" } sort keys %relation);

# --- with a word about it ---
none('every function, view, table and foreign data wrapper has a comment',
	lines(qq{SELECT pg_describe_object(classid, objid, 0) FROM pg_depend d WHERE deptype = 'e' AND refclassid = 'pg_extension'::regclass
		AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bcmig')
		AND (classid IN ('pg_proc'::regclass, 'pg_foreign_data_wrapper'::regclass)
			OR classid = 'pg_class'::regclass AND (SELECT relkind IN ('r', 'v') FROM pg_class c WHERE c.oid = objid))
		AND NOT EXISTS (SELECT FROM pg_description e WHERE e.classoid = classid AND e.objoid = objid AND e.objsubid = 0) ORDER BY 1}));
none('every column of a view has one',
	lines(qq{SELECT format('bcmig.%s.%s', relname, attname) FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid
		WHERE relkind = 'v' AND attnum > 0 AND c.oid IN ($members 'pg_class'::regclass) AND col_description(c.oid, attnum) IS NULL ORDER BY 1}));
none('the comment of a function begins with its class',
	lines(qq{SELECT oid::regprocedure || ': ' || obj_description(oid, 'pg_proc') FROM pg_proc WHERE oid IN ($members 'pg_proc'::regclass)
		AND coalesce(obj_description(oid, 'pg_proc'), '') !~ '^(configuration|request|wait|report|engine): .*\\.' ORDER BY 1}));
none('every option and setting says what it is for',
	lines(q{SELECT name FROM bcmig.option WHERE meaning !~ '\w{2}.*\.$' UNION ALL SELECT name FROM pg_settings WHERE name LIKE 'bcmig.%' AND coalesce(short_desc, '') !~ '\w'}));

# --- error codes and alerts: two lists of each ---
my %code = file('src/errors.h') =~ /#define ERRCODE_BM_(\w+)\s+BCMIG_ERRCODE\('(.', '.', '.)'\)/g;
my @in_source = sort map { 'BM' . ($code{$_} =~ s/', '//gr) . ' ' . lc } keys %code;
my @told = sort map { "$_->[0] $_->[1]" } grep { $_->[2] =~ /\w/ } map { [ /^\| (BM\w+) \| (\w+) \| (.*) \|$/ ] } grep { /^\| BM/ } split /\n/, file('docs/errors.md');
ok(@in_source > 20, 'there are error codes');
is_deeply(\@told, \@in_source, 'docs/errors.md has the codes of src/errors.h');
my @raised = sort { $a cmp $b } (lines(q{SELECT DISTINCT m[1] FROM regexp_matches(pg_get_viewdef('bcmig.alert_condition'), 'SELECT ''([a-z_]+)''::text', 'g') r(m)}),
	file('src/sync/alert.c') =~ /SELECT '([a-z_]+)', NULL, NULL, '(?:warning|critical)'/g);
is_deeply([ sort map { /^\| `(\w+)` \| (?:warning|critical)/ ? $1 : () } split /\n/, file('docs/events.md') ], \@raised, 'docs/events.md has the alerts there are');

# ---------------------------------------------------------------------------
# Names in texts
# ---------------------------------------------------------------------------
my (%on_blue, %extra);
foreach my $script (glob "$source/blue/*.sql")
{
	$on_blue{$_} = 1 foreach PostgreSQL::Test::Utils::slurp_file($script) =~ /CREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE|TABLE(?: IF NOT EXISTS)?|VIEW|SEQUENCE(?: IF NOT EXISTS)?) bcmig_blue\.(\w+)/g;
}
cmp_ok(scalar(keys %on_blue), '>', 5, 'names on blue are found');
# schema on blue, the role the pages use, channels of NOTIFY, the wrapper, schemas a rollback makes
$extra{$_} = 1 foreach qw(bcmig_blue bcmig_reader bcmig_traffic bcmig_events bcmig_http bcmig_preserved_N);
# options of the wrapper's balancers and of postgres_fdw
my %of_others = map { $_ => 1 } qw(server set get path batch_size password steps waves);
# metrics of the exporter
my $query;
foreach (split /\n/, file('monitoring/queries.yaml'))
{
	$query = $1 if /^(bcmig_\w+):/;
	$extra{"${query}_$1"} = 1 if /^    - (\w+):/;
}

sub unknown_names
{
	my ($text) = @_;
	my @bad;

	# files are no names of ours
	$text =~ s{[\w./-]*/[\w./-]+}{}g;
	push @bad, grep { !$function{$_} && !$extra{$_} && !/_$/ } $text =~ /(?<![\w.])(bcmig_\w+)/g;
	foreach ($text =~ /(?<![\w.])bcmig\.(\w+(?:\.\w+)?)/g)
	{
		my ($name, $column) = split /\./;
		next if defined $column ? $relation{$name}{$column} : $relation{$name} || $function{"bcmig.$name"} || $setting{"bcmig.$name"};
		push @bad, "bcmig.$_" unless $name =~ /^(?:control|so|md|psqlrc|c|h)$/;
	}
	push @bad, map { "bcmig_blue.$_" } grep { !$on_blue{$_} && !/^c_/ } $text =~ /bcmig_blue\.(\w+)/g;
	# a relation of ours without its schema, and its column
	foreach ($text =~ /(?<![\w.])(\w+\.\w+)(?![\w.(])/g)
	{
		my ($name, $column) = split /\./;
		push @bad, $_ if $relation{$name} && $name =~ /_/ && !$relation{$name}{$column} && $column !~ /^(?:sql|out|md|pl)$/;
	}
	push @bad, map { "option $_" } grep { !$option{$_} && !$of_others{$_} } $text =~ /\boptions? `([a-z_]+)`/g, $text =~ /\(options? ([a-z_]+)\)/g, grep { /_/ } $text =~ /\boptions? ([a-z_]+)/g;
	return @bad;
}

my @comments = lines(q{SELECT DISTINCT replace(coalesce(pg_describe_object(d.classoid, d.objoid, d.objsubid), '?') || E'\t' || d.description, E'\n', ' ') FROM pg_description d
	JOIN pg_depend e ON e.classid = d.classoid AND e.objid = d.objoid AND e.deptype = 'e' AND e.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bcmig')
	UNION ALL SELECT 'option ' || name || E'\t' || meaning FROM bcmig.option
	UNION ALL SELECT name || E'\t' || concat_ws(' ', short_desc, extra_desc) FROM pg_settings WHERE name LIKE 'bcmig.%'});
cmp_ok(scalar(@comments), '>', 300, 'comments are found');
none('comments name nothing there is not', map { my ($what, $text) = split /\t/; map { "$what: $_" } unknown_names($text) } @comments);

# ---------------------------------------------------------------------------
# Pages
# ---------------------------------------------------------------------------
my %scope = (
	bcmig_create_sync => 'sync', bcmig_alter_sync => 'sync', bcmig_add_table => 'table', bcmig_alter_table => 'table',
	bcmig_add_company => 'company', bcmig_add_shared => 'company', bcmig_add_environment => 'environment', bcmig_alter_environment => 'environment',
	bcmig_switch_traffic => 'switch', bcmig_rollback => 'rollback');
# keys that are no options, of calls that take options too
my %key = (bcmig_create_plan => { map { $_ => 1 } qw(steps waves) });

# calls of functions with all between their parentheses
sub calls
{
	my ($text) = @_;
	my @calls;

	while ($text =~ /(?<![\w.])(bcmig[._]\w+)(\((?:[^()']|'(?:[^']|'')*'|(?2))*\))/g) { push @calls, [ $1, $2 ]; }
	return @calls;
}

sub bad_calls
{
	my ($text) = @_;
	my @bad;

	foreach (calls($text))
	{
		my ($name, $arguments) = @$_;
		push @bad, map { "$name(... $_ => )" } grep { $argument{$name} && !$argument{$name}{$_} } $arguments =~ s/'(?:[^']|'')*'//gr =~ /(\w+)\s*=>/g;
		next unless $scope{$name} || $name eq 'bcmig_create_plan';
		foreach my $json ($arguments =~ /'(\{(?:[^']|'')*\})'/g)
		{
			next if $json !~ /"/;
			my $value = eval { decode_json($json =~ s/''/'/gr) };
			my @keys = $value ? keys %$value : $json =~ /"(\w+)"\s*:/g;
			push @bad, "$name: no JSON: $json" if !$value && $json !~ /\.\.\./;
			push @bad, map { "$name: option $_" } grep { $scope{$name} ? !$option{$_}{$scope{$name}} : !$option{$_} && !$key{$name}{$_} } sort @keys;
		}
	}
	return @bad;
}

foreach my $path ('README.md', map { "docs/$_" } sort grep { $_ ne 'reference.md' } map { s{.*/}{}r } glob "$source/docs/*.md")
{
	my $text = file($path);
	my @bad = (unknown_names($text), bad_calls($text));
	my ($in_options) = (0);

	# tables of options
	foreach (split /\n/, $text)
	{
		$in_options = /^\| (?:option|`?option`?s?)\s*\|/ if /^\|/ && !$in_options;
		$in_options = 0 unless /^\|/;
		push @bad, map { "a table of options: $_" } grep { !$option{$_} && !$of_others{$_} } (/^\|([^|]*)\|/)[0] =~ /`(\w+)`/g if $in_options;
	}
	# links to other pages and to headings
	foreach ($text =~ /\]\(([^)\s]+)\)/g)
	{
		my ($to, $heading) = split /#/;
		next if /^https?:/;
		$to = $to eq '' ? $path : $path =~ m{^docs/} ? "docs/$to" : $to;
		1 while $to =~ s{[^/]+/\.\./}{};
		if (!-e "$source/$to") { push @bad, "link to $_" unless $to eq 'docs/reference.md'; next }
		next unless defined $heading;
		my %there = map { (lc(s/[`*]//gr) =~ s/[^\w\- ]//gr =~ s/ /-/gr) => 1 } file($to) =~ /^#+ (.*)$/mg;
		push @bad, "link to $_" unless $there{$heading};
	}
	my %seen;
	none("$path names what there is", grep { !$seen{$_}++ } @bad);
}
done_testing();
