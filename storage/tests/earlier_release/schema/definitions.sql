-- The schema of a database as release 0.1.0 wrote it. Must never be changed.
CREATE TABLE history (
    sequence INTEGER PRIMARY KEY,
    definition TEXT NOT NULL
) STRICT;
PRAGMA application_id = 1413628929;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
