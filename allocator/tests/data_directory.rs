//! The data directory of the embedded default: who can read it, and how large it becomes.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use running::{Running, shell, start, start_with};
use serde_json::Value;
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Asserts that others than the owner can read neither the directory nor a file in it. Returns the files.
fn assert_private(dir: &Path) -> Vec<String> {
    let is_private = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o077 == 0;
    assert!(is_private(dir), "{}", dir.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        assert!(is_private(&path), "{}", path.display());
        names.push(path.file_name().unwrap().to_string_lossy().into_owned());
    }
    names.sort();
    names
}

#[test]
fn others_read_no_file_of_the_data_directory_and_existing_ones_are_closed_to_them() {
    let home = TempDir::new().unwrap();
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    let start = || start(&data);
    drop(start());
    for entry in fs::read_dir(&data).unwrap() {
        fs::set_permissions(entry.unwrap().path(), Permissions::from_mode(0o644)).unwrap();
    }
    fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    let running = start();
    shell(&running.commands[0]);
    let names = assert_private(&data);
    for name in ["definitions.db", "log.db", "log.db-shm", "log.db-wal", "store.db", "store.db-wal"]
    {
        assert!(names.iter().any(|found| found == name), "{name} is not among {names:?}");
    }
}

fn submit_thousand(running: &Running, round: u32) -> Value {
    let people = (0..1_000).map(|number| {
        format!(r#"{{"person": "p-{round}-{number}", "allocation": {{"health": 100}}}}"#)
    });
    let body = people.collect::<Vec<_>>().join("\n");
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), body).unwrap();
    shell(&format!(
        "curl -s -X POST {}/v1/budgets/taxes/submissions/batch -H 'Content-Type: application/x-ndjson' \
         --data-binary @{}",
        running.url,
        file.path().display()
    ))
}

fn status(running: &Running, path: &str) -> String {
    let line = format!("curl -s -o /dev/null -w '%{{http_code}}' {}{path}", running.url);
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < TIMEOUT, "not in time: {what}");
    }
}

#[test]
fn a_log_that_has_reached_its_size_refuses_submissions_and_says_why() {
    let data = TempDir::new().unwrap();
    let bound = ["sqlite.max_log_bytes=400000"];
    let running = start_with(data.path(), &bound);
    let accepted = |results: &Value| {
        let results = results["results"].as_array().cloned().unwrap_or_default();
        results.iter().filter(|result| result["status"] == 202).count()
    };
    let (mut people, mut round) = (0, 0);
    loop {
        let results = submit_thousand(&running, round);
        people += accepted(&results);
        round += 1;
        if accepted(&results) < 1_000 {
            break;
        }
        assert!(round < 100, "the log has no bound");
    }
    let size = data.path().join("log.db").metadata().unwrap().len();
    assert!(size < 800_000, "{size} bytes");
    wait_until("the process is unready", || status(&running, "/readyz") == "503");
    let refused = shell(&running.commands[0]);
    assert_eq!(refused["type"], "/problems/unavailable", "{refused}");
    let detail = refused["detail"].as_str().unwrap();
    assert!(
        detail.contains("configured size") && detail.contains("nothing was accepted"),
        "{detail}"
    );
    let metrics =
        format!("curl -s {}/metrics | grep -c '^allocator_ingest_log_full 1$'", running.url);
    wait_until("the metric says so", || shell(&metrics) == 1);
    // Reads go on, and count all that was accepted.
    let count = |running: &Running| {
        shell(&format!("curl -s {}/v1/budgets/taxes/aggregate", running.url))["people"].clone()
    };
    wait_until("everyone is counted", || count(&running) == people as u64);

    drop(running);
    let running = start_with(data.path(), &["sqlite.max_log_bytes=40000000"]);
    assert_eq!(accepted(&submit_thousand(&running, round)), 1_000);
}
