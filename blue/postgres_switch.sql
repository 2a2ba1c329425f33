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
-- Triggers refuse: BEFORE ROW on every table that holds rows (so partitions of
-- a partitioned table, which rows reach by whatever way), since an apply worker
-- of logical replication fires no statement triggers, and BEFORE TRUNCATE.
-- ENABLE ALWAYS, since that worker and others set session_replication_role.
-- They bind superusers and owners like everyone; an owner can take them away,
-- which bcmig sees: it believes in pg_trigger, not in what was asked for.

-- transactions that bring green's writes back: they pass
CREATE TABLE IF NOT EXISTS bcmig_blue.replaying (
	xid bigint PRIMARY KEY
);

CREATE TABLE IF NOT EXISTS bcmig_blue.fence (
	relid     oid PRIMARY KEY,
	raised_by text NOT NULL,
	raised_at timestamptz NOT NULL
);
COMMENT ON TABLE bcmig_blue.fence IS 'Who has fenced which table, for the message of those who are refused';
COMMENT ON COLUMN bcmig_blue.fence.relid IS 'oid of the table';
COMMENT ON COLUMN bcmig_blue.fence.raised_by IS 'role, and where it came from';
COMMENT ON COLUMN bcmig_blue.fence.raised_at IS 'when it was raised first';

CREATE OR REPLACE FUNCTION bcmig_blue.fenced() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	f bcmig_blue.fence;
BEGIN
	IF TG_LEVEL = 'ROW' AND EXISTS (SELECT FROM bcmig_blue.replaying r WHERE r.xid = pg_current_xact_id_if_assigned()::text::bigint) THEN
		IF TG_OP = 'DELETE' THEN
			RETURN OLD;
		END IF;
		RETURN NEW;
	END IF;
	SELECT * INTO f FROM bcmig_blue.fence x WHERE x.relid = TG_RELID;
	RAISE EXCEPTION 'table %.% takes no writes any more: they have moved to another database', quote_ident(TG_TABLE_SCHEMA), quote_ident(TG_TABLE_NAME)
		USING ERRCODE = 'BM021',
			  DETAIL = format('bcmig has fenced it%s%s.', ' at ' || to_char(f.raised_at, 'YYYY-MM-DD HH24:MI:SS TZ'), ', for ' || f.raised_by),
			  HINT = 'Write to the other database; its administrator knows bcmig, and can bring the writes back here (bcmig_rollback).';
END $$;
COMMENT ON FUNCTION bcmig_blue.fenced() IS 'Trigger of a fenced table: refuses every write that is not one of bcmig''s own';

-- The tables that hold the rows of these, partitions and children included, in
-- the order they are locked in; NULL for one that is not there.
CREATE OR REPLACE FUNCTION bcmig_blue.fence_relations(tables text[]) RETURNS TABLE (relid oid)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
	WITH RECURSIVE family (relid) AS (
		SELECT to_regclass(t)::oid FROM unnest(tables) t
		UNION
		SELECT i.inhrelid FROM family f JOIN pg_inherits i ON i.inhparent = f.relid)
	SELECT f.relid FROM family f LEFT JOIN pg_class c ON c.oid = f.relid
	 WHERE c.relkind IS DISTINCT FROM 'p' ORDER BY 1
$$;
COMMENT ON FUNCTION bcmig_blue.fence_relations(text[]) IS 'Relations a fence of these tables is about';

-- Waits for those who are writing.  All tables or none: when time is up the
-- locks taken so far go with the subtransaction.
CREATE OR REPLACE FUNCTION bcmig_blue.lock_for_fence(tables text[], timeout interval) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET lock_timeout = 0
AS $$
DECLARE
	deadline timestamptz := clock_timestamp() + timeout;
	this     oid;
	blockers text;
BEGIN
	FOR this IN SELECT f.relid FROM bcmig_blue.fence_relations(tables) f WHERE f.relid IS NOT NULL ORDER BY f.relid
	LOOP
		PERFORM set_config('lock_timeout', greatest(1, ceil(extract(epoch FROM deadline - clock_timestamp()) * 1000))::bigint::text, true);
		EXECUTE format('LOCK TABLE ONLY %s IN SHARE ROW EXCLUSIVE MODE', this::regclass);
	END LOOP;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
	SELECT string_agg(DISTINCT CASE WHEN l.pid IS NULL THEN format('prepared transaction %L of %s since %s', p.gid, p.owner, to_char(p.prepared, 'HH24:MI:SS'))
									ELSE format('pid %s, user %s%s', l.pid, a.usename, ', since ' || to_char(a.xact_start, 'HH24:MI:SS')) END, '; ')
	  INTO blockers
	  FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
	  LEFT JOIN pg_locks x ON l.pid IS NULL AND x.locktype = 'transactionid' AND x.virtualtransaction = l.virtualtransaction
	  LEFT JOIN pg_prepared_xacts p ON p.transaction = x.transactionid
	 WHERE l.locktype = 'relation' AND l.relation = this AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
	   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
	   AND l.mode NOT IN ('AccessShareLock', 'RowShareLock');
	RAISE EXCEPTION 'table % is being written to, and was not free within %', this::regclass, timeout
		USING ERRCODE = 'BM022',
			  DETAIL = format('In the way: %s. No table has been changed.', coalesce(blockers, 'somebody who is gone by now')),
			  HINT = 'End them, or wait: SELECT pg_terminate_backend(pid); -- on blue';
END $$;
COMMENT ON FUNCTION bcmig_blue.lock_for_fence(text[], interval) IS 'Locks these tables against writers, all or none; error BM022 names who is in the way';

CREATE OR REPLACE FUNCTION bcmig_blue.raise_fence(tables text[], lock_timeout interval DEFAULT '5 s') RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
	this  oid;
	named text;
	bad   text;
	n     integer := 0;
	g     record;
BEGIN
	SELECT t INTO named FROM unnest(tables) t WHERE to_regclass(t) IS NULL LIMIT 1;
	IF FOUND OR tables IS NULL THEN
		RAISE EXCEPTION 'there is no table %', coalesce(named, '(NULL)') USING ERRCODE = 'undefined_table';
	END IF;
	SELECT min(c.oid::regclass::text) INTO bad FROM bcmig_blue.fence_relations(tables) f JOIN pg_class c ON c.oid = f.relid
	 WHERE c.relkind <> 'r' OR c.relnamespace IN ('bcmig_blue'::regnamespace, 'pg_catalog'::regnamespace);
	IF bad IS NOT NULL THEN
		RAISE EXCEPTION '% is not a table that can be fenced', bad USING ERRCODE = 'wrong_object_type';
	END IF;
	-- who may fence it must at least be able to read it
	SELECT t INTO named FROM unnest(tables) t WHERE NOT has_table_privilege(session_user, to_regclass(t), 'SELECT') LIMIT 1;
	IF FOUND THEN
		RAISE EXCEPTION 'role % may not read table %', session_user, named USING ERRCODE = 'insufficient_privilege';
	END IF;

	PERFORM bcmig_blue.lock_for_fence(tables, lock_timeout);
	FOR this IN SELECT f.relid FROM bcmig_blue.fence_relations(tables) f ORDER BY f.relid
	LOOP
		FOR g IN SELECT w.name, w.event, w.type, t.oid AS there
				   FROM (VALUES ('bcmig_fence', 'INSERT OR UPDATE OR DELETE', 31), ('bcmig_fence_truncate', 'TRUNCATE', 34)) w (name, event, type)
				   LEFT JOIN pg_trigger t ON t.tgrelid = this AND t.tgname = w.name AND t.tgfoid = 'bcmig_blue.fenced()'::regprocedure
						 AND t.tgtype = w.type AND t.tgqual IS NULL AND t.tgattr = ''::int2vector
		LOOP
			IF g.there IS NULL THEN
				EXECUTE format('CREATE TRIGGER %I BEFORE %s ON %s FOR EACH %s EXECUTE FUNCTION bcmig_blue.fenced()', g.name, g.event, this::regclass,
							   CASE WHEN g.type & 1 = 1 THEN 'ROW' ELSE 'STATEMENT' END);
			END IF;
			EXECUTE format('ALTER TABLE ONLY %s ENABLE ALWAYS TRIGGER %I', this::regclass, g.name);
		END LOOP;
		INSERT INTO bcmig_blue.fence (relid, raised_by, raised_at)
		VALUES (this, session_user || coalesce(' from ' || host(inet_client_addr()), ''), clock_timestamp()) ON CONFLICT DO NOTHING;
		n := n + 1;
	END LOOP;
	RETURN n;
END $$;
COMMENT ON FUNCTION bcmig_blue.raise_fence(text[], interval) IS 'Refuses writes to these tables (quoted, with schema) from COMMIT on, when all who were writing have ended; all tables or none. lock_timeout is for all of them together. Twice does no harm. Returns how many tables';

-- Disabling a trigger waits for writers only, of which there are none; dropping
-- it waits for readers too.  What they hold up stays, disabled, until next time.
CREATE OR REPLACE FUNCTION bcmig_blue.lift_fence(tables text[], lock_timeout interval DEFAULT '5 s') RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
	g    record;
	n    integer := 0;
BEGIN
	PERFORM bcmig_blue.lock_for_fence(tables, lock_timeout);
	FOR g IN SELECT t.tgrelid, t.tgname FROM bcmig_blue.fence_relations(tables) f JOIN pg_trigger t ON t.tgrelid = f.relid
			  WHERE t.tgfoid = 'bcmig_blue.fenced()'::regprocedure ORDER BY t.tgrelid, t.tgname
	LOOP
		EXECUTE format('ALTER TABLE ONLY %s DISABLE TRIGGER %I', g.tgrelid::regclass, g.tgname);
		BEGIN
			EXECUTE format('LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE NOWAIT', g.tgrelid::regclass);
			EXECUTE format('DROP TRIGGER %I ON %s', g.tgname, g.tgrelid::regclass);
		EXCEPTION WHEN lock_not_available THEN
			NULL;
		END;
	END LOOP;
	DELETE FROM bcmig_blue.fence x USING bcmig_blue.fence_relations(tables) f WHERE x.relid = f.relid;
	GET DIAGNOSTICS n = ROW_COUNT;
	RETURN n;
END $$;
COMMENT ON FUNCTION bcmig_blue.lift_fence(text[], interval) IS 'Lets everybody write to these tables again, from COMMIT on. Returns how many were fenced';

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
	EXECUTE format('GRANT EXECUTE ON FUNCTION bcmig_blue.raise_fence(text[], interval), bcmig_blue.lift_fence(text[], interval) TO %s', switcher);
END $$;
COMMENT ON FUNCTION bcmig_blue.grant_switch(regrole) IS 'Lets a role fence the tracked tables, bring writes back and leave a witness';

-- Nothing is for PUBLIC
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA bcmig_blue FROM PUBLIC;

COMMIT;
