//! Checks the settings of topics on which the promises rest: replicas in sync, and the largest record.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, ConfigResource, OwnedResourceSpecifier, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use super::KafkaConfig;
use super::admin::{METADATA_POLL_INTERVAL, admin_options};
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
    admin: &AdminClient<DefaultClientContext>,
) -> Result<(), TopicError> {
    let topics: Vec<ResourceSpecifier<'_>> =
        topics.into_iter().map(ResourceSpecifier::Topic).collect();
    let deadline = Instant::now() + SETTINGS_TIMEOUT;
    loop {
        let checked = read_and_check(config, &topics, admin).await?.into_iter().next();
        // A broker may know a new topic for a moment without its settings.
        match checked {
            None => return Ok(()),
            Some(refused) if Instant::now() > deadline => return Err(refused),
            Some(_) => {}
        }
        tokio::time::sleep(METADATA_POLL_INTERVAL).await;
    }
}

/// Returns each setting of the topics with which a start would be refused.
pub(super) async fn refused_settings(
    config: &KafkaConfig,
    topics: impl IntoIterator<Item = &str>,
    admin: &AdminClient<DefaultClientContext>,
) -> Result<Vec<TopicError>, TopicError> {
    let topics: Vec<ResourceSpecifier<'_>> =
        topics.into_iter().map(ResourceSpecifier::Topic).collect();
    read_and_check(config, &topics, admin).await
}

async fn read_and_check(
    config: &KafkaConfig,
    topics: &[ResourceSpecifier<'_>],
    admin: &AdminClient<DefaultClientContext>,
) -> Result<Vec<TopicError>, TopicError> {
    let mut refused = Vec::new();
    let described = admin.describe_configs(topics, &admin_options()).await;
    for resource in described.map_err(|error| TopicError::unavailable(config, error))? {
        let resource = resource.map_err(|code| TopicError::unavailable(config, code))?;
        let OwnedResourceSpecifier::Topic(topic) = &resource.specifier else { continue };
        let checked =
            [check_durability(config, topic, &resource), check_record_size(topic, &resource)];
        refused.extend(checked.into_iter().filter_map(Result::err));
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
