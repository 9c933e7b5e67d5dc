//! The deployment's topics: creates missing ones, and checks partition counts and settings of the others.

use std::time::{Duration, Instant};

use rdkafka::admin::{NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{Metadata, MetadataTopic};

use schemas::{LogNumber, LogRef, PartitionCount, SIGNAL_RETENTION_MS};

use super::KafkaConfig;
use super::admin::{ADMIN_TIMEOUT, Admin, METADATA_POLL_INTERVAL, admin_options, with_admin};
use super::topic_error::{MIN_INSYNC_REPLICAS, TopicError};
use super::topic_settings::{check_settings, refused_settings};
use crate::log_identity::LogIdentity;

/// How long a topic keeps its records.
const RETENTION_MS: &str = "retention.ms";
/// Records of signals that are deleted at once: the newest of them must be older than the retention.
const SIGNALS_SEGMENT_MS: &str = "86400000";
/// The age of a superseded record of a compacted topic at which Kafka compacts it, whatever else there is to compact.
const MAX_COMPACTION_LAG: (&str, &str) = ("max.compaction.lag.ms", "86400000");
/// A cluster of as many brokers can keep three replicas of each record.
const REPLICATED_BROKERS: usize = 3;
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(10);

/// Creates the missing topics of dead letters and definitions, and checks the others.
///
/// # Errors
/// When Kafka is unavailable, or a topic has another partition count, too few replicas in sync or too small records.
pub(crate) async fn ensure_auxiliary_topics(config: &KafkaConfig) -> Result<(), TopicError> {
    let wanted = [
        WantedTopic { name: config.dead_letters_topic(), partitions: 1, cleanup_policy: "delete" },
        WantedTopic {
            name: config.definitions_topic.clone(),
            partitions: 1,
            cleanup_policy: "compact",
        },
    ];
    ensure(config, wanted.into()).await
}

/// Ensures the auxiliary topics, and creates the deployment's first log if it is missing. A later log is only checked:
/// the repartition that copied the records into it has created it.
///
/// # Errors
/// When Kafka is unavailable, or a topic has another partition count, too few replicas in sync or too small records.
pub async fn ensure_topics(config: &KafkaConfig, log: &LogRef) -> Result<(), TopicError> {
    ensure_auxiliary_topics(config).await?;
    match log.number {
        LogNumber::FIRST => {
            let (name, partitions) = (log.topic.clone(), log.partitions.get());
            ensure(config, vec![WantedTopic { name, partitions, cleanup_policy: "delete" }]).await
        }
        _ => check_topic(config, log).await,
    }
}

/// A topic that is created if it is missing.
struct WantedTopic {
    name: String,
    partitions: u32,
    cleanup_policy: &'static str,
}

async fn ensure(config: &KafkaConfig, wanted: Vec<WantedTopic>) -> Result<(), TopicError> {
    let owned = config.clone();
    with_admin(config, async move |admin| ensure_with(&owned, admin, &wanted).await).await?
}

async fn ensure_with(
    config: &KafkaConfig,
    admin: &Admin,
    wanted: &[WantedTopic],
) -> Result<(), TopicError> {
    let min_insync_replicas = config.min_insync_replicas().to_string();
    let topics: Vec<NewTopic<'_>> = wanted
        .iter()
        .map(|wanted| {
            let replication = TopicReplication::Fixed(config.replication_factor as i32);
            let topic = NewTopic::new(&wanted.name, wanted.partitions as i32, replication)
                .set(RETENTION_MS, "-1")
                .set(MIN_INSYNC_REPLICAS, &min_insync_replicas)
                .set("cleanup.policy", wanted.cleanup_policy);
            match wanted.cleanup_policy {
                "compact" => topic.set(MAX_COMPACTION_LAG.0, MAX_COMPACTION_LAG.1),
                _ => topic,
            }
        })
        .collect();
    let created = admin.create_topics(&topics, &admin_options()).await;
    for outcome in created.map_err(|error| TopicError::unavailable(config, error))? {
        match outcome {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                let reason = format!("topic `{topic}` cannot be created: {code}");
                return Err(TopicError::unavailable(config, reason));
            }
        }
    }
    let deadline = Instant::now() + ADMIN_TIMEOUT;
    for topic in wanted {
        check_partition_count(config, admin, &topic.name, topic.partitions, deadline)?;
    }
    check_settings(config, wanted.iter().map(|topic| topic.name.as_str()), admin).await
}

/// Creates the topic of signals if it is missing. An existing one is used as it is, with a warning if it keeps its
/// records for another time.
///
/// # Errors
/// When Kafka is unavailable.
pub(crate) async fn ensure_signals_topic(config: &KafkaConfig) -> Result<(), TopicError> {
    let owned = config.clone();
    with_admin(config, async move |admin| ensure_signals_with(&owned, admin).await).await?
}

async fn ensure_signals_with(config: &KafkaConfig, admin: &Admin) -> Result<(), TopicError> {
    let (topic, retention_ms) = (config.signals_topic(), SIGNAL_RETENTION_MS.to_string());
    let min_insync_replicas = config.min_insync_replicas().to_string();
    let replication = TopicReplication::Fixed(config.replication_factor as i32);
    let wanted = NewTopic::new(&topic, 1, replication)
        .set(RETENTION_MS, &retention_ms)
        .set("segment.ms", SIGNALS_SEGMENT_MS)
        .set(MIN_INSYNC_REPLICAS, &min_insync_replicas)
        .set("cleanup.policy", "delete");
    let created = admin.create_topics([&wanted], &admin_options()).await;
    let created = created.map_err(|error| TopicError::unavailable(config, error))?;
    match created.into_iter().next() {
        None | Some(Ok(_)) => Ok(()),
        Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => {
            warn_of_other_retention(config, &topic, admin).await
        }
        Some(Err((_, code))) => {
            let reason = format!("topic `{topic}` cannot be created: {code}");
            Err(TopicError::unavailable(config, reason))
        }
    }
}

async fn warn_of_other_retention(
    config: &KafkaConfig,
    topic: &str,
    admin: &Admin,
) -> Result<(), TopicError> {
    let described =
        admin.describe_configs([&ResourceSpecifier::Topic(topic)], &admin_options()).await;
    let described = described.map_err(|error| TopicError::unavailable(config, error))?;
    let found = described.into_iter().next().and_then(Result::ok).and_then(|resource| {
        resource.get(RETENTION_MS).and_then(|entry| entry.value.as_ref()?.parse::<i64>().ok())
    });
    match found {
        Some(retention_ms) if retention_ms != SIGNAL_RETENTION_MS.cast_signed() => {
            tracing::warn!(
                topic,
                retention_ms,
                expected_retention_ms = SIGNAL_RETENTION_MS,
                "topic of signals has another retention than seven days"
            );
        }
        _ => {}
    }
    Ok(())
}

/// Checks that a log's topic exists with the log's partition count and enough replicas in sync. Creates nothing.
///
/// # Errors
/// When Kafka is unavailable, or the topic does not exist, or has another partition count, too few replicas in sync
/// or too small records.
pub(super) async fn check_topic(config: &KafkaConfig, log: &LogRef) -> Result<(), TopicError> {
    let (owned, log) = (config.clone(), log.clone());
    let check = async move |admin: &Admin| {
        let deadline = Instant::now() + ADMIN_TIMEOUT;
        check_partition_count(&owned, admin, &log.topic, log.partitions.get(), deadline)?;
        check_settings(&owned, [log.topic.as_str()], admin).await
    };
    with_admin(config, check).await?
}

/// Returns how many brokers the cluster has if it could keep three replicas and a topic of the control records or of
/// the first log has a partition with one.
///
/// # Errors
/// When Kafka is unavailable.
pub(crate) async fn brokers_without_replicas(
    config: &KafkaConfig,
) -> Result<Option<usize>, TopicError> {
    let topics = [config.definitions_topic.clone(), config.topic.clone()];
    let metadata = fetch_all_topics(config).await?;
    let brokers = metadata.brokers().len();
    let has_one_replica = metadata
        .topics()
        .iter()
        .filter(|topic| topics.iter().any(|name| name == topic.name()))
        .flat_map(MetadataTopic::partitions)
        .any(|partition| partition.replicas().len() == 1);
    Ok((has_one_replica && brokers >= REPLICATED_BROKERS).then_some(brokers))
}

/// Returns each setting with which a start would be refused, of a log's topic and the auxiliary ones, and each of these
/// topics that cannot be read: they may have been changed since.
///
/// # Errors
/// When Kafka is unavailable.
pub(crate) async fn refused_settings_of(
    config: &KafkaConfig,
    log: &LogRef,
) -> Result<Vec<TopicError>, TopicError> {
    let (owned, log_topic) = (config.clone(), log.topic.clone());
    let read = async move |admin: &Admin| {
        let dead_letters = owned.dead_letters_topic();
        let topics = [log_topic.as_str(), &owned.definitions_topic, &dead_letters];
        refused_settings(&owned, topics, admin).await
    };
    with_admin(config, read).await?
}

/// Returns the later logs of the deployment whose topics exist: those of repartitions, the latest first.
///
/// # Errors
/// When Kafka is unavailable.
pub(crate) async fn later_logs(config: &KafkaConfig) -> Result<Vec<LogRef>, TopicError> {
    let prefix = format!("{}-", config.topic);
    let later_log = |topic: &MetadataTopic| {
        // As a repartition names them: another program may have `submissions-1` or `submissions-02`.
        let suffix = topic.name().strip_prefix(&prefix)?;
        let number = suffix.parse().ok().filter(|number: &u32| *number >= 2)?;
        if number.to_string() != suffix {
            return None;
        }
        let partitions = PartitionCount::new(topic.partitions().len() as u64).ok()?;
        Some(LogRef { number: LogNumber(number), topic: topic.name().to_owned(), partitions })
    };
    let metadata = fetch_all_topics(config).await?;
    let mut logs: Vec<_> = metadata.topics().iter().filter_map(later_log).collect();
    logs.sort_by_key(|log| std::cmp::Reverse(log.number));
    Ok(logs)
}

/// Fetches the metadata of all topics: asking for one that is absent may create it.
async fn fetch_all_topics(config: &KafkaConfig) -> Result<Metadata, TopicError> {
    let fetch = async |admin: &Admin| admin.inner().fetch_metadata(None, ADMIN_TIMEOUT);
    let fetched = with_admin(config, fetch).await?;
    fetched.map_err(|error| TopicError::unavailable(config, error))
}

/// Fetches the cluster's id. The client does not expose the topic's id, so a recreated topic is detected by its
/// records.
///
/// # Errors
/// When Kafka is unavailable.
pub(super) async fn log_identity(config: &KafkaConfig) -> Result<LogIdentity, TopicError> {
    let fetch = async |admin: &Admin| admin.inner().fetch_cluster_id(IDENTITY_TIMEOUT);
    let fetched = with_admin(config, fetch).await?;
    let cluster_id = fetched
        .ok_or_else(|| TopicError::unavailable(config, "it did not report its cluster id"))?;
    Ok(LogIdentity { cluster_id, topic_id: String::new() })
}

/// Checks one partition count. Polls, since a new topic takes a moment to appear in every broker's metadata. Blocks.
fn check_partition_count(
    config: &KafkaConfig,
    admin: &Admin,
    topic: &str,
    expected: u32,
    deadline: Instant,
) -> Result<(), TopicError> {
    loop {
        let metadata = admin
            .inner()
            .fetch_metadata(Some(topic), ADMIN_TIMEOUT)
            .map_err(|error| TopicError::unavailable(config, error))?;
        let found = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        if found == expected as usize {
            return Ok(());
        }
        if found != 0 {
            return Err(TopicError::Partitions { topic: topic.to_owned(), found, expected });
        }
        if Instant::now() > deadline {
            let reason = format!("topic `{topic}` has no leader");
            return Err(TopicError::unavailable(config, reason));
        }
        std::thread::sleep(METADATA_POLL_INTERVAL);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;

    fn config(cluster: &MockCluster<'_, DefaultProducerContext>) -> KafkaConfig {
        KafkaConfig {
            brokers: cluster.bootstrap_servers(),
            topic: "submissions".into(),
            definitions_topic: "definitions".into(),
            partitions: PartitionCount::new(2).unwrap(),
            replication_factor: 1,
            group: "group".into(),
            session_timeout: Duration::from_secs(6),
            delivery_timeout: Duration::from_millis(800),
            linger: Duration::from_millis(1),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_topics_of_repartitions_are_found_without_the_first_one() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        assert_eq!(later_logs(&config(&cluster)).await, Ok(Vec::new()));
        let topics = [
            "submissions-2",
            "submissions-10",
            "submissions-a",
            "submissions.signals",
            "submissions-1",
            "submissions-02",
        ];
        for (topic, partitions) in topics.into_iter().zip(3..) {
            cluster.create_topic(topic, partitions, 1).unwrap();
        }
        let later = |number, partitions| LogRef {
            number: LogNumber(number),
            topic: format!("submissions-{number}"),
            partitions: PartitionCount::new(partitions).unwrap(),
        };
        assert_eq!(later_logs(&config(&cluster)).await, Ok(vec![later(10, 4), later(2, 3)]));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn one_replica_is_reported_where_three_brokers_could_keep_more() {
        // Of the control topic and of the log, whatever is configured.
        let cases = [
            (1, [1, 1], None),
            (2, [1, 1], None),
            (3, [1, 1], Some(3)),
            (4, [3, 1], Some(4)),
            (3, [1, 3], Some(3)),
            (3, [3, 3], None),
        ];
        for (brokers, replicas, expected) in cases {
            let cluster: MockCluster<'_, DefaultProducerContext> =
                MockCluster::new(brokers).unwrap();
            for (topic, replicas) in ["definitions", "submissions"].into_iter().zip(replicas) {
                cluster.create_topic(topic, 2, replicas).unwrap();
            }
            cluster.create_topic("another program's", 1, 1).unwrap();
            assert_eq!(
                brokers_without_replicas(&config(&cluster)).await,
                Ok(expected),
                "{brokers} brokers, {replicas:?}"
            );
        }
    }
}
