//! The catalog of budget definitions, and the rules for changing them, as pure functions.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::{Budget, BudgetId};

/// Decides a change of a definition: `Ok(Some)` is written, `Ok(None)` leaves it unchanged.
pub type Change<'a> =
    dyn Fn(Option<&Budget>) -> Result<Option<Budget>, ChangeRefused> + Send + Sync + 'a;

/// Why a change is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// The first submission has frozen categories and identity rule.
    #[error("the categories and the identity rule are frozen by the first submission")]
    Frozen,
    /// The budget does not exist.
    #[error("there is no such budget")]
    Unknown,
}

/// Creates or replaces a definition. Ignores revision and `frozen` of `wanted`.
///
/// # Errors
/// When it would change frozen fields.
pub fn define(current: Option<&Budget>, wanted: &Budget) -> Result<Option<Budget>, ChangeRefused> {
    let Some(current) = current else {
        return Ok(Some(Budget { revision: 1, frozen: false, ..wanted.clone() }));
    };
    if current.frozen && !current.keeps_frozen_rules(wanted) {
        return Err(ChangeRefused::Frozen);
    }
    let unchanged = Budget { revision: current.revision, frozen: current.frozen, ..wanted.clone() };
    if unchanged == *current {
        return Ok(None);
    }
    Ok(Some(Budget { revision: current.revision + 1, ..unchanged }))
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

/// The definitions of all budgets at one point of the history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    budgets: BTreeMap<BudgetId, Arc<Budget>>,
}

impl Catalog {
    /// Returns the definition of a budget.
    pub fn get(&self, id: &str) -> Option<&Arc<Budget>> {
        self.budgets.get(id)
    }

    /// All definitions, ordered by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.budgets.values()
    }

    /// Returns a copy with one definition added or replaced.
    pub fn with(&self, budget: Arc<Budget>) -> Self {
        let mut budgets = self.budgets.clone();
        budgets.insert(budget.id.clone(), budget);
        Self { budgets }
    }
}
