//! The deployment's topics: creates missing ones, and checks partition counts and settings of the others.

use std::time::Instant;

use rdkafka::admin::{NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use schemas::{LogNumber, LogRef, SIGNAL_RETENTION_MS};

use super::KafkaConfig;
use super::admin::{ADMIN_TIMEOUT, Admin, METADATA_POLL_INTERVAL, admin_options, with_admin};
use super::topic_error::{MIN_INSYNC_REPLICAS, TopicError};
use super::topic_settings::check_settings;

/// How long a topic keeps its records.
const RETENTION_MS: &str = "retention.ms";
/// Records of signals that are deleted at once: the newest of them must be older than the retention.
const SIGNALS_SEGMENT_MS: &str = "86400000";
/// The age of a superseded record of a compacted topic at which Kafka compacts it, whatever else there is to compact.
const MAX_COMPACTION_LAG: (&str, &str) = ("max.compaction.lag.ms", "86400000");

/// Creates the missing topics of dead letters and definitions, and checks the others.
///
/// # Errors
/// When Kafka is unavailable, or a topic has another partition count, too few replicas in sync or too small records.
pub(crate) async fn ensure_auxiliary_topics(config: &KafkaConfig) -> Result<(), TopicError> {
    let wanted = [
        WantedTopic { name: config.dead_letters_topic(), partitions: 1, cleanup_policy: "delete" },
        WantedTopic {
            name: config.control_topic.clone(),
            partitions: 1,
            cleanup_policy: "compact",
        },
    ];
    ensure(config, wanted.into()).await.map_err(|error| match error {
        TopicError::Partitions { topic, found, .. } => {
            TopicError::AuxiliaryPartitions { topic, found }
        }
        other => other,
    })
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
