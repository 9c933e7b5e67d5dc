//! Totals: exact integers for each category, of one partition or combined over all partitions.

mod column;
mod pending_step;

use std::cmp::Ordering;

use crate::{
    BASIS_POINTS_PER_PERSON, Closing, PartitionCount, PartitionId, PeopleDigest, Position,
    PublishStep, RecordAddress, Term,
};

pub use pending_step::PendingStep;

/// Bins of a distribution: whole percents from 0 to 100.
pub const DISTRIBUTION_BINS: usize = 101;

/// Totals of one category over all people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CategoryTotals {
    /// Sum of all shares, in basis points.
    pub basis_points: u64,
    /// Number of people by share, rounded down to whole percents.
    pub people_by_percent: Box<[u64; DISTRIBUTION_BINS]>,
}

impl Default for CategoryTotals {
    fn default() -> Self {
        Self { basis_points: 0, people_by_percent: Box::new([0; DISTRIBUTION_BINS]) }
    }
}

impl CategoryTotals {
    /// Adds one person's share, at most 10,000 basis points.
    pub fn add_share(&mut self, basis_points: u16) {
        self.basis_points += u64::from(basis_points);
        if let Some(people) = self.people_by_percent.get_mut(usize::from(basis_points / 100)) {
            *people += 1;
        }
    }

    /// Adds the totals of other people.
    pub fn add(&mut self, other: &CategoryTotals) {
        self.basis_points += other.basis_points;
        for (mine, theirs) in self.people_by_percent.iter_mut().zip(&*other.people_by_percent) {
            *mine += theirs;
        }
    }

    /// Subtracts the totals of people who were added before; `None` if they were not.
    fn subtract(&mut self, other: &CategoryTotals) -> Option<()> {
        self.basis_points = self.basis_points.checked_sub(other.basis_points)?;
        for (mine, theirs) in self.people_by_percent.iter_mut().zip(&*other.people_by_percent) {
            *mine = mine.checked_sub(*theirs)?;
        }
        Some(())
    }
}

/// Totals of a budget in one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BudgetTotals {
    /// Position after the last record of this budget.
    pub position: Position,
    /// Number of people.
    pub people: u64,
    /// Acceptance time of the newest record, in milliseconds since 1970.
    pub updated_at_ms: u64,
    /// Totals of each category, in the budget's order; empty before the first submission.
    pub categories: Vec<CategoryTotals>,
    /// Whether the budget is closed in the partition.
    pub closing: Closing,
    /// The largest publish step of the budget's records in the partition.
    pub publish_step: PublishStep,
    /// What readers are shown while changes are pending; `None`: these totals.
    pub pending: Option<Box<PendingStep>>,
    /// Number of people who are annulled and would count otherwise.
    pub annulled: u64,
    /// Digest of all rows of the budget's people; `None` in totals of earlier releases, and in what is no partition's.
    pub people_digest: Option<PeopleDigest>,
    /// Digest of what these rows have beside shares: submission ids, and who is annulled. `None` as for
    /// `people_digest`.
    pub content_digest: Option<PeopleDigest>,
}

impl BudgetTotals {
    /// Checks the invariants, of what readers are shown too: the sum over categories is people × 10,000, and each
    /// category's distribution counts everyone once.
    pub fn is_consistent(&self) -> bool {
        is_consistent(self.people, &self.categories)
            && is_possible(self.annulled)
            && self.pending_is_consistent()
    }
}

/// Checks that the sum over categories is people × 10,000, and that each category's distribution counts everyone once.
///
/// Numbers whose sum overflows, as damaged ones may, are not consistent.
fn is_consistent(people: u64, categories: &[CategoryTotals]) -> bool {
    let total = checked_sum(categories.iter().map(|category| category.basis_points));
    total.is_some()
        && total == people.checked_mul(BASIS_POINTS_PER_PERSON)
        && categories
            .iter()
            .all(|category| checked_sum(category.people_by_percent.iter().copied()) == Some(people))
}

/// Whether so many people may be annulled. Nothing else bounds their number, and sums of partitions must not overflow.
fn is_possible(annulled: u64) -> bool {
    const MAX_PEOPLE: u64 = 1 << 50;
    annulled < MAX_PEOPLE
}

fn checked_sum(numbers: impl IntoIterator<Item = u64>) -> Option<u64> {
    numbers.into_iter().try_fold(0_u64, u64::checked_add)
}

/// Totals of a budget in one partition of the active generation, to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTotals {
    /// The term and its generation.
    pub term: Term,
    /// The partition.
    pub partition: PartitionId,
    /// The totals as readers are shown them.
    pub totals: BudgetTotals,
}

impl PartitionTotals {
    /// Returns what is published of a partition's totals.
    pub fn shown(term: Term, partition: PartitionId, totals: BudgetTotals) -> Self {
        Self { term, partition, totals: totals.into_shown() }
    }
}

/// Totals of a budget over all partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CombinedTotals {
    /// The term and its generation.
    pub term: Term,
    /// For each partition, the position after the last record of this budget.
    pub positions: Vec<Position>,
    /// Number of people.
    pub people: u64,
    /// Acceptance time of the newest record, in milliseconds since 1970; 0 before the first.
    pub updated_at_ms: u64,
    /// Totals of each category; empty before the first submission.
    pub categories: Vec<CategoryTotals>,
    /// Partitions in which the budget is closed.
    pub closed_partitions: u32,
    /// Number of people who are annulled and would count otherwise.
    pub annulled: u64,
}

/// Why totals of partitions cannot be combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MergeFault {
    /// The totals of a partition are missing.
    #[error("partition {0} is missing")]
    Missing(PartitionId),
    /// Partitions have different numbers of categories: damage.
    #[error("partition {0} has another number of categories than the others")]
    Categories(PartitionId),
}

impl CombinedTotals {
    /// Adds up the totals of all partitions, given in order.
    ///
    /// # Errors
    /// When a partition is missing, or the totals are inconsistent.
    pub fn merge(
        term: Term,
        count: PartitionCount,
        totals: &[Option<BudgetTotals>],
    ) -> Result<Self, MergeFault> {
        let mut combined = Self {
            term,
            positions: Vec::new(),
            people: 0,
            updated_at_ms: 0,
            categories: Vec::new(),
            closed_partitions: 0,
            annulled: 0,
        };
        for partition in count.partitions() {
            let part = totals
                .get(partition.0 as usize)
                .and_then(Option::as_ref)
                .ok_or(MergeFault::Missing(partition))?;
            combined.positions.push(part.position);
            combined.people += part.people;
            combined.closed_partitions += u32::from(part.closing.is_closed());
            combined.annulled += part.annulled;
            combined.updated_at_ms = combined.updated_at_ms.max(part.updated_at_ms);
            if combined.categories.is_empty() {
                combined.categories.clone_from(&part.categories);
            } else if !part.categories.is_empty() {
                if part.categories.len() != combined.categories.len() {
                    return Err(MergeFault::Categories(partition));
                }
                for (mine, theirs) in combined.categories.iter_mut().zip(&part.categories) {
                    mine.add(theirs);
                }
            }
        }
        Ok(combined)
    }

    /// Moves one partition forward within the term: subtracts its former totals and adds the newer ones. The cost does
    /// not depend on the number of partitions.
    ///
    /// Returns `None` if these totals do not contain the former ones: they must be merged again.
    pub fn replace(
        mut self,
        partition: PartitionId,
        former: &BudgetTotals,
        newer: &BudgetTotals,
    ) -> Option<Self> {
        let position = self.positions.get_mut(partition.0 as usize)?;
        // `updated_at_ms` is a maximum, which cannot be subtracted, but never decreases either.
        if *position != former.position
            || newer.position < former.position
            || newer.updated_at_ms < former.updated_at_ms
        {
            return None;
        }
        *position = newer.position;
        self.updated_at_ms = self.updated_at_ms.max(newer.updated_at_ms);
        self.people = self.people.checked_sub(former.people)?.checked_add(newer.people)?;
        self.annulled = self.annulled.checked_sub(former.annulled)?.checked_add(newer.annulled)?;
        let closed = |part: &BudgetTotals| u32::from(part.closing.is_closed());
        self.closed_partitions =
            self.closed_partitions.checked_sub(closed(former))? + closed(newer);
        if self.categories.is_empty() {
            self.categories.resize_with(newer.categories.len(), CategoryTotals::default);
        }
        let count = self.categories.len();
        let fits = |part: &BudgetTotals| [0, count].contains(&part.categories.len());
        if !fits(former) || !fits(newer) || newer.categories.len() < former.categories.len() {
            return None;
        }
        for (mine, theirs) in self.categories.iter_mut().zip(&former.categories) {
            mine.subtract(theirs)?;
        }
        for (mine, theirs) in self.categories.iter_mut().zip(&newer.categories) {
            mine.add(theirs);
        }
        Some(self)
    }

    /// Whether the budget is closed in every partition: no record that follows changes a number, unless it reopens.
    pub fn is_final(&self) -> bool {
        !self.positions.is_empty()
            && usize::try_from(self.closed_partitions) == Ok(self.positions.len())
    }

    /// Whether these totals include all records of `other`, in the same or a later term. Two totals may be
    /// incomparable; a reader then keeps those that it has served before.
    pub fn includes(&self, other: &CombinedTotals) -> bool {
        self.term >= other.term && self.includes_positions_of(other)
    }

    /// Whether these totals include all records of `other`, regardless of the generations. A later log includes all
    /// records of an earlier one, since a switch to it waits until they are copied and counted.
    pub fn includes_positions_of(&self, other: &CombinedTotals) -> bool {
        match self.term.log.cmp(&other.term.log) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => {
                let positions = self.positions.iter().zip(&other.positions);
                self.positions.len() == other.positions.len()
                    && positions.into_iter().all(|(mine, theirs)| mine >= theirs)
            }
        }
    }

    /// Whether these totals include the record at an address.
    pub fn includes_record(&self, address: RecordAddress) -> bool {
        match self.term.log.cmp(&address.log) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => self
                .positions
                .get(address.partition.0 as usize)
                .is_some_and(|position| position.includes(address.offset)),
        }
    }
}

#[cfg(test)]
mod running_sum;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, LogNumber, Offset};

    #[test]
    fn damaged_columns_whose_sums_overflow_are_inconsistent_and_do_not_panic() {
        let category = |basis_points, first_bin| {
            let mut people_by_percent = Box::new([0; DISTRIBUTION_BINS]);
            (people_by_percent[0], people_by_percent[1]) = (first_bin, 1);
            CategoryTotals { basis_points, people_by_percent }
        };
        for (people, basis_points, first_bin) in
            [(u64::MAX, 5, 5), (1, u64::MAX, 1), (1, 10_000, u64::MAX), (2_u64.pow(63), 0, 0)]
        {
            let categories = vec![category(basis_points, first_bin), category(1, 1)];
            let totals = BudgetTotals { people, categories, ..BudgetTotals::default() };
            assert!(!totals.is_consistent(), "{people} {basis_points} {first_bin}");
        }
        let totals = BudgetTotals { annulled: u64::MAX, ..BudgetTotals::default() };
        assert!(!totals.is_consistent());
    }

    fn totals(term: u32, log: u32, positions: &[u64]) -> CombinedTotals {
        CombinedTotals {
            term: Term { number: term, generation: Generation(term), log: LogNumber(log) },
            positions: positions.iter().copied().map(Position).collect(),
            people: 0,
            updated_at_ms: 0,
            categories: Vec::new(),
            closed_partitions: 0,
            annulled: 0,
        }
    }

    #[test]
    fn totals_of_a_later_log_include_those_of_earlier_logs_and_not_vice_versa() {
        let (before, after) = (totals(1, 0, &[90, 90]), totals(2, 2, &[1, 1]));
        assert!(
            after.includes(&before)
                && !before.includes(&after)
                && !before.includes_positions_of(&after)
        );
        assert!(!totals(3, 2, &[0, 1]).includes(&after));
    }

    #[test]
    fn receipts_of_earlier_logs_are_included_and_those_of_later_logs_are_not() {
        let address = |log: u32, partition: u32, offset: u64| RecordAddress {
            log: LogNumber(log),
            partition: PartitionId(partition),
            offset: Offset(offset),
        };
        let combined = totals(2, 2, &[5, 5]);
        assert!(combined.includes_record(address(0, 11, 1_000)));
        assert!(
            combined.includes_record(address(2, 1, 4))
                && !combined.includes_record(address(2, 1, 5))
        );
        assert!(!combined.includes_record(address(2, 2, 0)));
        assert!(!combined.includes_record(address(3, 0, 0)));
    }
}
