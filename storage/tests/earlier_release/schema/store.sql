-- The schema of a database as release 0.1.0 wrote it. Must never be changed.
CREATE TABLE roster (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    revision INTEGER NOT NULL,
    roster TEXT NOT NULL
) STRICT;
CREATE TABLE partition_reports (
    generation INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    report TEXT NOT NULL,
    PRIMARY KEY (generation, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE jobs (
    id BLOB PRIMARY KEY,
    revision INTEGER NOT NULL,
    job TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE deleted_people (
    generation INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    PRIMARY KEY (generation, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE partitions (
    generation INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    owner TEXT NOT NULL,
    position INTEGER NOT NULL DEFAULT 0,
    state_position INTEGER NOT NULL DEFAULT 0,
    cluster_id TEXT,
    topic_id TEXT,
    last_offset INTEGER,
    last_fingerprint INTEGER,
    applied INTEGER NOT NULL DEFAULT 0,
    duplicates INTEGER NOT NULL DEFAULT 0,
    dead_lettered INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (generation, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE totals (
    generation INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    budget TEXT NOT NULL,
    budget_position INTEGER NOT NULL,
    people INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    sums TEXT NOT NULL,
    distribution BLOB NOT NULL,
    PRIMARY KEY (generation, partition, budget)
) STRICT;
CREATE TABLE allocations (
    generation INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    bucket INTEGER NOT NULL,
    person BLOB NOT NULL,
    "offset" INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (generation, partition, bucket, person)
) STRICT, WITHOUT ROWID;
PRAGMA application_id = 1413632769;
PRAGMA user_version = 3;
PRAGMA journal_mode = WAL;
