//! The contract of budget definitions, and who may change them.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;

use http::Method;
use runtime::metrics::Metrics;
use schemas::{ClosingFence, ClosingState, PersonSaltState, RecordDecoder};
use storage::log::NewRecord;
use support::{GOOD, Harness, SUBMISSIONS, TestResponse};
use tokio_util::sync::CancellationToken;

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
async fn with_tokens_only_the_admin_role_changes_definitions() {
    let harness = with_admin_tokens();
    let response = put(&harness, NEW, &[], BODY).await;
    response.problem(401, "unauthorized");
    assert_eq!(response.header("www-authenticate"), Some("Bearer"));
    put(&harness, NEW, &[("authorization", &bearer("w"))], BODY).await.problem(401, "unauthorized");
    let response = put(&harness, NEW, &[("authorization", &bearer("o"))], BODY).await;
    let detail = response.problem(403, "forbidden");
    assert!(detail.contains("requires the role admin; otto has the role operator"), "{detail}");
    assert!(harness.definitions.get("new").is_none());
    let response = put(&harness, NEW, &[("authorization", &bearer("a"))], BODY).await;
    assert_eq!(response.status.as_u16(), 201);
    assert_eq!(response.header("x-ratelimit-remaining"), Some("499"));
    // Submissions need no token.
    harness.post(SUBMISSIONS, GOOD).await.accepted();
}

#[tokio::test]
async fn unauthorized_requests_are_rejected_before_the_body_is_parsed() {
    let harness = with_admin_tokens();
    for body in ["{", ""] {
        put(&harness, NEW, &[], body).await.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn without_tokens_only_local_clients_change_definitions() {
    let harness = Harness::new();
    for forwarded in ["192.0.2.7", "127.0.0.1"] {
        let response = put(&harness, NEW, &[("x-forwarded-for", forwarded)], BODY).await;
        response.problem(403, "forbidden");
    }
    assert!(harness.definitions.get("new").is_none());
    let response = put(&harness, NEW, &[], BODY).await;
    assert_eq!(response.status.as_u16(), 201);
}

async fn define_default_budgets(harness: &Harness, has_records: bool, stop: CancellationToken) {
    define_measured(harness, has_records, &Metrics::new("test"), stop).await;
}

async fn define_measured(
    harness: &Harness,
    has_records: bool,
    metrics: &Metrics,
    stop: CancellationToken,
) {
    let read = move || async move { Ok(has_records) };
    let definitions = harness.definitions.clone();
    ingest::define_default_budgets(definitions, read, metrics, stop).unwrap().await;
}

/// Whether the metric says that definitions are lost.
fn says_lost(metrics: &Metrics) -> bool {
    let text = String::from_utf8(metrics.render()).unwrap();
    let value =
        text.lines().find_map(|line| line.strip_prefix("allocator_ingest_definitions_lost "));
    value.unwrap() == "1"
}

#[tokio::test(start_paused = true)]
async fn no_default_budget_is_defined_anew_over_a_log_with_records() {
    let harness = Harness::new();
    let clear = || *harness.definitions.catalog.lock() = Default::default();
    let stop = CancellationToken::new();
    let hour = std::time::Duration::from_secs(3_600);
    clear();
    let metrics = Metrics::new("test");
    let lost = define_measured(&harness, true, &metrics, stop.clone());
    let ended = tokio::time::timeout(hour, lost).await;
    assert!(ended.is_err() && harness.definitions.catalog.lock().is_empty());
    assert!(says_lost(&metrics));

    // An operator defines another budget: the default one is still not defined without being asked for.
    let metrics = Metrics::new("test");
    let lost = define_measured(&harness, true, &metrics, stop.clone());
    let taxes = schemas::default_budgets().unwrap().remove(0);
    let operator = async {
        tokio::time::sleep(hour).await;
        assert!(says_lost(&metrics));
        let id = schemas::BudgetId::parse("new").unwrap();
        harness.definitions.put(schemas::Budget { id, ..taxes.clone() });
    };
    tokio::join!(operator, lost);
    assert!(harness.definitions.get("taxes").is_none());
    assert!(!says_lost(&metrics));

    // With a known definition, one that is missing is defined as always.
    define_default_budgets(&harness, true, stop.clone()).await;
    assert!(harness.definitions.get("taxes").is_some());

    // Another process defines it on a fresh deployment, and accepts submissions at once.
    clear();
    let definitions = harness.definitions.clone();
    let wanted = taxes.clone();
    let read = move || {
        definitions.put(wanted.clone());
        async { Ok(true) }
    };
    let metrics = Metrics::new("test");
    ingest::define_default_budgets(harness.definitions.clone(), read, &metrics, stop)
        .unwrap()
        .await;
    assert_eq!(harness.definitions.get("taxes").as_deref(), Some(&taxes));
    assert!(!says_lost(&metrics));
}

#[tokio::test]
async fn only_missing_default_budgets_are_defined() {
    let harness = Harness::new();
    harness.edit_budget(|budget| budget.name = "Ours".into());
    let stop = CancellationToken::new();
    define_default_budgets(&harness, false, stop.clone()).await;
    assert_eq!(harness.definitions.get("taxes").unwrap().name, "Ours");
    *harness.definitions.catalog.lock() = Default::default();
    define_default_budgets(&harness, false, stop).await;
    let taxes = harness.definitions.get("taxes").unwrap();
    assert_eq!((taxes.revision, taxes.categories.len()), (1, 10));
}

#[tokio::test]
async fn each_new_budget_has_a_salt_of_its_own_and_keeps_it() {
    let harness = Harness::new();
    *harness.definitions.catalog.lock() = Default::default();
    let stop = CancellationToken::new();
    define_default_budgets(&harness, false, stop).await;
    let secret = |id: &str| harness.definitions.get(id).unwrap().person_salt.clone();
    let created = put(&harness, NEW, &[], BODY).await;
    assert_eq!(created.status.as_u16(), 201);
    let body = String::from_utf8(created.body).unwrap();
    assert!(!body.contains("salt") && !body.contains("requires"), "{body}");
    let (first, default) = (secret("new"), secret("taxes"));
    for secret in [&first, &default] {
        assert!(matches!(secret, PersonSaltState::Salted(_)), "{secret:?}");
    }
    assert_ne!(first, default);
    put(&harness, NEW, &[], &BODY.replacen("\"name\":\"", "\"name\":\"Another ", 1)).await;
    assert_eq!((harness.definitions.get("new").unwrap().revision, secret("new")), (2, first));
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
const FUTURE: &str = include_str!("../../schemas/tests/golden/future_definition.json");
const PARKS: &str = "/v1/budgets/parks";
const PARKS_SUBMISSIONS: &str = "/v1/budgets/parks/submissions";
const TREES: &str = r#"{"person":"p-1","allocation":{"trees":100}}"#;

#[tokio::test]
async fn a_definition_of_a_newer_release_takes_submissions_and_is_not_changed() {
    let harness = Harness::new();
    harness.definitions.put_stored(FUTURE);
    let before = harness.definitions.get("parks");
    assert_eq!(harness.post(PARKS_SUBMISSIONS, TREES).await.status.as_u16(), 202);
    assert_eq!(harness.log.records.lock().len(), 1);
    let response = put(&harness, PARKS, &[], BODY).await;
    assert!(response.problem(503, "unavailable").contains("newer release"));
    assert_eq!(response.header("retry-after"), Some("1"));
    assert_eq!(harness.definitions.get("parks"), before);
}

#[tokio::test]
async fn a_definition_of_a_newer_release_is_not_frozen() {
    let harness = Harness::new();
    harness.definitions.put_stored(&FUTURE.replace(r#""frozen":true"#, r#""frozen":false"#));
    let response = harness.post(PARKS_SUBMISSIONS, TREES).await;
    let detail = response.problem(503, "unavailable");
    assert!(
        detail.contains("newer release") && detail.contains("nothing was accepted"),
        "{detail}"
    );
    assert!(!harness.definitions.get("parks").unwrap().frozen);
    assert_eq!(harness.log.records.lock().len(), 0);
}

#[tokio::test]
async fn an_unknown_identity_rule_and_an_unreadable_definition_take_no_submissions() {
    let harness = Harness::new();
    for (from, to) in [
        (r#""identity":"required""#, r#""identity":"passport""#),
        (r#""revision":7"#, r#""requires":["weights"],"revision":7"#),
    ] {
        harness.definitions.put_stored(&FUTURE.replace(from, to));
        for body in [TREES, r#"{"allocation":{"trees":100}}"#] {
            let response = harness.post(PARKS_SUBMISSIONS, body).await;
            let detail = response.problem(503, "unavailable");
            assert!(detail.contains("newer release"), "{detail}");
        }
        let path = format!("{PARKS_SUBMISSIONS}/p-1");
        harness.send(Method::DELETE, &path, &[], String::new()).await.problem(503, "unavailable");
        put(&harness, PARKS, &[], BODY).await.problem(503, "unavailable");
    }
    assert_eq!(harness.log.records.lock().len(), 0);
}

#[tokio::test]
async fn an_unreadable_default_budget_is_not_defined_again() {
    let harness = Harness::new();
    *harness.definitions.catalog.lock() = Default::default();
    let taxes = FUTURE.replace("parks", "taxes").replace(r#""name":"Trees""#, r#""name":7"#);
    harness.definitions.put_stored(&taxes);
    let stop = CancellationToken::new();
    define_default_budgets(&harness, false, stop).await;
    assert!(harness.definitions.get("taxes").is_none());
}

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
async fn a_budget_without_submissions_can_be_deleted_and_defined_anew() {
    let harness = Harness::new();
    put(&harness, NEW, &[], BODY).await;
    let path = format!("{NEW}/submissions");
    // A withdrawal of nobody does not keep it.
    harness.send(Method::DELETE, &format!("{path}/nobody"), &[], String::new()).await;
    let response = delete(&harness, NEW, &[]).await;
    assert_eq!((response.status.as_u16(), response.body.len()), (204, 0));
    harness.post(&path, GOOD).await.problem(404, "not-found");
    delete(&harness, NEW, &[]).await.problem(404, "not-found");
    delete(&harness, "/v1/budgets/No%20slug", &[]).await.problem(404, "not-found");
    let defined = put(&harness, NEW, &[], BODY).await;
    // Revisions continue, for processes that have missed the deletion.
    assert_eq!((defined.status.as_u16(), defined.json()["revision"].clone()), (201, 3.into()));
}

#[tokio::test]
async fn a_budget_with_submissions_is_not_deleted() {
    let harness = Harness::new();
    harness.post(SUBMISSIONS, GOOD).await.accepted();
    delete(&harness, "/v1/budgets/taxes", &[]).await.problem(409, "budget-frozen");
    assert!(harness.definitions.get("taxes").is_some());
}

#[tokio::test]
async fn only_administrators_delete_and_only_the_definition_that_they_mean() {
    let harness = with_admin_tokens();
    harness.post(SUBMISSIONS, GOOD).await.accepted();
    let admin = bearer("a");
    put(&harness, NEW, &[("authorization", &admin)], BODY).await;
    delete(&harness, NEW, &[]).await.problem(401, "unauthorized");
    let operator = bearer("o");
    delete(&harness, NEW, &[("authorization", &operator)]).await.problem(403, "forbidden");
    let other = [("authorization", &*admin), ("if-match", "\"x\"")];
    delete(&harness, NEW, &other).await.problem(412, "precondition-failed");
    assert!(harness.definitions.get("new").is_some());
    let response = delete(&harness, NEW, &[("authorization", &admin), ("if-match", "*")]).await;
    assert_eq!(response.status.as_u16(), 204);
}

#[tokio::test]
async fn a_definition_of_a_newer_release_is_not_deleted() {
    let harness = Harness::new();
    harness.definitions.put_stored(&FUTURE.replace(r#""frozen":true"#, r#""frozen":false"#));
    delete(&harness, PARKS, &[]).await.problem(503, "unavailable");
    assert!(harness.definitions.get("parks").is_some());
}

#[tokio::test]
async fn a_deleted_default_budget_stays_deleted() {
    let harness = Harness::new();
    assert_eq!(delete(&harness, "/v1/budgets/taxes", &[]).await.status.as_u16(), 204);
    let stop = CancellationToken::new();
    define_default_budgets(&harness, false, stop).await;
    assert!(harness.definitions.get("taxes").is_none());
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
