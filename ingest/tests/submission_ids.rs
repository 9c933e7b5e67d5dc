//! Submission ids: how long they are in flight.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use support::{GOOD, Harness, SUBMISSIONS, lock};

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
async fn an_id_is_in_flight_for_the_steps_that_its_attempt_needs_and_no_longer() {
    let harness = Harness::new();
    let around = async |body: &str| {
        harness.post_with(SUBMISSIONS, &[("idempotency-key", "k-1")], body.to_owned()).await;
        harness.idempotency.forget_all();
        *lock(&harness.idempotency.around_append).last().unwrap()
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
        let around_append = lock(&harness.idempotency.around_append)[0];
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
    let around_append = lock(&harness.idempotency.around_append)[0];
    assert!(appended.elapsed() <= around_append + TIMER_GRANULARITY, "{:?}", appended.elapsed());
}
