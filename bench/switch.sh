# switch.sh: sourced by bench/run: how long writes stop when they move to green
# and when they come back, how soon readers are away from green, what a call of
# bcmig_route costs.
# shellcheck shell=bash disable=SC2154

KEYS=${KEYS:-10000}
haproxy_pid=

stop_haproxy()
{
	[ -z "$haproxy_pid" ] || kill "$haproxy_pid"
	haproxy_pid=
}

# Nobody sends requests through it: what is asked of it is what it would do with them.
start_haproxy()
{
	cat >"$work/haproxy.cfg" <<-END
		global
			stats socket $work/haproxy.sock mode 666 level admin
		defaults
			mode http
			timeout connect 5s
			timeout client 5s
			timeout server 5s
		frontend f
			bind unix@$work/front.sock
			default_backend bc
		backend bc
			balance roundrobin
			server blue1 127.0.0.1:1 weight 100
			server green1 127.0.0.1:2 weight 0
	END
	/usr/sbin/haproxy -db -f "$work/haproxy.cfg" >"$work/haproxy.log" 2>&1 &
	haproxy_pid=$!
	until [ -S "$work/haproxy.sock" ]; do sleep 0.1; done
}

# to 100 %, and what of the switch is wanted
to_green()
{
	green -c "SELECT count(*) FROM bcmig_switch_traffic('sw', '{100}', '{\"stabilization\": 0}')" -c "CALL bcmig_wait_sync('sw', 'switched', '5 min')" >/dev/null 2>&1
	green -c "SELECT $1 FROM bcmig.switch_status LIMIT 1"
}

wait_for_blue()
{
	green -c "CALL bcmig_wait_sync('sw', 'rolled_back', '5 min')" >/dev/null 2>&1
	green -c "SELECT $1 FROM bcmig.switch_status LIMIT 1"
}

# how long the way back takes for that many keys
roll_back_after()
{
	to_green state >/dev/null
	green -c "UPDATE entry SET amount = amount + 1 WHERE id <= $1"
	[ "$(green -c "SELECT unreplayed FROM bcmig.journal_status WHERE sync = 'sw'")" = "$1" ]
	green -c "SELECT count(*) FROM bcmig_rollback('sw', 'benchmark')" >/dev/null
	wait_for_blue 'round(extract(epoch FROM ended_at - asked_at) * 1000)'
}

bench_switch()
{
	local pause=() back=() readers=() total=() many=() route=() i calls=1000000 applications=()

	blue -f "$top/blue/postgres_switch.sql" -c "SELECT bcmig_blue.grant_switch('postgres')" >/dev/null
	blue >/dev/null <<-'END'
		SET client_min_messages = warning;
		CREATE TABLE entry (id bigint PRIMARY KEY, amount numeric(38,20), note text, "timestamp" bigint NOT NULL DEFAULT 0);
		INSERT INTO entry SELECT i, i / 3.0, 'old', 0 FROM generate_series(1, 100000) i;
		SELECT bcmig_blue.track('entry');
		DO $$ BEGIN FOR i IN 1..19 LOOP
			EXECUTE format('CREATE TABLE sw%s (id int PRIMARY KEY, v text, "timestamp" bigint NOT NULL DEFAULT 0)', i);
			EXECUTE format('INSERT INTO sw%s SELECT g FROM generate_series(1, 5000) g', i);
			PERFORM bcmig_blue.track(('sw' || i)::regclass);
		END LOOP; END $$;
	END
	start_haproxy
	green -c "SELECT bcmig_alter_environment('blue', '{\"fence_by\": \"call\"}')" -c "SELECT bcmig_create_sync('sw', 'blue')" \
		-c "SELECT bcmig_add_table('sw', 'entry')" -c "SELECT count(bcmig_add_table('sw', 'sw' || i)) FROM generate_series(1, 19) i" \
		-c "SELECT bcmig_start_sync('sw')" -c "CALL bcmig_wait_sync('sw', 'caught_up', '10 min')" \
		-c "SELECT bcmig_add_balancer('sw', 'front', 'haproxy', 'unix://$work/haproxy.sock', '{\"backend\": \"bc\", \"blue\": [\"blue1\"], \"green\": [\"green1\"]}')" \
		-c "SELECT bcmig_validate('sw', mode => 'full')" -c "CALL bcmig_wait_sync('sw', 'validated', '10 min')" >/dev/null 2>&1

	# applications that ask bcmig_route where to write
	mkfifo "$work/go_on"
	for i in 1 2 3 4; do
		/usr/bin/python3 "$top/t/lib/app.py" "host=$work port=5602 user=postgres dbname=postgres" "host=$work port=5601 user=postgres dbname=postgres" sw \
			$((i * 10000000)) "$work/application$i" 50 <"$work/go_on" 2>"$work/application$i.err" &
		applications+=($!)
	done
	exec 8>"$work/go_on"
	sleep 3	# the load is on
	for ((i = 0; i < RUNS; i++)); do
		pause+=("$(to_green write_pause_ms)")
		sleep 2	# they write on green
		readers+=("$(/usr/bin/python3 "$here/readers.py" "host=$work port=5602 user=postgres dbname=postgres" "$work/haproxy.sock" sw green1)")
		back+=("$(wait_for_blue write_pause_ms)")
		sleep 2	# they write on blue
	done
	exec 8>&-
	wait "${applications[@]}"
	cat "$work"/application?.err
	if grep -h ^error "$work"/application?; then return 1; fi
	bench switch_write_pause_ms "$(median "${pause[@]}")" ms
	bench rollback_readers_ms "$(median "${readers[@]}")" ms
	detail "writes stopped ms by the step to 100 %: ${pause[*]}; by rollbacks: ${back[*]}; from bcmig_rollback() to no request for green ms: ${readers[*]}"
	detail "20 tables, 195,000 rows; $(cat "$work"/application? | grep -c '^blue') writes acknowledged by blue, $(cat "$work"/application? | grep -c '^green') by green"

	# nothing is on blue yet when the way back begins
	green -c "SELECT bcmig_alter_sync('sw', '{\"reverse\": false}')" >/dev/null
	for ((i = 0; i < RUNS; i++)); do
		total+=("$(roll_back_after "$KEYS")")
		many+=("$(roll_back_after $((4 * KEYS)))")
	done
	bench rollback_total_ms "$(median "${total[@]}")" ms
	bench rollback_growth "$(ratio "$(median "${many[@]}")" "$(median "${total[@]}")")" ratio
	detail "$KEYS keys to be brought to blue, ms: ${total[*]}; four times as many: ${many[*]}"

	for ((i = 0; i < RUNS; i++)); do
		route+=("$(green -c "SELECT bcmig_route('sw', 'x')" -c '\timing' -c "SELECT count(bcmig_route('sw', i::text)) FROM generate_series(1, $calls) i" |
			awk -v n=$calls '/^Time:/ {printf "%.0f", n / $2 * 1000}')")
	done
	bench route_calls_per_s "$(median "${route[@]}")" calls/s
	detail "$calls calls in one session, a key each: ${route[*]}"
	stop_haproxy
	green -c "SELECT bcmig_remove_balancer('sw', 'front')" >/dev/null
	drop_sync sw
	blue <<<"SELECT format('DROP TABLE %I', t) FROM unnest('{entry}'::text[] || ARRAY(SELECT 'sw' || i FROM generate_series(1, 19) i)) t \gexec" >/dev/null
}
