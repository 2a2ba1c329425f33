-- Values of Business Central for people to read.
-- vectors of the platform
SELECT convert_from(bcmig_blob('\x02457D5BF348CDC9C90700'), 'UTF8') AS hello,
       convert_from(bcmig_blob('\x02457D5BF348CDC9C9D75108CF2FCA49510400'), 'UTF8') AS hello_world;
SELECT length(b), get_byte(b, 46) AS last_byte, convert_from(substr(b, 1, 46), 'UTF8') AS view_text
  FROM bcmig_blob('\x02457D5B0B730D0AF6F4F7D330D45408F60F0AF1F473D770CB4CCD4901F2C33D5C835C213C23535B43A0124D0600') b;
-- not compressed: its bytes
SELECT bcmig_blob(''), bcmig_blob('\x0245'), bcmig_blob('\x02457D5C00'), bcmig_blob('\xffd8ffe0'), bcmig_blob(NULL) IS NULL AS nothing;
-- damaged: every truncation is an error that says where
CREATE FUNCTION pg_temp.blob_error(b bytea) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    RETURN 'no error: ' || encode(bcmig_blob(b), 'hex');
EXCEPTION WHEN OTHERS THEN
    RETURN SQLSTATE || ' ' || SQLERRM;
END $$;
SELECT n, pg_temp.blob_error(substr('\x02457D5BF348CDC9C90700'::bytea, 1, n)) FROM generate_series(4, 10) n;
SELECT pg_temp.blob_error('\x02457D5BF348CDC9C9070000') AS longer,
       pg_temp.blob_error('\x02457D5BFFFFFFFFFF') AS no_deflate;
-- flipped bits: an error or other bytes, never a crash
SELECT count(*) AS tried, count(*) FILTER (WHERE e NOT SIMILAR TO '(XX001 compressed blob is damaged at byte|no error: )%') AS odd
  FROM (SELECT '\x02457D5B0B730D0AF6F4F7D330D45408F60F0AF1F473D770CB4CCD4901F2C33D5C835C213C23535B43A0124D0600'::bytea AS b) v,
       generate_series(0, length(b) * 8 - 1) bit, LATERAL pg_temp.blob_error(set_bit(b, bit, 1 - get_bit(b, bit))) e;
-- closing dates
SELECT at, bcmig_is_closing_date(at) FROM unnest(ARRAY['2026-12-31 23:59:59', '2026-12-31', '2026-12-31 23:59:59.001', '1753-01-01', '1753-12-31 23:59:59',
    '1999-12-31 23:59:59', '2026-12-31 23:59:58.997', 'infinity', '-infinity']::timestamp[]) at;
