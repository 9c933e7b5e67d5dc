//! "At least my submission".

use std::time::Duration;

use schemas::{PartitionId, PersonKey};
use storage::cache::CacheUpdate;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::fakes::{Mode, id};
use crate::world::*;

const ONE: &[(u32, [u16; 2])] = &[(1, [5_000, 5_000])];
const TWO: &[(u32, [u16; 2])] = &[(1, [5_000, 5_000]), (1, [0, 10_000])];

fn reader(
    world: &World,
    headers: &'static [(&'static str, &'static str)],
) -> JoinHandle<(Got, Duration)> {
    let world = world.clone();
    tokio::spawn(async move {
        let started = Instant::now();
        let got = world.get_with("/v1/budgets/town/aggregate", headers).await;
        (got, started.elapsed())
    })
}

#[tokio::test(start_paused = true)]
async fn a_counted_submission_is_answered_at_once_by_header_or_query() {
    let world = World::new();
    world.commit("town", TWO);
    let (got, took) =
        reader(&world, &[("consistency-token", "1.1"), ("prefer", "wait=10")]).await.unwrap();
    assert_eq!((got.people(), got.header("preference-applied")), (2, "wait=10"));
    assert!(took < Duration::from_millis(10));
    assert_eq!(world.get("/v1/budgets/town/aggregate?at_least=1.1").await.people(), 2);
    assert_eq!(world.get("/v1/aggregates?budget=park&budget=town&at_least=1.1").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn without_a_wait_memory_is_looked_behind_once_before_saying_no() {
    let world = World::new();
    world.commit("town", ONE);
    world.aggregate("town").await;
    let got = world.get("/v1/budgets/town/aggregate?at_least=1.1").await;
    assert_eq!(got.status, 412);
    assert_eq!(got.json()["type"], "/problems/not-yet-visible");
    // Committed at the same instant, while memory is still fresh.
    world.commit("town", TWO);
    assert_eq!(world.get("/v1/budgets/town/aggregate?at_least=1.1").await.people(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_is_woken_by_the_news() {
    let world = World::new().settled().await;
    world.commit("town", ONE);
    world.aggregate("town").await;
    world.cache.tell(CacheUpdate::Resumed);
    let waiting = reader(&world, &[("consistency-token", "1.1"), ("prefer", "wait=5")]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let asked = world.cache.asked("town");
    assert!(asked < 10, "{asked} fetches while waiting");
    world.commit("town", TWO);
    world.cache.tell(CacheUpdate::Moved(id("town")));
    let (got, took) = waiting.await.unwrap();
    assert_eq!((got.people(), got.header("preference-applied")), (2, "wait=5"));
    assert!(took < Duration::from_millis(215), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn without_news_a_waiting_reader_looks_along_the_chain() {
    let world = World::new().settled().await;
    world.cache.tell(CacheUpdate::Interrupted);
    world.cache.switch.set(Mode::Fails);
    world.commit("town", ONE);
    let waiting = reader(&world, &[("consistency-token", "1.1"), ("prefer", "wait=5")]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.commit("town", TWO);
    let (got, took) = waiting.await.unwrap();
    assert_eq!(got.people(), 2);
    assert!(took < Duration::from_millis(330), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_it_said_and_says_not_yet() {
    let world = World::new().settled().await;
    world.commit("town", ONE);
    let (got, took) =
        reader(&world, &[("consistency-token", "1.1"), ("prefer", "wait=3")]).await.unwrap();
    assert_eq!((got.status.as_u16(), got.header("preference-applied")), (412, "wait=3"));
    assert_eq!(took.as_secs(), 3);
    // Also when the tiers hang and a look takes longer than the wait.
    world.cache.switch.set(Mode::Hangs);
    world.store.totals_switch.set(Mode::Hangs);
    let (got, took) =
        reader(&world, &[("consistency-token", "1.1"), ("prefer", "wait=1")]).await.unwrap();
    assert_eq!((got.status.as_u16(), took.as_secs()), (412, 1));
}

#[tokio::test(start_paused = true)]
async fn a_recount_promises_no_submission() {
    let world = World::new();
    world
        .store
        .put_row(PartitionId(1), row(PersonKey::from_bytes([3; 16]), "town", 5, &[5_000, 5_000]));
    world.cache.switch.set(Mode::Fails);
    world.store.totals_switch.set(Mode::Fails);
    assert_eq!(world.aggregate("town").await.tier(), "recount");
    assert_eq!(world.get("/v1/budgets/town/aggregate?at_least=1.5").await.status, 412);
}

#[tokio::test(start_paused = true)]
async fn waiters_are_bounded_and_their_places_come_back() {
    let world = World::with(&[("api.max_waiters", "2")]).settled().await;
    world.commit("town", ONE);
    let headers: &[_] = &[("consistency-token", "1.1"), ("prefer", "wait=2")];
    let waiting = [reader(&world, headers), reader(&world, headers)];
    until("both wait", || world.metric("allocator_api_waiting_reads") == 2.0).await;
    let (refused, took) = reader(&world, headers).await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
    assert!(took < Duration::from_secs(1));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().0.status, 412);
    }
    assert_eq!(world.metric("allocator_api_waiting_reads"), 0.0);
    assert_eq!(reader(&world, headers).await.unwrap().0.status, 412);
}

#[tokio::test(start_paused = true)]
async fn what_is_no_receipt_or_no_wait_is_named_all_at_once() {
    let world = World::new();
    let got = world
        .get_with(
            "/v1/budgets/town/aggregate?include=all",
            &[("consistency-token", "3.0"), ("prefer", "wait=1.5")],
        )
        .await;
    assert_eq!(got.status, 400);
    let body = got.json();
    let named: Vec<&str> =
        body["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    assert_eq!(named, ["include", "Consistency-Token", "Prefer"]);
    for path in
        ["/v1/aggregates?budget=town&at_least=x", "/v1/budgets/town/submissions/p?at_least=9.9"]
    {
        assert_eq!(world.get(path).await.status, 400, "{path}");
    }
}
