# cost.sh: sourced by bench/run: what blue pays: logins, statements, rows, time of its processors, for a million rows and for an idle
# hour; and what the tracking trigger adds to a write.  On a SQL Server (the stand-in) logins and statements.
# shellcheck shell=bash disable=SC2154
COST_IDLE=${COST_IDLE:-60}			# s
COST_WRITES=${COST_WRITES:-2000}	# transactions of ten rows each, for the trigger
COST_TDS_ROWS=${COST_TDS_ROWS:-20000}

# ticks of blue: its postmaster, its children, and those that have ended
blue_ticks()
{
	local pm p sum=0

	pm=$(head -1 "$work/blue/postmaster.pid")
	sum=$(awk '{sub(/.*\) /, ""); print $12 + $13 + $14 + $15}' "/proc/$pm/stat")
	for p in $(pgrep -P "$pm"); do
		sum=$((sum + $(awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$p/stat" 2>/dev/null || echo 0)))
	done
	echo "$sum"
}

# of the reader's backends alone, while something else loads blue
reader_ticks()
{
	local p sum=0

	for p in $(blue -c "SELECT pid FROM pg_stat_activity WHERE usename = 'reader'"); do
		sum=$((sum + $(awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$p/stat" 2>/dev/null || echo 0)))
	done
	echo "$sum"
}

# "logins statements rows-sent ticks rows-looked-at" of blue until now; $1: how ticks are counted; "after": wait for the rows looked at, which
# an idle backend tells ten seconds after its last transaction
blue_counts()
{
	local now

	now="$(grep -c 'connection authorized: user=reader' "$work/blue.log" || true) $(blue -F ' ' -c "SELECT coalesce(sum(calls), 0)::bigint, coalesce(sum(rows), 0)::bigint
		FROM pg_stat_statements s JOIN pg_roles r ON r.oid = s.userid WHERE r.rolname = 'reader'") $("$1")"
	[ "${2:-}" != after ] || sleep 11
	echo "$now $(blue -c 'SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables')"
}

# cost NAME UNITS-DONE PER TEXT BEFORE AFTER: a line for each, "for PER units"
cost()
{
	local name=$1 before after i
	local names=(logins statements rows_sent cpu_s rows_looked_at)

	read -r -a before <<<"$5"
	read -r -a after <<<"$6"
	for i in 0 1 2 3 4; do
		bench "cost_${name}_${names[i]}" "$(awk -v a="${after[i]}" -v b="${before[i]}" -v n="$2" -v per="$3" -v hz="$([ "$i" = 3 ] && getconf CLK_TCK || echo 1)" \
			'BEGIN {v = (a - b) / hz * per / n; printf v < 100 ? "%.2f" : "%.0f", v}')" "$4"
	done
}

cost_copy()
{
	local before

	before=$(blue_counts blue_ticks)
	green -c "SELECT bcmig_create_sync('cost', 'blue')" -c "SELECT bcmig_add_table('cost', 'gl')" -c "SELECT bcmig_start_sync('cost')" \
		-c "CALL bcmig_wait_sync('cost', 'caught_up', '1 hour')" >/dev/null 2>&1
	cost copy "$BENCH_ROWS" 1000000 'a million rows copied' "$before" "$(blue_counts blue_ticks after)"
}

# a backlog of updates, 1,000 rows in a transaction, read at once; then the same rows one by one while they are made
cost_changes()
{
	local n=$((BENCH_ROWS / 6 / 1000 * 1000)) before after

	[ $n -gt 0 ] || n=1000
	green -c "SELECT bcmig_stop_sync('cost')" >/dev/null
	until [ "$(green -c "SELECT state FROM bcmig.sync_status WHERE sync = 'cost'")" = stopped ]; do sleep 0.1; done
	blue -c "DO \$\$ BEGIN FOR t IN 0 .. $n / 1000 - 1 LOOP
		UPDATE gl SET \"Amount\" = \"Amount\" + 1 WHERE \"Entry No_\" BETWEEN t * 1000 + 1 AND t * 1000 + 1000; COMMIT; END LOOP; END \$\$" -c 'VACUUM gl'
	sleep 11
	before=$(blue_counts blue_ticks)
	green -c "SELECT bcmig_start_sync('cost')" -c "CALL bcmig_wait_sync('cost', 'caught_up', '1 hour')" >/dev/null 2>&1
	cost backlog "$n" 1000000 'a million changes applied in bulk' "$before" "$(blue_counts blue_ticks after)"

	# without the rows the load itself looks at: one a transaction
	printf '%s\n' "\\set k random(1, $BENCH_ROWS)" 'UPDATE gl SET "Amount" = "Amount" + 1 WHERE "Entry No_" = :k;' >"$work/one.sql"
	before=$(blue_counts reader_ticks)
	pgbench -n -h "$work" -p 5601 -U postgres -f "$work/one.sql" -c 1 -R 100 -T 20 postgres >"$work/one.out" 2>&1
	green -c "CALL bcmig_wait_sync('cost', 'caught_up', '1 hour')" >/dev/null 2>&1
	after=$(blue_counts reader_ticks after)
	n=$(awk '/^number of transactions actually processed/ {print $6}' "$work/one.out")
	cost live "${n%%/*}" 1000000 'a million changes applied, one a transaction, 100 a second' "$before" "$after"
	detail "of the rows looked at by live changes one each is the application's own UPDATE"
}

cost_validations()
{
	local before

	before=$(blue_counts blue_ticks)
	green -c "SELECT bcmig_validate('cost', NULL, 'full')" -c "CALL bcmig_wait_sync('cost', 'validated')" >/dev/null 2>&1
	cost validate_full "$BENCH_ROWS" 1000000 'a million rows validated in full' "$before" "$(blue_counts blue_ticks after)"
	blue -c "UPDATE gl SET \"Quantity\" = \"Quantity\" + 1 WHERE \"Entry No_\" <= 1000" -c 'VACUUM gl'
	green -c "CALL bcmig_wait_sync('cost')" >/dev/null 2>&1
	sleep 11
	before=$(blue_counts blue_ticks)
	green -c "SELECT bcmig_validate('cost', NULL, 'incremental')" -c "CALL bcmig_wait_sync('cost', 'validated')" >/dev/null 2>&1
	cost validate_incremental "$BENCH_ROWS" 1000000 'a million rows of the table, 1,000 changed rows in all, validated incrementally' "$before" "$(blue_counts blue_ticks after)"
	detail "verdicts: $(green -c "SELECT string_agg(mode || ' ' || verdict, ', ' ORDER BY run_id) FROM bcmig.validation_run")"
}

cost_idle()
{
	local before

	sleep 15	# until polls have slowed down
	before=$(blue_counts blue_ticks)
	sleep "$COST_IDLE"
	cost idle "$COST_IDLE" 3600 "an idle hour, extrapolated from $COST_IDLE s" "$before" "$(blue_counts blue_ticks after)"
}

# processor time a written row costs blue: updates of ten neighbouring rows of gl, by one session
write_ticks()
{
	local before

	before=$(blue_ticks)
	pgbench -n -h "$work" -p 5601 -U postgres -f "$work/ten.sql" -c 1 -t "$COST_WRITES" postgres >/dev/null 2>&1
	sleep 2		# its backend has ended, and is in the postmaster's sum
	echo $(($(blue_ticks) - before))
}

cost_trigger()
{
	local plain=() tracked=() versions=() i

	printf '%s\n' "\\set k random(1, $BENCH_ROWS - 10)" 'UPDATE gl SET "Amount" = "Amount" + 1 WHERE "Entry No_" BETWEEN :k AND :k + 9;' >"$work/ten.sql"
	for ((i = 0; i < RUNS; i++)); do
		blue -c "SELECT bcmig_blue.untrack('gl')" -c 'VACUUM gl' -c CHECKPOINT >/dev/null 2>&1
		plain+=("$(write_ticks)")
		blue -c "SELECT bcmig_blue.track('gl')" -c 'VACUUM gl' -c CHECKPOINT >/dev/null 2>&1
		tracked+=("$(write_ticks)")
		blue -c "SELECT bcmig_blue.untrack('gl')" -c "SELECT bcmig_blue.track('gl', 'rowversion')" -c 'VACUUM gl' -c CHECKPOINT >/dev/null 2>&1
		versions+=("$(write_ticks)")
	done
	bench cost_tracking_ratio "$(ratio "$(median "${tracked[@]}")" "$(median "${plain[@]}")")" 'ratio (change_tracking, processor time of an UPDATE of ten rows)'
	bench cost_rowversion_ratio "$(ratio "$(median "${versions[@]}")" "$(median "${plain[@]}")")" 'ratio (rowversion, the same)'
	detail "ticks of blue for $COST_WRITES transactions: untracked ${plain[*]}; change_tracking ${tracked[*]}; rowversion ${versions[*]}"
}

# "logins batches" of the stand-in until now
tds_counts()
{
	sleep 1
	echo "$(grep -c ^login "$work/tds.log" || true) $(grep -c ^batch "$work/tds.log" || true)"
}

# tds_cost NAME UNITS-DONE PER TEXT BEFORE
tds_cost()
{
	local before after i
	local names=(logins statements)

	read -r -a before <<<"$5"
	read -r -a after <<<"$(tds_counts)"
	for i in 0 1; do
		bench "cost_tds_$1_${names[i]}" "$(awk -v n=$((after[i] - before[i])) -v done="$2" -v per="$3" 'BEGIN {printf "%.0f", n * per / done}')" "$4"
	done
	detail "by purpose: $(grep ^batch "$work/tds.log" | tail -n +$((before[1] + 1)) | awk '{n[$2]++} END {for (p in n) printf "%s %d  ", p, n[p]}')"
}

cost_tds()
{
	local before

	setup_tds
	bc -v rows="$COST_TDS_ROWS" -f <(grep -v bcmig_blue "$here/gl_entry.sql") -c "SELECT mssql.register('gl', 'gl')" >/dev/null
	# the grammar's first verdicts on a statement take seconds: once over everything before it is counted
	before='0 0'
	for ((i = 0; i < 2; i++)); do
		[ $i = 0 ] || drop_sync cost_tds
		[ ! -f "$work/tds.log" ] || before=$(tds_counts)
		green -c "SELECT bcmig_create_sync('cost_tds', 'bc')" -c "SELECT bcmig_add_table('cost_tds', 'gl')" -c "SELECT bcmig_start_sync('cost_tds')" \
			-c "CALL bcmig_wait_sync('cost_tds', 'caught_up', '1 hour')" >/dev/null 2>&1
	done
	tds_cost copy "$COST_TDS_ROWS" "$COST_TDS_ROWS" "a copy of $COST_TDS_ROWS rows" "$before"
	for ((i = 0; i < 2; i++)); do
		before=$(tds_counts)
		green -c "SELECT bcmig_validate('cost_tds', NULL, 'full')" -c "CALL bcmig_wait_sync('cost_tds', 'validated')" >/dev/null 2>&1
	done
	tds_cost validate_full "$COST_TDS_ROWS" "$COST_TDS_ROWS" "a full validation of $COST_TDS_ROWS rows" "$before"
	before=$(tds_counts)
	for ((i = 0; i < 20; i++)); do
		bc -c "UPDATE gl SET \"Amount\" = \"Amount\" + 1 WHERE \"Entry No_\" = $i + 1"
		sleep 0.2
	done
	green -c "CALL bcmig_wait_sync('cost_tds', 'caught_up', '1 hour')" >/dev/null 2>&1
	tds_cost live 20 1 'a change, five a second' "$before"
	sleep 20
	before=$(tds_counts)
	sleep "$COST_IDLE"
	tds_cost idle "$COST_IDLE" 3600 "an idle hour, extrapolated from $COST_IDLE s" "$before"
	drop_sync cost_tds
	stop_tds
}

bench_cost()
{
	blue -c 'CREATE ROLE reader SUPERUSER LOGIN' -c 'ALTER SYSTEM SET log_connections = on' -c 'ALTER SYSTEM SET autovacuum = off' -c 'SELECT pg_reload_conf()' >/dev/null
	green -c "ALTER USER MAPPING FOR postgres SERVER blue OPTIONS (SET user 'reader')"
	blue -v rows="$BENCH_ROWS" -f "$here/gl_entry.sql" >/dev/null
	cost_copy
	cost_changes
	cost_validations
	cost_idle
	detail "$BENCH_ROWS rows of 24 columns; processor time of the whole of blue, of live changes of the reader's backends alone; autovacuum off"
	drop_sync cost
	cost_trigger
	blue -c 'DROP TABLE gl'
	cost_tds
	green -c "ALTER USER MAPPING FOR postgres SERVER blue OPTIONS (SET user 'postgres')"
	blue -c 'ALTER SYSTEM RESET log_connections' -c 'ALTER SYSTEM RESET autovacuum' -c 'SELECT pg_reload_conf()' >/dev/null
}
