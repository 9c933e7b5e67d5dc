//! The Kafka side of a repartition: creates the new topic, copies records into it, and seals the old topic.
//!
//! The new topic copies the old topic's settings, so it keeps the largest record size that was allowed before sealing.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AlterConfig, ConfigSource, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::error::RDKafkaErrorCode;
use schemas::{BudgetId, LogRef, PartitionId};

use super::KafkaConfig;
use super::admin::{ADMIN_TIMEOUT, Admin, admin_options, with_admin};
use super::client_threads::create_client;
use super::producer::{IdempotentProducer, Outgoing};
use super::seal::{SEALED_MAX_BYTES, probe_rejects_appends};
use super::topic_error::MAX_MESSAGE_BYTES;
use super::topic_migration_error::TopicMigrationError;
use super::topics::check_topic;
use crate::log::AppendError;

/// Tolerance for late timers in the ingest processes.
const ACKNOWLEDGEMENT_MARGIN: Duration = Duration::from_millis(200);
/// A copy may wait for a change of leaders, since no client waits for it.
const COPY_DELIVERY_TIMEOUT: Duration = Duration::from_secs(60);
const COPY_LINGER: Duration = Duration::from_millis(5);

/// Settings of a new log, which keeps all records until an operator changes them: it has no archive yet.
const NEW_LOG_SETTINGS: [(&str, &str); 3] =
    [("retention.ms", "-1"), ("retention.bytes", "-1"), ("cleanup.policy", "delete")];
/// Parts of the names of settings that concern the old topic's data and brokers only.
const UNCOPIED_SETTINGS: [&str; 2] = ["local.retention.", ".replication.throttled.replicas"];

/// A topic's own settings, by name.
type Settings = Vec<(String, String)>;

/// Migrates submissions from one topic to another.
pub struct TopicMigrator {
    config: KafkaConfig,
}

impl TopicMigrator {
    /// Creates a migrator without connecting to Kafka.
    pub fn new(config: &KafkaConfig) -> Self {
        Self { config: config.clone() }
    }

    /// Creates an empty log with the settings and at least the replication factor of `template`.
    ///
    /// # Errors
    /// When the topic exists already, or Kafka does not create it.
    pub async fn create(&self, log: &LogRef, template: &LogRef) -> Result<(), TopicMigrationError> {
        let settings = self.settings(template).await?;
        let replicas = self.replicas(template).await?.unwrap_or_default();
        let replicas = replicas.max(self.config.replication_factor as usize);
        let new = log.clone();
        let create = async move |admin: &Admin| {
            let replication = TopicReplication::Fixed(i32::try_from(replicas).unwrap_or(i32::MAX));
            let mut topic = NewTopic::new(&new.topic, new.partitions.get() as i32, replication);
            for (name, value) in NEW_LOG_SETTINGS {
                topic = topic.set(name, value);
            }
            for (name, value) in settings.iter().filter(|(name, _)| is_copied(name)) {
                topic = topic.set(name, value);
            }
            admin.create_topics(&[topic], &admin_options()).await
        };
        for result in self.with_admin(create).await?.map_err(TopicMigrationError::new)? {
            result.map_err(|(topic, code)| TopicMigrationError::of_topic(&topic, code))?;
        }
        check_topic(&self.config, log).await.map_err(TopicMigrationError::new)
    }

    /// Deletes a log that has never been the active one. Does nothing if the topic does not exist.
    ///
    /// # Errors
    /// When Kafka does not delete the topic.
    pub async fn delete(&self, log: &LogRef) -> Result<(), TopicMigrationError> {
        let topic = log.topic.clone();
        let delete =
            async move |admin: &Admin| admin.delete_topics(&[&topic], &admin_options()).await;
        for result in self.with_admin(delete).await?.map_err(TopicMigrationError::new)? {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => return Err(TopicMigrationError::of_topic(&topic, code)),
            }
        }
        Ok(())
    }

    /// Returns whether a topic of that name exists.
    ///
    /// # Errors
    /// When Kafka is unavailable.
    pub async fn exists(&self, log: &LogRef) -> Result<bool, TopicMigrationError> {
        Ok(self.replicas(log).await?.is_some())
    }

    /// Returns the smallest replica count of the topic's partitions; `None` if the topic does not exist.
    async fn replicas(&self, log: &LogRef) -> Result<Option<usize>, TopicMigrationError> {
        let topic = log.topic.clone();
        let fetch =
            async move |admin: &Admin| admin.inner().fetch_metadata(Some(&topic), ADMIN_TIMEOUT);
        let metadata = self.with_admin(fetch).await?.map_err(TopicMigrationError::new)?;
        let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        Ok(partitions.iter().map(|partition| partition.replicas().len()).min())
    }

    /// Returns how long after sealing an ingest may still report an append as accepted.
    pub fn max_acknowledgement_delay(&self) -> Duration {
        self.config.delivery_timeout + ACKNOWLEDGEMENT_MARGIN
    }

    /// Returns whether a log is sealed, or its brokers are about to learn that it is.
    ///
    /// # Errors
    /// When Kafka is unavailable.
    pub async fn is_sealed(&self, log: &LogRef) -> Result<bool, TopicMigrationError> {
        let settings = self.settings(log).await?;
        Ok(settings
            .iter()
            .any(|(name, value)| name == MAX_MESSAGE_BYTES && value == SEALED_MAX_BYTES))
    }

    /// Seals a log. [`rejects_appends`](Self::rejects_appends) shows when its brokers have applied it.
    ///
    /// # Errors
    /// When Kafka does not confirm it. The log may be sealed anyway.
    pub async fn seal(&self, log: &LogRef) -> Result<(), TopicMigrationError> {
        self.set_max_message_bytes(log, Some(SEALED_MAX_BYTES.to_owned())).await
    }

    /// Unseals a log. Restores the largest record from `copy`, which was created from the log, or the brokers' default.
    ///
    /// # Errors
    /// When Kafka does not confirm it. The log may be unsealed anyway.
    pub async fn unseal(
        &self,
        log: &LogRef,
        copy: Option<&LogRef>,
    ) -> Result<(), TopicMigrationError> {
        let settings = match copy {
            // The copy may be deleted, or may never have been created. Any other error must not pass for "no settings".
            Some(copy) if self.exists(copy).await? => self.settings(copy).await?,
            Some(_) | None => Settings::new(),
        };
        let max_bytes = settings.into_iter().find(|(name, _)| name == MAX_MESSAGE_BYTES);
        self.set_max_message_bytes(log, max_bytes.map(|(_, value)| value)).await
    }

    /// Returns whether the brokers of all partitions reject appends, by appending probes. An accepted probe stays in
    /// the log, and changes no totals: it withdraws a person who has submitted nothing.
    ///
    /// # Errors
    /// When a partition's broker does not answer.
    pub async fn rejects_appends(
        &self,
        log: &LogRef,
        budget: &BudgetId,
    ) -> Result<bool, TopicMigrationError> {
        let (config, log, budget) = (self.config.clone(), log.clone(), budget.clone());
        let probing =
            tokio::task::spawn_blocking(move || probe_rejects_appends(&config, &log, &budget));
        probing.await.map_err(TopicMigrationError::new)?
    }

    /// Creates a copier into a log.
    ///
    /// # Errors
    /// When the Kafka client cannot be created.
    pub async fn copier(&self, log: &LogRef) -> Result<LogCopier, TopicMigrationError> {
        let config = KafkaConfig {
            delivery_timeout: COPY_DELIVERY_TIMEOUT,
            linger: COPY_LINGER,
            ..self.config.clone()
        };
        let topic = log.topic.clone();
        let start = |config: &KafkaConfig| IdempotentProducer::start(config, topic);
        let producer = create_client(&config, start).await.map_err(TopicMigrationError::new)?;
        Ok(LogCopier { producer })
    }

    async fn with_admin<T: Send + 'static>(
        &self,
        requests: impl AsyncFnOnce(&Admin) -> T + Send + 'static,
    ) -> Result<T, TopicMigrationError> {
        with_admin(&self.config, requests).await.map_err(TopicMigrationError::new)
    }

    /// Reads the settings that were set for the topic itself, without the brokers' defaults.
    async fn settings(&self, log: &LogRef) -> Result<Settings, TopicMigrationError> {
        let topic = log.topic.clone();
        let describe = async move |admin: &Admin| {
            admin.describe_configs(&[ResourceSpecifier::Topic(&topic)], &admin_options()).await
        };
        let described = self.with_admin(describe).await?.map_err(TopicMigrationError::new)?;
        let mut settings = Settings::new();
        for topic in described {
            let topic = topic.map_err(|code| TopicMigrationError::of_topic(&log.topic, code))?;
            let own = topic
                .entries
                .into_iter()
                .filter(|entry| entry.source == ConfigSource::DynamicTopic);
            settings.extend(own.filter_map(|entry| Some((entry.name, entry.value?))));
        }
        Ok(settings)
    }

    /// Sets or removes the largest record. The request replaces all of the topic's own settings, so it repeats them.
    async fn set_max_message_bytes(
        &self,
        log: &LogRef,
        max_bytes: Option<String>,
    ) -> Result<(), TopicMigrationError> {
        let mut settings = self.settings(log).await?;
        settings.retain(|(name, _)| name != MAX_MESSAGE_BYTES);
        settings.extend(max_bytes.map(|value| (MAX_MESSAGE_BYTES.to_owned(), value)));
        let topic = log.topic.clone();
        let alter = async move |admin: &Admin| {
            let mut change = AlterConfig::new(ResourceSpecifier::Topic(&topic));
            for (name, value) in &settings {
                change = change.set(name, value);
            }
            admin.alter_configs(&[change], &admin_options()).await
        };
        for result in self.with_admin(alter).await?.map_err(TopicMigrationError::new)? {
            result.map_err(|(_, code)| TopicMigrationError::of_topic(&log.topic, code))?;
        }
        Ok(())
    }
}

/// Returns whether a new log copies a setting of the old one.
fn is_copied(name: &str) -> bool {
    NEW_LOG_SETTINGS.iter().all(|(own, _)| *own != name)
        && UNCOPIED_SETTINGS.iter().all(|part| !name.contains(part))
}

/// Appends copies of records to a log, in the given order.
pub struct LogCopier {
    producer: Arc<IdempotentProducer>,
}

/// The copy of a record, with its partition in the new log.
#[derive(Debug, Clone, Copy)]
pub struct CopiedRecord<'r> {
    /// The partition in the new log.
    pub partition: PartitionId,
    /// The record's key.
    pub key: &'r [u8],
    /// The record's value.
    pub value: &'r [u8],
}

impl LogCopier {
    /// Appends copies, and returns once all of them are durable.
    ///
    /// # Errors
    /// When some may not be durable. The content of the new log is unknown then, and the log must be discarded.
    pub async fn append<'r>(
        &self,
        copies: impl ExactSizeIterator<Item = CopiedRecord<'r>>,
    ) -> Result<(), AppendError> {
        let outgoing = copies.map(|copy| Outgoing {
            partition: copy.partition.0,
            key: copy.key,
            value: copy.value,
            headers: None,
        });
        self.producer.send(outgoing).await.into_iter().try_for_each(|result| result.map(drop))
    }
}
