//! Every tier's failure, alone and together; breakers; single flight.

use std::sync::atomic::Ordering;
use std::time::Duration;

use schemas::{Offset, PartitionId, PersonKey};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, advance};

use crate::fakes::Mode::{self, Fails, Hangs, Works};
use crate::world::*;

/// Longer than an answer is trusted without news.
const NO_LONGER_FRESH: Duration = Duration::from_millis(30);

fn switch(world: &World, redis: Mode, summary: Mode, people: Mode) {
    world.cache.switch.set(redis);
    world.store.totals_switch.set(summary);
    world.store.people_switch.set(people);
}

/// One person, in all three tiers.
fn one_person(world: &World, budget: &str) {
    world.commit(budget, &[(1, [2_500, 7_500])]);
    let person = PersonKey::from_bytes([9; 16]);
    world.store.put_row(PartitionId(1), row(person, budget, 0, &[2_500, 7_500]));
}

#[tokio::test(start_paused = true)]
async fn the_first_tier_that_works_answers_whatever_the_others_do() {
    let modes = [Works, Fails, Hangs];
    for redis in modes {
        for summary in modes {
            for people in modes {
                let world = World::new();
                one_person(&world, "town");
                switch(&world, redis, summary, people);
                let got = world.aggregate("town").await;
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
                assert_eq!(world.aggregate("town").await.tier(), "memory", "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_remembers_nothing_shows_what_is_committed_though_redis_lags() {
    let ahead = World::new().settled().await;
    ahead.commit("town", &[(0, [5_000, 5_000]), (1, [0, 10_000])]);
    let lagging = World::new().settled().await;
    lagging.commit("town", &[(0, [5_000, 5_000])]);
    ahead.cache.put("town", lagging.cache.get("town"));
    let got = ahead.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (2, "summary"));
}

#[tokio::test(start_paused = true)]
async fn the_tiers_passed_over_are_named_before_the_one_that_answers() {
    let world = World::new();
    one_person(&world, "town");
    world.cache.put("town", None);
    let got = world.aggregate("town").await;
    assert_eq!(
        got.header("cache-status"),
        "allocator-memory; fwd=miss, allocator-redis; fwd=miss, allocator-summary; hit"
    );
    assert_eq!(world.aggregate("town").await.header("cache-status"), "allocator-memory; hit");
}

#[tokio::test(start_paused = true)]
async fn a_damaged_copy_is_passed_over() {
    let world = World::new();
    one_person(&world, "town");
    let mut damaged = merged(&parts(&[(0, [5_000, 5_000]), (0, [5_000, 5_000])]));
    damaged.categories[0].basis_points += 1;
    world.cache.put("town", Some(damaged));
    let got = world.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (1, "summary"));
}

#[tokio::test(start_paused = true)]
async fn a_summary_that_lacks_a_partition_is_no_answer() {
    let world = World::new();
    one_person(&world, "town");
    world.cache.put("town", None);
    let mut parts = parts(&[(1, [2_500, 7_500])]);
    parts[2] = None;
    world.store.put("town", parts);
    assert_eq!(world.aggregate("town").await.tier(), "recount");
}

#[tokio::test(start_paused = true)]
async fn a_recount_counts_everyone_once_and_no_one_who_withdrew() {
    let world = World::new();
    for (person, partition, offset, shares) in
        [(1, 0, 4, &[10_000, 0][..]), (2, 0, 7, &[]), (3, 2, 1, &[3_333, 6_667])]
    {
        let person = PersonKey::from_bytes([person; 16]);
        world.store.put_row(PartitionId(partition), row(person, "town", offset, shares));
    }
    let other = PersonKey::from_bytes([4; 16]);
    world.store.put_row(PartitionId(1), row(other, "park", 90, &[5_000, 5_000]));
    switch(&world, Fails, Fails, Works);
    let body = world.aggregate("town").await.json();
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
    });
    assert_eq!(body["version"], expected.to_string());
}

#[tokio::test(start_paused = true)]
async fn when_everything_fails_the_last_known_answer_is_served_with_its_age() {
    let world = World::new();
    one_person(&world, "town");
    world.aggregate("town").await;
    for mode in [Fails, Hangs] {
        switch(&world, mode, mode, mode);
        advance(Duration::from_secs(7)).await;
        let got = world.aggregate("town").await;
        assert_eq!((got.people(), got.tier()), (1, "stale"));
        assert!(got.header("age").parse::<u64>().unwrap() >= 7);
        assert!(
            got.header("cache-status")
                .starts_with("allocator-memory; fwd=miss, allocator-redis; fwd=miss")
        );
    }
    switch(&world, Works, Works, Works);
    advance(Duration::from_secs(3)).await;
    until("fresh again", || world.metric("allocator_api_breaker_state{tier=\"redis\"}") == 0.0)
        .await;
    assert_eq!(world.aggregate("town").await.header("age"), "0");
}

#[tokio::test(start_paused = true)]
async fn committed_totals_are_never_replaced_by_a_recount() {
    let world = World::new();
    world.commit("town", &[(1, [2_500, 7_500]), (1, [0, 10_000])]);
    assert_eq!(world.aggregate("town").await.people(), 2);
    // The rows lag: only the later person's is there.
    world
        .store
        .put_row(PartitionId(1), row(PersonKey::from_bytes([1; 16]), "town", 1, &[0, 10_000]));
    switch(&world, Fails, Fails, Works);
    advance(Duration::from_secs(60)).await;
    let got = world.aggregate("town").await;
    assert_eq!((got.people(), got.tier()), (2, "stale"));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_redis_soon_costs_nothing_and_is_used_again_when_it_is_back() {
    let world = World::new().settled().await;
    one_person(&world, "town");
    world.aggregate("town").await;
    world.cache.switch.set(Hangs);
    let mut slow = 0;
    // Three seconds of reads, so that several trials happen meanwhile.
    for _ in 0..100 {
        advance(NO_LONGER_FRESH).await;
        let started = Instant::now();
        assert_eq!(world.aggregate("town").await.people(), 1);
        slow += u32::from(started.elapsed() > Duration::from_millis(5));
    }
    assert!((1..=3).contains(&slow), "{slow} reads waited for the dead tier");
    assert!(
        world.metric("allocator_api_reads_total{outcome=\"passed_over\",tier=\"redis\"}") > 10.0
    );

    world.cache.switch.set(Works);
    let redis_hits = "allocator_api_reads_total{outcome=\"hit\",tier=\"redis\"}";
    let before = world.metric(redis_hits);
    advance(Duration::from_millis(1_500)).await;
    world.aggregate("town").await;
    until("used again", || world.metric(redis_hits) > before).await;
    advance(NO_LONGER_FRESH).await;
    assert_eq!(world.aggregate("town").await.tier(), "redis");
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_memory_knows_does_not_wait_for_the_store_with_one_that_it_does_not() {
    let world = World::new().settled().await;
    one_person(&world, "town");
    world.aggregate("town").await;
    switch(&world, Works, Hangs, Works);
    advance(NO_LONGER_FRESH).await;
    let both = tokio::spawn({
        let world = world.clone();
        async move { world.get("/v1/aggregates?budget=town&budget=park").await }
    });
    while world.store.asked("park") == 0 {
        yield_now().await;
    }
    // Asked together by a client; and from now on by the background task, since both were read lately.
    for _ in 0..50 {
        let started = Instant::now();
        assert_eq!(world.aggregate("town").await.people(), 1);
        assert!(started.elapsed() < Duration::from_millis(5), "{:?}", started.elapsed());
        tokio::time::sleep(NO_LONGER_FRESH).await;
    }
    assert_eq!(both.await.unwrap().status, 200);
}

/// A hundred readers at once, none of whom has been answered.
async fn a_hundred_readers(world: &World) -> JoinSet<Got> {
    let mut readers = JoinSet::new();
    for _ in 0..100 {
        let world = world.clone();
        readers.spawn(async move { world.aggregate("town").await });
    }
    for _ in 0..1_000 {
        yield_now().await;
    }
    assert!(readers.try_join_next().is_none());
    readers
}

#[tokio::test(start_paused = true)]
async fn a_hundred_readers_at_once_cost_one_read_of_the_tier_that_answers() {
    let world = World::new().settled().await;
    one_person(&world, "town");
    switch(&world, Hangs, Works, Works);
    let readers = a_hundred_readers(&world).await;
    switch(&world, Works, Works, Works);
    assert!(readers.join_all().await.iter().all(|got| got.tier() == "redis"));
    assert_eq!(world.cache.asked("town"), 1);

    let world = World::new().settled().await;
    one_person(&world, "town");
    switch(&world, Fails, Hangs, Works);
    let readers = a_hundred_readers(&world).await;
    switch(&world, Fails, Works, Works);
    assert!(readers.join_all().await.iter().all(|got| got.tier() == "summary"));
    assert_eq!((world.cache.asked("town"), world.store.asked("town")), (1, 1));

    let world = World::new().settled().await;
    one_person(&world, "town");
    switch(&world, Fails, Fails, Hangs);
    let readers = a_hundred_readers(&world).await;
    switch(&world, Fails, Fails, Works);
    assert!(readers.join_all().await.iter().all(|got| got.tier() == "recount"));
    assert_eq!(world.store.scans.load(Ordering::SeqCst), 3 * schemas::buckets().count());
}

#[tokio::test(start_paused = true)]
async fn a_reader_who_leaves_takes_nobody_elses_answer_along() {
    let world = World::new().settled().await;
    one_person(&world, "town");
    world.cache.switch.set(Hangs);
    let first = tokio::spawn({
        let world = world.clone();
        async move { world.aggregate("town").await }
    });
    while world.cache.asked("town") == 0 {
        yield_now().await;
    }
    let second = tokio::spawn({
        let world = world.clone();
        async move { world.aggregate("town").await }
    });
    yield_now().await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    world.cache.switch.set(Works);
    assert_eq!(second.await.unwrap().people(), 1);
    assert_eq!(world.cache.asked("town"), 1);
}
