-- reference.sql: prints docs/reference.md, from a database with the extension
--
--	psql -XAtq -f docs/reference.sql		in the directory of the source
--
-- All of it comes from where it holds: COMMENTs, bcmig.option, pg_settings and
-- src/errors.h; of docs/ only the texts of error codes and alerts.  Nothing of
-- the machine or the version is in it.  `make reference` does it all.
\set ON_ERROR_STOP on
\set errors `cat src/errors.h`
\set error_texts `cat docs/errors.md`
\set alert_texts `cat docs/events.md`
\pset null ''

CREATE TEMP VIEW member AS
SELECT classid, objid FROM pg_depend
 WHERE refclassid = 'pg_extension'::regclass AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bcmig') AND deptype = 'e';

-- a line of a table must not have a bar of its own
CREATE FUNCTION pg_temp.cell(t text) RETURNS text LANGUAGE sql AS $$SELECT replace(replace(coalesce(t, ''), '|', '\|'), E'\n', ' ')$$;

CREATE TEMP VIEW fn AS
SELECT p.oid, n.nspname = 'bcmig' AS inner_schema, CASE n.nspname WHEN 'bcmig' THEN 'bcmig.' ELSE '' END || p.proname AS name,
       CASE p.prokind WHEN 'p' THEN 'CALL ' ELSE '' END || CASE n.nspname WHEN 'bcmig' THEN 'bcmig.' ELSE '' END || p.proname
       || '(' || pg_get_function_arguments(p.oid) || ')' || coalesce(E'\n    RETURNS ' || CASE WHEN p.prokind <> 'p' THEN pg_get_function_result(p.oid) END, '') AS call,
       coalesce(substring(d.description FROM '^([a-z]+): '), 'of no class') AS class, regexp_replace(d.description, '^[a-z]+: ', '') AS meaning,
       has_function_privilege('pg_monitor', p.oid, 'EXECUTE') AS for_monitors
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
  JOIN member m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
  LEFT JOIN pg_description d ON d.classoid = 'pg_proc'::regclass AND d.objoid = p.oid;

CREATE TEMP VIEW rel AS
SELECT c.oid, c.relname::text AS name, c.relkind = 'v' AS is_view, d.description AS meaning
  FROM pg_class c
  JOIN member m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
  LEFT JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = c.oid AND d.objsubid = 0
 WHERE c.relkind IN ('r', 'v');

-- values a CHECK lets a column have are told with it, and the table it refers to
CREATE TEMP VIEW col AS
SELECT a.attrelid, a.attnum, format('| `%s` | %s | %s |', a.attname, format_type(a.atttypid, a.atttypmod),
       pg_temp.cell(concat_ws('; ', coalesce(d.description, 'of `' || f.relation || '`'), 'one of ' || k.vals))) AS line
  FROM pg_attribute a
  LEFT JOIN pg_description d ON d.classoid = 'pg_class'::regclass AND d.objoid = a.attrelid AND d.objsubid = a.attnum
  LEFT JOIN LATERAL (
        SELECT (SELECT string_agg('`' || v[1] || '`', ', ' ORDER BY o) FROM regexp_matches(pg_get_constraintdef(c.oid), '''([^'']+)''::text', 'g') WITH ORDINALITY r(v, o)) AS vals
          FROM pg_constraint c
         WHERE c.conrelid = a.attrelid AND c.contype = 'c' AND c.conkey = ARRAY[a.attnum] AND pg_get_constraintdef(c.oid) ~ '= ANY \(ARRAY\['
         ORDER BY c.conname LIMIT 1) k ON true
  LEFT JOIN LATERAL (
        SELECT n.nspname || '.' || r.relname AS relation
          FROM pg_constraint c JOIN pg_class r ON r.oid = c.confrelid JOIN pg_namespace n ON n.oid = r.relnamespace
         WHERE c.conrelid = a.attrelid AND c.contype = 'f' AND a.attnum = ANY (c.conkey)
         ORDER BY c.conname LIMIT 1) f ON true
 WHERE a.attnum > 0 AND NOT a.attisdropped;

CREATE FUNCTION pg_temp.functions(classes text[], VARIADIC inner_schema boolean[]) RETURNS SETOF text LANGUAGE sql AS $$
SELECT format(E'### %s\n\n```\n%s\n```\n\n%s%s\n', name, call, upper(left(meaning, 1)) || substr(meaning, 2), CASE WHEN for_monitors THEN ' For members of `pg_monitor` too.' ELSE '' END)
  FROM fn WHERE class = ANY ($1) AND fn.inner_schema = ANY ($2) ORDER BY name COLLATE "C", call COLLATE "C"
$$;

CREATE FUNCTION pg_temp.relations(views boolean) RETURNS SETOF text LANGUAGE sql AS $$
SELECT format(E'### bcmig.%s\n\n%s\n\n| column | type | |\n|---|---|---|\n%s\n', r.name, r.meaning, string_agg(c.line, E'\n' ORDER BY c.attnum))
  FROM rel r JOIN col c ON c.attrelid = r.oid WHERE r.is_view = $1 GROUP BY r.name, r.meaning ORDER BY r.name COLLATE "C"
$$;

-- of a page the rows of tables that begin with a name: name, and the last of so many columns
CREATE FUNCTION pg_temp.page_rows(page text, name_like text, place integer) RETURNS TABLE (name text, meaning text) LANGUAGE sql AS $$
SELECT btrim(c[2], ' `'), btrim(c[$3 + 1])
  FROM regexp_split_to_table($1, E'\n') l, LATERAL (SELECT regexp_split_to_array(l, E'\\s*\\|\\s*') AS c) s
 WHERE l LIKE '| %' AND btrim(c[2], ' `') ~ $2 AND btrim(c[2]) <> ''
$$;

\qecho '# Reference'
\qecho
\qecho 'Made by `make reference` from the extension itself: comments of its objects, `bcmig.option`, its settings and `src/errors.h`. The same is in psql:'
\qecho '`\\df+ bcmig_*`, `\\d+ bcmig.sync_status`, `SELECT * FROM bcmig.option`. How things work together is in the other pages of this directory.'
\qecho
\qecho 'What a function does is its class: **configuration** changes what is wanted, in the transaction of the caller; **request** asks the engine for'
\qecho 'work that is done after COMMIT; **wait** waits for it; **report** only reads.'
\qecho
\qecho '[Configuration](#configuration), [requests](#requests), [waiting](#waiting), [reports](#reports), [called by bcmig itself](#called-by-bcmig-itself),'
\qecho '[views](#views), [tables](#tables), [options](#options), [steps of plans](#steps-of-plans), [settings of the server](#settings-of-the-server),'
\qecho '[error codes](#error-codes), [alerts](#alerts), [foreign data wrapper](#foreign-data-wrapper)'
\qecho
\qecho '## Configuration'
\qecho
SELECT pg_temp.functions('{configuration}', false);
SELECT pg_temp.functions('{configuration}', true);
\qecho '## Requests'
\qecho
SELECT pg_temp.functions('{request}', false);
SELECT pg_temp.functions('{request}', true);
\qecho '## Waiting'
\qecho
SELECT pg_temp.functions('{wait}', false, true);
\qecho '## Reports'
\qecho
SELECT pg_temp.functions('{report}', false);
SELECT pg_temp.functions('{report}', true);
\qecho '## Called by bcmig itself'
\qecho
\qecho 'By a person only where a page says so.'
\qecho
SELECT pg_temp.functions('{engine,"of no class"}', false, true);
\qecho '## Views'
\qecho
SELECT pg_temp.relations(true);
\qecho '## Tables'
\qecho
\qecho 'To be read; what is to be changed, functions change.'
\qecho
SELECT pg_temp.relations(false);
\qecho '## Options'
\qecho
\qecho 'Keys of the `options` of functions. Intervals are in ms or text as `100ms`, sizes in bytes or text as `64MB`; JSON null sets the default again.'
\qecho
\qecho '| option | of | kind | unit | default | bounds | |'
\qecho '|---|---|---|---|---|---|---|'
SELECT format('| `%s` | %s | %s | %s | %s | %s | %s |', name, array_to_string(scope, ', '), kind, unit, '`' || default_value || '`',
              pg_temp.cell(concat_ws(', ', min_value || ' to ' || max_value, (SELECT string_agg('`' || c || '`', ', ' ORDER BY o) FROM unnest(choices) WITH ORDINALITY u(c, o)))),
              pg_temp.cell(meaning))
  FROM bcmig.option ORDER BY name COLLATE "C";
\qecho
\qecho '## Steps of plans'
\qecho
\qecho 'What `action` of a phase may be, beside `sql`; arguments marked ! must be given.'
\qecho
\qecho '| step | type | arguments | compensation | |'
\qecho '|---|---|---|---|---|'
SELECT format('| `%s` | %s | %s | %s | %s |', step, type, pg_temp.cell(arguments), pg_temp.cell(compensation), pg_temp.cell(meaning)) FROM bcmig.plan_step ORDER BY step COLLATE "C";
\qecho
\qecho '## Settings of the server'
\qecho
\qecho '| setting | default | unit | bounds | takes effect | |'
\qecho '|---|---|---|---|---|---|'
SELECT format('| `%s` | %s | %s | %s | %s | %s |', name, '`' || nullif(boot_val, '') || '`', unit, min_val || ' to ' || max_val,
              CASE context WHEN 'postmaster' THEN 'at a restart' WHEN 'sighup' THEN 'when the configuration is read again' WHEN 'superuser' THEN 'at once, superusers' ELSE context END,
              pg_temp.cell(concat_ws(' ', short_desc, extra_desc)))
  FROM pg_settings WHERE name LIKE 'bcmig.%' ORDER BY name COLLATE "C";
\qecho
\qecho '## Error codes'
\qecho
\qecho 'The hint of an error is the next statement to run.'
\qecho
\qecho '| SQLSTATE | name | when |'
\qecho '|---|---|---|'
SELECT format('| BM%s | `%s` | %s |', c.m[2] || c.m[3] || c.m[4], lower(c.m[1]), t.meaning)
  FROM regexp_matches(:'errors', E'#define ERRCODE_BM_(\\w+)\\s+BCMIG_ERRCODE\\(''(.)'', ''(.)'', ''(.)''\\)', 'g') c(m)
  LEFT JOIN pg_temp.page_rows(:'error_texts', '^BM', 3) t ON t.name = 'BM' || c.m[2] || c.m[3] || c.m[4]
 ORDER BY c.m[2] || c.m[3] || c.m[4];
\qecho
\qecho '## Alerts'
\qecho
\qecho 'Rows of `bcmig.alert`. `LISTEN bcmig_events` tells of them, and of what else `bcmig.audit_log` says: [events.md](events.md).'
\qecho
\qecho '| name | raised when |'
\qecho '|---|---|'
SELECT format('| `%s` | %s |', n.name, t.meaning)
  FROM (SELECT m[1] AS name FROM regexp_matches(pg_get_viewdef('bcmig.alert_condition'), E'SELECT ''([a-z_]+)''::text', 'g') r(m)
        UNION SELECT t.name FROM pg_temp.page_rows(:'alert_texts', '^[a-z_]+$', 2) t WHERE t.meaning ~ '^(warning|critical)') n
  LEFT JOIN pg_temp.page_rows(:'alert_texts', '^[a-z_]+$', 3) t ON t.name = n.name
 ORDER BY n.name COLLATE "C";
\qecho
\qecho '## Foreign data wrapper'
\qecho
SELECT format(E'`%s`: %s', w.fdwname, d.description)
  FROM pg_foreign_data_wrapper w
  JOIN member m ON m.classid = 'pg_foreign_data_wrapper'::regclass AND m.objid = w.oid
  LEFT JOIN pg_description d ON d.classoid = m.classid AND d.objoid = w.oid;
