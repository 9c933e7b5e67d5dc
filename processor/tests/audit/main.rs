//! The audit names every difference from the log, and no other, also under load.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "../support/fixture.rs"]
mod fixture;
#[path = "../support/interrupted_reader.rs"]
mod interrupted_reader;
#[path = "../support/running_processor.rs"]
mod running_processor;
#[path = "../support/single_log.rs"]
mod single_log;

use std::sync::Arc;

use axum::routing::get;
use axum::{Json, Router};
use fixture::{BUDGETS, Fixture, PARTITIONS, budget, count, id, move_one_person, report_lines};
use interrupted_reader::InterruptedReader;
use operations::audit::{AuditReport, Difference, Scope, Subject};
use rusqlite::Connection;
use schemas::{
    AggregateVersion, BudgetTotals, CombinedTotals, HistoryStep, PartitionId, PartitionTotals,
    PersonRow, Term, buckets,
};
use serde_json::json;
use storage::cache::Cache;
use storage::cache::memory::MemoryCache;
use storage::store::{Histories, People, StoredPartition};

/// Returns a settled fixture whose processor is stopped, so that changes to the store persist.
async fn stopped_fixture() -> Fixture {
    let mut fixture = Fixture::settled().await;
    fixture.stop_processor().await;
    fixture
}

fn subjects(report: &AuditReport) -> Vec<&Subject> {
    let mut subjects: Vec<_> =
        report.differences.iter().map(|difference| &difference.scope.subject).collect();
    subjects.dedup();
    subjects
}

/// The differences of one category, without those of its distribution.
fn sums(report: &AuditReport, category: usize) -> Vec<&Difference> {
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
async fn unchanged_data_is_compared_without_a_difference() {
    let fixture = Fixture::settled().await;
    let report = fixture.audit().await;
    assert!(report.is_clean(), "{:#?}", report_lines(&report));
    assert_eq!(report.records, 3_000);
    assert_eq!(report.budgets, BUDGETS.map(budget).into());
    let subjects = [Subject::Totals, Subject::People, Subject::History, Subject::Cache];
    assert_eq!(report.subjects, subjects.into());
    // Of 125 days, in every partition and budget.
    assert!(report.history_points > 500, "{}", report.history_points);
    assert_eq!(report.history_missing, 0);
    // The log has records of every outcome.
    let tally = fixture.stored(0).await.checkpoint.tally;
    assert!(tally.applied > 0 && tally.duplicates > 0 && tally.dead_lettered > 0, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_under_load_reports_no_false_difference() {
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
        fixture.wait_until_committed_beyond(records).await;
        let report = fixture.audit().await;
        assert!(report.is_clean(), "{:#?}", report_lines(&report));
        assert!(report.records > records, "no load: {} records", report.records);
        records = report.records;
    }
    assert!(!load.is_finished(), "the load has failed");
    load.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_history_point_is_named_by_partition_budget_and_instant() {
    let fixture = stopped_fixture().await;
    let mut points = Vec::new();
    let mut add = |budget, point| points.push((budget, point));
    fixture.store.scan_history(id(1), HistoryStep::Day, &mut add).await.unwrap();
    points.retain(|(_, point)| !point.totals.basis_points.is_empty());
    let (budget, mut point) = points.swap_remove(points.len() / 2);
    point.totals.people += 1;
    point.totals.basis_points[1] += 10_000;
    let wrong = [(budget.clone(), point.clone())];
    fixture.store.write_history(id(1), &wrong, 0).await.unwrap();
    let report = fixture.audit().await;
    let [difference] = &report.differences[..] else { panic!("{:#?}", report_lines(&report)) };
    let scope = Scope {
        subject: Subject::History,
        partition: Some(PartitionId(1)),
        budget: Some(budget),
        category: None,
    };
    assert_eq!(difference.scope, scope);
    assert!(difference.what.starts_with(&format!("day {}: ", point.first.0)), "{difference}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_totals_are_named_by_partition_budget_and_category() {
    let fixture = stopped_fixture().await;
    fixture
        .overwrite(1, |stored| {
            let (budget, totals) = &mut stored.totals[0];
            assert_eq!(budget.as_str(), "roads");
            move_one_person(totals);
        })
        .await;
    let report = fixture.audit().await;
    assert_eq!(subjects(&report), [&Subject::Totals]);
    let [difference] = sums(&report, 0)[..] else { panic!("{:#?}", report_lines(&report)) };
    assert_eq!(difference.scope.partition, Some(PartitionId(1)));
    assert_eq!(difference.scope.budget, Some(budget("roads")));
    assert_eq!(sums(&report, 1).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_tally_and_a_wrong_last_record_are_named() {
    let fixture = stopped_fixture().await;
    fixture
        .overwrite(0, |StoredPartition { checkpoint, .. }| {
            checkpoint.tally.applied -= 1;
            checkpoint.tally.duplicates += 1;
            checkpoint.last_record.as_mut().unwrap().fingerprint += 1;
        })
        .await;
    let lines = report_lines(&fixture.audit().await);
    assert_eq!(lines.len(), 3, "{lines:#?}");
    assert!(
        lines[0].starts_with("the store's totals, partition 0: records applied: "),
        "{lines:#?}"
    );
    assert!(
        lines[1].starts_with("the store's totals, partition 0: records repeated: "),
        "{lines:#?}"
    );
    assert!(lines[2].ends_with("the last folded record is another one"), "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_behind_the_end_of_the_log_is_no_difference_and_a_position_beyond_it_is() {
    let fixture = stopped_fixture().await;
    // These are not folded: the store is behind, and correct up to its position.
    fixture.append(50).await;
    let report = fixture.audit().await;
    assert!(report.is_clean(), "{:#?}", report_lines(&report));
    fixture.overwrite(0, |stored| stored.checkpoint.position.0 += 1_000).await;
    let lines = report_lines(&fixture.audit().await);
    assert!(lines.iter().any(|line| line.contains("but the log ends at")), "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_person_row_is_detected_by_the_sums() {
    let fixture = stopped_fixture().await;
    let all = rows(&fixture, 0).await;
    let is_counted = |row: &PersonRow| !row.annulled && row.basis_points.first() >= Some(&100);
    let mut row = all.into_iter().find(is_counted).unwrap();
    row.basis_points[0] -= 100;
    row.basis_points[1] += 100;
    // The last committed offset: no later write replaces the row.
    row.offset.0 = fixture.stored(0).await.checkpoint.position.0 - 1;
    fixture.store.write_people(id(0), std::slice::from_ref(&row)).await.unwrap();
    let report = fixture.audit().await;
    assert_eq!(subjects(&report), [&Subject::People], "{:#?}", report_lines(&report));
    let [difference] = sums(&report, 0)[..] else { panic!("{:#?}", report_lines(&report)) };
    assert_eq!(difference.scope.partition, Some(PartitionId(0)));
    assert_eq!(difference.scope.budget, Some(row.budget));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_row_of_somebody_who_has_withdrawn_is_detected() {
    let fixture = stopped_fixture().await;
    let rows_position = fixture.stored(0).await.checkpoint.rows_position;
    let withdrawn =
        |row: &PersonRow| row.basis_points.is_empty() && rows_position.includes(row.offset);
    let lost = rows(&fixture, 0).await.into_iter().find(withdrawn).unwrap();
    fixture.store.lose_people(id(0), |row| row.person == lost.person);
    let report = fixture.audit().await;
    assert_eq!(subjects(&report), [&Subject::People], "{:#?}", report_lines(&report));
    assert!(report.differences[0].what.starts_with("not the rows of the committed totals"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_row_ahead_of_the_totals_is_detected() {
    let fixture = stopped_fixture().await;
    let mut row = rows(&fixture, 1).await.remove(0);
    row.offset.0 += 1_000_000;
    fixture.store.write_people(id(1), &[row]).await.unwrap();
    let lines = report_lines(&fixture.audit().await);
    assert!(lines[0].starts_with("people's rows, partition 1: a row of budget `"), "{lines:#?}");
}

/// Reads a budget's totals of each partition, as stored.
async fn stored_totals(fixture: &Fixture, name: &str) -> Vec<PartitionTotals> {
    let mut by_partition = Vec::new();
    for partition in 0..PARTITIONS {
        let stored = fixture.stored(partition).await;
        let found = stored.totals.into_iter().find(|(id, _)| id.as_str() == name);
        let (term, partition, totals) = (Term::FIRST, PartitionId(partition), found.unwrap().1);
        by_partition.push(PartitionTotals { term, partition, totals });
    }
    by_partition
}

/// Copies what readers are shown to a cache, and changes one budget's.
async fn copy_to_cache(fixture: &Fixture, change: impl Fn(&mut BudgetTotals)) -> MemoryCache {
    let cache = MemoryCache::new();
    for name in BUDGETS {
        let mut by_partition = Vec::new();
        for PartitionTotals { term, partition, totals } in stored_totals(fixture, name).await {
            let mut shown = PartitionTotals::shown(term, partition, totals);
            if (name, partition.0) == (BUDGETS[1], 0) {
                change(&mut shown.totals);
            }
            by_partition.push(shown);
        }
        cache.publish(&budget(name), count(), &by_partition).await.unwrap();
    }
    cache
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_cache_is_named_and_a_lagging_cache_is_not() {
    let mut fixture = stopped_fixture().await;
    fixture.cache = Arc::new(copy_to_cache(&fixture, move_one_person).await);
    let report = fixture.audit().await;
    assert_eq!(subjects(&report), [&Subject::Cache], "{:#?}", report_lines(&report));
    let [difference] = sums(&report, 0)[..] else { panic!("{:#?}", report_lines(&report)) };
    assert_eq!(difference.scope.budget, Some(budget(BUDGETS[1])));

    let mut behind = Fixture::settled().await;
    let copied = copy_to_cache(&behind, |_| {}).await;
    behind.append(500).await;
    behind.wait_until_settled().await;
    behind.cache = Arc::new(copied);
    let report = behind.audit().await;
    assert!(report.is_clean(), "{:#?}", report_lines(&report));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_and_a_store_that_show_less_than_a_step_are_named() {
    let mut fixture = stopped_fixture().await;
    let exact = stored_totals(&fixture, BUDGETS[1]).await;
    let pending = exact.iter().find(|part| part.totals.pending.is_some()).unwrap().partition;
    let shown = fixture.cache.read(&[budget(BUDGETS[1])]).await.unwrap().remove(0).unwrap();
    let people: u64 = exact.iter().map(|part| part.totals.people).sum();
    assert!(shown.people.abs_diff(people) < 5 * u64::from(PARTITIONS));

    let cache = MemoryCache::new();
    for name in BUDGETS {
        let exact = stored_totals(&fixture, name).await;
        cache.publish(&budget(name), count(), &exact).await.unwrap();
    }
    let right = std::mem::replace(&mut fixture.cache, Arc::new(cache));
    let report = fixture.audit().await;
    assert_eq!(subjects(&report), [&Subject::Cache], "{:#?}", report_lines(&report));

    fixture.cache = right;
    fixture
        .overwrite(pending.0, |stored| {
            for (_, totals) in &mut stored.totals {
                totals.pending = None;
            }
        })
        .await;
    let report = fixture.audit().await;
    let lines = report_lines(&report);
    let named = |line: &&String| {
        line.starts_with("the store's totals, ") && line.contains("nothing is pending, and ")
    };
    assert_eq!(lines.iter().filter(named).count(), 1, "{lines:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cache_without_a_budget_is_reported_as_not_compared() {
    let mut fixture = stopped_fixture().await;
    fixture.cache = Arc::new(MemoryCache::new());
    let report = fixture.audit().await;
    assert!(report.differences.is_empty());
    let expected = BUDGETS.map(|id| {
        format!("the cache, budget `{id}`: it has no complete totals of the active generation")
    });
    assert_eq!(report.unchecked, expected);
    assert!(!report.is_clean());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_beginning_is_reported_as_not_compared() {
    let fixture = stopped_fixture().await;
    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    log.execute(r#"DELETE FROM records WHERE partition = 1 AND "offset" < 5"#, []).unwrap();
    let report = fixture.audit().await;
    assert_eq!(report.differences, []);
    let begins = "partition 1: the log begins at 5, and no archive has the records before it: set `archive.dir` to the \
                  directory of its archive";
    let mut expected = vec![begins.to_owned()];
    expected
        .extend(BUDGETS.map(|budget| {
            format!("the cache, budget `{budget}`: partition 1 could not be folded")
        }));
    assert_eq!(report.unchecked, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_read_is_resumed_and_a_log_with_a_gap_is_reported_as_not_compared() {
    let fixture = stopped_fixture().await;
    let interrupted = Arc::new(InterruptedReader::new(Arc::new(fixture.reader())));
    let report = fixture.audit_with_log(Arc::clone(&interrupted) as _).await;
    assert!(interrupted.was_interrupted() && report.is_clean(), "{:#?}", report_lines(&report));

    let log = Connection::open(fixture.dir.path().join("log.db")).unwrap();
    log.execute(r#"DELETE FROM records WHERE partition = 1 AND "offset" = 5"#, []).unwrap();
    let report = fixture.audit().await;
    assert_eq!(report.differences, []);
    assert_eq!(report.unchecked[0], "partition 1: the log has no record at 5");
    assert_eq!(report.unchecked.len(), 1 + BUDGETS.len(), "{:#?}", report_lines(&report));
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
    let CombinedTotals { people, annulled, .. } = shown;
    let answer = json!({
        "people": people, "annulled": annulled, "version": version, "categories": categories,
    });
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
async fn an_api_with_wrong_numbers_for_its_version_is_named() {
    let mut fixture = stopped_fixture().await;
    let cached = fixture.cache.read(&[budget(BUDGETS[0])]).await.unwrap().remove(0).unwrap();
    let version = AggregateVersion::of(&cached).to_string();
    let mut wrong = cached.clone();
    wrong.people += 1;
    fixture.apis = vec![serve(&cached, version.clone()).await, serve(&wrong, version).await];
    let report = fixture.audit().await;
    let subject = Subject::Api(fixture.apis[1].clone());
    assert_eq!(subjects(&report), [&subject], "{:#?}", report_lines(&report));
    assert_eq!(report.differences.len(), 1);
    assert!(report.subjects.contains(&Subject::Api(fixture.apis[0].clone())));
}
