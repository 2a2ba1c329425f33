# Traffic.pm: weights of a sync on one of several greens, and what became of them.
package Traffic;

use strict;
use warnings;

use BcmigTest;
use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(usleep);

our @EXPORT = qw(add_haproxy set_traffic held_why poll worked refused switch_to roll_back sides);

# HAProxy as a balancer of sync 's'.
sub add_haproxy
{
	my ($green, $name, $haproxy) = @_;
	my $options = sprintf '{"backend": "bc", "blue": [%s], "green": [%s]}',
	  map { join ',', map { "\"$_\"" } @{ $haproxy->{$_} } } qw(blue green);
	$green->safe_psql('postgres', "SELECT bcmig_add_balancer('s', '$name', 'haproxy', '" . $haproxy->url . "', '$options')");
}

# Ask for a weight and wait for what becomes of it.
sub set_traffic
{
	my ($green, $percent) = @_;
	my $done = "event IN ('changed', 'refused', 'undone', 'held') AND event_id > "
	  . $green->safe_psql('postgres', 'SELECT coalesce(max(event_id), 0) FROM bcmig.traffic_event');

	$green->safe_psql('postgres', "SELECT bcmig_set_traffic('s', $percent)");
	$green->poll_query_until('postgres', "SELECT count(*) > 0 FROM bcmig.traffic_event WHERE $done") or die 'no event';
	return $green->safe_psql('postgres', "SELECT event || coalesce(': ' || detail, '') FROM bcmig.traffic_event WHERE $done ORDER BY event_id LIMIT 1");
}

# Wait for a hold; its reason.
sub held_why
{
	my ($green) = @_;
	$green->poll_query_until('postgres', q{SELECT held IS NOT NULL FROM bcmig.traffic}) or return '';
	return $green->safe_psql('postgres', q{SELECT held FROM bcmig.traffic});
}

# Until a condition outside of the servers holds.
sub poll
{
	my ($is) = @_;
	for (my $left = 10 * $PostgreSQL::Test::Utils::timeout_default; $left > 0; $left--)
	{
		return 1 if $is->();
		usleep(100_000);
	}
	return 0;
}

# Until workers of a green have done n more jobs: looking after balancers, when
# nothing happens on blue.
sub worked
{
	my ($green, $n) = @_;
	my $jobs = q{SELECT coalesce(sum(jobs_done), 0) FROM bcmig.worker_status WHERE role = 'worker'};
	my $wanted = $n + $green->safe_psql('postgres', $jobs);
	return $green->poll_query_until('postgres', "SELECT ($jobs) >= $wanted");
}

# The first line of the error of a statement, with its SQLSTATE.
sub refused
{
	my ($green, $sql) = @_;
	my ($rc, $out, $err) = $green->psql('postgres', $sql, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return $err =~ /ERROR:\s+(.*)/ ? $1 : "not refused: $out";
}

# done, or the error of the wait with its detail.  $meanwhile is called once it
# has been asked for.
sub switch_to
{
	my ($green, $steps, $options, $meanwhile) = @_;
	$options //= '{"stabilization": 0}';
	return asked($green, "SELECT count(*) FROM bcmig_switch_traffic('s', '{$steps}', '$options')", 'switched', $meanwhile);
}

sub roll_back
{
	my ($green, $options, $meanwhile) = @_;
	$options //= '{}';
	return asked($green, "SELECT count(*) FROM bcmig_rollback('s', 'a test', '$options')", 'rolled_back', $meanwhile);
}

sub asked
{
	my ($green, $sql, $until, $meanwhile) = @_;
	$green->safe_psql('postgres', $sql);
	$meanwhile->() if defined $meanwhile;
	my ($rc, $out, $err) = $green->psql('postgres', "CALL bcmig_wait_sync('s', '$until', '$patience')");
	return $rc == 0 ? 'done' : $err =~ /ERROR:\s+(.*)(?:\nDETAIL:\s+(.*))?/ ? $1 . (defined $2 ? ": $2" : '') : $err;
}

# weight, where writers go, fence, journal, what is under way
sub sides
{
	my ($green) = @_;
	return $green->safe_psql('postgres', q{SELECT concat_ws(' ', green_percent, writes, CASE WHEN fence THEN 'fenced' ELSE 'open' END,
		CASE WHEN journal_armed THEN 'armed' END, 'to ' || changing_to) FROM bcmig.traffic_status});
}

1;
