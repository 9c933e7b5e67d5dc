//! Under overload, batches are shed before a person's own submission. What is shed costs nothing of a rate limit, and a
//! client that hangs up leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Method;
use support::{BATCH, GOOD, Harness, SUBMISSIONS, TestResponse, until};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const TEST_TIMEOUT: Duration = Duration::from_secs(10);

/// A harness whose log lets appends wait.
fn overloaded(settings: &[(&str, &str)]) -> Arc<Harness> {
    let harness = Arc::new(Harness::with(10_000, settings));
    harness.log.paused.store(true, Ordering::SeqCst);
    harness
}

/// Batches come from the same machine, which is a service, and everything else from the public.
fn client(path: &str) -> &'static [(&'static str, &'static str)] {
    if path == BATCH { &[] } else { &[("x-forwarded-for", "192.0.2.1")] }
}

/// Sends a request that waits for the log.
async fn wait_in_log(
    harness: &Arc<Harness>,
    path: &'static str,
    body: &str,
) -> JoinHandle<TestResponse> {
    let waiting = || harness.log.waiting_appends.load(Ordering::SeqCst);
    let before = waiting();
    let (sender, body) = (Arc::clone(harness), body.to_owned());
    let sent = tokio::spawn(async move { sender.post_with(path, client(path), body).await });
    until(|| waiting() > before || sent.is_finished()).await;
    assert!(!sent.is_finished(), "{path} does not wait for the log");
    sent
}

fn resume(harness: &Harness) {
    harness.log.paused.store(false, Ordering::SeqCst);
    harness.log.resume.notify_waiters();
}

/// Checks that a request is answered although the log makes whatever is admitted wait.
async fn assert_shed(harness: &Harness, path: &str, body: &str) {
    let sent = harness.post_with(path, client(path), body.to_owned());
    let response = timeout(TEST_TIMEOUT, sent).await;
    let response = response.expect("the request is admitted");
    assert!(response.problem(503, "unavailable").contains("nothing was accepted"));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(response.header("ratelimit"), None);
}

#[tokio::test]
async fn batches_leave_a_half_of_all_requests_to_a_persons_own_submission() {
    let harness = overloaded(&[("http.max_requests", "4")]);
    let batch = format!("[{GOOD}]");
    let mut waiting = Vec::new();
    for _ in 0..2 {
        waiting.push(wait_in_log(&harness, BATCH, &batch).await);
    }
    assert_shed(&harness, BATCH, &batch).await;
    waiting.push(wait_in_log(&harness, SUBMISSIONS, GOOD).await);
    assert_shed(&harness, "/v1/budgets/taxes/session", r#"{"code":"1"}"#).await;
    waiting.push(wait_in_log(&harness, SUBMISSIONS, GOOD).await);
    assert_shed(&harness, SUBMISSIONS, GOOD).await;
    assert_shed(&harness, "/budgets/taxes/submit", "c.health=100").await;

    // Administrators' routes have no rate limits of the public and are not shed.
    let definition =
        r#"{"name":"Park","categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}]}"#;
    let json = [("content-type", "application/json")];
    let defined = harness.send(Method::PUT, "/v1/budgets/park", &json, definition).await;
    assert_eq!(defined.status, 201);

    resume(&harness);
    for sent in waiting {
        assert!(sent.await.unwrap().status.is_success());
    }
    assert_eq!(harness.logged().len(), 4);
    harness.post(SUBMISSIONS, GOOD).await.accepted();
}

#[tokio::test]
async fn a_submission_that_is_shed_is_charged_to_no_limit() {
    let harness = overloaded(&[
        ("http.max_requests", "1"),
        ("limits.submissions", "address fixed-window 2/1h on=submission"),
    ]);
    let first = wait_in_log(&harness, SUBMISSIONS, GOOD).await;
    for _ in 0..5 {
        assert_shed(&harness, SUBMISSIONS, GOOD).await;
    }
    resume(&harness);
    assert_eq!(first.await.unwrap().status, 202);
    let client = [("x-forwarded-for", "192.0.2.1")];
    let second = harness.post_with(SUBMISSIONS, &client, GOOD).await;
    assert_eq!(second.status, 202);
    assert_eq!(second.header("x-ratelimit-remaining"), Some("0"));
}

#[tokio::test]
async fn a_request_is_admitted_no_longer_than_its_client_waits() {
    let harness = overloaded(&[("http.max_requests", "1")]);
    for _ in 0..3 {
        let abandoned = wait_in_log(&harness, SUBMISSIONS, GOOD).await;
        abandoned.abort();
        assert!(abandoned.await.is_err());
    }
    resume(&harness);
    harness.post(SUBMISSIONS, GOOD).await.accepted();
}
