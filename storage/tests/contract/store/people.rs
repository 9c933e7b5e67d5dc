//! The contract of `People`.

use std::collections::BTreeMap;

use schemas::{PersonKey, PersonRow, Position};
use storage::store::{Epoch, PartitionRef};

use super::{Fixture, checkpoint, commit};
use crate::contract::build::{new_budget_id, person, row, totals};

pub async fn the_row_with_the_highest_offset_wins_in_any_order_of_writes(store: &Fixture) {
    let orders = [[1, 2, 3], [1, 3, 2], [2, 1, 3], [2, 3, 1], [3, 1, 2], [3, 2, 1]];
    let partition = store.partition(0);
    for (number, order) in (0..).zip(orders) {
        let person = person(number, 5);
        let mut highest = 0;
        for offset in order {
            store.store.write_people(partition, &[row(person, offset)]).await.unwrap();
            highest = highest.max(offset);
            let stored = store.store.person(partition, &person).await.unwrap();
            assert_eq!(stored, Some(row(person, highest)), "{order:?}");
        }
    }
}

pub async fn the_row_with_the_highest_offset_wins_within_one_write(store: &Fixture) {
    let partition = store.partition(0);
    let (one, two) = (person(1, 5), person(2, 5));
    let rows = [row(one, 7), row(two, 9), row(one, 8), row(two, 6)];
    store.store.write_people(partition, &rows).await.unwrap();
    assert_eq!(store.store.person(partition, &one).await, Ok(Some(row(one, 8))));
    assert_eq!(store.store.person(partition, &two).await, Ok(Some(row(two, 9))));
}

pub async fn a_withdrawn_person_has_a_row_without_shares(store: &Fixture) {
    let (partition, person) = (store.partition(0), person(1, 9));
    store.store.write_people(partition, &[row(person, 4)]).await.unwrap();
    let withdrawn = PersonRow { basis_points: Vec::new(), ..row(person, 6) };
    store.store.write_people(partition, std::slice::from_ref(&withdrawn)).await.unwrap();
    assert_eq!(store.store.person(partition, &person).await, Ok(Some(withdrawn.clone())));
    assert_eq!(read_bucket(store, partition, 9).await, BTreeMap::from([(person, withdrawn)]));
}

pub async fn a_bucket_is_read_completely_and_without_other_buckets(store: &Fixture) {
    // Empty, smaller than a page, and a multiple of a page.
    for (partition, rows) in [(0, 0), (1, 1), (2, 5_000), (3, 5_001)] {
        let here = store.partition(partition);
        let mine: Vec<PersonRow> =
            (0..rows).map(|number| row(person(number, 17), number + 1)).collect();
        let neighbours: Vec<PersonRow> =
            (0..100).map(|number| row(person(number, 16 + 2 * (number % 2) as u8), 1)).collect();
        store.store.write_people(here, &mine).await.unwrap();
        store.store.write_people(here, &neighbours).await.unwrap();

        let expected: BTreeMap<_, _> = mine.into_iter().map(|row| (row.person, row)).collect();
        assert_eq!(expected.len() as u64, rows);
        assert!(read_bucket(store, here, 17).await == expected, "{rows} rows");
    }
}

/// Reads the rows of a bucket.
///
/// # Panics
/// When a row is returned twice.
async fn read_bucket(
    store: &Fixture,
    partition: PartitionRef,
    bucket: u8,
) -> BTreeMap<PersonKey, PersonRow> {
    let mut rows = BTreeMap::new();
    let mut collect = |row: PersonRow| assert!(rows.insert(row.person, row).is_none(), "twice");
    store.store.read_people(partition, bucket, &mut collect).await.unwrap();
    rows
}

pub async fn a_person_is_found_in_their_own_partition_only(store: &Fixture) {
    let (person, other) = (person(1, 63), person(2, 63));
    store.store.write_people(store.partition(4), &[row(person, 1)]).await.unwrap();
    let find = async |partition, who| {
        store.store.person(store.partition(partition), who).await.unwrap().is_some()
    };
    assert!(find(4, &person).await);
    assert!(!find(5, &person).await);
    assert!(!find(4, &other).await);
}

pub async fn the_rows_position_is_that_of_the_latest_commit(store: &Fixture) {
    let read = async |partition| store.store.rows_position(store.partition(partition)).await;
    assert_eq!(read(0).await, Ok(None));
    store.claim(0, None, 1).await;
    assert_eq!(read(0).await, Ok(Some(Position::START)));
    // In a partition without budgets as in one with budgets.
    store.commit(0, &commit(1, 0, 6, &[])).await;
    assert_eq!(read(0).await, Ok(Some(checkpoint(6).rows_position)));
    store.commit(0, &commit(1, 6, 9, &[(&new_budget_id(), totals(9, 9, 2))])).await;
    assert_eq!(read(0).await, Ok(Some(checkpoint(9).rows_position)));
    // A rejected commit and a claim do not change it.
    store.commit(0, &commit(1, 6, 12, &[])).await;
    store.claim(0, Some(1), 2).await;
    assert_eq!(read(0).await, Ok(Some(checkpoint(9).rows_position)));
    assert_eq!(read(1).await, Ok(None));
}

pub async fn the_epoch_is_that_of_the_latest_claim(store: &Fixture) {
    let read = async |partition| store.store.epoch(store.partition(partition)).await;
    assert_eq!(read(0).await, Ok(None));
    store.claim(0, None, 1).await;
    assert_eq!(read(0).await, Ok(Some(Epoch(1))));
    // In a partition with budgets, too.
    store.commit(0, &commit(1, 0, 6, &[(&new_budget_id(), totals(6, 6, 2))])).await;
    store.claim(0, Some(1), 2).await;
    store.claim(0, Some(1), 3).await;
    assert_eq!(read(0).await, Ok(Some(Epoch(2))));
    assert_eq!(read(1).await, Ok(None));
}
