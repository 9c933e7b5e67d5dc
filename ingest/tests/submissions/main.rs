//! The contract of single submissions and withdrawals.
#![allow(clippy::unwrap_used)]

mod freezing;
mod log_outcomes;
mod repeated_ids;
#[path = "../support/mod.rs"]
mod support;

use std::sync::atomic::Ordering;

use http::Method;
use jiff::{SignedDuration, Timestamp};
use schemas::{IdentityRule, RecordDecoder, SubmissionId};
use support::{GOOD, Harness, SUBMISSIONS, key};

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
    // The id is the person's, so the log must not have it.
    let uuid = uuid::Uuid::try_parse(&id).unwrap();
    let value = harness.log.records.lock()[0].value.clone();
    assert!(!value.windows(16).any(|bytes| bytes == uuid.as_bytes()), "{value:?}");
    let again = format!(r#"{{"submission_id":"{id}",{}"#, &body[1..]);
    harness.post(SUBMISSIONS, again).await.accepted();
    assert_eq!(harness.logged()[1].0, key(&id), "a retry is the same person");
    assert_eq!(recorded_id(&harness, 0), recorded_id(&harness, 1), "and the same submission");
    harness.post(SUBMISSIONS, body).await.accepted();
    assert_ne!(harness.logged()[2].0, harness.logged()[0].0);
    harness.delete(&location, &[]).await.accepted();
    assert_eq!(harness.logged()[3], (key(&id), vec![]));
    // The person's id is the same submission id also where the client names the person.
    let same_id = [("idempotency-key", id.as_str())];
    harness.delete(&location, &same_id).await.problem(422, "key-reused");
    let spelling = format!("{SUBMISSIONS}/{}", id.to_uppercase());
    harness.delete(&spelling, &same_id).await.accepted();
    assert_ne!(recorded_id(&harness, 4).0, uuid);
}

fn recorded_id(harness: &Harness, index: usize) -> SubmissionId {
    let record = harness.log.records.lock()[index].clone();
    let mut decoder = RecordDecoder::default();
    decoder.decode(record.key.as_bytes(), &record.value).unwrap().submission_id
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
async fn a_conditional_withdrawal_is_refused_and_appends_nothing() {
    let harness = Harness::new();
    harness.post(SUBMISSIONS, GOOD).await.accepted();
    let path = format!("{SUBMISSIONS}/p-1");
    for condition in [("if-match", "\"x\""), ("if-match", "*"), ("if-none-match", "*")] {
        for path in [path.as_str(), &format!("{SUBMISSIONS}/me"), support::BATCH] {
            harness.delete(path, &[condition]).await.problem(412, "precondition-failed");
        }
        // What is refused without the condition is refused with it.
        let unknown = harness.delete("/v1/budgets/none/submissions/p-1", &[condition]).await;
        unknown.problem(404, "not-found");
    }
    assert_eq!(harness.logged().len(), 1);
    harness.delete(&path, &[]).await.accepted();
}
