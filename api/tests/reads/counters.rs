//! What `/metrics` says of who answered.

use std::time::Duration;

use schemas::PersonName;
use storage::cache::CacheUpdate;

use crate::fakes::{Mode, id, partitions};
use crate::world::*;

/// The outcomes of a tier: hit, miss, stale.
fn outcomes(world: &World, tier: &str) -> [u64; 3] {
    ["hit", "miss", "stale"].map(|outcome| {
        let sample = format!("allocator_api_reads_total{{outcome=\"{outcome}\",tier=\"{tier}\"}}");
        world.metric(&sample) as u64
    })
}

fn switch_all(world: &World, mode: Mode) {
    world.cache.switch.set(mode);
    world.store.totals_switch.set(mode);
    world.store.people_switch.set(mode);
}

#[tokio::test(start_paused = true)]
async fn a_read_has_one_outcome_of_memory_for_each_budget() {
    let world = World::new().settled().await;
    world.aggregate("town").await;
    assert_eq!(outcomes(&world, "memory"), [0, 1, 0]);
    world.aggregate("town").await;
    assert_eq!(outcomes(&world, "memory"), [1, 1, 0]);
    world.get("/v1/aggregates?budget=town&budget=park&budget=school").await;
    assert_eq!(outcomes(&world, "memory"), [2, 3, 0]);
    switch_all(&world, Mode::Fails);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(world.aggregate("town").await.tier(), "stale");
    assert_eq!(outcomes(&world, "memory"), [2, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_gets_no_answer_is_one_miss() {
    let world = World::new();
    switch_all(&world, Mode::Fails);
    assert_eq!(world.aggregate("town").await.status, 503);
    assert_eq!(outcomes(&world, "memory"), [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_read_that_waits_has_one_outcome_however_often_it_looks() {
    let world = World::new().settled().await;
    world.cache.tell(CacheUpdate::Interrupted);
    let path = "/v1/budgets/town/aggregate?at_least=1.1";
    assert_eq!(world.get_with(path, &[("prefer", "wait=5")]).await.status, 412);
    assert!(world.cache.asked("town") > 100);
    assert_eq!(outcomes(&world, "memory"), [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_persons_allocation_is_a_hit_or_a_miss() {
    let world = World::new();
    let key = world.hasher.key(&id("town"), &PersonName::parse("p-1").unwrap());
    let partition = schemas::partition_for(&key, partitions());
    let path = "/v1/budgets/town/submissions/p-1";
    assert_eq!(world.get(path).await.status, 404);
    assert_eq!(outcomes(&world, "people"), [0, 1, 0]);
    world.store.put_row(partition, row(key, "town", 3, &[0, 10_000]));
    assert_eq!(world.get(path).await.status, 200);
    assert_eq!(outcomes(&world, "people"), [1, 1, 0]);
    let later = format!("{path}?at_least={partition}.9");
    assert_eq!(world.get_with(&later, &[("prefer", "wait=2")]).await.status, 412);
    assert_eq!(outcomes(&world, "people"), [1, 2, 0]);
    world.store.people_switch.set(Mode::Fails);
    assert_eq!(world.get(path).await.status, 503);
    assert_eq!(outcomes(&world, "people"), [1, 2, 0]);
    assert_eq!(world.metric("allocator_api_reads_total{outcome=\"failed\",tier=\"people\"}"), 1.0);
}
