-- keys of customers are renamed with all that carries the key: two change
-- places, one changes only its case, one gets a new number
\set a random(0, 89)
\set b random(90, 150)
\set what random(1, 4)
BEGIN;
\if :what = 1
SELECT coalesce((SELECT "No_" FROM {Customer} WHERE "No_" >= 'P' AND "No_" < 'Q' ORDER BY "No_" OFFSET :a LIMIT 1 FOR UPDATE), 'none') AS old \gset
SELECT coalesce((SELECT "No_" FROM {Customer} WHERE "No_" >= 'P' AND "No_" < 'Q' ORDER BY "No_" OFFSET :b LIMIT 1 FOR UPDATE), 'none') AS other \gset
UPDATE {Customer} SET "No_" = 'tmp' || pg_backend_pid() WHERE "No_" = ':old';
UPDATE {Customer} SET "No_" = ':old' WHERE "No_" = ':other';
UPDATE {Customer} SET "No_" = ':other' WHERE "No_" = 'tmp' || pg_backend_pid();
\else
\if :what = 2
SELECT coalesce((SELECT "No_" FROM {Customer} WHERE "No_" >= 'P' AND "No_" < 'Q' ORDER BY "No_" OFFSET :a LIMIT 1 FOR UPDATE), 'none') AS old \gset
SELECT lower(':old') AS new \gset
\elif :what = 3
SELECT coalesce((SELECT "No_" FROM {Customer} WHERE "No_" >= 'p' AND "No_" < 'q' ORDER BY "No_" LIMIT 1 FOR UPDATE), 'none') AS old \gset
SELECT upper(':old') AS new \gset
\else
SELECT coalesce((SELECT "No_" FROM {Customer} WHERE "No_" >= 'P' AND "No_" < 'Q' ORDER BY "No_" OFFSET :a LIMIT 1 FOR UPDATE), 'none') AS old \gset
SELECT 'P' || lpad(nextval('{TableSeqRename}')::text, 6, '0') AS new \gset
\endif
UPDATE {Customer} SET "No_" = ':new', "$systemModifiedAt" = now() AT TIME ZONE 'UTC' WHERE "No_" = ':old';
UPDATE {Customer$ext} SET "No_" = ':new' WHERE "No_" = ':old';
UPDATE {Comment Line$b64d2b42} SET "No_" = ':new' WHERE "Table Name" = 1 AND "No_" = ':old';
UPDATE {Comment Line} SET "No_" = ':new' WHERE "Table Name" = 1 AND "No_" = ':old';
\endif
COMMIT;
