//! Submission ids: whose they are, how long they are in flight, and what is answered when they could not be checked.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use support::{BATCH, GOOD, Harness, SUBMISSIONS};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";
/// How much later than due a timer may be.
const TIMER_GRANULARITY: Duration = Duration::from_millis(10);

fn with_id(health: u32) -> String {
    let rest = 100 - health;
    format!(
        r#"{{"person":"p-1","allocation":{{"health":{health},"education":{rest}}},"submission_id":"{ID}"}}"#
    )
}

#[tokio::test]
async fn strangers_with_the_same_key_do_not_meet() {
    for key in ["1", "sixteen-letters!", ID] {
        let harness = Harness::new();
        let key = [("idempotency-key", key)];
        let stranger = GOOD.replace("p-1", "p-2");
        let first = harness.post_with(SUBMISSIONS, &key, GOOD).await.accepted();
        let second = harness.post_with(SUBMISSIONS, &key, stranger.clone()).await;
        assert_ne!(second.accepted(), first);
        assert_eq!(second.header("idempotency-replayed"), None);
        let withdrawn = harness.delete("/v1/budgets/taxes/submissions/p-3", &key).await.accepted();
        assert_eq!(harness.logged().len(), 3);
        // To each of them the key goes on meaning the same, also once the log alone knows it.
        for forgotten in [false, true] {
            harness.log.knows_ids.store(forgotten, Ordering::SeqCst);
            if forgotten {
                harness.idempotency.forget_all();
            }
            let again = harness.post_with(SUBMISSIONS, &key, GOOD).await;
            assert_eq!(again.accepted(), first);
            let again = harness.post_with(SUBMISSIONS, &key, stranger.clone()).await;
            assert_eq!(again.accepted(), second.accepted());
            let again = harness.delete("/v1/budgets/taxes/submissions/p-3", &key).await;
            assert_eq!(again.accepted(), withdrawn);
            let other = harness.delete("/v1/budgets/taxes/submissions/p-2", &key).await;
            other.problem(422, "key-reused");
            assert_eq!(harness.logged().len(), 3);
        }
    }
}

#[tokio::test]
async fn a_uuid_in_the_body_means_something_to_its_person_alone_and_is_answered_as_sent() {
    let harness = Harness::new();
    let stranger = with_id(40).replace("p-1", "p-2");
    let first = harness.post(SUBMISSIONS, with_id(40)).await;
    let second = harness.post(SUBMISSIONS, stranger.clone()).await;
    for answer in [&first, &second] {
        answer.accepted();
        assert_eq!(answer.json()["submission_id"], ID);
    }
    let batch = format!("[{},{stranger},{}]", with_id(40), stranger.replace("p-2", "p-3"));
    let results = harness.post(BATCH, batch).await.json()["results"].clone();
    for (result, replayed) in results.as_array().unwrap().iter().zip([true, true, false]) {
        assert_eq!((&result["status"], result["replayed"] == true), (&202.into(), replayed));
    }
    assert_eq!(harness.logged().len(), 3);
    harness.post(SUBMISSIONS, with_id(41)).await.problem(422, "key-reused");
}

#[tokio::test]
async fn an_answer_says_that_its_id_could_not_be_checked() {
    let harness = Harness::new();
    let unchecked = || {
        let text = String::from_utf8(harness.metrics.render()).unwrap();
        let name = "allocator_ingest_submission_ids_unchecked_total ";
        text.lines().find_map(|line| line.strip_prefix(name)?.parse::<u64>().ok()).unwrap()
    };
    let checked = harness.post(SUBMISSIONS, with_id(40)).await;
    checked.accepted();
    assert_eq!(checked.json()["id_checked"], Value::Null);

    harness.idempotency.away.store(true, Ordering::SeqCst);
    let other = harness.post(SUBMISSIONS, with_id(30)).await;
    other.accepted();
    assert_eq!(other.json()["id_checked"], false);
    let path = "/v1/budgets/taxes/submissions/p-1";
    let withdrawn = harness.delete(path, &[("idempotency-key", ID)]).await;
    assert_eq!(withdrawn.json()["id_checked"], false);
    let batch = format!("[{},{},{GOOD}]", with_id(20), with_id(20));
    let results = harness.post(BATCH, batch).await.json()["results"].clone();
    assert_eq!([&results[0]["id_checked"], &results[1]["id_checked"]], [false, false]);
    // A generated id is unique: there is nothing to check.
    assert_eq!(results[2]["id_checked"], Value::Null);
    assert_eq!(harness.post(SUBMISSIONS, GOOD).await.json()["id_checked"], Value::Null);
    assert_eq!(unchecked(), 3);

    // The embedded log has checked it itself.
    harness.log.knows_ids.store(true, Ordering::SeqCst);
    let known = harness.post(SUBMISSIONS, with_id(40)).await;
    assert_eq!(known.header("idempotency-replayed"), Some("true"));
    assert_eq!(known.json()["id_checked"], Value::Null);
}

#[tokio::test]
async fn an_id_is_in_flight_for_the_steps_that_its_attempt_needs_and_no_longer() {
    let harness = Harness::new();
    let around = async |body: &str| {
        harness.post_with(SUBMISSIONS, &[("idempotency-key", "k-1")], body.to_owned()).await;
        harness.idempotency.forget_all();
        *harness.idempotency.around_append.lock().last().unwrap()
    };
    let first = around(GOOD).await;
    assert!(harness.definitions.get("taxes").unwrap().frozen);
    let frozen = around(GOOD).await;
    assert!(frozen <= Duration::from_secs(3), "{frozen:?}");
    assert!(first >= frozen + Duration::from_secs(10), "the freeze: {first:?}");
    harness.edit_budget(|budget| budget.max_people = Some(1_000));
    let capped = around(GOOD).await;
    assert!(capped >= frozen + Duration::from_secs(2), "the read of persons: {capped:?}");
    let in_an_hour = Timestamp::now() + SignedDuration::from_hours(1);
    harness.edit_budget(|budget| (budget.max_people, budget.closes_at) = (None, Some(in_an_hour)));
    let confirmed = around(GOOD).await;
    assert!(confirmed > frozen, "the confirmation: {confirmed:?}");
}

#[tokio::test(start_paused = true)]
async fn steps_that_hang_end_while_the_id_is_still_in_flight() {
    let in_an_hour = Timestamp::now() + SignedDuration::from_hours(1);
    for (frozen, closes_at) in [(false, None), (false, Some(in_an_hour)), (true, Some(in_an_hour))]
    {
        let harness = Harness::new();
        harness.edit_budget(|budget| (budget.frozen, budget.closes_at) = (frozen, closes_at));
        harness.definitions.changes_hang.store(true, Ordering::SeqCst);
        harness.definitions.confirmation_hangs.store(true, Ordering::SeqCst);
        let started = tokio::time::Instant::now();
        harness.post(SUBMISSIONS, with_id(40)).await.problem(503, "unavailable");
        let around_append = harness.idempotency.around_append.lock()[0];
        assert!(started.elapsed() <= around_append + TIMER_GRANULARITY, "{:?}", started.elapsed());
        if !frozen {
            assert_eq!(harness.logged(), []);
            // The id is free.
            harness.edit_budget(|budget| (budget.frozen, budget.closes_at) = (true, None));
            harness.post(SUBMISSIONS, with_id(30)).await.accepted();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_closing_time_during_the_append_is_confirmed_while_the_id_is_still_in_flight() {
    let harness = Arc::new(Harness::new());
    harness.edit_budget(|budget| budget.frozen = true);
    harness.log.paused.store(true, Ordering::SeqCst);
    harness.definitions.confirmation_hangs.store(true, Ordering::SeqCst);
    let submitting = tokio::spawn({
        let harness = Arc::clone(&harness);
        async move { harness.post(SUBMISSIONS, with_id(40)).await }
    });
    support::until(|| harness.log.waiting_appends.load(Ordering::SeqCst) == 1).await;
    harness.edit_budget(|budget| budget.closes_at = Some(Timestamp::now()));
    harness.log.paused.store(false, Ordering::SeqCst);
    let appended = tokio::time::Instant::now();
    harness.log.resume.notify_one();
    submitting.await.unwrap().problem(503, "unavailable");
    let around_append = harness.idempotency.around_append.lock()[0];
    assert!(appended.elapsed() <= around_append + TIMER_GRANULARITY, "{:?}", appended.elapsed());
}
