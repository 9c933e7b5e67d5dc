//! A partition without a leader among others, on librdkafka's mock cluster.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use rdkafka::config::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use schemas::{PartitionCount, Position};
use tokio::runtime::Handle;

use super::*;
use crate::log::{BoundsReader, RecordBatch};

const TOPIC: &str = "submissions";
const PARTITIONS: u32 = 3;
const LEADERLESS: PartitionId = PartitionId(2);

/// Starts each partition once its bounds are known, as the coordinator does.
#[derive(Default)]
struct Owner {
    runtime: Option<Handle>,
    starts: Arc<Mutex<Vec<(PartitionId, StartPosition)>>>,
    waiting: Arc<Mutex<BTreeSet<PartitionId>>>,
    records: Mutex<BTreeMap<PartitionId, u64>>,
    assignments: AtomicU64,
    revocations: AtomicU64,
}

impl Owner {
    fn records(&self, partition: PartitionId) -> u64 {
        self.records.lock().get(&partition).copied().unwrap_or(0)
    }
}

impl PartitionHandler for Owner {
    fn assigned(&self, partitions: &[PartitionId], bounds: &Arc<dyn BoundsReader>) {
        for partition in partitions.iter().copied() {
            self.assignments.fetch_add(1, Ordering::Relaxed);
            self.waiting.lock().insert(partition);
            let (bounds, starts) = (Arc::clone(bounds), Arc::clone(&self.starts));
            let waiting = Arc::clone(&self.waiting);
            self.runtime.as_ref().unwrap().spawn(async move {
                while bounds.bounds(partition).await.is_err() {}
                starts.lock().push((partition, StartPosition::At(Position::START)));
                waiting.lock().remove(&partition);
            });
        }
    }

    fn take_starts(&self) -> Vec<(PartitionId, StartPosition)> {
        std::mem::take(&mut self.starts.lock())
    }

    fn revoked(&self, partitions: &[PartitionId], _: crate::log::Revocation) {
        self.revocations.fetch_add(partitions.len() as u64, Ordering::Relaxed);
    }

    fn deliver(&self, batch: RecordBatch, _: Duration) -> Result<(), RecordBatch> {
        *self.records.lock().entry(batch.partition()).or_default() += batch.len() as u64;
        Ok(())
    }

    fn high_watermark(&self, _: PartitionId, _: Position) {}

    fn read_failed(&self, partition: PartitionId, reason: &str) {
        panic!("partition {partition} could not be read: {reason}");
    }

    fn halt(&self, partition: PartitionId, reason: String) {
        panic!("partition {partition} was halted: {reason}");
    }

    fn committed(&self) -> Vec<(PartitionId, Position)> {
        Vec::new()
    }

    fn wants_to_rejoin(&self) -> bool {
        false
    }
}

fn append(cluster: &MockCluster<'_, DefaultProducerContext>, partition: PartitionId, count: u64) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for _ in 0..count {
        let record = BaseRecord::to(TOPIC).partition(partition.0 as i32).key("k").payload("v");
        producer.send(record).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(40);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 40 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_without_a_leader_is_read_once_it_has_one_and_the_others_at_once() {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS as i32, 1).unwrap();
    append(&cluster, PartitionId(0), 100);
    append(&cluster, LEADERLESS, 100);
    cluster.partition_leader(TOPIC, LEADERLESS.0 as i32, None).unwrap();

    let config = KafkaConfig {
        brokers: cluster.bootstrap_servers(),
        topic: TOPIC.into(),
        control_topic: "definitions".into(),
        partitions: PartitionCount::new(PARTITIONS.into()).unwrap(),
        replication_factor: 1,
        group: "group".into(),
        session_timeout: Duration::from_secs(6),
        delivery_timeout: Duration::from_secs(5),
        linger: Duration::from_millis(1),
    };
    let identity = LogIdentity { cluster_id: "mock".into(), topic_id: String::new() };
    let mut source = KafkaSource { config: config.clone(), identity };
    let owner = Arc::new(Owner { runtime: Some(Handle::current()), ..Owner::default() });
    let stop = CancellationToken::new();
    let (handler, token) = (Arc::clone(&owner), stop.clone());
    let running = std::thread::spawn(move || {
        source.run(&config.first_log(), handler.as_ref(), &token).unwrap();
    });

    until("the others are read", || owner.records(PartitionId(0)) == 100).await;
    append(&cluster, PartitionId(1), 50);
    until("the others are read on", || owner.records(PartitionId(1)) == 50).await;
    assert_eq!(owner.records(LEADERLESS), 0);
    assert!(owner.waiting.lock().contains(&LEADERLESS));

    cluster.partition_leader(TOPIC, LEADERLESS.0 as i32, Some(1)).unwrap();
    until("the partition is read once it has a leader again", || owner.records(LEADERLESS) == 100)
        .await;
    let rebalances =
        (owner.assignments.load(Ordering::Relaxed), owner.revocations.load(Ordering::Relaxed));
    assert_eq!(rebalances, (3, 0), "nothing was left or joined for it");
    stop.cancel();
    running.join().unwrap();
}

#[test]
fn statistics_come_ten_times_a_second_from_few_partitions_and_cost_as_little_of_many() {
    let interval_ms = |count| statistics_interval_ms(PartitionCount::new(count).unwrap());
    assert_eq!([1, 12, 25].map(interval_ms), [100; 3]);
    assert_eq!([100, 1_024].map(interval_ms), [400, 4_096]);
}

#[test]
fn a_log_of_many_partitions_is_fetched_and_described_less_often() {
    let of = |count| {
        let partitions = PartitionCount::new(count).unwrap();
        (fetch_min_bytes(partitions), metadata_interval_ms(partitions))
    };
    assert_eq!([1, 12, 128].map(of), [(1, 100); 3]);
    assert_eq!(of(1_024), (65_536, 512));
}
