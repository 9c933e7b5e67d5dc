//! A budget closes while people submit: what was accepted is counted, and results appear only once they are final.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use running::{Running, shell, start};
use serde_json::{Value, json};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(60);

fn define(running: &Running, closes_at: Option<&str>) -> Value {
    let mut budget = json!({
        "name": "Town", "results": if closes_at.is_some() { "after_close" } else { "live" },
        "categories": [{"id": "a", "name": "A"}, {"id": "b", "name": "B"}],
    });
    if let Some(at) = closes_at {
        budget["closes_at"] = at.into();
    }
    let (url, authorization) = (&running.url, running.authorization());
    let put = format!("curl -sf -X PUT -H '{authorization}' -H 'content-type: application/json'");
    shell(&format!("{put} {url}/v1/budgets/town -d '{budget}'"))
}

/// Submits for a person, and returns the status.
fn submit(url: &str, person: &str) -> u16 {
    let body = format!(r#"{{"person":"{person}","allocation":{{"a":25,"b":75}}}}"#);
    let output = Command::new("curl")
        .args([
            "-s",
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
            "-H",
            "content-type: application/json",
        ])
        .args([&format!("{url}/v1/budgets/town/submissions"), "-d", &body])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().parse().unwrap()
}

fn aggregate(url: &str) -> Value {
    shell(&format!("curl -s {url}/v1/budgets/town/aggregate"))
}

fn wait_for(url: &str, what: &str, reached: impl Fn(&Value) -> bool) -> Value {
    let started = Instant::now();
    loop {
        let found = aggregate(url);
        if reached(&found) {
            return found;
        }
        assert!(started.elapsed() < TIMEOUT, "{what}: {found}");
    }
}

fn is_final(found: &Value) -> bool {
    found["final"] == true
}

#[test]
fn all_that_is_accepted_until_the_close_is_in_the_final_result_and_nothing_else() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let url = running.url.clone();
    let date = Command::new("date").args(["-u", "-d", "+6 seconds", "+%FT%TZ"]).output().unwrap();
    define(&running, Some(String::from_utf8(date.stdout).unwrap().trim()));
    let stop = AtomicBool::new(false);
    let (accepted, last) = std::thread::scope(|scope| {
        let submitters: Vec<_> = (0..3)
            .map(|thread| {
                let (url, stop) = (&url, &stop);
                scope.spawn(move || {
                    let (mut accepted, mut refused) = (0, 0);
                    for number in 0.. {
                        match submit(url, &format!("p-{thread}-{number}")) {
                            202 => accepted += 1,
                            409 => refused += 1,
                            status => panic!("{status}"),
                        }
                        if stop.load(Ordering::Relaxed) && refused > 0 {
                            return accepted;
                        }
                    }
                    unreachable!()
                })
            })
            .collect();
        let last = wait_for(&url, "the result becomes final", |found| {
            let shown = found.get("people").is_some();
            assert_eq!(shown, is_final(found), "results are shown before they are final: {found}");
            shown
        });
        stop.store(true, Ordering::Relaxed);
        let accepted: u64 = submitters.into_iter().map(|it| it.join().unwrap()).sum();
        (accepted, last)
    });
    assert!(accepted > 0);
    assert_eq!(last["people"], accepted);
    assert_eq!(submit(&url, "late"), 409);
    assert_eq!(aggregate(&url)["version"], last["version"]);
    drop(running);

    // A restart changes nothing.
    let running = start(data.path());
    let url = running.url.clone();
    let again = wait_for(&url, "the result is final after a restart", is_final);
    assert_eq!((&again["people"], &again["version"]), (&last["people"], &last["version"]));

    // Reopened: the result is not final, and what is accepted from now on counts.
    let reopened = define(&running, None);
    assert_eq!(reopened["closing"]["state"], "reopening");
    let started = Instant::now();
    while submit(&url, "again") != 202 {
        assert!(started.elapsed() < TIMEOUT, "the budget is not reopened");
    }
    let found =
        wait_for(&url, "the new submission is counted", |found| found["people"] == accepted + 1);
    assert!(!is_final(&found));
    let audited = Command::new(env!("CARGO_BIN_EXE_allocator"))
        .args(["audit", "--set", &format!("sqlite.dir={}", data.path().display())])
        .current_dir(data.path())
        .output()
        .unwrap();
    assert!(audited.status.success(), "{audited:?}");
}
