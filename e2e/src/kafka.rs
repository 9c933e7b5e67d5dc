//! A plain Kafka client: creates and deletes topics, reads and writes records.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::wait::eventually;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// A record of a topic.
#[derive(Debug, Clone)]
pub struct LogRecord {
    /// The partition.
    pub partition: u32,
    /// The offset.
    pub offset: u64,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The headers.
    pub headers: BTreeMap<String, String>,
}

/// A plain client of one cluster.
#[derive(Debug, Clone)]
pub struct Kafka {
    brokers: String,
}

impl Kafka {
    /// Creates a client of the cluster at `brokers`.
    pub fn at(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned() }
    }

    /// The settings that all clients share.
    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>> {
        Ok(self.client().create()?)
    }

    /// Creates a topic and waits until all partitions have a leader.
    ///
    /// # Errors
    /// When the topic exists already, or Kafka is unavailable.
    pub async fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        let admin = self.admin()?;
        let new = NewTopic::new(topic, partitions as i32, TopicReplication::Fixed(1))
            .set("retention.ms", "-1");
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        eventually(&format!("topic {topic} is created"), REQUEST_TIMEOUT, async || {
            for created in admin.create_topics([&new], &options).await? {
                created.map_err(|(topic, code)| anyhow!("topic {topic}: {code}"))?;
            }
            Ok(())
        })
        .await?;
        eventually(&format!("topic {topic} has leaders"), REQUEST_TIMEOUT, async || {
            ensure!(
                self.partitions(topic).await? == partitions,
                "not all partitions have a leader"
            );
            Ok(())
        })
        .await
    }

    /// Creates a topic whose partitions have one replica each, on these brokers, and waits until all have a leader.
    ///
    /// # Errors
    /// When the topic exists already, or Kafka is unavailable.
    pub async fn create_topic_on(
        &self,
        topic: &str,
        brokers: &[i32],
        cleanup_policy: &str,
    ) -> Result<()> {
        let assignment: Vec<&[i32]> = brokers.chunks(1).collect();
        let replication = TopicReplication::Variable(&assignment);
        let new = NewTopic::new(topic, brokers.len() as i32, replication)
            .set("retention.ms", "-1")
            .set("min.insync.replicas", "1")
            .set("cleanup.policy", cleanup_policy);
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        for created in self.admin()?.create_topics([&new], &options).await? {
            created.map_err(|(topic, code)| anyhow!("topic {topic}: {code}"))?;
        }
        eventually(&format!("topic {topic} has leaders"), REQUEST_TIMEOUT, async || {
            let partitions = self.partitions(topic).await?;
            ensure!(partitions == brokers.len() as u32, "{partitions} partitions have a leader");
            Ok(())
        })
        .await
    }

    /// Sets the size of the largest batch that a topic takes, in bytes. With a byte, each append is refused.
    ///
    /// # Errors
    /// When Kafka is unavailable.
    pub async fn set_max_message_bytes(&self, topic: &str, bytes: &str) -> Result<()> {
        let change =
            AlterConfig::new(ResourceSpecifier::Topic(topic)).set("max.message.bytes", bytes);
        for altered in self.admin()?.alter_configs([&change], &AdminOptions::new()).await? {
            altered.map_err(|(_, code)| anyhow!("topic {topic}: {code}"))?;
        }
        Ok(())
    }

    /// Deletes a topic and waits until it does not exist.
    ///
    /// # Errors
    /// When Kafka is unavailable.
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let admin = self.admin()?;
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT));
        for deleted in admin.delete_topics(&[topic], &options).await? {
            match deleted {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => return Err(anyhow!("topic {topic}: {code}")),
            }
        }
        eventually(&format!("topic {topic} is deleted"), REQUEST_TIMEOUT, async || {
            ensure!(self.partitions(topic).await? == 0, "the topic still exists");
            Ok(())
        })
        .await
    }

    /// Deletes the records below an offset in each partition of `lows`, as retention does.
    ///
    /// # Errors
    /// When the records are not deleted.
    pub async fn delete_records_below(&self, topic: &str, lows: &[(u32, u64)]) -> Result<()> {
        let mut offsets = TopicPartitionList::new();
        for (partition, low) in lows {
            offsets.add_partition_offset(topic, *partition as i32, Offset::Offset(*low as i64))?;
        }
        let options = AdminOptions::new()
            .request_timeout(Some(REQUEST_TIMEOUT))
            .operation_timeout(Some(REQUEST_TIMEOUT));
        let deleted = self.admin()?.delete_records(&offsets, &options).await?;
        for partition in deleted.elements() {
            partition.error()?;
            let (number, start) = (partition.partition() as u32, partition.offset());
            let is_wanted =
                |(of, low): &(u32, u64)| *of == number && start == Offset::Offset(*low as i64);
            ensure!(lows.iter().any(is_wanted), "partition {number} starts at {start:?}");
        }
        Ok(())
    }

    /// Deletes the topics whose name satisfies `unwanted`.
    ///
    /// # Errors
    /// When Kafka is unavailable.
    pub async fn delete_topics(&self, unwanted: impl Fn(&str) -> bool) -> Result<()> {
        let client = self.client();
        let topics = tokio::task::spawn_blocking(move || -> Result<Vec<String>> {
            let producer: BaseProducer = client.create()?;
            let metadata = producer.client().fetch_metadata(None, REQUEST_TIMEOUT)?;
            Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect())
        })
        .await??;
        let unwanted: Vec<&str> =
            topics.iter().map(String::as_str).filter(|topic| unwanted(topic)).collect();
        if !unwanted.is_empty() {
            self.admin()?.delete_topics(&unwanted, &AdminOptions::new()).await?;
        }
        Ok(())
    }

    /// Number of partitions with a leader, 0 if the topic does not exist.
    ///
    /// # Errors
    /// When Kafka is unavailable.
    pub async fn partitions(&self, topic: &str) -> Result<u32> {
        let (client, topic) = (self.client(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = client.create()?;
            let metadata = producer.client().fetch_metadata(Some(&topic), REQUEST_TIMEOUT)?;
            let found = metadata.topics().first().context("no such topic")?;
            Ok(found.partitions().iter().filter(|partition| partition.leader() >= 0).count() as u32)
        })
        .await?
    }

    /// The partitions of a topic that have no leader.
    ///
    /// # Errors
    /// When Kafka is unavailable, or the topic does not exist.
    pub async fn leaderless(&self, topic: &str) -> Result<Vec<u32>> {
        let (client, topic) = (self.client(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = client.create()?;
            let metadata = producer.client().fetch_metadata(Some(&topic), REQUEST_TIMEOUT)?;
            let found = metadata.topics().first().context("no such topic")?;
            ensure!(!found.partitions().is_empty(), "no partition of {topic} is known");
            let leaderless = found.partitions().iter().filter(|partition| partition.leader() < 0);
            let mut leaderless: Vec<u32> = leaderless.map(|one| one.id() as u32).collect();
            leaderless.sort_unstable();
            Ok(leaderless)
        })
        .await?
    }

    /// The node id of the broker that leads the most partitions of a topic.
    ///
    /// # Errors
    /// When Kafka is unavailable, or no partition has a leader.
    pub async fn busiest_leader(&self, topic: &str) -> Result<usize> {
        let (client, topic) = (self.client(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = client.create()?;
            let metadata = producer.client().fetch_metadata(Some(&topic), REQUEST_TIMEOUT)?;
            let found = metadata.topics().first().context("no such topic")?;
            let mut led: BTreeMap<usize, u32> = BTreeMap::new();
            for partition in found.partitions() {
                if let Ok(leader) = usize::try_from(partition.leader()) {
                    *led.entry(leader).or_default() += 1;
                }
            }
            let busiest = led.into_iter().max_by_key(|(_, partitions)| *partitions);
            busiest.map(|(broker, _)| broker).context("no partition has a leader")
        })
        .await?
    }

    /// Waits until every partition of a topic has this many replicas in sync.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn wait_until_in_sync(
        &self,
        topic: &str,
        replicas: usize,
        timeout: Duration,
    ) -> Result<()> {
        eventually(&format!("{topic} has {replicas} replicas in sync"), timeout, async || {
            let (client, topic) = (self.client(), topic.to_owned());
            tokio::task::spawn_blocking(move || {
                let producer: BaseProducer = client.create()?;
                let metadata = producer.client().fetch_metadata(Some(&topic), REQUEST_TIMEOUT)?;
                let found = metadata.topics().first().context("no such topic")?;
                let fewest = found.partitions().iter().map(|partition| partition.isr().len()).min();
                ensure!(fewest == Some(replicas), "the fewest replicas in sync are {fewest:?}");
                Ok(())
            })
            .await?
        })
        .await
    }

    /// Reads all records of a topic, ordered by partition and offset.
    ///
    /// # Errors
    /// When the topic cannot be read to its end.
    pub async fn read(&self, topic: &str) -> Result<Vec<LogRecord>> {
        let (client, topic) = (self.client(), topic.to_owned());
        tokio::task::spawn_blocking(move || read(client, &topic)).await?
    }

    /// The end offset of each partition of a topic.
    ///
    /// # Errors
    /// When Kafka is unavailable.
    pub async fn ends(&self, topic: &str) -> Result<Vec<u64>> {
        let (client, topic) = (self.client(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let consumer: BaseConsumer = client.create()?;
            ends(&consumer, &topic)
        })
        .await?
    }

    /// Writes records in order, as any other program could, and waits until all are acknowledged.
    ///
    /// # Errors
    /// When a record is not acknowledged.
    pub async fn write(&self, topic: &str, records: Vec<(u32, Vec<u8>, Vec<u8>)>) -> Result<()> {
        let (mut client, topic) = (self.client(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            let producer: BaseProducer = client
                .set("enable.idempotence", "true")
                .set("queue.buffering.max.messages", "1000000")
                .create()?;
            for (partition, key, value) in &records {
                let mut record =
                    BaseRecord::to(&topic).partition(*partition as i32).key(key).payload(value);
                while let Err((error, back)) = producer.send(record) {
                    let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    ensure!(full, "cannot write to {topic}: {error}");
                    producer.poll(Duration::from_millis(10));
                    record = back;
                }
            }
            producer.flush(REQUEST_TIMEOUT)?;
            Ok(())
        })
        .await?
    }
}

fn ends(consumer: &BaseConsumer, topic: &str) -> Result<Vec<u64>> {
    let metadata = consumer.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
    (0..partitions)
        .map(|partition| {
            let (_, high) = consumer.fetch_watermarks(topic, partition as i32, REQUEST_TIMEOUT)?;
            Ok(high.max(0) as u64)
        })
        .collect()
}

fn read(mut client: ClientConfig, topic: &str) -> Result<Vec<LogRecord>> {
    let consumer: BaseConsumer = client
        .set("group.id", "e2e-readers")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("enable.partition.eof", "true")
        .create()?;
    let mut unread = ends(&consumer, topic)?.len();
    let mut records: Vec<Vec<LogRecord>> = vec![Vec::new(); unread];
    let mut assignment = TopicPartitionList::new();
    for partition in 0..unread {
        assignment.add_partition_offset(topic, partition as i32, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let deadline = Instant::now() + Duration::from_secs(60);
    while unread > 0 {
        ensure!(Instant::now() < deadline, "{topic} cannot be read to its end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let partition = records.get_mut(message.partition() as usize);
                partition.context("unknown partition")?.push(log_record(&message));
            }
            Some(Err(KafkaError::PartitionEOF(_))) => unread -= 1,
            Some(Err(KafkaError::MessageConsumption(code))) => bail!("cannot read {topic}: {code}"),
            _ => {}
        }
    }
    Ok(records.concat())
}

fn log_record(message: &impl Message) -> LogRecord {
    let headers = message.headers().into_iter().flat_map(Headers::iter).map(|header| {
        let value = String::from_utf8_lossy(header.value.unwrap_or_default());
        (header.key.to_owned(), value.into_owned())
    });
    LogRecord {
        partition: message.partition() as u32,
        offset: message.offset() as u64,
        key: message.key().unwrap_or_default().to_vec(),
        value: message.payload().unwrap_or_default().to_vec(),
        headers: headers.collect(),
    }
}
