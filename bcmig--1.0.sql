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
COMMENT ON COLUMN bcmig.option.scope IS 'where it may be set: environment, sync, table, company, switch, rollback, plan; a table''s value overrides its sync''s';
COMMENT ON COLUMN bcmig.option.kind IS 'integer, boolean, interval (ms, or text like 100ms), bytes (or text like 64MB), percent, enum, text, list (array of text)';
COMMENT ON COLUMN bcmig.option.default_value IS 'the value when nobody set one; auto = the engine decides';
COMMENT ON COLUMN bcmig.option.meaning IS 'what it does, in one sentence';

INSERT INTO bcmig.option (name, scope, kind, unit, default_value, min_value, max_value, choices, meaning) VALUES
 ('batch_rows',         '{sync,table}', 'integer',  'rows', '1000',   1, 1000000, NULL, 'Rows applied in one transaction when a window is too big for a single one.'),
 ('max_latency',        '{sync,table}', 'interval', 'ms',   '100ms', 10, 3600000, NULL, 'How far green may be behind before the engine polls faster and the status says lagging.'),
 ('max_answer',         '{sync}',       'interval', 'ms',   'auto',   0, 3600000, '{auto}', 'While blue takes longer than this to answer a poll, what can wait does: copies, sweeps, validations; changes still arrive. 0 = never; auto = 1s, or four times what blue takes at its best. Of several syncs of one blue the smallest holds for all.'),
 ('poll_interval',      '{sync}',       'interval', 'ms',   'auto',   5, 60000,   '{auto}', 'Time between two polls of blue; auto polls fast while blue changes and about once a second while it is idle.'),
 ('workers',            '{sync}',       'integer',  'processes', 'auto', 1, 64,   '{auto}', 'Most workers this sync may borrow from the pool at one time; auto = all of bcmig.max_workers.'),
 ('error_threshold',    '{sync,table}', 'percent',  '%',    '5',      0, 100,     NULL, 'A table is suspended when more than this share of its rows failed within five minutes (of at least 100 rows).'),
 ('max_errors',         '{sync,table}', 'integer',  'rows', '1000',   1, 10000000, NULL, 'A table is suspended when it has this many quarantined rows; a window stops there and is read again when the table is resumed.'),
 ('on_error',           '{sync,table}', 'enum',     NULL,   'quarantine', NULL, NULL, '{quarantine,suspend}', 'A row that green refuses: kept in quarantine while the others go on, or the first one suspends its table before anything later is applied.'),
 ('proof_age',         '{sync}',       'interval', 'ms',   '7d', 60000, 31536000000, NULL, 'An alert is raised when the last validation of the whole sync is older than this.'),
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
 ('leave_out',          '{table}',      'list',     NULL,   'auto', NULL, NULL,   NULL, 'Columns of blue, as blue spells them, that are not copied; auto = none.'),
 ('companions',         '{table}',      'list',     NULL,   'auto', NULL, NULL,   NULL, 'Tables of blue that hold more columns of the same rows (BC''s $ext and per-app companions), joined by their key; auto = none.'),
 ('conflict',           '{sync,table}', 'enum',     NULL,   'source_wins', NULL, NULL, '{source_wins,target_wins,latest_wins,manual,function}', 'Which side keeps a row that was changed on blue and, by an outside write, on green: blue, green, the one with the later $systemModifiedAt, a person, or the row conflict_function returns. From the first switch of writers on the default is manual.'),
 ('conflict_function',  '{table}',      'text',     NULL,   NULL,   NULL, NULL,   NULL, 'Function of the policy function, as in ''bc.merge(bc.item,bc.item,bc.item)'': takes the old row, blue''s and green''s (NULL = none), returns the row to keep.'),
 ('row_filter',         '{table}',      'text',     NULL,   NULL,   NULL, NULL,   NULL, 'SQL expression over the source row, columns as blue spells them: rows for which it is not true are not on green.'),
 ('priority',           '{table}',      'integer',  NULL,   '5',      1, 9,       NULL, 'Order in which tables get workers: 1 first.'),
 ('parallel',           '{sync,table}', 'integer',  'processes', 'auto', 1, 64,   '{auto}', 'Most workers that copy or validate one table at a time, or apply a big window of it; auto = all of the pool copy, two validate, one applies.'),
 ('compression',        '{sync,table}', 'enum',     NULL,   'auto', NULL, NULL,   '{auto,lz4,pglz}', 'How long values are compressed on green; auto = as default_toast_compression says. Of a sync: for tables made from then on; of a table: at once, but what is stored stays as it is until it is written again.'),
 ('enabled',            '{table}',      'boolean',  NULL,   'true', NULL, NULL,   NULL, 'false leaves the table out of copying and streaming; its rows stay.'),
 ('on_schema_change',   '{sync,table}', 'enum',     NULL,   'stop', NULL, NULL,   '{stop,ignore,follow}', 'When columns of a table change on blue: suspend the table, go on without new columns, or change green too (new columns of old rows are read). What cannot be ignored or followed suspends.'),
 ('maintenance',        '{sync}',       'boolean',  NULL,   'false', NULL, NULL,  NULL, 'true leaves blue alone, for the time of an upgrade of Business Central: no statement is sent; afterwards tables are compared with blue and read again where their tracking began anew.'),
 ('naming',             '{company}',    'enum',     NULL,   'snake', NULL, NULL,  '{snake,source}', 'Names on green: snake_case without blanks and app ids, or as blue spells them.'),
 ('indexes',            '{company}',    'enum',     NULL,   'blue', NULL, NULL,   '{blue,al,none}', 'Secondary indexes on green: those blue has, one for every enabled key of the AL table, or none.'),
 ('application_server', '{environment}', 'text',    NULL,   'auto', NULL, NULL,   NULL, 'Foreign server of the application database of a multitenant deployment, which holds the dictionary of objects; auto = the environment''s own server.'),
 ('views',              '{sync,company}', 'boolean', NULL,  'false', NULL, NULL,  NULL, 'A readable view of each table in schema <target schema>_read.'),
 ('grant_select',       '{sync,company}', 'list',   NULL,   NULL,   NULL, NULL,   NULL, 'Roles that may read: USAGE on the schemas, SELECT on the tables and their views.'),
 ('validate_answer',    '{sync}',       'interval', 'ms',   '1s', 1, 3600000, NULL,       'Validation pauses while blue takes longer than this to answer a poll.'),
 ('validate_sessions',  '{sync}',       'integer',  'sessions', 'auto', 1, 100000, '{auto}', 'Validation pauses while more client sessions than this are active on green; auto = no bound.'),
 ('rule_timeout',       '{sync}',       'interval', 'ms',   '60s', 1, 86400000, NULL,      'How long one look at a rule of a validation may take.'),
 ('reverse',            '{sync}',       'boolean',  NULL,   'true', NULL,  NULL,  NULL, 'After writes have moved to green, bring what is written there to blue all the time, so that a rollback has little left to do. false: only a rollback does.'),
 ('maintenance_role',   '{sync}',       'text',     NULL,   NULL,   NULL, NULL,   NULL, 'Role that may write to fenced green tables by hand, as current role (SET ROLE): nobody else may, superusers neither. Not the owner of the sync.'),
 ('traffic_timeout',    '{sync}',       'interval', 'ms',   '5s', 100, 600000, NULL,      'How long a balancer, a health URL or the query of a gate may take to answer when traffic is moved.'),
 ('depends_on',         '{sync}',       'list',     NULL,   NULL,   NULL, NULL,   NULL, 'Syncs that must be in step and proved as well for a weight of this one to be raised, such as that of the shared tables.'),
 ('traffic',            '{sync}',       'enum',     NULL,   'reads', NULL, NULL,  '{reads,reads_and_writes}', 'What moves to green by weight: readers only, or writers too; then there must be a gate keys_disjoint (bcmig_add_gate) that says that both sides give out different numbers.'),
 ('stabilization',      '{switch,plan}',     'interval', 'ms',   '5min', 0, 604800000, NULL,    'How long a weight stands, gates ok, before the next step of a switch; after 100 %, before the switch is done.'),
 ('failed_looks',       '{switch,plan}',     'integer',  'looks', '3', 1, 1000, NULL,         'How many looks at the gates in a row, or attempts at a step, may fail before on_failure.'),
 ('step_timeout',       '{switch,plan}',     'interval', 'ms',   '15min', 1000, 604800000, NULL, 'How long gates may be inconclusive before on_failure.'),
 ('on_failure',         '{switch,plan}',     'enum',     NULL,   'roll_back', NULL, NULL, '{hold,step_back,roll_back}', 'What a switch does when a step fails: stay until a person resumes it, go to the weight before and stay there, or bring everything back to blue.'),
 ('write_pause',        '{switch,plan}',     'interval', 'ms',   '30s', 100, 3600000, NULL,     'Most time writes may be stopped by the step to 100 %; what is not done then is undone.'),
 ('fence_timeout',      '{switch,plan}',     'interval', 'ms',   '15min', 1000, 86400000, NULL, 'How long the step to 100 % waits for a person to fence blue; writes go on meanwhile.'),
 ('replay',             '{rollback}',   'enum',     NULL,   'before', NULL, NULL, '{before,after}', 'When what was written on green is brought to blue: before blue is opened, or after it, which opens blue sooner and makes conflicts of rows that are changed there meanwhile.'),
 ('replay_timeout',     '{rollback}',   'interval', 'ms',   '5min', 1000, 86400000, NULL,  'How long bringing writes to blue may take before the rollback is given up and traffic stays on green (replay before).'),
 ('drain_timeout',      '{rollback}',   'interval', 'ms',   '10s', 0, 3600000, NULL,       'How long who is writing on green may take to end; the fence stays up, and it is tried again.'),
 ('terminate_blockers', '{rollback}',   'boolean',  NULL,   'false', NULL, NULL, NULL,     'true ends the sessions of who is still writing on green after drain_timeout.'),
 ('preserve',           '{rollback}',   'enum',     NULL,   'journal', NULL, NULL, '{journal,tables}', 'What is kept of green as it stood: the journal, or copies of all tables in a schema of their own besides.'),
 ('on_promotion',       '{sync}',       'enum',     NULL,   'hold', NULL, NULL,   '{hold,continue}', 'What a standby does with traffic when it has been promoted: hold it until bcmig_adopt, or go on. A copy or a recovery to a target is always held.'),
 ('auto_rollback',      '{plan}',       'boolean',  NULL,   'false', NULL, NULL,  NULL, 'When a phase fails, take back those of its wave that are done, the last first: traffic to blue, syncs stopped, what the execution made dropped.'),
 ('blue',               '{plan}',       'text',     NULL,   NULL,   NULL, NULL,   NULL, 'Environment from which the standard plan makes the sync; with company.'),
 ('company',            '{plan}',       'text',     NULL,   NULL,   NULL, NULL,   NULL, 'Company, as blue spells it, that the standard plan adds to the sync it makes.'),
 ('target_schema',      '{plan}',       'text',     NULL,   NULL,   NULL, NULL,   NULL, 'Schema of that company''s green tables; none = its name in snake_case.'),
 ('validate_mode',      '{plan}',       'enum',     NULL,   'full', NULL, NULL,   '{count,incremental,full}', 'How the standard plan validates.'),
 ('health_url',         '{environment}', 'text',    NULL,   NULL,   NULL, NULL,   NULL, 'Must answer with a status of 200 to 299 for a weight to be raised; overrides what bcmig_add_environment was given.'),
 ('health_expect',      '{environment}', 'enum',    NULL,   'status', NULL, NULL, '{status,result}', 'What makes a health URL well: a status of 200 to 299, or also a JSON body that says "result": true, as BC''s /Health/System does. A body that says "result": false is ill in either case.'),
 ('health_ca_file',     '{environment}', 'text',    NULL,   NULL,   NULL, NULL,   NULL, 'File on this server with the certificates that are trusted for health_url; without it those of the system.'),
 ('health_probes',      '{environment}', 'integer', 'times', '1',    1, 20,      NULL, 'Most requests to the health URL for one answer.'),
 ('health_required',    '{environment}', 'integer', 'times', '1',    1, 20,      NULL, 'How many of health_probes must be well.'),
 ('health_interval',    '{environment}', 'interval', 'ms',  '1s',   10, 60000,   NULL, 'Time between two requests to the health URL.'),
 ('success_count',      '{environment}', 'integer', 'times', '1',    1, 100,     NULL, 'Answers in a row that must be well for the gate of the health URL to be ok; it is asked that often when a weight is raised.'),
 ('failure_limit',      '{environment}', 'integer', 'times', '1',    1, 100,     NULL, 'Answers in a row that must be ill for the gate of the health URL to fail; with fewer it is inconclusive, which does not let a weight be raised either.'),
 ('fence_by',           '{environment}', 'enum',    NULL,   'confirm', NULL, NULL, '{confirm,call,hook}', 'How outside writes to blue''s tables are refused at the last step of a switch: by a person with bcmig_blue_script(''fence''), by functions of blue/postgres_switch.sql, or by a POST to fence_hook. Whether it is so is then read from blue.'),
 ('fence_hook',         '{environment}', 'text',    NULL,   NULL,   NULL, NULL,   NULL, 'URL that is told to fence and unfence blue, as JSON: sync, environment, action, tables, epoch; a status of 200 to 299 accepts it.'),
 ('bc_login',           '{environment}', 'text',    NULL,   NULL,   NULL, NULL,   NULL, 'Business Central''s own user in the database of blue (role on PostgreSQL): blue is fenced when it has no right to write.'),
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
    company       text,
    al_table      text,
    naming        text CHECK (naming IN ('snake', 'source')),
    tracking_asked boolean NOT NULL DEFAULT false,
    mapping       integer NOT NULL DEFAULT 0,
    options       jsonb NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (target_schema, target_table),
    UNIQUE (sync_id, source_schema, source_table)
);
COMMENT ON TABLE bcmig.sync_table IS 'Tables of a sync. A green table belongs to one sync only.';
COMMENT ON COLUMN bcmig.sync_table.feed IS 'foreign table in schema bcmig with the row shape of the source table: bc_op, bc_rowversion, then its columns';
COMMENT ON COLUMN bcmig.sync_table.capture IS 'how changes are seen, resolved from the option capture when the table was added';
COMMENT ON COLUMN bcmig.sync_table.version_column IS 'blue''s column that holds the row version, where there is one; not among column_map';
COMMENT ON COLUMN bcmig.sync_table.indexes IS 'secondary indexes to build on green: [{"columns":[...],"unique":bool}], as blue spells the columns; unique ones are built deferrable after the first catch-up';
COMMENT ON COLUMN bcmig.sync_table.made_target IS 'bcmig created the green table';
COMMENT ON COLUMN bcmig.sync_table.company IS 'company it was added with, as table Company spells it; NULL = shared, or added by itself';
COMMENT ON COLUMN bcmig.sync_table.al_table IS 'name of the table in Business Central, as blue''s SQL spells it: without company and app; NULL = added by itself';
COMMENT ON COLUMN bcmig.sync_table.tracking_asked IS 'bcmig_blue_script(''tracking'') asked for change tracking of it, which it did not have: the cleanup script takes it away again';
COMMENT ON COLUMN bcmig.sync_table.mapping IS 'counts the changes of transforms and row filter: a worker that knows another number does not write';
COMMENT ON COLUMN bcmig.sync_table.naming IS 'how names on green were made: snake or source';

CREATE TABLE bcmig.companion (
    table_id      integer NOT NULL REFERENCES bcmig.sync_table ON DELETE CASCADE,
    part          integer NOT NULL CHECK (part > 0),
    source_schema text NOT NULL,
    source_table  text NOT NULL,
    version_column text,
    key_columns   text[] NOT NULL,
    PRIMARY KEY (table_id, part)
);
COMMENT ON TABLE bcmig.companion IS 'Tables of blue that hold more columns of a table''s rows: one record is the base row and, where they are there, the companion rows.';
COMMENT ON COLUMN bcmig.companion.part IS 'what column_map.part refers to';
COMMENT ON COLUMN bcmig.companion.key_columns IS 'its key; the base has columns of the same names';

CREATE TABLE bcmig.column_map (
    table_id      integer NOT NULL REFERENCES bcmig.sync_table ON DELETE CASCADE,
    ordinal       integer NOT NULL,
    part          integer NOT NULL DEFAULT 0,
    source_column text NOT NULL,
    source_type   text NOT NULL,
    native_type   text NOT NULL,
    target_column text NOT NULL,
    target_type   text NOT NULL,
    key_position  integer,
    row_identity  boolean NOT NULL DEFAULT false,
    not_null      boolean NOT NULL DEFAULT false,
    default_value text,
    al_type       text,
    type_source   text NOT NULL DEFAULT 'sql' CHECK (type_source IN ('metadata', 'sql')),
    transform     jsonb,
    plain_column  text,
    PRIMARY KEY (table_id, ordinal),
    UNIQUE (table_id, part, source_column),
    UNIQUE (table_id, target_column)
);
COMMENT ON TABLE bcmig.column_map IS 'Columns of each table, in feed order (after bc_op and bc_rowversion).';
COMMENT ON COLUMN bcmig.column_map.part IS '0 = the base table, else the companion';
COMMENT ON COLUMN bcmig.column_map.key_position IS 'place in the key, from 1; NULL = not in the key';
COMMENT ON COLUMN bcmig.column_map.row_identity IS 'the $systemId column: stays the same when the key of a row is renamed';
COMMENT ON COLUMN bcmig.column_map.source_type IS 'type of the feed column';
COMMENT ON COLUMN bcmig.column_map.native_type IS 'type as blue spells it';
COMMENT ON COLUMN bcmig.column_map.not_null IS 'NOT NULL on blue';
COMMENT ON COLUMN bcmig.column_map.default_value IS 'blue''s default where that is a constant';
COMMENT ON COLUMN bcmig.column_map.al_type IS 'AL type of the field: Code, Text, Date, Time, DateTime, Boolean, Option, Enum, Decimal, ...; NULL = not known, or not of Business Central';
COMMENT ON COLUMN bcmig.column_map.type_source IS 'where al_type comes from: metadata = Business Central''s own description of the table, sql = what the SQL type lets one guess';
COMMENT ON COLUMN bcmig.column_map.transform IS 'what bcmig_map_column was given; NULL = the column is copied as it is';
COMMENT ON COLUMN bcmig.column_map.plain_column IS 'target_column before a rename; NULL = it has none';

CREATE TABLE bcmig.enum_value (
    table_id      integer NOT NULL,
    ordinal       integer NOT NULL,
    value         integer NOT NULL,
    name          text NOT NULL,
    PRIMARY KEY (table_id, ordinal, value),
    FOREIGN KEY (table_id, ordinal) REFERENCES bcmig.column_map ON UPDATE CASCADE ON DELETE CASCADE
);
COMMENT ON TABLE bcmig.enum_value IS 'Names of the values of Option and Enum columns, from Business Central''s own description.';
COMMENT ON COLUMN bcmig.enum_value.ordinal IS 'of the column in column_map';
COMMENT ON COLUMN bcmig.enum_value.value IS 'the number that is stored';
COMMENT ON COLUMN bcmig.enum_value.name IS 'its name in AL; may be blank';

CREATE TABLE bcmig.traffic (
    sync_id       integer PRIMARY KEY REFERENCES bcmig.sync ON DELETE CASCADE,
    green_percent numeric NOT NULL DEFAULT 0 CHECK (green_percent BETWEEN 0 AND 100),
    epoch         bigint NOT NULL DEFAULT 0,
    fence         boolean NOT NULL DEFAULT false,
    journal_armed boolean NOT NULL DEFAULT false,
    writes        text NOT NULL DEFAULT 'blue' CHECK (writes IN ('blue', 'green', 'key', 'pause')),
    intent        jsonb,
    held          text,
    switched_at   timestamptz,
    completed_at  timestamptz,
    blue_fence    text,
    blue_fence_at timestamptz,
    blue_fence_asked jsonb,
    updated_at    timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE bcmig.traffic IS 'Who serves a sync and who may write to its green tables; a row from the first start on. Not to be changed by hand: what is written here without bcmig is not noticed by sessions that are open.';
COMMENT ON COLUMN bcmig.traffic.green_percent IS 'share of readers on green; at 100 writers too';
COMMENT ON COLUMN bcmig.traffic.epoch IS 'grows with every change of the weight';
COMMENT ON COLUMN bcmig.traffic.fence IS 'outside writes to the green tables are refused (error BM021)';
COMMENT ON COLUMN bcmig.traffic.journal_armed IS 'outside writes to the green tables are recorded in bcmig.journal';
COMMENT ON COLUMN bcmig.traffic.writes IS 'where bcmig_route sends writers: one side, by key as readers, or pause: nowhere for the moment';
COMMENT ON COLUMN bcmig.traffic.intent IS 'a change that has been begun and is not over: id (traffic_event.event_id of its begin), green_percent, by, kind (change: of readers; final: to 100; rollback: from 100), no_return (it can only be carried through); NULL = none';
COMMENT ON COLUMN bcmig.traffic.held IS 'why bcmig leaves weights and balancers alone until bcmig_resume_traffic; NULL = it does not';
COMMENT ON COLUMN bcmig.traffic.switched_at IS 'when writers last moved to green; stays after a rollback';
COMMENT ON COLUMN bcmig.traffic.completed_at IS 'when bcmig_complete_sync gave up the way back';
COMMENT ON COLUMN bcmig.traffic.blue_fence IS 'outside writes to blue''s tables as last read from blue: open, partly, fenced or unknown, and why; NULL = never read';
COMMENT ON COLUMN bcmig.traffic.blue_fence_at IS 'when that was read, to the minute';
COMMENT ON COLUMN bcmig.traffic.blue_fence_asked IS 'what was asked of blue last: up, at, and the intent it was asked for; NULL = nothing yet';

CREATE TABLE bcmig.incarnation (
    sync_id       integer PRIMARY KEY REFERENCES bcmig.traffic ON DELETE CASCADE,
    system        text NOT NULL,
    database      oid NOT NULL,
    timeline      bigint NOT NULL,
    machine       text NOT NULL,
    directory     text NOT NULL,
    disputed      text,
    nonce         text,
    witness       text NOT NULL DEFAULT 'none' CHECK (witness IN ('none', 'kept', 'behind', 'take', 'absent')),
    witnessed     text,
    witness_error text,
    server_start  timestamptz
);
COMMENT ON TABLE bcmig.incarnation IS 'The green that moves the traffic of a sync: what tells it from a copy, and what its blue was told of it. docs/incarnation.md';
COMMENT ON COLUMN bcmig.incarnation.system IS 'system identifier of the cluster';
COMMENT ON COLUMN bcmig.incarnation.machine IS 'contents of /etc/machine-id; empty = it cannot be read';
COMMENT ON COLUMN bcmig.incarnation.directory IS 'device of the data directory, inodes of it and of PG_VERSION in it';
COMMENT ON COLUMN bcmig.incarnation.disputed IS 'why this database may not be that green: traffic is held until bcmig_adopt; NULL = it is';
COMMENT ON COLUMN bcmig.incarnation.nonce IS 'a random text that goes with the epoch given out last';
COMMENT ON COLUMN bcmig.incarnation.witness IS 'none: blue was told nothing yet; kept: blue has nonce; behind: it is to be told; take: it is to be told whatever it has; absent: it cannot keep one';
COMMENT ON COLUMN bcmig.incarnation.witnessed IS 'the nonce blue is known to have; NULL = none';
COMMENT ON COLUMN bcmig.incarnation.witness_error IS 'why blue has not been told or asked';
COMMENT ON COLUMN bcmig.incarnation.server_start IS 'start of the server that has asked blue and found what it should';

CREATE TABLE bcmig.balancer (
    balancer_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id       integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    name          text NOT NULL CHECK (name <> ''),
    driver        text NOT NULL,
    url           text NOT NULL,
    options       jsonb NOT NULL DEFAULT '{}',
    created_at    timestamptz NOT NULL DEFAULT now(),
    UNIQUE (sync_id, name)
);
COMMENT ON TABLE bcmig.balancer IS 'Load balancers in front of the consumers of a sync. A backend of a balancer belongs to one sync only.';
COMMENT ON COLUMN bcmig.balancer.url IS 'where it takes commands; empty for driver function';
COMMENT ON COLUMN bcmig.balancer.options IS 'of haproxy: backend, and the names of its servers on either side, lists blue and green; of http: server, set and get, requests as templates; of function: set and get, names of SQL functions';

CREATE TABLE bcmig.gate (
    gate_id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id       integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    name          text NOT NULL CHECK (name <> ''),
    query         text NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (sync_id, name)
);
COMMENT ON TABLE bcmig.gate IS 'Gates people have added: a query that must return true for a weight to be raised.';

CREATE TABLE bcmig.plan (
    plan_id       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL UNIQUE CHECK (name <> ''),
    syncs         text[] NOT NULL,
    options       jsonb NOT NULL DEFAULT '{}',
    waves         integer[] NOT NULL,
    owner         regrole NOT NULL,
    by            text NOT NULL DEFAULT session_user,
    created_at    timestamptz NOT NULL DEFAULT now(),
    CHECK (cardinality(waves) = cardinality(syncs))
);
COMMENT ON TABLE bcmig.plan IS 'Migrations as they are planned. An execution works on a copy: what is changed here later does not touch it.';
COMMENT ON COLUMN bcmig.plan.syncs IS 'names of the syncs it is about, one a company; those of a wave are moved together';
COMMENT ON COLUMN bcmig.plan.waves IS 'number of the wave of each of syncs, from 1';
COMMENT ON COLUMN bcmig.plan.owner IS 'the role its phases run as';

CREATE TABLE bcmig.phase (
    plan_id       integer NOT NULL REFERENCES bcmig.plan ON DELETE CASCADE,
    position      integer NOT NULL CHECK (position > 0),
    name          text NOT NULL CHECK (name <> ''),
    type          text NOT NULL CHECK (type IN ('schema', 'data', 'code', 'configuration', 'validation', 'traffic', 'cleanup')),
    action        text NOT NULL,
    arguments     jsonb NOT NULL DEFAULT '{}',
    active        boolean NOT NULL DEFAULT true,
    depends_on    text[] NOT NULL DEFAULT '{}',
    timeout       interval NOT NULL DEFAULT '1 hour' CHECK (timeout > '0'),
    retries       integer NOT NULL DEFAULT 0 CHECK (retries >= 0),
    backoff       interval NOT NULL DEFAULT '5 s' CHECK (backoff >= '0'),
    precondition  text,
    compensation  text,
    approval      text,
    PRIMARY KEY (plan_id, position),
    UNIQUE (plan_id, name)
);
COMMENT ON TABLE bcmig.phase IS 'Phases of a plan, in the order of position.';
COMMENT ON COLUMN bcmig.phase.action IS 'a step of bcmig by its name, or sql: arguments ->> ''statement'' is run by a worker as the owner';
COMMENT ON COLUMN bcmig.phase.depends_on IS 'names of phases that must be done before; those before it by position in any case';
COMMENT ON COLUMN bcmig.phase.backoff IS 'before the first retry, doubled with each';
COMMENT ON COLUMN bcmig.phase.precondition IS 'a query that must return true before the phase begins';
COMMENT ON COLUMN bcmig.phase.compensation IS 'what takes the phase back: none, a step of bcmig by its name, or an SQL statement';
COMMENT ON COLUMN bcmig.phase.approval IS 'role whose members may let it begin (bcmig_approve_phase); NULL = nobody has to';

CREATE TABLE bcmig.baseline_query (
    query_id      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL UNIQUE CHECK (name <> ''),
    blue_query    text NOT NULL,
    green_query   text NOT NULL,
    owner         regrole NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE bcmig.baseline_query IS 'Queries whose answer times a baseline measures: the same question in blue''s SQL and in green''s.';
COMMENT ON COLUMN bcmig.baseline_query.owner IS 'who has registered it: green runs it with his rights';

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
    incarnation_hash bigint NOT NULL,
    clock          timestamptz NOT NULL,
    updated_at     timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (environment_id, owner)
) WITH (fillfactor = 50);
COMMENT ON TABLE bcmig.blue_position IS 'Where the poller of each blue stood, at most a minute ago: a streaming table that is not in dirty is complete to horizon.';

CREATE TABLE bcmig.traffic_request (
    request_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id       integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    green_percent numeric NOT NULL,
    by            text NOT NULL DEFAULT session_user,
    at            timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE bcmig.traffic_request IS 'Weights asked for that no worker has taken yet; the last one of a sync counts.';

CREATE TABLE bcmig.switch (
    switch_id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id       integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    kind          text NOT NULL CHECK (kind IN ('switch', 'rollback')),
    state         text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'done', 'failed', 'cancelled')),
    steps         numeric[],
    step          integer NOT NULL DEFAULT 1,
    options       jsonb NOT NULL,
    reason        text,
    by            text NOT NULL DEFAULT session_user,
    asked_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    phase         text NOT NULL DEFAULT 'asked',
    phase_since   timestamptz NOT NULL DEFAULT clock_timestamp(),
    problem       text,
    reached_at    timestamptz,
    failures      integer NOT NULL DEFAULT 0,
    writes_stopped_at timestamptz,
    write_pause   interval,
    result        jsonb NOT NULL DEFAULT '{}',
    ended_at      timestamptz
);
CREATE UNIQUE INDEX switch_running ON bcmig.switch (sync_id, kind) WHERE state = 'running';
COMMENT ON TABLE bcmig.switch IS 'Each bcmig_switch_traffic and bcmig_rollback: what was asked, where it is, how it ended. Written by the worker that carries it out.';
COMMENT ON COLUMN bcmig.switch.step IS 'the present one of steps, from 1';
COMMENT ON COLUMN bcmig.switch.phase IS 'what is being done, or waited for, within the step';
COMMENT ON COLUMN bcmig.switch.problem IS 'what is in the way; of one that has ended, why it ended so';
COMMENT ON COLUMN bcmig.switch.reached_at IS 'since when the weight of the step stands; NULL = it does not yet';
COMMENT ON COLUMN bcmig.switch.failures IS 'looks at the gates, or attempts, that failed, in a row';
COMMENT ON COLUMN bcmig.switch.write_pause IS 'how long writes were stopped, once they can go on';
COMMENT ON COLUMN bcmig.switch.result IS 'of a rollback: readers_back_at, replayed_keys, conflicts, balancers_missing, preserved_in';
CREATE TABLE bcmig.confirmation (
    confirmation_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id       integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    what          text NOT NULL CHECK (what IN ('fence', 'unfence')),
    note          text NOT NULL CHECK (note <> ''),
    by            text NOT NULL DEFAULT session_user,
    at            timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE bcmig.confirmation IS 'What persons said by bcmig_confirm. It counts where blue cannot tell, and only when it is newer than what was asked for.';

CREATE TABLE bcmig.blue_fence_trial (
    trial_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id       integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    action        text NOT NULL CHECK (action IN ('fence', 'unfence', 'read')),
    by            text NOT NULL DEFAULT session_user,
    at            timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE bcmig.blue_fence_trial IS 'Trials of blue''s fence asked for by bcmig.try_blue_fence that no worker has taken yet; the last one of a sync counts.';

CREATE TABLE bcmig.balancer_state (
    balancer_id   integer PRIMARY KEY REFERENCES bcmig.balancer ON DELETE CASCADE,
    green_percent numeric,
    read_at       timestamptz,
    server_start  timestamptz,
    error         text
);
COMMENT ON TABLE bcmig.balancer_state IS 'What each balancer was last found to do; written when that changes, else once a minute.';
COMMENT ON COLUMN bcmig.balancer_state.green_percent IS 'share of green at read_at; NULL = never read';
COMMENT ON COLUMN bcmig.balancer_state.server_start IS 'start of the server that read it: the first reading after a start must find what is stored';
COMMENT ON COLUMN bcmig.balancer_state.error IS 'why it cannot be read or set; NULL = it can';

CREATE TABLE bcmig.health (
    environment_id integer PRIMARY KEY REFERENCES bcmig.environment ON DELETE CASCADE,
    url           text NOT NULL,
    asked_at      timestamptz NOT NULL,
    counts_until  timestamptz NOT NULL,
    ok            boolean NOT NULL,
    detail        text NOT NULL,
    successes     integer NOT NULL,
    failures      integer NOT NULL
);
COMMENT ON TABLE bcmig.health IS 'What the health URL of each environment last answered; asked whenever a weight is raised.';
COMMENT ON COLUMN bcmig.health.url IS 'the one that answered';
COMMENT ON COLUMN bcmig.health.counts_until IS 'how long gates take this answer';
COMMENT ON COLUMN bcmig.health.successes IS 'answers in a row that were well; a row ends when the URL is another one or nobody has asked for five minutes';
COMMENT ON COLUMN bcmig.health.failures IS 'answers in a row that were ill';

CREATE TABLE bcmig.gate_answer (
    gate_id       integer PRIMARY KEY REFERENCES bcmig.gate ON DELETE CASCADE,
    asked_at      timestamptz NOT NULL,
    counts_until  timestamptz NOT NULL,
    status        text NOT NULL CHECK (status IN ('ok', 'fail', 'inconclusive')),
    value         text NOT NULL,
    detail        text
);
COMMENT ON TABLE bcmig.gate_answer IS 'What the query of each gate last answered; asked whenever a weight is raised.';
COMMENT ON COLUMN bcmig.gate_answer.counts_until IS 'how long gates take this answer';
COMMENT ON COLUMN bcmig.gate_answer.value IS 'true, false, NULL, no row, several rows, or error';

CREATE TABLE bcmig.traffic_event (
    event_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    sync_name     text NOT NULL,
    event         text NOT NULL CHECK (event IN ('begun', 'changed', 'refused', 'undone', 'drift', 'balancer', 'held', 'resumed', 'waiting', 'completed', 'adopted', 'promoted',
                  'switch done', 'switch failed', 'switch cancelled', 'rollback done', 'rollback failed')),
    from_percent  numeric,
    to_percent    numeric,
    epoch         bigint,
    by            text,
    detail        text
);
CREATE INDEX traffic_event_sync ON bcmig.traffic_event (sync_name, event_id);
COMMENT ON TABLE bcmig.traffic_event IS 'What became of each change of a weight, and of balancers that did not do what they were told; stays when the sync goes.';
COMMENT ON COLUMN bcmig.traffic_event.event IS 'begun: gates were ok, balancers are being set; changed: it holds; refused: a gate was not ok; undone: all is as it was before; drift: a balancer had another weight and was set again; balancer: one cannot be reached or can again; held, resumed; waiting: what is undone waits for blue to be opened; switch, rollback: how it ended; completed; adopted: by bcmig_adopt; promoted: it goes on after a failover (on_promotion)';
COMMENT ON COLUMN bcmig.traffic_event.by IS 'who asked for it';

CREATE TABLE bcmig.gate_result (
    event_id      bigint NOT NULL REFERENCES bcmig.traffic_event ON DELETE CASCADE,
    moment        text NOT NULL CHECK (moment IN ('before', 'after')),
    check_name    text NOT NULL,
    status        text NOT NULL CHECK (status IN ('ok', 'fail', 'inconclusive', 'skipped')),
    value         text,
    bound         text,
    detail        text,
    fix           text,
    PRIMARY KEY (event_id, moment, check_name)
);
COMMENT ON TABLE bcmig.gate_result IS 'What the gates said each time a weight was to be raised.';
COMMENT ON COLUMN bcmig.gate_result.moment IS 'before or after the balancers were set';

CREATE TABLE bcmig.execution (
    execution_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan_name     text NOT NULL,
    owner         regrole NOT NULL,
    syncs         text[] NOT NULL,
    options       jsonb NOT NULL,
    kind          text NOT NULL DEFAULT 'execution' CHECK (kind IN ('execution', 'rehearsal')),
    state         text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'compensating', 'done', 'failed', 'cancelled', 'rolled_back')),
    wanted        text NOT NULL DEFAULT 'run' CHECK (wanted IN ('run', 'pause', 'cancel')),
    by            text NOT NULL DEFAULT session_user,
    started_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at      timestamptz,
    heartbeat_at  timestamptz,
    pid           integer,
    error         text,
    green         text[]
);
COMMENT ON TABLE bcmig.execution IS 'Executions and rehearsals of plans; they stay when the plan goes.';
COMMENT ON COLUMN bcmig.execution.wanted IS 'what a person wants: go on, pause before the next phase, or stop';
COMMENT ON COLUMN bcmig.execution.heartbeat_at IS 'when its runner last said that it is alive';
COMMENT ON COLUMN bcmig.execution.green IS 'the database it was begun in: system identifier, database, timeline, machine, data directory. In another one it is paused until bcmig_resume_execution.';

CREATE TABLE bcmig.execution_request (
    request_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    execution_id  bigint NOT NULL REFERENCES bcmig.execution ON DELETE CASCADE,
    kind          text NOT NULL CHECK (kind IN ('approve', 'skip', 'pause', 'resume', 'cancel')),
    phase         text,
    reason        text,
    by            text NOT NULL DEFAULT session_user,
    at            timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX execution_request_execution ON bcmig.execution_request (execution_id);
COMMENT ON TABLE bcmig.execution_request IS 'What persons want of executions and their runner has not taken yet.';

CREATE TABLE bcmig.phase_run (
    execution_id  bigint NOT NULL REFERENCES bcmig.execution ON DELETE CASCADE,
    position      integer NOT NULL,
    sync          text NOT NULL DEFAULT '',
    wave          integer NOT NULL DEFAULT 1,
    name          text NOT NULL,
    type          text NOT NULL,
    action        text NOT NULL,
    arguments     jsonb NOT NULL,
    depends_on    text[] NOT NULL,
    timeout       interval NOT NULL,
    retries       integer NOT NULL,
    backoff       interval NOT NULL,
    precondition  text,
    compensation  text,
    approval      text,
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'waiting', 'running', 'done', 'failed', 'skipped', 'compensating', 'compensated', 'not_compensated')),
    attempt       integer NOT NULL DEFAULT 0,
    begun         boolean NOT NULL DEFAULT false,
    not_before    timestamptz,
    started_at    timestamptz,
    ended_at      timestamptz,
    percent       numeric,
    sqlstate      text,
    error         text,
    note          text,
    approved_by   text,
    result        jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (execution_id, wave, sync, position)
);
COMMENT ON TABLE bcmig.phase_run IS 'Each phase of an execution, as it was planned when that began, and what became of it: committed with its own effect.';
COMMENT ON COLUMN bcmig.phase_run.sync IS 'the sync it is about; empty = all of the plan';
COMMENT ON COLUMN bcmig.phase_run.state IS 'waiting: for its approval or precondition; compensated: taken back; not_compensated: there is nothing that takes it back, or that failed';
COMMENT ON COLUMN bcmig.phase_run.begun IS 'its action has been asked for, committed with that: it is not asked for again, only looked at';
COMMENT ON COLUMN bcmig.phase_run.percent IS 'how much of a running phase is done, by measured work; NULL = not known';
COMMENT ON COLUMN bcmig.phase_run.note IS 'why it was skipped, by whom approved, what else there is to know';
COMMENT ON COLUMN bcmig.phase_run.result IS 'figures for the reports: rows, bytes, run_id of a validation, switch_id of a switch, ...';

CREATE TABLE bcmig.baseline (
    baseline_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    environment   text NOT NULL,
    side          text NOT NULL CHECK (side IN ('blue', 'green')),
    taken_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    by            text NOT NULL DEFAULT session_user
);
COMMENT ON TABLE bcmig.baseline IS 'Each bcmig_baseline: what a side was like at that time; stays when the environment goes.';

CREATE TABLE bcmig.baseline_table (
    baseline_id   bigint NOT NULL REFERENCES bcmig.baseline ON DELETE CASCADE,
    target        text NOT NULL,
    source        text NOT NULL,
    rows          bigint,
    bytes         bigint,
    columns       integer,
    indexes       integer,
    PRIMARY KEY (baseline_id, target)
);
COMMENT ON TABLE bcmig.baseline_table IS 'The tables of the syncs of a baseline''s side. NULL: the table was not there.';
COMMENT ON COLUMN bcmig.baseline_table.rows IS 'as the statistics of that side have it';
COMMENT ON COLUMN bcmig.baseline_table.bytes IS 'with indexes; of blue with companions';
COMMENT ON COLUMN bcmig.baseline_table.indexes IS 'beside the key';

CREATE TABLE bcmig.baseline_time (
    baseline_id   bigint NOT NULL REFERENCES bcmig.baseline ON DELETE CASCADE,
    name          text NOT NULL,
    ms            double precision,
    fastest_ms    double precision,
    slowest_ms    double precision,
    rows          bigint,
    error         text,
    PRIMARY KEY (baseline_id, name)
);
COMMENT ON TABLE bcmig.baseline_time IS 'How long the queries of bcmig.baseline_query took, by name, until their last row was there.';
COMMENT ON COLUMN bcmig.baseline_time.ms IS 'the median of five runs in a row; NULL = it failed';
COMMENT ON COLUMN bcmig.baseline_time.rows IS 'of the answer, of at most 100,000';

CREATE TABLE bcmig.sync_state (
    sync_id      integer PRIMARY KEY REFERENCES bcmig.sync ON DELETE CASCADE,
    state        text NOT NULL DEFAULT 'created' CHECK (state IN ('created', 'copying', 'streaming', 'waiting', 'stopped', 'held', 'switching', 'switched', 'rolling_back', 'rolled_back', 'completed', 'failed')),
    since        timestamptz NOT NULL DEFAULT now(),
    last_error   text,
    last_error_at timestamptz,
    views_made   text,
    schema_mark  bigint
) WITH (fillfactor = 50);
COMMENT ON TABLE bcmig.sync_state IS 'State of each sync as the manager last wrote it.';
COMMENT ON COLUMN bcmig.sync_state.schema_mark IS 'mark of blue''s schema when it was last compared with column_map';
COMMENT ON COLUMN bcmig.sync_state.views_made IS 'what the readable views and grants there are were made for: options views and grant_select, tables, columns; making ... while they are made; NULL = a mapping has changed since, or none are wanted';

CREATE TABLE bcmig.table_state (
    table_id      integer PRIMARY KEY REFERENCES bcmig.sync_table ON DELETE CASCADE,
    state         text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'copying', 'catching_up', 'streaming', 'suspended', 'resync')),
    reason        text,
    resume_state  text,
    since         timestamptz NOT NULL DEFAULT now(),
    made          boolean NOT NULL DEFAULT false,
    position      bigint,
    seen          text,
    incarnation   bigint,
    reread_from   bigint,
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
    analyze_due   boolean NOT NULL DEFAULT false,
    swept_at      timestamptz,
    swept_position bigint,
    delete_asked  boolean NOT NULL DEFAULT false,
    delete_confirmed boolean NOT NULL DEFAULT false,
    last_error    text,
    last_error_at timestamptz
) WITH (fillfactor = 50);
COMMENT ON TABLE bcmig.table_state IS 'State and position of each table; the position commits with the last rows it stands for.';
COMMENT ON COLUMN bcmig.table_state.reason IS 'why the table is suspended or in resync';
COMMENT ON COLUMN bcmig.table_state.resume_state IS 'state a suspended table goes back to';
COMMENT ON COLUMN bcmig.table_state.made IS 'green table and feed are there; the tables of a company are made once the sync runs';
COMMENT ON COLUMN bcmig.table_state.incarnation IS 'hash of the incarnation of blue that position holds for; the poller''s, once it has looked at a blue that restarted';
COMMENT ON COLUMN bcmig.table_state.reread_from IS 'the next windows read from there on, though position is above: a blue that restarted may have given out positions above it once more';
COMMENT ON COLUMN bcmig.table_state.position IS 'all changes of blue below it are on green (rowversion, change-tracking version, xid8)';
COMMENT ON COLUMN bcmig.table_state.seen IS 'the dialect''s own mark of what at or above position was applied as well (PostgreSQL: the snapshot of the poll); NULL = nothing';
COMMENT ON COLUMN bcmig.table_state.copy_finished IS 'when rows and key were there; sweep and catch-up follow';
COMMENT ON COLUMN bcmig.table_state.analyze_due IS 'copied, and ANALYZE waits until no table of the sync waits for its copy';
COMMENT ON COLUMN bcmig.table_state.frontier IS 'key up to which copy chunks have been cut';
COMMENT ON COLUMN bcmig.table_state.swept_position IS 'position that covers everything before the last complete sweep or compare began';
COMMENT ON COLUMN bcmig.table_state.witness IS 'transactions, keys and versions applied last, looked for on blue after every restart of blue';

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
    kind          text NOT NULL CHECK (kind IN ('copy', 'window', 'sweep', 'compare', 'retry', 'repair', 'resolve', 'reverse')),
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

CREATE TABLE bcmig.metric (
    sync_id          integer NOT NULL,
    minute           timestamptz NOT NULL,
    seconds          double precision NOT NULL,
    samples          integer NOT NULL,
    unknown          integer NOT NULL,
    copying          integer NOT NULL,
    lag_avg_ms       double precision,
    lag_p95_ms       double precision,
    lag_max_ms       double precision,
    lag_buckets      integer[],
    rows_written     bigint NOT NULL,
    rows_deleted     bigint NOT NULL,
    rows_failed      bigint NOT NULL,
    bytes_copied     bigint NOT NULL,
    errors           bigint NOT NULL,
    workers          double precision NOT NULL,
    blue_answer_ms   double precision,
    throttled_percent double precision,
    tables           bigint NOT NULL,
    tables_streaming bigint NOT NULL,
    quarantined      bigint NOT NULL,
    conflicts        bigint NOT NULL,
    PRIMARY KEY (sync_id, minute)
);
CREATE INDEX metric_minute ON bcmig.metric (minute);
COMMENT ON TABLE bcmig.metric IS 'A row a minute per running sync, kept for bcmig.metric_retention. Not a foreign key of sync: the manager must not wait for an open transaction of a person.';
COMMENT ON COLUMN bcmig.metric.minute IS 'when the time the row stands for began: a whole minute (bcmig.metric_interval), but for the first row after a start';
COMMENT ON COLUMN bcmig.metric.seconds IS 'how long that time was';
COMMENT ON COLUMN bcmig.metric.samples IS 'times the lag was looked at and known; it is looked at 300 times in a row, at equal distances';
COMMENT ON COLUMN bcmig.metric.unknown IS 'times it was unknown: blue does not answer, a table is suspended or not proved yet';
COMMENT ON COLUMN bcmig.metric.copying IS 'times it was unknown because tables are read for the first time or again';
COMMENT ON COLUMN bcmig.metric.lag_avg_ms IS 'how old synced_through was, on average; NULL = never known';
COMMENT ON COLUMN bcmig.metric.lag_p95_ms IS 'not exceeded by 95 of 100 samples';
COMMENT ON COLUMN bcmig.metric.lag_buckets IS 'samples below 1 ms, below 2^(1/4) ms, below 2^(2/4) ms, ...: what a percentile of many rows is made from';
COMMENT ON COLUMN bcmig.metric.rows_written IS 'rows inserted and updated by windows, copies, sweeps, retries and repairs that committed';
COMMENT ON COLUMN bcmig.metric.rows_failed IS 'rows green refused (quarantine), each time a new version of a row failed; retries that change nothing do not count';
COMMENT ON COLUMN bcmig.metric.bytes_copied IS 'of copy chunks; bytes of windows are not known';
COMMENT ON COLUMN bcmig.metric.errors IS 'jobs that failed';
COMMENT ON COLUMN bcmig.metric.workers IS 'workers at work for this sync, on average';
COMMENT ON COLUMN bcmig.metric.blue_answer_ms IS 'how long blue took to answer a poll, on average; NULL = it did not';
COMMENT ON COLUMN bcmig.metric.throttled_percent IS 'how much of the time copies, sweeps and validations had to wait because blue answered slowly (option max_answer)';
COMMENT ON COLUMN bcmig.metric.quarantined IS 'rows in quarantine when the row was written';
COMMENT ON COLUMN bcmig.metric.conflicts IS 'open conflicts when the row was written';

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

CREATE TABLE bcmig.journal (
    journal_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id       integer NOT NULL,
    table_id      integer NOT NULL,
    operation     text NOT NULL CHECK (operation IN ('insert', 'update', 'delete')),
    old_key       jsonb,
    new_key       jsonb,
    old_image     jsonb,
    new_image     jsonb,
    xid           xid8 NOT NULL DEFAULT pg_current_xact_id(),
    base_version  bigint,
    actor         text NOT NULL DEFAULT session_user,
    at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at    timestamptz,
    settled_as    text,
    produced_version bigint
);
-- by hash: a key may be too long for an index; a key that stays the same is found by the first
CREATE INDEX journal_unsettled_new ON bcmig.journal (table_id, jsonb_hash(new_key)) WHERE settled_at IS NULL;
CREATE INDEX journal_produced ON bcmig.journal (table_id, jsonb_hash(new_key)) WHERE produced_version IS NOT NULL;
CREATE INDEX journal_unsettled_old ON bcmig.journal (table_id, jsonb_hash(old_key)) WHERE settled_at IS NULL AND old_key IS DISTINCT FROM new_key;
COMMENT ON TABLE bcmig.journal IS 'Outside writes accepted on green: what a rollback must bring back to blue.';
COMMENT ON COLUMN bcmig.journal.old_key IS 'key before the write (values as text, in key order), NULL for an insert';
COMMENT ON COLUMN bcmig.journal.new_key IS 'key after the write, NULL for a delete';
COMMENT ON COLUMN bcmig.journal.base_version IS 'version of blue''s row the write was based on; NULL = not known';
COMMENT ON COLUMN bcmig.journal.settled_as IS 'why it need not be brought to blue any more: replayed (it was), overwritten (a conflict blue has won), equal (blue has the same row), ...';
COMMENT ON COLUMN bcmig.journal.produced_version IS 'version blue''s row had when it was made the same as green''s; a window that reads it back reads an echo. NULL = not known, or there is no row';

CREATE TABLE bcmig.reverse_state (
    sync_id       integer PRIMARY KEY REFERENCES bcmig.sync ON DELETE CASCADE,
    replayed      bigint NOT NULL DEFAULT 0,
    replayed_at   timestamptz,
    problem       text,
    failures      integer NOT NULL DEFAULT 0,
    failing_since timestamptz,
    not_before    timestamptz
);
CREATE TABLE bcmig.reverse_sent (
    table_id      integer PRIMARY KEY REFERENCES bcmig.sync_table ON DELETE CASCADE,
    sent_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE bcmig.reverse_sent IS 'Tables of which a batch has been sent to blue, and it is not known yet whether blue has it.';
COMMENT ON TABLE bcmig.reverse_state IS 'What came of bringing the writes of green to blue while they are on green (option reverse), a line a sync.';
COMMENT ON COLUMN bcmig.reverse_state.replayed IS 'rows written to blue so far';
COMMENT ON COLUMN bcmig.reverse_state.problem IS 'why it did not work the last time, of rows blue refuses the first; NULL = it did';
COMMENT ON COLUMN bcmig.reverse_state.failures IS 'in a row';
COMMENT ON COLUMN bcmig.reverse_state.not_before IS 'after a failure it is left alone until then';

CREATE TABLE bcmig.conflict (
    conflict_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id       integer NOT NULL,
    table_id      integer NOT NULL,
    key           jsonb NOT NULL,
    blue_operation text NOT NULL CHECK (blue_operation IN ('insert', 'update', 'delete')),
    green_operation text NOT NULL CHECK (green_operation IN ('insert', 'update', 'delete')),
    old           jsonb,
    blue          jsonb,
    green         jsonb,
    policy        text NOT NULL,
    decision      text CHECK (decision IN ('source', 'target', 'row')),
    blue_version  bigint,
    journal_ids   bigint[] NOT NULL,
    detail        text,
    found_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    decided_at    timestamptz,
    decided_by    text
);
CREATE INDEX conflict_key ON bcmig.conflict (table_id, jsonb_hash(key));
CREATE INDEX conflict_open ON bcmig.conflict (table_id) WHERE decision IS NULL;
COMMENT ON TABLE bcmig.conflict IS 'Rows changed on blue and by an outside write on green: every one with both images and what became of it. Those that wait hold back their key only.';
COMMENT ON COLUMN bcmig.conflict.key IS 'key values as text, in key order';
COMMENT ON COLUMN bcmig.conflict.blue_operation IS 'what blue did, seen from the row both sides had';
COMMENT ON COLUMN bcmig.conflict.green_operation IS 'what the outside writes together did, seen from the row both sides had; delete also when green inserted the row and deleted it again';
COMMENT ON COLUMN bcmig.conflict.old IS 'the row both sides had; NULL = none';
COMMENT ON COLUMN bcmig.conflict.blue IS 'blue''s row as green would hold it, of a waiting conflict the last one seen; NULL = deleted';
COMMENT ON COLUMN bcmig.conflict.green IS 'green''s row; NULL = deleted';
COMMENT ON COLUMN bcmig.conflict.decision IS 'NULL = waits for bcmig_resolve_conflict; source: blue''s row was written, the journal entries are settled; target: green''s row stays, its journal entries too; row: the row of conflict_function was written, the journal entries stay';
COMMENT ON COLUMN bcmig.conflict.detail IS 'why a policy did not decide, or what else there is to know';
COMMENT ON COLUMN bcmig.conflict.decided_by IS 'who asked for it; NULL = the policy, or both sides came to agree';

CREATE TABLE bcmig.request (
    request_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id     integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    table_id    integer REFERENCES bcmig.sync_table ON DELETE CASCADE,
    kind        text NOT NULL CHECK (kind IN ('window', 'sweep', 'retry', 'resync', 'repair', 'resolve')),
    ids         bigint[],
    requested_by text NOT NULL DEFAULT session_user,
    requested_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE bcmig.request IS 'Work a DBA asked for by name; the worker deletes a row in the transaction that did it.';

CREATE TABLE bcmig.schema_change (
    change_id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id      integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    table_id     integer REFERENCES bcmig.sync_table ON DELETE CASCADE,
    kind         text NOT NULL CHECK (kind IN ('table gone', 'companion gone', 'column added', 'column dropped', 'column altered', 'key changed', 'table added', 'companion added', 'company added')),
    object       text NOT NULL,
    before       text,
    after        text,
    action       text NOT NULL CHECK (action IN ('stopped', 'ignored', 'followed', 'noticed')),
    detail       text NOT NULL,
    fix          text,
    seen_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at   timestamptz
);
CREATE INDEX schema_change_sync ON bcmig.schema_change (sync_id, table_id);
COMMENT ON TABLE bcmig.schema_change IS 'Changes of blue''s tables and columns, and what was done about them (option on_schema_change).';
COMMENT ON COLUMN bcmig.schema_change.object IS 'table or column of blue, or company';
COMMENT ON COLUMN bcmig.schema_change.before IS 'type or place in the key';
COMMENT ON COLUMN bcmig.schema_change.action IS 'stopped: the table is suspended until resumed; ignored: the column is not copied; followed: green was changed and the table is read again; noticed: nothing to do for the tables there are';
COMMENT ON COLUMN bcmig.schema_change.fix IS 'statement to run';
COMMENT ON COLUMN bcmig.schema_change.settled_at IS 'NULL = still waits for a person';

CREATE TABLE bcmig.audit_log (
    audit_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor     text NOT NULL DEFAULT session_user,
    sync_name text,
    target    text,
    kind      text NOT NULL CHECK (kind IN ('command', 'state', 'error', 'schema', 'validation', 'alert', 'conflict', 'traffic', 'throttle')),
    event     text NOT NULL,
    detail    text
);
CREATE INDEX audit_log_at ON bcmig.audit_log (at);
COMMENT ON TABLE bcmig.audit_log IS 'Commands, state changes, errors, schema changes, validations and alerts in one order; append only, never pruned, chained by hashes (docs/audit.md).';
COMMENT ON COLUMN bcmig.audit_log.actor IS 'user of the session; of what the engine did by itself: the owner of the sync, or of the cluster';
COMMENT ON COLUMN bcmig.audit_log.kind IS 'command: somebody called bcmig; state: a sync or table is in another state; error: a job failed; schema: blue''s tables changed; validation: a verdict; alert: raised or cleared; traffic: as in traffic_event; throttle: blue answers slowly, copies, sweeps and validations wait';
COMMENT ON COLUMN bcmig.audit_log.event IS 'function that was called, state entered, ...';
COMMENT ON COLUMN bcmig.audit_log.detail IS 'arguments of a command, reason of a state, message of an error';

CREATE TABLE bcmig.audit_pending (
    audit_id  bigint PRIMARY KEY
);
COMMENT ON TABLE bcmig.audit_pending IS 'Rows of the audit log that have no place in its chain yet; the manager takes them out.';

CREATE TABLE bcmig.audit_chain (
    seq       bigint PRIMARY KEY,
    audit_id  bigint NOT NULL UNIQUE,
    hash      bytea NOT NULL
);
COMMENT ON TABLE bcmig.audit_chain IS 'Place and hash of each row of the audit log, in the order in which they were committed (docs/audit.md).';
COMMENT ON COLUMN bcmig.audit_chain.hash IS 'SHA-256 of the hash before it and the row';

CREATE TABLE bcmig.audit_head (
    one       boolean PRIMARY KEY DEFAULT true CHECK (one),
    rows      bigint NOT NULL,
    hash      bytea NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE bcmig.audit_head IS 'How long the chain is, and its last hash: what was cut off its end is missed.';

CREATE TABLE bcmig.alert_log (
    alert_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name       text NOT NULL,
    sync_name  text,
    target     text,
    severity   text NOT NULL CHECK (severity IN ('warning', 'critical')),
    raised_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    cleared_at timestamptz,
    value      text,
    bound      text,
    detail     text,
    fix        text,
    looks      integer NOT NULL
);
CREATE UNIQUE INDEX alert_log_open ON bcmig.alert_log (name, coalesce(sync_name, ''), coalesce(target, '')) WHERE cleared_at IS NULL;
COMMENT ON TABLE bcmig.alert_log IS 'Alerts the manager has raised; view bcmig.alert. Cleared ones are kept for bcmig.sync_batch_retention, the audit log keeps them all.';
COMMENT ON COLUMN bcmig.alert_log.value IS 'what it was when the alert was raised';
COMMENT ON COLUMN bcmig.alert_log.fix IS 'statement to run';
COMMENT ON COLUMN bcmig.alert_log.looks IS 'looks in a row, two naps of the manager apart, that raise it and that clear it';

-- ---------------------------------------------------------------------------
-- Proof: what validation knows and found
-- ---------------------------------------------------------------------------
CREATE TABLE bcmig.chunking (
    table_id   integer PRIMARY KEY REFERENCES bcmig.sync_table ON DELETE CASCADE,
    generation integer NOT NULL,
    method     text NOT NULL CHECK (method IN ('range', 'buckets')),
    size       bigint NOT NULL CHECK (size > 0),
    proved_at  timestamptz
);
COMMENT ON TABLE bcmig.chunking IS 'How each table is cut into chunks for validation.';
COMMENT ON COLUMN bcmig.chunking.generation IS 'marks of another generation mean nothing: the table is validated in full';
COMMENT ON COLUMN bcmig.chunking.method IS 'range: the first key column, an integer, divided by size; buckets: size of them, by the hash of the key (of the row, where there is no key)';
COMMENT ON COLUMN bcmig.chunking.proved_at IS 'when every chunk had been compared with blue; from then on only marked ones need be; NULL = not yet, or copied anew';

CREATE TABLE bcmig.dirty_chunk (
    table_id   integer NOT NULL REFERENCES bcmig.sync_table ON DELETE CASCADE,
    generation integer NOT NULL,
    chunk      bigint NOT NULL,
    xid        xid8 NOT NULL DEFAULT pg_current_xact_id()
);
CREATE INDEX dirty_chunk_table ON bcmig.dirty_chunk (table_id);
COMMENT ON COLUMN bcmig.dirty_chunk.xid IS 'transaction that wrote: a mark goes only when the comparison began after that had committed';
COMMENT ON TABLE bcmig.dirty_chunk IS 'Chunks written to since they were compared, appended by the transaction that wrote; an incremental validation compares these and takes the marks away.';

CREATE TABLE bcmig.validation_run (
    run_id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id      integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    table_id     integer,
    mode         text NOT NULL CHECK (mode IN ('count', 'incremental', 'full')),
    state        text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'finished', 'cancelled')),
    verdict      text CHECK (verdict IN ('ok', 'different', 'inconclusive')),
    requested_by text NOT NULL DEFAULT session_user,
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at  timestamptz,
    failures     integer NOT NULL DEFAULT 0,
    detail       text
);
CREATE INDEX validation_run_sync ON bcmig.validation_run (sync_id, run_id);
COMMENT ON TABLE bcmig.validation_run IS 'Validations asked for by bcmig_validate: all tables of a sync, or one.';
COMMENT ON COLUMN bcmig.validation_run.table_id IS 'NULL = all tables, rules and sequences';
COMMENT ON COLUMN bcmig.validation_run.failures IS 'attempts to look at its rules and sequences that failed as a whole';
COMMENT ON COLUMN bcmig.validation_run.detail IS 'the error of the last such attempt';
COMMENT ON COLUMN bcmig.validation_run.verdict IS 'the worst of its parts (bcmig.validation_verdict): ok, inconclusive (could not be compared), different';

CREATE TABLE bcmig.validation_result (
    run_id       bigint NOT NULL REFERENCES bcmig.validation_run ON DELETE CASCADE,
    table_id     integer NOT NULL REFERENCES bcmig.sync_table ON DELETE CASCADE,
    done         boolean NOT NULL DEFAULT false,
    mode         text,
    pushdown     boolean,
    chunks       bigint NOT NULL DEFAULT 0,
    differing    bigint NOT NULL DEFAULT 0,
    rows_blue    bigint NOT NULL DEFAULT 0,
    rows_green   bigint NOT NULL DEFAULT 0,
    in_flight    bigint NOT NULL DEFAULT 0,
    differences  bigint NOT NULL DEFAULT 0,
    verdict      text CHECK (verdict IN ('ok', 'different', 'inconclusive')),
    detail       text,
    failures     integer NOT NULL DEFAULT 0,
    started_at   timestamptz,
    finished_at  timestamptz,
    seconds      double precision NOT NULL DEFAULT 0,
    lanes_blue   numeric[],
    lanes_green  numeric[],
    PRIMARY KEY (run_id, table_id)
) WITH (fillfactor = 50);
CREATE INDEX validation_result_table ON bcmig.validation_result (table_id) WHERE NOT done;
COMMENT ON TABLE bcmig.validation_result IS 'Each table of each run: how far it is, what was found. Progress commits with every group of chunks, so a crash repeats one group.';
COMMENT ON COLUMN bcmig.validation_result.mode IS 'what was done: an incremental run compares in full what was never proved';
COMMENT ON COLUMN bcmig.validation_result.pushdown IS 'blue hashed its own rows; false = rows were pulled, because blue hashes a type of this table differently';
COMMENT ON COLUMN bcmig.validation_result.differing IS 'chunks with rows that differ';
COMMENT ON COLUMN bcmig.validation_result.in_flight IS 'rows that differed only because a change was on its way';
COMMENT ON COLUMN bcmig.validation_result.differences IS 'rows that differ, also those too many to be listed';
COMMENT ON COLUMN bcmig.validation_result.lanes_blue IS 'of a table compared in full: the sums of the four lanes of blue''s row hashes, as they were compared, from which bcmig.table_root is made; NULL = not in full, or rows were on their way all the time, so that there is no moment whose sums both sides have';
COMMENT ON COLUMN bcmig.validation_result.lanes_green IS 'the same of green''s rows';
COMMENT ON COLUMN bcmig.validation_result.seconds IS 'of comparing, of all workers together, without pauses';

CREATE TABLE bcmig.validation_part (
    run_id       bigint NOT NULL,
    table_id     integer NOT NULL,
    part         integer NOT NULL,
    first_chunk  bigint NOT NULL,
    next_chunk   bigint NOT NULL,
    last_chunk   bigint NOT NULL,
    todo         bigint[],
    done         boolean NOT NULL DEFAULT false,
    PRIMARY KEY (run_id, table_id, part),
    FOREIGN KEY (run_id, table_id) REFERENCES bcmig.validation_result ON DELETE CASCADE
) WITH (fillfactor = 50);
COMMENT ON TABLE bcmig.validation_part IS 'Parts of a table under validation, each compared by one worker at a time; how far each is.';
COMMENT ON COLUMN bcmig.validation_part.todo IS 'chunks to compare, ascending; NULL = all from next_chunk to last_chunk';

CREATE TABLE bcmig.validation_difference (
    difference_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run_id       bigint NOT NULL REFERENCES bcmig.validation_run ON DELETE CASCADE,
    table_id     integer NOT NULL REFERENCES bcmig.sync_table ON DELETE CASCADE,
    chunk        bigint NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('missing', 'extra', 'different')),
    key          jsonb,
    columns      text[],
    blue         jsonb,
    green        jsonb,
    found_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    repaired_at  timestamptz,
    repair_error text
);
CREATE INDEX validation_difference_run ON bcmig.validation_difference (run_id, table_id);
COMMENT ON TABLE bcmig.validation_difference IS 'Rows that differ: missing on green, extra on green, or different, with both images.';
COMMENT ON COLUMN bcmig.validation_difference.key IS 'key values as text, in key order; NULL where the table has no key';
COMMENT ON COLUMN bcmig.validation_difference.columns IS 'target columns that differ';

CREATE TABLE bcmig.hash_probe (
    environment_id integer NOT NULL REFERENCES bcmig.environment ON DELETE CASCADE,
    type_class   text NOT NULL,
    agrees       boolean NOT NULL,
    detail       text,
    probed_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (environment_id, type_class)
);
COMMENT ON TABLE bcmig.hash_probe IS 'Does blue hash values of a type as green does? Tables with a type where it does not are pulled.';
COMMENT ON COLUMN bcmig.hash_probe.detail IS 'the test value, and what each side made of it';

CREATE TABLE bcmig.rule (
    rule_id      integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sync_id      integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    table_id     integer REFERENCES bcmig.sync_table ON DELETE CASCADE,
    name         text NOT NULL CHECK (name <> ''),
    kind         text NOT NULL CHECK (kind IN ('reference', 'business', 'calculated')),
    severity     text NOT NULL CHECK (severity IN ('hard', 'soft')),
    query        text NOT NULL,
    blue_query   text,
    company      text,
    shipped      boolean NOT NULL DEFAULT false,
    removed      boolean NOT NULL DEFAULT false,
    created_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (sync_id, name)
);
COMMENT ON TABLE bcmig.rule IS 'Rules a validation asserts: a query that returns the rows that break it.';
COMMENT ON COLUMN bcmig.rule.table_id IS 'table whose verdict it counts for: of rules people add the first of the sync''s tables in its query; NULL = none, it counts for the run';
COMMENT ON COLUMN bcmig.rule.blue_query IS 'of calculated fields: the same computed by blue, whose rows green''s must equal';
COMMENT ON COLUMN bcmig.rule.company IS 'of shipped rules';
COMMENT ON COLUMN bcmig.rule.shipped IS 'one of Business Central''s, made by a validation for each company where its tables and columns are there';
COMMENT ON COLUMN bcmig.rule.removed IS 'a shipped rule taken away by bcmig_remove_rule: it is not made again';

CREATE TABLE bcmig.rule_result (
    run_id       bigint NOT NULL REFERENCES bcmig.validation_run ON DELETE CASCADE,
    rule_id      integer NOT NULL REFERENCES bcmig.rule ON DELETE CASCADE,
    verdict      text NOT NULL CHECK (verdict IN ('ok', 'fails', 'fails on blue', 'inconclusive', 'error')),
    failing      bigint NOT NULL DEFAULT 0,
    examples     jsonb,
    looks        integer NOT NULL DEFAULT 1,
    detail       text,
    seconds      double precision NOT NULL DEFAULT 0,
    finished_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (run_id, rule_id)
);
COMMENT ON TABLE bcmig.rule_result IS 'What each run made of each rule, with the first failing rows.';
COMMENT ON COLUMN bcmig.rule_result.failing IS 'rows that broke it at every look';
COMMENT ON COLUMN bcmig.rule_result.looks IS 'how often it was looked at: a failure counts when it is still there after synced_through has passed the first';

CREATE TABLE bcmig.number_sequence (
    sync_id    integer NOT NULL REFERENCES bcmig.sync ON DELETE CASCADE,
    target     text NOT NULL,
    source     text NOT NULL,
    table_id   integer REFERENCES bcmig.sync_table ON DELETE CASCADE,
    "column"   text,
    increment  bigint NOT NULL,
    blue       bigint,
    value      bigint,
    set_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (sync_id, target)
);
COMMENT ON TABLE bcmig.number_sequence IS 'Sequences of green bcmig_set_sequences has set: from then on a validation asserts them.';
COMMENT ON COLUMN bcmig.number_sequence."column" IS 'target column that is numbered by it; NULL = a sequence of no column';
COMMENT ON COLUMN bcmig.number_sequence.blue IS 'the value blue had given out last when it was set; NULL = none';
COMMENT ON COLUMN bcmig.number_sequence.value IS 'what it was set to; NULL = nothing had been given out';

CREATE TABLE bcmig.validation_sequence (
    run_id     bigint NOT NULL REFERENCES bcmig.validation_run ON DELETE CASCADE,
    source     text,
    target     text,
    blue       bigint,
    green      bigint,
    rows       bigint,
    verdict    text NOT NULL CHECK (verdict IN ('ok', 'not set', 'behind', 'inconclusive')),
    detail     text
);
CREATE INDEX validation_sequence_run ON bcmig.validation_sequence (run_id);
COMMENT ON TABLE bcmig.validation_sequence IS 'What each run of all tables found of blue''s sequences and numbered columns, and of green''s.';
COMMENT ON COLUMN bcmig.validation_sequence.source IS 'on blue; NULL = they could not be looked at';
COMMENT ON COLUMN bcmig.validation_sequence.blue IS 'the value given out last; NULL = none, or gone';
COMMENT ON COLUMN bcmig.validation_sequence.green IS 'the value given out last; NULL = none, or no such sequence';
COMMENT ON COLUMN bcmig.validation_sequence.rows IS 'the last number in the rows of green''s table';
COMMENT ON COLUMN bcmig.validation_sequence.verdict IS 'not set: green''s does not stand where blue''s does, as it should not before bcmig_set_sequences has been called for the last time; behind: green would give out a number that is taken';

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

CREATE FUNCTION bcmig.audit_hash(previous bytea, audit_id bigint, at timestamptz, actor text, sync_name text, target text, kind text, event text, detail text)
    RETURNS bytea AS 'MODULE_PATHNAME', 'bcmig_audit_hash' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION bcmig.audit_hash(bytea, bigint, timestamptz, text, text, text, text, text, text) IS 'engine: SHA-256 of the hash before it and a row of the audit log (docs/audit.md).';

CREATE FUNCTION bcmig.audit_defects(first_seq bigint, last_seq bigint)
    RETURNS TABLE (seq bigint, audit_id bigint, what text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
SELECT c.seq, c.audit_id,
       CASE WHEN a.audit_id IS NULL THEN 'rows were removed'
            WHEN c.before <> c.seq - 1 THEN 'places were taken out of the chain'
            ELSE 'rows were changed, moved or put in' END
  FROM (SELECT k.seq, k.audit_id, k.hash, coalesce(lag(k.seq) OVER w, 0) AS before,
               coalesce(lag(k.hash) OVER w, decode(repeat('00', 32), 'hex')) AS previous
          FROM bcmig.audit_chain k
         WHERE k.seq BETWEEN audit_defects.first_seq - 1 AND audit_defects.last_seq
        WINDOW w AS (ORDER BY k.seq)) c
  LEFT JOIN bcmig.audit_log a ON a.audit_id = c.audit_id
 WHERE c.seq >= audit_defects.first_seq
   AND (a.audit_id IS NULL OR c.before <> c.seq - 1
        OR c.hash IS DISTINCT FROM bcmig.audit_hash(c.previous, a.audit_id, a.at, a.actor, a.sync_name, a.target, a.kind, a.event, a.detail));
END;
COMMENT ON FUNCTION bcmig.audit_defects(bigint, bigint) IS 'engine: places of the audit chain, from first_seq to last_seq, that do not fit.';

CREATE FUNCTION bcmig_verify_audit()
    RETURNS TABLE (checked bigint, first_bad bigint, what text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
WITH c AS MATERIALIZED (
    SELECT count(*) AS places, max(k.seq) AS last FROM bcmig.audit_chain k
), bad AS MATERIALIZED (
    SELECT d.audit_id, d.what, d.seq FROM bcmig.audit_defects(1, 9223372036854775807) d
    UNION ALL
    SELECT k.audit_id, 'the chain does not end where it ended', c.last
      FROM c LEFT JOIN bcmig.audit_chain k ON k.seq = c.last FULL JOIN bcmig.audit_head h ON true
     WHERE (c.places, k.hash) IS DISTINCT FROM (coalesce(h.rows, 0), h.hash)
    UNION ALL
    SELECT a.audit_id, 'rows were put in that bcmig did not write', NULL
      FROM bcmig.audit_log a
     WHERE NOT EXISTS (SELECT FROM bcmig.audit_chain k WHERE k.audit_id = a.audit_id)
       AND NOT EXISTS (SELECT FROM bcmig.audit_pending p WHERE p.audit_id = a.audit_id)
    UNION ALL
    SELECT p.audit_id, 'rows were removed before they were chained', NULL
      FROM bcmig.audit_pending p
     WHERE NOT EXISTS (SELECT FROM bcmig.audit_log a WHERE a.audit_id = p.audit_id)
)
SELECT c.places, x.first_bad, x.what
  FROM c,
       (SELECT (array_agg(b.audit_id ORDER BY b.seq, b.audit_id))[1] AS first_bad,
               b.what || CASE WHEN count(*) > 1 THEN format(' (%s)', count(*)) ELSE '' END AS what, 1 AS n
          FROM bad b GROUP BY b.what
        UNION ALL
        SELECT NULL, 'ok, ends with ' || coalesce(encode(h.hash, 'hex'), 'nothing'), 2
          FROM (SELECT) one LEFT JOIN bcmig.audit_head h ON true WHERE NOT EXISTS (SELECT FROM bad)
        UNION ALL
        SELECT NULL, count(*) || ' rows are not chained yet', 3 FROM bcmig.audit_pending HAVING count(*) > 0) x
 ORDER BY x.n, x.first_bad;
END;
COMMENT ON FUNCTION bcmig_verify_audit() IS 'report: is the audit log as it was written? A line for each kind of damage with the id of the first row concerned, or one that says ok and the last hash, to be noted elsewhere; and how many rows are not chained yet.';
REVOKE ALL ON FUNCTION bcmig.audit_hash(bytea, bigint, timestamptz, text, text, text, text, text, text), bcmig.audit_defects(bigint, bigint),
    bcmig_verify_audit() FROM PUBLIC;


-- ---------------------------------------------------------------------------
-- Configuration functions
-- ---------------------------------------------------------------------------
INSERT INTO bcmig.environment (name, side, owner) VALUES ('green', 'green', current_user::regrole);

-- environments
CREATE FUNCTION bcmig_add_environment(name text, side text, server text DEFAULT NULL, health_url text DEFAULT NULL, options jsonb DEFAULT '{}')
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_add_environment(text, text, text, text, jsonb) IS 'configuration: register a blue database, reached through a foreign server.';

CREATE FUNCTION bcmig_alter_environment(name text, options jsonb)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_alter_environment(text, jsonb) IS 'configuration: change options of an environment; JSON null resets one.';

CREATE FUNCTION bcmig_remove_environment(name text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_remove_environment(text) IS 'configuration: forget a blue that no sync uses.';

CREATE FUNCTION bcmig_check_environment(name text)
    RETURNS TABLE (check_name text, status text, value text, bound text, detail text, fix text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_check_environment(text) IS 'report: can this environment be used? Asks blue through a worker; fix is a statement to run.';

CREATE FUNCTION bcmig_blue_script(kind text, sync text DEFAULT NULL)
    RETURNS text AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_blue_script(text, text) IS 'report: a script to review and run on blue: login, tracking, fence, unfence, reverse (what was written on green, for a SQL Server blue) or cleanup. What tracking asks for is remembered; cleanup takes away nothing else.';

-- syncs
CREATE FUNCTION bcmig_create_sync(sync text, blue text, options jsonb DEFAULT '{}')
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_create_sync(text, text, jsonb) IS 'configuration: a new stream of tables from a blue, owned by the current role, which its workers run as.';

CREATE FUNCTION bcmig_alter_sync(sync text, options jsonb)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_alter_sync(text, jsonb) IS 'configuration: change options of a sync; JSON null resets one.';

CREATE FUNCTION bcmig_drop_sync(sync text, drop_tables boolean DEFAULT false, dry_run boolean DEFAULT false)
    RETURNS TABLE (step integer, "where" text, statement text, reversible boolean, expected text, on_failure text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_drop_sync(text, boolean, boolean) IS 'configuration: forget a stopped sync; drop_tables also drops the green tables bcmig made; dry_run only says what would be done.';

-- tables
CREATE FUNCTION bcmig_add_table(sync text, source_table text, target text DEFAULT NULL, options jsonb DEFAULT '{}')
    RETURNS text AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_add_table(text, text, text, jsonb) IS 'configuration: add a table, named as blue spells it; makes the green table unless target names one that exists. Returns the target.';

CREATE FUNCTION bcmig_companies(environment text)
    RETURNS TABLE (company text, tables bigint, rows bigint, bytes bigint, suggested_schema text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_companies(text) IS 'report: the companies of a Business Central blue on SQL Server, with the number of their tables (companions counted), rows (estimate) and bytes.';

CREATE FUNCTION bcmig_discover(environment text, company text DEFAULT NULL)
    RETURNS TABLE (company text, source_schema text, source_table text, al_table text, app_id text, shape text, companion_of text,
                   rows bigint, bytes bigint, key_columns text[], collations text[], identity_column text, latency text, left_out text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_discover(text, text) IS 'report: every table of a Business Central blue on SQL Server: what its name means (shape: base, companion, app_companion, shared, platform, orphan), its key, the collations its key columns are ordered by, the column blue numbers itself, how long changes of it take and why, and why it is left out of a migration, if it is.';

CREATE FUNCTION bcmig_add_company(sync text, company text, target_schema text DEFAULT NULL, options jsonb DEFAULT '{}')
    RETURNS TABLE (source_table text, target text, capture text, rows bigint)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_add_company(text, text, text, jsonb) IS 'configuration: add all tables of a company, a record with its companions as one green table, in a schema that is made when missing (default: the company''s name in snake_case). Types of fields and names of option values come from Business Central''s own dictionary where blue has it (column_map.type_source). The green tables are made once the sync runs, a hundred in a transaction; until then bcmig.column_map may be edited. Returns a row per table.';

CREATE FUNCTION bcmig_add_shared(sync text, target_schema text DEFAULT NULL, options jsonb DEFAULT '{}')
    RETURNS TABLE (source_table text, target text, capture text, rows bigint)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_add_shared(text, text, jsonb) IS 'configuration: add the tables that belong to no company (Company, User without secrets, Tenant Media, Record Link, per-database tables of apps), in a schema that is made when missing (default: bc_shared). Green tables are made once the sync runs. Returns a row per table.';

CREATE FUNCTION bcmig_remove_company(sync text, company text)
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_remove_company(text, text) IS 'configuration: take all tables of a company out of a sync, also while it runs; the green tables stay. Returns how many.';

CREATE FUNCTION bcmig_set_sequences(sync text)
    RETURNS TABLE (source text, target text, value bigint)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_set_sequences(text) IS 'configuration: give green a sequence for each sequence and identity column of blue that belongs to the sync''s companies, and move it to the value given out last, never back; a numbered column gets its sequence as default. Returns a row per sequence. Call it again when blue has stopped.';

CREATE FUNCTION bcmig_optimize_sync(sync text, apply boolean DEFAULT false)
    RETURNS TABLE (target text, setting text, "current" text, recommended text, evidence text, applied boolean)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_optimize_sync(text, boolean) IS 'configuration: what the figures of a sync speak against, with the figures; apply => true sets the options among them, and says in applied which. What concerns blue is a statement for its DBA. One row without a setting: nothing has been measured yet; no row: nothing to change.';

CREATE FUNCTION bcmig_alter_table(sync text, target text, options jsonb)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_alter_table(text, text, jsonb) IS 'configuration: change options of a table; JSON null resets one. {"capture": "auto"} looks again at what blue tracks; another row_filter has the table read again online.';

CREATE FUNCTION bcmig_remove_table(sync text, target text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_remove_table(text, text) IS 'configuration: take a table out of a sync, also while it runs; the green table stays.';

CREATE FUNCTION bcmig_map_column(sync text, target text, column_name text, transform jsonb)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_map_column(text, text, text, jsonb) IS 'configuration: what becomes of a column of blue (named as blue spells it) on green: {"drop": true}, {"rename": "name"}, and beside a rename one of {"constant": value}, {"builtin": "blank_date" | "blank_text" | "boolean" | "trim" | "upper" | "utc"} (or an array of them, applied in order), {"sql": "expression over the source row"}. It replaces the column''s former transform. A table that has begun is read again online: upsert and sweep, nothing is truncated.';

CREATE FUNCTION bcmig_unmap_column(sync text, target text, column_name text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_unmap_column(text, text, text) IS 'configuration: a column is copied as it is again, under its own name; a table that has begun is read again online.';

-- running
CREATE FUNCTION bcmig_preflight(sync text)
    RETURNS TABLE (check_name text, status text, value text, bound text, detail text, fix text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_preflight(text) IS 'report: can this sync run? Status ok, warn or fail; fix is a statement to run.';

CREATE FUNCTION bcmig_estimate(sync text)
    RETURNS TABLE (target text, rows bigint, bytes bigint, seconds double precision, basis text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_estimate(text) IS 'report: rows and bytes of each table on blue, and seconds of its copy by one worker (basis: measured here, or assumed).';

CREATE FUNCTION bcmig_start_sync(sync text, force boolean DEFAULT false)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_start_sync(text, boolean) IS 'request: start copying and streaming; refused when preflight fails, unless force.';

CREATE FUNCTION bcmig_stop_sync(sync text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_stop_sync(text) IS 'request: stop; a later start goes on from the same position.';

CREATE FUNCTION bcmig_sync_now(sync text, target text DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_sync_now(text, text) IS 'request: read the changes of a table, or all, at once.';

CREATE FUNCTION bcmig_sweep_deletes(sync text, target text DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_sweep_deletes(text, text) IS 'request: compare the keys of a table, or all, and delete what is gone from blue.';

CREATE FUNCTION bcmig_resync_table(sync text, target text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_resync_table(text, text) IS 'request: read a table again from the beginning, as upsert and sweep; nothing is truncated.';

CREATE FUNCTION bcmig_suspend_table(sync text, target text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_suspend_table(text, text) IS 'request: leave a table as it is until it is resumed.';

CREATE FUNCTION bcmig_resume_table(sync text, target text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_resume_table(text, text) IS 'request: go on with a suspended table; a mass delete is taken as meant if that is what suspended it.';

CREATE FUNCTION bcmig_retry_quarantine(sync text, ids bigint[] DEFAULT NULL)
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_retry_quarantine(text, bigint[]) IS 'request: read quarantined rows again from blue and apply them; returns how many.';

CREATE FUNCTION bcmig_discard_quarantine(sync text, ids bigint[])
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_discard_quarantine(text, bigint[]) IS 'configuration: give quarantined rows up, by id; their images go to the audit log. Returns how many.';

CREATE FUNCTION bcmig_resolve_conflict(id bigint, winner text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_resolve_conflict(bigint, text) IS 'request: decide a waiting conflict. source: its key is read again from blue and written, the outside writes to it are settled; target: green''s row stays, and the outside writes to it are still to be brought to blue.';

REVOKE ALL ON FUNCTION
    bcmig_add_environment(text, text, text, text, jsonb), bcmig_alter_environment(text, jsonb),
    bcmig_remove_environment(text), bcmig_check_environment(text), bcmig_blue_script(text, text),
    bcmig_create_sync(text, text, jsonb), bcmig_alter_sync(text, jsonb), bcmig_drop_sync(text, boolean, boolean),
    bcmig_companies(text), bcmig_discover(text, text), bcmig_add_company(text, text, text, jsonb),
    bcmig_add_shared(text, text, jsonb), bcmig_remove_company(text, text), bcmig_set_sequences(text),
    bcmig_add_table(text, text, text, jsonb), bcmig_alter_table(text, text, jsonb), bcmig_remove_table(text, text),
    bcmig_map_column(text, text, text, jsonb), bcmig_unmap_column(text, text, text),
    bcmig_optimize_sync(text, boolean),
    bcmig_preflight(text), bcmig_estimate(text), bcmig_start_sync(text, boolean), bcmig_stop_sync(text),
    bcmig_sync_now(text, text), bcmig_sweep_deletes(text, text), bcmig_resync_table(text, text),
    bcmig_suspend_table(text, text), bcmig_resume_table(text, text),
    bcmig_retry_quarantine(text, bigint[]), bcmig_discard_quarantine(text, bigint[]),
    bcmig_resolve_conflict(bigint, text)
    FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- Values and metadata of Business Central
-- ---------------------------------------------------------------------------
CREATE FUNCTION bcmig_blob(stored bytea) RETURNS bytea
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION bcmig_blob(bytea) IS 'report: the content of a BC field of type BLOB: inflated where it begins with 02 45 7D 5B, else as it is; empty stays empty. Damaged = an error (BM016) that says at which byte; content beyond 1 GB = an error (54000).';

CREATE FUNCTION bcmig_is_closing_date(value timestamp) RETURNS boolean
    AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION bcmig_is_closing_date(timestamp) IS 'report: true when a value of an AL Date field is a closing date: 23:59:59.000 of a day from 1754-01-01 on. Meaningless for DateTime and Time fields.';

CREATE FUNCTION bcmig.al_table(metadata bytea)
    RETURNS TABLE (field_no integer, name text, al_type text, length integer, class text, option_names text[], option_ordinals integer[],
                   enum_id integer, app_id text, enabled boolean, obsolete text)
    AS 'MODULE_PATHNAME', 'bcmig_al_table' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 100;
COMMENT ON FUNCTION bcmig.al_table(bytea) IS 'engine: fields of a table, or those a table extension adds, from column Metadata of [Application Object Metadata] as it is stored. length in characters, NULL where the type has none; names and ordinals of options go in pairs, NULL where the document has none (an Enum: bcmig.al_enum). Unreadable = an error (BM016).';

CREATE FUNCTION bcmig.al_keys(metadata bytea)
    RETURNS TABLE (key_no integer, name text, field_nos integer[], field_names text[], enabled boolean, clustered boolean, sql_index boolean)
    AS 'MODULE_PATHNAME', 'bcmig_al_keys' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10;
COMMENT ON FUNCTION bcmig.al_keys(bytea) IS 'engine: keys of a table, the primary key first, from column Metadata of [Application Object Metadata] as it is stored. sql_index: blue keeps an index for it; a field name is NULL where the document does not have that field. Unreadable = an error (BM016).';

CREATE FUNCTION bcmig.al_enum(metadata bytea) RETURNS TABLE (ordinal integer, name text)
    AS 'MODULE_PATHNAME', 'bcmig_al_enum' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE ROWS 10;
COMMENT ON FUNCTION bcmig.al_enum(bytea) IS 'engine: values of an enum, or those an enum extension adds, from column Metadata of [Application Object Metadata] as it is stored. Unreadable = an error (BM016).';

CREATE FUNCTION bcmig.al_identifier(name text, invalid_chars text) RETURNS text
    AS 'MODULE_PATHNAME', 'bcmig_al_identifier' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION bcmig.al_identifier(text, text) IS 'engine: an AL name as blue''s SQL spells it: each character that is in invalid_chars ([$ndo$dbproperty].invalididentifierchars) is an underscore.';

REVOKE ALL ON FUNCTION bcmig_blob(bytea), bcmig_is_closing_date(timestamp), bcmig.al_table(bytea), bcmig.al_keys(bytea),
    bcmig.al_enum(bytea), bcmig.al_identifier(text, text) FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- Plans
-- ---------------------------------------------------------------------------
CREATE FUNCTION bcmig_create_plan(plan text, sync text, phases jsonb DEFAULT NULL, options jsonb DEFAULT '{}') RETURNS integer
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_create_plan(text, text, jsonb, jsonb) IS 'configuration: a migration in phases, run as the current role. phases: an array of objects with name, type, action (a step of bcmig, SELECT * FROM bcmig.plan_step) or sql, arguments, active, depends_on, position, timeout, retries, backoff, precondition, compensation, approval; NULL = the standard plan. options: auto_rollback, steps (weights), waves (arrays of names of syncs), those of a switch; blue and company: the plan makes the sync. Returns the number of phases.';
CREATE FUNCTION bcmig_drop_plan(plan text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_drop_plan(text) IS 'configuration: forget a plan; its executions go on and stay on record.';
CREATE FUNCTION bcmig_rehearse_plan(plan text)
    RETURNS TABLE (check_name text, status text, value text, bound text, detail text, fix text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_rehearse_plan(text) IS 'report: what of a plan would fail. SQL is run in a transaction that is rolled back, steps are asked for their checks and dry runs; what could not be rolled back is not done but listed (warn). Nothing stays behind, sequences stand where they stood; others wait for a number as long as the SQL runs.';
CREATE FUNCTION bcmig_execute_plan(plan text) RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_execute_plan(text) IS 'request: carry a plan out, by a process of its own, as the plan is now. Returns the execution, for bcmig.execution_status.';
CREATE FUNCTION bcmig_approve_phase(execution bigint, phase text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_approve_phase(bigint, text) IS 'request: let a phase of the present wave begin; for members of the role named in its approval.';
CREATE FUNCTION bcmig_skip_phase(execution bigint, phase text, reason text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_skip_phase(bigint, text, text) IS 'request: leave out a phase of the present wave that is not running; one that has failed too, then bcmig_resume_execution goes on.';
CREATE FUNCTION bcmig_pause_execution(execution bigint) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_pause_execution(bigint) IS 'request: begin no more phases; one that runs comes to its end.';
CREATE FUNCTION bcmig_resume_execution(execution bigint) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_resume_execution(bigint) IS 'request: go on with an execution that is paused, or has failed and was not taken back: at the phase that failed.';
CREATE FUNCTION bcmig_cancel_execution(execution bigint) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_cancel_execution(bigint) IS 'request: stop; a phase that runs is broken off. With option auto_rollback what is done of the present wave is taken back.';
CREATE FUNCTION bcmig.plan_steps(OUT step text, OUT type text, OUT arguments text, OUT compensation text, OUT meaning text) RETURNS SETOF record
    AS 'MODULE_PATHNAME', 'bcmig_plan_steps' LANGUAGE C STABLE;
COMMENT ON FUNCTION bcmig.plan_steps() IS 'report: the steps of bcmig a phase can have as its action.';
REVOKE ALL ON FUNCTION bcmig_create_plan(text, text, jsonb, jsonb), bcmig_drop_plan(text), bcmig_rehearse_plan(text), bcmig_execute_plan(text),
    bcmig_approve_phase(bigint, text), bcmig_skip_phase(bigint, text, text), bcmig_pause_execution(bigint),
    bcmig_resume_execution(bigint), bcmig_cancel_execution(bigint), bcmig.plan_steps() FROM PUBLIC;

CREATE VIEW bcmig.plan_step AS
SELECT step, type, arguments, compensation, meaning FROM bcmig.plan_steps();
COMMENT ON VIEW bcmig.plan_step IS 'Steps of bcmig that can be the action of a phase; arguments: those marked ! must be given.';

CREATE VIEW bcmig.execution_status AS
SELECT e.execution_id AS execution, e.plan_name AS plan, e.state, e.by, e.started_at, e.ended_at,
       r.total AS phases_total, r.done AS phases_done, r.failed AS phases_failed, r.running AS phases_running, r.skipped AS phases_skipped,
       round(100.0 * r.done / nullif(r.done + r.failed, 0), 1) AS success_rate,
       r.current AS current_phase, coalesce(r.percent, 0) AS percent, e.error, r.waits_for,
       date_trunc('second', clock_timestamp() - e.heartbeat_at) AS heartbeat_age
  FROM bcmig.execution e
 CROSS JOIN LATERAL (
        SELECT count(*) AS total,
               count(*) FILTER (WHERE p.state = 'done' OR p.state IN ('compensating', 'compensated', 'not_compensated') AND p.error IS NULL) AS done,
               count(*) FILTER (WHERE p.state = 'failed' OR p.state IN ('compensating', 'compensated', 'not_compensated') AND p.error IS NOT NULL) AS failed,
               count(*) FILTER (WHERE p.state IN ('running', 'compensating')) AS running,
               count(*) FILTER (WHERE p.state = 'skipped') AS skipped,
               string_agg(p.name || CASE WHEN p.sync <> '' THEN ' (' || p.sync || ')' ELSE '' END, ', ' ORDER BY p.position, p.sync)
                   FILTER (WHERE p.state IN ('running', 'waiting', 'compensating')) AS current,
               string_agg(p.name || ': ' || p.note, '; ' ORDER BY p.position, p.sync) FILTER (WHERE p.state = 'waiting') AS waits_for,
               round(avg(CASE WHEN p.state IN ('done', 'skipped') THEN 100 WHEN p.state = 'running' THEN coalesce(p.percent, 0) ELSE 0 END), 1) AS percent
          FROM bcmig.phase_run p WHERE p.execution_id = e.execution_id) r
 WHERE e.kind = 'execution'
 ORDER BY e.execution_id DESC;
COMMENT ON VIEW bcmig.execution_status IS 'One line an execution, the newest first: its phases by what became of them, the share of those that succeeded, what runs or waits, and the first error.';

-- ---------------------------------------------------------------------------
-- Readable layer
-- ---------------------------------------------------------------------------
CREATE FUNCTION bcmig.make_views(sync text) RETURNS integer
    AS 'MODULE_PATHNAME', 'bcmig_sql_make_views' LANGUAGE C;
COMMENT ON FUNCTION bcmig.make_views(text) IS 'configuration: make or replace the readable view of each table of a sync, and grant what option grant_select says. Returns how many views there are.';
REVOKE ALL ON FUNCTION bcmig.make_views(text) FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- Proof
-- ---------------------------------------------------------------------------
CREATE FUNCTION bcmig_validate(sync text, target text DEFAULT NULL, mode text DEFAULT 'incremental') RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_validate(text, text, text) IS 'request: compare a table, or all tables and rules of a running sync, with blue. count: numbers of rows per chunk; incremental: chunks written to since they were compared; full: every chunk, trusting nothing. Returns the run id at once; SELECT * FROM bcmig.validation_summary shows it, CALL bcmig_wait_sync(sync, ''validated'') waits for it.';

CREATE FUNCTION bcmig_row_hash(tuple record, image text DEFAULT 'fields') RETURNS bytea
    AS 'MODULE_PATHNAME' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION bcmig_row_hash(record, text) IS 'report: SHA-256 of the image of a row, as a validation compares it. image: fields, as SQL Server hashes its rows; record, as a PostgreSQL blue does (docs/consistency.md).';

CREATE FUNCTION bcmig.chunk_hash_step(state internal, tuple record, image text) RETURNS internal
    AS 'MODULE_PATHNAME', 'bcmig_chunk_hash_step' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION bcmig.chunk_hash_step(internal, record, text) IS 'engine: adds a row to the state of bcmig_chunk_hash.';
CREATE FUNCTION bcmig.chunk_hash_end(state internal) RETURNS bigint[]
    AS 'MODULE_PATHNAME', 'bcmig_chunk_hash_end' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION bcmig.chunk_hash_end(internal) IS 'engine: result of bcmig_chunk_hash.';
CREATE AGGREGATE bcmig_chunk_hash(tuple record, image text) (
    SFUNC = bcmig.chunk_hash_step, STYPE = internal, FINALFUNC = bcmig.chunk_hash_end, PARALLEL = SAFE
);
COMMENT ON AGGREGATE bcmig_chunk_hash(record, text) IS 'report: {rows, four sums} of rows: each row''s hash (bcmig_row_hash) is cut to four lanes of 32 bits, each lane is summed. The order of rows does not matter.';

CREATE FUNCTION bcmig_cancel_validation(run bigint) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_cancel_validation(bigint) IS 'request: end a validation; what it has found stays.';

CREATE FUNCTION bcmig_add_rule(sync text, name text, kind text, severity text, query text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_add_rule(text, text, text, text, text) IS 'configuration: a rule validations assert: a query on green, one plain SELECT, that returns the rows that break it; names with their schema. kind: reference, business or calculated; severity: hard (it turns a run''s verdict) or soft (it is reported).';
CREATE FUNCTION bcmig_remove_rule(sync text, name text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_remove_rule(text, text) IS 'configuration: take a rule away, with its results; one of Business Central''s is not made again.';

CREATE FUNCTION bcmig_schedule_validation(sync text, cron text, mode text DEFAULT 'incremental') RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_schedule_validation(text, text, text) IS 'configuration: have pg_cron validate a sync at the times of a cron string, as the calling role (it needs LOGIN, and USAGE on schema cron); one schedule a sync, a second replaces the first. A run is left out while the one before is under way. Returns pg_cron''s job id; cron.job_run_details has what became of it.';

CREATE FUNCTION bcmig_unschedule_validation(sync text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_unschedule_validation(text) IS 'configuration: end the schedule of a sync''s validations; a run under way goes on. bcmig_drop_sync does it too.';

CREATE FUNCTION bcmig_compare_query(sync text, blue_query text, green_query text)
    RETURNS TABLE (side text, times bigint, value text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_compare_query(text, text, text) IS 'report: run a query on blue, in blue''s SQL and as the owner of the sync, then one here as the caller, both read only, and return the rows only one side has, with how many of them; no row: equal. Rows are compared as text: 1.50 is not 1.5, so cast on both sides. On PostgreSQL a row of any number of columns is the text of a record, and tables of blue need their schema; on SQL Server the query has one column, no WITH and no ORDER BY. At most 1,000,000 rows. Not one moment: what changes meanwhile may differ.';

CREATE FUNCTION bcmig.validate_scheduled(sync text, mode text) RETURNS bigint
    AS 'MODULE_PATHNAME', 'bcmig_validate_scheduled' LANGUAGE C;
COMMENT ON FUNCTION bcmig.validate_scheduled(text, text) IS 'engine: what pg_cron calls: bcmig_validate of all tables, or NULL while a run of the same mode is under way.';

CREATE FUNCTION bcmig_repair(run bigint, dry_run boolean DEFAULT false)
    RETURNS TABLE (step integer, "where" text, statement text, reversible boolean, expected text, on_failure text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_repair(bigint, boolean) IS 'request: read the rows a validation listed again from blue and write them, as the sync itself would; dry_run only says what would be done. validation_difference.repaired_at and repair_error tell what became of each.';

REVOKE ALL ON FUNCTION bcmig_compare_query(text, text, text), bcmig_add_rule(text, text, text, text, text), bcmig_remove_rule(text, text), bcmig_validate(text, text, text), bcmig_schedule_validation(text, text, text), bcmig_unschedule_validation(text),
    bcmig.validate_scheduled(text, text), bcmig_cancel_validation(bigint), bcmig_repair(bigint, boolean), bcmig_row_hash(record, text),
    bcmig.chunk_hash_step(internal, record, text), bcmig.chunk_hash_end(internal), bcmig_chunk_hash(record, text) FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- Traffic
-- ---------------------------------------------------------------------------
CREATE FUNCTION bcmig_add_balancer(sync text, name text, driver text, url text, options jsonb DEFAULT '{}') RETURNS integer
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_add_balancer(text, text, text, text, jsonb) IS 'configuration: a load balancer that gives green its share. Driver haproxy: url of its runtime API (tcp://host:port or unix:///path), options backend, blue and green (names of servers). Driver http: url, options server (a foreign server of wrapper bcmig_http), set and get (objects of method, url, headers, body, expect_status; get has a JSON path to the percent of green). Driver function: url NULL, options set (a function (sync text, percent numeric) that returns void or boolean) and get (a function (sync text) that returns numeric). It is brought to the weight of the sync within seconds; nothing is sent before COMMIT. Returns its id.';
CREATE FUNCTION bcmig_remove_balancer(sync text, name text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_remove_balancer(text, text) IS 'configuration: forget a load balancer, which goes on as it is.';
CREATE FUNCTION bcmig.http_validator(options text[], catalog oid) RETURNS void
    AS 'MODULE_PATHNAME', 'bcmig_http_validator' LANGUAGE C STRICT;
COMMENT ON FUNCTION bcmig.http_validator(text[], oid) IS 'engine: which options servers and user mappings of bcmig_http have.';
CREATE FOREIGN DATA WRAPPER bcmig_http VALIDATOR bcmig.http_validator;
COMMENT ON FOREIGN DATA WRAPPER bcmig_http IS 'Hosts bcmig may send HTTP requests with secrets to. Server: url (requests go to URLs below it only), ca_file; user mapping: user, password, token.';
CREATE FUNCTION bcmig_check_gates(sync text)
    RETURNS TABLE (check_name text, status text, value text, bound text, detail text, fix text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_check_gates(text) IS 'report: what must be ok or skipped for a weight to be raised: lag, tables, quarantine, conflicts, errors, validation, fence, journal, health of both sides, those of bcmig_add_gate, and lag, tables and validation of what the sync depends on. Health URLs and queries are asked only when a weight is raised: here is their last answer.';
CREATE FUNCTION bcmig_add_gate(sync text, name text, query text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_add_gate(text, text, text) IS 'configuration: a query that must return true for a weight of this sync to be raised: one plain SELECT of one boolean, names with their schema, run read only as the owner of the sync, for traffic_timeout at most. false, or an error: the gate fails; NULL, or no row: it is inconclusive, which does not let pass either.';
CREATE FUNCTION bcmig_remove_gate(sync text, name text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_remove_gate(text, text) IS 'configuration: take a gate added by bcmig_add_gate away, with its last answer.';
CREATE FUNCTION bcmig_set_traffic(sync text, green_percent numeric) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_set_traffic(text, numeric) IS 'request: send this share of the readers to green, from 0 to below 100. Raised only while all gates are ok (bcmig_check_gates); balancers are set and read back first, and set back when one does not follow. bcmig.traffic_status says what became of it; the last of two requests counts.';
CREATE FUNCTION bcmig_switch_traffic(sync text, steps numeric[] DEFAULT '{5,10,25,50,75,100}', options jsonb DEFAULT '{}', dry_run boolean DEFAULT false)
    RETURNS TABLE (step integer, "where" text, statement text, reversible boolean, expected text, on_failure text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_switch_traffic(text, numeric[], jsonb, boolean) IS 'request: move traffic to green from step to step, each standing for option stabilization while the gates are ok; at 100 writers too: blue is fenced, what is left is brought over and validated, within option write_pause. on_failure: hold, step_back or roll_back. Returns the plan, with dry_run nothing else; bcmig.switch_status tells where it is, CALL bcmig_wait_sync(sync, ''switched'') waits for it.';
CREATE FUNCTION bcmig_rollback(sync text, reason text, options jsonb DEFAULT '{}', dry_run boolean DEFAULT false)
    RETURNS TABLE (step integer, "where" text, statement text, reversible boolean, expected text, on_failure text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_rollback(text, text, jsonb, boolean) IS 'request: bring all traffic back to blue, from any weight: readers at once; from 100 green is fenced, what was written there is brought to blue (option replay: before or after blue is opened), blue is opened, writers go there. Options terminate_blockers, drain_timeout, replay_timeout, preserve. Returns the plan with the writes that are not on blue yet, with dry_run nothing else; CALL bcmig_wait_sync(sync, ''rolled_back'') waits for it.';
CREATE FUNCTION bcmig_complete_sync(sync text, confirm text, dry_run boolean DEFAULT false)
    RETURNS TABLE (step integer, "where" text, statement text, reversible boolean, expected text, on_failure text)
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_complete_sync(text, text, boolean) IS 'configuration: the point of no return of a sync at 100 %: feeds, journal, balancers and schedules go, tables, views and what is on record stay. confirm is the name of the sync, or, when writes are not on blue, what the error''s hint says. dry_run only says what would be done.';
CREATE FUNCTION bcmig_hold_traffic(sync text, reason text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_hold_traffic(text, text) IS 'request: leave weight and balancers of a sync alone until bcmig_resume_traffic; a change under way is undone.';
CREATE FUNCTION bcmig_resume_traffic(sync text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_resume_traffic(text) IS 'request: end a hold: balancers are set to the weight that is stored. Not one that is there because this may be a copy: bcmig_adopt.';
CREATE FUNCTION bcmig_adopt(sync text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_adopt(text) IS 'request: this database is the one that moves the traffic of a sync, though it is not the one that did so last. Ends the hold, balancers are set to the weight that is stored, and the green before finds traffic held.';
CREATE FUNCTION bcmig_route(sync text, key text, write boolean DEFAULT false) RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_route(text, text, boolean) IS 'report: blue, green or pause: the side that serves this key (a user, a customer, a session). A key stays on its side, and as the weight rises keys only move to green. Writers: write => true.';

CREATE FUNCTION bcmig_confirm(sync text, what text, note text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_confirm(text, text, text) IS 'request: a person''s word, with a note, for what bcmig cannot see: fence (nobody but bcmig can write to blue''s tables of the sync, such as when the service is stopped), unfence (everybody can again). It counts where blue itself cannot tell, until the next time it is asked for.';

CREATE FUNCTION bcmig.try_blue_fence(sync text, action text) RETURNS void
    AS 'MODULE_PATHNAME', 'bcmig_try_blue_fence' LANGUAGE C;
COMMENT ON FUNCTION bcmig.try_blue_fence(text, text) IS 'request: try the fence of blue before a switch does: fence, unfence (both as option fence_by says), read. Real: who writes to blue is refused in between. bcmig.traffic_status.blue_fence and the audit log say what became of it. Not at 100 % nor while traffic is being changed or held.';

REVOKE ALL ON FUNCTION bcmig_confirm(text, text, text), bcmig.try_blue_fence(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION bcmig_add_balancer(text, text, text, text, jsonb), bcmig_remove_balancer(text, text), bcmig.http_validator(text[], oid),
    bcmig_switch_traffic(text, numeric[], jsonb, boolean), bcmig_rollback(text, text, jsonb, boolean), bcmig_complete_sync(text, text, boolean),
    bcmig_check_gates(text), bcmig_add_gate(text, text, text), bcmig_remove_gate(text, text), bcmig_set_traffic(text, numeric), bcmig_hold_traffic(text, text), bcmig_resume_traffic(text), bcmig_adopt(text), bcmig_route(text, text, boolean) FROM PUBLIC;

-- ---------------------------------------------------------------------------
-- What is alive, and the views
-- ---------------------------------------------------------------------------
CREATE FUNCTION bcmig.exact(source anyelement, back anyelement, column_name text) RETURNS boolean
    AS 'MODULE_PATHNAME', 'bcmig_exact' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION bcmig.exact(anyelement, anyelement, text) IS 'engine: true when a value cast to the target''s type and back is unchanged bit for bit, else an error (BM015).';

CREATE FUNCTION bcmig.live_workers(OUT pid integer, OUT role text, OUT owner oid, OUT environment_id integer, OUT sync_id integer, OUT table_id integer, OUT phase text, OUT since timestamptz, OUT rows_done bigint, OUT rows_total bigint, OUT jobs_done bigint, OUT rows_processed bigint, OUT errors bigint, OUT last_error text)
    RETURNS SETOF record AS 'MODULE_PATHNAME', 'bcmig_live_workers' LANGUAGE C VOLATILE STRICT ROWS 10;
COMMENT ON FUNCTION bcmig.live_workers() IS 'report: processes of bcmig in this database, from shared memory.';

CREATE FUNCTION bcmig.live_blues(OUT environment_id integer, OUT owner oid, OUT reachable boolean, OUT polls bigint, OUT clock timestamptz, OUT age_ms bigint, OUT horizon bigint, OUT top bigint, OUT incarnation text, OUT blocked_by text, OUT last_error text, OUT answer_ms double precision, OUT max_answer_ms double precision, OUT throttled_since timestamptz, OUT throttled_ms double precision)
    RETURNS SETOF record AS 'MODULE_PATHNAME', 'bcmig_live_blues' LANGUAGE C VOLATILE STRICT ROWS 2;
COMMENT ON FUNCTION bcmig.live_blues() IS 'report: what the poller of each blue read last, from shared memory.';

CREATE FUNCTION bcmig.live_tables(OUT table_id integer, OUT state text, OUT "position" bigint, OUT clean boolean, OUT rows_copied bigint, OUT rows_applied bigint, OUT rows_deleted bigint, OUT windows bigint, OUT last_applied_at timestamptz, OUT failures integer, OUT busy integer)
    RETURNS SETOF record AS 'MODULE_PATHNAME', 'bcmig_live_tables' LANGUAGE C VOLATILE STRICT ROWS 50;
COMMENT ON FUNCTION bcmig.live_tables() IS 'report: tables of running syncs, from shared memory.';

CREATE FUNCTION bcmig.live_syncs(OUT sync_id integer, OUT synced_through timestamptz, OUT lag interval, OUT blocked_by text, OUT reachable boolean)
    RETURNS SETOF record AS 'MODULE_PATHNAME', 'bcmig_live_syncs' LANGUAGE C VOLATILE STRICT ROWS 5;
COMMENT ON FUNCTION bcmig.live_syncs() IS 'report: how far running syncs are proved, from shared memory; NULL = unknown.';

CREATE PROCEDURE bcmig.raise_fence(sync text, timeout interval DEFAULT '30 s', terminate_blockers boolean DEFAULT false, keep boolean DEFAULT false)
    AS 'MODULE_PATHNAME', 'bcmig_raise_fence' LANGUAGE C;
COMMENT ON PROCEDURE bcmig.raise_fence(text, interval, boolean, boolean) IS 'engine: used by switch and rollback: refuse outside writes to the green tables of a sync, and wait until nobody is left who began one before. Error BM022 names who is: terminate_blockers ends their sessions when time is up, keep leaves the fence up all the same.';

CREATE FUNCTION bcmig.lift_fence(sync text) RETURNS void
    AS 'MODULE_PATHNAME', 'bcmig_lift_fence' LANGUAGE C;
COMMENT ON FUNCTION bcmig.lift_fence(text) IS 'engine: used by switch and rollback: let everybody write to the green tables of a sync, from COMMIT on. Only when blue''s fence is up: two sides that are both written to cannot be made equal again.';

CREATE FUNCTION bcmig.journal_row() RETURNS trigger
    AS 'MODULE_PATHNAME', 'bcmig_journal_row' LANGUAGE C;
COMMENT ON FUNCTION bcmig.journal_row() IS 'engine: trigger of the green tables of a sync whose journal is armed.';

CREATE FUNCTION bcmig.arm_journal(sync text) RETURNS void
    AS 'MODULE_PATHNAME', 'bcmig_arm_journal' LANGUAGE C;
COMMENT ON FUNCTION bcmig.arm_journal(text) IS 'engine: used by switch and rollback: record outside writes to all green tables of a sync, from COMMIT on. Error BM023 names the table or column that could not be brought back to blue; then none is armed.';

CREATE FUNCTION bcmig.disarm_journal(sync text) RETURNS void
    AS 'MODULE_PATHNAME', 'bcmig_disarm_journal' LANGUAGE C;
COMMENT ON FUNCTION bcmig.disarm_journal(text) IS 'engine: used by switch and rollback: record no more outside writes to the green tables of a sync, from COMMIT on; entries stay.';

CREATE FUNCTION bcmig.journal_pending(sync text DEFAULT NULL)
    RETURNS TABLE (sync_id integer, table_id integer, key jsonb, entries bigint, first_id bigint, last_id bigint, journal_ids bigint[],
                   base_version bigint, first_at timestamptz, last_at timestamptz)
    AS 'MODULE_PATHNAME', 'bcmig_journal_pending' LANGUAGE C;
COMMENT ON FUNCTION bcmig.journal_pending(text) IS 'engine: keys with entries in bcmig.journal that are not settled, in the order of their first entry: a key is one row however often it was written, a renamed row is two keys. Only what no running transaction can add to any more: entries below the oldest one.';

CREATE PROCEDURE bcmig_wait_sync(sync text, until text DEFAULT 'caught_up', timeout interval DEFAULT '5 min')
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON PROCEDURE bcmig_wait_sync(text, text, interval) IS 'wait: until streaming, caught_up (all that blue had committed when it was called is on green) or validated (the newest validation of all tables is over; error BM017 when it did not find both sides equal), switched or rolled_back (what was asked for last is done; error BM011 when it failed); holds no snapshot; error BM011 when time is up or it cannot get there.';

CREATE VIEW bcmig.table_status AS
SELECT y.name AS sync, format('%I.%I', t.target_schema, t.target_table) AS target,
       t.source_schema, t.source_table, t.capture,
       coalesce(l.state, s.state) AS state, s.reason,
       CASE WHEN coalesce(l.state, s.state) IN ('copying', 'resync') AND s.rows_total > 0
            THEN least(100, round(100.0 * coalesce(l.rows_copied, s.rows_copied) / s.rows_total, 1)) END AS copied_percent,
       s.rows_total, coalesce(l.rows_copied, s.rows_copied) AS rows_copied,
       coalesce(l.rows_applied, s.rows_applied) AS rows_applied,
       coalesce(l.rows_deleted, s.rows_deleted) AS rows_deleted,
       coalesce(l.position, s.position) AS "position", l.clean,
       l.last_applied_at, s.swept_at,
       coalesce(q.quarantined, 0) AS quarantined, coalesce(c.conflicts, 0) AS conflicts,
       s.last_error, s.last_error_at, t.table_id, t.sync_id
  FROM bcmig.sync_table t
  JOIN bcmig.sync y USING (sync_id)
  JOIN bcmig.table_state s USING (table_id)
  LEFT JOIN bcmig.live_tables() l USING (table_id)
  LEFT JOIN (SELECT table_id, count(*) AS quarantined FROM bcmig.quarantine GROUP BY table_id) q USING (table_id)
  LEFT JOIN (SELECT table_id, count(*) AS conflicts FROM bcmig.conflict WHERE decision IS NULL GROUP BY table_id) c USING (table_id);
COMMENT ON VIEW bcmig.table_status IS 'One line a table: state and why, rows copied and applied, position, quarantine, conflicts that wait, last error.';

CREATE VIEW bcmig.switch_status AS
SELECT y.name AS sync, w.kind, w.state, w.step || ' of ' || array_length(w.steps, 1) AS step, w.steps[w.step] AS target_percent,
       coalesce(t.green_percent, 0) AS green_percent, w.phase, date_trunc('second', clock_timestamp() - w.phase_since) AS phase_for, w.problem,
       CASE WHEN w.state = 'running' AND w.write_pause IS NULL AND t.writes = 'pause' THEN round(extract(epoch FROM clock_timestamp() - w.writes_stopped_at) * 1000) END AS writes_stopped_ms,
       round(extract(epoch FROM w.write_pause) * 1000) AS write_pause_ms, w.failures, t.held, w.reason, w.result, w.by, w.asked_at, w.ended_at, w.switch_id
  FROM bcmig.switch w
  JOIN bcmig.sync y USING (sync_id)
  LEFT JOIN bcmig.traffic t USING (sync_id)
 ORDER BY w.switch_id DESC;
COMMENT ON VIEW bcmig.switch_status IS 'One line a switch or rollback, the newest first: where it is, what is in its way, and for how many milliseconds writes have been stopped (now, or in all).';

CREATE VIEW bcmig.traffic_stage AS
SELECT t.sync_id,
       CASE WHEN t.completed_at IS NOT NULL THEN 'completed'
            WHEN t.intent ->> 'kind' = 'rollback' OR EXISTS (SELECT FROM bcmig.switch w WHERE w.sync_id = t.sync_id AND w.kind = 'rollback' AND w.state = 'running') THEN 'rolling_back'
            WHEN EXISTS (SELECT FROM bcmig.switch w WHERE w.sync_id = t.sync_id AND w.kind = 'switch' AND w.state = 'running') AND t.green_percent < 100 THEN 'switching'
            WHEN t.green_percent = 100 THEN 'switched'
            WHEN (SELECT w.kind FROM bcmig.switch w WHERE w.sync_id = t.sync_id ORDER BY w.switch_id DESC LIMIT 1) = 'rollback' AND t.green_percent = 0 THEN 'rolled_back'
       END AS stage
  FROM bcmig.traffic t;
COMMENT ON VIEW bcmig.traffic_stage IS 'How far the traffic of a sync that streams has got: switching, switched, rolling_back, rolled_back, completed; NULL = nothing of the kind.';

CREATE VIEW bcmig.sync_status AS
SELECT y.name AS sync, CASE WHEN s.state = 'streaming' OR g.stage = 'completed' THEN coalesce(g.stage, s.state) ELSE s.state END AS state, coalesce(t.tables, 0) AS tables, coalesce(t.tables_streaming, 0) AS tables_streaming,
       coalesce(t.rows_copied, 0) AS rows_copied, coalesce(t.rows_applied, 0) AS rows_applied,
       l.lag, l.synced_through, l.blocked_by,
       coalesce(t.quarantined, 0) AS quarantined, coalesce(t.conflicts, 0) AS conflicts,
       coalesce(b.last_error, t.last_error, s.last_error) AS last_error,
       b.answer_ms, b.throttled_since
  FROM bcmig.sync y
  JOIN bcmig.sync_state s USING (sync_id)
  LEFT JOIN (SELECT sync_id, count(*) AS tables, count(*) FILTER (WHERE state = 'streaming') AS tables_streaming,
                    sum(rows_copied)::bigint AS rows_copied, sum(rows_applied)::bigint AS rows_applied,
                    sum(quarantined)::bigint AS quarantined, sum(conflicts)::bigint AS conflicts,
                    (array_agg(last_error ORDER BY last_error_at DESC) FILTER (WHERE last_error IS NOT NULL))[1] AS last_error
               FROM bcmig.table_status GROUP BY sync_id) t USING (sync_id)
  LEFT JOIN bcmig.live_syncs() l USING (sync_id)
  LEFT JOIN bcmig.traffic_stage g USING (sync_id)
  LEFT JOIN bcmig.live_blues() b ON b.environment_id = y.environment_id AND b.owner = y.owner::oid;
COMMENT ON VIEW bcmig.sync_status IS 'One line a sync. synced_through: all that blue had committed at that time of its clock is on green; lag: how long ago that was; NULL is unknown. blocked_by: the open transaction of blue that holds it back. answer_ms: how long blue takes to answer a poll; throttled_since: since when copies, sweeps and validations wait because that is too long (option max_answer).';

CREATE VIEW bcmig.progress AS
SELECT w.pid, y.name AS sync, format('%I.%I', t.target_schema, t.target_table) AS target, w.phase,
       CASE WHEN w.phase IN ('copy', 'resync') THEN coalesce(l.rows_copied, 0) + w.rows_done ELSE w.rows_done END AS rows_done,
       w.rows_total,
       CASE WHEN w.rows_total > 0
            THEN least(100, round(100.0 * CASE WHEN w.phase IN ('copy', 'resync') THEN coalesce(l.rows_copied, 0) + w.rows_done ELSE w.rows_done END / w.rows_total, 1)) END AS percent,
       r.rows_per_s::bigint AS rows_per_s,
       CASE WHEN r.rows_per_s > 0 AND w.rows_total > 0
            THEN make_interval(secs => round(greatest(0, w.rows_total - coalesce(l.rows_copied, 0)) / r.rows_per_s)) END AS eta
  FROM bcmig.live_workers() w
  JOIN bcmig.sync_table t USING (table_id)
  JOIN bcmig.sync y ON y.sync_id = t.sync_id
  JOIN bcmig.table_state s ON s.table_id = t.table_id
  LEFT JOIN bcmig.live_tables() l ON l.table_id = t.table_id
  LEFT JOIN LATERAL (SELECT CASE WHEN w.phase IN ('copy', 'resync')
                                 THEN coalesce(l.rows_copied, 0) / greatest(extract(epoch FROM clock_timestamp() - s.copy_started), 0.001)
                                 ELSE w.rows_done / greatest(extract(epoch FROM clock_timestamp() - w.since), 0.001) END AS rows_per_s) r ON true
 WHERE w.role = 'worker' AND w.phase NOT IN ('idle', 'starting', 'window');
COMMENT ON VIEW bcmig.progress IS 'What workers do that takes long: copy, resync, index build, sweep, compare, retry; made for \watch.';

CREATE VIEW bcmig.worker_status AS
SELECT w.pid, w.role, CASE WHEN w.owner <> 0 THEN pg_get_userbyid(w.owner) END AS owner,
       e.name AS environment, y.name AS sync,
       CASE WHEN t.table_id IS NOT NULL THEN format('%I.%I', t.target_schema, t.target_table) END AS target,
       w.phase, w.since, w.jobs_done, w.rows_processed, w.errors, w.last_error
  FROM bcmig.live_workers() w
  LEFT JOIN bcmig.environment e USING (environment_id)
  LEFT JOIN bcmig.sync y ON y.sync_id = w.sync_id
  LEFT JOIN bcmig.sync_table t ON t.table_id = w.table_id;
COMMENT ON VIEW bcmig.worker_status IS 'Processes of bcmig in this database and what each of them does.';

CREATE VIEW bcmig.environment_status AS
SELECT e.name AS environment, e.side, e.server, pg_get_userbyid(b.owner) AS owner, b.reachable,
       b.clock, b.age_ms, b.horizon, b.top, b.blocked_by, b.incarnation, b.polls, b.last_error,
       b.answer_ms, b.max_answer_ms, b.throttled_since, b.throttled_ms
  FROM bcmig.environment e
  LEFT JOIN bcmig.live_blues() b USING (environment_id);
COMMENT ON VIEW bcmig.environment_status IS 'Each environment and what its pollers read last: blue''s clock, horizon (all below it has ended), top (newest given out), who holds the horizon back; how long it takes to answer (the middle one of the last polls), the bound of that, since when copies, sweeps and validations wait for it, and for how long in all since a sync of it runs.';

-- the one place that says what is worse than what; bcmig_run_finish and bcmig_wait_sync go by it too
CREATE VIEW bcmig.validation_verdict AS
SELECT p.run_id, p.table_id, p.part, p.name, p.verdict, p.hard,
       CASE WHEN p.verdict IN ('different', 'fails', 'behind') THEN CASE WHEN p.hard THEN 1 ELSE 4 END
            WHEN p.verdict IN ('inconclusive', 'error', 'running') THEN CASE WHEN p.hard THEN 2 ELSE 5 END
            WHEN p.verdict = 'fails on blue' THEN 3
            ELSE 6 END AS rank,
       p.detail
  FROM (SELECT v.run_id, v.table_id, 'data', NULL, CASE WHEN v.done THEN v.verdict ELSE 'running' END, true,
               nullif(concat_ws(', ', nullif(v.differences, 0) || ' rows differ', v.detail), '')
          FROM bcmig.validation_result v
        UNION ALL
        SELECT x.run_id, u.table_id, u.kind, u.name, x.verdict, u.severity = 'hard',
               nullif(concat_ws(', ', nullif(x.failing, 0) || ' rows', x.detail), '')
          FROM bcmig.rule_result x
          JOIN bcmig.rule u USING (rule_id)
        UNION ALL
        SELECT q.run_id, NULL, 'sequence', coalesce(q.target, q.source), q.verdict, true, q.detail
          FROM bcmig.validation_sequence q
        UNION ALL
        SELECT r.run_id, NULL, 'run', NULL, 'error', true, r.detail
          FROM bcmig.validation_run r WHERE r.detail IS NOT NULL) p (run_id, table_id, part, name, verdict, hard, detail);
COMMENT ON VIEW bcmig.validation_verdict IS 'All a run has judged: the data of each table, each rule, each sequence. rank says which verdict is the worst: 1 turns the run different, 2 inconclusive; 3 fails on blue; 4 and 5 are soft rules that do not hold; 6 is well.';

CREATE VIEW bcmig.table_verdict AS
SELECT p.run_id, p.table_id,
       CASE min(p.rank) WHEN 1 THEN 'different' WHEN 2 THEN 'inconclusive' ELSE 'ok' END AS verdict,
       (array_agg(p.word) FILTER (WHERE p.part = 'data'))[1] AS data,
       coalesce((array_agg(p.word ORDER BY p.rank, p.word) FILTER (WHERE p.part = 'reference'))[1], 'none') AS "references",
       coalesce((array_agg(p.word ORDER BY p.rank, p.word) FILTER (WHERE p.part = 'business'))[1], 'none') AS rules,
       coalesce((array_agg(p.word ORDER BY p.rank, p.word) FILTER (WHERE p.part = 'calculated'))[1], 'none') AS calculated
  FROM (SELECT *, CASE WHEN hard OR rank IN (3, 6) THEN verdict ELSE verdict || ' (soft)' END AS word FROM bcmig.validation_verdict) p
 WHERE p.table_id IS NOT NULL
 GROUP BY p.run_id, p.table_id;
COMMENT ON VIEW bcmig.table_verdict IS 'The verdict of a run on each table, the worst of its four parts: data, references, business rules, calculated fields. A part is the worst of its rules: fails before inconclusive and error, before fails on blue, before soft rules (which turn no verdict), before ok; none: the run asserted nothing of the kind.';

CREATE VIEW bcmig.validation_summary AS
SELECT r.run_id, y.name AS sync, coalesce(v.mode, r.mode) AS mode, format('%I.%I', t.target_schema, t.target_table) AS target,
       v.rows_blue, v.rows_green, v.chunks, v.differing, v.differences,
       CASE WHEN v.done AND (r.state = 'finished' OR w.verdict <> 'ok') THEN w.verdict
            WHEN v.done THEN 'ok so far'
            WHEN r.state = 'cancelled' THEN 'cancelled'
            WHEN v.started_at IS NULL THEN 'waiting'
            ELSE 'running, ' || coalesce((SELECT trunc(100 * sum(p.next_chunk - p.first_chunk) / sum(p.last_chunk - p.first_chunk + 1))
                                            FROM bcmig.validation_part p WHERE p.run_id = v.run_id AND p.table_id = v.table_id), 0) || ' %' END AS verdict,
       CASE WHEN v.done THEN w.data END AS data, w."references", w.rules, w.calculated,
       round(extract(epoch FROM coalesce(v.finished_at, clock_timestamp()) - v.started_at), 2) AS seconds, v.in_flight, v.pushdown, v.detail, r.started_at
  FROM bcmig.validation_result v
  JOIN bcmig.validation_run r USING (run_id)
  JOIN bcmig.table_verdict w ON w.run_id = v.run_id AND w.table_id = v.table_id
  JOIN bcmig.sync y ON y.sync_id = r.sync_id
  JOIN bcmig.sync_table t ON t.table_id = v.table_id
 ORDER BY r.run_id DESC, 4;
COMMENT ON VIEW bcmig.validation_summary IS 'One line a table of each validation, the newest first: rows and chunks compared, rows that differ, the verdict, and of what it is made: data, references, rules, calculated (see bcmig.table_verdict), seconds. ok so far: rules are looked at when all tables have been compared. in_flight: rows that differed only because a change was on its way; detail: why the data''s verdict is what it is.';

CREATE VIEW bcmig.table_root AS
SELECT v.run_id, v.table_id, format('%I.%I', t.target_schema, t.target_table) AS target,
       CASE WHEN v.done THEN encode(sha256(convert_to(v.rows_blue || ' ' || array_to_string(v.lanes_blue, ' '), 'UTF8')), 'hex') END AS blue,
       CASE WHEN v.done THEN encode(sha256(convert_to(v.rows_green || ' ' || array_to_string(v.lanes_green, ' '), 'UTF8')), 'hex') END AS green
  FROM bcmig.validation_result v
  JOIN bcmig.sync_table t USING (table_id);
COMMENT ON VIEW bcmig.table_root IS 'Hash root of each table of a run on either side: SHA-256 of the number of its rows and the sums of their hashes. NULL: it was not compared in full, or is not known (validation_result.lanes_blue).';

CREATE VIEW bcmig.table_proof AS
SELECT t.sync_id, t.table_id, format('%I.%I', t.target_schema, t.target_table) AS target,
       v.run_id, v.verdict, v.started_at, v.finished_at, v.rows_blue, v.rows_green, v.differences, r.blue AS root_blue, r.green AS root_green
  FROM bcmig.sync_table t
  JOIN bcmig.table_state s USING (table_id)
  LEFT JOIN (SELECT DISTINCT ON (v.table_id) v.* FROM bcmig.validation_result v WHERE v.done AND v.mode = 'full' ORDER BY v.table_id, v.run_id DESC) v
    ON v.table_id = t.table_id AND v.started_at > coalesce(s.copy_finished, s.copy_started, 'infinity')
  LEFT JOIN bcmig.table_root r ON r.run_id = v.run_id AND r.table_id = v.table_id;
COMMENT ON VIEW bcmig.table_proof IS 'The newest comparison of all rows of each table since it was copied, with its hash root on either side; NULL: there was none. What was written since then is compared by incremental runs.';

CREATE VIEW bcmig.sync_proof AS
SELECT p.sync_id, count(*) AS tables, count(p.run_id) AS compared, count(*) FILTER (WHERE p.verdict = 'ok') AS equal,
       min(p.finished_at) AS oldest_at, max(p.finished_at) AS newest_at, sum(p.rows_blue) AS rows_blue, sum(p.rows_green) AS rows_green, sum(p.differences) AS differences,
       CASE WHEN bool_and(p.root_blue IS NOT NULL) THEN encode(sha256(convert_to(string_agg(p.target || ' ' || p.root_blue, E'\n' ORDER BY p.target COLLATE "C"), 'UTF8')), 'hex') END AS root_blue,
       CASE WHEN bool_and(p.root_green IS NOT NULL) THEN encode(sha256(convert_to(string_agg(p.target || ' ' || p.root_green, E'\n' ORDER BY p.target COLLATE "C"), 'UTF8')), 'hex') END AS root_green
  FROM bcmig.table_proof p
 GROUP BY p.sync_id;
COMMENT ON VIEW bcmig.sync_proof IS 'bcmig.table_proof of a sync: how many tables were compared in full and equal, when at the earliest, and the hash root of all of them on either side: SHA-256 of a line a table, its name on green and its root. NULL: that of one of them is not known.';

CREATE VIEW bcmig.journal_pending AS
SELECT y.name AS sync, format('%I.%I', t.target_schema, t.target_table) AS target, j.key, j.entries, j.first_at, j.last_at, j.first_id, j.last_id
  FROM bcmig.journal_pending() j
  JOIN bcmig.sync y USING (sync_id)
  JOIN bcmig.sync_table t USING (table_id)
 ORDER BY j.first_id, j.key;
COMMENT ON VIEW bcmig.journal_pending IS 'Rows written on green by others than bcmig that a rollback would have to bring back to blue, a line a key.';

CREATE VIEW bcmig.journal_status AS
SELECT y.name AS sync, coalesce(t.journal_armed, false) AS journal_armed, coalesce(u.keys, 0) AS unreplayed, coalesce(c.conflicts, 0) AS conflicts,
       u.oldest_at, coalesce(v.replayed, 0) AS replayed, v.replayed_at, v.problem, v.failing_since
  FROM bcmig.sync y
  LEFT JOIN bcmig.traffic t USING (sync_id)
  LEFT JOIN (SELECT j.sync_id, count(DISTINCT (j.table_id, k.key)) AS keys, min(j.at) AS oldest_at
               FROM bcmig.journal j, unnest(ARRAY[j.old_key, j.new_key]) k(key) WHERE j.settled_at IS NULL AND k.key IS NOT NULL GROUP BY 1) u USING (sync_id)
  LEFT JOIN (SELECT sync_id, count(*) AS conflicts FROM bcmig.conflict WHERE decision IS NULL GROUP BY 1) c USING (sync_id)
  LEFT JOIN bcmig.reverse_state v USING (sync_id);
COMMENT ON VIEW bcmig.journal_status IS 'One line a sync: rows written on green that blue does not have yet (unreplayed, conflicts that wait among them) and since when, how many it was brought while writes are on green, and what is wrong with that.';

CREATE VIEW bcmig.traffic_status AS
SELECT y.name AS sync, coalesce(t.green_percent, 0) AS green_percent, coalesce(t.writes, 'blue') AS writes, coalesce(t.epoch, 0) AS epoch,
       coalesce(t.fence, false) AS fence, coalesce(t.journal_armed, false) AS journal_armed,
       w.green_percent AS wanted_percent, (t.intent ->> 'green_percent')::numeric AS changing_to, t.held,
       b.balancers, b.problems AS balancer_problems, coalesce(i.witness, 'none') AS witness, i.witness_error, i.disputed IS NOT NULL AS disputed, e.event AS last_event, e.at AS last_event_at, e.detail AS last_detail,
       t.blue_fence, t.blue_fence_at
  FROM bcmig.sync y
  LEFT JOIN bcmig.traffic t USING (sync_id)
  LEFT JOIN bcmig.incarnation i USING (sync_id)
  LEFT JOIN LATERAL (SELECT w.green_percent FROM bcmig.traffic_request w WHERE w.sync_id = y.sync_id ORDER BY w.request_id DESC LIMIT 1) w ON true
  LEFT JOIN LATERAL (SELECT count(*) AS balancers, string_agg(b.name || ': ' || s.error, '; ' ORDER BY b.name) AS problems
                       FROM bcmig.balancer b LEFT JOIN bcmig.balancer_state s USING (balancer_id) WHERE b.sync_id = y.sync_id) b ON true
  LEFT JOIN LATERAL (SELECT e.event, e.at, e.detail FROM bcmig.traffic_event e WHERE e.sync_name = y.name ORDER BY e.event_id DESC LIMIT 1) e ON true;
COMMENT ON VIEW bcmig.traffic_status IS 'One line a sync: its share of traffic on green, what is asked for (wanted_percent), being done (changing_to) or held, what is wrong with its balancers, whether blue keeps a witness of it (bcmig.incarnation), and what happened last.';

CREATE VIEW bcmig.timeline AS
SELECT a.at, a.sync_name AS sync, a.target, a.kind, a.event, a.detail, a.actor
  FROM bcmig.audit_log a
 ORDER BY a.at, a.audit_id;
COMMENT ON VIEW bcmig.timeline IS 'Commands, states, errors, schema changes, validations and alerts in one order; audit_log.kind says what each is.';

CREATE VIEW bcmig.lag_bound AS
SELECT k.*, k.max_latency + k.between_polls + k.sweeps AS bound
  FROM (SELECT y.sync_id, interval '1 ms' * coalesce((y.options ->> 'max_latency')::bigint, 100) AS max_latency,
               interval '1 ms' * (3000 + 3 * coalesce(nullif(y.options ->> 'poll_interval', 'auto')::bigint, 0)) AS between_polls,
               -- deletes that come by sweep are known once a sweep is over
               interval '1.5 ms' * coalesce((SELECT max(coalesce(t.options ->> 'sweep_interval', y.options ->> 'sweep_interval', '900000')::bigint)
                                               FROM bcmig.sync_table t WHERE t.sync_id = y.sync_id AND t.capture <> 'change_tracking'), 0) AS sweeps
          FROM bcmig.sync y) k;
COMMENT ON VIEW bcmig.lag_bound IS 'How far behind a sync may be found when nothing is wrong: option max_latency, what lies between two polls, and where deletes come by sweep, between two sweeps.';

-- A branch for each alert: its conditions are the rows there are.
CREATE VIEW bcmig.alert_condition AS
WITH y AS MATERIALIZED (
    SELECT y.sync_id, y.name, s.state, s.since, s.last_error, l.lag, l.synced_through, b.clock, b.blocked_by, e.name AS environment,
           b.answer_ms, b.max_answer_ms, b.throttled_since,
           k.max_latency, interval '1 ms' * coalesce((y.options ->> 'proof_age')::bigint, 604800000) AS max_age, k.between_polls, k.sweeps
      FROM bcmig.sync y
      JOIN bcmig.sync_state s USING (sync_id)
      JOIN bcmig.lag_bound k USING (sync_id)
      JOIN bcmig.environment e USING (environment_id)
      LEFT JOIN bcmig.live_syncs() l USING (sync_id)
      LEFT JOIN bcmig.live_blues() b ON b.environment_id = y.environment_id AND b.owner = y.owner::oid
), t AS NOT MATERIALIZED (
    SELECT t.table_id, y.name, format('%I.%I', t.target_schema, t.target_table) AS target, s.state, s.reason
      FROM bcmig.sync_table t JOIN bcmig.sync y USING (sync_id) JOIN bcmig.table_state s USING (table_id)
), v AS MATERIALIZED (
    SELECT DISTINCT ON (r.sync_id) r.sync_id, r.run_id, r.mode, r.verdict, r.finished_at
      FROM bcmig.validation_run r WHERE r.table_id IS NULL AND r.state = 'finished' ORDER BY r.sync_id, r.run_id DESC
)
SELECT 'lag' AS name, y.name AS sync, NULL AS target, 'warning' AS severity, y.lag::text AS value, (y.max_latency + y.sweeps)::text AS bound,
       'Green is behind blue' || coalesce(', held back by ' || y.blocked_by, '') || '.' AS detail,
       format('SELECT * FROM bcmig_status(%L);', y.name) AS fix, 3 AS looks
  FROM y WHERE y.state = 'streaming' AND (y.clock - y.synced_through > y.max_latency + y.sweeps OR y.lag > y.max_latency + y.sweeps + y.between_polls)
UNION ALL
SELECT 'lag_unknown', y.name, NULL, 'warning', NULL, y.max_latency::text, 'Nothing proves how far green is: a table does not stream, or blue''s clock has not been read.',
       format('SELECT * FROM bcmig.table_status WHERE sync = %L AND state <> ''streaming'';', y.name), 3
  FROM y WHERE y.state IN ('streaming', 'failed') AND y.lag IS NULL
UNION ALL
SELECT 'blue_unreachable', y.name, NULL, 'critical', NULL, NULL, 'Blue does not answer: ' || coalesce(y.last_error, 'no reason given') || '.',
       format('SELECT * FROM bcmig_check_environment(%L);', y.environment), 3
  FROM y WHERE y.state = 'waiting'
UNION ALL
SELECT 'throttled', y.name, NULL, 'warning', round(y.answer_ms)::text || ' ms', y.max_answer_ms::text || ' ms', 'Copies, sweeps and validations have been waiting for more than a minute: blue takes too long to answer.',
       format('SELECT bcmig_alter_sync(%L, ''{"max_answer": "%s ms"}''); -- or relieve blue', y.name, ceil(2 * y.answer_ms)), 1
  FROM y WHERE y.state IN ('copying', 'streaming') AND y.throttled_since < clock_timestamp() - interval '1 min'
UNION ALL
SELECT 'sync_failed', y.name, NULL, 'critical', '0', '1', 'No table streams: all are suspended.',
       format('SELECT target, reason FROM bcmig.table_status WHERE sync = %L AND state = ''suspended'';', y.name), 1
  FROM y WHERE y.state = 'failed'
UNION ALL
SELECT 'table_suspended', t.name, t.target, 'critical', NULL, NULL, t.reason, format('SELECT bcmig_resume_table(%L, %L);', t.name, t.target), 1
  FROM t WHERE t.state = 'suspended'
UNION ALL
SELECT 'quarantine', t.name, t.target, 'warning', q.n::text, '0', q.n || ' rows were refused, the first: ' || left(f.message, 500),
       format('SELECT bcmig_retry_quarantine(%L);', t.name), 1
  FROM (SELECT table_id, count(*) AS n, min(quarantine_id) AS first FROM bcmig.quarantine GROUP BY 1) q
  JOIN t USING (table_id)
  JOIN bcmig.quarantine f ON f.quarantine_id = q.first
UNION ALL
SELECT 'conflict', t.name, t.target, 'warning', c.n::text, '0', c.n || ' rows were changed on blue and by an outside write, and wait for a decision.',
       format('SELECT bcmig_resolve_conflict(%s, ''source''); -- or target', c.first), 1
  FROM (SELECT table_id, count(*) AS n, min(conflict_id) AS first FROM bcmig.conflict WHERE decision IS NULL GROUP BY 1) c JOIN t USING (table_id)
UNION ALL
SELECT 'validation', y.name, NULL, CASE v.verdict WHEN 'different' THEN 'critical' ELSE 'warning' END, v.verdict, 'ok', format('Run %s (%s) was %s.', v.run_id, v.mode, v.verdict),
       format('SELECT * FROM bcmig.validation_summary WHERE run_id = %s AND verdict <> ''ok'';', v.run_id), 1
  FROM v JOIN y USING (sync_id) WHERE v.verdict <> 'ok'
UNION ALL
SELECT 'validation_old', y.name, NULL, 'warning', coalesce(to_char(v.finished_at, 'YYYY-MM-DD HH24:MI'), 'never'), y.max_age::text, 'The sync was not validated for long.',
       format('SELECT bcmig_validate(%L);', y.name), 1
  FROM y LEFT JOIN v USING (sync_id) WHERE y.state = 'streaming' AND coalesce(v.finished_at, y.since) < clock_timestamp() - y.max_age
UNION ALL
SELECT 'traffic_held', t.sync, NULL, 'critical', t.green_percent || ' %', NULL, t.held, format('SELECT %s(%L);', CASE WHEN t.disputed THEN 'bcmig_adopt' ELSE 'bcmig_resume_traffic' END, t.sync), 1
  FROM bcmig.traffic_status t WHERE t.held IS NOT NULL
UNION ALL
SELECT 'unreplayed', j.sync, NULL, 'critical', j.unreplayed::text, '0', 'What is written on green does not reach blue: ' || j.problem || '.',
       format('SELECT * FROM bcmig.journal_status WHERE sync = %L;', j.sync), 3
  FROM bcmig.journal_status j WHERE j.failing_since IS NOT NULL AND j.unreplayed > j.conflicts
UNION ALL
SELECT 'switch_waits', w.sync, NULL, 'critical', w.phase_for::text, NULL, format('The switch waits for %s.', w.phase),
       format('SELECT bcmig_blue_script(''fence'', %L); -- review, run on blue', w.sync), 1
  FROM bcmig.switch_status w WHERE w.kind = 'switch' AND w.state = 'running' AND w.phase = 'blue to be fenced by a person'
UNION ALL
SELECT 'rollback_waits', w.sync, NULL, 'critical', w.asked_at::text, '00:01:00', format('A rollback is not done after a minute: %s.', concat_ws(', ', w.phase, w.problem)),
       format('SELECT phase, phase_for, problem FROM bcmig.switch_status WHERE sync = %L LIMIT 1;', w.sync), 1
  FROM bcmig.switch_status w WHERE w.kind = 'rollback' AND w.state = 'running' AND w.asked_at < clock_timestamp() - interval '1 min'
UNION ALL
SELECT 'writes_stopped', w.sync, NULL, 'critical', w.stopped::text, w.bound::text, format('Nobody can write, on neither side: %s, %s.', w.kind, concat_ws(', ', w.phase, w.problem)),
       format('SELECT kind, phase, writes_stopped_ms, problem FROM bcmig.switch_status WHERE sync = %L LIMIT 1;', w.sync), 1
  FROM (SELECT w.*, interval '1 ms' * w.writes_stopped_ms AS stopped, interval '1 ms' * coalesce((x.options ->> 'write_pause')::bigint, 30000) AS bound
          FROM bcmig.switch_status w JOIN bcmig.switch x USING (switch_id)) w
 WHERE w.stopped > w.bound
UNION ALL
SELECT 'balancer', t.sync, NULL, 'critical', NULL, t.green_percent || ' %', t.balancer_problems, format('SELECT * FROM bcmig.traffic_status WHERE sync = %L;', t.sync), 3
  FROM bcmig.traffic_status t WHERE t.balancer_problems IS NOT NULL;
COMMENT ON VIEW bcmig.alert_condition IS 'What is wrong at this moment, for the manager, which raises and clears alerts by it; looks: how often in a row it must be so.';

CREATE VIEW bcmig.alert AS
SELECT alert_id, name, sync_name AS sync, target, severity, raised_at, cleared_at, value, bound, detail, fix
  FROM bcmig.alert_log
 ORDER BY cleared_at IS NOT NULL, raised_at DESC, alert_id DESC;
COMMENT ON VIEW bcmig.alert IS 'What asks for a person, now (cleared_at is NULL) and lately: each raised once, cleared once. value and bound are those of when it was raised; fix is a statement to run.';

CREATE FUNCTION bcmig_status(sync text DEFAULT NULL)
    RETURNS TABLE (sync_name text, state text, lag interval, green_percent numeric, proof text, problems text, next_step text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
SELECT s.sync, s.state, s.lag, d.green_percent,
       coalesce((SELECT CASE WHEN r.state = 'running' THEN 'validation ' || r.run_id || ' is running' ELSE r.verdict || ' (' || r.mode || ', ' || to_char(r.finished_at, 'YYYY-MM-DD HH24:MI') || ')' END
                   FROM bcmig.validation_run r JOIN bcmig.sync y USING (sync_id)
                  WHERE y.name = s.sync AND r.table_id IS NULL AND r.state <> 'cancelled' ORDER BY r.run_id DESC LIMIT 1), 'not validated'),
       nullif(concat_ws('; ',
              v.problem,
              CASE WHEN s.state = 'waiting' THEN 'blue does not answer: ' || coalesce(s.last_error, '?') END,
              CASE WHEN s.throttled_since IS NOT NULL THEN 'blue takes ' || round(s.answer_ms) || ' ms to answer: copies, sweeps and validations wait' END,
              CASE WHEN s.quarantined > 0 THEN s.quarantined || ' rows in quarantine' END,
              CASE WHEN s.conflicts > 0 THEN s.conflicts || ' conflicts wait for a decision' END,
              (SELECT count(*) || ' tables suspended, first: ' || min(t.target || ': ' || t.reason)
                 FROM bcmig.table_status t WHERE t.sync = s.sync AND t.state = 'suspended' HAVING count(*) > 0),
              CASE WHEN s.blocked_by IS NOT NULL THEN 'held back by ' || s.blocked_by END,
              'traffic is held: ' || d.held,
              CASE WHEN w.state = 'running' AND d.held IS NULL THEN concat_ws(', ', w.kind, w.phase) || ': ' || w.problem
                   WHEN w.state = 'failed' THEN 'the last ' || w.kind || ' failed: ' || w.problem END,
              (SELECT 'what is written on green does not reach blue: ' || j.problem FROM bcmig.journal_status j WHERE j.sync = s.sync AND j.journal_armed)), ''),
       CASE WHEN v.problem IS NOT NULL THEN 'SELECT phase, last_error FROM bcmig.worker_status WHERE role = ''manager'';'
            WHEN s.tables = 0 THEN format('SELECT bcmig_add_table(%L, ''...'');', s.sync)
            WHEN s.state IN ('created', 'stopped') THEN format('SELECT bcmig_start_sync(%L);', s.sync)
            WHEN s.state = 'held' AND NOT d.disputed THEN format('SELECT bcmig_alter_sync(%L, ''{"maintenance": false}''); -- when the work on blue is done', s.sync)
            WHEN d.held IS NOT NULL THEN format('SELECT %s(%L);', CASE WHEN d.disputed THEN 'bcmig_adopt' ELSE 'bcmig_resume_traffic' END, s.sync)
            WHEN w.state = 'running' AND w.kind = 'rollback' AND w.problem IS NOT NULL
            THEN format('SELECT phase, phase_for, problem FROM bcmig.switch_status WHERE sync = %L LIMIT 1;', s.sync)
            WHEN w.state = 'running' AND w.kind = 'rollback' THEN format('CALL bcmig_wait_sync(%L, ''rolled_back'', ''1 hour'');', s.sync)
            WHEN w.state = 'running' AND w.phase = 'blue to be fenced by a person' THEN format('SELECT bcmig_blue_script(''fence'', %L); -- review, run on blue', s.sync)
            WHEN EXISTS (SELECT FROM bcmig.schema_change c JOIN bcmig.sync y USING (sync_id) WHERE y.name = s.sync AND c.settled_at IS NULL)
            THEN format('SELECT object, detail, fix FROM bcmig.schema_change JOIN bcmig.sync USING (sync_id) WHERE name = %L AND settled_at IS NULL;', s.sync)
            WHEN EXISTS (SELECT FROM bcmig.table_status t WHERE t.sync = s.sync AND t.state = 'suspended')
            THEN format('SELECT target, reason FROM bcmig.table_status WHERE sync = %L AND state = ''suspended'';', s.sync)
            WHEN s.quarantined > 0 THEN format('SELECT * FROM bcmig.quarantine; SELECT bcmig_retry_quarantine(%L);', s.sync)
            WHEN s.conflicts > 0
            THEN format('SELECT conflict_id, key, blue, green, detail FROM bcmig.conflict JOIN bcmig.sync USING (sync_id) WHERE name = %L AND decision IS NULL; -- then bcmig_resolve_conflict(conflict_id, ''source'' or ''target'')', s.sync)
            WHEN s.state = 'waiting' THEN format('SELECT * FROM bcmig_check_environment(%L);',
                 (SELECT e.name FROM bcmig.sync y JOIN bcmig.environment e USING (environment_id) WHERE y.name = s.sync))
            WHEN w.state = 'running' AND w.problem IS NOT NULL THEN format('SELECT * FROM bcmig_check_gates(%L) WHERE status NOT IN (''ok'', ''skipped'');', s.sync)
            WHEN w.state = 'running' THEN format('CALL bcmig_wait_sync(%L, ''switched'', ''1 hour'');', s.sync)
            WHEN s.state = 'switched' THEN format('SELECT * FROM bcmig_complete_sync(%1$L, confirm => %1$L, dry_run => true); -- gives up the way back, which is bcmig_rollback(%1$L, ''why'')', s.sync)
            WHEN s.state = 'completed' THEN format('SELECT * FROM bcmig_drop_sync(%L, dry_run => true); -- forgets it, the tables stay', s.sync)
            ELSE format('CALL bcmig_wait_sync(%L, ''caught_up'');', s.sync) END
  FROM bcmig.sync_status s
  LEFT JOIN bcmig.traffic_status d USING (sync)
  LEFT JOIN LATERAL (SELECT w.* FROM bcmig.switch_status w WHERE w.sync = s.sync ORDER BY w.state = 'running' DESC, w.switch_id DESC LIMIT 1) w ON true
  LEFT JOIN (SELECT 'nothing goes on: ' || l.last_error AS problem FROM bcmig.live_workers() l WHERE l.role = 'manager' AND l.phase = 'waits for its version') v ON true
 WHERE bcmig_status.sync IS NULL OR s.sync = bcmig_status.sync
 ORDER BY s.sync;
END;
COMMENT ON FUNCTION bcmig_status(text) IS 'report: one line a sync: state, lag, share of traffic on green, proof, problems, and the next step as a statement to run.';

CREATE FUNCTION bcmig_health_report(sync text DEFAULT NULL, format text DEFAULT 'text') RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION bcmig_health_report(text, text) IS 'report: how a sync, or all and all together, did in the last five minutes: latency, records processed, workers, error rate, and an assessment: excellent (average latency at most 100 ms, at most 1 % of the rows failed), good (500 ms, 5 %), needs attention, or unknown. format: text, json or html.';

CREATE FUNCTION bcmig_sync_report(sync text DEFAULT NULL, format text DEFAULT 'text') RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION bcmig_sync_report(text, text) IS 'report: how a sync, or all and all together, did in the last seven days: tables configured and active, latency, rows, error rate, and an assessment: excellent (average latency at most 1 s, at most 1 % of the rows failed), good (5 s, 5 %), needs attention, or unknown. format: text, json or html.';

CREATE FUNCTION bcmig_add_baseline_query(name text, blue_query text, green_query text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_add_baseline_query(text, text, text) IS 'configuration: a query whose answer time bcmig_baseline measures: for blue in its SQL, of one column where that is SQL Server, and for green one plain SELECT, names with their schema.';
CREATE FUNCTION bcmig_remove_baseline_query(name text) RETURNS void
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_remove_baseline_query(text) IS 'configuration: measure a query no more; what was measured stays.';
CREATE FUNCTION bcmig_baseline(environment text) RETURNS bigint
    AS 'MODULE_PATHNAME' LANGUAGE C;
COMMENT ON FUNCTION bcmig_baseline(text) IS 'request: store what a side is like now: rows, bytes, columns and indexes of the tables of its syncs, and the answer times of the queries of bcmig_add_baseline_query (median of five). Blue is asked as the owner of the environment. The migration report compares the newest of blue and of green. Returns its id.';
REVOKE ALL ON FUNCTION bcmig_add_baseline_query(text, text, text), bcmig_remove_baseline_query(text), bcmig_baseline(text) FROM PUBLIC;

CREATE FUNCTION bcmig_progress_report(execution bigint DEFAULT NULL)
    RETURNS TABLE (execution_id bigint, plan text, kind text, status text, percent numeric, basis text, elapsed interval, eta interval,
                   phases_total bigint, phases_completed bigint, phases_running bigint, phases_failed bigint, current_phase text, tables_behind bigint, assessment text)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
WITH e AS (
    SELECT e.*, coalesce(e.ended_at, clock_timestamp()) - e.started_at AS elapsed FROM bcmig.execution e
     WHERE e.execution_id = coalesce(bcmig_progress_report.execution, (SELECT max(x.execution_id) FROM bcmig.execution x))
), past AS (
    SELECT x.execution_id, x.ended_at - x.started_at AS elapsed
      FROM bcmig.execution x JOIN e ON x.plan_name = e.plan_name AND x.execution_id < e.execution_id
     WHERE x.state = 'done' ORDER BY x.execution_id DESC LIMIT 1
), took AS (
    SELECT p.name, p.sync, avg(greatest(extract(epoch FROM p.ended_at - p.started_at), 0.001)) AS seconds
      FROM bcmig.phase_run p JOIN past USING (execution_id) WHERE p.state = 'done' AND p.ended_at IS NOT NULL GROUP BY 1, 2
), p AS (
    SELECT p.*, coalesce(t.seconds, (SELECT avg(n.seconds) FROM took n WHERE n.name = p.name), (SELECT avg(n.seconds) FROM took n), 1) AS weight,
           CASE p.state WHEN 'done' THEN 1 WHEN 'running' THEN least(100, greatest(0, coalesce(p.percent, 0))) / 100 ELSE 0 END AS part
      FROM e JOIN bcmig.phase_run p USING (execution_id) LEFT JOIN took t ON t.name = p.name AND t.sync = p.sync
), n AS (
    SELECT count(*) AS total, count(*) FILTER (WHERE p.state IN ('done', 'skipped')) AS completed,
           count(*) FILTER (WHERE p.state IN ('running', 'compensating')) AS running,
           count(*) FILTER (WHERE p.state IN ('failed', 'not_compensated')) AS failed,
           count(*) FILTER (WHERE p.state = 'waiting') AS waiting,
           CASE WHEN count(*) FILTER (WHERE p.state <> 'skipped') > 0
                THEN 100 * sum(p.weight * p.part) FILTER (WHERE p.state <> 'skipped') / sum(p.weight) FILTER (WHERE p.state <> 'skipped')
                WHEN count(*) > 0 THEN 100 END AS percent,
           string_agg(p.name || CASE WHEN p.sync <> '' THEN ' (' || p.sync || ')' ELSE '' END || CASE p.state WHEN 'running' THEN '' ELSE ': ' || p.state END, ', ' ORDER BY p.wave, p.position, p.sync)
             FILTER (WHERE p.state IN ('running', 'waiting', 'compensating')) AS current_phase
      FROM p
)
SELECT e.execution_id, e.plan_name, e.kind, e.state, round(n.percent, 1),
       CASE WHEN n.total = 0 THEN NULL WHEN past.execution_id IS NOT NULL THEN 'time of each phase in execution ' || past.execution_id ELSE 'phases count alike' END,
       date_trunc('second', e.elapsed),
       CASE WHEN e.ended_at IS NOT NULL OR e.state <> 'running' THEN NULL
            WHEN past.elapsed IS NOT NULL THEN date_trunc('second', past.elapsed * (1 - n.percent / 100)::float8)
            WHEN n.percent >= 1 THEN date_trunc('second', e.elapsed * (100 / n.percent - 1)::float8) END,
       n.total, n.completed, n.running, n.failed, n.current_phase,
       (SELECT count(*) FROM bcmig.table_status t WHERE t.sync = ANY (e.syncs) AND (t.state <> 'streaming' OR t.clean IS NOT TRUE)),
       CASE WHEN e.state = 'done' THEN 'done'
            WHEN e.state IN ('failed', 'cancelled', 'rolled_back', 'compensating') OR n.failed > 0 THEN e.state || coalesce(': ' || e.error, '')
            WHEN e.state = 'paused' THEN 'paused'
            WHEN e.heartbeat_at < clock_timestamp() - interval '1 min' THEN 'needs attention: nothing was heard of its runner since ' || to_char(e.heartbeat_at, 'YYYY-MM-DD HH24:MI:SSOF')
            WHEN n.waiting > 0 AND n.running = 0 THEN 'waits: ' || n.current_phase
            WHEN past.elapsed IS NOT NULL AND e.elapsed > 1.5 * past.elapsed THEN 'slow: execution ' || past.execution_id || ' was over after ' || date_trunc('second', past.elapsed)
            ELSE 'on its way' END
  FROM e CROSS JOIN n LEFT JOIN past ON true;
END;
COMMENT ON FUNCTION bcmig_progress_report(bigint) IS 'report: where an execution of a plan is (NULL: the newest): percent and time left by how long each phase took the last time the plan was carried through or rehearsed, where it was, else by phases (basis says which); tables_behind: tables of its syncs that are not in step at this moment; assessment.';

CREATE FUNCTION bcmig_rollback_report(sync text, format text DEFAULT 'text') RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION bcmig_rollback_report(text, text) IS 'report: what became of the newest rollback of a sync: when readers were back, how long writes were stopped, rows brought to blue and those that are not there yet, conflicts, what was preserved, what to do next; without one, whether a rollback could be begun. format: text, json or html.';

CREATE FUNCTION bcmig_migration_report(execution bigint DEFAULT NULL, format text DEFAULT 'text') RETURNS text
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION bcmig_migration_report(bigint, text) IS 'report: what became of an execution of a plan, or (NULL) of all syncs: GO, NO-GO or UNKNOWN by the gates of each sync; data and speed, proof with hash roots of both sides, phases, conflicts, write pause, what it has cost blue, audit root, whether it can be rolled back, what to do next. format: text, json, or html: one file with plots, without links or scripts.';

REVOKE ALL ON FUNCTION bcmig_health_report(text, text), bcmig_sync_report(text, text), bcmig_progress_report(bigint), bcmig_migration_report(bigint, text), bcmig_rollback_report(text, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION bcmig.exact(anyelement, anyelement, text), bcmig.live_workers(), bcmig.live_blues(),
    bcmig.live_tables(), bcmig.live_syncs(), bcmig_status(text) FROM PUBLIC;
REVOKE ALL ON PROCEDURE bcmig_wait_sync(text, text, interval), bcmig.raise_fence(text, interval, boolean, boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION bcmig.lift_fence(text), bcmig.arm_journal(text), bcmig.disarm_journal(text), bcmig.journal_row(),
    bcmig.journal_pending(text) FROM PUBLIC;

-- what the other columns of tables are
COMMENT ON COLUMN bcmig.option.unit IS 'of numbers; what it is given in and shown in';
COMMENT ON COLUMN bcmig.option.min_value IS 'of kinds that are numbers, in that unit';
COMMENT ON COLUMN bcmig.option.max_value IS 'of kinds that are numbers, in that unit';
COMMENT ON COLUMN bcmig.option.choices IS 'of kind enum; of others words that may stand for a number, such as auto';

COMMENT ON COLUMN bcmig.environment.environment_id IS 'its number';
COMMENT ON COLUMN bcmig.environment.name IS 'as functions take it';
COMMENT ON COLUMN bcmig.environment.health_url IS 'as bcmig_add_environment was given it';
COMMENT ON COLUMN bcmig.environment.options IS 'what was set of bcmig.option';
COMMENT ON COLUMN bcmig.environment.owner IS 'role that has registered it';
COMMENT ON COLUMN bcmig.environment.created_at IS 'when that was';

COMMENT ON COLUMN bcmig.sync.sync_id IS 'its number';
COMMENT ON COLUMN bcmig.sync.name IS 'as functions take it';
COMMENT ON COLUMN bcmig.sync.options IS 'what was set of bcmig.option';
COMMENT ON COLUMN bcmig.sync.created_at IS 'when it was created';

COMMENT ON COLUMN bcmig.sync_table.table_id IS 'its number';
COMMENT ON COLUMN bcmig.sync_table.source_schema IS 'schema on blue';
COMMENT ON COLUMN bcmig.sync_table.source_table IS 'name on blue, as blue spells it';
COMMENT ON COLUMN bcmig.sync_table.target_schema IS 'schema on green';
COMMENT ON COLUMN bcmig.sync_table.target_table IS 'name on green';
COMMENT ON COLUMN bcmig.sync_table.options IS 'what was set of bcmig.option';
COMMENT ON COLUMN bcmig.sync_table.created_at IS 'when it was added';

COMMENT ON COLUMN bcmig.companion.source_schema IS 'schema on blue';
COMMENT ON COLUMN bcmig.companion.source_table IS 'name on blue';
COMMENT ON COLUMN bcmig.companion.version_column IS 'its column that holds the row version; NULL = none';

COMMENT ON COLUMN bcmig.column_map.ordinal IS 'place in the feed, from 1';
COMMENT ON COLUMN bcmig.column_map.source_column IS 'name on blue';
COMMENT ON COLUMN bcmig.column_map.target_column IS 'name on green';
COMMENT ON COLUMN bcmig.column_map.target_type IS 'type on green';

COMMENT ON COLUMN bcmig.traffic.updated_at IS 'when the row was last written';

COMMENT ON COLUMN bcmig.incarnation.database IS 'oid of the database';
COMMENT ON COLUMN bcmig.incarnation.timeline IS 'of the write-ahead log';

COMMENT ON COLUMN bcmig.balancer.balancer_id IS 'its number';
COMMENT ON COLUMN bcmig.balancer.name IS 'as functions take it';
COMMENT ON COLUMN bcmig.balancer.driver IS 'haproxy, http or function';
COMMENT ON COLUMN bcmig.balancer.created_at IS 'when it was added';

COMMENT ON COLUMN bcmig.gate.gate_id IS 'its number';
COMMENT ON COLUMN bcmig.gate.name IS 'as functions take it';
COMMENT ON COLUMN bcmig.gate.query IS 'that must return true';
COMMENT ON COLUMN bcmig.gate.created_at IS 'when it was added';

COMMENT ON COLUMN bcmig.plan.plan_id IS 'its number';
COMMENT ON COLUMN bcmig.plan.name IS 'as functions take it';
COMMENT ON COLUMN bcmig.plan.options IS 'of a plan, and of its switches';
COMMENT ON COLUMN bcmig.plan.by IS 'who has created it';
COMMENT ON COLUMN bcmig.plan.created_at IS 'when that was';

COMMENT ON COLUMN bcmig.phase.position IS 'order of the phases, from 1';
COMMENT ON COLUMN bcmig.phase.name IS 'unique in its plan';
COMMENT ON COLUMN bcmig.phase.arguments IS 'of the action';
COMMENT ON COLUMN bcmig.phase.active IS 'false leaves it out';
COMMENT ON COLUMN bcmig.phase.timeout IS 'how long it may take';
COMMENT ON COLUMN bcmig.phase.retries IS 'how often it is tried again';

COMMENT ON COLUMN bcmig.baseline_query.query_id IS 'its number';
COMMENT ON COLUMN bcmig.baseline_query.name IS 'as functions take it';
COMMENT ON COLUMN bcmig.baseline_query.blue_query IS 'in blue''s SQL';
COMMENT ON COLUMN bcmig.baseline_query.green_query IS 'in green''s SQL';
COMMENT ON COLUMN bcmig.baseline_query.created_at IS 'when it was registered';

COMMENT ON COLUMN bcmig.blue_position.owner IS 'of the syncs it reads for';
COMMENT ON COLUMN bcmig.blue_position.horizon IS 'all transactions of blue below it have ended';
COMMENT ON COLUMN bcmig.blue_position.seen IS 'the dialect''s own mark of what at or above it was seen';
COMMENT ON COLUMN bcmig.blue_position.dirty IS 'tables that have changes to be read';
COMMENT ON COLUMN bcmig.blue_position.incarnation IS 'what tells this blue from a restored or restarted one';
COMMENT ON COLUMN bcmig.blue_position.incarnation_hash IS 'its hash, as tables and readings have it';
COMMENT ON COLUMN bcmig.blue_position.clock IS 'blue''s clock then';
COMMENT ON COLUMN bcmig.blue_position.updated_at IS 'when it was stored';

COMMENT ON COLUMN bcmig.traffic_request.request_id IS 'the last one of a sync counts';
COMMENT ON COLUMN bcmig.traffic_request.green_percent IS 'weight asked for';
COMMENT ON COLUMN bcmig.traffic_request.by IS 'who has asked';
COMMENT ON COLUMN bcmig.traffic_request.at IS 'when';

COMMENT ON COLUMN bcmig.switch.switch_id IS 'its number';
COMMENT ON COLUMN bcmig.switch.steps IS 'weights, in their order; NULL = a rollback';
COMMENT ON COLUMN bcmig.switch.options IS 'as given';
COMMENT ON COLUMN bcmig.switch.reason IS 'of a rollback, as given';
COMMENT ON COLUMN bcmig.switch.by IS 'who has asked for it';
COMMENT ON COLUMN bcmig.switch.asked_at IS 'when';
COMMENT ON COLUMN bcmig.switch.phase_since IS 'since when it is in phase';
COMMENT ON COLUMN bcmig.switch.writes_stopped_at IS 'when writes were stopped; NULL = they were not';
COMMENT ON COLUMN bcmig.switch.ended_at IS 'when it was over; NULL = it is not';

COMMENT ON COLUMN bcmig.confirmation.confirmation_id IS 'its number';
COMMENT ON COLUMN bcmig.confirmation.note IS 'as given';
COMMENT ON COLUMN bcmig.confirmation.by IS 'who has said so';
COMMENT ON COLUMN bcmig.confirmation.at IS 'when';

COMMENT ON COLUMN bcmig.blue_fence_trial.trial_id IS 'the last one of a sync counts';
COMMENT ON COLUMN bcmig.blue_fence_trial.by IS 'who has asked';
COMMENT ON COLUMN bcmig.blue_fence_trial.at IS 'when';

COMMENT ON COLUMN bcmig.balancer_state.read_at IS 'when it was last read';

COMMENT ON COLUMN bcmig.health.asked_at IS 'when it was last asked';
COMMENT ON COLUMN bcmig.health.ok IS 'whether that was well';
COMMENT ON COLUMN bcmig.health.detail IS 'status and what was wrong';

COMMENT ON COLUMN bcmig.gate_answer.asked_at IS 'when it was last asked';
COMMENT ON COLUMN bcmig.gate_answer.detail IS 'error of the query';

COMMENT ON COLUMN bcmig.traffic_event.event_id IS 'its number';
COMMENT ON COLUMN bcmig.traffic_event.at IS 'when';
COMMENT ON COLUMN bcmig.traffic_event.sync_name IS 'of which sync';
COMMENT ON COLUMN bcmig.traffic_event.from_percent IS 'weight before';
COMMENT ON COLUMN bcmig.traffic_event.to_percent IS 'weight it was about';
COMMENT ON COLUMN bcmig.traffic_event.epoch IS 'given out with the change';
COMMENT ON COLUMN bcmig.traffic_event.detail IS 'why, or what else there is to know';

COMMENT ON COLUMN bcmig.gate_result.check_name IS 'of the gate, as in bcmig_check_gates';
COMMENT ON COLUMN bcmig.gate_result.value IS 'what was';
COMMENT ON COLUMN bcmig.gate_result.bound IS 'what must be';
COMMENT ON COLUMN bcmig.gate_result.detail IS 'why';
COMMENT ON COLUMN bcmig.gate_result.fix IS 'statement to run';

COMMENT ON COLUMN bcmig.execution.execution_id IS 'its number';
COMMENT ON COLUMN bcmig.execution.plan_name IS 'of the plan it was begun from';
COMMENT ON COLUMN bcmig.execution.owner IS 'role its phases run as';
COMMENT ON COLUMN bcmig.execution.syncs IS 'names of its syncs';
COMMENT ON COLUMN bcmig.execution.options IS 'of the plan, as they were';
COMMENT ON COLUMN bcmig.execution.by IS 'who has begun it';
COMMENT ON COLUMN bcmig.execution.started_at IS 'when';
COMMENT ON COLUMN bcmig.execution.ended_at IS 'when it was over; NULL = it is not';
COMMENT ON COLUMN bcmig.execution.pid IS 'of its runner';
COMMENT ON COLUMN bcmig.execution.error IS 'of the first phase that failed';

COMMENT ON COLUMN bcmig.execution_request.request_id IS 'in this order';
COMMENT ON COLUMN bcmig.execution_request.phase IS 'name of the phase it is about; NULL = the execution';
COMMENT ON COLUMN bcmig.execution_request.reason IS 'as given';
COMMENT ON COLUMN bcmig.execution_request.by IS 'who';
COMMENT ON COLUMN bcmig.execution_request.at IS 'when';

COMMENT ON COLUMN bcmig.phase_run.position IS 'order of the phases, from 1';
COMMENT ON COLUMN bcmig.phase_run.wave IS 'number of the wave of its sync';
COMMENT ON COLUMN bcmig.phase_run.name IS 'of the phase';
COMMENT ON COLUMN bcmig.phase_run.type IS 'of the phase';
COMMENT ON COLUMN bcmig.phase_run.action IS 'what it does';
COMMENT ON COLUMN bcmig.phase_run.arguments IS 'of that';
COMMENT ON COLUMN bcmig.phase_run.depends_on IS 'phases that must be done before';
COMMENT ON COLUMN bcmig.phase_run.timeout IS 'how long it may take';
COMMENT ON COLUMN bcmig.phase_run.retries IS 'how often it is tried again';
COMMENT ON COLUMN bcmig.phase_run.backoff IS 'before the first retry';
COMMENT ON COLUMN bcmig.phase_run.precondition IS 'query that must return true';
COMMENT ON COLUMN bcmig.phase_run.compensation IS 'what takes it back';
COMMENT ON COLUMN bcmig.phase_run.approval IS 'role that must let it begin';
COMMENT ON COLUMN bcmig.phase_run.attempt IS 'of how many retries this is';
COMMENT ON COLUMN bcmig.phase_run.not_before IS 'a retry begins then';
COMMENT ON COLUMN bcmig.phase_run.started_at IS 'when it began';
COMMENT ON COLUMN bcmig.phase_run.ended_at IS 'when it was over';
COMMENT ON COLUMN bcmig.phase_run.sqlstate IS 'of its error';
COMMENT ON COLUMN bcmig.phase_run.error IS 'why it failed';
COMMENT ON COLUMN bcmig.phase_run.approved_by IS 'who let it begin';

COMMENT ON COLUMN bcmig.baseline.baseline_id IS 'its number';
COMMENT ON COLUMN bcmig.baseline.environment IS 'its name';
COMMENT ON COLUMN bcmig.baseline.taken_at IS 'when';
COMMENT ON COLUMN bcmig.baseline.by IS 'who has asked';

COMMENT ON COLUMN bcmig.baseline_table.target IS 'green table';
COMMENT ON COLUMN bcmig.baseline_table.source IS 'table on blue';
COMMENT ON COLUMN bcmig.baseline_table.columns IS 'how many it had';

COMMENT ON COLUMN bcmig.baseline_time.name IS 'of the query';
COMMENT ON COLUMN bcmig.baseline_time.fastest_ms IS 'of the five runs';
COMMENT ON COLUMN bcmig.baseline_time.slowest_ms IS 'of the five runs';
COMMENT ON COLUMN bcmig.baseline_time.error IS 'why it failed';

COMMENT ON COLUMN bcmig.sync_state.since IS 'since when it is in that state';
COMMENT ON COLUMN bcmig.sync_state.last_error IS 'of the sync as a whole';
COMMENT ON COLUMN bcmig.sync_state.last_error_at IS 'when that was';

COMMENT ON COLUMN bcmig.table_state.since IS 'since when it is in that state';
COMMENT ON COLUMN bcmig.table_state.begin_version IS 'the dialect''s own mark of the table''s tracking: another one means that it began anew';
COMMENT ON COLUMN bcmig.table_state.all_chunks IS 'all copy chunks have been cut';
COMMENT ON COLUMN bcmig.table_state.rows_total IS 'rows blue had when the copy began, an estimate';
COMMENT ON COLUMN bcmig.table_state.rows_copied IS 'by the copy';
COMMENT ON COLUMN bcmig.table_state.bytes_copied IS 'by the copy';
COMMENT ON COLUMN bcmig.table_state.rows_applied IS 'by windows';
COMMENT ON COLUMN bcmig.table_state.rows_deleted IS 'by windows and sweeps';
COMMENT ON COLUMN bcmig.table_state.copy_started IS 'when the copy, or reading again, began';
COMMENT ON COLUMN bcmig.table_state.swept_at IS 'when keys were last compared';
COMMENT ON COLUMN bcmig.table_state.delete_asked IS 'it is suspended by a mass delete, and bcmig_resume_table takes that as meant';
COMMENT ON COLUMN bcmig.table_state.delete_confirmed IS 'the next mass delete is taken as meant (bcmig_resume_table)';
COMMENT ON COLUMN bcmig.table_state.last_error IS 'of a job';
COMMENT ON COLUMN bcmig.table_state.last_error_at IS 'when that was';

COMMENT ON COLUMN bcmig.copy_chunk.chunk IS 'its number in the table';
COMMENT ON COLUMN bcmig.copy_chunk.lower_key IS 'keys above this one; NULL = from the first';
COMMENT ON COLUMN bcmig.copy_chunk.upper_key IS 'up to this one; NULL = to the last';
COMMENT ON COLUMN bcmig.copy_chunk.done IS 'its rows are on green';
COMMENT ON COLUMN bcmig.copy_chunk.rows IS 'how many';
COMMENT ON COLUMN bcmig.copy_chunk.bytes IS 'how many';
COMMENT ON COLUMN bcmig.copy_chunk.seconds IS 'how long it took';
COMMENT ON COLUMN bcmig.copy_chunk.max_row_bytes IS 'the widest row';
COMMENT ON COLUMN bcmig.copy_chunk.finished_at IS 'when';

COMMENT ON COLUMN bcmig.sync_batch.batch_id IS 'its number';
COMMENT ON COLUMN bcmig.sync_batch.sync_id IS 'of bcmig.sync';
COMMENT ON COLUMN bcmig.sync_batch.table_id IS 'of bcmig.sync_table';
COMMENT ON COLUMN bcmig.sync_batch.started_at IS 'when it began';
COMMENT ON COLUMN bcmig.sync_batch.finished_at IS 'when it was committed';
COMMENT ON COLUMN bcmig.sync_batch.rows_read IS 'from blue';
COMMENT ON COLUMN bcmig.sync_batch.rows_written IS 'inserted and updated on green';
COMMENT ON COLUMN bcmig.sync_batch.rows_deleted IS 'deleted on green';
COMMENT ON COLUMN bcmig.sync_batch.rows_quarantined IS 'refused by green';
COMMENT ON COLUMN bcmig.sync_batch.from_position IS 'where the table stood before';
COMMENT ON COLUMN bcmig.sync_batch.to_position IS 'where it stood after';
COMMENT ON COLUMN bcmig.sync_batch.error IS 'why it failed';

COMMENT ON COLUMN bcmig.metric.sync_id IS 'of bcmig.sync';
COMMENT ON COLUMN bcmig.metric.lag_max_ms IS 'the longest';
COMMENT ON COLUMN bcmig.metric.rows_deleted IS 'rows deleted by what committed';
COMMENT ON COLUMN bcmig.metric.tables IS 'how many the sync had';
COMMENT ON COLUMN bcmig.metric.tables_streaming IS 'how many of them streamed';

COMMENT ON COLUMN bcmig.quarantine.quarantine_id IS 'its number, for bcmig_discard_quarantine';
COMMENT ON COLUMN bcmig.quarantine.sync_id IS 'of bcmig.sync';
COMMENT ON COLUMN bcmig.quarantine.table_id IS 'of bcmig.sync_table';
COMMENT ON COLUMN bcmig.quarantine.key IS 'of the row: values as text, in key order';
COMMENT ON COLUMN bcmig.quarantine.image IS 'the row as blue has it, long values by their length; NULL = a delete';
COMMENT ON COLUMN bcmig.quarantine.sqlstate IS 'of what green said';
COMMENT ON COLUMN bcmig.quarantine.message IS 'what green said';
COMMENT ON COLUMN bcmig.quarantine.attempts IS 'how often it was tried';
COMMENT ON COLUMN bcmig.quarantine.first_seen IS 'when first';
COMMENT ON COLUMN bcmig.quarantine.last_seen IS 'when last';

COMMENT ON COLUMN bcmig.journal.journal_id IS 'its number';
COMMENT ON COLUMN bcmig.journal.sync_id IS 'of bcmig.sync';
COMMENT ON COLUMN bcmig.journal.table_id IS 'of bcmig.sync_table';
COMMENT ON COLUMN bcmig.journal.old_image IS 'the row before; NULL = an insert';
COMMENT ON COLUMN bcmig.journal.new_image IS 'the row after; NULL = a delete';
COMMENT ON COLUMN bcmig.journal.xid IS 'transaction that wrote';
COMMENT ON COLUMN bcmig.journal.actor IS 'user of the session';
COMMENT ON COLUMN bcmig.journal.at IS 'when';
COMMENT ON COLUMN bcmig.journal.settled_at IS 'since when it need not be brought to blue any more; NULL = it must be';

COMMENT ON COLUMN bcmig.reverse_sent.sent_at IS 'when';

COMMENT ON COLUMN bcmig.reverse_state.replayed_at IS 'when last';
COMMENT ON COLUMN bcmig.reverse_state.failing_since IS 'since when it does not work; NULL = it does';

COMMENT ON COLUMN bcmig.conflict.conflict_id IS 'its number, for bcmig_resolve_conflict';
COMMENT ON COLUMN bcmig.conflict.sync_id IS 'of bcmig.sync';
COMMENT ON COLUMN bcmig.conflict.table_id IS 'of bcmig.sync_table';
COMMENT ON COLUMN bcmig.conflict.policy IS 'option conflict, as it was';
COMMENT ON COLUMN bcmig.conflict.blue_version IS 'of blue''s row';
COMMENT ON COLUMN bcmig.conflict.journal_ids IS 'entries of bcmig.journal it met';
COMMENT ON COLUMN bcmig.conflict.found_at IS 'when';
COMMENT ON COLUMN bcmig.conflict.decided_at IS 'when; NULL = it waits';

COMMENT ON COLUMN bcmig.request.request_id IS 'its number';
COMMENT ON COLUMN bcmig.request.ids IS 'of rows it is about, by kind: quarantine, conflict, difference';
COMMENT ON COLUMN bcmig.request.requested_by IS 'who';
COMMENT ON COLUMN bcmig.request.requested_at IS 'when';

COMMENT ON COLUMN bcmig.schema_change.change_id IS 'its number';
COMMENT ON COLUMN bcmig.schema_change.after IS 'type or place in the key';
COMMENT ON COLUMN bcmig.schema_change.detail IS 'what it is, in words';
COMMENT ON COLUMN bcmig.schema_change.seen_at IS 'when it was noticed';

COMMENT ON COLUMN bcmig.audit_log.audit_id IS 'its number';
COMMENT ON COLUMN bcmig.audit_log.at IS 'when';
COMMENT ON COLUMN bcmig.audit_log.sync_name IS 'of which sync';
COMMENT ON COLUMN bcmig.audit_log.target IS 'green table';

COMMENT ON COLUMN bcmig.audit_pending.audit_id IS 'of bcmig.audit_log';

COMMENT ON COLUMN bcmig.audit_chain.seq IS 'its place';
COMMENT ON COLUMN bcmig.audit_chain.audit_id IS 'of bcmig.audit_log';

COMMENT ON COLUMN bcmig.audit_head.one IS 'there is one row';
COMMENT ON COLUMN bcmig.audit_head.rows IS 'how many places the chain has';
COMMENT ON COLUMN bcmig.audit_head.hash IS 'of the last place';
COMMENT ON COLUMN bcmig.audit_head.at IS 'when that was written';

COMMENT ON COLUMN bcmig.alert_log.alert_id IS 'its number';
COMMENT ON COLUMN bcmig.alert_log.name IS 'which alert';
COMMENT ON COLUMN bcmig.alert_log.sync_name IS 'of which sync; NULL = the server';
COMMENT ON COLUMN bcmig.alert_log.target IS 'green table';
COMMENT ON COLUMN bcmig.alert_log.raised_at IS 'when it was raised';
COMMENT ON COLUMN bcmig.alert_log.cleared_at IS 'when it was over; NULL = it is not';
COMMENT ON COLUMN bcmig.alert_log.bound IS 'what it should have been';
COMMENT ON COLUMN bcmig.alert_log.detail IS 'what was wrong';

COMMENT ON COLUMN bcmig.chunking.size IS 'of a chunk, or how many buckets';

COMMENT ON COLUMN bcmig.dirty_chunk.generation IS 'of bcmig.chunking';
COMMENT ON COLUMN bcmig.dirty_chunk.chunk IS 'its number';

COMMENT ON COLUMN bcmig.validation_run.run_id IS 'its number';
COMMENT ON COLUMN bcmig.validation_run.requested_by IS 'who has asked';
COMMENT ON COLUMN bcmig.validation_run.started_at IS 'when';
COMMENT ON COLUMN bcmig.validation_run.finished_at IS 'when it was over; NULL = it is not';

COMMENT ON COLUMN bcmig.validation_result.done IS 'it has been compared';
COMMENT ON COLUMN bcmig.validation_result.chunks IS 'compared so far';
COMMENT ON COLUMN bcmig.validation_result.rows_blue IS 'compared on blue';
COMMENT ON COLUMN bcmig.validation_result.rows_green IS 'compared on green';
COMMENT ON COLUMN bcmig.validation_result.detail IS 'why the verdict is what it is';
COMMENT ON COLUMN bcmig.validation_result.failures IS 'attempts that failed';
COMMENT ON COLUMN bcmig.validation_result.started_at IS 'when it began; NULL = not yet';
COMMENT ON COLUMN bcmig.validation_result.finished_at IS 'when it was over';

COMMENT ON COLUMN bcmig.validation_part.part IS 'its number';
COMMENT ON COLUMN bcmig.validation_part.first_chunk IS 'where it begins';
COMMENT ON COLUMN bcmig.validation_part.next_chunk IS 'what is to be compared next';
COMMENT ON COLUMN bcmig.validation_part.last_chunk IS 'where it ends';
COMMENT ON COLUMN bcmig.validation_part.done IS 'all of it is compared';

COMMENT ON COLUMN bcmig.validation_difference.difference_id IS 'its number';
COMMENT ON COLUMN bcmig.validation_difference.chunk IS 'in which it was found';
COMMENT ON COLUMN bcmig.validation_difference.blue IS 'blue''s row as green would hold it; NULL = there is none';
COMMENT ON COLUMN bcmig.validation_difference.green IS 'green''s row; NULL = there is none';
COMMENT ON COLUMN bcmig.validation_difference.found_at IS 'when';
COMMENT ON COLUMN bcmig.validation_difference.repaired_at IS 'when bcmig_repair wrote it; NULL = it did not';
COMMENT ON COLUMN bcmig.validation_difference.repair_error IS 'why it could not';

COMMENT ON COLUMN bcmig.hash_probe.type_class IS 'types that are hashed alike';
COMMENT ON COLUMN bcmig.hash_probe.agrees IS 'both sides made the same hash of the test value';
COMMENT ON COLUMN bcmig.hash_probe.probed_at IS 'when';

COMMENT ON COLUMN bcmig.rule.rule_id IS 'its number';
COMMENT ON COLUMN bcmig.rule.name IS 'as functions take it';
COMMENT ON COLUMN bcmig.rule.query IS 'that returns the rows that break it';
COMMENT ON COLUMN bcmig.rule.created_at IS 'when it was added';

COMMENT ON COLUMN bcmig.rule_result.examples IS 'the first rows that failed';
COMMENT ON COLUMN bcmig.rule_result.detail IS 'why the verdict is what it is';
COMMENT ON COLUMN bcmig.rule_result.seconds IS 'how long it took';
COMMENT ON COLUMN bcmig.rule_result.finished_at IS 'when';

COMMENT ON COLUMN bcmig.number_sequence.target IS 'sequence of green';
COMMENT ON COLUMN bcmig.number_sequence.source IS 'sequence or identity column of blue';
COMMENT ON COLUMN bcmig.number_sequence.increment IS 'of the sequence';
COMMENT ON COLUMN bcmig.number_sequence.set_at IS 'when it was set';

COMMENT ON COLUMN bcmig.validation_sequence.target IS 'sequence of green; NULL = none';
COMMENT ON COLUMN bcmig.validation_sequence.detail IS 'why the verdict is what it is';

-- what the columns of views are
COMMENT ON COLUMN bcmig.effective_option.sync_id IS 'of the sync';
COMMENT ON COLUMN bcmig.effective_option.table_id IS 'of the table';
COMMENT ON COLUMN bcmig.effective_option.name IS 'of the option';
COMMENT ON COLUMN bcmig.effective_option.value IS 'as it holds; intervals in ms, sizes in bytes';
COMMENT ON COLUMN bcmig.effective_option.source IS 'table, sync or default: who has set it';
COMMENT ON COLUMN bcmig.effective_option.unit IS 'of value';
COMMENT ON COLUMN bcmig.effective_option.meaning IS 'as in bcmig.option';

COMMENT ON COLUMN bcmig.plan_step.step IS 'what action of a phase says';
COMMENT ON COLUMN bcmig.plan_step.type IS 'of the phases it is for';
COMMENT ON COLUMN bcmig.plan_step.arguments IS 'keys of arguments of a phase; those marked ! must be given';
COMMENT ON COLUMN bcmig.plan_step.compensation IS 'what takes it back, unless the phase says otherwise';
COMMENT ON COLUMN bcmig.plan_step.meaning IS 'what it does';

COMMENT ON COLUMN bcmig.execution_status.execution IS 'its id, for bcmig_pause_execution and the like';
COMMENT ON COLUMN bcmig.execution_status.plan IS 'its name';
COMMENT ON COLUMN bcmig.execution_status.state IS 'running, paused, compensating, done, failed, cancelled or rolled_back';
COMMENT ON COLUMN bcmig.execution_status.by IS 'who has begun it';
COMMENT ON COLUMN bcmig.execution_status.started_at IS 'when it was begun';
COMMENT ON COLUMN bcmig.execution_status.ended_at IS 'when it was over; NULL = it is not';
COMMENT ON COLUMN bcmig.execution_status.phases_total IS 'all phases';
COMMENT ON COLUMN bcmig.execution_status.phases_done IS 'phases that succeeded, also when they were taken back';
COMMENT ON COLUMN bcmig.execution_status.phases_failed IS 'phases that failed';
COMMENT ON COLUMN bcmig.execution_status.phases_running IS 'phases at work, or being taken back';
COMMENT ON COLUMN bcmig.execution_status.phases_skipped IS 'phases left out';
COMMENT ON COLUMN bcmig.execution_status.success_rate IS 'percent of the phases that were tried and succeeded';
COMMENT ON COLUMN bcmig.execution_status.current_phase IS 'what runs, waits, or is taken back';
COMMENT ON COLUMN bcmig.execution_status.percent IS 'of all phases, by count, those that run by their own percent; bcmig_progress_report knows better';
COMMENT ON COLUMN bcmig.execution_status.error IS 'the first one';
COMMENT ON COLUMN bcmig.execution_status.waits_for IS 'of waiting phases for what';
COMMENT ON COLUMN bcmig.execution_status.heartbeat_age IS 'how long ago its runner last said that it is alive';

COMMENT ON COLUMN bcmig.table_status.sync IS 'name of its sync';
COMMENT ON COLUMN bcmig.table_status.target IS 'green table';
COMMENT ON COLUMN bcmig.table_status.source_schema IS 'of the table on blue';
COMMENT ON COLUMN bcmig.table_status.source_table IS 'as blue spells it';
COMMENT ON COLUMN bcmig.table_status.capture IS 'how changes are seen: change_tracking, rowversion or snapshot';
COMMENT ON COLUMN bcmig.table_status.state IS 'pending, copying, catching_up, streaming, suspended or resync';
COMMENT ON COLUMN bcmig.table_status.reason IS 'why it is suspended or read again';
COMMENT ON COLUMN bcmig.table_status.copied_percent IS 'of the rows blue had when the copy began; NULL = it is not copying';
COMMENT ON COLUMN bcmig.table_status.rows_total IS 'rows blue had when the copy began, an estimate';
COMMENT ON COLUMN bcmig.table_status.rows_copied IS 'by the copy so far';
COMMENT ON COLUMN bcmig.table_status.rows_applied IS 'rows written by windows since';
COMMENT ON COLUMN bcmig.table_status.rows_deleted IS 'rows deleted since';
COMMENT ON COLUMN bcmig.table_status."position" IS 'all changes of blue below it are on green';
COMMENT ON COLUMN bcmig.table_status.clean IS 'nothing of it is left to be read, as far as blue was looked at; NULL = the sync does not run';
COMMENT ON COLUMN bcmig.table_status.last_applied_at IS 'when a window last wrote to it, since the start of the server';
COMMENT ON COLUMN bcmig.table_status.swept_at IS 'when its keys were last compared with blue';
COMMENT ON COLUMN bcmig.table_status.quarantined IS 'rows in bcmig.quarantine';
COMMENT ON COLUMN bcmig.table_status.conflicts IS 'conflicts that wait for a person';
COMMENT ON COLUMN bcmig.table_status.last_error IS 'of its jobs; stays until another one';
COMMENT ON COLUMN bcmig.table_status.last_error_at IS 'when that was';
COMMENT ON COLUMN bcmig.table_status.table_id IS 'of bcmig.sync_table';
COMMENT ON COLUMN bcmig.table_status.sync_id IS 'of bcmig.sync';

COMMENT ON COLUMN bcmig.switch_status.sync IS 'its name';
COMMENT ON COLUMN bcmig.switch_status.kind IS 'switch or rollback';
COMMENT ON COLUMN bcmig.switch_status.state IS 'running, done, failed or cancelled';
COMMENT ON COLUMN bcmig.switch_status.step IS 'which of how many weights';
COMMENT ON COLUMN bcmig.switch_status.target_percent IS 'weight of that step';
COMMENT ON COLUMN bcmig.switch_status.green_percent IS 'share of traffic on green now';
COMMENT ON COLUMN bcmig.switch_status.phase IS 'what is being done, or waited for';
COMMENT ON COLUMN bcmig.switch_status.phase_for IS 'for how long';
COMMENT ON COLUMN bcmig.switch_status.problem IS 'what is in the way; of one that has ended, why it ended so';
COMMENT ON COLUMN bcmig.switch_status.writes_stopped_ms IS 'for how long writes are stopped at this moment; NULL = they are not';
COMMENT ON COLUMN bcmig.switch_status.write_pause_ms IS 'for how long they were stopped, once they can go on';
COMMENT ON COLUMN bcmig.switch_status.failures IS 'looks or attempts that failed, in a row';
COMMENT ON COLUMN bcmig.switch_status.held IS 'why traffic is held; NULL = it is not';
COMMENT ON COLUMN bcmig.switch_status.reason IS 'of a rollback, as it was given';
COMMENT ON COLUMN bcmig.switch_status.result IS 'of a rollback: readers_back_at, replayed_keys, conflicts, balancers_missing, preserved_in';
COMMENT ON COLUMN bcmig.switch_status.by IS 'who has asked for it';
COMMENT ON COLUMN bcmig.switch_status.asked_at IS 'when';
COMMENT ON COLUMN bcmig.switch_status.ended_at IS 'when it was over; NULL = it is not';
COMMENT ON COLUMN bcmig.switch_status.switch_id IS 'of bcmig.switch';

COMMENT ON COLUMN bcmig.traffic_stage.sync_id IS 'of the sync';
COMMENT ON COLUMN bcmig.traffic_stage.stage IS 'switching, switched, rolling_back, rolled_back or completed; NULL = nothing of the kind';

COMMENT ON COLUMN bcmig.sync_status.sync IS 'its name';
COMMENT ON COLUMN bcmig.sync_status.state IS 'created, copying, streaming, waiting (blue does not answer), stopped, held (nothing is read or written before a person says so), failed (all tables are suspended); of one that streams also switching, switched, rolling_back, rolled_back, completed';
COMMENT ON COLUMN bcmig.sync_status.tables IS 'how many it has';
COMMENT ON COLUMN bcmig.sync_status.tables_streaming IS 'how many of them stream';
COMMENT ON COLUMN bcmig.sync_status.rows_copied IS 'by copies, all tables';
COMMENT ON COLUMN bcmig.sync_status.rows_applied IS 'by windows, all tables';
COMMENT ON COLUMN bcmig.sync_status.lag IS 'how long ago synced_through was; NULL = unknown';
COMMENT ON COLUMN bcmig.sync_status.synced_through IS 'all that blue had committed at that time of its clock is on green; NULL = unknown';
COMMENT ON COLUMN bcmig.sync_status.blocked_by IS 'the open transaction of blue that holds that back';
COMMENT ON COLUMN bcmig.sync_status.quarantined IS 'rows green refused';
COMMENT ON COLUMN bcmig.sync_status.conflicts IS 'conflicts that wait for a person';
COMMENT ON COLUMN bcmig.sync_status.last_error IS 'of blue, of a table, or of the sync';
COMMENT ON COLUMN bcmig.sync_status.answer_ms IS 'how long blue takes to answer a poll';
COMMENT ON COLUMN bcmig.sync_status.throttled_since IS 'since when copies, sweeps and validations wait because that is too long (option max_answer); NULL = they do not';

COMMENT ON COLUMN bcmig.progress.pid IS 'of the worker';
COMMENT ON COLUMN bcmig.progress.sync IS 'its name';
COMMENT ON COLUMN bcmig.progress.target IS 'green table';
COMMENT ON COLUMN bcmig.progress.phase IS 'copy, resync, index build, sweep, compare, retry, ...';
COMMENT ON COLUMN bcmig.progress.rows_done IS 'of a copy by all workers, else by this one';
COMMENT ON COLUMN bcmig.progress.rows_total IS 'rows there are to do, an estimate; NULL = not known';
COMMENT ON COLUMN bcmig.progress.percent IS 'of rows_total';
COMMENT ON COLUMN bcmig.progress.rows_per_s IS 'since it began';
COMMENT ON COLUMN bcmig.progress.eta IS 'how long it takes yet at this rate';

COMMENT ON COLUMN bcmig.worker_status.pid IS 'of the process';
COMMENT ON COLUMN bcmig.worker_status.role IS 'manager, poller, worker, or runner of a plan';
COMMENT ON COLUMN bcmig.worker_status.owner IS 'role it runs as; NULL = none';
COMMENT ON COLUMN bcmig.worker_status.environment IS 'blue it reads';
COMMENT ON COLUMN bcmig.worker_status.sync IS 'whose work it does';
COMMENT ON COLUMN bcmig.worker_status.target IS 'green table it is at';
COMMENT ON COLUMN bcmig.worker_status.phase IS 'what it does: idle, window, copy, sweep, ...';
COMMENT ON COLUMN bcmig.worker_status.since IS 'since when';
COMMENT ON COLUMN bcmig.worker_status.jobs_done IS 'since it was started';
COMMENT ON COLUMN bcmig.worker_status.rows_processed IS 'since it was started';
COMMENT ON COLUMN bcmig.worker_status.errors IS 'jobs that failed since it was started';
COMMENT ON COLUMN bcmig.worker_status.last_error IS 'the last of them';

COMMENT ON COLUMN bcmig.environment_status.environment IS 'its name';
COMMENT ON COLUMN bcmig.environment_status.side IS 'blue or green';
COMMENT ON COLUMN bcmig.environment_status.server IS 'foreign server of a blue';
COMMENT ON COLUMN bcmig.environment_status.owner IS 'whose poller this line is about; a line each';
COMMENT ON COLUMN bcmig.environment_status.reachable IS 'does blue answer? NULL = no poller asks it';
COMMENT ON COLUMN bcmig.environment_status.clock IS 'blue''s clock at the last poll';
COMMENT ON COLUMN bcmig.environment_status.age_ms IS 'how long ago that was';
COMMENT ON COLUMN bcmig.environment_status.horizon IS 'all transactions of blue below it have ended';
COMMENT ON COLUMN bcmig.environment_status.top IS 'the newest version given out';
COMMENT ON COLUMN bcmig.environment_status.blocked_by IS 'who holds the horizon back';
COMMENT ON COLUMN bcmig.environment_status.incarnation IS 'what tells this blue from a restored or restarted one';
COMMENT ON COLUMN bcmig.environment_status.polls IS 'since the poller was started';
COMMENT ON COLUMN bcmig.environment_status.last_error IS 'why it does not answer';
COMMENT ON COLUMN bcmig.environment_status.answer_ms IS 'how long a poll takes, the middle one of the last';
COMMENT ON COLUMN bcmig.environment_status.max_answer_ms IS 'the bound of that (option max_answer)';
COMMENT ON COLUMN bcmig.environment_status.throttled_since IS 'since when copies, sweeps and validations wait; NULL = they do not';
COMMENT ON COLUMN bcmig.environment_status.throttled_ms IS 'for how long in all';

COMMENT ON COLUMN bcmig.validation_verdict.run_id IS 'of bcmig.validation_run';
COMMENT ON COLUMN bcmig.validation_verdict.table_id IS 'of bcmig.sync_table; NULL = it counts for the run';
COMMENT ON COLUMN bcmig.validation_verdict.part IS 'data, reference, business, calculated, sequence or run';
COMMENT ON COLUMN bcmig.validation_verdict.name IS 'of the rule or sequence';
COMMENT ON COLUMN bcmig.validation_verdict.verdict IS 'of that part';
COMMENT ON COLUMN bcmig.validation_verdict.hard IS 'it turns the verdict of the run';
COMMENT ON COLUMN bcmig.validation_verdict.rank IS 'which verdict is the worst: the lowest; 6 is well';
COMMENT ON COLUMN bcmig.validation_verdict.detail IS 'how many rows, and why';

COMMENT ON COLUMN bcmig.table_verdict.run_id IS 'of bcmig.validation_run';
COMMENT ON COLUMN bcmig.table_verdict.table_id IS 'of bcmig.sync_table';
COMMENT ON COLUMN bcmig.table_verdict.verdict IS 'the worst of its parts: ok, different or inconclusive';
COMMENT ON COLUMN bcmig.table_verdict.data IS 'of comparing rows';
COMMENT ON COLUMN bcmig.table_verdict."references" IS 'of rules of kind reference; none = the run asserted nothing of the kind';
COMMENT ON COLUMN bcmig.table_verdict.rules IS 'of business rules';
COMMENT ON COLUMN bcmig.table_verdict.calculated IS 'of calculated fields';

COMMENT ON COLUMN bcmig.validation_summary.run_id IS 'of bcmig.validation_run';
COMMENT ON COLUMN bcmig.validation_summary.sync IS 'its name';
COMMENT ON COLUMN bcmig.validation_summary.mode IS 'what was done: count, incremental or full';
COMMENT ON COLUMN bcmig.validation_summary.target IS 'green table';
COMMENT ON COLUMN bcmig.validation_summary.rows_blue IS 'compared on blue';
COMMENT ON COLUMN bcmig.validation_summary.rows_green IS 'compared on green';
COMMENT ON COLUMN bcmig.validation_summary.chunks IS 'compared';
COMMENT ON COLUMN bcmig.validation_summary.differing IS 'chunks with rows that differ';
COMMENT ON COLUMN bcmig.validation_summary.differences IS 'rows that differ';
COMMENT ON COLUMN bcmig.validation_summary.verdict IS 'ok, different, inconclusive; while it runs: waiting, running, ok so far; cancelled';
COMMENT ON COLUMN bcmig.validation_summary.data IS 'verdict of comparing rows';
COMMENT ON COLUMN bcmig.validation_summary."references" IS 'verdict of rules of kind reference';
COMMENT ON COLUMN bcmig.validation_summary.rules IS 'verdict of business rules';
COMMENT ON COLUMN bcmig.validation_summary.calculated IS 'verdict of calculated fields';
COMMENT ON COLUMN bcmig.validation_summary.seconds IS 'from its begin to its end';
COMMENT ON COLUMN bcmig.validation_summary.in_flight IS 'rows that differed only because a change was on its way';
COMMENT ON COLUMN bcmig.validation_summary.pushdown IS 'blue hashed its own rows; false = they were pulled';
COMMENT ON COLUMN bcmig.validation_summary.detail IS 'why the data''s verdict is what it is';
COMMENT ON COLUMN bcmig.validation_summary.started_at IS 'when the run was asked for';

COMMENT ON COLUMN bcmig.table_root.run_id IS 'of bcmig.validation_run';
COMMENT ON COLUMN bcmig.table_root.table_id IS 'of bcmig.sync_table';
COMMENT ON COLUMN bcmig.table_root.target IS 'green table';
COMMENT ON COLUMN bcmig.table_root.blue IS 'hash root of blue''s rows; NULL = not known';
COMMENT ON COLUMN bcmig.table_root.green IS 'hash root of green''s rows; NULL = not known';

COMMENT ON COLUMN bcmig.table_proof.sync_id IS 'of the sync';
COMMENT ON COLUMN bcmig.table_proof.table_id IS 'of bcmig.sync_table';
COMMENT ON COLUMN bcmig.table_proof.target IS 'green table';
COMMENT ON COLUMN bcmig.table_proof.run_id IS 'run that compared all its rows; NULL = none has since it was copied';
COMMENT ON COLUMN bcmig.table_proof.verdict IS 'of that';
COMMENT ON COLUMN bcmig.table_proof.started_at IS 'when comparing it began';
COMMENT ON COLUMN bcmig.table_proof.finished_at IS 'when it was over';
COMMENT ON COLUMN bcmig.table_proof.rows_blue IS 'compared on blue';
COMMENT ON COLUMN bcmig.table_proof.rows_green IS 'compared on green';
COMMENT ON COLUMN bcmig.table_proof.differences IS 'rows that differ';
COMMENT ON COLUMN bcmig.table_proof.root_blue IS 'hash root of blue''s rows (bcmig.table_root)';
COMMENT ON COLUMN bcmig.table_proof.root_green IS 'hash root of green''s rows';

COMMENT ON COLUMN bcmig.sync_proof.sync_id IS 'of the sync';
COMMENT ON COLUMN bcmig.sync_proof.tables IS 'how many it has';
COMMENT ON COLUMN bcmig.sync_proof.compared IS 'how many of them in full';
COMMENT ON COLUMN bcmig.sync_proof.equal IS 'how many of those were equal';
COMMENT ON COLUMN bcmig.sync_proof.oldest_at IS 'the earliest of these comparisons';
COMMENT ON COLUMN bcmig.sync_proof.newest_at IS 'the latest';
COMMENT ON COLUMN bcmig.sync_proof.rows_blue IS 'compared on blue';
COMMENT ON COLUMN bcmig.sync_proof.rows_green IS 'compared on green';
COMMENT ON COLUMN bcmig.sync_proof.differences IS 'rows that differ';
COMMENT ON COLUMN bcmig.sync_proof.root_blue IS 'hash root of all tables of blue; NULL = that of one is not known';
COMMENT ON COLUMN bcmig.sync_proof.root_green IS 'hash root of all tables of green';

COMMENT ON COLUMN bcmig.journal_pending.sync IS 'its name';
COMMENT ON COLUMN bcmig.journal_pending.target IS 'green table';
COMMENT ON COLUMN bcmig.journal_pending.key IS 'values as text, in key order';
COMMENT ON COLUMN bcmig.journal_pending.entries IS 'how often it was written to';
COMMENT ON COLUMN bcmig.journal_pending.first_at IS 'when first';
COMMENT ON COLUMN bcmig.journal_pending.last_at IS 'when last';
COMMENT ON COLUMN bcmig.journal_pending.first_id IS 'journal_id of the first entry';
COMMENT ON COLUMN bcmig.journal_pending.last_id IS 'journal_id of the last entry';

COMMENT ON COLUMN bcmig.journal_status.sync IS 'its name';
COMMENT ON COLUMN bcmig.journal_status.journal_armed IS 'outside writes are recorded';
COMMENT ON COLUMN bcmig.journal_status.unreplayed IS 'rows written on green that blue does not have yet';
COMMENT ON COLUMN bcmig.journal_status.conflicts IS 'of them those that wait for a person';
COMMENT ON COLUMN bcmig.journal_status.oldest_at IS 'since when the oldest waits';
COMMENT ON COLUMN bcmig.journal_status.replayed IS 'rows brought to blue while writes are on green';
COMMENT ON COLUMN bcmig.journal_status.replayed_at IS 'when last';
COMMENT ON COLUMN bcmig.journal_status.problem IS 'why it did not work the last time; NULL = it did';
COMMENT ON COLUMN bcmig.journal_status.failing_since IS 'since when it does not; NULL = it does';

COMMENT ON COLUMN bcmig.traffic_status.sync IS 'its name';
COMMENT ON COLUMN bcmig.traffic_status.green_percent IS 'share of readers on green; at 100 writers too';
COMMENT ON COLUMN bcmig.traffic_status.writes IS 'where writers are: blue, green, key (as readers), pause';
COMMENT ON COLUMN bcmig.traffic_status.epoch IS 'grows with every change of the weight';
COMMENT ON COLUMN bcmig.traffic_status.fence IS 'outside writes to the green tables are refused';
COMMENT ON COLUMN bcmig.traffic_status.journal_armed IS 'outside writes to the green tables are recorded';
COMMENT ON COLUMN bcmig.traffic_status.wanted_percent IS 'weight that is asked for and not begun';
COMMENT ON COLUMN bcmig.traffic_status.changing_to IS 'weight that is being set';
COMMENT ON COLUMN bcmig.traffic_status.held IS 'why bcmig leaves weights and balancers alone; NULL = it does not';
COMMENT ON COLUMN bcmig.traffic_status.balancers IS 'how many there are';
COMMENT ON COLUMN bcmig.traffic_status.balancer_problems IS 'what is wrong with them; NULL = nothing';
COMMENT ON COLUMN bcmig.traffic_status.witness IS 'whether blue keeps a witness of it: none, kept, behind, take or absent';
COMMENT ON COLUMN bcmig.traffic_status.witness_error IS 'why blue has not been told or asked';
COMMENT ON COLUMN bcmig.traffic_status.disputed IS 'this database may not be the one that moves the traffic: bcmig_adopt';
COMMENT ON COLUMN bcmig.traffic_status.last_event IS 'in bcmig.traffic_event';
COMMENT ON COLUMN bcmig.traffic_status.last_event_at IS 'when';
COMMENT ON COLUMN bcmig.traffic_status.last_detail IS 'what that says';
COMMENT ON COLUMN bcmig.traffic_status.blue_fence IS 'outside writes to blue''s tables: open, partly, fenced or unknown, and why; NULL = never read';
COMMENT ON COLUMN bcmig.traffic_status.blue_fence_at IS 'when that was read';

COMMENT ON COLUMN bcmig.timeline.at IS 'when';
COMMENT ON COLUMN bcmig.timeline.sync IS 'its name';
COMMENT ON COLUMN bcmig.timeline.target IS 'green table';
COMMENT ON COLUMN bcmig.timeline.kind IS 'command, state, error, schema, validation, alert, conflict, traffic or throttle';
COMMENT ON COLUMN bcmig.timeline.event IS 'function that was called, state entered, ...';
COMMENT ON COLUMN bcmig.timeline.detail IS 'arguments of a command, reason of a state, message of an error';
COMMENT ON COLUMN bcmig.timeline.actor IS 'who: user of the session, or owner of the sync';

COMMENT ON COLUMN bcmig.lag_bound.sync_id IS 'of the sync';
COMMENT ON COLUMN bcmig.lag_bound.max_latency IS 'the option';
COMMENT ON COLUMN bcmig.lag_bound.between_polls IS 'what may lie between two polls';
COMMENT ON COLUMN bcmig.lag_bound.sweeps IS 'what may lie between two sweeps, where deletes come by sweep';
COMMENT ON COLUMN bcmig.lag_bound.bound IS 'the sum of all';

COMMENT ON COLUMN bcmig.alert_condition.name IS 'of the alert';
COMMENT ON COLUMN bcmig.alert_condition.sync IS 'its name';
COMMENT ON COLUMN bcmig.alert_condition.target IS 'green table';
COMMENT ON COLUMN bcmig.alert_condition.severity IS 'warning or critical';
COMMENT ON COLUMN bcmig.alert_condition.value IS 'what is';
COMMENT ON COLUMN bcmig.alert_condition.bound IS 'what should be';
COMMENT ON COLUMN bcmig.alert_condition.detail IS 'what is wrong';
COMMENT ON COLUMN bcmig.alert_condition.fix IS 'statement to run';
COMMENT ON COLUMN bcmig.alert_condition.looks IS 'how often in a row it must be so';

COMMENT ON COLUMN bcmig.alert.alert_id IS 'its number';
COMMENT ON COLUMN bcmig.alert.name IS 'which one; docs/events.md has a table of them';
COMMENT ON COLUMN bcmig.alert.sync IS 'its name';
COMMENT ON COLUMN bcmig.alert.target IS 'green table';
COMMENT ON COLUMN bcmig.alert.severity IS 'warning or critical';
COMMENT ON COLUMN bcmig.alert.raised_at IS 'when it was raised';
COMMENT ON COLUMN bcmig.alert.cleared_at IS 'when it was over; NULL = it is not';
COMMENT ON COLUMN bcmig.alert.value IS 'what it was when the alert was raised';
COMMENT ON COLUMN bcmig.alert.bound IS 'what it should have been';
COMMENT ON COLUMN bcmig.alert.detail IS 'what is wrong';
COMMENT ON COLUMN bcmig.alert.fix IS 'statement to run';

-- pg_monitor reads; everything else is the owner's until granted
GRANT USAGE ON SCHEMA bcmig TO pg_monitor;
GRANT SELECT ON ALL TABLES IN SCHEMA bcmig TO pg_monitor;
GRANT EXECUTE ON FUNCTION bcmig.live_workers(), bcmig.live_blues(), bcmig.live_tables(), bcmig.live_syncs(), bcmig.plan_steps(),
    bcmig_status(text), bcmig.audit_hash(bytea, bigint, timestamptz, text, text, text, text, text, text),
    bcmig.audit_defects(bigint, bigint), bcmig_verify_audit(), bcmig.journal_pending(text),
    bcmig_health_report(text, text), bcmig_sync_report(text, text), bcmig_progress_report(bigint), bcmig_migration_report(bigint, text), bcmig_rollback_report(text, text) TO pg_monitor;

-- what a dump of the database takes along: all that is not in this script
SELECT pg_extension_config_dump('bcmig.environment', $$WHERE side = 'blue'$$);
SELECT pg_extension_config_dump('bcmig.sync', '');
SELECT pg_extension_config_dump('bcmig.sync_table', '');
SELECT pg_extension_config_dump('bcmig.companion', '');
SELECT pg_extension_config_dump('bcmig.traffic', '');
SELECT pg_extension_config_dump('bcmig.incarnation', '');
SELECT pg_extension_config_dump('bcmig.traffic_request', '');
SELECT pg_extension_config_dump('bcmig.switch', '');
SELECT pg_extension_config_dump('bcmig.confirmation', '');
SELECT pg_extension_config_dump('bcmig.blue_fence_trial', '');
SELECT pg_extension_config_dump('bcmig.balancer', '');
SELECT pg_extension_config_dump('bcmig.balancer_state', '');
SELECT pg_extension_config_dump('bcmig.gate', '');
SELECT pg_extension_config_dump('bcmig.health', '');
SELECT pg_extension_config_dump('bcmig.gate_answer', '');
SELECT pg_extension_config_dump('bcmig.traffic_event', '');
SELECT pg_extension_config_dump('bcmig.gate_result', '');
SELECT pg_extension_config_dump('bcmig.column_map', '');
SELECT pg_extension_config_dump('bcmig.enum_value', '');
SELECT pg_extension_config_dump('bcmig.blue_position', '');
SELECT pg_extension_config_dump('bcmig.plan', '');
SELECT pg_extension_config_dump('bcmig.phase', '');
SELECT pg_extension_config_dump('bcmig.execution', '');
SELECT pg_extension_config_dump('bcmig.execution_request', '');
SELECT pg_extension_config_dump('bcmig.phase_run', '');
SELECT pg_extension_config_dump('bcmig.plan_plan_id_seq', '');
SELECT pg_extension_config_dump('bcmig.execution_execution_id_seq', '');
SELECT pg_extension_config_dump('bcmig.execution_request_request_id_seq', '');
SELECT pg_extension_config_dump('bcmig.baseline_query', '');
SELECT pg_extension_config_dump('bcmig.baseline', '');
SELECT pg_extension_config_dump('bcmig.baseline_table', '');
SELECT pg_extension_config_dump('bcmig.baseline_time', '');
SELECT pg_extension_config_dump('bcmig.baseline_query_query_id_seq', '');
SELECT pg_extension_config_dump('bcmig.baseline_baseline_id_seq', '');
SELECT pg_extension_config_dump('bcmig.sync_state', '');
SELECT pg_extension_config_dump('bcmig.table_state', '');
SELECT pg_extension_config_dump('bcmig.copy_chunk', '');
SELECT pg_extension_config_dump('bcmig.sync_batch', '');
SELECT pg_extension_config_dump('bcmig.metric', '');
SELECT pg_extension_config_dump('bcmig.quarantine', '');
SELECT pg_extension_config_dump('bcmig.journal', '');
SELECT pg_extension_config_dump('bcmig.reverse_state', '');
SELECT pg_extension_config_dump('bcmig.reverse_sent', '');
SELECT pg_extension_config_dump('bcmig.conflict', '');
SELECT pg_extension_config_dump('bcmig.request', '');
SELECT pg_extension_config_dump('bcmig.schema_change', '');
SELECT pg_extension_config_dump('bcmig.audit_log', '');
SELECT pg_extension_config_dump('bcmig.audit_pending', '');
SELECT pg_extension_config_dump('bcmig.audit_chain', '');
SELECT pg_extension_config_dump('bcmig.audit_head', '');
SELECT pg_extension_config_dump('bcmig.alert_log', '');
-- made again by the next validation, which compares all
SELECT pg_extension_config_dump('bcmig.chunking', 'WHERE false');
SELECT pg_extension_config_dump('bcmig.dirty_chunk', 'WHERE false');
SELECT pg_extension_config_dump('bcmig.hash_probe', 'WHERE false');
SELECT pg_extension_config_dump('bcmig.validation_run', '');
SELECT pg_extension_config_dump('bcmig.validation_result', '');
SELECT pg_extension_config_dump('bcmig.validation_part', '');
SELECT pg_extension_config_dump('bcmig.validation_difference', '');
SELECT pg_extension_config_dump('bcmig.rule', '');
SELECT pg_extension_config_dump('bcmig.rule_result', '');
SELECT pg_extension_config_dump('bcmig.number_sequence', '');
SELECT pg_extension_config_dump('bcmig.validation_sequence', '');
SELECT pg_extension_config_dump('bcmig.confirmation_confirmation_id_seq', '');
SELECT pg_extension_config_dump('bcmig.blue_fence_trial_trial_id_seq', '');
SELECT pg_extension_config_dump('bcmig.balancer_balancer_id_seq', '');
SELECT pg_extension_config_dump('bcmig.gate_gate_id_seq', '');
SELECT pg_extension_config_dump('bcmig.traffic_event_event_id_seq', '');
SELECT pg_extension_config_dump('bcmig.switch_switch_id_seq', '');
SELECT pg_extension_config_dump('bcmig.traffic_request_request_id_seq', '');
SELECT pg_extension_config_dump('bcmig.environment_environment_id_seq', '');
SELECT pg_extension_config_dump('bcmig.sync_sync_id_seq', '');
SELECT pg_extension_config_dump('bcmig.sync_table_table_id_seq', '');
SELECT pg_extension_config_dump('bcmig.sync_batch_batch_id_seq', '');
SELECT pg_extension_config_dump('bcmig.quarantine_quarantine_id_seq', '');
SELECT pg_extension_config_dump('bcmig.journal_journal_id_seq', '');
SELECT pg_extension_config_dump('bcmig.conflict_conflict_id_seq', '');
SELECT pg_extension_config_dump('bcmig.request_request_id_seq', '');
SELECT pg_extension_config_dump('bcmig.schema_change_change_id_seq', '');
SELECT pg_extension_config_dump('bcmig.audit_log_audit_id_seq', '');
SELECT pg_extension_config_dump('bcmig.alert_log_alert_id_seq', '');
SELECT pg_extension_config_dump('bcmig.validation_run_run_id_seq', '');
SELECT pg_extension_config_dump('bcmig.validation_difference_difference_id_seq', '');
SELECT pg_extension_config_dump('bcmig.rule_rule_id_seq', '');

SELECT bcmig.wake();
