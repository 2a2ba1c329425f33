-- pays the first open sales invoice from a random place on and applies it
\set from random(1, :last_cle)
\set inv 0
BEGIN;
SELECT "Entry No_" AS inv FROM {Cust_ Ledger Entry} WHERE "Entry No_" >= :from AND "Open" = 1 AND "Document Type" = 2 ORDER BY "Entry No_" LIMIT 1 FOR UPDATE SKIP LOCKED \aset
SELECT nextval('{TableSeq17}') AS gl, nextval('{TableSeq45}') AS reg, nextval('{TableSeq21}') AS cle, nextval('{TableSeq379}') AS dcle, nextval('{TableSeq271}') AS bank, coalesce((SELECT sum("Amount") FROM {Detailed Cust_ Ledg_ Entry} WHERE "Cust_ Ledger Entry No_" = :inv), 0) AS total \gset
INSERT INTO {Cust_ Ledger Entry} ("Entry No_", "Customer No_", "Posting Date", "Document Type", "Document No_", "Description", "Sell-to Customer No_", "Customer Posting Group", "User ID", "Source Code", "Open", "Due Date", "Closed by Entry No_", "Closed at Date", "Closed by Amount", "Transaction No_", "Document Date")
SELECT :cle, "Customer No_", date_trunc('day', now() AT TIME ZONE 'UTC'), 1, 'LP' || :cle, 'live payment', "Customer No_", 'DOMESTIC', 'LIVE', 'CASHRECJNL', 0, now() AT TIME ZONE 'UTC', :inv, date_trunc('day', now() AT TIME ZONE 'UTC'), -:total, :reg, date_trunc('day', now() AT TIME ZONE 'UTC') FROM {Cust_ Ledger Entry} WHERE "Entry No_" = :inv;
INSERT INTO {Detailed Cust_ Ledg_ Entry} ("Entry No_", "Cust_ Ledger Entry No_", "Entry Type", "Posting Date", "Document Type", "Document No_", "Amount", "Amount (LCY)", "Customer No_", "User ID", "Source Code", "Transaction No_", "Debit Amount", "Credit Amount", "Initial Document Type", "Applied Cust_ Ledger Entry No_", "Ledger Entry Amount", "Posting Group")
SELECT :dcle + p, CASE p WHEN 1 THEN :inv ELSE :cle END, CASE p WHEN 0 THEN 1 ELSE 2 END, date_trunc('day', now() AT TIME ZONE 'UTC'), 1, 'LP' || :cle, m, m, e."Customer No_", 'LIVE', 'CASHRECJNL', :reg, demo.debit(m), demo.credit(m), CASE p WHEN 1 THEN 2 ELSE 1 END, CASE p WHEN 0 THEN 0 ELSE :cle END, CASE p WHEN 0 THEN 1 ELSE 0 END, 'DOMESTIC'
  FROM {Cust_ Ledger Entry} e, (VALUES (0, -:total), (1, -:total), (2, :total)) v (p, m) WHERE e."Entry No_" = :inv;
INSERT INTO {G_L Entry} ("Entry No_", "G_L Account No_", "Posting Date", "Document Type", "Document No_", "Description", "Amount", "Debit Amount", "Credit Amount", "Transaction No_", "User ID", "Source Code", "Source Type", "Source No_", "Document Date")
SELECT :gl + p, a, date_trunc('day', now() AT TIME ZONE 'UTC'), 1, 'LP' || :cle, 'live payment', m, demo.debit(m), demo.credit(m), :reg, 'LIVE', 'CASHRECJNL', 1, e."Customer No_", date_trunc('day', now() AT TIME ZONE 'UTC')
  FROM {Cust_ Ledger Entry} e, (VALUES (0, '2920', :total), (1, '2310', -:total)) v (p, a, m) WHERE e."Entry No_" = :inv;
INSERT INTO {Bank Account Ledger Entry} ("Entry No_", "Bank Account No_", "Posting Date", "Document Type", "Document No_", "Description", "Amount", "Remaining Amount", "Amount (LCY)", "User ID", "Source Code", "Open", "Positive", "Transaction No_", "Debit Amount", "Document Date")
SELECT :bank, 'NBL', date_trunc('day', now() AT TIME ZONE 'UTC'), 1, 'LP' || :cle, 'live payment', :total, :total, :total, 'LIVE', 'CASHRECJNL', 1, 1, :reg, :total, date_trunc('day', now() AT TIME ZONE 'UTC') FROM {Cust_ Ledger Entry} WHERE "Entry No_" = :inv;
UPDATE {Cust_ Ledger Entry} SET "Open" = 0, "Closed by Entry No_" = :cle, "Closed at Date" = date_trunc('day', now() AT TIME ZONE 'UTC'), "Closed by Amount" = :total, "Closed by Amount (LCY)" = :total, "$systemModifiedAt" = now() AT TIME ZONE 'UTC' WHERE "Entry No_" = :inv;
COMMIT;
