//! For how long the answer in memory is trusted without asking anybody.

use std::time::Duration;

/// Microseconds since the process's memory was made. Never 0 for something that has happened.
pub type Micros = u64;

/// How long an answer is trusted while nobody would tell of a newer one: short enough that no person notices, long
/// enough that a thousand readers cost one fetch.
const WITHOUT_NEWS: Duration = Duration::from_millis(25);

/// Whether news of every move arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It does not, or nobody can tell yet.
    Silent,
    /// It does since then.
    FlowingSince(Micros),
}

impl News {
    /// The same news, but vouching only for what was confirmed at `moment` or later.
    pub fn since_at_least(self, moment: Micros) -> Self {
        match self {
            Self::Silent => Self::Silent,
            Self::FlowingSince(since) => Self::FlowingSince(since.max(moment)),
        }
    }
}

/// Whether an answer that was last confirmed at `validated` is still to be trusted at `now`. News vouches only for
/// what was confirmed since it flows: before that a move may have gone unheard.
pub fn is_fresh(validated: Micros, now: Micros, news: News, freshness: Duration) -> bool {
    let window = match news {
        News::FlowingSince(since) if validated >= since => freshness,
        _ => WITHOUT_NEWS.min(freshness),
    };
    u128::from(now.saturating_sub(validated)) < window.as_micros()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn with_news_an_answer_is_trusted_for_the_whole_time_and_without_only_briefly() {
        let flowing = News::FlowingSince(10);
        assert!(is_fresh(10, 10 + 999_999, flowing, SECOND));
        assert!(!is_fresh(10, 10 + 1_000_000, flowing, SECOND));
        assert!(is_fresh(10, 10 + 24_999, News::Silent, SECOND));
        assert!(!is_fresh(10, 10 + 25_000, News::Silent, SECOND));
    }

    #[test]
    fn an_answer_from_before_a_gap_in_the_news_is_not_vouched_for() {
        assert!(!is_fresh(10, 50_000, News::FlowingSince(11), SECOND));
        let left_behind = News::FlowingSince(5).since_at_least(11);
        assert!(!is_fresh(10, 50_000, left_behind, SECOND));
        assert!(is_fresh(11, 50_000, left_behind, SECOND));
    }
}
