//! What moving submissions to another topic asks of Kafka: the new topic, a copy of the records, and that the old topic takes
//! no more.
//!
//! **A topic is sealed** by a largest record of one byte (`max.message.bytes`), less than any record has. The brokers refuse
//! every append then, also that of a producer that has slept meanwhile, and go on serving what is there. How large a record
//! was allowed to be is kept in the new topic, which is created like the old one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use schemas::{
    Action, BudgetId, LogRef, PartitionId, PersonKey, Submission, SubmissionId, encode_record,
    partition_for,
};
use uuid::Uuid;

use super::KafkaConfig;
use super::producer::{IdempotentProducer, Outgoing, is_refusal_of_a_sealed_log};
use super::topics::check_topic;
use super::writer::start;
use crate::log::AppendError;

const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// For an ingest whose timers are late.
const ACKNOWLEDGEMENT_MARGIN: Duration = Duration::from_millis(200);
/// A copy may wait for a broker that changes its place; nobody waits for it by HTTP.
const COPY_TIMEOUT: Duration = Duration::from_secs(60);
const COPY_LINGER: Duration = Duration::from_millis(5);

/// What seals a topic.
const LARGEST_RECORD: &str = "max.message.bytes";
const NONE_IS_SO_SMALL: &str = "1";
/// A new log keeps everything until an operator says otherwise: it has no archive yet.
const KEPT_FOR_EVER: [(&str, &str); 3] =
    [("retention.ms", "-1"), ("retention.bytes", "-1"), ("cleanup.policy", "delete")];
/// What is said of the old log's bytes and brokers, and is true of no other.
const OF_ONE_TOPIC: [&str; 2] = ["local.retention.", ".replication.throttled.replicas"];

/// Why Kafka did not do it, or did not say so: it may be asked again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Kafka: {0}")]
pub struct MoveError(String);

impl MoveError {
    fn new(reason: impl ToString) -> Self {
        Self(reason.to_string())
    }
}

/// A topic's settings that are its own.
type Settings = Vec<(String, String)>;

/// Moves submissions from topic to topic.
pub struct LogMover {
    config: KafkaConfig,
}

impl LogMover {
    /// On this Kafka, which is not asked yet.
    pub fn new(config: &KafkaConfig) -> Self {
        Self { config: config.clone() }
    }

    /// Creates an empty log with the settings of another, and as many replicas at least.
    ///
    /// # Errors
    /// When it is there already, or Kafka does not create it.
    pub async fn create(&self, log: &LogRef, like: &LogRef) -> Result<(), MoveError> {
        let settings = self.settings(like).await?;
        let replicas = self.replicas(like).await?.unwrap_or_default();
        let replicas = replicas.max(self.config.replication_factor as usize);
        let replication = TopicReplication::Fixed(i32::try_from(replicas).unwrap_or(i32::MAX));
        let mut topic = NewTopic::new(&log.topic, log.partitions.get() as i32, replication);
        for (name, value) in KEPT_FOR_EVER {
            topic = topic.set(name, value);
        }
        for (name, value) in settings.iter().filter(|(name, _)| is_taken_over(name)) {
            topic = topic.set(name, value);
        }
        let created = self.admin()?.create_topics(&[topic], &options()).await;
        for outcome in created.map_err(MoveError::new)? {
            outcome.map_err(|(topic, code)| MoveError(format!("topic `{topic}`: {code}")))?;
        }
        check_topic(&self.config, log).await.map_err(MoveError::new)
    }

    /// Deletes a log that never took submissions.
    ///
    /// # Errors
    /// When Kafka does not.
    pub async fn delete(&self, log: &LogRef) -> Result<(), MoveError> {
        let deleted = self.admin()?.delete_topics(&[&log.topic], &options()).await;
        for outcome in deleted.map_err(MoveError::new)? {
            match outcome {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((topic, code)) => return Err(MoveError(format!("topic `{topic}`: {code}"))),
            }
        }
        Ok(())
    }

    /// Whether a topic of that name is there, whoever created it.
    ///
    /// # Errors
    /// When Kafka does not say.
    pub async fn is_there(&self, log: &LogRef) -> Result<bool, MoveError> {
        Ok(self.replicas(log).await?.is_some())
    }

    /// How many copies each record of a topic has; `None` if there is no such topic.
    async fn replicas(&self, log: &LogRef) -> Result<Option<usize>, MoveError> {
        let (admin, topic) = (self.admin()?, log.topic.clone());
        let asking = tokio::task::spawn_blocking(move || {
            let metadata = admin.inner().fetch_metadata(Some(&topic), ADMIN_TIMEOUT)?;
            let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
            Ok(partitions.iter().map(|partition| partition.replicas().len()).min())
        });
        let asked: Result<_, KafkaError> = asking.await.map_err(MoveError::new)?;
        asked.map_err(MoveError::new)
    }

    /// How long an append may still be acknowledged that the brokers had taken before they refused every other.
    pub fn last_acknowledgements(&self) -> Duration {
        self.config.delivery_timeout + ACKNOWLEDGEMENT_MARGIN
    }

    /// Whether a log is, or is about to be, sealed.
    ///
    /// # Errors
    /// When Kafka does not say.
    pub async fn is_sealed(&self, log: &LogRef) -> Result<bool, MoveError> {
        let settings = self.settings(log).await?;
        Ok(settings.iter().any(|(name, value)| name == LARGEST_RECORD && value == NONE_IS_SO_SMALL))
    }

    /// Seals a log. When its brokers refuse records, [`refuses`](Self::refuses) says.
    ///
    /// # Errors
    /// When Kafka does not say that it does: it may all the same.
    pub async fn seal(&self, log: &LogRef) -> Result<(), MoveError> {
        self.set_largest_record(log, Some(NONE_IS_SO_SMALL.to_owned())).await
    }

    /// Lets a log take records again: as large as the log takes that was created like it, or as its brokers' default is.
    ///
    /// # Errors
    /// When Kafka does not say that it does: it may all the same.
    pub async fn unseal(&self, log: &LogRef, like: Option<&LogRef>) -> Result<(), MoveError> {
        let settings = match like {
            // One that is gone, or was never created, says nothing.
            Some(like) => self.settings(like).await.unwrap_or_default(),
            None => Settings::new(),
        };
        let largest = settings.into_iter().find(|(name, _)| name == LARGEST_RECORD);
        self.set_largest_record(log, largest.map(|(_, value)| value)).await
    }

    /// Whether every partition's broker refuses records now. Whoever takes the record by which that is found out has one more
    /// in its log, which changes nothing: a person whom nobody is withdraws.
    ///
    /// # Errors
    /// When some partition's broker does not say.
    pub async fn refuses(&self, log: &LogRef, budget: &BudgetId) -> Result<bool, MoveError> {
        let (config, log, budget) = (self.config.clone(), log.clone(), budget.clone());
        let probing = tokio::task::spawn_blocking(move || probe(&config, &log, &budget));
        probing.await.map_err(MoveError::new)?
    }

    /// A copier into a log.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub fn copier(&self, log: &LogRef) -> Result<LogCopier, MoveError> {
        let config = KafkaConfig {
            delivery_timeout: COPY_TIMEOUT,
            linger: COPY_LINGER,
            ..self.config.clone()
        };
        let producer = start(&config, log.topic.clone()).map_err(MoveError::new)?;
        Ok(LogCopier { producer })
    }

    fn admin(&self) -> Result<AdminClient<DefaultClientContext>, MoveError> {
        self.config.client().create().map_err(MoveError::new)
    }

    async fn settings(&self, log: &LogRef) -> Result<Settings, MoveError> {
        let described = self
            .admin()?
            .describe_configs(&[ResourceSpecifier::Topic(&log.topic)], &options())
            .await
            .map_err(MoveError::new)?;
        let mut settings = Settings::new();
        for topic in described {
            let topic =
                topic.map_err(|code| MoveError(format!("topic `{}`: {code}", log.topic)))?;
            let own =
                topic.entries.into_iter().filter(|it| it.source == ConfigSource::DynamicTopic);
            settings.extend(own.filter_map(|entry| Some((entry.name, entry.value?))));
        }
        Ok(settings)
    }

    /// The request names all settings that are to be there afterwards.
    async fn set_largest_record(
        &self,
        log: &LogRef,
        largest: Option<String>,
    ) -> Result<(), MoveError> {
        let mut settings = self.settings(log).await?;
        settings.retain(|(name, _)| name != LARGEST_RECORD);
        settings.extend(largest.map(|value| (LARGEST_RECORD.to_owned(), value)));
        let mut change = AlterConfig::new(ResourceSpecifier::Topic(&log.topic));
        for (name, value) in &settings {
            change = change.set(name, value);
        }
        let changed = self.admin()?.alter_configs(&[change], &options()).await;
        for outcome in changed.map_err(MoveError::new)? {
            outcome.map_err(|(_, code)| MoveError(format!("topic `{}`: {code}", log.topic)))?;
        }
        Ok(())
    }
}

/// Whether a new log has a setting of the one before.
fn is_taken_over(name: &str) -> bool {
    KEPT_FOR_EVER.iter().all(|(own, _)| *own != name)
        && OF_ONE_TOPIC.iter().all(|part| !name.contains(part))
}

fn options() -> AdminOptions {
    AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT)).request_timeout(Some(ADMIN_TIMEOUT))
}

/// Appends copies of records to a log, in the order in which they are given.
pub struct LogCopier {
    producer: Arc<IdempotentProducer>,
}

/// The copy of a record, and where it goes.
#[derive(Debug, Clone, Copy)]
pub struct CopiedRecord<'r> {
    /// The partition.
    pub partition: PartitionId,
    /// The record's key.
    pub key: &'r [u8],
    /// The record's value.
    pub value: &'r [u8],
}

impl LogCopier {
    /// Appends records, and answers once all are durable.
    ///
    /// # Errors
    /// When some may not be: it is not known then what is in the log, which is of no use any more.
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
        self.producer.send(outgoing).await.into_iter().try_for_each(|answer| answer.map(drop))
    }
}

/// What the brokers say to the probes.
#[derive(Default)]
struct Answers(Mutex<Vec<Result<(), KafkaError>>>);

impl ClientContext for Answers {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "probing a sealed topic");
    }
}

impl ProducerContext for Answers {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let answer = result.as_ref().map(drop).map_err(|(error, _)| error.clone());
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }
}

fn probe(config: &KafkaConfig, log: &LogRef, budget: &BudgetId) -> Result<bool, MoveError> {
    let producer: BaseProducer<Answers> = config
        .client()
        .set("acks", "all")
        .set("message.send.max.retries", "0")
        .set("message.timeout.ms", PROBE_TIMEOUT.as_millis().to_string())
        .set("linger.ms", "0")
        .create_with_context(Answers::default())
        .map_err(MoveError::new)?;
    for partition in log.partitions.partitions() {
        let nobody = nobody_of(partition, log);
        let withdrawal = encode_record(&Submission {
            budget: budget.clone(),
            person: nobody,
            id: SubmissionId(Uuid::new_v4()),
            accepted_at_ms: 0,
            action: Action::Withdraw,
        });
        let record = BaseRecord::<[u8], [u8]>::to(&log.topic)
            .partition(partition.0 as i32)
            .key(nobody.as_bytes().as_slice())
            .payload(&withdrawal);
        producer.send(record).map_err(|(error, _)| MoveError::new(error))?;
    }
    producer.flush(PROBE_TIMEOUT * 2).map_err(MoveError::new)?;
    let answers =
        std::mem::take(&mut *producer.context().0.lock().unwrap_or_else(PoisonError::into_inner));
    if answers.len() != log.partitions.get() as usize {
        return Err(MoveError::new("not every partition has answered"));
    }
    let mut refused = true;
    for answer in answers {
        match answer {
            Ok(()) => refused = false,
            Err(error) if is_refusal_of_a_sealed_log(&error) => {}
            Err(error) => return Err(MoveError::new(error)),
        }
    }
    Ok(refused)
}

/// A person who belongs to the partition, and whom nobody is.
fn nobody_of(partition: PartitionId, log: &LogRef) -> PersonKey {
    loop {
        let nobody = PersonKey::from_bytes(*Uuid::new_v4().as_bytes());
        if partition_for(&nobody, log.partitions) == partition {
            return nobody;
        }
    }
}
