//! A budget with a cap on its people, over HTTP: new people are refused, who is counted is not.

#![allow(clippy::unwrap_used)]

#[path = "support/running.rs"]
mod running;

use std::time::{Duration, Instant};

use running::{Running, shell, start};
use serde_json::{Value, json};
use tempfile::TempDir;

const TIMEOUT: Duration = Duration::from_secs(60);

fn define(running: &Running, max_people: u64) -> Value {
    let budget = json!({
        "name": "Town", "max_people": max_people,
        "categories": [{"id": "a", "name": "A"}, {"id": "b", "name": "B"}],
    });
    let (url, authorization) = (&running.url, running.authorization());
    let put = format!("curl -sf -X PUT -H '{authorization}' -H 'content-type: application/json'");
    shell(&format!("{put} {url}/v1/budgets/town -d '{budget}'"))
}

/// Submits for a person, and returns the answer, which may be a problem.
fn submit(url: &str, person: &str, a: u32) -> Value {
    let body = format!(r#"{{"person":"{person}","allocation":{{"a":{a},"b":{}}}}}"#, 100 - a);
    let post = "curl -s -H 'content-type: application/json'";
    shell(&format!("{post} {url}/v1/budgets/town/submissions -d '{body}'"))
}

fn withdraw(url: &str, person: &str) -> Value {
    shell(&format!("curl -sf -X DELETE {url}/v1/budgets/town/submissions/{person}"))
}

fn is_full(answer: &Value) -> bool {
    answer["type"] == "/problems/budget-full"
}

fn wait_for_people(url: &str, people: u64) -> Value {
    wait_until(|| {
        let found = shell(&format!("curl -s {url}/v1/budgets/town/aggregate"));
        (found["people"] == people).then_some(found)
    })
}

fn wait_until<T>(mut reached: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = reached() {
            return found;
        }
        assert!(started.elapsed() < TIMEOUT, "the condition never held");
    }
}

#[test]
fn a_full_budget_refuses_new_people_and_lets_who_is_counted_change_and_withdraw() {
    let data = TempDir::new().unwrap();
    let running = start(data.path());
    let url = running.url.clone();
    assert_eq!(define(&running, 5)["max_people"], 5);

    for person in 1..=4 {
        assert_eq!(submit(&url, &format!("p-{person}"), 20)["status"], "accepted");
    }
    wait_for_people(&url, 4);
    // One more is accepted for the last place, and then nobody: each waits until the one before is counted.
    let mut accepted = 4;
    wait_until(|| {
        let answer = submit(&url, &format!("p-{}", accepted + 1), 20);
        if is_full(&answer) {
            return Some(());
        }
        assert_eq!(answer["status"], "accepted", "{answer}");
        accepted += 1;
        wait_for_people(&url, accepted);
        None
    });
    assert!(accepted >= 5, "{accepted} people are below the cap");
    for person in ["x", "y", "z"] {
        let refused = submit(&url, person, 20);
        assert_eq!((refused["status"].as_u64(), is_full(&refused)), (Some(409), true), "{refused}");
    }
    let full = wait_for_people(&url, accepted);

    // Who is counted changes the allocation, which moves the average and no number of people.
    assert_eq!(submit(&url, "p-1", 100)["status"], "accepted");
    let changed = wait_until(|| {
        let found = wait_for_people(&url, accepted);
        (found["version"] != full["version"]).then_some(found)
    });
    let total = |found: &Value| found["categories"][0]["total_basis_points"].as_u64().unwrap();
    assert_eq!(total(&changed), total(&full) + 8_000);

    // A raised cap lets new people in at once.
    let cap = accepted + 1;
    assert_eq!(define(&running, cap)["max_people"], cap);
    let mut people = accepted;
    wait_until(|| {
        let answer = submit(&url, &format!("p-{}", people + 1), 20);
        if is_full(&answer) {
            return Some(());
        }
        assert_eq!(answer["status"], "accepted", "{answer}");
        people += 1;
        wait_for_people(&url, people);
        None
    });
    assert!(people >= cap, "{people} people are below the cap");
    // So do withdrawals, once they are counted.
    for person in 1..=(people - cap + 1) {
        assert_eq!(withdraw(&url, &format!("p-{person}"))["status"], "accepted");
    }
    // Each of another person: one person's tries have a limit.
    let mut tries = 0;
    wait_until(|| {
        tries += 1;
        (submit(&url, &format!("last-{tries}"), 20)["status"] == "accepted").then_some(())
    });
}
