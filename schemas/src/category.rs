//! The categories of a budget.

use serde::{Deserialize, Serialize};

use crate::CategoryId;

/// Minimum categories of a budget.
pub const MIN_CATEGORIES: usize = 2;
/// Maximum categories of a budget.
pub const MAX_CATEGORIES: usize = 64;

/// A category of a budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Category {
    /// The category's id, unique in the budget.
    pub id: CategoryId,
    /// Display name.
    pub name: String,
    /// Short description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Colour on the page, as `#rrggbb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
}
