//! Decides how long the answer in memory is served without querying a tier.

use std::time::Duration;

/// Microseconds since the memory tier was created. 0 means "never".
pub type Micros = u64;

/// How long an answer is fresh while no cache updates arrive.
///
/// Short enough that no person notices, long enough that a thousand concurrent readers cost one fetch.
const FRESHNESS_WITHOUT_UPDATES: Duration = Duration::from_millis(25);

/// Whether cache updates arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpdateFeed {
    /// Updates do not arrive, or it is not known yet whether they do.
    Interrupted,
    /// All updates since this moment have arrived.
    LiveSince(Micros),
}

impl UpdateFeed {
    /// Restricts the feed to answers that were confirmed at `moment` or later.
    pub fn trusted_from(self, moment: Micros) -> Self {
        match self {
            Self::Interrupted => Self::Interrupted,
            Self::LiveSince(since) => Self::LiveSince(since.max(moment)),
        }
    }
}

/// Returns whether an answer that was last confirmed at `confirmed` is still fresh at `now`.
///
/// The longer `freshness` applies only to answers confirmed since the feed is live: an earlier change may have been
/// missed.
pub fn is_fresh(confirmed: Micros, now: Micros, feed: UpdateFeed, freshness: Duration) -> bool {
    let window = match feed {
        UpdateFeed::LiveSince(since) if confirmed >= since => freshness,
        _ => FRESHNESS_WITHOUT_UPDATES.min(freshness),
    };
    u128::from(now.saturating_sub(confirmed)) < window.as_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_answer_is_fresh_for_the_whole_window_with_live_updates_and_only_briefly_without() {
        let live = UpdateFeed::LiveSince(10);
        assert!(is_fresh(10, 10 + 999_999, live, SECOND));
        assert!(!is_fresh(10, 10 + 1_000_000, live, SECOND));
        assert!(is_fresh(10, 10 + 24_999, UpdateFeed::Interrupted, SECOND));
        assert!(!is_fresh(10, 10 + 25_000, UpdateFeed::Interrupted, SECOND));
    }

    #[test]
    fn an_answer_confirmed_before_a_gap_in_the_updates_is_fresh_only_briefly() {
        assert!(!is_fresh(10, 50_000, UpdateFeed::LiveSince(11), SECOND));
        let after_gap = UpdateFeed::LiveSince(5).trusted_from(11);
        assert!(!is_fresh(10, 50_000, after_gap, SECOND));
        assert!(is_fresh(11, 50_000, after_gap, SECOND));
    }
}
