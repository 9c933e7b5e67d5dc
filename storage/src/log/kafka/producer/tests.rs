//! One unresponsive partition among others, on librdkafka's mock cluster.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use tokio::task::JoinHandle;

use super::recovery::{NO_PROBE, PROBE_TIMEOUT};
use super::*;
use crate::log::kafka::test_config::{DELIVERY_TIMEOUT, config};

const TOPIC: &str = "submissions";
/// Not to be reached: the other partition, and refusals.
const AT_ONCE: Duration = Duration::from_millis(400);

/// Two brokers, of which each leads one partition.
fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(2).unwrap();
    cluster.create_topic(TOPIC, 2, 1).unwrap();
    cluster.partition_leader(TOPIC, 0, Some(1)).unwrap();
    cluster.partition_leader(TOPIC, 1, Some(2)).unwrap();
    cluster
}

async fn send(producer: &Arc<IdempotentProducer>, partition: u32) -> Result<Offset, AppendError> {
    let record = Outgoing { partition, key: b"key", value: b"value", headers: None };
    producer.send(std::iter::once(record)).await.remove(0)
}

/// Starts a producer whose connections are up, in both lanes.
async fn started(brokers: String) -> Arc<IdempotentProducer> {
    let producer = IdempotentProducer::start(&config(brokers), TOPIC.into()).unwrap();
    for _ in Lane::ALL {
        for partition in [0, 1] {
            until(async || send(&producer, partition).await.is_ok()).await;
        }
        let current = producer.lanes().current();
        assert!(producer.lanes().leave(current));
        producer.lanes().purged();
    }
    producer
}

/// Appends to the healthy partition until the flag is set. Returns the number of records, and the errors.
fn append_meanwhile(
    producer: &Arc<IdempotentProducer>,
    done: &Arc<AtomicBool>,
) -> JoinHandle<(u64, Vec<(AppendError, Duration)>)> {
    let (producer, done) = (Arc::clone(producer), Arc::clone(done));
    tokio::spawn(async move {
        let (mut appended, mut failed) = (0, Vec::new());
        while !done.load(Ordering::Relaxed) {
            let began = Instant::now();
            match send(&producer, 1).await {
                Ok(_) if began.elapsed() < AT_ONCE => appended += 1,
                Ok(_) => failed.push((AppendError::Unavailable("late".into()), began.elapsed())),
                Err(error) => failed.push((error, began.elapsed())),
            }
        }
        (appended, failed)
    })
}

async fn until(holds: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 30 s");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_leader_fails_its_own_partition_and_no_record_of_another() {
    let cluster = cluster();
    let producer = started(cluster.bootstrap_servers()).await;
    let done = Arc::new(AtomicBool::new(false));
    let others = append_meanwhile(&producer, &done);
    cluster.broker_round_trip_time(1, Duration::from_secs(20)).unwrap();

    // It may be in the log: the broker has it, and does not say so.
    let first = send(&producer, 0).await;
    assert!(matches!(first, Err(AppendError::Unknown(_))), "{first:?}");
    assert_eq!(producer.refused_partitions(), [PartitionId(0)]);
    for _ in 0..20 {
        let began = Instant::now();
        // Not sent: it is certainly not in the log.
        let refused = send(&producer, 0).await;
        assert!(matches!(refused, Err(AppendError::Unavailable(_))), "{refused:?}");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
    assert_eq!(producer.available(), Ok(()));
    // Longer than the purge, and than some probes.
    tokio::time::sleep(3 * DELIVERY_TIMEOUT).await;
    assert_eq!(producer.refused_partitions(), [PartitionId(0)]);

    cluster.broker_round_trip_time(1, Duration::ZERO).unwrap();
    until(async || send(&producer, 0).await.is_ok()).await;
    assert_eq!(producer.refused_partitions(), []);
    done.store(true, Ordering::Relaxed);
    let (appended, failed) = others.await.unwrap();
    assert!(failed.is_empty() && appended > 100, "{appended} appended, {failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_broker_is_down_fails_alone_and_its_waiting_records_are_never_appended() {
    let cluster = cluster();
    let producer = started(cluster.bootstrap_servers()).await;
    let done = Arc::new(AtomicBool::new(false));
    let others = append_meanwhile(&producer, &done);
    let last = send(&producer, 0).await.unwrap();
    cluster.broker_down(1).unwrap();

    let sent = AtomicU64::new(0);
    until(async || {
        sent.fetch_add(1, Ordering::Relaxed);
        send(&producer, 0).await.is_err()
    })
    .await;
    assert_eq!(producer.refused_partitions(), [PartitionId(0)]);
    assert_eq!(producer.available(), Ok(()));
    tokio::time::sleep(3 * DELIVERY_TIMEOUT).await;

    cluster.broker_up(1).unwrap();
    let next = std::cell::Cell::new(None);
    until(async || {
        next.set(send(&producer, 0).await.ok());
        next.get().is_some()
    })
    .await;
    let (next, sent) = (next.get().unwrap().0, sent.load(Ordering::Relaxed));
    assert!(next > last.0 && next <= last.0 + sent + 1, "{next} after {last:?} and {sent} records");
    done.store(true, Ordering::Relaxed);
    let (appended, failed) = others.await.unwrap();
    assert!(failed.is_empty() && appended > 100, "{appended} appended, {failed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_over_two_partitions_says_of_each_record_what_became_of_it() {
    let cluster = cluster();
    let producer = started(cluster.bootstrap_servers()).await;
    cluster.broker_round_trip_time(1, Duration::from_secs(20)).unwrap();
    let record = |partition| Outgoing { partition, key: b"key", value: b"value", headers: None };
    let results = producer.send([0, 1, 0, 1].map(record).into_iter()).await;
    let unknown = |result: &Result<_, _>| matches!(result, Err(AppendError::Unknown(_)));
    assert!(unknown(&results[0]) && unknown(&results[2]), "{results:?}");
    assert!(results[1].is_ok() && results[3].is_ok(), "{results:?}");
    let results = producer.send([0, 1].map(record).into_iter()).await;
    assert!(matches!(results[0], Err(AppendError::Unavailable(_))), "{results:?}");
    assert!(results[1].is_ok(), "{results:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_partitions_are_probed_together() {
    const WIDE: &str = "wide";
    let cluster = cluster();
    cluster.create_topic(WIDE, 9, 1).unwrap();
    (0..8).for_each(|partition| cluster.partition_leader(WIDE, partition, Some(1)).unwrap());
    cluster.partition_leader(WIDE, 8, Some(2)).unwrap();
    let producer =
        IdempotentProducer::start(&config(cluster.bootstrap_servers()), WIDE.into()).unwrap();
    until(async || send(&producer, 8).await.is_ok()).await;
    cluster.broker_round_trip_time(1, Duration::from_secs(60)).unwrap();
    let failed_at = Instant::now() - Duration::from_secs(5);
    (0..9).for_each(|partition| producer.lanes().failed(partition, Lane::First, failed_at));

    let began = Instant::now();
    let prober = Arc::clone(&producer);
    tokio::task::spawn_blocking(move || prober.admit_due(NO_PROBE)).await.unwrap();
    assert!(began.elapsed() < 4 * PROBE_TIMEOUT, "{:?}", began.elapsed());
    assert_eq!(producer.refused_partitions(), (0..8).map(PartitionId).collect::<Vec<_>>());
}
