//! What clients are promised about one submission or withdrawal.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use schemas::{Category, CategoryId, Identity};
use support::{GOOD, LogMood, SUBMISSIONS, World, key, lock, until};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

fn named(id: &str, health: u32) -> String {
    let rest = 100 - health;
    format!(
        r#"{{"person":"p-1","allocation":{{"health":{health},"education":{rest}}},"submission_id":"{id}"}}"#
    )
}

#[tokio::test]
async fn an_accepted_submission_is_in_the_log_as_it_was_said() {
    let world = World::new();
    let answer = world.post(SUBMISSIONS, GOOD).await;
    let receipt = answer.accepted();
    assert_eq!(answer.header("location"), Some("/v1/budgets/taxes/submissions/p-1"));
    assert_eq!(answer.header("idempotency-replayed"), None);
    // Defence, health and education are the 2nd, 7th and 9th of the default budget.
    assert_eq!(world.logged(), [(key("p-1"), vec![0, 2_450, 0, 0, 0, 0, 4_000, 0, 3_550, 0])]);
    assert_eq!(receipt.offset.0, 0);
    assert_eq!(world.counted("accepted"), 1);
    // Nobody can repeat a name that we made up.
    assert_eq!(world.idempotency.begun.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_person_with_any_name_gets_a_location_of_one_segment() {
    let world = World::new();
    let answer = world.post(SUBMISSIONS, GOOD.replace("p-1", "a/ü ?")).await;
    answer.accepted();
    assert_eq!(answer.header("location"), Some("/v1/budgets/taxes/submissions/a%2F%C3%BC%20%3F"));
    let answer = world.delete("/v1/budgets/taxes/submissions/a%2F%C3%BC%20%3F", &[]).await;
    answer.accepted();
    assert_eq!(world.logged()[1], (key("a/ü ?"), vec![]));
}

#[tokio::test]
async fn what_is_not_a_submission_is_malformed() {
    let world = World::new();
    for body in ["", "{", "[]", r#"{"person":"p","allocation":{"health":"100"}}"#] {
        world.post(SUBMISSIONS, body).await.problem(400, "malformed");
    }
    let answer = world.post(SUBMISSIONS, GOOD.replace("person", "submision_id")).await;
    answer.problem(400, "malformed");
    assert_eq!(answer.pointers(), ["/submision_id", "/person"]);
    assert_eq!(world.counted("invalid"), 5);
    assert_eq!(world.logged(), []);
    // A refused submission freezes nothing.
    assert!(!world.definitions.get("taxes").unwrap().frozen);
}

#[tokio::test]
async fn an_allocation_that_breaks_rules_is_told_every_fault() {
    let world = World::new();
    let body =
        r#"{"person":"p","allocation":{"health":33.335,"helth":-1,"defence":50,"defence":50}}"#;
    let answer = world.post(SUBMISSIONS, body).await;
    answer.problem(422, "invalid-allocation");
    assert_eq!(
        answer.pointers(),
        ["/allocation/health", "/allocation/helth", "/allocation/helth", "/allocation/defence"]
    );
    let answer = world.post(SUBMISSIONS, GOOD.replace("40", "41")).await;
    assert!(answer.problem(422, "invalid-allocation").contains("101"));
    assert_eq!(world.logged(), []);
}

#[tokio::test]
async fn only_json_is_read() {
    let world = World::new();
    for media_type in ["text/plain", "application/x-ndjson", "application/jsonx", ""] {
        let headers = [("content-type", media_type)];
        let answer = world.post_with(SUBMISSIONS, &headers, GOOD).await;
        answer.problem(415, "unsupported-media-type");
    }
    world.ask(Method::POST, SUBMISSIONS, &[], GOOD).await.problem(415, "unsupported-media-type");
    let headers = [("content-type", "Application/JSON; charset=utf-8")];
    world.post_with(SUBMISSIONS, &headers, GOOD).await.accepted();
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large() {
    let world = World::new();
    let answer = world.post(SUBMISSIONS, " ".repeat(2 * 1024 * 1024 + 1)).await;
    answer.problem(413, "content-too-large");
}

#[tokio::test]
async fn other_methods_and_paths_are_problems_too() {
    let world = World::new();
    let answer = world.ask(Method::PATCH, SUBMISSIONS, &[], "").await;
    assert_eq!(answer.status.as_u16(), 405);
    assert_eq!(answer.json()["type"], "/problems/method-not-allowed");
    let answer = world.ask(Method::POST, "/v1/nothing", &[], "").await;
    answer.problem(404, "not-found");
}

#[tokio::test]
async fn a_budget_that_does_not_exist_is_not_found_once_all_are_known() {
    let world = World::new();
    let path = "/v1/budgets/none/submissions";
    world.post(path, GOOD).await.problem(404, "not-found");
    world.delete("/v1/budgets/none/submissions/p", &[]).await.problem(404, "not-found");
    world.definitions.loaded.store(false, Ordering::SeqCst);
    let answer = world.post(path, GOOD).await;
    answer.problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_budget_takes_submissions_only_while_it_is_open() {
    let world = World::new();
    let now = Timestamp::now();
    let (past, future) = (now - SignedDuration::from_hours(1), now + SignedDuration::from_hours(1));
    world.set(|budget| (budget.opens_at, budget.closes_at) = (Some(future), None));
    let detail = world.post(SUBMISSIONS, GOOD).await.problem(409, "budget-closed");
    assert!(detail.contains(&future.to_string()), "{detail}");
    world.set(|budget| (budget.opens_at, budget.closes_at) = (None, Some(past)));
    let detail =
        world.delete("/v1/budgets/taxes/submissions/p", &[]).await.problem(409, "budget-closed");
    assert!(detail.contains(&past.to_string()), "{detail}");
    assert_eq!((world.counted("closed"), world.logged().len()), (2, 0));
    world.set(|budget| (budget.opens_at, budget.closes_at) = (Some(past), Some(future)));
    world.post(SUBMISSIONS, GOOD).await.accepted();
}

#[tokio::test]
async fn a_submission_without_a_person_is_a_person_of_its_own_with_a_location_that_works() {
    let world = World::new();
    world.set(|budget| budget.identity = Identity::Optional);
    let body = GOOD.replace(r#""person":"p-1","#, "");
    let answer = world.post(SUBMISSIONS, body.clone()).await;
    answer.accepted();
    let id = answer.json()["submission_id"].as_str().unwrap().to_owned();
    let location = format!("/v1/budgets/taxes/submissions/{id}");
    assert_eq!(answer.header("location"), Some(&*location));
    assert_eq!(world.logged()[0].0, key(&id));
    world.post(SUBMISSIONS, body).await.accepted();
    assert_ne!(world.logged()[1].0, world.logged()[0].0);
    world.delete(&location, &[]).await.accepted();
    assert_eq!(world.logged()[2], (key(&id), vec![]));
}

#[tokio::test]
async fn the_same_submission_again_gets_the_same_answer_and_is_in_the_log_once() {
    let world = World::new();
    for (headers, body) in [
        (vec![], named(ID, 40)),
        (vec![("idempotency-key", "order-66!")], GOOD.to_owned()),
        (vec![("idempotency-key", "0198c0de-0000-7000-8000-000000000002")], GOOD.to_owned()),
    ] {
        let before = world.logged().len();
        let first = world.post_with(SUBMISSIONS, &headers, body.clone()).await;
        let again = world.post_with(SUBMISSIONS, &headers, body).await;
        assert_eq!(first.accepted(), again.accepted());
        assert_eq!(first.json(), again.json());
        assert_eq!(first.header("location"), again.header("location"));
        assert_eq!(first.header("idempotency-replayed"), None);
        assert_eq!(again.header("idempotency-replayed"), Some("true"));
        assert_eq!(world.logged().len(), before + 1);
    }
    assert_eq!((world.counted("accepted"), world.counted("repeated")), (3, 3));
}

#[tokio::test]
async fn a_uuid_names_the_same_submission_in_the_header_and_in_the_body() {
    let world = World::new();
    let first = world.post(SUBMISSIONS, named(ID, 40)).await;
    let body = named(ID, 40);
    let again = world.post_with(SUBMISSIONS, &[("idempotency-key", ID)], body).await;
    assert_eq!(first.accepted(), again.accepted());
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let other = "0198c0de-0000-7000-8000-000000000009";
    for key in [other, "some-text"] {
        let answer = world.post_with(SUBMISSIONS, &[("idempotency-key", key)], named(ID, 40)).await;
        answer.problem(400, "malformed");
        assert_eq!(answer.pointers(), ["/submission_id"]);
    }
    for key in ["", "a b", &"x".repeat(256)] {
        let answer = world.post_with(SUBMISSIONS, &[("idempotency-key", key)], GOOD).await;
        answer.problem(400, "malformed");
    }
    assert_eq!(world.logged().len(), 1);
}

#[tokio::test]
async fn a_name_that_comes_again_with_something_else_is_refused() {
    let world = World::new();
    world.post(SUBMISSIONS, named(ID, 40)).await.accepted();
    world.post(SUBMISSIONS, named(ID, 41)).await.problem(422, "key-reused");
    let other_person = named(ID, 40).replace("p-1", "p-2");
    world.post(SUBMISSIONS, other_person).await.problem(422, "key-reused");
    let path = "/v1/budgets/taxes/submissions/p-1";
    world.delete(path, &[("idempotency-key", ID)]).await.problem(422, "key-reused");
    assert_eq!((world.logged().len(), world.counted("reused")), (1, 3));
}

#[tokio::test]
async fn the_same_submission_at_the_same_time_is_in_flight() {
    let world = Arc::new(World::new());
    world.log.held.store(true, Ordering::SeqCst);
    let first = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.post(SUBMISSIONS, named(ID, 40)).await.accepted() }
    });
    until(|| world.log.waiting.load(Ordering::SeqCst) == 1).await;
    let answer = world.post(SUBMISSIONS, named(ID, 40)).await;
    answer.problem(409, "in-flight");
    assert_eq!(answer.header("retry-after"), Some("1"));
    world.log.held.store(false, Ordering::SeqCst);
    world.log.go_on.notify_one();
    let receipt = first.await.unwrap();
    assert_eq!(world.post(SUBMISSIONS, named(ID, 40)).await.accepted(), receipt);
    assert_eq!(world.counted("in_flight"), 1);
}

#[tokio::test]
async fn a_client_that_hangs_up_leaves_no_submission_in_flight() {
    let world = Arc::new(World::new());
    world.log.held.store(true, Ordering::SeqCst);
    let first = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.post(SUBMISSIONS, named(ID, 40)).await.status }
    });
    until(|| world.log.waiting.load(Ordering::SeqCst) == 1).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    world.log.held.store(false, Ordering::SeqCst);
    world.log.go_on.notify_one();
    until(|| world.counted("accepted") == 1).await;
    let again = world.post(SUBMISSIONS, named(ID, 40)).await;
    again.accepted();
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(world.logged().len(), 1);
}

#[tokio::test]
async fn a_withdrawal_is_in_the_log_and_can_be_repeated() {
    let world = World::new();
    let path = "/v1/budgets/taxes/submissions/p-1";
    let first = world.delete(path, &[("idempotency-key", "bye")]).await;
    let again = world.delete(path, &[("idempotency-key", "bye")]).await;
    assert_eq!(first.accepted(), again.accepted());
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(first.header("location"), Some(path));
    assert_eq!(world.logged(), [(key("p-1"), vec![])]);
}

#[tokio::test]
async fn a_withdrawal_names_its_person_in_the_path() {
    let world = World::new();
    world.delete("/v1/budgets/taxes/submissions/batch", &[]).await.accepted();
    assert_eq!(world.logged(), [(key("batch"), vec![])]);
    let control = world.delete("/v1/budgets/taxes/submissions/a%00b", &[]).await;
    control.problem(400, "malformed");
    let long = format!("/v1/budgets/taxes/submissions/{}", "x".repeat(257));
    world.delete(&long, &[]).await.problem(400, "malformed");
    let no_text = world.delete("/v1/budgets/taxes/submissions/%ff", &[]).await;
    no_text.problem(400, "malformed");
}

#[tokio::test]
async fn a_log_that_is_away_is_told_at_once_and_nothing_is_accepted() {
    let world = World::new();
    for mood in [LogMood::Away, LogMood::Refusing] {
        world.log.is(mood);
        let answer = world.post(SUBMISSIONS, named(ID, 40)).await;
        assert!(answer.problem(503, "unavailable").contains("nothing was accepted"));
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
    assert_eq!((world.counted("unavailable"), world.logged().len()), (2, 0));
    world.log.is(LogMood::Taking);
    let answer = world.post(SUBMISSIONS, named(ID, 40)).await;
    answer.accepted();
    assert_eq!(answer.header("idempotency-replayed"), None);
}

#[tokio::test]
async fn an_unknown_outcome_is_said_to_be_unknown_with_the_id_to_repeat_it_with() {
    let world = World::new();
    world.log.is(LogMood::Vague);
    let answer = world.post(SUBMISSIONS, GOOD).await;
    let detail = answer.problem(503, "unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
    assert!(detail.contains("unknown") && !detail.contains("nothing was accepted"), "{detail}");
    assert_eq!(world.counted("unknown"), 1);
    let id = detail.split('"').nth(3).unwrap();
    let record = lock(&world.log.records)[0].value.clone();
    assert!(schemas::RecordDecoder::default().decode(key("p-1").as_bytes(), &record).is_ok_and(
        |view| view.submission == schemas::SubmissionId(id.parse().unwrap()).fingerprint()
    ));
    // The repetition goes into the log again, under the same name: the fold counts it once.
    world.log.is(LogMood::Taking);
    let body = GOOD.replacen('{', &format!(r#"{{"submission_id":"{id}","#), 1);
    world.post(SUBMISSIONS, body).await.accepted();
    assert_eq!(world.logged().len(), 2);
}

#[tokio::test]
async fn records_beyond_the_room_are_refused_at_once() {
    let world = Arc::new(World::with(2, &[]));
    world.log.held.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.post(SUBMISSIONS, GOOD).await.accepted() })
        })
        .collect();
    until(|| world.log.waiting.load(Ordering::SeqCst) == 2).await;
    let answer = world.post(SUBMISSIONS, GOOD).await;
    assert!(answer.problem(503, "unavailable").contains("nothing was accepted"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    world.log.held.store(false, Ordering::SeqCst);
    world.log.go_on.notify_waiters();
    for submission in waiting {
        submission.await.unwrap();
    }
    world.post(SUBMISSIONS, GOOD).await.accepted();
}

#[tokio::test]
async fn a_budget_is_frozen_once_before_its_first_submissions_however_many_come_at_once() {
    let world = Arc::new(World::new());
    let first: Vec<_> = (0..20)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { world.post(SUBMISSIONS, GOOD).await.accepted() })
        })
        .collect();
    for submission in first {
        submission.await.unwrap();
    }
    assert!(world.definitions.get("taxes").unwrap().frozen);
    assert_eq!(world.definitions.changes.load(Ordering::SeqCst), 1);
    assert_eq!(world.logged().len(), 20);
}

#[tokio::test]
async fn categories_that_change_before_the_freezing_are_those_that_count() {
    let world = World::new();
    let mut changed = schemas::Budget::clone(&world.definitions.get("taxes").unwrap());
    changed.revision += 1;
    changed.categories.reverse();
    *lock(&world.definitions.meanwhile) = Some(changed.clone());
    world.post(SUBMISSIONS, GOOD).await.accepted();
    assert_eq!(world.logged()[0].1, [0, 3_550, 0, 4_000, 0, 0, 0, 0, 2_450, 0]);

    let world = World::new();
    changed.categories = ["a", "b"]
        .map(|id| Category {
            id: CategoryId::parse(id).unwrap(),
            name: id.into(),
            description: None,
            color: None,
        })
        .to_vec();
    *lock(&world.definitions.meanwhile) = Some(changed);
    world.post(SUBMISSIONS, GOOD).await.problem(422, "invalid-allocation");
    assert_eq!(world.logged(), []);
}

#[tokio::test]
async fn nothing_is_appended_to_a_budget_that_cannot_be_frozen() {
    let world = World::new();
    world.definitions.failing.store(true, Ordering::SeqCst);
    let answer = world.post(SUBMISSIONS, GOOD).await;
    assert!(answer.problem(503, "unavailable").contains("nothing was accepted"));
    assert_eq!(world.logged(), []);
    world.definitions.failing.store(false, Ordering::SeqCst);
    world.post(SUBMISSIONS, GOOD).await.accepted();
}

#[tokio::test]
async fn no_person_is_among_the_metrics() {
    let world = World::new();
    world.post(SUBMISSIONS, GOOD.replace("p-1", "somebody")).await.accepted();
    world.delete("/v1/budgets/taxes/submissions/somebody", &[]).await.accepted();
    let text = String::from_utf8(world.metrics.render()).unwrap();
    assert!(text.contains("allocator_ingest_append_seconds_count 2"), "{text}");
    assert!(text.contains("allocator_ingest_records_in_flight 0"));
    assert!(!text.contains("somebody"));
}
