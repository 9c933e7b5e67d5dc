//! When the process says that it can be sent reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use schemas::Generation;
use storage::store::{Store, StoreError};
use tokio_util::sync::CancellationToken;

use crate::fakes::{Mode, id, partitions};
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
    let world = World::new();
    world.commit("town", &[(0, [2_500, 7_500])]);
    let (place, there) = (Arc::clone(&world.store), Arc::new(AtomicBool::new(false)));
    let is_there = Arc::clone(&there);
    let open = move || {
        let (place, is_there) = (Arc::clone(&place), is_there.load(Ordering::SeqCst));
        async move { if is_there { Ok(place as Arc<dyn Store>) } else { Err("away") } }
    };
    let late = api::LateStore::open(open, CancellationToken::new());
    let (generation, town) = (Generation::FIRST, [id("town")]);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let early = late.summaries(generation, partitions(), &town).await;
    assert!(matches!(early, Err(StoreError::Unavailable(_))));
    there.store(true, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let found = late.summaries(generation, partitions(), &town).await;
    assert_eq!(found, Ok(vec![Ok(parts(&[(0, [2_500, 7_500])]))]));
}
