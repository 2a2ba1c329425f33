-- idle_tables.sql: :tables small tables that nobody changes
SELECT format('CREATE TABLE idle_%s (code varchar(20) PRIMARY KEY, description varchar(100) NOT NULL, "timestamp" bigint NOT NULL DEFAULT 0)', i),
	   format('INSERT INTO idle_%s SELECT ''C'' || n, ''Something of table %s'', 0 FROM generate_series(1, 20) n', i, i),
	   format('DO $$ BEGIN PERFORM bcmig_blue.track(''idle_%s''); END $$', i)
  FROM generate_series(1, :tables) i \gexec
ANALYZE;
