//! Annulment: an administrator decides that people do not count, or that they count again.
//!
//! Each annulled person gets a record in the log, in the partition and the order of the person's own records, so that
//! totals stay a function of the log. What an annulled person submits is kept and does not count, until the person is
//! restored. The latest decision about a person holds.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Identifies one annulment: one decision about any number of people of one budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AnnulmentId(pub Uuid);

impl fmt::Display for AnnulmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AnnulmentId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

/// What the record of an annulment does to its person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnulmentAction {
    /// The person does not count from now on.
    Annul,
    /// The person counts again, with the latest shares.
    Restore,
}
