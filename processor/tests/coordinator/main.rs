//! The coordinator between a source and the owners: what it claims, hands over, lets go of and says of each partition.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod generations;
mod lost_store;
mod process;
#[path = "../support/running.rs"]
mod running;
mod service;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use process::{EAGER, LAZY, Process, id, identity, until};
use processor::partition::Limits;
use schemas::{Generation, PartitionId, Position};
use storage::log::{LogIdentity, PartitionHandler, Start};
use storage::store::{Checkpoint, Commit, Epoch, PartitionRef, Store, StoredPartition};
use support::log::Log;
use support::store::FaultyStore;

const GENERATION: Generation = Generation(1);
/// Whose records the log's batches are.
const PARTITION: PartitionRef = PartitionRef { generation: GENERATION, partition: PartitionId(0) };
/// Less than a release waits for its last commit.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Another process commits something to a partition that nobody has claimed yet.
fn commit_before(store: &FaultyStore, partition: u32, checkpoint: Checkpoint) {
    let commit = Commit { epoch: Epoch(1), from: Position::START, checkpoint, totals: Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        store.claim_for_rival(id(partition)).await;
        store.inner.commit(id(partition), &commit).await.unwrap();
    });
}

#[test]
fn a_partition_that_the_store_does_not_let_claim_keeps_no_other_from_beginning() {
    let process = Process::new(2, LAZY);
    process.store.silent.lock().unwrap().insert(PartitionId(1));
    let starts = process.assign(&[0, 1], &Log::of(10));
    assert_eq!(starts, [Start::At(Position(0)), Start::Nowhere]);
    // It is tried again later: until then the others are folded.
    assert!(!process.coordinator.wants_to_rejoin());

    let (ready, why) = process.readiness();
    assert!(!ready && why.contains("partition 1: not claimed yet: the store"), "{why}");
    assert!(!why.contains("partition 0"), "{why}");
    let owned = |partition| {
        process
            .metric(&format!(r#"allocator_processor_partition_owned{{partition="{partition}"}}"#))
    };
    assert_eq!((owned(0), owned(1)), (Some(1.0), Some(0.0)));
    let halted = process.metric(r#"allocator_processor_partition_halted{partition="1"}"#);
    assert_eq!(halted, Some(0.0));

    process.revoke(&[0, 1], false);
    assert!(process.readiness().0);
    process.store.silent.lock().unwrap().clear();
    assert_eq!(process.assign(&[1], &Log::of(10)), [Start::At(Position(0))]);
    assert!(process.readiness().0);
}

#[test]
fn a_process_that_can_claim_nothing_asks_the_group_again_at_once() {
    let process = Process::new(2, LAZY);
    process.store.silent.lock().unwrap().extend([PartitionId(0), PartitionId(1)]);
    assert_eq!(process.assign(&[0, 1], &Log::of(10)), [Start::Nowhere, Start::Nowhere]);
    assert!(process.coordinator.wants_to_rejoin());
}

#[test]
fn who_is_outrun_at_a_claim_asks_the_group_again_at_once() {
    let process = Process::new(2, LAZY);
    process.assign(&[0], &Log::of(10));
    process.store.rival.store(true, Ordering::Relaxed);
    assert_eq!(process.assign(&[1], &Log::of(10)), [Start::Nowhere]);
    assert!(process.coordinator.wants_to_rejoin());
    let (ready, why) = process.readiness();
    assert!(!ready && why.contains("partition 1: not claimed yet: another owner"), "{why}");
}

#[test]
fn a_partition_of_another_log_is_halted_and_named_and_the_other_goes_on() {
    let store = Arc::new(FaultyStore::default());
    let other = LogIdentity { cluster_id: "another".into(), ..identity() };
    let checkpoint = Checkpoint { identity: Some(other), ..Checkpoint::START };
    commit_before(&store, 0, checkpoint);
    let process = Process::on(store, 2, LAZY);
    let starts = process.assign(&[0, 1], &Log::of(10));
    assert_eq!(starts, [Start::Nowhere, Start::At(Position(0))]);

    let (ready, why) = process.readiness();
    assert!(!ready && why.contains("partition 0: halted: the checkpoint is of cluster"), "{why}");
    assert!(!why.contains("partition 1"), "{why}");
    let halted = |partition| {
        let name = "allocator_processor_partition_halted";
        process.metric(&format!(r#"{name}{{partition="{partition}"}}"#))
    };
    assert_eq!((halted(0), halted(1)), (Some(1.0), Some(0.0)));
    assert!(!process.coordinator.wants_to_rejoin());
    process.revoke(&[0, 1], false);
    assert!(process.readiness().0);
    assert_eq!(halted(0), None);
}

#[test]
fn a_log_that_is_too_short_after_a_crash_of_its_broker_may_recover_before_it_halts_its_partition() {
    let (process, log) = (Process::new(1, EAGER), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    process.has_folded(100);
    process.revoke(&[0], false);
    assert_eq!(process.assign(&[0], &Log::of(60)), [Start::Nowhere]);
    let (ready, why) = process.readiness();
    let short = "partition 0: not claimed yet: the log ends at 60, before the totals at 100";
    assert!(!ready && why.contains(short), "{why}");
    assert!(process.coordinator.wants_to_rejoin());
    process.revoke(&[0], false);
    assert!(matches!(process.assign(&[0], &log)[..], [Start::At(_)]));
    assert!(process.readiness().0);
}

#[test]
fn what_came_before_a_gap_that_halts_its_partition_is_committed_all_the_same() {
    let (process, log) = (Process::new(1, EAGER), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.deliver(log.batch(0, 60), Duration::ZERO).unwrap();
    process.coordinator.halt(PartitionId(0), "the log has no record at 60".into());
    let (ready, why) = process.readiness();
    assert!(!ready && why.contains("partition 0: halted: the log has no record at 60"), "{why}");
    let halted = process.metric(r#"allocator_processor_partition_halted{partition="0"}"#);
    assert_eq!(halted, Some(1.0));
    let committed = || process.coordinator.committed();
    until("it is committed", || committed() == [(PartitionId(0), Position(60))]);
}

#[test]
fn a_revoke_commits_what_was_folded_and_readers_are_told() {
    let (process, log) = (Process::new(1, LAZY), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    process.has_folded(100);
    assert_eq!(process.stored(0).checkpoint.position, Position(0));
    process.revoke(&[0], false);
    let stored = process.stored(0);
    assert_eq!(stored.checkpoint.position, Position(100));
    let (_, totals) = &stored.totals[0];
    let sums: Vec<u64> = totals.categories.iter().map(|category| category.basis_points).collect();
    assert_eq!((totals.people, sums), log.expected());
    assert_eq!(process.told("b"), Some(vec![Position(100)]));
    assert_eq!(process.coordinator.committed(), []);
}

#[test]
fn a_lost_partition_is_let_go_of_without_waiting_for_the_store() {
    let (process, log) = (Process::new(1, LAZY), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    process.has_folded(100);
    process.store.commits.close();
    let revoked_at = Instant::now();
    process.revoke(&[0], true);
    assert!(revoked_at.elapsed() < AT_ONCE, "{:?}", revoked_at.elapsed());
    assert_eq!(process.stored(0).checkpoint.position, Position(0));
}

#[test]
fn committed_totals_are_told_before_their_people_are_restored() {
    let (store, log) = (Arc::<FaultyStore>::default(), Log::of(100));
    let former = Process::on(Arc::clone(&store), 1, EAGER);
    former.assign(&[0], &log);
    former.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    former.has_folded(100);
    former.revoke(&[0], false);
    // As a round of people's rows leaves it behind.
    let StoredPartition { epoch, checkpoint, .. } = former.stored(0);
    let checkpoint = Checkpoint { state_position: Position(50), ..checkpoint };
    let commit = Commit { epoch, from: Position(100), checkpoint, totals: Vec::new() };
    former.block_on(store.inner.commit(id(0), &commit)).unwrap();

    store.people.close();
    let process = Process::on(store, 1, EAGER);
    assert_eq!(process.assign(&[0], &log), [Start::At(Position(50))]);
    until("readers are told", || process.told("b") == Some(vec![Position(100)]));
}

#[test]
fn position_and_lag_are_those_of_the_last_commit_though_the_log_says_nothing_more() {
    let (process, log) = (Process::new(1, EAGER), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.high_watermark(PartitionId(0), Position(100));
    let metric =
        |name: &str| process.metric(&format!(r#"allocator_processor_{name}{{partition="0"}}"#));
    assert_eq!((metric("position"), metric("lag_records")), (Some(0.0), Some(100.0)));
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    until("the position is shown", || metric("position") == Some(100.0));
    until("the lag is shown", || metric("lag_records") == Some(0.0));
}

#[test]
fn records_of_a_partition_without_an_owner_are_dropped() {
    let (process, log) = (Process::new(1, EAGER), Log::of(10));
    assert!(process.coordinator.deliver(log.batch(0, 10), Duration::ZERO).is_ok());
    process.assign(&[0], &log);
    let mut other = Log::of(20);
    other.0.rotate_left(5);
    process.coordinator.deliver(log.batch(0, 10), Duration::ZERO).unwrap();
    until("they are committed", || process.coordinator.committed()[0].1 == Position(10));
    process.revoke(&[0], false);

    // Another log with the same name: its owner halts, and nobody takes what comes after.
    process.assign(&[0], &other);
    process.coordinator.deliver(other.batch(0, 10), Duration::ZERO).unwrap();
    until("it is halted", || process.readiness().1.contains("partition 0: halted"));
    for _ in 0..100 {
        assert!(process.coordinator.deliver(other.batch(10, 20), Duration::ZERO).is_ok());
    }
    assert_eq!(process.stored(0).checkpoint.position, Position(10));
}

#[test]
fn an_owner_without_room_gives_the_batch_back_and_takes_it_once_it_has_some() {
    let log = Log::of(1_000);
    let process = Process::new(1, Limits { max_uncommitted: 1, ..EAGER });
    process.assign(&[0], &log);
    process.store.commits.close();
    process.coordinator.deliver(log.batch(0, 1), Duration::ZERO).unwrap();
    process.has_folded(1);
    let mut next = 1;
    let given_back = loop {
        match process.coordinator.deliver(log.batch(next, next + 1), Duration::ZERO) {
            Ok(()) => next += 1,
            Err(batch) => break batch,
        }
        assert!(next < 100, "it takes any number of batches");
    };
    assert_eq!(given_back.end(), Some(Position(next + 1)));
    let patience = Duration::from_millis(20);
    let given_back = process.coordinator.deliver(given_back, patience).unwrap_err();
    process.store.commits.open();
    process.coordinator.deliver(given_back, Duration::from_secs(20)).unwrap();
    let committed = || process.coordinator.committed();
    until("all of it is committed", || committed() == [(PartitionId(0), Position(next + 1))]);
}

#[test]
fn a_fenced_owner_has_the_group_joined_again_and_the_wish_ends_with_the_run() {
    let (process, log) = (Process::new(1, EAGER), Log::of(100));
    process.assign(&[0], &log);
    process.block_on(process.store.claim_for_rival(id(0)));
    process.coordinator.deliver(log.batch(0, 50), Duration::ZERO).unwrap();
    until("it is fenced", || process.coordinator.wants_to_rejoin());
    assert_eq!(process.metric("allocator_processor_fenced_total"), Some(1.0));
    process.coordinator.source_ended();
    assert!(!process.coordinator.wants_to_rejoin());
}

#[test]
fn a_source_that_ends_without_a_word_leaves_no_owner_behind() {
    let (process, log) = (Process::new(1, LAZY), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    process.has_folded(100);
    process.coordinator.source_ended();
    assert_eq!(process.coordinator.committed(), []);
    assert_eq!(process.stored(0).checkpoint.position, Position(100));
    assert!(!process.coordinator.wants_to_rejoin());
}
