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
SELECT count(*) AS tried, count(*) FILTER (WHERE e NOT SIMILAR TO '(BM016 compressed BLOB is damaged at byte offset|no error: )%') AS odd
  FROM (SELECT '\x02457D5B0B730D0AF6F4F7D330D45408F60F0AF1F473D770CB4CCD4901F2C33D5C835C213C23535B43A0124D0600'::bytea AS b) v,
       generate_series(0, length(b) * 8 - 1) bit, LATERAL pg_temp.blob_error(set_bit(b, bit, 1 - get_bit(b, bit))) e;
-- closing dates
SELECT at, bcmig_is_closing_date(at) FROM unnest(ARRAY['2026-12-31 23:59:59', '2026-12-31', '2026-12-31 23:59:59.001', '1753-01-01', '1753-12-31 23:59:59',
    '1999-12-31 23:59:59', '2026-12-31 23:59:58.997', 'infinity', '-infinity']::timestamp[]) at;

-- AL metadata: fields, options, keys of a table
CREATE FUNCTION pg_temp.doc(xml text) RETURNS bytea LANGUAGE sql AS $$ SELECT convert_to(xml, 'UTF8') $$;
CREATE TEMP TABLE customer AS SELECT pg_temp.doc($x$<?xml version="1.0" encoding="utf-8"?>
<MetaTable xmlns="urn:schemas-microsoft-com:dynamics:NAV:MetaObjects" ID="18" Name="Customer" DataPerCompany="1">
  <Fields>
    <Field ID="1" Name="No." Datatype="Code" DataLength="20"/>
    <Field ID="2" Name="Name &amp; more" Datatype="Text" DataLength="100"/>
    <Field ID="39" Name="Blocked" Datatype="Option" OptionString=" ,Ship,Invoice,All"/>
    <Field ID="40" Name="Kind" Datatype="Option" OptionString="A,&quot;B, and C&quot;,D" OptionOrdinalValues="0,10,20"/>
    <Field ID="53" Name="Last Modified" Datatype="DateTime"/>
    <Field ID="54" Name="Last Date" Datatype="Date"/>
    <Field ID="58" Name="Balance" Datatype="Decimal" FieldClass="FlowField"/>
    <Field ID="55" Name="Date Filter" Datatype="Date" FieldClass="FlowFilter"/>
    <Field ID="60" Name="Old" Datatype="Boolean" Enabled="0" ObsoleteState="Removed"/>
  </Fields>
  <Keys><Key Key="Field1" Clustered="1"/><Key Key="Field2,Field1" MaintainSQLIndex="0"/></Keys>
</MetaTable>$x$) AS metadata;
SELECT field_no, name, al_type, length, class, option_names, option_ordinals, enabled, obsolete FROM customer, bcmig.al_table(metadata);
SELECT key_no, field_nos, field_names, clustered, sql_index FROM customer, bcmig.al_keys(metadata);
SELECT * FROM bcmig.al_enum(pg_temp.doc('<Enum ID="5" Name="E"><Value Ordinal="0" Name=" "/><Value Ordinal="10" Name="Ten"/></Enum>'));
SELECT bcmig.al_identifier('Credit Limit (LCY) % "x" [y]', E'."\\/\'%[]');
-- UTF-16, and UTF-8 that says it were
SELECT field_no, name FROM bcmig.al_table('\xfffe'::bytea || (SELECT string_agg(set_byte('\x0000', 0, ascii(c)), ''::bytea ORDER BY n)
    FROM regexp_split_to_table('<MetaTable ID="1" Name="T"><Fields><Field ID="7" Name="x" Datatype="Integer"/></Fields></MetaTable>', '') WITH ORDINALITY r(c, n)));
SELECT field_no, name FROM bcmig.al_table(pg_temp.doc('<?xml version="1.0" encoding="utf-16"?><MetaTable ID="1" Name="T"><Fields><Field ID="7" Name="ä" Datatype="Integer"/></Fields></MetaTable>'));
-- refused
SELECT * FROM bcmig.al_table('');
SELECT * FROM bcmig.al_table(pg_temp.doc('<Page ID="1"/>'));
SELECT * FROM bcmig.al_table(pg_temp.doc('<MetaTable ID="1x" Name="T"/>'));
SELECT * FROM bcmig.al_table(pg_temp.doc('<MetaTable ID="1" Name="T"><Fields><Field ID="1" Name="a" Datatype="Option" OptionString="A,B" OptionOrdinalValues="0"/></Fields></MetaTable>'));
SELECT * FROM bcmig.al_table(pg_temp.doc('<!DOCTYPE m [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><MetaTable ID="1" Name="&b;"/>'));
SELECT * FROM bcmig.al_table('\x02457D5BFFFF');
-- what libxml2 says differs from version to version
\set VERBOSITY terse
SELECT * FROM bcmig.al_table(pg_temp.doc('no xml'));
SELECT * FROM bcmig.al_table(pg_temp.doc('<MetaTable ID="1" Name="T"><Fields>'));
SELECT * FROM bcmig.al_table(pg_temp.doc('<!DOCTYPE m [<!ENTITY e SYSTEM "file:///etc/passwd">]><MetaTable ID="1" Name="&e;"/>'));
\set VERBOSITY default
