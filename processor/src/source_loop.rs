//! The thread that runs the log source and rejoins its consumer group.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use engine::coordinator::Coordinator;
use engine::metrics::EngineMetrics;
use runtime::health::Check;
use storage::log::LogSource;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

const MIN_REJOIN_DELAY: Duration = Duration::from_millis(100);
const MAX_REJOIN_DELAY: Duration = Duration::from_secs(5);

/// Feeds all owners of this process from the log source. Runs on its own thread.
pub(crate) struct SourceLoop {
    pub coordinator: Coordinator,
    pub metrics: EngineMetrics,
    /// Unready while the process is not in the consumer group.
    pub group: Check,
    pub stop: CancellationToken,
    pub handle: Handle,
}

impl SourceLoop {
    /// Joins the consumer group, and rejoins it after every error, until `stop` is cancelled.
    pub fn run(&self, mut source: Box<dyn LogSource>) {
        let mut delay = MIN_REJOIN_DELAY;
        while !self.stop.is_cancelled() {
            self.group.set_ready();
            self.coordinator.adopt_active_generation();
            let joined_at = Instant::now();
            let log = self.coordinator.active_generation().borrow().log.clone();
            // A panic of the source must not silently stop every partition.
            let run = AssertUnwindSafe(|| source.run(&log, &self.coordinator, &self.stop));
            let reason = match catch_unwind(run) {
                Ok(Ok(())) => return self.handle.block_on(self.coordinator.handed_over()),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "a bug: the log source panicked".to_owned(),
            };
            if self.coordinator.generation_changed() {
                tracing::info!("left the consumer group, rejoining in the active generation");
                self.coordinator.source_ended();
                continue;
            }
            tracing::warn!(reason, "left the consumer group, rejoining");
            self.group.set_unready(reason);
            self.coordinator.source_ended();
            self.metrics.rejoined();
            if joined_at.elapsed() > MAX_REJOIN_DELAY {
                delay = MIN_REJOIN_DELAY;
            }
            sleep_or_stop(delay, &self.stop, &self.handle);
            delay = (delay * 2).min(MAX_REJOIN_DELAY);
        }
    }
}

/// Blocks the thread for `delay`, or until `stop` is cancelled.
fn sleep_or_stop(delay: Duration, stop: &CancellationToken, handle: &Handle) {
    let sleeping = async { stop.run_until_cancelled(tokio::time::sleep(delay)).await };
    handle.block_on(sleeping);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rejoin_delay_ends_early_on_stop() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (stop, began) = (CancellationToken::new(), Instant::now());
        let (thread_stop, handle) = (stop.clone(), runtime.handle().clone());
        let sleeping = std::thread::spawn(move || {
            sleep_or_stop(Duration::from_secs(3_600), &thread_stop, &handle);
        });
        stop.cancel();
        sleeping.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}
