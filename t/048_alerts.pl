# Alerts: each is raised once and cleared once, over restarts too; the ladder to
# its end; and the events listeners of bcmig_events get.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use JSON::PP;
use Test::More;

my $blue = new_blue();
my $green = new_green();

sub green { return $green->safe_psql('postgres', $_[0]) }

$blue->safe_psql('postgres', q{
	CREATE TABLE a (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO a SELECT i, 'x', 0 FROM generate_series(1, 400) i;
	CREATE TABLE b (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO b SELECT i, 'x', 0 FROM generate_series(1, 400) i;});
track($blue, $_) foreach qw(a b);

# a session that listens; events so far as a list of hashes
my ($listener, @events);
sub listen_again
{
	$listener = $green->background_psql('postgres', on_error_die => 1);
	$listener->set_query_timer_restart(1);	# a bound for each question, not for the session
	$listener->query_safe('LISTEN bcmig_events');
}
sub events
{
	my $out = $listener->query('SELECT 1');
	my @new;
	while ($out =~ /Asynchronous notification "bcmig_events" with payload "(.*)" received from server process/g)
	{
		my $payload = $1;
		my $event = eval { JSON::PP->new->utf8->decode($payload) };
		ok(0, "not JSON: $payload") unless defined $event;
		cmp_ok(length($payload), '<', 8000, 'too long') if length($payload) >= 8000;
		push @new, $event;
	}
	push @events, @new;
	return @new;
}
sub wait_event
{
	my ($what, $test) = @_;
	foreach my $try (1 .. 300)
	{
		events();
		my @found = grep { $test->($_) } @events;
		return $found[0] if @found;
		select(undef, undef, undef, 0.1);
	}
	ok(0, "no event: $what");
	return {};
}

# waits until an alert is open (or gone), and says how often it ever was raised
sub alert
{
	my ($name, $target, $is_open, $what) = @_;
	my $where = "name = '$name' AND target IS NOT DISTINCT FROM " . (defined $target ? "'$target'" : 'NULL');
	ok($green->poll_query_until('postgres', "SELECT count(*) = $is_open FROM bcmig.alert WHERE $where AND cleared_at IS NULL AND sync IS NOT DISTINCT FROM (SELECT CASE WHEN '$name' NOT IN ('workers_missing', 'audit_damaged') THEN 's' END)"), $what);
	return green("SELECT string_agg(event, ' ' ORDER BY audit_id) FROM bcmig.audit_log WHERE kind = 'alert' AND event ~ '^$name ' AND target IS NOT DISTINCT FROM " . (defined $target ? "'$target'" : 'NULL'));
}
sub once
{
	my ($name, $target) = @_;
	is(alert($name, $target, 0, "$name is cleared"), "$name raised $name cleared", "$name: raised once, cleared once");
}

listen_again();
connect_blue($green, $blue, 's', '{"max_latency": "1h"}');	# no alert of lag but the one asked for
green("SELECT bcmig_add_table('s', '$_')") foreach qw(a b);
start_sync($green, 's');
wait_sync($green, 's');
my $event = wait_event('the sync streams', sub { $_[0]{event} eq 'streaming' && !exists $_[0]{target} });
is("$event->{kind} $event->{sync}", 'state s', 'a sync in another state is an event');
like($event->{at}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/, 'with its time');
is(green("SELECT event FROM bcmig.audit_log WHERE audit_id = $event->{audit_id}"), 'streaming', 'and the row it speaks of');
foreach my $table (qw(a b))
{
	wait_event("table $table", sub { $_[0]{event} eq 'streaming' && ($_[0]{target} // '') eq "public.$table" });
}
is(scalar(grep { $_->{kind} eq 'command' } @events), 0, 'commands are no events');
green(q{BEGIN; INSERT INTO bcmig.audit_log (kind, event, sync_name) VALUES ('state', 'never', 's'); INSERT INTO bcmig.audit_pending SELECT max(audit_id) FROM bcmig.audit_log; ROLLBACK});

# ---------------------------------------------------------------------------
# Rows refused: quarantine, then the whole ladder
# ---------------------------------------------------------------------------
green_behind($green, q{ALTER TABLE a ADD CONSTRAINT c CHECK (v <> 'bad')});
$blue->safe_psql('postgres', q{UPDATE a SET v = 'bad' WHERE id = 1});
alert('quarantine', 'public.a', 1, 'a refused row raises an alert');
like(green(q{SELECT value || ' ' || detail || fix FROM bcmig.alert WHERE name = 'quarantine'}), qr/^1 .*check constraint.*SELECT bcmig_retry_quarantine\('s'\)/, 'with what and how to go on');
$event = wait_event('quarantine', sub { $_[0]{event} eq 'quarantine raised' });
is("$event->{kind} $event->{sync} $event->{target}", 'alert s public.a', 'and an event');
is(scalar(grep { $_->{event} eq 'never' } @events), 0, 'what was rolled back is no event');

# the error rate: half before a crash of green, half after it
green_behind($green, q{ALTER TABLE b ADD CONSTRAINT c CHECK (v <> 'bad')});
$blue->safe_psql('postgres', q{UPDATE b SET v = CASE WHEN id <= 3 THEN 'bad' ELSE 'good' END WHERE id <= 90});
wait_sync($green, 's');
is(state_of($green, 'public.b'), 'streaming', 'three of ninety rows: too few to count');
$listener->quit;
$green->stop('immediate');
$green->start;
listen_again();
wait_sync($green, 's');
$blue->safe_psql('postgres', q{UPDATE b SET v = 'bad' WHERE id BETWEEN 91 AND 100});
ok(wait_state($green, 'public.b', 'suspended'), 'thirteen of a hundred: suspended, over a crash');
like(green(q{SELECT reason FROM bcmig.table_status WHERE target = 'public.b'}), qr/^13 of 100 rows failed within five minutes/, 'the window goes on over the crash');
alert('table_suspended', 'public.b', 1, 'and an alert');
alert('lag_unknown', undef, 1, 'nothing is proved: an alert after three looks');
green(q{SELECT bcmig_suspend_table('s', 'a')});
alert('sync_failed', undef, 1, 'no table streams: the sync has failed');
is(green(q{SELECT state FROM bcmig.sync_status}), 'failed', 'its state says so');
$green->restart;
listen_again();
alert('sync_failed', undef, 1, 'still after a restart');
green_behind($green, q{ALTER TABLE b DROP CONSTRAINT c; SELECT bcmig_resume_table('s', 'a')});
ok($green->poll_query_until('postgres', q{SELECT state = 'streaming' FROM bcmig.sync_status}), 'one table is enough to come back');
once('sync_failed');
green(q{SELECT bcmig_resume_table('s', 'b')});
wait_sync($green, 's');
green(q{SELECT bcmig_retry_quarantine('s')});
once('table_suspended', $_) foreach qw(public.a public.b);
# also unknown for a moment after the restarts
like(alert('lag_unknown', undef, 0, 'lag_unknown is cleared'), qr/^(?:lag_unknown raised lag_unknown cleared ?)+$/, 'lag_unknown: raised and cleared in turn');
once('quarantine', 'public.b');

# max_errors: the window stops there, the position before it; nothing is lost
green_behind($green, q{SELECT bcmig_alter_table('s', 'b', '{"max_errors": 20, "batch_rows": 50}'); ALTER TABLE b ADD CONSTRAINT c CHECK (v <> 'evil')});
my $position = green(q{SELECT position FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'b'});
my $audited = green(q{SELECT count(*) FROM bcmig.audit_log});
$blue->safe_psql('postgres', q{INSERT INTO b SELECT i, 'evil', 0 FROM generate_series(1001, 11000) i; UPDATE b SET v = 'late' WHERE id = 200});
ok(wait_state($green, 'public.b', 'suspended'), 'ten thousand rows are refused');
like(green(q{SELECT reason FROM bcmig.table_status WHERE target = 'public.b'}), qr/refused 20 rows, max_errors is 20.*23514/, 'it stops at max_errors and says why');
is(green(q{SELECT count(*) FROM bcmig.quarantine JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'b'}), '20', 'so many are written down, not ten thousand');
cmp_ok(green(q{SELECT count(*) FROM bcmig.audit_log}) - $audited, '<', 10, 'and hardly a row in the audit log');
is(green(q{SELECT status || rows_quarantined FROM bcmig.sync_batch ORDER BY batch_id DESC LIMIT 1}), 'Failed20', 'the batch is on record as failed');
green_behind($green, q{ALTER TABLE b DROP CONSTRAINT c; SELECT bcmig_resume_table('s', 'b')});
wait_sync($green, 's');
is(compare_table($blue, $green, 'b'), '', 'resumed, it reads again what was left alone');
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.quarantine JOIN bcmig.sync_table USING (table_id) WHERE target_table = 'b'}), 'and its entries are settled');

# on_error suspend: the first row
green_behind($green, q{SELECT bcmig_alter_table('s', 'b', '{"max_errors": null, "on_error": "suspend"}'); ALTER TABLE b ADD CONSTRAINT c CHECK (v <> 'sin')});
$blue->safe_psql('postgres', q{BEGIN; UPDATE b SET v = 'sin' WHERE id = 7; UPDATE b SET v = 'fine' WHERE id = 8; COMMIT});
ok(wait_state($green, 'public.b', 'suspended'), 'on_error suspend: the first refused row suspends the table');
like(green(q{SELECT reason FROM bcmig.table_status WHERE target = 'public.b'}), qr/on_error is suspend.*23514/, 'and the reason says so');
$blue->safe_psql('postgres', q{UPDATE b SET v = 'mended' WHERE id = 7});
green(q{SELECT bcmig_resume_table('s', 'b')});
wait_sync($green, 's');
is(compare_table($blue, $green, 'b'), '', 'mended on blue and resumed: equal');
green_behind($green, q{ALTER TABLE a DROP CONSTRAINT c; SELECT bcmig_retry_quarantine('s')});
once('quarantine', 'public.a');

# a job that fails again and again is written down once
green_behind($green, q{CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'the disk is on fire' USING ERRCODE = '58030'; END$$;
	CREATE TRIGGER broken BEFORE UPDATE ON a FOR EACH ROW EXECUTE FUNCTION broken(); ALTER TABLE a ENABLE ALWAYS TRIGGER broken});
$blue->safe_psql('postgres', q{UPDATE a SET v = 'y' WHERE id = 3});
ok(wait_state($green, 'public.a', 'suspended'), 'a job that fails max_retries times suspends its table');
alert('table_suspended', 'public.a', 1, 'and the alert is there before it is resumed');
is(green(q{SELECT count(*) FROM bcmig.sync_batch WHERE error ~ 'on fire'}), '4', 'after four attempts');
is(green(q{SELECT count(*) FROM bcmig.timeline WHERE kind = 'error' AND detail ~ 'on fire'}), '1', 'which are one row of the audit log');
green_behind($green, q{DROP FUNCTION broken CASCADE; SELECT bcmig_resume_table('s', 'a')});
wait_sync($green, 's');
is(alert('table_suspended', 'public.a', 0, 'table_suspended is cleared'), join(' ', ('table_suspended raised', 'table_suspended cleared') x 2), 'suspended a second time: an alert of its own');

# conflicts that wait (how they come to be: t/ of conflicts)
green(q{INSERT INTO bcmig.conflict (sync_id, table_id, key, blue_operation, green_operation, policy, journal_ids)
	SELECT sync_id, table_id, '["1"]', 'update', 'update', 'manual', '{1}' FROM bcmig.sync_table WHERE target_table = 'a'});
alert('conflict', 'public.a', 1, 'a conflict that waits');
green(q{UPDATE bcmig.conflict SET decision = 'source', decided_at = now(), decided_by = 'me'});
once('conflict', 'public.a');

# ---------------------------------------------------------------------------
# Blue: behind, away
# ---------------------------------------------------------------------------
my $open = $blue->background_psql('postgres', on_error_die => 1);
$open->query_safe(q{BEGIN; UPDATE a SET v = 'open' WHERE id = 5});
green(q{SELECT bcmig_alter_sync('s', '{"max_latency": "300ms"}')});
$blue->safe_psql('postgres', q{UPDATE b SET v = 'above it' WHERE id = 5});
alert('lag', undef, 1, 'a transaction left open on blue: green is behind');
is(green(q{SELECT value::interval > bound::interval, bound FROM bcmig.alert WHERE name = 'lag'}), 't|00:00:00.3', 'by more than max_latency');
$open->query_safe('COMMIT');
$open->quit;
once('lag');
green(q{SELECT bcmig_alter_sync('s', '{"max_latency": "1h"}')});
$blue->stop('immediate');
alert('blue_unreachable', undef, 1, 'blue is away');
$blue->start;
once('blue_unreachable');
wait_sync($green, 's');

# ---------------------------------------------------------------------------
# Proof
# ---------------------------------------------------------------------------
green_behind($green, q{UPDATE a SET v = 'wrong' WHERE id = 9});
my $run = green(q{SELECT bcmig_validate('s', mode => 'full')});
alert('validation', undef, 1, 'a validation that found a difference');
$event = wait_event('verdict', sub { $_[0]{kind} eq 'validation' });
is("$event->{event} $event->{sync} $event->{detail}", "different s run $run, full", 'its verdict is an event');
green("SELECT count(*) FROM bcmig_repair($run)");
ok($green->poll_query_until('postgres', "SELECT every(repaired_at IS NOT NULL) FROM bcmig.validation_difference WHERE run_id = $run"), 'repaired');
green(q{SELECT bcmig_validate('s', mode => 'full')});
wait_sync($green, 's', 'validated');
once('validation');
green(q{SELECT bcmig_alter_sync('s', '{"proof_age": "1d"}'); UPDATE bcmig.validation_run SET finished_at = finished_at - interval '25 hours'});
alert('validation_old', undef, 1, 'the last validation is old');
green(q{SELECT bcmig_validate('s')});
once('validation_old');

# ---------------------------------------------------------------------------
# Green: the audit log changed, workers missing
# ---------------------------------------------------------------------------
my ($id, $event_was) = split /\|/, green('SELECT audit_id, event FROM bcmig.audit_log ORDER BY audit_id OFFSET 3 LIMIT 1');
green("UPDATE bcmig.audit_log SET event = 'x' WHERE audit_id = $id");
alert('audit_damaged', undef, 1, 'somebody changed the audit log');
like(green(q{SELECT detail FROM bcmig.alert WHERE name = 'audit_damaged' OR detail ~ 'audit_id'}), qr/audit_id $id$/, 'which row');
green("UPDATE bcmig.audit_log SET event = '$event_was' WHERE audit_id = $id");
once('audit_damaged');
$listener->quit;
$green->append_conf('postgresql.conf', "max_worker_processes = 5\nbcmig.max_workers = 8\n");
$green->restart;
alert('workers_missing', undef, 1, 'the server has too few workers to give');
$green->append_conf('postgresql.conf', "max_worker_processes = 24\nbcmig.max_workers = 4\n");
$green->restart;
once('workers_missing');
listen_again();

# ---------------------------------------------------------------------------
# Bursts, and texts that are long or awkward
# ---------------------------------------------------------------------------
sub burst
{
	green("BEGIN; INSERT INTO bcmig.audit_log (kind, sync_name, target, event, detail) $_[0]; INSERT INTO bcmig.audit_pending SELECT audit_id FROM bcmig.audit_log WHERE audit_id NOT IN (SELECT audit_id FROM bcmig.audit_chain); COMMIT");
}
events();
@events = ();
burst(q{SELECT 'alert', 's', 't' || i, 'flood raised', NULL FROM generate_series(1, 700) i});
$event = wait_event('the last of the flood', sub { ($_[0]{target} // '') eq 't700' });
my @flood = grep { $_->{event} eq 'flood raised' } @events;
is(scalar(@flood), 200, 'of 700 events at a time 200 are sent');
is($event->{left_out}, 500, 'and the last says how many were not');
burst(q{SELECT 'state', 's', 'public.x', CASE WHEN i < 50 THEN 'suspended' ELSE 'resync' END, i::text FROM generate_series(1, 50) i});
$event = wait_event('the last state', sub { ($_[0]{target} // '') eq 'public.x' && $_[0]{event} eq 'resync' });
is(scalar(grep { ($_->{target} // '') eq 'public.x' } @events), 1, 'a table that went through fifty states at a time: the last one is told');
burst(qq{SELECT 'alert', 's', repeat('\x{c3}\x{a9}', 4000), 'long raised', repeat(E'"\\n\\x01\\\\', 5000)});
$event = wait_event('a long one', sub { $_[0]{event} eq 'long raised' });
like($event->{target}, qr/^\x{e9}+$/, 'cut at a character');
like($event->{detail}, qr/^(?:"\n\x01\\)+"?\n?\x01?$/, 'quotes and control characters as they were');

# ---------------------------------------------------------------------------
# Alerts of a sync that is dropped go
# ---------------------------------------------------------------------------
green(q{SELECT bcmig_suspend_table('s', 'b')});
alert('table_suspended', 'public.b', 1, 'suspended');
alert('lag_unknown', undef, 1, 'and nothing is proved');
green(q{SELECT bcmig_stop_sync('s')});
ok($green->poll_query_until('postgres', q{SELECT state = 'stopped' FROM bcmig.sync_state}), 'stopped');
green(q{SELECT count(*) FROM bcmig_drop_sync('s')});
alert('table_suspended', 'public.b', 0, 'with the sync its alerts go');
# lag_unknown takes three looks to go
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.alert WHERE cleared_at IS NULL}), 'none is left')
	or diag green(q{SELECT name, sync, target, detail FROM bcmig.alert WHERE cleared_at IS NULL});
is(green(q{SELECT first_bad IS NULL FROM bcmig_verify_audit()}), 't', 'the audit log fits');
$listener->quit;

done_testing();
