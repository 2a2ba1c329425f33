# pgloader.sh: sourced by bench/run: pgloader (Debian's) beside bcmig, from a SQL Server and from a PostgreSQL.
#
# The SQL Server is the stand-in of tds.sh, in Python: it may be what limits both, so a plain reader (FreeTDS's tsql, into /dev/null) shows how
# long it takes to send the rows, and the processor time of who reads and writes is compared as well: pgloader and its sessions on green against
# all of green's processes while bcmig copies.  There pgloader makes tables and key; from the PostgreSQL blue, whose timestamp(3) it cannot make,
# it fills a table that is there and builds its key after the rows ("drop indexes").
# shellcheck shell=bash disable=SC2034,SC2154
PGLOADER_ROWS=${PGLOADER_ROWS:-300000}	# from the stand-in
memory_peak=

pgl()	{ PGTZ=UTC psql -X -q -At -v ON_ERROR_STOP=1 -h "$work" -p 5602 -U postgres pgl "$@"; }

# a load file on stdin; its seconds, the ticks it used, and the most memory it had
pgloader_copies()
{
	local pid begun word value key rest

	cat >"$work/load"
	green -c CHECKPOINT
	begun=$EPOCHREALTIME
	pgloader "$work/load" >"$work/pgloader.log" 2>&1 &
	pid=$!
	while read -r rest 2>/dev/null <"/proc/$pid/stat"; do
		read -ra word <<<"${rest##*) }"
		[ "${word[0]}" != Z ] || break
		own_cpu=$((word[11] + word[12]))
		while read -r key value rest; do
			[ "$key" != VmHWM: ] || memory_peak=$((value / 1024))
		done 2>/dev/null <"/proc/$pid/status"
		sleep 0.02
	done
	wait $pid || { tail -n 20 "$work/pgloader.log"; return 1; }
	took=$(awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN {print b - a}')
}

pgloader_from_tds()
{
	pgloader_copies <<-END
		LOAD DATABASE FROM mssql://bcmig_reader:secret@127.0.0.1:$tds_port/BC INTO pgsql://postgres@unix:$work:5602/pgl
		WITH include drop, create tables, create indexes, no foreign keys, reset no sequences, quote identifiers
		CAST type timestamp to bytea using byte-vector-to-bytea, type decimal to numeric keep typemod
		SET timezone to 'UTC';
	END
}

pgloader_from_postgres()
{
	pgloader_copies <<-END
		LOAD DATABASE FROM pgsql://postgres@unix:$work:5601/postgres INTO pgsql://postgres@unix:$work:5602/logical
		WITH create no tables, include no drop, truncate, drop indexes, no foreign keys, reset no sequences, quote identifiers, prefetch rows = 20000
		INCLUDING ONLY TABLE NAMES MATCHING 'gl' IN SCHEMA 'public';
	END
}

# all of a table of the stand-in by a reader that does nothing with it
plain_reader()
{
	local begun=$EPOCHREALTIME

	tsql -H 127.0.0.1 -p "$tds_port" -U bcmig_reader -P secret -D BC -o q >/dev/null 2>"$work/tsql.log" <<-'END'
		SELECT * FROM [dbo].[gl]
		go
	END
	took=$(awk -v a="$begun" -v b="$EPOCHREALTIME" 'BEGIN {print b - a}')
}

# processor seconds of the reading side: ONE by OTHER
reading_side()
{
	# shellcheck disable=SC2086
	ratio "$(median ${green_cpu[$1]})" "$(median ${green_cpu[$2]})"
}

pgloader_tds()
{
	local i

	setup_tds
	bc -v rows="$PGLOADER_ROWS" -f <(grep -v bcmig_blue "$here/gl_entry.sql") -c "SELECT mssql.register('gl', 'gl')" -c "CREATE TABLE copied AS SELECT 'gl'::regclass AS rel" >/dev/null
	green -c 'CREATE DATABASE pgl'
	pgl -c 'CREATE EXTENSION "uuid-ossp"'
	new_measures bc
	# the grammar's first verdicts
	pgloader_from_tds
	bcmig_prepares '{"workers": 1}'
	bcmig_copies
	drop_sync copy 2>/dev/null
	for ((i = 0; i < RUNS; i++)); do
		measure reader plain_reader
		measure pgloader pgloader_from_tds
		same_rows pgl dbo
		measure_bcmig one '{"workers": 1}'
		measure_bcmig default '{}'
	done
	bench copy_vs_pgloader "$(versus pgloader 'default called')" ratio
	bench copy_vs_pgloader_cpu "$(reading_side pgloader one)" ratio
	detail "$PGLOADER_ROWS rows from the stand-in for SQL Server; the most memory pgloader had: $memory_peak MB"
	told reader 'a plain reader (tsql), rows thrown away,'
	told pgloader 'pgloader with key'
	told one 'bcmig, one worker'
	told default "default ($(green -c 'SHOW bcmig.max_workers') workers)"

	# an amount of more than eight digits
	bc -c 'UPDATE gl SET "Amount" = 1234567890.12 WHERE "Entry No_" = 1'
	pgloader_from_tds
	bcmig_prepares '{}'
	bcmig_copies
	detail "of an amount of 1234567890.12 pgloader makes $(pgl -c 'SELECT trim_scale("Amount") FROM dbo.gl WHERE "Entry No_" = 1'), bcmig $(green -c 'SELECT trim_scale("Amount") FROM gl WHERE "Entry No_" = 1')"
	drop_sync copy 2>/dev/null
	green -c 'DROP DATABASE pgl'
	bc -c 'DROP TABLE gl, copied' -c "DELETE FROM mssql.object WHERE name = 'gl'"
}

pgloader_postgres()
{
	local i

	blue -v rows="$BENCH_ROWS" -f "$here/gl_entry.sql" -c "CREATE TABLE copied AS SELECT 'gl'::regclass AS rel" >/dev/null
	copy_setup 1000
	for ((i = 0; i < RUNS; i++)); do
		measure pgloader pgloader_from_postgres
		same_rows logical public
		measure_bcmig one '{"workers": 1}'
		measure_bcmig default '{}'
	done
	bench copy_vs_pgloader_postgres "$(versus pgloader 'default called')" ratio
	bench copy_vs_pgloader_postgres_cpu "$(reading_side pgloader one)" ratio
	detail "$BENCH_ROWS rows from blue on PostgreSQL; the most memory pgloader had: $memory_peak MB"
	told pgloader 'pgloader with key'
	told one 'bcmig, one worker'
	told default "default ($(green -c 'SHOW bcmig.max_workers') workers)"
	copy_cleanup
}

bench_pgloader()
{
	install_packages freetds-bin pgloader
	pgloader_tds
	pgloader_postgres
}
