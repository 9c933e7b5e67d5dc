-- A database as release 0.1.0 wrote it. Must never be changed.
CREATE TABLE history (
    sequence INTEGER PRIMARY KEY,
    definition TEXT NOT NULL
) STRICT;
PRAGMA application_id = 1413628929;
PRAGMA user_version = 1;
INSERT INTO history VALUES (1, '{"id":"taxes","name":"Taxes","categories":[{"id":"health","name":"Health"},{"id":"education","name":"Education"}],"results":"live","minimum_people":1,"identity":"required","revision":1,"frozen":true}');
PRAGMA journal_mode = WAL;
