-- What the extension is made of explains itself and is nobody's by default.

-- every table, view and function has a comment
SELECT pg_describe_object(d.classid, d.objid, 0) AS without_comment
  FROM pg_depend d
 WHERE d.refclassid = 'pg_extension'::regclass
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bcmig')
   AND d.deptype = 'e'
   AND (d.classid IN ('pg_proc'::regclass, 'pg_namespace'::regclass)
        OR d.classid = 'pg_class'::regclass AND (SELECT relkind IN ('r', 'v') FROM pg_class WHERE oid = d.objid))
   AND obj_description(d.objid, d.classid::regclass::name) IS NULL
 ORDER BY 1;

-- the comment of a function begins with its class
SELECT p.oid::regprocedure AS without_class
  FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
 WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bcmig')
   AND obj_description(p.oid, 'pg_proc') !~ '^(configuration|request|wait|report|engine): '
 ORDER BY 1;

-- nothing is granted to PUBLIC
SELECT p.oid::regprocedure AS executable_by_public
  FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
 WHERE d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'bcmig')
   AND has_function_privilege('pg_database_owner', p.oid, 'EXECUTE')
 ORDER BY 1;
SELECT c.oid::regclass AS open_to_public
  FROM pg_class c, aclexplode(c.relacl) a
 WHERE c.relnamespace = 'bcmig'::regnamespace AND a.grantee = 0
 ORDER BY 1;

-- the meaning of an option is a sentence
SELECT name FROM bcmig.option WHERE meaning !~ '^[A-Za-z].*\.$' ORDER BY 1;

-- configuration travels with a dump
SELECT count(*) AS not_dumped
  FROM pg_class c
 WHERE c.relnamespace = 'bcmig'::regnamespace AND c.relkind IN ('r', 'S') AND c.relname <> 'option'
   AND NOT c.oid = ANY ((SELECT extconfig FROM pg_extension WHERE extname = 'bcmig')::oid[]);
