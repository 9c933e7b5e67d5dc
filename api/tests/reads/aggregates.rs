//! Reads of several budgets at once.

use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::fakes::Mode::Fails;
use crate::test_server::*;

#[tokio::test(start_paused = true)]
async fn several_budgets_are_returned_in_request_order_with_one_cache_read() {
    let server = TestServer::new().until_ready().await;
    server.commit("town", &[(0, [5_000, 5_000])]);
    server.commit("park", &[(1, [1_000, 9_000]), (2, [0, 10_000])]);
    let before = server.cache.reads.load(Ordering::SeqCst);
    let got = server.get("/v1/aggregates?budget=park&budget=town&budget=park").await;
    assert_eq!(server.cache.reads.load(Ordering::SeqCst), before + 1);
    assert_eq!(got.tier(), "redis");
    let body = got.json();
    let of = |field: &str| -> Vec<Value> {
        body["aggregates"].as_array().unwrap().iter().map(|one| one[field].clone()).collect()
    };
    assert_eq!(of("budget"), ["park", "town"]);
    assert_eq!(of("people"), [2, 1]);
    assert_eq!(body["aggregates"][1], server.aggregate("town").await.json());
}

#[tokio::test(start_paused = true)]
async fn several_budgets_cost_one_summary_read_and_one_scan_of_the_rows() {
    let server = TestServer::new().until_ready().await;
    server.commit("town", &[(0, [5_000, 5_000])]);
    server.commit("park", &[(1, [1_000, 9_000])]);
    server.cache.switch.set(Fails);
    let before = server.store.reads.load(Ordering::SeqCst);
    let got = server.get("/v1/aggregates?budget=park&budget=town").await;
    assert_eq!((got.tier(), server.store.reads.load(Ordering::SeqCst)), ("summary", before + 1));

    let server = TestServer::new().until_ready().await;
    server.commit("town", &[(0, [5_000, 5_000])]);
    server.commit("park", &[(1, [1_000, 9_000])]);
    server.cache.switch.set(Fails);
    server.store.totals_switch.set(Fails);
    let before = server.store.scans.load(Ordering::SeqCst);
    let got = server.get("/v1/aggregates?budget=park&budget=town").await;
    let scans = before + 3 * schemas::buckets().count();
    assert_eq!((got.tier(), server.store.scans.load(Ordering::SeqCst)), ("recount", scans));
}

#[tokio::test(start_paused = true)]
async fn only_budgets_missing_in_memory_are_fetched_each_from_the_first_tier_that_has_it() {
    let server = TestServer::new().until_ready().await;
    server.commit("town", &[(0, [5_000, 5_000])]);
    server.commit("park", &[(0, [5_000, 5_000])]);
    server.aggregate("town").await;
    server.cache.put("park", None);
    let got = server.get("/v1/aggregates?budget=town&budget=park&budget=school").await;
    assert_eq!((server.cache.reads_of("town"), server.cache.reads_of("park")), (1, 1));
    // Once, while memory was empty.
    assert_eq!((server.store.reads_of("town"), server.store.reads_of("park")), (1, 1));
    assert_eq!(got.tier(), "summary", "the source is that of the farthest tier");
}

#[tokio::test(start_paused = true)]
async fn the_combined_etag_changes_with_any_budget() {
    let server = TestServer::new();
    let path = "/v1/aggregates?budget=town&budget=park";
    server.commit("town", &[(0, [5_000, 5_000])]);
    let etag = server.get(path).await.header("etag").to_owned();
    let again = server.get_with(path, &[("if-none-match", &etag)]).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    server.commit("park", &[(0, [5_000, 5_000])]);
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let changed = server.get_with(path, &[("if-none-match", &etag)]).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), etag);
}

#[tokio::test(start_paused = true)]
async fn all_unknown_budgets_are_named_and_too_many_budgets_are_refused() {
    let server = TestServer::new();
    let got = server.get("/v1/aggregates?budget=nope&budget=town&budget=N%C3%96").await;
    assert_eq!(got.status, 404);
    assert_eq!(got.json()["detail"], "there is no budget `nope`, `NÖ`");
    let many: Vec<String> = (0..51).map(|n| format!("budget=b{n}")).collect();
    let got = server.get(&format!("/v1/aggregates?{}", many.join("&"))).await;
    assert_eq!((got.status.as_u16(), &got.json()["errors"][0]["pointer"]), (400, &"budget".into()));
    assert_eq!(server.get("/v1/aggregates").await.status, 400);
    assert_eq!(server.get("/v1/aggregates?budget=%FF").await.status, 404);
}
