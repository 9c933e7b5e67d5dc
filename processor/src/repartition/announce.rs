//! Tells everyone who takes submissions in which log the generation that answers counts them. Whoever moves submissions to
//! another log tells so at once; this is for when that one died in between. And it says for how long a log has been sealed.

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
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let (log, seal) = {
                let roster = self.roster.borrow();
                (roster.current.log.clone(), roster.building.as_ref().map(|it| it.seal))
            };
            let since_ms = seal.and_then(|seal| seal.since_ms());
            let sealed_ms = since_ms.map_or(0, |since_ms| now_ms().saturating_sub(since_ms));
            self.metrics.log_sealed(Duration::from_millis(sealed_ms));
            if self.is_untold(&log) && stop.run_until_cancelled(self.tell(&log)).await.is_none() {
                return;
            }
        }
    }

    fn is_untold(&self, log: &LogRef) -> bool {
        let told = self.definitions.log().borrow().as_ref().map(|told| told.number);
        self.definitions.is_loaded() && told.unwrap_or(LogNumber::FIRST) < log.number
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
