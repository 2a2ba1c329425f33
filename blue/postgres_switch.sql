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

-- ---------------------------------------------------------------------------
-- Who may call all this
-- ---------------------------------------------------------------------------
CREATE OR REPLACE FUNCTION bcmig_blue.grant_switch(switcher regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	EXECUTE format('GRANT USAGE ON SCHEMA bcmig_blue TO %s', switcher);
END $$;
COMMENT ON FUNCTION bcmig_blue.grant_switch(regrole) IS 'Lets a role fence the tracked tables, bring writes back and leave a witness';

-- Nothing is for PUBLIC
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA bcmig_blue FROM PUBLIC;

COMMIT;
