//! A sealed log, its successor, and a log that is unsealed again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use schemas::{BudgetId, LogNumber, LogRef, PartitionCount, partition_for};
use storage::log::kafka::{KafkaConfig, KafkaLogWriter, SEALED_RETRY_TIMEOUT, TopicMigrator};
use storage::log::{AppendError, LogWriter};
use tokio::sync::watch;

use crate::support::{admin, config, open, record, settings_of, until_sealed};

#[tokio::test(flavor = "multi_thread")]
async fn records_rejected_by_a_sealed_log_go_to_its_successor_once_announced() {
    let config = config(2);
    let (first, active_log) = (config.first_log(), watch::Sender::new(None));
    let log =
        Arc::new(KafkaLogWriter::open(&config, &first, active_log.subscribe()).await.unwrap());
    let both = vec![record(0, 2, 1), record(1, 2, 2)];
    assert!(log.append(both.clone()).await.iter().all(Result::is_ok));
    let partitions = PartitionCount::new(3).unwrap();
    let next = LogRef { number: LogNumber(2), topic: format!("{}-2", config.topic), partitions };
    let (migrator, budget) = (TopicMigrator::new(&config), BudgetId::parse("taxes").unwrap());
    migrator.create(&next, &first).await.unwrap();
    assert_eq!(migrator.rejects_appends(&first, &budget).await, Ok(false));
    migrator.seal(&first).await.unwrap();
    until_sealed(&migrator, &first, true).await;
    assert_eq!(migrator.is_sealed(&first).await, Ok(true));

    let started = Instant::now();
    assert_eq!(
        log.append(both.clone()).await,
        [Err(AppendError::Sealed), Err(AppendError::Sealed)]
    );
    let held = started.elapsed();
    assert!(held > SEALED_RETRY_TIMEOUT / 2, "refused after {held:?}");
    assert!(held < SEALED_RETRY_TIMEOUT + Duration::from_millis(500), "refused after {held:?}");
    assert!(log.available().is_ok(), "a sealed log is not unavailable");
    let (writer, records) = (Arc::clone(&log), both.clone());
    let held = tokio::spawn(async move { writer.append(records).await });
    active_log.send_replace(Some(next.clone()));
    for (record, receipt) in both.iter().zip(held.await.unwrap()) {
        let receipt = receipt.unwrap();
        let partition = partition_for(&record.key, partitions);
        assert_eq!((receipt.log, receipt.partition), (LogNumber(2), partition));
    }

    migrator.unseal(&first, Some(&next)).await.unwrap();
    until_sealed(&migrator, &first, false).await;
    assert_eq!(migrator.is_sealed(&first).await, Ok(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn held_records_are_appended_after_the_log_is_unsealed() {
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(2), ..config(1) };
    let first = config.first_log();
    let log =
        Arc::new(KafkaLogWriter::open(&config, &first, watch::channel(None).1).await.unwrap());
    let migrator = TopicMigrator::new(&config);
    migrator.seal(&first).await.unwrap();
    until_sealed(&migrator, &first, true).await;
    let writer = Arc::clone(&log);
    let held = tokio::spawn(async move { writer.append(vec![record(0, 1, 1)]).await.remove(0) });
    // Records are held longer than the delivery timeout.
    tokio::time::sleep(config.delivery_timeout + Duration::from_millis(500)).await;
    assert!(!held.is_finished(), "the records were refused early");
    migrator.unseal(&first, None).await.unwrap();
    let receipt = held.await.unwrap().unwrap();
    assert_eq!(receipt.log, LogNumber::FIRST);
}

async fn settings(config: &KafkaConfig, log: &LogRef) -> BTreeMap<String, String> {
    settings_of(config, &log.topic).await
}

#[tokio::test(flavor = "multi_thread")]
async fn unsealing_restores_settings_and_the_successor_copies_all_but_retention() {
    let config = config(1);
    let first = config.first_log();
    open(&config).await.unwrap();
    let own = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "1073741824"),
        ("max.message.bytes", "2000000"),
        ("segment.bytes", "104857600"),
    ];
    let topic = ResourceSpecifier::Topic(&first.topic);
    let change =
        own.iter().fold(AlterConfig::new(topic), |change, (name, value)| change.set(name, value));
    admin(&config).alter_configs([&change], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let partitions = PartitionCount::new(2).unwrap();
    let next = LogRef { number: LogNumber(2), topic: format!("{}-2", config.topic), partitions };
    let migrator = TopicMigrator::new(&config);
    assert_eq!(migrator.exists(&next).await, Ok(false));
    migrator.create(&next, &first).await.unwrap();
    assert_eq!(migrator.exists(&next).await, Ok(true));
    migrator.seal(&first).await.unwrap();
    until_sealed(&migrator, &first, true).await;
    migrator.unseal(&first, Some(&next)).await.unwrap();
    until_sealed(&migrator, &first, false).await;
    let mut expected: BTreeMap<String, String> =
        own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(settings(&config, &first).await, expected);
    expected.insert("retention.bytes".to_owned(), "-1".to_owned());
    assert_eq!(settings(&config, &next).await, expected);
}
