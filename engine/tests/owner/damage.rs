//! A store or a log that loses what it had acknowledged: the partition heals from the log, or halts with the reason.

use std::sync::Arc;

use engine::fold::InconsistentState;
use engine::partition::{HaltReason, OwnerExit};
use schemas::{BudgetId, BudgetTotals, Offset, PeopleDigest, PersonRow, Position, SubmissionId};
use storage::log::LogBounds;
use storage::store::{CasOutcome, Checkpoint, Checkpoints, Commit, People};

use crate::support::log::{Log, WITHDRAWN};
use crate::support::store::FaultyStore;
use crate::test_owner::{take_over, take_over_log};
use crate::{PARTITION, assert_totals, fold_whole_log};

/// A store in which every person of the log's first 300 records has a row that is as new as the totals.
async fn store_with_rows(log: &Log) -> Arc<FaultyStore> {
    let store = Arc::new(FaultyStore::default());
    let mut owner = take_over(&store, log, "owner").await;
    owner.send(log, 300).await;
    owner.committed(300).await;
    owner.rows_committed_up_to(&store, 300).await;
    assert_eq!(owner.release().await, OwnerExit::Released);
    store
}

/// Checks that one takeover finds the damage and that the next one folds the log exactly.
async fn assert_healed_by_replay(store: &Arc<FaultyStore>, log: &Log) {
    assert!(!fold_whole_log(store, log).await, "the damage was not found");
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert_eq!(stored.checkpoint.rows_position, Position::START);
    assert!(fold_whole_log(store, log).await);
    assert_totals(store, log).await;
}

/// Whether a row is one of a third of the rows.
fn in_a_third(row: &PersonRow) -> bool {
    row.person.as_bytes()[0].is_multiple_of(3)
}

#[tokio::test(flavor = "multi_thread")]
async fn people_whose_rows_the_store_lost_are_replayed_from_the_log() {
    let log = Log::of(600);
    let store = store_with_rows(&log).await;
    assert!(store.inner.lose_people(PARTITION, in_a_third) > 10);
    assert_healed_by_replay(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_single_lost_row_is_found_and_replayed_from_the_log() {
    let log = Log::of(600);
    let store = store_with_rows(&log).await;
    let mut first = true;
    let lost = store.inner.lose_people(PARTITION, |_| std::mem::take(&mut first));
    assert_eq!(lost, 1);
    assert_healed_by_replay(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_that_the_store_brought_back_are_replaced_from_the_log() {
    let log = Log::of(600);
    let store = store_with_rows(&log).await;
    let mut old = Vec::new();
    store.inner.lose_people(PARTITION, |row| {
        let is_old = in_a_third(row);
        if is_old {
            // The person's submission one round earlier, see `Log::of`.
            let offset = row.offset.0 - 97;
            let (person, _, shares) = &log.0[offset as usize];
            assert_eq!(person, &row.person);
            let basis_points = shares.iter().map(|share| *share as u16).collect();
            old.push(PersonRow { offset: Offset(offset), basis_points, ..row.clone() });
        }
        is_old
    });
    assert!(old.len() > 10);
    store.inner.write_people(PARTITION, &old).await.unwrap();
    assert_healed_by_replay(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_rows_whose_differences_cancel_out_are_replaced_from_the_log() {
    let mut log = Log::of(600);
    // Two people who have exchanged their shares since their last submissions.
    let exchanged = [(214, 118), (215, 117)];
    for (offset, former) in exchanged {
        log.replace(offset, log.0[former].2);
    }
    let store = store_with_rows(&log).await;
    let mut old = Vec::new();
    store.inner.lose_people(PARTITION, |row| {
        let is_old = [214, 215].contains(&row.offset.0);
        if is_old {
            let offset = row.offset.0 - 97;
            let (person, _, shares) = &log.0[offset as usize];
            assert_eq!(person, &row.person);
            let basis_points = shares.iter().map(|share| *share as u16).collect();
            old.push(PersonRow { offset: Offset(offset), basis_points, ..row.clone() });
        }
        is_old
    });
    assert_eq!(old.len(), 2);
    store.inner.write_people(PARTITION, &old).await.unwrap();
    assert_healed_by_replay(&store, &log).await;
}

/// Replayed over an old row, the newest record gives the right shares and the right offset.
#[tokio::test(flavor = "multi_thread")]
async fn old_rows_under_replayed_records_are_replaced_from_the_log() {
    let log = Log::of(600);
    let store = store_with_rows(&log).await;
    // Everybody's newest record, see `Log::of`, is behind the rows position, and the one before is in front of it.
    let (newest, round) = (203, 97);
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    let checkpoint = Checkpoint { rows_position: Position(newest), ..stored.checkpoint };
    let (epoch, from) = (stored.epoch, checkpoint.position);
    let commit = Commit { epoch, from, checkpoint, totals: Vec::new() };
    assert_eq!(store.inner.commit(PARTITION, &commit).await, Ok(CasOutcome::Applied));

    let mut old = Vec::new();
    store.inner.lose_people(PARTITION, |row| {
        let is_old = in_a_third(row);
        if is_old {
            let offset = row.offset.0 - 2 * round;
            let (_, _, shares) = &log.0[offset as usize];
            let basis_points = shares.iter().map(|share| *share as u16).collect();
            let id = SubmissionId(uuid::Uuid::from_u128(u128::from(offset))).fingerprint();
            let recent = [Some(id), None, None];
            old.push(PersonRow { offset: Offset(offset), basis_points, recent, ..row.clone() });
        }
        is_old
    });
    assert!(old.len() > 10);
    store.inner.write_people(PARTITION, &old).await.unwrap();
    assert_healed_by_replay(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_row_of_somebody_who_has_withdrawn_is_found_and_replayed_from_the_log() {
    let mut log = Log::of(600);
    log.replace(214, WITHDRAWN);
    let store = store_with_rows(&log).await;
    assert_eq!(store.inner.lose_people(PARTITION, |row| row.offset == Offset(214)), 1);
    assert_healed_by_replay(&store, &log).await;
}

/// What a release without a digest of people has committed.
async fn forget_people_digest(store: &FaultyStore) {
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    let (id, totals) = stored.totals[0].clone();
    assert!(totals.people_digest.is_some());
    let totals = BudgetTotals { people_digest: None, content_digest: None, ..totals };
    let totals = vec![(id, totals)];
    let (epoch, checkpoint) = (stored.epoch, stored.checkpoint);
    let commit = Commit { epoch, from: checkpoint.position, checkpoint, totals };
    store.inner.commit(PARTITION, &commit).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_of_a_release_without_a_digest_of_people_get_one_from_the_rows() {
    let log = Log::of(600);
    let store = store_with_rows(&log).await;
    forget_people_digest(&store).await;
    assert!(fold_whole_log(&store, &log).await);
    assert_totals(&store, &log).await;
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    let mut expected = PeopleDigest::default();
    let latest = &log.0[log.0.len() - 97..];
    for (offset, (person, ..)) in (log.0.len() as u64 - 97..).map(Offset).zip(latest) {
        expected.add(person, offset);
    }
    assert_eq!(stored.totals[0].1.people_digest, Some(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_rows_halt_the_partition_and_stay_when_the_log_no_longer_has_the_records() {
    let log = Log::of(600);
    let store = store_with_rows(&log).await;
    store.inner.lose_people(PARTITION, in_a_third);
    let before = store.inner.read_partition(PARTITION).await.unwrap().unwrap();

    let bounds = LogBounds { low: Position(100), high: Position(600) };
    let mut owner = take_over_log(&store, bounds, "next owner").await;
    owner.send(&log, 600).await;
    let exit = owner.task.await.unwrap();
    let OwnerExit::Halted(HaltReason::PeopleLost { log_start: Position(100), .. }) = exit else {
        panic!("{exit:?}");
    };
    let after = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert_eq!((after.checkpoint, after.totals), (before.checkpoint, before.totals));
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_that_the_log_does_not_give_halt_the_partition() {
    let log = Log::of(600);
    let store = store_with_rows(&log).await;
    // Consistent in themselves: the totals of fewer people, all of them replayed from the log.
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    let (id, mut totals) = stored.totals[0].clone();
    for category in &mut totals.categories {
        let percent = category.people_by_percent.iter().rposition(|people| *people > 0).unwrap();
        category.people_by_percent[percent] -= 1;
        category.people_by_percent[50] += 1;
    }
    let mut checkpoint = stored.checkpoint;
    checkpoint.rows_position = Position::START;
    let from = checkpoint.position;
    let commit = Commit { epoch: stored.epoch, from, checkpoint, totals: vec![(id, totals)] };
    store.inner.commit(PARTITION, &commit).await.unwrap();

    let mut owner = take_over(&store, &log, "next owner").await;
    owner.send(&log, 600).await;
    let exit = owner.task.await.unwrap();
    assert!(matches!(exit, OwnerExit::Halted(HaltReason::Invariant(_))), "{exit:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_the_log_skips_ends_the_owner_and_the_records_before_it_count() {
    let log = Log::of(600);
    let store = Arc::new(FaultyStore::default());
    let mut owner = take_over(&store, &log, "owner").await;
    owner.send(&log, 300).await;
    owner.committed(300).await;
    owner.from = 301;
    owner.send(&log, 400).await;
    let (expected, found) = (Position(300), Offset(301));
    assert_eq!(owner.task.await.unwrap(), OwnerExit::LogGap { expected, found });
    let stored = store.inner.read_partition(PARTITION).await.unwrap().unwrap();
    assert_eq!(stored.checkpoint.position, Position(300));
    assert!(fold_whole_log(&store, &log).await);
    assert_totals(&store, &log).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_skipped_while_people_are_replayed_ends_the_owner() {
    let log = Log::of(600);
    let store = store_with_rows(&log).await;
    store.inner.lose_people(PARTITION, in_a_third);
    assert!(!fold_whole_log(&store, &log).await);

    let mut owner = take_over(&store, &log, "next owner").await;
    owner.send(&log, 100).await;
    owner.from = 150;
    owner.send(&log, 600).await;
    let (expected, found) = (Position(100), Offset(150));
    assert_eq!(owner.task.await.unwrap(), OwnerExit::LogGap { expected, found });
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lost_rows_budget_is_named() {
    let log = Log::of(600);
    let store = store_with_rows(&log).await;
    store.inner.lose_people(PARTITION, in_a_third);
    let mut owner = take_over(&store, &log, "next owner").await;
    owner.send(&log, 600).await;
    let exit = owner.task.await.unwrap();
    let OwnerExit::RowsLost(InconsistentState::TotalsDifferFromPeople { budget, total, recounted }) =
        exit
    else {
        panic!("{exit:?}");
    };
    assert_eq!(budget, BudgetId::parse("b").unwrap());
    assert!(recounted < total, "{recounted} of {total}");
}
