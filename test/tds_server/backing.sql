-- backing.sql: what makes an ordinary PostgreSQL database look like SQL Server
-- to tds_server.  Run once with psql.
\set ON_ERROR_STOP 1
-- its views look expensive to the planner: compiling them took 39 % of the processor time while tests went through it
DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET jit = off', current_database()); END $$;
CREATE SCHEMA mssql;
CREATE SCHEMA sys;
CREATE SCHEMA dbo;
CREATE COLLATION mssql.latin1_general_100_cs_as (provider = icu, locale = 'en-u-kc-true-kf-lower');

CREATE TABLE mssql.setting (name text PRIMARY KEY, value text NOT NULL);
INSERT INTO mssql.setting VALUES
	('database', 'BC'), ('version', '15.0.4000.1'), ('snapshot_isolation_state', '1'), ('is_read_committed_snapshot_on', '0'),
	('delayed_durability', '0'), ('updateability', 'READ_WRITE'), ('database_guid', gen_random_uuid()::text),
	('recovery_fork_guid', gen_random_uuid()::text), ('tempdb_create_date', to_char(now(), 'YYYY-MM-DD"T"HH24:MI:SS.MS')),
	('change_tracking', '1'), ('retention_days', '7'), ('refuse', ''), ('deny', ''), ('row_policies', '0'), ('masked', '0');
CREATE FUNCTION mssql.setting(n text) RETURNS text LANGUAGE sql STABLE AS 'SELECT value FROM mssql.setting WHERE name = n';

-- A table of the backing database under the name SQL Server has it by.
CREATE TABLE mssql.object (
	object_id     int PRIMARY KEY GENERATED ALWAYS AS IDENTITY (START 1000001),
	rel           regclass NOT NULL UNIQUE,
	schema_name   text NOT NULL,
	name          text NOT NULL,
	tracked       boolean NOT NULL,
	begin_version bigint NOT NULL DEFAULT 0,
	min_valid     bigint NOT NULL DEFAULT 0,
	types         jsonb NOT NULL,
	writes        bigint NOT NULL DEFAULT 0,
	UNIQUE (schema_name, name)
);

-- ---------------------------------------------------------------------------
-- rowversion.  The advisory lock with the number is taken before the number is
-- given out, so a reader that does not see the lock sees a lower counter.
-- ---------------------------------------------------------------------------
CREATE SEQUENCE mssql.rowversion START 2001;
CREATE FUNCTION mssql.stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('mssql.first', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
		PERFORM pg_advisory_xact_lock_shared(7301, (SELECT last_value FROM mssql.rowversion)::int);
		PERFORM set_config('mssql.first', pg_current_xact_id()::text, true);
	END IF;
	NEW.timestamp := nextval('mssql.rowversion');
	RETURN NEW;
END $$;
CREATE FUNCTION mssql.dbts() RETURNS bytea LANGUAGE sql VOLATILE AS 'SELECT int8send(last_value) FROM mssql.rowversion';
-- The counter first, the locks after: whoever locks in between takes a higher one.
CREATE FUNCTION mssql.min_active_rowversion() RETURNS bytea LANGUAGE plpgsql VOLATILE AS $$
DECLARE
	last bigint;
	open bigint;
BEGIN
	SELECT last_value INTO last FROM mssql.rowversion;
	SELECT min(objid::bigint) INTO open FROM pg_locks WHERE locktype = 'advisory' AND classid = 7301 AND objsubid = 2;
	RETURN int8send(least(last, open) + 1);
END $$;

-- ---------------------------------------------------------------------------
-- Change tracking: keys as jsonb, versions given out in order of commit by a
-- deferred trigger that holds one lock until the commit is visible.
-- ---------------------------------------------------------------------------
CREATE SEQUENCE mssql.ct_version;
CREATE TABLE mssql.ct_current (version bigint NOT NULL);
INSERT INTO mssql.ct_current VALUES (0);
CREATE TABLE mssql.change (
	id        bigint GENERATED ALWAYS AS IDENTITY,
	xid       xid8 NOT NULL DEFAULT pg_current_xact_id(),
	object_id int NOT NULL,
	version   bigint,
	op        "char" NOT NULL,
	key       jsonb NOT NULL
);
CREATE INDEX ON mssql.change (object_id, version);
CREATE INDEX ON mssql.change (xid) WHERE version IS NULL;
CREATE TABLE mssql.pending (xid xid8 PRIMARY KEY);

CREATE FUNCTION mssql.at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE v bigint;
BEGIN
	PERFORM pg_advisory_xact_lock(7302, 0);
	UPDATE mssql.ct_current SET version = version + 1 RETURNING version INTO v;
	UPDATE mssql.change SET version = v WHERE xid = NEW.xid AND version IS NULL;
	DELETE FROM mssql.pending WHERE xid = NEW.xid;
	RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON mssql.pending DEFERRABLE INITIALLY DEFERRED
	FOR EACH ROW EXECUTE FUNCTION mssql.at_commit();
ALTER TABLE mssql.pending ENABLE ALWAYS TRIGGER at_commit;

CREATE FUNCTION mssql.key_of(r jsonb, columns text[]) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
	'SELECT jsonb_object_agg(c, r->c) FROM unnest(columns) c';
-- arguments: object id, key columns
CREATE FUNCTION mssql.track() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
	o int := TG_ARGV[0]; cols text[] := TG_ARGV[1]; old_key jsonb; new_key jsonb;
BEGIN
	IF TG_OP <> 'INSERT' THEN old_key := mssql.key_of(to_jsonb(OLD), cols); END IF;
	IF TG_OP <> 'DELETE' THEN new_key := mssql.key_of(to_jsonb(NEW), cols); END IF;
	IF old_key IS NOT NULL AND old_key IS DISTINCT FROM new_key THEN
		INSERT INTO mssql.change (object_id, op, key) VALUES (o, 'D', old_key);
	END IF;
	IF new_key IS NOT NULL THEN
		INSERT INTO mssql.change (object_id, op, key) VALUES (o, CASE WHEN old_key = new_key THEN 'U' ELSE 'I' END, new_key);
	END IF;
	INSERT INTO mssql.pending VALUES (pg_current_xact_id()) ON CONFLICT DO NOTHING;
	RETURN NULL;
END $$;
CREATE FUNCTION mssql.truncated() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE v bigint;
BEGIN
	PERFORM pg_advisory_xact_lock(7302, 0);
	UPDATE mssql.ct_current SET version = version + 1 RETURNING version INTO v;
	DELETE FROM mssql.change WHERE object_id = TG_ARGV[0]::int;
	UPDATE mssql.object SET begin_version = v, min_valid = v WHERE object_id = TG_ARGV[0]::int;
	RETURN NULL;
END $$;
-- a hint of writes, uncommitted ones too: a sequence per table
CREATE FUNCTION mssql.count_write() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM nextval(format('mssql.writes_%s', TG_ARGV[0]));
	RETURN NULL;
END $$;

CREATE FUNCTION mssql.keys(rel regclass) RETURNS text[] LANGUAGE sql STABLE AS $$
	SELECT array_agg(a.attname::text ORDER BY k.n) FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY k(att, n)
	  JOIN pg_attribute a ON a.attnum = k.att WHERE i.indrelid = rel AND i.indisprimary AND a.attrelid = rel $$;

-- What datetime holds of a moment: a three-hundredth of a second.  Values are
-- rounded when they are written, as there.
CREATE FUNCTION mssql.datetime(t timestamp) RETURNS timestamp(3) LANGUAGE sql IMMUTABLE AS
	$$ SELECT (date_trunc('day', t) + round(extract(epoch FROM t - date_trunc('day', t)) * 300) / 300 * interval '1 s')::timestamp(3) $$;
CREATE FUNCTION mssql.round_datetimes(rel regclass, types jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	columns name[] := ARRAY(SELECT attname FROM pg_attribute WHERE attrelid = rel AND atttypid = 1114 AND atttypmod = 3 AND NOT attisdropped AND NOT types ? attname::text);
	fn text := format('mssql.round_%s', rel::oid);
BEGIN
	IF cardinality(columns) = 0 THEN RETURN; END IF;
	EXECUTE format('UPDATE %s SET %s WHERE %s', rel, (SELECT string_agg(format('%1$I = mssql.datetime(%1$I)', c), ', ') FROM unnest(columns) c),
		(SELECT string_agg(format('%1$I <> mssql.datetime(%1$I)', c), ' OR ') FROM unnest(columns) c));
	EXECUTE format('CREATE FUNCTION %s() RETURNS trigger LANGUAGE plpgsql AS %L', fn,
		'BEGIN ' || (SELECT string_agg(format('NEW.%1$I := mssql.datetime(NEW.%1$I);', c), ' ') FROM unnest(columns) c) || ' RETURN NEW; END');
	EXECUTE format('CREATE TRIGGER mssql_0 BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION %s()', rel, fn);
END $$;

CREATE FUNCTION mssql.register(rel regclass, sql_name text, tracked boolean DEFAULT true, sql_schema text DEFAULT 'dbo', types jsonb DEFAULT '{}')
RETURNS int LANGUAGE plpgsql AS $$
DECLARE o int;
BEGIN
	INSERT INTO mssql.object (rel, schema_name, name, tracked, types, begin_version, min_valid)
	VALUES (rel, sql_schema, sql_name, tracked AND mssql.keys(rel) IS NOT NULL, types,
	        (SELECT version FROM mssql.ct_current), (SELECT version FROM mssql.ct_current)) RETURNING object_id INTO o;
	PERFORM mssql.round_datetimes(rel, types);
	EXECUTE format('CREATE SEQUENCE mssql.writes_%s', o);
	EXECUTE format('CREATE TRIGGER mssql_3 AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION mssql.count_write(%s)', rel, o);
	IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = rel AND attname = 'timestamp' AND NOT attisdropped) THEN
		EXECUTE format('CREATE TRIGGER mssql_1 BEFORE INSERT OR UPDATE ON %s FOR EACH ROW EXECUTE FUNCTION mssql.stamp()', rel);
		EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER mssql_1', rel);
	END IF;
	IF mssql.keys(rel) IS NOT NULL THEN
		EXECUTE format('CREATE TRIGGER mssql_2 AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION mssql.track(%s, %L)', rel, o, mssql.keys(rel));
		EXECUTE format('CREATE TRIGGER mssql_4 AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION mssql.truncated(%s)', rel, o);
		IF NOT tracked THEN EXECUTE format('ALTER TABLE %s DISABLE TRIGGER mssql_2', rel); END IF;
	END IF;
	RETURN o;
END $$;

-- ---------------------------------------------------------------------------
-- Functions of T-SQL
-- ---------------------------------------------------------------------------
CREATE FUNCTION mssql.concat(text, text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1 || $2';
CREATE OPERATOR mssql.+ (LEFTARG = text, RIGHTARG = text, FUNCTION = mssql.concat);
CREATE FUNCTION mssql.object_id(n text) RETURNS int LANGUAGE sql STABLE AS $$
	SELECT o.object_id FROM mssql.object o JOIN pg_class c ON c.oid = o.rel
	 WHERE n IN (format('[%s].[%s]', replace(o.schema_name, ']', ']]'), replace(o.name, ']', ']]')), o.schema_name || '.' || o.name, o.name) $$;
CREATE FUNCTION mssql.quotename(n text) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '[' || replace(n, ']', ']]') || ']' $$;
CREATE FUNCTION mssql.schema_name(int) RETURNS text LANGUAGE sql AS $$ SELECT 'dbo' $$;
CREATE FUNCTION mssql.db_id() RETURNS int LANGUAGE sql AS 'SELECT 5';
CREATE FUNCTION mssql.db_name() RETURNS text LANGUAGE sql STABLE AS $$ SELECT mssql.setting('database') $$;
CREATE FUNCTION mssql.user_name() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'bcmig_reader' $$;
CREATE FUNCTION mssql.sysutcdatetime() RETURNS timestamp LANGUAGE sql VOLATILE AS $$ SELECT clock_timestamp() AT TIME ZONE 'UTC' $$;
CREATE FUNCTION mssql.datediff(part text, a timestamp, b timestamp) RETURNS bigint LANGUAGE sql AS $$
	SELECT CASE upper(part) WHEN 'SECOND' THEN (extract(epoch FROM date_trunc('second', b)) - extract(epoch FROM date_trunc('second', a)))::bigint
	                        WHEN 'MICROSECOND' THEN (extract(epoch FROM b - a) * 1000000)::bigint END $$;
CREATE FUNCTION mssql.datediff(part text, a text, b timestamp) RETURNS bigint LANGUAGE sql AS $$ SELECT mssql.datediff(part, a::timestamp, b) $$;
CREATE FUNCTION mssql.datepart(part text, a timestamp) RETURNS bigint LANGUAGE sql AS $$
	SELECT CASE upper(part) WHEN 'MICROSECOND' THEN extract(microseconds FROM a)::bigint % 1000000
	                        WHEN 'MILLISECOND' THEN extract(milliseconds FROM a)::bigint % 1000 END $$;
CREATE FUNCTION mssql.change_tracking_current_version() RETURNS bigint LANGUAGE sql VOLATILE AS
	$$ SELECT version FROM mssql.ct_current WHERE mssql.setting('change_tracking') = '1' $$;
CREATE FUNCTION mssql.hashbytes(kind text, v text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN kind = 'MD5' THEN decode(md5(convert_to(v, 'UTF8')), 'hex') ELSE sha256(convert_to(v, 'UTF8')) END $$;
CREATE FUNCTION mssql.hashbytes(kind text, v bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN kind = 'MD5' THEN decode(md5(v), 'hex') ELSE sha256(v) END $$;
CREATE FUNCTION mssql.has_perms_by_name(text, text, text) RETURNS int LANGUAGE sql STABLE AS $$
	SELECT CASE WHEN mssql.setting('deny') LIKE '%' || $3 || '%' AND ($3 <> 'SELECT' OR mssql.setting('deny') LIKE '%SELECT ' || $1 || '%') THEN 0
	            WHEN $3 = 'SELECT' AND mssql.object_id($1) IS NULL THEN NULL ELSE 1 END $$;
CREATE FUNCTION mssql.serverproperty(text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT CASE $1 WHEN 'ProductVersion' THEN mssql.setting('version') END $$;
CREATE FUNCTION mssql.databasepropertyex(text, text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT CASE $2 WHEN 'Updateability' THEN mssql.setting('updateability') END $$;
CREATE FUNCTION mssql.parsename(n text, part int) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT split_part(n, '.', array_length(string_to_array(n, '.'), 1) + 1 - part) $$;
-- of nvarchar, UTF-16: four bytes for characters above U+FFFF, but for the two that stand for what PostgreSQL cannot hold
CREATE FUNCTION mssql.datalength(text) RETURNS bigint LANGUAGE sql IMMUTABLE AS
	$$ SELECT 2 * CASE WHEN octet_length($1) = char_length($1) THEN char_length($1)
		ELSE char_length($1) + char_length(regexp_replace($1, '[^\U00010000-\U0010FFFB\U0010FFFE\U0010FFFF]', '', 'g')) END::bigint $$;
CREATE FUNCTION mssql.datalength(character) RETURNS bigint LANGUAGE sql IMMUTABLE AS
	'SELECT mssql.datalength($1::text) + 2 * (octet_length($1) - octet_length($1::text))';
CREATE FUNCTION mssql.datalength(bytea) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT octet_length($1)::bigint';
CREATE FUNCTION mssql.isnull(anycompatible, anycompatible) RETURNS anycompatible LANGUAGE sql IMMUTABLE AS 'SELECT coalesce($1, $2)';
CREATE FUNCTION mssql.len(text) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT char_length(rtrim($1, ' ')) $$;

-- CONVERT: by target type
CREATE FUNCTION mssql.to_bigint(bytea) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$ SELECT ('x' || lpad(encode(substr($1, greatest(1, octet_length($1) - 7)), 'hex'), 16, '0'))::bit(64)::bigint $$;
CREATE FUNCTION mssql.to_bigint(numeric) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT trunc($1)::bigint';
CREATE FUNCTION mssql.to_bigint(text) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1::bigint';
CREATE FUNCTION mssql.to_text(text, int DEFAULT 0) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION mssql.to_text(uuid, int DEFAULT 0) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT upper($1::text)';
CREATE FUNCTION mssql.to_text(numeric, int DEFAULT 0) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT $1::text';
CREATE FUNCTION mssql.to_text(bytea, int DEFAULT 0) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT CASE $2 WHEN 2 THEN upper(encode($1, 'hex')) WHEN 1 THEN '0x' || upper(encode($1, 'hex')) END $$;
CREATE FUNCTION mssql.to_text(timestamp, int DEFAULT 0) RETURNS text LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE $2 WHEN 121 THEN to_char($1, 'YYYY-MM-DD HH24:MI:SS.MS') WHEN 126 THEN to_char($1, 'YYYY-MM-DD"T"HH24:MI:SS.MS') ELSE to_char($1, 'Mon DD YYYY HH12:MIAM') END $$;
CREATE FUNCTION mssql.to_bigint(boolean) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT $1::int::bigint';
-- varchar, whose bytes are not nvarchar's
CREATE DOMAIN mssql.ansi AS text;
CREATE FUNCTION mssql.to_varchar(numeric) RETURNS mssql.ansi LANGUAGE sql IMMUTABLE AS 'SELECT $1::text::mssql.ansi';
CREATE FUNCTION mssql.to_varchar(text) RETURNS mssql.ansi LANGUAGE sql IMMUTABLE AS 'SELECT $1::mssql.ansi';
-- binary(n): numbers at the right, all else at the left
CREATE FUNCTION mssql.to_binary(bigint, int) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$ SELECT substr(int8send($1), 9 - $2) $$;
CREATE FUNCTION mssql.to_binary(int, int) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$ SELECT substr(int8send($1::bigint), 9 - $2) $$;
CREATE FUNCTION mssql.to_binary(bytea, int) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$ SELECT substr($1 || decode(repeat('00', $2), 'hex'), 1, $2) $$;
CREATE FUNCTION mssql.to_binary(uuid, int) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
	SELECT substr(u, 4, 1) || substr(u, 3, 1) || substr(u, 2, 1) || substr(u, 1, 1) || substr(u, 6, 1) || substr(u, 5, 1) || substr(u, 8, 1) || substr(u, 7, 1) || substr(u, 9)
	  FROM uuid_send($1) u $$;
-- datetime: days since 1900, three-hundredths of a second
CREATE FUNCTION mssql.to_binary(timestamp, int) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
	SELECT int4send($1::date - date '1900-01-01') || int4send(round(extract(epoch FROM $1 - date_trunc('day', $1)) * 300)::int) $$;
-- varbinary: nvarchar is UTF-16, unless the server is to be an odd one; two characters stand for what PostgreSQL cannot hold (protocol.py)
CREATE FUNCTION mssql.utf16(v text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
	SELECT CASE WHEN v = '' THEN ''::bytea
	  WHEN octet_length(v) = char_length(v) THEN decode(regexp_replace(encode(convert_to(v, 'UTF8'), 'hex'), '(..)', '\100', 'g'), 'hex')
	  ELSE (SELECT string_agg(CASE c WHEN 1114109 THEN '\x3dd8'::bytea WHEN 1114108 THEN '\x0000'::bytea ELSE CASE WHEN c < 65536 THEN substr(int4send(c), 4, 1) || substr(int4send(c), 3, 1)
	          ELSE substr(int4send(h), 4, 1) || substr(int4send(h), 3, 1) || substr(int4send(l), 4, 1) || substr(int4send(l), 3, 1) END END, ''::bytea ORDER BY n)
	          FROM (SELECT n, ascii(x) AS c, 55296 + ((ascii(x) - 65536) >> 10) AS h, 56320 + ((ascii(x) - 65536) & 1023) AS l
	                  FROM regexp_split_to_table(v, '') WITH ORDINALITY s(x, n)) y) END $$;
CREATE FUNCTION mssql.to_varbinary(text) RETURNS bytea LANGUAGE sql STABLE AS
	$$ SELECT CASE WHEN mssql.setting('text_bytes') = 'utf8' THEN convert_to($1, 'UTF8') ELSE mssql.utf16($1) END $$;
CREATE FUNCTION mssql.to_varbinary(mssql.ansi) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$ SELECT convert_to($1::text, 'LATIN1') $$;
CREATE FUNCTION mssql.to_varbinary(bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION mssql.joined(bytea, bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS 'SELECT $1 || $2';
CREATE OPERATOR mssql.+ (LEFTARG = bytea, RIGHTARG = bytea, FUNCTION = mssql.joined);

-- ---------------------------------------------------------------------------
-- Catalogue
-- ---------------------------------------------------------------------------
CREATE VIEW mssql.live AS SELECT o.* FROM mssql.object o JOIN pg_class c ON c.oid = o.rel;
-- modify_date: another one for other columns
CREATE VIEW sys.objects AS SELECT object_id, name, 1 AS schema_id, 'U' AS type, 0 AS is_ms_shipped, NULL::int AS principal_id,
	(SELECT timestamp '2024-01-01' + abs(hashtext(string_agg(a.attname || ',' || a.atttypid || ',' || a.atttypmod || ',' || a.attnotnull, ';' ORDER BY a.attnum))::bigint) * interval '10 ms'
	   FROM pg_attribute a WHERE a.attrelid = rel AND a.attnum > 0 AND NOT a.attisdropped) AS modify_date FROM mssql.live;
CREATE VIEW sys.tables AS SELECT * FROM sys.objects;
CREATE FUNCTION mssql.sql_type(o mssql.object, a pg_attribute) RETURNS text LANGUAGE sql STABLE AS $$
	SELECT coalesce(o.types->>a.attname, CASE WHEN a.attname = 'timestamp' AND a.atttypid = 20 THEN 'timestamp'
	  WHEN a.atttypid = 21 THEN 'tinyint' WHEN a.atttypid = 23 THEN 'int' WHEN a.atttypid = 20 THEN 'bigint'
	  WHEN a.atttypid = 1700 THEN 'decimal' || coalesce(substring(format_type(a.atttypid, a.atttypmod) FROM '\(.*\)'), '(38,20)')
	  WHEN a.atttypid = 1043 THEN 'nvarchar' || coalesce(substring(format_type(a.atttypid, a.atttypmod) FROM '\(.*\)'), '(max)')
	  WHEN a.atttypid = 25 THEN 'nvarchar(max)' WHEN a.atttypid = 1042 THEN 'nchar' || substring(format_type(a.atttypid, a.atttypmod) FROM '\(.*\)')
	  WHEN a.atttypid = 1114 THEN 'datetime' WHEN a.atttypid = 2950 THEN 'uniqueidentifier' WHEN a.atttypid = 17 THEN 'image'
	  WHEN a.atttypid = 16 THEN 'bit' WHEN a.atttypid = 701 THEN 'float' WHEN a.atttypid = 700 THEN 'real' ELSE 'sql_variant' END) $$;
CREATE TABLE sys.types (name text, system_type_id int, user_type_id int);
INSERT INTO sys.types SELECT n, i, i FROM (VALUES ('tinyint', 48), ('smallint', 52), ('int', 56), ('bigint', 127), ('bit', 104), ('decimal', 106), ('numeric', 108),
	('float', 62), ('real', 59), ('money', 60), ('datetime', 61), ('datetime2', 42), ('date', 40), ('time', 41), ('uniqueidentifier', 36), ('nvarchar', 231), ('varchar', 167),
	('nchar', 239), ('char', 175), ('image', 34), ('text', 35), ('ntext', 99), ('varbinary', 165), ('binary', 173), ('timestamp', 189), ('sql_variant', 98), ('xml', 241)) t(n, i);
CREATE VIEW sys.columns AS
	SELECT o.object_id, a.attname::text AS name, a.attnum::int AS column_id, t.system_type_id, t.user_type_id,
	       CASE WHEN x.t LIKE '%(max)' THEN -1 WHEN x.t LIKE 'n%char(%' THEN 2 * substring(x.t FROM '\d+')::int
	            WHEN x.t ~ '^(var)?(char|binary)\(' THEN substring(x.t FROM '\((\d+)')::int ELSE 16 END AS max_length,
	       CASE WHEN x.t LIKE 'decimal(%' THEN substring(x.t FROM '\((\d+)')::int ELSE 0 END AS precision,
	       CASE WHEN x.t LIKE 'decimal(%' THEN substring(x.t FROM ',(\d+)')::int ELSE 3 END AS scale,
	       CASE WHEN x.t LIKE '%char%' THEN 'Latin1_General_100_CS_AS' END AS collation_name,
	       (NOT a.attnotnull)::int AS is_nullable, (a.attidentity <> '')::int AS is_identity, 0 AS is_computed, 0 AS is_masked,
	       CASE WHEN a.atthasdef AND t.name <> 'timestamp' THEN o.object_id * 1000 + a.attnum ELSE 0 END AS default_object_id
	  FROM mssql.object o JOIN pg_attribute a ON a.attrelid = o.rel AND a.attnum > 0 AND NOT a.attisdropped,
	       LATERAL (SELECT mssql.sql_type(o, a) AS t) x JOIN sys.types t ON t.name = split_part(x.t, '(', 1);
CREATE VIEW sys.default_constraints AS
	SELECT o.object_id * 1000 + d.adnum AS object_id, o.object_id AS parent_object_id,
	       '(' || replace(regexp_replace(regexp_replace(pg_get_expr(d.adbin, d.adrelid), '::.*$', ''), '^''(.*)''$', '''\1'''), 'gen_random_uuid()', 'newid()') || ')' AS definition
	  FROM mssql.object o JOIN pg_attrdef d ON d.adrelid = o.rel JOIN pg_attribute a ON a.attrelid = o.rel AND a.attnum = d.adnum
	 WHERE mssql.sql_type(o, a) NOT IN ('timestamp', 'rowversion');	-- which can have none
CREATE VIEW sys.indexes AS
	SELECT o.object_id, i.indexrelid::int AS index_id, c.relname::text AS name, i.indisunique::int AS is_unique, i.indisprimary::int AS is_primary_key,
	       0 AS is_disabled, (i.indpred IS NOT NULL)::int AS has_filter, NULL::text AS filter_definition, CASE WHEN i.indisprimary THEN 1 ELSE 2 END AS type
	  FROM mssql.object o JOIN pg_index i ON i.indrelid = o.rel JOIN pg_class c ON c.oid = i.indexrelid
	 UNION ALL SELECT o.object_id, 0, NULL, 0, 0, 0, 0, NULL, 0 FROM mssql.live o WHERE NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = o.rel AND i.indisprimary);
CREATE VIEW sys.index_columns AS
	SELECT o.object_id, i.indexrelid::int AS index_id, k.att::int AS column_id, k.n::int AS key_ordinal, 0 AS is_included_column
	  FROM mssql.object o JOIN pg_index i ON i.indrelid = o.rel, unnest(i.indkey::int2[]) WITH ORDINALITY k(att, n);
CREATE FUNCTION mssql.columnproperty(id int, c text, property text) RETURNS int LANGUAGE sql STABLE AS $$
	SELECT CASE lower(property) WHEN 'isidentity' THEN is_identity WHEN 'allowsnull' THEN is_nullable WHEN 'iscomputed' THEN is_computed END
	  FROM sys.columns WHERE object_id = id AND name = c $$;
CREATE SCHEMA "INFORMATION_SCHEMA";
CREATE VIEW "INFORMATION_SCHEMA"."TABLES" AS
	SELECT mssql.setting('database') AS "TABLE_CATALOG", schema_name AS "TABLE_SCHEMA", name AS "TABLE_NAME", 'BASE TABLE' AS "TABLE_TYPE" FROM mssql.live;
CREATE VIEW "INFORMATION_SCHEMA"."COLUMNS" AS
	SELECT mssql.setting('database') AS "TABLE_CATALOG", o.schema_name AS "TABLE_SCHEMA", o.name AS "TABLE_NAME", c.name AS "COLUMN_NAME", c.column_id AS "ORDINAL_POSITION",
	       d.definition AS "COLUMN_DEFAULT", CASE c.is_nullable WHEN 1 THEN 'YES' ELSE 'NO' END AS "IS_NULLABLE", t.name AS "DATA_TYPE",
	       CASE WHEN t.name IN ('image', 'text') THEN 2147483647 WHEN t.name = 'ntext' THEN 1073741823 WHEN c.max_length = -1 THEN -1 WHEN t.name IN ('nvarchar', 'nchar') THEN c.max_length / 2
	            WHEN t.name IN ('varchar', 'char', 'varbinary', 'binary') THEN c.max_length END AS "CHARACTER_MAXIMUM_LENGTH",
	       CASE t.name WHEN 'tinyint' THEN 3 WHEN 'smallint' THEN 5 WHEN 'int' THEN 10 WHEN 'bigint' THEN 19 WHEN 'float' THEN 53 WHEN 'real' THEN 24
	            WHEN 'decimal' THEN c.precision WHEN 'numeric' THEN c.precision END AS "NUMERIC_PRECISION",
	       CASE WHEN t.name IN ('tinyint', 'smallint', 'int', 'bigint', 'decimal', 'numeric') THEN 10 WHEN t.name IN ('float', 'real') THEN 2 END AS "NUMERIC_PRECISION_RADIX",
	       CASE WHEN t.name IN ('tinyint', 'smallint', 'int', 'bigint') THEN 0 WHEN t.name IN ('decimal', 'numeric') THEN c.scale END AS "NUMERIC_SCALE",
	       CASE WHEN t.name = 'datetime' THEN 3 WHEN t.name = 'date' THEN 0 END AS "DATETIME_PRECISION",
	       CASE WHEN t.name LIKE 'n%char' OR t.name = 'ntext' THEN 'UNICODE' WHEN t.name LIKE '%char' OR t.name = 'text' THEN 'iso_1' END AS "CHARACTER_SET_NAME",
	       c.collation_name AS "COLLATION_NAME"
	  FROM mssql.live o JOIN sys.columns c USING (object_id) JOIN sys.types t USING (user_type_id) LEFT JOIN sys.default_constraints d ON d.object_id = c.default_object_id;
CREATE VIEW "INFORMATION_SCHEMA"."KEY_COLUMN_USAGE" AS
	SELECT mssql.setting('database') AS "CONSTRAINT_CATALOG", o.schema_name AS "CONSTRAINT_SCHEMA", k.conname::text AS "CONSTRAINT_NAME", mssql.setting('database') AS "TABLE_CATALOG",
	       o.schema_name AS "TABLE_SCHEMA", o.name AS "TABLE_NAME", a.attname::text AS "COLUMN_NAME", c.n::int AS "ORDINAL_POSITION"
	  FROM mssql.live o JOIN pg_constraint k ON k.conrelid = o.rel AND k.contype IN ('p', 'u', 'f'), unnest(k.conkey) WITH ORDINALITY c(att, n), pg_attribute a
	 WHERE a.attrelid = o.rel AND a.attnum = c.att;
-- BC makes no foreign keys
CREATE VIEW "INFORMATION_SCHEMA"."REFERENTIAL_CONSTRAINTS" AS
	SELECT mssql.setting('database') AS "CONSTRAINT_CATALOG", ''::text AS "CONSTRAINT_SCHEMA", ''::text AS "CONSTRAINT_NAME", ''::text AS "UNIQUE_CONSTRAINT_CATALOG",
	       ''::text AS "UNIQUE_CONSTRAINT_SCHEMA", ''::text AS "UNIQUE_CONSTRAINT_NAME", ''::text AS "UPDATE_RULE", ''::text AS "DELETE_RULE" WHERE false;
CREATE VIEW sys.partitions AS
	SELECT object_id, 1 AS index_id, greatest(pg_stat_get_live_tuples(rel), 0) AS rows FROM mssql.live;
CREATE VIEW sys.dm_db_partition_stats AS
	SELECT object_id, 1 AS index_id, greatest(pg_stat_get_live_tuples(rel), 0) AS row_count, pg_total_relation_size(rel) / 8192 AS used_page_count FROM mssql.live;
CREATE VIEW sys.change_tracking_tables AS
	SELECT object_id, begin_version, min_valid AS min_valid_version FROM mssql.live WHERE tracked AND mssql.setting('change_tracking') = '1';
CREATE VIEW sys.change_tracking_databases AS
	SELECT 5 AS database_id, mssql.setting('retention_days')::int AS retention_period, 3 AS retention_period_units, 'DAYS' AS retention_period_units_desc,
	       1 AS is_auto_cleanup_on WHERE mssql.setting('change_tracking') = '1';
-- users of the database, with the login each is of; their rights
CREATE TABLE mssql.principal (principal_id int PRIMARY KEY, name text NOT NULL UNIQUE, login text NOT NULL, sysadmin boolean NOT NULL DEFAULT false,
	sid bytea GENERATED ALWAYS AS (decode(md5(login), 'hex')) STORED);
INSERT INTO mssql.principal VALUES (1, 'dbo', 'CONTOSO\owner'), (5, 'bcmig_reader', 'bcmig_reader');
CREATE TABLE mssql.permission (object_id int NOT NULL, column_id int NOT NULL DEFAULT 0, principal_id int NOT NULL REFERENCES mssql.principal,
	permission_name text NOT NULL, state text NOT NULL CHECK (state IN ('G', 'W', 'D')), PRIMARY KEY (object_id, column_id, principal_id, permission_name));
CREATE VIEW sys.database_principals AS SELECT principal_id, name, 'S' AS type, sid FROM mssql.principal;
CREATE VIEW sys.database_permissions AS
	SELECT 1 AS class, object_id AS major_id, column_id AS minor_id, principal_id AS grantee_principal_id, permission_name, state,
	       CASE permission_name WHEN 'INSERT' THEN 'IN' WHEN 'UPDATE' THEN 'UP' WHEN 'DELETE' THEN 'DL' WHEN 'ALTER' THEN 'AL' WHEN 'SELECT' THEN 'SL' END AS type
	  FROM mssql.permission WHERE mssql.setting('deny') NOT LIKE '%VIEW DEFINITION%';
CREATE VIEW sys.schemas AS SELECT 1 AS schema_id, 'dbo' AS name, 1 AS principal_id;
CREATE FUNCTION mssql.suser_sname(bytea) RETURNS text LANGUAGE sql STABLE AS 'SELECT login FROM mssql.principal WHERE sid = $1';
CREATE FUNCTION mssql.is_srvrolemember(role text, login text) RETURNS int LANGUAGE sql STABLE AS $$
	SELECT p.sysadmin::int FROM mssql.principal p WHERE p.login = $2 AND $1 = 'sysadmin' AND mssql.setting('deny') NOT LIKE '%SERVER ROLE%' $$;
CREATE VIEW sys.databases AS
	SELECT 5 AS database_id, mssql.setting('database') AS name, mssql.setting('snapshot_isolation_state')::int AS snapshot_isolation_state,
	       CASE mssql.setting('snapshot_isolation_state') WHEN '1' THEN 'ON' ELSE 'OFF' END AS snapshot_isolation_state_desc,
	       mssql.setting('is_read_committed_snapshot_on')::int AS is_read_committed_snapshot_on, mssql.setting('delayed_durability')::int AS delayed_durability,
	       CASE mssql.setting('delayed_durability') WHEN '0' THEN 'DISABLED' ELSE 'FORCED' END AS delayed_durability_desc,
	       '2020-01-01'::timestamp AS create_date, mssql.setting('updateability') = 'READ_ONLY' AS is_read_only,
	       (SELECT p.sid FROM mssql.principal p WHERE p.principal_id = 1) AS owner_sid
	 UNION ALL SELECT 2, 'tempdb', 0, 'OFF', 0, 0, 'DISABLED', mssql.setting('tempdb_create_date')::timestamp, false, '\x01';
CREATE VIEW sys.database_recovery_status AS
	SELECT 5 AS database_id, mssql.setting('database_guid')::uuid AS database_guid, mssql.setting('recovery_fork_guid')::uuid AS recovery_fork_guid;
CREATE VIEW sys.security_policies AS SELECT 1 AS is_enabled FROM generate_series(1, mssql.setting('row_policies')::int);
CREATE VIEW sys.masked_columns AS SELECT 1 AS is_masked FROM generate_series(1, mssql.setting('masked')::int);
CREATE FUNCTION mssql.writes(o int) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE n bigint; BEGIN EXECUTE format('SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM mssql.writes_%s', o) INTO n; RETURN n; END $$;
CREATE FUNCTION sys.dm_db_index_operational_stats(int, int, int, int) RETURNS TABLE (object_id int, index_id int, leaf_insert_count bigint,
	leaf_update_count bigint, leaf_delete_count bigint, leaf_ghost_count bigint) LANGUAGE sql AS
	'SELECT l.object_id, 1, mssql.writes(l.object_id), 0::bigint, 0::bigint, 0::bigint FROM mssql.live l';
CREATE VIEW sys.dm_tran_database_transactions AS
	SELECT pid AS transaction_id, 5 AS database_id, xact_start::timestamp AS database_transaction_begin_time FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid();
CREATE VIEW sys.dm_tran_session_transactions AS SELECT pid AS transaction_id, pid AS session_id FROM pg_stat_activity;
CREATE VIEW sys.dm_exec_sessions AS SELECT pid AS session_id, usename::text AS login_name, application_name AS program_name FROM pg_stat_activity;
CREATE TABLE mssql.sequence (rel regclass PRIMARY KEY, name text NOT NULL);
CREATE FUNCTION mssql.add_sequence(rel regclass, sql_name text) RETURNS void LANGUAGE sql AS 'INSERT INTO mssql.sequence VALUES ($1, $2)';
CREATE VIEW sys.sequences AS
	SELECT s.rel::int AS object_id, s.name, 1 AS schema_id, q.seqstart AS start_value, q.seqincrement AS increment, q.seqmin AS minimum_value, q.seqmax AS maximum_value,
	       coalesce(pg_sequence_last_value(s.rel), q.seqstart) AS current_value
	  FROM mssql.sequence s JOIN pg_sequence q ON q.seqrelid = s.rel;
CREATE VIEW sys.identity_columns AS
	SELECT o.object_id, a.attnum::int AS column_id, a.attname::text AS name, q.seqstart AS seed_value, q.seqincrement AS increment_value,
	       pg_sequence_last_value(q.seqrelid) AS last_value
	  FROM mssql.live o JOIN pg_attribute a ON a.attrelid = o.rel AND a.attidentity <> ''
	  JOIN pg_sequence q ON q.seqrelid = pg_get_serial_sequence(o.rel::text, a.attname)::regclass;
-- SUM has the type of what it sums
CREATE AGGREGATE mssql.sum(bigint) (sfunc = int8pl, stype = bigint);
CREATE AGGREGATE mssql.sum(int) (sfunc = int4pl, stype = int);
