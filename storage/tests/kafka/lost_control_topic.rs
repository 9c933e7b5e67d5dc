//! A control topic that was lost, where the log has records.

use rdkafka::admin::AdminOptions;
use schemas::{LogNumber, LogRef, PartitionCount, PersonSecret};
use storage::log::LogWriter;
use storage::log::kafka::{KafkaLogWriter, TopicMigrator};
use tokio::sync::watch;

use crate::support::{admin, config, open, record, storage_config, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_control_topic_lost_after_a_repartition_is_named_although_the_old_topic_is_gone() {
    let config = config(1);
    let first = config.first_log();
    open(&config).await.unwrap();
    let partitions = PartitionCount::new(2).unwrap();
    let next = LogRef { number: LogNumber(2), topic: format!("{}-2", config.topic), partitions };
    TopicMigrator::new(&config).create(&next, &first).await.unwrap();
    let storage = storage_config(&config);
    assert!(!storage.has_records(&first).await.unwrap());
    let writer = KafkaLogWriter::open(&config, &next, watch::channel(None).1).await.unwrap();
    assert!(writer.append(vec![record(0, 2, 1)]).await.iter().all(Result::is_ok));
    let deleted = admin(&config).delete_topics(&[&first.topic], &AdminOptions::new()).await;
    assert!(deleted.unwrap().iter().all(Result::is_ok));

    // Nobody has published the active log, the fingerprint or a definition: the control topic is a new one.
    let control = storage.open_control_topic().unwrap();
    until("the control topic is read", || control.active_log.is_loaded()).await;
    let person_secret = PersonSecret::new(b"a person secret of 32 bytes or more").unwrap();
    for log in [&first, &next] {
        let refused =
            storage.record_secret(&control, &person_secret, log).await.unwrap_err().to_string();
        assert!(refused.contains("neither the fingerprint of the person secret"), "{refused}");
    }
    // The old topic may be created again, and nothing is recorded.
    let Err(refused) = storage.open_log_writer(&control, &person_secret).await else {
        panic!("a log was opened");
    };
    assert!(refused.to_string().contains("neither the fingerprint"), "{refused}");
    assert_eq!(*control.secret.subscribe_secret().borrow(), None);
}
