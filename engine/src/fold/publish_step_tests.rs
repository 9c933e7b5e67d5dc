//! Property tests: what readers are shown of a budget whose results move in steps, against a naive model that keeps
//! every person's current and shown share.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use schemas::{
    Action, Allocation, BudgetId, BudgetTotals, HistoryStep, HistoryTotals, Marker, MarkerKind,
    Offset, PartitionCount, PartitionId, PersonKey, PublishStep, RecordEncoder, RecordStamp,
    Submission, SubmissionId,
};
use storage::log::Record;
use uuid::Uuid;

use super::*;

/// One record of a log.
#[derive(Debug, Clone, Copy)]
enum Item {
    /// A person's share in the first of two categories; `None` withdraws. Stamped with the log's step or, as by an
    /// earlier release, with none.
    Submission {
        person: u8,
        share: Option<u32>,
        stamped: bool,
    },
    Marker(Marker),
}

const MINUTE_MS: u64 = 60_000;

fn logs() -> impl Strategy<Value = Vec<Item>> {
    // Few shares, so that many submissions change nothing.
    let shares = prop::option::weighted(0.8, (0..4_u32).prop_map(|quarters| quarters * 2_500));
    let submission = (0..7_u8, shares, prop::bool::weighted(0.9))
        .prop_map(|(person, share, stamped)| Item::Submission { person, share, stamped });
    let marker = (any::<bool>(), 1..8_u64).prop_map(|(closes, revision)| {
        let kind = if closes { MarkerKind::Close } else { MarkerKind::Reopen };
        Item::Marker(Marker { kind, revision })
    });
    prop::collection::vec(prop_oneof![15 => submission, 1 => marker], 1..80)
}

fn budget() -> BudgetId {
    BudgetId::parse("taxes").unwrap()
}

fn new_state(totals: Vec<(BudgetId, BudgetTotals)>) -> PartitionState {
    let mut state = PartitionState::new(PartitionId(0), PartitionCount::new(1).unwrap(), totals);
    state.set_history_floor(HistoryFloor::ALL);
    state
}

/// The key of each person differs in its first bytes, which are the fingerprint.
fn person_key(person: u8) -> PersonKey {
    PersonKey::from_bytes([person; 16])
}

fn fold(state: &mut PartitionState, offset: usize, item: Item, step: PublishStep) -> FoldOutcome {
    let mut encoder = RecordEncoder::default();
    let id = SubmissionId(Uuid::from_u128(1_000 + offset as u128));
    let accepted_at_ms = (1 + offset as u64) * MINUTE_MS / 2;
    let (key, value) = match item {
        Item::Marker(marker) => {
            let key = Marker::key(&budget(), PartitionId(0), PartitionCount::new(1).unwrap());
            (key, encoder.encode_marker(&budget(), marker, id, accepted_at_ms))
        }
        Item::Submission { person, share, stamped } => {
            let action = match share {
                Some(share) => Action::Allocate(Allocation::new(&[share, 10_000 - share]).unwrap()),
                None => Action::Withdraw,
            };
            let (budget, person) = (budget(), person_key(person));
            let submission = Submission { budget, person, id, accepted_at_ms, action };
            let publish_step = if stamped { step } else { PublishStep::ONE };
            let stamp = RecordStamp { generated_id: false, publish_step };
            (person, encoder.encode_stamped(&submission, stamp))
        }
    };
    let record = Record { offset: Offset(offset as u64), key: key.as_bytes(), value: &value };
    state.fold(record, FoldMode::Live).unwrap()
}

/// What a budget has: each person's share in the first category.
type People = BTreeMap<u8, u32>;

#[derive(Default)]
struct Model {
    current: People,
    shown: People,
    /// Who has changed since `shown`.
    changed: BTreeSet<u8>,
    step: u64,
    revision: u64,
    closed: bool,
}

impl Model {
    /// Returns whether what is shown may move by fewer people than the step.
    fn fold(&mut self, item: Item, step: PublishStep) -> bool {
        match item {
            Item::Marker(marker) => {
                if marker.revision > self.revision {
                    self.revision = marker.revision;
                    self.closed = marker.kind == MarkerKind::Close;
                }
                if self.closed {
                    self.show();
                }
                true
            }
            Item::Submission { .. } if self.closed => false,
            Item::Submission { person, share, stamped } => {
                let before = self.current.get(&person).copied();
                match share {
                    Some(share) => self.current.insert(person, share),
                    None => self.current.remove(&person),
                };
                if before != share {
                    let stamp = if stamped { step.get().into() } else { 1 };
                    self.step = self.step.max(stamp);
                    self.changed.insert(person);
                }
                if self.changed.len() as u64 >= self.step {
                    self.show();
                }
                self.step <= 1
            }
        }
    }

    fn show(&mut self) {
        self.changed.clear();
        self.shown.clone_from(&self.current);
    }
}

fn numbers(people: &People) -> HistoryTotals {
    let first: u64 = people.values().copied().map(u64::from).sum();
    let count = people.len() as u64;
    HistoryTotals { people: count, basis_points: vec![first, count * 10_000 - first] }
}

/// As zeros, whether there was an allocation or not.
fn with_categories(mut totals: HistoryTotals) -> HistoryTotals {
    totals.basis_points.resize(2, 0);
    totals
}

fn shown(state: &PartitionState) -> HistoryTotals {
    let totals = state.budget_totals(&budget()).cloned().unwrap_or_default();
    with_categories(HistoryTotals::of(&totals.into_shown()))
}

fn exact(state: &PartitionState) -> HistoryTotals {
    let exact = state.recount().next().map(|(_, totals)| HistoryTotals::of(&totals));
    with_categories(exact.unwrap_or_default())
}

proptest! {
    #[test]
    fn what_is_shown_moves_only_when_as_many_people_as_the_step_have_changed(
        log in logs(),
        step in (1..6_u64).prop_map(PublishStep::nearest),
    ) {
        let (mut state, mut model) = (new_state(Vec::new()), Model::default());
        for (offset, item) in log.into_iter().enumerate() {
            let (before, before_people) = (shown(&state), model.shown.clone());
            let (mut changed, current) = (model.changed.clone(), model.current.clone());
            fold(&mut state, offset, item, step);
            let is_free = model.fold(item, step);
            prop_assert_eq!(shown(&state), numbers(&model.shown));
            prop_assert_eq!(exact(&state), numbers(&model.current), "the exact totals move at once");
            let totals = state.budget_totals(&budget()).unwrap();
            prop_assert!(totals.is_consistent());
            prop_assert_eq!(totals.clone().into_shown().position, totals.position);
            if before_people != model.shown && !is_free {
                // The record's own person, and those before.
                if let Item::Submission { person, share, .. } = item
                    && current.get(&person).copied() != share
                {
                    changed.insert(person);
                }
                prop_assert!(changed.len() as u64 >= model.step);
            }
            if model.closed {
                prop_assert_eq!(shown(&state), exact(&state), "closing shows everything");
            }
            // Nor does any history point tell more.
            for (_, point) in state.take_history() {
                prop_assert_eq!(with_categories(point.totals), before.clone());
            }
        }
    }

    #[test]
    fn a_takeover_at_any_position_continues_with_the_pending_people(
        log in logs(),
        step in (1..6_u64).prop_map(PublishStep::nearest),
        cut in 0.0..1.0_f64,
    ) {
        let cut = (cut * log.len() as f64) as usize;
        let mut whole = new_state(Vec::new());
        let mut before = new_state(Vec::new());
        for (offset, item) in log.iter().enumerate() {
            fold(&mut whole, offset, *item, step);
            if offset < cut {
                fold(&mut before, offset, *item, step);
            }
        }
        let mut scan = before.begin_row_scan();
        let rows: Vec<_> =
            std::iter::from_fn(|| before.take_changed_rows(&mut scan, 9)).flatten().collect();
        let stored = before.totals().map(|(id, totals)| {
            let sums: Vec<i64> = totals.categories.iter().map(|it| it.basis_points as i64).collect();
            let (column, BudgetTotals { position, people, updated_at_ms, .. }) =
                (totals.encode_distribution(), totals.clone());
            let read = BudgetTotals::from_columns(position, people, updated_at_ms, &sums, &column);
            (id.clone(), read.unwrap())
        });
        let mut after = new_state(stored.collect());
        for row in &rows {
            prop_assert!(after.restore(row));
        }
        for (offset, item) in log.iter().enumerate().skip(cut) {
            fold(&mut after, offset, *item, step);
        }
        prop_assert_eq!(after.budget_totals(&budget()), whole.budget_totals(&budget()));
    }

    #[test]
    fn the_size_of_a_commit_is_bounded_whatever_is_pending(
        log in logs(),
        step in (1..6_u64).prop_map(PublishStep::nearest),
    ) {
        let mut state = new_state(Vec::new());
        state.set_history_floor(HistoryFloor::NONE);
        for (offset, item) in log.into_iter().enumerate() {
            fold(&mut state, offset, item, step);
            let totals = state.budget_totals(&budget()).unwrap();
            let stored = totals.encode_distribution().len() + 8 * totals.categories.len();
            let bound = state.changed_bytes();
            prop_assert!(bound == 0 || bound >= stored, "{stored} bytes, bound {bound}");
            // Some commits have several records.
            if offset % 5 == 4 {
                state.take_changed();
                prop_assert_eq!(state.changed_bytes(), 0);
            }
        }
    }
}

#[test]
fn without_a_step_nothing_is_pending_and_the_column_has_counts_and_the_digests_of_people_alone() {
    let mut state = new_state(Vec::new());
    for (offset, (person, share)) in
        [(1, Some(2_500)), (2, Some(5_000)), (1, None)].into_iter().enumerate()
    {
        fold(
            &mut state,
            offset,
            Item::Submission { person, share, stamped: true },
            PublishStep::ONE,
        );
        let totals = state.budget_totals(&budget()).unwrap();
        assert_eq!((totals.publish_step, &totals.pending), (PublishStep::ONE, &None));
        // The tag of the counts, and their two times 101 bytes; the tag of each digest, and its 8 bytes.
        assert_eq!(totals.encode_distribution().len(), 1 + 2 + 202 + 2 * (1 + 8));
    }
}

#[test]
fn the_first_people_are_not_shown_before_the_step_is_complete_not_even_that_there_is_one() {
    let mut state = new_state(Vec::new());
    let step = PublishStep::nearest(3);
    for (offset, people) in [0, 0, 3, 3].into_iter().enumerate() {
        let item = Item::Submission { person: offset as u8, share: Some(2_500), stamped: true };
        fold(&mut state, offset, item, step);
        let shown = state.budget_totals(&budget()).unwrap().clone().into_shown();
        assert_eq!(shown.people, people);
        assert_eq!(
            (shown.categories.is_empty(), shown.updated_at_ms == 0),
            (people == 0, people == 0)
        );
    }
    // A history leaves instants before the first allocation out.
    let of_minutes =
        state.take_history().into_iter().filter(|(_, it)| it.step == HistoryStep::Minute);
    assert!(of_minutes.clone().count() > 0);
    assert!(of_minutes.take(1).all(|(_, point)| point.totals.basis_points.is_empty()));
}
