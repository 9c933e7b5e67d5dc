//! `GET /v1/budgets/{budget}/history`.

use std::sync::atomic::Ordering;

use runtime::clock::now_ms;
use schemas::*;
use serde_json::json;

use crate::fakes::Mode;
use crate::test_server::*;

const STEP: HistoryStep = HistoryStep::Day;

/// The instant that was this many days ago.
fn day(days_ago: u32) -> HistoryInstant {
    HistoryInstant(STEP.last_instant(now_ms()).0 - days_ago)
}

fn time(instant: HistoryInstant) -> String {
    let ms = i64::try_from(instant.at_ms(STEP)).unwrap();
    jiff::Timestamp::from_millisecond(ms).unwrap().to_string()
}

/// A path that asks for the days from one to another, both included.
fn days(budget: &str, from: HistoryInstant, to: HistoryInstant) -> String {
    format!("/v1/budgets/{budget}/history?step=day&from={}&to={}", time(from), time(to))
}

fn point(first: HistoryInstant, end: HistoryInstant, sums: &[u64]) -> HistoryPoint {
    let basis_points = sums.to_vec();
    let people = basis_points.iter().sum::<u64>() / BASIS_POINTS_PER_PERSON;
    HistoryPoint { step: STEP, first, end, totals: HistoryTotals { people, basis_points } }
}

/// A server on which people submitted 20, 10 and 5 days ago, in two of three partitions.
fn server() -> TestServer {
    let server = TestServer::new();
    let people = [(0, [2_500, 7_500]), (1, [5_000, 5_000]), (1, [10_000, 0])];
    server.commit("town", &people);
    let mut totals = partition_totals(&people);
    let last_change = [day(20), day(5)];
    for (totals, day) in totals.iter_mut().zip(last_change) {
        totals.as_mut().unwrap().updated_at_ms = day.at_ms(STEP) + 1;
    }
    server.store.put("town", totals);
    server.store.put_history(0, point(HistoryInstant(0), day(19), &[]));
    server.store.put_history(1, point(HistoryInstant(0), day(9), &[]));
    server.store.put_history(1, point(day(9), day(4), &[5_000, 5_000]));
    server
}

#[tokio::test(start_paused = true)]
async fn each_point_is_exact_over_all_partitions() {
    let server = server();
    let got = server.get(&days("town", day(21), day(3))).await;
    assert_eq!((got.status.as_u16(), got.header("content-type")), (200, "application/json"));
    let body = got.json();
    assert_eq!((&body["budget"], &body["step"]), (&json!("town"), &json!("day")));
    assert_eq!(body["next"], json!(null));
    let points = body["points"].as_array().unwrap();
    // The first submission was accepted in the day that ended 19 days ago.
    let expected = [(19, 1), (18, 1), (10, 1), (9, 2), (5, 2), (4, 3), (3, 3)];
    for (days_ago, people) in expected {
        let at = time(day(days_ago));
        let point = points.iter().find(|point| point["at"] == json!(at)).unwrap();
        assert_eq!(point["people"], json!(people), "{days_ago} days ago");
    }
    assert_eq!(points.len(), 17);
    let last = points.last().unwrap().to_string();
    let averages = r#"{"education":41.6667,"health":58.3333}"#;
    assert_eq!(
        last,
        format!(r#"{{"at":"{}","average_percent":{averages},"people":3}}"#, time(day(3)))
    );
    assert!(got.text.contains(r#""average_percent":{"health":25.0,"education":75.0}"#));
}

#[tokio::test(start_paused = true)]
async fn csv_is_the_same_history_by_accept_or_by_format() {
    let server = server();
    let path = days("town", day(10), day(9));
    let by_format = server.get(&format!("{path}&format=csv")).await;
    let by_accept = server.get_with(&path, &[("accept", "text/csv")]).await;
    let (first, second) = (time(day(10)), time(day(9)));
    let expected =
        format!("at,people,health,education\r\n{first},1,25.0,75.0\r\n{second},2,37.5,62.5\r\n");
    for got in [by_format, by_accept] {
        assert_eq!(got.text, expected);
        assert_eq!(got.header("content-type"), "text/csv; charset=utf-8; header=present");
        assert_eq!(got.header("vary"), "accept, accept-encoding");
        assert_eq!(got.header("surrogate-key"), "budget-town");
        let etag = got.header("etag").to_owned();
        let again =
            server.get_with(&format!("{path}&format=csv"), &[("if-none-match", &etag)]).await;
        assert_eq!(again.status, 304);
    }
    for accept in ["*/*", "text/csv;q=0, application/json", "text/csv;q=0.5, application/json"] {
        let got = server.get_with(&path, &[("accept", accept)]).await;
        assert_eq!(got.header("content-type"), "application/json", "{accept}");
    }
}

#[tokio::test(start_paused = true)]
async fn pages_follow_next_until_it_is_null() {
    let server = server();
    let (mut from, mut seen) = (day(19), Vec::new());
    loop {
        let path = format!("{}&limit=4", days("town", from, day(6)));
        let got = server.get(&path).await;
        let body = got.json();
        let points = body["points"].as_array().unwrap();
        assert!(points.len() <= 4);
        seen.extend(points.iter().map(|point| point["at"].as_str().unwrap().to_owned()));
        let Some(next) = body["next"].as_str() else { break };
        assert!(got.header("link").contains(next), "{}", got.header("link"));
        from = STEP.last_instant(next.parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64);
    }
    let expected: Vec<_> = (6..=19).rev().map(|days_ago| time(day(days_ago))).collect();
    assert_eq!(seen, expected);
}

#[tokio::test(start_paused = true)]
async fn instants_with_fewer_people_than_the_minimum_stay_hidden() {
    let server = server();
    server.definitions.put(Budget { minimum_people: 2, revision: 2, ..budget("town") });
    let body = server.get(&days("town", day(21), day(3))).await.json();
    let people: Vec<_> =
        body["points"].as_array().unwrap().iter().map(|point| point["people"].clone()).collect();
    assert_eq!(people, [2, 2, 2, 2, 2, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_withheld_history_is_the_answer_of_the_aggregate() {
    let server = server();
    server.definitions.put(Budget { minimum_people: 9, revision: 2, ..budget("town") });
    let aggregate = server.aggregate("town").await;
    assert_eq!(aggregate.json()["withheld"]["reason"], "minimum_people");
    for query in ["", "?step=minute", "?format=csv"] {
        let got = server.get(&format!("/v1/budgets/town/history{query}")).await;
        assert_eq!((got.status.as_u16(), &got.text), (200, &aggregate.text), "{query}");
    }
    assert_eq!(server.store.history_reads.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_history_is_read_once_for_all_who_ask_at_the_same_time() {
    let server = server();
    let path = days("town", day(9), day(3));
    let first = server.get(&path).await;
    for _ in 0..20 {
        assert_eq!(server.get(&path).await.text, first.text);
    }
    // Once in each partition.
    assert_eq!(server.store.history_reads.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_history_that_cannot_be_read_is_503() {
    let server = server();
    server.aggregate("town").await;
    for mode in [Mode::Fails, Mode::Hangs] {
        server.store.totals_switch.set(mode);
        let got = server.get(&days("town", day(9), day(3))).await;
        assert_eq!(got.status, 503, "{}", got.text);
        assert_eq!(got.header("retry-after"), "1");
    }
    server.store.totals_switch.set(Mode::Works);
}

#[tokio::test(start_paused = true)]
async fn every_fault_of_a_query_is_named() {
    let server = server();
    let got = server.get("/v1/budgets/town/history?from=x&to=y&step=week&limit=0&format=pdf").await;
    assert_eq!(got.status, 400);
    assert_eq!(got.json()["errors"].as_array().unwrap().len(), 5);
    assert_eq!(server.get("/v1/budgets/nowhere/history").await.status, 404);
}
