//! The log that appends go to. Switches to the log's successor when submissions move to another topic.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use schemas::{LogNumber, LogRef, PartitionId, RecordAddress, partition_for};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout_at};

use super::KafkaConfig;
use super::client_threads::create_client;
use super::producer::{IdempotentProducer, Outgoing};
use super::topic_error::TopicError;
use crate::log::{AppendError, NewRecord};

/// One log and its producer.
pub(super) struct AppendTarget {
    log: LogRef,
    producer: Arc<IdempotentProducer>,
}

impl AppendTarget {
    fn start(config: &KafkaConfig, log: LogRef) -> Result<Self, TopicError> {
        Ok(Self { producer: IdempotentProducer::start(config, log.topic.clone())?, log })
    }

    /// Appends records to the partitions of their keys.
    pub async fn append<'r>(
        &self,
        records: impl ExactSizeIterator<Item = &'r NewRecord> + Clone,
    ) -> Vec<Result<RecordAddress, AppendError>> {
        let partition = |record: &NewRecord| partition_for(&record.key, self.log.partitions);
        let outgoing = records.clone().map(|record| Outgoing {
            partition: partition(record).0,
            key: record.key.as_bytes(),
            value: &record.value,
            headers: None,
        });
        let offsets = self.producer.send(outgoing).await;
        let receipt = |(record, offset): (_, Result<_, _>)| {
            offset.map(|offset| RecordAddress {
                log: self.log.number,
                partition: partition(record),
                offset,
            })
        };
        records.zip(offsets).map(receipt).collect()
    }

    pub fn number(&self) -> LogNumber {
        self.log.number
    }

    pub fn available(&self) -> Result<(), AppendError> {
        self.producer.available()
    }

    pub fn refused_partitions(&self) -> Vec<PartitionId> {
        self.producer.refused_partitions()
    }
}

/// Holds the current target, and switches it when a newer log becomes the active one.
pub(super) struct AppendTargets {
    config: KafkaConfig,
    current: ArcSwap<AppendTarget>,
    active_log: watch::Receiver<Option<LogRef>>,
    /// Serializes switches.
    switching: Mutex<()>,
}

impl AppendTargets {
    pub fn start(
        config: &KafkaConfig,
        log: LogRef,
        active_log: watch::Receiver<Option<LogRef>>,
    ) -> Result<Self, TopicError> {
        let current = ArcSwap::from_pointee(AppendTarget::start(config, log)?);
        Ok(Self { config: config.clone(), current, active_log, switching: Mutex::default() })
    }

    /// Returns the current target, without checking for a switch.
    pub fn current(&self) -> Arc<AppendTarget> {
        self.current.load_full()
    }

    /// Switches to the active log if it is newer than the target. Returns the target.
    ///
    /// At the deadline, a switch goes on for later appends, and the target is still the former one.
    pub async fn switch_to_active(self: &Arc<Self>, deadline: Instant) -> Arc<AppendTarget> {
        let current = self.current();
        let newer = match &*self.active_log.borrow() {
            Some(log) if log.number > current.log.number => log.clone(),
            _ => return current,
        };
        let this = Arc::clone(self);
        let switching = tokio::spawn(async move { this.switch_to(newer, deadline).await });
        match timeout_at(deadline, switching).await {
            Ok(Ok(target)) => target,
            Ok(Err(_)) | Err(_) => self.current(),
        }
    }

    /// Does not begin after the deadline: its append has been answered.
    async fn switch_to(&self, log: LogRef, deadline: Instant) -> Arc<AppendTarget> {
        let _guard = self.switching.lock().await;
        let current = self.current();
        if current.log.number >= log.number || Instant::now() >= deadline {
            return current;
        }
        let next = log.clone();
        match create_client(&self.config, |config| AppendTarget::start(config, next)).await {
            Ok(next) => {
                tracing::info!(
                    from = current.log.topic,
                    to = log.topic,
                    "appends switched to another topic"
                );
                let next = Arc::new(next);
                self.current.store(Arc::clone(&next));
                next
            }
            Err(error) => {
                tracing::error!(%error, topic = log.topic, "failed to start a producer for the active topic");
                current
            }
        }
    }

    /// Waits until records that a sealed log rejected can be sent again: to its successor once that is known, or to the
    /// same log after `pause`, since it may have been unsealed. Returns `false` if the deadline comes first.
    pub async fn wait_for_retry(
        &self,
        sealed: LogNumber,
        pause: Duration,
        deadline: Instant,
    ) -> bool {
        // Also ends the retries when the successor is known but its producer cannot be started.
        if Instant::now() >= deadline {
            return false;
        }
        let mut active_log = self.active_log.clone();
        let is_successor =
            |log: &Option<LogRef>| log.as_ref().is_some_and(|log| log.number > sealed);
        let successor_known = async {
            if active_log.wait_for(is_successor).await.is_err() {
                // The sender was dropped: no successor will ever be announced.
                std::future::pending::<()>().await;
            }
        };
        let retry_at = Instant::now() + pause;
        timeout_at(retry_at.min(deadline), successor_known).await.is_ok() || retry_at < deadline
    }
}
