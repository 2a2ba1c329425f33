-- shared.sql: tables that belong to no company
INSERT INTO "Company" ("Name", "Display Name", "Id") VALUES ('CRONUS International Ltd.', 'CRONUS', gen_random_uuid()), ('My Company', '', gen_random_uuid());
INSERT INTO "Record Link" ("Link ID", "Record ID", "URL1", "Type", "Note", "Created", "User ID", "Company")
SELECT l, decode('120000000087' || lpad(to_hex(l), 4, '0') || '00000000', 'hex'), 'https://example.com/?q=' || repeat('x', l % 500), l % 2, CASE WHEN l % 3 = 0 THEN convert_to('Notiz ' || l, 'UTF8') END, '2025-06-01 12:00:00.003', 'ADMIN', 'CRONUS International Ltd.'
  FROM generate_series(1, 300) l;
-- pictures of 60 KB to 3 MB that do not compress
INSERT INTO "Tenant Media" ("ID", "Description", "Content", "Mime Type", "Company Name")
SELECT gen_random_uuid(), 'picture ' || m, (SELECT string_agg(sha512((m || '/' || g)::text::bytea), '') FROM generate_series(1, CASE m WHEN 1 THEN 48000 ELSE 1000 * m END) g), 'image/jpeg', 'CRONUS International Ltd.'
  FROM generate_series(1, 12) m;
