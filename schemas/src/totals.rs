//! Totals: exact integers for each category, of one partition or of all of them together.

use std::cmp::Ordering;

use prost::Message;

use crate::proto::Distribution;
use crate::{BASIS_POINTS_PER_PERSON, PartitionCount, PartitionId, Position, Receipt, Term};

/// People are counted by whole percent, 0 to 100.
pub const DISTRIBUTION_BINS: usize = 101;

/// What all people together give one category.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CategoryTotals {
    /// The sum of their shares.
    pub basis_points: u64,
    /// How many people gave each whole percent (their share's floor).
    pub people_by_percent: Box<[u64; DISTRIBUTION_BINS]>,
}

impl Default for CategoryTotals {
    fn default() -> Self {
        Self { basis_points: 0, people_by_percent: Box::new([0; DISTRIBUTION_BINS]) }
    }
}

impl CategoryTotals {
    fn add(&mut self, other: &CategoryTotals) {
        self.basis_points += other.basis_points;
        for (mine, theirs) in self.people_by_percent.iter_mut().zip(&*other.people_by_percent) {
            *mine += theirs;
        }
    }
}

/// A budget's totals in one partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BudgetTotals {
    /// The position after the last record about this budget.
    pub position: Position,
    /// People who count.
    pub people: u64,
    /// When the newest of its records was accepted, in milliseconds since 1970.
    pub updated_at_ms: u64,
    /// One entry a category, in the budget's order; none before its first submission.
    pub categories: Vec<CategoryTotals>,
}

impl BudgetTotals {
    /// Whether the totals hold what must always hold: the sum over categories is people × 10,000, and every
    /// category's distribution counts everyone once.
    pub fn is_consistent(&self) -> bool {
        let sum: u64 = self.categories.iter().map(|category| category.basis_points).sum();
        sum == self.people * BASIS_POINTS_PER_PERSON
            && self
                .categories
                .iter()
                .all(|category| category.people_by_percent.iter().sum::<u64>() == self.people)
    }

    /// The `distribution` column.
    pub fn encode_distribution(&self) -> Vec<u8> {
        let people_by_percent = self
            .categories
            .iter()
            .flat_map(|category| category.people_by_percent.iter().copied())
            .collect();
        Distribution { people_by_percent }.encode_to_vec()
    }

    /// Puts the columns of a row together again. `None` when they do not fit each other: damage.
    pub fn from_columns(
        position: Position,
        people: u64,
        updated_at_ms: u64,
        sums: &[i64],
        distribution: &[u8],
    ) -> Option<Self> {
        let counts = Distribution::decode(distribution).ok()?.people_by_percent;
        let (bins, rest) = counts.as_chunks::<DISTRIBUTION_BINS>();
        if !rest.is_empty() || bins.len() != sums.len() {
            return None;
        }
        let categories = sums
            .iter()
            .zip(bins)
            .map(|(sum, bins)| {
                let basis_points = u64::try_from(*sum).ok()?;
                Some(CategoryTotals { basis_points, people_by_percent: Box::new(*bins) })
            })
            .collect::<Option<_>>()?;
        let totals = Self { position, people, updated_at_ms, categories };
        totals.is_consistent().then_some(totals)
    }
}

/// A budget's totals in one named partition of the generation that answers: what an owner publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionTotals {
    /// Which derivation, and since which flip it answers.
    pub term: Term,
    /// Which partition.
    pub partition: PartitionId,
    /// The totals.
    pub totals: BudgetTotals,
}

/// A budget's totals over all partitions: the answer, before it is given names and averages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CombinedTotals {
    /// Which derivation, and since which flip it answers.
    pub term: Term,
    /// For each partition the position after its last record about this budget: what the totals reflect.
    pub positions: Vec<Position>,
    /// People who count.
    pub people: u64,
    /// When the newest of the records was accepted, in milliseconds since 1970; 0 before the first.
    pub updated_at_ms: u64,
    /// One entry a category; none before the first submission.
    pub categories: Vec<CategoryTotals>,
}

/// Why partitions' totals do not add up to an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MergeFault {
    /// A partition is missing: no answer.
    #[error("partition {0} is missing")]
    Missing(PartitionId),
    /// Partitions disagree about the number of categories: damage.
    #[error("partition {0} has another number of categories than the others")]
    Categories(PartitionId),
}

impl CombinedTotals {
    /// Adds up the totals of every partition, given in order.
    ///
    /// # Errors
    /// When one is missing, or they do not fit each other.
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
        };
        for partition in count.partitions() {
            let part = totals
                .get(partition.0 as usize)
                .and_then(Option::as_ref)
                .ok_or(MergeFault::Missing(partition))?;
            combined.positions.push(part.position);
            combined.people += part.people;
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

    /// Whether this reflects everything that `other` reflects and answers in no earlier term. Two answers may be
    /// incomparable; a reader that has shown one of them then keeps it.
    pub fn includes(&self, other: &CombinedTotals) -> bool {
        self.term >= other.term && self.reaches(other)
    }

    /// Whether this reflects every record that `other` reflects, whichever generation counted them. A log answers only once
    /// everything of the one before has been copied into it and counted.
    pub fn reaches(&self, other: &CombinedTotals) -> bool {
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

    /// Whether the record of a receipt is reflected.
    pub fn includes_receipt(&self, receipt: Receipt) -> bool {
        match self.term.log.cmp(&receipt.log) {
            Ordering::Greater => true,
            Ordering::Less => false,
            Ordering::Equal => self
                .positions
                .get(receipt.partition.0 as usize)
                .is_some_and(|position| position.includes(receipt.offset)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Generation, LogNumber, Offset};

    fn answer(term: u32, log: u32, positions: &[u64]) -> CombinedTotals {
        CombinedTotals {
            term: Term { number: term, generation: Generation(term), log: LogNumber(log) },
            positions: positions.iter().copied().map(Position).collect(),
            people: 0,
            updated_at_ms: 0,
            categories: Vec::new(),
        }
    }

    #[test]
    fn an_answer_of_a_later_log_includes_every_one_of_a_log_before_and_none_the_other_way_round() {
        let (before, after) = (answer(1, 0, &[90, 90]), answer(2, 2, &[1, 1]));
        assert!(after.includes(&before) && !before.includes(&after) && !before.reaches(&after));
        assert!(!answer(3, 2, &[0, 1]).includes(&after));
    }

    #[test]
    fn a_receipt_of_a_log_before_is_counted_and_one_of_a_later_log_is_not_wherever_they_stand() {
        let receipt = |log: u32, partition: u32, offset: u64| Receipt {
            log: LogNumber(log),
            partition: PartitionId(partition),
            offset: Offset(offset),
        };
        let shown = answer(2, 2, &[5, 5]);
        assert!(shown.includes_receipt(receipt(0, 11, 1_000)));
        assert!(
            shown.includes_receipt(receipt(2, 1, 4)) && !shown.includes_receipt(receipt(2, 1, 5))
        );
        assert!(!shown.includes_receipt(receipt(2, 2, 0)));
        assert!(!shown.includes_receipt(receipt(3, 0, 0)));
    }
}
