//! The history of a budget: people and sums at full minutes, hours and days of log time.
//!
//! **Log time** of a budget in a partition is the acceptance time of its newest record so far
//! ([`BudgetTotals::updated_at_ms`]). It is part of the record and never goes back, so history is a function of a
//! prefix of the log: no clock takes part.
//!
//! A **history point** holds the totals of one partition from its first instant to before its end. It is complete once
//! log time has reached its last instant, and never changes afterwards. A missing point leaves its instants unknown: no
//! other point stands in for it.

mod combine;
mod step;

use std::ops::Range;

use prost::Message;

use crate::proto::HistoryState;
use crate::{BASIS_POINTS_PER_PERSON, BudgetTotals};

pub use combine::{InstantTotals, PartitionHistory, combine_histories};
pub use step::{HistoryInstant, HistoryStep, HistoryStepFault};

/// People and sums of a budget, of one partition or combined.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryTotals {
    /// Number of people.
    pub people: u64,
    /// Sum of all shares by category, in basis points; empty before the first allocation.
    pub basis_points: Vec<u64>,
}

/// Partitions have different numbers of categories, or too many people: damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the histories of partitions contradict each other")]
pub struct HistoryMergeFault;

impl HistoryTotals {
    /// Returns the people and sums that readers are shown of totals.
    pub fn of(totals: &BudgetTotals) -> Self {
        let (people, categories) = totals.shown();
        let basis_points = categories.iter().map(|category| category.basis_points).collect();
        Self { people, basis_points }
    }

    /// Adds another partition's totals.
    ///
    /// # Errors
    /// When they have another number of categories, or a sum overflows.
    pub fn add(&mut self, other: &Self) -> Result<(), HistoryMergeFault> {
        if self.basis_points.is_empty() {
            self.basis_points = vec![0; other.basis_points.len()];
        }
        if !other.basis_points.is_empty() && other.basis_points.len() != self.basis_points.len() {
            return Err(HistoryMergeFault);
        }
        self.people = self.people.checked_add(other.people).ok_or(HistoryMergeFault)?;
        for (mine, theirs) in self.basis_points.iter_mut().zip(&other.basis_points) {
            *mine = mine.checked_add(*theirs).ok_or(HistoryMergeFault)?;
        }
        Ok(())
    }

    /// Checks that the sum over categories is people × 10,000.
    fn is_consistent(&self) -> bool {
        let sum = self.basis_points.iter().try_fold(0_u64, |sum, part| sum.checked_add(*part));
        sum.is_some() && sum == self.people.checked_mul(BASIS_POINTS_PER_PERSON)
    }
}

/// Totals of a budget in one partition, which hold at every instant from `first` to before `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPoint {
    /// The distance between instants.
    pub step: HistoryStep,
    /// The first instant at which the totals hold.
    pub first: HistoryInstant,
    /// The first instant at which they no longer hold.
    pub end: HistoryInstant,
    /// The totals.
    pub totals: HistoryTotals,
}

/// A stored history point is damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {step} at {} of a history is damaged", .first.0)]
pub struct HistoryPointFault {
    step: HistoryStep,
    first: HistoryInstant,
}

impl HistoryPoint {
    /// Encodes the `state` column.
    pub fn encode_state(&self) -> Vec<u8> {
        let HistoryTotals { people, basis_points } = self.totals.clone();
        HistoryState { end: self.end.0, people, basis_points }.encode_to_vec()
    }

    /// Decodes a stored point.
    ///
    /// # Errors
    /// When the state is not valid.
    pub fn decode(
        step: HistoryStep,
        first: HistoryInstant,
        state: &[u8],
    ) -> Result<Self, HistoryPointFault> {
        let fault = HistoryPointFault { step, first };
        let HistoryState { end, people, basis_points } =
            HistoryState::decode(state).map_err(|_| fault)?;
        let totals = HistoryTotals { people, basis_points };
        let point = Self { step, first, end: HistoryInstant(end), totals };
        let is_valid = point.first < point.end && point.totals.is_consistent();
        is_valid.then_some(point).ok_or(fault)
    }

    /// Returns whether the totals hold at any instant of a range.
    pub fn overlaps(&self, instants: &Range<HistoryInstant>) -> bool {
        self.first < instants.end && instants.start < self.end
    }

    /// Returns whether all of its instants are older than those kept at a time.
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.end <= self.step.oldest_kept(now_ms)
    }
}

/// Returns the points that are complete once a record of this time follows `totals`.
pub fn completed_points(
    totals: &BudgetTotals,
    accepted_at_ms: u64,
) -> impl Iterator<Item = HistoryPoint> + '_ {
    // Every full hour is a full minute, and every full day a full hour.
    HistoryStep::ALL.into_iter().map_while(move |step| {
        let (first, end) = (step.first_instant_of(totals), step.next_instant(accepted_at_ms));
        let point = || HistoryPoint { step, first, end, totals: HistoryTotals::of(totals) };
        (first < end).then(point)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{CategoryTotals, Position};

    const MINUTE_MS: u64 = HistoryStep::Minute.ms();
    const DAY_MS: u64 = HistoryStep::Day.ms();

    fn totals(people: u64, updated_at_ms: u64) -> BudgetTotals {
        let category = |basis_points| CategoryTotals { basis_points, ..CategoryTotals::default() };
        BudgetTotals {
            position: Position(people),
            people,
            updated_at_ms,
            categories: vec![category(people * 4_000), category(people * 6_000)],
            ..BudgetTotals::default()
        }
    }

    #[test]
    fn a_point_is_completed_by_the_first_record_of_a_later_minute() {
        let before = totals(3, 10 * MINUTE_MS + 5);
        assert_eq!(completed_points(&before, 11 * MINUTE_MS - 1).count(), 0);
        // An earlier record does not move log time.
        assert_eq!(completed_points(&before, 0).count(), 0);
        let points: Vec<_> = completed_points(&before, 14 * MINUTE_MS).collect();
        let [point] = points.as_slice() else { panic!("{points:?}") };
        // A record at a full minute is not counted at it.
        assert_eq!((point.first, point.end), (HistoryInstant(11), HistoryInstant(15)));
        assert_eq!(point.totals.people, 3);
    }

    #[test]
    fn a_later_hour_and_day_complete_points_of_every_step() {
        let before = totals(3, DAY_MS + 5);
        let points: Vec<_> = completed_points(&before, 2 * DAY_MS + 5).collect();
        assert_eq!(points.len(), 3);
        for point in points {
            assert_eq!(point.first.at_ms(point.step), DAY_MS + point.step.ms());
            assert_eq!(point.end.at_ms(point.step), 2 * DAY_MS + point.step.ms());
        }
    }

    #[test]
    fn nobody_counts_from_the_beginning_to_the_first_submission() {
        let first: Vec<_> = completed_points(&BudgetTotals::default(), 1_700_000_000_000).collect();
        assert_eq!(first.len(), 3);
        for point in first {
            assert_eq!(
                (point.first, &point.totals),
                (HistoryInstant(0), &HistoryTotals::default())
            );
            let decoded = HistoryPoint::decode(point.step, point.first, &point.encode_state());
            assert_eq!(decoded, Ok(point));
        }
    }

    #[test]
    fn damaged_points_are_rejected() {
        let state =
            |end, people, basis_points| HistoryState { end, people, basis_points }.encode_to_vec();
        let decode =
            |state: &[u8]| HistoryPoint::decode(HistoryStep::Hour, HistoryInstant(5), state);
        assert!(decode(&state(6, 1, vec![4_000, 6_000])).is_ok());
        for damaged in [
            state(5, 1, vec![4_000, 6_000]),
            state(6, 2, vec![4_000, 6_000]),
            state(6, 1, vec![u64::MAX, 10_001]),
            state(6, u64::MAX, vec![4_000, 6_000]),
            vec![0xff],
        ] {
            assert!(decode(&damaged).is_err(), "{damaged:?}");
        }
    }

    #[test]
    fn a_point_expires_when_its_last_instant_does() {
        let before = totals(1, 5);
        let mut points = completed_points(&before, 100 * MINUTE_MS);
        let point = points.find(|point| point.step == HistoryStep::Minute).unwrap();
        let last_ms = 100 * MINUTE_MS;
        assert!(!point.is_expired(last_ms + 2 * DAY_MS - 1));
        assert!(point.is_expired(last_ms + 2 * DAY_MS));
    }

    #[test]
    fn histories_with_different_categories_or_an_overflow_are_not_added() {
        let of = |people, basis_points: &[u64]| HistoryTotals {
            people,
            basis_points: basis_points.to_vec(),
        };
        let mut sum = HistoryTotals::default();
        for part in [of(1, &[4_000, 6_000]), of(0, &[]), of(1, &[10_000, 0])] {
            sum.add(&part).unwrap();
        }
        assert_eq!(sum, of(2, &[14_000, 6_000]));
        for part in [of(1, &[10_000]), of(u64::MAX, &[0, 0]), of(1, &[u64::MAX, 0])] {
            assert_eq!(sum.clone().add(&part), Err(HistoryMergeFault));
        }
    }
}
