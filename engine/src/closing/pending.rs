//! How long budgets have waited to become final, or to be open again. Pure: the caller passes the time.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use schemas::{Budget, BudgetId, ClosingState};
use tokio::time::Instant;

/// Age of the oldest budget in each state that is to end; zero without one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Oldest {
    /// Past the closing time, and not final.
    pub closing: Duration,
    /// Reopening.
    pub reopening: Duration,
}

/// Since when each reopening is known here: a definition does not say when it was changed.
#[derive(Debug, Default)]
pub(super) struct Reopenings(BTreeMap<BudgetId, (u64, Instant)>);

impl Reopenings {
    /// Returns the age of the oldest reopening, and forgets those that have ended.
    pub fn oldest<'b>(
        &mut self,
        budgets: impl Iterator<Item = &'b Budget>,
        now: Instant,
    ) -> Duration {
        let former = std::mem::take(&mut self.0);
        for budget in budgets {
            let reopening = budget.closing.filter(|it| it.state == ClosingState::Reopening);
            let Some(fence) = reopening else { continue };
            let known = former.get(&budget.id).filter(|(revision, _)| *revision == fence.revision);
            let since = known.map_or(now, |(_, since)| *since);
            self.0.insert(budget.id.clone(), (fence.revision, since));
        }
        let ages = self.0.values().map(|(_, since)| now.duration_since(*since));
        ages.max().unwrap_or_default()
    }
}

/// Returns how long a budget has been past its closing time; `None` if it has none, or the time has not passed.
pub(super) fn overdue_for(budget: &Budget, now: Timestamp) -> Option<Duration> {
    let closes_at = budget.closes_at.filter(|closes_at| *closes_at <= now)?;
    Some(now.duration_since(closes_at).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use schemas::{ClosingFence, default_budgets};

    use super::*;

    fn reopening(revision: u64) -> Budget {
        let fence = ClosingFence { revision, state: ClosingState::Reopening };
        Budget { closing: Some(fence), ..default_budgets().unwrap().remove(0) }
    }

    #[test]
    fn a_reopening_grows_older_until_it_ends_and_another_one_begins_anew() {
        let (mut reopenings, began) = (Reopenings::default(), Instant::now());
        let mut age = |budget: &Budget, seconds: u64| {
            let now = began + Duration::from_secs(seconds);
            reopenings.oldest([budget].into_iter(), now).as_secs()
        };
        assert_eq!((age(&reopening(3), 0), age(&reopening(3), 400)), (0, 400));
        assert_eq!((age(&reopening(7), 500), age(&reopening(7), 530)), (0, 30));
        let reopened = ClosingFence { revision: 8, state: ClosingState::Reopened };
        let reopened = Budget { closing: Some(reopened), ..reopening(7) };
        assert_eq!((age(&reopened, 540), age(&reopening(7), 550)), (0, 0));
    }

    #[test]
    fn a_budget_is_overdue_from_its_closing_time_on() {
        let closes_at = Some("2027-01-01T00:00:00Z".parse().unwrap());
        let budget = Budget { closes_at, ..default_budgets().unwrap().remove(0) };
        let overdue = |budget: &Budget, now: &str| overdue_for(budget, now.parse().unwrap());
        assert_eq!(overdue(&budget, "2026-12-31T23:59:59Z"), None);
        let later = "2027-01-01T00:10:00Z";
        assert_eq!(overdue(&budget, later), Some(Duration::from_secs(600)));
        assert_eq!(overdue(&Budget { closes_at: None, ..budget }, later), None);
    }
}
