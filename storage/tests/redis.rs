//! What only the Redis adapters must hold: how they behave while Redis is away, hangs, or comes back empty. Each test
//! starts a `redis-server` of its own, which `local/up servers` installs.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

// The contract suites' builders, of which these tests need a few.
#[allow(dead_code)]
#[path = "contract/build.rs"]
mod build;
#[path = "contract/wait.rs"]
mod wait;

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use build::{count, new_budget_id, totals};
use redis::AsyncCommands;
use schemas::redis::aggregate_key;
use schemas::{
    BudgetId, LogNumber, Offset, PartitionId, PartitionTotals, Receipt, SubmissionId, Term,
};
use storage::cache::redis::{RedisCache, RedisConfig};
use storage::cache::{Cache, CacheUpdate};
use storage::idempotency::redis::RedisIdempotency;
use storage::idempotency::{Attempt, Begun, Idempotency};
use tempfile::TempDir;
use tokio::sync::broadcast::Receiver;
use uuid::Uuid;
use wait::{PATIENCE, until};

/// Long enough for a busy machine, and far from the 5 ms that a call may take while Redis is away.
const CALL_TIMEOUT: Duration = Duration::from_secs(1);

const PORT: u16 = 6379;

/// A Redis of our own, ended with the test.
struct Server {
    /// Of the loopback, and nobody else's: no port to agree on.
    address: Ipv4Addr,
    password: Option<&'static str>,
    dir: TempDir,
    child: Option<Child>,
}

impl Server {
    /// One that does not run yet.
    fn absent() -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(1);
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, high | 0x80, low, NEXT.fetch_add(1, Ordering::Relaxed));
        Self { address, password: None, dir: tempfile::tempdir().unwrap(), child: None }
    }

    async fn running() -> Self {
        let mut server = Self::absent();
        server.start().await;
        server
    }

    fn url(&self) -> String {
        let login = self.password.map(|password| format!(":{password}@")).unwrap_or_default();
        format!("redis://{login}{}:{PORT}", self.address)
    }

    fn config(&self) -> RedisConfig {
        RedisConfig { url: self.url().parse().unwrap(), timeout: CALL_TIMEOUT }
    }

    /// Starts it with nothing in it.
    async fn start(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", &self.address.to_string(), "--port", &PORT.to_string()]);
        command.args(["--save", "", "--appendonly", "no"]).arg("--dir").arg(self.dir.path());
        command.args(self.password.map(|password| ["--requirepass", password]).iter().flatten());
        let child = command.stdout(Stdio::null()).spawn();
        self.child = Some(child.expect("no redis-server: `local/up servers` installs it"));
        let client = redis::Client::open(self.url()).unwrap();
        until("redis-server answers", PATIENCE, async || {
            client.get_multiplexed_async_connection().await.is_ok()
        })
        .await;
    }

    fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn signal(&self, signal: &str) {
        let child = self.child.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &child]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Publishes the only partition.
async fn publish(cache: &RedisCache, budget: &BudgetId, position: u64) -> bool {
    let part = PartitionTotals {
        term: Term::FIRST,
        partition: PartitionId(0),
        totals: totals(position, position, 2),
    };
    cache.publish(budget, count(1), &[part]).await.is_ok()
}

/// The people counted, if Redis answers.
async fn people(cache: &RedisCache, budget: &BudgetId) -> Result<Option<u64>, String> {
    let answer = cache.read(std::slice::from_ref(budget)).await;
    let mut aggregates = answer.map_err(|error| error.to_string())?;
    Ok(aggregates.remove(0).map(|aggregate| aggregate.people))
}

async fn heard(news: &mut Receiver<CacheUpdate>) -> CacheUpdate {
    tokio::time::timeout(PATIENCE, news.recv()).await.expect("no news").unwrap()
}

/// Asserts that calls fail, and at once: 5 ms each on average, so that a busy machine does not decide.
async fn fails_at_once(cache: &RedisCache, budget: &BudgetId) {
    let begun = Instant::now();
    for _ in 0..100 {
        assert!(people(cache, budget).await.is_err());
    }
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_at_start_is_used_once_it_is_there() {
    let mut server = Server::absent();
    let cache = RedisCache::connect(&server.config()).await;
    let mut news = cache.subscribe();
    let budget = new_budget_id();
    fails_at_once(&cache, &budget).await;
    assert_eq!(heard(&mut news).await, CacheUpdate::Interrupted);

    server.start().await;
    assert_eq!(heard(&mut news).await, CacheUpdate::Resumed);
    until("a publication is taken", PATIENCE, async || publish(&cache, &budget, 7).await).await;
    assert_eq!(people(&cache, &budget).await, Ok(Some(7)));
    assert_eq!(heard(&mut news).await, CacheUpdate::Moved(budget));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_comes_back_empty_is_told_again() {
    let mut server = Server::running().await;
    let cache = RedisCache::connect(&server.config()).await;
    let mut news = cache.subscribe();
    let budget = new_budget_id();
    assert!(publish(&cache, &budget, 7).await);
    assert_eq!(heard(&mut news).await, CacheUpdate::Moved(budget.clone()));

    server.kill();
    assert_eq!(heard(&mut news).await, CacheUpdate::Interrupted);
    assert!(people(&cache, &budget).await.is_err());
    fails_at_once(&cache, &budget).await;

    server.start().await;
    assert_eq!(heard(&mut news).await, CacheUpdate::Resumed);
    until("reads are answered", PATIENCE, async || people(&cache, &budget).await.is_ok()).await;
    assert_eq!(people(&cache, &budget).await, Ok(None));
    // It does not know the script either.
    assert!(publish(&cache, &budget, 8).await);
    assert_eq!(people(&cache, &budget).await, Ok(Some(8)));
    assert_eq!(heard(&mut news).await, CacheUpdate::Moved(budget));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_hangs_costs_one_timeout_and_no_more() {
    let server = Server::running().await;
    let cache = RedisCache::connect(&server.config()).await;
    let mut news = cache.subscribe();
    let budget = new_budget_id();
    assert!(publish(&cache, &budget, 7).await);
    assert_eq!(heard(&mut news).await, CacheUpdate::Moved(budget.clone()));

    server.signal("-STOP");
    let begun = Instant::now();
    assert!(people(&cache, &budget).await.is_err());
    assert!(begun.elapsed() >= CALL_TIMEOUT && begun.elapsed() < 5 * CALL_TIMEOUT);
    fails_at_once(&cache, &budget).await;
    assert_eq!(heard(&mut news).await, CacheUpdate::Interrupted);

    server.signal("-CONT");
    assert_eq!(heard(&mut news).await, CacheUpdate::Resumed);
    until("reads are answered", PATIENCE, async || people(&cache, &budget).await == Ok(Some(7)))
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
        let answers = cache.read(&[damaged.clone(), sound.clone()]).await.unwrap();
        let people: Vec<_> = answers.iter().map(|a| a.as_ref().map(|a| a.people)).collect();
        assert_eq!(people, [None, Some(8)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_opens_and_is_in_no_error() {
    let mut server = Server::absent();
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
async fn without_redis_every_attempt_is_the_first_and_at_once() {
    let mut server = Server::running().await;
    let memory = RedisIdempotency::connect(&server.config()).await;
    let attempt =
        Attempt { budget: new_budget_id(), submission: SubmissionId(Uuid::new_v4()), digest: 7 };
    let attempts = vec![attempt.clone(); 3];
    assert_eq!(memory.begin(&attempts).await, [Begun::First, Begun::InFlight, Begun::InFlight]);

    server.kill();
    let all_first = [Begun::First; 3];
    assert_eq!(memory.begin(&attempts).await, all_first);
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(memory.begin(&attempts).await, all_first);
    }
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());

    server.start().await;
    let receipt = Receipt { log: LogNumber(2), partition: PartitionId(3), offset: Offset(42) };
    until("receipts are remembered again", PATIENCE, async || {
        memory.finish(&[(attempt.clone(), Some(receipt))]).await;
        memory.begin(&attempts).await == [Begun::Repeat(receipt); 3]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn marks_in_flight_and_receipts_expire() {
    let server = Server::running().await;
    let memory = RedisIdempotency::connect(&server.config()).await;
    let attempt =
        Attempt { budget: new_budget_id(), submission: SubmissionId(Uuid::new_v4()), digest: 7 };
    let key = schemas::redis::idempotency_key(&attempt.budget, attempt.submission);
    let client = redis::Client::open(server.url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();

    memory.begin(std::slice::from_ref(&attempt)).await;
    let left_ms: i64 = connection.pttl(&key).await.unwrap();
    assert!((1..=10_000).contains(&left_ms), "{left_ms}");

    let receipt = Receipt { log: LogNumber(2), partition: PartitionId(3), offset: Offset(42) };
    memory.finish(&[(attempt, Some(receipt))]).await;
    let left_ms: i64 = connection.pttl(&key).await.unwrap();
    let day_ms = 24 * 60 * 60 * 1_000;
    assert!((day_ms - 60_000..=day_ms).contains(&left_ms), "{left_ms}");
}
