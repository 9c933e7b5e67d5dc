//! Properties of the Kafka adapters beyond the shared contracts. Needs a real Kafka: `local/up servers`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Message, TopicPartitionList};
use runtime::config::Settings;
use schemas::{
    Budget, BudgetId, LogNumber, LogRef, Offset, PartitionCount, PartitionId, PersonKey,
    PersonKeyHasher, PersonSalt, PersonSecret, Position, default_budgets, partition_for,
};
use storage::config::StorageConfig;
use storage::control::kafka::KafkaControlTopic;
use storage::control::{
    ActiveLog, BudgetDefinitions, ChangeRefused, Erasure, close, define, forget, freeze,
};
use storage::log::kafka::{
    KafkaConfig, KafkaLogWriter, KafkaSource, SEALED_RETRY_TIMEOUT, TopicError, TopicMigrator,
};
use storage::log::{
    AppendError, BoundsReader, LogSource, LogWriter, NewRecord, PartitionHandler, RecordBatch,
    Revocation, StartPosition,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

fn config(partitions: u64) -> KafkaConfig {
    let brokers = std::env::var("KAFKA_BROKERS")
        .expect("KAFKA_BROKERS is not set: start the servers with `local/up servers` and source `local/env`");
    let unique = uuid::Uuid::new_v4().simple().to_string();
    KafkaConfig {
        brokers,
        topic: format!("t{unique}"),
        definitions_topic: format!("d{unique}"),
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
fn record(partition: u32, partitions: u32, value: u32) -> NewRecord {
    let count = PartitionCount::new(partitions.into()).unwrap();
    let mut keys = (0_u128..).map(|number| PersonKey::from_bytes(number.to_be_bytes()));
    let key = keys.find(|key| partition_for(key, count) == PartitionId(partition)).unwrap();
    NewRecord { key, value: value.to_le_bytes().to_vec() }
}

async fn open(config: &KafkaConfig) -> Result<KafkaLogWriter, TopicError> {
    KafkaLogWriter::open(config, &config.first_log(), watch::channel(None).1).await
}

/// The offsets that all members have received. Stands for a store that commits every batch.
#[derive(Default)]
struct Received(Mutex<BTreeMap<PartitionId, Vec<Offset>>>);

impl Received {
    fn position(&self, partition: PartitionId) -> Position {
        let received = self.0.lock().unwrap();
        received
            .get(&partition)
            .and_then(|offsets| offsets.last())
            .map_or(Position::START, |last| last.next())
    }

    fn total(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }
}

struct Member {
    received: Arc<Received>,
    owned: Mutex<Vec<PartitionId>>,
    starts: Mutex<Vec<(PartitionId, StartPosition)>>,
    /// Refuses all batches, as an owner with a slow store does.
    queue_full: AtomicBool,
}

impl Member {
    fn owns(&self) -> usize {
        self.owned.lock().unwrap().len()
    }
}

impl PartitionHandler for Member {
    fn assigned(&self, partitions: &[PartitionId], _: &Arc<dyn BoundsReader>) {
        self.owned.lock().unwrap().extend(partitions);
        let start = |id: &PartitionId| (*id, StartPosition::At(self.received.position(*id)));
        self.starts.lock().unwrap().extend(partitions.iter().map(start));
    }

    fn take_starts(&self) -> Vec<(PartitionId, StartPosition)> {
        std::mem::take(&mut self.starts.lock().unwrap())
    }

    fn revoked(&self, partitions: &[PartitionId], _: Revocation) {
        self.owned.lock().unwrap().retain(|owned| !partitions.contains(owned));
    }

    fn deliver(&self, batch: RecordBatch, _timeout: Duration) -> Result<(), RecordBatch> {
        if self.queue_full.load(Ordering::Relaxed) {
            return Err(batch);
        }
        assert!(
            self.owned.lock().unwrap().contains(&batch.partition()),
            "a record of a partition that is not owned"
        );
        let mut received = self.received.0.lock().unwrap();
        received
            .entry(batch.partition())
            .or_default()
            .extend(batch.iter().map(|record| record.offset));
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

struct Joined {
    member: Arc<Member>,
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

async fn join(config: &KafkaConfig, received: &Arc<Received>) -> Joined {
    let mut source = KafkaSource::open(config, &config.first_log()).await.unwrap();
    let member = Arc::new(Member {
        received: Arc::clone(received),
        owned: Mutex::default(),
        starts: Mutex::default(),
        queue_full: AtomicBool::new(false),
    });
    let stop = CancellationToken::new();
    let (handler, token, log) = (Arc::clone(&member), stop.clone(), config.first_log());
    let run = move || source.run(&log, handler.as_ref(), &token).unwrap();
    let thread = std::thread::spawn(run);
    Joined { member, stop, thread }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_partitions_and_each_record_arrives_once_in_order_across_rebalances() {
    const PARTITIONS: u32 = 6;
    const RECORDS: u32 = 3_000;
    let config = config(PARTITIONS.into());
    let log = Arc::new(open(&config).await.unwrap());
    let received = Arc::new(Received::default());
    let first = join(&config, &received).await;
    until("the first member owns all partitions", || first.member.owns() == 6).await;

    let writer = Arc::clone(&log);
    let writing = tokio::spawn(async move {
        for chunk in 0..RECORDS / 30 {
            let records =
                (0..30).map(|i| record(i % PARTITIONS, PARTITIONS, chunk * 30 + i)).collect();
            assert!(writer.append(records).await.iter().all(Result::is_ok));
        }
    });
    let second = join(&config, &received).await;
    until("the second member owns its half", || second.member.owns() == 3).await;
    first.stop.cancel();
    first.thread.join().unwrap();
    until("the second member owns all partitions", || second.member.owns() == 6).await;
    writing.await.unwrap();
    until("all records have arrived", || received.total() >= RECORDS as usize).await;
    second.stop.cancel();
    second.thread.join().unwrap();

    for (partition, offsets) in &*received.0.lock().unwrap() {
        let dense: Vec<Offset> = (0..u64::from(RECORDS / PARTITIONS)).map(Offset).collect();
        assert_eq!(*offsets, dense, "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_paused_when_revoked_is_read_after_reassignment() {
    const PARTITIONS: u32 = 4;
    let config = config(PARTITIONS.into());
    let log = open(&config).await.unwrap();
    let fill = async |numbers: std::ops::Range<u32>| {
        let records =
            numbers.map(|number| record(number % PARTITIONS, PARTITIONS, number)).collect();
        assert!(log.append(records).await.iter().all(Result::is_ok));
    };
    let received = Arc::new(Received::default());
    let first = join(&config, &received).await;
    until("the first member owns all partitions", || first.member.owns() == 4).await;
    first.member.queue_full.store(true, Ordering::Relaxed);
    fill(0..400).await;
    let second = join(&config, &received).await;
    until("the second member owns its half", || second.member.owns() == 2).await;
    until("the second member has read its half", || received.total() == 200).await;
    first.member.queue_full.store(false, Ordering::Relaxed);
    second.stop.cancel();
    second.thread.join().unwrap();
    until("the first member owns all partitions again", || first.member.owns() == 4).await;
    fill(400..800).await;
    until("all records have arrived", || received.total() == 800).await;
    first.stop.cancel();
    first.thread.join().unwrap();
}

#[tokio::test]
async fn a_topic_with_another_partition_count_is_rejected_with_both_counts() {
    let six = config(6);
    open(&six).await.unwrap();
    let twelve = KafkaConfig { partitions: PartitionCount::new(12).unwrap(), ..six.clone() };
    let refused = open(&twelve).await.err();
    assert_eq!(refused, Some(TopicError::Partitions { topic: six.topic, found: 6, expected: 12 }));
}

#[tokio::test]
async fn appends_to_unreachable_kafka_fail_within_a_second_and_then_at_once() {
    let dead = KafkaConfig {
        brokers: "127.0.0.1:1".into(),
        delivery_timeout: Duration::from_millis(800),
        ..config(1)
    };
    let log =
        KafkaLogWriter::open_unchecked(&dead, &dead.first_log(), watch::channel(None).1).unwrap();
    let started = Instant::now();
    assert!(log.append(vec![record(0, 1, 1)]).await[0].is_err());
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    let again = Instant::now();
    assert!(log.available().is_err());
    assert!(log.append(vec![record(0, 1, 2)]).await[0].is_err());
    assert!(again.elapsed() < Duration::from_millis(50), "{:?}", again.elapsed());
}

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
    let record = FutureRecord::to(&config.definitions_topic).key(key).payload(payload);
    producer.send(record, Duration::from_secs(10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn control_records_of_a_newer_release_are_served_and_never_written_over() {
    const FUTURE: &str = include_str!("../../schemas/tests/golden/future_definition.json");
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
    assert!(topic.publish(&log).await.is_err());
    until("the active log is unknown", || !ActiveLog::is_loaded(&topic)).await;
    assert!(BudgetDefinitions::is_loaded(&topic));
}

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

/// Reads the settings that were set for the topic itself.
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
    partitions.add_partition_offset(&config.definitions_topic, 0, beginning).unwrap();
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
    let stored = settings_of(&config, &config.definitions_topic).await;
    assert_eq!(stored.get("max.compaction.lag.ms").map(String::as_str), Some("86400000"));
    let lag = LAG.as_millis().to_string();
    let shorter = AlterConfig::new(ResourceSpecifier::Topic(&config.definitions_topic))
        .set("cleanup.policy", "compact")
        .set("max.compaction.lag.ms", &lag);
    let altered = admin(&config).alter_configs(&[shorter], &AdminOptions::new()).await.unwrap();
    assert!(altered.iter().all(Result::is_ok), "{altered:?}");

    let topic = KafkaControlTopic::open(&config).unwrap();
    let salt = PersonSalt::from_bytes([0xab; PersonSalt::BYTES]);
    let digits = "ab".repeat(PersonSalt::BYTES);
    let wanted = Budget {
        closes_at: Some("2027-01-02T00:00:00Z".parse().unwrap()),
        person_secret: PersonSecret::Salted(salt),
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
    assert_eq!(late.catalog().get("b").unwrap().person_secret.forgotten_at(), Some(at));
}

async fn settings(config: &KafkaConfig, log: &LogRef) -> BTreeMap<String, String> {
    settings_of(config, &log.topic).await
}

async fn settings_of(config: &KafkaConfig, topic: &str) -> BTreeMap<String, String> {
    let client: AdminClient<_> = admin(config);
    let topic = ResourceSpecifier::Topic(topic);
    let mut described = client.describe_configs(&[topic], &AdminOptions::new()).await.unwrap();
    let entries = described.remove(0).unwrap().entries.into_iter();
    let own = entries.filter(|entry| entry.source == ConfigSource::DynamicTopic);
    own.map(|entry| (entry.name, entry.value.unwrap_or_default())).collect()
}

fn admin(config: &KafkaConfig) -> AdminClient<DefaultClientContext> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.brokers).create().unwrap()
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

/// Waits until all brokers reject appends, or accept them.
async fn until_sealed(migrator: &TopicMigrator, log: &LogRef, sealed: bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let budget = BudgetId::parse("taxes").unwrap();
    while migrator.rejects_appends(log, &budget).await != Ok(sealed) {
        assert!(Instant::now() < deadline, "not within 30 s: sealed is {sealed}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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
    let topics =
        [config.topic.clone(), config.definitions_topic.clone(), config.dead_letters_topic()];
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

/// The storage settings of a deployment on these topics.
fn storage_config(config: &KafkaConfig) -> StorageConfig {
    let pairs = [
        ("kafka.brokers", config.brokers.clone()),
        ("kafka.topic", config.topic.clone()),
        ("kafka.definitions_topic", config.definitions_topic.clone()),
        ("log.partitions", config.partitions.get().to_string()),
    ];
    let settings = Settings::from_pairs(pairs.map(|(key, value)| (key.to_owned(), value)));
    StorageConfig::read_shared(&mut settings.reader()).unwrap()
}

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
    let hasher = PersonKeyHasher::new(b"a person secret of 32 bytes or more").unwrap();
    for log in [&first, &next] {
        let refused = storage.record_secret(&control, &hasher, log).await.unwrap_err().to_string();
        assert!(refused.contains("neither the fingerprint of the person secret"), "{refused}");
    }
    // The old topic may be created again, and nothing is recorded.
    let Err(refused) = storage.open_log_writer(&control, &hasher).await else {
        panic!("a log was opened");
    };
    assert!(refused.to_string().contains("neither the fingerprint"), "{refused}");
    assert_eq!(*control.secret.subscribe_secret().borrow(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_reader_learns_the_active_log_and_it_never_moves_back() {
    let config = config(1);
    open(&config).await.unwrap();
    let one = KafkaControlTopic::open(&config).unwrap();
    let two = KafkaControlTopic::open(&config).unwrap();
    let log = |number| LogRef { number: LogNumber(number), ..config.first_log() };
    one.publish(&log(3)).await.unwrap();
    until("the other process learns of it", || *two.subscribe().borrow() == Some(log(3))).await;
    two.publish(&log(2)).await.unwrap();
    let late = KafkaControlTopic::open(&config).unwrap();
    until("a late reader learns of it", || ActiveLog::is_loaded(&late)).await;
    assert_eq!(*late.subscribe().borrow(), Some(log(3)));
}
