//! Publishes the active log to every process that appends submissions.
//!
//! A repartition publishes the active log itself. This module does so for a repartition that died
//! after the switch. It also maintains the metrics of the active log.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::now_ms;
use schemas::{GenerationRegistry, LogNumber, LogRef};
use storage::control::ActiveLog;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::GenerationMetrics;

/// Time left to the repartition to publish the log first: concurrent publishers conflict.
const PUBLISH_DELAY: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum polls for which a published log may be later than the active one. Until then this
/// process may not have read the switch yet; afterwards it is an error.
const MAX_POLLS_ON_LATER_LOG: u32 = 10;

/// Keeps the published log in step with the registry.
pub struct ActiveLogPublisher {
    /// The registry as last read.
    pub registry: watch::Receiver<GenerationRegistry>,
    /// The published log.
    pub active_log: Arc<dyn ActiveLog>,
    /// Metrics of the active log.
    pub metrics: GenerationMetrics,
}

impl ActiveLogPublisher {
    /// Polls until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(POLL_INTERVAL);
        let mut polls_on_later_log = 0_u32;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let (log, seal) = {
                let registry = self.registry.borrow();
                (
                    registry.active.log.clone(),
                    registry.building.as_ref().map(|building| building.seal),
                )
            };
            self.metrics.set_partitions(log.partitions);
            let since_ms = seal.and_then(|seal| seal.since_ms());
            let sealed_ms = since_ms.map_or(0, |since_ms| now_ms().saturating_sub(since_ms));
            self.metrics.set_log_sealed(Duration::from_millis(sealed_ms));
            let later = self.published_later_log(&log);
            self.metrics.set_submissions_on_later_log(later.is_some());
            polls_on_later_log = later.as_ref().map_or(0, |_| polls_on_later_log.saturating_add(1));
            if let Some(published) = later
                && polls_on_later_log == MAX_POLLS_ON_LATER_LOG
            {
                tracing::error!(
                    announced_topic = published.topic,
                    active_topic = log.topic,
                    "submissions go to a later log than the active generation's: the store is outdated, or the registry cannot be read",
                );
            }
            if self.is_unpublished(&log)
                && stop.run_until_cancelled(self.publish(&log)).await.is_none()
            {
                return;
            }
        }
    }

    /// Whether the published log is known and older than `active`.
    fn is_unpublished(&self, active: &LogRef) -> bool {
        let published = self.active_log.subscribe().borrow().as_ref().map(|log| log.number);
        self.active_log.is_loaded() && published.unwrap_or(LogNumber::FIRST) < active.number
    }

    /// Returns the published log if it is later than `active`.
    fn published_later_log(&self, active: &LogRef) -> Option<LogRef> {
        let published = self.active_log.subscribe().borrow().clone();
        published.filter(|published| published.number > active.number)
    }

    async fn publish(&self, log: &LogRef) {
        tokio::time::sleep(PUBLISH_DELAY).await;
        if self.is_unpublished(log)
            && let Err(error) = self.active_log.publish(log).await
        {
            tracing::warn!(%error, topic = log.topic, "failed to announce the active log");
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use runtime::metrics::Metrics;
    use schemas::PartitionCount;
    use storage::control::DefinitionError;

    use super::*;

    /// A fixed published log.
    struct FixedLog(watch::Sender<Option<LogRef>>);

    #[async_trait]
    impl ActiveLog for FixedLog {
        fn is_loaded(&self) -> bool {
            true
        }

        fn subscribe(&self) -> watch::Receiver<Option<LogRef>> {
            self.0.subscribe()
        }

        async fn publish(&self, _: &LogRef) -> Result<(), DefinitionError> {
            Err(DefinitionError::Unavailable("read-only".into()))
        }
    }

    fn later_log(number: u32) -> LogRef {
        let partitions = PartitionCount::new(5).unwrap();
        LogRef { number: LogNumber(number), topic: format!("submissions-{number}"), partitions }
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_follow_the_registry_and_show_submissions_on_a_later_log() {
        let first = LogRef::first("submissions", PartitionCount::new(3).unwrap());
        let (registries, registry) = watch::channel(GenerationRegistry::first(first));
        let metrics = Metrics::new("processor");
        let publisher = ActiveLogPublisher {
            registry,
            active_log: Arc::new(FixedLog(watch::Sender::new(Some(later_log(2))))),
            metrics: GenerationMetrics::new(&metrics).unwrap(),
        };
        let value = async |name: &str| {
            tokio::time::sleep(3 * POLL_INTERVAL).await;
            let text = String::from_utf8(metrics.render()).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap().to_owned()
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(publisher.run(stop.clone()));
        assert_eq!(value("allocator_processor_submissions_elsewhere").await, "1");
        assert_eq!(value("allocator_processor_partitions").await, "3");
        registries.send_replace(GenerationRegistry::first(later_log(2)));
        assert_eq!(value("allocator_processor_submissions_elsewhere").await, "0");
        assert_eq!(value("allocator_processor_partitions").await, "5");
        stop.cancel();
        running.await.unwrap();
    }
}
