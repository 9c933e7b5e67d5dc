//! People that are in memory before the claim: read while the former owner folds on, or kept by it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::partition::{PreparedPeopleFault, ResumePoint, claim, prepare_people};
use schemas::{PartitionCount, Position};
use storage::store::{Checkpoint, Checkpoints, StoredPartition};

use crate::support::log::Log;
use crate::support::store::FaultyStore;
use crate::test_owner::{LIMITS, take_over, take_over_with_limits, take_over_with_people};
use crate::{PARTITION, assert_totals, fold_whole_log};

const ONE: fn() -> PartitionCount = || PartitionCount::new(1).unwrap();

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_folded_while_the_rows_are_read_are_replayed() {
    let (store, log) = (Arc::new(FaultyStore::default()), Log::of(600));
    let mut former = take_over(&store, &log, "former").await;
    former.send(&log, 200).await;
    former.rows_committed_up_to(&store, 200).await;
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    let people = prepare_people(&store.inner, PARTITION, ONE(), &stored).await.unwrap();

    former.send(&log, 400).await;
    former.rows_committed_up_to(&store, 400).await;
    let mut next = take_over_with_people(&store, &log, "next", people).await;
    assert!(next.from <= 200);
    next.send(&log, 500).await;
    next.rows_committed_up_to(&store, 500).await;
    next.release_and_keep().await.unwrap();
    // New records, before which the rows are compared with the totals.
    assert!(fold_whole_log(&store, &log).await, "the rows do not match the totals");
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_an_owner_has_not_written_are_written_by_the_next_one_that_keeps_its_people() {
    let (store, log) = (Arc::new(FaultyStore::default()), Log::of(600));
    let hour = Duration::from_secs(3_600);
    let lazy =
        engine::partition::PartitionLimits { rows_interval: hour, max_replay: 1_000, ..LIMITS };
    let mut former = take_over_with_limits(&store, &log, "former", lazy).await;
    former.send(&log, 300).await;
    former.committed(300).await;
    let people = former.release_and_keep().await.unwrap();

    store.people.close();
    let mut next = take_over_with_people(&store, &log, "next", people).await;
    assert!(next.from >= 299, "people are replayed from {}", next.from);
    next.send(&log, 310).await;
    next.rows_committed_up_to(&store, 310).await;
    next.release_and_keep().await.unwrap();
    store.people.open();
    assert!(fold_whole_log(&store, &log).await, "the rows do not match the totals");
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_of_rows_that_a_release_interrupts_is_repeated() {
    let (store, log) = (Arc::new(FaultyStore::default()), Log::of(120));
    let mut owner = take_over(&store, &log, "owner").await;
    store.row_writes.close();
    // Everybody submits once: no later record changes those in the interrupted round.
    owner.send(&log, 90).await;
    owner.committed(90).await;
    while store.begun_row_writes.load(Ordering::Relaxed) == 0 {
        tokio::task::yield_now().await;
    }
    let people = owner.release_and_keep().await.unwrap();
    store.row_writes.open();
    let mut next = take_over_with_people(&store, &log, "next", people).await;
    next.send(&log, 95).await;
    next.rows_committed_up_to(&store, 95).await;
    next.release_and_keep().await.unwrap();
    assert!(fold_whole_log(&store, &log).await, "the rows do not match the totals");
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_stopped_while_it_replays_keeps_nobody() {
    let (store, log) = (Arc::new(FaultyStore::default()), Log::of(600));
    let mut owner = take_over(&store, &log, "owner").await;
    owner.send(&log, 300).await;
    owner.rows_committed_up_to(&store, 300).await;
    owner.release_and_keep().await.unwrap();
    let next = take_over(&store, &log, "next").await;
    assert!(next.release_and_keep().await.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_used_only_under_a_claim_that_follows_directly_and_contains_them() {
    let (store, log) = (Arc::new(FaultyStore::default()), Log::of(600));
    let mut owner = take_over(&store, &log, "owner").await;
    owner.send(&log, 300).await;
    owner.rows_committed_up_to(&store, 300).await;
    owner.release_and_keep().await.unwrap();
    let before = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    let claimed = claim(&store.inner, PARTITION, "next").await.unwrap();
    let resume = ResumePoint { log_start: Position(0), from: Position(299), expected_record: None };
    let fault = async |claimed: &StoredPartition, resume| {
        let people = prepare_people(&store.inner, PARTITION, ONE(), &before).await.unwrap();
        people.under_claim(claimed, resume).err()
    };
    let with = |checkpoint| StoredPartition { checkpoint, ..claimed.clone() };
    let checkpoint = claimed.checkpoint.clone();
    assert_eq!(fault(&claimed, resume).await, None);

    let later = claim(&store.inner, PARTITION, "later").await.unwrap();
    assert_eq!(fault(&later, resume).await, Some(PreparedPeopleFault::OtherOwner));
    assert_eq!(fault(&before, resume).await, Some(PreparedPeopleFault::OtherOwner));
    let invalid = with(Checkpoint { rows_position: Position(0), ..checkpoint.clone() });
    assert_eq!(fault(&invalid, resume).await, Some(PreparedPeopleFault::RowsInvalidated));
    let went_back = with(Checkpoint { position: Position(299), ..checkpoint });
    assert_eq!(fault(&went_back, resume).await, Some(PreparedPeopleFault::AheadOfTotals));
    let cut = ResumePoint { log_start: Position(301), ..resume };
    assert_eq!(fault(&claimed, cut).await, Some(PreparedPeopleFault::NotInLog));
    let without_totals = StoredPartition { totals: Vec::new(), ..claimed.clone() };
    assert_eq!(fault(&without_totals, resume).await, Some(PreparedPeopleFault::OtherBudgets));
}
