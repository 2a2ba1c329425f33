-- blue_schema.sql: what the demo needs on blue beside the tables (schema.awk)

CREATE SCHEMA demo;
CREATE TABLE demo.tables (
	company   text NOT NULL,
	name      text NOT NULL,
	full_name text NOT NULL UNIQUE,
	capture   text NOT NULL,
	PRIMARY KEY (company, name)
);
COMMENT ON TABLE demo.tables IS 'Tables of the demo: company ('''' = shared), name in BC, name on blue, how changes are captured (none = untracked)';

-- After the generator: sequences go on above what there is.
CREATE FUNCTION demo.set_sequence(sequence_name text, last_used bigint) RETURNS void LANGUAGE sql AS $$
	SELECT setval(sequence_name::regclass, (coalesce(last_used, 0) / 10 + 1) * 10 + 1, false)
$$;

\ir workload_schema.sql
