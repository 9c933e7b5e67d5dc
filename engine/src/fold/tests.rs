//! Property tests: the fold against a naive fold that shares only the record format with it.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use proptest::prelude::*;
use schemas::{
    Action, Allocation, BudgetId, BudgetTotals, CategoryTotals, Offset, PartitionCount,
    PartitionId, PeopleDigest, PersonKey, PersonRow, Position, RECENT_SUBMISSIONS, RecordEncoder,
    Submission, SubmissionId, encode_record, partition_for,
};
use storage::log::Record;
use uuid::Uuid;

use super::people::{PersonEntry, PersonStates};
use super::*;

const CATEGORIES: usize = 3;

/// The content of one test record.
#[derive(Debug, Clone)]
struct TestSubmission {
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

fn encode(submission: &TestSubmission) -> ([u8; 16], Vec<u8>) {
    let action = match submission.shares {
        Some(shares) => Action::Allocate(Allocation::new(&shares).unwrap()),
        None => Action::Withdraw,
    };
    let record = Submission {
        budget: BudgetId::parse("taxes").unwrap(),
        person: person_key(submission.person),
        // An id belongs to one person.
        id: SubmissionId(Uuid::from_u128(
            u128::from(submission.person) << 8 | u128::from(submission.id),
        )),
        accepted_at_ms: 5,
        action,
    };
    (*record.person.as_bytes(), encode_record(&record))
}

fn fold_all(
    state: &mut PartitionState,
    log: &[TestSubmission],
    from: usize,
    mode: FoldMode,
) -> Vec<FoldOutcome> {
    log.iter()
        .enumerate()
        .skip(from)
        .map(|(offset, submission)| {
            let (key, value) = encode(submission);
            state
                .fold(Record { offset: Offset(offset as u64), key: &key, value: &value }, mode)
                .unwrap()
        })
        .collect()
}

fn empty() -> PartitionState {
    PartitionState::new(PartitionId(0), one_partition(), Vec::new())
}

fn only_totals(state: &PartitionState) -> Option<BudgetTotals> {
    state.totals().next().map(|(_, totals)| totals.clone())
}

/// Counts the newest submission of each person, skipping repetitions of their latest ids.
fn naive(log: &[TestSubmission]) -> (u64, [u64; CATEGORIES], usize) {
    let mut current: HashMap<u8, Option<[u32; CATEGORIES]>> = HashMap::new();
    let mut seen: HashMap<u8, Vec<u8>> = HashMap::new();
    let mut duplicates = 0;
    for submission in log {
        let ids = seen.entry(submission.person).or_default();
        if ids.iter().rev().take(RECENT_SUBMISSIONS).any(|id| *id == submission.id) {
            duplicates += 1;
            continue;
        }
        ids.push(submission.id);
        current.insert(submission.person, submission.shares);
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

fn submissions() -> impl Strategy<Value = TestSubmission> {
    let shares = (0..=10_000_u32, 0..=10_000_u32).prop_map(|(a, b)| {
        let (low, high) = (a.min(b), a.max(b));
        [low, high - low, 10_000 - high]
    });
    (0..6_u8, 0..8_u8, prop::option::weighted(0.8, shares))
        .prop_map(|(person, id, shares)| TestSubmission { person, id, shares })
}

proptest! {
    #[test]
    fn totals_equal_the_naive_fold_of_the_log(log in prop::collection::vec(submissions(), 0..200)) {
        let mut state = empty();
        let outcomes = fold_all(&mut state, &log, 0, FoldMode::Live);
        let (people, sums, duplicates) = naive(&log);
        let totals = only_totals(&state).unwrap_or_default();
        prop_assert!(totals.is_consistent());
        prop_assert_eq!(totals.people, people);
        for (index, category) in totals.categories.iter().enumerate() {
            prop_assert_eq!(category.basis_points, sums[index]);
        }
        prop_assert_eq!(outcomes.iter().filter(|o| **o == FoldOutcome::Duplicate).count(), duplicates);
        if !log.is_empty() {
            prop_assert_eq!(totals.position, Position(log.len() as u64));
        }
    }

    #[test]
    fn a_takeover_continues_as_if_the_owner_had_not_changed(
        log in prop::collection::vec(submissions(), 1..150),
        cuts in (0.0..1.0_f64, 0.0..1.0_f64, 0.0..1.0_f64),
    ) {
        // Rows are complete up to `rows_position`, some of them are newer, and the totals stand at `position`.
        let mut cuts = [cuts.0, cuts.1, cuts.2].map(|cut| (cut * log.len() as f64) as usize);
        cuts.sort_unstable();
        let [rows_position, rows_until, position] = cuts;

        let mut before = empty();
        fold_all(&mut before, &log[..rows_position], 0, FoldMode::Live);
        let mut rows = take_all_rows(&mut before);
        fold_all(&mut before, &log[..rows_until], rows_position, FoldMode::Live);
        rows.extend(take_all_rows(&mut before));
        fold_all(&mut before, &log[..position], rows_until, FoldMode::Live);
        let committed: Vec<_> = before.totals().map(|(id, totals)| (id.clone(), totals.clone())).collect();

        let mut latest: HashMap<PersonKey, PersonRow> = HashMap::new();
        for row in &rows {
            latest.insert(row.person, row.clone());
        }
        let mut after = PartitionState::new(PartitionId(0), one_partition(), committed.clone());
        // A bucket whose read failed half way is read again: rows come twice, also older ones.
        for row in rows.iter().chain(latest.values()).chain(&rows) {
            prop_assert!(after.restore(row));
        }
        fold_all(&mut after, &log[..position], rows_position, FoldMode::Replay);
        // Rows that are read before the totals give the same.
        let mut ahead = empty();
        for row in latest.values() {
            prop_assert!(ahead.restore_ahead(row));
        }
        prop_assert!(ahead.set_totals(committed));
        fold_all(&mut ahead, &log[..position], rows_position, FoldMode::Replay);
        fold_all(&mut ahead, &log, position, FoldMode::Live);
        fold_all(&mut after, &log, position, FoldMode::Live);
        prop_assert_eq!(only_totals(&ahead), only_totals(&after));
        prop_assert_eq!(ahead.check_totals_match_people(PeopleOrigin::Rows), Ok(()));

        let mut whole = empty();
        fold_all(&mut whole, &log, 0, FoldMode::Live);
        prop_assert_eq!(only_totals(&after), only_totals(&whole));
        let (mut rows, mut expected) = (take_all_rows(&mut after), take_all_rows(&mut whole));
        // Only people changed since the restore are taken; their rows must equal those of the whole fold.
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

/// A person key that is spread like a hash.
fn spread_key(n: u64) -> PersonKey {
    let bits = u128::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    PersonKey::from_bytes(bits.to_le_bytes())
}

/// Folds withdrawals of new people, spread over `budgets` budgets.
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
        assert_eq!(state.fold(record, FoldMode::Live), Ok(FoldOutcome::Applied));
    }
}

#[test]
fn a_row_scan_takes_the_people_present_at_its_start_and_leaves_later_ones_to_the_next_scan() {
    for before in [0, 1, 63, 64, 65, 200] {
        let mut state = empty();
        fold_new_people(&mut state, 0..before, 2);
        let mut scan = state.begin_row_scan();
        let mut taken = Vec::new();
        let mut folded = before;
        while let Some(rows) = state.take_changed_rows(&mut scan, 1) {
            taken.extend(rows.iter().map(|row| row.offset.0));
            assert!(taken.len() as u64 <= before, "the scan takes people who were added later");
            // More people than were taken, in existing budgets and in new ones.
            fold_new_people(&mut state, folded..folded + 100, 3);
            folded += 100;
        }
        taken.sort_unstable();
        assert_eq!(taken, (0..before).collect::<Vec<_>>());
        assert_eq!(state.changed_person_count() as u64, folded - before);
        let mut later: Vec<_> = take_all_rows(&mut state).iter().map(|row| row.offset.0).collect();
        later.sort_unstable();
        assert_eq!(later, (before..folded).collect::<Vec<_>>());
        assert_eq!(state.changed_person_count(), 0);
    }
}

#[test]
fn people_are_found_across_chunks() {
    let mut people = PersonStates::new(2);
    for n in 0..20_000 {
        assert!(matches!(people.find_or_insert(&spread_key(n)), PersonEntry::New(_)));
    }
    for n in 0..20_000 {
        assert!(matches!(people.find_or_insert(&spread_key(n)), PersonEntry::Existing(_)));
    }
    assert_eq!(people.len(), 20_000);
}

#[test]
fn rejected_records_become_dead_letters_and_do_not_change_the_totals() {
    let two = PartitionCount::new(2).unwrap();
    let other_partition =
        (0..).map(person_key).find(|key| partition_for(key, two) == PartitionId(1)).unwrap();
    let this_partition =
        (0..).map(person_key).find(|key| partition_for(key, two) == PartitionId(0)).unwrap();
    let record = |shares: &[u32]| {
        encode_record(&Submission {
            budget: BudgetId::parse("taxes").unwrap(),
            person: this_partition,
            id: SubmissionId(Uuid::from_u128(shares.len() as u128)),
            accepted_at_ms: 1,
            action: Action::Allocate(Allocation::new(shares).unwrap()),
        })
    };
    let (good, wide) = (record(&[4_000, 6_000]), record(&[4_000, 3_000, 3_000]));
    let mut state = PartitionState::new(PartitionId(0), two, Vec::new());
    let mut fold = |offset, key: PersonKey, value: &[u8]| {
        state
            .fold(Record { offset: Offset(offset), key: key.as_bytes(), value }, FoldMode::Live)
            .unwrap()
    };
    assert_eq!(fold(0, this_partition, &good), FoldOutcome::Applied);
    assert_eq!(
        fold(1, other_partition, &good),
        FoldOutcome::DeadLetter(DeadLetterReason::WrongPartition(PartitionId(1)))
    );
    assert_eq!(
        fold(2, this_partition, &wide),
        FoldOutcome::DeadLetter(DeadLetterReason::Categories { expected: 2, found: 3 })
    );
    assert!(matches!(
        fold(3, this_partition, b"garbage"),
        FoldOutcome::DeadLetter(DeadLetterReason::Record(_))
    ));
    let totals = only_totals(&state).unwrap();
    assert_eq!((totals.people, totals.position), (1, Position(1)));
    assert!(totals.is_consistent());
}

#[test]
fn subtracting_shares_that_the_totals_do_not_contain_is_refused_instead_of_wrapping() {
    let allocate = |id, shares| encode(&TestSubmission { person: 1, id, shares });
    let mut counted_once = empty();
    let (key, value) = allocate(1, Some([2_000, 3_000, 5_000]));
    let record = Record { offset: Offset(0), key: &key, value: &value };
    assert_eq!(counted_once.fold(record, FoldMode::Live), Ok(FoldOutcome::Applied));
    assert_eq!(counted_once.check_totals_match_people(PeopleOrigin::Rows), Ok(()));
    let mut scan = counted_once.begin_row_scan();
    let row = counted_once.take_changed_rows(&mut scan, 1).unwrap().remove(0);
    let nobody = BudgetTotals {
        categories: vec![CategoryTotals::default(); CATEGORIES],
        ..BudgetTotals::default()
    };
    for shares in [None, Some([3_000, 2_000, 5_000])] {
        let totals = vec![(row.budget.clone(), nobody.clone())];
        let mut state = PartitionState::new(PartitionId(0), one_partition(), totals);
        assert!(state.restore(&row));
        assert!(state.check_totals_match_people(PeopleOrigin::Rows).is_err());
        let (key, value) = allocate(2, shares);
        let record = Record { offset: Offset(1), key: &key, value: &value };
        let (budget, offset) = (row.budget.clone(), record.offset);
        assert_eq!(
            state.fold(record, FoldMode::Live),
            Err(InconsistentState::SharesNotInTotals { budget, offset })
        );
    }
}

#[test]
fn a_digest_of_other_rows_is_replaced_by_the_next_commit_where_everyone_was_replayed() {
    let mut owner = empty();
    for (offset, shares) in [(0, Some([10_000, 0, 0])), (1, None)] {
        let (key, value) = encode(&TestSubmission { person: 1, id: offset + 1, shares });
        let record = Record { offset: Offset(offset.into()), key: &key, value: &value };
        assert_eq!(owner.fold(record, FoldMode::Live), Ok(FoldOutcome::Applied));
    }
    let committed = owner.take_changed();
    // The row of somebody who has withdrawn is in no sum.
    let without_rows = || PartitionState::new(PartitionId(0), one_partition(), committed.clone());
    let budget = committed[0].0.clone();
    assert_eq!(
        without_rows().check_totals_match_people(PeopleOrigin::Rows),
        Err(InconsistentState::OtherPeople { budget })
    );
    let mut next = without_rows();
    assert_eq!(next.check_totals_match_people(PeopleOrigin::Log), Ok(()));
    assert!(next.changed_bytes() > 0);
    let replaced = next.take_changed();
    assert_eq!(replaced[0].1.people_digest, Some(PeopleDigest::NOBODY));
    assert_eq!(next.check_totals_match_people(PeopleOrigin::Rows), Ok(()));
    assert_eq!(next.take_changed(), []);
}

proptest! {
    #[test]
    fn changed_bytes_bound_the_stored_size_of_the_changed_totals(
        people in 0..2_000_u64,
        categories in 2..64_usize,
    ) {
        let mut state = PartitionState::new(PartitionId(0), one_partition(), Vec::new());
        let mut shares = vec![0; categories];
        shares[0] = 10_000;
        for person in 0..=people {
            // The size is measured at the first change of a budget since the last commit.
            if person == people {
                state.take_changed();
            }
            let record = Submission {
                budget: BudgetId::parse("taxes").unwrap(),
                person: PersonKey::from_bytes(u128::from(person).to_le_bytes()),
                id: SubmissionId(Uuid::from_u128(u128::from(person))),
                accepted_at_ms: 5,
                action: Action::Allocate(Allocation::new(&shares).unwrap()),
            };
            let (key, value) = (record.person, encode_record(&record));
            let record = Record { offset: Offset(person), key: key.as_bytes(), value: &value };
            state.fold(record, FoldMode::Live).unwrap();
        }
        let bound = state.changed_bytes();
        let (_, totals) = &state.take_changed()[0];
        let varint_bytes = |count: &u64| (u64::BITS - (count | 1).leading_zeros()).div_ceil(7);
        let counts = totals.categories.iter().flat_map(|category| category.people_by_percent.iter());
        let stored = 8 * categories + counts.map(|count| varint_bytes(count) as usize).sum::<usize>();
        prop_assert!(stored <= bound, "{stored} bytes, bound {bound}");
        prop_assert_eq!(state.changed_bytes(), 0);
    }
}

/// Folds a withdrawal, whose id a client has chosen or not.
fn fold_withdrawal(state: &mut PartitionState, offset: u64, id: u128, generated: bool) {
    let withdrawal = Submission {
        budget: BudgetId::parse("taxes").unwrap(),
        person: person_key(1),
        id: SubmissionId(Uuid::from_u128(id)),
        accepted_at_ms: 5,
        action: Action::Withdraw,
    };
    let mut encoder = RecordEncoder::default();
    let value = match generated {
        true => encoder.encode_with_generated_id(&withdrawal),
        false => encoder.encode(&withdrawal),
    };
    let key = person_key(1);
    let record = Record { offset: Offset(offset), key: key.as_bytes(), value: &value };
    assert_eq!(state.fold(record, FoldMode::Live), Ok(FoldOutcome::Applied));
}

#[test]
fn a_withdrawal_of_nobody_leaves_no_row_unless_its_id_may_be_repeated() {
    let mut state = empty();
    fold_withdrawal(&mut state, 0, 1, true);
    assert_eq!((state.person_count(), take_all_rows(&mut state)), (0, vec![]));
    // Readers who wait for its receipt see that it is counted.
    let totals = only_totals(&state).unwrap();
    assert_eq!((totals.people, totals.position), (0, Position(1)));

    fold_withdrawal(&mut state, 1, 2, false);
    let rows = take_all_rows(&mut state);
    assert_eq!((rows.len(), rows[0].basis_points.len()), (1, 0));
    let repeated = TestSubmission { person: 1, id: 3, shares: Some([10_000, 0, 0]) };
    fold_all(&mut state, &[repeated.clone(), repeated.clone(), repeated], 2, FoldMode::Live);
    assert_eq!(only_totals(&state).unwrap().people, 1);
    // Somebody who counts is withdrawn by any withdrawal.
    fold_withdrawal(&mut state, 3, 4, true);
    let rows = take_all_rows(&mut state);
    assert_eq!((only_totals(&state).unwrap().people, rows.len(), rows[0].offset.0), (0, 1, 3));
}
