//! Rebuilding beside the live totals: with records coming, with wrong totals, interrupted, tried, and taken back.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/logs.rs"]
mod logs;
#[path = "../support/running.rs"]
mod running;
#[path = "../support/whole.rs"]
mod whole;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use processor::generations::{ChangeError, Refused, begin, cancel, change, retire, roll_back};
use processor::partition::{Limits, claim};
use processor::rebuild::{RebuildError, Rebuilt, delete_retired, rebuild};
use schemas::{Generation, LogNumber, PartitionId, Roster, Term, buckets};
use storage::store::{PartitionRef, Store};
use tokio::time::{Instant, sleep, timeout};
use whole::{BUDGETS, Fixture, PARTITIONS, budget, count, falsify, said};

const PATIENCE: Duration = Duration::from_secs(30);

async fn rebuilt(fixture: &Fixture, dry_run: bool) -> Result<Rebuilt, RebuildError> {
    let log = fixture.reader();
    let rebuilding = rebuild(fixture.store.as_ref(), &log, dry_run, |_| {});
    timeout(PATIENCE, rebuilding).await.expect("the rebuild takes too long")
}

async fn roster(fixture: &Fixture) -> Roster {
    fixture.store.roster().await.unwrap().unwrap()
}

/// What readers of the cache are shown: the term, and the people of each budget.
async fn shown(fixture: &Fixture) -> (Term, Vec<u64>) {
    let all = fixture.cache.read(&BUDGETS.map(budget)).await.unwrap();
    let all: Vec<_> = all.into_iter().map(Option::unwrap).collect();
    assert_eq!(all[0].term, all[1].term);
    (all[0].term, all.iter().map(|totals| totals.people).collect())
}

/// Rows of people in a generation.
async fn rows(fixture: &Fixture, generation: u32) -> usize {
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

async fn agrees_with_the_log(fixture: &Fixture) {
    fixture.settle().await;
    assert_eq!(said(&fixture.audit().await), Vec::<String>::new());
}

/// Rebuilds while records come.
async fn rebuilt_under_load(fixture: &Fixture) -> Rebuilt {
    let writing = AtomicBool::new(true);
    let load = async {
        while writing.load(Ordering::Relaxed) {
            fixture.append(20).await;
            sleep(Duration::from_millis(5)).await;
        }
    };
    let rebuilding = async {
        let rebuilt = rebuilt(fixture, false).await;
        writing.store(false, Ordering::Relaxed);
        rebuilt.unwrap()
    };
    tokio::join!(load, rebuilding).1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_under_load_finds_no_difference_and_answers_from_then_on() {
    let mut fixture = Fixture::settled().await;
    let rebuilt = rebuilt_under_load(&fixture).await;
    assert_eq!((rebuilt.generation, rebuilt.before), (Generation(2), Generation(1)));
    assert_eq!(rebuilt.differences, Vec::<String>::new());
    assert!(rebuilt.records >= 3_000);

    agrees_with_the_log(&fixture).await;
    assert_eq!(
        shown(&fixture).await.0,
        Term { number: 2, generation: Generation(2), log: LogNumber::FIRST }
    );
    assert_eq!(rows(&fixture, 2).await, rows(&fixture, 1).await);
    fixture.append(100).await;
    agrees_with_the_log(&fixture).await;
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_that_are_wrong_are_named_and_right_afterwards() {
    let mut fixture = Fixture::settled().await;
    fixture.end().await;
    let wrong = budget(BUDGETS[0]);
    let forge = |stored: &mut storage::store::StoredPartition| {
        let totals = stored.totals.iter_mut().find(|(id, _)| *id == wrong).unwrap();
        falsify(&mut totals.1);
    };
    fixture.overwrite(1, forge).await;
    fixture.begin().await;
    let rebuilt = rebuilt(&fixture, false).await.unwrap();
    let about = format!("the store's totals, partition 1, budget `{wrong}`, category ");
    assert!(rebuilt.differences.iter().all(|line| line.starts_with(&about)), "{rebuilt:?}");
    // Two sums, and four places of the two distributions.
    assert_eq!(rebuilt.differences.len(), 6, "{rebuilt:?}");
    agrees_with_the_log(&fixture).await;
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_compares_and_leaves_nothing_behind() {
    let mut fixture = Fixture::settled().await;
    let before = shown(&fixture).await;
    let rebuilt = rebuilt(&fixture, true).await.unwrap();
    assert_eq!(rebuilt.differences, Vec::<String>::new());
    let roster = roster(&fixture).await;
    assert_eq!(
        (roster.term(), &roster.building, &roster.retired[..]),
        (Term::FIRST, &None, &[][..])
    );
    assert_eq!(rows(&fixture, 2).await, 0);
    assert_eq!(shown(&fixture).await, before);
    agrees_with_the_log(&fixture).await;
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_generation_before_is_folded_on_and_answers_again_until_it_is_retired() {
    let mut fixture = Fixture::settled().await;
    rebuilt(&fixture, false).await.unwrap();
    agrees_with_the_log(&fixture).await;
    fixture.append(500).await;
    agrees_with_the_log(&fixture).await;
    let before = shown(&fixture).await;

    let back = |roster: &Roster| roll_back(roster, Generation(1));
    change(fixture.store.as_ref(), back).await.unwrap();
    agrees_with_the_log(&fixture).await;
    assert_eq!(
        shown(&fixture).await,
        (Term { number: 3, generation: Generation(1), log: LogNumber::FIRST }, before.1)
    );
    let refused = rebuilt(&fixture, false).await.unwrap_err();
    let kept = ChangeError::Refused(Refused::PreviousIsKept(Generation(2)));
    assert!(matches!(refused, RebuildError::Change(error) if error == kept));

    change(fixture.store.as_ref(), |roster| retire(roster, Generation(2))).await.unwrap();
    delete_retired(fixture.store.as_ref()).await.unwrap();
    assert_eq!(rows(&fixture, 2).await, 0);
    let refused = change(fixture.store.as_ref(), |roster| roll_back(roster, Generation(2))).await;
    assert_eq!(refused, Err(ChangeError::Refused(Refused::NotBefore(Generation(2)))));
    // A number that was given up is not used again.
    assert_eq!(rebuilt(&fixture, false).await.unwrap().generation, Generation(3));
    agrees_with_the_log(&fixture).await;
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_that_nobody_watches_goes_on_also_over_a_restart_and_is_taken_up() {
    let mut fixture = Fixture::settled().await;
    let log = fixture.reader();
    {
        // Whoever asked for it goes away as soon as it has begun.
        let store = fixture.store.as_ref();
        let rebuilding = rebuild(store, &log, false, |_| {});
        let begun = async {
            while store.roster().await.unwrap().unwrap().building.is_none() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            _ = rebuilding => panic!("it cannot be done yet"),
            () = begun => {}
        }
    }
    fixture.end().await;
    fixture.append(200).await;
    fixture.begin().await;
    let deadline = Instant::now() + PATIENCE;
    let is_compared = async || {
        let reports = fixture.store.reports(Generation(2), count()).await.unwrap();
        reports.iter().all(|report| report.as_ref().is_some_and(|report| report.compared.is_some()))
    };
    while !is_compared().await {
        assert!(Instant::now() < deadline, "nobody builds it");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(roster(&fixture).await.term(), Term::FIRST, "nobody has let it answer");
    let rebuilt = rebuilt(&fixture, false).await.unwrap();
    assert_eq!((rebuilt.generation, rebuilt.differences.len()), (Generation(2), 0));
    agrees_with_the_log(&fixture).await;
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_whose_owner_beside_was_fenced_is_taken_up_again() {
    let mut fixture = Fixture::settled().await;
    let store = fixture.store.as_ref();
    change(store, |roster| begin(roster, false, 0)).await.unwrap();
    let id = PartitionRef { generation: Generation(2), partition: PartitionId(0) };
    let epoch = async || store.read_partition(id).await.unwrap().map(|stored| stored.epoch);
    let deadline = Instant::now() + PATIENCE;
    while epoch().await.is_none() {
        assert!(Instant::now() < deadline, "nobody claims it");
        sleep(Duration::from_millis(10)).await;
    }
    let rival = claim(store, id, "a rival").await.unwrap();
    while epoch().await <= Some(rival.epoch) {
        assert!(Instant::now() < deadline, "nobody takes it up again");
        // What an owner has to commit shows it that it was fenced.
        fixture.append(10).await;
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rebuilt(&fixture, false).await.unwrap().differences, Vec::<String>::new());
    agrees_with_the_log(&fixture).await;
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_turn_it_is_to_catch_up_gives_it_on_though_more_comes_than_counts_as_far() {
    let mut fixture = Fixture::settled().await;
    fixture.end().await;
    fixture.limits = Limits { catch_up_lag: 1, ..fixture.limits };
    fixture.begin().await;
    let rebuilt = rebuilt_under_load(&fixture).await;
    assert_eq!((rebuilt.generation, rebuilt.differences.len()), (Generation(2), 0));
    agrees_with_the_log(&fixture).await;
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_the_partitions_that_are_far_behind_several_but_not_all_catch_up_at_once() {
    const FAR: u64 = 100;
    let mut fixture = Fixture::start().await;
    fixture.append(30_000).await;
    fixture.settle().await;
    fixture.end().await;
    fixture.limits = Limits { catch_up_lag: FAR, max_uncommitted: 20, ..fixture.limits };
    fixture.begin().await;
    let mut goals = Vec::new();
    for partition in 0..PARTITIONS {
        goals.push(fixture.stored(partition).await.checkpoint.position.0);
    }
    change(fixture.store.as_ref(), |roster| begin(roster, false, 0)).await.unwrap();
    let positions = async || {
        let mut positions = Vec::new();
        for partition in (0..PARTITIONS).map(PartitionId) {
            let id = PartitionRef { generation: Generation(2), partition };
            let stored = fixture.store.read_partition(id).await.unwrap();
            positions.push(stored.map_or(0, |stored| stored.checkpoint.position.0));
        }
        positions
    };
    let on_their_way = |positions: &[u64]| -> Vec<bool> {
        let ways = positions.iter().zip(&goals);
        ways.map(|(position, goal)| 0 < *position && position + FAR < *goal).collect()
    };

    let deadline = Instant::now() + PATIENCE;
    let mut most = 0;
    let mut before = positions().await;
    while before != goals {
        assert!(Instant::now() < deadline, "they do not come on: {before:?} of {goals:?}");
        let then = positions().await;
        // Who is on its way in two looks was so when the one ended and the other began.
        let both = on_their_way(&before).into_iter().zip(on_their_way(&then));
        most = both.filter(|both| *both == (true, true)).count().max(most);
        before = then;
    }
    assert!((2..=3).contains(&most), "{most} at once");
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_given_up_meanwhile_never_answers() {
    let mut fixture = Fixture::settled().await;
    let giving_up = async {
        while roster(&fixture).await.building.is_none() {
            sleep(Duration::from_millis(1)).await;
        }
        change(fixture.store.as_ref(), |roster| cancel(roster, Generation(2))).await.unwrap();
    };
    let (rebuilt, ()) = tokio::join!(rebuilt(&fixture, false), giving_up);
    let rebuilt = rebuilt.map(|rebuilt| rebuilt.generation);
    assert!(matches!(rebuilt, Err(RebuildError::Gone(Generation(2)))), "{rebuilt:?}");
    assert_eq!(roster(&fixture).await.term(), Term::FIRST);
    agrees_with_the_log(&fixture).await;
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_quiet_for_long_and_moves_again_is_no_difference() {
    let mut fixture = Fixture::settled().await;
    let changed = change(fixture.store.as_ref(), |roster| begin(roster, false, 0)).await;
    assert_eq!(changed.unwrap().building.unwrap().record.generation, Generation(2));
    // Longer than a generation may stand still that does not come on.
    sleep(Duration::from_secs(11)).await;
    for _ in 0..200 {
        fixture.append(1).await;
        for report in fixture.store.reports(Generation(2), count()).await.unwrap() {
            let compared = report.unwrap().compared;
            assert!(compared.iter().all(|it| it.differences.is_empty()), "{compared:?}");
        }
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rebuilt(&fixture, false).await.unwrap().differences, Vec::<String>::new());
    fixture.end().await;
}
