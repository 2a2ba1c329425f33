# soak.sh: sourced by bench/run: hours of ordinary load: what grows.  Not one of all; make bench BENCH=soak.
# shellcheck shell=bash disable=SC2154
SOAK_SECONDS=${SOAK_SECONDS:-7200}
SOAK_RATE=${SOAK_RATE:-500}			# transactions a second
SOAK_PROBES=${SOAK_PROBES:-400}		# rows a minute whose way is timed
SOAK_KEEP=${SOAK_KEEP:-10min}		# how long batches and changes are kept, so that what comes meets what goes

# processes_of ROLE: "how many, kB of private memory of the biggest, most open files"
processes_of()
{
	local pid kb files n=0 most=0 open=0

	for pid in $(green -c "SELECT pid FROM bcmig.worker_status WHERE role = '$1'"); do
		kb=$(awk '/RssAnon/ {print $2}' "/proc/$pid/status" 2>/dev/null || echo 0)
		files=$(find "/proc/$pid/fd" -mindepth 1 2>/dev/null | wc -l)
		n=$((n + 1))
		most=$((kb > most ? kb : most))
		open=$((files > open ? files : open))
	done
	echo "$n $most $open"
}

# schema_kb SIDE SCHEMA: its tables with their indexes
schema_kb()
{
	"$1" -c "SELECT sum(pg_total_relation_size(c.oid)) / 1024 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = '$2' AND c.relkind = 'r'" | cut -d . -f 1
}

soak_setup()
{
	blue >/dev/null <<-END
		CREATE TABLE header (no int PRIMARY KEY, customer varchar(20), status int, "timestamp" bigint NOT NULL DEFAULT 0);
		CREATE TABLE ledger (entry int PRIMARY KEY, account varchar(20), amount numeric(38,20), posted timestamp(3), "timestamp" bigint NOT NULL DEFAULT 0);
		CREATE TABLE balance (account int PRIMARY KEY, amount numeric(38,20) NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0);
		CREATE TABLE probe (id int PRIMARY KEY, "timestamp" bigint NOT NULL DEFAULT 0);
		CREATE SEQUENCE no;
		INSERT INTO balance SELECT g, 0 FROM generate_series(0, 9999) g;
		SELECT bcmig_blue.track(t::regclass) FROM unnest(ARRAY['header', 'ledger', 'balance', 'probe']) t;
		UPDATE bcmig_blue.state SET retention = '$SOAK_KEEP';
	END
	# documents are posted, changed and deleted again, ledger entries stay
	cat >"$work/soak.sql" <<-'END'
		BEGIN;
		SELECT nextval('no') AS no \gset
		INSERT INTO header VALUES (:no, 'C' || :no % 100, 0);
		INSERT INTO ledger VALUES (:no, '1000', 10.5, now());
		UPDATE balance SET amount = amount + 10.5 WHERE account = :no % 10000;
		UPDATE header SET status = 1 WHERE no = :no - 10;
		DELETE FROM header WHERE no = :no - 20000;
		COMMIT;
	END
	green -c "ALTER SYSTEM SET bcmig.sync_batch_retention = '$SOAK_KEEP'" -c 'SELECT pg_reload_conf()' -c "SELECT bcmig_create_sync('soak', 'blue')" >/dev/null
	for table in header ledger balance probe; do green -c "SELECT bcmig_add_table('soak', '$table')" >/dev/null; done
	green -c "SELECT bcmig_start_sync('soak')" -c "CALL bcmig_wait_sync('soak')" >/dev/null 2>&1
}

# a column of the samples, without the first tenth: what it was at the beginning, in the middle, at the end, and by how much it grows in an hour (least squares)
course_of()
{
	awk -v c="$1" -v slope="$(cut -d ' ' -f "1,$1" "$work/soak.samples" | slope 3600)" '{v[NR] = $c}
		END {printf "%s, %s, %s; %+.1f an hour", v[int(NR / 10) + 1], v[int((NR + 1) / 2)], v[NR], slope}' "$work/soak.samples"
}

bench_soak()
{
	local begun first=0 p50 p90 p99 most role sample table i
	local columns=(seconds p50 p99 most managers manager_kb manager_files pollers poller_kb poller_files workers worker_kb worker_files bcmig_kb pg_catalog_kb blue_kb)

	soak_setup
	pgbench -n -M prepared -h "$work" -p 5601 -U postgres -c 4 -R "$SOAK_RATE" -T "$SOAK_SECONDS" -f "$work/soak.sql" postgres >"$work/pgbench.out" 2>&1 &
	: >"$work/soak.samples"
	begun=$SECONDS
	while [ $((SECONDS - begun)) -lt $((SOAK_SECONDS - 60)) ]; do
		read -r p50 p90 p99 most <<<"$(probe postgres "$SOAK_PROBES" "$first")"
		first=$((first + SOAK_PROBES))
		sample="$((SECONDS - begun)) $p50 $p99 $most"
		for role in manager poller worker; do
			sample+=" $(processes_of $role)"
		done
		sample+=" $(schema_kb green bcmig) $(schema_kb green pg_catalog) $(schema_kb blue bcmig_blue)"
		echo "$sample" | tee -a "$work/soak.samples" | sed 's/^/# /'
		sleep $((60 - (SECONDS - begun) % 60))
	done
	wait $!
	green -c "CALL bcmig_wait_sync('soak', 'caught_up', '10 min')" 2>/dev/null
	detail "$(awk '/^tps/ {printf "%.0f", $3}' "$work/pgbench.out") transactions a second of 5 changed rows in 3 tables, for $SOAK_SECONDS s; $(wc -l <"$work/soak.samples") samples"
	bench soak_lag_p50_ms "$(median "$(cut -d ' ' -f 2 "$work/soak.samples")")" "ms, median of the minutes"
	bench soak_lag_p99_ms "$(median "$(cut -d ' ' -f 3 "$work/soak.samples")")" "ms, median of the minutes"
	bench soak_lag_most_ms "$(cut -d ' ' -f 4 "$work/soak.samples" | sort -n | tail -n 1)" ms
	for ((i = 2; i <= ${#columns[@]}; i++)); do
		detail "${columns[i - 1]} after a tenth, in the middle, at the end: $(course_of $i)"
	done
	for table in header ledger balance; do
		[ "$(digest_soak blue $table)" = "$(digest_soak green $table)" ] || { echo "$table differs"; return 1; }
	done
	detail "all tables are equal; $(green -c "SELECT format('%s rows applied, %s in quarantine, %s conflicts, %s errors in the timeline', sum(rows_applied), (SELECT count(*) FROM bcmig.quarantine), (SELECT count(*) FROM bcmig.conflict), (SELECT count(*) FROM bcmig.timeline WHERE kind = 'error')) FROM bcmig.live_tables()")"
	drop_sync soak
	blue -c 'DROP TABLE header, ledger, balance, probe; DROP SEQUENCE no' -c "UPDATE bcmig_blue.state SET retention = '2 days'"
	green -c 'ALTER SYSTEM RESET bcmig.sync_batch_retention' -c 'SELECT pg_reload_conf()' >/dev/null
}

# digest_soak SIDE TABLE: all its columns but the stamp, which blue alone keeps
digest_soak()
{
	"$1" -c "SELECT count(*), sum(hashtextextended((to_jsonb(t) - 'timestamp' - 'bc_rowversion' - 'bc_timestamp')::text, 0)) FROM $2 t"
}
