//! The contract of single submissions and withdrawals.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use schemas::{Category, CategoryId, IdentityRule};
use support::{GOOD, Harness, LogMode, SUBMISSIONS, key, until};

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

fn with_id(id: &str, health: u32) -> String {
    let rest = 100 - health;
    format!(
        r#"{{"person":"p-1","allocation":{{"health":{health},"education":{rest}}},"submission_id":"{id}"}}"#
    )
}

#[tokio::test]
async fn an_accepted_submission_is_in_the_log_with_its_exact_shares() {
    let harness = Harness::new();
    let response = harness.post(SUBMISSIONS, GOOD).await;
    let receipt = response.accepted();
    let token = response.header("consistency-token").unwrap();
    let location = format!("/v1/budgets/taxes/submissions/p-1?at_least={token}");
    assert_eq!(response.header("location"), Some(&*location));
    assert_eq!(response.header("idempotency-replayed"), None);
    // Defence, health and education are the 2nd, 7th and 9th of the default budget.
    assert_eq!(harness.logged(), [(key("p-1"), vec![0, 2_450, 0, 0, 0, 0, 4_000, 0, 3_550, 0])]);
    assert_eq!(receipt.offset.0, 0);
    assert_eq!(harness.counted("accepted"), 1);
    // A server-generated id is never looked up.
    assert_eq!(harness.idempotency.begun.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn any_person_id_is_escaped_into_one_segment_of_the_location() {
    let harness = Harness::new();
    let response = harness.post(SUBMISSIONS, GOOD.replace("p-1", "a/ü ?")).await;
    response.accepted();
    let token = response.header("consistency-token").unwrap();
    let location = format!("/v1/budgets/taxes/submissions/a%2F%C3%BC%20%3F?at_least={token}");
    assert_eq!(response.header("location"), Some(&*location));
    let response = harness.delete("/v1/budgets/taxes/submissions/a%2F%C3%BC%20%3F", &[]).await;
    response.accepted();
    assert_eq!(harness.logged()[1], (key("a/ü ?"), vec![]));
}

#[tokio::test]
async fn a_malformed_submission_is_rejected() {
    let harness = Harness::new();
    for body in ["", "{", "[]", r#"{"person":"p","allocation":{"health":"100"}}"#] {
        harness.post(SUBMISSIONS, body).await.problem(400, "malformed");
    }
    let response = harness.post(SUBMISSIONS, GOOD.replace("person", "submision_id")).await;
    response.problem(400, "malformed");
    assert_eq!(response.pointers(), ["/submision_id", "/person"]);
    assert_eq!(harness.counted("invalid"), 5);
    assert_eq!(harness.logged(), []);
    // A rejected submission does not freeze the budget.
    assert!(!harness.definitions.get("taxes").unwrap().frozen);
}

#[tokio::test]
async fn an_invalid_allocation_is_rejected_with_every_fault() {
    let harness = Harness::new();
    let body =
        r#"{"person":"p","allocation":{"health":33.335,"helth":-1,"defence":50,"defence":50}}"#;
    let response = harness.post(SUBMISSIONS, body).await;
    response.problem(422, "invalid-allocation");
    assert_eq!(
        response.pointers(),
        ["/allocation/health", "/allocation/helth", "/allocation/helth", "/allocation/defence"]
    );
    let response = harness.post(SUBMISSIONS, GOOD.replace("40", "41")).await;
    assert!(response.problem(422, "invalid-allocation").contains("101"));
    assert_eq!(harness.logged(), []);
}

#[tokio::test]
async fn only_json_is_accepted() {
    let harness = Harness::new();
    for media_type in ["text/plain", "application/x-ndjson", "application/jsonx", ""] {
        let headers = [("content-type", media_type)];
        let response = harness.post_with(SUBMISSIONS, &headers, GOOD).await;
        response.problem(415, "unsupported-media-type");
    }
    harness.send(Method::POST, SUBMISSIONS, &[], GOOD).await.problem(415, "unsupported-media-type");
    let headers = [("content-type", "Application/JSON; charset=utf-8")];
    harness.post_with(SUBMISSIONS, &headers, GOOD).await.accepted();
}

#[tokio::test]
async fn a_body_over_the_limit_is_too_large() {
    let harness = Harness::new();
    let response = harness.post(SUBMISSIONS, " ".repeat(2 * 1024 * 1024 + 1)).await;
    response.problem(413, "content-too-large");
}

#[tokio::test]
async fn unknown_methods_and_paths_are_problems() {
    let harness = Harness::new();
    let response = harness.send(Method::PATCH, SUBMISSIONS, &[], "").await;
    assert_eq!(response.status.as_u16(), 405);
    assert_eq!(response.json()["type"], "/problems/method-not-allowed");
    let response = harness.send(Method::POST, "/v1/nothing", &[], "").await;
    response.problem(404, "not-found");
}

#[tokio::test]
async fn an_unknown_budget_is_not_found_once_definitions_are_loaded_and_unavailable_before() {
    let harness = Harness::new();
    let path = "/v1/budgets/none/submissions";
    harness.post(path, GOOD).await.problem(404, "not-found");
    harness.delete("/v1/budgets/none/submissions/p", &[]).await.problem(404, "not-found");
    harness.definitions.loaded.store(false, Ordering::SeqCst);
    let response = harness.post(path, GOOD).await;
    response.problem(503, "unavailable");
    assert_eq!(response.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn a_budget_accepts_submissions_only_while_it_is_open() {
    let harness = Harness::new();
    let now = Timestamp::now();
    let (past, future) = (now - SignedDuration::from_hours(1), now + SignedDuration::from_hours(1));
    harness.edit_budget(|budget| (budget.opens_at, budget.closes_at) = (Some(future), None));
    let detail = harness.post(SUBMISSIONS, GOOD).await.problem(409, "budget-closed");
    assert!(detail.contains(&future.to_string()), "{detail}");
    harness.edit_budget(|budget| (budget.opens_at, budget.closes_at) = (None, Some(past)));
    let detail =
        harness.delete("/v1/budgets/taxes/submissions/p", &[]).await.problem(409, "budget-closed");
    assert!(detail.contains(&past.to_string()), "{detail}");
    assert_eq!((harness.counted("closed"), harness.logged().len()), (2, 0));
    harness.edit_budget(|budget| (budget.opens_at, budget.closes_at) = (Some(past), Some(future)));
    harness.post(SUBMISSIONS, GOOD).await.accepted();
}

#[tokio::test]
async fn an_anonymous_submission_is_a_new_person_whose_location_works() {
    let harness = Harness::new();
    harness.edit_budget(|budget| budget.identity = IdentityRule::Optional);
    let body = GOOD.replace(r#""person":"p-1","#, "");
    let response = harness.post(SUBMISSIONS, body.clone()).await;
    response.accepted();
    let id = response.json()["submission_id"].as_str().unwrap().to_owned();
    let token = response.header("consistency-token").unwrap();
    let location = format!("/v1/budgets/taxes/submissions/{id}?at_least={token}");
    assert_eq!(response.header("location"), Some(&*location));
    assert_eq!(harness.logged()[0].0, key(&id));
    harness.post(SUBMISSIONS, body).await.accepted();
    assert_ne!(harness.logged()[1].0, harness.logged()[0].0);
    harness.delete(&location, &[]).await.accepted();
    assert_eq!(harness.logged()[2], (key(&id), vec![]));
}

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
async fn a_withdrawal_is_in_the_log_and_is_idempotent() {
    let harness = Harness::new();
    let path = "/v1/budgets/taxes/submissions/p-1";
    let first = harness.delete(path, &[("idempotency-key", "bye")]).await;
    let again = harness.delete(path, &[("idempotency-key", "bye")]).await;
    assert_eq!(first.accepted(), again.accepted());
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let token = first.header("consistency-token").unwrap();
    assert_eq!(first.header("location"), Some(&*format!("{path}?at_least={token}")));
    assert_eq!(harness.logged(), [(key("p-1"), vec![])]);
}

#[tokio::test]
async fn the_path_of_a_withdrawal_may_hold_any_valid_person_id() {
    let harness = Harness::new();
    harness.delete("/v1/budgets/taxes/submissions/batch", &[]).await.accepted();
    assert_eq!(harness.logged(), [(key("batch"), vec![])]);
    let control = harness.delete("/v1/budgets/taxes/submissions/a%00b", &[]).await;
    control.problem(400, "malformed");
    let long = format!("/v1/budgets/taxes/submissions/{}", "x".repeat(257));
    harness.delete(&long, &[]).await.problem(400, "malformed");
    let no_text = harness.delete("/v1/budgets/taxes/submissions/%ff", &[]).await;
    no_text.problem(400, "malformed");
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

#[tokio::test]
async fn metrics_hold_no_person_id() {
    let harness = Harness::new();
    harness.post(SUBMISSIONS, GOOD.replace("p-1", "secret-person")).await.accepted();
    harness.delete("/v1/budgets/taxes/submissions/secret-person", &[]).await.accepted();
    let text = String::from_utf8(harness.metrics.render()).unwrap();
    assert!(text.contains("allocator_ingest_append_seconds_count 2"), "{text}");
    assert!(text.contains("allocator_ingest_records_in_flight 0"));
    assert!(!text.contains("secret-person"));
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
    let results = harness.post(support::BATCH, batch).await.json()["results"].clone();
    assert_eq!((&results[0]["status"], &results[0]["replayed"]), (&202.into(), &true.into()));
    assert_eq!((&results[1]["status"], &results[1]["replayed"]), (&202.into(), &().into()));
    assert_eq!(harness.logged().len(), 3);
    // A refusal leaves no mark: the id still is that of the first submission.
    let again = harness.post(SUBMISSIONS, with_id(ID, 40)).await;
    assert_eq!(again.accepted(), first);
}
