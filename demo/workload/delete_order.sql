-- an order is deleted; every third is there again at once, under the same key
\set from random(1, 300)
\set again random(1, 3)
BEGIN;
SELECT coalesce((SELECT "No_" FROM {Sales Header} WHERE "Document Type" = 1 AND "No_" >= 'SO' || lpad((:from)::text, 8, '0') ORDER BY "No_" LIMIT 1 FOR UPDATE SKIP LOCKED), 'none') AS so \gset
DELETE FROM {Sales Line$ext} WHERE "Document Type" = 1 AND "Document No_" = ':so';
DELETE FROM {Sales Line} WHERE "Document Type" = 1 AND "Document No_" = ':so';
DELETE FROM {Sales Header} WHERE "Document Type" = 1 AND "No_" = ':so';
INSERT INTO {Sales Header} ("Document Type", "No_", "Order Date", "Work Description") SELECT 1, ':so', now() AT TIME ZONE 'UTC', '' WHERE ':so' <> 'none' AND :again = 1;
COMMIT;
