//! Reads of "at least my submission".

use std::sync::atomic::Ordering;
use std::time::Duration;

use schemas::{PartitionId, PersonKey};
use storage::cache::CacheUpdate;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::fakes::{Mode, id};
use crate::test_server::*;

const ONE: &[(u32, [u16; 2])] = &[(1, [5_000, 5_000])];
const TWO: &[(u32, [u16; 2])] = &[(1, [5_000, 5_000]), (1, [0, 10_000])];

fn reader(
    server: &TestServer,
    headers: &'static [(&'static str, &'static str)],
) -> JoinHandle<(TestResponse, Duration)> {
    let server = server.clone();
    tokio::spawn(async move {
        let started = Instant::now();
        let got = server.get_with("/v1/budgets/town/aggregate", headers).await;
        (got, started.elapsed())
    })
}

/// Waits two seconds for the submission of a signed receipt.
fn signed_reader(server: &TestServer, token: &str) -> JoinHandle<(TestResponse, Duration)> {
    let (server, token) = (server.clone(), token.to_owned());
    tokio::spawn(async move {
        let started = Instant::now();
        let headers = [("consistency-token", &*token), ("prefer", "wait=2")];
        let got = server.get_with("/v1/budgets/town/aggregate", &headers).await;
        (got, started.elapsed())
    })
}

#[tokio::test(start_paused = true)]
async fn a_read_of_a_counted_submission_returns_at_once_by_header_or_query() {
    let server = TestServer::new();
    server.commit("town", TWO);
    let (got, took) =
        reader(&server, &[("consistency-token", "1.1"), ("prefer", "wait=10")]).await.unwrap();
    assert_eq!((got.people(), got.header("preference-applied")), (2, "wait=10"));
    assert!(took < Duration::from_millis(10));
    assert_eq!(server.get("/v1/budgets/town/aggregate?at_least=1.1").await.people(), 2);
    assert_eq!(server.get("/v1/aggregates?budget=park&budget=town&at_least=1.1").await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn without_a_wait_the_tiers_are_queried_once_before_refusing() {
    let server = TestServer::new();
    server.commit("town", ONE);
    server.aggregate("town").await;
    let got = server.get("/v1/budgets/town/aggregate?at_least=1.1").await;
    assert_eq!(got.status, 412);
    assert_eq!(got.json()["type"], "/problems/not-yet-visible");
    // Committed at the same instant, while memory is still fresh.
    server.commit("town", TWO);
    assert_eq!(server.get("/v1/budgets/town/aggregate?at_least=1.1").await.people(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_reader_is_woken_by_a_cache_update() {
    let server = TestServer::new().until_ready().await;
    server.commit("town", ONE);
    server.aggregate("town").await;
    server.cache.send_update(CacheUpdate::Resumed);
    let waiting = reader(&server, &[("consistency-token", "1.1"), ("prefer", "wait=5")]);
    tokio::time::sleep(Duration::from_millis(200)).await;
    let reads = server.cache.reads_of("town");
    assert!(reads < 10, "{reads} fetches while waiting");
    server.commit("town", TWO);
    server.cache.send_update(CacheUpdate::Changed(id("town")));
    let (got, took) = waiting.await.unwrap();
    assert_eq!((got.people(), got.header("preference-applied")), (2, "wait=5"));
    assert!(took < Duration::from_millis(215), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn without_updates_a_waiting_reader_polls_the_tiers() {
    let server = TestServer::new().until_ready().await;
    server.cache.send_update(CacheUpdate::Interrupted);
    server.cache.switch.set(Mode::Fails);
    server.commit("town", ONE);
    let waiting = reader(&server, &[("consistency-token", "1.1"), ("prefer", "wait=5")]);
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.commit("town", TWO);
    let (got, took) = waiting.await.unwrap();
    assert_eq!(got.people(), 2);
    assert!(took < Duration::from_millis(330), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_at_its_deadline_with_not_yet_visible() {
    let server = TestServer::new().until_ready().await;
    server.commit("town", ONE);
    let (got, took) =
        reader(&server, &[("consistency-token", "1.1"), ("prefer", "wait=3")]).await.unwrap();
    assert_eq!((got.status.as_u16(), got.header("preference-applied")), (412, "wait=3"));
    assert_eq!(took.as_secs(), 3);
    // Also when the tiers hang and a query takes longer than the wait.
    server.cache.switch.set(Mode::Hangs);
    server.store.totals_switch.set(Mode::Hangs);
    let (got, took) =
        reader(&server, &[("consistency-token", "1.1"), ("prefer", "wait=1")]).await.unwrap();
    assert_eq!((got.status.as_u16(), took.as_secs()), (412, 1));
}

#[tokio::test(start_paused = true)]
async fn a_recount_satisfies_no_receipt() {
    let server = TestServer::new();
    server
        .store
        .put_row(PartitionId(1), row(PersonKey::from_bytes([3; 16]), "town", 5, &[5_000, 5_000]));
    server.cache.switch.set(Mode::Fails);
    server.store.totals_switch.set(Mode::Fails);
    assert_eq!(server.aggregate("town").await.tier(), "recount");
    assert_eq!(server.get("/v1/budgets/town/aggregate?at_least=1.5").await.status, 412);
}

#[tokio::test(start_paused = true)]
async fn waiting_reads_are_limited_and_release_their_permits() {
    let server = TestServer::with_settings(&[("api.max_waiters", "2")]).until_ready().await;
    server.commit("town", ONE);
    let token =
        server.person_secret.receipt_signer().sign(&id("town"), "1.1".parse().unwrap()).to_string();
    let reader = || signed_reader(&server, &token);
    let waiting = [reader(), reader()];
    wait_until("both reads wait", || server.metric("allocator_api_waiting_reads") == 2.0).await;
    let (refused, took) = reader().await.unwrap();
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (503, "1"));
    assert!(took < Duration::from_secs(1));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().0.status, 412);
    }
    assert_eq!(server.metric("allocator_api_waiting_reads"), 0.0);
    assert_eq!(reader().await.unwrap().0.status, 412);
}

#[tokio::test(start_paused = true)]
async fn all_invalid_receipts_and_waits_are_reported_together() {
    let server = TestServer::new();
    let got = server
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
        assert_eq!(server.get(path).await.status, 400, "{path}");
    }
}

/// Reads two budgets, at least up to the second record of partition 1.
const BOTH: &str = "/v1/aggregates?budget=park&budget=town&at_least=1.1";

fn people_of_both(got: &TestResponse) -> [u64; 2] {
    assert_eq!(got.status, 200, "{}", got.text);
    let body = got.json();
    [0, 1].map(|at| body["aggregates"][at]["people"].as_u64().unwrap())
}

/// Creates a server with a second commit that is published for one budget only. `park` and `town` have one record each
/// in both commits; of the second one only `park`'s is published.
async fn server_with_one_of_two_published() -> TestServer {
    let server = TestServer::new().until_ready().await;
    for budget in ["park", "town"] {
        server.commit(budget, ONE);
    }
    assert_eq!(server.get(BOTH).await.status, 412);
    server.commit("park", TWO);
    server.store.put("town", partition_totals(TWO));
    server
}

#[tokio::test(start_paused = true)]
async fn once_one_budget_counts_a_receipt_all_are_served_from_the_committed_totals() {
    let server = server_with_one_of_two_published().await;
    let got = server.get(BOTH).await;
    assert_eq!((people_of_both(&got), got.tier()), ([2, 2], "summary"));
    // Published since, and in memory: the store is not read.
    server.commit("town", TWO);
    tokio::time::sleep(Duration::from_millis(600)).await;
    let reads = server.store.reads_of("town");
    assert_eq!(people_of_both(&server.get(BOTH).await), [2, 2]);
    assert_eq!(server.store.reads_of("town"), reads);
}

#[tokio::test(start_paused = true)]
async fn without_the_committed_totals_one_budget_past_a_receipt_is_not_enough() {
    let server = server_with_one_of_two_published().await;
    server.store.totals_switch.set(Mode::Fails);
    assert_eq!(server.get(BOTH).await.status, 412);
    let (got, ()) = tokio::join!(server.get_with(BOTH, &[("prefer", "wait=5")]), async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.store.totals_switch.set(Mode::Works);
    });
    assert_eq!(people_of_both(&got), [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_of_several_budgets_is_woken_by_an_update_of_one_and_gets_all() {
    let server = TestServer::new().until_ready().await;
    for budget in ["park", "town"] {
        server.commit(budget, ONE);
    }
    server.get("/v1/aggregates?budget=park&budget=town").await;
    server.cache.send_update(CacheUpdate::Resumed);
    let started = Instant::now();
    let (got, ()) = tokio::join!(server.get_with(BOTH, &[("prefer", "wait=5")]), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        server.commit("park", TWO);
        server.store.put("town", partition_totals(TWO));
        server.cache.send_update(CacheUpdate::Changed(id("park")));
    });
    assert_eq!(people_of_both(&got), [2, 2]);
    assert!(started.elapsed() < Duration::from_millis(215), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn no_reader_joins_a_read_of_committed_totals_that_began_before_its_submission() {
    const THREE: &[(u32, [u16; 2])] = &[(1, [5_000, 5_000]), (1, [0, 10_000]), (1, [0, 10_000])];
    let server = server_with_one_of_two_published().await;
    server.store.totals_switch.set(Mode::Hangs);
    let reader = |path: &'static str| {
        let server = server.clone();
        tokio::spawn(async move { server.get_with(path, &[("prefer", "wait=5")]).await })
    };
    let earlier = reader(BOTH);
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.commit("park", THREE);
    server.store.put("town", partition_totals(THREE));
    let later = reader("/v1/aggregates?budget=park&budget=town&at_least=1.2");
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.store.totals_switch.set(Mode::Works);
    assert_eq!(people_of_both(&later.await.unwrap()), [3, 3]);
    assert!(people_of_both(&earlier.await.unwrap())[1] >= 2);
}

#[tokio::test(start_paused = true)]
async fn many_readers_waiting_for_the_same_budgets_cost_one_read_of_the_committed_totals() {
    let server = server_with_one_of_two_published().await;
    server.store.totals_switch.set(Mode::Hangs);
    let before = server.store.reads.load(Ordering::SeqCst);
    let readers = (0..50).map(|_| {
        let server = server.clone();
        tokio::spawn(async move { server.get_with(BOTH, &[("prefer", "wait=5")]).await })
    });
    let readers: Vec<_> = readers.collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    server.store.totals_switch.set(Mode::Works);
    for reader in readers {
        assert_eq!(people_of_both(&reader.await.unwrap()), [2, 2]);
    }
    let reads = server.store.reads.load(Ordering::SeqCst) - before;
    assert!(reads <= 2, "{reads} reads");
}
