\set order random(1, 5000)
\set customer random(1, 5000)
\set amount random(1, 100000)
BEGIN;
UPDATE sales_header SET "Status" = 1, "Amount" = "Amount" + :amount / 100.0 WHERE "No_" = 'S' || :order;
INSERT INTO sales_line SELECT 'S' || :order, nextval('sales_line_no'), 'Contoso Coffee Beans', 1;
INSERT INTO gl_posting ("G_L Account No_", "Amount", "Posting Date") VALUES ('6110', -:amount / 100.0, '2026-01-01'), ('2310', :amount / 100.0, '2026-01-01');
UPDATE customer SET "Balance" = "Balance" + :amount / 100.0 WHERE "No_" = 'C' || :customer;
INSERT INTO posted DEFAULT VALUES;
COMMIT;
