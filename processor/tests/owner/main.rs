//! A partition's owner on a store whose answers get lost: whatever happens, the totals are the fold of the log.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod life;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use life::{LIMITS, reach, take_over, take_over_at_pace};
use processor::partition::{Ended, HaltReason, Limits, Storm, StormLimits};
use schemas::{BudgetId, Generation, Offset, PartitionId, PersonRow, Position};
use storage::store::{Checkpoint, PartitionRef, Store};
use support::log::Log;
use support::store::FaultyStore;
use tokio::time::Instant;

const PARTITION: PartitionRef =
    PartitionRef { generation: Generation(1), partition: PartitionId(0) };

/// One owner's life to the log's end; `false` if it found that the store had gone back.
async fn fold_whole_log(store: &Arc<FaultyStore>, log: &Log) -> bool {
    let mut owner = take_over(store, log, "owner again").await;
    let high = log.bounds().high.0;
    owner.feed(log, high).await;
    let progress = Arc::clone(&owner.progress);
    let ended = tokio::select! {
        ended = &mut owner.task => ended.unwrap(),
        () = reach(&progress, high) => owner.release().await,
    };
    match ended {
        Ended::StoreWentBack => false,
        ended => {
            assert_eq!(ended, Ended::Released);
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
    assert!(stored.checkpoint.state_position <= stored.checkpoint.position);
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_are_exact_though_answers_get_lost_and_owners_die_at_any_moment() {
    let log = Log::of(3_000);
    let store = Arc::new(FaultyStore::losing());
    for (number, to) in (500..=3_000).step_by(500).enumerate() {
        let mut owner = take_over(&store, &log, &format!("owner-{number}")).await;
        owner.feed(&log, to).await;
        if number.is_multiple_of(2) {
            // Dies with whatever it was doing.
            owner.task.abort();
            let _ = owner.task.await;
        } else {
            assert_eq!(owner.release().await, Ended::Released);
        }
    }
    let mut last = take_over(&store, &log, "last").await;
    last.feed(&log, 3_000).await;
    last.committed(3_000).await;
    assert_eq!(last.release().await, Ended::Released);
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_former_owner_is_fenced_at_its_next_commit_and_changes_nothing() {
    let log = Log::of(1_000);
    let store = Arc::new(FaultyStore::default());
    let mut zombie = take_over(&store, &log, "zombie").await;
    zombie.feed(&log, 400).await;
    zombie.committed(400).await;
    let mut owner = take_over(&store, &log, "owner").await;
    zombie.feed(&log, 900).await;
    assert_eq!(zombie.task.await.unwrap(), Ended::Fenced);
    owner.feed(&log, 1_000).await;
    owner.committed(1_000).await;
    assert_eq!(owner.release().await, Ended::Released);
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_commits_what_was_folded() {
    let log = Log::of(100);
    let store = Arc::new(FaultyStore::default());
    let hour = Duration::from_secs(3_600);
    let limits = Limits { commit_interval: hour, max_uncommitted: 1_000, ..LIMITS };
    let mut owner = take_over_at_pace(&store, &log, "owner", limits).await;
    owner.feed(&log, 100).await;
    owner.has_taken_all().await;
    assert_eq!(owner.progress.committed(), Position(0));
    assert_eq!(owner.release().await, Ended::Released);
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert_eq!(stored.checkpoint.position, Position(100));
}

#[tokio::test(flavor = "multi_thread")]
async fn once_everyones_row_is_written_nothing_is_left_to_replay() {
    let mut log = Log::of(300);
    let store = Arc::new(FaultyStore::default());
    let mut owner = take_over(&store, &log, "owner").await;
    owner.feed(&log, 300).await;
    // Records that change nobody are not written anywhere.
    let again = log.0[200..].to_vec();
    log.0.extend(again);
    owner.feed(&log, 400).await;
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
        let Checkpoint { position, state_position, .. } = stored.checkpoint;
        if position == Position(400) && state_position == position {
            break;
        }
        assert!(Instant::now() < deadline, "{state_position} of {position}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(owner.release().await, Ended::Released);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recreated_topic_halts_the_partition_before_anything_new_is_folded() {
    let log = Log::of(300);
    let store = Arc::new(FaultyStore::default());
    let mut owner = take_over(&store, &log, "owner").await;
    owner.feed(&log, 300).await;
    owner.committed(300).await;
    owner.release().await;
    let before = store.inner.read_partition(PARTITION).await.unwrap().unwrap();

    let mut other = Log::of(400);
    other.0.rotate_left(7);
    let mut owner = take_over(&store, &other, "next").await;
    owner.feed(&other, 400).await;
    let ended = owner.task.await.unwrap();
    assert!(matches!(ended, Ended::Halted(HaltReason::OtherRecord(Offset(299)))), "{ended:?}");
    let after = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert_eq!((after.checkpoint, after.totals), (before.checkpoint, before.totals));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_records_that_cannot_be_taken_halt_the_partition_and_are_no_dead_letters() {
    let mut log = Log::of(300);
    for (_, value, _) in &mut log.0[200..] {
        *value = b"not one of ours".to_vec();
    }
    let store = Arc::new(FaultyStore::default());
    let hour = Duration::from_secs(3_600);
    let storm = StormLimits { run: 50, percent: 100 };
    let limits = Limits { commit_interval: hour, max_uncommitted: 1_000, storm, ..LIMITS };
    let mut owner = take_over_at_pace(&store, &log, "owner", limits).await;
    owner.feed(&log, 300).await;
    let ended = owner.task.await.unwrap();
    let Ended::Halted(HaltReason::DeadLetters { storm, offset, .. }) = ended else {
        panic!("{ended:?}");
    };
    assert_eq!((storm, offset), (Storm::Run(50), Offset(249)));
    // Nothing is passed over: whoever takes the partition up next meets the same records.
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert!(stored.checkpoint.position <= Position(200), "{}", stored.checkpoint.position);
    assert_eq!(stored.checkpoint.tally.dead_lettered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_loses_an_acknowledged_commit_has_it_folded_again() {
    let log = Log::of(600);
    let store = Arc::new(FaultyStore::default());
    let mut owner = take_over(&store, &log, "owner").await;
    owner.feed(&log, 200).await;
    owner.committed(200).await;
    store.forgets.store(true, Ordering::Relaxed);
    owner.feed(&log, 400).await;
    assert_eq!(owner.task.await.unwrap(), Ended::StoreWentBack);
    // Once more if rows were written of what was believed committed.
    let mut lives = 1;
    while !fold_whole_log(&store, &log).await {
        lives += 1;
        assert!(lives <= 2);
    }
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_ahead_of_the_totals_are_disowned_and_people_replayed_from_the_logs_beginning() {
    let log = Log::of(600);
    let store = Arc::new(FaultyStore::default());
    let mut owner = take_over(&store, &log, "owner").await;
    owner.feed(&log, 300).await;
    owner.committed(300).await;
    owner.state_committed(&store).await;
    assert_eq!(owner.release().await, Ended::Released);

    // As left behind when the commit of 300..400 is lost, and the row that followed it is not.
    let (person, _, shares) = &log.0[350];
    let ahead = PersonRow {
        person: *person,
        budget: BudgetId::parse("b").unwrap(),
        offset: Offset(350),
        basis_points: shares.iter().map(|share| *share as u16).collect(),
        recent: Default::default(),
    };
    store.inner.write_people(PARTITION, &[ahead]).await.unwrap();

    let owner = take_over(&store, &log, "owner again").await;
    assert!(owner.from > 0);
    assert_eq!(owner.task.await.unwrap(), Ended::StoreWentBack);
    assert!(fold_whole_log(&store, &log).await);
    assert_totals(&store, &log).await;
}
