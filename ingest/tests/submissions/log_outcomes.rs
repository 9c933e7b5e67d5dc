//! A log that is unavailable, does not confirm, or has too much to do.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::support::{GOOD, Harness, LogMode, SUBMISSIONS, key, until};
use crate::{ID, with_id};

#[tokio::test]
async fn a_submission_whose_client_hangs_up_is_still_finished() {
    let harness = Arc::new(Harness::new());
    harness.log.paused.store(true, Ordering::SeqCst);
    let first = tokio::spawn({
        let harness = Arc::clone(&harness);
        async move { harness.post(SUBMISSIONS, with_id(ID, 40)).await.status }
    });
    until(|| harness.log.waiting_appends.load(Ordering::SeqCst) == 1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    harness.log.paused.store(false, Ordering::SeqCst);
    harness.log.resume.notify_one();
    until(|| harness.counted("accepted") == 1).await;
    let again = harness.post(SUBMISSIONS, with_id(ID, 40)).await;
    again.accepted();
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(harness.logged().len(), 1);
}

#[tokio::test]
async fn an_unavailable_log_is_reported_at_once_and_nothing_is_accepted() {
    let harness = Harness::new();
    for mode in [LogMode::Unavailable, LogMode::RejectsAppends] {
        harness.log.set_mode(mode);
        let response = harness.post(SUBMISSIONS, with_id(ID, 40)).await;
        assert!(response.problem(503, "unavailable").contains("nothing was accepted"));
        assert_eq!(response.header("retry-after"), Some("1"));
    }
    assert_eq!((harness.counted("unavailable"), harness.logged().len()), (2, 0));
    harness.log.set_mode(LogMode::Accepts);
    let response = harness.post(SUBMISSIONS, with_id(ID, 40)).await;
    response.accepted();
    assert_eq!(response.header("idempotency-replayed"), None);
}

#[tokio::test]
async fn an_unknown_outcome_is_reported_with_the_id_for_the_retry() {
    let harness = Harness::new();
    harness.log.set_mode(LogMode::OutcomeUnknown);
    let response = harness.post(SUBMISSIONS, GOOD).await;
    let detail = response.problem(503, "unavailable");
    assert_eq!(response.header("retry-after"), Some("1"));
    assert!(detail.contains("unknown") && !detail.contains("nothing was accepted"), "{detail}");
    assert_eq!(harness.counted("unknown"), 1);
    let id = detail.split('"').nth(3).unwrap();
    let record = harness.log.records.lock()[0].value.clone();
    assert!(schemas::RecordDecoder::default().decode(key("p-1").as_bytes(), &record).is_ok_and(
        |view| view.submission == schemas::SubmissionId(id.parse().unwrap()).fingerprint()
    ));
    // The retry appends a second record with the same id, which the fold counts once.
    harness.log.set_mode(LogMode::Accepts);
    let body = GOOD.replacen('{', &format!(r#"{{"submission_id":"{id}","#), 1);
    harness.post(SUBMISSIONS, body).await.accepted();
    assert_eq!(harness.logged().len(), 2);
}

#[tokio::test]
async fn records_beyond_the_in_flight_limit_are_rejected_at_once() {
    let harness = Arc::new(Harness::with(2, &[]));
    harness.log.paused.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let harness = Arc::clone(&harness);
            tokio::spawn(async move { harness.post(SUBMISSIONS, GOOD).await.accepted() })
        })
        .collect();
    until(|| harness.log.waiting_appends.load(Ordering::SeqCst) == 2).await;
    let response = harness.post(SUBMISSIONS, GOOD).await;
    assert!(response.problem(503, "unavailable").contains("nothing was accepted"));
    assert_eq!(response.header("retry-after"), Some("1"));
    harness.log.paused.store(false, Ordering::SeqCst);
    harness.log.resume.notify_waiters();
    for submission in waiting {
        submission.await.unwrap();
    }
    harness.post(SUBMISSIONS, GOOD).await.accepted();
}
