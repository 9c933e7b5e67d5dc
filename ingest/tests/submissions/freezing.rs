//! The first submission freezes the rules of its budget, and nothing else does.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};
use schemas::{Category, CategoryId};

use crate::support::{GOOD, Harness, SUBMISSIONS};
use crate::{ID, with_id};

#[tokio::test]
async fn concurrent_first_submissions_freeze_the_budget_once() {
    let harness = Arc::new(Harness::new());
    let first: Vec<_> = (0..20)
        .map(|_| {
            let harness = Arc::clone(&harness);
            tokio::spawn(async move { harness.post(SUBMISSIONS, GOOD).await.accepted() })
        })
        .collect();
    for submission in first {
        submission.await.unwrap();
    }
    assert!(harness.definitions.get("taxes").unwrap().frozen);
    assert_eq!(harness.definitions.changes.load(Ordering::SeqCst), 1);
    assert_eq!(harness.logged().len(), 20);
}

#[tokio::test]
async fn a_submission_is_parsed_against_the_categories_that_were_frozen() {
    let harness = Harness::new();
    let mut changed = schemas::Budget::clone(&harness.definitions.get("taxes").unwrap());
    changed.revision += 1;
    changed.categories.reverse();
    *harness.definitions.concurrent_change.lock() = Some(changed.clone());
    harness.post(SUBMISSIONS, GOOD).await.accepted();
    assert_eq!(harness.logged()[0].1, [0, 3_550, 0, 4_000, 0, 0, 0, 0, 2_450, 0]);

    let harness = Harness::new();
    changed.categories = ["a", "b"]
        .map(|id| Category {
            id: CategoryId::parse(id).unwrap(),
            name: id.into(),
            description: None,
            color: None,
        })
        .to_vec();
    *harness.definitions.concurrent_change.lock() = Some(changed);
    harness.post(SUBMISSIONS, GOOD).await.problem(422, "invalid-allocation");
    assert_eq!(harness.logged(), []);
    // A rejected submission freezes nothing, also when the definition changed meanwhile.
    assert!(!harness.definitions.get("taxes").unwrap().frozen);
}

#[tokio::test]
async fn a_submission_to_a_budget_that_closed_meanwhile_freezes_nothing() {
    let harness = Harness::new();
    let mut closed = schemas::Budget::clone(&harness.definitions.get("taxes").unwrap());
    closed.revision += 1;
    closed.closes_at = Some(Timestamp::now() - SignedDuration::from_hours(1));
    *harness.definitions.concurrent_change.lock() = Some(closed);
    harness.post(SUBMISSIONS, GOOD).await.problem(409, "budget-closed");
    assert!(!harness.definitions.get("taxes").unwrap().frozen);
    assert_eq!(harness.logged(), []);
}

#[tokio::test]
async fn a_submission_that_is_not_appended_freezes_nothing() {
    let is_frozen = |harness: &Harness| harness.definitions.get("taxes").unwrap().frozen;
    let no_room = Harness::with(0, &[]);
    no_room.post(SUBMISSIONS, GOOD).await.problem(503, "unavailable");
    assert!(!is_frozen(&no_room));

    let harness = Harness::new();
    let key = [("idempotency-key", ID)];
    harness.delete("/v1/budgets/taxes/submissions/p-1", &key).await.accepted();
    harness.post(SUBMISSIONS, with_id(ID, 40)).await.problem(422, "key-reused");
    assert!(!is_frozen(&harness));
    harness.post(SUBMISSIONS, GOOD).await.accepted();
    assert!(is_frozen(&harness));
}

#[tokio::test]
async fn a_withdrawal_freezes_nothing() {
    let harness = Harness::new();
    let of_gateway = ("idempotency-key", "gateway-3f1c");
    for headers in [&[][..], &[("idempotency-key", "bye")], &[of_gateway], &[of_gateway]] {
        harness.delete("/v1/budgets/taxes/submissions/nobody", headers).await.accepted();
    }
    assert!(!harness.definitions.get("taxes").unwrap().frozen);
    assert_eq!(harness.definitions.changes.load(Ordering::SeqCst), 0);
    // Only the id that the client has chosen can be repeated later, so only that one has to be remembered.
    let decoded = |record: &storage::log::NewRecord| {
        let mut decoder = schemas::RecordDecoder::default();
        let decoded = decoder.decode(record.key.as_bytes(), &record.value).unwrap();
        (decoded.generated_id, decoded.submission)
    };
    let decoded: Vec<_> = harness.log.records.lock().iter().map(decoded).collect();
    assert_eq!(decoded.iter().map(|one| one.0).collect::<Vec<_>>(), [true, false, true, true]);
    assert!(decoded[2].1 == decoded[3].1, "the retries of a gateway have one id");
}

#[tokio::test]
async fn nothing_is_appended_if_the_budget_cannot_be_frozen() {
    let harness = Harness::new();
    harness.definitions.failing.store(true, Ordering::SeqCst);
    let response = harness.post(SUBMISSIONS, with_id(ID, 40)).await;
    assert!(response.problem(503, "unavailable").contains("nothing was accepted"));
    assert_eq!(harness.logged(), []);
    harness.definitions.failing.store(false, Ordering::SeqCst);
    // The id is not in flight any more, nor known.
    harness.post(SUBMISSIONS, with_id(ID, 30)).await.accepted();
}
