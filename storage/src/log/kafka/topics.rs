//! The deployment's topics: creates missing ones, and checks the partition counts of the others.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use schemas::{LogNumber, LogRef};

use super::KafkaConfig;
use crate::log_identity::LogIdentity;
use crate::open_error::OpenError;

const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
const METADATA_POLL_INTERVAL: Duration = Duration::from_millis(50);
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the topics cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Kafka is unavailable: try again.
    #[error("Kafka at {brokers} does not respond: {reason}")]
    Unavailable {
        /// The configured brokers.
        brokers: String,
        /// The client's error.
        reason: String,
    },
    /// The topic has another partition count: keys would change partitions, and people would be counted twice.
    #[error(
        "topic `{topic}` has {found} partitions, but this generation has {expected}: set `log.partitions` to what the \
         generation was started with, and repartition into a new topic with `processor repartition`"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// The topic's partition count.
        found: usize,
        /// The expected partition count.
        expected: u32,
    },
}

impl From<TopicError> for OpenError {
    fn from(error: TopicError) -> Self {
        let (backend, reason) = ("the log", error.to_string());
        match error {
            TopicError::Unavailable { .. } => Self::Unavailable { backend, reason },
            TopicError::Partitions { .. } => Self::Invalid { backend, reason },
        }
    }
}

/// Creates the missing topics of dead letters and definitions, and checks the partition counts.
///
/// # Errors
/// When Kafka is unavailable, or a topic has another partition count.
pub(crate) async fn ensure_auxiliary_topics(config: &KafkaConfig) -> Result<(), TopicError> {
    ensure(
        config,
        &[(&config.dead_letters_topic(), 1, "delete"), (&config.definitions_topic, 1, "compact")],
    )
    .await
}

/// Ensures the auxiliary topics, and creates the deployment's first log if it is missing. A later log is only checked:
/// the repartition that copied the records into it has created it.
///
/// # Errors
/// When Kafka is unavailable, or a topic has another partition count.
pub async fn ensure_topics(config: &KafkaConfig, log: &LogRef) -> Result<(), TopicError> {
    ensure_auxiliary_topics(config).await?;
    match log.number {
        LogNumber::FIRST => ensure(config, &[(&log.topic, log.partitions.get(), "delete")]).await,
        _ => check_topic(config, log).await,
    }
}

async fn ensure(config: &KafkaConfig, wanted: &[(&str, u32, &str)]) -> Result<(), TopicError> {
    let unavailable = |error: KafkaError| TopicError::Unavailable {
        brokers: config.brokers.clone(),
        reason: error.to_string(),
    };
    let admin: AdminClient<DefaultClientContext> = config.client().create().map_err(unavailable)?;
    let topics: Vec<NewTopic<'_>> = wanted
        .iter()
        .map(|(name, partitions, cleanup_policy)| {
            let replication = TopicReplication::Fixed(config.replication_factor as i32);
            NewTopic::new(name, *partitions as i32, replication)
                .set("retention.ms", "-1")
                .set("cleanup.policy", cleanup_policy)
        })
        .collect();
    let options = AdminOptions::new()
        .operation_timeout(Some(ADMIN_TIMEOUT))
        .request_timeout(Some(ADMIN_TIMEOUT));
    for outcome in admin.create_topics(&topics, &options).await.map_err(unavailable)? {
        match outcome {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => {
                return Err(TopicError::Unavailable {
                    brokers: config.brokers.clone(),
                    reason: format!("topic `{topic}` cannot be created: {code}"),
                });
            }
        }
    }
    check_partition_counts(config, wanted, admin).await
}

/// Checks that a log's topic exists with the log's partition count. Creates nothing.
///
/// # Errors
/// When Kafka is unavailable, or the topic does not exist or has another partition count.
pub(super) async fn check_topic(config: &KafkaConfig, log: &LogRef) -> Result<(), TopicError> {
    let admin: AdminClient<DefaultClientContext> = config.client().create().map_err(|error| {
        TopicError::Unavailable { brokers: config.brokers.clone(), reason: error.to_string() }
    })?;
    check_partition_counts(config, &[(&log.topic, log.partitions.get(), "delete")], admin).await
}

/// Fetches the cluster's id. The client does not expose the topic's id, so a recreated topic is detected by its records.
///
/// # Errors
/// When Kafka is unavailable.
pub(super) async fn log_identity(config: &KafkaConfig) -> Result<LogIdentity, TopicError> {
    let unavailable =
        |reason: String| TopicError::Unavailable { brokers: config.brokers.clone(), reason };
    let client: BaseConsumer = config
        .client()
        .set("group.id", &config.group)
        .create()
        .map_err(|error| unavailable(error.to_string()))?;
    let cluster_id =
        tokio::task::spawn_blocking(move || client.client().fetch_cluster_id(IDENTITY_TIMEOUT))
            .await
            .ok()
            .flatten()
            .ok_or_else(|| unavailable("it did not report its cluster id".into()))?;
    Ok(LogIdentity { cluster_id, topic_id: String::new() })
}

/// Checks partition counts. Polls, since a new topic takes a moment to appear in every broker's metadata.
async fn check_partition_counts(
    config: &KafkaConfig,
    wanted: &[(&str, u32, &str)],
    admin: AdminClient<DefaultClientContext>,
) -> Result<(), TopicError> {
    let wanted: Vec<(String, u32)> =
        wanted.iter().map(|(name, count, _)| ((*name).to_owned(), *count)).collect();
    let brokers = config.brokers.clone();
    let unavailable =
        move |reason: String| TopicError::Unavailable { brokers: brokers.clone(), reason };
    let failed = unavailable.clone();
    tokio::task::spawn_blocking(move || {
        let deadline = Instant::now() + ADMIN_TIMEOUT;
        for (topic, expected) in wanted {
            loop {
                let metadata = admin
                    .inner()
                    .fetch_metadata(Some(&topic), ADMIN_TIMEOUT)
                    .map_err(|error| unavailable(error.to_string()))?;
                let found = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
                if found == expected as usize {
                    break;
                }
                if found != 0 {
                    return Err(TopicError::Partitions { topic, found, expected });
                }
                if Instant::now() > deadline {
                    return Err(unavailable(format!("topic `{topic}` has no leader")));
                }
                std::thread::sleep(METADATA_POLL_INTERVAL);
            }
        }
        Ok(())
    })
    .await
    .unwrap_or_else(|panicked| Err(failed(panicked.to_string())))
}
