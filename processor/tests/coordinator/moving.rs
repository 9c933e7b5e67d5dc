//! Partitions that move to another process, or to another generation in the same one.

use std::sync::Arc;
use std::time::Duration;

use engine::partition::{PartitionLimits, claim, prepare_people};
use generations::registry::{begin, switch_active};
use schemas::{Generation, PartitionCount, PartitionId, Position, Term, buckets};
use storage::log::{PartitionHandler, Revocation, StartPosition};
use storage::store::{
    Checkpoint, Checkpoints, Commit, Epoch, Generations, PartitionRef, People, StoredPartition,
};

use crate::process::{EAGER, Process, id, until};
use crate::support::log::Log;
use crate::support::store::FaultyStore;

/// Writes person rows as soon as it can.
const WRITING: PartitionLimits =
    PartitionLimits { rows_interval: Duration::from_millis(1), ..EAGER };

const TAKEOVERS: &str = "allocator_processor_takeovers_total";

fn takeovers(process: &Process, people: &str) -> f64 {
    process.metric(&format!(r#"{TAKEOVERS}{{people="{people}"}}"#)).unwrap_or(0.0)
}

/// A process that has folded and written the first 200 records.
fn process_with_rows(store: &Arc<FaultyStore>) -> Process {
    let process = Process::on(Arc::clone(store), 1, WRITING);
    let log = Log::of(200);
    process.assign(&[0], &log);
    process.coordinator.deliver(log.batch(0, 200), Duration::ZERO).unwrap();
    until("every row is written", || process.stored(0).checkpoint.rows_position == Position(200));
    process
}

fn assert_counts(stored: &StoredPartition, log: &Log) {
    assert_eq!(stored.checkpoint.position, Position(log.0.len() as u64));
    let (_, totals) = &stored.totals[0];
    let sums: Vec<u64> = totals.categories.iter().map(|category| category.basis_points).collect();
    assert_eq!((totals.people, sums), log.expected());
}

#[test]
fn a_moved_partition_is_folded_until_the_next_owner_has_read_the_people() {
    let store = Arc::<FaultyStore>::default();
    let former = process_with_rows(&store);
    store.people.close();
    former.revoke(&[0], Revocation::Moved);
    let next = Process::on(Arc::clone(&store), 1, WRITING);
    next.begin_assigning(&[0], &Log::of(600));

    // The next owner reads, and the former one still counts.
    former.logs.set(Log::of(400));
    until("the former owner has folded", || former.stored(0).checkpoint.position == Position(400));
    assert_eq!(former.epoch(0), Some(Epoch(1)));

    store.people.open();
    let start = next.next_start(0);
    assert_eq!(next.epoch(0), Some(Epoch(2)));
    assert!(start <= Position(200), "what the rows may lack is not replayed: from {start}");
    next.coordinator.deliver(Log::of(600).batch(start.0, 600), Duration::ZERO).unwrap();
    until("the next owner has folded", || next.stored(0).checkpoint.position == Position(600));
    assert_counts(&next.stored(0), &Log::of(600));
    assert_eq!(takeovers(&next, "read"), 1.0);
    former.block_on(former.coordinator.handed_over());
    let claimed = r#"allocator_processor_hand_overs_total{outcome="claimed"}"#;
    assert_eq!(former.metric(claimed), Some(1.0));
    assert_eq!(former.metric("allocator_processor_fenced_total"), Some(0.0));
    assert_eq!(former.metric(r#"allocator_processor_lag_records{partition="0"}"#), None);
}

#[test]
fn a_partition_that_comes_back_while_it_is_moved_is_released_first_and_keeps_its_people() {
    let store = Arc::<FaultyStore>::default();
    let process = process_with_rows(&store);
    process.logs.set(Log::of(300));
    process.revoke(&[0], Revocation::Moved);
    until("it is still folded", || process.stored(0).checkpoint.position == Position(300));
    // Nobody is read again.
    store.people.close();
    process.begin_assigning(&[0], &Log::of(300));
    let start = process.next_start(0);
    assert!(start >= Position(299), "people are replayed from {start}");
    process.coordinator.deliver(Log::of(310).batch(start.0, 310), Duration::ZERO).unwrap();
    until("it is folded", || process.stored(0).checkpoint.position == Position(310));
    assert_counts(&process.stored(0), &Log::of(310));
    assert_eq!(process.epoch(0), Some(Epoch(2)));
    assert_eq!(takeovers(&process, "kept"), 1.0);
    assert_eq!(process.metric("allocator_processor_fenced_total"), Some(0.0));
}

#[test]
fn a_former_owner_that_nobody_waits_for_any_more_takes_nothing_from_the_next_one() {
    const OWNED: &str = r#"allocator_processor_partition_owned{partition="0"}"#;
    let store = Arc::<FaultyStore>::default();
    let process = process_with_rows(&store);
    process.revoke(&[0], Revocation::Moved);
    // Its last commit hangs, and with it the assignment that waits for its release, until that is lost.
    store.commits.close();
    process.logs.set(Log::of(300));
    until("the last commit hangs", || store.commits.blocked() == 1);
    process.begin_assigning(&[0], &Log::of(300));
    process.revoke(&[0], Revocation::Lost);
    process.begin_assigning(&[0], &Log::of(300));
    let start = process.next_start(0);
    store.commits.open();
    process.coordinator.deliver(Log::of(310).batch(start.0, 310), Duration::ZERO).unwrap();
    // The commit of the former owner is in front of that of the next one.
    until("it is folded", || {
        assert_eq!(process.metric(OWNED), Some(1.0), "the former owner has removed the next one");
        process.stored(0).checkpoint.position == Position(310)
    });
    assert_eq!(process.metric(OWNED), Some(1.0), "the former owner has removed the next one");
    assert_counts(&process.stored(0), &Log::of(310));
}

#[test]
fn people_that_do_not_match_are_read_from_their_rows_again_before_those_are_given_up() {
    let (store, other) = (Arc::<FaultyStore>::default(), FaultyStore::default());
    let process = process_with_rows(&store);
    process.revoke(&[0], Revocation::Released);
    let people = process.block_on(async {
        let stored = store.inner.read_partition(id(0)).await.unwrap().unwrap();
        let mut rows = Vec::new();
        for bucket in buckets() {
            store.inner.read_people(id(0), bucket, &mut |row| rows.push(row)).await.unwrap();
        }
        other.inner.write_people(id(0), &rows[1..]).await.unwrap();
        let one = PartitionCount::new(1).unwrap();
        prepare_people(&other.inner, id(0), one, &stored).await.unwrap()
    });
    let stop = tokio_util::sync::CancellationToken::new();
    process.shadow_owners.register(id(0), stop).send(people).ok().unwrap();

    let log = Log::of(260);
    process.begin_assigning(&[0], &log);
    for source in ["shadow", "rows"] {
        let start = process.next_start(0);
        assert!(start >= Position(199), "{source}: people are replayed from {start}");
        process.coordinator.deliver(log.batch(start.0, 260), Duration::ZERO).unwrap();
    }
    until("it is folded", || process.stored(0).checkpoint.position == Position(260));
    assert_counts(&process.stored(0), &log);
    assert_eq!((takeovers(&process, "shadow"), takeovers(&process, "unread")), (1.0, 2.0));
    let invalidated = r#"allocator_processor_rows_invalidated_total{partition="0"}"#;
    assert_eq!(process.metric(invalidated), Some(0.0));
}

#[test]
fn rows_that_are_invalidated_while_they_are_read_are_not_used() {
    let store = Arc::<FaultyStore>::default();
    let former = process_with_rows(&store);
    former.revoke(&[0], Revocation::Released);
    store.people.close();
    let next = Process::on(Arc::clone(&store), 1, WRITING);
    next.begin_assigning(&[0], &Log::of(200));
    until("the totals are read", || next.published("b").is_some());
    // As the former owner does when the rows do not match the totals.
    let StoredPartition { epoch, checkpoint, .. } = former.stored(0);
    let checkpoint = Checkpoint { rows_position: Position::START, ..checkpoint };
    let commit = Commit { epoch, from: checkpoint.position, checkpoint, totals: Vec::new() };
    former.block_on(store.inner.commit(id(0), &commit)).unwrap();
    store.people.open();
    assert_eq!(next.next_start(0), Position::START);
    assert_eq!(takeovers(&next, "read"), 0.0);
}

/// Claims partition 0 of the second generation for a shadow, which has folded 200 records, and returns its people.
fn shadow_partition(process: &Process) -> PartitionRef {
    let id = PartitionRef { generation: Generation(2), partition: PartitionId(0) };
    let stored = process.stored(0);
    process.block_on(async {
        claim(process.store.as_ref(), id, "shadow").await.unwrap();
        let commit = Commit {
            epoch: Epoch(1),
            from: Position::START,
            checkpoint: stored.checkpoint,
            totals: stored.totals,
        };
        process.store.inner.commit(id, &commit).await.unwrap();
    });
    id
}

#[test]
fn a_switch_on_the_same_log_claims_in_place_and_takes_the_people_of_the_shadow() {
    let store = Arc::<FaultyStore>::default();
    let process = process_with_rows(&store);
    let shadow = shadow_partition(&process);
    // The shadow's people are read from rows here, as if it had folded them.
    let rows = process.block_on(async {
        let stored = store.inner.read_partition(id(0)).await.unwrap().unwrap();
        let as_shadow = StoredPartition { epoch: Epoch(1), ..stored };
        let one = PartitionCount::new(1).unwrap();
        prepare_people(&store.inner, id(0), one, &as_shadow).await.unwrap()
    });
    let stop = tokio_util::sync::CancellationToken::new();
    let sender = process.shadow_owners.register(shadow, stop.clone());
    sender.send(rows).ok().unwrap();
    // Nothing is read again.
    store.people.close();

    process.change_registry(|registry| {
        switch_active(&begin(registry, false, 1).unwrap(), Generation(2)).unwrap()
    });
    until("the switch is seen", || process.coordinator.generation_changed());
    assert!(!process.coordinator.wants_to_rejoin(), "the log is the same");
    let start = process.next_start(0);
    assert!(stop.is_cancelled(), "the shadow is not released");
    let term = process.coordinator.active_generation().borrow().term;
    assert_eq!((term.number, term.generation), (Term::FIRST.number + 1, Generation(2)));
    process.coordinator.deliver(Log::of(260).batch(start.0, 260), Duration::ZERO).unwrap();
    let read = || process.block_on(store.inner.read_partition(shadow)).unwrap().unwrap();
    until("the other generation is folded", || read().checkpoint.position == Position(260));
    assert_counts(&read(), &Log::of(260));
    assert_eq!(takeovers(&process, "shadow"), 1.0);
    assert_eq!(process.stored(0).checkpoint.position, Position(200));
}

#[test]
fn a_partition_whose_generation_was_retired_unnoticed_is_given_up_until_the_registry_is_read() {
    let store = Arc::<FaultyStore>::default();
    let process = process_with_rows(&store);
    let shadow = shadow_partition(&process);
    // Another process has switched and retired the generation, and this one has not read the registry since.
    process.block_on(store.inner.retire_partition(id(0))).unwrap();
    process.coordinator.deliver(Log::of(300).batch(200, 300), Duration::ZERO).unwrap();
    let retries = |cause: &str| {
        let labels = format!(r#"{{cause="{cause}",partition="0"}}"#);
        process.metric(&format!("allocator_processor_claim_retries_total{labels}"))
    };
    until("the partition is given up", || retries("retired") == Some(1.0));
    let why = process.readiness().1;
    assert!(why.contains("the generation was retired"), "{why}");
    assert_eq!((retries("commits_lost"), retries("rows_lost")), (None, None));
    assert_ne!(process.metric(r#"allocator_processor_partition_halted{partition="0"}"#), Some(1.0));

    process.change_registry(|registry| {
        switch_active(&begin(registry, false, 1).unwrap(), Generation(2)).unwrap()
    });
    until("the switch is seen", || process.coordinator.generation_changed());
    process.block_on(process.coordinator.switch_in_place());
    let read = || process.block_on(store.inner.read_partition(shadow)).unwrap().unwrap();
    until("the active generation is claimed", || read().epoch > Epoch(1));
}

#[test]
fn a_switch_to_another_log_during_a_switch_on_the_same_one_claims_nothing() {
    let process = process_with_rows(&Arc::default());
    process.change_registry(|registry| {
        let mut next = switch_active(&begin(registry, false, 1).unwrap(), Generation(2)).unwrap();
        next.active.log.topic = "submissions-2".into();
        next
    });
    until("the switch is seen", || process.coordinator.generation_changed());
    process.block_on(process.coordinator.switch_in_place());
    assert!(process.coordinator.generation_changed(), "the group is not left");
    let active = process.coordinator.active_generation().borrow().clone();
    assert_eq!((active.term, active.log.topic.as_str()), (Term::FIRST, "submissions"));
    assert_eq!(process.coordinator.committed(), []);
    assert_eq!(process.stored(0).checkpoint.position, Position(200));
    process.coordinator.adopt_active_generation();
    assert_eq!(process.coordinator.active_generation().borrow().log.topic, "submissions-2");
}

#[test]
fn people_of_a_shadow_that_was_fenced_are_read_again() {
    let store = Arc::<FaultyStore>::default();
    let process = process_with_rows(&store);
    process.revoke(&[0], Revocation::Released);
    let people = process.block_on(async {
        let stored = store.inner.read_partition(id(0)).await.unwrap().unwrap();
        let one = PartitionCount::new(1).unwrap();
        prepare_people(&store.inner, id(0), one, &stored).await.unwrap()
    });
    let stop = tokio_util::sync::CancellationToken::new();
    process.shadow_owners.register(id(0), stop).send(people).ok().unwrap();
    process.block_on(store.claim_for_rival(id(0)));
    let log = Log::of(200);
    assert!(matches!(process.assign(&[0], &log)[..], [StartPosition::At(_)]));
    assert_eq!((takeovers(&process, "shadow"), takeovers(&process, "unread")), (0.0, 2.0));
}
