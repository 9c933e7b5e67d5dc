//! Readiness: when the process reports that it can serve reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use storage::config::StoreHandles;
use storage::deferred::DeferredStore;

use crate::fakes::Mode;
use crate::test_server::*;

fn switch_all(server: &TestServer, mode: Mode) {
    server.cache.switch.set(mode);
    server.store.totals_switch.set(mode);
    server.store.people_switch.set(mode);
}

#[tokio::test(start_paused = true)]
async fn a_process_with_empty_memory_is_unready_until_a_tier_answers() {
    let server = TestServer::new();
    switch_all(&server, Mode::Fails);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let got = server.get("/readyz").await;
    assert_eq!(got.status, 503);
    assert!(got.text.contains("neither the cache nor the store is available"));
    server.store.totals_switch.set(Mode::Works);
    wait_until("ready", || server.health.is_ready()).await;
}

#[tokio::test(start_paused = true)]
async fn while_definitions_are_loading_unknown_budgets_are_503_not_404() {
    let server = TestServer::new();
    server.definitions.loading.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.get("/readyz").await.status, 503);
    for path in ["/v1/budgets", "/v1/budgets/other", "/v1/budgets/other/aggregate"] {
        assert_eq!(server.get(path).await.status, 503, "{path}");
    }
    assert_eq!(server.aggregate("town").await.status, 200);
    server.definitions.loading.store(false, Ordering::SeqCst);
    assert_eq!(server.aggregate("other").await.status, 404);
    wait_until("ready", || server.health.is_ready()).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_with_answers_stays_ready_while_every_backend_is_unavailable() {
    let server = TestServer::new().until_ready().await;
    switch_all(&server, Mode::Hangs);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(server.get("/readyz").await.status, 200);
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(server.aggregate("taxes").await.tier(), "stale");
}

#[tokio::test(start_paused = true)]
async fn metrics_show_memory_entries_and_the_age_of_recently_read_answers() {
    let server = TestServer::new().until_ready().await;
    server.aggregate("town").await;
    switch_all(&server, Mode::Fails);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(server.metric("allocator_api_memory_entries"), 2.0);
    let staleness = server.metric("allocator_api_staleness_seconds");
    assert!((19.0..21.0).contains(&staleness), "{staleness}");
    assert_eq!(server.metric("allocator_api_breaker_state{tier=\"redis\"}"), 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_unavailable_at_startup_is_used_once_it_opens() {
    let deferred = Arc::new(DeferredStore::new());
    let server = TestServer::with_store(|_| Arc::clone(&deferred) as _);
    server.commit("town", &[(0, [2_500, 7_500])]);
    let person = "/v1/budgets/town/submissions/p-1";
    let early = server.aggregate("town").await;
    assert_eq!((early.people(), early.tier()), (1, "redis"));
    assert_eq!(server.get(person).await.status, 503);
    deferred.set(StoreHandles { store: server.store.clone(), jobs: server.jobs.clone() });
    server.cache.switch.set(Mode::Fails);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let got = server.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (1, "summary"));
    assert_eq!(server.get(person).await.status, 404);
}
