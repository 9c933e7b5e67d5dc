//! The contract of budget definitions.
#![allow(clippy::unwrap_used)]

mod default_budgets;
mod deletion;
mod newer_release;
mod roles;
#[path = "../support/mod.rs"]
mod support;

use std::sync::atomic::Ordering;

use http::Method;
use schemas::{ClosingFence, ClosingState, PersonSaltState, RecordDecoder};
use storage::log::NewRecord;
use support::{Harness, SUBMISSIONS, TestResponse};

const NEW: &str = "/v1/budgets/new";
const BODY: &str = r#"{"name":"New","categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}]}"#;

async fn put(harness: &Harness, path: &str, headers: &[(&str, &str)], body: &str) -> TestResponse {
    let headers = [&[("content-type", "application/json")][..], headers].concat();
    harness.send(Method::PUT, path, &headers, body.to_owned()).await
}

#[tokio::test]
async fn put_creates_and_changes_a_definition_and_an_equal_put_changes_nothing() {
    let harness = Harness::new();
    let created = put(&harness, NEW, &[], BODY).await;
    assert_eq!(created.status.as_u16(), 201);
    assert_eq!(created.header("content-type"), Some("application/json"));
    let body = created.json();
    assert_eq!((&body["id"], &body["name"]), (&"new".into(), &"New".into()));
    assert_eq!((&body["revision"], &body["frozen"]), (&1.into(), &false.into()));

    let same = put(&harness, NEW, &[], BODY).await;
    assert_eq!((same.status.as_u16(), same.json()), (200, body));

    let changed = put(&harness, NEW, &[], &BODY.replace("New", "Newer")).await;
    assert_eq!(changed.status.as_u16(), 200);
    assert_eq!(changed.json()["revision"], 2);
    assert_eq!(harness.definitions.get("new").unwrap().name, "Newer");
}

#[tokio::test]
async fn an_invalid_definition_changes_nothing() {
    let harness = Harness::new();
    let response = put(&harness, NEW, &[], r#"{"name":1,"categories":[],"color":"red"}"#).await;
    response.problem(400, "malformed");
    assert_eq!(response.pointers(), ["/color", "/name", "/categories"]);
    let response = put(&harness, NEW, &[], &BODY.replace(r#""b""#, r#""a""#)).await;
    response.problem(422, "invalid-budget");
    assert_eq!(response.pointers(), ["/categories/1/id"]);
    put(&harness, NEW, &[], "{").await.problem(400, "malformed");
    put(&harness, "/v1/budgets/No%20Slug", &[], BODY).await.problem(400, "malformed");
    let response = put(&harness, NEW, &[("content-type", "text/plain")], BODY).await;
    response.problem(415, "unsupported-media-type");
    assert_eq!(harness.definitions.changes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn frozen_rules_cannot_change_and_other_members_can() {
    let harness = Harness::new();
    put(&harness, "/v1/budgets/taxes", &[], BODY).await;
    harness.post(SUBMISSIONS, r#"{"person":"p","allocation":{"a":100}}"#).await.accepted();
    for body in [
        BODY.replace(r#""b""#, r#""c""#),
        BODY.replacen('{', r#"{"identity":"optional","#, 1),
        BODY.replacen('{', r#"{"publish_step":10,"#, 1),
        BODY.replace(r#"{"id":"b","name":"B"}"#, r#"{"id":"b","name":"B"},{"id":"c","name":"C"}"#),
    ] {
        let response = put(&harness, "/v1/budgets/taxes", &[], &body).await;
        response.problem(409, "budget-frozen");
    }
    let renamed = put(&harness, "/v1/budgets/taxes", &[], &BODY.replace("\"A\"", "\"Ä\"")).await;
    assert_eq!(renamed.status.as_u16(), 200);
    assert_eq!(renamed.json()["frozen"], true);
}

#[tokio::test]
async fn every_record_of_a_budget_is_stamped_with_its_publish_step() {
    let harness = Harness::new();
    let with_step = BODY.replacen('{', r#"{"publish_step":10,"#, 1);
    assert_eq!(
        put(&harness, "/v1/budgets/taxes", &[], &with_step).await.json()["publish_step"],
        10
    );
    let submission = r#"{"person":"p","allocation":{"a":100}}"#;
    harness.post(SUBMISSIONS, submission).await.accepted();
    harness
        .post(SUBMISSIONS, submission.replace("100", "30").replace("}}", ",\"b\":70}}"))
        .await
        .accepted();
    harness.delete("/v1/budgets/taxes/submissions/p", &[]).await.accepted();
    let records = harness.log.records.lock().clone();
    let mut decoder = RecordDecoder::default();
    let mut step = |record: &NewRecord| {
        decoder.decode(record.key.as_bytes(), &record.value).unwrap().publish_step.get()
    };
    assert_eq!(records.iter().map(&mut step).collect::<Vec<_>>(), [10, 10, 10]);
}

#[tokio::test]
async fn a_failed_write_of_a_definition_is_unavailable() {
    let harness = Harness::new();
    harness.definitions.failing.store(true, Ordering::SeqCst);
    let response = put(&harness, NEW, &[], BODY).await;
    assert!(response.problem(503, "unavailable").contains("send it again"));
    assert_eq!(response.header("retry-after"), Some("1"));
}

/// Hashes by `printf %s TOKEN | sha256sum`. The tokens are 32 times `o` and 32 times `a`.
const TOKENS_FILE: &str = "\
otto operator sha256:b7bca7371b7976816f05ee141993a3170f9fa4faf73c4637a6729be9ac06db97
anna admin sha256:3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547
";

/// The token that is 32 times a letter.
fn bearer(letter: &str) -> String {
    format!("Bearer {}", letter.repeat(32))
}

fn with_admin_tokens() -> Harness {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.tokens");
    std::fs::write(&path, TOKENS_FILE).unwrap();
    Harness::with(1_000, &[("admin.tokens_file", path.to_str().unwrap())])
}

#[tokio::test]
async fn a_forgotten_budget_takes_nothing_and_is_neither_reopened_nor_deleted() {
    let harness = Harness::new();
    harness.edit_budget(|budget| {
        budget.closes_at = Some("2026-01-02T00:00:00Z".parse().unwrap());
        budget.closing = Some(ClosingFence { revision: 1, state: ClosingState::Closed });
        budget.person_salt =
            PersonSaltState::Forgotten { at: "2026-01-03T00:00:00Z".parse().unwrap() };
    });
    let before = harness.definitions.get("taxes");
    let body = r#"{"person":"p-1","allocation":{"health":100}}"#;
    harness.post("/v1/budgets/taxes/submissions", body).await.problem(409, "budget-closed");
    harness.post("/v1/budgets/taxes/session", "{}").await.problem(410, "forgotten");
    harness.delete("/v1/budgets/taxes", &[]).await.problem(410, "forgotten");
    let taxes = serde_json::to_value(before.as_deref().unwrap()).unwrap();
    let reopening = serde_json::json!({"name": "Anew", "categories": taxes["categories"], "identity": taxes["identity"]});
    put(&harness, "/v1/budgets/taxes", &[], &reopening.to_string()).await.problem(410, "forgotten");
    assert_eq!(harness.definitions.get("taxes"), before);
    assert_eq!(harness.log.records.lock().len(), 0);
}

/// A definition of a newer release; frozen.
const FUTURE: &str = include_str!("../../../schemas/tests/golden/future_definition.json");
const PARKS: &str = "/v1/budgets/parks";
const PARKS_SUBMISSIONS: &str = "/v1/budgets/parks/submissions";
const TREES: &str = r#"{"person":"p-1","allocation":{"trees":100}}"#;

#[tokio::test]
async fn a_put_whose_condition_does_not_hold_changes_nothing() {
    let harness = Harness::new();
    let failed = async |header: (&str, &str), body: &str| {
        let before = harness.definitions.get("new");
        put(&harness, NEW, &[header], body).await.problem(412, "precondition-failed");
        assert_eq!(harness.definitions.get("new"), before);
    };
    failed(("if-match", "*"), BODY).await;
    failed(("if-match", "\"x\""), BODY).await;
    let created = put(&harness, NEW, &[("if-none-match", "*")], BODY).await;
    assert_eq!(created.status.as_u16(), 201);
    let etag = created.header("etag").unwrap().to_owned();
    failed(("if-none-match", "*"), BODY).await;
    failed(("if-none-match", &etag), BODY).await;

    let newer = BODY.replace("New", "Newer");
    failed(("if-match", "\"x\""), &newer).await;
    let changed = put(&harness, NEW, &[("if-match", &etag)], &newer).await;
    assert_eq!(changed.status.as_u16(), 200);
    // A repetition of the same change, as after a lost response.
    let repeated = put(&harness, NEW, &[("if-match", &etag)], &newer).await;
    assert_eq!((repeated.status.as_u16(), repeated.json()["revision"].clone()), (200, 2.into()));
    // The tag of the former definition.
    failed(("if-match", &etag), BODY).await;
    let again = put(&harness, NEW, &[("if-match", "*")], BODY).await;
    assert_eq!((again.status.as_u16(), again.json()["revision"].clone()), (200, 3.into()));
}

async fn delete(harness: &Harness, path: &str, headers: &[(&str, &str)]) -> support::TestResponse {
    harness.send(Method::DELETE, path, headers, String::new()).await
}

#[tokio::test]
async fn the_presentation_of_a_frozen_budget_can_change() {
    let harness = Harness::new();
    put(&harness, "/v1/budgets/taxes", &[], BODY).await;
    harness.post(SUBMISSIONS, r#"{"person":"p","allocation":{"a":100}}"#).await.accepted();
    let presented = BODY.replacen(
        '{',
        r#"{"language":"en","translations":{"de":{"name":"Neu"}},"reference":{"name":"R","source":"S","percent":{"b":100}},"#,
        1,
    );
    let changed = put(&harness, "/v1/budgets/taxes", &[], &presented).await;
    assert_eq!((changed.status.as_u16(), changed.json()["frozen"].clone()), (200, true.into()));
    assert_eq!(changed.json()["translations"]["de"]["name"], "Neu");
    assert_eq!(changed.json()["reference"]["percent"], serde_json::json!({"b": 100}));
    let removed = put(&harness, "/v1/budgets/taxes", &[], BODY).await;
    assert_eq!(removed.json().get("translations"), None);
}
