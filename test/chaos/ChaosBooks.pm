# ChaosBooks.pm: is green what blue is?  Asked with plain SQL by a client of
# each side's own, nothing of bcmig's validation.
#
# And what else must hold after a fault: no position went back, no process was
# left over, nothing in quarantine without a reason, the audit log whole.
package ChaosBooks;

use strict;
use warnings;

use ChaosWorld;
use Time::HiRes qw(time usleep);

# What a person has to do when it does not come back by itself.  A pattern of
# what bcmig says, what is written down of it, and the statement bcmig's hint
# or docs/runbook.md name; %s is the sync, %t the table.
my @by_hand = (
	[ qr/rows would be deleted|blue has no row/, 'resumed a table whose rows are gone from blue', 'SELECT bcmig_resume_table(%s, %t)' ],
	[ qr/disk|No space left|could not extend/i, 'resumed a table after the disk was full', 'SELECT bcmig_resume_table(%s, %t)' ],
	[ qr/./, 'resumed a suspended table', 'SELECT bcmig_resume_table(%s, %t)' ],
);

# Wait until every sync streams and is in step while the workload goes on; a slow
# machine may need it to end for that.  Returns (seconds, [what a person did,
# ...]); dies when it does not get there.
sub recover
{
	my ($world, $most) = @_;
	my $from = time;
	my $acted_at = 0;
	my (@acts, $last, $quiet, $well);

	while (time - $from < $most)
	{
		my $state = $world->ask('green', q{SELECT string_agg(concat_ws(' ', sync, state, tables_streaming || '/' || tables, lag, blocked_by, last_error), '; '),
				bool_and(state = 'streaming' AND tables_streaming = tables AND lag < CASE sync WHEN 'by_sweep' THEN interval '20 s' ELSE interval '2 s' END)
				FROM bcmig.sync_status}, seconds => 20);

		if (!defined $state)
		{
			$well = undef;
			usleep(200_000);
			next;
		}
		($last, my $good) = $state =~ /^(.*)\|([tf]?)$/s;
		# a server may not have noticed yet what was done to it: twice
		if ($good eq 't')
		{
			return ($well - $from, \@acts) if defined $well && time - $well > 1;
			$well //= time;
		}
		else
		{
			$well = undef;
		}
		# a person does not come at once: what bcmig mends by itself is mended by then
		if (time - $from > 10 && time - $acted_at > 5)
		{
			my @done = act($world);

			push @acts, @done;
			$acted_at = time if @done;
		}
		if (!$quiet && time - $from > $most / 2)
		{
			$quiet = 1;
			$world->stop_workload;
			push @acts, 'in step only without load';
		}
		usleep(100_000);
	}
	die "no recovery within $most s: $last\n" . ($world->ask('green', q{SELECT sync, target, state, reason, last_error FROM bcmig.table_status WHERE state <> 'streaming' OR NOT clean LIMIT 10}) // '')
	  . "\n" . ($world->ask('green', 'SELECT * FROM bcmig.worker_status') // '') . "\n" . ($world->ask('green', 'SELECT * FROM bcmig.environment_status') // '') . "\n";
}

# What bcmig asks a person for, done as it says.  Returns what was done.
sub act
{
	my ($world) = @_;
	my @done;

	foreach my $line (split /\n/, $world->ask('green', q{SELECT concat_ws('|', quote_literal(sync), quote_literal(target), coalesce(reason, '')) FROM bcmig.table_status WHERE state = 'suspended'}) // '')
	{
		my ($sync, $target, $reason) = split /\|/, $line, 3;
		my ($how) = grep { $reason =~ $_->[0] } @by_hand;
		my $sql = $how->[2] =~ s/%s/$sync/r =~ s/%t/$target/r;
		my ($ok) = $world->try_sql('green', $sql, user => 'migrator');

		push @done, "$how->[1] ($target: " . substr($reason, 0, 120) . ")" if $ok;
	}
	foreach my $sync (split /\n/, $world->ask('green', q{SELECT quote_literal(sync) FROM bcmig.sync_status WHERE quarantined > 0}) // '')
	{
		my $why = $world->ask('green', q{SELECT string_agg(DISTINCT sqlstate || ' ' || message, '; ') FROM bcmig.quarantine}) // '';
		my ($ok) = $world->try_sql('green', "SELECT bcmig_retry_quarantine($sync)", user => 'migrator');

		push @done, 'retried the quarantine (' . substr($why, 0, 200) . ')' if $ok;
	}
	foreach my $sync (split /\n/, $world->ask('green', q{SELECT quote_literal(sync) FROM bcmig.sync_status WHERE state = 'stopped'}) // '')
	{
		my ($ok) = $world->try_sql('green', "SELECT bcmig_start_sync($sync)", user => 'migrator');

		push @done, 'started a stopped sync' if $ok;
	}
	return @done;
}

# ---------------------------------------------------------------------------
# Positions
# ---------------------------------------------------------------------------
sub remember
{
	my ($world) = @_;
	my %at = (audit => $world->sql('green', 'SELECT coalesce(max(audit_id), 0) FROM bcmig.audit_log'));

	foreach (split /\n/, $world->sql('green', q{SELECT format('%I.%I', target_schema, target_table), position FROM bcmig.table_state JOIN bcmig.sync_table USING (table_id) WHERE position IS NOT NULL}))
	{
		my ($target, $position) = /^(.*)\|(\d+)$/;
		$at{position}{$target} = $position;
	}
	return \%at;
}

# Tables whose position is lower than it was, though nothing made bcmig read
# them again.
sub went_back
{
	my ($world, $before) = @_;
	my $after = remember($world);
	my %again = map { $_ => 1 } split /\n/,
	  $world->sql('green', "SELECT DISTINCT target FROM bcmig.audit_log WHERE audit_id > $before->{audit} AND event IN ('resync', 'copying', 'pending', 'bcmig_remove_table', 'bcmig_resync_table', 'table removed')");

	return grep { !$again{$_} && ($after->{position}{$_} // 0) < $before->{position}{$_} } sort keys %{ $before->{position} };
}

# ---------------------------------------------------------------------------
# Rows
# ---------------------------------------------------------------------------

# Two statements, the same text for both sides: a line a table, and one
# table's rows.  All columns but blue's row stamp.
sub statements
{
	my ($world) = @_;
	my (@lines, %rows);

	foreach (split /\n/, $world->blue(q{SELECT t.full_name, (SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname) FROM pg_attribute
			WHERE attrelid = format('public.%I', t.full_name)::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'timestamp') FROM demo.tables t ORDER BY 1}))
	{
		my ($name, $columns) = split /\|/, $_, 2;
		my $quoted = '"' . $name =~ s/"/""/gr . '"';
		my $literal = "'" . $name =~ s/'/''/gr . "'";

		push @lines, "SELECT $literal, count(*), md5(coalesce(string_agg(md5(r), '' ORDER BY r COLLATE \"C\"), '')) FROM (SELECT ROW($columns)::text AS r FROM public.$quoted) x";
		$rows{$name} = "SELECT r FROM (SELECT ROW($columns)::text AS r FROM public.$quoted) x ORDER BY r COLLATE \"C\"";
	}
	return (join("\nUNION ALL ", @lines) . ' ORDER BY 1', \%rows);
}

# Tables that differ, each with the rows only one side has.
sub differences
{
	my ($world) = @_;
	my ($lines, $rows) = statements($world);
	my %blue = map { /^(.*)\|(\d+\|\w+)$/ ? ($1 => $2) : () } split /\n/, $world->blue($lines);
	my %green = map { /^(.*)\|(\d+\|\w+)$/ ? ($1 => $2) : () } split /\n/, $world->sql('green', $lines);
	my @differ;

	die 'no table was compared' unless keys %blue > 5;
	foreach my $name (sort keys %blue)
	{
		next if $blue{$name} eq ($green{$name} // 'absent');
		my %count;
		$count{$_}++ foreach split /\n/, $world->blue($rows->{$name});
		$count{$_}-- foreach split /\n/, $world->sql('green', $rows->{$name});
		my @only = grep { $count{$_} != 0 } sort keys %count;
		push @differ, "$name: blue $blue{$name}, green " . ($green{$name} // 'absent') . "\n"
		  . join('', map { '    ' . ($count{$_} > 0 ? 'only blue: ' : 'only green: ') . substr($_, 0, 300) . "\n" } @only[ 0 .. ($#only < 7 ? $#only : 7) ]);
	}
	$world->{compared} = keys %blue;
	$world->{rows} = 0;
	$world->{rows} += (split /\|/)[0] foreach values %blue;
	return @differ;
}

# Rules of book-keeping a side breaks: ledger entries add up to zero, ...
sub broken_rules
{
	my ($world, $side) = @_;
	my $rules = $world->sql($side, $world->for_company($world->read_source('demo/check_books.sql')));
	my @lines = split /\n/, $rules;

	die 'the books could not be checked' unless @lines > 20;
	return map { "$side: $_" } grep { !/\|0$/ } @lines;
}

# ---------------------------------------------------------------------------
# All of it
# ---------------------------------------------------------------------------

# Ends the workload, waits until green has caught up, and looks.  Returns what
# is wrong, a line each; nothing is well.
sub check
{
	my ($world, $before) = @_;
	my @wrong;

	$world->stop_workload;
	foreach my $sync (@{ $world->{syncs} })
	{
		$world->green("SELECT bcmig_sync_now('$sync')");
		my ($ok, $out) = $world->try_sql('green', "CALL bcmig_wait_sync('$sync', 'caught_up', '120 s')", user => 'migrator', seconds => 150);
		push @wrong, "$sync does not catch up: $out" unless $ok;
	}
	push @wrong, map { "different: $_" } differences($world);
	push @wrong, map { "the books do not balance on $_" } map { broken_rules($world, $_) } qw(blue green);
	push @wrong, map { "position went back: $_" } went_back($world, $before);
	my $quarantined = $world->sql('green', "SELECT string_agg(concat_ws(' ', table_id, key, operation, sqlstate, message), '; ') FROM bcmig.quarantine");
	push @wrong, "quarantine: $quarantined" if $quarantined ne '';
	my $conflicts = $world->sql('green', 'SELECT count(*) FROM bcmig.conflict');
	push @wrong, "$conflicts conflicts" if $conflicts ne '0';
	push @wrong, processes($world);
	push @wrong, audit($world);
	return @wrong;
}

# Processes of ours: as many as there should be, each with its slot, none with a
# lock when nothing is to be done, and no connection on blue that nobody has.
sub processes
{
	my ($world) = @_;
	my $wrong;

	for my $try (1 .. 100)
	{
		my ($managers, $pollers, $workers, $others, $locks, $on_blue) = split /\|/, $world->sql('green', q{
			SELECT count(*) FILTER (WHERE backend_type = 'bcmig manager'), count(*) FILTER (WHERE backend_type = 'bcmig poller'),
				count(*) FILTER (WHERE backend_type = 'bcmig worker'),
				count(*) FILTER (WHERE backend_type IN ('bcmig manager', 'bcmig poller', 'bcmig worker') AND pid NOT IN (SELECT pid FROM bcmig.worker_status WHERE pid IS NOT NULL)),
				(SELECT count(*) FROM pg_locks l WHERE locktype = 'userlock' AND pid NOT IN (SELECT pid FROM pg_stat_activity WHERE backend_type = 'bcmig worker'))
				FROM pg_stat_activity})
		  ;
		$on_blue = $world->blue("SELECT count(*) FROM pg_stat_activity WHERE usename = 'bcmig_reader'");
		my @bad;

		push @bad, "$managers managers" if $managers != 1;
		push @bad, "$pollers pollers" if $pollers != 1;
		push @bad, "$workers workers" if $workers > 6;
		push @bad, "$others processes without a slot" if $others > 0;
		push @bad, "$locks applier locks of nobody" if $locks > 0;
		push @bad, "$on_blue connections on blue for $workers workers" if $on_blue > $workers + $pollers;
		return unless @bad;
		$wrong = join ', ', @bad;
		usleep(100_000);
	}
	return "processes: $wrong";
}

sub audit
{
	my ($world) = @_;
	my $said = '';

	# the manager chains what was committed, a few times a second
	for my $try (1 .. 100)
	{
		$said = $world->sql('green', 'SELECT what FROM bcmig_verify_audit()');
		return if $said =~ /^ok, / && $said !~ /not chained yet/;
		return "audit log: $said" unless $said =~ /not chained yet/ && $said =~ /^ok, /;
		usleep(100_000);
	}
	return "audit log: $said";
}

1;
