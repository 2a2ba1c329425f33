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

-- transactions that bring green's writes back: they pass; never seen by anybody
-- but the transaction that wrote it
CREATE TABLE IF NOT EXISTS bcmig_blue.replaying (
	xid bigint PRIMARY KEY
);
COMMENT ON TABLE bcmig_blue.replaying IS 'Transactions in bcmig_blue.replay(); always empty for others';
COMMENT ON COLUMN bcmig_blue.replaying.xid IS 'transaction id';

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
		PERFORM set_config('lock_timeout', least(2147483647, greatest(1, ceil(extract(epoch FROM deadline - clock_timestamp()) * 1000)))::bigint::text, true);
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
-- What was brought here last, a row a key.  A batch that is sent again because
-- green did not live to hear of it finds itself here.
CREATE TABLE IF NOT EXISTS bcmig_blue.applied (
	green       text NOT NULL,
	relid       oid NOT NULL,
	key_hash    bytea NOT NULL,
	key         jsonb NOT NULL,
	journal_id  bigint NOT NULL,
	journal_ids bigint[] NOT NULL,
	deleted     boolean NOT NULL,
	version     bigint,
	at          timestamptz NOT NULL DEFAULT clock_timestamp(),
	PRIMARY KEY (green, relid, key_hash)
);
CREATE INDEX IF NOT EXISTS applied_at ON bcmig_blue.applied (green, at);
COMMENT ON TABLE bcmig_blue.applied IS 'What bcmig_blue.replay() wrote last to each row it wrote to';
COMMENT ON COLUMN bcmig_blue.applied.green IS 'the database it came from, its timeline and sync';
COMMENT ON COLUMN bcmig_blue.applied.relid IS 'oid of the table';
COMMENT ON COLUMN bcmig_blue.applied.key_hash IS 'sha256 of the key: a key may be too long for an index';
COMMENT ON COLUMN bcmig_blue.applied.key IS 'key values as text, in key order';
COMMENT ON COLUMN bcmig_blue.applied.journal_id IS 'newest of the journal entries of green that are in it';
COMMENT ON COLUMN bcmig_blue.applied.journal_ids IS 'all of them';
COMMENT ON COLUMN bcmig_blue.applied.deleted IS 'the row was deleted';
COMMENT ON COLUMN bcmig_blue.applied.version IS 'row stamp it got; NULL = deleted, or the table has none';


-- One key: what blue has, and what is to be done.  $1 of "find" is a row as
-- texts, $2 a key.  The row is locked.
CREATE OR REPLACE FUNCTION bcmig_blue.replay_look(find text, green text, relation oid, entry jsonb, new_row text[],
	OUT outcome text, OUT version bigint, OUT here boolean, OUT key text[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	ids    CONSTANT bigint[] := ARRAY(SELECT x.i::bigint FROM jsonb_array_elements_text(entry->'i') x (i));
	mine   bcmig_blue.applied;
	known  jsonb;
	same   boolean;
	free   boolean := false;
BEGIN
	key := ARRAY(SELECT x.v FROM jsonb_array_elements_text(entry->'k') WITH ORDINALITY x (v, o) ORDER BY x.o);
	EXECUTE find INTO here, version, same USING new_row, key;
	here := coalesce(here, false);
	SELECT a.* INTO mine FROM bcmig_blue.applied a
	 WHERE a.green = green AND a.relid = relation AND a.key_hash = sha256(convert_to((entry->'k')::text, 'UTF8')) AND a.key = entry->'k';
	IF mine.journal_ids @> ids THEN
		outcome := 'applied';
		version := mine.version;
		RETURN;
	END IF;
	IF new_row IS NULL AND NOT here OR new_row IS NOT NULL AND here AND same THEN
		outcome := 'equal';
		RETURN;
	END IF;

	-- blue has what we wrote, or something green's row was based on
	IF mine.deleted AND NOT here OR NOT mine.deleted AND here AND version = mine.version THEN
		free := true;
	END IF;
	FOR known IN SELECT x.e FROM jsonb_array_elements(entry->'e') x (e)
	LOOP
		EXIT WHEN free;
		IF known ? 'a' THEN
			free := NOT here;
		ELSIF here AND version = (known->>'v')::bigint THEN
			free := true;
		ELSIF here AND known ? 'r' THEN
			EXECUTE find INTO here, version, free
			  USING ARRAY(SELECT x.v FROM jsonb_array_elements_text(known->'r') WITH ORDINALITY x (v, o) ORDER BY x.o), key;
		END IF;
	END LOOP;
	outcome := CASE WHEN free THEN 'free' ELSE 'conflict' END;
END $$;
COMMENT ON FUNCTION bcmig_blue.replay_look(text, text, oid, jsonb, text[]) IS 'Part of bcmig_blue.replay(): applied, equal, free (may be written) or conflict';

-- entries: of each key {"k": [key], "i": [journal ids], "e": [what blue may have:
-- {"v": row stamp, "r": [row]} or {"a": true} for no row]}; rows: of each key the
-- row as the text of a text array, NULL = deleted.  All values are texts as
-- PostgreSQL spells them under the settings below.
--
-- Deletes come first.  What a unique key refuses is tried again after the
-- others, and at last all of it is taken out and put in again together.
-- A key that cannot be written is told with its error and stays as it is.
CREATE OR REPLACE FUNCTION bcmig_blue.replay(green text, source_schema text, source_table text, version_column text,
	columns text[], key_columns text[], entries jsonb, rows text[])
RETURNS TABLE (n integer, outcome text, version bigint, code text, message text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, MDY' SET intervalstyle = 'postgres' SET timezone = 'UTC'
SET extra_float_digits = 3 SET bytea_output = 'hex' SET lock_timeout = '2s'
AS $$
#variable_conflict use_variable
DECLARE
	this_xid CONSTANT bigint := pg_current_xact_id()::text::bigint;
	started  CONSTANT timestamptz := clock_timestamp();
	count    CONSTANT integer := jsonb_array_length(entries);
	relation regclass := to_regclass(format('%I.%I', source_schema, source_table));
	name     text;
	stamp    text;
	found_by text;
	same     text;
	find     text;
	ins      text;
	ins_over text;
	upd      text;
	del      text;
	put      text;
	get_row  text;
	cascades boolean;
	states   text[] := array_fill(NULL::text, ARRAY[count]);
	versions bigint[] := array_fill(NULL::bigint, ARRAY[count]);
	codes    text[] := array_fill(NULL::text, ARRAY[count]);
	messages text[] := array_fill(NULL::text, ARRAY[count]);
	olds     text[] := array_fill(NULL::text, ARRAY[count]);
	todo     integer[];
	refused  integer[];
	look     record;
	new_row  text[];
	old_row  text;
	kept     boolean;
	i        integer;
	got      bigint;
	touched  bigint;
	code     text;
	message  text;
BEGIN
	IF relation IS NULL THEN
		RAISE undefined_table USING MESSAGE = format('table %I.%I is gone', source_schema, source_table);
	END IF;
	IF NOT EXISTS (SELECT FROM bcmig_blue.tracked t WHERE t.relid = relation)
		AND NOT (has_table_privilege(session_user, relation, 'INSERT') AND has_table_privilege(session_user, relation, 'UPDATE')
				 AND has_table_privilege(session_user, relation, 'DELETE'))
		OR (SELECT c.relnamespace IN ('bcmig_blue'::regnamespace, 'pg_catalog'::regnamespace) FROM pg_class c WHERE c.oid = relation) THEN
		RAISE insufficient_privilege USING MESSAGE = format('%s is not tracked, and %I may not write to it', relation, session_user),
			HINT = format('GRANT INSERT, UPDATE, DELETE ON %s TO %I;', relation, session_user);
	END IF;
	name := format('%I.%I', source_schema, source_table);
	stamp := CASE WHEN version_column IS NULL THEN 'NULL::bigint' ELSE format('t.%I::bigint', version_column) END;

	SELECT string_agg(format('t.%1$I = (($2)[%2$s]::%3$s) AND t.%1$I::text COLLATE "C" = ((($2)[%2$s]::%3$s)::text COLLATE "C")',
							 k.col, k.ord, bcmig_blue.key_type(relation, k.col)), ' AND ' ORDER BY k.ord)
	  INTO found_by FROM unnest(key_columns) WITH ORDINALITY k (col, ord);

	-- generated columns are blue's own business, and so is the stamp
	SELECT string_agg(format('t.%I::text COLLATE "C" IS NOT DISTINCT FROM ($1)[%s] COLLATE "C"', c.col, c.ord), ' AND ' ORDER BY c.ord),
		   format('INSERT INTO %s AS t (%s) OVERRIDING SYSTEM VALUE VALUES (%s) RETURNING %s', name,
				  string_agg(quote_ident(c.col), ', ' ORDER BY c.ord),
				  string_agg(format('($1)[%s]::%s', c.ord, bcmig_blue.key_type(relation, c.col)), ', ' ORDER BY c.ord), stamp),
		   format('UPDATE %s AS t SET %s WHERE %s RETURNING %s, %s', name,
				  string_agg(format('%I = ($1)[%s]::%s', c.col, c.ord, bcmig_blue.key_type(relation, c.col)), ', ' ORDER BY c.ord)
				  FILTER (WHERE a.attidentity <> 'a' AND c.col <> ALL (key_columns)), found_by, stamp,
				  coalesce(string_agg(format('t.%I::text IS NOT DISTINCT FROM ($1)[%s]', c.col, c.ord), ' AND ')
						   FILTER (WHERE a.attidentity = 'a' AND c.col <> ALL (key_columns)), 'true'))
	  INTO same, ins, upd
	  FROM unnest(columns) WITH ORDINALITY c (col, ord)
	  JOIN pg_attribute a ON a.attrelid = relation AND a.attname = c.col AND NOT a.attisdropped
	 WHERE a.attgenerated = '' AND c.col IS DISTINCT FROM version_column;
	find := format('SELECT true, %s, %s FROM %s t WHERE %s FOR UPDATE', stamp, same, name, found_by);
	del := format('DELETE FROM %s AS t WHERE %s', name, found_by);

	-- in again, with what green does not know of the row
	get_row := format('SELECT t::text FROM %s t WHERE %s', name, found_by);
	SELECT format('INSERT INTO %s AS t (%s) OVERRIDING SYSTEM VALUE VALUES (%s) RETURNING %s', name,
				  string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum),
				  string_agg(CASE WHEN c.ord IS NULL THEN format('(($2)::%s).%I', name, a.attname)
								  ELSE format('($1)[%s]::%s', c.ord, bcmig_blue.key_type(relation, a.attname)) END, ', ' ORDER BY a.attnum), stamp)
	  INTO ins_over
	  FROM pg_attribute a LEFT JOIN unnest(columns) WITH ORDINALITY c (col, ord) ON c.col = a.attname
	 WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' AND a.attname IS DISTINCT FROM version_column;
	cascades := EXISTS (SELECT FROM pg_constraint f WHERE f.confrelid = relation AND f.contype = 'f' AND f.confdeltype IN ('c', 'n', 'd'));

	put := 'INSERT INTO bcmig_blue.applied AS a (green, relid, key_hash, key, journal_id, journal_ids, deleted, version) '
		'SELECT $1, $2, sha256(convert_to(($3->''k'')::text, ''UTF8'')), $3->''k'', max(x.i::bigint), array_agg(x.i::bigint ORDER BY x.i::bigint), $4, $5 '
		'FROM jsonb_array_elements_text($3->''i'') x (i) ON CONFLICT (green, relid, key_hash) DO UPDATE SET key = excluded.key, '
		'journal_id = excluded.journal_id, journal_ids = excluded.journal_ids, deleted = excluded.deleted, version = excluded.version, at = excluded.at';

	INSERT INTO bcmig_blue.replaying AS r (xid) VALUES (this_xid) ON CONFLICT DO NOTHING;
	SET CONSTRAINTS ALL IMMEDIATE;
	todo := ARRAY(SELECT g FROM generate_series(1, count) g ORDER BY rows[g] IS NOT NULL, g);
	LOOP
		refused := '{}';
		FOREACH i IN ARRAY todo
		LOOP
			IF clock_timestamp() > started + interval '20 s' THEN
				codes[i] := coalesce(codes[i], '57014');
				messages[i] := coalesce(messages[i], 'the batch took too long');
				CONTINUE;
			END IF;
			BEGIN
				new_row := (rows[i])::text[];
				look := bcmig_blue.replay_look(find, green, relation, entries->(i - 1), new_row);
				got := look.version;
				IF look.outcome = 'free' THEN
					kept := true;
					IF new_row IS NULL THEN
						EXECUTE del USING new_row, look.key;
						got := NULL;
					ELSIF look.here THEN
						EXECUTE upd INTO got, kept USING new_row, look.key;
					ELSE
						EXECUTE ins INTO got USING new_row;
					END IF;
					GET DIAGNOSTICS touched = ROW_COUNT;
					IF touched <> 1 THEN
						RAISE triggered_action_exception USING MESSAGE = 'a trigger or rule of blue let nothing be written';
					ELSIF NOT kept THEN
						RAISE generated_always USING MESSAGE = 'an identity column of blue cannot be changed';
					END IF;
					EXECUTE put USING green, relation::oid, entries->(i - 1), new_row IS NULL, got;
				END IF;
				states[i] := CASE look.outcome WHEN 'free' THEN 'written' ELSE look.outcome END;
				versions[i] := got;
			EXCEPTION WHEN OTHERS THEN
				GET STACKED DIAGNOSTICS code = RETURNED_SQLSTATE, message = MESSAGE_TEXT;
				codes[i] := code;
				messages[i] := message;
				refused := refused || i;
			END;
		END LOOP;

		-- the others may have made room
		EXIT WHEN refused = '{}' OR cardinality(refused) = cardinality(todo);
		todo := refused;
	END LOOP;

	-- values that go round in a ring: all out, all in
	todo := ARRAY(SELECT r FROM unnest(refused) r WHERE codes[r] IN ('23505', '23P01') AND rows[r] IS NOT NULL ORDER BY r);
	IF cardinality(todo) > 1 AND NOT cascades THEN
		BEGIN
			FOREACH i IN ARRAY todo
			LOOP
				new_row := (rows[i])::text[];
				look := bcmig_blue.replay_look(find, green, relation, entries->(i - 1), new_row);
				IF look.outcome <> 'free' THEN
					RAISE serialization_failure USING MESSAGE = 'the row has changed meanwhile';
				END IF;
				IF look.here THEN
					EXECUTE get_row INTO old_row USING new_row, look.key;
					olds[i] := old_row;
					EXECUTE del USING new_row, look.key;
					GET DIAGNOSTICS touched = ROW_COUNT;
					IF touched <> 1 THEN
						RAISE triggered_action_exception USING MESSAGE = 'a trigger or rule of blue let nothing be written';
					END IF;
				END IF;
			END LOOP;
			FOREACH i IN ARRAY todo
			LOOP
				new_row := (rows[i])::text[];
				IF olds[i] IS NULL THEN
					EXECUTE ins INTO got USING new_row;
				ELSE
					EXECUTE ins_over INTO got USING new_row, olds[i];
				END IF;
				GET DIAGNOSTICS touched = ROW_COUNT;
				IF touched <> 1 THEN
					RAISE triggered_action_exception USING MESSAGE = 'a trigger or rule of blue let nothing be written';
				END IF;
				EXECUTE put USING green, relation::oid, entries->(i - 1), false, got;
				versions[i] := got;
			END LOOP;
			FOREACH i IN ARRAY todo
			LOOP
				states[i] := 'written';
			END LOOP;
		EXCEPTION WHEN OTHERS THEN
			NULL;				-- each keeps the error it had alone
		END;
	END IF;
	DELETE FROM bcmig_blue.replaying r WHERE r.xid = this_xid;

	RETURN QUERY SELECT g, coalesce(states[g], 'refused'), versions[g],
						CASE WHEN states[g] IS NULL THEN codes[g] END, CASE WHEN states[g] IS NULL THEN messages[g] END
				   FROM generate_series(1, count) g;
END $$;
COMMENT ON FUNCTION bcmig_blue.replay(text, text, text, text, text[], text[], jsonb, text[]) IS 'Brings rows that were written on green to a table of blue, each only if blue''s row is one green''s was based on: written, equal, applied (before), conflict or refused, with the row stamp';

CREATE OR REPLACE FUNCTION bcmig_blue.replayed(green text, source_schema text, source_table text, since bigint)
RETURNS TABLE (key jsonb, journal_ids bigint[], version bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	SELECT a.key, a.journal_ids, a.version FROM bcmig_blue.applied a
	 WHERE a.green = $1 AND a.relid = to_regclass(format('%I.%I', $2, $3)) AND a.journal_id >= $4
$$;
COMMENT ON FUNCTION bcmig_blue.replayed(text, text, text, bigint) IS 'What bcmig_blue.replay() wrote last to rows of a table, with a journal entry since the given one';

-- What green has settled for good is needed no more: it does not send that
-- again, and what it writes next was read back from here long ago.  Where that
-- is not so, replay() goes by the row green's was based on, and finds a conflict
-- rather than writing over what it does not know.
CREATE OR REPLACE FUNCTION bcmig_blue.forget_replayed(green text, below bigint) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
	WITH d AS (
		DELETE FROM bcmig_blue.applied WHERE ctid = ANY (ARRAY(
			SELECT a.ctid FROM bcmig_blue.applied a
			 WHERE a.green = $1 AND a.at < now() - (SELECT s.retention FROM bcmig_blue.state s) AND a.journal_id < $2
			 ORDER BY a.at LIMIT 10000))
		RETURNING 1)
	SELECT count(*) FROM d
$$;
COMMENT ON FUNCTION bcmig_blue.forget_replayed(text, bigint) IS 'Deletes what bcmig_blue.replay() noted of entries of green below the given one, older than bcmig_blue.state.retention; 10,000 rows at most. Returns how many';

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
	-- green does not tell it again once it was told
	SELECT set_config('synchronous_commit', 'on', true);
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
	EXECUTE format('GRANT EXECUTE ON FUNCTION bcmig_blue.raise_fence(text[], interval), bcmig_blue.lift_fence(text[], interval) TO %s', switcher);
	EXECUTE format('GRANT EXECUTE ON FUNCTION bcmig_blue.replay(text, text, text, text, text[], text[], jsonb, text[]),'
				   ' bcmig_blue.replayed(text, text, text, bigint), bcmig_blue.forget_replayed(text, bigint) TO %s', switcher);
	EXECUTE format('GRANT EXECUTE ON FUNCTION bcmig_blue.witness_put(text, text, bigint, text), bcmig_blue.witness_get(text) TO %s', switcher);
END $$;
COMMENT ON FUNCTION bcmig_blue.grant_switch(regrole) IS 'Lets a role fence the tracked tables, bring writes back and leave a witness';

-- Nothing is for PUBLIC
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA bcmig_blue FROM PUBLIC;

COMMIT;
