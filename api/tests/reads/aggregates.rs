//! Several budgets at once.

use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::fakes::Mode::Fails;
use crate::world::*;

#[tokio::test(start_paused = true)]
async fn several_budgets_come_in_the_order_asked_by_one_fetch_of_the_cache() {
    let world = World::new().settled().await;
    world.commit("town", &[(0, [5_000, 5_000])]);
    world.commit("park", &[(1, [1_000, 9_000]), (2, [0, 10_000])]);
    let before = world.cache.calls.load(Ordering::SeqCst);
    let got = world.get("/v1/aggregates?budget=park&budget=town&budget=park").await;
    assert_eq!(world.cache.calls.load(Ordering::SeqCst), before + 1);
    assert_eq!(got.tier(), "redis");
    let body = got.json();
    let of = |field: &str| -> Vec<Value> {
        body["aggregates"].as_array().unwrap().iter().map(|one| one[field].clone()).collect()
    };
    assert_eq!(of("budget"), ["park", "town"]);
    assert_eq!(of("people"), [2, 1]);
    assert_eq!(body["aggregates"][1], world.aggregate("town").await.json());
}

#[tokio::test(start_paused = true)]
async fn several_budgets_cost_one_fetch_of_the_summary_and_one_scan_of_the_rows() {
    let world = World::new().settled().await;
    world.commit("town", &[(0, [5_000, 5_000])]);
    world.commit("park", &[(1, [1_000, 9_000])]);
    world.cache.switch.set(Fails);
    let before = world.store.calls.load(Ordering::SeqCst);
    let got = world.get("/v1/aggregates?budget=park&budget=town").await;
    assert_eq!((got.tier(), world.store.calls.load(Ordering::SeqCst)), ("summary", before + 1));

    let world = World::new().settled().await;
    world.commit("town", &[(0, [5_000, 5_000])]);
    world.commit("park", &[(1, [1_000, 9_000])]);
    world.cache.switch.set(Fails);
    world.store.totals_switch.set(Fails);
    let before = world.store.scans.load(Ordering::SeqCst);
    let got = world.get("/v1/aggregates?budget=park&budget=town").await;
    let scans = before + 3 * schemas::buckets().count();
    assert_eq!((got.tier(), world.store.scans.load(Ordering::SeqCst)), ("recount", scans));
}

#[tokio::test(start_paused = true)]
async fn only_what_memory_lacks_is_fetched_and_each_from_the_first_tier_that_has_it() {
    let world = World::new().settled().await;
    world.commit("town", &[(0, [5_000, 5_000])]);
    world.commit("park", &[(0, [5_000, 5_000])]);
    world.aggregate("town").await;
    world.cache.put("park", None);
    let got = world.get("/v1/aggregates?budget=town&budget=park&budget=school").await;
    assert_eq!((world.cache.asked("town"), world.cache.asked("park")), (1, 1));
    // Once, when nothing was known of it yet.
    assert_eq!((world.store.asked("town"), world.store.asked("park")), (1, 1));
    assert_eq!(got.tier(), "summary", "as far as the farthest");
}

#[tokio::test(start_paused = true)]
async fn the_whole_has_an_etag_that_changes_with_any_part() {
    let world = World::new();
    let path = "/v1/aggregates?budget=town&budget=park";
    world.commit("town", &[(0, [5_000, 5_000])]);
    let etag = world.get(path).await.header("etag").to_owned();
    let again = world.get_with(path, &[("if-none-match", &etag)]).await;
    assert_eq!((again.status.as_u16(), again.text.as_str()), (304, ""));
    world.commit("park", &[(0, [5_000, 5_000])]);
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    let changed = world.get_with(path, &[("if-none-match", &etag)]).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), etag);
}

#[tokio::test(start_paused = true)]
async fn all_unknown_budgets_are_named_and_too_many_are_refused() {
    let world = World::new();
    let got = world.get("/v1/aggregates?budget=nope&budget=town&budget=N%C3%96").await;
    assert_eq!(got.status, 404);
    assert_eq!(got.json()["detail"], "there is no budget `nope`, `NÖ`");
    let many: Vec<String> = (0..51).map(|n| format!("budget=b{n}")).collect();
    let got = world.get(&format!("/v1/aggregates?{}", many.join("&"))).await;
    assert_eq!((got.status.as_u16(), &got.json()["errors"][0]["pointer"]), (400, &"budget".into()));
    assert_eq!(world.get("/v1/aggregates").await.status, 400);
    assert_eq!(world.get("/v1/aggregates?budget=%FF").await.status, 404);
}
