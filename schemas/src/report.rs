//! The progress report of one shadow partition: its positions and its comparison with the active generation.

use serde::{Deserialize, Serialize};

use crate::{Generation, Position};

/// Progress of one shadow partition, as its owner last reported it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionReport {
    /// Committed position.
    pub position: Position,
    /// Position up to which person rows are written.
    #[serde(rename = "rows")]
    pub rows_position: Position,
    /// End of the log at the time of the report.
    #[serde(rename = "high")]
    pub log_end: Position,
    /// Latest comparison with the active generation; `None` before the first.
    #[serde(rename = "compared")]
    pub comparison: Option<TotalsComparison>,
    /// Why the partition makes no progress; `None` while it does.
    #[serde(rename = "trouble")]
    pub stall_reason: Option<String>,
    /// Time of the report, in milliseconds since 1970.
    #[serde(rename = "at_ms")]
    pub reported_at_ms: u64,
}

/// The totals of two generations, compared at one position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalsComparison {
    /// The generation compared with: the one that was active then.
    pub with: Generation,
    /// Position of both generations.
    pub position: Position,
    /// Differences, one line each; empty if the totals are equal.
    pub differences: Vec<String>,
}

impl PartitionReport {
    /// Encodes the report for its store row.
    pub fn to_json(&self) -> String {
        // Only numbers, strings and lists under string keys: serialization cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Decodes what [`PartitionReport::to_json`] wrote; `None` if the text is damaged.
    pub fn from_json(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_field_names_stay_the_same() {
        let report = PartitionReport {
            position: Position(1),
            rows_position: Position(2),
            log_end: Position(3),
            comparison: None,
            stall_reason: None,
            reported_at_ms: 4,
        };
        let stored = r#"{"position":1,"rows":2,"high":3,"compared":null,"trouble":null,"at_ms":4}"#;
        assert_eq!(report.to_json(), stored);
        assert_eq!(PartitionReport::from_json(stored), Some(report));
    }
}
