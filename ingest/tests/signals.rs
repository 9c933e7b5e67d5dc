//! Signals of accepted submissions: which have one, what it says, and that no submission depends on it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use runtime::admin::{Role, TokensFile};
use schemas::{IdentityLevel, IdentityRule, Signal, SignalAction};
use support::{BATCH, Harness, LogMode, SUBMISSIONS, TestResponse, key};

const FORWARDED: &str = "x-forwarded-for";
const PROGRAM: &str = "ssssssssssssssssssssssssssssssss";

fn body(person: &str, health: u32) -> String {
    let rest = 100 - health;
    format!(r#"{{"person":"{person}","allocation":{{"health":{health},"education":{rest}}}}}"#)
}

async fn submit(harness: &Harness, person: &str, headers: &[(&str, &str)]) -> TestResponse {
    harness.post_with(SUBMISSIONS, headers, body(person, 40)).await
}

/// Waits until so many signals were appended, and returns them.
async fn signals(harness: &Harness, count: usize) -> Vec<Signal> {
    wait(|| harness.signals.appended.lock().len() >= count).await;
    let signals = harness.signals.appended.lock().clone();
    assert_eq!(signals.len(), count);
    signals
}

/// Returns the signals that were appended before the one of a last submission.
async fn signals_before_another(harness: &Harness) -> Vec<Signal> {
    assert_eq!(submit(harness, "the last", &[(FORWARDED, "203.0.113.1")]).await.status, 202);
    let last = key("the last");
    let has_last = || harness.signals.appended.lock().iter().any(|signal| signal.person == last);
    wait(has_last).await;
    let mut signals = harness.signals.appended.lock().clone();
    assert_eq!(signals.pop().unwrap().person, last);
    signals
}

async fn wait(condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect("the condition never held");
}

fn dropped(harness: &Harness, reason: &str) -> u64 {
    let text = String::from_utf8(harness.metrics.render()).unwrap();
    let name = format!("allocator_ingest_signals_dropped_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
}

#[tokio::test]
async fn a_signal_has_the_client_that_the_proxy_names_and_not_a_forged_one() {
    let harness = Harness::new();
    let agent = ("user-agent", "browser/1");
    for chain in ["192.0.2.7", "198.51.100.9, 192.0.2.200", "192.0.3.7"] {
        assert_eq!(submit(&harness, chain, &[(FORWARDED, chain), agent]).await.status, 202);
    }
    let signals = signals(&harness, 3).await;
    let networks: Vec<_> = signals.iter().map(|signal| signal.origin.network.unwrap()).collect();
    assert_eq!(networks[0], networks[1], "one /24, and the forged address does not count");
    assert_ne!(networks[0], networks[2]);
    for (signal, person) in signals.iter().zip(["192.0.2.7", "198.51.100.9, 192.0.2.200"]) {
        assert_eq!((signal.person, signal.origin.identity), (key(person), IdentityLevel::Unproven));
        assert_eq!(signal.action, signals[0].action);
        assert_eq!(signal.origin.agent, signals[0].origin.agent);
        assert!(signal.origin.agent.is_some());
    }
}

#[tokio::test]
async fn a_client_that_its_proxy_does_not_name_has_no_network_and_no_agent_is_no_digest() {
    let harness = Harness::new();
    assert_eq!(submit(&harness, "p-1", &[]).await.status, 202);
    let origin = signals(&harness, 1).await[0].origin;
    assert_eq!((origin.network, origin.agent), (None, None));
}

#[tokio::test]
async fn two_processes_with_one_secret_make_the_same_digests_and_budgets_differ() {
    let (first, second) = (Harness::new(), Harness::new());
    let headers = [(FORWARDED, "2001:db8:1:2::3"), ("user-agent", "browser/1")];
    assert_eq!(submit(&first, "p-1", &headers).await.status, 202);
    assert_eq!(submit(&second, "p-2", &headers).await.status, 202);
    let (one, two) = (signals(&first, 1).await, signals(&second, 1).await);
    // The digests are of a UTC day: around midnight the two could be of different days.
    if one[0].accepted_at_ms / 86_400_000 == two[0].accepted_at_ms / 86_400_000 {
        assert_eq!(one[0].origin, two[0].origin);
    }
    assert_eq!(one[0].action, two[0].action);
    assert_ne!(one[0].person, two[0].person);
}

#[tokio::test]
async fn a_repetition_and_a_rejected_submission_have_no_signal() {
    let harness = Harness::new();
    let key = ("idempotency-key", "once");
    for _ in 0..2 {
        assert_eq!(submit(&harness, "p-1", &[key]).await.status, 202);
    }
    assert_eq!(harness.counted("repeated"), 1);
    harness.log.set_mode(LogMode::RejectsAppends);
    assert_eq!(submit(&harness, "p-2", &[]).await.status, 503);
    harness.log.set_mode(LogMode::Accepts);
    assert_eq!(harness.post(SUBMISSIONS, "{}").await.status, 400);
    assert_eq!(signals_before_another(&harness).await.len(), 1);
}

#[tokio::test]
async fn each_submission_of_the_public_has_a_signal_and_a_withdrawal_has_no_ballot() {
    let harness = Harness::new();
    let from = (FORWARDED, "192.0.2.7");
    for n in 0..20 {
        let response = harness.post_with(SUBMISSIONS, &[from], body(&format!("p-{n}"), n)).await;
        assert_eq!(response.status, 202);
    }
    let path = format!("{SUBMISSIONS}/p-3");
    assert_eq!(harness.delete(&path, &[from]).await.status, 202);
    let signals = signals(&harness, 21).await;
    let withdrawal = signals.last().unwrap();
    assert_eq!((withdrawal.person, withdrawal.action), (key("p-3"), SignalAction::Withdraw));
    assert!(signals.iter().all(|signal| signal.origin.network == withdrawal.origin.network));
    assert_ne!(signals[0].action, signals[1].action);
}

#[tokio::test]
async fn a_program_that_submits_for_persons_makes_no_signals() {
    let dir = tempfile::tempdir().unwrap();
    let tokens = dir.path().join("tokens");
    std::fs::write(&tokens, TokensFile::line("import", Role::Submitter, PROGRAM)).unwrap();
    let harness = Harness::with(2_000, &[("admin.tokens_file", tokens.to_str().unwrap())]);
    let bearer = format!("Bearer {PROGRAM}");
    let headers = [("authorization", bearer.as_str()), (FORWARDED, "192.0.2.7")];
    assert_eq!(submit(&harness, "p-1", &headers).await.status, 202);
    harness.edit_budget(|budget| budget.identity = IdentityRule::Code);
    assert_eq!(submit(&harness, "p-2", &headers).await.status, 202);
    let batch = format!("[{}]", body("p-3", 40));
    assert_eq!(harness.post_with(BATCH, &headers, batch).await.status, 200);
    harness.edit_budget(|budget| budget.identity = IdentityRule::Required);
    assert_eq!(signals_before_another(&harness).await, []);
}

#[tokio::test]
async fn a_log_of_signals_that_fails_or_hangs_changes_no_answer_and_drops_are_counted() {
    let harness = Harness::new();
    assert_eq!(submit(&harness, "p-0", &[]).await.status, 202);
    signals(&harness, 1).await;
    harness.signals.fails.store(true, Ordering::Relaxed);
    assert_eq!(submit(&harness, "p-1", &[]).await.status, 202);
    wait(|| dropped(&harness, "unavailable") == 1).await;
    harness.signals.hangs.store(true, Ordering::Relaxed);
    for number in 2..10 {
        assert_eq!(submit(&harness, &format!("p-{number}"), &[]).await.status, 202);
    }
    assert_eq!(harness.counted("accepted"), 10);
}

#[tokio::test]
async fn a_client_that_hangs_up_has_its_signal() {
    let harness = std::sync::Arc::new(Harness::new());
    harness.log.paused.store(true, Ordering::SeqCst);
    let request = tokio::spawn({
        let harness = std::sync::Arc::clone(&harness);
        async move {
            let json = [("content-type", "application/json")];
            harness.send(Method::POST, SUBMISSIONS, &json, body("p-1", 40)).await
        }
    });
    wait(|| harness.log.waiting_appends.load(Ordering::SeqCst) == 1).await;
    request.abort();
    harness.log.paused.store(false, Ordering::SeqCst);
    harness.log.resume.notify_waiters();
    assert_eq!(signals(&harness, 1).await[0].person, key("p-1"));
}
