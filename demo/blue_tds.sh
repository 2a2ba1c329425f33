# blue_tds.sh: sourced by demo/run for BLUE=tds
#
# Blue is test/tds_server, a stand-in for SQL Server, in front of the PostgreSQL
# cluster that holds the demo's tables; the workload writes to the cluster, bcmig
# reads through tds_fdw and the stand-in.  Tables have their names of BC 15 and
# later there, and a company is added in one call.  The stand-in is Python, so
# there is less of everything.
# shellcheck shell=bash disable=SC2034,SC2154
packages=(python3-psycopg2 sqlfluff tds-fdw)
prepared=						# what commits on SQL Server commits after another
sweep_syncs='cronus my_company shared'
environment_options='{"connect_timeout": "120s"}'	# the grammar's first verdicts
least_compared=70				# a record and its companions are one
SCALE=${SCALE:-0.1}
RATE=${RATE:-10}
app=437dbf0e-84ff-417a-965d-ed2bb9650972
extension=b64d2b42-739a-4647-b44a-fd892d64fff6

# read by green's server
export FREETDSCONF

# Every shape of a statement is judged once by a grammar, which takes seconds.
keep_verdicts()
{
	[ ! -d "$work/tsql-verdicts" ] || cp -r "$work/tsql-verdicts" "$top/build/"
}

# before the clusters start
prepare_work()
{
	FREETDSCONF=$work/freetds.conf
	printf '[global]\ntds version = 7.4\nclient charset = UTF-8\ntext size = 2147483647\ntimeout = 60\nconnect timeout = 10\n' >"$FREETDSCONF"
}

prepare_blue()
{
	psql_blue -f "$top/test/tds_server/backing.sql"
	psql_blue <<-'END'
		CREATE TABLE public."$ndo$dbproperty" (invalididentifierchars varchar(50));
		INSERT INTO public."$ndo$dbproperty" VALUES ('."\/''%[]');
		SELECT mssql.register('public."$ndo$dbproperty"', '$ndo$dbproperty') \g /dev/null
	END
	tds_port=$(free_port)
	cp -r "$top/test/tds_server" "$work/"
	mkdir -p "$work/tsql-verdicts"
	[ ! -d "$top/build/tsql-verdicts" ] || cp -r "$top/build/tsql-verdicts" "$work/"
	[ "$(id -u)" != 0 ] || chown -R postgres "$work/tsql-verdicts"
	start_server tds_server /usr/bin/python3 "$work/tds_server/tds_server" --port "$tds_port" --cache "$work/tsql-verdicts" \
		--backing "host=$work port=5501 user=postgres dbname=bc"
	wait_for 60 'the stand-in for SQL Server' sh -c "grep -q listening '$work/tds_server.log' && echo t"
}

track_company()					# name
{
	# rows of before have no row version yet
	psql_blue -v company="$1" -v app="$app" -v extension="$extension" >/dev/null <<-'END'
		SELECT format('UPDATE public.%I SET "timestamp" = nextval(''mssql.rowversion'')', full_name) FROM demo.tables WHERE company = :'company' \gexec
		SELECT mssql.register(format('public.%I', full_name)::regclass,
				CASE WHEN company = '' THEN full_name
					 WHEN name LIKE '%$b64d2b42' THEN replace(full_name, '$b64d2b42', '$' || :'extension')
					 WHEN name LIKE '%$ext' THEN left(full_name, -4) || '$' || :'app' || '$ext'
					 ELSE full_name || '$' || :'app' END,
				capture = 'change_tracking' OR name LIKE '%$ext')
		  FROM demo.tables WHERE company = :'company';
		INSERT INTO public."Company" ("Name", "Id") SELECT :'company', gen_random_uuid()
		 WHERE :'company' <> '' AND NOT EXISTS (SELECT FROM public."Company" WHERE replace("Name", '.', '_') = :'company');
	END
}

connect_green()
{
	psql_green <<-END
		SET client_min_messages = warning;
		CREATE EXTENSION tds_fdw;
		CREATE SERVER bc FOREIGN DATA WRAPPER tds_fdw OPTIONS (servername '127.0.0.1', port '$tds_port', database 'BC', tds_version '7.4', character_set 'UTF-8', msg_handler 'notice');
		GRANT USAGE ON FOREIGN SERVER bc TO migrator;
		CREATE USER MAPPING FOR migrator SERVER bc OPTIONS (username 'bcmig_reader', password 'secret');
	END
}

green_schema()					# company
{
	case $1 in
		"$big") echo cronus ;;
		"$small") echo my_company ;;
		"$late") echo fabrikam ;;
		*) echo shared ;;
	esac
}

add_company()					# company
{
	local sync

	sync=$(green_schema "$1")
	green "SELECT bcmig_create_sync('$sync', 'business_central', '{\"sweep_interval\": \"5s\"}')" >/dev/null
	if [ "$sync" = shared ]; then
		green "SELECT count(*) FROM bcmig_add_shared('shared', 'shared', '{\"naming\": \"source\"}')" >/dev/null
	else
		green "SELECT count(*) FROM bcmig_add_company('$sync', '$1', '$sync', '{\"naming\": \"source\"}')" >/dev/null
		# analysis views are emptied and rebuilt: no reason to suspend the table
		green "SELECT bcmig_alter_table('$sync', '$sync.\"Analysis View Entry\"', '{\"max_delete_percent\": 100}')" >/dev/null
	fi
	start_sync "$sync"
}

make_syncs()
{
	add_company "$big"
	add_company "$small"
	add_company ''
}

make_late_sync() { add_company "$late"; }

green_table() { printf '%s."%s"' "$(green_schema "$1")" "$2"; }

# Companions are part of their record on green: the rule about them is blue's.
books_on_green()
{
	grep -v '[$]ext}' "$here/check_books.sql" | sed "s/{\([^{}]*\)}/$(green_schema "$1").\"\1\"/g"
}

# On blue a record is joined with its companions, as a green row is.
compare_list()
{
	psql_green -At -F $'\x1f' -v app="$app" -v extension="$extension" <<-'END'
		CREATE TEMP VIEW blue_name AS
		SELECT table_id, part, replace(replace(source_table, '$' || :'app', ''), :'extension', 'b64d2b42') AS name
		  FROM (SELECT table_id, 0 AS part, source_table FROM bcmig.sync_table UNION ALL SELECT table_id, part, source_table FROM bcmig.companion) x;
		SELECT b.name, CASE t.target_schema WHEN 'shared' THEN '' ELSE split_part(b.name, '$', 1) END, t.target_table,
			   format('COPY (SELECT %s FROM public.%I p0%s ORDER BY %s) TO STDOUT', m.blue_columns, b.name, coalesce(j.joins, ''), m.blue_order),
			   format('COPY (SELECT %s FROM %I.%I ORDER BY %s) TO STDOUT', m.green_columns, t.target_schema, t.target_table, m.green_order)
		  FROM bcmig.sync_table t JOIN blue_name b ON b.table_id = t.table_id AND b.part = 0,
			   LATERAL (SELECT string_agg(format('p%s.%I', part, source_column), ', ' ORDER BY ordinal) AS blue_columns,
							   string_agg(quote_ident(target_column), ', ' ORDER BY ordinal) AS green_columns,
							   string_agg(format('p%s.%I::text COLLATE "C"', part, source_column), ', ' ORDER BY key_position, ordinal) FILTER (WHERE key_position > 0 OR t.capture = 'snapshot') AS blue_order,
							   string_agg(format('%I::text COLLATE "C"', target_column), ', ' ORDER BY key_position, ordinal) FILTER (WHERE key_position > 0 OR t.capture = 'snapshot') AS green_order
						  FROM bcmig.column_map WHERE table_id = t.table_id) m,
			   LATERAL (SELECT string_agg(format(' LEFT JOIN public.%I p%s USING (%s)', c.name, c.part,
								(SELECT string_agg(quote_ident(source_column), ', ') FROM bcmig.column_map WHERE table_id = t.table_id AND key_position > 0)), '' ORDER BY c.part) AS joins
						  FROM blue_name c WHERE c.table_id = t.table_id AND c.part > 0) j
		 ORDER BY t.target_table, 2;
	END
}
