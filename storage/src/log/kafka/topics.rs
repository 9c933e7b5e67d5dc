//! Our topics: created if absent, and checked to be what the generation says.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use schemas::{LogNumber, LogRef};

use super::KafkaConfig;
use crate::log::LogIdentity;

const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the topics cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Kafka does not answer: try again.
    #[error("Kafka at {brokers} does not answer: {reason}")]
    Unavailable {
        /// Where it was asked.
        brokers: String,
        /// What the client said.
        reason: String,
    },
    /// The topic exists with another partition count. Keys would change partitions and people be counted twice.
    #[error(
        "topic `{topic}` has {found} partitions, but this generation has {expected}: set `log.partitions` to what the \
         generation was started with, and repartition into a new topic with `processor repartition`"
    )]
    Partitions {
        /// Which topic.
        topic: String,
        /// How many it has.
        found: usize,
        /// How many it should have.
        expected: u32,
    },
}

/// Creates the topics that are missing beside the logs, and checks the partition count of those that are not.
///
/// # Errors
/// When Kafka does not answer, or a topic has another partition count.
pub(crate) async fn ensure_topics_beside(config: &KafkaConfig) -> Result<(), TopicError> {
    ensure(
        config,
        &[(&config.dead_letters_topic(), 1, "delete"), (&config.definitions_topic, 1, "compact")],
    )
    .await
}

/// As [`ensure_topics_beside`], and the same for the log that a new deployment begins with. A later one was created by who
/// copied everything into it: it is not created, only checked.
///
/// # Errors
/// When Kafka does not answer, or a topic has another partition count.
pub async fn ensure_topics(config: &KafkaConfig, log: &LogRef) -> Result<(), TopicError> {
    ensure_topics_beside(config).await?;
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

/// Checks that a log is there, with its partition count. Creates nothing.
///
/// # Errors
/// When Kafka does not answer, or the topic is not there or has another partition count.
pub(super) async fn check_topic(config: &KafkaConfig, log: &LogRef) -> Result<(), TopicError> {
    let admin: AdminClient<DefaultClientContext> = config.client().create().map_err(|error| {
        TopicError::Unavailable { brokers: config.brokers.clone(), reason: error.to_string() }
    })?;
    check_partition_counts(config, &[(&log.topic, log.partitions.get(), "delete")], admin).await
}

/// Which log it is, as far as the client can tell: not the topic's id, so that a topic that was created anew is known
/// by its records.
///
/// # Errors
/// When Kafka does not answer.
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
            .ok_or_else(|| unavailable("it does not tell its cluster id".into()))?;
    Ok(LogIdentity { cluster_id, topic_id: String::new() })
}

/// A topic that was just created takes a moment to be in every broker's metadata.
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
        let deadline = std::time::Instant::now() + ADMIN_TIMEOUT;
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
                if std::time::Instant::now() > deadline {
                    return Err(unavailable(format!("topic `{topic}` has no leader")));
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    })
    .await
    .unwrap_or_else(|panicked| Err(failed(panicked.to_string())))
}
