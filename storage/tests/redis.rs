//! Properties of the Redis adapters only: the sum of all partitions, and their behaviour while Redis is down, hangs, or
//! restarts empty. Each test starts its own `redis-server`, which `local/up servers` installs.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

// The contract suites' builders, of which only some are used here.
#[allow(dead_code)]
#[path = "contract/build.rs"]
mod build;
#[allow(dead_code, unused_macros, unused_imports)]
#[path = "contract/one_time_codes.rs"]
mod one_time_codes;
mod redis_codes;
mod redis_ids;
mod redis_limits;
mod redis_server;
mod redis_sum;
#[path = "contract/wait.rs"]
mod wait;

use std::time::{Duration, Instant};

use build::{count, new_budget_id, totals};
use redis::AsyncCommands;
use redis_server::{CALL_TIMEOUT, PORT, Server};
use schemas::redis::aggregate_key;
use schemas::{BudgetId, PartitionId, PartitionTotals, Term};
use storage::cache::redis::{RedisCache, RedisConfig};
use storage::cache::{Cache, CacheUpdate};
use tokio::sync::broadcast::Receiver;
use wait::{TEST_TIMEOUT, until};

/// Publishes totals of the only partition, and returns whether it succeeded.
async fn publish(cache: &RedisCache, budget: &BudgetId, position: u64) -> bool {
    let part = PartitionTotals {
        term: Term::FIRST,
        partition: PartitionId(0),
        totals: totals(position, position, 2),
    };
    cache.publish(budget, count(1), &[part]).await.is_ok()
}

/// Reads the number of people.
async fn people(cache: &RedisCache, budget: &BudgetId) -> Result<Option<u64>, String> {
    let answer = cache.read(std::slice::from_ref(budget)).await;
    let mut aggregates = answer.map_err(|error| error.to_string())?;
    Ok(aggregates.remove(0).map(|aggregate| aggregate.people))
}

async fn next_update(updates: &mut Receiver<CacheUpdate>) -> CacheUpdate {
    tokio::time::timeout(TEST_TIMEOUT, updates.recv()).await.expect("no update").unwrap()
}

/// Asserts that calls fail at once: within 5 ms on average, to tolerate a busy machine.
async fn assert_fails_at_once(cache: &RedisCache, budget: &BudgetId) {
    let started = Instant::now();
    for _ in 0..100 {
        assert!(people(cache, budget).await.is_err());
    }
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_is_down_at_startup_is_used_once_it_is_up() {
    let mut server = Server::stopped();
    let cache = RedisCache::connect(&server.config()).await;
    let mut updates = cache.subscribe();
    let budget = new_budget_id();
    assert_fails_at_once(&cache, &budget).await;
    assert_eq!(next_update(&mut updates).await, CacheUpdate::Interrupted);

    server.start().await;
    assert_eq!(next_update(&mut updates).await, CacheUpdate::Resumed);
    until("a publication succeeds", TEST_TIMEOUT, async || publish(&cache, &budget, 7).await).await;
    assert_eq!(people(&cache, &budget).await, Ok(Some(7)));
    assert_eq!(next_update(&mut updates).await, CacheUpdate::Changed(budget));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_restarts_empty_accepts_publications_again() {
    let mut server = Server::running().await;
    let cache = RedisCache::connect(&server.config()).await;
    let mut updates = cache.subscribe();
    let budget = new_budget_id();
    assert!(publish(&cache, &budget, 7).await);
    assert_eq!(next_update(&mut updates).await, CacheUpdate::Changed(budget.clone()));

    server.kill();
    assert_eq!(next_update(&mut updates).await, CacheUpdate::Interrupted);
    assert!(people(&cache, &budget).await.is_err());
    assert_fails_at_once(&cache, &budget).await;

    server.start().await;
    assert_eq!(next_update(&mut updates).await, CacheUpdate::Resumed);
    until("reads succeed", TEST_TIMEOUT, async || people(&cache, &budget).await.is_ok()).await;
    assert_eq!(people(&cache, &budget).await, Ok(None));
    // The restarted server does not know the script either.
    assert!(publish(&cache, &budget, 8).await);
    assert_eq!(people(&cache, &budget).await, Ok(Some(8)));
    assert_eq!(next_update(&mut updates).await, CacheUpdate::Changed(budget));
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_that_hangs_costs_one_timeout_only() {
    let server = Server::running().await;
    let cache = RedisCache::connect(&server.config()).await;
    let mut updates = cache.subscribe();
    let budget = new_budget_id();
    assert!(publish(&cache, &budget, 7).await);
    assert_eq!(next_update(&mut updates).await, CacheUpdate::Changed(budget.clone()));

    server.signal("-STOP");
    let started = Instant::now();
    assert!(people(&cache, &budget).await.is_err());
    assert!(started.elapsed() >= CALL_TIMEOUT && started.elapsed() < 5 * CALL_TIMEOUT);
    assert_fails_at_once(&cache, &budget).await;
    assert_eq!(next_update(&mut updates).await, CacheUpdate::Interrupted);

    server.signal("-CONT");
    assert_eq!(next_update(&mut updates).await, CacheUpdate::Resumed);
    until("reads succeed", TEST_TIMEOUT, async || people(&cache, &budget).await == Ok(Some(7)))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_aggregate_is_a_miss() {
    let server = Server::running().await;
    let cache = RedisCache::connect(&server.config()).await;
    let (damaged, sound) = (new_budget_id(), new_budget_id());
    assert!(publish(&cache, &damaged, 7).await && publish(&cache, &sound, 8).await);
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for damage in [&b"{}"[..], b"\xff\x00", b"{\"generation\":1", b""] {
        let () = connection.set(aggregate_key(&damaged), damage).await.unwrap();
        let aggregates = cache.read(&[damaged.clone(), sound.clone()]).await.unwrap();
        let people: Vec<_> = aggregates.iter().map(|a| a.as_ref().map(|a| a.people)).collect();
        assert_eq!(people, [None, Some(8)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_password_is_used_and_appears_in_no_error() {
    let mut server = Server::stopped();
    server.password = Some("secret-word");
    server.start().await;
    let cache = RedisCache::connect(&server.config()).await;
    let budget = new_budget_id();
    assert!(publish(&cache, &budget, 7).await);

    let wrong = format!("redis://:other-secret@{}:{PORT}", server.address);
    let config = RedisConfig { url: wrong.parse().unwrap(), timeout: CALL_TIMEOUT };
    let error = people(&RedisCache::connect(&config).await, &budget).await.unwrap_err();
    assert!(!error.contains("other-secret"), "{error}");
}
