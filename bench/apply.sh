# apply.sh: sourced by bench/run: how fast changes are applied, beside PostgreSQL's own logical replication.
# shellcheck shell=bash disable=SC2154

logical() { psql -X -q -At -v ON_ERROR_STOP=1 -h "$work" -p 5602 -U postgres logical "$@"; }

# give blue another wal_level
wal_level()
{
	blue -c "ALTER SYSTEM SET wal_level = $1"
	as_server "$bin/pg_ctl" -D "$work/blue" -l "$work/blue.log" -w restart >/dev/null
}

# make_changes RUN: so many changes of gl that both consumers do not see yet, 60 % updates, 30 % inserts, 10 % deletes, 1,000 in a
# transaction, scattered over the table, no key twice
make_changes()
{
	blue >/dev/null <<-CHANGES
		DO \$\$
		DECLARE
			n bigint := $BENCH_ROWS;
			first bigint := $1 * $changes * 7 / 10;
			new bigint := n + $1 * $changes * 3 / 10;
		BEGIN
			FOR t IN 0 .. $changes / 1000 - 1 LOOP
				UPDATE gl SET "Amount" = "Amount" + 1, "Description" = 'Changed ' || "Entry No_"
				 WHERE "Entry No_" IN (SELECT (first + t * 700 + i) * 7919 % n + 1 FROM generate_series(0, 599) i);
				DELETE FROM gl WHERE "Entry No_" IN (SELECT (first + t * 700 + i) * 7919 % n + 1 FROM generate_series(600, 699) i);
				INSERT INTO gl ("Entry No_", "G_L Account No_", "Description", "Amount", "Posting Date", "Document No_", "Source No_")
				SELECT new + t * 300 + i, '4711', 'New ' || i, i / 100.0, '2026-06-01', 'INV' || i, 'C' || i FROM generate_series(1, 300) i;
				COMMIT;
			END LOOP;
		END \$\$;
		INSERT INTO done VALUES ($1);
		VACUUM gl;
		CHECKPOINT;
	CHANGES
	green -c 'VACUUM gl' -c CHECKPOINT
	logical -c 'VACUUM gl'
}

# seconds from the start of the sync to the last window's commit, and of the windows alone: "s s"
sync_catches_up()
{
	local since

	since=$(green -c 'SELECT clock_timestamp()')
	green -c "SELECT bcmig_start_sync('apply')" -c "CALL bcmig_wait_sync('apply', 'caught_up', '1 hour')" >/dev/null 2>&1
	green -F ' ' -c "SELECT extract(epoch FROM max(finished_at) - '$since'), sum(extract(epoch FROM finished_at - started_at))
		FROM bcmig.sync_batch WHERE kind = 'window' AND started_at > '$since'"
	stop_apply
}

stop_apply()
{
	green -c "SELECT bcmig_stop_sync('apply')" >/dev/null 2>&1
	until [ "$(green -c "SELECT state FROM bcmig.sync_status WHERE sync = 'apply'")" = stopped ]; do sleep 0.1; done
}

# seconds from the start of the subscription to its last transaction being visible
subscription_catches_up()
{
	logical >/dev/null <<-END
		CREATE TEMP TABLE begun AS SELECT clock_timestamp() AS at;
		ALTER SUBSCRIPTION apply ENABLE;
		DO \$\$ BEGIN WHILE NOT EXISTS (SELECT FROM done WHERE run = $1) LOOP PERFORM pg_sleep(0.01); COMMIT; END LOOP; END \$\$;
		INSERT INTO taken SELECT $1, extract(epoch FROM clock_timestamp() - at) FROM begun;
		ALTER SUBSCRIPTION apply DISABLE;
	END
	logical -c "SELECT round(seconds, 6) FROM taken WHERE run = $1"
	while [ "$(logical -c 'SELECT count(*) FROM pg_stat_subscription WHERE pid IS NOT NULL')" != 0 ]; do sleep 0.1; done
}

# what a table holds, without what green calls differently
digest()
{
	"$1" -c 'SELECT count(*), sum(hashtextextended(ROW("Entry No_", "Amount", "Description", "$systemId", "Posting Date")::text, 0)) FROM gl'
}

bench_apply()
{
	local ours=() windows=() two=() theirs=() i one pure

	changes=$((BENCH_ROWS / 6 < 200000 ? BENCH_ROWS / 6000 * 1000 : 200000))
	wal_level logical
	blue -v rows="$BENCH_ROWS" -f "$here/gl_entry.sql" -c 'CREATE TABLE done (run int PRIMARY KEY)' -c 'CREATE PUBLICATION apply FOR TABLE gl, done' >/dev/null
	blue -c 'ALTER SYSTEM SET autovacuum = off' -c 'SELECT pg_reload_conf()' >/dev/null
	green -c 'ALTER SYSTEM SET autovacuum = off' -c "ALTER SYSTEM SET wal_retrieve_retry_interval = '100ms'" -c 'SELECT pg_reload_conf()' -c 'CREATE DATABASE logical' >/dev/null
	pg_dump -h "$work" -p 5601 -U postgres -s -t gl -t 'done' postgres | sed '/bcmig/d; /PUBLICATION/d' | logical >/dev/null
	logical -c 'CREATE TABLE taken (run int PRIMARY KEY, seconds numeric)' \
		-c "CREATE SUBSCRIPTION apply CONNECTION 'host=$work port=5601 user=postgres dbname=postgres' PUBLICATION apply" 2>/dev/null
	green -c "SELECT bcmig_create_sync('apply', 'blue', '{\"workers\": 1}')" -c "SELECT bcmig_add_table('apply', 'gl')" -c "SELECT bcmig_start_sync('apply')" \
		-c "CALL bcmig_wait_sync('apply', 'caught_up', '1 hour')" >/dev/null 2>&1
	until [ "$(logical -c "SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")" = t ]; do sleep 0.2; done
	stop_apply
	logical -c 'ALTER SUBSCRIPTION apply DISABLE'
	for one in blue green logical; do "$one" -c 'VACUUM ANALYZE gl'; done
	for ((i = 0; i < RUNS; i++)); do
		make_changes "$i"
		[ $((i % 2)) = 1 ] || theirs+=("$(subscription_catches_up "$i")")
		read -r one pure <<<"$(sync_catches_up)"
		ours+=("$one")
		windows+=("$pure")
		[ $((i % 2)) = 0 ] || theirs+=("$(subscription_catches_up "$i")")
	done
	green -c "SELECT bcmig_alter_sync('apply', '{\"workers\": 2, \"parallel\": 2}')"
	for ((; i < RUNS + 3; i++)); do
		make_changes "$i"
		read -r one pure <<<"$(sync_catches_up)"
		two+=("$pure")
	done
	subscription_catches_up "$((i - 1))" >/dev/null
	one=$(digest blue)
	[ "$one" = "$(digest green)" ] && [ "$one" = "$(digest logical)" ] || { echo "blue, green and the subscriber differ"; return 1; }
	bench apply_vs_logical_replication "$(ratio "$(median "${theirs[@]}")" "$(median "${ours[@]}")")" ratio
	bench apply_rows_per_s "$(awk -v n="$changes" -v s="$(median "${windows[@]}")" 'BEGIN {printf "%d", n / s}')" rows/s
	bench apply_two_workers_ratio "$(ratio "$(median "${windows[@]}")" "$(median "${two[@]}")")" ratio
	detail "$changes changes of $BENCH_ROWS rows of 24 columns, one worker; from the start of the consumer to the last row s: bcmig ${ours[*]};"
	detail "logical replication ${theirs[*]}; windows alone s: ${windows[*]}; by two workers: ${two[*]}"
	logical -c 'DROP SUBSCRIPTION apply' 2>/dev/null
	drop_sync apply 2>/dev/null
	green -c 'DROP DATABASE logical' -c 'ALTER SYSTEM RESET autovacuum' -c 'SELECT pg_reload_conf()' >/dev/null
	blue -c 'ALTER SYSTEM RESET autovacuum'
	blue -c 'DROP PUBLICATION apply' -c 'DROP TABLE gl, done'
	wal_level replica
}

# p99 of a row of one table while a big change of another is applied
bench_neighbour()
{
	local p p50 p90 p99 most since

	blue -v rows="$BENCH_ROWS" -f "$here/gl_entry.sql" \
		-c 'CREATE TABLE probe (id int PRIMARY KEY, "timestamp" bigint NOT NULL DEFAULT 0)' -c "SELECT bcmig_blue.track('probe')" >/dev/null
	green -c "SELECT bcmig_create_sync('bulk', 'blue')" -c "SELECT bcmig_add_table('bulk', 'gl')" -c "SELECT bcmig_add_table('bulk', 'probe')" \
		-c "SELECT bcmig_start_sync('bulk')" -c "CALL bcmig_wait_sync('bulk', 'caught_up', '1 hour')" >/dev/null 2>&1
	since=$(green -c 'SELECT clock_timestamp()')
	blue -c "UPDATE gl SET \"Quantity\" = \"Quantity\" + 1 WHERE \"Entry No_\" <= 1000000" >/dev/null
	p=$("$work/probe" "host=$work port=5601 user=postgres dbname=postgres" "host=$work port=5602 user=postgres dbname=postgres" 200)
	read -r p50 p90 p99 most <<<"$p"
	bench bulk_neighbour_p99_ms "$p99" ms
	green -c "CALL bcmig_wait_sync('bulk', 'caught_up', '1 hour')" >/dev/null 2>&1
	detail "200 samples from the commit of $((BENCH_ROWS < 1000000 ? BENCH_ROWS : 1000000)) updated rows on: p50 $p50, p90 $p90, most $most; the last $(green -c "SELECT count(*) FROM bcmig.sync_batch
		WHERE kind = 'window' AND rows_read < 100 AND started_at > (SELECT finished_at FROM bcmig.sync_batch WHERE rows_read > 1000 AND kind = 'window' AND started_at > '$since' LIMIT 1)") windows of them after the big one,"
	detail "which took $(green -c "SELECT round(extract(epoch FROM finished_at - started_at), 1) FROM bcmig.sync_batch WHERE rows_read > 1000 AND kind = 'window' AND started_at > '$since' LIMIT 1") s"
	drop_sync bulk
	blue -c 'DROP TABLE gl, probe'
}
