# growth.sh: sourced by bench/run: what grows with the number of tables, syncs and rows, and what does not.
# shellcheck shell=bash disable=SC2154
BENCH_TABLES=${BENCH_TABLES:-10 100 1000 4000}
BENCH_SYNCS=${BENCH_SYNCS:-1 10 100}
IDLE_SECONDS=${IDLE_SECONDS:-60}
GROWTH_ROWS=${GROWTH_ROWS:-100000 1000000 10000000}
GROWTH_TDS_ROWS=${GROWTH_TDS_ROWS:-2000 20000}

# clock ticks the processes of these clusters have used; those that have ended count in their postmaster
ticks()
{
	local side pm sum=0 p t

	for side in "$@"; do
		pm=$(head -1 "$work/$side/postmaster.pid")
		for p in $pm $(pgrep -P "$pm"); do
			t=$(awk -v pm="$pm" '{p = $1; sub(/.*\) /, ""); print $12 + $13 + (p == pm ? $14 + $15 : 0)}' "/proc/$p/stat" 2>/dev/null || echo 0)
			sum=$((sum + t))
		done
	done
	echo $sum
}

# percent of a core
percent()
{
	awk -v t="$1" -v hz="$(getconf CLK_TCK)" -v s="$2" 'BEGIN {printf "%.2f", t * 100 / hz / s}'
}

# MB of private memory of bcmig's processes
memory()
{
	local pid sum=0 kb

	for pid in $(green -c 'SELECT pid FROM bcmig.worker_status'); do
		kb=$(awk '/RssAnon/ {print $2}' "/proc/$pid/status" 2>/dev/null || echo 0)
		sum=$((sum + kb))
	done
	echo $(((sum + 1023) / 1024))
}

# make_tables FIRST LAST: tiny tables t<i> on blue
make_tables()
{
	blue >/dev/null <<-END
		SET client_min_messages = warning;
		DO \$\$ BEGIN FOR i IN $1..$2 LOOP
			EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0)', i);
			EXECUTE format('INSERT INTO t%s SELECT g FROM generate_series(1, 5) g', i);
			PERFORM bcmig_blue.track(('t' || i)::regclass);
			IF i % 100 = 0 THEN COMMIT; END IF;
		END LOOP; END \$\$;
	END
}

# drop_tables LAST: those of make_tables, on both sides
drop_tables()
{
	local side

	for side in blue green; do
		"$side" >/dev/null <<-END
			SET client_min_messages = warning;
			DO \$\$ BEGIN FOR i IN 1..$1 LOOP
				EXECUTE format('DROP TABLE IF EXISTS t%s CASCADE', i);
				IF i % 50 = 0 THEN COMMIT; END IF;
			END LOOP; END \$\$;
		END
	done
	blue -c 'DROP SCHEMA bcmig_blue CASCADE' 2>/dev/null
	blue -f "$top/blue/postgres_tracking.sql"
}

# seconds a statement on green takes, the best of three, and the rows of its answer
answer_time()
{
	local i

	for i in 1 2 3; do
		green -c '\timing' -c "$1" | awk '/^Time:/ {print $2 / 1000}'
	done | sort -n | head -n 1
}

# seconds of a statement on green
seconds_of()
{
	green -c '\timing' -c "$1" 2>/dev/null | awk '/^Time:/ {printf "%.2f", $2 / 1000}'
}

# stop_and_forget SYNC: its tables stay
stop_and_forget()
{
	green -c "SELECT bcmig_stop_sync('$1')" >/dev/null
	until [ "$(green -c "SELECT state FROM bcmig.sync_state JOIN bcmig.sync USING (sync_id) WHERE name = '$1'")" = stopped ]; do sleep 0.2; done
	green -c "SELECT count(*) FROM bcmig_drop_sync('$1')" >/dev/null
}

# idle_second NAME: what a second costs in which nothing happens
idle_second()
{
	local name=$1 b g logins

	# until polls have slowed down, and what a start leaves behind is done
	sleep "${IDLE_BEFORE:-20}"
	blue -c 'SELECT pg_stat_statements_reset()' >/dev/null
	logins=$(blue -c "SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'")
	b=$(ticks blue)
	g=$(ticks green)
	sleep "$IDLE_SECONDS"
	b=$(($(ticks blue) - b))
	g=$(($(ticks green) - g))
	bench "idle_statements_per_s_$name" "$(blue -c "SELECT round(sum(calls) / $IDLE_SECONDS::numeric, 1) FROM pg_stat_statements WHERE query !~ 'pg_stat_(statements|database)'")" statements/s
	bench "idle_cpu_percent_$name" "$(percent $((b + g)) "$IDLE_SECONDS")" "percent of a core"
	detail "blue $(percent $b "$IDLE_SECONDS"), green $(percent $g "$IDLE_SECONDS"); logins on blue $(($(blue -c "SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'") - logins - 1)) in $IDLE_SECONDS s;" \
		"sessions on blue $(blue -c "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"), processes of bcmig $(green -c 'SELECT count(*) FROM bcmig.worker_status'), their memory $(memory) MB"
}

bench_idle()
{
	local tables syncs n before=0 s view times most

	for tables in $BENCH_TABLES; do
		make_tables $((before + 1)) "$tables"
		[ "$before" -gt 0 ] || green -c "SELECT bcmig_create_sync('idle', 'blue')" >/dev/null
		times="add $(seconds_of "SELECT count(bcmig_add_table('idle', 't' || i)) FROM generate_series($((before + 1)), $tables) i"),"
		times+=" start $(seconds_of "SELECT bcmig_start_sync('idle')"),"
		times+=" until caught up $(seconds_of "CALL bcmig_wait_sync('idle', 'caught_up', '1 hour')"),"
		idle_second "${tables}_tables"
		most=0
		for view in sync_status table_status worker_status environment_status progress alert_condition traffic_status validation_summary timeline; do
			s=$(answer_time "SELECT count(v) FROM bcmig.$view v")
			times+=" $view $s,"
			most=$(awk -v a="$most" -v b="$s" 'BEGIN {print a > b ? a : b}')
		done
		s=$(answer_time 'SELECT count(v) FROM bcmig_status() v')
		bench "slowest_view_${tables}_tables_s" "$(awk -v a="$most" -v b="$s" 'BEGIN {print a > b ? a : b}')" s
		detail "$tables tables of one sync, s:$times bcmig_status $s"
		before=$tables
	done
	stop_and_forget idle
	drop_tables "$before"

	n=0
	for syncs in $BENCH_SYNCS; do
		n=$syncs
	done
	tables=${SYNC_TABLES:-40}
	make_tables 1 $((n * tables))
	before=0
	for syncs in $BENCH_SYNCS; do
		for ((n = before + 1; n <= syncs; n++)); do
			green -c "SELECT bcmig_create_sync('idle$n', 'blue')" -c "SELECT count(bcmig_add_table('idle$n', 't' || i)) FROM generate_series($(((n - 1) * tables + 1)), $((n * tables))) i" \
				-c "SELECT bcmig_start_sync('idle$n')" >/dev/null 2>&1
		done
		for ((n = before + 1; n <= syncs; n++)); do
			green -c "CALL bcmig_wait_sync('idle$n', 'caught_up', '1 hour')" >/dev/null 2>&1
		done
		idle_second "${syncs}_syncs"
		detail "$syncs syncs of $tables tables, s: sync_status $(answer_time 'SELECT count(v) FROM bcmig.sync_status v'), table_status $(answer_time 'SELECT count(v) FROM bcmig.table_status v')," \
			"alert_condition $(answer_time 'SELECT count(v) FROM bcmig.alert_condition v'), bcmig_status $(answer_time 'SELECT count(v) FROM bcmig_status() v')"
		before=$syncs
	done
	for ((n = 1; n <= before; n++)); do
		stop_and_forget "idle$n"
	done
	drop_tables $((before * tables))
}

# change_some RUN: 1,000 rows of gl, scattered over the table
change_some()
{
	echo "UPDATE gl SET \"Quantity\" = \"Quantity\" + 1 WHERE \"Entry No_\" IN (SELECT ($1 + g * 7919::bigint) % (SELECT max(\"Entry No_\") FROM gl) + 1 FROM generate_series(1, 1000) g)"
}

# rows of gl that were read on blue, by scans and through indexes; sessions tell of them ten seconds after they were last used
rows_read()
{
	sleep 12
	"$1" -c "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_user_tables WHERE relname = 'gl'"
}

# windows_of BLUE NAME ROWS: what a window of 1,000 changes costs sync grow
windows_of()
{
	local side=$1 name=$2 rows=$3 ms=() cpu=() before i since t

	before=$(rows_read "$side")
	for ((i = 0; i < RUNS; i++)); do
		since=$(green -c 'SELECT clock_timestamp()')
		t=$(ticks blue green)
		"$side" -c "$(change_some "$i")" >/dev/null
		# not until caught up: that asks for a sweep where deletes come by one
		until [ "$(green -c "SELECT coalesce(sum(rows_read), 0) >= 1000 FROM bcmig.sync_batch WHERE kind = 'window' AND started_at > '$since'")" = t ]; do sleep 0.1; done
		ms+=("$(green -c "SELECT round(sum(extract(epoch FROM finished_at - started_at)) * 1000, 1) FROM bcmig.sync_batch WHERE kind = 'window' AND started_at > '$since'")")
		cpu+=("$((($(ticks blue green) - t) * 1000 / $(getconf CLK_TCK)))")
	done
	bench "growth_${name}_window_ms_$rows" "$(median "${ms[@]}")" ms
	# the UPDATE has read 1,000 and looked for the last one
	bench "growth_${name}_rows_scanned_$rows" $((($(rows_read "$side") - before) / RUNS - 1001)) "rows of blue for a window"
	detail "1,000 changes of $rows rows, windows ms: ${ms[*]}; processor time of both clusters with the change and the wait, ms: ${cpu[*]}"
}

bench_growth()
{
	local rows capture

	for rows in $GROWTH_ROWS; do
		blue -v rows="$rows" -f "$here/gl_entry.sql" >/dev/null
		for capture in change_tracking rowversion; do
			[ $capture = change_tracking ] || blue -c "SELECT bcmig_blue.track('gl', 'rowversion')" -c 'ANALYZE gl' >/dev/null
			green -c "SELECT bcmig_create_sync('grow', 'blue', '{\"workers\": 1, \"sweep_interval\": \"7d\"}')" \
				-c "SELECT bcmig_add_table('grow', 'gl', options => '{\"capture\": \"$capture\"}')" \
				-c "SELECT bcmig_start_sync('grow')" -c "CALL bcmig_wait_sync('grow', 'caught_up', '3 hours')" >/dev/null 2>&1
			windows_of blue "$capture" "$rows"
			drop_sync grow
		done
		blue -c 'DROP TABLE gl'
	done
	[ -n "$GROWTH_TDS_ROWS" ] || return 0
	setup_tds
	for rows in $GROWTH_TDS_ROWS; do
		bc -v rows="$rows" -f <(grep -v bcmig_blue "$here/gl_entry.sql") -c "SELECT mssql.register('gl', 'gl')" >/dev/null
		green -c "SELECT bcmig_create_sync('grow', 'bc', '{\"workers\": 1}')" -c "SELECT bcmig_add_table('grow', 'gl')" \
			-c "SELECT bcmig_start_sync('grow')" -c "CALL bcmig_wait_sync('grow', 'caught_up', '3 hours')" >/dev/null 2>&1
		windows_of bc tds_change_tracking "$rows"
		drop_sync grow
		bc -c 'DROP TABLE gl'
	done
	stop_tds
}

bench_catalogue()
{
	:
}
