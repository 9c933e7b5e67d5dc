//! What decides who a person is, and which totals count, is recorded with the data: a start that contradicts it is
//! refused.
#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use running::{Running, command, shell, start};
use rusqlite::Connection;
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);

/// A data directory in which one person is counted.
fn data_of_one_person() -> TempDir {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    submit(&running);
    wait_for_one_person(&running);
    data
}

fn submit(running: &Running) {
    assert_eq!(shell(&running.commands[0])["status"], "accepted");
}

fn wait_for_one_person(running: &Running) {
    let started = Instant::now();
    loop {
        let aggregate = shell(&format!("curl -s {}/v1/budgets/taxes/aggregate", running.url));
        if aggregate["people"] == 1 {
            return;
        }
        assert!(started.elapsed() < TIMEOUT, "{aggregate}");
    }
}

/// Starts on the data, which must be refused, and returns the reason.
fn refusal(data: &Path) -> String {
    let output = command(data).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_missing_secret_is_refused_beside_data_and_its_backup_brings_the_person_back() {
    let data = data_of_one_person();
    let (secret, backup) = (data.path().join("person.secret"), data.path().join("backup"));
    fs::rename(&secret, &backup).unwrap();
    for _ in 0..2 {
        let reason = refusal(data.path());
        assert!(reason.contains("person.secret is missing"), "{reason}");
        assert!(reason.contains("Restore the file from a backup"), "{reason}");
        assert!(!secret.exists(), "a new secret was made beside data");
    }
    fs::rename(&backup, &secret).unwrap();
    let running = start(data.path());
    submit(&running);
    wait_for_one_person(&running);
}

#[test]
fn another_secret_than_that_of_the_data_is_refused() {
    let data = data_of_one_person();
    let secret = data.path().join("person.secret");
    let original = fs::read(&secret).unwrap();
    fs::write(&secret, "another secret of at least 32 bytes").unwrap();
    let reason = refusal(data.path());
    assert!(reason.contains("is another one than that of the data"), "{reason}");
    assert!(!reason.contains("another secret of"), "the secret is printed: {reason}");
    fs::write(&secret, original).unwrap();
    drop(start(data.path()));
}

#[test]
fn the_first_start_records_the_secret_of_data_of_an_earlier_release() {
    let data = data_of_one_person();
    let definitions = || Connection::open(data.path().join("definitions.db")).unwrap();
    definitions().execute_batch("DROP TABLE person_secret").unwrap();
    wait_for_one_person(&start(data.path()));
    let recorded: u32 = definitions()
        .query_row("SELECT count(*) FROM person_secret", [], |row| row.get(0))
        .unwrap();
    assert_eq!(recorded, 1);
}

#[test]
fn a_lost_generation_registry_is_refused_and_the_log_counts_again_in_an_empty_store() {
    let data = data_of_one_person();
    let store = data.path().join("store.db");
    Connection::open(&store).unwrap().execute_batch("DELETE FROM roster").unwrap();
    let reason = refusal(data.path());
    assert!(reason.contains("the generation registry is lost"), "{reason}");
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = fs::remove_file(data.path().join(file));
    }
    wait_for_one_person(&start(data.path()));
}
