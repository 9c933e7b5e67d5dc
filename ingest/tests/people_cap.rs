//! The cap on a budget's people: new people are refused, everyone who is counted may change and withdraw.
//! The clock is paused, so that a second's poll takes no time.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;
use std::time::Duration;

use support::{BATCH, GOOD, Harness, SUBMISSIONS, check_problem, key};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";
const SHARES: &[u16] = &[4_000, 3_550, 2_450];

fn of(person: &str) -> String {
    GOOD.replace("p-1", person)
}

/// A harness whose default budget has a cap of 5, of which `people` are counted: `p-1` with a row.
async fn capped(people: u64) -> Harness {
    let harness = Harness::new();
    harness.edit_budget(|budget| (budget.max_people, budget.frozen) = (Some(5), true));
    harness.people.write_row("p-1", SHARES).await;
    harness.people.publish(people).await;
    harness
}

fn person_reads(harness: &Harness) -> usize {
    harness.people.store.person_reads.load(Ordering::SeqCst)
}

fn caps_unknown(harness: &Harness) -> String {
    let text = String::from_utf8(harness.metrics.render()).unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix("allocator_ingest_people_caps_unknown "));
    line.unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn below_the_cap_everyone_is_accepted_and_no_row_is_read() {
    let harness = capped(4).await;
    harness.post(SUBMISSIONS, of("new-1")).await.accepted();
    harness.post(SUBMISSIONS, of("new-2")).await.accepted();
    assert_eq!(person_reads(&harness), 0);
    assert_eq!(caps_unknown(&harness), "0");
}

#[tokio::test(start_paused = true)]
async fn a_refused_new_person_freezes_nothing() {
    let harness = capped(5).await;
    harness.edit_budget(|budget| budget.frozen = false);
    harness.post(SUBMISSIONS, of("new")).await.problem(409, "budget-full");
    assert!(!harness.definitions.get("taxes").unwrap().frozen);
}

#[tokio::test(start_paused = true)]
async fn at_the_cap_new_people_are_refused_and_everyone_with_a_row_is_accepted() {
    for people in [5, 6] {
        let harness = capped(people).await;
        let detail = harness.post(SUBMISSIONS, of("new")).await.problem(409, "budget-full");
        assert!(detail.contains("max_people"), "{detail}");
        harness.post(SUBMISSIONS, of("p-1")).await.accepted();
        harness.people.write_row("has-withdrawn", &[]).await;
        harness.post(SUBMISSIONS, of("has-withdrawn")).await.accepted();
        let logged: Vec<_> = harness.logged().into_iter().map(|(person, _)| person).collect();
        assert_eq!(logged, [key("p-1"), key("has-withdrawn")]);
        assert_eq!((harness.counted("accepted"), harness.counted("full")), (2, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_cap_withdrawals_are_accepted_without_a_read() {
    let harness = capped(5).await;
    harness.delete("/v1/budgets/taxes/submissions/p-1", &[]).await.accepted();
    harness.delete("/v1/budgets/taxes/submissions/moments-ago", &[]).await.accepted();
    assert_eq!(person_reads(&harness), 0);
}

#[tokio::test(start_paused = true)]
async fn each_item_of_a_batch_is_decided_by_itself() {
    let harness = capped(5).await;
    let body = format!("[{},{},{},7]", of("new-1"), of("p-1"), of("new-2"));
    let response = harness.post(BATCH, body).await;
    assert_eq!(response.status.as_u16(), 200);
    let results = response.json()["results"].as_array().unwrap().clone();
    let statuses: Vec<_> = results.iter().map(|item| item["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [409, 202, 409, 400]);
    check_problem(&results[0]["problem"], 409, "budget-full");
    assert_eq!(harness.logged().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_submission_gets_its_receipt_also_at_the_cap() {
    let harness = capped(4).await;
    let body = of("new").replacen('{', &format!(r#"{{"submission_id":"{ID}","#), 1);
    let receipt = harness.post(SUBMISSIONS, body.clone()).await.accepted();
    harness.people.publish(5).await;
    assert_eq!(harness.post(SUBMISSIONS, body).await.accepted(), receipt);
    harness.post(SUBMISSIONS, of("new")).await.problem(409, "budget-full");
    assert_eq!(harness.logged().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_submission_is_accepted_with_the_same_id_once_the_cap_is_raised() {
    let harness = capped(5).await;
    let body = of("new").replacen('{', &format!(r#"{{"submission_id":"{ID}","#), 1);
    harness.post(SUBMISSIONS, body.clone()).await.problem(409, "budget-full");
    harness.edit_budget(|budget| budget.max_people = Some(6));
    harness.post(SUBMISSIONS, body).await.accepted();
    harness.people.publish(6).await;
    harness.post(SUBMISSIONS, of("another")).await.problem(409, "budget-full");
    harness.edit_budget(|budget| budget.max_people = None);
    harness.post(SUBMISSIONS, of("another")).await.accepted();
}

#[tokio::test(start_paused = true)]
async fn a_number_that_is_not_known_refuses_nobody_and_a_metric_says_so() {
    let harness = capped(5).await;
    harness.people.cache.failing.store(true, Ordering::SeqCst);
    harness.people.next_read().await;
    harness.post(SUBMISSIONS, of("new-1")).await.accepted();
    assert_eq!(caps_unknown(&harness), "1");
    harness.people.cache.failing.store(false, Ordering::SeqCst);
    harness.people.next_read().await;
    harness.post(SUBMISSIONS, of("new-2")).await.problem(409, "budget-full");
    assert_eq!(caps_unknown(&harness), "0");
    harness.people.cache.people.lock().clear();
    harness.people.next_read().await;
    harness.post(SUBMISSIONS, of("new-3")).await.accepted();
    assert_eq!(caps_unknown(&harness), "1");
}

#[tokio::test(start_paused = true)]
async fn at_the_cap_nothing_is_accepted_while_the_store_does_not_answer() {
    let harness = capped(5).await;
    for (failing, hangs) in [(true, false), (false, true)] {
        harness.people.store.failing.store(failing, Ordering::SeqCst);
        harness.people.store.hangs.store(hangs, Ordering::SeqCst);
        for person in ["p-1", "new"] {
            let response = harness.post(SUBMISSIONS, of(person)).await;
            let detail = response.problem(503, "unavailable");
            assert!(detail.ends_with("nothing was accepted"), "{detail}");
            assert_eq!(response.header("retry-after"), Some("1"));
        }
        harness.delete("/v1/budgets/taxes/submissions/p-1", &[]).await.accepted();
    }
    harness.people.store.hangs.store(false, Ordering::SeqCst);
    tokio::time::advance(Duration::from_secs(5)).await;
    harness.post(SUBMISSIONS, of("p-1")).await.accepted();
    assert_eq!((harness.logged().len(), harness.counted("unavailable")), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn without_a_cap_the_cache_is_never_read() {
    let harness = Harness::new();
    harness.post(SUBMISSIONS, GOOD).await.accepted();
    tokio::time::advance(Duration::from_secs(30)).await;
    harness.post(SUBMISSIONS, of("p-2")).await.accepted();
    assert_eq!(harness.people.cache.reads.load(Ordering::SeqCst), 0);
}
