//! When this process is to leave the log's group and join it again. Why is said where the wish arises.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// In place of a moment: nothing is wished for.
const NEVER: u64 = u64::MAX;

/// The wish to join again. Asked for between any two records, so it costs next to nothing while there is none.
#[derive(Debug)]
pub(super) struct Rejoin {
    since: Instant,
    /// In milliseconds after `since`.
    due: AtomicU64,
}

impl Rejoin {
    pub fn new() -> Self {
        Self { since: Instant::now(), due: AtomicU64::new(NEVER) }
    }

    /// Wishes for it after `pause` from `now` on, if nothing earlier is wished for.
    pub fn after(&self, pause: Duration, now: Instant) {
        self.due.fetch_min(self.millis(now + pause), Ordering::Relaxed);
    }

    /// Whether the moment has come.
    pub fn is_due(&self, now: impl FnOnce() -> Instant) -> bool {
        let due = self.due.load(Ordering::Relaxed);
        due != NEVER && due <= self.millis(now())
    }

    /// It has been done.
    pub fn clear(&self) {
        self.due.store(NEVER, Ordering::Relaxed);
    }

    fn millis(&self, moment: Instant) -> u64 {
        moment.saturating_duration_since(self.since).as_millis() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(15);

    #[test]
    fn nothing_is_due_that_nobody_wishes_for() {
        let rejoin = Rejoin::new();
        assert!(!rejoin.is_due(|| Instant::now() + 1_000 * PAUSE));
    }

    #[test]
    fn a_wish_for_later_waits_and_is_overtaken_by_one_for_now() {
        let (rejoin, now) = (Rejoin::new(), Instant::now());
        rejoin.after(PAUSE, now);
        assert!(!rejoin.is_due(|| now + PAUSE / 2));
        assert!(rejoin.is_due(|| now + PAUSE));
        rejoin.after(Duration::ZERO, now);
        assert!(rejoin.is_due(|| now));
        rejoin.after(PAUSE, now);
        assert!(rejoin.is_due(|| now));
    }

    #[test]
    fn what_has_been_done_is_no_longer_due() {
        let (rejoin, now) = (Rejoin::new(), Instant::now());
        rejoin.after(Duration::ZERO, now);
        rejoin.clear();
        assert!(!rejoin.is_due(|| now + PAUSE));
    }
}
