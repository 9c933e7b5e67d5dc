//! The contract of `Histories`.

use std::ops::Range;

use runtime::clock::now_ms;
use schemas::{BudgetId, HistoryInstant, HistoryPoint, HistoryStep, HistoryTotals};

use super::Fixture;
use crate::contract::build::new_budget_id;

const DAY_MS: u64 = 24 * 3_600_000;

/// A point of this many instants. Equal arguments give equal points.
fn point(step: HistoryStep, first: u32, end: u32) -> HistoryPoint {
    let people = u64::from(first) + 1;
    HistoryPoint {
        step,
        first: HistoryInstant(first),
        end: HistoryInstant(end),
        totals: HistoryTotals { people, basis_points: vec![people * 4_000, people * 6_000] },
    }
}

/// The number of days since 1970, of which a point of the step `Day` is kept for ever.
const DAY: u32 = 20_000;

impl Fixture {
    async fn write_history(&self, number: u32, budget: &BudgetId, points: &[HistoryPoint]) {
        let points: Vec<_> = points.iter().map(|point| (budget.clone(), point.clone())).collect();
        self.store.write_history(self.partition(number), &points, now_ms()).await.unwrap();
    }

    async fn history(
        &self,
        number: u32,
        budget: &BudgetId,
        step: HistoryStep,
        instants: Range<u32>,
    ) -> Vec<HistoryPoint> {
        let instants = HistoryInstant(instants.start)..HistoryInstant(instants.end);
        self.store.history(self.partition(number), budget, step, instants).await.unwrap()
    }

    async fn scan_history(&self, number: u32, step: HistoryStep) -> Vec<(BudgetId, HistoryPoint)> {
        let mut found = Vec::new();
        let mut add = |budget, point| found.push((budget, point));
        self.store.scan_history(self.partition(number), step, &mut add).await.unwrap();
        found
    }
}

pub async fn history_points_are_found_by_the_instants_at_which_they_hold(store: &Fixture) {
    let (budget, step) = (new_budget_id(), HistoryStep::Day);
    // With a gap from 20 to 30 days after the first.
    let points = [(0, 10), (10, 11), (11, 20), (30, 40)]
        .map(|(first, end)| point(step, DAY + first, DAY + end));
    let beginning = point(step, 0, DAY);
    store.write_history(0, &budget, &points).await;
    store.write_history(0, &budget, std::slice::from_ref(&beginning)).await;
    let [a, b, c, d] = &points;
    for (instants, expected) in [
        (0..1, vec![&beginning]),
        (DAY - 1..DAY, vec![&beginning]),
        (DAY - 1..DAY + 1, vec![&beginning, a]),
        (DAY..DAY + 1, vec![a]),
        (DAY + 9..DAY + 12, vec![a, b, c]),
        (DAY + 19..DAY + 20, vec![c]),
        (DAY + 20..DAY + 30, vec![]),
        (DAY + 20..DAY + 31, vec![d]),
        (DAY + 15..DAY + 100, vec![c, d]),
        (DAY + 40..DAY + 100, vec![]),
        (0..DAY + 100, vec![&beginning, a, b, c, d]),
    ] {
        let found = store.history(0, &budget, step, instants.clone()).await;
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "{instants:?}");
    }
}

pub async fn a_history_point_written_again_stays_the_same(store: &Fixture) {
    let (budget, step) = (new_budget_id(), HistoryStep::Day);
    let points = [point(step, DAY, DAY + 1), point(step, DAY + 1, DAY + 5)];
    for written in [&points[..1], &points[..], &points[1..], &points[..1]] {
        store.write_history(0, &budget, written).await;
    }
    assert_eq!(store.history(0, &budget, step, DAY..DAY + 9).await, points);
}

pub async fn histories_of_other_partitions_budgets_and_steps_are_not_seen(store: &Fixture) {
    let (budget, other) = (new_budget_id(), new_budget_id());
    let now = HistoryStep::Hour.next_instant(now_ms()).0;
    let hour = point(HistoryStep::Hour, now, now + 1);
    let day = point(HistoryStep::Day, now, now + 1);
    store.write_history(0, &budget, &[hour.clone(), day.clone()]).await;
    assert_eq!(
        store.history(0, &budget, HistoryStep::Hour, now..now + 1).await,
        std::slice::from_ref(&hour)
    );
    assert_eq!(
        store.history(0, &budget, HistoryStep::Day, now..now + 1).await,
        std::slice::from_ref(&day)
    );
    assert_eq!(store.history(0, &budget, HistoryStep::Minute, now..now + 1).await, []);
    assert_eq!(store.history(1, &budget, HistoryStep::Day, now..now + 1).await, []);
    assert_eq!(store.history(0, &other, HistoryStep::Day, now..now + 1).await, []);
    assert_eq!(store.scan_history(0, HistoryStep::Hour).await, [(budget, hour)]);
    assert_eq!(store.scan_history(1, HistoryStep::Hour).await, []);
}

pub async fn a_long_history_is_scanned_completely_and_in_order(store: &Fixture) {
    // More than a page and a batch of each adapter.
    const POINTS: u32 = 1_300;
    let mut budgets = [new_budget_id(), new_budget_id()];
    budgets.sort();
    let mut expected = Vec::new();
    for budget in &budgets {
        let points: Vec<_> =
            (0..POINTS).map(|day| point(HistoryStep::Day, DAY + day, DAY + day + 1)).collect();
        store.write_history(0, budget, &points).await;
        expected.extend(points.into_iter().map(|point| (budget.clone(), point)));
    }
    let found = store.scan_history(0, HistoryStep::Day).await;
    assert!(found == expected, "{} points of {}", found.len(), expected.len());
    let found = store.history(0, &budgets[1], HistoryStep::Day, DAY..DAY + POINTS).await;
    assert_eq!(found.len(), POINTS as usize);
}

pub async fn an_expired_history_point_is_deleted_or_not_written(store: &Fixture) {
    let (budget, step) = (new_budget_id(), HistoryStep::Minute);
    let now = step.last_instant(now_ms()).0;
    let oldest_kept = step.oldest_kept(now_ms()).0;
    let expired = point(step, oldest_kept - 20, oldest_kept - 10);
    let kept = point(step, oldest_kept - 10, oldest_kept + 10);
    let newest = point(step, now, now + 1);
    // As long as the first point was kept, it was written.
    let earlier_ms = now_ms() - DAY_MS;
    let points = [(budget.clone(), expired)];
    store.store.write_history(store.partition(0), &points, earlier_ms).await.unwrap();
    store.write_history(0, &budget, &[kept.clone(), newest.clone()]).await;
    let day = point(HistoryStep::Day, 1, 2);
    store.write_history(0, &budget, std::slice::from_ref(&day)).await;
    let written = store.history(0, &budget, step, oldest_kept - 10..now + 1).await;
    assert_eq!(written, [kept, newest]);
    assert_eq!(store.history(0, &budget, HistoryStep::Day, 0..9).await, [day]);
    // A server that lets points expire by its own clock may still have the one that was written earlier.
    let old = store.history(0, &budget, step, oldest_kept - 20..oldest_kept - 10).await;
    assert!(old.iter().all(|point| point.is_expired(now_ms())), "{old:?}");
}

pub async fn a_retired_partition_has_no_history_and_nobody_can_bring_it_back(store: &Fixture) {
    let (budget, step) = (new_budget_id(), HistoryStep::Day);
    let points = [point(step, DAY, DAY + 1)];
    for number in [0, 1] {
        store.claim(number, None, 1).await;
        store.write_history(number, &budget, &points).await;
    }
    store.store.retire_partition(store.partition(0)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(store.history(0, &budget, step, DAY..DAY + 9).await, []);
        assert_eq!(store.scan_history(0, step).await, []);
        // By a former owner that has not noticed.
        store.write_history(0, &budget, &points).await;
    }
    assert_eq!(store.history(1, &budget, step, DAY..DAY + 9).await, points);
}
