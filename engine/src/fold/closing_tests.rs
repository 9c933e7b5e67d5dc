//! Property tests: markers of closing and reopening against a naive fold, which looks at each submission on its own.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use proptest::prelude::*;
use schemas::{
    Action, Allocation, BudgetId, BudgetTotals, Marker, MarkerKind, Offset, PartitionCount,
    PartitionId, PersonKey, RecordEncoder, Submission, SubmissionId, encode_record,
};
use storage::log::Record;
use uuid::Uuid;

use super::*;

/// One record of a log.
#[derive(Debug, Clone, Copy)]
enum Item {
    /// A person's share in the first of two categories; `None` withdraws.
    Submission(u8, Option<u32>),
    Marker(Marker),
}

fn items() -> impl Strategy<Value = Item> {
    let shares = prop::option::weighted(0.8, 0..=10_000_u32);
    let submission = (0..5_u8, shares).prop_map(|(person, share)| Item::Submission(person, share));
    let marker = (any::<bool>(), 1..8_u64).prop_map(|(closes, revision)| {
        let kind = if closes { MarkerKind::Close } else { MarkerKind::Reopen };
        Item::Marker(Marker { kind, revision })
    });
    prop_oneof![4 => submission, 1 => marker]
}

fn budget() -> BudgetId {
    BudgetId::parse("taxes").unwrap()
}

fn count() -> PartitionCount {
    PartitionCount::new(1).unwrap()
}

fn encode(item: Item, offset: usize) -> ([u8; 16], Vec<u8>) {
    let id = SubmissionId(Uuid::from_u128(1_000 + offset as u128));
    match item {
        Item::Marker(marker) => {
            let key = Marker::key(&budget(), PartitionId(0), count());
            let value = RecordEncoder::default().encode_marker(&budget(), marker, id, 99);
            (*key.as_bytes(), value)
        }
        Item::Submission(person, share) => {
            let action = match share {
                Some(share) => Action::Allocate(Allocation::new(&[share, 10_000 - share]).unwrap()),
                None => Action::Withdraw,
            };
            let person = PersonKey::from_bytes([person; 16]);
            let (budget, accepted_at_ms) = (budget(), 5);
            let submission = Submission { budget, person, id, accepted_at_ms, action };
            ([person.as_bytes()[0]; 16], encode_record(&submission))
        }
    }
}

fn fold_all(state: &mut PartitionState, log: &[Item], mode: FoldMode) -> Vec<FoldOutcome> {
    let fold = |(offset, item): (usize, &Item)| {
        let (key, value) = encode(*item, offset);
        let record = Record { offset: Offset(offset as u64), key: &key, value: &value };
        state.fold(record, mode).unwrap()
    };
    log.iter().enumerate().map(fold).collect()
}

/// Whether the record at an index stands behind a close marker: by all markers in front of it.
fn is_late(log: &[Item], index: usize) -> bool {
    let markers = log[..index].iter().filter_map(|item| match item {
        Item::Marker(marker) => Some(marker),
        Item::Submission(..) => None,
    });
    // Of equal revisions the first counts.
    let latest = markers.rev().max_by_key(|marker| marker.revision);
    latest.is_some_and(|marker| marker.kind == MarkerKind::Close)
}

proptest! {
    #[test]
    fn only_what_stands_in_front_of_a_close_marker_counts(log in prop::collection::vec(items(), 0..80)) {
        let mut state = PartitionState::new(PartitionId(0), count(), Vec::new());
        let outcomes = fold_all(&mut state, &log, FoldMode::Live);
        let mut current = HashMap::new();
        for (index, (item, outcome)) in log.iter().zip(&outcomes).enumerate() {
            match item {
                Item::Submission(..) if is_late(&log, index) => {
                    prop_assert_eq!(outcome, &FoldOutcome::Late);
                }
                Item::Submission(person, share) => {
                    prop_assert_eq!(outcome, &FoldOutcome::Applied);
                    current.insert(person, share);
                }
                Item::Marker(_) => prop_assert_eq!(outcome, &FoldOutcome::Applied),
            }
        }
        let totals = state.budget_totals(&budget()).cloned().unwrap_or_default();
        let counted: Vec<u32> = current.values().copied().copied().flatten().collect();
        prop_assert_eq!(totals.people, counted.len() as u64);
        let first = totals.categories.first().map_or(0, |category| category.basis_points);
        prop_assert_eq!(first, counted.iter().copied().map(u64::from).sum::<u64>());
        prop_assert_eq!(totals.closing.is_closed(), is_late(&log, log.len()));
        // No clock of whoever appended the markers shows.
        prop_assert!(totals.updated_at_ms <= 5);
    }

    #[test]
    fn a_replay_into_the_stored_totals_leaves_the_same_people_out(
        log in prop::collection::vec(items(), 0..80),
    ) {
        let mut state = PartitionState::new(PartitionId(0), count(), Vec::new());
        fold_all(&mut state, &log, FoldMode::Live);
        let stored = state.totals().map(|(id, totals)| {
            let sums: Vec<i64> =
                totals.categories.iter().map(|it| it.basis_points as i64).collect();
            let column = totals.encode_distribution();
            let read = BudgetTotals::from_columns(
                totals.position, totals.people, totals.updated_at_ms, &sums, &column,
            );
            (id.clone(), read.unwrap())
        });
        let mut taken_over = PartitionState::new(PartitionId(0), count(), stored.collect());
        fold_all(&mut taken_over, &log, FoldMode::Replay);
        prop_assert_eq!(taken_over.check_totals_match_people(PeopleOrigin::Rows), Ok(()));
        prop_assert_eq!(taken_over.allocations(&budget()), state.allocations(&budget()));
    }
}

#[test]
fn a_marker_that_changes_nothing_is_not_committed_again() {
    let mut state = PartitionState::new(PartitionId(0), count(), Vec::new());
    let close = Item::Marker(Marker { kind: MarkerKind::Close, revision: 3 });
    let stale = Item::Marker(Marker { kind: MarkerKind::Reopen, revision: 2 });
    let log = [close, close, stale, Item::Submission(1, Some(5_000))];
    let mut positions = Vec::new();
    for (offset, item) in log.into_iter().enumerate() {
        let (key, value) = encode(item, offset);
        let record = Record { offset: Offset(offset as u64), key: &key, value: &value };
        state.fold(record, FoldMode::Live).unwrap();
        positions.push(state.take_changed().first().map(|(_, totals)| totals.position.0));
    }
    assert_eq!(positions, [Some(1), None, None, None]);
    assert!(state.budget_totals(&budget()).unwrap().closing.is_closed());
}
