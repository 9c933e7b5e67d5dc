//! Streams of answers: what is sent when, what is skipped, and how many there may be.

use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::test_server::*;
use crate::updates::{changed, server_with_live_updates};

const PATH: &str = "/v1/budgets/town/aggregate/stream";
const BEAT_INTERVAL: Duration = Duration::from_secs(15);

/// An open stream, read event by event.
struct EventStream {
    body: Body,
    text: String,
}

/// One event.
#[derive(Debug, PartialEq)]
enum Event {
    Aggregate { id: String, people: Option<u64> },
    Beat,
}

impl EventStream {
    async fn open(server: &TestServer, headers: &[(&str, &str)]) -> Self {
        let response = server.open_with(PATH, headers).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { body: response.into_body(), text: String::new() }
    }

    /// Waits for the next event; skips the reconnection delay.
    async fn next(&mut self) -> Event {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some(event) = parse(&block) {
                    return event;
                }
                continue;
            }
            let frame = self.body.frame().await.expect("the stream goes on").unwrap();
            self.text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    }
}

fn parse(block: &str) -> Option<Event> {
    let field = |name: &str| {
        block
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .map(str::to_owned)
    };
    if let Some(delay) = field("retry") {
        assert!((2_000..=8_000).contains(&delay.parse::<u32>().unwrap()));
        return None;
    }
    match field("event").unwrap().as_str() {
        "beat" => Some(Event::Beat),
        "aggregate" => {
            let data: Value = serde_json::from_str(&field("data").unwrap()).unwrap();
            let id = field("id");
            // Withheld results have no version to resume from.
            assert_eq!(id.is_none(), data.get("withheld").is_some());
            assert!(id.as_deref().is_none_or(|id| data["version"] == *id));
            let id = id.unwrap_or_default();
            Some(Event::Aggregate { id, people: data["people"].as_u64() })
        }
        other => panic!("unknown event {other}"),
    }
}

/// Commits this many people, and notifies the server.
fn commit(server: &TestServer, people: usize) {
    server.commit("town", &vec![(0, [5_000, 5_000]); people]);
    server.cache.send_update(changed("town"));
}

fn people(event: &Event) -> Option<u64> {
    match event {
        Event::Aggregate { people, .. } => *people,
        Event::Beat => panic!("a beat"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_begins_with_the_answer_and_goes_on_with_each_newer_one() {
    let server = server_with_live_updates().await;
    let mut stream = EventStream::open(&server, &[]).await;
    assert_eq!(people(&stream.next().await), Some(1));
    for expected in [2, 3] {
        commit(&server, expected);
        assert_eq!(people(&stream.next().await), Some(expected as u64));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_moves_with_a_pending_submission_and_shows_no_number_of_it() {
    let server = server_with_live_updates().await;
    let mut stream = EventStream::open(&server, &[]).await;
    let shown = [(0, [5_000, 5_000])];
    let Event::Aggregate { id: first, people: Some(1) } = stream.next().await else { panic!() };
    let totals = pending_totals(&shown, &[(2, [0, 10_000])]);
    server.cache.put("town", Some(combined(&totals)));
    server.store.put("town", totals);
    server.cache.send_update(changed("town"));
    let Event::Aggregate { id, people: Some(1) } = stream.next().await else { panic!() };
    assert!(id > first);
}

#[tokio::test(start_paused = true)]
async fn answers_that_change_faster_than_the_interval_are_skipped() {
    let server = server_with_live_updates().await;
    let mut stream = EventStream::open(&server, &[]).await;
    assert_eq!(people(&stream.next().await), Some(1));
    let (began, mut events, mut last) = (Instant::now(), 0, 1);
    let committing = server.clone();
    let commits = tokio::spawn(async move {
        for count in 2..=100 {
            commit(&committing, count);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    while last < 100 {
        let shown = people(&stream.next().await).unwrap();
        assert!(shown > last, "{shown} after {last}");
        (events, last) = (events + 1, shown);
    }
    commits.await.unwrap();
    let most = began.elapsed().as_millis() / 250 + 1;
    assert!(events <= most, "{events} events in {:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_change_reaches_many_idle_streams_at_different_moments() {
    const STREAMS: usize = 500;
    /// What so many streams add to the interval, in milliseconds.
    const LOAD_MS: u128 = 50;
    let server = server_with_live_updates().await;
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = EventStream::open(&server, &[]).await;
        assert_eq!(people(&stream.next().await), Some(1));
        streams.push(stream);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let began = Instant::now();
    let mut waiting = tokio::task::JoinSet::new();
    for mut stream in streams {
        waiting.spawn(async move {
            assert_eq!(people(&stream.next().await), Some(2));
            began.elapsed().as_millis()
        });
    }
    commit(&server, 2);
    let after = waiting.join_all().await;
    let (first, last) = (after.iter().min().unwrap(), after.iter().max().unwrap());
    // The clock of the test is exact to a millisecond.
    assert!((LOAD_MS / 2..=LOAD_MS + 2).contains(&(last - first)), "{first} to {last} ms");
}

#[tokio::test(start_paused = true)]
async fn an_idle_stream_has_a_beat_at_each_interval() {
    let server = server_with_live_updates().await;
    let mut stream = EventStream::open(&server, &[]).await;
    stream.next().await;
    for _ in 0..5 {
        let began = Instant::now();
        assert_eq!(stream.next().await, Event::Beat);
        assert!(began.elapsed() <= BEAT_INTERVAL);
    }
    commit(&server, 2);
    assert_eq!(people(&stream.next().await), Some(2), "the budget was no longer refreshed");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_resumes_gets_nothing_that_it_has_seen_and_nothing_older() {
    let server = server_with_live_updates().await;
    let first = EventStream::open(&server, &[]).await.next().await;
    let Event::Aggregate { id: seen, .. } = first else { panic!("{first:?}") };
    let mut resumed = EventStream::open(&server, &[("last-event-id", &seen)]).await;
    assert_eq!(resumed.next().await, Event::Beat);
    commit(&server, 2);
    let second = resumed.next().await;
    assert_eq!(people(&second), Some(2));

    // Another instance has shown three people already.
    let ahead =
        schemas::AggregateVersion::of(&combined(&partition_totals(&[(0, [5_000, 5_000]); 3])));
    let ahead = ahead.to_string();
    let mut behind = EventStream::open(&server, &[("last-event-id", &ahead)]).await;
    assert_eq!(behind.next().await, Event::Beat);
    commit(&server, 3);
    commit(&server, 4);
    assert_eq!(people(&behind.next().await), Some(4));

    let mut unknown = EventStream::open(&server, &[("last-event-id", "zzz")]).await;
    assert_eq!(people(&unknown.next().await), Some(4));
}

#[tokio::test(start_paused = true)]
async fn streams_are_limited_in_total_and_per_client_and_make_room_when_they_end() {
    let limits = [("api.max_streams", "3"), ("api.max_streams_per_client", "2")];
    let server = TestServer::with_settings(&limits).until_ready().await;
    server.commit("town", &[(0, [5_000, 5_000])]);
    let client = [("x-forwarded-for", "203.0.113.7")];
    let open = [server.open_with(PATH, &client).await, server.open_with(PATH, &client).await];
    assert_eq!(server.metric("allocator_api_streams"), 2.0);
    let refused = server.open_with(PATH, &client).await;
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));
    drop(open);
    assert_eq!(server.metric("allocator_api_streams"), 0.0);
    assert_eq!(server.open_with(PATH, &client).await.status(), 200);

    let server = TestServer::with_settings(&[("api.max_streams", "1")]).until_ready().await;
    server.commit("town", &[(0, [5_000, 5_000])]);
    let _open = server.open(PATH).await;
    let refused = server.open(PATH).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
}

#[tokio::test(start_paused = true)]
async fn withheld_results_are_streamed_without_people_and_shown_once_they_are_final() {
    let server = server_with_live_updates().await;
    let closes_at = jiff::Timestamp::now() + jiff::SignedDuration::from_millis(1_500);
    server.definitions.put(schemas::Budget {
        closes_at: Some(closes_at),
        results: schemas::ResultsVisibility::AfterClose,
        revision: 2,
        ..budget("town")
    });
    while server.aggregate("town").await.json()["withheld"].is_null() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut stream = EventStream::open(&server, &[]).await;
    assert_eq!(people(&stream.next().await), None);
    server.commit_closed("town", &[(0, [5_000, 5_000])], &[0, 1, 2]);
    server.cache.send_update(changed("town"));
    let shown = timeout(Duration::from_secs(86_400), async {
        loop {
            if let Event::Aggregate { people: Some(people), .. } = stream.next().await {
                return people;
            }
        }
    });
    assert_eq!(shown.await, Ok(1));
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_an_unknown_budget_is_not_found() {
    let server = TestServer::new().until_ready().await;
    assert_eq!(server.get("/v1/budgets/nowhere/aggregate/stream").await.status, 404);
}

#[tokio::test(start_paused = true)]
async fn a_stream_shows_rebuilt_totals_that_end_earlier_and_resumes_behind_them() {
    let server = server_with_live_updates().await;
    let mut stream = EventStream::open(&server, &[]).await;
    assert_eq!(people(&stream.next().await), Some(1));
    commit(&server, 3);
    let Event::Aggregate { id: before, people: Some(3) } = stream.next().await else { panic!() };
    server.store.switch_generation(2, 2);
    server.store.put("town", partition_totals(&[(0, [5_000, 5_000]); 2]));
    server.cache.put("town", None);
    server.cache.send_update(changed("town"));
    let aggregate = async {
        loop {
            match stream.next().await {
                Event::Beat => {}
                aggregate => break aggregate,
            }
        }
    };
    let next = timeout(Duration::from_secs(70), aggregate).await.unwrap();
    let Event::Aggregate { id: after, people: Some(2) } = next else { panic!("{next:?}") };
    assert!(after > before);
    // A reader that had the earlier generation's version gets the correction at once.
    let mut resumed = EventStream::open(&server, &[("last-event-id", &before)]).await;
    assert_eq!(people(&resumed.next().await), Some(2));
    let mut current = EventStream::open(&server, &[("last-event-id", &after)]).await;
    assert_eq!(current.next().await, Event::Beat);
}
