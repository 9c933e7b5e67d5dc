//! The fold against a naive one that shares nothing with it but the record's format.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use proptest::prelude::*;
use schemas::{
    Action, Allocation, PersonKey, Position, RECENT_SUBMISSIONS, Submission, SubmissionId,
    encode_record,
};
use uuid::Uuid;

use super::*;

const CATEGORIES: usize = 3;

/// What one test record says.
#[derive(Debug, Clone)]
struct Said {
    person: u8,
    id: u8,
    /// `None` withdraws.
    shares: Option<[u32; CATEGORIES]>,
}

fn one_partition() -> PartitionCount {
    PartitionCount::new(1).unwrap()
}

fn person_key(person: u8) -> PersonKey {
    PersonKey::from_bytes([person; 16])
}

fn encode(said: &Said) -> ([u8; 16], Vec<u8>) {
    let action = match said.shares {
        Some(shares) => Action::Allocate(Allocation::new(&shares).unwrap()),
        None => Action::Withdraw,
    };
    let submission = Submission {
        budget: BudgetId::parse("taxes").unwrap(),
        person: person_key(said.person),
        // An id belongs to one person.
        id: SubmissionId(Uuid::from_u128(u128::from(said.person) << 8 | u128::from(said.id))),
        accepted_at_ms: 5,
        action,
    };
    (*submission.person.as_bytes(), encode_record(&submission))
}

fn fold_all(state: &mut PartitionState, said: &[Said], from: usize, reach: Reach) -> Vec<Outcome> {
    said.iter()
        .enumerate()
        .skip(from)
        .map(|(offset, said)| {
            let (key, value) = encode(said);
            state.fold(Record { offset: Offset(offset as u64), key: &key, value: &value }, reach)
        })
        .collect()
}

fn empty() -> PartitionState {
    PartitionState::new(PartitionId(0), one_partition(), Vec::new())
}

fn only_totals(state: &PartitionState) -> Option<BudgetTotals> {
    state.totals().next().map(|(_, totals)| totals.clone())
}

/// The newest submission of each person, with repetitions of their latest ids left out.
fn naive(said: &[Said]) -> (u64, [u64; CATEGORIES], usize) {
    let mut current: HashMap<u8, Option<[u32; CATEGORIES]>> = HashMap::new();
    let mut seen: HashMap<u8, Vec<u8>> = HashMap::new();
    let mut duplicates = 0;
    for said in said {
        let ids = seen.entry(said.person).or_default();
        if ids.iter().rev().take(RECENT_SUBMISSIONS).any(|id| *id == said.id) {
            duplicates += 1;
            continue;
        }
        ids.push(said.id);
        current.insert(said.person, said.shares);
    }
    let counted: Vec<_> = current.values().flatten().collect();
    let mut sums = [0; CATEGORIES];
    for shares in &counted {
        for (sum, share) in sums.iter_mut().zip(shares.iter()) {
            *sum += u64::from(*share);
        }
    }
    (counted.len() as u64, sums, duplicates)
}

fn said() -> impl Strategy<Value = Said> {
    let shares = (0..=10_000_u32, 0..=10_000_u32).prop_map(|(a, b)| {
        let (low, high) = (a.min(b), a.max(b));
        [low, high - low, 10_000 - high]
    });
    (0..6_u8, 0..8_u8, prop::option::weighted(0.8, shares)).prop_map(|(person, id, shares)| Said {
        person,
        id,
        shares,
    })
}

proptest! {
    #[test]
    fn totals_are_the_naive_fold_of_the_log(log in prop::collection::vec(said(), 0..200)) {
        let mut state = empty();
        let outcomes = fold_all(&mut state, &log, 0, Reach::Everything);
        let (people, sums, duplicates) = naive(&log);
        let totals = only_totals(&state).unwrap_or_default();
        prop_assert!(totals.is_consistent());
        prop_assert_eq!(totals.people, people);
        for (index, category) in totals.categories.iter().enumerate() {
            prop_assert_eq!(category.basis_points, sums[index]);
        }
        prop_assert_eq!(outcomes.iter().filter(|o| **o == Outcome::Duplicate).count(), duplicates);
        if !log.is_empty() {
            prop_assert_eq!(totals.position, Position(log.len() as u64));
        }
    }

    #[test]
    fn a_take_over_continues_as_if_nothing_had_happened(
        log in prop::collection::vec(said(), 1..150),
        cuts in (0.0..1.0_f64, 0.0..1.0_f64, 0.0..1.0_f64),
    ) {
        // Rows are complete up to `state_position`, some of them are newer, and the totals stand at `position`.
        let mut cuts = [cuts.0, cuts.1, cuts.2].map(|cut| (cut * log.len() as f64) as usize);
        cuts.sort_unstable();
        let [state_position, rows_until, position] = cuts;

        let mut before = empty();
        fold_all(&mut before, &log[..state_position], 0, Reach::Everything);
        let mut rows = take_all_rows(&mut before);
        fold_all(&mut before, &log[..rows_until], state_position, Reach::Everything);
        rows.extend(take_all_rows(&mut before));
        fold_all(&mut before, &log[..position], rows_until, Reach::Everything);
        let committed = before.totals().map(|(id, totals)| (id.clone(), totals.clone())).collect();

        let mut latest: HashMap<PersonKey, PersonRow> = HashMap::new();
        for row in rows {
            latest.insert(row.person, row);
        }
        let mut after = PartitionState::new(PartitionId(0), one_partition(), committed);
        for row in latest.values() {
            prop_assert!(after.restore(row));
        }
        fold_all(&mut after, &log[..position], state_position, Reach::PeopleOnly);
        fold_all(&mut after, &log, position, Reach::Everything);

        let mut whole = empty();
        fold_all(&mut whole, &log, 0, Reach::Everything);
        prop_assert_eq!(only_totals(&after), only_totals(&whole));
        let (mut rows, mut expected) = (take_all_rows(&mut after), take_all_rows(&mut whole));
        // Of the restored people only those changed since are taken; they must be as in the whole fold.
        rows.sort_by_key(|row| row.person);
        expected.retain(|row| rows.iter().any(|changed| changed.person == row.person));
        expected.sort_by_key(|row| row.person);
        prop_assert_eq!(rows, expected);
    }
}

fn take_all_rows(state: &mut PartitionState) -> Vec<PersonRow> {
    let mut scan = state.begin_row_scan();
    std::iter::from_fn(|| state.take_changed_rows(&mut scan, 2)).flatten().collect()
}

/// Spread like a hash would be.
fn spread_key(n: u64) -> PersonKey {
    let bits = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    PersonKey::from_bytes(bits.to_le_bytes())
}

/// Withdrawals of people whom nobody knew, one in each of so many budgets.
fn fold_new_people(state: &mut PartitionState, people: std::ops::Range<u64>, budgets: u64) {
    for n in people {
        let value = encode_record(&Submission {
            budget: BudgetId::parse(&format!("budget-{}", n % budgets)).unwrap(),
            person: spread_key(n),
            id: SubmissionId(Uuid::from_u128(n.into())),
            accepted_at_ms: 5,
            action: Action::Withdraw,
        });
        let key = spread_key(n);
        let record = Record { offset: Offset(n), key: key.as_bytes(), value: &value };
        assert_eq!(state.fold(record, Reach::Everything), Outcome::Applied);
    }
}

#[test]
fn a_scan_of_rows_takes_whoever_was_there_at_its_begin_and_leaves_the_others_to_the_next() {
    for before in [0, 1, 63, 64, 65, 200] {
        let mut state = empty();
        fold_new_people(&mut state, 0..before, 2);
        let mut scan = state.begin_row_scan();
        let mut taken = Vec::new();
        let mut come = before;
        while let Some(rows) = state.take_changed_rows(&mut scan, 1) {
            taken.extend(rows.iter().map(|row| row.offset.0));
            assert!(taken.len() as u64 <= before, "it goes on to those who came later");
            // More than were taken, in the old budgets and in new ones.
            fold_new_people(&mut state, come..come + 100, 3);
            come += 100;
        }
        taken.sort_unstable();
        assert_eq!(taken, (0..before).collect::<Vec<_>>());
        assert_eq!(state.changed_people() as u64, come - before);
        let mut later: Vec<_> = take_all_rows(&mut state).iter().map(|row| row.offset.0).collect();
        later.sort_unstable();
        assert_eq!(later, (before..come).collect::<Vec<_>>());
        assert_eq!(state.changed_people(), 0);
    }
}

#[test]
fn many_people_are_found_again_across_chunks() {
    let mut people = People::new(2);
    for n in 0..20_000 {
        assert!(matches!(people.find_or_insert(&spread_key(n)), Known::New(_)));
    }
    for n in 0..20_000 {
        assert!(matches!(people.find_or_insert(&spread_key(n)), Known::Old(_)));
    }
    assert_eq!(people.len(), 20_000);
}

#[test]
fn foreign_and_impossible_records_are_dead_letters_and_leave_their_neighbours_alone() {
    let two = PartitionCount::new(2).unwrap();
    let elsewhere =
        (0..).map(person_key).find(|key| partition_for(key, two) == PartitionId(1)).unwrap();
    let here = (0..).map(person_key).find(|key| partition_for(key, two) == PartitionId(0)).unwrap();
    let record = |shares: &[u32]| {
        encode_record(&Submission {
            budget: BudgetId::parse("taxes").unwrap(),
            person: here,
            id: SubmissionId(Uuid::from_u128(shares.len() as u128)),
            accepted_at_ms: 1,
            action: Action::Allocate(Allocation::new(shares).unwrap()),
        })
    };
    let (good, wide) = (record(&[4_000, 6_000]), record(&[4_000, 3_000, 3_000]));
    let mut state = PartitionState::new(PartitionId(0), two, Vec::new());
    let mut fold = |offset, key: PersonKey, value: &[u8]| {
        state.fold(Record { offset: Offset(offset), key: key.as_bytes(), value }, Reach::Everything)
    };
    assert_eq!(fold(0, here, &good), Outcome::Applied);
    assert_eq!(
        fold(1, elsewhere, &good),
        Outcome::DeadLetter(DeadReason::WrongPartition(PartitionId(1)))
    );
    assert_eq!(
        fold(2, here, &wide),
        Outcome::DeadLetter(DeadReason::Categories { expected: 2, found: 3 })
    );
    assert!(matches!(fold(3, here, b"garbage"), Outcome::DeadLetter(DeadReason::Record(_))));
    let totals = only_totals(&state).unwrap();
    assert_eq!((totals.people, totals.position), (1, Position(1)));
    assert!(totals.is_consistent());
}
