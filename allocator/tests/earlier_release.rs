//! A data folder that an earlier release wrote opens, counts on, and agrees with its log.
//!
//! `storage/tests/earlier_release` has the three databases as SQL: three partitions, seven people of whom one withdrew,
//! a second budget, and a second generation after a rebuild.
#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use running::{Running, shell, start_with};
use rusqlite::Connection;
use serde_json::Value;
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);
const PARTITIONS: &str = "log.partitions=3";

fn written_by_an_earlier_release() -> TempDir {
    let dir = TempDir::new().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage/tests/earlier_release");
    for name in ["definitions", "log", "store"] {
        let connection = Connection::open(dir.path().join(format!("{name}.db"))).unwrap();
        for part in ["schema", "data_folder"] {
            let sql = std::fs::read_to_string(source.join(format!("{part}/{name}.sql"))).unwrap();
            connection.execute_batch(&sql).unwrap();
        }
    }
    let secret = source.join("data_folder/person.secret");
    std::fs::copy(secret, dir.path().join("person.secret")).unwrap();
    dir
}

fn aggregate(running: &Running, budget: &str) -> Value {
    shell(&format!("curl -s {}/v1/budgets/{budget}/aggregate", running.url))
}

fn sum(aggregate: &Value, category: &str) -> u64 {
    let categories = aggregate["categories"].as_array().unwrap();
    let found = categories.iter().find(|found| found["id"] == category).unwrap();
    found["total_basis_points"].as_u64().unwrap()
}

#[test]
fn a_data_folder_of_an_earlier_release_opens_and_counts_on() {
    let data = written_by_an_earlier_release();
    let running = start_with(data.path(), &[PARTITIONS]);
    let before = aggregate(&running, "taxes");
    // Six people gave health 10, 20, ..., 60 percent, and education the rest.
    assert_eq!((&before["people"], &before["generation"]), (&6.into(), &2.into()));
    assert_eq!((sum(&before, "health"), sum(&before, "education")), (21_000, 39_000));
    assert_eq!(aggregate(&running, "roads")["people"], 1);

    // The person keeps their key, so the new ballot replaces the old one.
    let body = r#"{"person": "p-1", "allocation": {"health": 100}}"#;
    let url = format!("{}/v1/budgets/taxes/submissions", running.url);
    let header = "Content-Type: application/json";
    let receipt = shell(&format!("curl -s -X POST {url} -H '{header}' -d '{body}'"));
    assert_eq!(receipt["status"], "accepted");
    let started = Instant::now();
    let after = loop {
        let after = aggregate(&running, "taxes");
        if sum(&after, "health") != 21_000 {
            break after;
        }
        assert!(started.elapsed() < TIMEOUT, "{after}");
    };
    assert_eq!((&after["people"], sum(&after, "health")), (&6.into(), 30_000));

    let dir = format!("sqlite.dir={}", data.path().display());
    for command in [&["audit", "--api", &running.url][..], &["generations", "rollback"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_allocator"))
            .args(command)
            .args(["--set", &dir, "--set", PARTITIONS])
            .current_dir(data.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{command:?}: {output:?}");
    }
}
