//! Checks the settings of topics on which the promises rest: replicas in sync, and the largest record.

use std::time::{Duration, Instant};

use rdkafka::admin::{ConfigResource, ResourceSpecifier};

use super::KafkaConfig;
use super::admin::{Admin, METADATA_POLL_INTERVAL, admin_options};
use super::polled_producer::MAX_BATCH_BYTES;
use super::seal::SEALED_MAX_BYTES;
use super::topic_error::{MAX_MESSAGE_BYTES, MIN_INSYNC_REPLICAS, TopicError};

/// How long the settings of a new topic may be unknown to some broker.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(5);

/// Checks that an acknowledged record survives the loss of any minority of its replicas, and that only a sealed topic
/// rejects batches of the producer for their size.
pub(super) async fn check_settings(
    config: &KafkaConfig,
    topics: impl IntoIterator<Item = &str>,
    admin: &Admin,
) -> Result<(), TopicError> {
    let topics: Vec<&str> = topics.into_iter().collect();
    let deadline = Instant::now() + SETTINGS_TIMEOUT;
    loop {
        let checked = read_and_check(config, &topics, admin).await?.into_iter().next();
        // A broker may know a new topic for a moment without its settings.
        match checked {
            None => return Ok(()),
            Some(refused) if Instant::now() > deadline => return Err(refused),
            Some(_) => {}
        }
        // These requests have a thread of their own, which outlives the runtime and its timers.
        std::thread::sleep(METADATA_POLL_INTERVAL);
    }
}

/// Returns each setting of the topics with which a start would be refused, and each topic whose settings cannot be read.
pub(super) async fn refused_settings(
    config: &KafkaConfig,
    topics: impl IntoIterator<Item = &str>,
    admin: &Admin,
) -> Result<Vec<TopicError>, TopicError> {
    let topics: Vec<&str> = topics.into_iter().collect();
    read_and_check(config, &topics, admin).await
}

async fn read_and_check(
    config: &KafkaConfig,
    topics: &[&str],
    admin: &Admin,
) -> Result<Vec<TopicError>, TopicError> {
    let mut refused = Vec::new();
    // One by one: an error of one topic does not say which.
    for topic in topics {
        let specifier = [ResourceSpecifier::Topic(topic)];
        let described = admin.describe_configs(&specifier, &admin_options()).await;
        for resource in described.map_err(|error| TopicError::unavailable(config, error))? {
            let topic = (*topic).to_owned();
            match resource {
                Ok(resource) => {
                    let checked = [
                        check_durability(config, &topic, &resource),
                        check_record_size(&topic, &resource),
                    ];
                    refused.extend(checked.into_iter().filter_map(Result::err));
                }
                Err(code) => {
                    let reason = code.to_string();
                    refused.push(TopicError::UnreadableSettings { topic, reason });
                }
            }
        }
    }
    Ok(refused)
}

fn check_durability(
    config: &KafkaConfig,
    topic: &str,
    resource: &ConfigResource,
) -> Result<(), TopicError> {
    let required = config.min_insync_replicas();
    let found = setting(resource, MIN_INSYNC_REPLICAS).and_then(|value| value.parse().ok());
    match found.unwrap_or(1) {
        found if found < required => {
            let (topic, replication_factor) = (topic.to_owned(), config.replication_factor);
            Err(TopicError::Durability { topic, found, required, replication_factor })
        }
        _ => Ok(()),
    }
}

/// The limit of a sealed topic is one that nobody else sets.
fn check_record_size(topic: &str, resource: &ConfigResource) -> Result<(), TopicError> {
    let Some(value) = setting(resource, MAX_MESSAGE_BYTES).filter(|it| *it != SEALED_MAX_BYTES)
    else {
        return Ok(());
    };
    match value.parse::<u64>() {
        Ok(found) if found < MAX_BATCH_BYTES => Err(TopicError::SmallRecords {
            topic: topic.to_owned(),
            found,
            required: MAX_BATCH_BYTES,
        }),
        _ => Ok(()),
    }
}

fn setting<'r>(resource: &'r ConfigResource, name: &str) -> Option<&'r str> {
    resource.get(name)?.value.as_deref()
}
