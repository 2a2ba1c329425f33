-- What bcmig looks at of Citus, and one "worker": a distributed table's rows are
-- in a table of the same name with _102008 behind it, where fake_citus.c sends
-- every statement; the table's own file stays empty.
CREATE SCHEMA citus;
CREATE TABLE citus.pg_dist_partition (
    logicalrelid regclass NOT NULL,
    partmethod   "char" NOT NULL,
    partkey      text,
    colocationid integer NOT NULL DEFAULT 0,
    repmodel     "char" NOT NULL DEFAULT 's');
CREATE UNIQUE INDEX pg_dist_partition_logical_relid_index ON citus.pg_dist_partition (logicalrelid);
ALTER TABLE citus.pg_dist_partition SET SCHEMA pg_catalog;
GRANT SELECT ON pg_catalog.pg_dist_partition TO public;

CREATE FUNCTION create_distributed_table(table_name regclass, distribution_column text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    shard text := format('%I.%I', (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = table_name),
                         (SELECT relname || '_102008' FROM pg_class WHERE oid = table_name));
BEGIN
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING ALL)', shard, table_name);
    INSERT INTO pg_catalog.pg_dist_partition VALUES (table_name, 'h', distribution_column);
END $$;
