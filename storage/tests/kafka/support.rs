//! A deployment of its own on the Kafka of the tests.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use runtime::config::Settings;
use schemas::{BudgetId, LogRef, PartitionCount, PartitionId, PersonKey, partition_for};
use storage::config::StorageConfig;
use storage::log::NewRecord;
use storage::log::kafka::{KafkaConfig, KafkaLogWriter, TopicError, TopicMigrator};
use tokio::sync::watch;

pub fn config(partitions: u64) -> KafkaConfig {
    let brokers = std::env::var("KAFKA_BROKERS")
        .expect("KAFKA_BROKERS is not set: start the servers with `local/up servers` and source `local/env`");
    let unique = uuid::Uuid::new_v4().simple().to_string();
    KafkaConfig {
        brokers,
        topic: format!("t{unique}"),
        control_topic: format!("d{unique}"),
        partitions: PartitionCount::new(partitions).unwrap(),
        replication_factor: 1,
        group: format!("g{unique}"),
        // Longer than these tests wait: a member that does not leave its group fails them.
        session_timeout: Duration::from_secs(45),
        delivery_timeout: Duration::from_secs(5),
        linger: Duration::from_millis(1),
    }
}

/// Builds a record that belongs to a partition.
pub fn record(partition: u32, partitions: u32, value: u32) -> NewRecord {
    let count = PartitionCount::new(partitions.into()).unwrap();
    let mut keys = (0_u128..).map(|number| PersonKey::from_bytes(number.to_be_bytes()));
    let key = keys.find(|key| partition_for(key, count) == PartitionId(partition)).unwrap();
    NewRecord { key, value: value.to_le_bytes().to_vec() }
}

pub async fn open(config: &KafkaConfig) -> Result<KafkaLogWriter, TopicError> {
    KafkaLogWriter::open(config, &config.first_log(), watch::channel(None).1).await
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Reads the settings that were set for a topic itself.
pub async fn settings_of(config: &KafkaConfig, topic: &str) -> BTreeMap<String, String> {
    let client: AdminClient<_> = admin(config);
    let topic = ResourceSpecifier::Topic(topic);
    let mut described = client.describe_configs(&[topic], &AdminOptions::new()).await.unwrap();
    let entries = described.remove(0).unwrap().entries.into_iter();
    let own = entries.filter(|entry| entry.source == ConfigSource::DynamicTopic);
    own.map(|entry| (entry.name, entry.value.unwrap_or_default())).collect()
}

pub fn admin(config: &KafkaConfig) -> AdminClient<DefaultClientContext> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.brokers).create().unwrap()
}

/// Waits until all brokers reject appends, or accept them.
pub async fn until_sealed(migrator: &TopicMigrator, log: &LogRef, sealed: bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let budget = BudgetId::parse("taxes").unwrap();
    while migrator.rejects_appends(log, &budget).await != Ok(sealed) {
        assert!(Instant::now() < deadline, "not within 30 s: sealed is {sealed}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The storage settings of a deployment on these topics.
pub fn storage_config(config: &KafkaConfig) -> StorageConfig {
    let pairs = [
        ("kafka.brokers", config.brokers.clone()),
        ("kafka.topic", config.topic.clone()),
        ("kafka.definitions_topic", config.control_topic.clone()),
        ("log.partitions", config.partitions.get().to_string()),
    ];
    let settings = Settings::from_pairs(pairs.map(|(key, value)| (key.to_owned(), value)));
    StorageConfig::read_shared(&mut settings.reader()).unwrap()
}
