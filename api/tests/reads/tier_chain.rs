//! The tier chain: failures of each tier, alone and together; circuit breakers; single flight.

use std::sync::atomic::Ordering;
use std::time::Duration;

use schemas::{Offset, PartitionId, PersonKey};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, advance};

use crate::fakes::Mode::{self, Fails, Hangs, Works};
use crate::test_server::*;

/// Longer than an answer is fresh without cache updates.
const AFTER_FRESHNESS: Duration = Duration::from_millis(30);

fn switch(server: &TestServer, redis: Mode, summary: Mode, people: Mode) {
    server.cache.switch.set(redis);
    server.store.totals_switch.set(summary);
    server.store.people_switch.set(people);
}

/// Sets one person's submission in all three tiers.
fn set_one_person(server: &TestServer, budget: &str) {
    server.commit(budget, &[(1, [2_500, 7_500])]);
    let person = PersonKey::from_bytes([9; 16]);
    server.store.put_row(PartitionId(1), row(person, budget, 0, &[2_500, 7_500]));
}

#[tokio::test(start_paused = true)]
async fn the_first_working_tier_answers_for_every_combination_of_failures() {
    let modes = [Works, Fails, Hangs];
    for redis in modes {
        for summary in modes {
            for people in modes {
                let server = TestServer::new();
                set_one_person(&server, "town");
                switch(&server, redis, summary, people);
                let got = server.aggregate("town").await;
                let expected = match (redis, summary, people) {
                    (Works, _, _) => "redis",
                    (_, Works, _) => "summary",
                    (_, _, Works) => "recount",
                    _ => {
                        assert_eq!(got.status, 503);
                        assert!(got.json()["type"].as_str().unwrap().ends_with("/unavailable"));
                        assert_eq!(got.header("retry-after"), "1");
                        continue;
                    }
                };
                let case = format!("{redis:?} {summary:?} {people:?}");
                assert_eq!(got.people(), 1, "{case}");
                assert_eq!(got.tier(), expected, "{case}");
                assert_eq!(server.aggregate("town").await.tier(), "memory", "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_with_empty_memory_serves_the_committed_totals_though_redis_lags() {
    let ahead = TestServer::new().until_ready().await;
    ahead.commit("town", &[(0, [5_000, 5_000]), (1, [0, 10_000])]);
    let lagging = TestServer::new().until_ready().await;
    lagging.commit("town", &[(0, [5_000, 5_000])]);
    ahead.cache.put("town", lagging.cache.get("town"));
    let got = ahead.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (2, "summary"));
}

#[tokio::test(start_paused = true)]
async fn cache_status_names_the_missed_tiers_before_the_answering_one() {
    let server = TestServer::new();
    set_one_person(&server, "town");
    server.cache.put("town", None);
    let got = server.aggregate("town").await;
    assert_eq!(
        got.header("cache-status"),
        "allocator-memory; fwd=miss, allocator-redis; fwd=miss, allocator-summary; hit"
    );
    assert_eq!(server.aggregate("town").await.header("cache-status"), "allocator-memory; hit");
}

#[tokio::test(start_paused = true)]
async fn damaged_totals_in_redis_are_skipped() {
    let server = TestServer::new();
    set_one_person(&server, "town");
    let mut damaged = combined(&partition_totals(&[(0, [5_000, 5_000]), (0, [5_000, 5_000])]));
    damaged.categories[0].basis_points += 1;
    server.cache.put("town", Some(damaged));
    let got = server.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (1, "summary"));
}

#[tokio::test(start_paused = true)]
async fn a_summary_without_one_partition_is_no_answer() {
    let server = TestServer::new();
    set_one_person(&server, "town");
    server.cache.put("town", None);
    let mut partition_totals = partition_totals(&[(1, [2_500, 7_500])]);
    partition_totals[2] = None;
    server.store.put("town", partition_totals);
    assert_eq!(server.aggregate("town").await.tier(), "recount");
}

#[tokio::test(start_paused = true)]
async fn a_recount_counts_each_person_once_and_no_withdrawn_person() {
    let server = TestServer::new();
    for (person, partition, offset, shares) in
        [(1, 0, 4, &[10_000, 0][..]), (2, 0, 7, &[]), (3, 2, 1, &[3_333, 6_667])]
    {
        let person = PersonKey::from_bytes([person; 16]);
        server.store.put_row(PartitionId(partition), row(person, "town", offset, shares));
    }
    let other = PersonKey::from_bytes([4; 16]);
    server.store.put_row(PartitionId(1), row(other, "park", 90, &[5_000, 5_000]));
    switch(&server, Fails, Fails, Works);
    let body = server.aggregate("town").await.json();
    assert_eq!(body["people"], 2);
    assert_eq!(body["updated_at"], serde_json::Value::Null);
    assert_eq!(body["categories"][0]["total_basis_points"], 13_333);
    assert_eq!(body["categories"][0]["median_percent"].to_string(), "66.5");
    let expected = schemas::AggregateVersion::of(&schemas::CombinedTotals {
        term: schemas::Term::FIRST,
        positions: vec![Offset(7).next(), schemas::Position::START, Offset(1).next()],
        people: 2,
        updated_at_ms: 0,
        categories: Vec::new(),
        closed_partitions: 0,
        annulled: 0,
    });
    assert_eq!(body["version"], expected.to_string());
}

#[tokio::test(start_paused = true)]
async fn when_every_tier_fails_the_last_answer_is_served_with_its_age() {
    let server = TestServer::new();
    set_one_person(&server, "town");
    server.aggregate("town").await;
    for mode in [Fails, Hangs] {
        switch(&server, mode, mode, mode);
        advance(Duration::from_secs(7)).await;
        let got = server.aggregate("town").await;
        assert_eq!((got.people(), got.tier()), (1, "stale"));
        assert!(got.header("age").parse::<u64>().unwrap() >= 7);
        assert!(
            got.header("cache-status")
                .starts_with("allocator-memory; fwd=miss, allocator-redis; fwd=miss")
        );
    }
    switch(&server, Works, Works, Works);
    advance(Duration::from_secs(3)).await;
    wait_until("fresh again", || {
        server.metric("allocator_api_breaker_state{tier=\"redis\"}") == 0.0
    })
    .await;
    assert_eq!(server.aggregate("town").await.header("age"), "0");
}

#[tokio::test(start_paused = true)]
async fn committed_totals_are_never_replaced_by_a_recount() {
    let server = TestServer::new();
    server.commit("town", &[(1, [2_500, 7_500]), (1, [0, 10_000])]);
    assert_eq!(server.aggregate("town").await.people(), 2);
    // The rows lag: only the second person's row is written.
    server
        .store
        .put_row(PartitionId(1), row(PersonKey::from_bytes([1; 16]), "town", 1, &[0, 10_000]));
    switch(&server, Fails, Fails, Works);
    advance(Duration::from_secs(60)).await;
    let got = server.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (2, "stale"));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_redis_delays_few_reads_and_is_used_again_once_it_recovers() {
    let server = TestServer::new().until_ready().await;
    set_one_person(&server, "town");
    server.aggregate("town").await;
    server.cache.switch.set(Hangs);
    let mut slow = 0;
    // Three seconds of reads, so that the breaker probes several times.
    for _ in 0..100 {
        advance(AFTER_FRESHNESS).await;
        let started = Instant::now();
        assert_eq!(server.aggregate("town").await.people(), 1);
        slow += u32::from(started.elapsed() > Duration::from_millis(5));
    }
    assert!((1..=3).contains(&slow), "{slow} reads waited for the dead tier");
    assert!(
        server.metric("allocator_api_reads_total{outcome=\"passed_over\",tier=\"redis\"}") > 10.0
    );

    server.cache.switch.set(Works);
    let redis_hits = "allocator_api_reads_total{outcome=\"hit\",tier=\"redis\"}";
    let before = server.metric(redis_hits);
    advance(Duration::from_millis(1_500)).await;
    server.aggregate("town").await;
    wait_until("used again", || server.metric(redis_hits) > before).await;
    advance(AFTER_FRESHNESS).await;
    assert_eq!(server.aggregate("town").await.tier(), "redis");
}

#[tokio::test(start_paused = true)]
async fn a_warm_budget_does_not_wait_for_the_store_with_a_cold_one() {
    let server = TestServer::new().until_ready().await;
    set_one_person(&server, "town");
    server.aggregate("town").await;
    switch(&server, Works, Hangs, Works);
    advance(AFTER_FRESHNESS).await;
    let both = tokio::spawn({
        let server = server.clone();
        async move { server.get("/v1/aggregates?budget=town&budget=park").await }
    });
    while server.store.reads_of("park") == 0 {
        yield_now().await;
    }
    // A client requested both, and from now on the background task fetches both, since both were recently read.
    for _ in 0..50 {
        let started = Instant::now();
        assert_eq!(server.aggregate("town").await.people(), 1);
        assert!(started.elapsed() < Duration::from_millis(5), "{:?}", started.elapsed());
        tokio::time::sleep(AFTER_FRESHNESS).await;
    }
    assert_eq!(both.await.unwrap().status, 200);
}

/// Starts a hundred concurrent readers, and checks that none has an answer yet.
async fn start_hundred_readers(server: &TestServer) -> JoinSet<TestResponse> {
    let mut readers = JoinSet::new();
    for _ in 0..100 {
        let server = server.clone();
        readers.spawn(async move { server.aggregate("town").await });
    }
    for _ in 0..1_000 {
        yield_now().await;
    }
    assert!(readers.try_join_next().is_none());
    readers
}

#[tokio::test(start_paused = true)]
async fn a_hundred_concurrent_readers_cost_one_read_of_the_answering_tier() {
    let server = TestServer::new().until_ready().await;
    set_one_person(&server, "town");
    switch(&server, Hangs, Works, Works);
    let readers = start_hundred_readers(&server).await;
    switch(&server, Works, Works, Works);
    assert!(readers.join_all().await.iter().all(|got| got.tier() == "redis"));
    assert_eq!(server.cache.reads_of("town"), 1);

    let server = TestServer::new().until_ready().await;
    set_one_person(&server, "town");
    switch(&server, Fails, Hangs, Works);
    let readers = start_hundred_readers(&server).await;
    switch(&server, Fails, Works, Works);
    assert!(readers.join_all().await.iter().all(|got| got.tier() == "summary"));
    assert_eq!((server.cache.reads_of("town"), server.store.reads_of("town")), (1, 1));

    let server = TestServer::new().until_ready().await;
    set_one_person(&server, "town");
    switch(&server, Fails, Fails, Hangs);
    let readers = start_hundred_readers(&server).await;
    switch(&server, Fails, Fails, Works);
    assert!(readers.join_all().await.iter().all(|got| got.tier() == "recount"));
    assert_eq!(server.store.scans.load(Ordering::SeqCst), 3 * schemas::buckets().count());
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_reader_does_not_cancel_the_fetch_of_others() {
    let server = TestServer::new().until_ready().await;
    set_one_person(&server, "town");
    server.cache.switch.set(Hangs);
    let first = tokio::spawn({
        let server = server.clone();
        async move { server.aggregate("town").await }
    });
    while server.cache.reads_of("town") == 0 {
        yield_now().await;
    }
    let second = tokio::spawn({
        let server = server.clone();
        async move { server.aggregate("town").await }
    });
    yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    server.cache.switch.set(Works);
    assert_eq!(second.await.unwrap().people(), 1);
    assert_eq!(server.cache.reads_of("town"), 1);
}
