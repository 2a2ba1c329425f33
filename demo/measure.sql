-- measure.sql: on green, schema demo: what the demo measures there, none of it bcmig's code
CREATE EXTENSION IF NOT EXISTS dblink;
CREATE SCHEMA demo;
CREATE TABLE demo.probe (at timestamptz NOT NULL, ms double precision NOT NULL);
CREATE TABLE demo.lag (at timestamptz NOT NULL, sync text NOT NULL, lag interval);

-- For so many seconds: commit a row on blue, wait until it is visible here,
-- note how long that took, and what sync_status says of the lag.
CREATE PROCEDURE demo.measure(blue text, blue_table text, green_table text, seconds double precision) LANGUAGE plpgsql AS $$
DECLARE
	until_then timestamptz := clock_timestamp() + seconds * interval '1 s';
	committed  timestamptz;
	line       integer := 0;
	seen       boolean;
BEGIN
	PERFORM dblink_connect('blue', blue);
	WHILE clock_timestamp() < until_then LOOP
		line := line + 1;
		PERFORM dblink_exec('blue', format('INSERT INTO %s ("Table Name", "No_", "Line No_", "Comment") VALUES (99, ''PROBE'', %s, ''probe'')', blue_table, line));
		committed := clock_timestamp();
		LOOP
			COMMIT;
			EXECUTE format('SELECT EXISTS (SELECT FROM %s WHERE "Table Name" = 99 AND "No_" = ''PROBE'' AND "Line No_" = $1)', green_table) INTO seen USING line;
			EXIT WHEN seen;
			IF clock_timestamp() > committed + interval '20 s' THEN
				RAISE EXCEPTION 'a row committed on blue was not on green after 20 s';
			END IF;
			PERFORM pg_sleep(0.001);
		END LOOP;
		INSERT INTO demo.probe VALUES (committed, 1000 * extract(epoch FROM clock_timestamp() - committed));
		INSERT INTO demo.lag SELECT clock_timestamp(), s.sync, s.lag FROM bcmig.sync_status s;
		COMMIT;
		PERFORM pg_sleep(0.02 + 0.1 * random());	-- not in step with bcmig's polls
	END LOOP;
	PERFORM dblink_disconnect('blue');
END $$;
