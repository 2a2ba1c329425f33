# latency.sh: sourced by bench/run: how long a change takes from COMMIT on blue to green, under load and beside a backlog.
# shellcheck shell=bash disable=SC2154
LATENCY_RATES=${LATENCY_RATES:-50 500 2000}	# transactions a second
LATENCY_SAMPLES=${LATENCY_SAMPLES:-600}
TDS_LATENCY_RATE=${TDS_LATENCY_RATE:-20}
BACKLOG_ROWS=${BACKLOG_ROWS:-5000000}		# changes, over all tables of a run
BACKLOG_TABLES=${BACKLOG_TABLES:-1 6}		# a run for each number of tables; six are more than there are workers

# probe DATABASE_OF_BLUE SAMPLES [FIRST [TABLE]]
probe()
{
	exec "$work/probe" "host=$work port=5601 user=postgres dbname=$1" "host=$work port=5602 user=postgres dbname=postgres" "${@:2}"
}

# measure_under_load DATABASE_OF_BLUE RATE FIRST OPTION...: p50 p90 p99 most while pgbench posts; false when it did not come to 95 % of the rate
measure_under_load()
{
	pgbench -n -h "$work" -p 5601 -U postgres -c 4 -R "$2" -T $((LATENCY_SAMPLES * 8 / 100 + 6)) "${@:4}" "$1" >"$work/pgbench.out" 2>&1 &
	sleep 3	# the load is on
	read -r p50 p90 p99 most <<<"$(probe "$1" "$LATENCY_SAMPLES" "$3")"
	wait $!
	tps=$(awk '/^tps/ {printf "%.0f", $3}' "$work/pgbench.out")
	[ $((tps * 100)) -ge $(($2 * 95)) ]
}

bench_latency()
{
	local p50 p90 p99 most tps rate one first=0

	blue >/dev/null <<-'END'
		CREATE TABLE header (no int PRIMARY KEY, customer varchar(20), status int, "timestamp" bigint NOT NULL DEFAULT 0);
		CREATE TABLE line (no int, line int, item varchar(20), quantity numeric(38,20), "timestamp" bigint NOT NULL DEFAULT 0, PRIMARY KEY (no, line));
		CREATE TABLE ledger (entry int PRIMARY KEY, account varchar(20), amount numeric(38,20), posted timestamp(3), "timestamp" bigint NOT NULL DEFAULT 0);
		CREATE TABLE probe (id int PRIMARY KEY, "timestamp" bigint NOT NULL DEFAULT 0);
		CREATE SEQUENCE no;
		SELECT bcmig_blue.track(t::regclass) FROM unnest(ARRAY['header', 'line', 'ledger', 'probe']) t;
	END
	cat >"$work/post.sql" <<-'END'
		BEGIN;
		SELECT nextval('no') AS no \gset
		INSERT INTO header VALUES (:no, 'C' || :no % 100, 0);
		INSERT INTO line VALUES (:no, 10000, 'I1', 1), (:no, 20000, 'I2', 2);
		INSERT INTO ledger VALUES (:no * 2, '1000', 10.5, now()), (:no * 2 + 1, '2000', -10.5, now());
		UPDATE header SET status = 1 WHERE no = :no - 10;
		COMMIT;
	END
	echo "INSERT INTO ledger VALUES (nextval('no') * -1, '1000', 10.5, now());" >"$work/post_one.sql"
	green -c "SELECT bcmig_create_sync('lat', 'blue')" >/dev/null
	for one in header line ledger probe; do green -c "SELECT bcmig_add_table('lat', '$one')" >/dev/null; done
	green -c "SELECT bcmig_start_sync('lat')" -c "CALL bcmig_wait_sync('lat')" >/dev/null 2>&1
	for rate in $LATENCY_RATES; do
		if ! measure_under_load postgres "$rate" "$first" -f "$work/post.sql"; then
			detail "$rate a second were not reached, $tps were: p50 $p50, p90 $p90, p99 $p99, most $most; lightened to one row in one table, prepared:"
			first=$((first + LATENCY_SAMPLES))
			measure_under_load postgres "$rate" "$first" -M prepared -f "$work/post_one.sql" || detail "nor were these:"
		fi
		first=$((first + LATENCY_SAMPLES))
		bench "latency_${rate}_p50_ms" "$p50" ms
		bench "latency_${rate}_p99_ms" "$p99" ms
		detail "$LATENCY_SAMPLES samples at $rate transactions a second asked, $tps made, of 6 rows in 3 tables unless said otherwise: p90 $p90, most $most"
	done
	drop_sync lat
	blue -c 'DROP TABLE header, line, ledger, probe; DROP SEQUENCE no'
}

# called by bench_tds
bench_tds_latency()
{
	local p50 p90 p99 most tps

	bc -c 'CREATE TABLE probe (id int PRIMARY KEY, "timestamp" bigint NOT NULL DEFAULT 0)' -c "SELECT mssql.register('probe', 'probe')" \
		-c 'CREATE TABLE ledger (entry int PRIMARY KEY, account varchar(20), amount numeric(38,20), "timestamp" bigint NOT NULL DEFAULT 0)' \
		-c "SELECT mssql.register('ledger', 'ledger')" -c 'CREATE SEQUENCE no' >/dev/null
	echo "INSERT INTO ledger (entry, account, amount) SELECT nextval('no'), '1000', 10.5 FROM generate_series(1, 2);" >"$work/post_tds.sql"
	green -c "SELECT bcmig_create_sync('lat', 'bc')" -c "SELECT bcmig_add_table('lat', 'probe')" -c "SELECT bcmig_add_table('lat', 'ledger')" \
		-c "SELECT bcmig_start_sync('lat')" -c "CALL bcmig_wait_sync('lat')" >/dev/null 2>&1
	read -r p50 p90 p99 most <<<"$(probe bc "$LATENCY_SAMPLES")"
	bench tds_latency_p50_ms "$p50" ms
	bench tds_latency_p99_ms "$p99" ms
	detail "$LATENCY_SAMPLES samples without load, with the wait on the server: p90 $p90, most $most"
	measure_under_load bc "$TDS_LATENCY_RATE" "$LATENCY_SAMPLES" -f "$work/post_tds.sql" || detail "not reached:"
	bench tds_latency_loaded_p50_ms "$p50" ms
	bench tds_latency_loaded_p99_ms "$p99" ms
	detail "$LATENCY_SAMPLES samples at $TDS_LATENCY_RATE transactions a second asked, $tps made, of 2 rows in another table: p90 $p90, most $most"
	drop_sync lat
}

# backlog TABLES: BACKLOG_ROWS changed rows of so many tables while the sync is stopped; then it is started
backlog()
{
	local tables=$1 rows=$((BACKLOG_ROWS / $1)) name=backlog pids=() i since p50 p90 p99 most n

	[ "$tables" = 1 ] || name=backlog_${tables}_tables
	blue -c 'CREATE TABLE probe (id int PRIMARY KEY, "timestamp" bigint NOT NULL DEFAULT 0)' -c "SELECT bcmig_blue.track('probe')" >/dev/null
	green -c "SELECT bcmig_create_sync('back', 'blue')" -c "SELECT bcmig_add_table('back', 'probe')" >/dev/null
	for ((i = 1; i <= tables; i++)); do
		blue -v t="big$i" -v n="$rows" >/dev/null <<-'END'
			CREATE TABLE :t (id int PRIMARY KEY, account varchar(20), description varchar(100), amount numeric(38,20), posted timestamp(3), "timestamp" bigint NOT NULL DEFAULT 0);
			INSERT INTO :t SELECT g, '1000', 'Entry ' || g, g / 100.0, '2026-06-01' FROM generate_series(1, :n) g;
			SELECT bcmig_blue.track(:'t');
		END
		green -c "SELECT bcmig_add_table('back', 'big$i')" >/dev/null
	done
	green -c "SELECT bcmig_start_sync('back')" -c "CALL bcmig_wait_sync('back', 'caught_up', '2 hours')" -c "SELECT bcmig_stop_sync('back')" >/dev/null 2>&1
	until [ "$(green -c "SELECT state FROM bcmig.sync_status WHERE sync = 'back'")" = stopped ]; do sleep 0.1; done
	for ((i = 1; i <= tables; i++)); do
		# 100,000 rows a transaction
		blue -c "DO \$\$ BEGIN FOR f IN 0 .. ($rows - 1) / 100000 LOOP
			UPDATE big$i SET amount = amount + 1 WHERE id BETWEEN f * 100000 + 1 AND (f + 1) * 100000; COMMIT; END LOOP; END \$\$"
	done
	blue -c 'VACUUM ANALYZE' -c CHECKPOINT
	since=$(green -c 'SELECT clock_timestamp()')
	green -c "SELECT bcmig_start_sync('back')" >/dev/null
	(probe postgres 0) >"$work/other.out" &
	pids+=($!)
	(probe postgres 0 $((rows + 1)) big1) >"$work/same.out" &
	pids+=($!)
	until [ "$(green -c "SELECT count(*) FROM (SELECT FROM bcmig.sync_batch WHERE kind = 'window' AND status = 'Completed' AND started_at > '$since'
			GROUP BY table_id HAVING sum(rows_read) >= $rows) x")" = "$tables" ]; do
		sleep 1
	done
	kill -TERM "${pids[@]}"
	wait "${pids[@]}"
	read -r p50 p90 p99 most n <"$work/other.out"
	bench "${name}_live_p99_ms" "$p99" ms
	bench "${name}_drain_s" "$(green -c "SELECT round(extract(epoch FROM max(finished_at) - '$since'), 1) FROM bcmig.sync_batch
		WHERE kind = 'window' AND rows_read > 1000 AND started_at > '$since'")" s
	detail "$((rows * tables)) changed rows of $tables tables, $(green -c 'SHOW bcmig.max_workers') workers; a row of another table every 50 ms from the start on: $n, p50 $p50, p90 $p90, most $most;"
	read -r p50 p90 p99 most n <"$work/same.out"
	detail "the same of the first of these tables: $n, p50 $p50, p99 $p99, most $most"
	[ "$(digest_backlog blue)" = "$(digest_backlog green)" ] || { echo "blue and green differ"; return 1; }
	drop_sync back
	blue -c "DO \$\$ BEGIN FOR i IN 1 .. $tables LOOP EXECUTE 'DROP TABLE big' || i; END LOOP; DROP TABLE probe; END \$\$"
}

# what the first table of a backlog and the other one hold
digest_backlog()
{
	"$1" -c 'SELECT count(*), sum(hashtextextended(ROW(id, account, description, amount, posted)::text, 0)) FROM big1' -c 'SELECT count(*), sum(id) FROM probe'
}

bench_backlog()
{
	local tables

	for tables in $BACKLOG_TABLES; do backlog "$tables"; done
}
