# Reports as HTML in a browser: with nothing, little and much in them, at the
# width of a phone and of a desk, light and dark; one file that asks for nothing.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Cwd ();
use Chromium qw(page_facts screenshot read_png);
use PostgreSQL::Test::Utils;
use Test::More;

my $green = new_green();
my $dir = Cwd::abs_path($green->basedir) . '/pages';
mkdir $dir or die;

sub on_green { return $green->safe_psql('postgres', $_[0]) }

# an odd name has all that is special in HTML, in an attribute, in a script and in a style
my $odd = q{<script>alert(1)</script>&amp;"'</style>]]>};
(my $sql_odd = $odd) =~ s/'/''/g;
my %escaped = ('<' => '&lt;', '>' => '&gt;', '&' => '&amp;', '"' => '&quot;', q{'} => '&#39;');
(my $html_odd = $odd) =~ s/([<>&"'])/$escaped{$1}/g;

sub page
{
	my ($name, $call) = @_;
	my $html = on_green("SELECT $call");

	unlink "$dir/$name.html";
	append_to_file("$dir/$name.html", $html);
	command_ok([ 'xmllint', '--noout', '--nonet', "$dir/$name.html" ], "$name: well-formed");
	unlike($html, qr{(?:src|href|action|data|poster)\s*=|url\s*\(|\@import|<(?:script|link|img|iframe|object|embed|base|form)\b}i, "$name: asks for nothing from elsewhere");
	is(join(' ', grep { $_ ne 'http://www.w3.org/2000/svg' } $html =~ m{\w+://[^"'\s<]*}g), '', "$name: no URL but the name space of SVG");
	return $html;
}

# facts of a page, at a width
sub good
{
	my ($name, $width, $dark, @svgs) = @_;
	my $facts = page_facts($dir, $name, $width, $dark);
	my $kind = "$name, $width wide, " . ($dark ? 'dark' : 'light');

	like($facts, qr/^width $width of $width$/m, "$kind: nothing sticks out") or diag($facts);
	like($facts, $dark ? qr/^background rgb\(1\d, 2\d, 29\)$/m : qr/^background rgb\(255, 255, 255\)$/m, "$kind: its background");
	is(join("\n", $facts =~ /^svg .*$/mg), join("\n", map { "svg $_: drawn, texts outside 0, readable" } @svgs), "$kind: plots are drawn");
	like($facts, qr/^resources 0$/m, "$kind: loads nothing");

	my $png = read_png(screenshot($dir, $name, "$name-$width-" . ($dark ? 'dark' : 'light'), $width, 700, $dark));
	is("$png->{width} x $png->{height}", "$width x 700", "$kind: a picture of that size");
	cmp_ok($png->{colours}, '>', 20, "$kind: with something on it");
	is($png->{first}, $dark ? '18,23,29' : '255,255,255', "$kind: in its colours");
}

sub both { my ($name, @svgs) = @_; good($name, @$_, @svgs) foreach [ 390, 0 ], [ 390, 1 ], [ 1200, 0 ], [ 1200, 1 ] }

# --- nothing ---
like(page('empty', q{bcmig_migration_report(format => 'html')}), qr{<div class="verdict warn">UNKNOWN</div>}, 'nothing there: unknown, not go');
good('empty', 390, 0);
page('empty_sync', q{bcmig_sync_report(format => 'html')});

# --- little: one sync, three tables, ten minutes ---
sub sync
{
	my ($name, $tables, $minutes) = @_;
	on_green(qq{
		INSERT INTO bcmig.environment (name, side, server, owner) VALUES ('of $name', 'blue', 'none', current_user::regrole);
		INSERT INTO bcmig.sync (name, environment_id, owner) SELECT '$name', max(environment_id), current_user::regrole FROM bcmig.environment;
		INSERT INTO bcmig.sync_state (sync_id, state) SELECT max(sync_id), 'streaming' FROM bcmig.sync;
		INSERT INTO bcmig.traffic (sync_id, green_percent) SELECT max(sync_id), 50 FROM bcmig.sync;
		INSERT INTO bcmig.sync_table (sync_id, source_schema, source_table, target_schema, target_table, feed, capture, made_target)
			SELECT max(sync_id), 'dbo', '$name ' || i, 'bc', '$name table ' || i, 'feed', 'change_tracking', true FROM bcmig.sync, generate_series(1, $tables) i GROUP BY i;
		INSERT INTO bcmig.table_state (table_id, state, rows_total, rows_copied, bytes_copied, copy_started, copy_finished, position)
			SELECT table_id, 'streaming', n * 1000, n * 1000, (n * n * n + 1) * 12345::bigint, now() - interval '9 h' + n * interval '1 s', now() - interval '8 h' + n * interval '2 s', 1
			FROM (SELECT table_id, row_number() OVER (ORDER BY table_id) AS n FROM bcmig.sync_table WHERE sync_id = (SELECT max(sync_id) FROM bcmig.sync)) x;
		INSERT INTO bcmig.metric (sync_id, minute, seconds, samples, unknown, copying, lag_avg_ms, lag_max_ms, rows_written, rows_deleted, rows_failed, bytes_copied, errors, workers, blue_answer_ms, tables, tables_streaming, quarantined, conflicts)
			SELECT (SELECT max(sync_id) FROM bcmig.sync), now() - make_interval(mins => $minutes - i), 60, CASE WHEN i % 50 = 7 THEN 0 ELSE 300 END, 0, 0,
				CASE WHEN i % 50 = 7 THEN NULL ELSE 40 + 30 * sin(i / 40.0) END, CASE WHEN i % 50 = 7 THEN NULL ELSE 90 + 60 * sin(i / 40.0) + CASE WHEN i % 97 = 3 THEN 20000 ELSE 0 END END,
				1000 + i % 700, i % 13, 0, 100000, 0, 1.5, 3, $tables, $tables, 0, 0 FROM generate_series(1, $minutes) i;
		INSERT INTO bcmig.traffic_event (sync_name, event, from_percent, to_percent, at) SELECT '$name', 'changed', p - 10, p, now() - make_interval(mins => $minutes * (60 - p) / 70) FROM generate_series(10, 50, 10) p;
		INSERT INTO bcmig.validation_run (sync_id, mode, state, verdict, started_at, finished_at) SELECT max(sync_id), 'full', 'finished', 'ok', now() - interval '3 h', now() - interval '2 h' FROM bcmig.sync;
		INSERT INTO bcmig.validation_result (run_id, table_id, done, mode, chunks, rows_blue, rows_green, verdict, started_at, finished_at, lanes_blue, lanes_green)
			SELECT (SELECT max(run_id) FROM bcmig.validation_run), table_id, true, 'full', 10, rows_copied, rows_copied, 'ok', now() - interval '3 h', now() - interval '2 h', '{1,2,3,4}', '{1,2,3,4}'
			FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE sync_id = (SELECT max(sync_id) FROM bcmig.sync)});
}
sync($sql_odd, 3, 10);
my @plots = ('Rows over time', 'Lag and weight', 'Phases over time', 'Biggest tables');
my $html = page('little', q{bcmig_migration_report(format => 'html')});
like($html, qr/\Q$html_odd\E/, 'names are escaped');
unlike($html, qr/\Q$odd\E/, 'and nowhere as they are');
both('little', @plots);
unlike(page('sync', q{bcmig_sync_report(format => 'html')}), qr/\Q$odd\E/, 'the report of a sync too');
good('sync', 390, 1, @plots[ 0, 1 ]);
page('health', qq{bcmig_health_report('$sql_odd', 'html')});
unlike(page('rollback', qq{bcmig_rollback_report('$sql_odd', 'html')}), qr/\Q$odd\E/, 'of a rollback too');

# --- much: 2,000 tables, a month of minutes, an execution of many phases ---
sync("company $_", 700, 43200) foreach 1 .. 3;
on_green(qq{
	INSERT INTO bcmig.execution (plan_name, owner, syncs, options, state, started_at, ended_at) SELECT 'big $sql_odd', current_user::regrole, array_agg(name), '{}', 'done', now() - interval '40 d', now() FROM bcmig.sync;
	INSERT INTO bcmig.phase_run (execution_id, position, sync, name, type, action, arguments, depends_on, timeout, retries, backoff, state, started_at, ended_at, error)
		SELECT max(execution_id), i, CASE WHEN i % 2 = 0 THEN 'company 1' ELSE '' END, 'phase number ' || i || CASE i WHEN 7 THEN '$sql_odd' ELSE '' END, 'data', 'sql', '{}', '{}', '1 h', 0, '1 s',
			CASE i WHEN 9 THEN 'failed' WHEN 60 THEN 'pending' ELSE 'done' END, CASE WHEN i < 60 THEN now() - interval '40 d' + i * interval '12 h' END, CASE WHEN i < 60 THEN now() - interval '40 d' + i * interval '15 h' END,
			CASE i WHEN 9 THEN '$sql_odd' END
		FROM bcmig.execution, generate_series(1, 60) i GROUP BY i});
$html = page('much', q{bcmig_migration_report((SELECT max(execution_id) FROM bcmig.execution), 'html')});
unlike($html, qr/\Q$odd\E/, 'much: names are escaped');
is(scalar(() = $html =~ /<td>bc\.&quot;company/g), 2100, 'all tables are in it');
cmp_ok(length $html, '<', 3_000_000, 'and it can still be sent');
good('much', @$_, @plots) foreach [ 390, 1 ], [ 1200, 0 ];

done_testing();
