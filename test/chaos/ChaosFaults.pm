# ChaosFaults.pm: what is done to green, to blue and to the network between.
#
# A fault: name; on, what it takes hold of (two faults of a group never have the
# same); lasts, seconds from and to; needs, what must be there; draw, what is
# rolled when the group is made, so that a seed gives the same faults whatever
# the timing; begin and end, called with the world and what was drawn.  An end
# that dies is tried again when those of the others have come.  What a person has
# to do after each stands in docs/reliability.md.
package ChaosFaults;

use strict;
use warnings;

use ChaosWorld;
use Time::HiRes qw(time usleep);

our @faults;

sub fault
{
	my ($name, $on, $lasts, %o) = @_;
	push @faults, { name => $name, on => $on, lasts => $lasts, draw => sub { return { part => rand() } }, end => sub { }, %o };
}

# one of them, by what was drawn
sub pick
{
	my ($part, @from) = @_;
	return $from[ int($part * @from) ];
}

# ---------------------------------------------------------------------------
# Processes of green, killed
# ---------------------------------------------------------------------------
my %green_process = (
	'bcmig worker' => qr/bcmig worker/,
	'bcmig poller' => qr/bcmig poller/,
	'bcmig manager' => qr/bcmig manager/,
	'bcmig launcher' => qr/bcmig launcher/,
	'checkpointer' => qr/: checkpointer/,
	'walwriter' => qr/: walwriter/,
	'background writer' => qr/: background writer/,
	'autovacuum launcher' => qr/: autovacuum launcher/,
	'backend' => qr/\[local\]/);

foreach my $name (sort keys %green_process)
{
	fault("green: kill -9 $name", 'green', [ 0, 2 ], begin => sub {
		my ($w, $d) = @_;
		my $session = $name eq 'backend' ? $w->session('green', 'SELECT pg_sleep(60);') : undef;

		# between two lives of it there is none
		for my $try (1 .. 50)
		{
			my @pids = $w->process_named('green', $green_process{$name});

			last if @pids && kill 9, pick($d->{part}, @pids);
			usleep(50_000);
		}
		$w->end_session($session);
	});
}

fault('green: ended politely, a process of bcmig', 'green', [ 0, 2 ], begin => sub {
	my ($w, $d) = @_;
	my @pids = $w->process_named('green', qr/bcmig/);

	kill 'TERM', pick($d->{part}, @pids) if @pids;
});

fault('green: kill -9 postmaster', 'green', [ 0, 3 ],
	begin => sub { $_[0]->kill_postmaster('green') },
	end => sub { $_[0]->start('green') });

fault('green: immediate stop, start', 'green', [ 0, 3 ],
	begin => sub { $_[0]->stop('green', 'immediate') },
	end => sub { $_[0]->start('green') });

fault('green: fast stop, start', 'green', [ 0, 3 ],
	begin => sub { $_[0]->stop('green', 'fast') },
	end => sub { $_[0]->start('green') });

fault('green: frozen', 'green', [ 2, 8 ],
	begin => sub { my ($w) = @_; kill 'STOP', $w->{green}{_pid}, $w->processes('green') },
	end => sub { my ($w) = @_; kill 'CONT', $w->processes('green'), $w->{green}{_pid} });

fault('green: a worker frozen', 'green', [ 2, 8 ],
	begin => sub {
		my ($w, $d) = @_;
		my @pids = $w->process_named('green', qr/bcmig (worker|poller|manager)/);

		$d->{pid} = @pids ? pick($d->{part}, @pids) : undef;
		kill 'STOP', $d->{pid} if $d->{pid};
	},
	end => sub { my ($w, $d) = @_; kill 'CONT', $d->{pid} if $d->{pid} });

# ---------------------------------------------------------------------------
# Blue
# ---------------------------------------------------------------------------
fault('blue: kill -9 a backend', 'blue', [ 0, 2 ], begin => sub {
	my ($w, $d) = @_;
	my @pids = $w->process_named('blue', qr/bcmig_reader/);

	kill 9, pick($d->{part}, @pids) if @pids;
});

fault('blue: kill -9 the postmaster', 'blue', [ 0, 4 ],
	begin => sub { $_[0]->kill_postmaster('blue') },
	end => sub { $_[0]->start('blue') });

fault('blue: immediate stop, start', 'blue', [ 0, 6 ],
	begin => sub { $_[0]->stop('blue', 'immediate') },
	end => sub { $_[0]->start('blue') });

fault('blue: fast stop, start', 'blue', [ 0, 6 ],
	begin => sub { $_[0]->stop('blue', 'fast') },
	end => sub { $_[0]->start('blue') });

fault('blue: frozen', 'blue', [ 2, 20 ],
	begin => sub { my ($w) = @_; kill 'STOP', $w->{blue}{_pid}, $w->processes('blue') },
	end => sub { my ($w) = @_; kill 'CONT', $w->processes('blue'), $w->{blue}{_pid} });

# WAL is only written when a buffer is full or the walwriter, frozen, gets to it:
# the crash takes commits back that green has seen.
fault('blue: crash that loses commits', 'blue', [ 2, 5 ],
	begin => sub {
		my ($w) = @_;
		$w->blue("ALTER SYSTEM SET synchronous_commit = off; ALTER SYSTEM SET wal_writer_delay = '10s'; SELECT pg_reload_conf()");
		usleep(300_000);
		kill 'STOP', $w->process_named('blue', qr/: (walwriter|checkpointer|background writer)/);
	},
	end => sub {
		my ($w) = @_;
		my @frozen = $w->process_named('blue', qr/: (walwriter|checkpointer|background writer)/);
		my $before = $w->ask('blue', q{SELECT pg_current_wal_insert_lsn()}, seconds => 10);

		$w->kill_postmaster('blue');
		$w->start('blue');
		$w->{lost_wal} += $w->blue("SELECT greatest(0, '$before'::pg_lsn - pg_current_wal_insert_lsn())") if defined $before;
		$w->blue('ALTER SYSTEM RESET synchronous_commit; ALTER SYSTEM RESET wal_writer_delay; SELECT pg_reload_conf()');
	});

fault('blue: restored to an earlier backup', 'blue', [ 2, 8 ],
	begin => sub { $_[0]->save_blue },
	end => sub { $_[0]->restore_blue });

fault('blue: long transaction', 'load', [ 4, 15 ],
	draw => sub { return { commits => rand() < 0.7 } },
	begin => sub {
		my ($w, $d) = @_;
		my $sql = $w->for_company(qq{BEGIN;
			INSERT INTO {Comment Line} ("Table Name", "No_", "Line No_", "Comment") VALUES (98, 'LONG', nextval('{TableSeq97}'), 'open for long');
			UPDATE {Payment Terms} SET "Description" = 'long ' || txid_current() WHERE "Code" = 'COD';
			DELETE FROM {Currency} WHERE "Code" = 'JPY'; INSERT INTO {Currency} ("Code", "Description") VALUES ('JPY', 'long');\n});
		$d->{in} = $sql;
		$d->{out} = '';
		$d->{session} = IPC::Run::start([ 'psql', '-X', '-q', '-d', $w->{blue}->connstr('postgres') ], '<', \$d->{in}, '>', \$d->{out}, '2>', \$d->{out});
		$d->{session}->pump_nb;
	},
	end => sub {
		my ($w, $d) = @_;
		$d->{in} .= $d->{commits} ? "COMMIT;\n\\q\n" : "ROLLBACK;\n\\q\n";
		eval { $d->{session}->finish };
	});

fault('blue: prepared transaction', 'load', [ 4, 15 ],
	draw => sub { return { commits => rand() < 0.7 } },
	begin => sub {
		my ($w, $d) = @_;
		$w->try_sql('blue', $w->for_company(qq{BEGIN;
			INSERT INTO {Comment Line} ("Table Name", "No_", "Line No_", "Comment") VALUES (98, 'PREPARED', nextval('{TableSeq97}'), 'prepared for long');
			UPDATE {Payment Terms} SET "Description" = 'prepared ' || txid_current() WHERE "Code" = '1Y';
			PREPARE TRANSACTION 'chaos'}));
	},
	# over a crash or a restored backup it may be gone, or be there again
	end => sub {
		my ($w, $d) = @_;
		end_prepared($w, $d->{commits});
	});

sub end_prepared
{
	my ($w, $commits) = @_;
	my ($ok, $out) = $w->try_sql('blue', ($commits ? 'COMMIT' : 'ROLLBACK') . " PREPARED 'chaos'", seconds => 10);

	die $out unless $ok || $out =~ /does not exist/;
}

# ---------------------------------------------------------------------------
# The network
# ---------------------------------------------------------------------------
sub network_fault
{
	my ($name, $lasts, $draw) = @_;
	fault("network: $name", 'network', $lasts, draw => sub { return { words => [ $draw->() ] } },
		begin => sub { my ($w, $d) = @_; $w->network(@{ $d->{words} }) },
		end => sub { $_[0]->network('pass') });
}

network_fault('cut', [ 0, 6 ], sub { return 'cut' });
network_fault('stalled', [ 2, 20 ], sub { return 'stall' });
network_fault('half open connections', [ 2, 10 ], sub { return 'half_open' });
network_fault('connects and is never answered', [ 2, 8 ], sub { return 'silent' });
network_fault('slow', [ 4, 12 ], sub { return ('slow', int(rand(300)), 2000 + int(rand(50_000))) });
network_fault('cut in the midst of answers', [ 2, 8 ], sub { return ('torn', 200 + int(rand(8000))) });

# ---------------------------------------------------------------------------
# Room, memory, workers, clocks
# ---------------------------------------------------------------------------
fault('green: disk full', 'disk', [ 3, 8 ], needs => 'disk',
	begin => sub {
		my ($w) = @_;
		# whatever is free
		system("dd if=/dev/zero of='$w->{disk}/ballast' bs=64k 2>/dev/null");
	},
	end => sub { my ($w) = @_; unlink "$w->{disk}/ballast" });

# Files grow no further, WAL too: as with a disk that is full, EFBIG for ENOSPC.
fault('green: no file of a worker may grow', 'disk', [ 2, 6 ],
	begin => sub { limit($_[0], qr/bcmig (worker|poller|manager)/, 'fsize', 8192) },
	end => sub { limit($_[0], qr/bcmig (worker|poller|manager)/, 'fsize', 'unlimited') });

fault('green: no memory', 'memory', [ 2, 8 ], draw => sub { return { room => int(rand(4_000_000)) } },
	begin => sub {
		my ($w, $d) = @_;
		foreach my $pid ($w->process_named('green', qr/bcmig|\[local\]/))
		{
			open my $file, '<', "/proc/$pid/statm" or next;
			my ($pages) = split ' ', <$file> // '0';
			set_limit($pid, 'as', $pages * 4096 + $d->{room});
		}
	},
	end => sub { limit($_[0], qr/./, 'as', 'unlimited') });

sub set_limit
{
	my ($pid, $what, $value) = @_;
	system("prlimit --pid $pid --$what=$value: 2>/dev/null");
}

sub limit
{
	my ($w, $pattern, $what, $value) = @_;
	set_limit($_, $what, $value) foreach $w->process_named('green', $pattern);
}

# Parallel queries take what background workers there are, while bcmig's die.
fault('green: background workers are taken', 'memory', [ 3, 8 ],
	begin => sub {
		my ($w, $d) = @_;
		my $sql = 'SET max_parallel_workers_per_gather = 8; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; '
		  . 'SET jit = off; SELECT count(pg_sleep(0.001)) FROM ' . $w->for_company('{G_L Entry}') . ";\n";

		$w->sql('green', q{ALTER SYSTEM SET max_parallel_workers = 16; SELECT pg_reload_conf()}) if defined $w->ask('green', 'SELECT 1', seconds => 5);
		$d->{sessions} = [ map { $w->session('green', $sql x 20) } 1 .. 3 ];
		usleep(500_000);
		kill 'TERM', $w->process_named('green', qr/bcmig (worker|poller)/);
	},
	end => sub { my ($w, $d) = @_; $w->end_session($_) foreach @{ $d->{sessions} } });

foreach my $side (qw(blue green))
{
	fault("$side: clock jumps", "clock of $side", [ 2, 6 ],
		draw => sub { return { offset => (rand() < 0.5 ? -1 : 1) * int(10 ** (1 + rand(3.5))), stays => rand() < 0.5 } },
		begin => sub { my ($w, $d) = @_; $w->set_clock($side, $d->{offset}) },
		# it is set right, or stays wrong until the next
		end => sub { my ($w, $d) = @_; $w->set_clock($side, 0) unless $d->{stays} });
}

# ---------------------------------------------------------------------------
# Other users of green
# ---------------------------------------------------------------------------
fault('green: a table locked', 'locks', [ 3, 14 ],
	begin => sub {
		my ($w, $d) = @_;
		my $table = '"' . pick($d->{part}, tables($w)) =~ s/"/""/gr . '"';

		$d->{session} = $w->session('green', "BEGIN; LOCK TABLE $table IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60);\n");
	},
	end => sub { my ($w, $d) = @_; $w->end_session($d->{session}) });

fault('green: long reader, VACUUM and ANALYZE', 'locks', [ 3, 8 ],
	begin => sub {
		my ($w, $d) = @_;
		$d->{reader} = $w->session('green', "BEGIN ISOLATION LEVEL REPEATABLE READ; " . $w->for_company('SELECT count(*) FROM {G_L Entry}; ') . "SELECT pg_sleep(60);\n");
		$d->{vacuum} = $w->session('green', "VACUUM ANALYZE;\nREINDEX TABLE " . $w->for_company('{Cust_ Ledger Entry}') . ";\n" . "VACUUM FULL " . $w->for_company('{Customer}') . ";\n");
	},
	end => sub { my ($w, $d) = @_; $w->end_session($_) foreach @{$d}{qw(reader vacuum)} });

sub tables
{
	my ($w) = @_;
	return map { s/^'(.*)'$/$1/r =~ s/''/'/gr } @{ $w->{tables_of}{cronus} };
}

# ---------------------------------------------------------------------------
# A DBA at work
# ---------------------------------------------------------------------------
sub by_dba
{
	my ($name, $sql, $end) = @_;
	fault("DBA: $name", 'dba', [ 1, 5 ],
		begin => sub {
			my ($w, $d) = @_;
			my $table = "'" . pick($d->{part}, tables($w)) =~ s/'/''/gr . "'";

			$d->{table} = $table;
			$w->try_sql('green', $sql =~ s/%t/$table/gr, user => 'migrator', seconds => 30);
		},
		end => sub {
			my ($w, $d) = @_;

			return unless defined $end;
			my ($ok, $out) = $w->try_sql('green', $end =~ s/%t/$d->{table}/gr, user => 'migrator', seconds => 30);
			die "$end: $out" unless $ok || $out =~ /BM009|BM002/;
		});
}

by_dba('stops and starts a sync', q{SELECT bcmig_stop_sync('cronus')}, q{SELECT bcmig_start_sync('cronus')});
by_dba('has a table read again', q{SELECT bcmig_resync_table('cronus', %t)});
by_dba('has both syncs read again, a table each', q{SELECT bcmig_resync_table('cronus', %t); SELECT bcmig_resync_table('by_sweep', 'Record Link')});
by_dba('has a whole sync read again', q{SELECT bcmig_resync_table('cronus', target) FROM bcmig.table_status WHERE sync = 'cronus' AND state = 'streaming'});
by_dba('suspends and resumes a table', q{SELECT bcmig_suspend_table('cronus', %t)}, q{SELECT bcmig_resume_table('cronus', %t)});
by_dba('validates', q{SELECT bcmig_validate('cronus', mode => 'full')});
by_dba('sweeps, reads at once, retries', q{SELECT bcmig_sweep_deletes('cronus'); SELECT bcmig_sync_now('cronus'); SELECT bcmig_retry_quarantine('cronus')});
by_dba('changes options', q{SELECT bcmig_alter_sync('cronus', '{"batch_rows": 7, "workers": 2, "max_latency": "1s"}')},
	q{SELECT bcmig_alter_sync('cronus', '{"batch_rows": null, "workers": null, "max_latency": null}')});
by_dba('takes a table out and adds it again', q{SELECT bcmig_remove_table('cronus', %t)}, q{SELECT bcmig_add_table('cronus', %t, format('public.%I', %t))});

# ---------------------------------------------------------------------------
# Which of them
# ---------------------------------------------------------------------------

# Those that can be had here; $only: a regular expression over names.
sub available
{
	my ($w, $only) = @_;

	return grep {
		(!defined $only || $only eq '' || $_->{name} =~ /$only/i)
		  && (($_->{needs} // '') ne 'disk' || $w->{disk})
	} @faults;
}

# The next group: one fault, or two or three that overlap.  Everything is drawn
# here, so that the sequence depends on the seed alone.
sub next_group
{
	my ($deck, $brief, @from) = @_;
	my $roll = rand();
	my $n = $roll < 0.5 ? 1 : $roll < 0.85 ? 2 : 3;
	my (@group, %taken);

	# every fault before one comes twice
	while (@group < $n)
	{
		if (!@$deck)
		{
			@$deck = @from;
			for (my $i = @$deck - 1; $i > 0; $i--)
			{
				my $k = int(rand($i + 1));
				@$deck[ $i, $k ] = @$deck[ $k, $i ];
			}
		}
		my ($next) = grep { !$taken{ $deck->[$_]{on} } } 0 .. $#$deck;
		last unless defined $next;
		my $fault = splice @$deck, $next, 1;
		my ($from, $to) = @{ $fault->{lasts} };

		$taken{ $fault->{on} } = 1;
		push @group, { fault => $fault, drawn => $fault->{draw}->(), seconds => $brief * ($from + rand($to - $from)),
			after => @group ? $brief * rand(3) : 0 };
	}
	return @group;
}

1;
