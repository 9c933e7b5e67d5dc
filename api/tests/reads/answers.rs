//! Bodies and headers as the contract has them.

use std::time::Duration;

use schemas::{Budget, Results};

use crate::fakes::Mode;
use crate::world::*;

#[tokio::test(start_paused = true)]
async fn the_default_budgets_aggregate_is_the_same_on_every_of_its_routes() {
    let world = World::new();
    world.commit("taxes", &[(0, [2_500, 7_500]), (1, [5_000, 5_000]), (1, [0, 10_000])]);
    let got = world.aggregate("taxes").await;
    assert_eq!(got.header("content-type"), "application/json");
    let health = &got.json()["categories"][0];
    assert_eq!(
        health.to_string(),
        r#"{"average_percent":25.0,"id":"health","median_percent":25.0,"name":"HEALTH","total_basis_points":7500}"#
    );
    for path in ["/aggregate", "/aggregate/"] {
        assert_eq!(world.get(path).await.text, got.text, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_without_submissions_has_zeros_everywhere() {
    let world = World::new();
    let body = world.aggregate("town").await.json();
    assert_eq!(body["people"], 0);
    assert_eq!(body["categories"].as_array().unwrap().len(), 2);
    assert_eq!(body["categories"][1]["average_percent"].to_string(), "0.0");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_has_the_answer_gets_304_with_the_same_headers() {
    let world = World::new();
    world.commit("town", &[(0, [2_500, 7_500])]);
    world.aggregate("town").await;
    let path = "/v1/budgets/town/aggregate";
    let got = world.get(path).await;
    let etag = got.header("etag");
    assert!(etag.starts_with('"') && etag.contains(got.json()["version"].as_str().unwrap()));
    for condition in [etag.to_owned(), format!("W/{etag}"), "*".into(), format!("\"x\", {etag}")] {
        let again = world.get_with(path, &[("if-none-match", &condition)]).await;
        assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""), "{condition}");
        for header in ["etag", "cache-control", "age", "cache-status"] {
            assert_eq!(again.header(header), got.header(header));
            assert_ne!(again.header(header), "", "{header}");
        }
    }
    let other = world.get_with(path, &[("if-none-match", "\"other\"")]).await;
    assert_eq!(other.status, 200);
    let detailed = format!("{path}?include=distribution");
    assert_eq!(world.get_with(&detailed, &[("if-none-match", etag)]).await.status, 200);
    let body = world.get(&detailed).await.json();
    assert_eq!(body["categories"][0]["distribution"].as_array().unwrap().len(), 101);
}

#[tokio::test(start_paused = true)]
async fn head_answers_like_get_without_a_body_and_other_methods_are_problems() {
    let world = World::new();
    world.commit("town", &[(0, [2_500, 7_500])]);
    let path = "/v1/budgets/town/aggregate";
    let got = world.get(path).await;
    let head = world.send("HEAD", path, &[]).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    assert_eq!(head.header("etag"), got.header("etag"));
    assert_eq!(head.header("content-length"), got.text.len().to_string());
    let post = world.send("POST", path, &[]).await;
    assert_eq!(
        (post.status.as_u16(), post.header("content-type")),
        (405, "application/problem+json")
    );
    assert_eq!(post.header("allow"), "GET,HEAD");
}

#[tokio::test(start_paused = true)]
async fn what_does_not_exist_is_a_404_problem() {
    let world = World::new();
    for path in [
        "/v1/budgets/nope",
        "/v1/budgets/nope/aggregate",
        "/v1/budgets/nope/submissions/p-1",
        "/v1/budgets/../aggregate",
        "/v1/nothing",
    ] {
        let got = world.get(path).await;
        assert_eq!(
            (got.status.as_u16(), got.header("content-type")),
            (404, "application/problem+json"),
            "{path}"
        );
        assert_eq!(got.json()["type"], "/problems/not-found");
    }
}

#[tokio::test(start_paused = true)]
async fn definitions_are_listed_by_id_and_given_one_by_one() {
    let world = World::new();
    let list = world.get("/v1/budgets").await.json();
    let ids: Vec<&str> =
        list["budgets"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["park", "school", "taxes", "town"]);
    let got = world.get("/v1/budgets/town").await;
    assert_eq!(got.json(), serde_json::to_value(budget("town")).unwrap());
    let again = world.get_with("/v1/budgets/town", &[("if-none-match", got.header("etag"))]).await;
    assert_eq!(again.status, 304);
}

#[tokio::test(start_paused = true)]
async fn a_new_name_shows_in_the_same_version_under_another_etag() {
    let world = World::new().settled().await;
    world.commit("town", &[(0, [2_500, 7_500])]);
    let old = world.aggregate("town").await;
    // Not even a tier that works is needed for it.
    world.cache.switch.set(Mode::Fails);
    world.store.totals_switch.set(Mode::Fails);
    world.definitions.put(Budget { name: "New".into(), revision: 2, ..budget("town") });
    tokio::time::sleep(Duration::from_millis(5)).await;
    let new = world.aggregate("town").await;
    assert_eq!(new.json()["name"], "New");
    assert_eq!(new.json()["version"], old.json()["version"]);
    assert_ne!(new.header("etag"), old.header("etag"));
}

#[tokio::test(start_paused = true)]
async fn a_new_budget_is_answered_at_once() {
    let world = World::new().settled().await;
    assert_eq!(world.aggregate("fresh").await.status, 404);
    world.definitions.put(budget("fresh"));
    world.commit("fresh", &[(0, [2_500, 7_500])]);
    assert_eq!(world.aggregate("fresh").await.people(), 1);
}

// The closing is by the clock on the wall, which a test cannot stop.
#[tokio::test]
async fn results_withheld_until_closing_show_no_number_and_then_all() {
    let world = World::new().settled().await;
    let closes_at = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300);
    let closing =
        Budget { results: Results::AfterClose, closes_at: Some(closes_at), ..budget("town") };
    world.definitions.put(Budget { revision: 2, ..closing });
    world.commit("town", &[(0, [2_500, 7_500])]);
    let early = world.aggregate("town").await;
    assert_eq!(early.status, 200);
    assert_eq!(early.json()["withheld"]["reason"], "after_close");
    assert!(!early.text.contains("people") && !early.text.contains("basis_points"));
    until("closed", || jiff::Timestamp::now() >= closes_at).await;
    let late = world.aggregate("town").await;
    assert_eq!(late.people(), 1);
    assert_ne!(late.header("etag"), early.header("etag"));
}

#[tokio::test]
async fn results_withheld_for_another_reason_after_closing_have_another_etag() {
    let world = World::new().settled().await;
    let closes_at = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300);
    let closing = Budget {
        results: Results::AfterClose,
        closes_at: Some(closes_at),
        minimum_people: 50,
        revision: 2,
        ..budget("town")
    };
    world.definitions.put(closing);
    world.commit("town", &[(0, [2_500, 7_500])]);
    let early = world.aggregate("town").await;
    assert_eq!(early.json()["withheld"]["reason"], "after_close");
    until("closed", || jiff::Timestamp::now() >= closes_at).await;
    let late = world.aggregate("town").await;
    assert_eq!(late.json()["withheld"]["reason"], "minimum_people");
    assert_eq!(late.json()["version"], early.json()["version"]);
    assert_ne!(late.header("etag"), early.header("etag"));
}
