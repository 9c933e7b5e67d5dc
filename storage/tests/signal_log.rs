//! The logs of signals: what both adapters promise, and the bounds of each. Needs a real Kafka: `local/up servers`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::path::Path;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use runtime::clock::now_ms;
use schemas::{
    AgentDigest, BallotDigest, BudgetId, IdentityLevel, NetworkDigest, PartitionCount, PersonKey,
    SIGNAL_RETENTION_MS, Signal, SignalAction, SignalOrigin,
};
use storage::log::kafka::KafkaConfig;
use storage::log::{AppendError, ReadError};
use storage::signals::{
    KafkaSignalReader, KafkaSignalWriter, SignalEraser, SignalErasure, SignalQuery, SignalReader,
    SignalWriter, SqliteSignalReader, SqliteSignalWriter,
};
use tempfile::TempDir;

const RECOVERY_TIMEOUT: Duration = Duration::from_secs(60);

fn config() -> KafkaConfig {
    let brokers = std::env::var("KAFKA_BROKERS")
        .expect("KAFKA_BROKERS is not set: start the servers with `local/up servers` and source `local/env`");
    config_at(brokers)
}

fn config_at(brokers: String) -> KafkaConfig {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    KafkaConfig {
        brokers,
        topic: format!("t{unique}"),
        control_topic: format!("d{unique}"),
        partitions: PartitionCount::new(1).unwrap(),
        replication_factor: 1,
        group: format!("g{unique}"),
        session_timeout: Duration::from_secs(6),
        delivery_timeout: Duration::from_secs(5),
        linger: Duration::from_millis(1),
    }
}

fn budget(id: &str) -> BudgetId {
    BudgetId::parse(id).unwrap()
}

fn signal(of: &str, person: u128, accepted_at_ms: u64) -> Signal {
    Signal {
        budget: budget(of),
        person: PersonKey::from_bytes(person.to_be_bytes()),
        accepted_at_ms,
        action: if person.is_multiple_of(7) {
            SignalAction::Withdraw
        } else {
            SignalAction::Allocate(BallotDigest(person as u64))
        },
        origin: SignalOrigin {
            network: (!person.is_multiple_of(5)).then_some(NetworkDigest(u64::MAX)),
            agent: Some(AgentDigest(0)),
            identity: IdentityLevel::Token,
        },
    }
}

async fn read(reader: &dyn SignalReader, query: SignalQuery) -> Result<Vec<Signal>, ReadError> {
    let (mut batches, mut signals, mut last) = (reader.read(query), Vec::new(), 0);
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        assert!(batch.done >= last && batch.done <= batch.total, "{} {}", batch.done, batch.total);
        last = batch.done;
        signals.extend(batch.signals);
    }
    Ok(signals)
}

fn all() -> SignalQuery {
    SignalQuery { budget: None, accepted_ms: 0..u64::MAX }
}

/// Appends, again while the topic or file is being created.
async fn append(writer: &dyn SignalWriter, signals: &[Signal]) {
    writer.append(signals).await.unwrap();
}

/// What every log of signals promises.
async fn contract(writer: &dyn SignalWriter, reader: &dyn SignalReader) {
    assert_eq!(read(reader, all()).await.unwrap(), [], "nothing exists yet");
    assert_eq!(writer.expire(now_ms()).await, Ok(false));
    // Records are found by the time at which they were appended, which is never before the acceptance.
    let now = now_ms() - 5_000;
    let signals: Vec<Signal> = (0..4_500)
        .map(|n| signal(if n % 3 == 0 { "town" } else { "taxes" }, n, now + n as u64))
        .collect();
    for some in signals.chunks(1_000) {
        append(writer, some).await;
    }
    assert_eq!(read(reader, all()).await.unwrap(), signals);

    let of = |id: &str, span: std::ops::Range<u64>| {
        let wanted = signals
            .iter()
            .filter(|signal| signal.budget.as_str() == id && span.contains(&signal.accepted_at_ms));
        (
            SignalQuery { budget: Some(budget(id)), accepted_ms: span.clone() },
            wanted.cloned().collect::<Vec<_>>(),
        )
    };
    for (query, wanted) in [
        of("town", 0..u64::MAX),
        of("taxes", now + 100..now + 2_000),
        of("taxes", now + 100..now + 100),
        of("nowhere", 0..u64::MAX),
    ] {
        assert_eq!(read(reader, query.clone()).await.unwrap(), wanted, "{query:?}");
    }
    // Dropping the stream ends the reading: the reader's thread would otherwise wait for ever, and hold its client.
    let mut batches = reader.read(all());
    assert!(batches.recv().await.is_some());
    drop(batches);

    // What is older than the retention is not returned, even if it is stored still.
    let old = signal("taxes", 9_000, now - SIGNAL_RETENTION_MS - 1);
    append(writer, std::slice::from_ref(&old)).await;
    assert_eq!(read(reader, all()).await.unwrap().len(), signals.len());
}

#[tokio::test]
async fn sqlite_keeps_the_contract_of_signals() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("data/signals.db");
    contract(&SqliteSignalWriter::new(&path), &SqliteSignalReader::new(&path)).await;
}

#[tokio::test]
async fn kafka_keeps_the_contract_of_signals() {
    let config = config();
    contract(&KafkaSignalWriter::new(&config), &KafkaSignalReader::new(&config)).await;
}

fn rows(path: &Path) -> u64 {
    let connection = rusqlite::Connection::open(path).unwrap();
    let rows: i64 =
        connection.query_row("SELECT count(*) FROM signals", [], |row| row.get(0)).unwrap();
    rows.cast_unsigned()
}

#[tokio::test]
async fn sqlite_deletes_signals_older_than_seven_days_in_bounded_steps_and_overwrites_them() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("signals.db");
    let (writer, now) = (SqliteSignalWriter::new(&path), now_ms());
    let old_budget = "a-budget-of-long-ago";
    let old: Vec<Signal> = (0..4_500).map(|n| signal(old_budget, n, now)).collect();
    for some in old.chunks(1_000) {
        append(&writer, some).await;
    }
    append(&writer, &[signal("taxes", 1, now + 1)]).await;
    let later = now + SIGNAL_RETENTION_MS + 1;
    let mut left = Vec::new();
    while writer.expire(later).await.unwrap() {
        left.push(rows(&path));
    }
    assert_eq!((left.as_slice(), rows(&path)), ([2_501, 501].as_slice(), 1));
    drop(writer);
    let checkpoint = rusqlite::Connection::open(&path).unwrap();
    checkpoint.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let holds_old = bytes.windows(old_budget.len()).any(|bytes| bytes == old_budget.as_bytes());
    assert!(!holds_old, "deleted signals are still in the file");
}

#[tokio::test]
async fn sqlite_erases_the_signals_of_a_forgotten_budget_and_of_no_other() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("signals.db");
    let (writer, now) = (SqliteSignalWriter::new(&path), now_ms());
    let forgotten = BudgetId::parse("a-forgotten-budget").unwrap();
    assert_eq!(writer.erase(&forgotten).await, Ok(SignalErasure::Erased));
    assert!(!path.exists(), "nothing was there to erase");
    let budget = |number: u128| if number.is_multiple_of(3) { "taxes" } else { forgotten.as_str() };
    let mixed: Vec<Signal> = (0..6_000).map(|n| signal(budget(n), n, now)).collect();
    for some in mixed.chunks(1_000) {
        append(&writer, some).await;
    }
    // By another connection, as the command does while the service runs.
    let command = SqliteSignalWriter::new(&path);
    assert_eq!(command.erase(&forgotten).await, Ok(SignalErasure::Erased));
    let kept = read(&SqliteSignalReader::new(&path), all()).await.unwrap();
    let others: Vec<Signal> = mixed.into_iter().filter(|it| it.budget != forgotten).collect();
    assert_eq!(kept, others);
    for file in std::fs::read_dir(dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let id = forgotten.as_str().as_bytes();
        assert!(!bytes.windows(id.len()).any(|it| it == id), "its bytes are still there");
    }
    append(&writer, &[signal("taxes", 1, now)]).await;
}

#[tokio::test]
async fn kafka_says_that_it_keeps_the_signals_of_a_forgotten_budget() {
    let erased = KafkaSignalWriter::new(&config()).erase(&BudgetId::parse("taxes").unwrap()).await;
    assert_eq!(erased, Ok(SignalErasure::AwaitsRetention));
}

#[tokio::test]
async fn sqlite_keeps_the_newest_signals_of_a_flood() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("signals.db");
    let (writer, now) = (SqliteSignalWriter::new(&path).with_max_signals(2_500), now_ms());
    let flood: Vec<Signal> = (0..10_000).map(|n| signal("taxes", n, now)).collect();
    for some in flood.chunks(1_000) {
        append(&writer, some).await;
        assert!(rows(&path) <= 2_500);
    }
    let kept = read(&SqliteSignalReader::new(&path), all()).await.unwrap();
    assert_eq!(kept, flood[7_500..]);
}

#[tokio::test]
async fn a_damaged_file_fails_reads_and_appends_without_a_panic() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("signals.db");
    std::fs::write(&path, [0xab; 8_192]).unwrap();
    let appended = SqliteSignalWriter::new(&path).append(&[signal("taxes", 1, now_ms())]).await;
    assert!(matches!(appended, Err(AppendError::Unavailable(_))), "{appended:?}");
    let got = read(&SqliteSignalReader::new(&path), all()).await;
    assert!(matches!(got, Err(ReadError::Unavailable(_))), "{got:?}");
}

fn admin(config: &KafkaConfig) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap()
}

async fn setting(config: &KafkaConfig, name: &str) -> String {
    let topic = config.signals_topic();
    let described = admin(config)
        .describe_configs([&ResourceSpecifier::Topic(&topic)], &AdminOptions::new())
        .await
        .unwrap();
    let resource = described.into_iter().next().unwrap().unwrap();
    assert_eq!(resource.specifier, OwnedResourceSpecifier::Topic(topic));
    resource.get(name).unwrap().value.clone().unwrap()
}

#[tokio::test]
async fn kafka_deletes_signals_after_seven_days_of_a_topic_that_it_creates() {
    let config = config();
    append(&KafkaSignalWriter::new(&config), &[signal("taxes", 1, now_ms())]).await;
    assert_eq!(setting(&config, "retention.ms").await, SIGNAL_RETENTION_MS.to_string());
    assert_eq!(setting(&config, "cleanup.policy").await, "delete");
    // Only closed segments are deleted.
    assert_eq!(setting(&config, "segment.ms").await, "86400000");
}

#[tokio::test]
async fn an_existing_topic_is_used_as_it_is_and_foreign_records_are_skipped() {
    let config = config();
    let topic = config.signals_topic();
    let wanted = NewTopic::new(&topic, 1, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let created = admin(&config).create_topics([&wanted], &AdminOptions::new()).await.unwrap();
    assert!(created[0].is_ok());
    let producer: FutureProducer =
        ClientConfig::new().set("bootstrap.servers", &config.brokers).create().unwrap();
    for foreign in [&b"\xff\xff"[..], &[], &[0x08; 100_000]] {
        let record = FutureRecord::<[u8], [u8]>::to(&topic).partition(0).payload(foreign);
        producer.send(record, RECOVERY_TIMEOUT).await.unwrap();
    }
    let mine = [signal("taxes", 1, now_ms()), signal("taxes", 2, now_ms())];
    append(&KafkaSignalWriter::new(&config), &mine).await;
    assert_eq!(read(&KafkaSignalReader::new(&config), all()).await.unwrap(), mine);
    assert_eq!(setting(&config, "retention.ms").await, "-1");
}

#[tokio::test]
async fn an_unreachable_kafka_is_an_error_within_a_bound() {
    // Nobody listens there.
    let config = config_at("127.0.0.1:1".into());
    let appended = KafkaSignalWriter::new(&config).append(&[signal("taxes", 1, now_ms())]).await;
    assert!(matches!(appended, Err(AppendError::Unavailable(_))), "{appended:?}");
    let got = read(&KafkaSignalReader::new(&config), all()).await;
    assert!(matches!(got, Err(ReadError::Unavailable(_))), "{got:?}");
}
