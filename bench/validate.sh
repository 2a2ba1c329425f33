# validate.sh: sourced by bench/run: what a validation costs on a PostgreSQL blue.
# shellcheck shell=bash disable=SC2154

# a validation to its end, waited for in the server: seconds from its begin to its verdict
validate_once()
{
	green -c "SELECT bcmig_validate('val', NULL, '$1')" -c "CALL bcmig_wait_sync('val', 'validated')" >/dev/null 2>&1
	green -c "SELECT CASE WHEN verdict = 'ok' THEN extract(epoch FROM finished_at - started_at)::text ELSE 'verdict ' || verdict END FROM bcmig.validation_run ORDER BY run_id DESC LIMIT 1"
}

# seconds windows take for so many changed rows
apply_once()
{
	local since

	since=$(green -c 'SELECT clock_timestamp()')
	blue -c "UPDATE gl SET \"Quantity\" = \"Quantity\" + 1 WHERE \"Entry No_\" <= $1" >/dev/null
	green -c "CALL bcmig_wait_sync('val')" >/dev/null 2>&1
	green -c "SELECT sum(extract(epoch FROM finished_at - started_at)) FROM bcmig.sync_batch WHERE kind = 'window' AND started_at > '$since'"
}

# checksums AGGREGATE: what a DBA would write: rows of 10,000 numbers added up by each side, blue's asked for by dblink, so that both may use
# several processes; the chunks that differ
checksums()
{
	local sums="SELECT \"Entry No_\" / 10000 AS chunk, count(*) AS n, $1 AS sum FROM gl GROUP BY 1"

	timed "SELECT count(*) FROM dblink('host=$work port=5601 user=postgres dbname=postgres', \$\$$sums\$\$) b (chunk int, n bigint, sum text)
		FULL JOIN ($sums) g USING (chunk) WHERE (b.n, b.sum) IS DISTINCT FROM (g.n, g.sum)"
}

# processor seconds of both clusters since they had used so many ticks
processor()
{
	awk -v t=$(($(ticks blue green) - $1)) -v hz="$(getconf CLK_TCK)" 'BEGIN {printf "%.2f", t / hz}'
}

bench_validate()
{
	local full=() pulled=() joined=() again=() marked=() plain=() md5=() hash=() cpu=() md5_cpu=() hash_cpu=() i columns join row t

	blue -v rows="$BENCH_ROWS" -f "$here/gl_entry.sql" -c 'CREATE TABLE one (id int)' >/dev/null
	green -c "SELECT bcmig_create_sync('val', 'blue')" -c "SELECT bcmig_add_table('val', 'gl')" -c "SELECT bcmig_start_sync('val')" \
		-c "CALL bcmig_wait_sync('val', 'caught_up', '1 hour')" >/dev/null 2>&1
	green -c 'CREATE SCHEMA raw' -c 'IMPORT FOREIGN SCHEMA public LIMIT TO (gl, one) FROM SERVER blue INTO raw' \
		-c "ALTER FOREIGN TABLE raw.gl OPTIONS (ADD fetch_size '10000')" -c 'VACUUM ANALYZE gl' \
		-c "CREATE SERVER own FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$work', port '5602', dbname 'postgres')" \
		-c "CREATE USER MAPPING FOR postgres SERVER own OPTIONS (user 'postgres')" -c 'CREATE SCHEMA own' \
		-c 'IMPORT FOREIGN SCHEMA public LIMIT TO (gl) FROM SERVER own INTO own' -c "ALTER FOREIGN TABLE own.gl OPTIONS (ADD fetch_size '10000')"
	columns=$(green -c "SELECT string_agg(format('b.%1\$I', attname), ', ' ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'gl'::regclass AND attnum > 0 AND attname NOT LIKE 'bc\_%'")
	join="g USING (\"Entry No_\") WHERE ROW($columns) IS DISTINCT FROM ROW(${columns//b./g.})"
	row="ROW(${columns//b./})::text"
	green -c 'CREATE EXTENSION dblink'
	for ((i = 0; i < RUNS; i++)); do
		t=$(ticks blue green)
		full+=("$(validate_once full)")
		cpu+=("$(processor "$t")")
		t=$(ticks blue green)
		hash+=("$(checksums "sum(hashtextextended($row, 0)::numeric)::text")")
		hash_cpu+=("$(processor "$t")")
		t=$(ticks blue green)
		md5+=("$(checksums "md5(string_agg(md5($row), '' ORDER BY \"Entry No_\"))")")
		md5_cpu+=("$(processor "$t")")
		pulled+=("$(timed "SELECT count(*) FROM raw.gl b FULL JOIN own.gl $join")")
		joined+=("$(timed "SELECT count(*) FROM raw.gl b FULL JOIN gl $join")")
		blue -c "UPDATE gl SET \"Quantity\" = \"Quantity\" + 1 WHERE \"Entry No_\" BETWEEN $((BENCH_ROWS / 2)) AND $((BENCH_ROWS / 2 + 999))" >/dev/null
		green -c "CALL bcmig_wait_sync('val')" >/dev/null 2>&1
		again+=("$(validate_once incremental)")
	done
	for ((i = 0; i < RUNS; i++)); do
		marked+=("$(apply_once 20000)")
		# a table that has not been cut is not marked
		green -c "UPDATE bcmig.chunking SET generation = generation + 1" -c 'CREATE TABLE cut AS TABLE bcmig.chunking' -c 'DELETE FROM bcmig.chunking' >/dev/null
		plain+=("$(apply_once 20000)")
		green -c 'INSERT INTO bcmig.chunking TABLE cut' -c 'DROP TABLE cut' >/dev/null
	done
	bench validate_pushdown_speedup "$(ratio "$(median "${pulled[@]}")" "$(median "${full[@]}")")" ratio
	bench validate_vs_local_join "$(ratio "$(median "${joined[@]}")" "$(median "${full[@]}")")" ratio
	bench validate_vs_sql_checksums "$(ratio "$(median "${hash[@]}")" "$(median "${full[@]}")")" ratio
	bench validate_vs_sql_checksums_cpu "$(ratio "$(median "${hash_cpu[@]}")" "$(median "${cpu[@]}")")" "ratio of processor time of both sides"
	bench validate_vs_sql_md5 "$(ratio "$(median "${md5[@]}")" "$(median "${full[@]}")")" ratio
	bench validate_vs_sql_md5_cpu "$(ratio "$(median "${md5_cpu[@]}")" "$(median "${cpu[@]}")")" "ratio of processor time of both sides"
	bench validate_rows_per_core_s "$(awk -v n="$BENCH_ROWS" -v s="$(median "${cpu[@]}")" 'BEGIN {printf "%d", n / s}')" "rows/s of a core, of both sides together"
	bench revalidate_cost_percent "$(awk -v a="$(median "${again[@]}")" -v b="$(median "${full[@]}")" 'BEGIN {printf "%.2f", 100 * a / b}')" percent
	bench apply_overhead_percent "$(awk -v a="$(median "${marked[@]}")" -v b="$(median "${plain[@]}")" 'BEGIN {printf "%.1f", 100 * (a / b - 1)}')" percent
	bench validate_rows_per_s "$(awk -v n="$BENCH_ROWS" -v s="$(median "${full[@]}")" 'BEGIN {printf "%d", n / s}')" rows/s
	detail "rows $BENCH_ROWS; full s: ${full[*]}; both sides pulled and compared s: ${pulled[*]}; blue pulled and joined with green s: ${joined[*]}; after 1,000 changes s: ${again[*]}"
	detail "checksums in SQL, by hashtextextended s: ${hash[*]}; by md5 s: ${md5[*]}; processor s of both sides: full ${cpu[*]}; hashtextextended ${hash_cpu[*]}; md5 ${md5_cpu[*]}"
	detail "windows of 20,000 changed rows s: with marks ${marked[*]}; without ${plain[*]}"
	drop_sync val
	blue -c 'DROP TABLE gl, one'
	green -c 'DROP SCHEMA raw, own CASCADE' -c 'DROP SERVER own CASCADE' -c 'DROP EXTENSION dblink' 2>/dev/null
}
