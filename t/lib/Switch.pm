# Switch.pm: asking for a switch or a rollback, and how it ended.
package Switch;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(refused switch_to roll_back sides);

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
	my ($rc, $out, $err) = $green->psql('postgres', "CALL bcmig_wait_sync('s', '$until', '90 s')");
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
