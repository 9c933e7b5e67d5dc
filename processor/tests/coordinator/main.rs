//! The coordinator between a log source and the owners: claims, deliveries, releases, readiness and metrics.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod generations;
mod log_reader;
mod lost_store;
mod moving;
mod newer_release;
mod process;
#[path = "../support/running_processor.rs"]
mod running_processor;
mod service;
#[path = "../support/single_log.rs"]
mod single_log;
#[path = "../../../engine/tests/support/mod.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use engine::partition::PartitionLimits;
use process::{EAGER, LAZY, Process, id, identity, until};
use schemas::{Generation, PartitionId, Position};
use storage::log::{LogIdentity, PartitionHandler, Revocation, StartPosition};
use storage::store::{Checkpoint, Checkpoints, Commit, Epoch, PartitionRef, StoredPartition};
use support::log::Log;
use support::store::FaultyStore;

const GENERATION: Generation = Generation(1);
/// The partition of the test log's batches.
const PARTITION: PartitionRef = PartitionRef { generation: GENERATION, partition: PartitionId(0) };
/// Less than the time that a release waits for its final commit.
const WITHOUT_WAITING: Duration = Duration::from_secs(2);

/// Commits to an unclaimed partition as another process.
fn commit_as_rival(store: &FaultyStore, partition: u32, checkpoint: Checkpoint) {
    let commit = Commit { epoch: Epoch(1), from: Position::START, checkpoint, totals: Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        store.claim_for_rival(id(partition)).await;
        store.inner.commit(id(partition), &commit).await.unwrap();
    });
}

#[test]
fn a_partition_whose_claim_times_out_does_not_block_the_others() {
    let process = Process::new(2, LAZY);
    process.store.unresponsive.lock().insert(PartitionId(1));
    let starts = process.assign(&[0, 1], &Log::of(10));
    assert_eq!(starts, [StartPosition::At(Position(0)), StartPosition::Paused]);
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

    // It is claimed in place, once the store responds.
    process.store.unresponsive.lock().clear();
    assert_eq!(process.next_start(1), Position(0));
    assert!(process.readiness().0);
    assert!(!process.coordinator.wants_to_rejoin());
}

#[test]
fn one_unclaimable_partition_is_retried_while_the_others_keep_their_owners_and_are_folded() {
    let (process, log) = (Process::new(3, EAGER), Log::of_first_partition(100, 3));
    process.store.unresponsive.lock().insert(PartitionId(2));
    process.assign(&[0, 1, 2], &log);
    let retries = || {
        let name = "allocator_processor_claim_retries_total";
        process.metric(&format!(r#"{name}{{cause="unavailable",partition="2"}}"#)).unwrap_or(0.0)
    };
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    until("the claim was tried again several times", || retries() > 3.0);
    until("the other partition is folded", || {
        process.coordinator.committed().contains(&(PartitionId(0), Position(100)))
    });
    assert_eq!(process.coordinator.take_starts(), [], "no other partition is given up");
    assert!(!process.coordinator.wants_to_rejoin());
    assert_eq!(process.stored(0).epoch, Epoch(1));
}

#[test]
fn a_partition_without_a_leader_is_started_once_it_has_one_and_the_others_at_once() {
    let (process, log) = (Process::new(2, EAGER), Log::of_first_partition(100, 2));
    process.bounds.set(0, log.bounds());
    let starts = process.assign_without_bounds(&[0, 1]);
    assert_eq!(starts, [StartPosition::At(Position(0)), StartPosition::Paused]);
    let (ready, why) = process.readiness();
    let reason = "partition 1: not claimed yet: the bounds of its log are unknown";
    assert!(!ready && why.contains(reason) && !why.contains("partition 0"), "{why}");

    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    until("the other partition is folded", || {
        process.coordinator.committed() == [(PartitionId(0), Position(100))]
    });
    process.bounds.set(1, log.bounds());
    assert_eq!(process.next_start(1), Position(0));
    assert!(process.readiness().0);
    assert!(!process.coordinator.wants_to_rejoin());
}

#[test]
fn a_partition_that_loses_a_claim_race_is_claimed_again_after_a_while() {
    let process = Process::new(2, LAZY);
    process.assign(&[0], &Log::of(10));
    process.store.lose_next_claim_race.store(true, Ordering::Relaxed);
    let assigned_at = Instant::now();
    assert_eq!(process.assign(&[1], &Log::of(10)), [StartPosition::Paused]);
    let (ready, why) = process.readiness();
    assert!(!ready && why.contains("partition 1: not claimed yet: another owner"), "{why}");
    assert_eq!(process.next_start(1), Position(0));
    // A member that the group has passed over learns of it first.
    assert!(assigned_at.elapsed() >= Duration::from_secs(1), "{:?}", assigned_at.elapsed());
    assert!(!process.coordinator.wants_to_rejoin());
}

#[test]
fn a_partition_of_another_log_halts_with_a_reason_and_the_other_continues() {
    let store = Arc::new(FaultyStore::default());
    let other = LogIdentity { cluster_id: "another".into(), ..identity() };
    let checkpoint = Checkpoint { identity: Some(other), ..Checkpoint::START };
    commit_as_rival(&store, 0, checkpoint);
    let process = Process::on(store, 2, LAZY);
    let starts = process.assign(&[0, 1], &Log::of(10));
    assert_eq!(starts, [StartPosition::Paused, StartPosition::At(Position(0))]);

    let (ready, why) = process.readiness();
    assert!(!ready && why.contains("partition 0: halted: the checkpoint is of cluster"), "{why}");
    assert!(!why.contains("partition 1"), "{why}");
    let halted = |partition| {
        let name = "allocator_processor_partition_halted";
        process.metric(&format!(r#"{name}{{partition="{partition}"}}"#))
    };
    assert_eq!((halted(0), halted(1)), (Some(1.0), Some(0.0)));
    assert!(!process.coordinator.wants_to_rejoin());
    process.revoke(&[0, 1], Revocation::Released);
    assert!(process.readiness().0);
    assert_eq!(halted(0), None);
}

#[test]
fn a_log_shorter_than_the_totals_may_recover_before_its_partition_halts() {
    let (process, log) = (Process::new(1, EAGER), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    process.wait_until_folded(100);
    process.revoke(&[0], Revocation::Released);
    assert_eq!(process.assign(&[0], &Log::of(60)), [StartPosition::Paused]);
    let (ready, why) = process.readiness();
    let short = "partition 0: not claimed yet: the log ends at 60, before the totals at 100";
    assert!(!ready && why.contains(short), "{why}");
    process.bounds.set(0, log.bounds());
    process.next_start(0);
    assert!(process.readiness().0);
    assert!(!process.coordinator.wants_to_rejoin());
}

#[test]
fn a_log_that_stays_shorter_than_the_totals_halts_its_partition_alone() {
    let (process, log) = (Process::new(2, EAGER), Log::of_first_partition(100, 2));
    process.assign(&[0, 1], &log);
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    process.wait_until_folded(100);
    process.bounds.set(0, Log::of(60).bounds());
    process.coordinator.read_failed(PartitionId(0), "the offset is out of range");
    let reason = "partition 0: halted: the log holds 0..60, but";
    until("the partition is halted", || process.readiness().1.contains(reason));
    assert_eq!(process.coordinator.take_starts(), [(PartitionId(0), StartPosition::Paused)]);
    assert!(!process.readiness().1.contains("partition 1"));
    assert!(!process.coordinator.wants_to_rejoin());
}

#[test]
fn a_partition_that_could_not_be_read_further_is_started_again_from_its_last_commit() {
    let (process, log) = (Process::new(2, LAZY), Log::of_first_partition(100, 2));
    process.assign(&[0, 1], &log);
    process.coordinator.deliver(log.batch(0, 60), Duration::ZERO).unwrap();
    process.wait_until_folded(60);
    process.coordinator.read_failed(PartitionId(0), "the offset is out of range");
    // What the source has read already is not for the next owner, which would take it for a gap.
    until("the next owner has the partition", || process.epoch(0) == Some(Epoch(2)));
    until("the next owner runs", || process.committed_position(0) == Some(Position(60)));
    process.coordinator.deliver(log.batch(70, 100), Duration::ZERO).unwrap();
    let Position(from) = process.next_start(0);
    process.coordinator.deliver(log.batch(from, 100), Duration::ZERO).unwrap();
    process.wait_until_folded(100);
    process.revoke(&[0], Revocation::Released);
    assert_eq!(process.stored(0).checkpoint.position, Position(100));
    let gaps = r#"allocator_processor_claim_retries_total{cause="log_gap",partition="0"}"#;
    assert_eq!(process.metric(gaps), None);
    assert!(!process.coordinator.wants_to_rejoin());
}

#[test]
fn records_before_a_gap_that_halts_the_partition_are_still_committed() {
    let (process, log) = (Process::new(1, EAGER), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.deliver(log.batch(0, 60), Duration::ZERO).unwrap();
    process.coordinator.halt(PartitionId(0), "the log has no record at 60".into());
    let (ready, why) = process.readiness();
    assert!(!ready && why.contains("partition 0: halted: the log has no record at 60"), "{why}");
    let halted = process.metric(r#"allocator_processor_partition_halted{partition="0"}"#);
    assert_eq!(halted, Some(1.0));
    let committed = || process.coordinator.committed();
    until("the records are committed", || committed() == [(PartitionId(0), Position(60))]);
}

/// A process that has folded 60 records of partition 0 and was then delivered records after a gap. Returns where it
/// reads again from.
fn process_after_a_gap(log: &Log) -> (Process, u64) {
    let process = Process::new(1, EAGER);
    process.assign(&[0], log);
    process.coordinator.deliver(log.batch(0, 60), Duration::ZERO).unwrap();
    process.coordinator.deliver(log.batch(70, 100), Duration::ZERO).unwrap();
    let Position(from) = process.next_start(0);
    (process, from)
}

#[test]
fn records_that_the_log_skipped_once_are_read_again_from_the_checkpoint() {
    let log = Log::of(100);
    let (process, from) = process_after_a_gap(&log);
    process.coordinator.deliver(log.batch(from, 100), Duration::ZERO).unwrap();
    until("the records are committed", || process.coordinator.committed()[0].1 == Position(100));
    process.revoke(&[0], Revocation::Released);
    let (_, totals) = &process.stored(0).totals[0];
    assert_eq!(totals.people, log.expected().0);
}

#[test]
fn records_that_the_log_skips_again_halt_the_partition() {
    let log = Log::of(100);
    let (process, from) = process_after_a_gap(&log);
    process.coordinator.deliver(log.batch(from, 60), Duration::ZERO).unwrap();
    process.coordinator.deliver(log.batch(70, 100), Duration::ZERO).unwrap();
    let reason = "partition 0: halted: the log has no records 60..70";
    until("the partition is halted", || process.readiness().1.contains(reason));
    assert!(!process.coordinator.wants_to_rejoin());
}

#[test]
fn a_revocation_commits_and_publishes_every_folded_record() {
    let (process, log) = (Process::new(1, LAZY), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    process.wait_until_folded(100);
    assert_eq!(process.stored(0).checkpoint.position, Position(0));
    process.revoke(&[0], Revocation::Released);
    let stored = process.stored(0);
    assert_eq!(stored.checkpoint.position, Position(100));
    let (_, totals) = &stored.totals[0];
    let sums: Vec<u64> = totals.categories.iter().map(|category| category.basis_points).collect();
    assert_eq!((totals.people, sums), log.expected());
    assert_eq!(process.published("b"), Some(vec![Position(100)]));
    assert_eq!(process.coordinator.committed(), []);
}

#[test]
fn a_lost_partition_is_released_without_waiting_for_the_store() {
    let (process, log) = (Process::new(1, LAZY), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    process.wait_until_folded(100);
    process.store.commits.close();
    let revoked_at = Instant::now();
    process.revoke(&[0], Revocation::Lost);
    assert!(revoked_at.elapsed() < WITHOUT_WAITING, "{:?}", revoked_at.elapsed());
    assert_eq!(process.stored(0).checkpoint.position, Position(0));
}

#[test]
fn committed_totals_are_published_before_people_are_restored() {
    let (store, log) = (Arc::<FaultyStore>::default(), Log::of(100));
    let former = Process::on(Arc::clone(&store), 1, EAGER);
    former.assign(&[0], &log);
    former.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    former.wait_until_folded(100);
    former.revoke(&[0], Revocation::Released);
    // The checkpoint after a round of person rows.
    let StoredPartition { epoch, checkpoint, .. } = former.stored(0);
    let checkpoint = Checkpoint { rows_position: Position(50), ..checkpoint };
    let commit = Commit { epoch, from: Position(100), checkpoint, totals: Vec::new() };
    former.block_on(store.inner.commit(id(0), &commit)).unwrap();

    store.people.close();
    let process = Process::on(store, 1, EAGER);
    process.begin_assigning(&[0], &log);
    until("the totals are published", || process.published("b") == Some(vec![Position(100)]));
    process.store.people.open();
    assert_eq!(process.next_start(0), Position(50));
}

#[test]
fn position_and_lag_metrics_follow_the_last_commit_without_further_watermarks() {
    let (process, log) = (Process::new(1, EAGER), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.high_watermark(PartitionId(0), Position(100));
    let metric =
        |name: &str| process.metric(&format!(r#"allocator_processor_{name}{{partition="0"}}"#));
    assert_eq!((metric("position"), metric("lag_records")), (Some(0.0), Some(100.0)));
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    until("the position metric is updated", || metric("position") == Some(100.0));
    until("the lag metric is updated", || metric("lag_records") == Some(0.0));
}

#[test]
fn records_of_a_partition_without_an_owner_are_dropped() {
    let (process, log) = (Process::new(1, EAGER), Log::of(10));
    assert!(process.coordinator.deliver(log.batch(0, 10), Duration::ZERO).is_ok());
    process.assign(&[0], &log);
    let mut other = Log::of(20);
    other.0.rotate_left(5);
    process.coordinator.deliver(log.batch(0, 10), Duration::ZERO).unwrap();
    until("the records are committed", || process.coordinator.committed()[0].1 == Position(10));
    process.revoke(&[0], Revocation::Released);

    // A recreated log: its owner halts, and later records are dropped.
    process.assign(&[0], &other);
    process.coordinator.deliver(other.batch(0, 10), Duration::ZERO).unwrap();
    until("the partition is halted", || process.readiness().1.contains("partition 0: halted"));
    for _ in 0..100 {
        assert!(process.coordinator.deliver(other.batch(10, 20), Duration::ZERO).is_ok());
    }
    assert_eq!(process.stored(0).checkpoint.position, Position(10));
}

#[test]
fn a_batch_is_returned_while_the_owners_queue_is_full_and_accepted_afterwards() {
    let log = Log::of(1_000);
    let process = Process::new(1, PartitionLimits { max_uncommitted: 1, ..EAGER });
    process.assign(&[0], &log);
    process.store.commits.close();
    process.coordinator.deliver(log.batch(0, 1), Duration::ZERO).unwrap();
    process.wait_until_folded(1);
    let mut next = 1;
    let returned = loop {
        match process.coordinator.deliver(log.batch(next, next + 1), Duration::ZERO) {
            Ok(()) => next += 1,
            Err(batch) => break batch,
        }
        assert!(next < 100, "the queue is not bounded");
    };
    assert_eq!(returned.end(), Some(Position(next + 1)));
    let timeout = Duration::from_millis(20);
    let returned = process.coordinator.deliver(returned, timeout).unwrap_err();
    process.store.commits.open();
    process.coordinator.deliver(returned, Duration::from_secs(20)).unwrap();
    let committed = || process.coordinator.committed();
    until("every record is committed", || committed() == [(PartitionId(0), Position(next + 1))]);
}

#[test]
fn a_fenced_partition_is_claimed_again_and_the_others_keep_their_owners() {
    let (process, log) = (Process::new(2, EAGER), Log::of_first_partition(100, 2));
    process.assign(&[0, 1], &log);
    process.block_on(process.store.claim_for_rival(id(0)));
    process.coordinator.deliver(log.batch(0, 50), Duration::ZERO).unwrap();
    let fenced = || process.metric("allocator_processor_fenced_total") == Some(1.0);
    until("the owner is fenced", fenced);
    let Position(from) = process.next_start(0);
    process.coordinator.deliver(log.batch(from, 100), Duration::ZERO).unwrap();
    until("the records are committed", || {
        process.coordinator.committed()
            == [(PartitionId(0), Position(100)), (PartitionId(1), Position(0))]
    });
    assert_eq!((process.stored(0).epoch, process.stored(1).epoch), (Epoch(3), Epoch(1)));
    assert!(!process.coordinator.wants_to_rejoin());
}

#[test]
fn a_source_that_ends_without_revoking_leaves_no_owner_behind() {
    let (process, log) = (Process::new(1, LAZY), Log::of(100));
    process.assign(&[0], &log);
    process.coordinator.deliver(log.batch(0, 100), Duration::ZERO).unwrap();
    process.wait_until_folded(100);
    process.coordinator.source_ended();
    assert_eq!(process.coordinator.committed(), []);
    assert_eq!(process.stored(0).checkpoint.position, Position(100));
    assert!(!process.coordinator.wants_to_rejoin());
}
