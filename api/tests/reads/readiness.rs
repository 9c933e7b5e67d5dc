//! When the process says that it can be sent reads.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use storage::late::LateStore;

use crate::fakes::Mode;
use crate::world::*;

fn all(world: &World, mode: Mode) {
    world.cache.switch.set(mode);
    world.store.totals_switch.set(mode);
    world.store.people_switch.set(mode);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_knows_nothing_is_unready_until_some_tier_answers() {
    let world = World::new();
    all(&world, Mode::Fails);
    tokio::time::sleep(Duration::from_secs(10)).await;
    let got = world.get("/readyz").await;
    assert_eq!(got.status, 503);
    assert!(got.text.contains("neither the cache nor the store answers"));
    world.store.totals_switch.set(Mode::Works);
    until("ready", || world.health.is_ready()).await;
}

#[tokio::test(start_paused = true)]
async fn until_definitions_are_read_no_budget_is_said_not_to_exist() {
    let world = World::new();
    world.definitions.loading.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.get("/readyz").await.status, 503);
    for path in ["/v1/budgets", "/v1/budgets/other", "/v1/budgets/other/aggregate"] {
        assert_eq!(world.get(path).await.status, 503, "{path}");
    }
    assert_eq!(world.aggregate("town").await.status, 200);
    world.definitions.loading.store(false, Ordering::SeqCst);
    assert_eq!(world.aggregate("other").await.status, 404);
    until("ready", || world.health.is_ready()).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_with_answers_stays_ready_when_everything_behind_it_is_away() {
    let world = World::new().settled().await;
    all(&world, Mode::Hangs);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.get("/readyz").await.status, 200);
    assert_eq!(world.get("/livez").await.status, 200);
    assert_eq!(world.aggregate("taxes").await.tier(), "stale");
}

#[tokio::test(start_paused = true)]
async fn the_metrics_show_entries_and_the_age_of_what_is_read() {
    let world = World::new().settled().await;
    world.aggregate("town").await;
    all(&world, Mode::Fails);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(world.metric("allocator_api_memory_entries"), 2.0);
    let staleness = world.metric("allocator_api_staleness_seconds");
    assert!((19.0..21.0).contains(&staleness), "{staleness}");
    assert_eq!(world.metric("allocator_api_breaker_state{tier=\"redis\"}"), 2.0);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_at_the_start_is_used_once_it_is_there() {
    let late = Arc::new(LateStore::new());
    let world = World::through(|_| Arc::clone(&late) as _);
    world.commit("town", &[(0, [2_500, 7_500])]);
    let person = "/v1/budgets/town/submissions/p-1";
    let early = world.aggregate("town").await;
    assert_eq!((early.people(), early.tier()), (1, "redis"));
    assert_eq!(world.get(person).await.status, 503);
    late.set(world.store.clone());
    world.cache.switch.set(Mode::Fails);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let got = world.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (1, "summary"));
    assert_eq!(world.get(person).await.status, 404);
}
