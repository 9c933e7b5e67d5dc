//! Combines the histories of all partitions. Pure.
//!
//! At an instant, a partition has the totals of the history point that holds at it, or its committed totals if no
//! record has completed that point yet. An instant for which a partition has neither is unknown and left out: no number
//! stands in for it.

use std::ops::Range;

use super::{HistoryInstant, HistoryMergeFault, HistoryPoint, HistoryStep, HistoryTotals};
use crate::BudgetTotals;

/// People and sums of all partitions at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstantTotals {
    /// The instant.
    pub instant: HistoryInstant,
    /// What was accepted before it.
    pub totals: HistoryTotals,
}

/// What one partition knows of a budget's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionHistory {
    /// The complete points, in order.
    pub points: Vec<HistoryPoint>,
    /// The committed totals, read before the points.
    pub current: BudgetTotals,
}

/// Adds up the partitions at each instant, in order. Leaves out unknown instants, and those before the first
/// allocation.
///
/// # Errors
/// When the partitions contradict each other.
pub fn combine_histories(
    step: HistoryStep,
    instants: &Range<HistoryInstant>,
    partitions: &[PartitionHistory],
) -> Result<Vec<InstantTotals>, HistoryMergeFault> {
    let partitions: Vec<KnownTotals<'_>> =
        partitions.iter().map(|partition| KnownTotals::new(step, partition)).collect();
    let mut combined = Vec::new();
    for instant in (instants.start.0..instants.end.0).map(HistoryInstant) {
        let known = partitions.iter().map(|partition| partition.at(instant));
        let Some(parts) = known.collect::<Option<Vec<_>>>() else { continue };
        let mut totals = HistoryTotals::default();
        for part in parts {
            totals.add(part)?;
        }
        if !totals.basis_points.is_empty() {
            combined.push(InstantTotals { instant, totals });
        }
    }
    Ok(combined)
}

/// One partition's totals, by instant.
struct KnownTotals<'a> {
    points: &'a [HistoryPoint],
    /// The first instant of the committed totals; `None` if a point was completed after they were read.
    current_from: Option<HistoryInstant>,
    current: HistoryTotals,
}

impl<'a> KnownTotals<'a> {
    fn new(step: HistoryStep, partition: &'a PartitionHistory) -> Self {
        let PartitionHistory { points, current } = partition;
        let from = step.first_instant_of(current);
        let is_current = points.last().is_none_or(|point| point.end <= from);
        Self {
            points,
            current_from: is_current.then_some(from),
            current: HistoryTotals::of(current),
        }
    }

    /// Returns the totals at an instant; `None` if they are unknown.
    fn at(&self, instant: HistoryInstant) -> Option<&HistoryTotals> {
        let index = self.points.partition_point(|point| point.end <= instant);
        match self.points.get(index) {
            Some(point) if point.first <= instant => Some(&point.totals),
            Some(_) => None,
            None => self.current_from.filter(|from| instant >= *from).map(|_| &self.current),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{CategoryTotals, Position};

    const STEP: HistoryStep = HistoryStep::Hour;

    fn totals(people: u64, updated_in: u32) -> BudgetTotals {
        let category = |basis_points| CategoryTotals { basis_points, ..CategoryTotals::default() };
        BudgetTotals {
            position: Position(people),
            people,
            updated_at_ms: HistoryInstant(updated_in).at_ms(STEP) + 1,
            categories: vec![category(people * 4_000), category(people * 6_000)],
            ..BudgetTotals::default()
        }
    }

    fn point(first: u32, end: u32, people: u64) -> HistoryPoint {
        HistoryPoint {
            step: STEP,
            first: HistoryInstant(first),
            end: HistoryInstant(end),
            totals: HistoryTotals::of(&totals(people, 1)),
        }
    }

    fn people(instants: Range<u32>, parts: &[PartitionHistory]) -> Vec<(u32, u64)> {
        let instants = HistoryInstant(instants.start)..HistoryInstant(instants.end);
        let combined = combine_histories(STEP, &instants, parts).unwrap();
        combined.iter().map(|point| (point.instant.0, point.totals.people)).collect()
    }

    fn nobody() -> HistoryPoint {
        HistoryPoint { totals: HistoryTotals::default(), ..point(0, 10, 0) }
    }

    #[test]
    fn each_instant_is_the_sum_of_what_holds_in_every_partition() {
        let parts = [
            PartitionHistory {
                points: vec![nobody(), point(10, 12, 1), point(12, 14, 5)],
                current: totals(7, 13),
            },
            PartitionHistory {
                points: vec![HistoryPoint { end: HistoryInstant(11), ..nobody() }],
                current: totals(100, 10),
            },
            // Nobody has submitted here.
            PartitionHistory { points: vec![], current: BudgetTotals::default() },
        ];
        let expected = [(10, 1), (11, 101), (12, 105), (13, 105), (14, 107), (15, 107)];
        assert_eq!(people(8..16, &parts), expected);
        assert_eq!(people(13..15, &parts), [(13, 105), (14, 107)]);
    }

    #[test]
    fn instants_without_a_point_are_left_out_and_no_older_point_stands_in() {
        let parts = [PartitionHistory {
            points: vec![point(10, 12, 1), point(20, 22, 5)],
            current: totals(7, 30),
        }];
        assert_eq!(people(8..33, &parts), [(10, 1), (11, 1), (20, 5), (21, 5), (31, 7), (32, 7)]);
    }

    #[test]
    fn a_point_completed_after_the_committed_totals_were_read_is_used() {
        let parts = [PartitionHistory { points: vec![point(10, 15, 1)], current: totals(1, 9) }];
        // From the end of that point on, what holds is not known to this read.
        assert_eq!(people(9..18, &parts), [(10, 1), (11, 1), (12, 1), (13, 1), (14, 1)]);
    }

    #[test]
    fn partitions_with_different_categories_are_damage() {
        let mut other = totals(1, 9);
        other.categories.push(CategoryTotals::default());
        let part = |current| PartitionHistory { points: vec![], current };
        let parts = [part(totals(1, 9)), part(other)];
        let instants = HistoryInstant(10)..HistoryInstant(11);
        assert_eq!(combine_histories(STEP, &instants, &parts), Err(HistoryMergeFault));
    }
}
