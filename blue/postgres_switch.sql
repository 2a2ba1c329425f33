/*
 * postgres_switch.sql: what a switch of writers and its way back need on a
 * PostgreSQL blue
 *
 * Run by psql in the database bcmig reads ("blue"), after
 * postgres_tracking.sql and as the same role, before traffic is moved to 100 %:
 *
 *		psql -d blue -f postgres_switch.sql
 *		SELECT bcmig_blue.grant_switch('bcmig_writer');
 *
 * The role is the one of the user mapping bcmig comes with.  Without this
 * script blue is only ever read.  Running it again updates the functions and
 * keeps all state.
 *
 * SECURITY.  Functions are SECURITY DEFINER where the role that calls them must
 * not have the right for more: to write to the tables, to put triggers on them.
 * EXECUTE is for those named in grant_switch() only.
 */
\set ON_ERROR_STOP on

BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL check_function_bodies = on;

-- ---------------------------------------------------------------------------
-- Fence: outside writes refused
-- ---------------------------------------------------------------------------

-- ---------------------------------------------------------------------------
-- Reverse: what was written on green comes back
-- ---------------------------------------------------------------------------

-- ---------------------------------------------------------------------------
-- Witness: which green has moved this blue's traffic
-- ---------------------------------------------------------------------------
CREATE TABLE IF NOT EXISTS bcmig_blue.witness (
	sync  text PRIMARY KEY,
	green text NOT NULL,
	epoch bigint NOT NULL,
	nonce text NOT NULL,
	at    timestamptz NOT NULL
);
COMMENT ON TABLE bcmig_blue.witness IS 'The green that moved the traffic of each sync last: what a copy of it, or the one before it, cannot know';
COMMENT ON COLUMN bcmig_blue.witness.sync IS 'its name on green';
COMMENT ON COLUMN bcmig_blue.witness.green IS 'host, port, data directory and identifiers of that database';
COMMENT ON COLUMN bcmig_blue.witness.epoch IS 'grows with every change of the weight';
COMMENT ON COLUMN bcmig_blue.witness.nonce IS 'a random text that goes with the epoch: two greens may give out the same one';
COMMENT ON COLUMN bcmig_blue.witness.at IS 'when it was told';

-- Told again, the same is accepted; an older epoch, or the same one of somebody else, is not.
CREATE OR REPLACE FUNCTION bcmig_blue.witness_put(sync text, green text, epoch bigint, nonce text) RETURNS boolean
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	WITH put AS (
		INSERT INTO bcmig_blue.witness AS w (sync, green, epoch, nonce, at) VALUES ($1, $2, $3, $4, clock_timestamp())
		ON CONFLICT ON CONSTRAINT witness_pkey
		DO UPDATE SET green = excluded.green, epoch = excluded.epoch, nonce = excluded.nonce, at = excluded.at
		 WHERE excluded.epoch > w.epoch OR (excluded.epoch = w.epoch AND excluded.nonce = w.nonce)
		RETURNING 1)
	SELECT EXISTS (SELECT FROM put)
$$;
COMMENT ON FUNCTION bcmig_blue.witness_put(text, text, bigint, text) IS 'Remembers which green has moved the traffic of a sync; false: a newer one is known, nothing was changed';

CREATE OR REPLACE FUNCTION bcmig_blue.witness_get(sync text) RETURNS SETOF bcmig_blue.witness
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT * FROM bcmig_blue.witness w WHERE w.sync = $1
$$;
COMMENT ON FUNCTION bcmig_blue.witness_get(text) IS 'What is remembered of a sync, or nothing';

-- ---------------------------------------------------------------------------
-- Who may call all this
-- ---------------------------------------------------------------------------
CREATE OR REPLACE FUNCTION bcmig_blue.grant_switch(switcher regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE format('GRANT USAGE ON SCHEMA bcmig_blue TO %s', switcher);
	EXECUTE format('GRANT EXECUTE ON FUNCTION bcmig_blue.witness_put(text, text, bigint, text), bcmig_blue.witness_get(text) TO %s', switcher);
END $$;
COMMENT ON FUNCTION bcmig_blue.grant_switch(regrole) IS 'Lets a role fence the tracked tables, bring writes back and leave a witness';

-- Nothing is for PUBLIC
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA bcmig_blue FROM PUBLIC;

COMMIT;
