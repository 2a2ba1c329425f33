# tds.sh: sourced by bench/run: a blue on SQL Server, through tds_fdw and the
# stand-in of test/tds_server, which is Python in front of database bc of the
# blue cluster.  What is measured is bcmig and tds_fdw against that server, in
# the same run; not SQL Server.
# shellcheck shell=bash disable=SC2154
TDS_ROWS=${TDS_ROWS:-100000}
TDS_TABLES=${TDS_TABLES:-100}	# in each of ten syncs
tds_pid=
tds_port=

bc()	{ psql -X -q -At -v ON_ERROR_STOP=1 -h "$work" -p 5601 -U postgres bc "$@"; }

stop_tds()
{
	[ -n "$tds_pid" ] || return 0
	kill "$tds_pid" 2>/dev/null || true
	tds_pid=
	# the grammar takes seconds for a statement it has not seen
	mkdir -p "$top/build"
	cp -r "$work/tsql-verdicts" "$top/build/"
}

setup_tds()
{
	[ -z "$tds_pid" ] || return 0
	blue -c 'CREATE DATABASE bc'
	bc -f "$top/test/tds_server/backing.sql" >/dev/null
	tds_port=$(/usr/bin/python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	cp -r "$top/test/tds_server" "$work/"
	mkdir -p "$work/tsql-verdicts"
	[ ! -d "$top/build/tsql-verdicts" ] || cp -r "$top/build/tsql-verdicts" "$work/"
	[ "$(id -u)" != 0 ] || chown -R postgres "$work/tsql-verdicts"
	as_server sh -c 'echo $$ >"$1/tds_server.pid"; exec /usr/bin/python3 "$1/tds_server/tds_server" --port "$2" --cache "$1/tsql-verdicts" --log "$1/tds.log" --backing "host=$1 port=5601 user=postgres dbname=bc"' \
		sh "$work" "$tds_port" >"$work/tds_server.log" 2>&1 &
	until grep -q listening "$work/tds_server.log"; do sleep 0.1; done
	tds_pid=$(cat "$work/tds_server.pid")
	green 2>/dev/null <<-END
		CREATE EXTENSION tds_fdw;
		CREATE SERVER bc FOREIGN DATA WRAPPER tds_fdw OPTIONS (servername '127.0.0.1', port '$tds_port', database 'BC', tds_version '7.4', character_set 'UTF-8', msg_handler 'notice');
		CREATE USER MAPPING FOR postgres SERVER bc OPTIONS (username 'bcmig_reader', password 'secret');
		SELECT bcmig_add_environment('bc', 'blue', 'bc', options => '{"connect_timeout": "120s"}') \g /dev/null
	END
}

tds_copy_once()
{
	green -c "SELECT bcmig_create_sync('copy', 'bc', '{\"workers\": 1}')" -c "SELECT bcmig_add_table('copy', 'gl')" -c CHECKPOINT \
		-c "SELECT bcmig_start_sync('copy')" -c "CALL bcmig_wait_sync('copy', 'streaming', '1 hour')" >/dev/null 2>&1
	green -c "SELECT extract(epoch FROM copy_finished - copy_started) FROM bcmig.table_state"
}

bench_tds_copy()
{
	local raw=() copy=() i

	bc -v rows="$TDS_ROWS" -f <(grep -v bcmig_blue "$here/gl_entry.sql") -c "SELECT mssql.register('gl', 'gl')" >/dev/null
	tds_copy_once >/dev/null		# the grammar's first verdicts, and the columns of a feed
	green <<-'END'
		CREATE SCHEMA raw;
		SELECT format('CREATE FOREIGN TABLE raw.gl (bc_op text, bc_rowversion bigint, %s) SERVER bc OPTIONS (match_column_names ''0'', query %L)',
			string_agg(format('%I %s', target_column, source_type), ', ' ORDER BY ordinal),
			'SELECT N''U'', CONVERT(bigint, t.[timestamp]), ' || string_agg(format('t.[%s]', source_column), ', ' ORDER BY ordinal) || ' FROM [dbo].[gl] AS t')
		  FROM bcmig.column_map \gexec
	END
	drop_sync copy
	for ((i = 0; i < RUNS; i++)); do
		# what planning takes, tds_fdw 2.0.3 runs the statement to count rows, is not the scan
		raw+=("$(green -c 'EXPLAIN (ANALYZE, TIMING OFF) SELECT * FROM raw.gl' 2>/dev/null | awk '/Execution Time/ {print $3 / 1000}')")
		copy+=("$(tds_copy_once)")
		drop_sync copy
	done
	bench tds_copy_vs_raw_scan "$(ratio "$(median "${copy[@]}")" "$(median "${raw[@]}")")" ratio
	detail "rows $TDS_ROWS; raw scan s: ${raw[*]}; copy with key s: ${copy[*]}"
	green -c 'DROP SCHEMA raw CASCADE' 2>/dev/null
}

# sessions of the backing database: one for each login of bcmig
tds_logins()
{
	bc -c "SELECT pg_stat_force_next_flush()" >/dev/null 2>&1 || true
	blue -c "SELECT sessions FROM pg_stat_database WHERE datname = 'bc'"
}

bench_tds_logins()
{
	local i before seconds=30

	bc -c 'CREATE TABLE company ("timestamp" bigint NOT NULL DEFAULT 0, "Name" varchar(30) PRIMARY KEY)' -c "SELECT mssql.register('company', 'Company')" \
		-c "INSERT INTO company (\"Name\") SELECT 'C' || i FROM generate_series(1, 10) i" >/dev/null
	for ((i = 1; i <= 10; i++)); do
		bc -v i="$i" -v n="$TDS_TABLES" >/dev/null <<-'END'
			SELECT format('CREATE TABLE c%s_%s ("timestamp" bigint NOT NULL DEFAULT 0, "Entry No_" int PRIMARY KEY, "$systemId" uuid NOT NULL DEFAULT gen_random_uuid())', :i, t),
				format('SELECT mssql.register(%L, %L)', format('c%s_%s', :i, t), format('C%s$Table %s$437dbf0e-84ff-417a-965d-ed2bb9650972', :i, t))
			  FROM generate_series(1, :n) t \gexec
		END
		green -c "SELECT bcmig_create_sync('c$i', 'bc')" -c "SELECT count(*) FROM bcmig_add_company('c$i', 'C$i')" \
			-c "SELECT bcmig_start_sync('c$i', true)" >/dev/null
	done
	for ((i = 1; i <= 10; i++)); do
		green -c "CALL bcmig_wait_sync('c$i', 'caught_up', '20 min')" >/dev/null 2>&1
	done
	sleep 20		# the last look at the schema is done
	before=$(tds_logins)
	sleep $seconds
	# one session of tds_logins() itself
	bench tds_logins_per_s "$(awk -v n=$(($(tds_logins) - before - 1)) -v s=$seconds 'BEGIN {printf "%.2f", n / s}')" logins/s
	detail "ten idle syncs of $TDS_TABLES tables each on one blue, $seconds s"
}

bench_tds()
{
	setup_tds
	bench_tds_copy
	bench_tds_latency
	bench_tds_logins
	stop_tds
}
