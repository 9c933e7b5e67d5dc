//! What differs between a partition of two generations that are at the same position.

use schemas::PartitionId;
use storage::store::StoredPartition;

use crate::audit::{Comparison, PartitionTotals, Place, Scope, side_by_side};

/// Lines that are kept; whoever differs in more is wrong enough.
const MOST: usize = 100;

fn by_budget(stored: &StoredPartition) -> PartitionTotals<'_> {
    stored.totals.iter().map(|(budget, totals)| (budget, totals)).collect()
}

/// Compares totals and tallies. `rebuilt` follows the log; `answering` is what is judged by it.
pub(super) fn differences(
    partition: PartitionId,
    rebuilt: &StoredPartition,
    answering: &StoredPartition,
) -> Vec<String> {
    let mut found = Vec::new();
    let scope =
        |budget| Scope { place: Place::Totals, partition: Some(partition), budget, category: None };
    let (log, theirs) = (rebuilt.checkpoint.tally, answering.checkpoint.tally);
    let mut comparison = Comparison::of(scope(None), &mut found);
    comparison.number("applied", log.applied, theirs.applied);
    comparison.number("duplicates", log.duplicates, theirs.duplicates);
    comparison.number("dead letters", log.dead_lettered, theirs.dead_lettered);
    for (budget, log, theirs) in side_by_side(by_budget(rebuilt), by_budget(answering)) {
        let mut comparison = Comparison::of(scope(Some(budget.clone())), &mut found);
        comparison.totals(log, theirs);
        comparison.number("position", log.position.0, theirs.position.0);
        comparison.number("last change in ms since 1970", log.updated_at_ms, theirs.updated_at_ms);
    }
    let more = found.len().saturating_sub(MOST);
    let mut lines: Vec<_> = found.iter().take(MOST).map(ToString::to_string).collect();
    if more > 0 {
        lines.push(format!("and {more} more differences in partition {partition}"));
    }
    lines
}
