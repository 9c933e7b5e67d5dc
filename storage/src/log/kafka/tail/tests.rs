//! Several partitions that are followed at once, on librdkafka's mock cluster.
#![allow(clippy::unwrap_used)]

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer};
use schemas::PartitionCount;

use super::*;

const TOPIC: &str = "submissions";
const PARTITIONS: u32 = 3;
const TIMEOUT: Duration = Duration::from_secs(40);

fn cluster() -> (MockCluster<'static, DefaultProducerContext>, KafkaTail) {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic(TOPIC, PARTITIONS as i32, 1).unwrap();
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
    let tail = KafkaTail::start(&config, &config.first_log()).unwrap();
    (cluster, tail)
}

fn append(cluster: &MockCluster<'_, DefaultProducerContext>, partition: u32, count: u64) {
    let producer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", cluster.bootstrap_servers()).create().unwrap();
    for _ in 0..count {
        let record = BaseRecord::to(TOPIC).partition(partition as i32).key("k").payload("v");
        producer.send(record).unwrap();
    }
    producer.flush(TIMEOUT).unwrap();
}

/// Receives the records from one position up to another, which must be contiguous.
async fn expect(stream: &mut RecordStream, mut from: u64, to: u64) {
    while from < to {
        let batch = tokio::time::timeout(TIMEOUT, stream.recv()).await.unwrap().unwrap().unwrap();
        for record in batch.iter() {
            assert_eq!(record.offset, Offset(from));
            from += 1;
        }
    }
    assert_eq!(from, to);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_are_followed_together_and_one_whose_receiver_is_behind_holds_up_no_other() {
    let (cluster, tail) = cluster();
    // More than the waiting batches hold.
    append(&cluster, 0, 20_000);
    append(&cluster, 1, 10);
    let mut behind = tail.follow(PartitionId(0), Position(0));
    let mut other = tail.follow(PartitionId(1), Position(4));
    let mut later = tail.follow(PartitionId(2), Position(0));
    expect(&mut other, 4, 10).await;
    for round in 0..5 {
        append(&cluster, 1, 100);
        append(&cluster, 2, 1);
        expect(&mut other, 10 + 100 * round, 110 + 100 * round).await;
        expect(&mut later, round, round + 1).await;
    }
    assert!(behind.len() <= STREAM_CAPACITY);
    expect(&mut behind, 0, 20_000).await;
    append(&cluster, 0, 5);
    expect(&mut behind, 20_000, 20_005).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_is_followed_anew_after_its_stream_was_dropped_and_also_before_that() {
    let (cluster, tail) = cluster();
    append(&cluster, 0, 20);
    let mut former = tail.follow(PartitionId(0), Position(0));
    expect(&mut former, 0, 20).await;
    let mut next = tail.follow(PartitionId(0), Position(7));
    expect(&mut next, 7, 20).await;
    assert!(tokio::time::timeout(TIMEOUT, former.recv()).await.unwrap().is_none());
    drop(next);
    let mut last = tail.follow(PartitionId(0), Position(0));
    expect(&mut last, 0, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_next_record_is_gone_fails_alone() {
    let (cluster, tail) = cluster();
    append(&cluster, 0, 20);
    let mut other = tail.follow(PartitionId(0), Position(0));
    expect(&mut other, 0, 20).await;
    let mut beyond = tail.follow(PartitionId(1), Position(5_000));
    let failed = tokio::time::timeout(TIMEOUT, beyond.recv()).await.unwrap().unwrap();
    assert_eq!(failed.unwrap_err(), ReadError::Missing(Position(5_000)));
    append(&cluster, 0, 5);
    expect(&mut other, 20, 25).await;
}
