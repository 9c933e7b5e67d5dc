//! "At least my submission".

use std::sync::atomic::Ordering;
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
            &[("consistency-token", "1024.0"), ("prefer", "wait=1.5")],
        )
        .await;
    assert_eq!(got.status, 400);
    let body = got.json();
    let named: Vec<&str> =
        body["errors"].as_array().unwrap().iter().map(|e| e["pointer"].as_str().unwrap()).collect();
    assert_eq!(named, ["include", "Consistency-Token", "Prefer"]);
    for path in
        ["/v1/aggregates?budget=town&at_least=x", "/v1/budgets/town/submissions/p?at_least=1024.9"]
    {
        assert_eq!(world.get(path).await.status, 400, "{path}");
    }
}

/// A read of two budgets at least as of the second record of partition 1.
const BOTH: &str = "/v1/aggregates?budget=park&budget=town&at_least=1.1";

fn people_of_both(got: &Got) -> [u64; 2] {
    assert_eq!(got.status, 200, "{}", got.text);
    let body = got.json();
    [0, 1].map(|at| body["aggregates"][at]["people"].as_u64().unwrap())
}

/// A world in which `park` and `town` have one record each, and then both another in one commit, of which only that of
/// `park` is published.
async fn with_one_of_two_published() -> World {
    let world = World::new().settled().await;
    for budget in ["park", "town"] {
        world.commit(budget, ONE);
    }
    assert_eq!(world.get(BOTH).await.status, 412);
    world.commit("park", TWO);
    world.store.put("town", parts(TWO));
    world
}

#[tokio::test(start_paused = true)]
async fn once_one_of_several_budgets_is_past_a_receipt_all_are_shown_as_committed() {
    let world = with_one_of_two_published().await;
    let got = world.get(BOTH).await;
    assert_eq!((people_of_both(&got), got.tier()), ([2, 2], "summary"));
    // Published since, and in memory: nobody else is asked.
    world.commit("town", TWO);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let asked = world.store.asked("town");
    assert_eq!(people_of_both(&world.get(BOTH).await), [2, 2]);
    assert_eq!(world.store.asked("town"), asked);
}

#[tokio::test(start_paused = true)]
async fn while_the_committed_totals_are_away_one_budget_past_a_receipt_is_not_enough() {
    let world = with_one_of_two_published().await;
    world.store.totals_switch.set(Mode::Fails);
    assert_eq!(world.get(BOTH).await.status, 412);
    let (got, ()) = tokio::join!(world.get_with(BOTH, &[("prefer", "wait=5")]), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        world.store.totals_switch.set(Mode::Works);
    });
    assert_eq!(people_of_both(&got), [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_several_budgets_is_woken_by_the_news_of_one_and_shown_all() {
    let world = World::new().settled().await;
    for budget in ["park", "town"] {
        world.commit(budget, ONE);
    }
    world.get("/v1/aggregates?budget=park&budget=town").await;
    world.cache.tell(CacheUpdate::Resumed);
    let started = Instant::now();
    let (got, ()) = tokio::join!(world.get_with(BOTH, &[("prefer", "wait=5")]), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        world.commit("park", TWO);
        world.store.put("town", parts(TWO));
        world.cache.tell(CacheUpdate::Moved(id("park")));
    });
    assert_eq!(people_of_both(&got), [2, 2]);
    assert!(started.elapsed() < Duration::from_millis(215), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_shown_committed_totals_that_were_asked_for_before_their_own_submission() {
    const THREE: &[(u32, [u16; 2])] = &[(1, [5_000, 5_000]), (1, [0, 10_000]), (1, [0, 10_000])];
    let world = with_one_of_two_published().await;
    world.store.totals_switch.set(Mode::Hangs);
    let reader = |path: &'static str| {
        let world = world.clone();
        tokio::spawn(async move { world.get_with(path, &[("prefer", "wait=5")]).await })
    };
    let earlier = reader(BOTH);
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.commit("park", THREE);
    world.store.put("town", parts(THREE));
    let later = reader("/v1/aggregates?budget=park&budget=town&at_least=1.2");
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.store.totals_switch.set(Mode::Works);
    assert_eq!(people_of_both(&later.await.unwrap()), [3, 3]);
    assert!(people_of_both(&earlier.await.unwrap())[1] >= 2);
}

#[tokio::test(start_paused = true)]
async fn many_who_wait_for_the_same_budgets_cost_one_read_of_the_committed_totals() {
    let world = with_one_of_two_published().await;
    world.store.totals_switch.set(Mode::Hangs);
    let before = world.store.calls.load(Ordering::SeqCst);
    let readers = (0..50).map(|_| {
        let world = world.clone();
        tokio::spawn(async move { world.get_with(BOTH, &[("prefer", "wait=5")]).await })
    });
    let readers: Vec<_> = readers.collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    world.store.totals_switch.set(Mode::Works);
    for reader in readers {
        assert_eq!(people_of_both(&reader.await.unwrap()), [2, 2]);
    }
    let reads = world.store.calls.load(Ordering::SeqCst) - before;
    assert!(reads <= 2, "{reads} reads");
}
