//! The audit of one partition's history: every stored point equals the one that the log gives.
//!
//! A missing point is no difference, since readers see no number at its instants. An earlier release that folded the
//! log leaves points missing; a rebuild derives them.

use std::collections::BTreeMap;

use runtime::clock::now_ms;
use schemas::{BudgetId, HistoryInstant, HistoryPoint, HistoryStep, HistoryTotals};
use storage::retry::retry;
use storage::store::{PartitionRef, StoreError};

use super::AuditDeps;
use crate::BackendError;
use engine::fold::PartitionState;

/// Points that expire within this time are not compared: they may be gone already.
const EXPIRY_MARGIN_MS: u64 = 600_000;

/// The place of a point in a partition's history.
type PointKey = (BudgetId, HistoryStep, HistoryInstant);
/// History points of a partition.
pub(super) type HistoryPoints = BTreeMap<PointKey, HistoryPoint>;

fn key_of(budget: &BudgetId, point: &HistoryPoint) -> PointKey {
    (budget.clone(), point.step, point.first)
}

/// The stored history points of a partition.
pub(super) struct StoredHistory {
    points: HistoryPoints,
    read_at_ms: u64,
}

/// The result of comparing a partition's history.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct HistoryComparison {
    /// Points that were compared.
    pub compared: u64,
    /// Points that the log gives and the store does not have.
    pub missing: u64,
    /// What is different, by budget.
    pub differences: Vec<(BudgetId, String)>,
}

impl StoredHistory {
    /// Reads all points. Call it after the checkpoint was read: the points of a committed position are written before
    /// it.
    pub async fn read(deps: &AuditDeps, id: PartitionRef) -> Result<Self, BackendError> {
        let read_at_ms = now_ms();
        let mut points = HistoryPoints::new();
        for step in HistoryStep::ALL {
            let scan = || async {
                // Points read before a failure are read again.
                let mut found = Vec::new();
                let mut add = |budget, point| found.push((budget, point));
                deps.store.scan_history(id, step, &mut add).await?;
                Ok::<_, StoreError>(found)
            };
            let found = retry(scan).await?;
            points
                .extend(found.into_iter().map(|(budget, point)| (key_of(&budget, &point), point)));
        }
        Ok(Self { points, read_at_ms })
    }

    /// Compares the points with those that the log gives up to the position of `state`.
    pub fn compare(&self, by_log: &HistoryPoints, state: &PartitionState) -> HistoryComparison {
        let mut comparison = HistoryComparison::default();
        let expires = |point: &HistoryPoint| point.is_expired(self.read_at_ms + EXPIRY_MARGIN_MS);
        for (key, found) in self.points.iter().filter(|(_, found)| !expires(found)) {
            let (budget, step, first) = key;
            let totals = state.budget_totals(budget);
            // Points are written ahead of the commit: those may be of a later position.
            if totals.is_none_or(|totals| *first >= step.first_instant_of(totals)) {
                continue;
            }
            comparison.compared += 1;
            if by_log.get(key) != Some(found) {
                let difference = describe(found, by_log.get(key));
                comparison.differences.push((budget.clone(), difference));
            }
        }
        let missing =
            by_log.iter().filter(|(key, point)| !expires(point) && !self.points.contains_key(*key));
        comparison.missing = missing.count() as u64;
        comparison
    }
}

/// Collects the points that a fold has completed since the last call.
pub(super) fn collect_points(state: &mut PartitionState, points: &mut HistoryPoints) {
    let completed = state.take_history().into_iter();
    points.extend(completed.map(|(budget, point)| (key_of(&budget, &point), point)));
}

fn describe(found: &HistoryPoint, log: Option<&HistoryPoint>) -> String {
    let HistoryPoint { step, first, end, totals } = found;
    let text = |end: &HistoryInstant, totals: &HistoryTotals| {
        format!(
            "{} people and {:?} basis points until {}",
            totals.people, totals.basis_points, end.0
        )
    };
    let log = log.map_or("nothing".to_owned(), |log| text(&log.end, &log.totals));
    format!("{step} {}: {}, and {log} by the log", first.0, text(end, totals))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use schemas::{BudgetTotals, CategoryTotals, PartitionCount, PartitionId, Position};

    use super::*;

    const STEP: HistoryStep = HistoryStep::Day;

    fn point(first: u32, people: u64) -> HistoryPoint {
        let basis_points = vec![people * 4_000, people * 6_000];
        let (first, end) = (HistoryInstant(first), HistoryInstant(first + 1));
        HistoryPoint { step: STEP, first, end, totals: HistoryTotals { people, basis_points } }
    }

    fn keyed(points: &[HistoryPoint]) -> HistoryPoints {
        let budget = BudgetId::parse("taxes").unwrap();
        points.iter().map(|point| (key_of(&budget, point), point.clone())).collect()
    }

    /// Compares stored points with those of a log whose totals hold from day 12 on.
    fn compare(stored: &[HistoryPoint], by_log: &[HistoryPoint]) -> HistoryComparison {
        let category = |basis_points| CategoryTotals { basis_points, ..CategoryTotals::default() };
        let totals = BudgetTotals {
            position: Position(9),
            people: 3,
            updated_at_ms: HistoryInstant(11).at_ms(STEP) + 1,
            categories: vec![category(12_000), category(18_000)],
            ..BudgetTotals::default()
        };
        let totals = vec![(BudgetId::parse("taxes").unwrap(), totals)];
        let count = PartitionCount::new(1).unwrap();
        let state = PartitionState::new(PartitionId(0), count, totals);
        StoredHistory { points: keyed(stored), read_at_ms: 0 }.compare(&keyed(by_log), &state)
    }

    #[test]
    fn points_ahead_of_the_committed_position_are_not_compared() {
        let by_log = [point(10, 1), point(11, 2)];
        let ahead = [point(10, 1), point(11, 2), point(12, 3), point(13, 9)];
        let equal = HistoryComparison { compared: 2, ..HistoryComparison::default() };
        assert_eq!(compare(&ahead, &by_log), equal);
    }

    #[test]
    fn other_totals_are_different_and_a_missing_point_is_counted() {
        let by_log = [point(10, 1), point(11, 2)];
        let found = compare(&[point(10, 5)], &by_log);
        assert_eq!((found.compared, found.missing, found.differences.len()), (1, 1, 1));
        let invented = compare(&[point(9, 1), point(10, 1), point(11, 2)], &by_log);
        assert_eq!((invented.missing, invented.differences.len()), (0, 1));
    }
}
