-- a new sales order with its lines and their extension fields
\set cust random(1, :nc)
\set item random(1, :ni)
BEGIN;
SELECT 'SO' || lpad(nextval('{TableSeq36}')::text, 8, '0') AS so \gset
INSERT INTO {Sales Header} ("Document Type", "No_", "Sell-to Customer No_", "Bill-to Customer No_", "Order Date", "Status", "Shipping Time") VALUES (1, ':so', 'C' || lpad((:cust)::text, 6, '0'), 'C' || lpad((:cust)::text, 6, '0'), now() AT TIME ZONE 'UTC', 0, '1' || chr(4));
INSERT INTO {Sales Line} ("Document Type", "Document No_", "Line No_", "Type", "No_", "Quantity", "Outstanding Quantity", "Unit Price", "Amount") SELECT 1, ':so', l * 10000, 2, lpad((:item)::text, 6, '0'), l, l, 9.95, l * 9.95 FROM generate_series(1, 3) l;
INSERT INTO {Sales Line$ext} ("Document Type", "Document No_", "Line No_", "Gift Text$3f1c5a20-7b64-4e0c-9a39-5d1b1f3c8a11") SELECT 1, ':so', l * 10000, 'für 😀' FROM generate_series(1, 3) l;
COMMIT;
