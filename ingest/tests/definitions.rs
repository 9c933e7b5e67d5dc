//! What administrators are promised about budgets' definitions, and everyone else about administrators.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::atomic::Ordering;

use http::Method;
use support::{Answer, GOOD, SUBMISSIONS, World};

const NEW: &str = "/v1/budgets/new";
const BODY: &str = r#"{"name":"New","categories":[{"id":"a","name":"A"},{"id":"b","name":"B"}]}"#;

async fn put(world: &World, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let headers = [&[("content-type", "application/json")][..], headers].concat();
    world.ask(Method::PUT, path, &headers, body.to_owned()).await
}

#[tokio::test]
async fn a_definition_is_created_changed_and_left_as_it_is() {
    let world = World::new();
    let created = put(&world, NEW, &[], BODY).await;
    assert_eq!(created.status.as_u16(), 201);
    assert_eq!(created.header("content-type"), Some("application/json"));
    let body = created.json();
    assert_eq!((&body["id"], &body["name"]), (&"new".into(), &"New".into()));
    assert_eq!((&body["revision"], &body["frozen"]), (&1.into(), &false.into()));

    let same = put(&world, NEW, &[], BODY).await;
    assert_eq!((same.status.as_u16(), same.json()), (200, body));

    let changed = put(&world, NEW, &[], &BODY.replace("New", "Newer")).await;
    assert_eq!(changed.status.as_u16(), 200);
    assert_eq!(changed.json()["revision"], 2);
    assert_eq!(world.definitions.get("new").unwrap().name, "Newer");
}

#[tokio::test]
async fn a_definition_that_is_wrong_changes_nothing() {
    let world = World::new();
    let answer = put(&world, NEW, &[], r#"{"name":1,"categories":[],"color":"red"}"#).await;
    answer.problem(400, "malformed");
    assert_eq!(answer.pointers(), ["/color", "/name", "/categories"]);
    let answer = put(&world, NEW, &[], &BODY.replace(r#""b""#, r#""a""#)).await;
    answer.problem(422, "invalid-budget");
    assert_eq!(answer.pointers(), ["/categories/1/id"]);
    put(&world, NEW, &[], "{").await.problem(400, "malformed");
    put(&world, "/v1/budgets/No%20Slug", &[], BODY).await.problem(400, "malformed");
    let answer = put(&world, NEW, &[("content-type", "text/plain")], BODY).await;
    answer.problem(415, "unsupported-media-type");
    assert_eq!(world.definitions.changes.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn what_is_frozen_stays_and_the_rest_may_change() {
    let world = World::new();
    put(&world, "/v1/budgets/taxes", &[], BODY).await;
    world.post(SUBMISSIONS, r#"{"person":"p","allocation":{"a":100}}"#).await.accepted();
    for body in [
        BODY.replace(r#""b""#, r#""c""#),
        BODY.replacen('{', r#"{"identity":"optional","#, 1),
        BODY.replace(r#"{"id":"b","name":"B"}"#, r#"{"id":"b","name":"B"},{"id":"c","name":"C"}"#),
    ] {
        let answer = put(&world, "/v1/budgets/taxes", &[], &body).await;
        answer.problem(409, "budget-frozen");
    }
    let renamed = put(&world, "/v1/budgets/taxes", &[], &BODY.replace("\"A\"", "\"Ä\"")).await;
    assert_eq!(renamed.status.as_u16(), 200);
    assert_eq!(renamed.json()["frozen"], true);
}

#[tokio::test]
async fn definitions_that_cannot_be_written_now_are_unavailable() {
    let world = World::new();
    world.definitions.failing.store(true, Ordering::SeqCst);
    let answer = put(&world, NEW, &[], BODY).await;
    assert!(answer.problem(503, "unavailable").contains("send it again"));
    assert_eq!(answer.header("retry-after"), Some("1"));
}

/// By `printf %s TOKEN | sha256sum`: 32 times `o`, 32 times `a`.
const TOKENS_FILE: &str = "\
otto operator sha256:b7bca7371b7976816f05ee141993a3170f9fa4faf73c4637a6729be9ac06db97
anna admin sha256:3ba3f5f43b92602683c19aee62a20342b084dd5971ddd33808d81a328879a547
";

fn administered() -> World {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.tokens");
    std::fs::write(&path, TOKENS_FILE).unwrap();
    World::with(1_000, &[("admin.tokens_file", path.to_str().unwrap())])
}

#[tokio::test]
async fn with_tokens_only_who_has_the_role_changes_definitions() {
    let world = administered();
    let shown = |letter: &str| format!("Bearer {}", letter.repeat(32));
    let answer = put(&world, NEW, &[], BODY).await;
    answer.problem(401, "unauthorized");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    put(&world, NEW, &[("authorization", &shown("w"))], BODY).await.problem(401, "unauthorized");
    let answer = put(&world, NEW, &[("authorization", &shown("o"))], BODY).await;
    assert!(
        answer.problem(403, "forbidden").contains("needs the role admin, and otto has operator")
    );
    assert!(world.definitions.get("new").is_none());
    let answer = put(&world, NEW, &[("authorization", &shown("a"))], BODY).await;
    assert_eq!(answer.status.as_u16(), 201);
    assert_eq!(answer.header("x-ratelimit-remaining"), Some("599"));
    // Submissions need none.
    world.post(SUBMISSIONS, GOOD).await.accepted();
}

#[tokio::test]
async fn who_may_not_change_definitions_is_refused_before_the_body_is_looked_at() {
    let world = administered();
    for body in ["{", ""] {
        put(&world, NEW, &[], body).await.problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn without_tokens_nobody_from_elsewhere_changes_definitions() {
    let world = World::new();
    let answer = put(&world, NEW, &[("x-forwarded-for", "192.0.2.7")], BODY).await;
    answer.problem(403, "forbidden");
    assert!(world.definitions.get("new").is_none());
    let answer = put(&world, NEW, &[("x-forwarded-for", "127.0.0.1")], BODY).await;
    assert_eq!(answer.status.as_u16(), 201);
}

#[tokio::test]
async fn default_budgets_are_defined_where_they_are_not_and_otherwise_left_alone() {
    let world = World::new();
    world.set(|budget| budget.name = "Ours".into());
    let stop = tokio_util::sync::CancellationToken::new();
    ingest::define_default_budgets(world.definitions.clone(), stop.clone()).await;
    assert_eq!(world.definitions.get("taxes").unwrap().name, "Ours");
    *support::lock(&world.definitions.catalog) = Default::default();
    ingest::define_default_budgets(world.definitions.clone(), stop).await;
    let taxes = world.definitions.get("taxes").unwrap();
    assert_eq!((taxes.revision, taxes.categories.len()), (1, 10));
}
