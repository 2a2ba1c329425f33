-- masters are edited: some of it only in extension fields, some changes nothing
\set cust random(1, :nc)
\set item random(1, :ni)
\set what random(1, 6)
\if :what = 1
UPDATE {Customer} SET "Credit Limit (LCY)" = "Credit Limit (LCY)" + 0.00000000000000000001, "Last Date Modified" = now() AT TIME ZONE 'UTC', "$systemModifiedAt" = now() AT TIME ZONE 'UTC' WHERE "No_" = 'C' || lpad((:cust)::text, 6, '0');
\elif :what = 2
UPDATE {Customer$ext} SET "Loyalty Level$3f1c5a20-7b64-4e0c-9a39-5d1b1f3c8a11" = :item, "Signature$3f1c5a20-7b64-4e0c-9a39-5d1b1f3c8a11" = decode(md5(random()::text), 'hex') WHERE "No_" = 'C' || lpad((:cust)::text, 6, '0');
\elif :what = 3
UPDATE {Item} SET "Description" = 'Stuhl ' || :cust || ' ü', "Last DateTime Modified" = now() AT TIME ZONE 'UTC' WHERE "No_" = lpad((:item)::text, 6, '0');
\elif :what = 4
UPDATE {Item$ext} SET "Web Text$3f1c5a20-7b64-4e0c-9a39-5d1b1f3c8a11" = repeat('neu ', :cust % 500) WHERE "No_" = lpad((:item)::text, 6, '0');
\elif :what = 5
UPDATE {Vendor} SET "Name" = "Name" WHERE "No_" = 'V' || lpad((1 + :cust % :nv)::text, 6, '0');
\else
INSERT INTO {Comment Line} ("Table Name", "No_", "Line No_", "Date", "Comment") VALUES (1, 'C' || lpad((:cust)::text, 6, '0'), nextval('{TableSeq97}'), date_trunc('day', now() AT TIME ZONE 'UTC'), 'live ''comment''  ');
\endif
