//! What the owner of a partition that is folded beside the one that answers says of it: how far it has come, and how it
//! compares. A row of the store, for whoever watches.

use serde::{Deserialize, Serialize};

use crate::{Generation, Position};

/// One partition of one generation, as its owner has found it lately.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReport {
    /// Committed so far.
    pub position: Position,
    /// Of everyone whose submission is below this, the row is written.
    pub rows: Position,
    /// Where the log ended then.
    pub high: Position,
    /// The latest comparison, if there was one.
    pub compared: Option<Compared>,
    /// Why it does not come on, if it does not.
    pub trouble: Option<String>,
    /// When this was written, in milliseconds since 1970.
    pub at_ms: u64,
}

/// The totals of two generations at one position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compared {
    /// The other one: who answered then.
    pub with: Generation,
    /// Where both were.
    pub position: Position,
    /// What differs, a line each; empty if nothing does.
    pub differences: Vec<String>,
}

impl PartitionReport {
    /// The report as its row holds it.
    pub fn to_json(&self) -> String {
        // Numbers, strings and lists under string keys: there is nothing in it that JSON cannot hold.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads what [`PartitionReport::to_json`] wrote. `None` for damage.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}
