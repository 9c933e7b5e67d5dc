//! A submission whose id was used before: repeated, reused, in flight.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use schemas::IdentityRule;

use crate::support::{GOOD, Harness, LogMode, SUBMISSIONS, until};
use crate::{ID, with_id};

#[tokio::test]
async fn a_repeated_submission_gets_the_first_receipt_and_is_in_the_log_once() {
    let harness = Harness::new();
    for (headers, body) in [
        (vec![], with_id(ID, 40)),
        (vec![("idempotency-key", "order-66!")], GOOD.to_owned()),
        (vec![("idempotency-key", "0198c0de-0000-7000-8000-000000000002")], GOOD.to_owned()),
    ] {
        let before = harness.logged().len();
        let first = harness.post_with(SUBMISSIONS, &headers, body.clone()).await;
        let again = harness.post_with(SUBMISSIONS, &headers, body).await;
        assert_eq!(first.accepted(), again.accepted());
        assert_eq!(first.json(), again.json());
        assert_eq!(first.header("location"), again.header("location"));
        assert_eq!(first.header("idempotency-replayed"), None);
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(harness.logged().len(), before + 1);
    }
    assert_eq!((harness.counted("accepted"), harness.counted("repeated")), (3, 3));
}

#[tokio::test]
async fn a_uuid_is_the_same_id_in_the_header_and_in_the_body() {
    let harness = Harness::new();
    let first = harness.post(SUBMISSIONS, with_id(ID, 40)).await;
    let body = with_id(ID, 40);
    let again = harness.post_with(SUBMISSIONS, &[("idempotency-key", ID)], body).await;
    assert_eq!(first.accepted(), again.accepted());
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let other = "0198c0de-0000-7000-8000-000000000009";
    for key in [other, "some-text"] {
        let response =
            harness.post_with(SUBMISSIONS, &[("idempotency-key", key)], with_id(ID, 40)).await;
        response.problem(400, "malformed");
        assert_eq!(response.pointers(), ["/submission_id"]);
    }
    for key in ["", "a b", &"x".repeat(256)] {
        let response = harness.post_with(SUBMISSIONS, &[("idempotency-key", key)], GOOD).await;
        response.problem(400, "malformed");
    }
    assert_eq!(harness.logged().len(), 1);
}

#[tokio::test]
async fn a_short_key_without_a_person_is_refused_since_strangers_would_share_its_receipt() {
    let harness = Harness::new();
    harness.edit_budget(|budget| budget.identity = IdentityRule::Optional);
    let body = r#"{"allocation": {"health": 100}}"#;
    for short in ["1", "fifteen-letters"] {
        let refused = harness.post_with(SUBMISSIONS, &[("idempotency-key", short)], body).await;
        refused.problem(400, "malformed");
    }
    for unique in [ID, "sixteen-letters!"] {
        let key = [("idempotency-key", unique)];
        let first = harness.post_with(SUBMISSIONS, &key, body).await.accepted();
        assert_eq!(harness.post_with(SUBMISSIONS, &key, body).await.accepted(), first);
    }
    assert_eq!(harness.logged().len(), 2);
}

#[tokio::test]
async fn an_id_reused_with_different_content_is_rejected() {
    let harness = Harness::new();
    harness.post(SUBMISSIONS, with_id(ID, 40)).await.accepted();
    harness.post(SUBMISSIONS, with_id(ID, 41)).await.problem(422, "key-reused");
    let path = "/v1/budgets/taxes/submissions/p-1";
    harness.delete(path, &[("idempotency-key", ID)]).await.problem(422, "key-reused");
    assert_eq!((harness.logged().len(), harness.counted("reused")), (1, 2));
}

#[tokio::test]
async fn a_concurrent_request_with_the_same_id_is_in_flight() {
    let harness = Arc::new(Harness::new());
    harness.log.paused.store(true, Ordering::SeqCst);
    let first = tokio::spawn({
        let harness = Arc::clone(&harness);
        async move { harness.post(SUBMISSIONS, with_id(ID, 40)).await.accepted() }
    });
    until(|| harness.log.waiting_appends.load(Ordering::SeqCst) == 1).await;
    let response = harness.post(SUBMISSIONS, with_id(ID, 40)).await;
    response.problem(409, "in-flight");
    assert_eq!(response.header("retry-after"), Some("1"));
    harness.log.paused.store(false, Ordering::SeqCst);
    harness.log.resume.notify_one();
    let receipt = first.await.unwrap();
    assert_eq!(harness.post(SUBMISSIONS, with_id(ID, 40)).await.accepted(), receipt);
    assert_eq!(harness.counted("in_flight"), 1);
}

#[tokio::test]
async fn an_id_with_an_unknown_outcome_is_not_accepted_with_other_content() {
    let harness = Harness::new();
    harness.log.set_mode(LogMode::OutcomeUnknown);
    harness.post(SUBMISSIONS, with_id(ID, 40)).await.problem(503, "unavailable");
    let generated = harness.post(SUBMISSIONS, GOOD).await.problem(503, "unavailable");
    let generated = generated.split('"').nth(3).unwrap().to_owned();
    assert_eq!(harness.logged().len(), 2);
    harness.log.set_mode(LogMode::Accepts);
    // The fold would take these for duplicates of what is in the log.
    for id in [ID, &generated] {
        harness.post(SUBMISSIONS, with_id(id, 30)).await.problem(422, "key-reused");
    }
    let batch = format!("[{}]", with_id(ID, 30));
    let response = harness.post(&format!("{SUBMISSIONS}/batch"), batch).await;
    assert_eq!(response.json()["results"][0]["status"], 422);
    // Nor does a retry that is refused make the id free.
    harness.log.set_mode(LogMode::RejectsAppends);
    harness.post(SUBMISSIONS, with_id(ID, 40)).await.problem(503, "unavailable");
    harness.log.set_mode(LogMode::Accepts);
    harness.post(SUBMISSIONS, with_id(ID, 30)).await.problem(422, "key-reused");
    assert_eq!(harness.logged().len(), 2);
    harness.post(SUBMISSIONS, with_id(ID, 40)).await.accepted();
    assert_eq!(harness.logged().len(), 3);
}

#[tokio::test]
async fn an_id_that_only_the_log_knows_is_repeated_or_refused() {
    let harness = Harness::new();
    let first = harness.post(SUBMISSIONS, with_id(ID, 40)).await.accepted();
    harness.post(SUBMISSIONS, GOOD).await.accepted();
    harness.log.knows_ids.store(true, Ordering::SeqCst);
    harness.idempotency.forget_all();
    let again = harness.post(SUBMISSIONS, with_id(ID, 40)).await;
    assert_eq!((again.accepted(), again.header("idempotency-replayed")), (first, Some("true")));
    harness.idempotency.forget_all();
    harness.post(SUBMISSIONS, with_id(ID, 41)).await.problem(422, "key-reused");
    let path = "/v1/budgets/taxes/submissions/p-1";
    harness.delete(path, &[("idempotency-key", ID)]).await.problem(422, "key-reused");
    let batch = format!("[{},{}]", with_id(ID, 40), GOOD);
    harness.idempotency.forget_all();
    let results = harness.post(crate::support::BATCH, batch).await.json()["results"].clone();
    assert_eq!((&results[0]["status"], &results[0]["replayed"]), (&202.into(), &true.into()));
    assert_eq!((&results[1]["status"], &results[1]["replayed"]), (&202.into(), &().into()));
    assert_eq!(harness.logged().len(), 3);
    // A refusal leaves no mark: the id still is that of the first submission.
    let again = harness.post(SUBMISSIONS, with_id(ID, 40)).await;
    assert_eq!(again.accepted(), first);
}
