//! Announces the active log to every process that appends submissions.
//!
//! A repartition announces the active log itself. This module does so for a repartition that died
//! after the switch. It also maintains the metrics of the active log.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::now_ms;
use schemas::{GenerationRegistry, LogNumber, LogRef};
use storage::control::ActiveLog;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::GenerationMetrics;

/// Time left to the repartition to announce the log first: concurrent announcements conflict.
const ANNOUNCE_DELAY: Duration = Duration::from_secs(2);
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum polls for which an announced log may be later than the active one. Until then this
/// process may not have read the switch yet; afterwards it is an error.
const MAX_POLLS_ON_LATER_LOG: u32 = 10;

/// Keeps the announced log in step with the registry.
pub struct ActiveLogAnnouncer {
    /// The registry as last read.
    pub registry: watch::Receiver<GenerationRegistry>,
    /// The announced log.
    pub active_log: Arc<dyn ActiveLog>,
    /// Metrics of the active log.
    pub metrics: GenerationMetrics,
}

impl ActiveLogAnnouncer {
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
            let later = self.announced_later_log(&log);
            self.metrics.set_submissions_on_later_log(later.is_some());
            polls_on_later_log = later.as_ref().map_or(0, |_| polls_on_later_log.saturating_add(1));
            if let Some(announced) = later
                && polls_on_later_log == MAX_POLLS_ON_LATER_LOG
            {
                tracing::error!(
                    announced_topic = announced.topic,
                    active_topic = log.topic,
                    "submissions go to a later log than the active generation's: the store is outdated, or the registry cannot be read",
                );
            }
            if self.is_unannounced(&log)
                && stop.run_until_cancelled(self.announce(&log)).await.is_none()
            {
                return;
            }
        }
    }

    /// Whether the announced log is known and older than `active`.
    fn is_unannounced(&self, active: &LogRef) -> bool {
        let announced = self.active_log.subscribe().borrow().as_ref().map(|log| log.number);
        self.active_log.is_loaded() && announced.unwrap_or(LogNumber::FIRST) < active.number
    }

    /// Returns the announced log if it is later than `active`.
    fn announced_later_log(&self, active: &LogRef) -> Option<LogRef> {
        let announced = self.active_log.subscribe().borrow().clone();
        announced.filter(|announced| announced.number > active.number)
    }

    async fn announce(&self, log: &LogRef) {
        tokio::time::sleep(ANNOUNCE_DELAY).await;
        if self.is_unannounced(log)
            && let Err(error) = self.active_log.announce(log).await
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
    use storage::control::ControlTopicError;

    use super::*;

    /// A fixed announced log.
    struct FixedLog(watch::Sender<Option<LogRef>>);

    #[async_trait]
    impl ActiveLog for FixedLog {
        fn is_loaded(&self) -> bool {
            true
        }

        fn subscribe(&self) -> watch::Receiver<Option<LogRef>> {
            self.0.subscribe()
        }

        async fn announce(&self, _: &LogRef) -> Result<(), ControlTopicError> {
            Err(ControlTopicError::Unavailable("read-only".into()))
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
        let announcer = ActiveLogAnnouncer {
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
        let running = tokio::spawn(announcer.run(stop.clone()));
        assert_eq!(value("allocator_processor_submissions_elsewhere").await, "1");
        assert_eq!(value("allocator_processor_partitions").await, "3");
        registries.send_replace(GenerationRegistry::first(later_log(2)));
        assert_eq!(value("allocator_processor_submissions_elsewhere").await, "0");
        assert_eq!(value("allocator_processor_partitions").await, "5");
        stop.cancel();
        running.await.unwrap();
    }
}
