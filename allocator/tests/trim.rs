//! `allocator archive --trim` beside `allocator run`: the totals stay the fold of archive and log, whatever interrupts
//! it.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use running::{Running, shell, start, start_with};
use serde_json::Value;
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(60);
const ROUND: u64 = 5_000;

fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_allocator"));
    let dir = format!("sqlite.dir={}", data.display());
    command.args(arguments).args(["--set", &dir]).current_dir(data);
    command
}

fn run(data: &Path, arguments: &[&str]) -> Output {
    command(data, arguments).output().unwrap()
}

/// Sends a file of submissions, and returns the answer.
fn submit(running: &Running, lines: &[String]) -> Value {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), lines.join("\n")).unwrap();
    shell(&format!(
        "curl -s -X POST {}/v1/budgets/taxes/submissions/batch -H 'Content-Type: application/x-ndjson' \
         --data-binary @{}",
        running.url,
        file.path().display()
    ))
}

/// A submission with an id of its own, by a person that the number names.
fn line(number: u64) -> String {
    let id = uuid::Uuid::from_u128(u128::from(number) + 1);
    let health = number % 101;
    let education = 100 - health;
    format!(
        r#"{{"person": "p-{number}", "submission_id": "{id}", "allocation": {{"health": {health}, "education": {education}}}}}"#
    )
}

/// Submits for the next persons, in batches of a thousand.
fn submit_next(running: &Running, from: u64, count: u64) {
    for first in (from..from + count).step_by(1_000) {
        let lines: Vec<_> = (first..first + 1_000).map(line).collect();
        let answer = submit(running, &lines);
        let results = answer["results"].as_array().unwrap();
        assert!(results.iter().all(|result| result["status"] == 202), "{answer}");
    }
}

fn wait_for_people(running: &Running, people: u64) {
    let started = Instant::now();
    loop {
        let aggregate = shell(&format!("curl -s {}/v1/budgets/taxes/aggregate", running.url));
        if aggregate["people"] == people {
            return;
        }
        assert!(started.elapsed() < TIMEOUT, "{aggregate}");
    }
}

/// Archives and trims until at least `records` were deleted by this call: person rows are written behind the commit.
fn trim(data: &Path, records: u64) {
    let (started, mut trimmed) = (Instant::now(), 0);
    while trimmed < records {
        let output = run(data, &["archive", "--trim"]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let number = text.split("trimmed=").nth(1).and_then(|rest| rest.split(' ').next());
        trimmed += number.unwrap().parse::<u64>().unwrap();
        assert!(started.elapsed() < TIMEOUT, "{text}");
    }
}

fn assert_exact(data: &Path, running: &Running) {
    let audit = run(data, &["audit", "--api", &running.url]);
    assert!(audit.status.success(), "{audit:?}");
}

#[test]
fn a_log_that_was_trimmed_beside_the_service_is_audited_rebuilt_and_counted_on() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    submit_next(&running, 0, ROUND);
    wait_for_people(&running, ROUND);
    trim(data.path(), ROUND / 2);
    assert_exact(data.path(), &running);

    // A repeated id gets its first receipt, though its record is in the archive alone; another content is refused.
    let repeated = submit(
        &running,
        &[line(0), line(1).replace("1, \"education\": 99", "2, \"education\": 98")],
    );
    let results = repeated["results"].as_array().unwrap();
    assert_eq!((&results[0]["status"], &results[1]["status"]), (&202.into(), &422.into()));
    wait_for_people(&running, ROUND);

    // kill -9, and on.
    drop(running);
    let running = start(data.path());
    wait_for_people(&running, ROUND);
    submit_next(&running, ROUND, ROUND);
    wait_for_people(&running, 2 * ROUND);
    let rebuild = run(data.path(), &["rebuild"]);
    assert!(rebuild.status.success(), "{rebuild:?}");
    assert_exact(data.path(), &running);

    // A store that is lost is not replayed from a part of the log: only the whole one replaces it.
    trim(data.path(), ROUND / 2);
    drop(running);
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = fs::remove_file(data.path().join(file));
    }
    let mut halted = running::command(data.path());
    let mut halted = halted.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    loop {
        // Exit code 1: the rebuilt totals differ from those of the halted partitions. 2: not yet.
        let rebuild = run(data.path(), &["rebuild", "--from-archive"]);
        if rebuild.status.code() == Some(1) {
            let text = String::from_utf8(rebuild.stdout).unwrap();
            assert!(text.contains("partition 0: generation 1 is stalled at 0"), "{text}");
            break;
        }
        assert!(started.elapsed() < TIMEOUT, "{rebuild:?}");
    }
    halted.kill().unwrap();
    halted.wait().unwrap();
    let running = start(data.path());
    wait_for_people(&running, 2 * ROUND);
    assert_exact(data.path(), &running);

    // Without the archive nothing is derived from what is left of the log.
    let elsewhere = format!("archive.dir={}", data.path().join("elsewhere").display());
    for refused in ["audit", "rebuild"] {
        let output = run(data.path(), &[refused, "--set", &elsewhere]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("set `archive.dir` to the directory of its archive"), "{text}");
    }
}

#[test]
fn a_trim_that_is_killed_at_any_step_loses_nothing() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let mut people = 0;
    for kill_after_ms in [0, 20, 40, 60, 80, 120, 160, 240] {
        submit_next(&running, people, 2_000);
        people += 2_000;
        let mut trimming = command(data.path(), &["archive", "--trim"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(kill_after_ms) {
            std::thread::yield_now();
        }
        let _ = trimming.kill();
        trimming.wait().unwrap();
    }
    wait_for_people(&running, people);
    trim(data.path(), 1);
    let check = run(data.path(), &["archive", "--check"]);
    assert!(check.status.success(), "{check:?}");
    assert_exact(data.path(), &running);
}

#[test]
fn a_full_log_accepts_submissions_again_once_it_is_trimmed() {
    let data = TempDir::new().unwrap();
    let running = start_with(data.path(), &["sqlite.max_log_bytes=1500000"]);
    let mut people = 0;
    let is_accepted = |answer: &Value| answer["results"][0]["status"] == 202;
    loop {
        let lines: Vec<_> = (people..people + 1_000).map(line).collect();
        if !is_accepted(&submit(&running, &lines)) {
            break;
        }
        people += 1_000;
    }
    wait_for_people(&running, people);
    trim(data.path(), people / 2);
    let started = Instant::now();
    while !is_accepted(&submit(&running, &[line(people)])) {
        assert!(started.elapsed() < TIMEOUT, "the log stayed full");
    }
    wait_for_people(&running, people + 1);
    assert_exact(data.path(), &running);
}
