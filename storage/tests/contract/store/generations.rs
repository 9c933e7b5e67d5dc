//! The contract of `Generations`.

use schemas::{
    Generation, GenerationRegistry, LogRef, PartitionReport, Position, TotalsComparison, buckets,
};
use storage::store::{CasOutcome, Epoch};

use super::Fixture;
use crate::contract::build::{count, person, row};

fn beginning(topic: &str, partitions: u64) -> GenerationRegistry {
    GenerationRegistry::first(LogRef::first(topic, count(partitions)))
}

pub async fn one_of_two_concurrent_registry_changes_is_applied(store: &Fixture) {
    let store = &store.store;
    assert_eq!(store.registry().await, Ok(None));
    let (one, two) = (beginning("one", 12), beginning("two", 24));
    let (first, second) = tokio::join!(store.change_registry(&one), store.change_registry(&two));
    let begun = store.registry().await.unwrap().unwrap();
    let made = if begun == one { (first, second) } else { (second, first) };
    assert!(begun == one || begun == two, "{begun:?}");
    assert_eq!(made, (Ok(CasOutcome::Applied), Ok(CasOutcome::Refused)));

    let next = |revision, term| GenerationRegistry { revision, term, ..begun.clone() };
    assert_eq!(
        store.change_registry(&next(3, 7)).await,
        Ok(CasOutcome::Refused),
        "revisions must be consecutive"
    );
    let (one, two) = (next(2, 2), next(2, 3));
    let (first, second) = tokio::join!(store.change_registry(&one), store.change_registry(&two));
    let outcomes = [first.unwrap(), second.unwrap()];
    assert!(outcomes.contains(&CasOutcome::Applied) && outcomes.contains(&CasOutcome::Refused));
    let term = if outcomes[0] == CasOutcome::Applied { 2 } else { 3 };
    assert_eq!(store.registry().await, Ok(Some(next(2, term))));
}

pub async fn the_latest_report_of_each_partition_is_returned(store: &Fixture) {
    let partition = store.partition(1);
    let report = |position, differences: &[&str]| PartitionReport {
        rows_position: Position(2),
        position: Position(position),
        log_end: Position(9),
        comparison: Some(TotalsComparison {
            with: Generation(1),
            position: Position(position),
            differences: differences.iter().map(|line| (*line).to_owned()).collect(),
        }),
        stall_reason: None,
        reported_at_ms: 1_795_212_000_123,
    };
    let reports = async || store.store.reports(partition.generation, count(3)).await.unwrap();
    assert_eq!(reports().await, [None, None, None]);
    for report in [report(3, &["\"health\": 1 instead of 2"]), report(4, &[])] {
        store.store.write_report(partition, &report).await.unwrap();
        assert_eq!(reports().await, [None, Some(report), None]);
    }
}

pub async fn deleted_person_rows_stay_deleted_and_the_checkpoint_is_kept(store: &Fixture) {
    let (partition, other) = (store.partition(0), store.partition(1));
    store.claim(0, None, 1).await;
    let rows: Vec<_> = (0..300).map(|number| row(person(number, number as u8), 5)).collect();
    for partition in [partition, other] {
        store.store.write_people(partition, &rows).await.unwrap();
    }
    store.store.delete_people(partition).await.unwrap();
    // A late write of an owner that has not noticed the deletion.
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
