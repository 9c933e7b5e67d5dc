//! The contract of `Generations`.

use schemas::{
    BudgetId, Generation, GenerationRegistry, LogRef, PartitionReport, Position, TotalsComparison,
    buckets,
};
use storage::store::{CasOutcome, Epoch, KnownPartition, StoreError};

use super::{Fixture, commit};
use crate::contract::build::{count, new_budget_id, person, row, totals};

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

/// Commits totals of these budgets in a partition at epoch 1, and writes 300 person rows.
async fn fill(store: &Fixture, number: u32, budgets: &[BudgetId]) {
    store.claim(number, None, 1).await;
    let totals: Vec<_> = budgets.iter().map(|budget| (budget, totals(5, 5, 2))).collect();
    assert_eq!(store.commit(number, &commit(1, 0, 5, &totals)).await, CasOutcome::Applied);
    let rows: Vec<_> = (0..300).map(|number| row(person(number, number as u8), 4)).collect();
    store.store.write_people(store.partition(number), &rows).await.unwrap();
}

async fn count_people(store: &Fixture, number: u32) -> usize {
    let mut found = 0;
    for bucket in buckets() {
        let count = &mut |_| found += 1;
        store.store.read_people(store.partition(number), bucket, count).await.unwrap();
    }
    found
}

/// Asserts that a partition has no data, and that no late owner or outdated process can bring it back.
async fn assert_gone(store: &Fixture, number: u32, budget: &BudgetId) {
    let partition = store.partition(number);
    let late = commit(1, 5, 9, &[(budget, totals(9, 9, 2))]);
    assert_eq!(store.commit(number, &late).await, CasOutcome::Refused);
    store.store.write_people(partition, &[row(person(7, 7), 1_000_000_000_000)]).await.unwrap();
    for expected in [None, Some(Epoch(1))] {
        let claimed = store.store.claim(partition, expected, Epoch(2), "late").await;
        assert!(matches!(claimed, Err(StoreError::Corrupt(_))), "{claimed:?}");
    }
    assert_eq!(store.read(number).await, None);
    assert_eq!(store.store.rows_position(partition).await, Ok(None));
    assert_eq!(store.store.epoch(partition).await, Ok(None));
    let summary = store.summaries(count(u64::from(number) + 1), &[budget, &new_budget_id()]).await;
    assert!(summary.iter().all(|summary| summary[number as usize].is_none()), "{summary:?}");
    assert_eq!(count_people(store, number).await, 0);
}

pub async fn a_retired_partition_has_no_data_and_nobody_can_bring_it_back(store: &Fixture) {
    // More than one batch of deletions.
    let budgets: Vec<_> = (0..230).map(|_| new_budget_id()).collect();
    fill(store, 0, &budgets).await;
    fill(store, 1, &budgets[..1]).await;
    for _ in 0..2 {
        store.store.retire_partition(store.partition(0)).await.unwrap();
        for budget in [&budgets[0], &budgets[229]] {
            assert_gone(store, 0, budget).await;
        }
    }
    assert_eq!(store.read(1).await.unwrap().totals, [(budgets[0].clone(), totals(5, 5, 2))]);
    assert_eq!(count_people(store, 1).await, 300);
}

pub async fn a_partition_can_be_retired_before_its_first_claim(store: &Fixture) {
    store.store.retire_partition(store.partition(2)).await.unwrap();
    assert_gone(store, 2, &new_budget_id()).await;
}

pub async fn a_partition_is_retired_under_the_commits_of_its_owner(store: &Fixture) {
    let budget = new_budget_id();
    store.claim(0, None, 1).await;
    let commits = async {
        for position in 0.. {
            let totals = [(&budget, totals(position + 1, 1, 2))];
            let commit = commit(1, position, position + 1, &totals);
            let outcome = store.store.commit(store.partition(0), &commit).await;
            if outcome == Ok(CasOutcome::Refused) {
                return;
            }
            // The store in memory never waits.
            tokio::task::yield_now().await;
        }
    };
    let retire = async {
        // An unknown outcome is settled by repeating the call.
        while store.store.retire_partition(store.partition(0)).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(commits, retire);
    assert_gone(store, 0, &budget).await;
}

pub async fn claimed_and_retired_partitions_are_listed(store: &Fixture) {
    fill(store, 3, &[new_budget_id()]).await;
    store.claim(5, None, 1).await;
    store.store.retire_partition(store.partition(5)).await.unwrap();
    store.store.retire_partition(store.partition(6)).await.unwrap();
    let mut known = store.store.known_partitions().await.unwrap();
    known.retain(|known| known.id.generation == store.generation);
    known.sort();
    let expected = [(3, false), (5, true), (6, true)]
        .map(|(number, is_retired)| KnownPartition { id: store.partition(number), is_retired });
    assert_eq!(known, expected);
}
