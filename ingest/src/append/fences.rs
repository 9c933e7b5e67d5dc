//! The closing fences of an append: which budgets are closed before it, and whether one was closed during it.
//!
//! A budget with a closing time is confirmed after the append: the control topic, read after the log has acknowledged
//! the records, must have the same fence as before the append. Then no close marker was appended before that read,
//! since its author has read the fence from the same topic first. So the records stand in front of every close marker,
//! whatever any clock says, and however long this process was stalled in between.

use std::collections::BTreeMap;
use std::time::Duration;

use schemas::{Budget, BudgetId, ClosingFence};
use storage::control::{BudgetDefinitions, CONFIRMATION_TIMEOUT, Catalog, ControlTopicError};
use tokio::time::timeout;

use crate::pending::{AppendOutcome, PendingSubmission};

/// Bounds the confirmation of a budget that gets its closing time during the append. Shorter than others:
/// It extends the in-flight mark of every id of a budget without a closing time.
const LATE_CONFIRMATION_TIMEOUT: Duration = Duration::from_secs(2);

/// The budgets of an append, as their definitions were before it.
pub(super) struct Fences(BTreeMap<BudgetId, Fence>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fence {
    /// Without a closing time: nothing is to be confirmed.
    None,
    /// Records are appended.
    Open(Option<ClosingFence>),
    /// Records are refused.
    Closed,
}

impl Fence {
    fn of(budget: Option<&Budget>) -> Self {
        match budget {
            Some(budget) if budget.is_fenced() => Self::Closed,
            Some(budget) if budget.closes_at.is_some() || budget.closing.is_some() => {
                Self::Open(budget.closing)
            }
            Some(_) | None => Self::None,
        }
    }
}

impl Fences {
    pub fn before(catalog: &Catalog, submissions: &[PendingSubmission]) -> Self {
        let mut fences = BTreeMap::new();
        // All submissions of a request are of one budget, most often.
        for PendingSubmission { submission, .. } in submissions {
            if !fences.contains_key(&submission.budget) {
                let budget = catalog.get(submission.budget.as_str()).map(AsRef::as_ref);
                fences.insert(submission.budget.clone(), Fence::of(budget));
            }
        }
        Self(fences)
    }

    fn of(&self, budget: &BudgetId) -> Fence {
        self.0.get(budget).copied().unwrap_or(Fence::None)
    }

    /// Whether the budget accepts nothing.
    pub fn is_closed(&self, budget: &BudgetId) -> bool {
        self.of(budget) == Fence::Closed
    }

    /// The number of submissions to budgets that are to be confirmed after the append.
    pub fn unconfirmed(&self, submissions: &[PendingSubmission]) -> usize {
        let is_open = |pending: &&PendingSubmission| {
            matches!(self.of(&pending.submission.budget), Fence::Open(_))
        };
        submissions.iter().filter(is_open).count()
    }

    /// Returns the bound of the confirmation after the append.
    pub fn confirmation_timeout(&self) -> Duration {
        match self.0.values().any(|fence| matches!(fence, Fence::Open(_))) {
            true => CONFIRMATION_TIMEOUT,
            false => LATE_CONFIRMATION_TIMEOUT,
        }
    }

    /// Takes back the acceptance of submissions that may stand behind a close marker.
    ///
    /// Call it after the log has acknowledged the records.
    pub async fn confirm(
        &self,
        definitions: &dyn BudgetDefinitions,
        submissions: &[PendingSubmission],
        outcomes: &mut [AppendOutcome],
    ) {
        let mut confirmed = None;
        let now = definitions.catalog();
        for (PendingSubmission { submission, .. }, outcome) in submissions.iter().zip(outcomes) {
            if !matches!(outcome, AppendOutcome::Accepted { .. }) {
                continue;
            }
            let before = match self.of(&submission.budget) {
                Fence::Open(before) => before,
                // It has got a closing time during the append, or is gone.
                Fence::None if !has_no_fence(&now, &submission.budget) => None,
                Fence::None | Fence::Closed => continue,
            };
            if confirmed.is_none() {
                let read = timeout(self.confirmation_timeout(), definitions.confirmed()).await;
                let unavailable = |error: String| Err(ControlTopicError::Unavailable(error));
                confirmed = Some(read.unwrap_or_else(|elapsed| unavailable(elapsed.to_string())));
            }
            *outcome = match &confirmed {
                Some(Ok(catalog)) if is_unchanged(catalog, &submission.budget, before) => *outcome,
                Some(Ok(_)) => AppendOutcome::ClosedMeanwhile,
                Some(Err(ControlTopicError::Refused(_) | ControlTopicError::Unavailable(_)))
                | None => AppendOutcome::Unknown,
            };
        }
    }
}

fn has_no_fence(catalog: &Catalog, id: &BudgetId) -> bool {
    let budget = catalog.get(id.as_str());
    budget.is_some_and(|budget| Fence::of(Some(budget)) == Fence::None)
}

/// Whether a budget still has the fence that it had: each closing and reopening changes the fence's revision.
fn is_unchanged(catalog: &Catalog, id: &BudgetId, before: Option<ClosingFence>) -> bool {
    catalog.get(id.as_str()).is_some_and(|budget| budget.closing == before)
}
