//! Property tests: history points against a recount of the log's prefixes.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use schemas::{
    Action, Allocation, BudgetId, HistoryInstant, HistoryPoint, HistoryStep, HistoryTotals, Offset,
    PartitionCount, PartitionId, PersonKey, Submission, SubmissionId, encode_record,
};
use storage::log::Record;
use uuid::Uuid;

use super::*;

const STEP: HistoryStep = HistoryStep::Minute;

/// One submission of a log.
#[derive(Debug, Clone)]
struct Item {
    person: u8,
    /// The share in the first of two categories; `None` withdraws.
    share: Option<u32>,
    accepted_at_ms: u64,
}

/// Logs whose times mostly increase; some clocks are behind.
fn logs() -> impl Strategy<Value = Vec<Item>> {
    let item = (0..4_u8, prop::option::weighted(0.8, 0..=10_000_u32), 0..150_000_u64);
    prop::collection::vec(item, 1..60).prop_map(|items| {
        let item = |(index, (person, share, ms)): (usize, (u8, Option<u32>, u64))| Item {
            person,
            share,
            accepted_at_ms: 1 + index as u64 * 40_000 + ms,
        };
        items.into_iter().enumerate().map(item).collect()
    })
}

fn budget() -> BudgetId {
    BudgetId::parse("taxes").unwrap()
}

fn new_state(floor: HistoryFloor) -> PartitionState {
    let mut state =
        PartitionState::new(PartitionId(0), PartitionCount::new(1).unwrap(), Vec::new());
    state.set_history_floor(floor);
    state
}

fn fold(state: &mut PartitionState, offset: usize, item: &Item) {
    let action = match item.share {
        Some(share) => Action::Allocate(Allocation::new(&[share, 10_000 - share]).unwrap()),
        None => Action::Withdraw,
    };
    let person = PersonKey::from_bytes([item.person; 16]);
    let id = SubmissionId(Uuid::from_u128(offset as u128));
    let accepted_at_ms = item.accepted_at_ms;
    let value = encode_record(&Submission { budget: budget(), person, id, accepted_at_ms, action });
    let key = person.as_bytes();
    let record = Record { offset: Offset(offset as u64), key, value: &value };
    state.fold(record, FoldMode::Live).unwrap();
}

fn points(state: &mut PartitionState) -> Vec<HistoryPoint> {
    let taken = state.take_history().into_iter().map(|(_, point)| point);
    taken.filter(|point| point.step == STEP).collect()
}

/// Recounts the submissions in front of the first one at or after a time.
fn recount(log: &[Item], at_ms: u64) -> HistoryTotals {
    let until = log.iter().position(|item| item.accepted_at_ms >= at_ms).unwrap_or(log.len());
    let mut state = new_state(HistoryFloor::NONE);
    for (offset, item) in log[..until].iter().enumerate() {
        fold(&mut state, offset, item);
    }
    let totals = state.recount().next().map(|(_, totals)| HistoryTotals::of(&totals));
    totals.unwrap_or_default()
}

proptest! {
    #[test]
    fn history_points_hold_what_a_recount_up_to_each_instant_gives(log in logs()) {
        let mut state = new_state(HistoryFloor::ALL);
        for (offset, item) in log.iter().enumerate() {
            fold(&mut state, offset, item);
        }
        let mut next = HistoryInstant::FIRST;
        for point in points(&mut state) {
            prop_assert_eq!(point.first, next, "the points have no gap");
            for instant in point.first.0..point.end.0 {
                let at_ms = HistoryInstant(instant).at_ms(STEP);
                prop_assert_eq!(&point.totals, &recount(&log, at_ms), "at {}", at_ms);
            }
            next = point.end;
        }
        let newest_ms = log.iter().map(|item| item.accepted_at_ms).max().unwrap_or_default();
        prop_assert_eq!(next, STEP.next_instant(newest_ms), "all complete instants have a point");
    }

    #[test]
    fn a_takeover_at_any_position_completes_the_same_points(log in logs(), cut in 0.0..1.0_f64) {
        let cut = (cut * log.len() as f64) as usize;
        let mut whole = new_state(HistoryFloor::ALL);
        let mut before = new_state(HistoryFloor::ALL);
        for (offset, item) in log.iter().enumerate() {
            fold(&mut whole, offset, item);
            if offset < cut {
                fold(&mut before, offset, item);
            }
        }
        let mut found = points(&mut before);
        let mut scan = before.begin_row_scan();
        let rows: Vec<_> =
            std::iter::from_fn(|| before.take_changed_rows(&mut scan, 9)).flatten().collect();
        let committed: Vec<_> = before.totals().map(|(id, it)| (id.clone(), it.clone())).collect();
        let count = PartitionCount::new(1).unwrap();
        let mut after = PartitionState::new(PartitionId(0), count, committed);
        after.set_history_floor(HistoryFloor::ALL);
        for row in &rows {
            prop_assert!(after.restore(row));
        }
        for (offset, item) in log.iter().enumerate().skip(cut) {
            fold(&mut after, offset, item);
        }
        found.extend(points(&mut after));
        prop_assert_eq!(found, points(&mut whole));
    }
}

#[test]
fn only_points_that_have_not_expired_are_kept() {
    const DAY_MS: u64 = 24 * 3_600_000;
    let at = |day: u64| Item { person: 1, share: Some(1), accepted_at_ms: day * DAY_MS + 1 };
    let mut state = new_state(HistoryFloor::at(1_000 * DAY_MS));
    for (offset, day) in [100, 500, 998, 999].into_iter().enumerate() {
        fold(&mut state, offset, &at(day));
    }
    assert!(state.changed_bytes() > 0);
    let kept = state.take_history();
    let of_step = |step| kept.iter().filter(|(_, point)| point.step == step).count();
    let counts = HistoryStep::ALL.map(of_step);
    // Completed by the last record, by the last two, and by all.
    assert_eq!(counts, [1, 2, 4]);
}

#[test]
fn a_submission_behind_a_close_marker_completes_no_point() {
    let mut state = new_state(HistoryFloor::ALL);
    fold(&mut state, 0, &Item { person: 1, share: Some(1), accepted_at_ms: 60_000 });
    state.take_history();
    let key = schemas::Marker::key(&budget(), PartitionId(0), PartitionCount::new(1).unwrap());
    let marker = schemas::Marker { kind: schemas::MarkerKind::Close, revision: 1 };
    let id = SubmissionId(Uuid::from_u128(99));
    let value = schemas::RecordEncoder::default().encode_marker(&budget(), marker, id, 300_000);
    let record = Record { offset: Offset(1), key: key.as_bytes(), value: &value };
    assert_eq!(state.fold(record, FoldMode::Live), Ok(FoldOutcome::Applied));
    fold(&mut state, 2, &Item { person: 2, share: Some(1), accepted_at_ms: 600_000 });
    assert_eq!(state.take_history(), []);
}
