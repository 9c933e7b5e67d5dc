//! Differences between a partition of two generations at the same position.

use schemas::PartitionId;
use storage::store::StoredPartition;

use crate::comparison::{Comparison, Scope, Subject, by_budget, pair_by_budget};

/// Maximum number of differences that are listed; more are only counted.
const MAX_LISTED_DIFFERENCES: usize = 100;

/// Compares totals and record counts. `shadow` follows the log; `active` is judged by it.
pub(super) fn differences(
    partition: PartitionId,
    shadow: &StoredPartition,
    active: &StoredPartition,
) -> Vec<String> {
    let mut found = Vec::new();
    let scope = |budget| Scope {
        subject: Subject::Totals,
        partition: Some(partition),
        budget,
        category: None,
    };
    let (log, counts) = (shadow.checkpoint.tally, active.checkpoint.tally);
    let mut comparison = Comparison::new(scope(None), &mut found);
    comparison.compare_number("applied", log.applied, counts.applied);
    comparison.compare_number("duplicates", log.duplicates, counts.duplicates);
    comparison.compare_number("dead letters", log.dead_lettered, counts.dead_lettered);
    for (budget, log, totals) in
        pair_by_budget(by_budget(&shadow.totals), by_budget(&active.totals))
    {
        let mut comparison = Comparison::new(scope(Some(budget.clone())), &mut found);
        comparison.compare_stored_totals(log, totals);
    }
    let more = found.len().saturating_sub(MAX_LISTED_DIFFERENCES);
    let mut lines: Vec<_> =
        found.iter().take(MAX_LISTED_DIFFERENCES).map(ToString::to_string).collect();
    if more > 0 {
        lines.push(format!("and {more} more differences in partition {partition}"));
    }
    lines
}
