//! The audit: it is silent while everything is as the log says, also under load, and names whatever is not.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/breaking.rs"]
mod breaking;
#[path = "../support/logs.rs"]
mod logs;
#[path = "../support/running.rs"]
mod running;
#[path = "../support/whole.rs"]
mod whole;

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use breaking::Breaking;
use processor::audit::{Difference, Place, Report};
use rusqlite::Connection;
use schemas::{
    AggregateVersion, BudgetTotals, CombinedTotals, PartitionId, PartitionTotals, PersonRow, Term,
    buckets,
};
use serde_json::json;
use storage::cache::Cache;
use storage::cache::memory::MemoryCache;
use storage::store::{Store, StoredPartition};
use whole::{BUDGETS, Fixture, PARTITIONS, budget, count, falsify, id, said};

/// Ended, so that what is changed stays changed.
async fn ended() -> Fixture {
    let mut fixture = Fixture::settled().await;
    fixture.end().await;
    fixture
}

fn places(report: &Report) -> Vec<&Place> {
    let mut places: Vec<_> =
        report.differences.iter().map(|difference| &difference.scope.place).collect();
    places.dedup();
    places
}

/// The differences of one category, without those of its distribution.
fn sums(report: &Report, category: usize) -> Vec<&Difference> {
    let differences = report.differences.iter();
    let of = |difference: &&Difference| {
        difference.scope.category == Some(category) && difference.what.starts_with("basis points")
    };
    differences.filter(of).collect()
}

async fn rows(fixture: &Fixture, partition: u32) -> Vec<PersonRow> {
    let mut rows = Vec::new();
    for bucket in buckets() {
        fixture.store.read_people(id(partition), bucket, &mut |row| rows.push(row)).await.unwrap();
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_as_the_log_says_is_compared_and_found_so() {
    let fixture = Fixture::settled().await;
    let report = fixture.audit().await;
    assert!(report.is_clean(), "{:#?}", said(&report));
    assert_eq!(report.records, 3_000);
    assert_eq!(report.budgets, BUDGETS.map(budget).into());
    assert_eq!(report.places, [Place::Totals, Place::People, Place::Cache].into());
    // The log had something of every kind.
    let tally = fixture.stored(0).await.checkpoint.tally;
    assert!(tally.applied > 0 && tally.duplicates > 0 && tally.dead_lettered > 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_under_load_has_no_false_alarm() {
    let fixture = Arc::new(Fixture::settled().await);
    let load = {
        let fixture = Arc::clone(&fixture);
        tokio::spawn(async move {
            loop {
                fixture.append(40).await;
            }
        })
    };
    let mut records = 0;
    for _ in 0..12 {
        fixture.commits_more_than(records).await;
        let report = fixture.audit().await;
        assert!(report.is_clean(), "{:#?}", said(&report));
        assert!(report.records > records, "no load: {} records", report.records);
        records = report.records;
    }
    assert!(!load.is_finished(), "the load has failed");
    load.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn false_totals_are_named_by_partition_budget_and_category() {
    let fixture = ended().await;
    fixture
        .overwrite(1, |stored| {
            let (budget, totals) = &mut stored.totals[0];
            assert_eq!(budget.as_str(), "roads");
            falsify(totals);
        })
        .await;
    let report = fixture.audit().await;
    assert_eq!(places(&report), [&Place::Totals]);
    let [difference] = sums(&report, 0)[..] else { panic!("{:#?}", said(&report)) };
    assert_eq!(difference.scope.partition, Some(PartitionId(1)));
    assert_eq!(difference.scope.budget, Some(budget("roads")));
    assert_eq!(sums(&report, 1).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_tally_and_a_false_last_record_are_named() {
    let fixture = ended().await;
    fixture
        .overwrite(0, |StoredPartition { checkpoint, .. }| {
            checkpoint.tally.applied -= 1;
            checkpoint.tally.duplicates += 1;
            checkpoint.last_record.as_mut().unwrap().fingerprint += 1;
        })
        .await;
    let said = said(&fixture.audit().await);
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said[0].starts_with("the store's totals, partition 0: records applied: "), "{said:#?}");
    assert!(
        said[1].starts_with("the store's totals, partition 0: records repeated: "),
        "{said:#?}"
    );
    assert!(said[2].ends_with("the last record is not the one that was folded"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_totals_position_that_skips_the_end_of_the_log_is_no_difference_and_one_beyond_it_is() {
    let fixture = ended().await;
    // Nobody folds these: the store is behind, and still right about what it has.
    fixture.append(50).await;
    let report = fixture.audit().await;
    assert!(report.is_clean(), "{:#?}", said(&report));
    fixture.overwrite(0, |stored| stored.checkpoint.position.0 += 1_000).await;
    let said = said(&fixture.audit().await);
    assert!(said.iter().any(|line| line.contains("and the log ends at")), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_row_is_found_by_what_everyone_adds_up_to() {
    let fixture = ended().await;
    let all = rows(&fixture, 0).await;
    let mut row = all.into_iter().find(|row| row.basis_points.first() >= Some(&100)).unwrap();
    row.basis_points[0] -= 100;
    row.basis_points[1] += 100;
    // The last that is committed: it stays, whatever is written again.
    row.offset.0 = fixture.stored(0).await.checkpoint.position.0 - 1;
    fixture.store.write_people(id(0), std::slice::from_ref(&row)).await.unwrap();
    let report = fixture.audit().await;
    assert_eq!(places(&report), [&Place::People], "{:#?}", said(&report));
    let [difference] = sums(&report, 0)[..] else { panic!("{:#?}", said(&report)) };
    assert_eq!(difference.scope.partition, Some(PartitionId(0)));
    assert_eq!(difference.scope.budget, Some(row.budget));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_ahead_of_the_totals_is_found() {
    let fixture = ended().await;
    let mut row = rows(&fixture, 1).await.remove(0);
    row.offset.0 += 1_000_000;
    fixture.store.write_people(id(1), &[row]).await.unwrap();
    let said = said(&fixture.audit().await);
    assert!(said[0].starts_with("people's rows, partition 1: a row of budget `"), "{said:#?}");
}

/// A cache with everything that the store has, one budget changed on the way.
async fn copy(fixture: &Fixture, change: impl Fn(&mut BudgetTotals)) -> MemoryCache {
    let cache = MemoryCache::new();
    for name in BUDGETS {
        let mut parts = Vec::new();
        for partition in 0..PARTITIONS {
            let stored = fixture.stored(partition).await;
            let found = stored.totals.into_iter().find(|(id, _)| id.as_str() == name);
            let mut totals = found.unwrap().1;
            if (name, partition) == (BUDGETS[1], 0) {
                change(&mut totals);
            }
            let (term, partition) = (Term::FIRST, PartitionId(partition));
            parts.push(PartitionTotals { term, partition, totals });
        }
        cache.publish(&budget(name), count(), &parts).await.unwrap();
    }
    cache
}

#[tokio::test(flavor = "multi_thread")]
async fn a_false_copy_is_named_and_one_that_is_behind_is_not() {
    let mut fixture = ended().await;
    fixture.cache = Arc::new(copy(&fixture, falsify).await);
    let report = fixture.audit().await;
    assert_eq!(places(&report), [&Place::Cache], "{:#?}", said(&report));
    let [difference] = sums(&report, 0)[..] else { panic!("{:#?}", said(&report)) };
    assert_eq!(difference.scope.budget, Some(budget(BUDGETS[1])));

    let mut behind = Fixture::settled().await;
    let copied = copy(&behind, |_| {}).await;
    behind.append(500).await;
    behind.settle().await;
    behind.cache = Arc::new(copied);
    let report = behind.audit().await;
    assert!(report.is_clean(), "{:#?}", said(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_lacks_a_budget_could_not_be_compared() {
    let mut fixture = ended().await;
    fixture.cache = Arc::new(MemoryCache::new());
    let report = fixture.audit().await;
    assert!(report.differences.is_empty());
    let expected = BUDGETS.map(|id| {
        format!("the cache, budget `{id}`: it has no whole answer of the current generation")
    });
    assert_eq!(report.unchecked, expected);
    assert!(!report.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_its_beginning_could_not_be_compared() {
    let fixture = ended().await;
    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    log.execute(r#"DELETE FROM records WHERE partition = 1 AND "offset" < 5"#, []).unwrap();
    let report = fixture.audit().await;
    assert_eq!(report.differences, []);
    let mut expected = vec!["partition 1: the log begins at 5".to_owned()];
    expected.extend(
        BUDGETS.map(|budget| format!("the cache, budget `{budget}`: partition 1 is not counted")),
    );
    assert_eq!(report.unchecked, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_broken_off_is_read_on_and_one_with_a_hole_could_not_be_compared() {
    let fixture = ended().await;
    let breaking = Arc::new(Breaking::new(Arc::new(fixture.reader())));
    let report = fixture.audit_by(Arc::clone(&breaking) as _).await;
    assert!(breaking.broke() && report.is_clean(), "{:#?}", said(&report));

    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    log.execute(r#"DELETE FROM records WHERE partition = 1 AND "offset" = 5"#, []).unwrap();
    let report = fixture.audit().await;
    assert_eq!(report.differences, []);
    assert_eq!(report.unchecked[0], "partition 1: the log has no record at 5");
    assert_eq!(report.unchecked.len(), 1 + BUDGETS.len(), "{:#?}", said(&report));
}

/// Serves one budget's answer, as an api does; others are withheld.
async fn serve(shown: &CombinedTotals, version: String) -> String {
    let categories: Vec<_> = shown
        .categories
        .iter()
        .map(|category| {
            json!({
                "total_basis_points": category.basis_points,
                "distribution": category.people_by_percent.to_vec(),
            })
        })
        .collect();
    let answer = json!({"people": shown.people, "version": version, "categories": categories});
    let withheld = json!({"withheld": {"reason": "after_close", "until": null}});
    let path = |name| format!("/v1/budgets/{name}/aggregate");
    let routes = Router::new()
        .route(&path(BUDGETS[0]), get(async || Json(answer)))
        .route(&path(BUDGETS[1]), get(async || Json(withheld)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_shows_other_numbers_for_its_version_is_named() {
    let mut fixture = ended().await;
    let cached = fixture.cache.read(&[budget(BUDGETS[0])]).await.unwrap().remove(0).unwrap();
    let version = AggregateVersion::of(&cached).to_string();
    let mut wrong = cached.clone();
    wrong.people += 1;
    fixture.apis = vec![serve(&cached, version.clone()).await, serve(&wrong, version).await];
    let report = fixture.audit().await;
    let place = Place::Api(fixture.apis[1].clone());
    assert_eq!(places(&report), [&place], "{:#?}", said(&report));
    assert_eq!(report.differences.len(), 1);
    assert!(report.places.contains(&Place::Api(fixture.apis[0].clone())));
}
