//! Millions of records: written directly in the record's format, and read by a bare consumer.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::kafka::Kafka;
use crate::record::{DEFAULT_CATEGORIES, allocation_record, mix, mix_128, partition_of, shares};

/// The budget of all records here.
pub const BUDGET: &str = "taxes";

/// Different submissions that are written again and again under ids of their own: making each from nothing would make
/// the writing slow.
const KINDS: u64 = 4_096;

/// One record: its partition, key and value.
pub type Written = (i32, Vec<u8>, Vec<u8>);

/// So many records of so many people, everyone once before anybody speaks again. `number` counts records.
pub fn record(number: u64, people: u64, partitions: u32) -> Written {
    let person = if number < people { number } else { mix(number) % people };
    let key = mix_128(person).to_be_bytes().to_vec();
    let value = allocation_record(
        BUDGET,
        mix_128(!number),
        shares(mix(number) % KINDS, DEFAULT_CATEGORIES),
    );
    (partition_of(&key, partitions) as i32, key, value)
}

/// Writes records `from..to` of so many people.
///
/// # Errors
/// When Kafka does not take them.
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

fn send(producer: &BaseProducer, topic: &str, (partition, key, value): &Written) -> Result<()> {
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

/// Records a second that a bare idempotent producer gets acknowledged when it writes these, again and again.
///
/// # Errors
/// When Kafka does not take them.
pub async fn produce_bare(
    kafka: &Kafka,
    topic: &str,
    records: Vec<Written>,
    lasts: Duration,
) -> Result<f64> {
    let (mut client, topic) = (kafka.client(), topic.to_owned());
    tokio::task::spawn_blocking(move || {
        client
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("queue.buffering.max.messages", "1000000");
        let producer: BaseProducer = client.create()?;
        let (began, mut written) = (Instant::now(), 0_u64);
        for record in records.iter().cycle() {
            send(&producer, &topic, record)?;
            written += 1;
            if written.is_multiple_of(1_000) {
                producer.poll(Duration::ZERO);
                if began.elapsed() > lasts {
                    break;
                }
            }
        }
        producer.flush(Duration::from_secs(60))?;
        Ok(written as f64 / began.elapsed().as_secs_f64())
    })
    .await?
}

/// Records a second that a bare consumer reads from a whole topic of so many records.
///
/// # Errors
/// When they are not there.
pub async fn consume_bare(kafka: &Kafka, topic: &str, partitions: u32, count: u64) -> Result<f64> {
    let (client, topic) = (kafka.client(), topic.to_owned());
    tokio::task::spawn_blocking(move || count_records(client, &topic, partitions, count)).await?
}

fn count_records(
    mut client: ClientConfig,
    topic: &str,
    partitions: u32,
    count: u64,
) -> Result<f64> {
    let consumer: BaseConsumer =
        client.set("group.id", "e2e-bare").set("enable.auto.commit", "false").create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..partitions {
        all.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
    }
    let began = Instant::now();
    consumer.assign(&all)?;
    let mut seen = 0;
    while seen < count {
        match consumer.poll(Duration::from_secs(10)) {
            Some(Ok(_)) => seen += 1,
            Some(Err(error)) => bail!("cannot read {topic}: {error}"),
            None => bail!("{topic} has only {seen} records"),
        }
    }
    Ok(count as f64 / began.elapsed().as_secs_f64())
}
