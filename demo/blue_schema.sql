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

-- Ledger entry numbers come in blocks of ten from sequences, as in recent BC:
-- they have gaps and do not commit in order.
CREATE FUNCTION demo.make_sequences(company text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t text;
BEGIN
	FOREACH t IN ARRAY ARRAY['17', '21', '25', '32', '36', '112', '122', '254', '271', '379', '380', '5802', '339', '45', '97', 'Rename'] LOOP
		EXECUTE format('CREATE SEQUENCE public.%I INCREMENT BY 10', company || '$TableSeq' || t);
	END LOOP;
END $$;

-- After the generator: sequences go on above what there is.
CREATE FUNCTION demo.set_sequence(sequence_name text, last_used bigint) RETURNS void LANGUAGE sql AS $$
	SELECT setval(sequence_name::regclass, (coalesce(last_used, 0) / 10 + 1) * 10 + 1, false)
$$;

-- A posted G/L line in one call of VALUES: debit and credit of an amount
CREATE FUNCTION demo.debit(amount numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT greatest(amount, 0)';
CREATE FUNCTION demo.credit(amount numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT greatest(-amount, 0)';
