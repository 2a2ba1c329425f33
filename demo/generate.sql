-- generate.sql: the books of one company
--
-- {G_L Entry} stands for the company's table.  psql variables:
--   n   posted sales invoices (of 3 lines; half as many purchase invoices)
--   nc  customers    nv  vendors    ni  items    no  open orders
--
-- Everything is computed from row numbers: the same input gives the same
-- books.  They balance: see check_books.sql.
\set ON_ERROR_STOP on
SET client_min_messages = warning;
SET synchronous_commit = off;
SET work_mem = '128MB';
SET temp_buffers = '128MB';
BEGIN;

-- ------------------------------------------------------------ documents
CREATE TEMP TABLE sl ON COMMIT DROP AS
SELECT x.*, round(x.amount * 0.19, 2) AS vat, round(x.qty * x.unit_cost, 2) AS cost
  FROM (SELECT i, l, 1 + (i * 7919 + l * 104729) % :ni AS item, ((1 + (i * l) % 9) * 1.5)::numeric AS qty,
			   (10 + (i * 31 + l * 17) % 990 + 0.95)::numeric AS price,
			   ((10 + (i * 31 + l * 17) % 990 + 0.95) * 2 / 3.0)::numeric(38,20) AS unit_cost,
			   round((1 + (i * l) % 9) * 1.5 * (10 + (i * 31 + l * 17) % 990 + 0.95), 2) AS amount
		  FROM generate_series(1, :n) i, generate_series(1, 3) l) x;
CREATE TEMP TABLE sd ON COMMIT DROP AS
SELECT i, 'C' || lpad((1 + i * 6101 % :nc)::text, 6, '0') AS cust, timestamp '2024-01-01' + (i * 700 / :n) * interval '1 day' AS day,
	   sum(amount) AS amount, sum(vat) AS vat, sum(amount + vat) AS total, sum(cost) AS cost,
	   'SI' || lpad(i::text, 8, '0') AS doc, 1 + i % 40 AS dims, i % 4 <> 0 AS paid
  FROM sl GROUP BY i;
CREATE TEMP TABLE sp ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY i) AS k, i, cust, day + interval '14 days' AS day, total, doc AS invoice, dims,
	   'SP' || lpad(row_number() OVER (ORDER BY i)::text, 8, '0') AS doc
  FROM sd WHERE paid;
CREATE TEMP TABLE pl ON COMMIT DROP AS
SELECT x.*, round(x.amount * 0.19, 2) AS vat
  FROM (SELECT j, l, 1 + (j * 7907 + l * 104723) % :ni AS item, (10 * (1 + (j * l) % 9))::numeric AS qty,
			   (5 + (j * 37 + l * 19) % 500 + 0.4)::numeric AS price,
			   10 * (1 + (j * l) % 9) * (5 + (j * 37 + l * 19) % 500 + 0.4)::numeric AS amount
		  FROM generate_series(1, :n / 2) j, generate_series(1, 2) l) x;
CREATE TEMP TABLE pd ON COMMIT DROP AS
SELECT j, 'V' || lpad((1 + j * 6101 % :nv)::text, 6, '0') AS vend, timestamp '2024-01-01' + (j * 1400 / :n) * interval '1 day' AS day,
	   sum(amount) AS amount, sum(vat) AS vat, sum(amount + vat) AS total,
	   'PI' || lpad(j::text, 8, '0') AS doc, 1 + j % 40 AS dims, j % 3 <> 0 AS paid
  FROM pl GROUP BY j;
CREATE TEMP TABLE pp ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY j) AS k, j, vend, day + interval '30 days' AS day, total, doc AS invoice, dims,
	   'PP' || lpad(row_number() OVER (ORDER BY j)::text, 8, '0') AS doc
  FROM pd WHERE paid;

-- ------------------------------------------------------------ setup, codes, dimensions
INSERT INTO {General Ledger Setup} ("Allow Posting From", "LCY Code", "Amount Decimal Places", "Amount Rounding Precision", "Global Dimension 1 Code", "Global Dimension 2 Code", "Payment Discount Grace Period")
VALUES ('2024-01-01', 'EUR', '2:2', 0.01, 'DEPARTMENT', 'PROJECT', '5' || chr(2));
INSERT INTO {Company Information} ("Name", "City", "IBAN", "Picture", "Check-Avail_ Period Calc_")
VALUES ('CRONUS', 'Århus', 'DK80 CRON 0001', '\x02457D5BF348CDC9C90700', '90' || chr(2));
INSERT INTO {Payment Terms} ("Code", "Due Date Calculation", "Discount Date Calculation", "Discount _", "Description")
SELECT c, d, e, f, g FROM (VALUES ('14 DAYS', '14' || chr(2), '', 0, 'Net 14 days'), ('1M(8D)', '1' || chr(5), '8' || chr(2), 2, '1 Month/2% 8 days'),
								  ('CM', chr(1) || chr(5), '', 0, 'Current month'), ('1Y', '1' || chr(7), '', 0, 'One year'), ('COD', '0' || chr(2), '', 0, 'Cash on delivery')) v (c, d, e, f, g);
INSERT INTO {Currency} ("Code", "ISO Code", "Description", "Currency Factor", "Symbol", "Amount Rounding Precision")
VALUES ('USD', 'USD', 'US dollar', 1.08123456789012345678, '$', 0.01), ('GBP', 'GBP', 'Pound sterling', 0.85000000000000000001, '£', 0.01), ('JPY', 'JPY', '円', 161.2, '¥', 1);
INSERT INTO {No_ Series Line} ("Series Code", "Line No_", "Starting No_", "Increment-by No_", "Last No_ Used", "Open")
SELECT s, 10000, s || '00000001', 1, s || lpad((:n)::text, 8, '0'), 1 FROM unnest(ARRAY['SI', 'SP', 'PI', 'PP', 'SO']) s;
INSERT INTO {Dimension} ("Code", "Name", "Description")
VALUES ('DEPARTMENT', 'Department', ''), ('PROJECT', 'Project', ''), ('Department', 'differs by case', 'two codes that differ only by case');
INSERT INTO {Dimension Value} ("Dimension Code", "Code", "Name", "Dimension Value ID", "Global Dimension No_")
SELECT d, left(d, 1) || lpad(v::text, 3, '0'), d || ' ' || v, CASE d WHEN 'PROJECT' THEN 100 ELSE 0 END + v, CASE d WHEN 'PROJECT' THEN 2 ELSE 1 END
  FROM unnest(ARRAY['DEPARTMENT', 'PROJECT']) d, generate_series(1, 20) v;
INSERT INTO {Dimension Set Entry} ("Dimension Set ID", "Dimension Code", "Dimension Value Code", "Dimension Value ID", "Global Dimension No_")
SELECT s, d, left(d, 1) || lpad((1 + s % 20)::text, 3, '0'), CASE d WHEN 'PROJECT' THEN 100 ELSE 0 END + 1 + s % 20, CASE d WHEN 'PROJECT' THEN 2 ELSE 1 END
  FROM generate_series(1, 40) s, unnest(ARRAY['DEPARTMENT', 'PROJECT']) d;

-- ------------------------------------------------------------ masters
INSERT INTO {G_L Account} ("No_", "Name", "Search Name", "Account Type", "Income_Balance", "Direct Posting", "Totaling")
SELECT a, n, upper(n), 0, CASE WHEN a < '6' THEN 1 ELSE 0 END, 1, ''
  FROM (VALUES ('2110', 'Inventory'), ('2310', 'Customers Domestic'), ('2920', 'Bank, LCY'), ('3110', 'Capital Stock'), ('3195', 'Retained Earnings'),
			   ('5410', 'Vendors, Domestic'), ('5610', 'Sales VAT 19 %'), ('5630', 'Purchase VAT 19 %'), ('6110', 'Sales, Retail'), ('7190', 'Cost of Retail Sold')) v (a, n)
UNION ALL SELECT (8000 + g)::text, 'Expense ' || g, 'EXPENSE ' || g, CASE WHEN g % 10 = 0 THEN 2 ELSE 0 END, 0, 1, CASE WHEN g % 10 = 0 THEN format('%s..%s|9999', 7990 + g, 7999 + g) ELSE '' END
  FROM generate_series(1, 150) g;
-- P: prospects without entries; their keys are renamed while bcmig is at work
INSERT INTO {Customer} ("No_", "Name", "Search Name", "Address", "City", "Post Code", "Phone No_", "Country_Region Code", "Credit Limit (LCY)", "Customer Posting Group", "Payment Terms Code", "Currency Code", "Gen_ Bus_ Posting Group", "VAT Bus_ Posting Group", "E-Mail", "Picture", "Last Date Modified", "Shipping Time", "$systemCreatedAt", "$systemModifiedAt")
SELECT no, 'Müller & Søn ' || c || CASE WHEN c % 50 = 0 THEN ' 𝄞' ELSE '' END, 'MÜLLER & SØN ' || c, 'Rue de l''Église ' || c, (ARRAY['Zürich', 'Łódź', 'København', 'Paris', 'Αθήνα'])[1 + c % 5], lpad(c::text, 5, '0'), '+45 ' || c * 7919,
	   'DK', c * 1000.12345, 'DOMESTIC', '1M(8D)', CASE WHEN c % 10 = 0 THEN 'USD' ELSE '' END, 'NATIONAL', 'NATIONAL', 'c' || c || '@example.com', CASE WHEN c % 20 = 0 THEN '\x02457D5BF348CDC9C9D75108CF2FCA49510400'::bytea END,
	   '2024-01-01', '2' || chr(2), timestamp '2023-12-01 10:00:00.003' + c * interval '1.007 s', timestamp '2023-12-01 10:00:00.003' + c * interval '1.007 s'
  FROM (SELECT c, 'C' || lpad(c::text, 6, '0') FROM generate_series(1, :nc) c UNION ALL SELECT :nc + c, 'P' || lpad(c::text, 6, '0') FROM generate_series(1, 200) c) x (c, no);
INSERT INTO {Customer$ext} ("No_", "Shpfy Customer Id$ec255f57-31d0-4ca2-b751-f2fa7c745abb", "Loyalty Level$3f1c5a20-7b64-4e0c-9a39-5d1b1f3c8a11", "Loyalty Note %$3f1c5a20-7b64-4e0c-9a39-5d1b1f3c8a11")
SELECT "No_", 7000000000000 + right("No_", 6)::bigint, right("No_", 1)::int % 4, 'note ' || "No_" FROM {Customer} WHERE right("No_", 2) <> '13';	-- some lack their companion row
INSERT INTO {Vendor} ("No_", "Name", "Search Name", "City", "Vendor Posting Group", "Payment Terms Code", "Lead Time Calculation")
SELECT 'V' || lpad(v::text, 6, '0'), 'Vendor ' || v, 'VENDOR ' || v, 'Malmö', 'DOMESTIC', '14 DAYS', '10' || chr(2) FROM generate_series(1, :nv) v;
INSERT INTO {Item} ("No_", "Description", "Search Description", "Base Unit of Measure", "Inventory Posting Group", "Unit Price", "Unit Cost", "Gross Weight", "Vendor No_", "Gen_ Prod_ Posting Group", "VAT Prod_ Posting Group", "Last DateTime Modified", "Last Time Modified", "Expiration Calculation")
SELECT lpad(i::text, 6, '0'), 'Chair ' || i || ' 椅子', 'CHAIR ' || i, 'PCS', 'RESALE', (10 + i % 990) * 1.0001, ((10 + i % 990) / 3.0)::numeric(38,20), i / 7.0, 'V' || lpad((1 + i % :nv)::text, 6, '0'), 'RETAIL', 'VAT19',
	   '2024-01-01 12:00:00.007', timestamp '1754-01-01 08:00:00', '1' || chr(7) FROM generate_series(1, :ni) i;
INSERT INTO {Item$ext} ("No_", "Shpfy Item Id$ec255f57-31d0-4ca2-b751-f2fa7c745abb", "Web Text$3f1c5a20-7b64-4e0c-9a39-5d1b1f3c8a11")
SELECT "No_", 8000000000000 + "No_"::bigint, repeat('text ' || "No_" || ' ', 20) FROM {Item};
INSERT INTO {Item Unit of Measure} ("Item No_", "Code", "Qty_ per Unit of Measure")
SELECT i."No_", u, CASE u WHEN 'PCS' THEN 1 ELSE 12 END FROM {Item} i, unnest(ARRAY['PCS', 'BOX']) u;
INSERT INTO {Bank Account} ("No_", "Name", "IBAN", "Bank Acc_ Posting Group") VALUES ('GIRO', 'Giro Bank', 'DK12', 'LCY'), ('NBL', 'New Bank', 'DE34', 'LCY');
INSERT INTO {Comment Line} ("Table Name", "No_", "Line No_", "Date", "Comment")
SELECT 1, "No_", 10000, '2024-02-29', 'first comment on ' || "No_" FROM {Customer};
INSERT INTO {Comment Line$b64d2b42} ("Table Name", "No_", "Line No_", "Print On Pick$b64d2b42-739a-4647-b44a-fd892d64fff6", "Author$b64d2b42-739a-4647-b44a-fd892d64fff6")
SELECT "Table Name", "No_", "Line No_", 1, 'ADMIN' FROM {Comment Line};

-- ------------------------------------------------------------ G/L: opening, sales, payments, purchases, payments, closing
CREATE TEMP VIEW gl AS
SELECT t, p, account, day, type, doc, text, amount, dims, source_type, source FROM (
	SELECT 1 AS t, v.p, v.account, timestamp '2023-12-31' AS day, 0 AS type, 'OPENING' AS doc, 'Opening stock' AS text, v.sign * s.cost AS amount, 0 AS dims, 0 AS source_type, '' AS source
	  FROM (SELECT sum(round(1000000 * "Unit Cost", 2)) AS cost FROM {Item}) s, (VALUES (1, '2110', 1), (2, '3110', -1)) v (p, account, sign)
	UNION ALL
	SELECT 1 + i, v.p, v.account, day, 2, doc, 'Invoice ' || doc,
		   CASE v.p WHEN 1 THEN total WHEN 2 THEN -amount WHEN 3 THEN -vat WHEN 4 THEN cost ELSE -cost END, dims, 1, cust
	  FROM sd, (VALUES (1, '2310'), (2, '6110'), (3, '5610'), (4, '7190'), (5, '2110')) v (p, account)
	UNION ALL
	SELECT 1 + :n + k, v.p, v.account, day, 1, doc, 'Payment for ' || invoice, v.sign * total, dims, 1, cust
	  FROM sp, (VALUES (1, '2920', 1), (2, '2310', -1)) v (p, account, sign)
	UNION ALL
	SELECT 1 + 2 * :n + j, v.p, v.account, day, 2, doc, 'Invoice ' || doc, CASE v.p WHEN 1 THEN -total WHEN 2 THEN amount ELSE vat END, dims, 2, vend
	  FROM pd, (VALUES (1, '5410'), (2, '2110'), (3, '5630')) v (p, account)
	UNION ALL
	SELECT 1 + 3 * :n + k, v.p, v.account, day, 1, doc, 'Payment for ' || invoice, v.sign * total, dims, 2, vend
	  FROM pp, (VALUES (1, '5410', 1), (2, '2920', -1)) v (p, account, sign)
	UNION ALL	-- year end 2024: a closing date, 23:59:59
	SELECT 2 + 4 * :n, v.p, v.account, timestamp '2024-12-31 23:59:59', 0, 'CLOSE2024', 'Close Income Statement', v.sign * s.amount, 0, 0, ''
	  FROM (SELECT sum(amount) AS amount FROM sd WHERE day <= '2024-12-31') s, (VALUES (1, '6110', 1), (2, '3195', -1)) v (p, account, sign)) x;
INSERT INTO {G_L Entry} ("Entry No_", "G_L Account No_", "Posting Date", "Document Type", "Document No_", "Description", "Amount", "Debit Amount", "Credit Amount", "Transaction No_", "User ID", "Source Code", "Source Type", "Source No_", "Document Date", "VAT Reporting Date", "Dimension Set ID", "Global Dimension 1 Code", "Additional-Currency Amount", "Last Modified DateTime", "$systemCreatedAt", "$systemModifiedAt")
SELECT row_number() OVER (ORDER BY t, p), account, day, type, doc, text, amount, greatest(amount, 0), greatest(-amount, 0), t, 'ADMIN', CASE source_type WHEN 1 THEN 'SALES' WHEN 2 THEN 'PURCHASES' ELSE 'GENJNL' END, source_type, source, day, day, dims,
	   CASE WHEN dims > 0 THEN 'D' || lpad((1 + dims % 20)::text, 3, '0') ELSE '' END, round(amount * 1.08, 2), day + interval '10 hours', day + interval '10 hours', day + interval '10 hours'
  FROM gl;
INSERT INTO {G_L Register} ("No_", "From Entry No_", "To Entry No_", "Creation Date", "Creation Time", "Source Code", "User ID")
SELECT "Transaction No_", min("Entry No_"), max("Entry No_"), min("Posting Date")::date, timestamp '1754-01-01' + ("Transaction No_" % 86400) * interval '1 s', min("Source Code"), 'ADMIN'
  FROM {G_L Entry} GROUP BY 1;
INSERT INTO {VAT Entry} ("Entry No_", "Posting Date", "Document No_", "Document Type", "Type", "Base", "Amount", "Bill-to_Pay-to No_", "Transaction No_", "VAT Bus_ Posting Group", "VAT Prod_ Posting Group", "Document Date")
SELECT row_number() OVER (ORDER BY t), day, doc, 2, type, base, vat, source, t, 'NATIONAL', 'VAT19', day
  FROM (SELECT 1 + i AS t, day, doc, 2 AS type, -amount AS base, -vat AS vat, cust AS source FROM sd UNION ALL SELECT 1 + 2 * :n + j, day, doc, 1, amount, vat, vend FROM pd) x;

-- ------------------------------------------------------------ customers' and vendors' ledgers
INSERT INTO {Cust_ Ledger Entry} ("Entry No_", "Customer No_", "Posting Date", "Document Type", "Document No_", "Description", "Customer Name", "Sales (LCY)", "Profit (LCY)", "Sell-to Customer No_", "Customer Posting Group", "User ID", "Source Code", "Open", "Due Date", "Positive", "Closed by Entry No_", "Closed at Date", "Closed by Amount", "Closed by Amount (LCY)", "Transaction No_", "Document Date", "Original Currency Factor", "Dimension Set ID")
SELECT sd.i, sd.cust, sd.day, 2, sd.doc, 'Invoice ' || sd.doc, 'Müller & Søn', sd.amount, sd.amount - sd.cost, sd.cust, 'DOMESTIC', 'ADMIN', 'SALES', (NOT sd.paid)::int, sd.day + interval '1 month', 1,
	   coalesce(:n + sp.k, 0), coalesce(sp.day, '1753-01-01'), CASE WHEN sd.paid THEN sd.total ELSE 0 END, CASE WHEN sd.paid THEN sd.total ELSE 0 END, 1 + sd.i, sd.day, 1, sd.dims
  FROM sd LEFT JOIN sp USING (i)
UNION ALL
SELECT :n + k, cust, day, 1, doc, 'Payment for ' || invoice, 'Müller & Søn', 0, 0, cust, 'DOMESTIC', 'ADMIN', 'CASHRECJNL', 0, day, 0, i, day, -total, -total, 1 + :n + k, day, 1, dims FROM sp;
INSERT INTO {Detailed Cust_ Ledg_ Entry} ("Entry No_", "Cust_ Ledger Entry No_", "Entry Type", "Posting Date", "Document Type", "Document No_", "Amount", "Amount (LCY)", "Customer No_", "User ID", "Source Code", "Transaction No_", "Debit Amount", "Credit Amount", "Debit Amount (LCY)", "Credit Amount (LCY)", "Initial Entry Due Date", "Initial Document Type", "Applied Cust_ Ledger Entry No_", "Ledger Entry Amount", "Posting Group")
SELECT row_number() OVER (ORDER BY t, p), cle, kind, day, type, doc, amount, amount, cust, 'ADMIN', 'SALES', t, greatest(amount, 0), greatest(-amount, 0), greatest(amount, 0), greatest(-amount, 0), day + interval '1 month', itype, applied, (kind = 1)::int, 'DOMESTIC'
  FROM (SELECT 1 + i AS t, 1 AS p, i AS cle, 1 AS kind, day, 2 AS type, doc, total AS amount, cust, 2 AS itype, 0 AS applied FROM sd
		UNION ALL SELECT 1 + :n + k, v.p, CASE v.p WHEN 2 THEN i ELSE :n + k END, CASE v.p WHEN 1 THEN 1 ELSE 2 END, day, 1, doc, CASE v.p WHEN 3 THEN total ELSE -total END, cust, CASE v.p WHEN 2 THEN 2 ELSE 1 END, CASE v.p WHEN 1 THEN 0 ELSE :n + k END
		  FROM sp, generate_series(1, 3) v (p)) x;
INSERT INTO {Vendor Ledger Entry} ("Entry No_", "Vendor No_", "Posting Date", "Document Type", "Document No_", "Description", "Vendor Name", "Purchase (LCY)", "Buy-from Vendor No_", "Vendor Posting Group", "User ID", "Source Code", "Open", "Due Date", "Positive", "Closed by Entry No_", "Closed at Date", "Transaction No_", "Document Date", "External Document No_", "Dimension Set ID")
SELECT pd.j, pd.vend, pd.day, 2, pd.doc, 'Invoice ' || pd.doc, 'Vendor', -pd.amount, pd.vend, 'DOMESTIC', 'ADMIN', 'PURCHASES', (NOT pd.paid)::int, pd.day + interval '1 month', 0,
	   coalesce(:n / 2 + pp.k, 0), coalesce(pp.day, '1753-01-01'), 1 + 2 * :n + pd.j, pd.day, 'EXT' || pd.j, pd.dims
  FROM pd LEFT JOIN pp USING (j)
UNION ALL
SELECT :n / 2 + k, vend, day, 1, doc, 'Payment for ' || invoice, 'Vendor', 0, vend, 'DOMESTIC', 'ADMIN', 'PAYMENTJNL', 0, day, 1, j, day, 1 + 3 * :n + k, day, '', dims FROM pp;
INSERT INTO {Detailed Vendor Ledg_ Entry} ("Entry No_", "Vendor Ledger Entry No_", "Entry Type", "Posting Date", "Document Type", "Document No_", "Amount", "Amount (LCY)", "Vendor No_", "User ID", "Source Code", "Transaction No_", "Debit Amount", "Credit Amount", "Debit Amount (LCY)", "Credit Amount (LCY)", "Initial Entry Due Date", "Initial Document Type", "Applied Vend_ Ledger Entry No_", "Ledger Entry Amount", "Posting Group")
SELECT row_number() OVER (ORDER BY t, p), vle, kind, day, type, doc, amount, amount, vend, 'ADMIN', 'PURCHASES', t, greatest(amount, 0), greatest(-amount, 0), greatest(amount, 0), greatest(-amount, 0), day + interval '1 month', itype, applied, (kind = 1)::int, 'DOMESTIC'
  FROM (SELECT 1 + 2 * :n + j AS t, 1 AS p, j AS vle, 1 AS kind, day, 2 AS type, doc, -total AS amount, vend, 2 AS itype, 0 AS applied FROM pd
		UNION ALL SELECT 1 + 3 * :n + k, v.p, CASE v.p WHEN 2 THEN j ELSE :n / 2 + k END, CASE v.p WHEN 1 THEN 1 ELSE 2 END, day, 1, doc, CASE v.p WHEN 3 THEN -total ELSE total END, vend, CASE v.p WHEN 2 THEN 2 ELSE 1 END, CASE v.p WHEN 1 THEN 0 ELSE :n / 2 + k END
		  FROM pp, generate_series(1, 3) v (p)) x;
INSERT INTO {Bank Account Ledger Entry} ("Entry No_", "Bank Account No_", "Posting Date", "Document Type", "Document No_", "Description", "Amount", "Remaining Amount", "Amount (LCY)", "Bank Acc_ Posting Group", "User ID", "Source Code", "Open", "Positive", "Transaction No_", "Debit Amount", "Credit Amount", "Document Date", "Dimension Set ID")
SELECT row_number() OVER (ORDER BY t), 'GIRO', day, 1, doc, 'Payment for ' || invoice, amount, amount, amount, 'LCY', 'ADMIN', 'PAYMENTJNL', 1, (amount > 0)::int, t, greatest(amount, 0), greatest(-amount, 0), day, dims
  FROM (SELECT 1 + :n + k AS t, day, doc, invoice, total AS amount, dims FROM sp UNION ALL SELECT 1 + 3 * :n + k, day, doc, invoice, -total, dims FROM pp) x;

-- ------------------------------------------------------------ items: opening stock, purchases, sales (applied to the opening stock)
CREATE TEMP TABLE il ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY kind, d, l) AS e, x.* FROM (
	SELECT 0 AS kind, "No_"::int AS d, 1 AS l, "No_"::int AS item, 2 AS type, timestamp '2023-12-31' AS day, 'OPENING' AS doc, 1000000::numeric AS qty, round(1000000 * "Unit Cost", 2) AS cost, 0::numeric AS sales, 3 AS source_type, '' AS source, 0 AS dims FROM {Item}
	UNION ALL SELECT 1, j, l, item, 0, day, doc, qty, pl.amount, 0, 2, vend, dims FROM pl JOIN pd USING (j)
	UNION ALL SELECT 2, i, l, item, 1, day, doc, -qty, -sl.cost, sl.amount, 1, cust, dims FROM sl JOIN sd USING (i)) x;
INSERT INTO {Item Ledger Entry} ("Entry No_", "Item No_", "Posting Date", "Entry Type", "Source No_", "Document No_", "Location Code", "Quantity", "Remaining Quantity", "Invoiced Quantity", "Open", "Positive", "Source Type", "Document Date", "Document Type", "Document Line No_", "Dimension Set ID", "Qty_ per Unit of Measure", "Unit of Measure Code", "Completely Invoiced", "Last Invoice Date")
SELECT e, lpad(item::text, 6, '0'), day, type, source, doc, 'BLUE', qty, rest, qty, (rest <> 0)::int, (qty > 0)::int, source_type, day, CASE kind WHEN 1 THEN 6 WHEN 2 THEN 2 ELSE 0 END, l * 10000, dims, 1, 'PCS', 1, day
  FROM (SELECT il.*, CASE kind WHEN 0 THEN qty - coalesce(s.sold, 0) WHEN 1 THEN qty ELSE 0 END AS rest
		  FROM il LEFT JOIN (SELECT item, sum(qty) AS sold FROM sl GROUP BY item) s USING (item)) x;
INSERT INTO {Value Entry} ("Entry No_", "Item No_", "Posting Date", "Item Ledger Entry Type", "Source No_", "Document No_", "Location Code", "Inventory Posting Group", "Item Ledger Entry No_", "Valued Quantity", "Item Ledger Entry Quantity", "Invoiced Quantity", "Cost per Unit", "Sales Amount (Actual)", "User ID", "Source Code", "Source Type", "Cost Amount (Actual)", "Cost Posted to G_L", "Purchase Amount (Actual)", "Document Date", "Document Type", "Document Line No_", "Inventoriable", "Valuation Date", "Dimension Set ID")
SELECT e, lpad(item::text, 6, '0'), day, type, source, doc, 'BLUE', 'RESALE', e, qty, qty, qty, cost / qty, sales, 'ADMIN', CASE kind WHEN 1 THEN 'PURCHASES' WHEN 2 THEN 'SALES' ELSE 'ITEMJNL' END, source_type, cost, cost, CASE kind WHEN 1 THEN cost ELSE 0 END, day, CASE kind WHEN 1 THEN 6 WHEN 2 THEN 2 ELSE 0 END, l * 10000, 1, day, dims
  FROM il;
INSERT INTO {Item Application Entry} ("Entry No_", "Item Ledger Entry No_", "Inbound Item Entry No_", "Outbound Item Entry No_", "Quantity", "Posting Date", "Creation Date", "Created By User", "Cost Application")
SELECT il.e, il.e, CASE WHEN il.kind < 2 THEN il.e ELSE o.e END, CASE WHEN il.kind < 2 THEN 0 ELSE il.e END, il.qty, il.day, il.day + interval '9 hours', 'ADMIN', 1
  FROM il LEFT JOIN il o ON il.kind = 2 AND o.kind = 0 AND o.item = il.item;

-- ------------------------------------------------------------ posted documents
INSERT INTO {Sales Invoice Header} ("No_", "Sell-to Customer No_", "Bill-to Customer No_", "Bill-to Name", "Bill-to City", "Order Date", "Posting Date", "Shipment Date", "Posting Description", "Payment Terms Code", "Due Date", "Customer Posting Group", "Currency Factor", "Order No_", "Sell-to Customer Name", "Document Date", "External Document No_", "No_ Series", "User ID", "Source Code", "VAT Bus_ Posting Group", "Dimension Set ID", "Cust_ Ledger Entry No_", "Work Description", "$systemCreatedAt", "$systemModifiedAt")
SELECT doc, cust, cust, 'Müller & Søn', 'Zürich', day, day, day, 'Order ' || i, '1M(8D)', day + interval '1 month', 'DOMESTIC', 1, 'SO' || i, 'Müller & Søn', day, 'PO-' || i, 'SI', 'ADMIN', 'SALES', 'NATIONAL', dims, i,
	   CASE WHEN i % 100 = 0 THEN '\x02457D5B0B730D0AF6F4F7D330D45408F60F0AF1F473D770CB4CCD4901F2C33D5C835C213C23535B43A0124D0600'::bytea WHEN i % 100 = 50 THEN ''::bytea END, day + interval '10 hours', day + interval '10 hours'
  FROM sd;
INSERT INTO {Sales Invoice Line} ("Sell-to Customer No_", "Document No_", "Line No_", "Type", "No_", "Location Code", "Posting Group", "Shipment Date", "Description", "Unit of Measure", "Quantity", "Unit Price", "Unit Cost (LCY)", "VAT _", "Amount", "Amount Including VAT", "Bill-to Customer No_", "Gen_ Prod_ Posting Group", "VAT Prod_ Posting Group", "VAT Base Amount", "Unit Cost", "Line Amount", "VAT Identifier", "Posting Date", "Dimension Set ID", "Qty_ per Unit of Measure", "Unit of Measure Code", "Quantity (Base)")
SELECT cust, doc, l * 10000, 2, lpad(item::text, 6, '0'), 'BLUE', 'RESALE', day, 'Chair ' || item || ' 椅子', 'Piece', qty, price, unit_cost, 19, sl.amount, sl.amount + sl.vat, cust, 'RETAIL', 'VAT19', sl.amount, unit_cost, sl.amount, 'VAT19', day, dims, 1, 'PCS', qty
  FROM sl JOIN sd USING (i);
INSERT INTO {Purch_ Inv_ Header} ("No_", "Buy-from Vendor No_", "Pay-to Vendor No_", "Pay-to Name", "Order Date", "Posting Date", "Posting Description", "Payment Terms Code", "Due Date", "Vendor Posting Group", "Vendor Invoice No_", "Document Date", "No_ Series", "User ID", "Source Code", "Dimension Set ID", "Vendor Ledger Entry No_")
SELECT doc, vend, vend, 'Vendor', day, day, 'Order ' || j, '14 DAYS', day + interval '14 days', 'DOMESTIC', 'EXT' || j, day, 'PI', 'ADMIN', 'PURCHASES', dims, j FROM pd;
INSERT INTO {Purch_ Inv_ Line} ("Buy-from Vendor No_", "Document No_", "Line No_", "Type", "No_", "Location Code", "Posting Group", "Description", "Quantity", "Direct Unit Cost", "VAT _", "Amount", "Amount Including VAT", "VAT Base Amount", "Unit Cost", "Line Amount", "Posting Date", "Dimension Set ID", "Qty_ per Unit of Measure", "Unit of Measure Code", "Quantity (Base)")
SELECT vend, doc, l * 10000, 2, lpad(item::text, 6, '0'), 'BLUE', 'RESALE', 'Chair ' || item, qty, price, 19, pl.amount, pl.amount + pl.vat, pl.amount, price, pl.amount, day, dims, 1, 'PCS', qty
  FROM pl JOIN pd USING (j);

-- ------------------------------------------------------------ open orders, journals
INSERT INTO {Sales Header} ("Document Type", "No_", "Sell-to Customer No_", "Bill-to Customer No_", "Order Date", "Posting Date", "Shipment Date", "Sell-to Customer Name", "Status", "Dimension Set ID", "Shipping Time", "Work Description")
SELECT 1, 'SO' || lpad(o::text, 8, '0'), 'C' || lpad((1 + o % :nc)::text, 6, '0'), 'C' || lpad((1 + o % :nc)::text, 6, '0'), '2025-12-01', '2025-12-01', '2025-12-15', 'Müller & Søn', o % 2, 1 + o % 40, '1' || chr(4),
	   CASE WHEN o % 10 = 0 THEN '\x02457D5BF348CDC9C90700'::bytea END FROM generate_series(1, :no) o;
INSERT INTO {Sales Line} ("Document Type", "Sell-to Customer No_", "Document No_", "Line No_", "Type", "No_", "Description", "Quantity", "Outstanding Quantity", "Unit Price", "Amount", "Amount Including VAT", "Outstanding Amount (LCY)", "Dimension Set ID", "Unit of Measure Code", "Quantity (Base)", "Outstanding Qty_ (Base)")
SELECT 1, h."Sell-to Customer No_", h."No_", l * 10000, 2, lpad((1 + l * 17 % :ni)::text, 6, '0'), 'Chair', l, l, 12.5, l * 12.5, l * 12.5 * 1.19, l * 12.5 * 1.19, h."Dimension Set ID", 'PCS', l, l
  FROM {Sales Header} h, generate_series(1, 3) l;
INSERT INTO {Sales Line$ext} ("Document Type", "Document No_", "Line No_", "Shpfy Order Line Id$ec255f57-31d0-4ca2-b751-f2fa7c745abb", "Gift Wrap$3f1c5a20-7b64-4e0c-9a39-5d1b1f3c8a11")
SELECT "Document Type", "Document No_", "Line No_", right("Document No_", 8)::bigint * 10, 1 FROM {Sales Line};
INSERT INTO {Posted Gen_ Journal Line} ("Journal Template Name", "Line No_", "Account No_", "Posting Date", "Document No_", "Amount", "Debit Amount", "Credit Amount", "Amount (LCY)", "Journal Batch Name", "Recurring Frequency")
SELECT 'GENERAL', l, '8001', '2025-01-31 23:59:59', 'GJ' || l, a, greatest(a, 0), greatest(-a, 0), a, 'DEFAULT', '1' || chr(5) FROM (SELECT l, CASE l % 2 WHEN 0 THEN l - 1 ELSE -l END::numeric AS a FROM generate_series(1, 400) l) x;
INSERT INTO {Posted Gen_ Journal Line$ext} ("Line No_", "Approver$3f1c5a20-7b64-4e0c-9a39-5d1b1f3c8a11") SELECT "Line No_", 'BOSS' FROM {Posted Gen_ Journal Line};
INSERT INTO {Analysis View Entry} ("Analysis View Code", "Account No_", "Posting Date", "Entry No_", "Amount")
SELECT 'CUSTOMER', "G_L Account No_", CASE WHEN min("Posting Date") < '2024-02-01' THEN timestamp '1753-01-01' ELSE min("Posting Date") END, row_number() OVER (), sum("Amount") FROM {G_L Entry} GROUP BY "G_L Account No_", date_trunc('month', "Posting Date");

-- ------------------------------------------------------------ a heap, with rows that are equal
INSERT INTO {Integration Log} ("Logged At", "Table ID", "Record ID", "Message", "Duration", "Error")
SELECT timestamp '2025-01-01 00:00:00.007' + (r / 2) * interval '1.003 s', 18, '\x120000000087102700000000', 'exported', -(r / 2), CASE (r / 2) % 3 WHEN 0 THEN ''::bytea END FROM generate_series(1, 500) r;

-- ------------------------------------------------------------ awkward values
INSERT INTO {Cód_ Convenio 50%./'x } ("Código ", "Línea No_", "VAT %", "G/L ""x"" No.", "It's", "Fecha Cierre", "Hora", "Duración", "Fórmula", "Registro", "Imagen", "Texto 'largo'", "Precio $", "Identificador", "Ñandú ") VALUES
 ('abc', 1, 0.00000000000000000001, 'case', -0.00000000000000000001, '2026-12-31 23:59:59', '1754-01-01', -86400000, '10' || chr(2), '\x000000000000', '\x02457D5BF348CDC9C90700', 'two codes that differ only by case', 0, '00000000-0000-0000-0000-000000000000', 0),
 ('ABC', 1, 123456789012345678.12345678901234567890, 'CASE', -123456789012345678.12345678901234567890, '1753-01-01', '1753-01-01', -1, '1' || chr(7), '\x120000000087102700000000', '\x02457D5BF348CDC9C9D75108CF2FCA49510400', 'twenty decimals, eighteen digits before them', 99999999999999999.99999999999999999999, 'ffffffff-ffff-ffff-ffff-ffffffffffff', 1),
 ('Abc', 1, 0, '', 0, '1754-01-01', '1754-01-01 08:00:00', 9223372036854775807, chr(1) || chr(5), '\x00', '\x02457D5B0B730D0AF6F4F7D330D45408F60F0AF1F473D770CB4CCD4901F2C33D5C835C213C23535B43A0124D0600', 'the lowest real date', 0, gen_random_uuid(), 0),
 ('Ñ/ü.%''"', -1, 10, 'quotes', 0, '9999-12-31', '1754-01-01 23:59:59.997', -9223372036854775808, '-3' || chr(4) || '+1' || chr(6), decode(repeat('ff', 448), 'hex'), '', 'empty blob; the highest date', 1, gen_random_uuid(), 1),
 ('𝄞 😀', 2147483647, 1, '𠜎', 0, '2026-12-31', '1753-01-01', 0, chr(3), '\x00', NULL, 'NULL blob, supplementary characters: 😀 𝄞 𠜎 é (combining: ' || 'e' || chr(769) || ')', 2, gen_random_uuid(), 0),
 (' blank ', -2147483648, 1, 'x ', 0, '2024-02-29 00:00:00', '1754-01-01 00:00:00.003', 1, '', '\x00', decode(repeat('00', 100000), 'hex'), 'trailing blanks   ', 3, gen_random_uuid(), 1),
 ('tab' || chr(9), 0, 1, chr(10) || chr(13), 0, '1753-01-01', '1753-01-01', 1, chr(27), '\x00', '\x02457D5B00', E'control bytes \x01\x02\x03\x04\x05\x06\x07\x08\x0b\x0c\x1f\x7f, backslash \\N \\. \\t, new\r\nline', 4, gen_random_uuid(), 1),
 ('', 0, 1, '', 0, '1753-01-01', '1753-01-01', 0, '', '\x00', '\x4e554c4c', '', 0, '00000000-0000-0000-0000-000000000000', 0),
 ('NULL', 0, 1, 'NULL', 0, '1753-01-01', '1753-01-01', 0, '', '\x00', NULL, 'NULL', 0, '00000000-0000-0000-0000-000000000001', 0),
 ('long', 0, 1, '', 0, '1753-01-01', '1753-01-01', 0, '', '\x00', NULL, repeat('長い😀', 600) || repeat('x', 248), 0, gen_random_uuid(), 0);

-- ------------------------------------------------------------ sequences
SELECT demo.set_sequence('{TableSeq17}', (SELECT max("Entry No_") FROM {G_L Entry})), demo.set_sequence('{TableSeq45}', (SELECT max("No_") FROM {G_L Register})),
	   demo.set_sequence('{TableSeq21}', (SELECT max("Entry No_") FROM {Cust_ Ledger Entry})), demo.set_sequence('{TableSeq379}', (SELECT max("Entry No_") FROM {Detailed Cust_ Ledg_ Entry})),
	   demo.set_sequence('{TableSeq25}', (SELECT max("Entry No_") FROM {Vendor Ledger Entry})), demo.set_sequence('{TableSeq380}', (SELECT max("Entry No_") FROM {Detailed Vendor Ledg_ Entry})),
	   demo.set_sequence('{TableSeq254}', (SELECT max("Entry No_") FROM {VAT Entry})), demo.set_sequence('{TableSeq271}', (SELECT max("Entry No_") FROM {Bank Account Ledger Entry})),
	   demo.set_sequence('{TableSeq32}', (SELECT max("Entry No_") FROM {Item Ledger Entry})), demo.set_sequence('{TableSeq5802}', (SELECT max("Entry No_") FROM {Value Entry})),
	   demo.set_sequence('{TableSeq339}', (SELECT max("Entry No_") FROM {Item Application Entry})), demo.set_sequence('{TableSeq36}', :no), demo.set_sequence('{TableSeq112}', :n),
	   demo.set_sequence('{TableSeq122}', :n / 2), demo.set_sequence('{TableSeq97}', 10000), demo.set_sequence('{TableSeqRename}', 200) \g /dev/null
COMMIT;
