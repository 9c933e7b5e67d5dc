//! Submission ids in Redis: while it is away or full, after its restart, and after ids have moved to another server.

use std::time::{Duration, Instant};

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use schemas::redis::{former_idempotency_key, idempotency_key};
use schemas::{LogNumber, Offset, PartitionId, RecordAddress, SubmissionId};
use storage::idempotency::layered::LayeredIdempotency;
use storage::idempotency::memory::MemoryIdempotency;
use storage::idempotency::redis::RedisIdempotency;
use storage::idempotency::{AttemptOutcome, BeginOutcome, Idempotency, IdempotentSubmission};
use uuid::Uuid;

use crate::build::{new_budget_id, person};
use crate::redis_server::Server;
use crate::wait::{TEST_TIMEOUT, until};

const RECEIPT: RecordAddress =
    RecordAddress { log: LogNumber(2), partition: PartitionId(3), offset: Offset(42) };
const OTHER_RECEIPT: RecordAddress =
    RecordAddress { log: LogNumber(2), partition: PartitionId(3), offset: Offset(43) };

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
    let store = RedisIdempotency::connect(&server.config()).await;
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
    let store = RedisIdempotency::connect(&server.config()).await;
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
    let store = RedisIdempotency::connect(&server.config()).await;
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
        let shared = RedisIdempotency::connect(&config).await;
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
    let elsewhere =
        RedisIdempotency::connect(&ids.config()).await.with_former(&cache.config()).await;
    let same = RedisIdempotency::connect(&cache.config()).await;
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
