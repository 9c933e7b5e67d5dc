//! Differences between the generations of the old and the new log.
//!
//! Totals and record counts are compared over all partitions, as no partition of one log
//! corresponds to a partition of the other.

use std::collections::{BTreeMap, BTreeSet};

use schemas::{BudgetId, BudgetTotals, Closing, CombinedTotals, Offset, PartitionCount, Term};
use storage::store::{RecordCounts, StoredPartition};

use crate::comparison::{Comparison, Scope, Subject, pair_by_budget};

/// Compares totals and record counts; returns one line per difference.
///
/// `left_out` are the records that were not copied, by their outcome; `markers` is the number of markers that only the
/// new log has.
pub(super) fn differences(
    before: &[StoredPartition],
    after: &[StoredPartition],
    left_out: RecordCounts,
    markers: u64,
) -> Vec<String> {
    let mut found = Vec::new();
    let scope =
        |budget| Scope { subject: Subject::Totals, partition: None, budget, category: None };
    let (old, new) = (record_counts(before), record_counts(after));
    let mut comparison = Comparison::new(scope(None), &mut found);
    let RecordCounts { applied, duplicates, dead_lettered } = left_out;
    comparison.compare_number("applied", old.applied + markers, new.applied + applied);
    comparison.compare_number("duplicates", old.duplicates, new.duplicates + duplicates);
    comparison.compare_number("dead letters", old.dead_lettered, new.dead_lettered + dead_lettered);
    match (combined(before), combined(after)) {
        (Ok(old), Ok(new)) => {
            for (budget, old, new) in pair_by_budget(old.iter().collect(), new.iter().collect()) {
                let mut comparison = Comparison::new(scope(Some(budget.clone())), &mut found);
                comparison.compare_totals(old, new);
                comparison.compare_last_change(old, new);
                let is_closed = |totals: &BudgetTotals| u64::from(totals.closing.is_closed());
                comparison.compare_number("final", is_closed(old), is_closed(new));
            }
        }
        (old, new) => {
            let faults = old.err().into_iter().chain(new.err());
            faults.for_each(|fault| Comparison::new(scope(None), &mut found).add(fault));
        }
    }
    found.iter().map(ToString::to_string).collect()
}

fn record_counts(partitions: &[StoredPartition]) -> RecordCounts {
    partitions.iter().map(|it| it.checkpoint.tally).fold(RecordCounts::default(), |sum, tally| {
        RecordCounts {
            applied: sum.applied + tally.applied,
            duplicates: sum.duplicates + tally.duplicates,
            dead_lettered: sum.dead_lettered + tally.dead_lettered,
        }
    })
}

/// Merges every budget's totals over all partitions, without positions: those of two logs are
/// not comparable.
fn combined(partitions: &[StoredPartition]) -> Result<BTreeMap<BudgetId, BudgetTotals>, String> {
    let count = PartitionCount::new(partitions.len() as u64).map_err(|fault| fault.to_string())?;
    let budgets: BTreeSet<&BudgetId> =
        partitions.iter().flat_map(|it| it.totals.iter().map(|(budget, _)| budget)).collect();
    let of = |budget: &BudgetId| {
        let totals: Vec<Option<BudgetTotals>> = partitions
            .iter()
            .map(|it| {
                let found = it.totals.iter().find(|(id, _)| id == budget);
                Some(found.map(|(_, totals)| totals.clone()).unwrap_or_default())
            })
            .collect();
        let merged = CombinedTotals::merge(Term::FIRST, count, &totals)
            .map_err(|fault| format!("budget `{budget}`: {fault}"))?;
        // Closed, of all partitions together, means final.
        let changes = if merged.is_final() { vec![Offset(0)] } else { Vec::new() };
        let closing = Closing::new(0, changes).unwrap_or_default();
        let CombinedTotals { people, updated_at_ms, categories, annulled, .. } = merged;
        let totals = BudgetTotals {
            people,
            updated_at_ms,
            categories,
            closing,
            annulled,
            ..BudgetTotals::default()
        };
        Ok((budget.clone(), totals))
    };
    budgets.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use schemas::CategoryTotals;
    use storage::store::{Checkpoint, Epoch};

    use super::*;

    /// A partition in which `people` people allocate everything to the first of two categories.
    fn partition(people: u64) -> StoredPartition {
        let mut first = CategoryTotals { basis_points: people * 10_000, ..Default::default() };
        first.people_by_percent[100] = people;
        let mut second = CategoryTotals::default();
        second.people_by_percent[0] = people;
        let tally = RecordCounts { applied: people, duplicates: 1, dead_lettered: 1 };
        let totals = BudgetTotals {
            people,
            updated_at_ms: people,
            categories: vec![first, second],
            ..BudgetTotals::default()
        };
        StoredPartition {
            epoch: Epoch(1),
            owner: "anyone".into(),
            checkpoint: Checkpoint { tally, ..Checkpoint::START },
            totals: vec![(BudgetId::parse("taxes").unwrap(), totals)],
        }
    }

    fn rejected(dead_lettered: u64) -> RecordCounts {
        RecordCounts { dead_lettered, ..RecordCounts::default() }
    }

    #[test]
    fn a_result_that_is_no_longer_final_is_a_difference() {
        let closed = || {
            let mut partition = partition(3);
            partition.totals[0].1.closing = Closing::new(2, vec![Offset(9)]).unwrap();
            partition
        };
        // The new log has a marker for each of its three partitions in place of the one for the old one.
        let mut after = [closed(), closed(), closed()];
        let before = [closed()];
        for extra in &mut after[1..] {
            extra.totals[0].1 = BudgetTotals {
                closing: closed().totals[0].1.closing.clone(),
                ..Default::default()
            };
            extra.checkpoint.tally = RecordCounts::default();
        }
        after[0].checkpoint.tally.applied = 3 - 1 + 3;
        after[0].checkpoint.tally.dead_lettered = 1;
        let left_out = RecordCounts { applied: 1, ..RecordCounts::default() };
        assert_eq!(differences(&before, &after, left_out, 3), Vec::<String>::new());
        after[1].totals[0].1.closing = Closing::NONE;
        assert_eq!(differences(&before, &after, left_out, 3).len(), 1);
    }

    #[test]
    fn the_same_people_in_other_partitions_make_no_difference() {
        let before = [partition(3), partition(5)];
        let mut after = [partition(1), partition(2), partition(5)];
        after.iter_mut().for_each(|it| it.checkpoint.tally.dead_lettered = 0);
        after[0].checkpoint.tally.duplicates = 0;
        assert_eq!(differences(&before, &after, rejected(2), 0), Vec::<String>::new());
    }

    #[test]
    fn an_extra_person_or_a_lost_record_is_a_difference() {
        let before = [partition(3), partition(5)];
        assert!(!differences(&before, &[partition(9)], rejected(1), 0).is_empty());
        let mut lost = [partition(3), partition(5)];
        lost[1].checkpoint.tally.duplicates = 0;
        assert_eq!(differences(&before, &lost, rejected(0), 0).len(), 1);
    }
}
