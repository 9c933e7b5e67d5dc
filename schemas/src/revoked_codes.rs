//! The personal codes that were revoked: one record for each budget in the control topic, and what is known of all.
//!
//! Records only grow: a revoked code is never valid again. So the order in which records of one budget are read, or
//! learned from a change of one's own, does not matter.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::stored::{self, StoredDocument};
use crate::{BudgetId, SerialSet};

/// Maximum number of ranges in a record, so that it is smaller than a message may be.
pub const MAX_REVOKED_RANGES: usize = 32_768;

#[derive(Serialize, Deserialize)]
struct Record {
    budget: BudgetId,
    /// The text of a [`SerialSet`].
    serials: String,
}

/// The revoked codes of one budget, as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredRevocations {
    /// This release understands the whole record.
    Understood(SerialSet),
    /// A newer release wrote more than this one understands. Applied, but not changed.
    PartlyUnderstood(SerialSet),
    /// Damaged, or usable by a newer release only: no code of the budget is known to be valid.
    Unreadable,
}

impl StoredRevocations {
    /// Parses the record of a budget.
    pub fn parse(budget: &BudgetId, json: &[u8]) -> Self {
        let Ok(StoredDocument { value, not_understood }) = stored::read::<Record>(json, &[]) else {
            return Self::Unreadable;
        };
        match value.serials.parse() {
            Ok(_) if value.budget != *budget => Self::Unreadable,
            Ok(serials) if not_understood.is_empty() => Self::Understood(serials),
            Ok(serials) => Self::PartlyUnderstood(serials),
            Err(_) => Self::Unreadable,
        }
    }

    /// Serializes the record of a budget.
    pub fn record(budget: &BudgetId, serials: &SerialSet) -> String {
        serde_json::json!({ "budget": budget, "serials": serials.to_string() }).to_string()
    }

    /// Returns the revoked serial numbers; `None` if the record is unreadable.
    pub fn serials(&self) -> Option<&SerialSet> {
        match self {
            Self::Understood(serials) | Self::PartlyUnderstood(serials) => Some(serials),
            Self::Unreadable => None,
        }
    }
}

/// What is known of a serial number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CodeValidity {
    /// Its code is not revoked.
    Valid,
    /// Its code was revoked.
    Revoked,
    /// The records are not loaded yet, or the budget's is unreadable to this release.
    Unknown,
}

/// The revoked codes of all budgets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RevokedCodes {
    is_loaded: bool,
    budgets: BTreeMap<BudgetId, StoredRevocations>,
}

impl RevokedCodes {
    /// Creates what is known once every record is read, and there is none.
    pub fn none() -> Self {
        Self { is_loaded: true, budgets: BTreeMap::new() }
    }

    /// Notes that every record was read once. Before that, nothing is known of any code.
    pub fn set_loaded(&mut self) {
        self.is_loaded = true;
    }

    /// Adds a record of a budget to what is known. Returns whether something changed.
    pub fn add(&mut self, budget: &BudgetId, stored: StoredRevocations) -> bool {
        let known = self.budgets.get(budget);
        let merged = match (known.and_then(StoredRevocations::serials), stored) {
            (Some(known), StoredRevocations::Understood(mut serials)) => {
                serials.extend(known);
                StoredRevocations::Understood(serials)
            }
            (Some(known), StoredRevocations::PartlyUnderstood(mut serials)) => {
                serials.extend(known);
                StoredRevocations::PartlyUnderstood(serials)
            }
            (_, stored) => stored,
        };
        let is_news = known != Some(&merged);
        self.budgets.insert(budget.clone(), merged);
        is_news
    }

    /// Returns the record of a budget, if there is one.
    pub fn of(&self, budget: &BudgetId) -> Option<&StoredRevocations> {
        self.budgets.get(budget)
    }

    /// Returns how many budgets have a record that is unreadable to this release.
    pub fn unreadable(&self) -> usize {
        self.budgets.values().filter(|stored| stored.serials().is_none()).count()
    }

    /// Whether a serial number of a budget was revoked.
    pub fn validity(&self, budget: &BudgetId, serial: u32) -> CodeValidity {
        let serials = self.budgets.get(budget).map(StoredRevocations::serials);
        match serials {
            _ if !self.is_loaded => CodeValidity::Unknown,
            Some(None) => CodeValidity::Unknown,
            Some(Some(serials)) if serials.contains(serial) => CodeValidity::Revoked,
            Some(Some(_)) | None => CodeValidity::Valid,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn id(text: &str) -> BudgetId {
        BudgetId::parse(text).unwrap()
    }

    fn parse(json: &str) -> StoredRevocations {
        StoredRevocations::parse(&id("parks"), json.as_bytes())
    }

    #[test]
    fn records_stay_readable_and_those_of_newer_releases_are_applied_but_not_changed() {
        let serials: SerialSet = "9,1-5".parse().unwrap();
        let written = StoredRevocations::record(&id("parks"), &serials);
        assert_eq!(written, r#"{"budget":"parks","serials":"1-5,9"}"#);
        assert_eq!(parse(&written), StoredRevocations::Understood(serials.clone()));
        let future = r#"{"budget":"parks","serials":"1-5,9","reasons":{"9":"lost"}}"#;
        assert_eq!(parse(future), StoredRevocations::PartlyUnderstood(serials));
        for unreadable in [
            "",
            "{}",
            r#"{"budget":"roads","serials":"1"}"#,
            r#"{"budget":"parks","serials":"x"}"#,
            r#"{"budget":"parks","serials":[1]}"#,
            r#"{"budget":"parks","serials":"1","requires":["restored"]}"#,
        ] {
            assert_eq!(parse(unreadable), StoredRevocations::Unreadable, "{unreadable}");
        }
    }

    #[test]
    fn no_code_is_known_to_be_valid_before_all_records_are_read_or_if_one_is_unreadable() {
        let mut codes = RevokedCodes::default();
        assert_eq!(codes.validity(&id("parks"), 1), CodeValidity::Unknown);
        codes.add(&id("parks"), StoredRevocations::Unreadable);
        codes.set_loaded();
        assert_eq!(codes.validity(&id("parks"), 1), CodeValidity::Unknown);
        assert_eq!(codes.validity(&id("roads"), 1), CodeValidity::Valid);
        assert!(codes.add(&id("parks"), parse(r#"{"budget":"parks","serials":"1"}"#)));
        assert_eq!(codes.validity(&id("parks"), 1), CodeValidity::Revoked);
        assert_eq!(codes.validity(&id("parks"), 2), CodeValidity::Valid);
    }

    #[test]
    fn records_in_any_order_revoke_the_same_codes() {
        let records = ["1", "1-5", "1-5,9"]
            .map(|serials| StoredRevocations::Understood(serials.parse().unwrap()));
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut codes = RevokedCodes::none();
            for index in order {
                codes.add(&id("parks"), records[index].clone());
            }
            assert_eq!(codes.of(&id("parks")), Some(&records[2]), "{order:?}");
            assert!(!codes.add(&id("parks"), records[0].clone()), "nothing new");
        }
    }
}
