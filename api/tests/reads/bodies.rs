//! Bodies and headers of the public routes, as in the contract.

use std::time::Duration;

use schemas::{Budget, ResultsVisibility};

use crate::fakes::Mode;
use crate::test_server::*;

#[tokio::test(start_paused = true)]
async fn the_default_budgets_aggregate_is_the_same_on_all_of_its_routes() {
    let server = TestServer::new();
    server.commit("taxes", &[(0, [2_500, 7_500]), (1, [5_000, 5_000]), (1, [0, 10_000])]);
    let got = server.aggregate("taxes").await;
    assert_eq!(got.header("content-type"), "application/json");
    let health = &got.json()["categories"][0];
    assert_eq!(
        health.to_string(),
        r#"{"average_percent":25.0,"id":"health","median_percent":25.0,"name":"HEALTH","total_basis_points":7500}"#
    );
    for path in ["/aggregate", "/aggregate/"] {
        assert_eq!(server.get(path).await.text, got.text, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_without_submissions_has_zeros_in_every_category() {
    let server = TestServer::new();
    let body = server.aggregate("town").await.json();
    assert_eq!(body["people"], 0);
    assert_eq!(body["categories"].as_array().unwrap().len(), 2);
    assert_eq!(body["categories"][1]["average_percent"].to_string(), "0.0");
}

#[tokio::test(start_paused = true)]
async fn a_client_with_the_current_etag_gets_304_with_the_same_headers() {
    let server = TestServer::new();
    server.commit("town", &[(0, [2_500, 7_500])]);
    server.aggregate("town").await;
    let path = "/v1/budgets/town/aggregate";
    let got = server.get(path).await;
    let etag = got.header("etag");
    assert!(etag.starts_with('"') && etag.contains(got.json()["version"].as_str().unwrap()));
    for condition in [etag.to_owned(), format!("W/{etag}"), "*".into(), format!("\"x\", {etag}")] {
        let again = server.get_with(path, &[("if-none-match", &condition)]).await;
        assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""), "{condition}");
        for header in ["etag", "cache-control", "age", "cache-status"] {
            assert_eq!(again.header(header), got.header(header));
            assert_ne!(again.header(header), "", "{header}");
        }
    }
    let other = server.get_with(path, &[("if-none-match", "\"other\"")]).await;
    assert_eq!(other.status, 200);
    let detailed = format!("{path}?include=distribution");
    assert_eq!(server.get_with(&detailed, &[("if-none-match", etag)]).await.status, 200);
    let body = server.get(&detailed).await.json();
    assert_eq!(body["categories"][0]["distribution"].as_array().unwrap().len(), 101);
}

#[tokio::test(start_paused = true)]
async fn head_responds_like_get_without_a_body_and_other_methods_are_problems() {
    let server = TestServer::new();
    server.commit("town", &[(0, [2_500, 7_500])]);
    let path = "/v1/budgets/town/aggregate";
    let got = server.get(path).await;
    let head = server.send("HEAD", path, &[]).await;
    assert_eq!((head.status.as_u16(), head.text.as_str()), (200, ""));
    assert_eq!(head.header("etag"), got.header("etag"));
    assert_eq!(head.header("content-length"), got.text.len().to_string());
    let post = server.send("POST", path, &[]).await;
    assert_eq!(
        (post.status.as_u16(), post.header("content-type")),
        (405, "application/problem+json")
    );
    assert_eq!(post.header("allow"), "GET,HEAD");
}

#[tokio::test(start_paused = true)]
async fn unknown_paths_and_budgets_are_404_problems() {
    let server = TestServer::new();
    for path in [
        "/v1/budgets/nope",
        "/v1/budgets/nope/aggregate",
        "/v1/budgets/nope/submissions/p-1",
        "/v1/budgets/../aggregate",
        "/v1/nothing",
    ] {
        let got = server.get(path).await;
        assert_eq!(
            (got.status.as_u16(), got.header("content-type")),
            (404, "application/problem+json"),
            "{path}"
        );
        assert_eq!(got.json()["type"], "/problems/not-found");
    }
}

#[tokio::test(start_paused = true)]
async fn definitions_are_listed_by_id_and_served_individually() {
    let server = TestServer::new();
    let list = server.get("/v1/budgets").await.json();
    let ids: Vec<&str> =
        list["budgets"].as_array().unwrap().iter().map(|b| b["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["park", "school", "taxes", "town"]);
    let got = server.get("/v1/budgets/town").await;
    assert_eq!(got.json(), serde_json::to_value(budget("town")).unwrap());
    let again = server.get_with("/v1/budgets/town", &[("if-none-match", got.header("etag"))]).await;
    assert_eq!(again.status, 304);
}

#[tokio::test(start_paused = true)]
async fn the_etag_of_a_definition_or_of_the_list_changes_with_its_content_only() {
    let server = TestServer::new();
    let etags = async || {
        let mut etags = Vec::new();
        for path in ["/v1/budgets", "/v1/budgets/town", "/v1/budgets/park"] {
            let got = server.get(path).await;
            let headers = [("if-none-match", got.header("etag"))];
            assert_eq!(server.get_with(path, &headers).await.status, 304, "{path}");
            etags.push(got.header("etag").to_owned());
        }
        etags
    };
    let before = etags().await;
    assert_eq!(etags().await, before);
    server.definitions.put(Budget { name: "New".into(), revision: 2, ..budget("town") });
    let after = etags().await;
    assert!(after[0] != before[0] && after[1] != before[1] && after[2] == before[2], "{after:?}");
    assert_eq!(server.get("/v1/budgets/town").await.json()["name"], "New");
    server.definitions.put(budget("zoo"));
    assert_ne!(etags().await[0], after[0]);
    assert_eq!(server.get("/v1/budgets/zoo").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_renamed_budget_keeps_its_version_and_changes_its_etag() {
    let server = TestServer::new().until_ready().await;
    server.commit("town", &[(0, [2_500, 7_500])]);
    let old = server.aggregate("town").await;
    // The rename needs no working tier.
    server.cache.switch.set(Mode::Fails);
    server.store.totals_switch.set(Mode::Fails);
    server.definitions.put(Budget { name: "New".into(), revision: 2, ..budget("town") });
    tokio::time::sleep(Duration::from_millis(5)).await;
    let new = server.aggregate("town").await;
    assert_eq!(new.json()["name"], "New");
    assert_eq!(new.json()["version"], old.json()["version"]);
    assert_ne!(new.header("etag"), old.header("etag"));
}

#[tokio::test(start_paused = true)]
async fn a_new_budget_is_served_at_once() {
    let server = TestServer::new().until_ready().await;
    assert_eq!(server.aggregate("fresh").await.status, 404);
    server.definitions.put(budget("fresh"));
    server.commit("fresh", &[(0, [2_500, 7_500])]);
    assert_eq!(server.aggregate("fresh").await.people(), 1);
}

/// Returns a budget as a newer release stores it.
fn stored(revision: u64, member: &str, value: serde_json::Value) -> String {
    let mut json = serde_json::to_value(Budget { revision, ..budget("town") }).unwrap();
    json[member] = value;
    json.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_partly_understood_definition_is_served_and_an_unknown_rule_withholds_results() {
    let server = TestServer::new().until_ready().await;
    server.commit("town", &[(0, [2_500, 7_500])]);
    assert_eq!(server.aggregate("town").await.people(), 1);
    let town = budget("town").id;
    server.definitions.put_stored(&town, &stored(2, "languages", "de".into()));
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(server.aggregate("town").await.people(), 1);
    assert_eq!(server.get("/v1/budgets/town").await.json()["revision"], 2);

    server.definitions.put_stored(&town, &stored(3, "results", "after_recount".into()));
    tokio::time::sleep(Duration::from_millis(5)).await;
    let withheld = server.aggregate("town").await;
    assert_eq!(withheld.json()["withheld"]["reason"], "unknown_rule");
    assert!(!withheld.text.contains("basis_points"), "{}", withheld.text);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_definition_is_unavailable_and_not_missing() {
    let server = TestServer::new().until_ready().await;
    server.commit("town", &[(0, [2_500, 7_500])]);
    assert_eq!(server.aggregate("town").await.people(), 1);
    let town = budget("town").id;
    server.definitions.put_stored(&town, &stored(2, "requires", serde_json::json!(["weights"])));
    tokio::time::sleep(Duration::from_millis(5)).await;
    for path in [
        "/v1/budgets/town",
        "/v1/budgets/town/aggregate",
        "/v1/budgets/town/submissions/p-1",
        "/v1/aggregates?budget=park&budget=town",
    ] {
        let got = server.get(path).await;
        assert_eq!(got.status, 503, "{path}");
        assert!(got.text.contains("newer release"), "{path}: {}", got.text);
    }
    let list = server.get("/v1/budgets").await.json();
    assert_eq!(list["unreadable"], serde_json::json!(["town"]));
    server.definitions.put(Budget { revision: 3, ..budget("town") });
    assert_eq!(server.aggregate("town").await.people(), 1);
    assert!(server.get("/v1/budgets").await.json().get("unreadable").is_none());
}

#[tokio::test(start_paused = true)]
async fn an_after_close_budget_shows_no_number_before_every_partition_is_closed_and_all_afterwards()
{
    for hours in [-1, 1] {
        let server = TestServer::new().until_ready().await;
        let closing = Budget {
            results: ResultsVisibility::AfterClose,
            closes_at: Some(jiff::Timestamp::now() + jiff::SignedDuration::from_hours(hours)),
            ..budget("town")
        };
        server.definitions.put(Budget { revision: 2, ..closing });
        let people = [(0, [2_500, 7_500])];
        server.commit("town", &people);
        let early = server.aggregate("town").await;
        assert_eq!(early.status, 200);
        assert_eq!(early.json()["withheld"]["reason"], "after_close");
        let counting = early.json()["withheld"]["state"] == "counting";
        assert_eq!(counting, hours < 0, "the clock words the reason only");
        server.commit_closed("town", &people, &[0, 2]);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let incomplete = server.aggregate("town").await;
        for hidden in [&early, &incomplete] {
            assert!(!hidden.text.contains("people") && !hidden.text.contains("basis_points"));
            assert!(!hidden.text.contains("final"));
        }
        server.commit_closed("town", &people, &[0, 1, 2]);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let late = server.aggregate("town").await;
        assert_eq!((late.people(), &late.json()["final"]), (1, &serde_json::Value::Bool(true)));
        assert_ne!(late.header("etag"), incomplete.header("etag"));
        let version = |of: &crate::test_server::TestResponse| of.json()["version"].to_string();
        assert!(version(&late) > version(&incomplete) && version(&incomplete) == version(&early));
    }
}

// Closing depends on the wall clock, which a test cannot pause.
#[tokio::test]
async fn a_changed_reason_for_withholding_changes_the_etag() {
    let server = TestServer::new().until_ready().await;
    let closes_at = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(300);
    let closing = Budget {
        results: ResultsVisibility::AfterClose,
        closes_at: Some(closes_at),
        minimum_people: 50,
        revision: 2,
        ..budget("town")
    };
    server.definitions.put(closing);
    server.commit("town", &[(0, [2_500, 7_500])]);
    let early = server.aggregate("town").await;
    assert_eq!(early.json()["withheld"]["reason"], "after_close");
    wait_until("closed", || jiff::Timestamp::now() >= closes_at).await;
    let late = server.aggregate("town").await;
    assert_eq!(late.json()["withheld"]["state"], "counting");
    assert_eq!(late.json()["version"], early.json()["version"]);
    assert_ne!(late.header("etag"), early.header("etag"));
}
