//! Reads about the cluster and the deployment's topics. They create and change nothing.

use rdkafka::metadata::{Metadata, MetadataTopic};
use schemas::{LogNumber, LogRef, PartitionCount};

use super::KafkaConfig;
use super::admin::{ADMIN_TIMEOUT, Admin, with_admin};
use super::topic_error::TopicError;
use super::topic_settings::refused_settings;
use crate::log_identity::LogIdentity;

/// A cluster of as many brokers can keep three replicas of each record.
const REPLICATED_BROKERS: usize = 3;

/// Returns how many brokers the cluster has if it could keep three replicas and a topic of the control records or of
/// the first log has a partition with one.
///
/// # Errors
/// When Kafka is unavailable.
pub(crate) async fn brokers_without_replicas(
    config: &KafkaConfig,
) -> Result<Option<usize>, TopicError> {
    let topics = [config.control_topic.clone(), config.topic.clone()];
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
        let topics = [log_topic.as_str(), &owned.control_topic, &dead_letters];
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
    let fetch = async |admin: &Admin| admin.inner().fetch_cluster_id(ADMIN_TIMEOUT);
    let fetched = with_admin(config, fetch).await?;
    let cluster_id = fetched
        .ok_or_else(|| TopicError::unavailable(config, "it did not report its cluster id"))?;
    Ok(LogIdentity { cluster_id, topic_id: String::new() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::DefaultProducerContext;

    use super::*;
    use crate::log::kafka::test_config::config;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_topics_of_repartitions_are_found_without_the_first_one() {
        let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
        assert_eq!(later_logs(&config(cluster.bootstrap_servers())).await, Ok(Vec::new()));
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
        assert_eq!(
            later_logs(&config(cluster.bootstrap_servers())).await,
            Ok(vec![later(10, 4), later(2, 3)])
        );
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
                brokers_without_replicas(&config(cluster.bootstrap_servers())).await,
                Ok(expected),
                "{brokers} brokers, {replicas:?}"
            );
        }
    }
}
