//! The catalog of budget definitions, and the rules for changing them, as pure functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use schemas::{Budget, BudgetId, ClosingFence, ClosingState, PersonSaltState, StoredBudget};

/// Decides a change of a definition: `Ok(Some)` is written, `Ok(None)` leaves it unchanged.
pub type Change<'a> =
    dyn Fn(Option<&Budget>) -> Result<Option<Budget>, ChangeRefused> + Send + Sync + 'a;

/// Decides whether the current definition is deleted.
pub type Deletion<'a> = dyn Fn(Option<&Budget>) -> Result<(), ChangeRefused> + Send + Sync + 'a;

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// The first submission has frozen categories and identity rule; the budget cannot be deleted either.
    #[error("categories, identity rule and publish step are frozen by the first submission")]
    Frozen,
    /// The budget does not exist.
    #[error("there is no such budget")]
    Unknown,
    /// This release does not understand the whole definition: a change would drop the rest, for all releases.
    #[error(
        "a newer release wrote the budget's definition: this release does not understand all of it, and leaves it unchanged"
    )]
    NotUnderstood,
    /// The budget is closed: a budget with its id that was defined anew would be closed in the log.
    #[error("the budget is closed, and can only be deleted once it is reopened")]
    Closed,
    /// The budget is not closed: its persons still need their keys.
    #[error("the budget is not closed")]
    NotClosed,
    /// The keys of the budget's persons are derived from the deployment's secret alone, which other budgets need.
    #[error(
        "an earlier release created the budget, without a secret of its own: its persons' keys are derived from the \
         deployment's secret, which other budgets need"
    )]
    NoSalt,
    /// The budget's persons are forgotten: it could not tell whether a person has submitted already.
    #[error("the budget's persons are forgotten: it can be neither reopened nor deleted")]
    Forgotten,
    /// A condition of the request on the current definition does not hold.
    #[error("the current definition is not the one that the change was made for")]
    PreconditionFailed,
}

/// Creates or replaces a definition. Ignores revision, `frozen` and `closing` of `wanted`; its person secret becomes
/// that of a new budget, and is ignored for an existing one.
///
/// A closed budget is reopened if it is to close later than before, or not at all.
///
/// # Errors
/// When it would change frozen fields, or reopen a budget whose persons are forgotten.
pub fn define(current: Option<&Budget>, wanted: &Budget) -> Result<Option<Budget>, ChangeRefused> {
    let Some(current) = current else {
        return Ok(Some(Budget { revision: 1, frozen: false, closing: None, ..wanted.clone() }));
    };
    if current.frozen && !current.keeps_frozen_rules(wanted) {
        return Err(ChangeRefused::Frozen);
    }
    let Budget { revision, frozen, closing, .. } = *current;
    let person_salt = current.person_salt.clone();
    let unchanged = Budget { revision, frozen, closing, person_salt, ..wanted.clone() };
    if unchanged == *current {
        return Ok(None);
    }
    let revision = current.revision + 1;
    let closes_later = match (current.closes_at, wanted.closes_at) {
        (Some(before), Some(after)) => before < after,
        (before, after) => before.is_some() && after.is_none(),
    };
    if closes_later && current.person_salt.forgotten_at().is_some() {
        return Err(ChangeRefused::Forgotten);
    }
    let closing = closing.map(|fence| match fence.state {
        ClosingState::Closed if closes_later => {
            ClosingFence { revision, state: ClosingState::Reopening }
        }
        ClosingState::Closed | ClosingState::Reopening | ClosingState::Reopened => fence,
    });
    Ok(Some(Budget { revision, closing, ..unchanged }))
}

/// Closes a budget whose closing time has passed, if it still is the one of `due`.
///
/// # Errors
/// Never.
pub fn close(current: Option<&Budget>, due: &Budget) -> Result<Option<Budget>, ChangeRefused> {
    Ok(current
        .filter(|current| !current.is_fenced() && current.closes_at == due.closes_at)
        .map(|current| with_closing_state(current, ClosingState::Closed)))
}

/// Opens a budget again whose reopen markers, those of `reopening`, are in every partition.
///
/// # Errors
/// Never.
pub fn complete_reopening(
    current: Option<&Budget>,
    reopening: ClosingFence,
) -> Result<Option<Budget>, ChangeRefused> {
    Ok(current
        .filter(|current| {
            current.closing == Some(reopening) && reopening.state == ClosingState::Reopening
        })
        .map(|current| with_closing_state(current, ClosingState::Reopened)))
}

fn with_closing_state(current: &Budget, state: ClosingState) -> Budget {
    let revision = current.revision + 1;
    Budget { revision, closing: Some(ClosingFence { revision, state }), ..current.clone() }
}

/// Returns the fence behind which the budget's persons can be forgotten; `None` if they are already.
///
/// # Errors
/// When the budget does not exist, has no secret of its own, or is not closed.
pub fn forgettable(current: Option<&Budget>) -> Result<Option<ClosingFence>, ChangeRefused> {
    let current = current.ok_or(ChangeRefused::Unknown)?;
    match current.person_salt {
        PersonSaltState::Forgotten { .. } => return Ok(None),
        PersonSaltState::DeploymentOnly => return Err(ChangeRefused::NoSalt),
        PersonSaltState::Salted(_) => {}
    }
    let closed = current.closing.filter(|fence| fence.state == ClosingState::Closed);
    closed.map(Some).ok_or(ChangeRefused::NotClosed)
}

/// Forgets the persons of a budget that is closed by `fence` still. For ever: no change brings the salt back.
///
/// # Errors
/// As [`forgettable`]; also when the budget was reopened since.
pub fn forget(
    current: Option<&Budget>,
    fence: ClosingFence,
    at: Timestamp,
) -> Result<Option<Budget>, ChangeRefused> {
    match (forgettable(current)?, current) {
        (Some(found), Some(current)) if found == fence => Ok(Some(Budget {
            revision: current.revision + 1,
            person_salt: PersonSaltState::Forgotten { at },
            ..current.clone()
        })),
        (Some(_), _) => Err(ChangeRefused::NotClosed),
        (None, _) => Ok(None),
    }
}

/// Creates a definition if there is none, such as a default budget.
///
/// # Errors
/// Never.
pub fn define_if_absent(
    current: Option<&Budget>,
    wanted: &Budget,
) -> Result<Option<Budget>, ChangeRefused> {
    if current.is_some() { Ok(None) } else { define(None, wanted) }
}

/// Freezes a definition at its first submission.
///
/// # Errors
/// When the budget does not exist.
pub fn freeze(current: Option<&Budget>) -> Result<Option<Budget>, ChangeRefused> {
    let current = current.ok_or(ChangeRefused::Unknown)?;
    if current.frozen {
        return Ok(None);
    }
    Ok(Some(Budget { revision: current.revision + 1, frozen: true, ..current.clone() }))
}

/// Freezes a definition at its first submission, if it still is the one that the submission was checked against.
///
/// Any other definition is left unchanged: the submission may be invalid for it, and a refused submission freezes
/// nothing.
///
/// # Errors
/// When the budget does not exist.
pub fn freeze_checked(
    current: Option<&Budget>,
    checked: &Budget,
) -> Result<Option<Budget>, ChangeRefused> {
    if current.is_some_and(|current| current != checked) { Ok(None) } else { freeze(current) }
}

/// Deletes a budget without people: its first submission would have frozen it.
///
/// # Errors
/// When the budget does not exist, is frozen or closed, or its persons are forgotten.
pub fn delete(current: Option<&Budget>) -> Result<(), ChangeRefused> {
    match current {
        None => Err(ChangeRefused::Unknown),
        Some(budget) if budget.person_salt.forgotten_at().is_some() => {
            Err(ChangeRefused::Forgotten)
        }
        Some(budget) if budget.is_fenced() => Err(ChangeRefused::Closed),
        Some(Budget { frozen: true, .. }) => Err(ChangeRefused::Frozen),
        Some(_) => Ok(()),
    }
}

/// The definitions of all budgets at one point of the history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    budgets: BTreeMap<BudgetId, Arc<Budget>>,
    /// Definitions of which this release does not understand everything. Those without a budget are unreadable.
    not_understood: BTreeMap<BudgetId, NotUnderstood>,
    /// Deleted budgets with the revision of their deletion.
    deleted: BTreeMap<BudgetId, u64>,
}

/// What keeps this release from changing a definition.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NotUnderstood {
    revision: u64,
    reason: Arc<str>,
}

impl Catalog {
    /// Returns the definition of a budget, as far as this release understands it; `None` if it is unreadable.
    pub fn get(&self, id: &str) -> Option<&Arc<Budget>> {
        self.budgets.get(id)
    }

    /// All readable definitions, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.budgets.values()
    }

    /// Ids of budgets whose definition is unreadable. They exist, and nothing is known about them.
    pub fn unreadable(&self) -> impl Iterator<Item = &BudgetId> {
        self.not_understood.keys().filter(|id| !self.budgets.contains_key(*id))
    }

    /// Whether the budget exists and its definition is unreadable.
    pub fn is_unreadable(&self, id: &str) -> bool {
        self.not_understood.contains_key(id) && !self.budgets.contains_key(id)
    }

    /// Whether no budget was ever defined, as far as the history shows: deleted and unreadable ones count.
    pub fn is_empty(&self) -> bool {
        self.budgets.is_empty() && self.not_understood.is_empty() && self.deleted.is_empty()
    }

    /// Whether the budget was deleted, and not defined anew since.
    pub fn is_deleted(&self, id: &str) -> bool {
        self.deleted.contains_key(id)
    }

    /// Returns the definition that a change may replace; `None` if the budget does not exist.
    ///
    /// # Errors
    /// When this release does not understand the whole definition.
    pub fn changeable(&self, id: &str) -> Result<Option<&Arc<Budget>>, ChangeRefused> {
        if self.not_understood.contains_key(id) {
            return Err(ChangeRefused::NotUnderstood);
        }
        Ok(self.budgets.get(id))
    }

    /// Returns a copy with one definition added or replaced.
    pub fn with(&self, budget: Arc<Budget>) -> Self {
        let mut next = self.clone();
        next.not_understood.remove(&budget.id);
        next.deleted.remove(&budget.id);
        next.budgets.insert(budget.id.clone(), budget);
        next
    }

    /// Returns a copy without a budget, which was deleted at `revision`.
    pub fn without(&self, id: &BudgetId, revision: u64) -> Self {
        let mut next = self.clone();
        next.not_understood.remove(id);
        next.budgets.remove(id);
        next.deleted.insert(id.clone(), revision);
        next
    }

    /// Returns a decided definition with the revision under which it is stored: after a deletion, revisions continue.
    pub fn numbered(&self, decided: Budget) -> Budget {
        match self.deleted.get(&decided.id) {
            Some(deleted) => Budget { revision: deleted + decided.revision, ..decided },
            None => decided,
        }
    }

    /// Returns a copy with a definition as it was read from the history.
    pub fn with_stored(&self, id: &BudgetId, stored: StoredBudget) -> Self {
        let known = self.revision(id).unwrap_or_default();
        let (budget, revision, reason) = match stored {
            StoredBudget::Understood(budget) => return self.with(Arc::new(budget)),
            StoredBudget::PartlyUnderstood { budget, members } => {
                let revision = budget.revision;
                (Some(Arc::new(budget)), revision, format!("unknown: {}", members.join(", ")))
            }
            StoredBudget::Deleted { revision } => return self.without(id, revision),
            StoredBudget::Unreadable { revision, reason } => {
                (None, revision.unwrap_or(known), reason)
            }
        };
        let mut next = self.clone();
        next.deleted.remove(id);
        next.not_understood.insert(id.clone(), NotUnderstood { revision, reason: reason.into() });
        match budget {
            Some(budget) => next.budgets.insert(id.clone(), budget),
            None => next.budgets.remove(id),
        };
        next
    }

    /// Returns a copy with a definition as it was read from the history, unless the known one is newer.
    pub(super) fn with_newer(&self, id: &BudgetId, stored: &StoredBudget) -> Option<Self> {
        let revision = match stored {
            StoredBudget::Understood(budget) | StoredBudget::PartlyUnderstood { budget, .. } => {
                Some(budget.revision)
            }
            StoredBudget::Deleted { revision } => Some(*revision),
            StoredBudget::Unreadable { revision, .. } => *revision,
        };
        let is_newer = match (self.revision(id), revision) {
            // An unreadable definition may carry the previous definition's revision, so a readable one of the same
            // revision replaces it.
            (Some(known), Some(read)) if self.is_unreadable(id.as_str()) => known <= read,
            (Some(known), Some(read)) => known < read,
            (None, _) | (_, None) => true,
        };
        is_newer.then(|| self.with_stored(id, stored.clone()))
    }

    fn revision(&self, id: &BudgetId) -> Option<u64> {
        let readable = self.budgets.get(id).map(|budget| budget.revision);
        let unreadable = || Some(self.not_understood.get(id)?.revision);
        readable.or_else(unreadable).or_else(|| self.deleted.get(id).copied())
    }

    /// Logs the definitions of which this release does not understand everything.
    pub(super) fn log_not_understood(&self, id: &BudgetId) {
        let Some(NotUnderstood { revision, reason }) = self.not_understood.get(id) else { return };
        if self.is_unreadable(id.as_str()) {
            tracing::error!(budget = %id, revision, %reason, "budget definition is unreadable, the budget is not served");
        } else {
            tracing::warn!(budget = %id, revision, %reason, "budget definition is only partly understood, it is served but not changed");
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
