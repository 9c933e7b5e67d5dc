//! A partition's owner on a store that loses responses and commits: the totals always equal the fold of the log.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod commit_size;
mod damage;
mod people;
#[path = "../support/mod.rs"]
mod support;
mod test_owner;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use engine::partition::{
    DeadLetterLimitExceeded, DeadLetterThresholds, HaltReason, OwnerExit, PartitionLimits,
};
use schemas::{BudgetId, Generation, Offset, PartitionId, PersonRow, Position};
use storage::store::{Checkpoint, Checkpoints, Generations, PartitionRef, People};
use support::log::Log;
use support::store::{Faults, FaultyStore};
use test_owner::{LIMITS, take_over, take_over_with_limits, wait_for_commit};
use tokio::time::Instant;

const PARTITION: PartitionRef =
    PartitionRef { generation: Generation(1), partition: PartitionId(0) };

/// Runs one owner to the log's end. Returns `false` if it found that the store had lost commits or rows.
async fn fold_whole_log(store: &Arc<FaultyStore>, log: &Log) -> bool {
    let mut owner = take_over(store, log, "next owner").await;
    let high = log.bounds().high.0;
    owner.send(log, high).await;
    let progress = Arc::clone(&owner.progress);
    let exit = tokio::select! {
        exit = &mut owner.task => exit.unwrap(),
        () = wait_for_commit(&progress, high) => owner.release().await,
    };
    match exit {
        OwnerExit::CommitsLost | OwnerExit::RowsLost(_) => false,
        exit => {
            assert_eq!(exit, OwnerExit::Released);
            true
        }
    }
}

async fn assert_totals(store: &FaultyStore, log: &Log) {
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    let (_, totals) = &stored.totals[0];
    let sums: Vec<u64> = totals.categories.iter().map(|category| category.basis_points).collect();
    assert_eq!((totals.people, sums), log.expected());
    let tally = stored.checkpoint.tally;
    assert_eq!(stored.checkpoint.position, log.bounds().high);
    assert_eq!(tally.applied + tally.duplicates + tally.dead_lettered, log.0.len() as u64);
    assert!(stored.checkpoint.rows_position <= stored.checkpoint.position);
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_exact_when_responses_are_lost_and_owners_are_aborted_at_any_moment() {
    let log = Log::of(3_000);
    let store = Arc::new(Faults::losing_responses());
    for (number, to) in (500..=3_000).step_by(500).enumerate() {
        let mut owner = take_over(&store, &log, &format!("owner-{number}")).await;
        owner.send(&log, to).await;
        if number.is_multiple_of(2) {
            // Aborted in the middle of whatever it was doing.
            owner.task.abort();
            let _ = owner.task.await;
        } else {
            assert_eq!(owner.release().await, OwnerExit::Released);
        }
    }
    let mut last = take_over(&store, &log, "last").await;
    last.send(&log, 3_000).await;
    last.committed(3_000).await;
    assert_eq!(last.release().await, OwnerExit::Released);
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_owner_is_fenced_at_its_next_commit_and_changes_nothing() {
    let log = Log::of(1_000);
    let store = Arc::new(FaultyStore::default());
    let mut zombie = take_over(&store, &log, "zombie").await;
    zombie.send(&log, 400).await;
    zombie.committed(400).await;
    let mut owner = take_over(&store, &log, "owner").await;
    zombie.send(&log, 900).await;
    assert_eq!(zombie.task.await.unwrap(), OwnerExit::Fenced);
    owner.send(&log, 1_000).await;
    owner.committed(1_000).await;
    assert_eq!(owner.release().await, OwnerExit::Released);
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_commits_every_folded_record() {
    let log = Log::of(100);
    let store = Arc::new(FaultyStore::default());
    let hour = Duration::from_secs(3_600);
    let limits = PartitionLimits { commit_interval: hour, max_uncommitted: 1_000, ..LIMITS };
    let mut owner = take_over_with_limits(&store, &log, "owner", limits).await;
    owner.send(&log, 100).await;
    owner.folded_all().await;
    assert_eq!(owner.progress.committed(), Position(0));
    assert_eq!(owner.release().await, OwnerExit::Released);
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert_eq!(stored.checkpoint.position, Position(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn once_every_person_row_is_written_nothing_is_left_to_replay() {
    let mut log = Log::of(300);
    let store = Arc::new(FaultyStore::default());
    let mut owner = take_over(&store, &log, "owner").await;
    owner.send(&log, 300).await;
    // Duplicates change no person, so no row is written for them.
    let duplicates = log.0[200..].to_vec();
    log.0.extend(duplicates);
    owner.send(&log, 400).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
        let Checkpoint { position, rows_position, .. } = stored.checkpoint;
        if position == Position(400) && rows_position == position {
            break;
        }
        assert!(Instant::now() < deadline, "rows position {rows_position}, position {position}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(owner.release().await, OwnerExit::Released);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_halts_the_partition_before_a_new_record_is_folded() {
    let log = Log::of(300);
    let store = Arc::new(FaultyStore::default());
    let mut owner = take_over(&store, &log, "owner").await;
    owner.send(&log, 300).await;
    owner.committed(300).await;
    owner.release().await;
    let before = store.inner.read_partition(PARTITION).await.unwrap().unwrap();

    let mut other = Log::of(400);
    other.0.rotate_left(7);
    let mut owner = take_over(&store, &other, "next").await;
    owner.send(&other, 400).await;
    let exit = owner.task.await.unwrap();
    assert!(matches!(exit, OwnerExit::Halted(HaltReason::OtherRecord(Offset(299)))), "{exit:?}");
    let after = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert_eq!((after.checkpoint, after.totals), (before.checkpoint, before.totals));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_rejected_records_halt_the_partition_and_are_not_dead_lettered() {
    let mut log = Log::of(300);
    for (_, value, _) in &mut log.0[200..] {
        *value = b"not a submission".to_vec();
    }
    let store = Arc::new(FaultyStore::default());
    let hour = Duration::from_secs(3_600);
    let dead_letters = DeadLetterThresholds { run: 50, percent: 100 };
    let limits =
        PartitionLimits { commit_interval: hour, max_uncommitted: 1_000, dead_letters, ..LIMITS };
    let mut owner = take_over_with_limits(&store, &log, "owner", limits).await;
    owner.send(&log, 300).await;
    let exit = owner.task.await.unwrap();
    let OwnerExit::Halted(HaltReason::TooManyDeadLetters { exceeded, offset, .. }) = exit else {
        panic!("{exit:?}");
    };
    assert_eq!((exceeded, offset), (DeadLetterLimitExceeded::Run(50), Offset(249)));
    // No record is skipped: the next owner reads the same records.
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert!(stored.checkpoint.position <= Position(200), "{}", stored.checkpoint.position);
    assert_eq!(stored.checkpoint.tally.dead_lettered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_a_lost_acknowledged_commit_are_folded_again() {
    let log = Log::of(600);
    let store = Arc::new(FaultyStore::default());
    let mut owner = take_over(&store, &log, "owner").await;
    owner.send(&log, 200).await;
    owner.committed(200).await;
    store.lose_next_commit.store(true, Ordering::Relaxed);
    owner.send(&log, 400).await;
    assert_eq!(owner.task.await.unwrap(), OwnerExit::CommitsLost);
    // A second takeover is needed if person rows of the lost commit were written.
    let mut takeovers = 1;
    while !fold_whole_log(&store, &log).await {
        takeovers += 1;
        assert!(takeovers <= 2);
    }
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_of_a_retired_generation_gives_up_and_reports_no_loss() {
    let log = Log::of(400);
    let store = Arc::new(FaultyStore::default());
    let mut owner = take_over(&store, &log, "owner").await;
    owner.send(&log, 200).await;
    owner.committed(200).await;
    store.inner.retire_partition(PARTITION).await.unwrap();
    owner.send(&log, 400).await;
    assert_eq!(owner.task.await.unwrap(), OwnerExit::Retired);
    assert_eq!(store.inner.read_partition(PARTITION).await, Ok(None));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_ahead_of_the_totals_are_invalidated_and_people_are_replayed_from_the_beginning() {
    let log = Log::of(600);
    let store = Arc::new(FaultyStore::default());
    let mut owner = take_over(&store, &log, "owner").await;
    owner.send(&log, 300).await;
    owner.committed(300).await;
    owner.rows_committed(&store).await;
    assert_eq!(owner.release().await, OwnerExit::Released);

    // The state after the commit of 300..400 is lost but a row written behind it is not.
    let (person, _, shares) = &log.0[350];
    let ahead = PersonRow {
        person: *person,
        budget: BudgetId::parse("b").unwrap(),
        offset: Offset(350),
        basis_points: shares.iter().map(|share| *share as u16).collect(),
        annulled: false,
        recent: Default::default(),
    };
    store.inner.write_people(PARTITION, &[ahead]).await.unwrap();

    let owner = take_over(&store, &log, "next owner").await;
    assert!(owner.from > 0);
    assert_eq!(owner.task.await.unwrap(), OwnerExit::CommitsLost);
    assert!(fold_whole_log(&store, &log).await);
    assert_totals(&store, &log).await;
}
