# leak.sh: sourced by bench/run: what the processes keep of a million batches.
# shellcheck shell=bash disable=SC2154
BATCHES=${BATCHES:-1000000}

# kept PID: "RssAnon used" of a process now, in kB; used is what its memory contexts hold, which it writes to the log itself
kept()
{
	local before used=

	before=$(stat -c %s "$work/green.log")
	green -c "SELECT pg_log_backend_memory_contexts($1)" >/dev/null
	for _ in {1..100}; do
		used=$(tail -c +$((before + 1)) "$work/green.log" | sed -nE 's/.*\['"$1"'\].*Grand total: .* ([0-9]+) used.*/\1/p' | tail -n 1)
		[ -z "$used" ] || break
		sleep 0.1
	done
	echo "$(awk '/RssAnon/ {print $2}' "/proc/$1/status") $((used / 1024))"
}

# slope FACTOR: that of the samples of the last nine tenths, by least squares, times FACTOR; columns of "x y"
slope()
{
	awk -v factor="$1" '{x[NR] = $1; y[NR] = $2}
		END {
			for (i = int(NR / 10) + 1; i <= NR; i++) {n++; sx += x[i]; sy += y[i]; sxx += x[i] * x[i]; sxy += x[i] * y[i]}
			printf "%.4f", factor * (n * sxy - sx * sy) / (n * sxx - sx * sx)
		}'
}

bench_leak()
{
	local applied windows=0 sample=0 role pid now columns=(x rss used)
	local -A pids

	green -c 'ALTER SYSTEM SET bcmig.naptime = 10' -c 'SELECT pg_reload_conf()' >/dev/null
	blue >/dev/null <<-'END'
		CREATE TABLE leak (id int PRIMARY KEY, v int, "timestamp" bigint NOT NULL DEFAULT 0);
		INSERT INTO leak SELECT i, 0 FROM generate_series(1, 2000) i;
		SELECT bcmig_blue.track('leak');
	END
	# every row is a batch, windows of ten and less are a transaction, bigger ones many
	green -c "SELECT bcmig_create_sync('leak', 'blue', '{\"workers\": 1, \"batch_rows\": 1}')" -c "SELECT bcmig_add_table('leak', 'leak')" \
		-c "SELECT bcmig_start_sync('leak')" -c "CALL bcmig_wait_sync('leak', 'streaming', '60 s')" >/dev/null 2>&1
	for role in manager poller worker; do
		pids[$role]=$(green -c "SELECT pid FROM bcmig.worker_status WHERE role = '$role' ORDER BY pid LIMIT 1")
		: >"$work/leak.$role"
	done
	applied=0
	while [ "$applied" -lt "$BATCHES" ]; do
		blue >/dev/null <<-'END'
			SET synchronous_commit = off;
			DO $$ BEGIN FOR i IN 1..1000 LOOP UPDATE leak SET v = v + 1 WHERE id = i; COMMIT; END LOOP; END $$;
			UPDATE leak SET v = v + 1 WHERE id > 1000;
		END
		read -r applied windows < <(green -F ' ' -c "SELECT rows_applied, windows FROM bcmig.live_tables()")
		[ "$applied" -ge $((BATCHES * sample / 50)) ] || continue
		sample=$((sample + 1))
		for role in manager poller worker; do
			echo "$applied $(kept "${pids[$role]}")" >>"$work/leak.$role"
		done
	done
	detail "$applied batches of one row in $windows windows by one worker; $sample samples; memory at the first, the middle and the last"
	for role in manager poller worker; do
		pid=$(green -c "SELECT pid FROM bcmig.worker_status WHERE role = '$role' ORDER BY pid LIMIT 1")
		[ "$pid" = "${pids[$role]}" ] || detail "$role was started again"
		for now in 1 2; do
			bench "leak_${role}_${columns[$now]}" "$(cut -d ' ' -f "1,$((now + 1))" "$work/leak.$role" | slope 1024)" "bytes a batch"
		done
		detail "$role: RssAnon and used kB $(sed -n -e 1p -e "$((sample / 2))p" -e '$p' "$work/leak.$role" | cut -d ' ' -f 2- | paste -sd ,)"
	done
	drop_sync leak
	blue -c 'DROP TABLE leak'
	green -c 'ALTER SYSTEM RESET bcmig.naptime' -c 'SELECT pg_reload_conf()' >/dev/null
}
