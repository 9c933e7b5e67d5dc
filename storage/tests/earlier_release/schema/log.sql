-- The schema of a database as release 0.1.0 wrote it. Must never be changed.
CREATE TABLE log (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    partition_count INTEGER NOT NULL,
    cluster_id TEXT NOT NULL
) STRICT;
CREATE TABLE probes (bytes BLOB NOT NULL) STRICT;
CREATE TABLE records (
    partition INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;
CREATE TABLE dead_letters (
    partition INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    reason TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    put_at_ms INTEGER NOT NULL,
    PRIMARY KEY (partition, "offset")
) STRICT, WITHOUT ROWID;
CREATE TABLE decisions (
    id INTEGER PRIMARY KEY,
    partition INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    decision TEXT NOT NULL
) STRICT;
PRAGMA application_id = 1413630977;
PRAGMA user_version = 2;
PRAGMA journal_mode = WAL;
