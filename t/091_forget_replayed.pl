# What blue notes of rows that were brought back is forgotten once green has
# settled them and they are old; a key that was forgotten can be written again.
use strict;
use warnings;
use lib 't/lib';
use BcmigTest;
use Test::More;

my $blue = new_blue();
my $green = new_green();

sub on_blue { return $blue->safe_psql('postgres', $_[0]) }
sub on_green { return $green->safe_psql('postgres', $_[0]) }

allow_switch($blue);
on_blue(q{CREATE TABLE plain (id int PRIMARY KEY, v text CHECK (v <> 'refused'), "timestamp" bigint NOT NULL DEFAULT 0);
	INSERT INTO plain SELECT i, 'v' || i FROM generate_series(1, 100) i});
track($blue, 'plain');
connect_blue($green, $blue, 's');
on_green(q{SELECT bcmig_add_table('s', 'plain')});
start_sync($green, 's');
wait_sync($green, 's');
on_green(q{BEGIN; SELECT bcmig.arm_journal('s'); SELECT bcmig.lift_fence('s'); COMMIT;
	UPDATE bcmig.traffic SET green_percent = 100, switched_at = now(); SELECT bcmig_alter_sync('s', '{"reverse": true}')});
on_blue(q{SELECT bcmig_blue.raise_fence(ARRAY['public.plain'])});

# written on green, and settled
sub settled
{
	my ($ids, $v) = @_;
	on_green("UPDATE plain SET v = '$v' WHERE id IN ($ids)");
	$green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.journal WHERE settled_at IS NULL AND new_image ->> 'v' <> 'refused'})
	  or die 'not settled: ' . on_green(q{SELECT * FROM bcmig.reverse_state});
	is(on_blue("SELECT count(*) FROM plain WHERE v = '$v'"), scalar(split /,/, $ids), "$v: blue has it");
}

# the keys blue has a note of, in the end
sub noted
{
	my ($keys, $what) = @_;
	ok($blue->poll_query_until('postgres', "SELECT coalesce(string_agg(key ->> 0, ',' ORDER BY (key ->> 0)::int), '') = '$keys' FROM bcmig_blue.applied"), $what)
	  or diag(on_blue(q{SELECT * FROM bcmig_blue.applied ORDER BY journal_id}));
}

settled('1,2,3,4,5', 'first');
noted('1,2,3,4,5', 'what is new is noted');
on_green(q{UPDATE plain SET v = 'refused' WHERE id = 10});
ok($green->poll_query_until('postgres', q{SELECT problem LIKE '%refuses%' FROM bcmig.reverse_state}), 'a row blue refuses');
settled('6,7', 'second');
on_blue(q{UPDATE bcmig_blue.applied SET at = at - interval '3 days'});
settled('8', 'third');
noted('6,7,8', 'old notes are forgotten, up to the first entry that is not settled');
on_blue(q{ALTER TABLE plain DROP CONSTRAINT plain_v_check});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.journal WHERE settled_at IS NULL}), 'that one comes through');
noted('8,10', 'and the rest goes');

# keys that were forgotten
wait_sync($green, 's');
settled('1,7', 'again');
on_green(q{DELETE FROM plain WHERE id = 2; INSERT INTO plain (id, v) VALUES (200, 'new')});
ok($green->poll_query_until('postgres', q{SELECT count(*) = 0 FROM bcmig.journal WHERE settled_at IS NULL}), 'a delete too');
wait_sync($green, 's');
all_equal($blue, $green, 'in the end', 'plain');
is(on_green(q{SELECT count(*) FROM bcmig.conflict}), '0', 'no conflict');

done_testing();
