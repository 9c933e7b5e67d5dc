//! Exponential backoff for the steps of closing. Pure: the caller passes the time.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::{BudgetId, PartitionId};
use tokio::time::Instant;

/// Longest delay between two attempts to follow the fences, on which all results of closed budgets wait.
const MAX_FOLLOW_DELAY: Duration = Duration::from_secs(5);
/// Longest delay between two attempts of another step.
const MAX_DELAY: Duration = Duration::from_secs(30);

/// A step that may have to be repeated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// Reading the fences and the totals.
    FollowFences,
    /// Writing the fence of a budget that is due.
    Close(BudgetId),
    /// Opening a budget of which every partition has its reopen marker.
    CompleteReopening(BudgetId),
    /// Appending the marker of this revision to a partition.
    AppendMarker(BudgetId, PartitionId, u64),
}

impl Step {
    fn first_delay(&self) -> Duration {
        match self {
            // Time for the marker to be folded and committed.
            Self::AppendMarker(..) => Duration::from_secs(5),
            Self::FollowFences | Self::Close(_) | Self::CompleteReopening(_) => {
                Duration::from_secs(1)
            }
        }
    }

    fn max_delay(&self) -> Duration {
        match self {
            Self::FollowFences => MAX_FOLLOW_DELAY,
            Self::Close(_) | Self::CompleteReopening(_) | Self::AppendMarker(..) => MAX_DELAY,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    /// The delay after this attempt.
    delay: Duration,
    at: Instant,
}

/// The steps that were attempted and have not succeeded, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Retries(BTreeMap<Step, Attempt>);

impl Retries {
    /// Whether a step was never attempted, or long enough ago.
    pub fn is_due(&self, step: &Step, now: Instant) -> bool {
        self.0.get(step).is_none_or(|last| now.duration_since(last.at) >= last.delay)
    }

    /// Records an attempt, and returns the delay before the next one.
    pub fn attempted(&mut self, step: Step, now: Instant) -> Duration {
        let first = step.first_delay();
        let doubled = self.0.get(&step).map_or(first, |last| last.delay * 2);
        let delay = doubled.clamp(first, step.max_delay());
        self.0.insert(step, Attempt { delay, at: now });
        delay
    }

    /// Forgets a step that has succeeded.
    pub fn succeeded(&mut self, step: &Step) {
        self.0.remove(step);
    }

    /// Forgets the steps that are no longer wanted.
    pub fn retain(&mut self, mut is_wanted: impl FnMut(&Step) -> bool) {
        self.0.retain(|step, _| is_wanted(step));
    }
}

#[cfg(test)]
mod tests {
    use schemas::default_budgets;

    use super::*;

    fn close() -> Step {
        Step::Close(default_budgets().unwrap().remove(0).id)
    }

    #[test]
    fn a_step_that_fails_is_due_again_after_a_delay_that_doubles_up_to_a_limit() {
        let (mut retries, mut now) = (Retries::default(), Instant::now());
        assert!(retries.is_due(&close(), now));
        let mut delays = Vec::new();
        for _ in 0..8 {
            let delay = retries.attempted(close(), now);
            assert!(!retries.is_due(&close(), now + delay / 2));
            now += delay;
            assert!(retries.is_due(&close(), now));
            delays.push(delay.as_secs());
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn a_step_that_has_succeeded_or_is_no_longer_wanted_begins_anew() {
        let (mut retries, now) = (Retries::default(), Instant::now());
        for _ in 0..3 {
            retries.attempted(close(), now);
            retries.attempted(Step::FollowFences, now);
        }
        retries.succeeded(&Step::FollowFences);
        assert!(retries.is_due(&Step::FollowFences, now) && !retries.is_due(&close(), now));
        retries.retain(|step| *step != close());
        assert_eq!(retries.attempted(close(), now), Duration::from_secs(1));
    }
}
