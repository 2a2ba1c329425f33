-- gl_entry_10.sql: the same table with ten times the rows
CREATE TABLE gl_entry_10 (LIKE gl_entry INCLUDING DEFAULTS);
SELECT string_agg(CASE attname WHEN 'Entry No_' THEN '"Entry No_" + k * ' || :rows ELSE quote_ident(attname) END, ', ' ORDER BY attnum) AS columns
  FROM pg_attribute WHERE attrelid = 'gl_entry'::regclass AND attnum > 0 \gset
INSERT INTO gl_entry_10 SELECT :columns FROM generate_series(0, 9) k, gl_entry;
ALTER TABLE gl_entry_10 ADD PRIMARY KEY ("Entry No_");
SELECT bcmig_blue.track('gl_entry_10') \g /dev/null
VACUUM ANALYZE gl_entry_10;
