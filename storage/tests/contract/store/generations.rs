//! What every store must hold of its generations.

use schemas::{Compared, Generation, LogRef, PartitionReport, Position, Roster, buckets};
use storage::store::{Conditional, Epoch};

use super::Fixture;
use crate::contract::build::{count, person, row};

fn beginning(topic: &str, partitions: u64) -> Roster {
    Roster::first(LogRef::first(topic, count(partitions)))
}

pub async fn of_two_changes_of_the_roster_that_follow_the_same_one_is_made(store: &Fixture) {
    let store = &store.store;
    assert_eq!(store.roster().await, Ok(None));
    let (one, two) = (beginning("one", 12), beginning("two", 24));
    let (first, second) = tokio::join!(store.change_roster(&one), store.change_roster(&two));
    let begun = store.roster().await.unwrap().unwrap();
    let made = if begun == one { (first, second) } else { (second, first) };
    assert!(begun == one || begun == two, "{begun:?}");
    assert_eq!(made, (Ok(Conditional::Applied), Ok(Conditional::Refused)));

    let next = |revision, term| Roster { revision, term, ..begun.clone() };
    assert_eq!(store.change_roster(&next(3, 7)).await, Ok(Conditional::Refused), "one is left out");
    let (one, two) = (next(2, 2), next(2, 3));
    let (first, second) = tokio::join!(store.change_roster(&one), store.change_roster(&two));
    let outcomes = [first.unwrap(), second.unwrap()];
    assert!(outcomes.contains(&Conditional::Applied) && outcomes.contains(&Conditional::Refused));
    let term = if outcomes[0] == Conditional::Applied { 2 } else { 3 };
    assert_eq!(store.roster().await, Ok(Some(next(2, term))));
}

pub async fn the_latest_report_of_each_partition_is_told(store: &Fixture) {
    let partition = store.partition(1);
    let report = |position, differences: &[&str]| PartitionReport {
        rows: Position(2),
        position: Position(position),
        high: Position(9),
        compared: Some(Compared {
            with: Generation(1),
            position: Position(position),
            differences: differences.iter().map(|line| (*line).to_owned()).collect(),
        }),
        trouble: None,
        at_ms: 1_795_212_000_123,
    };
    let reports = async || store.store.reports(partition.generation, count(3)).await.unwrap();
    assert_eq!(reports().await, [None, None, None]);
    for report in [report(3, &["\"health\": 1 instead of 2"]), report(4, &[])] {
        store.store.write_report(partition, &report).await.unwrap();
        assert_eq!(reports().await, [None, Some(report), None]);
    }
}

pub async fn people_who_are_deleted_stay_deleted_and_the_checkpoint_stays(store: &Fixture) {
    let (partition, other) = (store.partition(0), store.partition(1));
    store.claim(0, None, 1).await;
    let rows: Vec<_> = (0..300).map(|number| row(person(number, number as u8), 5)).collect();
    for partition in [partition, other] {
        store.store.write_people(partition, &rows).await.unwrap();
    }
    store.store.delete_people(partition).await.unwrap();
    // Of an owner that does not know it yet.
    store.store.write_people(partition, &[row(person(7, 7), 1_000_000_000_000)]).await.unwrap();
    for (partition, people) in [(partition, 0), (other, 300)] {
        let mut found = 0;
        for bucket in buckets() {
            store.store.read_people(partition, bucket, &mut |_| found += 1).await.unwrap();
        }
        assert_eq!(found, people, "{partition:?}");
    }
    let stored = store.store.read_partition(partition).await.unwrap().unwrap();
    assert_eq!(stored.epoch, Epoch(1));
}
