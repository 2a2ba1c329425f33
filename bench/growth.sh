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
	blue >/dev/null <<-MAKE
		SET client_min_messages = warning;
		DO \$\$ BEGIN FOR i IN $1..$2 LOOP
			EXECUTE format('CREATE TABLE t%s (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0)', i);
			EXECUTE format('INSERT INTO t%s SELECT g FROM generate_series(1, 5) g', i);
			PERFORM bcmig_blue.track(('t' || i)::regclass);
			IF i % 100 = 0 THEN COMMIT; END IF;
		END LOOP; END \$\$;
	MAKE
}

# drop_tables LAST: those of make_tables, on both sides
drop_tables()
{
	local side

	for side in blue green; do
		"$side" >/dev/null <<-DROP
			SET client_min_messages = warning;
			DO \$\$ BEGIN FOR i IN 1..$1 LOOP
				IF to_regclass('bcmig_blue.tracked') IS NOT NULL THEN
					PERFORM bcmig_blue.untrack(('t' || i)::regclass);
				END IF;
				EXECUTE format('DROP TABLE IF EXISTS t%s', i);
				IF i % 50 = 0 THEN COMMIT; END IF;
			END LOOP; END \$\$;
		DROP
	done
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
	# one is that which read the number before
	logins=$(($(blue -c "SELECT sessions FROM pg_stat_database WHERE datname = 'postgres'") - logins - 1))
	bench "idle_statements_per_s_$name" "$(blue -c "SELECT round(sum(calls) / $IDLE_SECONDS::numeric, 1) FROM pg_stat_statements WHERE query !~ 'pg_stat_(statements|database)'")" statements/s
	bench "idle_cpu_percent_$name" "$(percent $((b + g)) "$IDLE_SECONDS")" "percent of a core"
	detail "blue $(percent $b "$IDLE_SECONDS"), green $(percent $g "$IDLE_SECONDS"); logins on blue $logins in $IDLE_SECONDS s;" \
		"sessions on blue $(blue -c "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"), processes of bcmig $(green -c 'SELECT count(*) FROM bcmig.worker_status'), their memory $(memory) MB"
}

bench_idle()
{
	local tables syncs n before=0 s view times most

	for tables in $BENCH_TABLES; do
		make_tables $((before + 1)) "$tables"
		[ "$before" -gt 0 ] || green -c "SELECT bcmig_create_sync('idle', 'blue')" >/dev/null
		times="add $(seconds_of "DO \$\$ BEGIN FOR i IN $((before + 1))..$tables LOOP PERFORM bcmig_add_table('idle', 't' || i); IF i % 100 = 0 THEN COMMIT; END IF; END LOOP; END \$\$"),"
		times+=" start $(seconds_of "SELECT bcmig_start_sync('idle')"),"
		times+=" until caught up $(seconds_of "CALL bcmig_wait_sync('idle', 'caught_up', '1 hour')"),"
		idle_second "${tables}_tables"
		most=0
		for view in sync_status table_status worker_status environment_status progress alert_condition traffic_status validation_summary timeline; do
			s=$(answer_time "SELECT count(v) FROM bcmig.$view v")
			times+=" $view $s,"
			most=$(awk -v a="$most" -v b="$s" 'BEGIN {print (a > b ? a : b)}')
		done
		s=$(answer_time 'SELECT count(v) FROM bcmig_status() v')
		bench "slowest_view_${tables}_tables_s" "$(awk -v a="$most" -v b="$s" 'BEGIN {print (a > b ? a : b)}')" s
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

# bytes and rows of the catalogue's tables on a side, a line a table
sizes()
{
	"$1" -F ' ' -c "SELECT format('%s.%s', n.nspname, c.relname), pg_total_relation_size(c.oid), (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM %s', c.oid::regclass), false, true, '')))[1]
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname IN ('bcmig', 'bcmig_blue') AND c.relkind = 'r' ORDER BY 1"
}

# what has grown in a file of sizes after another: rows and bytes for each batch
grown()
{
	awk -v n="$1" 'NR == FNR {b[$1] = $2; r[$1] = $3; next} $3 > r[$1] {printf "%s%s %.2f rows", sep, $1, ($3 - r[$1]) / n; sep = ", "}' "$2" "$3"
}

catalogue_mb()
{
	green -c "SELECT round(sum(pg_total_relation_size(c.oid)) / 1048576.0, 1) FROM pg_class c WHERE c.relnamespace = 'bcmig'::regnamespace AND c.relkind = 'r'"
}

# old_batches N: of a time before all others
old_batches()
{
	green -c "INSERT INTO bcmig.sync_batch (batch_id, sync_id, table_id, kind, status, started_at, finished_at, rows_read, rows_written, from_position, to_position)
		OVERRIDING SYSTEM VALUE SELECT (SELECT coalesce(min(batch_id), 0) FROM bcmig.sync_batch) - $1 + g, sync_id, table_id, 'window', 'Completed', now() - interval '30 days' + g * interval '1 ms',
		now() - interval '30 days' + g * interval '1 ms', 1, 1, g, g FROM generate_series(0, $1 - 1) g, bcmig.sync_table WHERE target_table = 't1'"
}

bench_catalogue()
{
	local n=${BENCH_BATCHES:-10000000} windows=${BENCH_WINDOWS:-5000} rounds=${BENCH_ROUNDS:-5} mb=() seconds=() before started plan i batches

	make_tables 1 20
	green -c "SELECT bcmig_create_sync('hist', 'blue')" -c "SELECT count(bcmig_add_table('hist', 't' || i)) FROM generate_series(1, 20) i" \
		-c "SELECT bcmig_start_sync('hist')" -c "CALL bcmig_wait_sync('hist', 'caught_up', '10 min')" \
		-c "SELECT bcmig_validate('hist', NULL, 'full')" -c "CALL bcmig_wait_sync('hist', 'validated')" >/dev/null 2>&1

	# real windows, of a table that was validated: what each leaves behind
	sizes green >"$work/green.before"
	sizes blue >"$work/blue.before"
	before=$(green -c 'SELECT coalesce(max(batch_id), 0) FROM bcmig.sync_batch')
	echo 'UPDATE t1 SET v = random() WHERE id = 1' >"$work/one.sql"
	until [ "$(($(green -c 'SELECT coalesce(max(batch_id), 0) FROM bcmig.sync_batch') - before))" -ge "$windows" ]; do
		pgbench -n -h "$work" -p 5601 -U postgres -f "$work/one.sql" -R 40 -T 10 postgres >/dev/null 2>&1
	done
	green -c "CALL bcmig_wait_sync('hist', 'caught_up')" >/dev/null 2>&1
	batches=$(($(green -c 'SELECT max(batch_id) FROM bcmig.sync_batch') - before))
	sizes green >"$work/green.after"
	sizes blue >"$work/blue.after"
	detail "$batches windows of one row each; for each of them, beside what clean-ups took away: green $(grown "$batches" "$work/green.before" "$work/green.after"); blue $(grown "$batches" "$work/blue.before" "$work/blue.after")"

	# history comes and goes: the same space again and again
	for ((i = 0; i < rounds; i++)); do
		old_batches $((n / rounds)) >/dev/null
		started=$(date +%s)
		until [ "$(green -c "SELECT count(*) FROM (SELECT started_at FROM bcmig.sync_batch ORDER BY batch_id LIMIT 1) b WHERE started_at < now() - interval '20 days'")" = 0 ]; do sleep 1; done
		seconds+=($(($(date +%s) - started)))
		# as autovacuum does
		green -c 'VACUUM bcmig.sync_batch'
		mb+=("$(catalogue_mb)")
	done
	bench catalogue_growth_ratio "$(ratio "${mb[-1]}" "${mb[0]}")" "ratio of the catalogue's size after $n batches to that after $((n / rounds))"
	detail "$rounds times $((n / rounds)) batches older than bcmig.sync_batch_retention: catalogue MB ${mb[*]}; s until they were gone: ${seconds[*]}"

	# as many that are kept: what cleaning and looking cost then
	green -c "INSERT INTO bcmig.sync_batch (sync_id, table_id, kind, status, started_at, finished_at, rows_read, rows_written) SELECT sync_id, table_id, 'window', 'Completed',
		now() - interval '6 days' + g * interval '1 ms', now() - interval '6 days' + g * interval '1 ms', 1, 1 FROM generate_series(1, $n) g, bcmig.sync_table WHERE target_table = 't1'" -c 'ANALYZE bcmig.sync_batch'
	plan=$(green -c "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, COSTS OFF) SELECT b.batch_id FROM (SELECT batch_id, started_at FROM bcmig.sync_batch ORDER BY batch_id LIMIT 10000) b WHERE b.started_at < now() - interval '7 days'")
	bench catalogue_prune_look_ms "$(awk '/Execution Time/ {print $3}' <<<"$plan")" "ms when $n are kept and none is old"
	detail "$(grep -o 'Index [A-Za-z ]*Scan using [a-z_]*\|Seq Scan on [a-z_]*' <<<"$plan" | head -n 1); with $n batches, s: sync_status $(answer_time 'SELECT count(v) FROM bcmig.sync_status v'), alert_condition $(answer_time 'SELECT count(v) FROM bcmig.alert_condition v')," \
		"bcmig_status $(answer_time 'SELECT count(v) FROM bcmig_status() v'), bcmig_health_report $(answer_time 'SELECT length(bcmig_health_report())'), bcmig_sync_report $(answer_time 'SELECT length(bcmig_sync_report())')," \
		"bcmig_migration_report $(answer_time 'SELECT length(bcmig_migration_report())'), bcmig_optimize_sync $(answer_time "SELECT count(*) FROM bcmig_optimize_sync('hist')"), bcmig_check_gates $(answer_time "SELECT count(*) FROM bcmig_check_gates('hist')")"

	# marks of a table nobody validates
	green -c "INSERT INTO bcmig.dirty_chunk (table_id, generation, chunk) SELECT table_id, generation, g % 20 FROM bcmig.chunking JOIN bcmig.sync_table USING (table_id), generate_series(1, $((n / 10))) g WHERE target_table = 't1'"
	until [ "$(green -c 'SELECT count(*) FROM (SELECT FROM bcmig.dirty_chunk LIMIT 100) d')" -lt 100 ]; do sleep 1; done
	detail "$((n / 10)) marks of 20 chunks were folded into $(green -c 'SELECT count(*) FROM bcmig.dirty_chunk')"
	stop_and_forget hist
	drop_tables 20
	green -c 'TRUNCATE bcmig.sync_batch'
}
