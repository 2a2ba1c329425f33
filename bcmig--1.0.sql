/* bcmig--1.0.sql: catalogue, functions and views of bcmig */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION bcmig" to load this file. \quit

-- Tables and views live in schema bcmig, functions where the extension is
-- installed.  What a person sets (environment, sync, sync_table, column_map)
-- and what the engine writes (sync_state, table_state, copy_chunk, ...) are
-- different tables: an open psql transaction never stops a worker.
CREATE SCHEMA bcmig;
COMMENT ON SCHEMA bcmig IS 'bcmig: catalogue, state and views of the Business Central migration';

-- ---------------------------------------------------------------------------
-- Options: the one list that validates, documents and defaults every option
-- ---------------------------------------------------------------------------
CREATE TABLE bcmig.option (
    name          text PRIMARY KEY,
    scope         text[] NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('integer', 'boolean', 'interval', 'bytes', 'percent', 'enum', 'text', 'list')),
    unit          text,
    default_value text,
    min_value     bigint,
    max_value     bigint,
    choices       text[],
    meaning       text NOT NULL
);
COMMENT ON TABLE bcmig.option IS 'Every option of environments, syncs and tables: unit, default, bounds and meaning. Intervals are counted in ms, sizes in bytes.';
COMMENT ON COLUMN bcmig.option.name IS 'key in the options jsonb';
COMMENT ON COLUMN bcmig.option.scope IS 'where it may be set: environment, sync, table; a table''s value overrides its sync''s';
COMMENT ON COLUMN bcmig.option.kind IS 'integer, boolean, interval (ms, or text like 100ms), bytes (or text like 64MB), percent, enum, text, list (array of text)';
COMMENT ON COLUMN bcmig.option.default_value IS 'the value when nobody set one; auto = the engine decides';
COMMENT ON COLUMN bcmig.option.meaning IS 'what it does, in one sentence';

INSERT INTO bcmig.option (name, scope, kind, unit, default_value, min_value, max_value, choices, meaning) VALUES
 ('batch_rows',         '{sync,table}', 'integer',  'rows', '1000',   1, 1000000, NULL, 'Rows applied in one transaction when a window is too big for a single one.'),
 ('max_latency',        '{sync,table}', 'interval', 'ms',   '100ms', 10, 3600000, NULL, 'How far green may be behind before the engine polls faster and the status says lagging.'),
 ('poll_interval',      '{sync}',       'interval', 'ms',   'auto',   5, 60000,   '{auto}', 'Time between two polls of blue; auto polls fast while blue changes and about once a second while it is idle.'),
 ('workers',            '{sync}',       'integer',  'processes', 'auto', 1, 64,   '{auto}', 'Most workers this sync may borrow from the pool at one time; auto = all of bcmig.max_workers.'),
 ('error_threshold',    '{sync,table}', 'percent',  '%',    '5',      0, 100,     NULL, 'A table is suspended when more than this share of its rows failed within five minutes (of at least 100 rows).'),
 ('max_errors',         '{sync,table}', 'integer',  'rows', '1000',   1, 10000000, NULL, 'A table is suspended when it has this many quarantined rows.'),
 ('max_retries',        '{sync,table}', 'integer',  'times', '3',     0, 1000,    NULL, 'Attempts at a statement that failed on blue (not for an unreachable blue) before the table is suspended.'),
 ('sweep_interval',     '{sync,table}', 'interval', 'ms',   '15min', 1000, 604800000, NULL, 'Time between two key sweeps of a table whose deletes are not in a change feed.'),
 ('max_delete_percent', '{sync,table}', 'percent',  '%',    '20',     0, 100,     NULL, 'A sweep or window that would delete more than this share of a green table suspends it until it is resumed by hand.'),
 ('chunk_rows',         '{sync,table}', 'integer',  'rows', 'auto', 100, 10000000, '{auto}', 'Rows in one copy chunk; auto adapts to measured time and bytes.'),
 ('chunk_target',       '{sync,table}', 'interval', 'ms',   '2s',   100, 600000,  NULL, 'How long one copy chunk should take when chunk_rows is auto.'),
 ('copy_data',          '{sync,table}', 'boolean',  NULL,   'true', NULL, NULL,   NULL, 'false starts streaming without the initial copy: green already holds the rows.'),
 ('capture',            '{sync,table}', 'enum',     NULL,   'auto', NULL, NULL,   '{auto,change_tracking,rowversion,snapshot}', 'How changes are seen: change tracking (deletes too), rowversion windows plus key sweep, or full compare.'),
 ('keyless',            '{sync,table}', 'enum',     NULL,   'snapshot', NULL, NULL, '{snapshot,refuse}', 'A table without a key (heap): kept by whole-table compare, or refused.'),
 ('source_schema',      '{sync,table}', 'text',     NULL,   'auto', NULL, NULL,   NULL, 'Schema on blue; auto = dbo on SQL Server, public on PostgreSQL.'),
 ('key',                '{table}',      'list',     NULL,   'auto', NULL, NULL,   NULL, 'Columns, as blue spells them, that identify a row; auto = blue''s primary key.'),
 ('priority',           '{table}',      'integer',  NULL,   '5',      1, 9,       NULL, 'Order in which tables get workers: 1 first.'),
 ('parallel',           '{sync,table}', 'integer',  'processes', 'auto', 1, 64,   '{auto}', 'Most workers that copy one table at a time.'),
 ('enabled',            '{table}',      'boolean',  NULL,   'true', NULL, NULL,   NULL, 'false leaves the table out of copying and streaming; its rows stay.'),
 ('connect_timeout',    '{environment}', 'interval', 'ms',  '10s', 1000, 600000,  NULL, 'How long a one-off question to blue (check, discovery, preflight) may take to be answered.');

-- ---------------------------------------------------------------------------
-- Configuration
-- ---------------------------------------------------------------------------
CREATE TABLE bcmig.environment (
    environment_id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name           text NOT NULL UNIQUE CHECK (name <> ''),
    side           text NOT NULL CHECK (side IN ('blue', 'green')),
    server         text,
    health_url     text,
    options        jsonb NOT NULL DEFAULT '{}',
    owner          regrole NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT now(),
    CHECK ((side = 'blue') = (server IS NOT NULL))
);
COMMENT ON TABLE bcmig.environment IS 'Registered databases: blue (source, through a foreign server) and green (this database).';
COMMENT ON COLUMN bcmig.environment.server IS 'foreign server of a blue; its user mappings hold the credentials';

CREATE TABLE bcmig.sync (
    sync_id        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name           text NOT NULL UNIQUE CHECK (name <> ''),
    environment_id integer NOT NULL REFERENCES bcmig.environment,
    owner          regrole NOT NULL,
    options        jsonb NOT NULL DEFAULT '{}',
    wanted         text NOT NULL DEFAULT 'stopped' CHECK (wanted IN ('stopped', 'running')),
    created_at     timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE bcmig.sync IS 'One stream of tables from a blue to this database: the unit of start, stop, weight and rollback.';
COMMENT ON COLUMN bcmig.sync.owner IS 'role (LOGIN) every worker of this sync runs as';
COMMENT ON COLUMN bcmig.sync.wanted IS 'what the DBA asked for last: running or stopped';

CREATE TABLE bcmig.sync_table (
    table_id      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id       integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    source_schema text NOT NULL,
    source_table  text NOT NULL,
    target_schema text NOT NULL,
    target_table  text NOT NULL,
    feed          text NOT NULL,
    capture       text NOT NULL CHECK (capture IN ('change_tracking', 'rowversion', 'snapshot')),
    version_column text,
    indexes       jsonb NOT NULL DEFAULT '[]',
    made_target   boolean NOT NULL,
    options       jsonb NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (target_schema, target_table),
    UNIQUE (sync_id, source_schema, source_table)
);
COMMENT ON TABLE bcmig.sync_table IS 'Tables of a sync. A green table belongs to one sync only.';
COMMENT ON COLUMN bcmig.sync_table.feed IS 'foreign table in schema bcmig with the row shape of the source table: bc_op, bc_rowversion, then its columns';
COMMENT ON COLUMN bcmig.sync_table.capture IS 'how changes are seen, resolved from the option capture when the table was added';
COMMENT ON COLUMN bcmig.sync_table.version_column IS 'blue''s column that holds the row version, where there is one; not among column_map';
COMMENT ON COLUMN bcmig.sync_table.indexes IS 'secondary indexes to build on green: [{"name","columns":[...],"unique":bool}], target spelling; unique ones are built deferrable after the first catch-up';
COMMENT ON COLUMN bcmig.sync_table.made_target IS 'bcmig created the green table';

CREATE TABLE bcmig.column_map (
    table_id      integer NOT NULL REFERENCES bcmig.sync_table ON DELETE CASCADE,
    ordinal       integer NOT NULL,
    source_column text NOT NULL,
    source_type   text NOT NULL,
    target_column text NOT NULL,
    target_type   text NOT NULL,
    key_position  integer,
    row_identity  boolean NOT NULL DEFAULT false,
    PRIMARY KEY (table_id, ordinal),
    UNIQUE (table_id, source_column),
    UNIQUE (table_id, target_column)
);
COMMENT ON TABLE bcmig.column_map IS 'Columns of each table, in feed order (after bc_op and bc_rowversion).';
COMMENT ON COLUMN bcmig.column_map.key_position IS 'place in the key, from 1; NULL = not in the key';
COMMENT ON COLUMN bcmig.column_map.row_identity IS 'the $systemId column: stays the same when the key of a row is renamed';
COMMENT ON COLUMN bcmig.column_map.source_type IS 'type of the feed column';

-- ---------------------------------------------------------------------------
-- Progress: written by the engine only
-- ---------------------------------------------------------------------------
CREATE TABLE bcmig.blue_position (
    environment_id integer NOT NULL REFERENCES bcmig.environment ON DELETE CASCADE,
    owner          oid NOT NULL,
    horizon        bigint NOT NULL,
    seen           text,
    dirty          integer[] NOT NULL,
    incarnation    text NOT NULL,
    clock          timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (environment_id, owner)
) WITH (fillfactor = 50);
COMMENT ON TABLE bcmig.blue_position IS 'Where the poller of each blue stood, at most a minute ago: a streaming table that is not in dirty is complete to horizon.';

CREATE TABLE bcmig.sync_state (
    sync_id      integer PRIMARY KEY REFERENCES bcmig.sync ON DELETE CASCADE,
    state        text NOT NULL DEFAULT 'created' CHECK (state IN ('created', 'copying', 'streaming', 'waiting', 'stopped', 'held', 'switching', 'switched', 'rolling_back', 'rolled_back', 'completed', 'failed')),
    since        timestamptz NOT NULL DEFAULT now(),
    last_error   text,
    last_error_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE bcmig.sync_state IS 'State of each sync as the manager last wrote it.';

CREATE TABLE bcmig.table_state (
    table_id      integer PRIMARY KEY REFERENCES bcmig.sync_table ON DELETE CASCADE,
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'copying', 'catching_up', 'streaming', 'suspended', 'resync')),
    reason        text,
    resume_state  text,
    since         timestamptz NOT NULL DEFAULT now(),
    position      bigint,
    seen          text,
    begin_version text,
    witness       jsonb,
    copy_mode     text CHECK (copy_mode IN ('load', 'upsert')),
    frontier      text[],
    all_chunks    boolean NOT NULL DEFAULT false,
    rows_total    bigint,
    rows_copied   bigint NOT NULL DEFAULT 0,
    bytes_copied  bigint NOT NULL DEFAULT 0,
    rows_applied  bigint NOT NULL DEFAULT 0,
    rows_deleted  bigint NOT NULL DEFAULT 0,
    copy_started  timestamptz,
    copy_finished timestamptz,
    swept_at      timestamptz,
    swept_position bigint,
    delete_confirmed boolean NOT NULL DEFAULT false,
    last_error    text,
    last_error_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE bcmig.table_state IS 'State and position of each table; the position commits with the last rows it stands for.';
COMMENT ON COLUMN bcmig.table_state.reason IS 'why the table is suspended or in resync';
COMMENT ON COLUMN bcmig.table_state.resume_state IS 'state a suspended table goes back to';
COMMENT ON COLUMN bcmig.table_state.position IS 'all changes of blue below it are on green (rowversion, change-tracking version, xid8)';
COMMENT ON COLUMN bcmig.table_state.seen IS 'the dialect''s own mark of what at or above position was applied as well (PostgreSQL: the snapshot of the poll); NULL = nothing';
COMMENT ON COLUMN bcmig.table_state.frontier IS 'key up to which copy chunks have been cut';
COMMENT ON COLUMN bcmig.table_state.swept_position IS 'position that covers everything before the last complete sweep or compare began';
COMMENT ON COLUMN bcmig.table_state.witness IS 'last applied key and version, re-read from blue after every restart of blue';

CREATE TABLE bcmig.copy_chunk (
    table_id    integer NOT NULL REFERENCES bcmig.sync_table ON DELETE CASCADE,
    chunk       integer NOT NULL,
    lower_key   text[],
    upper_key   text[],
    done        boolean NOT NULL DEFAULT false,
    rows        bigint,
    bytes       bigint,
    seconds     double precision,
    max_row_bytes bigint,
    finished_at timestamptz,
    PRIMARY KEY (table_id, chunk)
) WITH (fillfactor = 50);
COMMENT ON TABLE bcmig.copy_chunk IS 'Key ranges (lower, upper] of the copy; NULL = open end. A chunk is claimed with SKIP LOCKED and committed with its rows.';

CREATE TABLE bcmig.sync_batch (
    batch_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id       integer NOT NULL,
    table_id      integer NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('copy', 'window', 'sweep', 'compare', 'retry')),
    started_at    timestamptz NOT NULL,
    finished_at   timestamptz,
    status        text NOT NULL CHECK (status IN ('Processing', 'Completed', 'Failed')),
    rows_read     bigint NOT NULL DEFAULT 0,
    rows_written  bigint NOT NULL DEFAULT 0,
    rows_deleted  bigint NOT NULL DEFAULT 0,
    rows_quarantined bigint NOT NULL DEFAULT 0,
    from_position bigint,
    to_position   bigint,
    error         text
);
CREATE INDEX sync_batch_started_at ON bcmig.sync_batch USING brin (started_at);
COMMENT ON TABLE bcmig.sync_batch IS 'What was applied, a row per window, chunk, sweep or compare that changed something; kept for bcmig.sync_batch_retention.';

CREATE TABLE bcmig.quarantine (
    quarantine_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id       integer NOT NULL,
    table_id      integer NOT NULL,
    key           jsonb NOT NULL,
    image         jsonb,
    operation     text NOT NULL CHECK (operation IN ('upsert', 'delete')),
    sqlstate      text NOT NULL,
    message       text NOT NULL,
    attempts      integer NOT NULL DEFAULT 1,
    first_seen    timestamptz NOT NULL DEFAULT now(),
    last_seen     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (table_id, key)
);
COMMENT ON TABLE bcmig.quarantine IS 'Rows green refused: key (values as text, in key order), image, SQLSTATE and message. They stay until bcmig_retry_quarantine succeeds, a newer version of the row is applied, or bcmig_discard_quarantine names them.';

CREATE TABLE bcmig.request (
    request_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id     integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    table_id    integer REFERENCES bcmig.sync_table ON DELETE CASCADE,
    kind        text NOT NULL CHECK (kind IN ('window', 'sweep', 'retry', 'resync')),
    ids         bigint[],
    requested_by text NOT NULL DEFAULT session_user,
    requested_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE bcmig.request IS 'Work a DBA asked for by name; the worker deletes a row in the transaction that did it.';

CREATE TABLE bcmig.audit_log (
    audit_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor     text NOT NULL DEFAULT session_user,
    sync_name text,
    target    text,
    kind      text NOT NULL CHECK (kind IN ('command', 'state', 'error', 'schema')),
    event     text NOT NULL,
    detail    text
);
CREATE INDEX audit_log_at ON bcmig.audit_log (at);
COMMENT ON TABLE bcmig.audit_log IS 'Commands, state changes, errors and schema changes in one order; append only.';

-- ---------------------------------------------------------------------------
-- Engine
-- ---------------------------------------------------------------------------
CREATE VIEW bcmig.effective_option AS
SELECT t.sync_id, t.table_id, o.name,
       CASE WHEN o.kind = 'interval' AND v.value ~ '[a-z]' AND v.value <> 'auto'
            THEN (extract(epoch FROM v.value::interval) * 1000)::bigint::text
            ELSE v.value END AS value,
       CASE WHEN t.options ? o.name THEN 'table'
            WHEN s.options ? o.name THEN 'sync'
            ELSE 'default' END AS source,
       o.unit, o.meaning
  FROM bcmig.sync_table t
  JOIN bcmig.sync s USING (sync_id)
 CROSS JOIN bcmig.option o
 CROSS JOIN LATERAL (SELECT coalesce(t.options ->> o.name, s.options ->> o.name, o.default_value) AS value) v
 WHERE 'table' = ANY (o.scope) OR 'sync' = ANY (o.scope);
COMMENT ON VIEW bcmig.effective_option IS 'Value of every option for every table and where it comes from: table, sync or default. Intervals in ms, sizes in bytes.';

CREATE FUNCTION bcmig.wake() RETURNS void
    AS 'MODULE_PATHNAME', 'bcmig_wake' LANGUAGE C STRICT;
COMMENT ON FUNCTION bcmig.wake() IS 'request: the processes of bcmig look at this database as soon as the transaction commits.';
REVOKE ALL ON FUNCTION bcmig.wake() FROM PUBLIC;

