-- workload_schema.sql: what the workload needs in schema demo, on each side it writes to

-- Ledger entry numbers come in blocks of ten from sequences, as in recent BC:
-- they have gaps and do not commit in order.  Two sides that are written to in
-- turn each have a range of their own.
CREATE FUNCTION demo.make_sequences(company text, first bigint DEFAULT 1) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	t text;
BEGIN
	FOREACH t IN ARRAY ARRAY['17', '21', '25', '32', '36', '112', '122', '254', '271', '379', '380', '5802', '339', '45', '97', 'Rename'] LOOP
		EXECUTE format('CREATE SEQUENCE public.%I INCREMENT BY 10 START %s', company || '$TableSeq' || t, first);
	END LOOP;
END $$;

-- A posted G/L line in one call of VALUES: debit and credit of an amount
CREATE FUNCTION demo.debit(amount numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT greatest(amount, 0)';
CREATE FUNCTION demo.credit(amount numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT greatest(-amount, 0)';
