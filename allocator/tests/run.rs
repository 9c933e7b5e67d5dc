//! `allocator run` as somebody who tries the product meets it.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use running::{Running, command, shell, start};
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

fn signal(running: &Running, name: &str) {
    let id = running.child.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

fn exit_code(running: &mut Running) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = running.child.try_wait().unwrap() {
            return status.code();
        }
        assert!(began.elapsed() < PATIENCE, "it does not end");
        std::thread::yield_now();
    }
}

/// The aggregate once so many people are counted.
fn aggregate_of(url: &str, people: u64) -> Value {
    let began = Instant::now();
    loop {
        let aggregate = shell(&format!("curl -s {url}/v1/budgets/taxes/aggregate"));
        if aggregate["people"] == people {
            return aggregate;
        }
        assert!(began.elapsed() < PATIENCE, "{aggregate}");
    }
}

fn total(aggregate: &Value, id: &str) -> u64 {
    let categories = aggregate["categories"].as_array().unwrap();
    let category = categories.iter().find(|category| category["id"] == id).unwrap();
    category["total_basis_points"].as_u64().unwrap()
}

#[test]
fn the_printed_lines_work_as_printed_and_at_once() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let [submit, person, aggregate] = running.lines.as_slice() else { panic!("three lines") };
    assert_eq!(shell(submit)["status"], "accepted");
    assert_eq!(shell(person)["allocation"]["education"], 35.5);
    assert_eq!(shell(aggregate)["budget"], "taxes");
    let aggregate = aggregate_of(&running.url, 1);
    assert_eq!(total(&aggregate, "health"), 4000);
    assert_eq!(total(&aggregate, "defence"), 2450);
}

#[test]
fn a_folder_that_is_in_use_is_refused_and_the_first_goes_on() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let Output { status, stderr, .. } = command(data.path()).output().unwrap();
    assert_eq!(status.code(), Some(1));
    let why = String::from_utf8(stderr).unwrap();
    let expected = format!("another allocator (process {}) runs on the data", running.child.id());
    assert!(why.contains(&expected), "{why}");
    assert_eq!(shell(&running.lines[0])["status"], "accepted");
}

#[test]
fn after_sigterm_and_after_sigkill_everything_acknowledged_is_counted_once() {
    let data = TempDir::new().unwrap();
    let submit = |url: &str, person: u32| {
        let body = format!(r#"{{"person": "p-{person}", "allocation": {{"health": 100}}}}"#);
        let line = format!(
            "curl -s -X POST {url}/v1/budgets/taxes/submissions -H 'Content-Type: application/json' -d '{body}'"
        );
        assert_eq!(shell(&line)["status"], "accepted");
    };
    let mut first = start(data.path());
    (0..5).for_each(|person| submit(&first.url, person));
    signal(&first, "-TERM");
    assert_eq!(exit_code(&mut first), Some(0));

    let mut second = start(data.path());
    (3..8).for_each(|person| submit(&second.url, person));
    signal(&second, "-KILL");
    assert_eq!(exit_code(&mut second), None);

    let third = start(data.path());
    let aggregate = aggregate_of(&third.url, 8);
    assert_eq!(total(&aggregate, "health"), 80_000);
}

#[test]
fn a_wrong_configuration_is_refused_with_every_fault() {
    let data = TempDir::new().unwrap();
    let mut command = command(data.path());
    command.args(["--set", "log.kind=paper", "--set", "alocator.listen=x"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let why = String::from_utf8(output.stderr).unwrap();
    assert!(why.contains("log.kind") && why.contains("did you mean allocator.listen?"), "{why}");
}
