//! What the Kafka adapters do beyond the contracts that all adapters share. Needs a real Kafka: `local/up servers`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ConfigSource, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use schemas::{
    Budget, BudgetId, LogNumber, LogRef, Offset, PartitionCount, PartitionId, PersonKey, Position,
    default_budgets, partition_for,
};
use storage::definitions::kafka::KafkaDefinitions;
use storage::definitions::{Definitions, define, freeze};
use storage::log::kafka::{
    KafkaConfig, KafkaLog, KafkaSource, LogMover, SEALED_PATIENCE, TopicError,
};
use storage::log::{
    AppendError, LogBounds, LogSource, LogWriter, NewRecord, PartitionHandler, RecordBatch, Start,
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
        // Longer than these tests wait: a member that does not leave its group in order fails them.
        session_timeout: Duration::from_secs(45),
        delivery_timeout: Duration::from_secs(5),
        linger: Duration::from_millis(1),
    }
}

/// A record of somebody who belongs to the partition, of so many.
fn record(partition: u32, partitions: u32, value: u32) -> NewRecord {
    let count = PartitionCount::new(partitions.into()).unwrap();
    let mut keys = (0_u128..).map(|number| PersonKey::from_bytes(number.to_be_bytes()));
    let key = keys.find(|key| partition_for(key, count) == PartitionId(partition)).unwrap();
    NewRecord { key, value: value.to_le_bytes().to_vec() }
}

async fn open(config: &KafkaConfig) -> Result<KafkaLog, TopicError> {
    KafkaLog::open(config, &config.first_log(), watch::channel(None).1).await
}

/// What all members together have taken in: the place of a store that commits every batch.
#[derive(Default)]
struct Taken(Mutex<BTreeMap<PartitionId, Vec<Offset>>>);

impl Taken {
    fn position(&self, partition: PartitionId) -> Position {
        let taken = self.0.lock().unwrap();
        taken
            .get(&partition)
            .and_then(|offsets| offsets.last())
            .map_or(Position::START, |last| last.next())
    }

    fn total(&self) -> usize {
        self.0.lock().unwrap().values().map(Vec::len).sum()
    }
}

struct Member {
    taken: Arc<Taken>,
    mine: Mutex<Vec<PartitionId>>,
    /// Takes nothing, as an owner whose store is slow.
    full: AtomicBool,
}

impl Member {
    fn owns(&self) -> usize {
        self.mine.lock().unwrap().len()
    }
}

impl PartitionHandler for Member {
    fn assigned(&self, partitions: &[(PartitionId, LogBounds)]) -> Vec<(PartitionId, Start)> {
        self.mine.lock().unwrap().extend(partitions.iter().map(|(partition, _)| *partition));
        partitions.iter().map(|(id, _)| (*id, Start::At(self.taken.position(*id)))).collect()
    }

    fn revoked(&self, partitions: &[PartitionId], _lost: bool) {
        self.mine.lock().unwrap().retain(|mine| !partitions.contains(mine));
    }

    fn deliver(&self, batch: RecordBatch, _patience: Duration) -> Result<(), RecordBatch> {
        if self.full.load(Ordering::Relaxed) {
            return Err(batch);
        }
        assert!(
            self.mine.lock().unwrap().contains(&batch.partition()),
            "a record of somebody else's partition"
        );
        let mut taken = self.taken.0.lock().unwrap();
        taken
            .entry(batch.partition())
            .or_default()
            .extend(batch.iter().map(|record| record.offset));
        Ok(())
    }

    fn high_watermark(&self, _: PartitionId, _: Position) {}

    fn halt(&self, partition: PartitionId, reason: String) {
        panic!("nothing is wrong with partition {partition}: {reason}");
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

async fn join(config: &KafkaConfig, taken: &Arc<Taken>) -> Joined {
    let mut source = KafkaSource::open(config, &config.first_log()).await.unwrap();
    let member = Arc::new(Member {
        taken: Arc::clone(taken),
        mine: Mutex::default(),
        full: AtomicBool::new(false),
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
async fn members_share_the_partitions_and_every_record_arrives_once_and_in_order_through_rebalances()
 {
    const PARTITIONS: u32 = 6;
    const RECORDS: u32 = 3_000;
    let config = config(PARTITIONS.into());
    let log = Arc::new(open(&config).await.unwrap());
    let taken = Arc::new(Taken::default());
    let first = join(&config, &taken).await;
    until("the first member has everything", || first.member.owns() == 6).await;

    let writer = Arc::clone(&log);
    let writing = tokio::spawn(async move {
        for chunk in 0..RECORDS / 30 {
            let records =
                (0..30).map(|i| record(i % PARTITIONS, PARTITIONS, chunk * 30 + i)).collect();
            assert!(writer.append(records).await.iter().all(Result::is_ok));
        }
    });
    let second = join(&config, &taken).await;
    until("the second member has its half", || second.member.owns() == 3).await;
    first.stop.cancel();
    first.thread.join().unwrap();
    until("the second member has everything", || second.member.owns() == 6).await;
    writing.await.unwrap();
    until("everything has arrived", || taken.total() >= RECORDS as usize).await;
    second.stop.cancel();
    second.thread.join().unwrap();

    for (partition, offsets) in &*taken.0.lock().unwrap() {
        let dense: Vec<Offset> = (0..u64::from(RECORDS / PARTITIONS)).map(Offset).collect();
        assert_eq!(*offsets, dense, "partition {partition}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_was_full_when_it_moved_away_is_read_when_it_comes_back() {
    const PARTITIONS: u32 = 4;
    let config = config(PARTITIONS.into());
    let log = open(&config).await.unwrap();
    let fill = async |numbers: std::ops::Range<u32>| {
        let records =
            numbers.map(|number| record(number % PARTITIONS, PARTITIONS, number)).collect();
        assert!(log.append(records).await.iter().all(Result::is_ok));
    };
    let taken = Arc::new(Taken::default());
    let first = join(&config, &taken).await;
    until("the first member has everything", || first.member.owns() == 4).await;
    first.member.full.store(true, Ordering::Relaxed);
    fill(0..400).await;
    let second = join(&config, &taken).await;
    until("the second member has its half", || second.member.owns() == 2).await;
    until("the second member has read its half", || taken.total() == 200).await;
    first.member.full.store(false, Ordering::Relaxed);
    second.stop.cancel();
    second.thread.join().unwrap();
    until("the first member has everything again", || first.member.owns() == 4).await;
    fill(400..800).await;
    until("everything has arrived", || taken.total() == 800).await;
    first.stop.cancel();
    first.thread.join().unwrap();
}

#[tokio::test]
async fn a_topic_with_another_partition_count_is_refused_with_both_numbers() {
    let six = config(6);
    open(&six).await.unwrap();
    let twelve = KafkaConfig { partitions: PartitionCount::new(12).unwrap(), ..six.clone() };
    let refused = open(&twelve).await.err();
    assert_eq!(refused, Some(TopicError::Partitions { topic: six.topic, found: 6, expected: 12 }));
}

#[tokio::test]
async fn kafka_that_never_answers_is_a_refusal_within_a_second_and_then_at_once() {
    let dead = KafkaConfig {
        brokers: "127.0.0.1:1".into(),
        delivery_timeout: Duration::from_millis(800),
        ..config(1)
    };
    let log = KafkaLog::open_unchecked(&dead, &dead.first_log(), watch::channel(None).1).unwrap();
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
async fn of_definitions_changed_at_once_in_two_processes_none_is_lost_and_all_agree() {
    let config = config(1);
    open(&config).await.unwrap();
    let one = Arc::new(KafkaDefinitions::open(&config).unwrap());
    let two = Arc::new(KafkaDefinitions::open(&config).unwrap());
    let id = budget("x").id;
    let change = |definitions: &Arc<KafkaDefinitions>, name: &'static str| {
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
    let heard = Instant::now();
    until("the other hears of it", || two.catalog().get("b").is_some_and(|b| b.frozen)).await;
    assert!(heard.elapsed() < Duration::from_secs(1), "{:?}", heard.elapsed());

    let mut wider = budget("wider");
    wider.categories.pop();
    assert!(
        two.change(&id, &|current| define(current, &wider)).await.is_err(),
        "frozen categories do not change"
    );
    let late = KafkaDefinitions::open(&config).unwrap();
    until("a late reader knows it", || late.is_loaded()).await;
    assert_eq!(late.catalog().get("b"), one.catalog().get("b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sealed_log_refuses_goes_to_the_next_one_as_soon_as_that_is_known() {
    let config = config(2);
    let (first, moves) = (config.first_log(), watch::Sender::new(None));
    let log = Arc::new(KafkaLog::open(&config, &first, moves.subscribe()).await.unwrap());
    let both = vec![record(0, 2, 1), record(1, 2, 2)];
    assert!(log.append(both.clone()).await.iter().all(Result::is_ok));
    let partitions = PartitionCount::new(3).unwrap();
    let next = LogRef { number: LogNumber(2), topic: format!("{}-2", config.topic), partitions };
    let (mover, budget) = (LogMover::new(&config), BudgetId::parse("taxes").unwrap());
    mover.create(&next, &first).await.unwrap();
    assert_eq!(mover.refuses(&first, &budget).await, Ok(false));
    mover.seal(&first).await.unwrap();
    refuses(&mover, &first, true).await;
    assert_eq!(mover.is_sealed(&first).await, Ok(true));

    let refused = Instant::now();
    assert_eq!(
        log.append(both.clone()).await,
        [Err(AppendError::Sealed), Err(AppendError::Sealed)]
    );
    let held = refused.elapsed();
    assert!(held > SEALED_PATIENCE / 2, "refused after {held:?}");
    assert!(held < SEALED_PATIENCE + Duration::from_millis(500), "refused after {held:?}");
    assert!(log.available().is_ok(), "a log that refuses is not away");
    let (writer, records) = (Arc::clone(&log), both.clone());
    let held = tokio::spawn(async move { writer.append(records).await });
    moves.send_replace(Some(next.clone()));
    for (record, receipt) in both.iter().zip(held.await.unwrap()) {
        let receipt = receipt.unwrap();
        let home = partition_for(&record.key, partitions);
        assert_eq!((receipt.log, receipt.partition), (LogNumber(2), home));
    }

    mover.unseal(&first, Some(&next)).await.unwrap();
    refuses(&mover, &first, false).await;
    assert_eq!(mover.is_sealed(&first).await, Ok(false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_opened_again_takes_what_was_held() {
    let config = KafkaConfig { delivery_timeout: Duration::from_secs(2), ..config(1) };
    let first = config.first_log();
    let log = Arc::new(KafkaLog::open(&config, &first, watch::channel(None).1).await.unwrap());
    let mover = LogMover::new(&config);
    mover.seal(&first).await.unwrap();
    refuses(&mover, &first, true).await;
    let writer = Arc::clone(&log);
    let held = tokio::spawn(async move { writer.append(vec![record(0, 1, 1)]).await.remove(0) });
    // It is held for longer than anybody waits for a broker.
    tokio::time::sleep(config.delivery_timeout + Duration::from_millis(500)).await;
    assert!(!held.is_finished(), "refused to whoever brought it");
    mover.unseal(&first, None).await.unwrap();
    let receipt = held.await.unwrap().unwrap();
    assert_eq!(receipt.log, LogNumber::FIRST);
}

/// Waits until every broker refuses records, or takes them.
/// The settings that a topic has of its own.
async fn settings(config: &KafkaConfig, log: &LogRef) -> BTreeMap<String, String> {
    let client: AdminClient<_> = admin(config);
    let topic = ResourceSpecifier::Topic(&log.topic);
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
async fn a_log_that_is_opened_again_has_its_settings_and_the_next_one_has_them_and_keeps_everything()
 {
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
    let mover = LogMover::new(&config);
    assert_eq!(mover.is_there(&next).await, Ok(false));
    mover.create(&next, &first).await.unwrap();
    assert_eq!(mover.is_there(&next).await, Ok(true));
    mover.seal(&first).await.unwrap();
    refuses(&mover, &first, true).await;
    mover.unseal(&first, Some(&next)).await.unwrap();
    refuses(&mover, &first, false).await;
    let mut expected: BTreeMap<String, String> =
        own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(settings(&config, &first).await, expected);
    expected.insert("retention.bytes".to_owned(), "-1".to_owned());
    assert_eq!(settings(&config, &next).await, expected);
}

async fn refuses(mover: &LogMover, log: &LogRef, wanted: bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    let budget = BudgetId::parse("taxes").unwrap();
    while mover.refuses(log, &budget).await != Ok(wanted) {
        assert!(Instant::now() < deadline, "not within 30 s: refused is {wanted}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_hears_where_submissions_go_and_it_never_moves_back() {
    let config = config(1);
    open(&config).await.unwrap();
    let one = KafkaDefinitions::open(&config).unwrap();
    let two = KafkaDefinitions::open(&config).unwrap();
    let log = |number| LogRef { number: LogNumber(number), ..config.first_log() };
    one.move_log(&log(3)).await.unwrap();
    until("the other hears of it", || *two.log().borrow() == Some(log(3))).await;
    two.move_log(&log(2)).await.unwrap();
    let late = KafkaDefinitions::open(&config).unwrap();
    until("a late reader knows it", || late.is_loaded()).await;
    assert_eq!(*late.log().borrow(), Some(log(3)));
}
