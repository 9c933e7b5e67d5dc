//! Submission ids in Redis: while it is away or full, after its restart, and after ids have moved to another server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use runtime::clock::now_ms;
use schemas::redis::{IDS_COMPLETE_SINCE_KEY, former_idempotency_key, idempotency_key};
use schemas::{LogNumber, Offset, PartitionId, RecordAddress, SubmissionId};
use storage::idempotency::layered::LayeredIdempotency;
use storage::idempotency::memory::MemoryIdempotency;
use storage::idempotency::redis::{LogHasRecords, RedisIdempotency};
use storage::idempotency::{AttemptOutcome, BeginOutcome, Idempotency, IdempotentSubmission};
use uuid::Uuid;

use crate::build::{new_budget_id, person};
use crate::redis_server::Server;
use crate::wait::{TEST_TIMEOUT, until};

const RECEIPT: RecordAddress =
    RecordAddress { log: LogNumber(2), partition: PartitionId(3), offset: Offset(42) };
const OTHER_RECEIPT: RecordAddress =
    RecordAddress { log: LogNumber(2), partition: PartitionId(3), offset: Offset(43) };

fn empty_log() -> LogHasRecords {
    Box::new(|| Box::pin(async { Some(false) }))
}

fn new_attempt() -> IdempotentSubmission {
    IdempotentSubmission {
        budget: new_budget_id(),
        person: person(1, 0),
        submission: SubmissionId(Uuid::new_v4()),
        digest: 7,
    }
}

fn with_other_content(attempt: &IdempotentSubmission) -> IdempotentSubmission {
    IdempotentSubmission { digest: 8, ..attempt.clone() }
}

async fn begin_all(
    store: &impl Idempotency,
    attempts: &[IdempotentSubmission],
) -> Vec<BeginOutcome> {
    store.begin(attempts, Duration::ZERO).await
}

async fn begin(store: &impl Idempotency, attempt: &IdempotentSubmission) -> BeginOutcome {
    begin_all(store, std::slice::from_ref(attempt)).await[0]
}

async fn accept(store: &impl Idempotency, attempt: &IdempotentSubmission, receipt: RecordAddress) {
    store.finish(&[(attempt.clone(), AttemptOutcome::Accepted(receipt))]).await;
}

async fn connection(server: &Server) -> MultiplexedConnection {
    let client = redis::Client::open(server.url()).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}

async fn set_max_memory(server: &Server, bytes: u64) {
    let mut connection = connection(server).await;
    let mut command = redis::cmd("CONFIG");
    command.arg("SET").arg("maxmemory-policy").arg("noeviction").arg("maxmemory").arg(bytes);
    let () = command.query_async(&mut connection).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_every_attempt_is_unchecked_without_delay() {
    let mut server = Server::running().await;
    let store = RedisIdempotency::connect(&server.config(), empty_log()).await;
    let attempt = new_attempt();
    let attempts = vec![attempt.clone(); 3];
    assert_eq!(
        begin_all(&store, &attempts).await,
        [BeginOutcome::First, BeginOutcome::InFlight, BeginOutcome::InFlight]
    );

    server.kill();
    let unchecked = [BeginOutcome::Unchecked; 3];
    assert_eq!(begin_all(&store, &attempts).await, unchecked);
    let started = Instant::now();
    for _ in 0..100 {
        assert_eq!(begin_all(&store, &attempts).await, unchecked);
    }
    assert!(started.elapsed() < Duration::from_millis(500), "{:?}", started.elapsed());

    server.start().await;
    until("receipts are stored again", TEST_TIMEOUT, async || {
        accept(&store, &attempt, RECEIPT).await;
        begin_all(&store, &attempts).await == [BeginOutcome::Repeat(RECEIPT); 3]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_still_knows_its_ids_and_leaves_new_ones_unchecked() {
    let server = Server::running().await;
    let store = RedisIdempotency::connect(&server.config(), empty_log()).await;
    let (accepted, in_flight, new) = (new_attempt(), new_attempt(), new_attempt());
    begin_all(&store, &[accepted.clone(), in_flight.clone()]).await;
    accept(&store, &accepted, RECEIPT).await;

    set_max_memory(&server, 1).await;
    let attempts =
        [accepted.clone(), with_other_content(&accepted), in_flight.clone(), new.clone()];
    let expected = [
        BeginOutcome::Repeat(RECEIPT),
        BeginOutcome::Reused,
        BeginOutcome::InFlight,
        BeginOutcome::Unchecked,
    ];
    assert_eq!(begin_all(&store, &attempts).await, expected);
    // What is refused frees its memory, also while the server is full.
    accept(&store, &new, OTHER_RECEIPT).await;
    store.finish(&[(in_flight.clone(), AttemptOutcome::NotAppended)]).await;
    assert_eq!(begin(&store, &in_flight).await, BeginOutcome::Unchecked);

    set_max_memory(&server, 0).await;
    let expected = [BeginOutcome::Repeat(RECEIPT), BeginOutcome::First, BeginOutcome::First];
    assert_eq!(begin_all(&store, &[accepted, in_flight, new]).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_flight_marks_and_receipts_expire() {
    let server = Server::running().await;
    let store = RedisIdempotency::connect(&server.config(), empty_log()).await;
    let attempt = new_attempt();
    let key = idempotency_key(&attempt.budget, &attempt.person, attempt.submission);
    let mut connection = connection(&server).await;

    begin(&store, &attempt).await;
    let left_ms: i64 = connection.pttl(&key).await.unwrap();
    assert!((1..=10_000).contains(&left_ms), "{left_ms}");
    store.finish(&[(attempt.clone(), AttemptOutcome::NotAppended)]).await;
    let store = store.with_in_flight(Duration::from_secs(60));
    store.begin(std::slice::from_ref(&attempt), Duration::from_secs(40)).await;
    let left_ms: i64 = connection.pttl(&key).await.unwrap();
    assert!((90_000..=100_000).contains(&left_ms), "{left_ms}");

    let day_ms = 24 * 60 * 60 * 1_000;
    for outcome in [AttemptOutcome::Unknown, AttemptOutcome::Accepted(RECEIPT)] {
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
        let shared = RedisIdempotency::connect(&config, empty_log()).await;
        LayeredIdempotency::new(MemoryIdempotency::default(), shared)
    };
    let (one, other) = (process().await, process().await);
    let attempt = new_attempt();
    let changed = with_other_content(&attempt);
    assert_eq!(begin(&one, &attempt).await, BeginOutcome::First);
    assert_eq!(begin(&other, &attempt).await, BeginOutcome::InFlight);
    accept(&one, &attempt, RECEIPT).await;
    assert_eq!(begin(&other, &changed).await, BeginOutcome::Reused);
    assert_eq!(begin(&other, &attempt).await, BeginOutcome::Repeat(RECEIPT));

    // Redis is away, and comes back empty.
    server.kill();
    let of_third = new_attempt();
    assert_eq!(begin(&one, &of_third).await, BeginOutcome::Unchecked);
    assert_eq!(begin(&one, &of_third).await, BeginOutcome::InFlight);
    for restarted in [false, true] {
        if restarted {
            server.start().await;
        }
        for process in [&one, &other] {
            assert_eq!(begin(process, &attempt).await, BeginOutcome::Repeat(RECEIPT));
            assert_eq!(begin(process, &changed).await, BeginOutcome::Reused);
        }
    }
}

/// The values as the release before wrote them, in the Redis of the cache and without the person.
#[tokio::test(flavor = "multi_thread")]
async fn ids_of_the_release_before_are_known_on_the_server_where_it_stored_them() {
    let (mut cache, ids) = (Server::running().await, Server::running().await);
    let elsewhere = RedisIdempotency::connect(&ids.config(), empty_log())
        .await
        .with_former(&cache.config())
        .await;
    let same = RedisIdempotency::connect(&cache.config(), empty_log()).await;
    let mut connection = connection(&cache).await;
    for store in [&elsewhere, &same] {
        let [accepted, in_flight, unknown, new] = [(); 4].map(|()| new_attempt());
        for (attempt, value) in [
            (&accepted, format!("0000000000000007 {RECEIPT}")),
            (&in_flight, "0000000000000007".to_owned()),
            (&unknown, "0000000000000007 ?".to_owned()),
        ] {
            let key = former_idempotency_key(&attempt.budget, attempt.submission);
            let () = connection.set(key, value).await.unwrap();
        }
        for _ in 0..2 {
            let attempts = [
                accepted.clone(),
                with_other_content(&accepted),
                in_flight.clone(),
                with_other_content(&unknown),
            ];
            let expected = [
                BeginOutcome::Repeat(RECEIPT),
                BeginOutcome::Reused,
                BeginOutcome::InFlight,
                BeginOutcome::Reused,
            ];
            assert_eq!(begin_all(store, &attempts).await, expected);
        }
        let begun = begin_all(store, &[unknown.clone(), new.clone()]).await;
        assert_eq!(begun, [BeginOutcome::First, BeginOutcome::First]);
        // What is accepted now is stored where ids are now.
        accept(store, &unknown, OTHER_RECEIPT).await;
        assert_eq!(begin(store, &unknown).await, BeginOutcome::Repeat(OTHER_RECEIPT));
        // The former mark has expired.
        let key = former_idempotency_key(&in_flight.budget, in_flight.submission);
        let () = connection.del(key).await.unwrap();
        assert_eq!(begin(store, &in_flight).await, BeginOutcome::First);
    }
    cache.kill();
    assert_eq!(begin(&elsewhere, &new_attempt()).await, BeginOutcome::Unchecked);
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_day_after_redis_has_lost_ids_those_that_it_does_not_know_are_unchecked() {
    let mut server = Server::running().await;
    let log_has_records = Arc::new(AtomicBool::new(false));
    let store = {
        let log_has_records = Arc::clone(&log_has_records);
        let read = move || log_has_records.load(Ordering::Relaxed);
        let read: LogHasRecords = Box::new(move || Box::pin(std::future::ready(Some(read()))));
        RedisIdempotency::connect(&server.config(), read).await
    };
    // Nothing was ever accepted, so nothing can be unknown.
    let attempt = new_attempt();
    assert_eq!(begin(&store, &attempt).await, BeginOutcome::First);
    accept(&store, &attempt, RECEIPT).await;
    log_has_records.store(true, Ordering::Relaxed);
    assert_eq!(begin(&store, &new_attempt()).await, BeginOutcome::First);

    server.kill();
    server.start().await;
    let is_set =
        async || connection(&server).await.exists::<_, bool>(IDS_COMPLETE_SINCE_KEY).await.unwrap();
    until("Redis says again since when it has all ids", TEST_TIMEOUT, async || {
        begin(&store, &new_attempt()).await;
        is_set().await
    })
    .await;
    let changed = with_other_content(&attempt);
    assert_eq!(begin(&store, &changed).await, BeginOutcome::Unchecked);
    assert_eq!(begin(&store, &new_attempt()).await, BeginOutcome::Unchecked);
    // What is accepted from now on is known.
    let next = new_attempt();
    accept(&store, &next, OTHER_RECEIPT).await;
    assert_eq!(begin(&store, &with_other_content(&next)).await, BeginOutcome::Reused);
    // A day later.
    let day_ms = 24 * 60 * 60 * 1_000;
    let () =
        connection(&server).await.set(IDS_COMPLETE_SINCE_KEY, now_ms() - day_ms).await.unwrap();
    assert_eq!(begin(&store, &new_attempt()).await, BeginOutcome::First);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_while_redis_is_full_is_stored_once_it_is_not() {
    let server = Server::running().await;
    let store = RedisIdempotency::connect(&server.config(), empty_log()).await;
    let (attempt, next) = (new_attempt(), new_attempt());
    assert_eq!(begin(&store, &attempt).await, BeginOutcome::First);
    set_max_memory(&server, 1).await;
    accept(&store, &attempt, RECEIPT).await;
    set_max_memory(&server, 0).await;
    accept(&store, &next, OTHER_RECEIPT).await;
    let key = idempotency_key(&attempt.budget, &attempt.person, attempt.submission);
    let stored: String = connection(&server).await.get(key).await.unwrap();
    assert!(stored.ends_with(&RECEIPT.to_string()), "{stored}");
}
