//! The control topic, as several processes change and follow it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message, TopicPartitionList};
use schemas::{Budget, BudgetId, LogNumber, LogRef, PersonSalt, PersonSaltState, default_budgets};
use storage::control::kafka::KafkaControlTopic;
use storage::control::{
    ActiveLog, BudgetDefinitions, ChangeRefused, Erasure, close, define, forget, freeze,
};
use storage::log::kafka::KafkaConfig;

use crate::support::{admin, config, open, settings_of, until};

fn budget(name: &str) -> Budget {
    let taxes = default_budgets().unwrap().remove(0);
    Budget { id: BudgetId::parse("b").unwrap(), name: name.into(), ..taxes }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_definition_changes_in_two_processes_are_neither_lost_nor_divergent() {
    let config = config(1);
    open(&config).await.unwrap();
    let one = Arc::new(KafkaControlTopic::open(&config).unwrap());
    let two = Arc::new(KafkaControlTopic::open(&config).unwrap());
    let id = budget("x").id;
    let change = |definitions: &Arc<KafkaControlTopic>, name: &'static str| {
        let (id, definitions) = (id.clone(), Arc::clone(definitions));
        tokio::spawn(async move {
            definitions.change(&id, &|current| define(current, &budget(name))).await.unwrap()
        })
    };
    let (a, b) = (change(&one, "from one"), change(&two, "from two"));
    let mut revisions = [a.await.unwrap().revision, b.await.unwrap().revision];
    revisions.sort_unstable();
    assert_eq!(revisions, [1, 2], "each change built on the other");

    assert!(one.change(&id, &freeze).await.unwrap().frozen);
    let changed_at = Instant::now();
    until("the other process learns of it", || two.catalog().get("b").is_some_and(|b| b.frozen))
        .await;
    assert!(changed_at.elapsed() < Duration::from_secs(1), "{:?}", changed_at.elapsed());

    let mut wider = budget("wider");
    wider.categories.pop();
    assert!(
        two.change(&id, &|current| define(current, &wider)).await.is_err(),
        "frozen categories do not change"
    );
    let late = KafkaControlTopic::open(&config).unwrap();
    until("a late reader learns of it", || ActiveLog::is_loaded(&late)).await;
    assert_eq!(late.catalog().get("b"), one.catalog().get("b"));
}

/// Writes a record to the control topic, as another release would.
async fn write_control_record(config: &KafkaConfig, key: &str, payload: &[u8]) {
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap();
    let record = FutureRecord::to(&config.control_topic).key(key).payload(payload);
    producer.send(record, Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn control_records_of_a_newer_release_are_served_and_never_written_over() {
    const FUTURE: &str = include_str!("../../../schemas/tests/golden/future_definition.json");
    let config = config(1);
    open(&config).await.unwrap();
    let topic = KafkaControlTopic::open(&config).unwrap();
    let id = BudgetId::parse("parks").unwrap();
    let parks = Budget { id: id.clone(), ..budget("ours") };
    topic.change(&id, &|current| define(current, &parks)).await.unwrap();
    let unreadable = FUTURE.replace(r#""revision":7"#, r#""requires":["weights"],"revision":8"#);
    for (future, revision) in [(FUTURE, Some(7)), (unreadable.as_str(), None)] {
        write_control_record(&config, "parks", future.as_bytes()).await;
        let refused = Err(ChangeRefused::NotUnderstood.into());
        assert_eq!(topic.change(&id, &|current| define(current, &parks)).await, refused);
        assert_eq!(topic.change(&id, &freeze).await, refused);
        until("the newer definition is known", || {
            topic.catalog().get("parks").map(|parks| parks.revision) == revision
        })
        .await;
    }
    assert!(topic.catalog().is_unreadable("parks"));

    let log = LogRef { number: LogNumber(1), ..config.first_log() };
    write_control_record(&config, "@log", br#"{"logs":[]}"#).await;
    assert!(topic.announce(&log).await.is_err());
    until("the active log is unknown", || !ActiveLog::is_loaded(&topic)).await;
    assert!(BudgetDefinitions::is_loaded(&topic));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reader_learns_the_active_log_and_it_never_moves_back() {
    let config = config(1);
    open(&config).await.unwrap();
    let one = KafkaControlTopic::open(&config).unwrap();
    let two = KafkaControlTopic::open(&config).unwrap();
    let log = |number| LogRef { number: LogNumber(number), ..config.first_log() };
    one.announce(&log(3)).await.unwrap();
    until("the other process learns of it", || *two.subscribe().borrow() == Some(log(3))).await;
    two.announce(&log(2)).await.unwrap();
    let late = KafkaControlTopic::open(&config).unwrap();
    until("a late reader learns of it", || ActiveLog::is_loaded(&late)).await;
    assert_eq!(*late.subscribe().borrow(), Some(log(3)));
}

/// Counts the records of the control topic that contain a text.
fn records_with(config: &KafkaConfig, text: &str) -> usize {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.brokers)
        .set("group.id", &config.group)
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    let beginning = rdkafka::Offset::Beginning;
    partitions.add_partition_offset(&config.control_topic, 0, beginning).unwrap();
    consumer.assign(&partitions).unwrap();
    let mut found = 0;
    loop {
        match consumer.poll(Duration::from_secs(30)).expect("the control topic is not readable") {
            Ok(message) => {
                let payload = message.payload().unwrap_or_default();
                found += usize::from(String::from_utf8_lossy(payload).contains(text));
            }
            Err(KafkaError::PartitionEOF(_)) => return found,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kafka_compacts_the_salt_of_a_forgotten_budget_away_once_the_erasure_is_repeated() {
    const LAG: Duration = Duration::from_secs(1);
    let config = config(1);
    open(&config).await.unwrap();
    let stored = settings_of(&config, &config.control_topic).await;
    assert_eq!(stored.get("max.compaction.lag.ms").map(String::as_str), Some("86400000"));
    let lag = LAG.as_millis().to_string();
    let shorter = AlterConfig::new(ResourceSpecifier::Topic(&config.control_topic))
        .set("cleanup.policy", "compact")
        .set("max.compaction.lag.ms", &lag);
    let altered = admin(&config).alter_configs(&[shorter], &AdminOptions::new()).await.unwrap();
    assert!(altered.iter().all(Result::is_ok), "{altered:?}");

    let topic = KafkaControlTopic::open(&config).unwrap();
    let salt = PersonSalt::from_bytes([0xab; PersonSalt::BYTES]);
    let digits = "ab".repeat(PersonSalt::BYTES);
    let wanted = Budget {
        closes_at: Some("2027-01-02T00:00:00Z".parse().unwrap()),
        person_salt: PersonSaltState::Salted(salt),
        ..budget("town")
    };
    let id = wanted.id.clone();
    topic.change(&id, &|current| define(current, &wanted)).await.unwrap();
    let closed = topic.change(&id, &|current| close(current, &wanted)).await.unwrap();
    let at = "2027-02-01T00:00:00Z".parse().unwrap();
    let decide = |current: Option<&Budget>| forget(current, closed.closing.unwrap(), at);
    topic.change(&id, &decide).await.unwrap();
    assert_eq!(records_with(&config, &digits), 2, "Kafka keeps former definitions");

    // Each erasure appends a record; that after the lag ends the segment with the former definitions.
    let started = Instant::now();
    while records_with(&config, &digits) > 0 {
        assert!(started.elapsed() < Duration::from_secs(180), "the salt is not compacted away");
        tokio::time::sleep(2 * LAG).await;
        let erasure = topic.erase_former_definitions(&id).await.unwrap();
        assert_eq!(erasure, Erasure::AwaitsCompaction);
    }
    let late = KafkaControlTopic::open(&config).unwrap();
    until("a late reader learns of it", || ActiveLog::is_loaded(&late)).await;
    assert_eq!(late.catalog().get("b").unwrap().person_salt.forgotten_at(), Some(at));
}
