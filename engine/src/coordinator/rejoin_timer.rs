//! When this process leaves the log's consumer group and joins it again. The reason is logged where the rejoin is
//! scheduled.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Stands for "no rejoin is scheduled".
const NEVER: u64 = u64::MAX;

/// The earliest scheduled rejoin. Read between any two records, so an atomic instead of a lock.
#[derive(Debug)]
pub(super) struct RejoinTimer {
    created_at: Instant,
    /// Milliseconds after `created_at`.
    due_ms: AtomicU64,
}

impl RejoinTimer {
    pub fn new() -> Self {
        Self { created_at: Instant::now(), due_ms: AtomicU64::new(NEVER) }
    }

    /// Schedules a rejoin `delay` after `now`, unless an earlier one is scheduled.
    pub fn schedule(&self, delay: Duration, now: Instant) {
        self.due_ms.fetch_min(self.millis(now + delay), Ordering::Relaxed);
    }

    /// Whether a scheduled rejoin is due. Reads the clock only if one is scheduled.
    pub fn is_due(&self, now: impl FnOnce() -> Instant) -> bool {
        let due_ms = self.due_ms.load(Ordering::Relaxed);
        due_ms != NEVER && due_ms <= self.millis(now())
    }

    /// Cancels the scheduled rejoin, once the process has left the group.
    pub fn clear(&self) {
        self.due_ms.store(NEVER, Ordering::Relaxed);
    }

    fn millis(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.created_at).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DELAY: Duration = Duration::from_secs(15);

    #[test]
    fn a_new_timer_is_never_due() {
        let timer = RejoinTimer::new();
        assert!(!timer.is_due(|| Instant::now() + 1_000 * DELAY));
    }

    #[test]
    fn the_earliest_scheduled_rejoin_wins() {
        let (timer, now) = (RejoinTimer::new(), Instant::now());
        timer.schedule(DELAY, now);
        assert!(!timer.is_due(|| now + DELAY / 2));
        assert!(timer.is_due(|| now + DELAY));
        timer.schedule(Duration::ZERO, now);
        assert!(timer.is_due(|| now));
        timer.schedule(DELAY, now);
        assert!(timer.is_due(|| now));
    }

    #[test]
    fn a_cleared_timer_is_not_due() {
        let (timer, now) = (RejoinTimer::new(), Instant::now());
        timer.schedule(Duration::ZERO, now);
        timer.clear();
        assert!(!timer.is_due(|| now + DELAY));
    }
}
