//! Annulment: an administrator decides that people do not count, or that they count again.
//!
//! Each annulled person gets a record in the log, in the partition and the order of the person's own records, so that
//! totals stay a function of the log. What an annulled person submits is kept and does not count, until the person is
//! restored. The latest decision about a person holds.

use uuid::Uuid;

/// Identifies one annulment: one decision about any number of people of one budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AnnulmentId(pub Uuid);

/// What the record of an annulment does to its person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnulmentAction {
    /// The person does not count from now on.
    Annul,
    /// The person counts again, with the latest shares.
    Restore,
}
