# copy.sh: sourced by bench/run: the first copy of tables, beside what else brings them over.
#
#	raw scan			postgres_fdw reads every row, and the rows are thrown away: no reader through it is faster
#	INSERT ... SELECT	from foreign tables into tables with their key, one after the other, in one session
#	logical replication	another database of green subscribes, copy_data as it is by default, tables with their key:
#						from CREATE SUBSCRIPTION to the last table in state 's' or 'r'
#	bcmig				from bcmig_start_sync() to rows and key, and to the last table following blue (streaming)
#
# The tables are those in "copied" on "source", which is blue, or bc, the database behind the stand-in for SQL Server (tds.sh).  Every copy is
# compared with it, row for row, before its time counts.
# shellcheck shell=bash disable=SC2154
BENCH_LOB_MB=${BENCH_LOB_MB:-2048}
BENCH_INVOICES=${BENCH_INVOICES:-50000}	# of the company
declare -A times cpus green_cpu
source=blue
took=
it_has=

# ---------------------------------------------------------------------------
# Statements, one for each table; name is quoted, key is a constraint
# ---------------------------------------------------------------------------
each()				# EXPRESSION
{
	"$source" -c "SELECT $1 FROM (SELECT format('%I', c.relname) AS name, c.relname, (SELECT pg_get_constraintdef(k.oid) FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p') AS key,
			(SELECT string_agg(format(CASE a.atttypid WHEN 'bytea'::regtype THEN 'md5(%I)' ELSE '%I::%s' END, a.attname, format_type(a.atttypid, a.atttypmod)), ', ' ORDER BY a.attnum)
			   FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname <> 'timestamp') AS columns
		FROM copied JOIN pg_class c ON c.oid = copied.rel ORDER BY pg_table_size(c.oid) DESC) t"
}

# rows and hashes of all tables, as values of blue's types: SIDE SCHEMA; blue's row version is no part of it
digest_of()
{
	each "format('SELECT %L, count(*), sum(hashtextextended(ROW(%s)::text, 0)) FROM $2.%s;', relname, columns, name)" | "$1"
}

same_rows()			# SIDE SCHEMA
{
	local there

	[ -n "$it_has" ] || it_has=$(digest_of "$source" public)
	there=$(digest_of "$1" "$2")
	if [ -z "$it_has" ] || [ "$there" != "$it_has" ]; then
		echo "$1, schema $2, has not what $source has:"
		diff <(echo "$it_has") <(echo "$there") | head -n 10
		return 1
	fi
}

# ---------------------------------------------------------------------------
# The ways.  Each leaves its seconds in "took".
# ---------------------------------------------------------------------------
new_measures()		# SOURCE
{
	source=$1
	it_has=
	times=() cpus=() green_cpu=()
}

# wal_level of blue, empty tables with key for all of "copied": FETCH_SIZE of the foreign ones
copy_setup()
{
	new_measures blue
	wal_level logical
	for side in blue green; do
		"$side" -c 'ALTER SYSTEM SET autovacuum = off' -c "ALTER SYSTEM SET wal_retrieve_retry_interval = '100ms'"
		"$side" -c 'SELECT pg_reload_conf()' >/dev/null
	done
	blue -c 'CREATE TABLE one (id int)'
	blue <<<"SELECT 'CREATE PUBLICATION copy FOR TABLE ' || string_agg(rel::text, ', ') FROM copied \gexec"
	green -c 'CREATE SCHEMA raw' -c 'CREATE SCHEMA ins' -c 'CREATE DATABASE logical'
	{
		each "'IMPORT FOREIGN SCHEMA public LIMIT TO (one, ' || string_agg(name, ', ') || ') FROM SERVER blue INTO raw;'"
		each "format('ALTER FOREIGN TABLE raw.%s OPTIONS (ADD fetch_size ''$1'');', name)"
		each "format('CREATE TABLE ins.%1\$s AS SELECT * FROM raw.%1\$s LIMIT 0; ALTER TABLE ins.%1\$s ADD %2\$s;', name, key)"
	} | green
	{
		echo 'SET client_min_messages = warning;'
		pg_dump -h "$work" -p 5601 -U postgres -s --section=pre-data -n public postgres | sed '/bcmig/d; /SCHEMA public/d'
		each "format('ALTER TABLE public.%s ADD %s;', name, key)"
	} | logical >/dev/null
}

copy_cleanup()
{
	local side

	green -c 'DROP SCHEMA raw, ins CASCADE' -c 'DROP DATABASE logical' 2>/dev/null
	blue -c 'DROP PUBLICATION copy'
	blue <<<"SELECT 'DROP TABLE ' || string_agg(rel::text, ', ') FROM copied \gexec"
	blue -c 'DROP TABLE copied, one'
	for side in blue green; do
		"$side" -c 'ALTER SYSTEM RESET autovacuum' -c "ALTER SYSTEM RESET wal_retrieve_retry_interval"
		"$side" -c 'SELECT pg_reload_conf()' >/dev/null
	done
	wal_level replica
}

# statements on green in one session, its connection to blue made before
timed_all()
{
	took=$({
		printf '%s\n' 'SELECT count(*) FROM raw.one \g /dev/null' 'SELECT clock_timestamp() AS began \gset' '\o /dev/null'
		cat
		printf '%s\n' '\o' "SELECT extract(epoch FROM clock_timestamp() - :'began');"
	} | green)
}

raw_scans()
{
	timed_all < <(each "format('EXPLAIN (ANALYZE, TIMING OFF) SELECT * FROM raw.%s;', name)")
}

insert_copies()
{
	each "format('TRUNCATE ins.%s;', name)" | green
	green -c CHECKPOINT
	timed_all < <(each "format('INSERT INTO ins.%1\$s SELECT * FROM raw.%1\$s;', name)")
}

# what bcmig does once no table waits for its copy, and the others leave to autovacuum
analyzes()
{
	timed_all < <(each "format('ANALYZE ins.%s;', name)")
}

subscription_copies()
{
	each "format('TRUNCATE %s;', name)" | logical
	green -c CHECKPOINT
	took=$(logical 2>/dev/null <<-END
		SELECT clock_timestamp() AS began \gset
		CREATE SUBSCRIPTION copy CONNECTION 'host=$work port=5601 user=postgres dbname=postgres' PUBLICATION copy;
		DO \$\$ BEGIN WHILE EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate NOT IN ('s', 'r')) LOOP PERFORM pg_sleep(0.01); COMMIT; END LOOP; END \$\$;
		SELECT extract(epoch FROM clock_timestamp() - :'began');
	END
	)
	logical -c 'DROP SUBSCRIPTION copy' 2>/dev/null
}

# a sync of them, ready to start: OPTIONS
bcmig_prepares()
{
	green -c "SELECT bcmig_create_sync('copy', '$source', '$1')" >/dev/null
	each "format('SELECT bcmig_add_table(''copy'', %L);', relname)" | green >/dev/null 2>&1
	green -c CHECKPOINT
}

# seconds of the copy alone (its first chunk's begin to the last key), from the call to the last key, and from the call to the
# last table following blue
bcmig_copies()
{
	took=$(green -F ' ' 2>/dev/null <<-'END'
		SELECT clock_timestamp() AS began \gset
		SELECT bcmig_start_sync('copy') \g /dev/null
		CALL bcmig_wait_sync('copy', 'streaming', '6 hours');
		SELECT extract(epoch FROM max(copy_finished) - min(copy_started)), extract(epoch FROM max(copy_finished) - :'began'), extract(epoch FROM max(since) - :'began')
		  FROM bcmig.table_state;
	END
	)
}

# clock ticks all processes of a cluster have used: SIDE
ticks_of()
{
	local pm p

	sleep 0.3	# who has just ended is the postmaster's by then
	pm=$(head -1 "$work/$1/postmaster.pid")
	{
		# with those that have ended
		awk '{sub(/.*\) /, ""); print $12 + $13 + $14 + $15}' "/proc/$pm/stat"
		for p in $(pgrep -P "$pm"); do awk '{sub(/.*\) /, ""); print $12 + $13}' "/proc/$p/stat" 2>/dev/null || true; done
	} | awk '{n += $1} END {print n}'
}

# measure NAME COMMAND...: its seconds, and processor seconds of blue and of green; a loader outside adds its "own_cpu" to green's
measure()
{
	local name=$1 blue_cpu of_green

	shift
	own_cpu=0
	blue_cpu=$(ticks_of blue) of_green=$(ticks_of green)
	"$@"
	blue_cpu=$(seconds $(($(ticks_of blue) - blue_cpu)))
	of_green=$(seconds $(($(ticks_of green) - of_green + own_cpu)))
	cpus[$name]+=" $blue_cpu+$of_green"
	green_cpu[$name]+=" $of_green"
	times[$name]+=" ${took%% *}"
	[ "$took" = "${took% *}" ] || {
		times[$name called]+=" $(cut -d ' ' -f 2 <<<"$took")"
		times[$name following]+=" $(cut -d ' ' -f 3 <<<"$took")"
	}
}

seconds()			# TICKS
{
	awk -v t="$1" -v hz="$(getconf CLK_TCK)" 'BEGIN {printf "%.2f", t / hz}'
}

measure_bcmig()		# NAME OPTIONS
{
	bcmig_prepares "$2"
	measure "$1" bcmig_copies
	same_rows green public
	drop_sync copy 2>/dev/null
}

measure_insert()
{
	measure insert insert_copies
	same_rows green ins
	measure analyze analyzes
	each "format('TRUNCATE ins.%s;', name)" | green
}

measure_logical()
{
	measure logical subscription_copies
	same_rows logical public
	each "format('TRUNCATE %s;', name)" | logical
}

# times of ONE by times of OTHER
versus()
{
	# shellcheck disable=SC2086
	ratio "$(median ${times[$1]})" "$(median ${times[$2]})"
}

# what was measured, for bench/RESULTS.md: NAME TEXT
told()
{
	detail "$2 s:${times[$1]}${times[$1 called]:+; from the call:${times[$1 called]}; until it follows blue:${times[$1 following]}}; processor s, blue+green:${cpus[$1]}"
}

# each way once
measure_round()
{
	measure raw raw_scans
	measure_bcmig one '{"workers": 1}'
	measure_insert
	measure_bcmig default '{}'
	measure_logical
}

# ---------------------------------------------------------------------------
bench_copy()
{
	local i

	blue -v rows="$BENCH_ROWS" -f "$here/gl_entry.sql" -c "CREATE TABLE copied AS SELECT 'gl'::regclass AS rel" >/dev/null
	copy_setup 1000
	for ((i = 0; i < RUNS; i++)); do
		measure_round
		measure_bcmig two '{"workers": 2, "parallel": 2}'
	done
	bench copy_vs_raw_scan "$(versus one raw)" ratio
	bench copy_default_vs_raw_scan "$(versus default raw)" ratio
	bench insert_select_vs_raw_scan "$(versus insert raw)" ratio
	bench copy_vs_insert_select "$(versus insert 'default called')" ratio
	bench copy_vs_logical_replication "$(versus logical 'default following')" ratio
	bench copy_two_workers_speedup "$(versus one two)" ratio
	detail "rows $BENCH_ROWS, $(blue -c "SELECT pg_size_pretty(pg_table_size('gl'))"); one worker over two, from the call to rows and key: $(versus 'one called' 'two called')"
	told raw 'raw scan'
	told insert 'INSERT SELECT with key'
	told analyze 'ANALYZE of it, which bcmig does once it follows blue,'
	told logical 'logical replication'
	told one 'bcmig, one worker'
	told two 'two workers'
	told default "default ($(green -c 'SHOW bcmig.max_workers') workers)"
	copy_cleanup
}

# 25 tables of a company as the demo makes them: those with most rows, of thirty times as many as invoices to a few hundred
bench_company()
{
	local i

	{
		echo 'CREATE SCHEMA demo; CREATE TABLE demo.tables (company text, name text, full_name text, capture text);'
		echo "CREATE FUNCTION demo.set_sequence(text, bigint) RETURNS void LANGUAGE sql AS '';"
		awk -v company=CRONUS -f "$top/demo/schema.awk" "$top/demo/tables.txt"
		sed 's/{\([^{}]*\)}/"CRONUS$\1"/g' "$top/demo/generate.sql"
		cat <<-'END'
			ANALYZE;
			CREATE TABLE copied AS SELECT c.oid::regclass AS rel FROM demo.tables t JOIN pg_class c ON c.relname = t.full_name AND c.relnamespace = 'public'::regnamespace
			 WHERE EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary) ORDER BY c.reltuples DESC LIMIT 25;
			SELECT format('DROP TABLE %I', full_name) FROM demo.tables WHERE NOT EXISTS (SELECT FROM copied WHERE rel = format('%I', full_name)::regclass) \gexec
			-- keys only: nobody else would bring over the other indexes
			SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', rel, conname) FROM copied JOIN pg_constraint ON conrelid = rel AND contype = 'u' \gexec
			SELECT format('DROP INDEX %s', indexrelid::regclass) FROM copied JOIN pg_index ON indrelid = rel AND NOT indisprimary \gexec
			SELECT bcmig_blue.track(rel) FROM copied \g /dev/null
			DROP SCHEMA demo CASCADE;
			VACUUM ANALYZE;
		END
	} | blue -v n="$BENCH_INVOICES" -v nc=1000 -v nv=200 -v ni=1000 -v no=300 >"$work/company.log" 2>&1 || { tail "$work/company.log"; return 1; }
	copy_setup 1000
	for ((i = 0; i < RUNS; i++)); do
		measure raw raw_scans
		measure_insert
		measure_bcmig default '{}'
		measure_logical
	done
	bench company_copy_vs_raw_scan "$(versus 'default called' raw)" ratio
	bench company_copy_vs_insert_select "$(versus insert 'default called')" ratio
	bench company_copy_vs_logical_replication "$(versus logical 'default following')" ratio
	detail "$(blue -c "SELECT count(*) || ' tables, ' || sum(reltuples) || ' rows, ' || pg_size_pretty(sum(pg_table_size(oid))) || '; the smallest has ' || min(reltuples) || ' rows, the biggest ' || max(reltuples) FROM pg_class WHERE oid IN (SELECT rel FROM copied)")"
	told raw 'raw scans, one after the other'
	told insert 'INSERT SELECT with key, one after the other'
	told analyze 'ANALYZE of them, which bcmig does once all follow blue,'
	told logical "logical replication ($(green -c 'SHOW max_sync_workers_per_subscription') tables at a time, its default)"
	told default "bcmig, default ($(green -c 'SHOW bcmig.max_workers') workers)"
	copy_cleanup
}

# rows of 100 kB to 20 MB, as many small ones as big ones by their logarithm, of bytes that do not compress; the first is the biggest
make_lobs()			# MB
{
	blue -v mb="$1" >/dev/null <<-'END'
		SET client_min_messages = warning;
		CREATE EXTENSION IF NOT EXISTS pgcrypto;
		CREATE TABLE lob ("timestamp" bigint NOT NULL DEFAULT 0, "ID" uuid PRIMARY KEY, "Description" varchar(100) NOT NULL DEFAULT '',
			"Content" bytea, "Mime Type" varchar(100) NOT NULL DEFAULT '', "Height" int NOT NULL DEFAULT 0, "File Name" varchar(250) NOT NULL DEFAULT '');
		CREATE TABLE pool (bytes bytea);
		ALTER TABLE pool ALTER bytes SET STORAGE EXTERNAL;
		INSERT INTO pool SELECT string_agg(gen_random_bytes(1000), '') FROM generate_series(1, 21000);
		INSERT INTO lob ("ID", "Description", "Content", "Mime Type", "File Name")
		SELECT gen_random_uuid(), 'Attachment ' || i, substr(bytes, 1 + (i * 7919) % (20999999 - size), size), 'application/pdf', i || '.pdf'
		  FROM (SELECT i, CASE WHEN i = 0 THEN 20000000 ELSE (100000 * 200 ^ (i * 0.61803398875 % 1))::int END AS size FROM generate_series(0, 100000) i) x, pool
		 WHERE i <= (:mb::numeric * 1048576 - 20000000) / 3755000;
		DROP TABLE pool;
		SELECT bcmig_blue.track('lob');
		VACUUM ANALYZE lob;
		CREATE TABLE copied AS SELECT 'lob'::regclass AS rel;
	END
}

bench_lob()
{
	local i tenth

	make_lobs "$BENCH_LOB_MB"
	copy_setup 4
	for ((i = 0; i < RUNS; i++)); do
		measure_round
	done
	bench lob_copy_vs_raw_scan "$(versus one raw)" ratio
	bench lob_copy_default_vs_raw_scan "$(versus default raw)" ratio
	bench lob_copy_vs_insert_select "$(versus insert 'default called')" ratio
	bench lob_copy_vs_logical_replication "$(versus logical 'default following')" ratio
	detail "$(blue -c "SELECT count(*) || ' rows, ' || pg_size_pretty(sum(octet_length(\"Content\"))) || ', from ' || pg_size_pretty(min(octet_length(\"Content\"))::bigint) || ' to ' || pg_size_pretty(max(octet_length(\"Content\"))::bigint) FROM lob")"
	told raw 'raw scan, 4 rows at a time'
	told insert 'INSERT SELECT with key, 4 rows at a time'
	told logical 'logical replication'
	told one 'bcmig, one worker'
	told default "default ($(green -c 'SHOW bcmig.max_workers') workers)"
	memory_of '{}'
	copy_cleanup
	bench lob_memory_mb "$memory" MB
	make_lobs $((BENCH_LOB_MB / 10))
	memory_of '{}'
	tenth=$memory
	blue -c 'DROP TABLE lob, copied'
	bench lob_memory_tenth_mb "$tenth" MB
	detail "growth of RssAnon of the worker that grew most, at $BENCH_LOB_MB MB and at a tenth of them; each has a row of 20 MB"
}

# ---------------------------------------------------------------------------
# workers and what they do, "pid|phase"
worker_phases()
{
	green -c "SELECT pid, phase FROM bcmig.worker_status WHERE role = 'worker'"
}

# private memory of a process now, in kB
rss_anon()
{
	local key value rest

	kb=0
	while read -r key value rest; do
		[ "$key" != RssAnon: ] || { kb=$value; break; }
	done 2>/dev/null <"/proc/$1/status" || true
}

# growth of the private memory of the worker that grew most, in MB: "memory" while rows are copied, "key_memory" while the key is built.
# A worker is asked what it does before and after ten looks at its memory; they count when that is the same.
memory_of()			# OPTIONS
{
	local pid phase kb i workers again
	local -A least=() seen=() most=()

	source=blue
	green -c "SELECT bcmig_create_sync('mem', 'blue', '$1')" >/dev/null
	each "format('SELECT bcmig_add_table(''mem'', %L);', relname)" | green >/dev/null 2>&1
	again=$(worker_phases)
	green -c "SELECT bcmig_start_sync('mem')" >/dev/null
	while [ "$(green -c "SELECT bool_and(state = 'streaming') FROM bcmig.table_status")" != t ]; do
		workers=$again
		seen=()
		for ((i = 0; i < 10; i++)); do
			while IFS='|' read -r pid phase; do
				[ -n "$pid" ] || continue
				rss_anon "$pid"
				[ "$kb" -gt 0 ] || continue
				[ "$kb" -ge "${least[$pid]:-$((kb + 1))}" ] || least[$pid]=$kb
				[ "$kb" -le "${seen[$pid|$phase]:-0}" ] || seen[$pid|$phase]=$kb
			done <<<"$workers"
			sleep 0.005
		done
		again=$(worker_phases)
		for i in "${!seen[@]}"; do
			[[ $'\n'$again$'\n' != *$'\n'"$i"$'\n'* ]] || [ "${seen[$i]}" -le "${most[$i]:-0}" ] || most[$i]=${seen[$i]}
		done
	done
	memory=0 key_memory=0
	for i in "${!most[@]}"; do
		kb=$(((${most[$i]} - ${least[${i%%|*}]} + 1023) / 1024))
		case ${i#*|} in
		copy) [ $kb -le "$memory" ] || memory=$kb ;;
		'index build') [ $kb -le "$key_memory" ] || key_memory=$kb ;;
		esac
	done
	[ ${#most[@]} -gt 0 ] || { echo "no worker was seen copying"; return 1; }
	drop_sync mem 2>/dev/null
}

# memory_at ROWS OPTIONS: of a copy of so many rows of gl
memory_at()
{
	blue -v rows="$1" -f "$here/gl_entry.sql" -c "CREATE TABLE copied AS SELECT 'gl'::regclass AS rel" >/dev/null
	memory_of "$2"
	blue -c 'DROP TABLE gl, copied'
}

bench_memory()
{
	local build tenth_build

	memory_at "$BENCH_ROWS" '{"workers": 1}'
	bench copy_memory_mb "$memory" MB
	build=$key_memory
	memory_at $((BENCH_ROWS / 10)) '{"workers": 1}'
	bench copy_memory_tenth_mb "$memory" MB
	tenth_build=$key_memory
	memory_at "$BENCH_ROWS" '{}'
	bench copy_default_memory_mb "$memory" MB
	memory_at $((BENCH_ROWS / 10)) '{}'
	bench copy_default_memory_tenth_mb "$memory" MB
	bench key_build_memory_mb "$build" MB
	detail "growth of RssAnon of the one worker, and of that of the default's which grew most, at $BENCH_ROWS rows and at a tenth of them;"
	detail "key build at a tenth: $tenth_build MB, PostgreSQL's own sort there, bounded by maintenance_work_mem ($(green -c 'SHOW maintenance_work_mem'))"
}
