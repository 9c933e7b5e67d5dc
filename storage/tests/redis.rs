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
use schemas::{
    BudgetId, LogNumber, Offset, PartitionId, PartitionTotals, Receipt, SubmissionId, Term,
};
use storage::cache::redis::{RedisCache, RedisConfig};
use storage::cache::{Cache, CacheUpdate};
use storage::idempotency::layered::LayeredIdempotency;
use storage::idempotency::memory::MemoryIdempotency;
use storage::idempotency::redis::RedisIdempotency;
use storage::idempotency::{AttemptOutcome, BeginOutcome, Idempotency, IdempotentSubmission};
use tokio::sync::broadcast::Receiver;
use uuid::Uuid;
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

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_every_attempt_is_first_without_delay() {
    let mut server = Server::running().await;
    let store = RedisIdempotency::connect(&server.config()).await;
    let attempt = IdempotentSubmission {
        budget: new_budget_id(),
        submission: SubmissionId(Uuid::new_v4()),
        digest: 7,
    };
    let attempts = vec![attempt.clone(); 3];
    assert_eq!(
        store.begin(&attempts, Duration::ZERO).await,
        [BeginOutcome::First, BeginOutcome::InFlight, BeginOutcome::InFlight]
    );

    server.kill();
    let all_first = [BeginOutcome::First; 3];
    assert_eq!(store.begin(&attempts, Duration::ZERO).await, all_first);
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(store.begin(&attempts, Duration::ZERO).await, all_first);
    }
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());

    server.start().await;
    let receipt = Receipt { log: LogNumber(2), partition: PartitionId(3), offset: Offset(42) };
    until("receipts are stored again", TEST_TIMEOUT, async || {
        store.finish(&[(attempt.clone(), AttemptOutcome::Accepted(receipt))]).await;
        store.begin(&attempts, Duration::ZERO).await == [BeginOutcome::Repeat(receipt); 3]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_flight_marks_and_receipts_expire() {
    let server = Server::running().await;
    let store = RedisIdempotency::connect(&server.config()).await;
    let attempt = IdempotentSubmission {
        budget: new_budget_id(),
        submission: SubmissionId(Uuid::new_v4()),
        digest: 7,
    };
    let key = schemas::redis::idempotency_key(&attempt.budget, attempt.submission);
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();

    store.begin(std::slice::from_ref(&attempt), Duration::ZERO).await;
    let left_ms: i64 = connection.pttl(&key).await.unwrap();
    assert!((1..=10_000).contains(&left_ms), "{left_ms}");
    store.finish(&[(attempt.clone(), AttemptOutcome::NotAppended)]).await;
    let store = store.with_in_flight(Duration::from_secs(60));
    store.begin(std::slice::from_ref(&attempt), Duration::from_secs(40)).await;
    let left_ms: i64 = connection.pttl(&key).await.unwrap();
    assert!((90_000..=100_000).contains(&left_ms), "{left_ms}");

    let receipt = Receipt { log: LogNumber(2), partition: PartitionId(3), offset: Offset(42) };
    let day_ms = 24 * 60 * 60 * 1_000;
    for outcome in [AttemptOutcome::Unknown, AttemptOutcome::Accepted(receipt)] {
        store.finish(&[(attempt.clone(), outcome)]).await;
        let left_ms: i64 = connection.pttl(&key).await.unwrap();
        assert!((day_ms - 60_000..=day_ms).contains(&left_ms), "{left_ms}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_recognises_its_own_ids_without_redis_and_those_of_others_with_it() {
    let mut server = Server::running().await;
    let config = server.config();
    let process = async || {
        let shared = RedisIdempotency::connect(&config).await;
        LayeredIdempotency::new(MemoryIdempotency::default(), shared)
    };
    let (one, other) = (process().await, process().await);
    let attempt = IdempotentSubmission {
        budget: new_budget_id(),
        submission: SubmissionId(Uuid::new_v4()),
        digest: 7,
    };
    let changed = IdempotentSubmission { digest: 8, ..attempt.clone() };
    let receipt = Receipt { log: LogNumber(2), partition: PartitionId(3), offset: Offset(42) };
    let begin = async |store: &LayeredIdempotency<RedisIdempotency>,
                       attempt: &IdempotentSubmission| {
        store.begin(std::slice::from_ref(attempt), Duration::ZERO).await[0]
    };
    assert_eq!(begin(&one, &attempt).await, BeginOutcome::First);
    assert_eq!(begin(&other, &attempt).await, BeginOutcome::InFlight);
    one.finish(&[(attempt.clone(), AttemptOutcome::Accepted(receipt))]).await;
    assert_eq!(begin(&other, &changed).await, BeginOutcome::Reused);
    assert_eq!(begin(&other, &attempt).await, BeginOutcome::Repeat(receipt));

    // Redis is away, and comes back empty.
    server.kill();
    for restarted in [false, true] {
        if restarted {
            server.start().await;
        }
        for process in [&one, &other] {
            assert_eq!(begin(process, &attempt).await, BeginOutcome::Repeat(receipt));
            assert_eq!(begin(process, &changed).await, BeginOutcome::Reused);
        }
    }
}
