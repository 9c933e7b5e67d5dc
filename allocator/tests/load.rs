//! `allocator load` against the embedded product: its verdict is exact, unless the aggregate holds anything else.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::process::{Command, Output};

use running::{shell, start};
use tempfile::TempDir;

fn load(url: &str, more: &[&str]) -> Output {
    let arguments = ["load", "--url", url, "--rate", "200", "--people", "60", "--duration", "3"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_allocator"));
    command.args(arguments).args(more).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn the_aggregate_is_exactly_what_new_returning_and_withdrawing_people_sent() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let habits = ["--resubmit", "40", "--withdraw", "20", "--readers", "2", "--watchers", "2"];
    for _ in 0..2 {
        let output = load(&running.url, &habits);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{out}{err}");
        assert!(out.contains("exact: the aggregate is what was sent"), "{out}");
        assert!(out.contains(" 0 rejected") && out.contains(" events"), "{out}");
        assert!(err.contains(" sent, "), "no line each second: {err}");
    }
    let aggregate = shell(&format!("curl -s {}/v1/budgets/taxes/aggregate", running.url));
    let people = aggregate["people"].as_u64().unwrap();
    assert!((2..=120).contains(&people), "{people} people of two runs");
}

#[test]
fn a_submission_of_somebody_else_makes_the_verdict_inexact() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let url = running.url.clone();
    let stranger = std::thread::spawn(move || {
        let submission = r#"{"person": "stranger", "allocation": {"health": 100}}"#;
        let post = "curl -s -X POST -H 'Content-Type: application/json'";
        // Accepted while the load is running: before it, the person would belong to the initial aggregate.
        loop {
            let aggregate = shell(&format!("curl -s {url}/v1/budgets/taxes/aggregate"));
            if aggregate["people"].as_u64().unwrap() > 0 {
                return shell(&format!(
                    "{post} {url}/v1/budgets/taxes/submissions -d '{submission}'"
                ));
            }
        }
    });
    let output = load(&running.url, &[]);
    assert_eq!(stranger.join().unwrap()["status"], "accepted");
    let out = text(&output.stdout);
    assert!(!output.status.success() && out.contains("NOT exact"), "{out}");
}
