//! Closing budgets: what is answered with 202 stands in front of every close marker.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::{SignedDuration, Timestamp};
use schemas::{Budget, BudgetId, ClosingFence, ClosingState};
use storage::control::{close, complete_reopening, define};
use support::{GOOD, Harness, SUBMISSIONS, until};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

fn with_id() -> String {
    GOOD.replacen('{', &format!(r#"{{"submission_id":"{ID}","#), 1)
}

/// A harness whose default budget closes in an hour, by the clock of `ingest`.
fn closing() -> Harness {
    let harness = Harness::new();
    let in_an_hour = Timestamp::now() + SignedDuration::from_hours(1);
    harness.edit_budget(|budget| (budget.closes_at, budget.frozen) = (Some(in_an_hour), true));
    harness
}

fn budget(harness: &Harness) -> Budget {
    Budget::clone(&harness.definitions.get("taxes").unwrap())
}

fn closed(budget: &Budget) -> Budget {
    close(Some(budget), budget).unwrap().unwrap()
}

fn reopened(budget: &Budget) -> Budget {
    let later = Budget { closes_at: None, ..budget.clone() };
    let reopening = define(Some(budget), &later).unwrap().unwrap();
    assert_eq!(reopening.closing.unwrap().state, ClosingState::Reopening);
    complete_reopening(Some(&reopening), reopening.closing.unwrap()).unwrap().unwrap()
}

#[tokio::test]
async fn a_fenced_budget_accepts_nothing_whatever_the_clock_says() {
    let harness = closing();
    let fenced = closed(&budget(&harness));
    harness.definitions.put(fenced.clone());
    harness.post(SUBMISSIONS, GOOD).await.problem(409, "budget-closed");
    harness.delete("/v1/budgets/taxes/submissions/p-1", &[]).await.problem(409, "budget-closed");
    let reopening = define(Some(&fenced), &Budget { closes_at: None, ..fenced.clone() });
    harness.definitions.put(reopening.unwrap().unwrap());
    let response = harness.post(SUBMISSIONS, GOOD).await;
    response.problem(409, "budget-closed");
    assert_eq!(response.header("retry-after"), Some("1"));
    assert!(harness.logged().is_empty());
    harness.definitions.put(reopened(&fenced));
    harness.post(SUBMISSIONS, GOOD).await.accepted();
}

#[tokio::test]
async fn nothing_is_accepted_if_the_budget_was_closed_before_the_append_was_confirmed() {
    let harness = closing();
    let open = budget(&harness);
    // The fence that closes it, and one of which only the end is seen: closed and reopened meanwhile.
    for meanwhile in [closed(&open), reopened(&closed(&open))] {
        harness.definitions.put(open.clone());
        *harness.definitions.before_confirmation.lock() = Some(meanwhile);
        let response = harness.post(SUBMISSIONS, with_id()).await;
        response.problem(409, "budget-closed");
        assert!(response.json()["detail"].as_str().unwrap().contains("unknown"));
    }
    assert_eq!(harness.logged().len(), 2, "the records are in the log, and no receipt was kept");
    assert_eq!(harness.counted("accepted") + harness.counted("repeated"), 0);
    // One of the records may count, so that the fold would take other content for a duplicate.
    let changed = with_id().replace(":40,", ":41,").replace(":35.5,", ":34.5,");
    harness.post(SUBMISSIONS, changed).await.problem(422, "key-reused");
    // After the reopening the id is new: its record is appended, and counts.
    harness.post(SUBMISSIONS, with_id()).await.accepted();
    assert_eq!(harness.logged().len(), 3);
}

#[tokio::test]
async fn a_budget_that_gets_its_closing_time_during_an_append_is_confirmed_too() {
    let harness = Arc::new(Harness::new());
    harness.edit_budget(|budget| budget.frozen = true);
    harness.log.paused.store(true, Ordering::SeqCst);
    let submitting = tokio::spawn({
        let harness = Arc::clone(&harness);
        async move { harness.post(SUBMISSIONS, GOOD).await }
    });
    until(|| harness.log.waiting_appends.load(Ordering::SeqCst) == 1).await;
    harness.edit_budget(|budget| budget.closes_at = Some(Timestamp::now()));
    let fenced = closed(&budget(&harness));
    harness.definitions.put(fenced);
    harness.log.paused.store(false, Ordering::SeqCst);
    harness.log.resume.notify_one();
    submitting.await.unwrap().problem(409, "budget-closed");
}

#[tokio::test]
async fn every_item_of_a_batch_and_every_withdrawal_is_confirmed() {
    let harness = closing();
    let open = budget(&harness);
    *harness.definitions.before_confirmation.lock() = Some(closed(&open));
    let batch = format!("[{GOOD},{}]", GOOD.replace("p-1", "p-2"));
    let response = harness.post(&format!("{SUBMISSIONS}/batch"), batch).await;
    for result in response.json()["results"].as_array().unwrap() {
        assert_eq!(result["status"], 409, "{result}");
    }
    harness.definitions.put(open.clone());
    *harness.definitions.before_confirmation.lock() = Some(closed(&open));
    harness.delete("/v1/budgets/taxes/submissions/p-1", &[]).await.problem(409, "budget-closed");
}

#[tokio::test]
async fn without_a_confirmation_the_outcome_is_unknown_and_repeating_it_counts_once() {
    let harness = closing();
    harness.definitions.unconfirmed.store(true, Ordering::SeqCst);
    harness.post(SUBMISSIONS, with_id()).await.problem(503, "unavailable");
    harness.definitions.unconfirmed.store(false, Ordering::SeqCst);
    harness.post(SUBMISSIONS, with_id()).await.accepted();
}

#[tokio::test]
async fn a_budget_without_closing_time_needs_no_confirmation() {
    let harness = Harness::new();
    harness.definitions.unconfirmed.store(true, Ordering::SeqCst);
    harness.post(SUBMISSIONS, GOOD).await.accepted();
    // Once it was closed it does: another `ingest` may know of a closing time that this one has not seen yet.
    let fence = ClosingFence { revision: 9, state: ClosingState::Reopened };
    harness.edit_budget(|budget| budget.closing = Some(fence));
    harness.post(SUBMISSIONS, GOOD).await.problem(503, "unavailable");
}

#[tokio::test]
async fn submissions_that_wait_for_a_confirmation_keep_no_others_out_of_the_log() {
    const PARKS: &str = "/v1/budgets/parks/submissions";
    let harness = Arc::new(Harness::with(1, &[]));
    let open = Budget { frozen: true, ..budget(&harness) };
    harness.definitions.put(open.clone());
    let closes_at = Some(Timestamp::now() + SignedDuration::from_hours(1));
    let id = BudgetId::parse("parks").unwrap();
    harness.definitions.put(Budget { id, closes_at, ..open.clone() });
    harness.definitions.confirmation_hangs.store(true, Ordering::SeqCst);
    let waiting = tokio::spawn({
        let harness = Arc::clone(&harness);
        async move { harness.post(PARKS, GOOD).await }
    });
    until(|| harness.definitions.confirmations.load(Ordering::SeqCst) == 1).await;

    let refused = harness.post(PARKS, GOOD).await;
    refused.problem(503, "unavailable");
    assert_eq!(harness.log.records.lock().len(), 1, "what cannot be confirmed is not appended");
    harness.post(SUBMISSIONS, GOOD).await.accepted();
    // Nor the first ones of a budget, which wait for the control topic before they are appended.
    let unfrozen = Budget { id: BudgetId::parse("roads").unwrap(), frozen: false, ..open };
    harness.definitions.put(unfrozen);
    let first = harness.post("/v1/budgets/roads/submissions", GOOD).await;
    assert_eq!(first.status.as_u16(), 202);
    waiting.abort();
}

#[tokio::test]
async fn first_submissions_that_wait_for_their_freeze_keep_no_others_from_being_confirmed() {
    const PARKS: &str = "/v1/budgets/parks/submissions";
    let harness = Arc::new(Harness::with(1, &[]));
    let closes_at = Some(Timestamp::now() + SignedDuration::from_hours(1));
    let id = BudgetId::parse("parks").unwrap();
    harness.definitions.put(Budget { id, closes_at, frozen: true, ..budget(&harness) });
    harness.edit_budget(|budget| budget.closes_at = closes_at);
    harness.definitions.changes_hang.store(true, Ordering::SeqCst);
    let waiting = tokio::spawn({
        let harness = Arc::clone(&harness);
        async move { harness.post(SUBMISSIONS, GOOD).await }
    });
    until(|| harness.definitions.changes.load(Ordering::SeqCst) == 1).await;
    harness.post(SUBMISSIONS, GOOD).await.problem(503, "unavailable");
    assert_eq!(harness.post(PARKS, GOOD).await.status.as_u16(), 202);
    assert_eq!(harness.log.records.lock().len(), 1);
    waiting.abort();
}

#[tokio::test]
async fn a_withdrawal_is_checked_again_if_its_definition_has_changed_before_the_first_submission() {
    let path = "/v1/budgets/taxes/submissions/p-1";
    let harness = Harness::new();
    let stale = budget(&harness);
    // As another `ingest` has changed it: it is not open yet, or no longer.
    let hour = SignedDuration::from_hours(1);
    let early = Budget { opens_at: Some(Timestamp::now() + hour), ..stale.clone() };
    let late = Budget { closes_at: Some(Timestamp::now() - hour), frozen: true, ..stale.clone() };
    for changed in [early, late] {
        harness.definitions.put(stale.clone());
        let changed = Budget { revision: stale.revision + 1, ..changed };
        *harness.definitions.before_confirmation.lock() = Some(changed);
        harness.delete(path, &[]).await.problem(409, "budget-closed");
    }
    assert!(harness.logged().is_empty());
    // Frozen meanwhile, and otherwise the same.
    harness.definitions.put(stale.clone());
    *harness.definitions.before_confirmation.lock() =
        Some(Budget { frozen: true, ..stale.clone() });
    harness.delete(path, &[]).await.accepted();
    // Without an answer of the control topic nothing is withdrawn.
    harness.definitions.put(stale);
    harness.definitions.unconfirmed.store(true, Ordering::SeqCst);
    let detail = harness.delete(path, &[]).await.problem(503, "unavailable");
    assert!(detail.contains("nothing was accepted"), "{detail}");
    assert_eq!(harness.logged().len(), 1);
}
