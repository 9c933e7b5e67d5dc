//! Which budgets are due to be closed, and which partitions lack a marker. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use schemas::{Budget, BudgetId, PartitionId};
use storage::store::BudgetSummary;
use tokio::time::Instant;

/// How long a closing time is known before the budget closes. Meanwhile every `ingest` that follows the control topic
/// gets to know that the budget has one: until then it does not confirm the budget's submissions.
const CLOSING_NOTICE: Duration = Duration::from_secs(5);

/// Since when the closing time of each budget is known here.
#[derive(Debug, Default)]
pub(super) struct DueTimes {
    known_since: BTreeMap<BudgetId, Instant>,
}

impl DueTimes {
    /// Returns the budgets that are to be closed by the clock's `now`.
    pub fn due<'b>(
        &mut self,
        budgets: impl Iterator<Item = &'b Budget>,
        now: Timestamp,
        instant: Instant,
    ) -> Vec<&'b Budget> {
        let former = std::mem::take(&mut self.known_since);
        let mut due = Vec::new();
        for budget in budgets.filter(|budget| !budget.is_fenced()) {
            let Some(closes_at) = budget.closes_at else { continue };
            let since = former.get(&budget.id).copied().unwrap_or(instant);
            self.known_since.insert(budget.id.clone(), since);
            if closes_at <= now && instant.duration_since(since) >= CLOSING_NOTICE {
                due.push(budget);
            }
        }
        due
    }
}

/// Returns the partitions whose totals do not contain a marker of this revision, or of a later one.
pub(super) fn lacking_partitions(summary: &BudgetSummary, revision: u64) -> Vec<PartitionId> {
    let lacks = |partition: &(PartitionId, _)| {
        let (_, totals): &(_, &Option<schemas::BudgetTotals>) = partition;
        totals.as_ref().is_none_or(|totals| totals.closing.revision() < revision)
    };
    (0..).map(PartitionId).zip(summary).filter(lacks).map(|(partition, _)| partition).collect()
}

#[cfg(test)]
mod tests {
    use schemas::{BudgetTotals, Closing, ClosingFence, ClosingState, Offset, default_budgets};

    use super::*;

    fn budget(closes_at: Option<&str>) -> Budget {
        let budget = default_budgets().unwrap().remove(0);
        Budget { closes_at: closes_at.map(|at| at.parse().unwrap()), ..budget }
    }

    fn is_due(times: &mut DueTimes, budget: &Budget, now: &str, instant: Instant) -> bool {
        !times.due([budget].into_iter(), now.parse().unwrap(), instant).is_empty()
    }

    #[test]
    fn a_budget_is_due_once_its_time_has_passed_and_was_known_for_a_while() {
        let (mut times, started) = (DueTimes::default(), Instant::now());
        let (before, after) = ("2027-01-01T00:00:00Z", "2027-01-01T00:00:10Z");
        let closing = budget(Some("2027-01-01T00:00:05Z"));
        assert!(!is_due(&mut times, &closing, after, started), "it was not known before");
        let later = started + CLOSING_NOTICE;
        assert!(!is_due(&mut times, &closing, before, later));
        assert!(is_due(&mut times, &closing, after, later));
        let fence = ClosingFence { revision: 2, state: ClosingState::Closed };
        let closed = Budget { closing: Some(fence), ..closing.clone() };
        assert!(!is_due(&mut times, &closed, after, later));
        assert!(!is_due(&mut times, &budget(None), after, later));
        assert!(!is_due(&mut times, &closing, after, later), "its closing time is new again");
    }

    #[test]
    fn a_partition_lacks_a_marker_until_its_totals_have_its_revision() {
        let of = |revision| {
            let closing = Closing::new(revision, vec![Offset(1)]).unwrap();
            Some(BudgetTotals { closing, ..BudgetTotals::default() })
        };
        let summary = vec![of(3), None, of(4), Some(BudgetTotals::default()), of(5)];
        let expected = [0, 1, 3].map(PartitionId);
        assert_eq!(lacking_partitions(&summary, 4), expected);
    }
}
