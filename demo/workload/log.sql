-- the heap grows at its end and loses its beginning
INSERT INTO {Integration Log} ("Logged At", "Table ID", "Message", "Duration") SELECT now() AT TIME ZONE 'UTC', 17, 'twice the same row', -1 FROM generate_series(1, 2);
DELETE FROM {Integration Log} WHERE ctid = (SELECT ctid FROM {Integration Log} ORDER BY "Logged At" LIMIT 1);
