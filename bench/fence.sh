# fence.sh: sourced by bench/run: what the fence costs those it is not about, and
# what the journal costs those it records.
# shellcheck shell=bash disable=SC2154

SECONDS_EACH=${SECONDS_EACH:-5}

# transactions per second of pgbench on green with these options
pgbench_tps()
{
	as_server env PGOPTIONS="-c synchronous_commit=${commit:-off}" "$bin/pgbench" -h "$work" -p 5602 -U postgres -n -T "$SECONDS_EACH" "$@" postgres 2>/dev/null |
		awk '/^tps/ {print $3}'
}

# green anew, with these libraries
restart_green()
{
	sed -i "s/^shared_preload_libraries = .*/shared_preload_libraries = '$1'/" "$work/green/postgresql.conf"
	as_server "$bin/pg_ctl" -D "$work/green" -l "$work/green.log" -m fast -w restart >/dev/null
	green -c 'SELECT count(*) FROM pgbench_accounts' -c CHECKPOINT >/dev/null
}

# what is lost from $1 to $2, in percent
lost()
{
	awk -v a="$1" -v b="$2" 'BEGIN {printf "%.1f", 100 * (a / b - 1)}'
}

bench_fence()
{
	local read_plain=() read_fenced=() write_plain=() write_fenced=() plain=() armed=() safe_plain=() safe_armed=() i commit

	blue -c 'CREATE TABLE gl (id int PRIMARY KEY, account varchar(20), amount numeric(38,20), note text, "timestamp" bigint NOT NULL DEFAULT 0)' \
		-c "INSERT INTO gl SELECT i, 'A' || i % 100, i, repeat('x', 80), 0 FROM generate_series(1, 10000) i" -c "SELECT bcmig_blue.track('gl')" >/dev/null
	green -c "SELECT bcmig_create_sync('fence', 'blue')" -c "SELECT bcmig_add_table('fence', 'gl')" -c "SELECT bcmig_start_sync('fence')" \
		-c "CALL bcmig_wait_sync('fence', 'caught_up', '10 min')" -c "SELECT bcmig_stop_sync('fence')" >/dev/null 2>&1
	as_server "$bin/pgbench" -h "$work" -p 5602 -U postgres -i -s 10 -q postgres >/dev/null 2>&1

	# a table of no sync, in a database where a fence is up
	for ((i = 0; i < RUNS; i++)); do
		restart_green ""
		read_plain+=("$(pgbench_tps -S)")
		write_plain+=("$(pgbench_tps -N)")
		restart_green bcmig
		read_fenced+=("$(pgbench_tps -S)")
		write_fenced+=("$(pgbench_tps -N)")
	done
	bench fence_overhead_percent "$(lost "$(median "${read_plain[@]}")" "$(median "${read_fenced[@]}")")" "percent (pgbench -S)"
	bench fence_overhead_percent "$(lost "$(median "${write_plain[@]}")" "$(median "${write_fenced[@]}")")" "percent (pgbench -N)"
	detail "tps of -S without bcmig: ${read_plain[*]}; with: ${read_fenced[*]}"
	detail "tps of -N without bcmig: ${write_plain[*]}; with: ${write_fenced[*]} (synchronous_commit off)"

	# a green table that is written to by others
	green -c "SELECT bcmig.lift_fence('fence')" >/dev/null
	printf '\\set id random(1, 10000)\nUPDATE gl SET amount = amount + 1 WHERE id = :id;\n' >"$work/update.sql"
	chmod a+r "$work/update.sql"
	for ((i = 0; i < RUNS; i++)); do
		for commit in on off; do
			green -c 'VACUUM gl' -c CHECKPOINT
			[ $commit = on ] && safe_plain+=("$(pgbench_tps -f "$work/update.sql")") || plain+=("$(pgbench_tps -f "$work/update.sql")")
			green -c "SELECT bcmig.arm_journal('fence')" -c 'VACUUM gl' -c CHECKPOINT >/dev/null
			[ $commit = on ] && safe_armed+=("$(pgbench_tps -f "$work/update.sql")") || armed+=("$(pgbench_tps -f "$work/update.sql")")
			green -c "SELECT bcmig.disarm_journal('fence')" >/dev/null
		done
	done
	bench journal_overhead_percent "$(lost "$(median "${safe_plain[@]}")" "$(median "${safe_armed[@]}")")" percent
	detail "updates/s of one session without the journal: ${safe_plain[*]}; with: ${safe_armed[*]}"
	detail "the same with synchronous_commit off, $(lost "$(median "${plain[@]}")" "$(median "${armed[@]}")") %: ${plain[*]}; with: ${armed[*]}"
	green -c "SELECT count(*) FROM bcmig_drop_sync('fence', drop_tables => true)" >/dev/null
	blue -c 'DROP TABLE gl'
}
