//! The read counters of `/metrics`.

use std::time::Duration;

use schemas::PersonId;
use storage::cache::CacheUpdate;

use crate::fakes::{Mode, partitions};
use crate::test_server::*;

/// Returns a tier's counts of hits, misses and stale answers.
fn outcomes(server: &TestServer, tier: &str) -> [u64; 3] {
    ["hit", "miss", "stale"].map(|outcome| {
        let sample = format!("allocator_api_reads_total{{outcome=\"{outcome}\",tier=\"{tier}\"}}");
        server.metric(&sample) as u64
    })
}

fn switch_all(server: &TestServer, mode: Mode) {
    server.cache.switch.set(mode);
    server.store.totals_switch.set(mode);
    server.store.people_switch.set(mode);
}

#[tokio::test(start_paused = true)]
async fn a_read_counts_one_memory_outcome_per_budget() {
    let server = TestServer::new().until_ready().await;
    server.aggregate("town").await;
    assert_eq!(outcomes(&server, "memory"), [0, 1, 0]);
    server.aggregate("town").await;
    assert_eq!(outcomes(&server, "memory"), [1, 1, 0]);
    server.get("/v1/aggregates?budget=town&budget=park&budget=school").await;
    assert_eq!(outcomes(&server, "memory"), [2, 3, 0]);
    switch_all(&server, Mode::Fails);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(server.aggregate("town").await.tier(), "stale");
    assert_eq!(outcomes(&server, "memory"), [2, 3, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_read_without_an_answer_counts_one_miss() {
    let server = TestServer::new();
    switch_all(&server, Mode::Fails);
    assert_eq!(server.aggregate("town").await.status, 503);
    assert_eq!(outcomes(&server, "memory"), [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_read_counts_one_outcome_regardless_of_its_polls() {
    let server = TestServer::new().until_ready().await;
    server.cache.send_update(CacheUpdate::Interrupted);
    let path = "/v1/budgets/town/aggregate?at_least=1.1";
    assert_eq!(server.get_with(path, &[("prefer", "wait=5")]).await.status, 412);
    assert!(server.cache.reads_of("town") > 100);
    assert_eq!(outcomes(&server, "memory"), [0, 1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_read_of_a_person_counts_a_hit_or_a_miss() {
    let server = TestServer::new();
    let key = server.key("town", &PersonId::parse("p-1").unwrap());
    let partition = schemas::partition_for(&key, partitions());
    let path = "/v1/budgets/town/submissions/p-1";
    assert_eq!(server.get(path).await.status, 404);
    assert_eq!(outcomes(&server, "people"), [0, 1, 0]);
    server.store.put_row(partition, row(key, "town", 3, &[0, 10_000]));
    assert_eq!(server.get(path).await.status, 200);
    assert_eq!(outcomes(&server, "people"), [1, 1, 0]);
    let later = format!("{path}?at_least={partition}.9");
    assert_eq!(server.get_with(&later, &[("prefer", "wait=2")]).await.status, 412);
    assert_eq!(outcomes(&server, "people"), [1, 2, 0]);
    server.store.people_switch.set(Mode::Fails);
    assert_eq!(server.get(path).await.status, 503);
    assert_eq!(outcomes(&server, "people"), [1, 2, 0]);
    assert_eq!(server.metric("allocator_api_reads_total{outcome=\"failed\",tier=\"people\"}"), 1.0);
}
