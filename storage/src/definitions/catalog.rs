//! The rules of change, as pure decisions, and the catalog that they make.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::{Budget, BudgetId};

/// Decides what becomes of a definition: `Ok(Some)` is written, `Ok(None)` leaves it as it is.
pub type Change<'a> =
    dyn Fn(Option<&Budget>) -> Result<Option<Budget>, ChangeRefused> + Send + Sync + 'a;

/// Why the rules forbid a change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeRefused {
    /// Its categories and identity rule are frozen by its first submission.
    #[error("the categories and the identity rule are frozen by the first submission")]
    Frozen,
    /// There is no such budget.
    #[error("there is no such budget")]
    Unknown,
}

/// Creates or changes a definition to `wanted`, whose revision and freezing do not count.
///
/// # Errors
/// When it would change what is frozen.
pub fn define(current: Option<&Budget>, wanted: &Budget) -> Result<Option<Budget>, ChangeRefused> {
    let Some(current) = current else {
        return Ok(Some(Budget { revision: 1, frozen: false, ..wanted.clone() }));
    };
    if current.frozen && !current.keeps_frozen_rules(wanted) {
        return Err(ChangeRefused::Frozen);
    }
    let same = Budget { revision: current.revision, frozen: current.frozen, ..wanted.clone() };
    if same == *current {
        return Ok(None);
    }
    Ok(Some(Budget { revision: current.revision + 1, ..same }))
}

/// Creates a definition if there is none, as a deployment does with its default budgets.
///
/// # Errors
/// Never.
pub fn define_if_absent(
    current: Option<&Budget>,
    wanted: &Budget,
) -> Result<Option<Budget>, ChangeRefused> {
    if current.is_some() { Ok(None) } else { define(None, wanted) }
}

/// Freezes a definition, as its first submission does.
///
/// # Errors
/// When there is none.
pub fn freeze(current: Option<&Budget>) -> Result<Option<Budget>, ChangeRefused> {
    let current = current.ok_or(ChangeRefused::Unknown)?;
    if current.frozen {
        return Ok(None);
    }
    Ok(Some(Budget { revision: current.revision + 1, frozen: true, ..current.clone() }))
}

/// Every budget's definition at one point of the history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Catalog {
    budgets: BTreeMap<BudgetId, Arc<Budget>>,
}

impl Catalog {
    /// One budget's definition.
    pub fn get(&self, id: &str) -> Option<&Arc<Budget>> {
        self.budgets.get(id)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Budget>> {
        self.budgets.values()
    }

    /// This catalog with one definition put in.
    pub fn with(&self, budget: Arc<Budget>) -> Self {
        let mut budgets = self.budgets.clone();
        budgets.insert(budget.id.clone(), budget);
        Self { budgets }
    }
}
