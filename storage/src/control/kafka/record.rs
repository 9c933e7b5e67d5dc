//! The records of the control topic: their keys, and how this release reads them.

use rdkafka::Message;
use schemas::{
    BudgetId, LogRef, SecretFingerprint, StoredAnnulments, StoredBudget, StoredRevocations,
};

/// Key of the record that names the active log. Not a valid budget id.
pub(super) const ACTIVE_LOG_KEY: &str = "@log";

/// Key of the record with the fingerprint of the person secret. Not a valid budget id.
pub(super) const SECRET_KEY: &str = "@secret";

/// Beginning of the keys of the records of revoked codes; the budget's id follows.
pub(super) const REVOKED_KEY_PREFIX: &str = "@revoked:";

/// Beginning of the keys of the documents of annulments; the budget's id follows.
pub(super) const ANNULMENTS_KEY_PREFIX: &str = "@annulments:";

/// A record of the topic.
pub(super) enum ControlRecord {
    Budget(BudgetId, Box<StoredBudget>),
    ActiveLog(LogRef),
    /// The active log's record, in a form that only a newer release can read.
    UnreadableLog,
    Secret(SecretFingerprint),
    /// The record of the person secret, in a form that only a newer release can read.
    UnreadableSecret,
    Revoked(BudgetId, StoredRevocations),
    Annulments(BudgetId, StoredAnnulments),
}

impl ControlRecord {
    /// Parses a record; `None` if its key is none of this release.
    pub fn parse(message: &impl Message) -> Option<Self> {
        Self::of(message.key()?, message.payload())
    }

    pub(super) fn of(key: &[u8], payload: Option<&[u8]>) -> Option<Self> {
        if key == ACTIVE_LOG_KEY.as_bytes() {
            let log = payload.and_then(|json| serde_json::from_slice(json).ok());
            return Some(log.map_or(Self::UnreadableLog, Self::ActiveLog));
        }
        if key == SECRET_KEY.as_bytes() {
            let secret = payload.and_then(|json| serde_json::from_slice(json).ok());
            return Some(secret.map_or(Self::UnreadableSecret, Self::Secret));
        }
        let key = std::str::from_utf8(key).ok()?;
        if let Some(budget) = key.strip_prefix(REVOKED_KEY_PREFIX) {
            let budget = BudgetId::parse(budget).ok()?;
            let stored = StoredRevocations::parse(&budget, payload.unwrap_or_default());
            return Some(Self::Revoked(budget, stored));
        }
        if let Some(budget) = key.strip_prefix(ANNULMENTS_KEY_PREFIX) {
            let budget = BudgetId::parse(budget).ok()?;
            let stored = StoredAnnulments::parse(&budget, payload.unwrap_or_default());
            return Some(Self::Annulments(budget, stored));
        }
        let id = BudgetId::parse(key).ok()?;
        let unreadable =
            |reason: &str| StoredBudget::Unreadable { revision: None, reason: reason.to_owned() };
        let stored = match payload.map(StoredBudget::parse) {
            None => unreadable("it was deleted, which this release does not support"),
            Some(
                StoredBudget::Understood(budget) | StoredBudget::PartlyUnderstood { budget, .. },
            ) if budget.id != id => unreadable("its id is not its key"),
            Some(stored) => stored,
        };
        Some(Self::Budget(id, Box::new(stored)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::control::Catalog;

    const FUTURE: &[u8] = include_bytes!("../../../../schemas/tests/golden/future_definition.json");

    #[test]
    fn a_budget_record_of_a_newer_release_is_never_passed_over() {
        let read =
            |key: &str, payload: Option<&[u8]>| match ControlRecord::of(key.as_bytes(), payload) {
                Some(ControlRecord::Budget(id, stored)) => {
                    Catalog::default().with_stored(&id, *stored).changeable(key).is_err()
                }
                _ => false,
            };
        assert!(read("parks", Some(FUTURE)));
        assert!(read("parks", Some(b"\x00binary")));
        assert!(read("parks", None), "deleted");
        assert!(read("not-parks", Some(FUTURE)), "another budget's record");
        assert!(ControlRecord::of(b"@newer", Some(b"{}")).is_none());
    }
}
