//! Topics with settings that break a promise are refused.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use schemas::{PartitionCount, PersonKey};
use storage::log::kafka::{KafkaConfig, TopicError, TopicMigrator};
use storage::log::{AppendError, LogWriter, NewRecord};

use crate::support::{admin, config, open, record, settings_of, storage_config, until_sealed};

#[tokio::test]
async fn a_topic_with_another_partition_count_is_rejected_with_both_counts() {
    let six = config(6);
    open(&six).await.unwrap();
    let twelve = KafkaConfig { partitions: PartitionCount::new(12).unwrap(), ..six.clone() };
    let refused = open(&twelve).await.err();
    assert_eq!(refused, Some(TopicError::Partitions { topic: six.topic, found: 6, expected: 12 }));
}

#[tokio::test]
async fn a_control_topic_with_several_partitions_is_refused_without_advice_to_repartition() {
    let (other, config) = (config(3), config(1));
    open(&other).await.unwrap();
    let refused = open(&KafkaConfig { control_topic: other.topic.clone(), ..config }).await;
    let topic = other.topic;
    assert_eq!(refused.err(), Some(TopicError::AuxiliaryPartitions { topic, found: 3 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_acknowledges_with_fewer_replicas_than_configured_is_refused() {
    let one_replica = config(1);
    open(&one_replica).await.unwrap();
    let three_replicas = KafkaConfig { replication_factor: 3, ..one_replica.clone() };
    let refused = match open(&three_replicas).await {
        Err(TopicError::Durability { found, required, replication_factor, .. }) => {
            Some((found, required, replication_factor))
        }
        _ => None,
    };
    assert_eq!(refused, Some((1, 2, 3)));
    open(&one_replica).await.expect("one replica on purpose");
}

async fn set_max_message_bytes(config: &KafkaConfig, topic: &str, bytes: &str) {
    let resource = ResourceSpecifier::Topic(topic);
    let change = AlterConfig::new(resource).set("max.message.bytes", bytes);
    admin(config).alter_configs([&change], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let changed = async || {
        let deadline = Instant::now() + Duration::from_secs(30);
        while settings_of(config, topic).await.get("max.message.bytes").is_none_or(|it| it != bytes)
        {
            assert!(Instant::now() < deadline, "the setting is not applied");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    changed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_with_a_limit_below_a_batch_is_refused_and_a_sealed_one_is_not() {
    let config = config(1);
    open(&config).await.unwrap();
    let topics = [config.topic.clone(), config.control_topic.clone(), config.dead_letters_topic()];
    for topic in &topics {
        set_max_message_bytes(&config, topic, "999999").await;
        let refused = match open(&config).await {
            Err(error @ TopicError::SmallRecords { .. }) => error.to_string(),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("`{topic}` was accepted"),
        };
        let expected = format!("topic `{topic}` has max.message.bytes=999999, but a batch");
        assert!(refused.starts_with(&expected), "{refused}");
        set_max_message_bytes(&config, topic, "1000000").await;
    }
    open(&config).await.unwrap();
    // Lowered while a process runs, it is found, too, and rejects batches until it is raised.
    let writer = open(&config).await.unwrap();
    let storage = storage_config(&config);
    let refused = async || storage.refused_topic_settings(&config.first_log()).await.unwrap();
    assert_eq!(refused().await, []);
    set_max_message_bytes(&config, &config.topic, "50000").await;
    let found = refused().await;
    let settings: Vec<_> = found.iter().map(TopicError::refused_setting).collect();
    assert_eq!(settings, [Some((config.topic.as_str(), "max.message.bytes"))]);
    let value: Vec<u8> =
        (0..60_000_u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let above = NewRecord { value, ..record(0, 1, 1) };
    let rejected = writer.append(vec![above.clone()]).await;
    assert_eq!(rejected, [Err(AppendError::Sealed)]);
    set_max_message_bytes(&config, &config.topic, "1000000").await;
    assert_eq!(refused().await, []);
    assert!(writer.append(vec![above]).await.iter().all(Result::is_ok));
    // The smallest limit that is accepted takes the largest batches.
    let writer = open(&config).await.unwrap();
    let large = |number: u128| NewRecord {
        key: PersonKey::from_bytes(number.to_be_bytes()),
        value: (0..60_000_u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect(),
    };
    let results = writer.append((0..100).map(large).collect()).await;
    assert!(results.iter().all(Result::is_ok), "{:?}", results.iter().find(|it| it.is_err()));
    // What a repartition has sealed is not taken for a mistake.
    let migrator = TopicMigrator::new(&config);
    migrator.seal(&config.first_log()).await.unwrap();
    until_sealed(&migrator, &config.first_log(), true).await;
    open(&config).await.unwrap();
}
