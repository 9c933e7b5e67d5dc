//! The fences that every partition has folded. Pure: the caller passes the time.
//!
//! A complete fence can become incomplete: a processor of an earlier release drops markers from the totals it writes.
//! The totals are therefore read again every minute and after each change of assignment.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::{Budget, BudgetId, ClosingFence, Term};
use tokio::time::Instant;

/// How long the totals of a closed budget are believed to contain its markers.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct CompleteFence {
    /// The term of the generation whose totals were read.
    term: Term,
    fence: ClosingFence,
    /// When they were read; `None` if they are to be read again.
    read_at: Option<Instant>,
}

/// The complete fences by budget.
#[derive(Debug, Default)]
pub(super) struct CompleteFences(BTreeMap<BudgetId, CompleteFence>);

impl CompleteFences {
    /// Whether every partition had folded the budget's fence when the totals were read last.
    pub fn contains(&self, budget: &Budget, term: Term) -> bool {
        self.get(budget, term).is_some()
    }

    /// Whether the fence is complete, and the totals were read so lately that they need not be read again.
    pub fn is_current(&self, budget: &Budget, term: Term, now: Instant) -> bool {
        let read_at = self.get(budget, term).and_then(|complete| complete.read_at);
        read_at.is_some_and(|read_at| now.duration_since(read_at) < RECHECK_INTERVAL)
    }

    fn get(&self, budget: &Budget, term: Term) -> Option<&CompleteFence> {
        let complete = self.0.get(&budget.id)?;
        (complete.term == term && budget.closing == Some(complete.fence)).then_some(complete)
    }

    /// Notes a fence that the totals contain in every partition. Returns whether it was not known to be.
    pub fn insert(&mut self, id: &BudgetId, fence: ClosingFence, term: Term, now: Instant) -> bool {
        let complete = CompleteFence { term, fence, read_at: Some(now) };
        let former = self.0.insert(id.clone(), complete);
        former.is_none_or(|former| (former.term, former.fence) != (term, fence))
    }

    /// Notes that a partition lacks the marker of a budget's fence.
    pub fn remove(&mut self, budget: &Budget, term: Term) {
        if self.contains(budget, term) {
            tracing::warn!(budget = %budget.id, "totals have lost the marker of a closed budget, appending it again");
            self.0.remove(&budget.id);
        }
    }

    /// Lets the totals of every budget be read again.
    pub fn recheck(&mut self) {
        self.0.values_mut().for_each(|complete| complete.read_at = None);
    }

    /// Forgets the budgets that do not exist any more.
    pub fn retain(&mut self, mut exists: impl FnMut(&BudgetId) -> bool) {
        self.0.retain(|id, _| exists(id));
    }
}

#[cfg(test)]
mod tests {
    use schemas::{ClosingState, default_budgets};

    use super::*;

    #[test]
    fn a_complete_fence_is_read_again_after_a_while_and_on_request() {
        let (mut complete, now) = (CompleteFences::default(), Instant::now());
        let fence = ClosingFence { revision: 2, state: ClosingState::Closed };
        let budget = Budget { closing: Some(fence), ..default_budgets().unwrap().remove(0) };
        assert!(!complete.contains(&budget, Term::FIRST));
        assert!(complete.insert(&budget.id, fence, Term::FIRST, now));
        assert!(complete.is_current(&budget, Term::FIRST, now + RECHECK_INTERVAL / 2));
        assert!(!complete.is_current(&budget, Term::FIRST, now + RECHECK_INTERVAL));
        assert!(!complete.insert(&budget.id, fence, Term::FIRST, now), "known already");
        complete.recheck();
        assert!(!complete.is_current(&budget, Term::FIRST, now));
        assert!(complete.contains(&budget, Term::FIRST));

        let later = ClosingFence { revision: 5, ..fence };
        let other = Budget { closing: Some(later), ..budget.clone() };
        let term = Term { number: Term::FIRST.number + 1, ..Term::FIRST };
        assert!(!complete.contains(&other, Term::FIRST) && !complete.contains(&budget, term));
        assert!(complete.insert(&budget.id, later, Term::FIRST, now));
    }
}
