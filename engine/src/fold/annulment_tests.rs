//! Property tests: annulments among submissions, withdrawals, duplicates, closings and publish steps, against a naive
//! model that keeps every person's latest share and whether the person is annulled.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use schemas::{
    Action, Allocation, AnnulmentAction, AnnulmentId, AnnulmentStamp, BudgetId, BudgetTotals,
    Marker, MarkerKind, Offset, PartitionCount, PartitionId, PersonKey, PersonRow, Position,
    PublishStep, RECENT_SUBMISSIONS, RecordEncoder, RecordStamp, Submission, SubmissionId,
};
use storage::log::Record;
use uuid::Uuid;

use super::*;

/// One record of a log.
#[derive(Debug, Clone, Copy)]
enum Item {
    /// A person's share in the first of two categories; `None` withdraws. Ids are few, so that some repeat.
    Submission {
        person: u8,
        id: u8,
        share: Option<u32>,
    },
    Annulment {
        person: u8,
        action: AnnulmentAction,
    },
    Marker(Marker),
}

use AnnulmentAction::{Annul, Restore};

fn items() -> impl Strategy<Value = Item> {
    let shares = prop::option::weighted(0.8, (0..5_u32).prop_map(|quarters| quarters * 2_500));
    let submission = (0..6_u8, 0..30_u8, shares).prop_map(|(person, id, share)| Item::Submission {
        person,
        id,
        share,
    });
    let annulment = (0..6_u8, prop::bool::weighted(0.6)).prop_map(|(person, annuls)| {
        Item::Annulment { person, action: if annuls { Annul } else { Restore } }
    });
    let marker = (any::<bool>(), 1..8_u64).prop_map(|(closes, revision)| {
        let kind = if closes { MarkerKind::Close } else { MarkerKind::Reopen };
        Item::Marker(Marker { kind, revision })
    });
    prop_oneof![12 => submission, 6 => annulment, 1 => marker]
}

fn logs() -> impl Strategy<Value = Vec<Item>> {
    prop::collection::vec(items(), 1..70)
}

fn budget() -> BudgetId {
    BudgetId::parse("taxes").unwrap()
}

fn key(person: u8) -> PersonKey {
    PersonKey::from_bytes([person; 16])
}

fn one() -> PartitionCount {
    PartitionCount::new(1).unwrap()
}

fn new_state(totals: Vec<(BudgetId, BudgetTotals)>) -> PartitionState {
    PartitionState::new(PartitionId(0), one(), totals)
}

fn fold(
    state: &mut PartitionState,
    offset: usize,
    item: Item,
    step: PublishStep,
    mode: FoldMode,
) -> FoldOutcome {
    let mut encoder = RecordEncoder::default();
    let at_ms = 1 + offset as u64;
    let (key, value) = match item {
        Item::Marker(marker) => {
            let id = SubmissionId(Uuid::from_u128(9_000 + offset as u128));
            let value = encoder.encode_marker(&budget(), marker, id, at_ms);
            (Marker::key(&budget(), PartitionId(0), one()), value)
        }
        Item::Annulment { person, action } => {
            let stamp = AnnulmentStamp { appended_at_ms: at_ms, publish_step: step };
            // The id of a submission, which the annulment must not make a duplicate.
            let id = AnnulmentId(Uuid::from_u128(u128::from(person)));
            (key(person), encoder.encode_annulment(&budget(), id, action, stamp))
        }
        Item::Submission { person, id, share } => {
            let action = match share {
                Some(share) => Action::Allocate(Allocation::new(&[share, 10_000 - share]).unwrap()),
                None => Action::Withdraw,
            };
            let id = SubmissionId(Uuid::from_u128(u128::from(id)));
            let person = key(person);
            let submission =
                Submission { budget: budget(), person, id, accepted_at_ms: at_ms, action };
            let stamp = RecordStamp { generated_id: false, publish_step: step };
            (person, encoder.encode_stamped(&submission, stamp))
        }
    };
    let record = Record { offset: Offset(offset as u64), key: key.as_bytes(), value: &value };
    state.fold(record, mode).unwrap()
}

/// Numbers that readers see: people, the sum of the first shares, and annulled people.
type Numbers = (u64, u64, u64);

fn numbers(totals: &BudgetTotals) -> Numbers {
    let first = totals.categories.first().map_or(0, |category| category.basis_points);
    (totals.people, first, totals.annulled)
}

#[derive(Default)]
struct Model {
    /// Everyone who has a row, with the latest share.
    latest: BTreeMap<u8, Option<u32>>,
    annulled: BTreeSet<u8>,
    ids: BTreeMap<u8, Vec<u8>>,
    revision: u64,
    closed: bool,
    shown: Numbers,
    changed: BTreeSet<u8>,
}

impl Model {
    fn fold(&mut self, item: Item, step: u64) -> FoldOutcome {
        let mut outcome = FoldOutcome::Applied;
        match item {
            Item::Marker(marker) if marker.revision > self.revision => {
                self.revision = marker.revision;
                self.closed = marker.kind == MarkerKind::Close;
            }
            Item::Marker(_) => {}
            Item::Submission { .. } if self.closed => outcome = FoldOutcome::Late,
            Item::Submission { person, id, share } => {
                let ids = self.ids.entry(person).or_default();
                if ids.iter().rev().take(RECENT_SUBMISSIONS).any(|known| *known == id) {
                    return FoldOutcome::Duplicate;
                }
                ids.push(id);
                self.change(person, |model| {
                    model.latest.insert(person, share);
                });
            }
            Item::Annulment { person, action } if self.latest.contains_key(&person) => {
                self.change(person, |model| match action {
                    Annul => _ = model.annulled.insert(person),
                    Restore => _ = model.annulled.remove(&person),
                });
            }
            Item::Annulment { .. } => {}
        }
        if self.closed || self.changed.len() as u64 >= step {
            self.changed.clear();
        }
        if self.changed.is_empty() {
            self.shown = self.numbers();
        }
        outcome
    }

    fn change(&mut self, person: u8, change: impl FnOnce(&mut Self)) {
        let of =
            |model: &Self| (model.latest.get(&person).copied().flatten(), model.annuls(person));
        let before = of(self);
        change(self);
        let after = of(self);
        let is_seen = |(share, annulled): (Option<u32>, bool)| match annulled {
            true => (None, share.is_some()),
            false => (share, false),
        };
        if is_seen(before) != is_seen(after) {
            self.changed.insert(person);
        }
    }

    fn annuls(&self, person: u8) -> bool {
        self.annulled.contains(&person)
    }

    fn allocations(&self) -> Vec<(PersonKey, Vec<u16>)> {
        let counting = self.latest.iter().filter(|(person, _)| !self.annuls(**person));
        let allocations = counting.filter_map(|(person, share)| Some((person, (*share)?)));
        allocations
            .map(|(person, share)| (key(*person), vec![share as u16, (10_000 - share) as u16]))
            .collect()
    }

    fn numbers(&self) -> Numbers {
        let counting = self.allocations();
        let first = counting.iter().map(|(_, shares)| u64::from(shares[0])).sum();
        let annulled = self.latest.iter().filter(|(person, _)| self.annuls(**person));
        let annulled = annulled.filter(|(_, share)| share.is_some()).count();
        (counting.len() as u64, first, annulled as u64)
    }
}

/// Returns totals as they are read from the store.
fn stored(totals: &BudgetTotals) -> BudgetTotals {
    let sums: Vec<i64> = totals.categories.iter().map(|it| it.basis_points as i64).collect();
    let BudgetTotals { position, people, updated_at_ms, .. } = *totals;
    let column = totals.encode_distribution();
    BudgetTotals::from_columns(position, people, updated_at_ms, &sums, &column).unwrap()
}

fn all_rows(state: &mut PartitionState) -> Vec<PersonRow> {
    state.mark_changed_from(Position::START);
    let mut scan = state.begin_row_scan();
    std::iter::from_fn(|| state.take_changed_rows(&mut scan, 100)).flatten().collect()
}

fn steps() -> impl Strategy<Value = PublishStep> {
    (1..4_u64).prop_map(PublishStep::nearest)
}

proptest! {
    #[test]
    fn totals_equal_a_naive_fold_with_annulments_after_each_record(log in logs(), step in steps()) {
        let (mut state, mut model) = (new_state(Vec::new()), Model::default());
        for (offset, item) in log.into_iter().enumerate() {
            let outcome = fold(&mut state, offset, item, step, FoldMode::Live);
            prop_assert_eq!(outcome, model.fold(item, step.get().into()), "{}", offset);
            let totals = state.budget_totals(&budget()).cloned().unwrap_or_default();
            prop_assert_eq!(numbers(&totals), model.numbers());
            prop_assert_eq!(&stored(&totals), &totals);
            prop_assert_eq!(numbers(&totals.into_shown()), model.shown);
            prop_assert_eq!(state.check_totals_match_people(PeopleOrigin::Rows), Ok(()));
            prop_assert_eq!(state.allocations(&budget()), model.allocations());
        }
    }

    #[test]
    fn a_takeover_with_rows_of_any_age_continues_as_the_owner_before(
        log in logs(),
        step in steps(),
        rows_at in 0..70_usize,
        taken_over_at in 0..70_usize,
        newer_rows in any::<u8>(),
    ) {
        let taken_over_at = taken_over_at.min(log.len());
        let rows_at = rows_at.min(taken_over_at);
        let mut owner = new_state(Vec::new());
        let fold_range = |state: &mut PartitionState, from: usize, to: usize, mode| {
            for (offset, item) in log.iter().enumerate().take(to).skip(from) {
                fold(state, offset, *item, step, mode);
            }
        };
        fold_range(&mut owner, 0, rows_at, FoldMode::Live);
        let older = all_rows(&mut owner);
        fold_range(&mut owner, rows_at, taken_over_at, FoldMode::Live);
        let newer = all_rows(&mut owner);
        let totals = owner.totals().map(|(id, totals)| (id.clone(), stored(totals))).collect();
        let mut next = new_state(totals);
        // Of some people the row was written again before the takeover.
        let is_newer = |row: &PersonRow| newer_rows & (1 << row.person.as_bytes()[0]) != 0;
        for row in older.iter().chain(newer.iter().filter(|row| is_newer(row))) {
            prop_assert!(next.restore(&PersonRow::decode(
                row.person.as_bytes(), &row.encode_state(),
            ).unwrap()));
        }
        fold_range(&mut next, rows_at, taken_over_at, FoldMode::Replay);
        prop_assert_eq!(next.check_totals_match_people(PeopleOrigin::Rows), Ok(()));
        for state in [&mut owner, &mut next] {
            fold_range(state, taken_over_at, log.len(), FoldMode::Live);
        }
        prop_assert_eq!(next.totals().collect::<Vec<_>>(), owner.totals().collect::<Vec<_>>());
        // The digests of both moved with each record, and are those of the people.
        for state in [&mut owner, &mut next] {
            prop_assert_eq!(state.check_totals_match_people(PeopleOrigin::Rows), Ok(()));
        }
        prop_assert_eq!(next.allocations(&budget()), owner.allocations(&budget()));
        prop_assert_eq!(sorted(all_rows(&mut next)), sorted(all_rows(&mut owner)));
    }
}

fn sorted(mut rows: Vec<PersonRow>) -> Vec<PersonRow> {
    rows.sort_unstable_by_key(|row| row.person);
    rows
}

#[test]
fn a_restored_person_counts_with_what_was_submitted_meanwhile() {
    let mut state = new_state(Vec::new());
    let submission = |id, share| Item::Submission { person: 1, id, share };
    let annulment = |action| Item::Annulment { person: 1, action };
    let log = [
        (annulment(Annul), (0, 0, 0)), // of nobody
        (submission(1, Some(2_500)), (1, 2_500, 0)),
        (annulment(Annul), (0, 0, 1)),
        (annulment(Annul), (0, 0, 1)),
        (submission(2, Some(7_500)), (0, 0, 1)),
        (annulment(Restore), (1, 7_500, 0)),
        (annulment(Annul), (0, 0, 1)),
        (submission(3, None), (0, 0, 0)),
        (annulment(Restore), (0, 0, 0)),
    ];
    for (offset, (item, expected)) in log.into_iter().enumerate() {
        fold(&mut state, offset, item, PublishStep::ONE, FoldMode::Live);
        let totals = state.budget_totals(&budget()).unwrap();
        assert_eq!((offset, numbers(totals)), (offset, expected));
        assert_eq!(totals.position, Position(1 + offset as u64));
        assert_eq!(
            state.person_count(),
            usize::from(offset > 0),
            "nobody gets a row by an annulment"
        );
    }
}

#[test]
fn an_annulment_behind_the_close_marker_counts_and_is_shown() {
    let mut state = new_state(Vec::new());
    let step = PublishStep::nearest(3);
    let close = Item::Marker(Marker { kind: MarkerKind::Close, revision: 1 });
    let submission = |person, id| Item::Submission { person, id, share: Some(10_000) };
    let annulment = |action| Item::Annulment { person: 1, action };
    let mut shown = Vec::new();
    let log = [
        submission(1, 1),
        submission(2, 2),
        close,
        annulment(Annul),
        submission(1, 3),
        annulment(Restore),
    ];
    for (offset, item) in log.into_iter().enumerate() {
        fold(&mut state, offset, item, step, FoldMode::Live);
        let totals = state.budget_totals(&budget()).unwrap().clone().into_shown();
        shown.push((totals.people, totals.annulled));
    }
    assert_eq!(shown, [(0, 0), (0, 0), (2, 0), (1, 1), (1, 1), (2, 0)]);
}
