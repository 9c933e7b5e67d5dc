//! Tells everyone who takes submissions in which log the generation that answers counts them. Whoever moves submissions to
//! another log tells so at once; this is for when that one died in between. And it says how many partitions are counted, for how
//! long a log has been sealed, and whether submissions go where nobody counts them.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::now_ms;
use schemas::{LogNumber, LogRef, Roster};
use storage::definitions::Definitions;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::ProcessorMetrics;

/// So long whoever let another log answer has time to say so: several who tell the same at once are in each other's way.
const OTHERS_FIRST: Duration = Duration::from_secs(2);
const INTERVAL: Duration = Duration::from_secs(1);
/// After so many looks it is no flip any more that the roster's readers are about to see.
const LOOKS_UNTIL_LOST: u32 = 10;

/// Keeps what is told in step with the roster.
pub(crate) struct Announcer {
    pub roster: watch::Receiver<Roster>,
    pub definitions: Arc<dyn Definitions>,
    pub metrics: ProcessorMetrics,
}

impl Announcer {
    /// Runs until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        let mut looks_elsewhere = 0_u32;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let (log, seal) = {
                let roster = self.roster.borrow();
                (roster.current.log.clone(), roster.building.as_ref().map(|it| it.seal))
            };
            self.metrics.partitions(log.partitions);
            let since_ms = seal.and_then(|seal| seal.since_ms());
            let sealed_ms = since_ms.map_or(0, |since_ms| now_ms().saturating_sub(since_ms));
            self.metrics.log_sealed(Duration::from_millis(sealed_ms));
            let elsewhere = self.elsewhere(&log);
            self.metrics.submissions_elsewhere(elsewhere.is_some());
            looks_elsewhere = elsewhere.as_ref().map_or(0, |_| looks_elsewhere.saturating_add(1));
            if let Some(told) = elsewhere
                && looks_elsewhere == LOOKS_UNTIL_LOST
            {
                tracing::error!(
                    told = told.topic,
                    counted = log.topic,
                    "submissions go to a later log than the one that is counted: the store is older, or the roster cannot be read",
                );
            }
            if self.is_untold(&log) && stop.run_until_cancelled(self.tell(&log)).await.is_none() {
                return;
            }
        }
    }

    fn is_untold(&self, log: &LogRef) -> bool {
        let told = self.definitions.log().borrow().as_ref().map(|told| told.number);
        self.definitions.is_loaded() && told.unwrap_or(LogNumber::FIRST) < log.number
    }

    /// Where everyone was told that submissions go, if nobody counts them there.
    fn elsewhere(&self, counted: &LogRef) -> Option<LogRef> {
        let told = self.definitions.log().borrow().clone();
        told.filter(|told| told.number > counted.number)
    }

    async fn tell(&self, log: &LogRef) {
        tokio::time::sleep(OTHERS_FIRST).await;
        if self.is_untold(log)
            && let Err(error) = self.definitions.move_log(log).await
        {
            tracing::warn!(%error, topic = log.topic, "it cannot be told yet that submissions go there");
        }
    }
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use runtime::metrics::Metrics;
    use schemas::{Budget, BudgetId, PartitionCount};
    use storage::definitions::{Catalog, Change, DefinitionError};

    use super::*;

    /// Says where submissions go, and moves them nowhere.
    struct Told(watch::Sender<Option<LogRef>>);

    #[async_trait]
    impl Definitions for Told {
        fn catalog(&self) -> Arc<Catalog> {
            Arc::default()
        }

        fn is_loaded(&self) -> bool {
            true
        }

        fn changes(&self) -> watch::Receiver<()> {
            watch::channel(()).1
        }

        fn log(&self) -> watch::Receiver<Option<LogRef>> {
            self.0.subscribe()
        }

        async fn change(
            &self,
            _budget: &BudgetId,
            _decide: &Change<'_>,
        ) -> Result<Arc<Budget>, DefinitionError> {
            Err(DefinitionError::Unavailable("they never change here".into()))
        }
    }

    fn later(number: u32) -> LogRef {
        let partitions = PartitionCount::new(5).unwrap();
        LogRef { number: LogNumber(number), topic: format!("submissions-{number}"), partitions }
    }

    #[tokio::test(start_paused = true)]
    async fn partitions_and_that_submissions_go_to_a_later_log_are_shown_as_the_roster_has_them() {
        let first = LogRef::first("submissions", PartitionCount::new(3).unwrap());
        let (rosters, roster) = watch::channel(Roster::first(first));
        let metrics = Metrics::new("processor");
        let announcer = Announcer {
            roster,
            definitions: Arc::new(Told(watch::Sender::new(Some(later(2))))),
            metrics: ProcessorMetrics::new(&metrics).unwrap(),
        };
        let shown = async |name: &str| {
            tokio::time::sleep(3 * INTERVAL).await;
            let text = String::from_utf8(metrics.render()).unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap().to_owned()
        };
        let stop = CancellationToken::new();
        let running = tokio::spawn(announcer.run(stop.clone()));
        assert_eq!(shown("allocator_processor_submissions_elsewhere").await, "1");
        assert_eq!(shown("allocator_processor_partitions").await, "3");
        rosters.send_replace(Roster::first(later(2)));
        assert_eq!(shown("allocator_processor_submissions_elsewhere").await, "0");
        assert_eq!(shown("allocator_processor_partitions").await, "5");
        stop.cancel();
        running.await.unwrap();
    }
}
