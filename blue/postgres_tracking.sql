/*
 * postgres_tracking.sql: change tracking on a PostgreSQL blue
 *
 * Run once by psql in the database bcmig is to read ("blue"), as the role that
 * owns the tables to be tracked or as a superuser:
 *
 *		psql -d blue -f postgres_tracking.sql
 *		SELECT bcmig_blue.grant_reader('bcmig_reader');
 *		SELECT bcmig_blue.track('public."Customer"');
 *
 * Running it again updates the functions of schema bcmig_blue and keeps all
 * state.  It works for any PostgreSQL database, 13 or newer; nothing in it
 * knows Business Central.  docs/blue-postgres.md tells a DBA the rest.
 *
 * WHAT IT GIVES.  PostgreSQL has no rowversion and no change tracking that can
 * be read with SELECT, so this builds both from the transaction id, a 64-bit
 * xid8 that never wraps and is kept here as bigint:
 *
 *	- a row stamp: the id of the last transaction that wrote the row, in a
 *	  bigint column of the table (by default named timestamp, as in BC);
 *	- change tables: (transaction id, key) of every inserted, updated or
 *	  deleted row, so that deletes are seen and nothing has to be scanned;
 *	- a log of (table, transaction id), to ask in one small query which tables
 *	  moved;
 *	- the begin version, which says that a table was truncated.
 *
 * Transactions do not commit in the order of their ids.  A reader therefore
 * takes pg_snapshot_xmin(pg_current_snapshot()) first, in a transaction of its
 * own: every transaction below it has ended.  It then reads all changes at or
 * above its old position and takes that xmin for the new one.  What it reads
 * twice does no harm; what it must never do is to trust the highest id seen.
 *
 * WHAT IT NEEDS.  CREATE on the database, ownership of the tracked tables, a
 * primary key (or a unique key of NOT NULL columns) for change tracking.  The
 * reader needs SELECT on the tables it copies and what grant_reader() gives.
 * Roles of the application need nothing at all.
 *
 * WHAT IT COSTS.  A row trigger or two per written row and one narrow insert
 * into the change table; per transaction one narrow insert per table it wrote
 * to.  Change tables hold the last two days (bcmig_blue.state.retention).
 * track() takes SHARE ROW EXCLUSIVE on the table, so it waits for the writers
 * that are at work and holds up new ones until its transaction ends.
 *
 * HOW TO REMOVE IT.
 *		SELECT bcmig_blue.untrack(relid::regclass) FROM bcmig_blue.tracked;
 *		DROP SCHEMA bcmig_blue CASCADE;
 * Row stamp columns stay.
 *
 * Triggers are ROW level, since logical replication fires no statement
 * triggers on the subscriber, and ENABLE ALWAYS, since it sets
 * session_replication_role; only TRUNCATE has a statement trigger, which it
 * does fire.
 *
 * SECURITY.  Trigger functions are SECURITY DEFINER: whoever may write to a
 * table has to leave its trace, and must have no other way to write here.
 * They run as the role that ran this script, with a search_path of their own.
 * EXECUTE on them is nobody's: it is asked for when a trigger is made, not when
 * it fires, and a trigger somewhere else could forge changes.
 */
\set ON_ERROR_STOP on

BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL check_function_bodies = on;

DO $$
BEGIN
	IF pg_catalog.current_setting('server_version_num')::integer < 130000 THEN
		RAISE EXCEPTION 'bcmig needs PostgreSQL 13 or newer on blue';
	END IF;
END $$;

CREATE SCHEMA IF NOT EXISTS bcmig_blue;
COMMENT ON SCHEMA bcmig_blue IS 'bcmig: row stamps, change tables and the log of moved tables, for a reader that keeps another database in step; see docs/blue-postgres.md';

-- ---------------------------------------------------------------------------
-- State
-- ---------------------------------------------------------------------------
CREATE TABLE IF NOT EXISTS bcmig_blue.state (
	floor     bigint NOT NULL DEFAULT 0,
	retention interval NOT NULL DEFAULT '2 days' CHECK (retention >= '0'),
	only_row  boolean NOT NULL DEFAULT true PRIMARY KEY CHECK (only_row)
);
INSERT INTO bcmig_blue.state DEFAULT VALUES ON CONFLICT DO NOTHING;
COMMENT ON TABLE bcmig_blue.state IS 'One row: what has expired, and how long changes are kept';
COMMENT ON COLUMN bcmig_blue.state.floor IS 'entries of bcmig_blue.moved below this transaction id were expired';
COMMENT ON COLUMN bcmig_blue.state.retention IS 'how long changes are kept; longer than the longest outage of the reader, or it copies again';
COMMENT ON COLUMN bcmig_blue.state.only_row IS 'there is one row';

CREATE TABLE IF NOT EXISTS bcmig_blue.tracked (
	relid         oid PRIMARY KEY,
	schema_name   text NOT NULL,
	table_name    text NOT NULL,
	capture       text NOT NULL CHECK (capture IN ('change_tracking', 'rowversion')),
	stamp_column  text,
	key_columns   text[] NOT NULL,
	change_table  text,
	begin_version bigint NOT NULL,
	min_valid     bigint NOT NULL,
	CHECK ((capture = 'change_tracking') = (change_table IS NOT NULL)),
	CHECK (capture = 'change_tracking' OR stamp_column IS NOT NULL)
);
COMMENT ON TABLE bcmig_blue.tracked IS 'Tracked tables, a row each, made by bcmig_blue.track()';
COMMENT ON COLUMN bcmig_blue.tracked.relid IS 'oid of the table; what counts, the name may have changed since';
COMMENT ON COLUMN bcmig_blue.tracked.schema_name IS 'schema when it was tracked';
COMMENT ON COLUMN bcmig_blue.tracked.table_name IS 'name when it was tracked';
COMMENT ON COLUMN bcmig_blue.tracked.capture IS 'change_tracking: every change with its key, deletes too; rowversion: a stamp in the row only';
COMMENT ON COLUMN bcmig_blue.tracked.stamp_column IS 'bigint column that holds the transaction id of the last write; NULL = none';
COMMENT ON COLUMN bcmig_blue.tracked.key_columns IS 'columns of the key, in key order; empty = no key';
COMMENT ON COLUMN bcmig_blue.tracked.change_table IS 'change table, quoted and qualified; NULL for rowversion';
COMMENT ON COLUMN bcmig_blue.tracked.begin_version IS 'transaction id of the last TRUNCATE, or of track(): changes before it are not on record';
COMMENT ON COLUMN bcmig_blue.tracked.min_valid IS 'changes below it have expired; at first the oldest transaction id that was running at track()';

CREATE TABLE IF NOT EXISTS bcmig_blue.moved (
	relid oid NOT NULL,
	xid   bigint NOT NULL,
	PRIMARY KEY (xid, relid)
);
COMMENT ON TABLE bcmig_blue.moved IS 'Which table each transaction wrote to';
COMMENT ON COLUMN bcmig_blue.moved.relid IS 'oid of the table';
COMMENT ON COLUMN bcmig_blue.moved.xid IS 'top-level transaction id';

CREATE TABLE IF NOT EXISTS bcmig_blue.sample (
	xid bigint PRIMARY KEY,
	at  timestamptz NOT NULL
);
COMMENT ON TABLE bcmig_blue.sample IS 'Clock against transaction id, for expiry';
COMMENT ON COLUMN bcmig_blue.sample.xid IS 'every transaction below it had ended';
COMMENT ON COLUMN bcmig_blue.sample.at IS 'when that was';

-- ---------------------------------------------------------------------------
-- Incarnation: the same database, not set back?
-- ---------------------------------------------------------------------------
-- The third part is the start of the checkpointer where that is later than the
-- postmaster's: after the crash of one backend the postmaster lives on, yet
-- recovery has lost commits made with synchronous_commit = off.
CREATE OR REPLACE FUNCTION bcmig_blue.incarnation() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN (
		SELECT s.system_identifier::text
			|| '/' || CASE WHEN pg_is_in_recovery()
						   THEN (SELECT c.timeline_id::text FROM pg_control_checkpoint() c)
						   ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint::text END
			|| '/' || to_char(greatest(pg_postmaster_start_time(),
									   (SELECT max(a.backend_start) FROM pg_stat_activity a
										WHERE a.backend_type = 'checkpointer'))
							  AT TIME ZONE 'UTC', 'YYYYMMDDHH24MISSUS')
		FROM pg_control_system() s);
END $$;
COMMENT ON FUNCTION bcmig_blue.incarnation() IS 'system identifier, timeline and start of the server (or of its last crash recovery): another text means commits may have been lost or undone';

CREATE OR REPLACE FUNCTION bcmig_blue.incarnation_hash() RETURNS bigint
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
	RETURN hashtextextended(bcmig_blue.incarnation() COLLATE "C", 0);
END $$;
COMMENT ON FUNCTION bcmig_blue.incarnation_hash() IS 'bcmig_blue.incarnation() as a number';

-- ---------------------------------------------------------------------------
-- TRUNCATE, the same function for every tracked table
-- ---------------------------------------------------------------------------
-- The tracked row is locked first, as expire() does, so that the two never
-- wait for each other in a ring.
CREATE OR REPLACE FUNCTION bcmig_blue.on_truncate() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	this_xid bigint := pg_current_xact_id()::text::bigint;
	changes  text;
BEGIN
	UPDATE bcmig_blue.tracked SET begin_version = this_xid
	 WHERE relid = TG_RELID RETURNING change_table INTO changes;
	IF changes IS NOT NULL THEN
		EXECUTE 'DELETE FROM ' || changes;
	END IF;
	INSERT INTO bcmig_blue.moved (relid, xid) VALUES (TG_RELID, this_xid)
	ON CONFLICT DO NOTHING;
	RETURN NULL;
END $$;
COMMENT ON FUNCTION bcmig_blue.on_truncate() IS 'TRUNCATE trigger of every tracked table: a new begin version, an empty change table, a row in bcmig_blue.moved';

-- ---------------------------------------------------------------------------
-- Expiry
-- ---------------------------------------------------------------------------
-- Runs beside the application and for a reader that polls: it waits for no
-- lock, and stops after about 100 ms, because as long as it runs its own
-- transaction id holds back the xmin that readers go by.  With nothing to do
-- it writes nothing.
--
-- It goes by bcmig_blue.moved, a piece at a time from its old end: only tables
-- that are named there have changes to expire, so what a call costs does not
-- depend on how many are tracked, and however busy one is, its turn ends.  The
-- entries of a table go when its changes are gone.  A call that took its 100 ms
-- may have left something: called again every ten seconds it keeps up with some
-- 600,000 changes a minute, of some hundred tables.
CREATE OR REPLACE FUNCTION bcmig_blue.expire() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	batch    CONSTANT integer := 10000;
	piece    CONSTANT integer := 50000;
	started  timestamptz := clock_timestamp();
	keep     interval;
	cutoff   bigint;
	upto     bigint;
	gone     bigint;
	changes  text;
	t        record;
	n        bigint;
	deleted  bigint := 0;
	emptied  oid[] := '{}';
BEGIN
	IF NOT pg_try_advisory_xact_lock(hashtext('bcmig_blue.expire'), 0) THEN
		RETURN 0;
	END IF;
	SELECT s.retention INTO keep FROM bcmig_blue.state s;

	IF NOT EXISTS (SELECT FROM bcmig_blue.sample s WHERE s.at > started - keep / 1000) THEN
		INSERT INTO bcmig_blue.sample (xid, at)
		VALUES (pg_snapshot_xmin(pg_current_snapshot())::text::bigint, clock_timestamp())
		ON CONFLICT DO NOTHING;
	END IF;
	SELECT max(s.xid) INTO cutoff FROM bcmig_blue.sample s WHERE s.at <= clock_timestamp() - keep;
	IF cutoff IS NULL THEN
		RETURN 0;
	END IF;
	DELETE FROM bcmig_blue.sample s WHERE s.xid < cutoff;

	LOOP
		-- the next piece: whole transactions below cutoff
		SELECT max(p.xid) + 1 INTO upto
		  FROM (SELECT m.xid FROM bcmig_blue.moved m WHERE m.xid < cutoff ORDER BY m.xid LIMIT piece) p;
		EXIT WHEN upto IS NULL;
		emptied := '{}';
		FOR t IN SELECT m.relid FROM bcmig_blue.moved m WHERE m.xid < upto GROUP BY m.relid ORDER BY min(m.xid), m.relid
		LOOP
			-- a TRUNCATE that has not ended holds the row: next time
			SELECT k.change_table INTO changes FROM bcmig_blue.tracked k
			 WHERE k.relid = t.relid FOR UPDATE SKIP LOCKED;
			IF NOT FOUND THEN
				CONTINUE WHEN EXISTS (SELECT FROM bcmig_blue.tracked k WHERE k.relid = t.relid);
				changes := NULL;
			END IF;
			n := 0;
			IF changes IS NOT NULL THEN
				LOOP
					EXECUTE format('WITH d AS (DELETE FROM %1$s WHERE ctid = ANY (ARRAY(SELECT ctid FROM %1$s WHERE xid < $1 ORDER BY xid LIMIT $2)) RETURNING xid) '
								   'SELECT count(*), max(xid) FROM d', changes)
					   INTO n, gone USING upto, batch;
					UPDATE bcmig_blue.tracked k SET min_valid = gone + 1
					 WHERE k.relid = t.relid AND k.min_valid <= gone;
					deleted := deleted + n;
					EXIT WHEN n < batch OR clock_timestamp() > started + interval '100 ms';
				END LOOP;
			END IF;
			IF n < batch THEN
				emptied := emptied || t.relid;
			ELSE
				-- older ones of other tables come first the next time
				DELETE FROM bcmig_blue.moved m WHERE m.xid < gone AND m.relid = t.relid;
			END IF;
			EXIT WHEN clock_timestamp() > started + interval '100 ms';
		END LOOP;

		UPDATE bcmig_blue.state s SET floor = upto WHERE s.floor < upto;
		DELETE FROM bcmig_blue.moved m WHERE m.xid < upto AND m.relid = ANY (emptied);
		GET DIAGNOSTICS n = ROW_COUNT;
		deleted := deleted + n;
		-- nothing went: all that is left is locked
		EXIT WHEN n = 0 OR clock_timestamp() > started + interval '100 ms';
	END LOOP;
	RETURN deleted;
END $$;
COMMENT ON FUNCTION bcmig_blue.expire() IS 'Deletes changes older than bcmig_blue.state.retention, for about 100 ms at most, and returns how many; the reader calls it about once a minute, and every ten seconds while that is not enough';

-- ---------------------------------------------------------------------------
-- Tracking a table
-- ---------------------------------------------------------------------------
-- What a key column is stored as: the type below all domains, without length,
-- so that neither a CHECK of a domain nor a column made longer later can make
-- the application's statement fail.
CREATE OR REPLACE FUNCTION bcmig_blue.key_type(relation regclass, column_name text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
	WITH RECURSIVE base AS (
		SELECT t.oid, t.typtype, t.typbasetype, a.attcollation, t.typcollation
		  FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
		 WHERE a.attrelid = relation AND a.attname = column_name AND NOT a.attisdropped
		UNION ALL
		SELECT t.oid, t.typtype, t.typbasetype, b.attcollation, t.typcollation
		  FROM base b JOIN pg_type t ON t.oid = b.typbasetype
		 WHERE b.typtype = 'd')
	SELECT CASE b.oid WHEN 'bpchar'::regtype THEN 'pg_catalog.bpchar'
					  WHEN 'bit'::regtype THEN 'pg_catalog.varbit'
					  ELSE format_type(b.oid, NULL) END
		|| CASE WHEN b.attcollation <> 0 AND b.attcollation <> b.typcollation
				THEN (SELECT format(' COLLATE %I.%I', n.nspname, c.collname)
						FROM pg_collation c JOIN pg_namespace n ON n.oid = c.collnamespace
					   WHERE c.oid = b.attcollation)
				ELSE '' END
	  FROM base b WHERE b.typtype <> 'd'
$$;
COMMENT ON FUNCTION bcmig_blue.key_type(regclass, text) IS 'Type of a key column in the change table: its base type without length';

-- A reader finds the change table by the names of the table alone.
CREATE OR REPLACE FUNCTION bcmig_blue.change_name(relation regclass) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
AS $$
	SELECT 'c_' || md5('"' || replace(n.nspname::text, '"', '""') || '"."' || replace(c.relname::text, '"', '""') || '"')
	  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation
$$;
COMMENT ON FUNCTION bcmig_blue.change_name(regclass) IS 'Name of the change table of a table: c_ and the md5 of its quoted, qualified name';

-- Triggers of ours on a table, also those a restored dump brought along.  Not
-- those of a fence (postgres_switch.sql): who tracks a table again opens nothing.
CREATE OR REPLACE FUNCTION bcmig_blue.drop_triggers(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t record;
BEGIN
	FOR t IN SELECT g.tgname FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid
			  WHERE g.tgrelid = relation AND NOT g.tgisinternal
				AND p.pronamespace = 'bcmig_blue'::regnamespace AND p.proname <> 'fenced'
	LOOP
		EXECUTE format('DROP TRIGGER %I ON %s', t.tgname, relation);
	END LOOP;
END $$;
COMMENT ON FUNCTION bcmig_blue.drop_triggers(regclass) IS 'Drops the triggers of bcmig_blue on a table, but those of a fence';

-- What is left of tables that were dropped.
CREATE OR REPLACE FUNCTION bcmig_blue.forget_dropped() RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
	t record;
BEGIN
	-- a restored dump has tables of other oids whose triggers still call the
	-- functions and write to the change tables: those stay until track() has
	-- been run for them
	FOR t IN SELECT k.relid, k.change_table FROM bcmig_blue.tracked k
			  WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = k.relid)
				AND NOT EXISTS (SELECT FROM pg_trigger g JOIN pg_proc p ON p.oid = g.tgfoid
								 WHERE p.pronamespace = 'bcmig_blue'::regnamespace
								   AND p.proname IN ('stamp_' || k.relid, 'change_' || k.relid))
	LOOP
		DELETE FROM bcmig_blue.tracked k WHERE k.relid = t.relid;
		IF to_regclass(t.change_table) IS NOT NULL
		   AND NOT EXISTS (SELECT FROM bcmig_blue.tracked k WHERE k.change_table = t.change_table) THEN
			EXECUTE 'DROP TABLE ' || t.change_table;
		END IF;
		EXECUTE format('DROP FUNCTION IF EXISTS bcmig_blue.%I()', 'stamp_' || t.relid);
		EXECUTE format('DROP FUNCTION IF EXISTS bcmig_blue.%I()', 'change_' || t.relid);
	END LOOP;
END $$;
COMMENT ON FUNCTION bcmig_blue.forget_dropped() IS 'Removes what is left of tracked tables that were dropped; called by track() and untrack()';

CREATE OR REPLACE FUNCTION bcmig_blue.untrack(relation regclass) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET client_min_messages = warning
AS $$
DECLARE
	changes text;
BEGIN
	IF relation IS NULL THEN
		RAISE EXCEPTION 'no table given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', relation);
	PERFORM bcmig_blue.drop_triggers(relation);
	-- under the name it was tracked by, if the table was renamed since
	DELETE FROM bcmig_blue.tracked k WHERE k.relid = relation RETURNING k.change_table INTO changes;
	IF changes IS NOT NULL THEN
		EXECUTE 'DROP TABLE IF EXISTS ' || changes;
	END IF;
	DELETE FROM bcmig_blue.moved m WHERE m.relid = relation;
	EXECUTE format('DROP FUNCTION IF EXISTS bcmig_blue.%I()', 'stamp_' || relation::oid);
	EXECUTE format('DROP FUNCTION IF EXISTS bcmig_blue.%I()', 'change_' || relation::oid);
	PERFORM bcmig_blue.forget_dropped();
END $$;
COMMENT ON FUNCTION bcmig_blue.untrack(regclass) IS 'Ends the tracking of a table: triggers, functions and change table go, the stamp column stays';

CREATE OR REPLACE FUNCTION bcmig_blue.track(relation regclass, capture text DEFAULT 'change_tracking', stamp_column text DEFAULT 'timestamp') RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
	changing CONSTANT boolean := capture = 'change_tracking';
	class    record;
	keys     text[];
	stamp    text;
	stamp_type oid;
	highest  bigint;
	xmin_now bigint;
	same     boolean;
	old      bcmig_blue.tracked;
	g        record;
	r        record;
	wanted   integer;
	standing integer;
	body_moved text;
	cols     text;
	new_vals text;
	old_vals text;
	change_table text;
	other_name text;
BEGIN
	IF relation IS NULL THEN
		RAISE EXCEPTION 'no table given' USING ERRCODE = 'null_value_not_allowed';
	END IF;
	IF capture IS NULL OR capture NOT IN ('change_tracking', 'rowversion') THEN
		RAISE EXCEPTION 'unknown capture "%"', capture
			USING ERRCODE = 'invalid_parameter_value',
				  HINT = 'Use change_tracking or rowversion.';
	END IF;
	SELECT c.relkind, c.relispartition, c.relpersistence, c.relhassubclass, n.nspname, c.relname,
		   EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid) AS has_parent,
		   EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS has_child
	  INTO class
	  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relation;
	IF class.relkind = 'p' OR class.relispartition OR class.has_parent OR class.has_child THEN
		RAISE EXCEPTION 'table % is partitioned, a partition, or part of an inheritance tree', relation
			USING ERRCODE = 'feature_not_supported',
				  HINT = 'bcmig can keep such a table in step by comparing it: leave it untracked and set its option capture to snapshot.';
	END IF;
	IF class.relkind <> 'r' OR class.relpersistence = 't' THEN
		RAISE EXCEPTION '% is not a permanent table', relation
			USING ERRCODE = 'wrong_object_type';
	END IF;
	IF class.nspname IN ('bcmig_blue', 'pg_catalog', 'information_schema') THEN
		RAISE EXCEPTION 'table % belongs to the system or to bcmig', relation
			USING ERRCODE = 'wrong_object_type';
	END IF;

	-- Oldest transaction that can still write here: read before the lock is
	-- asked for, so that whatever a later reader takes for its position is at
	-- or above it.
	xmin_now := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
	EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', relation);
	PERFORM bcmig_blue.forget_dropped();

	-- Key: the primary key, else the first of the shortest unique keys of
	-- NOT NULL columns.
	SELECT array_agg(a.attname::text ORDER BY k.ord) INTO keys
	  FROM (SELECT i.indkey, i.indnkeyatts FROM pg_index i
			 WHERE i.indrelid = relation AND i.indisunique AND i.indisvalid
			   AND i.indpred IS NULL AND i.indexprs IS NULL
			   AND NOT EXISTS (SELECT FROM unnest(i.indkey[0:i.indnkeyatts - 1]) n (num)
								 JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = n.num
								WHERE NOT a.attnotnull)
			 ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid LIMIT 1) ix,
		   unnest(ix.indkey[0:ix.indnkeyatts - 1]) WITH ORDINALITY k (num, ord)
	  JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = k.num;
	keys := coalesce(keys, '{}');
	IF changing AND keys = '{}' THEN
		RAISE EXCEPTION 'table % has no primary key and no unique key of NOT NULL columns', relation
			USING ERRCODE = 'object_not_in_prerequisite_state',
				  HINT = format('Changes are recorded by key. Use SELECT bcmig_blue.track(%L, ''rowversion''); deletes are then found by comparing keys.', relation);
	END IF;
	IF changing AND 'xid' = ANY (keys) THEN
		RAISE EXCEPTION 'key column "xid" of table % has the name the change table needs itself', relation
			USING ERRCODE = 'duplicate_column',
				  HINT = format('Use SELECT bcmig_blue.track(%L, ''rowversion'').', relation);
	END IF;

	-- Stamp column
	SELECT a.attname, a.atttypid INTO stamp, stamp_type FROM pg_attribute a
	 WHERE a.attrelid = relation AND a.attname = stamp_column AND a.attnum > 0 AND NOT a.attisdropped;
	IF stamp IS NOT NULL AND stamp_type <> 'bigint'::regtype THEN
		IF NOT changing THEN
			RAISE EXCEPTION 'column "%" of table % is not a bigint', stamp, relation
				USING ERRCODE = 'datatype_mismatch',
					  HINT = format('Name another column; it is added where it does not exist: SELECT bcmig_blue.track(%L, ''rowversion'', ''bcmig_version'').', relation);
		END IF;
		stamp := NULL;
	END IF;
	IF stamp IS NULL AND NOT changing THEN
		IF coalesce(stamp_column, '') = '' THEN
			RAISE EXCEPTION 'rowversion needs the name of a stamp column'
				USING ERRCODE = 'invalid_parameter_value';
		END IF;
		EXECUTE format('ALTER TABLE %s ADD COLUMN %I bigint NOT NULL DEFAULT 0', relation, stamp_column);
		EXECUTE format('COMMENT ON COLUMN %s.%I IS ''bcmig: id of the last transaction that wrote the row''', relation, stamp_column);
		stamp := stamp_column;
	END IF;

	SELECT * INTO old FROM bcmig_blue.tracked k WHERE k.relid = relation;

	-- A stamp is overwritten by every write: make sure the column is no
	-- column of the application that has the same name (say, a time in ms).
	IF stamp IS NOT NULL AND old.stamp_column IS DISTINCT FROM stamp THEN
		IF stamp = ANY (keys) THEN
			RAISE EXCEPTION 'column "%" is part of the key of table % and cannot be its stamp', stamp, relation
				USING ERRCODE = 'invalid_parameter_value';
		END IF;
		EXECUTE format('SELECT max(s) FROM (SELECT %I AS s FROM %s LIMIT 10000) x', stamp, relation) INTO highest;
		IF highest > pg_current_xact_id()::text::bigint THEN
			RAISE EXCEPTION 'column "%" of table % does not look like a row stamp: it holds %', stamp, relation, highest
				USING ERRCODE = 'object_not_in_prerequisite_state',
					  DETAIL = 'Every write would overwrite it with a transaction id, and those are still lower.',
					  HINT = format('If the application uses it: SELECT bcmig_blue.track(%L, %L, stamp_column => %s). If not, set it to 0 first.',
									relation, capture, CASE WHEN changing THEN 'NULL' ELSE '''bcmig_version''' END);
		END IF;
	END IF;
	IF NOT changing AND NOT EXISTS (
			SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = i.indkey[0]
			 WHERE i.indrelid = relation AND i.indisvalid AND i.indpred IS NULL AND a.attname = stamp) THEN
		EXECUTE format('CREATE INDEX ON %s (%I)', relation, stamp);
	END IF;

	-- Tracked already, the same way, and nobody took a trigger away? Then
	-- what is on record stays good.
	wanted := CASE WHEN changing AND stamp IS NOT NULL THEN 3 ELSE 2 END;
	SELECT count(*) INTO standing
	  FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
	 WHERE t.tgrelid = relation AND t.tgenabled = 'A' AND p.pronamespace = 'bcmig_blue'::regnamespace
	   AND (p.proname, t.tgtype) IN (('on_truncate', 32),
									 ('change_' || relation::oid, 1 + 4 + 8 + 16),
									 ('stamp_' || relation::oid, 1 + 2 + 4 + 16 + CASE WHEN changing THEN 0 ELSE 8 END));
	same := old.relid IS NOT NULL AND old.capture = capture AND old.key_columns = keys
		AND old.stamp_column IS NOT DISTINCT FROM stamp AND standing = wanted
		AND NOT (changing AND (to_regclass(old.change_table) IS NULL
							   OR old.change_table <> format('bcmig_blue.%I', bcmig_blue.change_name(relation))));

	-- Functions of this relid that a restored dump hung on another table would
	-- be replaced under it.
	FOR g IN SELECT t.tgname, t.tgrelid::regclass AS other
			   FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
			  WHERE p.pronamespace = 'bcmig_blue'::regnamespace AND t.tgrelid <> relation
				AND p.proname IN ('stamp_' || relation::oid, 'change_' || relation::oid)
	LOOP
		RAISE NOTICE 'trigger % of table % comes from a restored dump and is dropped; track that table again', g.tgname, g.other;
		EXECUTE format('DROP TRIGGER %I ON %s', g.tgname, g.other);
	END LOOP;

	IF NOT same THEN
		PERFORM bcmig_blue.drop_triggers(relation);
		IF to_regclass(old.change_table) IS NOT NULL THEN
			EXECUTE 'DROP TABLE ' || old.change_table;
		END IF;
	END IF;

	-- Change table, readable for the readers there are
	IF changing THEN
		change_table := format('bcmig_blue.%I', bcmig_blue.change_name(relation));
		-- another table that had this name when it was tracked still writes there
		SELECT k.relid::regclass::text INTO other_name FROM bcmig_blue.tracked k JOIN pg_class c ON c.oid = k.relid
		 WHERE k.change_table = change_table AND k.relid <> relation;
		IF FOUND THEN
			RAISE EXCEPTION 'the change table of % is still in use by table %, which had its name before', relation, other_name
				USING ERRCODE = 'object_in_use',
					  HINT = format('First SELECT bcmig_blue.track(%1$L); or SELECT bcmig_blue.untrack(%1$L);', other_name);
		END IF;
		SELECT string_agg(format('%I %s', k.name, bcmig_blue.key_type(relation, k.name)), ', ' ORDER BY k.ord)
		  INTO cols FROM unnest(keys) WITH ORDINALITY k (name, ord);
		IF NOT same THEN
			IF to_regclass(change_table) IS NOT NULL THEN
				EXECUTE 'DROP TABLE ' || change_table;		-- a restored dump's
			END IF;
			EXECUTE format('CREATE TABLE %s (xid pg_catalog.int8 NOT NULL, %s)', change_table, cols);
			EXECUTE format('CREATE INDEX ON %s (xid)', change_table);
			EXECUTE format('COMMENT ON TABLE %s IS %L', change_table,
						   format('bcmig: keys of changed rows of %I.%I', class.nspname, class.relname));
			FOR r IN SELECT DISTINCT x.grantee FROM pg_class c, aclexplode(c.relacl) x
					  WHERE c.oid = 'bcmig_blue.tracked'::regclass AND x.privilege_type = 'SELECT' AND x.grantee <> 0
			LOOP
				EXECUTE format('GRANT SELECT ON %s TO %s', change_table, r.grantee::regrole);
			END LOOP;
		END IF;
	END IF;

	-- Trigger functions.  The log of moved tables is written once per
	-- transaction: a transaction-local setting remembers that it was, and
	-- forgets it together with a savepoint that is rolled back.
	body_moved := format($f$
	IF current_setting(%1$L, true) IS DISTINCT FROM this_xid::text THEN
		INSERT INTO bcmig_blue.moved (relid, xid) VALUES (%2$s, this_xid) ON CONFLICT DO NOTHING;
		PERFORM set_config(%1$L, this_xid::text, true);
	END IF;$f$, 'bcmig_blue.m' || relation::oid, relation::oid);

	IF stamp IS NOT NULL AND changing THEN
		-- needs no rights and reads no table: runs as whoever writes
		EXECUTE format($f$
CREATE OR REPLACE FUNCTION bcmig_blue.%1$I() RETURNS trigger LANGUAGE plpgsql AS $body$
BEGIN
	NEW.%2$I := pg_catalog.pg_current_xact_id()::pg_catalog.text::pg_catalog.int8;
	RETURN NEW;
END $body$ $f$, 'stamp_' || relation::oid, stamp);
	ELSIF stamp IS NOT NULL THEN
		EXECUTE format($f$
CREATE OR REPLACE FUNCTION bcmig_blue.%1$I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
	this_xid CONSTANT bigint := pg_current_xact_id()::text::bigint;
BEGIN%3$s
	IF TG_OP = 'DELETE' THEN
		RETURN OLD;
	END IF;
	NEW.%2$I := this_xid;
	RETURN NEW;
END $body$ $f$, 'stamp_' || relation::oid, stamp, body_moved);
	END IF;
	IF stamp IS NOT NULL THEN
		EXECUTE format('REVOKE ALL ON FUNCTION bcmig_blue.%I() FROM PUBLIC', 'stamp_' || relation::oid);
		EXECUTE format('COMMENT ON FUNCTION bcmig_blue.%I() IS %L', 'stamp_' || relation::oid,
					   format('stamps rows of %I.%I', class.nspname, class.relname));
	END IF;
	IF changing THEN
		SELECT string_agg(format('%I', k.name), ', ' ORDER BY k.ord),
			   string_agg(format('NEW.%I', k.name), ', ' ORDER BY k.ord),
			   string_agg(format('OLD.%I', k.name), ', ' ORDER BY k.ord)
		  INTO cols, new_vals, old_vals FROM unnest(keys) WITH ORDINALITY k (name, ord);
		-- compared as bytes: a key changed only in case is a changed key, also
		-- where the collation says they are equal
		EXECUTE format($f$
CREATE OR REPLACE FUNCTION bcmig_blue.%1$I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
	this_xid CONSTANT bigint := pg_current_xact_id()::text::bigint;
BEGIN
	IF TG_OP <> 'DELETE' THEN
		INSERT INTO %2$s (xid, %3$s) VALUES (this_xid, %4$s);
	END IF;
	IF TG_OP = 'DELETE' OR (TG_OP = 'UPDATE' AND record_image_ne(ROW(%5$s), ROW(%4$s))) THEN
		INSERT INTO %2$s (xid, %3$s) VALUES (this_xid, %5$s);
	END IF;%6$s
	RETURN NULL;
END $body$ $f$, 'change_' || relation::oid, change_table, cols, new_vals, old_vals, body_moved);
		EXECUTE format('REVOKE ALL ON FUNCTION bcmig_blue.%I() FROM PUBLIC', 'change_' || relation::oid);
		EXECUTE format('COMMENT ON FUNCTION bcmig_blue.%I() IS %L', 'change_' || relation::oid,
					   format('records changes of %I.%I', class.nspname, class.relname));
	END IF;

	IF same THEN
		UPDATE bcmig_blue.tracked k SET schema_name = class.nspname, table_name = class.relname
		 WHERE k.relid = relation AND (k.schema_name, k.table_name) <> (class.nspname, class.relname);
		RETURN;
	END IF;

	-- BEFORE triggers fire in the order of their names: ours comes last
	IF stamp IS NOT NULL THEN
		EXECUTE format('CREATE TRIGGER zz_bcmig_stamp BEFORE INSERT OR UPDATE %s ON %s FOR EACH ROW EXECUTE FUNCTION bcmig_blue.%I()',
					   CASE WHEN changing THEN '' ELSE 'OR DELETE' END, relation, 'stamp_' || relation::oid);
		EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER zz_bcmig_stamp', relation);
	END IF;
	IF changing THEN
		EXECUTE format('CREATE TRIGGER zz_bcmig_change AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION bcmig_blue.%I()',
					   relation, 'change_' || relation::oid);
		EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER zz_bcmig_change', relation);
	END IF;
	EXECUTE format('CREATE TRIGGER zz_bcmig_truncate AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION bcmig_blue.on_truncate()', relation);
	EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER zz_bcmig_truncate', relation);

	INSERT INTO bcmig_blue.tracked AS k (relid, schema_name, table_name, capture, stamp_column, key_columns, change_table, begin_version, min_valid)
	VALUES (relation, class.nspname, class.relname, capture, stamp, keys, change_table,
			pg_current_xact_id()::text::bigint, xmin_now)
	ON CONFLICT (relid) DO UPDATE
		SET schema_name = excluded.schema_name, table_name = excluded.table_name, capture = excluded.capture,
			stamp_column = excluded.stamp_column, key_columns = excluded.key_columns, change_table = excluded.change_table,
			begin_version = excluded.begin_version, min_valid = excluded.min_valid;
	INSERT INTO bcmig_blue.moved (relid, xid) VALUES (relation, pg_current_xact_id()::text::bigint)
	ON CONFLICT DO NOTHING;
END $$;
COMMENT ON FUNCTION bcmig_blue.track(regclass, text, text) IS 'Tracks a table: change_tracking records the key of every changed row, rowversion only stamps rows (adding the column and an index where missing). Again on a tracked table it keeps what is on record, unless key, stamp or triggers changed; run it after a change of key columns, in the same transaction';

-- ---------------------------------------------------------------------------
-- The reader
-- ---------------------------------------------------------------------------
CREATE OR REPLACE FUNCTION bcmig_blue.grant_reader(reader regrole) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
	t record;
BEGIN
	EXECUTE format('GRANT USAGE ON SCHEMA bcmig_blue TO %s', reader);
	EXECUTE format('GRANT SELECT ON bcmig_blue.state, bcmig_blue.tracked, bcmig_blue.moved, bcmig_blue.sample TO %s', reader);
	FOR t IN SELECT k.change_table FROM bcmig_blue.tracked k WHERE to_regclass(k.change_table) IS NOT NULL
	LOOP
		EXECUTE format('GRANT SELECT ON %s TO %s', t.change_table, reader);
	END LOOP;
	EXECUTE format('GRANT EXECUTE ON FUNCTION bcmig_blue.expire(), bcmig_blue.incarnation(), bcmig_blue.incarnation_hash() TO %s', reader);
END $$;
COMMENT ON FUNCTION bcmig_blue.grant_reader(regrole) IS 'Lets a role read what is recorded here, now and for tables tracked later; SELECT on the tables themselves is granted as usual';

-- Nothing is for PUBLIC
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA bcmig_blue FROM PUBLIC;

COMMIT;
