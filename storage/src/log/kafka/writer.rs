//! Appends submissions to the active log, across a move to another topic.
//!
//! During a repartition the old topic is sealed: its brokers reject appends. Rejected records are held for some seconds
//! and appended to the new topic once it is announced; after that they are refused. A record that a sealed topic
//! rejected is not in it, with one harmless exception: if an acknowledgement was lost, and the record was sent again
//! after the topic was sealed, the record may be in both topics, with the same submission id.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use schemas::{LogRef, PartitionId, RecordAddress};
use tokio::sync::watch;
use tokio::time::Instant;

use super::KafkaConfig;
use super::append_target::AppendTargets;
use super::client_threads::create_client;
use super::topic_error::TopicError;
use super::topics::ensure_topics;
use crate::log::{AppendError, LogWriter, NewRecord};

/// How long records that a sealed log rejected are held. Longer than the cutover of a repartition usually takes, and
/// short enough for the client and for the in-flight entries of the idempotency store.
pub const SEALED_RETRY_TIMEOUT: Duration = Duration::from_secs(6);
/// First pause before a sealed log is tried again, in case it was unsealed. Doubled after each attempt, since an
/// attempt sends all records that are held.
const SEALED_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Appends submissions to the newest log that is announced as active.
pub struct KafkaLogWriter {
    targets: Arc<AppendTargets>,
}

impl KafkaLogWriter {
    /// Creates missing topics and starts a producer into `log`. Switches to the log's successor once `active_log` has
    /// one.
    ///
    /// # Errors
    /// When Kafka is unavailable, or the topic has another partition count than the log.
    pub async fn open(
        config: &KafkaConfig,
        log: &LogRef,
        active_log: watch::Receiver<Option<LogRef>>,
    ) -> Result<Self, TopicError> {
        ensure_topics(config, log).await?;
        let log = log.clone();
        create_client(config, move |config| Self::open_unchecked(config, &log, active_log)).await
    }

    /// Starts a producer without a request to Kafka, and blocks until the client's threads run: the topics must exist and have the right partition counts.
    ///
    /// # Errors
    /// When the Kafka client cannot be created.
    pub fn open_unchecked(
        config: &KafkaConfig,
        log: &LogRef,
        active_log: watch::Receiver<Option<LogRef>>,
    ) -> Result<Self, TopicError> {
        let targets = AppendTargets::start(config, log.clone(), active_log)?;
        Ok(Self { targets: Arc::new(targets) })
    }
}

#[async_trait]
impl LogWriter for KafkaLogWriter {
    async fn append(&self, records: Vec<NewRecord>) -> Vec<Result<RecordAddress, AppendError>> {
        let deadline = Instant::now() + SEALED_RETRY_TIMEOUT;
        let mut pause = SEALED_RETRY_DELAY;
        let mut target = self.targets.switch_to_active(deadline).await;
        let mut results = target.append(records.iter()).await;
        while results.contains(&Err(AppendError::Sealed))
            && self.targets.wait_for_retry(target.number(), pause, deadline).await
        {
            pause *= 2;
            target = self.targets.switch_to_active(deadline).await;
            let is_rejected =
                |(result, _): &(&mut Result<_, _>, _)| **result == Err(AppendError::Sealed);
            let rejected: Vec<_> = results.iter_mut().zip(&records).filter(is_rejected).collect();
            let retried = target.append(rejected.iter().map(|(_, record)| *record)).await;
            for ((result, _), retried) in rejected.into_iter().zip(retried) {
                *result = retried;
            }
        }
        results
    }

    fn available(&self) -> Result<(), AppendError> {
        self.targets.current().available()
    }

    fn refused_partitions(&self) -> Vec<PartitionId> {
        self.targets.current().refused_partitions()
    }
}
