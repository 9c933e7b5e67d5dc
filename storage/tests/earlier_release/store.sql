-- A database as release 0.1.0 wrote it. Must never be changed.
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
INSERT INTO roster VALUES (1, 1, '{"revision":1,"term":1,"current":{"generation":1,"log":{"number":0,"topic":"submissions","partitions":1}},"building":null,"previous":null,"retired":[],"next":2}');
INSERT INTO partition_reports VALUES (1, 0, '{"position":2,"rows":1,"high":2,"compared":null,"trouble":"it halted","at_ms":4}');
INSERT INTO jobs VALUES (x'01935b1e000070008000000000000001', 1, '{"id":"01935b1e-0000-7000-8000-000000000001","revision":1,"kind":"audit","priority":"normal","asked_by":"otto","created_at_ms":5,"changed_at_ms":5,"state":"queued","not_before_ms":0,"cancelling":false,"failed":[],"progress":{"done":0,"of":0,"line":""},"checkpoint":null}');
INSERT INTO partitions VALUES (1, 0, 3, 'an owner', 2, 1, 'a cluster', '', 1, 42, 1, 0, 1);
INSERT INTO totals VALUES (1, 0, 'taxes', 2, 1, 1795212000123, '[4000,6000]', x'0aca0100000000000000000000000000000000000000000000000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000100000000000000000000000000000000000000000000000000000000000000000000000000000000');
INSERT INTO allocations VALUES (1, 0, 7, x'07070707070707070707070707070707', 1, x'0a05746178657310011a04a01ff02e22083930000000000000');
PRAGMA journal_mode = WAL;
