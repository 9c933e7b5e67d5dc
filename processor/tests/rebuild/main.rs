//! Rebuilds next to live totals: under load, with wrong totals, interrupted, as dry runs, and rolled back.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/fixture.rs"]
mod fixture;
#[path = "../support/rebuild.rs"]
mod rebuild;
#[path = "../support/running_processor.rs"]
mod running_processor;
#[path = "../support/single_log.rs"]
mod single_log;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::partition::{PartitionLimits, claim};
use fixture::{BUDGETS, Fixture, PARTITIONS, budget, count, move_one_person, report_lines};
use generations::rebuild::{RebuildError, wait_until_compared};
use generations::registry::{
    RegistryUpdateError, TransitionRefused, begin, cancel, delete_retired, retire, roll_back,
    update_registry,
};
use rebuild::{RebuildOutcome, rebuild};
use schemas::{
    BudgetId, Generation, GenerationRegistry, HistoryPoint, HistoryStep, LogNumber, PartitionId,
    Position, Term, buckets,
};
use storage::store::{Checkpoints, Generations, Histories, PartitionRef, People};
use tokio::time::{Instant, sleep, timeout};

const TIMEOUT: Duration = Duration::from_secs(30);

async fn run_rebuild(fixture: &Fixture, dry_run: bool) -> Result<RebuildOutcome, String> {
    rebuild(fixture.store.as_ref(), dry_run).await
}

async fn registry(fixture: &Fixture) -> GenerationRegistry {
    fixture.store.registry().await.unwrap().unwrap()
}

/// Reads the cache: the term, and the people of each budget.
async fn cached(fixture: &Fixture) -> (Term, Vec<u64>) {
    let all = fixture.cache.read(&BUDGETS.map(budget)).await.unwrap();
    let all: Vec<_> = all.into_iter().map(Option::unwrap).collect();
    assert_eq!(all[0].term, all[1].term);
    (all[0].term, all.iter().map(|totals| totals.people).collect())
}

/// Counts the person rows of a generation.
async fn count_person_rows(fixture: &Fixture, generation: u32) -> usize {
    let mut rows = 0;
    for partition in 0..PARTITIONS {
        let (generation, partition) = (Generation(generation), PartitionId(partition));
        let id = PartitionRef { generation, partition };
        for bucket in buckets() {
            fixture.store.read_people(id, bucket, &mut |_| rows += 1).await.unwrap();
        }
    }
    rows
}

/// Waits until everything is processed, and audits it.
async fn assert_agrees_with_log(fixture: &Fixture) {
    fixture.wait_until_settled().await;
    assert_eq!(report_lines(&fixture.audit().await), Vec::<String>::new());
}

/// Runs a rebuild while records are appended.
async fn run_rebuild_under_load(fixture: &Fixture) -> RebuildOutcome {
    let writing = AtomicBool::new(true);
    let load = async {
        while writing.load(Ordering::Relaxed) {
            fixture.append(20).await;
            sleep(Duration::from_millis(5)).await;
        }
    };
    let rebuilding = async {
        let rebuilt = run_rebuild(fixture, false).await;
        writing.store(false, Ordering::Relaxed);
        rebuilt.unwrap()
    };
    tokio::join!(load, rebuilding).1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_under_load_finds_no_difference_and_becomes_active() {
    let mut fixture = Fixture::settled().await;
    let rebuilt = run_rebuild_under_load(&fixture).await;
    assert_eq!((rebuilt.generation, rebuilt.before), (Generation(2), Generation(1)));
    assert_eq!(rebuilt.differences, Vec::<String>::new());
    assert!(rebuilt.records >= 3_000);

    assert_agrees_with_log(&fixture).await;
    assert_eq!(
        cached(&fixture).await.0,
        Term { number: 2, generation: Generation(2), log: LogNumber::FIRST }
    );
    assert_eq!(count_person_rows(&fixture, 2).await, count_person_rows(&fixture, 1).await);
    fixture.append(100).await;
    assert_agrees_with_log(&fixture).await;
    fixture.stop_processor().await;
}

/// Reads the history of a generation.
async fn history(fixture: &Fixture, generation: u32) -> Vec<(PartitionId, BudgetId, HistoryPoint)> {
    let mut points = Vec::new();
    for partition in count().partitions() {
        let id = PartitionRef { generation: Generation(generation), partition };
        for step in HistoryStep::ALL {
            let mut add = |budget, point| points.push((partition, budget, point));
            fixture.store.scan_history(id, step, &mut add).await.unwrap();
        }
    }
    points
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_derives_the_same_history_and_retiring_deletes_the_former() {
    let mut fixture = Fixture::settled().await;
    let before = history(&fixture, 1).await;
    assert!(before.len() > 500, "{}", before.len());
    run_rebuild(&fixture, false).await.unwrap();
    fixture.wait_until_settled().await;
    assert_eq!(history(&fixture, 2).await, before);
    assert_eq!(history(&fixture, 1).await, before);
    update_registry(fixture.store.as_ref(), |registry| retire(registry, Generation(1)))
        .await
        .unwrap();
    delete_retired(fixture.store.as_ref()).await.unwrap();
    assert_eq!(history(&fixture, 1).await, []);
    assert_eq!(history(&fixture, 2).await, before);
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_totals_are_reported_and_corrected_by_a_rebuild() {
    let mut fixture = Fixture::settled().await;
    fixture.stop_processor().await;
    let wrong = budget(BUDGETS[0]);
    let falsify = |stored: &mut storage::store::StoredPartition| {
        let totals = stored.totals.iter_mut().find(|(id, _)| *id == wrong).unwrap();
        move_one_person(&mut totals.1);
    };
    fixture.overwrite(1, falsify).await;
    fixture.start_processor().await;
    let rebuilt = run_rebuild(&fixture, false).await.unwrap();
    let about = format!("the store's totals, partition 1, budget `{wrong}`, category ");
    assert!(rebuilt.differences.iter().all(|line| line.starts_with(&about)), "{rebuilt:?}");
    // Two sums, and four bins of the two distributions.
    assert_eq!(rebuilt.differences.len(), 6, "{rebuilt:?}");
    assert_agrees_with_log(&fixture).await;
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_compares_and_leaves_nothing_behind() {
    let mut fixture = Fixture::settled().await;
    let before = cached(&fixture).await;
    let rebuilt = run_rebuild(&fixture, true).await.unwrap();
    assert_eq!(rebuilt.differences, Vec::<String>::new());
    let registry = registry(&fixture).await;
    assert_eq!(
        (registry.term(), &registry.building, &registry.retired[..]),
        (Term::FIRST, &None, &[][..])
    );
    assert_eq!(count_person_rows(&fixture, 2).await, 0);
    assert_eq!(cached(&fixture).await, before);
    assert_agrees_with_log(&fixture).await;
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_generation_stays_up_to_date_and_can_be_rolled_back_to_until_retired() {
    let mut fixture = Fixture::settled().await;
    run_rebuild(&fixture, false).await.unwrap();
    assert_agrees_with_log(&fixture).await;
    fixture.append(500).await;
    assert_agrees_with_log(&fixture).await;
    let before = cached(&fixture).await;

    let back = |registry: &GenerationRegistry| roll_back(registry, Generation(1));
    update_registry(fixture.store.as_ref(), back).await.unwrap();
    assert_agrees_with_log(&fixture).await;
    assert_eq!(
        cached(&fixture).await,
        (Term { number: 3, generation: Generation(1), log: LogNumber::FIRST }, before.1)
    );
    let refused = run_rebuild(&fixture, false).await.unwrap_err();
    assert_eq!(refused, TransitionRefused::PreviousKept(Generation(2)).to_string());

    update_registry(fixture.store.as_ref(), |registry| retire(registry, Generation(2)))
        .await
        .unwrap();
    delete_retired(fixture.store.as_ref()).await.unwrap();
    assert_eq!(count_person_rows(&fixture, 2).await, 0);
    for partition in 0..PARTITIONS {
        let id = PartitionRef { generation: Generation(2), partition: PartitionId(partition) };
        assert_eq!(fixture.store.read_partition(id).await, Ok(None));
    }
    let refused =
        update_registry(fixture.store.as_ref(), |registry| roll_back(registry, Generation(2)))
            .await;
    assert_eq!(
        refused,
        Err(RegistryUpdateError::Refused(TransitionRefused::NotPrevious(Generation(2))))
    );
    // The number of a retired generation is not reused.
    assert_eq!(run_rebuild(&fixture, false).await.unwrap().generation, Generation(3));
    assert_agrees_with_log(&fixture).await;
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unwatched_rebuild_continues_across_a_restart_and_can_be_joined() {
    let mut fixture = Fixture::settled().await;
    let store = fixture.store.as_ref();
    update_registry(store, |registry| begin(registry, false, 0)).await.unwrap();
    fixture.stop_processor().await;
    fixture.append(200).await;
    fixture.start_processor().await;
    let deadline = Instant::now() + TIMEOUT;
    let is_compared = async || {
        let reports = fixture.store.reports(Generation(2), count()).await.unwrap();
        reports
            .iter()
            .all(|report| report.as_ref().is_some_and(|report| report.comparison.is_some()))
    };
    while !is_compared().await {
        assert!(Instant::now() < deadline, "the generation is not built");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        registry(&fixture).await.term(),
        Term::FIRST,
        "the generation became active without a caller"
    );
    let rebuilt = run_rebuild(&fixture, false).await.unwrap();
    assert_eq!((rebuilt.generation, rebuilt.differences.len()), (Generation(2), 0));
    assert_agrees_with_log(&fixture).await;
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fenced_shadow_partition_is_claimed_again() {
    let mut fixture = Fixture::settled().await;
    let store = fixture.store.as_ref();
    update_registry(store, |registry| begin(registry, false, 0)).await.unwrap();
    let id = PartitionRef { generation: Generation(2), partition: PartitionId(0) };
    let epoch = async || store.read_partition(id).await.unwrap().map(|stored| stored.epoch);
    let deadline = Instant::now() + TIMEOUT;
    while epoch().await.is_none() {
        assert!(Instant::now() < deadline, "the shadow partition is not claimed");
        sleep(Duration::from_millis(10)).await;
    }
    let rival = claim(store, id, "a rival").await.unwrap();
    while epoch().await <= Some(rival.epoch) {
        assert!(Instant::now() < deadline, "the shadow partition is not claimed again");
        // The owner notices only at a commit that it was fenced.
        fixture.append(10).await;
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(run_rebuild(&fixture, false).await.unwrap().differences, Vec::<String>::new());
    assert_agrees_with_log(&fixture).await;
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn catch_up_permits_are_passed_on_although_the_lag_stays_above_the_threshold() {
    let mut fixture = Fixture::settled().await;
    fixture.stop_processor().await;
    fixture.limits = PartitionLimits { catch_up_lag: 1, ..fixture.limits };
    fixture.start_processor().await;
    let rebuilt = run_rebuild_under_load(&fixture).await;
    assert_eq!((rebuilt.generation, rebuilt.differences.len()), (Generation(2), 0));
    assert_agrees_with_log(&fixture).await;
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_but_not_all_partitions_that_are_far_behind_catch_up_at_once() {
    const FAR: u64 = 100;
    let mut fixture = Fixture::start().await;
    fixture.append(30_000).await;
    fixture.wait_until_settled().await;
    fixture.stop_processor().await;
    fixture.limits = PartitionLimits { catch_up_lag: FAR, max_uncommitted: 20, ..fixture.limits };
    fixture.start_processor().await;
    let mut targets = Vec::new();
    for partition in 0..PARTITIONS {
        targets.push(fixture.stored(partition).await.checkpoint.position.0);
    }
    update_registry(fixture.store.as_ref(), |registry| begin(registry, false, 0)).await.unwrap();
    let positions = async || {
        let mut positions = Vec::new();
        for partition in (0..PARTITIONS).map(PartitionId) {
            let id = PartitionRef { generation: Generation(2), partition };
            let stored = fixture.store.read_partition(id).await.unwrap();
            positions.push(stored.map_or(0, |stored| stored.checkpoint.position.0));
        }
        positions
    };
    let catching_up = |positions: &[u64]| -> Vec<bool> {
        let pairs = positions.iter().zip(&targets);
        pairs.map(|(position, target)| 0 < *position && position + FAR < *target).collect()
    };

    let deadline = Instant::now() + TIMEOUT;
    let mut most = 0;
    let mut before = positions().await;
    while before != targets {
        assert!(Instant::now() < deadline, "no progress: {before:?} of {targets:?}");
        let after = positions().await;
        // A partition that catches up in two consecutive samples did so between them, too.
        let both = catching_up(&before).into_iter().zip(catching_up(&after));
        most = both.filter(|both| *both == (true, true)).count().max(most);
        before = after;
    }
    assert!((2..=3).contains(&most), "{most} at once");
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_cancelled_during_its_rebuild_never_becomes_active() {
    let mut fixture = Fixture::settled().await;
    let store = fixture.store.as_ref();
    let begun = update_registry(store, |registry| begin(registry, false, 0)).await.unwrap();
    let building = begun.building.unwrap().record;
    // Beyond the log's end, so that the comparison cannot be complete before the cancellation.
    let targets = vec![Position(u64::from(u32::MAX)); PARTITIONS as usize];
    let waiting = wait_until_compared(store, &building, Generation(1), &targets, |_| {});
    let cancelling = async {
        update_registry(store, |registry| cancel(registry, Generation(2))).await.unwrap();
    };
    let (compared, ()) = timeout(TIMEOUT, async { tokio::join!(waiting, cancelling) })
        .await
        .expect("the wait for the comparison does not end");
    assert!(matches!(compared, Err(RebuildError::NoLongerBuilding(Generation(2)))), "{compared:?}");
    assert_eq!(registry(&fixture).await.term(), Term::FIRST);
    assert_agrees_with_log(&fixture).await;
    fixture.stop_processor().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_resumes_after_a_long_pause_makes_no_difference() {
    let mut fixture = Fixture::settled().await;
    let changed =
        update_registry(fixture.store.as_ref(), |registry| begin(registry, false, 0)).await;
    assert_eq!(changed.unwrap().building.unwrap().record.generation, Generation(2));
    // Longer than the stall timeout of the active generation.
    sleep(Duration::from_secs(11)).await;
    for _ in 0..200 {
        fixture.append(1).await;
        for report in fixture.store.reports(Generation(2), count()).await.unwrap() {
            let compared = report.unwrap().comparison;
            assert!(compared.iter().all(|it| it.differences.is_empty()), "{compared:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(run_rebuild(&fixture, false).await.unwrap().differences, Vec::<String>::new());
    fixture.stop_processor().await;
}
