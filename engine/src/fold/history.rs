//! The history points of a budget that are complete and not yet taken for a commit.
//!
//! Which points are complete depends on the records alone. [`HistoryFloor`] skips points that have already expired,
//! which a fold of an old log would otherwise collect for nothing.

use schemas::{BudgetTotals, HistoryInstant, HistoryPoint, HistoryStep, completed_points};

/// Upper bound of a stored point's size without its sums, its key included.
const POINT_BYTES: usize = 128;
/// Upper bound of the size of one sum.
const SUM_BYTES: usize = 10;

/// The oldest instants whose points are kept, for each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryFloor([HistoryInstant; HistoryStep::ALL.len()]);

impl HistoryFloor {
    /// Keeps every point.
    pub const ALL: Self = Self([HistoryInstant::FIRST; HistoryStep::ALL.len()]);
    /// Keeps no point: for a fold whose history is not stored.
    pub const NONE: Self = Self([HistoryInstant(u32::MAX); HistoryStep::ALL.len()]);

    /// Keeps the points that have not expired at a time.
    pub fn at(now_ms: u64) -> Self {
        Self(HistoryStep::ALL.map(|step| step.oldest_kept(now_ms)))
    }

    /// Returns whether a point is kept.
    pub fn keeps(&self, point: &HistoryPoint) -> bool {
        let mut floors = HistoryStep::ALL.iter().zip(self.0);
        floors.any(|(step, floor)| *step == point.step && point.end > floor)
    }
}

/// Completed points of one budget, in order.
#[derive(Debug, Default)]
pub(super) struct HistoryBuffer {
    points: Vec<HistoryPoint>,
    bytes: usize,
}

impl HistoryBuffer {
    /// Adds the points that a record of this time completes, which follows `totals`.
    pub fn complete(&mut self, totals: &BudgetTotals, accepted_at_ms: u64, floor: &HistoryFloor) {
        for point in completed_points(totals, accepted_at_ms).filter(|point| floor.keeps(point)) {
            self.bytes += POINT_BYTES + SUM_BYTES * point.totals.basis_points.len();
            self.points.push(point);
        }
    }

    /// Upper bound of the size of the points when they are stored.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes all points.
    pub fn take(&mut self) -> Vec<HistoryPoint> {
        self.bytes = 0;
        std::mem::take(&mut self.points)
    }
}
