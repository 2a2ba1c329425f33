# scale.sh: sourced by bench/run: what the model of docs/scale.md needs to know, the model, and a copy it has to predict.
# shellcheck shell=bash disable=SC2154

SCALE_SMALL=${SCALE_SMALL:-100}
# of the size scale_model.py has in its DATABASE
SCALE_LOB_BYTES=200000
SCALE_LOBS=${SCALE_LOBS:-$((BENCH_ROWS / 1000))}

# milliseconds of processor time a cluster has used, processes that have ended included
cpu_ms()
{
	local pm p

	pm=$(head -1 "$work/$1/postmaster.pid")
	{
		awk '{sub(/.*\) /, ""); print $12 + $13 + $14 + $15}' "/proc/$pm/stat"
		for p in $(pgrep -P "$pm"); do awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$p/stat" 2>/dev/null || true; done
	} | awk -v hz="$(getconf CLK_TCK)" '{s += $1} END {printf "%d", s * 1000 / hz}'
}

# scale_copy WORKERS ADD...: a sync of these tables (what follows the first argument of bcmig_add_table(), and the closing parentheses) copied:
# "seconds of the rows, of the keys, ms of blue, of green, bytes of WAL"
scale_copy()
{
	local workers=$1 b g wal call

	shift
	green -c "SELECT bcmig_create_sync('scale', 'blue', '{\"workers\": $workers}')" >/dev/null
	for call in "$@"; do green -c "SELECT count(bcmig_add_table('scale', $call" >/dev/null; done
	green -c CHECKPOINT
	b=$(cpu_ms blue) g=$(cpu_ms green)
	wal=$(green -c 'SELECT pg_current_wal_insert_lsn()')
	green -c "SELECT bcmig_start_sync('scale')" -c "CALL bcmig_wait_sync('scale', 'streaming', '1 hour')" >/dev/null 2>&1
	wal=$(green -c "SELECT pg_current_wal_insert_lsn() - '$wal'::pg_lsn")
	b=$(($(cpu_ms blue) - b)) g=$(($(cpu_ms green) - g))
	green -F ' ' -c "SELECT extract(epoch FROM max(c.rows_done) - min(s.copy_started)), extract(epoch FROM max(s.copy_finished) - max(c.rows_done)), $b, $g, $wal
		FROM bcmig.table_state s JOIN (SELECT table_id, max(finished_at) AS rows_done FROM bcmig.copy_chunk GROUP BY table_id) c USING (table_id)"
}

# a figure of the lines of several runs: per_unit COLUMN FACTOR UNITS LINE...: the median of the column, times factor, for one unit
per_unit()
{
	local column=$1 factor=$2 units=$3

	shift 3
	awk -v m="$(median "$(printf '%s\n' "$@" | awk -v c="$column" '{printf "%s%s", sep, $c; sep = " "}')")" -v f="$factor" -v u="$units" \
		'BEGIN {printf "%.4g", m * f / u}'
}

bench_scale()
{
	local plain=() part=() far=() lob=() small=() mixed=() i columns key predicted measured
	local quarter=$((BENCH_ROWS / 4)) mb

	mb=$(awk -v n="$SCALE_LOBS" -v b=$SCALE_LOB_BYTES 'BEGIN {print n * b / 1e6}')
	blue -v rows="$BENCH_ROWS" -f "$here/gl_entry.sql" >/dev/null
	blue >/dev/null <<-TABLES
		SET client_min_messages = warning;
		CREATE TABLE gl1 (LIKE gl INCLUDING ALL);
		INSERT INTO gl1 SELECT * FROM gl LIMIT $((BENCH_ROWS / 2));
		CREATE TABLE gl2 (LIKE gl INCLUDING ALL);
		INSERT INTO gl2 SELECT * FROM gl LIMIT $quarter;
		CREATE TABLE lob (id int PRIMARY KEY, content bytea, "timestamp" bigint NOT NULL DEFAULT 0);
		ALTER TABLE lob ALTER content SET STORAGE EXTERNAL;
		-- nothing that can be compressed, as pictures
		INSERT INTO lob SELECT i, decode((SELECT string_agg(md5(i || '/' || j), '') FROM generate_series(1, $SCALE_LOB_BYTES / 16) j), 'hex')
		  FROM generate_series(1, $SCALE_LOBS) i;
		DO \$\$ BEGIN FOR i IN 1..$SCALE_SMALL LOOP
			EXECUTE format('CREATE TABLE s%s (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0)', i);
			EXECUTE format('INSERT INTO s%s SELECT g FROM generate_series(1, 20) g', i);
		END LOOP; END \$\$;
		SELECT bcmig_blue.track(oid::regclass) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname ~ '^(gl[12]|lob|s[0-9]+)\$';
	TABLES
	blue -c 'VACUUM ANALYZE'

	for ((i = 0; i < RUNS; i++)); do
		plain+=("$(scale_copy 1 "'gl'))")")
		if [ $i = 0 ]; then
			columns=$(green -c "SELECT string_agg(format('%I %s%s', attname, format_type(atttypid, atttypmod), CASE WHEN attnotnull THEN ' NOT NULL' END), ', ' ORDER BY attnum)
				FROM pg_attribute WHERE attrelid = 'gl'::regclass AND attnum > 0 AND NOT attisdropped")
			key=$(green -c "SELECT quote_ident(attname) FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = indkey[0] WHERE indrelid = 'gl'::regclass AND indisprimary")
			bench scale_heap_bytes_per_row "$(green -c "SELECT round(pg_table_size('gl') / $BENCH_ROWS::numeric, 1)")" bytes
			bench scale_index_bytes_per_row "$(green -c "SELECT round(pg_indexes_size('gl') / $BENCH_ROWS::numeric, 1)")" bytes
		fi
		drop_sync scale
	done

	# targets that are there before: partitioned, and on another server, which is another database here
	green -c 'CREATE DATABASE shard' >/dev/null
	psql -X -q -v ON_ERROR_STOP=1 -h "$work" -p 5602 -U postgres shard -c "CREATE TABLE gl ($columns, PRIMARY KEY ($key))"
	green -c "CREATE SERVER shard FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$work', port '5602', dbname 'shard', batch_size '1000')" \
		-c "CREATE USER MAPPING FOR postgres SERVER shard OPTIONS (user 'postgres')"
	for ((i = 0; i < RUNS; i++)); do
		green >/dev/null <<-PARTITIONS
			CREATE TABLE part ($columns, PRIMARY KEY ($key)) PARTITION BY HASH ($key);
			SELECT format('CREATE TABLE part%s PARTITION OF part FOR VALUES WITH (MODULUS 8, REMAINDER %s)', i, i) FROM generate_series(0, 7) i \gexec
		PARTITIONS
		part+=("$(scale_copy 1 "'gl', 'part'))")")
		drop_sync scale
		green -c 'DROP TABLE IF EXISTS part' 2>/dev/null
		green -c "CREATE FOREIGN TABLE far ($columns) SERVER shard OPTIONS (table_name 'gl')"
		psql -X -q -h "$work" -p 5602 -U postgres shard -c 'TRUNCATE gl'
		far+=("$(scale_copy 1 "'gl2', 'far'))")")
		drop_sync scale
		green -c 'DROP FOREIGN TABLE IF EXISTS far' 2>/dev/null
		lob+=("$(scale_copy 1 "'lob'))")")
		drop_sync scale
		small+=("$(scale_copy 1 "'s' || i)) FROM generate_series(1, $SCALE_SMALL) i")")
		drop_sync scale
	done

	bench scale_measured_rows "$BENCH_ROWS" rows
	bench scale_copy_us_per_row "$(per_unit 1 1000000 "$BENCH_ROWS" "${plain[@]}")" us
	bench scale_key_us_per_row "$(per_unit 2 1000000 "$BENCH_ROWS" "${plain[@]}")" us
	bench scale_blue_cpu_us_per_row "$(per_unit 3 1000 "$BENCH_ROWS" "${plain[@]}")" us
	# the key's is the model's own item
	bench scale_green_cpu_us_per_row "$(awk -v a="$(per_unit 4 1000 "$BENCH_ROWS" "${plain[@]}")" -v k="$(per_unit 2 1000000 "$BENCH_ROWS" "${plain[@]}")" 'BEGIN {printf "%.4g", a - k}')" us
	bench scale_wal_bytes_per_row "$(per_unit 5 1 "$BENCH_ROWS" "${plain[@]}")" bytes
	bench scale_wire_bytes_per_row "$(blue -c 'SELECT round(avg(length(gl::text)) + 24 * 4, 1) FROM gl')" bytes
	bench scale_partitioned_ratio "$(ratio "$(per_unit 1 1 1 "${part[@]}")" "$(per_unit 1 1 1 "${plain[@]}")")" ratio
	bench scale_elsewhere_us_per_row "$(per_unit 1 1000000 "$quarter" "${far[@]}")" us
	bench scale_elsewhere_cpu_us_per_row "$(per_unit 4 1000 "$quarter" "${far[@]}")" us
	bench scale_lob_mb_per_s "$(awk -v s="$(per_unit 1 1 1 "${lob[@]}")" -v mb="$mb" 'BEGIN {printf "%.4g", mb / s}')" MB/s
	bench scale_lob_blue_cpu_ms_per_mb "$(per_unit 3 1 "$mb" "${lob[@]}")" ms
	bench scale_lob_green_cpu_ms_per_mb "$(per_unit 4 1 "$mb" "${lob[@]}")" ms
	bench scale_empty_table_ms "$(per_unit 1 1000 "$SCALE_SMALL" "${small[@]}")" ms
	detail "seconds of the rows, of the key, ms of processor on blue, on green, bytes of WAL: plain ${plain[*]/%/;}"
	detail "partitioned by hash, with its key ${part[*]/%/;} through a foreign table, $quarter rows ${far[*]/%/;} $SCALE_LOBS LOBs of $SCALE_LOB_BYTES bytes ${lob[*]/%/;}"
	detail "$SCALE_SMALL tables of 20 rows ${small[*]/%/;}"

	# what it has to predict: all of these at once by two workers
	for ((i = 0; i < RUNS; i++)); do
		mixed+=("$(scale_copy 2 "'gl'))" "'gl1'))" "'gl2'))" "'lob'))" "'s' || i)) FROM generate_series(1, $SCALE_SMALL) i")")
		drop_sync scale
	done
	measured=$(awk '{print $1 + $2}' <<<"$(per_unit 1 1 1 "${mixed[@]}") $(per_unit 2 1 1 "${mixed[@]}")")
	predicted=$(python3 "$here/scale_model.py" --check "$BENCH_ROWS" "$SCALE_LOBS" "$SCALE_SMALL" 2 "$(nproc)" "$here/RESULTS.md" "$results")
	bench scale_model_error_percent "$(awk -v p="$predicted" -v m="$measured" 'BEGIN {printf "%.0f", 100 * (p / m - 1)}')" percent
	detail "three ledgers of $BENCH_ROWS, half and a quarter of the rows, the LOBs and $SCALE_SMALL small tables by two workers: predicted $predicted s, measured $measured s"
	python3 "$here/scale_model.py" "$here/RESULTS.md" "$results" | tee -a "$results.model"
	cat "$results.model" >>"$results"
	rm -f "$results.model"

	green -c 'DROP SERVER shard CASCADE' -c 'DROP DATABASE shard WITH (FORCE)' 2>/dev/null
	blue -c 'DROP TABLE gl, gl1, gl2, lob'
	blue <<<"SELECT format('DROP TABLE s%s', i) FROM generate_series(1, $SCALE_SMALL) i \gexec"
}
