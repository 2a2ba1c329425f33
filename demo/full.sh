# full.sh: sourced by demo/run for PLAN=full
#
# A whole migration of one company: the standard plan takes CRONUS from nothing
# to 100 % behind a HAProxy, a rollback brings it back, while its workload posts
# where bcmig_route() says and a reader asks through HAProxy all the time.  The
# other company works on blue and stays there.  Then: no request has failed, what
# was acknowledged is in the books of both sides and nothing else, and every
# table is equal.  Reports are left in build/demo-reports.
# shellcheck shell=bash disable=SC2034,SC2154
[ "$BLUE" = postgres ] || fail "PLAN=full needs BLUE=postgres"
packages=(haproxy python3-psycopg2)
least_compared=75
syncs_to_start='my_company by_sweep shared'		# the plan starts cronus
environment_options='{"fence_by": "call"}'
SCALE=${SCALE:-0.2}
WRITE_RATE=${WRITE_RATE:-100}	# transactions a second in CRONUS
RATE=${RATE:-20}				# in the other company
reports=$top/build/demo-reports

# ---------------------------------------------------------------------------
start_front()
{
	local server number
	local -A port

	say "HAProxy with two web servers of blue and one of green; a reader asks 100 times a second"
	cp "$here/front.py" "$work/"
	start_server front /usr/bin/python3 "$work/front.py" serve "$work/front.ports" blue1 blue2 green1
	wait_for 20 'the web servers' sh -c "[ -f '$work/front.ports' ] && echo t"
	while read -r server number; do
		port[$server]=$number
	done <"$work/front.ports"
	front_port=$(free_port)
	front_api=$(free_port)
	health_of_blue=http://127.0.0.1:${port[blue1]}/health
	health_of_green=http://127.0.0.1:${port[green1]}/health
	cat >"$work/haproxy.cfg" <<-END
		global
		    stats socket ipv4@127.0.0.1:$front_api level admin
		defaults
		    mode http
		    timeout connect 5s
		    timeout client 30s
		    timeout server 30s
		frontend users
		    bind 127.0.0.1:$front_port
		    default_backend bc
		backend bc
		    balance roundrobin
		    server blue1 127.0.0.1:${port[blue1]} weight 100
		    server blue2 127.0.0.1:${port[blue2]} weight 100
		    server green1 127.0.0.1:${port[green1]} weight 0
	END
	start_server haproxy /usr/sbin/haproxy -db -f "$work/haproxy.cfg"
	wait_for 20 'HAProxy' bash -c "exec 3<>/dev/tcp/127.0.0.1/$front_port && echo t" 2>/dev/null
	/usr/bin/python3 "$work/front.py" read "$front_port" 100 "$work/reader" &
	reader=$!
	pids+=("$reader")
}

# The fence of blue, and writes that come back.  All of CRONUS that has a key
# moves, so all of it is read by change tracking: rows that are written to all
# the time cannot be proved equal where nothing tells that they were changed.
prepare_switch()
{
	psql_blue -f "$top/blue/postgres_switch.sql"
	blue "SELECT bcmig_blue.grant_switch('bcmig_reader')" >/dev/null
	blue "UPDATE demo.tables SET capture = 'change_tracking' WHERE company = '$big' AND capture = 'rowversion'"
}

# What the application needs on green, and the plan of its owner.  Its numbers there are a range that blue
# does not come to: of a PostgreSQL blue bcmig sets no sequences, and takes over no
# default that is computed.
prepare_application()
{
	green_user=postgres psql_green <<-END
		\i $here/workload_schema.sql
		GRANT USAGE ON SCHEMA demo TO migrator;
		GRANT EXECUTE ON FUNCTION bcmig.make_views(text) TO migrator;
	END
	green "SELECT demo.make_sequences('$big', 500001)" >/dev/null
	psql_green -At >/dev/null <<-'END'
		SELECT format('ALTER TABLE %s ALTER "$systemId" SET DEFAULT gen_random_uuid()', target) FROM bcmig.table_status
		 WHERE sync = 'cronus' AND EXISTS (SELECT FROM pg_attribute WHERE attrelid = target::regclass AND attname = '$systemId') \gexec
	END
}

start_writers()
{
	write_workload "$big" "$work/workload.moves"
	(cd "$work/workload.moves" && exec /usr/bin/python3 "$here/writers.py" "host=$work port=5502 user=migrator dbname=green" "host=$work port=5501 user=postgres dbname=bc" \
		cronus "$WRITE_RATE" 4 "$work/acknowledged" "${workload_of[@]}" "${workload_mix[@]}") &
	writers=$!
	pids+=("$writers")
	workload_pids+=("$writers")
}

acknowledged() { grep -c "^$1 " "$work/acknowledged" || true; }		# side

more_writes()					# side number
{
	local from

	from=$(acknowledged "$1")
	wait_for 60 "$2 more writes on $1" more_than "$1" $((from + $2))
}

more_than()						# side number
{
	workload_alive
	[ "$(acknowledged "$1")" -lt "$2" ] || echo t
}

# ---------------------------------------------------------------------------
make_plan()
{
	say "a balancer, and the standard plan"
	green "SELECT bcmig_alter_environment('business_central', '{\"health_url\": \"$health_of_blue\"}')" >/dev/null
	green_user=postgres green "SELECT bcmig_alter_environment('green', '{\"health_url\": \"$health_of_green\"}')" >/dev/null
	green "SELECT bcmig_add_balancer('cronus', 'front', 'haproxy', 'tcp://127.0.0.1:$front_api', '{\"backend\": \"bc\", \"blue\": [\"blue1\", \"blue2\"], \"green\": [\"green1\"]}')" >/dev/null
	echo "$(green "SELECT bcmig_create_plan('move', 'cronus', NULL, '{\"steps\": [5, 25, 50, 100], \"stabilization\": \"3 s\", \"auto_rollback\": true}')") phases"
	green "SELECT format('  %s', r) FROM bcmig_rehearse_plan('move') r WHERE status = 'fail'" >"$work/rehearsal"
	[ ! -s "$work/rehearsal" ] || fail "the rehearsal: $(cat "$work/rehearsal")"
	echo "rehearsed: nothing of it would fail"
}

# A line for each phase that has ended and for each weight.
carry_out()
{
	local state percent weight shown=-1 at=0 position line until_then=$((SECONDS + deadline))

	say "the plan is carried out, with both companies at work"
	execution=$(green "SELECT bcmig_execute_plan('move')")
	while :; do
		workload_alive
		IFS='|' read -r state percent weight < <(green "SELECT e.state, e.percent, t.green_percent FROM bcmig.execution_status e, bcmig.traffic_status t WHERE e.execution = $execution AND t.sync = 'cronus'")
		while IFS='|' read -r position line; do
			at=$position
			echo "$line"
		done < <(green "SELECT position, format('  %-14s %-8s %5s s  %s', name, state, round(extract(epoch FROM ended_at - started_at), 1), concat_ws(' ', error, note)) FROM bcmig.phase_run
						 WHERE execution_id = $execution AND position > $at AND state NOT IN ('pending', 'waiting', 'running') ORDER BY position")
		if [ "$weight" != "$shown" ]; then
			shown=$weight
			[ "$weight" = 0 ] || echo "  $weight % of readers on green, $percent % of the plan"
		fi
		[ "$state" = running ] || break
		[ $SECONDS -lt $until_then ] || fail "the plan took more than $deadline s"
		sleep 0.3
	done
	[ "$state" = 'done' ] || {
		green "SELECT format('  %s: %s', name, concat_ws(' ', error, note)) FROM bcmig.phase_run WHERE execution_id = $execution AND error IS NOT NULL"
		green "SELECT format('  %s: %s', target, s) FROM bcmig.validation_summary s WHERE sync = 'cronus' AND verdict <> 'ok'"
		fail "the plan has ended as $state"
	}
}

at_hundred()
{
	local now refused

	say "100 %: readers and writers are on green"
	now=$(green "SELECT concat_ws(' ', green_percent, writes, CASE WHEN fence THEN 'fenced' ELSE 'open' END, CASE WHEN journal_armed THEN 'armed' END, left(blue_fence, 6)) FROM bcmig.traffic_status WHERE sync = 'cronus'")
	[ "$now" = '100 green open armed fenced' ] || fail "traffic is: $now"
	refused=$(blue "UPDATE \"$big\$Customer\" SET \"Name\" = 'on the wrong side'" 2>&1 || true)
	grep -q 'takes no writes any more' <<<"$refused" || fail "blue is not fenced: $refused"
	echo "blue refuses: $(head -n 1 <<<"$refused")"
	more_writes green $((5 * WRITE_RATE))
	psql_green -c "SELECT sync, journal_armed, unreplayed, replayed, conflicts, problem FROM bcmig.journal_status WHERE sync = 'cronus'"
	show_syncs
	check_books green "$big"
	write_reports migration "bcmig_migration_report($execution, '%s')"
}

write_reports()					# name call
{
	local format

	mkdir -p "$reports"
	for format in text html; do
		# shellcheck disable=SC2059
		green "SELECT $(printf "$2" $format)" >"$reports/$1.$format"
		[ -s "$reports/$1.$format" ] || fail "the $1 report is empty"
	done
	echo "  $reports/$1.text and .html: $(grep -m 1 -oE 'NO-GO|GO|UNKNOWN' "$reports/$1.text" || head -n 1 "$reports/$1.text")"
}

back()
{
	say "back: first what would be done"
	psql_green -c "SELECT step, \"where\", reversible, expected FROM bcmig_rollback('cronus', 'the demonstration is over', dry_run => true)"
	green "SELECT count(*) FROM bcmig_rollback('cronus', 'the demonstration is over')" >/dev/null
	psql_green -c "CALL bcmig_wait_sync('cronus', 'rolled_back', '2 min')" || fail "no way back"
	more_writes blue $((3 * WRITE_RATE))
	write_reports rollback "bcmig_rollback_report('cronus', '%s')"
}

# ---------------------------------------------------------------------------
# Documents in the books of CRONUS that the workload has posted.
posted()						# side
{
	for_company "$big" <<<'COPY (SELECT DISTINCT "Document No_" FROM {G_L Entry} WHERE "User ID" = '\''LIVE'\'' ORDER BY 1) TO STDOUT' | "psql_$1" -At | LC_ALL=C sort
}

check_acknowledged()
{
	local side lost more

	awk '$4 != "-" { print $4 }' "$work/acknowledged" | LC_ALL=C sort >"$work/documents"
	[ -s "$work/documents" ] || fail "no document was posted"
	[ -z "$(uniq -d "$work/documents")" ] || fail "posted twice: $(uniq -d "$work/documents" | head -n 3)"
	for side in blue green; do
		posted $side >"$work/posted"
		lost=$(LC_ALL=C comm -23 "$work/documents" "$work/posted")
		more=$(LC_ALL=C comm -13 "$work/documents" "$work/posted")
		[ -z "$lost" ] || fail "acknowledged and not on $side: $(head -n 3 <<<"$lost")"
		[ -z "$more" ] || fail "on $side and never acknowledged: $(head -n 3 <<<"$more")"
		echo "  $(wc -l <"$work/documents") documents were acknowledged, $side has these and no other"
	done
	[ "$(green "SELECT count(*) FROM bcmig.quarantine")" = 0 ] || fail "there are quarantined rows"
	[ "$(green "SELECT count(*) FROM bcmig.conflict")" = 0 ] || fail "there are conflicts"
	[ "$(green "SELECT count(*) FROM bcmig.journal WHERE settled_at IS NULL")" = 0 ] || fail "rows written on green are not on blue"
}

end_readers()
{
	kill "$reader"
	wait "$reader" || fail "the reader died"
	grep -qx 'failed 0' "$work/reader" || fail "requests failed: $(head -n 8 "$work/reader")"
	for server in blue1 blue2 green1; do
		grep -q "^$server " "$work/reader" || fail "no request was answered by $server"
	done
}

figures()
{
	say "figures"
	cat <<-END
		  acknowledged writes   $(acknowledged blue) on blue, $(acknowledged green) on green, none lost; the longest took $(awk '$3 > most { most = $3 } END { print most }' "$work/acknowledged") s
		  requests              $(tr '\n' ' ' <"$work/reader")
		  writes stopped        $(green "SELECT string_agg(format('%s %s ms', kind, write_pause_ms), ', ' ORDER BY switch_id) FROM bcmig.switch_status WHERE sync = 'cronus'")
		  reports               $reports
		  all                   $((SECONDS - started)) s
	END
}

run_demo()
{
	local company

	start_front
	say "the workload starts: $WRITE_RATE transactions a second in CRONUS, $RATE in My Company"
	make_green
	prepare_application
	start_writers
	start_workload "$small" small
	make_plan
	carry_out
	at_hundred
	back
	end_readers
	stop_workload
	compare_all
	say "the books"
	for company in "$big" "$small"; do
		check_books blue "$company"
		check_books green "$company"
	done
	check_acknowledged
	figures
}
