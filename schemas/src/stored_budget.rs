//! A budget definition as stored: read as far as this release understands it.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::stored::{self, StoredDocument};
use crate::{
    Budget, BudgetId, CategoryOrder, IdentityRule, MAX_CATEGORIES, MIN_CATEGORIES,
    ResultsVisibility,
};

/// A stored definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredBudget {
    /// This release understands the whole definition.
    Understood(Budget),
    /// A newer release wrote more than this one understands. Served, but neither changed nor frozen.
    PartlyUnderstood {
        /// The understood part.
        budget: Budget,
        /// JSON pointers of what is not understood.
        members: Vec<String>,
    },
    /// The budget was deleted. Its id may be defined anew, with a later revision.
    Deleted {
        /// The revision of the deletion: one more than the last definition's.
        revision: u64,
    },
    /// Damaged, or usable by a newer release only: nothing of it is served, and nothing is written over it.
    Unreadable {
        /// The definition's revision, if that is readable.
        revision: Option<u64>,
        /// Why it cannot be read.
        reason: String,
    },
}

impl StoredBudget {
    /// Parses a stored definition.
    ///
    /// Rules for authors, such as the length of a name, are not checked: other releases may have other limits.
    pub fn parse(json: &[u8]) -> Self {
        let StoredDocument { value: budget, not_understood: mut members } =
            match stored::read::<Budget>(json) {
                Ok(document) => document,
                Err(reason) => {
                    return match (is_deletion(json), revision(json)) {
                        (true, Some(revision)) => Self::Deleted { revision },
                        (_, revision) => Self::Unreadable { revision, reason },
                    };
                }
            };
        if let Some(reason) = unusable(&budget) {
            return Self::Unreadable { revision: Some(budget.revision), reason };
        }
        if budget.results == ResultsVisibility::Unrecognized {
            members.push("/results".to_owned());
        }
        if budget.identity == IdentityRule::Unrecognized {
            members.push("/identity".to_owned());
        }
        if budget.presentation.order == CategoryOrder::Unrecognized {
            members.push("/order".to_owned());
        }
        if members.is_empty() {
            Self::Understood(budget)
        } else {
            Self::PartlyUnderstood { budget, members }
        }
    }

    /// Serializes the record of a deletion. It keeps the revision, so that a process that has missed it takes a later
    /// definition for newer than the deleted one. Earlier releases find the definition unreadable.
    pub fn deletion(id: &BudgetId, revision: u64) -> String {
        serde_json::json!({ "id": id, "revision": revision, "deleted": true }).to_string()
    }

    /// Returns the budget's id of a stored definition, even if nothing else of it is readable.
    pub fn id(json: &[u8]) -> Option<BudgetId> {
        let document: Value = serde_json::from_slice(json).ok()?;
        BudgetId::parse(document["id"].as_str()?).ok()
    }
}

fn is_deletion(json: &[u8]) -> bool {
    let document: Option<Value> = serde_json::from_slice(json).ok();
    document.is_some_and(|document| document["deleted"] == Value::Bool(true))
}

fn revision(json: &[u8]) -> Option<u64> {
    let document: Value = serde_json::from_slice(json).ok()?;
    document["revision"].as_u64()
}

/// Returns why submissions and totals of the definition cannot be represented, if they cannot.
fn unusable(budget: &Budget) -> Option<String> {
    let found = budget.categories.len();
    if !(MIN_CATEGORIES..=MAX_CATEGORIES).contains(&found) {
        return Some(format!(
            "it has {found} categories, and this release takes {MIN_CATEGORIES} to {MAX_CATEGORIES}"
        ));
    }
    let mut seen = BTreeSet::new();
    let twice = budget.categories.iter().find(|category| !seen.insert(&category.id));
    twice.map(|category| format!("it has the category `{}` twice", category.id))
}
