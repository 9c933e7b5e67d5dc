//! Writes millions of records directly to the topic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::kafka::Kafka;
use crate::record::{DEFAULT_CATEGORIES, allocation_record, mix, mix_128, partition_of, shares};

/// The budget of all records here.
pub const BUDGET: &str = "taxes";

/// Number of distinct allocations. They are reused with new ids, because generating each would slow the writes down.
const DISTINCT_ALLOCATIONS: u64 = 4_096;

/// The partition, key and value of a record.
pub type RawRecord = (i32, Vec<u8>, Vec<u8>);

/// Generates the record with a number. Every person has one record before any person has two.
pub fn record(number: u64, people: u64, partitions: u32) -> RawRecord {
    let person = if number < people { number } else { mix(number) % people };
    let key = mix_128(person).to_be_bytes().to_vec();
    let value = allocation_record(
        BUDGET,
        mix_128(!number),
        shares(mix(number) % DISTINCT_ALLOCATIONS, DEFAULT_CATEGORIES),
    );
    (partition_of(&key, partitions) as i32, key, value)
}

/// Writes the records with these numbers.
///
/// # Errors
/// When Kafka rejects a record.
pub async fn fill(
    kafka: &Kafka,
    topic: &str,
    partitions: u32,
    numbers: std::ops::Range<u64>,
    people: u64,
) -> Result<()> {
    let (mut client, topic) = (kafka.client(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        client.set("linger.ms", "50").set("queue.buffering.max.messages", "1000000");
        let producer: BaseProducer = client.create()?;
        for number in numbers {
            send(&producer, &topic, &record(number, people, partitions))?;
            if number.is_multiple_of(1_000) {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(Duration::from_secs(120)).context("not everything was acknowledged")
    })
    .await?
}

fn send(producer: &BaseProducer, topic: &str, (partition, key, value): &RawRecord) -> Result<()> {
    let mut record = BaseRecord::to(topic).partition(*partition).key(key).payload(value);
    while let Err((error, back)) = producer.send(record) {
        ensure!(
            error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull),
            "cannot write: {error}"
        );
        producer.poll(Duration::from_millis(1));
        record = back;
    }
    Ok(())
}

/// Writes one record after the other with one producer, as people who go on submitting, until `stop` is set. Returns
/// the number after the last record.
///
/// # Errors
/// When Kafka rejects a record.
pub fn write_until(
    kafka: &Kafka,
    topic: &str,
    first: u64,
    people: u64,
    pause: Duration,
    stop: &AtomicBool,
) -> Result<u64> {
    let producer: BaseProducer = kafka.client().set("linger.ms", "0").create()?;
    let mut next = first;
    while !stop.load(Ordering::Relaxed) {
        send(&producer, topic, &record(next, people, 1))?;
        next += 1;
        producer.poll(Duration::ZERO);
        // The pace of the load, not a wait for something.
        std::thread::sleep(pause);
    }
    producer.flush(Duration::from_secs(120)).context("not everything was acknowledged")?;
    Ok(next)
}

/// Measures a plain idempotent producer that writes these records in a loop: acknowledged records per second.
///
/// # Errors
/// When Kafka rejects a record.
pub async fn produce_plain(
    kafka: &Kafka,
    topic: &str,
    records: Vec<RawRecord>,
    duration: Duration,
) -> Result<f64> {
    let (mut client, topic) = (kafka.client(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("queue.buffering.max.messages", "1000000");
        let producer: BaseProducer = client.create()?;
        let (started, mut written) = (Instant::now(), 0_u64);
        for record in records.iter().cycle() {
            send(&producer, &topic, record)?;
            written += 1;
            if written.is_multiple_of(1_000) {
                producer.poll(Duration::ZERO);
                if started.elapsed() > duration {
                    break;
                }
            }
        }
        producer.flush(Duration::from_secs(60))?;
        Ok(written as f64 / started.elapsed().as_secs_f64())
    })
    .await?
}
